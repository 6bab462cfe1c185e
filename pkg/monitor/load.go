package monitor

import "errors"

// A Load is what a node has to offer at a moment, for dynamic node priority.
type Load struct {
	IdleCPU    float64 // percent of all processors over the time since the reading before
	FreeMemory float64 // MiB that new processes could have
	BusyDisk   float64 // percent of the time that the busiest disk was busy since the reading before
}

// ErrNoLoad says that this system does not tell its load, or not yet: a first reading has nothing to compare with.
var ErrNoLoad = errors.New("the load of this node is not known")
