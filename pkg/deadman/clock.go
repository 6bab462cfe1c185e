package deadman

import "github.com/holdfast-ha/holdfast/pkg/deadman/bootclock"

// BootClock is the machine's boot-time clock; it implements lease.Clock. On AIX it is the best monotonic clock there is.
type BootClock = bootclock.Clock
