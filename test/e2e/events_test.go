//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// noteScript writes down that it ran; hangScript does not end.
const noteScript = `#!/bin/sh
echo "$HOLDFAST_NODE: $HOLDFAST_EVENT $HOLDFAST_PHASE $HOLDFAST_EVENT_NODE $HOLDFAST_GROUP $HOLDFAST_RESOURCE $HOLDFAST_STATUS" >>/shared/commands.log
echo "$HOLDFAST_PHASE of $HOLDFAST_EVENT"
`

const hangScript = `#!/bin/sh
echo "$HOLDFAST_NODE: $HOLDFAST_EVENT hangs $HOLDFAST_PHASE" >>/shared/commands.log
exec sleep 600
`

const eventCommands = `events:
  - {name: node_down, notify: /run/hang.sh, pre: [/run/note.sh], post: [/run/note.sh], timeout: 10m}
  - {name: rg_move_acquire, notify: /run/hang.sh, pre: [/run/note.sh], post: [/run/note.sh], timeout: 10m}
  - {name: acquire_service_addr, pre: [/run/note.sh], post: [/run/note.sh]}
  - {name: get_disk_vg_fs, pre: [/run/note.sh], post: [/run/note.sh]}
  - {name: start_server, pre: [/run/note.sh], post: [/run/note.sh]}
  - {name: rg_move_complete, post: [/run/note.sh]}
`

// Commands around events: a crash runs them on each node in PowerHA's order, with two notify commands that hang; hacmp.out says so;
// and a node whose lease runs out while a pre-command of its release hangs lets go all the same.
func TestEventCommands(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", more: eventCommands, share: map[string]string{"note.sh": noteScript, "hang.sh": hangScript}})
	install := func(n string) { // a program must lie where only root can write
		w.must(n, "install", "-m", "755", "/shared/note.sh", "/shared/hang.sh", "/run/")
	}
	for _, n := range w.nodes {
		install(n)
	}
	w.ask()
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	w.answersFrom("node2")
	w.onlineOn(group, "node2")
	w.ranInOrder("node2", "node_down pre node1", "node_down post node1", "rg_move_acquire pre node2 "+group, "acquire_service_addr pre node2 "+group+" app_svc",
		"acquire_service_addr post node2 "+group+" app_svc 0", "get_disk_vg_fs pre node2 "+group+" app_fs", "get_disk_vg_fs post node2 "+group+" app_fs 0",
		"start_server pre node2 "+group+" app", "start_server post node2 "+group+" app 0", "rg_move_acquire post node2 "+group+" 0",
		"rg_move_complete post node2 "+group+" 0")
	w.ranInOrder("node3", "node_down pre node1", "node_down post node1", "rg_move_complete post node2 "+group)
	w.ranInOrder("node2", "node_down hangs start")
	w.ranInOrder("node2", "rg_move_acquire hangs start")
	w.says("node2", "EVENT START: node_down node1", ":node_down[pre] pre of node_down", "EVENT COMPLETED: node_down node1 0", "EVENT START: rg_move_acquire node2 "+group,
		"EVENT COMPLETED: start_server node2 "+group+" app 0", "EVENT COMPLETED: rg_move_acquire node2 "+group+" 0", "Event: TE_RG_MOVE_ACQUIRE")
	w.timeline(since)
	t.Log(w.must("node2", "clmgr", "view", "log", "hacmp.out"))

	check(t, w.Boot(w.ctx(), "node1"))
	w.nodesAre(api.NodeNormal)
	install("node1")
	w.refused("node1", 2, []string{"node_donw", "did you mean"}, "add", "event", "node_donw", "NOTIFY=/run/note.sh")
	w.clmgr("node1", "add", "event", "rg_move_release", "PRECOMMAND=/run/hang.sh", "TIMEOUT=600")
	t.Log(w.clmgr("node1", "query", "event_command", "rg_move_release"))
	if r := w.run("node2", "timeout", "2", program("clmgr"), "move", "resource_group", group, "NODE=node1"); r.Code == 0 {
		t.Errorf("the move is over, and its pre-command hangs: %s", r.Stdout)
	}
	w.ranInOrder("node2", "rg_move_release hangs pre")
	w.answersFrom("node2")
	check(t, w.Cut(w.ctx(), "node2", "", lab.Both))
	w.await("another node serves", func() string {
		if st := w.view(); st == nil || len(servedOn(st)) != 1 || servedOn(st)[0] == "node2" {
			return "not yet"
		}
		return ""
	})
	w.says("node2", "EVENT START: rg_move_release node2 "+group, "the lease of this node runs out")
	check(t, w.Heal(w.ctx(), "node2"))
	w.nodesAre(api.NodeNormal)
	w.loserFirst()
}

// ranInOrder waits until the commands have written these records on the node, in this order; others may stand between.
func (w *world) ranInOrder(node string, want ...string) {
	w.t.Helper()
	w.await("the commands run on "+node, func() string {
		text, _ := os.ReadFile(w.SharedPath("commands.log"))
		at := 0
		for line := range strings.Lines(string(text)) {
			rest, ok := strings.CutPrefix(strings.TrimSpace(line), node+": ")
			if ok && at < len(want) && strings.HasPrefix(strings.Join(strings.Fields(rest), " "), want[at]) {
				at++
			}
		}
		if at < len(want) {
			return fmt.Sprintf("%q is missing, or out of order:\n%s", want[at], text)
		}
		return ""
	})
}

// says waits until hacmp.out of the node has these words, in this order.
func (w *world) says(node string, want ...string) {
	w.t.Helper()
	w.await("hacmp.out of "+node, func() string {
		text, err := os.ReadFile(w.NodePath(node, "log", "log/hacmp.out"))
		if err != nil {
			return err.Error()
		}
		rest := string(text)
		for _, word := range want {
			i := strings.Index(rest, word)
			if i < 0 {
				return fmt.Sprintf("%q is missing, or out of order:\n%s", word, text)
			}
			rest = rest[i+len(word):]
		}
		return ""
	})
}
