package executor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file has been compiled for AIX, not run there.

func startNormally(cmd *exec.Cmd, _ *cgroup) error { return cmd.Start() }

func resetOOMScore(int, *cgroup) {}

// awaitExit asks ps until the child is a zombie: there is no way here to wait for it without reaping it.
func awaitExit(pid int) {
	for {
		// Signal 0 fails only when the process has been reaped, and a zombie is not; ps shows it as <defunct>.
		out, err := exec.Command("/usr/bin/ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
		if err != nil || strings.HasPrefix(strings.TrimSpace(string(out)), "Z") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func signalGroup(pid int, sig syscall.Signal) error { return syscall.Kill(-pid, sig) }

// marked lists the processes whose environment names an action with that prefix, and with that part in the rest, as `ps eww` shows it.
func marked(prefix, part string) ([]int, error) {
	out, err := exec.Command("/usr/bin/ps", "axeww").Output()
	if err != nil {
		return nil, fmt.Errorf("list the processes with their environment: %w", err)
	}
	want := " " + markerVariable + "=" + prefix
	var pids []int
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		f := strings.Fields(s.Text())
		_, rest, found := strings.Cut(s.Text(), want)
		rest, _, _ = strings.Cut(rest, " ")
		if len(f) == 0 || !found || !strings.Contains(rest, part) {
			continue
		}
		if pid, err := strconv.Atoi(f[0]); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, s.Err()
}

// startTime is not known here; records are matched by marker alone.
func startTime(int) uint64 { return 0 }

func lives(int, uint64) bool { return false }

func pidNamespace() string { return "" }

// bootID must be handed to the runner by the daemon, which keeps one in shared memory.
func bootID() (string, error) {
	return "", fmt.Errorf("the kernel has no boot id, the daemon must name one: %w", ErrNotSupported)
}
