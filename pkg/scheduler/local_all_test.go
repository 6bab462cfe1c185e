package scheduler

import (
	"fmt"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// localCase is one combination of what a node can know of a group.
type localCase struct {
	inst     state.InstanceState // of the group here; Offline: not held
	foreign  bool                // not held here, but on the other node
	g        LocalGroup
	armed    bool // armed, committed, and the grant requested under it
	grant    string
	soft     bool
	newBoot  bool
	suspect  string // the incarnation is over: "dead", "reset"
	instance state.Instance
}

// TestLocalInEverySituation goes through every combination of what a node can know of one group, and checks the rules that keep
// data safe, and that something always happens where something must. The rules are written here once more, not taken from Local.
func TestLocalInEverySituation(t *testing.T) {
	count := 0
	logs := map[string]*localWorld{}
	each := func(c localCase) {
		key := fmt.Sprint(c.inst, c.foreign, c.armed, c.suspect)
		if logs[key] == nil {
			logs[key] = caseLog(t, &c)
		}
		w := *logs[key]
		c.look(&w)
		acts := Local(w.s, "n1", w.grant, w.view)
		count++
		if why := unsafe(&c, &w, acts); why != "" {
			t.Fatalf("%+v\ngrant %+v\ndoes %+v\n%s", c, w.grant, acts, why)
		}
		if again := Local(w.s, "n1", w.grant, w.view); fmt.Sprint(again) != fmt.Sprint(acts) {
			t.Fatalf("%+v: not deterministic", c)
		}
	}
	for _, inst := range []state.InstanceState{state.Offline, state.Acquiring, state.Online, state.Releasing, state.Error, state.Unmanaged} {
		for _, seen := range []Seen{NotProbed, SeenStopped, SeenRunning, SeenPartly, SeenUnclear} {
			for _, busy := range []Busy{Idle, Probing, Starting, Stopping} {
				for flags := range 1 << 5 {
					for _, grant := range []string{"lists", "lacks", "older", "ahead", "none", "stop"} {
						for mode := range 5 {
							each(localCase{inst: inst, grant: grant, foreign: flags&1 != 0, armed: mode != 0, soft: mode == 2, newBoot: mode == 3,
								suspect: map[int]string{4: "dead"}[mode],
								g: LocalGroup{Seen: seen, Busy: busy, Started: pickGen(flags & 2), Tombstone: pickGen(flags & 4), Leaving: flags&8 != 0,
									StartFailed: pickGen(flags & 16)}})
						}
					}
				}
			}
		}
	}
	t.Logf("%d situations", count)
}

// pickGen stands for "this generation" until it is known.
func pickGen(flag int) uint64 {
	if flag != 0 {
		return 1
	}
	return 0
}

// caseLog builds the log of a case.
func caseLog(t *testing.T, c *localCase) *localWorld {
	w := newLocalWorld(t)
	report := func(gen uint64, o state.Outcome) {
		w.do(state.Command{Report: &state.Report{Node: "n1", Incarnation: 1, Group: "a", Generation: gen, Outcome: o}})
	}
	if c.armed {
		w.armed()
	}
	gen := uint64(0)
	if c.inst != state.Offline {
		gen = w.acquire("n1")
	} else if c.foreign {
		w.acquire("n2")
	}
	switch c.inst {
	case state.Online, state.Releasing, state.Error, state.Unmanaged:
		report(gen, state.OutcomeOnline)
	}
	switch c.inst {
	case state.Releasing, state.Error:
		w.do(state.Command{Release: &state.Release{Node: "n1", Incarnation: 1, Group: "a", Generation: gen, Cause: state.CauseMove, Reason: "test"}})
	case state.Unmanaged:
		w.do(state.Command{UnmanageGroup: &state.UnmanageGroup{Group: "a"}})
	}
	if c.inst == state.Error {
		report(gen, state.OutcomeReleaseFailed)
	}
	if c.suspect == "dead" {
		w.do(state.Command{Proof: &state.Proof{Node: "n1", Incarnation: 1, Kind: state.ProofOperator}})
	}
	return w
}

// look completes the case: what the node knows.
func (c *localCase) look(w *localWorld) {
	c.instance = w.s.Instance("a", "n1")
	gen := c.instance.Generation
	set := func(v *uint64) {
		if *v != 0 {
			*v = max(gen, 1)
		}
	}
	set(&c.g.Started)
	set(&c.g.Tombstone)
	set(&c.g.StartFailed)
	w.view.Groups = map[string]LocalGroup{"a": c.g, "b": {Seen: SeenStopped}}
	c.makeGrant(w, gen)
	w.view.Soft = c.soft
	if c.newBoot {
		w.view.BootID, w.view.Incarnation = "boot2", 0
	}
}

func (c *localCase) makeGrant(w *localWorld, gen uint64) {
	w.grant = nil
	g := &lease.Grant{Node: "n1", Incarnation: 1, Term: 1, Applied: w.s.Index}
	held := lease.Held{Group: "a", Generation: gen}
	switch c.grant {
	case "none":
		return
	case "lists":
		g.Hold = []lease.Held{held}
	case "stop":
		held.Releasing = true
		g.Hold = []lease.Held{held}
	case "older":
		g.Applied = 1
	case "ahead":
		g.Applied = w.s.Index + 1
		g.Hold = []lease.Held{held}
	}
	w.grant = g
	if c.armed {
		w.view.GrantArming = w.view.Arming
	}
}

// unsafe says which rule an action breaks; empty if none.
func unsafe(c *localCase, w *localWorld, acts []LocalAction) string {
	g, gen := c.g, c.instance.Generation
	mine := c.inst != state.Offline && !c.newBoot && c.suspect == ""
	runs := g.Seen == SeenRunning || g.Seen == SeenPartly || g.Seen == SeenUnclear || g.Started != 0 || g.Busy == Starting
	onGroup := 0
	does := map[LocalKind]bool{}
	for _, a := range acts {
		does[a.Kind] = true
		if a.Group == "a" {
			onGroup++
		}
		switch a.Kind {
		case DoStart, DoAdopt:
			switch {
			case !mine || c.inst != state.Acquiring && c.inst != state.Online:
				return "it starts what the log does not give it"
			case c.grant != "lists" || !c.armed:
				return "it starts without a grant that lists it, or that was requested before arming"
			case g.Tombstone >= gen:
				return "it starts a generation that it has promised not to"
			case c.soft || g.Leaving && g.Seen != SeenStopped:
				return "it starts while it should release"
			case g.Busy != Idle || g.Seen == NotProbed:
				return "it starts what it has not looked at"
			case a.Kind == DoAdopt && g.Seen != SeenRunning:
				return "it adopts what does not run"
			case a.Generation != gen:
				return "it starts another generation"
			}
		case DoTombstone:
			if g.Seen != SeenStopped || g.Busy != Idle || g.Started != 0 {
				return "it promises before it has seen it stopped"
			}
		case DoReport:
			stopped := a.Outcome == state.OutcomeReleased || a.Outcome == state.OutcomeAcquireFailed || a.Outcome == state.OutcomeFoundStopped
			switch {
			case !mine || a.Generation != gen:
				return "it reports what is not its own"
			case stopped && (g.Tombstone < gen || g.Seen != SeenStopped || g.Busy != Idle):
				return "it says stopped without having seen it and promised"
			case a.Outcome == state.OutcomeOnline && (g.Started != gen || c.inst != state.Acquiring):
				return "it says online of what it has not started"
			}
		case DoStop:
			switch {
			case mine && c.inst == state.Unmanaged:
				return "it stops what is UNMANAGED"
			case g.Busy == Stopping || g.Busy == Probing:
				return "it does two things at a time"
			case c.inst == state.Online && c.grant == "lists" && c.armed && !c.soft && !g.Leaving && g.Tombstone < gen && g.StartFailed == 0 && mine:
				return "it stops what it may run"
			case !mine && !c.newBoot && c.grant != "lists" && c.grant != "lacks" && c.grant != "stop" && !g.Leaving && !c.soft && c.grant != "older":
				return "it stops on an old state what may be its own"
			}
		case DoDisarm:
			if !(mine && c.inst == state.Unmanaged) && (runs || g.Busy != Idle || g.Seen != SeenStopped || mine && g.Tombstone < gen) {
				return "it disarms while something may run"
			}
		case DoReset:
			if c.suspect == "" {
				return "it resets a node that lives"
			}
		}
	}
	switch {
	case onGroup > 1:
		return "it does several things with one group"
	case c.suspect == "dead" && !c.newBoot && !does[DoReset]:
		return "it is dead and does not reset"
	case c.suspect == "dead" && len(acts) != 1:
		return "it is dead and does more than reset"
	case mine && c.inst == state.Releasing && g.Busy != Stopping && g.Busy != Probing && onGroup == 0:
		return "a release stands still"
	case mine && c.inst == state.Acquiring && g.Busy == Idle && c.armed && c.grant == "lists" && !c.soft && onGroup == 0:
		return "an acquisition stands still"
	case mine && c.inst == state.Acquiring && g.Busy == Idle && !c.armed && g.Tombstone == 0 && !g.Leaving && g.StartFailed == 0 && !does[DoArm] && onGroup == 0:
		return "nothing arms for an acquisition"
	case mine && c.inst == state.Acquiring && g.Busy == Idle && c.armed && g.Seen == SeenStopped && g == (LocalGroup{Seen: SeenStopped}) && c.grant != "lists" &&
		c.grant != "lacks" && c.grant != "stop" && !does[DoRequestGrant]:
		return "no grant is asked for"
	case mine && c.soft && (c.inst == state.Acquiring || c.inst == state.Online) && runs && g.Busy == Idle && g.Tombstone == 0 && !does[DoStop] && !does[DoReport]:
		return "nothing is released although the lease is old"
	case !mine && c.suspect == "" && runs && g.Busy == Idle && (c.newBoot || c.grant == "lacks") && !does[DoStop] && !does[DoProbe]:
		return "what is not its own runs on"
	case mine && c.inst == state.Unmanaged && runs && g.Started != 0 && g.Busy == Idle && !does[DoUnmanage]:
		return "the monitors of what is UNMANAGED go on"
	}
	return ""
}
