package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Watcher watches one application. Its methods may be called by any goroutine.
type Watcher struct {
	c        Config
	log      *slog.Logger
	cancel   context.CancelFunc
	done     chan struct{}
	control  chan bool // true: suspend
	policies []RestartPolicy

	mu        sync.Mutex
	suspended bool
	notifying sync.WaitGroup
}

// A finding is what a monitor tells the watcher's loop.
type finding struct {
	monitor int // index into Config.Monitors
	kind    Kind
	detail  string
}

// seenWell is the finding that an application is well; it is no event.
const seenWell Kind = "well"

// Watch begins to watch the application, which has just been started (or, with Config.Running, runs). It watches until the
// context ends or the application has failed for good. An application without long-running monitors is not watched, and Done
// is closed at once.
func Watch(ctx context.Context, c Config) *Watcher {
	ctx, cancel := context.WithCancel(ctx)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Report == nil {
		c.Report = func(Event) {}
	}
	w := &Watcher{c: c, log: c.Logger.With("component", "monitor", "application", c.App.Name), cancel: cancel,
		done: make(chan struct{}), control: make(chan bool)}
	w.c.Monitors = nil
	for _, m := range c.Monitors {
		if longRunning(&m) {
			w.c.Monitors = append(w.c.Monitors, m)
			w.policies = append(w.policies, PolicyOf(&m))
		}
	}
	go func() {
		defer close(w.done)
		defer cancel()
		if len(w.c.Monitors) > 0 {
			w.loop(ctx)
		}
		w.notifying.Wait()
	}()
	return w
}

// Done is closed when nothing is watched any more.
func (w *Watcher) Done() <-chan struct{} { return w.done }

// Stop ends the watch and waits until nothing of it runs any more.
func (w *Watcher) Stop() {
	w.cancel()
	<-w.done
}

// Suspend stops monitoring until Resume. A restart that is at work is ended first.
func (w *Watcher) Suspend() { w.set(true) }

// Resume begins to monitor again, with the stabilization of a fresh start.
func (w *Watcher) Resume() { w.set(false) }

// Suspended reports whether monitoring is suspended.
func (w *Watcher) Suspended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.suspended
}

func (w *Watcher) set(suspended bool) {
	select {
	case w.control <- suspended:
		w.mu.Lock()
		w.suspended = suspended
		w.mu.Unlock()
	case <-w.done:
	}
}

// loop is the life of the watch: all monitors are armed, the first failure is handled, all are armed again.
func (w *Watcher) loop(ctx context.Context) {
	running, pending := w.c.Running, map[int]bool{} // pending: failed and restarted, not yet seen well
	for ctx.Err() == nil {
		f, suspend, ok := w.round(ctx, running, pending)
		running = false
		switch {
		case suspend:
			if !w.suspendedUntilResume(ctx) {
				return
			}
		case !ok:
			return
		case !w.handle(ctx, f):
			return
		default:
			pending[f.monitor] = true
		}
	}
}

// round arms all monitors and returns with the first failure. No monitor runs any more when it returns.
func (w *Watcher) round(ctx context.Context, running bool, pending map[int]bool) (f finding, suspend, ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	findings := make(chan finding)
	var wg sync.WaitGroup
	for i := range w.c.Monitors {
		wg.Go(func() { w.watch(ctx, i, running, findings) })
	}
	defer wg.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return finding{}, false, false
		case suspend := <-w.control:
			if suspend {
				return finding{}, true, true
			}
		case f := <-findings:
			if f.kind != seenWell {
				return f, false, true
			}
			if pending[f.monitor] {
				delete(pending, f.monitor)
				w.report(f.monitor, Recovered, "", f.detail)
			}
		}
	}
}

func (w *Watcher) suspendedUntilResume(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case suspend := <-w.control:
			if !suspend {
				return true
			}
		}
	}
}

func (w *Watcher) watch(ctx context.Context, i int, running bool, findings chan<- finding) {
	m := &w.c.Monitors[i]
	tell := func(kind Kind, detail string) {
		select {
		case findings <- finding{i, kind, detail}:
		case <-ctx.Done():
		}
	}
	patience := time.Now().Add(Stabilization(m))
	if running {
		patience = time.Time{}
	}
	if m.Type == TypeProcess {
		watchProcesses(ctx, m, patience, tell)
	} else {
		w.watchHealth(ctx, m, patience, tell)
	}
}

// handle deals with a failure. It returns false when the application has failed for good, or the context has ended.
func (w *Watcher) handle(ctx context.Context, f finding) bool {
	m := &w.c.Monitors[f.monitor]
	for {
		w.report(f.monitor, f.kind, "", f.detail)
		policy := &w.policies[f.monitor]
		if policy.Failed(time.Now()) == GiveUp {
			w.notify(ctx, m, f.detail)
			w.report(f.monitor, Failed, action(m), fmt.Sprintf("application %s failed and its %d restarts are used up: %s",
				w.c.App.Name, policy.Count, f.detail))
			return false
		}
		w.report(f.monitor, Restarting, "", fmt.Sprintf("application %s is restarted (%d of %d): %s", w.c.App.Name, policy.Used(),
			policy.Count, f.detail))
		w.notify(ctx, m, f.detail)
		err := w.restart(ctx, m)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		f.kind, f.detail = Died, fmt.Sprintf("the restart did not succeed: %v", err)
	}
}

func (w *Watcher) restart(ctx context.Context, m *cluster.ApplicationMonitor) error {
	if w.c.Cleanup == nil || w.c.Restart == nil {
		return errors.New("there is nobody to restart it")
	}
	if err := w.c.Cleanup(ctx, m.CleanupMethod); err != nil {
		return fmt.Errorf("clean up before the restart: %w", err)
	}
	if err := w.c.Restart(ctx, m.RestartMethod); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	return nil
}

// notify runs the notify method beside everything else: nothing waits for a mail to be sent.
func (w *Watcher) notify(ctx context.Context, m *cluster.ApplicationMonitor, detail string) {
	if m.NotifyMethod == "" || w.c.Run == nil {
		return
	}
	w.notifying.Go(func() {
		out := w.c.Run(context.WithoutCancel(ctx), Method{Op: "notify", Path: m.NotifyMethod, Args: []string{w.c.App.Name, m.Name, detail},
			Timeout: defaultMethodTimeout})
		if out.Err != nil {
			w.log.Warn("the notify method did not succeed", "monitor", m.Name, "cause", out.Err.Error())
		}
	})
}

func (w *Watcher) report(monitor int, kind Kind, action, detail string) {
	m := &w.c.Monitors[monitor]
	w.log.Info("application monitor", "monitor", m.Name, "event", string(kind), "detail", detail)
	w.c.Report(Event{App: w.c.App.Name, Monitor: m.Name, Kind: kind, Action: action, Detail: detail})
}
