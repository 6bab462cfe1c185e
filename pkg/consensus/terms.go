package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A ConfirmRequest asks a voter whether the leader's term is still the newest that the voter has taken part in.
type ConfirmRequest struct {
	ClusterID string `json:"cluster_id"`
	Term      uint64 `json:"term"`
	Leader    string `json:"leader"` // server id
	Round     uint64 `json:"round"`  // the answer carries it back: an answer to an earlier round must not count in a later one
}

// ConfirmReply encodes a voter's answer. It counts if cluster, server and round are the asked ones and Term is the leader's.
type ConfirmReply struct {
	ServerID  string `json:"server_id"`
	ClusterID string `json:"cluster_id"`
	Round     uint64 `json:"round"`
	// Term is the highest of the voter's current term and the term of its last vote. 0: the voter does not take part.
	Term uint64 `json:"term"`
	// Age is how long ago, at most, the voter last confirmed a term older than the asker's; conservative for a reader with
	// another clock (lease.Confirmations).
	Age time.Duration `json:"age"`
}

// terms is what a voter knows about terms, under one lock: the highest that it has taken part in, what it confirmed, and the
// lead that ends when a newer term is seen.
//
// Raft keeps its current term in memory and its vote on disk, and its handler of heartbeats sets the one beside the main
// loop, so that a voter can have voted in a newer term than it shows (attack A11). Here both are noted on their way to the
// disk, before they are written, and the number only grows.
type terms struct {
	server, cluster string
	clock           lease.Clock

	mu        sync.Mutex
	top       uint64
	confirmed *lease.Confirmations
	lead      *Lead
	closed    bool
}

func newTerms(server, cluster string, clock lease.Clock) *terms {
	return &terms{server: server, cluster: cluster, clock: clock, confirmed: lease.NewConfirmations(clock.Now())}
}

// note takes a term that is about to be written, and ends a lead of an older one.
func (t *terms) note(term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.top = max(t.top, term)
	if t.lead != nil && t.lead.Term < t.top {
		t.lead.cancel(ErrLost)
		t.lead = nil
	}
}

// highest is the highest term noted.
func (t *terms) highest() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.top
}

// votes notes that a configuration in which this server votes was stored. What other voters confirmed before this one
// joined them is unknown here, so the record begins anew; doing so for a server that voted before only makes it younger
// than need be.
func (t *terms) votes() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirmed.Restart(t.clock.Now())
}

// onConfiguration tells votes of each configuration that is about to be stored and in which the server votes.
func (t *terms) onConfiguration(id string) func(raft.Configuration) {
	return func(c raft.Configuration) {
		if votesIn(c, id) {
			t.votes()
		}
	}
}

// install makes the lead the current one, unless its term is already over.
func (t *terms) install(l *Lead) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.top != l.Term || l.Ctx.Err() != nil {
		return false
	}
	t.lead = l
	return true
}

// confirm answers a request. Note and answer are one step under the lock that also takes new terms: an answer with the
// asked term is always noted before any newer term.
func (t *terms) confirm(req ConfirmRequest) ConfirmReply {
	reply := ConfirmReply{ServerID: t.server, ClusterID: t.cluster, Round: req.Round}
	if req.ClusterID != t.cluster {
		return reply
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return reply
	}
	now := t.clock.Now()
	if req.Term == t.top { // any other term is not confirmed by this answer, and must not make the record younger
		t.confirmed.Confirm(req.Term, now)
	}
	reply.Term = t.top
	reply.Age = t.confirmed.Age(req.Term, now)
	return reply
}

// close stops all answers and ends the lead.
func (t *terms) close(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.lead != nil {
		t.lead.cancel(cause)
		t.lead = nil
	}
}
