// Package deadman is the agent's side of its deadman: the connection over which the agent carries the deadman's lease requests
// to the leader and the leader's grants back, and tells it when it is armed.
//
// The deadman itself is a process of its own (cmd/cldeadman); its rules are in the package keeper, what it pets in watchdog.
// Nothing here keeps a node safe: an agent that dies, hangs or lies by delay leaves a deadman that resets the node in time. What
// the agent must get right is the order of its own steps, which Arm, HoldsSomething and Disarm state.
package deadman

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Settings are the timings and the mode that a deadman is to keep.
type Settings struct {
	Params lease.Params
	Mode   lease.Mode
}

// Info says what stands behind a deadman, and how it is.
type Info struct {
	Class    lease.Class
	Watchdog time.Duration // in force at the device; doubled where nobody else holds the device's descriptor
	Mode     lease.Mode
	Armed    bool
	Pid      int
	Warnings []string // what its process could not do or does not like, one sentence each
	Started  lease.Instant

	ArmedAt   lease.Instant // when the present arming began; 0 if disarmed. Only a grant asked for after it allows a first start
	Device    time.Duration // the timeout in force at the device, never doubled
	Held      bool          // somebody else holds the device's descriptor too
	TakenOver bool          // the device came from a deadman that died: armed until Disarm, whatever runs here
	NoWayOut  bool          // the device cannot be stopped
	Fired     bool          // the device says that it ended the machine before this boot
}

// A Request is to be carried to the leader at once. At is t_req, on this machine's boot-time clock.
type Request struct {
	Nonce lease.Nonce
	At    lease.Instant
}

// An Event is something that happened in the deadman.
type Event struct {
	At     lease.Instant
	Reason wire.Reason
	Text   string
	Reset  bool // the deadman resets the node now
}

// Status are a deadman's figures.
type Status struct {
	Granted   lease.Instant // t_req of the newest grant taken, 0 before the first
	PettedAt  lease.Instant // when the newest pet ended
	Margin    time.Duration // how long before its kill timer the newest pet under a grant ended
	MinMargin time.Duration // the smallest Margin, 0 before the first
	Pets      uint64
	Asked     uint64 // requests
	Taken     uint64 // grants taken
	Late      uint64 // grants that came too late
	Refused   uint64 // grants refused for another reason
}

// Errors of a Client's methods; an answer of the deadman is an *AnswerError.
var (
	ErrClosed   = errors.New("the connection to the deadman has ended")
	ErrNoAnswer = errors.New("the deadman did not answer in time")
)

// An AnswerError is a refusal by the deadman.
type AnswerError struct{ Code wire.Code }

func (e *AnswerError) Error() string { return e.Code.Text() }

// answerTime bounds every wait for the deadman, which answers within microseconds unless it is stopped or gone.
const answerTime = 2 * time.Second

// A Client is one connection to a deadman. Its methods may be called from any goroutine. A connection that has died stays
// dead: Connect again; the deadman then voids what the old connection had asked for.
type Client struct {
	conn     net.Conn
	requests chan Request
	events   chan Event
	done     chan struct{}
	write    sync.Mutex

	mu      sync.Mutex
	err     error
	seq     uint32
	waiting map[uint32]chan wire.Code
	state   wire.State
	known   chan struct{} // closed at the first Info
	figures wire.Figures
}

// Connect connects to the deadman that serves the socket and gives it the settings, which must fit its watchdog. An armed
// deadman whose watchdog needs another timeout for them sets it with its next pet, so after Connect.
func Connect(ctx context.Context, socket string, s Settings) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the deadman (is cldeadman running?): %w", err)
	}
	return Attach(ctx, conn, s)
}

// Attach is Connect over a connection that exists. It closes it on an error.
func Attach(ctx context.Context, conn net.Conn, s Settings) (*Client, error) {
	c := &Client{
		conn: conn, requests: make(chan Request, 16), events: make(chan Event, 64), done: make(chan struct{}),
		waiting: map[uint32]chan wire.Code{}, known: make(chan struct{}),
	}
	go c.read()
	err := c.settings(ctx, s, false)
	if err == nil {
		err = c.awaitInfo(ctx)
	}
	if err != nil {
		c.Close()
		<-c.done
		return nil, err
	}
	return c, nil
}

func (c *Client) awaitInfo(ctx context.Context) error {
	select {
	case <-c.known:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Update gives the deadman other settings. Under an arming a new watchdog timeout is set together with the next pet, so
// Update returns only after the next grant. What makes a proof later (a larger watchdog timeout or age) is to be committed before
// Update, what makes it earlier after it; Info has the timeout that is then in force.
func (c *Client) Update(ctx context.Context, s Settings) error { return c.settings(ctx, s, true) }

// settings gives the deadman settings. final says that it is not enough for them to be taken: they must be in force.
func (c *Client) settings(ctx context.Context, s Settings, final bool) error {
	if bad := s.Params.Validate(); len(bad) > 0 {
		return fmt.Errorf("give settings to the deadman: %w", errors.Join(bad...))
	}
	if s.Mode != lease.ModeReset && s.Mode != lease.ModeEvent {
		return fmt.Errorf("give settings to the deadman: mode %q is neither %s nor %s", s.Mode, lease.ModeReset, lease.ModeEvent)
	}
	p := s.Params
	return c.ask(ctx, "give settings to the deadman", wire.Message{Kind: wire.Hello, Settings: wire.Settings{
		Watchdog: p.Watchdog, Hard: p.Hard, MaxAge: p.MaxAge, Margin: p.Margin, Renew: p.Renew, ModeEvent: s.Mode == lease.ModeEvent,
	}}, final)
}

// Info describes the deadman as it last described itself.
func (c *Client) Info() Info {
	c.mu.Lock()
	s := c.state
	c.mu.Unlock()
	i := Info{
		Class: lease.Process, Watchdog: s.Watchdog, Mode: lease.ModeReset, Armed: s.Armed, Pid: int(s.Pid), Started: s.Started,
		ArmedAt: s.ArmedAt, Device: s.Watchdog, Held: s.Held, TakenOver: s.TakenOver, NoWayOut: s.NoWayOut,
		Fired: s.Fired,
	}
	if s.ModeEvent {
		i.Mode = lease.ModeEvent
	}
	if s.Independent {
		i.Class = lease.Independent
		if !s.Held { // the death of the deadman closes the device, and closing pets it once more
			i.Watchdog *= 2
		}
	}
	for _, w := range s.Warnings {
		if w.Trouble != wire.NoTrouble {
			i.Warnings = append(i.Warnings, w.Text())
		}
	}
	return i
}

// Requests yields the deadman's requests. If nobody takes them the oldest is dropped.
func (c *Client) Requests() <-chan Request { return c.requests }

// Events yields what happens in the deadman. If nobody takes them the oldest is dropped.
func (c *Client) Events() <-chan Event { return c.events }

// Renew asks the deadman for a request out of turn. It comes within 20 ms of the last one at the earliest.
func (c *Client) Renew() { _ = c.send(wire.Message{Kind: wire.Renew}) } // a dead connection shows in Done

// Grant hands the deadman the leader's answer to a request. It returns nil only if the deadman took it, and has petted: only
// then does the grant allow anything. If next is over 0 the deadman asks again after that time, so that many nodes' requests
// come together; never later than by itself, and never sooner than 20 ms after its last request.
func (c *Client) Grant(nonce lease.Nonce, leaderBoot string, leaderTime lease.Instant, next time.Duration) error {
	digest := sha256.Sum256([]byte(leaderBoot))
	m := wire.Message{Kind: wire.Grant, Nonce: nonce, Time: leaderTime, Next: min(max(next, 0), wire.MaxNext)}
	copy(m.Boot[:], digest[:])
	return c.call(context.Background(), "hand a grant to the deadman", m)
}

// Arm makes the deadman pet only under grants that it asks for from now on. Arming an armed deadman changes nothing, and in
// particular does not lengthen its lease.
func (c *Client) Arm(ctx context.Context) error {
	return c.call(ctx, "arm the deadman", wire.Message{Kind: wire.Arm})
}

// Disarm makes the deadman pet freely. The caller must have seen everything on this node stopped.
func (c *Client) Disarm(ctx context.Context) error {
	return c.call(ctx, "disarm the deadman", wire.Message{Kind: wire.Disarm})
}

// HoldsSomething tells an armed deadman whether this node has started anything in this arming. A node that has not is disarmed
// instead of reset when no grant comes, so it must be told, and have answered with nil, before the first step of a start.
func (c *Client) HoldsSomething(started bool) error {
	return c.call(context.Background(), "tell the deadman what the node holds", wire.Message{Kind: wire.Holds, Started: started})
}

// Reset makes the deadman reset the node at once, in mode e raise the event. The node has heard that the cluster declared it
// dead, or must give up what it cannot release. It returns nil when the deadman will do so.
func (c *Client) Reset() error {
	err := c.call(context.Background(), "ask the deadman for a reset", wire.Message{Kind: wire.Reset})
	var answer *AnswerError
	if errors.As(err, &answer) && answer.Code == wire.Resetting {
		return nil
	}
	return err
}

// Status returns the figures as of the last grant.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.figures
	return Status{Granted: f.Granted, PettedAt: f.PettedAt, Margin: f.Margin, MinMargin: f.MinMargin, Pets: f.Pets,
		Asked: f.Asked, Taken: f.Taken, Late: f.Late, Refused: f.Refused}
}

// Done is closed when the connection has died.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection died, nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. An armed deadman goes on counting.
func (c *Client) Close() error { return c.conn.Close() }

// TestWatchdog would measure how long this machine lives after its last pet, by letting it be reset.
func (c *Client) TestWatchdog(context.Context) error {
	return fmt.Errorf("measure the watchdog: %w: it resets the node, and what measures it must run on another one", errors.ErrUnsupported)
}

// call sends a frame and waits for its final answer.
func (c *Client) call(ctx context.Context, doing string, m wire.Message) error {
	return c.ask(ctx, doing, m, true)
}

// ask sends a frame and waits for its answer: the final one, or any.
func (c *Client) ask(ctx context.Context, doing string, m wire.Message, final bool) error {
	answer := make(chan wire.Code, 2)
	if ctx.Err() != nil { // else an answer that is quick enough would hide it
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	c.mu.Lock()
	c.seq++
	m.Seq = c.seq
	c.waiting[m.Seq] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.Seq)
		c.mu.Unlock()
	}()
	if err := c.send(m); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// Settings may have to wait for the next grant; everything else is answered at once.
	var timeout <-chan time.Time
	if m.Kind != wire.Hello {
		t := time.NewTimer(answerTime)
		defer t.Stop()
		timeout = t.C
	}
	for {
		select {
		case code := <-answer:
			switch {
			case code == wire.OK, code == wire.Pending && !final:
				return nil
			case code == wire.Pending:
				continue
			}
			return fmt.Errorf("%s: %w", doing, &AnswerError{Code: code})
		case <-c.done:
			return fmt.Errorf("%s: %w", doing, c.Err())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		case <-timeout:
			return fmt.Errorf("%s: %w", doing, ErrNoAnswer)
		}
	}
}

func (c *Client) send(m wire.Message) error {
	var b [wire.Size]byte
	wire.Encode(&m, &b)
	c.write.Lock()
	defer c.write.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return ErrClosed
	}
	if _, err := c.conn.Write(b[:]); err != nil {
		c.conn.Close() // half a frame may be out: nothing can follow it
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// read takes what the deadman sends until the connection dies.
func (c *Client) read() {
	err := c.readFrames()
	c.conn.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	c.mu.Unlock()
	close(c.done)
}

func (c *Client) readFrames() error {
	var b [wire.Size]byte
	var m wire.Message
	for {
		if _, err := io.ReadFull(c.conn, b[:]); err != nil {
			return err
		}
		if err := wire.Decode(&b, &m); err != nil {
			return err
		}
		c.take(&m)
	}
}

func (c *Client) take(m *wire.Message) {
	switch m.Kind {
	case wire.Request:
		push(c.requests, Request{Nonce: m.Nonce, At: m.At})
	case wire.Event:
		push(c.events, Event{At: m.At, Reason: m.Reason, Text: m.Reason.Text(), Reset: m.Dooms})
	case wire.Info:
		c.mu.Lock()
		c.state = m.State
		select {
		case <-c.known:
		default:
			close(c.known)
		}
		c.mu.Unlock()
	case wire.Status:
		c.mu.Lock()
		c.figures = m.Figures
		c.mu.Unlock()
	case wire.Ack:
		c.mu.Lock()
		if answer := c.waiting[m.Seq]; answer != nil {
			select {
			case answer <- m.Code:
			default: // more answers than a deadman gives
			}
			if m.Code != wire.Pending {
				delete(c.waiting, m.Seq)
			}
		}
		c.mu.Unlock()
	}
}

// push puts v into a channel that this goroutine alone fills; if nobody takes from it the oldest value gives way.
func push[T any](ch chan T, v T) {
	for {
		select {
		case ch <- v:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}
