package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Node is one server of the cluster's log.
type Node struct {
	cfg   Config
	log   *slog.Logger
	guard *guard
	terms *terms
	gate  *gate // of the repository voter; nil for a node
	disk  *disk
	fsm   *machine
	trans *transport
	raft  atomic.Pointer[raft.Raft] // nil until Open is done: the transport asks for it earlier

	ctx     context.Context
	cancel  context.CancelCauseFunc
	notify  chan bool
	leads   chan *Lead
	current atomic.Pointer[Lead]

	mu      sync.Mutex
	closed  bool
	wg      sync.WaitGroup // goroutines that end with ctx
	waiting sync.WaitGroup // goroutines that wait for an answer of raft's

	noticesSent, noticesRefused, roundsRun, roundsFailed atomic.Uint64
}

// Open opens the directory's stores and starts the server. A server whose directory holds no state waits until it is
// bootstrapped or a leader adds it. Errors name the file and say what to do.
func Open(cfg Config) (*Node, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open the consensus node: no directory given")
	}
	return open(cfg, nil)
}

// open starts a server on the stores of its directory or, for the repository voter, on those of the volume.
func open(cfg Config, volume VoterStore) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger.With("component", "consensus"), notify: make(chan bool), leads: make(chan *Lead)}
	rc, err := cfg.raftConfig(n.notify)
	if err != nil {
		return nil, err
	}
	n.guard = newGuard(cfg)
	n.terms = newTerms(cfg.ID, cfg.ClusterID, cfg.Clock)
	if volume != nil {
		n.gate = &gate{store: volume, guard: n.guard}
		n.disk, err = openVolume(cfg, volume, n.guard, n.terms)
	} else {
		n.disk, err = openDisk(cfg, n.guard, n.terms)
	}
	if err != nil {
		return nil, err
	}
	n.fsm = &machine{fsm: cfg.FSM, fail: n.guard.stop, onApply: n.applied}
	n.trans = newTransport(cfg, n.steady, n.Voter, n.gate)
	n.trans.leads = n.leadsIn
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.guard.running.Store(true) // raft's goroutines begin before NewRaft returns
	var r *raft.Raft
	err = unpanicked(func() (err error) {
		r, err = raft.NewRaft(rc, n.fsm, n.disk.logs, n.disk.stable, n.disk.snapshots, n.trans)
		return err
	})
	if err != nil {
		n.cancel(err)
		_ = n.trans.Close()
		_ = n.disk.close()
		return nil, fmt.Errorf("start the log in %s: %w", cfg.place(), err)
	}
	n.raft.Store(r)
	n.wg.Go(n.watchLeadership)
	return n, nil
}

// Bootstrap founds a cluster with this server as its only voter. It fails with ErrHasState unless the directory is empty of
// state: a wiped server must never found a second cluster.
func (n *Node) Bootstrap() error {
	err := n.raft.Load().BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.cfg.ID), Address: raft.ServerAddress(n.cfg.ID),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("found the cluster: %w (%s)", ErrHasState, n.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return nil
}

// Close stops the server. A leader should hand its leadership over first (TransferLeadership). Proposals that wait end with
// ErrUnknown.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()

	n.terms.close(ErrClosed)
	n.cancel(ErrClosed)
	n.settle(time.Second)
	down := n.raft.Load().Shutdown()
	close(n.guard.released)
	n.trans.end()
	err := down.Error() // waits, and closes the transport too
	n.wg.Wait()
	n.guard.running.Store(false) // who still asks is answered, with nothing
	if cerr := n.disk.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close the log in %s: %w", n.cfg.place(), err)
	}
	return nil
}

// settle waits a while for raft to answer what was asked of it: it forgets such answers when it is shut down.
func (n *Node) settle(limit time.Duration) {
	done := make(chan struct{})
	go func() { n.waiting.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// begin counts a goroutine that will wait for raft; false means that the node is closed.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.waiting.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for.
func (n *Node) spawn(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.wg.Go(f)
	}
}

// leadsIn reports whether this server leads in the term. One that is being closed does not, even where raft, which sets its
// state from two goroutines, says so for ever: Close would wait for a replication that waits for its follower.
func (n *Node) leadsIn(term uint64) bool {
	r := n.raft.Load()
	return r != nil && n.ctx.Err() == nil && r.State() == raft.Leader && r.CurrentTerm() == term
}

// steady reports whether this server follows in the term: a heartbeat of it has nothing to change.
func (n *Node) steady(term uint64) bool {
	r := n.raft.Load()
	return r != nil && r.State() == raft.Follower && n.terms.highest() == term
}

// Identity is the record of the store, in which the caller notes this start (Propose, Accept).
func (n *Node) Identity() *Identity { return n.disk.identity }

// Confirm is the voter's side of a round of term confirmation.
func (n *Node) Confirm(req ConfirmRequest) ConfirmReply {
	reply := n.terms.confirm(req)
	if n.gate != nil && !n.gate.pass() { // after the answer's content was read
		return ConfirmReply{ServerID: reply.ServerID, ClusterID: reply.ClusterID, Round: reply.Round}
	}
	return reply
}

// Leader is the server that leads as far as this one knows, "" for none, and this server's current term.
func (n *Node) Leader() (id string, term uint64) {
	_, leader := n.raft.Load().LeaderWithID()
	return string(leader), n.raft.Load().CurrentTerm()
}

// LastContact is how long ago the leader was last heard of; 0 on the leader itself. ok is false if that never happened
// since the start.
func (n *Node) LastContact() (ago time.Duration, ok bool) {
	r := n.raft.Load()
	if r.State() == raft.Leader {
		return 0, true
	}
	at := r.LastContact()
	if at.IsZero() {
		return 0, false
	}
	return time.Since(at), true
}

// AppliedIndex is the index of the last command that the FSM has really taken. It counts the same on every server: an index
// of the leader's is reached here when this number is not less.
func (n *Node) AppliedIndex() uint64 { return n.fsm.index.Load() }

// Followers is what this leader knows of the servers that it leads; empty elsewhere.
func (n *Node) Followers() map[string]Follower {
	if n.raft.Load().State() != raft.Leader {
		return nil
	}
	return n.trans.followers()
}

// Hurry makes this voter stand for election at once, without waiting for the leader's silence to last and without a
// pre-vote. For a caller that has other evidence that the leader is gone (attack C5); safe at any time, but it deposes a
// leader that lives.
func (n *Node) Hurry() error {
	r := n.raft.Load()
	switch {
	case r.State() == raft.Leader:
		return errors.New("stand for election: this server leads")
	case !n.Voter():
		return errors.New("stand for election: this server does not vote")
	}
	if err := n.trans.hurry(hurryTimeout); err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	return nil
}

const hurryTimeout = 250 * time.Millisecond

// Stats is a picture of the server for metrics and status.
type Stats struct {
	State            string // Follower, Candidate, Leader or Shutdown
	Term             uint64
	LastIndex        uint64 // of the log
	CommitIndex      uint64
	AppliedIndex     uint64 // as AppliedIndex
	SnapshotIndex    uint64
	Voters           int
	Servers          int
	Voter            bool
	StoreCalls       uint64
	SlowestStoreCall time.Duration
	Rounds           uint64 // of term confirmation, led by this server
	RoundsFailed     uint64
	Notices          uint64 // of commit, sent
	NoticesRefused   uint64 // because the follower lacked the entry; sent again
}

// Stats reads the picture.
func (n *Node) Stats() Stats {
	r := n.raft.Load()
	raw := r.Stats()
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(raw[key], 10, 64) // raft wrote it
		return v
	}
	s := Stats{
		State: raw["state"], Term: number("term"), LastIndex: number("last_log_index"), CommitIndex: number("commit_index"),
		AppliedIndex: n.AppliedIndex(), SnapshotIndex: number("last_snapshot_index"),
		StoreCalls: n.guard.calls.Load(), SlowestStoreCall: time.Duration(n.guard.slowest.Load()),
		Rounds: n.roundsRun.Load(), RoundsFailed: n.roundsFailed.Load(),
		Notices: n.noticesSent.Load(), NoticesRefused: n.noticesRefused.Load(),
	}
	servers := n.Configuration()
	s.Servers = len(servers)
	s.Voters = len(voters(servers))
	s.Voter = slices.Contains(voters(servers), n.cfg.ID)
	return s
}

// now reads the lease clock.
func (n *Node) now() lease.Instant { return n.cfg.Clock.Now() }
