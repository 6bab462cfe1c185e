package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A leadership is one term in which this node leads. All work that only a leader may do takes its context, which ends with
// the term.
type leadership struct {
	ctx  context.Context
	term uint64
	lead ledTerm

	mu     sync.Mutex // over book, and over the making of grants and proofs together (attack A9)
	book   *lease.Grantor
	nonces map[string]string    // newest boot nonce given to a node
	shots  map[string]*shot     // under way, by node
	back   map[string]*comeback // newest hello of a boot that the log did not know then, by node

	gathering gatherer // of lease requests that wait for a round to begin

	// Of the loop alone:
	since       lease.Instant
	proposing   bool                         // a batch of proposals is under way
	fencing     map[lease.Subject]*fencing   // shots under way or done
	noted       map[string]bool              // sentences that were logged in this term
	nextPlan    time.Time                    // when the plan may change by time alone
	planned     uint64                       // index that the last plan was made on
	voters      lease.Instant                // when the voters were last looked at
	proofsAfter lease.Instant                // no proof before: one was refused, and would be again
	backoff     lease.Instant                // no plan before: a decision was refused, and would be again
	netsDown    map[string]bool              // networks that are down on all nodes, as last noted; nil: not looked at yet
	timing      map[lease.Subject]*phaseTime // for the breakdown of a failover
}

// ledTerm is what a leadership needs of its term: a *consensus.Lead.
type ledTerm interface {
	Confirm(ctx context.Context) (consensus.Confirmed, error)
	LastCommit() lease.Instant
}

// phaseTime notes when the phases of a failover began, for metrics.
type phaseTime struct{ lost, proven lease.Instant }

func (m *member) newLeadership(l *consensus.Lead) *leadership {
	led := &leadership{ctx: l.Ctx, term: l.Term, lead: l, book: lease.NewGrantor(l.Term), nonces: map[string]string{},
		shots: map[string]*shot{}, back: map[string]*comeback{},
		since: m.clock.Now(), fencing: map[lease.Subject]*fencing{}, noted: map[string]bool{},
		timing: map[lease.Subject]*phaseTime{}}
	led.book.SetVoters(votersOf(m.raft.Configuration()))
	led.book.Committed(l.FirstCommit)
	return led
}

func votersOf(servers []consensus.Server) []string {
	var out []string
	for _, s := range servers {
		if s.Voter {
			out = append(out, s.ID)
		}
	}
	return out
}

func (l *leadership) ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Ready()
}

// confirm has the term confirmed by a round that begins after the call, and books what the voters said of older terms.
func (l *leadership) confirm(ctx context.Context) error {
	c, err := l.lead.Confirm(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.SetVoters(c.Voters)
	for _, a := range c.Answers {
		l.book.HeardVoter(a.Voter, a.Receipt, a.Age)
	}
	return nil
}

// leading is the current leadership, nil when another node leads or none does.
func (m *member) leading() *leadership {
	l := m.lead.Load()
	if l == nil || l.ctx.Err() != nil {
		return nil
	}
	return l
}

// leadPass is one pass of the leader's duties: facts first, then proofs, then the plan. It proposes and never waits: while a
// batch is under way nothing is planned, because it would be planned on a state that is about to change.
func (m *member) leadPass(led *leadership, view *state.State, now lease.Instant) {
	m.lookAtSuspects(now)
	m.tendShots(led, view)
	m.noteLostNetworks(led, view)
	if now.Sub(led.voters) > time.Second {
		led.voters = now
		m.tendVoters(led, view)
	}
	if led.proposing || view.Definition == nil {
		return
	}
	batch := m.facts(led, view, now)
	if len(batch) == 0 && now >= led.proofsAfter {
		batch = m.proofs(led, view, now)
	}
	if len(batch) == 0 && now >= led.backoff {
		batch = m.plan(led, view)
	}
	if len(batch) > 0 {
		m.propose(led, batch)
	}
}

// facts turns what the detector sees into proposals.
func (m *member) facts(led *leadership, view *state.State, now lease.Instant) []proposal {
	var out []proposal
	for _, name := range view.NodeNames() {
		n := view.Node(name)
		if n == nil || n.Incarnation == 0 || n.Dead != nil {
			continue
		}
		if name == m.name { // an earlier leader may have lost it
			if n.Lost != nil && n.Incarnation == m.incarnation(view) {
				out = append(out, fact(&state.Command{NodeFound: &state.NodeFound{Node: name, Incarnation: n.Incarnation}}))
			}
			continue
		}
		m.detMu.Lock()
		v, why := m.det.Verdict(name, now), m.loop.why[name]
		silent, _ := m.det.Silent(name, now)
		m.detMu.Unlock()
		switch {
		case v == detector.Lost && n.Lost == nil:
			s := lease.Subject{Node: name, Incarnation: n.Incarnation}
			led.timing[s] = &phaseTime{lost: now}
			m.met.Phase("detect", silent)
			out = append(out, fact(&state.Command{NodeLost: &state.NodeLost{Node: name, Incarnation: n.Incarnation, Sentence: why}}))
		case v == detector.Isolated && n.Lost == nil && m.loop.isolated[name] != 0 && now.Sub(m.loop.isolated[name]) >= m.params().Silence/2:
			// Not at once: the last heartbeat on the volume of a node that has crashed may be a little younger than its last message.
			out = append(out, fact(&state.Command{NodeLost: &state.NodeLost{Node: name, Incarnation: n.Incarnation, Sentence: why}}))
		case v == detector.Alive && n.Lost != nil && !led.doomed(lease.Subject{Node: name, Incarnation: n.Incarnation}):
			out = append(out, fact(&state.Command{NodeFound: &state.NodeFound{Node: name, Incarnation: n.Incarnation}}))
		}
	}
	return out
}

func (l *leadership) doomed(s lease.Subject) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Ready() && !l.book.MayGrant(s)
}

// proofs looks for a proof of death of each silent incarnation: none armed, time, fence. The first that holds is proposed.
func (m *member) proofs(led *leadership, view *state.State, now lease.Instant) []proposal {
	var out []proposal
	for _, name := range view.NodeNames() {
		n := view.Node(name)
		if n == nil || n.Lost == nil || n.Dead != nil || name == m.name {
			continue
		}
		s := lease.Subject{Node: name, Incarnation: n.Incarnation}
		if m.handsOver(led, view, s, now) {
			continue
		}
		if n.Armed == nil {
			out = append(out, m.doom(led, s, state.Proof{Kind: state.ProofNeverArmed,
				Sentence: "node " + name + " is silent and its deadman is not armed: it holds nothing under a lease"}))
			continue
		}
		led.mu.Lock()
		proof, _, ok := led.book.Expired(s, *n.Armed, now)
		if ok {
			led.book.Doom(s)
		}
		led.mu.Unlock()
		if ok {
			p := state.Proof{Node: name, Incarnation: n.Incarnation, Kind: state.ProofTime, Time: &proof,
				Sentence: fmt.Sprintf("the lease of node %s ran out: %.2f s since its last possible grant, its watchdog has fired after at most %.2f s",
					name, proof.Now.Sub(proof.T0).Seconds(), n.Armed.Expiry().Seconds())}
			out = append(out, m.proofProposal(led, s, p))
			continue
		}
		m.fence(led, view, s)
		if f := led.fencing[s]; f != nil && f.proof != "" && !f.proposed {
			f.proposed = true
			out = append(out, m.doom(led, s, state.Proof{Kind: state.ProofFenced, Sentence: f.proof}))
		}
	}
	return out
}

// doom stops grants to the subject and makes the proposal of a proof against it.
func (m *member) doom(led *leadership, s lease.Subject, p state.Proof) proposal {
	led.mu.Lock()
	led.book.Doom(s)
	led.mu.Unlock()
	p.Node, p.Incarnation = s.Node, s.Incarnation
	return m.proofProposal(led, s, p)
}

func (m *member) proofProposal(led *leadership, s lease.Subject, p state.Proof) proposal {
	pr := fact(&state.Command{Proof: &p})
	pr.done = func(r state.Result, err error) {
		switch {
		case err == nil && r.Refused != "":
			// Apply refused: the incarnation lives on, and may be granted again.
			m.log.Warn("a proof was refused", "node", s.Node, "why", r.Refused)
			led.mu.Lock()
			led.book.Spare(s)
			led.mu.Unlock()
			led.proofsAfter = m.clock.Now().Add(refusedPause)
		case err == nil:
			if t := led.timing[s]; t != nil {
				t.proven = m.clock.Now()
				m.met.Phase("prove", t.proven.Sub(t.lost))
			}
		}
		// An unknown outcome leaves the doom in place: the next term decides with a book of its own.
	}
	return pr
}

// plan asks the scheduler, when something has changed since it was last asked.
func (m *member) plan(led *leadership, view *state.State) []proposal {
	wall := m.wall()
	if led.planned == view.Index && (led.nextPlan.IsZero() || wall.Before(led.nextPlan)) {
		return nil
	}
	res := scheduler.Plan(view, wall)
	led.planned, led.nextPlan = view.Index, res.Next
	for _, n := range res.Notes {
		if text := n.Sentence; !led.noted[text] {
			led.noted[text] = true
			m.log.Info(text)
		}
	}
	var out []proposal
	for i := range res.Decisions {
		d := res.Decisions[i]
		c := d.Command()
		m.log.Info("decision", "op", d.Op, "group", d.Group, "node", d.Node, "reason", d.Reason)
		out = append(out, fact(&c))
	}
	return out
}

// refusedPause keeps a planner and a state that disagree from filling the log.
const refusedPause = 300 * time.Millisecond

// A proposal is one command on its way into the log.
type proposal struct {
	command *state.Command
	done    func(state.Result, error) // called on the loop
}

func fact(c *state.Command) proposal { return proposal{command: c} }

// propose sends a batch into the log, all at once so that it becomes one write, and tells the loop when all are in.
func (m *member) propose(led *leadership, batch []proposal) {
	led.proposing = true
	began := m.clock.Now()
	m.work.Go(func() {
		results := make([]proposed, len(batch))
		var wg sync.WaitGroup
		for i, p := range batch {
			wg.Go(func() {
				p.command.Term = led.term
				r, err := m.commit(led.ctx, p.command)
				results[i] = proposed{p, r, err}
			})
		}
		wg.Wait()
		m.met.Phase("commit", m.clock.Now().Sub(began))
		m.post(batchDone{led: led, results: results})
	})
}

type proposed struct {
	proposal
	result state.Result
	err    error
}

type batchDone struct {
	led     *leadership
	results []proposed
}

func (m *member) finishBatch(b batchDone) {
	b.led.proposing = false
	for _, p := range b.results {
		if p.err == nil && p.result.Refused != "" {
			m.log.Info("a proposal was refused", "why", p.result.Refused)
			b.led.backoff = m.clock.Now().Add(refusedPause)
		} else if p.err != nil && b.led.ctx.Err() == nil {
			m.log.Warn("a proposal could not be committed", "error", p.err)
		}
		if p.done != nil {
			p.done(p.result, p.err)
		}
	}
	b.led.planned = 0
}
