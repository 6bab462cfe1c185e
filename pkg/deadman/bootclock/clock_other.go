//go:build !linux && !aix

package bootclock

import "github.com/holdfast-ha/holdfast/pkg/lease"

// Clock cannot be read on this system.
type Clock struct{}

// Now panics: a node of this system cannot hold a lease.
func (Clock) Now() lease.Instant { panic("the boot-time clock of this system is not known") }
