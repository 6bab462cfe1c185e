package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The work on one group: start, stop, probe. Each runs in a goroutine of its own, one at a time per group, and comes back to
// the loop as a workDone. It does what it was told and reports what it saw; whether it may act was decided before.

const (
	stepTimeout  = 30 * time.Second // for a resource that brings no timeout of its own
	probeLimit   = 10 * time.Second
	checkTimeout = 30 * time.Minute // a file system's check may take long; config_too_long is raised meanwhile
	// A volume group with many disks, some of which do not answer, takes minutes to vary on; config_too_long is raised meanwhile.
	varyonTimeout = 15 * time.Minute
	stepSlack     = 15 * time.Second // beyond a resource's own timeout, for killing and looking
)

// job is a piece of work on a group.
type job string

const (
	jobProbe job = "probe"
	jobStart job = "start"
	jobStop  job = "stop"
)

// workDone is a job's end.
type workDone struct {
	group      string
	generation uint64
	job        job
	outcome    state.Outcome   // for start and stop
	status     executor.Status // of the group as a whole, as seen last
	sentence   string
	resources  map[string]executor.Result
	took       time.Duration
	cancelled  bool
	stuck      []string // of a change: networks whose addresses are still on interfaces that have failed
}

// target is a group as the work sees it: values, so that a change of the definition does not reach a job under way.
type target struct {
	group      string
	generation uint64
	resources  []executor.Resource
	sequential bool // file systems are mounted one after another
	definition *cluster.Definition
	proof      string // that the last holder is gone, which did not release it; empty: nothing is known
	events     *groupRun
	cleanup    bool // it is stopped because its start failed: no release of its own in the eyes of the commands
}

func (m *member) target(d *cluster.Definition, group string, generation uint64) (target, error) {
	t := target{group: group, generation: generation, definition: d}
	g := d.Group(group)
	if g == nil {
		return t, fmt.Errorf("group %s is not defined", group)
	}
	var err error
	t.resources, err = resourcesOf(d, g, m.name)
	for i := range t.resources {
		t.resources[i] = m.withNICs(t.resources[i])
	}
	t.sequential = g.RecoveryMethod == cluster.RecoverSequentially
	return t, err
}

// startGroup acquires the resources in order, stage by stage. What runs already is adopted. When one fails, all that may be there
// is stopped again: from the report of a failed acquisition the group may start elsewhere, so it is made only when everything was seen
// stopped and the tombstone is written.
func (m *member) startGroup(ctx context.Context, t target) workDone {
	began := m.clock.Now()
	ctx = executor.WithGeneration(ctx, t.generation)
	if t.proof != "" {
		ctx = executor.WithProof(ctx, t.proof)
	}
	if why := m.heldByGlass(ctx.Done(), t.group); why != "" {
		return m.undoStart(ctx, t, began, why)
	}
	if err := t.events.around(ctx, "rg_move_acquire", "", false, func() error { return m.acquireStages(ctx, t) }); err != nil {
		return m.undoStart(ctx, t, began, err.Error())
	}
	return workDone{group: t.group, generation: t.generation, job: jobStart, outcome: state.OutcomeOnline, status: executor.Running,
		sentence: fmt.Sprintf("group %s is online on node %s", t.group, m.name), took: m.clock.Now().Sub(began)}
}

// acquireStages acquires the resources, until one fails.
func (m *member) acquireStages(ctx context.Context, t target) error {
	for _, stage := range stages(t.resources, t.sequential) {
		results := sideBySide(stage, func(r executor.Resource) executor.Result {
			return m.asEvent(ctx, t, r, jobStart, executor.Running, func() executor.Result { return m.startResource(ctx, t, r) })
		})
		at := slices.IndexFunc(results, func(res executor.Result) bool { return res.Err != nil || res.Status != executor.Running })
		if at >= 0 {
			return fmt.Errorf("%s %s could not be acquired: %s", stage[at].Kind, stage[at].Name, sentenceOf(results[at]))
		}
	}
	return nil
}

// undoStart cleans up after a start that failed, and says why it did. The clean-up must happen even when the start was cancelled.
func (m *member) undoStart(ctx context.Context, t target, began lease.Instant, why string) workDone {
	t.cleanup = true
	d := m.stopGroup(context.WithoutCancel(ctx), t)
	d.job, d.cancelled = jobStart, ctx.Err() != nil
	d.took = m.clock.Now().Sub(began)
	if d.outcome == state.OutcomeReleased {
		d.outcome, d.sentence = state.OutcomeAcquireFailed, why
	} else {
		d.sentence = why + "; and then " + d.sentence
	}
	return d
}

// startResource starts one resource. An application's startup monitors are asked before, whether it is up already, and after,
// whether it has come up.
func (m *member) startResource(ctx context.Context, t target, r executor.Resource) executor.Result {
	if r.App == nil || len(r.App.Monitors) == 0 || t.definition == nil {
		return m.step(ctx, r, jobStart)
	}
	c := m.monitorConfig(t.definition, r, t.generation, false)
	if err := m.blocked(r); err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	if up, why := monitor.AlreadyUp(ctx, c); up {
		return executor.Result{Status: executor.Running, Detail: why}
	}
	res := m.step(ctx, r, jobStart)
	if res.Err != nil {
		return res
	}
	if err := monitor.AwaitStartup(ctx, c); err != nil {
		return executor.Result{Status: executor.Degraded, Err: err}
	}
	return res
}

// isTimeout reports whether a command was ended because its time was over.
func isTimeout(err error) bool { return errors.Is(err, executor.ErrTimeout) }

// stopGroup releases the resources in reverse order, and reports released only when it has seen all of them stopped and the
// tombstone is on disk: a release is a promise (attack A7).
func (m *member) stopGroup(ctx context.Context, t target) workDone {
	began := m.clock.Now()
	ctx = executor.WithGeneration(ctx, t.generation)
	d := workDone{group: t.group, generation: t.generation, job: jobStop}
	d.status = executor.Unknown
	release := func() error { return m.releaseStages(ctx, t, &d.status) }
	var why error
	if t.cleanup {
		why = release()
	} else {
		why = t.events.around(ctx, "rg_move_release", "", false, release)
	}
	if why == nil {
		why = m.events.ended(t.group) // what a command still does is unknown
	}
	if why != nil {
		d.outcome, d.sentence, d.took = state.OutcomeReleaseFailed, why.Error(), m.clock.Now().Sub(began)
		return d
	}
	if p := m.probeGroup(ctx, t); p.status != executor.Stopped {
		p.job, p.outcome = jobStop, state.OutcomeReleaseFailed
		p.sentence = "after the release: " + p.sentence
		return p
	}
	d.took = m.clock.Now().Sub(began)
	if err := m.tombstones.Write(t.group, t.generation); err != nil {
		d.outcome, d.status = state.OutcomeReleaseFailed, executor.Stopped
		d.sentence = fmt.Sprintf("group %s is stopped, but the promise not to start it again cannot be stored: %v", t.group, err)
		return d
	}
	d.outcome, d.status = state.OutcomeReleased, executor.Stopped
	d.sentence = fmt.Sprintf("group %s is released on node %s", t.group, m.name)
	return d
}

// releaseStages releases the resources, until one fails; status is that one's then.
func (m *member) releaseStages(ctx context.Context, t target, status *executor.Status) error {
	for _, stage := range slices.Backward(stages(t.resources, t.sequential)) {
		results := sideBySide(stage, func(r executor.Resource) executor.Result {
			return m.asEvent(ctx, t, r, jobStop, executor.Stopped, func() executor.Result { return m.step(ctx, r, jobStop) })
		})
		at := slices.IndexFunc(results, func(res executor.Result) bool { return res.Err != nil || res.Status != executor.Stopped })
		if at >= 0 { // what lies below a resource that still runs must not be taken away from under it
			*status = results[at].Status
			return fmt.Errorf("%s %s could not be released: %s", stage[at].Kind, stage[at].Name, sentenceOf(results[at]))
		}
	}
	return nil
}

// probeGroup looks at each resource. The whole is stopped only if all are seen stopped, running only if all run; unknown
// wins over everything.
func (m *member) probeGroup(ctx context.Context, t target) workDone {
	d := workDone{group: t.group, generation: t.generation, job: jobProbe, resources: map[string]executor.Result{}}
	var running, stopped, other, unknown int
	if m.events != nil {
		if err := m.runner.Blocked(commandScope(t.group)); err != nil {
			unknown++
			d.sentence = "a command of an earlier daemon around an event is still at work: " + err.Error()
		}
	}
	results := sideBySide(t.resources, func(r executor.Resource) executor.Result { return m.step(ctx, r, jobProbe) })
	for i, r := range t.resources {
		res := results[i]
		d.resources[string(r.Kind)+" "+r.Name] = res
		switch res.Status {
		case executor.Running:
			running++
		case executor.Stopped:
			stopped++
		case executor.Degraded:
			other++
			d.sentence = fmt.Sprintf("%s %s is degraded: %s", r.Kind, r.Name, sentenceOf(res))
		default:
			unknown++
			d.sentence = fmt.Sprintf("%s %s cannot be seen: %s", r.Kind, r.Name, sentenceOf(res))
		}
	}
	switch {
	case unknown > 0:
		d.status = executor.Unknown
	case stopped == len(t.resources):
		d.status = executor.Stopped
	case running == len(t.resources):
		d.status = executor.Running
	default:
		d.status = executor.Degraded
		if d.sentence == "" {
			d.sentence = fmt.Sprintf("%d of %d resources run", running, len(t.resources))
		}
	}
	return d
}

// step does one thing with one resource, bounded in time.
func (m *member) step(ctx context.Context, r executor.Resource, j job) executor.Result {
	e := m.executors[r.Kind]
	if e == nil {
		return executor.Result{Status: executor.Unknown, Err: fmt.Errorf("no executor for %s on this system", r.Kind)}
	}
	if err := m.blocked(r); err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, m.limitOf(ctx, r, j))
	defer cancel()
	began := m.clock.Now()
	var res executor.Result
	switch j {
	case jobProbe:
		return e.Probe(ctx, r)
	case jobStart:
		res = e.Start(ctx, r)
	default:
		res = e.Stop(ctx, r)
	}
	took := m.clock.Now().Sub(began)
	m.met.ExecutorRun(string(r.Kind))
	if res.Err != nil {
		m.met.ExecutorFailed(string(r.Kind))
		m.log.Warn(string(j)+" failed", "kind", r.Kind, "resource", r.Name, "group", r.Group, "took", took, "status", res.Status, "error", res.Err)
	} else {
		m.log.Info(string(j), "kind", r.Kind, "resource", r.Name, "group", r.Group, "took", took, "detail", res.Detail)
	}
	return res
}

// limitOf is how long a step may take: what its executor knows of it, else what the definition says.
func (m *member) limitOf(ctx context.Context, r executor.Resource, j job) time.Duration {
	x, ok := m.executors[r.Kind].(executor.Timed)
	if !ok {
		return limitOf(r, j)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	op := map[job]string{jobProbe: executor.OpProbe, jobStart: executor.OpStart}[j]
	if op == "" {
		op = executor.OpStop
	}
	if d := x.Limit(ctx, r, op); d > 0 {
		return max(d+stepSlack, limitOf(r, j))
	}
	return limitOf(r, j)
}

func limitOf(r executor.Resource, j job) time.Duration {
	if j == jobProbe {
		return probeLimit
	}
	d := stepTimeout
	switch {
	case r.App != nil && j == jobStart && r.App.StartTimeout > 0:
		d = r.App.StartTimeout
	case r.App != nil && j == jobStop && r.App.StopTimeout > 0:
		d = r.App.StopTimeout
	case r.App != nil:
		d = time.Minute
	case r.VolumeGroup != nil && j == jobStart:
		d = varyonTimeout
	case r.FileSystem != nil && j == jobStart:
		d = checkTimeout
	case r.FileSystem != nil && r.FileSystem.StopTimeout > d:
		d = r.FileSystem.StopTimeout
	}
	return d + stepSlack
}

func sentenceOf(r executor.Result) string {
	switch {
	case r.Err != nil && r.Detail != "" && !errors.Is(r.Err, context.Canceled):
		return r.Err.Error()
	case r.Err != nil:
		return r.Err.Error()
	case r.Detail != "":
		return r.Detail
	}
	return string(r.Status)
}
