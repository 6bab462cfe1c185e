//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Crash after crash, the leader and another node in turn; each victim serves when it dies, and joins again.
func TestHundredCrashes(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", fence: true})
	w.ask()
	took := map[string][]time.Duration{}
	for i := range *crashes {
		w.whole()
		leader := w.leader()
		victim, kind := leader, "leader"
		if i%2 == 1 {
			victim, kind = w.other(leader), "other"
		}
		w.place(victim)
		check(t, w.Crash(w.ctx(), victim))
		next := w.elsewhere(victim)
		w.answersFrom(next)
		took[kind] = append(took[kind], w.lastOutage(victim))
		check(t, w.Boot(w.ctx(), victim))
	}
	w.whole()
	if on := w.online(group); on == "" {
		t.Error("the group is down at the end")
	}
	for _, kind := range []string{"leader", "other"} {
		t.Logf("%d crashes of a node that was the %s: outage %s", len(took[kind]), kind, spread(took[kind]))
	}
	w.loserFirst()
}

// lastOutage is the newest time without answers that began with an answer from the node.
func (w *world) lastOutage(from string) time.Duration {
	events := w.probe.Events()
	for _, event := range slices.Backward(events) {
		if o := event.Outage; o != nil && o.Before.Node == from {
			return o.Length
		}
	}
	return 0
}

// spread describes a distribution.
func spread(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(list))
	at := func(p int) float64 { return s[min(len(s)-1, len(s)*p/100)].Seconds() }
	return fmt.Sprintf("min %.3f s, median %.3f s, p95 %.3f s, p99 %.3f s, max %.3f s", s[0].Seconds(), at(50), at(95), at(99), s[len(s)-1].Seconds())
}

// The daemon dies again and again under a running application, at any moment; the application never notices.
func TestAgentKilledFiftyTimes(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.ask()
	pid, boots := w.appPID("node1"), w.boots("node1")
	for i := range *kills {
		before := w.instance("node1")
		if before == "" {
			t.Fatal("the daemon does not answer")
		}
		time.Sleep(time.Duration(i*37%400) * time.Millisecond) // some hit a daemon that has not adopted yet
		check(t, w.Kill(w.ctx(), "node1", "agent"))
		w.await("the daemon is back", func() string {
			if now := w.instance("node1"); now == "" || now == before {
				return "not yet"
			}
			return ""
		})
		if now := w.appPID("node1"); now != pid {
			t.Fatalf("kill %d: the application's process was %s, is %s", i+1, pid, now)
		}
	}
	w.whole()
	if on := w.online(group); on != "node1" {
		t.Errorf("the group is on %s", on)
	}
	if now := w.appPID("node1"); now != pid {
		t.Errorf("the application's process was %s, is %s", pid, now)
	}
	if now := w.boots("node1"); now != boots {
		t.Errorf("the node was reset: boot %d, then %d", boots, now)
	}
	for _, e := range w.holders() {
		if e.Event == "lost" {
			t.Errorf("the watcher saw %s lose %s at %s", e.Node, service, e.Time.Format("15:04:05.000"))
		}
	}
	t.Logf("%d kills, process %s all along, daemon started %d times", *kills, pid, w.lookAt("node1").Agent.Starts)
	w.outages()
}

// All nodes lose power at once and come back.
func TestAllNodesCrashAtOnce(t *testing.T) {
	long(t)
	t.Parallel()
	for _, fence := range []bool{true, false} {
		t.Run(fmt.Sprintf("fence %v", fence), func(t *testing.T) {
			w := begin(t, setup{fence: fence})
			w.ask()
			since := w.lastEvent()
			done := make(chan error, len(w.nodes))
			for _, n := range w.nodes {
				go func() { done <- w.Crash(w.ctx(), n) }()
			}
			for range w.nodes {
				check(t, <-done)
			}
			for _, n := range w.nodes {
				go func() { done <- w.Boot(w.ctx(), n) }()
			}
			for range w.nodes {
				check(t, <-done)
			}
			w.whole()
			if on := w.online(group); on != "node1" {
				t.Errorf("OHN: the group came up on %s", on)
			}
			w.timeline(since)
			w.outages()
		})
	}
}

// A cold start without the node that had the group last: what the log shows there is free only by a proof.
func TestColdStartWithoutTheHolder(t *testing.T) {
	long(t)
	t.Parallel()
	for _, fence := range []bool{true, false} {
		t.Run(fmt.Sprintf("fence %v", fence), func(t *testing.T) {
			w := begin(t, setup{fence: fence, profile: "fast"})
			w.place("node2") // the home node must be there at the start: OHN
			since := w.lastEvent()
			for _, n := range w.nodes {
				check(t, w.Crash(w.ctx(), n))
			}
			check(t, w.Boot(w.ctx(), "node1"))
			check(t, w.Boot(w.ctx(), "node3"))
			w.onlineOn(group, "node1")
			e := w.happened(since, "node_dead", "node2")
			t.Logf("proof: %s", e.Sentence)
			check(t, w.PowerOn(w.ctx(), "node2")) // the fence may have switched it off for good
			w.whole()
			w.timeline(since)
		})
	}
}

// Two of three are lost: the third lets go of what it has, nothing starts anywhere, and it says why.
func TestLossOfQuorum(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.place("node3")
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	check(t, w.Crash(w.ctx(), "node2"))
	w.await("node3 lets go", func() string {
		if h := w.holders(); h[len(h)-1].Event != "lost" {
			return "it has the address"
		}
		return ""
	})
	w.await("node3 says that there is no quorum", func() string {
		st, err := w.status("node3")
		switch {
		case err != nil:
			return err.Error()
		case st.Cluster.Quorum.Have || st.Cluster.Leader != "":
			return "it believes in a leader"
		}
		t.Logf("node3 says: %s; cluster %s", st.Cluster.Quorum.Sentence, st.Cluster.State)
		return ""
	})
	r := w.run("node3", "clRGinfo")
	t.Logf("clRGinfo without quorum: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	r = w.run("node3", "clmgr", "move", "resource_group", group, "NODE=node3", "TIMEOUT=2")
	if r.Code == 0 {
		t.Errorf("a move without quorum is said to be done: %s", r.Stdout)
	}
	t.Logf("clmgr move without quorum: exit status %d: %s", r.Code, firstLines(r.Stderr, 3))
	time.Sleep(4 * time.Second) // longer than any proof by time
	if h := w.holders(); h[len(h)-1].Event != "lost" {
		t.Errorf("%s took the address without quorum", h[len(h)-1].Node)
	}
	check(t, w.Boot(w.ctx(), "node1"))
	w.online(group)
	check(t, w.Boot(w.ctx(), "node2"))
	w.whole()
	w.timeline(since)
	w.loserFirst()
}

// B1: the leader dies; the survivors keep what they have.
func TestB1SurvivorsKeepTheirGroups(t *testing.T) {
	long(t)
	t.Parallel()
	for _, profile := range []string{"default", "fast"} {
		t.Run(profile, func(t *testing.T) {
			w := begin(t, setup{profile: profile, fence: true})
			w.ask()
			leader := w.leader()
			holder := w.other(leader)
			w.place(holder)
			pid, seen := w.appPID(holder), len(w.holders())
			for range 3 {
				check(t, w.Crash(w.ctx(), leader))
				w.await("another node leads", func() string {
					if st := w.view(); st == nil || st.Cluster.Leader == leader {
						return "not yet"
					}
					return ""
				})
				check(t, w.PowerOn(w.ctx(), leader))
				w.whole()
				if leader = w.leader(); leader == holder {
					break // the next crash would take the holder
				}
			}
			if now := w.appPID(holder); now != pid {
				t.Errorf("the application on the survivor %s was process %s, is %s", holder, pid, now)
			}
			if h := w.holders(); len(h) != seen {
				t.Errorf("the address moved: %+v", h[seen:])
			}
			w.outages()
		})
	}
}

// A power switch that does not answer: the lease proves the death instead, later.
func TestPowerSwitchOutOfReach(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", fence: true})
	w.ask()
	check(t, w.PowerReach(w.ctx(), "", false))
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	w.answersFrom(w.elsewhere("node1"))
	t.Logf("proof: %s", w.happened(since, "node_dead", "node1").Sentence)
	check(t, w.PowerReach(w.ctx(), "", true))
	check(t, w.PowerOn(w.ctx(), "node1"))
	w.whole()
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// A node that was switched off by the operator while it held a group it cannot prove: the operator's word frees it.
func TestConfirmNodeDown(t *testing.T) {
	long(t)
	t.Parallel()
	// Mode e gives no proof by time, and there is no fence: only the operator can know.
	w := begin(t, setup{profile: "fast", settings: "deadman_mode: e"})
	w.ask()
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	w.happened(since, "node_lost", "node1")
	time.Sleep(5 * time.Second) // well over the expiry of the profile
	if st := w.view(); st == nil || len(servedOn(st)) != 0 || st.Group(group).On("node1").State != api.Unknown {
		t.Errorf("the group of a silent, unproven node: %s", groupStates(st))
	}
	w.refused("node2", 1, nil, "online", "resource_group", group, "NODE=node2", "TIMEOUT=3")
	w.clmgr("node2", "-f", "confirm", "node_down", "node1")
	w.answersFrom(w.elsewhere("node1"))
	t.Logf("proof: %s", w.happened(since, "node_dead", "node1").Sentence)
	check(t, w.Boot(w.ctx(), "node1"))
	w.whole()
	w.refused("node2", 1, []string{"it is not down"}, "-f", "confirm", "node_down", "node1")
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// Without a daemon to restart it, an application that dies moves when its restarts are used up.
func TestApplicationFailsTooOften(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: true, monitor: "failure_action: fallover, restart_count: 1, stabilization: 1s, restart_interval: 60s"})
	w.ask()
	since := w.lastEvent()
	for range 2 {
		pid := w.appPID("node1")
		w.run("node1", "kill", "-9", pid)
		w.await("it is restarted or moved", func() string {
			if on := w.online(group); on != "node1" {
				return ""
			}
			if now := w.appPID("node1"); now == "" || now == pid {
				return "it is down"
			}
			return ""
		})
		time.Sleep(1200 * time.Millisecond) // past the stabilisation
	}
	w.answersFrom(w.elsewhere("node1"))
	w.timeline(since)
	w.loserFirst()
	w.outages()
}
