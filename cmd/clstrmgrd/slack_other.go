//go:build !linux

package main

// relaxTimers does nothing: only Linux lets a process choose how exact its threads' timers are.
func relaxTimers() {}
