package watchdog

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// haltDevice is AIX's way, compiled but never run: the system has no watchdog device, so only the deadman's own timer stands
// behind it.
type haltDevice struct{ timeout time.Duration }

// rebootHalt is RB_HALT of <sys/reboot.h>. It was not checked on a machine; halt -q follows if the call returns.
const rebootHalt = 1

func openHalt() (Device, error) { return &haltDevice{}, nil }

func (d *haltDevice) Facts() Facts    { return Facts{Name: "halt", Class: lease.Process} }
func (d *haltDevice) Descriptor() int { return -1 }
func (d *haltDevice) Pet() error      { return nil }
func (d *haltDevice) SetTimeout(t time.Duration) (time.Duration, error) {
	d.timeout = t
	return t, nil
}
func (d *haltDevice) Timeout() (time.Duration, error) { return d.timeout, nil }
func (d *haltDevice) Stop() error                     { return nil }

// Reset halts the system without writing its disks. The exec is the second try: it needs the root volume group to answer.
func (d *haltDevice) Reset() {
	_ = syscall.Reboot(rebootHalt)
	_, _ = syscall.ForkExec("/usr/sbin/halt", []string{"halt", "-q"}, &syscall.ProcAttr{})
}

func openKernel(string) (Device, error)       { return nil, notHere(Kernel) }
func adoptKernel(string, int) (Device, error) { return nil, notHere(Kernel) }
func openReboot() (Device, error)             { return nil, notHere(Reboot) }
func adoptReboot(int) (Device, error)         { return nil, notHere(Reboot) }

func notHere(backend string) error {
	return fmt.Errorf("the deadman backend %s: %w; AIX has %s", backend, errors.ErrUnsupported, Halt)
}
