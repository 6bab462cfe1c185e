package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

const (
	// handshakeTimeout bounds what a stranger can hold open.
	handshakeTimeout = 3 * time.Second
	// Handshakes under way at once: of one host, so that one that only opens connections does not keep members out, and of all.
	maxHandshakesHost = 16
	maxHandshakes     = 512
)

// serverTLS is the listener's configuration: members' protocols under members' certificates; the join, and the question for the epoch,
// under none. Whoever was left behind by a forced configuration must hear of it also when it is no member any more, or has a void
// certificate: two such would else have a majority of the old configuration between them, and hear nothing.
func (p *Peer) serverTLS() *tls.Config {
	members := p.cfg.Identity.ServerTLS(p.member)
	p.refuseVoid(members)
	// The API is the tools' of whoever is a member: no grant, vote or entry of the log goes by it, and its protocols are not ours to name.
	members.NextProtos = []string{p.named(ProtoPeer), p.named(ProtoRaft), ProtoHTTP2, ProtoHTTP1}
	join := p.cfg.Identity.JoinServerTLS()
	join.NextProtos = []string{ProtoJoin}
	epoch := p.cfg.Identity.JoinServerTLS()
	epoch.NextProtos = []string{protoEpoch}
	c := members.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if p.cfg.Join != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ProtoJoin {
			return join, nil
		}
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == protoEpoch {
			return epoch, nil
		}
		return members, nil
	}
	return c
}

func (p *Peer) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely. Connections that wait are served when there are some again.
			p.log.Error("cannot accept a connection", "address", l.Addr().String(), "error", err)
			if !sleep(p.ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		host := hostOf(c.RemoteAddr())
		if !p.gate.enter(host) {
			c.Close()
			continue
		}
		t := p.conns.add(c)
		if t == nil {
			return
		}
		p.wg.Go(func() { p.admit(t, host) })
	}
}

// admit makes the handshake and hands the connection to whom it is for.
func (p *Peer) admit(t *tracked, host string) {
	own := p.cfg.Identity.Number()
	c := tls.Server(t, p.server)
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	err := c.HandshakeContext(p.ctx)
	p.gate.leave(host)
	if err != nil {
		p.refuse(t.RemoteAddr().String(), err)
		t.Close()
		return
	}
	state := c.ConnectionState()
	if state.NegotiatedProtocol == ProtoJoin {
		p.serveJoin(c)
		return
	}
	if state.NegotiatedProtocol == protoEpoch {
		p.tellEpoch(c)
		return
	}
	node, err := identity.PeerNode(state)
	if err != nil {
		t.Close()
		return
	}
	c.SetDeadline(time.Time{})
	p.conns.name(t, node)
	p.conns.met(t, shown{own: own, theirs: identity.PeerNumber(state), proto: unnamed(state.NegotiatedProtocol)})
	// Removed, or its certificate made void, during the handshake, after which CheckMembers and CheckCertificates find the connection.
	if !p.member(node) || p.void(node, state) {
		t.Close()
		return
	}
	switch unnamed(state.NegotiatedProtocol) {
	case ProtoPeer:
		p.serveCalls(c, node)
	case ProtoRaft:
		p.hand(c, ProtoRaft)
	case ProtoHTTP2, ProtoHTTP1:
		p.hand(c, ProtoHTTP2)
	default:
		t.Close()
	}
}

func (p *Peer) hand(c net.Conn, proto string) {
	p.mu.Lock()
	q := p.queues[proto]
	p.mu.Unlock()
	if q == nil {
		closeNow(c)
		return
	}
	q.put(c)
}

func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	if h, _, err := net.SplitHostPort(a.String()); err == nil {
		return h
	}
	return a.String()
}

// A gate counts handshakes under way.
type gate struct {
	mu     sync.Mutex
	all    int
	byHost map[string]int
}

func (g *gate) enter(host string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= maxHandshakes || g.byHost[host] >= maxHandshakesHost {
		return false
	}
	g.all++
	g.byHost[host]++
	return true
}

func (g *gate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.byHost[host]--; g.byHost[host] == 0 {
		delete(g.byHost, host)
	}
}

// A method is a registered handler.
type method struct {
	serve  Handler
	inline bool
}

// Handle registers the handler of a method. Handlers run on goroutines of their own and may block. A second registration
// replaces the first.
func (p *Peer) Handle(name string, h Handler) { p.register(name, method{serve: h}) }

// HandleInline registers a handler that never blocks. It runs on the connection's reading goroutine, which makes it cheap and
// holds up everything else on the connection while it runs. Its context ends only with the connection.
func (p *Peer) HandleInline(name string, h Handler) { p.register(name, method{serve: h, inline: true}) }

func (p *Peer) register(name string, m method) {
	if name == "" || len(name) > maxMethod {
		panic("peer: method name " + name + " is empty or too long")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := *p.handlers.Load()
	next := make(map[string]method, len(old)+1)
	maps.Copy(next, old)
	next[name] = m
	p.handlers.Store(&next)
}

// Workers are goroutines that serve requests one after another, so that a steady stream of them makes no new goroutines.
type workers struct {
	jobs chan job
	quit <-chan struct{}
	wg   sync.WaitGroup
}

// idleWorker is how long a worker waits for its next request.
const idleWorker = 10 * time.Second

func (w *workers) run(j job) {
	select {
	case w.jobs <- j:
	default:
		w.wg.Go(func() { w.work(j) })
	}
}

func (w *workers) work(j job) {
	idle := time.NewTimer(idleWorker)
	defer idle.Stop()
	for {
		j.do()
		j = job{}
		idle.Reset(idleWorker)
		select {
		case j = <-w.jobs:
		case <-idle.C:
			return
		case <-w.quit:
			return
		}
	}
}

// A job is one request to be served on a worker.
type job struct {
	conn *serverConn
	h    Handler
	id   uint32
	wait time.Duration
	body *[]byte // from bodies
}

var bodies = sync.Pool{New: func() any { return new([]byte) }}

func (j job) do() {
	ctx, cancel := j.conn.ctx, context.CancelFunc(nil)
	if j.wait > 0 {
		ctx, cancel = context.WithTimeout(ctx, j.wait)
		defer cancel()
	}
	answer, err := j.h(ctx, j.conn.node, *j.body)
	j.conn.reply(j.id, answer, err)
	if cap(*j.body) <= keepSize {
		bodies.Put(j.body)
	}
	j.conn.inWork.Add(-1)
}
