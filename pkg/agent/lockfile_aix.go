package agent

import (
	"os"
	"syscall"
)

// lockFile takes the file's lock for this process, or fails at once.
func lockFile(f *os.File) error {
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: 0}
	return syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &l)
}
