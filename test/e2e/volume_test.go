//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// reachesVolume waits until the node's own voter process sees who hosts the repository voter: it could host it itself.
func (w *world) reachesVolume(node string) {
	w.t.Helper()
	w.await(node+" can host the repository voter", func() string {
		st, err := w.status(node)
		switch {
		case err != nil:
			return err.Error()
		case st.Cluster.Repository == nil || st.Cluster.Repository.Host == "":
			return "it does not reach the volume"
		}
		return ""
	})
}

// A node whose disk was lost joins again, with a new certificate. It is let in to the volume, so that it survives the other node. Then the
// volume itself is lost and replaced while the cluster runs; the old one's return changes nothing.
func TestTwoNodesRebuiltAndVolumeReplaced(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noAutoBoot: true, noWatch: true}) // it would count the mounts that hide the volume
	w.ask()
	w.whole()
	w.place("node1")
	check(t, w.PowerOff(w.ctx(), "node2"))
	lib := w.NodePath("node2", "lib", "")
	list, err := os.ReadDir(lib)
	check(t, err)
	for _, e := range list { // the directory itself is bound into the node
		check(t, os.RemoveAll(filepath.Join(lib, e.Name())))
	}
	check(t, w.PowerOn(w.ctx(), "node2"))
	w.join("node2", "node1")
	w.whole()
	w.reachesVolume("node2")
	check(t, w.Crash(w.ctx(), "node1"))
	w.answersFrom(w.elsewhere("node1"))
	check(t, w.PowerOn(w.ctx(), "node1"))
	w.whole()
	w.reachesVolume("node1")

	on := w.online(group)
	pid := w.appPID(on)
	w.refused("node2", 4, []string{"UUID", "cannot be set"}, "modify", "repository", "repo", "UUID=11111111-2222-4333-8444-555555555555")
	w.refused("node2", 1, []string{"no other formatted repository"}, "replace", "repository")
	w.must("node1", "truncate", "-s", "64M", "/shared/second.vol")
	w.clmgr("node2", "add", "repository", "second", "DEVICE=/shared/second.vol")
	w.refused("node2", 1, []string{"not formatted"}, "replace", "repository", "second")
	t.Logf("%s", w.clmgr("node2", "-f", "format", "repository", "second"))
	for _, n := range w.nodes {
		w.loseVolume(n)
	}
	w.await("the loss is seen", func() string {
		if st := w.view(); st == nil || st.Cluster.Quorum.Alive != 2 {
			return "not yet"
		}
		return ""
	})
	t.Logf("%s", w.clmgr("node2", "replace", "repository", "second"))
	t.Logf("%s", w.clmgr("node1", "query", "repository"))
	for _, n := range w.nodes {
		w.giveVolume(n)
	}
	w.whole()
	for _, n := range w.nodes {
		w.reachesVolume(n)
	}
	if now := w.online(group); now != on || w.appPID(now) != pid {
		t.Errorf("the group was on %s (process %s), is on %s (process %s)", on, pid, now, w.appPID(now))
	}
	check(t, w.Crash(w.ctx(), on))
	w.answersFrom(w.elsewhere(on))
}
