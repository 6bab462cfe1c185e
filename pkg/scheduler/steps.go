package scheduler

import (
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// releases decides what can stop now: what depends on it has stopped before.
func (m *model) releases() {
	for i := range m.groups {
		g := &m.groups[i]
		if g.def.Concurrent() {
			m.releasesConcurrent(g)
			continue
		}
		if g.leave.cause == "" || g.status != online && g.status != acquiring && g.status != stuck {
			continue
		}
		if first := m.stopsBefore(g); first != "" {
			m.note(g, "it stops after "+first)
			continue
		}
		m.decideRelease(g, g.holder, g.inst, &g.leave)
	}
}

func (m *model) releasesConcurrent(g *group) {
	for r := range g.leaves {
		if g.leaves[r].cause == "" {
			continue
		}
		if m.lastRunning(g) {
			if first := m.stopsBefore(g); first != "" {
				m.note(g, "it stops after "+first)
				continue
			}
		}
		m.decideRelease(g, g.list[r], g.insts[r], &g.leaves[r])
	}
}

// lastRunning reports whether no instance would serve after those that leave have left: only then do dependants stop first.
func (m *model) lastRunning(g *group) bool {
	for r, inst := range g.insts {
		if inst != nil && inst.State == state.Online && g.leaves[r].cause == "" && m.nodes[g.list[r]].st.Alive() {
			return false
		}
	}
	return true
}

// stopsBefore names a group that must be offline before g stops; empty if none is in the way.
func (m *model) stopsBefore(g *group) string {
	for _, list := range [2][]int{g.children, g.stopTargets} {
		for _, o := range list {
			if other := &m.groups[o]; m.isActive(other) && !other.st.Suspended {
				return other.def.Name
			}
		}
	}
	return ""
}

func (m *model) decideRelease(g *group, k int, inst *state.Instance, l *leaving) {
	to := ""
	if l.to >= 0 {
		to = m.nodes[l.to].name
	}
	m.res.Decisions = append(m.res.Decisions, Decision{Op: OpRelease, Group: g.def.Name, Node: m.nodes[k].name, Incarnation: inst.Incarnation,
		Generation: inst.Generation, Cause: l.cause, To: to, DueTo: l.dueTo, Reason: l.why})
}

// acquires decides what can start now: what it depends on is online, and nothing stands in the way in fact.
func (m *model) acquires() {
	for _, u := range m.order {
		for _, i := range m.units[u].groups {
			g := &m.groups[i]
			switch {
			case g.status != free:
			case g.target < 0:
				if g.wait != "" {
					m.note(g, g.wait)
				}
			default:
				m.startIfClear(g, g.target, m.v.Based(g.def.Name, m.nodes[g.target].name), g.why)
			}
		}
	}
	for i := range m.groups {
		if g := &m.groups[i]; g.def.Concurrent() {
			m.acquiresConcurrent(g)
		}
	}
}

func (m *model) acquiresConcurrent(g *group) {
	for r, k := range g.list {
		if why := m.concurrentBar(g, r); why != "" {
			if i := g.insts[r]; i == nil || !i.Held {
				m.res.Notes = append(m.res.Notes, Note{Group: g.def.Name, Node: m.nodes[k].name, Sentence: why})
			}
			continue
		}
		based := uint64(0)
		if i := g.insts[r]; i != nil {
			based = i.Generation
		}
		m.startIfClear(g, k, based, m.nodes[k].name+" is available, and the group runs on all available nodes")
	}
}

// concurrentBar says why no instance starts on the node at this place of the list; empty if one may.
func (m *model) concurrentBar(g *group, r int) string {
	n := &m.nodes[g.list[r]]
	inst := g.insts[r]
	switch {
	case inst != nil && (inst.Held || inst.State == state.Unmanaged):
		return "it is " + string(inst.State) + " there"
	case g.st.Offline:
		return wantsOffline
	case g.st.Suspended:
		return "it is suspended"
	case inst != nil && inst.State == state.Error:
		return "it is in ERROR there; it waits for clear, online, or for the node to join again"
	case n.bar != barNone:
		return m.sentence(g, n, obstacle{bar: n.bar})
	case n.manual && !(g.st.Override != nil && g.st.Override.Node == n.name):
		return m.sentence(g, n, obstacle{bar: barManual})
	case slices.Contains(g.st.OfflineOn, n.name):
		return "the operator wants it offline there"
	}
	return m.concurrentLack(g, n)
}

// concurrentLack says what the node lacks for an instance; empty if it has all.
func (m *model) concurrentLack(g *group, n *node) string {
	switch {
	case n.evac:
		return n.name + " will give up its lease"
	case n.def.Capacity > 0 && g.def.Weight > 0 && n.load+g.def.Weight > n.def.Capacity:
		return m.sentence(g, n, obstacle{bar: barCapacity})
	}
	for _, net := range g.nets {
		if n.st.NetworkDown(net) {
			return m.sentence(g, n, obstacle{bar: barNetwork, other: net})
		}
	}
	return ""
}

// startIfClear decides the acquisition, or notes what it waits for.
func (m *model) startIfClear(g *group, k int, based uint64, why string) {
	n := &m.nodes[k]
	if wait := m.startsAfter(g, k); wait != "" {
		m.note(g, wait)
		return
	}
	n.actual += g.def.Weight
	reason := why
	switch {
	case g.st.Freed == why && g.st.Intent != nil:
		reason = why + "; released on " + g.st.Intent.From
	case g.st.Freed != "" && g.st.Freed != why && g.st.Freed != wantsOffline && g.st.Phase != state.PhaseStart: // how the last start of services ended is no cause of this one
		reason = g.st.Freed + "; " + why
	}
	d := Decision{Op: OpAcquire, Group: g.def.Name, Node: n.name, Incarnation: n.st.Incarnation, Generation: based, Dynamic: g.dynamic, Reason: reason}
	if g.st.Freed != "" {
		d.Requires = append(d.Requires, g.st.Freed)
	}
	for _, p := range g.parents {
		d.Requires = append(d.Requires, m.groups[p].def.Name+" is online")
	}
	for _, t := range g.targets {
		d.Requires = append(d.Requires, m.groups[t].def.Name+" is online")
	}
	m.res.Decisions = append(m.res.Decisions, d)
}

// startsAfter says what an acquisition waits for; empty if it can begin.
func (m *model) startsAfter(g *group, k int) string {
	for _, p := range g.parents {
		if up := &m.groups[p]; !m.serves(up) {
			return "it starts after its parent " + up.def.Name + " is online"
		}
	}
	for _, t := range g.targets {
		if up := &m.groups[t]; !m.serves(up) {
			return "it starts after " + up.def.Name + " is online"
		}
	}
	for _, c := range g.children {
		if ch := &m.groups[c]; m.isActive(ch) && !ch.st.Suspended && !m.isOnline(g) {
			return "it starts after its child " + ch.def.Name + " has stopped"
		}
	}
	for _, s := range g.stopSources {
		if o := &m.groups[s]; m.isStopping(o) {
			return "it starts after " + o.def.Name + " has stopped"
		}
	}
	if g.unit >= 0 {
		for _, i := range m.units[g.unit].groups {
			if o := &m.groups[i]; o != g && o.status != free && o.holder >= 0 && o.holder != k && o.inst.Held {
				return "it starts after " + o.def.Name + " of its same-node set has left " + m.nodes[o.holder].name
			}
		}
	}
	for _, mb := range g.member {
		for _, i := range m.setOf[mb.set] {
			o := &m.groups[i]
			if o != g && (o.holder == k && o.inst.Held || m.startedNow(o, k)) {
				return "it starts after " + o.def.Name + " has left " + m.nodes[k].name
			}
		}
	}
	if n := &m.nodes[k]; n.def.Capacity > 0 && g.def.Weight > 0 && n.actual+g.def.Weight > n.def.Capacity {
		return "it starts when " + n.name + " has room for its weight"
	}
	return ""
}

// isStopping reports whether the group is going offline, and has not got there yet.
func (m *model) isStopping(g *group) bool {
	if !g.def.Concurrent() {
		return g.status == releasing || g.leave.cause != "" && g.status != free
	}
	stopping := false
	for r, i := range g.insts {
		if i == nil || !i.Held || !m.nodes[g.list[r]].st.Alive() {
			continue
		}
		going := i.State == state.Releasing || g.leaves != nil && g.leaves[r].cause != ""
		if !going && (i.State == state.Online || i.State == state.Acquiring) {
			return false // it goes on elsewhere
		}
		stopping = stopping || going
	}
	return stopping
}

// startedNow reports whether this plan already starts the group on the node.
func (m *model) startedNow(o *group, k int) bool {
	if o.status != free || o.target != k {
		return false
	}
	for i := range m.res.Decisions {
		if d := &m.res.Decisions[i]; d.Op == OpAcquire && d.Group == o.def.Name {
			return true
		}
	}
	return false
}

// giveUps ends the recovery chains that nobody can take.
func (m *model) giveUps() {
	for i := range m.groups {
		g := &m.groups[i]
		if g.def.Concurrent() || g.status != free || g.target >= 0 || len(g.st.Tried) == 0 || g.st.Phase != state.PhaseRecover ||
			g.st.Offline || g.st.Suspended || g.blocked || m.unitMoves(g) || len(m.units[g.unit].groups) > 1 && m.unitPlanned(g) {
			continue
		}
		last := g.st.Tried[len(g.st.Tried)-1]
		why, network := g.wait, false
		for _, k := range g.list {
			o, _ := m.obstacle([]int{i}, k, situation{leaving: -1})
			network = network || o.bar == barNetwork
		}
		if g.def.Fallover == cluster.FalloverBringOffline {
			network = false
		}
		if g.st.Freed != "" && g.st.Freed != why {
			why = g.st.Freed + "; " + why
		}
		m.res.Decisions = append(m.res.Decisions, Decision{Op: OpGiveUp, Group: g.def.Name, Node: last, Generation: m.v.Based(g.def.Name, last),
			ForNetwork: network, Reason: why})
	}
}

// unitMoves reports whether another member of the group's set is on its way: the group will follow it.
func (m *model) unitMoves(g *group) bool {
	for _, i := range m.units[g.unit].groups {
		if o := &m.groups[i]; o != g && (o.status == releasing || o.status == acquiring || o.leave.cause != "" && o.status == online) {
			return true
		}
	}
	return false
}

// unitPlanned reports whether another member of the set is about to start: the group may follow it.
func (m *model) unitPlanned(g *group) bool {
	for _, i := range m.units[g.unit].groups {
		if o := &m.groups[i]; o != g && o.status == free && o.target >= 0 {
			return true
		}
	}
	return false
}

// resets decides that an emptied node gives up its lease.
func (m *model) resets() {
	for k := range m.nodes {
		n := &m.nodes[k]
		if !n.evac || n.st.Resetting != "" {
			continue
		}
		stuckGroup := ""
		busy := false
		for i := range m.groups {
			g := &m.groups[i]
			if g.holder == k && !g.st.Suspended && (g.status == online || g.status == acquiring || g.status == releasing) {
				busy = true
			}
			if g.holder == k && g.status == stuck && stuckGroup == "" {
				stuckGroup = g.def.Name
			}
			for r, inst := range g.insts {
				if g.list[r] != k || inst == nil || !inst.Held || g.st.Suspended {
					continue
				}
				busy = busy || inst.State == state.Online || inst.State == state.Acquiring || inst.State == state.Releasing
				if inst.State == state.Error && stuckGroup == "" {
					stuckGroup = g.def.Name
				}
			}
		}
		if !busy {
			m.res.Decisions = append(m.res.Decisions, Decision{Op: OpReset, Node: n.name, Incarnation: n.st.Incarnation,
				Reason: "group " + stuckGroup + " could not be released there, and its on_release_failure is reset"})
		}
	}
}

// timersFire commits that a fallback timer has fired, once all that it causes has begun.
func (m *model) timersFire() {
	for i := range m.def.FallbackTimers {
		name := m.def.FallbackTimers[i].Name
		if !m.dueNow[name] {
			continue
		}
		pending := false
		for j := range m.groups {
			pending = pending || m.groups[j].leave.timer == name && m.groups[j].leave.cause != ""
		}
		if !pending {
			m.res.Decisions = append(m.res.Decisions, Decision{Op: OpTimer, Timer: name, Due: m.v.Timers[name].Due,
				Reason: "the fallback timer " + name + " has fired"})
		}
	}
}
