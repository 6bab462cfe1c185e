// Package executortest is the conformance suite of the executor contract, with helpers for tests of executors.
package executortest
