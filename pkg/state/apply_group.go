package state

import (
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// acquire is the gate of promises P1 and P2: see the package comment.
func (t *tx) acquire(c *Acquire) {
	d, g := t.s.definition(c.Group), t.s.Groups[c.Group]
	if d == nil || g == nil {
		t.refuse("there is no group %s in the definition", c.Group)
		return
	}
	if !d.Has(c.Node) {
		t.refuse("node %s is not in the list of group %s", c.Node, c.Group)
		return
	}
	n := t.subject(c.Node, c.Incarnation, "the acquisition of group "+c.Group)
	if n == nil {
		return
	}
	if based := t.s.Based(c.Group, c.Node); c.Based != based {
		t.refuse("the acquisition of group %s was planned on generation %d, the newest is %d", c.Group, c.Based, based)
		return
	}
	if why := t.s.startForbidden(d, g, n); why != "" {
		t.refuse("%s", why)
		return
	}
	if t.s.Generation&(1<<generationBits-1) == 1<<generationBits-1 {
		t.refuse("the generations of epoch %d are used up", t.s.Epoch)
		return
	}
	t.begins(d, c)
}

// startForbidden says why the group must not start on the node; empty if it may.
func (s *State) startForbidden(d *cluster.ResourceGroup, g *Group, n *Node) string {
	cannot := "group " + d.Name + " cannot start on node " + n.Name + ": "
	switch {
	case n.Lost != nil:
		return cannot + "the node is silent (" + n.Lost.Sentence + ")"
	case !n.Up():
		return cannot + "its cluster services are " + string(n.Services)
	case n.Quarantined != "":
		return cannot + "the node is quarantined"
	case n.Resetting != "":
		return cannot + "the node is about to be reset"
	}
	for _, node := range heldNodes(g) {
		i := g.Instances[node]
		if !d.Concurrent() || node == n.Name {
			return cannot + "node " + node + " holds it (" + string(i.State) + "), and neither a release nor a proof is in the log"
		}
	}
	return ""
}

// begins raises the generation and gives the group to the node.
func (t *tx) begins(d *cluster.ResourceGroup, c *Acquire) {
	t.s.Generation++
	gen := t.s.Generation
	g := t.group(d.Name)
	g.Generation, g.Phase, g.Intent, g.LastReason, g.Freed = gen, PhaseActive, nil, bounded(c.Reason), ""
	g.ErrorForNetwork, g.Dynamic = false, 0
	if c.Dynamic {
		g.Dynamic = t.e.Index
	}
	if !d.Concurrent() {
		for _, node := range d.Nodes {
			if i := g.Instances[node]; i != nil && node != c.Node && (i.State == TempError || i.State == Error || i.State == Unmanaged) {
				t.turn(t.instance(d.Name, node), Offline, i.Sentence)
			}
		}
	}
	i := t.instance(d.Name, c.Node)
	*i = Instance{State: Acquiring, Held: true, Incarnation: c.Incarnation, Generation: gen, Since: t.e.Index, Sentence: bounded(c.Reason)}
	t.res.Generation = gen
	t.event(EventGroupAcquire, c.Node, d.Name, "acquire %s on %s (%s)", d.Name, c.Node, c.Reason)
}

func (t *tx) release(c *Release) {
	d, g := t.s.definition(c.Group), t.s.Groups[c.Group]
	if d == nil || g == nil {
		t.refuse("there is no group %s in the definition", c.Group)
		return
	}
	n := t.subject(c.Node, c.Incarnation, "the release of group "+c.Group)
	if n == nil {
		return
	}
	i := g.Instances[c.Node]
	switch {
	case i == nil || !i.Held || i.Incarnation != c.Incarnation || i.Generation != c.Generation:
		t.refuse("group %s cannot be released on node %s: it is not held there at generation %d", c.Group, c.Node, c.Generation)
	case i.State == Releasing:
		t.refuse("group %s is being released on node %s already", c.Group, c.Node)
	case i.State == Unmanaged:
		t.refuse("group %s is UNMANAGED on node %s: the cluster does not touch it", c.Group, c.Node)
	case g.Suspended:
		t.refuse("group %s is suspended: the cluster does not touch it", c.Group)
	default:
		w := t.instance(c.Group, c.Node)
		t.turn(w, Releasing, c.Reason)
		w.Cause, w.DueTo, w.Failed = c.Cause, c.DueTo, i.Failed
		wg := t.group(c.Group)
		wg.LastReason = bounded(c.Reason)
		if !d.Concurrent() {
			wg.Intent = &Intent{Cause: c.Cause, From: c.Node, To: c.To}
		}
		t.event(EventGroupMove, c.Node, c.Group, "release %s on %s (%s)", c.Group, c.Node, c.Reason)
	}
}

func (t *tx) giveUp(c *GiveUp) {
	d, g := t.s.definition(c.Group), t.s.Groups[c.Group]
	switch {
	case d == nil || g == nil:
		t.refuse("there is no group %s in the definition", c.Group)
	case !d.Has(c.Node):
		t.refuse("node %s is not in the list of group %s", c.Node, c.Group)
	case c.Based != t.s.Based(c.Group, c.Node):
		t.refuse("giving up group %s was planned on generation %d, the newest is %d", c.Group, c.Based, t.s.Based(c.Group, c.Node))
	case !free(g) && !d.Concurrent():
		t.refuse("group %s is held: it cannot be given up", c.Group)
	default:
		w := t.group(c.Group)
		w.Phase, w.Intent, w.ErrorForNetwork, w.LastReason = PhaseError, nil, c.ForNetwork, bounded(c.Reason)
		t.endErrors(d)
		w.Tried = nil
		t.turn(t.instance(c.Group, c.Node), Error, c.Reason)
		t.event(EventGroupError, c.Node, c.Group, "group %s is in ERROR on node %s: %s", c.Group, c.Node, c.Reason)
	}
}

// turn changes an instance's state, and forgets what belonged to the old one.
func (t *tx) turn(i *Instance, s InstanceState, sentence string) {
	i.State, i.Sentence, i.Since = s, bounded(sentence), t.e.Index
	i.DueTo, i.Cause, i.Failed, i.Retry = "", "", false, false
}

func (t *tx) report(c *Report) {
	what := "the report (" + string(c.Outcome) + ") of group " + c.Group
	n := t.subject(c.Node, c.Incarnation, what)
	if n == nil {
		return
	}
	d, g := t.s.definition(c.Group), t.s.Groups[c.Group]
	if d == nil || g == nil {
		t.refuse("%s by node %s: there is no such group in the definition", what, c.Node)
		return
	}
	i := g.Instances[c.Node]
	if i == nil || i.Generation != c.Generation || i.Incarnation != c.Incarnation || !i.Held {
		t.refuse("%s by node %s is about generation %d, which is not held there", what, c.Node, c.Generation)
		return
	}
	switch c.Outcome {
	case OutcomeOnline:
		t.reportOnline(d, c, i)
	case OutcomeAcquireFailed, OutcomeReleased, OutcomeFoundStopped:
		t.reportStopped(d, c, i)
	case OutcomeReleaseFailed:
		t.reportStuck(d, c, i)
	case OutcomeAppFailed:
		t.reportFailed(d, c, i)
	default:
		t.refuse("%s by node %s: there is no such outcome", what, c.Node)
	}
}

func (t *tx) reportOnline(d *cluster.ResourceGroup, c *Report, i *Instance) {
	switch i.State {
	case Online, Unmanaged:
		return // it is so
	case Acquiring:
	default:
		t.refuse("group %s is %s on node %s: it cannot become online", d.Name, i.State, c.Node)
		return
	}
	if i.Outside && c.Applied < i.Since {
		t.refuse("the report of group %s by node %s was made before the node knew that the group is managed again", d.Name, c.Node)
		return
	}
	w := t.instance(d.Name, c.Node)
	w.Outside = false
	t.turn(w, Online, i.Sentence)
	g := t.group(d.Name)
	g.Tried, g.Unreleased = nil, "" // the recovery chain ends
	t.event(EventGroupMoveComplete, c.Node, d.Name, "group %s is online on node %s%s", d.Name, c.Node, colon(c.Sentence))
}

// reportStopped takes the three outcomes after which the group may start elsewhere.
func (t *tx) reportStopped(d *cluster.ResourceGroup, c *Report, i *Instance) {
	how, name := freedByRelease, EventGroupRelease
	if c.Outcome == OutcomeAcquireFailed && i.State == Acquiring {
		how, name = freedByFailure, EventGroupAcquireFailed
	}
	t.event(name, c.Node, d.Name, "group %s on node %s: %s%s", d.Name, c.Node, outcomeWords[c.Outcome], colon(c.Sentence))
	t.freed(d, c.Node, how, c.Sentence)
	t.stopped(c.Node)
}

var outcomeWords = map[Outcome]string{
	OutcomeAcquireFailed: "could not be acquired, and is stopped",
	OutcomeReleased:      "released",
	OutcomeFoundStopped:  "found stopped",
}

func (t *tx) reportStuck(d *cluster.ResourceGroup, c *Report, i *Instance) {
	if i.State == Error {
		return
	}
	cause := i.Cause
	if cause == "" {
		cause = CauseLease // the node itself had begun the release
	}
	w := t.instance(d.Name, c.Node)
	t.turn(w, Error, "its release failed: "+c.Sentence)
	w.Cause = cause
	t.event(EventGroupReleaseFailed, c.Node, d.Name, "group %s could not be released on node %s%s", d.Name, c.Node, colon(c.Sentence))
}

func (t *tx) reportFailed(d *cluster.ResourceGroup, c *Report, i *Instance) {
	if i.State != Online || i.Failed {
		if i.State != Online && i.State != Acquiring {
			t.refuse("group %s is %s on node %s: its application cannot fail there", d.Name, i.State, c.Node)
		}
		return
	}
	w := t.instance(d.Name, c.Node)
	w.Failed = true
	t.marks(d.Name)[c.Node] = &Mark{Kind: MarkApplication, At: t.at(), Sentence: bounded(c.Sentence)}
	t.event(EventServerDown, c.Node, d.Name, "the application of group %s has failed on node %s%s", d.Name, c.Node, colon(c.Sentence))
}

// How an instance came to be free.
type freeing int

const (
	freedByRelease freeing = iota
	freedByFailure         // its acquisition failed
	freedByDeath           // the incarnation is dead
)

// freed is the one place where an instance stops being held. What the group does next depends on what it was released for.
func (t *tx) freed(d *cluster.ResourceGroup, node string, how freeing, sentence string) {
	i := t.instance(d.Name, node)
	was := *i
	failed := how == freedByFailure || how == freedByRelease && was.Cause == CauseFailure
	next := Offline
	if failed && d.Concurrent() {
		next = Error // a concurrent group has no failover
	} else if failed {
		next = TempError // the planner finds another node, or gives up
	}
	due := was.DueTo
	t.turn(i, next, sentence)
	i.Held, i.Outside, i.DueTo = false, false, due
	if how == freedByFailure && t.s.Groups[d.Name].Marks[node] == nil { // an application's mark weighs more, and stays
		t.marks(d.Name)[node] = &Mark{Kind: MarkAcquisition, At: t.at(), Sentence: bounded(sentence)}
	}
	if d.Concurrent() {
		return
	}
	g := t.group(d.Name)
	if !free(g) { // only after a forced configuration
		return
	}
	if failed {
		g.Tried = with(g.Tried, node)
	}
	g.Phase, g.Freed = PhaseRecover, freedWords(node, was, how, sentence)
	switch was.Cause {
	case CauseOffline, CauseStop:
		g.Phase, g.Intent, g.Tried = PhaseParked, nil, nil
	case CauseFailure:
		g.Intent = nil
	case "":
		g.Intent = nil
		if how == freedByRelease && was.State != Unmanaged {
			g.Intent = &Intent{Cause: CauseLease, From: node}
		}
		// An isolated node that hands over fails as one that dies does: the operator's placement there ends.
		if n := t.s.Nodes[node]; how == freedByRelease && n != nil && n.Lost != nil && g.Override != nil && g.Override.Node == node {
			g.Override = nil
		}
	}
	if g.Offline {
		g.Phase, g.Intent, g.Tried = PhaseParked, nil, nil
	}
	if was.State == Unmanaged && how == freedByRelease {
		g.Phase, g.Intent = PhaseParked, nil // the operator stopped it by hand
	}
}

func freedWords(node string, was Instance, how freeing, sentence string) string {
	switch {
	case how == freedByDeath:
		return sentence
	case how == freedByFailure:
		return "it could not be acquired on " + node
	case was.Cause == "":
		return "node " + node + " gave it up"
	case was.State == Error:
		return "released on " + node
	}
	return was.Sentence
}

func (t *tx) timerFired(c *TimerFired) {
	timer := t.s.Timers[c.Timer]
	rule := t.s.Definition.FallbackTimer(c.Timer)
	switch {
	case timer == nil || rule == nil:
		t.refuse("there is no fallback timer %s", c.Timer)
	case !timer.Due.Equal(c.Due) || timer.Due.IsZero():
		t.refuse("the fallback timer %s is not due at %v", c.Timer, c.Due)
	default:
		after := c.Due
		if t.at().After(after) {
			after = t.at() // firings that were missed are one
		}
		t.timers()[c.Timer] = &Timer{Name: c.Timer, Fired: c.Due, Due: NextFiring(*rule, after)}
		t.event(EventTimer, "", "", "the fallback timer %s has fired", c.Timer)
	}
}

func (t *tx) tokenAdd(c *TokenAdd) {
	if len(c.Hash) != 64 {
		t.refuse("a token's hash has 64 hexadecimal digits")
		return
	}
	if len(t.s.Tokens) >= 256 { // bounded: drop those that are of no use any more
		for _, h := range t.s.tokenHashes() {
			if tok := t.s.Tokens[h]; tok.UsedBy != "" || t.at().After(tok.Expires) {
				delete(t.tokens(), h)
			}
		}
	}
	t.tokens()[c.Hash] = &Token{Hash: c.Hash, Node: c.Node, Expires: c.Expires, By: t.e.Command.By}
}

func (s *State) tokenHashes() []string {
	var out []string
	for h := range s.Tokens {
		out = append(out, h)
	}
	slices.Sort(out)
	return out
}

func (t *tx) tokenUse(c *TokenUse) {
	tok := t.s.Tokens[c.Hash]
	switch {
	case tok == nil:
		t.refuse("the join token is not known to this cluster")
	case tok.UsedBy != "":
		t.refuse("the join token was used already, by node %s", tok.UsedBy)
	case tok.Node != "" && tok.Node != c.Node:
		t.refuse("the join token is for node %s, not for %s", tok.Node, c.Node)
	case t.at().After(tok.Expires):
		t.refuse("the join token expired at %s", tok.Expires.UTC().Format("2006-01-02 15:04:05 UTC"))
	default:
		used := *tok
		used.UsedBy = c.Node
		t.tokens()[c.Hash] = &used
	}
}
