package executor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

var app = executor.Scope{Group: "app_rg", Kind: executor.KindApplication, Name: "app"}

// modes are the two ways in which descendants are found.
func modes(t *testing.T, f func(t *testing.T, cgroups string)) {
	for name, root := range map[string]string{"cgroup": "", "marker": "none"} {
		t.Run(name, func(t *testing.T) { f(t, root) })
	}
}

func TestRunReturnsExitOutputAndEnvironment(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		r := executortest.Runner(t, root)
		dir := executortest.ScriptDir(t)
		out := r.Run(t.Context(), executor.Command{Scope: app, Op: "stop", Env: []string{"A=b c"}, Stdin: []byte("line\n"),
			Path: executortest.Script(t, dir, "s", `read x; echo "$x|$A|$LC_ALL|$1"; pwd; echo oops >&2; exit 3`), Args: []string{"$(id) *"}})
		if out.Exit != 3 || out.Output != "line|b c|C|$(id) *\n/\noops\n" {
			t.Errorf("exit %d, output %q", out.Exit, out.Output)
		}
		if out.Err == nil || !strings.Contains(out.Err.Error(), `exit status 3: "oops"`) {
			t.Errorf("error %v does not name status and last line", out.Err)
		}
		nothingPending(t, r)
	})
}

func TestRunKillsDescendantsOnTimeout(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		r := executortest.Runner(t, root)
		dir := executortest.ScriptDir(t)
		// The grandchild leaves process group and session, and closes nothing.
		script := executortest.Script(t, dir, "s", `trap "" TERM; setsid sleep 1000 & echo $! >`+dir+`/pid; sleep 1000`)
		out := r.Run(t.Context(), executor.Command{Scope: app, Op: "stop", Path: script, Timeout: 300 * time.Millisecond})
		if !errors.Is(out.Err, executor.ErrTimeout) {
			t.Fatalf("error %v, wanted a timeout", out.Err)
		}
		gone(t, readPID(t, dir+"/pid"))
		nothingPending(t, r)
	})
}

func TestRunEndsWhenItsCallerCancels(t *testing.T) {
	r := executortest.Runner(t, "")
	dir := executortest.ScriptDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = os.ReadFile(fifo) // the script has begun
		cancel()
	}()
	out := r.Run(ctx, executor.Command{Scope: app, Op: "start", Keep: true, Path: executortest.Script(t, dir, "s",
		`sleep 1000 & echo $! >`+dir+`/pid; echo >`+fifo+`; wait`)})
	if !errors.Is(out.Err, context.Canceled) {
		t.Fatalf("error %v, wanted the cancellation", out.Err)
	}
	gone(t, readPID(t, dir+"/pid"))
}

func TestStopLeavesNothingBehindAndStartKeepsItsProcesses(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		r := executortest.Runner(t, root)
		dir := executortest.ScriptDir(t)
		script := executortest.Script(t, dir, "s", `(while :; do echo x; sleep 0.01; done) & echo $! >`+dir+`/pid`)
		out := r.Run(t.Context(), executor.Command{Scope: app, Op: "stop", Path: script})
		if out.Err != nil {
			t.Fatal(out.Err)
		}
		gone(t, readPID(t, dir+"/pid"))

		if out = r.Run(t.Context(), executor.Command{Scope: app, Op: "start", Path: script, Keep: true}); out.Err != nil {
			t.Fatal(out.Err)
		}
		pid := readPID(t, dir+"/pid")
		if alive, err := r.Alive(app); !alive || err != nil {
			t.Errorf("the application is not seen: %v, %v", alive, err)
		}
		pids, err := r.Processes(app)
		if err != nil || len(pids) == 0 || syscall.Kill(pid, 0) != nil {
			t.Fatalf("processes %v, %v, wanted %d among them", pids, err, pid)
		}
		nothingPending(t, r)
		if err := r.EndScope(t.Context(), app, syscall.SIGTERM, time.Second); err != nil {
			t.Fatal(err)
		}
		gone(t, pid)
	})
}

func TestConfigTooLongIsRaisedAndRepeated(t *testing.T) {
	r := executortest.Runner(t, "")
	dir := executortest.ScriptDir(t)
	var n atomic.Int32
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	out := r.Run(t.Context(), executor.Command{Scope: app, Op: "stop", Path: executortest.Script(t, dir, "s", "read x <"+fifo),
		WarnAfter: time.Millisecond, WarnEvery: time.Millisecond, Warn: func(_ executor.Command, _ time.Duration) {
			if n.Add(1) == 3 {
				go func() { _ = os.WriteFile(fifo, []byte("go\n"), 0) }()
			}
		}})
	if out.Err != nil || n.Load() < 3 {
		t.Errorf("raised %d times, %v", n.Load(), out.Err)
	}
}

// The time after which it is raised can change under way, for what has none of its own.
func TestConfigTooLongFollowsTheRunner(t *testing.T) {
	r := executortest.Runner(t, "")
	dir := executortest.ScriptDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r.SetWarnAfter(time.Millisecond)
	var once sync.Once
	out := r.Run(t.Context(), executor.Command{Scope: app, Op: "stop", Path: executortest.Script(t, dir, "s", "read x <"+fifo), Timeout: time.Minute,
		Warn: func(executor.Command, time.Duration) {
			once.Do(func() { go func() { _ = os.WriteFile(fifo, []byte("go\n"), 0) }() })
		}})
	if out.Err != nil { // nobody has written: it was not raised
		t.Error(out.Err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	r := executortest.Runner(t, "")
	dir := executortest.ScriptDir(t)
	for _, keep := range []bool{false, true} {
		out := r.Run(t.Context(), executor.Command{Scope: app, Op: "run", Keep: keep, Path: executortest.Script(t, dir, "s",
			`echo first; head -c 300000 /dev/zero | tr '\0' x; echo; echo last`)})
		if len(out.Output) > executor.DefaultOutputLimit+100 || !strings.HasPrefix(out.Output, "first\n") ||
			!strings.HasSuffix(out.Output, "x\nlast\n") || !strings.Contains(out.Output, "bytes left out") {
			t.Errorf("keep %v: %d bytes: %.20q ... %.20q", keep, len(out.Output), out.Output, out.Output[len(out.Output)-20:])
		}
	}
}

// TestMain lets the test binary be a daemon that is killed while an action runs.
func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_TEST_DAEMON") != "" {
		daemon()
	}
	os.Exit(m.Run())
}

func daemon() {
	if oom := os.Getenv("OOM"); oom != "" {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oom), 0)
	}
	r, err := executor.NewRunner(executor.RunnerOptions{Dir: os.Getenv("DIR"), Node: "n1", CgroupRoot: os.Getenv("CGROUPS")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c := executor.Command{Scope: app, Op: "start", Keep: true, Path: os.Getenv("SCRIPT")}
	if os.Getenv("UNRECORDED") != "" {
		c.Op, c.Keep, c.Unrecorded = "monitor", false, true
	}
	out := r.Run(executor.WithGeneration(context.Background(), 7), c)
	r.Close()
	fmt.Println(out.Err)
	os.Exit(0)
}

// startDaemon runs the script under a runner in another process, and returns when the script has printed into the fifo.
func startDaemon(t *testing.T, dir, root, script string) *exec.Cmd {
	t.Helper()
	fifo := filepath.Join(filepath.Dir(script), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_DAEMON=1", "DIR="+dir, "CGROUPS="+root, "SCRIPT="+script)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := os.ReadFile(fifo); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestA8AnOrphanOfAKilledDaemonIsEndedBeforeItsGroupIsReported(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		state, dir := t.TempDir(), executortest.ScriptDir(t)
		script := executortest.Script(t, dir, "start", `setsid sleep 1000 & echo $! >`+dir+`/child; echo $$ >`+dir+`/pid
			echo >`+dir+`/fifo; sleep 1000; touch `+dir+`/mounted`)
		cmd := startDaemon(t, state, root, script)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		pid, child := readPID(t, dir+"/pid"), readPID(t, dir+"/child")
		if syscall.Kill(pid, 0) != nil || syscall.Kill(child, 0) != nil {
			t.Fatal("the orphans did not survive the daemon, so this test shows nothing")
		}
		r, err := executor.NewRunner(executor.RunnerOptions{Dir: state, Node: "n1", CgroupRoot: root})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		ended, err := r.Recover(t.Context())
		if err != nil || len(ended) != 1 || ended[0].Group != "app_rg" || ended[0].Generation != 7 || ended[0].Op != "start" {
			t.Fatalf("recovered %+v, %v", ended, err)
		}
		gone(t, pid)
		gone(t, child)
		if alive, err := r.Alive(app); alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
		nothingPending(t, r)
	})
}

func TestAnApplicationSurvivesItsDaemon(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		state, dir := t.TempDir(), executortest.ScriptDir(t)
		script := executortest.Script(t, dir, "start", `sleep 1000 & echo $! >`+dir+`/pid; (echo; sleep 0.2) >`+dir+`/fifo`)
		cmd := startDaemon(t, state, root, script)
		_ = cmd.Wait() // the action has ended with success, and the daemon with it
		pid := readPID(t, dir+"/pid")
		r, err := executor.NewRunner(executor.RunnerOptions{Dir: state, Node: "n1", CgroupRoot: root})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		if ended, err := r.Recover(t.Context()); err != nil || len(ended) != 0 {
			t.Fatalf("recovered %+v, %v, wanted nothing", ended, err)
		}
		if alive, err := r.Alive(app); !alive || err != nil || syscall.Kill(pid, 0) != nil {
			t.Errorf("the application does not live any more: %v, %v", alive, err)
		}
		if err := r.EndScope(t.Context(), app, 0, 0); err != nil {
			t.Fatal(err)
		}
		gone(t, pid)
	})
}

func TestCheckScriptNamesTheComponentAndTheFix(t *testing.T) {
	dir := executortest.ScriptDir(t)
	good := executortest.Script(t, dir, "good", "")
	plain := executortest.Script(t, dir, "plain", "")
	open := executortest.Script(t, dir, "open", "")
	must(t, os.Chmod(plain, 0o644), os.Chmod(open, 0o777), os.Mkdir(dir+"/shared", 0o755), os.Chmod(dir+"/shared", 0o775))
	inShared := executortest.Script(t, dir+"/shared", "s", "")
	must(t, os.Symlink(good, dir+"/link"), os.Symlink(dir+"/shared/../good", dir+"/around"), os.Symlink("loop", dir+"/loop"))
	inTmp := executortest.Script(t, t.TempDir(), "s", "")
	for path, want := range map[string]string{
		good: "", dir + "/link": "", plain: "is not executable; fix: chmod 0755 " + plain, open: "fix: chmod go-w " + open,
		inShared: "fix: chmod go-w " + dir + "/shared", dir + "/around": dir + "/shared can be written by its group",
		dir + "/none": dir + "/none does not exist", dir: "is not a regular file but a directory", "good": "not an absolute path",
		dir + "/loop": "symbolic links", inTmp: "sticky directory",
	} {
		err := executor.CheckScript(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, executor.ErrUnsafe)) {
			t.Errorf("%s: %v, wanted %q", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(plain, 12345, -1), os.Chmod(plain, 0o755))
		if err := executor.CheckScript(plain); err == nil || !strings.Contains(err.Error(), "chown root "+plain) {
			t.Errorf("a script of another user: %v", err)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func readPID(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Scan()
	pid, err := strconv.Atoi(s.Text())
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone fails unless the process has ended (it may be a zombie that init has not reaped yet).
func gone(t *testing.T, pid int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") X ") {
		t.Errorf("process %d still lives: %s", pid, stat)
	}
}

func nothingPending(t *testing.T, r *executor.Runner) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir(), "actions", "*"))
	if err != nil || len(files) != 0 {
		t.Errorf("action records stay behind: %v, %v", files, err)
	}
}
