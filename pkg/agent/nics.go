package agent

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// What is known of this node's interfaces, and what follows from it, without I/O, clock or goroutine: the watcher of the links
// shows it events and answers, and asks how the networks stand.

const (
	// missLimit is how many questions in a row must stay without an answer before an interface counts as silent, and hitLimit
	// how many must be answered before it counts as heard again.
	missLimit = 3
	hitLimit  = 2
	// goneFor is how long an interface may be without its address, and a named one may be missing after the start, before it has failed.
	goneFor = time.Second
)

// A nic is one interface of this node on one network.
type nic struct {
	name   string
	link   string // why it does not work, as the system sees it; empty: the system sees nothing wrong
	misses int    // questions in a row without an answer
	behind int    // of them those to which another interface had one
	hits   int    // questions in a row with an answer
	mute   bool   // it was found failed for its silence, and has not been heard again
	failed string // why it counts as failed; empty: it does not
	since  lease.Instant
}

// book takes the outcome of one question on each interface; one that was not asked is missing in it. While nobody is answered
// anywhere no interface falls behind the others: when all come back together the first answer proves nothing against the rest.
func book(nics []*nic, answered map[string]bool) {
	some := anyTrue(answered)
	for _, n := range nics {
		yes, asked := answered[n.name]
		switch {
		case !asked || n.link != "":
		case yes:
			n.misses, n.behind, n.hits = 0, 0, n.hits+1
			if n.hits >= hitLimit {
				n.mute = false
			}
		default:
			n.misses, n.hits = n.misses+1, 0
			if some {
				n.behind++
			}
		}
	}
}

func anyTrue(m map[string]bool) bool {
	for _, v := range m {
		if v {
			return true
		}
	}
	return false
}

// judge says which interfaces of a network have failed. What the system sees (no carrier, switched off, gone) is certain. Silence
// alone is not: whoever does not answer may be the one who is dead. An interface has failed for its silence when another of this
// node's interfaces on the network is answered, or when other nodes are answered there by somebody else than this one (elsewhere).
// Where everybody is silent nobody has failed. Once failed for its silence it stays so until it is heard again.
func judge(nics []*nic, elsewhere bool) {
	var heard string
	for _, n := range nics {
		if n.link == "" && n.hits > 0 {
			heard = n.name
			break
		}
	}
	for _, n := range nics {
		switch {
		case n.link != "":
			n.failed, n.misses, n.behind, n.hits, n.mute = n.link, 0, 0, 0, false
		case n.mute:
			n.failed = cmp.Or(n.failed, "nobody answers on it")
		case n.behind >= missLimit && heard != "":
			n.failed, n.mute = "nobody answers on it, while "+heard+" is answered", true
		case n.misses >= missLimit && elsewhere:
			n.failed, n.mute = "nobody answers on it, while other nodes are answered on the network", true
		default:
			n.failed = ""
		}
	}
}

// working lists the interfaces that have not failed.
func working(nics []*nic) []*nic {
	var out []*nic
	for _, n := range nics {
		if n.failed == "" {
			out = append(out, n)
		}
	}
	return out
}

// nicTable is this node's interfaces, by network.
type nicTable struct {
	node string
	// stay: addresses cannot be moved on this system, so a network is as well as the interface with the node's own address.
	stay     bool
	began    lease.Instant
	links    map[int]linux.LinkEvent
	networks map[string]*nicNetwork
}

// nicNetwork is this node's side of one network.
type nicNetwork struct {
	address netip.Addr // this node's own
	home    string     // the interface that carried it last; empty: none has been seen
	nics    []*nic     // the preferred one first
}

func newNICTable(node string, now lease.Instant) *nicTable {
	return &nicTable{node: node, began: now, links: map[int]linux.LinkEvent{}, networks: map[string]*nicNetwork{}}
}

// see takes an event of the system.
func (t *nicTable) see(e linux.LinkEvent) {
	if e.Present {
		t.links[e.Index] = e
	} else {
		delete(t.links, e.Index)
	}
}

// follow brings the table into line with the definition and the links. It returns when it should be asked again although nothing
// happens; 0: not before something does.
func (t *nicTable) follow(d *cluster.Definition, now lease.Instant) (again lease.Instant) {
	self := d.Node(t.node)
	if self == nil {
		return 0
	}
	for name := range t.networks {
		if d.Network(name) == nil || self.Addresses[name] == "" {
			delete(t.networks, name)
		}
	}
	for _, w := range d.Networks {
		addr, err := netip.ParseAddr(plainAddress(self.Addresses[w.Name]))
		if err != nil {
			continue
		}
		n := t.networks[w.Name]
		if n == nil || n.address != addr {
			n = &nicNetwork{address: addr}
			t.networks[w.Name] = n
		}
		t.find(n, self.Interfaces[w.Name], movable(d))
		for _, x := range n.nics {
			if at := t.lookAt(n, x, len(self.Interfaces[w.Name]) > 0, now); at != 0 && (again == 0 || at < again) {
				again = at
			}
		}
	}
	return again
}

// movable lists the addresses that Holdfast puts on interfaces itself: they say nothing about where an interface belongs.
func movable(d *cluster.Definition) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, s := range d.ServiceIPs {
		if a, err := netip.ParseAddr(s.Address); err == nil {
			out[a.Unmap()] = true
		}
	}
	for _, p := range d.PersistentIPs {
		if a, err := netip.ParseAddr(p.Address); err == nil {
			out[a.Unmap()] = true
		}
	}
	return out
}

// find says which interfaces the network has here: those that the definition names, else the one with the node's own address and
// those with an address of their own in its subnet. An interface that was found stays, whatever becomes of it, until the node's
// address is seen on another.
func (t *nicTable) find(n *nicNetwork, names []string, movable map[netip.Addr]bool) {
	var subnet netip.Prefix
	home := n.home
	for _, i := range slices.Backward(slices.Sorted(maps.Keys(t.links))) { // of several the first
		l := t.links[i]
		for _, p := range l.Addresses {
			if p.Addr() == n.address {
				home, subnet = l.Interface, p.Masked()
			}
		}
	}
	if len(names) > 0 && !t.stay {
		n.home = home
		n.keep(names)
		return
	}
	if home == "" {
		return
	}
	if t.stay {
		n.home = home
		n.keep([]string{home})
		return
	}
	list := []string{home}
	if home == n.home {
		for _, x := range n.nics {
			if x.name != home {
				list = append(list, x.name)
			}
		}
	}
	n.home = home
	var more []string
	for _, l := range t.links {
		for _, p := range l.Addresses {
			if subnet.IsValid() && !subnet.IsSingleIP() && p.Masked() == subnet && !movable[p.Addr()] && !slices.Contains(list, l.Interface) &&
				!slices.Contains(more, l.Interface) {
				more = append(more, l.Interface)
			}
		}
	}
	slices.Sort(more)
	n.keep(append(list, more...))
}

// keep makes the interfaces those of the list, with what is known of them.
func (n *nicNetwork) keep(names []string) {
	var out []*nic
	for _, name := range names {
		i := slices.IndexFunc(n.nics, func(x *nic) bool { return x.name == name })
		if i < 0 {
			out = append(out, &nic{name: name})
		} else {
			out = append(out, n.nics[i])
		}
	}
	n.nics = out
}

// lookAt says what the system sees of an interface. What may be over in a moment counts only after a while: then is returned.
func (t *nicTable) lookAt(n *nicNetwork, x *nic, named bool, now lease.Instant) (again lease.Instant) {
	var link *linux.LinkEvent
	for _, l := range t.links {
		if l.Interface == x.name {
			link = &l
		}
	}
	switch {
	case link == nil && named && now.Sub(t.began) < goneFor && x.link == "":
		return t.began.Add(goneFor) // the system is still telling what it has
	case link == nil:
		x.link, x.since = "it is gone", 0
	case !link.Up:
		x.link, x.since = "it is switched off", 0
	case !link.Carrier:
		x.link, x.since = "it has no carrier", 0
	case x.name == n.home && !t.carried(n.address):
		if x.since == 0 {
			x.since = now
		}
		if now.Sub(x.since) < goneFor {
			return x.since.Add(goneFor)
		}
		x.link = "the node's address " + n.address.String() + " is gone from it"
	default:
		x.link, x.since = "", 0
	}
	return 0
}

func (t *nicTable) carried(a netip.Addr) bool {
	for _, l := range t.links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// targetsOf lists whom an interface on the network may ask: the definition's probe targets, and the other members, one of them
// left out if need be.
func targetsOf(d *cluster.Definition, network, self, without string) []netip.Addr {
	const most = 12
	var out []netip.Addr
	add := func(text string) {
		if a, err := netip.ParseAddr(plainAddress(text)); err == nil && len(out) < most {
			out = append(out, a.Unmap())
		}
	}
	if w := d.Network(network); w != nil {
		for _, s := range w.ProbeTargets {
			add(s)
		}
	}
	for i := range d.Nodes {
		if n := &d.Nodes[i]; n.Name != self && n.Name != without && n.Addresses[network] != "" {
			add(n.Addresses[network])
		}
	}
	return out
}
