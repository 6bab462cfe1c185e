package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/holder"
	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
)

// How long things may take at the start. In the loop a holder gets far less.
const (
	holderStart    = 3 * time.Second
	predecessorEnd = 10 * time.Second
)

// acquired is the device and who else holds it.
type acquired struct {
	device    watchdog.Device
	takenOver bool
	process   *holder.Process // nil if there is none
	systemd   *holder.Systemd
	pidfd     int
	held      bool
	heldError error
}

// acquire takes the device over from a predecessor if one left it to a holder, and opens it if not.
func acquire(o options) (*acquired, error) {
	a := &acquired{pidfd: ownPidFD()}
	left, err := a.findHolder(o)
	if err != nil {
		return nil, err
	}
	if left != nil {
		if err := awaitPredecessor(left); err != nil {
			return nil, err
		}
		if left.Label != o.label() {
			return nil, fmt.Errorf("the descriptor left by the last deadman is of %q, not of %q: it is not taken over, and that device "+
				"resets this node when its time is over", left.Label, o.label())
		}
		a.takenOver = true
		a.device, err = watchdog.Adopt(o.backend, o.device, left.Device)
	} else {
		a.device, err = watchdog.Open(o.backend, o.device)
	}
	if err != nil {
		return nil, err
	}
	a.hold(o)
	return a, nil
}

// findHolder connects to the holder process, starting one where nobody serves its socket, or finds systemd's store.
func (a *acquired) findHolder(o options) (*holder.Copy, error) {
	systemd, left, err := holder.FromSystemd()
	if err != nil {
		return nil, fmt.Errorf("take descriptors from systemd: %w", err)
	}
	a.systemd = systemd
	if o.holder == "" || left != nil {
		return left, nil
	}
	process, left, err := holder.Connect(o.holder, holderStart)
	if err != nil {
		if err = spawnHolder(o.holder); err == nil {
			process, left, err = awaitHolder(o.holder)
		}
	}
	if err != nil {
		a.heldError = err
		return nil, nil
	}
	a.process = process
	return left, nil
}

// spawnHolder starts a holder process in a session of its own.
func spawnHolder(path string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start the descriptor holder: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("start the descriptor holder: %w", err)
	}
	defer null.Close()
	_, err = syscall.ForkExec(self, []string{"cldeadman", "hold", "--socket", path}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, // it outlives this process: it must not keep a caller's pipe open
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the descriptor holder %s: %w", self, err)
	}
	return nil
}

func awaitHolder(path string) (*holder.Process, *holder.Copy, error) {
	for until := time.Now().Add(holderStart); ; {
		p, left, err := holder.Connect(path, holderStart)
		if err == nil || time.Now().After(until) {
			return p, left, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// awaitPredecessor sees the last deadman gone. While it lives, stopped even, it may still pet.
func awaitPredecessor(left *holder.Copy) error {
	if left.PidFD < 0 {
		return nil // systemd starts a service only when it has seen the last main process end
	}
	defer unix.Close(left.PidFD)
	p := []unix.PollFd{{Fd: int32(left.PidFD), Events: unix.POLLIN}}
	for until := time.Now().Add(predecessorEnd); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(until).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for the last deadman to end: %w", err)
		case n == 0:
			return fmt.Errorf("the last deadman has not ended within %v (is it stopped?): its watchdog is not taken over while it lives", predecessorEnd)
		}
		return nil
	}
}

// hold gives the descriptor to its second holder.
func (a *acquired) hold(o options) {
	c := holder.Copy{Device: a.device.Descriptor(), PidFD: a.pidfd, Label: o.label()}
	switch {
	case c.Device < 0 || c.PidFD < 0:
		return
	case a.process != nil:
		a.heldError = a.process.Hold(c)
	case a.systemd != nil && a.systemd.Capable():
		a.heldError = a.systemd.Hold(c)
	default:
		return
	}
	a.held = a.heldError == nil
}

// release makes the second holder give its copy up.
func (a *acquired) release(o options) error {
	switch {
	case a.process != nil && a.held:
		return a.process.Drop()
	case a.systemd != nil && a.held:
		return a.systemd.Drop(o.label())
	}
	return nil
}
