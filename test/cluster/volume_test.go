package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// spareDevice is where the second volume is.
const spareDevice = "/dev/repo2"

func (r *rig) diskAt(path string) *repositorytest.Disk {
	if path == spareDevice {
		return r.spare
	}
	return r.disk
}

func (r *rig) reachable(path string) error {
	if _, gone := r.lost.Load(path); gone {
		return errors.New("the disk is gone")
	}
	return nil
}

// edit changes the definition as clmgr does.
func (r *rig) edit(change func(*cluster.Definition)) (api.Reply, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	text, err := r.anyAgent().Definition(false)
	must(r.t, err)
	d, err := config.DecodeCluster("test", []byte(text.YAML))
	must(r.t, err)
	change(d)
	out, err := config.EncodeCluster(d)
	must(r.t, err)
	return r.anyAgent().SetDefinition(ctx, operator, api.DefinitionChange{ID: client.NewID(), YAML: string(out), BaseVersion: text.Version})
}

// rebuild gives a machine that is off an empty disk, boots it, and lets it join again.
func (r *rig) rebuild(name string) {
	r.t.Helper()
	m := r.machines[name]
	must(r.t, os.RemoveAll(filepath.Join(m.dir, "state")))
	must(r.t, os.RemoveAll(filepath.Join(m.dir, "log")))
	m.boot()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	token, err := r.anyAgent().NewToken(ctx, operator, api.NewToken{Node: name})
	must(r.t, err)
	_, err = m.agent().Join(ctx, operator, api.Join{Token: token.Token})
	must(r.t, err)
	r.recover(time.Minute)
	r.await(30*time.Second, "all vote", r.allVote)
}

// voterWaits is whether the machine's voter reaches the volume: it says who hosts.
func (r *rig) voterWaits(name string) func() bool {
	return func() bool {
		a := r.machines[name].agent()
		if a == nil {
			return false
		}
		s := a.Status()
		return s.Cluster.Repository != nil && s.Cluster.Repository.Host != ""
	}
}

// A node whose disk was lost joins again, with a new identity: it can host the repository voter, so that it survives the other. Each in
// turn, so that also a node that was rebuilt itself has to let the other one in.
func TestTwoNodesRebuilt(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		for _, v := range []string{"n2", "n1", "n2"} {
			other := map[string]string{"n1": "n2", "n2": "n1"}[v]
			r.machines[v].crash()
			r.await(20*time.Second, other+" serves everything", r.settledBut(v))
			r.rebuild(v)
			r.await(time.Minute, v+" reaches the volume", r.voterWaits(v))
			r.machines[other].crash()
			r.await(20*time.Second, v+" serves everything", r.settledBut(other))
			time.Sleep(bootTime)
			r.machines[other].boot()
			r.recover(time.Minute)
			r.await(30*time.Second, "all vote", r.allVote)
		}
	})
}

// The node that was rebuilt leads before it has a place on the volume: the other one makes it one.
func TestTwoNodesRebuiltLeader(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		r.machines["n2"].crash()
		r.await(20*time.Second, "n1 serves everything", r.settledBut("n2"))
		r.headersLocked.Store(true)
		r.rebuild("n2")
		for i := 0; r.leader() != "n2"; i++ {
			if i == 20 {
				r.fatal("n2 never leads")
			}
			r.machines["n1"].kill9()
			time.Sleep(time.Second)
			r.recover(time.Minute)
		}
		if r.voterWaits("n2")() {
			r.fatal("n2 reaches the volume without a place on it")
		}
		r.headersLocked.Store(false)
		r.await(2*time.Minute, "n2 reaches the volume", r.voterWaits("n2"))
		r.await(30*time.Second, "all vote", r.allVote)
		r.machines["n1"].crash()
		r.await(20*time.Second, "n2 serves everything", r.settledBut("n1"))
	})
}

// A volume is replaced while the cluster runs, in place of one that works and of one that is lost: nothing moves, no vote is missing that
// was there before, and the new one decides from then on. The old disk, when it comes back, is used by nobody.
func TestTwoNodesReplaceVolume(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "it works", true: "it is lost"}[lost], func(t *testing.T) {
			inBubble(t, options{nodes: 2}, func(r *rig) {
				if lost {
					r.lost.Store("/dev/repo", true)
					r.await(time.Minute, "the loss is seen", func() bool { return r.status().Cluster.Quorum.Alive == 2 })
				}
				r.spare = repositorytest.NewDisk(repository.MinLabSize)
				_, err := r.edit(func(d *cluster.Definition) {
					d.Repositories = append(d.Repositories, cluster.Repository{Name: "repo2", Device: spareDevice})
				})
				must(t, err)
				if reply, err := r.try(api.Request{Op: api.OpReplace}); err == nil && reply.Refused == "" {
					t.Errorf("replaced by what is not formatted: %+v", reply)
				}
				r.do(api.Request{Op: api.OpFormat, Repository: "repo2"})
				if s := r.status(); s.Cluster.Repository.Name != "repo" {
					t.Errorf("formatting alone has put %s to use", s.Cluster.Repository.Name)
				}
				if _, err := r.edit(func(d *cluster.Definition) { d.Repositories = d.Repositories[1:] }); err == nil {
					t.Error("the volume that votes was deleted")
				}
				r.watch.forget()
				r.do(api.Request{Op: api.OpReplace, Repository: "repo2"})
				few := 3
				r.await(time.Minute, "the new volume votes alone", func() bool {
					s := r.status()
					if s.Cluster.Quorum.Voters > 0 {
						few = min(few, s.Cluster.Quorum.Alive)
					}
					return s.Cluster.Repository.Name == "repo2" && s.Cluster.Repository.Voter && r.allVote()
				})
				if !lost && few < 3 {
					t.Errorf("for a time only %d votes were there", few)
				}
				_, err = r.edit(func(d *cluster.Definition) { d.Repositories = d.Repositories[:1] })
				must(t, err)
				time.Sleep(5 * time.Second)
				for _, g := range []string{"g1", "g2"} {
					if l := r.watch.longest(g); l > 0 {
						t.Errorf("group %s was away for %v", g, l)
					}
				}
				r.lost.Delete("/dev/repo") // it comes back
				r.eachSurvivesTheOther()
			})
		})
	}
}

// While the old volume still votes and the new one does too, each failure of one is survived: both voters run.
func TestTwoNodesReplaceVolumeAndCrash(t *testing.T) {
	for _, v := range []string{"n1", "n2"} {
		t.Run(v, func(t *testing.T) {
			for _, after := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond, 1200 * time.Millisecond, 2500 * time.Millisecond} {
				inBubble(t, options{nodes: 2}, func(r *rig) {
					r.spare = repositorytest.NewDisk(repository.MinLabSize)
					_, err := r.edit(func(d *cluster.Definition) {
						d.Repositories = append(d.Repositories, cluster.Repository{Name: "repo2", Device: spareDevice})
					})
					must(t, err)
					r.do(api.Request{Op: api.OpFormat, Repository: "repo2"})
					r.do(api.Request{Op: api.OpReplace, Repository: "repo2"})
					time.Sleep(after)
					r.machines[v].crash()
					r.await(25*time.Second, "the other serves everything", r.settledBut(v))
					time.Sleep(bootTime)
					r.machines[v].boot()
					r.recover(time.Minute)
					r.await(time.Minute, "the new volume votes", func() bool {
						return r.allVote() && r.status().Cluster.Repository.Name == "repo2" && r.status().Cluster.Repository.Voter
					})
				})
			}
		})
	}
}

// Formatting is asked for several times at once, and again after it: the volume is formatted once, and votes.
func TestFormatIsExclusive(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		r.spare = repositorytest.NewDisk(repository.MinLabSize)
		_, err := r.edit(func(d *cluster.Definition) {
			d.Repositories = append(d.Repositories, cluster.Repository{Name: "repo2", Device: spareDevice})
		})
		must(t, err)
		before := r.formats.Load()
		r.slowFormat = time.Second
		same := client.NewID()
		var wg sync.WaitGroup
		var took, refused atomic.Int32
		for i := range 6 {
			id := same
			if i > 2 {
				id = client.NewID()
			}
			wg.Go(func() {
				reply, err := r.machines[r.names[i%2]].agent().Do(context.Background(), operator,
					api.Request{ID: id, Op: api.OpFormat, Repository: "repo2", Overwrite: true})
				switch {
				case err == nil && reply.Refused == "":
					took.Add(1)
				case err == nil:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if n := r.formats.Load() - before; n != 1 {
			t.Errorf("the device was formatted %d times", n)
		}
		t.Logf("%d requests were told that it is formatted now, %d that it was", took.Load(), refused.Load())
		r.do(api.Request{Op: api.OpReplace})
		r.await(time.Minute, "the new volume votes", func() bool { return r.allVote() && r.status().Cluster.Repository.Name == "repo2" })
	})
}

// The id of a volume comes from formatting and from nowhere else.
func TestVolumeIDsCannotBeSet(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		const made = "11111111-2222-4333-8444-555555555555"
		for name, change := range map[string]func(*cluster.Definition){
			"another id": func(d *cluster.Definition) { d.Repositories[0].UUID = made },
			"an id of a volume that is new": func(d *cluster.Definition) {
				d.Repositories = append([]cluster.Repository{{Name: "x", Device: "/dev/x", UUID: made}}, d.Repositories...)
			},
			"the id under another name": func(d *cluster.Definition) { d.Repositories[0].Name = "other" },
		} {
			if reply, err := r.edit(change); err == nil {
				t.Errorf("%s was taken: %+v", name, reply)
			}
		}
		// A file that leaves it out means the volume that is there.
		_, err := r.edit(func(d *cluster.Definition) { d.Repositories[0].UUID = "" })
		must(t, err)
		time.Sleep(3 * time.Second)
		if !r.allVote() {
			t.Error("the volume lost its vote")
		}
	})
}

// A vote that is missing though nothing is broken for the groups is said aloud: in the status, and in the history; and its return.
func TestTwoNodesMissingVoteIsTold(t *testing.T) {
	inBubbleWith(t, options{nodes: 2}, func(r *rig) { r.unformatted = true }, func(r *rig) {
		warns := func(words ...string) func() bool {
			return func() bool {
				for _, n := range r.names { // each node says so
					c := r.machines[n].agent().Status().Cluster
					if c.Quorum.Risk == "" || !slices.Contains(c.Warnings, c.Quorum.Risk) {
						return false
					}
					for _, w := range words {
						if !strings.Contains(c.Quorum.Risk, w) {
							return false
						}
					}
				}
				return true
			}
		}
		calm := func() bool {
			c := r.status().Cluster
			return c.Quorum.Risk == "" && len(c.Warnings) == 0 && r.allVote()
		}
		told := func(event string) int {
			h, err := r.anyAgent().Events(0, 1000)
			must(t, err)
			n := 0
			for _, e := range h.Events {
				if e.Kind == event {
					n++
				}
			}
			return n
		}
		r.await(5*time.Second, "the volume that was never formatted is told", warns("not formatted", "n1 votes alone", "clmgr format repository repo"))
		if h := r.anyAgent().Health(); len(h.Problems) == 0 {
			t.Error("the health says nothing")
		}
		r.await(15*time.Second, "it is in the history", func() bool { return told("quorum_at_risk") == 1 })
		r.do(api.Request{Op: api.OpFormat, Repository: "repo"})
		r.await(20*time.Second, "all is well", calm)
		r.await(15*time.Second, "that is in the history", func() bool { return told("quorum_restored") == 1 })
		r.lost.Store("/dev/repo", true)
		r.await(30*time.Second, "the loss of the volume is told", warns("does not answer", "clmgr replace repository"))
		r.await(15*time.Second, "it is in the history", func() bool { return told("quorum_at_risk") == 2 })
		r.lost.Delete("/dev/repo")
		r.await(30*time.Second, "all is well", calm)
		r.machines["n2"].crash() // a node that is down is told elsewhere
		r.await(20*time.Second, "n1 serves everything", r.settledBut("n2"))
		time.Sleep(20 * time.Second)
		if n := told("quorum_at_risk"); n != 2 {
			t.Errorf("told %d times", n)
		}
	})
}
