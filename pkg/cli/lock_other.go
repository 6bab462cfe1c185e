//go:build !linux

package cli

import "syscall"

// lockedProcess puts a command into a group of its own. This system does not end it when its clmgr is killed.
func lockedProcess(group bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: group} }
