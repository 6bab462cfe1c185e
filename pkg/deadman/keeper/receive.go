package keeper

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Connected notes a new agent connection. The deadman serves the newest one; what an older one asked for is void, because a
// grant that an agent carried before it was replaced may come late (attack A3).
func (k *Keeper) Connected(conn uint64) {
	k.conn = conn
	k.outN = 0
	if k.rules.has(RuleVoid) {
		k.voidNonces()
	}
	k.askNow = true
	k.info()
}

// Disconnected notes the end of a connection. An armed deadman goes on counting.
func (k *Keeper) Disconnected(conn uint64) {
	if conn == k.conn {
		k.conn, k.outN = 0, 0
		if k.rules.has(RuleVoid) {
			k.voidNonces()
		}
	}
}

// Receive takes one frame of the connection. Frames of a connection that is not the newest change nothing.
func (k *Keeper) Receive(r Reading, conn uint64, m *wire.Message) {
	if conn != k.conn || conn == 0 {
		return
	}
	k.watch(r)
	if k.doomed != wire.NoReason {
		k.ack(m.Seq, wire.Resetting)
		return
	}
	switch m.Kind {
	case wire.Hello:
		k.hello(r, m)
	case wire.Renew:
		k.askNow = true
	case wire.Grant:
		k.grant(r.Boot, m)
	case wire.Arm:
		k.arm(r, m)
	case wire.Disarm:
		k.disarm()
		k.info()
		k.ack(m.Seq, wire.OK)
	case wire.Holds:
		k.holds(m)
	case wire.Reset:
		if k.set.ModeEvent { // a human decides
			k.event(wire.Asked, r.Boot)
			k.ack(m.Seq, wire.OK)
			return
		}
		k.ack(m.Seq, wire.Resetting)
		k.doom(wire.Asked, r.Boot)
	default:
		k.ack(m.Seq, wire.NotAgent)
	}
}

// fits says whether timings can be kept at all. pkg/lease judges them for the cluster; this is what the deadman itself needs.
func fits(s *wire.Settings) bool {
	return s.Watchdog > 0 && s.Hard > 0 && s.MaxAge > 0 && s.Margin > 0 && s.Renew > 0 &&
		s.MaxAge+s.Margin < s.Watchdog && s.Hard <= s.Watchdog && s.Renew < s.Hard
}

// hello takes settings. Those that need another timeout of the device wait for it: outside a lease it is set at once, under a
// lease with the next pet, because setting a timeout pets.
func (k *Keeper) hello(r Reading, m *wire.Message) {
	s := m.Settings
	switch {
	case !fits(&s):
		k.ack(m.Seq, wire.BadSettings)
	case k.leavesEventLate(r.Boot, &s):
		k.ack(m.Seq, wire.LeaseRanOut)
	case !k.sameTimeout(s.Watchdog):
		if k.armed && !k.configured { // taken over: nothing can be granted, and no timeout set, before some settings are in force
			first := s
			first.Hard = min(first.Hard, k.watchdog)
			k.settle(first)
		}
		k.staged, k.isStaged, k.stagedSeq, k.stagedConn = s, true, m.Seq, k.conn
		if k.enforces() {
			k.ack(m.Seq, wire.Pending)
		}
	case s.Hard > k.watchdog:
		k.ack(m.Seq, wire.ShortWatchdog)
	default:
		k.isStaged = false
		k.settle(s)
		k.info()
		k.ack(m.Seq, wire.OK)
	}
}

// leavesEventLate: mode e is left for mode a while the lease has already run out; that would reset at once.
func (k *Keeper) leavesEventLate(now lease.Instant, s *wire.Settings) bool {
	return k.armed && k.configured && k.set.ModeEvent && !s.ModeEvent && now >= k.base.Add(s.Hard)
}

// sameTimeout reports whether asking the device for d would change nothing. Devices count in whole seconds and round up.
func (k *Keeper) sameTimeout(d time.Duration) bool {
	const s = time.Second
	return d == k.watchdog || d == k.asked || (d+s-1)/s*s == k.watchdog
}

// arm begins an arming. Requests that are open were made before it and must not count as made under it (attack A5), so they
// are voided and a new one goes out at once. Arming twice changes nothing.
func (k *Keeper) arm(r Reading, m *wire.Message) {
	if !k.configured {
		k.ack(m.Seq, wire.NoSettings)
		return
	}
	if !k.armed {
		k.armed, k.armedAt, k.base = true, r.Boot, r.Boot
		k.holding, k.spoke = false, false
		k.suspended = upper(r)
		k.leader = [16]byte{}
		if k.pet.due {
			k.ack(k.pet.seq, wire.TooOld)
			k.pet = pending{}
		}
		if k.rules.has(RuleArm) {
			k.voidNonces()
		}
		k.askNow = true
	}
	k.info()
	k.ack(m.Seq, wire.OK)
}

// holds notes whether the node has started something in this arming. The agent may start its first thing only after the
// answer: until then the deadman may disarm by itself.
func (k *Keeper) holds(m *wire.Message) {
	if !k.armed {
		k.ack(m.Seq, wire.NotArmed)
		return
	}
	k.holding = m.Started
	k.ack(m.Seq, wire.OK)
}

// grant takes a leader's answer if it is to an open request of this connection and not older than A by our own clock.
func (k *Keeper) grant(now lease.Instant, m *wire.Message) {
	req, ok := k.take(m.Nonce)
	switch {
	case !ok:
		k.fig.Refused++
		k.ack(m.Seq, wire.UnknownNonce)
		return
	case k.rules.has(RuleAge) && now.Sub(req) >= k.set.MaxAge, req < k.fig.Granted:
		k.fig.Late++
		k.ack(m.Seq, wire.TooOld)
		return
	}
	if k.lostTime(now, m) {
		k.doom(wire.ClockLost, now)
		k.ack(m.Seq, wire.Resetting)
		return
	}
	k.leader, k.leaderTime, k.leaderReq = m.Boot, m.Time, req
	k.askNext = 0
	if m.Next > 0 {
		k.askNext = now.Add(m.Next)
	}
	k.fig.Granted = req
	k.fig.Taken++
	k.spoke = false
	if k.armed {
		k.base = req
	}
	if k.pet.due { // an older grant whose pet was not made yet: the newer one's pet answers both
		k.ack(k.pet.seq, wire.OK)
	}
	k.pet = pending{due: true, seq: m.Seq, kill: req.Add(k.set.MaxAge + k.set.Margin)}
}

// take finds the open request and closes it.
func (k *Keeper) take(n lease.Nonce) (req lease.Instant, ok bool) {
	for i := range k.nonces {
		if o := &k.nonces[i]; o.at != 0 && o.nonce == n {
			req = o.at
			*o = open{}
			return req, true
		}
	}
	return 0, false
}

// lostTime reports whether the leader's clock advanced by more than p beyond what ours can explain: the first reading was
// taken after t_req of the first grant, the second before the receipt of the second. Then our clocks stood still meanwhile.
func (k *Keeper) lostTime(now lease.Instant, m *wire.Message) bool {
	if !k.enforces() || !k.rules.has(RuleLeader) || k.leader != m.Boot || m.Boot == ([16]byte{}) {
		return false
	}
	ours := now.Sub(k.leaderReq)
	theirs := m.Time.Sub(k.leaderTime)
	return theirs > ours+time.Duration(float64(ours)*2*lease.Rho)+k.set.Margin
}
