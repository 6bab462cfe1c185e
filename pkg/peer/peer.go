package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

// DefaultPort is used for addresses that give none.
const DefaultPort = "6191"

// The protocols, as the handshake names them.
const (
	ProtoRaft  = "holdfast-raft/1"
	ProtoPeer  = "holdfast-peer/1"
	ProtoJoin  = "holdfast-join/1"
	ProtoHTTP2 = "h2"
	ProtoHTTP1 = "http/1.1"
)

// Errors that callers branch on.
var (
	// ErrUnreachable says that a request was not sent, because no connection could be made in time.
	ErrUnreachable = errors.New("the node cannot be reached")
	// ErrLost says that the connection broke while the answer was awaited. The request may have been served.
	ErrLost = errors.New("the connection was lost before the answer came")
	// ErrUnknownMethod says that the other side has no such method: it is older.
	ErrUnknownMethod = errors.New("the node does not know this call; it may run an older version")
	// ErrBusy says that the other side has too many requests of ours in work already. The request was not served.
	ErrBusy = errors.New("the node has too many of our requests in work")
	// ErrTooLarge says that a body does not fit into a frame. The request was not sent.
	ErrTooLarge = errors.New("the message is too large")
	// ErrClosed says that the Peer was closed.
	ErrClosed = errors.New("the peer links are closed")
)

// A RemoteError is the error with which the other side's handler answered.
type RemoteError struct {
	Node, Method, Text string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("node %s: %s: %s", e.Node, e.Method, e.Text) }

// A Handler serves one method. from is the verified name of the calling node. The body is the handler's until it returns; the
// answer is copied before the handler's goroutine goes on. The context ends with the connection, and when the caller's own
// wait is over.
type Handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// Config says how a Peer is made. Identity and Members are needed.
type Config struct {
	Identity *identity.Identity
	// ListenAddrs are host:port or host (DefaultPort).
	ListenAddrs []string
	// Members gives a member's addresses, host:port or host, in order of preference; ok is false for a node that is no
	// member. It is called often, by any goroutine, and must not block.
	Members func(node string) (addresses []string, ok bool)
	// Floor gives the lowest number of a certificate of the node that is good (identity.Number); nil: all are. As Members.
	Floor func(node string) uint64
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
	// OnHeard, if set, is called for each frame that a member sent. It must not block.
	OnHeard func(node string)
	// Join, if set, serves the one request of a node without certificate: body is what the node sent, remote its address.
	// The answer goes back as it is; an error's text goes back to a stranger.
	Join func(ctx context.Context, remote string, body []byte) ([]byte, error)
	// StallTimeout is how long calls may wait with nothing at all coming back before the connection is given up; 0 is 1 s.
	StallTimeout time.Duration
	// MoveAfter is how long nothing may come back before another address of the node is tried beside the connection, which is given
	// up for it if it is still silent when that one answers; 0 is a quarter of StallTimeout, and the least is 50 ms.
	MoveAfter time.Duration
	// Epoch is the cluster's, as this node knows it; 0 is the first. There are no connections between members of two epochs.
	Epoch uint64
	// OnNewerEpoch, if set, is called when a member has said that it belongs to a newer epoch than this node. It may take as
	// long as writing a small file.
	OnNewerEpoch func(node string, epoch uint64)
	// Dial and Listen replace TCP.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Listen func(address string) (net.Listener, error)
}

// A Peer is one node's end of all links to other nodes. Its methods may be called by any goroutine.
type Peer struct {
	cfg    Config
	node   string
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	server    *tls.Config
	conns     connSet
	workers   workers
	calls     sync.Pool
	gate      gate
	joins     bucket
	joining   atomic.Int32
	refused   refusals
	checking  atomic.Bool // CheckCertificates is at work
	handlers  atomic.Pointer[map[string]method]
	mu        sync.Mutex // guards what follows
	closed    bool
	listeners []net.Listener
	queues    map[string]*queue
	links     map[string]*link
	good      map[string]string // node -> address that worked last
}

// New listens and begins to serve. An address that the machine does not have at the moment (an interface that is down) is
// tried again every second; any other failure to listen is an error.
func New(cfg Config) (*Peer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = time.Second
	}
	if cfg.MoveAfter == 0 {
		cfg.MoveAfter = cfg.StallTimeout / ticks
	}
	cfg.MoveAfter = max(cfg.MoveAfter, 50*time.Millisecond)
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Listen == nil {
		cfg.Listen = listenTCP
	}
	p := &Peer{cfg: cfg, node: cfg.Identity.Node, log: cfg.Logger.With("component", "peer"), conns: connSet{conns: map[*tracked]struct{}{}},
		gate: gate{byHost: map[string]int{}}, queues: map[string]*queue{}, links: map[string]*link{}, good: map[string]string{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if p.cfg.Floor == nil {
		p.cfg.Floor = func(string) uint64 { return 0 }
	}
	p.workers = workers{jobs: make(chan job), quit: p.ctx.Done()}
	p.calls.New = newCall
	p.handlers.Store(&map[string]method{})
	p.server = p.serverTLS()
	for _, a := range cfg.ListenAddrs {
		if err := p.listen(withPort(a)); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

func (p *Peer) listen(address string) error {
	l, err := p.cfg.Listen(address)
	switch {
	case err == nil:
		p.serve(l)
		return nil
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		p.log.Warn("the machine does not have the listen address at the moment; trying again every second", "address", address)
		p.wg.Go(func() { p.listenLater(address) })
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen for other nodes on %s: the port is in use by another process: stop it, or choose another port: %w", address, err)
	}
	return fmt.Errorf("listen for other nodes on %s: %w", address, err)
}

func (p *Peer) listenLater(address string) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-t.C:
		}
		if l, err := p.cfg.Listen(address); err == nil {
			p.log.Info("listening", "address", address)
			p.serve(l)
			return
		}
	}
}

// serve accepts connections on l until the Peer is closed.
func (p *Peer) serve(l net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.Close()
		return
	}
	p.listeners = append(p.listeners, l)
	p.wg.Go(func() { p.accept(l) })
}

// Addrs are the addresses that the Peer listens on now.
func (p *Peer) Addrs() []net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []net.Addr
	for _, l := range p.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// Listener hands out the connections of one protocol: ProtoRaft, or ProtoHTTP2 and ProtoHTTP1, which share one listener.
// Connections that came before the first call were closed. The connections are *tls.Conn; PeerOf names the node.
func (p *Peer) Listener(proto string) net.Listener {
	if proto == ProtoHTTP1 {
		proto = ProtoHTTP2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[proto]
	if q == nil {
		var addr net.Addr = &net.TCPAddr{}
		if len(p.listeners) > 0 {
			addr = p.listeners[0].Addr()
		}
		q = newQueue(addr)
		p.queues[proto] = q
		if p.closed {
			q.Close()
		}
	}
	return q
}

// CheckMembers closes the connections of nodes that are members no longer. The caller calls it after each change of the
// membership.
func (p *Peer) CheckMembers() {
	gone := func(node string) bool { return !p.member(node) }
	p.mu.Lock()
	var ended []*link
	for node, l := range p.links {
		if gone(node) {
			ended = append(ended, l)
			delete(p.links, node)
			delete(p.good, node)
		}
	}
	p.mu.Unlock()
	for _, l := range ended {
		l.end(fmt.Errorf("node %s: %w", l.node, identity.ErrNotMember))
	}
	p.conns.closeWhere(gone)
}

// Drop closes the connections to and from a member: it has moved, and what is on its way to its old place is lost.
func (p *Peer) Drop(node string) {
	p.mu.Lock()
	l := p.links[node]
	delete(p.links, node)
	delete(p.good, node)
	p.mu.Unlock()
	if l != nil {
		l.end(fmt.Errorf("node %s: %w: it has moved", node, ErrLost))
	}
	p.conns.closeWhere(func(n string) bool { return n == node })
}

func (p *Peer) member(node string) bool {
	_, ok := p.cfg.Members(node)
	return ok
}

func (p *Peer) heard(node string) {
	if p.cfg.OnHeard != nil {
		p.cfg.OnHeard(node)
	}
}

// Close ends all links and waits for everything that the Peer has started, handlers included.
func (p *Peer) Close() error {
	p.mu.Lock()
	p.closed = true
	listeners, queues, links := p.listeners, maps.Clone(p.queues), p.links // Listener may still add a queue, which it closes itself
	p.listeners, p.links = nil, nil
	p.mu.Unlock()
	p.cancel()
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	for _, q := range queues {
		q.Close()
	}
	for _, l := range links {
		l.end(ErrClosed)
	}
	p.conns.close()
	p.wg.Wait()
	p.workers.wg.Wait()
	return errors.Join(errs...)
}

// withPort completes an address.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(trimBrackets(address), DefaultPort)
}

func trimBrackets(host string) string {
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		return host[1 : n-1]
	}
	return host
}
