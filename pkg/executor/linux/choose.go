package linux

import (
	"errors"
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

// A wanted address is an executor.Address whose texts have been read.
type wanted struct {
	addr   netip.Addr
	prefix int        // 0: to be found
	node   netip.Addr // the node's own address on the network; invalid: not given
}

func parseWanted(a *executor.Address) (wanted, error) {
	if a == nil {
		return wanted{}, errors.New("the resource has no address: this is a fault of the caller")
	}
	var w wanted
	var err error
	if w.addr, err = netip.ParseAddr(a.Address); err != nil {
		return w, fmt.Errorf("address %q of %s is not an IP address: %w", a.Address, a.Label, err)
	}
	w.addr = w.addr.Unmap()
	if !w.addr.IsGlobalUnicast() || w.addr.Zone() != "" {
		return w, fmt.Errorf("address %s of %s cannot be a service address: a unicast address that is neither loopback nor "+
			"link-local is wanted", a.Address, a.Label)
	}
	if w.prefix = a.Prefix; w.prefix < 0 || w.prefix > w.addr.BitLen() {
		return w, fmt.Errorf("prefix length %d of %s is not between 1 and %d", a.Prefix, a.Label, w.addr.BitLen())
	}
	if a.NodeAddress == "" {
		return w, nil
	}
	text, _, _ := strings.Cut(a.NodeAddress, "/")
	if w.node, err = netip.ParseAddr(text); err != nil {
		return w, fmt.Errorf("this node's address %q on network %s is not an IP address: %w", a.NodeAddress, a.Network, err)
	}
	w.node = w.node.Unmap()
	return w, nil
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
	w, err := parseWanted(a)
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
		return choice{on: candidates[0], prefix: prefixOn(candidates[0], w)},
			fmt.Errorf("no interface for address %s can be used: %s", a.Address, strings.Join(states, ", "))
	}
	c := choice{on: usable[0], why: why, also: usable}
	if len(candidates) > 1 {
		c.on, c.why = distribute(usable, a, w.addr)
	}
	c.prefix = prefixOn(c.on, w)
	return c, nil
}

// candidatesFor lists the interfaces on the address's network, the one with the node's own address first.
func candidatesFor(all []*netInterface, a *executor.Address, w wanted) ([]*netInterface, string, error) {
	if a.Interface != "" {
		for _, i := range all {
			if i.name == a.Interface {
				return []*netInterface{i}, i.name + " is set by the definition", nil
			}
		}
		return nil, "", fmt.Errorf("interface %s, which the definition sets for %s, does not exist on this node", a.Interface, a.Label)
	}
	if len(a.Interfaces) > 0 {
		return named(all, a)
	}
	if !w.node.IsValid() {
		for _, i := range all {
			for _, own := range i.addresses {
				if own.prefix.Addr() != w.addr && own.prefix.Masked().Contains(w.addr) {
					return []*netInterface{i}, fmt.Sprintf("%s has an address in %s", i.name, own.prefix.Masked()), nil
				}
			}
		}
		return nil, "", fmt.Errorf("no interface of this node has an address in the subnet of %s", a.Address)
	}
	var out []*netInterface
	var subnet netip.Prefix
	for _, i := range all {
		if own, ok := i.carries(w.node); ok {
			out, subnet = append(out, i), own.prefix.Masked()
			break
		}
	}
	if len(out) == 0 {
		return nil, "", fmt.Errorf("no interface of this node carries %s, its address on network %s; see that the interface is "+
			"configured, or correct the node's address in the definition", w.node, a.Network)
	}
	for _, i := range all {
		if i != out[0] && i.broadcast && hasOwnIn(i, subnet, w.addr) {
			out = append(out, i)
		}
	}
	return out, fmt.Sprintf("%s carries the node's address %s on network %s", out[0].name, w.node, a.Network), nil
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
		return nil, "", fmt.Errorf("of this node's interfaces on network %s (%s) none exists; see that they are configured, or correct the "+
			"node's interfaces in the definition", a.Network, strings.Join(a.Interfaces, ", "))
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

// prefixOn is the prefix length the address gets on the interface.
func prefixOn(i *netInterface, w wanted) int {
	if w.prefix != 0 {
		return w.prefix
	}
	if own, ok := i.carries(w.node); ok && w.node.Is4() == w.addr.Is4() {
		return own.prefix.Bits()
	}
	for _, own := range i.addresses {
		if own.prefix.Addr() != w.addr && own.prefix.Masked().Contains(w.addr) {
			return own.prefix.Bits()
		}
	}
	return w.addr.BitLen()
}
