package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

func prefixesOf(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func link(name string, index int, up, carrier bool, addresses ...string) linux.LinkEvent {
	return linux.LinkEvent{Interface: name, Index: index, Present: true, Up: up, Carrier: carrier, Addresses: prefixesOf(addresses...)}
}

func twoNodes(interfaces map[string][]string) *cluster.Definition {
	return &cluster.Definition{Name: "c",
		Nodes: []cluster.Node{{Name: "n1", Addresses: map[string]string{"net1": "10.1.0.1/24"}, Interfaces: interfaces},
			{Name: "n2", Addresses: map[string]string{"net1": "10.1.0.2/24"}}},
		Networks:   []cluster.Network{{Name: "net1", ProbeTargets: []string{"10.1.0.254"}}},
		ServiceIPs: []cluster.ServiceIP{{Name: "svc", Address: "10.1.0.100", Network: "net1"}}}
}

// stands shows each interface of net1 as "name", or "name!" when it has failed; nothing is known as "".
func stands(t *nicTable) string {
	n := t.networks["net1"]
	if n == nil {
		return ""
	}
	judge(n.nics, false)
	var out []string
	for _, x := range n.nics {
		if x.failed != "" {
			out = append(out, x.name+"!")
		} else {
			out = append(out, x.name)
		}
	}
	return strings.Join(out, " ")
}

// A single interface: found by the node's address, and not forgotten when the address goes with it.
func TestStanding(t *testing.T) {
	d := twoNodes(nil)
	now := lease.Instant(time.Hour)
	table := newNICTable("n1", now)
	for _, s := range []struct {
		what  string
		links []linux.LinkEvent
		later time.Duration
		want  string
	}{
		{"never seen", []linux.LinkEvent{link("eth0", 2, true, true)}, 0, ""},
		{"there", []linux.LinkEvent{link("eth0", 2, true, true, "10.1.0.1/24")}, 0, "eth0"},
		{"no carrier", []linux.LinkEvent{link("eth0", 2, true, false, "10.1.0.1/24")}, 0, "eth0!"},
		{"set down, the address gone with it", []linux.LinkEvent{link("eth0", 2, false, false)}, 0, "eth0!"},
		{"gone", nil, 0, "eth0!"},
		{"there again, without the address", []linux.LinkEvent{link("eth0", 2, true, true)}, 0, "eth0!"}, // until it is looked at for a while
		{"still without it", []linux.LinkEvent{link("eth0", 2, true, true)}, 2 * time.Second, "eth0!"},
		{"with it", []linux.LinkEvent{link("eth0", 2, true, true, "10.1.0.1/24")}, 0, "eth0"},
		{"it loses its address for a moment", []linux.LinkEvent{link("eth0", 2, true, true)}, 0, "eth0"},
		{"and has it again", []linux.LinkEvent{link("eth0", 2, true, true, "10.1.0.1/24")}, 900 * time.Millisecond, "eth0"},
		{"it loses its address", []linux.LinkEvent{link("eth0", 2, true, true)}, 0, "eth0"},
		{"for long", []linux.LinkEvent{link("eth0", 2, true, true)}, goneFor, "eth0!"},
		{"on another interface", []linux.LinkEvent{link("eth1", 3, true, true, "10.1.0.1/24")}, 0, "eth1"},
	} {
		now = now.Add(s.later)
		table.links = map[int]linux.LinkEvent{}
		for _, l := range s.links {
			table.see(l)
		}
		table.follow(d, now)
		if got := stands(table); got != s.want {
			t.Errorf("%s: %q, wanted %q", s.what, got, s.want)
		}
	}
	d.Nodes[0].Addresses["net1"] = "nonsense"
	other := newNICTable("n1", now)
	if other.follow(d, now); len(other.networks) != 0 {
		t.Error("an address that is none stands for a network")
	}
}

// Several interfaces: those that the definition names, or those with an address of their own in the subnet. A service address says
// nothing.
func TestInterfacesOfANetwork(t *testing.T) {
	now := lease.Instant(time.Hour)
	links := []linux.LinkEvent{link("eth2", 4, true, true, "10.1.0.61/24"), link("eth0", 2, true, true, "10.1.0.1/24"),
		link("eth1", 3, true, true, "10.1.0.100/24"), link("eth3", 5, true, true, "10.2.0.1/24")}
	look := func(d *cluster.Definition, at lease.Instant, list []linux.LinkEvent) string {
		table := newNICTable("n1", now)
		for _, l := range list {
			table.see(l)
		}
		table.follow(d, at)
		return stands(table)
	}
	if got := look(twoNodes(nil), now, links); got != "eth0 eth2" {
		t.Errorf("found: %q", got)
	}
	named := twoNodes(map[string][]string{"net1": {"eth3", "eth0", "eth9"}})
	if got := look(named, now, links); got != "eth3 eth0 eth9" { // eth9 may still be told of
		t.Errorf("named, at the start: %q", got)
	}
	if got := look(named, now.Add(goneFor), links); got != "eth3 eth0 eth9!" {
		t.Errorf("named: %q", got)
	}
	for _, d := range []*cluster.Definition{twoNodes(nil), named} { // where addresses stay, only the node's own interface counts
		table := newNICTable("n1", now)
		table.stay = true
		for _, l := range links {
			table.see(l)
		}
		table.follow(d, now.Add(goneFor))
		before := stands(table)
		table.see(link("eth0", 2, true, false, "10.1.0.1/24"))
		if table.follow(d, now.Add(goneFor)); before != "eth0" || stands(table) != "eth0!" {
			t.Errorf("where addresses stay: %q, then %q", before, stands(table))
		}
	}
	table := newNICTable("n1", now)
	for _, l := range links {
		table.see(l)
	}
	table.follow(twoNodes(nil), now)
	table.see(linux.LinkEvent{Interface: "eth2", Index: 4}) // pulled out of the machine
	table.follow(twoNodes(nil), now)
	if got := stands(table); got != "eth0 eth2!" {
		t.Errorf("an interface that was found is forgotten: %q", got)
	}
	d := twoNodes(nil)
	d.Networks = nil
	if table.follow(d, now); len(table.networks) != 0 {
		t.Error("a network that the definition no longer has is still known")
	}
}

// Silence is judged by comparison alone: no false alarm when both sides are silent.
func TestJudge(t *testing.T) {
	type answers map[string]string // interface -> y (answered), n (not), x (no link), in order
	for _, c := range []struct {
		what      string
		rounds    answers
		elsewhere bool // other nodes are answered by others, in the last round
		want      string
	}{
		{"both answered", answers{"a": "yy", "b": "yy"}, false, ""},
		{"one misses twice", answers{"a": "ynn", "b": "yyy"}, false, ""},
		{"one is silent", answers{"a": "ynnn", "b": "yyyy"}, false, "a"},
		{"one never was heard", answers{"a": "nnn", "b": "yyy"}, false, "a"},
		{"both silent", answers{"a": "ynnnnnn", "b": "ynnnnnn"}, false, ""},
		{"both silent, others are answered", answers{"a": "ynnnnnn", "b": "ynnnnnn"}, true, "a b"},
		{"both miss, others are answered", answers{"a": "ynn", "b": "ynn"}, true, ""},
		{"one silent, the other has no link", answers{"a": "ynnn", "b": "yxxx"}, false, "b"},
		{"the same, others are answered", answers{"a": "ynnn", "b": "yxxx"}, true, "a b"},
		{"both silent, then one is answered first", answers{"a": "ynnnnnnn", "b": "ynnnnnyy"}, false, ""},
		{"both silent, then only one is answered", answers{"a": "ynnnnnnnn", "b": "ynnnnnyyy"}, false, "a"},
		{"no link on one", answers{"a": "x", "b": "y"}, false, "a"},
		{"no link on both", answers{"a": "x", "b": "x"}, false, "a b"},
		{"single, silent", answers{"a": "ynnnn"}, false, ""},
		{"single, silent, others are answered", answers{"a": "ynnnn"}, true, "a"},
		{"failed, then the other falls silent too", answers{"a": "ynnnnnnnn", "b": "yyyyynnnn"}, false, "a"},
		{"failed and heard once", answers{"a": "ynnny", "b": "yyyyy"}, false, "a"},
		{"failed and heard twice", answers{"a": "ynnnyy", "b": "yyyyyy"}, false, ""},
		{"a link that came back begins anew", answers{"a": "ynnnx-", "b": "yyyyyy"}, false, ""},
	} {
		var nics []*nic
		n := 0
		for _, name := range []string{"a", "b"} {
			if c.rounds[name] != "" {
				nics, n = append(nics, &nic{name: name}), len(c.rounds[name])
			}
		}
		for i := range n {
			answered := map[string]bool{}
			for _, x := range nics {
				switch x.link = ""; c.rounds[x.name][i] {
				case 'x':
					x.link = "it has no carrier"
				case 'y', 'n':
					answered[x.name] = c.rounds[x.name][i] == 'y'
				}
			}
			book(nics, answered)
			judge(nics, c.elsewhere && i == n-1)
		}
		judge(nics, false) // what was found stays found
		var failed []string
		for _, x := range nics {
			if x.failed != "" {
				failed = append(failed, x.name)
			}
		}
		if got := strings.Join(failed, " "); got != c.want {
			t.Errorf("%s: failed %q, wanted %q", c.what, got, c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	d := twoNodes(nil)
	d.Nodes = append(d.Nodes, cluster.Node{Name: "n3", Addresses: map[string]string{"net1": "fd00::3/64"}}, cluster.Node{Name: "n4"})
	for _, c := range []struct{ without, want string }{{"", "10.1.0.254 10.1.0.2 fd00::3"}, {"n2", "10.1.0.254 fd00::3"}} {
		var got []string
		for _, a := range targetsOf(d, "net1", "n1", c.without) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("without %q: %s", c.without, s)
		}
	}
	if got := targetsOf(d, "net9", "n1", ""); len(got) != 0 || slices.Contains(got, netip.Addr{}) {
		t.Errorf("targets of no network: %v", got)
	}
}
