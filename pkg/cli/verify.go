package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

var verifyAttrs = []argument{
	{"FIX", "yes|no", "repair what can be repaired safely, and look again (default no)"},
	{"FILE", "path", "a cluster file instead of the cluster's definition"},
	{"ACTIVE", "yes|no", "the active definition even if a staged one waits (default no)"},
	{"DEFAULT_TESTS", "yes|no", "no: only methods of your own (default yes)"},
	{"METHODS", "name[,name]", "only these of your own methods (default: all)"},
	{"QUICK", "yes|no", "without fence devices and methods (default no)"},
	{"LOGGING", "standard|verbose", "verbose: with all remarks, as -v"},
	{"LOGFILE", "path", "append what is printed to a file as well"},
	{"MAX_ERRORS", "n", "print at most n errors; all of them are counted"},
}

// verifyCluster looks at all nodes. A file is looked at on the nodes as well, where there is a cluster and the caller may.
func verifyCluster(ctx context.Context, s *session, t *target) error {
	ask, show, err := s.verification()
	if err != nil {
		return err
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	if ask.YAML == "" {
		st, err := s.look(ctx, nil, nil)
		if err != nil {
			return err
		}
		if err := t.clusterName(st); err != nil {
			return err
		}
	}
	r, err := s.client.Verify(ctx, ask)
	if ask.YAML != "" && (api.CodeOf(err) == api.CodeNotConfigured || api.CodeOf(err) == api.CodeForbidden) {
		return s.checkText(ctx, api.DefinitionText{YAML: ask.YAML, File: ask.File})
	}
	if err != nil {
		return err
	}
	return s.verdict(r, show)
}

// verifyMethod runs single methods.
func verifyMethod(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	d, _, err := s.definition(ctx)
	if err != nil {
		return err
	}
	c := classNamed("method")
	for _, n := range t.names {
		if !c.Has(d, n) {
			return fail(ExitNotFound, "there is no method %q%s", n, cluster.DidYouMean(n, c.Names(d)))
		}
	}
	r, err := s.client.Verify(ctx, api.VerifyRequest{NoDefaultChecks: true, Methods: t.names})
	if err != nil {
		return err
	}
	return s.verdict(r, shown{all: true})
}

// shown says how much of a report is printed.
type shown struct {
	all    bool // remarks too
	errors int  // 0: all
	copyTo string
}

// verification reads the attributes.
func (s *session) verification() (ask api.VerifyRequest, show shown, err error) {
	show.all = s.verbose
	flag := func(attr string, to *bool, wanted bool) {
		if v, ok := s.take(attr); ok && err == nil {
			b, e := cluster.ParseBool(v)
			if e != nil {
				err = fail(ExitIncorrect, "%s=%s: yes or no", attr, v)
			}
			*to = b == wanted
		}
	}
	flag("FIX", &ask.Fix, true)
	flag("ACTIVE", &ask.Active, true)
	flag("QUICK", &ask.Quick, true)
	flag("DEFAULT_TESTS", &ask.NoDefaultChecks, false)
	if err != nil {
		return ask, show, err
	}
	if v, ok := s.take("METHODS"); ok {
		ask.Methods = cluster.SplitList(v)
	}
	if v, ok := s.take("LOGGING"); ok {
		switch strings.ToLower(v) {
		case "standard":
		case "verbose":
			show.all = true
		default:
			return ask, show, fail(ExitIncorrect, "LOGGING=%s: standard or verbose", v)
		}
	}
	if v, ok := s.take("MAX_ERRORS"); ok {
		if show.errors, err = strconv.Atoi(v); err != nil || show.errors < 1 {
			return ask, show, fail(ExitIncorrect, "MAX_ERRORS=%s: a number from 1", v)
		}
	}
	show.copyTo, _ = s.take("LOGFILE")
	if name, ok := s.take("FILE"); ok {
		text, err := s.checkedFile(name)
		if err != nil {
			return ask, show, err
		}
		ask.YAML, ask.File = text.YAML, text.File
	}
	return ask, show, nil
}

// verdict prints a report and ends the command with it.
func (s *session) verdict(r api.VerifyReport, show shown) error {
	if s.form == formJSON {
		if err := writeJSON(s.out, r); err != nil {
			return err
		}
	} else {
		text := reportText(&r, show)
		fmt.Fprint(s.out, text)
		if show.copyTo != "" {
			if err := appendFile(show.copyTo, text); err != nil {
				return err
			}
		}
	}
	if r.Failed() {
		return errSilentStatus(ExitFailed)
	}
	return nil
}

func errSilentStatus(status int) error { return fail(status, "%w", errSilent) }

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY|noFollow, 0o600)
	if err != nil {
		return fail(ExitFailed, "LOGFILE: %w", err)
	}
	_, werr := f.WriteString(text)
	if err := errors.Join(werr, f.Close()); err != nil {
		return fail(ExitFailed, "LOGFILE: %w", err)
	}
	return nil
}

// reportText is a report for people: each finding with why and what to do, the errors first, then one line of counts, then the
// line that scripts look for.
func reportText(r *api.VerifyReport, show shown) string {
	var b strings.Builder
	p := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	for _, f := range r.Fixed {
		p("FIXED    %s", f)
	}
	printed := 0
	for _, sev := range []api.Severity{api.SeverityError, api.SeverityWarning, api.SeverityInfo} {
		if sev == api.SeverityInfo && !show.all {
			continue
		}
		for _, g := range together(r.Findings, sev) {
			if printed++; sev != api.SeverityError || show.errors == 0 || printed <= show.errors {
				g.write(p)
			}
		}
	}
	waived := 0
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Waived != "" {
			waived++
			until := ""
			if f.WaivedUntil != "" {
				until = " until " + f.WaivedUntil
			}
			p("%-8s %s %s%s: waived%s: %s", "WAIVED", f.Check, where(f), f.Saw, until, f.Waived)
		}
	}
	if show.all {
		for _, n := range r.NotChecked {
			p("not checked: %s", n)
		}
	}
	p("%s: %s, %s, %s; %d checks on %s in %.1f s, %d of them found nothing", subjectOf(r), count(r.Count(api.SeverityError), "error"),
		count(r.Count(api.SeverityWarning), "warning")+ifAny(waived, " (%d waived)"), count(r.Count(api.SeverityInfo), "remark")+
			hint(!show.all && r.Count(api.SeverityInfo) > 0, " (-v shows them)"), r.Checks, count(len(r.Nodes), "node"), r.TookSeconds, r.Passed)
	if r.Failed() {
		p("Check: FAILED")
	} else {
		p("Check: PASSED")
	}
	return b.String()
}

func subjectOf(r *api.VerifyReport) string {
	if r.DefinitionVersion == 0 {
		return r.Subject
	}
	return fmt.Sprintf("%s (version %d)", r.Subject, r.DefinitionVersion)
}

func where(f *api.Finding) string {
	s := ""
	if f.Node != "" {
		s = f.Node + ": "
	}
	if f.Object != "" && f.Object != "node "+f.Node {
		s += f.Object + ": "
	}
	return s
}

// A findingGroup is what one check saw, with one advice: said once, with all places.
type findingGroup struct {
	*api.Finding
	lines []string
	nodes map[string][]string // by line
}

// together groups the findings of a severity, in their order.
func together(list []api.Finding, sev api.Severity) []*findingGroup {
	var out []*findingGroup
	for i := range list {
		f := &list[i]
		if f.Severity != sev || f.Waived != "" {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Check != f.Check || out[n-1].Fix != f.Fix {
			out = append(out, &findingGroup{Finding: f, nodes: map[string][]string{}})
		}
		g := out[len(out)-1]
		line := f.Saw
		if f.Object != "" && f.Object != "node "+f.Node {
			line = f.Object + ": " + f.Saw
		}
		if _, seen := g.nodes[line]; !seen {
			g.lines = append(g.lines, line)
		}
		g.nodes[line] = append(g.nodes[line], f.Node)
	}
	return out
}

func (g *findingGroup) write(p func(string, ...any)) {
	for _, line := range g.lines {
		nodes := strings.Join(g.nodes[line], ", ")
		if nodes != "" {
			nodes += ": "
		}
		p("%-8s %s %s%s", g.Severity, g.Check, nodes, line)
	}
	for _, l := range wrap("why: "+g.Why, 100) {
		p("               %s", l)
	}
	fix := g.Fix
	if g.Fixable && !strings.Contains(fix, "FIX=yes") {
		fix += " (FIX=yes does it)"
	}
	for _, l := range wrap("fix: "+fix, 100) {
		p("               %s", l)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func ifAny(n int, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func hint(b bool, s string) string {
	if b {
		return s
	}
	return ""
}

// checkText is what can be said of a file without looking at nodes.
func (s *session) checkText(ctx context.Context, text api.DefinitionText) error {
	r, err := s.client.Check(ctx, text)
	if err != nil {
		return err
	}
	if s.form == formJSON {
		if err := writeJSON(s.out, r); err != nil {
			return err
		}
	} else {
		s.printCheck(r)
	}
	if len(r.Faults) > 0 {
		return fail(ExitFailed, "Check: FAILED")
	}
	return nil
}

func (s *session) printCheck(r api.CheckReport) {
	for _, f := range r.Faults {
		fmt.Fprintln(s.out, printable("ERROR: "+f.String()))
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(s.out, printable("WARNING: "+w))
	}
	for _, c := range r.Checked {
		fmt.Fprintln(s.out, printable("checked: "+c))
	}
	for _, n := range r.NotChecked {
		fmt.Fprintln(s.out, printable("not checked: "+n))
	}
	if len(r.Faults) == 0 {
		fmt.Fprintln(s.out, "Check: PASSED")
	}
}

// showChecks lists the checks, or explains one.
func (s *session) showChecks(words []string) error {
	if len(words) > 0 {
		c := verify.Lookup(words[0])
		if c == nil {
			return fail(ExitNotFound, "there is no check %q; clmgr help checks lists them", words[0])
		}
		fmt.Fprintf(s.out, "%s %s: %s\n  subject: %s\n  why: %s\n  fix: %s\n", c.ID, c.Severity, c.Title, verify.Subjects[c.ID[1:3]], c.Why, c.Fix)
		return nil
	}
	subject := ""
	for _, c := range verify.Checks() {
		if now := verify.Subjects[c.ID[1:3]]; now != subject {
			subject = now
			fmt.Fprintf(s.out, "\n%s:\n", strings.ToUpper(subject[:1])+subject[1:])
		}
		twoColumns(s.out, c.ID+" "+string(c.Severity), c.Title, 20)
	}
	fmt.Fprintln(s.out, "\nAccept a finding for a time: clmgr add waiver NAME CHECK=V1801 [NODE=node] [OBJECT=object] REASON=... [EXPIRES=2027-01-31]")
	return nil
}

// clverify is PowerHA's command of that name.
func clverify(ctx context.Context, t *toolCall) error {
	fix, err := cluster.ParseBool(orNo(t.flags['C']))
	if err != nil {
		return fail(ExitIncorrect, "clverify: -C takes yes or no; usage: clverify [-v] [-C yes|no]")
	}
	for _, a := range t.args {
		if !hasWord([]string{"cluster", "topology", "resources", "check", "both", "all"}, strings.ToLower(a)) {
			return fail(ExitNotFound, "clverify has no word %q; usage: clverify [-h] [-v] [-C yes|no] [cluster]", a)
		}
	}
	// The tools' own limit is for looks at one daemon.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultTimeout)
	defer cancel()
	r, err := t.client.Verify(ctx, api.VerifyRequest{Fix: fix})
	if err != nil {
		return err
	}
	return t.verdict(r, shown{all: t.has('v')})
}

func orNo(s string) string {
	if s == "" {
		return "no"
	}
	return s
}
