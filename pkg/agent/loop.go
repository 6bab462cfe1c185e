package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// loopState is what only the loop touches.
type loopState struct {
	ctx     context.Context
	node    nodeState_ // this node's groups, grant and deadman
	defined uint64     // the definition version that was put into effect here

	changingVoters bool
	suspectLeader  lease.Instant     // when the leader fell silent; 0: it did not
	hurried        bool              // this suspicion has hurried an election already
	why            map[string]string // the detector's newest sentence about a node
	lastPublished  published
}

// The loop's own pace: how often it looks without being woken. Everything that matters wakes it; this is for what only time
// brings.
func (m *member) pace() time.Duration {
	if p := m.params(); p.Silence < 800*time.Millisecond {
		return 50 * time.Millisecond
	}
	return 100 * time.Millisecond
}

// runLoop is the agent's one loop: collect, decide, act, publish. Nothing in it blocks.
func (m *member) runLoop(ctx context.Context) {
	m.loop.ctx = ctx
	m.loop.why = map[string]string{}
	m.loop.node.init(m)
	m.loopAt.Store(int64(m.clock.Now()))
	m.beginNode(ctx)
	m.servePeers()
	tick := time.NewTicker(m.pace())
	defer tick.Stop()
	defer m.endNode()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.mail.ready:
			for _, e := range m.mail.take() {
				m.handle(e)
			}
		case <-tick.C:
		}
		now := m.clock.Now()
		m.loopAt.Store(int64(now))
		view := m.view()
		if view.DefinitionVersion != m.loop.defined || view.Definition != nil && !m.rings.complete(view.Definition) && now%8 == 0 {
			m.putIntoEffect(ctx, view)
			tick.Reset(m.pace())
		}
		m.tickDetector(now)
		if led := m.leading(); led != nil {
			m.leadPass(led, view, now)
		} else {
			m.followPass(now)
		}
		m.nodePass(view, now)
		m.publish(view, now)
		if took := m.clock.Now().Sub(now); took > slowPass {
			m.log.Warn("a pass of the loop was slow", "took", took)
		}
	}
}

// slowPass is what a pass should never take: nothing in it waits.
const slowPass = 100 * time.Millisecond

// handle takes one event. Events carry values; none of them is a decision.
func (m *member) handle(e any) {
	switch e := e.(type) {
	case granted:
		m.gotGrant(e)
	case heardDead:
		m.hearDead(e)
	case heardUnknown:
		m.loop.node.unknown = true
	case introduced:
		m.gotIntroduced(e)
	case workDone:
		m.finishWork(e)
	case recoveredActions:
		m.gotRecovered(e)
	case batchDone:
		m.finishBatch(e)
	case fenced:
		m.finishFence(e)
	case votersDone:
		m.loop.changingVoters = false
	case deadmanUp:
		m.gotDeadman(e)
	case deadmanDown:
		m.lostDeadman(e)
	case deadmanDone:
		m.finishDeadman(e)
	case gossipEvent:
		m.gotGossip(e)
	case linkEvent:
		m.gotLink(e)
	case appEvent:
		m.gotAppEvent(e)
	case probed:
		delete(m.loop.node.probing, e.node)
	case reported:
		delete(m.loop.node.reporting, e.key)
	}
}

// heardDead says that the leader called this node's incarnation dead.
type heardDead struct {
	incarnation uint64
	sentence    string
}

// heardUnknown says that the leader does not know this boot.
type heardUnknown struct{}

// watchLeadership takes each term of this node's leadership as it begins.
func (m *member) watchLeadership(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-m.raft.Leads():
			led := m.newLeadership(l)
			m.detMu.Lock()
			m.det.Lead(m.previousLeader(), led.since)
			m.detMu.Unlock()
			m.log.Info("this node leads the cluster", "term", l.Term)
			m.lead.Store(led)
			m.met.Leading(true)
			m.mail.wake()
			m.carriers.Go(func() {
				// The voters' ages, asked at once, bring t0 forward before anybody needs it.
				ctx, cancel := context.WithTimeout(led.ctx, time.Second)
				defer cancel()
				if err := led.confirm(ctx); err != nil {
					m.log.Debug("the first round of the term", "error", err)
				}
			})
			m.work.Go(func() {
				<-led.ctx.Done()
				m.detMu.Lock()
				if m.leading() == nil {
					m.det.Follow()
				}
				m.detMu.Unlock()
				m.met.Leading(false)
				m.log.Info("this node no longer leads", "term", l.Term, "why", context.Cause(led.ctx))
				m.mail.wake()
			})
		}
	}
}

// tickDetector feeds the detector with what raft knows, and notes the reasons of its changes. It ends a pass of the detector.
func (m *member) tickDetector(now lease.Instant) {
	leader, _ := m.raft.Leader()
	ago, heard := m.raft.LastContact()
	followers := m.raft.Followers()
	m.detMu.Lock()
	defer m.detMu.Unlock()
	if node := nodeOfServer(leader); heard && node != "" && node != m.name {
		m.det.Observe(node, detector.PathRaft, now.Add(-ago))
	}
	for id, f := range followers {
		if f.Contact != 0 {
			m.det.Observe(nodeOfServer(id), detector.PathRaft, f.Contact)
		}
	}
	for _, c := range m.det.Changes(now) {
		m.loop.why[c.Node] = c.Why
		m.log.Debug("detector", "node", c.Node, "from", c.From.String(), "to", c.To.String(), "why", c.Why)
	}
}

// followPass watches the leader. A voter that has it silent on all paths may hurry one election per suspicion; raft's rules
// decide about the outcome.
func (m *member) followPass(now lease.Instant) {
	n := &m.loop
	ago, ok := m.raft.LastContact()
	leader, _ := m.raft.Leader()
	if node := nodeOfServer(leader); node != "" && node != m.name {
		m.lastLeader.Store(&node)
	}
	if !ok || leader == "" || !m.raft.Voter() || ago < hurryAfter(m.params()) {
		n.suspectLeader, n.hurried = 0, false
		return
	}
	if n.suspectLeader == 0 {
		n.suspectLeader = now
		m.look(nodeOfServer(leader))
	}
	// Staggered by rank, so that two followers do not split the vote.
	if n.hurried || now.Sub(n.suspectLeader) < m.stagger() {
		return
	}
	m.detMu.Lock()
	silent, known := m.det.Silent(nodeOfServer(leader), now)
	m.detMu.Unlock()
	if known && silent < hurryAfter(m.params()) {
		return // it still speaks on another path
	}
	n.hurried = true
	m.log.Info("the leader is silent on all paths: an election is hurried", "leader", nodeOfServer(leader), "silent", ago)
	if err := m.raft.Hurry(); err != nil {
		m.log.Debug("hurry the election", "error", err)
	}
}

// previousLeader is the node that led before this one, as far as it knows.
func (m *member) previousLeader() string {
	if p := m.lastLeader.Load(); p != nil {
		return *p
	}
	return ""
}

func hurryAfter(p lease.Params) time.Duration { return p.RaftElection / 2 }

func (m *member) stagger() time.Duration {
	rank := 0
	for _, s := range m.raft.Configuration() {
		if !s.Voter {
			continue
		}
		if nodeOfServer(s.ID) == m.name {
			break
		}
		rank++
	}
	return time.Duration(60+rank*120) * time.Millisecond
}

// lookAtSuspects sends a direct look to each node of which the detector wants one.
func (m *member) lookAtSuspects(now lease.Instant) {
	m.detMu.Lock()
	due := m.det.ProbesDue(now)
	m.detMu.Unlock()
	for _, node := range due {
		m.look(node)
	}
}

type probed struct{ node string }

// look asks a node directly whether it is there, beside the loop. One look at a time per node.
func (m *member) look(node string) {
	if node == m.name || m.loop.node.probing[node] {
		return
	}
	m.loop.node.probing[node] = true
	limit := m.params().Silence / 4
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, limit)
		defer cancel()
		_, err := m.links.Call(ctx, node, rpcPing, nil)
		answer := detector.Answered
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			answer = detector.Refused
		case err != nil:
			answer = detector.TimedOut
		}
		m.detMu.Lock()
		m.det.Probe(node, answer, m.clock.Now())
		m.detMu.Unlock()
		m.post(probed{node})
	})
}

// putIntoEffect makes this node follow a new definition: timings, rings, links, persistent addresses.
func (m *member) putIntoEffect(ctx context.Context, view *state.State) {
	if view.Definition == nil {
		return
	}
	first := view.DefinitionVersion != m.loop.defined
	m.loop.defined = view.DefinitionVersion
	m.rings.tend(ctx, view.Definition)
	if !first {
		return
	}
	m.detMu.Lock()
	m.det.Watch(view.NodeNames(), m.clock.Now())
	m.detMu.Unlock()
	p := m.timingOf(view)
	if p != m.params() {
		m.setTiming(p)
		m.detMu.Lock()
		m.det.SetParams(detector.ParamsFor(p))
		m.detMu.Unlock()
	}
	m.links.CheckMembers()
	friends := map[string][]string{}
	for i := range view.Definition.Nodes {
		n := &view.Definition.Nodes[i]
		friends[n.Name] = dialAddresses(view.Definition, n, m.port())
	}
	m.friends.Store(&friends)
	if err := saveFriends(m.opt.Node.StateDir, friends); err != nil {
		m.log.Warn("store the list of members", "error", err)
	}
	m.keepPersistentIPs(view)
}
