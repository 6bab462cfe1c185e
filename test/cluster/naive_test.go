package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A naive deadman lacks an answer to an attack: tests that plant it show that the checkers catch what it lets through.
type naive struct {
	m *machine
	// anyAge: it pets on every grant, however late; it knows no kill timer, and nothing at L_hard.
	anyAge bool
	// neverArms: its watchdog is never started, whatever it says.
	neverArms bool

	mu       sync.Mutex
	dog      *time.Timer
	armedAt  lease.Instant
	renewed  chan struct{}
	requests chan deadman.Request
	asked    map[lease.Nonce]lease.Instant
	drawn    uint64
	watchdog time.Duration
}

// plant gives a machine a naive deadman, from its next connection on.
func (r *rig) plant(name string, n *naive) {
	n.m, n.watchdog = r.machines[name], r.params.Watchdog
	n.requests, n.renewed, n.asked = make(chan deadman.Request, 16), make(chan struct{}, 1), map[lease.Nonce]lease.Instant{}
	r.planted = true
	r.naive = func(p *process) agent.Deadman {
		if p.m.name != name {
			return nil
		}
		return &naiveConn{naive: n, p: p, done: make(chan struct{})}
	}
}

type naiveConn struct {
	*naive
	p    *process
	once sync.Once
	done chan struct{}
}

func (c *naiveConn) run() {
	t := time.NewTicker(c.m.r.params.Renew)
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-c.p.ctx.Done():
			return
		case <-t.C:
		case <-c.renewed:
		}
		c.mu.Lock()
		c.drawn++
		var n lease.Nonce
		binary.BigEndian.PutUint64(n[:], c.drawn)
		c.asked[n] = c.m.clock.Now()
		q := deadman.Request{Nonce: n, At: c.asked[n]}
		c.mu.Unlock()
		select {
		case c.requests <- q:
		default:
		}
	}
}

func (c *naiveConn) Info() deadman.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return deadman.Info{Class: lease.Independent, Watchdog: c.watchdog, Device: c.watchdog, Held: true, Armed: c.armedAt != 0, ArmedAt: c.armedAt,
		Pid: 1, Started: 1, Mode: lease.ModeReset}
}

func (c *naiveConn) Requests() <-chan deadman.Request {
	c.once.Do(func() { go c.run() })
	return c.requests
}

func (c *naiveConn) Renew() {
	select {
	case c.renewed <- struct{}{}:
	default:
	}
}

// Grant is where the agent is stopped between check and pet, when its machine is frozen.
func (c *naiveConn) Grant(nonce lease.Nonce, _ string, _ lease.Instant, _ time.Duration) error {
	c.m.mu.Lock()
	frozen := c.m.frozen
	c.m.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-c.done:
			return deadman.ErrClosed
		case <-c.p.ctx.Done():
			return deadman.ErrClosed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.m.clock.Now().Sub(c.asked[nonce]) > c.m.r.params.MaxAge
	if late && !c.anyAge {
		return deadman.ErrNoAnswer
	}
	if c.dog != nil {
		c.dog.Reset(c.watchdog)
	}
	return nil
}

func (c *naiveConn) Arm(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armedAt = c.m.clock.Now()
	if !c.neverArms {
		c.dog = time.AfterFunc(c.watchdog, func() { c.m.end("the watchdog fired") })
	}
	return nil
}

func (c *naiveConn) Disarm(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armedAt = 0
	if c.dog != nil {
		c.dog.Stop()
	}
	return nil
}

func (c *naiveConn) Update(context.Context, deadman.Settings) error { return nil }
func (c *naiveConn) HoldsSomething(bool) error                      { return nil }
func (c *naiveConn) Status() deadman.Status                         { return deadman.Status{} }
func (c *naiveConn) Done() <-chan struct{}                          { return c.done }

func (c *naiveConn) Reset() error {
	go c.m.end("the agent asked for a reset")
	return nil
}

func (c *naiveConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	closeOnce(c.done)
	return nil
}
