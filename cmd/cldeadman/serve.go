package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/holder"
	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

const (
	holderRetry    = time.Second           // between two looks for a holder that was lost
	holderPatience = 20 * time.Millisecond // what such a look may take
	resetRetry     = 100                   // milliseconds
	framesPerTurn  = 64
)

// daemon is the running process. Its loop allocates nothing except where an agent or a holder connects.
type daemon struct {
	o    options
	k    *keeper.Keeper
	a    *acquired
	dev  watchdog.Device
	kill *killTimer
	wait *waiter

	listen  int
	agent   int // -1 for none
	conn    uint64
	in      [wire.Size]byte
	have    int
	out     [wire.Size]byte
	msg     wire.Message
	nonce   lease.Nonce
	wakeAt  lease.Instant
	retryAt lease.Instant // for a lost holder, 0 if it is not lost
}

// serve is the deadman's life: get hold of the device, be ready, then the loop.
func serve(o options, warnings []wire.Warning) error {
	lock, err := lockSocket(o.socket)
	if err != nil {
		return err
	}
	defer unix.Close(lock)
	a, err := acquire(o)
	if err != nil {
		return err
	}
	d := &daemon{o: o, a: a, dev: a.device, agent: -1}
	inForce, err := d.firstTimeout()
	if err != nil {
		return err
	}
	if d.kill, err = newKillTimer(); err != nil {
		warnings = append(warnings, trouble(wire.NoKillTimer, err))
	}
	if d.wait, err = newWaiter(); err != nil {
		return err
	}
	if d.listen, err = listen(o.socket); err != nil {
		return err
	}
	facts := a.device.Facts()
	warnings = append(warnings, facts.Warnings...)
	if facts.Watches && !a.held {
		warnings = append(warnings, trouble(wire.NotHeldTwice, a.heldError))
	}
	warnings = append(warnings, rehearse()...)
	d.k = keeper.New(keeper.Options{
		Class: facts.Class, TakenOver: a.takenOver, Watchdog: inForce, Held: a.held, NoWayOut: facts.NoWayOut, Fired: facts.Fired,
		Pid: os.Getpid(), Warnings: warnings,
	}, now())
	announce(facts, d.k.State())
	if a.systemd != nil {
		_ = a.systemd.Ready() // the service manager then calls the start failed, and says so
	}
	return d.loop()
}

// announce says once, before the loop, what stands behind this deadman. In the loop nothing is written that could block.
func announce(f watchdog.Facts, s wire.State) {
	how := "opened"
	if s.TakenOver {
		how = "taken over, so armed"
	}
	fmt.Fprintf(os.Stderr, "cldeadman %s: %s %s, class %s, timeout %v, held by a second process: %t\n", version, f.Name, how, f.Class, s.Watchdog, s.Held)
	for _, w := range s.Warnings {
		if w.Trouble != wire.NoTrouble {
			fmt.Fprintln(os.Stderr, "cldeadman: warning:", w.Text())
		}
	}
}

// firstTimeout sets the timeout of a device that was opened, and only reads it back from one that was taken over: setting pets.
func (d *daemon) firstTimeout() (time.Duration, error) {
	var t time.Duration
	var err error
	if d.o.timeout > 0 && !d.a.takenOver {
		t, err = d.dev.SetTimeout(d.o.timeout)
	} else {
		t, err = d.dev.Timeout()
	}
	if err != nil {
		return 0, fmt.Errorf("learn the timeout of the watchdog %s: %w", d.dev.Facts().Name, err)
	}
	return t, nil
}

// lockSocket makes sure that this is the only deadman of the socket. The lock ends with the process.
func lockSocket(socket string) (int, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return -1, fmt.Errorf("make the directory of the deadman's socket: %w", err)
	}
	fd, err := unix.Open(socket+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open the deadman's lock %s.lock: %w", socket, err)
	}
	how := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	for until := time.Now().Add(predecessorEnd); ; {
		err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &how)
		if err == nil {
			return fd, nil
		}
		if time.Now().After(until) {
			unix.Close(fd)
			return -1, fmt.Errorf("another deadman serves %s: %w", socket, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// listen makes the agent's socket, 0600.
func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, fmt.Errorf("make the deadman's socket: %w", err)
	}
	unix.CloseOnExec(fd)
	_ = os.Remove(path) // of a predecessor: the lock says that it is gone
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		return -1, fmt.Errorf("bind the deadman's socket %s: %w", path, err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		return -1, fmt.Errorf("listen on the deadman's socket %s: %w", path, err)
	}
	return fd, unix.SetNonblock(fd, true)
}

// loop runs until a clean stop.
func (d *daemon) loop() error {
	for {
		d.settle()
		d.lookForHolder()
		e := d.wait.wait(d.nextWake(), d.listen, d.agent, d.holderFD())
		if e.stop {
			if stopped, err := d.stop(); stopped {
				return err
			}
		}
		if e.holder {
			d.holderLost()
		}
		if e.listen {
			d.accept()
		}
		if e.agent {
			d.read()
		}
	}
}

// settle does all that the keeper wants done now, and sends what it has to say.
func (d *daemon) settle() {
	for {
		a := d.k.Next(now())
		switch a.Op {
		case keeper.Wait:
			d.wakeAt = a.At
			d.flush()
			return
		case keeper.Ask:
			random(&d.nonce)
			d.k.Asked(now().Boot, d.nonce)
		case keeper.Pet:
			d.pet(a)
		case keeper.SetTimeout:
			t, err := d.dev.SetTimeout(a.Timeout)
			if err != nil {
				t = 0
			}
			d.k.TimeoutSet(now(), t)
		case keeper.Reset:
			d.reset()
		}
	}
}

// pet is the pet sequence: the timer that kills this process stands before the pet begins, so that a process that is stopped
// anywhere in it dies before it can pet late.
func (d *daemon) pet(a keeper.Action) {
	interrupt("before timer")
	if a.Kill != 0 {
		d.kill.arm(a.Kill)
	}
	if !d.k.MayPet(now()) {
		return
	}
	interrupt("before pet")
	var inForce time.Duration
	var err error
	if a.Timeout != 0 {
		if inForce, err = d.dev.SetTimeout(a.Timeout); err != nil {
			inForce = 0
		}
	}
	err = d.dev.Pet()
	interrupt("after pet")
	if a.Kill != 0 {
		d.kill.disarm()
	}
	d.k.Petted(now(), err == nil, inForce)
}

// reset resets the node, and never comes back: should every way fail, the device that is petted no more is the backstop.
func (d *daemon) reset() {
	d.kill.disarm()
	d.flush()
	for {
		d.dev.Reset()
		pause(resetRetry)
	}
}

// flush sends what waits for the agent. An agent that has let the socket's buffer fill up is given up.
func (d *daemon) flush() {
	for d.k.Out(&d.msg) {
		if d.agent < 0 {
			continue
		}
		wire.Encode(&d.msg, &d.out)
		if n, err := unix.Write(d.agent, d.out[:]); err != nil || n != wire.Size {
			d.hangUp()
		}
	}
}

func (d *daemon) hangUp() {
	if d.agent >= 0 {
		unix.Close(d.agent)
		d.agent = -1
		d.k.Disconnected(d.conn)
	}
}

// accept takes the newest agent and drops the one before.
func (d *daemon) accept() {
	fd, err := acceptPeer(d.listen)
	if err != nil {
		return
	}
	d.hangUp()
	d.agent, d.have = fd, 0
	d.conn++
	d.k.Connected(d.conn)
}

// read takes what the agent sent, frame by frame: between two frames the keeper's wishes are met.
func (d *daemon) read() {
	for range framesPerTurn {
		n, err := unix.Read(d.agent, d.in[d.have:])
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return
		}
		if n <= 0 || err != nil {
			d.hangUp()
			return
		}
		if d.have += n; d.have < wire.Size {
			continue
		}
		d.have = 0
		if wire.Decode(&d.in, &d.msg) != nil {
			d.hangUp()
			return
		}
		d.k.Receive(now(), d.conn, &d.msg)
		d.settle()
		if d.agent < 0 {
			return
		}
	}
}

// nextWake is when the keeper or the search for a holder wants to look again, 0 for never.
func (d *daemon) nextWake() lease.Instant {
	if d.retryAt != 0 && (d.wakeAt == 0 || d.retryAt < d.wakeAt) {
		return d.retryAt
	}
	return d.wakeAt
}

func (d *daemon) holderFD() int {
	if d.a.process == nil || !d.a.held {
		return -1
	}
	return d.a.process.Descriptor()
}

// holderLost notes the end of the holder process. This process opens nothing and starts nothing for another: whoever supervises
// starts it.
func (d *daemon) holderLost() {
	d.a.process.Close()
	d.a.process, d.a.held = nil, false
	at := now().Boot
	d.retryAt = at.Add(holderRetry)
	d.k.SetHeld(at, false)
}

// lookForHolder tries to find a new holder process from time to time after the old one was lost.
func (d *daemon) lookForHolder() {
	at := now().Boot
	if d.retryAt == 0 || at < d.retryAt {
		return
	}
	d.retryAt = at.Add(holderRetry)
	p, left, err := holder.Connect(d.o.holder, holderPatience)
	if err != nil {
		return
	}
	if left != nil { // of another deadman's device: not for us
		unix.Close(left.Device)
		unix.Close(left.PidFD)
		p.Close()
		return
	}
	if p.Hold(holder.Copy{Device: d.dev.Descriptor(), PidFD: d.a.pidfd, Label: d.o.label()}) != nil {
		p.Close()
		return
	}
	d.a.process, d.a.held, d.retryAt = p, true, 0
	d.k.SetHeld(at, true)
	d.settle()
}

// stop is the clean stop: only disarmed, and only after the second holder has given its copy up does closing with the magic
// character end the watching.
func (d *daemon) stop() (stopped bool, err error) {
	if !d.k.MayStop(now().Boot) {
		return false, nil
	}
	if err := d.a.release(d.o); err != nil {
		return false, nil
	}
	if err := d.dev.Stop(); err != nil {
		return true, err
	}
	_ = os.Remove(d.o.socket)
	return true, nil
}
