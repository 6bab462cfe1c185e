package keeper

import (
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

const ms = time.Millisecond

// fast are the timings of these tests: those of the fast profile.
var fast = wire.Settings{Watchdog: 2000 * ms, Hard: 1900 * ms, MaxAge: 300 * ms, Margin: 100 * ms, Renew: 200 * ms}

// rig drives a keeper by hand: time stands still unless a test moves it.
type rig struct {
	t        *testing.T
	k        *Keeper
	now      lease.Instant
	asleep   time.Duration // how long CLOCK_MONOTONIC stood still so far
	conn     uint64
	drawn    byte
	requests []wire.Message
	acks     map[uint32]wire.Code
	events   []wire.Reason
	info     wire.State
	pets     []lease.Instant
	kills    []lease.Instant
	resets   []wire.Reason
	timeout  time.Duration // what the device has in force
	granule  time.Duration // what the device counts in
	broken   bool          // the device refuses everything
	seq      uint32
}

func newRig(t *testing.T, without Rule, change ...func(*Options)) *rig {
	o := Options{Class: lease.Independent, Watchdog: fast.Watchdog, Held: true, Pid: 7}
	for _, f := range change {
		f(&o)
	}
	r := &rig{t: t, now: lease.Instant(time.Hour), acks: map[uint32]wire.Code{}, timeout: o.Watchdog, granule: ms}
	r.k = newKeeper(o, r.reading(), rules{without: without})
	return r
}

func (r *rig) reading() Reading {
	mono := r.now.Add(-r.asleep)
	return Reading{Boot: r.now, MonoBefore: mono, MonoAfter: mono}
}

// settle does what the keeper wants, and returns when it wants to look again.
func (r *rig) settle() lease.Instant {
	r.t.Helper()
	for range 100 {
		a := r.k.Next(r.reading())
		switch a.Op {
		case Wait:
			r.take()
			return a.At
		case Ask:
			r.drawn++
			r.k.Asked(r.now, lease.Nonce{r.drawn})
		case Pet:
			r.pet(a)
		case SetTimeout:
			r.k.TimeoutSet(r.reading(), r.setTimeout(a.Timeout))
		case Reset:
			r.take()
			r.resets = append(r.resets, a.Why)
			return 0
		}
	}
	r.t.Fatal("the keeper never comes to rest")
	return 0
}

func (r *rig) setTimeout(d time.Duration) time.Duration {
	if r.broken {
		return 0
	}
	r.timeout = (d + r.granule - 1) / r.granule * r.granule
	return r.timeout
}

func (r *rig) pet(a Action) {
	if !r.k.MayPet(r.reading()) {
		return
	}
	var inForce time.Duration
	if a.Timeout != 0 {
		inForce = r.setTimeout(a.Timeout)
	}
	r.pets, r.kills = append(r.pets, r.now), append(r.kills, a.Kill)
	r.k.Petted(r.reading(), !r.broken, inForce)
}

// take reads the frames for the agent.
func (r *rig) take() {
	var m wire.Message
	for r.k.Out(&m) {
		switch m.Kind {
		case wire.Request:
			r.requests = append(r.requests, m)
		case wire.Ack:
			r.acks[m.Seq] = m.Code
		case wire.Event:
			r.events = append(r.events, m.Reason)
		case wire.Info:
			r.info = m.State
		}
	}
}

// pass lets time pass, waking the keeper when it wants to be woken.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for len(r.resets) == 0 && r.now < end {
		at := r.settle()
		if at == 0 || at >= end {
			break
		}
		r.now = max(r.now.Add(ms), at) // a keeper without a rule may want to look at a moment that is past
	}
	r.now = end
	if len(r.resets) == 0 {
		r.settle()
	}
}

// send gives the keeper a frame of the newest connection, and returns its answer.
func (r *rig) send(m wire.Message) wire.Code {
	r.t.Helper()
	r.seq++
	m.Seq = r.seq
	r.k.Receive(r.reading(), r.conn, &m)
	r.settle()
	return r.acks[m.Seq]
}

func (r *rig) connect() {
	r.conn++
	r.k.Connected(r.conn)
	r.settle()
}

func (r *rig) must(c wire.Code) {
	r.t.Helper()
	if c != wire.OK {
		r.t.Fatalf("the keeper answers: %s", c.Text())
	}
}

func (r *rig) hello(s wire.Settings) wire.Code {
	return r.send(wire.Message{Kind: wire.Hello, Settings: s})
}

// serve brings the rig to where it serves an agent.
func (r *rig) serve() *rig {
	r.connect()
	r.must(r.hello(fast))
	return r
}

// arm brings it to where the node runs something under a fresh grant.
func (r *rig) arm() *rig {
	r.serve()
	r.must(r.send(wire.Message{Kind: wire.Arm}))
	r.must(r.send(wire.Message{Kind: wire.Holds, Started: true}))
	r.pass(minAsk)
	r.must(r.grant(r.newest()))
	return r
}

func (r *rig) newest() wire.Message {
	r.t.Helper()
	if len(r.requests) == 0 {
		r.t.Fatal("the deadman has asked for nothing")
	}
	return r.requests[len(r.requests)-1]
}

func (r *rig) grant(req wire.Message) wire.Code {
	r.t.Helper()
	return r.send(wire.Message{Kind: wire.Grant, Nonce: req.Nonce, Boot: [16]byte{1}, Time: r.now})
}

// expect fails the test unless the condition is what the keeper's rules, complete or not, should make of it.
func expect(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Errorf(format, args...)
	}
}

// A grant may bring the next request forward, by no more than 20 ms after the last one, but never put it off: a leader that says
// "in an hour" is asked again at the deadman's own pace.
func TestAGrantNamesTheNextRequest(t *testing.T) {
	for _, c := range []struct{ next, want time.Duration }{
		{0, fast.Renew}, {fast.Renew / 2, fast.Renew / 2}, {time.Microsecond, minAsk}, {time.Hour, fast.Renew},
	} {
		r := newRig(t, 0).arm()
		r.pass(fast.Renew)
		req := r.newest()
		r.must(r.send(wire.Message{Kind: wire.Grant, Nonce: req.Nonce, Boot: [16]byte{1}, Time: r.now, Next: c.next}))
		for asked := len(r.requests); len(r.requests) == asked && r.now.Sub(req.At) <= fast.Renew; {
			r.pass(time.Millisecond)
		}
		if got := r.newest().At.Sub(req.At); got < c.want || got > c.want+time.Millisecond {
			t.Errorf("next %v: asked again after %v, want %v", c.next, got, c.want)
		}
		// It counts once: the request after that comes at the deadman's own pace again.
		last := r.newest()
		for asked := len(r.requests); len(r.requests) == asked && r.now.Sub(last.At) <= fast.Renew; {
			r.pass(time.Millisecond)
		}
		if got := r.newest().At.Sub(last.At); got < fast.Renew || got > fast.Renew+time.Millisecond {
			t.Errorf("next %v: the request after that came after %v, want %v", c.next, got, fast.Renew)
		}
	}
}

func TestDisarmedPetsFreely(t *testing.T) {
	r := newRig(t, 0)
	r.pass(10 * time.Second)
	expect(t, len(r.pets) >= 20, "%d pets in 10 s at W = 2 s", len(r.pets))
	for _, at := range r.kills {
		expect(t, at == 0, "a pet outside a lease has a kill time")
	}
	expect(t, len(r.resets) == 0 && len(r.requests) == 0, "resets %v, %d requests without an agent", r.resets, len(r.requests))
}

func TestArmedPetsOnlyUnderGrants(t *testing.T) {
	r := newRig(t, 0).arm()
	before := len(r.pets)
	r.pass(fast.Hard - 100*ms)
	expect(t, len(r.pets) == before, "%d pets without a grant", len(r.pets)-before)
	expect(t, r.grant(r.newest()) == wire.OK && len(r.pets) == before+1, "a fresh grant did not make the deadman pet")
	expect(t, r.kills[before] == r.newest().At.Add(fast.MaxAge+fast.Margin), "the kill time is not t_req + A + p")
}

func TestAsksEveryRenewAndOutOfTurn(t *testing.T) {
	r := newRig(t, 0).serve()
	r.pass(2 * time.Second)
	n := len(r.requests)
	expect(t, n == 11, "%d requests in 2 s at renew = 200 ms", n)
	for range 50 {
		r.send(wire.Message{Kind: wire.Renew})
	}
	r.pass(minAsk)
	expect(t, len(r.requests) == n+1, "%d requests for many wishes at once", len(r.requests)-n)
	seen := map[lease.Nonce]bool{}
	for _, q := range r.requests {
		expect(t, !seen[q.Nonce], "a nonce came twice")
		seen[q.Nonce] = true
	}
}

// grantCase is what becomes of a grant.
type grantCase struct {
	name    string
	without Rule
	make    func(r *rig) wire.Code
	want    wire.Code
}

func TestGrantIsTakenOrRefused(t *testing.T) {
	old := func(d time.Duration) func(*rig) wire.Code {
		return func(r *rig) wire.Code {
			r.send(wire.Message{Kind: wire.Renew})
			r.pass(minAsk)
			q := r.newest()
			r.now = q.At.Add(d)
			return r.grant(q)
		}
	}
	for _, c := range []grantCase{
		{"fresh", 0, old(1 * ms), wire.OK},
		{"just under A", 0, old(fast.MaxAge - 1), wire.OK},
		{"A3: as old as A", 0, old(fast.MaxAge), wire.TooOld},
		{"A3: older", 0, old(fast.MaxAge + 50*ms), wire.TooOld},
		{"A3: older, no age rule", RuleAge, old(fast.MaxAge + 50*ms), wire.OK},
		{"a nonce never drawn", 0, func(r *rig) wire.Code { return r.grant(wire.Message{Nonce: lease.Nonce{99}}) }, wire.UnknownNonce},
		{"twice", 0, func(r *rig) wire.Code { return r.grant(r.newest()) }, wire.UnknownNonce},
		{"out of order", 0, func(r *rig) wire.Code {
			r.pass(fast.Renew)
			q := r.newest()
			r.send(wire.Message{Kind: wire.Renew})
			r.pass(minAsk)
			r.must(r.grant(r.newest()))
			return r.grant(q)
		}, wire.TooOld},
		{"A3: carried by an agent that was replaced", 0, replaced, wire.UnknownNonce},
		{"A3: carried by an agent that was replaced, no such rule", RuleVoid, replaced, wire.OK},
		{"over a connection that was replaced", 0, func(r *rig) wire.Code {
			r.pass(fast.Renew)
			q := r.newest()
			r.connect()
			r.conn--
			defer func() { r.conn++ }()
			pets := len(r.pets)
			r.grant(q)
			expect(r.t, len(r.pets) == pets, "an old connection made the deadman pet")
			return wire.UnknownNonce
		}, wire.UnknownNonce},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.without).arm()
			pets := len(r.pets)
			got := c.make(r)
			expect(t, got == c.want, "the grant is answered: %s, want: %s", got.Text(), c.want.Text())
			expect(t, len(r.pets) > pets || c.want != wire.OK, "no pet for a grant taken")
		})
	}
}

func replaced(r *rig) wire.Code {
	r.pass(fast.Renew)
	q := r.newest()
	r.connect()
	return r.grant(q)
}

func TestA5ArmingVoidsWhatWasAskedBefore(t *testing.T) {
	for _, without := range []Rule{0, RuleArm} {
		r := newRig(t, without).serve()
		r.pass(fast.Renew)
		q := r.newest()
		asked := len(r.requests)
		r.must(r.send(wire.Message{Kind: wire.Arm}))
		expect(t, r.info.Armed && r.info.ArmedAt == r.now && q.At < r.info.ArmedAt || q.At == r.info.ArmedAt, "info after arming: %+v", r.info)
		got := r.grant(q)
		expect(t, (got == wire.OK) == (without == RuleArm), "a grant asked for before arming is answered: %s", got.Text())
		r.pass(minAsk)
		expect(t, len(r.requests) > asked, "arming did not make the deadman ask at once")
	}
}

func TestArmingTwiceDoesNotLengthenTheLease(t *testing.T) {
	r := newRig(t, 0).arm()
	r.pass(fast.Hard - 30*ms - minAsk)
	r.must(r.send(wire.Message{Kind: wire.Arm}))
	r.pass(50 * ms)
	expect(t, len(r.resets) > 0, "the node outlived L_hard")
}

func TestHardLimitResets(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(r *rig) (from lease.Instant)
	}{
		{"after a grant, from its t_req", func(r *rig) lease.Instant { return r.arm().k.fig.Granted }},
		{"before the first grant, from the arming", func(r *rig) lease.Instant {
			r.serve()
			r.must(r.send(wire.Message{Kind: wire.Arm}))
			r.must(r.send(wire.Message{Kind: wire.Holds, Started: true}))
			return r.now
		}},
		{"after a take-over, from its beginning", func(r *rig) lease.Instant {
			r.k = newKeeper(Options{Class: lease.Independent, Watchdog: fast.Watchdog, TakenOver: true}, r.reading(), r.k.rules)
			at := r.now
			r.now = r.now.Add(50 * ms)
			r.serve()
			return at
		}},
		{"with the agent gone", func(r *rig) lease.Instant {
			r.arm()
			r.k.Disconnected(r.conn)
			return r.k.fig.Granted
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 0)
			from := c.run(r)
			r.pass(from.Add(fast.Hard).Sub(r.now) - 1)
			expect(t, len(r.resets) == 0, "reset %v before L_hard: %v", from.Add(fast.Hard).Sub(r.now), r.resets)
			r.pass(1)
			expect(t, len(r.resets) > 0 && r.resets[0] == wire.LeaseLost, "no reset at L_hard: %v", r.resets)

			r = newRig(t, RuleHard)
			c.run(r)
			r.pass(2 * fast.Hard)
			expect(t, len(r.resets) == 0, "without the rule the node is reset all the same")
		})
	}
}

// A deadman that slept through L_hard must not be saved by a grant that lies in its socket.
func TestB3OwnLatenessBeyondHardLimit(t *testing.T) {
	r := newRig(t, 0).arm()
	r.pass(fast.Hard - 60*ms - minAsk)
	r.send(wire.Message{Kind: wire.Renew})
	r.pass(minAsk)
	q := r.newest()
	r.now = q.At.Add(100 * ms) // fresh by its age; but L_hard has passed meanwhile
	if got := r.grant(q); got != wire.Resetting {
		t.Errorf("the grant is answered: %s", got.Text())
	}
	expect(t, len(r.resets) > 0, "a late deadman went on")
}

func TestNodeThatStartedNothingDisarms(t *testing.T) {
	r := newRig(t, 0).serve()
	r.must(r.send(wire.Message{Kind: wire.Arm}))
	r.pass(minAsk)
	r.must(r.grant(r.newest()))
	r.pass(fast.Hard + time.Second)
	expect(t, len(r.resets) == 0 && !r.info.Armed, "resets %v, info %+v", r.resets, r.info)
	expect(t, len(r.events) == 1 && r.events[0] == wire.SelfDisarmed, "events %v", r.events)
	// The agent that did not see it yet wants to start its first thing now: it must be told.
	expect(t, r.send(wire.Message{Kind: wire.Holds, Started: true}) == wire.NotArmed, "a disarmed deadman lets its agent start something")
	pets := len(r.pets)
	r.pass(5 * time.Second)
	expect(t, len(r.pets) > pets, "disarmed, and does not pet")
}

func TestModeEventTellsAndPets(t *testing.T) {
	r := newRig(t, 0).serve()
	s := fast
	s.ModeEvent = true
	r.must(r.hello(s))
	r.must(r.send(wire.Message{Kind: wire.Arm}))
	r.must(r.send(wire.Message{Kind: wire.Holds, Started: true}))
	r.pass(5 * fast.Hard)
	expect(t, len(r.resets) == 0, "mode e resets")
	expect(t, len(r.events) == 1 && r.events[0] == wire.LeaseLost, "one event for one lapse: %v", r.events)
	for i := 1; i < len(r.pets); i++ {
		expect(t, r.pets[i].Sub(r.pets[i-1]) <= fast.Watchdog/2, "the watchdog came near its end in mode e")
	}
	expect(t, r.hello(fast) == wire.LeaseRanOut, "mode a was taken where it resets at once")
	r.pass(fast.Renew)
	r.must(r.grant(r.newest()))
	r.must(r.hello(fast))
	r.pass(fast.Hard)
	expect(t, len(r.resets) > 0, "back in mode a the node outlives L_hard")
}

func TestA3LateAtAnyStepOfThePet(t *testing.T) {
	for _, step := range []string{"before the pet", "after the pet"} {
		for _, without := range []Rule{0, RuleLate} {
			r := newRig(t, without).arm()
			r.pass(fast.Renew)
			q := r.newest()
			m := wire.Message{Kind: wire.Grant, Nonce: q.Nonce, Time: r.now}
			r.k.Receive(r.reading(), r.conn, &m)
			a := r.k.Next(r.reading())
			if a.Op != Pet {
				t.Fatalf("a fresh grant makes the keeper say %+v", a)
			}
			late := func() { r.now = a.Kill }
			if step == "before the pet" {
				late()
			}
			petted := r.k.MayPet(r.reading())
			if petted {
				if step == "after the pet" {
					late()
				}
				r.k.Petted(r.reading(), true, 0)
			}
			got := r.k.Next(r.reading())
			if without == 0 {
				expect(t, got.Op == Reset && got.Why == wire.PetLate, "%s: late, and the keeper says %+v", step, got)
				expect(t, !petted || step == "after the pet", "%s: late, and petted", step)
			} else {
				expect(t, got.Op != Reset && petted, "%s: without the rule the lateness is seen all the same", step)
			}
		}
	}
}

func TestB3SuspendResets(t *testing.T) {
	for _, c := range []struct {
		name    string
		without Rule
		armed   bool
		asleep  time.Duration
		reset   bool
	}{
		{"over p", 0, true, fast.Margin + 1, true},
		{"over p, no such rule", RuleSuspend, true, fast.Margin + 1, false},
		{"p", 0, true, fast.Margin, false},
		{"disarmed", 0, false, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.without)
			if c.armed {
				r.arm()
			} else {
				r.serve()
			}
			r.now, r.asleep = r.now.Add(c.asleep), r.asleep+c.asleep
			r.settle()
			expect(t, (len(r.resets) > 0) == c.reset, "slept %v: resets %v", c.asleep, r.resets)
		})
	}
}

// A preemption between two readings of clocks is no suspend.
func TestB3PreemptionIsNoSuspend(t *testing.T) {
	r := newRig(t, 0).arm()
	for range 20 {
		rd := r.reading()
		rd.MonoBefore = rd.MonoBefore.Add(-500 * ms) // half a second between the first and the second reading
		r.k.Next(rd)
		rd = r.reading()
		rd.MonoAfter = rd.MonoAfter.Add(500 * ms)
		r.k.Next(rd)
	}
	expect(t, r.k.Doomed() == wire.NoReason, "reset: %s", r.k.Doomed().Text())
}

func TestB3LeaderClockShowsAPause(t *testing.T) {
	boot1, boot2 := [16]byte{1}, [16]byte{2}
	for _, c := range []struct {
		name    string
		without Rule
		boot    [16]byte
		ahead   time.Duration // how much further the leader's clock went than ours
		reset   bool
	}{
		{"ours stood still", 0, boot1, fast.Margin + fast.Renew, true},
		{"ours stood still, no such rule", RuleLeader, boot1, fast.Margin + fast.Renew, false},
		{"within p", 0, boot1, fast.Margin - 10*ms, false},
		{"another boot", 0, boot2, time.Hour, false},
		{"the leader's went back", 0, boot1, -time.Hour / 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.without).serve()
			r.must(r.send(wire.Message{Kind: wire.Arm}))
			r.must(r.send(wire.Message{Kind: wire.Holds, Started: true}))
			r.pass(minAsk)
			theirs := lease.Instant(10 * time.Hour) // another machine's origin
			first := r.newest()
			r.must(r.send(wire.Message{Kind: wire.Grant, Nonce: first.Nonce, Boot: boot1, Time: theirs}))
			r.pass(fast.Renew)
			second := r.newest()
			ours := r.now.Sub(first.At)
			got := r.send(wire.Message{Kind: wire.Grant, Nonce: second.Nonce, Boot: c.boot, Time: theirs.Add(ours + c.ahead)})
			expect(t, (got == wire.Resetting) == c.reset && (len(r.resets) > 0) == c.reset, "answer %s, resets %v", got.Text(), r.resets)
		})
	}
}

func TestB5DisarmedIsAStateNotAnEnd(t *testing.T) {
	r := newRig(t, 0, func(o *Options) { o.NoWayOut = true }).arm()
	expect(t, !r.k.MayStop(r.now), "a clean stop while armed")
	r.must(r.send(wire.Message{Kind: wire.Disarm}))
	expect(t, !r.k.MayStop(r.now), "a clean stop of a watchdog that cannot be stopped")
	r.k.Disconnected(r.conn)
	r.pass(time.Minute)
	expect(t, len(r.resets) == 0, "an idle node without a leader was reset: %v", r.resets)
	for i := 1; i < len(r.pets); i++ {
		expect(t, r.pets[i].Sub(r.pets[i-1]) < fast.Watchdog, "the watchdog ran out on an idle node")
	}

	r = newRig(t, 0).arm()
	expect(t, !r.k.MayStop(r.now), "a clean stop while armed")
	r.must(r.send(wire.Message{Kind: wire.Disarm}))
	expect(t, r.k.MayStop(r.now), "no clean stop of a disarmed deadman whose watchdog can be stopped")
}

func TestA2TakenOverCountsAsArmed(t *testing.T) {
	taken := func(o *Options) { o.TakenOver = true }
	r := newRig(t, 0, taken)
	r.pass(time.Second)
	expect(t, len(r.pets) == 0, "a deadman that took over pets without a grant of its own")
	r.serve()
	expect(t, r.info.Armed && r.info.TakenOver, "info %+v", r.info)
	r.pass(minAsk)
	r.must(r.grant(r.newest()))
	expect(t, len(r.pets) == 1, "%d pets after its first grant", len(r.pets))
	r.pass(fast.Hard + 1)
	expect(t, len(r.resets) > 0, "who took over disarmed by itself")

	r = newRig(t, 0, taken).serve()
	r.must(r.send(wire.Message{Kind: wire.Disarm}))
	expect(t, !r.info.Armed && !r.info.TakenOver && len(r.pets) > 0, "the agent's word did not disarm it: %+v", r.info)

	r = newRig(t, RuleTaken, taken)
	r.pass(time.Second)
	expect(t, len(r.pets) > 0, "without the rule nothing pets: the check above would not notice its loss")
}

func TestSettings(t *testing.T) {
	larger := wire.Settings{Watchdog: 5000 * ms, Hard: 4600 * ms, MaxAge: 500 * ms, Margin: 100 * ms, Renew: 500 * ms}
	t.Run("outside a lease at once", func(t *testing.T) {
		r := newRig(t, 0).serve()
		r.must(r.hello(larger))
		expect(t, r.timeout == larger.Watchdog && r.info.Watchdog == larger.Watchdog, "device %v, info %v", r.timeout, r.info.Watchdog)
	})
	t.Run("under a lease with the next pet", func(t *testing.T) {
		r := newRig(t, 0).arm()
		seq := r.seq + 1
		expect(t, r.hello(larger) == wire.Pending && r.timeout == fast.Watchdog, "set without a grant: that pets")
		r.pass(fast.Renew)
		r.must(r.grant(r.newest()))
		expect(t, r.acks[seq] == wire.OK && r.timeout == larger.Watchdog && r.k.set == larger, "after a grant: %v, %+v", r.timeout, r.k.set)
	})
	t.Run("a device that rounds up", func(t *testing.T) {
		r := newRig(t, 0).serve()
		r.granule = 4 * time.Second
		r.must(r.hello(larger))
		expect(t, r.info.Watchdog == 8*time.Second, "in force %v, reported %v", r.timeout, r.info.Watchdog)
	})
	t.Run("a device that refuses", func(t *testing.T) {
		r := newRig(t, 0).serve()
		r.broken = true
		expect(t, r.hello(larger) == wire.DeviceFailed && r.k.set == fast, "settings that the device refused are in force")
	})
	t.Run("that do not fit", func(t *testing.T) {
		r := newRig(t, 0).serve()
		for _, change := range []func(*wire.Settings){
			func(s *wire.Settings) { s.Hard = s.Watchdog + 1 },
			func(s *wire.Settings) { s.MaxAge = s.Watchdog },
			func(s *wire.Settings) { s.Renew = 0 },
			func(s *wire.Settings) { s.Margin = 0 },
			func(s *wire.Settings) { s.Hard = 0 },
		} {
			s := fast
			change(&s)
			expect(t, r.hello(s) == wire.BadSettings, "%+v was taken", s)
		}
		expect(t, r.k.set == fast, "wrong settings changed something")
	})
	t.Run("larger ones for a deadman that took over", func(t *testing.T) {
		r := newRig(t, 0, func(o *Options) { o.TakenOver = true })
		r.connect()
		r.hello(larger)
		r.pass(minAsk)
		r.must(r.grant(r.newest()))
		expect(t, r.k.set == larger && r.timeout == larger.Watchdog, "in force %+v", r.k.set)
	})
	t.Run("arming before any", func(t *testing.T) {
		r := newRig(t, 0)
		r.connect()
		expect(t, r.send(wire.Message{Kind: wire.Arm}) == wire.NoSettings, "armed without timings")
	})
	t.Run("a frame that is none of an agent's", func(t *testing.T) {
		r := newRig(t, 0).serve()
		expect(t, r.send(wire.Message{Kind: wire.Status}) == wire.NotAgent, "taken")
	})
}

func TestAgentAsksForReset(t *testing.T) {
	r := newRig(t, 0).arm()
	expect(t, r.send(wire.Message{Kind: wire.Reset}) == wire.Resetting, "not acknowledged")
	expect(t, len(r.resets) == 1 && r.resets[0] == wire.Asked, "resets %v", r.resets)

	r = newRig(t, 0).serve()
	s := fast
	s.ModeEvent = true
	r.must(r.hello(s))
	expect(t, r.send(wire.Message{Kind: wire.Reset}) == wire.OK && len(r.resets) == 0, "mode e resets: %v", r.resets)
	expect(t, len(r.events) == 1 && r.events[0] == wire.Asked, "events %v", r.events)
}

func TestHolderLostIsTold(t *testing.T) {
	r := newRig(t, 0).arm()
	r.k.SetHeld(r.now, false)
	r.take()
	expect(t, !r.info.Held && len(r.events) == 1 && r.events[0] == wire.HolderLost, "info %+v, events %v", r.info, r.events)
	r.k.SetHeld(r.now, true)
	r.take()
	expect(t, r.info.Held && len(r.events) == 1, "info %+v, events %v", r.info, r.events)
}

func TestPetThatFailsIsTold(t *testing.T) {
	r := newRig(t, 0).arm()
	r.broken = true
	r.pass(fast.Renew)
	expect(t, r.grant(r.newest()) == wire.DeviceFailed, "a grant whose pet failed was acknowledged")
	expect(t, len(r.events) == 1 && r.events[0] == wire.PetFailed, "events %v", r.events)
}

func TestAgentThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	r := newRig(t, 0).serve()
	for range 10 * outSize {
		r.now = r.now.Add(fast.Renew)
		for a := r.k.Next(r.reading()); a.Op != Wait; a = r.k.Next(r.reading()) {
			switch a.Op {
			case Ask:
				r.drawn++
				r.k.Asked(r.now, lease.Nonce{r.drawn, 1})
			case Pet:
				r.k.Petted(r.reading(), true, 0)
			}
		}
	}
	r.requests = nil
	r.take()
	expect(t, len(r.requests) <= outSize && r.newest().At == r.k.lastAsk, "the newest request was lost")
}

func TestLoopAllocatesNothing(t *testing.T) {
	r := newRig(t, 0).arm()
	var m wire.Message
	n := testing.AllocsPerRun(100, func() {
		r.now = r.now.Add(fast.Renew)
		for a := r.k.Next(r.reading()); a.Op != Wait; a = r.k.Next(r.reading()) {
			r.k.Asked(r.now, lease.Nonce{1})
		}
		m = wire.Message{Kind: wire.Grant, Nonce: lease.Nonce{1}, Boot: [16]byte{1}, Time: r.now}
		r.k.Receive(r.reading(), r.conn, &m)
		for a := r.k.Next(r.reading()); a.Op != Wait; a = r.k.Next(r.reading()) {
			if r.k.MayPet(r.reading()) {
				r.k.Petted(r.reading(), true, 0)
			}
		}
		for r.k.Out(&m) {
		}
	})
	expect(t, n == 0, "%v allocations for one request, grant and pet", n)
	expect(t, r.k.Doomed() == wire.NoReason && r.k.fig.Taken > 100, "it did not run: %+v", r.k.fig)
}
