package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// upToDate compares a generated file with the one in the repository, or writes it with -update (make docs).
func upToDate(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the tables say: make docs writes it anew", path)
	}
}

// TestGenerated: what is made from the tables is as they are now, and nothing else lies beside it.
func TestGenerated(t *testing.T) {
	upToDate(t, "../../docs/clmgr.md", Reference())
	upToDate(t, "../../docs/output.md", OutputReference())
	pages := Manuals()
	for name, text := range pages {
		upToDate(t, filepath.Join("../../docs/man", name), text)
	}
	files, err := filepath.Glob("../../docs/man/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := pages[filepath.Base(f)]; !ok {
			t.Errorf("%s is made from no table", f)
		}
	}
	for shell, name := range completionScripts {
		text, err := completionFiles.ReadFile("completion/" + name)
		if err != nil {
			t.Fatal(shell, err)
		}
		upToDate(t, filepath.Join("../../deploy/completion", name), string(text))
	}
}

// TestReferenceHasEverything looks for each word of the tables.
func TestReferenceHasEverything(t *testing.T) {
	for name, text := range map[string]string{"clmgr.md": Reference(), "clmgr.1": Manuals()["clmgr.1"]} {
		text = strings.ReplaceAll(text, "\\-", "-")
		for i := range actionTable {
			if !strings.Contains(text, actionTable[i].name) {
				t.Errorf("%s lacks the action %s", name, actionTable[i].name)
			}
		}
		for _, c := range cluster.Classes() {
			for _, a := range c.Attributes {
				if !strings.Contains(text, a.Name) {
					t.Errorf("%s lacks %s of %s", name, a.Name, c.Name)
				}
			}
		}
		for _, f := range cluster.Foreigners() {
			if !strings.Contains(text, f.Name) {
				t.Errorf("%s lacks PowerHA's %s", name, f.Name)
			}
		}
	}
}

// overstruck is how a terminal's bold letter begins.
var overstruck = regexp.MustCompile(".\x08")

// TestManualsAreSound asks mandoc, where it is installed, and man.
func TestManualsAreSound(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed")
	}
	for name, text := range Manuals() {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		lint, _ := exec.Command(mandoc, "-Tlint", "-Wwarning", path).CombinedOutput() // its status says that there is something to say
		for line := range strings.SplitSeq(strings.TrimSpace(string(lint)), "\n") {
			if line != "" && !strings.Contains(line, "missing date") { // a date would be of the day on which it was made
				t.Error(line)
			}
		}
		var out bytes.Buffer
		c := exec.Command(mandoc, "-Tascii", path)
		c.Stdout = &out
		if err := c.Run(); err != nil || !strings.Contains(overstruck.ReplaceAllString(out.String(), ""), "NAME") {
			t.Errorf("%s cannot be shown: %v", name, err)
		}
	}
}

// TestForeignTableIsSound: no line of it contradicts the definition's own classes, is there twice, or names a class that does not exist.
func TestForeignTableIsSound(t *testing.T) {
	var actions []string
	for i := range actionTable {
		actions = append(actions, actionTable[i].name)
	}
	seen := map[string]bool{}
	for _, f := range cluster.Foreigners() {
		if f.Why == "" || f.Name != strings.ToUpper(f.Name) || len(f.Scopes) == 0 || !f.Taken && len(f.Values) > 0 {
			t.Errorf("the line of %+v is not whole", f)
		}
		for _, n := range f.Not {
			if n[0] == "" || n[1] == "" || !f.Taken || f.Takes(n[0]) || !strings.Contains(f.Refusal(strings.ToUpper(n[0])), n[1]) {
				t.Errorf("%s: the line of %v is not whole", f.Name, n)
			}
		}
		for _, scope := range f.Scopes {
			if seen[scope+f.Name] {
				t.Errorf("%s of %s is there twice", f.Name, scope)
			}
			seen[scope+f.Name] = true
			c := classNamed(scope)
			switch {
			case c != nil && c.Attribute(f.Name) != nil:
				t.Errorf("%s has %s itself", scope, f.Name)
			case c == nil && scope != "snapshot" && !slices.Contains(actions, scope):
				t.Errorf("%s: no class or action %s", f.Name, scope)
			}
		}
	}
	for _, f := range foreignActions {
		if a, err := findAction(f.name); err == nil {
			t.Errorf("the action %s is refused and exists as %s", f.name, a.name)
		}
	}
	for _, f := range foreignClasses {
		for _, w := range append([]string{f.name}, f.aliases...) {
			if c, err := cluster.FindClass(w); err == nil && (c.Name == w || slices.Contains(c.Aliases, w)) {
				t.Errorf("the class %s is refused and exists as %s", w, c.Name)
			}
		}
	}
	for _, o := range foreignOperations {
		a, err := findAction(o.action)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(a.classNames(), o.class) {
			t.Errorf("%s %s is refused and exists", o.action, o.class)
		}
	}
}

// TestPowerHAsWords: what PowerHA's scripts say is taken with a notice, or refused with what to do, and never passed over.
func TestPowerHAsWords(t *testing.T) {
	for _, tc := range []struct {
		line   string
		status int
		want   string
	}{
		{"modify cluster HEARTBEAT_TYPE=Unicast MAX_EVENT_TIME=200", ExitOK, "NOTICE: modify cluster: HEARTBEAT_TYPE has no effect: heartbeats are unicast"},
		{"modify cluster HEARTBEAT_TYPE=multicast", ExitIncorrect, "only HEARTBEAT_TYPE=unicast is taken"},
		{"modify cluster GRACE_PERIOD=10", ExitNotFound, "timings come as one checked set, by PROFILE"},
		{"modify rg rg1 MISC_DATA=x", ExitNotFound, "give it to the scripts as arguments"},
		{"modify rg rg1 SITE_POLICY=ignore PRIORITY=3", ExitOK, "SITE_POLICY has no effect"},
		{"query site", ExitNotFound, "the class site is PowerHA's: sites are not managed yet"},
		{"ls disk", ExitNotFound, "the class physical_volume is PowerHA's"},
		{"discover cluster", ExitNotFound, "the action discover is PowerHA's"},
		{"mv sip svc1 INTERFACE=en1", ExitNotFound, "move service_ip is PowerHA's"},
		{"manage logs collect", ExitNotFound, "manage logs is PowerHA's"},
		{"modify ev node_up COMMAND=/x", ExitNotFound, "COMMAND is PowerHA's: the work of an event is the cluster's own"},
		{"-a HEARTBEAT_FREQUENCY query cluster", ExitNotFound, "cluster has no attribute HEARTBEAT_FREQUENCY, which is PowerHA's: timings come"},
		{"delete cluster NODES=ALL", ExitNotFound, "a cluster ends node by node"},
	} {
		l := newLab(t)
		_, before := l.backend.YAML()
		got := l.run(strings.Fields(tc.line)...)
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) {
			t.Errorf("%s: status %d, %q; want %d with %q", tc.line, got.status, got.errors, tc.status, tc.want)
		}
		if _, after := l.backend.YAML(); tc.status != ExitOK && after != before {
			t.Errorf("%s: refused, and the definition has changed", tc.line)
		}
	}
}

// TestOptionsAreNotPassedOver: PowerHA's options work, or it is said that they do nothing.
func TestOptionsAreNotPassedOver(t *testing.T) {
	for _, tc := range []struct {
		line   string
		status int
		want   string // in the errors; empty: nothing is there
	}{
		{"-c explain rg1", ExitOK, "-c (or -d) has no effect"},
		{"-x export", ExitOK, "-x has no effect"},
		{"-S query rg", ExitOK, "-S has no effect"},
		{"-a NAME modify rg rg1 PRIORITY=1", ExitOK, "-a has no effect"},
		{"-cS query rg", ExitOK, ""},
		{"-x query snapshot", ExitOK, ""},
		{"-a ID,KIND query event", ExitOK, ""},
		{"-a ID,SORT query event", ExitNotFound, "event has no attribute SORT"},
		{"-a NAME,TAKE query snapshot", ExitNotFound, `TAKE (did you mean "TAKEN"?)`},
		{"-o json -a ID query event", ExitOK, "-a has no effect"},
		{"-o json -a NAME query rg", ExitOK, ""},
		{"-D -T 7 -l max query cluster", ExitOK, ""},
	} {
		l := newLab(t)
		l.backend.OnExplain = func(string, string) (api.Explanation, error) {
			return api.Explanation{Group: "rg1", Sentences: []string{"so"}}, nil
		}
		l.backend.AddEvent(api.Event{ID: 1, Kind: "node_up", Sentence: "node1 is up"})
		if got := l.run("add", "snapshot", "s1"); got.status != 0 {
			t.Fatal(got)
		}
		got := l.run(strings.Fields(tc.line)...)
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) || tc.want == "" && got.errors != "" {
			t.Errorf("%s: %d %q; want %d and %q", tc.line, got.status, got.errors, tc.status, tc.want)
		}
	}
	l := newLab(t)
	l.backend.AddEvent(api.Event{ID: 1, Kind: "node_up", Sentence: "node1 is up"})
	if got := l.run("-a", "KIND,ID", "query", "event"); got.out != "KIND=\"node_up\"\nID=\"1\"\n" {
		t.Errorf("%+v", got)
	}
}

// A class's own TIMEOUT is not the time for waiting.
func TestTimeoutOfAClassIsItsOwn(t *testing.T) {
	l := newLab(t)
	if got := l.run("add", "method", "m1", "FILE=/ha/m", "TIMEOUT=7"); got.status != 0 {
		t.Fatal(got)
	}
	if m := l.def().Methods; len(m) != 1 || m[0].Timeout.Seconds() != 7 {
		t.Errorf("the methods are %+v", m)
	}
}
