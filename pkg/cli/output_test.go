package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// TestEveryActionWritesDocuments: with -o json, whatever the answer is, there are only JSON documents on the output, and an error is
// one too. With -o yaml it is the same in YAML.
func TestEveryActionWritesDocuments(t *testing.T) {
	for _, line := range []string{
		"query cluster", "query rg", "-v query node", "-a NAME query rg rg1", "query status", "query event", "query audit", "query snapshot", "view log",
		"view log clutils.log", "view subsystem", "view snapshot s1", "export", "diff", "explain rg1", "add sip s2 ADDRESS=10.1.1.21 NETWORK=net1",
		"modify rg rg1 PRIORITY=3", "delete sip s2 -f", "add snapshot s2", "delete snapshot s1,s2", "verify cluster", "online rg rg1", "query rg nosuch",
		"query nosuch", "move rg rg1", "compare snapshot s1", "undo", "sync cluster", "add token node3", "query waiver CHECK=V1",
	} {
		l := newLab(t)
		l.backend.OnExplain = func(string, string) (api.Explanation, error) {
			return api.Explanation{Group: "rg1", Sentences: []string{"so"}}, nil
		}
		l.backend.OnVerify = func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) { return api.VerifyReport{}, nil }
		l.backend.OnAudit = func(int) (api.AuditList, error) { return api.AuditList{Records: []api.AuditRecord{}}, nil }
		if got := l.run("add", "snapshot", "s1"); got.status != 0 {
			t.Fatal(got)
		}
		words := strings.Fields(line)
		got := l.run(append([]string{"-o", "json/1", "--timeout", "3"}, words...)...)
		if got.out == "" && got.errors == "" {
			t.Errorf("%s: says nothing", line)
		}
		onlyDocuments(t, line, got.out)
		if got.status != ExitOK && got.out == "" {
			var e errorOutput
			if err := json.Unmarshal([]byte(got.errors), &e); err != nil || e.Status != got.status || e.Error == "" {
				t.Errorf("%s: the error is %q, %v", line, got.errors, err)
			}
		}
		if yaml := l.run(append([]string{"-o", "yaml/1", "--timeout", "3"}, words...)...); strings.HasPrefix(yaml.out, "{") && yaml.out != "{}\n" || strings.HasPrefix(yaml.out, "[{") {
			t.Errorf("%s: in YAML %q", line, yaml.out)
		}
	}
}

func onlyDocuments(t *testing.T, line, text string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Errorf("%s: %v in %q", line, err, text)
			return
		}
	}
}

// TestFormsAreNamed: a form that is not written any more, or not yet, is refused and not answered in another.
func TestFormsAreNamed(t *testing.T) {
	l := newLab(t)
	for _, bad := range []string{"json/2", "yaml/0", "JSON/x"} {
		if got := l.run("-o", bad, "query", "cluster"); got.status != ExitIncorrect || !strings.Contains(got.errors, "form 1") || got.out != "" {
			t.Errorf("%s: %+v", bad, got)
		}
	}
	if a, b := l.run("-o", "json", "query", "cluster"), l.run("-o", "json/1", "query", "cluster"); a.out != b.out || a.out == "" {
		t.Errorf("%q and %q", a.out, b.out)
	}
}

// TestManyOperationsInYAML: before -M it is for all, within for one.
func TestManyOperationsInYAML(t *testing.T) {
	l := newLab(t)
	if got := l.run("-o", "yaml", "-M", "-a NAME query rg rg1\n-a NAME query rg rg2"); got.out != "- NAME: rg1\n---\n- NAME: rg2\n" {
		t.Errorf("%+v", got)
	}
	if got := l.run("-M", "-o yaml -a NAME query rg rg1\n-a NAME query rg rg2"); got.out != "- NAME: rg1\nNAME=\"rg2\"\n" {
		t.Errorf("%+v", got)
	}
}

// TestYAMLSaysWhatJSONSays compares the two forms of the whole status, hostile names included.
func TestYAMLSaysWhatJSONSays(t *testing.T) {
	l := newLab(t)
	l.backend.Change(func(st *api.Status) {
		st.Cluster.Warnings = hostile[:20]
		st.Cluster.UUID, st.Cluster.ID = "1e5", 18446744073709551615
		st.Groups[0].Sentence = "no: \"yes\" # '\n- x"
	})
	var want strings.Builder
	if err := config.WriteYAML(&want, []byte(l.run("-o", "json", "query", "status").out)); err != nil {
		t.Fatal(err)
	}
	got := l.run("-o", "yaml", "query", "status")
	if got.out != want.String() || !strings.Contains(got.out, "id: 18446744073709551615\n") || !strings.Contains(got.out, "uuid: \"1e5\"\n") {
		t.Errorf("got\n%s\nwant\n%s", got.out, want.String())
	}
}

// TestOutputFormIsKept holds form 1: these keys of what programs read most have been promised. Add lines, take none away.
func TestOutputFormIsKept(t *testing.T) {
	promised := map[string][]string{
		"Status":       {"version", "instance", "time", "cluster", "nodes", "groups", "networks ?", "pending ?"},
		"Cluster":      {"name", "uuid", "id ?", "state", "leader", "local_node", "quorum", "repository ?", "age_seconds", "stale_seconds", "definition_version", "unsynced ?", "warnings ?"},
		"Node":         {"name", "id", "state", "raw_state", "incarnation", "voter", "leader ?", "addresses ?", "networks ?", "lease ?", "reason ?"},
		"Group":        {"name", "id", "nodes", "startup", "fallover", "fallback", "instances", "priority_override ?", "timers ?", "applications ?", "resources ?", "generation"},
		"Instance":     {"node", "state", "due ?", "reason ?"},
		"Event":        {"id", "time", "kind", "node ?", "group ?", "sentence", "user ?"},
		"VerifyReport": {"time", "subject", "checks", "passed", "findings"},
		"Finding":      {"check", "title", "severity", "saw", "why", "fix"},
		"Diff":         {"same", "version", "changes ?", "effects ?", "disruptive ?"},
		"Explanation":  {"group", "sentences"},
		"Report":       {"name", "ok", "steps"},
		"result":       {"what", "result", "index ?", "sentence"},
		"errorOutput":  {"error", "status", "code ?", "faults ?"},
	}
	page := OutputReference()
	for _, name := range sortedKeys(promised) {
		_, part, ok := strings.Cut(page, "### "+name+"\n")
		if !ok {
			t.Errorf("%s is not written any more", name)
			continue
		}
		part, _, _ = strings.Cut(part, "###")
		lines := strings.Split(part, "\n")
		for _, key := range promised[name] {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("| %s |", key)) }) {
				t.Errorf("%s has lost %q", name, key)
			}
		}
	}
}
