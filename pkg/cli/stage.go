package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// editable reads what the next change is made from: what is staged, if anything is, else the active definition.
func (s *session) editable(ctx context.Context) (*cluster.Definition, api.Definition, error) {
	read := s.client.Staged
	if s.live {
		read = s.client.Definition
	}
	text, err := read(ctx)
	if err != nil {
		if api.CodeOf(err) == api.CodeNotConfigured {
			return nil, text, errNoCluster()
		}
		return nil, text, err
	}
	d, faults := decode("the definition", []byte(text.YAML))
	if len(faults) > 0 {
		return nil, text, fmt.Errorf("read the definition (this clmgr may be older than the daemon): %w", &api.Error{Code: api.CodeInternal, Faults: faults})
	}
	return d, text, nil
}

// isStaged is the end of a change that waits for a sync: it has no effect that could be waited for.
func (s *session) isStaged(what string, reply api.Reply) error {
	if reply.Refused != "" {
		return fail(ExitFailed, "%s: refused: %s", what, reply.Refused)
	}
	sentence := what + ": staged; clmgr diff shows what waits, clmgr sync cluster makes it active, clmgr undo drops it"
	if reply.Already {
		sentence = what + ": nothing changes"
	}
	return s.say(result{What: what, Result: "staged", Index: reply.Index, Sentence: sentence})
}

var syncAttrs = []argument{
	{"VERIFY", "yes|no", "verify first (default yes)"},
	{"FIX", "yes|no", "repair what can be repaired safely (default no)"},
	{"FORCE", "yes|no", "go on although the verification finds errors (default no); -f says the same"},
	{"DEFAULT_TESTS", "yes|no", "no: only methods of your own (default yes)"},
	{"METHODS", "name[,name]", "only these of your own methods (default: all)"},
	{"CHANGES_ONLY", "yes|no", "accepted: all is verified, which takes no longer"},
	{"LOGGING", "standard|verbose", "verbose: with all remarks"},
	{"LOGFILE", "path", "append what is printed to a file as well"},
	{"MAX_ERRORS", "n", "print at most n errors"},
	timeoutAttr,
}

// syncCluster makes what is staged active, and then brings the file collections into step that go with it.
func syncCluster(ctx context.Context, s *session, t *target) error {
	if err := syncDefinition(ctx, s, t); err != nil {
		return err
	}
	return s.syncWithCluster(ctx)
}

// syncDefinition verifies what is staged and makes it active. What is activated is what was verified: the version is named.
func syncDefinition(ctx context.Context, s *session, t *target) error {
	verifyFirst, force, err := s.syncFlags()
	if err != nil {
		return err
	}
	ask, show, err := s.verification()
	if err != nil {
		return err
	}
	st, err := s.look(ctx, nil, nil)
	if err != nil {
		return err
	}
	if err := t.clusterName(st); err != nil {
		return err
	}
	short, cancel := s.limited(ctx)
	defer cancel()
	now, err := s.client.Staged(short)
	if err != nil {
		return err
	}
	if verifyFirst {
		if err := s.verifyBefore(short, ask, show, force, now.Staged); err != nil {
			return err
		}
	}
	if !now.Staged {
		return s.finish(ctx, t.what(), api.Reply{Index: st.Cluster.AppliedIndex}, goal{missing: unsettled, done: func(st *api.Status) string {
			return fmt.Sprintf("version %d of the definition is active; it was so before: none waits for a sync", st.Cluster.DefinitionVersion)
		}})
	}
	s.before = st
	r := api.StagedRequest{ID: client.NewID(), Version: now.StagedVersion}
	reply, err := send(ctx, s, t.what(), func(ctx context.Context) (api.Reply, error) { return s.client.Sync(ctx, r) })
	if err != nil {
		return err
	}
	return s.changed(ctx, t.what(), reply, fmt.Sprintf("what was staged is active on all nodes as version %d of the definition", reply.DefinitionVersion))
}

func (s *session) syncFlags() (verifyFirst, force bool, err error) {
	verifyFirst, force = true, s.force
	for attr, to := range map[string]*bool{"VERIFY": &verifyFirst, "FORCE": &force, "CHANGES_ONLY": new(bool)} {
		if v, ok := s.take(attr); ok {
			if *to, err = cluster.ParseBool(v); err != nil {
				return false, false, fail(ExitIncorrect, "%s=%s: yes or no", attr, v)
			}
		}
	}
	return verifyFirst, force, nil
}

// verifyBefore is the verification of a sync. -o json has one answer, that of the sync.
func (s *session) verifyBefore(ctx context.Context, ask api.VerifyRequest, show shown, force, staged bool) error {
	r, err := s.client.Verify(ctx, ask)
	if err != nil {
		return err
	}
	text := reportText(&r, show)
	if s.form != formJSON {
		fmt.Fprint(s.out, text)
	}
	if show.copyTo != "" {
		if err := appendFile(show.copyTo, text); err != nil {
			return err
		}
	}
	switch {
	case !r.Failed():
		return nil
	case force && staged:
		s.warn("the verification found errors; going on because of FORCE")
		return nil
	case staged:
		return fail(ExitFailed, "sync cluster: the verification found errors; nothing was activated (FORCE=yes goes on, a waiver accepts a finding)")
	}
	return fail(ExitFailed, "sync cluster: the verification of the active definition found errors")
}

// undo drops what is staged.
func undo(ctx context.Context, s *session, t *target) error {
	short, cancel := s.limited(ctx)
	defer cancel()
	now, err := s.client.Staged(short)
	if err != nil {
		return err
	}
	if !now.Staged {
		return s.say(result{What: "undo", Result: "done", Sentence: "nothing is staged (it was so already)"})
	}
	r := api.StagedRequest{ID: client.NewID(), Version: now.StagedVersion}
	reply, err := send(ctx, s, t.what(), func(ctx context.Context) (api.Reply, error) { return s.client.Undo(ctx, r) })
	if err != nil {
		return err
	}
	if reply.Refused != "" {
		return fail(ExitFailed, "undo: refused: %s", reply.Refused)
	}
	return s.say(result{What: "undo", Result: "done", Index: reply.Index,
		Sentence: fmt.Sprintf("the staged changes are dropped; version %d of the definition stays active", now.Version)})
}

// apply makes a file the definition. It shows the plan first.
func apply(ctx context.Context, s *session, t *target) error {
	text, err := s.clusterFile(t)
	if err != nil {
		return err
	}
	what := "apply -f " + text.File
	short, cancel := s.limited(ctx)
	defer cancel()
	now, err := s.client.Staged(short)
	switch {
	case api.CodeOf(err) == api.CodeNotConfigured:
		return fail(ExitDependency, "this node belongs to no cluster yet: found it with clmgr add cluster FILE=%s", text.File)
	case err != nil:
		return err
	}
	if d, faults := decode("the definition", []byte(now.YAML)); len(faults) == 0 {
		s.staged = s.stage || d.Settings.Staged()
	}
	if now.Staged && !s.staged {
		return fail(ExitFailed, "%s: changes are staged, which a file that says all of it would undo: sync or undo them first, or stage the file too (--stage)", what)
	}
	plan, err := s.client.Diff(short, text)
	if err != nil {
		return err
	}
	if s.form != formJSON || s.planOnly {
		if err := s.showPlan(plan); err != nil {
			return err
		}
	}
	if s.planOnly {
		return nil
	}
	if err := s.confirm(what, plan, text.File); err != nil {
		return err
	}
	reply, err := s.applyText(ctx, what, text)
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && len(e.Faults) > 0 {
			return unusable(e.Faults)
		}
		return err
	}
	return s.changed(ctx, what, reply, text.File+" is the active definition on all nodes")
}

// showPlan prints what would be done, and what that costs.
func (s *session) showPlan(d api.Diff) error {
	if s.form == formJSON {
		return writeJSON(s.out, d)
	}
	if d.Same {
		return nil // what follows says it
	}
	fmt.Fprintln(s.out, "Plan:")
	s.printDiff(d)
	add, change, remove := counts(d)
	fmt.Fprintf(s.out, "%d to add, %d to change, %d to delete; %s\n", add, change, remove, disruption(d))
	return nil
}

// counts counts objects, not attributes.
func counts(d api.Diff) (add, change, remove int) {
	changed := map[string]bool{}
	for _, c := range d.Changes {
		switch {
		case c.Op == "add" && c.Attr == "":
			add++
		case c.Op == "delete":
			remove++
		case c.Op != "add":
			changed[c.Class+" "+c.Name] = true
		}
	}
	return add, len(changed), remove
}

func disruption(d api.Diff) string {
	switch len(d.Disruptive) {
	case 0:
		return "nothing that serves stops"
	case 1:
		return "1 thing that serves stops (!!)"
	}
	return fmt.Sprintf("%d things that serve stop (!!)", len(d.Disruptive))
}

// confirm asks before something is lost, where there is somebody to ask.
func (s *session) confirm(what string, d api.Diff, file string) error {
	_, _, remove := counts(d)
	if remove == 0 && len(d.Disruptive) == 0 || s.yes || s.force || s.staged || !s.env.Terminal || file == "standard input" {
		return nil
	}
	fmt.Fprint(s.env.Stderr, "Go on? Only 'yes' does: ")
	if answer := readLine(s.env.Stdin); !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return fail(ExitFailed, "%s: nothing was changed", what)
	}
	return nil
}
