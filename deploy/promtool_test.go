package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// promtool runs Prometheus' own checker in a directory; the test is left out only where it is not installed.
func promtool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool (Debian: prometheus) is not installed here: rules and dashboard are not loaded by it")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// rulesDir is a directory with the rules, changed by edit, and their tests.
func rulesDir(t *testing.T, edit func(string) string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"holdfast.rules.yml":      edit(read(t, "prometheus/holdfast.rules.yml")),
		"holdfast.rules_test.yml": read(t, "prometheus/holdfast.rules_test.yml"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRulesInPrometheus(t *testing.T) {
	if out, err := promtool(t, "prometheus", "check", "rules", "--lint-fatal", "holdfast.rules.yml"); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	if out, err := promtool(t, "prometheus", "test", "rules", "holdfast.rules_test.yml"); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestEachRuleIsTested: a rule that never fires, and an alert that always does, are noticed by the rules' tests.
func TestEachRuleIsTested(t *testing.T) {
	rules := read(t, "prometheus/holdfast.rules.yml")
	found := regexp.MustCompile(`- (?:alert|record): (\S+)\n\s+expr: (.*)`).FindAllStringSubmatch(rules, -1)
	if len(found) < 15 {
		t.Fatalf("only %d rules are found", len(found))
	}
	for what, with := range map[string]string{"never has a result": "vector(0) == 1", "always fires": "vector(1)"} {
		dir := rulesDir(t, func(text string) string {
			for _, m := range found {
				text = strings.Replace(text, m[0], strings.Replace(m[0], m[2], with, 1), 1)
			}
			return text
		})
		out, err := promtool(t, dir, "test", "rules", "holdfast.rules_test.yml")
		if err == nil {
			t.Errorf("that every rule %s is not noticed", what)
		}
		for _, m := range found {
			if !regexp.MustCompile(`(alertname: |expr: ")` + m[1] + `\b`).MatchString(out) {
				t.Errorf("that %s %s is not noticed:\n%s", m[1], what, out)
			}
		}
	}
}

// TestDashboardQueriesInPrometheus: each query of the dashboard is one that Prometheus can read.
func TestDashboardQueriesInPrometheus(t *testing.T) {
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/holdfast.json")), &d); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("groups:\n- name: dashboard\n  rules:\n")
	n := 0
	for _, p := range d.Panels {
		for _, x := range p.Targets {
			n++
			expr, _ := json.Marshal(x.Expr)
			fmt.Fprintf(&b, "  - record: dashboard:query_%d\n    expr: %s\n", n, expr)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dashboard.yml"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, dir, "check", "rules", "dashboard.yml"); err != nil || !strings.Contains(out, fmt.Sprintf("%d rules found", n)) {
		t.Errorf("%d queries: %v\n%s", n, err, out)
	}
}
