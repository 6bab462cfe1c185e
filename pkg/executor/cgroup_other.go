//go:build !linux

package executor

import "fmt"

// Only Linux has cgroups: everywhere else descendants are found by process group and environment marker.
type (
	cgroups struct{ dir string }
	cgroup  struct{ dir string }
)

func openCgroups(string, string) (*cgroups, error) {
	return nil, fmt.Errorf("cgroups: %w", ErrNotSupported)
}

func (*cgroups) create(string, string) (*cgroup, error) { return nil, ErrNotSupported }
func (*cgroups) prune()                                 {}
func (*cgroup) kill() error                             { return ErrNotSupported }
func (*cgroup) remove() error                           { return ErrNotSupported }

func killCgroup(string) error               { return nil }
func populated(string) bool                 { return false }
func cgroupProcesses(string) ([]int, error) { return nil, nil }
func removeCgroup(string)                   {}
