package agent

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/aix"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// linkWatch reports how this machine's network interfaces are.
type linkWatch func(context.Context) (<-chan linux.LinkEvent, error)

// systemExecutors lists the executors that this daemon has: the one place where they are registered. With them comes the watcher
// of the same system's interfaces.
func systemExecutors(node *config.Node, run *executor.Runner, look script.Look, log *slog.Logger) (executor.Registry, linkWatch) {
	if node.System == config.SystemAIX || node.System == "" && runtime.GOOS == config.SystemAIX {
		sys := aix.New(aix.Options{Runner: run, CommandDir: node.CommandDir, Logger: log})
		list := append(sys.Executors(), script.New(script.Options{Runner: run, Look: look, Logger: log}))
		return executor.NewRegistry(list...), func(ctx context.Context) (<-chan linux.LinkEvent, error) { return aixLinks(ctx, sys) }
	}
	return linuxExecutors(run, look, log), linux.WatchLinks
}

// aixLinks passes on what AIX's watcher sees.
func aixLinks(ctx context.Context, sys *aix.System) (<-chan linux.LinkEvent, error) {
	in, err := sys.WatchLinks(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan linux.LinkEvent)
	go func() {
		defer close(out)
		for e := range in {
			select {
			case out <- linux.LinkEvent(e):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func linuxExecutors(run *executor.Runner, look script.Look, log *slog.Logger) executor.Registry {
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
