package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// TestFollowEvents: what comes is shown as it comes, until the command is interrupted, and that is no failure.
func TestFollowEvents(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"query event FOLLOW=yes TAIL=1 NODE=node1", "2 "},
		{"-o json query event FOLLOW=yes TAIL=2 KIND=node_*", `{"id":1,`},
		{"-c -a ID,KIND query event FOLLOW=yes TAIL=1", "# ID:KIND\n2:node_up\n3:node_up\n"},
	} {
		l := newLab(t)
		for range 2 {
			l.backend.AddEvent(api.Event{Kind: "node_up", Node: "node1", Sentence: "node1 is up"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		out := &syncBuffer{}
		out.on = func(text string) {
			switch {
			case strings.Contains(text, "later"), strings.HasPrefix(text, "3:"):
				cancel()
			case strings.Contains(text, "node1 is up"), strings.HasPrefix(text, "2:"):
				if strings.Contains(text, `"id":1,`) {
					return
				}
				go l.backend.AddEvent(api.Event{Kind: "node_up", Node: "node1", Sentence: "it is later"})
			}
		}
		env := Env{Stdout: out, Stderr: &syncBuffer{}, Stdin: strings.NewReader(""), LogDir: l.logs,
			Getenv: func(k string) string { return map[string]string{api.SocketEnv: l.socket}[k] }}
		if status := Main(ctx, env, strings.Fields(tc.args)); status != ExitOK || !strings.Contains(out.String(), tc.want) {
			t.Errorf("%s: status %d\n%s", tc.args, status, out.String())
		}
		cancel()
	}
	l := newLab(t)
	for args, want := range map[string]string{
		"query event FOLLOW=perhaps":         "yes or no",
		"-x query event FOLLOW=yes":          "no end",
		"-o yaml query event FOLLOW=yes":     "no end",
		"query event FOLLOW=yes SINCE=never": "the id of an event",
	} {
		if got := l.run(strings.Fields(args)...); got.status != ExitIncorrect || !strings.Contains(got.errors, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
