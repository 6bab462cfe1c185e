// Package cluster is the vocabulary of Holdfast: nodes, networks, service IPs, resource groups, their policies and
// dependencies, and the rules that a definition must keep.
//
// It holds values and arithmetic only: no I/O, no clock, no goroutine, no logging. Everything else in the house speaks in
// these words. The package does not decide where a group runs; that is package scheduler's, and what is true now is package
// state's.
package cluster
