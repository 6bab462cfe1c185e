package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// lockClients take and release locks on all nodes (pkg/agent locks.go: OpenLocks, TakeLock, GiveLock, CloseLocks), with draws of their
// own, so that they change nothing of what the faults draw.
type lockClients struct {
	w   *world
	r   *rand.Rand
	ids int
	seq uint64
}

const lockTTL = 6 * time.Second

func (k *lockClients) live() {
	w := k.w
	if w.calm {
		return
	}
	n := w.nodes[k.r.IntN(len(w.nodes))]
	if a := n.current(); a != nil {
		if c := k.choose(a); c != nil {
			w.ops.give(a, c, func(string) {})
		}
	}
	w.after(time.Duration(400+k.r.IntN(2600))*time.Millisecond, "locks", k.live)
}

func (k *lockClients) choose(a *agent) *state.Command {
	v := a.view()
	n := v.Node(a.name)
	if v.Definition == nil || n == nil || n.Incarnation == 0 {
		return nil
	}
	var own, all []string
	if v.Locks != nil {
		for _, id := range sortedKeys(v.Locks.Sessions) {
			all = append(all, id)
			if v.Locks.Sessions[id].Node == a.name {
				own = append(own, id)
			}
		}
	}
	if len(own) == 0 || len(own) < 3 && k.r.IntN(4) == 0 {
		k.ids++
		return &state.Command{LockOpen: &state.LockOpen{Session: fmt.Sprintf("session%09d", k.ids), Node: a.name, Incarnation: n.Incarnation, Who: a.name, TTL: lockTTL}}
	}
	k.seq++
	id, name := own[k.r.IntN(len(own))], []string{"x", "y"}[k.r.IntN(2)]
	switch k.r.IntN(12) {
	case 0:
		return &state.Command{LockClose: &state.LockClose{Session: id, Node: a.name}}
	case 1:
		return &state.Command{LockBreak: &state.LockBreak{Session: all[k.r.IntN(len(all))], Name: name}}
	case 2, 3, 4, 5:
		return &state.Command{LockRelease: &state.LockRelease{Session: id, Node: a.name, Seq: k.seq, Name: name}}
	}
	mode := []state.LockMode{state.LockExclusive, state.LockExclusive, state.LockShared}[k.r.IntN(3)]
	return &state.Command{LockAcquire: &state.LockAcquire{Session: id, Node: a.name, Seq: k.seq, Name: name, Mode: mode, Wait: k.r.IntN(3) > 0}}
}

// lockBook is the checkers' own notion of the locks: who holds what, and which token was the last.
type lockBook struct {
	token uint64
}

// check judges what an entry has done to the locks.
func (k *lockBook) check(b *ledger, e *entry, before *state.State) {
	if e.after.Locks == nil {
		return
	}
	last := k.token
	for _, name := range sortedKeys(e.after.Locks.Locks) {
		l, was := e.after.Lock(name), before.Lock(name)
		for _, h := range l.Holders {
			if h.Mode == state.LockExclusive && len(l.Holders) > 1 {
				b.w.fail("locks", "lock %s is held exclusively and has %d holders after %s", name, len(l.Holders), e.cmd.Kind())
				return
			}
			if was.Holder(h.Session) != nil {
				continue
			}
			if h.Token <= last {
				b.w.fail("locks", "lock %s was given with token %d after %d", name, h.Token&0xffffff, last&0xffffff)
				return
			}
			k.token = max(k.token, h.Token)
			if was != nil && slices.ContainsFunc(was.Waiters, func(x state.LockShare) bool {
				return was.Waiter(h.Session) == nil && l.Waiter(x.Session) != nil
			}) {
				b.w.fail("locks", "%s has overtaken others in the line for lock %s", h.Session, name)
				return
			}
		}
	}
	k.ended(b, e, before)
}

// ended: a session ends by its own node's word, or with a proof of its node's end, and by nothing else.
func (k *lockBook) ended(b *ledger, e *entry, before *state.State) {
	if before.Locks == nil {
		return
	}
	c := e.cmd
	for _, id := range sortedKeys(before.Locks.Sessions) {
		x := before.Locks.Sessions[id]
		if e.after.LockSession(id) != nil {
			continue
		}
		s := lease.Subject{Node: x.Node, Incarnation: x.Incarnation}
		switch {
		case c.LockClose != nil && c.LockClose.Session == id && c.LockClose.Node == x.Node:
		case c.Proof != nil && c.Proof.Node == x.Node && c.Proof.Incarnation == x.Incarnation && c.Proof.Kind != state.ProofNeverArmed && c.Proof.Kind != state.ProofCleanStop:
		case c.NodeBoot != nil && c.NodeBoot.Node == x.Node && c.NodeBoot.BootID != before.Node(x.Node).BootID && !b.def.Node(x.Node).PlatformRestart:
		case c.LocksEnd != nil && c.LocksEnd.Node == x.Node && c.LocksEnd.Incarnation == x.Incarnation && (b.dead[s] || b.newest[x.Node] > x.Incarnation):
		case c.NewEpoch != nil && slices.Contains(c.NewEpoch.Dead, x.Node):
		default:
			b.w.fail("locks", "session %s of %s %d was ended by %s, which is no end of its node", id, x.Node, x.Incarnation, c.Kind())
			return
		}
	}
}

// silenceEndsLocks takes the silence of a node for the end of its programs.
func silenceEndsLocks(_ *world, s *state.State, c *state.Command) *state.Command {
	if l := c.NodeLost; l != nil && s.Locks != nil {
		for _, id := range sortedKeys(s.Locks.Sessions) {
			if s.Locks.Sessions[id].Node == l.Node {
				return &state.Command{At: c.At, By: c.By, LockClose: &state.LockClose{Session: id, Node: l.Node}}
			}
		}
	}
	return c
}
