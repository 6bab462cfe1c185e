package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startNormally starts the program with normal scheduling even if the daemon runs at a high priority, and in the cgroup from
// its first instruction on.
func startNormally(cmd *exec.Cmd, g *cgroup) error {
	if g != nil {
		fd, err := unix.Open(g.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) { // swept away, still empty, by another runner
			_ = os.MkdirAll(g.dir, 0o755)
			fd, err = unix.Open(g.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return fmt.Errorf("open the action's cgroup: %w", err)
		}
		defer unix.Close(fd)
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
	}
	// A child inherits policy and nice value of the thread that forks. That thread is set back first; raising it again would
	// need a privilege and could fail, so it ends with its goroutine, which stays locked to it (the main thread, if it is that
	// one, is parked for ever instead). The runtime makes new threads from one that is never changed.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		changed, err := resetScheduling()
		// The daemon lets timers of some of its threads be late; a child inherits the forking thread's slack. This comes after
		// the policy, because a real-time thread has no slack that could be set.
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, usualTimerSlack, 0, 0, 0)
		if err == nil {
			err = cmd.Start()
		}
		// A kernel before 5.7, or one that does not let us into that cgroup: the marker has to do.
		if g != nil && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.E2BIG)) {
			cmd.SysProcAttr.UseCgroupFD = false
			err = cmd.Start()
		}
		if !changed {
			runtime.UnlockOSThread()
		}
		started <- err
	}()
	return <-started
}

// usualTimerSlack is the kernel's own, in nanoseconds.
const usualTimerSlack = 50000

// resetScheduling gives the calling thread the normal policy and nice value, and reports whether that changed anything.
func resetScheduling() (bool, error) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return false, fmt.Errorf("read the scheduling policy: %w", err)
	}
	if attr.Policy == unix.SCHED_NORMAL && attr.Nice >= 0 {
		return false, nil
	}
	normal := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if err := unix.SchedSetAttr(0, normal, 0); err != nil {
		return false, fmt.Errorf("set the scheduling policy back to normal: %w", err)
	}
	return true, nil
}

// resetOOMScore takes the daemon's protection from the out-of-memory killer off the child. What the child has forked in the
// meantime is treated too.
func resetOOMScore(pid int, g *cgroup) {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil || strings.TrimSpace(string(own)) == "0" {
		return
	}
	pids := []int{pid}
	if g != nil {
		more, _ := cgroupProcesses(g.dir)
		pids = append(pids, more...)
	}
	for _, p := range pids {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p), []byte("0"), 0)
	}
}

// awaitExit waits until the child has ended, and leaves it to be reaped, so that its number and its process group's stay ours.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func signalGroup(pid int, sig syscall.Signal) error { return syscall.Kill(-pid, sig) }

// Processes lists the numbers of the processes that this one can see, as the names that they have below /proc.
func Processes() ([]string, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	return slices.DeleteFunc(names, func(n string) bool { _, err := strconv.Atoi(n); return err != nil }), nil
}

// marked lists the processes whose environment names an action with that prefix, and with that part in the rest. A process that is just
// ending has no environment any more and is not listed.
func marked(prefix, part string) ([]int, error) {
	names, err := Processes()
	if err != nil {
		return nil, err
	}
	want := []byte(markerVariable + "=" + prefix)
	var out []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if hasVariable(environment(pid), want, []byte(part)) {
			out = append(out, pid)
		}
	}
	return out, nil
}

// environment is what a process was executed with; empty when it is gone, or was given none. While the kernel executes a program the
// process shows no environment, for the time of a few instructions, or of some tens of milliseconds on a busy machine: it would be taken
// for nobody's, and what an application left running for stopped. So it is looked at again, for up to half a second.
func environment(pid int) []byte {
	none := 0
	for try := range 12 {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || len(env) > 0 {
			return env
		}
		may, empty := executes(pid)
		if empty { // so it looks in the middle of an execution too, for a moment
			none++
		}
		if !may || none > 4 {
			return nil
		}
		if try >= 2 {
			pause(context.Background(), time.Millisecond<<(try-2))
		}
	}
	return nil
}

// executes reports whether a process may have an environment that it did not show, because the kernel executes a program there just now,
// or has done so since; empty, that what it has now is none. The fields are those of proc(5), less 3: 9 flags, 50 and 51 where the
// environment begins and ends.
func executes(pid int) (may, empty bool) {
	const kernelThread = 0x00200000 // PF_KTHREAD of the kernel's include/linux/sched.h
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false, false
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 49 || f[0] == "Z" || f[0] == "X" {
		return false, false
	}
	if flags, err := strconv.ParseUint(f[6], 10, 64); err != nil || flags&kernelThread != 0 {
		return false, false
	}
	return true, f[47] == f[48] && f[48] != "0"
}

// hasVariable reports whether one of the environment's variables begins with want and has part in its rest.
func hasVariable(env, want, part []byte) bool {
	for len(env) > 0 {
		var v []byte
		v, env, _ = bytes.Cut(env, []byte{0})
		if rest, ok := bytes.CutPrefix(v, want); ok && bytes.Contains(rest, part) {
			return true
		}
	}
	return false
}

// startTime is when the process started, in ticks since boot, or 0 when it is gone.
func startTime(pid int) uint64 {
	_, t := stat(pid)
	return t
}

// lives reports whether the process that started then still holds anything: neither gone nor waiting for its parent's look. One that
// is ending lives, it may have files open.
func lives(pid int, started uint64) bool {
	state, t := stat(pid)
	return t != 0 && t == started && state != "Z" && state != "X"
}

// stat is a process's state and when it started; both are empty when it is gone.
func stat(pid int) (state string, started uint64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// The command name may hold blanks and parentheses; what follows its last parenthesis does not.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 20 {
		return "", 0
	}
	started, _ = strconv.ParseUint(f[19], 10, 64)
	return f[0], started
}

func pidNamespace() string {
	ns, _ := os.Readlink("/proc/self/ns/pid")
	return ns
}

// bootID is the kernel's, with the PID namespace: a container's restart is a boot of its own.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(id)) + "/" + pidNamespace(), nil
}
