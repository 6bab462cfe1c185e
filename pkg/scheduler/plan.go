package scheduler

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Op is the kind of a decision.
type Op string

const (
	OpAcquire Op = "acquire" // start the group on the node
	OpRelease Op = "release" // stop it there
	OpGiveUp  Op = "give-up" // nobody can take it after a failure: ERROR on the node
	OpReset   Op = "reset"   // the node gives up its lease, because a group could not be released there
	OpTimer   Op = "timer"   // a fallback timer has fired and everything due to it is under way
)

// A Decision is one step that can be committed now. Decisions of one plan are in the order in which they are to be proposed.
type Decision struct {
	Op          Op     `json:"op"`
	Group       string `json:"group,omitempty"`
	Node        string `json:"node,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Generation is what an acquire is based on, and what a release ends.
	Generation uint64      `json:"generation,omitempty"`
	Cause      state.Cause `json:"cause,omitempty"`
	To         string      `json:"to,omitempty"` // of a release: where the group is meant to start next
	DueTo      state.DueTo `json:"due_to,omitempty"`
	ForNetwork bool        `json:"for_network,omitempty"`
	Dynamic    bool        `json:"dynamic,omitempty"` // the node was chosen by dynamic node priority
	Timer      string      `json:"timer,omitempty"`
	Due        time.Time   `json:"due,omitzero"`
	// Reason is one sentence without a full stop.
	Reason string `json:"reason"`
	// Requires are the facts in the log on which the decision stands, for the reader.
	Requires []string `json:"requires,omitempty"`
}

// Command is the decision as a command for the log. The proposer adds ID, At and By.
func (d Decision) Command() state.Command {
	switch d.Op {
	case OpAcquire:
		return state.Command{Acquire: &state.Acquire{Group: d.Group, Node: d.Node, Incarnation: d.Incarnation, Based: d.Generation,
			Dynamic: d.Dynamic, Reason: d.Reason}}
	case OpRelease:
		return state.Command{Release: &state.Release{Group: d.Group, Node: d.Node, Incarnation: d.Incarnation, Generation: d.Generation,
			Cause: d.Cause, To: d.To, DueTo: d.DueTo, Reason: d.Reason}}
	case OpGiveUp:
		return state.Command{GiveUp: &state.GiveUp{Group: d.Group, Node: d.Node, Based: d.Generation, ForNetwork: d.ForNetwork, Reason: d.Reason}}
	case OpReset:
		return state.Command{ResetNode: &state.ResetNode{Node: d.Node, Incarnation: d.Incarnation, Reason: d.Reason}}
	case OpTimer:
		return state.Command{TimerFired: &state.TimerFired{Timer: d.Timer, Due: d.Due}}
	}
	panic("scheduler: a decision of kind " + string(d.Op))
}

// A Note says why a group is not where a policy wants it. Node is empty when it is about the whole group.
type Note struct {
	Group    string `json:"group"`
	Node     string `json:"node,omitempty"`
	Sentence string `json:"sentence"`
}

// A Result is a plan.
type Result struct {
	Decisions []Decision
	Notes     []Note
	// Next is when a timer will change the plan of this same state; zero: never.
	Next time.Time
}

// Plan says what to do next in the state. The decisions can all be committed now; what must wait for them is planned when
// their effects are in the state.
func Plan(v *state.State, now time.Time) Result {
	if v == nil || v.Definition == nil {
		return Result{}
	}
	m := newModel(v, now)
	m.decide()
	return m.res
}

// decide is the plan, step by step.
func (m *model) decide() {
	m.mustLeave()  // what has to stop where it is, wherever it may go
	m.occupy()     // who stays where: nodes' loads and exclusions
	m.place()      // a node for each group that needs or wants one
	m.together()   // what must stop because something else stops
	m.releases()   // dependants first
	m.acquires()   // what dependants need first
	m.giveUps()    // failures that nobody can take
	m.resets()     // nodes that must give up their lease
	m.timersFire() // delayed fallbacks that are under way
}
