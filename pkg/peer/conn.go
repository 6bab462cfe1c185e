package peer

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
)

// A tracked connection lies below TLS. It is known to the Peer from the end of its handshake until it is closed, so that the
// connections of a removed member can be found. It lies below, because http.Server wants to see the *tls.Conn itself.
type tracked struct {
	net.Conn
	set   *connSet
	node  string // set once, under set's lock
	shown        // likewise
	once  sync.Once
	err   error
}

func (t *tracked) Close() error {
	t.once.Do(func() {
		t.set.remove(t)
		t.err = t.Conn.Close()
	})
	return t.err
}

// closeNow closes a connection without the farewell of TLS, which waits for locks and for the network.
func closeNow(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.Close()
}

// PeerOf is the verified name of the node at the other end of a connection that Dial or a Listener gave; empty for others.
func PeerOf(c net.Conn) string {
	t, ok := c.(*tls.Conn)
	if !ok {
		return ""
	}
	if u, ok := t.NetConn().(*tracked); ok {
		u.set.mu.Lock()
		defer u.set.mu.Unlock()
		return u.node
	}
	return ""
}

type connSet struct {
	mu     sync.Mutex
	conns  map[*tracked]struct{}
	closed bool
}

// add takes a raw connection in. It returns nil, with the connection closed, once the set is closed.
func (s *connSet) add(c net.Conn) *tracked {
	t := &tracked{Conn: c, set: s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.conns[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.Close()
		return nil
	}
	return t
}

// shown is what the two sides of a connection have shown of themselves.
type shown struct {
	out         bool   // we have called
	own, theirs uint64 // the numbers of the certificates
	proto       string // empty: still in its handshake
}

// met notes what was shown.
func (s *connSet) met(t *tracked, v shown) {
	s.mu.Lock()
	t.shown = v
	s.mu.Unlock()
}

// where lists the connections past their handshake for which f, which is called under the lock, is true; by node.
func (s *connSet) where(f func(t *tracked) bool) []*tracked {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*tracked
	for t := range s.conns {
		if t.proto != "" && f(t) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *tracked) int { return strings.Compare(a.node, b.node) })
	return out
}

func (s *connSet) remove(t *tracked) {
	s.mu.Lock()
	delete(s.conns, t)
	s.mu.Unlock()
}

// name notes whose connection it is.
func (s *connSet) name(t *tracked, node string) {
	s.mu.Lock()
	t.node = node
	s.mu.Unlock()
}

// closeWhere closes the connections of the nodes for which gone is true; nameless ones are still in their handshake.
func (s *connSet) closeWhere(gone func(node string) bool) {
	s.mu.Lock()
	byNode := map[string][]*tracked{}
	for t := range s.conns {
		if t.node != "" {
			byNode[t.node] = append(byNode[t.node], t)
		}
	}
	s.mu.Unlock()
	for node, conns := range byNode {
		if !gone(node) {
			continue
		}
		for _, t := range conns {
			t.Close()
		}
	}
}

// close closes all, now and to come.
func (s *connSet) close() {
	s.mu.Lock()
	s.closed = true
	var all []*tracked
	for t := range s.conns {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.Close()
	}
}

// A queue is the net.Listener by which connections of one protocol are handed out.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// queueLen is how many connections may wait to be accepted.
const queueLen = 64

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn, queueLen), closed: make(chan struct{})}
}

// put hands a connection out, or closes it when nobody takes it.
func (q *queue) put(c net.Conn) {
	select {
	case <-q.closed:
		closeNow(c)
		return
	default:
	}
	select {
	case q.conns <- c:
	default:
		closeNow(c)
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case <-q.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. Connections that nobody accepted are closed with the Peer, if not here.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	for {
		select {
		case c := <-q.conns:
			closeNow(c)
		default:
			return nil
		}
	}
}

func (q *queue) Addr() net.Addr { return q.addr }
