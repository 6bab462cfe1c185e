package scheduler

import (
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// An Admission is the answer to an operator's request before it is proposed.
type Admission struct {
	// Refused is one sentence with subject and cause; empty if the request may be proposed.
	Refused string
	// Already: it is so already. The request succeeds and nothing is to be done.
	Already bool
}

func refused(parts ...string) Admission {
	s := ""
	for _, p := range parts {
		s += p
	}
	return Admission{Refused: s}
}

// Admit says whether an operator's request makes sense in the state. Requests of other kinds are admitted: Apply judges them.
func Admit(v *state.State, c *state.Command, now time.Time) Admission {
	if v == nil || v.Definition == nil {
		return refused("there is no cluster yet")
	}
	m := newModel(v, now)
	m.mustLeave()
	m.occupy()
	switch {
	case c.MoveGroup != nil:
		return m.admitMove(c.MoveGroup.Group, c.MoveGroup.Node, true)
	case c.OnlineGroup != nil:
		if c.OnlineGroup.Node != "" {
			return m.admitMove(c.OnlineGroup.Group, c.OnlineGroup.Node, false)
		}
		return m.admitOnline(c.OnlineGroup.Group)
	case c.OfflineGroup != nil:
		return m.admitOffline(c.OfflineGroup.Group, c.OfflineGroup.Node)
	case c.UnsetPriority != nil:
		return m.admitTouch(c.UnsetPriority.Group, func(g *group) Admission { return Admission{Already: g.st.Override == nil} })
	case c.SuspendGroup != nil:
		return m.admitSuspend(c.SuspendGroup.Group)
	case c.ResumeGroup != nil:
		return m.admitKnown(c.ResumeGroup.Group, func(g *group) Admission { return Admission{Already: !g.st.Suspended} })
	case c.ClearGroup != nil:
		return m.admitKnown(c.ClearGroup.Group, func(*group) Admission { return Admission{} })
	case c.UnmanageGroup != nil:
		return m.admitTouch(c.UnmanageGroup.Group, func(g *group) Admission { return Admission{Already: !m.isActive(g)} })
	case c.ManageGroup != nil:
		return m.admitKnown(c.ManageGroup.Group, func(*group) Admission { return Admission{} })
	case c.NodeServices != nil:
		return m.admitServices(c.NodeServices)
	}
	return Admission{}
}

// admitKnown asks only that the group exists.
func (m *model) admitKnown(name string, f func(*group) Admission) Admission {
	i, ok := m.grpIdx[name]
	if !ok {
		return refused("there is no group ", name, " in the definition")
	}
	return f(&m.groups[i])
}

// admitTouch asks that the cluster may touch the group.
func (m *model) admitTouch(name string, f func(*group) Admission) Admission {
	return m.admitKnown(name, func(g *group) Admission {
		if g.st.Suspended {
			return refused("group ", name, " is suspended: resume it first")
		}
		for _, d := range g.def.Nodes {
			if inst := g.st.Instances[d]; inst != nil && inst.State == state.Unmanaged && inst.Held {
				return refused("group ", name, " is UNMANAGED on node ", d, ": start cluster services there, or take it back, first")
			}
		}
		return f(g)
	})
}

func (m *model) admitSuspend(name string) Admission {
	return m.admitKnown(name, func(g *group) Admission {
		if g.st.Suspended {
			return Admission{Already: true}
		}
		return m.admitTouch(name, func(*group) Admission { return Admission{} })
	})
}

// admitMove is for `move RG NODE` and `online RG NODE`.
func (m *model) admitMove(name, to string, move bool) Admission {
	return m.admitTouch(name, func(g *group) Admission {
		k, ok := m.nodeIdx[to]
		switch {
		case !ok:
			return refused("there is no node ", to, " in the definition")
		case !inList(g, k):
			return refused("group ", name, " cannot run on node ", to, ": the node is not in its list")
		case g.def.Concurrent() && move:
			return refused("group ", name, " runs on all available nodes: it cannot be moved")
		case m.nodes[k].bar != barNone:
			return refused("group ", name, " cannot run on node ", to, ": ", m.sentence(g, &m.nodes[k], obstacle{bar: m.nodes[k].bar}))
		case g.def.Concurrent():
			return m.admitOnlineThere(g, k)
		case g.status == unknown:
			return refused("group ", name, " cannot move: node ", m.nodes[g.holder].name, ", which may hold it, is silent or its earlier boot is not proven gone")
		}
		if g.holder == k && (g.status == online || g.status == acquiring) {
			return Admission{Already: g.st.Override != nil && g.st.Override.Node == to}
		}
		if a := m.admitDependencies(g, move); a.Refused != "" {
			return a
		}
		return m.admitPlace(g, k)
	})
}

// admitPlace asks whether the node can take the group, with its same-node set, if the operator wants it.
func (m *model) admitPlace(g *group, k int) Admission {
	members := []int{g.index}
	runs := g.status == online || g.status == acquiring
	var waiting []int // free members that would have to start together with it
	for _, i := range m.units[g.unit].groups {
		o := &m.groups[i]
		if o != g && o.status >= stuck && o.holder != k {
			return refused("group ", g.def.Name, " cannot run on node ", m.nodes[k].name, ": ", o.def.Name, " of its same-node set is ",
				string(m.v.Shown(o.def.Name, m.nodes[o.holder].name).State), " on ", m.nodes[o.holder].name)
		}
		if o != g && o.status == free && m.wants(o) {
			waiting = append(waiting, i)
		}
		if o != g && (o.status == online || o.status == acquiring) {
			runs = true
			members = append(members, i)
			if o.st.Suspended {
				return refused("group ", g.def.Name, " cannot move: ", o.def.Name, " of its same-node set is suspended")
			}
		}
	}
	if !runs {
		members = append(members, waiting...)
	}
	booked := func(o *group) bool {
		return o.holder >= 0 && o.inst.Held && o.leave.cause == "" && o.status != releasing
	}
	for _, i := range members {
		if o := &m.groups[i]; booked(o) {
			m.unbook(o, o.holder)
		}
	}
	kept := make([]*state.Group, len(members))
	for x, i := range members {
		st := *m.groups[i].st
		st.Tried = nil // the request begins a new chain
		kept[x], m.groups[i].st = m.groups[i].st, &st
	}
	o, of := m.obstacle(members, k, situation{leaving: -1, displace: true})
	for x, i := range members {
		g := &m.groups[i]
		if g.st = kept[x]; booked(g) {
			m.book(g, g.holder)
		}
	}
	if o.bar != barNone {
		return refused("group ", g.def.Name, " cannot run on node ", m.nodes[k].name, ": ", m.sentence(of, &m.nodes[k], o))
	}
	return Admission{}
}

// admitDependencies refuses what would break an order: a child without its parent, a source without its target, a move of
// what others stand on.
func (m *model) admitDependencies(g *group, move bool) Admission {
	name := g.def.Name
	for _, p := range g.parents {
		if up := &m.groups[p]; !m.isOnline(up) {
			return refused("group ", name, " cannot be online: its parent ", up.def.Name, " is not online")
		}
	}
	for _, t := range g.targets {
		if up := &m.groups[t]; !m.isOnline(up) {
			return refused("group ", name, " cannot be online: ", up.def.Name, ", after which it starts, is not online")
		}
	}
	if move || m.isActive(g) {
		return m.admitStop(g, "moved")
	}
	return Admission{}
}

// admitStop refuses to stop what others stand on.
func (m *model) admitStop(g *group, verb string) Admission {
	name := g.def.Name
	for _, c := range g.children {
		if ch := &m.groups[c]; m.isOnline(ch) || m.isActive(ch) {
			return refused("group ", name, " cannot be ", verb, ": its child ", ch.def.Name, " is online")
		}
	}
	for _, t := range g.stopTargets {
		if o := &m.groups[t]; m.isOnline(o) || m.isActive(o) {
			return refused("group ", name, " cannot be ", verb, ": ", o.def.Name, ", which must stop before it, still runs")
		}
	}
	return Admission{}
}

func (m *model) admitOnlineThere(g *group, k int) Admission {
	for r, at := range g.list {
		inst := g.insts[r]
		switch held := inst != nil && inst.Held; {
		case at != k:
		case held && inst.State == state.Online:
			return Admission{Already: true}
		case !held:
			if why := m.concurrentLack(g, &m.nodes[k]); why != "" {
				return refused("group ", g.def.Name, " cannot run on node ", m.nodes[k].name, ": ", why)
			}
		}
	}
	return m.admitDependencies(g, false)
}

func (m *model) admitOnline(name string) Admission {
	return m.admitTouch(name, func(g *group) Admission {
		switch {
		case g.def.Concurrent():
			why := make([]string, 0, len(g.list))
			held := false
			for r, k := range g.list {
				inst := g.insts[r]
				n := &m.nodes[k]
				lacks := m.concurrentLack(g, n)
				here := inst != nil && inst.Held
				if n.manual && lacks == "" {
					lacks = m.sentence(g, n, obstacle{bar: barManual})
				}
				if n.bar == barNone && (lacks == "" && !here || here && inst.State == state.Error) { // or its release is tried again
					return m.admitDependencies(g, false)
				}
				held = held || here && n.bar == barNone
				if n.bar != barNone {
					lacks = m.sentence(g, n, obstacle{bar: n.bar})
				}
				why = append(why, lacks)
			}
			if !held {
				return refused("group ", name, " cannot be brought online: ", strings.Join(why, "; "))
			}
			return Admission{Already: true}
		case g.status == online || g.status == acquiring:
			return Admission{Already: !g.st.Offline}
		case g.status == unknown:
			return refused("group ", name, " cannot be brought online: node ", m.nodes[g.holder].name, ", which may hold it, is silent or its earlier boot is not proven gone")
		}
		if a := m.admitDependencies(g, false); a.Refused != "" {
			return a
		}
		return m.admitSomewhere(g)
	})
}

// admitSomewhere asks that some node of the list can take a group that is brought online.
func (m *model) admitSomewhere(g *group) Admission {
	if g.status == stuck {
		return Admission{} // its release is tried again first
	}
	for _, k := range g.list {
		if m.admitPlace(g, k).Refused == "" {
			return Admission{}
		}
	}
	var why []string
	prefix := "group " + g.def.Name + " cannot run on node "
	for _, k := range g.list {
		_, sentence, _ := strings.Cut(strings.TrimPrefix(m.admitPlace(g, k).Refused, prefix), ": ")
		why = append(why, sentence)
	}
	return refused("group ", g.def.Name, " cannot be brought online: ", strings.Join(why, "; "))
}

func (m *model) admitOffline(name, node string) Admission {
	return m.admitTouch(name, func(g *group) Admission {
		if node != "" {
			k, ok := m.nodeIdx[node]
			switch {
			case !ok:
				return refused("there is no node ", node, " in the definition")
			case !inList(g, k):
				return refused("group ", name, " cannot be offline on node ", node, ": the node is not in its list")
			case !g.def.Concurrent() && g.holder != k:
				return Admission{Already: g.st.Instances[node] == nil || g.st.Instances[node].State == state.Offline}
			}
		}
		if g.status == unknown {
			return refused("group ", name, " cannot be brought offline: node ", m.nodes[g.holder].name, " is silent, or its earlier boot is not proven gone")
		}
		if g.st.Offline && !m.isActive(g) && g.status != stuck {
			return Admission{Already: true}
		}
		if g.def.Concurrent() && node != "" && m.servesElsewhere(g, node) {
			return Admission{}
		}
		return m.admitStop(g, "brought offline")
	})
}

func (m *model) servesElsewhere(g *group, node string) bool {
	for r, inst := range g.insts {
		if k := g.list[r]; m.nodes[k].name != node && inst != nil && inst.State == state.Online && m.nodes[k].st.Alive() {
			return true
		}
	}
	return false
}

func (m *model) admitServices(c *state.NodeServices) Admission {
	nodes := c.Nodes
	if len(nodes) == 0 {
		nodes = m.v.NodeNames()
	}
	already := true
	for _, name := range nodes {
		k, ok := m.nodeIdx[name]
		if !ok {
			return refused("there is no node ", name, " in the definition")
		}
		st := m.nodes[k].st
		on := st.Services == state.ServicesOn || st.Services == state.ServicesManual
		off := st.Services == state.ServicesOff || st.Services == "" || st.Dead != nil
		same := c.Start != "" && on && st.Dead == nil || c.Stop != "" && off
		already = already && same
	}
	return Admission{Already: already}
}
