package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

const testVolumeCluster = "6b0d2c9e-7a54-4f0f-9d5e-0d6c1a2b3c4d"

// bubbleClock is fake time as a machine's clock.
type bubbleClock struct{ zero time.Time }

func (c bubbleClock) Now() lease.Instant { return lease.Instant(time.Hour + time.Since(c.zero)) }

// A diskNode is one node's disk with what it saw.
type diskNode struct {
	*disk
	t      *testing.T
	handle *repositorytest.Handle
	stands atomic.Bool // its loop makes no progress
	watch  bool
	post   bool
	seen   []string // "node@ms incarnation"
	at     []lease.Instant
	mail   []string // "from kind body"
	glass  []string // "node [groups]", one for each read
}

func diskPair(t *testing.T) (a, b *diskNode, clock bubbleClock) {
	t.Helper()
	d := repositorytest.NewDisk(repository.MinLabSize)
	var members []repository.Member
	for _, n := range []string{"a", "b"} {
		members = append(members, repository.Member{Name: n, Card: repositorytest.Authority(n).Card()})
	}
	timings := repository.TimingsFor(1500 * time.Millisecond)
	if _, err := repository.Format(repository.FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testVolumeCluster, Node: "a",
		Members: members, Authority: repositorytest.Authority("a"), Timings: timings, Lab: true}); err != nil {
		t.Fatal(err)
	}
	clock = bubbleClock{time.Now()}
	open := func(name string) *diskNode {
		n := &diskNode{t: t, handle: d.Open(), watch: true}
		vol, err := repository.Open(repository.Options{Cluster: testVolumeCluster, Node: name, Authority: repositorytest.Authority(name),
			Dir: t.TempDir(), Role: repository.RoleAgent, Device: n.handle, Size: d.Size()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { vol.Close() })
		n.disk = newDisk(vol, name, clock, newOutbox(), diskHooks{
			beat: func() (repository.Beat, bool) {
				return repository.Beat{Incarnation: 7, Boot: name + "/1"}, !n.stands.Load()
			},
			pace: func(repository.Timings) diskPace {
				return diskPace{beat: 333 * time.Millisecond, poll: 100 * time.Millisecond, watch: n.watch, post: n.post}
			},
			glass: func(node string, groups []string) { n.glass = append(n.glass, fmt.Sprint(node, groups)) },
			read:  func() {},
			seen: func(node string, b repository.Beat, at lease.Instant) {
				n.seen, n.at = append(n.seen, fmt.Sprintf("%s %d %s", node, b.Incarnation, b.Boot)), append(n.at, at)
			},
			letter: func(from string, l repository.Letter) {
				n.mail = append(n.mail, fmt.Sprintf("%s %d %s", from, l.Kind, l.Body))
			},
		})
		return n
	}
	return open("a"), open("b"), clock
}

// run has the nodes look in turn for a while.
func run(t *testing.T, d time.Duration, nodes ...*diskNode) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, n := range nodes {
			if err := n.look(); err != nil {
				t.Fatalf("%s: %v", n.name, err)
			}
		}
	}
}

// A heartbeat is taken to be as old as it can be: of a node that has died none is dated after its death, though it is read later.
// Dated by the moment of the look it would keep a dead node alive for as long as the pause between two looks.
func TestDiskHeartbeatsAreNotDatedTooNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, clock := diskPair(t)
		run(t, 3*time.Second, a, b)
		if len(b.seen) < 6 || b.seen[0] != "a 7 a/1" {
			t.Fatalf("seen: %q", b.seen)
		}
		now := clock.Now()
		if age := now.Sub(b.at[len(b.at)-1]); age > 700*time.Millisecond {
			t.Errorf("the newest heartbeat of a living node is %v old", age)
		}
		b.watch = false // it looks once a second now
		run(t, 1500*time.Millisecond, a, b)
		died := clock.Now()
		run(t, 5*time.Second, b)
		if last := b.at[len(b.at)-1]; last > died {
			t.Errorf("a heartbeat is dated %v after the death of its writer", last.Sub(died))
		}
		count := len(b.seen)
		b.watch = true
		run(t, 5*time.Second, b)
		if len(b.seen) != count {
			t.Errorf("a dead node was seen: %q", b.seen[count:])
		}
	})
}

// A daemon whose loop stands writes no heartbeat: it is to be lost, not isolated.
func TestDiskHeartbeatNeedsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := diskPair(t)
		run(t, 2*time.Second, a, b)
		a.stands.Store(true)
		run(t, time.Second, a, b)
		count := len(b.seen)
		run(t, 5*time.Second, a, b)
		if len(b.seen) != count {
			t.Errorf("%d heartbeats of a loop that stands", len(b.seen)-count)
		}
	})
}

// What a member says of itself: nothing before its loop has said what it is, nothing while its loop stands, nothing once it ends; and
// that it leads only while it does.
func TestOwnBeat(t *testing.T) {
	m, led := leadingMember(t, state.New())
	m.disk.init(m.clock.Now())
	silent := func(what string) {
		t.Helper()
		if b, ok := m.ownBeat(); ok {
			t.Errorf("%s: %+v", what, b)
		}
	}
	m.loopAt.Store(int64(m.clock.Now()))
	silent("before the loop's first pass")
	m.disk.facts.Store(&diskFacts{incarnation: 3, held: []repository.Held{{Group: "g", Generation: 1}}})
	if b, ok := m.ownBeat(); !ok || b.Incarnation != 3 || b.Boot != "b1/l1" || len(b.Held) != 1 || b.Leads != 3 {
		t.Errorf("a leader: %+v, %v", b, ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	led.ctx = ctx
	if b, ok := m.ownBeat(); !ok || b.Leads != 0 {
		t.Errorf("after its lead: %+v, %v", b, ok)
	}
	m.loopAt.Store(int64(m.clock.Now().Add(-progressLimit)))
	silent("its loop stands")
	m.loopAt.Store(int64(m.clock.Now()))
	m.closing.Store(true)
	silent("it ends")
}

// What is held is what runs, is being started or stopped, or cannot be said to be stopped.
func TestShownHeld(t *testing.T) {
	n := ownState{groups: map[string]*groupState{
		"a-running":  {known: scheduler.LocalGroup{Started: 4}, status: executor.Running, seenAt: 1},
		"b-starting": {job: jobStart, generation: 5},
		"c-stopping": {job: jobStop, generation: 6},
		"d-unclear":  {status: executor.Unknown, seenAt: 1, generation: 7},
		"e-stopped":  {status: executor.Stopped, seenAt: 1, generation: 8},
		"f-unseen":   {status: executor.Unknown},
		"g-probing":  {job: jobProbe, status: executor.Stopped, seenAt: 1},
	}}
	want := []repository.Held{{Group: "a-running", Generation: 4}, {Group: "b-starting", Generation: 5}, {Group: "c-stopping", Generation: 6},
		{Group: "d-unclear", Generation: 7}}
	if got := n.shownHeld(); !slices.Equal(got, want) {
		t.Errorf("held: %+v", got)
	}
}

// Mail comes once, the newest of each subject; and it is found by the heartbeat when nobody polls for it.
func TestDiskMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := diskPair(t)
		letter := func(body string) repository.Letter {
			return repository.Letter{Kind: repository.LetterRequest, Body: []byte(body)}
		}
		a.out.put("b", "x", letter("one"))
		a.out.put("b", "x", letter("two"))
		a.out.put("b", "y", letter("three"))
		run(t, 2*time.Second, a, b)
		if want := []string{"a 1 two", "a 1 three"}; !slices.Equal(b.mail, want) {
			t.Errorf("mail: %q, want %q", b.mail, want)
		}
		a.out.drop("b", "y")
		a.out.put("b", "x", letter("four"))
		b.post = true
		run(t, time.Second, a, b)
		if want := []string{"a 1 two", "a 1 three", "a 1 four"}; !slices.Equal(b.mail, want) {
			t.Errorf("mail: %q, want %q", b.mail, want)
		}
		if len(a.mail) != 0 {
			t.Errorf("mail to another: %q", a.mail)
		}
	})
}

// What finds no room waits, and does not keep the rest from being sent.
func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox()
	big := repository.Letter{Kind: repository.LetterReport, Body: []byte(strings.Repeat("x", repository.MaxMail-100))}
	o.put("b", "1 request", repository.Letter{Kind: repository.LetterRequest, Body: []byte("r")})
	o.put("b", "2 report g1", big)
	o.put("b", "2 report g2", big)
	due := o.due()
	if len(due) != 1 || len(due[0].letters) != 2 || due[0].letters[0].Kind != repository.LetterRequest {
		t.Fatalf("due: %d envelopes", len(due))
	}
	o.wrote(due[0])
	if len(o.due()) != 0 {
		t.Error("written mail is due again")
	}
	o.put("b", "3", big)
	late := o.due()[0]
	o.put("b", "1 request", repository.Letter{Kind: repository.LetterRequest, Body: []byte("s")})
	o.wrote(late) // what was put meanwhile is still due
	if len(o.due()) != 1 {
		t.Error("a letter was lost while another was written")
	}
}

// A disk that does not answer holds a look up for no longer than some T_io, and everything works again when it answers.
func TestDiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, clock := diskPair(t)
		run(t, 2*time.Second, a, b)
		gate := make(chan struct{})
		b.handle.Before = func(bool, int64, int) error { <-gate; return nil }
		began := clock.Now()
		if err := b.look(); !errors.Is(err, repository.ErrHung) {
			t.Errorf("a look at a disk that hangs: %v", err)
		}
		if took := clock.Now().Sub(began); took > 3*b.vol.Timings().IO {
			t.Errorf("the look took %v, T_io is %v", took, b.vol.Timings().IO)
		}
		close(gate)
		synctest.Wait()
		count := len(b.seen)
		run(t, 2*time.Second, a, b)
		if len(b.seen) == count {
			t.Error("nothing is seen after the disk answered again")
		}
	})
}

// resettable is a deadman of which only a reset is asked.
type resettable struct {
	Deadman
	resets atomic.Int32
}

func (r *resettable) Info() deadman.Info { return deadman.Info{} } // no mode: no note is written
func (r *resettable) Reset() error       { r.resets.Add(1); return nil }

// Poison resets the incarnation that it names and no other: mail lies there for the next boot, and the next life, to read.
func TestPoisonNamesItsIncarnation(t *testing.T) {
	for _, c := range []struct {
		what   string
		p      poisonLetter
		resets int32
	}{
		{"this one", poisonLetter{"n1", 4, "b1/l1", "dead"}, 1},
		{"an older incarnation", poisonLetter{"n1", 3, "b1/l1", "dead"}, 0},
		{"an older boot", poisonLetter{"n1", 4, "b0/l1", "dead"}, 0},
		{"an older life", poisonLetter{"n1", 4, "b1/l0", "dead"}, 0},
		{"another node", poisonLetter{"n2", 4, "b1/l1", "dead"}, 0},
		{"no incarnation", poisonLetter{"n1", 0, "b1/l1", "dead"}, 0},
	} {
		dm := &resettable{}
		m, _ := leadingMember(t, isolatedView(t, true))
		m.a, m.opt = &Agent{}, &Options{}
		m.loop.ctx, m.loop.node.dm, m.loop.node.incarnation = t.Context(), dm, 4
		body, err := json.Marshal(c.p)
		if err != nil {
			t.Fatal(err)
		}
		m.gotLetter(t.Context(), "n2", repository.Letter{Kind: repository.LetterPoison, Body: body})
		for _, e := range m.mail.take() {
			m.handle(e)
		}
		m.work.Wait()
		if got := dm.resets.Load(); got != c.resets || (m.loop.node.poisoned != "") != (c.resets > 0) {
			t.Errorf("%s: %d resets, want %d; %q", c.what, got, c.resets, m.loop.node.poisoned)
		}
	}
	// A node that does not know its number yet is not meant by anything.
	dm := &resettable{}
	m := &member{a: &Agent{}, opt: &Options{}, name: "n1", bootID: "b1", clock: testClock{}, log: testLog(), mail: newMailbox()}
	m.life.Store("l1")
	m.loop.ctx, m.loop.node.dm = t.Context(), dm
	m.gotPoison(poisoned{"n2", poisonLetter{"n1", 0, "b1/l1", "dead"}})
	m.work.Wait()
	if dm.resets.Load() != 0 {
		t.Error("a node without a number was reset")
	}
}

// A node that has let go of everything in time, and was called dead just then, is not reset by poison that its last heartbeats have
// brought it; but if something runs there after all, it is.
func TestPoisonSparesWhatHasLetGo(t *testing.T) {
	dm := &resettable{}
	view := isolatedView(t, true)
	m, _ := leadingMember(t, view)
	m.a, m.opt = &Agent{}, &Options{}
	n := &m.loop.node
	m.loop.ctx, n.dm, n.incarnation, n.groups = t.Context(), dm, 4, map[string]*groupState{}
	for _, name := range view.GroupNames() {
		n.groups[name] = &groupState{seenAt: 1, status: executor.Stopped}
	}
	if len(n.groups) == 0 {
		t.Fatal("the test needs a group")
	}
	m.gotPoison(poisoned{"n2", poisonLetter{"n1", 4, "b1/l1", "dead"}})
	m.work.Wait()
	if dm.resets.Load() != 0 {
		t.Error("a node on which nothing runs was reset")
	}
	n.groups[view.GroupNames()[0]].status = executor.Unknown
	m.endPoisoned()
	m.work.Wait()
	if dm.resets.Load() != 1 {
		t.Error("a dead node that may run something was not reset")
	}
}

// isolatedView is a log in which n2, incarnation 1, is silent.
func isolatedView(t *testing.T, lost bool) *state.State {
	t.Helper()
	view, at := state.New(), time.Unix(0, 0)
	do := func(c state.Command) {
		t.Helper()
		c.At = at
		var r state.Result
		if view, r = state.Apply(view, state.Entry{Index: view.Index + 1, Term: 1, Command: &c}); r.Refused != "" {
			t.Fatal(r.Refused)
		}
	}
	do(state.Command{Create: &state.Create{ClusterID: "c", Definition: testDefinition(t)}})
	do(state.Command{NodeBoot: &state.NodeBoot{Node: "n2", BootID: "b", Life: "l", AllStopped: true}})
	if lost {
		do(state.Command{NodeLost: &state.NodeLost{Node: "n2", Incarnation: 1, Sentence: "isolated"}})
	}
	return view
}

// Only a node that the log calls silent, and that the detector calls isolated, may be granted by mail; and a heartbeat of another boot
// or life makes no node isolated.
func TestWhoIsIsolated(t *testing.T) {
	for _, c := range []struct {
		what string
		lost bool
		boot string
		want bool
	}{
		{"isolated", true, "b/l", true},
		{"the log does not say so", false, "b/l", false},
		{"the heartbeat is of another boot", true, "b0/l", false},
		{"the heartbeat is of another life", true, "b/l0", false},
		{"no heartbeat", true, "", false},
	} {
		view := isolatedView(t, c.lost)
		m, _ := leadingMember(t, view)
		m.disk.init(m.clock.Now())
		now := m.clock.Now()
		m.det = detector.New(detector.ParamsFor(m.params()), now.Add(-time.Minute))
		m.det.Watch([]string{"n2"}, now.Add(-time.Minute))
		m.det.Lead("", now.Add(-time.Minute))
		if c.boot != "" {
			m.sawBeat("n2", repository.Beat{Incarnation: 1, Boot: c.boot}, now.Add(-100*time.Millisecond))
		}
		g := &lease.Grant{Node: "n2", Next: time.Second, Hold: []lease.Held{{Group: "a", Generation: 1}, {Group: "b", Generation: 2, Releasing: true}}}
		if got := m.forMail(view, g); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
		if g.Isolated != c.want || c.want && (g.Next != 0 || !g.Hold[0].Releasing || !g.Hold[1].Releasing) {
			t.Errorf("%s: %+v", c.what, g)
		}
	}
}

// A node that was isolated and is dead, and still says that it holds something, is told once to reset; one that holds nothing is not.
func TestPoisonIsWrittenToTheDead(t *testing.T) {
	view := isolatedView(t, true)
	var r state.Result
	view, r = state.Apply(view, state.Entry{Index: view.Index + 1, Term: 1, Command: &state.Command{At: time.Unix(0, 0),
		Proof: &state.Proof{Node: "n2", Incarnation: 1, Kind: state.ProofNeverArmed, Sentence: "for the test"}}})
	if r.Refused != "" {
		t.Fatal(r.Refused)
	}
	m, _ := leadingMember(t, view)
	m.disk.init(m.clock.Now())
	beat := repository.Beat{Incarnation: 1, Boot: "b/l"}
	m.sawBeat("n2", beat, 1)
	if len(m.disk.out.due()) != 0 {
		t.Error("a node that holds nothing is told to reset")
	}
	beat.Held = []repository.Held{{Group: "g", Generation: 3}}
	kept := *view // the log gives it the group still: it is UNMANAGED, and what died of a weak proof may run it
	kept.Groups = map[string]*state.Group{"g": {Instances: map[string]*state.Instance{"n2": {State: state.Unmanaged, Held: true, Incarnation: 1, Generation: 3}}}}
	m.fsm.newest.Store(&kept)
	m.sawBeat("n2", beat, 2)
	if len(m.disk.out.due()) != 0 {
		t.Error("a node that runs only what the log still gives it is told to reset")
	}
	m.fsm.newest.Store(view)
	other := beat
	other.Boot = "b2/l"
	m.sawBeat("n2", other, 2)
	if len(m.disk.out.due()) != 0 {
		t.Error("the next boot is told to reset")
	}
	m.sawBeat("n2", beat, 3)
	m.sawBeat("n2", beat, 4)
	due := m.disk.out.due()
	if len(due) != 1 || due[0].to != "n2" || due[0].version != 1 || due[0].letters[0].Kind != repository.LetterPoison {
		t.Errorf("due: %+v", due)
	}
}

// takesGrants is a deadman that keeps what it was given.
type takesGrants struct {
	Deadman
	got chan lease.Nonce
}

func (d *takesGrants) Grant(n lease.Nonce, _ string, _ lease.Instant, _ time.Duration) error {
	d.got <- n
	return nil
}

// A grant by mail is taken only if it answers the newest request, names its sender as the leader, and is one for stopping; once.
func TestMailGrantAnswersTheRequest(t *testing.T) {
	good := lease.Grant{Nonce: lease.Nonce{1}, Node: "n1", Leader: "n2", Isolated: true}
	for what, change := range map[string]func(*lease.Grant){
		"":                           func(*lease.Grant) {},
		"an older request's":         func(g *lease.Grant) { g.Nonce = lease.Nonce{2} },
		"another leader's":           func(g *lease.Grant) { g.Leader = "n3" },
		"one for more than stopping": func(g *lease.Grant) { g.Isolated = false },
		"another node's":             func(g *lease.Grant) { g.Node = "n3" },
	} {
		dm := &takesGrants{got: make(chan lease.Nonce, 4)}
		m := &member{name: "n1", bootID: "b1", clock: testClock{}, log: testLog(), mail: newMailbox()}
		m.disk.init(m.clock.Now())
		m.disk.asked = &askedByMail{dm, deadman.Request{Nonce: lease.Nonce{1}, At: 5}}
		g := good
		change(&g)
		body, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			m.takeMailGrant("n2", body)
			m.work.Wait()
		}
		want := 0
		if what == "" {
			want = 1
		}
		if len(dm.got) != want {
			t.Errorf("%q: %d grants reached the deadman", what, len(dm.got))
		}
		if what == "" && m.disk.lastNet.Load() != int64(testClock{}.Now()) {
			t.Error("a grant by mail counts as one over the networks")
		}
	}
}

// A report by mail must be of the sender's own group, and of nothing but a group.
func TestMailReportIsOfItsSender(t *testing.T) {
	view := isolatedView(t, true)
	m, _ := leadingMember(t, view)
	m.disk.init(m.clock.Now())
	send := func(from string, c *state.Command) int {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(mailReport{ID: "1", Command: b})
		if err != nil {
			t.Fatal(err)
		}
		m.serveMailReport(context.Background(), from, body)
		return len(m.disk.answers[from])
	}
	report := &state.Command{Report: &state.Report{Node: "n2", Incarnation: 1, Group: "g", Generation: 1, Outcome: state.OutcomeReleased}}
	if send("n3", report) != 0 {
		t.Error("a report of another node's group was answered")
	}
	if send("n2", &state.Command{NodeLost: &state.NodeLost{Node: "n2", Incarnation: 1}}) != 0 {
		t.Error("what is no report was answered")
	}
	if send("n2", report) != 1 {
		t.Error("a report of what is not held any more is not answered: it would be repeated for ever")
	}
}

// An isolated node is neither shot nor proven dead while it takes grants, or has nothing left; a shot that was under way is called off by
// the same word. One whose heartbeat has ended, or which has taken no grant for L_hard, is shot.
func TestPatienceWithTheIsolated(t *testing.T) {
	for _, c := range []struct {
		what    string
		holds   bool
		granted time.Duration // ago
		beat    time.Duration // ago; 0: never
		want    bool
	}{
		{"it hands over", true, time.Second, 100 * time.Millisecond, true},
		{"it has handed over", false, time.Minute, 100 * time.Millisecond, true},
		{"it takes no grants", true, 10 * time.Second, 100 * time.Millisecond, false},
		{"its heartbeat has ended", true, time.Second, 5 * time.Second, false},
		{"it is no heartbeat", true, time.Second, 0, false},
	} {
		view := *isolatedView(t, true)
		if c.holds {
			view.Groups = map[string]*state.Group{"g": {Instances: map[string]*state.Instance{"n2": {State: state.Online, Held: true, Incarnation: 1, Generation: 3}}}}
		}
		m, led := leadingMember(t, &view)
		m.disk.init(m.clock.Now())
		now := m.clock.Now()
		m.det = detector.New(detector.ParamsFor(m.params()), now.Add(-time.Minute))
		m.det.Watch([]string{"n2"}, now.Add(-time.Minute))
		m.det.Lead("", now.Add(-time.Minute))
		if c.beat != 0 {
			m.sawBeat("n2", repository.Beat{Incarnation: 1, Boot: "b/l"}, now.Add(-c.beat))
		}
		s := lease.Subject{Node: "n2", Incarnation: 1}
		led.book = lease.NewGrantor(3)
		led.book.Committed(1)
		led.book.Granted(s, now.Add(-c.granted))
		led.duties = leader.New(m.name, led.book)
		led.mu.Lock()
		if got := m.handsOver(led, &view, s, now); got != c.want {
			t.Errorf("%s: hands over %v", c.what, got)
		}
		if why := m.spared(led, &view, s); (why != "") != c.want {
			t.Errorf("%s: spared because %q", c.what, why)
		}
		led.mu.Unlock()
	}
}

// aTerm is a term that is confirmed, or not.
type aTerm struct {
	err    error
	rounds int
	now    func() lease.Instant
}

func (a *aTerm) Confirm(context.Context) (consensus.Confirmed, error) {
	a.rounds++
	return consensus.Confirmed{}, a.err
}

func (a *aTerm) LastCommit() lease.Instant { return a.now() }

// A grant by mail is one like any other: only after a round that confirmed the term, to the living incarnation that no proof is under way
// against, and noted, so that a proof by time counts from it. And it is given only to an isolated node.
func TestB2AGrantByMailIsAGrant(t *testing.T) {
	for _, c := range []struct {
		what  string
		want  bool
		spoil func(m *member, led *leadership, req *lease.Request)
	}{
		{"isolated", true, func(*member, *leadership, *lease.Request) {}},
		{"the term is not confirmed", false, func(_ *member, led *leadership, _ *lease.Request) { led.lead.(*aTerm).err = errors.New("no majority") }},
		{"a proof is under way", false, func(_ *member, led *leadership, _ *lease.Request) {
			led.book.Doom(lease.Subject{Node: "n2", Incarnation: 1})
		}},
		{"the leader's log stands still", false, func(_ *member, led *leadership, _ *lease.Request) {
			led.lead.(*aTerm).now = func() lease.Instant { return 1 }
		}},
		{"the leader's loop stands still", false, func(m *member, _ *leadership, _ *lease.Request) { m.loopAt.Store(1) }},
		{"it is of another boot", false, func(_ *member, _ *leadership, req *lease.Request) { req.BootID = "b0/l" }},
		{"it is of another incarnation", false, func(_ *member, _ *leadership, req *lease.Request) { req.Incarnation = 7 }},
		{"it is of another node", false, func(_ *member, _ *leadership, req *lease.Request) { req.Node = "n3" }},
		{"its heartbeat is old", false, func(m *member, _ *leadership, _ *lease.Request) {
			now := m.clock.Now()
			m.det = detector.New(detector.ParamsFor(m.params()), now.Add(-time.Minute))
			m.det.Watch([]string{"n2"}, now.Add(-time.Minute))
			m.det.Lead("", now.Add(-time.Minute))
		}},
	} {
		view := isolatedView(t, true)
		m, led := leadingMember(t, view)
		m.disk.init(m.clock.Now())
		now := m.clock.Now()
		m.loopAt.Store(int64(now))
		term := &aTerm{now: m.clock.Now}
		led.lead = term
		m.det = detector.New(detector.ParamsFor(m.params()), now.Add(-time.Minute))
		m.det.Watch([]string{"n2"}, now.Add(-time.Minute))
		m.det.Lead("", now.Add(-time.Minute))
		m.sawBeat("n2", repository.Beat{Incarnation: 1, Boot: "b/l"}, now.Add(-100*time.Millisecond))
		s := lease.Subject{Node: "n2", Incarnation: 1}
		before := led.book.T0(s)
		req := lease.Request{Nonce: lease.Nonce{9}, Node: "n2", BootID: "b/l", Incarnation: 1}
		c.spoil(m, led, &req)
		a := m.grantByMail(t.Context(), "n2", req)
		if (a.Grant != nil) != c.want || c.want && (!a.Grant.Isolated || a.Grant.Nonce != req.Nonce || term.rounds != 1) {
			t.Errorf("%s: %+v, %d rounds", c.what, a, term.rounds)
		}
		if got := led.book.T0(s); c.want && got != now || !c.want && got != before {
			t.Errorf("%s: a proof counts from %v, before %v, it is %v", c.what, got, before, now)
		}
	}
}
