package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// The description of the API is made from the table of routes, the table here, and the types and comments of package api.

// An op is what the table of routes does not say of a route.
type op struct {
	summary string
	notes   string
	params  []param
	request any // nil: no body
	answer  any
	stream  string // what is answered where a parameter asks for a stream
}

type param struct {
	name, kind, doc string
	required        bool
}

var ops = map[string]op{
	"GET " + api.PathStatus: {summary: "What this node knows of the whole cluster",
		notes: "With wait the answer comes when the status differs from the one seen before, which since and instance name, or when the wait is over. " +
			"Watchers ask again with the version and instance of each answer.",
		params: []param{
			{"wait", "seconds", fmt.Sprintf("how long to wait for a change; at most %v", api.MaxWait), false},
			{"since", "integer", "the version of the status seen before", false},
			{"instance", "string", "the instance in it", false},
		}, answer: api.Status{}},
	"GET " + api.PathOpenAPI: {summary: "This description", answer: map[string]any{}},
	"GET " + api.PathEvents: {summary: "The cluster's history, or a stream of what comes",
		notes: "Ids are the same on every node: a stream that breaks is taken up at any of them, with the header Last-Event-ID.",
		params: []param{
			{"since", "integer", "only events with an id above this; 0: the newest ones", false},
			{"limit", "integer", fmt.Sprintf("how many; 0: %d. In a stream how many of the newest it begins with, 0: none", api.MaxEvents), false},
			{"follow", "string", "any value: a stream that goes on with what comes", false},
		}, answer: api.EventList{},
		stream: "With follow. Each message without a name has the event's id as its id and an Event as its data. Messages named \"" + api.StreamLost +
			"\" (events are no longer kept) and \"" + api.StreamEnd + "\" (the daemon ends the stream) have a StreamNote. Comments are signs of life."},
	"GET " + api.PathExplain: {summary: "Why a group is where it is; with a node, why it is not there",
		params: []param{{"group", "string", "the resource group", true}, {"node", "string", "one node of its list", false}}, answer: api.Explanation{}},
	"GET " + api.PathHealth: {summary: "The daemon's own health", answer: api.Health{}},
	"GET " + api.PathState:  {summary: "The replicated state as a whole, in the encoding of its snapshots: for simulation", answer: api.State{}},
	"GET " + api.PathDefinition: {summary: "The definition", notes: "Secrets of fence devices are shown as *** to all but administrators.",
		params: []param{{"staged", "string", "yes: what is staged, if anything is", false}}, answer: api.Definition{}},
	"POST " + api.PathDiff:  {summary: "What a text would change; changes nothing", request: api.DefinitionText{}, answer: api.Diff{}},
	"POST " + api.PathCheck: {summary: "Whether a text can be used; changes nothing", request: api.DefinitionText{}, answer: api.CheckReport{}},
	"GET " + api.PathAudit: {summary: "The newest records of attempted writes, of all nodes",
		params: []param{{"limit", "integer", fmt.Sprintf("how many; 0: %d", api.MaxAudit), false}}, answer: api.AuditList{}},
	"GET " + api.PathSnapshots: {summary: "The kept definitions; with a name one of them with its text",
		params: []param{{"name", "string", "the snapshot", false}}, answer: oneOfTwo{api.SnapshotList{}, api.SnapshotText{}}},
	"POST " + api.PathSnapshots: {summary: "Keep the active definition, or a text, on all nodes", request: api.NewSnapshot{}, answer: api.SnapshotReply{}},
	"DELETE " + api.PathSnapshots: {summary: "Remove a snapshot from all nodes that answer",
		params: []param{{"name", "string", "the snapshot", true}}, answer: api.SnapshotReply{}},
	"POST " + api.PathVerify: {summary: "Verify the cluster on all nodes", notes: "fix and a text of the caller's own need the role admin.",
		request: api.VerifyRequest{}, answer: api.VerifyReport{}},
	"PUT " + api.PathDefinition: {summary: "Replace the definition, or what is staged", request: api.DefinitionChange{}, answer: api.Reply{}},
	"POST " + api.PathSync:      {summary: "What is staged becomes active", request: api.StagedRequest{}, answer: api.Reply{}},
	"POST " + api.PathUndo:      {summary: "What is staged is dropped", request: api.StagedRequest{}, answer: api.Reply{}},
	"POST " + api.PathRequests: {summary: "An operator's command",
		notes:   "The answer comes when the command is committed and applied at the asked node, not when its effect is seen: watch the status for that.",
		request: api.Request{}, answer: api.Reply{}},
	"POST " + api.PathRecover: {summary: "Force the configuration: the majority is lost for good, by the operator's word",
		notes: "On the node that goes on, by its own administrator. What is declared dead or lost is named twice.", request: api.Recover{}, answer: api.Reply{}},
	"POST " + api.PathRemote: {summary: "Begin an operation on several nodes",
		notes:   "A free command needs a right of its own (access.command in node.yaml), which no role includes; a file collection the role admin, its comparison operate.",
		request: api.RemoteRequest{}, answer: api.RemoteOperation{}},
	"GET " + api.PathRemote: {summary: "How an operation on several nodes stands",
		params: []param{{"id", "string", "of the request that began it", true}, {"since", "integer", "with wait: the version seen before", false},
			{"wait", "seconds", fmt.Sprintf("how long to wait for a change; at most %v", api.MaxWait), false}}, answer: api.RemoteOperation{}},
	"POST " + api.PathCluster:   {summary: "Found a cluster with this node as its first member", request: api.CreateCluster{}, answer: api.CreateClusterReply{}},
	"DELETE " + api.PathCluster: {summary: "Take this node out of its cluster", answer: api.Reply{}},
	"POST " + api.PathTokens:    {summary: "A one-time token with which a node joins", request: api.NewToken{}, answer: api.JoinToken{}},
	"POST " + api.PathJoin:      {summary: "This daemon joins the cluster that issued the token", request: api.Join{}, answer: api.Reply{}},
	"POST " + api.PathAdmit: {summary: "Between daemons: a newcomer with a token becomes a member",
		notes: "Served between members; the token in it is all the right it needs.", request: api.Admit{}, answer: api.AdmitReply{}},
	"GET " + api.PathLocks: {summary: "The cluster's locks",
		params: []param{{"name", "string", "only this lock", false}, {"since", "integer", "with wait: the version of the list seen before", false},
			{"wait", "seconds", fmt.Sprintf("how long to wait for a change; at most %v", api.MaxWait), false}}, answer: api.LockList{}},
	"POST " + api.PathLockOpen:  {summary: "Open a session for locks on this node", request: api.LockOpen{}, answer: api.LockSession{}},
	"POST " + api.PathLockKeep:  {summary: "Keep a session; hangs, and tells of its loss", request: api.LockKeep{}, answer: api.LockKept{}},
	"POST " + api.PathLockTake:  {summary: "Take a lock, or wait for it", request: api.LockTake{}, answer: api.LockTaken{}},
	"POST " + api.PathLockGive:  {summary: "Release a lock", request: api.LockGive{}, answer: api.Reply{}},
	"POST " + api.PathLockClose: {summary: "End a session and release all that it holds", request: api.LockClose{}, answer: api.Reply{}},
}

// oneOfTwo is an answer of one of two types.
type oneOfTwo [2]any

type object = map[string]any

// words are the comments of package api: of its types, fields and constants.
type words struct {
	types  map[string]string
	fields map[string]string                  // Type.Field
	enums  map[string][]struct{ v, d string } // by the type's name, in their order
}

func readWords(t *testing.T) words {
	t.Helper()
	w := words{map[string]string{}, map[string]string{}, map[string][]struct{ v, d string }{}}
	files, err := os.ReadDir("../api")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), "../api/"+file.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					w.types[s.Name.Name] = plain(g.Doc, s.Doc)
					if st, ok := s.Type.(*ast.StructType); ok {
						for _, field := range st.Fields.List {
							for _, n := range field.Names {
								w.fields[s.Name.Name+"."+n.Name] = plain(field.Doc, field.Comment)
							}
						}
					}
				case *ast.ValueSpec:
					if kind, ok := s.Type.(*ast.Ident); ok && g.Tok == token.CONST {
						if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
							v, _ := strconv.Unquote(lit.Value)
							w.enums[kind.Name] = append(w.enums[kind.Name], struct{ v, d string }{v, plain(s.Doc, s.Comment)})
						}
					}
				}
			}
		}
	}
	return w
}

func plain(groups ...*ast.CommentGroup) string {
	var out []string
	for _, g := range groups {
		if g != nil {
			out = append(out, strings.Fields(g.Text())...)
		}
	}
	return strings.Join(out, " ")
}

// A describer makes schemas of Go types, as encoding/json writes them.
type describer struct {
	words   words
	schemas object
	// asked are the types of requests: the server refuses what it does not know in them. Answers may grow.
	asked map[string]bool
}

func (d *describer) ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

func (d *describer) schema(t reflect.Type, asked bool) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[[]byte]():
		return object{"type": []string{"string", "null"}, "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.named(t, asked)
	case reflect.Pointer:
		inner := d.schema(t.Elem(), asked)
		if kind, ok := inner["type"].(string); ok {
			inner["type"] = []string{kind, "null"}
			return inner
		}
		return object{"anyOf": []any{inner, object{"type": "null"}}}
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": d.schema(t.Elem(), asked)}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": []string{"object", "null"}, "additionalProperties": d.schema(t.Elem(), asked)}
	case reflect.String:
		values := d.words.enums[t.Name()]
		if t.PkgPath() == "" || len(values) == 0 {
			return object{"type": "string"}
		}
		if _, ok := d.schemas[t.Name()]; !ok {
			list, text := []string{}, d.words.types[t.Name()]
			for _, v := range values {
				list = append(list, v.v)
				if v.d != "" {
					text += fmt.Sprintf("\n- %q: %s", v.v, v.d)
				}
			}
			d.schemas[t.Name()] = object{"type": "string", "enum": list, "description": text}
		}
		return d.ref(t.Name())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	}
	panic(fmt.Sprintf("no schema for %v", t))
}

func (d *describer) named(t reflect.Type, asked bool) object {
	if known, ok := d.schemas[t.Name()]; ok {
		if d.asked[t.Name()] != asked && known != nil {
			panic(t.Name() + " is both asked with and answered: an answer may grow, a request may not")
		}
		return d.ref(t.Name())
	}
	d.asked[t.Name()] = asked
	d.schemas[t.Name()] = nil // being made: types may hold themselves
	s := object{"type": "object", "description": d.words.types[t.Name()]}
	props, required := object{}, []string{}
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for f := range t.Fields() {
			tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && tag == "" {
				add(f.Type)
				continue
			}
			p := d.schema(f.Type, asked)
			if text := d.words.fields[t.Name()+"."+f.Name]; text != "" {
				p["description"] = text
			}
			props[tag] = p
			if !strings.Contains(opts, "omit") {
				required = append(required, tag)
			}
		}
	}
	add(t)
	s["properties"], s["required"] = props, required
	if asked {
		s["additionalProperties"] = false
	}
	d.schemas[t.Name()] = s
	return d.ref(t.Name())
}

// describe makes the document.
func describe31(t *testing.T) object {
	t.Helper()
	d := &describer{words: readWords(t), schemas: object{}, asked: map[string]bool{}}
	failed := object{"description": "The error, with a sentence for the operator. Its code decides the status; see the page api.md.",
		"content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[api.Error](), false)}}}
	d.schema(reflect.TypeFor[api.Event](), false)
	d.schema(reflect.TypeFor[api.StreamNote](), false)
	paths := object{}
	for _, rt := range new(Server).routes() {
		o, ok := ops[rt.pattern]
		if !ok {
			t.Fatalf("%s is in no table: describe it", rt.pattern)
		}
		method, path, _ := strings.Cut(rt.pattern, " ")
		text := o.notes
		if rt.role != api.RoleNone {
			text = strings.TrimSpace(text + " Needs the role " + string(rt.role) + ".")
		}
		content := object{"application/json": object{"schema": d.answer(o.answer)}}
		if o.stream != "" {
			content["text/event-stream"] = object{"schema": object{"type": "string", "description": o.stream}}
		}
		out := object{"summary": o.summary, "description": text, "operationId": operationID(method, path), "x-holdfast-role": string(rt.role),
			"responses": object{"200": object{"description": "Done, or the answer.", "content": content}, "default": failed}}
		if o.request != nil {
			out["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(o.request), true)}}}
		}
		var params []any
		for _, p := range o.params {
			params = append(params, object{"name": p.name, "in": "query", "required": p.required, "description": p.doc, "schema": p.schema()})
		}
		if o.stream != "" {
			params = append(params, object{"name": "Last-Event-ID", "in": "header", "required": false, "schema": object{"type": "string"},
				"description": "with follow: the id of the last event seen"})
		}
		if params != nil {
			out["parameters"] = params
		}
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(method)] = out
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "Holdfast", "version": "1", "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "The daemon of one node. Every node answers reads from what it knows, and says how old that is; writes are passed on to the leader. " +
				"Within version 1 answers may get new fields, and readers leave out what they do not know; the server refuses unknown fields in requests. " +
				"Callers are known by the unix socket's credentials, or between members by their certificates: there is nothing to send for it."},
		"servers":    []any{object{"url": "http://localhost", "description": "over the unix socket " + api.DefaultSocket}},
		"paths":      paths,
		"components": object{"schemas": d.schemas},
	}
}

func (d *describer) answer(v any) object {
	if two, ok := v.(oneOfTwo); ok {
		return object{"anyOf": []any{d.schema(reflect.TypeOf(two[0]), false), d.schema(reflect.TypeOf(two[1]), false)}}
	}
	return d.schema(reflect.TypeOf(v), false)
}

func (p param) schema() object {
	switch p.kind {
	case "seconds":
		return object{"type": "number", "minimum": 0}
	case "integer":
		return object{"type": "integer", "minimum": 0}
	}
	return object{"type": "string"}
}

// operationID is a name for programs that make clients, as getEvents.
func operationID(method, path string) string {
	id := strings.ToLower(method)
	for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimSuffix(path, ".json"), "/v1/"), "/") {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// table is the part of docs/api.md that is made from the routes.
func table(doc object) string {
	var b strings.Builder
	b.WriteString("| call | role | what | body | answer |\n|---|---|---|---|---|\n")
	paths := doc["paths"].(object)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(object)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			pattern := strings.ToUpper(method) + " " + path
			o := ops[pattern]
			query := ""
			for _, p := range o.params {
				query += "&" + p.name
			}
			if query != "" {
				query = "?" + query[1:]
			}
			role := item[method].(object)["x-holdfast-role"].(string)
			if role == "" {
				role = "none"
			}
			fmt.Fprintf(&b, "| `%s%s` | %s | %s | %s | %s |\n", pattern, query, role, o.summary, typeName(o.request), typeName(o.answer))
		}
	}
	return b.String()
}

func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case oneOfTwo:
		return typeName(v[0]) + ", " + typeName(v[1])
	}
	if n := reflect.TypeOf(v).Name(); n != "" {
		return n
	}
	return "object"
}
