//go:build !linux

package monitor

// A LoadReader would read the machine's load; on this system it does not.
type LoadReader struct{}

// Read says that the load is not known.
func (*LoadReader) Read() (Load, error) { return Load{}, ErrNoLoad }
