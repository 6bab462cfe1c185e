package agent

import (
	"context"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// fencing is one attempt after another to switch a silent incarnation off, in one term of this leader.
type fencing struct {
	running  bool
	proof    string // what the device said; empty: not off yet
	proposed bool
	next     int           // which of the node's devices is tried next
	retry    lease.Instant // not before
	rounds   int           // over all devices, in vain
}

// fenceRetry is the pause between two rounds over a node's fence devices.
// It doubles each time.
const (
	fenceRetry    = time.Second
	fenceRetryMax = 30 * time.Second
)

// fenced is the end of one attempt.
type fenced struct {
	led     *leadership
	subject lease.Subject
	device  string
	proof   string
	err     error
}

// fence begins to switch the silent incarnation off, if a device can. Only a leader does this, after the intent is in the
// log, and after its term was confirmed once more just before the shot.
func (m *member) fence(led *leadership, view *state.State, s lease.Subject) {
	devices := view.Definition.FenceDevicesOf(s.Node)
	if len(devices) == 0 {
		return
	}
	f := led.fencing[s]
	if f == nil {
		f = &fencing{}
		led.fencing[s] = f
	}
	now := m.clock.Now()
	if f.running || f.proof != "" || now < f.retry {
		return
	}
	if f.next >= len(devices) {
		f.rounds++
		f.next, f.retry = 0, now.Add(min(fenceRetry<<min(f.rounds, 5), fenceRetryMax))
		return
	}
	f.running = true
	device := *devices[f.next]
	m.work.Go(func() {
		proof, err := m.shoot(led.ctx, led, device, s)
		m.post(fenced{led: led, subject: s, device: device.Name, proof: proof, err: err})
	})
}

func (m *member) shoot(ctx context.Context, led *leadership, device cluster.FenceDevice, s lease.Subject) (string, error) {
	r, err := m.commit(ctx, &state.Command{Term: led.term, Fence: &state.Fence{Node: s.Node, Incarnation: s.Incarnation, Device: device.Name}})
	if err != nil {
		return "", err
	}
	if r.Refused != "" {
		return "", refusal(r.Refused)
	}
	m.met.ExecutorRun("fence")
	proof, err := m.fencer.Off(ctx, &device, s.Node, func() error {
		if err := led.confirm(ctx); err != nil {
			return err
		}
		if n := m.view().Node(s.Node); n == nil || n.Incarnation != s.Incarnation || n.Lost == nil || n.Dead != nil {
			return refusal("the node is no longer silent: not fenced")
		}
		return nil
	})
	if err != nil {
		m.met.ExecutorFailed("fence")
	}
	return proof, err
}

func (m *member) finishFence(e fenced) {
	f := e.led.fencing[e.subject]
	if f == nil {
		return
	}
	f.running, f.proof = false, e.proof
	if e.err == nil {
		return
	}
	f.next++
	m.log.Error("fencing failed", "node", e.subject.Node, "device", e.device, "error", e.err)
	if e.led.ctx.Err() == nil {
		m.submit(&state.Command{Fence: &state.Fence{Node: e.subject.Node, Incarnation: e.subject.Incarnation, Device: e.device, Failed: e.err.Error()}})
	}
}
