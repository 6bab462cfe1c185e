package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Random schedules of faults. After each few the world heals, and the cluster must serve everything again; all the while the
// ledger looks. The seeds are fixed; -cluster.seed and -cluster.rounds run others.
func TestRandomFaults(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	n := 24
	if *rounds != 0 {
		n = *rounds
	}
	for _, s := range seeds {
		o := options{seed: s, fence: s%3 == 0}
		switch s % 5 {
		case 1:
			o.profile = "fast"
		case 2:
			o.nodes = 5
			o.groups = []string{"g1 n1 n2 n3", "g2 n2 n3 n1", "g3 n4 n5 n3", "g4 n5 n1"}
		}
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			inBubble(t, o, func(r *rig) {
				began, faults, longest := time.Now(), 0, time.Duration(0)
				for faults < n {
					for range 1 + r.random(4) {
						r.fault()
						faults++
						time.Sleep(time.Duration(r.random(4000)) * time.Millisecond)
						if r.random(2) == 0 {
							r.tend()
						}
					}
					healed := time.Now()
					r.recover(90 * time.Second)
					longest = max(longest, time.Since(healed))
				}
				t.Logf("seed %d: %d faults, %d resources taken, %v of fake time, longest recovery %v", s, faults, r.ledger.takings,
					time.Since(began).Round(time.Second), longest)
			})
		})
	}
}

// The same with a repository volume, for two nodes and for three: whoever is cut off, is cut off from the networks only, and hands over by
// the mailbox; or its agent does not reach the volume either, or the whole node does not, or only after a second, or never.
func TestRandomFaultsWithVolume(t *testing.T) {
	seeds := []uint64{11, 12, 13, 14}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	n := 16
	if *rounds != 0 {
		n = *rounds
	}
	for _, s := range seeds {
		o := options{seed: s, fence: s%4 == 0, volume: true, nodes: 2 + int(s%2)}
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			inBubble(t, o, func(r *rig) {
				began, faults, longest := time.Now(), 0, time.Duration(0)
				for faults < n {
					for range 1 + r.random(3) {
						blind := r.machines[r.names[r.random(len(r.names))]]
						blind.blind.Store(r.random(3) == 0)
						better := func() {}
						if ill := r.machines[r.names[r.random(len(r.names))]]; r.random(3) == 0 {
							better = ill.disturb(diskTroubles()[r.random(4)])
						}
						r.fault()
						faults++
						time.Sleep(time.Duration(r.random(6000)) * time.Millisecond)
						if r.random(2) == 0 {
							r.tend()
						}
						blind.blind.Store(false)
						better()
					}
					healed := time.Now()
					r.recover(90 * time.Second)
					longest = max(longest, time.Since(healed))
				}
				t.Logf("seed %d: %d faults, %d resources taken, %v of fake time, longest recovery %v", s, faults, r.ledger.takings,
					time.Since(began).Round(time.Second), longest)
			})
		})
	}
}

// One fault at a time, of any kind: no group is away for longer than the bound (P4).
func TestSingleFaults(t *testing.T) {
	seeds := []uint64{41, 42}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			inBubble(t, options{seed: s}, func(r *rig) {
				for range 12 {
					r.watch.forget()
					what := r.fault()
					time.Sleep(time.Duration(r.random(9000)) * time.Millisecond)
					r.recover(60 * time.Second)
					r.within(boundLease, what)
					r.spread()
				}
			})
		})
	}
}

// fault does one thing to the cluster, and says what.
func (r *rig) fault() string {
	v := r.names[r.random(len(r.names))]
	o := r.others(v)[r.random(len(r.names)-1)]
	m := r.machines[v]
	ms := func(n int) time.Duration { return time.Duration(r.random(n)) * time.Millisecond }
	var what string
	switch r.random(13) {
	case 0:
		what = "crash " + v
		m.crash()
	case 1:
		what = "isolate " + v
		r.lan.Isolate(v)
	case 2:
		what = "cut " + v + " " + o
		r.lan.Cut(v, o)
	case 3:
		what = "cut " + v + " -> " + o
		r.lan.CutOneWay(v, o)
	case 4:
		what = "all that " + v + " sends is lost"
		for _, o := range r.others(v) {
			r.lan.CutOneWay(v, o)
		}
	case 5:
		what = "kill the agent of " + v
		m.kill9()
		time.Sleep(ms(1500))
		r.tend()
	case 6:
		what = "freeze " + v
		m.freeze(r.random(2) == 0)
		time.Sleep(ms(7000))
		m.thaw()
	case 7:
		g := r.options.groups[r.random(len(r.options.groups))][:2]
		what = "move " + g + " to " + v
		r.ledger.say("%s", what)
		_, _ = r.try(api.Request{Op: api.OpMove, Groups: []string{g}, Node: v})
	case 8:
		what = "the deadman of " + v + " is killed"
		m.replaceDeadman(ms(300))
	case 9:
		what = "flap " + v
		for range 1 + r.random(5) {
			r.lan.Isolate(v)
			time.Sleep(ms(1200))
			r.lan.Heal(v)
			time.Sleep(ms(1200))
		}
	case 10:
		what = "slow hands of " + v
		remove := r.snag(&snag{node: v, delay: ms(3000)}, 6)
		defer remove()
	case 11:
		what = "stop the services of " + v + " with move, and start them"
		r.ledger.say("%s", what)
		_, _ = r.try(api.Request{Op: api.OpStop, Nodes: []string{v}, Manage: api.ManageMove})
		time.Sleep(ms(1000))
		_, _ = r.try(api.Request{Op: api.OpStart, Nodes: []string{v}})
	case 12:
		what = "loss of packets and a slow network"
		r.lan.SetLoss(float64(r.random(30))/100, r.options.seed)
		r.lan.SetDelay(ms(30))
		time.Sleep(ms(8000))
		r.lan.SetLoss(0, 1)
		r.lan.SetDelay(200 * time.Microsecond)
	}
	r.ledger.say("fault: %s", what)
	return what
}
