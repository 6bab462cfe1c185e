package executortest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A Subject is one executor under test, with what the suite needs to know of its world. Functions that are nil leave their
// checks out.
type Subject struct {
	Executor executor.Executor
	// Resource makes the nth resource. Resources of different n are independent of each other.
	Resource func(t *testing.T, n int) executor.Resource
	// Present looks at the real world, without the executor, whether the resource is there.
	Present func(t *testing.T, r executor.Resource) bool
	// Invalid is a resource that Validate must refuse.
	Invalid func(t *testing.T) executor.Resource
	// Slow makes a resource whose Start (start true) or Stop hangs until its context ends.
	Slow func(t *testing.T, start bool) executor.Resource
	// Stubborn makes a resource that is running and whose Stop fails.
	Stubborn func(t *testing.T) executor.Resource
	// Blind makes a resource whose state cannot be seen.
	Blind func(t *testing.T) executor.Resource
}

// Run checks an executor against its contract. factory is called once for each check, so that each has a fresh world.
func Run(t *testing.T, factory func(t *testing.T) Subject) {
	for _, c := range []struct {
		name  string
		check func(t *testing.T, s Subject)
	}{
		{"validates", validates},
		{"starts and stops", startsAndStops},
		{"starts twice", startsTwice},
		{"stops twice", stopsTwice},
		{"probes without effect", probesWithoutEffect},
		{"acts after its context ended", endedContext},
		{"is cancelled while it starts", func(t *testing.T, s Subject) { cancelled(t, s, true) }},
		{"is cancelled while it stops", func(t *testing.T, s Subject) { cancelled(t, s, false) }},
		{"runs out of time", runsOutOfTime},
		{"reports a failed stop", failedStop},
		{"reports what it cannot see", blind},
		{"handles resources at once", concurrent},
	} {
		if mutant() && c.name != "starts and stops" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			s := factory(t)
			s.Executor = mutated(s.Executor)
			c.check(t, s)
		})
	}
}

func validates(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	if r.Kind != s.Executor.Kind() {
		t.Fatalf("a resource of kind %s for an executor of kind %s", r.Kind, s.Executor.Kind())
	}
	if err := s.Executor.Validate(t.Context(), r); err != nil {
		t.Errorf("a good resource is refused: %v", err)
	}
	if s.present(t, r) {
		t.Error("Validate changed the world")
	}
	if s.Invalid != nil {
		if err := s.Executor.Validate(t.Context(), s.Invalid(t)); err == nil {
			t.Error("a bad resource is not refused")
		}
	}
}

func startsAndStops(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	s.expectProbe(t, r, executor.Stopped)
	for range 3 {
		s.start(t, r)
		s.stop(t, r)
	}
}

func startsTwice(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	s.start(t, r)
	s.start(t, r)
	s.stop(t, r)
}

func stopsTwice(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	s.stop(t, r)
	s.start(t, r)
	s.stop(t, r)
	s.stop(t, r)
}

func probesWithoutEffect(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	for range 3 {
		s.expectProbe(t, r, executor.Stopped)
	}
	if s.present(t, r) {
		t.Error("Probe started the resource")
	}
	s.start(t, r)
	for range 3 {
		s.expectProbe(t, r, executor.Running)
	}
	if s.Present != nil && !s.present(t, r) {
		t.Error("Probe stopped the resource")
	}
	s.stop(t, r)
}

// endedContext: a call whose context has ended may do its work or not, but what it says must be so.
func endedContext(t *testing.T, s Subject) {
	r := s.Resource(t, 0)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.expectTruth(t, r, "Start", s.Executor.Start(ended, r))
	s.settle(t, r)
	s.start(t, r)
	s.expectTruth(t, r, "Stop", s.Executor.Stop(ended, r))
	s.stop(t, r)
}

func cancelled(t *testing.T, s Subject, start bool) {
	if s.Slow == nil {
		t.Log("left out: this executor has no operation that can hang")
		return
	}
	r := s.Slow(t, start)
	if !start {
		s.start(t, r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	res, what := s.operate(ctx, r, start)
	if res.Err == nil {
		t.Fatalf("%s reached its goal although it hangs: %+v", what, res)
	}
	if !start && res.Status == executor.Stopped {
		t.Errorf("a Stop that was cancelled reports Stopped: %+v", res)
	}
	s.expectTruth(t, r, what, res)
}

func runsOutOfTime(t *testing.T, s Subject) {
	if s.Slow == nil {
		t.Log("left out: this executor has no operation that can hang")
		return
	}
	r := s.Slow(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan executor.Result, 1)
	go func() { done <- s.Executor.Start(ctx, r) }()
	select {
	case res := <-done:
		if res.Err == nil || res.Detail == "" {
			t.Errorf("a Start that ran out of time: %+v", res)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Start does not return although its context has ended")
	}
}

func failedStop(t *testing.T, s Subject) {
	if s.Stubborn == nil {
		t.Log("left out: this executor's stop cannot be made to fail")
		return
	}
	r := s.Stubborn(t)
	res := s.Executor.Stop(t.Context(), r)
	if res.Err == nil || res.Status == executor.Stopped || res.Detail == "" {
		t.Errorf("a Stop that failed says %+v", res)
	}
}

func blind(t *testing.T, s Subject) {
	if s.Blind == nil {
		t.Log("left out: this executor's view cannot be taken away")
		return
	}
	r := s.Blind(t)
	if res := s.Executor.Probe(t.Context(), r); res.Status != executor.Unknown || res.Err == nil || res.Detail == "" {
		t.Errorf("a probe that sees nothing says %+v", res)
	}
	if res := s.Executor.Stop(t.Context(), r); res.Status == executor.Stopped && res.Err == nil {
		t.Errorf("a stop that sees nothing says %+v", res)
	}
}

func concurrent(t *testing.T, s Subject) {
	const n = 4
	var rs []executor.Resource
	for i := range n {
		rs = append(rs, s.Resource(t, i))
	}
	var wg sync.WaitGroup
	for _, r := range rs {
		wg.Go(func() {
			for range 2 {
				if res := s.Executor.Start(t.Context(), r); res.Status != executor.Running || res.Err != nil {
					t.Errorf("start %s: %+v", r.Name, res)
				}
				if res := s.Executor.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil {
					t.Errorf("stop %s: %+v", r.Name, res)
				}
			}
			if res := s.Executor.Start(t.Context(), r); res.Status != executor.Running || res.Err != nil {
				t.Errorf("start %s: %+v", r.Name, res)
			}
		})
	}
	wg.Wait()
	for _, r := range rs {
		s.expectProbe(t, r, executor.Running)
		s.stop(t, r)
	}
}

func (s Subject) operate(ctx context.Context, r executor.Resource, start bool) (executor.Result, string) {
	if start {
		return s.Executor.Start(ctx, r), "Start"
	}
	return s.Executor.Stop(ctx, r), "Stop"
}

func (s Subject) start(t *testing.T, r executor.Resource) {
	t.Helper()
	if res := s.Executor.Start(t.Context(), r); res.Status != executor.Running || res.Err != nil || res.Detail == "" {
		t.Fatalf("start %s: %+v", r.Name, res)
	}
	if s.Present != nil && !s.Present(t, r) {
		t.Fatalf("%s is not there after a start that reports Running", r.Name)
	}
	s.expectProbe(t, r, executor.Running)
}

func (s Subject) stop(t *testing.T, r executor.Resource) {
	t.Helper()
	if res := s.Executor.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil || res.Detail == "" {
		t.Fatalf("stop %s: %+v", r.Name, res)
	}
	if s.present(t, r) {
		t.Fatalf("%s is there after a stop that reports Stopped", r.Name)
	}
	s.expectProbe(t, r, executor.Stopped)
}

// settle brings a resource of uncertain state down.
func (s Subject) settle(t *testing.T, r executor.Resource) {
	t.Helper()
	s.stop(t, r)
}

func (s Subject) present(t *testing.T, r executor.Resource) bool {
	return s.Present != nil && s.Present(t, r)
}

func (s Subject) expectProbe(t *testing.T, r executor.Resource, want executor.Status) {
	t.Helper()
	res := s.Executor.Probe(t.Context(), r)
	if res.Status != want || res.Detail == "" || (res.Err != nil && want != executor.Unknown) {
		t.Fatalf("probe of %s: %+v, wanted %s", r.Name, res, want)
	}
}

// expectTruth checks a result against the world.
func (s Subject) expectTruth(t *testing.T, r executor.Resource, what string, res executor.Result) {
	t.Helper()
	if s.Present == nil {
		return
	}
	there := s.Present(t, r)
	if res.Status == executor.Stopped && there || res.Status == executor.Running && !there {
		t.Errorf("%s says %+v, and the resource is there: %v", what, res, there)
	}
	if res.Status != executor.Running && what == "Start" && res.Err == nil || res.Status != executor.Stopped && what == "Stop" && res.Err == nil {
		t.Errorf("%s did not reach its goal and names no cause: %+v", what, res)
	}
	if errors.Is(res.Err, context.Canceled) && res.Detail == "" {
		t.Errorf("%s gives no sentence: %+v", what, res)
	}
}
