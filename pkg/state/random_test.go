package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// TestRandomCommandsNeverGiveAGroupTwice applies random commands - among them stale, repeated and foreign ones - and checks
// after each what the package promises, by rules of its own (attacks A1, A4, A5, A6, A7, A9).
func TestRandomCommandsNeverGiveAGroupTwice(t *testing.T) {
	runs, steps := 100, 300
	if testing.Short() {
		runs = 20
	}
	taken := map[string]int{}
	for seed := 0; seed < runs; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		w := &randomWorld{log: newLog(t, three()), r: r, taken: taken, used: map[uint64]string{}}
		if r.IntN(3) == 0 {
			d := three()
			d.Nodes[0].PlatformRestart = true
			w.log = newLog(t, d)
		}
		w.up("n1", "n2", "n3")
		for i := range steps {
			w.step(seed, i)
		}
	}
	for _, kind := range []string{"acquire", "release", "report", "proof", "node_boot", "armed", "disarmed", "move_group", "node_services",
		"clear_group", "network_state", "node_lost", "unmanage_group", "manage_group", "new_epoch", "set_definition"} {
		if taken[kind] == 0 {
			t.Errorf("no %s was ever taken: the test does not reach it", kind)
		}
	}
}

type randomWorld struct {
	*log
	r     *rand.Rand
	old   []Command // for repetitions
	boots int
	taken map[string]int
	used  map[uint64]string // generation -> group and node
}

func (w *randomWorld) step(seed, i int) {
	c := w.random()
	if len(w.old) > 0 && w.r.IntN(4) == 0 {
		c = w.old[w.r.IntN(len(w.old))] // late, or repeated
	}
	w.old = append(w.old, c)
	look := w.r.IntN(10) == 0 // encoding is the slow part
	before, plain := w.s, []byte(nil)
	if look {
		plain = mustEncode(w.t, w.s)
	}
	res := w.do(c)
	if look && !bytes.Equal(plain, mustEncode(w.t, before)) {
		w.t.Fatalf("seed %d step %d: %s changed the state that it was applied to", seed, i, c.Kind())
	}
	if res.Refused == "" {
		w.taken[c.Kind()]++
	} else if look && !bytes.Equal(mustEncode(w.t, strip(before)), mustEncode(w.t, strip(w.s))) {
		w.t.Fatalf("seed %d step %d: a refused %s changed the state", seed, i, c.Kind())
	}
	if why := w.broken(before, &c, res); why != "" {
		w.t.Fatalf("seed %d step %d: after %s %+v: %s", seed, i, c.Kind(), res, why)
	}
	if i%50 == 0 {
		w.codec(seed, i)
	}
}

// broken is the checker: it knows nothing of how Apply works.
func (w *randomWorld) broken(before *State, c *Command, res Result) string {
	for name, g := range w.s.Groups {
		concurrent := w.s.Definition.Group(name).Concurrent()
		held, heldBefore := 0, 0
		for _, i := range before.Groups[name].Instances {
			if i.Held {
				heldBefore++
			}
		}
		for node, i := range g.Instances {
			if i.Held {
				held++
			}
			if i.Held && (i.State == Offline || i.State == TempError) || !i.Held && (i.State == Online || i.State == Acquiring || i.State == Releasing) {
				return fmt.Sprintf("%s on %s is %s, held %v", name, node, i.State, i.Held)
			}
			was := before.Instance(name, node)
			if !was.Held && i.Held && c.Acquire == nil && c.NewEpoch == nil {
				return fmt.Sprintf("%s on %s became held by %s", name, node, c.Kind())
			}
			if c.Acquire != nil && !was.Held && i.Held {
				if prev, dup := w.used[i.Generation]; dup {
					return fmt.Sprintf("generation %d of %s on %s was used for %s", i.Generation, name, node, prev)
				}
				w.used[i.Generation] = name + " on " + node
				if h, _ := before.Groups[name].Holder(); h != "" && !concurrent {
					return fmt.Sprintf("%s was acquired on %s while %s held it", name, node, h)
				}
				if n := w.s.Nodes[node]; n.Dead != nil || n.Lost != nil || n.Incarnation != i.Incarnation {
					return fmt.Sprintf("%s was acquired on %s, which is not there", name, node)
				}
			}
		}
		if held > 1 && held > heldBefore && !concurrent && c.NewEpoch == nil {
			return fmt.Sprintf("%s is held %d times", name, held)
		}
		if b := before.Groups[name]; b != nil {
			for node, was := range b.Instances {
				if was.Held && !w.s.Instance(name, node).Held {
					if why := w.freedWrongly(before, name, node, was, c); why != "" {
						return why
					}
				}
			}
			if g.Generation != b.Generation && c.Acquire == nil {
				return fmt.Sprintf("%s raised the generation of %s", c.Kind(), name)
			}
		}
	}
	for name, n := range w.s.Nodes {
		if n.Dead != nil && n.Dead.Kind != ProofCleanStop {
			for _, h := range w.s.Holds(name, n.Incarnation) {
				return fmt.Sprintf("the dead incarnation of %s may hold %s", name, h.Group)
			}
		}
		if b := before.Nodes[name]; b != nil && b.Dead != nil && n.Incarnation == b.Incarnation && (n.Dead == nil || c.Armed != nil && n.Armed != b.Armed) {
			return "a dead incarnation came back"
		}
	}
	_ = res
	return ""
}

// freedWrongly judges why an instance stopped being held.
func (w *randomWorld) freedWrongly(before *State, group, node string, was *Instance, c *Command) string {
	n := before.Nodes[node]
	bad := func(why string) string { return fmt.Sprintf("%s on %s was freed: %s", group, node, why) }
	switch {
	case c.Report != nil:
		r := c.Report
		if r.Node != node || r.Group != group || r.Generation != was.Generation || r.Incarnation != was.Incarnation || r.Incarnation != n.Incarnation {
			return bad("by a report about something else")
		}
		if r.Outcome != OutcomeReleased && r.Outcome != OutcomeAcquireFailed && r.Outcome != OutcomeFoundStopped {
			return bad("by the outcome " + string(r.Outcome))
		}
	case c.Proof != nil:
		p := c.Proof
		if p.Node != node || p.Incarnation != was.Incarnation {
			return bad("by a proof about something else")
		}
		if was.State == Unmanaged && (p.Kind == ProofTime || p.Kind == ProofNeverArmed || p.Kind == ProofCleanStop) {
			return bad("UNMANAGED, by proof " + string(p.Kind))
		}
		armed := n.Armed
		for _, f := range n.Former {
			if f.Incarnation == p.Incarnation {
				armed = f.Armed
			}
		}
		if p.Kind == ProofNeverArmed && armed != nil {
			return bad("by never-armed although it was armed")
		}
		if p.Kind == ProofTime && (armed == nil || p.Time.Now.Sub(p.Time.T0) < armed.Expiry() || armed.Mode != lease.ModeReset || armed.Class != lease.Independent) {
			return bad("by a time that proves nothing")
		}
	case c.NodeBoot != nil:
		b := c.NodeBoot
		if b.Node != node || b.Replaces != was.Incarnation {
			return bad("by the boot of something else")
		}
		if b.BootID == n.BootID {
			if n.Armed != nil && n.Dead == nil {
				return bad("by a new life of an armed boot")
			}
		} else if !b.AllStopped || before.Definition.Node(node).PlatformRestart {
			return bad("by a boot that is no proof")
		}
	case c.NewEpoch != nil:
		if slices.Contains(c.NewEpoch.Dead, node) {
			return ""
		}
		return bad("by a new epoch")
	default:
		return bad("by " + c.Kind())
	}
	return ""
}

// codec: what is written and read again answers alike.
func (w *randomWorld) codec(seed, i int) {
	b := mustEncode(w.t, w.s)
	s, err := Decode(b)
	if err != nil {
		w.t.Fatalf("seed %d step %d: %v", seed, i, err)
	}
	if !bytes.Equal(b, mustEncode(w.t, s)) {
		w.t.Fatalf("seed %d step %d: the state is not the same after decoding", seed, i)
	}
	c := w.random()
	c.At = w.at
	eb, err := c.Encode()
	if err != nil {
		w.t.Fatalf("seed %d step %d: %v", seed, i, err)
	}
	dc, err := DecodeCommand(eb)
	if err != nil {
		w.t.Fatalf("seed %d step %d: %v", seed, i, err)
	}
	x, _ := Apply(w.s, Entry{Index: w.index + 1, Term: 1, Command: &c})
	y, _ := Apply(s, Entry{Index: w.index + 1, Term: 1, Command: dc})
	if !bytes.Equal(mustEncode(w.t, x), mustEncode(w.t, y)) {
		w.t.Fatalf("seed %d step %d: two replicas differ after %s", seed, i, c.Kind())
	}
}

func (w *randomWorld) random() Command {
	r := w.r
	node := []string{"n1", "n2", "n3"}[r.IntN(3)]
	group := []string{"a", "b", "c"}[r.IntN(3)]
	n := w.s.Nodes[node]
	inc := n.Incarnation
	if r.IntN(8) == 0 {
		inc += uint64(r.IntN(3)) - 1
	}
	inst := w.s.Instance(group, node)
	if holder, i := w.s.Groups[group].Holder(); i != nil && r.IntN(2) == 0 {
		node, inst, n = holder, *i, w.s.Nodes[holder]
		inc = n.Incarnation
	}
	gen := inst.Generation
	if r.IntN(8) == 0 && gen > 0 {
		gen += uint64(r.IntN(3)) - 1
	}
	switch r.IntN(30) {
	case 0, 1, 2, 3, 4:
		based := w.s.Based(group, node)
		if r.IntN(8) == 0 {
			based++
		}
		return Command{Acquire: &Acquire{Group: group, Node: node, Incarnation: inc, Based: based, Reason: "random"}}
	case 5, 6:
		causes := []Cause{CauseMove, CauseOffline, CauseStop, CauseStopMove, CauseFailure, CauseFallback}
		return Command{Release: &Release{Group: group, Node: node, Incarnation: inc, Generation: gen, Cause: causes[r.IntN(len(causes))], Reason: "random"}}
	case 7, 8, 9, 10, 11:
		outcomes := []Outcome{OutcomeOnline, OutcomeOnline, OutcomeAcquireFailed, OutcomeReleased, OutcomeReleased, OutcomeReleaseFailed, OutcomeFoundStopped, OutcomeAppFailed}
		return Command{Report: &Report{Node: node, Incarnation: inc, Group: group, Generation: gen, Outcome: outcomes[r.IntN(len(outcomes))]}}
	case 12, 13:
		kinds := []ProofKind{ProofTime, ProofNeverArmed, ProofFenced, ProofBoot, ProofOperator, ProofCleanStop}
		p := &Proof{Node: node, Incarnation: inc, Kind: kinds[r.IntN(len(kinds))], By: n.Incarnation, Sentence: "random"}
		if len(n.Former) > 0 && r.IntN(2) == 0 {
			p.Incarnation = n.Former[0].Incarnation
		}
		if p.Kind == ProofTime {
			fact := armedFact(node, p.Incarnation)
			p.Time = timeProof(fact, time.Duration(r.IntN(2))*5*time.Second+fact.Expiry()-time.Duration(r.IntN(2)))
		}
		return Command{Proof: p}
	case 14, 15, 16:
		w.boots++
		b := &NodeBoot{Node: node, BootID: fmt.Sprintf("%s-r%d", node, w.boots), Replaces: inc, AllStopped: r.IntN(3) > 0}
		if r.IntN(4) == 0 {
			b.BootID, b.Life = n.BootID, fmt.Sprint(w.boots)
		}
		return Command{NodeBoot: b}
	case 17, 18:
		return Command{Armed: &Armed{Fact: armedFact(node, inc), Arming: fmt.Sprintf("arming%d", w.index)}}
	case 19:
		return Command{Disarmed: &Disarmed{Node: node, Incarnation: inc, Arming: n.Arming}}
	case 20, 21:
		if r.IntN(3) > 0 {
			return Command{NodeServices: &NodeServices{Nodes: []string{node}, Start: []StartMode{StartAuto, StartManual}[r.IntN(2)]}}
		}
		return Command{NodeServices: &NodeServices{Nodes: []string{node}, Stop: []StopMode{StopOffline, StopMove, StopUnmanage}[r.IntN(3)]}}
	case 22:
		return Command{NodeLost: &NodeLost{Node: node, Incarnation: inc, Sentence: "random"}}
	case 23:
		return Command{NodeFound: &NodeFound{Node: node, Incarnation: inc}}
	case 24:
		return Command{NetworkState: &NetworkState{Node: node, Incarnation: inc, Network: "net1", Up: r.IntN(2) == 0}}
	case 25:
		return []Command{{MoveGroup: &MoveGroup{Group: group, Node: node}}, {OnlineGroup: &OnlineGroup{Group: group}},
			{OfflineGroup: &OfflineGroup{Group: group}}, {UnsetPriority: &UnsetPriority{Group: group}}}[r.IntN(4)]
	case 26:
		return []Command{{ClearGroup: &ClearGroup{Group: group}}, {ClearNode: &ClearNode{Node: node}}, {SuspendGroup: &SuspendGroup{Group: group}},
			{ResumeGroup: &ResumeGroup{Group: group}}, {ResumeGroup: &ResumeGroup{Group: group}}}[r.IntN(5)]
	case 27:
		return []Command{{UnmanageGroup: &UnmanageGroup{Group: group}}, {ManageGroup: &ManageGroup{Group: group}}, {ManageGroup: &ManageGroup{Group: group}}}[r.IntN(3)]
	case 28:
		if r.IntN(10) == 0 {
			return Command{NewEpoch: &NewEpoch{Epoch: w.s.Epoch + 1, Dead: []string{node}}}
		}
		return Command{GiveUp: &GiveUp{Group: group, Node: node, Based: w.s.Based(group, node), Reason: "random"}}
	default:
		d := *w.s.Definition
		d.ResourceGroups = append(d.ResourceGroups[:0:0], d.ResourceGroups...)
		d.ResourceGroups[r.IntN(3)].Priority = r.IntN(5)
		if r.IntN(3) == 0 {
			d.ResourceGroups[2].Startup = []cluster.Startup{cluster.OnlineOnAllAvailable, cluster.OnlineOnHomeNode}[r.IntN(2)]
		}
		switch {
		case w.s.Staged != nil && r.IntN(2) == 0:
			return Command{Activate: &Activate{Version: w.s.StagedVersion}}
		case w.s.Staged != nil && r.IntN(3) == 0:
			return Command{Stage: &Stage{Version: w.s.StagedVersion}}
		case w.s.Staged != nil || r.IntN(3) == 0:
			return Command{Stage: &Stage{Version: w.s.StagedVersion, Definition: &d}}
		}
		return Command{SetDefinition: &SetDefinition{Base: w.s.DefinitionVersion, Definition: &d}}
	}
}
