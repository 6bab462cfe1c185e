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
	check(t, w.Crash(w.ctx(), "node3"))
	w.nodesAre(api.NodeDead, "node3")
	st := w.nodesAre(api.NodeNormal, "node1", "node2", "node4")
	term, leader, floors := st.Cluster.Term, st.Cluster.Leader, map[string]uint64{}
	for _, n := range st.Nodes {
		floors[n.Name] = n.Certificate
	}
	pid, since := w.appPID("node1"), w.lastEvent()

	if out := w.clmgr("node2", "rotate", "certificates"); !strings.Contains(out, "node3 cannot be reached and will renew when back") {
		t.Errorf("rotate certificates: %s", out)
	}
	w.refused("node2", 2, []string{"node9"}, "rotate", "certificates", "NODES=node9")
	w.clmgr("node4", "rotate", "certificates", "NODES=node1,"+leader) // once more, those that matter most
	w.clmgr("node1", "rotate", "gossip_key")
	w.renewed(floors, "node1", "node2", "node4")
	w.gossips("node1", 2)
	w.undisturbed(since, term, leader, pid)

	check(t, w.Boot(w.ctx(), "node3"))
	w.nodesAre(api.NodeNormal)
	w.renewed(floors, "node3")
	w.gossips("node1", 3)
	w.gossips("node3", 3)
	w.undisturbed(since, term, leader, pid)

	w.clmgr("node1", "stop", "node", "node4", "MANAGE=offline")
	w.clmgr("node1", "modify", "resource_group", group, "NODES=node1,node2,node3")
	w.clmgr("node1", "-f", "delete", "node", "node4")
	w.await("node4 is refused as a stranger", func() string {
		return lacks(w.metric("node1", `holdfast_refused_connections_total{reason="stranger"}`)+
			w.metric("node2", `holdfast_refused_connections_total{reason="stranger"}`) > 0, "nobody has refused it")
	})
	w.clmgr("node1", "-f", "add", "node", "node4", "ADDRESS=net1:10.77.1.4/24")
	w.await("the certificate of the removed node4 is refused although the name is a member's again", func() string {
		return lacks(w.metric("node1", `holdfast_refused_connections_total{reason="void"}`)+
			w.metric("node2", `holdfast_refused_connections_total{reason="void"}`)+
			w.metric("node3", `holdfast_refused_connections_total{reason="void"}`) > 0, "nobody has refused it")
	})
	if n := w.view().Node("node4"); n.State == api.NodeNormal || n.Incarnation != 0 {
		t.Errorf("the removed node4 is a member by its old certificate: %s", n.State)
	}
	w.undisturbed(since, term, leader, pid)
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

// undisturbed checks that nothing has happened to the group, to the leader and to any node's lease since.
func (w *world) undisturbed(since, term uint64, leader, pid string) {
	w.t.Helper()
	st := w.view()
	if st == nil || st.Cluster.Term != term || st.Cluster.Leader != leader {
		w.t.Fatalf("term %d of %s is over: %+v", term, leader, st.Cluster)
	}
	if now := w.appPID("node1"); now != pid {
		w.t.Errorf("the application was process %s and is %s", pid, now)
	}
	for _, e := range w.events(since) {
		lost := slices.Contains([]string{"node_lost", "node_dead", "node_reset", "node_fence", "node_disarmed"}, e.Kind) && e.Node != "node4" && e.Node != "node3"
		if lost || strings.HasPrefix(e.Kind, "rg_") {
			w.t.Errorf("%s %s %s", e.Kind, e.Node, e.Sentence)
		}
	}
	if o := w.outages(); len(o) != 0 {
		w.t.Errorf("the client missed %d answers", len(o))
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
