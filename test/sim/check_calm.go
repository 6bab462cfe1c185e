package sim

import "time"

// Promise P11 as far as a second shows it: neither the log nor a node's own actions may run wild. What is refused, or fails, is
// tried again after a pause; what was given back is not given out again as fast as it comes.

const (
	stormEntries = 600 // committed in a second; a cluster that starts everything at once stays far below
	stormRefused = 150
	stormActions = 4000 // of one node
)

// window counts what happens in the present second.
type window struct {
	from time.Duration
	n    int
}

func (c *window) count(now time.Duration) int {
	if now-c.from >= time.Second {
		c.from, c.n = now, 0
	}
	c.n++
	return c.n
}

func (w *world) checkStorm(e *entry) {
	if w.entries.count(w.now) > stormEntries {
		w.fail("P11 calm", "more than %d entries in a second, the last a %s", stormEntries, e.cmd.Kind())
	}
	if e.res.Refused != "" && w.refused.count(w.now) > stormRefused {
		w.fail("P11 calm", "more than %d refused entries in a second, the last: %s", stormRefused, e.res.Refused)
	}
}

func (w *world) checkActions(a *agent, kind string) {
	if a.actions.count(w.now) > stormActions && !w.suppressed("calm") {
		w.fail("P11 calm", "node %s does more than %d things in a second, the last a %s", a.name, stormActions, kind)
	}
}
