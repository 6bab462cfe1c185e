package linux

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

func service(w *network, host string) executor.Resource {
	return executor.Resource{Kind: executor.KindServiceIP, Name: "svc" + host, Group: "rg", IP: &executor.Address{
		Label: "svc" + host, Address: w.ip(host), Network: "net1", NodeAddress: w.ip("1") + "/24"}}
}

func carries(t *testing.T, addr string) []*netInterface {
	t.Helper()
	all, err := interfaces()
	check(t, err)
	return holders(all, netip.MustParseAddr(addr))
}

func newIP(t *testing.T) *Addresses {
	x := NewServiceIP(AddressOptions{})
	t.Cleanup(x.Close)
	return x
}

func TestAddressConformance(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executortest.Subject {
				_, w := newPeer(t)
				address := func(n int) executor.Resource {
					r := service(w, fmt.Sprint(100+n))
					if family == "IPv6" {
						r.IP.Address, r.IP.NodeAddress = fmt.Sprintf("fd09:%d::1:%d", w.n, n), fmt.Sprintf("fd09:%d::1", w.n)
					}
					return r
				}
				return executortest.Subject{
					Executor: newIP(t),
					Resource: func(_ *testing.T, n int) executor.Resource { return address(n) },
					Present: func(t *testing.T, r executor.Resource) bool {
						return len(carries(t, r.IP.Address)) > 0
					},
					Invalid: func(*testing.T) executor.Resource {
						r := address(0)
						r.IP.NodeAddress = "192.0.2.77"
						return r
					},
					Blind: func(*testing.T) executor.Resource {
						r := address(0)
						r.IP.Address = "not an address"
						return r
					},
				}
			})
		})
	}
}

func TestAddressConformanceCatchesLiars(t *testing.T) {
	executortest.Mutants(t, "TestAddressConformance")
}

func TestAnAddressInUseIsNotTaken(t *testing.T) {
	p, w := newPeer(t)
	addAddress(t, p.h, "br0", w.ip("200")+"/24")
	addAddress(t, p.h, "br0", fmt.Sprintf("fd09:%d::200/64", w.n))
	for _, addr := range []string{w.ip("200"), fmt.Sprintf("fd09:%d::200", w.n)} {
		r := service(w, "200")
		r.IP.Address = addr
		res := newIP(t).Start(t.Context(), r)
		if res.Err == nil || res.Status != executor.Stopped || !strings.Contains(res.Detail, "in use on the network") {
			t.Errorf("start of an address that the peer has: %+v", res)
		}
		br, err := p.h.LinkByName("br0")
		check(t, err)
		if !strings.Contains(res.Detail, br.Attrs().HardwareAddr.String()) {
			t.Errorf("the holder %s is not named: %s", br.Attrs().HardwareAddr, res.Detail)
		}
		if on := carries(t, addr); len(on) != 0 {
			t.Errorf("it was taken nevertheless, on %s", names(on))
		}
	}
}

// A probe that was made ahead spares one start the wait, for a moment, and only if nobody answered it.
func TestPreparedAddress(t *testing.T) {
	const bit = "200"
	start := func(t *testing.T, x *Addresses, w *network, taken bool) {
		t.Helper()
		res := x.Start(t.Context(), service(w, bit))
		if refused := res.Err != nil && strings.Contains(res.Detail, "in use on the network"); refused != taken {
			t.Errorf("refused %v, want %v: %+v", refused, taken, res)
		}
	}
	t.Run("spares the probe once", func(t *testing.T) {
		p, w := newPeer(t)
		x := newIP(t)
		x.Prepare(t.Context(), service(w, bit))
		addAddress(t, p.h, "br0", w.ip(bit)+"/24") // too late for the probe, and too late for one made now by as much
		start(t, x, w, false)
		if res := x.Stop(t.Context(), service(w, bit)); res.Err != nil {
			t.Fatal(res.Err)
		}
		start(t, x, w, true)
	})
	t.Run("gets old", func(t *testing.T) {
		p, w := newPeer(t)
		x := newIP(t)
		x.Prepare(t.Context(), service(w, bit))
		addAddress(t, p.h, "br0", w.ip(bit)+"/24")
		for _, done := range x.prepared {
			done.begun = done.begun.Add(-preparedFor)
		}
		start(t, x, w, true)
	})
	t.Run("an answer is not kept", func(t *testing.T) {
		p, w := newPeer(t)
		x := newIP(t)
		addAddress(t, p.h, "br0", w.ip(bit)+"/24")
		x.Prepare(t.Context(), service(w, bit))
		start(t, x, w, true)
		x.Prepare(t.Context(), service(w, bit))
		link, err := p.h.LinkByName("br0")
		check(t, err)
		check(t, p.h.AddrDel(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(w.ip(bit) + "/24"))})) // the holder has let go
		start(t, x, w, false)
	})
}

func TestAnAddressIsAnnouncedAtOnceAndAgain(t *testing.T) {
	p, w := newPeer(t)
	for _, c := range []struct {
		addr  string
		proto uint16
		per   int // frames each time
	}{{w.ip("101"), etherARP, 2}, {fmt.Sprintf("fd09:%d::101", w.n), etherIPv6, 1}} {
		r := service(w, "101")
		r.IP.Address, r.IP.Interface = c.addr, w.names[0]
		addr := netip.MustParseAddr(c.addr)
		claim := arpSender
		if addr.Is6() {
			claim = neighbourClaim
		}
		listener := p.listen(t, c.proto)
		check(t, listener.joinMulticast(allNodesMAC))
		x := newIP(t)
		x.wait = -1 // the IPv6 probe is a frame with the address too
		if res := x.Start(t.Context(), r); res.Err != nil {
			t.Fatal(res)
		}
		total := (1 + len(announceAfter)) * c.per
		got := listener.frames(t, claim, addr, total, 10*time.Second)
		if len(got) != total {
			t.Fatalf("%s: %d announcements, wanted %d", addr, len(got), total)
		}
		mac := snapshot(t, w.names[0]).mac
		for _, f := range got {
			if who, _, _ := claim(f); string(who) != string(mac) {
				t.Errorf("%s is announced at %s, it is at %s", addr, who, mac)
			}
		}
		if c.per == 2 && (got[0][21] != arpRequest || got[1][21] != arpReply) {
			t.Errorf("announced by operations %d and %d, wanted request and reply", got[0][21], got[1][21])
		}
		check(t, x.Announce(t.Context(), r))
		if got := listener.frames(t, claim, addr, c.per, 10*time.Second); len(got) != c.per {
			t.Errorf("%s: %d frames when announced on demand", addr, len(got))
		}
		// What is stopped is not announced any more.
		if res := x.Stop(t.Context(), r); res.Err != nil {
			t.Fatal(res)
		}
		listener.frames(t, claim, addr, 1000, time.Millisecond) // what is in the queue
		if got := listener.frames(t, claim, addr, 1, 300*time.Millisecond); len(got) != 0 {
			t.Errorf("%s is announced after it was removed", addr)
		}
	}
}

func TestNeighboursLearnTheNewPlace(t *testing.T) {
	p, w := newPeer(t)
	x := newIP(t)
	r := service(w, "102")
	r.IP.Interface = w.names[0]
	if res := x.Start(t.Context(), r); res.Err != nil {
		t.Fatal(res)
	}
	br, err := p.h.LinkByName("br0")
	check(t, err)
	stale := snapshot(t, w.names[0]).mac
	check(t, p.h.NeighSet(&netlink.Neigh{LinkIndex: br.Attrs().Index, IP: ipNet(netip.MustParsePrefix(w.ip("102") + "/32")).IP,
		HardwareAddr: stale, State: netlink.NUD_STALE}))
	r.IP.Interface = w.names[1]
	res := x.Start(t.Context(), r)
	if res.Err != nil || !strings.Contains(res.Detail, w.names[1]) || len(carries(t, w.ip("102"))) != 1 {
		t.Fatalf("the address was not moved: %+v", res)
	}
	want := snapshot(t, w.names[1]).mac.String()
	waitUntil(t, "the peer has noted the new place", func() bool {
		list, err := p.h.NeighList(br.Attrs().Index, netlink.FAMILY_V4)
		check(t, err)
		for _, n := range list {
			if n.IP.String() == w.ip("102") {
				return n.HardwareAddr.String() == want
			}
		}
		return false
	})
}

func TestDistributionOverInterfaces(t *testing.T) {
	_, w := newPeer(t)
	for _, c := range []struct{ preference, first, second string }{
		{"", w.names[0], w.names[1]}, {"AC", w.names[0], w.names[1]}, {"C", w.names[0], w.names[0]},
	} {
		x := newIP(t)
		var rs []executor.Resource
		for i, want := range []string{c.first, c.second} {
			r := service(w, fmt.Sprint(110+i))
			r.IP.Distribution = c.preference
			rs = append(rs, r)
			for range 2 { // the second start must not move it
				res := x.Start(t.Context(), r)
				if on := carries(t, r.IP.Address); res.Err != nil || names(on) != want {
					t.Errorf("%q: address %d is on %s (%s), wanted %s", c.preference, i, names(on), res.Detail, want)
				}
			}
		}
		for _, r := range rs {
			if res := x.Stop(t.Context(), r); res.Err != nil {
				t.Fatal(res)
			}
		}
	}
}

func TestALostCarrierIsDegradedAndWatched(t *testing.T) {
	p, w := newPeer(t)
	x := newIP(t)
	r := service(w, "103")
	r.IP.Interface = w.names[0]
	if res := x.Start(t.Context(), r); res.Err != nil {
		t.Fatal(res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := WatchLinks(ctx)
	check(t, err)
	expectEvent(t, events, "the present state", func(e LinkEvent) bool {
		return e.Interface == w.names[0] && e.Carrier && containsPrefix(e, w.ip("103"))
	})
	far, err := p.h.LinkByName("p" + w.names[0])
	check(t, err)
	check(t, p.h.LinkSetDown(far))
	expectEvent(t, events, "the lost carrier", func(e LinkEvent) bool { return e.Interface == w.names[0] && e.Up && !e.Carrier })
	if res := x.Probe(t.Context(), r); res.Status != executor.Degraded || !strings.Contains(res.Detail, "no carrier") {
		t.Errorf("probe without carrier: %+v", res)
	}
	// Without a forced interface the other one takes it.
	r.IP.Interface = ""
	if res := x.Start(t.Context(), r); res.Err != nil || names(carries(t, w.ip("103"))) != w.names[1] {
		t.Errorf("the address did not leave the dead interface: %+v", res)
	}
	expectEvent(t, events, "the address on the other interface", func(e LinkEvent) bool {
		return e.Interface == w.names[1] && containsPrefix(e, w.ip("103"))
	})
	check(t, p.h.LinkSetUp(far))
	expectEvent(t, events, "the carrier that is back", func(e LinkEvent) bool { return e.Interface == w.names[0] && e.Carrier })
	cancel()
	for range events { //nolint:revive // it must be closed
	}
	r.IP.Interface = w.names[0]
	check(t, p.h.LinkSetDown(far))
	waitUntil(t, "the carrier is lost", func() bool { return !snapshot(t, w.names[0]).carrier })
	fresh := service(w, "104")
	fresh.IP.Interface = w.names[0]
	if res := x.Start(t.Context(), fresh); res.Err == nil || res.Status != executor.Stopped || !strings.Contains(res.Detail, "no carrier") {
		t.Errorf("start on an interface without carrier: %+v", res)
	}
	if err := x.Validate(t.Context(), fresh); err != nil {
		t.Errorf("a link that is down is taken for a fault of the definition: %v", err)
	}
}

func containsPrefix(e LinkEvent, addr string) bool {
	for _, p := range e.Addresses {
		if p.Addr().String() == addr {
			return true
		}
	}
	return false
}

func expectEvent(t *testing.T, events <-chan LinkEvent, what string, is func(LinkEvent) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the events ended before %s", what)
			}
			if is(e) {
				return
			}
		case <-deadline:
			t.Fatalf("no event for %s", what)
		}
	}
}

func TestRemovingAPrimaryAddressKeepsItsSiblings(t *testing.T) {
	for _, readOnly := range []bool{false, true} { // whether the kernel can be told to keep them
		t.Run(fmt.Sprintf("read-only sysctl %v", readOnly), func(t *testing.T) { keepsSiblings(t, readOnly) })
	}
}

func keepsSiblings(t *testing.T, readOnly bool) {
	_, w := newPeer(t)
	check(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/promote_secondaries", []byte("0"), 0))
	check(t, os.WriteFile("/proc/sys/net/ipv4/conf/"+w.names[0]+"/promote_secondaries", []byte("0"), 0))
	if readOnly {
		check(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
		t.Cleanup(func() { check(t, unix.Unmount("/proc/sys", 0)) })
		check(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}
	x := newIP(t)
	first, second := service(w, "120"), service(w, "121")
	for _, r := range []executor.Resource{first, second} {
		// A subnet of its own: the first address there is the primary one, and the kernel removes the second with it.
		r.IP.Address = strings.Replace(r.IP.Address, "10.9.", "10.8.", 1)
		r.IP.Prefix, r.IP.Interface = 24, w.names[0]
		if res := x.Start(t.Context(), r); res.Err != nil {
			t.Fatal(res)
		}
	}
	if res := x.Stop(t.Context(), first); res.Err != nil {
		t.Fatal(res)
	}
	if res := x.Probe(t.Context(), second); res.Status != executor.Running {
		t.Errorf("the other address of the subnet: %+v", res)
	}
}

func TestManyAddressesAtOnce(t *testing.T) {
	_, w := newPeer(t)
	x := newIP(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := service(w, fmt.Sprint(130+i))
			if res := x.Start(t.Context(), r); res.Err != nil || res.Status != executor.Running {
				t.Errorf("start: %+v", res)
			}
			if res := x.Stop(t.Context(), r); res.Err != nil || res.Status != executor.Stopped {
				t.Errorf("stop: %+v", res)
			}
		})
	}
	wg.Wait()
}
