//go:build linux

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Two of three nodes are lost for good. The third serves nothing until the operator names them; wrong names change nothing. They come back,
// both at once, with the majority that they were, and serve nothing until they join again.
func TestForcedConfiguration(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.place("node2")
	w.refused("node1", 1, []string{"leads: the cluster has its majority"}, "confirm", "quorum_lost", "DEAD=node2,node3", "CONFIRM=node2,node3")
	check(t, w.Crash(w.ctx(), "node2"))
	check(t, w.Crash(w.ctx(), "node3"))
	w.await("node1 knows no leader", func() string {
		st, err := w.status("node1")
		switch {
		case err != nil:
			return err.Error()
		case st.Cluster.Leader != "" || st.Cluster.Quorum.Have:
			return "it believes in a leader"
		case st.Node("node1").Lease == nil || st.Node("node1").Lease.Armed:
			return "its deadman is armed"
		}
		return ""
	})
	w.refused("node1", 2, []string{"node9"}, "confirm", "quorum_lost", "DEAD=node2,node9", "CONFIRM=node2,node9")
	w.refused("node1", 3, []string{"CONFIRM=node2,node3"}, "-f", "confirm", "quorum_lost", "DEAD=node2,node3")
	w.refused("node1", 1, []string{"not confirmed"}, "confirm", "quorum_lost", "DEAD=node2,node3", "CONFIRM=node2,node1")
	w.refused("node1", 1, []string{"majority"}, "confirm", "quorum_lost", "DEAD=node2", "CONFIRM=node2")
	if st, err := w.status("node1"); err != nil || st.Cluster.Epoch != 1 || st.Cluster.Leader != "" || st.Cluster.Quorum.Voters != 3 {
		t.Fatalf("after what was refused: %+v %v", st, err)
	}

	// One of the dead lives: node1 and it are a majority again.
	check(t, w.Boot(w.ctx(), "node3"))
	w.await("there is a leader again", func() string {
		if st, err := w.status("node1"); err != nil || st.Cluster.Leader == "" {
			return "none"
		}
		return ""
	})
	w.refused("node1", 1, []string{"majority"}, "confirm", "quorum_lost", "DEAD=node2,node3", "CONFIRM=node2,node3")
	check(t, w.Crash(w.ctx(), "node3"))

	out := ""
	w.await("the configuration is forced", func() string {
		r := w.run("node1", "clmgr", "confirm", "quorum_lost", "DEAD=node2,node3", "CONFIRM=node3,node2")
		out = r.Stdout
		return strings.TrimSpace(r.Stderr)
	})
	t.Logf("%s", out)
	w.onlineOn(group, "node1")
	w.expect("query cluster", w.run("node1", "clmgr", "query", "cluster"), 0, `EPOCH="2"`, `LEADER="node1"`)
	w.expect("query events", w.run("node1", "clmgr", "query", "events"), 0, "forced_configuration", "declared dead: node2, node3")
	w.expect("query audit", w.run("node1", "clmgr", "query", "audit"), 0, "confirm quorum_lost: dead node2,node3")

	check(t, w.Boot(w.ctx(), "node2"))
	check(t, w.Boot(w.ctx(), "node3"))
	for _, n := range []string{"node2", "node3"} {
		w.await(n+" belongs to no cluster", func() string {
			if st, err := w.status(n); err != nil || st.Cluster.State != api.ClusterNotConfigured {
				return "not yet"
			}
			return ""
		})
		var token struct{ Token string }
		check(t, json.Unmarshal([]byte(w.clmgr("node1", "-o", "json", "add", "token", n)), &token))
		w.clmgr(n, "join", "cluster", "TOKEN="+token.Token)
	}
	w.whole()
	if on := w.online(group); on != "node1" {
		t.Errorf("the group is on %s", on)
	}
	check(t, w.Crash(w.ctx(), "node1")) // the new epoch is a cluster like any other
	w.elsewhere("node1")
	w.loserFirst()
}
