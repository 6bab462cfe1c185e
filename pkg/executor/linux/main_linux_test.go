package linux

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

// TestMain runs the tests in network and mount namespaces of their own, as an ordinary user in a user namespace.
func TestMain(m *testing.M) {
	inside, status := executortest.InNamespaces()
	if !inside {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// A peer is another machine: a network namespace of its own, whose kernel answers for the addresses it has. Its ports are
// the other ends of our interfaces, joined by a bridge.
type peer struct {
	ns *os.File
	h  *netlink.Handle
}

var numbers struct {
	sync.Mutex
	next int
}

// newPeer makes a network of two interfaces here, with addresses 10.9.n.1 and 10.9.n.2, and a peer with 10.9.n.9.
func newPeer(t *testing.T) (*peer, *network) {
	t.Helper()
	p := &peer{ns: newNamespace(t)}
	p.in(t, func() (err error) {
		p.h, err = netlink.NewHandle(unix.NETLINK_ROUTE) // its socket stays in the namespace it was opened in
		return err
	})
	h := p.h
	t.Cleanup(h.Close)

	numbers.Lock()
	numbers.next++
	n := numbers.next
	numbers.Unlock()
	net := &network{n: n, names: []string{fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)}}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	check(t, h.LinkAdd(bridge))
	check(t, h.LinkSetUp(bridge))
	for i, name := range net.names {
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "p" + name}))
		far, err := netlink.LinkByName("p" + name)
		check(t, err)
		check(t, netlink.LinkSetNsFd(far, int(p.ns.Fd())))
		far, err = h.LinkByName("p" + name)
		check(t, err)
		check(t, h.LinkSetMaster(far, bridge))
		check(t, h.LinkSetUp(far))
		near, err := netlink.LinkByName(name)
		check(t, err)
		t.Cleanup(func() { check(t, netlink.LinkDel(near)) })
		check(t, netlink.LinkSetUp(near))
		addAddress(t, nil, name, fmt.Sprintf("10.9.%d.%d/24", n, i+1))
		addAddress(t, nil, name, fmt.Sprintf("fd09:%d::%d/64", n, i+1))
	}
	addAddress(t, h, "br0", fmt.Sprintf("10.9.%d.9/24", n))
	addAddress(t, h, "br0", fmt.Sprintf("fd09:%d::9/64", n))
	waitUntil(t, "the links come up", func() bool {
		for _, name := range net.names {
			if i := snapshot(t, name); !i.usable() {
				return false
			}
		}
		return true
	})
	waitUntil(t, "the bridge forwards", func() bool { // a port begins to when the kernel's work queue gets to it
		for _, name := range net.names {
			if who, err := inUse(t.Context(), snapshot(t, name), nil, netip.MustParseAddr(net.ip("9")), 50*time.Millisecond); err != nil || who == nil {
				return false
			}
		}
		return true
	})
	return p, net
}

type network struct {
	n     int
	names []string
}

func (w *network) ip(host string) string { return fmt.Sprintf("10.9.%d.%s", w.n, host) }

func newNamespace(t *testing.T) *os.File {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			c <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		c <- result{f, err}
	}()
	r := <-c
	check(t, r.err)
	t.Cleanup(func() { _ = r.f.Close() })
	return r.f
}

// in runs f on a thread that is in the peer's namespace.
func (p *peer) in(t *testing.T, f func() error) {
	t.Helper()
	c := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			c <- err
			return
		}
		c <- f()
	}()
	check(t, <-c)
}

// listen opens a raw socket on the peer's bridge.
func (p *peer) listen(t *testing.T, protocol uint16) *wire {
	t.Helper()
	link, err := p.h.LinkByName("br0")
	check(t, err)
	var w *wire
	p.in(t, func() (err error) {
		w, err = openWire(&netInterface{index: link.Attrs().Index, name: "br0"}, protocol)
		return err
	})
	t.Cleanup(w.close)
	return w
}

func addAddress(t *testing.T, h *netlink.Handle, name, cidr string) {
	t.Helper()
	if h == nil {
		var err error
		h, err = netlink.NewHandle()
		check(t, err)
		defer h.Close()
	}
	link, err := h.LinkByName(name)
	check(t, err)
	prefix := netip.MustParsePrefix(cidr)
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		a.Flags, a.ValidLft, a.PreferedLft = unix.IFA_F_NODAD, math.MaxUint32, math.MaxUint32
	}
	check(t, h.AddrAdd(link, a))
}

func snapshot(t testing.TB, name string) *netInterface {
	t.Helper()
	all, err := interfaces()
	check(t, err)
	for _, i := range all {
		if i.name == name {
			return i
		}
	}
	t.Fatalf("there is no interface %s", name)
	return nil
}

// waitUntil waits, on the kernel's events of interfaces and a slow tick, until the condition holds.
func waitUntil(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// frames collects the frames that claim the address at the peer's end until enough are there or the time is over.
func (w *wire) frames(t *testing.T, claim func([]byte) (net.HardwareAddr, netip.Addr, bool), addr netip.Addr, enough int, d time.Duration) [][]byte {
	t.Helper()
	var out [][]byte
	deadline := time.Now().Add(d)
	for len(out) < enough {
		f, err := w.receive(context.Background(), deadline)
		check(t, err)
		if f == nil {
			return out
		}
		if _, who, ok := claim(f); ok && who == addr {
			out = append(out, append([]byte(nil), f...))
		}
	}
	return out
}
