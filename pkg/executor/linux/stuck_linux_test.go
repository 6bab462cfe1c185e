package linux

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
)

const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozen mounts a file system on which every write waits in the kernel, where no signal reaches it, until thaw is called. A
// guard thaws it even if the test is killed.
func frozen(t *testing.T) (point string, thaw func()) {
	t.Helper()
	needLoop(t)
	dir := t.TempDir()
	r := fileSystem("fs", image(t, dir, "img"), filepath.Join(dir, "mnt"), "ext4", "loop")
	started(t, r)
	point = r.FileSystem.MountPoint
	fsfreeze, err := findTool("fsfreeze")
	check(t, err)
	guard := exec.Command("/bin/sh", "-c", `read x; exec "$0" -u "$1"`, fsfreeze, point)
	in, err := guard.StdinPipe()
	check(t, err)
	check(t, guard.Start())
	f, err := os.Open(point)
	check(t, err)
	check(t, unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0))
	done := false
	thaw = func() {
		if !done {
			done = true
			_ = unix.IoctlSetInt(int(f.Fd()), fiThaw, 0)
			_ = f.Close()
			_ = in.Close()
			_ = guard.Wait() // it finds nothing to thaw
		}
	}
	t.Cleanup(thaw)
	return point, thaw
}

func TestA8AKillThatDoesNotEndIsUnknown(t *testing.T) {
	for _, root := range []string{"", "none"} {
		point, thaw := frozen(t)
		state, dir := t.TempDir(), executortest.ScriptDir(t)
		options := executor.RunnerOptions{Dir: state, Node: "n1", CgroupRoot: root, KillWait: 100 * time.Millisecond}
		run, err := executor.NewRunner(options)
		check(t, err)
		t.Cleanup(run.Close)
		x := script.New(script.Options{Runner: run})
		r := executor.Resource{Kind: executor.KindApplication, Name: "app", Group: "rg", App: &cluster.ApplicationController{Name: "app",
			StartScript: executortest.Script(t, dir, "start", "exec touch "+point+"/file"), StopScript: executortest.Script(t, dir, "stop", ""),
			StartTimeout: 200 * time.Millisecond}}
		res := x.Start(t.Context(), r)
		if res.Status != executor.Unknown || !errors.Is(res.Err, executor.ErrStuck) {
			t.Fatalf("a start that hangs in the kernel: %+v", res)
		}
		for what, res := range map[string]executor.Result{"probe": x.Probe(t.Context(), r), "stop": x.Stop(t.Context(), r),
			"start": x.Start(t.Context(), r)} {
			if res.Status != executor.Unknown || res.Err == nil || !strings.Contains(res.Detail, "has not ended") {
				t.Errorf("%s while it hangs: %+v", what, res)
			}
		}
		// A new daemon finds the orphan and cannot end it either.
		next, err := executor.NewRunner(options)
		check(t, err)
		t.Cleanup(next.Close)
		if ended, err := next.Recover(t.Context()); len(ended) != 1 || !errors.Is(err, executor.ErrStuck) {
			t.Errorf("recovered %+v, %v", ended, err)
		}
		y := script.New(script.Options{Runner: next})
		if res := y.Probe(t.Context(), r); res.Status != executor.Unknown || !errors.Is(res.Err, executor.ErrStuck) {
			t.Errorf("probe of a new daemon: %+v", res)
		}
		if out := next.Run(t.Context(), executor.Command{Scope: executor.ScopeOf(r), Op: "stop", Path: r.App.StopScript}); out.Executed {
			t.Errorf("a command was executed beside an orphan: %+v", out)
		}
		thaw()
		waitUntil(t, "the orphan has ended", func() bool { return next.Blocked(executor.ScopeOf(r)) == nil })
		waitUntil(t, "its own daemon knows it", func() bool { return len(run.Unfinished(executor.ScopeOf(r))) == 0 })
		if res := y.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil {
			t.Errorf("stop after it has ended: %+v", res)
		}
	}
}

// A mount that hangs in the kernel may still succeed: that the mount table does not show it now says nothing.
func TestA8AMountThatDoesNotEndIsUnknown(t *testing.T) {
	point, thaw := frozen(t)
	dir := t.TempDir()
	tool, err := findTool("mount")
	check(t, err)
	slow := filepath.Join(dir, "mount")
	check(t, os.WriteFile(slow, []byte("#!/bin/sh\nexec touch "+point+"/file\n"), 0o755))
	check(t, unix.Mount(slow, tool, "", unix.MS_BIND, ""))
	t.Cleanup(func() { check(t, unix.Unmount(tool, 0)) })
	run, err := executor.NewRunner(executor.RunnerOptions{Dir: t.TempDir(), Node: "n1", KillWait: 100 * time.Millisecond})
	check(t, err)
	t.Cleanup(run.Close)
	x := NewFileSystem(FileSystemOptions{Runner: run})
	r := tmpfs(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if res := x.Start(ctx, r); res.Status != executor.Unknown || !errors.Is(res.Err, executor.ErrStuck) {
		t.Errorf("a mount that hangs in the kernel: %+v", res)
	}
	for what, res := range map[string]executor.Result{"probe": x.Probe(t.Context(), r), "stop": x.Stop(t.Context(), r)} {
		if res.Status != executor.Unknown || res.Err == nil {
			t.Errorf("%s while it hangs: %+v", what, res)
		}
	}
	thaw()
	waitUntil(t, "the mount has ended", func() bool { return len(run.Unfinished(executor.ScopeOf(r))) == 0 })
	if res := x.Probe(t.Context(), r); res.Status != executor.Stopped {
		t.Errorf("probe after it has ended: %+v", res)
	}
}
