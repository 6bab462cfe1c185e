package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// pausedSet holds the processes that were stopped by a pause, by outer process id.
type pausedSet map[int]bool

// pause stops every process of the node with SIGSTOP, those that appear meanwhile included, or one daemon only. The kernel
// underneath goes on: addresses answer pings, and the watchdog counts.
func (n *node) pause(what string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	if what != "" {
		return n.signalDaemon(what, unix.SIGSTOP)
	}
	if st := n.getState(); st != lab.StateUp {
		return fmt.Errorf("%s is %s", n.name, st)
	}
	set, err := stopAll(n.current().cmd.Process.Pid)
	n.mu.Lock()
	n.paused = set
	n.mu.Unlock()
	if err != nil {
		contAll(set)
		return fmt.Errorf("pause %s: %w", n.name, err)
	}
	n.setState(lab.StatePaused)
	n.event("pause", fmt.Sprintf("%d processes", len(set)))
	return nil
}

// resume continues what pause stopped.
func (n *node) resume(what string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	if what != "" {
		return n.signalDaemon(what, unix.SIGCONT)
	}
	if st := n.getState(); st != lab.StatePaused {
		return fmt.Errorf("%s is not paused, it is %s", n.name, st)
	}
	n.mu.Lock()
	set := n.paused
	n.paused = nil
	n.mu.Unlock()
	n.event("resume", "")
	n.setState(lab.StateUp)
	contAll(set)
	return nil
}

func (n *node) signalDaemon(what string, sig unix.Signal) error {
	n.mu.Lock()
	d, known := n.agent, what == "agent" || what == "deadman"
	if what == "deadman" {
		d = n.deadman
	}
	n.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("process %q: want agent or deadman", what)
	case d.PID == 0:
		return fmt.Errorf("%s has no %s running", n.name, what)
	}
	run := n.current()
	if run == nil {
		return fmt.Errorf("%s is %s", n.name, n.getState())
	}
	pid, err := outerPID(run.cmd.Process.Pid, d.PID)
	if err != nil {
		return fmt.Errorf("find the %s of %s: %w", what, n.name, err)
	}
	if err := unix.Kill(pid, sig); err != nil {
		return fmt.Errorf("signal the %s of %s: %w", what, n.name, err)
	}
	n.event(map[unix.Signal]string{unix.SIGSTOP: "pause", unix.SIGCONT: "resume", unix.SIGKILL: "kill"}[sig], what)
	return nil
}

// outerPID finds the process that has the number inside among the descendants of a node's init. The supervisor signals it
// itself, since the init may be stopped.
func outerPID(init, inside int) (int, error) {
	pids, err := descendants(init)
	if err != nil {
		return 0, err
	}
	depth := len(namespacePIDs(init))
	for _, pid := range pids {
		if ids := namespacePIDs(pid); len(ids) == depth && depth > 0 && ids[depth-1] == strconv.Itoa(inside) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process has the number %d there", inside)
}

// namespacePIDs lists the numbers of a process, in this process's PID namespace first, in its own last.
func namespacePIDs(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.Fields(ids)
		}
	}
	return nil
}

// quietRounds is how many rounds in a row must find everything stopped when some of it is inside the kernel: such a process
// cannot run its own code any more, but what it was doing there may be the making of a child.
const quietRounds = 10

// stopAll stops the process and all its descendants. A stopped process makes no children, so the rounds come to an end: the
// last one finds everything stopped and nothing new.
func stopAll(init int) (pausedSet, error) {
	set := pausedSet{}
	quiet := 0
	for range 2000 {
		pids, err := descendants(init)
		if err != nil {
			return set, err
		}
		worst := stopped
		for _, pid := range pids {
			a := activityOf(pid)
			if a == active && !set[pid] && unix.Kill(pid, unix.SIGSTOP) == nil {
				set[pid] = true
			}
			if a == inKernel && !set[pid] {
				a = active
				if unix.Kill(pid, unix.SIGSTOP) == nil {
					set[pid] = true
				}
			}
			worst = max(worst, a)
		}
		switch quiet++; {
		case worst == stopped, worst == inKernel && quiet >= quietRounds:
			return set, nil
		case worst == active:
			quiet = 0
		}
		time.Sleep(time.Millisecond)
	}
	return set, errors.New("its processes do not all stop")
}

// activity is what the busiest thread of a process does.
type activity int

const (
	stopped  activity = iota // or dead
	inKernel                 // in an uninterruptible wait: a parent whose new child was stopped before its exec stays there
	active
)

func activityOf(pid int) activity {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return stopped
	}
	worst := stopped
	for _, t := range tasks {
		switch stateIn(dir + "/" + t.Name()) {
		case 'T', 't', 'Z', 'X', 0:
		case 'D':
			worst = max(worst, inKernel)
		default:
			return active
		}
	}
	return worst
}

func contAll(set pausedSet) {
	for pid := range set {
		_ = unix.Kill(pid, unix.SIGCONT) // it may have been killed meanwhile
	}
}

// descendants lists a process and all below it. Orphans are children of the node's init, so none is missed.
func descendants(pid int) ([]int, error) {
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		dir := "/proc/" + strconv.Itoa(list[i]) + "/task"
		tasks, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
			if errors.Is(err, os.ErrNotExist) && i == 0 && len(tasks) == 1 {
				return nil, errors.New("the kernel does not list children (CONFIG_PROC_CHILDREN)")
			}
			for f := range strings.FieldsSeq(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					list = append(list, child)
				}
			}
		}
	}
	return list, nil
}

// processState is the letter of the state of a process's first thread, 0 when it is gone.
func processState(pid int) byte { return stateIn("/proc/" + strconv.Itoa(pid)) }

func stateIn(dir string) byte {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}
