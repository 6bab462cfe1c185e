package executor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// A process that executes one program after another is seen at any moment, also while the kernel is just executing one; else an
// application that has this moment begun would be said to be stopped.
func TestMarkedSeesAProcessThatExecutes(t *testing.T) {
	script := filepath.Join(t.TempDir(), "again")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec \"$0\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, script)
	cmd.Env = []string{markerVariable + "=test-of-exec/1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	looks, missed, bare := 0, 0, 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); looks++ {
		if env, err := os.ReadFile(filepath.Join("/proc", pidText(cmd), "environ")); err == nil && len(env) == 0 {
			bare++
		}
		found, err := marked("test-of-exec/", "")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(found, cmd.Process.Pid) {
			missed++
		}
	}
	t.Logf("%d looks, at %d of which it had no environment", looks, bare)
	if missed > 0 {
		t.Errorf("%d of %d looks missed a process that lives", missed, looks)
	}
}

// What has ended, what runs with no environment at all, and the kernel's own threads are nobody's, and cost no long wait.
func TestEnvironmentOfThoseWithoutOne(t *testing.T) {
	cmd := exec.Command("/usr/bin/env", "-i", "/bin/sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if args, err := os.ReadFile(filepath.Join("/proc", pidText(cmd), "cmdline")); err == nil && len(args) > 0 && args[0] == '/' && string(args[:10]) == "/bin/sleep" {
			break
		}
		pause(t.Context(), 10*time.Millisecond)
	}
	if env := environment(cmd.Process.Pid); len(env) != 0 {
		t.Errorf("a process without an environment has %q", env)
	}
	_ = cmd.Process.Kill()
	pause(t.Context(), 50*time.Millisecond)
	if may, _ := executes(cmd.Process.Pid); may {
		t.Error("a process that has ended is taken for one that executes")
	}
	_ = cmd.Wait()
	if may, _ := executes(cmd.Process.Pid); may || environment(cmd.Process.Pid) != nil {
		t.Error("a process that is gone is seen")
	}
}

func pidText(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }
