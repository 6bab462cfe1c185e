package lease

import "time"

// An Instant is a reading of one machine's boot-time clock (CLOCK_BOOTTIME on Linux, the best monotonic clock there is on
// AIX), in nanoseconds since an origin of that boot. Instants of two machines, or of two boots, cannot be compared. Zero
// means "never".
type Instant int64

// Add returns i later by d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// A Clock reads the machine's boot-time clock. Implementations may be called by any goroutine.
type Clock interface {
	Now() Instant
}

// Rho is the largest relative error of a clock's rate that the arithmetic tolerates. NTP slews by at most 500 ppm; twice that
// is assumed.
const Rho = 1e-3

// stretch gives the interval that must pass on one clock to be sure that d has passed on another: d (1+rho)/(1-rho), rounded up.
func stretch(d time.Duration) time.Duration {
	return time.Duration(float64(d)*(1+Rho)/(1-Rho)) + 1
}

// shrink is stretch's inverse: what has surely passed on another clock when d has passed on this one, rounded down.
func shrink(d time.Duration) time.Duration {
	s := time.Duration(float64(d)*(1-Rho)/(1+Rho)) - 1
	if s < 0 {
		return 0
	}
	return s
}
