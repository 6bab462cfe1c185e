package keeper

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A world is one node with its watchdog, deadman and agent, and a leader, in simulated time; everything that can go wrong goes
// wrong by a seeded dice. Its checker knows nothing of the keeper: it sees what the leader issued, when the node's last effect
// was, and the one inequality by which the leader frees what the node held.
type world struct {
	dice    *rand.Rand
	without Rule
	noTimer bool // the process has no kill timer
	faults  bool

	now     lease.Instant
	k       *Keeper
	running bool          // a deadman process exists
	kill    lease.Instant // its kill timer, 0 if disarmed
	revive  lease.Instant // when a successor starts
	device  lease.Instant // when the watchdog fires
	timeout time.Duration

	conn   uint64
	back   lease.Instant // when an agent connects
	hangs  lease.Instant // until when the agent is stopped
	seq    uint32
	calls  map[uint32]func(wire.Code)
	state  wire.State
	want   bool // the cluster wants something to run here
	told   bool // the deadman knows that this arming holds something
	holds  bool // it runs
	asked  []wire.Message
	flight []carried

	cut    lease.Instant // no leader before
	issued []lease.Instant
	newest lease.Instant // issue of the newest grant by now

	count    counters
	violated string
}

// carried is a grant on its way from the leader to the deadman.
type carried struct {
	m       wire.Message
	request lease.Instant
	issued  lease.Instant
	arrives lease.Instant
}

// counters say what a run went through.
type counters struct{ steps, pauses, kills, takeovers, cuts, reconnects, hangs, delays, deaths, grants, starts int }

func (c *counters) add(o counters) {
	c.steps, c.pauses, c.kills, c.takeovers = c.steps+o.steps, c.pauses+o.pauses, c.kills+o.kills, c.takeovers+o.takeovers
	c.cuts, c.reconnects, c.delays = c.cuts+o.cuts, c.reconnects+o.reconnects, c.delays+o.delays
	c.hangs += o.hangs
	c.deaths, c.grants, c.starts = c.deaths+o.deaths, c.grants+o.grants, c.starts+o.starts
}

const step = 10 * time.Millisecond

func newWorld(seed uint64, change func(*world)) *world {
	w := &world{dice: rand.New(rand.NewPCG(seed, 1)), faults: true, now: lease.Instant(time.Hour), timeout: fast.Watchdog}
	change(w)
	w.boot()
	return w
}

// boot starts the node afresh.
func (w *world) boot() {
	w.k = newKeeper(Options{Class: lease.Independent, Watchdog: fast.Watchdog, Held: true}, w.reading(), rules{without: w.without})
	w.running, w.kill, w.revive, w.timeout = true, 0, 0, fast.Watchdog
	w.device = w.now.Add(w.timeout)
	w.holds, w.told, w.want = false, false, true
	w.reconnect()
}

func (w *world) reading() Reading {
	return Reading{Boot: w.now, MonoBefore: w.now, MonoAfter: w.now}
}

func (w *world) chance(one int) bool { return w.faults && w.dice.IntN(one) == 0 }

func (w *world) some(ds ...time.Duration) time.Duration { return ds[w.dice.IntN(len(ds))] }

// bound is what the leader counts from its last grant, without R.
func bound() time.Duration { return fast.MaxAge + fast.Watchdog + fast.Margin }

// die ends the node.
func (w *world) die() {
	w.check()
	w.running, w.kill, w.conn = false, 0, 0
	w.holds = false
	w.count.deaths++
	w.flight, w.asked = nil, nil
	w.now = w.now.Add(time.Second)
	w.boot()
}

// check is the promise: while the node has effects, the leader must not call them gone.
func (w *world) check() {
	ahead := w.issued[:0]
	for _, at := range w.issued {
		if at <= w.now {
			w.newest = max(w.newest, at)
		} else {
			ahead = append(ahead, at)
		}
	}
	w.issued = ahead
	if w.holds && w.now > w.newest.Add(bound()+step) && w.violated == "" {
		w.violated = fmt.Sprintf("the node still has effects %v after the leader's last grant; it is called free after %v", w.now.Sub(w.newest), bound())
	}
}

// advance lets time pass while the deadman does nothing. false says that the deadman, or the node, did not live to see its end.
func (w *world) advance(d time.Duration) bool {
	for end := w.now.Add(d); w.now < end; {
		w.now = min(w.now.Add(step), end)
		w.check()
		if w.now >= w.device {
			w.die()
			return false
		}
		if w.kill != 0 && w.now >= w.kill {
			w.endProcess()
			return false
		}
	}
	return true
}

// endProcess ends the deadman; somebody else holds the device's descriptor, so nothing is petted by that.
func (w *world) endProcess() {
	w.running, w.kill, w.conn = false, 0, 0
	w.flight, w.asked = nil, nil
	w.revive = w.now.Add(w.some(step, 100*ms, 500*ms, 3*time.Second))
	w.count.kills++
}

// pause may stop the deadman for a while at this point. false says that it did not survive that.
func (w *world) pause() bool {
	if !w.chance(60) {
		return true
	}
	w.count.pauses++
	return w.advance(w.some(20*ms, 150*ms, 250*ms, 450*ms, time.Second, 2500*ms, 6*time.Second))
}

// settle runs the deadman until it waits. Between all its steps it may be stopped.
func (w *world) settle() {
	for range 100 {
		if !w.running || !w.pause() {
			return
		}
		a := w.k.Next(w.reading())
		switch a.Op {
		case Wait:
			w.listen()
			return
		case Ask:
			var n lease.Nonce
			for i := range n {
				n[i] = byte(w.dice.Uint32())
			}
			w.k.Asked(w.now, n)
		case Pet:
			if !w.pet(a) {
				return
			}
		case SetTimeout:
			w.device = w.now.Add(w.timeout)
			w.k.TimeoutSet(w.reading(), w.timeout)
		case Reset:
			w.die()
			return
		}
	}
}

func (w *world) pet(a Action) bool {
	if !w.pause() {
		return false
	}
	if a.Kill != 0 && !w.noTimer {
		w.kill = max(a.Kill, w.now.Add(step/10)) // one armed for the past fires a little later than at once
	}
	if !w.pause() {
		return false
	}
	if w.k.MayPet(w.reading()) {
		if !w.pause() {
			return false
		}
		w.device = w.now.Add(w.timeout)
		if !w.pause() {
			return false
		}
		w.kill = 0
		if !w.pause() {
			return false
		}
		w.k.Petted(w.reading(), true, 0)
	}
	w.kill = 0
	return true
}

// listen is the agent reading what its deadman says.
func (w *world) listen() {
	var m wire.Message
	for w.k.Out(&m) {
		if w.conn == 0 {
			continue
		}
		switch m.Kind {
		case wire.Request:
			w.asked = append(w.asked, m)
		case wire.Ack:
			if f := w.calls[m.Seq]; f != nil {
				f(m.Code)
			}
		case wire.Info:
			w.state = m.State
			if !m.State.Armed {
				w.told = false
			}
		}
	}
}

func (w *world) send(m wire.Message, then func(wire.Code)) {
	if w.conn == 0 || !w.running {
		return
	}
	w.seq++
	m.Seq = w.seq
	w.calls[m.Seq] = then
	w.k.Receive(w.reading(), w.conn, &m)
	w.settle()
}

func (w *world) reconnect() {
	w.seq++ // connections are numbered by what no other one had
	w.conn = uint64(w.seq)
	w.calls = map[uint32]func(wire.Code){}
	w.asked, w.told, w.back = nil, false, 0
	w.k.Connected(w.conn)
	w.send(wire.Message{Kind: wire.Hello, Settings: fast}, nil)
	if w.chance(5) {
		w.hang()
	}
}

// hang stops the agent for a while.
func (w *world) hang() {
	w.count.hangs++
	w.hangs = w.now.Add(w.some(100*ms, time.Second, 3*time.Second))
}

// lead is the leader granting what reaches it, and the network in between.
func (w *world) lead() {
	for _, q := range w.asked {
		if w.now < w.cut || w.chance(30) {
			continue // lost
		}
		there := w.some(0, step, 20*ms)
		back := w.some(0, step, 20*ms)
		if w.chance(15) {
			w.count.delays++
			there, back = w.some(0, 100*ms, 290*ms, 600*ms), w.some(0, 100*ms, 290*ms, 600*ms, 3*time.Second)
		}
		issued := w.now.Add(there)
		w.issued = append(w.issued, issued)
		w.flight = append(w.flight, carried{
			m: wire.Message{Kind: wire.Grant, Nonce: q.Nonce, Boot: [16]byte{1}, Time: issued}, request: q.At, issued: issued, arrives: issued.Add(back),
		})
		w.count.grants++
	}
	w.asked = nil
	var later, due []carried
	for _, c := range w.flight {
		if c.arrives <= w.now {
			due = append(due, c)
		} else {
			later = append(later, c)
		}
	}
	w.flight = later
	for _, c := range due {
		w.send(c.m, func(code wire.Code) {
			if code == wire.OK && w.want && w.told && w.state.Armed && c.request >= w.state.ArmedAt && !w.holds {
				w.holds = true
				w.count.starts++
			}
		})
	}
}

// agent takes its next step: arm, tell, stop, disarm.
func (w *world) agent() {
	if w.faults && w.dice.IntN(500) == 0 || !w.faults && w.dice.IntN(2000) == 0 {
		w.want = !w.want
	}
	switch {
	case w.conn == 0:
	case !w.want && w.state.Armed:
		w.holds = false
		w.send(wire.Message{Kind: wire.Disarm}, nil)
	case w.want && !w.state.Armed:
		if w.holds {
			return // it disarmed under us: the checker will see what comes of it
		}
		w.send(wire.Message{Kind: wire.Arm}, nil)
	case w.want && !w.told:
		w.send(wire.Message{Kind: wire.Holds, Started: true}, func(c wire.Code) { w.told = c == wire.OK })
	}
}

// live makes one step of everything.
func (w *world) live() {
	w.count.steps++
	w.advance(step)
	switch {
	case w.chance(700):
		w.count.cuts++
		w.cut = w.now.Add(w.some(300*ms, time.Second, 1850*ms, 2*time.Second, 5*time.Second))
	case w.running && w.chance(400):
		w.endProcess()
	case w.running && w.conn != 0 && w.chance(600):
		w.count.reconnects++
		w.k.Disconnected(w.conn)
		w.conn, w.asked = 0, nil
		w.back = w.now.Add(w.some(0, 100*ms, time.Second))
	}
	if !w.running && w.now >= w.revive {
		w.count.takeovers++
		w.k = newKeeper(Options{Class: lease.Independent, TakenOver: true, Watchdog: w.timeout, Held: true}, w.reading(), rules{without: w.without})
		w.running = true
		w.back = w.now.Add(w.some(0, 50*ms, time.Second))
	}
	if w.running && w.conn == 0 && w.now >= w.back {
		w.reconnect()
	}
	if w.chance(500) {
		w.hang()
	}
	w.settle()
	if w.now >= w.hangs {
		w.lead()
		w.agent()
	}
	w.settle()
}

// TestNoEffectAfterTheBound is the keeper's whole promise under everything at once.
func TestNoEffectAfterTheBound(t *testing.T) {
	var sum counters
	for seed := range uint64(80) {
		w := newWorld(seed, func(*world) {})
		for range 3000 {
			w.live()
			if w.violated != "" {
				t.Fatalf("seed %d at step %d: %s", seed, w.count.steps, w.violated)
			}
		}
		sum.add(w.count)
	}
	t.Logf("%+v", sum)
	if sum.starts < 100 || sum.deaths < 100 || sum.takeovers < 100 || sum.pauses < 100 {
		t.Errorf("the runs went through too little: %+v", sum)
	}
}

// TestHealthyWorldNeverDies is the other half: without faults no node is reset.
func TestHealthyWorldNeverDies(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld(seed, func(w *world) { w.faults = false })
		for range 5000 {
			w.live()
		}
		if w.count.deaths != 0 || w.count.starts == 0 || w.violated != "" {
			t.Errorf("seed %d: %+v %s", seed, w.count, w.violated)
		}
	}
}

// TestMissingDefenceIsSeen takes defences away one by one. The checker has to notice each of those that the bound rests on.
func TestMissingDefenceIsSeen(t *testing.T) {
	for _, c := range []struct {
		name    string
		without Rule
		noTimer bool
	}{
		{"A3: no kill timer", 0, true},
		{"A3: nothing looks at the clock again under the timer", RuleLate, false},
		{"A3: neither age, nor timer, nor a second look", RuleAge | RuleLate, true},
		{"A2: who takes over counts as disarmed", RuleTaken, false},
		{"A2: who takes over believes that nothing runs", RuleHolding, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(400) {
				w := newWorld(seed, func(w *world) { w.without, w.noTimer = c.without, c.noTimer })
				for range 3000 {
					if w.live(); w.violated != "" {
						t.Logf("seen with seed %d at step %d: %s", seed, w.count.steps, w.violated)
						return
					}
				}
			}
			t.Error("nobody noticed")
		})
	}
}
