package scheduler

import (
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// An Explanation says why a group is where it is, why not elsewhere, what would move it, and which timers run.
type Explanation struct {
	Group     string        `json:"group"`
	Sentences []string      `json:"sentences"`
	Nodes     []NodeVerdict `json:"nodes"` // in the group's order
}

// A NodeVerdict says whether a node could take the group now in a failover, and why (not).
type NodeVerdict struct {
	Node   string `json:"node"`
	Can    bool   `json:"can"`
	Reason string `json:"reason"`
}

// Explain answers for one group. A group that the definition does not have gets one sentence that says so.
func Explain(v *state.State, name string, now time.Time) Explanation {
	out := Explanation{Group: name}
	if v == nil || v.Definition == nil {
		out.Sentences = []string{"there is no cluster yet"}
		return out
	}
	m := newModel(v, now)
	i, ok := m.grpIdx[name]
	if !ok {
		out.Sentences = []string{"there is no group " + name + " in the definition"}
		return out
	}
	m.decide()
	g := &m.groups[i]
	say := func(s string) {
		if s != "" {
			out.Sentences = append(out.Sentences, s)
		}
	}
	for _, s := range m.standing(g) {
		say(s)
	}
	for _, d := range m.res.Decisions {
		if d.Group == name {
			say("next: " + string(d.Op) + " on " + d.Node + ": " + d.Reason)
		}
	}
	for _, n := range m.res.Notes {
		if n.Group == name && n.Node == "" {
			say(n.Sentence)
		}
	}
	for _, s := range m.conditions(g) {
		say(s)
	}
	for r := range g.list {
		out.Nodes = append(out.Nodes, m.verdict(g, r))
	}
	say(m.wouldMove(g))
	return out
}

// standing says where the group is, and since which decision.
func (m *model) standing(g *group) []string {
	var out []string
	for _, k := range g.list {
		n := m.nodes[k].name
		inst := g.st.Instances[n]
		if inst == nil || inst.State == state.Offline && !inst.Held {
			continue
		}
		shown := m.v.Shown(g.def.Name, n)
		s := g.def.Name + " is " + string(shown.State) + " on " + n
		if shown.Sentence != "" {
			s += ": " + shown.Sentence
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		out = append(out, g.def.Name+" is offline on all nodes")
	}
	return out
}

// conditions are what the operator, failures and timers have left behind.
func (m *model) conditions(g *group) []string {
	var out []string
	if o := g.st.Override; o != nil {
		s := "the operator has placed it on " + o.Node
		if o.By != "" {
			s += " (" + o.By + ")"
		}
		out = append(out, s+" at "+o.At.UTC().Format(time.RFC3339)+", until unset-priority, another move, or that node leaves")
	}
	if g.st.Suspended {
		out = append(out, "it is suspended: the cluster watches it and does not touch it")
	}
	for _, k := range g.list {
		n := m.nodes[k].name
		if mk := g.st.Marks[n]; mk != nil {
			what := "its application has failed on "
			if mk.Kind == state.MarkAcquisition {
				what = "it could not be acquired on "
			}
			s := what + n + " at " + mk.At.UTC().Format(time.RFC3339)
			if mk.Sentence != "" {
				s += " (" + mk.Sentence + ")"
			}
			out = append(out, s+": no fallback goes there until the node joins again, or the operator clears it")
		}
	}
	if until := g.st.SettleUntil; g.status == free && !until.IsZero() && m.now.Before(until) {
		out = append(out, "timer: the settling time runs until "+until.UTC().Format(time.RFC3339))
	}
	if t := m.v.Timers[g.def.FallbackAt]; t != nil && !t.Due.IsZero() {
		out = append(out, "timer: "+t.Name+" fires at "+t.Due.UTC().Format(time.RFC3339)+", and only then does it fall back")
	}
	return out
}

// verdict says whether the node at a place of the list could take the group in a failover now.
func (m *model) verdict(g *group, r int) NodeVerdict {
	k := g.list[r]
	n := &m.nodes[k]
	v := NodeVerdict{Node: n.name}
	if g.def.Concurrent() {
		v.Reason = m.concurrentBar(g, r)
		v.Can = v.Reason == ""
		if i := g.insts[r]; i != nil && i.Held {
			v.Can, v.Reason = i.State == state.Online, "it is "+string(i.State)+" here"
		}
		return v
	}
	if g.holder == k && g.status != free {
		v.Can = g.status == online
		v.Reason = "it is " + string(m.v.Shown(g.def.Name, n.name).State) + " here"
		return v
	}
	members := []int{g.index}
	o, of := m.obstacle(members, k, situation{leaving: -1, displace: true})
	if o.bar == barNone && m.marked(members, k, true) == marked {
		o, of = obstacle{bar: barMarked}, g
	}
	if o.bar != barNone {
		v.Reason = m.sentence(of, n, o)
		return v
	}
	v.Can, v.Reason = true, "it is up and has what the group needs"
	switch {
	case g.def.Fallover == cluster.FalloverBringOffline:
		v.Reason = "only if the operator moves it there: its failover policy is BO"
	case m.displacedTier(members, k) >= 0:
		v.Reason = "by displacing a group of a lower tier"
	case m.marked(members, k, true) != unmarked:
		v.Reason = "only if no other node can: its application failed there before"
	case n.manual:
		v.Reason = "in a failover; cluster services were started manually there, so it does not start or fall back there by itself"
	}
	return v
}

// wouldMove says what would take the group elsewhere.
func (m *model) wouldMove(g *group) string {
	if g.status != online || g.def.Concurrent() || g.st.Suspended {
		return ""
	}
	here := m.nodes[g.holder].name
	var out []string
	members := []int{g.index}
	m.unbook(g, g.holder)
	c := m.choose(members, intent{phase: state.PhaseRecover, fallover: g.def.Fallover, lead: g, displace: true}, g.holder)
	m.book(g, g.holder)
	if c.node >= 0 {
		out = append(out, "a failure of "+here+" would move it to "+m.nodes[c.node].name+" ("+c.why+")")
	} else {
		out = append(out, "a failure of "+here+" would leave it offline: "+c.why)
	}
	switch {
	case g.def.Fallback == cluster.NeverFallback:
		out = append(out, "it never falls back by itself (NFB)")
	case g.st.Override != nil:
		out = append(out, "it does not fall back while the operator's placement stands")
	case g.def.Rank(here) > 0:
		out = append(out, "it falls back when a node before "+here+" in its list can take it")
	}
	return strings.Join(out, "; ")
}
