//go:build !linux

package main

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/bootclock"
	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// What AIX has: no kill timer on a clock of boot time, no memory lock with demand paging, no second holder. The deadman is of
// class process there, and its silence proves nothing; what it can do it does with plain timers. Compiled, never run.

func trouble(t wire.Trouble, err error) wire.Warning {
	w := wire.Warning{Trouble: t}
	var n syscall.Errno
	if errors.As(err, &n) {
		w.Errno = uint16(n)
	}
	return w
}

func becomeRealtime(options) ([]wire.Warning, error) {
	warnings := []wire.Warning{{Trouble: wire.PlainTimers}}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		warnings = append(warnings, trouble(wire.NoRealtime, err))
	}
	return warnings, nil
}

var clock bootclock.Clock

func now() keeper.Reading {
	t := clock.Now()
	return keeper.Reading{Boot: t, MonoBefore: t, MonoAfter: t}
}

var randomSource *os.File

// random draws a nonce from the system's source, which is opened once.
func random(n *lease.Nonce) {
	if randomSource == nil {
		f, err := os.Open("/dev/urandom")
		if err != nil {
			panic("the system's random source cannot be opened: " + err.Error()) // nonces that can be guessed are none
		}
		randomSource = f
	}
	for have := 0; have < len(n); {
		if m, err := randomSource.Read(n[have:]); err == nil {
			have += m
		}
	}
}

func ignoreSignals() {}

func ownPidFD() int { return -1 }

// killTimer does not exist here.
type killTimer struct{}

func newKillTimer() (*killTimer, error) { return nil, errors.ErrUnsupported }
func (*killTimer) arm(lease.Instant)    {}
func (*killTimer) disarm()              {}

type events struct{ listen, agent, holder, stop bool }

// longestWait bounds each wait: timeouts of the system are relative, and may follow another clock than the leases do.
const longestWait = 20 * time.Millisecond

type waiter struct{ fds [2]unix.PollFd }

func newWaiter() (*waiter, error) { return &waiter{}, nil }

func (w *waiter) wait(at lease.Instant, listen, agent, _ int) events {
	patience := longestWait
	if at != 0 {
		patience = min(max(0, at.Sub(clock.Now())), longestWait)
	}
	w.fds = [2]unix.PollFd{{Fd: int32(listen), Events: unix.POLLIN}, {Fd: int32(agent), Events: unix.POLLIN}}
	if _, err := unix.Poll(w.fds[:], int((patience+time.Millisecond-1)/time.Millisecond)); err != nil {
		return events{}
	}
	return events{listen: w.fds[0].Revents != 0, agent: agent >= 0 && w.fds[1].Revents != 0}
}

func pause(ms int) { time.Sleep(time.Duration(ms) * time.Millisecond) }

// acceptPeer relies on the socket's mode, 0600.
func acceptPeer(listen int) (int, error) {
	fd, _, err := unix.Accept(listen)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	return fd, unix.SetNonblock(fd, true)
}

func rehearse() []wire.Warning { return nil }
