package cluster

import (
	"fmt"
	"testing"
	"time"
)

// A silent cut of one machine: what it holds ends there before it begins elsewhere, within the bound, and after the heal
// the machine takes part again.
func TestSilentCut(t *testing.T) {
	for _, fence := range []bool{false, true} {
		t.Run(fmt.Sprintf("fence=%v", fence), func(t *testing.T) {
			inBubble(t, options{fence: fence, seed: 11}, func(r *rig) {
				bound := boundLease
				if fence {
					bound = boundFenced
				}
				for i := range 6 {
					leader := i%2 == 0
					v := r.victim(leader)
					r.watch.forget()
					r.lan.Isolate(v)
					r.await(bound+5*time.Second, "the majority serves everything", r.settledBut(v))
					r.within(bound, "isolation of "+who(leader))
					r.await(bound, "the isolated machine holds nothing", func() bool { return len(r.ledger.holding(v)) == 0 })
					time.Sleep(time.Duration(r.random(5000)) * time.Millisecond)
					r.watch.forget()
					r.recover(40 * time.Second)
					r.within(0, "the heal")
					r.spread()
				}
			})
		})
	}
}

// A cut shorter than the detector's limit moves nothing.
func TestShortCut(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		before := r.ledger.takings
		for i := range 6 {
			v := r.victim(i%2 == 0)
			r.lan.Isolate(v)
			time.Sleep(400 * time.Millisecond)
			r.lan.Heal()
			time.Sleep(3 * time.Second)
		}
		r.recover(20 * time.Second)
		if n := r.ledger.takings - before; n != 0 {
			t.Errorf("cuts of 0.4 s moved groups: %d resources were taken", n)
		}
	})
}

// What one machine sends is lost, or what it should hear; to all, or between it and the leader only.
func TestOneWayCuts(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(r *rig, v, leader string)
	}{
		{"all it sends", func(r *rig, v, _ string) {
			for _, o := range r.others(v) {
				r.lan.CutOneWay(v, o)
			}
		}},
		{"all it should hear", func(r *rig, v, _ string) {
			for _, o := range r.others(v) {
				r.lan.CutOneWay(o, v)
			}
		}},
		{"from it to the leader", func(r *rig, v, leader string) { r.lan.CutOneWay(v, leader) }},
		{"from the leader to it", func(r *rig, v, leader string) { r.lan.CutOneWay(leader, v) }},
		{"it and the leader", func(r *rig, v, leader string) { r.lan.Cut(leader, v) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{seed: 17}, func(r *rig) {
				for i := range 3 {
					l := r.awaitLeader(5 * time.Second)
					v := r.others(l)[i%2]
					if i == 2 && c.name[:3] == "all" {
						v = l
					}
					c.cut(r, v, l)
					time.Sleep(time.Duration(2000+r.random(20000)) * time.Millisecond)
					r.recover(60 * time.Second)
					r.spread()
				}
			})
		})
	}
}

// Every pair cut but one link of a chain: whoever leads, no group is held twice, and the heal brings all back.
func TestChain(t *testing.T) {
	inBubble(t, options{nodes: 5, seed: 19}, func(r *rig) {
		for i := range r.names {
			for j := i + 2; j < len(r.names); j++ {
				r.lan.Cut(r.names[i], r.names[j])
			}
		}
		time.Sleep(30 * time.Second)
		r.recover(60 * time.Second)
	})
}

// A link that fails for ten seconds every ten seconds: one move for the first failure, and then nothing more (P11).
func TestFlapping(t *testing.T) {
	inBubble(t, options{seed: 23}, func(r *rig) {
		v := r.others(r.awaitLeader(5 * time.Second))[0]
		before := map[string]int{}
		for g := range r.groups {
			before[g] = r.ledger.starts(g)
		}
		for range 15 {
			r.lan.Isolate(v)
			time.Sleep(10 * time.Second)
			r.lan.Heal()
			for range 10 {
				time.Sleep(time.Second)
				r.tend()
			}
		}
		r.recover(60 * time.Second)
		for g := range r.groups {
			if n := r.ledger.starts(g) - before[g]; n > 1 {
				t.Errorf("%s was moved %d times for one failing link", g, n)
			}
		}
	})
}

// A frozen agent, for a moment and for long, with its deadman and without: nothing of it survives its lease, and nothing that it
// was about to do is done after.
func TestFreeze(t *testing.T) {
	for _, deadmanToo := range []bool{false, true} {
		t.Run(fmt.Sprintf("deadman=%v", deadmanToo), func(t *testing.T) {
			inBubble(t, options{seed: 29}, func(r *rig) {
				for i, d := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 4 * time.Second, 15 * time.Second, 5 * time.Second} {
					v := r.victim(i%2 == 0)
					r.watch.forget()
					r.machines[v].freeze(deadmanToo)
					time.Sleep(d)
					r.machines[v].thaw()
					r.recover(40 * time.Second)
					r.within(boundLease, fmt.Sprintf("a freeze of %v", d))
					r.spread()
				}
			})
		})
	}
}
