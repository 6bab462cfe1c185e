package detector

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

const ms = time.Millisecond

// origin is some moment after boot.
const origin = lease.Instant(1000 * time.Second)

func at(d time.Duration) lease.Instant { return origin.Add(d) }

func params(t testing.TB, profile string) (Params, lease.Params) {
	t.Helper()
	p, err := lease.Profile(profile)
	if err != nil {
		t.Fatal(err)
	}
	return ParamsFor(p), p
}

// A loop drives a detector as the agent does: a pass whenever Next asks.
type loop struct {
	d   *Detector
	now lease.Instant
	due lease.Instant // of the next pass
	log []string      // "1.000s n2 alive>lost"
	why []string
}

func newLoop(p Params, nodes ...string) *loop {
	l := &loop{d: New(p, origin), now: origin, due: origin}
	l.d.Watch(nodes, origin)
	return l
}

func (l *loop) pass() {
	for _, c := range l.d.Changes(l.now) {
		l.log = append(l.log, fmt.Sprintf("%v %s %v>%v", l.now.Sub(origin), c.Node, c.From, c.To))
		l.why = append(l.why, c.Why)
	}
	l.due = l.d.Next(l.now)
}

// until passes through time, with a pass whenever it is due.
func (l *loop) until(end lease.Instant) {
	for l.due <= end {
		l.now = max(l.now, l.due)
		l.pass()
	}
	l.now = end
}

func (l *loop) observe(at lease.Instant, node string, path Path) {
	l.until(at)
	l.d.Observe(node, path, at)
	l.pass()
}

func (l *loop) want(t *testing.T, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(l.log, want) {
		t.Errorf("changes:\n%s\nwant:\n%s", strings.Join(l.log, "\n"), strings.Join(want, "\n"))
	}
}

// leases sends n2's lease requests every renew until (and not at) end.
func (l *loop) leases(from, end lease.Instant, renew time.Duration) {
	for ; from < end; from = from.Add(renew) {
		l.observe(from, "n2", PathLease)
	}
}

func TestSilentNodeIsLost(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.leases(at(0), at(2100*ms), 500*ms)
	l.until(at(10 * time.Second))
	l.want(t, "0s n2 unknown>alive", "2.6s n2 alive>suspect", "3s n2 suspect>lost")
	if want := "no lease request for 1s"; l.why[2] != want {
		t.Errorf("why: %q, want %q", l.why[2], want)
	}
	l.observe(at(11*time.Second), "n2", PathRaft)
	if v := l.d.Verdict("n2", l.now); v != Lost {
		t.Errorf("raft traffic alone brought it back: %v", v)
	}
	l.observe(at(12*time.Second), "n2", PathLease)
	if v := l.d.Verdict("n2", l.now); v != Alive {
		t.Errorf("after a lease request: %v", v)
	}
}

func TestNeverHeardNodeIsLostNotFlapping(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.until(at(5 * time.Second))
	l.want(t, "1s n2 unknown>lost")
	if n := l.d.Flaps("n2", l.now); n != 0 {
		t.Errorf("%d flaps", n)
	}
}

// A daemon that is being restarted: its kernel refuses connections. It has the time of its lease.
func TestRefusedProbesHoldLostBack(t *testing.T) {
	p, lp := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.observe(at(0), "n2", PathLease)
	for d := 600 * ms; d < 10*time.Second; d += 200 * ms {
		l.until(at(d))
		l.d.Probe("n2", Refused, l.now)
		l.pass()
	}
	l.want(t, "0s n2 unknown>alive", "600ms n2 alive>suspect", lp.Soft.String()+" n2 suspect>lost")
	if !strings.Contains(l.why[2], "its kernel refused a connection") {
		t.Errorf("why: %q", l.why[2])
	}
}

// A daemon whose loop hangs while other goroutines go on talking.
func TestHungLoopIsLostInTheEnd(t *testing.T) {
	p, lp := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.observe(at(0), "n2", PathLease)
	for d := 50 * ms; d < 10*time.Second; d += 50 * ms {
		l.observe(at(d), "n2", PathRaft)
	}
	l.want(t, "0s n2 unknown>alive", "600ms n2 alive>suspect", lp.Soft.String()+" n2 suspect>lost")
}

func TestGossipHurriesOnlyTheLook(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.observe(at(0), "n2", PathLease)
	l.until(at(100 * ms))
	l.d.Hint("n2", "net1", true, l.now)
	l.d.Hint("n2", "net2", false, l.now)
	l.pass()
	if v := l.d.Verdict("n2", l.now); v != Alive {
		t.Errorf("down on one of two networks: %v", v)
	}
	l.d.Hint("n2", "net1", false, l.now)
	l.pass()
	if v := l.d.Verdict("n2", l.now); v != Suspect {
		t.Errorf("down on all networks: %v", v)
	}
	if due := l.d.ProbesDue(l.now); !reflect.DeepEqual(due, []string{"n2"}) {
		t.Errorf("probes due: %v", due)
	}
	if due := l.d.ProbesDue(l.now.Add(ms)); due != nil {
		t.Errorf("probes due at once again: %v", due)
	}
	// It lives: leases go on, whatever gossip and probes say.
	for d := 200 * ms; d < 20*time.Second; d += 500 * ms {
		l.until(at(d))
		l.d.Hint("n2", "net1", false, l.now)
		l.d.Hint("n2", "net2", false, l.now)
		l.d.Probe("n2", TimedOut, l.now)
		l.d.Probe("n2", TimedOut, l.now)
		l.observe(at(d), "n2", PathLease)
	}
	for _, s := range l.log {
		if strings.Contains(s, "lost") {
			t.Errorf("a node that asks for its lease: %s", s)
		}
	}
}

// Neither gossip nor probes nor both make a node lost before Silence.
func TestNothingShortensSilence(t *testing.T) {
	for _, profile := range lease.Profiles() {
		p, _ := params(t, profile)
		l := newLoop(p, "n2")
		l.lead("")
		l.observe(at(0), "n2", PathLease)
		l.until(at(ms))
		l.d.Hint("n2", "net1", false, l.now)
		for range 10 {
			l.d.Probe("n2", TimedOut, l.now)
		}
		l.pass()
		l.until(at(10 * time.Second))
		l.want(t, "0s n2 unknown>alive", "1ms n2 alive>suspect", p.Silence.String()+" n2 suspect>lost")
		if why := l.why[2]; !strings.Contains(why, "probes without answer: 10; gossip calls it down on all networks") {
			t.Errorf("why: %q", why)
		}
	}
}

func TestIsolated(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	l.observe(at(0), "n2", PathLease)
	for d := 200 * ms; d <= 3*time.Second; d += 200 * ms {
		l.observe(at(d), "n2", PathDisk)
	}
	l.until(at(10 * time.Second))
	l.want(t, "0s n2 unknown>alive", "600ms n2 alive>suspect", "1s n2 suspect>isolated", "4s n2 isolated>lost")
	l.observe(at(11*time.Second), "n2", PathDisk)
	if v := l.d.Verdict("n2", l.now); v != Isolated {
		t.Errorf("a lost node's disk heartbeat: %v", v)
	}
}

// A node that was isolated and is heard over a network again is not lost while it has not asked for its lease yet, though it writes to
// the volume more rarely now. That ends with Patience after its last heartbeat there, and with Silence after it was last heard.
func TestIsolatedComesBack(t *testing.T) {
	p, _ := params(t, "default")
	for _, heard := range []Path{PathPeer, PathRaft} {
		for name, c := range map[string]struct {
			asks, heardUntil, lost time.Duration
		}{
			"it asks":          {5 * time.Second, 5 * time.Second, 6 * time.Second},
			"it goes again":    {0, 4 * time.Second, 5 * time.Second},
			"it never asks":    {0, 20 * time.Second, 3*time.Second + p.Patience},
			"it is not heard":  {0, 0, 4 * time.Second},
			"heard for a blip": {0, 3600 * ms, 4750 * ms},
		} {
			l := newLoop(p, "n2")
			l.lead("")
			l.observe(at(0), "n2", PathLease)
			for d := 200 * ms; d <= 20*time.Second; d += 200 * ms {
				if d <= 3*time.Second {
					l.observe(at(d), "n2", PathDisk)
				} else if d <= c.heardUntil {
					l.observe(at(d), "n2", heard)
				}
				if c.asks != 0 && d == c.asks {
					l.observe(at(d), "n2", PathLease)
				}
			}
			want := []string{"0s n2 unknown>alive", "600ms n2 alive>suspect", "1s n2 suspect>isolated"}
			if c.heardUntil != 0 {
				want = append(want, "3.2s n2 isolated>suspect", "3.6s n2 suspect>isolated") // Patience since it last asked
			}
			if c.asks != 0 {
				want = append(want, "5s n2 isolated>alive", "5.6s n2 alive>suspect", "6s n2 suspect>lost")
			} else {
				want = append(want, c.lost.String()+" n2 isolated>lost")
			}
			l.until(at(20 * time.Second))
			if fmt.Sprint(l.log) != fmt.Sprint(want) {
				t.Errorf("%s, %s: %q, want %q", name, heard, l.log, want)
			}
		}
	}
}

// The disk is no network: a node that only its disk heartbeat shows is silent for all who ask whether it can be talked to, and one that
// does not lead calls nobody alive for it.
func TestDiskIsNoNetwork(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.observe(at(0), "n2", PathRaft)
	for d := time.Duration(0); d <= 5*time.Second; d += 200 * ms {
		l.observe(at(d), "n2", PathDisk)
	}
	if silent, ok := l.d.Silent("n2", at(5*time.Second)); !ok || silent != 5*time.Second {
		t.Errorf("silent for %v, %v", silent, ok)
	}
	if v := l.d.Verdict("n2", at(5*time.Second)); v != Unknown {
		t.Errorf("a node that does not lead says %v", v)
	}
	if !l.d.OnDisk("n2", at(5*time.Second)) || l.d.OnDisk("n2", at(7*time.Second)) || l.d.OnDisk("n9", at(5*time.Second)) {
		t.Error("OnDisk is not that the disk heartbeat is fresh")
	}
}

// A new leader need not wait a second time for the leader that crashed, and gives all others their time.
func TestNewLeader(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n1", "n3")
	for d := time.Duration(0); d <= 5*time.Second; d += 100 * ms {
		l.observe(at(d), "n1", PathRaft) // the leader's heartbeats
	}
	l.until(at(5800 * ms))
	l.lead("n1")
	l.pass()
	l.log = nil
	l.until(at(8 * time.Second))
	l.want(t, "6s n1 unknown>lost", "6.8s n3 unknown>lost")
}

// A leader that gave its leadership away lives and asks the new one soon.
func TestTransferredLeadership(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n1")
	l.observe(at(0), "n1", PathRaft)
	l.until(at(50 * ms))
	l.lead("n1")
	l.observe(at(700*ms), "n1", PathLease)
	for _, s := range l.log {
		if strings.Contains(s, "lost") {
			t.Error(s)
		}
	}
}

// Without the lead no verdict is Lost, and what was lost is judged anew by the next leader.
func TestFollowerJudgesNobody(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.observe(at(0), "n2", PathPeer)
	l.until(at(time.Minute))
	l.pass()
	if v := l.d.Verdict("n2", l.now); v != Unknown {
		t.Errorf("a follower says %v", v)
	}
	l.lead("")
	l.until(l.now.Add(5 * time.Second))
	if v := l.d.Verdict("n2", l.now); v != Lost {
		t.Errorf("a leader says %v", v)
	}
	l.d.Follow()
	if v := l.d.Verdict("n2", l.now); v != Unknown {
		t.Errorf("a former leader says %v", v)
	}
	l.lead("")
	if v := l.d.Verdict("n2", l.now); v != Unknown {
		t.Errorf("a new leader says %v", v)
	}
}

func TestWatchAndStrangers(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n3", "n2")
	l.lead("")
	l.observe(at(0), "stranger", PathLease)
	l.d.Hint("stranger", "net1", false, l.now)
	l.d.Probe("stranger", TimedOut, l.now)
	if len(l.d.nodes) != 2 || l.d.Verdict("stranger", l.now) != Unknown || l.d.Heard("stranger", l.now) != nil {
		t.Error("a stranger left a trace")
	}
	l.observe(at(100*ms), "n2", PathLease)
	l.until(at(800 * ms))
	l.d.Watch([]string{"n2", "n4"}, l.now) // n3 leaves, n4 comes
	l.until(at(5 * time.Second))
	l.want(t, "100ms n2 unknown>alive", "700ms n2 alive>suspect", "1.1s n2 suspect>lost", "1.8s n4 unknown>lost")
}

func TestFlaps(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	l.lead("")
	for d := time.Duration(0); d < 3*time.Minute; d += 20 * time.Second { // 10 s up, 10 s down
		l.leases(at(d), at(d+10*time.Second), 500*ms)
	}
	l.until(at(3 * time.Minute))
	if n := l.d.Flaps("n2", l.now); n != 9 {
		t.Errorf("%d flaps in 3 minutes, want 9", n)
	}
	if n := l.d.Flaps("n2", l.now.Add(p.Window)); n != 0 {
		t.Errorf("%d flaps after the window", n)
	}
	for range 3 * maxLosses {
		l.observe(l.now.Add(5*time.Second), "n2", PathLease)
		l.until(l.now.Add(5 * time.Second))
	}
	if n := len(l.d.nodes["n2"].losses); n > maxLosses {
		t.Errorf("%d losses are kept", n)
	}
}

func TestHeardAndSilent(t *testing.T) {
	p, _ := params(t, "default")
	l := newLoop(p, "n2")
	if _, ok := l.d.Silent("n2", l.now); ok {
		t.Error("a node never heard has a silence")
	}
	l.observe(at(0), "n2", PathRaft)
	l.observe(at(100*ms), "n2", GossipOn("net1"))
	l.observe(at(50*ms), "n2", GossipOn("net1")) // late, ignored
	if s, ok := l.d.Silent("n2", at(300*ms)); !ok || s != 200*ms {
		t.Errorf("silent for %v, %v", s, ok)
	}
	want := []Heard{{"gossip net1", 200 * ms}, {"raft", 300 * ms}}
	if got := l.d.Heard("n2", at(300*ms)); !reflect.DeepEqual(got, want) {
		t.Errorf("heard %v", got)
	}
}

// --- properties ---

// An event of a random history.
type event struct {
	after time.Duration // since the event before
	kind  string        // lease, raft, disk, answered, refused, timeout, down, up, pass
	node  string
}

func history(t *rapid.T) []event {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
		return event{
			after: time.Duration(rapid.IntRange(0, 300).Draw(t, "after")) * ms,
			kind: rapid.SampledFrom([]string{"lease", "raft", "disk", "answered", "refused", "timeout", "timeout", "down", "down", "up",
				"pass"}).Draw(t, "kind"),
			node: rapid.SampledFrom([]string{"n2", "n3"}).Draw(t, "node"),
		}
	}), 1, 80).Draw(t, "history")
}

func (l *loop) apply(e event) {
	l.until(l.now.Add(e.after))
	switch e.kind {
	case "lease":
		l.d.Observe(e.node, PathLease, l.now)
	case "raft":
		l.d.Observe(e.node, PathRaft, l.now)
	case "disk":
		l.d.Observe(e.node, PathDisk, l.now)
	case "answered":
		l.d.Probe(e.node, Answered, l.now)
	case "refused":
		l.d.Probe(e.node, Refused, l.now)
	case "timeout":
		l.d.Probe(e.node, TimedOut, l.now)
	case "down", "up":
		l.d.Hint(e.node, "net1", e.kind == "up", l.now)
	}
	l.pass()
}

func drawParams(t *rapid.T) Params {
	p, err := lease.Profile(rapid.SampledFrom(lease.Profiles()).Draw(t, "profile"))
	if err != nil {
		t.Fatal(err)
	}
	return ParamsFor(p)
}

// With a loop that runs on time, each verdict is what a second, stupid implementation says that looks at the whole history.
func TestPropertySameAsStupid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawParams(t)
		l := newLoop(p, "n2", "n3")
		l.lead("")
		var past []stupidEvent
		for _, e := range history(t) {
			l.apply(e)
			past = append(past, stupidEvent{l.now, e.kind, e.node})
			for _, n := range []string{"n2", "n3"} {
				if got, want := l.d.Verdict(n, l.now), stupid(p, past, n, l.now); got != want {
					t.Fatalf("%s at %v: %v, want %v", n, l.now.Sub(origin), got, want)
				}
			}
		}
	})
}

type stupidEvent struct {
	at   lease.Instant
	kind string
	node string
}

// stupid decides by looking at each millisecond since the beginning.
func stupid(p Params, past []stupidEvent, name string, now lease.Instant) State {
	leaseAt := origin
	var asked, contact, refused, disk, downAt lease.Instant
	var heard, down, lost bool
	judge := func(at lease.Instant) State {
		gone := down && downAt > contact && downAt > asked
		silence := p.Silence
		kernel := max(contact, refused)
		shown := kernel != 0 && at.Sub(kernel) < silence && at.Sub(leaseAt) < p.Patience
		switch {
		case at.Sub(leaseAt) >= silence && !shown && disk != 0 && at.Sub(disk) < p.Silence:
			return Isolated
		case at.Sub(leaseAt) >= silence && !shown:
			return Lost
		case gone || heard && at.Sub(leaseAt) >= p.Doubt:
			return Suspect
		case heard:
			return Alive
		}
		return Unknown
	}
	i := 0
	for at := origin; at <= now; at = at.Add(ms) {
		for ; i < len(past) && past[i].at == at; i++ {
			if judge(at) == Lost { // before the event
				lost = true
			}
			if past[i].node != name {
				continue
			}
			switch past[i].kind {
			case "lease":
				leaseAt, asked, heard, lost = at, at, true, false
			case "disk":
				disk, heard, lost = at, true, false
			case "raft", "answered":
				contact = at
			case "refused":
				refused = at
			case "down":
				down, downAt = true, at
			case "up":
				down = false
			}
		}
		if judge(at) == Lost {
			lost = true
		}
	}
	if lost {
		return Lost
	}
	return judge(now)
}

// Nothing but missing lease requests loses a node: with one at least every Silence nothing else matters.
func TestPropertyLeasesKeepANodeAlive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawParams(t)
		l := newLoop(p, "n2", "n3")
		l.lead("")
		l.d.Observe("n2", PathLease, origin)
		last := origin
		for _, e := range history(t) {
			end := l.now.Add(e.after)
			for due := last.Add(p.Silence - ms); due <= end; due = last.Add(p.Silence - ms) {
				l.observe(due, "n2", PathLease)
				last = due
			}
			e.after = end.Sub(l.now)
			l.apply(e)
			if l.d.Verdict("n2", l.now) == Lost {
				t.Fatalf("lost at %v: %v", l.now.Sub(origin), l.log)
			}
			if e.kind == "lease" && e.node == "n2" {
				last = l.now
			}
		}
	})
}

// A node from which nothing comes any more is lost after Silence and one pass, whatever was before.
func TestPropertySilenceIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawParams(t)
		l := newLoop(p, "n2", "n3")
		l.lead("")
		for _, e := range history(t) {
			l.apply(e)
		}
		l.until(l.now.Add(p.Silence))
		l.pass()
		for _, n := range []string{"n2", "n3"} {
			if v := l.d.Verdict(n, l.now); v != Lost {
				t.Fatalf("%s is %v after a silence of %v", n, v, p.Silence)
			}
		}
	})
}

// A stall of the observer loses nobody, if what waited in the sockets is read within Silence after it.
func TestPropertyOwnStallLosesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawParams(t)
		l := newLoop(p, "n2")
		l.lead("")
		for range rapid.IntRange(1, 10).Draw(t, "stalls") {
			l.observe(l.now, "n2", PathLease)
			l.until(l.now.Add(time.Duration(rapid.IntRange(0, int(p.Silence/ms)-1).Draw(t, "before")) * ms))
			fresh := p.Silence - l.now.Sub(l.d.nodes["n2"].lease()) // what is left of its silence
			l.now = l.now.Add(time.Duration(rapid.IntRange(int(p.Silence/ms)*7/10, 10000).Draw(t, "stall")) * ms)
			l.pass()
			left := fresh - p.Silence/4 // of the gap, at most a quarter of Silence was no stall
			l.until(l.now.Add(max(0, left-ms)))
			if v := l.d.Verdict("n2", l.now); v == Lost {
				t.Fatalf("lost by the observer's own stall: %v", l.log)
			}
			l.observe(l.now, "n2", PathLease)
		}
	})
}

// The same calls give the same changes, in the order of names.
func TestPropertyDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, h := drawParams(t), history(t)
		var logs [2][]string
		for i := range logs {
			l := newLoop(p, "n3", "n2")
			l.lead("")
			for _, e := range h {
				l.apply(e)
			}
			logs[i] = append(l.log, l.why...)
		}
		if !reflect.DeepEqual(logs[0], logs[1]) {
			t.Fatalf("%v\n%v", logs[0], logs[1])
		}
	})
}

func TestPropertyNextIsAheadAndSoon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawParams(t)
		l := newLoop(p, "n2", "n3")
		l.lead("")
		for _, e := range history(t) {
			l.apply(e)
			if next := l.d.Next(l.now); next <= l.now || next.Sub(l.now) > p.Silence/4 {
				t.Fatalf("next is %v after now", next.Sub(l.now))
			}
		}
	})
}

// --- figures ---

// TestFigures prints how soon a crash is found, and how often a living node on a badly loaded machine is called lost.
func TestFigures(t *testing.T) {
	for _, profile := range lease.Profiles() {
		p, lp := params(t, profile)
		rng := rand.New(rand.NewPCG(1, 2))
		var sum, worst time.Duration
		const runs = 300
		for range runs {
			crash := 10*lp.Renew + time.Duration(rng.Int64N(int64(lp.Renew)))
			d := timeToLost(p, lp.Renew, crash)
			sum, worst = sum+d, max(worst, d)
		}
		t.Logf("%-8s silence %v: crash found after %v, at most %v; false losses in 10 h under heavy load: %d", profile, p.Silence,
			(sum / runs).Round(ms), worst.Round(ms), falseLosses(p, lp.Renew))
		if worst > p.Silence {
			t.Errorf("%s: a crash was found after %v only", profile, worst)
		}
	}
}

// timeToLost is the time from a crash to the verdict.
func timeToLost(p Params, renew, crash time.Duration) time.Duration {
	l := newLoop(p, "n2")
	l.lead("")
	for d := time.Duration(0); d < crash; d += renew {
		l.observe(at(d), "n2", PathLease)
	}
	for l.d.Verdict("n2", l.now) != Lost {
		l.until(l.due)
	}
	return l.now.Sub(at(crash))
}

// falseLosses counts how often a node is lost in 10 hours that lives on a machine where each of its requests is late by an
// exponential time of mean 30 ms, and each 200th time its whole process stands still for up to 0.8 s.
func falseLosses(p Params, renew time.Duration) int {
	rng := rand.New(rand.NewPCG(1, 1))
	l := newLoop(p, "n2")
	l.lead("")
	lost := 0
	for l.now < at(10*time.Hour) {
		next := l.now.Add(renew + time.Duration(rng.ExpFloat64()*float64(30*ms)))
		if rng.IntN(200) == 0 {
			next = next.Add(time.Duration(rng.Int64N(int64(800 * ms))))
		}
		l.until(next)
		if l.d.Verdict("n2", l.now) == Lost {
			lost++
		}
		l.observe(next, "n2", PathLease)
	}
	return lost
}

func BenchmarkPass(b *testing.B) {
	p, _ := params(b, "default")
	var names []string
	for i := range 32 {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	l := newLoop(p, names...)
	l.lead("")
	b.ReportAllocs()
	for i := range b.N {
		now := at(time.Duration(i) * ms)
		for _, n := range names {
			l.d.Observe(n, PathLease, now)
		}
		l.d.Changes(now)
		l.d.Next(now)
	}
}

func (l *loop) lead(previous string) {
	l.d.Lead(previous, l.now)
	l.pass()
}
