package linux

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// answersTo reports whether the peer gets an answer from an address of ours, by TCP.
func (p *peer) answersTo(t *testing.T, addr string) bool {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprintln(c, "here")
			c.Close()
		}
	}()
	ok := false
	p.in(t, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 5)
		_, err = c.Read(b)
		ok = err == nil && string(b[:4]) == "here"
		return nil
	})
	return ok
}

// An interface fails in each of the ways that there are; the address and the routes leave it, the peer is answered, and after
// the heal nothing is moved back and the routes are as they were.
func TestAnAddressLeavesAFailedInterface(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		for name, fail := range map[string]func(t *testing.T, p *peer, far, near netlink.Link) (mend func()){
			"carrier": func(t *testing.T, p *peer, far, near netlink.Link) func() {
				check(t, p.h.LinkSetDown(far))
				return func() { check(t, p.h.LinkSetUp(far)) }
			},
			"switched off": func(t *testing.T, p *peer, far, near netlink.Link) func() {
				check(t, netlink.LinkSetDown(near))
				return func() { check(t, netlink.LinkSetUp(near)) }
			},
			"silence": func(t *testing.T, p *peer, far, near netlink.Link) func() { // nothing passes and the carrier stays
				check(t, p.h.LinkSetNoMaster(far))
				br, err := p.h.LinkByName("br0")
				check(t, err)
				return func() { check(t, p.h.LinkSetMaster(far, br)) }
			},
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				p, w := newPeer(t)
				a, b := w.names[0], w.names[1]
				far, err := p.h.LinkByName("p" + a)
				check(t, err)
				near, err := netlink.LinkByName(a)
				check(t, err)
				before := routesOf(t)
				x, s := newIP(t), NewSteerer(nil)
				r := service(w, "150")
				r.IP.Interfaces = w.names
				if family == "IPv6" {
					r.IP.Address = fmt.Sprintf("fd09:%d::150", w.n)
				}
				if res := x.Start(t.Context(), r); res.Err != nil || names(carries(t, r.IP.Address)) != a {
					t.Fatalf("start: %+v", res)
				}
				if m, err := x.Relocate(t.Context(), r); err != nil || m.Moved || m.To != a {
					t.Fatalf("it stands well and is moved: %+v, %v", m, err)
				}
				check(t, s.Steer(w.names, nil))
				if !p.answersTo(t, r.IP.Address) {
					t.Fatal("the peer is not answered before anything fails")
				}

				mend := fail(t, p, far, near)
				waitUntil(t, "the failure is there", func() bool { return name == "silence" || !snapshot(t, a).usable() })
				r.IP.Failed = []string{a}
				check(t, s.Steer(w.names, []Detour{{From: a, To: b, Own: []netip.Addr{netip.MustParseAddr(w.ip("1"))}}}))
				m, err := x.Relocate(t.Context(), r)
				if err != nil || !m.Moved || m.To != b || names(carries(t, r.IP.Address)) != b {
					t.Fatalf("relocated: %+v, %v; it is on %s", m, err, names(carries(t, r.IP.Address)))
				}
				waitUntil(t, "the peer is answered", func() bool { return p.answersTo(t, r.IP.Address) })
				if family == "IPv4" { // the node's own address is reached through the other one too
					waitUntil(t, "the node's own address answers", func() bool { return p.answersTo(t, w.ip("1")) })
				}

				mend()
				r.IP.Failed = nil
				waitUntil(t, "the interface is well", func() bool { return snapshot(t, a).usable() })
				check(t, s.Steer(w.names, nil))
				if m, err := x.Relocate(t.Context(), r); err != nil || m.Moved {
					t.Errorf("it is moved back without need: %+v, %v", m, err)
				}
				waitUntil(t, "the peer is answered after the heal", func() bool { return p.answersTo(t, r.IP.Address) })
				if res := x.Stop(t.Context(), r); res.Err != nil {
					t.Fatal(res)
				}
				waitUntil(t, "the routes are as they were", func() bool {
					now := routesOf(t)
					if name == "switched off" { // the kernel forgets the IPv6 addresses of such an interface, and their routes
						four := func(list []string) []string {
							return slices.DeleteFunc(slices.Clone(list), func(r string) bool { return strings.Contains(r, "fd09:") })
						}
						return slices.Equal(four(now), four(before))
					}
					return slices.Equal(now, before)
				})
			})
		}
	}
}

// routesOf lists the routes of the main table, those that nothing can be sent through left out.
func routesOf(t *testing.T) []string {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	check(t, err)
	var out []string
	for _, r := range routes {
		if steerable(r) {
			out = append(out, fmt.Sprintf("%s proto %d", routeKey(r), r.Protocol))
		}
	}
	slices.Sort(out)
	return out
}

// A Steerer takes over what one before it left, leads default routes around as well, and leaves other routes alone.
func TestSteerOutlivesItsProcess(t *testing.T) {
	_, w := newPeer(t)
	a, b := w.names[0], w.names[1]
	la, err := netlink.LinkByName(a)
	check(t, err)
	far := net.IPNet{IP: net.IPv4(198, 51, 100, 0).To4(), Mask: net.CIDRMask(24, 32)}
	check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: la.Attrs().Index, Dst: &far, Gw: net.ParseIP(w.ip("9"))}))
	before := routesOf(t)
	check(t, NewSteerer(nil).Steer(w.names, []Detour{{From: a, To: b}}))
	during := routesOf(t)
	got, err := netlink.RouteGet(net.IPv4(198, 51, 100, 7))
	check(t, err)
	if lb, _ := netlink.LinkByName(b); got[0].LinkIndex != lb.Attrs().Index {
		t.Errorf("beyond the router the way goes through interface %d, not %s", got[0].LinkIndex, b)
	}
	again := NewSteerer(nil)
	check(t, again.Steer(w.names, []Detour{{From: a, To: b}}))
	if now := routesOf(t); !slices.Equal(now, during) {
		t.Errorf("another process changes the routes:\n%s\nthen\n%s", strings.Join(during, "\n"), strings.Join(now, "\n"))
	}
	check(t, NewSteerer(nil).Steer(w.names, nil))
	if now := routesOf(t); !slices.Equal(now, before) {
		t.Errorf("the routes were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
	}
}

func TestAsk(t *testing.T) {
	p, w := newPeer(t)
	a, b := w.names[0], w.names[1]
	here := netip.MustParseAddr(w.ip("9"))
	there := netip.MustParseAddr(fmt.Sprintf("fd09:%d::9", w.n))
	nobody := netip.MustParseAddr(w.ip("66"))
	ask := func(name string, targets ...netip.Addr) bool {
		t.Helper()
		yes, err := Ask(t.Context(), name, targets, 300*time.Millisecond)
		if err != nil {
			t.Errorf("ask on %s: %v", name, err)
		}
		return yes
	}
	for _, c := range []struct {
		name    string
		targets []netip.Addr
		want    bool
	}{
		{a, []netip.Addr{here}, true}, {b, []netip.Addr{here}, true}, {a, []netip.Addr{there}, true},
		{a, []netip.Addr{nobody, here}, true}, {a, []netip.Addr{nobody, there}, true}, {a, []netip.Addr{nobody}, false}, {a, nil, false},
		{a, []netip.Addr{netip.MustParseAddr(w.ip("2"))}, false}, // our own other interface answers, which says nothing
		{"lo", []netip.Addr{here}, false},
	} {
		if got := ask(c.name, c.targets...); got != c.want {
			t.Errorf("%s asks for %v: %v, wanted %v", c.name, c.targets, got, c.want)
		}
	}
	far, err := p.h.LinkByName("p" + a)
	check(t, err)
	check(t, p.h.LinkSetNoMaster(far))
	check(t, p.h.LinkSetARPOff(far)) // the port is an interface of its own now, and would answer
	if ask(a, here) || !ask(b, here) {
		t.Error("a silent interface is told from one that is well by what it hears itself")
	}
	if _, err := Ask(t.Context(), "none0", []netip.Addr{here}, time.Millisecond); err == nil {
		t.Error("an interface that does not exist is asked")
	}
}

// A relocation that cannot take the address off the old interface does not put it on another, and one that finds no interface
// leaves it where it is.
func TestARelocationNeverDoubles(t *testing.T) {
	p, w := newPeer(t)
	x := newIP(t)
	r := service(w, "160")
	r.IP.Interfaces = w.names
	if res := x.Start(t.Context(), r); res.Err != nil {
		t.Fatal(res)
	}
	for _, name := range w.names {
		far, err := p.h.LinkByName("p" + name)
		check(t, err)
		check(t, p.h.LinkSetDown(far))
		waitUntil(t, "the carrier is lost", func() bool { return !snapshot(t, name).carrier })
	}
	if m, err := x.Relocate(t.Context(), r); err == nil || m.Moved || !strings.Contains(err.Error(), "no carrier") {
		t.Errorf("relocated to nowhere: %+v, %v", m, err)
	}
	if on := carries(t, r.IP.Address); len(on) != 1 || on[0].name != w.names[0] {
		t.Errorf("the address is on %s", names(on))
	}
	// What an administrator has put on both is on one afterwards.
	far, err := p.h.LinkByName("p" + w.names[1])
	check(t, err)
	check(t, p.h.LinkSetUp(far))
	waitUntil(t, "the carrier is back", func() bool { return snapshot(t, w.names[1]).usable() })
	addAddress(t, nil, w.names[1], w.ip("160")+"/24")
	if m, err := x.Relocate(t.Context(), r); err != nil || names(carries(t, r.IP.Address)) != w.names[1] {
		t.Errorf("%+v, %v; the address is on %s", m, err, names(carries(t, r.IP.Address)))
	}
	if res := x.Stop(t.Context(), r); res.Err != nil {
		t.Fatal(res)
	}
	var _ executor.Mover = x
}

// Addresses that come at the same time see where the others go.
func TestDistributionSideBySide(t *testing.T) {
	_, w := newPeer(t)
	for preference, want := range map[string][]int{"AC": {4, 4}, "C": {8, 0}} {
		x := newIP(t)
		var rs []executor.Resource
		var all []string
		for n := range 8 {
			r := service(w, fmt.Sprint(170+n))
			r.IP.Interfaces, r.IP.Distribution = w.names, preference
			rs, all = append(rs, r), append(all, r.IP.Address)
		}
		var wg sync.WaitGroup
		for _, r := range rs {
			r.IP.Services = all
			wg.Go(func() {
				if res := x.Start(t.Context(), r); res.Err != nil {
					t.Errorf("%s: %+v", preference, res)
				}
			})
		}
		wg.Wait()
		count := map[string]int{}
		for _, r := range rs {
			count[names(carries(t, r.IP.Address))]++
		}
		if got := []int{count[w.names[0]], count[w.names[1]]}; !slices.Equal(got, want) {
			t.Errorf("%s: %v addresses on the two interfaces, wanted %v", preference, got, want)
		}
		for _, r := range rs {
			if res := x.Stop(t.Context(), r); res.Err != nil {
				t.Fatal(res)
			}
		}
		if len(x.coming) != 0 {
			t.Errorf("%s: still coming: %v", preference, x.coming)
		}
	}
}
