package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestStandardLibraryOnly(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") {
			continue
		}
		p, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			if strings.Contains(i.Path.Value, ".") {
				t.Errorf("%s imports %s", f.Name(), i.Path.Value)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	order := []Role{RoleNone, RoleView, RoleOperate, RoleAdmin}
	for i, has := range order {
		for k, need := range order {
			if got, want := has.Allows(need), i >= k && i > 0; got != want {
				t.Errorf("%q for %q: %v", has, need, got)
			}
		}
	}
	if Role("root").Allows(RoleNone) || Role("root").Allows(RoleView) {
		t.Error("an unknown role allows something")
	}
	if Op("reboot").Role() != RoleNone || OpConfirmDown.Role() != RoleAdmin || OpMove.Role() != RoleOperate {
		t.Error("roles of operations")
	}
}

func TestErrorsCarryTheirCode(t *testing.T) {
	err := fmt.Errorf("move the group: %w", Errorf(CodeNotFound, "no %s", "x"))
	if CodeOf(err) != CodeNotFound || CodeOf(nil) != "" || CodeOf(errors.New("x")) != CodeInternal {
		t.Error("codes")
	}
	seen := map[int]bool{}
	for _, c := range []Code{CodeInternal, CodeNotFound, CodeExists, CodeMissing, CodeInvalid, CodeDependency, CodeConflict, CodeRefused, CodeForbidden,
		CodeNotConfigured, CodeUnavailable, CodeUncertain, CodeTooLarge, CodeTimeout} {
		s := c.HTTPStatus()
		if s < 400 || http.StatusText(s) == "" {
			t.Errorf("%s travels as %d", c, s)
		}
		seen[s] = true
	}
	if len(seen) < 8 {
		t.Errorf("only %d statuses", len(seen))
	}
}

func TestFaults(t *testing.T) {
	for want, f := range map[string]Fault{
		"c.yaml:3:7: nodes[0].name: bad": {File: "c.yaml", Line: 3, Column: 7, Key: "nodes[0].name", Message: "bad"},
		"c.yaml:3: bad":                  {File: "c.yaml", Line: 3, Message: "bad"},
		"c.yaml: bad":                    {File: "c.yaml", Message: "bad"},
		"bad":                            {Message: "bad"},
		"k: bad":                         {Key: "k", Message: "bad"},
	} {
		if f.String() != want {
			t.Errorf("%q, want %q", f.String(), want)
		}
	}
}

func TestStale(t *testing.T) {
	now, old := 0.0, 9.0
	for _, tc := range []struct {
		c    Cluster
		want bool
	}{
		{Cluster{AgeSeconds: &now, StaleSeconds: 3}, false},
		{Cluster{AgeSeconds: &old, StaleSeconds: 3}, true},
		{Cluster{StaleSeconds: 3}, true}, // it never knew
		{Cluster{State: ClusterNotConfigured}, false},
	} {
		if tc.c.Stale() != tc.want {
			t.Errorf("%+v: %v", tc.c, !tc.want)
		}
	}
}

func TestTextOfInstances(t *testing.T) {
	for want, i := range map[string]Instance{
		"ONLINE": {State: GroupOnline}, "OFFLINE DUE TO LACK OF NODE": {State: GroupOffline, Due: DueLackOfNode}, "TEMP ERROR": {State: GroupTempError},
		"UNKNOWN": {}, "ERROR": {State: GroupError, Due: DueFallover},
	} {
		if i.Text() != want {
			t.Errorf("%+v: %q", i, i.Text())
		}
	}
}

// TestUnknownIsNotZero: what is not known must differ on the wire from zero.
func TestUnknownIsNotZero(t *testing.T) {
	zero := 0.0
	a, _ := json.Marshal(Cluster{})
	b, _ := json.Marshal(Cluster{AgeSeconds: &zero})
	if !strings.Contains(string(a), `"age_seconds":null`) || !strings.Contains(string(b), `"age_seconds":0`) {
		t.Errorf("%s\n%s", a, b)
	}
	l, _ := json.Marshal(Lease{MarginSeconds: &zero})
	if !strings.Contains(string(l), `"margin_seconds":0`) {
		t.Errorf("%s", l)
	}
}
