package bootclock

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Clock is the machine's boot-time clock: CLOCK_BOOTTIME, which goes on while the machine is suspended and never follows
// the wall clock. All processes of one machine read the same values.
type Clock struct{}

// Now reads the clock. The call is a raw one, since it never blocks: the runtime need not be told, and an idle process's
// monitoring thread is not woken by a look at the clock.
func (Clock) Now() lease.Instant {
	var t unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic("CLOCK_BOOTTIME cannot be read: " + errno.Error()) // no lease can be kept without a clock
	}
	return lease.Instant(t.Nano())
}
