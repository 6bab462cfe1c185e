package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// model is the state with its relations as indexes, made once per plan, and the plan as it grows.
type model struct {
	v   *state.State
	def *cluster.Definition
	now time.Time
	res Result

	nodes   []node
	nodeIdx map[string]int
	groups  []group
	grpIdx  map[string]int
	units   []unit
	order   []int   // units, the most important first
	sets    int     // number of different-nodes sets
	setOf   [][]int // their members
	dueNow  map[string]bool
}

// node is a member, and what the plan has put on it.
type node struct {
	name   string
	st     *state.Node
	def    *cluster.Node
	bar    bar   // why it can take nothing; barNone if it can
	manual bool  // acquires nothing by itself
	load   int   // weights that stay or come, as planned
	actual int   // weights that are held now
	spread int   // groups with startup OUDP, as planned
	inSet  []int // by different-nodes set: the group that has the node, as planned; -1 for none
	evac   bool  // it must be emptied, because it will give up its lease
}

// status is how an exclusive group stands.
type status int

const (
	free status = iota
	acquiring
	online
	releasing
	stuck     // its release has failed
	unknown   // held on a silent node, or by a boot whose end is not proven
	unmanaged // outside the cluster's care (its holder may be proven dead)
)

type group struct {
	def    *cluster.ResourceGroup
	st     *state.Group
	list   []int // node indexes in the group's order
	nets   []string
	status status
	holder int // node index, -1
	inst   *state.Instance
	insts  []*state.Instance // concurrent groups: by place in the list

	parents, children        []int // parent/child
	targets, sources         []int // start-after: what I wait for, who waits for me
	stopTargets, stopSources []int // stop-after: what must be offline before I stop, what stops after me
	index, unit              int
	member                   []membership
	priority, depth          int // priority raised to that of dependants; longest chain of parents and targets above

	target  int    // where the plan wants it, -1
	why     string // why there
	dynamic bool   // chosen there by dynamic node priority
	wait    string // why it is not placed
	leave   leaving
	leaves  []leaving // concurrent groups: by place in the list
	blocked bool      // waits for a parent or a start-after target that nobody brings online
}

type membership struct{ set, tier int }

// leaving is a decision to release, before its order among others is known.
type leaving struct {
	cause     state.Cause
	to        int // node index, -1
	dueTo     state.DueTo
	why       string
	voluntary bool // may be put off for ever
	timer     string
}

// unit is what is placed as one: a group, or a same-node set. lead is its most important group.
type unit struct {
	groups []int
	lead   int
}

func newModel(v *state.State, now time.Time) *model {
	d := v.Definition
	m := &model{v: v, def: d, now: now, nodes: make([]node, len(d.Nodes)), nodeIdx: make(map[string]int, len(d.Nodes)),
		groups: make([]group, len(d.ResourceGroups)), grpIdx: make(map[string]int, len(d.ResourceGroups))}
	for i := range d.Dependencies {
		if d.Dependencies[i].DifferentNodes != nil {
			m.sets++
		}
	}
	m.indexNodes()
	m.indexGroups()
	m.indexDependencies()
	m.rank()
	m.sortUnits()
	m.dueTimers()
	return m
}

func (m *model) indexNodes() {
	taken := make([]int, m.sets*len(m.nodes))
	for i := range taken {
		taken[i] = -1
	}
	for i := range m.def.Nodes {
		d := &m.def.Nodes[i]
		m.nodeIdx[d.Name] = i
		st := m.v.Nodes[d.Name]
		if st == nil {
			st = &state.Node{Name: d.Name}
		}
		m.nodes[i] = node{name: d.Name, st: st, def: d, bar: nodeBar(st), manual: st.Services == state.ServicesManual,
			inSet: taken[i*m.sets : (i+1)*m.sets : (i+1)*m.sets]}
	}
}

func (m *model) indexGroups() {
	total := 0
	for i := range m.def.ResourceGroups {
		total += len(m.def.ResourceGroups[i].Nodes)
	}
	lists := make([]int, 0, total)
	hasIP := make(map[string]string, len(m.def.ServiceIPs))
	for i := range m.def.ServiceIPs {
		hasIP[m.def.ServiceIPs[i].Name] = m.def.ServiceIPs[i].Network
	}
	for i := range m.def.ResourceGroups {
		d := &m.def.ResourceGroups[i]
		m.grpIdx[d.Name] = i
		g := &m.groups[i]
		g.def, g.st, g.index, g.holder, g.target, g.unit, g.priority = d, m.v.Groups[d.Name], i, -1, -1, -1, d.Priority
		if g.st == nil {
			g.st = &state.Group{Name: d.Name, Phase: state.PhaseStart}
		}
		from := len(lists)
		for _, n := range d.Nodes {
			if k, ok := m.nodeIdx[n]; ok {
				lists = append(lists, k)
			}
		}
		g.list = lists[from:len(lists):len(lists)]
		g.nets = networks(d, hasIP)
		m.locate(g)
	}
}

// networks is cluster.Definition.NetworksOf with an index.
func networks(d *cluster.ResourceGroup, ofIP map[string]string) []string {
	var out []string
	if d.Network != "" {
		out = append(out, d.Network)
	}
next:
	for _, ip := range d.ServiceIPs {
		net := ofIP[ip]
		for _, o := range out {
			if o == net {
				continue next
			}
		}
		if net != "" {
			out = append(out, net)
		}
	}
	return out
}

// locate finds where the group stands.
func (m *model) locate(g *group) {
	if g.def.Concurrent() {
		g.insts = make([]*state.Instance, len(g.list))
		for r, n := range g.list {
			g.insts[r] = g.st.Instances[m.nodes[n].name]
			if i := g.insts[r]; i != nil && i.Held {
				m.nodes[n].actual += g.def.Weight
			}
		}
		return
	}
	for name, i := range g.st.Instances {
		k, ok := m.nodeIdx[name]
		if !ok {
			continue
		}
		s := m.statusOf(&m.nodes[k], i)
		if s == unmanaged && !i.Held && g.st.Phase == state.PhaseRequest {
			s = free // its holder is proven dead, and the operator wants it elsewhere
		}
		if i.Held {
			m.nodes[k].actual += g.def.Weight
		}
		if s == free || g.holder >= 0 && (s < g.status || s == g.status && k > g.holder) {
			continue // only after a forced configuration are there several: the worst counts
		}
		g.status, g.holder, g.inst = s, k, i
	}
}

func (m *model) statusOf(n *node, i *state.Instance) status {
	switch {
	case i.State == state.Unmanaged:
		return unmanaged
	case !i.Held:
		return free
	case i.Incarnation != n.st.Incarnation || !n.st.Alive() || i.State == state.Unknown:
		return unknown
	case i.State == state.Acquiring:
		return acquiring
	case i.State == state.Online:
		return online
	case i.State == state.Releasing:
		return releasing
	}
	return stuck
}

func (m *model) indexDependencies() {
	set := 0
	m.setOf = make([][]int, m.sets)
	m.units = make([]unit, 0, len(m.groups))
	singles := make([]int, len(m.groups))
	for i := range m.def.Dependencies {
		d := &m.def.Dependencies[i]
		switch {
		case d.Parent != "":
			m.link(d.Parent, d.Child, func(p, c int) {
				m.groups[p].children = append(m.groups[p].children, c)
				m.groups[c].parents = append(m.groups[c].parents, p)
			})
		case d.Start != "":
			m.link(d.After, d.Start, func(t, s int) {
				m.groups[t].sources = append(m.groups[t].sources, s)
				m.groups[s].targets = append(m.groups[s].targets, t)
			})
		case d.Stop != "":
			m.link(d.After, d.Stop, func(t, s int) {
				m.groups[t].stopSources = append(m.groups[t].stopSources, s)
				m.groups[s].stopTargets = append(m.groups[s].stopTargets, t)
			})
		case d.SameNode != nil:
			m.sameNode(d.SameNode)
		case d.DifferentNodes != nil:
			for tier, names := range [][]string{d.DifferentNodes.Low, d.DifferentNodes.Intermediate, d.DifferentNodes.High} {
				for _, name := range names {
					if g, ok := m.grpIdx[name]; ok {
						m.groups[g].member = append(m.groups[g].member, membership{set, tier})
						m.setOf[set] = append(m.setOf[set], g)
					}
				}
			}
			set++
		}
	}
	for i := range m.groups {
		if m.groups[i].unit < 0 && !m.groups[i].def.Concurrent() {
			m.groups[i].unit = len(m.units)
			singles[i] = i
			m.units = append(m.units, unit{groups: singles[i : i+1 : i+1], lead: i})
		}
	}
}

func (m *model) link(first, second string, f func(int, int)) {
	a, okA := m.grpIdx[first]
	b, okB := m.grpIdx[second]
	if okA && okB {
		f(a, b)
	}
}

// sameNode makes one unit of a set; its lead has the highest priority, then comes first in the definition.
func (m *model) sameNode(names []string) {
	var u unit
	for _, name := range names {
		g, ok := m.grpIdx[name]
		if !ok || m.groups[g].def.Concurrent() || m.groups[g].unit >= 0 {
			continue
		}
		m.groups[g].unit = len(m.units)
		u.groups = append(u.groups, g)
	}
	if len(u.groups) == 0 {
		return
	}
	slices.SortFunc(u.groups, func(a, b int) int {
		if d := cmp.Compare(m.groups[b].def.Priority, m.groups[a].def.Priority); d != 0 {
			return d
		}
		return a - b
	})
	u.lead = u.groups[0]
	m.units = append(m.units, u)
}

// rank raises a group's priority to that of what depends on it, and counts the depth of what it depends on.
func (m *model) rank() {
	for pass := 0; pass < len(m.groups); pass++ { // a chain is at most that long; a cycle is refused before
		changed := false
		for i := range m.groups {
			g := &m.groups[i]
			for _, list := range [2][]int{g.parents, g.targets} {
				for _, p := range list {
					up := &m.groups[p]
					if g.priority > up.priority {
						up.priority, changed = g.priority, true
					}
					if up.depth+1 > g.depth && up.depth < len(m.groups) {
						g.depth, changed = up.depth+1, true
					}
				}
			}
		}
		if !changed {
			return
		}
	}
}

// sortUnits puts the most important first: by priority, then what others depend on, then, for the startup by distribution,
// the shorter list, then the definition's order. Inside a different-nodes set the higher tier comes first.
func (m *model) sortUnits() {
	m.order = make([]int, len(m.units))
	for i := range m.order {
		m.order[i] = i
	}
	slices.SortStableFunc(m.order, func(a, b int) int { return compare(&m.groups[m.units[a].lead], &m.groups[m.units[b].lead]) })
	if m.sets == 0 {
		return
	}
	placeOf := make([]int, len(m.units))
	for p, u := range m.order {
		placeOf[u] = p
	}
	for set := 0; set < m.sets; set++ {
		m.sortTiers(set, placeOf)
	}
}

// compare is negative if x comes before y.
func compare(x, y *group) int {
	switch {
	case x.priority != y.priority:
		return cmp.Compare(y.priority, x.priority)
	case x.depth != y.depth:
		return x.depth - y.depth
	case x.def.Startup != cluster.OnlineUsingDistribution || y.def.Startup != cluster.OnlineUsingDistribution:
		return 0
	}
	if needed, other := len(x.children)+len(x.sources) > 0, len(y.children)+len(y.sources) > 0; needed != other {
		if needed {
			return -1
		}
		return 1
	}
	if len(x.list) != len(y.list) {
		return len(x.list) - len(y.list)
	}
	return cmp.Compare(x.def.Name, y.def.Name)
}

// sortTiers permutes the units that have a member in the set among their own places.
func (m *model) sortTiers(set int, placeOf []int) {
	var places []int
	for _, i := range m.setOf[set] {
		if u := m.groups[i].unit; u >= 0 && !slices.Contains(places, placeOf[u]) {
			places = append(places, placeOf[u])
		}
	}
	slices.Sort(places)
	members := make([]int, len(places))
	for i, p := range places {
		members[i] = m.order[p]
	}
	slices.SortStableFunc(members, func(a, b int) int { return m.tierOf(b, set) - m.tierOf(a, set) })
	for i, p := range places {
		m.order[p], placeOf[members[i]] = members[i], p
	}
}

func (m *model) tierOf(u, set int) int {
	for _, g := range m.units[u].groups {
		if t := m.tierIn(&m.groups[g], set); t >= 0 {
			return t
		}
	}
	return -1
}

// dueTimers finds the fallback timers that are due, and when the next will be.
func (m *model) dueTimers() {
	for i := range m.def.FallbackTimers {
		t := m.v.Timers[m.def.FallbackTimers[i].Name]
		switch {
		case t == nil || t.Due.IsZero():
		case !m.now.Before(t.Due):
			if m.dueNow == nil {
				m.dueNow = map[string]bool{}
			}
			m.dueNow[t.Name] = true
		default:
			m.wake(t.Due)
		}
	}
}

func (m *model) wake(at time.Time) {
	if m.res.Next.IsZero() || at.Before(m.res.Next) {
		m.res.Next = at
	}
}

func (m *model) note(g *group, sentence string) {
	m.res.Notes = append(m.res.Notes, Note{Group: g.def.Name, Sentence: sentence})
}

// isOnline reports whether the group serves: dependants may run.
func (m *model) isOnline(g *group) bool {
	if !g.def.Concurrent() {
		return g.status == online || g.status == unmanaged && g.inst.Held && m.nodes[g.holder].st.Alive()
	}
	for r, i := range g.insts {
		if m.runs(g, r, i) {
			return true
		}
	}
	return false
}

// runs reports whether the instance of a concurrent group runs: held by the boot that its node is in now. One that is shown
// UNMANAGED after its node has died or booted is nothing to stand on.
func (m *model) runs(g *group, r int, i *state.Instance) bool {
	if i == nil || !i.Held || i.State != state.Online && i.State != state.Unmanaged {
		return false
	}
	st := m.nodes[g.list[r]].st
	return st.Alive() && i.Incarnation == st.Incarnation
}

// serves reports whether the group is online and goes on to be: what depends on it may start.
func (m *model) serves(g *group) bool {
	if !g.def.Concurrent() {
		return m.isOnline(g) && g.leave.cause == ""
	}
	for r, i := range g.insts {
		if m.runs(g, r, i) && (g.leaves == nil || g.leaves[r].cause == "") {
			return true
		}
	}
	return false
}

// isUnknown reports whether it cannot be said whether the group serves.
func (m *model) isUnknown(g *group) bool {
	if !g.def.Concurrent() {
		return g.status == unknown || g.status == unmanaged && g.inst.Held && !m.nodes[g.holder].st.Alive()
	}
	if m.isOnline(g) {
		return false
	}
	for r, i := range g.insts {
		if i != nil && i.Held && !m.nodes[g.list[r]].st.Alive() {
			return true
		}
	}
	return false
}

// isActive reports whether the group runs, starts or stops somewhere where the cluster can still order it.
func (m *model) isActive(g *group) bool {
	if !g.def.Concurrent() {
		return g.status == acquiring || g.status == online || g.status == releasing
	}
	for r, i := range g.insts {
		if i != nil && i.Held && i.State != state.Error && i.State != state.Unmanaged && m.nodes[g.list[r]].st.Alive() {
			return true
		}
	}
	return false
}
