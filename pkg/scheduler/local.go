package scheduler

import (
	"sort"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A LocalView is what a node's agent knows of its own machine, as plain values. The agent calls Local after every change of
// it, of the state, or of the grant; it carries out the actions asynchronously, each at most once at a time, and calls again
// when their effect shows. All actions are idempotent and are repeated until something changes.
type LocalView struct {
	// BootID and Life are this boot's; Incarnation is what the log answered to its NodeBoot, 0 while that is not known.
	BootID      string
	Incarnation uint64
	// Armed is the deadman's state; Arming is the nonce of its current arming, empty when disarmed.
	Armed  bool
	Arming string
	// GrantArming is the arming under which the grant was requested: empty if the deadman was disarmed then.
	GrantArming string
	// Soft: no new grant came within L_soft. The agent releases its groups in order; nothing may start.
	Soft bool
	// Isolated: the newest grant came by the repository volume. The agent releases its groups in order, under grants that allow that
	// much; nothing may start. Its own state may be old, and no grant says more of it: stopping is never wrong.
	Isolated bool
	// CaughtUp was true once since the agent's process began (the function). Before, the log of a daemon that was started again may be
	// of before a group was managed again, and adopted here by the process before; to take that group for unmanaged and disarm would
	// let the others prove by time, with the Armed fact of the adoption, that what runs here is gone.
	CaughtUp bool
	// Groups by name. A group that is missing has not been looked at: its zero value.
	Groups map[string]LocalGroup
}

// Seen is what the newest probe found, as a whole for all resources of a group.
type Seen string

const (
	NotProbed   Seen = ""        // not probed since the process began, or since the last action, or an older action still runs
	SeenStopped Seen = "stopped" // all of it is gone
	SeenRunning Seen = "running" // all of it runs
	SeenPartly  Seen = "partly"  // some of it runs, or not well
	SeenUnclear Seen = "unclear" // it cannot be said: never to be taken for stopped
)

// Busy is the action on a group that is under way.
type Busy string

const (
	Idle     Busy = ""
	Probing  Busy = "probing"
	Starting Busy = "starting"
	Stopping Busy = "stopping"
)

// A LocalGroup is what the agent knows of one group on its machine.
type LocalGroup struct {
	Seen Seen
	Busy Busy
	// Tombstone is the highest generation that this node has promised never to start (again); on its own disk.
	Tombstone uint64
	// Started is the generation that this process has started or adopted with success; 0 when it has not, or has begun to stop it.
	Started uint64
	// StartFailed is the generation whose start has failed in this process, with a sentence.
	StartFailed uint64
	StartWhy    string
	// StopFailed is set when the last stop did not end in stopped: StopFailedSince is the instance's Since for which it was tried,
	// 0 for a stop that the node itself began.
	StopFailed      bool
	StopFailedSince uint64
	StopWhy         string
	// AppFailed is the generation whose application has failed beyond its restarts, action fallover.
	AppFailed uint64
	AppWhy    string
	// Leaving: a release that the node itself began (soft, or not listed) is not finished. It is finished even if a grant comes back.
	Leaving bool
}

// LocalKind is what a node is to do.
type LocalKind string

const (
	DoArm          LocalKind = "arm"           // arm the deadman (a new arming)
	DoProposeArmed LocalKind = "propose-armed" // commit the Armed fact of the current arming
	DoRequestGrant LocalKind = "request-grant" // ask for a grant at once, out of turn
	DoProbe        LocalKind = "probe"
	DoStart        LocalKind = "start"     // start, in resource order; what runs is left alone
	DoAdopt        LocalKind = "adopt"     // take what runs as started: begin its monitors
	DoStop         LocalKind = "stop"      // cancel a start under way, stop, probe
	DoUnmanage     LocalKind = "unmanage"  // end the monitors and let it run
	DoTombstone    LocalKind = "tombstone" // write (group, generation) durably; only when stopped
	DoReport       LocalKind = "report"    // propose Outcome for (group, generation)
	DoDisarm       LocalKind = "disarm"
	DoTellDisarmed LocalKind = "tell-disarmed" // commit Disarmed for the arming named
	DoReset        LocalKind = "reset"         // reset the node
	DoNewLife      LocalKind = "new-life"      // begin a new incarnation of the same boot: nothing runs here
)

// A LocalAction is one thing to do. Reason is one sentence.
type LocalAction struct {
	Kind       LocalKind     `json:"kind"`
	Group      string        `json:"group,omitempty"`
	Generation uint64        `json:"generation,omitempty"`
	Outcome    state.Outcome `json:"outcome,omitempty"`
	// Since is the instance's Since, for StopFailedSince; 0 for a stop that the node itself begins.
	Since  uint64 `json:"since,omitempty"`
	Arming string `json:"arming,omitempty"`
	// Foreign: the group was found running although the log gives it to nobody here: raise an event.
	Foreign bool   `json:"foreign,omitempty"`
	Reason  string `json:"reason"`
}

// Local says what a node does about its own instances. v is the node's own state at its own applied index; grant is the
// newest by (term, applied index) among those requested after the agent's process began, nil for none.
//
// The order of an acquisition is: arm; commit Armed; ask for a grant under that arming; first executor step. Nothing starts or
// is adopted that the grant does not list, or before the node has applied what the grant's list rests on (attack A1); nothing
// starts at a generation with a tombstone (A7); what runs and is not listed is stopped.
func Local(v *state.State, node string, grant *lease.Grant, local LocalView) []LocalAction {
	l := localPlan{v: v, name: node, n: v.Nodes[node], grant: grant, view: local}
	if l.n == nil || v.Definition == nil {
		return nil
	}
	l.oldBoot = contains(l.n.OldBoots, local.BootID)
	l.newBoot = l.n.BootID != local.BootID && !l.oldBoot
	if l.ends() {
		return l.out
	}
	l.current = !l.newBoot && local.Incarnation != 0 && local.Incarnation == l.n.Incarnation && l.n.Dead == nil
	names := v.GroupNames()
	for name := range local.Groups {
		if v.Groups[name] == nil {
			names = append(names, name)
		}
	}
	sort.Strings(names[len(v.Definition.ResourceGroups):])
	for _, name := range names {
		l.group(name, local.Groups[name])
	}
	l.deadman()
	return l.out
}

type localPlan struct {
	v       *state.State
	name    string
	n       *state.Node
	grant   *lease.Grant
	view    LocalView
	newBoot bool // the log has not numbered this boot yet: nothing that runs here is ours
	oldBoot bool // the log has numbered a later boot: this one is over
	current bool // the log knows this incarnation, and it lives
	wantArm bool // something here runs, may run, or is to run
	ask     bool // a grant is wanted at once
	out     []LocalAction
}

func (l *localPlan) do(a LocalAction) {
	if a.Reason == "" {
		a.Reason = "the log says so"
	}
	l.out = append(l.out, a)
}

// ends handles a node whose incarnation is over, or is to end.
func (l *localPlan) ends() bool {
	if l.newBoot || !l.oldBoot && (l.view.Incarnation == 0 || l.view.Incarnation > l.n.Incarnation) {
		return false
	}
	over := l.oldBoot || l.view.Incarnation < l.n.Incarnation
	switch {
	case !over && l.n.Dead == nil && l.n.Resetting != "":
		l.do(LocalAction{Kind: DoReset, Reason: l.n.Resetting})
		return true
	case !over && l.n.Dead == nil:
		return false
	case !over && l.n.Dead.Kind == state.ProofCleanStop && l.untouched():
		return true
	case !over && l.n.Dead.Kind == state.ProofNeverArmed && l.untouched():
		l.do(LocalAction{Kind: DoNewLife, Reason: "this incarnation was declared dead without having armed: it has started nothing"})
		return true
	}
	if !over && l.n.Dead.Kind == state.ProofTime && l.survived() {
		return true
	}
	l.do(LocalAction{Kind: DoReset, Reason: "this incarnation is dead for the cluster: what runs here may run elsewhere"})
	return true
}

// survived deals with a node that let go of everything in order while its lease ran out: it needs no reset to come back. It
// reports false if something may still run here.
func (l *localPlan) survived() bool {
	probing := false
	for _, name := range l.v.GroupNames() {
		g := l.view.Groups[name]
		switch {
		case g.Busy == Starting || g.Busy == Stopping || g.Started != 0 || g.Seen == SeenRunning || g.Seen == SeenPartly || g.Seen == SeenUnclear:
			return false
		case g.Busy == Probing:
			probing = true
		case g.Seen == NotProbed:
			probing = true
			l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "before this boot may begin a new life"})
		}
	}
	switch {
	case probing:
	case l.view.Armed:
		l.do(LocalAction{Kind: DoDisarm, Reason: "everything here is stopped, and this incarnation is over"})
	default:
		l.do(LocalAction{Kind: DoNewLife, Reason: "the lease of this incarnation ran out, and everything was let go of in time"})
	}
	return true
}

// untouched reports whether nothing runs here and nothing is armed.
func (l *localPlan) untouched() bool {
	if l.view.Armed {
		return false
	}
	for _, g := range l.view.Groups {
		if g.Busy == Starting || g.Busy == Stopping || g.Started != 0 || g.Seen != SeenStopped && g.Seen != NotProbed {
			return false
		}
	}
	return true
}

// granted reports whether the node's own state has reached the grant, and whether the grant lists the group.
func (l *localPlan) granted(group string, generation uint64) (reached, listed, onlyStop bool) {
	if l.grant == nil || l.grant.Incarnation != l.view.Incarnation {
		return false, false, false
	}
	listed, onlyStop = l.grant.Lists(group, generation)
	return l.v.Index >= l.grant.Applied, listed, onlyStop
}

// group plans one group.
func (l *localPlan) group(name string, g LocalGroup) {
	inst := l.v.Instance(name, l.name)
	mine := l.current && inst.Held && inst.Incarnation == l.view.Incarnation
	if g.Busy == Starting || g.Busy == Stopping || g.Seen != SeenStopped && g.Seen != NotProbed {
		l.wantArm = l.wantArm || !(mine && inst.State == state.Unmanaged)
	}
	if g.Busy == Probing || g.Busy == Stopping {
		return // one action per group at a time
	}
	switch {
	case mine && inst.State == state.Unmanaged:
		if g.Started != 0 {
			l.do(LocalAction{Kind: DoUnmanage, Group: name, Generation: inst.Generation, Reason: "the group is UNMANAGED here"})
		}
	case mine && inst.Generation <= g.Tombstone:
		l.promised(name, g, inst)
	case mine:
		l.held(name, g, inst)
	default:
		l.notOurs(name, g)
	}
}

// promised repeats the report of what was released, and never starts it again.
func (l *localPlan) promised(name string, g LocalGroup, inst state.Instance) {
	switch {
	case l.runsHere(g):
		l.do(LocalAction{Kind: DoStop, Group: name, Generation: inst.Generation, Since: inst.Since, Reason: "it was released here at this generation"})
	case g.Seen == NotProbed:
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "before a report"})
	case g.StartFailed == inst.Generation:
		l.report(name, inst, state.OutcomeAcquireFailed, g.StartWhy)
	default:
		l.report(name, inst, state.OutcomeReleased, "stopped and tombstoned")
	}
}

func (l *localPlan) report(name string, inst state.Instance, o state.Outcome, why string) {
	l.do(LocalAction{Kind: DoReport, Group: name, Generation: inst.Generation, Outcome: o, Reason: why})
}

// held plans a group that the log gives to this incarnation.
func (l *localPlan) held(name string, g LocalGroup, inst state.Instance) {
	reached, listed, onlyStop := l.granted(name, inst.Generation)
	missing := reached && !listed && inst.Since <= l.grant.Applied // the list is newer than the instance, and lacks it
	// A release that has ended in stopped is over, however it came to that: what is to run here now is another generation, which
	// would else be given back as fast as it comes.
	leaving := g.Leaving && g.Busy == Idle && g.Seen != SeenStopped
	switch {
	case inst.State == state.Releasing || inst.State == state.Unknown:
		l.stop(name, g, inst, inst.Since, inst.Sentence)
	case inst.State == state.Error:
		l.heal(name, g, inst)
	case leaving || l.view.Soft && l.runsHere(g):
		l.stop(name, g, inst, 0, "the lease was not renewed in time")
	case l.view.Isolated && (l.grant == nil || inst.Since <= l.grant.Applied) && (l.runsHere(g) || g.Busy == Idle && g.Seen == SeenStopped):
		// Not what was given after that grant: this node is not cut off any more, or leads itself, and only has no newer grant yet. It
		// would give it back as fast as it comes.
		l.stop(name, g, inst, 0, "the networks do not reach this node: it hands over what it holds")
	case missing || reached && onlyStop && inst.Since <= l.grant.Applied:
		l.stop(name, g, inst, 0, "the newest grant does not list it")
	case g.StartFailed == inst.Generation:
		l.stop(name, g, inst, 0, g.StartWhy)
	default:
		l.wantArm = true
		l.run(name, g, inst, reached && listed && !onlyStop)
	}
}

func (l *localPlan) runsHere(g LocalGroup) bool {
	return g.Busy == Starting || g.Started != 0 || g.Seen == SeenRunning || g.Seen == SeenPartly || g.Seen == SeenUnclear
}

// stop goes from whatever there is to stopped, tombstoned, reported.
func (l *localPlan) stop(name string, g LocalGroup, inst state.Instance, since uint64, why string) {
	failed := g.StopFailed && g.StopFailedSince == since
	switch {
	case g.Busy != Starting && g.Seen == SeenStopped && g.Started == 0:
		l.do(LocalAction{Kind: DoTombstone, Group: name, Generation: inst.Generation, Reason: "it is stopped here"})
	case failed && g.Busy == Idle:
		l.wantArm = true
		l.report(name, inst, state.OutcomeReleaseFailed, g.StopWhy)
	default:
		l.wantArm = true
		l.do(LocalAction{Kind: DoStop, Group: name, Generation: inst.Generation, Since: since, Reason: why})
	}
}

// heal reports a group as released when it is found stopped after its release had failed.
func (l *localPlan) heal(name string, g LocalGroup, inst state.Instance) {
	switch {
	case g.Busy != Idle:
	case g.Seen == SeenStopped && g.Started != 0: // its monitors may still run, and start it again
		l.do(LocalAction{Kind: DoStop, Group: name, Generation: inst.Generation, Since: inst.Since, Reason: "its release has failed"})
	case g.Seen == SeenStopped:
		l.do(LocalAction{Kind: DoTombstone, Group: name, Generation: inst.Generation, Reason: "it is stopped now"})
	default:
		l.wantArm = true
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "its release has failed"})
	}
}

// run starts or adopts, under a grant that was asked for under this arming.
func (l *localPlan) run(name string, g LocalGroup, inst state.Instance, listed bool) {
	if g.Started == inst.Generation {
		switch {
		case inst.State == state.Acquiring:
			l.report(name, inst, state.OutcomeOnline, "all its resources are acquired")
		case g.AppFailed == inst.Generation && !inst.Failed:
			l.report(name, inst, state.OutcomeAppFailed, g.AppWhy)
		}
		return
	}
	switch {
	case g.Busy != Idle:
	case g.Started != 0: // of another generation: it would not be this process's to adopt
		l.do(LocalAction{Kind: DoStop, Group: name, Generation: inst.Generation, Since: 0, Reason: "it was started at another generation"})
	case g.Seen == NotProbed:
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "before anything else"})
	case inst.State == state.Online && g.Seen == SeenStopped: // it ran before this process began
		l.do(LocalAction{Kind: DoTombstone, Group: name, Generation: inst.Generation, Reason: "it was to run here and is stopped"})
	case !l.underLease() || !listed:
		l.ask = true
	case l.view.Soft || l.view.Isolated:
	case g.Seen == SeenRunning:
		l.do(LocalAction{Kind: DoAdopt, Group: name, Generation: inst.Generation, Reason: "it runs here, and the grant lists it"})
	case g.Seen == SeenUnclear && inst.State == state.Online:
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "what runs here could not be seen"})
	default:
		l.do(LocalAction{Kind: DoStart, Group: name, Generation: inst.Generation, Reason: inst.Sentence})
	}
}

// underLease reports whether the deadman is armed, the log has its Armed fact, and the grant was requested after arming.
func (l *localPlan) underLease() bool {
	return l.view.Armed && l.view.Arming != "" && l.n.Arming == l.view.Arming && l.n.Armed != nil && l.view.GrantArming == l.view.Arming
}

// notOurs stops what runs here although the log does not give it to this incarnation.
func (l *localPlan) notOurs(name string, g LocalGroup) {
	if g.Busy == Idle && g.Seen == NotProbed {
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "to know what runs here"})
		return
	}
	if g.Busy == Idle && g.Seen == SeenStopped && g.Started == 0 {
		return
	}
	reached, _, _ := l.granted(name, 0)
	// Within one boot the own state may be old: only a grant, and what it rests on, says that the group is not ours. In a new
	// boot nothing that runs can be ours.
	if !l.newBoot && !reached && !g.Leaving && !l.view.Soft {
		l.ask = true
		return
	}
	if g.StopFailed && g.Busy == Idle && g.Seen == SeenUnclear {
		l.do(LocalAction{Kind: DoProbe, Group: name, Reason: "it could not be stopped"})
		return
	}
	l.do(LocalAction{Kind: DoStop, Group: name, Generation: l.newest(name), Foreign: g.Started == 0 && g.Busy != Starting,
		Reason: "it runs here, and the log does not give it to this node"})
}

func (l *localPlan) newest(name string) uint64 {
	if g := l.v.Groups[name]; g != nil {
		return g.Generation
	}
	return 0
}

// deadman arms, commits, asks and disarms, as the groups need it.
func (l *localPlan) deadman() {
	switch {
	case l.wantArm && !l.view.Armed:
		if l.current { // before the log knows the incarnation there is nothing to arm for
			l.do(LocalAction{Kind: DoArm, Reason: "something runs here, or is about to"})
		}
		return
	case l.wantArm && l.n.Arming != l.view.Arming:
		if l.current {
			l.do(LocalAction{Kind: DoProposeArmed, Arming: l.view.Arming, Reason: "nothing starts before the log knows how the deadman is armed"})
		}
		return
	case l.ask:
		l.do(LocalAction{Kind: DoRequestGrant, Reason: "the grant does not list what the log gives to this node"})
	case !l.wantArm && l.view.Armed && l.allStopped():
		l.do(LocalAction{Kind: DoDisarm, Reason: "everything here is stopped and tombstoned, or unmanaged"})
	case !l.view.Armed && l.current && l.n.Arming != "" && l.n.Armed != nil && !l.anyHeld():
		l.do(LocalAction{Kind: DoTellDisarmed, Arming: l.n.Arming, Reason: "the deadman is disarmed"})
	}
}

// allStopped reports whether each group here is probed stopped and tombstoned, or UNMANAGED by the log.
func (l *localPlan) allStopped() bool {
	for _, name := range l.v.GroupNames() {
		inst, g := l.v.Instance(name, l.name), l.view.Groups[name]
		mine := l.current && inst.Held && inst.Incarnation == l.view.Incarnation
		switch {
		case mine && inst.State == state.Unmanaged && (g.Seen == SeenStopped || l.view.CaughtUp):
			if g.Busy != Idle {
				return false
			}
		case g.Busy != Idle || g.Seen != SeenStopped || g.Started != 0:
			return false
		case mine && inst.Generation > g.Tombstone:
			return false
		}
	}
	return true
}

// CaughtUp reports whether the node's own state is as new as the grant, if there is one. Once it was, for a grant requested since the
// agent's process began, the state is at least as new as what an earlier process of this node had acted on: see LocalView.CaughtUp.
func CaughtUp(v *state.State, grant *lease.Grant) bool {
	return grant != nil && v.Index >= grant.Applied
}

func (l *localPlan) anyHeld() bool {
	for _, name := range l.v.GroupNames() {
		if inst := l.v.Instance(name, l.name); inst.Held && inst.State != state.Unmanaged {
			return true
		}
	}
	return false
}
