package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Confirmed is the outcome of a round: at some moment after the request arrived, a majority of the voters of the latest
// configuration had seen no newer term than the lead's, and afterwards this server still led in it.
type Confirmed struct {
	Round uint64
	At    lease.Instant // read after the last step of the round
	// Voters are those of the latest configuration, by which the ages are to be counted.
	Voters []string
	// Answers are the votes that counted, this server's own among them.
	Answers []Answer
}

// An Answer is what one voter, already in the lead's term, said about the older ones: what a lease.Grantor takes by
// HeardVoter.
type Answer struct {
	Voter   string
	Receipt lease.Instant
	Age     time.Duration
}

// rounds runs the rounds of one lead, and gathers the requests that each serves.
type rounds struct {
	lead *Lead
	last atomic.Uint64

	mu        sync.Mutex
	waiting   []chan<- roundEnd // served by the next round to begin
	running   int
	lastBegun time.Time
	timer     *time.Timer
}

type roundEnd struct {
	confirmed Confirmed
	err       error
}

const (
	// A round that some voter holds up must not hold up the requests that come after it: the next one begins beside it after
	// this time.
	roundOverlap = 50 * time.Millisecond
	maxRounds    = 8
)

// Confirm runs a round of term confirmation, or joins the next one to begin: a round never serves a request that came after
// its first message left (attack A11). It fails with ErrNotLeader if the lead is lost, ErrNoMajority if the voters did not
// confirm it within Params.MaxAge (after that the answer is of no use to anyone), and with the context's error.
func (l *Lead) Confirm(ctx context.Context) (Confirmed, error) {
	end := make(chan roundEnd, 1)
	l.rounds.add(end)
	select {
	case e := <-end:
		return e.confirmed, e.err
	case <-ctx.Done():
		return Confirmed{}, fmt.Errorf("confirm term %d: %w", l.Term, context.Cause(ctx))
	case <-l.Ctx.Done():
		return Confirmed{}, fmt.Errorf("confirm term %d: %w", l.Term, ErrNotLeader)
	}
}

func (r *rounds) add(end chan<- roundEnd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, end)
	r.beginIfDue()
}

// beginIfDue seals the list of waiting requests and begins their round, unless one is under way and young. The list is
// sealed before the round's first message is made. The caller holds the lock.
func (r *rounds) beginIfDue() {
	if len(r.waiting) == 0 || r.running >= maxRounds {
		return
	}
	if r.running > 0 {
		if wait := roundOverlap - time.Since(r.lastBegun); wait > 0 {
			if r.timer == nil {
				r.timer = time.AfterFunc(wait, r.overlap)
			}
			return
		}
	}
	batch := r.waiting
	r.waiting = nil
	r.running++
	r.lastBegun = time.Now()
	r.lead.node.spawn(func() { r.run(batch) })
}

// overlap is the timer's: a round is held up and requests wait.
func (r *rounds) overlap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	r.beginIfDue()
}

func (r *rounds) run(batch []chan<- roundEnd) {
	n := r.lead.node
	n.roundsRun.Add(1)
	confirmed, err := r.lead.round(r.last.Add(1))
	if err != nil {
		n.roundsFailed.Add(1)
	}
	for _, end := range batch {
		end <- roundEnd{confirmed, err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.beginIfDue()
}

// round asks all voters at once and ends when a majority has confirmed the term.
func (l *Lead) round(number uint64) (Confirmed, error) {
	n := l.node
	asked := voters(n.Configuration())
	answers, err := l.collect(number, asked)
	if err != nil {
		return Confirmed{}, err
	}
	// The voters that counted must be a majority of the latest configuration, also if it changed meanwhile.
	latest := voters(n.Configuration())
	if !slices.Equal(asked, latest) {
		answers = slices.DeleteFunc(answers, func(a Answer) bool { return !slices.Contains(latest, a.Voter) })
		if len(answers) < majority(latest) {
			return Confirmed{}, fmt.Errorf("confirm term %d: %w: the voters changed during the round", l.Term, ErrNoMajority)
		}
	}
	// Last: does this server still lead, and in this term?
	if n.raft.Load().State() != raft.Leader || n.terms.highest() != l.Term || l.Ctx.Err() != nil {
		return Confirmed{}, fmt.Errorf("confirm term %d: %w", l.Term, ErrNotLeader)
	}
	return Confirmed{Round: number, At: n.now(), Voters: latest, Answers: answers}, nil
}

func majority(voters []string) int { return len(voters)/2 + 1 }

// collect gathers answers until a majority of the asked confirms the term, or cannot any more.
func (l *Lead) collect(number uint64, asked []string) ([]Answer, error) {
	n := l.node
	req := ConfirmRequest{ClusterID: n.cfg.ClusterID, Term: l.Term, Leader: n.cfg.ID, Round: number}
	// The context outlives a round that ended early: a slow voter's answer may still be on its way over a link that a
	// cancelled request would break.
	ctx, cancel := context.WithTimeout(l.Ctx, n.cfg.Params.MaxAge)
	type heard struct {
		answer Answer
		err    error
	}
	ch := make(chan heard, len(asked))
	var left sync.WaitGroup
	for _, voter := range asked {
		left.Add(1)
		n.spawn(func() {
			defer left.Done()
			a, err := l.ask(ctx, voter, req)
			ch <- heard{a, err}
		})
	}
	collected := make(chan struct{})
	defer close(collected)
	n.spawn(func() { left.Wait(); <-collected; cancel() })

	var answers []Answer
	var refusals []string
	for range asked {
		select {
		case h := <-ch:
			if h.err != nil {
				refusals = append(refusals, h.err.Error())
			} else {
				answers = append(answers, h.answer)
			}
		case <-ctx.Done():
			refusals = append(refusals, "others did not answer in time")
		}
		if len(answers) >= majority(asked) {
			return answers, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	slices.Sort(refusals)
	return nil, fmt.Errorf("confirm term %d: %w: %d of %d voters did; %s",
		l.Term, ErrNoMajority, len(answers), len(asked), strings.Join(refusals, "; "))
}

// ask gets one voter's answer and checks that it counts. This server's own vote goes the same way.
func (l *Lead) ask(ctx context.Context, voter string, req ConfirmRequest) (Answer, error) {
	n := l.node
	var reply ConfirmReply
	var err error
	if voter == n.cfg.ID {
		reply = n.Confirm(req)
	} else {
		reply, err = n.cfg.Ask(ctx, voter, req)
	}
	receipt := n.now()
	switch {
	case err != nil:
		return Answer{}, fmt.Errorf("%s: %w", voter, err)
	case reply.ClusterID != req.ClusterID:
		return Answer{}, fmt.Errorf("%s: it belongs to another cluster, %q", voter, reply.ClusterID)
	case reply.ServerID != voter:
		return Answer{}, fmt.Errorf("%s: server %q answered in its place", voter, reply.ServerID)
	case reply.Round != req.Round:
		return Answer{}, fmt.Errorf("%s: it answered round %d", voter, reply.Round)
	case reply.Term != req.Term:
		return Answer{}, fmt.Errorf("%s: it is in term %d", voter, reply.Term)
	case reply.Age < 0:
		return Answer{}, errors.New(voter + ": it told a negative age")
	}
	return Answer{Voter: voter, Receipt: receipt, Age: reply.Age}, nil
}
