package consensus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Lead is one term of this server's leadership.
type Lead struct {
	Term uint64
	// Ctx ends when leadership is lost, with the cause ErrLost or ErrClosed. That it lives proves nothing: see Confirm.
	Ctx context.Context
	// FirstCommit is when the first entry of the term was seen committed and applied here: every lease that an older leader
	// granted was asked for before it.
	FirstCommit lease.Instant

	node       *Node
	cancel     context.CancelCauseFunc
	lastCommit atomic.Int64
	rounds     rounds
	notices    notices
}

// Leads delivers each Lead, after the first commit of its term, in order. One whose leadership is lost before it is taken is
// not delivered. The channel is never closed.
func (n *Node) Leads() <-chan *Lead { return n.leads }

// LastCommit is when an entry of this term was last seen committed and applied here. While the cluster works it is never
// older than Config.Progress and a commit's time: the leader writes an empty entry when it has nothing else. A leader whose
// LastCommit is old must grant nothing (attack B6).
func (l *Lead) LastCommit() lease.Instant { return lease.Instant(l.lastCommit.Load()) }

// watchLeadership drains raft's notices of gained and lost leadership, which block raft if nobody does.
func (n *Node) watchLeadership() {
	cancel := func(error) {}
	defer func() { cancel(ErrClosed) }()
	for {
		select {
		case up := <-n.notify:
			cancel(ErrLost)
			n.trans.forget()
			if !up {
				n.setTimeouts(1)
				continue
			}
			var ctx context.Context
			ctx, cancel = context.WithCancelCause(n.ctx)
			stop := cancel
			if n.gate != nil {
				n.spawn(func() { defer stop(nil); n.handOver(ctx) })
				continue
			}
			n.spawn(func() { n.lead(ctx, stop) })
			n.spawn(func() { n.beat(ctx) })
		case <-n.ctx.Done():
			return
		}
	}
}

// lead makes a Lead of an election that was won, and delivers it. Which term was won is told by the first entry that
// commits: raft's current term may already be another's.
func (n *Node) lead(ctx context.Context, cancel context.CancelCauseFunc) {
	var opened applied
	for {
		var err error
		if opened, err = n.apply(ctx, command(kindOpening, nil)); err == nil {
			break
		}
		n.log.Debug("the first entry of the term is not committed yet", "error", err)
		if !pause(ctx, openingPause) {
			return
		}
	}
	l := &Lead{Term: opened.term, Ctx: ctx, FirstCommit: n.now(), node: n, cancel: cancel}
	l.lastCommit.Store(int64(l.FirstCommit))
	l.rounds.lead = l
	l.notices.lead = l
	if !n.terms.install(l) {
		cancel(ErrLost)
		return
	}
	n.current.Store(l)
	n.log.Info("leads", "term", l.Term, "first_index", opened.index)
	l.notices.signal(opened.index)
	n.spawn(l.keepCommitting)
	select {
	case n.leads <- l:
	case <-ctx.Done():
	}
	<-ctx.Done()
	n.log.Info("leads no longer", "term", l.Term, "cause", context.Cause(ctx))
}

const openingPause = 50 * time.Millisecond

// pause waits for d; false means that the context ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// applied is called after each command was applied here.
func (n *Node) applied(index, term uint64) {
	if l := n.current.Load(); l != nil && l.Term == term && l.Ctx.Err() == nil {
		l.lastCommit.Store(int64(n.now()))
		l.notices.signal(index)
	}
}

// keepCommitting writes an empty entry whenever nothing else was committed for Config.Progress.
func (l *Lead) keepCommitting() {
	for {
		idle := l.node.now().Sub(l.LastCommit())
		if wait := l.node.cfg.Progress - idle; wait > 0 {
			if !pause(l.Ctx, wait) {
				return
			}
			continue
		}
		if err := l.commitNothing(); err != nil && !pause(l.Ctx, openingPause) {
			return
		}
	}
}

// commitNothing commits an empty entry (raft's barrier: no FSM sees it).
func (l *Lead) commitNothing() error {
	n := l.node
	_, err := n.await(l.Ctx, func() raft.Future { return n.raft.Load().Barrier(n.cfg.Progress) })
	if err != nil {
		return err
	}
	// Terms only grow, so the entry was of this term if the term still is.
	if n.terms.highest() == l.Term {
		l.lastCommit.Store(int64(n.now()))
	}
	return nil
}

// Propose is Node.Propose for work that belongs to this Lead: it does nothing once the lead is lost. Result.Term tells the
// rare case that the entry went into a later term of this server.
func (l *Lead) Propose(ctx context.Context, data []byte) (Result, error) {
	if l.Ctx.Err() != nil {
		return Result{}, fmt.Errorf("propose in term %d: %w", l.Term, ErrNotLeader)
	}
	return l.node.Propose(ctx, data)
}
