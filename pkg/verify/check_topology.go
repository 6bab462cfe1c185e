package verify

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// checkTable is the one table, in the order of the numbers. Numbers are never given twice, also not after a check is gone.
var checkTable = slices.Concat(definitionChecks, topologyChecks, storageChecks, systemChecks, addressChecks, scriptChecks, policyChecks,
	serviceChecks, safetyChecks, securityChecks, capacityChecks, stateChecks)

var definitionChecks = []Check{
	{ID: "V0101", Severity: api.SeverityError, Title: "the definition is valid", run: checkValid,
		Why: "an invalid definition cannot be made active", Fix: "correct the place that is named"},
	{ID: "V0102", Severity: api.SeverityWarning, Title: "no name is a word of the commands", run: checkReserved,
		Why: "clmgr and scripts take such a word for something else", Fix: "rename the object (clmgr modify CLASS NAME NAME=new)"},
	{ID: "V0103", Severity: api.SeverityWarning, Title: "no two names differ only in case", run: checkCase,
		Why: "people and host files take them for one", Fix: "rename one of them"},
}

var topologyChecks = []Check{
	{ID: "V0201", Severity: api.SeverityError, Title: "every node answers", run: checkSilent,
		Why: "nothing is known of a node that does not answer: it could take over nothing", Fix: "start the node's daemon, or look at its networks; what it would have been asked is not verified"},
	{ID: "V0202", Severity: api.SeverityError, Title: "every node has its own addresses", run: checkOwnAddresses, Needs: []string{"interfaces"},
		Why: "a service IP finds its interface by the node's own address, and other nodes look for the node there", Fix: "configure the address on the node, or correct the definition (clmgr modify node NODE ADDRESS=...)"},
	{ID: "V0203", Severity: api.SeverityError, Title: "interfaces of cluster networks are up", run: checkLinks, Needs: []string{"interfaces"},
		Why: "with no other interface there the network is lost on this node, and groups with addresses on it cannot run here; else one failure more is survived no longer", Fix: "look at the cable, the switch port, and the interface's configuration"},
	{ID: "V0204", Severity: api.SeverityInfo, Title: "each network has a second interface on the node", run: checkSingleInterface, Needs: []string{"interfaces"},
		Why: "one interface is a single point of failure: its loss moves the groups to another node", Fix: "bond two interfaces, or give the network a second one"},
	{ID: "V0205", Severity: api.SeverityError, Title: "nodes reach each other on every network", run: checkReach, Needs: []string{"reachability"},
		Why: "a path that does not work now will not carry heartbeats when the other one fails", Fix: "look at routes, switches, and at what filters packets between the two (TCP and UDP of the ports in node.yaml)"},
	{ID: "V0206", Severity: api.SeverityWarning, Title: "a node's prefix lengths are those of the definition", run: checkPrefixes, Needs: []string{"interfaces"},
		Why: "hosts with different prefixes disagree about who is a neighbour", Fix: "correct the interface or the definition"},
	{ID: "V0301", Severity: api.SeverityError, Title: "all nodes have the same definition", run: checkSameDefinition,
		Why: "a node that is behind acts on an older definition until it has caught up", Fix: "wait and verify again; if it stays so, look at that node's log"},
	{ID: "V0302", Severity: api.SeverityError, Title: "no service IP is on two nodes", run: checkDoubleAddress, Needs: []string{"interfaces"},
		Why: "clients reach now the one, now the other", Fix: "find out who configured the address by hand, and remove it on the node that does not hold the group"},
	{ID: "V0303", Severity: api.SeverityError, Title: "service IPs are where their groups are", run: checkStrayAddress, Needs: []string{"interfaces"},
		Why: "an address outside the cluster's care is not moved, and collides when its group starts elsewhere", Fix: "remove the address there (ip address del), and from the system's network configuration"},
	{ID: "V0304", Severity: api.SeverityError, Title: "file systems are mounted only where their groups are", run: checkStrayMount, Needs: []string{"mounts"},
		Why: "two nodes that write one file system destroy it", Fix: "unmount it there, and find out what mounted it"},
}

func checkValid(in *Input, h *hits) {
	for _, f := range in.Faults {
		h.add("", strings.TrimSpace(f.Key), "%s", f.String())
	}
}

var reserved = strings.Fields("all any auto both cluster default false home local manual never next no node none now off on online offline true yes")

func (in *Input) eachName(f func(class, name string)) {
	if in.Definition == nil {
		return
	}
	for _, c := range cluster.Classes() {
		if c.Derived {
			continue
		}
		for _, n := range c.Names(in.Definition) {
			f(c.Name, n)
		}
	}
}

func checkReserved(in *Input, h *hits) {
	in.eachName(func(class, name string) {
		if slices.Contains(reserved, strings.ToLower(name)) {
			h.add("", class+" "+name, "the name %q is a word of the commands", name)
		}
	})
}

func checkCase(in *Input, h *hits) {
	seen := map[string]string{}
	in.eachName(func(class, name string) {
		key := class + " " + strings.ToLower(name)
		if other, ok := seen[key]; ok && other != name {
			h.add("", class+" "+name, "there is %s %s too", class, other)
			return
		}
		seen[key] = name
	})
}

func checkSilent(in *Input, h *hits) {
	for _, n := range slices.Sorted(maps.Keys(in.Silent)) {
		h.add(n, "node "+n, "it did not answer: %s", in.Silent[n])
	}
}

// each calls f for every node of the definition that answered and could look at what is needed.
func (in *Input) each(needs []string, f func(n *cluster.Node, facts *Facts)) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.Nodes {
		n := &in.Definition.Nodes[i]
		facts := in.Nodes[n.Name]
		if facts == nil || slices.ContainsFunc(needs, func(k string) bool { _, missed := facts.Missed[k]; return missed }) {
			continue
		}
		f(n, facts)
	}
}

// address is a node's own address on a network, without and with its prefix length (0: not given).
func address(n *cluster.Node, network string) (netip.Addr, int, bool) {
	text, ok := n.Addresses[network]
	if !ok {
		return netip.Addr{}, 0, false
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr(), p.Bits(), true
	}
	a, err := netip.ParseAddr(text)
	return a, 0, err == nil
}

// carrier is the interface that carries an address, and the prefix length there.
func (f *Facts) carrier(a netip.Addr) (*Interface, int) {
	for i := range f.Interfaces {
		for _, text := range f.Interfaces[i].Addresses {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr() == a {
				return &f.Interfaces[i], p.Bits()
			}
		}
	}
	return nil, 0
}

func checkOwnAddresses(in *Input, h *hits) {
	in.each([]string{"interfaces"}, func(n *cluster.Node, f *Facts) {
		for _, w := range in.Definition.Networks {
			if a, _, ok := address(n, w.Name); ok {
				if i, _ := f.carrier(a); i == nil {
					h.add(n.Name, "network "+w.Name, "no interface has the node's address %s", a)
				}
			}
		}
	})
}

func (in *Input) eachLink(needs []string, f func(n *cluster.Node, w *cluster.Network, i *Interface, bits int, facts *Facts)) {
	in.each(needs, func(n *cluster.Node, facts *Facts) {
		for k := range in.Definition.Networks {
			w := &in.Definition.Networks[k]
			if a, _, ok := address(n, w.Name); ok {
				if i, bits := facts.carrier(a); i != nil {
					f(n, w, i, bits, facts)
				}
			}
		}
	})
}

func checkLinks(in *Input, h *hits) {
	in.eachLink([]string{"interfaces"}, func(n *cluster.Node, w *cluster.Network, i *Interface, _ int, _ *Facts) {
		switch {
		case !i.Up:
			h.add(n.Name, "network "+w.Name, "the interface %s is switched off", i.Name)
		case i.Carrier == "down" || i.Carrier == "lowerlayerdown":
			h.add(n.Name, "network "+w.Name, "the interface %s has no link", i.Name)
		}
	})
	in.each([]string{"interfaces"}, func(n *cluster.Node, f *Facts) {
		for _, w := range in.Definition.Networks {
			own, _, _ := address(n, w.Name)
			carrier, _ := f.carrier(own)
			for _, name := range n.Interfaces[w.Name] {
				if carrier == nil || carrier.Name != name { // of that one it was said above
					f.checkNamed(h, n.Name, w.Name, name)
				}
			}
		}
	})
}

// checkNamed looks at an interface that the definition names.
func (f *Facts) checkNamed(h *hits, node, network, name string) {
	k := slices.IndexFunc(f.Interfaces, func(i Interface) bool { return i.Name == name })
	switch {
	case k < 0:
		h.add(node, "network "+network, "there is no interface %s, which the definition names", name)
	case !f.Interfaces[k].Up:
		h.add(node, "network "+network, "the interface %s is switched off", name)
	case f.Interfaces[k].Carrier == "down" || f.Interfaces[k].Carrier == "lowerlayerdown":
		h.add(node, "network "+network, "the interface %s has no link", name)
	}
}

func checkSingleInterface(in *Input, h *hits) {
	in.eachLink([]string{"interfaces"}, func(n *cluster.Node, w *cluster.Network, i *Interface, bits int, f *Facts) {
		if strings.HasPrefix(i.Name, "bond") || strings.HasPrefix(i.Name, "team") || i.Loopback || w.Private || len(n.Interfaces[w.Name]) > 1 {
			return
		}
		own, _, _ := address(n, w.Name)
		subnet, err := own.Prefix(bits)
		if err != nil {
			return
		}
		for k := range f.Interfaces {
			other := &f.Interfaces[k]
			if other.Name == i.Name {
				continue
			}
			for _, text := range other.Addresses {
				if p, err := netip.ParsePrefix(text); err == nil && subnet.Contains(p.Addr()) {
					return
				}
			}
		}
		h.add(n.Name, "network "+w.Name, "only the interface %s", i.Name)
	})
}

func checkReach(in *Input, h *hits) {
	in.each([]string{"reachability"}, func(n *cluster.Node, f *Facts) {
		for _, r := range f.Reach {
			if r.Error != "" && in.Silent[r.Node] == "" {
				h.add(n.Name, "network "+r.Network, "node %s does not answer at %s: %s", r.Node, r.Address, r.Error)
			}
		}
	})
}

func checkPrefixes(in *Input, h *hits) {
	in.eachLink([]string{"interfaces"}, func(n *cluster.Node, w *cluster.Network, i *Interface, bits int, _ *Facts) {
		if a, want, _ := address(n, w.Name); want != 0 && want != bits {
			h.add(n.Name, "network "+w.Name, "the definition says %s/%d, the interface %s has /%d", a, want, i.Name, bits)
		}
	})
}

func checkSameDefinition(in *Input, h *hits) {
	newest := uint64(0)
	for _, n := range in.nodeNames() {
		newest = max(newest, in.Nodes[n].Definition)
	}
	for _, n := range in.nodeNames() {
		if v := in.Nodes[n].Definition; v != newest {
			h.add(n, "node "+n, "it has version %d of the definition, others have %d", v, newest)
		}
	}
}

// serviceAddress is a service IP's address.
func serviceAddress(s *cluster.ServiceIP) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s.Address)
	return a, err == nil
}

func (in *Input) eachService(f func(s *cluster.ServiceIP, a netip.Addr)) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.ServiceIPs {
		if a, ok := serviceAddress(&in.Definition.ServiceIPs[i]); ok {
			f(&in.Definition.ServiceIPs[i], a)
		}
	}
}

func (in *Input) holdersOf(a netip.Addr) []string {
	var out []string
	for _, n := range in.nodeNames() {
		if i, _ := in.Nodes[n].carrier(a); i != nil {
			out = append(out, n)
		}
	}
	return out
}

func checkDoubleAddress(in *Input, h *hits) {
	in.eachService(func(s *cluster.ServiceIP, a netip.Addr) {
		if on := in.holdersOf(a); len(on) > 1 {
			h.add("", "service_ip "+s.Name, "%s is on %s at once", a, strings.Join(on, " and "))
		}
	})
}

// groupWith finds the group that lists a service IP or a file system.
func (in *Input) groupWith(name string, list func(*cluster.ResourceGroup) []string) *cluster.ResourceGroup {
	for i := range in.Definition.ResourceGroups {
		if g := &in.Definition.ResourceGroups[i]; slices.Contains(list(g), name) {
			return g
		}
	}
	return nil
}

// mayHold reports whether the cluster's state lets a node have resources of the group. Unknown counts as yes: a finding must be
// true of what is known.
func (in *Input) mayHold(g *cluster.ResourceGroup, node string) bool {
	if g == nil || in.Status == nil {
		return in.Status == nil
	}
	s := in.Status.Group(g.Name)
	if s == nil {
		return false // not in the active definition: nobody has it
	}
	i := s.On(node)
	if i == nil {
		return false
	}
	return i.State != api.GroupOffline
}

func checkStrayAddress(in *Input, h *hits) {
	in.eachService(func(s *cluster.ServiceIP, a netip.Addr) {
		g := in.groupWith(s.Name, func(g *cluster.ResourceGroup) []string { return g.ServiceIPs })
		for _, n := range in.holdersOf(a) {
			if !in.mayHold(g, n) {
				h.add(n, "service_ip "+s.Name, "%s is configured on the node, and its group is not there", a)
			}
		}
	})
}

func checkStrayMount(in *Input, h *hits) {
	in.each([]string{"mounts"}, func(n *cluster.Node, f *Facts) {
		for i := range in.Definition.FileSystems {
			fs := &in.Definition.FileSystems[i]
			g := in.groupWith(fs.Name, func(g *cluster.ResourceGroup) []string { return g.FileSystems })
			if in.mayHold(g, n.Name) {
				continue
			}
			if k := slices.IndexFunc(f.Mounts, func(m Mount) bool { return m.Point == fs.MountPoint }); k >= 0 {
				h.add(n.Name, "file_system "+fs.Name, "%s is mounted on %s, and its group is not there", f.Mounts[k].Source, fs.MountPoint)
			}
		}
	})
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
