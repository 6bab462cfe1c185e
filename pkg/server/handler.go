package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A route is one path: who may, how much may be sent, and what is done. The table below is the whole surface.
type route struct {
	pattern string
	role    api.Role
	maxBody int64
	write   bool // attempted calls are audited
	serve   func(*call) (any, error)
}

// A call is one request on its way through the server.
type call struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	who  api.Caller
	note string // what is asked, for the audit line
}

func (s *Server) routes() []route {
	return []route{
		{"GET " + api.PathStatus, api.RoleView, 0, false, (*call).status},
		{"GET " + api.PathEvents, api.RoleView, 0, false, (*call).events},
		{"GET " + api.PathExplain, api.RoleView, 0, false, (*call).explain},
		{"GET " + api.PathOpenAPI, api.RoleView, 0, false, (*call).openAPI},
		{"GET " + api.PathHealth, api.RoleView, 0, false, (*call).health},
		{"GET " + api.PathState, api.RoleAdmin, 0, false, (*call).state},
		{"GET " + api.PathDefinition, api.RoleView, 0, false, (*call).definition},
		{"POST " + api.PathDiff, api.RoleView, api.MaxDefinition, false, (*call).diff},
		{"POST " + api.PathCheck, api.RoleView, api.MaxDefinition, false, (*call).check},
		{"GET " + api.PathAudit, api.RoleOperate, 0, false, (*call).auditRecords},
		{"GET " + api.PathSnapshots, api.RoleView, 0, false, (*call).snapshots},
		{"POST " + api.PathSnapshots, api.RoleAdmin, api.MaxDefinition, true, (*call).addSnapshot},
		{"DELETE " + api.PathSnapshots, api.RoleAdmin, 0, true, (*call).deleteSnapshot},
		{"POST " + api.PathVerify, api.RoleOperate, api.MaxDefinition, true, (*call).verify},
		{"PUT " + api.PathDefinition, api.RoleAdmin, api.MaxDefinition, true, (*call).setDefinition},
		{"POST " + api.PathSync, api.RoleAdmin, api.MaxBody, true, (*call).sync},
		{"POST " + api.PathUndo, api.RoleAdmin, api.MaxBody, true, (*call).undo},
		{"POST " + api.PathRequests, api.RoleOperate, api.MaxBody, true, (*call).request},
		{"POST " + api.PathCluster, api.RoleAdmin, api.MaxDefinition, true, (*call).createCluster},
		{"DELETE " + api.PathCluster, api.RoleAdmin, 0, true, (*call).leave},
		{"POST " + api.PathTokens, api.RoleAdmin, api.MaxBody, true, (*call).newToken},
		{"POST " + api.PathRecover, api.RoleAdmin, api.MaxBody, true, (*call).recover},
		{"POST " + api.PathJoin, api.RoleAdmin, api.MaxBody, true, (*call).join},
		{"GET " + api.PathLocks, api.RoleView, 0, false, (*call).locks},
		{"POST " + api.PathLockOpen, api.RoleOperate, api.MaxBody, false, (*call).lockOpen},
		{"POST " + api.PathLockKeep, api.RoleOperate, api.MaxBody, false, (*call).lockKeep},
		{"POST " + api.PathLockTake, api.RoleOperate, api.MaxBody, false, (*call).lockTake},
		{"POST " + api.PathLockGive, api.RoleOperate, api.MaxBody, false, (*call).lockGive},
		{"POST " + api.PathLockClose, api.RoleOperate, api.MaxBody, false, (*call).lockClose},
		{"POST " + api.PathRemote, api.RoleView, api.MaxBody, true, (*call).beginRemote},
		{"GET " + api.PathRemote, api.RoleView, 0, false, (*call).remote},
		{"POST " + api.PathAdmit, api.RoleNone, api.MaxBody, true, (*call).admit},
	}
}

func (s *Server) handler(caller func(*http.Request) (api.Caller, error)) http.Handler {
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.run(rt, caller, w, r) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, api.Errorf(api.CodeNotFound, "this daemon has no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

// run is the way of every call: who asks, may he, what did he get, and the audit line.
func (s *Server) run(rt route, caller func(*http.Request) (api.Caller, error), w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r}
	began := time.Now()
	answer, err := c.guarded(rt, caller)
	if rt.write {
		s.record(rt, c, answer, err, time.Since(began))
	}
	// Fails only for a writer that is no connection.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
	if err != nil {
		s.fail(w, err)
		return
	}
	if _, ok := answer.(answered); ok {
		return
	}
	s.answer(w, http.StatusOK, answer)
}

// encoded is an answer that is JSON already, with its line's end: it is neither read nor copied again.
type encoded []byte

// answered is the answer of a call that has written its own.
type answered struct{}

func (c *call) guarded(rt route, caller func(*http.Request) (api.Caller, error)) (answer any, err error) {
	// A panic of one call must not take the daemon's door away; it is logged with its place, and the caller is told.
	defer func() {
		if p := recover(); p != nil {
			c.s.cfg.Log.Error("call failed by a panic", "path", rt.pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = nil, api.Errorf(api.CodeInternal, "the daemon failed in %s; its log has the details", rt.pattern)
		}
	}()
	if c.who, err = caller(c.r); err != nil {
		return nil, api.Errorf(api.CodeForbidden, "the caller is not known: %v", err)
	}
	if rt.role != api.RoleNone && !c.who.Role.Allows(rt.role) {
		return nil, forbidden(c.who, rt.role)
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, rt.maxBody)
	return rt.serve(c)
}

func forbidden(who api.Caller, need api.Role) error {
	has := "has no role here"
	if who.Role != api.RoleNone {
		has = fmt.Sprintf("may only %s", who.Role)
	}
	return api.Errorf(api.CodeForbidden, "%s %s; this needs the role %q (root is %q)", who, has, need, api.RoleAdmin)
}

// record writes the audit line of a write.
func (s *Server) record(rt route, c *call, answer any, err error, took time.Duration) {
	result, detail, index := "done", "", uint64(0)
	if r, ok := answer.(api.Reply); ok {
		if index = r.Index; r.Refused != "" {
			result, detail = "refused", r.Refused
		}
	}
	if op, ok := answer.(api.RemoteOperation); ok && !op.Done {
		result = "begun" // each node has its own record of the end
	}
	if err != nil {
		result, detail = string(api.CodeOf(err)), err.Error()
	}
	s.audit.LogAttrs(context.Background(), slog.LevelInfo, "audit",
		slog.String("user", c.who.String()), slog.Int("uid", c.who.UID), slog.String("role", string(c.who.Role)),
		slog.String("call", rt.pattern), slog.String("what", c.note),
		slog.String("result", result), slog.String("detail", bounded(detail, 500)), slog.Uint64("index", index),
		slog.Duration("took", took))
}

func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	b, ok := v.(encoded)
	var err error
	if !ok {
		b, err = json.Marshal(v)
		b = append(b, '\n')
	}
	if err != nil {
		s.cfg.Log.Error("encode the answer", "type", fmt.Sprintf("%T", v), "err", err)
		http.Error(w, `{"code":"internal","message":"the daemon could not encode its answer"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the caller has gone: nobody to tell
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: api.CodeInternal, Message: err.Error()}
	}
	s.answer(w, e.Code.HTTPStatus(), e)
}

// body reads one JSON value, strictly: what is not understood is an error, because it would be ignored otherwise.
func (c *call) body(v any) error {
	d := json.NewDecoder(c.r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the value")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return api.Errorf(api.CodeTooLarge, "the request is longer than %d bytes", tooLarge.Limit)
	}
	return api.Errorf(api.CodeInvalid, "the request cannot be read: %v", err)
}

// bounds gives a write its time.
func (c *call) bounds() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.r.Context(), c.s.cfg.WriteTimeout)
}

// status answers at once, or, with wait and since, when something has changed.
func (c *call) status() (any, error) {
	q := c.r.URL.Query()
	wait, err := seconds(q.Get("wait"))
	if err != nil {
		return nil, err
	}
	if wait <= 0 {
		return c.s.cfg.Backend.Status(), nil
	}
	since, err := number(q.Get("since"), "since")
	if err != nil {
		return nil, err
	}
	if instance, version := c.s.cfg.Backend.Version(); q.Get("instance") == instance && since == version {
		ctx, cancel := context.WithTimeout(c.r.Context(), min(wait, api.MaxWait))
		defer cancel()
		c.s.cfg.Backend.Wait(ctx, since)
	}
	return c.s.watched.status(c.s.cfg.Backend)
}

func (c *call) events() (any, error) {
	q := c.r.URL.Query()
	since, err := number(q.Get("since"), "since")
	if err != nil {
		return nil, err
	}
	limit, err := number(q.Get("limit"), "limit")
	if err != nil {
		return nil, err
	}
	if q.Has("follow") {
		return c.follow(since, int(min(limit, api.MaxEvents)))
	}
	if limit == 0 || limit > api.MaxEvents {
		limit = api.MaxEvents
	}
	return c.s.cfg.Backend.Events(since, int(limit))
}

func (c *call) explain() (any, error) {
	q := c.r.URL.Query()
	if q.Get("group") == "" {
		return nil, api.Errorf(api.CodeMissing, "explain needs a group")
	}
	return c.s.cfg.Backend.Explain(q.Get("group"), q.Get("node"))
}

func (c *call) health() (any, error) { return c.s.cfg.Backend.Health(), nil }

func (c *call) state() (any, error) { return c.s.cfg.Backend.State() }

func (c *call) definition() (any, error) {
	d, err := c.s.cfg.Backend.Definition(c.r.URL.Query().Get("staged") == "yes")
	if err != nil || c.who.Role.Allows(api.RoleAdmin) {
		return d, err
	}
	return masked(d)
}

func (c *call) diff() (any, error) {
	var t api.DefinitionText
	if err := c.body(&t); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Diff(ctx, t)
}

func (c *call) check() (any, error) {
	var t api.DefinitionText
	if err := c.body(&t); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Check(ctx, t)
}

func (c *call) auditRecords() (any, error) {
	limit, err := number(c.r.URL.Query().Get("limit"), "limit")
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > api.MaxAudit {
		limit = api.MaxAudit
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Audit(ctx, int(limit))
}

func (c *call) snapshots() (any, error) {
	ctx, cancel := c.bounds()
	defer cancel()
	name := c.r.URL.Query().Get("name")
	if name == "" {
		return c.s.cfg.Backend.ListSnapshots(ctx)
	}
	t, err := c.s.cfg.Backend.ReadSnapshot(ctx, name)
	if err != nil || c.who.Role.Allows(api.RoleAdmin) {
		return t, err
	}
	d, err := masked(api.Definition{YAML: t.YAML})
	t.YAML = d.YAML
	return t, err
}

func (c *call) addSnapshot() (any, error) {
	var s api.NewSnapshot
	if err := c.body(&s); err != nil {
		return nil, err
	}
	c.note = "add snapshot " + bounded(s.Name, 64)
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.AddSnapshot(ctx, c.who, s)
}

func (c *call) deleteSnapshot() (any, error) {
	name := c.r.URL.Query().Get("name")
	c.note = "delete snapshot " + bounded(name, 64)
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.DeleteSnapshot(ctx, c.who, name)
}

// verifyLimit is how long a verification may take: methods and fence devices have timeouts of their own, and this above them.
const verifyLimit = 10 * time.Minute

func (c *call) verify() (any, error) {
	var r api.VerifyRequest
	if err := c.body(&r); err != nil {
		return nil, err
	}
	c.note = "verify"
	if r.Fix {
		c.note += " and repair"
	}
	if r.YAML != "" {
		c.note += " a text"
	}
	if (r.Fix || r.YAML != "") && !c.who.Role.Allows(api.RoleAdmin) {
		return nil, forbidden(c.who, api.RoleAdmin)
	}
	if r.Fix && r.YAML != "" {
		return nil, api.Errorf(api.CodeInvalid, "what a file says cannot be repaired: only the cluster's own definition")
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), verifyLimit)
	defer cancel()
	return c.s.cfg.Backend.Verify(ctx, c.who, r)
}

func (c *call) setDefinition() (any, error) {
	var d api.DefinitionChange
	if err := c.body(&d); err != nil {
		return nil, err
	}
	c.note = fmt.Sprintf("definition on base %d: %s", d.BaseVersion, bounded(d.Comment, 200))
	if d.Stage {
		c.note = "staged " + c.note
	}
	if err := checkID(d.ID); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.SetDefinition(ctx, c.who, d)
}

func (c *call) sync() (any, error) {
	return c.staged("activate", c.s.cfg.Backend.Sync)
}

func (c *call) undo() (any, error) {
	return c.staged("drop", c.s.cfg.Backend.Undo)
}

func (c *call) staged(what string, do func(context.Context, api.Caller, api.StagedRequest) (api.Reply, error)) (any, error) {
	var r api.StagedRequest
	if err := c.body(&r); err != nil {
		return nil, err
	}
	c.note = fmt.Sprintf("%s version %d of the staged definition", what, r.Version)
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return do(ctx, c.who, r)
}

func (c *call) request() (any, error) {
	var r api.Request
	if err := c.body(&r); err != nil {
		return nil, err
	}
	c.note = describe(r)
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	if need := r.Op.Role(); !c.who.Role.Allows(need) {
		return nil, forbidden(c.who, need)
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Do(ctx, c.who, r)
}

func (c *call) createCluster() (any, error) {
	var cc api.CreateCluster
	if err := c.body(&cc); err != nil {
		return nil, err
	}
	c.note = "create cluster " + bounded(cc.Name, 64)
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.CreateCluster(ctx, c.who, cc)
}

func (c *call) recover() (any, error) {
	var r api.Recover
	if err := c.body(&r); err != nil {
		return nil, err
	}
	c.note = bounded(fmt.Sprintf("confirm quorum_lost: dead %s; lost %s; confirmed %s", strings.Join(r.Dead, ","), strings.Join(r.Lost, ","),
		strings.Join(r.Confirm, ",")), 500)
	if r.SkipFence {
		c.note += "; without the fence devices"
	}
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	named, typed := slices.Sorted(slices.Values(slices.Concat(r.Dead, r.Lost))), slices.Sorted(slices.Values(r.Confirm))
	switch {
	case c.who.Node != "":
		return nil, api.Errorf(api.CodeRefused, "a configuration is forced on the node that goes on, by its own administrator")
	case len(named) == 0:
		return nil, api.Errorf(api.CodeMissing, "the names of what is declared dead or lost are needed")
	case len(slices.Compact(slices.Clone(named))) != len(named):
		return nil, api.Errorf(api.CodeInvalid, "a name stands twice")
	case !slices.Equal(named, typed):
		return nil, api.Errorf(api.CodeRefused, "what was typed (%s) is not what is declared dead or lost (%s): nothing was done",
			bounded(strings.Join(typed, ","), 200), bounded(strings.Join(named, ","), 200))
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Recover(ctx, c.who, r)
}

func (c *call) leave() (any, error) {
	c.note = "leave the cluster"
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Leave(ctx, c.who)
}

func (c *call) newToken() (any, error) {
	var t api.NewToken
	if err := c.body(&t); err != nil {
		return nil, err
	}
	c.note = "token for node " + bounded(t.Node, 64)
	if t.Node == "" {
		return nil, api.Errorf(api.CodeMissing, "a token is for one node: its name is missing")
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.NewToken(ctx, c.who, t)
}

func (c *call) join() (any, error) {
	var j api.Join
	if err := c.body(&j); err != nil {
		return nil, err
	}
	c.note = "join a cluster" // the token is a secret
	if j.Token == "" {
		return nil, api.Errorf(api.CodeMissing, "joining needs a token")
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Join(ctx, c.who, j)
}

func (c *call) admit() (any, error) {
	var a api.Admit
	if err := c.body(&a); err != nil {
		return nil, err
	}
	c.note = fmt.Sprintf("admit node %q from %s", bounded(a.Node, 64), c.r.RemoteAddr)
	if a.Token == "" || a.Node == "" || len(a.CSR) == 0 {
		return nil, api.Errorf(api.CodeMissing, "admission needs a token, a name and a certificate request")
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.Admit(ctx, c.r.RemoteAddr, a)
}

// checkRequest refuses what no cluster could do, before it costs a log entry.
func checkRequest(r api.Request) error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	need := func(ok bool, what string) error {
		if ok {
			return nil
		}
		return api.Errorf(api.CodeMissing, "%s needs %s", r.Op, what)
	}
	switch r.Op {
	case api.OpStart:
		return oneOf("manage", r.Manage, "", api.ManageAuto, api.ManageManual)
	case api.OpStop:
		return oneOf("manage", r.Manage, "", api.ManageOffline, api.ManageMove, api.ManageUnmanage)
	case api.OpOnline, api.OpOffline, api.OpUnsetPriority, api.OpSuspend, api.OpResume,
		api.OpUnmanage, api.OpManage:
		return need(len(r.Groups) > 0, "a group")
	case api.OpMove:
		return need(len(r.Groups) > 0 && r.Node != "", "a group and a node")
	case api.OpClear:
		return need(len(r.Groups) > 0 || r.Node != "", "a group or a node")
	case api.OpConfirmDown:
		return need(r.Node != "", "a node")
	case api.OpReplace, api.OpRotateCerts, api.OpRotateGossip: // without a name: the next one, or all
		return nil
	case api.OpReleaseLock:
		if r.Session != "" && !api.GoodSession(r.Session) {
			return api.Errorf(api.CodeInvalid, "%q cannot be a session: 32 hexadecimal digits", bounded(r.Session, 64))
		}
		return need(r.Lock != "" && r.Session != "", "a lock and a session")
	case api.OpFormat:
		return need(r.Repository != "", "a repository")
	}
	return api.Errorf(api.CodeInvalid, "there is no operation %q", bounded(string(r.Op), 40))
}

func oneOf(what, got string, allowed ...string) error {
	if slices.Contains(allowed, got) {
		return nil
	}
	return api.Errorf(api.CodeInvalid, "%s cannot be %q", what, bounded(got, 40))
}

func checkID(id string) error {
	ok := len(id) >= 16 && len(id) <= 64
	for _, r := range id {
		ok = ok && (r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !ok {
		return api.Errorf(api.CodeInvalid, "the id of a write has 16 to 64 letters, digits or '-'")
	}
	return nil
}

func describe(r api.Request) string {
	s := string(r.Op)
	for _, g := range r.Groups {
		s += " " + bounded(g, 64)
	}
	if r.Node != "" {
		s += " on " + bounded(r.Node, 64)
	}
	for _, n := range r.Nodes {
		s += " " + bounded(n, 64)
	}
	if r.Lock != "" {
		s += " " + bounded(r.Lock, 64) + " of session " + bounded(r.Session, 64)
	}
	if r.Manage != "" {
		s += " manage=" + bounded(r.Manage, 20)
	}
	if r.Force {
		s += " force"
	}
	return bounded(s, 500)
}

func seconds(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1e6 {
		return 0, api.Errorf(api.CodeInvalid, "wait is %q, which is no number of seconds", bounded(s, 40))
	}
	return time.Duration(f * float64(time.Second)), nil
}

func number(s, what string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.CodeInvalid, "%s is %q, which is no number", what, bounded(s, 40))
	}
	return n, nil
}
