//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// lockRun starts a command under a lock, beside the test.
func (w *world) lockRun(node, name string, argv ...string) <-chan lab.Result {
	done := make(chan lab.Result, 1)
	go func() {
		r, _ := w.Lab.Run(context.Background(), node, append([]string{"clmgr", "lock", "run", name, "--"}, argv...)...)
		done <- r
	}()
	return done
}

// lockOf is the lock as a node knows it.
func (w *world) lockOf(node, name string) api.Lock {
	r := w.run(node, "clmgr", "-o", "json", "query", "lock", name)
	var list []api.Lock
	if r.Code != 0 || json.Unmarshal([]byte(r.Stdout), &list) != nil || len(list) != 1 {
		return api.Lock{Name: name}
	}
	return list[0]
}

func (w *world) heldBy(asked, name, holder string) (share api.LockShare) {
	w.t.Helper()
	w.await("lock "+name+" is held by "+holder, func() string {
		l := w.lockOf(asked, name)
		if len(l.Holders) != 1 || l.Holders[0].Node != holder {
			return fmt.Sprintf("%+v", l)
		}
		share = l.Holders[0]
		return ""
	})
	return share
}

// Two nodes compete for a lock: daemon, leader and holder are lost one after another, and the lock goes to the next only when the
// holder is certainly gone, or has been told.
func TestLocks(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.whole()
	leader := w.leader()
	holder := w.other(leader)
	waiter := ""
	for _, n := range w.nodes {
		if n != leader && n != holder {
			waiter = n
		}
	}
	w.place(holder)

	r := w.run(waiter, "clmgr", "lock", "run", "free", "-s", "--", "sh", "-c", "echo $HOLDFAST_LOCK_NAME $HOLDFAST_LOCK_TOKEN; exit 7")
	w.expect("the command's own status", r, 7, "free ")
	w.lockRun(holder, "db", "sleep", "600")
	first := w.heldBy(waiter, "db", holder)
	w.expect("try", w.run(waiter, "clmgr", "lock", "run", "db", "--try", "--", "true"), 124, "held by root on node "+holder)
	w.expect("no command", w.run(waiter, "clmgr", "lock", "run", "db"), 125, "the command is missing")
	next := w.lockRun(waiter, "db", "sleep", "600")

	t.Log("the holder's daemon is killed: its client takes the session up again")
	check(t, w.Kill(w.ctx(), holder, "agent"))
	w.whole()
	time.Sleep(2 * time.Second)
	if now := w.heldBy(waiter, "db", holder); now.Session != first.Session || now.Token != first.Token {
		t.Errorf("after the daemon's restart the lock is held by %+v, it was %+v", now, first)
	}

	t.Log("the leader crashes: nothing changes hands")
	leader = w.leader()
	if leader != holder && leader != waiter {
		check(t, w.Crash(w.ctx(), leader))
		if now := w.heldBy(waiter, "db", holder); now.Token != first.Token {
			t.Errorf("after the leader's crash the lock is held by %+v, it was %+v", now, first)
		}
		check(t, w.Boot(w.ctx(), leader))
		w.whole()
	}

	t.Log("the holder's node crashes: the lock goes on with the proof of its death")
	w.place(holder)
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), holder))
	second := w.heldBy(waiter, "db", waiter)
	dead := w.happened(since, "node_dead", holder)
	if second.Token <= first.Token || second.Since.Before(dead.Time) {
		t.Errorf("the lock went to %+v; before it was %+v, and the proof is of %v", second, first, dead.Time)
	}
	check(t, w.Boot(w.ctx(), holder))
	w.whole()

	t.Log("the new holder is cut off: its command is ended, then the next has the lock")
	w.place(waiter)
	w.lockRun(holder, "db", "sleep", "600")
	w.await("the next is in line", func() string {
		if l := w.lockOf(holder, "db"); len(l.Waiters) != 1 {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})
	check(t, w.Cut(w.ctx(), waiter, "", lab.Both))
	select {
	case r := <-next:
		w.expect("a command whose lock is lost", r, 123, "is LOST", "no word of a leader")
	case <-time.After(patience):
		t.Fatal("the command goes on without its lock")
	}
	third := w.heldBy(holder, "db", holder)
	if third.Token <= second.Token {
		t.Errorf("the tokens do not grow: %d after %d", third.Token, second.Token)
	}
	check(t, w.Heal(w.ctx(), waiter))
	w.whole()

	t.Log("an operator takes the lock away")
	w.refused(holder, 1, []string{"does not hold"}, "release", "lock", "db", "SESSION="+first.Session)
	w.clmgr(holder, "release", "lock", "db", "SESSION="+third.Session)
	w.await("the lock is free", func() string {
		if l := w.lockOf(holder, "db"); len(l.Holders) > 0 {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})
	if out := w.clmgr(holder, "query", "audit", "TAIL=20"); !strings.Contains(out, "release-lock db of session "+third.Session) {
		t.Errorf("the operator's release is not in the audit record:\n%s", out)
	}
}

// BenchmarkLocks prints how many operations a cluster of three takes: each a lock that is taken, or given back.
func BenchmarkLocks(t *testing.B) {
	w := begin(t, setup{noWatch: true})
	w.whole()
	for _, each := range []int{1, 4, 16, 40} {
		var ops atomic.Int64
		var worst atomic.Int64
		var all sync.WaitGroup
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		for i := range each * len(w.nodes) {
			c := client.New(w.NodePath(w.nodes[i%len(w.nodes)], "run", "clstrmgrd.sock"))
			defer c.Close()
			all.Go(func() {
				s, err := c.OpenLocks(ctx, api.LockOpen{TTLSeconds: 60})
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				name := fmt.Sprint("m", i)
				for seq := uint64(1); ctx.Err() == nil; seq += 2 {
					at := time.Now()
					if _, err := c.TakeLock(ctx, api.LockTake{Session: s.Session, Seq: seq, Name: name}); err != nil {
						break
					}
					if _, err := c.GiveLock(ctx, api.LockGive{Session: s.Session, Seq: seq + 1, Name: name}); err != nil {
						break
					}
					ops.Add(2)
					for d := time.Since(at).Nanoseconds(); ; {
						if old := worst.Load(); d <= old || worst.CompareAndSwap(old, d) {
							break
						}
					}
				}
				_, _ = c.CloseLocks(context.Background(), api.LockClose{Session: s.Session})
			})
		}
		all.Wait()
		took := 10 * time.Second
		cancel()
		t.Logf("%d clients on each of three nodes: %.0f operations per second in all, a taking with its giving %.1f ms in the mean, %.0f ms at worst",
			each, float64(ops.Load())/took.Seconds(), float64(each*len(w.nodes))*took.Seconds()*1000/float64(max(ops.Load()/2, 1)), float64(worst.Load())/1e6)
	}
}
