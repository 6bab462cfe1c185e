package bootclock

import (
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Clock is the machine's boot-time clock: CLOCK_BOOTTIME, which goes on while the machine is suspended and never follows
// the wall clock. All processes of one machine read the same values.
type Clock struct{}

// Now reads the clock.
func (Clock) Now() lease.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("CLOCK_BOOTTIME cannot be read: " + err.Error()) // no lease can be kept without a clock
	}
	return lease.Instant(t.Nano())
}
