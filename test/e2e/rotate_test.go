//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// Certificates and the gossip key are rotated under a group that serves: no transition, no lost lease, no election. A node that was down
// meanwhile comes back by itself. A node that was removed is refused, also when its name is in the definition again, until it has
// joined anew.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{nodes: 4, fence: true, noAutoBoot: true})
	w.ask()
	w.answersFrom("node1")
	// One that is down meanwhile, and one that is removed later: neither serves nor leads.
	leader := w.leader()
	idle := slices.DeleteFunc(slices.Clone(w.nodes), func(n string) bool { return n == "node1" || n == leader })
	down, gone := idle[0], idle[1]
	stay := slices.DeleteFunc(slices.Clone(w.nodes), func(n string) bool { return n == down || n == gone })
	check(t, w.Crash(w.ctx(), down))
	w.nodesAre(api.NodeDead, down)
	st := w.nodesAre(api.NodeNormal, append([]string{gone}, stay...)...)
	floors := map[string]uint64{}
	for _, n := range st.Nodes {
		floors[n.Name] = n.Certificate
	}
	calm := &calm{term: st.Cluster.Term, leader: leader, pid: w.appPID("node1"), since: w.lastEvent(), left: []string{down, gone}}

	if out := w.clmgr(stay[1], "rotate", "certificates"); !strings.Contains(out, down+" cannot be reached and will renew when back") {
		t.Errorf("rotate certificates: %s", out)
	}
	w.refused(stay[1], 2, []string{"node9"}, "rotate", "certificates", "NODES=node9")
	w.clmgr(gone, "rotate", "certificates", "NODES=node1") // once more, where the group is
	w.clmgr("node1", "rotate", "gossip_key")
	w.renewed(floors, append([]string{gone}, stay...)...)
	w.gossips("node1", 2)
	w.undisturbed(calm)

	check(t, w.Boot(w.ctx(), down))
	w.nodesAre(api.NodeNormal)
	w.renewed(floors, down)
	w.gossips("node1", 3)
	w.gossips(down, 3)
	w.undisturbed(calm)

	refused := func(reason string) func() string {
		return func() string {
			for _, n := range append([]string{down}, stay...) {
				if w.metric(n, fmt.Sprintf("holdfast_refused_connections_total{reason=%q}", reason)) > 0 {
					return ""
				}
			}
			return "nobody has"
		}
	}
	w.clmgr("node1", "stop", "node", gone, "MANAGE=offline")
	w.clmgr("node1", "modify", "resource_group", group, "NODES=node1,"+down)
	w.clmgr("node1", "-f", "delete", "node", gone)
	w.await("the removed "+gone+" is refused as a stranger", refused("stranger"))
	w.clmgr("node1", "add", "node", gone, fmt.Sprintf("ADDRESS=net1:10.77.1.%d/24", slices.Index(w.nodes, gone)+1))
	w.await("the certificate of the removed "+gone+" is refused although the name is a member's again", refused("void"))
	if n := w.view().Node(gone); n.Incarnation != 0 {
		t.Errorf("the removed %s is a member by its old certificate: %s", gone, n.State)
	}
	w.undisturbed(calm)
	w.outages() // told only: a busy machine answers late, and what must not happen is looked for above
}

func lacks(ok bool, what string) string {
	if ok {
		return ""
	}
	return what
}

// renewed waits until the nodes' certificates of before are void, and nothing is left to renew there.
func (w *world) renewed(before map[string]uint64, nodes ...string) {
	w.t.Helper()
	w.await("the certificates are renewed", func() string {
		st := w.view()
		if st == nil {
			return "no node knows a leader"
		}
		for _, name := range nodes {
			if n := st.Node(name); n.RenewsTo != 0 || n.Certificate <= before[name] {
				return fmt.Sprintf("%s: certificate %d, renews to %d", name, n.Certificate, n.RenewsTo)
			}
		}
		return ""
	})
}

// gossips waits until so many other members answer on the node's ring.
func (w *world) gossips(node string, others int) {
	w.t.Helper()
	w.await(fmt.Sprintf("%d others gossip with %s", others, node), func() string {
		alive := w.metric(node, `holdfast_gossip_alive_members{network="net1"}`)
		return lacks(int(alive) == others, fmt.Sprintf("%v", alive))
	})
}

// calm is how things were.
type calm struct {
	since, term uint64
	leader, pid string
	left        []string // nodes of which events are expected
}

// undisturbed checks that nothing has happened to the group, to the leader and to any node's lease since.
func (w *world) undisturbed(c *calm) {
	w.t.Helper()
	st := w.view()
	if st == nil || st.Cluster.Term != c.term || st.Cluster.Leader != c.leader {
		w.t.Fatalf("term %d of %s is over: %+v", c.term, c.leader, st)
	}
	if now := w.appPID("node1"); now != c.pid {
		w.t.Errorf("the application was process %s and is %s", c.pid, now)
	}
	for _, e := range w.events(c.since) {
		lost := slices.Contains([]string{"node_lost", "node_dead", "node_reset", "node_fence", "node_disarmed"}, e.Kind) && !slices.Contains(c.left, e.Node)
		if lost || strings.HasPrefix(e.Kind, "rg_") {
			w.t.Errorf("%s %s %s", e.Kind, e.Node, e.Sentence)
		}
	}
}

// metric reads one of a node's metrics; -1 if it is not there.
func (w *world) metric(node, name string) float64 {
	script := fmt.Sprintf(`exec 3<>/dev/tcp/10.77.1.%d/6193 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`, slices.Index(w.nodes, node)+1)
	r, err := w.Lab.Run(w.ctx(), lab.ClientNode, "timeout", "2", "bash", "-c", script)
	if err != nil {
		return -1
	}
	for line := range strings.SplitSeq(r.Stdout, "\n") {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			if x, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				return x
			}
		}
	}
	return -1
}
