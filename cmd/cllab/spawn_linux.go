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

// setNice gives the calling thread a nice value. What the kernel does not allow is left as it is; the words tell what holds.
//
// Nothing of the lab runs under a real-time policy. A real-time thread that reaps a process spins in the kernel for as long as
// another thread is in the midst of that process's /proc entries, and if that one is waiting for the processor, for ever (seen
// on Linux 6.18: release_task, d_invalidate, shrink_dcache_parent).
func setNice(nice int) string {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return "nice unchanged (" + err.Error() + ")"
	}
	return "nice " + strconv.Itoa(nice)
}

// setAutogroup gives the session of pid a nice value among sessions, where the kernel groups them; otherwise it does nothing.
func setAutogroup(pid, nice int) {
	path := "/proc/" + strconv.Itoa(pid) + "/autogroup"
	_ = os.WriteFile(path, []byte(strconv.Itoa(nice)), 0) // absent on many kernels, refused to ordinary users: no harm
}
