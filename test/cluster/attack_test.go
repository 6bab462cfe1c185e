package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// The attacks of docs/attacks.md that fake time can show. What only a kernel, a device or the log's own store can show has its
// tests in test/e2e, cmd/cldeadman and pkg/consensus.

// A1: a node that boots with an old log, and gets it late, starts nothing that the log has taken from it meanwhile.
func TestA1OldLogAfterBoot(t *testing.T) {
	inBubble(t, options{fence: true, seed: 101}, func(r *rig) {
		for range 4 {
			v := r.holder("g1")
			r.machines[v].crash()
			r.await(10*time.Second, "g1 runs elsewhere", r.settledBut(v))
			for range 3 { // history that v lacks
				to := r.others(v, r.holder("g1"))[0]
				r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: to})
				r.await(5*time.Second, "g1 has moved", func() bool { return r.holder("g1") == to })
			}
			r.lan.SetDelay(time.Duration(20+r.random(60)) * time.Millisecond)
			r.machines[v].boot()
			time.Sleep(8 * time.Second)
			r.lan.SetDelay(200 * time.Microsecond)
			r.recover(40 * time.Second)
		}
	})
}

// A2: the deadman is killed at the worst moment, on a node that nobody grants any more. The watchdog runs on and ends the node in
// time, whether another deadman takes it over or none does.
func TestA2DeadmanKilled(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, 3 * time.Second, 4500 * time.Millisecond} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v back=%v", after, back), func(t *testing.T) {
				inBubble(t, options{seed: 102}, func(r *rig) {
					v := r.holder("g1")
					r.machines[v].freeze(false)
					time.Sleep(after)
					if back {
						r.machines[v].replaceDeadman(50 * time.Millisecond)
					} else {
						r.machines[v].dead.Kill9()
					}
					r.ends(v, r.params.Watchdog+time.Second)
					r.await(boundLease+5*time.Second, "g1 runs elsewhere", r.settledBut(v))
					r.within(boundLease, "a deadman that was killed")
					r.recover(40 * time.Second)
				})
			})
		}
	}
}

// A2 at rest: a deadman that dies and is replaced in time costs nothing.
func TestA2DeadmanReplaced(t *testing.T) {
	inBubble(t, options{seed: 103}, func(r *rig) {
		r.watch.forget()
		for range 5 {
			r.machines[r.holder("g1")].replaceDeadman(200 * time.Millisecond)
			time.Sleep(3 * time.Second)
		}
		r.recover(20 * time.Second)
		r.within(0, "deadmen that were replaced")
	})
}

// A3: the agent is stopped between the check of a grant and the pet. The real deadman looks at the grant's age itself; the naive
// one pets late, and its node outlives its lease.
func TestA3PauseBeforePet(t *testing.T) {
	scene := func(r *rig) {
		v := r.holder("g1")
		held := make(chan struct{})
		r.snag(&snag{node: v, op: "stop", gate: held}, 0) // what runs there goes on running
		r.machines[v].freeze(false)
		r.lan.Heal() // grants arrive; the agent is stopped before it hands them on
		time.Sleep(2 * time.Second)
		r.lan.Isolate(v)
		time.Sleep(2500 * time.Millisecond)
		r.machines[v].thaw()
		r.lan.Isolate(v)
		time.Sleep(2 * r.expiry())
		close(held)
		r.lan.Heal()
	}
	t.Run("real", func(t *testing.T) {
		inBubbleWith(t, options{seed: 104}, func(r *rig) {
			r.wrapDeadman = func(node string, d agent.Deadman) agent.Deadman { return &lateGrants{Deadman: d, m: r.machines[node]} }
		}, func(r *rig) {
			scene(r)
			r.recover(60 * time.Second)
		})
	})
	t.Run("planted", func(t *testing.T) {
		inBubbleWith(t, options{seed: 104}, func(r *rig) { r.plant("n1", &naive{anyAge: true}) }, scene)
	})
	t.Run("control", func(t *testing.T) { // the same deadman with the answer: it is the age that makes the difference
		inBubbleWith(t, options{seed: 104}, func(r *rig) {
			r.plant("n1", &naive{})
			r.planted = false
		}, scene)
	})
}

// lateGrants holds every grant up while its machine is frozen.
type lateGrants struct {
	agent.Deadman
	m *machine
}

func (l *lateGrants) Grant(nonce lease.Nonce, boot string, at lease.Instant, next time.Duration) error {
	l.m.mu.Lock()
	frozen := l.m.frozen
	l.m.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-l.Done():
		}
	}
	return l.Deadman.Grant(nonce, boot, at, next)
}

// A4: silence proves nothing where no independent watchdog ran: only the operator's word, or a fence, frees the group.
func TestA4SilenceWithoutWatchdog(t *testing.T) {
	t.Run("class process", func(t *testing.T) {
		inBubbleWith(t, options{seed: 105}, func(r *rig) { r.class = lease.Process }, func(r *rig) {
			v := r.holder("g1")
			r.machines[v].crash()
			time.Sleep(time.Minute)
			if h := r.holder("g1"); h != "" {
				t.Errorf("g1 was started on %s without a proof", h)
			}
			r.do(api.Request{Op: api.OpConfirmDown, Node: v})
			r.await(10*time.Second, "g1 runs elsewhere", r.settledBut(v))
			r.recover(40 * time.Second)
		})
	})
	t.Run("unmanaged", func(t *testing.T) {
		inBubble(t, options{seed: 106}, func(r *rig) {
			v := r.holder("g1")
			r.do(api.Request{Op: api.OpUnmanage, Groups: []string{"g1"}})
			time.Sleep(2 * time.Second)
			r.lan.Isolate(v)
			time.Sleep(time.Minute)
			for _, x := range r.ledger.holding(v) {
				if x == "g1_app" && r.machines[v].isOn() {
					return // it runs on there, and nowhere else
				}
			}
			t.Errorf("the unmanaged g1 no longer runs on %s", v)
		})
	})
	t.Run("planted", func(t *testing.T) { // a deadman that calls itself independent, and has no watchdog
		inBubbleWith(t, options{seed: 107}, func(r *rig) { r.plant("n1", &naive{neverArms: true}) }, func(r *rig) {
			r.machines["n1"].freeze(false)
			time.Sleep(2 * r.expiry())
		})
	})
}

// A5: the node is stopped between the check of its lease and the first step of a start. It is armed by then, so it does not wake.
func TestA5StoppedBeforeTheFirstStep(t *testing.T) {
	scene := func(r *rig) {
		to := "n1"
		r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: "n2"})
		r.await(5*time.Second, "g1 has moved", func() bool { return r.holder("g1") == "n2" && r.settled() })
		time.Sleep(3 * time.Second) // n1 holds nothing now
		gate := make(chan struct{})
		r.snag(&snag{node: to, op: "start", gate: gate}, 0)
		r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: to})
		r.await(5*time.Second, "g1 is being acquired", func() bool {
			s := r.status()
			for _, i := range s.Group("g1").Instances {
				if i.Node == to && i.State == api.GroupAcquiring {
					return true
				}
			}
			return false
		})
		time.Sleep(500 * time.Millisecond)
		r.machines[to].freeze(false)
		time.Sleep(20 * time.Second)
		close(gate)
		r.machines[to].thaw()
		time.Sleep(2 * time.Second)
	}
	t.Run("real", func(t *testing.T) {
		inBubble(t, options{seed: 108}, func(r *rig) {
			scene(r)
			if h := r.holder("g1"); h == "" {
				t.Error("g1 is nowhere")
			}
			r.recover(60 * time.Second)
		})
	})
	t.Run("planted", func(t *testing.T) {
		inBubbleWith(t, options{seed: 108}, func(r *rig) { r.plant("n1", &naive{neverArms: true}) }, scene)
	})
}

// A6: a boot that brings a resource up by itself is no proof until that is stopped; the group then starts once, somewhere.
func TestA6ActivatedByTheBoot(t *testing.T) {
	inBubble(t, options{seed: 109}, func(r *rig) {
		for range 3 {
			v := r.holder("g1")
			m := r.machines[v]
			m.crash()
			time.Sleep(500 * time.Millisecond)
			m.automount = "g1_fs"
			m.boot()
			m.automount = ""
			r.recover(40 * time.Second)
		}
	})
}

// A7: a node lets go of its groups while nobody hears it; the leader dies before it can know. What was released is not started
// again at its generation.
func TestA7ReleasedUnheard(t *testing.T) {
	for _, cut := range []time.Duration{3700, 3800, 4000, 4200, 4500, 5200} {
		t.Run(fmt.Sprint(cut*time.Millisecond), func(t *testing.T) {
			inBubble(t, options{seed: uint64(110 + cut)}, func(r *rig) {
				l := r.awaitLeader(5 * time.Second)
				v := r.others(l)[0]
				r.lan.Isolate(v)
				time.Sleep(cut * time.Millisecond)
				r.lan.Heal()
				r.machines[l].crash()
				time.Sleep(5 * time.Second)
				r.recover(60 * time.Second)
			})
		})
	}
}

// A8, the part without processes: the agent is killed in the middle of a start and of a stop. Its successor finds out by itself.
func TestA8KilledInTheMiddle(t *testing.T) {
	for _, op := range []string{"start", "stop"} {
		t.Run(op, func(t *testing.T) {
			inBubble(t, options{seed: 120}, func(r *rig) {
				for i, res := range []string{"g1_ip", "g1_fs", "g1_app"} {
					from := r.holder("g1")
					to := r.others(from)[i%2]
					at := map[string]string{"start": to, "stop": from}[op]
					gate := make(chan struct{})
					remove := r.snag(&snag{node: at, op: op, resource: res, gate: gate}, 1)
					r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: to})
					time.Sleep(300 * time.Millisecond)
					r.machines[at].kill9()
					time.Sleep(100 * time.Millisecond)
					close(gate)
					remove()
					r.machines[at].startAgent()
					r.recover(60 * time.Second)
				}
			})
		})
	}
}

// A9: the answer of a fence device comes late, when its victim is back as another incarnation and holds groups again.
func TestA9LateFence(t *testing.T) {
	inBubbleWith(t, options{fence: true, seed: 121}, func(r *rig) { r.fenceAnswer = 9 * time.Second }, func(r *rig) {
		v := r.others(r.awaitLeader(5 * time.Second))[0]
		r.lan.Isolate(v)
		r.await(10*time.Second, v+" is shot", func() bool { return !r.machines[v].isOn() })
		r.lan.Heal()
		r.machines[v].boot()
		// The boot may depose the leader, and the next shoots once more at the silent incarnation while the boot is introduced.
		time.Sleep(5 * time.Second)
		r.recover(30 * time.Second)
		r.spread()
		boots := r.machines[v].boots
		time.Sleep(20 * time.Second) // the device answers
		r.recover(30 * time.Second)
		if r.machines[v].boots != boots {
			r.fatal("%s went down again after the late answer", v)
		}
		r.within(boundLease, "a late fence")
	})
}

// A11: leadership changes again and again under running groups: no deposed leader grants, no lease is missed, nothing moves.
func TestA11LeadershipChanges(t *testing.T) {
	inBubble(t, options{seed: 122}, func(r *rig) {
		before := r.ledger.takings
		for range 12 {
			l := r.awaitLeader(10 * time.Second)
			o := r.others(l)
			switch r.random(3) {
			case 0:
				r.lan.Isolate(l)
			case 1: // it sends, and hears no answer
				r.lan.CutOneWay(o[0], l)
				r.lan.CutOneWay(o[1], l)
			case 2: // it hears, and nobody hears it
				r.lan.CutOneWay(l, o[0])
				r.lan.CutOneWay(l, o[1])
			}
			time.Sleep(time.Duration(300+r.random(900)) * time.Millisecond)
			r.lan.Heal()
			time.Sleep(time.Duration(1500+r.random(1500)) * time.Millisecond)
		}
		r.recover(30 * time.Second)
		if n := r.ledger.takings - before; n > 0 {
			t.Errorf("%d resources were taken anew", n)
		}
	})
}

// B1: the death of the leader stops no group of the survivors.
func TestB1SurvivorsKeepTheirGroups(t *testing.T) {
	for _, profile := range []string{"default", "fast"} {
		t.Run(profile, func(t *testing.T) {
			inBubble(t, options{profile: profile, seed: 123}, func(r *rig) {
				for range 5 {
					l := r.awaitLeader(10 * time.Second)
					least := r.params.Soft
					r.watch.forget()
					r.machines[l].crash()
					for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
						for _, n := range r.others(l) {
							s := r.machines[n].agent().Status()
							if le := s.Node(n).Lease; le != nil && le.MarginSeconds != nil {
								least = min(least, time.Duration(*le.MarginSeconds*float64(time.Second)))
							}
						}
					}
					if least <= 0 {
						t.Errorf("a survivor's lease ran out: margin %v", least)
					}
					r.recover(60 * time.Second)
					for g, home := range map[string]string{"g1": "n1", "g2": "n2", "g3": "n3"} {
						if home != l && r.watch.longest(g) > 0 {
							t.Errorf("%s of the survivor %s was away for %v", g, home, r.watch.longest(g))
						}
					}
					t.Logf("smallest margin of a survivor's soft lease: %v", least.Round(10*time.Millisecond))
					r.spread()
				}
			})
		})
	}
}

// B3: agent and deadman stopped for three watchdog times: nothing of the node is left when they wake.
func TestB3LongStop(t *testing.T) {
	inBubble(t, options{seed: 124}, func(r *rig) {
		v := r.holder("g1")
		r.machines[v].freeze(true)
		time.Sleep(3 * r.params.Watchdog)
		if h := r.ledger.holding(v); r.machines[v].isOn() || len(h) > 0 {
			t.Errorf("%s is on or holds %v", v, h)
		}
		r.within(boundLease, "a stop of agent and deadman")
		r.recover(40 * time.Second)
	})
}

// B5: a node that holds nothing is not reset when it loses the leader, nor one whose services are stopped.
func TestB5IdleNodesLiveOn(t *testing.T) {
	inBubble(t, options{groups: []string{"g1 n1 n2 n3"}, seed: 125}, func(r *rig) {
		r.lan.Isolate("n3")
		time.Sleep(time.Minute)
		if !r.machines["n3"].isOn() {
			t.Errorf("the idle n3 was reset: %s", r.machines["n3"].why)
		}
		r.recover(30 * time.Second)
		r.do(api.Request{Op: api.OpStop})
		r.await(10*time.Second, "all is offline", func() bool { return r.holder("g1") == "" && r.status().Cluster.State == api.ClusterOffline })
		time.Sleep(2 * time.Second)
		for _, n := range r.names {
			r.lan.Isolate(n)
		}
		time.Sleep(time.Minute)
		for _, n := range r.names {
			if !r.machines[n].isOn() {
				t.Errorf("%s was reset though the services are stopped: %s", n, r.machines[n].why)
			}
		}
	})
}

// B6, the cluster's side: a leader whose process ends by itself (its store hung) is replaced, and its deadman lets the node live
// while another agent comes in time.
func TestB6LeaderEndsItself(t *testing.T) {
	inBubble(t, options{seed: 126}, func(r *rig) {
		r.watch.forget()
		for range 4 {
			l := r.awaitLeader(10 * time.Second)
			r.machines[l].kill9()
			r.await(5*time.Second, "another leads", func() bool { n := r.leader(); return n != "" && n != l })
			r.machines[l].startAgent()
			r.recover(30 * time.Second)
		}
		r.within(0, "leaders that end themselves")
	})
}

// activate takes a resource as a boot does that activates volumes by itself.
func (m *machine) activate(name string) {
	r := executor.Resource{Kind: executor.KindFileSystem, Name: name, Group: name[:2]}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.r.world.Registry(m.name)[r.Kind].Start(context.Background(), r)
	m.r.ledger.found(m.name, r)
}
