package cli

import (
	"context"
	"net"
	"net/netip"
	"time"
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

func usable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLoopback()
}
