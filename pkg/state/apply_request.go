package state

import (
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// requested finds the group of an operator's request, and refuses it if there is none.
func (t *tx) requested(group string) (*cluster.ResourceGroup, *Group) {
	d, g := t.s.definition(group), t.s.Groups[group]
	if d == nil || g == nil {
		t.refuse("there is no group %s in the definition", group)
		return nil, nil
	}
	return d, g
}

// moveGroup makes the node the group's first priority; for a concurrent group it wants an instance there.
func (t *tx) moveGroup(group, node string) {
	d, g := t.requested(group)
	switch {
	case d == nil:
		return
	case !d.Has(node):
		t.refuse("node %s is not in the list of group %s", node, group)
		return
	case d.Concurrent():
		t.onlineConcurrent(d, node)
		return
	}
	holder, i := g.Holder()
	if holder == node && (i.State == Online || i.State == Acquiring) && !g.Offline && g.Override != nil && g.Override.Node == node {
		return // it is so
	}
	t.event(EventExternalStateChange, node, group, "group %s is to run on node %s: asked by %s", group, node, t.by())
	w := t.group(group)
	w.Override = &Override{Node: node, By: t.e.Command.By, At: t.at()}
	w.Offline, w.Dynamic = false, 0
	t.unmark(group, node)
	t.supersede(group, node)
	t.again(d, PhaseRequest)
}

// supersede forgets the operator's older placements of the group's same-node set, and its groups' failures on the node: they move as one.
func (t *tx) supersede(group, node string) {
	for _, dep := range t.s.Definition.Dependencies {
		if !slices.Contains(dep.SameNode, group) {
			continue
		}
		for _, other := range dep.SameNode {
			g := t.s.Groups[other]
			if g == nil || other == group {
				continue
			}
			if g.Override != nil {
				t.group(other).Override = nil
			}
			t.unmark(other, node)
		}
	}
}

func (t *tx) onlineGroup(c *OnlineGroup) {
	d, _ := t.requested(c.Group)
	switch {
	case d == nil:
	case c.Node != "":
		t.moveGroup(c.Group, c.Node)
	case d.Concurrent():
		t.onlineConcurrent(d, "")
	default:
		t.event(EventExternalStateChange, "", c.Group, "group %s is to be online: asked by %s", c.Group, t.by())
		t.group(c.Group).Offline = false
		t.again(d, PhaseRequest)
	}
}

// again ends the recovery chain and ERROR of an exclusive group, and tries a failed release again.
func (t *tx) again(d *cluster.ResourceGroup, phase Phase) {
	g := t.group(d.Name)
	g.Tried, g.ErrorForNetwork = nil, false
	t.endErrors(d)
	if free(g) {
		g.Phase, g.Intent = phase, nil
		return
	}
	t.startOver(d)
}

// startOver tries failed releases once more; whatever they were for, the group is to run now.
func (t *tx) startOver(d *cluster.ResourceGroup) {
	t.releaseAgain(d)
	for _, node := range d.Nodes {
		if i := t.s.Groups[d.Name].Instances[node]; i != nil && i.Held && i.State == Error && i.Retry {
			t.instance(d.Name, node).Cause = CauseMove
		}
	}
}

// releaseAgain lets the planner ask the nodes once more to release what they could not. Nothing is taken to be gone.
func (t *tx) releaseAgain(d *cluster.ResourceGroup) {
	for _, node := range d.Nodes {
		i := t.s.Groups[d.Name].Instances[node]
		if i == nil || !i.Held || i.State != Error || !t.s.Current(node, i.Incarnation) {
			continue
		}
		t.instance(d.Name, node).Retry = true
	}
}

func (t *tx) onlineConcurrent(d *cluster.ResourceGroup, node string) {
	t.event(EventExternalStateChange, node, d.Name, "group %s is to be online%s: asked by %s", d.Name, onNode(node), t.by())
	g := t.group(d.Name)
	g.Offline = false
	if n := t.s.Nodes[node]; n != nil && n.Services == ServicesManual { // there it starts only for the operator
		g.Override = &Override{Node: node, By: t.e.Command.By, At: t.at()}
	}
	if g.Phase == PhaseError || g.Phase == PhaseParked {
		g.Phase = PhaseStart
	}
	for _, n := range d.Nodes {
		if node != "" && n != node {
			continue
		}
		g.OfflineOn = without(g.OfflineOn, n)
		t.unmark(d.Name, n)
		if i := g.Instances[n]; i != nil && !i.Held && i.State == Error {
			t.turn(t.instance(d.Name, n), Offline, "")
		}
	}
	t.startOver(d)
}

func (t *tx) offlineGroup(c *OfflineGroup) {
	d, g := t.requested(c.Group)
	if d == nil {
		return
	}
	if c.Node != "" && !d.Has(c.Node) {
		t.refuse("node %s is not in the list of group %s", c.Node, c.Group)
		return
	}
	if c.Node != "" && d.Concurrent() {
		t.event(EventExternalStateChange, c.Node, c.Group, "group %s is to be offline on node %s: asked by %s", c.Group, c.Node, t.by())
		t.group(c.Group).OfflineOn = with(g.OfflineOn, c.Node)
		t.endErrors(d)
		return
	}
	if holder, _ := g.Holder(); c.Node != "" && holder != c.Node {
		i := g.Instances[c.Node]
		if i == nil || i.State != Error && i.State != TempError {
			return // it is so
		}
	}
	t.event(EventExternalStateChange, c.Node, c.Group, "group %s is to be offline: asked by %s", c.Group, t.by())
	w := t.group(c.Group)
	w.Offline, w.Override, w.ErrorForNetwork = true, nil, false
	t.endErrors(d)
	if free(w) {
		w.Phase, w.Intent, w.Tried = PhaseParked, nil, nil
	}
}

func (t *tx) unsetPriority(c *UnsetPriority) {
	d, g := t.requested(c.Group)
	if d == nil || g.Override == nil {
		return
	}
	t.group(c.Group).Override = nil
	t.event(EventExternalStateChange, "", c.Group, "the placement of group %s on node %s is forgotten: asked by %s", c.Group, g.Override.Node, t.by())
}

func (t *tx) suspendGroup(group string, suspend bool) {
	d, g := t.requested(group)
	if d == nil || g.Suspended == suspend {
		return
	}
	t.group(group).Suspended = suspend
	words := "resumed"
	if suspend {
		words = "suspended: the cluster watches it and does not touch it"
	}
	t.event(EventExternalStateChange, "", group, "group %s is %s: asked by %s", group, words, t.by())
}

func (t *tx) clearGroup(c *ClearGroup) {
	d, g := t.requested(c.Group)
	if d == nil {
		return
	}
	if len(g.Marks) == 0 && len(g.Tried) == 0 && g.Phase != PhaseError && !anyState(g, Error) && !anyState(g, TempError) {
		return // there is nothing to clear
	}
	t.event(EventExternalStateChange, "", c.Group, "the errors of group %s are cleared by %s", c.Group, t.by())
	t.group(c.Group).Dynamic = 0
	for _, node := range d.Nodes {
		t.unmark(c.Group, node)
		if i := t.s.Groups[c.Group].Instances[node]; i != nil && i.Failed && i.State == Online {
			t.instance(c.Group, node).Failed = false // if it still fails, its node says so again
		}
	}
	switch g = t.s.Groups[c.Group]; {
	case g.Phase == PhaseError && !d.Concurrent() && free(g):
		t.retry(d)
	default:
		w := t.group(c.Group)
		w.Tried, w.ErrorForNetwork = nil, false
		t.endErrors(d)
		t.releaseAgain(d)
	}
}

func (t *tx) unmanageGroup(c *UnmanageGroup) {
	d, g := t.requested(c.Group)
	if d == nil {
		return
	}
	for _, node := range d.Nodes {
		i := g.Instances[node]
		if i == nil || !i.Held || i.State != Online && i.State != Acquiring || !t.s.Current(node, i.Incarnation) {
			continue
		}
		t.turn(t.instance(c.Group, node), Unmanaged, "unmanaged by "+t.by())
		t.event(EventExternalStateChange, node, c.Group, "group %s is UNMANAGED on node %s: asked by %s", c.Group, node, t.by())
	}
}

func (t *tx) manageGroup(c *ManageGroup) {
	d, g := t.requested(c.Group)
	if d == nil {
		return
	}
	for _, node := range d.Nodes {
		i, n := g.Instances[node], t.s.Nodes[node]
		if i == nil || i.State != Unmanaged {
			continue
		}
		if !n.Up() {
			t.refuse("group %s cannot be managed on node %s: its cluster services are not up", c.Group, node)
			return
		}
	}
	for _, node := range d.Nodes {
		if i := g.Instances[node]; i != nil && i.State == Unmanaged {
			t.manage(d, node, t.s.Nodes[node].Incarnation)
			t.event(EventExternalStateChange, node, c.Group, "group %s is managed again on node %s: asked by %s", c.Group, node, t.by())
		}
	}
}

func onNode(node string) string {
	if node == "" {
		return ""
	}
	return " on node " + node
}
