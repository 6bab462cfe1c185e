package agent

import (
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// watch is the monitoring of one group's applications on this node.
type watch struct {
	generation uint64
	failed     string // beyond its restarts, action fallover; the sentence
	stop       func()
	apps       map[string]appStatus
}

func (w *watch) fill(out map[string]appStatus) {
	for k, v := range w.apps {
		out[k] = v
	}
}

type appEvent struct{}

func (m *member) gotAppEvent(appEvent) {}

func (m *member) beginWatch(_ *state.State, group string, generation uint64) {
	m.loop.node.group(group).watch = &watch{generation: generation, stop: func() {}, apps: map[string]appStatus{}}
}
