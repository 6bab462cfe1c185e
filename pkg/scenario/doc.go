// Package scenario says what would happen: it drives the real state machine and the real scheduler with simulated nodes and
// executors, in virtual time, through the steps of a scenario file, and checks after each step what was expected and, always,
// what the product promises.
//
// It serves `clmgr simulate`, and the tests: every file in test/scenarios is one. Simulated executors succeed at once unless
// told otherwise, so a scenario says what is decided and in which order, and nothing about how long it takes. The checker of
// the promises (checker.go) looks only at the definition and at what the simulated nodes run; it shares no code with the
// scheduler.
package scenario
