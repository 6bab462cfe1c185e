package cli

import (
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestQueryAudit(t *testing.T) {
	l := newLab(t)
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l.backend.OnAudit = func(int) (api.AuditList, error) {
		return api.AuditList{Silent: map[string]string{"node3": "no answer in time"}, Records: []api.AuditRecord{
			{Time: at, Node: "node1", User: "root", Role: api.RoleAdmin, Call: "POST /v1/requests", What: "move rg1 on node2", Result: "done", Index: 41},
			{Time: at.Add(time.Second), Node: "node2", User: "eve", Role: api.RoleView, Call: "POST /v1/requests", What: "stop \x1b[2J", Result: "forbidden", Detail: "eve may only view"},
		}}, nil
	}
	got := l.run("query", "audit")
	want := "2026-11-22 12:00:00.000 node1        root         admin    move rg1 on node2: done at 41\n" +
		"2026-11-22 12:00:01.000 node2        eve          view     stop ?[2J: forbidden: eve may only view\n"
	if got.status != 0 || got.out != want || got.errors != "WARNING: node node3 could not be asked: no answer in time\n" {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("query", "audit", "USER=eve", "TAIL=1"); got.out != want[len(want)-len("2026-11-22 12:00:01.000 node2        eve          view     stop ?[2J: forbidden: eve may only view\n"):] {
		t.Errorf("%q", got.out)
	}
	if got := l.run("query", "audit", "USER=nobody"); got.status != ExitNoMatch {
		t.Errorf("%d", got.status)
	}
	if got := l.run("query", "audit", "TAIL=0"); got.status != ExitIncorrect {
		t.Errorf("%d", got.status)
	}
}
