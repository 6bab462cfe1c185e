package script_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
)

// A world is one directory with the scripts of applications, and an executor.
type world struct {
	dir string
	run *executor.Runner
	x   *script.Applications
}

func newWorld(t *testing.T, cgroups string, look script.Look) world {
	w := world{dir: executortest.ScriptDir(t), run: executortest.Runner(t, cgroups)}
	w.x = script.New(script.Options{Runner: w.run, Look: look})
	return w
}

func (w world) app(t *testing.T, name, start, stop string) executor.Resource {
	r := executor.Resource{Kind: executor.KindApplication, Name: name, Group: "rg", App: &cluster.ApplicationController{Name: name,
		StartScript: executortest.Script(t, w.dir, name+".start", start), StopScript: executortest.Script(t, w.dir, name+".stop", stop)}}
	t.Cleanup(func() {
		if err := w.run.EndScope(context.Background(), executor.ScopeOf(r), 0, 0); err != nil {
			t.Error(err)
		}
	})
	return r
}

// daemon is an application with one process, whose number stands in a file.
func (w world) daemon(t *testing.T, name string) executor.Resource {
	pid := filepath.Join(w.dir, name+".pid")
	return w.app(t, name, "sleep 1000 & echo $! >"+pid, "kill $(cat "+pid+"); rm "+pid)
}

func (w world) present(_ *testing.T, r executor.Resource) bool {
	pid, err := os.ReadFile(filepath.Join(w.dir, r.Name+".pid"))
	if err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestConformance(t *testing.T) {
	for name, root := range map[string]string{"cgroup": "", "marker": "none"} {
		t.Run(name, func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executortest.Subject {
				w := newWorld(t, root, nil)
				return executortest.Subject{
					Executor: w.x,
					Resource: func(t *testing.T, n int) executor.Resource { return w.daemon(t, fmt.Sprintf("app%d", n)) },
					Present:  w.present,
					Invalid: func(t *testing.T) executor.Resource {
						r := w.daemon(t, "bad")
						r.App.StopScript = filepath.Join(w.dir, "none")
						return r
					},
					Slow: func(t *testing.T, start bool) executor.Resource {
						if start {
							return w.app(t, "slow", "sleep 1000", "exit 0")
						}
						return w.app(t, "slow", "sleep 1000 & echo $! >"+w.dir+"/slow.pid", "sleep 1000")
					},
					Stubborn: func(t *testing.T) executor.Resource {
						r := w.app(t, "stubborn", "sleep 1000 & echo $! >"+w.dir+"/stubborn.pid", "echo no; exit 1")
						if res := w.x.Start(t.Context(), r); res.Err != nil {
							t.Fatal(res)
						}
						return r
					},
					Blind: func(t *testing.T) executor.Resource {
						r := w.app(t, "blind", "exit 1", "exit 1")
						w.x.Start(t.Context(), r)
						return r
					},
				}
			})
		})
	}
}

func TestConformanceCatchesLiars(t *testing.T) { executortest.Mutants(t, "TestConformance") }

func TestANoOpApplicationRunsUntilItIsStopped(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.app(t, "noop", "exit 0", "exit 0")
	expect(t, w.x.Probe(t.Context(), r), executor.Stopped, "")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "ended with 0")
	expect(t, w.x.Probe(t.Context(), r), executor.Running, "no more can be seen")
	again := script.New(script.Options{Runner: w.run}) // a restarted daemon
	expect(t, again.Probe(t.Context(), r), executor.Running, "")
	expect(t, again.Stop(t.Context(), r), executor.Stopped, "ended with 0")
	expect(t, w.x.Probe(t.Context(), r), executor.Stopped, "")
}

func TestADeadApplicationIsSeenAndItsStopScriptStillRuns(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.daemon(t, "app")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	if err := w.run.EndScope(t.Context(), executor.ScopeOf(r), 0, 0); err != nil {
		t.Fatal(err)
	}
	expect(t, w.x.Probe(t.Context(), r), executor.Stopped, "no process")
	r.App.StopScript = executortest.Script(t, w.dir, "note", "touch "+w.dir+"/stopped")
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
	if _, err := os.Stat(w.dir + "/stopped"); err != nil {
		t.Error("the stop script did not run after the application died: ", err)
	}
}

func TestAFailedStartIsUnknownUntilItsStopScriptHasRun(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.app(t, "app", "sleep 1000 & echo $! >"+w.dir+"/app.pid; echo no licence; exit 4", "exit 0")
	res := w.x.Start(t.Context(), r)
	expect(t, res, executor.Unknown, `exit status 4: "no licence"`)
	if w.present(t, r) {
		t.Error("a process of the failed start lives")
	}
	expect(t, w.x.Probe(t.Context(), r), executor.Unknown, "stop script has not run")
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
}

func TestADaemonThatDiedBeforeItNotedASuccessAdoptsTheApplication(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.daemon(t, "app")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	notes, err := filepath.Glob(w.run.Dir() + "/applications/*")
	if err != nil || len(notes) != 1 {
		t.Fatal(notes, err)
	}
	text, err := os.ReadFile(notes[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(notes[0], []byte(strings.Replace(string(text), `"started"`, `"starting"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, w.x.Probe(t.Context(), r), executor.Running, "live")
	r.App.StartScript = executortest.Script(t, w.dir, "never", "exit 9")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "live")
	if err := os.WriteFile(notes[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, w.x.Probe(t.Context(), r), executor.Unknown, "damaged")
	if err := os.Remove(notes[0]); err != nil {
		t.Fatal(err)
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
}

func TestCleanupAndRestart(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.daemon(t, "app")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	// The stop script of an application that is dead already fails; what is left must end nevertheless.
	r.App.StopScript = executortest.Script(t, w.dir, "fails", "exit 1")
	if err := w.x.Cleanup(t.Context(), r, ""); err != nil || w.present(t, r) {
		t.Fatalf("clean up: %v", err)
	}
	method := executortest.Script(t, w.dir, "method", "touch "+w.dir+"/restarted; exec "+r.App.StartScript)
	if err := w.x.Restart(t.Context(), r, method); err != nil || !w.present(t, r) {
		t.Fatalf("restart: %v", err)
	}
	if _, err := os.Stat(w.dir + "/restarted"); err != nil {
		t.Error(err)
	}
	expect(t, w.x.Probe(t.Context(), r), executor.Running, "live")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.x.Cleanup(ctx, r, ""); err == nil || !w.present(t, r) {
		t.Errorf("a clean-up that was cancelled: %v", err)
	}
}

func TestAMonitorDecidesWhatProcessesCannotSay(t *testing.T) {
	state, says := executor.Stopped, "monitor m says no"
	w := newWorld(t, "", func(context.Context, executor.Resource) (executor.Status, string) { return state, says })
	r := w.app(t, "db", "exit 0", "exit 0")
	expect(t, w.x.Probe(t.Context(), r), executor.Stopped, says)
	state = executor.Running
	expect(t, w.x.Probe(t.Context(), r), executor.Running, says)
	r.App.StartScript = executortest.Script(t, w.dir, "never", "exit 9")
	expect(t, w.x.Start(t.Context(), r), executor.Running, says) // up already: the start script is skipped
	res := w.x.Stop(t.Context(), r)
	expect(t, res, executor.Running, says)
	if res.Err == nil {
		t.Error("a stop that left the application running is no error")
	}
}

func TestBackgroundStartIsNotAwaited(t *testing.T) {
	w := newWorld(t, "", nil)
	r := w.app(t, "bg", "echo $$ >"+w.dir+"/bg.pid; sleep 1000", "exit 0")
	r.App.StartupMode = "background"
	expect(t, w.x.Start(t.Context(), r), executor.Running, "background")
	expect(t, w.x.Probe(t.Context(), r), executor.Running, "live")
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
	if w.present(t, r) {
		t.Error("the script lives on after the stop")
	}
}

func TestScriptsGetTheirEnvironment(t *testing.T) {
	w := newWorld(t, "", nil)
	t.Setenv("NOTIFY_SOCKET", "/run/secret")
	r := w.app(t, "env", "env >"+w.dir+"/env", "exit 0")
	r.App.StartTimeout = time.Minute
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	got, err := os.ReadFile(w.dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HOLDFAST_GROUP=rg\n", "HOLDFAST_NODE=n1\n", "HOLDFAST_RESOURCE=env\n", "GROUPNAME=rg\n",
		"LOCALNODENAME=n1\n", "LC_ALL=C\n", "HOLDFAST_ACTION="} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is missing in the environment:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "NOTIFY_SOCKET") {
		t.Error("the daemon's own environment reaches the application")
	}
}

func expect(t *testing.T, res executor.Result, want executor.Status, detail string) {
	t.Helper()
	if res.Status != want || !strings.Contains(res.Detail, detail) {
		t.Fatalf("got %s: %s (%v), wanted %s and %q", res.Status, res.Detail, res.Err, want, detail)
	}
}
