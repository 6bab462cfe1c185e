package cli

import "syscall"

// lockedProcess lets a command die with its clmgr: nobody would keep its lock.
func lockedProcess(group bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: group, Pdeathsig: syscall.SIGKILL}
}
