package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Staged changes. The log keeps the one definition that waits for a sync; nothing acts on it. What a change would do to what runs
// is worked out by the same comparison that does it (followDefinition).

// stage keeps a definition until a sync.
func (m *member) stage(ctx context.Context, who api.Caller, c api.DefinitionChange, d *cluster.Definition) (api.Reply, error) {
	view := m.view()
	switch {
	case c.StagedVersion != view.StagedVersion:
		return api.Reply{}, api.Errorf(api.CodeConflict, "what is staged has changed meanwhile: it is version %d, the change was made from %d; read it again",
			view.StagedVersion, c.StagedVersion)
	case view.Staged == nil && view.Definition.Equal(d), view.Staged != nil && view.Staged.Definition.Equal(d):
		return api.Reply{Already: true, Index: view.Index, DefinitionVersion: view.DefinitionVersion, Sentence: "nothing changes"}, nil
	}
	res, err := m.commit(ctx, &state.Command{ID: c.ID, By: who.String(), Stage: &state.Stage{Version: c.StagedVersion, Definition: d}})
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion}, err
}

// sync makes what is staged active, in one entry.
func (m *member) sync(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error) {
	view := m.view()
	if view.Staged == nil && !m.appliedAlready(r.ID) {
		return api.Reply{Already: true, Index: view.Index, DefinitionVersion: view.DefinitionVersion, Sentence: "nothing is staged"}, nil
	}
	if view.Staged != nil {
		// A volume that was formatted meanwhile is not in what was staged before, and one that was replaced still is.
		fresh := view.Staged.Definition.Clone()
		if err := keepVolumeIDs(view.Definition, fresh); err != nil {
			return api.Reply{}, err
		}
		if !fresh.Equal(view.Staged.Definition) {
			return api.Reply{}, api.Errorf(api.CodeConflict, "a repository was formatted or lost since the changes were staged: undo them, and make them again")
		}
		if err := m.admissible(view, fresh); err != nil {
			return api.Reply{}, err
		}
	}
	if view.Staged != nil {
		if err := m.keepSnapshot(autoName(view.DefinitionVersion), "before a sync by "+who.String(), "the cluster", view.Definition, view.DefinitionVersion); err != nil {
			return api.Reply{}, api.Errorf(api.CodeRefused, "the snapshot before the sync could not be kept, nothing was activated: %v", err)
		}
	}
	res, err := m.commit(ctx, &state.Command{ID: r.ID, By: who.String(), Activate: &state.Activate{Version: r.Version}})
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion}, err
}

// undo drops what is staged.
func (m *member) undo(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error) {
	view := m.view()
	if view.Staged == nil && !m.appliedAlready(r.ID) {
		return api.Reply{Already: true, Index: view.Index, DefinitionVersion: view.DefinitionVersion, Sentence: "nothing is staged"}, nil
	}
	res, err := m.commit(ctx, &state.Command{ID: r.ID, By: who.String(), Stage: &state.Stage{Version: r.Version}})
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion}, err
}

// appliedAlready reports whether a command of this id was taken before: asking again must then give the first answer, which the
// log has, and not the sentence that nothing is staged.
func (m *member) appliedAlready(id string) bool { return m.view().Applied(id) }

// effectsOf says what a definition would do to what runs now, and which of it stops something that serves.
func effectsOf(view *state.State, d *cluster.Definition) (effects, disruptive []string) {
	d = d.Clone()
	d.Defaults()
	old := view.Definition
	stops := func(format string, args ...any) { disruptive = append(disruptive, fmt.Sprintf(format, args...)) }
	tells := func(format string, args ...any) { effects = append(effects, fmt.Sprintf(format, args...)) }
	for _, name := range view.GroupNames() {
		g := view.Group(name)
		for _, node := range sortedKeys(g.Instances) {
			if !g.Instances[node].Held {
				continue
			}
			if fresh := d.Group(name); fresh == nil {
				tells("group %s is held by node %s: this is refused until it is offline", name, node)
			} else if !fresh.Has(node) {
				tells("group %s is held by node %s, which leaves its list: this is refused until it has moved", name, node)
			} else {
				groupEffects(old, d, name, node, stops, tells)
			}
		}
	}
	for i := range old.Nodes {
		if n := old.Nodes[i].Name; d.Node(n) == nil {
			tells("node %s leaves the cluster: its copy of the log and its vote are removed", n)
		}
	}
	for i := range d.Nodes {
		if n := d.Nodes[i].Name; old.Node(n) == nil {
			tells("node %s can join with a token (clmgr add token %s)", n, n)
		}
	}
	was, err1 := definedTimings(old)
	is, err2 := definedTimings(d)
	if err1 == nil && err2 == nil && was != is {
		tells("each node takes the other timings when its deadman is armed next; groups run on")
	}
	return effects, disruptive
}

// groupEffects compares what a running group consists of.
func groupEffects(old, d *cluster.Definition, name, node string, stops, tells func(string, ...any)) {
	before, err1 := resourcesOf(old, old.Group(name), node)
	after, err2 := resourcesOf(d, d.Group(name), node)
	if err1 != nil || err2 != nil {
		return
	}
	gone, added := differ(before, after), differ(after, before)
	for _, r := range slices.Backward(gone) {
		stops("%s %s of group %s is released on node %s", r.Kind, r.Name, name, node)
	}
	for _, r := range added {
		tells("%s %s of group %s is acquired on node %s", r.Kind, r.Name, name, node)
	}
	for _, r := range before {
		k := slices.IndexFunc(after, func(x executor.Resource) bool { return resourceKey(x) == resourceKey(r) })
		if k >= 0 && resourceText(r) != resourceText(after[k]) {
			tells("%s %s of group %s runs on as it is on node %s; the change holds from its next start", r.Kind, r.Name, name, node)
		}
	}
}

// resourceText is all of a resource that a change can touch.
func resourceText(r executor.Resource) string {
	var b strings.Builder
	switch {
	case r.IP != nil:
		fmt.Fprintf(&b, "%+v", *r.IP)
	case r.VolumeGroup != nil:
		fmt.Fprintf(&b, "%+v", *r.VolumeGroup)
	case r.Export != nil:
		fmt.Fprintf(&b, "%+v", *r.Export)
	case r.FileSystem != nil:
		fmt.Fprintf(&b, "%+v", *r.FileSystem)
	case r.App != nil:
		a := *r.App
		a.Monitors = nil // they change at once
		fmt.Fprintf(&b, "%+v", a)
	}
	return b.String()
}
