package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Options say what one run is.
type Options struct {
	Seed  uint64
	Steps int  // events of the disturbed part; the run then heals, and ends
	Bug   *Bug // planted; nil for none
	// MaxFaults ends the disturbances after so many, for shrinking; 0: no limit.
	MaxFaults int
}

// A world is one run: true time, the queue of events, and all there is.
type world struct {
	opt    Options
	bug    *Bug
	r      *rand.Rand // chances of the world itself
	fr     *rand.Rand // choice and time of faults, apart so that leaving the last ones out does not change the first
	now    time.Duration
	seq    uint64
	queue  eventQueue
	steps  int
	trace  ring
	stats  *Stats
	failed *Violation

	names         []string
	nodes         []*node
	byName        map[string]*node
	def0          *cluster.Definition
	wall0         time.Time
	cut           [][]int // from, to: how many faults cut the way
	net           netQuality
	book          *ledger
	truth         *truth
	ops           *operators
	traps         []*trap
	canon         []*entry // committed, by index
	entries       window   // for the checker of storms
	refused       window
	newest        *state.State
	sticky        bool // leaders do not notice that they have lost their followers
	calm          bool // no more faults
	slow          time.Duration
	busyUntil     time.Duration // an attack of several steps is under way
	slowProposals time.Duration // goroutines of proposals wait so long at most
	spawned       int
	rpcs          uint64
	healed        time.Duration // when the faults ended
	fenced        fenceDevice
	at            trapped // what the trap that springs is about
	faults        int
	params0       lease.Params

	shadow    *state.State // a replica restored from a snapshot
	shadowFor int
}

// A Violation is a promise that was broken.
type Violation struct {
	Check  string
	Text   string
	At     time.Duration
	Step   int
	Trace  []string
	Faults int // injected so far
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s: %s (at %.3f s, step %d, after %d faults)", v.Check, v.Text, v.At.Seconds(), v.Step, v.Faults)
}

// fail notes the first broken promise; the run then ends.
func (w *world) fail(check, format string, args ...any) {
	if w.failed == nil {
		w.note("VIOLATION", "", "%s: %s", check, fmt.Sprintf(format, args...))
		w.failed = &Violation{Check: check, Text: fmt.Sprintf(format, args...), At: w.now, Step: w.steps, Trace: w.trace.lines(), Faults: w.faults}
	}
}

// A proc is a process, or something else to which events come in order: it can be stopped, continued and killed.
type proc struct {
	name    string
	alive   bool
	paused  bool
	epoch   int
	backlog []*event // what came while it was stopped
}

// event is something that happens at a moment. It belongs to a process, which must live then; or it is a message, for whatever
// agent runs on a node when it arrives; or it is the world's own.
type event struct {
	at      time.Duration
	seq     uint64
	p       *proc
	epoch   int
	to      *node
	kind    string
	fn      func()
	receive func(*agent)
}

// eventQueue is a binary heap by (at, seq).
type eventQueue []*event

func (q eventQueue) before(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *eventQueue) push(e *event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(i, up) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (q *eventQueue) pop() *event {
	h := *q
	e := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	h = h[:last]
	*q = h
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h.before(c+1, c) {
			c++
		}
		if !h.before(c, i) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	return e
}

func (w *world) schedule(e *event, after time.Duration) {
	w.seq++
	e.at, e.seq = w.now+max(after, 0), w.seq
	w.queue.push(e)
}

// post lets fn happen in the process after a while, if it lives then.
func (w *world) post(p *proc, after time.Duration, kind string, fn func()) {
	e := &event{p: p, kind: kind, fn: fn}
	if p != nil {
		e.epoch = p.epoch
	}
	w.schedule(e, after)
}

// after lets fn happen whatever lives.
func (w *world) after(d time.Duration, kind string, fn func()) { w.post(nil, d, kind, fn) }

// step makes the next event happen. It reports false when there is none.
func (w *world) step() bool {
	for len(w.queue) > 0 {
		e := w.queue.pop()
		w.now = e.at
		p, epoch := e.p, e.epoch
		var to *agent
		if e.to != nil {
			if to = e.to.current(); to == nil {
				continue
			}
			p, epoch = to.p, to.p.epoch
		}
		if p != nil {
			if !p.alive || p.epoch != epoch {
				continue
			}
			if p.paused {
				p.backlog = append(p.backlog, e)
				continue
			}
		}
		w.steps++
		w.stats.Events[e.kind]++
		if e.receive != nil {
			e.receive(to)
		} else {
			e.fn()
		}
		return true
	}
	return false
}

// pause stops a process, as SIGSTOP does.
func (w *world) pause(p *proc) {
	if p != nil && p.alive {
		p.paused = true
	}
}

// resume continues it: all that came meanwhile happens now, in order.
func (w *world) resume(p *proc) {
	if p == nil || !p.paused {
		return
	}
	p.paused = false
	list := p.backlog
	p.backlog = nil
	for i, e := range list {
		e.epoch = p.epoch
		w.schedule(e, time.Duration(i+1)*time.Microsecond)
	}
}

func (p *proc) start() { p.alive, p.paused, p.backlog = true, false, nil; p.epoch++ }

func (p *proc) kill() { p.alive, p.paused, p.backlog = false, false, nil; p.epoch++ }

// runs reports whether the process lives and is not stopped.
func (p *proc) runs() bool { return p != nil && p.alive && !p.paused }

// Chances.

func (w *world) chance(p float64) bool { return w.r.Float64() < p }

// between draws evenly.
func (w *world) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(w.r.Int64N(int64(b-a)))
}

// soon is what a goroutine needs to be scheduled, or a system call to return: most often microseconds.
func (w *world) soon() time.Duration {
	d := w.between(5*time.Microsecond, 80*time.Microsecond)
	if w.slow > 0 && w.chance(0.5) {
		d += w.between(0, w.slow)
	}
	return d
}

func (w *world) wall(n *node) time.Time { return w.wall0.Add(w.now).Add(n.wallOffset) }

// A machine is one boot of a node: a kernel, its clock, its processes, its watchdog, and what runs there.
type machine struct {
	w       *world
	n       *node
	bootID  string
	number  int // of the boot
	up      bool
	cutOff  bool // the first copy of a node whose platform has started a second one: it writes on and reaches nobody
	booted  time.Duration
	origin  lease.Instant
	rate    float64
	kernel  *proc // executors' children, timers of the kernel
	agentP  *proc
	agent   *agent
	dead    *deadmanProcess
	dog     watchdog
	units   map[string]*unit
	why     string // how it ended
	residue time.Duration
	quiet   time.Duration // world time of its last side effect, once it has ended: no machine boots before
	granted map[hold]bool // what grants listed that this machine's deadman has taken
	lastReq lease.Instant // t_req of the newest of them
}

// A node is a member: its disk outlives its boots.
type node struct {
	w          *world
	name       string
	index      int
	m          *machine
	old        []*machine // copies that still run
	disk       disk
	class      lease.Class
	boots      int
	wallOffset time.Duration
	offUntil   time.Duration
	lagged     time.Duration // raft's messages come this much later
	lagUntil   time.Duration
	remembers  bool // the deadman leaves a note of its resets
	resetWhy   string
	exec       execFaults
	fence      fenceFaults
	netDown    map[string]bool
	snapEvery  int
	unheld     bool                     // nobody besides its deadman holds the watchdog's descriptor
	late       map[string]time.Duration // the next message of that kind is under way for so long
	again      map[string]time.Duration // the next message of that kind comes a second time, so much later
	unreset    bool                     // the next reset by software does nothing: the device is the backstop
}

// disk is what a crash leaves.
type disk struct {
	raft       raftDisk
	tombstones map[string]uint64
	lifeBoot   string
	life       string
	full       bool
	armedBoot  string // the boot whose deadman is armed, or may be
	armedWith  deadman.Settings
}

func (n *node) current() *agent {
	if n.m == nil || !n.m.up || n.m.agent == nil || !n.m.agentP.alive {
		return nil
	}
	return n.m.agent
}

func (m *machine) clock() lease.Instant { return m.at(m.w.now) }

func (m *machine) at(t time.Duration) lease.Instant {
	return m.origin + lease.Instant(float64(t-m.booted)*m.rate)
}

// until is the true time from now to a moment of the machine's clock.
func (m *machine) until(i lease.Instant) time.Duration {
	t := m.booted + time.Duration(float64(i-m.origin)/m.rate)
	for m.at(t) < i {
		t++
	}
	return max(t-m.w.now, 0)
}

// boot starts the node's machine anew.
func (w *world) boot(n *node) {
	if n.m != nil && n.m.up {
		return
	}
	n.boots++
	rates := []float64{1 - lease.Rho, 1 + lease.Rho, 1 + lease.Rho*(2*w.r.Float64()-1)}
	m := &machine{w: w, n: n, bootID: fmt.Sprintf("%s-boot%d", n.name, n.boots), number: n.boots, up: true, booted: w.now,
		origin: lease.Instant(w.between(time.Second, 100*time.Hour)), rate: rates[w.r.IntN(3)],
		units: map[string]*unit{}, granted: map[hold]bool{}, residue: lateResidue}
	m.kernel = &proc{name: n.name + " kernel"}
	m.agentP = &proc{name: n.name + " agent"} // none yet
	m.kernel.start()
	n.m = m
	n.exec.hangs = false
	w.note("boot", n.name, "%s", m.bootID)
	w.stats.Boots++
	w.book.machines[m.bootID] = m
	w.post(m.kernel, w.between(10*time.Millisecond, 80*time.Millisecond), "start deadman", func() { m.startDeadman(false) })
	w.post(m.kernel, w.between(20*time.Millisecond, 300*time.Millisecond), "start agent", m.startAgent)
}

// end stops the machine: at once, or, when a watchdog fires, with side effects that last for the residue.
func (m *machine) end(why string, residue time.Duration) {
	if !m.up {
		return
	}
	w := m.w
	w.note("machine ends", m.n.name, "%s %s", m.bootID, why)
	m.up, m.why = false, why
	m.agentP.kill()
	if m.agent != nil {
		m.agent.ended()
	}
	if m.dead != nil {
		m.dead.p.kill()
	}
	m.kernel.kill()
	m.dog.epoch++
	if why == "watchdog" || why == "reset" {
		m.n.resetWhy = "the deadman has reset it (" + why + ")"
	} else {
		m.n.resetWhy = ""
	}
	if residue > 0 {
		left := m.until(m.clock().Add(residue))
		m.quiet = w.now + left
		w.after(left, "last side effect", m.silent)
	} else {
		m.silent()
	}
	if m.cutOff {
		return
	}
	n := m.n
	d := w.between(500*time.Millisecond, 9*time.Second)
	if w.calm {
		d = w.between(200*time.Millisecond, time.Second)
	}
	if wait := n.offUntil - w.now; wait > d {
		d = wait
	}
	d += residue
	w.after(d, "boot", func() { w.bootIfOff(n, m) })
}

// silent: nothing of the machine has an effect any more.
func (m *machine) silent() {
	for _, g := range sortedKeys(m.units) {
		m.w.truth.end(m, g)
		m.units[g].state = stopped
	}
}

func (w *world) bootIfOff(n *node, m *machine) {
	if n.m != m || m.up {
		return
	}
	if n.offUntil > w.now { // switched off meanwhile
		w.after(n.offUntil-w.now, "boot", func() { w.bootIfOff(n, m) })
		return
	}
	w.boot(n)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sortStrings(out)
	return out
}

// sortStrings sorts short lists without allocating.
func sortStrings(s []string) {
	for i := 1; i < len(s); i++ {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}
