package repository

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// rawCharDevices says whether raw disks are character devices on this system.
const rawCharDevices = false

// localFileSystems are those that only one machine may mount: a file on them is no shared volume, and direct access to it proves
// nothing (tmpfs takes the flag and ignores it).
var localFileSystems = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs", 0x858458f6: "ramfs", unix.EXT4_SUPER_MAGIC: "ext2, ext3 or ext4", unix.XFS_SUPER_MAGIC: "XFS",
	unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "ZFS", 0xca451a4e: "bcachefs",
	unix.MSDOS_SUPER_MAGIC: "FAT", 0x3153464a: "JFS", unix.F2FS_SUPER_MAGIC: "F2FS",
}

const nfsMagic = 0x6969

// openDirect opens for direct and synchronous access: what a read returns comes from the disk, and what a write returned for is
// on it.
func openDirect(path string, writable, lab bool) (*os.File, error) {
	flags := unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_DSYNC | unix.O_NONBLOCK // a FIFO must not block us here
	if writable {
		flags |= unix.O_RDWR
	}
	fd, err := unix.Open(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		if !lab {
			return nil, errors.New("its file system has no direct I/O: another node's writes could be hidden by the page cache; use a " +
				"shared disk, or a shared file system with O_DIRECT")
		}
		fd, err = unix.Open(path, flags, 0)
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("it is a symbolic link: name the device or file itself")
	}
	if err != nil {
		return nil, err
	}
	if !lab {
		if err := mustBeShared(fd, path); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// mustBeShared refuses a file on a file system that cannot be what the other nodes see, or that may lie about writes.
func mustBeShared(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("look at its file system: %w", err)
	}
	if name, local := localFileSystems[int64(fs.Type)]; local {
		return fmt.Errorf("it is a file on %s, which only one machine can use at a time: name a shared disk, or a file on a shared file "+
			"system (NFS mounted hard, GFS2, OCFS2, GPFS, Ceph)", name)
	}
	if fs.Type != nfsMagic {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("look at its mount: %w", err)
	}
	return checkNFS(mountOptions(string(mounts), path))
}

// checkNFS refuses a mount that gives errors for writes that happen later.
func checkNFS(options []string) error {
	for _, o := range options {
		if o == "soft" || o == "softerr" {
			return errors.New("its NFS mount is soft: a write that was reported as failed may still happen; mount it hard")
		}
	}
	return nil
}

// mountOptions finds the options of the mount that a path is on: the longest mount point that is a prefix, the last of equals.
func mountOptions(mounts, path string) []string {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	best, options := -1, ""
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[1])
		if (path == point || strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/")) && len(point) >= best {
			best, options = len(point), f[3]
		}
	}
	return strings.Split(options, ",")
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
