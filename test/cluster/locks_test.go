package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server"
)

var histories = flag.Int("cluster.histories", 50, "TestLockHistories: how many histories of locks are judged")

// TestLockHistories lets clients on all machines compete for locks while machines crash, are cut off, and agents are killed, and has
// porcupine judge each history: it must be one of a lock with one holder and tokens that grow. What a client loses counts as free from
// the moment at which the client is told, or its machine ends, and not before: so a lock that goes to another sooner is found.
func TestLockHistories(t *testing.T) {
	const each = 5       // histories of one cluster
	if testing.Short() { // under the race detector each takes several times as long
		*histories = min(*histories, 15)
	}
	found := map[string]int{}
	for s := uint64(1); s <= uint64(*histories+each-1)/each; s++ {
		if *seed != 0 {
			s = *seed
		}
		o := options{seed: s, fence: s%3 == 0}
		if s%2 == 1 {
			o.groups = []string{"g1 n1"} // the others are not armed: they are proven dead while their programs run on
		}
		if s%4 == 2 {
			o.profile = "fast"
		}
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			inBubble(t, o, func(r *rig) {
				for i := range each {
					h := newLockHistory(r, fmt.Sprintf("h%d", i))
					h.disturb(30 * time.Second)
					h.judge()
					for k, n := range h.counts {
						found[k] += n
					}
				}
			})
		})
		if *seed != 0 {
			return
		}
	}
	t.Logf("in all: %v", found)
	if testing.Short() { // too few for the rarest
		return
	}
	for _, k := range []string{"acquired", "busy", "released", "told lost", "died", "without an answer", "taken up again"} {
		if found[k] == 0 && *seed == 0 {
			t.Errorf("no history had a client that was %q: the test does not reach it", k)
		}
	}
}

// A lockHistory is what clients have done with one lock, and when.
type lockHistory struct {
	r      *rig
	name   string
	mu     sync.Mutex
	ops    []porcupine.Operation
	counts map[string]int
	stop   chan struct{}
	done   sync.WaitGroup
}

type lockOp struct {
	kind  string // acquire, release
	grant int    // which acquisition
}

type lockAnswer struct {
	token uint64
	late  bool // nobody has seen when it happened: at any time after the call
}

func newLockHistory(r *rig, name string) *lockHistory {
	h := &lockHistory{r: r, name: name, counts: map[string]int{}, stop: make(chan struct{})}
	for i := range 2 * len(r.names) {
		c := &lockClient{h: h, id: i, node: r.names[i%len(r.names)], rng: rand.New(rand.NewPCG(r.options.seed, uint64(i)+uint64(len(name))*100))}
		h.done.Go(c.run)
	}
	return h
}

func (h *lockHistory) count(what string) {
	h.mu.Lock()
	h.counts[what]++
	h.mu.Unlock()
}

func (h *lockHistory) add(client int, op lockOp, call time.Time, out lockAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := time.Now().UnixNano()
	if out.late {
		end = 1 << 62
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Call: call.UnixNano(), Output: out, Return: end})
}

// grant numbers an acquisition.
func (h *lockHistory) grant() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts["attempts"]++
	return h.counts["attempts"]
}

// disturb breaks things for a while, ends all clients, and heals.
func (h *lockHistory) disturb(d time.Duration) {
	r := h.r
	for end := time.Now().Add(d); time.Now().Before(end); {
		v := r.names[r.random(len(r.names))]
		switch r.random(5) {
		case 0:
			r.machines[v].crash()
		case 1:
			r.lan.Isolate(v)
		case 2:
			r.lan.CutOneWay(v, r.others(v)[r.random(len(r.names)-1)])
		case 3:
			r.machines[v].kill9()
			time.Sleep(time.Duration(r.random(1500)) * time.Millisecond)
			r.tend()
		case 4:
			if l := r.leader(); l != "" {
				r.lan.Isolate(l)
			}
		}
		time.Sleep(time.Duration(r.random(7000)) * time.Millisecond)
		r.tend()
		if r.random(2) == 0 {
			r.lan.Heal()
		}
	}
	r.recover(90 * time.Second)
	time.Sleep(3 * time.Second)
	close(h.stop)
	h.done.Wait()
}

func (h *lockHistory) judge() {
	h.r.t.Helper()
	result, info := porcupine.CheckOperationsVerbose(lockModel, h.ops, 0)
	if result == porcupine.Ok {
		return
	}
	path := fmt.Sprintf("%s/lock-history-%d-%s.html", os.TempDir(), h.r.options.seed, h.name)
	err := porcupine.VisualizePath(lockModel, info, path)
	for _, o := range h.ops {
		h.r.t.Logf("%d: %+v %+v from %s to %s", o.ClientId, o.Input, o.Output, time.Unix(0, o.Call).Format("05.000"), time.Unix(0, o.Return).Format("05.000"))
	}
	h.r.fatal("seed %d: the history %s is %s: no lock could have answered so (%s, %v)", h.r.options.seed, h.name, result, path, err)
}

type lockModelState struct {
	holder int
	token  uint64
}

// lockModel is a lock, in a few lines that know nothing of ours. What nobody knew to be held is not in a history: a request that was
// given up may hold the lock for a moment, which harms nobody.
var lockModel = porcupine.Model{
	Init: func() any { return lockModelState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op, out := state.(lockModelState), input.(lockOp), output.(lockAnswer)
		if op.kind == "acquire" {
			return s.holder == 0 && out.token > s.token, lockModelState{op.grant, out.token}
		}
		return s.holder == op.grant, lockModelState{0, s.token}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// A lockClient is a program on a machine that uses a lock by the rules that package api gives.
type lockClient struct {
	h    *lockHistory
	id   int
	node string
	rng  *rand.Rand
	seq  uint64
}

const clientTTL = 6 * time.Second

func (c *lockClient) run() {
	for !c.over() {
		c.pause(500)
		a := c.agent()
		if a == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		began := time.Now()
		open, err := a.OpenLocks(ctx, operator, api.LockOpen{TTLSeconds: clientTTL.Seconds()})
		cancel()
		if err == nil {
			c.session(open.Session, began)
		}
	}
}

func (c *lockClient) over() bool {
	select {
	case <-c.h.stop:
		return true
	default:
		return false
	}
}

func (c *lockClient) pause(ms int) { time.Sleep(time.Duration(1+c.rng.IntN(ms)) * time.Millisecond) }

func (c *lockClient) agent() *agent.Agent { return c.h.r.machines[c.node].agent() }

// boot says which boot of the machine runs, and when it ended if it does not.
func (c *lockClient) boot() (boot int, on bool, died time.Time) {
	m := c.h.r.machines[c.node]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boots, m.on, m.died
}

// session uses a session until it is lost, the machine ends, or it has had enough.
func (c *lockClient) session(id string, known time.Time) {
	boot, on, _ := c.boot()
	if !on {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer cancel(errors.New("closed"))
	var lost time.Time // set before the context ends
	var once sync.Once
	end := func(at time.Time, why string) {
		once.Do(func() {
			lost = at
			c.h.count(why)
			cancel(errors.New(why))
		})
	}
	watchers.Go(func() {
		for ctx.Err() == nil {
			if b, on, died := c.boot(); b != boot || !on {
				end(died, "died")
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	watchers.Go(func() { c.keep(ctx, id, known, end) })
	for i := 0; i < 4 && ctx.Err() == nil && !c.over(); i++ {
		grant, held := c.acquire(ctx, id)
		if !held {
			c.pause(1000)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(c.rng.IntN(3000)) * time.Millisecond):
		}
		if ctx.Err() != nil {
			c.h.add(c.id, lockOp{"release", grant}, lost, lockAnswer{late: true})
			return
		}
		call := time.Now()
		c.seq++
		err := c.call(ctx, func(ctx context.Context, a *agent.Agent) error {
			r, err := a.GiveLock(ctx, operator, api.LockGive{Session: id, Seq: c.seq, Name: c.h.name})
			if err == nil && r.Refused != "" {
				err = errors.New(r.Refused)
			}
			return err
		})
		c.h.add(c.id, lockOp{"release", grant}, call, lockAnswer{late: err != nil})
		c.h.count("released")
		if err != nil {
			break
		}
		c.pause(1000)
	}
	if ctx.Err() == nil {
		cancel(errors.New("closed"))
		_ = c.call(context.Background(), func(ctx context.Context, a *agent.Agent) error {
			_, err := a.CloseLocks(ctx, operator, api.LockClose{Session: id})
			return err
		})
	}
}

// call calls the present agent, and no longer than that one lives: a killed one's connections break.
func (c *lockClient) call(ctx context.Context, f func(context.Context, *agent.Agent) error) error {
	p := c.h.r.machines[c.node].process()
	if p == nil {
		return errEnded
	}
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("no patience"))
	defer cancel()
	got := make(chan error, 1)
	go func() { got <- f(ctx, p.agent) }()
	select {
	case err := <-got:
		return err
	case <-p.ctx.Done():
		// What ends here is the daemon. The rig's needs a moment for it, in which it must not see a client that hangs up: that would end the
		// session at once, while the client, rightly, believes it open.
		hangUp(server.ErrClosed)
		return errEnded
	}
}

// acquire tries, or waits for, the lock.
func (c *lockClient) acquire(ctx context.Context, id string) (grant int, held bool) {
	grant = c.h.grant()
	call := time.Now()
	c.seq++
	req := api.LockTake{Session: id, Seq: c.seq, Name: c.h.name, Wait: c.rng.IntN(3) > 0, WaitSeconds: 0.5 + 4*c.rng.Float64()}
	var got api.LockTaken
	err := c.call(ctx, func(ctx context.Context, a *agent.Agent) error {
		r, err := a.TakeLock(ctx, operator, req)
		if err == nil {
			got = r
		}
		return err
	})
	switch {
	case err == nil && got.Held:
		c.h.add(c.id, lockOp{"acquire", grant}, call, lockAnswer{token: got.Token})
		c.h.count("acquired")
		return grant, true
	case err == nil && got.Busy != "":
		c.h.count("busy")
	}
	return 0, false
}

// keep keeps the session as package api asks it: one call hangs at any time, and without an answer for the TTL the session is lost.
func (c *lockClient) keep(ctx context.Context, id string, known time.Time, end func(time.Time, string)) {
	for ctx.Err() == nil {
		left := time.Until(known.Add(clientTTL))
		if left <= 0 {
			end(time.Now(), "without an answer")
			return
		}
		asked := time.Now()
		var kept api.LockKept
		// The call hangs on when this client gives up: it hangs up only when it has stopped what it did.
		answered := time.AfterFunc(left, func() { end(time.Now(), "without an answer") })
		err := c.call(ctx, func(ctx context.Context, a *agent.Agent) error {
			r, err := a.KeepLocks(ctx, operator, api.LockKeep{Session: id})
			if err == nil {
				kept = r
			}
			return err
		})
		answered.Stop()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && kept.Lost != "":
			end(time.Now(), "told lost")
			return
		case err == nil:
			known = asked
			continue
		case api.CodeOf(err) == api.CodeNotFound:
			one, cancel := context.WithTimeout(ctx, left)
			err := c.call(one, func(ctx context.Context, a *agent.Agent) error {
				_, err := a.OpenLocks(ctx, operator, api.LockOpen{Session: id, Again: true})
				return err
			})
			cancel()
			if err == nil {
				known = asked
				c.h.count("taken up again")
				continue
			}
			if api.CodeOf(err) == api.CodeNotFound {
				end(time.Now(), "told lost")
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}
