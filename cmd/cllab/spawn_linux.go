package main

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A thread runs functions on one operating system thread of its own, one after another. What a child process inherits from
// the thread that forks it (namespaces, nice value, scheduling policy, and whose death kills it) is thus under control.
type thread struct {
	jobs chan func()
}

// newThread starts a thread that lives as long as the process, prepared by setup.
func newThread(setup func()) *thread {
	t := &thread{jobs: make(chan func())}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: a child's parent-death signal is tied to this thread
		if setup != nil {
			setup()
		}
		close(ready)
		for job := range t.jobs {
			job()
		}
	}()
	<-ready
	return t
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.jobs <- func() { defer close(done); f() }
	<-done
}

// setScheduling gives the calling thread a nice value and, if realtime is set, round-robin real-time scheduling. What the
// kernel does not allow is left as it is; the words returned tell what holds afterwards.
func setScheduling(nice int, realtime bool) string {
	policy, priority := uint32(unix.SCHED_NORMAL), uint32(0)
	if realtime {
		policy, priority = unix.SCHED_RR, 50 // above the deadmen: watchdogs are hardware to them
	}
	words := "normal"
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority, Nice: int32(nice)}
	switch err := unix.SchedSetAttr(0, attr, 0); {
	case err == nil && realtime:
		words = "SCHED_RR"
	case err != nil && realtime:
		words = "normal (no real-time scheduling: " + err.Error() + ")"
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return words + ", nice unchanged (" + err.Error() + ")"
	}
	return words + ", nice " + strconv.Itoa(nice)
}

// setAutogroup gives the session of pid a nice value among sessions, where the kernel groups them; otherwise it does nothing.
func setAutogroup(pid, nice int) {
	path := "/proc/" + strconv.Itoa(pid) + "/autogroup"
	_ = os.WriteFile(path, []byte(strconv.Itoa(nice)), 0) // absent on many kernels, refused to ordinary users: no harm
}
