//go:build deadman_mutants

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

var (
	without = os.Getenv("DEADMAN_WITHOUT") // a defence that is taken away
	stopAt  = os.Getenv("DEADMAN_STOP_AT") // a point at which the process stops itself, once, when the file of DEADMAN_STOP_WHEN is there
	trigger = os.Getenv("DEADMAN_STOP_WHEN")
)

func mutant(defence string) bool { return without == defence }

// interrupt stops the process as SIGSTOP from outside would, at exactly this point.
func interrupt(point string) {
	if stopAt != point {
		return
	}
	if _, err := os.Stat(trigger); err != nil {
		return
	}
	stopAt = ""
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP) // to this thread: to the process, another one may take it first
}
