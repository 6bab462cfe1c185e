package aix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Addresses is the executor of service or persistent addresses: aliases by ifconfig, which a reboot takes away. (An alias that
// chdev sets would come back before the cluster does.) AIX announces an address by itself when it is configured.
type Addresses struct {
	kind executor.Kind
	sys  *System
}

var (
	_ executor.Executor  = (*Addresses)(nil)
	_ executor.Announcer = (*Addresses)(nil)
)

// ServiceIP makes the executor of service addresses.
func (s *System) ServiceIP() *Addresses { return &Addresses{executor.KindServiceIP, s} }

// PersistentIP makes the executor of persistent addresses.
func (s *System) PersistentIP() *Addresses { return &Addresses{executor.KindPersistentIP, s} }

// Kind is that of service or of persistent addresses.
func (x *Addresses) Kind() executor.Kind { return x.kind }

// Validate checks that this node has an interface for the address.
func (x *Addresses) Validate(ctx context.Context, r executor.Resource) error {
	if err := x.sys.need("ifconfig", "entstat", "arp"); err != nil {
		return err
	}
	w, err := r.IP.Wanted()
	if err != nil {
		return err
	}
	all, err := x.interfaces(ctx, r)
	if err != nil {
		return err
	}
	_, err = candidates(all, r.IP, w)
	return err
}

func (x *Addresses) interfaces(ctx context.Context, r executor.Resource) ([]*netif, error) {
	o := x.sys.ask(ctx, r, "ifconfig", "-a")
	if o.Err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", failed(o))
	}
	return parseIfconfig(o.Output)
}

// look fills in the interface's link. What entstat cannot say is unknown, and counts as up.
func (x *Addresses) look(ctx context.Context, r executor.Resource, i *netif) {
	if o := x.sys.ask(ctx, r, "entstat", "-d", i.name); o.Err == nil {
		i.link = parseEntstat(o.Output)
	}
}

func (i *netif) carries(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range i.addresses {
		if p.Addr() == a {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// candidates lists the interfaces on the address's network, the one with the node's own address first.
func candidates(all []*netif, a *executor.Address, w executor.WantedAddress) ([]*netif, error) {
	if a.Interface != "" {
		for _, i := range all {
			if i.name == a.Interface {
				return []*netif{i}, nil
			}
		}
		return nil, a.NoInterface(w)
	}
	var out []*netif
	var subnet netip.Prefix
	if len(a.Interfaces) > 0 {
		for _, name := range a.Interfaces {
			for _, i := range all {
				if i.name == name {
					out = append(out, i)
				}
			}
		}
		if len(out) == 0 {
			return nil, a.NoInterface(w)
		}
		return out, nil
	}
	for _, i := range all {
		for _, p := range i.addresses {
			own := w.Node.IsValid() && p.Addr() == w.Node
			if !w.Node.IsValid() {
				own = p.Addr() != w.Addr && p.Masked().Contains(w.Addr)
			}
			if own && len(out) == 0 {
				out, subnet = append(out, i), p.Masked()
			}
		}
	}
	if len(out) == 0 {
		return nil, a.NoInterface(w)
	}
	for _, i := range all {
		// The first address of an interface is its own: the aliases follow.
		if i != out[0] && len(i.addresses) > 0 && i.addresses[0].Masked() == subnet && i.addresses[0].Addr() != w.Addr {
			out = append(out, i)
		}
	}
	return out, nil
}

// choose picks the interface among the candidates that can be used, by the network's distribution preference.
func (x *Addresses) choose(ctx context.Context, r executor.Resource, all []*netif, w executor.WantedAddress) (*netif, int, error) {
	list, err := candidates(all, r.IP, w)
	if err != nil {
		return nil, 0, err
	}
	persistent, _ := netip.ParseAddr(r.IP.Persistent)
	var usable []*netif
	var places []cluster.Place
	var states []string
	for _, i := range list {
		x.look(ctx, r, i)
		states = append(states, i.name+" "+i.state())
		if !i.usable() {
			continue
		}
		if _, here := i.carries(w.Addr); here { // good enough where it is: it is not moved between equals
			return i, w.PrefixOn(i.addresses), nil
		}
		_, alsoPersistent := i.carries(persistent.Unmap())
		usable = append(usable, i)
		places = append(places, cluster.Place{Name: i.name, Services: len(i.addresses), Persistent: alsoPersistent})
	}
	at, _ := cluster.PlaceAddress(r.IP.Distribution, places)
	if at < 0 {
		return nil, 0, fmt.Errorf("no interface for address %s can be used: %s", w.Addr, strings.Join(states, ", "))
	}
	return usable[at], w.PrefixOn(usable[at].addresses), nil
}

func holders(all []*netif, a netip.Addr) []*netif {
	var out []*netif
	for _, i := range all {
		if _, ok := i.carries(a); ok {
			out = append(out, i)
		}
	}
	return out
}

// Probe looks for the address on all interfaces.
func (x *Addresses) Probe(ctx context.Context, r executor.Resource) executor.Result {
	res, _ := x.probe(ctx, r)
	return res
}

func (x *Addresses) probe(ctx context.Context, r executor.Resource) (executor.Result, []*netif) {
	w, err := r.IP.Wanted()
	if err == nil {
		err = x.sys.atWork(r)
	}
	if err != nil {
		return unknown(err), nil
	}
	all, err := x.interfaces(ctx, r)
	if err != nil {
		return unknown(err), nil
	}
	on := holders(all, w.Addr)
	switch {
	case len(on) == 0:
		return say(executor.Stopped, "address %s is on no interface", w.Addr), all
	case len(on) > 1:
		var names []string
		for _, i := range on {
			names = append(names, i.name)
		}
		return say(executor.Degraded, "address %s is on several interfaces at once: %s", w.Addr, strings.Join(names, ", ")), all
	}
	x.look(ctx, r, on[0])
	own, _ := on[0].carries(w.Addr)
	if !on[0].usable() {
		return say(executor.Degraded, "address %s is on %s, but that interface %s", w.Addr, on[0].name, on[0].state()), all
	}
	return say(executor.Running, "address %s is on %s", own, on[0].name), all
}

// Start puts the address on the right interface. An address that somebody else on the network answers for is not taken; one
// that sits on a wrong interface of this node is moved.
func (x *Addresses) Start(ctx context.Context, r executor.Resource) executor.Result {
	before, all := x.probe(ctx, r)
	if before.Status == executor.Unknown {
		return before
	}
	w, _ := r.IP.Wanted() // the probe has read it
	on, bits, err := x.choose(ctx, r, all, w)
	if err != nil {
		return because(before, err)
	}
	fail := func(err error) executor.Result { return because(x.Probe(ctx, r), err) }
	if before.Status == executor.Stopped {
		if err := x.checkFree(ctx, r, w.Addr); err != nil {
			return fail(err)
		}
	}
	placed := false
	for _, i := range holders(all, w.Addr) {
		own, _ := i.carries(w.Addr)
		if placed = i == on && own.Bits() == bits; placed {
			continue
		}
		x.sys.log.Info("the address is moved", "address", own.String(), "from", i.name, "to", on.name)
		if err := x.remove(ctx, r, i, w.Addr); err != nil {
			return fail(err)
		}
	}
	if !placed {
		if err := x.add(ctx, r, on, netip.PrefixFrom(w.Addr, bits)); err != nil {
			return fail(err)
		}
	}
	return x.finish(ctx, r, w)
}

// finish looks whether the address is where it was put, and not the first of its interface, whose address connections of the
// node itself come from.
func (x *Addresses) finish(ctx context.Context, r executor.Resource, w executor.WantedAddress) executor.Result {
	res, all := x.probe(ctx, r)
	if res.Status != executor.Running {
		return because(res, fmt.Errorf("address %s was set but is not well: %s", w.Addr, res.Detail))
	}
	for _, i := range holders(all, w.Addr) {
		first := slices.IndexFunc(i.addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == w.Addr.Is4() })
		if len(i.addresses) > 1 && first >= 0 && i.addresses[first].Addr() == w.Addr {
			x.sys.log.Warn("the service address stands first on its interface: connections of this node will come from it",
				"address", w.Addr.String(), "interface", i.name)
			res.Detail += "; it stands first there, so that connections of this node come from it"
		}
	}
	return res
}

func (x *Addresses) add(ctx context.Context, r executor.Resource, on *netif, p netip.Prefix) error {
	args := []string{on.name, "inet6", p.String(), "alias"}
	if p.Addr().Is4() {
		args = []string{on.name, "alias", p.Addr().String(), "netmask", netmask(p.Bits())}
	}
	if o := x.sys.do(ctx, r, "alias", "ifconfig", args...); o.Err != nil {
		return fmt.Errorf("put %s on %s: %w", p, on.name, failed(o))
	}
	return nil
}

// remove deletes the alias. The words stand in this order because the other one left a route behind (APAR IV21533).
func (x *Addresses) remove(ctx context.Context, r executor.Resource, i *netif, a netip.Addr) error {
	args := []string{i.name, "delete", a.String()}
	if a.Is6() {
		args = []string{i.name, "inet6", "delete", a.String()}
	}
	if o := x.sys.do(ctx, r, "delete", "ifconfig", args...); o.Err != nil {
		return fmt.Errorf("remove %s from %s: %w", a, i.name, failed(o))
	}
	return nil
}

// checkFree asks the network: what the system knows of the neighbour is forgotten (it may be the node that had the address
// before), it is made to look again, and then its table tells whether anybody answered.
func (x *Addresses) checkFree(ctx context.Context, r executor.Resource, a netip.Addr) error {
	if x.sys.o.ProbeWait < 0 {
		return nil
	}
	tool := "arp"
	if a.Is6() {
		tool = "ndp"
	}
	_ = x.sys.ask(ctx, r, tool, "-d", a.String()) // an entry that is not there cannot be deleted
	x.sys.o.Poke(a)
	if !sleep(ctx, x.sys.o.ProbeWait) {
		return fmt.Errorf("ask the network whether %s is free: %w", a, context.Cause(ctx))
	}
	o := x.sys.ask(ctx, r, tool, "-an")
	if o.Err != nil {
		return fmt.Errorf("ask the network whether %s is free: %w", a, failed(o))
	}
	if who, ok := parseARP(o.Output)[a]; ok {
		return fmt.Errorf("address %s is in use on the network: %s answers for it; it was not taken", a, who)
	}
	return nil
}

// Stop removes the address from all interfaces and sees that it is gone.
func (x *Addresses) Stop(ctx context.Context, r executor.Resource) executor.Result {
	before, all := x.probe(ctx, r)
	if before.Status == executor.Unknown || before.Status == executor.Stopped {
		return before
	}
	w, _ := r.IP.Wanted()
	var errs []error
	for _, i := range holders(all, w.Addr) {
		errs = append(errs, x.remove(ctx, r, i, w.Addr))
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Stopped {
		return because(res, errors.Join(append(errs, fmt.Errorf("address %s is still there: %s", w.Addr, res.Detail))...))
	}
	return res
}

// Announce configures the address once more where it is, which makes AIX announce it again.
func (x *Addresses) Announce(ctx context.Context, r executor.Resource) error {
	res, all := x.probe(ctx, r)
	if res.Status != executor.Running {
		return fmt.Errorf("announce the address: %s", res.Detail)
	}
	w, _ := r.IP.Wanted()
	on := holders(all, w.Addr)[0]
	own, _ := on.carries(w.Addr)
	return x.add(ctx, r, on, own)
}
