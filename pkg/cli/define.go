package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// editAttempts bounds how often an edit is made again because another one came in between.
const editAttempts = 10

// definition reads the active definition.
func (s *session) definition(ctx context.Context) (*cluster.Definition, uint64, error) {
	text, err := s.client.Definition(ctx)
	if err != nil {
		if api.CodeOf(err) == api.CodeNotConfigured {
			return nil, 0, errNoCluster()
		}
		return nil, 0, err
	}
	d, faults := decode("the active definition", []byte(text.YAML))
	if len(faults) > 0 {
		return nil, 0, fmt.Errorf("read the active definition (this clmgr may be older than the daemon): %w",
			&api.Error{Code: api.CodeInternal, Faults: faults})
	}
	return d, text.Version, nil
}

// edit changes the definition: read, change, send with the version it was made from; again if that is no longer the newest.
func (s *session) edit(ctx context.Context, what string, change func(*cluster.Definition) error) (api.Reply, error) {
	for attempt := 1; ; attempt++ {
		reply, err := s.tryEdit(ctx, what, change)
		if api.CodeOf(err) != api.CodeConflict || attempt == editAttempts || ctx.Err() != nil {
			return reply, err
		}
	}
}

func (s *session) tryEdit(ctx context.Context, what string, change func(*cluster.Definition) error) (api.Reply, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	if st, err := s.client.Status(ctx); err == nil && s.before == nil {
		s.before = &st
	}
	d, now, err := s.editable(ctx)
	if err != nil {
		return api.Reply{}, err
	}
	s.staged = !s.live && (now.Staged || s.stage || d.Settings.Staged())
	before := d.Clone()
	if err := change(d); err != nil {
		return api.Reply{}, err
	}
	if d.Equal(before) {
		return api.Reply{Already: true, DefinitionVersion: now.Version}, nil
	}
	if err := problems(d); err != nil {
		return api.Reply{}, err
	}
	text, err := encode(d)
	if err != nil {
		return api.Reply{}, fmt.Errorf("write the definition: %w", err)
	}
	return s.sendDefinition(ctx, what, api.DefinitionChange{YAML: string(text), BaseVersion: now.Version, Comment: what, Force: s.force,
		Stage: s.staged, StagedVersion: now.StagedVersion})
}

func (s *session) sendDefinition(ctx context.Context, what string, c api.DefinitionChange) (api.Reply, error) {
	c.ID = client.NewID()
	return send(ctx, s, what, func(ctx context.Context) (api.Reply, error) { return s.client.SetDefinition(ctx, c) })
}

// problems validates a changed definition here, before the cluster does, so that the words are about what was typed.
func problems(d *cluster.Definition) error {
	list := d.Validate()
	if len(list) == 0 {
		return nil
	}
	lines := make([]string, 0, len(list))
	for _, p := range list {
		lines = append(lines, p.String())
	}
	return fail(ExitNotFound, "the definition would not be valid, nothing was changed:\n%s", strings.Join(lines, "\n"))
}

// changed is the end of a change of the definition: this node has it, the cluster has drawn the consequences, and no group has
// fallen into ERROR over it.
func (s *session) changed(ctx context.Context, what string, reply api.Reply, sentence string) error {
	if s.staged {
		return s.isStaged(what, reply)
	}
	version := reply.DefinitionVersion
	inError := map[string]bool{}
	if s.before != nil {
		for i := range s.before.Groups {
			g := &s.before.Groups[i]
			inError[g.Name] = len(errorsOf(s.before, g)) > 0
		}
	}
	return s.finish(ctx, what, reply, goal{
		calm: !reply.Already,
		missing: func(st *api.Status) []string {
			var out []string
			if st.Cluster.DefinitionVersion < version {
				out = append(out, fmt.Sprintf("this node has version %d of the definition, not %d", st.Cluster.DefinitionVersion, version))
			}
			if !reply.Already {
				out = append(out, unsettled(st)...)
			}
			for i := range st.Groups {
				if g := &st.Groups[i]; !inError[g.Name] && !reply.Already {
					out = append(out, errorsOf(st, g)...)
				}
			}
			return out
		},
		done: func(*api.Status) string { return sentence },
		failed: func(st *api.Status) string {
			var out []string
			for i := range st.Groups {
				if g := &st.Groups[i]; !inError[g.Name] {
					out = append(out, errorsOf(st, g)...)
				}
			}
			if len(out) == 0 {
				return fmt.Sprintf("the cluster has settled (%s), and this node does not have version %d of the definition", st.Cluster.State, version)
			}
			return "the definition is changed, and since then " + strings.Join(out, "; ")
		},
	})
}

// knownAttributes refuses names of attributes that the class does not have, as bad input that names what there is.
func (t *target) knownAttributes(set []cluster.Assignment) error {
	for _, a := range set {
		if t.class.Attribute(a.Attribute) != nil || strings.EqualFold(a.Attribute, "NAME") {
			continue
		}
		// The class's own words for it, which know PowerHA's attributes too.
		err := t.class.Add(&cluster.Definition{}, "x", []cluster.Assignment{a})
		if err == nil || !errors.Is(err, cluster.ErrIncorrect) {
			err = fmt.Errorf("%s has no attribute %s", t.class.Name, strings.ToUpper(a.Attribute))
		}
		return fail(ExitNotFound, "%s", lineAbout(err.Error(), strings.ToUpper(a.Attribute)))
	}
	return nil
}

// lineAbout picks the line about an attribute out of a joined error.
func lineAbout(text, attr string) string {
	for l := range strings.SplitSeq(text, "\n") {
		if strings.Contains(l, "has no attribute "+attr) || strings.Contains(l, attr+" is PowerHA's") {
			return strings.TrimSuffix(l, ": "+cluster.ErrIncorrect.Error())
		}
	}
	return firstLine(text)
}

// addObject defines an object of any class.
func addObject(ctx context.Context, s *session, t *target) error {
	if t.name() == "" && !t.class.Derived {
		return fail(ExitMissing, "%s needs a name; usage: %s", t.what(), t.usage())
	}
	if err := t.knownAttributes(s.set); err != nil {
		return err
	}
	what := strings.TrimSpace(t.what() + " " + t.name())
	nameless := s.addressByName(ctx, t)
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error { return t.class.Add(d, t.name(), s.set) })
	if err != nil {
		if nameless != "" && errors.Is(err, cluster.ErrMissing) {
			return fail(ExitMissing, "%w%s", err, nameless)
		}
		return err
	}
	return s.changed(ctx, what, reply, strings.TrimSpace(t.class.Name+" "+t.name())+" is defined and active on all nodes")
}

// modifyObject changes attributes of an object.
func modifyObject(ctx context.Context, s *session, t *target) error {
	if t.name() == "" && !t.class.Singleton {
		return fail(ExitMissing, "%s needs a name; usage: %s", t.what(), t.usage())
	}
	if len(s.set) == 0 && s.foreign > 0 { // all that was asked for is so, as the notices say
		return s.changed(ctx, strings.TrimSpace(t.what()+" "+t.name()), api.Reply{Already: true, Sentence: "nothing changes"}, "nothing changes")
	}
	if len(s.set) == 0 {
		return fail(ExitMissing, "%s needs ATTR=VALUE; usage: %s", t.what(), t.usage())
	}
	if err := t.knownAttributes(s.set); err != nil {
		return err
	}
	what := strings.TrimSpace(t.what() + " " + t.name())
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error { return t.class.Modify(d, t.name(), s.set) })
	if err != nil {
		return err
	}
	return s.changed(ctx, what, reply, strings.TrimSpace(t.class.Name+" "+t.name())+" is changed and active on all nodes")
}

// deleteObjects removes objects, all or none.
func deleteObjects(ctx context.Context, s *session, t *target) error {
	if len(t.names) == 0 {
		return fail(ExitMissing, "%s needs a name; usage: %s", t.what(), t.usage())
	}
	what := t.what() + " " + strings.Join(t.names, ",")
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error {
		for _, n := range t.names {
			if err := t.class.Delete(d, n, s.force); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.changed(ctx, what, reply, t.class.Name+" "+join(t.names)+" is removed on all nodes")
}

// setPolicy changes one policy of the groups after -g, to the mode after -m.
func (s *session) setPolicy(ctx context.Context, t *target, attr string, list []mode, more ...cluster.Assignment) error {
	groups := cluster.SplitList(s.options["g"])
	if len(groups) == 0 {
		return fail(ExitMissing, "%s needs -g RG; usage: %s", t.what(), t.usage())
	}
	word, ok := s.options["m"]
	if !ok {
		return fail(ExitMissing, "%s needs -m MODE (%s); usage: %s", t.what(), strings.Join(modes(list), ", "), t.usage())
	}
	value, err := modeOf("m", word, list)
	if err != nil {
		return err
	}
	class := classNamed("resource_group")
	set := append([]cluster.Assignment{{Attribute: attr, Value: value}}, more...)
	what := t.what() + " -g " + strings.Join(groups, ",") + " -m " + word
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error {
		for _, g := range groups {
			if err := class.Modify(d, g, set); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.changed(ctx, what, reply, fmt.Sprintf("%s: %s is %s (%s)", join(groups), attr, value, cluster.PolicyWords(value)))
}

func setFallover(ctx context.Context, s *session, t *target) error {
	policy, given := s.options["p"]
	dynamic := false
	if m, ok := s.options["m"]; ok {
		v, err := modeOf("m", m, falloverModes)
		if err != nil {
			return err
		}
		dynamic = v == "FUDNP"
	}
	switch {
	case given && !dynamic:
		return fail(ExitIncorrect, "%s: -p goes only with -m dynamic", t.what())
	case given:
		return s.setPolicy(ctx, t, "FALLOVER", falloverModes, cluster.Assignment{Attribute: "NODE_PRIORITY_POLICY", Value: policy})
	case dynamic:
		return s.setDynamic(ctx, t)
	}
	// A policy of dynamic node priority means nothing with another fallover policy, and would not be valid.
	return s.setPolicy(ctx, t, "FALLOVER", falloverModes, cluster.Assignment{Attribute: "NODE_PRIORITY_POLICY", Value: ""})
}

// setDynamic keeps the priority policy that a group has; one that has none gets cpu.
func (s *session) setDynamic(ctx context.Context, t *target) error {
	d, _, err := s.definition(ctx)
	if err != nil {
		return err
	}
	for _, g := range cluster.SplitList(s.options["g"]) {
		if rg := d.Group(g); rg != nil && rg.NodePriorityPolicy == "" {
			return s.setPolicy(ctx, t, "FALLOVER", falloverModes, cluster.Assignment{Attribute: "NODE_PRIORITY_POLICY", Value: cluster.PriorityCPU})
		}
	}
	return s.setPolicy(ctx, t, "FALLOVER", falloverModes)
}

func setFallback(ctx context.Context, s *session, t *target) error {
	return s.setPolicy(ctx, t, "FALLBACK", fallbackModes)
}

func setStartup(ctx context.Context, s *session, t *target) error {
	return s.setPolicy(ctx, t, "STARTUP", startupModes)
}

// export prints the active definition.
func export(ctx context.Context, s *session, _ *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	d, err := s.client.Definition(ctx)
	if err != nil {
		return err
	}
	if s.form == formJSON {
		return writeJSON(s.out, d)
	}
	_, err = io.WriteString(s.out, d.YAML)
	return err
}

// readFile reads a cluster file, of bounded size.
func (s *session) readFile(name string) (api.DefinitionText, error) {
	r := s.env.Stdin
	shown := "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return api.DefinitionText{}, fail(ExitNotFound, "%w", err)
		}
		defer func() { _ = f.Close() }()
		r, shown = f, name
	}
	b, err := io.ReadAll(io.LimitReader(r, api.MaxDefinition+1))
	if err != nil {
		return api.DefinitionText{}, fail(ExitNotFound, "read %s: %w", shown, err)
	}
	if len(b) > api.MaxDefinition {
		return api.DefinitionText{}, fail(ExitNotFound, "%s is longer than %d bytes, which no cluster file is", shown, api.MaxDefinition)
	}
	return api.DefinitionText{YAML: string(b), File: shown}, nil
}

// clusterFile reads the file after -f and finds all its faults.
func (s *session) clusterFile(t *target) (api.DefinitionText, error) {
	name, ok := s.options["f"]
	if !ok {
		return api.DefinitionText{}, fail(ExitMissing, "%s needs -f FILE; usage: %s", t.what(), t.usage())
	}
	return s.checkedFile(name)
}

func (s *session) checkedFile(name string) (api.DefinitionText, error) {
	text, err := s.readFile(name)
	if err != nil {
		return text, err
	}
	if _, faults := decode(text.File, []byte(text.YAML)); len(faults) > 0 {
		return text, unusable(faults)
	}
	return text, nil
}

// unusable is the error of a file with faults: each with its place, and the promise that nothing was done.
func unusable(faults []api.Fault) error {
	e := &api.Error{Code: api.CodeInvalid, Faults: faults}
	n := "1 fault"
	if len(faults) > 1 {
		n = fmt.Sprintf("%d faults", len(faults))
	}
	return fail(ExitNotFound, "%w\n%s; nothing was changed", e, n)
}

func diff(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	text := api.DefinitionText{Staged: true}
	if _, given := s.options["f"]; given {
		var err error
		if text, err = s.clusterFile(t); err != nil {
			return err
		}
	}
	d, err := s.client.Diff(ctx, text)
	if err != nil {
		return err
	}
	if s.form == formJSON {
		return writeJSON(s.out, d)
	}
	if text.Staged && d.Same {
		fmt.Fprintln(s.out, "no difference: nothing is staged")
		return nil
	}
	s.printDiff(d)
	return nil
}

func (s *session) printDiff(d api.Diff) {
	if d.Same {
		fmt.Fprintln(s.out, "no difference")
		return
	}
	for _, c := range d.Changes {
		fmt.Fprintln(s.out, printable(changeLine(c)))
	}
	for _, e := range d.Effects {
		fmt.Fprintln(s.out, printable("=> "+e))
	}
	for _, e := range d.Disruptive {
		fmt.Fprintln(s.out, printable("!! "+e))
	}
}

func changeLine(c api.Change) string {
	object := c.Class + " " + c.Name
	switch {
	case c.Op == "add" && c.Attr == "":
		return "+ " + object
	case c.Op == "add":
		return fmt.Sprintf("+ %s %s: %q", object, c.Attr, c.To)
	case c.Op == "delete":
		return "- " + object
	case c.Op == "reorder":
		return fmt.Sprintf("~ %s order: %s -> %s", object, c.From, c.To)
	}
	return fmt.Sprintf("~ %s %s: %q -> %q", object, c.Attr, c.From, c.To)
}

// applyText replaces the definition, whatever it is then: the file says all of it, so there is nothing to merge.
func (s *session) applyText(ctx context.Context, what string, text api.DefinitionText) (api.Reply, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		old, err := s.client.Staged(ctx)
		if err != nil {
			if api.CodeOf(err) == api.CodeNotConfigured {
				return api.Reply{}, fail(ExitDependency, "this node belongs to no cluster yet: found it with clmgr add cluster FILE=%s", text.File)
			}
			return api.Reply{}, err
		}
		if st, err := s.client.Status(ctx); err == nil && s.before == nil {
			s.before = &st
		}
		reply, err := s.sendDefinition(ctx, what, api.DefinitionChange{
			YAML: text.YAML, BaseVersion: old.Version, File: text.File, Comment: what, Force: s.force, Stage: s.staged, StagedVersion: old.StagedVersion})
		if api.CodeOf(err) != api.CodeConflict || attempt == editAttempts {
			return reply, err
		}
	}
}
