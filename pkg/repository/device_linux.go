package repository

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// rawCharDevices says whether raw disks are character devices on this system.
const rawCharDevices = false

// errNoDirect is what a file system without direct I/O gets.
var errNoDirect = errors.New("its file system has no direct I/O (as tmpfs has none): another node's writes could be hidden by " +
	"the page cache; use a shared disk, or a file system with O_DIRECT")

// openDirect opens for direct and synchronous access: what a read returns comes from the disk, and what a write returned for is
// on it.
func openDirect(path string, writable, lab bool) (*os.File, error) {
	flags := unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_DSYNC
	if writable {
		flags |= unix.O_RDWR
	}
	fd, err := unix.Open(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		if !lab {
			return nil, errNoDirect
		}
		fd, err = unix.Open(path, flags, 0)
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("it is a symbolic link: name the device or file itself")
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// machineLock takes the lock of a file of this machine, and holds it until the file is closed or the process has ended; the
// kernel keeps it while a thread of the process is still inside an access that hangs.
func machineLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w (%s is locked)", ErrLocked, f.Name())
	}
	return err
}
