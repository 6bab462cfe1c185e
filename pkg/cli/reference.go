package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// The reference page and the manual pages are made from the tables that the parser uses. A test compares them with the files in
// docs, and writes them anew with -update.

// A page is written in Markdown or in roff; the text is the same.
type page interface {
	title(name, section, line string)
	heading(s string)
	sub(s string)
	text(s string)
	code(s string)
	// terms is a list of terms and their meanings.
	terms(list [][2]string)
	// table has a heading.
	table(head []string, rows [][]string)
	String() string
}

// Reference is docs/clmgr.md.
func Reference() string {
	p := &markdown{}
	p.title("clmgr", "1", "the administrator's command")
	p.text("This page is made from the tables from which `clmgr` parses, helps and completes (`make docs`). `clmgr help`, `clmgr ACTION CLASS -h` and " +
		"`clmgr help ACTION CLASS ATTR` show the same. Moving from PowerHA: `migration.md`. Output for programs: `output.md`.")
	writeReference(p)
	p.heading("Tools by other names")
	p.text("They are the same program, called by another name.")
	for _, name := range sortedKeys(tools) {
		x := tools[name]
		p.sub(x.name())
		writeTool(p, x)
	}
	return p.String()
}

// Manuals are the manual pages by the names of their files.
func Manuals() map[string]string {
	out := map[string]string{}
	p := &roff{}
	p.title("clmgr", "1", "the administrator's command of a Holdfast cluster")
	writeReference(p)
	p.heading("SEE ALSO")
	var also []string
	for _, name := range sortedKeys(tools) {
		also = append(also, tools[name].name()+"(1)")
	}
	p.text(strings.Join(also, ", "))
	out["clmgr.1"] = p.String()
	for _, name := range sortedKeys(tools) {
		x := tools[name]
		p := &roff{}
		p.title(x.name(), "1", x.doc)
		p.heading("SYNOPSIS")
		writeTool(p, x)
		p.heading("EXIT STATUS")
		p.terms(exitTerms())
		p.heading("SEE ALSO")
		p.text("clmgr(1)")
		out[x.name()+".1"] = p.String()
	}
	return out
}

func writeTool(p page, x tool) {
	p.code(x.usage)
	p.text(strings.ToUpper(x.doc[:1]) + x.doc[1:] + ".")
	var list [][2]string
	for _, o := range x.options {
		list = append(list, [2]string{strings.TrimSpace("-" + o.name + " " + o.values), o.doc})
	}
	p.terms(list)
}

func exitTerms() [][2]string {
	var out [][2]string
	for _, m := range exitMeanings {
		out = append(out, [2]string{fmt.Sprint(m.status), m.meaning})
	}
	return out
}

func writeReference(p page) {
	p.heading("SYNOPSIS")
	p.code(strings.TrimRight(grammar, "\n"))
	p.heading("DESCRIPTION")
	p.text("Actions, classes and attributes are taken in any case, names keep theirs. A beginning of an action or a class that only one has will do: " +
		"clmgr q cl. Scripts should write the whole word. A command ends when its effect was seen, and says what it waits for; its exit status is 0 only then.")
	p.heading("OPTIONS")
	p.terms(optionHelp)
	p.heading("EXIT STATUS")
	p.terms(exitTerms())
	p.heading("ACTIONS")
	for i := range actionTable {
		writeAction(p, &actionTable[i])
	}
	p.heading("CLASSES")
	for _, c := range cluster.Classes() {
		writeClass(p, &c)
	}
	writeForeign(p)
	p.heading("ENVIRONMENT")
	p.terms([][2]string{{"HOLDFAST_SOCKET", "the daemon's socket, as --socket"}})
	p.heading("FILES")
	p.terms([][2]string{{"/etc/holdfast/node.yaml", "this node's own file"}, {"/run/holdfast/clstrmgrd.sock", "the daemon's socket"},
		{"/var/log/holdfast", "the logs; on AIX /var/hacmp. Calls of clmgr are in log/clutils.log"}})
}

func writeAction(p page, a *action) {
	name := a.name
	if len(a.aliases) > 0 {
		name += " (" + strings.Join(a.aliases, ", ") + ")"
	}
	p.sub(name)
	p.text(strings.ToUpper(a.doc[:1]) + a.doc[1:] + ".")
	if a.bare != nil {
		writeOperation(p, a, "", a.bare)
		return
	}
	for i := range a.operations {
		writeOperation(p, a, a.operations[i].class, &a.operations[i])
	}
	if a.anyClass == nil {
		return
	}
	writeOperation(p, a, "CLASS", a.anyClass)
	var rest []string
	for _, n := range a.classNames() {
		if !slices.ContainsFunc(a.operations, func(o operation) bool { return o.class == n }) {
			rest = append(rest, n)
		}
	}
	p.text("CLASS is one of: " + strings.Join(rest, ", ") + ".")
}

func writeOperation(p page, a *action, class string, o *operation) {
	p.code(usageLine(a, class, o))
	doc := strings.ToUpper(o.doc[:1]) + o.doc[1:] + "."
	if len(o.aliases) > 0 {
		doc += " The class is also: " + strings.Join(o.aliases, ", ") + "."
	}
	p.text(doc)
	var list [][2]string
	for _, x := range o.options {
		list = append(list, [2]string{strings.TrimSpace("-" + x.name + " " + x.values), x.doc})
	}
	for _, x := range o.attrs {
		list = append(list, [2]string{x.name + "=" + x.values, x.doc})
	}
	p.terms(list)
}

func writeClass(p page, c *cluster.Class) {
	name := c.Name
	if len(c.Aliases) > 0 {
		name += " (" + strings.Join(c.Aliases, ", ") + ")"
	}
	p.sub(name)
	p.text(strings.ToUpper(c.Doc[:1]) + c.Doc[1:] + ".")
	var rows [][]string
	for i, a := range c.Attributes {
		if a.ReadOnly {
			rows = append(rows, []string{a.Name, "", a.Doc + " (query only)"})
		} else {
			term, values, _ := strings.Cut(attributeTerm(a), "=")
			rows = append(rows, []string{term, values, attributeDoc(a)})
		}
		if i > 0 {
			continue
		}
		for _, l := range liveAttributes[c.Name] {
			rows = append(rows, []string{l.name, "", l.doc + " (query only)"})
		}
	}
	p.table([]string{"attribute", "value", "meaning"}, rows)
}

func writeForeign(p page) {
	p.heading("POWERHA")
	p.text("What PowerHA has and this cluster has not. An attribute that asks for nothing that would be missed is taken, with a notice and without effect; " +
		"everything else is refused with the reason, and nothing is changed. Nothing is ignored in silence.")
	var rows [][]string
	for _, f := range cluster.Foreigners() {
		what := "refused"
		switch {
		case f.Taken && len(f.Values) > 0:
			what = "taken: " + strings.Join(f.Values, ", ")
		case f.Taken:
			what = "taken"
		}
		rows = append(rows, []string{strings.Join(f.Scopes, ", "), f.Name, what, f.Why})
		for _, n := range f.Not {
			rows = append(rows, []string{strings.Join(f.Scopes, ", "), f.Name, "refused: " + n[0], n[1]})
		}
	}
	p.table([]string{"class or action", "attribute", "", "why"}, rows)
	p.sub("Actions and classes")
	rows = nil
	for _, f := range foreignActions {
		rows = append(rows, []string{foreignName(f), "", f.why})
	}
	for _, f := range foreignClasses {
		rows = append(rows, []string{"", foreignName(f), f.why})
	}
	for _, o := range foreignOperations {
		rows = append(rows, []string{o.action, o.class, o.why})
	}
	p.table([]string{"action", "class", "instead"}, rows)
}

func foreignName(f foreignWord) string {
	if len(f.aliases) == 0 {
		return f.name
	}
	return f.name + " (" + strings.Join(f.aliases, ", ") + ")"
}

// markdown writes a page for docs.
type markdown struct{ b strings.Builder }

func (m *markdown) String() string { return strings.TrimRight(m.b.String(), "\n") + "\n" }

func (m *markdown) title(name, _, line string) { fmt.Fprintf(&m.b, "# %s: %s\n\n", name, line) }

func (m *markdown) heading(s string) {
	if s == strings.ToUpper(s) {
		s = s[:1] + strings.ToLower(s[1:])
	}
	if s == "Powerha" {
		s = "PowerHA"
	}
	fmt.Fprintf(&m.b, "## %s\n\n", s)
}

func (m *markdown) sub(s string) { fmt.Fprintf(&m.b, "### %s\n\n", s) }

func (m *markdown) text(s string) {
	for _, l := range wrap(s, 138) {
		fmt.Fprintln(&m.b, l)
	}
	fmt.Fprintln(&m.b)
}

func (m *markdown) code(s string) { fmt.Fprintf(&m.b, "```\n%s\n```\n\n", s) }

func (m *markdown) terms(list [][2]string) {
	for _, t := range list {
		fmt.Fprintf(&m.b, "- `%s`: %s\n", t[0], t[1])
	}
	if len(list) > 0 {
		fmt.Fprintln(&m.b)
	}
}

func (m *markdown) table(head []string, rows [][]string) {
	cell := strings.NewReplacer("|", "\\|", "\n", " ", "*", "\\*", "<", "&lt;")
	row := func(c []string) {
		fmt.Fprint(&m.b, "|")
		for _, v := range c {
			fmt.Fprintf(&m.b, " %s |", cell.Replace(v))
		}
		fmt.Fprintln(&m.b)
	}
	row(head)
	fmt.Fprintln(&m.b, "|"+strings.Repeat("---|", len(head)))
	for _, r := range rows {
		row(r)
	}
	fmt.Fprintln(&m.b)
}

// roff writes a manual page with the macros of man(7), which every system's man reads.
type roff struct {
	b     strings.Builder
	fresh bool // nothing stands below the heading yet, where a paragraph would be one too many
}

// escape makes a text that roff takes for nothing else.
func (r *roff) escape(s string) string {
	s = strings.NewReplacer("\\", "\\e", "-", "\\-", "\n", " ", "'", "\\(aq", "`", "\\(ga", "^", "\\(ha", "~", "\\(ti").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = "\\&" + s
	}
	return s
}

// line writes a line of text, with its sentences on lines of their own, as roff wants it.
func (r *roff) line(s string) {
	for _, l := range wrap(s, 100) {
		fmt.Fprintln(&r.b, r.escape(l))
	}
}

func (r *roff) String() string { return r.b.String() }

func (r *roff) title(name, section, line string) {
	fmt.Fprintf(&r.b, ".\\\" made from the tables of clmgr; do not edit\n.TH %s %s \"\" Holdfast \"Holdfast\"\n.SH NAME\n%s \\- %s\n",
		strings.ToUpper(name), section, r.escape(name), r.escape(line))
}

func (r *roff) heading(s string) {
	fmt.Fprintf(&r.b, ".SH \"%s\"\n", r.escape(s))
	r.fresh = true
}

func (r *roff) sub(s string) {
	fmt.Fprintf(&r.b, ".SS \"%s\"\n", r.escape(s))
	r.fresh = true
}

func (r *roff) paragraph() {
	if !r.fresh {
		fmt.Fprintln(&r.b, ".PP")
	}
	r.fresh = false
}

func (r *roff) text(s string) {
	r.paragraph()
	r.line(s)
}

func (r *roff) code(s string) {
	r.paragraph()
	fmt.Fprintln(&r.b, ".nf")
	for l := range strings.SplitSeq(s, "\n") {
		fmt.Fprintln(&r.b, "\\fB"+r.escape(l)+"\\fR")
	}
	fmt.Fprintln(&r.b, ".fi")
}

func (r *roff) terms(list [][2]string) {
	r.fresh = false
	for _, t := range list {
		fmt.Fprintln(&r.b, ".TP\n\\fB"+r.escape(t[0])+"\\fR")
		r.line(t[1])
	}
}

// table is a list: terminals are narrow. The last column is the meaning.
func (r *roff) table(_ []string, rows [][]string) {
	r.fresh = false
	for _, c := range rows {
		var term []string
		for _, v := range c[:len(c)-1] {
			if v != "" {
				term = append(term, v)
			}
		}
		fmt.Fprintln(&r.b, ".TP\n\\fB"+r.escape(strings.Join(term, " "))+"\\fR")
		r.line(c[len(c)-1])
	}
}
