package cluster

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// forceOn gives the operator's word on one machine.
func (r *rig) forceOn(node string, q api.Recover) (api.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q.ID = "test-recover-" + strings.Repeat("0", 8)
	return r.machines[node].agent().Recover(ctx, operator, q)
}

func (r *rig) mustForceOn(node string, q api.Recover) {
	r.t.Helper()
	if reply, err := r.forceOn(node, q); err != nil || reply.Refused != "" {
		r.fatal("force the configuration on %s: %v %s", node, err, reply.Refused)
	}
}

// refusesForce wants a refusal that says so, and that has changed nothing.
func (r *rig) refusesForce(node, why string, q api.Recover) {
	r.t.Helper()
	before := r.machines[node].agent().Status().Cluster
	_, err := r.forceOn(node, q)
	if err == nil || !strings.Contains(err.Error(), why) {
		r.fatal("the configuration on %s without %v %v: %v, wanted %q", node, q.Dead, q.Lost, err, why)
	}
	if now := r.machines[node].agent().Status().Cluster; now.Epoch != before.Epoch || now.Quorum.Voters != before.Quorum.Voters {
		r.fatal("refused, and yet the epoch was %d and is %d, voters %d and %d", before.Epoch, now.Epoch, before.Quorum.Voters, now.Quorum.Voters)
	}
}

// letGo waits until a machine without a majority holds nothing.
func (r *rig) letGo(node string) {
	r.t.Helper()
	r.await(20*time.Second, node+" lets go, or boots again", func() bool {
		r.machines[node].release()
		m := r.machines[node]
		return len(r.ledger.holding(node)) == 0 && m.agent() != nil && !armed(m.agent().Status(), node)
	})
}

func armed(s api.Status, node string) bool {
	n := s.Node(node)
	return n != nil && (n.Lease == nil || n.Lease.Armed)
}

// rejoin lets a machine that was left behind come back as an operator brings it back.
func (r *rig) rejoin(on string, names ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, n := range names {
		r.await(20*time.Second, n+" knows that it belongs to no cluster", func() bool {
			r.tend()
			a := r.machines[n].agent()
			_, err := os.Stat(filepath.Join(r.machines[n].dir, "state", "identity"))
			return a != nil && os.IsNotExist(err) && a.Status().Cluster.State == api.ClusterNotConfigured
		})
		token, err := r.machines[on].agent().NewToken(ctx, operator, api.NewToken{Node: n})
		must(r.t, err)
		_, err = r.machines[n].agent().Join(ctx, operator, api.Join{Token: token.Token})
		must(r.t, err)
	}
}

// A12: two of three are lost for good, one by one all that can be wrong with the operator's word is refused, and the right word brings the
// service back on the third. The dead come back, both at once and with their old majority, and take no part until they join again.
func TestA12ForcedConfiguration(t *testing.T) {
	inBubble(t, options{seed: 1201, settings: "  settling_time: 0s\n"}, func(r *rig) {
		r.refusesForce("n1", "leads", api.Recover{Dead: []string{"n2", "n3"}})
		r.machines["n2"].crash()
		r.machines["n3"].crash()
		r.letGo("n1")
		r.await(30*time.Second, "n1 knows no leader", func() bool { return r.machines["n1"].agent().Status().Cluster.Leader == "" })
		if n := r.ledger.server(r.groups["g2"]); n != "" {
			t.Errorf("%s serves g2 without a majority", n)
		}
		r.refusesForce("n1", "there is no node", api.Recover{Dead: []string{"n2", "n9"}})
		r.refusesForce("n1", "is this one", api.Recover{Dead: []string{"n1", "n2"}})
		r.refusesForce("n1", "majority", api.Recover{Dead: []string{"n2"}})
		r.refusesForce("n1", "no repository", api.Recover{Dead: []string{"n2", "n3"}, Lost: []string{"repo"}})

		r.lan.Isolate("n2") // it lives, and with it a majority could be had
		r.machines["n2"].boot()
		time.Sleep(time.Second)
		r.lan.Heal("n2")
		r.refusesForce("n1", "n2", api.Recover{Dead: []string{"n2", "n3"}})
		r.await(30*time.Second, "n1 and n2 have a majority", func() bool { return r.leader() != "" })
		r.machines["n2"].crash()
		r.letGo("n1")
		r.await(30*time.Second, "n1 knows no leader", func() bool { return r.machines["n1"].agent().Status().Cluster.Leader == "" })
		time.Sleep(2 * time.Second)

		r.mustForceOn("n1", api.Recover{Dead: []string{"n2", "n3"}})
		r.await(30*time.Second, "n1 serves everything", func() bool {
			s := r.machines["n1"].agent().Status()
			return s.Cluster.Epoch == 2 && s.Cluster.Leader == "n1" &&
				r.holder("g1") == "n1" && r.holder("g2") == "n1" && r.holder("g3") == "n1"
		})
		if e, err := r.machines["n1"].agent().Events(0, 200); err != nil || !slices.ContainsFunc(e.Events, func(e api.Event) bool {
			return e.Kind == state.EventEpoch && strings.Contains(e.Sentence, "declared dead: n2, n3")
		}) {
			t.Errorf("the history does not say who was declared dead: %v", err)
		}

		r.machines["n2"].boot()
		r.machines["n3"].boot()
		r.rejoin("n1", "n2", "n3")
		r.await(60*time.Second, "three nodes vote again", func() bool {
			s := r.machines["n1"].agent().Status()
			return r.allUp() && s.Cluster.Quorum.Voters == 3
		})
		r.settle(30 * time.Second)
		r.machines["n1"].crash() // the new epoch is a cluster like any other
		r.await(40*time.Second, "the others serve without n1", r.settledBut("n1"))
		r.recover(60 * time.Second)
	})
}

// The old majority lives, out of this node's sight: the word about those that vote is wrong, but they hold nothing. What n4 holds, about which
// no word was given, is not freed by any time; and when the networks are back all of the old epoch lets go before anything of it counts.
func aliveBehindTheCut(t *testing.T, naive bool) {
	o := options{seed: 1202, nodes: 4, groups: []string{"g1 n4 n1"}, settings: "  settling_time: 0s\n"}
	inBubble(t, o, func(r *rig) {
		r.await(30*time.Second, "n4 has no vote", func() bool { s := r.status(); return s.Cluster.Quorum.Voters == 3 && !s.Node("n4").Voter })
		r.lan.Isolate("n1")
		r.letGo("n1")
		r.await(30*time.Second, "n1 knows no leader", func() bool { return r.machines["n1"].agent().Status().Cluster.Leader == "" })
		if naive {
			r.planted = true
			r.naiveForce("n1")
		} else {
			time.Sleep(2 * time.Second)
			r.mustForceOn("n1", api.Recover{Dead: []string{"n2", "n3"}})
		}
		time.Sleep(3 * r.expiry()) // whatever could be proven by time
		if naive {
			return // both hold g1 by now
		}
		if s := r.machines["n1"].agent().Status(); s.Cluster.Epoch != 2 || s.Cluster.Leader != "n1" {
			t.Errorf("n1 does not lead: epoch %d, leader %q", s.Cluster.Epoch, s.Cluster.Leader)
		}
		if h := r.holder("g1"); h != "n4" {
			t.Errorf("g1 is served by %q: the old majority lives", h)
		}
		r.lan.Heal("n1")
		r.await(60*time.Second, "the old epoch lets go", func() bool { r.tend(); return len(r.ledger.holding("n4")) == 0 })
		r.rejoin("n1", "n2", "n3", "n4")
		r.await(90*time.Second, "all is served in the new epoch", func() bool {
			r.tend()
			return r.allUp() && r.settled()
		})
	})
}

func TestA12OldMajorityLivesOutOfSight(t *testing.T) { aliveBehindTheCut(t, false) }

// Without the epoch, which makes what the unnamed hold unknown and keeps the old members out, the new leader takes their leases for expired.
func TestA12NaiveForceIsCaught(t *testing.T) { aliveBehindTheCut(t, true) }

// naiveForce does what raft's own means would do: the configuration is changed, and nobody is told.
func (r *rig) naiveForce(node string) {
	r.t.Helper()
	m := r.machines[node]
	m.kill9()
	m.release()
	id, err := identity.Load(filepath.Join(m.dir, "state", "identity"))
	must(r.t, err)
	note := &state.Command{ID: "naive-force-00000", At: time.Now().UTC(), Noop: &state.Noop{}}
	b, err := note.Encode()
	must(r.t, err)
	machine, err := consensus.LoadIdentity(filepath.Join(m.dir, "state", "raft"))
	must(r.t, err)
	must(r.t, consensus.Force(consensus.Forcing{ID: id.RaftID, ClusterID: id.ClusterUUID, Dir: filepath.Join(m.dir, "state", "raft"),
		MachineID: machine.Place.MachineID, Commands: [][]byte{b}, Config: consensus.Config{Clock: m.clock}}))
	m.startAgent()
}

// Two nodes, and the volume is lost with one of them. A volume that can be read is no lost one; the right word brings the service back, the
// old disk is of no use to anybody afterwards, and a new one is formatted when the other node is back.
func TestA12NodeAndVolumeLost(t *testing.T) {
	inBubble(t, options{seed: 1203, nodes: 2}, func(r *rig) {
		if r.host() != "n2" { // it goes with its host
			t.Logf("the voter is on %s", r.host())
		}
		r.lost.Store("/dev/repo", true)
		time.Sleep(3 * time.Second)
		r.machines["n2"].crash()
		r.letGo("n1")
		r.await(30*time.Second, "n1 knows no leader", func() bool { return r.machines["n1"].agent().Status().Cluster.Leader == "" })
		time.Sleep(2 * time.Second)
		r.refusesForce("n1", "majority", api.Recover{Dead: []string{"n2"}})
		r.refusesForce("n1", "majority", api.Recover{Lost: []string{"repo"}})
		r.mustForceOn("n1", api.Recover{Dead: []string{"n2"}, Lost: []string{"repo"}})
		r.await(30*time.Second, "n1 serves everything", func() bool { return r.holder("g1") == "n1" && r.holder("g2") == "n1" })
		r.lost.Delete("/dev/repo") // the old disk is found again, and the other node with it
		r.machines["n2"].boot()
		r.rejoin("n1", "n2")
		r.await(60*time.Second, "n2 is back", r.allUp)
		s := r.machines["n1"].agent().Status()
		if s.Cluster.Repository != nil && s.Cluster.Repository.Voter {
			t.Errorf("the old volume votes: %+v", s.Cluster.Repository)
		}
		r.settle(30 * time.Second)
	})
}

// Three nodes with a volume that has no vote: it is given up with the old configuration, once its voter has said that it has nothing newer.
func TestA12VolumeWithoutAVote(t *testing.T) {
	inBubble(t, options{seed: 1206, volume: true, settings: "  settling_time: 0s\n"}, func(r *rig) {
		time.Sleep(3 * time.Second)
		r.machines["n2"].crash()
		r.machines["n3"].crash()
		r.letGo("n1")
		r.await(30*time.Second, "n1 knows no leader", func() bool { return r.machines["n1"].agent().Status().Cluster.Leader == "" })
		time.Sleep(2 * time.Second)
		r.refusesForce("n1", "LOST=repo", api.Recover{Dead: []string{"n2", "n3"}})
		r.mustForceOn("n1", api.Recover{Dead: []string{"n2", "n3"}, Lost: []string{"repo"}})
		r.await(30*time.Second, "n1 serves everything", func() bool {
			return r.holder("g1") == "n1" && r.holder("g2") == "n1" && r.holder("g3") == "n1"
		})
		r.machines["n2"].boot()
		r.machines["n3"].boot()
		r.rejoin("n1", "n2", "n3")
		r.await(60*time.Second, "all are back", r.allUp)
		r.settle(30 * time.Second)
	})
}

// The volume works: it is not lost, whatever is said, and its vote is the majority's.
func TestA12VolumeThatWorksIsNotLost(t *testing.T) {
	inBubble(t, options{seed: 1204, nodes: 2}, func(r *rig) {
		r.machines["n2"].crash()
		for range 40 {
			a := r.machines["n1"].agent()
			if a != nil {
				if _, err := r.forceOn("n1", api.Recover{Dead: []string{"n2"}, Lost: []string{"repo"}}); err == nil {
					r.fatal("the configuration was forced although the volume works")
				}
			}
			time.Sleep(100 * time.Millisecond)
			r.tend()
			if r.machines["n2"].isOn() {
				r.machines["n2"].crash()
			}
		}
	})
}

// The daemon is killed while it forces the configuration: before the write nothing has happened, after it all has, whatever the file of the
// epoch says; and a refusal of another kind leaves no trace.
func TestA12KilledWhileForcing(t *testing.T) {
	inBubble(t, options{seed: 1205, settings: "  settling_time: 0s\n"}, func(r *rig) {
		time.Sleep(2 * time.Second) // n1 has all of it in its log
		r.machines["n2"].crash()
		r.machines["n3"].crash()
		r.letGo("n1")
		m := r.machines["n1"]
		file := filepath.Join(m.dir, "state", "epoch.json")
		m.kill9()
		must(t, os.WriteFile(file, []byte(`{"epoch":1,"next":2,"next_id":"force-that-never-was"}`), 0o600))
		m.startAgent()
		r.await(20*time.Second, "it settles for epoch 1", func() bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.TrimSpace(string(b)) == `{"epoch":1}` && m.agent() != nil
		})
		m.crash() // it knows nothing but its log, of which nobody says what is committed
		m.boot()
		time.Sleep(3 * time.Second)
		r.mustForceOn("n1", api.Recover{Dead: []string{"n2", "n3"}})
		m.kill9()
		must(t, os.WriteFile(file, []byte(`{"epoch":1,"next":2,"next_id":"force-test-recover-00000000"}`), 0o600))
		m.startAgent()
		r.await(20*time.Second, "it settles for epoch 2", func() bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.TrimSpace(string(b)) == `{"epoch":2}`
		})
		// All nodes were down: it is a cold start, and g2 and g3 start on their home nodes only until the operator says otherwise.
		r.await(30*time.Second, "n1 serves what is at home there", func() bool { return r.holder("g1") == "n1" })
		for _, g := range []string{"g2", "g3"} {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			reply, err := m.agent().Do(ctx, operator, api.Request{ID: "test-online-00000-" + g, Op: api.OpOnline, Groups: []string{g}, Node: "n1"})
			cancel()
			if err != nil || reply.Refused != "" {
				r.fatal("online %s: %v %s", g, err, reply.Refused)
			}
		}
		r.await(30*time.Second, "n1 serves everything", func() bool {
			return r.holder("g1") == "n1" && r.holder("g2") == "n1" && r.holder("g3") == "n1"
		})
		exits := r.exits.Load()
		m.kill9()
		must(t, os.Remove(file)) // the log knows better
		m.startAgent()
		r.await(20*time.Second, "it ends, and begins in its log's epoch", func() bool {
			r.tend()
			b, err := os.ReadFile(file)
			return err == nil && strings.TrimSpace(string(b)) == `{"epoch":2}` && r.exits.Load() > exits && m.agent() != nil
		})
		r.await(20*time.Second, "n1 leads again", func() bool { return m.agent() != nil && m.agent().Status().Cluster.Leader == "n1" })
		m.kill9()
		must(t, os.WriteFile(file, []byte(`{"epoch":`), 0o600)) // a file that is damaged is no epoch
		m.startAgent()
		time.Sleep(time.Second)
		if a := m.agent(); a != nil && a.Status().Cluster.State != api.ClusterNotConfigured {
			t.Errorf("it takes part without knowing its epoch")
		}
		must(t, os.WriteFile(file, []byte(`{"epoch":2}`), 0o600))
	})
}
