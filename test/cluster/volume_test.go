package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/repository"
)

// openVolume is the agent's own way to the volume. It ends with its process.
func (p *process) openVolume(o repository.Options) (*repository.Volume, error) {
	if p.ended.Load() {
		return nil, errEnded
	}
	h := p.m.r.disk.Open()
	h.Before = func(write bool, _ int64, _ int) error {
		switch {
		case p.ended.Load():
			return errEnded
		case write && o.Role == repository.RoleKeeper && p.m.r.headersLocked.Load():
			return errors.New("the disk takes no header")
		}
		return nil
	}
	o.Device, o.Size = h, p.m.r.disk.Size()
	return repository.Open(o)
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
