package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// resolve finds a node's address by its name, as PowerHA's COMMPATH does. The network is the default one: with more than one
// network the addresses have to be said.
func resolve(ctx context.Context, node string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", node)
	if err != nil {
		return nil, fail(ExitMissing, "no address is given for node %s, and its name cannot be resolved here (%w): give ADDRESSES=%s:network:address/prefix",
			node, err, node)
	}
	for _, a := range list {
		if a = a.Unmap(); usable(a) {
			return map[string]string{defaultNetwork: a.String()}, nil
		}
	}
	return nil, fail(ExitMissing, "no address is given for node %s, and its name leads only to this machine itself: give ADDRESSES=%s:network:address/prefix",
		node, node)
}

// addressByName completes an address that is added without one: PowerHA's service labels are names that /etc/hosts knows. It is resolved
// once, here and now, and the definition holds the address. The sentence says why there is none.
func (s *session) addressByName(ctx context.Context, t *target) string {
	if t.class.Name != "service_ip" && t.class.Name != "persistent_ip" {
		return ""
	}
	for _, a := range s.set {
		if c := t.class.Attribute(a.Attribute); c != nil && c.Name == "ADDRESS" {
			return ""
		}
	}
	if _, err := netip.ParseAddr(t.name()); err == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := s.env.lookup(ctx, "ip", t.name())
	if err != nil {
		return fmt.Sprintf("; its name cannot be resolved here (%v)", err)
	}
	for _, a := range list {
		if a = a.Unmap(); usable(a) {
			s.set = append(s.set, cluster.Assignment{Attribute: "ADDRESS", Value: a.String()})
			return ""
		}
	}
	return "; its name leads only to this machine itself"
}

func usable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLoopback()
}
