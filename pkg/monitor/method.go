package monitor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// watchHealth runs the custom monitor's method again and again. Until the first success, and at most until patience is over,
// a failure does not count.
func (w *Watcher) watchHealth(ctx context.Context, m *cluster.ApplicationMonitor, patience time.Time, tell func(Kind, string)) {
	well := false
	for {
		began := time.Now()
		kind, detail := ask(ctx, w.c, m, interval(m))
		if ctx.Err() != nil {
			return
		}
		switch {
		case kind == seenWell && !well:
			well = true
			tell(seenWell, detail)
		case kind != seenWell && (well || time.Now().After(patience)):
			tell(kind, detail)
			return
		}
		next := began.Add(interval(m))
		if !well { // look more often while it comes up, to know soon
			next = began.Add(startupPause(m))
		}
		if !sleep(ctx, time.Until(next)) {
			return
		}
	}
}

// ask runs the method once, or asks the agent.
func ask(ctx context.Context, c Config, m *cluster.ApplicationMonitor, timeout time.Duration) (Kind, string) {
	if m.Type == TypeAgent {
		state, detail := lookAtAgent(ctx, c, m)
		switch state {
		case StateRunning:
			return seenWell, detail
		case StateStopped:
			return Died, detail
		}
		return Unhealthy, detail
	}
	run := c.Run
	if run == nil {
		return Unhealthy, fmt.Sprintf("monitor %s: there is nobody to run its method", m.Name)
	}
	signal := m.HungSignal
	if signal == 0 {
		signal = DefaultHungSignal
	}
	out := run(ctx, Method{Op: "monitor", Path: m.MonitorMethod, Timeout: timeout, Signal: signal})
	switch {
	case out.Hung:
		return Hung, fmt.Sprintf("monitor %s: %s did not come back within %s", m.Name, m.MonitorMethod, timeout)
	case out.Err != nil:
		return Unhealthy, fmt.Sprintf("monitor %s: %v", m.Name, out.Err)
	}
	return seenWell, fmt.Sprintf("monitor %s: %s ended with 0", m.Name, m.MonitorMethod)
}

// startupPause is how long to wait between two looks at an application that is coming up.
func startupPause(m *cluster.ApplicationMonitor) time.Duration {
	return min(interval(m), max(Stabilization(m)/20, 100*time.Millisecond))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// AlreadyUp asks the startup monitors, before a start, whether the application is up already. Only when each of them says so,
// and there is one, the start script need not run.
func AlreadyUp(ctx context.Context, c Config) (bool, string) {
	var says []string
	for i := range c.Monitors {
		m := &c.Monitors[i]
		if !startup(m) {
			continue
		}
		state, detail := look(ctx, c, m)
		if state != StateRunning {
			return false, detail
		}
		says = append(says, detail)
	}
	return len(says) > 0, strings.Join(says, "; ")
}

// AwaitStartup waits, after a start, until each startup monitor says that the application is up. One that does not say so
// within its stabilization fails the start.
func AwaitStartup(ctx context.Context, c Config) error {
	var errs []error
	began := time.Now()
	for i := range c.Monitors {
		if m := &c.Monitors[i]; startup(m) {
			errs = append(errs, awaitUp(ctx, c, m, began.Add(Stabilization(m))))
		}
	}
	return errors.Join(errs...)
}

func awaitUp(ctx context.Context, c Config, m *cluster.ApplicationMonitor, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	last := "it was not asked"
	for {
		state, detail := look(ctx, c, m)
		if state == StateRunning {
			return nil
		}
		if ctx.Err() == nil {
			last = detail
		}
		pause := startupPause(m)
		if m.Type == TypeProcess {
			pause = scanPause
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("application %s did not come up within %s: %s: %w", c.App.Name, Stabilization(m), last, context.Cause(ctx))
		}
	}
}

// A State is what monitors say when they are asked once; the words are those of a probe.
type State string

// The states.
const (
	StateRunning  State = "running"
	StateStopped  State = "stopped"
	StateDegraded State = "degraded"
	StateUnknown  State = "unknown"
)

// Look asks all monitors once. Unknown without a sentence means that there is no monitor.
func Look(ctx context.Context, c Config) (State, string) {
	if len(c.Monitors) == 0 {
		return StateUnknown, ""
	}
	count := map[State]int{}
	var says []string
	for i := range c.Monitors {
		state, detail := look(ctx, c, &c.Monitors[i])
		count[state]++
		says = append(says, detail)
	}
	text := strings.Join(says, "; ")
	switch len(c.Monitors) {
	case count[StateRunning]:
		return StateRunning, text
	case count[StateStopped]:
		return StateStopped, text
	}
	if count[StateRunning]+count[StateDegraded] > 0 {
		return StateDegraded, text
	}
	return StateUnknown, text
}

func lookAtAgent(ctx context.Context, c Config, m *cluster.ApplicationMonitor) (State, string) {
	if c.Look == nil {
		return StateUnknown, fmt.Sprintf("monitor %s: the application has no agent that could be asked", m.Name)
	}
	return c.Look(ctx, m.Depth)
}

func look(ctx context.Context, c Config, m *cluster.ApplicationMonitor) (State, string) {
	switch m.Type {
	case TypeProcess:
		return lookAtProcesses(m)
	case TypeAgent:
		return lookAtAgent(ctx, c, m)
	}
	kind, detail := ask(ctx, c, m, interval(m))
	switch {
	case ctx.Err() != nil:
		return StateUnknown, fmt.Sprintf("monitor %s was not heard: %v", m.Name, context.Cause(ctx))
	case kind == seenWell:
		return StateRunning, detail
	case kind == Hung:
		return StateUnknown, detail
	}
	return StateStopped, detail
}
