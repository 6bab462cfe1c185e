//go:build !linux

package consensus

import (
	"fmt"
	"syscall"
)

// placeOf reads where the directory is. Systems other than Linux tell neither the file system's id nor the directory's time
// of birth here. On AIX it is compiled only, never run.
func placeOf(dir, machineID string) (Place, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return Place{}, fmt.Errorf("look at the directory %s: %w", dir, err)
	}
	return Place{MachineID: machineID, Device: uint64(st.Dev), Inode: uint64(st.Ino)}, nil
}
