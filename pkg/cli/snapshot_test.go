package cli

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestSnapshots(t *testing.T) {
	l := newLab(t)
	l.backend.OnVerify = l.good()
	if got := l.run("add", "snapshot", "before", "DESCRIPTION=all is well"); got.status != 0 || !strings.Contains(got.out, "is kept on node1 and node2") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("add", "snapshot", "before"); got.status != ExitFailed || !strings.Contains(got.errors, "already") {
		t.Errorf("%d %q", got.status, got.errors)
	}
	if got := l.run("query", "snapshot"); got.out != "before\n" {
		t.Errorf("%q", got.out)
	}
	if got := l.run("-a", "NAME,DESCRIPTION,NODES", "query", "sn", "before"); got.out != "NAME=\"before\"\nDESCRIPTION=\"all is well\"\nNODES=\"node1,node2\"\n" {
		t.Errorf("%q", got.out)
	}
	yaml, version := l.backend.YAML()
	if got := l.run("view", "snapshot", "before"); got.out != yaml {
		t.Errorf("%q", got.out)
	}
	l.run("modify", "rg", "rg1", "PRIORITY=7")
	if got := l.run("manage", "snapshot", "restore", "before", "CONFIGURE=no"); got.status != 0 || !strings.Contains(got.out, "nothing was changed") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("manage", "snapshot", "restore", "before"); got.status != 0 || l.def().Group("rg1").Priority != 0 {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if _, v := l.backend.YAML(); v != version+2 {
		t.Errorf("version %d", v)
	}
	l.backend.OnVerify = func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
		return api.VerifyReport{Findings: []api.Finding{{Check: "V1201", Severity: api.SeverityError, Saw: "gone"}}}, nil
	}
	if got := l.run("manage", "snapshot", "restore", "before"); got.status != ExitFailed || !strings.Contains(got.errors, "nothing was changed") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("delete", "snapshot", "before"); got.status != 0 {
		t.Errorf("%d %q", got.status, got.errors)
	}
	for _, args := range [][]string{{"view", "snapshot", "before"}, {"delete", "snapshot", "before"}, {"query", "snapshot", "before"}, {"manage", "snapshot", "restore", "before"}} {
		if got := l.run(args...); got.status != ExitNotFound {
			t.Errorf("%q: %d %q", args, got.status, got.errors)
		}
	}
}

func TestSnapshotFromPowerHA(t *testing.T) {
	l := newLab(t)
	name := l.file("x.odm", "<ODM\nHACMPcluster:\n\tname = \"prod\"\nHACMPnode:\n\tname = \"a\"\nHACMPevent:\n\tname = \"node_up\"\n</ODM\n")
	got := l.run("add", "snapshot", "old", "FILE="+name)
	if got.status != 0 || !strings.Contains(got.errors, "1 of class HACMPevent") {
		t.Fatalf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("view", "snapshot", "old"); !strings.Contains(got.out, "name: prod") {
		t.Errorf("%q", got.out)
	}
}
