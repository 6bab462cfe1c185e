package aix

import (
	"syscall"
	"unsafe"
)

// arpRequest is struct arpreq.
type arpRequest struct {
	family uint16
	port   uint16
	addr   [4]byte
	pad    [8]byte
	mac    [16]byte
	flags  int32
	mask   [16]byte
	device [16]byte
}

func delARP(fd int, device string, addr [4]byte) {
	r := arpRequest{family: syscall.AF_INET, addr: addr}
	copy(r.device[:15], device)
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCDARP, uintptr(unsafe.Pointer(&r)))
}
