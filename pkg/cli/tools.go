package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A tool is one of PowerHA's status commands, by its own name.
type tool struct {
	flags string // the letters that it knows; one followed by ':' takes a value
	usage string
	run   func(ctx context.Context, t *toolCall) error
}

// tools by the name of the binary in lower case. Filled by init, because their help refers back to the table.
var tools map[string]tool

func init() {
	tools = map[string]tool{
		"clrginfo":  {"hvsctpami", "clRGinfo [-h] [-v] [-s|-c] [-t] [-p] [-a] [-m] [-i] [group ...]", rginfo},
		"cltopinfo": {"hcinmw", "cltopinfo [-c] [-i] [-n] [-m] [-w]", topinfo},
		"cllsif":    {"h", "cllsif", interfaces},
		"clshowres": {"hg:n:", "clshowres [-g group] [-n node]", showres},
		"clshowsrv": {"hav", "clshowsrv {-a | -v | subsystem ...}", showsrv},
		"cldump":    {"h", "cldump", dump},
		"cldisp":    {"h", "cldisp", disp},
		"clverify":  {"hvC:", "clverify [-h] [-v] [-C yes|no] [cluster]", clverify},
	}
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
	t := &toolCall{name: strings.Fields(x.usage)[0], flags: map[rune]string{}}
	t.session = newSession(env, &command{delim: ":"})
	defer t.client.Close()
	if err := t.parse(x, args); err != nil {
		return t.report(err)
	}
	if t.has('h') {
		fmt.Fprintln(t.out, "usage: "+x.usage)
		return ExitOK
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

func (t *toolCall) parse(x tool, args []string) error {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if len(a) < 2 || a[0] != '-' {
			t.args = append(t.args, a)
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
