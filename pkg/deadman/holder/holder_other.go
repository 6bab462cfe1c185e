//go:build !linux

package holder

import "time"

// Process stands for a connection to a holder process.
type Process struct{}

// Connect always fails.
func Connect(string, time.Duration) (*Process, *Copy, error) { return nil, nil, ErrUnsupported }

// Hold always fails.
func (*Process) Hold(Copy) error { return ErrUnsupported }

// Drop always fails.
func (*Process) Drop() error { return ErrUnsupported }

// Descriptor is none.
func (*Process) Descriptor() int { return -1 }

// Close does nothing.
func (*Process) Close() {}

// Run always fails.
func Run(string, time.Duration) error { return ErrUnsupported }

// Systemd stands for a descriptor store.
type Systemd struct{}

// FromSystemd finds nothing.
func FromSystemd() (*Systemd, *Copy, error) { return nil, nil, nil }

// Capable is false.
func (*Systemd) Capable() bool { return false }

// Hold always fails.
func (*Systemd) Hold(Copy) error { return ErrUnsupported }

// Drop always fails.
func (*Systemd) Drop(string) error { return ErrUnsupported }

// Ready always fails.
func (*Systemd) Ready() error { return ErrUnsupported }
