// Package fake holds stand-ins for what real agents stand on, for tests in fake time (testing/synctest).
package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Times that the LAN's streams take from a kernel set as package peer sets it.
const (
	userTimeout   = time.Second     // TCP_USER_TIMEOUT: sent bytes stay unacknowledged for so long, then the end is dead
	keepAliveTime = 4 * time.Second // an end whose other end died silently learns of it by then
	streamWindow  = 4 << 20         // bytes that may wait to be read before a writer blocks
	packetQueue   = 1024            // packets that may wait to be read before more are dropped
	listenBacklog = 128
)

// A LAN is one or more networks between hosts, in memory. Streams keep what is sent over a cut and deliver it after the heal,
// unless it came too late, as TCP does; packets sent over a cut are lost. It works in and outside of synctest bubbles; all that
// uses it must be in the same bubble. Its methods may be called by any goroutine.
type LAN struct {
	mu       sync.Mutex
	networks []string
	hosts    map[string]*Host
	byIP     map[string]*Host
	cuts     map[path]bool
	streams  map[*half]struct{}
	loss     float64
	delay    time.Duration
	rng      *rand.Rand
	sent     int
	lost     int
	changed  chan struct{} // closed and replaced when paths change
}

// A path leads from one host to another over one network.
type path struct{ from, to, network string }

// NewLAN makes networks without hosts. Without names there is one network, "net1".
func NewLAN(networks ...string) *LAN {
	if len(networks) == 0 {
		networks = []string{"net1"}
	}
	return &LAN{networks: networks, hosts: map[string]*Host{}, byIP: map[string]*Host{}, cuts: map[path]bool{},
		streams: map[*half]struct{}{}, rng: rand.New(rand.NewPCG(1, 2)), changed: make(chan struct{})}
}

// A Host is a machine with one address on each network.
type Host struct {
	lan       *LAN
	name      string
	ips       map[string]string // network -> address
	listeners map[string]*listener
	packets   map[string]*packetConn
	nextPort  int
	off       bool
}

// Host returns the named host, which it makes at the first call. The k-th host has the address 10.<n>.0.<k> on the n-th
// network.
func (l *LAN) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.hosts[name]; h != nil {
		return h
	}
	h := &Host{lan: l, name: name, ips: map[string]string{}, listeners: map[string]*listener{}, packets: map[string]*packetConn{},
		nextPort: 30000}
	l.hosts[name] = h
	for i, n := range l.networks {
		ip := fmt.Sprintf("10.%d.0.%d", i+1, len(l.hosts))
		h.ips[n] = ip
		l.byIP[ip] = h
	}
	return h
}

// Address is host:port of the host on a network.
func (h *Host) Address(network string, port int) string {
	return net.JoinHostPort(h.ips[network], strconv.Itoa(port))
}

// Addresses are the host's addresses on all networks, in their order, with the port.
func (h *Host) Addresses(port int) []string {
	var out []string
	for _, n := range h.lan.networks {
		out = append(out, h.Address(n, port))
	}
	return out
}

// Cut silently cuts two hosts from each other, both ways, on the given networks or on all.
func (l *LAN) Cut(a, b string, networks ...string) {
	l.set(true, networks, path{from: a, to: b}, path{from: b, to: a})
}

// CutOneWay silently loses all that from sends to to.
func (l *LAN) CutOneWay(from, to string, networks ...string) {
	l.set(true, networks, path{from: from, to: to})
}

// Isolate cuts a host from all others that exist.
func (l *LAN) Isolate(name string, networks ...string) {
	for _, other := range l.others(name) {
		l.Cut(name, other, networks...)
	}
}

// Heal ends all cuts, or those of the named hosts.
func (l *LAN) Heal(names ...string) {
	if len(names) == 0 {
		l.mu.Lock()
		clear(l.cuts)
		l.mu.Unlock()
		l.repath()
		return
	}
	for _, name := range names {
		for _, other := range l.others(name) {
			l.set(false, nil, path{from: name, to: other}, path{from: other, to: name})
		}
	}
}

func (l *LAN) others(name string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for n := range l.hosts {
		if n != name {
			out = append(out, n)
		}
	}
	return out
}

func (l *LAN) set(cut bool, networks []string, paths ...path) {
	if len(networks) == 0 {
		networks = l.networks
	}
	l.mu.Lock()
	for _, p := range paths {
		for _, n := range networks {
			p.network = n
			if cut {
				l.cuts[p] = true
			} else {
				delete(l.cuts, p)
			}
		}
	}
	l.mu.Unlock()
	l.repath()
}

// repath tells streams and dialling callers that paths have changed.
func (l *LAN) repath() {
	l.mu.Lock()
	close(l.changed)
	l.changed = make(chan struct{})
	var streams []*half
	for h := range l.streams {
		streams = append(streams, h)
	}
	l.mu.Unlock()
	for _, h := range streams {
		h.repath()
	}
}

// PowerOff takes a host away as a power failure does: nothing more leaves it or reaches it, its sockets are gone, and nobody
// is told. What runs on it gets errors from then on.
func (h *Host) PowerOff() {
	h.lan.mu.Lock()
	h.off = true
	h.lan.mu.Unlock()
	for _, s := range h.drop() {
		s.vanish()
	}
	h.lan.repath()
}

// PowerOn brings the host back, without sockets. What others still send over a connection of before is answered by a reset.
func (h *Host) PowerOn() {
	h.lan.mu.Lock()
	h.off = false
	h.lan.mu.Unlock()
	h.lan.repath()
}

// CloseAll closes all sockets of the host, as a kernel does for a process that was killed.
func (h *Host) CloseAll() {
	for _, s := range h.drop() {
		s.closeWrite()
		s.back.end(func() { s.back.gone = true })
		s.forget()
	}
}

// drop closes the listeners and packet sockets and lists the host's ends of streams.
func (h *Host) drop() []*half {
	h.lan.mu.Lock()
	var closers []io.Closer
	for _, ln := range h.listeners {
		closers = append(closers, ln)
	}
	for _, p := range h.packets {
		closers = append(closers, p)
	}
	var ends []*half
	for s := range h.lan.streams {
		if s.path.from == h.name {
			ends = append(ends, s)
		}
	}
	h.lan.mu.Unlock()
	for _, c := range closers {
		c.Close()
	}
	return ends
}

// vanish ends the writer's end of a stream with its machine.
func (h *half) vanish() {
	h.mu.Lock()
	kept := h.chunks[:0]
	for _, c := range h.chunks { // what is on the wire arrives; what was held by a cut is lost
		if !c.at.IsZero() {
			kept = append(kept, c)
		}
	}
	h.chunks = kept
	h.mu.Unlock()
	h.kill(syscall.ENETDOWN)
	h.back.end(func() { h.back.gone = true })
}

// Open reports whether each of two hosts reaches the other over some network.
func (l *LAN) Open(a, b string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.networks {
		if l.open(path{a, b, n}) && l.open(path{b, a, n}) {
			return true
		}
	}
	return false
}

// SetLoss makes packets (not streams) get lost at random, with the given probability.
func (l *LAN) SetLoss(rate float64, seed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loss, l.rng = rate, rand.New(rand.NewPCG(seed, seed))
}

// SetDelay sets the time from sending to receiving; the default is none.
func (l *LAN) SetDelay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Packets counts those sent, and those of them that were lost by cuts, loss or a full queue.
func (l *LAN) Packets() (sent, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent, l.lost
}

// open reports whether what from sends reaches to. It is called with the lock.
func (l *LAN) open(p path) bool {
	from, to := l.hosts[p.from], l.hosts[p.to]
	return !l.cuts[p] && (from == nil || !from.off) && (to == nil || !to.off)
}

// find resolves an address. It is called with the lock.
func (l *LAN) find(address string) (h *Host, network, port string, err error) {
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", "", err
	}
	h = l.byIP[ip]
	if h == nil {
		return nil, "", "", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}
	}
	for n, a := range h.ips {
		if a == ip {
			network = n
		}
	}
	return h, network, port, nil
}

// local completes an address to listen on. An empty host means all networks. It is called with the lock.
func (h *Host) local(address string) (string, error) {
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip == "0.0.0.0" || ip == "::" {
		ip = ""
	}
	if ip != "" && h.lan.byIP[ip] != h {
		return "", &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	}
	if port == "0" {
		h.nextPort++
		port = strconv.Itoa(h.nextPort)
	}
	return net.JoinHostPort(ip, port), nil
}

// addr is the net.Addr of an address; a wildcard shows the first network's.
func (h *Host) addr(address string) *net.TCPAddr {
	ip, port, _ := net.SplitHostPort(address)
	if ip == "" {
		ip = h.ips[h.lan.networks[0]]
	}
	n, _ := strconv.Atoi(port)
	return &net.TCPAddr{IP: net.ParseIP(ip), Port: n}
}

// Listen listens for streams on host:port; an empty host means all networks, port 0 a free one.
func (h *Host) Listen(address string) (net.Listener, error) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	key, err := h.local(address)
	if err != nil {
		return nil, err
	}
	if h.listeners[key] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	ln := &listener{host: h, key: key, conns: make(chan net.Conn, listenBacklog), closed: make(chan struct{})}
	h.listeners[key] = ln
	return ln, nil
}

// Dial connects to host:port over the network of that address. Over a cut it waits for the context's end, and sees a heal only
// at its next SYN, as a kernel does (1, 3, 7, ... seconds after the first).
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	for pause := time.Second; ; pause *= 2 {
		c, err := h.dialOnce(address)
		if c != nil || err != nil {
			return c, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}
	}
}

// dialOnce sends one SYN; nil, nil means that nothing came back.
func (h *Host) dialOnce(address string) (net.Conn, error) {
	l := h.lan
	l.mu.Lock()
	to, network, port, err := l.find(address)
	if err != nil {
		l.mu.Unlock()
		return nil, err
	}
	if to != h && (!l.open(path{h.name, to.name, network}) || !l.open(path{to.name, h.name, network})) {
		l.mu.Unlock()
		return nil, nil
	}
	ln := to.listeners[address]
	if ln == nil {
		ln = to.listeners[":"+port]
	}
	if ln == nil {
		l.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	h.nextPort++
	a := h.addr(net.JoinHostPort(h.ips[network], strconv.Itoa(h.nextPort)))
	b := to.addr(address)
	there, back := l.newHalf(h.name, to.name, network), l.newHalf(to.name, h.name, network)
	there.back, back.back = back, there
	delay := l.delay
	l.mu.Unlock()
	time.Sleep(2 * delay)
	select {
	case ln.conns <- &stream{in: there, out: back, local: b, remote: a}:
		return &stream{in: back, out: there, local: a, remote: b}, nil
	default:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
}

type listener struct {
	host   *Host
	key    string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (ln *listener) Accept() (net.Conn, error) {
	select {
	case c := <-ln.conns:
		return c, nil
	case <-ln.closed:
		return nil, net.ErrClosed
	}
}

func (ln *listener) Close() error {
	ln.once.Do(func() {
		ln.host.lan.mu.Lock()
		if ln.host.listeners[ln.key] == ln {
			delete(ln.host.listeners, ln.key)
		}
		ln.host.lan.mu.Unlock()
		close(ln.closed)
		for {
			select {
			case c := <-ln.conns:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (ln *listener) Addr() net.Addr { return ln.host.addr(ln.key) }

// A half is one direction of a stream: written by from, read by to.
type half struct {
	lan  *LAN
	path path
	back *half

	mu      sync.Mutex
	chunks  []chunk // on the way, or waiting to be read
	size    int
	unacked *time.Timer // runs while something sent has not been acknowledged
	fin     bool        // the writer has closed
	finAt   time.Time
	gone    bool  // the reader has closed: what arrives is answered by a reset
	err     error // the writer's end is dead
	readErr error // the reader's end is dead
	wake    chan struct{}
}

type chunk struct {
	data []byte
	at   time.Time // when it arrives; zero while it is held by a cut
}

// newHalf is called with the LAN's lock.
func (l *LAN) newHalf(from, to, network string) *half {
	h := &half{lan: l, path: path{from, to, network}, wake: make(chan struct{})}
	l.streams[h] = struct{}{}
	return h
}

// passes reports whether the way is open, and the way back; and the delay.
func (h *half) passes() (there, back bool, delay time.Duration) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	if h.path.from == h.path.to {
		return true, true, 0
	}
	return h.lan.open(h.path), h.lan.open(h.back.path), h.lan.delay
}

// signal is called with the lock.
func (h *half) signal() {
	close(h.wake)
	h.wake = make(chan struct{})
}

// repath delivers what was held, if the way is open again.
func (h *half) repath() {
	there, back, delay := h.passes()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !there {
		return
	}
	now := time.Now()
	for i := range h.chunks {
		if h.chunks[i].at.IsZero() {
			h.chunks[i].at = now.Add(delay)
		}
	}
	if h.fin && h.finAt.IsZero() {
		h.finAt = now.Add(delay)
	}
	if back && h.unacked != nil {
		h.unacked.Stop()
		h.unacked = nil
	}
	h.signal()
}

func (h *half) write(b []byte, deadline *deadline) (int, error) {
	for {
		there, back, delay := h.passes()
		h.mu.Lock()
		switch {
		case h.err != nil:
			defer h.mu.Unlock()
			return 0, h.err
		case h.fin:
			defer h.mu.Unlock()
			return 0, net.ErrClosed
		case h.gone && there && back:
			h.mu.Unlock()
			h.kill(syscall.ECONNRESET)
			return 0, syscall.ECONNRESET
		case h.size < streamWindow:
			defer h.mu.Unlock()
			c := chunk{data: append([]byte(nil), b...)}
			if there {
				c.at = time.Now().Add(delay)
			}
			h.chunks = append(h.chunks, c)
			h.size += len(b)
			if !(there && back) && h.unacked == nil {
				h.unacked = time.AfterFunc(userTimeout, func() { h.kill(syscall.ETIMEDOUT) })
			}
			h.signal()
			return len(b), nil
		}
		wake := h.wake
		h.mu.Unlock()
		select {
		case <-wake:
		case <-deadline.wait():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// kill ends the writer's side, both directions; the other side learns of it by keep-alive.
func (h *half) kill(err error) {
	h.end(func() { h.err = err })
	h.back.end(func() { h.back.readErr = err })
	h.forget()
	time.AfterFunc(keepAliveTime, func() {
		h.back.end(func() {
			if h.back.err == nil {
				h.back.err = syscall.ETIMEDOUT
			}
		})
		h.end(func() {
			if h.readErr == nil {
				h.readErr = syscall.ETIMEDOUT
			}
		})
	})
}

func (h *half) end(set func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set()
	if h.unacked != nil {
		h.unacked.Stop()
		h.unacked = nil
	}
	h.signal()
}

func (h *half) forget() {
	h.lan.mu.Lock()
	delete(h.lan.streams, h)
	delete(h.lan.streams, h.back)
	h.lan.mu.Unlock()
}

func (h *half) read(b []byte, deadline *deadline) (int, error) {
	for {
		h.mu.Lock()
		var arrives <-chan time.Time
		switch now := time.Now(); {
		case h.readErr != nil:
			defer h.mu.Unlock()
			return 0, h.readErr
		case h.gone:
			defer h.mu.Unlock()
			return 0, net.ErrClosed
		case deadline.passed():
			defer h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(h.chunks) > 0 && !h.chunks[0].at.IsZero() && !h.chunks[0].at.After(now):
			defer h.mu.Unlock()
			n := copy(b, h.chunks[0].data)
			h.size -= n
			if h.chunks[0].data = h.chunks[0].data[n:]; len(h.chunks[0].data) == 0 {
				h.chunks = h.chunks[1:]
			}
			h.signal()
			return n, nil
		case len(h.chunks) > 0 && !h.chunks[0].at.IsZero():
			arrives = time.After(h.chunks[0].at.Sub(now))
		case len(h.chunks) == 0 && h.fin && !h.finAt.IsZero() && !h.finAt.After(now):
			defer h.mu.Unlock()
			return 0, io.EOF
		case len(h.chunks) == 0 && h.fin && !h.finAt.IsZero():
			arrives = time.After(h.finAt.Sub(now))
		}
		wake := h.wake
		h.mu.Unlock()
		select {
		case <-wake:
		case <-arrives:
		case <-deadline.wait():
		}
	}
}

// closeWrite sends the end of the stream.
func (h *half) closeWrite() {
	there, back, delay := h.passes()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fin {
		return
	}
	h.fin = true
	if there {
		h.finAt = time.Now().Add(delay)
	}
	if !(there && back) {
		time.AfterFunc(keepAliveTime, func() { h.end(func() { h.readErr = syscall.ETIMEDOUT }) })
	}
	h.signal()
}

// A stream is one end of a connection.
type stream struct {
	in, out       *half
	local, remote *net.TCPAddr
	rd, wr        deadline
	once          sync.Once
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.in.read(b, &s.rd)
	return n, s.wrap("read", err)
}

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.out.write(b, &s.wr)
	return n, s.wrap("write", err)
}

func (s *stream) wrap(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.local, Addr: s.remote, Err: err}
}

// CloseWrite sends the end of the stream and leaves reading open.
func (s *stream) CloseWrite() error {
	s.out.closeWrite()
	return nil
}

func (s *stream) Close() error {
	s.once.Do(func() {
		s.out.closeWrite()
		s.in.end(func() { s.in.gone = true })
		s.in.forget()
	})
	return nil
}

func (s *stream) LocalAddr() net.Addr                { return s.local }
func (s *stream) RemoteAddr() net.Addr               { return s.remote }
func (s *stream) SetReadDeadline(t time.Time) error  { s.rd.set(t); return nil }
func (s *stream) SetWriteDeadline(t time.Time) error { s.wr.set(t); return nil }

func (s *stream) SetDeadline(t time.Time) error {
	s.rd.set(t)
	s.wr.set(t)
	return nil
}

// A deadline is a moment that may be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.done == nil || isClosed(d.done) {
		d.done = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.done == done && !isClosed(done) {
				close(done)
			}
		})
		return
	}
	close(done)
}

// wait returns a channel that is closed at the deadline. A waiter of a deadline that is moved later sees the new one only at
// its next wait, which is enough for callers that set deadlines before they read or write, or to end a read at once.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

func (d *deadline) passed() bool { return isClosed(d.wait()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ListenPacket opens a packet socket on host:port; an empty host means all networks, port 0 a free one.
func (h *Host) ListenPacket(address string) (net.PacketConn, error) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	key, err := h.local(address)
	if err != nil {
		return nil, err
	}
	if h.packets[key] != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	p := &packetConn{host: h, key: key, in: make(chan packet, packetQueue), closed: make(chan struct{})}
	h.packets[key] = p
	return p, nil
}

type packet struct {
	data []byte
	from net.Addr
	at   time.Time
}

type packetConn struct {
	host   *Host
	key    string
	in     chan packet
	closed chan struct{}
	once   sync.Once
	rd     deadline
}

func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case k := <-p.in:
		if wait := time.Until(k.at); wait > 0 {
			time.Sleep(wait)
		}
		return copy(b, k.data), k.from, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	case <-p.rd.wait():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (p *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if isClosed(p.closed) {
		return 0, net.ErrClosed
	}
	l := p.host.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	dest, network, port, err := l.find(to.String())
	if err != nil {
		l.lost++
		return 0, err
	}
	q := dest.packets[to.String()]
	if q == nil {
		q = dest.packets[":"+port]
	}
	if q == nil || dest != p.host && (!l.open(path{p.host.name, dest.name, network}) || l.rng.Float64() < l.loss) {
		l.lost++
		return len(b), nil
	}
	_, local, _ := net.SplitHostPort(p.key)
	n, _ := strconv.Atoi(local)
	from := &net.UDPAddr{IP: net.ParseIP(p.host.ips[network]), Port: n}
	select {
	case q.in <- packet{append([]byte(nil), b...), from, time.Now().Add(l.delay)}:
	default:
		l.lost++
	}
	return len(b), nil
}

func (p *packetConn) Close() error {
	p.once.Do(func() {
		p.host.lan.mu.Lock()
		if p.host.packets[p.key] == p {
			delete(p.host.packets, p.key)
		}
		p.host.lan.mu.Unlock()
		close(p.closed)
	})
	return nil
}

func (p *packetConn) LocalAddr() net.Addr {
	a := p.host.addr(p.key)
	return &net.UDPAddr{IP: a.IP, Port: a.Port}
}

func (p *packetConn) SetDeadline(t time.Time) error     { return p.SetReadDeadline(t) }
func (p *packetConn) SetReadDeadline(t time.Time) error { p.rd.set(t); return nil }
func (p *packetConn) SetWriteDeadline(time.Time) error  { return nil }
