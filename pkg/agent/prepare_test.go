package agent

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A node gets ready for a group that is on its way here, and for one whose holder is silent; for nothing else.
func TestOccasionsToPrepare(t *testing.T) {
	view := func(change func(*state.State)) *state.State {
		s := &state.State{
			Definition: &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "g", Nodes: []string{"a", "b"}}}},
			Nodes:      map[string]*state.Node{"a": {Incarnation: 3}, "b": {Incarnation: 4}},
			Groups: map[string]*state.Group{"g": {Name: "g", Generation: 7, Instances: map[string]*state.Instance{
				"a": {State: state.Online, Held: true, Incarnation: 3, Generation: 7}}}},
		}
		change(s)
		return s
	}
	for what, c := range map[string]struct {
		node   string
		change func(*state.State)
		want   occasion
	}{
		"all is well":       {"b", func(*state.State) {}, occasion{}},
		"the holder silent": {"b", func(s *state.State) { s.Nodes["a"].Lost = &state.Loss{} }, occasion{node: "a", incarnation: 3}},
		"the holder itself": {"a", func(s *state.State) { s.Nodes["a"].Lost = &state.Loss{} }, occasion{}},
		"not in its list":   {"c", func(s *state.State) { s.Nodes["a"].Lost = &state.Loss{} }, occasion{}},
		"silent, and it was another life": {"b", func(s *state.State) { s.Nodes["a"].Lost, s.Nodes["a"].Incarnation = &state.Loss{}, 5 },
			occasion{}},
		"acquired here": {"b", func(s *state.State) {
			s.Groups["g"].Instances = map[string]*state.Instance{"b": {State: state.Acquiring, Held: true, Incarnation: 4, Generation: 8}}
		}, occasion{generation: 8}},
		"online here": {"b", func(s *state.State) {
			s.Groups["g"].Instances = map[string]*state.Instance{"b": {State: state.Online, Held: true, Incarnation: 4, Generation: 8}}
		}, occasion{}},
	} {
		m := &member{name: c.node}
		if got := m.occasionOf(view(c.change), "g"); got != c.want {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}
