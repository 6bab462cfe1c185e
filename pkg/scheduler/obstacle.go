package scheduler

import (
	"slices"
	"strconv"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// bar is why a node cannot take a group. Kept as a number until somebody wants the sentence.
type bar int

const (
	barNone bar = iota
	barUnseen
	barDead
	barSilent
	barServices
	barQuarantined
	barResetting
	barList
	barManual
	barNetwork
	barTried
	barMarked
	barCapacity
	barExclusion
	barHome
	barSpread
	barHere
)

// nodeBar is why the node can take nothing at all.
func nodeBar(n *state.Node) bar {
	switch {
	case n.Incarnation == 0:
		return barUnseen
	case n.Dead != nil:
		return barDead
	case n.Lost != nil:
		return barSilent
	case !n.Up():
		return barServices
	case n.Quarantined != "":
		return barQuarantined
	case n.Resetting != "":
		return barResetting
	}
	return barNone
}

// obstacle is a bar with what its sentence needs.
type obstacle struct {
	bar   bar
	other string // a network, or a group
}

// sentence says why the group cannot go to the node.
func (m *model) sentence(g *group, n *node, o obstacle) string {
	switch o.bar {
	case barUnseen:
		return n.name + " has not been seen yet"
	case barDead:
		return n.name + " is dead: proof " + string(n.st.Dead.Kind)
	case barSilent:
		return n.name + " is silent, and its end is not proven"
	case barServices:
		return "cluster services of " + n.name + " are " + string(n.st.Services)
	case barQuarantined:
		return n.name + " is quarantined"
	case barResetting:
		return n.name + " is about to be reset"
	case barList:
		return n.name + " is not in the list of " + g.def.Name
	case barManual:
		return "cluster services of " + n.name + " were started manually, which acquires nothing"
	case barNetwork:
		return n.name + " has lost network " + o.other
	case barTried:
		return "it was tried in vain on " + n.name
	case barMarked:
		if k := g.st.Marks[n.name]; k != nil && k.Kind == state.MarkAcquisition {
			return "its acquisition has failed on " + n.name
		}
		return "its application has failed on " + n.name
	case barCapacity:
		return n.name + " has no room for its weight of " + strconv.Itoa(g.def.Weight) + " (capacity " + strconv.Itoa(n.def.Capacity) + ")"
	case barExclusion:
		return n.name + " has " + o.other + ", and both must not run on one node"
	case barHome:
		return n.name + " is not its home node, and startup is OHN"
	case barSpread:
		return n.name + " has a group with startup OUDP already"
	case barHere:
		return "it is on " + n.name
	}
	return n.name + " can take it"
}

// situation is what a placement is for: it decides which bars count.
type situation struct {
	startup  bool // automatic starts only
	fallback bool // marked nodes never; nobody is displaced
	request  bool // the operator wants it: marks count less
	displace bool // lower tiers may be displaced
	leaving  int  // a node that it must leave; -1
}

// obstacle says why the unit's wanted members cannot go to the node as things are planned. Marks are not looked at: see usable.
// The members are looked at one by one, so that the sentence can name the group.
func (m *model) obstacle(members []int, k int, s situation) (obstacle, *group) {
	n := &m.nodes[k]
	first := &m.groups[members[0]]
	switch {
	case n.bar != barNone:
		return obstacle{bar: n.bar}, first
	case k == s.leaving:
		return obstacle{bar: barHere}, first
	case n.manual && (s.startup || s.fallback):
		return obstacle{bar: barManual}, first
	}
	for _, i := range m.units[first.unit].groups { // the nodes of a set are those common to all lists
		if g := &m.groups[i]; !inList(g, k) {
			return obstacle{bar: barList}, g
		}
	}
	weight := 0
	for _, i := range members {
		g := &m.groups[i]
		for _, net := range g.nets {
			if n.st.NetworkDown(net) {
				return obstacle{bar: barNetwork, other: net}, g
			}
		}
		if contains(g.st.Tried, n.name) {
			return obstacle{bar: barTried}, g
		}
		weight += g.def.Weight
		if by := m.excludedBy(g, n, s.displace); by >= 0 {
			return obstacle{bar: barExclusion, other: m.groups[by].def.Name}, g
		}
		for _, mb := range g.member { // what it displaces makes room
			if o := n.inSet[mb.set]; o >= 0 && o != i && m.plannedOn(&m.groups[o], k) {
				weight -= m.groups[o].def.Weight
			}
		}
	}
	if n.def.Capacity > 0 && weight > 0 && n.load+weight > n.def.Capacity {
		return obstacle{bar: barCapacity}, first
	}
	if s.startup && first.def.Startup == cluster.OnlineUsingDistribution && n.spread > 0 {
		return obstacle{bar: barSpread}, first
	}
	return obstacle{}, nil
}

func inList(g *group, k int) bool {
	return slices.Contains(g.list, k)
}

// excludedBy finds a group on the node with which g must not share it; -1 for none. With displace, groups of a lower tier that
// may be moved are no hindrance.
func (m *model) excludedBy(g *group, n *node, displace bool) int {
	for _, mb := range g.member {
		o := n.inSet[mb.set]
		if o < 0 || &m.groups[o] == g {
			continue
		}
		if other := &m.groups[o]; other.status == free && g.status == free && m.standsOn(other, g) {
			continue // it is only planned, and waits for g: it must not keep g from starting
		}
		if displace && m.rankIn(&m.groups[o], mb.set, 0) < mb.tier && m.canEvict(&m.groups[o], g) {
			continue
		}
		return o
	}
	return -1
}

// canEvict reports whether low, with its same-node set, may be released for the sake of high: none of them is to be left alone,
// and high does not stand on any of them.
func (m *model) canEvict(low, high *group) bool {
	for _, i := range m.units[low.unit].groups {
		if o := &m.groups[i]; o.status != free && !m.movable(o) || m.standsOn(high, o) {
			return false
		}
	}
	return true
}

// standsOn reports whether g needs other online before it starts, directly or through others.
func (m *model) standsOn(g, other *group) bool {
	if len(g.parents)+len(g.targets) == 0 {
		return false
	}
	seen := map[int]bool{}
	var walk func(*group) bool
	walk = func(x *group) bool {
		for _, list := range [2][]int{x.parents, x.targets} {
			for _, i := range list {
				if &m.groups[i] == other {
					return true
				}
				if !seen[i] {
					seen[i] = true
					if walk(&m.groups[i]) {
						return true
					}
				}
			}
		}
		return false
	}
	return walk(g)
}

// ready reports whether everything that the group needs before it starts is online and stays so.
func (m *model) ready(g *group) bool {
	for _, list := range [2][]int{g.parents, g.targets} {
		for _, i := range list {
			if up := &m.groups[i]; !m.serves(up) {
				return false
			}
		}
	}
	return true
}

// rankIn is the tier that a group must be beaten by: its own, or that of a child that would go down with it.
func (m *model) rankIn(g *group, set, depth int) int {
	tier := m.tierIn(g, set)
	if depth > maxDepth {
		return tier
	}
	for _, c := range g.children {
		if ch := &m.groups[c]; ch.status != free || notWanted(ch) == "" {
			tier = max(tier, m.rankIn(ch, set, depth+1))
		}
	}
	return tier
}

// maxDepth bounds how far chains of parents are followed. Validation allows three levels.
const maxDepth = 8

func (m *model) tierIn(g *group, set int) int {
	for _, mb := range g.member {
		if mb.set == set {
			return mb.tier
		}
	}
	return -1
}

// movable reports whether the cluster may release the group where it is.
func (m *model) movable(g *group) bool {
	return !g.st.Suspended && (g.status == online || g.status == acquiring || g.status == free || g.status == releasing)
}
