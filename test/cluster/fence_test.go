package cluster

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A fence order that takes long is called off when the node that it is meant for has come back by itself: the new boot is not shot,
// and what the old one held is freed by the boot's own proof.
func TestSlowFenceSparesTheNewBoot(t *testing.T) {
	for _, at := range []time.Duration{1700 * time.Millisecond, 3 * time.Second, 5 * time.Second, 8 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			inBubbleWith(t, options{fence: true, seed: 301}, func(r *rig) { r.fenceTime = 9 * time.Second }, func(r *rig) {
				v := r.others(r.leader())[0]
				m := r.machines[v]
				m.crash()
				time.Sleep(at)
				boots := m.boots
				m.boot()
				time.Sleep(25 * time.Second)
				if r.shots.Load() != 0 || m.boots != boots+1 || !m.isOn() {
					t.Errorf("%d shots: the new boot of %s was shot (%d boots, on %v)", r.shots.Load(), v, m.boots-boots, m.isOn())
				}
				r.recover(20 * time.Second)
			})
		})
	}
}

// A node that was cut off and comes back as it was, while a slow order against it is under way, is not shot either.
func TestSlowFenceSparesTheNodeThatIsHeardAgain(t *testing.T) {
	inBubbleWith(t, options{fence: true, seed: 302}, func(r *rig) { r.fenceTime = 9 * time.Second }, func(r *rig) {
		v := r.others(r.leader())[0]
		r.lan.Isolate(v)
		time.Sleep(2200 * time.Millisecond)
		r.lan.Heal(v)
		time.Sleep(20 * time.Second)
		if r.shots.Load() != 0 || !r.machines[v].isOn() {
			t.Errorf("%d shots: %s was shot after it was heard again", r.shots.Load(), v)
		}
		r.recover(20 * time.Second)
	})
}

// The leader that ordered the shot dies, and the node is back when the next one is elected: what the log says of its silence is the
// old leader's word. The new one does not shoot what it has just heard itself.
func TestFenceAfterAnElectionSparesTheNewBoot(t *testing.T) {
	var first atomic.Value
	inBubbleWith(t, options{fence: true, seed: 303}, func(r *rig) {
		r.fenceBy = func(shooter string) time.Duration {
			if shooter == first.Load() {
				return time.Minute
			}
			return 0
		}
	}, func(r *rig) {
		l := r.leader()
		first.Store(l)
		m := r.machines[r.others(l)[0]]
		m.crash()
		r.await(5*time.Second, m.name+" is silent", func() bool {
			s := r.status()
			return s.Node(m.name).State == api.NodeSilent
		})
		m.boot()
		r.machines[l].crash()
		time.Sleep(time.Second)
		r.awaitLeader(10 * time.Second)
		r.await(40*time.Second, "what the two held runs elsewhere", func() bool { return r.settled() })
		if !m.isOn() || m.boots != 2 {
			t.Errorf("the new boot of %s was shot (%d boots, on %v)", m.name, m.boots, m.isOn())
		}
		r.recover(60 * time.Second)
	})
}

// A node that says its hello and dies before it is introduced is fenced after all.
func TestFenceOfANodeThatDiesAfterItsHello(t *testing.T) {
	inBubble(t, options{fence: true, seed: 304}, func(r *rig) {
		r.fenceBroken.Store(true)
		v := r.others(r.leader())[0]
		m := r.machines[v]
		gate := make(chan struct{})
		defer close(gate)
		m.crash()
		time.Sleep(1800 * time.Millisecond)
		r.snag(&snag{node: v, op: "probe", gate: gate}, 0) // it never gets to its introduction
		m.boot()
		time.Sleep(time.Second)
		m.crash()
		r.fenceBroken.Store(false)
		r.await(boundLease, "it is fenced", func() bool { return r.shots.Load() > 0 })
	})
}
