// Package executor is the contract between the agent and whatever moves resources: addresses, file systems, applications.
//
// Every operation is idempotent and may be run twice, or after an unknown outcome. An executor never decides whether it may
// act (that is the grant's and the log's), it keeps no state of its own between calls that it could not find again by Probe,
// and it never reports what it has not seen: a doubtful outcome is Unknown, not Stopped.
package executor

import (
	"context"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// Kind names a type of resource.
type Kind string

// The kinds that exist so far.
const (
	KindServiceIP    Kind = "service_ip"
	KindPersistentIP Kind = "persistent_ip"
	KindFileSystem   Kind = "file_system"
	KindApplication  Kind = "application"
	KindVolumeGroup  Kind = "volume_group"
	KindNFSExport    Kind = "nfs_export"
	KindSubsystem    Kind = "src_subsystem" // an application that AIX's System Resource Controller runs
	KindOCF          Kind = "ocf_agent"     // an application that an OCF resource agent runs
	KindUser         Kind = "user_resource" // an application of a type that the administrator has made
	KindSystemd      Kind = "systemd_unit"  // an application that is a unit of systemd
)

// KindOf is the kind of the executor that runs an application: by its agent's class, else by its scripts.
func KindOf(a *cluster.ApplicationController) Kind {
	if a.Agent == "" {
		return KindApplication
	}
	n, err := cluster.ParseAgent(a.Agent)
	switch {
	case err != nil: // a definition with it is not accepted; nothing is registered for it
		return ""
	case n.Class == cluster.AgentOCF:
		return KindOCF
	case n.Class == cluster.AgentSystemd:
		return KindSystemd
	case strings.HasPrefix(a.Agent, cluster.AgentSRC):
		return KindSubsystem
	}
	return KindUser
}

// A Resource is one thing to move, with all its parameters resolved. Exactly one of the pointers is set, by Kind.
type Resource struct {
	Kind  Kind
	Name  string
	Group string // the resource group it belongs to; empty for persistent IPs

	IP          *Address
	VolumeGroup *VolumeGroup
	FileSystem  *cluster.FileSystem
	Export      *cluster.NFSExport
	App         *cluster.ApplicationController
}

// A VolumeGroup is a volume group with what its resource group says of it.
type VolumeGroup struct {
	cluster.VolumeGroup
	Forced     bool // FORCED_VARYON: vary on although disks are missing, when nothing else helps
	AutoImport bool // VG_AUTO_IMPORT: import it where it is not known
}

// Status is what a probe found.
type Status string

const (
	Running  Status = "running"  // all of it is there
	Stopped  Status = "stopped"  // seen to be gone
	Degraded Status = "degraded" // partly there, or there but not well
	Unknown  Status = "unknown"  // could not be seen: never to be taken for Stopped
)

// A Result is what an operation found or did, with one sentence for the operator that names the object and the cause.
type Result struct {
	Status Status
	Detail string
	Err    error // nil when the operation reached its goal (Start: Running, Stop: Stopped); for Probe, why it is Unknown
}

// An Executor handles one kind of resource. Methods may be called by several goroutines, for different resources at once; for
// one resource the caller runs one at a time. The context bounds the call: an executor returns soon after it ends, with its
// child processes killed and awaited, or with Unknown if they cannot be.
type Executor interface {
	Kind() Kind
	// Validate checks the resource against this machine without changing anything: the script exists and is safe to run,
	// the network has an interface here, the mount point can be used. It joins all that it finds wrong.
	Validate(ctx context.Context, r Resource) error
	Probe(ctx context.Context, r Resource) Result
	Start(ctx context.Context, r Resource) Result
	Stop(ctx context.Context, r Resource) Result
}

// An Announcer is an Executor whose resources must be announced to the network again after an acquisition and after a heal
// (gratuitous ARP, unsolicited neighbour advertisements).
type Announcer interface {
	Announce(ctx context.Context, r Resource) error
}

// A Mover is an Executor of resources that stand on one of several interfaces of this node. Relocate takes a resource that this
// node holds away from an interface that has failed, to one that is well, and does nothing when it stands well. It is no step of an
// acquisition: the caller holds the resource, under the same lease and generation, before and after. It takes the resource off the
// old interface before it puts it on the new one.
type Mover interface {
	Relocate(ctx context.Context, r Resource) (Relocation, error)
}

// A Relocation is what Relocate did.
type Relocation struct {
	From, To string // interfaces; From is empty when the resource had gone with its interface
	Moved    bool
	Why      string // a clause that says why To
}

// A Preparer is an Executor that can do ahead of time what a Start would wait for. Prepare changes nothing, here or elsewhere, may
// be called for resources that another node holds, and may be followed by no Start at all; a Start that comes soon after is
// quicker by it and no less careful. It returns at once when the same was prepared a moment ago.
type Preparer interface {
	Prepare(ctx context.Context, r Resource)
}

// A Restarter is an Executor of resources that a monitor may clean up and start again on the same node. method is a script of
// the administrator's, used instead of the resource's own; empty: its own. Cleanup succeeds when nothing of the resource runs
// any more, even if the method says that it failed: what it was to stop had failed already.
type Restarter interface {
	Cleanup(ctx context.Context, r Resource, method string) error
	Restart(ctx context.Context, r Resource, method string) error
}

// A Watcher is an Executor that can look at a resource as thoroughly as its monitor wants: a depth of 0 is that of Probe.
type Watcher interface {
	Monitor(ctx context.Context, r Resource, depth int) Result
}

// A Fitter is an Executor that can say of a definition, on a node that has what it needs for that, that the resource could never
// run: its agent does not take these parameters, or is of a kind that is not supported. Nil: it could, or nobody can say here.
type Fitter interface {
	Fit(ctx context.Context, r Resource) error
}

// Operations, as Timed is asked about them.
const (
	OpProbe = "probe"
	OpStart = "start"
	OpStop  = "stop"
)

// A Timed is an Executor that knows how long an operation on one of its resources may take. 0: it does not know.
type Timed interface {
	Limit(ctx context.Context, r Resource, op string) time.Duration
}

// A Registry finds the executor of a kind.
type Registry map[Kind]Executor

// NewRegistry lists the executors that this daemon has; the list stands in one visible place, in package agent's wiring.
func NewRegistry(list ...Executor) Registry {
	r := Registry{}
	for _, e := range list {
		r[e.Kind()] = e
	}
	return r
}
