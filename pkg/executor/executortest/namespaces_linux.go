package executortest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const insideVariable = "HOLDFAST_TEST_NAMESPACE"

// InNamespaces runs this program again, in a network and mount namespace of its own (an ordinary user's in a user namespace, too),
// and returns its exit status: then the caller ends with it. In that second run inside is true, mounts are private, and a tmpfs
// lies on each of the directories. What goes wrong on the way is said on stderr.
func InNamespaces(tmpfs ...string) (inside bool, status int) {
	if os.Getenv(insideVariable) == "" {
		return false, again()
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make the mounts private:", err)
		return false, 1
	}
	for _, dir := range tmpfs {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount a tmpfs on", dir+":", err)
			return false, 1
		}
	}
	return true, 0
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:gosec // this very program
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the child dies with the thread that made it
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run in namespaces of one's own:", err)
		return 1
	}
	return 0
}
