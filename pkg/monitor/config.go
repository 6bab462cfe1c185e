package monitor

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// Defaults of a monitor's attributes. A stabilization only bounds how long an application may take until it is first seen to be
// well; what has been seen well once and then is not has failed at once, also within it.
const (
	DefaultInterval             = 60 * time.Second
	DefaultProcessStabilization = 10 * time.Second
	DefaultMethodStabilization  = 60 * time.Second // custom and startup monitors
	DefaultRestartCount         = 3
	DefaultHungSignal           = 9
	defaultMethodTimeout        = 60 * time.Second // of notify methods
)

// Types, modes and failure actions, in the spelling of the definition.
const (
	TypeProcess     = "process"
	TypeCustom      = "custom"
	TypeAgent       = "agent"
	ModeLongRunning = "longrunning"
	ModeStartup     = "startup"
	ModeBoth        = "both"
	ActionNotify    = "notify"
	ActionFallover  = "fallover"
)

// A Kind says what an Event is about.
type Kind string

// The kinds of events.
const (
	Died       Kind = "died"       // a process ended
	Hung       Kind = "hung"       // a monitor method did not come back
	Unhealthy  Kind = "unhealthy"  // a monitor method said so
	Restarting Kind = "restarting" // the application is cleaned up and started again here
	Recovered  Kind = "recovered"  // after a restart the monitor has seen it well
	Failed     Kind = "failed"     // restarts are used up; Action says what the monitor wants
)

// An Event is what a monitor has seen or what is done about it.
type Event struct {
	App     string
	Monitor string
	Kind    Kind
	Action  string // Failed: ActionNotify or ActionFallover
	Detail  string // one sentence
}

// A Method is a script of the administrator that is to be run.
type Method struct {
	Op      string // monitor, notify
	Path    string
	Args    []string
	Timeout time.Duration
	Signal  int // sent to the method's process group when its time is over, before it is killed
}

// An Outcome says how a method ended.
type Outcome struct {
	Exit int
	Hung bool  // it did not end in time
	Err  error // nil: exit 0
}

// Config says what to watch, and with whose hands. Run, Cleanup, Restart and Report may be called from several goroutines, but
// Cleanup and Restart never at the same time.
type Config struct {
	App      cluster.ApplicationController
	Monitors []cluster.ApplicationMonitor

	// Run runs a method. It returns soon after the context ended.
	Run func(ctx context.Context, m Method) Outcome
	// Look asks the application's agent once, at a depth; for monitors of type agent.
	Look func(ctx context.Context, depth int) (State, string)
	// Cleanup ends what is left of the application, by the method if it is not empty, else by the stop script; Restart starts
	// it again, by the method or the start script.
	Cleanup func(ctx context.Context, method string) error
	Restart func(ctx context.Context, method string) error
	// Report is told each event, in their order. It must not block.
	Report func(Event)
	// Running says that the application is known to run already (it was adopted): there is no stabilization at first.
	Running bool
	Logger  *slog.Logger
}

func interval(m *cluster.ApplicationMonitor) time.Duration {
	if m.MonitorInterval > 0 {
		return m.MonitorInterval
	}
	if m.Type == TypeAgent {
		return cluster.DefaultAgentMonitorInterval
	}
	return DefaultInterval
}

// Stabilization is how long an application may take until the monitor first sees it well.
func Stabilization(m *cluster.ApplicationMonitor) time.Duration {
	switch {
	case m.Stabilization > 0:
		return m.Stabilization
	case m.Type == TypeProcess:
		return DefaultProcessStabilization
	}
	return DefaultMethodStabilization
}

func longRunning(m *cluster.ApplicationMonitor) bool { return m.Mode != ModeStartup }
func startup(m *cluster.ApplicationMonitor) bool     { return m.Mode == ModeStartup || m.Mode == ModeBoth }

func action(m *cluster.ApplicationMonitor) string {
	if m.FailureAction == ActionFallover {
		return ActionFallover
	}
	return ActionNotify
}
