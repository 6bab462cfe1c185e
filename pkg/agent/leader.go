package agent

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A leadership is one term in which this node leads. All work that only a leader may do takes its context, which ends with
// the term.
type leadership struct {
	ctx  context.Context
	term uint64
	lead ledTerm

	mu     sync.Mutex // over book, duties, and the making of grants and proofs together (attack A9)
	book   *lease.Grantor
	duties *leader.Duties       // what to propose
	nonces map[string]string    // newest boot nonce given to a node
	shots  map[string]*shot     // under way, by node
	back   map[string]*comeback // newest hello of a boot that the log did not know then, by node

	gathering gatherer // of lease requests that wait for a round to begin

	// Of the loop alone:
	since     lease.Instant
	proposing bool                         // a batch of proposals is under way
	noted     map[string]bool              // sentences that were logged in this term
	voters    lease.Instant                // when the voters were last looked at
	netsDown  map[string]bool              // networks that are down on all nodes, as last noted; nil: not looked at yet
	timing    map[lease.Subject]*phaseTime // for the breakdown of a failover
	volumes   map[string]*volumeKeeping    // by their ids
	backups   backupKeeping
	risk      riskTold
	gossipKey gossipRotation
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
		since: m.clock.Now(), noted: map[string]bool{}, timing: map[lease.Subject]*phaseTime{},
		volumes: map[string]*volumeKeeping{}}
	led.duties = leader.New(m.name, led.book)
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

// leadPass is one pass of the leader's duties: first what package leader finds (facts, then proofs), then the plan. It proposes and
// never waits: while a batch is under way nothing is planned, because it would be planned on a state that is about to change.
func (m *member) leadPass(led *leadership, view *state.State, now lease.Instant) {
	m.lookAtSuspects(now)
	m.tendShots(led, view)
	m.noteLostNetworks(led, view)
	if now.Sub(led.voters) > time.Second {
		led.voters = now
		m.tendVoters(led, view)
		m.tendVolumeMembers(led, view, now)
		m.tendBackups(led, view, now)
		m.tendRisk(led, view, now)
		m.tendGossipRotation(led, view, now)
	}
	if led.proposing || view.Definition == nil {
		return
	}
	batch := m.findings(led, view, now)
	if len(batch) == 0 {
		batch = m.plan(led, view, now)
	}
	if len(batch) > 0 {
		m.propose(led, batch)
	}
}

// findings proposes what package leader finds, and fires the shots that it wants. The book is locked over the whole of it, so that no
// grant comes between a look at the book and the doom (attack A9).
func (m *member) findings(led *leadership, view *state.State, now lease.Instant) []leader.Proposal {
	look := m.leaderLook(view, now)
	look.Incarnation, look.Why, look.Isolated = m.incarnation(view), m.loop.why, m.loop.isolated
	led.mu.Lock()
	m.detMu.Lock()
	found, shots := led.duties.Findings(look)
	m.noteLosses(led, found, now)
	m.detMu.Unlock()
	led.mu.Unlock()
	for _, s := range shots {
		m.fence(led, view, s, now)
	}
	return found
}

// leaderLook is what may be looked at by any goroutine.
func (m *member) leaderLook(view *state.State, now lease.Instant) leader.Look {
	return leader.Look{Now: now, View: view, Detector: m.det, Params: m.params()}
}

// noteLosses begins the breakdown of a failover. Called with detMu held.
func (m *member) noteLosses(led *leadership, found []leader.Proposal, now lease.Instant) {
	for _, p := range found {
		if c := p.Command.NodeLost; c != nil && m.det.Verdict(c.Node, now) == detector.Lost {
			led.timing[lease.Subject{Node: c.Node, Incarnation: c.Incarnation}] = &phaseTime{lost: now}
			silent, _ := m.det.Silent(c.Node, now)
			m.met.Phase("detect", silent)
		}
	}
}

// plan asks the scheduler, when something has changed since it was last asked.
func (m *member) plan(led *leadership, view *state.State, now lease.Instant) []leader.Proposal {
	res, ok := led.duties.Plan(view, now, m.wall())
	if !ok {
		return nil
	}
	for _, n := range res.Notes {
		if text := n.Sentence; !led.noted[text] {
			led.noted[text] = true
			m.log.Info(text)
		}
	}
	var out []leader.Proposal
	for i := range res.Decisions {
		d := res.Decisions[i]
		c := d.Command()
		m.log.Info("decision", "op", d.Op, "group", d.Group, "node", d.Node, "reason", d.Reason)
		out = append(out, leader.Proposal{Command: &c})
	}
	return out
}

// propose sends a batch into the log, all at once so that it becomes one write, and tells the loop when all are in.
func (m *member) propose(led *leadership, batch []leader.Proposal) {
	led.proposing = true
	began := m.clock.Now()
	m.work.Go(func() {
		results := make([]proposed, len(batch))
		var wg sync.WaitGroup
		for i, p := range batch {
			wg.Go(func() {
				p.Command.Term = led.term
				r, err := m.commit(led.ctx, p.Command)
				results[i] = proposed{p, r, err}
			})
		}
		wg.Wait()
		m.met.Phase("commit", m.clock.Now().Sub(began))
		m.post(batchDone{led: led, results: results})
	})
}

type proposed struct {
	leader.Proposal
	result state.Result
	err    error
}

type batchDone struct {
	led     *leadership
	results []proposed
}

func (m *member) finishBatch(b batchDone) {
	led := b.led
	led.proposing = false
	now := m.clock.Now()
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, p := range b.results {
		if p.err != nil {
			if led.ctx.Err() == nil {
				m.log.Warn("a proposal could not be committed", "error", p.err)
			}
			continue
		}
		led.duties.Answered(p.Proposal, p.result.Refused != "", now)
		if p.result.Refused != "" {
			m.log.Info("a proposal was refused", "proposal", p.Command.Kind(), "why", p.result.Refused)
		} else if t := led.timing[p.Doomed]; t != nil {
			t.proven = now
			m.met.Phase("prove", t.proven.Sub(t.lost))
		}
	}
	led.duties.Replan()
}
