package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A boot is introduced to the log before the node is granted anything. The handshake has two steps: hello gets a nonce of
// the leader and the newest definition; the node probes every exclusive resource that the definition could give it, and
// stops what it finds; then it sends the proof under that nonce. So a proof that was made for an earlier question, or by an
// earlier boot, is never taken (attack A6).

// bootKey names one incarnation of this node as far as the node itself knows: the boot, and the life within it.
func bootKey(bootID, life string) string { return bootID + "/" + life }

func (m *member) bootKey() string { return bootKey(m.bootID, m.life.Load().(string)) }

// incarnation is the number under which the log knows this boot, 0 while it does not.
func (m *member) incarnation(view *state.State) uint64 {
	n := view.Node(m.name)
	if n == nil || bootKey(n.BootID, n.Life) != m.bootKey() {
		return 0
	}
	return n.Incarnation
}

type helloRequest struct {
	BootID string `json:"boot_id"`
	Life   string `json:"life"`
}

type helloReply struct {
	Leader      string              `json:"leader,omitempty"` // another node leads; "?" none known
	Nonce       string              `json:"nonce,omitempty"`
	Replaces    uint64              `json:"replaces"`
	Known       bool                `json:"known,omitempty"` // the log already knows this boot and life
	Definition  *cluster.Definition `json:"definition,omitempty"`
	Generations map[string]uint64   `json:"generations,omitempty"` // newest of each group, for the tombstones
}

type bootRequest struct {
	Nonce      string `json:"nonce"`
	BootID     string `json:"boot_id"`
	Life       string `json:"life"`
	Replaces   uint64 `json:"replaces"`
	AllStopped bool   `json:"all_stopped"`
	Version    string `json:"version"`
	formerEnd
	// Format is the newest that this daemon understands; 0, of daemons that do not say it: the first.
	Format int `json:"format,omitempty"`
}

type bootReply struct {
	Leader  string `json:"leader,omitempty"`
	Refused string `json:"refused,omitempty"`
}

func (m *member) serveHello(_ context.Context, from string, body []byte) ([]byte, error) {
	var req helloRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errors.New("the hello cannot be read")
	}
	return json.Marshal(m.hello(from, req))
}

func (m *member) hello(from string, req helloRequest) helloReply {
	led := m.leading()
	if led == nil {
		return helloReply{Leader: m.otherLeader()}
	}
	if !led.ready() {
		return helloReply{Leader: "?"}
	}
	m.heard(from, detector.PathPeer)
	view := m.view()
	n := view.Node(from)
	r := helloReply{Definition: view.Definition, Generations: map[string]uint64{}}
	for name, g := range view.Groups {
		r.Generations[name] = g.Generation
	}
	if n != nil {
		r.Replaces = n.Incarnation
		r.Known = n.Incarnation > 0 && n.BootID == req.BootID && n.Life == req.Life
	}
	if !r.Known && m.comesBack(led, view, from, req) {
		return helloReply{Leader: "?"} // a shot at its predecessor is being called off: it asks again
	}
	r.Nonce = newNonce()
	led.mu.Lock()
	led.nonces[from] = r.Nonce // an older one is void from now on
	led.mu.Unlock()
	return r
}

func (m *member) serveBoot(ctx context.Context, from string, body []byte) ([]byte, error) {
	var req bootRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errors.New("the boot message cannot be read")
	}
	return json.Marshal(m.boot(ctx, from, req))
}

func (m *member) boot(ctx context.Context, from string, req bootRequest) bootReply {
	led := m.leading()
	if led == nil {
		return bootReply{Leader: m.otherLeader()}
	}
	led.mu.Lock()
	ok := req.Nonce != "" && led.nonces[from] == req.Nonce
	delete(led.nonces, from)
	led.mu.Unlock()
	if !ok {
		return bootReply{Refused: "the boot message answers no current question of the leader"}
	}
	// A boot message is as good a sign of life as a lease request: the new incarnation must not inherit the old one's silence.
	m.heard(from, detector.PathLease)
	r, err := m.commit(ctx, &state.Command{Term: led.term, By: from, NodeBoot: &state.NodeBoot{Node: from, BootID: req.BootID, Life: req.Life,
		Replaces: req.Replaces, AllStopped: req.AllStopped, Reset: countedReset(m.view().Node(from), req), Format: max(req.Format, 1),
		Version: req.Version}})
	switch {
	case err != nil:
		return bootReply{Leader: "?"}
	case r.Refused != "":
		return bootReply{Refused: r.Refused}
	}
	return bootReply{}
}

// introduce makes the log know this boot. It runs as work of its own and reports to the loop; it is repeated until it
// succeeds. stopAll stops what the definition could give this node and says whether all of it was seen stopped.
func (m *member) introduce(ctx context.Context, former formerEnd, stopAll func(context.Context, *cluster.Definition, map[string]uint64) bool) error {
	hello := helloRequest{BootID: m.bootID, Life: m.life.Load().(string)}
	var h helloReply
	node, err := m.callLeader(ctx, rpcHello, hello, &h, func() any { return m.hello(m.name, hello) })
	if err != nil {
		return err
	}
	if h.Leader != "" {
		return errNoLeader
	}
	if h.Known {
		return nil
	}
	if h.Definition == nil {
		return errors.New("the cluster has no definition yet")
	}
	stopped := stopAll(ctx, h.Definition, h.Generations)
	req := bootRequest{Nonce: h.Nonce, BootID: hello.BootID, Life: hello.Life, Replaces: h.Replaces, AllStopped: stopped, Version: m.opt.Version, Format: state.Format}
	req.formerEnd = former
	var b bootReply
	if _, err := m.callNode(ctx, node, rpcBoot, req, &b, func() any { return m.boot(ctx, m.name, req) }); err != nil {
		return err
	}
	if b.Leader != "" {
		return errNoLeader
	}
	if b.Refused != "" {
		return refusal(b.Refused)
	}
	return nil
}

var errNoLeader = errors.New("no leader is known")

// refusal is a normal "no" of the cluster, with its sentence.
type refusal string

func (r refusal) Error() string { return string(r) }

// callLeader calls the current leader, or itself when this node leads. It returns whom it asked.
func (m *member) callLeader(ctx context.Context, method string, req, out any, local func() any) (string, error) {
	node := m.leaderNode()
	if node == "" {
		return "", errNoLeader
	}
	return m.callNode(ctx, node, method, req, out, local)
}

func (m *member) callNode(ctx context.Context, node, method string, req, out any, local func() any) (string, error) {
	if node == m.name {
		b, err := json.Marshal(local())
		if err != nil {
			return node, err
		}
		return node, json.Unmarshal(b, out)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return node, err
	}
	reply, err := m.links.Call(ctx, node, method, body)
	if err != nil {
		return node, fmt.Errorf("ask the leader, node %s: %w", node, err)
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return node, fmt.Errorf("read the answer of node %s: %w", node, err)
	}
	return node, nil
}

// otherLeader is the leader as far as this node knows, "?" if it knows none or itself.
func (m *member) otherLeader() string {
	if node := m.leaderNode(); node != "" && node != m.name {
		return node
	}
	return "?"
}

// leaderNode is the node that leads as far as this one knows, "" if none does. The repository voter leads nobody: it is handing over.
func (m *member) leaderNode() string {
	leader, _ := m.raft.Leader()
	if isRepository(leader) {
		return ""
	}
	return nodeOfServer(leader)
}

// nodeOfServer is the node's name in a raft server id, as identity.NewRaftID makes them. A repository voter is called by its server id.
func nodeOfServer(id string) string {
	if isRepository(id) {
		return id
	}
	if i := strings.LastIndexByte(id, '-'); i > 0 {
		return id[:i]
	}
	return id
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
