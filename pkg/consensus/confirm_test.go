package consensus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestConfirmCountsAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		time.Sleep(5 * time.Second)
		before := (timeClock{}).Now()
		got, err := lead.Confirm(c.timeout(time.Second))
		must(t, err)
		if len(got.Answers) < 2 || !slices.Equal(got.Voters, []string{"a", "b", "c"}) || got.At < before {
			t.Errorf("confirmed %+v", got)
		}
		for _, a := range got.Answers {
			if a.Receipt < before || a.Receipt > got.At || a.Age <= 0 || a.Age > time.Minute {
				t.Errorf("answer %+v", a)
			}
		}
		c.lan.Isolate("b") // one of three may be away
		_, err = lead.Confirm(c.timeout(time.Second))
		must(t, err)
	})
}

func TestConfirmOfASingleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a")
		got, err := lead.Confirm(c.timeout(time.Second))
		must(t, err)
		if len(got.Answers) != 1 || got.Answers[0].Voter != "a" {
			t.Errorf("confirmed %+v", got)
		}
	})
}

// A non-voter's word is worth nothing, and it is not asked.
func TestConfirmAsksVotersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		c.start("d")
		must(t, c.server("a").node.AddNonvoter(c.timeout(time.Minute), "d"))
		c.intercept = func(_, to string, req ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
			if to != "d" {
				return ConfirmReply{}, errors.New("away")
			}
			t.Error("the non-voter was asked")
			return ask()
		}
		if _, err := lead.Confirm(c.timeout(time.Second)); !errors.Is(err, ErrNoMajority) {
			t.Errorf("error %v, want ErrNoMajority", err)
		}
	})
}

// A leader that does not know yet that it is deposed gets no confirmation, though every voter answers it.
func TestA11DeposedLeaderIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		old := c.form("a", "b", "c")
		time.Sleep(2 * time.Second)
		c.intercept = func(_, _ string, _ ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
			return ask() // the peer links work; raft's streams do not
		}
		c.lan.Isolate("a")
		must(t, c.server("b").node.Hurry())
		lead := c.nextLead("b", 100*time.Millisecond)
		if c.server("a").node.raft.Load().State() != raft.Leader || old.Ctx.Err() != nil {
			t.Fatal("a learnt too early that it is deposed")
		}
		if _, err := old.Confirm(c.timeout(time.Second)); !errors.Is(err, ErrNoMajority) {
			t.Errorf("the deposed leader: error %v, want ErrNoMajority", err)
		}
		if _, err := lead.Confirm(c.timeout(time.Second)); err != nil {
			t.Errorf("the leader: %v", err)
		}
	})
}

// holdRounds lets a test hold answers back, round by round.
type holdRounds struct {
	mu    sync.Mutex
	sent  map[uint64]time.Time // when the round's first message left
	gates map[uint64]chan struct{}
}

func newHold(c *cluster) *holdRounds {
	h := &holdRounds{sent: map[uint64]time.Time{}, gates: map[uint64]chan struct{}{}}
	c.intercept = func(_, _ string, req ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
		h.mu.Lock()
		if _, ok := h.sent[req.Round]; !ok {
			h.sent[req.Round] = time.Now()
		}
		gate := h.gates[req.Round]
		h.mu.Unlock()
		reply, err := ask()
		if gate != nil {
			<-gate
		}
		return reply, err
	}
	return h
}

func (h *holdRounds) hold(round uint64) (open func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.gates[round] = gate
	return func() { close(gate) }
}

func (h *holdRounds) left(round uint64) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent[round]
}

type confirmEnd struct {
	asked time.Time
	got   Confirmed
	err   error
}

func confirmLater(ctx context.Context, l *Lead) <-chan confirmEnd {
	ch := make(chan confirmEnd, 1)
	asked := time.Now()
	go func() {
		got, err := l.Confirm(ctx)
		ch <- confirmEnd{asked, got, err}
	}()
	synctest.Wait() // the request is in
	return ch
}

// A request that arrives after a round's first message left is not served by that round, also if the round ends later.
func TestA11LateRequestIsNotServedByTheRoundUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		time.Sleep(time.Second)
		h := newHold(c)
		open := h.hold(1)
		ctx := c.timeout(10 * time.Second)
		first := confirmLater(ctx, lead)
		time.Sleep(time.Millisecond)
		var late []<-chan confirmEnd
		for range 3 {
			late = append(late, confirmLater(ctx, lead))
			time.Sleep(time.Millisecond)
		}
		open()
		one := <-first
		must(t, one.err)
		if one.got.Round != 1 {
			t.Errorf("the first request was served by round %d", one.got.Round)
		}
		for i, ch := range late {
			e := <-ch
			must(t, e.err)
			if left := h.left(e.got.Round); e.got.Round != 2 || left.Before(e.asked) {
				t.Errorf("request %d was served by round %d, whose first message left %v before it came", i, e.got.Round, e.asked.Sub(left))
			}
		}
	})
}

// A voter that holds a round up does not hold up the requests that come later.
func TestConfirmOverlapsARoundThatIsHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		h := newHold(c)
		open := h.hold(1)
		ctx := c.timeout(10 * time.Second)
		first := confirmLater(ctx, lead)
		start := time.Now()
		second := <-confirmLater(ctx, lead)
		must(t, second.err)
		if took := time.Since(start); took > 2*roundOverlap {
			t.Errorf("the second request took %v", took)
		}
		open()
		must(t, (<-first).err)
	})
}

// An answer to an earlier round, coming late, does not count in a later one: raft's VerifyLeader falls for that.
func TestA11OldAnswerDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		old := map[string]ConfirmReply{}
		var mu sync.Mutex
		c.intercept = func(_, to string, req ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
			mu.Lock()
			defer mu.Unlock()
			if r, ok := old[to]; ok {
				return r, nil
			}
			r, err := ask()
			old[to] = r
			return r, err
		}
		_, err := lead.Confirm(c.timeout(time.Second))
		must(t, err)
		synctest.Wait()
		if _, err := lead.Confirm(c.timeout(time.Second)); !errors.Is(err, ErrNoMajority) {
			t.Errorf("error %v, want ErrNoMajority", err)
		}
	})
}

// The answers are all true, but while they travel the leader learns of a newer term: it reads its own term last.
func TestA11LeaderReadsItsOwnTermLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		time.Sleep(time.Second)
		h := newHold(c)
		open := h.hold(1)
		end := confirmLater(c.timeout(10*time.Second), lead)
		time.Sleep(time.Millisecond)
		must(t, c.server("b").node.Hurry())
		time.Sleep(50 * time.Millisecond)
		open()
		if e := <-end; !errors.Is(e.err, ErrNotLeader) {
			t.Errorf("confirmed %+v, error %v, want ErrNotLeader", e.got, e.err)
		}
	})
}

// The same with nothing but the own term to show it: the last step of a round reads it.
func TestA11RoundEndsWithTheLeadersOwnTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		a := c.server("a").node
		c.intercept = func(_, _ string, _ ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
			reply, err := ask()
			a.terms.note(lead.Term + 1)
			return reply, err
		}
		unaware := &Lead{Term: lead.Term, Ctx: context.Background(), node: a}
		if got, err := unaware.round(1); !errors.Is(err, ErrNotLeader) {
			t.Errorf("confirmed %+v, error %v, want ErrNotLeader", got, err)
		}
		if err := context.Cause(lead.Ctx); !errors.Is(err, ErrLost) {
			t.Errorf("a newer term was noted, and the lead's context says %v", err)
		}
	})
}

// A voter that voted in a newer term refuses, also while raft itself still shows the older one, and even before the vote is
// on its disk.
func TestA11VoterThatVotedInANewerTermRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		terms := newTerms("b", "test", timeClock{})
		hung := &hungStable{StableStore: raft.NewInmemStore(), gate: make(chan struct{})}
		g := newGuard(Config{StoreTimeout: time.Minute, Exit: func(r string) { t.Error(r) }})
		s, err := openStable(hung, g, terms.note)
		must(t, err)
		must(t, s.SetUint64([]byte(keyCurrentTerm), 5))
		ask := ConfirmRequest{ClusterID: "test", Term: 5, Leader: "a", Round: 1}
		if got := terms.confirm(ask).Term; got != 5 {
			t.Fatalf("term %d, want 5", got)
		}
		must(t, s.SetUint64([]byte(keyLastVoteTerm), 6))
		hung.hang = true
		go func() { _ = s.Set([]byte(keyLastVoteCand), []byte("c")) }()
		synctest.Wait()
		if got := terms.confirm(ask).Term; got != 6 {
			t.Errorf("the voter confirmed term %d while its vote in term 6 was being written", got)
		}
		close(hung.gate)
		synctest.Wait()
		if got, _ := s.GetUint64([]byte(keyCurrentTerm)); got != 5 {
			t.Errorf("current term %d, want 5: the case is that raft lags behind", got)
		}
		// The same after a restart.
		again := newTerms("b", "test", timeClock{})
		s, err = openStable(hung, g, again.note)
		must(t, err)
		if got := again.confirm(ask).Term; got != 6 {
			t.Errorf("after a restart the voter confirmed term %d", got)
		}
		if got, _ := s.GetUint64([]byte(keyCurrentTerm)); got != 6 {
			t.Errorf("after a restart raft begins in term %d, below its vote", got)
		}
		// And for a term that is only being written.
		hung.gate = make(chan struct{})
		go func() { _ = s.SetUint64([]byte(keyCurrentTerm), 7) }()
		synctest.Wait()
		if got := again.confirm(ask).Term; got != 7 {
			t.Errorf("the voter confirmed term %d while term 7 was being written", got)
		}
		close(hung.gate)
	})
}

type hungStable struct {
	raft.StableStore
	hang bool
	gate chan struct{}
}

func (h *hungStable) Set(k, v []byte) error {
	if h.hang {
		<-h.gate
	}
	return h.StableStore.Set(k, v)
}

// Raft's heartbeat handler may write an older term after the main loop wrote a newer one. It must not.
func TestA11TermNeverGoesBack(t *testing.T) {
	exits := make(chan string, 1)
	g := newGuard(Config{StoreTimeout: time.Minute, Exit: func(r string) { exits <- r }})
	s, err := openStable(raft.NewInmemStore(), g, func(uint64) {})
	must(t, err)
	must(t, s.SetUint64([]byte(keyCurrentTerm), 6))
	if err := s.SetUint64([]byte(keyCurrentTerm), 5); err == nil {
		t.Error("the term went back")
	}
	select {
	case <-exits:
	case <-time.After(10 * time.Second):
		t.Error("the process went on")
	}
	if got, _ := s.GetUint64([]byte(keyCurrentTerm)); got != 6 {
		t.Errorf("term %d", got)
	}
}

func TestConfirmRefusesWrongNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		for name, spoil := range map[string]func(*ConfirmReply){
			"cluster": func(r *ConfirmReply) { r.ClusterID = "other" },
			"server":  func(r *ConfirmReply) { r.ServerID = "a" },
			"newer":   func(r *ConfirmReply) { r.Term++ },
			"older":   func(r *ConfirmReply) { r.Term-- },
			"age":     func(r *ConfirmReply) { r.Age = -time.Second },
		} {
			c.intercept = func(_, _ string, _ ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
				r, err := ask()
				spoil(&r)
				return r, err
			}
			if _, err := lead.Confirm(c.timeout(time.Second)); !errors.Is(err, ErrNoMajority) {
				t.Errorf("wrong %s: error %v, want ErrNoMajority", name, err)
			}
		}
		if r := c.server("b").node.Confirm(ConfirmRequest{ClusterID: "other", Term: lead.Term}); r.Term != 0 {
			t.Errorf("another cluster's leader was told term %d", r.Term)
		}
	})
}

// What voters tell a new leader lies never before a confirmation that they gave the old one.
func TestAgesCoverTheOldLeadersConfirmations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		ids := []string{"a", "b", "c"}
		lead := c.form(ids...)
		leader := "a"
		for range 5 {
			time.Sleep(3 * time.Second)
			_, err := lead.Confirm(c.timeout(time.Second))
			must(t, err)
			time.Sleep(400 * time.Millisecond)
			_, err = lead.Confirm(c.timeout(time.Second))
			must(t, err)
			lastGrant := (timeClock{}).Now()
			c.lan.Isolate(leader)
			s, l := c.anyLead(10*time.Second, others(leader, ids...)...)
			got, err := l.Confirm(c.timeout(time.Second))
			must(t, err)
			// The old leader and one of the two were the majority then; one of these two is a majority's intersection.
			latest := time.Hour
			for _, a := range got.Answers {
				latest = min(latest, a.Age-a.Receipt.Sub(lastGrant))
			}
			if latest > 20*time.Millisecond {
				t.Errorf("the latest confirmation of an older term is told as %v before it was", latest)
			}
			c.lan.Heal()
			lead, leader = l, s.id
		}
	})
}

// A server that has just got its vote knows nothing of what older voters confirmed, and says so.
func TestAgeIsNotMoreThanTheVotersTimeAsVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.form("a", "b", "c")
		a := c.server("a").node
		c.start("d")
		must(t, a.AddNonvoter(c.timeout(time.Minute), "d"))
		time.Sleep(2 * time.Minute)
		must(t, a.AddVoter(c.timeout(time.Minute), "d"))
		time.Sleep(2 * time.Second)
		reply := c.server("d").node.Confirm(ConfirmRequest{ClusterID: "test", Term: c.server("d").node.terms.highest()})
		if reply.Age > 4*time.Second {
			t.Errorf("a voter of 2 s tells of %v", reply.Age)
		}
	})
}

func TestConfirmEndsWithTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		c.lan.Isolate("a")
		start := time.Now()
		_, err := lead.Confirm(c.timeout(time.Minute))
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrNoMajority) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took > c.params.MaxAge+time.Millisecond {
			t.Errorf("it took %v", took)
		}
		time.Sleep(5 * time.Second)
		if _, err := lead.Confirm(c.timeout(time.Second)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("error %v, want ErrNotLeader", err)
		}
	})
}

// Answers that are all there at once are all counted.
func TestConfirmWithInstantAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		c.intercept = func(_, _ string, _ ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
			return ask()
		}
		for range 2000 {
			if _, err := lead.Confirm(c.timeout(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Many requests cost few rounds.
func TestConfirmBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		lead := c.form("a", "b", "c")
		before := c.server("a").node.Stats().Rounds
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := lead.Confirm(c.timeout(5 * time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if rounds := c.server("a").node.Stats().Rounds - before; rounds > 5 {
			t.Errorf("100 requests took %d rounds", rounds)
		}
	})
}
