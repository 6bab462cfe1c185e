// Package watchdog drives what stands behind a deadman: a kernel's watchdog device, the lab's emulation of one, or, where there
// is none, nothing but the reset of the node itself.
//
// Pet, SetTimeout, Timeout and Reset allocate nothing and do not wait for a disk. A Device is not safe for concurrent use.
//
// The package does not promise that a device keeps its word: how long a machine lives after its last pet is to be measured once
// on that machine.
package watchdog

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Device is what a deadman pets.
type Device interface {
	// Pet starts the timeout again.
	Pet() error
	// SetTimeout asks for a timeout and returns the one that is in force afterwards. It may pet.
	SetTimeout(d time.Duration) (time.Duration, error)
	// Timeout reads the timeout in force back from the device. It does not pet.
	Timeout() (time.Duration, error)
	// Reset resets the node now. If it returns, it has failed, or the reset is on its way.
	Reset()
	// Stop ends the watching and closes the descriptor, which must be the last copy. It is an error where that cannot be done.
	Stop() error
	// Descriptor is what a second holder must keep open too, -1 if there is none.
	Descriptor() int
	// Facts describe the device.
	Facts() Facts
}

// Facts are what is known of a device.
type Facts struct {
	Name     string // as an operator knows it
	Class    lease.Class
	NoWayOut bool // cannot be stopped once open
	Watches  bool // closing the last descriptor pets it; an owner's death must not close it
	Fired    bool // the device says that it ended the machine before this boot; false also where it does not tell, or was taken over
	Warnings []wire.Warning
}

// The backends.
const (
	Kernel = "watchdog" // a Linux watchdog device
	Lab    = "lab"      // the lab's watchdog, over a unix socket
	Reboot = "reboot"   // no device: sysrq and reboot(2)
	Halt   = "halt"     // no device: AIX reboot(), then halt -q
)

// Open opens the device of a backend that no other process has open. This starts its timer.
func Open(backend, path string) (Device, error) {
	switch backend {
	case Kernel:
		return openKernel(path)
	case Lab:
		return openLab(path)
	case Reboot:
		return openReboot()
	case Halt:
		return openHalt()
	}
	return nil, fmt.Errorf("there is no deadman backend %q; there are %s, %s, %s and %s", backend, Kernel, Lab, Reboot, Halt)
}

// Adopt takes over a descriptor of a device that is open and running. It does not pet.
func Adopt(backend, path string, fd int) (Device, error) {
	switch backend {
	case Kernel:
		return adoptKernel(path, fd)
	case Lab:
		return adoptLab(path, fd)
	case Reboot:
		return adoptReboot(fd)
	}
	return nil, fmt.Errorf("a device of backend %q cannot be taken over from another process", backend)
}

// DefaultPath is the device that a backend uses if none is named.
func DefaultPath(backend string) string {
	if backend == Kernel {
		return "/dev/watchdog"
	}
	return ""
}

// errno is the system's number of an error for a Warning, 0 if it has none.
func errno(err error) uint16 {
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return uint16(n)
	}
	return 0
}
