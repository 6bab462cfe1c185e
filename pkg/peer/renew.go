package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

// Certificates that become void, and links that are made anew because of a new one.

const (
	// drainLimit is how long calls on a connection that was replaced may go on; drainLeast is for a call that has chosen the
	// connection and not begun.
	drainLimit = 30 * time.Second
	drainLeast = 100 * time.Millisecond
	// betweenNodes is the pause between two nodes whose other connections are closed: a leader that remakes its connections to
	// followers one after another never lacks a majority of them.
	betweenNodes = 100 * time.Millisecond
)

// refuseVoid makes a configuration refuse certificates that are void.
func (p *Peer) refuseVoid(c *tls.Config) {
	check := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := check(cs); err != nil {
			return err
		}
		// Not PeerNode: the handshake is not complete here.
		node, err := identity.NodeOf(cs)
		if err != nil {
			return err
		}
		if p.void(node, cs) {
			return fmt.Errorf("refuse node %s: %w", node, identity.ErrRevoked)
		}
		return nil
	}
}

func (p *Peer) void(node string, cs tls.ConnectionState) bool {
	return identity.PeerNumber(cs) < p.cfg.Floor(node)
}

// CheckCertificates ends what was made under certificates that have become void: connections from nodes that showed them at once, and
// those to nodes that showed them by another one in their place, so that no call is lost when a node has renewed its
// certificate. The caller calls it after each change of what Floor gives. It does not wait.
func (p *Peer) CheckCertificates() {
	void := func(t *tracked) bool { return t.theirs < p.cfg.Floor(t.node) }
	for _, t := range p.conns.where(func(t *tracked) bool { return !t.out && void(t) }) {
		t.Close()
	}
	stale := func(t *tracked) bool { return t.out && void(t) }
	if len(p.conns.where(stale)) == 0 || !p.checking.CompareAndSwap(false, true) {
		return // whoever is at work finds the newest too
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.wg.Go(func() {
		defer p.checking.Store(false)
		p.remake(p.ctx, stale)
	})
}

// Renewed makes all connections to other nodes anew, after Identity.Renew: their new ones show the new certificate. Calls that wait on
// the old ones get their answers; other protocols see their connections end, one node's after another's. It returns when
// nothing is left that was made with an older certificate, or with the context's error.
func (p *Peer) Renewed(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(p.ctx, cancel)
	defer stop()
	number := p.cfg.Identity.Number()
	p.remake(ctx, func(t *tracked) bool { return t.out && t.own < number })
	return ctx.Err()
}

// remake replaces connections until none is stale.
func (p *Peer) remake(ctx context.Context, stale func(*tracked) bool) {
	var drains sync.WaitGroup
	defer drains.Wait()
	begun := map[*tracked]bool{}
	for {
		list := p.conns.where(stale)
		if len(list) == 0 {
			return
		}
		last := ""
		for _, t := range list {
			if begun[t] {
				continue
			}
			begun[t] = true
			if t.proto == ProtoPeer {
				drains.Go(func() { p.replaceLink(ctx, t) })
				continue
			}
			if last != "" && last != t.node && !sleep(ctx, betweenNodes) {
				return
			}
			last = t.node
			t.Close()
		}
		if !sleep(ctx, betweenNodes/2) {
			return
		}
	}
}

// replaceLink makes another connection to the node of a link's, puts it in its place, and closes the old one when its calls are
// answered. A node that cannot be reached anew loses the old one all the same: it will be dialled as after any loss.
func (p *Peer) replaceLink(ctx context.Context, t *tracked) {
	p.mu.Lock()
	l := p.links[t.node]
	p.mu.Unlock()
	var old *clientConn
	if l != nil {
		l.mu.Lock()
		old = l.up
		l.mu.Unlock()
	}
	if old == nil || trackedOf(old.w.conn) != t {
		t.Close() // it leads nowhere any more, or was never taken
		return
	}
	nc, address, err := p.dial(ctx, t.node, ProtoPeer)
	if err == nil {
		var fresh *clientConn
		if fresh, err = l.greet(nc); err == nil {
			fresh.address = address
			if !l.replace(old, fresh) {
				closeNow(nc)
			}
			old.drain(ctx)
		}
	}
	old.fail(errors.New("it was made under a certificate that has been renewed"))
}

// drain waits until the calls on a connection are answered, or for drainLimit.
func (c *clientConn) drain(ctx context.Context) {
	for end := time.Now().Add(drainLimit); sleep(ctx, drainLeast) && time.Now().Before(end); {
		c.mu.Lock()
		waiting := len(c.pending)
		c.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}

func trackedOf(c net.Conn) *tracked {
	if t, ok := c.(*tls.Conn); ok {
		u, _ := t.NetConn().(*tracked)
		return u
	}
	return nil
}

// Refused are running totals of connections that were refused at their handshake.
type Refused struct {
	Void     uint64 // a certificate that has become void
	Stranger uint64 // a certificate of this cluster whose node is no member
	Unknown  uint64 // none, another CA's, expired, or no TLS at all
}

type refusals struct {
	void, stranger, unknown atomic.Uint64

	mu   sync.Mutex
	told time.Time
	kept uint64 // since then, and not told
}

// tellEvery bounds what refused connections cost in the log.
const tellEvery = 10 * time.Second

// Refused counts the connections that were refused.
func (p *Peer) Refused() Refused {
	return Refused{Void: p.refused.void.Load(), Stranger: p.refused.stranger.Load(), Unknown: p.refused.unknown.Load()}
}

// refuse counts a failed handshake. Whoever holds a key of this cluster is told of in the log, at most every ten seconds; a port
// scan, which anybody can make, is not.
func (p *Peer) refuse(remote string, err error) {
	r := &p.refused
	switch {
	case errors.Is(err, identity.ErrRevoked):
		r.void.Add(1)
	case errors.Is(err, identity.ErrNotMember):
		r.stranger.Add(1)
	default:
		r.unknown.Add(1)
		p.log.Debug("a connection was refused", "remote", remote, "error", err)
		return
	}
	r.mu.Lock()
	now := time.Now()
	tell := r.told.IsZero() || now.Sub(r.told) >= tellEvery
	kept := r.kept
	if tell {
		r.told, r.kept = now, 0
	} else {
		r.kept++
	}
	r.mu.Unlock()
	if tell {
		p.log.Warn("a connection was refused", "remote", remote, "error", err, "not_told_before", kept)
	}
}
