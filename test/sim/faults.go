package sim

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A fault is one kind of disturbance. do makes it happen and reports false if it cannot now; it ends by itself.
type fault struct {
	name   string
	weight int
	do     func(*world) bool
}

// A trap waits for a moment in a node's life that chance would seldom meet.
type trap struct {
	n     *node
	point string
	until time.Duration
	do    func()
}

func (w *world) set(n *node, point string, within time.Duration, do func()) {
	w.traps = append(w.traps, &trap{n, point, w.now + within, do})
}

// trap is called at such moments.
func (w *world) trap(n *node, point string) {
	for i, t := range w.traps {
		if t.point != point || t.n != n {
			continue
		}
		w.traps = append(w.traps[:i:i], w.traps[i+1:]...)
		if w.now <= t.until && !w.calm {
			w.note("trap", n.name, "%s", point)
			t.do()
		}
		return
	}
}

// trapped is what a trap has met.
type trapped struct{ group string }

func (w *world) trapReport(n *node, r *state.Report) {
	if len(w.traps) > 0 {
		w.at = trapped{r.Group}
		w.trap(n, "report "+string(r.Outcome))
	}
}

func (w *world) trapEntry(e *entry) {
	if len(w.traps) == 0 || e.res.Refused != "" {
		return
	}
	switch c := e.cmd; {
	case c.Armed != nil:
		w.trap(w.byName[c.Armed.Fact.Node], "armed")
	case c.Acquire != nil:
		w.trap(w.byName[c.Acquire.Node], "acquire")
	case c.Proof != nil:
		w.trap(w.byName[c.Proof.Node], "proof")
	}
}

// inject makes one fault happen, and the next one later.
func (w *world) inject() {
	if w.calm || w.opt.MaxFaults > 0 && w.faults >= w.opt.MaxFaults {
		return
	}
	for range 20 {
		f := w.choose()
		if f.do(w) {
			w.faults++
			w.stats.Faults[f.name]++
			w.note("FAULT", "", "%s", f.name)
			break
		}
	}
	w.after(w.fbetween(100*time.Millisecond, 2600*time.Millisecond), "fault", w.inject)
}

func (w *world) choose() *fault {
	if w.bug != nil && (w.bug.Only || w.fr.IntN(3) > 0) {
		name := w.bug.Faults[w.fr.IntN(len(w.bug.Faults))]
		for i := range faults {
			if faults[i].name == name {
				return &faults[i]
			}
		}
		panic("no fault " + name)
	}
	k := w.fr.IntN(faultWeights)
	for i := range faults {
		if k -= faults[i].weight; k < 0 {
			return &faults[i]
		}
	}
	return &faults[0]
}

func (w *world) fbetween(a, b time.Duration) time.Duration {
	return a + time.Duration(w.fr.Int64N(int64(b-a)))
}

func (w *world) someNode() *node { return w.nodes[w.fr.IntN(len(w.nodes))] }

// leaderNode is a node that leads, if one does.
func (w *world) leaderNode() *node {
	var found *node
	for _, n := range w.nodes {
		if a := n.current(); a != nil && a.leading() != nil && (found == nil || a.lead.term > found.m.agent.lead.term) {
			found = n
		}
	}
	return found
}

// holderNode is a node that has something.
func (w *world) holderNode() *node {
	k := w.fr.IntN(len(w.nodes))
	for i := range w.nodes {
		n := w.nodes[(k+i)%len(w.nodes)]
		for _, u := range n.m.units {
			if n.m.up && u.state != stopped {
				return n
			}
		}
	}
	return w.nodes[k]
}

// sever cuts the ways between two sets of nodes for a while.
func (w *world) sever(from, to []*node, both bool, d time.Duration) (heal func()) {
	change := func(by int) {
		if w.calm {
			return // all is open again
		}
		for _, a := range from {
			for _, b := range to {
				if a == b {
					continue
				}
				w.cut[a.index][b.index] += by
				if both {
					w.cut[b.index][a.index] += by
				}
			}
		}
	}
	change(1)
	open := false
	heal = func() {
		if !open {
			open = true
			change(-1)
		}
	}
	w.after(d, "way heals", heal)
	return heal
}

func (w *world) others(n *node) []*node {
	var out []*node
	for _, o := range w.nodes {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}

// stop pauses processes for a while.
func (w *world) stop(d time.Duration, list ...*proc) {
	for _, p := range list {
		if p == nil || !p.alive || p.paused {
			continue
		}
		w.pause(p)
		epoch := p.epoch
		w.after(d, "continue", func() {
			if p.epoch == epoch {
				w.resume(p)
			}
		})
	}
}

func (m *machine) deadmanProc() *proc {
	if m.dead == nil {
		return nil
	}
	return m.dead.p
}

// powerOff takes the power from a node: all machines of that name.
func (n *node) powerOff(why string) {
	for _, m := range append([]*machine{n.m}, n.old...) {
		m.end(why, 0)
		m.silent()
	}
}

// longer is a duration that is often about the lease's own times.
func (w *world) longer() time.Duration {
	switch w.fr.IntN(4) {
	case 0:
		return w.fbetween(100*time.Millisecond, 1500*time.Millisecond)
	case 1:
		return w.fbetween(time.Second, 5*time.Second)
	case 2:
		return w.fbetween(4*time.Second, 8*time.Second)
	}
	return w.fbetween(6*time.Second, 16*time.Second)
}

// faults are all kinds; the weights are relative.
var faults []fault

var faultWeights int

func init() {
	faults = allFaults()
	for i := range faults {
		faultWeights += faults[i].weight
	}
}

func allFaults() []fault {
	return []fault{
		// Machines.
		{"crash", 6, func(w *world) bool { return crash(w.someNode()) }},
		{"crash of a holder", 6, func(w *world) bool { return crash(w.holderNode()) }},
		{"crash of the leader", 4, func(w *world) bool { n := w.leaderNode(); return n != nil && crash(n) }},
		{"crash and lag", 3, func(w *world) bool {
			n := w.holderNode()
			n.lagged, n.lagUntil = w.fbetween(200*time.Millisecond, 8*time.Second), w.now+25*time.Second
			return crash(n)
		}},
		{"all power", 1, func(w *world) bool {
			for _, n := range w.nodes {
				crash(n)
			}
			return true
		}},
		{"second copy", 6, secondCopy},
		{"reset fails", 2, func(w *world) bool { w.someNode().unreset = true; return true }},
		{"reset asked for", 1, func(w *world) bool {
			a := w.someNode().current()
			if a != nil {
				a.resetNode("by chance")
			}
			return a != nil
		}},

		// Processes.
		{"stop agent", 5, func(w *world) bool { n := w.holderNode(); w.stop(w.longer(), n.m.agentP); return n.m.up }},
		{"stop deadman", 4, func(w *world) bool { n := w.holderNode(); w.stop(w.longer(), n.m.deadmanProc()); return n.m.up }},
		{"stop both", 6, func(w *world) bool {
			n := w.holderNode()
			w.stop(w.longer(), n.m.agentP, n.m.deadmanProc())
			return n.m.up
		}},
		{"stop agent of the leader", 3, func(w *world) bool {
			n := w.leaderNode()
			if n != nil {
				w.stop(w.longer(), n.m.agentP)
			}
			return n != nil
		}},
		{"isolate and stop", 6, isolateAndStop},
		{"kill agent in an action", 6, func(w *world) bool {
			n, point := w.holderNode(), pick(w.fr, "start", "stop")
			by := w.fbetween(20*time.Microsecond, 60*time.Millisecond)
			w.set(n, point, 15*time.Second, func() { w.after(by, "kill", func() { n.m.killAgent("in an action") }) })
			return n.m.up
		}},
		{"kill agent", 6, func(w *world) bool { n := w.someNode(); n.m.killAgent("by chance"); return n.m.up }},
		{"kill deadman", 4, func(w *world) bool { n := w.holderNode(); n.m.killDeadman("by chance"); return n.m.up }},
		{"kill both", 3, func(w *world) bool {
			n := w.holderNode()
			n.m.killAgent("by chance")
			n.m.killDeadman("by chance")
			return n.m.up
		}},
		{"kill deadman before L_hard", 4, killBeforeHard},
		{"stop in the pet", 5, stopInThePet},
		{"loop hangs", 2, func(w *world) bool { return loopHangs(w, w.someNode()) }},
		{"loop of the leader", 2, func(w *world) bool { n := w.leaderNode(); return n != nil && loopHangs(w, n) }},
		{"slow goroutines", 2, func(w *world) bool {
			w.slow = w.fbetween(time.Millisecond, 120*time.Millisecond)
			w.after(w.longer(), "goroutines are fast", func() { w.slow = 0 })
			return true
		}},
		{"store hangs", 3, func(w *world) bool {
			n := w.someNode()
			if l := w.leaderNode(); l != nil && w.fr.IntN(2) == 0 {
				n = l
			}
			a := n.current()
			if a == nil || a.s.hung {
				return false
			}
			a.s.hang(w.fbetween(50*time.Millisecond, 2500*time.Millisecond))
			return true
		}},
		{"disk full", 1, func(w *world) bool {
			n := w.someNode()
			n.disk.full = true
			w.after(w.longer(), "disk has room", func() { n.disk.full = false })
			return true
		}},

		// Network.
		{"cut node", 8, func(w *world) bool {
			n := w.holderNode()
			w.sever([]*node{n}, w.others(n), true, w.longer())
			return true
		}},
		{"cut leader", 4, func(w *world) bool {
			n := w.leaderNode()
			if n != nil {
				w.sever([]*node{n}, w.others(n), true, w.longer())
			}
			return n != nil
		}},
		{"cut one way", 5, func(w *world) bool {
			n := w.someNode()
			if w.fr.IntN(2) == 0 {
				w.sever([]*node{n}, w.others(n), false, w.longer())
			} else {
				w.sever(w.others(n), []*node{n}, false, w.longer())
			}
			return true
		}},
		{"cut pair", 4, func(w *world) bool {
			w.sever([]*node{w.someNode()}, []*node{w.someNode()}, w.fr.IntN(2) == 0, w.longer())
			return true
		}},
		{"partition", 3, func(w *world) bool {
			var a, b []*node
			for _, n := range w.nodes {
				if w.fr.IntN(2) == 0 {
					a = append(a, n)
				} else {
					b = append(b, n)
				}
			}
			w.sever(a, b, true, w.longer())
			return len(a) > 0 && len(b) > 0
		}},
		{"flapping cut", 1, func(w *world) bool {
			n := w.someNode()
			on := w.fbetween(300*time.Millisecond, 3*time.Second)
			for i := range 5 {
				w.after(time.Duration(2*i)*on, "flaps", func() { w.sever([]*node{n}, w.others(n), true, on) })
			}
			return true
		}},
		{"loss", 2, func(w *world) bool {
			w.net.loss = 0.02 + 0.3*w.fr.Float64()
			w.after(w.longer(), "no loss", func() { w.net.loss = 0 })
			return true
		}},
		{"delay", 3, func(w *world) bool {
			w.net.slow = w.fbetween(time.Millisecond, 400*time.Millisecond)
			w.after(w.longer(), "no delay", func() { w.net.slow = 0 })
			return true
		}},
		{"late and repeated", 3, func(w *world) bool {
			w.net.late, w.net.repeat, w.net.lateBy = 0.02, 0.2, w.fbetween(500*time.Millisecond, 20*time.Second)
			w.after(w.longer(), "in order", func() { w.net.late, w.net.repeat = 0, 0 })
			return true
		}},
		{"lag", 3, func(w *world) bool {
			n := w.someNode()
			n.lagged, n.lagUntil = w.fbetween(50*time.Millisecond, 5*time.Second), w.now+w.longer()
			return true
		}},
		{"leaders notice nothing", 1, func(w *world) bool {
			w.sticky = true
			w.after(w.longer(), "leaders notice", func() { w.sticky = false })
			return true
		}},
		{"gossip errs", 1, func(w *world) bool {
			about := w.someNode().name
			for _, n := range w.nodes {
				if a := n.current(); a != nil {
					a.det.Hint(about, "net1", false, a.now())
					a.det.Hint(about, "net2", false, a.now())
				}
			}
			return true
		}},
		{"network card", 3, func(w *world) bool {
			n, net := w.someNode(), pick(w.fr, "net1", "net2")
			n.netDown[net] = true
			w.after(w.longer(), "network card", func() { n.netDown[net] = false })
			return true
		}},

		// Executors, devices, clocks.
		{"starts fail", 3, func(w *world) bool { return execFault(w, func(f *execFaults) { f.startFails = 0.5 }) }},
		{"stops fail", 3, func(w *world) bool { return execFault(w, func(f *execFaults) { f.stopFails = pick(w.fr, 0.5, 1) }) }},
		{"actions hang", 2, func(w *world) bool { return execFault(w, func(f *execFaults) { f.hangs = true; f.stuck = 0.3 }) }},
		{"probes are unclear", 2, func(w *world) bool { return execFault(w, func(f *execFaults) { f.unclear = 0.5 }) }},
		{"actions are slow", 3, func(w *world) bool { return execFault(w, func(f *execFaults) { f.slow = 5 * time.Second }) }},
		{"app fails", 4, func(w *world) bool { return appFails(w) }},
		{"fence device fails", 2, func(w *world) bool {
			n := w.someNode()
			n.fence.fails = true
			w.after(w.longer(), "fence works", func() { n.fence.fails = false })
			return true
		}},
		{"fence device is slow", 2, func(w *world) bool {
			n := w.someNode()
			n.fence.slow = true
			w.after(w.longer(), "fence is fast", func() { n.fence.slow = false })
			return true
		}},
		{"wall clock jumps", 1, func(w *world) bool {
			n := w.someNode()
			n.wallOffset = pick(w.fr, -time.Hour, time.Hour, 0, 3*time.Second)
			return true
		}},
		{"restart under a late report", 2, func(w *world) bool {
			n := w.holderNode()
			w.set(n, "report released", 20*time.Second, func() {
				w.after(w.fbetween(time.Millisecond, 50*time.Millisecond), "kill", func() { n.m.killAgent("after a report") })
			})
			return true
		}},

		{"definition", 2, func(w *world) bool {
			a := w.someNode().current()
			if a == nil || a.view().Definition == nil {
				return false
			}
			d := a.view().Definition.Clone()
			d.Settings.Profile = pick(w.fr, "default", "fast", "careful")
			d.Settings.DeadmanMode = pick(w.fr, "a", "a", "e")
			w.ops.give(a, &state.Command{SetDefinition: &state.SetDefinition{Base: a.view().DefinitionVersion, Definition: d}}, func(string) {})
			return true
		}},

		// The attacks, as they were thought out.
		{"cut at armed", 2, cutAtArmed},
		{"vote, then cut", 3, voteThenCut},
		{"pair, restart, isolate", 3, pairRestartIsolate},
		{"stop at a start", 3, func(w *world) bool {
			n := w.someNode()
			w.set(n, "start", 30*time.Second, func() {
				w.stop(w.fbetween(5*time.Second, 14*time.Second), n.m.agentP)
			})
			return true
		}},
		{"cut at acquire", 2, func(w *world) bool {
			n := w.someNode()
			w.set(n, "acquire", 30*time.Second, func() { w.sever([]*node{n}, w.others(n), true, w.longer()) })
			return true
		}},
		{"report held back", 2, reportHeldBack},
		{"report repeated", 2, reportRepeated},
		{"boot repeated", 2, bootRepeated},
		{"definition and restart", 1, definitionAndRestart},
		{"stop at an unarmed start", 0, unarmedStart},
		{"operator moves", 3, func(w *world) bool {
			a := w.someNode().current()
			if a == nil || a.view().Definition == nil {
				return false
			}
			groups := a.view().GroupNames()
			w.ops.give(a, &state.Command{MoveGroup: &state.MoveGroup{Group: groups[w.fr.IntN(len(groups))], Node: w.someNode().name}}, func(string) {})
			return true
		}},
	}
}

func crash(n *node) bool {
	if !n.m.up {
		return false
	}
	n.m.end("crash", 0)
	return true
}

// secondCopy: the platform believes the node dead, and starts it elsewhere. The first copy reaches nobody any more, and writes
// on until its deadman ends it.
func secondCopy(w *world) bool {
	var n *node
	for k, from := 0, w.fr.IntN(len(w.nodes)); k < len(w.nodes) && n == nil; k++ {
		x := w.nodes[(from+k)%len(w.nodes)]
		if d := w.book.def.Node(x.name); x.m.up && x.m.agent != nil && d != nil && d.PlatformRestart && x.class == lease.Independent {
			n = x
		}
	}
	if n == nil {
		return false
	}
	old := n.m
	old.cutOff = true
	n.old = append(n.old, old)
	old.agent.ended()
	n.m = &machine{w: w, n: n, kernel: &proc{}, agentP: &proc{}} // off, until it boots
	w.after(w.fbetween(10*time.Millisecond, 2*time.Second), "second copy boots", func() { w.boot(n) })
	return true
}

// isolateAndStop: the worst that a node can do after its last lease: nothing, for as long as its watchdog lets it.
func isolateAndStop(w *world) bool {
	n := w.holderNode()
	if !n.m.up {
		return false
	}
	d := w.fbetween(5*time.Second, 20*time.Second)
	w.sever([]*node{n}, w.others(n), true, d)
	w.after(w.fbetween(0, 900*time.Millisecond), "stop", func() { w.stop(d, n.m.agentP, n.m.deadmanProc()) })
	return true
}

// killBeforeHard: attack A2.
func killBeforeHard(w *world) bool {
	n := w.holderNode()
	if !n.m.up || n.m.dead == nil {
		return false
	}
	w.sever([]*node{n}, w.others(n), true, 15*time.Second)
	m := n.m
	w.after(w.fbetween(3500*time.Millisecond, 5*time.Second), "kill", func() { m.killDeadman("before L_hard") })
	return true
}

// stopInThePet: attack A3.
func stopInThePet(w *world) bool {
	n := w.holderNode()
	if !n.m.up {
		return false
	}
	first, second := w.fbetween(100*time.Millisecond, 5200*time.Millisecond), w.fbetween(time.Second, 12*time.Second)
	point := pick(w.fr, "pet: before", "pet: before", "pet: timer armed", "pet: after")
	w.set(n, point, 5*time.Second, func() {
		m := n.m
		w.stop(first+second, m.agentP)
		w.stop(first, m.deadmanProc())
		w.set(n, "pet: after", first+time.Second, func() { w.stop(second, m.deadmanProc()) })
	})
	return true
}

func loopHangs(w *world, n *node) bool {
	a := n.current()
	if a == nil {
		return false
	}
	a.stuckUntil = w.now + w.longer()
	return true
}

func execFault(w *world, set func(*execFaults)) bool {
	n := w.holderNode()
	set(&n.exec)
	w.after(w.longer(), "executors work", func() { n.exec = execFaults{} })
	return true
}

func appFails(w *world) bool {
	n := w.holderNode()
	a := n.current()
	if a == nil {
		return false
	}
	for _, name := range sortedKeys(a.groups) {
		if g := a.groups[name]; g.known.Started != 0 && a.m.unit(name).state == running && w.fr.IntN(2) == 0 {
			g.appFailed = g.known.Started
			a.wake()
			return true
		}
	}
	return false
}

// cutAtArmed: a node is cut off when its Armed fact is in the log, disarms because it has started nothing, and comes back when
// the leader has decided on the proof against it and before that is in the log.
func cutAtArmed(w *world) bool {
	n := w.someNode()
	slow := w.fbetween(50*time.Millisecond, 600*time.Millisecond)
	w.set(n, "armed", 40*time.Second, func() {
		heal := w.sever([]*node{n}, w.others(n), true, 30*time.Second)
		w.set(n, "doom", 30*time.Second, func() {
			heal()
			w.slowProposals = slow
			w.after(2*time.Second, "proposals are fast", func() { w.slowProposals = 0 })
		})
	})
	return len(w.nodes) > 1
}

// voteThenCut: attack A11. A voter gives its vote and is then cut off from whom it voted for, while the old leader, which has
// noticed nothing, goes on with it.
func voteThenCut(w *world) bool {
	l := w.leaderNode()
	if l == nil || len(l.m.agent.s.voters) != 3 || w.now < w.busyUntil {
		return false
	}
	var pair []*node
	for _, name := range l.m.agent.s.voters {
		if name != l.name {
			pair = append(pair, w.byName[name])
		}
	}
	d := w.fbetween(2200*time.Millisecond, 5*time.Second)
	w.busyUntil = w.now + d + 15*time.Second
	w.sticky = true
	w.after(d+3*time.Second, "leaders notice", func() { w.sticky = false })
	// Both hear nothing of raft, and the leader nothing of them, until one has voted for the other.
	var heals []func()
	for _, n := range pair {
		n.lagged, n.lagUntil = 5*time.Second, w.now+2*time.Second
		heals = append(heals, w.sever([]*node{n}, []*node{l}, false, 2*time.Second))
	}
	voted := false
	for i, v := range pair {
		c := pair[1-i]
		w.set(v, "voted", 2*time.Second, func() {
			if voted {
				return
			}
			voted = true
			c.lagUntil, v.lagUntil = 0, 0
			w.sever([]*node{c}, []*node{l}, true, d+15*time.Second)
			w.sever([]*node{c}, []*node{v}, false, d) // the vote itself is still on its way
			heals[i]()
			w.after(d, "isolate", func() {
				w.sever([]*node{l}, w.others(l), true, 15*time.Second)
				w.stop(15*time.Second, l.m.agentP, l.m.deadmanProc())
			})
		})
	}
	return true
}

// pairRestartIsolate: a voter that has not heard of the leader for long gets a majority with one that has, and has forgotten it.
func pairRestartIsolate(w *world) bool {
	l := w.leaderNode()
	if l == nil || len(l.m.agent.s.voters) != 3 {
		return false
	}
	var c, v *node
	for _, name := range l.m.agent.s.voters {
		switch {
		case name == l.name:
		case c == nil:
			c = w.byName[name]
		default:
			v = w.byName[name]
		}
	}
	if w.fr.IntN(2) == 0 {
		c, v = v, c
	}
	d := w.fbetween(2*time.Second, 5*time.Second)
	w.sever([]*node{l}, []*node{c}, true, d+15*time.Second)
	w.after(d, "isolate", func() {
		v.m.killAgent("and forgets")
		w.sever([]*node{l}, w.others(l), true, 15*time.Second)
		w.stop(15*time.Second, l.m.agentP, l.m.deadmanProc())
	})
	return true
}

// reportHeldBack: attack A7. A node starts a group, is cut off, lets go of it at L_soft, and its report is under way for long; the
// agent restarts meanwhile.
func reportHeldBack(w *world) bool {
	n := w.someNode()
	by, jitter := w.fbetween(time.Second, 5*time.Second), w.fr.Float64()
	until := w.now + 40*time.Second
	var held func()
	held = func() {
		if l := w.leaderNode(); (l == nil || !w.carries(n.index, l.index)) && w.now < until {
			w.set(n, "report released", until-w.now, held)
			return
		}
		n.late["report"] = by
		w.after(time.Microsecond, "kill", func() { n.m.killAgent("after a report") })
	}
	w.set(n, "start", 20*time.Second, func() {
		p := timingOf(w.newest)
		d := p.Soft + time.Duration(jitter*float64(p.Hard-p.Soft))
		w.sever([]*node{n}, w.others(n), true, d)
		w.set(n, "report released", 20*time.Second, held)
	})
	return true
}

// reportRepeated: attack A9. A report comes a second time when its node has the group again.
func reportRepeated(w *world) bool {
	n := w.holderNode()
	by := w.fbetween(200*time.Millisecond, 5*time.Second)
	w.set(n, "report released", 20*time.Second, func() {
		group := w.at.group
		n.again["report"] = by
		w.after(w.fbetween(20*time.Millisecond, by), "move back", func() {
			if a := n.current(); a != nil {
				w.ops.give(a, &state.Command{MoveGroup: &state.MoveGroup{Group: group, Node: n.name}}, func(string) {})
			}
		})
	})
	if a := n.current(); a != nil && a.view().Definition != nil { // something is to be released there
		for _, g := range sortedKeys(n.m.units) {
			if d := a.view().Definition.Group(g); n.m.units[g].state == running && d != nil && !d.Concurrent() && len(d.Nodes) > 1 {
				w.ops.give(a, &state.Command{MoveGroup: &state.MoveGroup{Group: g, Node: d.Nodes[w.fr.IntN(len(d.Nodes))]}}, func(string) {})
				break
			}
		}
	}
	return true
}

// bootRepeated: attack A6. The message of a boot comes a second time, from a time when that boot is over and the next one has
// something.
func bootRepeated(w *world) bool {
	n := w.holderNode()
	by := w.fbetween(time.Second, 6*time.Second)
	w.set(n, "boot", 20*time.Second, func() {
		n.again["boot"] = by
		w.after(w.fbetween(time.Millisecond, 300*time.Millisecond), "crash", func() {
			crash(n)
			w.after(w.fbetween(50*time.Millisecond, time.Second), "boot", func() { w.boot(n) })
		})
	})
	return crash(n)
}

// definitionAndRestart: attack A4. The definition's timings or mode become others, and a node's agent connects anew.
func definitionAndRestart(w *world) bool {
	n := w.holderNode()
	a := n.current()
	if a == nil || a.view().Definition == nil {
		return false
	}
	d := a.view().Definition.Clone()
	if w.fr.IntN(2) == 0 {
		d.Settings.DeadmanMode = "e"
	} else {
		d.Settings.Profile = "careful"
	}
	w.ops.give(a, &state.Command{SetDefinition: &state.SetDefinition{Base: a.view().DefinitionVersion, Definition: d}}, func(string) {})
	m := n.m
	w.after(300*time.Millisecond, "kill", func() { m.killAgent("after a change") })
	by := w.fbetween(2*time.Second, 4*time.Second)
	w.after(by, "isolate", func() {
		w.sever([]*node{n}, w.others(n), true, 20*time.Second)
		w.stop(20*time.Second, m.agentP, m.deadmanProc())
	})
	w.after(by+20*time.Second, "as before", func() {
		if a := n.current(); a != nil && a.view().Definition != nil {
			d := a.view().Definition.Clone()
			d.Settings.DeadmanMode, d.Settings.Profile = "a", "default"
			w.ops.give(a, &state.Command{SetDefinition: &state.SetDefinition{Base: a.view().DefinitionVersion, Definition: d}}, func(string) {})
		}
	})
	return true
}

// unarmedStart: attack A5. The agent is stopped between its decision and its first step, and its deadman is not armed.
func unarmedStart(w *world) bool {
	n := w.someNode()
	by := w.fbetween(5*time.Second, 14*time.Second)
	until := w.now + 30*time.Second
	var wait func()
	wait = func() {
		if a := n.current(); a != nil && a.armed && w.now < until {
			w.set(n, "start", until-w.now, wait)
			return
		}
		w.stop(by, n.m.agentP)
	}
	w.set(n, "start", 30*time.Second, wait)
	return true
}
