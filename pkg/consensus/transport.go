package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// streams makes raft's stream layer of the caller's Dial and Listener. Addresses are server ids, constant for ever: raft
// compares votes by address, so two servers behind one address could both be granted a vote in one term.
type streams struct {
	net.Listener
	id   string
	dial func(ctx context.Context, serverID string) (net.Conn, error)

	mu     sync.Mutex
	open   map[*stream]struct{}
	closed bool
}

type logicalAddr string

func (a logicalAddr) Network() string { return "holdfast" }
func (a logicalAddr) String() string  { return string(a) }

// Addr is the constant logical address of this server.
func (s *streams) Addr() net.Addr { return logicalAddr(s.id) }

func (s *streams) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.dial(ctx, string(address))
	if err != nil {
		return nil, fmt.Errorf("connect to server %s: %w", address, err)
	}
	return s.track(c)
}

// track remembers the stream: raft's transport leaves its streams open when it is closed.
func (s *streams) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	st := &stream{Conn: c, of: s}
	s.open[st] = struct{}{}
	return st, nil
}

func (s *streams) Close() error {
	s.mu.Lock()
	s.closed = true
	var open []*stream
	for st := range s.open {
		open = append(open, st)
	}
	s.mu.Unlock()
	for _, st := range open {
		_ = st.Close()
	}
	return s.Listener.Close()
}

type stream struct {
	net.Conn
	of *streams
}

func (s *stream) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

// transport is raft's network transport with four additions: a way to put a message of our own into our own raft (Hurry), a
// narrower fast path for heartbeats, notices of commit, and a book of what the followers' answers say.
//
// It embeds the concrete type, so that no optional interface is lost; a wrapper that embeds raft.Transport would silently
// turn pre-votes off.
type transport struct {
	*raft.NetworkTransport
	rpcs   chan raft.RPC
	done   chan struct{}
	close1 sync.Once
	wg     sync.WaitGroup
	clock  lease.Clock
	// steady reports whether this server follows in that term, so that a heartbeat of it changes nothing.
	steady func(term uint64) bool
	voter  func() bool
	gate   *gate // of the repository voter; nil for a node
	// leads reports whether this server leads in that term; nil until the server is open.
	leads func(term uint64) bool

	mu    sync.Mutex
	peers map[string]Follower
	away  map[string]chan struct{} // closed when the follower is heard of again
	pipes map[*pipeline]struct{}
	over  bool // the server is being closed: no more pipelines
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func newTransport(cfg Config, steady func(uint64) bool, voter func() bool, gate *gate) *transport {
	layer := &streams{Listener: cfg.Listener, id: cfg.ID, dial: cfg.Dial, open: map[*stream]struct{}{}}
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: layer, MaxPool: transportPool, Timeout: transportTimeout, Logger: newRaftLogger(cfg.Logger),
		}),
		rpcs: make(chan raft.RPC), done: make(chan struct{}), clock: cfg.Clock, steady: steady, voter: voter, gate: gate,
		peers: map[string]Follower{}, away: map[string]chan struct{}{}, pipes: map[*pipeline]struct{}{},
	}
	t.wg.Go(t.forward)
	return t
}

// Consumer is where raft takes its messages from.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// forward hands the network's messages on. A server that does not vote must not be told to stand: raft does not check.
func (t *transport) forward() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if t.gate != nil {
				rpc = t.gate.hold(rpc, t.done, &t.wg)
			}
			if _, stand := rpc.Command.(*raft.TimeoutNowRequest); stand && !t.voter() {
				rpc.Respond(&raft.TimeoutNowResponse{}, errors.New("this server does not vote"))
				continue
			}
			t.put(rpc, nil)
		case <-t.done:
			return
		}
	}
}

// put gives raft's main loop a message, unless the transport or the caller ends first.
func (t *transport) put(rpc raft.RPC, giveUp <-chan time.Time) bool {
	select {
	case t.rpcs <- rpc:
		return true
	case <-giveUp:
	case <-t.done:
	}
	return false
}

// SetHeartbeatHandler lets only those heartbeats pass the main loop by that change nothing there. Raft's own handler runs
// beside the main loop, and may set a term back that the main loop has just voted in (attack A11). The repository voter has no
// fast path at all: there is one way in, and its answers pass the gate (attack A13).
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	if t.gate != nil {
		return
	}
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && t.steady(req.Term) {
			handle(rpc)
			return
		}
		if !t.put(rpc, nil) {
			rpc.Respond(nil, raft.ErrTransportShutdown)
		}
	})
}

// AppendEntries sends a heartbeat or entries, and notes what the answer says about the follower.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	err := t.send(id, to, req, resp)
	if err != nil && !heartbeat(req) {
		t.awaitContact(string(id), req.Term)
	}
	return err
}

// send is AppendEntries, for once.
func (t *transport) send(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	if err := t.NetworkTransport.AppendEntries(id, to, req, resp); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[string(id)] = Follower{Contact: t.clock.Now(), LastIndex: resp.LastLog}
	if back, ok := t.away[string(id)]; ok {
		close(back)
		delete(t.away, string(id))
	}
	return nil
}

// heartbeat reports whether the message is one of raft's heartbeats, which carry nothing.
func heartbeat(req *raft.AppendEntriesRequest) bool {
	return len(req.Entries) == 0 && req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0
}

// awaitContact holds the replication to a follower that cannot be reached until a heartbeat gets through again, or the term is
// over. Raft itself waits twice as long after each failed attempt, up to many seconds: a node that came back would get the log
// that late. Heartbeats have a retry of their own, at most half a heartbeat timeout.
func (t *transport) awaitContact(id string, term uint64) {
	if t.leads == nil {
		return
	}
	t.mu.Lock()
	back, ok := t.away[id]
	if !ok {
		back = make(chan struct{})
		t.away[id] = back
	}
	t.mu.Unlock()
	if !t.leads(term) { // looked at after the channel is there: who ends the term closes it
		return
	}
	select {
	case <-back:
	case <-t.done:
	}
}

// A pipeline is raft's, which we can close under raft's hands. A leader that is deposed by an answer in the pipeline stops reading
// answers while its sender may sit in the full pipeline: raft v1.8.0 never gets that sender out, and its shutdown waits for it.
type pipeline struct {
	raft.AppendPipeline
	of *transport
}

// AppendEntriesPipeline opens a pipeline to a follower.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, of: t}
	t.mu.Lock()
	over := t.over
	t.pipes[p] = struct{}{}
	t.mu.Unlock()
	if over {
		return nil, errors.Join(raft.ErrTransportShutdown, p.Close())
	}
	return p, nil
}

func (p *pipeline) Close() error {
	p.of.mu.Lock()
	delete(p.of.pipes, p)
	p.of.mu.Unlock()
	return p.AppendPipeline.Close()
}

// end is forget for good.
func (t *transport) end() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.forget()
}

// forget drops what older terms learnt, and lets go who waits for a follower of theirs: for its return, or in its pipeline.
// A pipeline of the new term that is hit too is opened again by raft.
func (t *transport) forget() {
	t.mu.Lock()
	pipes := t.pipes
	t.pipes = map[*pipeline]struct{}{}
	clear(t.peers)
	for id, back := range t.away {
		close(back)
		delete(t.away, id)
	}
	t.mu.Unlock()
	for p := range pipes {
		_ = p.AppendPipeline.Close() // who uses it sees that it is closed
	}
}

// hurry makes raft stand for election now.
func (t *transport) hurry(timeout time.Duration) error {
	answer := make(chan raft.RPCResponse, 1)
	giveUp := time.NewTimer(timeout)
	defer giveUp.Stop()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	if !t.put(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: answer}, giveUp.C) {
		return ErrBusy
	}
	return nil
}

func (t *transport) Close() error {
	err := t.NetworkTransport.Close()
	t.close1.Do(func() { close(t.done) })
	t.wg.Wait()
	return err
}

// A Follower is what its last answer told about a server that this server leads.
type Follower struct {
	Contact   lease.Instant // when the answer came; 0: never
	LastIndex uint64        // the last entry of its log; entries of an older term that differ from ours are counted too
}

func (t *transport) followers() map[string]Follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]Follower, len(t.peers))
	maps.Copy(out, t.peers)
	return out
}

func (t *transport) follower(id string) Follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[id]
}
