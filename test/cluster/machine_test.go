package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/deadmantest"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/gossip"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/verify"
	"github.com/holdfast-ha/holdfast/pkg/verify/collect"
	"github.com/holdfast-ha/holdfast/test/fake"
)

const (
	peerPort   = 6191
	gossipPort = 6192
	voterPort  = 6194
)

// A driftClock is a machine's boot-time clock: with an origin and a rate of its own.
type driftClock struct {
	zero time.Time
	base lease.Instant
	rate float64
}

func (c driftClock) Now() lease.Instant {
	return c.base + lease.Instant(float64(time.Since(c.zero))*c.rate)
}

// A machine is a host on the LAN with a disk, a watchdog with its deadman, and an agent.
type machine struct {
	r    *rig
	name string
	host *fake.Host
	dir  string

	mu     sync.Mutex
	on     bool
	boots  int
	why    string // of the last end
	died   time.Time
	clock  driftClock
	bootID string
	dead   *deadmantest.Deadman
	proc   *process
	frozen chan struct{} // closed by thaw; nil while the machine runs
	old    []*process
	deads  []*deadmantest.Deadman

	trouble          atomic.Pointer[diskTrouble] // with its way to the repository volume
	blind            atomic.Bool                 // its agent does not reach the repository volume
	agentIO, voterIO ioCount                     // on the repository volume
	mute             atomic.Bool                 // its agent reaches the volume, but not the mail on it
	automount        string                      // a file system that the next boot activates by itself
}

// A process is one run of an agent.
type process struct {
	m      *machine
	agent  *agent.Agent
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	ended  atomic.Bool
	buried chan struct{} // closed when what it still does can reach nothing any more

	mu     sync.Mutex
	conns  []net.Conn // to the deadman
	voters []*voterProc
}

var errEnded = errors.New("the process has ended")

// boot switches the machine on.
func (m *machine) boot() {
	m.r.t.Helper()
	m.release()
	m.mu.Lock()
	if m.on {
		m.mu.Unlock()
		m.r.t.Fatalf("machine %s is on already", m.name)
	}
	m.on, m.frozen = true, nil
	m.boots++
	m.bootID = fmt.Sprintf("%s-boot-%d", m.name, m.boots)
	m.clock = driftClock{zero: time.Now(), base: lease.Instant(m.r.random(int(time.Hour))) + 1, rate: 1 + float64(m.r.random(800)-400)/1e6}
	dead := deadmantest.Start(deadmantest.Options{Clock: m.clock, Watchdog: m.r.params.Watchdog, Class: m.r.class, Fired: m.why == deadmantest.Fired,
		Kill: func(why string) { m.end(why) }})
	m.dead = dead
	m.mu.Unlock()
	m.host.PowerOn()
	m.r.ledger.say("%s boots", m.name)
	if m.automount != "" {
		m.activate(m.automount)
	}
	m.startAgent()
}

// startAgent starts an agent on the machine, as the service manager does.
func (m *machine) startAgent() {
	m.release()
	p := &process{m: m, done: make(chan struct{}), buried: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	a, err := agent.New(p.options())
	if err != nil {
		m.r.t.Errorf("start the agent of %s: %v", m.name, err)
		p.cancel()
		close(p.buried)
		return
	}
	p.agent = a
	m.mu.Lock()
	m.proc = p
	m.mu.Unlock()
	go func() {
		err := a.Run(p.ctx)
		close(p.done)
		if err != nil && !p.ended.Load() {
			m.r.ledger.say("the agent of %s ends: %v", m.name, err)
			m.r.exits.Add(1)
			p.end()
		}
	}()
}

func (p *process) options() agent.Options {
	m := p.m
	log := m.r.log.With("on", m.name)
	dir := func(name string) string { return filepath.Join(m.dir, name) }
	runner, err := executor.NewRunner(executor.RunnerOptions{Dir: dir("state/runner"), Node: m.name, BootID: m.bootID, CgroupRoot: "none",
		Logger: log})
	if err != nil {
		m.r.t.Errorf("make the runner of %s: %v", m.name, err)
	}
	return agent.Options{
		Node: &config.Node{Name: m.name, StateDir: dir("state"), RunDir: dir("run"), LogDir: dir("log"), Port: peerPort,
			GossipPort: gossipPort, VoterPort: voterPort, Deadman: config.Deadman{Backend: config.BackendLab}},
		Version: "test", Logger: log, Clock: m.clock, BootID: m.bootID, ConnectDeadman: p.connectDeadman, Executors: p.hands(),
		Runner: runner, Network: &peer.Config{Dial: p.dial, Listen: p.listen},
		Gossip:     gossip.Config{Dial: p.dial, Listen: p.listen, ListenPacket: p.listenPacket},
		Fencer:     &fencer{p: p},
		StartVoter: p.startVoter, FormatVolume: m.r.formatVolume, OpenVolume: p.openVolume,
		ListenLocal: func() (net.Listener, error) { return p.listen(":1") },
		Inspect: func(_ context.Context, o collect.Options) *verify.Facts {
			f := &verify.Facts{Node: o.Node, Time: time.Now()} // the machines here have no system of their own to look at
			if m.r.facts != nil {
				m.r.facts(f)
			}
			return f
		},
		WatchLinks: func(context.Context) (<-chan linux.LinkEvent, error) { return make(chan linux.LinkEvent), nil },
		Exit: func(reason string) {
			m.r.ledger.say("the agent of %s exits: %s", m.name, reason)
			m.r.exits.Add(1)
			p.end()
		},
	}
}

func (p *process) listen(address string) (net.Listener, error) {
	if p.ended.Load() {
		return nil, errEnded
	}
	return p.m.host.Listen(address)
}

func (p *process) listenPacket(address string) (net.PacketConn, error) {
	if p.ended.Load() {
		return nil, errEnded
	}
	return p.m.host.ListenPacket(address)
}

func (p *process) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	c, err := p.m.host.Dial(ctx, address)
	if err == nil && p.ended.Load() {
		c.Close()
		return nil, errEnded
	}
	return c, err
}

func (p *process) connectDeadman(ctx context.Context, s deadman.Settings) (agent.Deadman, error) {
	p.m.mu.Lock()
	d := p.m.dead
	p.m.mu.Unlock()
	if p.ended.Load() || d == nil {
		return nil, errEnded
	}
	if naive := p.m.r.naive; naive != nil {
		if n := naive(p); n != nil {
			return n, nil
		}
	}
	c, err := d.Dial()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	client, err := deadman.Attach(ctx, c, s)
	if err != nil {
		return nil, err
	}
	if wrap := p.m.r.wrapDeadman; wrap != nil {
		return wrap(p.m.name, client), nil
	}
	return client, nil
}

// end ends the process as SIGKILL does: what it does from then on reaches nobody. It returns at once.
func (p *process) end() {
	if p.ended.Swap(true) {
		return
	}
	p.m.mu.Lock()
	if p.m.proc == p {
		p.m.proc = nil
	}
	p.m.old = append(p.m.old, p)
	on := p.m.on
	p.m.mu.Unlock()
	if on {
		p.m.host.CloseAll() // before anything in it learns of its end: it must not have last words
	}
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	voters := p.voters
	p.mu.Unlock()
	for _, v := range voters {
		v.kill()
	}
	p.cancel()
}

// end switches the machine off with all that runs on it. Any goroutine.
func (m *machine) end(why string) {
	m.mu.Lock()
	if !m.on {
		m.mu.Unlock()
		return
	}
	m.on, m.why, m.died = false, why, time.Now()
	p := m.proc
	m.deads = append(m.deads, m.dead)
	m.dead = nil
	if p != nil {
		p.ended.Store(true) // before the resources are dropped: no hand of it moves after
	}
	m.r.ledger.gone(m.name, why)
	if err := m.r.world.Crash(m.name); err != nil {
		m.r.t.Error(err)
	}
	m.mu.Unlock()
	m.host.PowerOff()
	m.thaw()
	if p != nil {
		p.ended.Store(false)
		p.end()
	}
}

// crash is a power failure.
func (m *machine) crash() {
	m.end("power failure")
	m.release()
}

// release takes what ended processes still hold away from them: their store's file is replaced by a copy of what it was at
// their end, so that the next process finds it unlocked, as after a real end. Only the test's own goroutine calls it.
func (m *machine) release() {
	m.mu.Lock()
	deads, old := m.deads, m.old
	m.deads = nil
	m.mu.Unlock()
	for _, d := range deads {
		d.Close()
	}
	synctest.Wait()
	for _, p := range old {
		select {
		case <-p.done:
			continue
		default:
		}
		if err := replaceByCopy(filepath.Join(m.dir, "state/raft/raft.db")); err != nil {
			m.r.t.Error(err)
		}
		break
	}
	for _, p := range old {
		closeOnce(p.buried)
	}
	m.mu.Lock()
	m.old = nil
	m.r.zombies = append(m.r.zombies, old...)
	m.mu.Unlock()
}

func replaceByCopy(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}

// kill9 ends the agent alone.
func (m *machine) kill9() {
	if p := m.process(); p != nil {
		m.r.ledger.say("the agent of %s is killed", m.name)
		p.end()
	}
}

// replaceDeadman kills the deadman; another takes its watchdog over after a while.
func (m *machine) replaceDeadman(after time.Duration) {
	m.mu.Lock()
	d := m.dead
	m.mu.Unlock()
	if d == nil {
		return
	}
	m.r.ledger.say("the deadman of %s is killed", m.name)
	d.Kill9()
	time.Sleep(after)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead == d {
		m.dead = d.Replace()
	}
}

func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

func (m *machine) isOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

// agent is the running agent, nil if there is none.
func (m *machine) agent() *agent.Agent {
	if p := m.process(); p != nil {
		return p.agent
	}
	return nil
}

// freeze stops the agent (and the deadman too, if said so): it sends and hears nothing, and its hands do not move. What it
// was about to do it does after the thaw.
func (m *machine) freeze(deadmanToo bool) {
	m.mu.Lock()
	if m.on && m.frozen == nil {
		m.frozen = make(chan struct{})
	}
	d := m.dead
	m.mu.Unlock()
	m.r.ledger.say("%s freezes (deadman too: %v)", m.name, deadmanToo)
	m.r.lan.Isolate(m.name)
	if deadmanToo && d != nil {
		d.Stop()
	}
}

func (m *machine) thaw() {
	m.mu.Lock()
	f, d := m.frozen, m.dead
	m.frozen = nil
	m.mu.Unlock()
	if f == nil {
		return
	}
	close(f)
	m.r.lan.Heal(m.name)
	if d != nil {
		d.Continue()
	}
	m.r.ledger.say("%s thaws", m.name)
}
