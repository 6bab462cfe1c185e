package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A fake application: health is what the monitor method finds.
type fake struct {
	mu       sync.Mutex
	health   func(at time.Duration) Outcome
	began    time.Time
	restarts int
	fail     error // of restarts
	events   []string
	methods  []Method
}

func (f *fake) config(m ...cluster.ApplicationMonitor) Config {
	f.began = time.Now()
	return Config{App: cluster.ApplicationController{Name: "db"}, Monitors: m,
		Run: func(_ context.Context, m Method) Outcome {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.methods = append(f.methods, m)
			if m.Op == "notify" {
				return Outcome{}
			}
			return f.health(time.Since(f.began))
		},
		Cleanup: func(context.Context, string) error { return nil },
		Restart: func(context.Context, string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.restarts++
			return f.fail
		},
		Report: func(e Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			text := fmt.Sprintf("%s %s", time.Since(f.began), e.Kind)
			if e.Action != "" {
				text += " " + e.Action
			}
			f.events = append(f.events, text)
		}}
}

func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

var sick = Outcome{Exit: 1, Err: errors.New("exit status 1")}

func custom() cluster.ApplicationMonitor {
	one := 1
	return cluster.ApplicationMonitor{Name: "m", Type: TypeCustom, MonitorMethod: "/m", MonitorInterval: 10 * time.Second,
		Stabilization: 20 * time.Second, RestartCount: &one, RestartInterval: 100 * time.Second, FailureAction: ActionFallover}
}

func TestCustomMonitorRestartsAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{health: func(at time.Duration) Outcome {
			if at < 35*time.Second || at > 45*time.Second && at < 65*time.Second {
				return Outcome{}
			}
			return sick
		}}
		w := Watch(t.Context(), f.config(custom()))
		<-w.Done()
		want := []string{"40s unhealthy", "40s restarting", "46s recovered", "1m6s unhealthy", "1m6s failed fallover"}
		if got := f.seen(); !slices.Equal(got, want) || f.restarts != 1 {
			t.Errorf("%q, %d restarts, wanted %q", got, f.restarts, want)
		}
	})
}

func TestStabilizationForgivesOnlyBeforeTheFirstSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := custom()
		none := 0
		m.RestartCount = &none
		never := &fake{health: func(time.Duration) Outcome { return sick }}
		w := Watch(t.Context(), never.config(m))
		<-w.Done()
		if got := never.seen(); len(got) != 2 || got[0] != "21s unhealthy" {
			t.Errorf("an application that never comes up: %q, wanted the failure after the 20 s", got)
		}
		early := &fake{health: func(at time.Duration) Outcome {
			if at < 5*time.Second {
				return Outcome{}
			}
			return sick
		}}
		w = Watch(t.Context(), early.config(m))
		<-w.Done()
		if got := early.seen(); len(got) != 2 || got[0] != "10s unhealthy" {
			t.Errorf("an application that was up once: %q, wanted the failure at the next look", got)
		}
		adopted := &fake{health: func(time.Duration) Outcome { return sick }}
		c := adopted.config(m)
		c.Running = true
		w = Watch(t.Context(), c)
		<-w.Done()
		if got := adopted.seen(); len(got) != 2 || got[0] != "0s unhealthy" {
			t.Errorf("an adopted application: %q, wanted the failure at once", got)
		}
	})
}

func TestAHungMethodIsAFailureAndGetsItsSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{health: func(time.Duration) Outcome { return Outcome{Exit: -1, Hung: true, Err: errors.New("timed out")} }}
		m := custom()
		m.HungSignal = 3
		c := f.config(m)
		c.Running = true
		w := Watch(t.Context(), c)
		<-w.Done()
		if got := f.seen(); len(got) == 0 || got[0] != "0s hung" {
			t.Errorf("%q", got)
		}
		if f.methods[0].Signal != 3 || f.methods[0].Timeout != 10*time.Second {
			t.Errorf("the method was run as %+v", f.methods[0])
		}
	})
}

func TestAFailedRestartCountsAsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{health: func(time.Duration) Outcome { return sick }, fail: errors.New("no licence")}
		three := 3
		m := custom()
		m.RestartCount, m.FailureAction, m.NotifyMethod = &three, "", "/notify"
		c := f.config(m)
		c.Running = true
		w := Watch(t.Context(), c)
		<-w.Done()
		got := f.seen()
		if f.restarts != 3 || got[len(got)-1] != "0s failed notify" {
			t.Errorf("%d restarts, %q", f.restarts, got)
		}
		notes := 0
		for _, m := range f.methods {
			if m.Op == "notify" {
				notes++
				if m.Path != "/notify" || m.Args[0] != "db" || m.Args[1] != "m" {
					t.Errorf("notified by %+v", m)
				}
			}
		}
		if notes != 4 {
			t.Errorf("the notify method ran %d times, wanted one for each failure", notes)
		}
	})
}

func TestSuspendAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill := time.Hour
		f := &fake{}
		f.health = func(at time.Duration) Outcome {
			if at > ill {
				return sick
			}
			return Outcome{}
		}
		w := Watch(t.Context(), f.config(custom()))
		time.Sleep(25 * time.Second)
		w.Suspend()
		f.mu.Lock()
		ill = 0
		looks := len(f.methods)
		f.mu.Unlock()
		time.Sleep(time.Hour)
		if !w.Suspended() || len(f.seen()) != 0 || len(f.methods) != looks {
			t.Errorf("suspended, yet %q and %d more looks", f.seen(), len(f.methods)-looks)
		}
		w.Resume()
		time.Sleep(time.Minute)
		if w.Suspended() || len(f.seen()) == 0 {
			t.Errorf("resumed, yet nothing is seen")
		}
		w.Stop()
		w.Suspend() // of a watch that is over: returns
	})
}

func TestStartupMonitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := custom()
		m.Mode = ModeStartup
		f := &fake{health: func(at time.Duration) Outcome {
			if at < 7*time.Second {
				return sick
			}
			return Outcome{}
		}}
		c := f.config(m)
		if up, why := AlreadyUp(t.Context(), c); up || !strings.Contains(why, "exit status 1") {
			t.Errorf("already up: %v, %s", up, why)
		}
		if err := AwaitStartup(t.Context(), c); err != nil || time.Since(f.began) != 7*time.Second {
			t.Errorf("came up after %s: %v", time.Since(f.began), err)
		}
		if up, _ := AlreadyUp(t.Context(), c); !up {
			t.Error("is not seen to be up")
		}
		f.health = func(time.Duration) Outcome { return sick }
		began := time.Now()
		if err := AwaitStartup(t.Context(), c); err == nil || time.Since(began) != 20*time.Second ||
			!strings.Contains(err.Error(), "did not come up within 20s: monitor m: exit status 1") {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		w := Watch(t.Context(), c)
		<-w.Done() // nothing long-running to watch
		if up, _ := AlreadyUp(t.Context(), Config{}); up {
			t.Error("without a startup monitor nothing says that it is up")
		}
	})
}

func TestLookJoinsTheMonitors(t *testing.T) {
	outcomes := map[string]Outcome{"/up": {}, "/down": sick, "/hung": {Hung: true, Err: errors.New("timed out")}}
	c := Config{Run: func(_ context.Context, m Method) Outcome { return outcomes[m.Path] }}
	for _, x := range []struct {
		methods string
		want    State
	}{{"", StateUnknown}, {"/up", StateRunning}, {"/up /up", StateRunning}, {"/down", StateStopped}, {"/down /down", StateStopped},
		{"/up /down", StateDegraded}, {"/up /hung", StateDegraded}, {"/hung", StateUnknown}, {"/down /hung", StateUnknown}} {
		c.Monitors = nil
		for path := range strings.FieldsSeq(x.methods) {
			c.Monitors = append(c.Monitors, cluster.ApplicationMonitor{Name: path[1:], Type: TypeCustom, MonitorMethod: path})
		}
		if got, text := Look(t.Context(), c); got != x.want {
			t.Errorf("%q: %s (%s), wanted %s", x.methods, got, text, x.want)
		}
	}
}
