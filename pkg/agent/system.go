package agent

import (
	"log/slog"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
)

// systemExecutors lists the executors that this daemon has: the one place where they are registered.
func systemExecutors(run *executor.Runner, log *slog.Logger) executor.Registry {
	return executor.NewRegistry(
		linux.NewServiceIP(linux.AddressOptions{Logger: log}),
		linux.NewPersistentIP(linux.AddressOptions{Logger: log}),
		linux.NewFileSystem(linux.FileSystemOptions{Runner: run, Logger: log}),
		script.New(script.Options{Runner: run, Logger: log}),
	)
}

// blocked says why nothing may be done with a resource: an action of an earlier agent still runs on it.
func (m *member) blocked(r executor.Resource) error { return m.runner.Blocked(executor.ScopeOf(r)) }
