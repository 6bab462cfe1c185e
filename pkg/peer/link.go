package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

const (
	// wanted is for how long after its last use a link is dialled again by itself.
	wanted = 30 * time.Second
	// Pauses between the starts of two rounds of dialling.
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 250 * time.Millisecond
)

// A link is our side of the calls to one node: one connection, made when it is needed.
type link struct {
	p    *Peer
	node string

	mu      sync.Mutex
	up      *clientConn
	dialing bool
	used    time.Time
	upAt    time.Time
	err     error         // why it is not up
	ended   bool          // for good; err says why
	changed chan struct{} // closed at the next change of up or ended; nil if nobody waits
}

// Call asks a node and waits for the answer, which is the caller's to keep. While there is no connection it waits for one, as
// long as the context allows. A call to the own node runs the handler in the caller's goroutine. See the package comment for
// what errors mean.
func (p *Peer) Call(ctx context.Context, node, method string, body []byte) ([]byte, error) {
	if n := headSize + requestSize + len(method) + len(body); n > MaxFrame {
		return nil, fmt.Errorf("call %s of node %s: %w: %d bytes, at most %d fit", method, node, ErrTooLarge, n, MaxFrame)
	}
	if node == p.node {
		return p.callSelf(ctx, method, body)
	}
	l, err := p.link(node)
	if err != nil {
		return nil, fmt.Errorf("call %s of node %s: %w", method, node, err)
	}
	c, err := l.conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("call %s of node %s: %w", method, node, err)
	}
	answer, err := c.call(ctx, method, body)
	var remote *RemoteError
	if err != nil && !errors.As(err, &remote) {
		err = fmt.Errorf("call %s of node %s: %w", method, node, err)
	}
	return answer, err
}

func (p *Peer) callSelf(ctx context.Context, method string, body []byte) ([]byte, error) {
	m, ok := (*p.handlers.Load())[method]
	if !ok {
		return nil, fmt.Errorf("call %s of this node: %w", method, ErrUnknownMethod)
	}
	answer, err := m.serve(ctx, p.node, body)
	if err != nil {
		return nil, &RemoteError{Node: p.node, Method: method, Text: err.Error()}
	}
	return answer, nil
}

func (p *Peer) link(node string) (*link, error) {
	if !p.member(node) {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, identity.ErrNotMember)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	l := p.links[node]
	if l == nil {
		l = &link{p: p, node: node}
		p.links[node] = l
	}
	return l, nil
}

// conn returns the link's connection, and waits for one if need be.
func (l *link) conn(ctx context.Context) (*clientConn, error) {
	for {
		l.mu.Lock()
		l.used = time.Now()
		switch {
		case l.ended:
			defer l.mu.Unlock()
			return nil, l.err
		case l.up != nil:
			defer l.mu.Unlock()
			return l.up, nil
		case !l.dialing:
			l.redial(0)
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.err != nil {
				return nil, fmt.Errorf("%w: %w (last try: %w)", ErrUnreachable, context.Cause(ctx), l.err)
			}
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
		}
	}
}

// redial starts the dialling goroutine. It is called with the lock.
func (l *link) redial(pause time.Duration) {
	l.dialing = true
	l.p.wg.Go(func() { l.dial(pause) })
}

// dial tries, after a pause, until there is a connection, nobody wants one any more, or the link has ended.
func (l *link) dial(pause time.Duration) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		if !sleep(l.p.ctx, pause) {
			return
		}
		start := time.Now()
		c, err := l.connect()
		if !l.dialled(c, err) {
			return
		}
		pause = time.Until(start.Add(backoff))
	}
}

// sleep reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes one round of dialling. In TLS 1.3 the client is done before the server has looked at its certificate; the
// server's first frame says that it took us.
func (l *link) connect() (*clientConn, error) {
	nc, address, err := l.p.dial(l.p.ctx, l.node, ProtoPeer)
	if err != nil {
		return nil, err
	}
	c, err := l.greet(nc)
	if c != nil {
		c.address = address
	}
	return c, err
}

// greet waits for the server's first frame on a new connection, which it closes if none comes.
func (l *link) greet(nc net.Conn) (*clientConn, error) {
	c := newClientConn(l, nc)
	nc.SetReadDeadline(time.Now().Add(clientHandshakeTimeout))
	f, _, err := readFrame(c.r, nil, MaxFrame)
	if err == nil && f.kind != kindPong {
		err = fmt.Errorf("%w: kind %d as a greeting", errFrame, f.kind)
	}
	if err != nil {
		closeNow(nc)
		return nil, fmt.Errorf("connect to node %s: %w", l.node, refusal(err))
	}
	nc.SetReadDeadline(time.Time{})
	return c, nil
}

// refusal says in words what the other side's TLS alert means here.
func refusal(err error) error {
	if strings.HasSuffix(err.Error(), "tls: bad certificate") {
		return fmt.Errorf("the node refused our certificate: it does not count this node as a member, or the certificate is void: %w", err)
	}
	return err
}

// dialled takes the outcome of one round and reports whether another is needed.
func (l *link) dialled(c *clientConn, err error) (again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		if c != nil {
			closeNow(c.w.conn)
		}
		return false
	}
	if err != nil {
		l.err = err
		l.dialing = time.Since(l.used) < wanted
		return l.dialing
	}
	l.dialing, l.err = false, nil
	l.up, l.upAt = c, time.Now()
	l.p.wg.Go(c.read)
	l.wake()
	return false
}

// down takes note that a connection has ended.
func (l *link) down(c *clientConn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up != c {
		return
	}
	l.up, l.err = nil, err
	if !l.ended && !l.dialing && time.Since(l.used) < wanted && l.p.ctx.Err() == nil {
		l.redial(time.Until(l.upAt.Add(firstBackoff)))
	}
}

// end ends the link for good.
func (l *link) end(err error) {
	l.mu.Lock()
	c := l.up
	l.up, l.ended, l.err = nil, true, err
	l.wake()
	l.mu.Unlock()
	if c != nil {
		c.fail(err)
	}
}

func (l *link) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// A clientConn is one connection with the calls that wait on it.
type clientConn struct {
	l *link

	address string // of the node, to which it leads
	w       writer
	r       *bufio.Reader

	mu      sync.Mutex
	pending map[uint32]*call
	lastID  uint32
	err     error // the connection has ended
	// Watch over silence: since is when something was sent of which nothing has come back, zero if all is answered.
	since   time.Time
	pinged  bool
	moving  bool // another address is being tried
	timer   *time.Timer
	expects time.Time // when the timer should fire
}

type call struct {
	done chan struct{} // receives one value when the rest is filled
	kind byte
	body []byte
	err  error
}

func newCall() any { return &call{done: make(chan struct{}, 1)} }

func newClientConn(l *link, c net.Conn) *clientConn {
	return &clientConn{l: l, w: writer{conn: c}, r: bufio.NewReaderSize(c, readBuffer), pending: map[uint32]*call{}}
}

func (c *clientConn) call(ctx context.Context, method string, body []byte) ([]byte, error) {
	var wait time.Duration
	if d, ok := ctx.Deadline(); ok {
		if wait = time.Until(d); wait <= 0 {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, context.DeadlineExceeded)
		}
	}
	calls := &c.l.p.calls
	k := calls.Get().(*call)
	id, err := c.begin(k)
	if err != nil {
		calls.Put(k)
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := send(&c.w, kindRequest, id, wait, method, body); err != nil {
		c.fail(err) // which completes k
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		if c.abandon(id) {
			calls.Put(k)
			return nil, context.Cause(ctx)
		}
		<-k.done // it was being completed
	}
	defer calls.Put(k)
	answer, kind, err := k.body, k.kind, k.err
	k.body, k.err = nil, nil
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	case kind == kindReply:
		return answer, nil
	case kind == kindUnknown:
		return nil, ErrUnknownMethod
	case kind == kindBusy:
		return nil, ErrBusy
	}
	return nil, &RemoteError{Node: c.l.node, Method: method, Text: string(answer)}
}

func (c *clientConn) begin(k *call) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.lastID++
	for c.pending[c.lastID] != nil { // after 2^32 calls
		c.lastID++
	}
	c.pending[c.lastID] = k
	if c.since.IsZero() {
		c.since, c.pinged = time.Now(), false
		c.watch()
	}
	return c.lastID, nil
}

// abandon forgets a call; it reports false if the call is complete, or is being completed.
func (c *clientConn) abandon(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pending[id]
	delete(c.pending, id)
	return ok
}

// ticks is how often silence is looked at within the stall timeout.
const ticks = 4

// watch arms the timer. It is called with the lock.
func (c *clientConn) watch() {
	d := min(c.l.p.cfg.StallTimeout/ticks, c.l.p.cfg.MoveAfter/2)
	c.expects = time.Now().Add(d)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.tick)
		return
	}
	c.timer.Reset(d)
}

// tick looks whether the other side is silent: it sends a ping at the first tick, tries another address if that is not answered at
// the next, and gives the connection up after the stall timeout. Time in which this process did not run counts for nothing.
func (c *clientConn) tick() {
	stall := c.l.p.cfg.StallTimeout
	c.mu.Lock()
	if c.err != nil || c.since.IsZero() {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	if late := now.Sub(c.expects); late > stall/ticks {
		c.since = c.since.Add(late)
	}
	silent := now.Sub(c.since)
	ping := !c.pinged
	c.pinged = true
	move := !ping && !c.moving && silent < stall // the ping of the tick before was not answered
	if move && c.l.p.ctx.Err() == nil {
		c.moving = true
		c.l.p.wg.Go(c.move)
	}
	if silent < stall {
		c.watch()
	}
	c.mu.Unlock()
	switch {
	case silent >= stall:
		c.fail(fmt.Errorf("nothing came back for %v", silent.Round(time.Millisecond)))
	case ping:
		if err := send(&c.w, kindPing, 0, 0, "", ""); err != nil {
			c.fail(err)
		}
	}
}

// move makes a connection to another address of the node while this one is silent, and puts it into its place if this one is silent
// still. A link whose network has died is thus on another one before its silence is taken for the node's. What waits on the old
// connection fails, as with any connection that ends: nothing is sent twice.
func (c *clientConn) move() {
	defer func() {
		c.mu.Lock()
		c.moving = false
		c.mu.Unlock()
	}()
	p, node := c.l.p, c.l.node
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout+clientHandshakeTimeout)
	defer cancel()
	nc, address, err := p.dialOthers(ctx, node, ProtoPeer, c.address)
	if err != nil {
		return // this connection has its own limit
	}
	fresh, err := c.l.greet(nc)
	if err != nil {
		return
	}
	fresh.address = address
	c.mu.Lock()
	silent := c.err == nil && !c.since.IsZero() && time.Since(c.since) >= p.cfg.MoveAfter
	c.mu.Unlock()
	if !silent || !c.l.replace(c, fresh) {
		closeNow(nc)
		return
	}
	p.mu.Lock()
	p.good[node] = address
	p.mu.Unlock()
	c.fail(fmt.Errorf("nothing came back for a while, and the node answers at %s", address))
}

// replace puts a new connection into the place of an old one, if that is still there.
func (l *link) replace(old, fresh *clientConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.up != old {
		return false
	}
	l.up, l.upAt = fresh, time.Now()
	l.p.wg.Go(fresh.read)
	return true
}

// heard takes note that the other side sent something, and takes the call that it answers, if any.
func (c *clientConn) heard(f frame) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var k *call
	if f.kind != kindPong {
		k = c.pending[f.id]
		delete(c.pending, f.id)
	}
	if len(c.pending) == 0 {
		if !c.since.IsZero() {
			c.since = time.Time{}
			c.timer.Stop()
		}
	} else {
		c.since, c.pinged = time.Now(), false
	}
	return k
}

// read takes answers until the connection ends.
func (c *clientConn) read() {
	var buf []byte
	for {
		f, b, err := readFrame(c.r, buf, MaxFrame)
		if err == nil && (f.kind == kindRequest || f.kind == kindPing) {
			err = fmt.Errorf("%w: kind %d from the called side", errFrame, f.kind)
		}
		if err != nil {
			c.fail(err)
			return
		}
		if buf = b; cap(buf) > keepSize {
			buf = nil
		}
		c.l.p.heard(c.l.node)
		if k := c.heard(f); k != nil {
			k.kind = f.kind
			k.body = append(make([]byte, 0, len(f.body)), f.body...)
			k.done <- struct{}{}
		}
	}
}

// fail ends the connection and all calls on it. The first reason counts.
func (c *clientConn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	waiting := c.pending
	c.pending = map[uint32]*call{}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	closeNow(c.w.conn)
	c.l.p.log.Debug("the connection to a node ended", "node", c.l.node, "error", err)
	c.l.down(c, err)
	for _, k := range waiting {
		k.err = err
		k.done <- struct{}{}
	}
}
