//go:build !linux && !aix

package executor

import (
	"fmt"
	"os/exec"
	"syscall"
)

func startNormally(cmd *exec.Cmd, _ *cgroup) error  { return cmd.Start() }
func resetOOMScore(int, *cgroup)                    {}
func awaitExit(int)                                 {}
func signalGroup(pid int, sig syscall.Signal) error { return syscall.Kill(-pid, sig) }
func startTime(int) uint64                          { return 0 }
func lives(int, uint64) bool                        { return false }
func pidNamespace() string                          { return "" }

func marked(string, string) ([]int, error) {
	return nil, fmt.Errorf("find processes by environment: %w", ErrNotSupported)
}

func bootID() (string, error) { return "", fmt.Errorf("boot id: %w", ErrNotSupported) }
