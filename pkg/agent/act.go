package agent

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// act.go carries out, beside the loop, what the node's own rule (scheduler.Local) says, and takes the results in. Each
// action may be asked for again on every pass: what is under way is not begun twice.

// beginJob starts a piece of work on a group, unless one is under way.
func (m *member) beginJob(view *state.State, group string, generation uint64, j job) {
	g := m.loop.node.group(group)
	if g.job != "" {
		return
	}
	t, err := m.target(view.Definition, group, generation)
	if err != nil {
		m.log.Error("a group cannot be worked on", "group", group, "error", err)
		return
	}
	if s := view.Group(group); s != nil {
		t.proof = s.Unreleased
	}
	ctx, cancel := context.WithCancel(m.loop.ctx)
	g.job, g.cancel, g.jobBegan = j, cancel, m.clock.Now()
	if j != jobProbe {
		g.generation = generation
		m.log.Info("work begins", "job", j, "group", group, "generation", generation)
	}
	var watchers []*monitor.Watcher
	if j == jobStop && g.watch != nil {
		// A restart by a monitor and a release must not meet: the release begins when the monitors have ended.
		watchers, g.watch = g.watch.watchers, nil
	}
	dm := m.loop.node.dm
	if j != jobProbe {
		t.events = m.events.groupRun(m.loop.ctx, t.definition, group)
		g.events = t.events
		m.hurryEvents(m.clock.Now())
	}
	m.work.Go(func() {
		defer cancel()
		for _, w := range watchers {
			w.Stop()
		}
		var d workDone
		switch j {
		case jobStart:
			d = m.startHeld(ctx, dm, t)
		case jobStop:
			// A release, once begun, is finished: the daemon's own end does not cut it short.
			d = m.stopGroup(context.WithoutCancel(ctx), t)
		default:
			d = m.probeGroup(ctx, t)
		}
		m.post(d)
	})
}

// hurryEvents lets no work on a group wait for commands once this node must let go.
func (m *member) hurryEvents(now lease.Instant) {
	n := &m.loop.node
	if !n.softExpired(m, now) && n.poisoned == "" {
		return
	}
	for _, g := range n.groups {
		g.events.hurry()
	}
}

// startHeld tells the deadman that this node holds something before the first step of a start: from then on it resets the
// node instead of disarming itself.
func (m *member) startHeld(ctx context.Context, dm Deadman, t target) workDone {
	err := errNoDeadman
	if dm != nil {
		err = dm.HoldsSomething(true)
	}
	if err == nil {
		return m.startGroup(ctx, t)
	}
	t.cleanup = true
	d := m.stopGroup(context.WithoutCancel(ctx), t)
	d.job = jobStart
	if d.outcome == state.OutcomeReleased {
		d.outcome = state.OutcomeAcquireFailed
	}
	d.sentence = "the deadman did not take note of the start: " + err.Error()
	return d
}

var errNoDeadman = errors.New("there is no connection to the deadman")

// cancelJob ends a start under way: it cleans up and reports as a failed acquisition.
func (m *member) cancelJob(group string) {
	if g := m.loop.node.groups[group]; g != nil && g.job == jobStart && g.cancel != nil {
		g.cancel()
	}
}

func (m *member) finishWork(d workDone) {
	g := m.loop.node.group(d.group)
	g.job, g.cancel, g.events = "", nil, nil
	g.status, g.seenAt = d.status, m.clock.Now()
	if d.sentence != "" {
		g.sentence = d.sentence
	}
	switch d.job {
	case jobProbe:
		return
	case jobChange:
		for _, net := range d.stuck {
			if _, down := m.loop.node.downNets[net]; !down && g.known.Started == d.generation && g.swapSince == 0 {
				g.swapSince = m.clock.Now()
				g.swapAt = g.swapSince.Add(swapPause) // with no interface left there would be nothing to try: the group moves
			}
		}
		return
	case jobStart:
		m.met.Phase("acquire", d.took)
		m.finishStart(g, d)
	case jobStop:
		m.met.Phase("release", d.took)
		m.finishStop(g, d)
	}
	m.log.Info("work done", "job", d.job, "group", d.group, "outcome", d.outcome, "took", d.took, "sentence", d.sentence)
}

func (m *member) finishStart(g *groupState, d workDone) {
	if d.outcome == state.OutcomeOnline {
		g.known.Started, g.known.StopFailed, g.known.Leaving = d.generation, false, false
		m.loop.node.announceAt = announcePlan(m.clock.Now())
		m.beginWatch(m.view(), d.group, d.generation, false)
		return
	}
	m.tellSystem("group " + d.group + " could not be acquired on node " + m.name + ": " + d.sentence)
	g.known.StartFailed, g.known.StartWhy, g.known.Started = d.generation, d.sentence, 0
}

func (m *member) finishStop(g *groupState, d workDone) {
	if d.outcome == state.OutcomeReleased {
		g.known = scheduler.LocalGroup{StartFailed: g.known.StartFailed, StartWhy: g.known.StartWhy}
		return
	}
	m.tellSystem("group " + d.group + " could not be released on node " + m.name + ": " + d.sentence)
	g.known.StopFailed, g.known.StopFailedSince, g.known.StopWhy, g.known.Started = true, g.stopSince, d.sentence, 0
}

// sendReport brings a report into the log; it is repeated by the rule until the view shows it.
func (m *member) sendReport(r *state.Report) {
	m.once("report/"+r.Group+"/"+string(r.Outcome), &state.Command{Report: r})
}

type reported struct{ key string }

// once sends one fact of this node to the leader, unless the same is under way.
func (m *member) once(key string, c *state.Command) {
	n := &m.loop.node
	if n.reporting[key] {
		return
	}
	n.reporting[key] = true
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, 2*time.Second)
		defer cancel()
		res, err := m.report(ctx, c)
		pause := time.Duration(0)
		switch {
		case err != nil:
			m.log.Debug("a fact did not get through; it is repeated while it matters", "fact", key, "error", err)
			pause = 50 * time.Millisecond
		case res.Refused != "":
			m.log.Info("a fact was refused", "fact", key, "why", res.Refused)
			pause = 300 * time.Millisecond
		default:
			m.await(ctx, res.Index)
		}
		if pause > 0 {
			select {
			case <-m.loop.ctx.Done():
			case <-after(pause):
			}
		}
		m.post(reported{key})
	})
}

// commitArmed brings this arming's fact into the log.
func (m *member) commitArmed(view *state.State) {
	n := &m.loop.node
	if n.dm == nil {
		return
	}
	m.proposeArmed(m.armedFact(view, n.dmWith))
}

// announce tells the networks again where the addresses held here are.
func (m *member) announce(view *state.State, now lease.Instant) {
	n := &m.loop.node
	due := false
	for len(n.announceAt) > 0 && n.announceAt[0] <= now {
		n.announceAt, due = n.announceAt[1:], true
	}
	if !due || view.Definition == nil {
		return
	}
	for _, name := range view.GroupNames() {
		if g := n.groups[name]; g == nil || g.job != "" || view.Instance(name, m.name).State != state.Online {
			continue
		}
		t, err := m.target(view.Definition, name, 0)
		if err != nil {
			continue
		}
		for _, r := range t.resources {
			a, ok := m.executors[r.Kind].(executor.Announcer)
			if !ok {
				continue
			}
			m.work.Go(func() {
				ctx, cancel := context.WithTimeout(m.loop.ctx, 5*time.Second)
				defer cancel()
				if err := a.Announce(ctx, r); err != nil {
					m.log.Warn("announce the address again", "resource", r.Name, "error", err)
				}
			})
		}
	}
}

// beginIntroduction makes the log know this boot.
func (m *member) beginIntroduction() {
	n := &m.loop.node
	now := m.clock.Now()
	if n.introducing || now < n.retryAt || n.dm == nil && now.Sub(n.started) < deadmanPatience {
		return
	}
	n.introducing = true
	former := m.formerEnd()
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, time.Minute)
		defer cancel()
		m.post(introduced{m.introduce(ctx, former, m.stopEverything)})
	})
}

type introduced struct{ err error }

func (m *member) gotIntroduced(e introduced) {
	n := &m.loop.node
	n.introducing = false
	n.retryAt = m.clock.Now().Add(100 * time.Millisecond)
	if e.err != nil {
		m.log.Debug("this boot is not known to the log yet", "error", e.err)
		return
	}
	n.unknown = false
	if n.dm != nil {
		m.urgentGrant.Store(true)
		n.dm.Renew()
	}
}

// stopEverything probes each group that the definition could give this node, stops what runs and writes its tombstone. It
// reports whether all was seen stopped.
func (m *member) stopEverything(ctx context.Context, d *cluster.Definition, generations map[string]uint64) bool {
	all := true
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		if !g.Has(m.name) {
			continue
		}
		t, err := m.target(d, g.Name, generations[g.Name])
		if err != nil {
			m.log.Error("a group cannot be probed", "group", g.Name, "error", err)
			all = false
			continue
		}
		if m.probeGroup(ctx, t).status == executor.Stopped {
			continue
		}
		m.log.Warn("found running at boot, and is stopped", "group", g.Name)
		if w := m.stopGroup(ctx, t); w.outcome != state.OutcomeReleased {
			m.log.Error("what was found at boot could not be stopped", "group", g.Name, "why", w.sentence)
			all = false
		}
	}
	return all
}

// resetNode ends this node: it must not hold what it may hold.
func (m *member) resetNode(reason string) {
	n := &m.loop.node
	now := m.clock.Now()
	if n.dm == nil || n.resetAt != 0 && now.Sub(n.resetAt) < time.Second {
		return
	}
	n.resetAt = now
	m.log.Error("this node resets", "reason", reason)
	dm, resets := n.dm, n.dm.Info().Mode == lease.ModeReset
	n.note = reason
	m.tellSystem("node " + m.name + " resets: " + reason)
	m.work.Go(func() {
		if resets { // in mode e the deadman only raises its event
			m.noteReset(reason)
		}
		if err := dm.Reset(); err != nil {
			m.log.Error("the deadman did not take the reset", "error", err)
		}
	})
}
