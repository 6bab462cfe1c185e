package config

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Scenario is a cluster, and steps with what must hold after each.
type Scenario struct {
	Name    string              `json:"name"`
	Cluster *cluster.Definition `json:"cluster"`
	Start   time.Time           `json:"start"` // the virtual clock at the first step, UTC; default 2026-01-05T09:00:00Z
	Steps   []Step              `json:"steps"`

	report *report
}

// A Step is one thing that happens.
type Step struct {
	Do string `json:"do"`
	// Expect maps a group to the states of its nodes; what is not named is not checked.
	Expect  map[string]map[string]string `json:"expect"`
	Refused bool                         `json:"refused"` // the request must be refused
}

// ScenarioStart is the virtual clock of a scenario that names none: a Monday.
var ScenarioStart = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// states are the words with which an expected state begins, as clRGinfo shows them.
var states = []string{"ONLINE", "OFFLINE", "ACQUIRING", "RELEASING", "ERROR", "TEMP_ERROR", "UNMANAGED", "UNKNOWN"}

// DecodeScenario reads a scenario file; name is what the faults call it. The cluster has passed cluster.Validate and has its
// defaults; groups and nodes that steps expect something of exist. What the steps say is the simulation's to read, which
// reports faults of its own by Fault. An error is of type Faults.
func DecodeScenario(name string, data []byte) (*Scenario, error) {
	r := newReport(name)
	s := &Scenario{report: r}
	root, whole := read(r, data)
	if root == nil {
		return nil, r.err()
	}
	if root.kind == nullNode && whole {
		r.add(place{1, 1}, "", "the file is empty: a scenario has cluster: and steps:")
		return nil, r.err()
	}
	r.places[""] = place{1, 1}
	r.fill(root, reflect.ValueOf(s).Elem(), "")
	if whole && !r.spoiled[""] {
		s.check()
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	s.Cluster.Defaults()
	if s.Start.IsZero() {
		s.Start = ScenarioStart
	}
	return s, nil
}

func (s *Scenario) check() {
	r := s.report
	if s.Cluster == nil {
		if !r.spoiled["cluster"] {
			r.add(place{1, 1}, "cluster", "a scenario needs a cluster: with its nodes and resource_groups")
		}
		return
	}
	if s.Cluster.Name == "" && !r.spoiled["cluster.name"] {
		s.Cluster.Name = "scenario"
	}
	r.problems("cluster.", s.Cluster.Validate())
	for i := range s.Steps {
		s.checkStep(i)
	}
}

func (s *Scenario) checkStep(i int) {
	r, step, key := s.report, &s.Steps[i], fmt.Sprintf("steps[%d]", i)
	if strings.TrimSpace(step.Do) == "" && !r.spoiled[key] && !r.spoiled[key+".do"] {
		r.add(r.find(key), key, "a step needs do:, as do: crash node1")
	}
	for _, g := range sortedKeys(step.Expect) {
		at := join(key+".expect", g)
		group := s.Cluster.Group(g)
		if group == nil {
			if !r.spoiled["cluster.resource_groups"] {
				r.add(r.find(at), at, "no resource_group %q is defined%s", clip(g), cluster.DidYouMean(g, groupNames(s.Cluster)))
			}
			continue
		}
		for _, n := range sortedKeys(step.Expect[g]) {
			state := step.Expect[g][n]
			switch word, _, _ := strings.Cut(state, " "); {
			case !group.Has(n):
				r.add(r.find(join(at, n)), join(at, n), "node %q is not one of the group's: it has %s%s", clip(n), strings.Join(group.Nodes, ", "),
					cluster.DidYouMean(n, group.Nodes))
			case !contains(states, word) && state != "TEMP ERROR":
				r.add(r.find(join(at, n)), join(at, n), "no state %q%s: the states are %s, and OFFLINE DUE TO ...", clip(state),
					cluster.DidYouMean(state, states), strings.Join(states, ", "))
			}
		}
	}
}

// Fault makes a fault at a key of the file: steps[3].do.
func (s *Scenario) Fault(key, format string, args ...any) Fault {
	at := s.report.find(key)
	return Fault{File: s.report.file, Line: at.line, Column: at.column, Key: key, Text: fmt.Sprintf(format, args...)}
}

func groupNames(d *cluster.Definition) []string {
	var out []string
	for _, g := range d.ResourceGroups {
		out = append(out, g.Name)
	}
	return out
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
