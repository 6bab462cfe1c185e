package agent

import (
	"context"
	"fmt"
	"maps"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// watch is the monitoring of one group's applications on this node, of the loop alone.
type watch struct {
	generation uint64
	suspended  bool   // by the operator: nothing is watched, so that nothing is touched
	failed     string // beyond its restarts, action fallover; the sentence
	apps       map[string]appStatus
	watchers   []*monitor.Watcher
}

// appEvent is what a monitor has seen, on its way to the loop.
type appEvent struct {
	group      string
	generation uint64
	event      monitor.Event
}

// beginWatch starts the monitors of a group that was started or adopted here.
func (m *member) beginWatch(view *state.State, group string, generation uint64, running bool) {
	g := m.loop.node.group(group)
	if g.watch != nil && g.watch.generation == generation {
		return
	}
	m.endWatch(g)
	w := &watch{generation: generation, suspended: suspended(view, group), apps: map[string]appStatus{}}
	g.watch = w
	t, err := m.target(view.Definition, group, generation)
	if err != nil {
		m.log.Error("a group's monitors cannot begin", "group", group, "error", err)
		return
	}
	for _, r := range t.resources {
		if r.App == nil || len(view.Definition.MonitorsOf(r.App)) == 0 {
			continue
		}
		if w.suspended {
			w.apps[r.App.Name] = appStatus{group: group, state: api.AppSuspended}
			continue
		}
		w.apps[r.App.Name] = appStatus{group: group, state: api.AppMonitored}
		w.watchers = append(w.watchers, monitor.Watch(m.loop.ctx, m.monitorConfig(view.Definition, r, generation, running)))
	}
}

// tendWatches ends the monitors of groups that the operator has suspended, and begins them again when they are resumed.
func (m *member) tendWatches(view *state.State) {
	n := &m.loop.node
	for _, name := range sortedKeys(n.groups) {
		g := n.groups[name]
		if g.watch == nil || g.watch.suspended == suspended(view, name) {
			continue
		}
		generation := g.watch.generation
		m.endWatch(g)
		m.beginWatch(view, name, generation, true)
		n.version++
	}
}

func suspended(view *state.State, group string) bool {
	g := view.Groups[group]
	return g != nil && g.Suspended
}

// monitorConfig gives a monitor hands: methods run by the command runner, restarts by the application's own executor.
func (m *member) monitorConfig(d *cluster.Definition, r executor.Resource, generation uint64, running bool) monitor.Config {
	c := monitor.Config{App: *r.App, Logger: m.log, Running: running,
		Report: func(e monitor.Event) { m.post(appEvent{group: r.Group, generation: generation, event: e}) },
		Run: func(ctx context.Context, method monitor.Method) monitor.Outcome {
			return m.runMethod(ctx, r, method)
		},
		Look: func(ctx context.Context, depth int) (monitor.State, string) {
			return m.lookAtAgent(ctx, r, depth)
		},
		Cleanup: func(ctx context.Context, method string) error {
			return m.restarter(ctx, generation, r, jobStop, func(ctx context.Context, x executor.Restarter) error {
				return x.Cleanup(ctx, r, method)
			})
		},
		Restart: func(ctx context.Context, method string) error {
			return m.restarter(ctx, generation, r, jobStart, func(ctx context.Context, x executor.Restarter) error {
				return x.Restart(ctx, r, method)
			})
		}}
	c.Monitors = d.MonitorsOf(r.App)
	return c
}

// lookAtAgent asks the executor of an application that an agent runs.
func (m *member) lookAtAgent(ctx context.Context, r executor.Resource, depth int) (monitor.State, string) {
	x := m.executors[r.Kind]
	if x == nil || r.App.Agent == "" {
		return monitor.StateUnknown, fmt.Sprintf("application %s has no agent that could be asked", r.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, m.limitOf(ctx, r, jobProbe))
	defer cancel()
	var res executor.Result
	if w, ok := x.(executor.Watcher); ok {
		res = w.Monitor(ctx, r, depth)
	} else {
		res = x.Probe(ctx, r)
	}
	m.met.ExecutorRun("method")
	return monitor.State(res.Status), sentenceOf(res)
}

// restarter lets the application's executor clean up or start again, bounded in time.
func (m *member) restarter(ctx context.Context, generation uint64, r executor.Resource, j job,
	do func(context.Context, executor.Restarter) error) error {
	x, ok := m.executors[r.Kind].(executor.Restarter)
	if !ok {
		return m.step(executor.WithGeneration(ctx, generation), r, j).Err
	}
	ctx, cancel := context.WithTimeout(executor.WithGeneration(ctx, generation), m.limitOf(ctx, r, j))
	defer cancel()
	err := do(ctx, x)
	m.met.ExecutorRun(string(r.Kind))
	if err != nil {
		m.met.ExecutorFailed(string(r.Kind))
	}
	return err
}

func (m *member) runMethod(ctx context.Context, r executor.Resource, method monitor.Method) monitor.Outcome {
	o := m.runner.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: method.Op, Path: method.Path, Args: method.Args,
		Timeout: method.Timeout, KillSignal: method.Signal, Unrecorded: method.Op == "monitor" || method.Op == "notify",
		Keep: method.Op == "restart", Env: []string{"HOLDFAST_GROUP=" + r.Group, "HOLDFAST_NODE=" + m.name, "HOLDFAST_RESOURCE=" + r.Name}})
	m.met.ExecutorRun("method")
	return monitor.Outcome{Exit: o.Exit, Hung: isTimeout(o.Err), Err: o.Err}
}

// gotAppEvent takes what a monitor has seen: into the history, and where the restarts are used up, into the log as a failure.
func (m *member) gotAppEvent(e appEvent) {
	g := m.loop.node.group(e.group)
	w := g.watch
	if w == nil || w.generation != e.generation || w.suspended {
		return
	}
	m.loop.node.version++
	s := w.apps[e.event.App]
	s.group, s.reason = e.group, e.event.Detail
	note := ""
	switch e.event.Kind {
	case monitor.Recovered:
		s.state, note = api.AppMonitored, "server_restart_complete"
	case monitor.Restarting:
		s.state, note = api.AppFailed, "server_restart"
		s.restarts++
	case monitor.Failed:
		s.state, note = api.AppFailed, "server_down"
		if e.event.Action == monitor.ActionFallover {
			w.failed, note = e.event.Detail, "" // the report makes the event
		}
	case monitor.Died, monitor.Hung, monitor.Unhealthy:
		s.state = api.AppFailed
	}
	w.apps[e.event.App] = s
	m.log.Info("monitor", "group", e.group, "application", e.event.App, "monitor", e.event.Monitor, "kind", e.event.Kind, "detail", e.event.Detail)
	if note != "" {
		m.submit(&state.Command{Note: &state.Note{Event: note, Node: m.name, Group: e.group,
			Sentence: fmt.Sprintf("application %s: %s", e.event.App, e.event.Detail)}})
	}
}

// endWatch stops the monitors, beside the loop: a restart that is at work is ended first.
func (m *member) endWatch(g *groupState) {
	w := g.watch
	g.watch = nil
	if w == nil {
		return
	}
	for _, watcher := range w.watchers {
		m.work.Go(watcher.Stop)
	}
}

func (w *watch) fill(out map[string]appStatus) {
	maps.Copy(out, w.apps)
}
