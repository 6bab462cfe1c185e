//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A node that serves dies; a power switch proves it, the next node serves, and the first comes back without a fuss.
func TestFailoverWithFence(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.ask()
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	w.answersFrom("node2")
	w.onlineOn(group, "node2")
	if e := w.happened(since, "node_dead", "node1"); !strings.Contains(e.Sentence, "fenced") {
		t.Errorf("the proof of death is not the fence: %s", e.Sentence)
	}
	check(t, w.Boot(w.ctx(), "node1"))
	w.nodesAre(api.NodeNormal)
	if on := w.online(group); on != "node2" {
		t.Errorf("NFB: the group is on %s after the boot of node1", on)
	}
	w.timeline(since)
	if o := w.outages(); len(o) != 1 || o[0].After.Node != "node2" {
		t.Errorf("one crash, %d outages", len(o))
	}
}

// The same without a fence device: time alone proves the death, and says with which values.
func TestFailoverByLease(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	since := w.lastEvent()
	leader := w.leader()
	if leader != "node1" {
		w.clmgr("node2", "move", "resource_group", group, "NODE="+leader)
	}
	check(t, w.Crash(w.ctx(), leader))
	on := ""
	w.await("another node serves", func() string {
		st := w.view()
		if st == nil || len(servedOn(st)) != 1 || servedOn(st)[0] == leader {
			return "not yet"
		}
		on = servedOn(st)[0]
		return ""
	})
	w.answersFrom(on)
	if e := w.happened(since, "node_dead", leader); !strings.Contains(e.Sentence, "proof time") {
		t.Errorf("the proof of death is not time: %s", e.Sentence)
	}
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// The operator's day: move, a killed application, a killed daemon, and the four lines every administrator knows by heart.
func TestOperatorsDay(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.ask()
	t.Run("move", func(t *testing.T) {
		w.clmgr("node3", "move", "resource_group", group, "NODE=node2")
		w.answersFrom("node2")
		if on := w.online(group); on != "node2" {
			t.Fatalf("the group is on %s", on)
		}
		if out := w.must("node1", "clRGinfo"); !strings.Contains(out, "app_rg") || !strings.Contains(out, "ONLINE           node2") {
			t.Errorf("clRGinfo:\n%s", out)
		}
	})
	t.Run("application killed", func(t *testing.T) {
		pid := w.appPID("node2")
		w.must("node2", "kill", "-9", pid)
		w.await("the application is restarted on node2", func() string {
			if now := w.appPID("node2"); now == "" || now == pid {
				return "process " + now
			}
			return ""
		})
		w.answersFrom("node2")
	})
	t.Run("daemon killed", func(t *testing.T) {
		pid, boots := w.appPID("node2"), w.boots("node2")
		instance := w.instance("node2")
		check(t, w.Kill(w.ctx(), "node2", "agent"))
		w.await("a new daemon has adopted the group", func() string {
			if now := w.instance("node2"); now == "" || now == instance {
				return "the daemon is not back"
			}
			return ""
		})
		w.nodesAre(api.NodeNormal)
		if on := w.online(group); on != "node2" {
			t.Errorf("the group is on %s", on)
		}
		if now := w.appPID("node2"); now != pid {
			t.Errorf("the application was restarted: process %s, then %s", pid, now)
		}
		if now := w.boots("node2"); now != boots {
			t.Errorf("the node was reset: boot %d, then %d", boots, now)
		}
	})
	t.Run("other names", w.otherNames)
	t.Run("four lines", func(t *testing.T) {
		w.clmgr("node1", "set", "failover", "-g", group, "-m", "next")
		w.clmgr("node1", "set", "fallback", "-g", group, "-m", "never")
		if out := w.clmgr("node3", "-a", "FALLOVER,FALLBACK", "query", "resource_group", group); !strings.Contains(out, `FALLOVER="FNPN"`) ||
			!strings.Contains(out, `FALLBACK="NFB"`) {
			t.Errorf("query resource_group:\n%s", out)
		}
		w.clmgr("node1", "stop", "cluster", "-m", "graceful")
		w.await("the service address is gone", func() string {
			if h := w.holders(); len(h) > 0 && h[len(h)-1].Event != "lost" {
				return h[len(h)-1].Node + " has it"
			}
			return ""
		})
		w.clmgr("node1", "start", "cluster", "-o", "home")
		if on := w.online(group); on != "node1" {
			t.Errorf("start cluster -o home: the group is on %s", on)
		}
		w.answersFrom("node1")
	})
	if t.Failed() {
		w.t.Log("see above")
	}
	w.loserFirst()
	w.outages()
}

// otherNames uses the commands of PowerHA and CAA, and reads their output as scripts do. It leaves the group on node2.
func (w *world) otherNames(t *testing.T) {
	if out := w.must("node1", "clRGmove", "-g", group, "-n", "node3", "-m", "-i"); !strings.Contains(out, "ONLINE           node3") {
		t.Errorf("clRGmove -i:\n%s", out)
	}
	w.answersFrom("node3")
	w.must("node3", "clRGmove", "-g", group, "-d", "-a")
	w.must("node1", "clRGmove", "-g", group, "-u", "-n", "node2")
	w.answersFrom("node2")
	for command, want := range map[string]string{
		"clRGinfo -s | awk -F: '$2 == \"ONLINE\" {print $1, $3}'":                                   group + " node2",
		"lscluster -m | grep -c 'State of node: UP'":                                                "3",
		"lscluster -c | awk '/^Number of nodes in cluster/ {print $NF}'":                            "3",
		"clmgr view subsystem clstrmgrES | awk '/^Current state:/ {print $3}'":                      "ST_STABLE",
		"clmgr -cSv -a NAME,STATE query node | cut -d: -f2 | sort -u":                               "NORMAL",
		"clmgr -o yaml query status | awk '/^  state:/ {print $2}'":                                 "STABLE",
		"cllsif -cS | awk -F: '$2 == \"boot\" {n++} END {print n}'":                                 "3",
		"clshowres -g " + group + " | awk '/^Participating Node Name/ {print $4, $5, $NF}'":         "node1 node2 node3",
		"clsnapshot -c -n names >&2 && clsnapshot -l | grep -x names && clsnapshot -r -n names >&2": "names",
	} {
		if out := strings.TrimSpace(w.must("node1", "sh", "-c", command)); out != want {
			t.Errorf("%s\nprints %q, wanted %q", command, out, want)
		}
	}
	w.expect("a free command", w.run("node1", "clcmd", "touch", "/shared/ran"), 1, "nothing was run")
}

func (w *world) boots(node string) int {
	w.t.Helper()
	return w.lookAt(node).Boots
}

// lookAt is the lab's picture of a node.
func (w *world) lookAt(node string) lab.NodeStatus {
	w.t.Helper()
	st, err := w.Lab.Status(w.ctx())
	check(w.t, err)
	for _, n := range st.Nodes {
		if n.Name == node {
			return n
		}
	}
	w.t.Fatalf("there is no node %s", node)
	return lab.NodeStatus{}
}

// instance names the run of the daemon that answers on a node, if one does.
func (w *world) instance(node string) string {
	if st, err := w.status(node); err == nil {
		return st.Instance
	}
	return ""
}

// A node that is cut off in silence stops what it has before another starts it, whether it leads or not.
func TestSilentCut(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	since := w.lastEvent()
	leader := w.leader()
	victim := w.online(group)
	check(t, w.Cut(w.ctx(), victim, "", lab.Both))
	w.await("the group is online elsewhere", func() string {
		if st := w.view(); st == nil || len(servedOn(st)) != 1 || servedOn(st)[0] == victim {
			return "not yet"
		}
		return ""
	})
	w.answersFrom(w.online(group))
	t.Logf("%s was cut off, %s led", victim, leader)
	check(t, w.Heal(w.ctx(), victim))
	w.nodesAre(api.NodeNormal)
	time.Sleep(time.Second)
	if on := w.online(group); on == victim {
		t.Errorf("the group went back to %s", victim)
	}
	w.timeline(since)
	if moves := w.loserFirst(); moves != 1 {
		t.Errorf("one cut, %d moves", moves)
	}
	w.outages()
}
