package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The lease, between the deadman of this node and the leader of the cluster (design: "asking", "petting", "believing").
//
// Carrying is deliberately apart from the loop: a request waits for no action, no plan and no commit of ours. But it is only
// carried while the loop makes progress, so that a stuck loop ends in a reset and not in a zombie.

// progressLimit is how long a loop may take for one pass before it no longer counts as alive: for carrying requests, and on
// the leader for granting them.
const progressLimit = 2 * time.Second

// retryLease is the pause before a request that found no leader is tried again.
const retryLease = 20 * time.Millisecond

// leaseAnswer is the leader's answer on the wire. Exactly one of the fields is set.
type leaseAnswer struct {
	Grant *lease.Grant `json:"grant,omitempty"`
	// Leader names another node that leads, or is "?" if none is known here.
	Leader string `json:"leader,omitempty"`
	// Boot asks the node to introduce this boot first: the log does not know it.
	Boot bool `json:"boot,omitempty"`
	// Dead says that the incarnation which asks is dead by proof: it must not go on.
	Dead string `json:"dead,omitempty"`
	// Wait says why there is no grant now.
	Wait string `json:"wait,omitempty"`
}

// a granted lease, as the loop gets it.
type granted struct {
	grant     *lease.Grant
	requested lease.Instant // t_req
	received  lease.Instant
}

// carryRequests passes the deadman's requests to the leader until ctx ends.
func (m *member) carryRequests(ctx context.Context, dm Deadman) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-dm.Done():
			return
		case r, ok := <-dm.Requests():
			if !ok {
				return
			}
			if !m.loopAlive() {
				m.log.Error("the loop makes no progress: the lease request is not carried", "limit", progressLimit)
				continue
			}
			m.carriers.Go(func() { m.carry(ctx, dm, r) })
		}
	}
}

// carry asks until there is a grant, a clear no, or the request is too old to be of use.
func (m *member) carry(ctx context.Context, dm Deadman, r deadman.Request) {
	ctx, cancel := context.WithTimeout(ctx, m.params().MaxAge)
	defer cancel()
	req := lease.Request{Nonce: r.Nonce, Node: m.name, BootID: m.bootKey(), Urgent: m.urgentGrant.Swap(false)}
	mailed := false
	for {
		view := m.view()
		req.Incarnation, req.Applied = m.incarnation(view), view.Index
		if !mailed {
			mailed = m.askByMail(dm, r, req)
		}
		a, err := m.askLease(ctx, req)
		switch {
		case err != nil || a.Leader != "":
			// No leader, or not reachable: the request lives on for as long as a grant for it could be taken.
		case a.Grant != nil:
			m.takeGrant(dm, r, a.Grant)
			return
		case a.Dead != "":
			m.post(heardDead{incarnation: req.Incarnation, sentence: a.Dead})
			return
		case a.Boot:
			m.post(heardUnknown{})
			return
		default:
			m.log.Debug("no grant now", "why", a.Wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryLease):
		}
	}
}

func (m *member) takeGrant(dm Deadman, r deadman.Request, g *lease.Grant) {
	if g.Nonce != r.Nonce || g.Node != m.name {
		m.log.Error("the leader's grant answers another request: thrown away", "leader", g.Leader)
		return
	}
	now := m.clock.Now()
	if err := dm.Grant(g.Nonce, g.LeaderBoot, g.LeaderTime, g.Next); err != nil {
		level := slog.LevelWarn
		if g.Isolated { // the networks were faster, or it lay there too long: both are usual
			level = slog.LevelDebug
		}
		m.log.Log(context.Background(), level, "the deadman did not take the grant", "error", err)
		return
	}
	if !g.Isolated {
		m.disk.lastNet.Store(int64(now))
	}
	m.met.LeaseGranted(now.Sub(r.At))
	m.post(granted{grant: g, requested: r.At, received: now})
}

// askLease sends the request to the leader, which may be this node.
func (m *member) askLease(ctx context.Context, req lease.Request) (leaseAnswer, error) {
	node := m.leaderNode()
	if node == "" {
		node = m.whomToAsk()
	}
	if node == "" {
		return leaseAnswer{Leader: "?"}, nil
	}
	if node == m.name {
		return m.grantLease(ctx, m.name, req), nil
	}
	body, err := json.Marshal(req)
	if err != nil {
		return leaseAnswer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.params().MaxAge/2) // one that is gone must not use the request up
	defer cancel()
	out, err := m.links.Call(ctx, node, rpcLease, body)
	if err != nil {
		m.leaderHint.Store(nil)
		return leaseAnswer{}, err
	}
	var a leaseAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		return leaseAnswer{}, errors.New("the leader's answer cannot be read")
	}
	switch {
	case a.Leader == "?":
		m.leaderHint.Store(nil)
	case a.Leader != "":
		m.leaderHint.Store(&a.Leader)
	}
	return a, nil
}

// whomToAsk is for a node that does not know who leads, because its daemon has just started: whom another one named last, or
// each other member in turn. A lease must not wait until the log has found this node again.
func (m *member) whomToAsk() string {
	if p := m.leaderHint.Load(); p != nil {
		return *p
	}
	names := sortedKeys(*m.friends.Load())
	for range names {
		n := names[int(m.askNo.Add(1))%len(names)]
		if n != m.name {
			return n
		}
	}
	return ""
}

// serveLease is the leader's side of askLease on the wire.
func (m *member) serveLease(ctx context.Context, from string, body []byte) ([]byte, error) {
	var req lease.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errors.New("the lease request cannot be read")
	}
	return json.Marshal(m.grantLease(ctx, from, req))
}

// grantLease decides about one request. The order matters: the round that confirms the term begins after the request has
// arrived; then, under the book's lock, the leader reads its own state, notes the grant and makes the list, so that a proof
// against the incarnation is either not yet proposed, and counts from this grant, or prevents it (attacks A1, A9, A11).
func (m *member) grantLease(ctx context.Context, from string, req lease.Request) leaseAnswer {
	if m.leading() != nil && req.Node == from {
		m.heard(from, detector.PathLease)
	}
	return m.grant(ctx, from, req, false)
}

// grantByMail decides about a request that came by the repository volume: by the same rules, in the same order, and in addition only
// for a node that is isolated, and for nothing but stopping. That such a request was read is no sign of life on a path that a leader
// relies on: mail stays where it is.
func (m *member) grantByMail(ctx context.Context, from string, req lease.Request) leaseAnswer {
	req.Urgent = true // nobody else asks with it
	return m.grant(ctx, from, req, true)
}

func (m *member) grant(ctx context.Context, from string, req lease.Request, mail bool) leaseAnswer {
	lead := m.leading()
	if lead == nil {
		if node := m.leaderNode(); node != "" && node != m.name {
			return leaseAnswer{Leader: node}
		}
		return leaseAnswer{Leader: "?"}
	}
	if req.Node != from {
		return leaseAnswer{Wait: "the request names another node than the one that sent it"}
	}
	if why := m.unfitToGrant(lead); why != "" {
		return leaseAnswer{Wait: why}
	}
	if a, ok := m.knowsBoot(m.view(), req); !ok {
		return a
	}
	confirm := lead.confirm
	if !req.Urgent {
		confirm = func(ctx context.Context) error {
			return lead.gathering.confirm(ctx, askers(m.view()), func() error {
				ctx, cancel := context.WithTimeout(lead.ctx, m.params().MaxAge)
				defer cancel()
				return lead.confirm(ctx)
			})
		}
	}
	if err := confirm(ctx); err != nil {
		return leaseAnswer{Wait: "the term could not be confirmed: " + err.Error()}
	}
	lead.mu.Lock()
	defer lead.mu.Unlock()
	if lead.ctx.Err() != nil {
		return leaseAnswer{Leader: "?"}
	}
	view := m.view()
	if a, ok := m.knowsBoot(view, req); !ok {
		return a
	}
	// A daemon that has just started knows its boot and life, which name the incarnation, before it has applied its number.
	s := lease.Subject{Node: req.Node, Incarnation: view.Node(req.Node).Incarnation}
	if !lead.book.MayGrant(s) {
		return leaseAnswer{Wait: "a proof of the node's death is being committed"}
	}
	now := m.clock.Now()
	g := &lease.Grant{
		Nonce: req.Nonce, Node: req.Node, Incarnation: s.Incarnation, Leader: m.name, Term: lead.term, Applied: view.Index,
		LeaderBoot: m.bootID, LeaderTime: now, Hold: view.Holds(req.Node, s.Incarnation), Next: m.nextSlot(now),
	}
	if mail && !m.forMail(view, g) {
		return leaseAnswer{Wait: "node " + from + " is not known to be isolated"}
	}
	lead.book.Granted(s, now)
	return leaseAnswer{Grant: g}
}

// nextSlot is the time until the next beat but for what a request needs to arrive.
func (m *member) nextSlot(now lease.Instant) time.Duration {
	period := m.params().Renew * 24 / 25 // before the deadman asks by itself
	next := period - time.Duration(now)%period
	if next < period/2 { // just served out of turn, or late: the beat after
		return next + period/2
	}
	return next
}

// knowsBoot checks that the request comes from the living incarnation.
func (m *member) knowsBoot(view *state.State, req lease.Request) (leaseAnswer, bool) {
	n := view.Node(req.Node)
	switch {
	case n == nil:
		return leaseAnswer{Wait: "node " + req.Node + " is not in the definition"}, false
	case n.Incarnation == 0 || bootKey(n.BootID, n.Life) != req.BootID:
		return leaseAnswer{Boot: true}, false
	case n.Dead != nil:
		return leaseAnswer{Dead: n.Dead.Sentence}, false
	case req.Incarnation != 0 && n.Incarnation != req.Incarnation:
		return leaseAnswer{Wait: "the request names another incarnation than the log"}, false
	}
	return leaseAnswer{}, true
}

// unfitToGrant says why this leader must not grant now: its log or its loop does not move (attack B6). Empty: it may.
func (m *member) unfitToGrant(lead *leadership) string {
	switch {
	case !m.loopAlive():
		return "the leader's loop makes no progress"
	case m.clock.Now().Sub(lead.lead.LastCommit()) > progressLimit:
		return "the leader has committed nothing for 2 s"
	case !lead.ready():
		return "the leader has not applied an entry of its own term yet"
	}
	return ""
}
