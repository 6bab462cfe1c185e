// Package server is the daemon's front door: HTTP with JSON on a local unix socket, whose callers are known by the kernel's
// word, and on listeners between members, whose callers are known by their certificates.
//
// It finds out who asks, checks the role, bounds what it reads, writes one audit line for each attempted write, and hands the
// call to a Backend. It decides nothing about the cluster, keeps no state of it, and forwards nothing: a backend that is not
// on the leader passes a write on by itself. It promises that no caller without the needed role reaches the backend, and
// that nothing a caller sends can name another caller, unless the caller is a member node that passes a command on.
package server

import (
	"context"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A Backend is what the server serves. All methods may be called by many goroutines at once. An error that is an *api.Error
// travels as it is; any other becomes api.CodeInternal with its text. A context ends when the caller goes away or the server
// stops. A write whose context ended after it was handed to the log returns api.CodeUncertain.
type Backend interface {
	Reader
	Writer
	Membership
	Verifier
	Snapshots
	Auditor
	Locker
	Remoter
}

// A Remoter does operations on several nodes. The server has checked the caller's right to ask.
type Remoter interface {
	// BeginRemote begins the operation, or finds the one of that id, and returns at once. A caller that goes away does not end it.
	BeginRemote(ctx context.Context, who api.Caller, r api.RemoteRequest) (api.RemoteOperation, error)
	// Remote follows an operation of the caller's own (an administrator's: of anybody): it answers when it differs from version
	// since, or wait is over.
	Remote(ctx context.Context, who api.Caller, id string, since uint64, wait time.Duration) (api.RemoteOperation, error)
}

// A Locker has the cluster's locks. Sessions are of callers on this node; a session is its caller's own, and an administrator's.
type Locker interface {
	// Locks lists them, or one; with wait it answers when they differ from version since, or wait is over.
	Locks(ctx context.Context, name string, since uint64, wait time.Duration) (api.LockList, error)
	OpenLocks(ctx context.Context, who api.Caller, r api.LockOpen) (api.LockSession, error)
	// KeepLocks hangs. When its context ends before it answers, the client has gone and the session is closed.
	KeepLocks(ctx context.Context, who api.Caller, r api.LockKeep) (api.LockKept, error)
	// TakeLock waits as long as it is asked to. When its context ends before, the lock is not held and not waited for.
	TakeLock(ctx context.Context, who api.Caller, r api.LockTake) (api.LockTaken, error)
	GiveLock(ctx context.Context, who api.Caller, r api.LockGive) (api.Reply, error)
	CloseLocks(ctx context.Context, who api.Caller, r api.LockClose) (api.Reply, error)
}

// An Auditor finds the newest records of attempted writes, of all nodes.
type Auditor interface {
	Audit(ctx context.Context, limit int) (api.AuditList, error)
}

// Snapshots are kept definitions.
type Snapshots interface {
	ListSnapshots(ctx context.Context) (api.SnapshotList, error)
	// ReadSnapshot finds the snapshot on any node. Secrets of fence devices are in it; the server masks them as those of the definition.
	ReadSnapshot(ctx context.Context, name string) (api.SnapshotText, error)
	AddSnapshot(ctx context.Context, who api.Caller, s api.NewSnapshot) (api.SnapshotReply, error)
	DeleteSnapshot(ctx context.Context, who api.Caller, name string) (api.SnapshotReply, error)
}

// A Verifier looks at all nodes. The server has checked that the caller may ask for this.
type Verifier interface {
	Verify(ctx context.Context, who api.Caller, r api.VerifyRequest) (api.VerifyReport, error)
}

// A Reader answers questions. Answers are the caller's: the backend does not change them afterwards.
type Reader interface {
	// Status is this node's knowledge of the cluster, and says how old it is. Before there is a cluster it has the state
	// api.ClusterNotConfigured.
	Status() api.Status
	// Version is the version that Status would have now, and the run of the daemon that it counts in. It is cheap.
	Version() (instance string, version uint64)
	// Wait returns when the status has another version than since, or when the context ends; the version then current.
	Wait(ctx context.Context, since uint64) uint64
	// Events lists up to limit events with an id above since, oldest first. since = 0 with a limit lists the newest ones.
	Events(since uint64, limit int) (api.EventList, error)
	// Definition is the whole of it, secrets of fence devices included; the server masks them for all but administrators.
	// With staged it is what waits for a sync, if anything does.
	Definition(staged bool) (api.Definition, error)
	// Diff and Check look at a text and change nothing.
	Diff(ctx context.Context, text api.DefinitionText) (api.Diff, error)
	Check(ctx context.Context, text api.DefinitionText) (api.CheckReport, error)
	// Explain says why the group is where it is; with a node, why it is not there.
	Explain(group, node string) (api.Explanation, error)
	Health() api.Health
	// State is the replicated state as a whole.
	State() (api.State, error)
}

// A Writer changes the cluster. Each method returns when the change is committed and applied here, or refused (in the reply),
// or not possible (an error). The same id twice is one change, with the first reply.
type Writer interface {
	Do(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error)
	SetDefinition(ctx context.Context, who api.Caller, c api.DefinitionChange) (api.Reply, error)
	// Sync makes what is staged active, Undo drops it.
	Sync(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error)
	Undo(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error)
}

// Membership founds, joins and leaves clusters.
type Membership interface {
	CreateCluster(ctx context.Context, who api.Caller, c api.CreateCluster) (api.CreateClusterReply, error)
	NewToken(ctx context.Context, who api.Caller, t api.NewToken) (api.JoinToken, error)
	// Recover forces the configuration. The server has checked that the names are confirmed.
	Recover(ctx context.Context, who api.Caller, r api.Recover) (api.Reply, error)
	// Join makes this daemon a member of the cluster that issued the token.
	Join(ctx context.Context, who api.Caller, j api.Join) (api.Reply, error)
	// Leave takes this node out of its cluster.
	Leave(ctx context.Context, who api.Caller) (api.Reply, error)
	// Admit answers a newcomer; the token in it is all that proves its right, and is used up by it.
	Admit(ctx context.Context, from string, a api.Admit) (api.AdmitReply, error)
}
