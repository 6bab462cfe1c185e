package state

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func (t *tx) nodeServices(c *NodeServices) {
	if (c.Start == "") == (c.Stop == "") {
		t.refuse("either start or stop cluster services")
		return
	}
	nodes := c.Nodes
	if len(nodes) == 0 {
		nodes = t.s.NodeNames()
	}
	var able []string
	for _, name := range nodes {
		why := t.s.servicesRefused(name, c)
		if why != "" && len(c.Nodes) > 0 {
			t.refuse("%s", why)
			return
		}
		if why == "" {
			able = append(able, name)
		}
	}
	switch {
	case c.Start != "":
		for _, name := range able {
			t.startServices(name, c.Start)
		}
	default:
		mode := c.Stop
		if mode == StopMove && t.s.stopsAll(able) {
			mode = StopOffline // there is nowhere to move to
		}
		for _, name := range able {
			t.stopServices(name, mode)
		}
		if len(able) > 0 {
			t.lastNodeGone(true)
		}
	}
}

// servicesRefused says why services cannot be started or stopped on the node.
func (s *State) servicesRefused(name string, c *NodeServices) string {
	n := s.Nodes[name]
	verb := "started"
	if c.Stop != "" {
		verb = "stopped"
	}
	cannot := "cluster services of node " + name + " cannot be " + verb + ": "
	switch {
	case n == nil:
		return cannot + "there is no such node in the definition"
	case n.Incarnation == 0:
		return cannot + "its daemon has not been seen yet"
	case n.Dead != nil:
		return cannot + "the node is dead (" + n.Dead.String() + ") and has not booted since"
	case n.Lost != nil:
		return cannot + "the node is silent (" + n.Lost.Sentence + ")"
	case c.Start != "" && c.Start != StartAuto && c.Start != StartManual:
		return cannot + "there is no start mode " + string(c.Start)
	case c.Stop != "" && c.Stop != StopOffline && c.Stop != StopMove && c.Stop != StopUnmanage:
		return cannot + "there is no stop mode " + string(c.Stop)
	case n.Services == ServicesStopping && c.Start != "":
		return cannot + "they are being stopped"
	}
	return ""
}

// stopsAll reports whether no node outside the list is up.
func (s *State) stopsAll(nodes []string) bool {
	going := map[string]bool{}
	for _, n := range nodes {
		going[n] = true
	}
	for name, n := range s.Nodes {
		if n.Up() && !going[name] {
			return false
		}
	}
	return true
}

// startServices starts them; a node that runs them already, however started, is left as it is.
func (t *tx) startServices(name string, mode StartMode) {
	n := t.s.Nodes[name]
	if n.Services == ServicesOn || n.Services == ServicesManual {
		return
	}
	w := t.node(name)
	w.Services, w.StopMode = ServicesOn, ""
	if mode == StartManual {
		w.Services = ServicesManual
	}
	w.UpSince, w.AbleSince = t.e.Index, t.e.Index
	t.event(EventNodeUp, name, "", "cluster services of node %s have started (%s)", name, mode)
	t.each(name, func(d *cluster.ResourceGroup, g *Group) {
		if i := g.Instances[name]; i != nil && i.State == Offline && i.DueTo == DueToNodeForcedDown {
			t.instance(d.Name, name).DueTo = "" // it was for as long as the services were stopped
		}
	})
	t.adopt(name, w.Incarnation)
	t.joined(name, mode == StartAuto)
}

// adopt takes back what runs unmanaged on the node: it keeps node, incarnation and generation, and the node adopts it.
func (t *tx) adopt(node string, incarnation uint64) {
	t.each(node, func(d *cluster.ResourceGroup, g *Group) {
		if i := g.Instances[node]; i != nil && i.State == Unmanaged {
			t.manage(d, node, incarnation)
		}
	})
}

// manage ends UNMANAGED of one instance. That it lies outside every lease ends only when its node says that it has adopted it.
func (t *tx) manage(d *cluster.ResourceGroup, node string, incarnation uint64) {
	w := t.instance(d.Name, node)
	w.Outside = w.Held
	switch {
	case w.Held && w.Incarnation == incarnation:
		t.turn(w, Acquiring, "node "+node+" takes it back from UNMANAGED")
		t.group(d.Name).Phase = PhaseActive
	case w.Held: // of an earlier boot: the proof of its end is still wanted
		t.turn(w, Error, "it ran UNMANAGED on an earlier boot of node "+node+" whose end is not proven")
	default:
		t.turn(w, Offline, "node "+node+" has booted since it ran there UNMANAGED")
		if g := t.group(d.Name); g.Phase == PhaseActive && len(heldNodes(g)) == 0 {
			g.Phase = PhaseStart
		}
	}
}

// joined tells the groups of a node's list that the node is able again. A manual start acquires nothing on its account.
func (t *tx) joined(node string, auto bool) {
	t.each(node, func(d *cluster.ResourceGroup, g *Group) {
		t.unmark(d.Name, node)
		if !auto {
			return
		}
		if d.Concurrent() {
			t.joinedConcurrent(d, node)
			return
		}
		switch {
		case g.Phase == PhaseError && free(g) && t.s.onlyUp(node): // all nodes were gone
			t.restart(d)
		case g.Phase == PhaseParked, g.Phase == PhaseRecover && d.Fallover == cluster.FalloverBringOffline && free(g):
			t.restart(d)
		case g.Phase == PhaseError && free(g):
			t.retry(d)
		}
		if g = t.s.Groups[d.Name]; g.Phase == PhaseStart && d.Startup == cluster.OnlineOnFirstAvailable && g.SettleUntil.IsZero() {
			if settle := t.s.Definition.Settings.SettlingTime; settle > 0 {
				t.group(d.Name).SettleUntil = t.at().Add(settle)
			}
		}
	})
}

// onlyUp reports whether no other node has its services started. A silent node may: it is not gone before that is proven.
func (s *State) onlyUp(node string) bool {
	for name, n := range s.Nodes {
		if name != node && n.takesPart() {
			return false
		}
	}
	return true
}

// takesPart reports whether the node's services run or are being stopped, as far as is known.
func (n *Node) takesPart() bool {
	return n.Dead == nil && (n.Services == ServicesOn || n.Services == ServicesManual || n.Services == ServicesStopping)
}

func (t *tx) joinedConcurrent(d *cluster.ResourceGroup, node string) {
	g := t.group(d.Name)
	g.OfflineOn = without(g.OfflineOn, node)
	if i := g.Instances[node]; i != nil && !i.Held && i.State == Error {
		t.turn(t.instance(d.Name, node), Offline, "")
	}
}

func free(g *Group) bool { return len(heldNodes(g)) == 0 }

// restart puts a free group under its startup policy.
func (t *tx) restart(d *cluster.ResourceGroup) {
	g := t.group(d.Name)
	g.Phase, g.Tried, g.Intent, g.ErrorForNetwork, g.SettleUntil = PhaseStart, nil, nil, false, time.Time{}
	t.endErrors(d)
}

// retry ends ERROR of a free group: a new recovery chain begins.
func (t *tx) retry(d *cluster.ResourceGroup) {
	if d.Fallover == cluster.FalloverBringOffline {
		t.restart(d)
		return
	}
	g := t.group(d.Name)
	g.Phase, g.Tried, g.Intent, g.ErrorForNetwork = PhaseRecover, nil, nil, false
	t.endErrors(d)
}

// endErrors shows OFFLINE where an ERROR stood that holds nothing.
func (t *tx) endErrors(d *cluster.ResourceGroup) {
	for _, node := range d.Nodes {
		if i := t.s.Groups[d.Name].Instances[node]; i != nil && !i.Held && (i.State == Error || i.State == TempError) {
			t.turn(t.instance(d.Name, node), Offline, "")
		}
	}
}

func (t *tx) stopServices(name string, mode StopMode) {
	n := t.s.Nodes[name]
	switch n.Services {
	case ServicesOff, "":
		return
	case ServicesStopping:
		if n.StopMode == mode || mode == StopUnmanage {
			return // what is being released is finished
		}
	case ServicesUnmanaged:
		return
	}
	w := t.node(name)
	w.UpSince = 0
	t.event(EventNodeDown, name, "", "cluster services of node %s are being stopped (%s) by %s", name, mode, t.by())
	t.dropOverrides(name)
	if mode == StopUnmanage {
		w.Services, w.StopMode = ServicesUnmanaged, ""
		t.each(name, func(d *cluster.ResourceGroup, g *Group) {
			if i := g.Instances[name]; i != nil && i.Held && (i.State == Online || i.State == Acquiring) {
				t.turn(t.instance(d.Name, name), Unmanaged, "cluster services of node "+name+" were stopped with its groups left running")
			}
		})
		t.event(EventNodeDownComplete, name, "", "cluster services of node %s are stopped, its groups left running", name)
		return
	}
	w.Services, w.StopMode = ServicesStopping, mode
	t.stopped(name)
}

// stopped completes a stop when the node holds nothing any more.
func (t *tx) stopped(name string) {
	n := t.s.Nodes[name]
	if n.Services != ServicesStopping {
		return
	}
	for _, g := range t.s.Groups {
		if i := g.Instances[name]; i != nil && i.Held && i.State != Unmanaged {
			return
		}
	}
	w := t.node(name)
	w.Services, w.StopMode = ServicesOff, ""
	t.event(EventNodeDownComplete, name, "", "cluster services of node %s are stopped", name)
	t.lastNodeGone(true)
}
