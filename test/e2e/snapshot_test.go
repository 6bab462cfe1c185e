//go:build linux

package e2e

import (
	"strings"
	"testing"
)

// A snapshot is on every node, survives each, is compared and restored live; the cluster keeps the old definition by itself before
// each change, and a file that somebody has touched is not taken for a snapshot.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	at := w.online(group)
	pid := w.appPID(at)
	w.clmgr("node1", "add", "snapshot", "before", "DESCRIPTION=all is well")
	if out := w.clmgr("node2", "-a", "NAME,NODES", "query", "snapshot", "before"); !strings.Contains(out, `NODES="node1,node2,node3"`) {
		t.Errorf("where it is: %s", out)
	}
	version := w.view().Cluster.DefinitionVersion
	w.clmgr("node1", "add", "service_ip", "second_svc", "ADDRESS=10.77.1.101", "NETWORK=net1")
	w.clmgr("node1", "modify", "resource_group", group, "SERVICE_LABEL=app_svc,second_svc", "PRIORITY=7")
	if out := w.clmgr("node3", "compare", "snapshot", "before"); !strings.Contains(out, "- service_ip second_svc") ||
		!strings.Contains(out, "!! service_ip second_svc of group app_rg is released on node "+at) {
		t.Errorf("compare: %s", out)
	}
	w.await("the cluster's own snapshots", func() string {
		for _, n := range w.nodes {
			if out := w.clmgr(n, "-v", "query", "snapshot"); strings.Count(out, `NODES="node1,node2,node3"`) < 3 {
				return "not all are on all nodes: " + out
			}
		}
		return ""
	})
	out := w.clmgr("node3", "manage", "snapshot", "restore", "before")
	if !strings.Contains(out, "1 to delete; 1 thing that serves stops") {
		t.Errorf("restore: %s", out)
	}
	w.await("the second address to go", func() string {
		if strings.Contains(w.must(at, "ip", "-o", "address"), "10.77.1.101") {
			return "it is still there"
		}
		return ""
	})
	if v := w.view().Cluster.DefinitionVersion; v != version+3 {
		t.Errorf("version %d, it was %d before two changes and the restore", v, version)
	}
	if now := w.appPID(at); now != pid {
		t.Error("the restore has touched the application")
	}
	if out := w.clmgr("node1", "compare", "snapshot", "before"); out != "no difference\n" {
		t.Errorf("after the restore: %s", out)
	}
	// Damaged on one node: said so, and read from another.
	w.must("node1", "sh", "-c", "sed -i 's/priority: /priority: 1/; s/10.77.1.100/10.77.1.200/' /var/lib/holdfast/snapshots/before.yaml")
	if out := w.clmgr("node1", "-a", "DAMAGED", "query", "snapshot", "before"); !strings.Contains(out, "node1") || !strings.Contains(out, "changed or damaged") {
		t.Errorf("a damaged snapshot: %s", out)
	}
	if out := w.clmgr("node1", "view", "snapshot", "before"); strings.Contains(out, "10.77.1.200") {
		t.Error("the damaged file was shown as the snapshot")
	}
	if mode := w.must("node2", "stat", "-c", "%a", "/var/lib/holdfast/snapshots", "/var/lib/holdfast/snapshots/before.yaml"); mode != "700\n600\n" {
		t.Errorf("modes %q: a snapshot may hold a fence device's password", mode)
	}
	w.refused("node1", 4, []string{"cannot be called"}, "add", "snapshot", "../../etc/passwd")
}
