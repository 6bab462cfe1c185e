package state

import (
	"sort"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Node finds a node; nil if the definition does not have it.
func (s *State) Node(name string) *Node { return s.Nodes[name] }

// Group finds a group; nil if the definition does not have it.
func (s *State) Group(name string) *Group { return s.Groups[name] }

// Instance finds a group on a node. It is never nil for the caller's comfort: what was never touched is OFFLINE.
func (s *State) Instance(group, node string) Instance {
	if g := s.Groups[group]; g != nil {
		if i := g.Instances[node]; i != nil {
			return *i
		}
	}
	return Instance{State: Offline}
}

// Current reports whether incarnation is the node's newest and lives, or is only silent: whether the log still listens to it.
func (s *State) Current(node string, incarnation uint64) bool {
	n := s.Nodes[node]
	return n != nil && incarnation > 0 && n.Incarnation == incarnation && n.Dead == nil
}

// Holds is the list for a grant: all that the incarnation may hold, sorted by group. Instances being released, and those
// whose release has failed, may only be stopped. UNMANAGED ones are outside the lease and not listed.
func (s *State) Holds(node string, incarnation uint64) []lease.Held {
	if !s.Current(node, incarnation) {
		return nil
	}
	var out []lease.Held
	for name, g := range s.Groups {
		i := g.Instances[node]
		if i == nil || !i.Held || i.Incarnation != incarnation || i.State == Unmanaged {
			continue
		}
		only := i.State == Releasing || i.State == Error || i.State == Unknown
		out = append(out, lease.Held{Group: name, Generation: i.Generation, Releasing: only})
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Group < out[b].Group })
	return out
}

// Holder is the node that holds an exclusive group, with its instance; "" and nil when it is free.
func (g *Group) Holder() (string, *Instance) {
	found := ""
	for node, i := range g.Instances {
		if i.Held && (found == "" || node < found) {
			found = node
		}
	}
	if found == "" {
		return "", nil
	}
	return found, g.Instances[found]
}

// Based is what an Acquire of the group on the node must name as its base: the group's generation, and for a concurrent
// group the instance's.
func (s *State) Based(group, node string) uint64 {
	g := s.Groups[group]
	if g == nil {
		return 0
	}
	if d := s.definition(group); d != nil && d.Concurrent() {
		return s.Instance(group, node).Generation
	}
	return g.Generation
}

// Shown is an instance as status shows it: UNKNOWN where it is held on a silent or superseded incarnation.
type Shown struct {
	State    InstanceState `json:"state"`
	DueTo    DueTo         `json:"due_to,omitempty"`
	Sentence string        `json:"sentence,omitempty"`
	Failed   bool          `json:"failed,omitempty"`
}

// Shown says how the group stands on the node.
func (s *State) Shown(group, node string) Shown {
	i := s.Instance(group, node)
	out := Shown{State: i.State, DueTo: i.DueTo, Sentence: i.Sentence, Failed: i.Failed}
	n := s.Nodes[node]
	if n == nil || !i.Held {
		return out
	}
	switch {
	case n.Lost != nil && n.Dead == nil:
		out.State, out.Sentence = Unknown, "node "+node+" is silent: "+n.Lost.Sentence
	case i.Incarnation != n.Incarnation && i.State != Unmanaged:
		out.State, out.Sentence = Unknown, "held by an earlier boot of node "+node+" whose end is not proven"
	}
	return out
}

// NodeNames lists the members in the definition's order.
func (s *State) NodeNames() []string {
	if s.Definition == nil {
		return nil
	}
	out := make([]string, 0, len(s.Definition.Nodes))
	for i := range s.Definition.Nodes {
		out = append(out, s.Definition.Nodes[i].Name)
	}
	return out
}

// GroupNames lists the groups in the definition's order.
func (s *State) GroupNames() []string {
	if s.Definition == nil {
		return nil
	}
	out := make([]string, 0, len(s.Definition.ResourceGroups))
	for i := range s.Definition.ResourceGroups {
		out = append(out, s.Definition.ResourceGroups[i].Name)
	}
	return out
}

func (s *State) definition(group string) *cluster.ResourceGroup {
	if s.Definition == nil {
		return nil
	}
	return s.Definition.Group(group)
}

// Applied reports whether a command of this id was applied, as far back as the log remembers.
func (s *State) Applied(id string) bool {
	_, ok := s.appliedBefore(id)
	return ok
}
