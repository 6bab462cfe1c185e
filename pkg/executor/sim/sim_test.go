package sim_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/sim"
)

func world(t *testing.T, dir string) *sim.World {
	t.Helper()
	w, err := sim.NewWorld(dir)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func group(n int) executor.Resource {
	return executor.Resource{Kind: executor.KindFileSystem, Name: fmt.Sprint("fs/", n), Group: "rg"}
}

func TestConformance(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("directory %v", shared), func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executortest.Subject {
				dir := ""
				if shared {
					dir = t.TempDir()
				}
				w := world(t, dir)
				x := w.Executor(executor.KindFileSystem, "n1")
				return executortest.Subject{
					Executor: x,
					Resource: func(_ *testing.T, n int) executor.Resource { return group(n) },
					Present: func(t *testing.T, r executor.Resource) bool {
						nodes, err := w.Holders(r.Kind, r.Name)
						return err == nil && len(nodes) > 0
					},
					Invalid: func(*testing.T) executor.Resource { return executor.Resource{Kind: executor.KindServiceIP, Name: "x"} },
					Slow: func(_ *testing.T, start bool) executor.Resource {
						w.Inject(sim.Fault{Resource: "slow", Op: map[bool]string{true: sim.OpStart, false: sim.OpStop}[start], Hang: true})
						return executor.Resource{Kind: executor.KindFileSystem, Name: "slow"}
					},
					Stubborn: func(t *testing.T) executor.Resource {
						if res := x.Start(t.Context(), group(7)); res.Err != nil {
							t.Fatal(res)
						}
						w.Inject(sim.Fault{Op: sim.OpStop, Err: errors.New("device busy")})
						return group(7)
					},
					Blind: func(*testing.T) executor.Resource {
						w.Inject(sim.Fault{Op: sim.OpProbe, Err: errors.New("no view")})
						w.Inject(sim.Fault{Op: sim.OpStop, Err: errors.New("no view")})
						return group(8)
					},
				}
			})
		})
	}
}

func TestConformanceCatchesLiars(t *testing.T) { executortest.Mutants(t, "TestConformance") }

func TestDoubleHoldersAreReported(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		w := world(t, dir)
		var told []string
		w.OnViolation = func(v sim.Violation) { told = append(told, v.String()) }
		a, b := w.Executor(executor.KindFileSystem, "a"), w.Executor(executor.KindFileSystem, "b/2")
		if res := a.Start(t.Context(), group(1)); res.Err != nil {
			t.Fatal(res)
		}
		res := b.Start(t.Context(), group(1))
		if res.Status != executor.Degraded || res.Err == nil || !strings.Contains(res.Detail, "several nodes at once: a, b/2") {
			t.Errorf("second holder: %+v", res)
		}
		b.Start(t.Context(), group(1)) // the same violation, not a new one
		if len(w.Violations()) != 1 || len(told) != 1 {
			t.Errorf("violations %v, told %v", w.Violations(), told)
		}
		if err := w.Crash("a"); err != nil {
			t.Fatal(err)
		}
		if res := b.Probe(t.Context(), group(1)); res.Status != executor.Running {
			t.Errorf("after the crash of the other: %+v", res)
		}
		w.Shared = func(executor.Resource) bool { return true }
		if res := a.Start(t.Context(), group(1)); res.Err != nil || len(w.Violations()) != 1 {
			t.Errorf("a shared resource: %+v", res)
		}
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, "")
		x := w.Executor(executor.KindFileSystem, "n1")
		w.Inject(sim.Fault{Op: sim.OpStart, Times: 2, Delay: time.Minute, Err: errors.New("no disk")})
		began := time.Now()
		for i := range 3 {
			res := x.Start(t.Context(), group(1))
			if (res.Err == nil) != (i == 2) || i < 2 && res.Status != executor.Stopped {
				t.Errorf("start %d: %+v", i, res)
			}
		}
		if d := time.Since(began); d != 2*time.Minute {
			t.Errorf("took %s", d)
		}
		remove := w.Inject(sim.Fault{Op: sim.OpStop, Late: true, Err: errors.New("answer lost")})
		if res := x.Stop(t.Context(), group(1)); res.Err == nil || res.Status != executor.Unknown {
			t.Errorf("a stop whose answer was lost: %+v", res)
		}
		remove()
		if res := x.Probe(t.Context(), group(1)); res.Status != executor.Stopped {
			t.Errorf("%+v", res)
		}
		w.Inject(sim.Fault{Node: "n2", Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if res := x.Probe(ctx, group(1)); res.Status != executor.Stopped {
			t.Errorf("a fault of another node: %+v", res)
		}
		if res := w.Executor(executor.KindFileSystem, "n2").Probe(ctx, group(1)); res.Status != executor.Unknown {
			t.Errorf("a hanging probe: %+v", res)
		}
	})
}
