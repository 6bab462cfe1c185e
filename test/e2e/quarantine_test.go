//go:build linux

package e2e

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A stop that hangs on a node where /run/hang is.
const hangingStop = `if [ -e /run/hang ]; then sleep 600; fi
exec /holdfast/bin/cllab app stop --data /app/data --listen ` + target + "\n"

// bootsOf is how often the lab has booted a node.
func bootsOf(w *world, node string) int {
	w.t.Helper()
	st, err := w.Lab.Status(w.ctx())
	check(w.t, err)
	for _, n := range st.Nodes {
		if n.Name == node {
			return n.Boots
		}
	}
	return 0
}

// Three resets, by the watchdog and by the deadman, and the node comes back without groups: whatever else fails, until it is cleared.
func TestQuarantine(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", share: map[string]string{"stop.sh": hangingStop}, stop: []string{"/bin/sh", "/shared/stop.sh"}})
	const node = "node1"
	since := w.lastEvent()
	for i, end := range []func(){
		func() { check(t, w.Pause(w.ctx(), node, "agent", "deadman")) }, // nobody pets and nobody notes it: the watchdog fires
		func() { // the lease runs out and the group does not stop in time: the deadman resets the node
			w.must(node, "touch", "/run/hang")
			check(t, w.Cut(w.ctx(), node, "", ""))
		},
		func() { check(t, w.Pause(w.ctx(), node, "deadman")) },
	} {
		w.whole()
		w.place(node)
		before, boots := w.view().Node(node).Incarnation, bootsOf(w, node)
		end()
		w.await(node+" is reset", func() string {
			if now := bootsOf(w, node); now == boots {
				return "it runs"
			}
			return ""
		})
		check(t, w.Heal(w.ctx(), node))
		w.await(node+" has booted", func() string {
			st := w.view()
			if st == nil {
				return "no node knows a leader"
			}
			n := st.Node(node)
			if want := map[bool]string{false: api.NodeNormal, true: api.NodeQuarantined}[i == 2]; n.Incarnation <= before || n.State != want {
				return n.State + " " + n.Reason
			}
			return ""
		})
	}
	w.timeline(since)
	var boots []string
	for _, e := range w.events(since) {
		if e.Kind == "node_boot" && e.Node == node {
			boots = append(boots, e.Sentence)
		}
	}
	if len(boots) != 3 || !strings.Contains(boots[0], "after a reset: its watchdog device") || !strings.Contains(boots[1], "after a reset: its lease ran out") ||
		!strings.Contains(boots[2], "after a reset: ") {
		t.Errorf("the history says of the boots: %q", boots)
	}
	has := func(what, text string, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s does not show %q:\n%s", what, word, text)
			}
		}
	}
	has("query node", w.clmgr("node2", "query", "node", node), `STATE="QUARANTINED"`, `RESETS="3"`, "reset three times within 30 minutes")
	has("clstat", w.must("node2", "clstat", "-o"), "Node: node1", "DOWN (quarantined: the node was reset three times")
	w.refused("node2", 1, []string{"node1 is quarantined"}, "move", "resource_group", group, "NODE="+node)

	// The other two nodes come and go: it gets nothing.
	on := w.elsewhere(node)
	check(t, w.Crash(w.ctx(), on))
	next := w.elsewhere(on)
	if next == node {
		t.Errorf("the group went to the quarantined %s", node)
	}
	check(t, w.Boot(w.ctx(), on))
	w.nodesAre(api.NodeNormal, on)
	has("query node", w.clmgr(next, "query", "node", node), `STATE="QUARANTINED"`)

	w.clmgr(next, "clear", "node", node)
	w.nodesAre(api.NodeNormal, node)
	has("query node", w.clmgr(next, "query", "node", node), `STATE="NORMAL"`, `RESETS="0"`)
	w.place(node)
	w.loserFirst()
}
