// Package keeper decides for a deadman: when it asks for a grant, which grant it takes, when it pets the watchdog and under
// which time limit, and when it resets the node.
//
// It is a state machine without I/O, clock, goroutine or randomness; the process around it reads clocks, draws nonces, talks to
// the device and does what Next says. It promises that, driven so, no pet under a lease begins after t_req + A + p of a grant
// that this very keeper asked for over its newest agent connection; it does not promise that a process lives to pet.
// It allocates nothing after New. Not safe for concurrent use.
package keeper

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Reading is one look at the machine's clocks. CLOCK_MONOTONIC, which stands still while the machine is suspended, is read
// before and after CLOCK_BOOTTIME, so that a preemption between the readings is not taken for a suspend.
type Reading struct {
	Boot                  lease.Instant
	MonoBefore, MonoAfter lease.Instant
}

// An Op says what the process has to do next.
type Op uint8

// What Next asks for.
const (
	Wait       Op = iota // until At or until something arrives
	Ask                  // draw a nonce, read the clock, call Asked
	Pet                  // the pet sequence, see Action
	SetTimeout           // set the device's timeout outside a lease, then call TimeoutSet
	Reset                // reset the node now, and never pet again
)

// An Action is Next's answer.
//
// The pet sequence, which is the answer to a pause between check and pet (attack A3): if Kill is not 0, arm a timer of the
// kernel that kills the process at Kill; ask MayPet with a new reading, and leave the device alone if it says no; set Timeout if
// it is not 0; pet; disarm the timer; call Petted with a new reading.
type Action struct {
	Op      Op
	At      lease.Instant // Wait: look again then at the latest
	Kill    lease.Instant // Pet: 0 outside a lease
	Timeout time.Duration // Pet, SetTimeout: the timeout to ask the device for; 0 leaves it
	Why     wire.Reason   // Reset
}

// Options describe what the keeper is put in front of.
type Options struct {
	Class     lease.Class
	TakenOver bool          // the descriptor came from a predecessor: counts as armed
	Watchdog  time.Duration // the device's timeout in force
	Held      bool          // somebody else holds the device's descriptor too
	NoWayOut  bool          // the device cannot be stopped
	Fired     bool          // the device says that it ended the machine before this boot
	Pid       int
	Warnings  []wire.Warning // those over wire.MaxWarnings are dropped
}

const (
	openNonces = 64                    // requests whose answer may still come
	outSize    = 64                    // frames that wait for the process to send them
	minAsk     = 20 * time.Millisecond // between two requests, however often the agent wants one
	maxFree    = time.Second           // between two pets outside a lease, at most; a quarter of the timeout if that is less
)

// open is a request that was not answered yet.
type open struct {
	nonce lease.Nonce
	at    lease.Instant // 0: the place is free
}

// pending is a grant taken, whose pet is still to be made.
type pending struct {
	due  bool
	seq  uint32
	kill lease.Instant
}

// A Keeper is the state machine.
type Keeper struct {
	o       Options
	rules   rules
	started lease.Instant

	conn       uint64 // newest agent connection, 0 for none
	configured bool
	set        wire.Settings
	staged     wire.Settings // settings that wait for the device's timeout
	isStaged   bool
	stagedSeq  uint32
	stagedConn uint64
	watchdog   time.Duration // in force
	asked      time.Duration // what the device was last asked for

	armed   bool
	armedAt lease.Instant
	holding bool          // the node has started something in this arming
	base    lease.Instant // L_hard counts from here
	spoke   bool          // mode e: the event of this lapse was raised
	doomed  wire.Reason

	nonces  [openNonces]open
	place   int
	lastAsk lease.Instant
	askNow  bool
	askNext lease.Instant // when the newest grant wants the next request; 0: it does not say
	pet     pending
	freeAt  lease.Instant // when the last pet outside a lease was made
	free    bool          // one was made at all

	leader     [16]byte // boot of the leader that granted last
	leaderTime lease.Instant
	leaderReq  lease.Instant // t_req of that grant
	suspended  time.Duration // smallest upper bound on BOOTTIME - MONOTONIC since arming

	fig  wire.Figures
	out  [outSize]wire.Message
	outN int
	outI int
}

// New returns a keeper in front of an open device: disarmed, so that it pets freely, or armed if the device was taken over
// from a predecessor, because then nothing is known of what runs on this node.
func New(o Options, r Reading) *Keeper { return newKeeper(o, r, rules{}) }

func newKeeper(o Options, r Reading, have rules) *Keeper {
	k := &Keeper{o: o, rules: have, started: r.Boot, watchdog: o.Watchdog, asked: o.Watchdog, suspended: upper(r)}
	if o.TakenOver && have.has(RuleTaken) {
		k.armed, k.armedAt, k.base, k.holding = true, r.Boot, r.Boot, have.has(RuleHolding)
	}
	return k
}

func upper(r Reading) time.Duration { return r.Boot.Sub(r.MonoBefore) }
func lower(r Reading) time.Duration { return r.Boot.Sub(r.MonoAfter) }

// enforces reports whether missing grants reset the node.
func (k *Keeper) enforces() bool { return k.armed && !k.set.ModeEvent }

// Armed reports whether the keeper pets only under grants.
func (k *Keeper) Armed() bool { return k.armed }

// Doomed reports why the node is being reset; NoReason if it is not.
func (k *Keeper) Doomed() wire.Reason { return k.doomed }

// Figures are the counters so far.
func (k *Keeper) Figures() wire.Figures { return k.fig }

// hardAt is the moment at which the lease is lost, 0 while no settings say so.
func (k *Keeper) hardAt() lease.Instant {
	if !k.configured || !k.armed {
		return 0
	}
	return k.base.Add(k.set.Hard)
}

// doom decides on a reset. The first reason stays.
func (k *Keeper) doom(why wire.Reason, now lease.Instant) {
	if k.doomed == wire.NoReason {
		k.doomed = why
		k.send(wire.Message{Kind: wire.Event, Reason: why, At: now, Dooms: true})
	}
}

// watch checks what time alone can show: a suspended machine, and a lease that has run out. Everything that comes in is
// looked at after it, so that a late grant cannot save a node whose deadman slept through L_hard.
func (k *Keeper) watch(r Reading) {
	if u := upper(r); u < k.suspended {
		k.suspended = u
	}
	if k.enforces() && k.configured && k.rules.has(RuleSuspend) && lower(r)-k.suspended > k.set.Margin {
		k.doom(wire.Suspended, r.Boot)
	}
	at := k.hardAt()
	if at == 0 || r.Boot < at {
		return
	}
	switch {
	case !k.rules.has(RuleHard):
	case k.set.ModeEvent:
		if !k.spoke {
			k.spoke = true
			k.event(wire.LeaseLost, r.Boot)
		}
	case !k.holding:
		k.disarm()
		k.event(wire.SelfDisarmed, r.Boot)
		k.info()
	default:
		k.doom(wire.LeaseLost, r.Boot)
	}
}

// Next says what to do now. It is to be called after each input, and again after each thing done, until it says Wait.
func (k *Keeper) Next(r Reading) Action {
	now := r.Boot
	k.watch(r)
	switch {
	case k.doomed != wire.NoReason:
		return Action{Op: Reset, Why: k.doomed}
	case k.pet.due && k.enforces():
		return Action{Op: Pet, Kill: k.pet.kill, Timeout: k.stagedTimeout()}
	case k.isStaged && !k.enforces():
		return Action{Op: SetTimeout, Timeout: k.staged.Watchdog}
	case k.pet.due: // a pet under a grant that nothing demands: a free one
		return Action{Op: Pet}
	case k.freePetDue(now):
		return Action{Op: Pet}
	case k.askDue(now):
		return Action{Op: Ask}
	}
	return Action{Op: Wait, At: k.wake()}
}

// stagedTimeout is the timeout to set with the next pet under a grant: setting one pets the device, so it needs the same right.
func (k *Keeper) stagedTimeout() time.Duration {
	if k.isStaged {
		return k.staged.Watchdog
	}
	return 0
}

func (k *Keeper) freeInterval() time.Duration { return min(k.watchdog/4, maxFree) }

func (k *Keeper) freePetDue(now lease.Instant) bool {
	return !k.enforces() && (!k.free || now.Sub(k.freeAt) >= k.freeInterval())
}

func (k *Keeper) askAt() lease.Instant {
	switch {
	case k.conn == 0 || !k.configured:
		return 0
	case k.lastAsk == 0:
		return 1
	case k.askNow:
		return k.lastAsk.Add(min(minAsk, k.set.Renew))
	}
	// A leader may bring requests forward, so that those of many nodes come together, but never put one off: when this deadman
	// has to ask is its own affair.
	own := k.lastAsk.Add(k.set.Renew)
	if k.askNext != 0 && k.askNext < own {
		return max(k.askNext, k.lastAsk.Add(min(minAsk, k.set.Renew)))
	}
	return own
}

func (k *Keeper) askDue(now lease.Instant) bool {
	at := k.askAt()
	return at != 0 && now >= at
}

// wake is the earliest moment at which time alone changes what Next says; 0 if nothing does.
func (k *Keeper) wake() lease.Instant {
	var at lease.Instant
	sooner := func(t lease.Instant) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	sooner(k.askAt())
	if k.enforces() || !k.spoke {
		sooner(k.hardAt())
	}
	if !k.enforces() {
		sooner(k.freeAt.Add(k.freeInterval()))
	}
	return at
}

// Asked notes that a request with that nonce, drawn at now, goes to the agent.
func (k *Keeper) Asked(now lease.Instant, nonce lease.Nonce) {
	k.lastAsk, k.askNow, k.askNext = now, false, 0
	k.nonces[k.place] = open{nonce: nonce, at: now}
	k.place = (k.place + 1) % openNonces
	k.fig.Asked++
	k.send(wire.Message{Kind: wire.Request, Nonce: nonce, At: now})
}

// MayPet is asked between the arming of the kill timer and the pet. A timer armed for a moment that is already past kills a
// little later than at once; this closes that gap.
func (k *Keeper) MayPet(r Reading) bool {
	if !k.pet.due || !k.enforces() || !k.rules.has(RuleLate) || r.Boot < k.pet.kill {
		return true
	}
	k.doom(wire.PetLate, r.Boot)
	return false
}

// Petted notes the end of a pet sequence. ok says that the device took it; inForce is the timeout that the device reported, 0
// if none was set.
func (k *Keeper) Petted(r Reading, ok bool, inForce time.Duration) {
	now := r.Boot
	if !ok {
		k.event(wire.PetFailed, now)
	} else {
		k.fig.Pets++
		k.fig.PettedAt = now
	}
	if !k.enforces() {
		k.freeAt, k.free = now, true
	}
	if !k.pet.due {
		return
	}
	p := k.pet
	k.pet = pending{}
	if k.enforces() {
		if k.rules.has(RuleLate) && now >= p.kill {
			k.doom(wire.PetLate, now)
			k.ack(p.seq, wire.Resetting)
			return
		}
		k.fig.Margin = p.kill.Sub(now)
		if k.fig.MinMargin == 0 || k.fig.Margin < k.fig.MinMargin {
			k.fig.MinMargin = k.fig.Margin
		}
	}
	if k.isStaged && k.enforces() {
		k.timeoutSet(inForce)
	}
	if !ok {
		k.ack(p.seq, wire.DeviceFailed)
	} else {
		k.ack(p.seq, wire.OK)
	}
	k.send(wire.Message{Kind: wire.Status, Figures: k.fig})
}

// TimeoutSet notes the answer of the device to SetTimeout; 0 if it refused.
func (k *Keeper) TimeoutSet(r Reading, inForce time.Duration) {
	k.freeAt, k.free = r.Boot, true // setting a timeout pets
	k.timeoutSet(inForce)
}

func (k *Keeper) timeoutSet(inForce time.Duration) {
	s, seq := k.staged, k.stagedSeq
	k.isStaged = false
	code := wire.OK
	switch {
	case inForce == 0:
		code = wire.DeviceFailed
	default:
		k.watchdog, k.asked = inForce, s.Watchdog
		if s.Hard > inForce {
			code = wire.ShortWatchdog
		}
	}
	if code == wire.OK {
		k.settle(s)
	}
	if k.stagedConn == k.conn {
		k.info()
		k.ack(seq, code)
	}
}

// settle puts settings in force.
func (k *Keeper) settle(s wire.Settings) {
	k.set, k.configured = s, true
	k.askNow = true
}

// SetHeld notes whether somebody else holds the device's descriptor now.
func (k *Keeper) SetHeld(now lease.Instant, held bool) {
	if held == k.o.Held {
		return
	}
	k.o.Held = held
	if !held {
		k.event(wire.HolderLost, now)
	}
	k.info()
}

// MayStop reports whether a clean stop is allowed now: disarmed, and the device can be stopped.
func (k *Keeper) MayStop(now lease.Instant) bool {
	if k.armed || k.o.NoWayOut || k.doomed != wire.NoReason {
		k.event(wire.StopRefused, now)
		return false
	}
	return true
}

// voidNonces makes every open request unanswerable.
func (k *Keeper) voidNonces() { k.nonces = [openNonces]open{} }

func (k *Keeper) disarm() {
	k.armed, k.armedAt, k.base, k.holding, k.spoke = false, 0, 0, false, false
	k.free = false // pet soon, whenever the last one was
	k.o.TakenOver = false
}

// send queues a frame for the agent. If the process does not drain the queue, the oldest frame is lost: an agent that is
// stopped must not hold up its deadman.
func (k *Keeper) send(m wire.Message) {
	if k.conn == 0 {
		return
	}
	if k.outN == outSize {
		k.outI, k.outN = (k.outI+1)%outSize, k.outN-1
	}
	k.out[(k.outI+k.outN)%outSize] = m
	k.outN++
}

func (k *Keeper) ack(seq uint32, c wire.Code) {
	k.send(wire.Message{Kind: wire.Ack, Seq: seq, Code: c})
}

func (k *Keeper) event(why wire.Reason, now lease.Instant) {
	k.send(wire.Message{Kind: wire.Event, Reason: why, At: now})
}

// info tells the agent how the deadman is. Where an answer follows it comes first, so that who has the answer knows.
func (k *Keeper) info() { k.send(wire.Message{Kind: wire.Info, State: k.State()}) }

// State describes the deadman as an Info does.
func (k *Keeper) State() wire.State {
	s := wire.State{
		Independent: k.o.Class == lease.Independent, ModeEvent: k.set.ModeEvent, Armed: k.armed, Held: k.o.Held,
		TakenOver: k.o.TakenOver, NoWayOut: k.o.NoWayOut, Pid: uint32(k.o.Pid), Watchdog: k.watchdog, Started: k.started, ArmedAt: k.armedAt,
		Fired: k.o.Fired,
	}
	copy(s.Warnings[:], k.o.Warnings)
	return s
}

// Out takes the next frame for the newest agent connection.
func (k *Keeper) Out(m *wire.Message) bool {
	if k.outN == 0 {
		return false
	}
	*m = k.out[k.outI]
	k.outI, k.outN = (k.outI+1)%outSize, k.outN-1
	return true
}
