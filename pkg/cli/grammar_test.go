package cli

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func TestGrammar(t *testing.T) {
	sec := func(d time.Duration) *time.Duration { return &d }
	set := func(pairs ...string) []cluster.Assignment {
		var out []cluster.Assignment
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, cluster.Assignment{Attribute: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	for _, tc := range []struct {
		args []string
		want command
	}{
		{[]string{"query", "cluster"}, command{words: []string{"query", "cluster"}}},
		{[]string{"-cSa", "NAME,STATE", "q", "no"}, command{form: formColon, noHeader: true, attrs: []string{"NAME", "STATE"}, words: []string{"q", "no"}}},
		{[]string{"-d,", "q", "no"}, command{form: formColon, delim: ",", words: []string{"q", "no"}}},
		{[]string{"-d", "-", "q", "no"}, command{form: formColon, delim: "-", words: []string{"q", "no"}}},
		{[]string{"-x", "-v", "-f", "-D", "-l", "MAX", "-T", "7", "q", "no"},
			command{form: formXML, verbose: true, force: true, level: "max", trace: "7", words: []string{"q", "no"}}},
		{[]string{"a", "rg", "g", "NODES=a,b", "Startup=OHN"}, command{words: []string{"a", "rg", "g"}, set: set("NODES", "a,b", "Startup", "OHN")}},
		{[]string{"a", "ac", "x", "STARTSCRIPT=/a b=c", "STOPSCRIPT="}, command{words: []string{"a", "ac", "x"}, set: set("STARTSCRIPT", "/a b=c", "STOPSCRIPT", "")}},
		{[]string{"a", "ac", "x", "STARTSCRIPT=line\nline"}, command{words: []string{"a", "ac", "x"}, set: set("STARTSCRIPT", "line\nline")}},
		{[]string{"start", "cluster", "-o", "home"}, command{words: []string{"start", "cluster"}, options: map[string]string{"o": "home"}}},
		{[]string{"start", "cluster", "-o", "JSON"}, command{form: formJSON, words: []string{"start", "cluster"}}},
		{[]string{"set", "failover", "-g", "app_rg", "-m", "next"}, command{words: []string{"set", "failover"}, options: map[string]string{"g": "app_rg", "m": "next"}}},
		{[]string{"diff", "-f", "x.yaml"}, command{words: []string{"diff"}, options: map[string]string{"f": "x.yaml"}}},
		{[]string{"-f", "APPLY", "-f", "-"}, command{force: true, words: []string{"APPLY"}, options: map[string]string{"f": "-"}}},
		{[]string{"rm", "rg", "x", "-f"}, command{force: true, words: []string{"rm", "rg", "x"}}},
		{[]string{"--timeout=90s", "--no-wait", "--socket", "/s", "mv", "rg"}, command{timeout: sec(90 * time.Second), noWait: true, socket: "/s", words: []string{"mv", "rg"}}},
		{[]string{"--timeout", "0", "x"}, command{timeout: sec(0), words: []string{"x"}}},
		{[]string{"add", "rg", "--", "-odd", "A=B"}, command{words: []string{"add", "rg", "-odd", "A=B"}}},
		{[]string{"q", "rg", "-5"}, command{words: []string{"q", "rg", "-5"}}},
		{[]string{"A=B"}, command{words: []string{"A=B"}}},
	} {
		got, err := parse(tc.args)
		if err != nil {
			t.Errorf("%q: %v", tc.args, err)
			continue
		}
		if tc.want.delim == "" {
			tc.want.delim = ":"
		}
		if tc.want.options == nil {
			tc.want.options = map[string]string{}
		}
		if !reflect.DeepEqual(*got, tc.want) {
			t.Errorf("%q:\n got %+v\nwant %+v", tc.args, *got, tc.want)
		}
	}
}

func TestBadGrammar(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"-z", "q", "cl"}, ExitNotFound, "no option -z"},
		{[]string{"--tmeout", "3", "q", "cl"}, ExitNotFound, `did you mean "timeout"`},
		{[]string{"--timeout"}, ExitMissing, "needs a value"},
		{[]string{"--timeout", "soon", "q", "cl"}, ExitIncorrect, `"soon" is not a time`},
		{[]string{"--timeout", "-3", "q", "cl"}, ExitIncorrect, `"-3" is not a time`},
		{[]string{"--no-wait=yes", "q", "cl"}, ExitIncorrect, "takes no value"},
		{[]string{"-a"}, ExitMissing, "-a needs a value"},
		{[]string{"-l", "loud", "q", "cl"}, ExitIncorrect, "loud"},
		{[]string{"-T", "a\nb", "q", "cl"}, ExitIncorrect, "one line"},
		{[]string{"qurey", "cl"}, ExitNotFound, `did you mean "query"`},
		{[]string{"s", "cl"}, ExitNotFound, "could be"},
		{[]string{"move", "cluster"}, ExitNotFound, "it takes: resource_group"},
		{[]string{"query", "rescource_group"}, ExitNotFound, `did you mean "resource_group"`},
		{[]string{"move", "rg"}, ExitMissing, "needs a name; usage: clmgr move resource_group RG[,RG] NODE=node"},
		{[]string{"move", "rg", ","}, ExitMissing, "needs a name"},
		{[]string{"move", "rg", "rg1"}, ExitMissing, "needs NODE=node"},
		{[]string{"move", "rg", "rg1", "rg2", "NODE=node2"}, ExitIncorrect, "one word too many"},
		{[]string{"move", "rg", "rg1", "NOD=node2"}, ExitNotFound, `NOD (did you mean "NODE"?)`},
		{[]string{"move", "rg", "rg1", "NODE=node2", "node=node1"}, ExitIncorrect, "given twice"},
		{[]string{"move", "rg", "rg1", "NODE=node2", "-m", "x"}, ExitNotFound, "has no option -m"},
		{[]string{"set", "failover", "-g", "a", "-g", "b", "-m", "next"}, ExitIncorrect, "-g is given twice"},
		{[]string{"export", "x"}, ExitIncorrect, "takes no name"},
		{[]string{"explain"}, ExitMissing, "explain needs a name"},
		{[]string{"explain", "a", "b", "c"}, ExitIncorrect, "one word too many"},
		{[]string{"confirm", "node_up", "x"}, ExitNotFound, "it takes: node_down"},
		{[]string{"move", "rg", "a\x00b", "NODE=n"}, ExitIncorrect, "no name can have"},
	} {
		got := l.run(tc.args...)
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) || got.out != "" {
			t.Errorf("%q: status %d, %q, %q; want %d with %q", tc.args, got.status, got.out, got.errors, tc.status, tc.want)
		}
	}
}

func TestWordsInAnyCaseAndLength(t *testing.T) {
	for _, line := range []string{"query resource_group rg1", "QUERY RESOURCE_GROUP rg1", "q rg rg1", "ls res rg1", "Show Rg rg1", "que resource rg1", "get RG rg1"} {
		l := newLab(t)
		if got := l.run(strings.Fields(line)...); got.status != 0 || !strings.HasPrefix(got.out, `NAME="rg1"`) {
			t.Errorf("%s: %d %q", line, got.status, got.errors)
		}
	}
}

// TestTableIsSound looks at the table itself: no word means two things, everything has help, and help can be printed.
func TestTableIsSound(t *testing.T) {
	words := map[string]string{}
	for i := range actionTable {
		a := &actionTable[i]
		for _, w := range append([]string{a.name}, a.aliases...) {
			if other, taken := words[w]; taken {
				t.Errorf("%q means %s and %s", w, other, a.name)
			}
			words[w] = a.name
			if w != strings.ToLower(w) {
				t.Errorf("%q has upper case", w)
			}
		}
		if a.doc == "" || (a.bare == nil && a.anyClass == nil && len(a.operations) == 0) {
			t.Errorf("action %s has no help or nothing to do", a.name)
		}
		ops := append([]operation(nil), a.operations...)
		for _, o := range []*operation{a.anyClass, a.bare} {
			if o != nil {
				ops = append(ops, *o)
			}
		}
		for _, o := range ops {
			if o.doc == "" || o.run == nil {
				t.Errorf("%s %s has no help or nothing to run", a.name, o.class)
			}
			for _, x := range o.attrs {
				if x.name != strings.ToUpper(x.name) || x.values == "" || x.doc == "" {
					t.Errorf("%s %s: attribute %+v", a.name, o.class, x)
				}
			}
			for _, x := range o.options {
				if !strings.Contains(optionsWithValue+"f", x.name) && x.name != breakGlass || x.doc == "" {
					t.Errorf("%s %s: option -%s cannot be given or has no help", a.name, o.class, x.name)
				}
			}
		}
	}
	for class, live := range liveAttributes {
		c := classNamed(class)
		if c == nil {
			t.Errorf("live attributes of a class %q that does not exist", class)
			continue
		}
		for _, x := range live {
			if c.Attribute(x.name) != nil || x.doc == "" {
				t.Errorf("%s: the live attribute %s is one of the definition's too, or has no help", class, x.name)
			}
		}
	}
}

// TestHelpOfEverything asks for help on each action, class and attribute.
func TestHelpOfEverything(t *testing.T) {
	l := newLab(t)
	ask := func(args ...string) string {
		got := l.run(args...)
		if got.status != 0 || got.out == "" || got.errors != "" {
			t.Errorf("%v: status %d, %q, %q", args, got.status, got.out, got.errors)
		}
		for line := range strings.SplitSeq(got.out, "\n") {
			if len(line) > 125 {
				t.Errorf("%v: a line of %d columns: %s", args, len(line), line)
			}
		}
		return got.out
	}
	golden(t, "help.txt", ask())
	golden(t, "help-status.txt", ask("help", "status"))
	golden(t, "help-start-cluster.txt", ask("start", "cluster", "-h"))
	if out := ask("help", "add", "rg", "fallover"); !strings.HasPrefix(out, "  FALLOVER=FNPN|FUDNP|BO ") {
		t.Errorf("help of one attribute: %q", out)
	}
	for i := range actionTable {
		a := &actionTable[i]
		ask("help", a.name)
		if a.bare != nil {
			continue
		}
		for _, class := range a.classNames() {
			if out := ask(a.name, class, "-h"); !strings.HasPrefix(out, "clmgr "+a.name+" "+class) {
				t.Errorf("help of %s %s begins with %q", a.name, class, firstLine(out))
			}
		}
	}
	for _, c := range cluster.Classes() {
		for _, a := range c.Attributes {
			if out := ask("help", "modify", c.Name, a.Name); !strings.Contains(out, a.Name+"=") {
				t.Errorf("help of %s %s: %q", c.Name, a.Name, out)
			}
		}
		for _, a := range liveAttributes[c.Name] {
			ask("help", "query", c.Name, a.name)
		}
	}
	if got := l.run("help", "add", "rg", "nosuch"); got.status != ExitNotFound {
		t.Errorf("help of an attribute that does not exist: %d", got.status)
	}
}

func TestSeveralOperationsInOneCall(t *testing.T) {
	l := newLab(t)
	got := l.run("-M", "add sip s2 ADDRESS=10.1.1.21 NETWORK=net1\nadd sip s3 ADDRESS=10.1.1.22 NETWORK=net1\n\ndelete sip nosuch\nadd sip s4 ADDRESS=10.1.1.23 NETWORK=net1")
	d := l.def()
	if got.status != ExitNotFound || d.ServiceIP("s2") == nil || d.ServiceIP("s3") == nil || d.ServiceIP("s4") != nil {
		t.Errorf("status %d, %q; it stops at the first that fails", got.status, got.errors)
	}
	for _, bad := range []string{"add 'x", "-M 'query cluster'"} {
		if got := l.run("-M", bad); got.status != ExitIncorrect {
			t.Errorf("%s: %d %q", bad, got.status, got.errors)
		}
	}
}

func TestErrorsInJSON(t *testing.T) {
	l := newLab(t)
	got := l.run("-o", "json", "query", "rg", "rg9")
	if got.status != ExitNotFound || !strings.Contains(got.errors, `"status": 2`) || !strings.Contains(got.errors, `"error": "there is no resource_group`) {
		t.Errorf("%d %q", got.status, got.errors)
	}
}

func TestVersion(t *testing.T) {
	l := newLab(t)
	if got := l.run("--version"); got.out != "clmgr (Holdfast) 1.0\n" {
		t.Errorf("got %q", got.out)
	}
}

func TestQuotedValuesAreSafeToEvaluate(t *testing.T) {
	for in, want := range map[string]string{`a"b`: `a\"b`, "$(reboot)": `\$(reboot)`, "`x`": "\\`x\\`", "a\nb": "a b", `\`: `\\`, "\x1b[2J": "?[2J"} {
		if got := quoted(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzGrammar: no command line makes the parser or the dispatch panic, and what is not understood never exits with 0.
func FuzzGrammar(f *testing.F) {
	for _, s := range []string{"query cluster", "-cSa NAME q rg", "add rg x NODES=a,b", "set failover -g x -m next", "start cluster -o home",
		"diff -f x", "-M a\\nb", "--timeout=3 mv rg x NODE=y", "-d", "--", "-", "help add rg nodes", "explain", "view log x TAIL=3", "-ffff -a=,, q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		c, err := parse(args)
		if err != nil {
			if statusOf(err) == ExitOK {
				t.Errorf("%q: the error %v has status 0", args, err)
			}
			return
		}
		if len(c.words) == 0 || isHelp(c.words[0]) {
			return
		}
		a, err := findAction(c.words[0])
		if err != nil {
			return
		}
		tg, err := a.target(c.words[1:])
		if err != nil {
			if statusOf(err) == ExitOK {
				t.Errorf("%q: the error %v has status 0", args, err)
			}
			return
		}
		s := &session{command: c}
		if tg.operation == nil || tg.operation.run == nil {
			t.Errorf("%q: nothing to run", args)
		}
		_ = s.checkOptions(tg)
		_ = tg.usage()
	})
}
