package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxPacket is the largest packet that is read.
	maxPacket = 65536
	// maxStream bounds what is read from one incoming stream; the state of a hundred members has some 10 KiB.
	maxStream = 256 << 10
	// maxStreams bounds the incoming streams that are open at once.
	maxStreams = 64
)

// A transport is memberlist's way to one network. memberlist's own makes a buffer of 64 KiB for each packet that comes in, and
// has no place to count strangers.
type transport struct {
	ctx     context.Context // of the ring: ends what is being dialled
	label   string
	packet  net.PacketConn
	stream  net.Listener
	address netip.AddrPort // ours, as others are told
	dial    func(ctx context.Context, address string) (net.Conn, error)
	count   *counters

	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	open    atomic.Int32 // incoming streams
	peers   sync.Map     // address -> *net.UDPAddr
}

func (t *transport) start() {
	t.packets = make(chan *memberlist.Packet)
	t.streams = make(chan net.Conn)
	t.done = make(chan struct{})
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
}

func (t *transport) readPackets() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.packet.ReadFrom(buf)
		if err != nil {
			if !t.pause(err) {
				return
			}
			continue
		}
		at := time.Now()
		t.count.received.Add(1)
		// memberlist checks the label too, and writes a line for each stranger's packet.
		if _, label, err := memberlist.RemoveLabelHeaderFromPacket(buf[:n]); err != nil || label != t.label {
			t.count.foreign.Add(1)
			continue
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: at}:
		case <-t.done:
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		c, err := t.stream.Accept()
		if err != nil {
			if !t.pause(err) {
				return
			}
			continue
		}
		if t.open.Add(1) > maxStreams {
			t.open.Add(-1)
			c.Close()
			continue
		}
		select {
		case t.streams <- &bounded{Conn: c, open: &t.open, left: maxStream}:
		case <-t.done:
			c.Close()
			return
		}
	}
}

// A bounded stream ends when more was read than any member sends: memberlist would take 20 MiB from a stranger before it finds
// out that the key is wrong.
type bounded struct {
	net.Conn
	open *atomic.Int32
	left int
	once sync.Once
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the stream is longer than %d bytes", maxStream)
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bounded) Close() error {
	b.once.Do(func() { b.open.Add(-1) })
	return b.Conn.Close()
}

// pause waits a moment after an error (no descriptors, network down); it reports false at the end.
func (t *transport) pause(error) bool {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-t.done:
		return false
	case <-timer.C:
		return true
	}
}

// FinalAdvertiseAddr tells memberlist our address.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.address.Addr().AsSlice(), int(t.address.Port()), nil
}

// WriteTo sends a packet.
func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := t.resolve(address)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packet.WriteTo(b, to)
	t.count.sent.Add(1)
	return time.Now(), err
}

// resolve parses an address, which is always numeric, once.
func (t *transport) resolve(address string) (net.Addr, error) {
	if a, ok := t.peers.Load(address); ok {
		return a.(*net.UDPAddr), nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("send to %q: %w", address, err)
	}
	a := net.UDPAddrFromAddrPort(ap)
	t.peers.Store(address, a)
	return a, nil
}

// PacketCh hands packets to memberlist.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.dial(ctx, address)
}

// WriteToAddress is WriteTo.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialAddressTimeout is DialTimeout.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// StreamCh hands streams to memberlist.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes the sockets.
func (t *transport) Shutdown() error {
	t.once.Do(func() {
		close(t.done)
		t.packet.Close()
		t.stream.Close()
	})
	t.wg.Wait()
	return nil
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)
