package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// planWorld is a log for tests of the planner alone: what the scenarios cannot reach, because their nodes obey at once.
type planWorld struct {
	t     *testing.T
	s     *state.State
	index uint64
}

// newPlanWorld has three nodes with their services on.
func newPlanWorld(t *testing.T, d *cluster.Definition) *planWorld {
	t.Helper()
	w := &planWorld{t: t, s: state.New()}
	d.Name = "demo"
	if d.Nodes == nil {
		d.Nodes = []cluster.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		if g.Nodes == nil {
			g.Nodes = []string{"n1", "n2", "n3"}
		}
		if g.Startup == "" {
			g.Startup, g.Fallover, g.Fallback = cluster.OnlineOnFirstAvailable, cluster.FalloverToNextPriority, cluster.NeverFallback
		}
	}
	w.do(state.Command{Create: &state.Create{ClusterID: "id", Definition: d}})
	for _, n := range d.Nodes {
		w.do(state.Command{NodeBoot: &state.NodeBoot{Node: n.Name, BootID: n.Name + "-boot", AllStopped: true}})
	}
	w.do(state.Command{NodeServices: &state.NodeServices{Start: state.StartAuto}})
	return w
}

func concurrent(name string) cluster.ResourceGroup {
	return cluster.ResourceGroup{Name: name, Startup: cluster.OnlineOnAllAvailable, Fallover: cluster.FalloverBringOffline, Fallback: cluster.NeverFallback}
}

func (w *planWorld) do(c state.Command) {
	w.t.Helper()
	w.index++
	c.At = start
	var r state.Result
	if w.s, r = state.Apply(w.s, state.Entry{Index: w.index, Term: 1, Command: &c}); r.Refused != "" {
		w.t.Fatalf("%s was refused: %s", c.Kind(), r.Refused)
	}
}

// acquiring lets the node begin to acquire the group.
func (w *planWorld) acquiring(group, node string) {
	w.t.Helper()
	w.do(state.Command{Acquire: &state.Acquire{Group: group, Node: node, Incarnation: w.s.Nodes[node].Incarnation, Based: w.s.Based(group, node), Reason: "test"}})
}

func (w *planWorld) report(group, node string, o state.Outcome) {
	w.t.Helper()
	i := w.s.Instance(group, node)
	w.do(state.Command{Report: &state.Report{Node: node, Incarnation: i.Incarnation, Group: group, Generation: i.Generation, Outcome: o}})
}

func (w *planWorld) online(group, node string) {
	w.t.Helper()
	w.acquiring(group, node)
	w.report(group, node, state.OutcomeOnline)
}

func (w *planWorld) releasing(group, node string) {
	w.t.Helper()
	i := w.s.Instance(group, node)
	w.do(state.Command{Release: &state.Release{Node: node, Incarnation: i.Incarnation, Group: group, Generation: i.Generation, Cause: state.CauseMove, Reason: "test"}})
}

// want checks what the plan decides, as "op group node", in its order.
func (w *planWorld) want(want ...string) {
	w.t.Helper()
	var got []string
	for _, d := range Plan(w.s, start).Decisions {
		s := string(d.Op)
		if d.Group != "" {
			s += " " + d.Group
		}
		got = append(got, s+" "+d.Node)
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("the plan is %q, want %q", got, want)
	}
}

// What is being released is not released once more, on one node of a concurrent group either.
func TestOneReleaseForEachInstance(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{concurrent("c"), {Name: "a"}}})
	for _, n := range []string{"n1", "n2", "n3"} {
		w.online("c", n)
	}
	w.online("a", "n1")
	w.want()
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "c"}})
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "a"}})
	w.want("release c n1", "release c n2", "release c n3", "release a n1")
	w.releasing("c", "n1")
	w.releasing("a", "n1")
	w.want("release c n2", "release c n3")
	w.report("c", "n1", state.OutcomeReleased)
	w.want("release c n2", "release c n3")
	w.releasing("c", "n2")
	w.report("c", "n2", state.OutcomeReleaseFailed)
	w.want("release c n3")
	w.do(state.Command{UnmanageGroup: &state.UnmanageGroup{Group: "c"}})
	w.want()
}

// A node gives up its lease only when nothing on it can still be ordered: no instance of any kind of group that is being
// released, started, or that runs.
func TestResetWaitsForAllThatCanStillLeave(t *testing.T) {
	reset := concurrent("c")
	reset.OnReleaseFailure = cluster.OnReleaseFailureReset
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{reset, {Name: "a", Nodes: []string{"n1"}}, concurrent("d")}})
	for _, n := range []string{"n1", "n2", "n3"} {
		w.online("c", n)
		w.online("d", n)
	}
	w.online("a", "n1")
	w.want()
	w.releasing("c", "n1")
	w.report("c", "n1", state.OutcomeReleaseFailed)
	w.want("release a n1", "release d n1")
	w.releasing("d", "n1")
	w.want("release a n1")
	w.releasing("a", "n1")
	w.want()
	w.report("a", "n1", state.OutcomeReleased)
	w.want() // d is still being released
	w.report("d", "n1", state.OutcomeReleased)
	w.want("reset n1")
	p := Plan(w.s, start)
	if d := p.Decisions[0]; d.Incarnation != w.s.Nodes["n1"].Incarnation || d.Reason != "group c could not be released there, and its on_release_failure is reset" {
		t.Fatalf("%+v", d)
	}
	w.do(p.Decisions[0].Command())
	w.want() // it is said once
}

// A node on which a group is being acquired is not empty either, and a group that failed elsewhere is nothing to it.
func TestResetWaitsForAnAcquisition(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n1"}}, concurrent("d"),
		{Name: "r", Nodes: []string{"n1"}, Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverToNextPriority, Fallback: cluster.NeverFallback,
			OnReleaseFailure: cluster.OnReleaseFailureReset}}})
	w.online("d", "n2")
	w.online("d", "n3")
	w.acquiring("d", "n1")
	w.acquiring("a", "n1")
	w.online("r", "n1")
	w.releasing("r", "n1")
	w.report("r", "n1", state.OutcomeReleaseFailed)
	w.want("release a n1", "release d n1")
	w.releasing("a", "n1")
	w.report("a", "n1", state.OutcomeReleased)
	w.want("release d n1")
	w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "d"}})
	w.want("reset n1") // what the cluster must not touch does not keep it
}

// A node where nobody is displaced comes before one where a group of a lower tier would be, wherever the definition has that group.
func TestNobodyIsDisplacedWhereThereIsAnotherNode(t *testing.T) {
	for _, names := range [][]string{{"low", "high"}, {"high", "low"}, {"x", "low", "high"}} {
		d := &cluster.Definition{Dependencies: []cluster.Dependency{{DifferentNodes: &cluster.DifferentNodes{High: []string{"high"}, Low: []string{"low"}}}}}
		for _, n := range names {
			d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: n})
		}
		w := newPlanWorld(t, d)
		if names[0] == "x" {
			w.online("x", "n1")
		}
		w.online("low", "n1")
		w.want("acquire high n2")
	}
}

// Of several nodes where somebody would be displaced the one with the lowest tier is taken.
func TestTheLowestTierIsDisplaced(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{Nodes: []cluster.Node{{Name: "n1"}, {Name: "n2"}},
		ResourceGroups: []cluster.ResourceGroup{{Name: "mid", Nodes: []string{"n1", "n2"}}, {Name: "low", Nodes: []string{"n1", "n2"}}, {Name: "high", Nodes: []string{"n1", "n2"}}},
		Dependencies:   []cluster.Dependency{{DifferentNodes: &cluster.DifferentNodes{High: []string{"high"}, Intermediate: []string{"mid"}, Low: []string{"low"}}}}})
	w.online("mid", "n1")
	w.online("low", "n2")
	w.want("release low n2")
}

// A group whose release has failed is not displaced: no higher group is placed where it would wait for it.
func TestWhatCannotBeOrderedIsNotDisplaced(t *testing.T) {
	def := func() *cluster.Definition {
		return &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "high", Nodes: []string{"n1"}}, {Name: "low"}},
			Dependencies: []cluster.Dependency{{DifferentNodes: &cluster.DifferentNodes{High: []string{"high"}, Low: []string{"low"}}}}}
	}
	stand := map[string]func(*planWorld){
		"stuck": func(w *planWorld) {
			w.online("low", "n1")
			w.releasing("low", "n1")
			w.report("low", "n1", state.OutcomeReleaseFailed)
		},
		"unmanaged": func(w *planWorld) {
			w.online("low", "n1")
			w.do(state.Command{UnmanageGroup: &state.UnmanageGroup{Group: "low"}})
		},
		"suspended": func(w *planWorld) {
			w.online("low", "n1")
			w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "low"}})
		},
	}
	for name, f := range stand {
		t.Run(name, func(t *testing.T) {
			w := newPlanWorld(t, def())
			f(w)
			w.want()
			m := newModel(w.s, start)
			m.decide()
			if g := &m.groups[m.grpIdx["high"]]; g.target >= 0 || g.wait == "" {
				t.Fatalf("high is placed on %d: %s", g.target, g.wait)
			}
			if a := Admit(w.s, &state.Command{OnlineGroup: &state.OnlineGroup{Group: "high"}}, start); a.Refused == "" {
				t.Fatal("online of the higher was admitted")
			}
		})
	}
	w := newPlanWorld(t, def())
	w.online("low", "n1")
	w.want("release low n1")
	w.releasing("low", "n1") // it is on its way: the higher is planned there, and waits
	w.want()
	w.report("low", "n1", state.OutcomeReleased)
	w.want("acquire high n1", "acquire low n2")
}

// What is only planned gives way like what runs, and starts nowhere until it has another node.
func TestPlannedGroupGivesWay(t *testing.T) {
	for _, lows := range [][]string{{"n1"}, {"n1", "n3"}} {
		w := newPlanWorld(t, &cluster.Definition{
			ResourceGroups: []cluster.ResourceGroup{{Name: "m", Nodes: []string{"n2"}, Priority: 3}, {Name: "h", Nodes: []string{"n1"}, Priority: 2}, {Name: "l", Nodes: lows, Priority: 1}},
			Dependencies: []cluster.Dependency{{DifferentNodes: &cluster.DifferentNodes{High: []string{"h"}, Low: []string{"l"}}},
				{DifferentNodes: &cluster.DifferentNodes{High: []string{"l"}, Low: []string{"m"}}}}})
		m := newModel(w.s, start)
		var order []string
		for _, u := range m.order {
			order = append(order, m.groups[m.units[u].lead].def.Name)
		}
		if fmt.Sprint(order) != "[l h m]" {
			t.Fatalf("placed in the order %q", order)
		}
		if len(lows) == 1 {
			w.want("acquire h n1", "acquire m n2")
			if due := OfflineDueTo(w.s, start)["l"]; due != state.DueToLackOfNode {
				t.Fatalf("l is offline due to %q", due)
			}
		} else {
			w.want("acquire l n3", "acquire h n1", "acquire m n2")
		}
	}
}

// The answer to a request leaves the plan as it was: what is taken off a node to look is put back.
func TestAdmitPlaceLeavesNoTrace(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{Nodes: []cluster.Node{{Name: "n1", Capacity: 10}, {Name: "n2", Capacity: 10}, {Name: "n3", Capacity: 10}},
		ResourceGroups: []cluster.ResourceGroup{{Name: "a", Weight: 3}, {Name: "b", Weight: 2}, {Name: "c", Weight: 1},
			{Name: "d", Startup: cluster.OnlineUsingDistribution, Fallover: cluster.FalloverToNextPriority, Fallback: cluster.NeverFallback, Weight: 1}},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}, {DifferentNodes: &cluster.DifferentNodes{High: []string{"a"}, Low: []string{"c"}}}}})
	w.online("a", "n1")
	w.online("b", "n1")
	w.online("c", "n2")
	w.online("d", "n3")
	m := newModel(w.s, start)
	m.mustLeave()
	m.occupy()
	trace := func() string {
		out := ""
		for i := range m.nodes {
			out += fmt.Sprintln(m.nodes[i].load, m.nodes[i].spread, m.nodes[i].inSet)
		}
		for i := range m.groups {
			out += fmt.Sprintln(m.groups[i].target, m.groups[i].leave, m.groups[i].st.Tried)
		}
		return out
	}
	before := trace()
	for i := range m.groups {
		for k := range m.nodes {
			m.admitPlace(&m.groups[i], k)
			if now := trace(); now != before {
				t.Fatalf("%s on %s: before\n%snow\n%s", m.groups[i].def.Name, m.nodes[k].name, before, now)
			}
		}
	}
}

// startedNow is about what this very plan decides.
func TestStartedNow(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, {Name: "b"}}})
	m := newModel(w.s, start)
	a := &m.groups[0]
	a.target = 1
	if m.startedNow(a, 1) {
		t.Fatal("nothing is decided yet")
	}
	m.res.Decisions = []Decision{{Op: OpRelease, Group: "a"}, {Op: OpAcquire, Group: "b"}}
	if m.startedNow(a, 1) {
		t.Fatal("that was about another")
	}
	m.res.Decisions = append(m.res.Decisions, Decision{Op: OpAcquire, Group: "a"})
	if !m.startedNow(a, 1) || m.startedNow(a, 0) {
		t.Fatal("it starts on the second node")
	}
	if a.status = online; m.startedNow(a, 1) {
		t.Fatal("it runs")
	}
}

func member(name string, fallback cluster.Fallback, nodes ...string) cluster.ResourceGroup {
	return cluster.ResourceGroup{Name: name, Nodes: nodes, Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverToNextPriority, Fallback: fallback}
}

// The members of a same-node set that do not run yet wait while the set moves: they do not start where it leaves.
func TestWaitingMembersDoNotStartWhereTheSetLeaves(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{
		member("a", cluster.FallbackToHigherPriority, "n1", "n2"), member("b", cluster.FallbackToHigherPriority, "n1", "n2")},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
	w.online("a", "n2")
	w.want("release a n2")
	w.online("b", "n2")
	w.want("release a n2", "release b n2")
}

// A member that is to stay offline does not lead its same-node set: the policies of those that run count.
func TestOfflineMemberDoesNotLeadTheSet(t *testing.T) {
	a := member("a", cluster.NeverFallback, "n1", "n2")
	a.Priority = 5
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{a, member("b", cluster.FallbackToHigherPriority, "n1", "n2")},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "a"}})
	w.online("b", "n2")
	w.want("release b n2")
	w.do(state.Command{OnlineGroup: &state.OnlineGroup{Group: "a"}}) // and now it does
	w.want("acquire a n2")
}

// A member that follows its set displaces a lower group there, like any other start.
func TestFollowerDisplacesALowerGroup(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, {Name: "b"}, {Name: "l"}},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}, {DifferentNodes: &cluster.DifferentNodes{High: []string{"b"}, Low: []string{"l"}}}}})
	w.online("a", "n1")
	w.online("l", "n1")
	w.want("release l n1")
	w.releasing("l", "n1")
	w.report("l", "n1", state.OutcomeReleased)
	w.want("acquire b n1", "acquire l n2")
}

// The rest of a set follows a member that was released to move, but not to a node where one of them has failed.
func TestSetDoesNotFollowToWhereOneHasFailed(t *testing.T) {
	for what, spoil := range map[string]func(*planWorld){
		"nothing": func(*planWorld) {},
		"b has failed there": func(w *planWorld) {
			w.s.Groups["b"].Marks = map[string]*state.Mark{"n2": {Kind: state.MarkApplication, At: start}}
		},
		"its services were stopped": func(w *planWorld) {
			w.do(state.Command{NodeServices: &state.NodeServices{Nodes: []string{"n2"}, Stop: state.StopOffline}})
		},
	} {
		w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, {Name: "b"}},
			Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
		w.online("a", "n1")
		w.online("b", "n1")
		i := w.s.Instance("a", "n1")
		w.do(state.Command{Release: &state.Release{Node: "n1", Incarnation: i.Incarnation, Group: "a", Generation: i.Generation, Cause: state.CauseMove, To: "n2", Reason: "test"}})
		spoil(w)
		follows := false
		for _, d := range Plan(w.s, start).Decisions {
			follows = follows || d.Op == OpRelease && d.Group == "b" && d.To == "n2"
		}
		if follows != (what == "nothing") {
			t.Errorf("%s: follows %v", what, follows)
		}
	}
}

// A capacity of one, and a weight of one, are limits too; none is none.
func TestSmallestCapacity(t *testing.T) {
	for _, c := range []struct{ capacity, held, weight int }{{1, 1, 1}, {2, 1, 2}, {1, 0, 2}} {
		d := &cluster.Definition{Nodes: []cluster.Node{{Name: "n1", Capacity: c.capacity}, {Name: "n2"}}, ResourceGroups: []cluster.ResourceGroup{
			{Name: "a", Nodes: []string{"n1"}, Weight: c.held}, {Name: "b", Nodes: []string{"n1", "n2"}, Weight: c.weight},
			{Name: "none", Nodes: []string{"n1", "n2"}}}}
		w := newPlanWorld(t, d)
		w.online("a", "n1")
		w.want("acquire b n2", "acquire none n1")
	}
	many := concurrent("c")
	many.Weight, many.Nodes = 1, []string{"n1", "n2"}
	w := newPlanWorld(t, &cluster.Definition{Nodes: []cluster.Node{{Name: "n1", Capacity: 1}, {Name: "n2"}}, ResourceGroups: []cluster.ResourceGroup{
		{Name: "a", Nodes: []string{"n1"}, Weight: 1}, many}})
	w.online("a", "n1")
	w.want("acquire c n2")
}

// A member of a set that nobody can take ends its chain, unless another of the set is on its way or about to start.
func TestGivingUpInASet(t *testing.T) {
	def := func() *cluster.Definition {
		return &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n1"}}, {Name: "b", Nodes: []string{"n1"}}},
			Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}}
	}
	w := newPlanWorld(t, def())
	w.acquiring("a", "n1")
	w.acquiring("b", "n1")
	w.report("b", "n1", state.OutcomeAcquireFailed)
	w.want() // a is on its way
	w.report("a", "n1", state.OutcomeOnline)
	w.want("give-up b n1")
	w.releasing("a", "n1")
	w.want()
	w = newPlanWorld(t, def())
	w.acquiring("a", "n1")
	w.acquiring("b", "n1")
	w.report("b", "n1", state.OutcomeAcquireFailed)
	w.report("a", "n1", state.OutcomeAcquireFailed)
	w.want("give-up a n1", "give-up b n1")
}

// When no node can take all of a set, its most important member starts at once, before the others give up.
func TestTheMostImportantOfASetDoesNotWaitForTheOthersToGiveUp(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n1"}}, {Name: "b", Nodes: []string{"n1"}}},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
	w.acquiring("a", "n1")
	w.acquiring("b", "n1")
	w.report("b", "n1", state.OutcomeAcquireFailed)
	w.releasing("a", "n1")
	w.report("a", "n1", state.OutcomeReleased)
	w.want("acquire a n1")
}

// OFFLINE is due to something only for a group that the cluster wants to run, and that runs nowhere.
func TestOfflineDueTo(t *testing.T) {
	d := &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "p", Nodes: []string{"n1"}}, {Name: "ch"}, {Name: "after"}, {Name: "run"}, {Name: "home", Nodes: []string{"n1"}},
		concurrent("con")}, Dependencies: []cluster.Dependency{{Parent: "p", Child: "ch"}, {Start: "after", After: "p"}}}
	w := newPlanWorld(t, d)
	w.online("run", "n2")
	check := func(want map[string]state.DueTo) {
		t.Helper()
		if got := OfflineDueTo(w.s, start); fmt.Sprint(got) != fmt.Sprint(Dues(want)) {
			t.Fatalf("offline due to %v, want %v", got, want)
		}
	}
	check(map[string]state.DueTo{"p": "", "ch": "", "after": "", "home": ""}) // they are about to start
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "p"}})
	w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "home"}})
	check(map[string]state.DueTo{"p": "", "ch": state.DueToParentOffline, "after": state.DueToTargetOffline, "home": ""})
	w.do(state.Command{ResumeGroup: &state.ResumeGroup{Group: "home"}})
	w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofOperator}})
	check(map[string]state.DueTo{"p": "", "ch": state.DueToParentOffline, "after": state.DueToTargetOffline, "home": state.DueToLackOfNode})
	due := OfflineDueTo(w.s, start)
	if due.Of(w.s, "home", "n1") != state.DueToLackOfNode || due.Of(w.s, "run", "n1") != "" || due.Of(w.s, "nothing", "n1") != "" {
		t.Fatalf("%v", due)
	}
	w.s.Groups["home"].Instances = map[string]*state.Instance{"n1": {State: state.Offline, DueTo: state.DueToFallover}}
	due = OfflineDueTo(w.s, start)
	if due["home"] != "" || due.Of(w.s, "home", "n1") != state.DueToFallover {
		t.Fatalf("%v", due) // it was displaced, as its release said
	}
	w.s.Groups["home"].Instances["n1"].DueTo = state.DueToNodeForcedDown
	if due = OfflineDueTo(w.s, start); due["home"] != state.DueToLackOfNode {
		t.Fatalf("%v", due)
	}
}

// Requests for a concurrent group are refused where they would be without effect, node by node.
func TestAdmitOfConcurrentGroups(t *testing.T) {
	request := func(w *planWorld, node string) Admission {
		return Admit(w.s, &state.Command{OnlineGroup: &state.OnlineGroup{Group: "c", Node: node}}, start)
	}
	fresh := func() *planWorld {
		return newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{concurrent("c"), {Name: "a"}}})
	}
	check := func(t *testing.T, a Admission, refused string, already bool) {
		t.Helper()
		if a.Refused != refused || a.Already != already {
			t.Fatalf("%+v, want %q, already %v", a, refused, already)
		}
	}
	t.Run("started manually", func(t *testing.T) {
		w := fresh()
		w.do(state.Command{NodeServices: &state.NodeServices{Stop: state.StopOffline}})
		w.do(state.Command{NodeServices: &state.NodeServices{Start: state.StartManual}})
		manual := func(n string) string {
			return "cluster services of " + n + " were started manually, which acquires nothing"
		}
		check(t, request(w, ""), "group c cannot be brought online: "+manual("n1")+"; "+manual("n2")+"; "+manual("n3"), false)
		check(t, request(w, "n2"), "", false) // there it is the operator's word
	})
	t.Run("services stopped", func(t *testing.T) {
		w := fresh()
		w.do(state.Command{NodeServices: &state.NodeServices{Stop: state.StopOffline}})
		off := func(n string) string { return "cluster services of " + n + " are off" }
		check(t, request(w, ""), "group c cannot be brought online: "+off("n1")+"; "+off("n2")+"; "+off("n3"), false)
		check(t, request(w, "n2"), "group c cannot run on node n2: "+off("n2"), false)
	})
	t.Run("some run", func(t *testing.T) {
		w := fresh()
		w.online("c", "n1")
		check(t, request(w, ""), "", false)
		check(t, request(w, "n1"), "", true)
		check(t, request(w, "n2"), "", false)
		w.online("c", "n2")
		w.acquiring("c", "n3")
		check(t, request(w, ""), "", true)
		w.report("c", "n3", state.OutcomeOnline)
		check(t, request(w, ""), "", true)
		w.releasing("c", "n2")
		check(t, request(w, ""), "", true)
		w.report("c", "n2", state.OutcomeReleaseFailed)
		check(t, request(w, ""), "", false) // its release is tried again
		check(t, request(w, "n2"), "", false)
		check(t, Admit(w.s, &state.Command{MoveGroup: &state.MoveGroup{Group: "c", Node: "n2"}}, start), "group c runs on all available nodes: it cannot be moved", false)
	})
}

// A request for one of a same-node set needs room for those that start together with it, each once, and for no others.
func TestAdmitCountsTheWaitingMembersOnce(t *testing.T) {
	fresh := func(b int) *planWorld {
		return newPlanWorld(t, &cluster.Definition{Nodes: []cluster.Node{{Name: "n1", Capacity: 10}, {Name: "n2"}}, ResourceGroups: []cluster.ResourceGroup{
			{Name: "a", Nodes: []string{"n1", "n2"}, Weight: 6}, {Name: "b", Nodes: []string{"n1", "n2"}, Weight: b}},
			Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
	}
	for _, c := range []struct {
		what     string
		b        int
		prepare  func(*planWorld)
		admitted bool
	}{
		{"both wait and fit", 4, func(*planWorld) {}, true},
		{"both wait and do not fit", 6, func(*planWorld) {}, false},
		{"the other is to stay offline", 6, func(w *planWorld) { w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "b"}}) }, true},
		{"the other is suspended", 6, func(w *planWorld) { w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "b"}}) }, true},
		{"the other runs elsewhere and fits", 4, func(w *planWorld) { w.online("b", "n2") }, true},
		{"the other runs elsewhere and does not fit", 6, func(w *planWorld) { w.online("b", "n2") }, false},
		{"the other runs there", 4, func(w *planWorld) { w.online("b", "n1") }, true},
		{"both run there", 4, func(w *planWorld) { w.online("a", "n1"); w.online("b", "n1") }, true},
		{"it runs elsewhere, the other waits for a call", 6, func(w *planWorld) {
			w.online("a", "n2")
			w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "b"}})
		}, true},
	} {
		w := fresh(c.b)
		c.prepare(w)
		a := Admit(w.s, &state.Command{MoveGroup: &state.MoveGroup{Group: "a", Node: "n1"}}, start)
		if (a.Refused == "") != c.admitted {
			t.Errorf("%s: %+v", c.what, a)
		}
	}
}

// Nothing is ordered on a node that is silent, nor of an earlier boot, whatever the operator wants.
func TestNothingIsReleasedWhereNobodyHears(t *testing.T) {
	for what, spoil := range map[string]func(*planWorld){
		"silent":          func(w *planWorld) { w.s.Nodes["n1"].Lost = &state.Loss{Sentence: "test"} },
		"an earlier boot": func(w *planWorld) { w.s.Nodes["n1"].Incarnation++ },
	} {
		w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{concurrent("c"), {Name: "a"}}})
		w.online("c", "n1")
		w.online("c", "n2")
		w.online("a", "n1")
		w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "c"}})
		w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "a"}})
		spoil(w)
		t.Log(what)
		w.want("release c n2")
	}
}

// A recovery chain of a group that must not start is not given up: it goes on when the group may start again.
func TestNobodyGivesUpForAGroupThatMayNotStart(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "p", Nodes: []string{"n1"}}, {Name: "ch", Nodes: []string{"n2"}}},
		Dependencies: []cluster.Dependency{{Parent: "p", Child: "ch"}}})
	w.online("p", "n1")
	w.acquiring("ch", "n2")
	w.report("ch", "n2", state.OutcomeAcquireFailed)
	w.want("give-up ch n2")
	w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "ch"}})
	w.want()
	w.do(state.Command{ResumeGroup: &state.ResumeGroup{Group: "ch"}})
	w.want("give-up ch n2")
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "p"}})
	w.want("release p n1")
	w.releasing("p", "n1")
	w.want() // it waits for its parent
}

// What would move a group is said only of one that runs, and that the cluster may move.
func TestWhatWouldMoveIsSaidOfWhatRuns(t *testing.T) {
	says := func(w *planWorld, group string) bool {
		e := Explain(w.s, group, start)
		return slices.ContainsFunc(e.Sentences, func(s string) bool { return strings.Contains(s, "a failure of ") })
	}
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{concurrent("c"), {Name: "a"}}})
	w.online("c", "n1")
	if says(w, "c") || says(w, "a") {
		t.Fatal("it is said of a concurrent group, or of one that is offline")
	}
	w.acquiring("a", "n1")
	if says(w, "a") {
		t.Fatal("it does not run yet")
	}
	w.report("a", "n1", state.OutcomeOnline)
	if !says(w, "a") {
		t.Fatal("it runs")
	}
	w.do(state.Command{SuspendGroup: &state.SuspendGroup{Group: "a"}})
	if says(w, "a") {
		t.Fatal("a suspended group stays")
	}
}

// The instances of a concurrent child stop before its parent does, on all nodes where they can be ordered.
func TestConcurrentChildStopsWithItsParent(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "p"}, concurrent("c")},
		Dependencies: []cluster.Dependency{{Parent: "p", Child: "c"}}})
	w.online("p", "n1")
	w.online("c", "n1")
	w.acquiring("c", "n2")
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "p"}})
	w.want("release c n1", "release c n2")
	w.releasing("c", "n1")
	w.report("c", "n1", state.OutcomeReleased)
	w.want("release c n2")
	w.releasing("c", "n2")
	w.want()
	w.report("c", "n2", state.OutcomeReleased)
	w.want("release p n1")
}

// A definition that validation would refuse does not confuse the planner: a same-node set has only the groups that can be in one.
func TestSameNodeSetTakesOnlyWhatCanBeInOne(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, concurrent("c"), {Name: "b"}, {Name: "d"}}})
	def := *w.s.Definition
	def.Dependencies = []cluster.Dependency{{SameNode: []string{"a", "c", "zz"}}, {SameNode: []string{"a", "b"}}, {SameNode: []string{"c", "zz"}}}
	w.s.Definition = &def
	m := newModel(w.s, start)
	var units []string
	for _, u := range m.units {
		units = append(units, fmt.Sprint(u.groups, u.lead))
	}
	if want := []string{"[0] 0", "[2] 2", "[3] 3"}; !slices.Equal(units, want) {
		t.Fatalf("units %q, want %q", units, want)
	}
	if m.groups[1].unit >= 0 {
		t.Fatal("a concurrent group is placed by no unit")
	}
	w.want("acquire a n1", "acquire b n1", "acquire d n1", "acquire c n1", "acquire c n2", "acquire c n3")
}

// A set whose chain is under way is placed as a whole where all can go, on the first node of the definition too.
func TestSetGoesOnTogether(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, {Name: "b"}},
		Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
	w.acquiring("a", "n2")
	w.report("a", "n2", state.OutcomeAcquireFailed)
	w.want("acquire a n1", "acquire b n1")
}

// If one of a set recovers, all are placed as in a recovery, whatever the leader's startup policy: they must be together.
func TestSetIsRecoveredWithAMemberThatStarts(t *testing.T) {
	for _, phase := range []state.Phase{state.PhaseRecover, state.PhaseActive} {
		a := member("a", cluster.NeverFallback, "n1", "n2")
		a.Startup = cluster.OnlineOnHomeNode
		w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{a, member("b", cluster.NeverFallback, "n1", "n2")},
			Dependencies: []cluster.Dependency{{SameNode: []string{"a", "b"}}}})
		w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofOperator}})
		w.want() // its home node is down
		w.s.Groups["b"].Phase = phase
		w.want("acquire a n2", "acquire b n2")
	}
}

// A start names the facts on which it stands: what freed the group, and what must be online first.
func TestAStartNamesWhatItRequires(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "p"}, {Name: "q"}, {Name: "ch"}},
		Dependencies: []cluster.Dependency{{Parent: "p", Child: "ch"}, {Start: "ch", After: "q"}}})
	requires := func() []string {
		t.Helper()
		p := Plan(w.s, start)
		if len(p.Decisions) != 1 || p.Decisions[0].Op != OpAcquire || p.Decisions[0].Group != "ch" {
			t.Fatalf("%+v", p.Decisions)
		}
		return p.Decisions[0].Requires
	}
	w.online("p", "n1")
	w.online("q", "n1")
	if got := requires(); !slices.Equal(got, []string{"p is online", "q is online"}) {
		t.Fatalf("%q", got)
	}
	w.online("ch", "n1")
	w.releasing("ch", "n1")
	w.report("ch", "n1", state.OutcomeReleased)
	freed := w.s.Groups["ch"].Freed
	if got := requires(); freed == "" || !slices.Equal(got, []string{freed, "p is online", "q is online"}) {
		t.Fatalf("%q, freed %q", got, freed)
	}
}

// standsOn follows parents and start-after targets through others, and nothing else.
func TestStandsOn(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "top"}, {Name: "left"}, {Name: "right"}, {Name: "low"}, {Name: "other"}, {Name: "apart"}},
		Dependencies: []cluster.Dependency{{Parent: "top", Child: "left"}, {Parent: "top", Child: "right"}, {Start: "low", After: "left"}, {Start: "low", After: "right"},
			{Parent: "other", Child: "apart"}, {Stop: "other", After: "top"}}})
	m := newModel(w.s, start)
	needs := map[string][]string{"left": {"top"}, "right": {"top"}, "low": {"left", "right", "top"}, "apart": {"other"}}
	for i := range m.groups {
		for j := range m.groups {
			g, o := &m.groups[i], &m.groups[j]
			if got, want := m.standsOn(g, o), slices.Contains(needs[g.def.Name], o.def.Name); got != want {
				t.Errorf("%s stands on %s: %v", g.def.Name, o.def.Name, got)
			}
		}
	}
}

// Among nodes where a group of the same tier would be displaced the first of the list is taken.
func TestOfEqualTiersTheFirstNode(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "l1"}, {Name: "l2"}, {Name: "high", Nodes: []string{"n1", "n2"}}},
		Dependencies: []cluster.Dependency{{DifferentNodes: &cluster.DifferentNodes{High: []string{"high"}, Low: []string{"l1", "l2"}}}}})
	w.online("l1", "n1")
	w.online("l2", "n2")
	w.want("release l1 n1")
}

// What stands on what stops is found through all levels, in whatever order the definition has them.
func TestAllLevelsStop(t *testing.T) {
	for _, names := range [][]string{{"gc", "ch", "p"}, {"p", "ch", "gc"}, {"ch", "p", "gc"}} {
		d := &cluster.Definition{Dependencies: []cluster.Dependency{{Parent: "p", Child: "ch"}, {Parent: "ch", Child: "gc"}}}
		for _, n := range names {
			d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: n})
		}
		w := newPlanWorld(t, d)
		for _, n := range []string{"p", "ch", "gc"} {
			w.online(n, "n1")
		}
		w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "p"}})
		w.want("release gc n1")
	}
}

// A node that the state does not have yet takes nothing, and is said not to have been seen.
func TestNodeThatTheStateDoesNotHave(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n3", "n1"}}}})
	delete(w.s.Nodes, "n3")
	w.want("acquire a n1")
	if v := Explain(w.s, "a", start).Nodes[0]; v.Can || v.Reason != "n3 has not been seen yet" {
		t.Fatalf("%+v", v)
	}
}

// What a start waits for is noted.
func TestWhatAStartWaitsForIsNoted(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "p"}, {Name: "ch"}}, Dependencies: []cluster.Dependency{{Parent: "p", Child: "ch"}}})
	if notes := Plan(w.s, start).Notes; !slices.Contains(notes, Note{Group: "ch", Sentence: "it starts after its parent p is online"}) {
		t.Fatalf("%+v", notes)
	}
}

// One group that can still be ordered keeps a node from giving up its lease, however it stands.
func TestOneGroupKeepsTheLease(t *testing.T) {
	for what, stand := range map[string]func(*planWorld){
		"acquiring": func(w *planWorld) { w.acquiring("a", "n1") },
		"online":    func(w *planWorld) { w.online("a", "n1") },
		"releasing": func(w *planWorld) { w.online("a", "n1"); w.releasing("a", "n1") },
	} {
		r := member("r", cluster.NeverFallback, "n1")
		r.OnReleaseFailure = cluster.OnReleaseFailureReset
		w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n1"}}, r}})
		w.online("r", "n1")
		stand(w)
		w.releasing("r", "n1")
		w.report("r", "n1", state.OutcomeReleaseFailed)
		t.Log(what)
		if what == "releasing" {
			w.want()
		} else {
			w.want("release a n1")
			w.releasing("a", "n1")
			w.want()
		}
		w.report("a", "n1", state.OutcomeReleased)
		w.want("reset n1")
	}
}

// The measure is shown as the node gave it: a disk that is not busy is at 0.
func TestMeasureIsShownAsItIs(t *testing.T) {
	for value, want := range map[float64]string{0: "(disk: 0 % busy)", 7.5: "(disk: 7.5 % busy)"} {
		g := cluster.ResourceGroup{Name: "a", Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverUsingDNP, Fallback: cluster.NeverFallback,
			NodePriorityPolicy: cluster.PriorityDisk}
		w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{g}})
		w.online("a", "n1")
		w.s.Nodes["n2"].Measures.Disk = &value
		e := Explain(w.s, "a", start)
		if !slices.ContainsFunc(e.Sentences, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%q does not say %s", e.Sentences, want)
		}
	}
}

// What is still being released has its weight, on the smallest node too.
func TestAStartWaitsForTheWeightThatLeaves(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{Nodes: []cluster.Node{{Name: "n1", Capacity: 1}, {Name: "n2"}},
		ResourceGroups: []cluster.ResourceGroup{{Name: "a", Nodes: []string{"n1", "n2"}, Weight: 1}, {Name: "b", Nodes: []string{"n1"}, Weight: 1}}})
	w.online("a", "n1")
	w.want()
	w.releasing("a", "n1")
	w.want()
	w.do(state.Command{OfflineGroup: &state.OfflineGroup{Group: "a"}})
	w.want()
	w.report("a", "n1", state.OutcomeReleased)
	w.want("acquire b n1")
}

// A dependency on a group that there is not is none.
func TestDependencyOnNothing(t *testing.T) {
	w := newPlanWorld(t, &cluster.Definition{ResourceGroups: []cluster.ResourceGroup{{Name: "a"}, {Name: "b"}}})
	def := *w.s.Definition
	def.Dependencies = []cluster.Dependency{{Parent: "zz", Child: "b"}, {Start: "b", After: "zz"}, {Stop: "zz", After: "b"}, {Parent: "b", Child: "zz"}}
	w.s.Definition = &def
	w.want("acquire a n1", "acquire b n1")
	m := newModel(w.s, start)
	for i := range m.groups {
		g := &m.groups[i]
		if len(g.parents)+len(g.children)+len(g.targets)+len(g.sources)+len(g.stopTargets)+len(g.stopSources) > 0 {
			t.Errorf("%s depends on something", g.def.Name)
		}
	}
}
