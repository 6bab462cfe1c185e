package agent

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// nodePass is one pass of this node's own side: it shows scheduler.Local what the node knows, and does what it says.
func (m *member) nodePass(view *state.State, now lease.Instant) {
	n := &m.loop.node
	m.endPoisoned()
	m.hurryEvents(now)
	if !n.recovered {
		return // nothing may be probed, reported or done before the orphans are ended (attack A8)
	}
	if n.dm != nil && !n.dmBusy {
		m.followDeadman()
		m.tendDeadman(view, now)
	}
	m.tendResetNote(now)
	if inc := m.incarnation(view); inc != 0 {
		n.incarnation = inc
	} else if (n.incarnation == 0 || n.unknown) && !n.working() {
		m.beginIntroduction()
	}
	m.events.take(m.loop.ctx, view, n.incarnation != 0)
	if n.introducing {
		return // it probes and stops by itself; one action per group at a time
	}
	m.tendEpoch(view)
	m.tendMemory(view)
	m.tendWatches(view)
	m.prepare(view)
	n.caughtUp = n.caughtUp || scheduler.CaughtUp(view, n.grant)
	for _, a := range scheduler.Local(view, m.name, n.grant, m.localView(now)) {
		m.doLocal(view, a)
	}
	m.tendSwaps(view, now)
	m.reportNetworks(view, now)
	m.announce(view, now)
}

// working reports whether any work on a group is under way.
func (n *ownState) working() bool {
	for _, g := range n.groups {
		if g.job != "" {
			return true
		}
	}
	return false
}

// followDeadman takes over what the deadman has done by itself: it disarms a node that has started nothing.
func (m *member) followDeadman() {
	n := &m.loop.node
	info := n.dm.Info()
	if info.Armed == n.armed {
		m.followTimeout(info)
		return
	}
	n.armed = info.Armed
	if info.Armed {
		n.armedAt, n.armedWith, n.arming = m.clock.Now(), n.dmWith.Params, armingName(info)
	}
	m.log.Info("the deadman has changed by itself", "armed", info.Armed)
}

// followTimeout commits a new Armed fact when the watchdog's timeout that counts has grown under an arming: nobody else holds
// the device's descriptor any more, so that the deadman's own death would pet once more (attack A2). Until it is committed the
// old fact stands; that is why the holder is started again at once, and why its loss is a warning.
func (m *member) followTimeout(info deadman.Info) {
	view := m.view()
	self := view.Node(m.name)
	if !info.Armed || self == nil || self.Armed == nil || self.Arming != m.loop.node.arming || info.Watchdog <= self.Armed.Watchdog {
		return
	}
	m.commitArmed(view)
}

func (m *member) localView(now lease.Instant) scheduler.LocalView {
	n := &m.loop.node
	v := scheduler.LocalView{BootID: m.bootID, Incarnation: n.incarnation, Armed: n.armed, Soft: n.softExpired(m, now),
		Isolated: n.cutOffGrant(), CaughtUp: n.caughtUp, Groups: map[string]scheduler.LocalGroup{}}
	if n.armed {
		v.Arming = n.arming
		if n.grant != nil && n.listAt > n.armedAt {
			v.GrantArming = n.arming
		}
	}
	for name, gen := range m.tombstones.Highest() {
		v.Groups[name] = scheduler.LocalGroup{Tombstone: gen}
	}
	for name, g := range n.groups {
		l := g.known
		l.Seen, l.Busy, l.Tombstone = seenOf(g), busyOf(g.job), v.Groups[name].Tombstone
		if g.watch != nil && g.watch.failed != "" {
			l.AppFailed, l.AppWhy = g.watch.generation, g.watch.failed
		}
		v.Groups[name] = l
	}
	return v
}

func busyOf(j job) scheduler.Busy {
	switch j {
	case jobProbe, jobChange:
		return scheduler.Probing
	case jobStart:
		return scheduler.Starting
	case jobStop:
		return scheduler.Stopping
	}
	return scheduler.Idle
}

func seenOf(g *groupState) scheduler.Seen {
	if g.seenAt == 0 || g.job != "" {
		return scheduler.NotProbed
	}
	switch g.status {
	case executor.Running:
		return scheduler.SeenRunning
	case executor.Stopped:
		return scheduler.SeenStopped
	case executor.Degraded:
		return scheduler.SeenPartly
	}
	return scheduler.SeenUnclear
}

// doLocal carries one action out, beside the loop.
func (m *member) doLocal(view *state.State, a scheduler.LocalAction) {
	n := &m.loop.node
	switch a.Kind {
	case scheduler.DoProbe:
		if seen := n.group(a.Group).seenAt; seen == 0 || m.clock.Now().Sub(seen) >= probePause {
			m.beginJob(view, a.Group, 0, jobProbe)
		}
	case scheduler.DoStart:
		m.beginJob(view, a.Group, a.Generation, jobStart)
	case scheduler.DoAdopt:
		m.adopt(view, a.Group, a.Generation)
	case scheduler.DoStop:
		m.stopLocal(view, a)
	case scheduler.DoUnmanage:
		m.letRun(a.Group)
	case scheduler.DoTombstone:
		m.writeTombstone(a.Group, a.Generation)
	case scheduler.DoReport:
		m.sendReport(&state.Report{Node: m.name, Incarnation: n.incarnation, Group: a.Group, Generation: a.Generation,
			Outcome: a.Outcome, Sentence: a.Reason, Applied: view.Index})
	case scheduler.DoArm:
		m.setArmed(true)
	case scheduler.DoDisarm:
		m.setArmed(false)
	case scheduler.DoProposeArmed:
		m.commitArmed(view)
	case scheduler.DoTellDisarmed:
		m.once("disarmed/"+a.Arming, &state.Command{Disarmed: &state.Disarmed{Node: m.name, Incarnation: n.incarnation, Arming: a.Arming}})
	case scheduler.DoRequestGrant:
		if now := m.clock.Now(); n.dm != nil && now.Sub(n.renewedAt) > renewPause {
			n.renewedAt = now
			m.urgentGrant.Store(true)
			n.dm.Renew()
		}
	case scheduler.DoNewLife:
		m.beginNewLife(a.Reason)
	case scheduler.DoReset:
		m.resetNode(a.Reason)
	}
}

// probePause is the least time between two looks at a group of which the first did not say enough: its end wakes the loop, which
// would look again at once, and for ever.
const probePause = 500 * time.Millisecond

// renewPause is the least time between two requests out of turn.
const renewPause = 30 * time.Millisecond

// stopLocal stops a group, or first cancels its start.
func (m *member) stopLocal(view *state.State, a scheduler.LocalAction) {
	g := m.loop.node.group(a.Group)
	switch g.job {
	case jobStart:
		m.cancelJob(a.Group)
		return
	case "":
	default:
		return
	}
	if a.Foreign {
		m.log.Error(a.Reason, "group", a.Group)
		m.submit(&state.Command{Note: &state.Note{Event: state.EventForeignResource, Node: m.name, Group: a.Group, Sentence: a.Reason}})
	}
	g.stopSince = a.Since
	if a.Since == 0 {
		g.known.Leaving = true
	}
	m.beginJob(view, a.Group, a.Generation, jobStop)
}

// adopt takes what runs here as started: its monitors begin.
func (m *member) adopt(view *state.State, group string, generation uint64) {
	g := m.loop.node.group(group)
	if g.job != "" {
		return
	}
	m.log.Info("adopted", "group", group, "generation", generation)
	g.known.Started = generation
	if len(m.nics.get().failed) > 0 {
		g.swapSince = m.clock.Now() // while nobody looked an interface has failed
	}
	m.beginWatch(view, group, generation, true)
	m.loop.node.announceAt = announcePlan(m.clock.Now())
	m.holds()
}

// holds tells the deadman that this node holds something, beside the loop.
func (m *member) holds() {
	if dm := m.loop.node.dm; dm != nil {
		m.work.Go(func() {
			if err := dm.HoldsSomething(true); err != nil {
				m.log.Warn("the deadman did not take note of what is held", "error", err)
			}
		})
	}
}

// letRun ends the care for a group that was taken out of the cluster's hands.
func (m *member) letRun(group string) {
	g := m.loop.node.group(group)
	m.endWatch(g)
	g.known.Started, g.seenAt = 0, 0
}

// writeTombstone stores the promise never to start the generation again.
func (m *member) writeTombstone(group string, generation uint64) {
	n := &m.loop.node
	key := "tombstone/" + group
	if n.reporting[key] {
		return
	}
	n.reporting[key] = true
	m.work.Go(func() {
		if err := m.tombstones.Write(group, generation); err != nil {
			m.log.Error("the promise not to start a group again cannot be stored", "group", group, "error", err)
		}
		m.post(reported{key})
	})
}

// beginNewLife lets this boot come back as a new incarnation.
func (m *member) beginNewLife(reason string) {
	n := &m.loop.node
	m.log.Info("this boot begins a new life", "why", reason)
	if err := m.newLife(); err != nil {
		m.a.fail(err)
		return
	}
	n.incarnation, n.unknown, n.grant, n.poisoned = 0, false, nil, ""
	for _, g := range n.groups {
		g.known = scheduler.LocalGroup{}
	}
}
