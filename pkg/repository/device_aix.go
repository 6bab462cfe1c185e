package repository

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// rawCharDevices: /dev/rhdisk... are character devices, and the way to a disk without the buffer cache.
const rawCharDevices = true

// oDirect is O_DIRECT of <fcntl.h>. Compiled, never run.
const oDirect = 0x8000000

// openDirect opens for direct and synchronous access. Compiled, never run.
func openDirect(path string, writable, _ bool) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return nil, errors.New("it is a symbolic link: name the device or file itself")
	}
	flags := os.O_RDONLY
	if writable {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags|syscall.O_DSYNC|oDirect, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		f.Close()
		return nil, errors.New("it changed while it was opened")
	}
	return f, nil
}

// machineLock takes the lock of a file of this machine until the process has ended or closed it. Compiled, never run.
func machineLock(f *os.File) error {
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: 0}
	err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &l)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%w (%s is locked)", ErrLocked, f.Name())
	}
	return err
}
