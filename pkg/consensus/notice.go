package consensus

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// notices tells the followers at once what was committed. Raft itself tells them with the next entry or, when there is none,
// after CommitTimeout; a small CommitTimeout costs CPU on every server for ever, and an empty entry after each real one costs
// two synchronous writes on every disk.
//
// A notice is an ordinary AppendEntries without entries, as raft's own leader sends them, saying only what stays true for
// ever: the entry (index, term) is in this leader's log and committed. So it may be late, lost or repeated. A follower that
// does not have the entry yet refuses it and is told again; if that fails too, CommitTimeout is what it was before.
type notices struct {
	lead *Lead

	mu    sync.Mutex
	index uint64
	peers map[string]chan struct{}
}

// signal wakes the senders, one per follower. It does not block.
func (x *notices) signal(index uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.index = max(x.index, index)
	n := x.lead.node
	for _, s := range n.Configuration() {
		if s.ID == n.cfg.ID {
			continue
		}
		wake, ok := x.peers[s.ID]
		if !ok {
			if x.peers == nil {
				x.peers = map[string]chan struct{}{}
			}
			wake = make(chan struct{}, 1)
			x.peers[s.ID] = wake
			n.spawn(func() { x.serve(s.ID, wake) })
		}
		select {
		case wake <- struct{}{}:
		default: // the sender will read the newest index anyway
		}
	}
}

func (x *notices) serve(peer string, wake <-chan struct{}) {
	for {
		select {
		case <-wake:
			x.tell(x.lead.Ctx, peer)
		case <-x.lead.Ctx.Done():
			return
		}
	}
}

const (
	noticeAttempts = 6
	noticePause    = 2 * time.Millisecond // doubles
)

// tell sends the newest index, again if the follower does not have that entry yet.
func (x *notices) tell(ctx context.Context, peer string) {
	n := x.lead.node
	wait := noticePause
	for range noticeAttempts {
		// A peer that is away would hold the sender for a dial's timeout each time.
		seen := n.trans.follower(peer).Contact
		if seen == 0 || n.now().Sub(seen) > n.cfg.Params.RaftHeartbeat {
			return
		}
		req := x.message()
		var resp raft.AppendEntriesResponse
		n.noticesSent.Add(1)
		err := n.trans.send(raft.ServerID(peer), raft.ServerAddress(peer), req, &resp)
		if err != nil || resp.Success || resp.Term > req.Term {
			return
		}
		n.noticesRefused.Add(1)
		if !pause(ctx, wait) {
			return
		}
		wait *= 2
	}
}

func (x *notices) message() *raft.AppendEntriesRequest {
	x.mu.Lock()
	index := x.index
	x.mu.Unlock()
	self := []byte(x.lead.node.cfg.ID)
	return &raft.AppendEntriesRequest{
		RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self},
		Term:              x.lead.Term,
		Leader:            self, //nolint:staticcheck // servers of raft 1.3 and older read no other field
		PrevLogEntry:      index,
		PrevLogTerm:       x.lead.Term,
		LeaderCommitIndex: index,
	}
}

// A Server is one member of the log's configuration.
type Server struct {
	ID    string
	Voter bool
}

// Configuration is the latest configuration that this server knows, committed or not, sorted by id.
func (n *Node) Configuration() []Server {
	c := n.raft.Load().GetConfiguration().Configuration()
	out := make([]Server, 0, len(c.Servers))
	for _, s := range c.Servers {
		out = append(out, Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(out, func(a, b Server) int { return compare(a.ID, b.ID) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// voters lists the ids of those that vote.
func voters(servers []Server) []string {
	var out []string
	for _, s := range servers {
		if s.Voter {
			out = append(out, s.ID)
		}
	}
	return out
}

// Voter reports whether this server votes in the latest configuration that it knows.
func (n *Node) Voter() bool {
	r := n.raft.Load()
	return r != nil && votesIn(r.GetConfiguration().Configuration(), n.cfg.ID)
}
