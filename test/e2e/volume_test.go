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

// A node whose disk was lost joins again, with a new certificate. It is let in to the volume, so that it survives the other node.
func TestTwoNodesRebuilt(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noAutoBoot: true})
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
}
