package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

var _ server.Backend = (*servertest.Backend)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// syncBuffer is a log that the server writes while the test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type rig struct {
	backend *servertest.Backend
	socket  string
	client  *client.Client
	log     *syncBuffer
}

func start(t *testing.T, access server.Access, edit ...func(*server.Config)) *rig {
	t.Helper()
	r := &rig{
		backend: servertest.New(api.Status{Cluster: api.Cluster{Name: "c1", State: api.ClusterStable}}),
		socket:  filepath.Join(t.TempDir(), "s"),
		log:     &syncBuffer{},
	}
	cfg := server.Config{Backend: r.backend, Log: slog.New(slog.NewTextHandler(r.log, nil)), Access: access}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := server.ListenLocal(r.socket, access)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeLocal(l) }()
	r.client = client.New(r.socket)
	t.Cleanup(func() {
		r.client.Close()
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

func TestRoundTripOfEveryCall(t *testing.T) {
	ctx := t.Context()
	r := start(t, server.Access{})
	r.backend.SetYAML("name: c1\n")
	r.backend.AddEvent(api.Event{Kind: "node_up", Node: "n1", Sentence: "n1 is up"})
	r.backend.OnExplain = func(g, n string) (api.Explanation, error) {
		return api.Explanation{Group: g, Node: n, Sentences: []string{"because"}}, nil
	}
	r.backend.OnCreate = func(c api.CreateCluster) (api.CreateClusterReply, error) {
		return api.CreateClusterReply{UUID: "u-" + c.Name}, nil
	}

	if st, err := r.client.Status(ctx); err != nil || st.Cluster.Name != "c1" {
		t.Errorf("status: %+v, %v", st.Cluster, err)
	}
	if ev, err := r.client.Events(ctx, 0, 10); err != nil || len(ev.Events) != 1 || ev.Next != 1 {
		t.Errorf("events: %+v, %v", ev, err)
	}
	if e, err := r.client.Explain(ctx, "g & h", "n1"); err != nil || e.Group != "g & h" || e.Node != "n1" {
		t.Errorf("explain: %+v, %v", e, err)
	}
	if d, err := r.client.Definition(ctx); err != nil || d.YAML != "name: c1\n" || d.Version != 1 {
		t.Errorf("definition: %+v, %v", d, err)
	}
	if rep, err := r.client.SetDefinition(ctx, api.DefinitionChange{YAML: "name: c2\n", BaseVersion: 1}); err != nil || rep.DefinitionVersion != 2 {
		t.Errorf("set definition: %+v, %v", rep, err)
	}
	if _, err := r.client.SetDefinition(ctx, api.DefinitionChange{YAML: "x", BaseVersion: 1}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a change on an old base: %v, want a conflict", err)
	}
	if d, err := r.client.Diff(ctx, api.DefinitionText{YAML: "x"}); err != nil || !d.Same {
		t.Errorf("diff: %+v, %v", d, err)
	}
	if _, err := r.client.Check(ctx, api.DefinitionText{}); err != nil {
		t.Errorf("check: %v", err)
	}
	if h, err := r.client.Health(ctx); err != nil || !h.OK {
		t.Errorf("health: %+v, %v", h, err)
	}
	if rep, err := r.client.CreateCluster(ctx, api.CreateCluster{Name: "c9"}); err != nil || rep.UUID != "u-c9" {
		t.Errorf("create: %+v, %v", rep, err)
	}
	if tok, err := r.client.NewToken(ctx, api.NewToken{Node: "n4"}); err != nil || tok.Token != "token-of-n4" {
		t.Errorf("token: %+v, %v", tok, err)
	}
	if _, err := r.client.Join(ctx, api.Join{Token: "t"}); err != nil {
		t.Errorf("join: %v", err)
	}
	if _, err := r.client.Leave(ctx); err != nil {
		t.Errorf("leave: %v", err)
	}
}

func TestOneIDIsOneRequest(t *testing.T) {
	r := start(t, server.Access{})
	req := api.Request{ID: client.NewID(), Op: api.OpMove, Groups: []string{"g"}, Node: "n2"}
	for range 3 {
		if _, err := r.client.Do(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.backend.Requests()); n != 1 {
		t.Errorf("the backend carried out %d requests of one id", n)
	}
}

func TestRequestsThatNoClusterCouldDo(t *testing.T) {
	r := start(t, server.Access{})
	for _, tc := range []struct {
		req  api.Request
		code api.Code
	}{
		{api.Request{Op: api.OpMove, Groups: []string{"g"}}, api.CodeMissing},
		{api.Request{Op: api.OpMove, Node: "n"}, api.CodeMissing},
		{api.Request{Op: api.OpOnline}, api.CodeMissing},
		{api.Request{Op: api.OpClear}, api.CodeMissing},
		{api.Request{Op: api.OpConfirmDown}, api.CodeMissing},
		{api.Request{Op: api.OpStart, Manage: api.ManageUnmanage}, api.CodeInvalid},
		{api.Request{Op: api.OpStop, Manage: api.ManageManual}, api.CodeInvalid},
		{api.Request{Op: "reboot"}, api.CodeInvalid},
		{api.Request{Op: api.OpStart, ID: "short"}, api.CodeInvalid},
		{api.Request{Op: api.OpStart, ID: strings.Repeat("x", 20) + "\n"}, api.CodeInvalid},
	} {
		if _, err := r.client.Do(t.Context(), tc.req); api.CodeOf(err) != tc.code {
			t.Errorf("%+v: %v, want code %s", tc.req, err, tc.code)
		}
	}
	if n := len(r.backend.Requests()); n != 0 {
		t.Errorf("%d impossible requests reached the backend", n)
	}
}

func raw(t *testing.T, r *rig, method, path, body string) (int, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func TestBadInputOnTheWire(t *testing.T) {
	r := start(t, server.Access{})
	id := client.NewID()
	for name, tc := range map[string]struct {
		method, path, body, want string
		status                   int
	}{
		"no such path":    {"GET", "/v1/nothing", "", "not_found", 404},
		"wrong method":    {"DELETE", api.PathStatus, "", "not_found", 404},
		"not JSON":        {"POST", api.PathRequests, "{", "invalid", 422},
		"unknown field":   {"POST", api.PathRequests, `{"id":"` + id + `","op":"start","fast":true}`, `fast`, 422},
		"two values":      {"POST", api.PathRequests, `{"id":"` + id + `","op":"start"}{}`, "something follows", 422},
		"too long":        {"POST", api.PathRequests, `{"reason":"` + strings.Repeat("x", api.MaxBody) + `"}`, "too_large", 413},
		"wait NaN":        {"GET", api.PathStatus + "?wait=NaN", "", "no number of seconds", 422},
		"wait negative":   {"GET", api.PathStatus + "?wait=-1", "", "no number of seconds", 422},
		"since a word":    {"GET", api.PathEvents + "?since=yesterday", "", "yesterday", 422},
		"explain nothing": {"GET", api.PathExplain, "", "needs a group", 422},
		"no group":        {"GET", api.PathExplain + "?group=x", "", "there is no resource group", 404},
	} {
		status, text := raw(t, r, tc.method, tc.path, tc.body)
		if status != tc.status || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, text, tc.status, tc.want)
		}
	}
}

func TestAuditLineOfEachWrite(t *testing.T) {
	r := start(t, server.Access{})
	r.backend.OnDo = func(_ api.Caller, q api.Request) (api.Reply, error) {
		if q.Op == api.OpOffline {
			return api.Reply{Refused: "child_rg is online"}, nil
		}
		return api.Reply{Index: 7}, nil
	}
	_, _ = r.client.Do(t.Context(), api.Request{Op: api.OpMove, Groups: []string{"app_rg"}, Node: "n2"})
	_, _ = r.client.Do(t.Context(), api.Request{Op: api.OpOffline, Groups: []string{"db_rg"}})
	_, _ = r.client.Join(t.Context(), api.Join{Token: "very-secret"})
	_, _ = r.client.Status(t.Context())
	log := r.log.String()
	for _, want := range []string{`what="move app_rg on n2" result=done`, `result=refused detail="child_rg is online"`, "user=root uid=0 role=admin"} {
		if os.Geteuid() != 0 && strings.Contains(want, "root") {
			continue
		}
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the audit:\n%s", want, log)
		}
	}
	if strings.Contains(log, "very-secret") {
		t.Error("the audit holds a token")
	}
	if n := strings.Count(log, "msg=audit"); n != 3 {
		t.Errorf("%d audit lines, want 3 (reads are not audited)", n)
	}
}

func TestPanicOfABackendIsOneFailedCall(t *testing.T) {
	r := start(t, server.Access{})
	r.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) { panic("boom") }
	if _, err := r.client.Do(t.Context(), api.Request{Op: api.OpStart}); api.CodeOf(err) != api.CodeInternal || strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
	if _, err := r.client.Status(t.Context()); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	if !strings.Contains(r.log.String(), "boom") {
		t.Error("the panic is not in the log")
	}
}

func TestLongPollEndsWithAChange(t *testing.T) {
	r := start(t, server.Access{})
	waiting := make(chan struct{}, 10)
	r.backend.OnWait = func(uint64) { waiting <- struct{}{} }
	seen := make(chan api.Status, 1)
	go func() {
		st, err := r.client.WaitFor(t.Context(), func(st *api.Status) (bool, error) { return st.Cluster.Leader == "n2", nil }, nil)
		if err != nil {
			t.Errorf("wait: %v", err)
		}
		seen <- st
	}()
	<-waiting
	r.backend.Change(func(st *api.Status) { st.Cluster.Leader = "n1" })
	<-waiting
	r.backend.Change(func(st *api.Status) { st.Cluster.Leader = "n2" })
	if st := <-seen; st.Cluster.Leader != "n2" || st.Version != 3 {
		t.Errorf("got %+v", st)
	}
}

func TestLongPollOfAnotherRunAnswersAtOnce(t *testing.T) {
	r := start(t, server.Access{})
	r.backend.OnWait = func(uint64) { t.Error("it waited for a version of another run") }
	st, err := r.client.Next(t.Context(), &api.Status{Version: 1, Instance: "an older run"}, api.MaxWait)
	if err != nil || st.Instance != "test" {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	r := start(t, server.Access{})
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("time is up")
	r.backend.OnWait = func(uint64) { cancel(late) }
	st, err := r.client.WaitFor(ctx, func(*api.Status) (bool, error) { return false, nil }, nil)
	if !errors.Is(err, late) || st.Cluster.Name != "c1" {
		t.Errorf("%+v, %v: want the last status and the cause", st.Cluster, err)
	}
}

func TestWaitForOutlivesARestartOfTheDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c := client.New(socket)
	defer c.Close()
	b := servertest.New(api.Status{Cluster: api.Cluster{Name: "late"}})
	s, err := server.New(server.Config{Backend: b, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	defer func() { s.Close(); <-done }()
	started := false
	st, err := c.WaitFor(t.Context(), func(*api.Status) (bool, error) { return true, nil }, func(e error) {
		var u *client.UnreachableError
		if !errors.As(e, &u) || !u.NeverSent() {
			t.Errorf("retry after %v", e)
		}
		if started {
			return
		}
		started = true
		l, err := server.ListenLocal(socket, server.Access{})
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.ServeLocal(l) }()
	})
	if err != nil || st.Cluster.Name != "late" {
		t.Errorf("%+v, %v", st.Cluster, err)
	}
}

func TestUnreachableDaemonIsNamed(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	_, err := client.New(socket).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "is clstrmgrd running") {
		t.Errorf("got %v", err)
	}
}

func TestSocketOfADeadDaemonIsReplacedAndOfALivingOneNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := server.ListenLocal(path, server.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	if _, err := server.ListenLocal(path, server.Access{}); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a living daemon's socket: %v", err)
	}
	_ = l.Close() // leaves the file, as a killed daemon does
	l2, err := server.ListenLocal(path, server.Access{EveryoneViews: true})
	if err != nil {
		t.Fatalf("a dead daemon's socket: %v", err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o666 {
		t.Errorf("mode %v", fi.Mode())
	}
	_ = l2.Close()
	_ = os.Remove(path)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.ListenLocal(path, server.Access{}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a plain file: %v", err)
	}
}
