//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// Every way to lose a node without its death: each time the loser stops before the winner starts.
func TestCuts(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	for _, c := range []struct {
		name   string
		leader bool // the node that is cut off leads
		cut    func(node string) error
	}{
		{"silent, leader", true, func(n string) error { return w.Cut(w.ctx(), n, "", lab.Both) }},
		{"silent, other", false, func(n string) error { return w.Cut(w.ctx(), n, "", lab.Both) }},
		{"nothing reaches the leader", true, func(n string) error { return w.Cut(w.ctx(), n, "", lab.In) }},
		{"nothing leaves the leader", true, func(n string) error { return w.Cut(w.ctx(), n, "", lab.Out) }},
		{"nothing reaches another", false, func(n string) error { return w.Cut(w.ctx(), n, "", lab.In) }},
		{"nothing leaves another", false, func(n string) error { return w.Cut(w.ctx(), n, "", lab.Out) }},
		{"unplugged leader", true, func(n string) error { return w.Unplug(w.ctx(), n, "") }},
		{"unplugged other", false, func(n string) error { return w.Unplug(w.ctx(), n, "") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			victim := w.leader()
			if !c.leader {
				victim = w.other(victim)
			}
			w.place(victim)
			since, before := w.lastEvent(), len(w.holders())
			check(t, c.cut(victim))
			next := w.elsewhere(victim)
			w.answersFrom(next)
			t.Logf("%s was cut off, %s took over, outage %.3f s", victim, next, w.lastOutage(victim).Seconds())
			check(t, w.Heal(w.ctx(), victim))
			w.whole()
			if on := w.online(group); on != next {
				t.Errorf("after the heal the group is on %s, was on %s", on, next)
			}
			w.answersFrom(next)
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
	}
	w.loserFirst()
}

// reset waits until the node has booted again, because something reset it.
func (w *world) reset(node string, boots int) {
	w.t.Helper()
	w.await(node+" is reset", func() string {
		if w.boots(node) == boots {
			return "it is not"
		}
		return ""
	})
}

// sub is the world as a subtest sees it.
func (w *world) sub(t *testing.T) *world {
	s := *w
	s.t = t
	return &s
}

// A link that goes up and down for long costs at most one move for each failure, and never two owners.
func TestFlappingCut(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	w.ask()
	since, victim, cuts := w.lastEvent(), "node1", 0
	for end := time.Now().Add(*flapFor); time.Now().Before(end); cuts++ {
		check(t, w.Cut(w.ctx(), victim, "", lab.Both))
		time.Sleep(10 * time.Second)
		check(t, w.Heal(w.ctx(), victim))
		time.Sleep(10 * time.Second)
	}
	w.whole()
	w.answersFrom(w.online(group))
	w.timeline(since)
	if moves := w.loserFirst(); moves > cuts {
		t.Errorf("%d cuts, %d moves", cuts, moves)
	} else {
		t.Logf("%d cuts, %d moves", cuts, moves)
	}
	w.outages()
}

// A cut that is shorter than the lease costs nothing but itself, and one that flaps fast costs no double owner.
func TestShortCuts(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	w.ask()
	pid := w.appPID("node1")
	for i := range 20 {
		check(t, w.Cut(w.ctx(), "node1", "", lab.Both))
		time.Sleep(time.Duration(100+i*40) * time.Millisecond)
		check(t, w.Heal(w.ctx(), "node1"))
		time.Sleep(time.Duration(300+i%3*200) * time.Millisecond)
	}
	w.whole()
	if now := w.appPID("node1"); now != pid {
		t.Errorf("short cuts cost a restart: process %s, then %s", pid, now)
	}
	w.loserFirst()
	w.outages()
}

// A3: stopped daemons. Whatever is stopped, in whatever order, the node dies before another starts.
func TestA3StoppedDaemons(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	for _, c := range []struct {
		name    string
		daemons []string
	}{
		{"agent", []string{"agent"}},
		{"deadman", []string{"deadman"}}, // the agent releases in order, because it gets no request to carry; then the watchdog fires
		{"agent and deadman", []string{"agent", "deadman"}},
		{"deadman and agent", []string{"deadman", "agent"}},
		{"whole node", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			victim := w.other(w.leader())
			w.place(victim)
			boots, since, before := w.boots(victim), w.lastEvent(), len(w.holders())
			check(t, w.Pause(w.ctx(), victim, c.daemons...))
			next := w.elsewhere(victim)
			w.answersFrom(next)
			time.Sleep(time.Second)
			_ = w.Resume(w.ctx(), victim, c.daemons...) // what was reset meanwhile is not stopped any more
			w.reset(victim, boots)
			t.Logf("%s stopped on %s, %s took over, outage %.3f s", c.name, victim, next, w.lastOutage(victim).Seconds())
			w.whole()
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
	}
	w.loserFirst()
}

// A short stop of everything, shorter than the lease, is survived without a restart.
func TestShortPause(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: false})
	pid, boots := w.appPID("node1"), w.boots("node1")
	for i := range 10 {
		check(t, w.Pause(w.ctx(), "node1", "agent"))
		time.Sleep(time.Duration(50*i) * time.Millisecond)
		check(t, w.Resume(w.ctx(), "node1", "agent"))
		time.Sleep(time.Second)
	}
	w.whole()
	if now := w.appPID("node1"); now != pid || w.boots("node1") != boots {
		t.Errorf("short stops of the daemon cost a restart: process %s, then %s", pid, now)
	}
}

// A2: the deadman is killed at any phase while the node is cut off. With the agent at work the groups are released in order; with
// the agent stopped only the watchdog is left. Both end the node, or what it has, before another starts.
func TestA2DeadmanKilledAtAnyPhase(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	const soft, hard = 1600 * time.Millisecond, 1900 * time.Millisecond
	for _, c := range []struct {
		name  string
		after time.Duration
		agent bool // it goes on
	}{
		{"at once", 0, true},
		{"just before L_soft", soft - 100*time.Millisecond, true},
		{"just before L_hard, agent stopped", hard - 100*time.Millisecond, false},
		{"at once, agent stopped", 0, false},
		{"after L_hard, agent stopped", hard + 50*time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			victim := w.other(w.leader())
			w.place(victim)
			boots, since, before := w.boots(victim), w.lastEvent(), len(w.holders())
			check(t, w.Cut(w.ctx(), victim, "", lab.Both))
			if !c.agent {
				check(t, w.Pause(w.ctx(), victim, "agent"))
			}
			time.Sleep(c.after)
			if err := w.Kill(w.ctx(), victim, "deadman"); err != nil {
				t.Logf("kill the deadman: %v", err) // the reset was quicker
			}
			next := w.elsewhere(victim)
			w.answersFrom(next)
			if !c.agent {
				w.reset(victim, boots)
			}
			t.Logf("%s took over from %s, outage %.3f s", next, victim, w.lastOutage(victim).Seconds())
			check(t, w.Heal(w.ctx(), victim))
			w.whole()
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
	}
	w.loserFirst()
}

// The deadman is killed under a running group, again and again, with nothing else wrong: nothing happens to the group.
func TestDeadmanKilledInPeace(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	pid, boots := w.appPID("node1"), w.boots("node1")
	for i := range 10 {
		starts := w.lookAt("node1").Deadman.Starts
		check(t, w.Kill(w.ctx(), "node1", "deadman"))
		w.await("a new deadman runs", func() string {
			if now := w.lookAt("node1").Deadman; now.PID == 0 || now.Starts == starts {
				return "not yet"
			}
			return ""
		})
		time.Sleep(time.Duration(200+100*i) * time.Millisecond)
	}
	w.whole()
	if now := w.appPID("node1"); now != pid || w.boots("node1") != boots {
		t.Errorf("the node was reset or the application restarted: process %s, then %s; boot %d, then %d", pid, now, boots, w.boots("node1"))
	}
}
