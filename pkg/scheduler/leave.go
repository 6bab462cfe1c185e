package scheduler

import (
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// wantsOffline is why a group is released that the operator takes offline. When it is acquired again that is over.
const wantsOffline = "the operator wants it offline"

// mustLeave finds what has to stop where it is, wherever it may go then.
func (m *model) mustLeave() {
	m.evacuations()
	for i := range m.groups {
		g := &m.groups[i]
		switch {
		case g.st.Suspended:
		case g.def.Concurrent():
			m.mustLeaveConcurrent(g)
		case g.status == online || g.status == acquiring:
			g.leave = m.forced(g, g.holder, g.inst)
		case g.status == stuck && g.inst.Retry:
			g.leave = again(g.inst)
			if in := g.st.Intent; in != nil && in.To != "" {
				g.leave.to = m.nodeIdx[in.To]
			}
		}
	}
}

// evacuations finds the nodes that will give up their lease because a release has failed there.
func (m *model) evacuations() {
	reset := func(g *group, k int, inst *state.Instance) {
		if !inst.Retry && g.def.OnReleaseFailure == cluster.OnReleaseFailureReset && !g.st.Suspended {
			m.nodes[k].evac = true
			if m.nodes[k].bar == barNone {
				m.nodes[k].bar = barResetting
			}
		}
	}
	for i := range m.groups {
		g := &m.groups[i]
		if g.status == stuck {
			reset(g, g.holder, g.inst)
		}
		for r, inst := range g.insts {
			if inst != nil && inst.Held && inst.State == state.Error && m.nodes[g.list[r]].st.Alive() {
				reset(g, g.list[r], inst)
			}
		}
	}
}

// again is the release of an instance whose release has failed and is to be tried once more.
func again(inst *state.Instance) leaving {
	return leaving{cause: inst.Cause, to: -1, why: "the operator wants its failed release tried again"}
}

// forced says why an instance must be released, the strongest cause first; the zero value if it need not.
func (m *model) forced(g *group, k int, inst *state.Instance) leaving {
	n := &m.nodes[k]
	switch {
	case g.st.Offline:
		return leaving{cause: state.CauseOffline, to: -1, why: wantsOffline}
	case n.st.Services == state.ServicesStopping && n.st.StopMode == state.StopMove:
		return leaving{cause: state.CauseStopMove, to: -1, why: "cluster services of " + n.name + " are being stopped, and its groups move"}
	case n.st.Services == state.ServicesStopping || n.st.Services == state.ServicesOff:
		return leaving{cause: state.CauseStop, to: -1, dueTo: state.DueToNodeForcedDown, why: "cluster services of " + n.name + " are being stopped"}
	case inst.Failed:
		why := "its application has failed on " + n.name
		if mk := g.st.Marks[n.name]; mk != nil && mk.Sentence != "" {
			why += ": " + mk.Sentence
		}
		return leaving{cause: state.CauseFailure, to: -1, why: why}
	case n.evac:
		return leaving{cause: state.CauseEvacuate, to: -1, why: n.name + " will give up its lease, because a release has failed there"}
	}
	for _, p := range g.parents {
		// A parent that is being acquired while its child runs is being adopted: it would not have been started otherwise.
		if up := &m.groups[p]; !m.isOnline(up) && !m.isUnknown(up) && up.status != acquiring {
			return leaving{cause: state.CauseParent, to: k, dueTo: state.DueToParentOffline, why: "its parent " + up.def.Name + " is not online"}
		}
	}
	return leaving{}
}

func (m *model) mustLeaveConcurrent(g *group) {
	for r, inst := range g.insts {
		k := g.list[r]
		if inst != nil && inst.Held && inst.State == state.Error && inst.Retry && m.statusOf(&m.nodes[k], inst) == stuck {
			g.setLeave(r, again(inst))
			continue
		}
		if inst == nil || !inst.Held || inst.State != state.Online && inst.State != state.Acquiring || !m.nodes[k].st.Alive() ||
			inst.Incarnation != m.nodes[k].st.Incarnation {
			continue
		}
		l := m.forced(g, k, inst)
		if l.cause == "" {
			for _, off := range g.st.OfflineOn {
				if off == m.nodes[k].name {
					l = leaving{cause: state.CauseOffline, to: -1, why: "the operator wants it offline on " + off}
				}
			}
		}
		if l.cause != "" {
			g.setLeave(r, l)
		}
	}
}

// setLeave notes that a concurrent group's instance leaves.
func (g *group) setLeave(r int, l leaving) {
	if g.leaves == nil {
		g.leaves = make([]leaving, len(g.list))
	}
	g.leaves[r] = l
}

// placeRunning plans a unit of which something runs: where it goes if it must, and whether it should go.
func (m *model) placeRunning(u *unit, p parts) []int {
	at := m.home(u)
	if len(u.groups) > 1 {
		m.gather(p, at)
	}
	if len(p.leaving) > 0 {
		return m.placeLeaving(u, p, at)
	}
	if displaced, ok := m.goesOn(u, p, at); ok {
		return displaced
	}
	if moved, displaced := m.mayLeave(u, p, at); moved {
		return displaced
	}
	return m.followers(p, at)
}

// home is the node where a unit stands: that of its most important held member.
func (m *model) home(u *unit) int {
	for _, i := range u.groups { // in order of importance
		if g := &m.groups[i]; g.status == online || g.status == acquiring {
			return g.holder
		}
	}
	return -1 // not reached: the caller has seen one
}

// leader is the most important group of the unit that runs or is to run: its policies are those of the set.
func (m *model) leader(u *unit) *group {
	for _, i := range u.groups {
		if g := &m.groups[i]; g.status != free || notWanted(g) == "" {
			return g
		}
	}
	return &m.groups[u.lead]
}

// gather lets members of a set that stand elsewhere come to the others: a definition may have joined them only now.
func (m *model) gather(p parts, at int) {
	for _, i := range p.staying {
		if g := &m.groups[i]; g.holder != at && g.status == online {
			m.unbook(g, g.holder)
			g.leave = leaving{cause: state.CauseSameNode, to: at, why: "its same-node set is on " + m.nodes[at].name}
		}
	}
}

// moves reports whether a release for the cause is meant to be followed by a start.
func moves(c state.Cause) bool {
	return c == state.CauseStopMove || c == state.CauseFailure || c == state.CauseEvacuate || c == state.CauseDisplaced
}

// placeLeaving finds a node for members that must leave, and takes the rest of a set with them.
func (m *model) placeLeaving(u *unit, p parts, at int) []int {
	var going []int
	for _, i := range p.leaving {
		if moves(m.groups[i].leave.cause) {
			going = append(going, i)
		}
	}
	if len(going) == 0 {
		return m.followers(p, at)
	}
	first, lead := &m.groups[going[0]], m.leader(u)
	all := going
	if len(u.groups) > 1 {
		all = append(append(append([]int(nil), going...), p.staying...), p.wanted...)
	}
	in := intent{phase: state.PhaseRecover, fallover: lead.def.Fallover, lead: lead, displace: true}
	if in.fallover == cluster.FalloverBringOffline && first.leave.cause != state.CauseFailure {
		in.fallover = cluster.FalloverToNextPriority
	}
	c := m.choose(all, in, at)
	if c.node < 0 {
		if len(p.staying) > 0 { // the rest of the set stays where it can run
			return m.followers(parts{staying: p.staying, wanted: p.wanted}, at)
		}
		return nil
	}
	for _, i := range all {
		g := &m.groups[i]
		switch {
		case g.status == free:
			g.wait = "its same-node set is being moved"
		case g.leave.cause == "":
			m.unbook(g, g.holder)
			g.leave = leaving{cause: state.CauseSameNode, to: c.node, why: first.def.Name + " must leave, and the same-node set moves together"}
		default:
			g.leave.to = c.node
		}
		m.book(g, c.node)
	}
	return m.displace(c)
}

// followers places the free members of a set where the rest runs.
func (m *model) followers(p parts, at int) []int {
	if len(p.wanted) == 0 || len(p.staying) == 0 {
		return nil
	}
	var failed *group
	for _, i := range p.wanted {
		g := &m.groups[i]
		for _, t := range g.st.Tried {
			if t == m.nodes[at].name {
				failed = g
			}
		}
	}
	if failed != nil {
		if displaced, ok := m.goOn(p, failed, at); ok {
			return displaced
		}
	}
	var displaced []int
	for _, i := range p.wanted {
		g := &m.groups[i]
		o, of := m.obstacle([]int{i}, at, situation{leaving: -1, displace: true})
		if o.bar != barNone {
			g.wait = "its same-node set is on " + m.nodes[at].name + ", and " + m.sentence(of, &m.nodes[at], o)
			continue
		}
		m.settle(g, at, "its same-node set is on "+m.nodes[at].name)
		displaced = append(displaced, m.displace(choice{node: at, members: []int{i}})...)
	}
	return displaced
}

// goOn moves a set on to the next common node, because one member failed where it is; only if the node can take all.
func (m *model) goOn(p parts, failed *group, at int) ([]int, bool) {
	for _, i := range p.staying {
		if m.groups[i].status != online {
			return nil, true // wait: do not chase an acquisition that is under way
		}
	}
	all := append(append([]int(nil), p.staying...), p.wanted...)
	lead := m.leader(&m.units[failed.unit])
	in := intent{phase: state.PhaseRecover, fallover: lead.def.Fallover, lead: lead, displace: true}
	c := m.choose(all, in, at)
	if c.node < 0 && failed == lead { // no node can take all: the most important decides
		in.alone = true
		c = m.choose([]int{lead.index}, in, at)
	}
	if c.node < 0 {
		return nil, false
	}
	for _, i := range p.staying {
		g := &m.groups[i]
		m.unbook(g, at)
		g.leave = leaving{cause: state.CauseSameNode, to: c.node,
			why: failed.def.Name + " failed on " + m.nodes[at].name + ", and the same-node set goes on to " + m.nodes[c.node].name}
		m.book(g, c.node)
	}
	for _, i := range p.wanted {
		m.groups[i].wait = "its same-node set is being moved"
		m.book(&m.groups[i], c.node)
	}
	return m.displace(c), true
}

// goesOn lets the rest of a set follow a member that was released to move elsewhere, if the node can still take all.
func (m *model) goesOn(u *unit, p parts, at int) ([]int, bool) {
	if len(u.groups) < 2 {
		return nil, false
	}
	for _, i := range u.groups {
		g := &m.groups[i]
		if g.status != free && g.status != releasing || g.st.Intent == nil || g.st.Intent.To == "" || g.st.Offline {
			continue
		}
		k, ok := m.nodeIdx[g.st.Intent.To]
		if c := g.st.Intent.Cause; !ok || k == at || c == state.CauseParent || c == state.CauseDependency {
			continue
		}
		all := append(append([]int(nil), p.staying...), p.wanted...)
		if o, _ := m.obstacle(all, k, situation{leaving: -1, displace: true}); o.bar != barNone || m.anyMark(u.groups, k) {
			continue
		}
		for _, j := range p.staying {
			o := &m.groups[j]
			if o.leave.cause == "" {
				m.unbook(o, at)
				o.leave = leaving{cause: state.CauseSameNode, to: k, why: g.def.Name + " moves to " + m.nodes[k].name + ", and the same-node set moves together"}
			}
			m.book(o, k)
		}
		for _, j := range p.wanted {
			m.groups[j].wait = "its same-node set is being moved"
			m.book(&m.groups[j], k)
		}
		return m.displace(choice{node: k, members: all}), true
	}
	return nil, false
}

// mayLeave looks for a better place for a unit that could stay: the operator's placement, a network, a fallback.
func (m *model) mayLeave(u *unit, p parts, at int) (moved bool, displaced []int) {
	for _, i := range p.staying {
		if g := &m.groups[i]; g.status != online || g.leave.cause != "" {
			return false, nil
		}
	}
	lead := m.leader(u)
	for _, i := range p.staying {
		m.unbook(&m.groups[i], at)
	}
	all := p.staying
	if len(p.wanted) > 0 { // they must start together with those that run: a node that cannot take them is no better one
		all = append(append([]int(nil), p.staying...), p.wanted...)
	}
	cause, c, why, timer := m.better(all, lead, at)
	if cause == state.CauseFallback || cause == state.CauseNetwork { // now, before others are placed where it would make room
		for _, i := range p.staying {
			if cause != "" && m.tooDear(&m.groups[i]) {
				cause = ""
			}
		}
	}
	if cause == "" {
		for _, i := range p.staying {
			m.book(&m.groups[i], at)
		}
		return false, nil
	}
	for _, i := range p.staying {
		g := &m.groups[i]
		g.leave = leaving{cause: cause, to: c.node, why: why, voluntary: cause == state.CauseFallback || cause == state.CauseNetwork, timer: timer}
		m.book(g, c.node)
	}
	for _, i := range p.wanted {
		m.groups[i].wait = "its same-node set is being moved"
	}
	return true, m.displace(c)
}

// better says whether, why and whereto the members should move.
func (m *model) better(members []int, lead *group, at int) (cause state.Cause, c choice, why, timer string) {
	here := m.nodes[at].name
	override := m.override(&m.units[lead.unit])
	if override != nil && override.Node != here {
		k := m.nodeIdx[override.Node]
		o, of := m.obstacle(members, k, situation{leaving: -1, displace: true})
		if o.bar == barNone && m.anyMark(members, k) {
			o, of = obstacle{bar: barMarked}, m.markedMember(members, k)
		}
		if o.bar == barNone {
			return state.CauseMove, choice{node: k, members: members}, "the operator has placed it on " + override.Node, ""
		}
		m.note(lead, "it cannot move to "+override.Node+" as the operator wants: "+m.sentence(of, &m.nodes[k], o))
	}
	if net, g := m.lostNetwork(members, at); net != "" {
		c = m.choose(members, intent{phase: state.PhaseRecover, fallover: lead.def.Fallover, lead: lead, calm: true}, at)
		if c.node >= 0 {
			return state.CauseNetwork, c, here + " has lost network " + net, ""
		}
		m.note(g, "it stays on "+here+" although network "+net+" is lost there: "+c.why)
		return "", c, "", ""
	}
	if override != nil {
		return "", c, "", ""
	}
	return m.fallback(members, lead, at)
}

// override is the operator's placement of a unit.
func (m *model) override(u *unit) *state.Override {
	for _, i := range u.groups {
		if o := m.groups[i].st.Override; o != nil {
			return o
		}
	}
	return nil
}

func (m *model) lostNetwork(members []int, at int) (string, *group) {
	if len(m.nodes[at].st.NetworksDown) == 0 {
		return "", nil
	}
	for _, i := range members {
		g := &m.groups[i]
		for _, net := range g.nets {
			if m.nodes[at].st.NetworkDown(net) {
				return net, g
			}
		}
	}
	return "", nil
}

// fallback looks for a node that comes before this one in the list and can take the members now.
func (m *model) fallback(members []int, lead *group, at int) (cause state.Cause, c choice, why, timer string) {
	if lead.def.Fallback != cluster.FallbackToHigherPriority {
		return "", c, "", ""
	}
	here := m.nodes[at].name
	for _, k := range lead.list {
		if k == at {
			break
		}
		if lead.st.Dynamic != 0 && m.nodes[k].st.AbleSince <= lead.st.Dynamic {
			continue // it was able already when dynamic node priority chose another
		}
		o, _ := m.obstacle(members, k, situation{leaving: -1, fallback: true})
		if o.bar != barNone || m.anyMark(members, k) {
			continue
		}
		timer = lead.def.FallbackAt
		if timer != "" && !m.dueNow[timer] {
			m.note(lead, "it waits for the fallback timer "+timer+" before it returns to "+m.nodes[k].name)
			return "", c, "", ""
		}
		why = m.nodes[k].name + " comes before " + here + " in its list and can take it"
		if timer != "" {
			why += ", and the fallback timer " + timer + " has fired"
		}
		return state.CauseFallback, choice{node: k, members: members}, why, timer
	}
	return "", c, "", ""
}

// together adds what must stop because something else stops. A move that need not be and costs too much was not planned at all: see tooDear.
func (m *model) together() {
	for changed := true; changed; {
		changed = false
		for i := range m.groups {
			g := &m.groups[i]
			if g.leave.cause == "" && (g.leaves == nil || !m.isStopping(g)) {
				continue
			}
			for _, c := range g.children {
				changed = m.drag(&m.groups[c], state.CauseParent, state.DueToParentOffline, "its parent "+g.def.Name+" stops") || changed
			}
			for _, t := range g.stopTargets {
				changed = m.drag(&m.groups[t], state.CauseDependency, "", g.def.Name+" can stop only after it") || changed
			}
		}
	}
}

// tooDear reports whether a move that need not be would stop a group that must be offline before, or is not to be touched.
func (m *model) tooDear(g *group) bool {
	for _, t := range g.stopTargets {
		if m.isActive(&m.groups[t]) {
			m.note(g, "it stays on "+m.nodes[g.holder].name+": it could stop only after "+m.groups[t].def.Name)
			return true
		}
	}
	for _, c := range g.children {
		if ch := &m.groups[c]; ch.st.Suspended && m.isActive(ch) {
			m.note(g, "it stays on "+m.nodes[g.holder].name+": its child "+ch.def.Name+" is suspended")
			return true
		}
	}
	return false
}

// drag lets a running dependant leave, to come back where it was.
func (m *model) drag(g *group, cause state.Cause, due state.DueTo, why string) bool {
	if g.st.Suspended {
		return false
	}
	if g.def.Concurrent() {
		changed := false
		for r, inst := range g.insts {
			if inst == nil || !inst.Held || inst.State != state.Online && inst.State != state.Acquiring || !m.nodes[g.list[r]].st.Alive() {
				continue
			}
			if g.leaves == nil || g.leaves[r].cause == "" {
				g.setLeave(r, leaving{cause: cause, to: -1, dueTo: due, why: why})
				changed = true
			}
		}
		return changed
	}
	if g.leave.cause != "" && !g.leave.voluntary || g.status != online && g.status != acquiring {
		return false
	}
	to := g.holder
	if g.leave.cause != "" { // it wanted to move anyway
		to = g.leave.to
	}
	g.leave = leaving{cause: cause, to: to, dueTo: due, why: why}
	return true
}
