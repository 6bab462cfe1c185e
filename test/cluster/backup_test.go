package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// Backups of the repository volume: one takes the place of a volume that no node can use any more, by itself, and in no other case.

// addBackup defines and formats a second volume. change may set the cluster's settings.
func (r *rig) addBackup(change func(*cluster.Settings)) {
	r.t.Helper()
	r.spare = repositorytest.NewDisk(repository.MinLabSize)
	_, err := r.edit(func(d *cluster.Definition) {
		d.Repositories = append(d.Repositories, cluster.Repository{Name: "repo2", Device: spareDevice})
		d.Settings.RepositoryLossTime = 10 * time.Second
		if change != nil {
			change(&d.Settings)
		}
	})
	must(r.t, err)
	r.do(api.Request{Op: api.OpFormat, Repository: "repo2"})
	r.await(time.Minute, "the backup is seen by all", func() bool {
		b := r.status().Cluster.Backups
		return len(b) == 1 && b[0].State == api.BackupUsable && b[0].Sentence == "all nodes can use it"
	})
	if s := r.status(); s.Cluster.Repository.Name != "repo" || !r.allVote() {
		r.fatal("a backup is in use that is not needed: %+v", s.Cluster.Repository)
	}
	r.watch.forget()
}

// told counts the events of a kind in the history.
func (r *rig) told(event string) (n int) {
	r.t.Helper()
	h, err := r.anyAgent().Events(0, 1000)
	must(r.t, err)
	for _, e := range h.Events {
		if e.Kind == event {
			n++
		}
	}
	return n
}

// uses reports whether the volume is the one in use, votes, and nothing else does.
func (r *rig) uses(name string) func() bool {
	return func() bool {
		c := r.status().Cluster
		return r.allVote() && c.Repository != nil && c.Repository.Name == name && c.Repository.Voter && len(c.Repository.Leaving) == 0
	}
}

// nothingMoved fails if a group was away.
func (r *rig) nothingMoved() {
	r.t.Helper()
	for _, g := range []string{"g1", "g2"} {
		if l := r.watch.longest(g); l > 0 {
			r.fatal("group %s was away for %v", g, l)
		}
	}
}

// eachSurvivesTheOther crashes one node after the other: the votes of the volume in use are good.
func (r *rig) eachSurvivesTheOther() {
	r.t.Helper()
	for _, v := range []string{"n1", "n2"} {
		other := map[string]string{"n1": "n2", "n2": "n1"}[v]
		r.await(time.Minute, "both reach the volume", func() bool { return r.voterWaits(v)() && r.voterWaits(other)() })
		r.machines[v].crash()
		r.await(20*time.Second, other+" serves everything", r.settledBut(v))
		time.Sleep(bootTime)
		r.machines[v].boot()
		r.recover(time.Minute)
		r.await(30*time.Second, "all vote", r.allVote)
	}
}

// The volume fails on both nodes, in each manner that a disk can: the backup takes its place and votes, nothing moves meanwhile, it is told
// once, the old one's return changes nothing, and then a crash of either node is survived by the new one's vote.
func TestTwoNodesBackupTakesOver(t *testing.T) {
	for i, kind := range diskTroubles() {
		t.Run(kind.what, func(t *testing.T) {
			inBubble(t, options{nodes: 2}, func(r *rig) {
				r.addBackup(nil)
				f := diskTroubles()[i]
				f.path = "/dev/repo"
				healed := false
				heal := func() {
					if healed {
						return
					}
					healed = true
					for _, n := range r.names {
						r.machines[n].trouble.Store(nil)
					}
					if f.hang != nil {
						close(f.hang)
					}
				}
				defer heal()
				old := r.status().Cluster.Repository.UUID
				for _, n := range r.names {
					r.machines[n].trouble.Store(f)
				}
				lost := time.Now()
				r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
				if took := time.Since(lost); took < 10*time.Second {
					t.Errorf("it was replaced after %v already", took)
				} else {
					t.Logf("%s: replaced after %v", f.what, took)
				}
				heal()
				time.Sleep(30 * time.Second)
				r.nothingMoved()
				c := r.status().Cluster
				if c.Repository.Name != "repo2" || len(c.Backups) != 1 || c.Backups[0].State != api.BackupLost || c.Backups[0].UUID != old {
					t.Errorf("after the old one's return: %+v, %+v", c.Repository, c.Backups)
				}
				if n := r.told("repository_replaced"); n != 1 {
					t.Errorf("told %d times", n)
				}
				for _, n := range r.names {
					for _, v := range r.machines[n].agent().Status().Cluster.Backups {
						if v.State != api.BackupLost {
							t.Errorf("%s says of the old volume: %+v", n, v)
						}
					}
				}
				r.eachSurvivesTheOther()
				if r.status().Cluster.Repository.Name != "repo2" {
					t.Error("the old volume is in use again")
				}
				// The operator's word makes it a backup again: formatted anew, under another id.
				r.do(api.Request{Op: api.OpFormat, Repository: "repo", Overwrite: true})
				r.await(2*time.Minute, "it is a backup again", func() bool {
					b := r.status().Cluster.Backups
					return len(b) == 1 && b[0].State == api.BackupUsable && b[0].Name == "repo" && b[0].UUID != old
				})
			})
		})
	}
}

// What must not replace a volume, however long it lasts.
func TestTwoNodesBackupStaysOne(t *testing.T) {
	gone := func(r *rig, nodes ...string) {
		for _, n := range nodes {
			r.machines[n].trouble.Store(&diskTrouble{what: "gone", path: "/dev/repo", err: errBlind})
		}
	}
	stays := func(r *rig, why string) {
		r.t.Helper()
		said := ""
		for range 180 {
			time.Sleep(time.Second)
			for _, n := range r.names {
				a := r.machines[n].agent()
				if a == nil {
					continue
				}
				c := a.Status().Cluster
				if c.Repository == nil || c.Repository.Name != "repo" {
					r.fatal("%s: %s uses %+v", why, n, c.Repository)
				}
				said += c.Repository.Replacement + "\n"
			}
		}
		if !strings.Contains(said, why) {
			r.fatal("nobody says %q, only: %s", why, strings.Join(tail(strings.Split(said, "\n"), 3), "; "))
		}
	}
	t.Run("one node uses it", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			gone(r, r.host())
			stays(r, "")
			r.nothingMoved()
		})
	})
	t.Run("it is forbidden", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(func(s *cluster.Settings) { s.NoRepositoryReplacement = true })
			gone(r, r.names...)
			stays(r, "REPOSITORY_AUTO_REPLACE is false")
			r.nothingMoved()
			r.do(api.Request{Op: api.OpReplace}) // an operator's word goes
			r.await(time.Minute, "the backup votes", r.uses("repo2"))
		})
	})
	t.Run("a node does not see the backup", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			r.machines["n1"].trouble.Store(&diskTrouble{what: "gone", err: errBlind}) // both of them
			r.await(3*time.Minute, "the backup's failure is told", func() bool { return r.told("repository_backup_down") == 1 })
			gone(r, "n2")
			stays(r, "node n1 cannot use the backup repo2")
			gone(r, "n1")
			r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
			r.nothingMoved()
			if n := r.told("repository_backup_up"); n != 1 {
				t.Errorf("the backup's return was told %d times", n)
			}
		})
	})
	// By its nature: the node that is left cannot know whether the other is dead, or goes on with the volume that only this one has lost. If
	// it could take the backup's vote the other could keep the old one's, and both had two of three.
	t.Run("one node is dead", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			r.lost.Store("/dev/repo", true)
			r.machines["n2"].crash()
			stays(r, "a majority of the votes must decide it")
			if r.leader() != "" || r.holder("g1") != "" || r.holder("g2") != "" {
				t.Errorf("%s leads, g1 is on %q, g2 on %q", r.leader(), r.holder("g1"), r.holder("g2"))
			}
			if reply, err := r.try(api.Request{Op: api.OpReplace, Force: true}); err == nil && reply.Refused == "" {
				t.Errorf("one node alone has replaced the volume: %+v", reply)
			}
			r.machines["n2"].boot()
			r.recover(time.Minute)
			r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
			r.eachSurvivesTheOther()
		})
	})
	t.Run("the nodes are cut apart", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			gone(r, r.names...)
			r.lan.Cut("n1", "n2")
			stays(r, "a majority of the votes must decide it")
			r.lan.Heal()
			r.recover(time.Minute)
			r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
		})
	})
	// The other node is isolated: only the volume reaches it, and the one that leads has the volume's vote.
	t.Run("a node is isolated", func(t *testing.T) {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			r.lan.Cut("n1", "n2")
			stays(r, "")
			r.lan.Heal()
			r.recover(time.Minute)
			r.await(time.Minute, "all vote", r.allVote)
		})
	})
}

// The old volume is back and the new one away when a node starts alone that knows the replacement, and has missed what came after it: it
// does not act by the old one's vote, which knows even less.
func TestTwoNodesOldVolumeGivesNoVote(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		r.addBackup(nil)
		r.lost.Store("/dev/repo", true)
		r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
		r.await(time.Minute, "both reach it", func() bool { return r.voterWaits("n1")() && r.voterWaits("n2")() })
		r.machines["n1"].crash()
		r.await(20*time.Second, "n2 serves everything", r.settledBut("n1"))
		_, err := r.edit(func(d *cluster.Definition) { d.Settings.FailureWindow = 77 * time.Minute })
		must(t, err)
		r.machines["n2"].crash()
		r.lost.Delete("/dev/repo")
		r.lost.Store(spareDevice, true)
		time.Sleep(bootTime)
		r.machines["n1"].boot()
		for range 60 {
			time.Sleep(time.Second)
			if l := r.leader(); l != "" || r.holder("g1") != "" || r.holder("g2") != "" {
				r.fatal("%q leads, g1 is on %q, g2 on %q", l, r.holder("g1"), r.holder("g2"))
			}
		}
		r.lost.Delete(spareDevice)
		r.await(time.Minute, "n1 leads", func() bool { return r.leader() == "n1" })
		text, err := r.machines["n1"].agent().Definition(false)
		must(t, err)
		if !strings.Contains(text.YAML, "1h17m") {
			t.Errorf("n1 acts on an old definition:\n%s", text.YAML)
		}
		r.machines["n2"].boot()
		r.recover(time.Minute)
		r.await(time.Minute, "all vote", r.uses("repo2"))
	})
}

// A definition that lists the lost volume first, as a file from before does, does not put it to use; what is staged neither.
func TestLostVolumeIsNotPutToUseByAFile(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		r.addBackup(nil)
		before, err := r.anyAgent().Definition(false)
		must(t, err)
		r.lost.Store("/dev/repo", true)
		r.await(2*time.Minute, "the backup has taken its place", r.uses("repo2"))
		r.lost.Delete("/dev/repo")
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		now, err := r.anyAgent().Definition(false)
		must(t, err)
		reply, err := r.anyAgent().SetDefinition(ctx, operator, api.DefinitionChange{ID: client.NewID(), YAML: before.YAML, BaseVersion: now.Version})
		must(t, err)
		if reply.Refused != "" {
			t.Errorf("refused: %s", reply.Refused)
		}
		time.Sleep(time.Minute)
		c := r.status().Cluster
		if c.Repository.Name != "repo2" || len(c.Backups) != 1 || c.Backups[0].State != api.BackupLost || !r.allVote() {
			t.Errorf("%+v, %+v", c.Repository, c.Backups)
		}
		r.nothingMoved()
		// The operator may put it back.
		r.do(api.Request{Op: api.OpReplace, Repository: "repo"})
		r.await(time.Minute, "it is in use again", r.uses("repo"))
		r.eachSurvivesTheOther()
	})
}

// A node dies at any moment around the replacement. With the old volume lost and the new one not voting yet no failure is survived, as
// before; whatever happens, no group has two owners (the checkers), and when the node is back the backup votes.
func TestTwoNodesBackupTakesOverAndCrash(t *testing.T) {
	for i, after := range []time.Duration{0, 30, 80, 150, 300, 600, 1000, 1500, 2200, 3000} {
		inBubble(t, options{nodes: 2}, func(r *rig) {
			r.addBackup(nil)
			r.lost.Store("/dev/repo", true)
			r.await(time.Minute, "it is replaced", func() bool {
				rep := r.status().Cluster.Repository
				return rep != nil && rep.Name == "repo2"
			})
			time.Sleep(after * time.Millisecond)
			victim := r.names[i%2]
			r.machines[victim].crash()
			if i%3 == 0 {
				r.lost.Delete("/dev/repo") // it comes back in the midst of it
			}
			time.Sleep(bootTime)
			r.machines[victim].boot()
			r.recover(2 * time.Minute)
			r.await(2*time.Minute, "the backup votes", r.uses("repo2"))
			r.eachSurvivesTheOther()
		})
	}
}
