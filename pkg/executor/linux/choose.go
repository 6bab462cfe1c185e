package linux

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A netInterface is a snapshot of one network interface.
type netInterface struct {
	index     int
	name      string
	mac       net.HardwareAddr
	up        bool // administratively
	carrier   bool
	broadcast bool // an Ethernet-like interface on which neighbours are found by broadcast
	addresses []ifAddress
}

type ifAddress struct {
	prefix    netip.Prefix // the address with its prefix length
	secondary bool
}

func (i *netInterface) usable() bool { return i.up && i.carrier }

func (i *netInterface) state() string {
	switch {
	case !i.up:
		return "is down"
	case !i.carrier:
		return "has no carrier"
	}
	return "is up"
}

// carries finds the address on the interface.
func (i *netInterface) carries(a netip.Addr) (ifAddress, bool) {
	for _, own := range i.addresses {
		if own.prefix.Addr() == a {
			return own, true
		}
	}
	return ifAddress{}, false
}

// prefixes lists the interface's addresses in the order in which the system has them.
func (i *netInterface) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, a := range i.addresses {
		out = append(out, a.prefix)
	}
	return out
}

// aliases counts the addresses beyond the first of each subnet, the wanted one left out: how much the interface carries
// already.
func (i *netInterface) aliases(without netip.Addr) int {
	seen, n := map[netip.Prefix]bool{}, 0
	for _, own := range i.addresses {
		a := own.prefix.Addr()
		if a == without || a.IsLinkLocalUnicast() {
			continue
		}
		if subnet := own.prefix.Masked(); seen[subnet] {
			n++
		} else {
			seen[subnet] = true
		}
	}
	return n
}

// A choice is where an address goes, and why.
type choice struct {
	on     *netInterface
	prefix int
	why    string // a clause: "eth0 carries ..."
	// also lists the interfaces that would do as well; the address is left on one of them if it is there already.
	also []*netInterface
}

// choose finds the interface for the address among those of this machine.
func choose(all []*netInterface, a *executor.Address) (choice, error) {
	w, err := a.Wanted()
	if err != nil {
		return choice{}, err
	}
	candidates, why, err := candidatesFor(all, a, w)
	if err != nil {
		return choice{}, err
	}
	var usable, doubtful []*netInterface
	var states []string
	for _, c := range candidates {
		switch failed := slices.Contains(a.Failed, c.name); {
		case c.usable() && failed:
			doubtful = append(doubtful, c)
		case c.usable():
			usable = append(usable, c)
		}
		states = append(states, c.name+" "+c.state())
	}
	if len(usable) == 0 {
		usable = doubtful // it has a link and hears nothing: better than nowhere
	}
	if len(usable) == 0 {
		return choice{on: candidates[0], prefix: w.PrefixOn(candidates[0].prefixes())},
			fmt.Errorf("no interface for address %s can be used: %s", a.Address, strings.Join(states, ", "))
	}
	c := choice{on: usable[0], why: why, also: usable}
	if len(candidates) > 1 {
		c.on, c.why = distribute(usable, a, w.Addr)
	}
	c.prefix = w.PrefixOn(c.on.prefixes())
	return c, nil
}

// candidatesFor lists the interfaces on the address's network, the one with the node's own address first.
func candidatesFor(all []*netInterface, a *executor.Address, w executor.WantedAddress) ([]*netInterface, string, error) {
	if a.Interface != "" {
		for _, i := range all {
			if i.name == a.Interface {
				return []*netInterface{i}, i.name + " is set by the definition", nil
			}
		}
		return nil, "", a.NoInterface(w)
	}
	if len(a.Interfaces) > 0 {
		return named(all, a)
	}
	if !w.Node.IsValid() {
		for _, i := range all {
			for _, own := range i.addresses {
				if own.prefix.Addr() != w.Addr && own.prefix.Masked().Contains(w.Addr) {
					return []*netInterface{i}, fmt.Sprintf("%s has an address in %s", i.name, own.prefix.Masked()), nil
				}
			}
		}
		return nil, "", a.NoInterface(w)
	}
	var out []*netInterface
	var subnet netip.Prefix
	for _, i := range all {
		if own, ok := i.carries(w.Node); ok {
			out, subnet = append(out, i), own.prefix.Masked()
			break
		}
	}
	if len(out) == 0 {
		return nil, "", a.NoInterface(w)
	}
	for _, i := range all {
		if i != out[0] && i.broadcast && hasOwnIn(i, subnet, w.Addr) {
			out = append(out, i)
		}
	}
	return out, fmt.Sprintf("%s carries the node's address %s on network %s", out[0].name, w.Node, a.Network), nil
}

// hasOwnIn reports whether the interface has an address of its own in the subnet: one that is not an alias.
func hasOwnIn(i *netInterface, subnet netip.Prefix, without netip.Addr) bool {
	if subnet.IsSingleIP() {
		return false
	}
	for _, own := range i.addresses {
		if own.prefix.Masked() == subnet && own.prefix.Addr() != without && !own.secondary {
			return true
		}
	}
	return false
}

// named lists the interfaces that the definition names for the network. One that is missing is no obstacle while another is there.
func named(all []*netInterface, a *executor.Address) ([]*netInterface, string, error) {
	var out []*netInterface
	for _, name := range a.Interfaces {
		for _, i := range all {
			if i.name == name {
				out = append(out, i)
			}
		}
	}
	if len(out) == 0 {
		return nil, "", a.NoInterface(executor.WantedAddress{})
	}
	return out, fmt.Sprintf("%s is the node's only interface on network %s", out[0].name, a.Network), nil
}

// distribute applies the network's distribution preference.
func distribute(usable []*netInterface, a *executor.Address, addr netip.Addr) (*netInterface, string) {
	persistent, _ := netip.ParseAddr(a.Persistent)
	var places []cluster.Place
	for _, i := range usable {
		p := cluster.Place{Name: i.name, Services: i.services(a.Services, addr)}
		_, p.Persistent = i.carries(persistent.Unmap())
		places = append(places, p)
	}
	best, why := cluster.PlaceAddress(a.Distribution, places)
	return usable[best], why
}

// services counts the service addresses on the interface, the wanted one left out: those of a list, or, when the caller gives
// none, all that look like aliases.
func (i *netInterface) services(list []string, without netip.Addr) int {
	if len(list) == 0 {
		return i.aliases(without)
	}
	n := 0
	for _, text := range list {
		if a, err := netip.ParseAddr(text); err == nil && a.Unmap() != without {
			if _, here := i.carries(a.Unmap()); here {
				n++
			}
		}
	}
	return n
}
