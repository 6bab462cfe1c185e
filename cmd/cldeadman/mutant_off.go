//go:build !deadman_mutants

package main

// Tests build this program a second time with the tag deadman_mutants, to take single defences away and see that their checks
// notice, and to stop the process at a chosen point. The product has neither.

func mutant(string) bool { return false }
func interrupt(string)   {}
