package scenario

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
)

const scenarios = "../../test/scenarios"

// TestScenarios plays every file of test/scenarios. A file whose name begins with "broken-" must be refused as unusable, with a
// message that names the file and the place.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(scenarios, "*.yaml"))
	if err != nil || len(files) < 200 {
		t.Fatalf("there are %d scenarios: %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			got := Command(f, bytes.NewReader(read(t, f)), false, &out, &errs)
			if strings.HasPrefix(name, "broken-") {
				if got != ExitUnusable || out.Len() > 0 || !strings.HasPrefix(errs.String(), f+":") || errs.Len() > 4096 {
					t.Fatalf("exit status %d, output %q, message %q", got, out.String(), errs.String())
				}
				return
			}
			if got != ExitHeld {
				t.Fatalf("exit status %d\n%s%s", got, errs.String(), out.String())
			}
		})
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustDecode(t testing.TB, text string) *config.Scenario {
	t.Helper()
	doc, err := config.DecodeScenario("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func play(t testing.TB, text string) *Report {
	t.Helper()
	r, err := Run(mustDecode(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const small = `
name: small
cluster:
  name: demo
  nodes: [node1, node2]
  resource_groups:
    - {name: app_rg, nodes: [node1, node2]}
    - {name: all_rg, nodes: [node2, node1], startup: OAAN, fallover: BO, fallback: NFB}
steps:
  - do: online cluster
  - do: crash node1
    expect: {app_rg: {node2: ONLINE}}
  - do: move app_rg node1
    refused: true
`

func TestJSONHasTheDocumentedForm(t *testing.T) {
	var out, errs bytes.Buffer
	if got := Command("small.yaml", strings.NewReader(small), true, &out, &errs); got != ExitHeld {
		t.Fatalf("exit status %d: %s%s", got, errs.String(), out.String())
	}
	var r struct {
		Name  string
		OK    bool
		Steps []struct {
			Step      int
			Do        string
			Refused   string
			Decisions []struct{ Op, Group, Node, Reason string }
			Groups    map[string]map[string]string
			Failed    []string
		}
	}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "small" || !r.OK || len(r.Steps) != 3 {
		t.Fatalf("%+v", r)
	}
	s := r.Steps[1]
	if s.Step != 2 || s.Do != "crash node1" || s.Failed == nil || len(s.Decisions) != 1 || s.Decisions[0].Op != "acquire" ||
		s.Decisions[0].Reason != "node1 is dead: proof fenced; node2 is the next available node" {
		t.Fatalf("%+v", s)
	}
	if g := s.Groups["app_rg"]; len(g) != 2 || g["node1"] != "OFFLINE" || g["node2"] != "ONLINE" {
		t.Fatalf("%v", s.Groups)
	}
	if g := s.Groups["all_rg"]; g["node1"] != "OFFLINE" || g["node2"] != "ONLINE" {
		t.Fatalf("%v", s.Groups)
	}
	if r.Steps[2].Refused == "" || r.Steps[2].Decisions == nil {
		t.Fatalf("%+v", r.Steps[2])
	}
}

func TestTextHasOneLineForEachDecision(t *testing.T) {
	var out, errs bytes.Buffer
	if got := Command("small.yaml", strings.NewReader(small), false, &out, &errs); got != ExitHeld {
		t.Fatalf("exit status %d: %s%s", got, errs.String(), out.String())
	}
	for _, want := range []string{
		"step 2  crash node1: acquire app_rg on node2 (node1 is dead: proof fenced; node2 is the next available node)\n",
		"step 3  move app_rg node1: refused: group app_rg cannot run on node node1: node1 is dead: proof fenced\n",
		"    app_rg         OFFLINE          node1\n                   ONLINE           node2\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, out.String())
		}
	}
}

func TestWhatDoesNotHoldIsSaid(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"a wrong state":             {"{node2: ONLINE}", "{node2: OFFLINE}", "app_rg on node2: want OFFLINE, is ONLINE"},
		"a request that is refused": {"    refused: true\n", "", "want the request taken, it was refused: group app_rg cannot run"},
		"a request that is taken":   {"move app_rg node1", "move app_rg node2", "want the request refused, it was taken"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(small, c.from, c.to, 1)
			r := play(t, text)
			found := false
			for _, s := range r.Steps {
				for _, f := range s.Failed {
					found = found || strings.HasPrefix(f, c.want)
				}
			}
			if r.OK || !found {
				t.Fatalf("ok is %v, and nothing says %q: %+v", r.OK, c.want, r.Steps)
			}
			var out, errs bytes.Buffer
			if got := Command("x.yaml", strings.NewReader(text), true, &out, &errs); got != ExitBroken {
				t.Fatalf("exit status %d", got)
			}
		})
	}
}

func TestExpectMatchesDueTo(t *testing.T) {
	for _, c := range []struct {
		want, plain, full string
		ok                bool
	}{
		{"OFFLINE", "OFFLINE", "OFFLINE DUE TO LACK OF NODE", true},
		{"OFFLINE DUE TO LACK OF NODE", "OFFLINE", "OFFLINE DUE TO LACK OF NODE", true},
		{"offline due to  lack of node", "OFFLINE", "OFFLINE DUE TO LACK OF NODE", true},
		{"OFFLINE DUE TO PARENT OFFLINE", "OFFLINE", "OFFLINE DUE TO LACK OF NODE", false},
		{"TEMP ERROR", "TEMP_ERROR", "TEMP_ERROR", true},
		{"ONLINE", "OFFLINE", "OFFLINE", false},
	} {
		if matches(c.want, c.plain, c.full) != c.ok {
			t.Errorf("%q against %q is %v", c.want, c.full, !c.ok)
		}
	}
}

func TestLiveBeginsWhereTheClusterStands(t *testing.T) {
	doc, err := config.DecodeScenario("test.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(doc.Cluster, doc.Start)
	p := &parser{def: doc.Cluster}
	a, err := p.parse("online cluster")
	if err != nil {
		t.Fatal(err)
	}
	w.play(&StepReport{}, a)
	before := w.s
	r, err := Live(w.s, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), []string{"crash node1", "join node1"})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Steps[0].Groups["app_rg"]["node2"] != "ONLINE" || r.Steps[1].Groups["app_rg"]["node1"] != "ONLINE" {
		t.Fatalf("%+v", r.Steps)
	}
	if before.Index != w.s.Index || w.s.Shown("app_rg", "node1").State != "ONLINE" {
		t.Fatal("the simulation touched the cluster")
	}
	for _, bad := range []string{"crash node9", "", "fly"} {
		if _, err := Live(w.s, time.Time{}, []string{bad}); err == nil {
			t.Errorf("the step %q was taken", bad)
		}
	}
	if _, err := Live(nil, time.Time{}, []string{"crash node1"}); err == nil {
		t.Error("a simulation without a cluster")
	}
}

// TestFieldHasNoNeedlessMove counts, in the large scenario, how often a group came back to the node that it had just left,
// although nothing that it depends on had moved.
func TestFieldHasNoNeedlessMove(t *testing.T) {
	doc, err := config.DecodeScenario("field", read(t, filepath.Join(scenarios, "field-32-nodes-60-groups.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(doc)
	if err != nil {
		t.Fatal(err)
	}
	needs := map[string]string{}
	for _, d := range doc.Cluster.Dependencies {
		if d.Parent != "" {
			needs[d.Child] = d.Parent
		}
		if d.Stop != "" { // it must stop before the other can
			needs[d.After] = d.Stop
		}
	}
	moves, needless := 0, 0
	for _, s := range r.Steps {
		left, touched := map[string]string{}, map[string]bool{}
		for _, d := range s.Decisions {
			touched[d.Group] = true
			switch {
			case d.Op == "release":
				left[d.Group] = d.Node
				moves++
			case left[d.Group] == d.Node && !touched[needs[d.Group]]:
				needless++
				t.Errorf("step %d, %s: %s came back to %s (%s)", s.Step, s.Do, d.Group, d.Node, d.Reason)
			}
		}
	}
	t.Logf("%d steps, %d moves, %d of them needless", len(r.Steps), moves, needless)
	if !r.OK {
		t.Error("a promise was broken")
	}
}
