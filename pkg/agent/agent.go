// Package agent is the daemon: one event loop and the wiring around it. It observes, turns what it sees into facts, lets
// package scheduler decide on the newest committed state, acts on its own node with executors, and reports.
//
// The loop decides nothing by itself that package scheduler, state or lease could decide, and blocks on nothing: commits,
// executors, fence devices and probes run beside it and come back as events. What it promises: it starts nothing without a
// grant that lists it, it keeps the deadman fed only while it makes progress, and it stops what it may no longer hold.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/fence"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/gossip"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/verify"
	"github.com/holdfast-ha/holdfast/pkg/verify/collect"
)

// Deadman is what the agent needs of its deadman; *deadman.Client is one.
type Deadman interface {
	Info() deadman.Info
	Requests() <-chan deadman.Request
	Renew()
	Grant(nonce lease.Nonce, leaderBoot string, leaderTime lease.Instant, next time.Duration) error
	Arm(ctx context.Context) error
	Disarm(ctx context.Context) error
	Update(ctx context.Context, s deadman.Settings) error
	HoldsSomething(bool) error
	Reset() error
	Status() deadman.Status
	Done() <-chan struct{}
	Close() error
}

// Fencer switches nodes off; *fence.Fencer is one.
type Fencer interface {
	Off(ctx context.Context, d *cluster.FenceDevice, node string, still func() error) (proof string, err error)
}

// Options configure the daemon. Node and Version are needed; the rest has the real world as its default and is replaced by
// tests.
type Options struct {
	Node    *config.Node
	Version string
	Logger  *slog.Logger
	Metrics *metrics.Metrics

	Clock          lease.Clock
	BootID         string // empty: read from the node file's boot_id_file or the kernel
	ConnectDeadman func(ctx context.Context, s deadman.Settings) (Deadman, error)
	Executors      executor.Registry
	Runner         *executor.Runner
	Network        *peer.Config  // Dial and Listen of it are used, if set
	Gossip         gossip.Config // Transport of it is used, if set
	Fencer         Fencer
	ListenLocal    func() (net.Listener, error) // the local door; empty: a socket in the run directory
	WatchLinks     func(context.Context) (<-chan linux.LinkEvent, error)
	// AskNeighbours asks targets on one interface, and SteerRoutes leads routes around failed ones; nil: the system cannot.
	AskNeighbours func(ctx context.Context, name string, targets []netip.Addr, wait time.Duration) (bool, error)
	SteerRoutes   func(names []string, detours []linux.Detour) error
	// Inspect looks at this node for a verification.
	Inspect func(context.Context, collect.Options) *verify.Facts
	Exit    func(reason string)
	// NodeFile is the path of the node file, for the repository voter's process.
	NodeFile     string
	StartVoter   func(context.Context, VoterOptions) (VoterProc, error)
	FormatVolume func(repository.FormatOptions) (repository.UUID, error)
	OpenVolume   func(repository.Options) (*repository.Volume, error)
	Ready        func() // called when the local door is open
	// SystemLog writes what an operator must not miss into the system's own error log, where it has one. It may block, and is
	// called beside the loop.
	SystemLog func(ctx context.Context, text string) error

	instance string
}

// An Agent is one daemon. It may belong to no cluster yet; then only its local door is open.
type Agent struct {
	opt Options
	log *slog.Logger

	mu       sync.Mutex
	member   *member
	changing bool     // a cluster is being created, joined or left
	audit    *LogFile // opened once, under mu
	forced   struct { // the last forced configuration, for one that asks again
		id    string
		epoch uint64
	}
	version uint64
	changed chan struct{} // closed and replaced when member changes
	fatal   chan error
}

// New checks the directories and the node's own files. It starts nothing.
func New(opt Options) (*Agent, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Clock == nil {
		opt.Clock = deadman.BootClock{}
	}
	opt.instance = newNonce()
	a := &Agent{log: opt.Logger.With("component", "agent"), changed: make(chan struct{}), fatal: make(chan error, 4)}
	for _, dir := range []string{opt.Node.StateDir, opt.Node.RunDir, opt.Node.LogDir} {
		if err := checkDir(dir); err != nil {
			return nil, err
		}
	}
	if opt.BootID == "" {
		id, err := readBootID(opt.Node)
		if err != nil {
			return nil, err
		}
		opt.BootID = id
	}
	if opt.ConnectDeadman == nil {
		opt.ConnectDeadman = func(ctx context.Context, s deadman.Settings) (Deadman, error) {
			return deadman.Connect(ctx, opt.Node.Deadman.Socket, s)
		}
	}
	if opt.Runner == nil {
		r, err := executor.NewRunner(executor.RunnerOptions{Dir: filepath.Join(opt.Node.StateDir, "runner"), Node: opt.Node.Name,
			BootID: opt.BootID, Logger: opt.Logger, TooLong: a.tooLong})
		if err != nil {
			return nil, fmt.Errorf("prepare the command runner: %w", err)
		}
		opt.Runner = r
	}
	sys := systemHands(opt.Node, opt.Runner, a.lookAt, opt.Logger)
	if opt.Executors == nil {
		opt.Executors = sys.executors
	}
	if opt.SystemLog == nil {
		opt.SystemLog = sys.errorLog
	}
	if opt.Fencer == nil {
		opt.Fencer = fence.New(opt.Runner)
	}
	if opt.ListenLocal == nil {
		opt.ListenLocal = func() (net.Listener, error) {
			return server.ListenLocal(filepath.Join(opt.Node.RunDir, "clstrmgrd.sock"), a.access())
		}
	}
	if opt.StartVoter == nil {
		opt.StartVoter = startVoterChild(opt.NodeFile)
	}
	if opt.FormatVolume == nil {
		opt.FormatVolume = repository.Format
	}
	if opt.OpenVolume == nil {
		opt.OpenVolume = repository.Open
	}
	if opt.WatchLinks == nil {
		opt.WatchLinks, opt.AskNeighbours, opt.SteerRoutes = sys.links, sys.ask, sys.steer
	}
	if opt.Inspect == nil {
		opt.Inspect = collect.Look
	}
	a.opt = opt
	return a, nil
}

// Run runs the daemon until the context ends or something makes going on unsafe. A clean end stops no group: the next agent
// adopts them, if it is back before the lease runs out.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := a.refuseBehindGlass(); err != nil {
		return err
	}
	if err := a.startMember(ctx); err != nil {
		return err
	}
	defer a.stopMember()
	front, err := a.openDoor()
	if err != nil {
		return err
	}
	defer front.Close()
	if a.opt.Ready != nil {
		a.opt.Ready()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-a.fatal:
		return err
	}
}

// startMember takes part in the cluster, if this node belongs to one.
func (a *Agent) startMember(ctx context.Context) error {
	id, err := identity.Load(a.identityDir())
	if errors.Is(err, identity.ErrNone) {
		a.log.Info("this node belongs to no cluster yet: create one with `clmgr add cluster`, or join one with `clmgr join cluster`")
		return nil
	}
	if err != nil {
		return err
	}
	if id.Node != a.opt.Node.Name && a.opt.Node.Name != "" {
		return fmt.Errorf("the identity in %s is of node %s, the node file says %s: correct the node file, or remove the identity to join anew",
			a.identityDir(), id.Node, a.opt.Node.Name)
	}
	if gone, err := a.setOutdatedAside(id); gone || err != nil {
		return err
	}
	if a.storeIsGone() {
		return a.setIdentityAside(id)
	}
	err = a.begin(ctx, id, nil)
	if errors.Is(err, errOutdated) {
		_, err = a.setOutdatedAside(id)
	}
	return err
}

// storeIsGone reports whether a member has lost its copy of the log. It must not go on under its old name: it may have voted and
// acknowledged what it no longer knows (attack A10).
func (a *Agent) storeIsGone() bool {
	_, err := os.Stat(filepath.Join(a.opt.Node.StateDir, "raft", "identity.json"))
	return errors.Is(err, fs.ErrNotExist)
}

// setIdentityAside makes a node that has lost its copy of the log one that belongs to no cluster, so that it can join anew.
func (a *Agent) setIdentityAside(id *identity.Identity) error {
	old := a.identityDir() + ".old"
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove an older identity: %w", err)
	}
	if err := os.Rename(a.identityDir(), old); err != nil {
		return fmt.Errorf("set the identity of this node aside: %w", err)
	}
	a.forget()
	a.log.Error("this node has lost its copy of the cluster's log and cannot take part as the member it was: on another node, "+
		"`clmgr add token "+id.Node+"`, then here, `clmgr join cluster TOKEN=...`", "cluster", id.ClusterName, "old_identity", old)
	return nil
}

// begin makes the member and starts it. found, if set, is run once the log is open: it founds the cluster.
func (a *Agent) begin(ctx context.Context, id *identity.Identity, found func(*member) error) error {
	m, err := newMember(a, id)
	if err != nil {
		return err
	}
	if found != nil {
		if err := found(m); err != nil {
			m.close()
			return err
		}
	}
	m.start(ctx)
	a.mu.Lock()
	a.member = m
	a.version++
	close(a.changed)
	a.changed = make(chan struct{})
	a.mu.Unlock()
	return nil
}

func (a *Agent) stopMember() {
	a.mu.Lock()
	m := a.member
	a.member = nil
	a.mu.Unlock()
	if m != nil {
		m.close()
	}
}

func (a *Agent) current() *member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.member
}

// fail ends the daemon: going on would be unsafe or pointless. The deadman lives on and decides about the node.
func (a *Agent) fail(err error) {
	a.log.Error("the daemon stops", "error", err)
	select {
	case a.fatal <- err:
	default:
	}
}

// NeedsAdministrator says that the daemon, ended by err, would end in the same way however often it is started: its store is not
// the one that made this server's promises, or groups that were started past the cluster have not been released.
func NeedsAdministrator(err error) bool {
	return errors.Is(err, consensus.ErrAmnesia) || errors.Is(err, ErrBreakGlass)
}

func (a *Agent) identityDir() string { return filepath.Join(a.opt.Node.StateDir, "identity") }

func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("directory %s cannot be written: %w", dir, unwrapPath(err))
	}
	_, werr := f.Write(make([]byte, 4096))
	if err := errors.Join(werr, f.Sync(), f.Close(), os.Remove(f.Name())); err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("directory %s cannot be written: %w", dir, unwrapPath(err))
	}
	return nil
}

func unwrapPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// wall is the wall clock, for the history and for timers of the definition; never for safety (promise P13).
func (m *member) wall() time.Time { return time.Now().UTC() }
