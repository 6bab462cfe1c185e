package config

import (
	"errors"
	"testing"
	"time"
)

const scenario = `name: home node comes back
cluster:
  name: demo
  nodes: [node1, node2, {name: node3, capacity: 4}]
  networks: [net1, {name: net2, prefix: 24}]
  resource_groups:
    - name: app_rg
      nodes: [node1, node2]
      startup: OHN
      fallover: FNPN
      fallback: NFB
      network: net1
    - {name: dnp_rg, nodes: [node3, node1], fallover: FUDNP, node_priority_policy: least, fallback_at: weekend}
  dependencies:
    - {parent: dnp_rg, child: app_rg}
  fallback_timers:
    - {name: weekend, repeats: weekly, day_of_week: 0, hour: 2, minute: 0}
  settings:
    settling_time: 1d
start: 2026-02-01T10:00:00+01:00
steps:
  - do: online cluster
    expect:
      app_rg: {node1: ONLINE, node2: OFFLINE}
  - do: move app_rg node2
    refused: true
  - do: crash node1
    expect:
      app_rg: {node2: ONLINE, node1: OFFLINE DUE TO LACK OF NODE}
  - {do: wait 10m}
`

func TestDecodeScenario(t *testing.T) {
	s, err := DecodeScenario("f", []byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "home node comes back" || len(s.Cluster.Nodes) != 3 || len(s.Steps) != 4 || !s.Start.Equal(time.Date(2026, 2, 1, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", s)
	}
	if g := s.Cluster.Group("dnp_rg"); g.Startup != "OHN" || g.Fallback != "FBHPN" || g.OnReleaseFailure != "error" {
		t.Errorf("no defaults: %+v", g)
	}
	if s.Steps[0].Expect["app_rg"]["node2"] != "OFFLINE" || !s.Steps[1].Refused || s.Steps[3].Do != "wait 10m" {
		t.Errorf("got %+v", s.Steps)
	}
	if f := s.Fault("steps[2].do", "no node %s", "x"); f.Error() != "f:27:9: steps[2].do: no node x" {
		t.Error(f)
	}
}

func TestSmallScenario(t *testing.T) {
	s, err := DecodeScenario("f", []byte("\xef\xbb\xbfcluster: {nodes: [a], resource_groups: [{name: g, nodes: [a]}]}\nsteps: [{do: online cluster}]\n"))
	if err != nil || !s.Start.Equal(ScenarioStart) || s.Start.Weekday() != time.Monday {
		t.Fatalf("%+v %v", s, err)
	}
}

func TestFaultsOfAScenario(t *testing.T) {
	base := "cluster:\n  name: c\n  nodes: [n1, n2]\n  resource_groups:\n    - {name: g, nodes: [n1]}\n"
	for text, want := range map[string]string{
		base + "stpes: []\n": `f:6:1: stpes: ...did you mean "steps"`,
		base + "steps:\n  - do: online cluster\n    expct: {}\n":            `f:8:5: steps[0].expct: ...did you mean "expect"`,
		base + "steps:\n  - expect: {g: {n1: ONLINE}}\n":                    "f:7:5: steps[0]: a step needs do:",
		base + "steps:\n  - online cluster\n":                               "f:7:5: steps[0]: this is \"online cluster\": a mapping",
		base + "steps:\n  - {do: x, expect: {h: {n1: ONLINE}}}\n":           "f:7:...steps[0].expect.h: no resource_group \"h\"",
		base + "steps:\n  - {do: x, expect: {g: {n2: ONLINE}}}\n":           "f:7:...steps[0].expect.g.n2: node \"n2\" is not one of the group's",
		base + "steps:\n  - {do: x, expect: {g: {n1: ONLNE}}}\n":            "f:7:...steps[0].expect.g.n1: no state \"ONLNE\" (did you mean \"ONLINE\"?)",
		base + "steps:\n  - {do: x, expect: {g: ONLINE}}\n":                 "f:7:...steps[0].expect.g: this is \"ONLINE\": a mapping",
		base + "start: 2026-02-30T00:00:00Z\n":                              "f:6:8: start: \"2026-02-30T00:00:00Z\" is not a moment that exists",
		base + "start: tomorrow\n":                                          "f:6:8: start: ",
		"steps: []\n":                                                       "f:1:1: cluster: a scenario needs a cluster",
		"cluster: {nodes: [a], resource_groups: [{name: g, nodes: [b]}]}\n": "f:1:...cluster.resource_groups[0].nodes[0]: no node \"b\"",
		"cluster: {nodes: [a], nods: []}\n":                                 `f:1:23: cluster.nods: ...did you mean "nodes"`,
		"":                                                                  "f:1:1: the file is empty",
	} {
		s, err := DecodeScenario("f", []byte(text))
		var faults Faults
		if s != nil || !errors.As(err, &faults) || len(faults) != 1 || !found(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
