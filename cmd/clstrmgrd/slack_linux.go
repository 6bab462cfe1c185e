package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked for the kernel may wake those threads that relaxTimers treats.
const timerSlack = "10000000" // ns: the pause that the thread makes by itself in quiet times

// relaxTimers makes an idle daemon cheaper. Whenever a Go process wakes up, the runtime's monitoring thread wakes too, and
// sleeps 20 us at a time until all is quiet again: five to eight times for each message that comes in, which on a virtual
// machine is more than half of what an idle daemon costs (measured: 200 context switches a second, 80 with this and fewer messages). The
// thread sleeps by the kernel's timers, so a timer slack of some milliseconds makes one sleep of those, and one of all that belongs to a lease request.
//
// It is one of the threads that the runtime has started before main; the thread that runs main, and those that are made later
// by it, stay as they are. What the monitor does (take the processor from a thread that sits in a system call or computes
// for long, poll the network that nobody has polled) it does every 10 ms anyway once things are quiet, so a pause of
// that length is nothing new to anybody. No timing of the cluster rests on it: the deadman, which counts, is another process, and is not treated.
func relaxTimers() {
	dir, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	own := strconv.Itoa(unix.Gettid())
	for _, thread := range dir {
		if thread.Name() != own {
			// Without the privilege all stays as it was.
			_ = os.WriteFile("/proc/"+thread.Name()+"/timerslack_ns", []byte(timerSlack), 0)
		}
	}
}
