package leader

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

const origin = lease.Instant(1000 * time.Second)

var wall = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// A world is a leader n1 with n2 and n3, whose clock the test moves. What it proposes is put to the real state.
type world struct {
	t      *testing.T
	s      *state.State
	index  uint64
	now    lease.Instant
	det    *detector.Detector
	book   *lease.Grantor
	d      *Duties
	params lease.Params
}

// newWorld has nodes that have booted, and whose deadmen are armed but for n3's. Fence devices are given as the levels of n2.
func newWorld(t *testing.T, levels ...int) *world {
	t.Helper()
	p, err := lease.Profile("default")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, s: state.New(), now: origin, params: p, det: detector.New(detector.ParamsFor(p), origin), book: lease.NewGrantor(1)}
	def := &cluster.Definition{Name: "demo", Nodes: []cluster.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}}
	for i, l := range levels {
		def.FenceDevices = append(def.FenceDevices, cluster.FenceDevice{Name: fmt.Sprintf("f%d", i+1), Agent: "/f", Nodes: []string{"n2"}, Levels: []int{l}})
	}
	w.must(state.Command{Create: &state.Create{ClusterID: "id", Definition: def}})
	for _, n := range []string{"n1", "n2", "n3"} {
		w.must(state.Command{NodeBoot: &state.NodeBoot{Node: n, BootID: "boot of " + n, AllStopped: true}})
	}
	w.must(state.Command{Armed: &state.Armed{Arming: "x", Fact: lease.Armed{Node: "n2", Incarnation: 1, Class: lease.Independent, Mode: lease.ModeReset,
		Watchdog: 10 * time.Second, MaxAge: time.Second}}})
	w.det.Watch([]string{"n2", "n3"}, w.now)
	w.det.Lead("", w.now)
	w.book.SetVoters([]string{"n1", "n2", "n3"})
	w.book.Committed(w.now)
	w.d = New("n1", w.book)
	return w
}

func (w *world) apply(c *state.Command) state.Result {
	w.index++
	c.At = wall
	var r state.Result
	w.s, r = state.Apply(w.s, state.Entry{Index: w.index, Term: 1, Command: c})
	return r
}

func (w *world) must(c state.Command) {
	w.t.Helper()
	if r := w.apply(&c); r.Refused != "" {
		w.t.Fatalf("%s was refused: %s", c.Kind(), r.Refused)
	}
}

// pass lets time pass, in which the nodes named ask for their leases.
func (w *world) pass(d time.Duration, heard ...string) {
	for end := w.now.Add(d); w.now < end; {
		w.now = w.now.Add(100 * time.Millisecond)
		for _, n := range heard {
			w.det.Observe(n, detector.PathLease, w.now)
		}
		w.det.Changes(w.now)
	}
}

// want takes one look and compares what is proposed ("kind node" or "proof node proof's kind") and shot at ("shot node devices").
func (w *world) want(want ...string) []Proposal {
	w.t.Helper()
	found, shots := w.d.Findings(Look{Now: w.now, View: w.s, Incarnation: 1, Detector: w.det,
		Why: map[string]string{"n2": "because"}, Params: w.params})
	got := []string{}
	for _, p := range found {
		switch c := p.Command; {
		case c.NodeLost != nil:
			got = append(got, "lost "+c.NodeLost.Node)
		case c.NodeFound != nil:
			got = append(got, "found "+c.NodeFound.Node)
		case c.LocksEnd != nil:
			got = append(got, fmt.Sprintf("locks-end %s %d", c.LocksEnd.Node, c.LocksEnd.Incarnation))
		case c.Proof != nil:
			got = append(got, fmt.Sprintf("proof %s %s", c.Proof.Node, c.Proof.Kind))
			if c.Proof.Sentence == "" || p.Doomed != (lease.Subject{Node: c.Proof.Node, Incarnation: c.Proof.Incarnation}) {
				w.t.Errorf("%+v, doomed %v", c.Proof, p.Doomed)
			}
			if w.book.MayGrant(p.Doomed) {
				w.t.Errorf("%v may be granted with a proof against it under way", p.Doomed)
			}
		}
	}
	for _, s := range shots {
		var names []string
		for _, d := range s.Devices {
			names = append(names, d.Name)
		}
		got = append(got, "shot "+s.Subject.Node+" "+strings.Join(names, "+"))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("%v: the leader says %q, want %q", w.now.Sub(origin), got, want)
	}
	return found
}

// commit puts proposals to the state, and tells what became of them.
func (w *world) commit(list []Proposal) {
	for _, p := range list {
		w.d.Answered(p, w.apply(p.Command).Refused != "", w.now)
	}
	w.d.Replan()
}

func n2(incarnation uint64) lease.Subject { return lease.Subject{Node: "n2", Incarnation: incarnation} }

// A node falls silent: it is lost; what has armed nothing is dead at once, what is armed when its watchdog has fired, and not before.
func TestSilentNodes(t *testing.T) {
	w := newWorld(t)
	w.pass(2*time.Second, "n2", "n3")
	w.book.Granted(n2(1), w.now)
	granted := w.now
	w.want()
	w.pass(5 * time.Second)
	w.commit(w.want("lost n2", "lost n3"))
	w.commit(w.want("proof n3 never-armed"))
	if w.s.Node("n3").Dead == nil {
		t.Error("n3 lives on")
	}
	expiry := w.s.Node("n2").Armed.Expiry()
	w.now = granted.Add(expiry - time.Millisecond)
	w.want()
	w.now = granted.Add(expiry)
	w.commit(w.want("proof n2 time"))
	if w.s.Node("n2").Dead == nil {
		t.Error("n2 lives on")
	}
	w.want()
}

// A node that is heard again is found, unless a proof against it is under way: then its fate is the log's.
func TestFoundAgainUnlessDoomed(t *testing.T) {
	w := newWorld(t)
	w.pass(2*time.Second, "n2", "n3")
	w.pass(3*time.Second, "n3")
	w.commit(w.want("lost n2"))
	w.pass(time.Second, "n2", "n3")
	w.commit(w.want("found n2"))
	w.pass(3*time.Second, "n3")
	w.commit(w.want("lost n2"))
	w.pass(20*time.Second, "n3")
	w.want("proof n2 time") // on its way
	w.pass(time.Second, "n2", "n3")
	for _, p := range w.want("proof n2 time") { // the log has lost it: it is proposed again, nothing else
		if p.Command.NodeFound != nil {
			t.Error("a doomed node was found")
		}
	}
}

// This node is not lost, whatever an earlier leader said, and nothing is proven against it.
func TestItself(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Second, "n2", "n3")
	w.must(state.Command{NodeLost: &state.NodeLost{Node: "n1", Incarnation: 1, Sentence: "by an earlier leader"}})
	found, shots := w.d.Findings(Look{Now: w.now, View: w.s, Incarnation: 7, Detector: w.det})
	if len(found) > 0 || len(shots) > 0 {
		t.Errorf("another boot of this node: %v %v", found, shots)
	}
	w.commit(w.want("found n1"))
	w.want()
}

// A refused proof spares its subject, which may be granted again, and is not repeated at once.
func TestRefusedProofSpares(t *testing.T) {
	w := newWorld(t)
	w.pass(2*time.Second, "n2", "n3")
	w.pass(5*time.Second, "n2")
	w.commit(w.want("lost n3"))
	list := w.want("proof n3 never-armed")
	w.must(state.Command{Armed: &state.Armed{Arming: "y", Fact: lease.Armed{Node: "n3", Incarnation: 1, Class: lease.Process, Mode: lease.ModeReset,
		Watchdog: time.Second, MaxAge: time.Second}}})
	w.commit(list)
	if s := (lease.Subject{Node: "n3", Incarnation: 1}); !w.book.MayGrant(s) {
		t.Error("n3 is doomed by a proof that was refused")
	}
	if _, ok := w.d.Plan(w.s, w.now, wall); ok {
		t.Error("a plan was made at once after a refusal")
	}
	w.now = w.now.Add(refusedPause)
	w.want()
	if _, ok := w.d.Plan(w.s, w.now, wall); !ok {
		t.Error("no plan is made after the pause")
	}
	if _, ok := w.d.Plan(w.s, w.now, wall); ok {
		t.Error("a plan was made twice of one state")
	}
}

// After a forced configuration it is not known what a silent node has armed: nothing is proven by that, and only a fence device can say
// that it is off. (A leader that proposed the other proofs was refused for ever, and never shot.)
func TestForcedNodeIsFenced(t *testing.T) {
	w := newWorld(t, 1)
	w.pass(2*time.Second, "n2", "n3")
	w.must(state.Command{NewEpoch: &state.NewEpoch{Epoch: w.s.Epoch + 1}})
	w.pass(5*time.Second, "n3")
	w.commit(w.want("lost n2"))
	w.want("shot n2 f1")
	w.d.Fired(n2(1))
	w.pass(time.Minute, "n3")
	w.want()
	w.d.Fenced(n2(1), FenceOff, "f1 says off", w.now)
	w.commit(w.want("proof n2 fenced"))
	if d := w.s.Node("n2").Dead; d == nil || d.Kind != state.ProofFenced {
		t.Errorf("n2 is dead by %v", d)
	}
}

// The levels are tried in order, all devices of one together; a shot that was called off is fired again, and after a round in vain there is
// a pause that grows.
func TestLevels(t *testing.T) {
	w := newWorld(t, 1, 1, 2)
	w.must(state.Command{NewEpoch: &state.NewEpoch{Epoch: w.s.Epoch + 1}}) // time proves nothing
	w.pass(2*time.Second, "n2", "n3")
	w.pass(5*time.Second, "n3")
	w.commit(w.want("lost n2"))
	w.want("shot n2 f1+f2")
	w.d.Held(n2(1), w.now)
	w.want()
	w.pass(refusedPause, "n3")
	w.want("shot n2 f1+f2")
	w.d.Fired(n2(1))
	w.want()
	w.d.Fenced(n2(1), FenceCalledOff, "", w.now)
	w.want()
	pause := time.Duration(0)
	for range 7 {
		for _, devices := range []string{"f1+f2", "f3"} {
			w.pass(refusedPause, "n3")
			w.want("shot n2 " + devices)
			w.d.Fired(n2(1))
			w.d.Fenced(n2(1), FenceFailed, "", w.now)
		}
		w.want()
		pause = min(max(2*pause, 2*fenceRetry), fenceRetryMax)
		w.pass(pause-100*time.Millisecond, "n3")
		w.want()
	}
	if pause != fenceRetryMax {
		t.Errorf("the last pause was %v", pause)
	}
	w.d.Fenced(lease.Subject{Node: "n9", Incarnation: 1}, FenceOff, "", w.now) // of no shot of this term
}

// A node of which only the heartbeat on the volume is left is lost, after a moment, but neither shot nor proven dead while it may hand
// over what it holds: as long as it beats, and until L_hard has passed since its last grant.
func TestIsolatedNodes(t *testing.T) {
	w := newWorld(t, 1)
	w.s.Definition.ResourceGroups = []cluster.ResourceGroup{{Name: "g", Nodes: []string{"n2"}}}
	w.s.Groups = map[string]*state.Group{"g": {Instances: map[string]*state.Instance{"n2": {State: state.Online, Held: true, Incarnation: 1, Generation: 3}}}}
	w.pass(2*time.Second, "n2", "n3")
	w.book.Granted(n2(1), w.now)
	granted, since := w.now, lease.Instant(0)
	look := func(want string) []Proposal {
		t.Helper()
		found, shots := w.d.Findings(Look{Now: w.now, View: w.s, Incarnation: 1, Detector: w.det, Params: w.params, Isolated: map[string]lease.Instant{"n2": since}})
		got := ""
		for _, p := range found {
			got += p.Command.Kind()
		}
		for _, s := range shots {
			got += "shot at " + s.Subject.Node
		}
		if got != want {
			t.Fatalf("%v after the last grant: %q, want %q", w.now.Sub(granted), got, want)
		}
		return found
	}
	beat := func(until func() bool) {
		for !until() {
			w.det.Observe("n2", detector.PathDisk, w.now)
			w.pass(100*time.Millisecond, "n3")
		}
		w.det.Observe("n2", detector.PathDisk, w.now)
	}
	beat(func() bool { return w.det.Verdict("n2", w.now) == detector.Isolated })
	since = w.now
	look("")
	beat(func() bool { return w.now.Sub(since) >= w.params.Silence/2 })
	w.commit(look("node_lost"))
	beat(func() bool { return w.now.Sub(granted) >= w.params.Hard-200*time.Millisecond })
	look("")
	beat(func() bool { return w.now.Sub(granted) >= w.params.Hard })
	look("shot at n2")
	w.d.Held(n2(1), w.now)
	w.s.Groups = nil // it has handed over
	beat(func() bool { return w.now.Sub(granted) >= time.Minute })
	look("")
	for range 20 { // it is heard over the network again, and beats more rarely; it has not asked for its lease yet
		w.det.Observe("n2", detector.PathRaft, w.now)
		w.pass(100*time.Millisecond, "n3")
		look("")
	}
	w.pass(5*time.Second, "n3") // and beats no more
	look("proof")
}

// Sessions of a dead incarnation whose machine may run on end when their clients have given up: after the longest TTL and twice L_soft
// since this leader has seen the death. A proof that says the machine is down ends them by itself.
func TestLockEnds(t *testing.T) {
	w := newWorld(t)
	for i, ttl := range []time.Duration{5 * time.Second, 30 * time.Second} {
		for _, n := range []string{"n2", "n3"} {
			w.must(state.Command{LockOpen: &state.LockOpen{Session: fmt.Sprintf("session%d000000000%s", i, n), Node: n, Incarnation: 1, Who: "a client", TTL: ttl}})
		}
	}
	w.pass(2*time.Second, "n2", "n3")
	w.book.Granted(n2(1), w.now)
	w.pass(5*time.Second, "n2")
	w.commit(w.want("lost n3"))
	w.commit(w.want("proof n3 never-armed"))
	if len(w.s.Locks.Sessions) != 4 {
		t.Fatalf("a proof that says nothing of the machine has ended locks: %v", w.s.Locks.Sessions)
	}
	w.want()
	wait := 30*time.Second + 2*w.params.Soft
	wait += wait / 100
	seen := w.now
	w.pass(wait-time.Second, "n2")
	w.now = seen.Add(wait - 1)
	w.want()
	w.now = seen.Add(wait)
	w.want("locks-end n3 1")
	w.commit(w.want("locks-end n3 1")) // nothing is known of the first
	w.want()
	if len(w.s.Locks.Sessions) != 2 {
		t.Errorf("sessions left: %v", w.s.Locks.Sessions)
	}
	w.now = w.now.Add(5 * time.Second)
	w.commit(w.want("lost n2"))
	w.now = w.now.Add(time.Minute)
	w.commit(w.want("proof n2 time"))
	w.want()
	if w.s.Locks != nil && len(w.s.Locks.Sessions) != 0 {
		t.Errorf("the locks of a machine that is down: %v", w.s.Locks.Sessions)
	}
}
