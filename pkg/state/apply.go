package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// Apply gives the state after the entry, and what it answers. It never changes s. See the package comment for what it
// promises. A command that is not well formed (none or several of its forms set) is a broken invariant of the caller, which
// decodes with DecodeCommand, and panics.
func Apply(s *State, e Entry) (*State, Result) {
	if s == nil {
		s = New()
	}
	if e.Index != 0 && e.Index <= s.Index { // a log that is replayed from before the snapshot
		return s, Result{Index: e.Index, Repeated: true}
	}
	c := e.Command
	if c == nil || c.kind() == "" {
		panic(fmt.Sprintf("state: entry %d holds no command, or several", e.Index))
	}
	t := begin(s, e)
	if first, ok := s.appliedBefore(c.ID); ok {
		t.res = Result{Index: first.Index, Refused: first.Refused, Repeated: true, Incarnation: first.Value, Generation: first.Value}
		return t.s, t.res
	}
	if c.Term != 0 && c.Term != e.Term {
		t.refuse("it was decided by the leader of term %d, and the log has come to term %d", c.Term, e.Term)
	} else {
		t.apply(c)
	}
	if t.res.Refused != "" && t.changed() {
		panic("state: the command " + c.kind() + " was refused after it had changed the state: " + t.res.Refused)
	}
	if c.ID != "" {
		t.s.applied = t.s.applied.push(appliedID{ID: c.ID, Index: e.Index, Refused: t.res.Refused,
			Value: max(t.res.Incarnation, t.res.Generation)}, maxAppliedIDs)
	}
	return t.s, t.res
}

// apply is the table of commands.
func (t *tx) apply(c *Command) {
	if c.Create == nil && c.Noop == nil && c.Note == nil && t.s.Definition == nil {
		t.refuse("there is no cluster yet")
		return
	}
	switch {
	case c.Create != nil:
		t.create(c.Create)
	case c.SetDefinition != nil:
		t.setDefinition(c.SetDefinition)
	case c.Stage != nil:
		t.stage(c.Stage)
	case c.Activate != nil:
		t.activate(c.Activate)
	case c.ReplaceVolume != nil:
		t.replaceVolume(c.ReplaceVolume)
	case c.SetMember != nil:
		t.setMember(c.SetMember)
	case c.NewEpoch != nil:
		t.newEpoch(c.NewEpoch)
	case c.NodeBoot != nil:
		t.nodeBoot(c.NodeBoot)
	case c.BootRandom != nil:
		t.bootRandom(c.BootRandom)
	case c.NodeServices != nil:
		t.nodeServices(c.NodeServices)
	case c.Armed != nil:
		t.armed(c.Armed)
	case c.Disarmed != nil:
		t.disarmed(c.Disarmed)
	case c.NodeLost != nil:
		t.nodeLost(c.NodeLost)
	case c.NodeFound != nil:
		t.nodeFound(c.NodeFound)
	case c.Proof != nil:
		t.proof(c.Proof)
	case c.Fence != nil:
		t.fence(c.Fence)
	case c.NetworkState != nil:
		t.networkState(c.NetworkState)
	case c.Measure != nil:
		t.measure(c.Measure)
	case c.Acquire != nil:
		t.acquire(c.Acquire)
	case c.Release != nil:
		t.release(c.Release)
	case c.GiveUp != nil:
		t.giveUp(c.GiveUp)
	case c.ResetNode != nil:
		t.resetNode(c.ResetNode)
	case c.Report != nil:
		t.report(c.Report)
	case c.TimerFired != nil:
		t.timerFired(c.TimerFired)
	case c.MoveGroup != nil:
		t.moveGroup(c.MoveGroup.Group, c.MoveGroup.Node)
	case c.OnlineGroup != nil:
		t.onlineGroup(c.OnlineGroup)
	case c.OfflineGroup != nil:
		t.offlineGroup(c.OfflineGroup)
	case c.UnsetPriority != nil:
		t.unsetPriority(c.UnsetPriority)
	case c.SuspendGroup != nil:
		t.suspendGroup(c.SuspendGroup.Group, true)
	case c.ResumeGroup != nil:
		t.suspendGroup(c.ResumeGroup.Group, false)
	case c.ClearGroup != nil:
		t.clearGroup(c.ClearGroup)
	case c.UnmanageGroup != nil:
		t.unmanageGroup(c.UnmanageGroup)
	case c.ManageGroup != nil:
		t.manageGroup(c.ManageGroup)
	case c.ClearNode != nil:
		t.clearNode(c.ClearNode)
	case c.TokenAdd != nil:
		t.tokenAdd(c.TokenAdd)
	case c.TokenUse != nil:
		t.tokenUse(c.TokenUse)
	case c.LockOpen != nil:
		t.lockOpen(c.LockOpen)
	case c.LockClose != nil:
		t.lockClose(c.LockClose)
	case c.LockAcquire != nil:
		t.lockAcquire(c.LockAcquire)
	case c.LockRelease != nil:
		t.lockRelease(c.LockRelease)
	case c.LockBreak != nil:
		t.lockBreak(c.LockBreak)
	case c.LocksEnd != nil:
		t.locksEnd(c.LocksEnd)
	case c.RenewCerts != nil:
		t.renewCerts(c.RenewCerts)
	case c.CertInUse != nil:
		t.certInUse(c.CertInUse)
	case c.GossipKey != nil:
		t.gossipKey(c.GossipKey)
	case c.Note != nil:
		t.event(c.Note.Event, c.Note.Node, c.Note.Group, "%s", c.Note.Sentence)
	case c.Noop != nil:
	}
}

// A tx is one Apply under way: the new state, of which it owns what it has copied.
type tx struct {
	s        *State
	e        Entry
	res      Result
	ownMaps  struct{ nodes, groups, timers, tokens bool }
	ownNode  map[string]bool
	ownGroup map[string]bool
	ownInst  map[string]bool // by group: its map of instances
	ownMarks map[string]bool
	ownLocks struct{ all, sessions, locks bool }
	ownCerts bool
}

func begin(s *State, e Entry) *tx {
	n := *s
	n.Format = Format
	if e.Index != 0 {
		n.Index, n.Term = e.Index, e.Term
	}
	return &tx{s: &n, e: e, res: Result{Index: e.Index}}
}

func (t *tx) at() time.Time { return t.e.Command.At }

// refuse answers that the command changes nothing. It must come before the first change.
func (t *tx) refuse(format string, args ...any) {
	t.res.Refused = bounded(fmt.Sprintf(format, args...))
}

func (t *tx) changed() bool {
	return len(t.ownNode)+len(t.ownGroup) > 0 || t.ownMaps.nodes || t.ownMaps.groups || t.ownMaps.timers || t.ownMaps.tokens || t.ownLocks.all || t.ownCerts ||
		len(t.res.Events) > 0
}

// event adds to the history.
func (t *tx) event(name, node, group, format string, args ...any) {
	e := Event{ID: t.s.LastEvent() + 1, Index: t.e.Index, At: t.at(), Name: bounded(name), Node: node, Group: group,
		Sentence: bounded(fmt.Sprintf(format, args...))}
	t.s.events = t.s.events.push(e, maxEvents)
	t.res.Events = append(t.res.Events, e)
}

// node returns the node for writing; nil if it does not exist.
func (t *tx) node(name string) *Node {
	n := t.s.Nodes[name]
	if n == nil || t.ownNode[name] {
		return n
	}
	t.ownNodes()
	c := *n
	t.s.Nodes[name] = &c
	mark(&t.ownNode, name)
	return &c
}

// group returns the group for writing; nil if it does not exist.
func (t *tx) group(name string) *Group {
	g := t.s.Groups[name]
	if g == nil || t.ownGroup[name] {
		return g
	}
	t.ownGroups()
	c := *g
	t.s.Groups[name] = &c
	mark(&t.ownGroup, name)
	return &c
}

// instance returns a group's instance for writing. The group must exist.
func (t *tx) instance(group, node string) *Instance {
	g := t.group(group)
	if !t.ownInst[group] {
		g.Instances = copyMap(g.Instances)
		mark(&t.ownInst, group)
	}
	i := Instance{State: Offline}
	if old := g.Instances[node]; old != nil {
		i = *old
	}
	g.Instances[node] = &i
	return &i
}

func (t *tx) dropInstance(group, node string) {
	t.instance(group, node)
	delete(t.s.Groups[group].Instances, node)
}

// marks returns a group's marks for writing. The group must exist.
func (t *tx) marks(group string) map[string]*Mark {
	g := t.group(group)
	if !t.ownMarks[group] {
		g.Marks = copyMap(g.Marks)
		mark(&t.ownMarks, group)
	}
	return g.Marks
}

func (t *tx) unmark(group, node string) {
	if t.s.Groups[group].Marks[node] != nil {
		delete(t.marks(group), node)
	}
}

func (t *tx) ownNodes() {
	if !t.ownMaps.nodes {
		t.s.Nodes, t.ownMaps.nodes = copyMap(t.s.Nodes), true
	}
}

func (t *tx) ownGroups() {
	if !t.ownMaps.groups {
		t.s.Groups, t.ownMaps.groups = copyMap(t.s.Groups), true
	}
}

func (t *tx) timers() map[string]*Timer {
	if !t.ownMaps.timers {
		t.s.Timers, t.ownMaps.timers = copyMap(t.s.Timers), true
	}
	return t.s.Timers
}

func (t *tx) tokens() map[string]*Token {
	if !t.ownMaps.tokens {
		t.s.Tokens, t.ownMaps.tokens = copyMap(t.s.Tokens), true
	}
	return t.s.Tokens
}

func copyMap[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m)+1)
	maps.Copy(out, m)
	return out
}

func mark(m *map[string]bool, name string) {
	if *m == nil {
		*m = map[string]bool{}
	}
	(*m)[name] = true
}

// without returns a copy of the list that lacks the name.
func without(list []string, name string) []string {
	if !slices.Contains(list, name) {
		return list
	}
	var out []string
	for _, l := range list {
		if l != name {
			out = append(out, l)
		}
	}
	return out
}

// with returns a copy of the list that has the name, at its end if it is new.
func with(list []string, name string) []string {
	if slices.Contains(list, name) {
		return list
	}
	return append(slices.Clip(slices.Clone(list)), name)
}

// withSorted is with, in alphabetical order.
func withSorted(list []string, name string) []string {
	out := slices.Clone(with(list, name))
	slices.Sort(out)
	return out
}

func bounded(s string) string {
	if len(s) <= maxSentence {
		return s
	}
	cut := maxSentence
	for cut > 0 && s[cut]&0xc0 == 0x80 { // not inside a character
		cut--
	}
	return s[:cut]
}

// each calls f for every group whose list has the node, in the definition's order.
func (t *tx) each(node string, f func(d *cluster.ResourceGroup, g *Group)) {
	for i := range t.s.Definition.ResourceGroups {
		d := &t.s.Definition.ResourceGroups[i]
		if g := t.s.Groups[d.Name]; g != nil && d.Has(node) {
			f(d, g)
		}
	}
}

func (s *State) appliedBefore(id string) (*appliedID, bool) {
	if id == "" {
		return nil, false
	}
	var found *appliedID
	s.applied.each(func(a *appliedID) {
		if a.ID == id {
			found = a
		}
	})
	return found, found != nil
}
