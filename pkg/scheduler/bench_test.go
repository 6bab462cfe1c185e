package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

var start = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// bigCluster has groups of three resources each, with dependencies of every kind.
func bigCluster(nodes, groups int) *cluster.Definition {
	d := &cluster.Definition{Name: "big", Networks: []cluster.Network{{Name: "net1"}, {Name: "net2"}}}
	for i := range nodes {
		d.Nodes = append(d.Nodes, cluster.Node{Name: fmt.Sprintf("node%02d", i), Capacity: 1000})
	}
	for i := range groups {
		name := fmt.Sprintf("rg%04d", i)
		d.ServiceIPs = append(d.ServiceIPs, cluster.ServiceIP{Name: name + "_ip", Address: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), Network: fmt.Sprintf("net%d", i%2+1)})
		g := cluster.ResourceGroup{Name: name, Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverToNextPriority,
			Fallback: cluster.FallbackToHigherPriority, ServiceIPs: []string{name + "_ip"}, FileSystems: []string{name + "_fs"},
			Applications: []string{name + "_app"}, Priority: i % 7, Weight: 1}
		for k := 0; k < min(nodes, 8); k++ {
			g.Nodes = append(g.Nodes, d.Nodes[(i+k*3)%nodes].Name)
		}
		d.ResourceGroups = append(d.ResourceGroups, g)
	}
	name := func(i int) string { return d.ResourceGroups[i].Name }
	for i := 0; i+7 < groups; i += 8 {
		d.Dependencies = append(d.Dependencies,
			cluster.Dependency{Parent: name(i), Child: name(i + 1)},
			cluster.Dependency{Start: name(i + 2), After: name(i)},
			cluster.Dependency{Stop: name(i), After: name(i + 3)},
			cluster.Dependency{DifferentNodes: &cluster.DifferentNodes{High: []string{name(i + 4)}, Low: []string{name(i + 5)}}})
		d.ResourceGroups[i+7].Nodes = d.ResourceGroups[i+6].Nodes
		d.Dependencies = append(d.Dependencies, cluster.Dependency{SameNode: []string{name(i + 6), name(i + 7)}})
	}
	return d
}

// bigState has all nodes up; settled, all groups are online too.
func bigState(tb testing.TB, nodes, groups int, settled bool) *state.State {
	d := bigCluster(nodes, groups)
	s, index := state.New(), uint64(0)
	apply := func(c state.Command) {
		index++
		c.At = start
		var r state.Result
		s, r = state.Apply(s, state.Entry{Index: index, Term: 1, Command: &c})
		if r.Refused != "" {
			tb.Fatalf("%s: %s", c.Kind(), r.Refused)
		}
	}
	apply(state.Command{Create: &state.Create{ClusterID: "id", Definition: d}})
	for _, n := range d.Nodes {
		apply(state.Command{NodeBoot: &state.NodeBoot{Node: n.Name, BootID: n.Name, AllStopped: true}})
		apply(state.Command{Armed: &state.Armed{Arming: "a", Fact: lease.Armed{Node: n.Name, Incarnation: 1, Class: lease.Independent, Mode: lease.ModeReset,
			Watchdog: time.Second, MaxAge: time.Second}}})
	}
	apply(state.Command{NodeServices: &state.NodeServices{Start: state.StartAuto}})
	for settled {
		p := Plan(s, start)
		if len(p.Decisions) == 0 {
			break
		}
		for _, x := range p.Decisions {
			apply(x.Command())
			i := s.Instance(x.Group, x.Node)
			apply(state.Command{Report: &state.Report{Node: x.Node, Incarnation: 1, Group: x.Group, Generation: i.Generation, Outcome: state.OutcomeOnline}})
		}
	}
	return s
}

func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct {
		nodes, groups int
		settled       bool
	}{{32, 256, false}, {32, 256, true}, {64, 1000, false}, {64, 1000, true}} {
		name := fmt.Sprintf("%dx%d/all_to_place", c.nodes, c.groups)
		if c.settled {
			name = fmt.Sprintf("%dx%d/settled", c.nodes, c.groups)
		}
		b.Run(name, func(b *testing.B) {
			s := bigState(b, c.nodes, c.groups, c.settled)
			b.ReportAllocs()
			for b.Loop() {
				Plan(s, start)
			}
			b.ReportMetric(float64(len(Plan(s, start).Decisions)), "decisions")
		})
	}
}
