package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// A Result is what became of a command: where it stands in the log, and what the FSM's Apply returned.
type Result struct {
	Index, Term uint64
	Value       any
}

// Propose appends the command to the log and waits until it is committed and applied here. Errors wrap one of: ErrNotLeader
// and ErrBusy, nothing was done; ErrUnknown, the command may or may not become part of the log. It must be called with a
// context that ends.
func (n *Node) Propose(ctx context.Context, data []byte) (Result, error) {
	if len(data) > MaxProposal {
		return Result{}, fmt.Errorf("propose: a command of %d bytes is over the limit of %d", len(data), MaxProposal)
	}
	out, err := n.apply(ctx, command(kindCommand, data))
	if err != nil {
		return Result{}, fmt.Errorf("propose: %w", err)
	}
	return Result{Index: out.index, Term: out.term, Value: out.value}, nil
}

// apply appends one entry and waits for its Apply.
func (n *Node) apply(ctx context.Context, entry raft.Log) (applied, error) {
	if n.raft.Load().State() != raft.Leader {
		return applied{}, ErrNotLeader
	}
	f, err := n.await(ctx, func() raft.Future { return n.raft.Load().ApplyLog(entry, enqueueTimeout) })
	if err != nil {
		return applied{}, err
	}
	out, ok := f.(raft.ApplyFuture).Response().(applied)
	if !ok {
		return applied{}, fmt.Errorf("%w: the log gave no answer", ErrUnknown)
	}
	if bad, ok := out.value.(error); ok && n.guard.failed.Load() {
		return applied{}, fmt.Errorf("%w: %w", ErrUnknown, bad)
	}
	return out, nil
}

// enqueueTimeout is how long raft's main loop may take to take a request. It writes to the disk, so a store that works takes
// a small part of it, and one that does not ends the process earlier.
const enqueueTimeout = 5 * time.Second

// await calls raft and waits for its answer or the context's end. Raft's futures know no context, so each waits in a
// goroutine of its own.
func (n *Node) await(ctx context.Context, call func() raft.Future) (raft.Future, error) {
	if !n.begin() {
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, ErrClosed)
	}
	type answer struct {
		future raft.Future
		err    error
	}
	ch := make(chan answer, 1)
	go func() {
		defer n.waiting.Done()
		f := call()
		ch <- answer{f, f.Error()}
	}()
	select {
	case a := <-ch:
		return a.future, outcome(a.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	case <-n.ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknown, ErrClosed)
	}
}

// outcome maps raft's errors to what they say about the entry.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrNotVoter):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: it is handing its leadership over", ErrNotLeader)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrBusy
	default: // leadership lost, shutdown, an error of the store
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// Unapplied calls f with each command that lies in this server's log and was not applied yet, in order: what may be committed without
// this server knowing so, as after a start. It fails when the log is cut meanwhile; the call can be repeated.
func (n *Node) Unapplied(f func(data []byte)) error {
	return n.Tail(func(_, _ uint64, data []byte) { f(data) })
}

// Tail is Unapplied, and says where each command stands.
func (n *Node) Tail(f func(index, term uint64, data []byte)) error {
	first, err := n.disk.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	last, err := n.disk.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	for i := max(first, n.AppliedIndex()+1); first > 0 && i <= last; i++ {
		var l raft.Log
		if err := n.disk.logs.GetLog(i, &l); err != nil {
			return fmt.Errorf("read entry %d of the log: %w", i, err)
		}
		if l.Type == raft.LogCommand && checkCommand(&l) == nil && l.Data[0] == kindCommand {
			f(i, l.Term, l.Data[1:])
		}
	}
	return nil
}
