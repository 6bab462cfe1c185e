package monitor

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// program copies a program that only waits under a name of its own, so that no foreign process matches.
func program(t *testing.T, name string) string {
	t.Helper()
	from, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if path, err := filepath.EvalSymlinks(from); err == nil {
		from = path
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(t.TempDir(), name)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// An application whose processes are children of the test; they are reaped at once.
type application struct {
	t    *testing.T
	path string
	mu   sync.Mutex
	cmds []*exec.Cmd
}

func (a *application) start() *exec.Cmd {
	a.t.Helper()
	cmd := exec.Command(a.path, "1000")
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	a.mu.Lock()
	a.cmds = append(a.cmds, cmd)
	a.mu.Unlock()
	return cmd
}

func (a *application) killAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.cmds {
		_ = c.Process.Kill()
	}
}

func newApplication(t *testing.T, name string) *application {
	a := &application{t: t, path: program(t, name)}
	t.Cleanup(a.killAll)
	return a
}

func processMonitor(names ...string) cluster.ApplicationMonitor {
	return cluster.ApplicationMonitor{Name: "p", Type: TypeProcess, Processes: names, Stabilization: time.Hour}
}

// watching begins a watch whose events come over a channel.
func watching(t *testing.T, c Config) (*Watcher, <-chan Event) {
	t.Helper()
	events := make(chan Event, 100)
	c.App.Name = "app"
	c.Report = func(e Event) { events <- e }
	w := Watch(t.Context(), c)
	t.Cleanup(w.Stop)
	return w, events
}

func next(t *testing.T, events <-chan Event, want Kind) Event {
	t.Helper()
	select {
	case e := <-events:
		if e.Kind != want {
			t.Fatalf("event %+v, wanted %s", e, want)
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatalf("no event, wanted %s", want)
		return Event{}
	}
}

func TestADeathIsAnEventAndTheApplicationIsRestarted(t *testing.T) {
	app := newApplication(t, "hfmon-restart")
	first := app.start()
	restarted := make(chan time.Time, 10)
	_, events := watching(t, Config{Monitors: []cluster.ApplicationMonitor{processMonitor("hfmon-restart")}, Running: true,
		Cleanup: func(context.Context, string) error { restarted <- time.Now(); return nil },
		Restart: func(context.Context, string) error { app.start(); return nil }})
	for range 3 {
		app.mu.Lock()
		newest := app.cmds[len(app.cmds)-1]
		app.mu.Unlock()
		settled(t, newest.Process.Pid)
		killed := time.Now()
		if err := newest.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if e := next(t, events, Died); !strings.Contains(e.Detail, strconv.Itoa(newest.Process.Pid)) {
			t.Errorf("the death of %d is told as %q", newest.Process.Pid, e.Detail)
		}
		next(t, events, Restarting)
		t.Logf("from the kill to the restart: %s", (<-restarted).Sub(killed))
		next(t, events, Recovered)
	}
	_ = first
	app.killAll()
	next(t, events, Died)
	if e := next(t, events, Failed); e.Action != ActionNotify {
		t.Errorf("%+v", e)
	}
}

// settled waits until the process is being watched: this process has a second pidfd of it, beside that of package os.
func settled(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		infos, _ := filepath.Glob("/proc/self/fdinfo/*")
		n := 0
		for _, f := range infos {
			text, _ := os.ReadFile(f)
			if strings.Contains(string(text), fmt.Sprintf("\nPid:\t%d\n", pid)) {
				n++
			}
		}
		if n > 1 {
			return
		}
	}
	t.Fatalf("process %d is not watched", pid)
}

func TestInstancesAreCounted(t *testing.T) {
	app := newApplication(t, "hfmon-count")
	a, b := app.start(), app.start()
	m := processMonitor("hfmon-count")
	m.InstanceCount = 2
	none := 0
	m.RestartCount = &none
	m.FailureAction = ActionFallover
	_, events := watching(t, Config{Monitors: []cluster.ApplicationMonitor{m}, Running: true})
	settled(t, b.Process.Pid)
	c := app.start()
	if err := a.Process.Kill(); err != nil { // two are left
		t.Fatal(err)
	}
	settled(t, c.Process.Pid)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events, Died); !strings.Contains(e.Detail, "1 of 2 processes hfmon-count run") {
		t.Errorf("%+v", e)
	}
	if e := next(t, events, Failed); e.Action != ActionFallover {
		t.Errorf("%+v", e)
	}
}

func TestPIDFile(t *testing.T) {
	app := newApplication(t, "hfmon-pidfile")
	cmd := app.start()
	file := filepath.Join(t.TempDir(), "pid")
	m := cluster.ApplicationMonitor{Name: "p", Type: TypeProcess, PIDFile: file, Stabilization: time.Minute}
	c := Config{Monitors: []cluster.ApplicationMonitor{m}}
	expect := func(want State, text string) {
		t.Helper()
		if got, says := Look(t.Context(), c); got != want || !strings.Contains(says, text) {
			t.Errorf("%s: %s, wanted %s and %q", got, says, want, text)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(StateStopped, "does not exist")
	write("")
	expect(StateStopped, "no process number")
	write("-7\n")
	expect(StateStopped, "no process number")
	write(fmt.Sprintf("%d\n/data\n5432\n", cmd.Process.Pid))
	expect(StateRunning, "hfmon-pidfile")
	c.Monitors[0].Processes = []string{"other"}
	expect(StateStopped, "is hfmon-pidfile and not other")
	c.Monitors[0].Processes = []string{"hfmon-pidfile"}
	c.Monitors[0].Owner = strconv.Itoa(os.Getuid() + 1)
	expect(StateStopped, "does not belong to")
	c.Monitors[0].Owner = strconv.Itoa(os.Getuid())
	expect(StateRunning, "")

	_, events := watching(t, Config{Monitors: c.Monitors, Running: true, Cleanup: func(context.Context, string) error { return nil },
		Restart: func(context.Context, string) error { return fmt.Errorf("no") }})
	settled(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	next(t, events, Died)
	next(t, events, Restarting)
	if e := next(t, events, Died); !strings.Contains(e.Detail, "the restart did not succeed") {
		t.Errorf("%+v", e)
	}
}

func TestAnApplicationMayComeUpSlowly(t *testing.T) {
	app := newApplication(t, "hfmon-slow")
	m := processMonitor("hfmon-slow")
	m.Stabilization = time.Minute
	_, events := watching(t, Config{Monitors: []cluster.ApplicationMonitor{m}})
	if err := AwaitStartup(t.Context(), Config{Monitors: []cluster.ApplicationMonitor{}}); err != nil {
		t.Error(err)
	}
	m.Mode = ModeStartup
	up := make(chan error, 1)
	go func() { up <- AwaitStartup(t.Context(), Config{Monitors: []cluster.ApplicationMonitor{m}}) }()
	cmd := app.start()
	if err := <-up; err != nil {
		t.Error(err)
	}
	settled(t, cmd.Process.Pid)
	if len(events) != 0 {
		t.Errorf("an event while it came up: %+v", <-events)
	}
	// Within the stabilization, but seen once: its death counts at once.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	next(t, events, Died)
}

func TestNamesOfProcesses(t *testing.T) {
	p := process{comm: "postgres", argv0: "/usr/lib/postgresql/bin/postgres"}
	long := process{comm: "a-name-that-is-", argv0: "a-name-that-is-long"}
	kernel := process{comm: "kworker/u8:1-ev"}
	for _, c := range []struct {
		p    process
		name string
		want bool
	}{{p, "postgres", true}, {p, "/usr/lib/postgresql/bin/postgres", true}, {p, "/usr/bin/postgres", false}, {p, "postgre", false},
		{long, "a-name-that-is-long", true}, {long, "a-name-that-is-lost", false}, {kernel, "kworker", false}} {
		if got := c.p.is(c.name); got != c.want {
			t.Errorf("%+v is %q: %v", c.p, c.name, got)
		}
	}
	_, missing := matchNames(&cluster.ApplicationMonitor{Processes: []string{"a", "b"}, InstanceCount: 5}, -1,
		[]process{{pid: 1, comm: "a"}, {pid: 2, comm: "b"}})
	if missing != "" {
		t.Errorf("of several names one process each is enough: %s", missing)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
