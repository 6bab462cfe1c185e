package agent

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// linkEvent says how this node stands on one network: whether any of its interfaces there works.
type linkEvent struct {
	network string
	up      bool
	detail  string
}

// watchLinks follows this node's interfaces and posts a linkEvent for each network whose standing changes: a network is up
// while an interface that carries the node's own address on it, or that did, has a carrier.
func (m *member) watchLinks(ctx context.Context) {
	links, err := m.opt.WatchLinks(ctx)
	if err != nil {
		m.log.Info("interfaces are not watched: a lost network shows only by silence", "why", err)
		return
	}
	interfaces := map[int]linux.LinkEvent{}
	home := map[string]int{} // network -> index of the interface that was last seen with the node's address
	known := map[string]bool{}
	look := func() {
		d := m.view().Definition
		if d == nil || d.Node(m.name) == nil {
			return
		}
		for _, w := range d.Networks {
			up, detail, ok := standing(interfaces, home, w.Name, d.Node(m.name).Addresses[w.Name])
			if was, seen := known[w.Name]; ok && (!seen || was != up) {
				known[w.Name] = up
				m.post(linkEvent{network: w.Name, up: up, detail: detail})
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-links:
			if !ok {
				return
			}
			if e.Present {
				interfaces[e.Index] = e
			} else {
				delete(interfaces, e.Index)
			}
			look()
		case <-m.networks:
			look()
		}
	}
}

// standing says whether the network works here; ok is false while the node's interface on it has never been seen.
func standing(interfaces map[int]linux.LinkEvent, home map[string]int, network, address string) (up bool, detail string, ok bool) {
	addr, err := netip.ParseAddr(plainAddress(address))
	if err != nil {
		return false, "", false
	}
	for index, i := range interfaces {
		for _, p := range i.Addresses {
			if p.Addr() == addr {
				home[network] = index
			}
		}
	}
	index, seen := home[network]
	if !seen {
		return false, "", false
	}
	i, there := interfaces[index]
	if !there {
		return false, "the interface is gone", true
	}
	return i.Up && i.Carrier, "interface " + i.Interface, true
}

func (m *member) gotLink(e linkEvent) {
	n := &m.loop.node
	m.log.Info("network", "network", e.network, "up", e.up, "detail", e.detail)
	if e.up {
		delete(n.downNets, e.network)
		n.announceAt = announcePlan(m.clock.Now())
	} else {
		n.downNets[e.network] = true
	}
	m.repoDown.Store(int32(len(n.downNets)))
}

// reportNetworks brings the standing of this node's networks into the log, until it shows it.
func (m *member) reportNetworks(view *state.State, _ lease.Instant) {
	n, self := &m.loop.node, view.Node(m.name)
	inc := m.incarnation(view)
	if self == nil || inc == 0 || self.Dead != nil || view.Definition == nil {
		return
	}
	for _, w := range view.Definition.Networks {
		if down := n.downNets[w.Name]; down != self.NetworkDown(w.Name) {
			word := "works again"
			if down {
				word = "is lost on all interfaces"
			}
			m.once("network/"+w.Name, &state.Command{NetworkState: &state.NetworkState{Node: m.name, Incarnation: inc, Network: w.Name,
				Up: !down, Sentence: fmt.Sprintf("network %s of node %s %s", w.Name, m.name, word)}})
		}
	}
}
