package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Interfaces of one network among several.

// gotNIC takes the failure or return of one interface: an event, and addresses that must leave it are moved.
func (m *member) gotNIC(e nicEvent) {
	n := &m.loop.node
	n.version++
	if e.failed == "" {
		m.log.Info("interface", "network", e.network, "interface", e.nic, "up", true)
		m.noteLater(state.Note{Event: state.EventJoinInterface, Node: m.name,
			Sentence: fmt.Sprintf("interface %s of node %s on network %s works again", e.nic, m.name, e.network)})
	} else {
		m.log.Warn("interface", "network", e.network, "interface", e.nic, "up", false, "why", e.failed)
		m.noteLater(state.Note{Event: state.EventFailInterface, Node: m.name,
			Sentence: fmt.Sprintf("interface %s of node %s on network %s has failed: %s", e.nic, m.name, e.network, e.failed)})
	}
	for _, g := range n.groups {
		if g.known.Started != 0 || g.job == jobStart {
			g.swapSince = max(e.at, 1)
		}
	}
	m.swapPersistent(e)
}

// swapPause is the time between two tries to move an address.
const swapPause = time.Second

// tendSwaps lets the addresses of groups that run here leave interfaces that have failed. It is an act of this node alone, and needs
// nobody's leave: only what this node holds is moved, under the lease and the generation under which it holds it. One action per
// group at a time: a start or a stop under way goes first, and a stop finds the address wherever it is.
func (m *member) tendSwaps(view *state.State, now lease.Instant) {
	for _, name := range sortedKeys(m.loop.node.groups) {
		g := m.loop.node.groups[name]
		if g.swapSince == 0 || g.job != "" || now < g.swapAt {
			continue
		}
		i := view.Instance(name, m.name)
		if !i.Held || g.known.Started == 0 || g.known.Started != i.Generation || g.known.Leaving || suspended(view, name) ||
			m.loop.node.softExpired(m, now) {
			if g.known.Started == 0 {
				g.swapSince = 0
			}
			continue
		}
		m.beginSwap(view, name, g, now)
	}
}

func (m *member) beginSwap(view *state.State, name string, g *groupState, now lease.Instant) {
	t, err := m.target(view.Definition, name, g.known.Started)
	if err != nil {
		g.swapSince = 0
		return
	}
	var list []executor.Resource
	for _, r := range t.resources {
		if _, ok := m.executors[r.Kind].(executor.Mover); ok && r.IP != nil {
			list = append(list, r)
		}
	}
	since := g.swapSince
	g.swapSince = 0
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(m.loop.ctx)
	g.job, g.cancel, g.jobBegan = jobChange, cancel, now
	m.work.Go(func() {
		defer cancel()
		ctx := executor.WithGeneration(ctx, t.generation)
		stuck := make([]string, len(list))
		var wg sync.WaitGroup
		for i, r := range list {
			wg.Go(func() {
				if !m.swap(ctx, r, since) {
					stuck[i] = r.IP.Network
				}
			})
		}
		wg.Wait()
		m.post(workDone{group: name, generation: t.generation, job: jobChange, status: executor.Running,
			stuck: slices.DeleteFunc(stuck, func(s string) bool { return s == "" })})
	})
}

// swap moves one address away from a failed interface, if it is on one. It reports false when it should be tried again.
func (m *member) swap(ctx context.Context, r executor.Resource, since lease.Instant) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := m.blocked(r); err != nil {
		return false
	}
	moved, err := m.executors[r.Kind].(executor.Mover).Relocate(ctx, r)
	what := fmt.Sprintf("address %s (%s)", r.Name, r.IP.Address)
	if r.Group != "" {
		what += " of group " + r.Group
	}
	switch {
	case errors.Is(err, context.Canceled):
		return true
	case err != nil:
		m.log.Warn("an address could not be moved to another interface of this node", "address", r.IP.Address, "error", err)
		return false
	case !moved.Moved:
		return true
	}
	took := m.clock.Now().Sub(since).Round(time.Millisecond)
	from := moved.From
	if from == "" {
		from = "an interface that has lost it"
	}
	m.log.Info("swap_adapter", "address", r.IP.Address, "group", r.Group, "from", from, "to", moved.To, "took", took, "why", moved.Why)
	m.noteLater(
		state.Note{Event: state.EventSwapAdapter, Node: m.name, Group: r.Group,
			Sentence: fmt.Sprintf("%s leaves %s for %s on node %s: %s", what, from, moved.To, m.name, moved.Why)},
		state.Note{Event: state.EventSwapAdapterComplete, Node: m.name, Group: r.Group,
			Sentence: fmt.Sprintf("%s is on %s of node %s, %d ms after the failure was seen", what, moved.To, m.name, took.Milliseconds())})
	return true
}

// swapPersistent moves this node's persistent addresses away from failed interfaces. They are this node's, whatever its lease: no
// other node ever has them.
func (m *member) swapPersistent(e nicEvent) {
	view := m.view()
	if view.Definition == nil {
		return
	}
	list, err := persistentIPsOf(view.Definition, m.name)
	if err != nil {
		return
	}
	for _, r := range list {
		if _, ok := m.executors[r.Kind].(executor.Mover); !ok || r.IP.Network != e.network {
			continue
		}
		r = m.withNICs(r)
		m.work.Go(func() { m.swap(m.loop.ctx, r, e.at) })
	}
}

// withNICs adds to an address which interfaces have failed.
func (m *member) withNICs(r executor.Resource) executor.Resource {
	if r.IP != nil {
		r.IP.Failed = m.nics.get().failed
	}
	return r
}

// noteLater brings notes into the history, in this order and after those before, as soon as there is a leader to take them.
func (m *member) noteLater(notes ...state.Note) {
	m.notesMu.Lock()
	defer m.notesMu.Unlock()
	m.notes = append(m.notes, notes...)
	if len(m.notes) > maxNotes {
		m.notes = m.notes[len(m.notes)-maxNotes:]
	}
	if !m.noting {
		m.noting = true
		m.work.Go(m.sendNotes)
	}
}

// maxNotes bounds what waits for a leader.
const maxNotes = 256

func (m *member) sendNotes() {
	ctx := m.loop.ctx
	for {
		m.notesMu.Lock()
		if len(m.notes) == 0 || ctx.Err() != nil {
			m.noting = false
			m.notesMu.Unlock()
			return
		}
		n := m.notes[0]
		m.notes = m.notes[1:]
		m.notesMu.Unlock()
		c := &state.Command{ID: newNonce(), Note: &n}
		for ctx.Err() == nil {
			try, cancel := context.WithTimeout(ctx, 3*time.Second)
			_, err := m.report(try, c)
			cancel()
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
			case <-after(100 * time.Millisecond):
			}
		}
	}
}
