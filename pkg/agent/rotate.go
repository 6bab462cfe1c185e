package agent

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Rotation of certificates and of the gossip key, while the cluster runs. What is to be done stands in the log (pkg/state/keys.go, which
// also argues why it is safe), so that it survives every crash and change of leader, and a node that was away does its part when it
// is back: each pass compares what the log says with what this node has.
//
// A certificate: the log gives out a number. Each node in its turn makes itself a key and a certificate of that number (every member
// holds the CA's key), stores them, makes its connections anew beside the old ones, and only then says in the log that older ones
// are void. Until it has said so both are good; so at no moment is there a living node that the others do not let in.
//
// Safety. A lease request or an append that waits on a connection which is made anew gets its answer (links) or is sent again (raft, within
// milliseconds, one node at a time), so that neither a voter's majority nor a deadman's grant is missed; were one missed all the same, it
// is a lost connection as any other, and nothing rests on its not happening. The deadman, the log and the repository know no certificate.
//
// The gossip key: three entries, add, use and remove. Between them the leader waits until every living node has the entry before. A
// node that lags or was away is deaf on the rings until it has the log, which comes over other connections; and the rings are a hint.

const (
	// renewPatience is how long a node lets the ones before it in the definition renew their certificates before it goes ahead.
	renewPatience = 20 * time.Second
	// renewLimit bounds the remaking of connections; a call that takes longer is cut off.
	renewLimit = 40 * time.Second
	// sayAgain is how often a node repeats that it uses a certificate, until the log has it; checkCerts how often it looks whether
	// connections made under void ones are left.
	sayAgain   = 2 * time.Second
	checkCerts = time.Second
	// gossipSettle is for every node to apply what it has stored, between two steps.
	gossipSettle = 2 * time.Second
)

// keysState is what the loop knows of certificates and gossip keys.
type keysState struct {
	gossip   []uint64 // in force here
	renewing bool
	wanted   uint64        // the number that is waited for
	since    lease.Instant // since when
	said     lease.Instant // that the certificate is in use
	retry    lease.Instant // not before, after a failure
	checked  lease.Instant
}

// renewed is the end of a renewal.
type renewed struct{ err error }

// certFloor is the lowest number of a node's certificate that is good, by the newest state here.
func (m *member) certFloor(node string) uint64 { return m.view().CertFloor(node) }

// tendKeys makes this node follow what the log says of certificates and keys. Of the loop.
func (m *member) tendKeys(view *state.State, now lease.Instant) {
	k := &m.loop.keys
	if numbers := view.GossipKeyNumbers(); k.gossip != nil && !slices.Equal(numbers, k.gossip) {
		m.changeGossipKeys(numbers)
	}
	if view.Certs == nil {
		return
	}
	if now.Sub(k.checked) >= checkCerts {
		k.checked = now
		m.links.CheckCertificates()
	}
	own := m.id.Number()
	switch {
	case k.renewing || view.Node(m.name) == nil:
	case own < view.CertWanted(m.name):
		m.renewInTurn(view, now)
	case own > view.CertFloor(m.name) && (k.said == 0 || now.Sub(k.said) >= sayAgain):
		k.said = now
		if c := (&state.Command{CertInUse: &state.CertInUse{Node: m.name, Number: own}}); len(view.BehindFormat(c.Needs())) == 0 {
			m.submit(c)
		}
	}
}

// renewInTurn renews this node's certificate when the living nodes before it have theirs: one node's connections are made anew at a time.
func (m *member) renewInTurn(view *state.State, now lease.Instant) {
	k := &m.loop.keys
	number := view.CertWanted(m.name)
	if k.wanted != number {
		k.wanted, k.since = number, now
	}
	if now < k.retry {
		return
	}
	for _, name := range view.NodeNames() {
		if name == m.name {
			break
		}
		if view.CertWanted(name) != 0 && view.Node(name).Alive() && now.Sub(k.since) < renewPatience {
			return
		}
	}
	k.renewing = true
	m.work.Go(func() {
		err := m.id.Renew(number)
		if err == nil {
			ctx, cancel := context.WithTimeout(m.loop.ctx, renewLimit)
			defer cancel()
			if left := m.links.Renewed(ctx); left != nil {
				m.log.Warn("not all connections were made anew under the renewed certificate in time; what is left is cut off", "error", left)
			}
		}
		m.post(renewed{err})
	})
}

func (m *member) gotRenewed(e renewed) {
	k := &m.loop.keys
	k.renewing = false
	if e.err != nil {
		k.retry = m.clock.Now().Add(renewPatience / 2)
		m.log.Error("renew this node's certificate; the one before is good still, and it is tried again", "error", e.err)
		return
	}
	k.said = 0
	m.log.Info("this node shows a renewed certificate", "number", m.id.Number())
}

func (m *member) gossipKeys(numbers []uint64) ([][]byte, error) {
	var out [][]byte
	for _, n := range numbers {
		k, err := m.id.GossipKeyNumber(n)
		if err != nil {
			return nil, fmt.Errorf("make gossip key %d: %w", n, err)
		}
		out = append(out, k)
	}
	return out, nil
}

func (m *member) changeGossipKeys(numbers []uint64) {
	keys, err := m.gossipKeys(numbers)
	if g := m.gossip.Load(); err == nil && g != nil {
		err = g.SetKeys(keys)
	}
	m.loop.keys.gossip = numbers
	if err != nil {
		m.log.Error("change the gossip keys; heartbeats run on the other paths", "error", err)
		return
	}
	m.log.Info("the gossip keys change", "sent_with", numbers[0], "understood", numbers)
}

// gossipRotation is what a leader's loop knows of a rotation of the gossip key.
type gossipRotation struct {
	next  state.GossipKey // the step that is waited for
	since lease.Instant
	index uint64 // which every living node must have
	busy  atomic.Bool
}

// tendGossipRotation takes the next step of a rotation when every living node has the one before. Of the leader's loop.
func (m *member) tendGossipRotation(led *leadership, view *state.State, now lease.Instant) {
	r := &led.gossipKey
	next := view.NextGossipStep()
	switch {
	case next == nil:
		r.next = state.GossipKey{}
		return
	case r.next != *next:
		r.next, r.since, r.index = *next, now, view.Index
		return
	case now.Sub(r.since) < gossipSettle || r.busy.Load():
		return
	}
	followers := m.raft.Followers()
	for _, name := range view.NodeNames() {
		if n := view.Node(name); name != m.name && n.Alive() && followers[n.RaftID].LastIndex < r.index {
			return
		}
	}
	r.busy.Store(true)
	m.work.Go(func() {
		defer r.busy.Store(false)
		ctx, cancel := context.WithTimeout(led.ctx, 5*time.Second)
		defer cancel()
		if res, err := m.commit(ctx, &state.Command{Term: led.term, GossipKey: next}); err != nil || res.Refused != "" {
			m.log.Warn("a step of the gossip key's rotation was not taken; it is tried again", "step", next.Step, "refused", res.Refused, "error", err)
		}
	})
}
