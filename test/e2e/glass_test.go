//go:build linux

package e2e

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// halt stops the daemon and the deadman of a node as an administrator stops the two services, and keeps them from being started again.
func (w *world) halt(node string) {
	w.t.Helper()
	w.must(node, "sh", "-c", "touch /run/holdfast/hold.agent /run/holdfast/hold.deadman")
	for _, program := range []string{"clstrmgrd", "cldeadman"} {
		w.await(program+" of "+node+" ends", func() string {
			return w.must(node, "sh", "-c", `for p in /proc/[0-9]*; do
				[ "$(cat $p/comm 2>/dev/null)" = `+program+` ] && echo $p && kill -TERM ${p#/proc/}
			done; true`)
		})
	}
}

// resume starts them again.
func (w *world) resume(node string) {
	w.t.Helper()
	w.must(node, "rm", "-f", "/run/holdfast/hold.agent", "/run/holdfast/hold.deadman")
}

// A node whose cluster does not run starts the group by hand: not while the other node lives, not with another word than the one that
// is asked for, and then neither its own daemon nor the other node, when it is back, starts it beside. After the release the cluster
// takes over again.
func TestBreakGlass(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noAutoBoot: true})
	w.ask()
	w.place("node1")
	glass := func(action string, more ...string) []string {
		return append([]string{action, "resource_group", group, "--break-glass"}, more...)
	}
	word := "CONFIRM=" + group + " node2"
	w.refused("node1", 1, []string{"nothing was changed", "is running"}, glass("start", word)...)

	// The group goes to node2, and the cluster services of node1 are stopped.
	w.clmgr("node1", "stop", "node", "node1", "MANAGE=move")
	w.answersFrom("node2")
	w.halt("node1")
	w.refused("node1", 1, []string{"node node2 is alive", "answers at"}, glass("start", word)...)
	check(t, w.Cut(w.ctx(), "node1", "net1", lab.Both))
	w.refused("node1", 1, []string{"node node2 is alive", "repository volume"}, glass("start", word)...)
	check(t, w.Heal(w.ctx(), "node1"))
	w.answersFrom("node2")

	check(t, w.Crash(w.ctx(), "node2"))
	w.refused("node1", 1, []string{"no terminal", word[len("CONFIRM="):]}, glass("start")...)
	w.refused("node1", 1, []string{"does not name", "node2"}, glass("start", "CONFIRM="+group)...)
	w.refused("node1", 1, []string{"does not name", "node2"}, glass("start", "CONFIRM=node2 "+group)...)
	w.refused("node1", 1, []string{"not held here"}, glass("stop")...)
	r := w.run("node1", append([]string{"clmgr"}, glass("start", word)...)...)
	w.expect("the break-glass start", r, 0, "service_ip app_svc", "file_system app_fs", "application app", "nobody has written on it",
		"is started on node node1", "not checked: node node2 does not answer")
	t.Log(r.Stdout)
	w.answersFrom("node1")
	w.refused("node1", 1, []string{"already"}, glass("start", word)...)

	// The daemon of node1 does not start beside it, and says why.
	w.must("node1", "rm", "/run/holdfast/hold.agent")
	w.await("clstrmgrd of node1 refuses to start", func() string {
		out := w.must("node1", "sh", "-c", "tail -n 3 /var/log/holdfast/clstrmgrd.out")
		if !strings.Contains(out, "release first: clmgr stop resource_group "+group+" --break-glass") {
			return out
		}
		return ""
	})
	w.must("node1", "touch", "/run/holdfast/hold.agent")

	// node2 is back, and has a majority with the volume. It finds there who holds the group, and does not start it.
	check(t, w.Boot(w.ctx(), "node2"))
	w.await("node2 leads, and its group is free", func() string {
		if w.find(0, "rg_freed", "node2") == nil {
			return "not yet"
		}
		return ""
	})
	r = w.run("node2", "clmgr", "online", "resource_group", group, "NODE=node2", "TIMEOUT=20")
	w.expect("online while it is held by break-glass", r, 1)
	w.await("node2 refuses to start the group", func() string {
		for _, e := range w.events(0) {
			if strings.Contains(e.Sentence, "node node1 holds group "+group+" by a break-glass start") {
				t.Log(e.Sentence)
				return ""
			}
		}
		return "no event says so"
	})
	w.answersFrom("node1")

	r = w.run("node1", append([]string{"clmgr"}, glass("stop")...)...)
	w.expect("the break-glass stop", r, 0, "is released on node node1")
	t.Log(r.Stdout)
	order := []string{"application app: stopped", "file_system app_fs", "service_ip app_svc"}
	for i, at := 0, -1; i < len(order); i++ {
		next := strings.Index(r.Stdout, order[i])
		if next <= at {
			t.Errorf("%q is not released in its turn", order[i])
		}
		at = next
	}
	if out := w.must("node1", "ip", "-o", "addr"); strings.Contains(out, service+"/") {
		t.Errorf("the service address is still on node1:\n%s", out)
	}
	if out := w.must("node1", "cat", "/proc/mounts"); strings.Contains(out, " /app ") {
		t.Errorf("the file system is still mounted on node1:\n%s", out)
	}
	if out := w.must("node1", "cat", "/var/log/holdfast/adm/audit.log"); !strings.Contains(out, "break-glass start") || !strings.Contains(out, "declared dead: node2") {
		t.Errorf("the record of changes lacks the break-glass start:\n%s", out)
	}

	// The cluster takes over.
	since := w.lastEvent()
	w.resume("node1")
	w.happened(since, "node_boot", "node1")
	w.clmgr("node2", "start", "node", "node1")
	w.clmgr("node2", "clear", "resource_group", group)
	w.clmgr("node2", "online", "resource_group", group, "NODE=node1")
	w.answersFrom("node1")
}
