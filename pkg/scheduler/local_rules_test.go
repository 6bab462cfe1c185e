package scheduler

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// dead makes the node's incarnation over, by a proof of the kind. The proof itself is pkg/state's business.
func (w *localWorld) dead(kind state.ProofKind) {
	w.t.Helper()
	w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofOperator}})
	w.s.Nodes["n1"].Dead.Kind = kind
}

// mayRun is every way in which something may still run of a group.
var mayRun = map[string]LocalGroup{
	"starting": {Seen: SeenStopped, Busy: Starting},
	"stopping": {Seen: SeenStopped, Busy: Stopping},
	"started":  {Seen: SeenStopped, Started: 1},
	"running":  {Seen: SeenRunning},
	"partly":   {Seen: SeenPartly},
	"unclear":  {Seen: SeenUnclear},
}

// A node whose lease ran out comes back without a reset only if it has seen that everything here is stopped, and has disarmed.
func TestNodeThatLetGoInTimeBeginsANewLife(t *testing.T) {
	w := newLocalWorld(t)
	w.dead(state.ProofTime)
	w.want("new-life")
	w.view.Armed, w.view.Arming = true, "x"
	w.want("disarm")
	w.set(LocalGroup{})
	w.want("probe a")
	w.set(LocalGroup{Busy: Probing})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped, Busy: Probing}) // what it saw before may be old
	w.want()
	w.set(LocalGroup{})
	delete(w.view.Groups, "b")
	w.want("probe a", "probe b")
	for how, g := range mayRun {
		for _, group := range []string{"a", "b"} {
			for _, armed := range []bool{true, false} {
				t.Run(how+" "+group, func(t *testing.T) {
					w := newLocalWorld(t)
					w.dead(state.ProofTime)
					w.view.Armed = armed
					w.view.Groups[group] = g
					w.want("reset")
				})
			}
		}
	}
}

// After a stop in order, and after a proof that it has never armed, only a node on which nothing runs and that is not armed is
// spared the reset.
func TestUntouchedNodeIsSparedTheReset(t *testing.T) {
	for kind, spared := range map[state.ProofKind][]string{state.ProofCleanStop: nil, state.ProofNeverArmed: {"new-life"}} {
		t.Run(string(kind), func(t *testing.T) {
			w := newLocalWorld(t)
			w.dead(kind)
			w.want(spared...)
			w.set(LocalGroup{})
			w.want(spared...)
			w.set(LocalGroup{Busy: Probing})
			w.want(spared...)
			w.view.Armed = true
			w.want("reset")
			w.view.Armed = false
			for how, g := range mayRun {
				w.set(g)
				t.Log(how)
				w.want("reset")
			}
		})
	}
	for _, kind := range []state.ProofKind{state.ProofOperator, state.ProofFenced, state.ProofBoot} {
		w := newLocalWorld(t)
		w.dead(kind)
		w.want("reset")
	}
}

// What the log says of an older or a later life is not this one's.
func TestLivesOfOneBoot(t *testing.T) {
	t.Run("the own state is behind", func(t *testing.T) {
		w := newLocalWorld(t)
		w.dead(state.ProofOperator)
		w.view.Incarnation = 2
		w.want()
		w.set(LocalGroup{Seen: SeenRunning}) // nor is there anything to arm for before the log is read
		w.want()
	})
	t.Run("the log went on to a later life of this boot", func(t *testing.T) {
		w := newLocalWorld(t)
		w.s.Nodes["n1"].Incarnation = 2
		w.want("reset")
		for _, kind := range []state.ProofKind{state.ProofTime, state.ProofCleanStop, state.ProofNeverArmed} {
			w.s.Nodes["n1"].Dead = &state.Death{Kind: kind} // of the later life: it says nothing of this one
			w.want("reset")
		}
	})
	t.Run("to be reset, in a later life", func(t *testing.T) {
		w := newLocalWorld(t)
		w.s.Nodes["n1"].Incarnation, w.s.Nodes["n1"].Resetting = 2, "another's business"
		for _, a := range Local(w.s, "n1", nil, w.view) {
			if a.Kind != DoReset || a.Reason == "another's business" {
				t.Fatalf("%+v", a)
			}
		}
	})
	t.Run("to be reset, and dead already", func(t *testing.T) {
		w := newLocalWorld(t)
		w.dead(state.ProofCleanStop)
		w.s.Nodes["n1"].Resetting = "b cannot be released"
		w.want()
	})
	t.Run("this boot is over, and its number not known", func(t *testing.T) {
		w := newLocalWorld(t)
		w.s.Nodes["n1"].OldBoots, w.s.Nodes["n1"].BootID = []string{"boot1"}, "boot2"
		w.view.Incarnation = 0
		w.want("reset")
	})
	t.Run("a boot that the log has not numbered is not touched by the death of the last", func(t *testing.T) {
		w := newLocalWorld(t)
		w.dead(state.ProofOperator)
		w.view.BootID, w.view.Incarnation = "boot2", 0
		w.want()
	})
}

// Nothing is armed, and no arming is proposed, before the log knows this incarnation.
func TestNothingIsArmedBeforeTheLogKnowsTheIncarnation(t *testing.T) {
	w := newLocalWorld(t)
	w.set(LocalGroup{Seen: SeenRunning})
	w.want("arm")
	w.view.Incarnation = 0
	w.want()
	w.view.Incarnation = 1
	w.view.Armed, w.view.Arming = true, "x"
	w.want("propose-armed")
	w.view.Incarnation = 0
	w.want()
}

// Something that may run keeps the deadman armed, whatever the log says of it.
func TestWhatMayRunArms(t *testing.T) {
	for how, g := range mayRun {
		if how == "started" { // it was seen stopped since: it is stopped once more, and no more than that
			continue
		}
		w := newLocalWorld(t)
		w.set(g)
		t.Log(how)
		got := Local(w.s, "n1", nil, w.view)
		if len(got) == 0 || got[len(got)-1].Kind != DoArm {
			t.Fatalf("%s: the node does %+v", how, got)
		}
	}
	w := newLocalWorld(t)
	w.set(LocalGroup{})
	w.want("probe a") // what was not looked at is looked at first
}

// A group of which the definition knows nothing any more is looked at, and stopped.
func TestGroupsThatAreNoLongerDefined(t *testing.T) {
	w := newLocalWorld(t)
	w.view.Groups["zz"], w.view.Groups["gone"] = LocalGroup{}, LocalGroup{}
	w.want("probe gone", "probe zz")
	w.view.Groups["zz"], w.view.Groups["gone"] = LocalGroup{Seen: SeenStopped}, LocalGroup{Seen: SeenRunning}
	w.want("arm")
	w.armed()
	w.granted()
	w.want("stop gone")
	for _, a := range Local(w.s, "n1", w.grant, w.view) {
		if a.Generation != 0 {
			t.Fatalf("%+v", a)
		}
	}
}

// What is not ours is stopped with the generation that the log gave out last, and said to be foreign only if this process has
// not started it.
func TestStopOfWhatIsNotOurs(t *testing.T) {
	w := newLocalWorld(t)
	gen := w.acquire("n2")
	w.armed()
	w.granted()
	for _, c := range []struct {
		g       LocalGroup
		foreign bool
	}{
		{LocalGroup{Seen: SeenRunning}, true},
		{LocalGroup{Seen: SeenPartly}, true},
		{LocalGroup{Seen: SeenUnclear}, true},
		{LocalGroup{Seen: SeenRunning, Started: 1}, false},
		{LocalGroup{Seen: SeenStopped, Started: 1}, false},
		{LocalGroup{Seen: SeenStopped, Busy: Starting}, false},
		{LocalGroup{Busy: Starting}, false},
		{LocalGroup{Seen: SeenRunning, StopFailed: true}, true},
		{LocalGroup{Seen: SeenUnclear, StopFailed: true, Busy: Starting}, false},
	} {
		w.set(c.g)
		a := Local(w.s, "n1", w.grant, w.view)
		if len(a) != 1 || a[0].Kind != DoStop || a[0].Foreign != c.foreign || a[0].Generation != gen || a[0].Since != 0 {
			t.Fatalf("%+v: the node does %+v", c.g, a)
		}
	}
	w.set(LocalGroup{Seen: SeenUnclear, StopFailed: true}) // a stop that failed: it may have ended since
	w.want("probe a")
	w.set(LocalGroup{Seen: SeenRunning, Busy: Probing})
	w.want()
}

// Within one boot only a grant, a release that has begun, or a lease that is old says that a group is not ours.
func TestNothingIsStoppedOnAnOldState(t *testing.T) {
	w := newLocalWorld(t)
	w.armed()
	w.set(LocalGroup{Seen: SeenRunning, Started: 1})
	w.want("request-grant")
	w.granted()
	w.grant.Applied++
	w.want("request-grant")
	w.set(LocalGroup{Seen: SeenRunning, Started: 1, Leaving: true})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenRunning, Started: 1})
	w.view.Soft = true
	w.want("stop a")
	w.view.Soft = false
	w.grant.Applied--
	w.want("stop a")
}

// A stop that failed is reported for that stop only: an order of a later time is tried again.
func TestFailedStopIsReportedForItsOwnOrder(t *testing.T) {
	w, gen := withGroup(t)
	w.release(gen)
	since := w.s.Instance("a", "n1").Since
	w.set(LocalGroup{Seen: SeenPartly, StopFailed: true, StopFailedSince: since - 1})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenPartly, StopFailed: true})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenPartly, StopFailedSince: since})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenPartly, StopFailed: true, StopFailedSince: since})
	w.want("report a release-failed")
	w.set(LocalGroup{Seen: SeenPartly, Busy: Starting, StopFailed: true, StopFailedSince: since}) // the start is to be cancelled first
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped, Started: gen})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped, Busy: Starting})
	w.want("stop a")
	a := Local(w.s, "n1", w.grant, w.view)
	if a[0].Since != since || a[0].Generation != gen {
		t.Fatalf("the node does %+v", a)
	}
	w.set(LocalGroup{}) // not looked at: it may run
	w.want("stop a")
	w.view.Armed, w.view.Arming = false, ""
	w.want("stop a", "arm")
	w.set(LocalGroup{StopFailed: true, StopFailedSince: since})
	w.want("report a release-failed", "arm")
}

// A group in ERROR is looked at until it is found stopped; then it is promised.
func TestGroupInErrorIsProbed(t *testing.T) {
	w, gen := withGroup(t)
	w.release(gen)
	w.report(gen, state.OutcomeReleaseFailed)
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("tombstone a")
	w.set(LocalGroup{Seen: SeenStopped, Started: gen})
	w.want("stop a")
	w.set(LocalGroup{Seen: SeenStopped, Busy: Starting})
	w.want()
	for _, seen := range []Seen{NotProbed, SeenRunning, SeenPartly, SeenUnclear} {
		w.set(LocalGroup{Seen: seen})
		w.want("probe a")
	}
	w.view.Armed, w.view.Arming = false, "" // what cannot be released may run: the deadman is armed again
	w.set(LocalGroup{})
	w.want("probe a", "arm")
}

// What was started at another generation is stopped before this one starts; what runs is adopted; what runs in part is started.
func TestWhatIsFoundBeforeAStart(t *testing.T) {
	w, gen := withGroup(t)
	for _, c := range []struct {
		g    LocalGroup
		want []string
	}{
		{LocalGroup{Seen: SeenRunning, Started: gen + 1}, []string{"stop a"}},
		{LocalGroup{}, []string{"probe a"}},
		{LocalGroup{Seen: SeenStopped}, []string{"start a"}},
		{LocalGroup{Seen: SeenPartly}, []string{"start a"}},
		{LocalGroup{Seen: SeenUnclear}, []string{"start a"}},
		{LocalGroup{Seen: SeenRunning}, []string{"adopt a"}},
		{LocalGroup{Seen: SeenRunning, Busy: Starting}, nil},
		{LocalGroup{Seen: SeenRunning, Started: gen}, []string{"report a online"}},
		{LocalGroup{Seen: SeenStopped, StartFailed: gen + 1}, []string{"start a"}},
		{LocalGroup{Seen: SeenPartly, Leaving: true}, []string{"stop a"}},
	} {
		w.set(c.g)
		t.Logf("%+v", c.g)
		w.want(c.want...)
	}
	w.view.Soft = true // nothing starts under an old lease, and nothing is to be stopped
	w.set(LocalGroup{Seen: SeenStopped})
	w.want()
	w.set(LocalGroup{Seen: SeenUnclear})
	w.want("stop a")
	w.view.Soft = false
	w.report(gen, state.OutcomeOnline)
	w.set(LocalGroup{Seen: SeenUnclear})
	w.want("probe a")
	w.set(LocalGroup{Seen: SeenPartly})
	w.want("start a")
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("tombstone a")
}

// An application's failure is said once.
func TestApplicationFailureIsSaidOnce(t *testing.T) {
	w, gen := withGroup(t)
	w.report(gen, state.OutcomeOnline)
	w.set(LocalGroup{Seen: SeenRunning, Started: gen, AppFailed: gen + 1})
	w.want()
	w.set(LocalGroup{Seen: SeenRunning, Started: gen, AppFailed: gen})
	w.want("report a app-failed")
	w.report(gen, state.OutcomeAppFailed)
	w.want()
}

// Of a grant counts what it lists, unless the instance is newer than what it rests on.
func TestGrantThatIsOlderThanTheInstance(t *testing.T) {
	w := newLocalWorld(t)
	w.armed()
	w.granted()
	w.acquire("n1")
	w.set(LocalGroup{Busy: Starting})
	w.want()
	w.set(LocalGroup{Seen: SeenStopped})
	w.want("request-grant")
	since, gen := w.s.Instance("a", "n1").Since, w.s.Instance("a", "n1").Generation
	w.set(LocalGroup{Seen: SeenRunning})
	w.grant.Applied, w.grant.Hold = since, nil // it rests on the very entry that gave the group away, and lacks it
	w.want("stop a")
	w.grant.Hold = []lease.Held{{Group: "a", Generation: gen, Releasing: true}}
	w.want("stop a")
	w.grant.Applied = since - 1
	w.want("request-grant")
	w.grant.Hold = []lease.Held{{Group: "a", Generation: gen}}
	w.want("adopt a")
}

// A report of a promise waits for a look at the machine.
func TestPromiseIsReportedAfterALook(t *testing.T) {
	w, gen := withGroup(t)
	w.set(LocalGroup{Tombstone: gen})
	w.want("probe a")
	for _, g := range mayRun {
		g.Tombstone = gen
		w.set(g)
		if g.Busy == Stopping {
			w.want()
			continue
		}
		w.want("stop a")
	}
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen, StartFailed: gen + 1})
	w.want("report a released", "disarm")
}

// The deadman is disarmed only when every group is known to be stopped and promised, or is UNMANAGED with nothing under way.
func TestDisarm(t *testing.T) {
	w := newLocalWorld(t)
	w.armed()
	w.granted()
	w.want("disarm")
	w.view.Groups["b"] = LocalGroup{Seen: SeenStopped, Busy: Probing}
	w.want()
	w.view.Groups["b"] = LocalGroup{Seen: SeenStopped}
	gen := w.acquire("n1")
	w.report(gen, state.OutcomeOnline)
	w.do(state.Command{NodeServices: &state.NodeServices{Nodes: []string{"n1"}, Stop: state.StopUnmanage}})
	w.set(LocalGroup{Seen: SeenRunning, Busy: Probing})
	w.want()
	w.set(LocalGroup{Seen: SeenRunning, Busy: Starting})
	w.want()
	w.set(LocalGroup{Seen: SeenRunning})
	w.want("disarm")
	w.view.Groups["b"] = LocalGroup{Seen: SeenStopped, Busy: Stopping}
	w.want()
	w.view.Groups["b"] = LocalGroup{}
	w.want("probe b")
}

// The log hears that the deadman is disarmed only from this incarnation, and only while nothing is held.
func TestTellDisarmed(t *testing.T) {
	w := newLocalWorld(t)
	w.want() // it was never armed
	w.armed()
	w.view.Armed, w.view.Arming = false, ""
	w.want("tell-disarmed")
	if a := Local(w.s, "n1", nil, w.view); a[0].Arming != "x" {
		t.Fatalf("%+v", a)
	}
	w.view.Incarnation = 0
	w.want()
	w.view.Incarnation = 1
	gen := w.acquire("n1")
	w.set(LocalGroup{Seen: SeenStopped, Tombstone: gen}) // held, until the report is in the log
	w.want("report a released")
	w.report(gen, state.OutcomeReleased)
	w.want("tell-disarmed")
	armed := w.s.Nodes["n1"].Armed
	w.s.Nodes["n1"].Armed = nil
	w.want()
	w.s.Nodes["n1"].Armed, w.s.Nodes["n1"].Arming = armed, ""
	w.want()
}

// Nothing starts unless the deadman is armed, the log has it, and the grant was asked for under that very arming.
func TestUnderLease(t *testing.T) {
	fresh := func() *localWorld {
		w, _ := withGroup(t)
		w.want("start a")
		return w
	}
	for what, spoil := range map[string]func(*localWorld){
		"disarmed":             func(w *localWorld) { w.view.Armed = false },
		"no nonce":             func(w *localWorld) { w.view.Arming, w.view.GrantArming, w.s.Nodes["n1"].Arming = "", "", "" },
		"the log has another":  func(w *localWorld) { w.s.Nodes["n1"].Arming = "y" },
		"the log has no fact":  func(w *localWorld) { w.s.Nodes["n1"].Armed = nil },
		"the grant is older":   func(w *localWorld) { w.view.GrantArming = "y" },
		"the grant is another": func(w *localWorld) { w.grant.Incarnation = 2 },
	} {
		w := fresh()
		spoil(w)
		for _, a := range Local(w.s, "n1", w.grant, w.view) {
			if a.Kind == DoStart {
				t.Errorf("%s: it starts", what)
			}
		}
	}
}
