package scheduler

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// place finds a node for each unit that needs or wants one, the most important first, and then for what was displaced.
func (m *model) place() {
	var displaced []int
	for _, u := range m.order {
		displaced = append(displaced, m.placeUnit(u)...)
	}
	for rounds := 0; len(displaced) > 0 && rounds < 3*len(m.units)+3; rounds++ { // a displaced unit may displace a lower one
		u := displaced[0]
		displaced = append(displaced[1:], m.placeUnit(u)...)
	}
}

// parts of a unit, by how its groups stand. Each holds indexes of groups, the most important first.
type parts struct {
	wanted  []int // free, and to be placed
	staying []int // held where the cluster can order them, and not leaving
	leaving []int // likewise, and must leave
	pinned  []int // held, and the cluster cannot or must not touch them
	moving  bool  // something is being released
}

func (m *model) split(u *unit) parts {
	var p parts
	if len(u.groups) == 1 { // the common case, without allocation
		p = m.splitOne(p, u.groups, 0)
		return p
	}
	for i := range u.groups {
		p = m.splitOne(p, u.groups, i)
	}
	return p
}

func (m *model) splitOne(p parts, groups []int, i int) parts {
	g := &m.groups[groups[i]]
	one := groups[i : i+1 : i+1]
	switch g.status {
	case free:
		if m.wants(g) {
			p.wanted = join(p.wanted, one)
		}
	case online, acquiring:
		switch {
		case g.st.Suspended:
			p.pinned = join(p.pinned, one)
		case g.leave.cause != "":
			p.leaving = join(p.leaving, one)
		default:
			p.staying = join(p.staying, one)
		}
	case releasing:
		p.moving = true
	default:
		p.pinned = join(p.pinned, one)
	}
	return p
}

// join appends without copying when the list is empty.
func join(list, one []int) []int {
	if list == nil {
		return one
	}
	return append(list, one...)
}

// wants reports whether a free group is to be placed at all, and notes why not.
func (m *model) wants(g *group) bool {
	g.wait = notWanted(g)
	return g.wait == "" && !m.isBlocked(g)
}

// notWanted says why a free group is not to start at all; empty if it is.
func notWanted(g *group) string {
	switch {
	case g.st.Offline:
		return wantsOffline
	case g.st.Suspended:
		return "it is suspended"
	case g.st.Phase == state.PhaseParked:
		return "its node's cluster services were stopped with it offline; it waits for a node of its list to join"
	case g.st.Phase == state.PhaseError:
		return "it is in ERROR; it waits for clear, online, move, or for a node of its list to join"
	}
	return ""
}

// isBlocked reports whether what the group waits for is not online and not about to be.
func (m *model) isBlocked(g *group) bool {
	for kind, list := range [2][]int{g.parents, g.targets} {
		word := [2]string{"its parent ", "its start-after target "}[kind]
		for _, p := range list {
			up := &m.groups[p]
			switch {
			case m.serves(up):
			case up.unit >= 0 && up.unit == g.unit && up.status == free && notWanted(up) == "": // placed together
			case m.isUnknown(up):
				g.blocked, g.wait = true, word+up.def.Name+" is on a silent node"
				return true
			case up.target < 0 && up.status != acquiring && !(up.def.Concurrent() && m.willRun(up)):
				g.blocked, g.wait = true, word+up.def.Name+" is not online"
				return true
			}
		}
	}
	return false
}

// willRun reports whether some node can take an instance of the concurrent group.
func (m *model) willRun(g *group) bool {
	for r := range g.list {
		if i := g.insts[r]; i != nil && i.State == state.Acquiring || m.concurrentBar(g, r) == "" {
			return true
		}
	}
	return false
}

// placeUnit plans one unit, and returns the units that it displaces.
func (m *model) placeUnit(at int) []int {
	u := &m.units[at]
	p := m.split(u)
	switch {
	case len(p.pinned) > 0:
		m.followPinned(p)
		return nil
	case len(p.staying)+len(p.leaving) > 0:
		return m.placeRunning(u, p)
	case len(p.wanted) > 0 && p.moving:
		for _, i := range p.wanted {
			m.groups[i].wait = "its same-node set is being moved"
		}
	case len(p.wanted) > 0:
		return m.placeFree(p.wanted)
	}
	return nil
}

// followPinned puts the free members of a set where one that cannot be moved stands.
func (m *model) followPinned(p parts) {
	at := m.groups[p.pinned[0]].holder
	for _, i := range p.wanted {
		g := &m.groups[i]
		if o, of := m.obstacle(p.wanted[:1:1], at, situation{leaving: -1}); o.bar != barNone {
			g.wait = "its same-node set is on " + m.nodes[at].name + ", and " + m.sentence(of, &m.nodes[at], o)
			continue
		}
		m.settle(g, at, "its same-node set is there")
	}
}

// placeFree plans a unit of which nothing is held.
func (m *model) placeFree(wanted []int) []int {
	lead := &m.groups[wanted[0]]
	if wait := m.settling(lead); wait != "" {
		lead.wait = wait
		return nil
	}
	c := m.choose(wanted, m.purpose(wanted, lead), -1)
	if c.node < 0 && len(wanted) > 1 && m.tried(wanted) { // no node can take all: the most important decides
		in := m.purpose(wanted[:1], lead)
		in.alone = true
		c = m.choose(wanted[:1], in, -1)
		if c.node >= 0 {
			for _, i := range wanted[1:] {
				m.groups[i].wait = "it follows " + lead.def.Name + " of its same-node set"
			}
			wanted = wanted[:1]
		}
	}
	if c.node < 0 {
		for _, i := range wanted {
			m.groups[i].wait = c.why
		}
		return nil
	}
	if m.waitsToDisplace(wanted, c) {
		return nil
	}
	for _, i := range wanted {
		m.settle(&m.groups[i], c.node, c.why)
		m.groups[i].dynamic = c.dynamic
	}
	return m.displace(c)
}

// waitsToDisplace puts off a placement that would stop something that runs, while the members could not start yet.
func (m *model) waitsToDisplace(wanted []int, c choice) bool {
	runs := false
	for _, i := range c.members {
		for _, mb := range m.groups[i].member {
			if o := m.nodes[c.node].inSet[mb.set]; o >= 0 && o != i && m.groups[o].status != free {
				runs = true
			}
		}
	}
	for _, i := range wanted {
		if g := &m.groups[i]; runs && !m.ready(g) {
			for _, j := range wanted {
				o := &m.groups[j]
				o.blocked, o.wait = true, g.def.Name+" waits for what it depends on"
			}
			return true
		}
	}
	return false
}

// tried reports whether a recovery chain of the members is under way.
func (m *model) tried(members []int) bool {
	for _, i := range members {
		if len(m.groups[i].st.Tried) > 0 {
			return true
		}
	}
	return false
}

// settling says that an OFAN group waits for a better node; empty if not.
func (m *model) settling(g *group) string {
	until := g.st.SettleUntil
	if g.st.Phase != state.PhaseStart || g.def.Startup != cluster.OnlineOnFirstAvailable || until.IsZero() || !m.now.Before(until) ||
		g.st.Override != nil || len(g.list) == 0 {
		return ""
	}
	all, one := true, false
	for _, k := range g.list {
		up := m.nodes[k].bar == barNone
		all, one = all && up, one || up
	}
	if all || !one || m.nodes[g.list[0]].bar == barNone {
		return ""
	}
	m.wake(until)
	return "the settling time runs until " + until.UTC().Format(time.RFC3339) + ": a better node may still join"
}

// settle books a group on a node.
func (m *model) settle(g *group, k int, why string) {
	g.target, g.why = k, why
	m.book(g, k)
}

func (m *model) book(g *group, k int) {
	n := &m.nodes[k]
	n.load += g.def.Weight
	if g.def.Startup == cluster.OnlineUsingDistribution {
		n.spread++
	}
	for _, mb := range g.member {
		n.inSet[mb.set] = g.index
	}
}

func (m *model) unbook(g *group, k int) {
	n := &m.nodes[k]
	n.load -= g.def.Weight
	if g.def.Startup == cluster.OnlineUsingDistribution {
		n.spread--
	}
	for _, mb := range g.member {
		if n.inSet[mb.set] == g.index {
			n.inSet[mb.set] = -1
		}
	}
}

// occupy books what stays where it is. What is being released, or must leave, does not count for what is planned; it does for
// what may start now (see mayStart).
func (m *model) occupy() {
	for i := range m.groups {
		g := &m.groups[i]
		if g.def.Concurrent() {
			for r, inst := range g.insts {
				if inst != nil && inst.Held {
					m.nodes[g.list[r]].load += g.def.Weight
				}
			}
			continue
		}
		if g.holder >= 0 && g.inst.Held && g.status != releasing && g.leave.cause == "" {
			m.book(g, g.holder)
		}
	}
}

// choice is what choose found: node -1 if none, and why (or why not).
type choice struct {
	node    int
	why     string
	members []int
	dynamic bool // by dynamic node priority
}

// purpose says for what, and with which policy, a free unit is placed.
func (m *model) purpose(wanted []int, lead *group) intent {
	in := intent{phase: lead.st.Phase, startup: lead.def.Startup, fallover: lead.def.Fallover, lead: lead, displace: true}
	if o := m.override(&m.units[lead.unit]); o != nil {
		in.override = o.Node
	}
	for _, i := range wanted {
		g := &m.groups[i]
		if to := g.st.Intent; to != nil && to.To != "" && in.to == "" {
			in.to, in.from = to.To, to.From
		}
		if g.st.Phase == state.PhaseRecover || g.st.Phase == state.PhaseActive {
			in.phase = state.PhaseRecover
		}
	}
	for _, i := range wanted { // the operator wants one of a set: all start, wherever they can
		if m.groups[i].st.Phase == state.PhaseRequest && !m.tried(wanted) {
			in.phase = state.PhaseRequest
		}
	}
	if in.fallover == cluster.FalloverBringOffline && lead.st.Intent != nil {
		switch lead.st.Intent.Cause {
		case state.CauseStopMove, state.CauseMove, state.CauseEvacuate, state.CauseDisplaced, state.CauseParent, state.CauseSameNode,
			state.CauseDependency, state.CauseFallback:
			in.fallover = cluster.FalloverToNextPriority // it was released in order, to run elsewhere
		}
	}
	return in
}

// intent is the question that choose answers.
type intent struct {
	phase    state.Phase
	startup  cluster.Startup
	fallover cluster.Fallover
	lead     *group
	override string // the operator's placement
	to, from string // where its release meant it to go
	displace bool
	alone    bool // the most important of a set, because no node can take all
	calm     bool // only where it fits without harm to anybody, and no marked node
}

// byMeasure reports whether dynamic node priority chooses.
func (in *intent) byMeasure(s situation) bool {
	return in.fallover == cluster.FalloverUsingDNP && !s.startup && !s.request
}

// wasDynamic reports whether dynamic node priority chose the node for which the group was released, or where it comes back to.
func (in *intent) wasDynamic() bool {
	to := in.lead.st.Intent
	if in.fallover != cluster.FalloverUsingDNP || to == nil {
		return false
	}
	switch to.Cause {
	case state.CauseFallback, state.CauseMove:
		return false
	case state.CauseParent, state.CauseDependency:
		return in.lead.st.Dynamic != 0
	}
	return true
}

// choose finds the node for the members, which must all go to one; leaving is a node that they must not take, or -1.
func (m *model) choose(members []int, in intent, leaving int) choice {
	s := situation{leaving: leaving, displace: in.displace}
	for _, first := range [2]string{in.override, in.to} {
		k, ok := m.nodeIdx[first]
		if first == "" || !ok {
			continue
		}
		if m.marked(members, k, in.alone) != unmarked {
			continue
		}
		if o, _ := m.obstacle(members, k, s); o.bar == barNone {
			why := "the operator has placed it on " + first
			if first != in.override {
				why = "released on " + in.from + " for it"
			}
			return choice{node: k, why: why, members: members, dynamic: first != in.override && in.wasDynamic()}
		}
	}
	candidates, none := m.candidates(&in, &s)
	if none != "" {
		return choice{node: -1, why: none}
	}
	return m.pick(members, candidates, in, s)
}

// candidates lists the nodes that the policy allows, the best first; or says why there are none.
func (m *model) candidates(in *intent, s *situation) (list []int, none string) {
	g := in.lead
	switch in.phase {
	case state.PhaseStart:
		s.startup = true
		if in.startup == cluster.OnlineOnHomeNode && len(g.list) > 0 {
			return g.list[:1], ""
		}
	case state.PhaseRequest:
		s.request = true
	default:
		switch in.fallover {
		case cluster.FalloverBringOffline:
			return nil, "its failover policy BO lets no other node take it over"
		case cluster.FalloverUsingDNP:
			return m.byMeasure(g), ""
		}
	}
	return g.list, ""
}

// pick takes the first candidate without harm; else the one where the lowest tier is displaced; and only then one where the
// group has failed before, if that is long ago or the operator wants it.
func (m *model) pick(members, candidates []int, in intent, s situation) choice {
	for _, worst := range [2]marking{unmarked, markedOld} {
		best, bestTier := -1, 0
		for _, k := range candidates {
			mk := m.marked(members, k, in.alone)
			if mk == marked && s.request {
				mk = markedOld
			}
			if mk != worst || in.calm && m.anyMark(members, k) {
				continue
			}
			if o, _ := m.obstacle(members, k, s); o.bar != barNone {
				continue
			}
			tier := m.displacedTier(members, k)
			if tier < 0 {
				return choice{node: k, why: m.whyHere(k, in, s), members: members, dynamic: in.byMeasure(s)}
			}
			if best < 0 || tier < bestTier {
				best, bestTier = k, tier
			}
		}
		if best >= 0 {
			return choice{node: best, why: m.whyHere(best, in, s) + ", and comes before what is there", members: members, dynamic: in.byMeasure(s)}
		}
		if in.calm {
			break
		}
	}
	return m.nobody(members, candidates, in, s)
}

// marking is how a node stands to groups that have failed there.
type marking int

const (
	unmarked marking = iota
	markedOld
	marked
)

// marked finds the worst mark of the members on the node. In the middle of a same-node set's recovery chain the whole set counts,
// and a failed acquisition as well: it would only go round in circles. alone asks for the members by themselves.
func (m *model) marked(members []int, k int, alone bool) marking {
	worst := unmarked
	window := m.window()
	chain := false
	if set := m.units[m.groups[members[0]].unit].groups; len(set) > 1 && !alone && m.tried(set) {
		members, chain = set, true
	}
	for _, i := range members {
		g := &m.groups[i]
		if chain && g.status == free && notWanted(g) != "" {
			continue
		}
		mk := g.st.Marks[m.nodes[k].name]
		switch {
		case chain && contains(g.st.Tried, m.nodes[k].name):
			worst = marked
		case mk == nil:
		case mk.Kind == state.MarkApplication && m.now.Sub(mk.At) < window:
			worst = marked
		case mk.Kind == state.MarkApplication:
			worst = max(worst, markedOld)
		case chain:
			worst = marked
		}
	}
	return worst
}

// anyMark reports whether one of the members, or of their same-node set, has failed on the node at all: it is no target of a
// voluntary move then.
func (m *model) anyMark(members []int, k int) bool {
	for _, i := range m.units[m.groups[members[0]].unit].groups {
		st := m.groups[i].st
		if st.Marks[m.nodes[k].name] != nil || contains(st.Tried, m.nodes[k].name) {
			return true
		}
	}
	return false
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

// displacedTier is the highest tier among the groups that must leave the node if the members come; -1 if none must.
func (m *model) displacedTier(members []int, k int) int {
	tier := -1
	for _, i := range members {
		g := &m.groups[i]
		for _, mb := range g.member {
			if o := m.nodes[k].inSet[mb.set]; o >= 0 && o != i {
				tier = max(tier, m.tierIn(&m.groups[o], mb.set))
			}
		}
	}
	return tier
}

// whyHere says by which policy the node was chosen.
func (m *model) whyHere(k int, in intent, s situation) string {
	n := m.nodes[k].name
	switch {
	case s.request:
		return n + " is the first node of its list that can take it"
	case s.startup && in.startup == cluster.OnlineOnHomeNode:
		return n + " is its home node"
	case s.startup && in.startup == cluster.OnlineUsingDistribution:
		return n + " is the first node of its list without a distributed group"
	case s.startup:
		return n + " is the first available node"
	case in.fallover == cluster.FalloverUsingDNP:
		return n + " is best by dynamic node priority" + m.measureWords(in.lead, k)
	}
	return n + " is the next available node"
}

// nobody says why no candidate can take the members, node by node.
func (m *model) nobody(members, candidates []int, in intent, s situation) choice {
	c := choice{node: -1}
	var why []string
	for _, k := range candidates {
		o, of := m.obstacle(members, k, s)
		if o.bar == barHere {
			continue
		}
		if o.bar == barNone {
			o, of = obstacle{bar: barMarked}, m.markedMember(members, k)
			m.wakeForMarks(members, k)
		}
		why = append(why, m.sentence(of, &m.nodes[k], o))
	}
	switch {
	case s.startup && in.startup == cluster.OnlineOnHomeNode:
		c.why = "it starts only on its home node (OHN): " + strings.Join(why, "; ")
	case len(why) == 0:
		c.why = "there is no other node in its list"
	default:
		c.why = "no node can take it: " + strings.Join(why, "; ")
	}
	return c
}

// wakeForMarks plans again when the node's marks are older than the failure window.
func (m *model) wakeForMarks(members []int, k int) {
	var until time.Time
	for _, i := range members {
		if mk := m.groups[i].st.Marks[m.nodes[k].name]; mk != nil && mk.Kind == state.MarkApplication {
			if at := mk.At.Add(m.window()); at.After(until) {
				until = at
			}
		}
	}
	if until.After(m.now) {
		m.wake(until)
	}
}

// window is how long an application's failure keeps a node from being taken.
func (m *model) window() time.Duration {
	if w := m.def.Settings.FailureWindow; w > 0 {
		return w
	}
	return time.Hour
}

func (m *model) markedMember(members []int, k int) *group {
	for _, i := range m.units[m.groups[members[0]].unit].groups {
		if m.groups[i].st.Marks[m.nodes[k].name] != nil {
			return &m.groups[i]
		}
	}
	return &m.groups[members[0]]
}

// displace lets the groups of lower tiers leave the chosen node, and returns their units.
func (m *model) displace(c choice) []int {
	var units []int
	for _, i := range c.members {
		g := &m.groups[i]
		for _, mb := range g.member {
			for _, o := range m.setOf[mb.set] {
				low := &m.groups[o]
				if o == i || m.rankIn(low, mb.set, 0) >= mb.tier || !m.plannedOn(low, c.node) {
					continue
				}
				m.evict(low, c.node, g)
				units = append(units, low.unit)
			}
			m.nodes[c.node].inSet[mb.set] = i
		}
	}
	return units
}

func (m *model) plannedOn(g *group, k int) bool {
	return g.target == k || g.target < 0 && g.holder == k && (g.status == online || g.status == acquiring) && g.leave.cause == ""
}

// evict takes a group off a node for the sake of another.
func (m *model) evict(low *group, k int, high *group) {
	for _, i := range m.units[low.unit].groups {
		o := &m.groups[i]
		if !m.plannedOn(o, k) {
			continue
		}
		m.unbook(o, k)
		o.target = -1
		if o.holder == k {
			o.leave = leaving{cause: state.CauseDisplaced, to: -1, dueTo: state.DueToFallover,
				why: high.def.Name + " takes " + m.nodes[k].name + " and comes before it in their different-nodes set"}
		}
	}
}

// byMeasure lists the group's nodes by dynamic node priority, the best first; nodes whose measure is not known come last.
func (m *model) byMeasure(g *group) []int {
	list := append([]int(nil), g.list...)
	sort.SliceStable(list, func(a, b int) bool {
		x, okX := m.measure(g, list[a])
		y, okY := m.measure(g, list[b])
		if okX != okY {
			return okX
		}
		return okX && x > y
	})
	return list
}

// measure is what the group's policy sees of a node, made so that more is better.
func (m *model) measure(g *group, k int) (float64, bool) {
	ms := m.nodes[k].st.Measures
	get := func(v *float64, sign float64) (float64, bool) {
		if v == nil {
			return 0, false
		}
		return sign * *v, true
	}
	switch g.def.NodePriorityPolicy {
	case cluster.PriorityCPU:
		return get(ms.CPU, 1)
	case cluster.PriorityMemory:
		return get(ms.Memory, 1)
	case cluster.PriorityDisk:
		return get(ms.Disk, -1)
	case cluster.PriorityLeast, cluster.PriorityMost:
		v, ok := ms.Script[g.def.Name]
		if !ok {
			v, ok = ms.Script[""]
		}
		if g.def.NodePriorityPolicy == cluster.PriorityMost {
			return v, ok
		}
		return -v, ok && v != 0 // the lowest answer that is not zero
	}
	return 0, false
}

func (m *model) measureWords(g *group, k int) string {
	v, ok := m.measure(g, k)
	if !ok {
		return " (no node's measure is known)"
	}
	number := strconv.FormatFloat(math.Abs(v), 'f', -1, 64) // no "-0"
	switch g.def.NodePriorityPolicy {
	case cluster.PriorityCPU:
		return fmt.Sprintf(" (cpu: %s %% idle)", number)
	case cluster.PriorityMemory:
		return fmt.Sprintf(" (mem: %s MiB free)", number)
	case cluster.PriorityDisk:
		return fmt.Sprintf(" (disk: %s %% busy)", number)
	}
	return fmt.Sprintf(" (%s: its script answers %s)", g.def.NodePriorityPolicy, number)
}
