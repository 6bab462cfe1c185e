package cluster

import (
	"context"
	"sync"
	"time"
)

// A watch is the client on the majority's side: it looks every 10 ms whether each group is served by a machine that a
// majority of the others reaches, and notes the outages.
type watch struct {
	r    *rig
	mu   sync.Mutex
	down map[string]time.Time // group -> since when
	list []outage
}

type outage struct {
	group string
	began time.Time
	long  time.Duration
}

const lookEvery = 10 * time.Millisecond

func newWatch(r *rig) *watch { return &watch{r: r, down: map[string]time.Time{}} }

func (w *watch) run(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			w.look()
		}
	}
}

func (w *watch) look() {
	now := time.Now()
	for g, resources := range w.r.groups {
		who := w.r.ledger.server(resources)
		serves := who != "" && w.r.connected(who)
		w.mu.Lock()
		since, down := w.down[g]
		switch {
		case serves && down:
			w.list = append(w.list, outage{g, since, now.Sub(since)})
			delete(w.down, g)
		case !serves && !down:
			w.down[g] = now
		}
		w.mu.Unlock()
	}
}

// forget begins anew.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = nil
	clear(w.down)
}

// outages lists those of the group (all groups if empty) since the last forget, one that goes on among them.
func (w *watch) outages(group string) []outage {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []outage
	for _, o := range w.list {
		if group == "" || o.group == group {
			out = append(out, o)
		}
	}
	for g, since := range w.down {
		if group == "" || g == group {
			out = append(out, outage{g, since, time.Since(since)})
		}
	}
	return out
}

func (w *watch) longest(group string) time.Duration {
	var d time.Duration
	for _, o := range w.outages(group) {
		d = max(d, o.long)
	}
	return d
}
