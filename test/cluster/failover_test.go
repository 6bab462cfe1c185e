package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// The published bounds, in fake time: what the machine's own slowness adds is not in them.
const (
	boundFenced = 3 * time.Second
	boundLease  = 7500 * time.Millisecond
	boundFast   = 3500 * time.Millisecond
	boundMove   = 300 * time.Millisecond
)

// victim is the leader, or the first machine that is not.
func (r *rig) victim(leader bool) string {
	l := r.awaitLeader(5 * time.Second)
	if leader {
		return l
	}
	return r.others(l)[r.random(len(r.names)-1)]
}

func who(leader bool) string {
	if leader {
		return "the leader"
	}
	return "another node"
}

// A crash is survived within the bound, whoever it is, with a fence device and without.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     options
		bound time.Duration
	}{
		{"fence", options{fence: true}, boundFenced},
		{"lease", options{}, boundLease},
		{"lease fast", options{profile: "fast"}, boundFast},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.o, func(r *rig) {
				var took []time.Duration
				for i := range 6 {
					leader := i%2 == 0
					v := r.victim(leader)
					r.watch.forget()
					r.machines[v].crash()
					r.await(c.bound+5*time.Second, "the survivors serve everything", r.settledBut(v))
					r.within(c.bound, "crash of "+who(leader))
					took = append(took, r.watch.longest(""))
					r.recover(40 * time.Second)
					r.spread()
				}
				slices.Sort(took)
				t.Logf("longest outage of each crash: %v", took)
			})
		})
	}
}

// settledBut reports whether all groups are online somewhere, one machine being away.
func (r *rig) settledBut(string) func() bool {
	return func() bool {
		for g := range r.groups {
			if h := r.holder(g); h == "" || !r.connected(h) {
				return false
			}
		}
		l := r.leader()
		return l != "" && len(r.machines[l].agent().Status().Pending) == 0
	}
}

// spread brings every group home, so that each machine has something to lose.
func (r *rig) spread() {
	r.t.Helper()
	for _, g := range r.options.groups {
		words := strings.Fields(g)
		name, home := words[0], words[1]
		if r.holder(name) != home {
			r.do(api.Request{Op: api.OpMove, Groups: []string{name}, Node: home})
			r.await(10*time.Second, name+" is at home", func() bool { return r.holder(name) == home && r.settled() })
		}
	}
}

// A planned move takes no longer than the bound, and nothing else is touched.
func TestPlannedMove(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		for i := range 6 {
			to := r.names[(i+1)%3]
			r.watch.forget()
			if r.holder("g1") == to {
				continue
			}
			r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: to})
			r.await(5*time.Second, "g1 has moved", func() bool { return r.holder("g1") == to && r.settled() })
			r.within(boundMove, "a planned move")
		}
		if n := r.ledger.starts("g2") + r.ledger.starts("g3"); n != 2 {
			t.Errorf("the other groups were started %d times in all", n)
		}
	})
}

// An agent that is killed and comes back in time stops nothing (P6).
func TestAgentRestart(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		r.watch.forget()
		before := [3]int{r.ledger.starts("g1"), r.ledger.starts("g2"), r.ledger.starts("g3")}
		for i := range 12 {
			v := r.victim(i%2 == 0)
			r.machines[v].kill9()
			time.Sleep(time.Duration(50+r.random(1500)) * time.Millisecond)
			r.machines[v].startAgent()
			r.await(15*time.Second, "the agent is back", func() bool { return r.allUp() && r.settled() })
			time.Sleep(time.Duration(r.random(1500)) * time.Millisecond)
		}
		if after := [3]int{r.ledger.starts("g1"), r.ledger.starts("g2"), r.ledger.starts("g3")}; after != before {
			t.Errorf("groups were started again: %v, before %v", after, before)
		}
		for _, n := range r.names {
			if m := r.machines[n]; m.boots != 1 {
				t.Errorf("%s was reset: %s", n, m.why)
			}
		}
		if o := r.watch.outages(""); len(o) > 0 {
			t.Errorf("outages: %v", o)
		}
	})
}

// An agent that does not come back: its deadman ends the machine in time, and the groups go on elsewhere.
func TestAgentStaysAway(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		for i := range 2 {
			v := r.victim(i == 0)
			r.watch.forget()
			r.machines[v].kill9()
			r.ends(v, r.params.Hard+time.Second)
			r.await(boundLease+5*time.Second, "the survivors serve everything", r.settledBut(v))
			r.within(boundLease, "an agent that stays away")
			r.recover(40 * time.Second)
			r.spread()
		}
	})
}

// All machines fail at once, and boot again in any order: everything is served again, at home.
func TestAllCrash(t *testing.T) {
	inBubble(t, options{seed: 3}, func(r *rig) {
		for range 3 {
			for _, n := range r.names {
				r.machines[n].crash()
			}
			time.Sleep(time.Duration(r.random(20)) * time.Second)
			for _, i := range r.rng.Perm(len(r.names)) {
				r.machines[r.names[i]].boot()
				time.Sleep(time.Duration(r.random(3000)) * time.Millisecond)
			}
			r.watch.forget()
			r.recover(30 * time.Second)
		}
	})
}

// A cold start of all at once serves its first group within the bound: every node's boot is its own proof.
func TestColdStart(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		for _, n := range r.names {
			r.machines[n].crash()
		}
		time.Sleep(10 * time.Second)
		for _, n := range r.names {
			r.machines[n].boot()
		}
		began := time.Now()
		r.settle(20 * time.Second)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("a cold start took %v", took)
		} else {
			t.Logf("a cold start took %v", took)
		}
	})
}

// Two machines of three come back after all have failed: what the log shows on the third starts only after its lease.
func TestColdStartWithoutOne(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		for _, n := range r.names {
			r.machines[n].crash()
		}
		time.Sleep(5 * time.Second)
		r.machines["n2"].boot()
		r.machines["n3"].boot()
		r.await(30*time.Second, "all is served by two", r.settledBut("n1"))
		r.recover(40 * time.Second)
	})
}

// The operator's moves meet failures: each is done, or refused, or ends with its node; nothing is left behind.
func TestMovesDuringFailures(t *testing.T) {
	inBubble(t, options{fence: true, seed: 5}, func(r *rig) {
		for i := range 6 {
			g := []string{"g1", "g2", "g3"}[r.random(3)]
			from := r.holder(g)
			to := r.others(from)[r.random(2)]
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = r.try(api.Request{Op: api.OpMove, Groups: []string{g}, Node: to})
			}()
			time.Sleep(time.Duration(r.random(120)) * time.Millisecond)
			switch i % 3 {
			case 0:
				r.machines[from].crash()
			case 1:
				r.machines[to].crash()
			case 2:
				if l := r.leader(); l != "" {
					r.machines[l].kill9()
				}
			}
			<-done
			time.Sleep(time.Duration(r.random(4000)) * time.Millisecond)
			r.recover(40 * time.Second)
		}
	})
}

// The timings change under running groups, and the node that holds one is stopped at any moment of the change: what its deadman
// does and what the log says of it never part in the unsafe direction.
func TestTimingsChange(t *testing.T) {
	for _, c := range [][2]string{{"default", "fast"}, {"fast", "default"}, {"fast", "careful"}} {
		t.Run(c[0]+" to "+c[1], func(t *testing.T) {
			inBubble(t, options{profile: c[0], seed: 31}, func(r *rig) {
				slow, err := lease.Profile("careful")
				must(t, err)
				for i := range 6 {
					from, to := c[i%2], c[1-i%2]
					r.options.profile = to
					a := r.anyAgent()
					d, err := a.Definition(false)
					must(t, err)
					_, err = a.SetDefinition(context.Background(), operator, api.DefinitionChange{YAML: r.definition(), BaseVersion: d.Version})
					must(t, err)
					time.Sleep(time.Duration(r.random(1500)) * time.Millisecond)
					v := r.victim(i%2 == 0)
					r.machines[v].freeze(i%3 == 0)
					r.await(3*slow.Watchdog, "the survivors serve everything ("+from+" to "+to+")", r.settledBut(v))
					r.ends(v, 3*slow.Watchdog)
					r.recover(60 * time.Second)
					r.spread()
				}
			})
		})
	}
}

// A definition with an application that a node of its group could never run is refused, whichever node is told: all are asked. A node
// that is down refuses nothing.
func TestUnfitApplicationIsRefusedByTheNodeThatHasItsAgent(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		set := func(on string) error {
			a := r.machines[on].agent()
			d, err := a.Definition(false)
			must(t, err)
			text := strings.ReplaceAll(r.definition(), "/opt/start", fmt.Sprintf("/opt/start%d", r.random(1<<30)))
			_, err = a.SetDefinition(context.Background(), operator, api.DefinitionChange{YAML: text, BaseVersion: d.Version})
			return err
		}
		bad := r.names[len(r.names)-1]
		r.snag(&snag{node: bad, op: "fit", err: errors.New("the agent takes no such parameter")}, 0)
		for _, on := range []string{r.names[0], bad} {
			err := set(on)
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Code != api.CodeInvalid || len(e.Faults) == 0 || !strings.Contains(e.Faults[0].Message, "no such parameter (said by "+bad+")") {
				t.Errorf("told on %s: %v", on, err)
			}
		}
		r.machines[bad].crash()
		r.await(time.Minute, "the others serve everything", r.settledBut(bad))
		must(t, set(r.names[0]))
	})
}

// What changes on a node while the leader dies is told by the next leader, once.
func TestDriftIsSeenAcrossAChangeOfLeaders(t *testing.T) {
	inBubble(t, options{settings: "  verification_interval: 10s\n"}, func(r *rig) {
		var changed sync.Map // node -> its start script is another one
		r.facts = func(f *verify.Facts) {
			digest := "aa"
			if _, other := changed.Load(f.Node); other {
				digest = "bb"
			}
			f.Files = map[string]verify.File{"/opt/start": {Exists: true, Kind: "file", Mode: 0o755, Size: 10, Digest: digest, Script: "/bin/sh", Runner: true},
				"/opt/stop": {Exists: true, Kind: "file", Mode: 0o755, Size: 10, Digest: "cc", Script: "/bin/sh", Runner: true}}
		}
		time.Sleep(time.Minute) // the leader has looked
		told := func() map[string]int {
			h, err := r.anyAgent().Events(0, 1000)
			must(t, err)
			out := map[string]int{}
			for _, e := range h.Events {
				if e.Kind == state.EventVerification && strings.Contains(e.Sentence, "new: WARNING V1204") {
					out[e.Sentence]++
				}
			}
			return out
		}
		leader := r.leader()
		r.machines[leader].crash()
		changed.Store(r.others(leader)[1], true)
		r.await(time.Minute, "somebody else leads", func() bool { l := r.leader(); return l != "" && l != leader })
		r.await(time.Minute, "the new leader tells what has changed", func() bool { return len(told()) > 0 })
		time.Sleep(time.Minute)
		for what, n := range told() {
			if n != 1 {
				t.Errorf("told %d times: %s", n, what)
			}
		}
	})
}

// A release that fails is an error, and nothing starts elsewhere; the node looks now and then whether the group has stopped after
// all, and the operator's word tries again.
func TestReleaseFails(t *testing.T) {
	inBubble(t, options{seed: 37}, func(r *rig) {
		remove := r.snag(&snag{node: "n1", op: "stop", resource: "g1_fs", err: errors.New("target is busy")}, 0)
		r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: "n2"})
		r.await(5*time.Second, "g1 is in error", func() bool { s := r.status(); return s.Cluster.State == api.ClusterError })
		before := r.probes.Load()
		time.Sleep(10 * time.Second)
		if n := r.probes.Load() - before; n == 0 || n > 100 {
			t.Errorf("%d probes in 10 s of an error", n)
		}
		if h := r.ledger.holding("n2"); len(h) != 3 {
			t.Errorf("n2 holds %v", h)
		}
		remove()
		r.do(api.Request{Op: api.OpClear, Groups: []string{"g1"}})
		r.recover(20 * time.Second)
	})
}
