package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

var snapshotWords = []string{"sn", "ss", "snapshots"}

// addSnapshot keeps the active definition, a cluster file, or what can be taken from PowerHA's snapshot.
func addSnapshot(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	keep := api.NewSnapshot{Name: t.name()}
	keep.Description, _ = s.take("DESCRIPTION")
	if name, ok := s.take("FILE"); ok {
		text, err := s.snapshotFile(name)
		if err != nil {
			return err
		}
		keep.YAML = text
	}
	r, err := s.client.AddSnapshot(ctx, keep)
	if err != nil {
		return err
	}
	return s.kept("add snapshot "+keep.Name, "is kept", r)
}

// snapshotFile reads a cluster file, or translates PowerHA's snapshot and tells what it left out.
func (s *session) snapshotFile(name string) (string, error) {
	text, err := s.readFile(name)
	if err != nil {
		return "", err
	}
	if !config.IsODM([]byte(text.YAML)) {
		if _, faults := decode(text.File, []byte(text.YAML)); len(faults) > 0 {
			return "", unusable(faults)
		}
		return text.YAML, nil
	}
	d, left, err := config.ImportODM([]byte(text.YAML))
	if err != nil {
		return "", fail(ExitNotFound, "%s: %w", text.File, err)
	}
	for _, l := range left {
		s.warn("not taken from %s: %s", text.File, l)
	}
	if err := problems(d); err != nil {
		return "", err
	}
	b, err := encode(d)
	return string(b), err
}

// kept says on which nodes something was done with a snapshot; some of them are a success with a warning.
func (s *session) kept(what, done string, r api.SnapshotReply) error {
	for _, n := range slices.Sorted(maps.Keys(r.Failed)) {
		s.warn("%s: not on node %s: %s", what, n, r.Failed[n])
	}
	if len(r.Nodes) == 0 {
		return fail(ExitFailed, "%s: done on no node", what)
	}
	return s.say(result{What: what, Result: "done", Sentence: fmt.Sprintf("%s: it %s on %s", what, done, join(r.Nodes))})
}

func querySnapshots(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	list, err := s.client.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(list.Silent)) {
		s.warn("node %s could not be asked: %s", n, list.Silent[n])
	}
	var out []record
	var names []string
	for i := range list.Snapshots {
		x := &list.Snapshots[i]
		if len(t.names) > 0 && !slices.Contains(t.names, x.Name) {
			continue
		}
		names = append(names, x.Name)
		out = append(out, record{{"NAME", x.Name}, {"DESCRIPTION", x.Description}, {"VERSION", strconv.FormatUint(x.Version, 10)},
			{"TAKEN", x.Taken.In(s.env.Location).Format(time.DateTime)}, {"BY", x.By}, {"AUTO", strconv.FormatBool(x.Auto)},
			{"NODES", strings.Join(x.Nodes, ",")}, {"DAMAGED", x.Damaged}})
	}
	for _, n := range t.names {
		if !slices.Contains(names, n) {
			return fail(ExitNotFound, "there is no snapshot %q%s", n, cluster.DidYouMean(n, snapshotNames(list)))
		}
	}
	if len(t.names) == 0 && !s.verbose && len(s.attrs) == 0 && s.form != formJSON {
		return s.printNames("snapshot", names)
	}
	return s.printChosen("snapshot", out)
}

// printChosen prints records of the tables' own classes, with the attributes of -a only. An attribute that there is none of is refused,
// as far as there is a record to see it by.
func (s *session) printChosen(class string, list []record) error {
	if len(s.attrs) == 0 {
		return s.printRecords(class, list)
	}
	out := make([]record, 0, len(list))
	for _, r := range list {
		var keep record
		for _, a := range s.attrs {
			i := slices.IndexFunc(r, func(x attribute) bool { return strings.EqualFold(x.name, a) })
			if i < 0 {
				var all []string
				for _, x := range r {
					all = append(all, x.name)
				}
				return fail(ExitNotFound, "%s has no attribute %s%s; it has: %s", class, strings.ToUpper(a),
					cluster.DidYouMean(strings.ToUpper(a), all), strings.Join(all, ", "))
			}
			keep = append(keep, r[i])
		}
		out = append(out, keep)
	}
	return s.printRecords(class, out)
}

func snapshotNames(list api.SnapshotList) []string {
	var out []string
	for i := range list.Snapshots {
		out = append(out, list.Snapshots[i].Name)
	}
	return out
}

func deleteSnapshots(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	for _, n := range t.names {
		r, err := s.client.DeleteSnapshot(ctx, n)
		if err != nil {
			return err
		}
		if err := s.kept("delete snapshot "+n, "is removed", r); err != nil {
			return err
		}
	}
	return nil
}

func viewSnapshot(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	x, err := s.client.Snapshot(ctx, t.name())
	if err != nil {
		return err
	}
	if s.form == formJSON {
		return writeJSON(s.out, x)
	}
	_, err = io.WriteString(s.out, x.YAML)
	return err
}

// compareSnapshots compares one with the active definition, or with another.
func compareSnapshots(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	first, err := s.client.Snapshot(ctx, t.names[0])
	if err != nil {
		return err
	}
	if len(t.names) == 1 {
		d, err := s.client.Diff(ctx, api.DefinitionText{YAML: first.YAML, File: first.Name})
		if err != nil {
			return err
		}
		if s.form == formJSON {
			return writeJSON(s.out, d)
		}
		s.printDiff(d)
		return nil
	}
	second, err := s.client.Snapshot(ctx, t.names[1])
	if err != nil {
		return err
	}
	a, faults := decode(first.Name, []byte(first.YAML))
	b, more := decode(second.Name, []byte(second.YAML))
	if faults = append(faults, more...); len(faults) > 0 {
		return unusable(faults)
	}
	var d api.Diff
	for _, c := range config.Diff(a, b) {
		d.Changes = append(d.Changes, api.Change{Op: c.Op, Class: c.Class, Name: c.Name, Attr: c.Attribute, From: c.Old, To: c.New})
	}
	d.Same = len(d.Changes) == 0
	if s.form == formJSON {
		return writeJSON(s.out, d)
	}
	s.printDiff(d)
	return nil
}

// restoreSnapshot makes a kept definition the active one, the way a file is applied: verified first, with its plan.
func restoreSnapshot(ctx context.Context, s *session, t *target) error {
	if len(t.names) != 2 || !strings.EqualFold(t.names[0], "restore") {
		return fail(ExitIncorrect, "manage snapshot knows one thing to do: clmgr manage snapshot restore NAME [CONFIGURE=no] [FORCE=yes]")
	}
	configure, force := true, s.force
	for attr, to := range map[string]*bool{"CONFIGURE": &configure, "FORCE": &force} {
		if v, ok := s.take(attr); ok {
			var err error
			if *to, err = cluster.ParseBool(v); err != nil {
				return fail(ExitIncorrect, "%s=%s: yes or no", attr, v)
			}
		}
	}
	name := t.names[1]
	what := "manage snapshot restore " + name
	short, cancel := s.limited(ctx)
	defer cancel()
	x, err := s.client.Snapshot(short, name)
	if err != nil {
		return err
	}
	text := api.DefinitionText{YAML: x.YAML, File: name}
	now, err := s.client.Staged(short)
	if err != nil {
		return err
	}
	if now.Staged {
		return fail(ExitFailed, "%s: changes are staged, which a restore would undo: sync or undo them first", what)
	}
	plan, err := s.client.Diff(short, text)
	if err != nil {
		return err
	}
	if s.form != formJSON {
		if err := s.showPlan(plan); err != nil {
			return err
		}
	}
	if !configure {
		return s.say(result{What: what, Result: "shown", Sentence: what + ": nothing was changed (CONFIGURE=no)"})
	}
	r, err := s.client.Verify(short, api.VerifyRequest{YAML: x.YAML, File: name, Quick: true})
	if err != nil {
		return err
	}
	if r.Failed() {
		fmt.Fprint(s.env.Stderr, reportText(&r, shown{}))
		if !force {
			return fail(ExitFailed, "%s: the verification found errors; nothing was changed (FORCE=yes goes on)", what)
		}
	}
	if err := s.confirm(what, plan, name); err != nil {
		return err
	}
	reply, err := s.applyText(ctx, what, text)
	if err != nil {
		return err
	}
	return s.changed(ctx, what, reply, "snapshot "+name+" is the active definition on all nodes")
}
