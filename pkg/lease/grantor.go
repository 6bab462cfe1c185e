package lease

import (
	"slices"
	"time"
)

// A Grantor is the leader's book for one term of its leadership: when it last granted what, when its term's first entry was
// committed, and what the voters told of older terms. It answers the one question that frees resources by time. It is not
// safe for concurrent use: the caller holds one lock over Grant, Doom and the making of a proof (attack A9).
type Grantor struct {
	term        uint64
	firstCommit Instant
	granted     map[Subject]Instant
	doomed      map[Subject]bool
	heard       map[string]Instant // voter -> latest moment at which it can have confirmed an older term, on our clock
	voters      []string
}

// A Subject is one boot of one node, as the log numbers it.
type Subject struct {
	Node        string
	Incarnation uint64
}

// NewGrantor opens the book of a term.
func NewGrantor(term uint64) *Grantor {
	return &Grantor{term: term, granted: map[Subject]Instant{}, doomed: map[Subject]bool{}, heard: map[string]Instant{}}
}

// Term is the term that the book was opened for.
func (g *Grantor) Term() uint64 { return g.term }

// Committed notes the completion of the first entry committed in the term, after it was applied. Later calls change nothing.
// Until then nothing is granted and nothing expires.
func (g *Grantor) Committed(now Instant) {
	if g.firstCommit == 0 {
		g.firstCommit = now
	}
}

// Ready reports whether the term's first entry was committed.
func (g *Grantor) Ready() bool { return g.firstCommit != 0 }

// SetVoters tells of whom a majority is counted: the voters of the leader's latest configuration.
func (g *Grantor) SetVoters(voters []string) { g.voters = append(g.voters[:0], voters...) }

// HeardVoter notes that a voter which is already in the book's term says it last confirmed an older term age ago; receipt is
// the moment its answer came in. The voter has already made age conservative (see Confirmations.Age).
func (g *Grantor) HeardVoter(voter string, receipt Instant, age time.Duration) {
	at := receipt.Add(-age)
	if old, ok := g.heard[voter]; !ok || at < old {
		g.heard[voter] = at
	}
}

// MayGrant reports whether the subject may be granted at all: the term has a commit, and no proof against the subject was
// proposed.
func (g *Grantor) MayGrant(s Subject) bool { return g.Ready() && !g.doomed[s] }

// Granted notes a grant that is about to be sent. now is read after the round that confirmed the term.
func (g *Grantor) Granted(s Subject, now Instant) { g.granted[s] = now }

// LastGrant is the moment of the last grant to the subject in this term, 0 for none.
func (g *Grantor) LastGrant(s Subject) Instant { return g.granted[s] }

// Doom stops grants to the subject, because a proof against it is being proposed.
func (g *Grantor) Doom(s Subject) { g.doomed[s] = true }

// Spare lifts Doom, because Apply refused the proof.
func (g *Grantor) Spare(s Subject) { delete(g.doomed, s) }

// T0 is a moment on the leader's clock that lies after every t_req which any leader can have granted to the subject; 0 while
// none is known.
func (g *Grantor) T0(s Subject) Instant {
	if !g.Ready() {
		return 0
	}
	t0 := g.firstCommit
	if v := g.votersT0(); v != 0 && v < t0 {
		t0 = v
	}
	if last := g.granted[s]; last > t0 {
		t0 = last
	}
	return t0
}

// votersT0 is the latest, over the best majority of voters already in the term, of the moments at which they can last have
// confirmed an older term. An older leader needs one of each majority for a grant, so all its grants answer requests made
// before that moment.
func (g *Grantor) votersT0() Instant {
	var at []Instant
	for _, v := range g.voters {
		if t, ok := g.heard[v]; ok {
			at = append(at, t)
		}
	}
	need := len(g.voters)/2 + 1
	if len(g.voters) == 0 || len(at) < need {
		return 0
	}
	slices.Sort(at)
	return at[need-1]
}

// Expired reports whether the subject's lease has certainly run out at now, by what it armed. If not, wait is how long it
// will take; wait is negative when time alone will never prove it.
func (g *Grantor) Expired(s Subject, armed Armed, now Instant) (proof TimeProof, wait time.Duration, ok bool) {
	t0 := g.T0(s)
	if !armed.TimeProves() || t0 == 0 {
		return TimeProof{}, -1, false
	}
	if left := armed.Expiry() - now.Sub(t0); left > 0 {
		return TimeProof{}, left, false
	}
	return TimeProof{T0: t0, Now: now, Armed: armed}, 0, true
}

// Confirmations is a voter's side: when it last confirmed which term. The caller holds one lock over Confirm and Answer
// together with the reading of its own term.
type Confirmations struct {
	since Instant // when the process began, or when it became a voter: nothing before is known
	last  map[uint64]Instant
}

// NewConfirmations begins the record at the moment since; what happened before is taken to be a confirmation at since.
func NewConfirmations(since Instant) *Confirmations {
	return &Confirmations{since: since, last: map[uint64]Instant{}}
}

// Restart forgets nothing but moves the beginning to now: the node became a voter.
func (c *Confirmations) Restart(now Instant) { c.since = now }

// Confirm notes that the voter is about to confirm the term. It must be called before the voter reads its own term for the
// answer, so that a confirmation which is under way is never missed.
func (c *Confirmations) Confirm(term uint64, now Instant) {
	for t, when := range c.last {
		if t+4 < term {
			// Forgotten as a term, never as a moment: terms can jump by more than a few between two confirmations, and the
			// last confirmation of any older one is what Age is asked for.
			c.since = max(c.since, when)
			delete(c.last, t)
		}
	}
	c.last[term] = now
}

// Age says how long ago, at most, the voter last confirmed a term older than the given one, made conservative for a reader
// with another clock. It is never more than the age of the record.
func (c *Confirmations) Age(term uint64, now Instant) time.Duration {
	at := c.since
	for t, when := range c.last {
		if t < term && when > at {
			at = when
		}
	}
	return shrink(now.Sub(at))
}
