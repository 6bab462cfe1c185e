package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// No voter with amnesia (attack A10). A store that was put back from an image has forgotten votes and acknowledgements. Each start
// draws a new value, which goes into the store's record first and then into the log; so a store whose value is older than the log's
// is a copy, and its server must not take part. Every other member, and the repository voter, is asked what its log says of this server.
// There are three answers:
//
//   - a value: the newest in its state, or in the part of its log that it has not applied, committed or not;
//   - none: it has read its log to the end, and there is none;
//   - not yet: it has not opened its log. That is no answer; it is asked again.
//
// No message of the log is read or sent, and no round confirmed, before each other member has answered with one of the first two, or
// could not be reached for as long as an election takes to begin, or did not answer within rememberOne; one that leads knows all that is committed, and is enough. So a copy is not
// taken in because it met the one member first that knows as little as itself. Nobody waits for another's log to be up to date: what counts is what lies in it, so
// after a power cut of all nodes each can answer as soon as its log is open.
//
// What this does not find: a copy that was made and put back within one and the same start; a copy whose newer values lie with no member
// that can be reached. The record's place (consensus.Identity) finds most of those, and a copy of a whole machine remains an assumption.

// isLost reports whether the store is known to be a copy.
func (y *memory) isLost() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.lost != nil
}

// memory is what this member's store remembers of its starts.
type memory struct {
	mu       sync.Mutex
	id       *consensus.Identity // nil: a new store, which has promised nothing
	boot     consensus.Boot      // of this start
	accepted bool                // it was seen in the log
	asked    map[string]bool     // members that have told what they know
	lost     error               // the store is a copy
	cleared  chan struct{}       // closed when all who can be asked were
}

// Times of the question.
const (
	rememberAtStart = 200 * time.Millisecond // for all, before the log is opened: an agent must be back before its lease runs out
	rememberOne     = time.Second
	rememberAgain   = 20 * time.Millisecond // before one that cannot say yet is asked again
)

type rememberRequest struct {
	Server string `json:"server"`
}

type rememberReply struct {
	Boot    string `json:"boot,omitempty"` // as bootValue makes it; empty: none is known
	Leading bool   `json:"leading,omitempty"`
	// NotYet says that the log is not open yet. An older daemon never says so.
	NotYet bool `json:"not_yet,omitempty"`
}

var errNotYet = errors.New("its log is not open yet")

// bootValue is a start of a server in the log. The server's id stands in it, because a node that rejoins begins anew.
func bootValue(server string, b consensus.Boot) string {
	return server + " " + strconv.FormatUint(b.Number, 10) + " " + b.Random
}

// loggedBoot reads bootValue. The zero Boot: the value is of another server, or there is none.
func loggedBoot(server, value string) (consensus.Boot, error) {
	f := strings.Fields(value)
	if value == "" || len(f) == 3 && f[0] != server {
		return consensus.Boot{}, nil
	}
	if len(f) != 3 {
		return consensus.Boot{}, fmt.Errorf("the boot %q of server %s cannot be read", value, server)
	}
	n, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return consensus.Boot{}, fmt.Errorf("the boot %q of server %s cannot be read", value, server)
	}
	return consensus.Boot{Number: n, Random: f[2]}, nil
}

// loadMemory reads the store's record before the store is opened.
func (m *member) loadMemory() error {
	m.memory.asked, m.memory.cleared = map[string]bool{}, make(chan struct{})
	id, err := consensus.LoadIdentity(m.raftDir())
	switch {
	case errors.Is(err, consensus.ErrNoIdentity):
		return nil // opening the store says whether it must have one
	case err != nil:
		return err
	}
	m.memory.id = id
	return nil
}

func (m *member) raftDir() string { return filepath.Join(m.opt.Node.StateDir, "raft") }

// askMemories asks the other members, all at once, before the log is opened. It returns after a short time: an agent must be back before
// its lease runs out. The questions go on, and nothing of the log is said before they are answered (mayTalk).
func (m *member) askMemories() error {
	if m.memory.id == nil {
		close(m.memory.cleared)
		return nil
	}
	others := slices.DeleteFunc(sortedKeys(*m.friends.Load()), func(n string) bool { return n == m.name })
	if k := m.repo.known.Load(); k != nil && k.Volume != nil {
		others = append(others, repositoryPrefix+k.Volume.UUID)
	}
	answers := make(chan bool, len(others)) // each says whether it was a leader's
	for _, node := range others {
		m.work.Go(func() { answers <- m.askUntilKnown(node) })
	}
	m.work.Go(func() {
		defer close(m.memory.cleared)
		for range others {
			if <-answers {
				return
			}
		}
	})
	select {
	case <-m.memory.cleared:
	case <-after(rememberAtStart):
	}
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	return m.memory.lost
}

// askUntilKnown asks one member until it knows or cannot be asked. One that cannot be reached is tried for as long as nobody could begin
// an election anyway: after a power cut of all it is back a moment later.
func (m *member) askUntilKnown(node string) (leads bool) {
	begun, patience := time.Now(), rememberAtStart+m.params().RaftHeartbeat
	for {
		ctx, cancel := context.WithTimeout(context.Background(), rememberOne)
		leads, err := m.askMemory(ctx, node)
		cancel()
		switch {
		case err == nil:
			return leads
		case errors.Is(err, peer.ErrClosed) || m.memory.isLost():
			return false
		case !errors.Is(err, errNotYet) && time.Since(begun) >= patience:
			m.log.Debug("a member could not be asked what the log knows of this store; it is asked before it is talked to", "member", node, "error", err)
			return false
		}
		<-after(rememberAgain)
	}
}

// beginMemory draws the value of this start, once the log is open.
func (m *member) beginMemory() error {
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	fresh := m.memory.id == nil
	id := m.raft.Identity()
	boot, err := id.Propose()
	if err != nil {
		return err
	}
	m.memory.boot = boot
	if !fresh {
		m.memory.id = id
	}
	return nil
}

// askMemory asks one member. nil: it has answered, now or before, and what it knows is no reason to stay away.
func (m *member) askMemory(ctx context.Context, node string) (leads bool, err error) {
	m.memory.mu.Lock()
	done, lost := m.memory.id == nil || m.memory.asked[node], m.memory.lost
	m.memory.mu.Unlock()
	if lost != nil || done {
		return false, lost
	}
	body, err := json.Marshal(rememberRequest{Server: m.id.RaftID})
	if err != nil {
		return false, err
	}
	var r rememberReply
	out, err := m.links.Call(ctx, node, rpcRemember, body)
	if other, ok := errors.AsType[*peer.EpochError](err); ok && other.Epoch < other.Own {
		return false, nil // it was left behind by a forced configuration: it has no say, and no connection to this node
	} else if ok {
		return false, outdated{Epoch: other.Epoch, Own: other.Own, Node: node}
	}
	if errors.Is(err, peer.ErrUnknownMethod) { // of an older version, or just beginning: it knows nothing that could be held against us
		m.log.Warn("a member cannot tell what the log knows of this store", "member", node, "error", err)
	} else if err != nil {
		return false, fmt.Errorf("ask node %s what the log knows of this store: %w", node, err)
	} else if err := json.Unmarshal(out, &r); err != nil {
		return false, fmt.Errorf("the answer of node %s about this store cannot be read", node)
	}
	if r.NotYet {
		return false, fmt.Errorf("node %s: %w", node, errNotYet)
	}
	logged, err := loggedBoot(m.id.RaftID, r.Boot)
	if err != nil {
		return false, fmt.Errorf("node %s: %w", node, err)
	}
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	if err := m.memory.id.Matches(logged); err != nil {
		m.memory.lost = fmt.Errorf("node %s remembers more of this node than its own disk: %w", node, err)
		m.a.fail(m.memory.lost)
		return false, m.memory.lost
	}
	m.memory.asked[node] = true
	return r.Leading, nil
}

// mayTalk is asked before a message of the log is exchanged with a member.
func (m *member) mayTalk(node string) error {
	ctx, cancel := context.WithTimeout(context.Background(), rememberOne)
	defer cancel()
	select {
	case <-m.memory.cleared:
	case <-ctx.Done():
		return errors.New("other members have not said yet what the log knows of this store")
	}
	_, err := m.askMemory(ctx, node)
	return err
}

// hasAsked is mayTalk for who cannot wait; the question is asked beside it.
func (m *member) hasAsked(node string) bool {
	select {
	case <-m.memory.cleared:
	default:
		return false
	}
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	return m.memory.lost == nil && (m.memory.id == nil || m.memory.asked[node])
}

func (m *member) serveRemember(_ context.Context, from string, body []byte) ([]byte, error) {
	if !m.answers.Load() {
		return json.Marshal(rememberReply{NotYet: true})
	}
	led := m.leading()
	return answerMemory(from, body, m.view(), m.raft.Unapplied, led != nil && led.ready())
}

// answerMemory says what a log knows of a server's starts: in its state, and in the part that is not applied.
func answerMemory(from string, body []byte, view *state.State, unapplied func(func([]byte)) error, leads bool) ([]byte, error) {
	var req rememberRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errors.New("the question cannot be read")
	}
	r := rememberReply{Leading: leads}
	if n := view.Node(from); n != nil {
		r.Boot = n.Random
	}
	newest, err := loggedBoot(req.Server, r.Boot)
	if err != nil {
		return nil, err
	}
	err = unapplied(func(data []byte) {
		c, err := state.DecodeCommand(data)
		if err != nil || c.BootRandom == nil || c.BootRandom.Node != from {
			return
		}
		if b, err := loggedBoot(req.Server, c.BootRandom.Value); err == nil && b.Number > newest.Number {
			newest, r.Boot = b, c.BootRandom.Value
		}
	})
	if err != nil { // the log was cut while it was read
		r = rememberReply{NotYet: true}
	}
	return json.Marshal(r)
}

// tendMemory brings this start's value into the log, and notes when it is there.
func (m *member) tendMemory(view *state.State) {
	n := view.Node(m.name)
	if n == nil || m.loop.node.incarnation == 0 {
		return
	}
	m.memory.mu.Lock()
	boot, accepted := m.memory.boot, m.memory.accepted
	value := bootValue(m.id.RaftID, boot)
	m.memory.accepted = accepted || n.Random == value
	m.memory.mu.Unlock()
	switch {
	case n.Random != value:
		m.once("random", &state.Command{BootRandom: &state.BootRandom{Node: m.name, Value: value}})
	case !accepted:
		m.work.Go(func() {
			// Outside the lock, which the loop takes too: this waits for the disk.
			if err := m.raft.Identity().Accept(boot); err != nil {
				m.log.Warn("this start of the store could not be noted as known to the log", "error", err) // the proposed value does as well
			}
		})
	}
}

// askedListener holds each connection of the log back until its member was asked.
type askedListener struct {
	net.Listener
	m *member
}

func (l askedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	node := peer.PeerOf(c)
	return &askedConn{Conn: c, ask: sync.OnceValue(func() error { return l.m.mayTalk(node) })}, nil
}

type askedConn struct {
	net.Conn
	ask func() error
}

func (c *askedConn) Read(b []byte) (int, error) {
	if err := c.ask(); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	return c.Conn.Read(b)
}
