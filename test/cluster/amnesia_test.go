package cluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A10: an older state of a node's store is put back while the node is down, in the same place, so that only what the others remember
// tells it from the right one. The node takes no part with it: it votes for nobody and acknowledges nothing. It joins again under a
// new server id.
func TestA10RestoredStoreTakesNoPart(t *testing.T) {
	for _, c := range []struct {
		name  string
		alone bool // nobody can be asked when it starts
	}{{"others can be asked at the start", false}, {"nobody can be asked at first", true}} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{seed: 501}, func(r *rig) {
				v := r.others(r.leader())[0]
				m := r.machines[v]
				store := filepath.Join(m.dir, "state", "raft")
				m.crash()
				saved := readStore(t, store)
				r.await(20*time.Second, "what it held runs elsewhere", r.settledBut(v))
				m.boot()
				r.recover(30 * time.Second) // one start that the image does not know
				time.Sleep(2 * time.Second)
				m.crash()
				r.await(20*time.Second, "what it held runs elsewhere", r.settledBut(v))
				writeStore(t, store, saved)
				exits, old := r.exits.Load(), r.status().Cluster.Term
				if c.alone {
					r.lan.Isolate(v)
				}
				m.boot()
				if c.alone {
					time.Sleep(3 * time.Second)
					if m.agent() == nil || r.exits.Load() != exits {
						t.Errorf("alone it has not even started")
					}
					r.lan.Heal(v)
				}
				r.await(5*time.Second, v+" refuses to go on", func() bool { return r.exits.Load() > exits && m.agent() == nil })
				for range 5 { // as the service manager does
					before := r.exits.Load()
					m.startAgent()
					r.await(5*time.Second, v+" refuses again", func() bool { return r.exits.Load() > before || m.agent() == nil })
				}
				time.Sleep(5 * time.Second)
				if s := r.status(); s.Node(v).State == api.NodeNormal || s.Cluster.Term != old {
					t.Errorf("%s is %s, the term was %d and is %d", v, s.Node(v).State, old, s.Cluster.Term)
				}

				// What its message asks for.
				must(t, os.RemoveAll(store))
				m.startAgent()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				token, err := r.anyAgent().NewToken(ctx, operator, api.NewToken{Node: v})
				must(t, err)
				_, err = m.agent().Join(ctx, operator, api.Join{Token: token.Token})
				must(t, err)
				r.recover(40 * time.Second)
				m.kill9() // and its next start is taken for what it is
				time.Sleep(time.Second)
				r.recover(20 * time.Second)
			})
		})
	}
}

// Agents that are killed again and again are not taken for copies, whoever leads and whatever was not noted in time.
func TestA10KilledAgentsAreNotTakenForCopies(t *testing.T) {
	inBubble(t, options{seed: 502}, func(r *rig) {
		for i := range 12 {
			for k, n := range r.names {
				r.machines[n].kill9()
				if (i+k)%2 == 0 {
					time.Sleep(time.Duration(r.random(300)) * time.Millisecond)
				}
				r.tend()
				time.Sleep(time.Duration(r.random(400)) * time.Millisecond)
			}
		}
		exits := r.exits.Load()
		r.recover(30 * time.Second)
		if r.exits.Load() != exits {
			t.Errorf("%d agents have ended by themselves", r.exits.Load()-exits)
		}
	})
}

func readStore(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.Type().IsRegular() {
			out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
		}
	}
	return out
}

func writeStore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

// The power comes back everywhere at once, and one node's store is a copy. The only one that remembers its newer starts has not applied
// anything yet: "nothing yet" is not "nothing", and the copy must not come to terms with the one that knows as little as itself before.
func TestA10RestoredStoreAfterAPowerCut(t *testing.T) {
	for _, ms := range []time.Duration{-250, -150, -50, 0, 50, 150, 250} { // the one that remembers is back this much later
		late := ms * time.Millisecond
		t.Run(late.String(), func(t *testing.T) {
			inBubble(t, options{seed: 503}, func(r *rig) {
				v, knows, blank := r.machines["n1"], r.machines["n2"], r.machines["n3"]
				store := filepath.Join(v.dir, "state", "raft")
				blank.crash()
				r.await(20*time.Second, "what it held runs elsewhere", r.settledBut("n3"))
				v.crash()
				saved := readStore(t, store)
				v.boot() // a start that only n1 and n2 know, and a command that only they have
				r.await(30*time.Second, "n1 is back", func() bool { s := r.status(); return s.Node("n1").State == api.NodeNormal })
				time.Sleep(2 * time.Second)
				r.do(api.Request{Op: api.OpSuspend, Groups: []string{"g1"}})
				v.crash()
				knows.crash()
				writeStore(t, store, saved)
				exits := r.exits.Load()
				if late < 0 {
					knows.boot()
					time.Sleep(-late)
				}
				v.boot()
				blank.boot()
				if late >= 0 {
					time.Sleep(late)
					knows.boot()
				}
				r.await(10*time.Second, "n1 refuses to go on", func() bool { return r.exits.Load() > exits && v.agent() == nil })
				r.await(30*time.Second, "the others go on", func() bool { l := r.leader(); return l == "n2" || l == "n3" })
				r.await(10*time.Second, "the acknowledged command is there", func() bool {
					s := r.status()
					g := s.Group("g1")
					return r.leader() != "" && g != nil && g.Suspended
				})
				must(t, os.RemoveAll(store))
				v.startAgent()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				token, err := r.anyAgent().NewToken(ctx, operator, api.NewToken{Node: "n1"})
				must(t, err)
				_, err = v.agent().Join(ctx, operator, api.Join{Token: token.Token})
				must(t, err)
				r.do(api.Request{Op: api.OpResume, Groups: []string{"g1"}})
				r.recover(time.Minute)
			})
		})
	}
}

// A power cut of all nodes: each answers from its own log, nobody waits for another to be up to date, and the cluster is back.
func TestA10PowerCutOfAll(t *testing.T) {
	for _, o := range []options{{seed: 504}, {seed: 505, profile: "fast"}, {seed: 506, nodes: 2}, {seed: 507, nodes: 5}} {
		inBubble(t, o, func(r *rig) {
			for range 3 {
				for _, n := range r.names {
					r.machines[n].crash()
				}
				time.Sleep(time.Second)
				for _, n := range r.names {
					r.machines[n].boot()
				}
				r.await(15*time.Second, "somebody leads", func() bool { return r.leader() != "" })
				r.recover(30 * time.Second)
			}
		})
	}
}
