//go:build linux

package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// Two networks, and on each two interfaces of every node: eth0 and eth2 on net1, eth1 and eth3 on net2.
const service6 = "fd77:1::100"

// interfaceOf is the interface of a node that carries an address; empty: none.
func (w *world) interfaceOf(node, address string) string {
	w.t.Helper()
	var on []string
	for _, line := range strings.Split(w.run(node, "ip", "-o", "address", "show").Stdout, "\n") {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasPrefix(f[3], address+"/") {
			on = append(on, f[1])
		}
	}
	return strings.Join(on, " ")
}

// outageSince is the longest time without an answer that the client had after the fault, in words.
func (w *world) outageSince(p *lab.Probe, fault time.Time) string {
	w.t.Helper()
	var longest time.Duration
	look := func() string {
		for _, e := range p.Events() {
			if o := e.Outage; o != nil && !o.Open && o.End.After(fault) {
				longest = max(longest, o.Length)
			}
		}
		if longest == 0 {
			return "no outage is known"
		}
		return ""
	}
	w.waitFor(time.Second, look)
	check(w.t, p.AwaitAnswer(w.ctx(), ""))
	if look() != "" {
		return "below 0.05 s" // the least that the client counts
	}
	return fmt.Sprintf("%.3f s", longest.Seconds())
}

// Two NICs, two networks: each fails in each way in turn; the addresses go to the other interface of the same node, and the group
// stays as it is until no interface is left. A network that is lost everywhere costs neither the quorum nor a move.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{networks: 2, links: 2, collect: true, ips: []string{service6},
		start: []string{program("cllab"), "app", "start", "--data", "/app/data", "--listen", ":8080"},
		stop:  []string{program("cllab"), "app", "stop", "--data", "/app/data", "--listen", ":8080"}})
	if r, err := w.Lab.Run(w.ctx(), lab.ClientNode, "ip", "-6", "address", "add", "fd77:1::fe/64", "dev", "eth0", "nodad"); err != nil || r.Code != 0 {
		t.Fatalf("give the client an IPv6 address: %v %s", err, r.Stderr)
	}
	w.ask()
	six, err := w.StartProbe(net.JoinHostPort(service6, "8080"), lab.ProbeOptions{})
	check(t, err)
	defer six.Stop() //nolint:errcheck // it is stopped below, if all goes well
	check(t, six.AwaitAnswer(w.ctx(), ""))

	home := w.online(group)
	start, pid := w.lastEvent(), w.appPID(home)
	unmoved := func() {
		t.Helper()
		if now := w.appPID(home); now != pid || w.online(group) != home {
			t.Errorf("the group was touched: process %s, then %s", pid, now)
		}
		if e := w.find(start, "rg_move", ""); e != nil {
			t.Errorf("a needless move: %s", e.Sentence)
		}
	}
	for _, c := range []struct {
		what, from, to string
		fail, mend     func() error
	}{
		{"cable pulled", "eth0", "eth2", func() error { return w.Unplug(w.ctx(), home, "eth0") }, func() error { return w.HealLink(w.ctx(), home, "eth0") }},
		{"link down", "eth2", "eth0", func() error { w.must(home, "ip", "link", "set", "eth2", "down"); return nil },
			func() error { w.must(home, "ip", "link", "set", "eth2", "up"); return nil }},
		{"silent", "eth0", "eth2", func() error { return w.Cut(w.ctx(), home, "eth0", lab.Both) }, func() error { return w.HealLink(w.ctx(), home, "eth0") }},
		{"nothing leaves it", "eth2", "eth0", func() error { return w.Cut(w.ctx(), home, "eth2", lab.Out) }, func() error { return w.HealLink(w.ctx(), home, "eth2") }},
	} {
		w.settledNICs(home)
		for _, a := range []string{service, service6} {
			if on := w.interfaceOf(home, a); on != c.from {
				t.Fatalf("%s: %s is on %q, not on %s", c.what, a, on, c.from)
			}
		}
		since, fault := w.lastEvent(), time.Now()
		check(t, c.fail())
		w.happened(since, "fail_interface", home)
		w.await("both addresses have left "+c.from, func() string {
			for _, a := range []string{service, service6} {
				if on := w.interfaceOf(home, a); on != c.to {
					return a + " is on " + on
				}
			}
			return ""
		})
		w.happened(since, "swap_adapter", home)
		w.happened(since, "swap_adapter_complete", home)
		check(t, w.probe.AwaitAnswer(w.ctx(), home))
		check(t, six.AwaitAnswer(w.ctx(), home))
		t.Logf("%s: outage IPv4 %s, IPv6 %s", c.what, w.outageSince(w.probe, fault), w.outageSince(six, fault))
		since = w.lastEvent()
		check(t, c.mend())
		w.happened(since, "join_interface", home)
		if on := w.interfaceOf(home, service); on != c.to {
			t.Errorf("%s: after the heal the address is on %q, was on %s", c.what, on, c.to)
		}
		unmoved()
	}

	// Network 1 is silent everywhere: nobody knows whose fault it is, nobody has failed, and the cluster goes on over network 2.
	w.settledNICs(home)
	since := w.lastEvent()
	for _, n := range w.nodes {
		check(t, w.Cut(w.ctx(), n, "net1", lab.Both))
	}
	time.Sleep(6 * time.Second) // longer than any limit of the profile
	w.nodesAre("NORMAL")
	w.whole()
	if e := w.find(since, "node_lost", ""); e != nil {
		t.Logf("with network 1 cut everywhere a node was silent for a moment: %s", e.Sentence)
	}
	for _, n := range w.nodes {
		check(t, w.Heal(w.ctx(), n))
	}
	check(t, w.probe.AwaitAnswer(w.ctx(), home))
	time.Sleep(3 * time.Second) // until each interface has been answered again
	for _, kind := range []string{"fail_interface", "network_down", "swap_adapter"} {
		if e := w.find(since, kind, ""); e != nil {
			t.Errorf("with network 1 cut everywhere, and healed: %s: %s", kind, e.Sentence)
		}
	}
	unmoved()

	// Its cables are pulled out everywhere, the holder's last: lost on all nodes, and no move, because nowhere would be better.
	since = w.lastEvent()
	everywhere := append(slices.DeleteFunc(slices.Clone(w.nodes), func(n string) bool { return n == home }), home)
	for _, n := range everywhere {
		check(t, w.Unplug(w.ctx(), n, "net1"))
		w.happened(since, "network_down", n)
	}
	w.clusterWide(since, "network_down")
	back := w.lastEvent()
	for _, n := range slices.Backward(everywhere) {
		check(t, w.HealLink(w.ctx(), n, "net1"))
		w.happened(back, "network_up", n)
	}
	w.clusterWide(back, "network_up")
	check(t, w.probe.AwaitAnswer(w.ctx(), home))
	unmoved()

	// Both interfaces of the holder: only now the group moves. First silently, then with their cables.
	for _, c := range []struct {
		what string
		fail func(node string) error
	}{
		{"both silent", func(n string) error { return w.Cut(w.ctx(), n, "net1", lab.Both) }},
		{"both cables pulled", func(n string) error { return w.Unplug(w.ctx(), n, "net1") }},
	} {
		w.settledNICs(home)
		since, fault := w.lastEvent(), time.Now()
		check(t, c.fail(home))
		w.happened(since, "network_down", home)
		next := w.elsewhere(home)
		w.answersFrom(next)
		check(t, six.AwaitAnswer(w.ctx(), next))
		t.Logf("%s: %s took over from %s, outage IPv4 %s, IPv6 %s", c.what, next, home, w.outageSince(w.probe, fault), w.outageSince(six, fault))
		if e := w.find(since, "node_dead", home); e != nil {
			t.Errorf("%s: the node that lost a network was taken for dead: %s", c.what, e.Sentence)
		}
		moved := w.lastEvent()
		check(t, w.Heal(w.ctx(), home))
		w.happened(since, "network_up", home)
		w.settledNICs(home)
		if on := w.online(group); on != next {
			t.Errorf("%s: after the heal the group is on %s, was on %s", c.what, on, next)
		}
		if e := w.find(moved, "rg_move", ""); e != nil {
			t.Errorf("%s: a needless move after the heal: %s", c.what, e.Sentence)
		}
		home = next
	}
	_, err = six.Stop()
	check(t, err)
	w.timeline(start)
	w.loserFirst()
}

// clusterWide waits for an event of a network that names no node.
func (w *world) clusterWide(since uint64, kind string) {
	w.t.Helper()
	w.await(kind+" of the whole cluster", func() string {
		for _, e := range w.events(since) {
			if e.ID > since && e.Kind == kind && e.Node == "" {
				return ""
			}
		}
		return "it is not in the history"
	})
}

// settledNICs waits until nothing of the node's networks is failed, by its own routes and by the log.
func (w *world) settledNICs(node string) {
	w.t.Helper()
	w.await("all networks of "+node+" work", func() string {
		st := w.view()
		if st == nil || st.Node(node) == nil {
			return "no node knows a leader"
		}
		for _, n := range st.Node(node).Networks {
			if n.State != "UP" {
				return fmt.Sprintf("%s is %s", n.Name, n.State)
			}
		}
		if routes := w.run(node, "ip", "route", "show", "proto", "72").Stdout; strings.TrimSpace(routes) != "" {
			return "routes still lead around an interface: " + routes
		}
		return ""
	})
}
