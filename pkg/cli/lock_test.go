package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestParseLockRun(t *testing.T) {
	for line, want := range map[string]string{
		"db -- true":                            "db  [true]",
		"db true -x --y":                        "db  [true -x --y]",
		"-s db -w 3 -- a -s":                    "db shared wait 3 [a -s]",
		"--shared --wait=2.5 db -E 9 -- a -- b": "db shared wait 2.5 busy 9 [a -- b]",
		"db --try --lost=kill --ttl 30 -- a":    "db try kill ttl 30 [a]",
	} {
		r, err := parseLockRun(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		var got strings.Builder
		got.WriteString(r.name)
		for _, p := range []struct {
			on   bool
			text string
		}{{r.shared, " shared"}, {r.try, " try"}, {r.wait == 3, " wait 3"}, {r.wait == 2.5, " wait 2.5"}, {r.busy == 9, " busy 9"}, {r.lost == "kill", " kill"},
			{r.ttl == 30, " ttl 30"}} {
			if p.on {
				got.WriteString(p.text)
			}
		}
		got.WriteString(" [" + strings.Join(r.command, " ") + "]")
		if strings.ReplaceAll(got.String(), "  ", " ") != strings.ReplaceAll(want, "  ", " ") {
			t.Errorf("%s: %q, want %q", line, got.String(), want)
		}
	}
	for _, line := range []string{"", "db", "-- true", "db -w -- true", "db -w 0 -- true", "db -w soon -- true", "db -w NaN -- true", "db --try -w 3 -- true", "db --ttl 1 -- true",
		"db --lost=later -- true", "db -q -- true", "db -E 256 -- true", "db -s", "db --"} {
		if r, err := parseLockRun(strings.Fields(line)); err == nil {
			t.Errorf("%q was taken: %+v", line, r)
		}
	}
}

func TestLockRun(t *testing.T) {
	l := newLab(t)
	for line, want := range map[string]struct {
		status int
		words  string
	}{
		"lock run --socket S db -- sh -c exit|7":                             {7, ""},
		"lock run --socket S db -- sh -c kill|-9|$$":                         {137, ""},
		"lock run --socket S db -- sh -c echo|T=$HOLDFAST_LOCK_TOKEN":        {0, "T=42"},
		"lock run --socket S busy -- true":                                   {124, "held by app on node n2"},
		"lock run --socket S -E 3 busy -- true":                              {3, ""},
		"lock run --socket S db -- /no/such/command":                         {127, "no such file"},
		"lock run --socket S db -- /etc/passwd":                              {126, "permission denied"},
		"lock run --socket /no/such/socket db -- true":                       {125, "is clstrmgrd running"},
		"lock run --socket S db":                                             {125, "the command is missing"},
		"lock walk":                                                          {125, "usage"},
		"lock --help":                                                        {0, "usage"},
		"lock run --socket S db -- sh -c trap|'echo|got|it;exit|5'|TERM;cat": {0, ""},
	} {
		args := strings.Fields(strings.ReplaceAll(line, " S ", " "+l.socket+" "))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "|", " ")
		}
		got := l.call(t.Context(), Env{Name: "clmgr", Stdin: strings.NewReader("")}, args...)
		if got.status != want.status || !strings.Contains(got.out+got.errors, want.words) {
			t.Errorf("%s: status %d\n%s%s", line, got.status, got.out, got.errors)
		}
	}
}

// A command whose lock is lost is ended, within its grace, and says so by its status.
func TestLockLost(t *testing.T) {
	for lost, want := range map[string]int{"term": ExitLockLost, "kill": ExitLockLost, "ignore": 4} {
		var errs syncBuffer
		h := &lockHold{run: &lockRun{name: "db", lost: lost, command: []string{"sh", "-c", "trap '' TERM; sleep 2; exit 4"}}, path: "/bin/sh", lost: make(chan string, 1),
			env:   Env{Stdin: strings.NewReader(""), Stdout: &syncBuffer{}, Stderr: &errs},
			say:   func(string, ...any) {},
			token: 7}
		h.lost <- "a test"
		began := time.Now()
		if got := h.execute(); got != want {
			t.Errorf("%s: status %d after %v, want %d", lost, got, time.Since(began), want)
		}
	}
}

func TestReleaseLock(t *testing.T) {
	l := newLab(t)
	var asked []api.Request
	l.backend.OnDo = func(_ api.Caller, r api.Request) (api.Reply, error) {
		asked = append(asked, r)
		return api.Reply{Index: 1}, nil
	}
	if got := l.call(context.Background(), Env{Name: "clmgr"}, "release", "lock", "db", "SESSION=0123456789abcdef0123456789abcdef"); got.status != 0 || len(asked) != 1 ||
		asked[0].Op != api.OpReleaseLock || asked[0].Lock != "db" || asked[0].Session != "0123456789abcdef0123456789abcdef" {
		t.Errorf("%+v %+v", got, asked)
	}
	if got := l.call(context.Background(), Env{Name: "clmgr"}, "release", "lock", "db"); got.status != ExitMissing {
		t.Errorf("%+v", got)
	}
	if got := l.call(context.Background(), Env{Name: "clmgr"}, "query", "lock", "db"); got.status != 0 || got.out != "db: free\n" {
		t.Errorf("%+v", got)
	}
}
