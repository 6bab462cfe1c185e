package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

const (
	// connectTimeout is for one address. A lost SYN is repeated by the kernel only after a second; a new attempt is sooner.
	connectTimeout = 300 * time.Millisecond
	// stagger is the head start of an address over the next.
	stagger = 150 * time.Millisecond
	// clientHandshakeTimeout is for TLS, once connected. A busy machine may need long for it.
	clientHandshakeTimeout = 1500 * time.Millisecond
)

// Dial connects to a node by one of the protocols. It tries all addresses of the node once, that which worked last first, each
// 150 ms after the one before or when that has failed. The connection is a *tls.Conn to the verified node.
func (p *Peer) Dial(ctx context.Context, node, proto string) (net.Conn, error) {
	c, _, err := p.dial(ctx, node, proto)
	return c, err
}

// dial is Dial, and says which address it was.
func (p *Peer) dial(ctx context.Context, node, proto string) (net.Conn, string, error) {
	addresses, ok := p.cfg.Members(node)
	if !ok {
		return nil, "", fmt.Errorf("connect to node %s: %w", node, identity.ErrNotMember)
	}
	if len(addresses) == 0 {
		return nil, "", fmt.Errorf("connect to node %s: it has no address", node)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(p.ctx, cancel)
	defer stop()

	c, address, err := race(ctx, p.ordered(node, addresses), func(ctx context.Context, address string) (net.Conn, error) {
		return p.dialAddress(ctx, node, proto, address)
	})
	if p.ctx.Err() != nil {
		if c != nil {
			closeNow(c)
		}
		return nil, "", ErrClosed
	}
	if err != nil {
		return nil, "", fmt.Errorf("connect to node %s: %w", node, err)
	}
	p.mu.Lock()
	p.good[node] = address
	p.mu.Unlock()
	return c, address, nil
}

// dialOthers connects to a node at any of its addresses but one.
func (p *Peer) dialOthers(ctx context.Context, node, proto, not string) (net.Conn, string, error) {
	var others []string
	addresses, _ := p.cfg.Members(node)
	for _, a := range addresses {
		if a = withPort(a); a != not {
			others = append(others, a)
		}
	}
	if len(others) == 0 {
		return nil, "", fmt.Errorf("connect to node %s: it has no other address", node)
	}
	c, address, err := race(ctx, others, func(ctx context.Context, address string) (net.Conn, error) {
		return p.dialAddress(ctx, node, proto, address)
	})
	if err != nil {
		return nil, "", fmt.Errorf("connect to node %s: %w", node, err)
	}
	return c, address, nil
}

// ordered completes the addresses and puts that which worked last first.
func (p *Peer) ordered(node string, addresses []string) []string {
	p.mu.Lock()
	good := p.good[node]
	p.mu.Unlock()
	out := make([]string, 0, len(addresses))
	for _, a := range addresses {
		if a = withPort(a); a == good {
			out = append([]string{a}, out...)
		} else {
			out = append(out, a)
		}
	}
	return out
}

// race tries the addresses with staggered starts and returns the first connection. Later ones are closed.
func race(ctx context.Context, addresses []string, dial func(context.Context, string) (net.Conn, error)) (net.Conn, string, error) {
	if len(addresses) == 1 {
		c, err := dial(ctx, addresses[0])
		return c, addresses[0], err
	}
	type result struct {
		conn    net.Conn
		address string
		err     error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addresses))
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for started, ended := 0, 0; ended < len(addresses); {
		select {
		case <-next.C:
			if started == len(addresses) {
				continue
			}
			a := addresses[started]
			started++
			next.Reset(stagger)
			go func() {
				c, err := dial(ctx, a)
				results <- result{c, a, err}
			}()
		case r := <-results:
			ended++
			if r.err == nil {
				cancel()
				go func(left int) { // the losers
					for range left {
						if r := <-results; r.conn != nil {
							closeNow(r.conn)
						}
					}
				}(started - ended)
				return r.conn, r.address, nil
			}
			errs = append(errs, r.err)
			next.Reset(0)
		}
	}
	return nil, "", errors.Join(errs...)
}

// dialAddress connects by the protocol of this node's epoch.
func (p *Peer) dialAddress(ctx context.Context, node, proto, address string) (net.Conn, error) {
	c, err := p.connect(ctx, node, p.named(proto), address)
	if noProtocol(err) && ctx.Err() == nil {
		if other := p.otherEpoch(ctx, node, address); other != nil {
			return nil, fmt.Errorf("address %s: %w", address, other)
		}
	}
	return c, err
}

// connect connects by the protocol as it is named.
func (p *Peer) connect(ctx context.Context, node, proto, address string) (net.Conn, error) {
	dctx, cancel := context.WithTimeout(ctx, connectTimeout)
	raw, err := p.cfg.Dial(dctx, address)
	cancel()
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", address, err)
	}
	t := p.conns.add(raw)
	if t == nil {
		return nil, ErrClosed
	}
	p.conns.name(t, node)
	cfg := p.cfg.Identity.ClientTLS(node)
	p.refuseVoid(cfg)
	cfg.NextProtos = []string{proto}
	own := p.cfg.Identity.Number()
	c, err := handshake(ctx, t, cfg, proto)
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("address %s: %w", address, err)
	}
	p.conns.met(t, shown{out: true, own: own, theirs: identity.PeerNumber(c.ConnectionState()), proto: unnamed(proto)})
	return c, nil
}

func handshake(ctx context.Context, raw net.Conn, cfg *tls.Config, proto string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, clientHandshakeTimeout)
	defer cancel()
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != proto {
		return nil, fmt.Errorf("TLS handshake: the other side does not speak %s", proto)
	}
	return c, nil
}
