package sim

import "time"

// netQuality is how the network behaves besides what is cut.
type netQuality struct {
	loss, repeat, late float64       // chances of one message
	lateBy             time.Duration // at most, of those that are late or repeated
	slow               time.Duration // added to each, at most
}

// carries reports whether a message that leaves now reaches the other node.
func (w *world) carries(from, to int) bool { return from == to || w.cut[from][to] == 0 }

// send carries one message from an agent to whatever agent runs on the node when it arrives, after a time of the network's own
// choice, or never, or twice.
func (a *agent) send(to, kind string, f func(*agent)) {
	w := a.w
	if to == a.name {
		w.post(a.p, w.soon(), kind, func() { f(a) })
		return
	}
	dst := w.byName[to]
	if dst == nil || a.m.cutOff || !w.carries(a.n.index, dst.index) {
		w.stats.Lost++
		return
	}
	w.stats.Messages++
	if w.net.loss > 0 && w.chance(w.net.loss) {
		w.stats.Lost++
		return
	}
	d := w.delay()
	if by := a.n.late[kind]; by > 0 {
		d += by
		delete(a.n.late, kind)
	}
	w.schedule(&event{to: dst, kind: kind, receive: f}, d)
	if by := a.n.again[kind]; by > 0 {
		w.stats.Repeated++
		delete(a.n.again, kind)
		w.schedule(&event{to: dst, kind: kind, receive: f}, d+by)
	}
	if w.net.repeat > 0 && w.chance(w.net.repeat) {
		w.stats.Repeated++
		w.schedule(&event{to: dst, kind: kind, receive: f}, w.delay()+w.between(0, w.net.lateBy))
	}
}

func (w *world) delay() time.Duration {
	d := w.between(60*time.Microsecond, 600*time.Microsecond)
	if w.net.slow > 0 {
		d += w.between(0, w.net.slow)
	}
	if w.net.late > 0 && w.chance(w.net.late) {
		d += w.between(0, w.net.lateBy)
	}
	return d
}

// call is a call from one agent to another (pkg/peer): the answer, or the failure, is given to done once. A call to itself goes
// the same way without the network.
func call[R any](a *agent, to, kind string, limit time.Duration, serve func(dst *agent, reply func(R)), done func(R, bool)) {
	w := a.w
	w.rpcs++
	over := false
	var none R
	end := func(r R, ok bool) {
		if !over {
			over = true
			done(r, ok)
		}
	}
	epoch := a.p.epoch
	a.send(to, kind, func(dst *agent) {
		if dst != a {
			dst.heard(a.name, pathPeer)
		}
		serve(dst, func(r R) {
			dst.answer(a, epoch, kind, func() {
				if dst != a {
					a.heard(to, pathPeer)
				}
				end(r, true)
			})
		})
	})
	w.post(a.p, limit, kind, func() { end(none, false) })
}

// answer carries a reply back to the process that asked.
func (a *agent) answer(asker *agent, epoch int, kind string, f func()) {
	w := a.w
	if asker == a {
		w.post(a.p, w.soon(), kind, f)
		return
	}
	if a.m.cutOff || asker.m.cutOff || !w.carries(a.n.index, asker.n.index) || w.net.loss > 0 && w.chance(w.net.loss) {
		w.stats.Lost++
		return
	}
	w.stats.Messages++
	w.schedule(&event{p: asker.p, epoch: epoch, kind: kind, fn: f}, w.delay())
}
