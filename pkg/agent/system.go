package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/aix"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/executor/ocf"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
	"github.com/holdfast-ha/holdfast/pkg/executor/systemd"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// hands are what the agent does to its own machine with, by the operating system.
type hands struct {
	executors executor.Registry
	links     func(context.Context) (<-chan linux.LinkEvent, error)
	ask       func(ctx context.Context, name string, targets []netip.Addr, wait time.Duration) (bool, error)
	steer     func(names []string, detours []linux.Detour) error
	errorLog  func(ctx context.Context, text string) error // nil: the system has none of its own
}

// systemHands lists the executors that this daemon has: the one place where they are registered.
func systemHands(node *config.Node, run *executor.Runner, look script.Look, log *slog.Logger) hands {
	if node.System == config.SystemAIX || node.System == "" && runtime.GOOS == config.SystemAIX {
		sys := aix.New(aix.Options{Runner: run, CommandDir: node.CommandDir, Logger: log})
		list := append(sys.Executors(), script.New(script.Options{Runner: run, Look: look, Logger: log}))
		return hands{executors: executor.NewRegistry(list...), errorLog: sys.LogError, links: sys.WatchLinks}
	}
	return hands{executors: linuxExecutors(run, look, log), links: linux.WatchLinks, ask: linux.Ask, steer: linux.NewSteerer(log).Steer}
}

// tellSystem writes a line into the system's own error log, where it has one.
func (m *member) tellSystem(text string) {
	write := m.opt.SystemLog
	if write == nil {
		return
	}
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, 10*time.Second)
		defer cancel()
		if err := write(ctx, "holdfast: "+text); err != nil {
			m.log.Warn("the system's error log was not written to", "text", text, "error", err)
		}
	})
}

func linuxExecutors(run *executor.Runner, look script.Look, log *slog.Logger) executor.Registry {
	return executor.NewRegistry(
		linux.NewServiceIP(linux.AddressOptions{Logger: log}),
		linux.NewPersistentIP(linux.AddressOptions{Logger: log}),
		linux.NewFileSystem(linux.FileSystemOptions{Runner: run, Logger: log}),
		script.New(script.Options{Runner: run, Look: look, Logger: log}),
		ocf.NewAgents(ocf.AgentOptions{Runner: run, Logger: log}),
		ocf.NewTypes(ocf.TypeOptions{Runner: run, Decode: config.DecodeResourceType, Logger: log}),
		systemd.New(systemd.Options{Runner: run, Logger: log}),
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
