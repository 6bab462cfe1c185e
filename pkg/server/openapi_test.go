package server

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

var update = flag.Bool("update", false, "write the description of the API anew (make docs)")

const (
	tableBegin = "<!-- the calls: made by make docs -->\n"
	tableEnd   = "<!-- end of the calls -->\n"
)

func TestDescriptionIsUpToDate(t *testing.T) {
	doc := describe31(t)
	for pattern := range ops {
		if !slices.ContainsFunc(new(Server).routes(), func(r route) bool { return r.pattern == pattern }) {
			t.Errorf("%s is described and not served", pattern)
		}
	}
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), tableBegin)
	_, tail, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("docs/api.md has no place for the table of calls")
	}
	for path, want := range map[string][]byte{
		"openapi.json":      indented(t, doc),
		"../../docs/api.md": []byte(head + tableBegin + table(doc) + tableEnd + tail),
	} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the routes and types say (make docs writes it anew): %v", path, err)
		}
	}
}

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(description)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDescriptionIsSound(t *testing.T) {
	doc := load(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !doc.IsOpenAPI31OrLater() || doc.Paths.Len() < 20 || len(doc.Components.Schemas) < 40 {
		t.Errorf("version %s, %d paths, %d schemas", doc.OpenAPI, doc.Paths.Len(), len(doc.Components.Schemas))
	}
	for name, s := range doc.Components.Schemas {
		if s.Value.Description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}

// TestCallsAreAsDescribed sends every call, with everything set that can be, to a running server whose backend answers with
// everything set, and then with nothing set, and holds requests and answers to the description. The schemas of answers are closed for
// this: a field that is not described fails.
func TestCallsAreAsDescribed(t *testing.T) {
	doc := load(t)
	closeSchemas(doc)
	f := filler{words: readWords(t)}
	b := &fullBackend{fill: func(v any) { f.fill(reflect.ValueOf(v).Elem()) }}
	base := testServer(t, b)
	for _, rt := range new(Server).routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		if got := exchange(t, doc, base, f, method, path, true); got != nil {
			t.Errorf("%s: %v", rt.pattern, got)
		}
	}
	b.fill = func(any) {} // zero values: what is empty and what is null
	for _, rt := range new(Server).routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		if rt.pattern == "GET "+api.PathStatus || rt.role == api.RoleNone {
			continue
		}
		if got := exchange(t, doc, base, f, method, path, false); got != nil {
			t.Errorf("%s, nothing set: %v", rt.pattern, got)
		}
	}
	if err := exchange(t, doc, base, f, "GET", "/v1/definition?staged=no", true); err != nil {
		t.Error(err)
	}
	if answer := answerOf(t, base, "GET", api.PathExplain, nil); answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a call without what it needs: %d", answer.StatusCode)
	} else if err := hold(t, doc, answer, api.PathExplain); err != nil {
		t.Errorf("an error: %v", err)
	}
}

// TestDescriptionNoticesDifferences: without it the test above might pass whatever is served.
func TestDescriptionNoticesDifferences(t *testing.T) {
	f := filler{words: readWords(t)}
	base := testServer(t, &fullBackend{fill: func(v any) { f.fill(reflect.ValueOf(v).Elem()) }})
	for what, spoil := range map[string]func(*openapi3.T){
		"a field more in the answer": func(d *openapi3.T) { delete(d.Components.Schemas["Cluster"].Value.Properties, "leader") },
		"a field less in the answer": func(d *openapi3.T) {
			s := d.Components.Schemas["Cluster"].Value
			s.Required = append(s.Required, "nothing")
		},
		"another type": func(d *openapi3.T) {
			d.Components.Schemas["Node"].Value.Properties["name"].Value.Type = &openapi3.Types{"integer"}
		},
	} {
		doc := load(t)
		closeSchemas(doc)
		spoil(doc)
		if err := exchange(t, doc, base, f, "GET", api.PathStatus, true); err == nil {
			t.Errorf("%s is not noticed", what)
		}
	}
}

// TestDescribedParametersAreThoseThatAreRead reads the source of each call.
func TestDescribedParametersAreThoseThatAreRead(t *testing.T) {
	read := map[string][]string{}
	for _, file := range []string{"handler.go", "lock.go", "openapi.go", "remote.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 1 {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				lit, ok2 := call.Args[0].(*ast.BasicLit)
				if ok && ok2 && (sel.Sel.Name == "Get" || sel.Sel.Name == "Has") {
					read[fn.Name.Name] = append(read[fn.Name.Name], strings.Trim(lit.Value, `"`))
				}
				return true
			})
		}
	}
	for _, rt := range new(Server).routes() {
		name := runtime.FuncForPC(reflect.ValueOf(rt.serve).Pointer()).Name()
		name = name[strings.LastIndex(name, ".")+1:]
		var described []string
		for _, p := range ops[rt.pattern].params {
			described = append(described, p.name)
		}
		got := read[name]
		slices.Sort(got)
		slices.Sort(described)
		if got = slices.Compact(got); !slices.Equal(got, described) {
			t.Errorf("%s reads %v, described are %v", rt.pattern, got, described)
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	base := testServer(t, &fullBackend{fill: func(any) {}})
	answer := answerOf(t, base, "GET", api.PathOpenAPI, nil)
	var served, file any
	if err := json.Unmarshal(answer.body, &served); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(description, &file); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(served, file) {
		t.Error("another description is served")
	}
}

func testServer(t *testing.T, b Backend) string {
	t.Helper()
	s, err := New(Config{Backend: b, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.handler(func(*http.Request) (api.Caller, error) { return api.Caller{User: "root", Role: api.RoleAdmin}, nil }))
	t.Cleanup(func() { s.Close(); h.Close() })
	return h.URL
}

func closeSchemas(doc *openapi3.T) {
	no := false
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties = openapi3.BoolSchema{Has: &no}
		}
	}
}

type answer struct {
	*http.Response
	body, sent []byte
}

func answerOf(t *testing.T, base, method, path string, body []byte) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return answer{res, text, body}
}

// exchange makes one call and says what in it is not as described, or why it was refused.
func exchange(t *testing.T, doc *openapi3.T, base string, f filler, method, path string, full bool) error {
	t.Helper()
	plain, _, _ := strings.Cut(path, "?")
	o := ops[method+" "+plain]
	query := ""
	for _, p := range o.params {
		if p.name == "follow" || p.name == "name" && method == "GET" && !full {
			continue
		}
		v := map[string]string{"seconds": "0.01", "integer": "0", "string": "x"}[p.kind]
		if p.name == "id" {
			v = strings.Repeat("a", 16)
		}
		query += "&" + p.name + "=" + v
	}
	if query != "" && plain == path {
		path += "?" + query[1:]
	}
	var body []byte
	if o.request != nil {
		v := reflect.New(reflect.TypeOf(o.request))
		f.fill(v.Elem())
		askable(v.Interface())
		body, _ = json.Marshal(v.Interface())
	}
	got := answerOf(t, base, method, path, body)
	if got.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.body)
	}
	return hold(t, doc, got, plain)
}

// askable makes of a request with everything set one that is not refused.
func askable(v any) {
	switch r := v.(type) {
	case *api.Request:
		r.ID, r.Op, r.Manage = strings.Repeat("a", 16), api.OpStart, api.ManageAuto
	case *api.DefinitionChange:
		r.ID = strings.Repeat("a", 16)
	case *api.StagedRequest:
		r.ID = strings.Repeat("a", 16)
	case *api.VerifyRequest:
		r.YAML = ""
	case *api.Recover:
		r.ID, r.Lost = strings.Repeat("a", 16), []string{"y"}
		r.Confirm = slices.Concat(r.Dead, r.Lost)
	case *api.RemoteRequest:
		r.ID, r.Command = strings.Repeat("a", 16), nil
	}
}

// hold compares a call with its description.
func hold(t *testing.T, doc *openapi3.T, a answer, path string) error {
	t.Helper()
	item := doc.Paths.Value(path)
	if item == nil {
		t.Fatalf("%s is not described", path)
	}
	req := a.Request.Clone(context.Background())
	req.Body = io.NopCloser(bytes.NewReader(a.sent))
	in := &openapi3filter.RequestValidationInput{Request: req, QueryParams: req.URL.Query(),
		Route: &routers.Route{Spec: doc, Path: path, PathItem: item, Method: req.Method, Operation: item.GetOperation(req.Method)}}
	if a.StatusCode == http.StatusOK {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			return err
		}
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{RequestValidationInput: in,
		Status: a.StatusCode, Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.body))})
}

// A filler sets everything in a value, one of each.
type filler struct{ words words }

func (f filler) fill(v reflect.Value) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(1e9, 5e8).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		f.fill(e)
		v.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), e)
	case reflect.String:
		v.SetString("x")
		if values := f.words.enums[v.Type().Name()]; v.Type().PkgPath() != "" && len(values) > 0 {
			v.SetString(values[len(values)-1].v)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(1)
	}
}

// fullBackend answers every call with what fill makes of its zero value.
type fullBackend struct{ fill func(any) }

func made[T any](b *fullBackend) (T, error) {
	var v T
	b.fill(&v)
	return v, nil
}

func (b *fullBackend) Status() api.Status                        { v, _ := made[api.Status](b); return v }
func (b *fullBackend) Version() (string, uint64)                 { return "x", 7 }
func (b *fullBackend) Wait(context.Context, uint64) uint64       { return 8 }
func (b *fullBackend) Events(uint64, int) (api.EventList, error) { return made[api.EventList](b) }
func (b *fullBackend) Definition(bool) (api.Definition, error)   { return made[api.Definition](b) }
func (b *fullBackend) Explain(string, string) (api.Explanation, error) {
	return made[api.Explanation](b)
}
func (b *fullBackend) Health() api.Health        { v, _ := made[api.Health](b); return v }
func (b *fullBackend) State() (api.State, error) { return made[api.State](b) }
func (b *fullBackend) Audit(context.Context, int) (api.AuditList, error) {
	return made[api.AuditList](b)
}
func (b *fullBackend) Diff(context.Context, api.DefinitionText) (api.Diff, error) {
	return made[api.Diff](b)
}
func (b *fullBackend) Check(context.Context, api.DefinitionText) (api.CheckReport, error) {
	return made[api.CheckReport](b)
}
func (b *fullBackend) Locks(context.Context, string, uint64, time.Duration) (api.LockList, error) {
	return made[api.LockList](b)
}
func (b *fullBackend) OpenLocks(context.Context, api.Caller, api.LockOpen) (api.LockSession, error) {
	return made[api.LockSession](b)
}
func (b *fullBackend) KeepLocks(context.Context, api.Caller, api.LockKeep) (api.LockKept, error) {
	return made[api.LockKept](b)
}
func (b *fullBackend) TakeLock(context.Context, api.Caller, api.LockTake) (api.LockTaken, error) {
	return made[api.LockTaken](b)
}
func (b *fullBackend) GiveLock(context.Context, api.Caller, api.LockGive) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) CloseLocks(context.Context, api.Caller, api.LockClose) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) ListSnapshots(context.Context) (api.SnapshotList, error) {
	return made[api.SnapshotList](b)
}
func (b *fullBackend) ReadSnapshot(context.Context, string) (api.SnapshotText, error) {
	return made[api.SnapshotText](b)
}
func (b *fullBackend) AddSnapshot(context.Context, api.Caller, api.NewSnapshot) (api.SnapshotReply, error) {
	return made[api.SnapshotReply](b)
}
func (b *fullBackend) DeleteSnapshot(context.Context, api.Caller, string) (api.SnapshotReply, error) {
	return made[api.SnapshotReply](b)
}
func (b *fullBackend) Verify(context.Context, api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
	return made[api.VerifyReport](b)
}
func (b *fullBackend) Do(context.Context, api.Caller, api.Request) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) SetDefinition(context.Context, api.Caller, api.DefinitionChange) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) Sync(context.Context, api.Caller, api.StagedRequest) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) Undo(context.Context, api.Caller, api.StagedRequest) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) CreateCluster(context.Context, api.Caller, api.CreateCluster) (api.CreateClusterReply, error) {
	return made[api.CreateClusterReply](b)
}
func (b *fullBackend) NewToken(context.Context, api.Caller, api.NewToken) (api.JoinToken, error) {
	return made[api.JoinToken](b)
}
func (b *fullBackend) Join(context.Context, api.Caller, api.Join) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) Recover(context.Context, api.Caller, api.Recover) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) BeginRemote(context.Context, api.Caller, api.RemoteRequest) (api.RemoteOperation, error) {
	return made[api.RemoteOperation](b)
}
func (b *fullBackend) Remote(context.Context, api.Caller, string, uint64, time.Duration) (api.RemoteOperation, error) {
	return made[api.RemoteOperation](b)
}
func (b *fullBackend) Leave(context.Context, api.Caller) (api.Reply, error) {
	return made[api.Reply](b)
}
func (b *fullBackend) Admit(context.Context, string, api.Admit) (api.AdmitReply, error) {
	return made[api.AdmitReply](b)
}
