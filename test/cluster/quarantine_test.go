package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Three resets within half an hour, and the node starts without groups until the operator clears it. However the reset came about,
// the next boot knows: the watchdog device tells that it has fired, or the daemon left a note before the deadman reset the node. A
// loss of power and a fence device's shot do not count.
func TestThreeResetsQuarantineANode(t *testing.T) {
	hang := func(r *rig, v string) (release func()) {
		gate := make(chan struct{})
		undo := r.snag(&snag{node: v, op: "stop", gate: gate}, 0) // so that it cannot let go in order
		return func() { undo(); closeOnce(gate) }
	}
	for _, c := range []struct {
		name   string
		fence  bool
		counts bool
		why    string // in the history, of each boot
		end    func(r *rig, v string)
	}{
		{"the watchdog fires", false, true, "after a reset: its watchdog device says that it has fired", func(r *rig, v string) {
			r.machines[v].kill9() // so that nobody is there to leave a note
			r.machines[v].freeze(true)
			r.ends(v, 10*time.Second)
		}},
		{"the deadman resets at the hard limit", false, true, "after a reset: its lease ran out: no grant for", func(r *rig, v string) {
			release := hang(r, v)
			r.lan.Isolate(v)
			r.ends(v, 10*time.Second)
			release()
			r.lan.Heal(v)
		}},
		{"the power fails", false, false, "", func(r *rig, v string) { r.machines[v].crash() }},
		{"the fence device shoots", true, false, "", func(r *rig, v string) {
			r.machines[v].freeze(true)
			r.await(10*time.Second, "it is shot", func() bool { return !r.machines[v].isOn() })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{seed: 401, fence: c.fence}, func(r *rig) {
				v := r.others(r.leader())[0]
				for i := range 3 {
					r.await(30*time.Second, v+" takes part", func() bool { r.tend(); s := r.status(); return s.Node(v) != nil && s.Node(v).State == api.NodeNormal })
					if r.ledger.holding(v) == nil { // it is armed only while it holds something
						r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: v})
					}
					r.settle(30 * time.Second)
					c.end(r, v)
					r.await(30*time.Second, "what it held runs elsewhere", r.settledBut(v))
					boots := r.machines[v].boots
					r.await(30*time.Second, v+" has booted and is known", func() bool {
						r.tend()
						s := r.status()
						n := s.Node(v)
						return r.machines[v].boots > boots && n != nil && n.Incarnation == uint64(i+2) && (n.State == api.NodeNormal || n.State == api.NodeQuarantined)
					})
				}
				r.settle(30 * time.Second)
				counted := 0
				h, err := r.anyAgent().Events(0, 1000)
				must(t, err)
				for _, e := range h.Events {
					if e.Kind == "node_boot" && e.Node == v && strings.Contains(e.Sentence, "after a reset") {
						counted++
						if c.why == "" || !strings.Contains(e.Sentence, c.why) {
							t.Errorf("the history says: %s", e.Sentence)
						}
					}
				}
				s := r.status()
				if !c.counts {
					if counted != 0 || s.Node(v).State != api.NodeNormal {
						t.Errorf("%s is %s, %d of its boots count as resets", v, s.Node(v).State, counted)
					}
					return
				}
				if counted != 3 || s.Node(v).State != api.NodeQuarantined || !strings.Contains(s.Node(v).Reason, "three times") {
					r.fatal("%s is %s (%s), %d boots count as resets", v, s.Node(v).State, s.Node(v).Reason, counted)
				}
				quarantined(r, v)
			})
		})
	}
}

// quarantined checks that the node gets nothing, not even by a move or as the last one, keeps that over a boot, and is clear when
// the operator says so.
func quarantined(r *rig, v string) {
	r.t.Helper()
	if reply, err := r.try(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: v}); err == nil && reply.Refused == "" {
		time.Sleep(3 * time.Second)
	} else {
		r.t.Logf("a move to it is refused: %v %s", err, reply.Refused)
	}
	r.machines[v].crash()
	time.Sleep(5 * time.Second)
	r.machines[v].boot()
	time.Sleep(10 * time.Second)
	s := r.status()
	if s.Node(v).State != api.NodeQuarantined || r.ledger.holding(v) != nil {
		r.fatal("after a boot %s is %s and holds %v", v, s.Node(v).State, r.ledger.holding(v))
	}
	r.do(api.Request{Op: api.OpClear, Node: v})
	r.await(10*time.Second, v+" takes part again", func() bool { s := r.status(); return s.Node(v).State == api.NodeNormal })
	r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: v})
	r.await(10*time.Second, "g1 runs there", func() bool { return r.holder("g1") == v })
}

// A note about a reset that did not come is taken back: the next loss of power does not count.
func TestANoteAboutAResetThatDidNotComeIsTakenBack(t *testing.T) {
	inBubble(t, options{seed: 402}, func(r *rig) {
		v := r.others(r.leader())[0]
		for range 3 {
			if r.ledger.holding(v) == nil {
				r.do(api.Request{Op: api.OpMove, Groups: []string{"g1"}, Node: v})
				r.settle(20 * time.Second)
			}
			r.lan.Isolate(v) // it lets go in order, and comes back within its boot
			time.Sleep(12 * time.Second)
			r.lan.Heal(v)
			r.recover(30 * time.Second)
			boots := r.machines[v].boots
			r.machines[v].crash()
			time.Sleep(4 * time.Second)
			r.machines[v].boot()
			r.await(20*time.Second, v+" takes part", func() bool { s := r.status(); return s.Node(v) != nil && s.Node(v).State == api.NodeNormal })
			r.settle(30 * time.Second)
			if r.machines[v].boots != boots+1 {
				r.fatal("%s was reset", v)
			}
		}
		h, err := r.anyAgent().Events(0, 1000)
		must(t, err)
		for _, e := range h.Events {
			if strings.Contains(e.Sentence, "after a reset") {
				t.Errorf("the history says: %s", e.Sentence)
			}
		}
	})
}
