package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// ledger is the checkers' own book of the log: who may hold what, by rules that are written down here a second time, and whether
// what the log takes for proven is so. It shares nothing with package state but the words.
type ledger struct {
	w        *world
	machines map[string]*machine // by boot id
	boots    map[lease.Subject]string
	armed    map[lease.Subject]*lease.Armed
	newest   map[string]uint64 // incarnation of each node
	dead     map[lease.Subject]bool
	holders  map[string]map[string]share // group, node
	acquired map[hold]bool
	lastGen  uint64
	versions map[string][]version // of a group's holders
	def      *cluster.Definition
	locks    lockBook
	staged   *cluster.Definition // waits for an activation
	online   map[hold]bool       // group on node, generation

	lastOnline map[string]time.Duration // of a group: when it was last seen online before something of it changed
}

// share is one node's part in a group.
type share struct {
	gen, inc  uint64
	unmanaged bool
	outside   bool // of every lease: unmanaged, or not adopted since
	releasing bool
	unclear   bool // since a forced configuration
}

type version struct {
	index uint64
	nodes map[string]share
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, machines: map[string]*machine{}, boots: map[lease.Subject]string{}, armed: map[lease.Subject]*lease.Armed{},
		newest: map[string]uint64{}, dead: map[lease.Subject]bool{}, holders: map[string]map[string]share{}, acquired: map[hold]bool{},
		versions: map[string][]version{}, online: map[hold]bool{},
		lastOnline: map[string]time.Duration{}}
}

func (w *world) exclusive(group string) bool {
	g := w.book.def.Group(group)
	return g == nil || !g.Concurrent()
}

// armedOf is what the log knows of how a machine's deadman is armed: nil for nothing.
func (b *ledger) armedOf(m *machine) *lease.Armed {
	s := lease.Subject{Node: m.n.name, Incarnation: b.newest[m.n.name]}
	if b.boots[s] != m.bootID || b.dead[s] {
		return nil
	}
	return b.armed[s]
}

// entry takes one committed entry.
func (b *ledger) entry(e *entry, before *state.State) {
	c, r := e.cmd, e.res
	if r.Refused != "" || r.Repeated {
		return
	}
	switch {
	case c.Create != nil:
		b.def = c.Create.Definition
	case c.SetDefinition != nil:
		b.def = c.SetDefinition.Definition
	case c.ReplaceVolume != nil:
		b.def = e.after.Definition
	case c.Stage != nil:
		b.staged = c.Stage.Definition
	case c.Activate != nil:
		b.def, b.staged = b.staged, nil
	case c.NodeBoot != nil:
		b.nodeBoot(c.NodeBoot, r)
	case c.Armed != nil:
		s := lease.Subject{Node: c.Armed.Fact.Node, Incarnation: c.Armed.Fact.Incarnation}
		if b.dead[s] || b.newest[s.Node] != s.Incarnation {
			b.w.fail("A4 armed after death", "an Armed fact of %s %d was taken, which is over", s.Node, s.Incarnation)
		}
		fact := c.Armed.Fact
		b.armed[s] = &fact
	case c.Disarmed != nil:
		delete(b.armed, lease.Subject{Node: c.Disarmed.Node, Incarnation: c.Disarmed.Incarnation})
	case c.Proof != nil:
		b.proof(c.Proof)
	case c.Acquire != nil:
		b.acquire(c.Acquire, r, before)
	case c.Release != nil:
		b.release(c.Release)
	case c.Report != nil:
		b.report(c.Report)
	case c.NewEpoch != nil:
		b.newEpoch(c.NewEpoch, e.after)
	}
	b.locks.check(b, e, before)
	b.unmanagedMarks(e.after)
	if !b.w.suppressed("held") {
		b.compare(e)
	}
}

// nodeBoot: a boot that found everything stopped ends the incarnation before it.
func (b *ledger) nodeBoot(c *state.NodeBoot, r state.Result) {
	old := b.newest[c.Node]
	if r.Incarnation == old {
		return // the same again
	}
	was := lease.Subject{Node: c.Node, Incarnation: old}
	same := b.boots[was] == c.BootID
	platform := b.def.Node(c.Node).PlatformRestart
	m, last := b.machines[c.BootID], b.machines[b.boots[was]]
	// Boot ids have no order. Where the platform may run a second copy of a node, an earlier boot that the log has never heard of may
	// come after a later one; it proves nothing there, and so frees nothing.
	unknown := platform && !b.numbered(c.Node, c.BootID)
	if (m == nil || last != nil && m.number < last.number && !unknown) && !b.w.suppressed("boot") {
		b.w.fail("A6 old boot", "%s was numbered after a later boot of %s", c.BootID, c.Node)
	}
	switch {
	case same:
		b.dead[was] = true
		b.frees(c.Node, old, "new life", false)
		for g, nodes := range b.holders { // what runs unmanaged runs on
			if s, ok := nodes[c.Node]; ok && s.inc == old && s.outside {
				s.inc = r.Incarnation
				b.set(g, c.Node, s)
			}
		}
	case c.AllStopped && !platform:
		b.dead[was] = true
		b.frees(c.Node, old, "boot", true)
	}
	b.newest[c.Node] = r.Incarnation
	b.boots[lease.Subject{Node: c.Node, Incarnation: r.Incarnation}] = c.BootID
}

// numbered reports whether the log has numbered the boot before.
func (b *ledger) numbered(node, bootID string) bool {
	for s, id := range b.boots {
		if s.Node == node && id == bootID {
			return true
		}
	}
	return false
}

func (b *ledger) proof(c *state.Proof) {
	s := lease.Subject{Node: c.Node, Incarnation: c.Incarnation}
	b.w.stats.Proofs[string(c.Kind)]++
	if c.Kind == state.ProofTime && b.w.byName[c.Node].class == lease.Process && !b.w.suppressed("class") {
		b.w.fail("A4 class process", "the silence of %s was taken for proof, and its deadman is a process", c.Node)
	}
	b.dead[s] = true
	b.frees(c.Node, c.Incarnation, string(c.Kind), c.Kind == state.ProofFenced || c.Kind == state.ProofOperator || c.Kind == state.ProofBoot)
}

// frees ends the shares of an incarnation. What runs unmanaged, or did and was not adopted since, is outside the lease, and only a
// strong proof ends it.
func (b *ledger) frees(node string, inc uint64, by string, strong bool) {
	freed := false
	for _, g := range sortedKeys(b.holders) {
		s, ok := b.holders[g][node]
		if !ok || s.inc != inc || s.outside && !strong {
			continue
		}
		b.mustBeGone(g, node, inc, by)
		b.drop(g, node)
		freed = true
	}
	if freed && by != "boot" && by != "new life" {
		b.w.stats.Failovers++
	}
}

// mustBeGone looks at the machine: what the log takes for proven must be so.
func (b *ledger) mustBeGone(group, node string, inc uint64, by string) {
	m := b.machines[b.boots[lease.Subject{Node: node, Incarnation: inc}]]
	if m == nil || !b.w.exclusive(group) || b.w.suppressed("proof") {
		return
	}
	if _, on := b.w.truth.on(m, group); on {
		b.w.fail("P2 true proofs", "%s of %s %d frees %s, which %s still has", by, node, inc, group, m.bootID)
	}
}

func (b *ledger) acquire(c *state.Acquire, r state.Result, before *state.State) {
	w := b.w
	s := lease.Subject{Node: c.Node, Incarnation: c.Incarnation}
	nodes := b.holders[c.Group]
	if b.dead[s] || b.newest[c.Node] != c.Incarnation {
		w.fail("P2 proof before start", "%s was given to %s %d, which is over", c.Group, c.Node, c.Incarnation)
	}
	for _, other := range sortedKeys(nodes) {
		if w.exclusive(c.Group) || other == c.Node {
			w.fail("P2 proof before start", "%s was given to %s while %s may hold it: neither a release nor a proof is in the log",
				c.Group, c.Node, other)
		}
	}
	if r.Generation <= b.lastGen {
		w.fail("generations", "%s was given generation %d after %d", c.Group, r.Generation, b.lastGen)
	}
	b.lastGen = r.Generation
	b.acquired[hold{c.Node, c.Group, r.Generation}] = true
	b.order(c, before)
	b.set(c.Group, c.Node, share{gen: r.Generation, inc: c.Incarnation})
}

// order: what a group stands on is there before it starts.
func (b *ledger) order(c *state.Acquire, before *state.State) {
	for i := range b.def.Dependencies {
		d := &b.def.Dependencies[i]
		up := ""
		switch {
		case d.Child == c.Group:
			up = d.Parent
		case d.Start == c.Group:
			up = d.After
		}
		// It may have gone between the decision and its entry: then the next decision takes it back.
		if since := b.w.now - b.lastOnline[up]; up != "" && !b.isOnline(up) && (b.lastOnline[up] == 0 || since > 500*time.Millisecond) {
			b.w.fail("P9 order", "%s starts on %s and %s is not online: %s", c.Group, c.Node, up, shownAll(before, up))
		}
		if d.DifferentNodes != nil {
			b.apart(c, d.DifferentNodes)
		}
	}
}

// shownAll says how a group stands on its nodes.
func shownAll(s *state.State, group string) string {
	out := ""
	for _, node := range s.NodeNames() {
		i := s.Instance(group, node)
		out += fmt.Sprintf("%s %s held %v by %d; ", node, i.State, i.Held, i.Incarnation)
	}
	return out
}

func (b *ledger) apart(c *state.Acquire, d *cluster.DifferentNodes) {
	set := slices.Concat(d.High, d.Intermediate, d.Low)
	if !slices.Contains(set, c.Group) {
		return
	}
	for _, o := range set {
		if s, ok := b.holders[o][c.Node]; ok && o != c.Group && !s.unclear {
			b.w.fail("P9 different nodes", "%s starts on %s where %s is", c.Group, c.Node, o)
		}
	}
}

func (b *ledger) isOnline(group string) bool {
	for _, node := range sortedKeys(b.holders[group]) {
		s := b.holders[group][node]
		if s.unmanaged || b.online[hold{node, group, s.gen}] && !s.releasing {
			return true
		}
	}
	return false
}

// release: what stands on a group stops before it.
func (b *ledger) release(c *state.Release) {
	s, ok := b.holders[c.Group][c.Node]
	if !ok || s.gen != c.Generation || s.inc != c.Incarnation {
		b.w.fail("A9 subject", "a release of %s on %s at generation %d was taken, which is not held there", c.Group, c.Node, c.Generation)
	}
	s.releasing = true
	b.set(c.Group, c.Node, s)
}

func (b *ledger) report(c *state.Report) {
	s, ok := b.holders[c.Group][c.Node]
	if b.w.suppressed("subject") {
		c = &state.Report{Node: c.Node, Incarnation: s.inc, Group: c.Group, Generation: s.gen, Outcome: c.Outcome}
	} else if !ok || s.gen != c.Generation || s.inc != c.Incarnation {
		b.w.fail("A9 subject", "the report %s of %s on %s at generation %d was taken, and nothing like it is held there", c.Outcome, c.Group,
			c.Node, c.Generation&0xffffff)
		return
	}
	switch c.Outcome {
	case state.OutcomeOnline:
		b.online[hold{c.Node, c.Group, c.Generation}] = true
	case state.OutcomeReleased, state.OutcomeAcquireFailed, state.OutcomeFoundStopped:
		b.mustBeGone(c.Group, c.Node, c.Incarnation, string(c.Outcome))
		b.drop(c.Group, c.Node)
	}
}

// newEpoch: every node that is not named dead may hold everything of its lists.
func (b *ledger) newEpoch(c *state.NewEpoch, after *state.State) {
	b.lastGen = max(b.lastGen, after.Generation)
	for _, node := range sortedKeys(b.newest) {
		s := lease.Subject{Node: node, Incarnation: b.newest[node]}
		if s.Incarnation == 0 || b.dead[s] {
			continue
		}
		delete(b.armed, s)
		if slices.Contains(c.Dead, node) {
			b.dead[s] = true
			b.frees(node, s.Incarnation, "forced configuration", true)
			continue
		}
		for i := range b.def.ResourceGroups {
			g := &b.def.ResourceGroups[i]
			if _, held := b.holders[g.Name][node]; !held && g.Has(node) {
				b.set(g.Name, node, share{gen: after.Instance(g.Name, node).Generation, inc: s.Incarnation, unclear: true, releasing: true})
			}
		}
	}
}

// unmanagedMarks copies from the state what is outside the cluster's care: that is the operator's word, and no rule's.
func (b *ledger) unmanagedMarks(after *state.State) {
	for g, nodes := range b.holders {
		for node, s := range nodes {
			i := after.Instance(g, node)
			rel := i.State == state.Releasing || i.State == state.Error || i.State == state.Unknown
			u := i.State == state.Unmanaged
			if out := u || i.Outside; u != s.unmanaged || out != s.outside || rel != s.releasing {
				s.unmanaged, s.outside, s.releasing = u, out, rel
				b.set(g, node, s)
			}
		}
	}
}

// compare: the state's own notion of who holds what is that of this book.
func (b *ledger) compare(e *entry) {
	for name, g := range e.after.Groups {
		n := 0
		for node, i := range g.Instances {
			if !i.Held {
				continue
			}
			n++
			if s, ok := b.holders[name][node]; !ok || s.gen != i.Generation || s.inc != i.Incarnation {
				b.w.fail("held", "after %s the state says that %s holds %s at %d, the book does not", e.cmd.Kind(), node, name, i.Generation&0xffffff)
				return
			}
		}
		if n != len(b.holders[name]) {
			b.w.fail("held", "after %s the state has %d holders of %s, the book %d", e.cmd.Kind(), n, name, len(b.holders[name]))
			return
		}
	}
}

// set and drop keep the versions that grants are checked against.
func (b *ledger) set(group, node string, s share) {
	b.change(group, func(m map[string]share) { m[node] = s })
}

func (b *ledger) drop(group, node string) {
	b.change(group, func(m map[string]share) { delete(m, node) })
}

func (b *ledger) change(group string, f func(map[string]share)) {
	if b.isOnline(group) {
		b.lastOnline[group] = b.w.now
	}
	next := make(map[string]share, 4)
	maps.Copy(next, b.holders[group])
	f(next)
	b.holders[group] = next
	at := uint64(len(b.w.canon))
	list := b.versions[group]
	if n := len(list); n > 0 && list[n-1].index == at {
		list[n-1].nodes = next
	} else {
		list = append(list, version{at, next})
	}
	b.versions[group] = list
}

// at is who may hold the group by the log up to the index.
func (b *ledger) at(group string, index uint64) map[string]share {
	list := b.versions[group]
	for _, l := range slices.Backward(list) {
		if l.index <= index {
			return l.nodes
		}
	}
	return nil
}

// checkGrant: a grant lists what the log gives, for an incarnation that lives, from a leader that makes progress.
func (w *world) checkGrant(l *leadership, g *lease.Grant, arrived time.Duration) {
	s := lease.Subject{Node: g.Node, Incarnation: g.Incarnation}
	for _, h := range g.Hold {
		x, ok := w.book.at(h.Group, g.Applied)[g.Node]
		switch {
		case w.suppressed("list"):
		case !ok || x.gen != h.Generation || x.inc != g.Incarnation || x.unmanaged:
			w.fail("grants", "%s grants %s to %s at generation %d, and the log up to %d does not", l.a.name, h.Group, g.Node, h.Generation, g.Applied)
		case x.releasing && !h.Releasing:
			w.fail("grants", "%s lets %s start %s, which is being released", l.a.name, g.Node, h.Group)
		}
	}
	if l.doomedHere[s] && !w.suppressed("doom") {
		w.fail("A9 doom", "%s grants to %s %d, against which it has proposed a proof", l.a.name, s.Node, s.Incarnation)
	}
	now := l.a.now()
	if w.now-arrived > l.a.params.MaxAge || w.suppressed("progress") {
		return // it was stopped in between: no deadman takes a grant that old
	}
	if idle := now.Sub(l.a.loopAt); idle > progressLimit+l.a.params.MaxAge {
		w.fail("B6 stuck leader", "%s grants and its loop has made no progress for %v", l.a.name, idle)
	}
	if idle := now.Sub(l.lastCommit); idle > progressLimit+l.a.params.MaxAge {
		w.fail("B6 stuck leader", "%s grants and has committed nothing for %v", l.a.name, idle)
	}
}

// checkCodec: what a snapshot restores is what was there.
func (w *world) checkCodec(s *state.State) {
	b, err := s.Encode()
	if err != nil {
		w.fail("codec", "encode the state at %d: %v", s.Index, err)
		return
	}
	r, err := state.Decode(b)
	if err != nil {
		w.fail("codec", "decode the state at %d: %v", s.Index, err)
		return
	}
	if again, _ := r.Encode(); !bytes.Equal(b, again) {
		w.fail("codec", "the state at %d is another one after encoding", s.Index)
		return
	}
	w.stats.Snapshots++
	w.shadow, w.shadowFor = r, 40
}

// follow lets a replica that was restored from a snapshot take the same entries, and compares: Apply is a function.
func (w *world) follow(e *entry, after *state.State) {
	if w.shadow == nil || e.index <= w.shadow.Index {
		return
	}
	if e.index != w.shadow.Index+1 && w.canonState(w.shadow.Index+1, e.index) {
		w.shadow = nil // it has missed one
		return
	}
	w.shadow, _ = state.Apply(w.shadow, state.Entry{Index: e.index, Term: e.term, Command: e.cmd})
	if w.shadowFor--; w.shadowFor > 0 {
		return
	}
	a, _ := w.shadow.Encode()
	b, _ := after.Encode()
	if !bytes.Equal(a, b) {
		w.fail("replicas", "a replica restored from a snapshot differs at %d", e.index)
	}
	w.shadow = nil
}

// canonState reports whether an entry for the state is between the indexes.
func (w *world) canonState(from, to uint64) bool {
	for i := from; i < to; i++ {
		if w.canon[i-1].cmd != nil {
			return true
		}
	}
	return false
}
