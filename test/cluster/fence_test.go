package cluster

import (
	"fmt"
	"strings"
	"sync"
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

// supplies are the power supplies of nodes: a node is off when both are.
type supplies struct {
	r      *rig
	mu     sync.Mutex
	off    map[string]bool
	calls  []string
	broken map[string]bool
}

func (s *supplies) hand(device, node string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, device)
	if s.broken[device] {
		return "", errNoPower
	}
	s.off[device+node] = true
	if s.off["pdu1"+node] && s.off["pdu2"+node] && s.r.machines[node].isOn() {
		s.r.machines[node].end("both supplies of it are off")
	}
	return device + " says that " + node + " is off", nil
}

// Levels: the first is tried, then the two devices of the second together. One supply that is off is no proof.
func TestFenceLevels(t *testing.T) {
	const devices = `fence_devices:
  - {name: pdu1, agent: /opt/fence, nodes: [n1, n2, n3], levels: [2]}
  - {name: ilo, agent: /opt/fence, nodes: [n1, n2, n3], levels: [1]}
  - {name: pdu2, agent: /opt/fence, nodes: [n1, n2, n3], levels: [2]}`
	for _, second := range []bool{true, false} {
		t.Run(fmt.Sprintf("second supply answers %v", second), func(t *testing.T) {
			s := &supplies{off: map[string]bool{}, broken: map[string]bool{"ilo": true, "pdu2": !second}}
			inBubbleWith(t, options{seed: 305, more: devices}, func(r *rig) { s.r, r.fenceHand = r, s.hand }, func(r *rig) {
				v := r.others(r.leader())[0]
				r.lan.Isolate(v)
				time.Sleep(4 * time.Second)
				s.mu.Lock()
				calls := strings.Join(s.calls, " ")
				s.mu.Unlock()
				st := r.status()
				n := st.Node(v)
				switch {
				case second && calls != "ilo pdu1 pdu2 pdu1":
					t.Errorf("the devices were called: %s", calls)
				case second && (r.machines[v].isOn() || n.Incarnation == 0 || n.State == api.NodeNormal):
					t.Errorf("%s is on, or %s, after both of its supplies were switched off", v, n.State)
				case !second && !strings.HasPrefix(calls, "ilo pdu1 pdu2 "):
					t.Errorf("the devices were called: %s", calls)
				case !second && strings.Contains(r.deathOf(v), "fenced"):
					t.Errorf("one supply of two was taken for a proof: %s", r.deathOf(v))
				}
				r.lan.Heal(v)
				if !r.machines[v].isOn() {
					r.machines[v].boot()
				}
				s.mu.Lock()
				s.off = map[string]bool{}
				s.mu.Unlock()
				r.recover(60 * time.Second)
			})
		})
	}
}

// deathOf is the newest sentence of the history about the node's death.
func (r *rig) deathOf(node string) string {
	h, err := r.anyAgent().Events(0, 1000)
	must(r.t, err)
	text := ""
	for _, e := range h.Events {
		if e.Kind == "node_dead" && e.Node == node {
			text = e.Sentence
		}
	}
	return text
}
