package server

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

const knowsPeers = true

// peerCredentials asks the kernel who opened the other end: user, group and supplementary groups as they were then, so a
// process that has gone, or whose id was taken by another, cannot mislead.
func peerCredentials(c *net.UnixConn) (credentials, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return credentials{}, err
	}
	var cred credentials
	var inner error
	err = raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		var groups []int
		if groups, inner = peerGroups(int(fd)); inner != nil {
			return
		}
		cred = credentials{uid: int(u.Uid), groups: append(groups, int(u.Gid))}
	})
	return cred, errors.Join(err, inner)
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13). x/sys has no call for an option of variable length.
func peerGroups(fd int) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(len(buf) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && len(buf) < 1<<16: // NGROUPS_MAX
			buf = make([]uint32, max(int(size/4), 2*len(buf)))
			continue
		case errno == unix.ENODATA:
			return nil, nil
		case errno != 0:
			return nil, errno
		}
		out := make([]int, 0, size/4)
		for _, g := range buf[:size/4] {
			out = append(out, int(g))
		}
		return out, nil
	}
}
