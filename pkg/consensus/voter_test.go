package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/test/fake"
)

const repo = "repo-7f3a" // the repository voter's server id

// hosted is the repository voter, as one host runs it.
type hosted struct {
	host  string
	voter *Voter
	store *fake.VolumeStore
	fsm   *journal
	exits chan string
}

// duo is a cluster of nodes and a volume, on which any of them may host the voter: everybody finds it on the host that is named
// last, but for those who are told otherwise.
type duo struct {
	*cluster
	volume *fake.Volume
	mu     sync.Mutex
	at     string            // the host that everybody dials
	seen   map[string]string // who dials another host instead
	clock  lease.Clock       // the voter's
	all    []*hosted
}

func newDuo(t testing.TB) *duo {
	d := &duo{cluster: newCluster(t), volume: fake.NewVolume(), seen: map[string]string{}, clock: timeClock{}}
	d.volume.Delay = 300 * time.Microsecond
	d.tune = func(cfg *Config) {
		dial, from := cfg.Dial, cfg.ID
		cfg.Dial = func(ctx context.Context, to string) (net.Conn, error) {
			if to == repo {
				return d.lan.Host(from).Dial(ctx, d.lan.Host(d.hostFor(from)).Address("net1", raftPort+1))
			}
			return dial(ctx, to)
		}
	}
	d.intercept = d.carryConfirm
	return d
}

func (d *duo) hostFor(from string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.seen[from]; h != "" {
		return h
	}
	return d.at
}

// carryConfirm asks over a connection of its own; the voter where the asker sees it.
func (d *duo) carryConfirm(from, to string, req ConfirmRequest, ask func() (ConfirmReply, error)) (ConfirmReply, error) {
	host, port := to, raftPort
	if to == repo {
		host, port = d.hostFor(from), raftPort+1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := d.lan.Host(from).Dial(ctx, d.lan.Host(host).Address("net1", port))
	if err != nil {
		return ConfirmReply{}, err
	}
	conn.Close()
	if to != repo {
		return ask()
	}
	for _, h := range d.hosts() {
		if h.host == host {
			return h.voter.Confirm(req), nil
		}
	}
	return ConfirmReply{}, errors.New("connection refused")
}

func (d *duo) hosts() []*hosted {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// host claims the volume for the host and runs the voter there; everybody dials it there from now on.
func (d *duo) host(name string) *hosted {
	d.t.Helper()
	store, err := d.volume.Claim(name)
	must(d.t, err)
	return d.run(name, store)
}

func (d *duo) run(name string, store *fake.VolumeStore) *hosted {
	d.t.Helper()
	ln, err := d.lan.Host(name).Listen(fmt.Sprintf(":%d", raftPort+1))
	must(d.t, err)
	h := &hosted{host: name, store: store, fsm: &journal{}, exits: make(chan string, 1)}
	cfg := Config{ID: repo, ClusterID: "test", Listener: ln, Params: d.params, Clock: d.clock, FSM: h.fsm, Logger: testLogger(),
		SnapshotInterval: 200 * time.Millisecond,
		Dial: func(ctx context.Context, to string) (net.Conn, error) {
			return d.lan.Host(name).Dial(ctx, d.lan.Host(to).Address("net1", raftPort))
		},
		Ask: func(context.Context, string, ConfirmRequest) (ConfirmReply, error) {
			return ConfirmReply{}, errors.New("never")
		},
		Exit: func(reason string) { h.exits <- reason },
	}
	h.voter, err = OpenVoter(cfg, store)
	must(d.t, err)
	d.mu.Lock()
	d.all = append(d.all, h)
	d.at = name
	d.mu.Unlock()
	return h
}

// end closes the voter as a process that ends does.
func (d *duo) end(h *hosted) {
	d.t.Helper()
	d.mu.Lock()
	d.all = slices.DeleteFunc(d.all, func(o *hosted) bool { return o == h })
	d.mu.Unlock()
	_ = h.voter.Close() // one whose claim is lost cannot give it up
}

func (d *duo) close() {
	d.volume.SetHook(nil)
	for _, h := range d.hosts() {
		d.end(h)
	}
	d.cluster.close()
}

// form2 founds a cluster of a and b and the voter, hosted by a.
func (d *duo) form2() (*Lead, *hosted) {
	d.t.Helper()
	lead := d.form("a", "b")
	h := d.host("a")
	a, ctx := d.server("a").node, d.timeout(30*time.Second)
	must(d.t, a.AddNonvoter(ctx, repo))
	d.eventually(10*time.Second, "the voter catches up", func() bool {
		return a.Followers()[repo].LastIndex >= a.Stats().LastIndex
	})
	must(d.t, a.AddVoter(ctx, repo))
	return lead, h
}

// hastyClock is a second further at each look.
type hastyClock struct{ n atomic.Int64 }

func (c *hastyClock) Now() lease.Instant { return lease.Instant(c.n.Add(int64(time.Second))) }

func exited(h *hosted) string {
	select {
	case why := <-h.exits:
		h.exits <- why
		return why
	default:
		return ""
	}
}

// The acceptance: a is the leader and hosts the voter, the network between the nodes is cut, b claims the volume. From that moment
// a and its fenced-off voter confirm nothing: no entry and no term, before and after b leads. Without the re-read they do.
func TestStaleLeaderConfirmsNothingThroughAFencedOffVoter(t *testing.T) {
	for _, trust := range []bool{false, true} {
		t.Run(map[bool]string{false: "gated", true: "without the gate"}[trust], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { staleLeader(t, trust) })
		})
	}
}

func staleLeader(t *testing.T, trust bool) {
	d := newDuo(t)
	d.volume.Trust = trust
	defer d.close()
	old, r1 := d.form2()
	d.propose(old, "before the cut")
	d.lan.Cut("a", "b")
	time.Sleep(3 * time.Second)
	d.propose(old, "a and its voter are a majority")
	if _, err := old.Confirm(d.timeout(time.Second)); err != nil {
		t.Fatalf("before the claim: %v", err)
	}
	// b takes over; a goes on to reach its own voter.
	d.mu.Lock()
	d.seen["a"] = "a"
	d.mu.Unlock()
	store, err := d.volume.Claim("b")
	must(t, err)
	_, confirmErr := old.Confirm(d.timeout(2 * time.Second))
	_, proposeErr := old.Propose(d.timeout(2*time.Second), []byte("a after the claim"))
	if trust {
		if confirmErr != nil || proposeErr != nil {
			t.Fatalf("this test sees nothing: without the gate confirm gave %v, propose %v", confirmErr, proposeErr)
		}
		return
	}
	if confirmErr == nil || proposeErr == nil {
		t.Fatalf("after the claim: confirm %v, propose %v", confirmErr, proposeErr)
	}
	if why := exited(r1); !strings.Contains(why, "claimed") {
		t.Errorf("the fenced-off voter goes on: %q", why)
	}
	r2 := d.run("b", store)
	lead := d.nextLead("b", 10*time.Second)
	d.propose(lead, "b")
	if _, err := old.Confirm(d.timeout(2 * time.Second)); err == nil {
		t.Error("the old leader was confirmed while b leads")
	}
	want := []string{"before the cut", "a and its voter are a majority", "b"}
	if got := d.server("b").fsm.list(); !slices.Equal(got, want) {
		t.Errorf("b has %q, want %q", got, want)
	}
	d.end(r1)
	d.lan.Heal()
	d.mu.Lock()
	d.seen["a"] = ""
	d.mu.Unlock()
	d.eventually(10*time.Second, "all agree", func() bool {
		return slices.Equal(d.server("a").fsm.list(), want) && slices.Equal(r2.fsm.list(), want)
	})
}

// Attack A13: whatever answer the voter is about to give, a claim that falls between the write (or the reading of what the answer
// says) and the re-read keeps it in. Each case is run without the re-read too, where the answer must come: otherwise the case
// would show nothing.
func TestA13EveryAnswerPassesTheGate(t *testing.T) {
	head := func(id string) raft.RPCHeader {
		return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
	}
	cases := []struct {
		name string
		ask  func(d *duo, peer *transport, term, last, lastTerm uint64) (answered bool, err error)
	}{
		{"vote", func(_ *duo, p *transport, term, last, lastTerm uint64) (bool, error) {
			var resp raft.RequestVoteResponse
			err := p.RequestVote(repo, repo, &raft.RequestVoteRequest{RPCHeader: head("b"), Term: term + 1, LastLogIndex: last, LastLogTerm: lastTerm,
				LeadershipTransfer: true}, &resp)
			return err == nil && resp.Granted, err
		}},
		{"pre-vote", func(_ *duo, p *transport, term, last, lastTerm uint64) (bool, error) {
			var resp raft.RequestPreVoteResponse
			err := p.RequestPreVote(repo, repo, &raft.RequestPreVoteRequest{RPCHeader: head("b"), Term: term + 1, LastLogIndex: last, LastLogTerm: lastTerm}, &resp)
			return err == nil, err
		}},
		{"append", func(_ *duo, p *transport, term, last, lastTerm uint64) (bool, error) {
			var resp raft.AppendEntriesResponse
			entry := command(kindCommand, []byte("x"))
			entry.Index, entry.Term, entry.Type = last+1, term+1, raft.LogCommand
			err := p.NetworkTransport.AppendEntries(repo, repo, &raft.AppendEntriesRequest{RPCHeader: head("b"), Term: term + 1, PrevLogEntry: last,
				PrevLogTerm: lastTerm, Entries: []*raft.Log{&entry}}, &resp)
			return err == nil && resp.Success, err
		}},
		{"heartbeat", func(_ *duo, p *transport, term, _, _ uint64) (bool, error) {
			var resp raft.AppendEntriesResponse
			err := p.NetworkTransport.AppendEntries(repo, repo, &raft.AppendEntriesRequest{RPCHeader: head("a"), Term: term}, &resp)
			return err == nil && resp.Success, err
		}},
		{"pipeline", func(d *duo, p *transport, term, last, lastTerm uint64) (bool, error) {
			pipe, err := p.AppendEntriesPipeline(repo, repo)
			must(d.t, err)
			defer pipe.Close()
			entry := command(kindCommand, []byte("x"))
			entry.Index, entry.Term, entry.Type = last+1, term+1, raft.LogCommand
			resp := new(raft.AppendEntriesResponse)
			f, err := pipe.AppendEntries(&raft.AppendEntriesRequest{RPCHeader: head("b"), Term: term + 1, PrevLogEntry: last, PrevLogTerm: lastTerm,
				Entries: []*raft.Log{&entry}}, resp)
			must(d.t, err)
			select {
			case <-pipe.Consumer():
				return f.Error() == nil && resp.Success, f.Error()
			case <-time.After(3 * time.Second):
				return false, errors.New("no answer")
			}
		}},
		{"InstallSnapshot", func(d *duo, p *transport, term, last, lastTerm uint64) (bool, error) {
			data := fmt.Sprintf("%s%s%s", snapshotMagic, strings.Repeat("\x00", 16), `["s"]`)
			var c raft.Configuration
			for _, id := range []string{"a", "b", repo} {
				c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
			}
			var resp raft.InstallSnapshotResponse
			err := p.InstallSnapshot(repo, repo, &raft.InstallSnapshotRequest{RPCHeader: head("b"), SnapshotVersion: raft.SnapshotVersionMax,
				Term: term + 1, LastLogIndex: last + 100, LastLogTerm: lastTerm, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: 1,
				Size: int64(len(data))}, &resp, strings.NewReader(data))
			return err == nil && resp.Success, err
		}},
		{"TimeoutNow", func(_ *duo, p *transport, _, _, _ uint64) (bool, error) {
			var resp raft.TimeoutNowResponse
			err := p.TimeoutNow(repo, repo, &raft.TimeoutNowRequest{RPCHeader: head("a")}, &resp)
			return err == nil, err
		}},
		{"term confirmation", func(d *duo, _ *transport, term, _, _ uint64) (bool, error) {
			reply := make(chan ConfirmReply, 1)
			go func() {
				reply <- d.hosts()[0].voter.Confirm(ConfirmRequest{ClusterID: "test", Term: term, Leader: "a"})
			}()
			select {
			case r := <-reply:
				return r.Term == term, nil
			case <-time.After(3 * time.Second):
				return false, errors.New("no answer")
			}
		}},
	}
	for _, tc := range cases {
		for _, trust := range []bool{false, true} {
			t.Run(tc.name+map[bool]string{false: "", true: " without the gate"}[trust], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDuo(t)
					d.volume.Trust = trust
					defer d.close()
					lead, h := d.form2()
					d.propose(lead, "one")
					time.Sleep(time.Second)
					peer := newTransport(d.peerConfig("c"), func(uint64) bool { return false }, func() bool { return true }, nil)
					defer peer.Close()
					d.lan.Cut("a", "b")
					d.stop("a") // only this caller speaks to the voter now
					s := h.voter.Stats()
					var claimed atomic.Bool
					d.volume.SetHook(func(host, phase string) {
						// The latest moment that can do harm: after the write, after the content was read, right before the re-read.
						late := phase == "written" || phase == "read"
						if trust {
							late = phase == "written"
						}
						if host == "a" && late && claimed.CompareAndSwap(false, true) {
							if _, err := d.volume.Claim("b"); err != nil {
								t.Errorf("claim: %v", err)
							}
						}
					})
					if trust { // nothing would be read: the claim is there before
						claimed.Store(true)
						_, err := d.volume.Claim("b")
						must(t, err)
					}
					answered, err := tc.ask(d, peer, s.Term, s.LastIndex, s.Term)
					if answered != trust {
						t.Errorf("answered %v (error %v), want %v", answered, err, trust)
					}
					if why := exited(h); (why != "") == trust {
						t.Errorf("exit: %q", why)
					}
				})
			})
		}
	}
}

// peerConfig is that of a stranger who plays a node.
func (d *duo) peerConfig(id string) Config {
	cfg := d.config(id)
	cfg.Dial = func(ctx context.Context, to string) (net.Conn, error) {
		return d.lan.Host(id).Dial(ctx, d.lan.Host("a").Address("net1", raftPort+1))
	}
	return cfg
}

// What is no answer passes the gate too: the voter's vote for itself, and the count of its own copy of an entry. A claim that falls
// between the write and the re-read leaves no candidate and no leader behind.
func TestA13SelfVoteAndSelfMatch(t *testing.T) {
	for _, trust := range []bool{false, true} {
		t.Run(map[bool]string{false: "gated", true: "without the gate"}[trust], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDuo(t)
				d.volume.Trust = trust
				defer d.close()
				_, h := d.form2()
				time.Sleep(time.Second)
				term := h.voter.Stats().Term
				var claimed atomic.Bool
				var votes atomic.Int32
				d.volume.SetHook(func(host, phase string) {
					if host != "a" || phase != "written" {
						return
					}
					// The first write is the new term, the second the vote.
					if votes.Add(1) == 2 && claimed.CompareAndSwap(false, true) {
						if _, err := d.volume.Claim("b"); err != nil {
							t.Errorf("claim: %v", err)
						}
					}
				})
				must(t, h.voter.n.trans.hurry(time.Second))
				led := false
				for range 400 {
					time.Sleep(5 * time.Millisecond)
					led = led || h.voter.Stats().State == "Leader"
				}
				if !claimed.Load() {
					t.Fatal("the voter did not stand for election")
				}
				if led != trust {
					t.Errorf("the voter that stood in term %d led: %v", term+1, led)
				}
				if trust {
					return
				}
				if why := exited(h); why == "" {
					t.Error("the voter goes on")
				}
			})
		})
	}
}

// An entry that the voter, as leader, has stored counts only after the re-read.
func TestA13SelfMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDuo(t)
		d.clock = &hastyClock{} // no hand-over: raft would leave its caller waiting when it is shut down
		defer d.close()
		_, h := d.form2()
		time.Sleep(time.Second)
		var claimed atomic.Bool
		var writes atomic.Int32
		d.volume.SetHook(func(host, phase string) {
			// Term, vote, then the first entry of the term.
			if host == "a" && phase == "written" && writes.Add(1) == 3 && claimed.CompareAndSwap(false, true) {
				if _, err := d.volume.Claim("b"); err != nil {
					t.Errorf("claim: %v", err)
				}
			}
		})
		before := h.voter.Stats().CommitIndex
		must(t, h.voter.n.trans.hurry(time.Second))
		time.Sleep(300 * time.Millisecond)
		if s := h.voter.Stats(); !claimed.Load() || s.CommitIndex != before {
			t.Errorf("claimed %v; commit index %d, before %d", claimed.Load(), s.CommitIndex, before)
		}
		if exited(h) == "" {
			t.Error("the voter goes on")
		}
	})
}

// The voter has the newest log and must be elected so that nothing is lost; then it hands over at once.
func TestVoterHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDuo(t)
		defer d.close()
		lead, h := d.form2()
		d.stop("b")
		time.Sleep(2 * time.Second)
		for i := range 40 {
			d.propose(lead, fmt.Sprint("b does not have ", i))
		}
		d.stop("a")
		// b starts alone: a partition in time (attack P8).
		d.end(h)
		d.host("b")
		b := d.start("b")
		l := d.nextLead("b", 10*time.Second)
		if got := len(b.fsm.list()); got != 40 {
			t.Errorf("b leads with %d of 40 entries", got)
		}
		d.propose(l, "b alone")
	})
}

// A voter that leads and cannot hand over ends: nobody else would.
func TestVoterThatCannotHandOverExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDuo(t)
		d.clock = &hastyClock{} // by which every answer is too old to choose an heir
		defer d.close()
		_, h := d.form2()
		time.Sleep(time.Second)
		must(t, h.voter.n.trans.hurry(time.Second))
		d.eventually(10*time.Second, "the voter exits", func() bool { return strings.Contains(exited(h), "could take over") })
	})
}

// The claim moves from host to host; the log stays whole, also over snapshots and compactions.
func TestVoterMovesBetweenHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDuo(t)
		defer d.close()
		lead, h := d.form2()
		total := 0
		for i := range 12 {
			for range 200 {
				d.propose(lead, fmt.Sprint("entry ", total))
				total++
			}
			host := []string{"b", "a"}[i%2]
			d.end(h)
			h = d.host(host)
			d.eventually(5*time.Second, "the voter has the log", func() bool { return len(h.fsm.list()) == total })
		}
		d.eventually(5*time.Minute, "a snapshot is taken", func() bool { return h.voter.Stats().SnapshotIndex != 0 })
		if lead.Ctx.Err() != nil {
			t.Error("the lead ended")
		}
	})
}
