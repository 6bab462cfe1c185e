package sim

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The work on groups (pkg/agent act.go and work.go), and what the executors do on the machine.

// unit is the resources of one group on one machine, as they really are.
type unit struct {
	state  unitState
	gen    uint64
	action *action // under way: of the agent that lives, or an orphan
}

type unitState int

const (
	stopped unitState = iota
	partly            // some of it is there
	running
)

// action is one run of an executor's children. They do not stop with the agent.
type action struct {
	stuck bool // in the kernel: no signal ends it
	over  bool
}

// execFaults are what is wrong with a node's executors now.
type execFaults struct {
	startFails, stopFails, unclear, stuck float64 // chances
	hangs                                 bool
	slow                                  time.Duration
}

const (
	stepTimeout = 6 * time.Second
	lateResidue = 500 * time.Millisecond
)

func (m *machine) unit(group string) *unit {
	u := m.units[group]
	if u == nil {
		u = &unit{}
		m.units[group] = u
	}
	return u
}

// run lets an action's children work. fails and hangs are chances; effect happens at its end if nothing ended it before; done is
// told the outcome, if the agent still lives: empty for success.
func (a *agent) run(u *unit, kind string, fails float64, effect func(), done func(err string)) (cancel func()) {
	w, m := a.w, a.m
	x := &action{}
	u.action = x
	finish := func(err string) {
		w.post(a.p, w.soon(), kind+" ended", func() { done(err) })
	}
	end := func() {
		x.over = true
		if u.action == x {
			u.action = nil
		}
	}
	kill := func(err string) {
		if x.over {
			return
		}
		if x.stuck = x.stuck || w.chance(a.n.exec.stuck); x.stuck {
			finish(err + ", and its processes do not end")
			w.post(m.kernel, w.between(time.Second, 20*time.Second), "leaves the kernel", end)
			return
		}
		w.post(m.kernel, w.between(time.Millisecond, 8*time.Millisecond), "killed", func() {
			if !x.over {
				end()
				finish(err)
			}
		})
	}
	d := w.between(time.Millisecond, 120*time.Millisecond)
	if a.n.exec.slow > 0 {
		d += w.between(0, a.n.exec.slow)
	}
	if a.n.exec.hangs && w.chance(0.5) {
		w.post(a.p, stepTimeout, "timeout", func() { kill("it hung and was killed") })
		return func() { kill("cancelled") }
	}
	failed := w.chance(fails)
	w.post(m.kernel, d, kind, func() {
		if x.over {
			return
		}
		end()
		if failed {
			finish("it failed")
			return
		}
		effect()
		finish("")
	})
	return func() { kill("cancelled") }
}

// begin takes a step towards running.
func (a *agent) begin(group string, gen uint64) *unit {
	u := a.m.unit(group)
	if u.state == stopped {
		u.state = partly
	}
	u.gen = gen
	return u
}

// workDone is a job's end (work.go).
type workDone struct {
	job      scheduler.Busy
	start    bool // the job was a start
	outcome  state.Outcome
	seen     scheduler.Seen
	sentence string
}

// beginJob starts a piece of work on a group, unless one is under way (act.go).
func (a *agent) beginJob(v *state.State, group string, gen uint64, j scheduler.Busy) {
	g := a.group(group)
	if g.job != "" || v.Definition.Group(group) == nil {
		return
	}
	g.job, g.unwanted = j, false
	g.cancel = func() { g.unwanted = true }
	if j != scheduler.Probing {
		g.generation = gen
	}
	finish := func(d workDone) { a.mail(func() { a.finishWork(group, gen, d) }) }
	a.w.post(a.p, a.w.soon(), "job", func() {
		switch j {
		case scheduler.Starting:
			a.startHeld(group, gen, finish)
		case scheduler.Stopping:
			a.stopGroup(group, gen, finish)
		default:
			a.probeGroup(group, finish)
		}
	})
}

// startHeld tells the deadman that this node holds something before the first step of a start.
func (a *agent) startHeld(group string, gen uint64, done func(workDone)) {
	failed := func(err string) {
		a.stopGroup(group, gen, func(d workDone) {
			d.start = true
			if d.outcome == state.OutcomeReleased {
				d.outcome = state.OutcomeAcquireFailed
			}
			d.sentence = err
			done(d)
		})
	}
	if a.dm == nil {
		failed("there is no connection to the deadman")
		return
	}
	a.dm.call(wire.Message{Kind: wire.Holds, Started: true}, func(err string) {
		if err != "" && !a.w.bug.is(BugLateArming) {
			failed("the deadman did not take note: " + err)
			return
		}
		a.w.trap(a.n, "start")
		if a.w.bug.is(BugLateArming) && !a.armed {
			a.w.post(a.p, a.w.soon(), "arm late", func() { a.setArmed(true) })
		}
		a.w.post(a.p, a.w.soon(), "start", func() { a.startGroup(group, gen, done) })
	})
}

func (a *agent) startGroup(group string, gen uint64, done func(workDone)) {
	u := a.m.unit(group)
	failed := func(err string) {
		a.stopGroup(group, gen, func(d workDone) {
			d.start = true
			if d.outcome == state.OutcomeReleased {
				d.outcome = state.OutcomeAcquireFailed
			}
			d.sentence = err
			done(d)
		})
	}
	if u.action != nil {
		failed("an action of an earlier agent still runs")
		return
	}
	if a.group(group).unwanted {
		failed("cancelled")
		return
	}
	a.w.truth.begin(a.m, group, gen, "start")
	u = a.begin(group, gen)
	a.group(group).cancel = a.run(u, "start", a.n.exec.startFails, func() { u.state = running }, func(err string) {
		if err != "" {
			failed(err)
			return
		}
		done(workDone{start: true, outcome: state.OutcomeOnline, seen: scheduler.SeenRunning})
	})
}

// stopGroup releases, and says released only when all was seen stopped and the tombstone is on the disk.
func (a *agent) stopGroup(group string, gen uint64, done func(workDone)) {
	u := a.m.unit(group)
	failed := func(err string) {
		done(workDone{outcome: state.OutcomeReleaseFailed, seen: scheduler.SeenUnclear, sentence: err})
	}
	if u.action != nil {
		failed("an action still runs")
		return
	}
	fails := a.n.exec.stopFails
	if u.state == stopped {
		fails = 0
	}
	a.w.trap(a.n, "stop")
	a.run(u, "stop", fails, func() {
		u.state = stopped
		a.w.truth.end(a.m, group)
	}, func(err string) {
		if err != "" {
			failed(err)
			return
		}
		a.probeGroup(group, func(p workDone) {
			if p.seen != scheduler.SeenStopped {
				p.outcome, p.sentence = state.OutcomeReleaseFailed, "after the release it is not seen stopped"
				done(p)
				return
			}
			if !a.tombstone(group, gen) {
				p.outcome, p.sentence = state.OutcomeReleaseFailed, "the tombstone cannot be stored"
				done(p)
				return
			}
			p.outcome, p.sentence = state.OutcomeReleased, ""
			done(p)
		})
	})
}

// tombstone writes durably.
func (a *agent) tombstone(group string, gen uint64) bool {
	d := &a.n.disk
	if d.full {
		return false
	}
	if d.tombstones[group] < gen {
		d.tombstones[group] = gen
	}
	return true
}

func (a *agent) writeTombstone(group string, gen uint64) {
	key := "tombstone/" + group
	if a.reporting[key] {
		return
	}
	a.reporting[key] = true
	a.w.post(a.p, a.w.soon(), "tombstone", func() {
		pause := time.Duration(0)
		if !a.tombstone(group, gen) {
			pause = 300 * time.Millisecond // a disk that is full must not make the loop spin
		}
		a.w.post(a.p, pause, "tombstone", func() { a.mail(func() { delete(a.reporting, key) }) })
	})
}

func (a *agent) probeGroup(group string, done func(workDone)) {
	a.w.post(a.p, a.w.between(200*time.Microsecond, 4*time.Millisecond), "probe", func() {
		u := a.m.unit(group)
		d := workDone{job: scheduler.Probing}
		switch {
		case u.action != nil || a.w.chance(a.n.exec.unclear):
			d.seen = scheduler.SeenUnclear
		case u.state == stopped:
			d.seen = scheduler.SeenStopped
		case u.state == running:
			d.seen = scheduler.SeenRunning
		default:
			d.seen = scheduler.SeenPartly
		}
		done(d)
	})
}

func (a *agent) finishWork(group string, gen uint64, d workDone) {
	g := a.group(group)
	j := g.job
	g.job, g.cancel = "", nil
	g.seen, g.seenAt = d.seen, a.now()
	a.wake()
	switch {
	case j == scheduler.Probing:
		return
	case d.start && d.outcome == state.OutcomeOnline:
		g.known.Started, g.known.StopFailed, g.known.Leaving = gen, false, false
		g.appFailed = 0
	case d.start:
		g.known.StartFailed, g.known.StartWhy, g.known.Started = gen, d.sentence, 0
	case d.outcome == state.OutcomeReleased:
		g.known = scheduler.LocalGroup{StartFailed: g.known.StartFailed, StartWhy: g.known.StartWhy}
	default:
		g.known.StopFailed, g.known.StopFailedSince, g.known.StopWhy, g.known.Started = true, g.stopSince, d.sentence, 0
	}
	a.w.note("work done", a.name, "%s gen %d %s %s", group, gen, d.outcome, d.sentence)
}

// stopLocal stops a group, or first cancels its start (nodepass.go).
func (a *agent) stopLocal(v *state.State, x scheduler.LocalAction) {
	g := a.group(x.Group)
	switch g.job {
	case scheduler.Starting:
		if g.cancel != nil {
			g.cancel()
		}
		return
	case "":
	default:
		return
	}
	if x.Foreign {
		a.submit(&state.Command{Note: &state.Note{Event: state.EventForeignResource, Node: a.name, Group: x.Group, Sentence: x.Reason}})
	}
	g.stopSince = x.Since
	if x.Since == 0 {
		g.known.Leaving = true
	}
	a.beginJob(v, x.Group, x.Generation, scheduler.Stopping)
}

func (a *agent) submit(c *state.Command) { a.report(c, 3*time.Second, func(state.Result, bool) {}) }

func (a *agent) adopt(group string, gen uint64) {
	g := a.group(group)
	if g.job != "" {
		return
	}
	g.known.Started = gen
	g.appFailed = 0
	a.m.unit(group).gen = gen
	a.w.truth.begin(a.m, group, gen, "adoption")
	if a.dm != nil {
		a.dm.call(wire.Message{Kind: wire.Holds, Started: true}, func(string) {})
	}
}

// recoverActions ends what an earlier agent has left under way (attack A8).
func (a *agent) recoverActions(done func()) {
	w, left := a.w, 0
	for _, name := range sortedKeys(a.m.units) {
		u := a.m.units[name]
		x := u.action
		if x == nil || x.over {
			continue
		}
		w.stats.Orphans++
		if x.stuck || w.chance(a.n.exec.stuck) {
			x.stuck = true
			w.post(a.m.kernel, w.between(time.Second, 20*time.Second), "leaves the kernel", func() {
				x.over = true
				if u.action == x {
					u.action = nil
				}
			})
			continue
		}
		left++
		w.post(a.m.kernel, w.between(time.Millisecond, 20*time.Millisecond), "orphan killed", func() {
			x.over = true
			if u.action == x {
				u.action = nil
			}
		})
	}
	w.post(a.p, 25*time.Millisecond, "recovered", done)
}

// stopEverything probes each group that the definition could give this node, and stops what it finds (act.go).
func (a *agent) stopEverything(d *cluster.Definition, gens map[string]uint64, done func(bool)) {
	var names []string
	for i := range d.ResourceGroups {
		if g := &d.ResourceGroups[i]; g.Has(a.name) {
			names = append(names, g.Name)
		}
	}
	all := true
	var next func(i int)
	next = func(i int) {
		if i == len(names) {
			done(all)
			return
		}
		a.probeGroup(names[i], func(p workDone) {
			if p.seen == scheduler.SeenStopped {
				next(i + 1)
				return
			}
			a.stopGroup(names[i], gens[names[i]], func(w workDone) {
				all = all && w.outcome == state.OutcomeReleased
				next(i + 1)
			})
		})
	}
	next(0)
}
