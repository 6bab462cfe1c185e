// Package deadmantest is a deadman inside a test's process: the very rules of the real one (package keeper) and its wire protocol,
// before a watchdog that calls a function instead of ending a machine.
//
// It is made for testing/synctest, where it runs in fake time. It promises the rules; it does not promise what only a kernel can
// give: a process that is stopped between check and pet is shown by tests of the real process.
package deadmantest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Clock reads the test's time as a boot-time clock that began at the first use in the process. In a synctest bubble that is the
// bubble's fake time.
type Clock struct {
	Origin time.Time // the machine's boot
}

// Now reads the clock. It is never 0.
func (c Clock) Now() lease.Instant { return lease.Instant(time.Since(c.Origin)) + 1 }

// Options describe the fake.
type Options struct {
	Clock    lease.Clock
	Watchdog time.Duration // the timeout in force at the beginning; 0 is 5 s
	Class    lease.Class   // empty is independent
	Lonely   bool          // nobody else holds the descriptor
	Fired    bool          // the device says that it ended the machine before this boot
	// Kill is called once, when the node dies: by its deadman's reset, or by the watchdog.
	Kill func(why string)
}

// A Watchdog is the fake device: it outlives its deadman.
type Watchdog struct {
	kill func(string)

	mu      sync.Mutex
	timeout time.Duration
	timer   *time.Timer
	dead    bool
}

func (w *Watchdog) pet() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dead && w.timer != nil {
		w.timer.Reset(w.timeout)
	}
}

func (w *Watchdog) setTimeout(d time.Duration) time.Duration {
	w.mu.Lock()
	w.timeout = d
	w.mu.Unlock()
	w.pet()
	return d
}

func (w *Watchdog) fire(why string) {
	w.mu.Lock()
	was := w.dead
	w.dead = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	if !was && w.kill != nil {
		w.kill(why)
	}
}

func (w *Watchdog) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// A Deadman is a running fake.
type Deadman struct {
	o   Options
	dog *Watchdog

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	wake    chan struct{}
	k       *keeper.Keeper
	conn    uint64
	agent   *agentConn
	drawn   uint64
	stopped bool
}

// agentConn is the newest agent's connection. Frames leave through a channel, so that an agent that does not read holds nobody up.
type agentConn struct {
	id   uint64
	conn net.Conn
	in   chan [wire.Size]byte
	out  chan wire.Message
}

// Fired is what Options.Kill is told when the watchdog itself has ended the node.
const Fired = "the watchdog fired"

// Start runs a deadman that has opened its watchdog.
func Start(o Options) *Deadman {
	if o.Watchdog == 0 {
		o.Watchdog = 5 * time.Second
	}
	if o.Class == "" {
		o.Class = lease.Independent
	}
	w := &Watchdog{kill: o.Kill, timeout: o.Watchdog}
	w.timer = time.AfterFunc(o.Watchdog, func() { w.fire(Fired) })
	return run(o, w, false)
}

// Replace starts another deadman that takes over the watchdog of this one, which it ends first, as kill -9 and a restart do.
func (d *Deadman) Replace() *Deadman {
	d.Kill9()
	return run(d.o, d.dog, true)
}

func run(o Options, w *Watchdog, takenOver bool) *Deadman {
	d := &Deadman{o: o, dog: w, wake: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.k = keeper.New(keeper.Options{Class: o.Class, TakenOver: takenOver, Watchdog: w.timeoutInForce(), Held: !o.Lonely, Fired: o.Fired && !takenOver, Pid: 1}, d.reading())
	d.wg.Go(d.loop)
	return d
}

func (w *Watchdog) timeoutInForce() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeout
}

// Kill9 ends the deadman at once, as SIGKILL does. Its watchdog runs on: somebody else holds the descriptor.
func (d *Deadman) Kill9() {
	d.cancel()
	d.mu.Lock()
	d.hangUp()
	d.mu.Unlock()
	d.wg.Wait()
}

// Close ends the deadman and its watchdog, for the end of a test.
func (d *Deadman) Close() {
	d.Kill9()
	d.dog.mu.Lock()
	d.dog.timer.Stop()
	d.dog.dead = true
	d.dog.mu.Unlock()
}

// Stop makes the deadman do nothing until Continue, as SIGSTOP does.
func (d *Deadman) Stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
}

// Continue ends a Stop.
func (d *Deadman) Continue() {
	d.mu.Lock()
	d.stopped = false
	d.mu.Unlock()
	d.nudge()
}

// Dead reports whether the node was killed.
func (d *Deadman) Dead() bool { return d.dog.isDead() }

// Connect is deadman.Connect to this deadman.
func (d *Deadman) Connect(ctx context.Context, s deadman.Settings) (*deadman.Client, error) {
	conn, err := d.Dial()
	if err != nil {
		return nil, err
	}
	return deadman.Attach(ctx, conn, s)
}

// Dial is a raw connection to this deadman.
func (d *Deadman) Dial() (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil || d.dog.isDead() {
		return nil, errors.New("connect to the deadman: it is not there")
	}
	ours, theirs := net.Pipe()
	d.hangUp()
	d.conn++
	a := &agentConn{id: d.conn, conn: ours, in: make(chan [wire.Size]byte, 256), out: make(chan wire.Message, 256)}
	d.agent = a
	d.k.Connected(a.id)
	d.wg.Go(func() { d.read(a) })
	d.wg.Go(func() { d.serve(a) })
	d.wg.Go(func() { a.writeAll() })
	d.nudge()
	return theirs, nil
}

// hangUp is called with the lock held.
func (d *Deadman) hangUp() {
	if a := d.agent; a != nil {
		d.agent = nil
		a.conn.Close()
		close(a.out)
		d.k.Disconnected(a.id)
	}
}

func (a *agentConn) writeAll() {
	var b [wire.Size]byte
	for m := range a.out {
		wire.Encode(&m, &b)
		if _, err := a.conn.Write(b[:]); err != nil {
			for range a.out { // until hangUp closes it
			}
			return
		}
	}
}

// read takes frames off the connection as a socket's buffer does, whether the deadman runs or is stopped.
func (d *Deadman) read(a *agentConn) {
	defer close(a.in)
	for {
		var b [wire.Size]byte
		if _, err := io.ReadFull(a.conn, b[:]); err != nil {
			return
		}
		a.in <- b
	}
}

// serve handles the frames, and the end of the connection.
func (d *Deadman) serve(a *agentConn) {
	var m wire.Message
	for b := range a.in {
		d.mu.Lock()
		for d.stopped && d.ctx.Err() == nil {
			d.mu.Unlock()
			<-d.unstop()
			d.mu.Lock()
		}
		if wire.Decode(&b, &m) != nil {
			a.conn.Close()
			d.mu.Unlock()
			continue // until read has seen it
		}
		d.k.Receive(d.reading(), a.id, &m)
		d.settle()
		d.mu.Unlock()
		d.nudge()
	}
	d.mu.Lock()
	if d.agent == a {
		d.hangUp()
	}
	d.mu.Unlock()
}

// unstop yields a channel that closes a moment later: a stopped deadman looks again.
func (d *Deadman) unstop() <-chan time.Time { return time.After(time.Millisecond) }

func (d *Deadman) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Deadman) reading() keeper.Reading {
	now := d.o.Clock.Now()
	return keeper.Reading{Boot: now, MonoBefore: now, MonoAfter: now}
}

// loop wakes the keeper when it wants to be woken.
func (d *Deadman) loop() {
	for {
		d.mu.Lock()
		at := d.settle()
		d.mu.Unlock()
		wait := time.Hour
		if at != 0 {
			wait = max(0, at.Sub(d.o.Clock.Now()))
		}
		t := time.NewTimer(wait)
		select {
		case <-d.ctx.Done():
			t.Stop()
			return
		case <-d.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// settle does what the keeper wants, and returns when it wants to look again. The caller holds the lock.
func (d *Deadman) settle() lease.Instant {
	for !d.stopped && d.ctx.Err() == nil && !d.dog.isDead() {
		a := d.k.Next(d.reading())
		switch a.Op {
		case keeper.Wait:
			d.flush()
			return a.At
		case keeper.Ask:
			d.k.Asked(d.o.Clock.Now(), d.nonce())
		case keeper.Pet:
			if d.k.MayPet(d.reading()) {
				var inForce time.Duration
				if a.Timeout != 0 {
					inForce = d.dog.setTimeout(a.Timeout)
				}
				d.dog.pet()
				d.k.Petted(d.reading(), true, inForce)
			}
		case keeper.SetTimeout:
			d.k.TimeoutSet(d.reading(), d.dog.setTimeout(a.Timeout))
		case keeper.Reset:
			d.flush()
			// Not under the lock: what dies with the node may be using this deadman.
			d.wg.Go(func() {
				d.dog.fire("the deadman reset the node: " + a.Why.Text())
				d.mu.Lock()
				d.hangUp()
				d.mu.Unlock()
			})
			d.cancel()
			return 0
		}
	}
	return 0
}

func (d *Deadman) flush() {
	var m wire.Message
	for d.k.Out(&m) {
		if d.agent == nil {
			continue
		}
		select {
		case d.agent.out <- m:
		default:
			d.hangUp()
		}
	}
}

// nonce draws a nonce: distinct is all that a test needs.
func (d *Deadman) nonce() lease.Nonce {
	d.drawn++
	var seed [16]byte
	binary.BigEndian.PutUint64(seed[:], d.drawn)
	binary.BigEndian.PutUint64(seed[8:], uint64(d.o.Clock.Now()))
	sum := sha256.Sum256(seed[:])
	return lease.Nonce(sum[:16])
}
