package agent

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Founding, joining and leaving a cluster; and the voters among its members.

const (
	tokenTTL  = time.Hour
	foundWait = 15 * time.Second
)

// CreateCluster founds a cluster with this node as its first member, and makes a token for each other node of the definition.
func (a *Agent) CreateCluster(ctx context.Context, who api.Caller, c api.CreateCluster) (api.CreateClusterReply, error) {
	if err := a.begin1(); err != nil {
		return api.CreateClusterReply{}, err
	}
	defer a.end1()
	name := c.Node
	if name == "" {
		name = a.opt.Node.Name
	}
	if name == "" {
		name = hostName()
	}
	if a.opt.Node.Name != "" && name != a.opt.Node.Name {
		return api.CreateClusterReply{}, api.Errorf(api.CodeInvalid, "this node is %s by its node file, not %s", a.opt.Node.Name, name)
	}
	d, err := a.firstDefinition(c, name)
	if err != nil {
		return api.CreateClusterReply{}, err
	}
	if err := fitsAlone(ctx, a.opt.Executors, name, d, c.File); err != nil {
		return api.CreateClusterReply{}, err
	}
	id, err := identity.NewCluster(a.identityDir(), d.Name, name)
	if err != nil {
		return api.CreateClusterReply{}, fmt.Errorf("make the cluster's CA and this node's identity: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, foundWait)
	defer cancel()
	timings, err := definedTimings(d)
	if err == nil {
		err = keepTimings(a.opt.Node.StateDir, timings)
	}
	if err == nil {
		err = a.beginEpoch(1)
	}
	if err == nil {
		err = a.begin(context.WithoutCancel(ctx), id, func(m *member) error { return m.raft.Bootstrap() })
	}
	if err == nil {
		err = a.current().found(ctx, who, d)
	}
	if err != nil {
		// Nothing half done: the node belongs to no cluster again.
		a.stopMember()
		a.forget()
		return api.CreateClusterReply{}, fmt.Errorf("found cluster %s: %w", d.Name, err)
	}
	reply := api.CreateClusterReply{UUID: id.ClusterUUID}
	m := a.current()
	for i := range d.Nodes {
		if d.Nodes[i].Name == name {
			continue
		}
		r, err := m.operate(ctx, operation{Who: who, Token: &api.NewToken{Node: d.Nodes[i].Name}})
		if err != nil {
			return reply, err
		}
		reply.Tokens = append(reply.Tokens, *r.Token)
	}
	reply.Index = m.view().Index
	reply.DefinitionVersion = m.view().DefinitionVersion
	if len(d.Nodes) == 2 && d.Repository() == nil {
		reply.Warnings = append(reply.Warnings, fmt.Sprintf("when the other node has joined, format the repository volume: clmgr format repository %s. "+
			"Until then node %s votes alone, and its loss stops the cluster", d.Repositories[0].Name, name))
	}
	return reply, nil
}

// begin1 and end1 let one change of membership happen at a time, and only on a node that has none.
func (a *Agent) begin1() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.member != nil {
		return api.Errorf(api.CodeExists, "this node belongs to cluster %s already", a.member.id.ClusterName)
	}
	if a.changing {
		return api.Errorf(api.CodeRefused, "this node is creating or joining a cluster already")
	}
	a.changing = true
	return nil
}

func (a *Agent) end1() {
	a.mu.Lock()
	a.changing = false
	a.mu.Unlock()
}

// forget removes all that ties this node to a cluster.
func (a *Agent) forget() {
	for _, name := range []string{"identity", "raft", "members.json", "life.json", "deadman.json", "timings.json", "reset.json", "tombstones", "repository", "volume.json", "last-known.json",
		"epoch.json", "outdated.json"} {
		if err := os.RemoveAll(filepath.Join(a.opt.Node.StateDir, name)); err != nil {
			a.log.Error("remove what ties this node to the cluster", "file", name, "error", err)
		}
	}
}

// firstDefinition is the definition with which a cluster is founded: a whole file, or nodes with their addresses.
func (a *Agent) firstDefinition(c api.CreateCluster, self string) (*cluster.Definition, error) {
	var d *cluster.Definition
	if c.YAML != "" {
		var err error
		if d, err = decodeDefinition(c.File, c.YAML); err != nil {
			return nil, err
		}
		if c.Name != "" && c.Name != d.Name {
			return nil, api.Errorf(api.CodeInvalid, "the definition is of cluster %s, not %s", d.Name, c.Name)
		}
	} else {
		d = &cluster.Definition{Name: c.Name}
		seeds := c.Nodes
		if len(seeds) == 0 {
			seeds = []api.Seed{{Name: self}}
		}
		nets := map[string]bool{}
		for _, s := range seeds {
			d.Nodes = append(d.Nodes, cluster.Node{Name: s.Name, Addresses: s.Addresses})
			for _, n := range sortedKeys(s.Addresses) {
				if !nets[n] {
					nets[n] = true
					d.Networks = append(d.Networks, cluster.Network{Name: n})
				}
			}
		}
		d.Defaults()
		if problems := d.Validate(); len(problems) > 0 {
			return nil, problemsError(problems)
		}
	}
	if err := keepVolumeIDs(nil, d); err != nil {
		return nil, err
	}
	if d.Node(self) == nil {
		return nil, api.Errorf(api.CodeInvalid, "node %q, on which the cluster is founded, is not among its nodes: it goes by its host name, "+
			"or by name: in %s", self, a.opt.NodeFile)
	}
	if d.Undecided() {
		return nil, api.Errorf(api.CodeRefused, "%s", cluster.TwoNodeSentence)
	}
	if len(d.Nodes) > 1 {
		for i := range d.Nodes {
			if len(d.Nodes[i].Addresses) == 0 {
				return nil, api.Errorf(api.CodeMissing, "node %s has no address: the others could not reach it", d.Nodes[i].Name)
			}
		}
	}
	return d, nil
}

// found commits the first entries of a new cluster.
// hostName is the machine's name without its domain, or "".
func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, ".")
	return host
}

func (m *member) found(ctx context.Context, who api.Caller, d *cluster.Definition) error {
	for _, c := range []*state.Command{
		{Create: &state.Create{ClusterID: m.id.ClusterUUID, Definition: d}},
		{SetMember: &state.SetMember{Node: m.name, RaftID: m.id.RaftID}},
	} {
		c.By = who.String()
		for {
			r, err := m.commit(ctx, c)
			if err == nil && r.Refused != "" {
				return refusal(r.Refused)
			}
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return err
			case <-after(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// NewToken makes a one-time token for a node of the definition.
func (a *Agent) NewToken(ctx context.Context, who api.Caller, t api.NewToken) (api.JoinToken, error) {
	m, err := a.configured()
	if err != nil {
		return api.JoinToken{}, err
	}
	r, err := m.operate(ctx, operation{Who: who, Token: &t})
	if err != nil {
		return api.JoinToken{}, err
	}
	return *r.Token, nil
}

func (m *member) token(ctx context.Context, who api.Caller, t api.NewToken) (*api.JoinToken, uint64, error) {
	d := m.view().Definition
	if d == nil || d.Node(t.Node) == nil {
		return nil, 0, api.Errorf(api.CodeNotFound, "node %q is not in the definition: add it there first (an odd number of nodes, or more than two)", t.Node)
	}
	ttl := time.Duration(t.TTL * float64(time.Second))
	if ttl <= 0 {
		ttl = tokenTTL
	}
	var addrs []string
	for i := range d.Nodes {
		if d.Nodes[i].Name != t.Node && m.view().Node(d.Nodes[i].Name).Alive() || d.Nodes[i].Name == m.name {
			addrs = append(addrs, dialAddresses(d, &d.Nodes[i], m.port())...)
		}
	}
	text, hash := identity.NewToken(m.id.ClusterName, m.id.ClusterUUID, m.id.CAFingerprint(), addrs, t.Node)
	r, err := m.commit(ctx, &state.Command{By: who.String(), TokenAdd: &state.TokenAdd{Hash: hex.EncodeToString(hash[:]), Node: t.Node, Expires: m.wall().Add(ttl)}})
	if err != nil {
		return nil, 0, err
	}
	if r.Refused != "" {
		return nil, 0, api.Errorf(api.CodeRefused, "%s", r.Refused)
	}
	return &api.JoinToken{Node: t.Node, Token: text, Expires: ttl.Seconds()}, r.Index, nil
}

// Join makes this daemon a member with a token.
func (a *Agent) Join(ctx context.Context, _ api.Caller, j api.Join) (api.Reply, error) {
	if err := a.begin1(); err != nil {
		return api.Reply{}, err
	}
	defer a.end1()
	t, err := identity.ParseToken(j.Token)
	if err != nil {
		return api.Reply{}, api.Errorf(api.CodeInvalid, "%v", err)
	}
	if len(j.Addresses) > 0 {
		t.Addresses = j.Addresses
	}
	for _, name := range []string{j.Node, a.opt.Node.Name} {
		if name != "" && name != t.Node {
			return api.Reply{}, api.Errorf(api.CodeInvalid, "the token is for node %s, this node is %s", t.Node, name)
		}
	}
	joining, err := identity.Join(a.identityDir(), t)
	if err != nil {
		return api.Reply{}, err
	}
	body, err := json.Marshal(joining.Request())
	if err != nil {
		return api.Reply{}, err
	}
	var dial func(context.Context, string) (netConn, error)
	if n := a.opt.Network; n != nil {
		dial = n.Dial
	}
	answer, err := peer.AskToJoin(ctx, t, body, dial)
	if err != nil {
		return api.Reply{}, api.Errorf(api.CodeRefused, "join cluster %s: %v", t.ClusterName, err)
	}
	var r identity.JoinReply
	if err := json.Unmarshal(answer, &r); err != nil {
		return api.Reply{}, fmt.Errorf("join cluster %s: the answer cannot be read", t.ClusterName)
	}
	if err := saveFriends(a.opt.Node.StateDir, r.Members); err != nil {
		return api.Reply{}, fmt.Errorf("store the list of members: %w", err)
	}
	id, err := joining.Finish(&r)
	if err == nil && r.Timings != nil {
		err = writeFile(timingsFile(a.opt.Node.StateDir), r.Timings, 0o600)
	}
	if err == nil {
		err = a.beginEpoch(r.Epoch)
	}
	if err == nil {
		err = a.begin(context.WithoutCancel(ctx), id, nil)
	}
	if err != nil {
		a.stopMember()
		a.forget()
		return api.Reply{}, fmt.Errorf("join cluster %s: %w", t.ClusterName, err)
	}
	return api.Reply{Sentence: fmt.Sprintf("node %s has joined cluster %s", id.Node, id.ClusterName)}, nil
}

// Leave takes this node out of its cluster: a node that the definition no longer has, or the last one.
func (a *Agent) Leave(context.Context, api.Caller) (api.Reply, error) {
	m, err := a.configured()
	if err != nil {
		return api.Reply{}, err
	}
	view := m.view()
	d := view.Definition
	last := d != nil && len(d.Nodes) == 1
	for _, name := range view.GroupNames() {
		if i := view.Groups[name].Instances[m.name]; i != nil && i.Held {
			return api.Reply{}, api.Errorf(api.CodeRefused, "group %s is %s here: bring it offline first", name, i.State)
		}
	}
	if d != nil && d.Node(m.name) != nil && !last {
		return api.Reply{}, api.Errorf(api.CodeRefused, "node %s is still in the definition: remove it there first, from another node (clmgr delete node %s)", m.name, m.name)
	}
	a.stopMember()
	a.forget()
	return api.Reply{Sentence: "this node belongs to no cluster any more"}, nil
}

// Admit is for newcomers over HTTP, which is not offered: they come over the links' own join protocol.
func (a *Agent) Admit(context.Context, string, api.Admit) (api.AdmitReply, error) {
	return api.AdmitReply{}, api.Errorf(api.CodeInvalid, "a node joins over the cluster's own port: clmgr join cluster TOKEN=...")
}

type admission struct {
	Remote string `json:"remote"`
	Body   []byte `json:"body"`
}

type admissionReply struct {
	Leader string `json:"leader,omitempty"`
	Answer []byte `json:"answer,omitempty"`
	Error  string `json:"error,omitempty"`
}

// serveJoin answers a newcomer, through the leader.
func (m *member) serveJoin(ctx context.Context, remote string, body []byte) ([]byte, error) {
	if !m.answers.Load() {
		return nil, errNoLeader
	}
	ad := admission{Remote: remote, Body: body}
	var r admissionReply
	if _, err := m.callLeader(ctx, rpcAdmit, ad, &r, func() any { return m.admit(ctx, ad) }); err != nil {
		return nil, err
	}
	switch {
	case r.Leader != "":
		return nil, errNoLeader
	case r.Error != "":
		return nil, errors.New(r.Error)
	}
	return r.Answer, nil
}

func (m *member) serveAdmit(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var ad admission
	if err := json.Unmarshal(body, &ad); err != nil {
		return nil, errors.New("the admission cannot be read")
	}
	return json.Marshal(m.admit(ctx, ad))
}

// admit takes a newcomer in: the token is used up first, so that it can never admit two.
func (m *member) admit(ctx context.Context, ad admission) admissionReply {
	led := m.leading()
	if led == nil || !led.ready() {
		return admissionReply{Leader: m.otherLeader()}
	}
	answer, err := m.admitNode(ctx, ad)
	if err != nil {
		m.log.Warn("a node was not admitted", "remote", ad.Remote, "error", err)
		return admissionReply{Error: err.Error()}
	}
	return admissionReply{Answer: answer}
}

func (m *member) admitNode(ctx context.Context, ad admission) ([]byte, error) {
	req, err := identity.DecodeJoinRequest(ad.Body)
	if err != nil {
		return nil, err
	}
	if req.Node == m.name {
		return nil, fmt.Errorf("node %s is a member and leads the cluster", req.Node)
	}
	hash := req.Hash()
	key := hex.EncodeToString(hash[:])
	r, err := m.commit(ctx, &state.Command{By: req.Node, TokenUse: &state.TokenUse{Hash: key, Node: req.Node}})
	if err != nil {
		return nil, err
	}
	if r.Refused != "" {
		return nil, refusal(r.Refused)
	}
	done, err := m.takeVoters(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for another change of the members: %w", err)
	}
	defer done()
	server := identity.NewRaftID(req.Node)
	for _, s := range m.raft.Configuration() {
		if nodeOfServer(s.ID) == req.Node {
			// The node lost its log and comes under a new server id: the old one must not vote again.
			if err := m.raft.Remove(ctx, s.ID); err != nil {
				return nil, fmt.Errorf("remove the node's old server id: %w", err)
			}
		}
	}
	// The token's entry is newer than every certificate that was made for this name before: from here on those are void.
	number := r.Index
	set := &state.SetMember{Node: req.Node, RaftID: server, Cert: number}
	if len(m.view().BehindFormat((&state.Command{SetMember: set}).Needs())) > 0 {
		set.Cert = 0 // an older daemon would not understand it; the node says it itself when all do
	}
	if r, err = m.commit(ctx, &state.Command{SetMember: set}); err != nil {
		return nil, err
	}
	if r.Refused != "" {
		return nil, refusal(r.Refused)
	}
	if err := m.raft.AddNonvoter(ctx, server); err != nil {
		return nil, fmt.Errorf("add the node to the log: %w", err)
	}
	members := map[string][]string{}
	d := m.view().Definition
	for i := range d.Nodes {
		members[d.Nodes[i].Name] = dialAddresses(d, &d.Nodes[i], m.port())
	}
	reply, err := m.id.Admit(req, server, number, members)
	if err != nil {
		return nil, err
	}
	reply.Epoch = m.epoch
	if reply.Timings, err = json.Marshal(m.params()); err != nil {
		return nil, err
	}
	return json.Marshal(reply)
}

// tendVoters makes the right members vote, one change at a time.
func (m *member) tendVoters(led *leadership, view *state.State) {
	if m.loop.changingVoters || view.Definition == nil {
		return
	}
	servers := m.raft.Configuration()
	if m.tendRepository(led, view.Definition, servers) || m.removeStrangers(led, view.Definition, servers) {
		return
	}
	if len(consensus.PlanVoters(m.voterMembers(view, servers), len(view.Definition.Nodes))) == 0 {
		return
	}
	m.loop.changingVoters = true
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(led.ctx, 10*time.Second)
		defer cancel()
		defer m.post(votersDone{})
		done, err := m.takeVoters(ctx)
		if err != nil {
			return
		}
		defer done()
		// Planned again for each step: a node may have been admitted, have died or come back meanwhile.
		for range maxVoterSteps {
			view := m.view()
			changes := consensus.PlanVoters(m.voterMembers(view, m.raft.Configuration()), len(view.Definition.Nodes))
			if len(changes) == 0 {
				return
			}
			c := changes[0]
			change := m.raft.AddVoter
			if c.Op == consensus.Demote {
				change = m.raft.Demote
			}
			if err := change(ctx, c.ID); err != nil {
				m.log.Warn("change the voters", "server", c.ID, "error", err)
				break
			}
			m.log.Info("the voters change", "op", c.Op, "server", c.ID, "why", c.Reason)
		}
	})
}

// maxVoterSteps bounds the steps of one attempt; what is left is planned in the next.
const maxVoterSteps = 8

// takeVoters keeps who changes the servers of the log apart: each change is right for the configuration that it was made from.
func (m *member) takeVoters(ctx context.Context) (done func(), err error) {
	select {
	case m.votersTurn <- struct{}{}:
		return func() { <-m.votersTurn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

type votersDone struct{}

func (m *member) voterMembers(view *state.State, servers []consensus.Server) []consensus.Member {
	var out []consensus.Member
	followers, last, now := m.raft.Followers(), m.raft.Stats().LastIndex, m.clock.Now()
	repo := repositoryServer(view.Definition)
	for _, s := range servers {
		name := nodeOfServer(s.ID)
		if isRepository(s.ID) {
			if s.ID == repo || repo == "" {
				alive := repo != "" && m.repositoryAlive(s.ID)
				out = append(out, consensus.Member{ID: s.ID, Voter: s.Voter, Repository: true, Alive: alive, CaughtUp: alive && m.caughtUp(s.ID)})
			}
			continue
		}
		n := view.Node(name)
		rank := len(view.Definition.Nodes)
		for i := range view.Definition.Nodes {
			if view.Definition.Nodes[i].Name == name {
				rank = i
			}
		}
		// A newcomer that has not introduced itself yet is alive if it takes the log.
		f, self := followers[s.ID], s.ID == m.id.RaftID
		fresh := f.Contact != 0 && now.Sub(f.Contact) < time.Second
		out = append(out, consensus.Member{ID: s.ID, Voter: s.Voter, Leader: self, Rank: rank, Dead: n != nil && n.Dead != nil && !fresh,
			Alive: self || n.Alive() || fresh, CaughtUp: self || fresh && f.LastIndex+16 >= last})
	}
	return out
}

// The term confirmation on the wire.

func (m *member) askConfirm(ctx context.Context, voter string, req consensus.ConfirmRequest) (consensus.ConfirmReply, error) {
	var r consensus.ConfirmReply
	b, err := json.Marshal(req)
	if err != nil {
		return r, err
	}
	out, err := m.links.Call(ctx, nodeOfServer(voter), rpcConfirm, b)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func (m *member) serveConfirm(_ context.Context, from string, body []byte) ([]byte, error) {
	var req consensus.ConfirmRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errors.New("the confirmation request cannot be read")
	}
	if !m.hasAsked(from) {
		return nil, errors.New("node " + from + " was not asked yet what the log knows of this node's store")
	}
	if m.raft == nil {
		return nil, errors.New("the log is not open yet")
	}
	return json.Marshal(m.raft.Confirm(req))
}
