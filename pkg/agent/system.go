package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// systemExecutors lists the executors that this daemon has: the one place where they are registered.
func systemExecutors(run *executor.Runner, look script.Look, log *slog.Logger) executor.Registry {
	return executor.NewRegistry(
		linux.NewServiceIP(linux.AddressOptions{Logger: log}),
		linux.NewPersistentIP(linux.AddressOptions{Logger: log}),
		linux.NewFileSystem(linux.FileSystemOptions{Runner: run, Logger: log}),
		script.New(script.Options{Runner: run, Look: look, Logger: log}),
	)
}

// lookAt asks an application's monitors once whether it runs.
func (a *Agent) lookAt(ctx context.Context, r executor.Resource) (executor.Status, string) {
	m := a.current()
	if m == nil || r.App == nil {
		return executor.Unknown, ""
	}
	d := m.view().Definition
	if d == nil {
		return executor.Unknown, ""
	}
	s, detail := monitor.Look(ctx, m.monitorConfig(d, r, 0, true))
	return executor.Status(s), detail
}

// tooLong raises config_too_long: a command has run for longer than it should.
func (a *Agent) tooLong(c executor.Command, elapsed time.Duration) {
	m := a.current()
	if m == nil {
		return
	}
	text := fmt.Sprintf("%s of %s has been running on node %s for %d seconds; please check", c.Op, c.Scope, m.name, int(elapsed.Seconds()))
	m.log.Warn("config_too_long", "what", text)
	m.submit(&state.Command{Note: &state.Note{Event: state.EventConfigTooLong, Node: m.name, Group: c.Scope.Group, Sentence: text}})
}

// blocked says why nothing may be done with a resource: an action of an earlier agent still runs on it.
func (m *member) blocked(r executor.Resource) error { return m.runner.Blocked(executor.ScopeOf(r)) }
