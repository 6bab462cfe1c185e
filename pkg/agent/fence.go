package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Fencing: only a leader shoots, at the incarnation that a committed entry names, and only while that incarnation is still the one
// to shoot. That is asked at three places:
//
//   - before the intent is committed, and once more just before the agent is started, after a round that confirmed the term: the
//     log still has this incarnation as its newest, silent and not dead; no newer boot or life of the node has said its hello to
//     this leader; and this leader has not itself just heard the node that an earlier leader had called silent;
//   - while the agent runs: each of these calls the shot off, and the agent is killed. The hello of a newer boot is answered only
//     when the agent has ended, so that the boot holds nothing yet if the order had gone through after all;
//   - between two devices and two rounds, because each attempt begins anew with the first.
//
// None of it makes anything free: a shot that was called off is no proof, whatever the device did, and a proof counts only for the
// incarnation that it names (attack A9). So a mistake here costs an outage, never a second owner. What is left: an order that the
// device had taken before its agent was killed, and carries out later; a leader whose process is stopped between the check and the
// start of the agent, and goes on after the next leader was elected; and a new boot that has not been able to say anything yet.
// All three may switch a boot off that nobody meant. None can be closed from here, for a device takes no incarnations.

// returnPatience is how long a newer boot that talks, but is not introduced, keeps its predecessor from being shot.
const returnPatience = 15 * time.Second

// A shot is one run of a fence agent.
type shot struct {
	subject lease.Subject
	key     string // bootKey of the incarnation that is meant
	cancel  context.CancelCauseFunc
	called  lease.Instant // when it was called off; 0: it was not
}

// A comeback is the hello of a boot or life that the log does not know yet.
type comeback struct {
	key   string
	since lease.Instant
}

// fenced is the end of one attempt.
type fenced struct {
	led     *leadership
	subject lease.Subject
	device  string
	proof   string
	err     error
}

// fence begins to switch the silent incarnation off. Only a leader does this, after the intent is in the log, and after its term was
// confirmed once more just before the shot.
func (m *member) fence(led *leadership, view *state.State, aim leader.Shot, now lease.Instant) {
	s, devices := aim.Subject, aim.Devices
	ctx, cancel := context.WithCancelCause(led.ctx)
	n := view.Node(s.Node)
	led.mu.Lock()
	defer led.mu.Unlock()
	if m.spared(led, view, s) != "" || led.shots[s.Node] != nil { // which is one against an older incarnation that has not ended yet
		cancel(nil)
		led.duties.Held(s, now)
		return
	}
	led.shots[s.Node] = &shot{subject: s, key: bootKey(n.BootID, n.Life), cancel: cancel}
	led.duties.Fired(s)
	m.work.Go(func() {
		proof, err := m.shoot(ctx, led, devices, s)
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = cause
		}
		cancel(nil)
		led.mu.Lock()
		delete(led.shots, s.Node)
		led.mu.Unlock()
		m.post(fenced{led: led, subject: s, device: nameDevices(devices), proof: proof, err: err})
	})
}

func nameDevices(devices []cluster.FenceDevice) string {
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return strings.Join(names, " and ")
}

// shoot switches the node off by the devices of one level. It is off when each of them has said so after the last of them was
// switched: a node with two power supplies runs on while one of them feeds it, and what one device said before the other's order
// went out says nothing of that moment. So all but the last are asked once more.
func (m *member) shoot(ctx context.Context, led *leadership, devices []cluster.FenceDevice, s lease.Subject) (string, error) {
	r, err := m.commit(ctx, &state.Command{Term: led.term, Fence: &state.Fence{Node: s.Node, Incarnation: s.Incarnation, Device: nameDevices(devices)}})
	if err != nil {
		return "", err
	}
	if r.Refused != "" {
		return "", refusal(r.Refused)
	}
	var proofs []string
	for _, device := range slices.Concat(devices, devices[:len(devices)-1]) {
		proof, err := m.shootBy(ctx, led, device, s)
		if err != nil {
			if len(devices) > 1 {
				err = fmt.Errorf("fence device %s: %w", device.Name, err)
			}
			return "", err
		}
		proofs = append(proofs, proof)
	}
	return strings.Join(proofs[len(devices)-1:], "; "), nil // the newest word of each
}

// shootBy lets one device switch the node off.
func (m *member) shootBy(ctx context.Context, led *leadership, device cluster.FenceDevice, s lease.Subject) (string, error) {
	m.met.ExecutorRun("fence")
	proof, err := m.fencer.Off(ctx, &device, s.Node, func() error {
		if err := led.confirm(ctx); err != nil {
			return err
		}
		led.mu.Lock()
		defer led.mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if why := m.spared(led, m.view(), s); why != "" {
			return calledOff(why)
		}
		return nil
	})
	if _, off := errors.AsType[calledOff](err); err != nil && !off && ctx.Err() == nil {
		m.met.ExecutorFailed("fence")
	}
	return proof, err
}

// calledOff is why a shot was not fired, or was taken back: no failure of the device.
type calledOff string

func (c calledOff) Error() string { return string(c) }

// spared says why the incarnation is not, or no longer, to be shot; empty: it is. Called with led.mu held, by any goroutine.
func (m *member) spared(led *leadership, view *state.State, s lease.Subject) string {
	n := view.Node(s.Node)
	switch {
	case n == nil:
		return "node " + s.Node + " is no longer in the definition"
	case n.Incarnation != s.Incarnation:
		return fmt.Sprintf("node %s has booted again: incarnation %d is meant, the newest is %d", s.Node, s.Incarnation, n.Incarnation)
	case n.Dead != nil:
		return fmt.Sprintf("incarnation %d of node %s is dead already: %s", s.Incarnation, s.Node, n.Dead)
	case n.Lost == nil:
		return "node " + s.Node + " is heard again"
	}
	now := m.clock.Now()
	m.detMu.Lock()
	verdict := m.det.Verdict(s.Node, now)
	silent, ok := m.det.Silent(s.Node, now)
	m.detMu.Unlock()
	heard := ok && silent < m.params().Silence
	if c := led.back[s.Node]; c != nil && c.key != bootKey(n.BootID, n.Life) && heard && now.Sub(c.since) < returnPatience {
		return "node " + s.Node + " has come back and is being introduced"
	}
	if m.handsOver(led, view, s, now) {
		return "node " + s.Node + " is isolated, and hands over what it holds"
	}
	if heard && verdict != detector.Lost && verdict != detector.Isolated {
		return "an earlier leader called node " + s.Node + " silent, but it is heard"
	}
	return ""
}

// comesBack takes the hello of a boot or life that the log does not know: its predecessor is no longer there to be shot. It
// reports whether a shot is still under way, for the hello to be answered later. A platform that may run a second copy of a node
// gives no such word: the first may run on.
func (m *member) comesBack(led *leadership, view *state.State, node string, req helloRequest) (wait bool) {
	n := view.Node(node)
	if n == nil || n.Incarnation == 0 {
		return false
	}
	if d := view.Definition.Node(node); d != nil && d.PlatformRestart && req.BootID != n.BootID {
		return false
	}
	key, now := bootKey(req.BootID, req.Life), m.clock.Now()
	led.mu.Lock()
	defer led.mu.Unlock()
	if c := led.back[node]; c == nil || c.key != key {
		led.back[node] = &comeback{key: key, since: now}
	}
	t := led.shots[node]
	if t == nil || t.key == key {
		return false
	}
	m.callOff(t, "node "+node+" has come back by itself")
	return now.Sub(t.called) < returnPatience // an agent that cannot be killed is not waited for
}

// callOff ends a shot. Called with led.mu held.
func (m *member) callOff(t *shot, why string) {
	if t.called == 0 {
		t.called = m.clock.Now()
		t.cancel(calledOff(why))
	}
}

// tendShots calls off what is no longer to be shot.
func (m *member) tendShots(led *leadership, view *state.State) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, name := range sortedKeys(led.shots) {
		t := led.shots[name]
		if t.called != 0 {
			continue
		}
		if why := m.spared(led, view, t.subject); why != "" {
			m.callOff(t, why)
		}
	}
}

func (m *member) finishFence(e fenced) {
	end := leader.FenceOff
	if _, off := errors.AsType[calledOff](e.err); off {
		end = leader.FenceCalledOff
		m.log.Info("fencing called off", "node", e.subject.Node, "device", e.device, "why", e.err)
	} else if e.err != nil {
		end = leader.FenceFailed
		m.log.Error("fencing failed", "node", e.subject.Node, "device", e.device, "error", e.err)
	}
	e.led.mu.Lock()
	e.led.duties.Fenced(e.subject, end, e.proof, m.clock.Now())
	e.led.mu.Unlock()
	if e.err != nil && e.led.ctx.Err() == nil {
		m.submit(&state.Command{Fence: &state.Fence{Node: e.subject.Node, Incarnation: e.subject.Incarnation, Device: e.device, Failed: e.err.Error()}})
	}
}
