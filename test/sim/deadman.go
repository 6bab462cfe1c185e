package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// The deadman of a machine: the real keeper, and around it what cmd/cldeadman does (serve.go: settle, pet, accept, read), a
// watchdog device, and the agent's side of the connection (pkg/deadman/client.go).

// A watchdog fires when it was not petted for its timeout, whatever the machine does.
type watchdog struct {
	open    bool
	held    bool // somebody besides the deadman holds its descriptor
	timeout time.Duration
	epoch   int // of the newest pet
	petted  lease.Instant
}

// pet begins the timeout anew.
func (m *machine) pet() {
	m.dog.open = true
	m.dog.epoch++
	m.dog.petted = m.clock()
	if m.n.class != lease.Independent {
		return // a timer that is itself a process: nothing fires when that process does not run
	}
	epoch := m.dog.epoch
	m.w.post(m.kernel, m.until(m.clock().Add(m.dog.timeout)), "watchdog", func() {
		if m.dog.epoch == epoch && m.up {
			m.w.stats.Fired++
			m.end("watchdog", m.residue)
		}
	})
}

// deadmanProcess is the process.
type deadmanProcess struct {
	w     *world
	m     *machine
	p     *proc
	k     *keeper.Keeper
	link  *link // to the newest agent
	links []*link
	conn  uint64
	busy  bool // inside the pet sequence
	inbox []func()
	wake  int
	timer int // the kill timer that is armed, 0 for none

	pid int

	// For the checkers.
	open    map[lease.Nonce]lease.Instant
	carried lease.Instant // newest t_req of a grant that reached it
	failing bool          // its way to reset does not work
	since   time.Duration // when it was last seen not running
}

func (m *machine) reading() keeper.Reading {
	now := m.clock()
	return keeper.Reading{Boot: now, MonoBefore: now, MonoAfter: now}
}

// startDeadman is serve: a new process, at boot or after the old one's death. It takes over the descriptor that somebody else
// holds, and never opens a device that runs.
func (m *machine) startDeadman(after bool) {
	w := m.w
	if m.n.class == lease.Process {
		after = false // there is no device that could be taken over: the timer has gone with its process
	}
	if m.dead != nil && m.dead.p.alive || after && !m.dog.held {
		return
	}
	w.spawned++
	d := &deadmanProcess{w: w, m: m, p: &proc{name: m.n.name + " deadman"}, open: map[lease.Nonce]lease.Instant{}, pid: w.spawned}
	d.p.start()
	if !after {
		m.dog.timeout, m.dog.held = w.params0.Watchdog, !m.n.unheld
		m.pet()
	}
	d.k = keeper.New(keeper.Options{Class: m.n.class, TakenOver: after, Watchdog: m.dog.timeout, Held: m.dog.held, NoWayOut: true,
		Pid: d.pid}, m.reading())
	m.dead = d
	d.settle()
}

// killDeadman is kill -9. The last close of a watchdog's descriptor pets it (attack A2).
func (m *machine) killDeadman(why string) {
	d := m.dead
	if d == nil || !d.p.alive {
		return
	}
	w := m.w
	w.note("deadman killed", m.n.name, "%s", why)
	d.p.kill()
	for _, l := range d.links {
		l.hangUp()
	}
	if m.dog.open && !m.dog.held {
		m.pet()
	}
	w.post(m.kernel, w.between(20*time.Millisecond, 900*time.Millisecond), "start deadman", func() { m.startDeadman(true) })
}

// settle does all that the keeper wants done now (serve.go).
func (d *deadmanProcess) settle() {
	for !d.busy && d.p.alive {
		a := d.k.Next(d.m.reading())
		switch a.Op {
		case keeper.Wait:
			d.flush()
			d.sleep(a.At)
			return
		case keeper.Ask:
			d.ask()
		case keeper.Pet:
			d.petSequence(a)
		case keeper.SetTimeout:
			d.k.TimeoutSet(d.m.reading(), d.setTimeout(a.Timeout))
		case keeper.Reset:
			if d.w.bug.is(BugNoHardLimit) && a.Why == wire.LeaseLost {
				d.flush()
				return
			}
			d.reset(a.Why)
			return
		}
	}
}

func (d *deadmanProcess) ask() {
	var n lease.Nonce
	d.w.rpcs++
	binary.BigEndian.PutUint64(n[:], d.w.rpcs)
	binary.BigEndian.PutUint32(n[8:], uint32(d.pid))
	now := d.m.clock()
	d.open[n] = now
	d.k.Asked(now, n)
}

// setTimeout sets the device's, which pets it. Devices count in whole seconds.
func (d *deadmanProcess) setTimeout(t time.Duration) time.Duration {
	d.m.dog.timeout = (t + time.Second - 1) / time.Second * time.Second
	d.m.pet()
	return d.m.dog.timeout
}

func (d *deadmanProcess) sleep(at lease.Instant) {
	d.wake++
	if at == 0 {
		return
	}
	wake := d.wake
	d.w.post(d.p, d.m.until(at), "deadman wakes", func() {
		if d.wake == wake && !d.busy {
			d.settle()
		}
	})
}

// petSequence is pet: between any two of its steps the process may be stopped or killed.
func (d *deadmanProcess) petSequence(a keeper.Action) {
	d.busy = true
	w := d.w
	tick := func() time.Duration { return w.between(time.Microsecond, 30*time.Microsecond) }
	if a.Kill != 0 && !w.bug.is(BugNoKillTimer) {
		d.armTimer(a.Kill)
	}
	d.w.trap(d.m.n, "pet: timer armed")
	w.post(d.p, tick(), "pet: checked", func() {
		if !w.bug.is(BugNoKillTimer) && !d.k.MayPet(d.m.reading()) {
			d.endSequence()
			return
		}
		w.trap(d.m.n, "pet: before")
		w.post(d.p, tick(), "pet", func() {
			if a.Kill != 0 {
				w.checkPet(d, a.Kill)
			}
			var inForce time.Duration
			if a.Timeout != 0 {
				inForce = d.setTimeout(a.Timeout)
			}
			d.m.pet()
			w.trap(d.m.n, "pet: after")
			w.post(d.p, tick(), "pet: done", func() {
				d.timer = 0
				d.k.Petted(d.m.reading(), true, inForce)
				d.endSequence()
			})
		})
	})
}

// armTimer makes the kernel kill the process at the moment, stopped or not.
func (d *deadmanProcess) armTimer(at lease.Instant) {
	d.w.spawned++
	d.timer = d.w.spawned
	timer := d.timer
	d.w.post(d.m.kernel, d.m.until(at), "kill timer", func() {
		if d.timer == timer && d.p.alive {
			d.w.stats.KillTimer++
			d.m.killDeadman("its kill timer")
		}
	})
}

func (d *deadmanProcess) endSequence() {
	d.busy, d.timer = false, 0
	list := d.inbox
	d.inbox = nil
	d.settle()
	for _, f := range list {
		if d.p.alive {
			d.do(f)
		}
	}
}

// do runs what came for the process, or keeps it while a pet is under way.
func (d *deadmanProcess) do(f func()) {
	if d.busy {
		d.inbox = append(d.inbox, f)
		return
	}
	f()
	d.settle()
}

// reset is the node's end, unless the way to it fails: then the device, which is petted no more, is the backstop.
func (d *deadmanProcess) reset(why wire.Reason) {
	d.flush()
	d.w.stats.Resets[why.Text()]++
	d.wake++
	d.busy = true
	if d.m.n.unreset && d.m.n.class == lease.Independent {
		d.m.n.unreset, d.failing = false, true
		d.w.note("reset fails", d.m.n.name, "%s", why.Text())
		return
	}
	d.w.note("reset", d.m.n.name, "%s", why.Text())
	d.w.post(d.p, d.w.between(0, 2*time.Millisecond), "reset", func() { d.m.end("reset", 0) })
}

// flush sends what waits for the agent.
func (d *deadmanProcess) flush() {
	var msg wire.Message
	for d.k.Out(&msg) {
		if l := d.link; l != nil && l.alive {
			m := msg
			l.toAgent(func() { l.take(&m) })
		}
	}
}

// link is one connection of an agent to its deadman, with the agent's side of it.
type link struct {
	w     *world
	a     *agent
	d     *deadmanProcess
	alive bool
	conn  uint64
	down  time.Duration // when the newest frame each way arrives: a stream keeps its order
	up    time.Duration

	state   wire.State
	known   bool
	seq     uint32
	waiting map[uint32]func(ok bool, code wire.Code)
	settled deadman.Settings // the last that the deadman has in force
}

func (l *link) toAgent(f func()) {
	at := max(l.w.now+l.w.soon(), l.up+1)
	l.up = at
	l.w.post(l.a.p, at-l.w.now, "from deadman", func() {
		if l.alive {
			f()
		}
	})
}

func (l *link) toDeadman(f func()) {
	at := max(l.w.now+l.w.soon(), l.down+1)
	l.down = at
	l.w.post(l.d.p, at-l.w.now, "to deadman", func() { l.d.do(f) })
}

// connect is ConnectDeadman: it opens the connection, gives the settings, and waits for the answer.
func (a *agent) connect(s deadman.Settings, done func(*link)) {
	w := a.w
	retry := func() { w.post(a.p, 100*time.Millisecond, "connect to deadman", func() { done(nil) }) }
	d := a.m.dead
	if d == nil || !d.p.alive {
		retry()
		return
	}
	l := &link{w: w, a: a, d: d, alive: true, waiting: map[uint32]func(bool, wire.Code){}}
	d.links = append(d.links, l)
	l.toDeadman(func() { d.accept(l) })
	ready := false
	try := func() {
		if ready && l.known {
			ready = false
			l.settled = s
			done(l)
		}
	}
	l.ask(wire.Message{Kind: wire.Hello, Settings: onWire(s)}, 0, func(ok bool, code wire.Code) {
		if !ok || code != wire.OK && code != wire.Pending {
			w.note("deadman refuses", a.name, "%s", code.Text())
			l.hangUp()
			retry()
			return
		}
		ready = true
		l.whenKnown(try)
	})
}

func onWire(s deadman.Settings) wire.Settings {
	p := s.Params
	return wire.Settings{Watchdog: p.Watchdog, Hard: p.Hard, MaxAge: p.MaxAge, Margin: p.Margin, Renew: p.Renew, ModeEvent: s.Mode == lease.ModeEvent}
}

// update is Client.Update, of a deadman that is disarmed: it gives other settings, if they are others.
func (l *link) update(s deadman.Settings, done func(err string)) {
	if s == l.settled || l.w.bug.is(BugSettings) {
		done("")
		return
	}
	l.call(wire.Message{Kind: wire.Hello, Settings: onWire(s)}, func(err string) {
		if err == "" {
			l.settled = s
		}
		done(err)
	})
}

func (l *link) whenKnown(f func()) {
	if l.known {
		f()
		return
	}
	l.w.post(l.a.p, time.Millisecond, "wait for info", func() { l.whenKnown(f) })
}

// accept takes the newest agent (serve.go).
func (d *deadmanProcess) accept(l *link) {
	if old := d.link; old != nil && old != l {
		d.k.Disconnected(d.conn)
		old.hangUp()
	}
	d.conn++
	d.link, l.conn = l, d.conn
	d.k.Connected(d.conn)
}

// hangUp ends the connection for the agent, and for the deadman when it looks.
func (l *link) hangUp() {
	if !l.alive {
		return
	}
	l.alive = false
	for _, seq := range sortedSeqs(l.waiting) {
		f := l.waiting[seq]
		delete(l.waiting, seq)
		l.w.post(l.a.p, l.w.soon(), "connection ended", func() { f(false, 0) })
	}
	l.w.post(l.a.p, l.w.soon(), "deadman gone", func() { l.a.mail(func() { l.a.lostDeadman(l) }) })
	if l.d.p.alive {
		l.w.post(l.d.p, l.w.soon(), "agent gone", func() {
			l.d.do(func() {
				if l.d.link == l {
					l.d.k.Disconnected(l.conn)
				}
			})
		})
	}
}

func sortedSeqs(m map[uint32]func(bool, wire.Code)) []uint32 {
	var out []uint32
	for s := range m {
		out = append(out, s)
	}
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// answerTime is the client's.
const answerTime = 2 * time.Second

// ask sends a frame and waits for its final answer; limit 0 for ever.
func (l *link) ask(m wire.Message, limit time.Duration, done func(ok bool, code wire.Code)) {
	l.seq++
	m.Seq = l.seq
	seq := m.Seq
	if !l.alive {
		l.w.post(l.a.p, l.w.soon(), "no connection", func() { done(false, 0) })
		return
	}
	l.waiting[seq] = done
	l.toDeadman(func() {
		if m.Kind == wire.Grant {
			l.w.truth.carried(l.d, m.Nonce)
		}
		l.d.k.Receive(l.d.m.reading(), l.conn, &m)
	})
	if limit > 0 {
		l.w.post(l.a.p, limit, "no answer", func() {
			if f := l.waiting[seq]; f != nil {
				delete(l.waiting, seq)
				f(false, 0)
			}
		})
	}
}

func (l *link) call(m wire.Message, done func(err string)) {
	l.ask(m, answerTime, func(ok bool, code wire.Code) {
		switch {
		case !ok:
			done("the deadman did not answer")
		case code == wire.OK, m.Kind == wire.Reset && code == wire.Resetting:
			done("")
		default:
			done(code.Text())
		}
	})
}

func (l *link) renew() {
	l.toDeadman(func() { l.d.k.Receive(l.d.m.reading(), l.conn, &wire.Message{Kind: wire.Renew}) })
}

// take is the client's: what the deadman says.
func (l *link) take(m *wire.Message) {
	switch m.Kind {
	case wire.Request:
		l.a.carryRequest(l, m.Nonce, m.At)
	case wire.Info:
		l.state, l.known = m.State, true
	case wire.Ack:
		if f := l.waiting[m.Seq]; f != nil && m.Code != wire.Pending {
			delete(l.waiting, m.Seq)
			f(true, m.Code)
		} else if f != nil && l.settled.Mode == "" { // a connection may begin before its settings are in force
			delete(l.waiting, m.Seq)
			f(true, m.Code)
		}
	case wire.Event:
		l.w.note("deadman says", l.a.name, "%s", m.Reason.Text())
	}
}

// info is what Client.Info says.
func (l *link) info() deadman.Info {
	s := l.state
	i := deadman.Info{Class: lease.Process, Watchdog: s.Watchdog, Mode: lease.ModeReset, Armed: s.Armed, Pid: int(s.Pid), Started: s.Started,
		ArmedAt: s.ArmedAt, Device: s.Watchdog, Held: s.Held, TakenOver: s.TakenOver, NoWayOut: s.NoWayOut}
	if s.ModeEvent {
		i.Mode = lease.ModeEvent
	}
	if s.Independent {
		i.Class = lease.Independent
		if !s.Held {
			i.Watchdog *= 2
		}
	}
	return i
}

func digest(boot string) (out [16]byte) {
	sum := sha256.Sum256([]byte(boot))
	copy(out[:], sum[:])
	return out
}

// grantFrame is what Client.Grant sends.
func grantFrame(g *lease.Grant) wire.Message {
	return wire.Message{Kind: wire.Grant, Nonce: g.Nonce, Time: g.LeaderTime, Boot: digest(g.LeaderBoot)}
}
