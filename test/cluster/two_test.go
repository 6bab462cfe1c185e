package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/repository"
)

// Two nodes and a repository volume, in fake time: the real agents, voters and volume code on a disk in memory. A voter's process is
// a goroutine here that dies with its agent's.

// voterProc is one run of a voter.
type voterProc struct {
	cancel  context.CancelFunc
	orders  io.WriteCloser
	reports chan agent.VoterReport
	done    chan struct{}
	dead    atomic.Bool // nothing of it reaches the disk any more
	once    sync.Once
}

func (v *voterProc) Reports() <-chan agent.VoterReport { return v.reports }
func (v *voterProc) HandOver(node string)              { _, _ = io.WriteString(v.orders, "handover "+node+"\n") }

func (v *voterProc) Stop(limit time.Duration) {
	v.cancel()
	v.once.Do(func() { v.orders.Close() })
	select {
	case <-v.done:
	case <-time.After(limit):
		v.kill()
	}
}

// kill ends it as SIGKILL does.
func (v *voterProc) kill() {
	v.dead.Store(true)
	v.cancel()
	v.once.Do(func() { v.orders.Close() })
}

// Write takes its reports.
func (v *voterProc) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		var r agent.VoterReport
		if err := json.Unmarshal(line, &r); err == nil && !v.dead.Load() {
			v.reports <- r
		}
	}
	return len(b), nil
}

func (p *process) startVoter(_ context.Context, o agent.VoterOptions) (agent.VoterProc, error) {
	if p.ended.Load() {
		return nil, errEnded
	}
	orders, out := io.Pipe()
	v := &voterProc{orders: out, reports: make(chan agent.VoterReport, 64), done: make(chan struct{})}
	var ctx context.Context
	ctx, v.cancel = context.WithCancel(context.Background())
	o.Orders, o.Report, o.Clock = orders, v, p.m.clock
	o.Network = &peer.Config{Dial: p.dial, Listen: p.listen}
	o.Exit = func(reason string) {
		p.m.r.ledger.say("the voter of %s exits: %s", p.m.name, reason)
		v.kill()
	}
	o.Open = func(ro repository.Options) (*repository.Volume, error) {
		disk := p.m.r.diskAt(ro.Path)
		h := disk.Open()
		h.Before = func(write bool, _ int64, _ int) error {
			if v.dead.Load() || p.ended.Load() {
				return errEnded
			}
			p.m.voterIO.add(write)
			if err := p.m.diskFault(write, ro.Path); err != nil {
				return err
			}
			return p.m.r.reachable(ro.Path)
		}
		ro.Device, ro.Size = h, disk.Size()
		return repository.Open(ro)
	}
	p.mu.Lock()
	p.voters = append(p.voters, v)
	p.mu.Unlock()
	go func() {
		defer close(v.done)
		defer close(v.reports)
		if err := agent.RunVoter(ctx, o); err != nil && !v.dead.Load() {
			p.m.r.ledger.say("the voter of %s ends: %v", p.m.name, err)
		}
		v.once.Do(func() { v.orders.Close() })
	}()
	return v, nil
}

// openVolume is the agent's own way to the volume. It ends with its process, or when the test takes it away.
func (p *process) openVolume(o repository.Options) (*repository.Volume, error) {
	if p.ended.Load() {
		return nil, errEnded
	}
	disk := p.m.r.diskAt(o.Path)
	h := disk.Open()
	h.Before = func(write bool, off int64, _ int) error {
		if p.ended.Load() {
			return errEnded
		}
		if write && o.Role == repository.RoleKeeper && p.m.r.headersLocked.Load() {
			return errors.New("the disk takes no header")
		}
		if err := p.m.r.reachable(o.Path); err != nil {
			return err
		}
		p.m.agentIO.add(write)
		if err := p.m.diskFault(write, o.Path); err != nil {
			return err
		}
		if p.m.blind.Load() || p.m.mute.Load() && off >= mailFrom && off < mailEnd {
			return errBlind
		}
		return nil
	}
	o.Device, o.Size = h, disk.Size()
	return repository.Open(o)
}

// Where the mailboxes lie on a volume for four nodes, which the smallest one is made for.
const (
	mailFrom = (1 + 4*4) * repository.BlockSize
	mailEnd  = mailFrom + 4*4*repository.BlockSize
)

var errBlind = errors.New("this node's agent does not reach the disk")

func (r *rig) formatVolume(o repository.FormatOptions) (repository.UUID, error) {
	r.formats.Add(1)
	if r.slowFormat > 0 {
		time.Sleep(r.slowFormat)
	}
	disk := r.diskAt(o.Path)
	o.Device, o.Size, o.Lab = disk.Open(), disk.Size(), true
	return repository.Format(o)
}

// allVote reports whether both nodes and the repository vote and answer.
func (r *rig) allVote() bool {
	q := r.status().Cluster.Quorum
	return q.Have && q.Voters == 3 && q.Alive == 3
}

// incarnation is the newest number of a node's boot, 0 if it is not known.
func (r *rig) incarnation(node string) uint64 {
	s := r.status()
	if n := s.Node(node); n != nil {
		return n.Incarnation
	}
	return 0
}

// host is the machine that runs the repository voter, by its own word.
func (r *rig) host() string {
	for _, n := range r.names {
		if a := r.machines[n].agent(); a != nil {
			if s := a.Status(); s.Cluster.Repository != nil && s.Cluster.Repository.Host == n {
				return n
			}
		}
	}
	return ""
}

// A crash of either node is survived, whoever leads and whoever hosts the voter.
func TestTwoNodesCrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     options
		bound time.Duration
	}{
		{"fence", options{nodes: 2, fence: true}, 6 * time.Second},
		{"lease", options{nodes: 2}, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.o, func(r *rig) {
				places := map[string]int{}
				for i := range 6 {
					v := r.names[i%2]
					place := "other"
					if r.leader() == v {
						place = "leader"
					}
					if r.host() == v {
						place += ", host"
					}
					places[place]++
					r.watch.forget()
					r.machines[v].crash()
					r.await(c.bound+5*time.Second, "the survivor serves everything", r.settledBut(v))
					r.within(c.bound, "crash of the "+place)
					time.Sleep(bootTime)
					r.machines[v].boot()
					r.recover(time.Minute)
					r.await(30*time.Second, "all vote", r.allVote)
				}
				t.Logf("crashes of: %v; the longest outage %v", places, r.watch.longest(""))
			})
		})
	}
}

// The nodes lose each other while both see the volume: one goes on, the host of the voter.
func TestTwoNodesCutApart(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		for range 4 {
			host := r.host()
			r.lan.Cut("n1", "n2")
			r.await(20*time.Second, "the host of the voter serves everything", func() bool {
				return r.holder("g1") == host && r.holder("g2") == host
			})
			r.lan.Heal()
			r.recover(time.Minute)
			r.await(30*time.Second, "all vote", r.allVote)
		}
	})
}

// An ioCount counts the accesses of a process to the volume.
type ioCount struct{ reads, writes atomic.Int64 }

func (c *ioCount) add(write bool) {
	if write {
		c.writes.Add(1)
	} else {
		c.reads.Add(1)
	}
}

func (c *ioCount) take() (reads, writes int64) { return c.reads.Swap(0), c.writes.Swap(0) }

// The volume of a cluster of two nodes in which nothing happens is asked rarely (attack B8): agents, and the voter with a real log.
func TestB8DiskLoadOfTwoIdleNodes(t *testing.T) {
	for profile, most := range map[string]float64{"default": 20, "fast": 40, "careful": 20} {
		inBubble(t, options{nodes: 2, profile: profile}, func(r *rig) {
			host := r.host()
			time.Sleep(20 * time.Second)
			for _, n := range r.names {
				r.machines[n].agentIO.take()
				r.machines[n].voterIO.take()
			}
			time.Sleep(time.Minute)
			for _, n := range r.names {
				ar, aw := r.machines[n].agentIO.take()
				vr, vw := r.machines[n].voterIO.take()
				all := float64(ar+aw+vr+vw) / 60
				t.Logf("%s: %s, hosts the voter %v: %.1f accesses per second: agent %.1f reads, %.1f writes; voter %.1f reads, %.1f writes", profile, n, n == host,
					all, float64(ar)/60, float64(aw)/60, float64(vr)/60, float64(vw)/60)
				if all > most {
					t.Errorf("%s: %.1f accesses per second by %s", profile, all, n)
				}
			}
		})
	}
}

// A diskTrouble is a fault of the way from one machine to the volume.
type diskTrouble struct {
	what  string
	delay time.Duration // of each access
	path  string        // of the volume; "": of all
	hang  chan struct{} // accesses end when it is closed
	err   error         // of each access
	write error         // of each write
}

// diskFault lets an access suffer what is wrong with the machine's way to the volume.
func (m *machine) diskFault(write bool, path string) error {
	f := m.trouble.Load()
	if f == nil || f.path != "" && f.path != path {
		return nil
	}
	if f.hang != nil {
		<-f.hang
	}
	time.Sleep(f.delay)
	if write && f.write != nil {
		return f.write
	}
	return f.err
}

// disturb lets the machine's way to the volume suffer, until better is called.
func (m *machine) disturb(f *diskTrouble) (better func()) {
	m.r.ledger.say("fault: for %s the volume is %s", m.name, f.what)
	m.trouble.Store(f)
	return func() {
		m.trouble.Store(nil)
		if f.hang != nil {
			close(f.hang)
		}
	}
}

// diskTroubles are made anew for each use.
func diskTroubles() []*diskTrouble {
	return []*diskTrouble{{what: "gone", err: syscall.EIO}, {what: "read-only", write: syscall.EROFS}, {what: "slow", delay: time.Second},
		{what: "hung", hang: make(chan struct{})}}
}

// The way to the volume fails on one node or on both, in each manner: no group moves or stops, nobody is called dead or reset, the status
// says so, and when the disk works again all is as before.
func TestTwoNodesDiskTroubles(t *testing.T) {
	for i, kind := range diskTroubles() {
		for _, where := range []string{"host", "other", "both"} {
			inBubble(t, options{nodes: 2, fence: true}, func(r *rig) {
				host := r.host()
				nodes := map[string][]string{"host": {host}, "other": r.others(host), "both": r.names}[where]
				f := diskTroubles()[i]
				defer func() { // before the rig ends
					for _, n := range r.names {
						r.machines[n].trouble.Store(nil)
					}
				}()
				starts := r.ledger.starts("g1") + r.ledger.starts("g2")
				dead := r.incarnation("n1") + r.incarnation("n2")
				for _, n := range nodes {
					r.machines[n].trouble.Store(f)
				}
				time.Sleep(20 * time.Second)
				if r.holder("g1") != "n1" || r.holder("g2") != "n2" || r.ledger.starts("g1")+r.ledger.starts("g2") != starts || r.shots.Load() != 0 {
					t.Errorf("%s on %s: g1 on %q, g2 on %q, %d starts, %d shots", kind.what, where, r.holder("g1"), r.holder("g2"),
						r.ledger.starts("g1")+r.ledger.starts("g2")-starts, r.shots.Load())
				}
				for _, n := range r.names {
					s := r.machines[n].agent().Status()
					for _, o := range s.Nodes {
						if o.State != api.NodeNormal {
							t.Errorf("%s on %s: %s shows %s as %s", kind.what, where, n, o.Name, o.State)
						}
					}
					text := s.Cluster.Repository.Sentence
					ill := slices.Contains(nodes, n)
					if told := strings.Contains(text, "not reach the volume") || strings.Contains(text, "not get through"); told != ill {
						t.Errorf("%s on %s: %s says of the volume: %s", kind.what, where, n, text)
					}
					if n == nodes[0] {
						t.Logf("%s on %s: %s says: %s; %s", kind.what, where, n, text, s.Cluster.Quorum.Sentence)
					}
				}
				if f.hang != nil {
					close(f.hang)
				}
				for _, n := range nodes {
					r.machines[n].trouble.Store(nil)
				}
				r.recover(time.Minute)
				r.await(time.Minute, "all vote", r.allVote)
				if now := r.incarnation("n1") + r.incarnation("n2"); now != dead {
					t.Errorf("%s on %s: incarnations have changed", kind.what, where)
				}
			})
		}
	}
}

// Blocks of the volume are filled with garbage: one alone of each kind, and all in turn. Some of them are written anew, some never; in the
// end nobody may be able to use the volume. Nothing moves, whatever happens to it.
func TestTwoNodesGarbageOnTheVolume(t *testing.T) {
	const nodes = 4 // for which the smallest volume has room
	var all []int64
	for block := range int64(mailEnd/repository.BlockSize + 64) {
		all = append(all, block)
	}
	for _, blocks := range [][]int64{all, {0}, {1}, {2}, {1 + nodes}, {2 + nodes}, {1 + 2*nodes}, {2 + 2*nodes}, {1 + 3*nodes}, {2 + 3*nodes},
		{mailFrom/repository.BlockSize + 1}, {mailFrom/repository.BlockSize + nodes}, {mailEnd / repository.BlockSize}, {mailEnd/repository.BlockSize + 1}} {
		inBubble(t, options{nodes: 2, fence: true}, func(r *rig) {
			starts := r.ledger.starts("g1") + r.ledger.starts("g2")
			dead := r.incarnation("n1") + r.incarnation("n2")
			garbage := make([]byte, repository.BlockSize)
			said := ""
			for _, block := range blocks {
				for i := range garbage {
					garbage[i] = byte(r.random(256))
				}
				r.disk.Set(block*repository.BlockSize, garbage)
				time.Sleep(2500*time.Millisecond + 10*time.Second/time.Duration(len(blocks)))
				if r.holder("g1") != "n1" || r.holder("g2") != "n2" || r.ledger.starts("g1")+r.ledger.starts("g2") != starts || r.shots.Load() != 0 ||
					r.incarnation("n1")+r.incarnation("n2") != dead {
					r.fatal("garbage in block %d: g1 on %q, g2 on %q, %d shots", block, r.holder("g1"), r.holder("g2"), r.shots.Load())
				}
				s := r.machines["n1"].agent().Status()
				if text := s.Cluster.Repository.Sentence; said != text {
					said = text
					t.Logf("block %d: %s", block, text)
				}
			}
		})
	}
}

// The network is cut while the way to the volume is ill on the voter's host, on the other node, or on both. Whoever goes on, no group has
// two owners (the checkers), and all is served again when both are healed.
func TestTwoNodesCutApartWithDiskTroubles(t *testing.T) {
	for i, kind := range diskTroubles() {
		for _, where := range []string{"host", "other", "both"} {
			inBubble(t, options{nodes: 2, fence: i%2 == 0}, func(r *rig) {
				host := r.host()
				nodes := map[string][]string{"host": {host}, "other": r.others(host), "both": r.names}[where]
				f := diskTroubles()[i]
				for _, n := range nodes {
					r.machines[n].trouble.Store(f)
				}
				time.Sleep(time.Duration(r.random(3000)) * time.Millisecond)
				r.lan.Cut("n1", "n2")
				time.Sleep(20 * time.Second)
				t.Logf("%s on %s (the host was %s): g1 on %q, g2 on %q, %d shots", kind.what, where, host, r.holder("g1"), r.holder("g2"), r.shots.Load())
				if where == "other" && (r.holder("g1") != host || r.holder("g2") != host) {
					t.Errorf("%s on the other: the host serves not all", kind.what)
				}
				if f.hang != nil {
					close(f.hang)
				}
				for _, n := range nodes {
					r.machines[n].trouble.Store(nil)
				}
				time.Sleep(5 * time.Second)
				r.lan.Heal()
				r.recover(time.Minute)
				r.await(time.Minute, "all vote", r.allVote)
			})
		}
	}
}

// The nodes lose each other while both see the volume. The one that does not go on is isolated, not lost: it hands its groups over in
// order, under grants that come by the volume, and is neither reset nor called dead, however long the cut lasts.
func TestTwoNodesIsolatedHandsOver(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		for i := range 2 {
			host := r.host()
			loser := r.names[0]
			if loser == host {
				loser = r.names[1]
			}
			boots := r.machines[loser].boots
			incarnation := r.incarnation(loser)
			r.lan.Cut("n1", "n2")
			r.await(20*time.Second, "the host of the voter serves everything", func() bool {
				return r.holder("g1") == host && r.holder("g2") == host
			})
			time.Sleep(15 * time.Second) // longer than any lease: what keeps the node from being reset is not that nobody looked
			m := r.machines[loser]
			if !m.isOn() || m.boots != boots {
				t.Errorf("cut %d: %s was reset: %s", i, loser, m.why)
			}
			s := r.machines[host].agent().Status()
			if n := s.Node(loser); n == nil || n.State != api.NodeIsolated || n.Incarnation != incarnation {
				t.Errorf("cut %d: %s shows %s as %+v", i, host, loser, n)
			}
			r.lan.Heal()
			r.recover(time.Minute)
			r.await(30*time.Second, "all vote", r.allVote)
			if now := r.incarnation(loser); now != incarnation {
				t.Errorf("cut %d: %s has come back as incarnation %d, and was %d", i, loser, now, incarnation)
			}
		}
	})
}

// A stop that takes longer than any lease is waited for: the grants by the volume go on, nobody resets and nobody shoots. The group
// starts elsewhere only after it was seen stopped (the ledger checks that), and not by the lapse of a lease (attack B2).
func TestTwoNodesIsolatedStopsSlowly(t *testing.T) {
	for i, profile := range []string{"default", "default", "fast", "careful"} {
		fence := i > 0
		stop := map[string]time.Duration{"default": 12 * time.Second, "fast": 6 * time.Second, "careful": 30 * time.Second}[profile]
		inBubble(t, options{nodes: 2, fence: fence, profile: profile}, func(r *rig) {
			host := r.host()
			loser := map[string]string{"n1": "n2", "n2": "n1"}[host]
			group := map[string]string{"n1": "g1", "n2": "g2"}[loser]
			boots, incarnation, began := r.machines[loser].boots, r.incarnation(loser), time.Now()
			remove := r.snag(&snag{node: loser, op: "stop", delay: stop}, 1)
			r.lan.Cut("n1", "n2")
			r.await(stop+20*time.Second, "the host of the voter serves everything", func() bool {
				return r.holder("g1") == host && r.holder("g2") == host
			})
			if took := time.Since(began); took < stop {
				t.Errorf("%s: group %s is on %s after %v, and its stop on %s takes %v", profile, group, host, took, loser, stop)
			}
			if m := r.machines[loser]; !m.isOn() || m.boots != boots || r.shots.Load() != 0 {
				t.Errorf("%s, fence %v: %s was reset (%s), %d shots", profile, fence, loser, m.why, r.shots.Load())
			}
			remove()
			r.lan.Heal()
			r.recover(time.Minute)
			if now := r.incarnation(loser); now != incarnation {
				t.Errorf("%s, fence %v: %s has come back as incarnation %d, and was %d", profile, fence, loser, now, incarnation)
			}
		})
	}
}

// Three nodes have the volume too, though it has no vote there: the one that is cut off from both others hands over by it, whether it led
// or not.
func TestThreeNodesIsolatedHandsOver(t *testing.T) {
	inBubble(t, options{nodes: 3, volume: true, fence: true}, func(r *rig) {
		leader := r.leader()
		for _, loser := range []string{r.others(leader)[0], leader} {
			boots, incarnation := r.machines[loser].boots, r.incarnation(loser)
			remove := r.snag(&snag{node: loser, op: "stop", delay: 8 * time.Second}, 1)
			for _, o := range r.others(loser) {
				r.lan.Cut(loser, o)
			}
			r.await(40*time.Second, "the others serve everything", func() bool {
				for _, g := range []string{"g1", "g2", "g3"} {
					if h := r.holder(g); h == "" || h == loser {
						return false
					}
				}
				return true
			})
			if m := r.machines[loser]; !m.isOn() || m.boots != boots || r.shots.Load() != 0 {
				t.Errorf("%s was reset (%s), %d shots", loser, m.why, r.shots.Load())
			}
			remove()
			r.lan.Heal()
			r.recover(time.Minute)
			if now := r.incarnation(loser); now != incarnation {
				t.Errorf("%s has come back as incarnation %d, and was %d", loser, now, incarnation)
			}
		}
	})
}

// The leader's agent ends while the other node hands over to it, by crash or by the machine's, and comes back. Whoever leads then, and
// whatever old mail lies on the volume, no group has two owners (the checkers) and all is served again.
func TestTwoNodesIsolatedAndTheLeaderEnds(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, after := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
			inBubble(t, options{nodes: 2}, func(r *rig) {
				host := r.host()
				loser := map[string]string{"n1": "n2", "n2": "n1"}[host]
				remove := r.snag(&snag{node: loser, op: "stop", delay: 6 * time.Second}, 1)
				r.lan.Cut("n1", "n2")
				time.Sleep(after)
				if m := r.machines[host]; crash {
					m.crash()
					time.Sleep(3 * time.Second)
					m.boot()
				} else {
					m.kill9()
					time.Sleep(time.Second)
					m.startAgent()
				}
				time.Sleep(15 * time.Second)
				remove()
				r.lan.Heal()
				r.recover(time.Minute)
				r.await(30*time.Second, "all vote", r.allVote)
			})
		}
	}
}

// The node that is cut off dies in the midst of handing over: its heartbeat ends with it, and its lease or the fence device decides.
func TestTwoNodesIsolatedDies(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		host := r.host()
		loser := map[string]string{"n1": "n2", "n2": "n1"}[host]
		remove := r.snag(&snag{node: loser, op: "stop", delay: time.Minute}, 0)
		r.lan.Cut("n1", "n2")
		r.await(10*time.Second, host+" shows it isolated", func() bool {
			s := r.machines[host].agent().Status()
			n := s.Node(loser)
			return n != nil && n.State == api.NodeIsolated
		})
		time.Sleep(3 * time.Second)
		r.machines[loser].crash()
		remove()
		r.await(20*time.Second, "the host of the voter serves everything", func() bool {
			return r.holder("g1") == host && r.holder("g2") == host
		})
		r.lan.Heal()
		r.machines[loser].boot()
		r.recover(time.Minute)
	})
}

// The operator says that the isolated node is down, and is wrong: it is still stopping. It learns so by the volume, where it says what it
// holds, and resets at once, long before its lease would have run out. (The starts on the other node are held up: nothing can make the
// operator's word true for the moment in between.) After its boot the letter still lies there, and is about an earlier incarnation.
func TestTwoNodesPoison(t *testing.T) {
	inBubble(t, options{nodes: 2, profile: "careful"}, func(r *rig) {
		host := r.host()
		loser := map[string]string{"n1": "n2", "n2": "n1"}[host]
		stuck := r.snag(&snag{node: loser, op: "stop", delay: 10 * time.Minute}, 0)
		late := r.snag(&snag{node: host, op: "start", delay: 5 * time.Second}, 0)
		shows := func(state string) func() bool {
			return func() bool {
				s := r.machines[host].agent().Status()
				n := s.Node(loser)
				return n != nil && n.State == state
			}
		}
		r.lan.Cut("n1", "n2")
		r.await(20*time.Second, host+" shows it isolated", shows(api.NodeIsolated))
		time.Sleep(10 * time.Second)
		if !r.machines[loser].isOn() {
			r.fatal("%s was reset: %s", loser, r.machines[loser].why)
		}
		if reply, err := r.machines[host].agent().Do(context.Background(), operator,
			api.Request{ID: "test-request-down", Op: api.OpConfirmDown, Node: loser}); err != nil || reply.Refused != "" {
			r.fatal("confirm: %v %s", err, reply.Refused)
		}
		r.await(4*time.Second, loser+" resets", func() bool { return !r.machines[loser].isOn() })
		stuck()
		late()
		r.lan.Heal()
		r.machines[loser].boot()
		r.recover(time.Minute)
		time.Sleep(10 * time.Second)
		if !r.machines[loser].isOn() {
			t.Errorf("%s was reset again, by a letter to the incarnation before: %s", loser, r.machines[loser].why)
		}
	})
}

// The node that is cut off writes heartbeats and can neither read nor write mail: it takes no grants and reports nothing. It lets go at
// L_soft, is not reset, and its heartbeat does not keep its groups from being served: after the patience its lease is proven to be over.
func TestTwoNodesIsolatedWithoutMail(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		host := r.host()
		loser := map[string]string{"n1": "n2", "n2": "n1"}[host]
		boots, began := r.machines[loser].boots, time.Now()
		r.machines[loser].mute.Store(true)
		r.lan.Cut("n1", "n2")
		r.await(20*time.Second, "the host of the voter serves everything", func() bool {
			return r.holder("g1") == host && r.holder("g2") == host
		})
		if took := time.Since(began); took < r.params.Soft {
			t.Errorf("without a report the groups were free after %v", took)
		}
		if m := r.machines[loser]; !m.isOn() || m.boots != boots {
			t.Errorf("%s was reset: %s", loser, m.why)
		}
		r.machines[loser].mute.Store(false)
		r.lan.Heal()
		r.recover(time.Minute)
	})
}

// The same, and the agent that is cut off does not reach the volume either: it is lost, and its lease runs out.
func TestTwoNodesBlindAndCutOff(t *testing.T) {
	inBubble(t, options{nodes: 2}, func(r *rig) {
		host := r.host()
		loser := r.names[0]
		if loser == host {
			loser = r.names[1]
		}
		r.machines[loser].blind.Store(true)
		r.lan.Cut("n1", "n2")
		r.await(20*time.Second, "the host of the voter serves everything", func() bool {
			return r.holder("g1") == host && r.holder("g2") == host
		})
		s := r.machines[host].agent().Status()
		if n := s.Node(loser); n == nil || n.State != api.NodeDead {
			t.Errorf("%s shows %s as %+v", host, loser, n)
		}
		r.machines[loser].blind.Store(false)
		r.lan.Heal()
		r.recover(time.Minute)
	})
}

// A partition in time: what one node alone was told is known to the other when that starts alone.
func TestTwoNodesPartitionInTime(t *testing.T) {
	for i, first := range []string{"n1", "n2"} {
		second := []string{"n2", "n1"}[i]
		t.Run(first+" decides alone", func(t *testing.T) {
			inBubble(t, options{nodes: 2}, func(r *rig) {
				r.machines[second].crash()
				r.await(20*time.Second, first+" serves everything", r.settledBut(second))
				r.do(api.Request{Op: api.OpSuspend, Groups: []string{"g1"}})
				r.machines[first].crash()
				r.machines[second].boot()
				r.await(30*time.Second, second+" leads", func() bool { return r.leader() == second })
				s := r.status()
				if g := s.Group("g1"); g == nil || !g.Suspended {
					t.Errorf("%s leads and does not know that g1 was suspended", second)
				}
				r.machines[first].boot()
				r.await(time.Minute, "both are there", func() bool { return r.allUp() && r.allVote() })
			})
		})
	}
}
