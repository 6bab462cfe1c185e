package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A tool is one of PowerHA's commands, by its own name. Its options are read, completed and documented from here.
type tool struct {
	usage   string
	doc     string
	options []argument // one letter each; values says what follows the letter, empty: nothing
	names   string     // the class of whose objects its words are; empty: of none
	// blind says that the tool does not need a status: it asks for what it needs.
	blind bool
	run   func(ctx context.Context, t *toolCall) error

	flags string // the letters; one followed by ':' takes a value
}

// tools by the name of the binary in lower case. Filled by init, because their help refers back to the table.
var tools map[string]tool

func init() {
	help := argument{"h", "", "the usage"}
	const freeCommandDoc = "run a command on all nodes or some, with each node's output under its name; off unless the cluster allows it (FREE_COMMANDS)"
	nodeCommandOptions := []argument{help, {"n", "node[,node]", "only these nodes"}, {"m", "node[,node]", "the same as -n"},
		{"t", "seconds", "how long one node may take (default 300, at most 3600)"},
		{"i", "id", "repeat or follow an operation: 16 to 64 letters, digits or '-'"}}
	tools = map[string]tool{
		"clrginfo": {usage: "clRGinfo [-h] [-v] [-s|-c] [-t] [-p] [-a] [-m] [-i] [group ...]", names: "resource_group", run: rginfo,
			doc: "the state of resource groups on their nodes", options: []argument{help,
				{"v", "", "with the groups' policies"}, {"s", "", "for programs: group:state:node:startup:fallover:fallback:site policy:..."},
				{"c", "", "the same as -s"}, {"t", "", "delayed timers: fallback and settling"}, {"p", "", "where the operator has placed the groups"},
				{"a", "", "where the groups were before the event that is being handled"}, {"m", "", "the states of applications"},
				{"i", "", "sites: there are none, so it changes nothing"}}},
		"clrgmove": {usage: "clRGmove -g RG[,RG] {-n NODE [-m|-u|-d] | -r | -a -u|-d} [-i] [-s false]", blind: true, run: rgmove,
			doc: "move groups, bring them online or offline", options: []argument{help,
				{"g", "RG[,RG]", "the groups"}, {"n", "node", "the node"}, {"m", "", "move the groups to the node (the default)"},
				{"u", "", "bring them online, on the node or, with -a, where their policies say"}, {"d", "", "bring them offline there, or with -a everywhere"},
				{"a", "", "all nodes"}, {"r", "", "forget where the operator has placed them"}, {"i", "", "show the groups afterwards, as clRGinfo does"},
				{"s", "true|false", "secondary instances: there are no sites, so only false"}, {"x", "", "sites: refused, there are none"}}},
		"cltopinfo": {usage: "cltopinfo [-c] [-i] [-n] [-m] [-w]", run: topinfo, doc: "the topology as it is defined", options: []argument{help,
			{"c", "", "the cluster"}, {"i", "", "the interfaces, as cllsif"}, {"n", "", "the nodes"}, {"m", "", "the timings"}, {"w", "", "the networks"}}},
		"cllsif": {usage: "cllsif [-c] [-S] [-i label] [-n node]", run: interfaces, doc: "the addresses of nodes and services as they are defined",
			options: []argument{help, {"c", "", "for programs: fields separated by colons (of an IPv6 address they are marked by a backslash)"},
				{"S", "", "with -c: without the heading"}, {"i", "label", "only this label"}, {"n", "node", "only of this node"}}},
		"clshowres": {usage: "clshowres [-g group] [-n node]", run: showres, doc: "the resources of groups as they are defined", options: []argument{help,
			{"g", "group", "only this group"}, {"n", "node", "only the groups of this node"}}},
		"clshowsrv": {usage: "clshowsrv {-a | -v | subsystem ...}", run: showsrv, doc: "the services of the nodes", options: []argument{help,
			{"a", "", "the subsystems here"}, {"v", "", "the services of each node"}}},
		"cldump": {usage: "cldump", run: dump, doc: "a snapshot of the cluster's state", options: []argument{help}},
		"cldisp": {usage: "cldisp", run: disp, doc: "the cluster as its applications see it", options: []argument{help}},
		"clverify": {usage: "clverify [-h] [-v] [-C yes|no] [cluster]", run: clverify, doc: "verify the cluster on all nodes", options: []argument{help,
			{"v", "", "with all remarks"}, {"C", "yes|no", "repair what can be repaired safely"}}},
		"clsnapshot": {usage: "clsnapshot {-c -n NAME [-d text] | -a -n NAME [-f true] | -r -n NAME | -s -n NAME | -l}", blind: true, run: clsnapshot,
			doc: "keep, apply, show and remove definitions", options: []argument{help,
				{"c", "", "keep the active definition"}, {"a", "", "apply a kept one, live"}, {"r", "", "remove one"}, {"s", "", "show one"}, {"l", "", "list them"},
				{"n", "name", "its name"}, {"d", "text", "with -c: a description"}, {"f", "true|false", "with -a: go on although the verification finds errors"},
				{"m", "name", "methods: refused, there are none for snapshots yet"}, {"N", "name", "another name: refused, a snapshot stays as it was taken"}}},
		"lscluster": {usage: "lscluster -m | -i | -d | -c | -s", run: lscluster, doc: "what AIX's command of that name shows of a cluster", options: []argument{help,
			{"m", "", "the nodes"}, {"i", "", "the interfaces"}, {"d", "", "the disks: the repository volume"}, {"c", "", "the cluster"},
			{"s", "", "counters of packets: refused, see /metrics"}}},
		"clcmd": {usage: "clcmd [-n node[,node]] [-t seconds] [-i id] COMMAND ...", doc: freeCommandDoc, blind: true, run: nodeCommand,
			options: nodeCommandOptions},
		"cl_nodecmd": {usage: "cl_nodecmd [-n node[,node]] [-t seconds] [-i id] COMMAND ...", doc: freeCommandDoc, blind: true, run: nodeCommand,
			options: nodeCommandOptions},
	}
	for name, x := range tools {
		for _, o := range x.options {
			x.flags += o.name
			if o.values != "" {
				x.flags += ":"
			}
		}
		tools[name] = x
	}
}

// name is the tool's own, as it is written.
func (x tool) name() string { return strings.Fields(x.usage)[0] }

// flagValue says what follows an option.
func (x tool) flagValue(letter string) string {
	for _, o := range x.options {
		if o.name == letter {
			return o.values
		}
	}
	return ""
}

// A toolCall is one call of a tool.
type toolCall struct {
	*session
	name  string
	flags map[rune]string
	args  []string
	st    api.Status
	def   *cluster.Definition // nil until asked for

	widths widths // of clRGinfo's tables
}

func (t *toolCall) has(f rune) bool { _, ok := t.flags[f]; return ok }

// main runs a tool: its flags, the status, and the warning that what is shown is old.
func (x tool) main(ctx context.Context, env Env, args []string) int {
	t := &toolCall{name: x.name(), flags: map[rune]string{}}
	t.session = newSession(env, &command{delim: ":", options: map[string]string{}})
	defer t.client.Close()
	if err := t.parse(x, args); err != nil {
		return t.report(err)
	}
	if t.has('h') {
		t.showUsage(x)
		return ExitOK
	}
	if x.blind {
		return t.report(x.run(ctx, t))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	st, err := t.client.Status(ctx)
	if err == nil && st.Cluster.State == api.ClusterNotConfigured && t.name != "clshowsrv" {
		err = errNoCluster()
	}
	if err != nil {
		return t.report(err)
	}
	t.st = st
	if st.Cluster.Stale() {
		t.warn("%s: what is shown is as it was then", staleness(&st.Cluster))
	}
	return t.report(x.run(ctx, t))
}

func (t *toolCall) showUsage(x tool) {
	fmt.Fprintf(t.out, "usage: %s\n  %s\n", x.usage, x.doc)
	for _, o := range x.options {
		twoColumns(t.out, strings.TrimSpace("-"+o.name+" "+o.values), o.doc, 18)
	}
}

func (t *toolCall) parse(x tool, args []string) error {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			t.args = append(t.args, args[i+1:]...)
			return nil
		}
		if len(a) < 2 || a[0] != '-' {
			t.args = append(t.args, a)
			if strings.HasSuffix(x.usage, "COMMAND ...") {
				t.args = append(t.args, args[i+1:]...) // the options of another command
				return nil
			}
			continue
		}
		for k, r := range a[1:] {
			at := strings.IndexRune(x.flags, r)
			if at < 0 || r == ':' {
				return fail(ExitNotFound, "%s has no option -%c; usage: %s", t.name, r, x.usage)
			}
			if !strings.HasPrefix(x.flags[at+1:], ":") {
				t.flags[r] = ""
				continue
			}
			v := a[1+k+1:]
			if v == "" {
				if i++; i == len(args) {
					return fail(ExitMissing, "%s: option -%c needs a value; usage: %s", t.name, r, x.usage)
				}
				v = args[i]
			}
			t.flags[r] = v
			break
		}
	}
	return nil
}

// definitionOf reads the definition once.
func (t *toolCall) definitionOf(ctx context.Context) (*cluster.Definition, error) {
	if t.def != nil {
		return t.def, nil
	}
	d, _, err := t.definition(ctx)
	t.def = d
	return d, err
}

// groups are those named on the command line, or all.
func (t *toolCall) groups(names []string) ([]*api.Group, error) {
	var out []*api.Group
	if len(names) == 0 {
		for i := range t.st.Groups {
			out = append(out, &t.st.Groups[i])
		}
		return out, nil
	}
	for _, n := range names {
		g := t.st.Group(n)
		if g == nil {
			return nil, fail(ExitNotFound, "there is no resource group %q%s", n, cluster.DidYouMean(n, groupNames(&t.st)))
		}
		out = append(out, g)
	}
	return out, nil
}

// line prints a line without blanks at its end.
func (t *toolCall) line(format string, args ...any) {
	fmt.Fprintln(t.out, strings.TrimRight(printable(fmt.Sprintf(format, args...)), " \t"))
}

// column pads a text to a width, and leaves one blank at least before the next column.
func column(s string, width int) string {
	if len(s) >= width {
		return s + " "
	}
	return s + strings.Repeat(" ", width-len(s))
}

// stamp is a time as PowerHA's tools print it.
func (t *toolCall) stamp(at time.Time) string {
	return at.In(t.env.Location).Format("Mon Jan _2 15:04:05 2006")
}
