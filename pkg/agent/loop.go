package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// loopState is what only the loop touches.
type loopState struct {
	ctx        context.Context
	node       ownState // this node's groups, grant and deadman
	defined    uint64   // the definition version that was put into effect here
	definition *cluster.Definition

	lastKnown      knownKeeper
	epochTold      bool // the links speak another epoch than the log
	changingVoters bool
	suspectLeader  lease.Instant            // when the leader fell silent; 0: it did not
	hurried        bool                     // this suspicion has hurried an election already
	why            map[string]string        // the detector's newest sentence about a node
	idle           int                      // ticks since the last event
	isolated       map[string]lease.Instant // since when the detector calls a node isolated
	suspects       bool                     // the last change was for the worse: probes may be due
	lastPublished  published
	keys           keysState
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
	m.loop.why, m.loop.isolated = map[string]string{}, map[string]lease.Instant{}
	m.loop.node.init(m)
	m.loopAt.Store(int64(m.clock.Now()))
	m.beginNode(ctx)
	m.servePeers()
	tick := time.NewTimer(m.pace())
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
			m.loop.idle = 0
		case <-tick.C:
			m.loop.idle++
		}
		now := m.clock.Now()
		m.loopAt.Store(int64(now))
		view := m.view()
		tick.Reset(m.nextLook(view, now))
		if news := m.tickDetector(now); !news && m.loop.idle%idleTicks != 0 && !m.urgent(view, now) {
			// Nothing has happened: only the leader's silence is looked at.
			if m.leading() == nil {
				m.followPass(now)
			}
			continue
		}
		if view.DefinitionVersion != m.loop.defined {
			m.putIntoEffect(view)
		}
		m.tendKeys(view, now)
		if led := m.leading(); led != nil {
			// A state that was read before the lead was seen may be older than its first entry, and a leader that acts on it would
			// for example remove a voter whose coming it has not applied yet: Apply does not see changes of the voters.
			view = m.view()
			m.leadPass(led, view, now)
		} else {
			m.followPass(now)
		}
		m.nodePass(view, now)
		m.publish(view, now)
		m.keepLastKnown(view, now)
		if took := m.clock.Now().Sub(now); took > slowPass {
			m.log.Warn("a pass of the loop was slow", "took", took)
		}
	}
}

// idleTicks is how many ticks without any event make a whole pass.
const idleTicks = 4

// nextLook is when the loop looks again without being woken: soon while time may bring something, else when the leader's
// silence, or a node's, would begin to matter.
func (m *member) nextLook(view *state.State, now lease.Instant) time.Duration {
	if m.urgent(view, now) || m.loop.suspects {
		return m.pace()
	}
	if m.leading() != nil {
		m.detMu.Lock()
		next := m.det.Next(now).Sub(now)
		m.detMu.Unlock()
		// This node's own grants wake the loop a little sooner than that: a tick of its own would be one wake-up more.
		return max(min(next, m.params().Renew), m.pace()/2)
	}
	ago, ok := m.raft.LastContact()
	if !ok || ago >= hurryAfter(m.params()) {
		return m.pace() / 2
	}
	return max(hurryAfter(m.params())-ago, m.pace()/2)
}

// urgent reports whether time alone may have something for this pass: an announcement, the end of a lease, a proof.
func (m *member) urgent(view *state.State, now lease.Instant) bool {
	n := &m.loop.node
	if len(n.announceAt) > 0 || n.armed && now.Sub(max(n.requested, n.armedAt)) >= n.softLimit(m)-2*m.pace() {
		return true
	}
	if n.incarnation == 0 || n.dm == nil {
		return true
	}
	if m.leading() != nil {
		for _, node := range view.Nodes {
			if node.Lost != nil {
				return true
			}
		}
	}
	return false
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
	case outdated:
		m.gotOutdated(e)
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
	case deadmanUpdated:
		m.finishUpdate(e)
	case gossipEvent:
		m.gotGossip(e)
	case linkEvent:
		m.gotLink(e)
	case nicEvent:
		m.gotNIC(e)
	case appEvent:
		m.gotAppEvent(e)
	case probed:
		delete(m.loop.node.probing, e.node)
	case poisoned:
		m.gotPoison(e)
	case volumeKept:
		m.gotVolumeKept(e)
	case volumesAsked:
		m.gotVolumes(e)
	case volumeReplaced:
		m.gotVolumeReplaced(e)
	case resetNoted:
		m.gotResetNoted(e)
	case renewed:
		m.gotRenewed(e)
	case reported:
		delete(m.loop.node.reporting, e.key)
	case knownKept:
		m.gotKnownKept(e)
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
			m.noteElection()
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

// noteElection measures how long the cluster was without a leader: from the last sign of the one before.
func (m *member) noteElection() {
	m.detMu.Lock()
	silent, ok := m.det.Silent(m.previousLeader(), m.clock.Now())
	m.detMu.Unlock()
	if ok {
		m.met.Phase("elect", silent)
	}
}

// tickDetector feeds the detector with what raft knows, and notes the reasons of its changes. It ends a pass of the detector.
func (m *member) tickDetector(now lease.Instant) (news bool) {
	leader := m.leaderNode()
	ago, heard := m.raft.LastContact()
	followers := m.raft.Followers()
	m.detMu.Lock()
	defer m.detMu.Unlock()
	if heard && leader != "" && leader != m.name {
		m.det.Observe(leader, detector.PathRaft, now.Add(-ago))
	}
	for id, f := range followers {
		if f.Contact != 0 && !isRepository(id) {
			m.det.Observe(nodeOfServer(id), detector.PathRaft, f.Contact)
		}
	}
	for _, c := range m.det.Changes(now) {
		news = true
		m.loop.why[c.Node] = c.Why
		m.log.Debug("detector", "node", c.Node, "from", c.From.String(), "to", c.To.String(), "why", c.Why)
		m.loop.suspects = c.To == detector.Suspect || c.To == detector.Lost || c.To == detector.Isolated
		delete(m.loop.isolated, c.Node)
		if c.To == detector.Isolated {
			m.loop.isolated[c.Node] = now
		}
	}
	return news || m.loop.suspects
}

// followPass watches the leader. A voter that has it silent on all paths may hurry one election per suspicion; raft's rules
// decide about the outcome.
func (m *member) followPass(now lease.Instant) {
	n := &m.loop
	ago, ok := m.raft.LastContact()
	leader := m.leaderNode()
	if leader != "" && leader != m.name {
		m.lastLeader.Store(&leader)
	}
	if !ok || leader == "" || !m.raft.Voter() || ago < hurryAfter(m.params()) {
		n.suspectLeader, n.hurried = 0, false
		return
	}
	if n.suspectLeader == 0 {
		n.suspectLeader = now
		m.look(leader)
	}
	// Staggered by rank, so that two followers do not split the vote.
	if n.hurried || now.Sub(n.suspectLeader) < stagger(m.raft.Configuration(), nodeOfServer(leader), m.name) {
		return
	}
	m.detMu.Lock()
	silent, known := m.det.Silent(leader, now)
	m.detMu.Unlock()
	if known && silent < hurryAfter(m.params()) {
		return // it still speaks on another path
	}
	n.hurried = true
	m.log.Info("the leader is silent on all paths: an election is hurried", "leader", leader, "silent", ago)
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

// hurryAfter is the silence of the leader after which an election is hurried: two heartbeats and a bit.
func hurryAfter(p lease.Params) time.Duration { return p.RaftElection * 4 / 5 }

// stagger is how long a voter waits with its hurried election: the first of those that can win it hardly, the others until the one
// before must have won. The silent leader has no turn, or everybody would wait for one who cannot stand; and raft's own timers,
// which know no turns, would split the vote meanwhile.
func stagger(servers []consensus.Server, leader, own string) time.Duration {
	rank := 0
	for _, s := range servers {
		if node := nodeOfServer(s.ID); node == own {
			break
		} else if s.Voter && node != leader {
			rank++
		}
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
func (m *member) putIntoEffect(view *state.State) {
	if view.Definition == nil {
		return
	}
	m.loop.defined = view.DefinitionVersion
	m.detMu.Lock()
	m.det.Watch(view.NodeNames(), m.clock.Now())
	m.detMu.Unlock()
	if p := m.timingOf(view); p != m.params() {
		m.changeTimings(p)
	}
	m.tendRings(view.Definition)
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
	m.keepVolume(view)
	if s := &view.Definition.Settings; m.runner != nil {
		m.runner.SetWarnAfter(s.MaxEventTime + s.MaxGroupTime)
	}
	if old := m.loop.definition; old != nil {
		version := view.DefinitionVersion - 1
		m.work.Go(func() { m.keepOld(old, version) })
	}
	m.followDefinition(m.loop.definition, view.Definition)
	m.loop.definition = view.Definition
	select {
	case m.networks <- struct{}{}:
	default:
	}
}
