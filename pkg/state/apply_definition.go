package state

import (
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func (t *tx) create(c *Create) {
	switch {
	case t.s.Definition != nil:
		t.refuse("the cluster %s exists already", t.s.Definition.Name)
	case c.Definition == nil || c.ClusterID == "":
		t.refuse("a cluster needs an id and a definition")
	default:
		t.s.ClusterID, t.s.Epoch = c.ClusterID, 1
		t.s.Generation = 1 << generationBits
		t.install(c.Definition)
		t.event(EventConfiguration, "", "", "the cluster %s was created", c.Definition.Name)
	}
}

func (t *tx) setDefinition(c *SetDefinition) {
	if c.Definition == nil {
		t.refuse("there is no definition in the request")
		return
	}
	if c.Base != t.s.DefinitionVersion {
		t.refuse("the definition was changed in the meantime: this change was made from version %d, the newest is %d", c.Base, t.s.DefinitionVersion)
		return
	}
	if s := t.s.Staged; s != nil {
		// It was made from a definition that would then be gone, and its sync would undo this change.
		t.refuse("changes are staged since %s by %s: sync or undo them first", s.Since.UTC().Format("2006-01-02 15:04"), orSomebody(s.By))
		return
	}
	if why := t.s.unsafeDefinition(c.Definition); why != "" {
		t.refuse("%s", why)
		return
	}
	t.install(c.Definition)
	t.event(EventConfiguration, "", "", "definition version %d is active", t.s.DefinitionVersion)
}

func orSomebody(by string) string {
	if by == "" {
		return "somebody"
	}
	return by
}

// stage keeps a definition, or drops the one that is kept. Neither touches what nodes and groups are judged by.
func (t *tx) stage(c *Stage) {
	switch {
	case t.s.Definition == nil:
		t.refuse("there is no cluster yet")
		return
	case c.Version != t.s.StagedVersion:
		t.refuse("what is staged was changed in the meantime: this change was made from version %d of it, the newest is %d", c.Version, t.s.StagedVersion)
		return
	case c.Definition == nil && t.s.Staged == nil:
		t.refuse("nothing is staged")
		return
	}
	t.s.StagedVersion++
	if c.Definition == nil {
		t.s.Staged = nil
		t.event(EventStaged, "", "", "the staged changes are dropped; version %d of the definition stays active", t.s.DefinitionVersion)
		return
	}
	next := &Staged{Definition: c.Definition, Base: t.s.DefinitionVersion, Since: t.at(), By: t.e.Command.By}
	if old := t.s.Staged; old != nil {
		next.Base, next.Since = old.Base, old.Since
	}
	t.s.Staged = next
	t.event(EventStaged, "", "", "changes are staged; version %d of the definition stays active until a sync", t.s.DefinitionVersion)
}

// activate is the one entry that makes the staged definition active. While one is staged no other change is taken, so it was made
// from the active one; the check of its base repeats that.
func (t *tx) activate(c *Activate) {
	s := t.s.Staged
	switch {
	case s == nil:
		t.refuse("nothing is staged")
		return
	case c.Version != t.s.StagedVersion:
		t.refuse("what is staged was changed in the meantime: version %d of it was verified, the newest is %d", c.Version, t.s.StagedVersion)
		return
	case s.Base != t.s.DefinitionVersion:
		t.refuse("what is staged was made from version %d of the definition, the newest is %d: undo it", s.Base, t.s.DefinitionVersion)
		return
	}
	if why := t.s.unsafeDefinition(s.Definition); why != "" {
		t.refuse("%s", why)
		return
	}
	t.s.Staged = nil
	t.s.StagedVersion++
	t.install(s.Definition)
	t.event(EventConfiguration, "", "", "definition version %d is active, by a sync", t.s.DefinitionVersion)
}

// replaceVolume puts a backup of the repository volume in the place of the one that is lost.
func (t *tx) replaceVolume(c *ReplaceVolume) {
	if t.s.Definition.Settings.NoRepositoryReplacement {
		t.refuse("a lost repository volume is not replaced by itself: REPOSITORY_AUTO_REPLACE is false")
		return
	}
	next, err := t.s.Definition.ReplaceLostRepository(c.From, c.To)
	if err != nil {
		t.refuse("the repository volume cannot be replaced: %v", err)
		return
	}
	t.install(next)
	if old := t.s.Staged; old != nil {
		staged := *old
		staged.Base = t.s.DefinitionVersion
		if d, err := old.Definition.ReplaceLostRepository(c.From, c.To); err == nil { // else it is about other volumes
			staged.Definition = d
			t.s.StagedVersion++ // what was verified for a sync is not this
		}
		t.s.Staged = &staged
	}
	t.event(EventRepositoryReplaced, "", "", "%s", c.Sentence)
}

// unsafeDefinition says what a new definition would hide or double; empty if nothing.
func (s *State) unsafeDefinition(d *cluster.Definition) string {
	for _, name := range s.NodeNames() {
		if n := s.Nodes[name]; d.Node(name) == nil && n != nil {
			switch {
			case n.Alive() && n.Services != ServicesOff:
				return "node " + name + " cannot be removed: its cluster services are " + string(n.Services) + "; stop them first"
			case s.holdsAnything(name):
				return "node " + name + " cannot be removed: it holds groups, or may hold them"
			case n.Lost != nil && n.Dead == nil && (n.Armed != nil || n.Forced):
				return "node " + name + " cannot be removed: it is silent and its end is not proven"
			}
		}
	}
	for i := range s.Definition.ResourceGroups {
		old := &s.Definition.ResourceGroups[i]
		g := s.Groups[old.Name]
		if g == nil {
			continue
		}
		held := heldNodes(g)
		now := d.Group(old.Name)
		switch {
		case len(held) == 0:
		case now == nil:
			return "group " + old.Name + " cannot be removed: it is held by node " + held[0] + "; bring it offline first"
		case len(held) > 1 && !now.Concurrent():
			return "group " + old.Name + " cannot become exclusive: nodes " + held[0] + " and " + held[1] + " hold it"
		}
		for _, node := range held {
			if now != nil && !now.Has(node) {
				return "node " + node + " cannot leave the list of group " + old.Name + ": it holds the group; move it first"
			}
		}
	}
	return ""
}

func heldNodes(g *Group) []string {
	var out []string
	for node, i := range g.Instances {
		if i.Held {
			out = append(out, node)
		}
	}
	slices.Sort(out)
	return out
}

// holdsAnything reports whether any incarnation of the node holds an instance.
func (s *State) holdsAnything(node string) bool {
	for _, g := range s.Groups {
		if i := g.Instances[node]; i != nil && i.Held {
			return true
		}
	}
	return false
}

// install makes the definition the current one, and fits nodes, groups and timers to it.
func (t *tx) install(d *cluster.Definition) {
	old := t.s.Definition
	t.s.Definition = d
	t.s.DefinitionVersion++
	t.ownNodes()
	t.ownGroups()
	t.endRemoved(d)
	for name := range t.s.Nodes {
		if d.Node(name) == nil {
			t.retire(name)
		}
	}
	for i := range d.Nodes {
		if name := d.Nodes[i].Name; t.s.Nodes[name] == nil {
			t.s.Nodes[name] = &Node{Name: name, Services: ServicesOff}
		}
	}
	for name := range t.s.Groups {
		if d.Group(name) == nil {
			delete(t.s.Groups, name)
		}
	}
	for i := range d.ResourceGroups {
		t.fitGroup(&d.ResourceGroups[i])
	}
	t.fitTimers(old, d)
}

// retire forgets a node that was removed, but for the number of its last boot.
func (t *tx) retire(name string) {
	if last := t.s.Nodes[name].Incarnation; last > 0 {
		t.s.Retired = copyMap(t.s.Retired)
		t.s.Retired[name] = last
	}
	t.revoke(name)
	delete(t.s.Nodes, name)
}

// fitGroup makes or trims the state of one group.
func (t *tx) fitGroup(d *cluster.ResourceGroup) {
	g := t.s.Groups[d.Name]
	if g == nil {
		t.s.Groups[d.Name] = &Group{Name: d.Name, Phase: PhaseStart}
		return
	}
	var gone []string
	for node := range g.Instances {
		if !d.Has(node) {
			gone = append(gone, node)
		}
	}
	for _, node := range gone {
		t.dropInstance(d.Name, node)
	}
	gone = gone[:0]
	for node := range g.Marks {
		if !d.Has(node) {
			gone = append(gone, node)
		}
	}
	for _, node := range gone {
		t.unmark(d.Name, node)
	}
	keep := func(list []string) []string {
		var out []string
		for _, n := range list {
			if d.Has(n) {
				out = append(out, n)
			}
		}
		return out
	}
	w := t.group(d.Name)
	w.Tried, w.OfflineOn = keep(w.Tried), keep(w.OfflineOn)
	if w.Override != nil && !d.Has(w.Override.Node) {
		w.Override = nil
	}
}

// fitTimers keeps a timer whose rule did not change, and computes the next firing of the others.
func (t *tx) fitTimers(old, d *cluster.Definition) {
	now := map[string]*Timer{}
	for i := range d.FallbackTimers {
		rule := d.FallbackTimers[i]
		if was := t.s.Timers[rule.Name]; was != nil && old != nil {
			if r := old.FallbackTimer(rule.Name); r != nil && *r == rule {
				now[rule.Name] = was
				continue
			}
		}
		now[rule.Name] = &Timer{Name: rule.Name, Due: NextFiring(rule, t.at())}
	}
	t.s.Timers, t.ownMaps.timers = now, true
}

func (t *tx) setMember(c *SetMember) {
	n := t.s.Nodes[c.Node]
	switch {
	case n == nil:
		t.refuse("there is no node %s in the definition", c.Node)
		return
	case n.RaftID == c.RaftID:
		return
	}
	for _, name := range t.s.NodeNames() {
		if o := t.s.Nodes[name]; c.RaftID != "" && o != nil && o.RaftID == c.RaftID {
			t.refuse("the server id %s belongs to node %s", c.RaftID, name)
			return
		}
	}
	t.node(c.Node).RaftID = c.RaftID
	if c.Cert != 0 {
		w := t.certs()
		w.Floors[c.Node] = max(w.Floors[c.Node], c.Cert)
		if w.Wanted[c.Node] <= c.Cert {
			delete(w.Wanted, c.Node)
		}
	}
	t.event(EventMember, c.Node, "", "node %s takes part under the server id %q", c.Node, c.RaftID)
}

// newEpoch follows a forced configuration. What other nodes hold is unknown then: each is taken to hold every group of its
// list, so the exclusive rule blocks every start until it is proven otherwise.
func (t *tx) newEpoch(c *NewEpoch) {
	if c.Epoch != t.s.Epoch+1 || c.Epoch > maxEpoch {
		t.refuse("the epoch is %d, it cannot become %d", t.s.Epoch, c.Epoch)
		return
	}
	for _, d := range c.Dead {
		if t.s.Nodes[d] == nil {
			t.refuse("there is no node %s in the definition", d)
			return
		}
	}
	t.s.Epoch, t.s.Generation = c.Epoch, c.Epoch<<generationBits
	t.event(EventEpoch, "", "", "the configuration was forced: epoch %d begins", c.Epoch)
	for _, name := range t.s.NodeNames() {
		n := t.s.Nodes[name]
		if n.Incarnation == 0 || n.Dead != nil {
			continue
		}
		if slices.Contains(c.Dead, name) {
			t.die(name, n.Incarnation, ProofOperator, "named dead when the configuration was forced")
			continue
		}
		w := t.node(name)
		w.Forced, w.Armed, w.Arming = true, nil, ""
		t.each(name, func(d *cluster.ResourceGroup, g *Group) {
			if i := g.Instances[name]; i != nil && i.Held {
				return
			}
			t.s.Generation++
			i := t.instance(d.Name, name)
			*i = Instance{State: Unknown, Held: true, Incarnation: n.Incarnation, Generation: t.s.Generation, Since: t.e.Index,
				Sentence: "the configuration was forced: what the node holds is not known"}
		})
	}
}
