package linux

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that a Steerer made, in the field where `ip route` shows "proto": nobody else's are touched.
const routeProtocol = 72

// sixMetric is the metric of a Steerer's IPv6 routes: better than that of any the kernel makes (256, 1024).
const sixMetric = 64

// A Steerer keeps this machine's routes off interfaces that have failed. The kernel goes on sending through an interface that has
// lost its carrier or that nobody answers on, as long as a route names it; an address that was moved to another interface would
// hear its clients and not be heard.
//
// For each route through the failed interface it adds a twin through the other one that is preferred to it, and takes it away
// again when the interface is well. It deletes and changes no route that it did not make; what it made shows in `ip route` as
// "proto 72". A Steerer is for one goroutine.
type Steerer struct {
	log  *slog.Logger
	seen map[string][]netlink.Route // interface -> its routes when they were last seen there
	tell map[string]telling         // interface -> announcements to come
	now  []Detour                   // as last in force
}

// NewSteerer makes a Steerer. Routes that one of an earlier process left are taken over.
func NewSteerer(log *slog.Logger) *Steerer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Steerer{log: log.With("component", "routes"), seen: map[string][]netlink.Route{}, tell: map[string]telling{}}
}

// announceOwn is how many times the node's own addresses are announced after a change.
const announceOwn = 3

// Steer brings the detours into force and takes back all others. interfaces are all those that may ever need one: their routes are
// remembered, for those of an interface that is switched off are gone. It is called again and again, and does nothing when there
// is nothing to do; it never waits.
func (s *Steerer) Steer(names []string, detours []Detour) error {
	all, err := interfaces()
	if err != nil {
		return err
	}
	byName, byIndex := map[string]*netInterface{}, map[int]string{}
	for _, i := range all {
		byName[i.name], byIndex[i.index] = i, i.name
	}
	routes, err := retryDump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list the routes: %w", err)
	}
	own, others := map[string]netlink.Route{}, map[string][]netlink.Route{}
	for _, r := range routes {
		switch name := byIndex[r.LinkIndex]; {
		case r.Protocol == routeProtocol:
			own[routeKey(r)] = r
		case name != "" && steerable(r):
			others[name] = append(others[name], r)
		}
	}
	failed := map[string]bool{}
	for _, d := range detours {
		failed[d.From] = true
	}
	for _, name := range names {
		if len(others[name]) > 0 || !failed[name] {
			s.seen[name] = others[name]
		}
	}
	errs := apply(own, s.twins(byName, detours))
	s.announce(byName, detours)
	return errors.Join(errs...)
}

// twins lists the routes that lead around the failed interfaces, those that others need as their gateway's first.
func (s *Steerer) twins(byName map[string]*netInterface, detours []Detour) []netlink.Route {
	var out []netlink.Route
	for _, d := range detours {
		to := byName[d.To]
		if to == nil {
			continue
		}
		for _, r := range s.seen[d.From] {
			t := netlink.Route{LinkIndex: to.index, Dst: r.Dst, Gw: r.Gw, Src: r.Src, Scope: r.Scope, Table: unix.RT_TABLE_MAIN,
				Type: unix.RTN_UNICAST, Protocol: routeProtocol, Priority: r.Priority, Family: r.Family}
			if r.Family == netlink.FAMILY_V6 {
				t.Priority, t.Src = sixMetric, nil
			}
			if t.Gw != nil {
				t.Flags = int(netlink.FLAG_ONLINK)
			}
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b netlink.Route) int { return boolInt(a.Gw != nil) - boolInt(b.Gw != nil) })
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// apply makes the Steerer's routes those that are wanted.
func apply(own map[string]netlink.Route, want []netlink.Route) []error {
	var errs []error
	wanted := map[string]bool{}
	for _, r := range want {
		wanted[routeKey(r)] = true
	}
	for key, r := range own {
		if wanted[key] {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("take back the route %s: %w", r, err))
		}
	}
	for _, r := range want {
		key := routeKey(r)
		if _, there := own[key]; there {
			continue
		}
		own[key] = r
		// Neither exclusive nor appended: the kernel puts it before an IPv4 route of the same metric, as `ip route prepend` does.
		if err := netlink.RouteAddEcmp(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add the route %s: %w", r, err))
		}
	}
	return errs
}

// announce tells the neighbours through which interface the node's own addresses are reached, some times after a change.
func (s *Steerer) announce(byName map[string]*netInterface, detours []Detour) {
	for _, d := range detours {
		if !slices.ContainsFunc(s.now, func(o Detour) bool { return o.From == d.From && o.To == d.To }) {
			s.log.Warn("what would leave through a failed interface takes another", "failed", d.From, "other", d.To)
			s.tell[d.To] = telling{announceOwn, d.Own}
			delete(s.tell, d.From)
		}
	}
	for _, o := range s.now {
		if !slices.ContainsFunc(detours, func(d Detour) bool { return d.From == o.From }) {
			s.log.Info("an interface is used again", "interface", o.From)
			s.tell[o.From] = telling{announceOwn, o.Own}
			delete(s.tell, o.To)
		}
	}
	s.now = slices.Clone(detours)
	for name, t := range s.tell {
		i := byName[name]
		if t.left == 0 || i == nil || !i.usable() {
			delete(s.tell, name)
			continue
		}
		s.tell[name] = telling{t.left - 1, t.own}
		for _, a := range t.own {
			if a.Is4() {
				_ = announceOnce(i, a) // it is told again, and neighbours ask by themselves in the end
			}
		}
	}
}

// A telling is how often the node's own addresses are still announced on an interface.
type telling struct {
	left int
	own  []netip.Addr
}

// steerable reports whether a route may get a twin: one by which something leaves this machine through one interface.
func steerable(r netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST || len(r.MultiPath) > 0 {
		return false
	}
	if r.Dst == nil {
		return true
	}
	return !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast()
}

func routeKey(r netlink.Route) string {
	dst := "default"
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			dst = r.Dst.String()
		}
	}
	return fmt.Sprintf("%d %s via %s src %s dev %d metric %d", r.Family, dst, r.Gw, r.Src, r.LinkIndex, r.Priority)
}
