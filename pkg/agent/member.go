package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/gossip"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Calls between agents.
const (
	rpcLease   = "lease"
	rpcHello   = "hello"
	rpcBoot    = "boot"
	rpcConfirm = "confirm"
	rpcReport  = "report"
	rpcOperate = "operate"
	rpcAdmit   = "admit"
	rpcPing    = "ping"
	rpcInspect = "inspect"
	rpcRepair  = "repair"
	rpcCard    = "card"
	rpcFit     = "fit"

	rpcVerified = "verified"

	rpcIntroduce   = "introduce"
	rpcKeepMembers = "keep-members"
	rpcLook        = "look-volume"
	rpcVolumes     = "volumes"

	rpcStanding = "standing"

	rpcRemember = "remember"
	rpcKept     = "snapshot"
	rpcAudit    = "audit"
	rpcNetwork  = "network"
)

// A member is this node's part in one cluster: everything that exists between joining and leaving it.
type member struct {
	a    *Agent
	opt  *Options
	log  *slog.Logger
	id   *identity.Identity
	name string

	clock     lease.Clock
	bootID    string
	life      atomic.Value // string
	met       *metrics.Metrics
	executors executor.Registry
	runner    *executor.Runner
	fencer    Fencer

	fsm        *fsm
	raft       *consensus.Node
	links      *peer.Peer
	memory     memory
	answers    atomic.Bool // the log is open: newcomers are answered
	tombstones *executor.Tombstones
	former     resetNote  // of an older boot, as found at the start
	noteMu     sync.Mutex // over the note about a reset of this boot
	history    *historyLog
	events     *eventDesk

	mail        *mailbox
	loopAt      atomic.Int64 // last pass of the loop, a lease.Instant
	lead        atomic.Pointer[leadership]
	timing      atomic.Pointer[lease.Params]
	local       atomic.Pointer[local]
	version     atomic.Uint64
	leaderHint  atomic.Pointer[string] // who leads, as another node said; nil: unknown
	askNo       atomic.Uint64
	urgentGrant atomic.Bool // the next request is out of turn
	lastLeader  atomic.Pointer[string]
	nics        nicBoard      // this node's interfaces, as the watcher sees them
	notesMu     sync.Mutex    // over notes and noting
	notes       []state.Note  // for the history, in their order
	noting      bool          // they are being sent
	networks    chan struct{} // a new definition was put into effect: its networks may be others
	openedWith  lease.Params  // with which the log was opened: raft's own timings do not change after that
	front       *server.Server
	notify      notifier
	locks       lockDesk
	remote      *remoteDesk
	friends     atomic.Pointer[map[string][]string] // members' addresses as known before the log is

	verifying sync.Mutex       // one verification at a time is asked for by this node
	verified  api.VerifyReport // the last one of drift, of this leader or the one before; under verifying
	deadmanIs atomic.Pointer[deadmanView]
	repo      repoState
	backups   backupState
	disk      diskState
	repoDown  atomic.Int32 // networks that this node has lost
	closing   atomic.Bool
	keeping   sync.Map // by the volume's id: a change of its list of members is under way

	votersTurn chan struct{} // has one place: the servers of the log are being changed
	formatting chan struct{} // has one place: a volume is being formatted
	formatted  *lastFormat   // by who has that place

	detMu sync.Mutex
	det   *detector.Detector

	stop     context.CancelCauseFunc
	loopDone chan struct{}
	work     sync.WaitGroup // jobs, proposals, calls
	carriers sync.WaitGroup
	gossip   atomic.Pointer[gossip.Gossip] // set by the loop
	loop     loopState                     // the loop's own

	epoch uint64    // of the cluster, as the links speak it
	newer sync.Once // a newer one was heard of
}

func newMember(a *Agent, id *identity.Identity) (*member, error) {
	m := &member{a: a, opt: &a.opt, log: a.log.With("node", id.Node), id: id, name: id.Node, clock: a.opt.Clock, bootID: a.opt.BootID,
		met: a.opt.Metrics, executors: a.opt.Executors, runner: a.opt.Runner, mail: newMailbox(), loopDone: make(chan struct{}),
		networks: make(chan struct{}, 1), formatting: make(chan struct{}, 1), votersTurn: make(chan struct{}, 1)}
	m.repo.changed, m.repo.runs = make(chan struct{}, 1), map[string]*voterRun{}
	m.repo.words = map[string]string{}
	m.fencer = m.opt.Fencer
	m.notify.init()
	m.disk.init(m.clock.Now())
	m.locks.init()
	m.remote = newRemoteDesk(m)
	m.local.Store(&local{})
	m.friends.Store(&map[string][]string{})
	m.fsm = newFSM(m.log, m.viewChanged, func(why string) { m.a.fail(errors.New(why)) })
	m.setTiming(m.keptTimings())
	m.openedWith = m.params()
	if err := m.loadLife(); err != nil {
		return nil, err
	}
	m.loadFriends()
	m.loadResetNote()
	m.loadVolume()
	var err error
	if m.epoch, err = loadEpoch(m.opt.Node.StateDir, m.raftDir()); err != nil {
		return nil, err
	}
	if m.tombstones, err = executor.OpenTombstones(filepath.Join(m.opt.Node.StateDir, "tombstones")); err != nil {
		return nil, err
	}
	if m.history, err = openHistory(m.opt.Node.LogDir, m.name); err != nil {
		return nil, err
	}
	if err = m.openEvents(); err != nil {
		return nil, err
	}
	m.history.count = m.met.Event
	m.det = detector.New(detector.ParamsFor(m.params()), m.clock.Now())
	if err := m.loadMemory(); err != nil {
		return nil, err
	}
	if err := m.openLinks(); err != nil {
		return nil, err
	}
	if err = m.askMemories(); err == nil {
		err = m.openLog()
	}
	if err != nil {
		m.links.Close()
		return nil, err
	}
	if err := m.beginMemory(); err != nil {
		_ = m.raft.Close()
		m.links.Close()
		return nil, err
	}
	m.setTiming(m.timingOf(m.view()))
	m.answerCalls()
	return m, nil
}

func (m *member) openLinks() error {
	cfg := peer.Config{Identity: m.id, ListenAddrs: m.listenAddrs(), Members: m.addressesOf, Floor: m.certFloor, Logger: m.log,
		OnHeard: func(node string) { m.heard(node, detector.PathPeer) }, Join: m.serveJoin,
		Epoch: m.epoch, OnNewerEpoch: m.heardNewerEpoch,
		MoveAfter: m.params().Silence / 5} // so that a lost network is not taken for a lost node
	if n := m.opt.Network; n != nil {
		cfg.Dial, cfg.Listen = n.Dial, n.Listen
	}
	var err error
	m.links, err = peer.New(cfg)
	if err != nil {
		return err
	}
	m.links.Handle(rpcRemember, m.serveRemember)
	m.links.HandleInline(rpcPing, func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
	return nil
}

// answerCalls begins to answer the calls that need the log, which is open now.
func (m *member) answerCalls() {
	m.answers.Store(true)
	m.links.Handle(rpcLease, m.serveLease)
	m.links.Handle(rpcHello, m.serveHello)
	m.links.Handle(rpcBoot, m.serveBoot)
	m.links.HandleInline(rpcConfirm, m.serveConfirm)
	m.links.Handle(rpcReport, m.serveReport)
	m.links.Handle(rpcOperate, m.serveOperate)
	m.links.Handle(rpcAdmit, m.serveAdmit)
	m.links.Handle(rpcInspect, m.serveInspect)
	m.links.Handle(rpcRepair, m.serveRepair)
	m.links.Handle(rpcCard, m.serveCard)
	m.links.Handle(rpcFit, m.serveFit)
	m.links.Handle(rpcVerified, m.serveVerified)
	m.links.Handle(rpcIntroduce, m.serveIntroduce)
	m.links.Handle(rpcKeepMembers, m.serveKeepMembers)
	m.links.Handle(rpcLook, m.serveLook)
	m.links.Handle(rpcVolumes, m.serveVolumes)
	m.links.Handle(rpcKept, m.serveKept)
	m.links.Handle(rpcAudit, m.serveAudit)
	m.links.Handle(rpcNetwork, m.serveNetwork)
	m.links.Handle(rpcStanding, m.serveStanding)
	m.links.Handle(rpcCommand, m.remote.serveCommand)
	m.links.Handle(rpcReadFile, m.remote.serveReadFile)
	m.links.Handle(rpcPutFile, m.remote.servePutFile)
}

func (m *member) openLog() error {
	cfg := consensus.Config{
		ID: m.id.RaftID, ClusterID: m.id.ClusterUUID, Dir: m.raftDir(), MachineID: machineID(),
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			if err := m.mayTalk(nodeOfServer(server)); err != nil {
				return nil, err
			}
			return m.links.Dial(ctx, nodeOfServer(server), peer.ProtoRaft)
		},
		Listener: askedListener{m.links.Listener(peer.ProtoRaft), m}, Ask: m.askConfirm, Params: m.params(), FSM: m.fsm, Clock: m.clock, Logger: m.log,
		Exit: m.opt.Exit,
	}
	var err error
	m.raft, err = consensus.Open(cfg)
	return err
}

func (m *member) start(ctx context.Context) {
	ctx, m.stop = context.WithCancelCause(ctx)
	m.met.SetSource(m.sample)
	m.loopAt.Store(int64(m.clock.Now())) // the carriers begin before the loop's first pass
	m.work.Go(func() { m.keepDeadman(ctx) })
	m.work.Go(func() { m.watchLeadership(ctx) })
	m.work.Go(func() { m.watchLinks(ctx) })
	m.work.Go(func() { m.keepVoter(ctx) })
	m.work.Go(func() { m.keepDisk(ctx) })
	m.work.Go(func() { m.trimOutputs(ctx) })
	m.work.Go(func() { m.keepMeasuring(ctx) })
	m.work.Go(func() { m.keepVerifying(ctx) })
	m.work.Go(func() { m.keepCollections(ctx) })
	m.locks.ctx = ctx
	m.work.Go(func() { m.keepLocks(ctx) })
	go func() {
		defer close(m.loopDone)
		m.runLoop(ctx)
	}()
}

// close ends this node's part without stopping any group: what runs here goes on, under the deadman's eye.
func (m *member) close() {
	m.remote.stop(errors.New("the daemon stops"))
	if m.stop != nil {
		m.closing.Store(true)
		m.endVoter()
		m.handOver()
		m.stop(errors.New("the daemon stops"))
		<-m.loopDone
	}
	if g := m.gossip.Load(); g != nil {
		g.Close()
	}
	if m.front != nil {
		m.front.Close()
	}
	if m.raft != nil {
		m.raft.Close()
	}
	m.links.Close()
	m.locks.close()
	m.carriers.Wait()
	m.work.Wait()
	m.events.close()
	m.history.close()
}

// trimOutputs keeps the files of the applications' output within bounds.
func (m *member) trimOutputs(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := m.runner.TrimOutputs(); err != nil {
				m.log.Warn("trim the output of applications", "error", err)
			}
		}
	}
}

func (m *member) view() *state.State { return m.fsm.newest.Load() }

func (m *member) params() lease.Params { return *m.timing.Load() }

func (m *member) post(v any) { m.mail.post(v) }

func (m *member) viewChanged() {
	m.mail.wake()
	m.locks.lookForNews(m.view())
}

// loopAlive reports whether the loop has made a pass within progressLimit.
func (m *member) loopAlive() bool {
	return m.clock.Now().Sub(lease.Instant(m.loopAt.Load())) < progressLimit
}

// heard notes that a node was heard on a path. Any goroutine.
func (m *member) heard(node string, path detector.Path) {
	if isRepository(node) {
		return
	}
	m.detMu.Lock()
	m.det.Observe(node, path, m.clock.Now())
	m.detMu.Unlock()
}

// timingOf is what the definition says of timings; a definition was validated before it was committed.
func (m *member) timingOf(view *state.State) lease.Params {
	if view.Definition == nil {
		return m.params()
	}
	p, err := definedTimings(view.Definition)
	if err != nil {
		m.log.Error("the definition's timings cannot be used: the default profile holds", "error", err)
		p, _ = lease.Profile("")
	}
	return p
}

func (m *member) setTiming(p lease.Params) {
	if p.Watchdog == 0 {
		p, _ = lease.Profile("")
	}
	m.timing.Store(&p)
}

func (m *member) deadmanMode(view *state.State) lease.Mode {
	if view.Definition != nil && view.Definition.Settings.DeadmanMode == string(lease.ModeEvent) {
		return lease.ModeEvent
	}
	return lease.ModeReset
}

// addressesOf gives a member's addresses for the links, by the newest definition, or by what was learned at the join.
func (m *member) addressesOf(node string) ([]string, bool) {
	if isRepository(node) {
		return m.voterAddresses()
	}
	if d := m.view().Definition; d != nil {
		n := d.Node(node)
		if n == nil {
			return nil, false
		}
		return dialAddresses(d, n, m.port()), true
	}
	addrs, ok := (*m.friends.Load())[node]
	return addrs, ok
}

// voterAddresses is where a repository voter may be: on any node, at the first port or, while a volume is being replaced, at the second.
// Only its present host accepts.
func (m *member) voterAddresses() ([]string, bool) {
	ports := voterPorts(m.opt.Node)
	var out []string
	if d := m.view().Definition; d != nil {
		for _, port := range ports {
			for i := range d.Nodes {
				out = append(out, dialAddresses(d, &d.Nodes[i], port)...)
			}
		}
		return out, len(d.Repositories) > 0
	}
	// The log is not open yet, or behind: whoever proves to be the voter is one.
	friends := *m.friends.Load()
	for _, port := range ports {
		for _, name := range sortedKeys(friends) {
			for _, a := range friends[name] {
				if host, _, err := net.SplitHostPort(a); err == nil {
					out = append(out, net.JoinHostPort(host, port))
				}
			}
		}
	}
	return out, len(out) > 0
}

func (m *member) port() string { return fmt.Sprint(m.opt.Node.Port) }

// dialAddresses lists host:port of a node, one for each network, in the definition's order.
func dialAddresses(d *cluster.Definition, n *cluster.Node, port string) []string {
	var out []string
	for _, w := range d.Networks {
		if a, ok := n.Addresses[w.Name]; ok {
			out = append(out, net.JoinHostPort(plainAddress(a), port))
		}
	}
	return out
}

// plainAddress cuts the prefix length off.
func plainAddress(a string) string {
	for i := range a {
		if a[i] == '/' {
			return a[:i]
		}
	}
	return a
}

func (m *member) listenAddrs() []string {
	if len(m.opt.Node.Listen) > 0 {
		var out []string
		for _, a := range m.opt.Node.Listen {
			out = append(out, net.JoinHostPort(plainAddress(a), m.port()))
		}
		return out
	}
	return []string{net.JoinHostPort("", m.port())}
}

// Friends: who the members were when this node last knew, so that it finds them before its log is open or caught up.

func friendsFile(dir string) string { return filepath.Join(dir, "members.json") }

func (m *member) loadFriends() {
	f, err := readFriends(m.opt.Node.StateDir)
	if err != nil {
		m.log.Warn("the list of members cannot be read: it will be learned again", "error", err)
		return
	}
	m.friends.Store(&f)
}

func readFriends(dir string) (map[string][]string, error) {
	f := map[string][]string{}
	b, err := os.ReadFile(friendsFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f, err
}

func saveFriends(dir string, f map[string][]string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(friendsFile(dir), b, 0o600)
}

// Life: one boot may have several incarnations, because a node that has let go of everything in order need not reset to
// come back. The life is stored, so that a new agent of the same boot goes on with the same incarnation.

type lifeRecord struct {
	BootID string `json:"boot_id"`
	Life   string `json:"life"`
}

func (m *member) lifeFile() string { return filepath.Join(m.opt.Node.StateDir, "life.json") }

func (m *member) loadLife() error {
	b, err := os.ReadFile(m.lifeFile())
	var r lifeRecord
	if err == nil && json.Unmarshal(b, &r) == nil && r.BootID == m.bootID {
		m.life.Store(r.Life)
		return nil
	}
	return m.newLife()
}

func (m *member) newLife() error {
	r := lifeRecord{BootID: m.bootID, Life: newNonce()[:8]}
	b, err := json.Marshal(r)
	if err == nil {
		err = writeFile(m.lifeFile(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store the life of this boot: %w", err)
	}
	m.life.Store(r.Life)
	return nil
}

// writeFile replaces a file as a whole and durably.
func writeFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, werr := f.Write(b)
	err = errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the directory's entries durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// notifier wakes those who wait for a new status version.
type notifier struct {
	mu sync.Mutex
	ch chan struct{}
}

func (n *notifier) init() { n.ch = make(chan struct{}) }

func (n *notifier) fire() {
	n.mu.Lock()
	close(n.ch)
	n.ch = make(chan struct{})
	n.mu.Unlock()
}

func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

// after is a timer channel that a select can use next to a context.
func after(d time.Duration) <-chan time.Time { return time.After(d) }
