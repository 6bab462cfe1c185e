package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/gossip"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
)

// ownState is this node's own side, of the loop alone: its deadman, its newest grant, and what it knows of its groups.
type ownState struct {
	// The deadman.
	dm         Deadman
	dmBusy     bool             // an arm, disarm or update is under way
	dmWith     deadman.Settings // what it was given last; zero: not known for certain
	dmRetryAt  lease.Instant    // not before then is it given others
	armed      bool             // as the deadman says
	armedAt    lease.Instant    // when this arming began, as far as this agent knows; requests after it count
	arming     string           // the nonce of this arming
	armedWith  lease.Params     // the timings of this arming
	dmSince    lease.Instant    // of the connection
	dmWarnings []string

	// The lease.
	grant     *lease.Grant  // the newest by (term, applied)
	requested lease.Instant // t_req of the newest grant taken
	listAt    lease.Instant // t_req of the grant whose list is in force
	unknown   bool          // the leader does not know this boot

	// Introduction of this boot.
	incarnation uint64 // the number that the log gave to this boot and life; 0: not known
	introducing bool
	retryAt     lease.Instant

	groups    map[string]*groupState
	probing   map[string]bool
	reporting map[string]bool
	caughtUp  bool // scheduler.LocalView's
	recovered bool // the actions of an earlier agent are ended
	started   lease.Instant

	lastContact   lease.Instant
	renewedAt     lease.Instant
	toldDead      uint64
	gossipProfile string
	poisoned      string        // why this incarnation was told to reset; empty: it was not
	resetAt       lease.Instant // when the deadman was last asked for a reset
	note          string        // of a reset that may come, as it lies on the disk; empty: none
	noting        bool          // it is being written or removed
	oldNote       bool          // the note of an older boot still lies there
	announceAt    []lease.Instant
	downNets      map[string]string // network -> why it is lost here
	version       uint64            // of what only this node knows; raised when it changes
}

// groupState is what this node knows of one group on itself.
type groupState struct {
	job        job // under way; empty: none
	generation uint64
	cancel     context.CancelFunc
	status     executor.Status // as last seen
	seenAt     lease.Instant
	sentence   string
	known      scheduler.LocalGroup // what this process has done with it; Seen, Busy and Tombstone are filled in for each pass
	stopSince  uint64               // of the stop under way
	watch      *watch               // monitors, while it is online here
	events     *groupRun            // of the job under way
	jobBegan   lease.Instant
	prepared   occasion // what this node has got ready for
	// swapSince is when an interface failed or came back since its addresses were looked at; 0: none did. swapAt: not before then.
	swapSince, swapAt lease.Instant
}

func (n *ownState) init(m *member) {
	n.groups, n.probing, n.reporting, n.downNets = map[string]*groupState{}, map[string]bool{}, map[string]bool{}, map[string]string{}
	n.started = m.clock.Now()
}

func (n *ownState) group(name string) *groupState {
	g := n.groups[name]
	if g == nil {
		g = &groupState{status: executor.Unknown}
		n.groups[name] = g
	}
	return g
}

// beginNode ends what an earlier agent has left under way, before anything is probed or reported (attack A8). It blocks the
// loop's first pass; the carriers do not wait for it.
func (m *member) beginNode(ctx context.Context) {
	m.work.Go(func() {
		orphans, err := m.runner.Recover(ctx)
		m.post(recoveredActions{orphans: len(orphans), err: err})
	})
}

type recoveredActions struct {
	orphans int
	err     error
}

func (m *member) gotRecovered(e recoveredActions) {
	if e.orphans > 0 {
		m.log.Warn("actions of an earlier agent were ended", "count", e.orphans)
	}
	if e.err != nil {
		// What could not be ended is blocked resource by resource: it is unknown, and is reported as nothing else.
		m.log.Error("actions of an earlier agent could not be ended", "error", e.err)
	}
	m.loop.node.recovered = true
}

func (m *member) endNode() {
	n := &m.loop.node
	for _, name := range sortedKeys(n.groups) {
		m.endWatch(n.groups[name])
		// Nobody is left who would see the lease run out: what is being released is finished, and waits for no command.
		n.groups[name].events.hurry()
	}
	if n.dm != nil {
		n.dm.Close()
	}
}

// The deadman's connection.

type (
	deadmanUp struct {
		dm   Deadman
		with deadman.Settings
	}
	deadmanDown struct{ dm Deadman }
	deadmanDone struct {
		dm  Deadman
		arm bool
		err error
		at  lease.Instant
	}
)

// keepDeadman holds the connection to the deadman, for ever: the deadman may be replaced under a running agent.
func (m *member) keepDeadman(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		with := m.lastSettings()
		dm, err := m.opt.ConnectDeadman(ctx, with)
		if err != nil {
			if !told {
				told = true
				m.log.Warn("the deadman cannot be reached: this node can hold no group", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-after(100 * time.Millisecond):
			}
			continue
		}
		told = false
		m.post(deadmanUp{dm, with})
		m.carryRequests(ctx, dm)
		m.post(deadmanDown{dm})
	}
}

func (m *member) gotDeadman(e deadmanUp) {
	n := &m.loop.node
	n.dm, n.dmBusy, n.dmSince, n.dmWith = e.dm, false, m.clock.Now(), e.with
	info := e.dm.Info()
	n.armed, n.dmWarnings = info.Armed, info.Warnings
	if n.armed {
		// Armed by an earlier agent: only requests made through this connection count.
		n.armedAt, n.armedWith = n.dmSince, n.dmWith.Params
		n.arming = armingName(info)
	}
	for _, w := range info.Warnings {
		m.log.Warn("deadman: " + w)
	}
	m.log.Info("connected to the deadman", "class", info.Class, "watchdog", info.Watchdog, "armed", info.Armed)
}

func (m *member) lostDeadman(e deadmanDown) {
	n := &m.loop.node
	if n.dm == e.dm {
		n.dm, n.dmBusy = nil, false
		m.log.Warn("the connection to the deadman is lost")
	}
}

// setArmed arms or disarms, beside the loop.
func (m *member) setArmed(arm bool) {
	n := &m.loop.node
	if n.dm == nil || n.dmBusy {
		return
	}
	n.dmBusy = true
	dm := n.dm
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, 5*time.Second)
		defer cancel()
		var err error
		if arm {
			err = dm.Arm(ctx)
		} else {
			err = dm.Disarm(ctx)
		}
		m.post(deadmanDone{dm: dm, arm: arm, err: err, at: m.clock.Now()})
	})
}

func (m *member) finishDeadman(e deadmanDone) {
	n := &m.loop.node
	if n.dm != e.dm {
		return
	}
	n.dmBusy = false
	if e.err != nil {
		m.log.Error("the deadman did not "+map[bool]string{true: "arm", false: "disarm"}[e.arm], "error", e.err)
		return
	}
	n.armed = e.arm
	if e.arm {
		n.armedAt, n.armedWith, n.arming = e.at, n.dmWith.Params, armingName(e.dm.Info())
		m.log.Info("the deadman is armed", "class", e.dm.Info().Class, "watchdog", e.dm.Info().Watchdog)
		return
	}
	m.log.Info("the deadman is disarmed")
}

// armingName names an arming so that an agent which comes later knows it again.
func armingName(i deadman.Info) string { return fmt.Sprintf("%d-%d-%d", i.Pid, i.Started, i.ArmedAt) }

// The lease, as the loop sees it.

func (m *member) gotGrant(e granted) {
	n := &m.loop.node
	now := m.clock.Now()
	if gap := now.Sub(n.lastContact); n.lastContact != 0 && gap > 3*m.params().Renew {
		m.log.Info("granted again after a gap", "gap", gap)
		n.announceAt = announcePlan(now)
	}
	n.lastContact, n.unknown = now, false
	if e.requested > n.requested {
		n.requested = e.requested
		m.locks.lease.Store(&leaseView{requested: n.requested, soft: n.softLimit(m)})
	}
	if e.grant.Newer(n.grant) {
		n.grant, n.listAt = e.grant, e.requested
	}
	m.noteContact()
}

// softLimit is L_soft of the arming in force.
func (n *ownState) softLimit(m *member) time.Duration {
	if n.armed {
		return n.armedWith.Soft
	}
	return m.params().Soft
}

// softExpired reports whether this node must let go of its groups: no grant for longer than L_soft. Before the first grant of
// an arming it counts from the arming.
func (n *ownState) softExpired(m *member, now lease.Instant) bool {
	if !n.armed {
		return false
	}
	return now.Sub(max(n.requested, n.armedAt)) >= n.softLimit(m)
}

// hearDead takes the leader's word that this incarnation is dead. What follows from it is in the log, which is on its way here;
// until then nothing is asked for.
func (m *member) hearDead(e heardDead) {
	if e.incarnation == m.loop.node.incarnation && m.loop.node.toldDead != e.incarnation {
		m.loop.node.toldDead = e.incarnation
		m.log.Warn("the cluster has declared this incarnation dead", "incarnation", e.incarnation, "proof", e.sentence)
	}
}

// announcePlan says when held addresses are announced again: at once, and some times after, because the switch or the
// neighbour may itself just come back.
func announcePlan(now lease.Instant) []lease.Instant {
	var out []lease.Instant
	for _, d := range []time.Duration{0, 200 * time.Millisecond, time.Second, 3 * time.Second} {
		out = append(out, now.Add(d))
	}
	return out
}

// Networks.

type gossipEvent struct{ gossip.Event }

func (m *member) gotGossip(e gossipEvent) {
	now := m.clock.Now()
	m.detMu.Lock()
	m.det.Hint(e.Node, e.Network, e.Up, now)
	m.detMu.Unlock()
	if e.Up {
		m.loop.node.announceAt = announcePlan(now)
	}
	m.log.Debug("gossip", "network", e.Network, "node", e.Node, "up", e.Up)
}

// tendRings makes the gossip rings those of the definition: one for each network on which this node has an address.
func (m *member) tendRings(d *cluster.Definition) {
	var rings []gossip.Ring
	if self := d.Node(m.name); self != nil {
		for _, w := range d.Networks {
			if a := self.Addresses[w.Name]; a != "" {
				rings = append(rings, gossip.Ring{Network: w.Name, Address: m.gossipAddress(a)})
			}
		}
	}
	running := m.gossip.Load()
	if running != nil && m.loop.node.gossipProfile == m.params().Profile {
		if err := running.SetRings(rings); err != nil {
			m.log.Warn("change the gossip rings", "error", err)
		}
		running.Refresh()
		return
	}
	if running != nil { // another profile has other times
		m.gossip.Store(nil)
		running.Close()
	}
	cfg := m.opt.Gossip
	cfg.Node, cfg.ClusterUUID, cfg.Rings, cfg.Logger = m.name, m.id.ClusterUUID, rings, m.log
	cfg.Members = m.gossipMembers
	cfg.OnHeard = func(network, node string) { m.heard(node, detector.GossipOn(network)) }
	var g *gossip.Gossip
	numbers := m.view().GossipKeyNumbers()
	keys, err := m.gossipKeys(numbers)
	if err != nil {
		m.log.Error("gossip does not run; heartbeats run on the other paths", "error", err)
		return
	}
	cfg.Key, cfg.OtherKeys, m.loop.keys.gossip = keys[0], keys[1:], numbers
	if cfg.Timing, err = gossip.TimingFor(m.params().Profile); err == nil {
		g, err = gossip.New(cfg)
	}
	if err != nil {
		m.log.Warn("gossip does not run; heartbeats run on the other paths", "error", err)
		return
	}
	m.loop.node.gossipProfile = m.params().Profile
	m.gossip.Store(g)
	m.work.Go(func() {
		for e := range g.Events() {
			m.post(gossipEvent{e})
		}
	})
}

func (m *member) gossipAddress(a string) string {
	return net.JoinHostPort(plainAddress(a), strconv.Itoa(m.opt.Node.GossipPort))
}

// gossipMembers lists who may be on a network's ring, by the newest definition.
func (m *member) gossipMembers(network string) map[string]string {
	out := map[string]string{}
	if d := m.view().Definition; d != nil {
		for i := range d.Nodes {
			if a := d.Nodes[i].Addresses[network]; a != "" {
				out[d.Nodes[i].Name] = m.gossipAddress(a)
			}
		}
	}
	return out
}
