package lease

import "time"

// A Nonce is drawn by a deadman for each request; only the grant that carries it back is taken.
type Nonce [16]byte

// A Request asks the leader for a grant. Nonce comes from the deadman, which has read t_req on its own clock; the rest is
// the agent's. It carries no time: the leader needs none.
type Request struct {
	Nonce       Nonce  `json:"nonce"`
	Node        string `json:"node"`
	BootID      string `json:"boot_id"`
	Incarnation uint64 `json:"incarnation"`      // as the log numbered this boot; 0 if the node does not know yet
	Applied     uint64 `json:"applied"`          // the node's own applied index, for monitoring
	Urgent      bool   `json:"urgent,omitempty"` // out of turn: somebody waits for it
}

// A Grant lets a node's deadman pet once, and lists all that the incarnation may hold.
type Grant struct {
	Nonce       Nonce   `json:"nonce"`
	Node        string  `json:"node"`
	Incarnation uint64  `json:"incarnation"`
	Leader      string  `json:"leader"`
	Term        uint64  `json:"term"`
	Applied     uint64  `json:"applied"` // the leader's applied index: the list is what the log said then
	LeaderBoot  string  `json:"leader_boot"`
	LeaderTime  Instant `json:"leader_time"` // the leader's clock: two of one boot show a pause of ours
	Hold        []Held  `json:"hold,omitempty"`
	// Isolated says that the grant came by the repository volume, to a node that the networks do not reach: all that is listed may
	// only be stopped, and what the node itself knows to be held must be, whether it has applied what the list rests on or not.
	Isolated bool `json:"isolated,omitempty"`
	// Next is when the node had best ask again, from now: so all requests come to the leader at once, and one round serves
	// them. A hint, on which nothing rests; 0: none.
	Next time.Duration `json:"next,omitempty"`
}

// Held is one group that a grant allows.
type Held struct {
	Group      string `json:"group"`
	Generation uint64 `json:"generation"`
	Releasing  bool   `json:"releasing,omitempty"` // may only be stopped
}

// Newer reports whether g says more than o about what may be held: by (term, applied index), never by the time of the
// request (attack A1).
func (g *Grant) Newer(o *Grant) bool {
	if o == nil || g.Term != o.Term {
		return o == nil || g.Term > o.Term
	}
	return g.Applied >= o.Applied
}

// Lists reports whether the grant allows the group at that generation, and whether only to stop it.
func (g *Grant) Lists(group string, generation uint64) (ok, releasing bool) {
	if g == nil {
		return false, false
	}
	for _, h := range g.Hold {
		if h.Group == group && h.Generation == generation {
			return true, h.Releasing
		}
	}
	return false, false
}
