package scheduler

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A concurrent parent that is shown UNMANAGED on a node which has died since is nothing that a child could stand on.
func TestChildWaitsForAParentThatIsUnmanagedOnADeadNode(t *testing.T) {
	d := &cluster.Definition{Name: "demo", Nodes: []cluster.Node{{Name: "n1"}, {Name: "n2"}},
		ResourceGroups: []cluster.ResourceGroup{
			{Name: "parent", Nodes: []string{"n1"}, Startup: cluster.OnlineOnAllAvailable, Fallover: cluster.FalloverBringOffline, Fallback: cluster.NeverFallback},
			{Name: "child", Nodes: []string{"n2"}, Startup: cluster.OnlineOnHomeNode, Fallover: cluster.FalloverToNextPriority, Fallback: cluster.NeverFallback},
		},
		Dependencies: []cluster.Dependency{{Parent: "parent", Child: "child"}}}
	s, index := state.New(), uint64(0)
	do := func(c state.Command) {
		t.Helper()
		index++
		c.At = start
		var r state.Result
		if s, r = state.Apply(s, state.Entry{Index: index, Term: 1, Command: &c}); r.Refused != "" {
			t.Fatalf("%s was refused: %s", c.Kind(), r.Refused)
		}
	}
	do(state.Command{Create: &state.Create{ClusterID: "id", Definition: d}})
	do(state.Command{NodeBoot: &state.NodeBoot{Node: "n1", BootID: "a", AllStopped: true}})
	do(state.Command{NodeBoot: &state.NodeBoot{Node: "n2", BootID: "b", AllStopped: true}})
	do(state.Command{NodeServices: &state.NodeServices{Start: state.StartAuto}})
	do(state.Command{Acquire: &state.Acquire{Group: "parent", Node: "n1", Incarnation: 1, Based: s.Based("parent", "n1"), Reason: "test"}})
	do(state.Command{Report: &state.Report{Node: "n1", Incarnation: 1, Group: "parent", Generation: s.Instance("parent", "n1").Generation, Outcome: state.OutcomeOnline}})
	do(state.Command{UnmanageGroup: &state.UnmanageGroup{Group: "parent"}})
	if p := Plan(s, start); len(p.Decisions) != 1 || p.Decisions[0].Group != "child" {
		t.Fatalf("an unmanaged parent that runs carries its child: %+v", p.Decisions)
	}
	do(state.Command{NodeBoot: &state.NodeBoot{Node: "n1", BootID: "c", Replaces: 1, AllStopped: true}})
	for _, d := range Plan(s, start).Decisions {
		if d.Group == "child" {
			t.Fatalf("%s %s on %s: %s", d.Op, d.Group, d.Node, d.Reason)
		}
	}
}
