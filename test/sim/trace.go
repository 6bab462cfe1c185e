package sim

import (
	"fmt"
	"time"
)

// ring keeps the last notes of a run, formatted only when they are wanted.
type ring struct {
	list [traceSize]note
	n    int
}

const traceSize = 90

type note struct {
	at     time.Duration
	step   int
	kind   string
	node   string
	format string
	args   []any
}

// note remembers that something worth telling has happened. Arguments are formatted later, so they must not change.
func (w *world) note(kind, node, format string, args ...any) {
	w.trace.list[w.trace.n%traceSize] = note{w.now, w.steps, kind, node, format, args}
	w.trace.n++
	if w.stats.Watch != nil {
		w.stats.Watch(w.trace.list[(w.trace.n-1)%traceSize].String())
	}
}

func (n *note) String() string {
	return fmt.Sprintf("%10.4f %6d  %-16s %-4s %s", n.at.Seconds(), n.step, n.kind, n.node, fmt.Sprintf(n.format, n.args...))
}

func (r *ring) lines() []string {
	var out []string
	for i := max(0, r.n-traceSize); i < r.n; i++ {
		out = append(out, r.list[i%traceSize].String())
	}
	return out
}
