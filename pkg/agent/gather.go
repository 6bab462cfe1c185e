package agent

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Requests are brought together: the leader tells each node to ask again at the next beat of one clock, and waits a moment for
// the others before the round that serves them. One round then costs what would be one per node, and idle processes are woken
// once instead of many times.

// gatherTime is how long the leader waits, at most, for the requests of the others.
const gatherTime = 4 * time.Millisecond

// A gatherer holds the requests that wait for the next round to begin. Any goroutine may use it.
type gatherer struct {
	mu   sync.Mutex
	open *gathering // nil: nobody waits
}

// A gathering is a list of requests that one round will serve.
type gathering struct {
	asked  int           // requests so far
	closed bool          // full is
	full   chan struct{} // closed when all that ask have asked: nobody is left to wait for
	served chan struct{} // closed after the round
	err    error         // of the round; read it after served
}

// confirm runs a round for this request together with those of others, of which there are all in all as many as asked for.
// Whoever comes first waits for the others and closes the gathering before the round begins; who comes later is served by the
// next one. So the round began after each request that it serves had arrived (attack A11). The first one's context does not end
// it, since the others wait for it too: round sees to its own end.
func (g *gatherer) confirm(ctx context.Context, all int, round func() error) error {
	g.mu.Lock()
	now := g.open
	first := now == nil
	if first {
		now = &gathering{full: make(chan struct{}), served: make(chan struct{})}
		g.open = now
	}
	if now.asked++; now.asked >= all && !now.closed {
		now.closed = true // once: all may grow while the gathering is still open
		close(now.full)
	}
	g.mu.Unlock()
	if first {
		g.serve(now, round)
	}
	select {
	case <-now.served:
		return now.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gatherer) serve(now *gathering, round func() error) {
	t := time.NewTimer(gatherTime)
	defer t.Stop()
	select {
	case <-now.full:
	case <-t.C:
	}
	g.mu.Lock()
	g.open = nil
	g.mu.Unlock()
	now.err = round()
	close(now.served)
}

// askers is how many nodes ask for leases.
func askers(view *state.State) int {
	count := 0
	for _, n := range view.Nodes {
		if n.Incarnation != 0 && n.Dead == nil && n.Lost == nil {
			count++
		}
	}
	return count
}
