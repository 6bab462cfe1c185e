package cli

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func (l *lab) good() func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
	return func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
		return api.VerifyReport{Subject: "the staged definition", Checks: 100, Passed: 100, Nodes: []string{"n1"}, Findings: []api.Finding{}}, nil
	}
}

// One change is staged, the next joins it, and a sync makes both active at once.
func TestStageAndSync(t *testing.T) {
	l := newLab(t)
	l.backend.OnVerify = l.good()
	before, version := l.backend.YAML()
	if got := l.run("--stage", "modify", "resource_group", "rg1", "FALLBACK=FBHPN"); got.status != 0 || !strings.Contains(got.out, "staged; clmgr diff") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("modify", "resource_group", "rg1", "PRIORITY=7"); got.status != 0 || !strings.Contains(got.out, "staged;") {
		t.Fatalf("a change while something is staged: %d %q %q", got.status, got.out, got.errors)
	}
	if now, v := l.backend.YAML(); now != before || v != version {
		t.Fatal("the active definition has changed")
	}
	if got := l.run("-a", "UNSYNCED_CHANGES", "query", "cluster"); got.out != "UNSYNCED_CHANGES=\"true\"\n" {
		t.Errorf("%q", got.out)
	}
	if got := l.run("-a", "PRIORITY", "query", "rg", "rg1"); got.out != "PRIORITY=\"7\"\n" || !strings.Contains(got.errors, "staged changes wait") {
		t.Errorf("%q %q", got.out, got.errors)
	}
	if got := l.run("sync", "cluster"); got.status != 0 || !strings.Contains(got.out, "Check: PASSED") || !strings.Contains(got.out, "is active on all nodes") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	g := l.def().Group("rg1")
	if g.Fallback != cluster.FallbackToHigherPriority || g.Priority != 7 {
		t.Errorf("%+v", g)
	}
	if got := l.run("sync", "cluster"); got.status != 0 || !strings.Contains(got.out, "none waits for a sync") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
}

func TestASyncThatDoesNotVerifyChangesNothing(t *testing.T) {
	l := newLab(t)
	l.backend.OnVerify = func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
		return api.VerifyReport{Findings: []api.Finding{{Check: "V1201", Severity: api.SeverityError, Saw: "there is no /x"}}}, nil
	}
	_, version := l.backend.YAML()
	l.run("--stage", "modify", "resource_group", "rg1", "PRIORITY=7")
	got := l.run("sync", "cluster")
	if _, v := l.backend.YAML(); got.status != ExitFailed || v != version || !strings.Contains(got.errors, "nothing was activated") || !strings.Contains(got.out, "there is no /x") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	got = l.run("sync", "cluster", "FORCE=yes")
	if _, v := l.backend.YAML(); got.status != 0 || v != version+1 || !strings.Contains(got.errors, "going on because of FORCE") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	l.run("--stage", "modify", "resource_group", "rg1", "PRIORITY=8")
	if got := l.run("sync", "cluster", "VERIFY=no"); got.status != 0 {
		t.Errorf("%d %q", got.status, got.errors)
	}
	if got := l.run("sync", "cluster", "VERIFY=perhaps"); got.status != ExitIncorrect {
		t.Errorf("%d %q", got.status, got.errors)
	}
}

func TestUndo(t *testing.T) {
	l := newLab(t)
	before, _ := l.backend.YAML()
	if got := l.run("undo"); got.status != 0 || !strings.Contains(got.out, "nothing is staged") {
		t.Errorf("%d %q", got.status, got.out)
	}
	l.run("--stage", "modify", "resource_group", "rg1", "PRIORITY=7")
	if got := l.run("undo"); got.status != 0 || !strings.Contains(got.out, "are dropped") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("-a", "PRIORITY", "query", "rg", "rg1"); got.out != "PRIORITY=\"0\"\n" {
		t.Errorf("%q", got.out)
	}
	if now, _ := l.backend.YAML(); now != before {
		t.Error("the active definition has changed")
	}
}

// With CHANGES=staged all changes wait, as in PowerHA.
func TestTheSettingStages(t *testing.T) {
	l := newLab(t)
	if got := l.run("modify", "cluster", "CHANGES=staged"); got.status != 0 || strings.Contains(got.out, "staged;") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("set", "fallback", "-g", "rg1", "-m", "never"); got.status != 0 || !strings.Contains(got.out, "staged;") && !strings.Contains(got.out, "nothing changes") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("modify", "rg", "rg1", "PRIORITY=3"); got.status != 0 || !strings.Contains(got.out, "staged;") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
}

func TestApplyShowsItsPlan(t *testing.T) {
	l := newLab(t)
	l.backend.OnDiff = func(api.DefinitionText) (api.Diff, error) {
		return api.Diff{Changes: []api.Change{{Op: "delete", Class: "service_ip", Name: "svc2"}, {Op: "modify", Class: "resource_group", Name: "rg1", Attr: "PRIORITY", From: "0", To: "7"},
			{Op: "modify", Class: "resource_group", Name: "rg1", Attr: "WEIGHT", From: "0", To: "2"}, {Op: "add", Class: "network", Name: "net9"},
			{Op: "add", Class: "network", Name: "net9", Attr: "PREFIX", To: "24"}},
			Effects: []string{"nothing else"}, Disruptive: []string{"service_ip svc2 of group rg1 is released on node node1"}}, nil
	}
	yaml, version := l.backend.YAML()
	name := l.file("c.yaml", strings.Replace(yaml, "name: c1", "name: c1", 1))
	got := l.run("apply", "-f", name, "--plan")
	if _, v := l.backend.YAML(); got.status != 0 || v != version {
		t.Fatalf("a plan changed something: %d %q", got.status, got.errors)
	}
	golden(t, "apply-plan", got.out)
	asked := func(answer string) outcome {
		return l.call(t.Context(), Env{Name: "clmgr", Terminal: true, Stdin: strings.NewReader(answer)}, "apply", "-f", name)
	}
	if got := asked("no\n"); got.status != ExitFailed || !strings.Contains(got.errors, "nothing was changed") {
		t.Errorf("%d %q", got.status, got.errors)
	}
	if _, v := l.backend.YAML(); v != version {
		t.Error("it was changed although the answer was no")
	}
	if got := asked("yes\n"); got.status != 0 {
		t.Errorf("%d %q", got.status, got.errors)
	}
	l.run("--stage", "modify", "resource_group", "rg1", "PRIORITY=7")
	if got := l.run("apply", "-f", name); got.status != ExitFailed || !strings.Contains(got.errors, "sync or undo them first") {
		t.Errorf("apply over something staged: %d %q", got.status, got.errors)
	}
}
