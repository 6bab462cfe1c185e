package watchdog

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// resetter resets a Linux node: by sysrq, which stops no device and writes no disk, then by reboot(2).
type resetter struct {
	sysrq    int
	warnings []wire.Warning
}

var sysrqReboot = []byte("b")

// newResetter opens /proc/sysrq-trigger, so that the reset needs no file system.
func newResetter() resetter {
	r := resetter{}
	fd, err := unix.Open("/proc/sysrq-trigger", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
		r.warnings = append(r.warnings, wire.Warning{Trouble: wire.NoSysrq, Errno: errno(err)})
	}
	r.sysrq = fd
	return r
}

func (r *resetter) Reset() {
	if r.sysrq >= 0 {
		_, _ = unix.Write(r.sysrq, sysrqReboot)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// rebootDevice is no device: only the deadman's own timer stands behind it.
type rebootDevice struct {
	resetter
	fd      int
	timeout time.Duration
}

// openReboot opens what stands for the device: a descriptor that a successor finds, and by which it knows that it has a
// predecessor.
func openReboot() (Device, error) {
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	return adoptReboot(fd)
}

func adoptReboot(fd int) (Device, error) { return &rebootDevice{resetter: newResetter(), fd: fd}, nil }

func (d *rebootDevice) Facts() Facts {
	return Facts{Name: "reboot", Class: lease.Process, Warnings: d.warnings}
}
func (d *rebootDevice) Descriptor() int { return d.fd }
func (d *rebootDevice) Pet() error      { return nil }
func (d *rebootDevice) SetTimeout(t time.Duration) (time.Duration, error) {
	d.timeout = t
	return t, nil
}
func (d *rebootDevice) Timeout() (time.Duration, error) { return d.timeout, nil }
func (d *rebootDevice) Stop() error                     { return unix.Close(d.fd) }

func openHalt() (Device, error) {
	return nil, fmt.Errorf("the backend %s exists on AIX only; use %s", Halt, Reboot)
}
