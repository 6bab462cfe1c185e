package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// An FSM is what the log drives. Apply and Snapshot are called by one goroutine, in the log's order; Restore is never called
// together with either. The three must not block on anything outside memory.
type FSM interface {
	// Apply takes one committed command. What it returns reaches the proposer as Result.Value; a refusal is such a value.
	Apply(index, term uint64, data []byte) any
	// Snapshot encodes the whole state.
	Snapshot() ([]byte, error)
	// Restore replaces the whole state by one that Snapshot encoded.
	Restore(data []byte) error
}

// Config is all that a Node needs. Fields without a default must be set.
type Config struct {
	ID        string // server id; also the constant logical address under which the votes are counted
	ClusterID string // the cluster's UUID; a confirmation that names another is not counted
	Dir       string // directory of the stores; made if missing
	MachineID string // the machine's own id, kept in the directory's identity record (see Identity)

	// Dial opens an authenticated stream to the server. It is called with a deadline of one second.
	Dial func(ctx context.Context, serverID string) (net.Conn, error)
	// Listener accepts streams from authenticated members. The Node closes it.
	Listener net.Listener
	// Ask sends a term confirmation to a voter over the peer link and returns its answer. It must end with its context.
	Ask func(ctx context.Context, voter string, req ConfirmRequest) (ConfirmReply, error)

	Params lease.Params
	FSM    FSM
	Clock  lease.Clock
	Logger *slog.Logger // default: discards

	// Exit ends the process because a call of the store hangs or failed: such a server must neither lead nor follow. It is
	// called once, by a goroutine of its own, and must not return; the default writes the reason to standard error and
	// exits with ExitStatus.
	Exit func(reason string)

	// StoreTimeout is how long one call of the store may take; default 1 s.
	StoreTimeout time.Duration
	// CommitTimeout is how long a follower that missed a notice of commit waits, at most twice over, for the next; default
	// 1 s, which the entries of Progress make good for. A small one costs CPU for ever.
	CommitTimeout time.Duration
	// Progress is the longest time without a commit of the leader's own; then it writes an empty entry. Default 1 s.
	Progress time.Duration
	// SnapshotThreshold is the number of entries after which a snapshot is taken, and TrailingLogs how many entries are
	// kept behind it. Defaults 2048 and 2048.
	SnapshotThreshold uint64
	TrailingLogs      uint64
	// SnapshotInterval is how often the threshold is looked at; default 60 s.
	SnapshotInterval time.Duration

	logs func(raft.LogStore) raft.LogStore // tests: a faulty store below the guard
}

// ExitStatus is what the default Exit ends the process with.
const ExitStatus = 70

// Limits of what is taken from a caller, a disk or the wire.
const (
	MaxProposal = 4 << 20  // bytes of one command
	MaxSnapshot = 64 << 20 // bytes of one snapshot
)

const (
	transportTimeout = time.Second // for one RPC; a pooled connection to a black hole eats it once
	transportPool    = 3           // connections kept per peer: heartbeat, pipeline, notices of commit
	cachedEntries    = 64          // newest entries kept in memory: what followers that keep up are sent
	keptSnapshots    = 2
)

var (
	// ErrNotLeader says that this server does not lead, and that nothing was done.
	ErrNotLeader = errors.New("this server is not the leader")
	// ErrBusy says that the leader did not take the request in time, and that nothing was done.
	ErrBusy = errors.New("the leader did not take the request in time")
	// ErrUnknown says that the outcome is unknown: what was proposed may or may not be, or become, part of the log.
	ErrUnknown = errors.New("the outcome is unknown")
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("the consensus node is closed")
	// ErrLost is the cause of a Lead's context that ended because leadership was lost.
	ErrLost = errors.New("leadership was lost")
	// ErrNoMajority says that a round did not bring a majority of the voters that confirm the term.
	ErrNoMajority = errors.New("no majority of the voters confirmed the term")
	// ErrHasState says that the directory already belongs to a cluster.
	ErrHasState = errors.New("the directory already holds the state of a cluster")
)

// withDefaults checks the configuration and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	missing := func(what string) error { return fmt.Errorf("open the consensus node: no %s given", what) }
	switch {
	case c.ID == "":
		return c, missing("server id")
	case c.ClusterID == "":
		return c, missing("cluster id")
	case c.Dial == nil || c.Listener == nil || c.Ask == nil:
		return c, missing("way to reach the peers (Dial, Listener, Ask)")
	case c.FSM == nil:
		return c, missing("state machine")
	case c.Clock == nil:
		return c, missing("clock")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Exit == nil {
		c.Exit = exitProcess
	}
	setDefault(&c.StoreTimeout, time.Second)
	setDefault(&c.CommitTimeout, time.Second)
	setDefault(&c.Progress, time.Second)
	setDefault(&c.SnapshotThreshold, 2048)
	setDefault(&c.TrailingLogs, 2048)
	setDefault(&c.SnapshotInterval, time.Minute)
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func exitProcess(reason string) {
	fmt.Fprintln(os.Stderr, "holdfast: "+reason)
	os.Exit(ExitStatus)
}

// place is how the operator knows the stores.
func (c Config) place() string {
	if c.Dir == "" {
		return "the repository volume"
	}
	return c.Dir
}

// raftConfig maps the configuration to hashicorp/raft's.
func (c Config) raftConfig(notify chan<- bool) (*raft.Config, error) {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout = c.Params.RaftHeartbeat
	rc.ElectionTimeout = c.Params.RaftElection
	rc.LeaderLeaseTimeout = c.Params.RaftLease
	rc.CommitTimeout = c.CommitTimeout
	rc.SnapshotThreshold = c.SnapshotThreshold
	rc.SnapshotInterval = c.SnapshotInterval
	rc.TrailingLogs = c.TrailingLogs
	rc.ShutdownOnRemove = false // a removed server stays up, to say so
	rc.NoLegacyTelemetry = true
	rc.NotifyCh = notify
	rc.Logger = newRaftLogger(c.Logger)
	if err := raft.ValidateConfig(rc); err != nil {
		return nil, fmt.Errorf("open the consensus node: the timings do not fit together: %w", err)
	}
	return rc, nil
}
