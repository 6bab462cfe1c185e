package executor_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

// A daemon that runs at a high priority, is spared by the out-of-memory killer and lets its timers be late gives none of this to
// its children.
func TestChildrenRunNormally(t *testing.T) {
	dir := executortest.ScriptDir(t)
	// Of /proc/PID/stat, the nice value and the scheduling policy; the OOM score and the timer slack; and the same of a grandchild.
	const one = `cut -d" " -f19,41 /proc/$$/stat; cat /proc/$$/oom_score_adj /proc/$$/timerslack_ns`
	look := one + "; sh -c '" + one + "'"
	script := executortest.Script(t, dir, "look", "("+look+") >"+dir+"/seen; "+`cat /proc/$PPID/task/*/stat | cut -d" " -f19,41 | sort -u >`+dir+`/daemon`)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_DAEMON=1", "OOM=-500", "DIR="+t.TempDir(), "SCRIPT="+script)
	started := make(chan error)
	go func() { // the daemon inherits the policy of the thread that starts it
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 4000000, 0, 0, 0); err != nil {
			t.Error(err)
		}
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -5); err != nil {
				t.Logf("no right to a high priority (%v): the daemon runs normally", err)
			}
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	daemon, err := os.ReadFile(dir + "/daemon")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("nice values and policies of the daemon's threads: %q", daemon)
	if os.Geteuid() == 0 && strings.TrimSpace(string(daemon)) == "0 0" {
		t.Error("the daemon did not get its priority, so this test shows nothing")
	}
	seen, err := os.ReadFile(dir + "/seen")
	if err != nil {
		t.Fatal(err)
	}
	if want := "0 0\n0\n50000\n0 0\n0\n50000\n"; string(seen) != want {
		t.Errorf("nice value, policy, OOM score and timer slack of child and grandchild: %q, wanted %q", seen, want)
	}
}

func TestRecoverEndsMonitorsOfAnEarlierDaemon(t *testing.T) {
	modes(t, func(t *testing.T, root string) {
		state, dir := t.TempDir(), executortest.ScriptDir(t)
		script := executortest.Script(t, dir, "monitor", `echo $$ >`+dir+`/pid; echo >`+dir+`/fifo; sleep 1000`)
		t.Setenv("UNRECORDED", "1")
		cmd := startDaemon(t, state, root, script)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		pid := readPID(t, dir+"/pid")
		r, err := executor.NewRunner(executor.RunnerOptions{Dir: state, Node: "n1", CgroupRoot: root})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		if ended, err := r.Recover(t.Context()); err != nil || len(ended) != 0 {
			t.Errorf("recovered %+v, %v", ended, err)
		}
		gone(t, pid)
	})
}

func TestOutputFilesStayWithinTheirBound(t *testing.T) {
	r := executortest.Runner(t, "")
	dir := executortest.ScriptDir(t)
	start := executor.Command{Scope: app, Op: "start", Keep: true, Path: executortest.Script(t, dir, "s",
		`(head -c 2000000 /dev/zero; echo >`+dir+`/fifo; read x <`+dir+`/fifo; echo more; echo >`+dir+`/fifo) &`)}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if out := r.Run(t.Context(), start); out.Err != nil {
		t.Fatal(out.Err)
	}
	wait := func() {
		t.Helper()
		if _, err := os.ReadFile(dir + "/fifo"); err != nil {
			t.Fatal(err)
		}
	}
	wait()
	if err := r.TrimOutputs(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/fifo", []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	wait()
	files, err := filepath.Glob(r.Dir() + "/output/*")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if text, err := os.ReadFile(files[0]); err != nil || string(text) != "more\n" {
		t.Errorf("%d bytes, %.20q, %v: the application does not go on at the end of the file that was cut", len(text), text, err)
	}
	if err := r.EndScope(t.Context(), app, 0, 0); err != nil {
		t.Fatal(err)
	}
}
