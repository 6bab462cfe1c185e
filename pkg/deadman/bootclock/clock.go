// Package bootclock reads the clock that leases are counted by: the time since this machine's boot, which never follows the wall
// clock. All processes of one machine read the same values; those of two machines, or of two boots, mean nothing to each other.
package bootclock
