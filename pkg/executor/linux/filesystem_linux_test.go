package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

func fileSystem(name, device, point, fsType, options string) executor.Resource {
	return executor.Resource{Kind: executor.KindFileSystem, Name: name, Group: "rg", FileSystem: &cluster.FileSystem{Name: name,
		Device: device, MountPoint: point, Type: fsType, Options: options, StopTimeout: 2 * time.Second}}
}

func newFS(t *testing.T) *FileSystems {
	return NewFileSystem(FileSystemOptions{Runner: executortest.Runner(t, "")})
}

// image makes a file with an ext4 file system.
func image(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	check(t, err)
	check(t, f.Truncate(4<<20))
	check(t, f.Close())
	tool(t, "mkfs.ext4", "-q", "-F", path)
	return path
}

// tool runs a program, and unmounts nothing: what the tests mount goes away with their mount namespace.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := findTool(name)
	check(t, err)
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func mounted(t *testing.T, r executor.Resource) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	check(t, err)
	return strings.Contains(string(table), " "+r.FileSystem.MountPoint+" ")
}

func unmountAtEnd(t *testing.T, r executor.Resource) {
	t.Cleanup(func() {
		for unix.Unmount(r.FileSystem.MountPoint, unix.MNT_DETACH) == nil { //nolint:revive // until nothing is left
		}
	})
}

func TestFileSystemConformanceCatchesLiars(t *testing.T) {
	executortest.Mutants(t, "TestFileSystemConformance")
}

func TestFileSystemConformance(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, dir string, n int) executor.Resource{
		"loop": func(t *testing.T, dir string, n int) executor.Resource {
			name := fmt.Sprint("fs", n)
			return fileSystem(name, image(t, dir, name), filepath.Join(dir, "mnt", name), "ext4", "loop,noatime")
		},
		"bind": func(t *testing.T, dir string, n int) executor.Resource {
			name := fmt.Sprint("fs", n)
			check(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			return fileSystem(name, filepath.Join(dir, name), filepath.Join(dir, "mnt", name), "bind", "")
		},
		"tmpfs": func(_ *testing.T, dir string, n int) executor.Resource {
			name := fmt.Sprint("fs", n)
			return fileSystem(name, name, filepath.Join(dir, "mnt", "with blank "+name), "tmpfs", "size=1m")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "loop" {
				needLoop(t)
			}
			executortest.Run(t, func(t *testing.T) executortest.Subject {
				dir := t.TempDir()
				return executortest.Subject{
					Executor: newFS(t),
					Resource: func(t *testing.T, n int) executor.Resource {
						r := make(t, dir, n)
						unmountAtEnd(t, r)
						return r
					},
					Present: func(t *testing.T, r executor.Resource) bool {
						p := r
						f := *r.FileSystem
						f.MountPoint = strings.ReplaceAll(f.MountPoint, " ", `\040`)
						p.FileSystem = &f
						return mounted(t, p)
					},
					Invalid: func(*testing.T) executor.Resource {
						return fileSystem("bad", filepath.Join(dir, "none"), "relative/point", "ext4", "")
					},
					Stubborn: func(t *testing.T) executor.Resource {
						r := make(t, dir, 7)
						unmountAtEnd(t, r)
						if res := newFS(t).Start(t.Context(), r); res.Err != nil {
							t.Fatal(res)
						}
						inside := filepath.Join(r.FileSystem.MountPoint, "inside")
						check(t, os.Mkdir(inside, 0o755))
						check(t, unix.Mount("none", inside, "tmpfs", 0, ""))
						t.Cleanup(func() { _ = unix.Unmount(inside, unix.MNT_DETACH) })
						return r
					},
				}
			})
		})
	}
}

// needLoop leaves a test out where there is no right to loop devices (in a user namespace); CI has it.
func needLoop(t *testing.T) {
	t.Helper()
	if err := unix.Access("/dev/loop-control", unix.W_OK); err != nil {
		t.Skip("no right to use loop devices: ", err)
	}
}

func started(t *testing.T, r executor.Resource) *FileSystems {
	t.Helper()
	x := newFS(t)
	unmountAtEnd(t, r)
	if res := x.Start(t.Context(), r); res.Err != nil || res.Status != executor.Running {
		t.Fatalf("start: %+v", res)
	}
	return x
}

func tmpfs(t *testing.T) executor.Resource {
	return fileSystem("fs", "none", filepath.Join(t.TempDir(), "mnt"), "tmpfs", "")
}

// holder starts a process that holds the directory, and ignores SIGTERM if it is stubborn.
func holder(t *testing.T, dir string, stubborn bool) *exec.Cmd {
	t.Helper()
	script := "cd " + dir + "; "
	if stubborn {
		script += "trap '' TERM; "
	}
	cmd := exec.Command("/bin/sh", "-c", script+"echo ready; while :; do sleep 1000; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	_, err = bufio.NewReader(out).ReadString('\n')
	check(t, err)
	return cmd
}

func TestUsersOfAMountAreEndedBeforeItIsUnmounted(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		r := tmpfs(t)
		x := started(t, r)
		cmd := holder(t, r.FileSystem.MountPoint, stubborn)
		file, err := os.Create(filepath.Join(r.FileSystem.MountPoint, "f"))
		check(t, err)
		check(t, file.Close())
		if res := x.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil || mounted(t, r) {
			t.Fatalf("stop, holder stubborn %v: %+v", stubborn, res)
		}
		_ = cmd.Wait()
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if want := map[bool]syscall.Signal{false: syscall.SIGTERM, true: syscall.SIGKILL}[stubborn]; ws.Signal() != want {
			t.Errorf("the holder ended by %v, wanted %v", ws.Signal(), want)
		}
	}
}

func TestABusyMountIsNeverReportedAsStopped(t *testing.T) {
	r := tmpfs(t)
	x := started(t, r)
	f, err := os.Create(filepath.Join(r.FileSystem.MountPoint, "held by the daemon itself"))
	check(t, err)
	r.FileSystem.StopTimeout = 300 * time.Millisecond
	res := x.Stop(t.Context(), r)
	if res.Err == nil || res.Status != executor.Running || !mounted(t, r) {
		t.Fatalf("stop of a busy mount: %+v", res)
	}
	if want := fmt.Sprintf("%d (%s, has open %s)", os.Getpid(), commandOf("self"), f.Name()); !strings.Contains(res.Detail, want) {
		t.Errorf("the holder %q is not named: %s", want, res.Detail)
	}
	check(t, f.Close())
	if res := x.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil {
		t.Errorf("second stop: %+v", res)
	}
}

func TestAMountInAnotherNamespaceIsNotStopped(t *testing.T) {
	needLoop(t)
	dir := t.TempDir()
	r := fileSystem("fs", image(t, dir, "img"), filepath.Join(dir, "mnt"), "ext4", "loop")
	x := started(t, r)
	cmd := exec.Command("/bin/sh", "-c", "echo ready; read x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	_, err = bufio.NewReader(out).ReadString('\n')
	check(t, err)
	res := x.Stop(t.Context(), r)
	if res.Status != executor.Unknown || res.Err == nil || !strings.Contains(res.Detail, fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("stop while another namespace has the mount: %+v", res)
	}
	check(t, in.Close())
	_ = cmd.Wait()
	if res := x.Stop(t.Context(), r); res.Status != executor.Stopped || res.Err != nil {
		t.Errorf("stop afterwards: %+v", res)
	}
}

func TestFsckCorrectsOrRefuses(t *testing.T) {
	needLoop(t)
	dir := t.TempDir()
	small := fileSystem("small", image(t, dir, "small"), filepath.Join(dir, "mnt1"), "", "loop")
	tool(t, "debugfs", "-w", "-R", "ssv free_blocks_count 5", small.FileSystem.Device)
	tool(t, "debugfs", "-w", "-R", "ssv state 2", small.FileSystem.Device)
	unmountAtEnd(t, small)
	x := newFS(t)
	if res := x.Start(t.Context(), small); res.Err != nil || !strings.Contains(res.Detail, "fsck corrected") {
		t.Errorf("start of a file system with a small fault: %+v", res)
	}
	if res := x.Stop(t.Context(), small); res.Err != nil {
		t.Error(res)
	}

	bad := fileSystem("bad", image(t, dir, "bad"), filepath.Join(dir, "mnt2"), "ext4", "loop")
	tool(t, "debugfs", "-w", "-R", "clri <2>", bad.FileSystem.Device) // the root directory
	tool(t, "debugfs", "-w", "-R", "ssv state 2", bad.FileSystem.Device)
	unmountAtEnd(t, bad)
	if res := x.Start(t.Context(), bad); res.Err == nil || res.Status != executor.Stopped || !strings.Contains(res.Detail, "run fsck by hand") {
		t.Errorf("start of a file system with a grave fault: %+v", res)
	}
	bad.FileSystem.Check = "none"
	if res := x.Start(t.Context(), bad); res.Err == nil || res.Status != executor.Stopped || !strings.Contains(res.Detail, "mount file system bad") {
		t.Errorf("start without a check: %+v", res)
	}
}

func TestProbeSeesMoreThanTheMountPoint(t *testing.T) {
	needLoop(t)
	dir := t.TempDir()
	r := fileSystem("fs", image(t, dir, "img"), filepath.Join(dir, "mnt"), "ext4", "loop")
	x := started(t, r)
	expect := func(want executor.Status, detail string) {
		t.Helper()
		if res := x.Probe(t.Context(), r); res.Status != want || !strings.Contains(res.Detail, detail) {
			t.Errorf("%+v, wanted %s and %q", res, want, detail)
		}
	}
	check(t, unix.Mount("none", r.FileSystem.MountPoint, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	expect(executor.Degraded, "read-only")
	check(t, unix.Mount("none", r.FileSystem.MountPoint, "", unix.MS_REMOUNT, ""))
	expect(executor.Running, "")
	check(t, unix.Mount("cover", r.FileSystem.MountPoint, "tmpfs", 0, ""))
	expect(executor.Degraded, "cover lies over it")
	if res := x.Stop(t.Context(), r); res.Err == nil || res.Status == executor.Stopped {
		t.Errorf("stop of a covered mount: %+v", res)
	}
	check(t, unix.Unmount(r.FileSystem.MountPoint, 0))
	if res := x.Stop(t.Context(), r); res.Err != nil {
		t.Errorf("%+v", res)
	}

	// The device is mounted somewhere else.
	other := fileSystem("fs", r.FileSystem.Device, filepath.Join(dir, "other"), "ext4", "loop")
	started(t, other)
	expect(executor.Degraded, "instead of")
	if res := x.Start(t.Context(), r); res.Err == nil {
		t.Errorf("start of a file system that is mounted elsewhere: %+v", res)
	}
	if res := x.Stop(t.Context(), r); res.Err != nil || mounted(t, other) {
		t.Errorf("stop of a file system that is mounted elsewhere: %+v", res)
	}

	// Something else sits on the point.
	check(t, unix.Mount("foreign", r.FileSystem.MountPoint, "tmpfs", 0, ""))
	expect(executor.Stopped, "foreign is mounted")
	if res := x.Start(t.Context(), r); res.Err == nil || !strings.Contains(res.Detail, "foreign is mounted") {
		t.Errorf("start on an occupied point: %+v", res)
	}
	check(t, unix.Unmount(r.FileSystem.MountPoint, 0))
}

func TestADeviceThatIsNotThere(t *testing.T) {
	x := newFS(t)
	r := fileSystem("fs", "/dev/none-of-that-name", filepath.Join(t.TempDir(), "mnt"), "ext4", "")
	if res := x.Probe(t.Context(), r); res.Status != executor.Stopped {
		t.Errorf("probe: %+v", res)
	}
	if res := x.Start(t.Context(), r); res.Err == nil || res.Status != executor.Stopped || !strings.Contains(res.Detail, "no such file") {
		t.Errorf("start: %+v", res)
	}
	r.FileSystem.Device = "UUID=00000000-dead-beef"
	if err := x.Validate(t.Context(), r); err == nil || !strings.Contains(err.Error(), "UUID=00000000-dead-beef") {
		t.Errorf("validate: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("released"))
	ok := tmpfs(t)
	if res := x.Start(ctx, ok); res.Err == nil || mounted(t, ok) {
		t.Errorf("start under an ended context: %+v", res)
	}
}

func TestMountTable(t *testing.T) {
	text := `22 28 0:20 / /proc rw,relatime shared:5 - proc proc rw
36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 35 0:44 / /empty rw - tmpfs  rw,size=4k
`
	got, err := parseMounts(text)
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	if m := got[1]; m.point != "/mnt two" || m.root != "/mnt1" || m.major != 98 || m.source != "/dev/root" || m.superOptions != "rw,errors=continue" {
		t.Errorf("%+v", m)
	}
	if m := got[2]; m.source != "" || m.superOptions != "rw,size=4k" {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"x\n", "1 2 3 4 5 6 - a b\n", "1 2 a:b / / rw - t s o\n", "\n"} {
		if _, err := parseMounts(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
