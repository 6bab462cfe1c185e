package agent

import (
	"context"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Getting ready for groups that may come here: what a start would wait for and what changes nothing (is the service address
// free?) is done while the proof of the old node's death, or this node's own arming and grant, is still under way. It is no
// step of an acquisition: executors promise that Prepare has no effect, so it needs no lease.

// occasion is why a group may come here; each is prepared for once.
type occasion struct {
	generation  uint64 // of an Acquire for this node; else
	node        string // the silent node that holds the group
	incarnation uint64
}

const prepareLimit = 2 * time.Second

// prepare looks for groups that are on their way here, or may soon be, on the loop.
func (m *member) prepare(view *state.State) {
	if view.Definition == nil {
		return
	}
	for _, name := range view.GroupNames() {
		why := m.occasionOf(view, name)
		if why == (occasion{}) {
			continue
		}
		g := m.loop.node.group(name)
		if g.prepared == why || g.job != "" {
			continue
		}
		g.prepared = why
		t, err := m.target(view.Definition, name, 0)
		if err != nil {
			continue // the start will say so
		}
		for _, r := range t.resources {
			if p, ok := m.executors[r.Kind].(executor.Preparer); ok {
				m.work.Go(func() {
					ctx, cancel := context.WithTimeout(m.loop.ctx, prepareLimit)
					defer cancel()
					p.Prepare(ctx, r)
				})
			}
		}
	}
}

// occasionOf says why the group may be started here soon; the zero occasion: it will not.
func (m *member) occasionOf(view *state.State, group string) occasion {
	if i := view.Instance(group, m.name); i.Held {
		if i.State == state.Acquiring {
			return occasion{generation: i.Generation}
		}
		return occasion{}
	}
	g := view.Definition.Group(group)
	if g == nil || !g.Has(m.name) {
		return occasion{}
	}
	for _, node := range g.Nodes {
		i, n := view.Instance(group, node), view.Node(node)
		if i.Held && n != nil && n.Lost != nil && n.Dead == nil && n.Incarnation == i.Incarnation {
			return occasion{node: node, incarnation: n.Incarnation}
		}
	}
	return occasion{}
}
