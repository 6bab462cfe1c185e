package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// rotated reports whether no node has a certificate to renew and one gossip key is left, another one than before.
func (r *rig) rotated(before api.Status) bool {
	if r.leader() == "" {
		return false
	}
	s := r.status()
	for _, n := range s.Nodes {
		if n.RenewsTo != 0 || n.Certificate <= before.Node(n.Name).Certificate {
			return false
		}
	}
	return len(s.Cluster.GossipKeys) == 1 && s.Cluster.GossipKeys[0] != before.Cluster.GossipKeys[0]
}

// Both rotations on a whole cluster, several times: nothing else happens. No election, no node silent, no group touched.
func TestRotationDisturbsNothing(t *testing.T) {
	for _, o := range []options{{nodes: 3}, {nodes: 3, profile: "fast"}, {nodes: 2, groups: []string{"g1 n1", "g2 n2"}}} {
		t.Run(fmt.Sprintf("%d nodes %s", o.nodes, o.profile), func(t *testing.T) {
			inBubble(t, o, func(r *rig) {
				r.settle(20 * time.Second)
				time.Sleep(10 * time.Second)
				term, leader := r.status().Cluster.Term, r.leader()
				h, err := r.anyAgent().Events(0, 1)
				must(t, err)
				since := h.Events[0].ID
				r.watch.forget()
				for range 5 {
					before := r.status()
					r.do(api.Request{Op: api.OpRotateCerts})
					r.do(api.Request{Op: api.OpRotateGossip})
					r.await(30*time.Second, "certificates and gossip key are rotated", func() bool { return r.rotated(before) })
				}
				time.Sleep(10 * time.Second)
				if now := r.status().Cluster; now.Term != term || r.leader() != leader {
					r.fatal("there was an election: %s led in term %d, now %s in term %d", leader, term, r.leader(), now.Term)
				}
				h, err = r.anyAgent().Events(since, 1000)
				must(t, err)
				for _, e := range h.Events {
					if e.ID > since && !slices.Contains([]string{"certificate", "gossip_key"}, e.Kind) {
						r.fatal("%s %s %s", e.Kind, e.Node, e.Sentence)
					}
				}
				r.within(0, "rotation")
			})
		})
	}
}

// Machines crash, agents are killed, and networks are cut while the keys are rotated: no group is ever held twice, and when the faults
// are over all nodes, those that missed the rotation among them, have new certificates, one gossip key, and serve.
func TestRotationUnderFaults(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	counts := map[string]int{}
	for s := uint64(1); s <= seeds; s++ {
		if *seed != 0 {
			s = *seed
		}
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			inBubble(t, options{seed: s, fence: s%2 == 0}, func(r *rig) {
				for range 6 {
					r.settle(40 * time.Second)
					before := r.status()
					// In either order, with the fault before, between or after.
					steps := []api.Op{api.OpRotateCerts, api.OpRotateGossip, fault}
					for i := range steps {
						j := i + r.random(len(steps)-i)
						steps[i], steps[j] = steps[j], steps[i]
					}
					for _, step := range steps {
						if step == fault {
							counts[r.rotationFault()]++
						} else {
							r.await(30*time.Second, string(step)+" is taken", func() bool {
								r.tend()
								reply, err := r.try(api.Request{Op: step})
								return err == nil && (reply.Refused == "" || strings.Contains(reply.Refused, "under way"))
							})
						}
						time.Sleep(time.Duration(r.random(3000)) * time.Millisecond)
					}
					r.recover(60 * time.Second)
					r.await(60*time.Second, "certificates and gossip key are rotated everywhere", func() bool { r.tend(); return r.rotated(before) })
				}
			})
		})
		if *seed != 0 {
			return
		}
	}
	t.Logf("faults: %v", counts)
}

// fault stands among the steps for what no operator asks for.
const fault = api.Op("")

func (r *rig) rotationFault() string {
	v := r.names[r.random(len(r.names))]
	switch r.random(3) {
	case 0:
		r.machines[v].crash()
		return "crash"
	case 1:
		r.machines[v].kill9()
		return "kill"
	}
	r.lan.Isolate(v)
	return "cut"
}
