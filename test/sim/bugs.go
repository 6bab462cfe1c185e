package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A Bug is a fault planted in the model: an answer to an attack that is taken away. It must be caught.
type Bug struct {
	Name   string
	Attack string
	// Faults are injected more often, because the attack needs them.
	Faults []string
	Only   bool // and no others
	// Quiet are checks that only repeat the rule which was taken away: what must notice is a promise.
	Quiet []string
	// Local changes what the node's own rule is shown.
	Local func(*agent, *state.State, *lease.Grant, scheduler.LocalView) (*state.State, *lease.Grant, scheduler.LocalView)
	// Entry changes what is applied.
	Entry func(*world, *state.State, *state.Command) *state.Command
	// Class is the class of all deadmans; empty: as the seed says.
	Class lease.Class
	Nodes int // 0: as the seed says
}

// The names by which the model asks for a bug.
const (
	BugNoProof        = "start without proof"
	BugGrantAfterDoom = "grant after doom"
	BugNoKillTimer    = "no absolute timer"
	BugNoHardLimit    = "no L_hard"
	BugElectionT0     = "t0 from the election"
	BugTrustLocal     = "local state trusted"
	BugStaleNonce     = "boot proof under a stale nonce"
	BugNoSubject      = "report without subject"
	BugNoTombstone    = "tombstone not durable"
	BugLateArming     = "arming after the grant"
	BugClassProcess   = "time proof for class process"
	BugVoterAge       = "voter age older than its process"
	BugNoConfirm      = "confirmation not noted with the answer"
	BugStuckLeader    = "grants by a stuck leader"
	BugSilentLocks    = "silence ends lock sessions"
	BugSettings       = "settings changed under an arming"
)

func (b *Bug) is(name string) bool { return b != nil && b.Name == name }

// answered is the same kind of run without the planted fault.
func (b *Bug) answered() *Bug {
	return &Bug{Name: "none", Faults: b.Faults, Only: b.Only, Class: b.Class, Nodes: b.Nodes}
}

// suppressed reports whether a check is left out for the planted bug.
func (w *world) suppressed(check string) bool {
	return w.bug != nil && slices.Contains(w.bug.Quiet, check)
}

// Bugs are all that are planted.
var Bugs = []*Bug{
	{Name: BugNoProof, Attack: "P2", Faults: []string{"cut node", "isolate and stop"}, Quiet: []string{"proof", "held"}, Entry: lostIsDead},
	{Name: BugGrantAfterDoom, Attack: "A9", Faults: []string{"cut at armed", "operator moves", "operator moves"}, Only: true, Quiet: []string{"doom"}, Nodes: 3,
		Class: lease.Independent},
	{Name: BugNoKillTimer, Attack: "A3", Faults: []string{"stop in the pet"}, Quiet: []string{"pet"}},
	{Name: BugNoHardLimit, Attack: "P7", Faults: []string{"cut node"}},
	{Name: BugElectionT0, Attack: "A11", Faults: []string{"vote, then cut"}, Only: true, Quiet: []string{"progress"}, Nodes: 3, Class: lease.Independent},
	{Name: BugTrustLocal, Attack: "A1", Faults: []string{"crash and lag"}, Quiet: []string{"list", "start"}, Local: trustLocal},
	{Name: BugStaleNonce, Attack: "A6", Faults: []string{"boot repeated"}, Quiet: []string{"boot", "held"}, Entry: anyBoot},
	{Name: BugNoSubject, Attack: "A9", Faults: []string{"report repeated"}, Quiet: []string{"proof", "subject"}, Entry: anyReport},
	{Name: BugNoTombstone, Attack: "A7", Faults: []string{"report held back", "operator moves"}, Quiet: []string{"tombstone"}},
	{Name: BugLateArming, Attack: "A5", Faults: []string{"stop at an unarmed start", "operator moves"}, Quiet: []string{"start", "calm"}, Local: pretendArmed, Class: lease.Independent},
	{Name: BugClassProcess, Attack: "A4", Faults: []string{"isolate and stop"}, Quiet: []string{"class"}, Class: lease.Process},
	{Name: BugVoterAge, Attack: "C4", Faults: []string{"pair, restart, isolate"}, Nodes: 3},
	{Name: BugNoConfirm, Attack: "A11", Faults: []string{"pair, restart, isolate"}, Nodes: 3},
	{Name: BugSettings, Attack: "A4", Faults: []string{"definition and restart"}, Quiet: []string{"armed", "pet"}, Class: lease.Independent},
	{Name: BugSilentLocks, Attack: "M06", Faults: []string{"cut node"}, Entry: silenceEndsLocks},
	{Name: BugStuckLeader, Attack: "B6", Faults: []string{"loop of the leader"}},
}

// apply is what a replica does with an entry. Only here can a planted bug reach what the log means.
func (w *world) apply(before *state.State, e *entry) (*state.State, state.Result) {
	c := e.cmd
	if w.bug != nil && w.bug.Entry != nil {
		if c = w.bug.Entry(w, before, c); c == nil {
			return before, state.Result{Index: e.index, Refused: "left out"}
		}
	}
	after, r := state.Apply(before, state.Entry{Index: e.index, Term: e.term, Command: c})
	if w.bug == nil {
		w.follow(e, after)
	}
	return after, r
}

// lostIsDead takes silence for proof.
func lostIsDead(_ *world, _ *state.State, c *state.Command) *state.Command {
	if l := c.NodeLost; l != nil {
		return &state.Command{At: c.At, By: c.By, Proof: &state.Proof{Node: l.Node, Incarnation: l.Incarnation, Kind: state.ProofOperator,
			Sentence: "it is silent"}}
	}
	return c
}

// anyReport takes a report about a group for a report about whatever its node holds of it now.
func anyReport(_ *world, s *state.State, c *state.Command) *state.Command {
	r := c.Report
	if r == nil {
		return c
	}
	i := s.Instance(r.Group, r.Node)
	n := s.Node(r.Node)
	if !i.Held || n == nil || i.Incarnation != n.Incarnation {
		return c
	}
	same := *r
	same.Incarnation, same.Generation = i.Incarnation, i.Generation
	return &state.Command{At: c.At, By: c.By, Report: &same}
}

// anyBoot takes a boot message for the newest, whenever it was sent.
func anyBoot(w *world, s *state.State, c *state.Command) *state.Command {
	b := c.NodeBoot
	if b == nil {
		return c
	}
	n := s.Node(b.Node)
	if n == nil || n.BootID == b.BootID || n.Incarnation == b.Replaces {
		return c
	}
	w.spawned++
	late := *b
	late.Replaces, late.BootID = n.Incarnation, fmt.Sprint(b.BootID, "-late", w.spawned)
	return &state.Command{At: c.At, By: c.By, NodeBoot: &late}
}

// trustLocal: a lease is there, and the own state says that a group is ours. What the grant lists, and what the own state has
// not seen yet, is not asked for.
func trustLocal(a *agent, v *state.State, g *lease.Grant, l scheduler.LocalView) (*state.State, *lease.Grant, scheduler.LocalView) {
	n := v.Node(a.name)
	if n == nil || n.Incarnation == 0 || g == nil || n.Dead != nil {
		return v, g, l
	}
	copied, node := *v, *n
	node.BootID, node.Life = a.m.bootID, a.life
	if l.Armed && l.Arming != "" {
		node.Arming = l.Arming
		if node.Armed == nil {
			node.Armed = &lease.Armed{}
		}
	}
	copied.Nodes = map[string]*state.Node{}
	maps.Copy(copied.Nodes, v.Nodes)
	copied.Nodes[a.name] = &node
	l.Incarnation = node.Incarnation
	trusted := *g
	trusted.Incarnation, trusted.Applied, trusted.Hold = node.Incarnation, v.Index, copied.Holds(a.name, node.Incarnation)
	return &copied, &trusted, l
}

// pretendArmed starts under whatever grant there is, and arms when it starts.
func pretendArmed(a *agent, v *state.State, g *lease.Grant, l scheduler.LocalView) (*state.State, *lease.Grant, scheduler.LocalView) {
	n := v.Node(a.name)
	starts := false
	for _, name := range v.GroupNames() {
		starts = starts || v.Instance(name, a.name).State == state.Acquiring
	}
	if n == nil || l.Armed || !starts {
		return v, g, l
	}
	copied, node := *v, *n
	node.Arming, node.Armed = "later", &lease.Armed{}
	copied.Nodes = map[string]*state.Node{}
	maps.Copy(copied.Nodes, v.Nodes)
	copied.Nodes[a.name] = &node
	l.Armed, l.Arming, l.GrantArming = true, "later", "later"
	return &copied, g, l
}
