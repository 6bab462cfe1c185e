package consensus

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// placeOf reads where the directory is.
func placeOf(dir, machineID string) (Place, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Place{}, fmt.Errorf("look at the directory %s: %w", dir, err)
	}
	p := Place{MachineID: machineID, Device: uint64(st.Dev), Inode: uint64(st.Ino)}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil {
		if v := fs.Fsid.Val; v[0] != 0 || v[1] != 0 {
			p.FileSystem = fmt.Sprintf("%08x%08x", uint32(v[0]), uint32(v[1]))
		}
	}
	var sx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BTIME, &sx); err == nil && sx.Mask&unix.STATX_BTIME != 0 {
		p.Born = sx.Btime.Sec*1e9 + int64(sx.Btime.Nsec)
	}
	return p, nil
}
