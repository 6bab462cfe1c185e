package state

import (
	"maps"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Restraint: after so many resets within the window a node starts quarantined.
const (
	quarantineResets = 3
	quarantineWindow = 30 * time.Minute
)

func (t *tx) nodeBoot(c *NodeBoot) {
	n := t.s.Nodes[c.Node]
	switch {
	case n == nil:
		t.refuse("there is no node %s in the definition", c.Node)
	case c.BootID == "":
		t.refuse("the boot of node %s has no boot id", c.Node)
	case n.Incarnation > 0 && c.BootID == n.BootID && c.Life == n.Life:
		t.bootAgain(n, c)
	case slices.Contains(n.OldBoots, c.BootID):
		t.refuse("the boot id of node %s is that of an older boot: this message is late, or the machine is a copy", c.Node)
	case c.Replaces != n.Incarnation:
		t.refuse("node %s says that it follows incarnation %d, but the newest is %d", c.Node, c.Replaces, n.Incarnation)
	case n.Incarnation > 0 && c.BootID == n.BootID && !endedUnarmed(n) && !(endedByTime(n) && c.AllStopped):
		t.refuse("node %s must boot: incarnation %d of this boot may still hold what it has started", c.Node, n.Incarnation)
	default:
		t.newIncarnation(c)
	}
}

// bootAgain answers a repeated NodeBoot, or that of a restarted agent within one boot.
func (t *tx) bootAgain(n *Node, c *NodeBoot) {
	if n.Dead != nil {
		t.refuse("incarnation %d of node %s is dead (%s): the node must reset", n.Incarnation, c.Node, n.Dead)
		return
	}
	t.res.Incarnation = n.Incarnation
	if n.Format != c.Format || n.Version != c.Version {
		w := t.node(c.Node)
		w.Format, w.Version = c.Format, c.Version
	}
}

// endedUnarmed reports whether the incarnation surely holds nothing without a reboot: it never armed, or stopped in order.
func endedUnarmed(n *Node) bool {
	if n.Forced {
		return false
	}
	if n.Dead != nil {
		return n.Dead.Kind == ProofNeverArmed || n.Dead.Kind == ProofCleanStop
	}
	return n.Armed == nil
}

// endedByTime reports whether the incarnation's lease ran out. Its node let go of everything in order, or it would have been
// reset: with a probe that found everything stopped it may come back within the same boot. What it held is free already, so
// its word frees nothing; it only bounds what the new incarnation starts from.
func endedByTime(n *Node) bool { return !n.Forced && n.Dead != nil && n.Dead.Kind == ProofTime }

// newIncarnation numbers the boot, and settles what the one before it held.
func (t *tx) newIncarnation(c *NodeBoot) {
	old := t.s.Nodes[c.Node]
	def := t.s.Definition.Node(c.Node)
	sameBoot := old.Incarnation > 0 && c.BootID == old.BootID

	if old.Incarnation > 0 && old.Dead == nil {
		switch {
		case sameBoot: // it has started nothing, by the check above
			t.die(c.Node, old.Incarnation, ProofNeverArmed, "it began anew without ever having armed")
		case c.AllStopped && !def.PlatformRestart:
			t.die(c.Node, old.Incarnation, ProofBoot, "the node has booted again and found everything stopped")
		default:
			t.dropOverrides(c.Node)
		}
	} else if c.AllStopped && !def.PlatformRestart && !sameBoot {
		t.free(c.Node, old.Incarnation, ProofBoot, "the node has booted again and found everything stopped")
	}

	if sameBoot {
		t.carryOver(c.Node, old.Incarnation)
	} else if !def.PlatformRestart { // whatever ran on the machine has ended with its boot
		t.endSessions(c.Node, old.Incarnation, "the node has booted again")
	}
	t.outlive(c.Node, old)

	w := t.node(c.Node)
	started := w.Services == ServicesOn || w.Services == ServicesManual
	w.Incarnation = max(w.Incarnation, t.s.Retired[c.Node]) + 1
	t.res.Incarnation = w.Incarnation
	if sameBoot {
		t.carrySessions(c.Node, old.Incarnation, w.Incarnation)
	}
	if w.BootID != "" && w.BootID != c.BootID {
		w.OldBoots = with(w.OldBoots, w.BootID)
		if extra := len(w.OldBoots) - maxOldBoots; extra > 0 {
			w.OldBoots = slices.Clone(w.OldBoots[extra:])
		}
	}
	w.BootID, w.Life, w.Format, w.Version = c.BootID, c.Life, c.Format, c.Version
	w.Dead, w.Lost, w.Armed, w.Arming, w.Forced, w.Resetting, w.Fencing = nil, nil, nil, "", false, "", nil
	w.OldArmings = nil
	w.NetworksDown, w.Measures = nil, Measures{}
	w.Services, w.StopMode, w.UpSince, w.AbleSince = ServicesOff, "", 0, 0
	t.event(EventNodeBoot, c.Node, "", "node %s has booted: incarnation %d%s", c.Node, w.Incarnation, afterReset(c.Reset))
	if c.Reset != "" && !sameBoot {
		t.restrain(w)
	}
	if started && (def.StartOnBoot == nil || *def.StartOnBoot) {
		t.startAgain(c.Node, takenForDead(old))
	}
}

// takenForDead reports whether the cluster had given the incarnation up: it was silent, and nothing but silence, a fence device or the
// operator said that it ended. To the log a crash and a split are the same.
func takenForDead(n *Node) bool {
	return n.Lost != nil || n.Dead != nil && (n.Dead.Kind == ProofTime || n.Dead.Kind == ProofFenced || n.Dead.Kind == ProofOperator)
}

// startAgain starts the services of a node that ran them before, as the action plan allows.
func (t *tx) startAgain(node string, loser bool) {
	plan := t.s.Definition.Settings.ActionPlan
	switch {
	case loser && plan == cluster.ActionPlanNoServices:
		t.event(EventActionPlan, node, "", "node %s was taken for dead: its cluster services are not started (ACTION_PLAN=%s); clmgr online node %s starts them",
			node, plan, node)
	case loser && plan == cluster.ActionPlanNoGroups:
		t.startServices(node, StartManual)
		t.event(EventActionPlan, node, "", "node %s was taken for dead: no group starts there or falls back to it by itself (ACTION_PLAN=%s) before its cluster services are started anew",
			node, plan)
	default:
		t.startServices(node, StartAuto)
	}
}

func afterReset(why string) string {
	if why == "" {
		return ""
	}
	return ", after a reset: " + why
}

// outlive keeps the old incarnation in mind if it still holds something, because the boot did not prove its end.
func (t *tx) outlive(node string, old *Node) {
	if t.s.incarnationHolds(node, old.Incarnation) {
		w := t.node(node)
		w.Former = append(slices.Clone(w.Former), Former{Incarnation: old.Incarnation, Armed: old.Armed, Forced: old.Forced})
	}
}

// carryOver hands what runs UNMANAGED, or did and has not been adopted since, to the next incarnation of the same boot: it is the same machine, still running it.
func (t *tx) carryOver(node string, from uint64) {
	t.each(node, func(d *cluster.ResourceGroup, g *Group) {
		if i := g.Instances[node]; i != nil && i.Held && i.Incarnation == from && (i.State == Unmanaged || i.Outside) {
			t.instance(d.Name, node).Incarnation = from + 1 // the next, as within one boot nothing was retired
		}
	})
}

func (s *State) incarnationHolds(node string, incarnation uint64) bool {
	for _, g := range s.Groups {
		if i := g.Instances[node]; i != nil && i.Held && i.Incarnation == incarnation {
			return true
		}
	}
	return false
}

// restrain counts a reset and quarantines the node after too many.
func (t *tx) restrain(w *Node) {
	var recent []time.Time
	for _, r := range w.Resets {
		if d := t.at().Sub(r); d >= 0 && d < quarantineWindow {
			recent = append(recent, r)
		}
	}
	w.Resets = append(recent, t.at())
	if len(w.Resets) >= quarantineResets && w.Quarantined == "" {
		w.Quarantined = "the node was reset three times within 30 minutes"
		t.event(EventNodeQuarantined, w.Name, "", "node %s is quarantined: it was reset three times within 30 minutes; clear it with clmgr when it is repaired", w.Name)
	}
}

func (t *tx) clearNode(c *ClearNode) {
	n := t.s.Nodes[c.Node]
	switch {
	case n == nil:
		t.refuse("there is no node %s in the definition", c.Node)
	case n.Quarantined != "":
		w := t.node(c.Node)
		w.Quarantined, w.Resets = "", nil
		t.event(EventNodeCleared, c.Node, "", "the quarantine of node %s was ended by %s", c.Node, t.by())
		if w.Up() {
			t.joined(c.Node, w.Services != ServicesManual)
		}
	}
}

func (t *tx) bootRandom(c *BootRandom) {
	if t.s.Nodes[c.Node] == nil {
		t.refuse("there is no node %s in the definition", c.Node)
		return
	}
	t.node(c.Node).Random = bounded(c.Value)
}

// subject checks that (node, incarnation) is what the log listens to.
func (t *tx) subject(node string, incarnation uint64, what string) *Node {
	n := t.s.Nodes[node]
	switch {
	case n == nil:
		t.refuse("%s: there is no node %s in the definition", what, node)
	case incarnation != n.Incarnation || incarnation == 0:
		t.refuse("%s is about incarnation %d of node %s, the newest is %d", what, incarnation, node, n.Incarnation)
	case n.Dead != nil:
		t.refuse("%s: incarnation %d of node %s is dead (%s)", what, incarnation, node, n.Dead)
	default:
		return n
	}
	return nil
}

func (t *tx) armed(c *Armed) {
	n := t.subject(c.Fact.Node, c.Fact.Incarnation, "the Armed fact")
	switch {
	case n == nil:
	case c.Arming == "":
		t.refuse("the Armed fact of node %s does not name its arming", c.Fact.Node)
	case c.Fact.Watchdog <= 0 || c.Fact.MaxAge <= 0 || c.Fact.Residue < 0 || c.Fact.Margin < 0:
		t.refuse("the Armed fact of node %s holds timings that are not positive", c.Fact.Node)
	case slices.Contains(n.OldArmings, c.Arming):
		t.refuse("the Armed fact of node %s is about an arming that is over", c.Fact.Node)
	case n.Armed != nil && n.Arming == c.Arming && earlier(c.Fact, *n.Armed):
		t.refuse("the Armed fact of node %s would make a proof earlier within one arming: it is late", c.Fact.Node)
	default:
		w, fact := t.node(c.Fact.Node), c.Fact
		if n.Arming != c.Arming {
			w.armingOver()
		}
		w.Armed, w.Arming, w.Forced = &fact, c.Arming, false
		t.event(EventNodeArmed, w.Name, "", "the deadman of node %s is armed: class %s, mode %s, watchdog %v", w.Name, fact.Class, fact.Mode, fact.Watchdog)
	}
}

// earlier reports whether silence would prove something by the fact that it does not prove by the old one, or sooner.
func earlier(fact, old lease.Armed) bool {
	return fact.TimeProves() && (!old.TimeProves() || fact.Expiry() < old.Expiry())
}

// armingOver remembers the present arming as over: a fact about it that comes late, or twice, must not stand in the way of the
// newer one by which silence is judged.
func (n *Node) armingOver() {
	if n.Arming == "" {
		return
	}
	n.OldArmings = with(n.OldArmings, n.Arming)
	if extra := len(n.OldArmings) - maxOldArmings; extra > 0 {
		n.OldArmings = slices.Clone(n.OldArmings[extra:])
	}
}

func (t *tx) disarmed(c *Disarmed) {
	n := t.subject(c.Node, c.Incarnation, "the Disarmed fact")
	switch {
	case n == nil:
	case n.Arming == "" || n.Arming != c.Arming:
		t.refuse("the Disarmed fact of node %s is about another arming than the newest", c.Node)
	default:
		for _, name := range t.s.GroupNames() {
			if i := t.s.Groups[name].Instances[c.Node]; i != nil && i.Held && i.State != Unmanaged {
				t.refuse("node %s cannot be disarmed: group %s is %s there", c.Node, name, i.State)
				return
			}
		}
		w := t.node(c.Node)
		w.armingOver()
		w.Armed, w.Arming = nil, ""
		t.event(EventNodeDisarmed, c.Node, "", "the deadman of node %s is disarmed: the node holds nothing", c.Node)
	}
}

func (t *tx) nodeLost(c *NodeLost) {
	n := t.subject(c.Node, c.Incarnation, "the loss")
	if n == nil || n.Lost != nil {
		return
	}
	t.node(c.Node).Lost = &Loss{Sentence: bounded(c.Sentence), Index: t.e.Index, At: t.at()}
	t.event(EventNodeLost, c.Node, "", "node %s is silent: %s", c.Node, c.Sentence)
}

func (t *tx) nodeFound(c *NodeFound) {
	n := t.subject(c.Node, c.Incarnation, "the return")
	if n == nil || n.Lost == nil {
		return
	}
	t.node(c.Node).Lost = nil
	t.event(EventNodeFound, c.Node, "", "node %s is heard again", c.Node)
}

func (t *tx) fence(c *Fence) {
	n := t.subject(c.Node, c.Incarnation, "the fencing")
	if n == nil {
		return
	}
	w := t.node(c.Node)
	w.Fencing = &Fencing{Incarnation: c.Incarnation, Device: c.Device, Running: c.Failed == "", Index: t.e.Index, At: t.at(), Result: bounded(c.Failed)}
	if c.Failed == "" {
		t.event(EventNodeFence, c.Node, "", "node %s is being fenced by %s", c.Node, c.Device)
	} else {
		t.event(EventNodeFenceFailed, c.Node, "", "fencing node %s by %s failed: %s", c.Node, c.Device, c.Failed)
	}
}

func (t *tx) resetNode(c *ResetNode) {
	n := t.subject(c.Node, c.Incarnation, "the reset")
	if n == nil || n.Resetting != "" {
		return
	}
	t.node(c.Node).Resetting = bounded(c.Reason)
	t.event(EventNodeReset, c.Node, "", "node %s gives up its lease and is reset: %s", c.Node, c.Reason)
}

func (t *tx) networkState(c *NetworkState) {
	n := t.subject(c.Node, c.Incarnation, "the state of network "+c.Network)
	if n == nil {
		return
	}
	if t.s.Definition.Network(c.Network) == nil {
		t.refuse("there is no network %s in the definition", c.Network)
		return
	}
	if n.NetworkDown(c.Network) != c.Up {
		return // it is so already
	}
	w := t.node(c.Node)
	if !c.Up {
		w.NetworksDown = withSorted(w.NetworksDown, c.Network)
		t.event(EventNetworkDown, c.Node, "", "node %s has lost network %s%s", c.Node, c.Network, colon(c.Sentence))
		return
	}
	w.NetworksDown, w.AbleSince = without(w.NetworksDown, c.Network), t.e.Index
	t.event(EventNetworkUp, c.Node, "", "node %s has network %s again%s", c.Node, c.Network, colon(c.Sentence))
	t.each(c.Node, func(d *cluster.ResourceGroup, g *Group) {
		if !slices.Contains(t.s.Definition.NetworksOf(d), c.Network) {
			return
		}
		if m := g.Marks[c.Node]; m != nil && m.Kind == MarkAcquisition {
			t.unmark(d.Name, c.Node)
		}
		if g.Phase == PhaseError && g.ErrorForNetwork {
			t.retry(d)
		}
	})
}

func (t *tx) measure(c *Measure) {
	n := t.subject(c.Node, c.Incarnation, "the measure")
	if n == nil {
		return
	}
	w, m := t.node(c.Node), c.Measures
	if m.CPU != nil {
		w.Measures.CPU = m.CPU
	}
	if m.Memory != nil {
		w.Measures.Memory = m.Memory
	}
	if m.Disk != nil {
		w.Measures.Disk = m.Disk
	}
	if m.Script != nil {
		w.Measures.Script = copyMap(w.Measures.Script)
		maps.Copy(w.Measures.Script, m.Script)
	}
}

// proof ends an incarnation, or frees what an ended one still holds.
func (t *tx) proof(c *Proof) {
	n := t.s.Nodes[c.Node]
	if n == nil {
		t.refuse("the proof: there is no node %s in the definition", c.Node)
		return
	}
	if c.Incarnation == 0 || c.Incarnation > n.Incarnation {
		t.refuse("the proof is about incarnation %d of node %s, the newest is %d", c.Incarnation, c.Node, n.Incarnation)
		return
	}
	former := slices.IndexFunc(n.Former, func(f Former) bool { return f.Incarnation == c.Incarnation })
	if c.Incarnation != n.Incarnation && former < 0 {
		t.refuse("the proof is about incarnation %d of node %s, which is long over; the newest is %d", c.Incarnation, c.Node, n.Incarnation)
		return
	}
	if why := t.s.proofFails(c, n, former); why != "" {
		t.refuse("%s", why)
		return
	}
	if c.Kind.endsLocks() && (former >= 0 || n.Dead != nil) {
		t.endSessions(c.Node, c.Incarnation, "the node is dead: proof "+string(c.Kind))
	}
	if former >= 0 {
		t.free(c.Node, c.Incarnation, c.Kind, c.Sentence)
		if !t.s.incarnationHolds(c.Node, c.Incarnation) {
			w := t.node(c.Node)
			w.Former = slices.Delete(slices.Clone(w.Former), former, former+1)
		}
		t.stopped(c.Node) // it may be what the node's services were waiting for
		t.event(EventNodeDead, c.Node, "", "incarnation %d of node %s is dead: proof %s%s", c.Incarnation, c.Node, c.Kind, colon(c.Sentence))
		return
	}
	if n.Dead != nil {
		t.free(c.Node, c.Incarnation, c.Kind, c.Sentence)
		return
	}
	t.die(c.Node, c.Incarnation, c.Kind, c.Sentence)
}

// proofFails says why a proof does not prove; empty if it does. former is the index of an older incarnation in n.Former, or -1.
func (s *State) proofFails(c *Proof, n *Node, former int) string {
	armed, forced := n.Armed, n.Forced
	if former >= 0 {
		armed, forced = n.Former[former].Armed, n.Former[former].Forced
	}
	about := "the proof against node " + c.Node + " fails: "
	switch c.Kind {
	case ProofTime:
		switch {
		case c.Time == nil:
			return about + "it carries no times"
		case forced:
			return about + "what it armed is not known since the configuration was forced"
		case armed == nil:
			return about + "it has armed nothing that time could prove"
		}
		if err := c.Time.Check(*armed); err != nil {
			return about + err.Error()
		}
	case ProofNeverArmed:
		if armed != nil || forced {
			return about + "it has armed, so it may have started something"
		}
	case ProofCleanStop:
		switch {
		case forced || former >= 0:
			return about + "only a living incarnation can stop in order"
		case n.Services != ServicesOff && n.Services != ServicesUnmanaged || armed != nil:
			return about + "its services are not stopped, or its deadman is armed"
		case s.holdsAnything(c.Node):
			return about + "it still holds groups"
		}
	case ProofBoot:
		def := s.Definition.Node(c.Node)
		switch {
		case former < 0:
			return about + "the boot proof is about the newest boot itself"
		case c.By != n.Incarnation || n.Dead != nil:
			return about + "only the newest boot can give it"
		case def.PlatformRestart:
			return about + "the platform may run a second copy of the node, so its boot proves nothing before the lease has run out"
		}
	case ProofFenced, ProofOperator:
	default:
		return about + "there is no proof of kind " + string(c.Kind)
	}
	return ""
}

// strong reports whether the proof also frees what lies outside the lease (UNMANAGED).
func (k ProofKind) strong() bool { return k == ProofFenced || k == ProofOperator || k == ProofBoot }

// die records the death of the current incarnation and frees what it holds.
func (t *tx) die(node string, incarnation uint64, kind ProofKind, sentence string) {
	w := t.node(node)
	w.Dead = &Death{Kind: kind, Sentence: bounded(sentence), Index: t.e.Index, At: t.at()}
	w.Lost, w.Fencing, w.UpSince = nil, nil, 0
	if w.Services == ServicesStopping {
		w.Services, w.StopMode = ServicesOff, ""
	}
	t.event(EventNodeDead, node, "", "incarnation %d of node %s is dead: proof %s%s", incarnation, node, kind, colon(sentence))
	if kind != ProofCleanStop {
		t.event(EventNodeDown, node, "", "node %s is down", node)
	}
	if kind.endsLocks() {
		t.endSessions(node, incarnation, "the node is dead: proof "+string(kind))
	}
	t.dropOverrides(node)
	t.free(node, incarnation, kind, sentence)
	t.lastNodeGone(false)
}

// free ends everything that the incarnation holds, as far as the proof reaches.
func (t *tx) free(node string, incarnation uint64, kind ProofKind, sentence string) {
	t.each(node, func(d *cluster.ResourceGroup, g *Group) {
		i := g.Instances[node]
		if i == nil || !i.Held || i.Incarnation != incarnation {
			return
		}
		if i.State == Unmanaged {
			if kind.strong() {
				w := t.instance(d.Name, node) // shown UNMANAGED still: nobody takes it over until the operator says so
				w.Held = false
				t.unreleased(d, node, kind)
				t.event(EventGroupFreed, node, d.Name, "group %s is free of node %s: proof %s%s", d.Name, node, kind, colon(sentence))
			}
			return
		}
		if i.Outside && !kind.strong() {
			return
		}
		t.event(EventGroupFreed, node, d.Name, "group %s is free of node %s: proof %s%s", d.Name, node, kind, colon(sentence))
		t.freed(d, node, freedByDeath, node+" is dead: proof "+string(kind))
		t.unreleased(d, node, kind)
	})
}

// unreleased notes that a holder is gone that did not release the group. A node that stopped in order has.
func (t *tx) unreleased(d *cluster.ResourceGroup, node string, kind ProofKind) {
	if kind != ProofCleanStop && !d.Concurrent() {
		t.group(d.Name).Unreleased = node + " is dead: proof " + string(kind)
	}
}

// dropOverrides forgets the operator's placements on a node that leaves.
func (t *tx) dropOverrides(node string) {
	t.each(node, func(d *cluster.ResourceGroup, g *Group) {
		if g.Override != nil && g.Override.Node == node {
			t.group(d.Name).Override = nil
		}
	})
}

// lastNodeGone puts every free group under its startup policy again when no node is up; after an orderly stop of the cluster
// the operator's wishes end too.
func (t *tx) lastNodeGone(inOrder bool) {
	for _, name := range t.s.NodeNames() {
		if t.s.Nodes[name].takesPart() {
			return
		}
	}
	for i := range t.s.Definition.ResourceGroups {
		d := &t.s.Definition.ResourceGroups[i]
		g := t.s.Groups[d.Name]
		if len(heldNodes(g)) > 0 {
			continue
		}
		if inOrder && (g.Override != nil || g.Offline || g.OfflineOn != nil) {
			w := t.group(d.Name)
			w.Override, w.Offline, w.OfflineOn = nil, false, nil
		}
		if g = t.s.Groups[d.Name]; g.Phase != PhaseError && (g.Phase != PhaseStart || !g.SettleUntil.IsZero()) && !anyState(g, Unmanaged) {
			w := t.group(d.Name)
			w.Phase, w.Tried, w.Intent, w.SettleUntil = PhaseStart, nil, nil, time.Time{}
		}
	}
}

func anyState(g *Group, s InstanceState) bool {
	for _, i := range g.Instances {
		if i.State == s {
			return true
		}
	}
	return false
}

func (t *tx) by() string {
	if t.e.Command.By == "" {
		return "the operator"
	}
	return t.e.Command.By
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
