package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

func (v *validator) nodes() {
	if len(v.d.Nodes) == 0 {
		v.add("nodes", "", "a cluster needs at least one node")
	}
	for i, n := range v.d.Nodes {
		if n.Capacity < 0 {
			v.add(fmt.Sprintf("nodes[%d].capacity", i), "0 (no limit) or more", "the capacity %d cannot be used", n.Capacity)
		}
	}
}

func (v *validator) networks() {
	for i, n := range v.d.Networks {
		p := fmt.Sprintf("networks[%d]", i)
		if n.Prefix < 0 || n.Prefix > 128 {
			v.add(p+".prefix", "1 to 32 for IPv4, 1 to 128 for IPv6", "the prefix length %d cannot be used", n.Prefix)
		}
		if why := refusedDistribution(n.Distribution); why != "" {
			v.add(p+".distribution", "one of "+strings.Join(distributions, ", "), "%s", why)
		} else {
			v.oneOf(p+".distribution", n.Distribution, distributions...)
		}
		v.probeTargets(p+".probe_targets", &n)
	}
}

// maxProbeTargets bounds what an interface in doubt asks.
const maxProbeTargets = 32

func (v *validator) probeTargets(path string, n *Network) {
	if len(n.ProbeTargets) > maxProbeTargets {
		v.add(path, fmt.Sprintf("at most %d", maxProbeTargets), "there are %d probe targets", len(n.ProbeTargets))
		return
	}
	v.distinct(path, n.ProbeTargets)
	for k, s := range n.ProbeTargets {
		at := fmt.Sprintf("%s[%d]", path, k)
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			v.add(at, "an address without a prefix length, as 10.1.1.254", "the probe target %q is not an IP address", s)
			continue
		}
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			v.add(at, "the address of a router or another machine on the network", "the probe target %s is on no cluster network", a)
		} else if v.unicast(at, a) {
			v.inSubnet(at, a.Unmap(), 0, n.Name, nodeNames(v.d))
		}
	}
}

// interfaces checks the interfaces that nodes name: each is on one network, and the node has an address there.
func (v *validator) interfaces() {
	for i := range v.d.Nodes {
		n, on := &v.d.Nodes[i], map[string]string{}
		for _, w := range sortedKeys(n.Interfaces) {
			path := fmt.Sprintf("nodes[%d].interfaces.%s", i, w)
			if len(n.Interfaces[w]) == 0 {
				v.add(path, "the names of interfaces, or no entry", "node %s has an empty list of interfaces on network %s", n.Name, w)
			}
			if v.addressesKnown() && n.Addresses[w] == "" && v.has("network", w) {
				v.add(path, "a network on which the node has an address", "node %s has no address on network %s", n.Name, w)
			}
			for k, name := range n.Interfaces[w] {
				at := fmt.Sprintf("%s[%d]", path, k)
				if !interfaceName(name) {
					v.add(at, "a name as eth0 or en1", "the interface %q cannot be used", name)
				} else if first, twice := on[name]; twice {
					v.add(at, "each interface once, on one network", "node %s has interface %s already, on network %s", n.Name, name, first)
				}
				on[name] = w
			}
		}
	}
}

// addresses checks all addresses together: each is used once, and lies where its network is.
func (v *validator) addresses() {
	used := map[netip.Addr]string{}
	take := func(path string, a netip.Addr) {
		a = a.WithZone("").Unmap()
		if first, twice := used[a]; twice {
			v.add(path, "an address of its own", "the address %s is used already, by %s", a, first)
			return
		}
		used[a] = path
	}
	for i := range v.d.Nodes {
		n := &v.d.Nodes[i]
		for _, w := range sortedKeys(n.Addresses) {
			path := fmt.Sprintf("nodes[%d].addresses.%s", i, w)
			if a, ok := v.nodeAddress(path, n.Addresses[w]); ok {
				take(path, a)
			}
		}
	}
	placed := map[[2]string]string{}
	for i, p := range v.d.PersistentIPs {
		path := fmt.Sprintf("persistent_ips[%d]", i)
		if first, twice := placed[[2]string{p.Node, p.Network}]; twice {
			v.add(path, "one of each node on each network", "node %s has the persistent IP %s on network %s already", p.Node, first, p.Network)
		}
		placed[[2]string{p.Node, p.Network}] = p.Name
		v.needed(path+".node", p.Node, "node")
		v.needed(path+".network", p.Network, "network")
		if a, ok := v.movableAddress(path, p.Address, p.Prefix); ok {
			take(path+".address", a)
			if n := v.node(p.Node); n != nil && p.Network != "" {
				v.inSubnet(path+".address", a, p.Prefix, p.Network, []string{n.Name})
				if v.addressesKnown() && n.Addresses[p.Network] == "" && v.has("network", p.Network) {
					v.add(path+".network", "a network on which the node has an address", "node %s has no address on network %s", p.Node, p.Network)
				}
			}
		}
	}
	for i, s := range v.d.ServiceIPs {
		path := fmt.Sprintf("service_ips[%d]", i)
		v.needed(path+".network", s.Network, "network")
		if s.Interface != "" && !interfaceName(s.Interface) {
			v.add(path+".interface", "a name as eth0 or en1", "the interface %q cannot be used", s.Interface)
		}
		if w := v.network(s.Network); w != nil && w.Private {
			v.add(path+".network", "a network that is not private", "network %s is private: it carries heartbeats only", s.Network)
		}
		if a, ok := v.movableAddress(path, s.Address, s.Prefix); ok {
			take(path+".address", a)
			v.inSubnet(path+".address", a, s.Prefix, s.Network, v.hostsOf(s.Name))
		}
	}
}

// needed checks a reference that must not be left out.
func (v *validator) needed(path, name, class string) {
	if name == "" {
		v.add(path, v.choice(class, ""), "the %s is missing", class)
	}
}

func (v *validator) has(class, name string) bool {
	_, ok := v.known[class][name]
	return ok
}

func (v *validator) node(name string) *Node {
	if i, ok := v.known["node"][name]; ok {
		return &v.d.Nodes[i]
	}
	return nil
}

func (v *validator) network(name string) *Network {
	if i, ok := v.known["network"][name]; ok {
		return &v.d.Networks[i]
	}
	return nil
}

// addressesKnown reports whether the definition says which node has which network at all; a definition for a simulation
// need not.
func (v *validator) addressesKnown() bool {
	for i := range v.d.Nodes {
		if len(v.d.Nodes[i].Addresses) > 0 {
			return true
		}
	}
	return false
}

// hostsOf lists the nodes on which a service IP may be: those of its group, or all while it is in none.
func (v *validator) hostsOf(service string) []string {
	for i := range v.d.ResourceGroups {
		if contains(v.d.ResourceGroups[i].ServiceIPs, service) {
			return v.d.ResourceGroups[i].Nodes
		}
	}
	return nodeNames(v.d)
}

func (v *validator) nodeAddress(path, s string) (netip.Addr, bool) {
	a, _, err := parseNodeAddress(s)
	if err != nil {
		v.add(path, "an address with or without a prefix length, as 10.1.1.1/24", "%q is not an IP address", s)
		return a, false
	}
	return a, v.unicast(path, a)
}

// movableAddress checks an address that Holdfast puts on an interface itself.
func (v *validator) movableAddress(path, s string, bits int) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		want := "an address without a prefix length, as 10.1.1.10"
		if _, prefixErr := netip.ParsePrefix(s); prefixErr == nil {
			want += "; the length goes into prefix"
		}
		v.add(path+".address", want, "%q is not an IP address", s)
		return a, false
	}
	if a.Zone() != "" {
		v.add(path+".address", a.WithZone("").String(), "the address %s names an interface", s)
		return a, false
	}
	if bits < 0 || bits > a.BitLen() {
		v.add(path+".prefix", fmt.Sprintf("1 to %d", a.BitLen()), "the prefix length %d does not fit the address %s", bits, a)
	}
	return a, v.unicast(path+".address", a)
}

func (v *validator) unicast(path string, a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		v.add(path, "the address of one interface", "%s is not an address that a machine can have", a)
		return false
	}
	return true
}

// inSubnet checks an address without a prefix length of its own against the subnets that the nodes have on the network. An
// address with its own length may lie in a subnet of its own.
func (v *validator) inSubnet(path string, a netip.Addr, own int, network string, nodes []string) {
	if own != 0 {
		return
	}
	var subnets []string
	for _, name := range nodes {
		n := v.node(name)
		if n == nil {
			continue
		}
		p, err := netip.ParsePrefix(n.Addresses[network])
		if err != nil || p.Addr().Is4() != a.Is4() {
			continue // Not known; or the network's other protocol.
		}
		p = p.Masked()
		if p.Contains(a) {
			if a.Is4() && p.Bits() < 31 && (a == p.Addr() || !p.Contains(a.Next())) {
				v.add(path, "an address between them", "%s is the first or last address of %s, which no machine can have", a, p)
			}
			return
		}
		if s := p.String(); !contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	if len(subnets) > 0 {
		v.add(path, "an address in it, or a prefix of its own", "%s is not in the subnet of network %s (%s)", a, network, strings.Join(subnets, ", "))
	}
}

func (v *validator) fenceDevices() {
	for i, f := range v.d.FenceDevices {
		p := fmt.Sprintf("fence_devices[%d]", i)
		v.absolute(p+".agent", f.Agent)
		if len(f.Nodes) == 0 {
			v.add(p+".nodes", "the nodes that it can switch", "the device has no nodes")
		}
		v.distinct(p+".nodes", f.Nodes)
		for _, k := range sortedKeys(f.Plugs) {
			if v.has("node", k) && !contains(f.Nodes, k) {
				v.add(p+".plugs."+k, "a node of the device's list", "node %s has a plug and is not in the device's list", k)
			}
		}
		for _, k := range sortedKeys(f.Params) {
			switch {
			case k == "" || strings.ContainsAny(k, "= \t"):
				v.add(p+".params", "a name without blanks and =", "the parameter %q cannot be used", k)
			case k == "action" || k == "option" || k == "plug" || k == "port" || k == "nodename":
				v.add(p+".params."+k, "leave it out; a node's plug is given in plugs", "the parameter %s is set by Holdfast", k)
			}
		}
		v.within(p+".timeout", f.Timeout, time.Hour)
		for k, level := range f.Levels {
			v.inRange(fmt.Sprintf("%s.levels[%d]", p, k), level, 1, MaxFenceLevel)
			if slices.Contains(f.Levels[:k], level) {
				v.add(fmt.Sprintf("%s.levels[%d]", p, k), "each once", "level %d is named twice", level)
			}
		}
	}
}

// timers checks that every moment exists and that nothing is given that its repetition does not use.
func (v *validator) timers() {
	for i, t := range v.d.FallbackTimers {
		p := fmt.Sprintf("fallback_timers[%d].", i)
		if !v.oneOf(p+"repeats", t.Repeats, "never", "daily", "weekly", "monthly", "yearly") {
			continue
		}
		ranges := []struct {
			key         string
			value       int
			least, most int
			in          string // the repetitions that use it
		}{
			{"year", t.Year, 1970, 9999, "never"},
			{"month", t.Month, 1, 12, "never yearly"},
			{"day_of_month", t.DayOfMonth, 1, 31, "never monthly yearly"},
			{"day_of_week", t.DayOfWeek, 0, 6, "weekly"},
			{"hour", t.Hour, 0, 23, "never daily weekly monthly yearly"},
			{"minute", t.Minute, 0, 59, "never daily weekly monthly yearly"},
		}
		good := true
		for _, r := range ranges {
			uses := contains(strings.Fields(r.in), t.Repeats)
			switch {
			case !uses && r.value != 0:
				v.add(p+r.key, "leave it out", "a timer that repeats %s has no %s", t.Repeats, r.key)
				good = false
			case uses && (r.value < r.least || r.value > r.most):
				what := fmt.Sprintf("the value %d cannot be used", r.value)
				if r.value == 0 {
					what = fmt.Sprintf("a timer that repeats %s needs it", t.Repeats)
				}
				v.add(p+r.key, fmt.Sprintf("%d to %d", r.least, r.most), "%s", what)
				good = false
			}
		}
		if good {
			v.dateExists(p, t)
		}
	}
}

func (v *validator) dateExists(p string, t FallbackTimer) {
	year := t.Year
	switch t.Repeats {
	case "yearly":
		year = 2024 // A leap year: 29 February comes, if not every year.
	case "never":
	default:
		return
	}
	day := time.Date(year, time.Month(t.Month), t.DayOfMonth, 0, 0, 0, 0, time.UTC)
	if day.Day() != t.DayOfMonth {
		month := time.Month(t.Month)
		last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
		in := month.String()
		if t.Repeats == "never" {
			in = fmt.Sprintf("%s %d", month, year)
		}
		v.add(p+"day_of_month", fmt.Sprintf("1 to %d", last), "%s has no day %d", in, t.DayOfMonth)
	}
}

// settings checks the timings through package lease, which alone knows what fits together.
func (v *validator) settings() {
	s := &v.d.Settings
	v.oneOf("settings.deadman_mode", s.DeadmanMode, "a", "e")
	if s.SettlingTime < 0 || s.SettlingTime > 24*time.Hour {
		v.add("settings.settling_time", "0 to 1d", "the time %v cannot be used", s.SettlingTime)
	}
	if s.Changes != "" {
		v.oneOf("settings.changes", s.Changes, ChangesLive, ChangesStaged)
	}
	if t := s.VerificationInterval; t != 0 && (t < 10*time.Second || t > 7*24*time.Hour) {
		v.add("settings.verification_interval", "10s to 7d", "the time %v cannot be used", t)
	}
	if s.ActionPlan != "" {
		v.oneOf("settings.action_plan", s.ActionPlan, ActionPlanReboot, ActionPlanNoGroups, ActionPlanNoServices)
	}
	if t := s.RepositoryLossTime; t != 0 && (t < 5*time.Second || t > 24*time.Hour) {
		v.add("settings.repository_loss_time", "5s to 1d", "the time %v cannot be used", t)
	}
	if t := s.CollectionInterval; t != 0 && (t < 10*time.Second || t > 24*time.Hour) {
		v.add("settings.collection_interval", "10s to 1d", "the time %v cannot be used", t)
	}
	v.inRange("settings.verification_hour", s.VerificationHour, 0, 23)
	v.within("settings.failure_window", s.FailureWindow, 366*24*time.Hour)
	v.within("settings.max_event_time", s.MaxEventTime, 7*24*time.Hour)
	v.within("settings.max_group_time", s.MaxGroupTime, 7*24*time.Hour)

	good := v.oneOf("settings.profile", s.Profile, lease.Profiles()...)
	for _, k := range sortedKeys(s.Timings) {
		good = v.oneOf("settings.timings."+k, k, lease.Keys()...) && good
	}
	if !good {
		return
	}
	params, err := lease.Profile(s.Profile)
	if err == nil {
		params, err = params.With(s.Timings)
	}
	if err != nil {
		v.add("settings.timings", "", "%v", err)
		return
	}
	for _, bad := range params.Validate() {
		v.add("settings.timings", "", "%v", bad)
	}
}

func (v *validator) repositories() {
	devices, uuids := map[string]int{}, map[string]int{}
	for i, r := range v.d.Repositories {
		p := fmt.Sprintf("repositories[%d]", i)
		v.absolute(p+".device", r.Device)
		if first, twice := devices[r.Device]; twice {
			v.add(p+".device", "a device of its own", "%s is that of repositories[%d] already", r.Device, first)
		} else {
			devices[r.Device] = i
		}
		if r.UUID == "" {
			if r.Lost {
				v.add(p+".lost", "leave it out: the cluster writes it", "a volume that is not formatted cannot be lost")
			}
			continue
		}
		if !isUUID(r.UUID) {
			v.add(p+".uuid", "leave it out: clmgr format repository writes it", "%q is not the id of a volume", r.UUID)
		}
		if first, twice := uuids[r.UUID]; twice {
			v.add(p+".uuid", "a volume of its own", "%s is that of repositories[%d] already", r.UUID, first)
		} else {
			uuids[r.UUID] = i
		}
	}
	for i := range v.d.Nodes {
		name := v.d.Nodes[i].Name
		uuid, prefixed := strings.CutPrefix(name, "repository-")
		if name == RepositoryVoter || prefixed && isUUID(uuid) {
			v.add(fmt.Sprintf("nodes[%d].name", i), "another name", "a repository voter is called %s", name)
		}
	}
}

// isUUID reports whether s is of the form 8-4-4-4-12, in small hexadecimal digits.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && !strings.ContainsRune("0123456789abcdef", rune(s[i])) {
			return false
		}
	}
	return true
}
