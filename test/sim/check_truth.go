package sim

import (
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// truth is what really runs where, whatever anybody believes: the witness of promise P1.
type truth struct {
	w     *world
	holds map[string][]holding // by group
	// promised are the highest generations that a node has reported as released or never begun.
	promised map[hold]bool
}

// hold is a group at a generation, on a machine or a node.
type hold struct {
	node  string
	group string
	gen   uint64
}

type holding struct {
	m   *machine
	gen uint64
}

func newTruth(w *world) *truth {
	return &truth{w: w, holds: map[string][]holding{}, promised: map[hold]bool{}}
}

// begin is the first step by which a machine takes something of a group.
func (t *truth) begin(m *machine, group string, gen uint64, how string) {
	w := t.w
	if how == "start" {
		t.mayStart(m, group, gen)
		w.stats.Starts++
	}
	list := t.holds[group]
	for i := range list {
		if list[i].m == m {
			list[i].gen = gen
			return
		}
	}
	w.note("takes", m.n.name, "%s gen %d (%s)", group, gen&0xffffff, how)
	for _, h := range list {
		if w.exclusive(group) {
			w.fail("P1 never twice", "%s: %s takes %s (generation %d) on %s while %s still has it (generation %d)", how, m.n.name, group,
				gen&0xffffff, m.bootID, h.m.bootID, h.gen&0xffffff)
		}
	}
	t.holds[group] = append(list, holding{m, gen})
}

// mayStart checks what a machine must have seen before it may start something.
func (t *truth) mayStart(m *machine, group string, gen uint64) {
	w := t.w
	switch {
	case w.suppressed("start"):
	case !m.granted[hold{"", group, gen}]:
		w.fail("P8 no grant", "%s starts %s generation %d, which no grant has listed that this boot was given", m.bootID, group, gen&0xffffff)
	case !w.book.acquired[hold{m.n.name, group, gen}]:
		w.fail("P2 no decision", "%s starts %s generation %d, which the log has not given to it", m.bootID, group, gen&0xffffff)
	}
	if t.promised[hold{m.n.name, group, gen}] && !w.suppressed("tombstone") {
		w.fail("A7 tombstone", "%s starts %s generation %d, which it had reported released", m.n.name, group, gen&0xffffff)
	}
}

// end is the last side effect of a group on a machine.
func (t *truth) end(m *machine, group string) {
	list := t.holds[group]
	for i := range list {
		if list[i].m == m {
			t.w.note("lets go", m.n.name, "%s", group)
			t.holds[group] = slices.Delete(list, i, i+1)
			return
		}
	}
}

// on reports whether the machine has anything of the group.
func (t *truth) on(m *machine, group string) (uint64, bool) {
	for _, h := range t.holds[group] {
		if h.m == m {
			return h.gen, true
		}
	}
	return 0, false
}

// any reports whether the machine has anything under a lease. One that has nothing may arm anew with other values: nothing starts
// before the log knows them. What the log has outside every lease is not freed by what is armed.
func (t *truth) any(m *machine) bool {
	for group, list := range t.holds {
		for _, h := range list {
			if h.m == m && !t.w.book.holders[group][m.n.name].outside {
				return true
			}
		}
	}
	return false
}

// reports notes what a node says of itself: from then on it must hold.
func (t *truth) reports(m *machine, r *state.Report) {
	switch r.Outcome {
	case state.OutcomeReleased, state.OutcomeAcquireFailed, state.OutcomeFoundStopped:
	default:
		return
	}
	t.promised[hold{m.n.name, r.Group, r.Generation}] = true
	if gen, on := t.on(m, r.Group); on && gen <= r.Generation {
		t.w.fail("P16 honest reports", "%s reports %s generation %d as %s and has it still", m.bootID, r.Group, r.Generation&0xffffff, r.Outcome)
	}
}

// takes notes a grant that has reached the machine.
func (t *truth) takes(m *machine, g *lease.Grant, at lease.Instant) {
	for _, h := range g.Hold {
		if !h.Releasing {
			m.granted[hold{"", h.Group, h.Generation}] = true
		}
	}
	m.lastReq = max(m.lastReq, at)
}

// carried notes a grant that has reached the deadman.
func (t *truth) carried(d *deadmanProcess, n lease.Nonce) {
	if at, ok := d.open[n]; ok {
		d.carried = max(d.carried, at)
		delete(d.open, n)
	}
}

// checkPet: a pet under a lease comes before t_req + A + p by the values that the log knows, or the leader's arithmetic counts
// with a watchdog that fires earlier than it does.
func (w *world) checkPet(d *deadmanProcess, _ lease.Instant) {
	armed := w.book.armedOf(d.m)
	if armed == nil || armed.Mode != lease.ModeReset || w.suppressed("pet") || !w.truth.any(d.m) {
		return
	}
	now := d.m.clock()
	if limit := d.carried.Add(armed.MaxAge + armed.Margin); d.carried != 0 && now > limit {
		w.fail("A3 late pet", "%s pets %v after the limit that its Armed fact allows", d.m.bootID, now.Sub(limit))
	}
}

// checkTimeout: the watchdog in force is never longer than the one that the log knows, while time can prove something by it.
func (w *world) checkTimeout(m *machine) {
	armed := w.book.armedOf(m)
	if armed == nil || !armed.TimeProves() || m.n.class != lease.Independent || w.suppressed("armed") || !w.truth.any(m) {
		return
	}
	if m.dog.timeout > armed.Watchdog {
		w.fail("A4 armed fact", "%s has a watchdog of %v, and the log says %v", m.bootID, m.dog.timeout, armed.Watchdog)
	}
	if d := m.dead; d != nil && d.p.alive && d.k.Armed() && d.k.State().ModeEvent {
		w.fail("A4 armed fact", "%s is in mode e, and the log says a", m.bootID)
	}
}

// watchLosers looks from time to time whether a machine that gets no grants is reset by its deadman: promise P7.
func (w *world) watchLosers() {
	for _, n := range w.nodes {
		for _, m := range append([]*machine{n.m}, n.old...) {
			w.watchLoser(m)
		}
	}
	w.after(50*time.Millisecond, "watch", w.watchLosers)
}

func (w *world) watchLoser(m *machine) {
	d := m.dead
	if !m.up || d == nil {
		return
	}
	w.checkTimeout(m)
	if !d.p.runs() || d.failing || w.now-d.since < time.Second {
		d.since = max(d.since, w.now-time.Second)
		if !d.p.runs() {
			d.since = w.now
		}
		return
	}
	armed := w.book.armedOf(m)
	if armed == nil || armed.Mode != lease.ModeReset || !d.k.Armed() || d.k.State().ModeEvent {
		return
	}
	if d.link == nil || d.link.settled.Params.Hard == 0 {
		return
	}
	base := max(d.carried, d.k.State().ArmedAt)
	if m.clock().Sub(base) < d.link.settled.Params.Hard+100*time.Millisecond {
		return
	}
	if w.truth.any(m) {
		w.fail("P7 the loser stops", "%s still has something %v after its newest lease", m.bootID, m.clock().Sub(base))
	}
}
