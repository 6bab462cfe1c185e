package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/peer"
)

// desks are the remote desks of some nodes, connected by function calls that can fail.
type desks struct {
	t    *testing.T
	def  *cluster.Definition
	dirs map[string]string // each node's root: /etc/hosts of node a is dirs[a]/etc/hosts
	all  map[string]*remoteDesk

	mu    sync.Mutex
	audit bytes.Buffer
	told  []string
	down  map[string]bool
	// lost drops the answer of a call that was served, so many times for each node.
	lost map[string]int
	runs map[string][]executor.Command
	// command stands in for the runner; nil: it ends with 0 and says where it is.
	command func(node string, c executor.Command) executor.Outcome
}

func newDesks(t *testing.T, names ...string) *desks {
	w := &desks{t: t, def: &cluster.Definition{Name: "c"}, dirs: map[string]string{}, all: map[string]*remoteDesk{}, down: map[string]bool{}, lost: map[string]int{},
		runs: map[string][]executor.Command{}}
	w.def.Settings.FreeCommands = true
	for _, n := range names {
		w.def.Nodes = append(w.def.Nodes, cluster.Node{Name: n})
		w.all[n] = w.desk(n, "life 1 of "+n)
	}
	return w
}

type lockedWriter struct{ w *desks }

func (l lockedWriter) Write(b []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.audit.Write(b)
}

func (w *desks) desk(name, life string) *remoteDesk {
	var wg sync.WaitGroup
	d := &remoteDesk{node: name, life: life, log: slog.New(slog.DiscardHandler), record: func(*api.RemoteOperation) {},
		audit:      func() *slog.Logger { return slog.New(slog.NewJSONHandler(lockedWriter{w}, nil)) },
		work:       func(f func()) { wg.Go(f) },
		definition: func() (*cluster.Definition, uint64) { return w.def, 1 },
		tell: func(s string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, s)
		},
		check:   func(string) error { return nil },
		backups: filepath.Join(w.t.TempDir(), "backup"),
	}
	d.init()
	w.t.Cleanup(func() { d.stop(errors.New("the test is over")); wg.Wait() })
	d.call = func(ctx context.Context, to, method string, body []byte) ([]byte, error) {
		return w.call(ctx, name, to, method, body)
	}
	d.run = func(_ context.Context, c executor.Command) executor.Outcome {
		w.mu.Lock()
		w.runs[name] = append(w.runs[name], c)
		f := w.command
		w.mu.Unlock()
		if f == nil {
			return executor.Outcome{Executed: true, Output: "here is " + name + "\n"}
		}
		return f(name, c)
	}
	return d
}

// files gives each node a directory of its own, in which the path of a collected file is looked for.
func (w *desks) files() {
	for n, d := range w.all {
		root := executortest.ScriptDir(w.t)
		w.dirs[n] = root
		d.inside = func(dir string) (string, error) { return executor.CheckDirectory(filepath.Join(root, dir)) }
		d.own = func() []string { return []string{filepath.Join(root, "var/lib/holdfast")} }
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *desks) write(node, path, content string, mode os.FileMode) {
	w.t.Helper()
	p := filepath.Join(w.dirs[node], path)
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		w.t.Fatal(err)
	}
}

func (w *desks) read(node, path string) string {
	b, err := os.ReadFile(filepath.Join(w.dirs[node], path))
	if err != nil {
		return "[" + errors.Unwrap(err).Error() + "]"
	}
	return string(b)
}

func (w *desks) call(ctx context.Context, from, to, method string, body []byte) ([]byte, error) {
	w.mu.Lock()
	down, d := w.down[to], w.all[to]
	w.mu.Unlock()
	if down {
		return nil, fmt.Errorf("call: %w", peer.ErrUnreachable)
	}
	serve := map[string]func(context.Context, string, []byte) ([]byte, error){rpcCommand: d.serveCommand, rpcReadFile: d.serveReadFile, rpcPutFile: d.servePutFile}[method]
	answer, err := serve(ctx, from, body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost[to] > 0 && method == rpcCommand && strings.Contains(string(body), `"life":`) {
		w.lost[to]--
		return nil, fmt.Errorf("call: %w", peer.ErrLost)
	}
	if err != nil {
		return nil, &peer.RemoteError{Node: to, Method: method, Text: err.Error()}
	}
	return answer, nil
}

var boss = api.Caller{User: "root", UID: 0, Role: api.RoleAdmin, Command: true}

func (w *desks) do(node string, r api.RemoteRequest) api.RemoteOperation {
	w.t.Helper()
	w.mu.Lock()
	d := w.all[node]
	w.mu.Unlock()
	op, err := d.begin(boss, r)
	for err == nil && !op.Done {
		op, err = d.follow(w.t.Context(), boss, op.ID, op.Version, time.Minute)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return op
}

func states(op *api.RemoteOperation) string {
	var out []string
	for i := range op.Nodes {
		out = append(out, op.Nodes[i].Node+"="+string(op.Nodes[i].State))
	}
	return strings.Join(out, " ")
}

func command(id string, argv ...string) api.RemoteRequest {
	return api.RemoteRequest{ID: id + strings.Repeat("0", 16), Command: &api.FreeCommand{Argv: argv}, Timeout: 5}
}

// A node that is down, one that refuses and one whose command fails are each named for what they are, and the others are done.
func TestCommandOnNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a", "b", "c", "d")
		w.down["b"] = true
		w.all["c"].check = func(string) error { return fmt.Errorf("%w: /x can be written by everybody", executor.ErrUnsafe) }
		w.command = func(node string, c executor.Command) executor.Outcome {
			if node == "d" {
				return executor.Outcome{Executed: true, Exit: 7, Output: "no", Err: errors.New("it ended with exit status 7")}
			}
			return executor.Outcome{Executed: true, Output: strings.Join(append([]string{c.Path}, c.Args...), "|")}
		}
		hostile := []string{"/x", "$(id)", "; reboot", "a b", "'", "\n", "", "-n", "*"}
		op := w.do("a", command("one", hostile...))
		synctest.Wait() // the history is told after the end
		if got := states(&op); got != "a=done b=unreachable c=refused d=failed" {
			t.Fatal(got)
		}
		if got := string(op.Nodes[0].Output); got != strings.Join(hostile, "|") {
			t.Errorf("the words arrived as %q", got)
		}
		if op.Nodes[3].Exit != 7 || string(op.Nodes[3].Output) != "no" || op.Nodes[0].Exit != 0 {
			t.Errorf("%+v", op.Nodes)
		}
		if len(w.runs["c"]) != 0 || len(w.runs["b"]) != 0 {
			t.Error("it ran where it was refused")
		}
		if len(w.told) != 1 || !strings.Contains(w.told[0], "not done on b (unreachable), c (refused), d (failed)") || strings.Contains(w.told[0], "reboot") {
			t.Errorf("the history says %q", w.told)
		}
		// each node that was asked has its own record, with who, from where and what
		for _, want := range []string{`"call":"operation on node a"`, `"call":"operation on node c"`, `"user":"root via a"`, `"result":"refused"`, `"result":"begun"`,
			`"result":"failed","detail":"exit status 7"`} {
			if !strings.Contains(w.audit.String(), want) {
				t.Errorf("no %s in the record:\n%s", want, w.audit.String())
			}
		}
	})
}

// Words arrive at the program as they were typed, whatever they hold: nothing on the way is a shell. The real runner, a real process.
func TestNoWordReachesAShell(t *testing.T) {
	w := newDesks(t, "a")
	dir := executortest.ScriptDir(t)
	words := executortest.Script(t, dir, "words", `for w; do printf '[%s]' "$w"; done`)
	runner := executortest.Runner(t, "none")
	w.all["a"].check = executor.CheckScript
	w.command = func(_ string, c executor.Command) executor.Outcome { return runner.Run(t.Context(), c) }
	ran := filepath.Join(dir, "ran")
	hostile := []string{words, "$(touch " + ran + ")", "`touch " + ran + "`", "; touch " + ran, "&& touch " + ran, "| touch " + ran, "> " + ran, "a  b", "'", `"`, `\`, "*", "-e",
		"$HOME", "~", "", "line\nline", "\x1b[2J", "名前", "--", "!!"}
	op := w.do("a", command("shell", hostile...))
	want := ""
	for _, h := range hostile[1:] {
		want += "[" + h + "]"
	}
	if got := string(op.Nodes[0].Output); states(&op) != "a=done" || got != want {
		t.Errorf("%s: %q, wanted %q", states(&op), got, want)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a word was run")
	}
	op = w.do("a", command("sh", "sh", "-c", "echo $0; exit 9", "given"))
	if r := op.Nodes[0]; r.State != api.RemoteFailed || r.Exit != 9 || string(r.Output) != "given\n" {
		t.Errorf("the operator's own shell: %+v", r)
	}
	slow := command("slow", "sleep", "60")
	slow.Timeout = 1
	if op = w.do("a", slow); op.Nodes[0].State != api.RemoteFailed || op.Nodes[0].Exit != -1 || !strings.Contains(op.Nodes[0].Detail, "timed out") {
		t.Errorf("%+v", op.Nodes[0])
	}
}

// A broken connection runs nothing twice; nor does the operator who repeats the command under its id.
func TestCommandRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a", "b")
		w.lost["b"] = 3
		op := w.do("a", command("once", "/x"))
		if got := states(&op); got != "a=done b=done" {
			t.Fatal(got, op.Nodes)
		}
		again := w.do("a", command("once", "/x"))
		if states(&again) != states(&op) || len(w.runs["a"]) != 1 || len(w.runs["b"]) != 1 {
			t.Errorf("it ran %d and %d times", len(w.runs["a"]), len(w.runs["b"]))
		}
		if _, err := w.all["a"].begin(boss, command("once", "/y")); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("another command under the same id: %v", err)
		}
		// from another node, or for somebody else, each node remembers the id, and shows nobody what it wrote
		op = w.do("b", command("once", "/x"))
		if len(w.runs["a"]) != 1 || states(&op) != "a=refused b=refused" || len(op.Nodes[0].Output) > 0 {
			t.Errorf("%d times; %+v", len(w.runs["a"]), op.Nodes)
		}
		body, _ := json.Marshal(commandAsk{ID: command("once").ID, Who: api.Caller{User: "eve", UID: 7, Command: true}, Timeout: 5, Command: &api.FreeCommand{Argv: []string{"/x"}}})
		if b, err := w.all["b"].serveCommand(t.Context(), "a", body); err != nil || !strings.Contains(string(b), `"refused"`) || strings.Contains(string(b), `"output"`) {
			t.Errorf("%s, %v", b, err)
		}
	})
}

// A daemon that is restarted between the agreement and the command does not run it; whether its predecessor did is unknown.
func TestCommandAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a", "b")
		w.all["b"].check = func(string) error { // it agrees, and is another one by the next question
			next := w.desk("b", "life 2 of b")
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all["b"] = next
			return nil
		}
		op := w.do("a", command("restart", "/x"))
		if got := states(&op); got != "a=done b=unknown" || !strings.Contains(op.Nodes[1].Detail, "restarted") {
			t.Fatal(got, op.Nodes[1])
		}
		if len(w.runs["b"]) != 0 {
			t.Error("it ran")
		}
	})
}

// A node that falls silent while its command runs is unknown, and the operation ends.
func TestCommandAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a", "b")
		hold := make(chan struct{})
		w.command = func(node string, _ executor.Command) executor.Outcome {
			if node == "b" {
				w.mu.Lock()
				w.down["b"] = true
				w.mu.Unlock()
				<-hold
			}
			return executor.Outcome{Executed: true}
		}
		op := w.do("a", command("silent", "/x"))
		if got := states(&op); got != "a=done b=unknown" {
			t.Error(got, op.Nodes)
		}
		close(hold)
	})
}

// Each node judges by itself: the setting, the caller's right, the words, and how many there are.
func TestCommandRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a", "b")
		ask := func(change func(*commandAsk)) api.RemoteResult {
			q := commandAsk{ID: "direct" + strings.Repeat("0", 16), Life: "life 1 of b", Who: boss, Timeout: 5, Command: &api.FreeCommand{Argv: []string{"/x"}}}
			change(&q)
			body, _ := json.Marshal(q)
			b, err := w.all["b"].serveCommand(t.Context(), "a", body)
			if err != nil {
				t.Fatal(err)
			}
			var a commandAnswer
			if err := json.Unmarshal(b, &a); err != nil {
				t.Fatal(err)
			}
			return a.Result
		}
		for name, change := range map[string]func(*commandAsk){
			"no right":        func(q *commandAsk) { q.Who.Command = false },
			"a relative path": func(q *commandAsk) { q.Command.Argv = []string{"../x"} },
			"no such name":    func(q *commandAsk) { q.Command.Argv = []string{"no-such-program-anywhere"} },
			"a zero byte":     func(q *commandAsk) { q.Command.Argv = []string{"/x", "a\x00b"} },
			"too long":        func(q *commandAsk) { q.Command.Argv = []string{"/x", strings.Repeat("x", api.MaxRemoteArgBytes)} },
			"a day":           func(q *commandAsk) { q.Timeout = 86400 },
		} {
			if r := ask(change); r.State != api.RemoteRefused || r.Detail == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		w.def.Settings.FreeCommands = false
		if r := ask(func(*commandAsk) {}); r.State != api.RemoteRefused || !strings.Contains(r.Detail, "nothing was run") {
			t.Errorf("off: %+v", r)
		}
		if _, err := w.all["a"].begin(boss, command("off", "/x")); api.CodeOf(err) != api.CodeRefused || !strings.Contains(err.Error(), "nothing was run") {
			t.Errorf("off, at the door: %v", err)
		}
		if len(w.runs["b"]) != 0 {
			t.Errorf("ran %v", w.runs["b"])
		}
		w.def.Settings.FreeCommands = true
		hold := make(chan struct{})
		w.command = func(string, executor.Command) executor.Outcome { <-hold; return executor.Outcome{Executed: true} }
		for i := range commandsHere {
			if r := ask(func(q *commandAsk) { q.ID = fmt.Sprintf("held%016d", i) }); r.State != api.RemoteRunning {
				t.Fatalf("%d: %+v", i, r)
			}
		}
		if r := ask(func(q *commandAsk) { q.ID = "more" + strings.Repeat("0", 16) }); r.State != api.RemoteRefused {
			t.Errorf("one too many: %+v", r)
		}
		close(hold)
	})
}

// What is remembered is bounded, and somebody else's output is nobody's.
func TestOperationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDesks(t, "a")
		w.command = func(string, executor.Command) executor.Outcome {
			return executor.Outcome{Executed: true, Output: strings.Repeat("x", 2*api.MaxRemoteOutput)}
		}
		for i := range 300 {
			op := w.do("a", command(fmt.Sprintf("n%03d", i), "/x"))
			if n := len(op.Nodes[0].Output); n != api.MaxRemoteOutput {
				t.Fatalf("%d bytes of output", n)
			}
		}
		d := w.all["a"]
		if len(d.ops) > remoteKept+1 || len(d.runs) > remoteKept+1 {
			t.Errorf("%d operations and %d runs are remembered", len(d.ops), len(d.runs))
		}
		other := api.Caller{User: "eve", UID: 7, Role: api.RoleView, Command: true}
		if _, err := d.follow(t.Context(), other, command("n299").ID, 0, 0); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("another user reads it: %v", err)
		}
	})
}

func collectionRequest(id, source string) api.RemoteRequest {
	return api.RemoteRequest{ID: id + strings.Repeat("0", 16), Collection: &api.CollectionSync{Names: []string{"fc"}, Source: source}}
}

func fileStates(op *api.RemoteOperation) string {
	var out []string
	for i := range op.Nodes {
		for _, f := range op.Nodes[i].Files {
			out = append(out, op.Nodes[i].Node+":"+filepath.Base(f.Path)+"="+f.State)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestFileCollection(t *testing.T) {
	w := newDesks(t, "a", "b", "c", "d")
	w.files()
	w.def.FileCollections = []cluster.FileCollection{{Name: "fc", Files: []string{"/etc/hosts", "/etc/new"}, Nodes: []string{"a", "b", "c"}}}
	w.write("a", "etc/hosts", "right\n", 0o644)
	w.write("a", "etc/new", "new\n", 0o600)
	w.write("b", "etc/hosts", "wrong\n", 0o600)
	w.write("c", "etc/hosts", "right\n", 0o644)
	w.write("d", "etc/hosts", "not its business\n", 0o644)

	if _, err := w.all["b"].begin(boss, collectionRequest("none", "")); api.CodeOf(err) != api.CodeMissing {
		t.Errorf("nobody said whose copy wins: %v", err)
	}
	if _, err := w.all["b"].begin(boss, collectionRequest("other", "d")); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a source that is not one of its nodes: %v", err)
	}
	compare := collectionRequest("compare", "a")
	compare.Collection.CompareOnly = true
	op := w.do("c", compare)
	if got := fileStates(&op); got != "a:hosts=same a:new=same b:hosts=differs b:new=differs c:hosts=same c:new=differs" || w.read("b", "etc/hosts") != "wrong\n" {
		t.Fatalf("compare: %s", got)
	}
	if states(&op) != "a=done b=failed c=failed" {
		t.Error(states(&op))
	}
	op = w.do("c", collectionRequest("sync", "a"))
	if got := fileStates(&op); got != "a:hosts=same a:new=same b:hosts=replaced b:new=created c:hosts=same c:new=created" || states(&op) != "a=done b=done c=done" {
		t.Fatalf("sync: %s %s", got, states(&op))
	}
	for _, n := range []string{"b", "c"} {
		info, err := os.Stat(filepath.Join(w.dirs[n], "etc/new"))
		if w.read(n, "etc/hosts") != "right\n" || w.read(n, "etc/new") != "new\n" || err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v", n, w.read(n, "etc/hosts"), info)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dirs[n], "etc/.holdfast-new-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if w.read("d", "etc/hosts") != "not its business\n" {
		t.Error("a node that is not in the collection was written to")
	}
	kept, _ := filepath.Glob(filepath.Join(w.all["b"].backups, "*"))
	if len(kept) != 1 {
		t.Fatalf("former copies: %v", kept)
	}
	if b, _ := os.ReadFile(kept[0]); string(b) != "wrong\n" {
		t.Errorf("the former copy is %q", b)
	}
	op = w.do("c", collectionRequest("settled", "a"))
	if got := fileStates(&op); strings.Contains(got, "replaced") || strings.Contains(got, "created") {
		t.Errorf("a second time: %s", got)
	}
}

// A node that is down is named, one whose directory others can write to refuses, and the third has the file all the same.
func TestFileCollectionInPart(t *testing.T) {
	w := newDesks(t, "a", "b", "c", "d")
	w.files()
	w.def.FileCollections = []cluster.FileCollection{{Name: "fc", Files: []string{"/etc/hosts"}, Source: "a"}}
	w.write("a", "etc/hosts", "right\n", 0o644)
	w.down["b"] = true
	if err := os.Chmod(filepath.Join(w.dirs["c"], "etc"), 0o777); err != nil {
		t.Fatal(err)
	}
	op := w.do("a", collectionRequest("part", ""))
	if got := states(&op); got != "a=done b=unreachable c=refused d=done" || w.read("d", "etc/hosts") != "right\n" {
		t.Fatalf("%s %+v", got, op.Nodes)
	}
	if !strings.Contains(op.Nodes[2].Detail, "can be written by everybody") || w.read("c", "etc/hosts") != "[no such file or directory]" {
		t.Errorf("%+v", op.Nodes[2])
	}
	w.down["a"] = true
	op = w.do("d", collectionRequest("nosource", ""))
	if got := states(&op); got != "a=unreachable b=failed c=failed d=failed" {
		t.Errorf("without its source: %s", got)
	}
}

// What the source has decides whether anything is sent at all.
func TestNotSent(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(w *desks, path string)
		want string
	}{
		"missing": {func(*desks, string) {}, "missing there"},
		"empty":   {func(w *desks, _ string) { w.write("a", "etc/f", "", 0o644) }, "an empty file is not sent"},
		"too large": {func(w *desks, _ string) {
			w.write("a", "etc/f", strings.Repeat("x", cluster.MaxCollectionFile+1), 0o644)
		}, "more than 512 KiB"},
		"a link": {func(w *desks, p string) {
			w.write("a", "etc/secret", "secret", 0o600)
			_ = os.Symlink("secret", p)
		}, "no regular file"},
		"a directory": {func(_ *desks, p string) { _ = os.Mkdir(p, 0o755) }, "no regular file"},
		"setuid":      {func(w *desks, _ string) { w.write("a", "etc/f", "x", 0o755|os.ModeSetuid) }, "another user's rights"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDesks(t, "a", "b")
			w.files()
			w.def.FileCollections = []cluster.FileCollection{{Name: "fc", Files: []string{"/etc/f"}, Source: "a"}}
			w.write("b", "etc/f", "old", 0o644)
			tc.make(w, filepath.Join(w.dirs["a"], "etc/f"))
			op := w.do("b", collectionRequest("ns", ""))
			if !strings.Contains(op.Nodes[0].Detail, tc.want) || states(&op) != "a=refused b=failed" || w.read("b", "etc/f") != "old" {
				t.Errorf("%s: %+v", states(&op), op.Nodes)
			}
		})
	}
}

// A copy that is larger than any collected file is replaced without being read, and kept; one that is too large to be kept stays.
func TestLargeFormerCopy(t *testing.T) {
	w := newDesks(t, "a", "b", "c")
	w.files()
	w.def.FileCollections = []cluster.FileCollection{{Name: "fc", Files: []string{"/etc/f"}, Source: "a"}}
	w.write("a", "etc/f", "right", 0o644)
	large := strings.Repeat("x", cluster.MaxCollectionFile+1)
	w.write("b", "etc/f", large, 0o644)
	w.write("c", "etc/f", "", 0o644)
	if err := os.Truncate(filepath.Join(w.dirs["c"], "etc/f"), maxBackup+1); err != nil { // it has no blocks
		t.Fatal(err)
	}
	op := w.do("a", collectionRequest("large", ""))
	if states(&op) != "a=done b=done c=failed" || w.read("b", "etc/f") != "right" || !strings.Contains(op.Nodes[2].Detail, "move it away yourself") {
		t.Errorf("%s %s", states(&op), op.Nodes[2].Detail)
	}
	kept, _ := filepath.Glob(filepath.Join(w.all["b"].backups, "*_etc_f"))
	if len(kept) != 1 {
		t.Fatalf("former copies: %v", kept)
	}
	if b, err := os.ReadFile(kept[0]); err != nil || string(b) != large {
		t.Errorf("the former copy: %d bytes, %v", len(b), err)
	}
	if info, err := os.Stat(filepath.Join(w.dirs["c"], "etc/f")); err != nil || info.Size() != maxBackup+1 {
		t.Errorf("%v, %v", info, err)
	}
}

// The largest file that is allowed fits into one message.
func TestLargestCollectedFile(t *testing.T) {
	q := fileAsk{Collection: strings.Repeat("c", 64), Path: "/" + strings.Repeat("p", 4095), Who: boss, Facts: fileFacts{Owner: strings.Repeat("o", 64), Group: strings.Repeat("g", 64)},
		Content: make([]byte, cluster.MaxCollectionFile)}
	b, err := json.Marshal(q)
	if err != nil || len(b) > peer.MaxFrame-1000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	out, err := json.Marshal(commandAnswer{Result: api.RemoteResult{Output: make([]byte, api.MaxRemoteOutput), Detail: strings.Repeat("\x01", 1000)}})
	if err != nil || len(out) > peer.MaxFrame-1000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// A member cannot make another write what no collection lists, nor the product's own files, nor something else than it announced.
func TestPutFileIsClosed(t *testing.T) {
	w := newDesks(t, "a", "b")
	w.files()
	own := "/var/lib/holdfast/identity/ca-key.pem"
	w.def.FileCollections = []cluster.FileCollection{{Name: "fc", Files: []string{"/etc/f", own, "/link/ca-key.pem"}, Source: "a"}}
	secret := filepath.Join(w.dirs["b"], own)
	if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("b", own, "key", 0o600)
	if err := os.Symlink("var/lib/holdfast/identity", filepath.Join(w.dirs["b"], "link")); err != nil {
		t.Fatal(err)
	}
	put := func(path, digest string) api.FileResult {
		body, _ := json.Marshal(fileAsk{Collection: "fc", Path: path, Who: boss, Content: []byte("evil"), Facts: fileFacts{Digest: digest, Mode: 0o644, Owner: "0", Group: "0"}})
		b, err := w.all["b"].servePutFile(t.Context(), "a", body)
		if err != nil {
			t.Fatal(err)
		}
		var a fileAnswer
		if err := json.Unmarshal(b, &a); err != nil {
			t.Fatal(err)
		}
		return a.File
	}
	for path, want := range map[string]string{"/etc/passwd": "does not list it", own: "the product's own", "/link/ca-key.pem": "the product's own", "/etc/f": "not what was announced"} {
		if r := put(path, strings.Repeat("0", 64)); r.State != api.FileRefused && r.State != api.FileFailed || !strings.Contains(r.Detail, want) {
			t.Errorf("%s: %+v", path, r)
		}
	}
	for _, path := range []string{own, "/link/ca-key.pem"} {
		body, _ := json.Marshal(fileAsk{Collection: "fc", Path: path, Who: boss})
		b, err := w.all["b"].serveReadFile(t.Context(), "a", body)
		if err != nil || strings.Contains(string(b), "a2V5") || !strings.Contains(string(b), "the product's own") { // "key" in base64
			t.Errorf("read %s: %s %v", path, b, err)
		}
	}
	if w.read("b", own) != "key" || w.read("b", "etc/f") != "[no such file or directory]" || w.read("b", "etc/passwd") != "[no such file or directory]" {
		t.Error("something was written")
	}
}

// What comes from another node is decoded, and never more than refused.
func FuzzRemoteQuestions(f *testing.F) {
	f.Add([]byte(`{"id":"x","who":{},"command":{"argv":["/x"]}}`))
	f.Add([]byte(`{"collection":"fc","path":"/etc/f","content":"AAAA","facts":{"digest":"00"}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"command":{"argv":[]}}`))
	def := &cluster.Definition{Name: "c", Nodes: []cluster.Node{{Name: "a"}}, FileCollections: []cluster.FileCollection{{Name: "fc", Files: []string{"/no/such/dir/f"}}}}
	d := &remoteDesk{node: "a", life: "l", log: slog.New(slog.DiscardHandler), audit: func() *slog.Logger { return slog.New(slog.DiscardHandler) },
		definition: func() (*cluster.Definition, uint64) { return def, 1<<64 - 1 }, inside: executor.CheckDirectory, own: func() []string { return nil }}
	d.init()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, serve := range []func(context.Context, string, []byte) ([]byte, error){d.serveCommand, d.serveReadFile, d.servePutFile} {
			answer, err := serve(t.Context(), "b", b)
			if err == nil && !json.Valid(answer) {
				t.Errorf("%q", answer)
			}
			if strings.Contains(string(answer), `"replaced"`) || strings.Contains(string(answer), `"created"`) || strings.Contains(string(answer), `"done"`) {
				t.Errorf("it was done: %s", answer)
			}
		}
	})
}

// A node that could not be reached for one file is not asked again for each of the others.
func TestAbsentNodeIsAskedOnce(t *testing.T) {
	w := newDesks(t, "a", "b")
	w.files()
	w.down["b"] = true
	c := cluster.FileCollection{Name: "fc", Source: "a"}
	for i := range 50 {
		c.Files = append(c.Files, fmt.Sprintf("/etc/f%d", i))
		w.write("a", c.Files[i], "x", 0o644)
	}
	w.def.FileCollections = []cluster.FileCollection{c}
	asked := 0
	call := w.all["a"].call
	w.all["a"].call = func(ctx context.Context, node, method string, body []byte) ([]byte, error) {
		if node == "b" {
			asked++
		}
		return call(ctx, node, method, body)
	}
	op := w.do("a", collectionRequest("absent", ""))
	if states(&op) != "a=done b=unreachable" || asked != 1 || len(op.Nodes[1].Files) != 50 {
		t.Errorf("%s, asked %d times for %d files", states(&op), asked, len(op.Nodes[1].Files))
	}
}
