package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// localWorld is a log, and one node's view of it.
type localWorld struct {
	t     *testing.T
	s     *state.State
	index uint64
	view  LocalView
	grant *lease.Grant
}

func newLocalWorld(t *testing.T) *localWorld {
	w := &localWorld{t: t, s: state.New(), view: LocalView{BootID: "boot1", Incarnation: 1, CaughtUp: true, Groups: map[string]LocalGroup{"a": {Seen: SeenStopped}, "b": {Seen: SeenStopped}}}}
	group := func(name string, nodes ...string) cluster.ResourceGroup {
		return cluster.ResourceGroup{Name: name, Nodes: nodes, Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverToNextPriority, Fallback: cluster.NeverFallback}
	}
	w.do(state.Command{Create: &state.Create{ClusterID: "id", Definition: &cluster.Definition{Name: "demo",
		Nodes: []cluster.Node{{Name: "n1"}, {Name: "n2"}}, ResourceGroups: []cluster.ResourceGroup{group("a", "n1", "n2"), group("b", "n2", "n1")}}}})
	w.do(state.Command{NodeBoot: &state.NodeBoot{Node: "n1", BootID: "boot1", AllStopped: true}})
	w.do(state.Command{NodeBoot: &state.NodeBoot{Node: "n2", BootID: "other", AllStopped: true}})
	w.do(state.Command{NodeServices: &state.NodeServices{Start: state.StartAuto}})
	return w
}

func (w *localWorld) do(c state.Command) {
	w.t.Helper()
	w.index++
	c.At = start
	var r state.Result
	w.s, r = state.Apply(w.s, state.Entry{Index: w.index, Term: 1, Command: &c})
	if r.Refused != "" {
		w.t.Fatalf("%s was refused: %s", c.Kind(), r.Refused)
	}
}

func (w *localWorld) acquire(node string) uint64 {
	w.do(state.Command{Acquire: &state.Acquire{Group: "a", Node: node, Incarnation: w.s.Nodes[node].Incarnation, Based: w.s.Based("a", node), Reason: "test"}})
	return w.s.Instance("a", node).Generation
}

// withGroup is a world in which n1 is to have group a, has its deadman armed and a grant.
func withGroup(t *testing.T) (w *localWorld, generation uint64) {
	t.Helper()
	w = newLocalWorld(t)
	generation = w.acquire("n1")
	w.armed()
	w.granted()
	return w, generation
}

// report is n1's word on what became of group a.
func (w *localWorld) report(generation uint64, outcome state.Outcome) {
	w.t.Helper()
	w.do(state.Command{Report: &state.Report{Node: "n1", Incarnation: 1, Group: "a", Generation: generation, Outcome: outcome}})
}

// release is the order to n1 to give up group a.
func (w *localWorld) release(generation uint64) {
	w.t.Helper()
	w.do(state.Command{Release: &state.Release{Node: "n1", Incarnation: 1, Group: "a", Generation: generation, Cause: state.CauseMove, Reason: "test"}})
}

func (w *localWorld) armed() {
	w.view.Armed, w.view.Arming = true, "x"
	for contains(w.s.Nodes["n1"].OldArmings, w.view.Arming) { // a nonce is drawn once
		w.view.Arming += "x"
	}
	w.do(state.Command{Armed: &state.Armed{Arming: w.view.Arming, Fact: lease.Armed{Node: "n1", Incarnation: 1, Class: lease.Independent, Mode: lease.ModeReset,
		Watchdog: time.Second, MaxAge: time.Second}}})
}

// granted gives the node a grant of what the log says now, requested under its arming.
func (w *localWorld) granted() {
	w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 1, Applied: w.s.Index, Hold: w.s.Holds("n1", 1)}
	w.view.GrantArming = w.view.Arming
}

func (w *localWorld) set(g LocalGroup) { w.view.Groups["a"] = g }

// want checks the actions, as "kind" or "kind group" or "report group outcome".
func (w *localWorld) want(want ...string) {
	w.t.Helper()
	var got []string
	for _, a := range Local(w.s, "n1", w.grant, w.view) {
		s := string(a.Kind)
		if a.Group != "" {
			s += " " + a.Group
		}
		if a.Outcome != "" {
			s += " " + string(a.Outcome)
		}
		if a.Reason == "" {
			w.t.Errorf("%s has no reason", s)
		}
		got = append(got, s)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("the node does %q, want %q", got, want)
	}
}

func TestOrderOfAcquisition(t *testing.T) {
	w := newLocalWorld(t)
	w.want()
	gen := w.acquire("n1")
	w.want("arm")
	w.view.Armed, w.view.Arming = true, "x"
	w.want("propose-armed")
	w.armed()
	w.want("request-grant")
	w.granted()
	w.want("start a")
	w.set(LocalGroup{Busy: Starting})
	w.want()
	w.set(LocalGroup{Started: gen, Seen: SeenRunning})
	w.want("report a online")
	w.report(gen, state.OutcomeOnline)
	w.want()
	w.release(gen)
	w.want("stop a")
	w.set(LocalGroup{Busy: Stopping})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen})
	w.want("report a released", "disarm")
	w.report(gen, state.OutcomeReleased)
	w.want("disarm")
	w.view.Armed, w.view.Arming = false, ""
	w.want("tell-disarmed")
	w.do(state.Command{Disarmed: &state.Disarmed{Node: "n1", Incarnation: 1, Arming: "x"}})
	w.want()
}

// A1: a fresh lease does not make an old state fresh.
func TestA1OldStateStartsNothing(t *testing.T) {
	t.Run("the grant does not list it", func(t *testing.T) {
		w := newLocalWorld(t)
		w.acquire("n1")
		w.armed()
		w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 2, Applied: w.s.Index + 50} // the leader is far ahead, and has freed it
		w.view.GrantArming = "x"
		w.want("request-grant")
	})
	t.Run("the own state is behind the grant", func(t *testing.T) {
		w, _ := withGroup(t)
		w.grant.Applied = w.s.Index + 1
		w.want("request-grant")
	})
	t.Run("another incarnation's grant", func(t *testing.T) {
		w, _ := withGroup(t)
		w.grant.Incarnation = 7
		w.want("request-grant")
	})
	t.Run("a boot that the log has not numbered", func(t *testing.T) {
		w, _ := withGroup(t)
		w.view = LocalView{BootID: "boot2", Groups: map[string]LocalGroup{"a": {Seen: SeenStopped}, "b": {Seen: SeenStopped}}}
		w.want()
		w.set(LocalGroup{Seen: SeenRunning}) // started by the system at boot
		w.want("stop a")
	})
	t.Run("running, and the newest list lacks it", func(t *testing.T) {
		w, gen := withGroup(t)
		w.set(LocalGroup{Started: gen, Seen: SeenRunning})
		w.report(gen, state.OutcomeOnline)
		w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 2, Applied: w.s.Index}
		w.want("stop a")
		w.grant.Applied = w.s.Index + 9 // not before this node has applied what the list rests on
		w.want()
	})
}

// A5: nothing starts under a grant that was asked for before arming.
func TestA5GrantFromBeforeArming(t *testing.T) {
	w := newLocalWorld(t)
	w.acquire("n1")
	w.granted() // requested while disarmed
	w.armed()
	w.view.GrantArming = ""
	w.want("request-grant")
	w.view.GrantArming = "an earlier arming"
	w.want("request-grant")
}

// A7: a promise is kept: a tombstoned generation never starts, and the report is repeated.
func TestA7TombstonedGenerationNeverStarts(t *testing.T) {
	w, gen := withGroup(t)
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen})
	w.want("report a released", "disarm")
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen + 5})
	w.want("report a released", "disarm")
	w.set(LocalGroup{Seen: SeenRunning, Tombstone: gen}) // somebody started it by hand
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped, StartFailed: gen, StartWhy: "script ended with 1"})
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, StartFailed: gen, StartWhy: "script ended with 1", Tombstone: gen})
	w.want("report a acquire-failed", "disarm")
}

func TestA7SoftReleaseIsFinished(t *testing.T) {
	w, gen := withGroup(t)
	w.report(gen, state.OutcomeOnline)
	w.set(LocalGroup{Started: gen, Seen: SeenRunning})
	w.want()
	w.view.Soft = true
	w.want("stop a")
	w.view.Soft = false // a grant came back
	w.set(LocalGroup{Seen: SeenRunning, Leaving: true})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped, Leaving: true})
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, Leaving: true, Tombstone: gen})
	w.want("report a released", "disarm")
}

// Attack B2: a grant that came by the repository volume has what runs stopped, though the node cannot apply what the grant's list rests
// on, and starts nothing; the promise and its report follow, and the deadman is disarmed. A grant by the networks ends that, and a
// release that has begun is finished.
func TestB2IsolatedHandsOver(t *testing.T) {
	w := newLocalWorld(t)
	gen := w.acquire("n1")
	w.armed()
	w.granted()
	w.do(state.Command{Report: &state.Report{Node: "n1", Incarnation: 1, Group: "a", Generation: gen, Outcome: state.OutcomeOnline}})
	w.set(LocalGroup{Started: gen, Seen: SeenRunning})
	w.want()
	w.view.Isolated = true
	w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 2, Applied: w.s.Index + 10, Isolated: true, Hold: []lease.Held{{Group: "a", Generation: gen, Releasing: true}}}
	w.want("stop a")
	w.set(LocalGroup{Busy: Stopping, Leaving: true})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen})
	w.want("report a released", "disarm")

	w.set(LocalGroup{Seen: SeenRunning, Leaving: true})
	w.view.Isolated = false
	w.granted()
	w.want("stop a")
}

// What is given to the node after the grant by the volume is not given back: the next grant is asked for. (A node that was isolated and
// then leads gives itself its groups before its first grant; it would release and acquire them as fast as the log takes it.)
func TestB2IsolationEndsWithWhatIsNewer(t *testing.T) {
	w := newLocalWorld(t)
	w.acquire("n1")
	w.armed()
	w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 1, Applied: w.s.Instance("a", "n1").Since - 1, Isolated: true}
	w.view.Isolated, w.view.GrantArming = true, w.view.Arming
	w.want("request-grant")
	w.granted()
	w.view.Isolated = false
	w.want("start a")
}

// What is UNMANAGED as far as the node knows runs on, though the leader may know that it is managed again and lists it for stopping; once
// the node knows so too it hands it over as the rest, without having armed for it.
func TestB2IsolatedLeavesWhatIsUnmanaged(t *testing.T) {
	w := newLocalWorld(t)
	gen := w.acquire("n1")
	w.armed()
	w.do(state.Command{Report: &state.Report{Node: "n1", Incarnation: 1, Group: "a", Generation: gen, Outcome: state.OutcomeOnline}})
	w.do(state.Command{UnmanageGroup: &state.UnmanageGroup{Group: "a"}})
	w.view.Isolated = true
	w.grant = &lease.Grant{Node: "n1", Incarnation: 1, Term: 2, Applied: w.s.Index + 10, Isolated: true, Hold: []lease.Held{{Group: "a", Generation: gen, Releasing: true}}}
	w.view.CaughtUp = false // a daemon that was started again, and does not know what the one before has seen
	w.set(LocalGroup{Seen: SeenRunning})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("disarm")
	w.view.CaughtUp = true
	w.set(LocalGroup{Seen: SeenRunning})
	w.want("disarm")
	w.do(state.Command{ManageGroup: &state.ManageGroup{Group: "a"}})
	if !w.s.Instance("a", "n1").Outside {
		t.Fatal("it is not outside the lease")
	}
	w.want("stop a")
}

// What the log gave to the node just before it was cut off is not started, and is given back.
func TestB2IsolatedStartsNothing(t *testing.T) {
	w := newLocalWorld(t)
	gen := w.acquire("n1")
	w.armed()
	w.granted()
	w.want("start a")
	w.view.Isolated = true
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen})
	w.want("report a released", "disarm")
	w.set(LocalGroup{Busy: Starting})
	w.want("stop a")
}

// A release that failed and was then found stopped is over: the next generation starts, and is not given back at once.
func TestEndedReleaseDoesNotStickToTheNextGeneration(t *testing.T) {
	w, gen := withGroup(t)
	w.set(LocalGroup{Seen: SeenStopped, Leaving: true, StopFailed: true, Tombstone: gen - 1})
	w.want("start a")
	w.set(LocalGroup{Busy: Starting, Leaving: true, Tombstone: gen - 1})
	w.want()
}

// A8: what an older action may still do is not probed, and so not reported.
func TestA8NothingIsReportedBeforeItIsSeen(t *testing.T) {
	w, gen := withGroup(t)
	w.set(LocalGroup{})
	w.want("probe a")
	w.set(LocalGroup{Seen: SeenUnclear, StartFailed: gen})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenUnclear, StartFailed: gen, StopFailed: true, StopWhy: "a process cannot be killed"})
	w.want("report a release-failed")
}

// A9: what hears that it is dead resets.
func TestA9DeadNodeResets(t *testing.T) {
	t.Run("armed", func(t *testing.T) {
		w := newLocalWorld(t)
		w.acquire("n1")
		w.armed()
		w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofOperator}})
		w.want("reset")
	})
	t.Run("never armed", func(t *testing.T) {
		w := newLocalWorld(t)
		w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofNeverArmed}})
		w.want("new-life")
		w.set(LocalGroup{Seen: SeenRunning})
		w.want("reset")
	})
	t.Run("followed by another boot", func(t *testing.T) {
		w := newLocalWorld(t)
		w.armed()
		w.do(state.Command{NodeBoot: &state.NodeBoot{Node: "n1", BootID: "boot2", Replaces: 1, AllStopped: true}})
		w.want("reset")
	})
	t.Run("on_release_failure reset", func(t *testing.T) {
		w := newLocalWorld(t)
		w.armed()
		w.do(state.Command{ResetNode: &state.ResetNode{Node: "n1", Incarnation: 1, Reason: "b cannot be released"}})
		w.want("reset")
	})
}

func TestAdoptAfterAgentRestart(t *testing.T) {
	w, gen := withGroup(t)
	w.report(gen, state.OutcomeOnline)
	w.grant, w.view.GrantArming = nil, "" // a new process
	w.set(LocalGroup{})
	w.want("probe a")
	w.set(LocalGroup{Seen: SeenRunning})
	w.want("request-grant")
	w.granted()
	w.want("adopt a")
	w.set(LocalGroup{Seen: SeenRunning, Started: gen})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped}) // it has ended meanwhile
	w.want("tombstone a")
}

func TestForeignResourceIsReleasedNotAdopted(t *testing.T) {
	w := newLocalWorld(t)
	w.acquire("n2")
	w.set(LocalGroup{Seen: SeenRunning})
	w.want("arm") // nothing is stopped on an old state
	w.armed()
	w.want("request-grant")
	w.granted()
	a := Local(w.s, "n1", w.grant, w.view)
	if len(a) != 1 || a[0].Kind != DoStop || !a[0].Foreign {
		t.Fatalf("the node does %+v", a)
	}
}

func TestUnmanagedIsLeftAlone(t *testing.T) {
	w, gen := withGroup(t)
	w.report(gen, state.OutcomeOnline)
	w.set(LocalGroup{Seen: SeenRunning, Started: gen})
	w.do(state.Command{NodeServices: &state.NodeServices{Nodes: []string{"n1"}, Stop: state.StopUnmanage}})
	w.want("unmanage a", "disarm")
	w.set(LocalGroup{Seen: SeenRunning})
	w.granted() // lists nothing
	w.want("disarm")
	w.view.Soft = true
	w.want("disarm")
	w.view.Soft, w.view.Armed, w.view.Arming = false, false, ""
	w.want("tell-disarmed")
	w.do(state.Command{Disarmed: &state.Disarmed{Node: "n1", Incarnation: 1, Arming: "x"}})
	w.want()
	w.do(state.Command{NodeServices: &state.NodeServices{Nodes: []string{"n1"}, Start: state.StartAuto}})
	w.want("arm") // the order of acquisition holds for taking back, too
	w.armed()
	w.want("request-grant")
	w.granted()
	w.want("adopt a")
}

func TestFailedReleaseIsReportedOnceAndTriedAgainWhenCleared(t *testing.T) {
	w, gen := withGroup(t)
	w.report(gen, state.OutcomeOnline)
	w.release(gen)
	since := w.s.Instance("a", "n1").Since
	w.set(LocalGroup{Seen: SeenPartly, StopFailed: true, StopFailedSince: since, StopWhy: "umount: target is busy"})
	w.want("report a release-failed")
	w.report(gen, state.OutcomeReleaseFailed)
	w.want("probe a")
	w.do(state.Command{ClearGroup: &state.ClearGroup{Group: "a"}})
	w.want("probe a")
	p := Plan(w.s, start)
	if len(p.Decisions) == 0 || p.Decisions[0].Op != OpRelease || p.Decisions[0].Group != "a" {
		t.Fatalf("the planner decides %+v", p.Decisions)
	}
	w.do(p.Decisions[0].Command())
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("tombstone a")
}
