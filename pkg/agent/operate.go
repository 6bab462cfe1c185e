package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Operators' commands. Each is checked against the leader's newest view by package scheduler, which refuses with a reason
// what must be refused, and then committed; Apply has the last word. A command given on another node is passed to the leader
// with the caller's name.

// forwardLimit bounds how long a command waits for a leader to be found.
const forwardLimit = 6 * time.Second

// operation is a forwarded command; one of the fields is set.
type operation struct {
	Who        api.Caller            `json:"who"`
	Request    *api.Request          `json:"request,omitempty"`
	Definition *api.DefinitionChange `json:"definition,omitempty"`
	Token      *api.NewToken         `json:"token,omitempty"`
	Sync       *api.StagedRequest    `json:"sync,omitempty"`
	Undo       *api.StagedRequest    `json:"undo,omitempty"`
}

type operationReply struct {
	Leader string         `json:"leader,omitempty"`
	Reply  api.Reply      `json:"reply"`
	Token  *api.JoinToken `json:"token,omitempty"`
	Error  *api.Error     `json:"error,omitempty"`
}

// operate runs an operation on the leader, wherever it is, and tries again while there is none.
func (m *member) operate(ctx context.Context, op operation) (operationReply, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardLimit)
	defer cancel()
	for {
		r, sent := m.operateOnce(ctx, op)
		if r.Leader == "" {
			if r.Error != nil {
				return r, r.Error
			}
			m.await(ctx, r.Reply.Index)
			return r, nil
		}
		select {
		case <-ctx.Done():
			if sent {
				return r, api.Errorf(api.CodeUncertain, "the leader's answer did not come: the command may have been done; asking again is safe")
			}
			return r, api.Errorf(api.CodeUnavailable, "no leader: the cluster has no quorum that this node can reach, nothing was done")
		case <-after(100 * time.Millisecond):
		}
	}
}

// operateOnce asks once. sent says that the operation may have been done although there is no answer.
func (m *member) operateOnce(ctx context.Context, op operation) (operationReply, bool) {
	switch node := m.leaderNode(); node {
	case "":
		return operationReply{Leader: "?"}, false
	case m.name:
		return m.operateHere(ctx, op), false
	default:
		var r operationReply
		if _, err := m.callNode(ctx, node, rpcOperate, op, &r, nil); err != nil {
			m.log.Debug("pass a command to the leader", "leader", node, "error", err)
			return operationReply{Leader: "?"}, true
		}
		return r, false
	}
}

func (m *member) serveOperate(ctx context.Context, from string, body []byte) ([]byte, error) {
	var op operation
	if err := json.Unmarshal(body, &op); err != nil {
		return nil, errors.New("the command cannot be read")
	}
	op.Who.Node = from
	return json.Marshal(m.operateHere(ctx, op))
}

func (m *member) operateHere(ctx context.Context, op operation) operationReply {
	led := m.leading()
	if led == nil || !led.ready() {
		return operationReply{Leader: m.otherLeader()}
	}
	var r operationReply
	var err error
	switch {
	case op.Request != nil:
		r.Reply, err = m.request(ctx, op.Who, *op.Request)
	case op.Definition != nil:
		r.Reply, err = m.define(ctx, op.Who, *op.Definition)
	case op.Sync != nil:
		r.Reply, err = m.sync(ctx, op.Who, *op.Sync)
	case op.Undo != nil:
		r.Reply, err = m.undo(ctx, op.Who, *op.Undo)
	case op.Token != nil:
		r.Token, r.Reply.Index, err = m.token(ctx, op.Who, *op.Token)
	default:
		err = api.Errorf(api.CodeInvalid, "the command is empty: the asking node may run another version")
	}
	if errors.Is(err, consensus.ErrNotLeader) {
		return operationReply{Leader: "?"}
	}
	r.Error = apiError(err)
	return r
}

// await lets this node catch up with what was committed, so that what it shows next has the effect in it.
func (m *member) await(ctx context.Context, index uint64) {
	for m.view().Index < index {
		ch := m.notify.wait()
		if m.view().Index >= index {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ch:
		}
	}
}

// request does what an operator asks for, group by group.
func (m *member) request(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	switch r.Op {
	case api.OpFormat:
		return m.formatRepository(ctx, who, r)
	case api.OpReplace:
		return m.replaceRepository(ctx, who, r)
	}
	commands, err := commandsOf(r)
	if err != nil {
		return api.Reply{}, err
	}
	var reply api.Reply
	reply.Already = true
	for i, c := range commands {
		view := m.view()
		if err := unknownNames(view, r); err != nil {
			return reply, err
		}
		if r.Op == api.OpConfirmDown && view.Node(r.Node).Alive() {
			reply.Refused = "node " + r.Node + " is heard: it is not down. Stop its cluster services, or switch it off: its silence is noticed " +
				"at once, and then your word counts"
			return reply, nil
		}
		v := scheduler.Admit(view, c, m.wall())
		if v.Refused != "" && !r.Force {
			reply.Refused = v.Refused
			return reply, nil
		}
		if v.Refused != "" {
			return reply, api.Errorf(api.CodeRefused, "%s (force does not override this)", v.Refused)
		}
		if v.Already {
			reply.Index = max(reply.Index, view.Index)
			continue
		}
		reply.Already = false
		if r.ID != "" {
			c.ID = fmt.Sprintf("%.56s.%d", r.ID, i)
		}
		c.By = who.String()
		res, err := m.commit(ctx, c)
		if err != nil {
			return reply, err
		}
		reply.Index = res.Index
		if res.Refused != "" {
			reply.Refused = res.Refused
			return reply, nil
		}
	}
	if r.Op == api.OpStart && r.Placement == api.PlacementHome {
		return m.bringHome(ctx, who, r, reply)
	}
	return reply, nil
}

// bringHome asks for each group that is nowhere online on its home node, where that is up.
func (m *member) bringHome(ctx context.Context, who api.Caller, r api.Request, reply api.Reply) (api.Reply, error) {
	view := m.view()
	for i := range view.Definition.ResourceGroups {
		g := &view.Definition.ResourceGroups[i]
		if held, _ := view.Group(g.Name).Holder(); held != "" || g.Concurrent() || len(g.Nodes) == 0 || !view.Node(g.Nodes[0]).Up() {
			continue
		}
		one, err := m.request(ctx, who, api.Request{ID: r.ID + "." + g.Name, Op: api.OpOnline, Groups: []string{g.Name}, Node: g.Nodes[0], Reason: r.Reason})
		if err != nil {
			return reply, err
		}
		if one.Refused != "" {
			reply.Warnings = append(reply.Warnings, one.Refused)
			continue
		}
		reply.Index, reply.Already = max(reply.Index, one.Index), reply.Already && one.Already
	}
	return reply, nil
}

// unknownNames finds what the request names and the definition does not have.
func unknownNames(view *state.State, r api.Request) error {
	if view.Definition == nil {
		return api.Errorf(api.CodeNotConfigured, "the cluster has no definition yet")
	}
	for _, g := range r.Groups {
		if view.Definition.Group(g) == nil {
			return api.Errorf(api.CodeNotFound, "no resource group %q; there are: %s", g, listOr(view.GroupNames(), "none"))
		}
	}
	for _, n := range append(append([]string{}, r.Nodes...), r.Node) {
		if n != "" && view.Definition.Node(n) == nil {
			return api.Errorf(api.CodeNotFound, "no node %q; there are: %s", n, listOr(view.NodeNames(), "none"))
		}
	}
	return nil
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

// commandsOf translates a request.
func commandsOf(r api.Request) ([]*state.Command, error) {
	each := func(f func(group string) *state.Command) ([]*state.Command, error) {
		if len(r.Groups) == 0 {
			return nil, api.Errorf(api.CodeMissing, "%s: no resource group given", r.Op)
		}
		var out []*state.Command
		for _, g := range r.Groups {
			out = append(out, f(g))
		}
		return out, nil
	}
	switch r.Op {
	case api.OpStart:
		mode := state.StartAuto
		if r.Manage == api.ManageManual {
			mode = state.StartManual
		}
		return []*state.Command{{NodeServices: &state.NodeServices{Nodes: r.Nodes, Start: mode}}}, nil
	case api.OpStop:
		mode := state.StopOffline
		switch r.Manage {
		case api.ManageMove:
			mode = state.StopMove
		case api.ManageUnmanage:
			mode = state.StopUnmanage
		}
		return []*state.Command{{NodeServices: &state.NodeServices{Nodes: r.Nodes, Stop: mode}}}, nil
	case api.OpOnline:
		return each(func(g string) *state.Command {
			return &state.Command{OnlineGroup: &state.OnlineGroup{Group: g, Node: r.Node}}
		})
	case api.OpOffline:
		return each(func(g string) *state.Command {
			return &state.Command{OfflineGroup: &state.OfflineGroup{Group: g, Node: r.Node}}
		})
	case api.OpMove:
		if r.Node == "" {
			return nil, api.Errorf(api.CodeMissing, "move: no target node given (NODE=...)")
		}
		return each(func(g string) *state.Command {
			return &state.Command{MoveGroup: &state.MoveGroup{Group: g, Node: r.Node}}
		})
	case api.OpUnsetPriority:
		return each(func(g string) *state.Command {
			return &state.Command{UnsetPriority: &state.UnsetPriority{Group: g}}
		})
	case api.OpClear:
		if r.Node != "" && len(r.Groups) == 0 {
			return []*state.Command{{ClearNode: &state.ClearNode{Node: r.Node}}}, nil
		}
		return each(func(g string) *state.Command { return &state.Command{ClearGroup: &state.ClearGroup{Group: g}} })
	case api.OpSuspend:
		return each(func(g string) *state.Command { return &state.Command{SuspendGroup: &state.SuspendGroup{Group: g}} })
	case api.OpResume:
		return each(func(g string) *state.Command { return &state.Command{ResumeGroup: &state.ResumeGroup{Group: g}} })
	case api.OpManage:
		return each(func(g string) *state.Command { return &state.Command{ManageGroup: &state.ManageGroup{Group: g}} })
	case api.OpUnmanage:
		return each(func(g string) *state.Command {
			return &state.Command{UnmanageGroup: &state.UnmanageGroup{Group: g}}
		})
	case api.OpReleaseLock:
		return []*state.Command{{LockBreak: &state.LockBreak{Name: r.Lock, Session: r.Session}}}, nil
	case api.OpRotateCerts:
		return []*state.Command{{RenewCerts: &state.RenewCerts{Nodes: r.Nodes}}}, nil
	case api.OpRotateGossip:
		return []*state.Command{{GossipKey: &state.GossipKey{Step: state.KeyAdd}}}, nil
	case api.OpConfirmDown:
		return []*state.Command{{Proof: &state.Proof{Node: r.Node, Kind: state.ProofOperator, Sentence: confirmSentence(r)}}}, nil
	}
	return nil, api.Errorf(api.CodeInvalid, "unknown operation %q", r.Op)
}

func confirmSentence(r api.Request) string {
	s := "the operator confirms that node " + r.Node + " is down"
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// define replaces the definition.
func (m *member) define(ctx context.Context, who api.Caller, c api.DefinitionChange) (api.Reply, error) {
	d, err := decodeDefinition(c.File, c.YAML)
	if err != nil {
		return api.Reply{}, err
	}
	view := m.view()
	if err := keepVolumeIDs(view.Definition, d); err != nil {
		return api.Reply{}, err
	}
	if err := m.admissible(view, d); err != nil {
		return api.Reply{}, err
	}
	if c.BaseVersion != view.DefinitionVersion {
		return api.Reply{}, api.Errorf(api.CodeConflict, "the definition has changed meanwhile: it is version %d, the change was made from %d; read it again",
			view.DefinitionVersion, c.BaseVersion)
	}
	if c.Stage {
		return m.stage(ctx, who, c, d)
	}
	if view.Definition.Equal(d) {
		return api.Reply{Already: true, Index: view.Index, DefinitionVersion: view.DefinitionVersion, Sentence: "nothing changes"}, nil
	}
	res, err := m.commit(ctx, &state.Command{ID: c.ID, By: who.String(), SetDefinition: &state.SetDefinition{Base: c.BaseVersion, Definition: d}})
	if err != nil {
		return api.Reply{}, err
	}
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion}, nil
}

// admissible refuses what a valid definition may say and this version cannot keep safe.
func (m *member) admissible(view *state.State, d *cluster.Definition) error {
	if d.Undecided() {
		return api.Errorf(api.CodeRefused, "%s", cluster.TwoNodeSentence)
	}
	if view.Definition != nil && len(d.Nodes) == 2 && view.Definition.Repository() != nil && d.Repository() == nil {
		return api.Errorf(api.CodeRefused, "a cluster of two nodes cannot be without its repository volume %s: add and format another one first, "+
			"which takes its place", view.Definition.Repository().Name)
	}
	if view.Definition != nil && len(view.Definition.Nodes) > 2 && len(d.Nodes) == 2 && d.Repository() == nil {
		return api.Errorf(api.CodeRefused, "two nodes need a repository volume that is in use before the third goes: format it first (clmgr format repository)")
	}
	if len(d.Nodes) == 2 {
		for _, s := range m.raft.Configuration() {
			kept := slices.ContainsFunc(d.Repositories, func(r cluster.Repository) bool { return repositoryPrefix+r.UUID == s.ID })
			if isRepository(s.ID) && s.Voter && !kept {
				// Its voter needs its device for as long as it votes.
				return api.Errorf(api.CodeRefused, "the repository volume %s votes: put another one in its place first (clmgr replace repository)",
					strings.TrimPrefix(s.ID, repositoryPrefix))
			}
		}
	}
	if view.Definition != nil && view.Definition.Name != d.Name {
		return api.Errorf(api.CodeRefused, "a cluster's name cannot be changed: it is %s, the definition says %s", view.Definition.Name, d.Name)
	}
	return nil
}

// commit proposes a command and waits for its result. Only the leader can.
func (m *member) commit(ctx context.Context, c *state.Command) (state.Result, error) {
	if c.At.IsZero() {
		c.At = m.wall()
	}
	if p := c.Proof; p != nil && p.Kind == state.ProofOperator && p.Incarnation == 0 {
		if n := m.view().Node(p.Node); n != nil {
			p.Incarnation = n.Incarnation
		}
	}
	if behind := m.view().BehindFormat(c.Needs()); len(behind) > 0 {
		return state.Result{}, api.Errorf(api.CodeRefused, "the daemon of %s is older and would not understand this (%s): upgrade it first",
			strings.Join(behind, ", "), c.Kind())
	}
	b, err := c.Encode()
	if err != nil {
		return state.Result{}, fmt.Errorf("encode the command: %w", err)
	}
	r, err := m.raft.Propose(ctx, b)
	if err != nil {
		return state.Result{}, err
	}
	res, ok := r.Value.(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("the log answered with %T", r.Value)
	}
	return res, nil
}

// submit sends a fact of this node to the leader, in the background and without waiting: whoever wants it repeats it until
// the view shows it.
func (m *member) submit(c *state.Command) {
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		res, err := m.report(ctx, c)
		if err != nil {
			m.log.Debug("a report did not get through; it is repeated if it still matters", "error", err)
		} else if res.Refused != "" {
			m.log.Info("a report was refused", "why", res.Refused)
		}
	})
}

// report brings a fact of this node into the log through the leader.
func (m *member) report(ctx context.Context, c *state.Command) (state.Result, error) {
	c.By, c.At = m.name, m.wall()
	if c.Report != nil && m.sendsByMail() {
		return m.reportByMail(ctx, c)
	}
	leader, _ := m.raft.Leader()
	node := nodeOfServer(leader)
	switch node {
	case "":
		return state.Result{}, errNoLeader
	case m.name:
		return m.commit(ctx, c)
	}
	b, err := c.Encode()
	if err != nil {
		return state.Result{}, err
	}
	out, err := m.links.Call(ctx, node, rpcReport, b)
	if err != nil {
		return state.Result{}, err
	}
	var r reportReply
	if err := json.Unmarshal(out, &r); err != nil {
		return state.Result{}, fmt.Errorf("read the answer of node %s: %w", node, err)
	}
	if r.Error != "" {
		return state.Result{}, errors.New(r.Error)
	}
	return r.Result, nil
}

type reportReply struct {
	Result state.Result `json:"result"`
	Error  string       `json:"error,omitempty"`
}

// serveReport takes a fact that a node reports of itself, and nothing else.
func (m *member) serveReport(ctx context.Context, from string, body []byte) ([]byte, error) {
	c, err := state.DecodeCommand(body)
	if err != nil {
		return nil, fmt.Errorf("decode the report: %w", err)
	}
	if about := subjectOf(c); about != from {
		return nil, fmt.Errorf("node %s may not report that of node %q", from, about)
	}
	c.By = from
	r, err := m.commit(ctx, c)
	reply := reportReply{Result: r}
	if err != nil {
		reply.Error = err.Error()
	}
	return json.Marshal(reply)
}

// subjectOf is the node of which a command speaks, for the commands that nodes may send; empty for all others.
func subjectOf(c *state.Command) string {
	switch {
	case c.Report != nil:
		return c.Report.Node
	case c.Armed != nil:
		return c.Armed.Fact.Node
	case c.Disarmed != nil:
		return c.Disarmed.Node
	case c.NetworkState != nil:
		return c.NetworkState.Node
	case c.Measure != nil:
		return c.Measure.Node
	case c.BootRandom != nil:
		return c.BootRandom.Node
	case c.LockOpen != nil:
		return c.LockOpen.Node
	case c.LockClose != nil:
		return c.LockClose.Node
	case c.LockAcquire != nil:
		return c.LockAcquire.Node
	case c.LockRelease != nil:
		return c.LockRelease.Node
	case c.CertInUse != nil:
		return c.CertInUse.Node
	case c.Note != nil:
		return c.Note.Node
	}
	return ""
}

func apiError(err error) *api.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, consensus.ErrUnknown):
		return api.Errorf(api.CodeUncertain, "%v: it may have been done; asking again is safe", err)
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrBusy):
		return api.Errorf(api.CodeUnavailable, "%v: nothing was done", err)
	}
	return api.Errorf(api.CodeInternal, "%v", err)
}
