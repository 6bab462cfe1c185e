package cli

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// What --break-glass hands to the daemon's program, and what is refused before it is run. No daemon is asked: there is none.
func TestBreakGlass(t *testing.T) {
	file, err := filepath.Abs("c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line   []string
		status int // of the program; -9: it must not be run
		args   string
		exit   int
		says   string
	}{
		{[]string{"start", "resource_group", "rg1", "--break-glass"}, 0, "break-glass start --group=rg1", 0, ""},
		{[]string{"start", "rg", "rg1", "--break-glass", "CONFIRM=rg1 n2"}, 0, "break-glass start --group=rg1 --confirm=rg1 n2", 0, ""},
		{[]string{"start", "rg", "rg1", "-f", "c.yaml", "--break-glass"}, 0, "break-glass start --group=rg1 --file=" + file, 0, ""},
		{[]string{"start", "rg", "rg1", "--break-glass", "-f", "c.yaml"}, 0, "break-glass start --group=rg1 --file=" + file, 0, ""},
		{[]string{"stop", "rg", "rg1", "--break-glass"}, 0, "break-glass stop --group=rg1", 0, ""},
		{[]string{"offline", "rg", "rg1", "--break-glass"}, 3, "break-glass stop --group=rg1", ExitFailed, "because"},
		{[]string{"start", "rg", "rg1", "--break-glass"}, 2, "break-glass start --group=rg1", ExitNotFound, "because"},
		{[]string{"start", "rg", "rg1,rg2", "--break-glass"}, -9, "", ExitIncorrect, "one group at a time"},
		{[]string{"start", "rg", "rg1", "--break-glass", "NODE=node1"}, -9, "", ExitIncorrect, "NODE"},
		{[]string{"start", "rg", "rg1", "--break-glass", "CONFIRM= "}, -9, "", ExitMissing, "CONFIRM is empty"},
		{[]string{"start", "rg", "rg1", "CONFIRM=rg1 n2"}, -9, "", ExitIncorrect, "--break-glass"},
		{[]string{"start", "rg", "rg1", "--break-glass=yes"}, -9, "", ExitIncorrect, "takes no value"},
		{[]string{"stop", "rg", "rg1", "--break-glass", "CONFIRM=rg1"}, -9, "", ExitNotFound, "CONFIRM"},
		{[]string{"start", "cluster", "--break-glass"}, -9, "", ExitNotFound, "--break-glass"},
	} {
		l := newLab(t)
		ran := ""
		got := l.call(t.Context(), Env{Name: "clmgr", glass: func(_ context.Context, _ Env, args []string) (int, string) {
			ran = strings.Join(args, " ")
			if c.status != 0 {
				return c.status, "because"
			}
			return 0, ""
		}}, c.line...)
		if got.status != c.exit || ran != c.args || !strings.Contains(got.errors, c.says) {
			t.Errorf("%q: status %d, ran %q, said %q", c.line, got.status, ran, got.errors)
		}
	}
}
