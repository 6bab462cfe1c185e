//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"
)

// Changes that are staged touch nothing until the sync, and then all of them count at once, on a running group.
func TestStagedChangesAreActivatedAtOnce(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{more: "\nmethods:\n  - {name: m, file: /ha/m}\n"})
	for _, n := range w.nodes {
		w.must(n, "sh", "-c", `mkdir -p /ha && printf '`+strings.ReplaceAll(script, "\n", `\n`)+`' > /ha/m && chmod 755 /ha/m`)
	}
	at := w.online(group)
	version := w.view().Cluster.DefinitionVersion
	pid := w.appPID(at)

	w.clmgr("node1", "--stage", "add", "service_ip", "second_svc", "ADDRESS=10.77.1.101", "NETWORK=net1")
	w.clmgr("node2", "modify", "resource_group", group, "SERVICE_LABEL=app_svc,second_svc")
	if out := w.clmgr("node3", "-a", "UNSYNCED_CHANGES,DEFINITION_VERSION", "query", "cluster"); !strings.Contains(out, `UNSYNCED_CHANGES="true"`) {
		t.Errorf("another node does not know of it: %s", out)
	}
	if v := w.view(); v.Cluster.DefinitionVersion != version {
		t.Fatalf("staging has made version %d active", v.Cluster.DefinitionVersion)
	}
	if out := w.must(at, "ip", "-o", "address"); strings.Contains(out, "10.77.1.101") {
		t.Fatal("a staged address is configured")
	}
	diff := w.clmgr("node1", "diff")
	for _, word := range []string{"+ service_ip second_svc", "=> service_ip second_svc of group app_rg is acquired on node " + at} {
		if !strings.Contains(diff, word) {
			t.Errorf("clmgr diff does not say %q:\n%s", word, diff)
		}
	}
	// A verification that finds an error on one node keeps the sync from happening.
	w.must("node2", "chmod", "644", "/ha/m")
	w.refused("node1", 1, []string{"nothing was activated"}, "sync", "cluster")
	if v := w.view(); v.Cluster.DefinitionVersion != version || !v.Cluster.Unsynced {
		t.Fatalf("the refused sync changed something: %+v", v.Cluster)
	}
	out := w.clmgr("node3", "sync", "cluster", "FIX=yes")
	if !strings.Contains(out, "FIXED    node2: V1202") || !strings.Contains(out, "Check: PASSED") {
		t.Errorf("sync FIX=yes: %s", out)
	}
	w.await("the second address", func() string {
		if strings.Contains(w.must(at, "ip", "-o", "address"), "10.77.1.101") {
			return ""
		}
		return "it is not there"
	})
	v := w.view()
	if v.Cluster.DefinitionVersion != version+1 || v.Cluster.Unsynced {
		t.Errorf("after the sync: %+v", v.Cluster)
	}
	if now := w.appPID(at); now != pid {
		t.Errorf("the application was touched: process %s, then %s", pid, now)
	}
	// Undo drops what is staged and nothing else.
	w.clmgr("node1", "--stage", "modify", "resource_group", group, "PRIORITY=9")
	w.clmgr("node2", "undo")
	if out := w.clmgr("node3", "-a", "PRIORITY", "query", "resource_group", group); out != "PRIORITY=\"0\"\n" {
		t.Errorf("after undo: %s", out)
	}
	if v := w.view(); v.Cluster.DefinitionVersion != version+1 || v.Cluster.Unsynced {
		t.Errorf("after undo: %+v", v.Cluster)
	}
}

// PowerHA's way, by a setting: everything waits; what is staged survives the death of the leader.
func TestStagingSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	w.online(group)
	w.clmgr("node1", "modify", "cluster", "CHANGES=staged")
	w.clmgr("node1", "modify", "resource_group", group, "PRIORITY=9")
	leader := w.leader()
	check(t, w.Crash(w.ctx(), leader))
	from := w.other(leader)
	w.await("another leader", func() string {
		if l := w.leader(); l == "" || l == leader {
			return "none yet"
		}
		return ""
	})
	// The verification sees the dead node, which is an error; the administrator goes on.
	w.refused(from, 1, []string{"nothing was activated"}, "sync", "cluster")
	w.clmgr(from, "sync", "cluster", "FORCE=yes")
	if out := w.clmgr(from, "-a", "PRIORITY", "query", "resource_group", group); out != "PRIORITY=\"9\"\n" {
		t.Errorf("after the sync: %s", out)
	}
}

// A file's plan says what would stop before it does, and what the plan said is what happens.
func TestApplyShowsItsPlan(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{more: ""})
	at := w.online(group)
	yaml := w.clmgr("node1", "export")
	check(t, os.WriteFile(w.SharedPath("new.yaml"), []byte(strings.Replace(yaml, "address: "+service, "address: 10.77.1.111", 1)), 0o644))
	version := w.view().Cluster.DefinitionVersion
	plan := w.clmgr("node2", "apply", "-f", "/shared/new.yaml", "--plan")
	for _, word := range []string{"0 to add, 1 to change, 0 to delete; 1 thing that serves stops", "!! service_ip app_svc of group app_rg is released on node " + at,
		"=> service_ip app_svc of group app_rg is acquired on node " + at} {
		if !strings.Contains(plan, word) {
			t.Errorf("the plan does not say %q:\n%s", word, plan)
		}
	}
	if v := w.view(); v.Cluster.DefinitionVersion != version {
		t.Fatal("a plan has changed the definition")
	}
	w.clmgr("node2", "apply", "-f", "/shared/new.yaml")
	w.await("the other address", func() string {
		if out := w.must(at, "ip", "-o", "address"); strings.Contains(out, "10.77.1.111") && !strings.Contains(out, service+"/") {
			return ""
		}
		return "it is not there, or the old one still is"
	})
}
