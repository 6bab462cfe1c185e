package verify

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var systemChecks = []Check{
	{ID: "V0501", Severity: api.SeverityWarning, Title: "all nodes run one version", run: checkVersions,
		Why: "two versions together are for the time of an upgrade only", Fix: "finish the upgrade of the nodes that are behind"},
	{ID: "V0502", Severity: api.SeverityWarning, Title: "all nodes understand the newest format", run: checkFormats,
		Why: "what needs the newer format (staged changes, waivers, methods) is refused until all nodes understand it", Fix: "upgrade the nodes that are behind"},
	{ID: "V0503", Severity: api.SeverityWarning, Title: "all nodes have one system", run: checkSystems,
		Why: "applications may behave differently after a failover", Fix: "bring the nodes to one level of the operating system"},
	{ID: "V0504", Severity: api.SeverityWarning, Title: "nodes are of similar size", run: checkSizes,
		Why: "an application that fills a large node may not run on a small one", Fix: "enlarge the node, or set CAPACITY and WEIGHT so that it takes less"},
	{ID: "V0505", Severity: api.SeverityError, Title: "the daemon runs as root", run: checkRoot,
		Why: "it can neither configure addresses nor mount", Fix: "start it by its service unit"},
}

var addressChecks = []Check{
	{ID: "V0601", Severity: api.SeverityWarning, Title: "labels resolve to their addresses", run: checkLabels, Needs: []string{"names"},
		Why: "applications and scripts that use the name reach something else", Fix: "correct /etc/hosts or DNS"},
	{ID: "V0602", Severity: api.SeverityInfo, Title: "labels resolve on every node", run: checkLabelsKnown, Needs: []string{"names"},
		Why: "applications and scripts that use the name do not find it; the cluster itself uses addresses", Fix: "add the label to /etc/hosts of the node"},
	{ID: "V0603", Severity: api.SeverityError, Title: "a service IP is nobody's own address", run: checkOwnService,
		Why: "the address would be taken from a node, or stay when the group leaves", Fix: "give the service IP an address of its own"},
	{ID: "V0604", Severity: api.SeverityError, Title: "one MTU on a network", run: checkMTU, Needs: []string{"interfaces"},
		Why: "large packets are lost between such nodes although small ones, as heartbeats and pings, pass", Fix: "set the same MTU on all nodes and on the switch"},
	{ID: "V0605", Severity: api.SeverityError, Title: "the interface that is demanded exists", run: checkForcedInterface, Needs: []string{"interfaces"},
		Why: "the service IP cannot be acquired there", Fix: "correct INTERFACE= of the service IP, or name the interface alike on all nodes"},
	{ID: "V0606", Severity: api.SeverityError, Title: "IPv6 is on where it is needed", run: checkIPv6, Needs: []string{"settings"},
		Why: "the address cannot be configured", Fix: "set net.ipv6.conf.all.disable_ipv6=0"},
	{ID: "V0607", Severity: api.SeverityWarning, Title: "all nodes have one prefix length on a network", run: checkOnePrefix, Needs: []string{"interfaces"},
		Why: "nodes disagree about who is a neighbour", Fix: "correct the interfaces"},
	{ID: "V0608", Severity: api.SeverityWarning, Title: "networks are apart", run: checkOverlap,
		Why: "two networks of one subnet share a path, so that the loss of one interface is the loss of both", Fix: "give each network a subnet and a switch of its own"},
	{ID: "V0609", Severity: api.SeverityError, Title: "each address is on one node", run: checkDuplicateOwn, Needs: []string{"interfaces"},
		Why: "traffic for the node goes to the other one at times", Fix: "correct the interface that has the wrong address"},
	{ID: "V0701", Severity: api.SeverityError, Title: "no host name is a service label", run: checkHostIsLabel,
		Why: "what is meant for the service goes to a node, wherever the group is", Fix: "rename the host or the label"},
	{ID: "V0702", Severity: api.SeverityWarning, Title: "the node's name resolves to an address of the node", run: checkHostResolves, Needs: []string{"names"},
		Why: "applications that bind to the host's name listen only on the loopback, or elsewhere", Fix: "let /etc/hosts name an address that the node has"},
	{ID: "V0703", Severity: api.SeverityWarning, Title: "host names differ", run: checkHostNames,
		Why: "logs and applications take two nodes for one", Fix: "give each machine a host name of its own"},
}

func checkVersions(in *Input, h *hits) {
	differ(in, h, "node %s runs %s, most nodes run %s", func(f *Facts) string { return f.Version })
}

// differ reports the nodes whose value is not that of most of them. Values that are empty are not known.
func differ(in *Input, h *hits, format string, value func(*Facts) string) {
	count := map[string]int{}
	most := ""
	for _, n := range in.nodeNames() {
		v := value(in.Nodes[n])
		if v == "" {
			continue
		}
		if count[v]++; most == "" || count[v] > count[most] {
			most = v
		}
	}
	if len(count) < 2 {
		return
	}
	for _, n := range in.nodeNames() {
		if v := value(in.Nodes[n]); v != "" && v != most {
			h.add(n, "node "+n, format, n, v, most)
		}
	}
}

func checkFormats(in *Input, h *hits) {
	newest := 0
	for _, n := range in.nodeNames() {
		newest = max(newest, in.Nodes[n].Format)
	}
	for _, n := range in.nodeNames() {
		if f := in.Nodes[n].Format; f < newest {
			h.add(n, "node "+n, "its daemon understands format %d, others %d", f, newest)
		}
	}
}

func checkSystems(in *Input, h *hits) {
	differ(in, h, "node %s runs %s, most nodes run %s", func(f *Facts) string { return f.System.OS + " " + f.System.Arch + " " + f.System.Kernel })
}

func checkSizes(in *Input, h *hits) {
	most := int64(0)
	for _, n := range in.nodeNames() {
		most = max(most, in.Nodes[n].System.MemoryMiB)
	}
	for _, n := range in.nodeNames() {
		if m := in.Nodes[n].System.MemoryMiB; m > 0 && m*2 < most {
			h.add(n, "node "+n, "it has %d MiB of memory, another node has %d", m, most)
		}
	}
}

func checkRoot(in *Input, h *hits) {
	for _, n := range in.nodeNames() {
		if f := in.Nodes[n]; f.System.UID != 0 {
			h.add(n, "node "+n, "it runs as user %d", f.System.UID)
		}
	}
}

func checkLabels(in *Input, h *hits) {
	in.each([]string{"names"}, func(n *cluster.Node, f *Facts) {
		in.eachLabel(func(object, label string, a netip.Addr) {
			name, asked := f.Names[label]
			if asked && len(name.Addresses) > 0 && !slices.Contains(name.Addresses, a.String()) {
				h.add(n.Name, object, "%s resolves to %s, its address is %s", label, strings.Join(name.Addresses, ", "), a)
			}
		})
	})
}

func (in *Input) eachLabel(f func(object, label string, a netip.Addr)) {
	in.eachService(func(s *cluster.ServiceIP, a netip.Addr) { f("service_ip "+s.Name, s.Name, a) })
	for _, p := range in.Definition.PersistentIPs {
		if a, err := netip.ParseAddr(p.Address); err == nil {
			f("persistent_ip "+p.Name, p.Name, a)
		}
	}
}

func checkLabelsKnown(in *Input, h *hits) {
	in.each([]string{"names"}, func(n *cluster.Node, f *Facts) {
		in.eachLabel(func(object, label string, _ netip.Addr) {
			if name, asked := f.Names[label]; asked && len(name.Addresses) == 0 {
				h.add(n.Name, object, "%s does not resolve: %s", label, name.Error)
			}
		})
	})
}

func checkOwnService(in *Input, h *hits) {
	in.eachService(func(s *cluster.ServiceIP, a netip.Addr) {
		for i := range in.Definition.Nodes {
			n := &in.Definition.Nodes[i]
			for _, w := range in.Definition.Networks {
				if own, _, ok := address(n, w.Name); ok && own == a {
					h.add(n.Name, "service_ip "+s.Name, "%s is the node's own address on %s", a, w.Name)
				}
			}
		}
	})
}

func checkMTU(in *Input, h *hits) {
	type seen struct {
		node string
		mtu  int
	}
	first := map[string]seen{}
	in.eachLink([]string{"interfaces"}, func(n *cluster.Node, w *cluster.Network, i *Interface, _ int, _ *Facts) {
		if s, ok := first[w.Name]; !ok {
			first[w.Name] = seen{n.Name, i.MTU}
		} else if s.mtu != i.MTU {
			h.add(n.Name, "network "+w.Name, "the MTU of %s is %d, on node %s it is %d", i.Name, i.MTU, s.node, s.mtu)
		}
	})
}

func checkForcedInterface(in *Input, h *hits) {
	in.each([]string{"interfaces"}, func(n *cluster.Node, f *Facts) {
		in.eachService(func(s *cluster.ServiceIP, _ netip.Addr) {
			g := in.groupWith(s.Name, func(g *cluster.ResourceGroup) []string { return g.ServiceIPs })
			if s.Interface == "" || g == nil || !g.Has(n.Name) {
				return
			}
			if !slices.ContainsFunc(f.Interfaces, func(i Interface) bool { return i.Name == s.Interface }) {
				h.add(n.Name, "service_ip "+s.Name, "the node has no interface %s", s.Interface)
			}
		})
	})
}

func checkIPv6(in *Input, h *hits) {
	in.each([]string{"settings"}, func(n *cluster.Node, f *Facts) {
		if f.Settings["net.ipv6.conf.all.disable_ipv6"] != "1" {
			return
		}
		in.eachService(func(s *cluster.ServiceIP, a netip.Addr) {
			g := in.groupWith(s.Name, func(g *cluster.ResourceGroup) []string { return g.ServiceIPs })
			if a.Is6() && g != nil && g.Has(n.Name) {
				h.add(n.Name, "service_ip "+s.Name, "%s is an IPv6 address, and IPv6 is switched off on the node", a)
			}
		})
	})
}

func checkOnePrefix(in *Input, h *hits) {
	type seen struct {
		node string
		bits int
	}
	first := map[string]seen{}
	in.eachLink([]string{"interfaces"}, func(n *cluster.Node, w *cluster.Network, i *Interface, bits int, _ *Facts) {
		if s, ok := first[w.Name]; !ok {
			first[w.Name] = seen{n.Name, bits}
		} else if s.bits != bits {
			h.add(n.Name, "network "+w.Name, "%s has the prefix length %d, node %s has %d", i.Name, bits, s.node, s.bits)
		}
	})
}

func checkOverlap(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.Nodes {
		n := &in.Definition.Nodes[i]
		var seen []struct {
			network string
			subnet  netip.Prefix
		}
		for _, w := range in.Definition.Networks {
			a, bits, ok := address(n, w.Name)
			if !ok || bits == 0 {
				continue
			}
			p := netip.PrefixFrom(a, bits).Masked()
			for _, s := range seen {
				if s.subnet.Overlaps(p) {
					h.add(n.Name, "network "+w.Name, "%s lies in the subnet of network %s (%s)", a, s.network, s.subnet)
				}
			}
			seen = append(seen, struct {
				network string
				subnet  netip.Prefix
			}{w.Name, p})
		}
	}
}

func checkDuplicateOwn(in *Input, h *hits) {
	in.each([]string{"interfaces"}, func(n *cluster.Node, _ *Facts) {
		for _, w := range in.Definition.Networks {
			a, _, ok := address(n, w.Name)
			if !ok {
				continue
			}
			for _, other := range in.holdersOf(a) {
				if other != n.Name {
					h.add(other, "network "+w.Name, "it has %s, which is node %s's", a, n.Name)
				}
			}
		}
	})
}

func checkHostIsLabel(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		short, _, _ := strings.Cut(f.System.Hostname, ".")
		in.eachService(func(s *cluster.ServiceIP, _ netip.Addr) {
			if strings.EqualFold(s.Name, f.System.Hostname) || strings.EqualFold(s.Name, short) {
				h.add(n.Name, "service_ip "+s.Name, "the node's host name is %s", f.System.Hostname)
			}
		})
	})
}

func checkHostResolves(in *Input, h *hits) {
	in.each([]string{"names", "interfaces"}, func(n *cluster.Node, f *Facts) {
		name, asked := f.Names[f.System.Hostname]
		if !asked {
			return
		}
		if len(name.Addresses) == 0 {
			h.add(n.Name, "node "+n.Name, "its host name %s does not resolve: %s", f.System.Hostname, name.Error)
			return
		}
		for _, text := range name.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil || a.IsLoopback() {
				continue
			}
			if i, _ := f.carrier(a); i != nil {
				return
			}
		}
		h.add(n.Name, "node "+n.Name, "its host name %s resolves to %s, none of which is an address of the node for others", f.System.Hostname, strings.Join(name.Addresses, ", "))
	})
}

func checkHostNames(in *Input, h *hits) {
	seen := map[string]string{}
	in.each(nil, func(n *cluster.Node, f *Facts) {
		k := strings.ToLower(f.System.Hostname)
		if other, ok := seen[k]; ok && k != "" {
			h.add(n.Name, "node "+n.Name, "its host name %s is that of node %s too", f.System.Hostname, other)
			return
		}
		seen[k] = n.Name
	})
}
