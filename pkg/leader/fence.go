package leader

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// fenceRetry is the pause after a round over all of a node's fence levels in vain. It doubles each time.
const (
	fenceRetry    = time.Second
	fenceRetryMax = 30 * time.Second
)

// fencing is one attempt after another to switch a silent incarnation off.
type fencing struct {
	running  bool
	proof    string // what the devices said; empty: not off yet
	proposed bool
	next     int           // which of the node's levels is tried next
	retry    lease.Instant // not before
	rounds   int           // over all levels, in vain
}

// aim lists the devices to shoot by now, nil for none.
func (f *fencing) aim(levels [][]*cluster.FenceDevice, now lease.Instant) []cluster.FenceDevice {
	switch {
	case len(levels) == 0 || f.running || f.proof != "" || now < f.retry:
		return nil
	case f.next >= len(levels):
		f.rounds++
		f.next, f.retry = 0, now.Add(min(fenceRetry<<min(f.rounds, 5), fenceRetryMax))
		return nil
	}
	var out []cluster.FenceDevice
	for _, d := range levels[f.next] {
		out = append(out, *d)
	}
	return out
}

// HandsOver reports whether a silent node is to be left to hand its groups over by itself: its heartbeat on the repository volume goes on,
// and it is granted by mail, or may still be. One that beats and takes no grants any more is given up when its lease ran out. So is one
// left that has done so a moment ago and is heard over a network again: it is about to ask. A proof that is held back frees nothing.
//
// What is UNMANAGED is not among what it holds under a lease: such a node is left alone for as long as its heartbeat goes on. What is
// managed again without the node's knowing (state.Instance.Outside) is, and nobody knows whether the node will ever hand it over; as no
// proof but a strong one frees it, waiting while the node is granted costs nothing that the operator's word could not end.
func (d *Duties) HandsOver(l Look, s lease.Subject) bool {
	if !l.Detector.OnDisk(s.Node, l.Now) && !l.Detector.ComesBack(s.Node, l.Now) {
		return false
	}
	if len(l.View.Holds(s.Node, s.Incarnation)) == 0 {
		return true // there is nothing to free
	}
	t0 := d.book.T0(s)
	return t0 == 0 || l.Now.Sub(t0) < l.Params.Hard
}

// Fired tells that a shot of the last Findings is under way: no other is aimed at its subject before Fenced.
func (d *Duties) Fired(s lease.Subject) { d.fencing[s].running = true }

// Held tells that a shot was not fired, and may be in a moment.
func (d *Duties) Held(s lease.Subject, now lease.Instant) { d.fencing[s].retry = now.Add(refusedPause) }

// A FenceEnd is how a shot ended.
type FenceEnd int

// The ends of a shot.
const (
	FenceOff       FenceEnd = iota // all devices of the level say that the machine is off
	FenceFailed                    // the next level is tried
	FenceCalledOff                 // no failure of the devices: the same level may be tried again
)

// Fenced tells how a shot ended. proof is what the devices said, for FenceOff alone.
func (d *Duties) Fenced(s lease.Subject, end FenceEnd, proof string, now lease.Instant) {
	f := d.fencing[s]
	if f == nil {
		return
	}
	f.running = false
	switch end {
	case FenceOff:
		f.proof = proof
	case FenceFailed:
		f.next++
	case FenceCalledOff:
		f.retry = now.Add(refusedPause)
	}
}
