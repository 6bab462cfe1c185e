//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// Two nodes and a repository volume, which is a file in the directory that both share.

// volume is the file of the repository volume, as the lab makes it.
const volume = "/shared/repository.vol"

// host is the node that runs the repository voter.
func (w *world) host() string {
	w.t.Helper()
	host := ""
	w.await("the repository voter runs", func() string {
		host = ""
		st := w.view()
		if st == nil || st.Cluster.Repository == nil || !st.Cluster.Repository.Alive {
			return "it does not answer"
		}
		for _, n := range w.up() { // who runs it knows so
			if st, err := w.status(n); err == nil && st.Cluster.Repository != nil && st.Cluster.Repository.Host == n {
				host = n
			}
		}
		if host == "" {
			return "no node says that it runs it"
		}
		return ""
	})
	return host
}

// killVoter ends the voter's process on a node, as an administrator would with kill -9.
func (w *world) killVoter(node string) {
	w.t.Helper()
	w.must(node, "sh", "-c", "kill -9 $(cat /run/holdfast/voter.pid)")
}

// moveHost makes the other node the voter's host: the process on this one cannot open the volume for a while.
func (w *world) moveHost(to string) {
	w.t.Helper()
	for range 5 {
		from := w.host()
		if from == to {
			return
		}
		w.loseVolume(from)
		w.await(to+" runs the repository voter", func() string {
			if st, err := w.status(to); err != nil || st.Cluster.Repository == nil || st.Cluster.Repository.Host != to {
				return "not yet"
			}
			return ""
		})
		w.giveVolume(from)
		w.whole()
	}
}

// loseVolume takes the volume from a node: what its processes have open is gone with them, and the path leads to an empty file.
func (w *world) loseVolume(node string) {
	w.t.Helper()
	w.must(node, "sh", "-c", "touch /run/nothing && mount --bind /run/nothing "+volume)
	w.killVoter(node)
}

func (w *world) giveVolume(node string) {
	w.t.Helper()
	w.must(node, "umount", volume)
}

// Crash of either node, with the leader and the voter's host in each of the four places: the service is back on the other.
func TestTwoNodesCrash(t *testing.T) {
	long(t)
	t.Parallel()
	for _, fence := range []bool{false, true} {
		t.Run(fmt.Sprintf("fence %v", fence), func(t *testing.T) {
			w := begin(t, setup{nodes: 2, profile: "fast", fence: fence})
			w.ask()
			took := map[string][]time.Duration{}
			for i := range *crashes / 5 * 4 {
				w.whole()
				victim := w.nodes[i/2%2]
				hosts := i%2 == 0
				if hosts {
					w.moveHost(victim)
				} else {
					w.moveHost(w.other(victim))
				}
				w.place(victim)
				kind := "follower"
				if w.leader() == victim {
					kind = "leader"
				}
				if hosts {
					kind += ", hosts the voter"
				}
				check(t, w.Crash(w.ctx(), victim))
				next := w.elsewhere(victim)
				w.answersFrom(next)
				took[kind] = append(took[kind], w.lastOutage(victim))
				check(t, w.Boot(w.ctx(), victim))
			}
			w.whole()
			for kind, list := range took {
				t.Logf("%d crashes of a node that was the %s: outage %s", len(list), kind, spread(list))
			}
			w.loserFirst()
		})
	}
}

// gentleStop stops the application after as many seconds as the test asks for: a stop that outlasts the lease.
const gentleStop = `sleep $(cat /shared/linger 2>/dev/null || echo 0)
exec /holdfast/bin/cllab app stop --data /app/data --listen ` + target + `
`

// The network between the nodes is cut while both see the volume: exactly one goes on, the one that hosts the voter. The other
// is isolated: it hands over in order by the volume's mailbox, whether it led or not and however long its stop takes, and is neither
// reset nor shot nor called dead.
func TestTwoNodesCutApart(t *testing.T) {
	long(t)
	t.Parallel()
	type split struct {
		name      string
		serves    string // host: the voter's host; other: the other one, which loses
		leads     string // the same; empty: as it comes
		cut       string // on whose side the network is cut
		direction string
		linger    int // seconds that the loser's stop takes
	}
	for _, c := range []struct {
		profile string
		fence   bool
		splits  []split
	}{
		{"fast", false, []split{
			{"the host serves", "host", "", "other", lab.Both, 0},
			{"the loser serves and leads", "other", "other", "host", lab.Both, 0},
			{"the loser serves, the host leads", "other", "host", "other", lab.Both, 5},
			{"nothing reaches the loser", "other", "", "other", lab.In, 0},
			{"nothing leaves the loser", "other", "", "other", lab.Out, 0},
		}},
		{"default", true, []split{
			{"the loser serves and leads", "other", "other", "other", lab.Both, 0},
			{"the loser serves, the host leads", "other", "host", "host", lab.Both, 9},
		}},
	} {
		t.Run(fmt.Sprintf("%s, fence %v", c.profile, c.fence), func(t *testing.T) {
			t.Parallel()
			w := begin(t, setup{nodes: 2, profile: c.profile, fence: c.fence, stop: []string{"/bin/sh", "/shared/stop.sh"},
				share: map[string]string{"stop.sh": gentleStop}})
			w.ask()
			for _, s := range c.splits {
				t.Run(s.name, func(t *testing.T) {
					w := w.sub(t)
					w.whole()
					w.linger(0)
					switch s.leads {
					case "host":
						w.moveHost(w.leader())
					case "other":
						w.moveHost(w.other(w.leader()))
					}
					host := w.host()
					nodes := map[string]string{"host": host, "other": w.other(host)}
					w.place(nodes[s.serves])
					w.linger(s.linger)
					w.handsOver(nodes["other"], nodes[s.serves], nodes[s.cut], s.direction)
				})
			}
			w.loserFirst()
			if t.Failed() {
				w.dump()
			}
		})
	}
}

// linger makes each stop of the application take so many seconds, by gentleStop.
func (w *world) linger(seconds int) {
	w.t.Helper()
	w.must("node1", "sh", "-c", fmt.Sprintf("echo %d >/shared/linger", seconds))
}

// Three nodes have a volume as well, though it has no vote there: the one that is cut off from both others hands over by it.
func TestThreeNodesIsolated(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", fence: true, stop: []string{"/bin/sh", "/shared/stop.sh"}, share: map[string]string{"stop.sh": gentleStop},
		more: "repositories:\n  - {name: repo, device: " + volume + "}\n"})
	w.ask()
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("it leads %v", leads), func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			w.linger(0)
			victim := w.leader()
			if !leads {
				victim = w.other(victim)
			}
			w.place(victim)
			w.linger(4)
			w.handsOver(victim, victim, victim, lab.Both)
		})
	}
	w.loserFirst()
	if t.Failed() {
		w.dump()
	}
}

// handsOver cuts the network on the side of one node, and checks that the loser is isolated, that the group is served by another node
// after it, if it was the loser's, and that it was neither reset nor shot nor called dead; then it heals the network.
func (w *world) handsOver(loser, serves, cut, direction string) {
	w.t.Helper()
	since, before := w.lastEvent(), len(w.holders())
	boots, incarnation := w.boots(loser), w.incarnation(loser)
	began := time.Now()
	check(w.t, w.Cut(w.ctx(), cut, "", direction))
	w.await(loser+" is isolated", func() string {
		for _, n := range w.up() {
			if n == loser {
				continue
			}
			if st, err := w.status(n); err == nil && !st.Cluster.Stale() && st.Node(loser) != nil && st.Node(loser).State == api.NodeIsolated {
				return ""
			}
		}
		return "no other node says so"
	})
	next := serves
	if serves == loser {
		next = w.elsewhere(loser)
	}
	if out := w.clmgr(next, "query", "node", loser); !strings.Contains(out, `STATE="ISOLATED"`) {
		w.t.Errorf("clmgr query node %s on %s:\n%s", loser, next, out)
	}
	w.await(loser+" warns of it itself", func() string {
		out := w.run(loser, "clmgr", "query", "cluster").Stdout
		if !strings.Contains(out, "the networks do not reach this node") {
			return out
		}
		return ""
	})
	if next != cut { // the client is on the far side of the cut
		w.answersFrom(next)
	}
	for _, e := range w.holders()[before:] {
		w.t.Logf("%.3f s after the cut: %s %s %s", e.Time.Sub(began).Seconds(), e.Node, e.Event, service)
	}
	time.Sleep(3500 * time.Millisecond) // longer than a lease of the fast profile: it is renewed by the volume, or there is none any more
	if now := w.boots(loser); now != boots {
		w.t.Errorf("%s was reset: boots before %d, now %d", loser, boots, now)
	}
	check(w.t, w.Heal(w.ctx(), cut))
	w.whole()
	if on := w.online(group); on != next {
		w.t.Errorf("after the heal the group is on %s, was on %s", on, next)
	}
	w.answersFrom(next)
	if now := w.boots(loser); now != boots {
		w.t.Errorf("%s was reset: boots before %d, after the heal %d", loser, boots, now)
	}
	if now := w.incarnation(loser); now != incarnation {
		w.t.Errorf("%s is incarnation %d after the heal, was %d", loser, now, incarnation)
	}
	for _, kind := range []string{"node_dead", "node_fence"} {
		if e := w.find(since, kind, ""); e != nil {
			w.t.Errorf("%s: %s", e.Kind, e.Sentence)
		}
	}
	w.timelineFrom(since, before)
}

// incarnation is the newest number of a node's boot.
func (w *world) incarnation(node string) uint64 {
	w.t.Helper()
	var out uint64
	w.await("the incarnation of "+node+" is known", func() string {
		if st := w.view(); st != nil && st.Node(node) != nil {
			out = st.Node(node).Incarnation
			return ""
		}
		return "no node knows a leader"
	})
	return out
}

// The volume is lost: nothing moves, whoever loses it, and the state says so.
func TestTwoNodesLoseTheVolume(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noWatch: true}) // it would count the mounts that hide the volume
	w.ask()
	w.whole()
	on := w.online(group)
	pid := w.appPID(on)
	host := w.host()
	since := w.lastEvent()

	w.loseVolume(host)
	next := w.other(host)
	w.await("the other node runs the repository voter", func() string {
		if now := w.host(); now != next {
			return "it runs on " + now
		}
		return ""
	})
	w.loseVolume(next)
	w.await("the loss is told", func() string {
		st := w.view()
		if st == nil || st.Cluster.Repository == nil {
			return "no status"
		}
		if q := st.Cluster.Quorum; q.Alive != 2 || q.Voters != 3 || !strings.Contains(st.Cluster.Repository.Sentence, "no further failure") {
			return fmt.Sprintf("%+v %s", q, st.Cluster.Repository.Sentence)
		}
		return ""
	})
	time.Sleep(5 * time.Second) // longer than any lease: nothing may move
	w.giveVolume(host)
	w.giveVolume(next)
	w.whole()
	if now := w.online(group); now != on || w.appPID(now) != pid {
		t.Errorf("the group was on %s (process %s), is on %s (process %s)", on, pid, now, w.appPID(now))
	}
	w.timeline(since)
	for _, o := range w.outages() {
		t.Errorf("the client saw an outage of %v", o.Length)
	}
}

// The voter's process stands still on its host, as one does whose disk never answers: the other node's takes the claim, and the one that goes
// on again finds that out before it says anything. Nothing moves, and no answer is missed.
func TestTwoNodesVoterStandsStill(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast"})
	w.ask()
	for range 2 {
		w.whole()
		host := w.host()
		next, on := w.other(host), w.online(group)
		pid := w.appPID(on)
		since := w.lastEvent()
		w.must(host, "sh", "-c", "kill -STOP $(cat /run/holdfast/voter.pid)")
		w.await("the other node runs the repository voter", func() string {
			if st, err := w.status(next); err != nil || st.Cluster.Repository == nil || st.Cluster.Repository.Host != next || !st.Cluster.Repository.Alive {
				return "not yet"
			}
			return ""
		})
		w.must(host, "sh", "-c", "kill -CONT $(cat /run/holdfast/voter.pid)")
		w.await("the one that stood still knows it", func() string {
			if st, err := w.status(host); err != nil || st.Cluster.Repository == nil || st.Cluster.Repository.Host != next {
				return "not yet"
			}
			return ""
		})
		w.whole()
		if now := w.online(group); now != on || w.appPID(now) != pid {
			t.Errorf("the group was on %s (process %s), is on %s (process %s)", on, pid, now, w.appPID(now))
		}
		for _, kind := range []string{"node_lost", "node_dead"} {
			if e := w.find(since, kind, ""); e != nil {
				t.Errorf("%s: %s", e.Kind, e.Sentence)
			}
		}
	}
	for _, o := range w.outages() {
		t.Errorf("the client saw an outage of %v", o.Length)
	}
}

// The volume is lost and the nodes cannot see each other: neither may go on. When they see each other again, they do.
func TestTwoNodesLoseVolumeAndNetwork(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noWatch: true})
	w.ask()
	w.whole()
	host := w.host()
	for _, n := range []string{host, w.other(host)} {
		w.loseVolume(n)
	}
	check(t, w.Cut(w.ctx(), "node1", "", lab.Both))
	w.await("both let go of the address", func() string {
		for _, n := range w.up() {
			if r := w.run(n, "ip", "-o", "addr"); strings.Contains(r.Stdout, service+"/") {
				return n + " has it"
			}
		}
		return ""
	})
	check(t, w.Heal(w.ctx(), "node1"))
	w.answersFrom(w.online(group))
	for _, n := range w.up() {
		w.giveVolume(n)
	}
	w.whole()
}

// A partition in time: node1 alone makes a change and goes; node2 starts alone, without ever having heard of it. It acts on the
// newest configuration or not at all (promise P8). Then both lose power, and either comes back first.
func TestTwoNodesPartitionInTime(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noAutoBoot: true, rg: "priority: 1"})
	for i := range 4 {
		first, second := w.nodes[i%2], w.nodes[1-i%2]
		w.whole()
		check(t, w.PowerOff(w.ctx(), second))
		w.onlineOn(group, first)
		w.await(first+" hosts the voter", func() string {
			st, err := w.status(first)
			if err != nil || st.Cluster.Stale() || st.Cluster.Leader != first || st.Cluster.Repository == nil || !st.Cluster.Repository.Alive {
				return "not yet"
			}
			return ""
		})
		// Only the first knows this.
		want := fmt.Sprint(10 + i)
		w.clmgr(first, "modify", "resource_group", group, "PRIORITY="+want)
		check(t, w.PowerOff(w.ctx(), first))
		check(t, w.PowerOn(w.ctx(), second))
		w.await(second+" serves alone", func() string {
			st, err := w.status(second)
			if err != nil || len(servedOn(st)) != 1 || servedOn(st)[0] != second {
				return "not yet"
			}
			return ""
		})
		if out := w.clmgr(second, "query", "resource_group", group); !strings.Contains(out, `PRIORITY="`+want+`"`) {
			t.Errorf("%s serves with an old configuration (wanted PRIORITY %s):\n%s", second, want, out)
		}
		check(t, w.PowerOn(w.ctx(), first))
		w.whole()
	}
}

// A node that hosts the voter and stops its daemon in order costs the cluster nothing.
func TestTwoNodesPlannedHandOver(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast"})
	w.ask()
	for range 6 {
		w.whole()
		host := w.host()
		w.await("both nodes can run the voter", func() string {
			for _, n := range w.nodes {
				if st, err := w.status(n); err != nil || st.Cluster.Repository == nil || st.Cluster.Repository.Host != host {
					return n + " cannot yet"
				}
			}
			return ""
		})
		w.must(host, "sh", "-c", "kill -TERM $(cat /run/holdfast/voter.pid)")
		w.await("the other node runs the voter", func() string {
			if now := w.host(); now == host {
				return "not yet"
			}
			return ""
		})
	}
	w.whole()
	for _, o := range w.outages() {
		t.Errorf("the client saw an outage of %v", o.Length)
	}
}
