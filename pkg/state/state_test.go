package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

var t0 = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// log applies commands one after another.
type log struct {
	t     testing.TB
	s     *State
	index uint64
	at    time.Time
}

func newLog(t testing.TB, d *cluster.Definition) *log {
	l := &log{t: t, s: New(), at: t0}
	l.ok(Command{Create: &Create{ClusterID: "11111111-2222-3333-4444-555555555555", Definition: d}})
	return l
}

func (l *log) do(c Command) Result {
	l.index++
	l.at = l.at.Add(time.Second)
	if c.At.IsZero() {
		c.At = l.at
	}
	var r Result
	l.s, r = Apply(l.s, Entry{Index: l.index, Term: 1, Command: &c})
	return r
}

func (l *log) ok(c Command) Result {
	l.t.Helper()
	r := l.do(c)
	if r.Refused != "" {
		l.t.Fatalf("%s was refused: %s", c.Kind(), r.Refused)
	}
	return r
}

func (l *log) refused(c Command) string {
	l.t.Helper()
	before := mustEncode(l.t, strip(l.s))
	r := l.do(c)
	if r.Refused == "" {
		l.t.Fatalf("%s was taken and should have been refused", c.Kind())
	}
	if !bytes.Equal(before, mustEncode(l.t, strip(l.s))) {
		l.t.Fatalf("%s was refused (%s) and changed the state", c.Kind(), r.Refused)
	}
	return r.Refused
}

// strip leaves out what every entry changes.
func strip(s *State) *State {
	c := *s
	c.Index, c.Term, c.applied = 0, 0, ring[appliedID]{}
	return &c
}

func mustEncode(t testing.TB, s *State) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (l *log) boot(node, id string, replaces uint64, stopped bool) uint64 {
	l.t.Helper()
	return l.ok(Command{NodeBoot: &NodeBoot{Node: node, BootID: id, Replaces: replaces, AllStopped: stopped}}).Incarnation
}

func (l *log) up(nodes ...string) {
	l.t.Helper()
	for _, n := range nodes {
		l.boot(n, n+"-boot1", 0, true)
	}
	l.ok(Command{NodeServices: &NodeServices{Start: StartAuto}})
}

func (l *log) arm(node string, inc uint64) {
	l.t.Helper()
	l.ok(Command{Armed: &Armed{Fact: armedFact(node, inc), Arming: fmt.Sprintf("%s-%d", node, inc)}})
}

func armedFact(node string, inc uint64) lease.Armed {
	return lease.Armed{Node: node, Incarnation: inc, Class: lease.Independent, Mode: lease.ModeReset, Watchdog: 5 * time.Second,
		MaxAge: 500 * time.Millisecond, Residue: 500 * time.Millisecond, Margin: 100 * time.Millisecond}
}

func timeProof(a lease.Armed, passed time.Duration) *lease.TimeProof {
	return &lease.TimeProof{T0: 1000, Now: lease.Instant(1000).Add(passed), Armed: a}
}

func (l *log) acquire(group, node string) Command {
	return Command{Acquire: &Acquire{Group: group, Node: node, Incarnation: l.s.Nodes[node].Incarnation, Based: l.s.Based(group, node), Reason: "test"}}
}

func (l *log) report(group, node string, o Outcome) Command {
	i := l.s.Instance(group, node)
	return Command{Report: &Report{Node: node, Incarnation: i.Incarnation, Group: group, Generation: i.Generation, Outcome: o}}
}

func (l *log) release(group, node string) Command {
	i := l.s.Instance(group, node)
	return Command{Release: &Release{Group: group, Node: node, Incarnation: i.Incarnation, Generation: i.Generation, Cause: CauseMove, Reason: "test"}}
}

// online brings a group up, as a node and a leader do.
func (l *log) online(group, node string) {
	l.t.Helper()
	l.arm(node, l.s.Nodes[node].Incarnation)
	l.ok(l.acquire(group, node))
	l.ok(l.report(group, node, OutcomeOnline))
}

func (l *log) state(group, node string, want InstanceState) {
	l.t.Helper()
	if got := l.s.Shown(group, node).State; got != want {
		l.t.Fatalf("group %s on %s is %s, want %s", group, node, got, want)
	}
}

func three() *cluster.Definition {
	return &cluster.Definition{
		Name:     "demo",
		Nodes:    []cluster.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}},
		Networks: []cluster.Network{{Name: "net1"}},
		ResourceGroups: []cluster.ResourceGroup{
			{Name: "a", Nodes: []string{"n1", "n2", "n3"}, Startup: cluster.OnlineOnHomeNode, Fallover: cluster.FalloverToNextPriority, Fallback: cluster.NeverFallback, Network: "net1"},
			{Name: "b", Nodes: []string{"n2", "n1"}, Startup: cluster.OnlineOnFirstAvailable, Fallover: cluster.FalloverBringOffline, Fallback: cluster.FallbackToHigherPriority},
			{Name: "c", Nodes: []string{"n1", "n2", "n3"}, Startup: cluster.OnlineOnAllAvailable, Fallover: cluster.FalloverBringOffline, Fallback: cluster.NeverFallback},
		},
	}
}

func TestAcquireIsRefusedWhileAnotherNodeHolds(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.refused(l.acquire("a", "n2"))
	l.refused(l.acquire("a", "n1"))
	l.ok(l.release("a", "n1"))
	l.refused(l.acquire("a", "n2"))
	l.ok(l.report("a", "n1", OutcomeReleaseFailed))
	l.state("a", "n1", Error)
	l.refused(l.acquire("a", "n2"))
	l.ok(Command{ClearGroup: &ClearGroup{Group: "a"}})
	l.refused(l.acquire("a", "n2")) // it is released again, not taken to be gone
	l.ok(l.release("a", "n1"))
	l.state("a", "n1", Releasing)
	l.ok(l.report("a", "n1", OutcomeReleased))
	l.ok(l.acquire("a", "n2"))
	l.online("c", "n1")
	l.ok(l.acquire("c", "n3")) // concurrent
}

func TestAcquireOnAnOldPlanIsRefused(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	stale := l.acquire("a", "n2")
	l.online("a", "n1")
	l.ok(l.release("a", "n1"))
	l.ok(l.report("a", "n1", OutcomeReleased))
	l.refused(stale)
	l.ok(l.acquire("a", "n2"))
}

func TestGenerationsAreGivenOnceAndOrderedByEpoch(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	first := l.s.Groups["a"].Generation
	l.online("b", "n2")
	if second := l.s.Groups["b"].Generation; second <= first {
		t.Fatalf("generation %d after %d", second, first)
	}
	l.ok(Command{NewEpoch: &NewEpoch{Epoch: 2, Dead: []string{"n1"}}})
	if g := l.s.Generation; g>>40 != 2 || g <= first {
		t.Fatalf("the epoch is not in the generation %x", g)
	}
}

// A4: silence proves only what was armed.
func TestA4TimeProvesOnlyWhatWasArmed(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	fact := armedFact("n1", 1)
	l.ok(l.acquire("a", "n1"))
	proof := func(p *lease.TimeProof) Command {
		return Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofTime, Time: p}}
	}
	l.refused(proof(timeProof(fact, time.Hour))) // nothing was armed: only never-armed proves
	l.arm("n1", 1)
	l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}})
	l.refused(proof(nil))
	l.refused(proof(timeProof(fact, fact.Expiry()-1)))
	other := fact
	other.Watchdog = time.Second // the definition's value, not the armed one
	l.refused(proof(timeProof(other, time.Hour)))

	slow := fact // an arming with a larger watchdog counts from its fact on
	slow.Watchdog = 20 * time.Second
	l.ok(Command{Armed: &Armed{Fact: slow, Arming: "n1-slow"}})
	l.refused(proof(timeProof(fact, fact.Expiry()+time.Second)))

	class := fact
	class.Class = lease.Process
	l.ok(Command{Armed: &Armed{Fact: class, Arming: "n1-process"}})
	l.refused(proof(timeProof(class, time.Hour)))
	event := fact
	event.Mode = lease.ModeEvent
	l.ok(Command{Armed: &Armed{Fact: event, Arming: "n1-event"}})
	l.refused(proof(timeProof(event, time.Hour)))

	l.ok(Command{Armed: &Armed{Fact: fact, Arming: "n1-again"}})
	l.ok(proof(timeProof(fact, fact.Expiry())))
	l.ok(l.acquire("a", "n2"))
	l.refused(Command{Armed: &Armed{Fact: fact, Arming: "n1-late"}}) // a dead incarnation arms no more
}

// A4 (b): an UNMANAGED instance lies outside every lease.
func TestA4UnmanagedIsNotFreedByTime(t *testing.T) {
	for _, kind := range []ProofKind{ProofFenced, ProofOperator} {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n1"}, Stop: StopUnmanage}})
		l.state("a", "n1", Unmanaged)
		l.ok(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "n1-1"}})
		l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "no sign of life"}})
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}})
		l.refused(l.acquire("a", "n2"))
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: kind}})
		l.state("a", "n1", Unmanaged) // nobody takes it over by himself
		l.ok(l.acquire("a", "n2"))
		l.state("a", "n1", Offline)
	}
}

func TestA4DisarmedCountsOnlyForItsOwnArming(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.refused(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "n1-1"}}) // it holds a
	l.ok(l.release("a", "n1"))
	l.ok(l.report("a", "n1", OutcomeReleased))
	l.ok(Command{Armed: &Armed{Fact: armedFact("n1", 1), Arming: "second"}})
	l.refused(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "n1-1"}}) // late
	l.ok(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "second"}})
}

// A5: what is declared dead before it armed can never arm.
func TestA5ArmingAfterDeathIsRefused(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.ok(l.acquire("a", "n1"))
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}})
	l.ok(l.acquire("a", "n2"))
	l.refused(Command{Armed: &Armed{Fact: armedFact("n1", 1), Arming: "late"}})
	if h := l.s.Holds("n1", 1); h != nil {
		t.Fatalf("a dead incarnation may hold %v", h)
	}
}

// A6: a boot is a proof only with its first probe, in order, and where there can be no second copy.
func TestA6BootProof(t *testing.T) {
	boot := func(id string, replaces uint64, stopped bool) Command {
		return Command{NodeBoot: &NodeBoot{Node: "n1", BootID: id, Replaces: replaces, AllStopped: stopped}}
	}
	t.Run("stopped", func(t *testing.T) {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(boot("n1-boot2", 1, true))
		l.ok(l.acquire("a", "n2"))
	})
	t.Run("something was running", func(t *testing.T) {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(boot("n1-boot2", 1, false))
		l.state("a", "n1", Unknown)
		l.refused(l.acquire("a", "n2"))
		l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofBoot, By: 1}})
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofBoot, By: 2}})
		l.ok(l.acquire("a", "n2"))
	})
	t.Run("late and unordered", func(t *testing.T) {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.ok(boot("n1-boot2", 1, true))
		l.online("a", "n1")
		l.refused(boot("n1-boot1", 1, true)) // known older boot
		l.refused(boot("n1-boot1", 2, true))
		l.refused(boot("n1-boot3", 1, true)) // follows the wrong one
		l.ok(boot("n1-boot2", 1, true))      // repeated: the same incarnation
		if l.s.Nodes["n1"].Incarnation != 2 {
			t.Fatal("a repeated boot was numbered again")
		}
		l.state("a", "n1", Online)
	})
	t.Run("a second copy", func(t *testing.T) {
		d := three()
		d.Nodes[0].PlatformRestart = true
		l := newLog(t, d)
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(boot("n1-boot2", 1, true))
		l.refused(l.acquire("a", "n2"))
		l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofBoot, By: 2}})
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofTime, Time: timeProof(armedFact("n1", 1), time.Minute)}})
		l.ok(l.acquire("a", "n2"))
	})
	t.Run("unmanaged after time", func(t *testing.T) {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(Command{UnmanageGroup: &UnmanageGroup{Group: "a"}})
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofTime, Time: timeProof(armedFact("n1", 1), time.Minute)}})
		l.refused(l.acquire("a", "n2"))
		l.ok(boot("n1-boot2", 1, false))
		l.refused(l.acquire("a", "n2"))
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofOperator}})
		l.ok(l.acquire("a", "n2"))
	})
}

// A7: a late "released" frees nothing that was acquired since.
func TestA7LateReleaseReport(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	late := l.report("a", "n1", OutcomeReleased)
	l.ok(l.release("a", "n1"))
	l.ok(late)
	l.refused(late)
	l.online("a", "n1")
	l.refused(late)
	l.state("a", "n1", Online)
}

// A9: reports and proofs name their subject.
func TestA9ForeignAndStaleFactsChangeNothing(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	old := l.s.Instance("a", "n1")
	l.boot("n1", "n1-boot2", 1, true)
	l.online("a", "n1")
	l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced}}) // a fencing that came late
	l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 3, Kind: ProofFenced}})
	l.refused(Command{Proof: &Proof{Node: "nx", Incarnation: 1, Kind: ProofFenced}})
	l.refused(Command{Proof: &Proof{Node: "n1", Incarnation: 2, Kind: "hearsay"}})
	for _, o := range []Outcome{OutcomeReleased, OutcomeAcquireFailed, OutcomeFoundStopped, OutcomeOnline, OutcomeAppFailed, OutcomeReleaseFailed} {
		l.refused(Command{Report: &Report{Node: "n1", Incarnation: 1, Group: "a", Generation: old.Generation, Outcome: o}})
		l.refused(Command{Report: &Report{Node: "n1", Incarnation: 2, Group: "a", Generation: old.Generation, Outcome: o}})
		l.refused(Command{Report: &Report{Node: "n2", Incarnation: 1, Group: "a", Generation: l.s.Groups["a"].Generation, Outcome: o}})
		l.refused(Command{Report: &Report{Node: "n1", Incarnation: 2, Group: "b", Generation: l.s.Groups["a"].Generation, Outcome: o}})
	}
	l.state("a", "n1", Online)
	l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 2, Sentence: "silent"}})
	l.state("a", "n1", Unknown)
	l.ok(Command{NodeFound: &NodeFound{Node: "n1", Incarnation: 2}})
	l.state("a", "n1", Online)
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 2, Kind: ProofOperator}})
	l.refused(Command{NodeFound: &NodeFound{Node: "n1", Incarnation: 2}})
	l.refused(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-boot2", Replaces: 2, AllStopped: true}}) // it must reset
}

// A12: after a forced configuration every node not named dead holds every group, until it is proven otherwise.
func TestA12ForcedConfiguration(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.refused(Command{NewEpoch: &NewEpoch{Epoch: 3}})
	l.ok(Command{NewEpoch: &NewEpoch{Epoch: 2, Dead: []string{"n1"}}})
	l.refused(l.acquire("a", "n2"))
	l.refused(Command{Proof: &Proof{Node: "n3", Incarnation: 1, Kind: ProofNeverArmed}})
	for _, h := range l.s.Holds("n2", 1) {
		if !h.Releasing {
			t.Fatalf("n2 may start %s", h.Group)
		}
	}
	l.ok(l.report("a", "n2", OutcomeFoundStopped))
	l.refused(l.acquire("a", "n2"))
	l.ok(Command{Proof: &Proof{Node: "n3", Incarnation: 1, Kind: ProofFenced}})
	l.ok(l.acquire("a", "n2"))
}

func TestCommandsApplyOnce(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	c := l.acquire("a", "n1")
	c.ID = "once"
	first := l.ok(c)
	again := l.do(c)
	if !again.Repeated || again.Generation != first.Generation || again.Index != first.Index || again.Refused != "" {
		t.Fatalf("the repetition answered %+v, the first %+v", again, first)
	}
	refusedOne := l.acquire("a", "n2")
	refusedOne.ID = "refused"
	why := l.refused(refusedOne)
	if r := l.do(refusedOne); r.Refused != why || !r.Repeated {
		t.Fatalf("the repetition of a refusal answered %+v", r)
	}
	s := l.s
	if n, r := Apply(s, Entry{Index: s.Index, Term: 1, Command: &c}); n != s || !r.Repeated {
		t.Fatal("an entry that was applied before is applied again")
	}
}

func TestDefinitionCannotHideWhatIsHeld(t *testing.T) {
	change := func(f func(*cluster.Definition)) Command {
		d := three()
		f(d)
		return Command{SetDefinition: &SetDefinition{Base: 1, Definition: d}}
	}
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.online("c", "n1")
	l.online("c", "n2")
	l.refused(change(func(d *cluster.Definition) { d.ResourceGroups = d.ResourceGroups[1:] }))
	l.refused(change(func(d *cluster.Definition) { d.ResourceGroups[0].Nodes = []string{"n2"} }))
	l.refused(change(func(d *cluster.Definition) { d.ResourceGroups[2].Startup = cluster.OnlineOnHomeNode }))
	l.refused(change(func(d *cluster.Definition) { d.Nodes = d.Nodes[1:] }))
	wrong := change(func(*cluster.Definition) {})
	wrong.SetDefinition.Base = 7
	l.refused(wrong)
	l.ok(change(func(d *cluster.Definition) { d.ResourceGroups[1].Nodes = []string{"n3"} }))
	if l.s.DefinitionVersion != 2 {
		t.Fatal("the version did not rise")
	}
}

func TestNeverArmedBeginsANewLifeWithoutReboot(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	life := func(life string, replaces uint64) Command {
		return Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-boot1", Life: life, Replaces: replaces, AllStopped: true}}
	}
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}})
	l.refused(life("", 1))
	l.ok(life("2", 1))
	l.arm("n1", 2)
	l.refused(life("3", 2)) // armed: only a boot ends it
}

func TestQuarantineAfterThreeResets(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	for i := uint64(1); i <= 3; i++ {
		l.arm("n1", 2*i-1)
		l.boot("n1", fmt.Sprintf("n1-crash%d", i), 2*i-1, true) // a crash does not count
		l.ok(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: fmt.Sprintf("n1-boot%d", i+1), Replaces: 2 * i, AllStopped: true, Reset: "lease lost"}})
	}
	l.refused(l.acquire("a", "n1"))
	l.ok(Command{ClearNode: &ClearNode{Node: "n1"}})
	l.ok(l.acquire("a", "n1"))
}

func TestTokensWorkOnce(t *testing.T) {
	l := newLog(t, three())
	hash := fmt.Sprintf("%064d", 1)
	l.refused(Command{TokenAdd: &TokenAdd{Hash: "short"}})
	l.ok(Command{TokenAdd: &TokenAdd{Hash: hash, Node: "n4", Expires: t0.Add(time.Hour)}})
	l.refused(Command{TokenUse: &TokenUse{Hash: hash, Node: "n5"}})
	l.refused(Command{At: t0.Add(2 * time.Hour), TokenUse: &TokenUse{Hash: hash, Node: "n4"}})
	l.ok(Command{TokenUse: &TokenUse{Hash: hash, Node: "n4"}})
	l.refused(Command{TokenUse: &TokenUse{Hash: hash, Node: "n4"}})
}

func TestNextFiring(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		timer       cluster.FallbackTimer
		after, want string
	}{
		{cluster.FallbackTimer{Repeats: "daily", Hour: 2}, "2026-01-05 09:00", "2026-01-06 02:00"},
		{cluster.FallbackTimer{Repeats: "daily", Hour: 2}, "2026-01-05 02:00", "2026-01-06 02:00"},
		{cluster.FallbackTimer{Repeats: "daily", Hour: 9, Minute: 1}, "2026-01-05 09:00", "2026-01-05 09:01"},
		{cluster.FallbackTimer{Repeats: "weekly", DayOfWeek: 0, Hour: 2}, "2026-01-05 09:00", "2026-01-11 02:00"},
		{cluster.FallbackTimer{Repeats: "weekly", DayOfWeek: 1, Hour: 9}, "2026-01-05 09:00", "2026-01-12 09:00"},
		{cluster.FallbackTimer{Repeats: "monthly", DayOfMonth: 31}, "2026-02-01 00:00", "2026-03-31 00:00"},
		{cluster.FallbackTimer{Repeats: "yearly", Month: 2, DayOfMonth: 29}, "2026-01-05 09:00", "2028-02-29 00:00"},
		{cluster.FallbackTimer{Repeats: "never", Year: 2027, Month: 3, DayOfMonth: 1, Hour: 4}, "2026-01-05 09:00", "2027-03-01 04:00"},
	} {
		if got := NextFiring(c.timer, at(c.after)); !got.Equal(at(c.want)) {
			t.Errorf("%+v after %s: %v, want %s", c.timer, c.after, got, c.want)
		}
	}
	if got := NextFiring(cluster.FallbackTimer{Repeats: "never", Year: 2025, Month: 3, DayOfMonth: 1}, t0); !got.IsZero() {
		t.Errorf("a moment in the past fires at %v", got)
	}
}

// A9: what comes late about a node that was removed says nothing about the node that has its name now.
func TestA9RemovedNodeIsNumberedOn(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.boot("n3", "n3-boot2", 1, true)
	l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n3"}, Stop: StopOffline}})
	d := three()
	d.Nodes = d.Nodes[:2]
	for i := range d.ResourceGroups {
		d.ResourceGroups[i].Nodes = []string{"n1", "n2"}
	}
	l.ok(Command{SetDefinition: &SetDefinition{Base: 1, Definition: d}})
	l.ok(Command{SetDefinition: &SetDefinition{Base: 2, Definition: three()}})
	if inc := l.boot("n3", "n3-boot1", 0, true); inc != 3 {
		t.Fatalf("the new node is incarnation %d", inc)
	}
	l.refused(Command{Proof: &Proof{Node: "n3", Incarnation: 2, Kind: ProofFenced}})
	l.refused(Command{NodeLost: &NodeLost{Node: "n3", Incarnation: 2}})
}

// A6: a boot that found everything stopped frees also what the proof by time before it could not.
func TestA6BootFreesWhatTimeCouldNot(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.ok(Command{UnmanageGroup: &UnmanageGroup{Group: "a"}})
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofTime, Time: timeProof(armedFact("n1", 1), time.Minute)}})
	l.boot("n1", "n1-boot2", 1, true)
	l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n1"}, Start: StartAuto}})
	l.state("a", "n1", Offline)
	l.ok(l.acquire("a", "n2"))
}

// A new life of one boot ends what the old one was given and never began.
func TestNewLifeFreesWhatWasNeverBegun(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.ok(l.acquire("a", "n1"))
	l.ok(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-boot1", Life: "2", Replaces: 1}})
	l.ok(l.acquire("a", "n2"))
}

func TestNetworkUpEndsOnlyMarksOfAcquisition(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.ok(l.acquire("a", "n2"))
	l.ok(l.report("a", "n2", OutcomeAcquireFailed))
	l.online("a", "n1")
	l.ok(l.report("a", "n1", OutcomeAppFailed))
	for _, n := range []string{"n1", "n2"} {
		for _, up := range []bool{false, true} {
			l.ok(Command{NetworkState: &NetworkState{Node: n, Incarnation: 1, Network: "net1", Up: up}})
		}
	}
	if m := l.s.Groups["a"].Marks; m["n2"] != nil || m["n1"] == nil || m["n1"].Kind != MarkApplication {
		t.Fatalf("the marks are %+v", m)
	}
}

func TestApplyOfNothing(t *testing.T) {
	c := Command{Noop: &Noop{}}
	if s, r := Apply(nil, Entry{Index: 1, Term: 1, Command: &c}); s == nil || s.Index != 1 || r.Refused != "" {
		t.Fatalf("%+v %+v", s, r)
	}
	for _, bad := range []*Command{nil, {}, {Noop: &Noop{}, ClearNode: &ClearNode{}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was applied", bad)
				}
			}()
			Apply(New(), Entry{Index: 1, Term: 1, Command: bad})
		}()
	}
}

// What a dead holder left in storage is known to be nobody's from its death until the group is online again, and at no other
// time: after a release nothing is left, so what is found then is somebody's.
func TestUnreleased(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	want := func(what, text string) {
		t.Helper()
		if got := l.s.Groups["a"].Unreleased; got != text {
			t.Errorf("%s: %q, want %q", what, got, text)
		}
	}
	want("online", "")
	l.ok(l.release("a", "n1"))
	l.ok(l.report("a", "n1", OutcomeReleased))
	want("released", "")
	l.online("a", "n1")
	l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "no sign of life"}})
	want("silent only", "")
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced}})
	want("dead", "n1 is dead: proof fenced")
	l.ok(l.acquire("a", "n2"))
	l.ok(l.report("a", "n2", OutcomeAcquireFailed))
	want("not acquired", "n1 is dead: proof fenced")
	l.online("a", "n3")
	want("online again", "")
}

// The operator's placement on a node ends when the node fails: by its death, or by handing over what it holds because no network reaches
// it. A node that gives a group up while it is heard keeps its placement.
func TestAPlacementEndsWithItsNode(t *testing.T) {
	for _, lost := range []bool{false, true} {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n2"}})
		l.ok(l.report("a", "n1", OutcomeReleased))
		l.online("a", "n2")
		if o := l.s.Groups["a"].Override; o == nil || o.Node != "n2" {
			t.Fatalf("the placement is %+v", o)
		}
		if lost {
			l.ok(Command{NodeLost: &NodeLost{Node: "n2", Incarnation: 1, Sentence: "isolated"}})
		}
		l.ok(l.report("a", "n2", OutcomeReleased))
		if o := l.s.Groups["a"].Override; (o == nil) != lost {
			t.Errorf("silent %v: the placement is %+v", lost, o)
		}
	}
}
