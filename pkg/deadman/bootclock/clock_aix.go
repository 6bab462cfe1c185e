package bootclock

import (
	"unsafe"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Clock is the machine's monotonic clock, CLOCK_MONOTONIC of libc: AIX has no clock of boot time. It must not be read by way
// of package time, because Go's runtime takes its monotonic readings on AIX from the wall clock. Whether it counts while a
// partition is moved or suspended is an open assumption. Compiled, never run.
type Clock struct{}

// clockMonotonic is CLOCK_MONOTONIC of <sys/time.h>.
const clockMonotonic = 10

//go:cgo_import_dynamic libc_clock_gettime clock_gettime "libc.a/shr_64.o"
//go:linkname libc_clock_gettime libc_clock_gettime

var libc_clock_gettime uintptr

// syscall6 is implemented in the runtime.
func syscall6(trap, nargs, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, err uintptr)

// Now reads the clock.
func (Clock) Now() lease.Instant {
	var t struct{ sec, nsec int64 }
	r, _, _ := syscall6(uintptr(unsafe.Pointer(&libc_clock_gettime)), 2, clockMonotonic, uintptr(unsafe.Pointer(&t)), 0, 0, 0, 0)
	if r != 0 {
		panic("CLOCK_MONOTONIC cannot be read") // no lease can be kept without a clock
	}
	return lease.Instant(t.sec*1e9 + t.nsec)
}
