// Package sim runs whole clusters of the real core in one goroutine, from one seed: package state behind an abstract replicated
// log, scheduler's Plan, Admit and Local, lease's arithmetic and book, the detector, and the deadman's keeper. Everything around
// them is simulated: clocks that drift, a network that loses, delays, repeats and reorders, processes that are stopped and
// killed, watchdogs, disks, executors, a fence device, operators. The same seed gives the same run, event by event.
//
// The glue between the core and the world is package agent's in the product, and is not pure; what it does is modelled here, file
// by file, with the names of the functions that are modelled. A fault in the real glue that the model does not share is not
// found here: that is for the tests that run real agents.
//
// The checkers (check_*.go) know nothing of how state, scheduler or lease work. They keep their own book of the log and look at
// what really runs on the machines. So that they are known to see, faults are planted in the model (bugs.go), one kind after the
// other, and a kind that is not caught fails the test.
//
// Assumed, as the product's guarantees do: clocks' rates differ from true time by at most lease.Rho, a watchdog that is not
// petted fires in time, a fence device that says off is right, operators confirm only what is so, and a machine is never
// suspended as a whole.
package sim
