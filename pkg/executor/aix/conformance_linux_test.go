package aix

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

// subjects are the executors of this package as the conformance suite takes them, each with a world of its own.
var subjects = map[string]func(t *testing.T) executortest.Subject{
	"ServiceIP": addressSubject, "VolumeGroup": groupSubject, "FileSystem": fileSystemSubject, "Export": exportSubject, "Subsystem": subsystemSubject,
}

// slow gives a resource whose start or stop command hangs, with a helper that has its output.
func slow(m *machine, make func(n int) executor.Resource, start, stop fake.Fault) func(*testing.T, bool) executor.Resource {
	return func(_ *testing.T, starting bool) executor.Resource {
		f := stop
		if starting {
			f = start
		}
		f.Mode = "hang"
		m.fault(f)
		return make(3)
	}
}

func fresh(make func(n int) executor.Resource) func(*testing.T, int) executor.Resource {
	return func(_ *testing.T, n int) executor.Resource { return make(n) }
}

// blind gives a resource of which nothing can be seen.
func blind(m *machine, make func(n int) executor.Resource, f fake.Fault) func(*testing.T) executor.Resource {
	return func(*testing.T) executor.Resource {
		f.Mode, f.Exit, f.Text = "fail", 1, "0514-000 something went wrong"
		m.fault(f)
		return make(0)
	}
}

// stubborn gives a running resource whose stop fails.
func stubborn(m *machine, x executor.Executor, r executor.Resource, spoil func()) func(*testing.T) executor.Resource {
	return func(t *testing.T) executor.Resource {
		if res := x.Start(t.Context(), r); res.Err != nil {
			t.Fatal(res)
		}
		spoil()
		return r
	}
}

func addressSubject(t *testing.T) executortest.Subject {
	m := machines(t, 1)[0]
	x := m.sys.ServiceIP()
	return executortest.Subject{Executor: x, Resource: fresh(ip),
		Present: func(_ *testing.T, r executor.Resource) bool {
			return strings.Contains(m.must("ifconfig", "-a"), " "+r.IP.Address+" ")
		},
		Invalid: func(*testing.T) executor.Resource { r := ip(0); r.IP.NodeAddress = "10.9.9.9"; return r },
		Slow:    slow(m, ip, fake.Fault{Command: "ifconfig", Arg: "alias"}, fake.Fault{Command: "ifconfig", Arg: "delete"}),
		Stubborn: stubborn(m, x, ip(1), func() {
			m.fault(fake.Fault{Command: "ifconfig", Arg: "delete", Mode: "fail", Text: "ifconfig: ioctl (SIOCDIFADDR): Permission denied"})
		}),
		Blind: blind(m, ip, fake.Fault{Command: "ifconfig"})}
}

func groupSubject(t *testing.T) executortest.Subject {
	m := machines(t, 1)[0]
	x := m.sys.VolumeGroups()
	return executortest.Subject{Executor: x, Resource: fresh(vg),
		Present: func(_ *testing.T, r executor.Resource) bool { return m.variedOn(r.Name) },
		Invalid: func(*testing.T) executor.Resource { r := vg(0); r.VolumeGroup.Name = "nosuchvg"; return r },
		Slow:    slow(m, vg, fake.Fault{Command: "varyonvg"}, fake.Fault{Command: "varyoffvg"}),
		Stubborn: stubborn(m, x, vg(1), func() {
			m.change(func(w *fake.World) {
				for _, g := range w.Shared.Groups {
					if g.Name == "vg1" {
						g.Volumes["lv1"].OpenRaw = true
					}
				}
			})
		}),
		Blind: blind(m, vg, fake.Fault{Command: "lsvg"})}
}

func fileSystemSubject(t *testing.T) executortest.Subject {
	m := machines(t, 1)[0]
	x := m.sys.FileSystems()
	for n := range 4 {
		m.must("varyonvg", vg(n).Name)
	}
	return executortest.Subject{Executor: x, Resource: fresh(m.fs),
		Present:  func(_ *testing.T, r executor.Resource) bool { return m.mounted(r) },
		Invalid:  func(*testing.T) executor.Resource { r := m.fs(0); r.FileSystem.MountPoint = "data"; return r },
		Slow:     slow(m, m.fs, fake.Fault{Command: "mount", Arg: "/dev/"}, fake.Fault{Command: "umount"}),
		Stubborn: stubborn(m, x, m.fs(1), func() { m.change(func(w *fake.World) { w.Run.Busy[m.fs(1).FileSystem.MountPoint] = []int{-4711} }) }),
		Blind:    blind(m, m.fs, fake.Fault{Command: "mount"})}
}

func exportSubject(t *testing.T) executortest.Subject {
	m := machines(t, 1)[0]
	x := m.sys.Exports()
	return executortest.Subject{Executor: x, Resource: fresh(m.export),
		Present: func(_ *testing.T, r executor.Resource) bool {
			return see(m, func(w *fake.World) bool { _, ok := w.Run.Exports[r.Export.Directory]; return ok })
		},
		Invalid: func(*testing.T) executor.Resource { r := m.export(0); r.Export.Directory = "data"; return r },
		Slow:    slow(m, m.export, fake.Fault{Command: "exportfs", Arg: "-i"}, fake.Fault{Command: "exportfs", Arg: "-u"}),
		Stubborn: stubborn(m, x, m.export(1), func() {
			m.fault(fake.Fault{Command: "exportfs", Arg: "-u", Mode: "fail", Text: "exportfs: 1831-187 Permission denied"})
		}),
		Blind: blind(m, m.export, fake.Fault{Command: "exportfs"})}
}

func subsystemSubject(t *testing.T) executortest.Subject {
	m := machines(t, 1)[0]
	m.master()
	x := m.sys.Subsystems()
	return executortest.Subject{Executor: x, Resource: fresh(src),
		Present: func(_ *testing.T, r executor.Resource) bool {
			return see(m, func(w *fake.World) bool { _, ok := w.Run.Running[r.Name]; return ok })
		},
		Invalid: func(*testing.T) executor.Resource { r := src(0); r.App.Agent = "src:nosuch"; return r },
		Slow:    slow(m, src, fake.Fault{Command: "startsrc"}, fake.Fault{Command: "stopsrc"}),
		Stubborn: stubborn(m, x, src(1), func() {
			m.fault(fake.Fault{Command: "stopsrc", Mode: "lie", Text: "0513-044 The app1 Subsystem was requested to stop."})
		}),
		Blind: blind(m, src, fake.Fault{Command: "lssrc"})}
}

func TestConformance(t *testing.T) {
	for name, subject := range subjects {
		t.Run(name, func(t *testing.T) { t.Parallel(); executortest.Run(t, subject) })
	}
}

// A liar says that a stop reached its goal, or that a resource is stopped, whatever is so.
type liar struct {
	executor.Executor
	stop, probe bool
}

func (l liar) Stop(ctx context.Context, r executor.Resource) executor.Result {
	if l.stop {
		return executor.Result{Status: executor.Stopped, Detail: "stopped, word of honour"}
	}
	return l.Executor.Stop(ctx, r)
}

func (l liar) Probe(ctx context.Context, r executor.Resource) executor.Result {
	if l.probe {
		return executor.Result{Status: executor.Stopped, Detail: "nothing to be seen"}
	}
	return l.Executor.Probe(ctx, r)
}

// TestMutant is run by TestLiarsAreCaught, in a process of its own.
func TestMutant(t *testing.T) {
	kind, what, ok := strings.Cut(os.Getenv("HOLDFAST_TEST_MUTANT"), "/")
	if !ok {
		return
	}
	executortest.Run(t, func(t *testing.T) executortest.Subject {
		s := subjects[kind](t)
		s.Executor = liar{s.Executor, what == "stop", what == "probe"}
		return s
	})
}

// The suite would tell if an executor lied.
func TestLiarsAreCaught(t *testing.T) {
	for kind := range subjects {
		for _, what := range []string{"stop", "probe"} {
			t.Run(kind+"/"+what, func(t *testing.T) {
				t.Parallel()
				cmd := exec.Command(os.Args[0], "-test.run", "^TestMutant$/^(starts_and_stops|probes_without_effect)$")
				cmd.Env = append(os.Environ(), "HOLDFAST_TEST_MUTANT="+kind+"/"+what)
				out, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutant") {
					t.Errorf("a %s that lies passes the suite: %v\n%s", what, err, out)
				}
			})
		}
	}
}
