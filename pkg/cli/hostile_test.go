package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// wholeCluster has an object of each class.
const wholeCluster = `name: c1
nodes:
  - {name: node1, addresses: {net1: 10.1.1.1/24}}
  - {name: node2, addresses: {net1: 10.1.1.2/24}}
  - {name: node3, addresses: {net1: 10.1.1.3/24}}
networks: [net1]
service_ips:
  - {name: svc1, address: 10.1.1.10, network: net1}
persistent_ips:
  - {name: pip1, address: 10.1.1.21, network: net1, node: node1}
volume_groups:
  - {name: vg1}
file_systems:
  - {name: fs1, device: /dev/vg/lv, mount_point: /data}
nfs_exports:
  - {name: exp1, directory: /data}
application_controllers:
  - {name: app1, start_script: /ha/start, stop_script: /ha/stop, monitors: [mon1]}
application_monitors:
  - {name: mon1, type: custom, monitor_method: /ha/mon}
fallback_timers:
  - {name: weekend, repeats: weekly, day_of_week: 0, hour: 2}
fence_devices:
  - {name: pdu, agent: /usr/sbin/fence_x, nodes: [node1, node2, node3]}
methods:
  - {name: me1, type: verify, file: /ha/check}
events:
  - {name: start_server, notify: /ha/tell, pre: [/ha/pre], post: [/ha/post], fail_on_error: true, recovery: /ha/recover, recovery_limit: 2}
waivers:
  - {name: w1, check: V1801, reason: known}
file_collections:
  - {name: fc1, files: [/etc/hosts], source: node1}
repositories:
  - {name: repo1, device: /dev/hdisk2}
resource_groups:
  - {name: rg1, nodes: [node1, node2], service_ips: [svc1], file_systems: [fs1], applications: [app1]}
  - {name: rg2, nodes: [node2, node3]}
`

// hostile are values that no attribute should choke on. Each is refused with the attribute's name, or kept and given back as it was.
var hostile = []string{
	"", " ", "no such thing", "-1", "1e400", "NaN", "0x10", "99999999999999999999", "-rf", "--help", "-o remount",
	strings.Repeat("x", 5000), "/" + strings.Repeat("x/", 40000), strings.Repeat("a,", 40000),
	`"`, `'`, `it's "quoted"`, "`id`", "$(id)", "${IFS}", "; reboot", "&& reboot", "| reboot", "> /etc/passwd", "*", "?", "[a-z]", "~root", "!!", "#x", `\`, `a\nb`, "%n%s",
	"a=b", "NODES=node1", "=", "a:b", "a:b,c:d", "a,,b", ",",
	"line\nline", "tab\tstop", "\x00", "nul\x00byte", "\x1b[2J", "\r", "\u0085", "\xff\xfe", "\xc0\xaf",
	"über", "名前", "\u202egnp.exe", "a\u200bb", "👩‍👩‍👧", "\ufeffx", "ſ", "\u2028",
	"/", "//", "/..", "/../etc/passwd", "/ha/../../etc/shadow", "/ha/./start", "../start", "start", "/ha/start script", "/ha/start; reboot", "/ha/$(id)", "/proc/self/root/bin/sh",
	"/ha/start 'a b' \"$(id)\" ;reboot", "/ha/start '\n'", "file:///etc/passwd", "10.1.1.999", "10.1.1.10/24", "::1%eth0", "net1:10.1.1.1/99", "net1:10.1.1.1/24,net1:10.1.1.2/24",
	"null", "~", "yes", "[]", "{}", "- x", "*anchor", "&anchor", "!!python/object", "<<: x", "'", "a: b", "a #b", "01:30", "1_000", "2017-06-26",
}

// TestHostileValues tries every value on every attribute of every class.
func TestHostileValues(t *testing.T) {
	base, faults := decode("test", []byte(wholeCluster))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	kept, refused, later := 0, 0, 0
	for _, c := range cluster.Classes() {
		if c.Derived {
			continue // TestHostileDependencies
		}
		if len(c.Names(base)) == 0 {
			t.Errorf("%s is not looked at: there is no object of it", c.Name)
			continue
		}
		name := c.Names(base)[0]
		for _, a := range c.Attributes {
			if a.ReadOnly {
				continue // TestHostileNames
			}
			for _, v := range hostile {
				d := base.Clone()
				err := c.Modify(d, name, []cluster.Assignment{{Attribute: a.Name, Value: v}})
				if err != nil {
					refused++
					checkRefusal(t, &c, a.Name, v, err, d, base)
					continue
				}
				if p := d.Validate(); len(p) > 0 {
					later++
					checkProblems(t, &c, a.Name, v, p)
					continue
				}
				kept++
				checkKept(t, &c, name, a, v, d)
			}
		}
	}
	t.Logf("%d values: %d refused by the attribute, %d by the definition, %d kept", kept+refused+later, refused, later, kept)
	if kept < 500 || refused < 2000 {
		t.Errorf("the test has lost its objects: %d kept, %d refused", kept, refused)
	}
}

// checkRefusal: a refusal names the attribute, is printable and bounded, and changes nothing.
func checkRefusal(t *testing.T, c *cluster.Class, attr, v string, err error, d, base *cluster.Definition) {
	t.Helper()
	text := err.Error()
	if !strings.Contains(text, attr) {
		t.Errorf("%s %s=%q: the refusal does not name it: %s", c.Name, attr, v, text)
	}
	if len(text) > 2000 {
		t.Errorf("%s %s=%.20q: the refusal has %d bytes", c.Name, attr, v, len(text))
	}
	if strings.ContainsFunc(printable(text), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		t.Errorf("%s %s=%q: the refusal has control characters: %q", c.Name, attr, v, text)
	}
	if !d.Equal(base) {
		t.Errorf("%s %s=%q: refused, and something has changed", c.Name, attr, v)
	}
}

func checkProblems(t *testing.T, c *cluster.Class, attr, v string, list []cluster.Problem) {
	t.Helper()
	for _, p := range list {
		if p.Path == "" && p.Text == "" || strings.ContainsFunc(p.String(), unicode.IsControl) {
			t.Errorf("%s %s=%q: the problem %q has no place, or control characters", c.Name, attr, v, p.String())
		}
	}
}

// checkKept: what is kept goes through the file and back, and every form of output gives it back whole.
func checkKept(t *testing.T, c *cluster.Class, name string, a cluster.Attribute, v string, d *cluster.Definition) {
	t.Helper()
	text, err := encode(d)
	if err != nil {
		t.Errorf("%s %s=%q: %v", c.Name, a.Name, v, err)
		return
	}
	back, faults := decode("test", text)
	if len(faults) > 0 {
		t.Errorf("%s %s=%q: the file that was written cannot be read: %v", c.Name, a.Name, v, faults)
		return
	}
	want, _ := c.Get(d, name, a.Name)
	got, err := c.Get(back, name, a.Name)
	if err != nil || got != want {
		t.Errorf("%s %s=%q: %q before the file, %q after it, %v", c.Name, a.Name, v, want, got, err)
	}
	if a.Kind == cluster.KindText && a.Refers == "" && strings.TrimSpace(v) != "" && want != strings.TrimSpace(v) && !strings.HasPrefix(a.Name, "PREFIX") {
		t.Errorf("%s %s=%q: kept as %q", c.Name, a.Name, v, want)
	}
	// Whatever is given back can be given again.
	again := d.Clone()
	if err := c.Modify(again, name, []cluster.Assignment{{Attribute: a.Name, Value: want}}); !a.ReadOnly && err != nil {
		t.Errorf("%s %s: its own value %q is refused: %v", c.Name, a.Name, want, err)
	}
}

// TestHostileDependencies and names: what makes objects of what is typed.
func TestHostileNames(t *testing.T) {
	base, _ := decode("test", []byte(wholeCluster))
	for _, c := range cluster.Classes() {
		for _, v := range hostile {
			d := base.Clone()
			var err error
			switch {
			case c.Derived:
				err = c.Add(d, "", []cluster.Assignment{{Attribute: "PARENT", Value: v}, {Attribute: "CHILD", Value: "rg2"}})
			case c.Singleton:
				err = c.Modify(d, "", []cluster.Assignment{{Attribute: "NAME", Value: v}})
			default:
				err = c.Modify(d, c.Names(base)[0], []cluster.Assignment{{Attribute: "NAME", Value: v}})
			}
			if err != nil {
				if !d.Equal(base) {
					t.Errorf("%s NAME=%q: refused, and something has changed", c.Name, v)
				}
				continue
			}
			for _, n := range c.Names(d) {
				if !c.Derived && cluster.CheckName(n) != nil {
					t.Errorf("%s: there is one with the name %q now", c.Name, n)
				}
			}
			if c.Derived && len(d.Validate()) == 0 {
				t.Errorf("PARENT=%q is a group", v)
			}
		}
	}
}

// TestHostileCommandLines runs the whole way: command line, daemon, file, query in each form, and a shell that evaluates the lines.
func TestHostileCommandLines(t *testing.T) {
	l := newLab(t)
	for _, v := range hostile {
		for _, attr := range []string{"DESCRIPTION", "FILE", "TIMEOUT", "NODES", "TYPE"} {
			set := []string{"FILE=/ha/m", attr + "=" + v}
			if attr == "FILE" {
				set = set[1:]
			}
			_, before := l.backend.YAML()
			got := l.run(append([]string{"add", "method", "m"}, set...)...)
			if got.status != ExitOK {
				_, after := l.backend.YAML()
				if !strings.Contains(strings.ToUpper(got.errors), attr) || after != before || strings.ContainsAny(got.errors, "\x00\x1b\r") {
					t.Errorf("%s=%q: status %d, %q", attr, v, got.status, got.errors)
				}
				continue
			}
			want, _ := classNamed("method").Get(l.def(), "m", attr)
			if attr == "DESCRIPTION" && want != strings.TrimSpace(v) {
				t.Errorf("%s=%q is kept as %q", attr, v, want)
			}
			lines := l.run("-a", attr, "query", "method", "m").out
			if strings.Count(lines, "\n") != 1 {
				t.Errorf("%s=%q is not one line: %q", attr, v, lines)
			}
			if out := evaluated(t, lines, attr); out != want {
				t.Errorf("%s=%q: a shell that evaluates it has %q", attr, v, out)
			}
			if got := l.run("delete", "method", "m"); got.status != 0 {
				t.Fatal(got)
			}
		}
	}
}

// evaluated is the value of a variable after a shell has evaluated a query's lines, as scripts do. Nothing of a value may be run.
func evaluated(t *testing.T, lines, name string) string {
	t.Helper()
	c := exec.Command("sh", "-c", `set -f; eval "$1"; eval "printf %s \"\${$2}\""`, "sh", lines, name)
	c.Dir = t.TempDir()
	c.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := c.Output()
	if err != nil {
		t.Errorf("%q cannot be evaluated: %v", lines, err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "*")); len(left) > 0 {
		t.Errorf("%q made %v", lines, left)
	}
	return string(out)
}

// TestHostileArguments: the attributes of single commands, those of the tables and not of the classes.
func TestHostileArguments(t *testing.T) {
	l := newLab(t)
	tried := 0
	for i := range actionTable {
		a := &actionTable[i]
		for _, o := range a.operations {
			for _, x := range o.attrs {
				for _, v := range hostile {
					if slices.Contains([]string{"FILE", "LOGFILE", "TOKEN_FILE"}, x.name) && strings.HasPrefix(v, "/") {
						continue // a file that is there may be read
					}
					if v == "" || x.name == "LOGFILE" {
						continue
					}
					if _, err := cluster.ParseBool(v); x.name == "FOLLOW" && err == nil {
						continue // what was asked for, which has no end
					}
					tried++
					args := []string{a.name, o.class}
					if o.names != namesNone {
						args = append(args, "nosuch")
					}
					got := l.run(append(args, x.name+"="+v, "--no-wait")...)
					if a.name == "rotate" && v == "1_000" {
						continue // a good TIMEOUT, and there is no name that could be wrong
					}
					if got.status == ExitOK && a.name != "view" && a.name != "verify" && a.name != "sync" && a.name != "add" && a.name != "join" {
						t.Errorf("%s %s %s=%q is done", a.name, o.class, x.name, v)
					}
					if strings.ContainsAny(got.errors+got.out, "\x00\x1b\r") {
						t.Errorf("%s %s %s=%q: %q", a.name, o.class, x.name, v, fmt.Sprint(got))
					}
				}
			}
		}
	}
	if tried < 3000 {
		t.Errorf("only %d were tried", tried)
	}
}
