package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func isHelp(word string) bool { return strings.EqualFold(word, "help") }

// usage is the one line of syntax.
func (t *target) usage() string {
	class := t.operation.class
	if t.class != nil {
		class = t.class.Name
	}
	return usageLine(t.action, class, t.operation)
}

func usageLine(a *action, class string, o *operation) string {
	parts := []string{"clmgr", a.name}
	if class != "" {
		parts = append(parts, class)
	}
	if o.usage != "" {
		parts = append(parts, o.usage)
	}
	return strings.Join(parts, " ")
}

const grammar = `clmgr {[-c|-d X] [-S] | [-x] | [-o json|yaml]} [-v] [-f] [-a ATTR,...] [-l LEVEL] [-T ID]
      ACTION CLASS [NAME] [ATTR=VALUE ...]
clmgr -M "ACTION CLASS NAME ATTR=VALUE ..."     several operations, one on each line
clmgr help [ACTION [CLASS [ATTR]]]              clmgr help status    clmgr help checks [NUMBER]
`

var optionHelp = [][2]string{
	{"-c, -d X", "query: values separated by colons, or by X; -S leaves the heading out"},
	{"-x", "query: XML"},
	{"-o json, -o yaml", "JSON or YAML, from every action; -o json/1 names the form, which docs/output.md describes"},
	{"-a A,B", "query: only these attributes"},
	{"-v", "query without a name: the objects, not only their names"},
	{"-f", "force: do not ask, and override what may be overridden"},
	{"-l LEVEL", "what is recorded of the call in clutils.log. error: only a failure; standard, low: begin and end (the default); " +
		"med, high, max: also how long it took and why it failed"},
	{"-T ID", "a transaction id that stands in the record of calls and in the history"},
	{"-M TEXT", "several operations, one on each line; it stops at the first that fails"},
	{"-D", "accepted: nothing is ever added by itself"},
	{"--timeout T", "how long to wait for the effect: seconds, or 90s, 2m; 0: as long as it takes (default 360). The attribute TIMEOUT=T says the same"},
	{"--no-wait", "end when the command is committed; what was not waited for is said"},
	{"--stage", "add, modify, delete, set: the change waits for clmgr sync cluster"},
	{"--plan, --yes", "apply: show what it would do and end; do it without asking"},
	{"--socket PATH", "the daemon's socket (default /run/holdfast/clstrmgrd.sock, or $HOLDFAST_SOCKET)"},
	{"--version", "the version of clmgr"},
}

// showActions answers a bare clmgr.
func (s *session) showActions() error {
	w := s.out
	fmt.Fprint(w, grammar)
	fmt.Fprintln(w, "\nActions (any case; a beginning that only one has will do):")
	for i := range actionTable {
		a := &actionTable[i]
		name := a.name
		if len(a.aliases) > 0 {
			name += " (" + strings.Join(a.aliases, ", ") + ")"
		}
		twoColumns(w, name, a.doc, 44)
	}
	fmt.Fprintln(w, "\nOptions:")
	for _, o := range optionHelp {
		twoColumns(w, o[0], o[1], 22)
	}
	return nil
}

// twoColumns prints a term and its meaning; a long term has its meaning on the next line.
func twoColumns(w io.Writer, term, text string, width int) {
	if len(term) > width-4 {
		fmt.Fprintf(w, "  %s\n", term)
		term = ""
	}
	lines := wrap(text, 118-width)
	for i, l := range lines {
		if i > 0 {
			term = ""
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-*s%s", width-2, term, l), " "))
	}
}

// wrap breaks a text into lines of at most n characters, at spaces.
func wrap(text string, n int) []string {
	var out []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > n {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(out, line)
}

// showHelp answers help with an action, class and attribute, as far as they are given.
func (s *session) showHelp(words []string) error {
	switch {
	case len(words) == 0:
		return s.showActions()
	case strings.EqualFold(words[0], "status"):
		s.showStatuses()
		return nil
	case strings.EqualFold(words[0], "checks"):
		return s.showChecks(words[1:])
	}
	a, err := findAction(words[0])
	if err != nil {
		return err
	}
	if a.bare != nil {
		s.showOperation(a, "", a.bare, nil)
		return nil
	}
	if len(words) == 1 {
		s.showClasses(a)
		return nil
	}
	t := &target{action: a}
	if err := t.find(a, words[1]); err != nil {
		return err
	}
	if len(words) > 2 && !s.help {
		return s.showAttribute(t, words[2])
	}
	class := t.operation.class
	if t.class != nil {
		class = t.class.Name
	}
	s.showOperation(a, class, t.operation, t.class)
	return nil
}

func (s *session) showStatuses() {
	fmt.Fprintln(s.out, "Exit statuses:")
	for _, m := range exitMeanings {
		twoColumns(s.out, fmt.Sprint(m.status), m.meaning, 6)
	}
}

func (s *session) showClasses(a *action) {
	fmt.Fprintf(s.out, "clmgr %s: %s\n\nClasses:\n", a.name, a.doc)
	for _, name := range a.classNames() {
		term, doc := name, ""
		if c := classNamed(name); c != nil {
			doc = c.Doc
			if len(c.Aliases) > 0 {
				term += " (" + strings.Join(c.Aliases, ", ") + ")"
			}
		}
		for i := range a.operations {
			if a.operations[i].class == name {
				doc = a.operations[i].doc
			}
		}
		twoColumns(s.out, term, doc, 40)
	}
}

func (s *session) showOperation(a *action, class string, o *operation, c *cluster.Class) {
	w := s.out
	fmt.Fprintln(w, usageLine(a, class, o))
	for _, l := range wrap(o.doc, 116) {
		fmt.Fprintln(w, "  "+l)
	}
	if len(o.options) > 0 {
		fmt.Fprintln(w, "\nOptions:")
		for _, x := range o.options {
			twoColumns(w, strings.TrimSpace("-"+x.name+" "+x.values), x.doc, 28)
		}
	}
	if len(o.attrs) > 0 {
		fmt.Fprintln(w, "\nAttributes:")
		for _, x := range o.attrs {
			twoColumns(w, x.name+"="+x.values, x.doc, 40)
		}
	}
	if c == nil {
		return
	}
	t := &target{action: a, operation: o, class: c}
	if !t.setsAttributes() {
		return
	}
	fmt.Fprintf(w, "\nAttributes of %s:\n", c.Name)
	for _, x := range c.Attributes {
		if x.ReadOnly && a.name != "query" {
			continue
		}
		twoColumns(w, attributeTerm(x), attributeDoc(x), 44)
	}
	if a.name != "query" {
		return
	}
	fmt.Fprintln(w, "\nAttributes that only a query has:")
	for _, l := range liveAttributes[c.Name] {
		twoColumns(w, l.name, l.doc, 44)
	}
}

func attributeTerm(a cluster.Attribute) string {
	v := string(a.Kind)
	if len(a.Values) > 0 {
		v = strings.Join(a.Values, "|")
	} else if a.Refers != "" {
		v = a.Refers
		if a.Kind == cluster.KindNames {
			v += "[," + a.Refers + "]"
		}
	}
	return a.Name + "=" + v
}

func attributeDoc(a cluster.Attribute) string {
	d := a.Doc
	if a.Required {
		d += "; needed"
	}
	if a.Default != "" {
		d += " (default " + a.Default + ")"
	}
	if len(a.Aliases) > 0 {
		d += "; also " + strings.Join(a.Aliases, ", ")
	}
	return d
}

// showAttribute is what PowerHA's command line never had: help for one attribute.
func (s *session) showAttribute(t *target, name string) error {
	if t.class != nil {
		if a := t.class.Attribute(name); a != nil {
			twoColumns(s.out, attributeTerm(*a), attributeDoc(*a), 44)
			return nil
		}
		for _, l := range liveAttributes[t.class.Name] {
			if strings.EqualFold(l.name, name) {
				twoColumns(s.out, l.name, l.doc+" (query only)", 44)
				return nil
			}
		}
	}
	var known []string
	for _, a := range t.operation.attrs {
		known = append(known, a.name)
		if strings.EqualFold(a.name, name) {
			twoColumns(s.out, a.name+"="+a.values, a.doc, 44)
			return nil
		}
	}
	if t.class != nil {
		known = append(known, attributeNames(t.class)...)
	}
	return fail(ExitNotFound, "%s has no attribute %s%s", t.what(), strings.ToUpper(name), cluster.DidYouMean(strings.ToUpper(name), known))
}
