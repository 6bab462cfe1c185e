package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The agent is the server's backend.
var _ server.Backend = (*Agent)(nil)

type netConn = net.Conn

// openDoor opens the local socket, and the metrics' listener if one is configured.
func (a *Agent) openDoor() (*server.Server, error) {
	front, err := server.New(server.Config{Backend: a, Log: a.log, Access: a.access(), Audit: a.auditLog(), IsMember: a.isMember})
	if err != nil {
		return nil, err
	}
	local, err := a.opt.ListenLocal()
	if err != nil {
		return nil, err
	}
	go func() {
		if err := front.ServeLocal(local); err != nil {
			a.fail(err)
		}
	}()
	if a.opt.Node.Metrics != "" && a.opt.Metrics != nil {
		l, err := net.Listen("tcp", a.opt.Node.Metrics)
		if err != nil {
			front.Close()
			return nil, fmt.Errorf("listen for metrics on %s: %w: choose another address (metrics: in the node file), or free the port",
				a.opt.Node.Metrics, err)
		}
		go func() { _ = front.ServeMetrics(l, a.metricsHandler()) }()
	}
	return front, nil
}

func (a *Agent) metricsHandler() http.Handler { return a.opt.Metrics.Handler() }

// access resolves the names of the node file. A name that the system does not know gives nobody anything, and is said.
func (a *Agent) access() server.Access {
	acc := server.Access{}
	for _, r := range []struct {
		list          []string
		users, groups *[]int
	}{{a.opt.Node.Access.View, &acc.ViewUsers, &acc.ViewGroups}, {a.opt.Node.Access.Operate, &acc.OperateUsers, &acc.OperateGroups},
		{a.opt.Node.Access.Admin, &acc.AdminUsers, &acc.AdminGroups}, {a.opt.Node.Access.Command, &acc.CommandUsers, &acc.CommandGroups}} {
		for _, who := range r.list {
			if who == config.Everyone {
				acc.EveryoneViews = true
				continue
			}
			if err := resolveName(who, r.users, r.groups); err != nil {
				a.log.Info("a name of the access settings is not known here: it gives nobody a role", "name", who, "error", err)
			}
		}
	}
	return acc
}

func resolveName(who string, users, groups *[]int) error {
	if group, ok := strings.CutPrefix(who, "%"); ok {
		g, err := user.LookupGroup(group)
		if err != nil {
			return err
		}
		id, err := strconv.Atoi(g.Gid)
		*groups = append(*groups, id)
		return err
	}
	u, err := user.Lookup(who)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(u.Uid)
	*users = append(*users, id)
	return err
}

func (a *Agent) isMember(node string) bool {
	m := a.current()
	if m == nil {
		return false
	}
	_, ok := m.addressesOf(node)
	return ok
}

// servePeers opens the door for other members' tools, on the cluster's own port.
func (m *member) servePeers() {
	front, err := server.New(server.Config{Backend: m.a, Log: m.log, Audit: m.a.auditLog(), IsMember: m.a.isMember})
	if err != nil {
		m.log.Error("serve the members' tools", "error", err)
		return
	}
	m.front = front
	m.work.Go(func() { _ = front.ServePeers(m.links.Listener(peer.ProtoHTTP2)) })
}

func (a *Agent) configured() (*member, error) {
	if m := a.current(); m != nil {
		return m, nil
	}
	return nil, api.Errorf(api.CodeNotConfigured, "this node belongs to no cluster: clmgr add cluster, or clmgr join cluster")
}

// Status implements server.Reader.
func (a *Agent) Status() api.Status {
	m := a.current()
	if m == nil {
		return api.Status{Version: a.memberVersion() << 32, Instance: a.opt.instance, Cluster: api.Cluster{State: api.ClusterNotConfigured,
			LocalNode: a.opt.Node.Name, ProductVersion: a.opt.Version}}
	}
	s := m.status()
	s.Version += a.memberVersion() << 32
	return s
}

func (a *Agent) memberVersion() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.version
}

// Version implements server.Reader.
func (a *Agent) Version() (instance string, version uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	version = a.version << 32
	if a.member != nil {
		version += a.member.version.Load()
	}
	return a.opt.instance, version
}

// Wait implements server.Reader.
func (a *Agent) Wait(ctx context.Context, since uint64) uint64 {
	for {
		a.mu.Lock()
		m, changed, version := a.member, a.changed, a.version<<32
		a.mu.Unlock()
		var news <-chan struct{}
		if m != nil {
			news = m.notify.wait()
			version += m.version.Load()
		}
		if version != since {
			return version
		}
		select {
		case <-ctx.Done():
			return version
		case <-changed:
		case <-news:
		}
	}
}

// Events implements server.Reader.
func (a *Agent) Events(since uint64, limit int) (api.EventList, error) {
	m, err := a.configured()
	if err != nil {
		return api.EventList{}, err
	}
	view := m.view()
	events := view.Events(since + 1)
	var out api.EventList
	if since > 0 && len(events) > 0 && events[0].ID > since+1 {
		out.Lost = true
	}
	if limit > 0 && len(events) > limit {
		if since == 0 {
			events = events[len(events)-limit:]
		} else {
			events = events[:limit]
		}
	}
	out.Next = since
	for i := range events {
		e := &events[i]
		out.Events = append(out.Events, api.Event{ID: e.ID, Time: e.At, Kind: e.Name, Node: e.Node, Group: e.Group, Sentence: e.Sentence})
		out.Next = e.ID
	}
	return out, nil
}

// Definition implements server.Reader.
func (a *Agent) Definition(staged bool) (api.Definition, error) {
	m, err := a.configured()
	if err != nil {
		return api.Definition{}, err
	}
	view := m.view()
	if view.Definition == nil {
		return api.Definition{}, api.Errorf(api.CodeUnavailable, "this node has not received the definition yet")
	}
	out := api.Definition{Version: view.DefinitionVersion, StagedVersion: view.StagedVersion}
	d := view.Definition
	if s := view.Staged; s != nil && staged {
		d = s.Definition
		out.Staged, out.StagedBy, out.StagedSince = true, s.By, &s.Since
	}
	b, err := config.EncodeCluster(d)
	out.YAML = string(b)
	return out, err
}

// Diff implements server.Reader.
func (a *Agent) Diff(_ context.Context, text api.DefinitionText) (api.Diff, error) {
	m, err := a.configured()
	if err != nil && text.Staged {
		return api.Diff{}, err
	}
	var d *cluster.Definition
	if text.Staged {
		s := m.view().Staged
		if s == nil {
			return api.Diff{Same: true, Version: m.view().DefinitionVersion}, nil
		}
		d = s.Definition
	} else {
		var bad error
		if d, bad = decodeDefinition(text.File, text.YAML); bad != nil {
			return api.Diff{}, bad
		}
	}
	if err != nil {
		return api.Diff{}, err
	}
	view := m.view()
	if view.Definition == nil {
		return api.Diff{}, api.Errorf(api.CodeUnavailable, "this node has not received the definition yet")
	}
	out := api.Diff{Version: view.DefinitionVersion}
	for _, c := range config.Diff(view.Definition, d) {
		out.Changes = append(out.Changes, api.Change{Op: c.Op, Class: c.Class, Name: c.Name, Attr: c.Attribute, From: c.Old, To: c.New})
	}
	out.Same = len(out.Changes) == 0
	out.Effects, out.Disruptive = effectsOf(view, d)
	return out, nil
}

// Check implements server.Reader.
func (a *Agent) Check(_ context.Context, text api.DefinitionText) (api.CheckReport, error) {
	r := api.CheckReport{
		Checked: []string{"the definition's syntax, names, references, policies, dependencies and timings"},
		NotChecked: []string{"scripts, devices, file systems and addresses on the nodes", "whether all nodes' clocks, versions and files agree",
			"whether a fence device answers"},
	}
	if d, err := decodeDefinition(text.File, text.YAML); err != nil {
		e := apiError(err)
		r.Faults = e.Faults
		if len(r.Faults) == 0 {
			r.Faults = []api.Fault{{File: text.File, Message: e.Message}}
		}
	} else if d.Undecided() {
		r.Faults = []api.Fault{{File: text.File, Key: "nodes", Message: cluster.TwoNodeSentence}}
	} else {
		r.Warnings = warningsOf(d)
	}
	return r, nil
}

// warningsOf says what a definition allows and an operator should know.
func warningsOf(d *cluster.Definition) []string {
	var out []string
	for i := range d.Nodes {
		if len(d.FenceDevicesOf(d.Nodes[i].Name)) == 0 {
			out = append(out, fmt.Sprintf("node %s has no fence device: after its crash its groups wait for its lease to run out", d.Nodes[i].Name))
		}
	}
	return out
}

// Explain implements server.Reader.
func (a *Agent) Explain(group, node string) (api.Explanation, error) {
	m, err := a.configured()
	if err != nil {
		return api.Explanation{}, err
	}
	view := m.view()
	if view.Definition == nil || view.Definition.Group(group) == nil {
		return api.Explanation{}, api.Errorf(api.CodeNotFound, "no resource group %q; there are: %s", group, listOr(view.GroupNames(), "none"))
	}
	if node != "" && view.Definition.Node(node) == nil {
		return api.Explanation{}, api.Errorf(api.CodeNotFound, "no node %q; there are: %s", node, listOr(view.NodeNames(), "none"))
	}
	e := scheduler.Explain(view, group, m.wall())
	out := api.Explanation{Group: group, Node: node, Sentences: e.Sentences}
	for _, n := range e.Nodes {
		if node == "" || node == n.Node {
			out.Nodes = append(out.Nodes, api.NodeVerdict{Node: n.Node, State: string(view.Shown(group, n.Node).State), Can: n.Can, Reason: n.Reason})
		}
	}
	return out, nil
}

// Health implements server.Reader.
func (a *Agent) Health() api.Health {
	h := api.Health{OK: true, Instance: a.opt.instance, Version: a.opt.Version}
	problem := func(text string) { h.OK, h.Problems = false, append(h.Problems, text) }
	m := a.current()
	if m == nil {
		return h
	}
	if !m.loopAlive() {
		problem("the daemon's loop makes no progress")
	}
	s := m.status()
	if s.Cluster.Stale() {
		problem("nothing was heard of a leader for longer than the soft lease")
	}
	if s.Cluster.Quorum.Risk != "" {
		h.Problems = append(h.Problems, s.Cluster.Quorum.Risk)
	}
	h.Problems = append(h.Problems, m.local.Load().warnings...)
	return h
}

// State implements server.Reader.
func (a *Agent) State() (api.State, error) {
	m, err := a.configured()
	if err != nil {
		return api.State{}, err
	}
	b, err := m.view().Encode()
	return api.State{Encoded: b}, err
}

// Do implements server.Writer.
func (a *Agent) Do(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	m, err := a.configured()
	if err != nil {
		return api.Reply{}, err
	}
	out, err := m.operate(ctx, operation{Who: who, Request: &r})
	return out.Reply, err
}

// SetDefinition implements server.Writer.
func (a *Agent) SetDefinition(ctx context.Context, who api.Caller, c api.DefinitionChange) (api.Reply, error) {
	m, err := a.configured()
	if err != nil {
		return api.Reply{}, err
	}
	d, err := decodeDefinition(c.File, c.YAML)
	if err == nil {
		err = m.fits(ctx, m.view().Definition, d, c.File)
	}
	if err != nil {
		return api.Reply{}, err
	}
	out, err := m.operate(ctx, operation{Who: who, Definition: &c})
	return out.Reply, err
}

// Sync implements server.Writer.
func (a *Agent) Sync(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error) {
	return a.staged(ctx, operation{Who: who, Sync: &r})
}

// Undo implements server.Writer.
func (a *Agent) Undo(ctx context.Context, who api.Caller, r api.StagedRequest) (api.Reply, error) {
	return a.staged(ctx, operation{Who: who, Undo: &r})
}

func (a *Agent) staged(ctx context.Context, op operation) (api.Reply, error) {
	m, err := a.configured()
	if err != nil {
		return api.Reply{}, err
	}
	out, err := m.operate(ctx, op)
	return out.Reply, err
}

// decodeDefinition decodes and validates a definition's text; the error has all faults with their places.
func decodeDefinition(file, text string) (*cluster.Definition, error) {
	if file == "" {
		file = "definition"
	}
	d, err := config.DecodeCluster(file, []byte(text))
	if err == nil {
		return d, nil
	}
	e := api.Errorf(api.CodeInvalid, "the definition cannot be used; nothing was changed")
	var faults config.Faults
	if !errors.As(err, &faults) {
		return nil, api.Errorf(api.CodeInvalid, "%v", err)
	}
	for _, f := range faults {
		e.Faults = append(e.Faults, api.Fault{File: f.File, Line: f.Line, Column: f.Column, Key: f.Key, Message: f.Text})
	}
	return nil, e
}

func problemsError(list []cluster.Problem) error {
	e := api.Errorf(api.CodeInvalid, "the definition cannot be used; nothing was changed")
	for _, p := range list {
		e.Faults = append(e.Faults, api.Fault{Key: p.Path, Message: p.Text + wantText(p.Want)})
	}
	return e
}

func wantText(want string) string {
	if want == "" {
		return ""
	}
	return ": " + want
}

var _ = state.Format
