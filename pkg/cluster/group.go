package cluster

import "time"

// Startup says on which nodes a group comes online when the cluster starts.
type Startup string

// Fallover says where a group goes when its node fails. The spelling is PowerHA's.
type Fallover string

// Fallback says whether a group returns when a better node comes back.
type Fallback string

// The policies, in PowerHA's abbreviations.
const (
	OnlineOnHomeNode         Startup  = "OHN"  // only on the first node of the list
	OnlineOnFirstAvailable   Startup  = "OFAN" // on the first node that joins, after the settling time
	OnlineOnAllAvailable     Startup  = "OAAN" // on every node (concurrent group)
	OnlineUsingDistribution  Startup  = "OUDP" // at most one such group per node
	FalloverToNextPriority   Fallover = "FNPN"
	FalloverUsingDNP         Fallover = "FUDNP" // dynamic node priority
	FalloverBringOffline     Fallover = "BO"
	NeverFallback            Fallback = "NFB"
	FallbackToHigherPriority Fallback = "FBHPN"
)

// DNP policies: how FUDNP chooses.
const (
	PriorityMemory = "mem"   // most free memory
	PriorityCPU    = "cpu"   // most idle CPU
	PriorityDisk   = "disk"  // least busy disk
	PriorityLeast  = "least" // lowest non-zero answer of the user's script
	PriorityMost   = "most"  // highest answer of the user's script
)

// How the file systems of a group are checked and mounted.
const (
	RecoverInParallel   = "parallel"
	RecoverSequentially = "sequential"
)

// What happens when a group cannot be released.
const (
	OnReleaseFailureError = "error" // ERROR; nothing starts elsewhere without proof
	OnReleaseFailureReset = "reset" // the node gives up its lease and is reset
)

// A ResourceGroup is what moves as one: addresses, storage, applications. It runs on exactly one node at a time, unless
// its startup policy is OAAN.
type ResourceGroup struct {
	Name string `json:"name"`
	// Nodes in order of priority; the first is the home node.
	Nodes    []string `json:"nodes"`
	Startup  Startup  `json:"startup"`
	Fallover Fallover `json:"fallover"`
	Fallback Fallback `json:"fallback"`

	NodePriorityPolicy  string        `json:"node_priority_policy,omitempty"`
	NodePriorityScript  string        `json:"node_priority_script,omitempty"`
	NodePriorityTimeout time.Duration `json:"node_priority_timeout,omitempty"`
	FallbackAt          string        `json:"fallback_at,omitempty"`

	ServiceIPs   []string `json:"service_ips,omitempty"`
	VolumeGroups []string `json:"volume_groups,omitempty"`
	FileSystems  []string `json:"file_systems,omitempty"`
	NFSExports   []string `json:"nfs_exports,omitempty"`
	Applications []string `json:"applications,omitempty"`
	// Network is the scenario format's shorthand: the group has a service IP on this network.
	Network string `json:"network,omitempty"`
	// FSBeforeIP mounts file systems before the addresses come up. PowerHA's default is false; so is ours.
	FSBeforeIP bool `json:"fs_before_ip,omitempty"`
	// RecoveryMethod is "parallel" (the default, kept as nothing: file systems that do not need each other are checked and mounted side by side) or
	// "sequential", which is PowerHA's default.
	RecoveryMethod string `json:"recovery_method,omitempty"`

	// ForcedVaryon varies the group's volume groups on although disks are missing, where the plain way fails for that reason.
	// What the missing disks held last may be lost; PowerHA's default is false, and so is ours.
	ForcedVaryon bool `json:"forced_varyon,omitempty"`
	// VGAutoImport imports a volume group of the group on a node that does not know it, before it is varied on there.
	VGAutoImport bool `json:"vg_auto_import,omitempty"`

	Priority         int    `json:"priority,omitempty"`
	OnReleaseFailure string `json:"on_release_failure,omitempty"` // default "error"
	Weight           int    `json:"weight,omitempty"`
}

// Concurrent reports whether the group may run on several nodes at once.
func (g *ResourceGroup) Concurrent() bool { return g.Startup == OnlineOnAllAvailable }

// Has reports whether node is in the group's list.
func (g *ResourceGroup) Has(node string) bool { return g.Rank(node) >= 0 }

// Rank is the node's place in the group's list, 0 for the home node, -1 for a node that is not in it.
func (g *ResourceGroup) Rank(node string) int {
	for i, n := range g.Nodes {
		if n == node {
			return i
		}
	}
	return -1
}

// A Dependency is one relation between groups. Exactly one of the forms is filled: Parent and Child; Start and After;
// Stop and After; SameNode; DifferentNodes.
type Dependency struct {
	Parent         string          `json:"parent,omitempty"`
	Child          string          `json:"child,omitempty"`
	Start          string          `json:"start,omitempty"` // the source: starts only when After (the target) is online
	Stop           string          `json:"stop,omitempty"`  // the source: stops only after After (the target) is offline
	After          string          `json:"after,omitempty"`
	SameNode       []string        `json:"same_node,omitempty"`
	DifferentNodes *DifferentNodes `json:"different_nodes,omitempty"`
}

// DifferentNodes is a set of groups of which no two run on one node; a higher tier may displace a lower one.
type DifferentNodes struct {
	High         []string `json:"high,omitempty"`
	Intermediate []string `json:"intermediate,omitempty"`
	Low          []string `json:"low,omitempty"`
}

// A FallbackTimer names a recurring moment at which groups may fall back. Times are UTC.
type FallbackTimer struct {
	Name       string `json:"name"`
	Repeats    string `json:"repeats"` // never, daily, weekly, monthly, yearly
	Year       int    `json:"year,omitempty"`
	Month      int    `json:"month,omitempty"`
	DayOfMonth int    `json:"day_of_month,omitempty"`
	DayOfWeek  int    `json:"day_of_week,omitempty"` // 0 = Sunday
	Hour       int    `json:"hour"`
	Minute     int    `json:"minute"`
}
