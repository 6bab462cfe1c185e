package executor

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// An Address is a service or persistent IP, resolved for this node.
type Address struct {
	Label   string
	Address string // without prefix length
	Prefix  int    // 0: that of the interface's own address on the network
	Network string
	// NodeAddress is this node's own address on the network (CIDR or plain); the interface that carries it is a candidate.
	NodeAddress  string
	Interface    string // forced interface; empty: chosen
	Distribution string // RESOURCE_DIST_PREF of the network, empty: AC
	// Interfaces are the node's interfaces on the network, the preferred one first; empty: found by their addresses.
	Interfaces []string
	// Failed are those that a monitor has found failed. An address is put on one of them only when there is no other.
	Failed []string
	// Services are the cluster's other service IPs, and Persistent this node's persistent IP of the network, if it has one: by
	// them the distribution preference chooses.
	Services   []string
	Persistent string
}

// A WantedAddress is an Address whose texts have been read.
type WantedAddress struct {
	Addr   netip.Addr
	Prefix int        // 0: to be found
	Node   netip.Addr // the node's own address on the network; invalid: not given
}

// Wanted reads the texts. The error says what is wrong with the definition.
func (a *Address) Wanted() (WantedAddress, error) {
	if a == nil {
		return WantedAddress{}, errors.New("the resource has no address: this is a fault of the caller")
	}
	var w WantedAddress
	var err error
	if w.Addr, err = netip.ParseAddr(a.Address); err != nil {
		return w, fmt.Errorf("address %q of %s is not an IP address: %w", a.Address, a.Label, err)
	}
	w.Addr = w.Addr.Unmap()
	if !w.Addr.IsGlobalUnicast() || w.Addr.Zone() != "" {
		return w, fmt.Errorf("address %s of %s cannot be a service address: a unicast address that is neither loopback nor "+
			"link-local is wanted", a.Address, a.Label)
	}
	if w.Prefix = a.Prefix; w.Prefix < 0 || w.Prefix > w.Addr.BitLen() {
		return w, fmt.Errorf("prefix length %d of %s is not between 1 and %d", a.Prefix, a.Label, w.Addr.BitLen())
	}
	if a.NodeAddress == "" {
		return w, nil
	}
	text, _, _ := strings.Cut(a.NodeAddress, "/")
	if w.Node, err = netip.ParseAddr(text); err != nil {
		return w, fmt.Errorf("this node's address %q on network %s is not an IP address: %w", a.NodeAddress, a.Network, err)
	}
	w.Node = w.Node.Unmap()
	return w, nil
}

// PrefixOn is the prefix length that the address gets on an interface with these addresses: the one that the definition says, that of
// the node's own address, that of any address in whose subnet it lies, or that of a single host.
func (w WantedAddress) PrefixOn(own []netip.Prefix) int {
	if w.Prefix != 0 {
		return w.Prefix
	}
	for _, p := range own {
		if p.Addr() == w.Node && w.Node.Is4() == w.Addr.Is4() {
			return p.Bits()
		}
	}
	for _, p := range own {
		if p.Addr() != w.Addr && p.Masked().Contains(w.Addr) {
			return p.Bits()
		}
	}
	return w.Addr.BitLen()
}

// NoInterface says why the address has no interface on this node: the one that the definition sets does not exist, nor do those of the
// node on the network, none carries the node's own address, or none has an address in the subnet.
func (a *Address) NoInterface(w WantedAddress) error {
	switch {
	case a.Interface != "":
		return fmt.Errorf("interface %s, which the definition sets for %s, does not exist on this node", a.Interface, a.Label)
	case len(a.Interfaces) > 0:
		return fmt.Errorf("of this node's interfaces on network %s (%s) none exists; see that they are configured, or correct the "+
			"node's interfaces in the definition", a.Network, strings.Join(a.Interfaces, ", "))
	case w.Node.IsValid():
		return fmt.Errorf("no interface of this node carries %s, its address on network %s; see that the interface is "+
			"configured, or correct the node's address in the definition", w.Node, a.Network)
	}
	return fmt.Errorf("no interface of this node has an address in the subnet of %s", a.Address)
}
