package verify

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var serviceChecks = []Check{
	{ID: "V1601", Severity: api.SeverityWarning, Title: "the services start at boot", run: checkUnits, Needs: []string{"units"},
		Why: "a node that boots does not come back into the cluster", Fix: "systemctl enable holdfast-deadman holdfast"},
	{ID: "V1602", Severity: api.SeverityWarning, Title: "metrics are not offered to everybody", run: checkMetrics,
		Why: "the listener asks nobody who he is: names and states of groups can be read by who reaches it", Fix: "metrics: 127.0.0.1:6193 in node.yaml, or a filter in front"},
	{ID: "V1603", Severity: api.SeverityError, Title: "all nodes use the same ports", run: checkPorts,
		Why: "nodes look for each other at their own port", Fix: "the same port and gossip_port in node.yaml of all nodes"},
	{ID: "V1701", Severity: api.SeverityWarning, Title: "the reverse path filter lets answers through", run: checkReversePath, Needs: []string{"settings", "interfaces"},
		Why: "with strict filtering, answers on the second interface of a subnet are dropped", Fix: "net.ipv4.conf.all.rp_filter=2"},
	{ID: "V1702", Severity: api.SeverityWarning, Title: "addresses answer on their own interface only", run: checkARP, Needs: []string{"settings", "interfaces"},
		Why: "with several interfaces in one subnet any of them answers for any address: the loss of one then looks like the loss of another", Fix: "net.ipv4.conf.all.arp_ignore=1, arp_announce=2"},
	{ID: "V1801", Severity: api.SeverityWarning, Title: "there are two networks for heartbeats", run: checkOneNetwork,
		Why: "with one network its loss makes every node silent at once: the minority side resets, and all groups of the silent nodes move", Fix: "add a second network over other switches (clmgr add network, ADDRESS= of each node)"},
	{ID: "V1802", Severity: api.SeverityWarning, Title: "every node is on two networks", run: checkNodeOnOneNetwork,
		Why: "the loss of its one interface is the loss of the node", Fix: "give the node an address on a second network"},
	{ID: "V1803", Severity: api.SeverityInfo, Title: "an odd number of nodes votes", run: checkVoters,
		Why: "an even number survives no more failures than one node less", Fix: "nothing: a fourth node is for capacity; the cluster keeps three or five voters"},
}

var safetyChecks = []Check{
	{ID: "V2001", Severity: api.SeverityError, Title: "a node's death can be proven", run: checkProvable,
		Why: "this node's deadman lies in software that can fail together with it, so its silence proves nothing: its groups start elsewhere only after your word", Fix: "a watchdog device, a fence device for the node, or WAIVE_TIME_PROOF=true with the risk of two owners"},
	{ID: "V2002", Severity: api.SeverityError, Title: "every node has a deadman", run: checkNoDeadman,
		Why: "nothing resets the node when it is cut off: nobody may take over what it holds", Fix: "deadman: {backend: watchdog} in node.yaml, and start holdfast-deadman"},
	{ID: "V2003", Severity: api.SeverityError, Title: "the deadman is connected", run: checkDeadmanConnected,
		Why: "the node can hold no group", Fix: "systemctl start holdfast-deadman; look at its log"},
	{ID: "V2004", Severity: api.SeverityWarning, Title: "the watchdog has the timeout of the definition", run: checkWatchdogTimeout,
		Why: "a takeover waits for the timeout that the device has", Fix: "choose a profile whose watchdog_timeout the device knows"},
	{ID: "V2005", Severity: api.SeverityWarning, Title: "the watchdog's descriptor is held twice", run: checkHeldTwice,
		Why: "the death of the deadman pets the device once more, so each proof by time takes the timeout twice", Fix: "run the deadman by its unit (FileDescriptorStoreMax=2), or with its holder"},
	{ID: "V2006", Severity: api.SeverityWarning, Title: "the deadman has what it needs", run: checkDeadmanWarnings,
		Why: "it may be late under load, and then resets a healthy node", Fix: "as it says"},
	{ID: "V2007", Severity: api.SeverityWarning, Title: "a node that is cut off is reset", run: checkModeE,
		Why: "in mode e the deadman only raises an event: nothing moves from a silent node without a fence device or your word", Fix: "DEADMAN_MODE=assert"},
	{ID: "V2008", Severity: api.SeverityWarning, Title: "every node has a fence device", run: checkFenceDevice,
		Why: "without one a takeover after a crash waits for the lease to run out, and a paused virtual machine can wake up with its disks", Fix: "clmgr add fence_device NAME AGENT=... NODES=..."},
	{ID: "V2009", Severity: api.SeverityError, Title: "fence devices answer", run: checkFenceAnswers, Needs: []string{"fence devices"},
		Why: "the node could not be switched off when it matters", Fix: "look at the device's address and credentials; run the agent by hand with action=status"},
	{ID: "V2010", Severity: api.SeverityError, Title: "fence devices mean the right node", run: checkFencePlug, Needs: []string{"fence devices"},
		Why: "the device says that a node which answers is off: it switches something else", Fix: "correct PLUGS= of the device"},
	{ID: "V2011", Severity: api.SeverityWarning, Title: "virtual nodes with disks can be fenced", run: checkVirtual,
		Why: "a hypervisor can pause a guest for longer than its watchdog, which is paused with it; when it goes on it may write before it is reset", Fix: "a fence device that talks to the hypervisor"},
	{ID: "V2012", Severity: api.SeverityWarning, Title: "no assumption is waived", run: checkWaivedAssumptions,
		Why: "the cluster then gives up a guarantee that it prints", Fix: "LAST_STANDING=false, WAIVE_TIME_PROOF=false"},
	{ID: "V2013", Severity: api.SeverityWarning, Title: "the deadman was not taken over", run: checkTakenOver,
		Why: "its predecessor died; it counts as armed until everything here was seen stopped", Fix: "look in the system's log for the reason"},
	{ID: "V2014", Severity: api.SeverityWarning, Title: "pets have a margin", run: checkMargin,
		Why: "a pet that comes close to its kill timer resets the node the next time", Fix: "look what keeps the processors busy (real-time processes, the hypervisor); take the careful profile"},
}

func checkUnits(in *Input, h *hits) {
	in.each([]string{"units"}, func(n *cluster.Node, f *Facts) {
		if n.StartOnBoot != nil && !*n.StartOnBoot {
			return
		}
		for _, name := range sortedNames(f.Units) {
			if u := f.Units[name]; u.Exists && !u.Enabled {
				h.add(n.Name, "node "+n.Name, "the unit %s is not enabled", name)
			}
		}
	})
}

func checkMetrics(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		host, _, err := net.SplitHostPort(f.Daemon.Metrics)
		if err != nil || f.Daemon.Metrics == "" || host == "localhost" {
			return
		}
		if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
			return
		}
		h.add(n.Name, "node "+n.Name, "it offers metrics at %s", f.Daemon.Metrics)
	})
}

func checkPorts(in *Input, h *hits) {
	differ(in, h, "node %s uses the ports %s, most nodes %s", func(f *Facts) string { return fmt.Sprintf("%d and %d", f.Daemon.Port, f.Daemon.GossipPort) })
}

// sharedSubnet finds two interfaces of the node in one subnet.
func (f *Facts) sharedSubnet() (a, b, subnet string) {
	seen := map[netip.Prefix]string{}
	for i := range f.Interfaces {
		for _, text := range f.Interfaces[i].Addresses {
			p, err := netip.ParsePrefix(text)
			if err != nil || !p.Addr().Is4() || p.Addr().IsLoopback() || p.Bits() == 32 {
				continue
			}
			m := p.Masked()
			if other, ok := seen[m]; ok && other != f.Interfaces[i].Name {
				return other, f.Interfaces[i].Name, m.String()
			}
			seen[m] = f.Interfaces[i].Name
		}
	}
	return "", "", ""
}

func checkReversePath(in *Input, h *hits) {
	in.each([]string{"settings", "interfaces"}, func(n *cluster.Node, f *Facts) {
		if a, b, s := f.sharedSubnet(); a != "" && f.Settings["net.ipv4.conf.all.rp_filter"] == "1" {
			h.add(n.Name, "node "+n.Name, "%s and %s are in %s, and rp_filter is 1", a, b, s)
		}
	})
}

func checkARP(in *Input, h *hits) {
	in.each([]string{"settings", "interfaces"}, func(n *cluster.Node, f *Facts) {
		if a, b, s := f.sharedSubnet(); a != "" && f.Settings["net.ipv4.conf.all.arp_ignore"] == "0" {
			h.add(n.Name, "node "+n.Name, "%s and %s are in %s, and arp_ignore is 0", a, b, s)
		}
	})
}

func checkOneNetwork(in *Input, h *hits) {
	if in.Definition != nil && len(in.Definition.Networks) == 1 && len(in.Definition.Nodes) > 1 {
		h.add("", "network "+in.Definition.Networks[0].Name, "it is the only one")
	}
}

func checkNodeOnOneNetwork(in *Input, h *hits) {
	if in.Definition == nil || len(in.Definition.Networks) < 2 {
		return
	}
	for i := range in.Definition.Nodes {
		if n := &in.Definition.Nodes[i]; len(n.Addresses) == 1 {
			h.add(n.Name, "node "+n.Name, "it has an address on %s alone", strings.Join(sortedNames(n.Addresses), ""))
		}
	}
}

func checkVoters(in *Input, h *hits) {
	if in.Definition != nil && len(in.Definition.Nodes) == 4 {
		h.add("", "cluster "+in.Definition.Name, "4 nodes: three of them vote")
	}
}

func (in *Input) alone() bool { return in.Definition == nil || len(in.Definition.Nodes) < 2 }

func checkProvable(in *Input, h *hits) {
	if in.alone() {
		return
	}
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if f.Deadman.Connected && f.Deadman.Class == "process" && len(in.Definition.FenceDevicesOf(n.Name)) == 0 && !in.Definition.Settings.WaiveTimeProof {
			h.add(n.Name, "node "+n.Name, "its deadman is of class process (%s), and no fence device can switch the node off", f.Deadman.Backend)
		}
	})
}

func checkNoDeadman(in *Input, h *hits) {
	if in.alone() {
		return
	}
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if f.Deadman.Backend == "none" {
			h.add(n.Name, "node "+n.Name, "its node file says backend: none")
		}
	})
}

func checkDeadmanConnected(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if !f.Deadman.Connected {
			h.add(n.Name, "node "+n.Name, "the daemon has no connection to its deadman")
		}
	})
}

func checkWatchdogTimeout(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if want := in.Params.Watchdog; f.Deadman.Connected && f.Deadman.Watchdog > 0 && want > 0 && f.Deadman.Watchdog != want.Round(time.Second) {
			h.add(n.Name, "node "+n.Name, "the device has %v, the definition says %v", f.Deadman.Watchdog, want)
		}
	})
}

func checkHeldTwice(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if d := f.Deadman; d.Connected && d.Class == "independent" && !d.Held && d.Counted > d.Watchdog {
			h.add(n.Name, "node "+n.Name, "nobody else holds the device: %v count as %v", d.Watchdog, d.Counted)
		}
	})
}

func checkDeadmanWarnings(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		for _, w := range f.Deadman.Warnings {
			h.add(n.Name, "node "+n.Name, "%s", w)
		}
	})
}

func checkModeE(in *Input, h *hits) {
	if in.Definition != nil && in.Definition.Settings.DeadmanMode == "e" {
		h.add("", "cluster "+in.Definition.Name, "DEADMAN_MODE=event")
	}
}

func checkFenceDevice(in *Input, h *hits) {
	if in.alone() {
		return
	}
	for i := range in.Definition.Nodes {
		if n := in.Definition.Nodes[i].Name; len(in.Definition.FenceDevicesOf(n)) == 0 {
			h.add(n, "node "+n, "no fence device can switch it off")
		}
	}
}

func (in *Input) eachPower(f func(node, device, of string, p Power)) {
	for _, n := range in.nodeNames() {
		for _, key := range sortedNames(in.Nodes[n].Power) {
			device, of, _ := strings.Cut(key, "/")
			f(n, device, of, in.Nodes[n].Power[key])
		}
	}
}

func checkFenceAnswers(in *Input, h *hits) {
	in.eachPower(func(node, device, of string, p Power) {
		if p.Error != "" {
			h.add(node, "fence_device "+device, "asked for the power of node %s: %s", of, p.Error)
		}
	})
}

func checkFencePlug(in *Input, h *hits) {
	in.eachPower(func(node, device, of string, p Power) {
		if p.State == "off" && in.Nodes[of] != nil {
			h.add(node, "fence_device "+device, "it says that node %s is off, and that node answers", of)
		}
	})
}

func checkVirtual(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if f.System.Virtual == "" || f.System.Contained || len(in.Definition.FenceDevicesOf(n.Name)) > 0 {
			return
		}
		in.eachGroup(func(g *cluster.ResourceGroup) {
			if len(g.FileSystems) > 0 && g.Has(n.Name) {
				h.add(n.Name, "resource_group "+g.Name, "the node is a guest of %s and the group has file systems; no fence device can switch the guest off", f.System.Virtual)
			}
		})
	})
}

func checkWaivedAssumptions(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	if in.Definition.Settings.LastStanding {
		h.add("", "cluster "+in.Definition.Name, "LAST_STANDING=true: a command may be acknowledged when one node has it")
	}
	if in.Definition.Settings.WaiveTimeProof {
		h.add("", "cluster "+in.Definition.Name, "WAIVE_TIME_PROOF=true: the silence of a node without an independent watchdog counts as its death")
	}
}

func checkTakenOver(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if f.Deadman.TakenOver {
			h.add(n.Name, "node "+n.Name, "the deadman took the device over from one that died")
		}
	})
}

func checkMargin(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if m := f.Deadman.WorstMargin; m > 0 && in.Params.Margin > 0 && m < in.Params.Margin {
			h.add(n.Name, "node "+n.Name, "one pet ended %v before its kill timer", m.Round(time.Microsecond))
		}
	})
}

var _ = slices.Contains[[]string]
