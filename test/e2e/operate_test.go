//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// What an administrator does to a cluster in a week, one thing after another in one cluster.
func TestOperatorCommands(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.ask()
	step := func(name string, f func(w *world)) {
		t.Helper()
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) { f(w.sub(t)) })
	}
	released := func(w *world) {
		w.t.Helper()
		w.await("nobody has the address", func() string {
			if h := w.holders(); h[len(h)-1].Event != "lost" {
				return h[len(h)-1].Node + " has it"
			}
			return ""
		})
	}
	step("move there and back", func(w *world) {
		w.clmgr("node2", "move", "resource_group", group, "NODE=node3")
		w.answersFrom("node3")
		w.clmgr("node3", "move", "resource_group", group, "NODE=node3") // already so: succeeds
		w.clmgr("node2", "move", "resource_group", group, "NODE=node1")
		w.answersFrom("node1")
		w.clmgr("node1", "unset", "priority", group)
		w.refused("node1", 2, []string{"node9"}, "move", "resource_group", group, "NODE=node9")
	})
	step("offline and online", func(w *world) {
		w.clmgr("node2", "offline", "resource_group", group)
		released(w)
		w.clmgr("node2", "online", "resource_group", group, "NODE=node2")
		w.answersFrom("node2")
	})
	step("suspend and resume", func(w *world) {
		w.clmgr("node1", "suspend", "resource_group", group)
		pid := w.appPID("node2")
		w.run("node2", "kill", "-9", pid)
		w.refused("node1", 1, nil, "move", "resource_group", group, "NODE=node1", "TIMEOUT=2")
		time.Sleep(2 * time.Second)
		if now := w.appPID("node2"); now != "" && now != pid {
			w.t.Errorf("a suspended group was touched: process %s, then %s", pid, now)
		}
		w.clmgr("node1", "resume", "resource_group", group)
		w.answersFrom(w.online(group))
	})
	step("stop a node and move", func(w *world) {
		on := w.online(group)
		w.clmgr(w.other(on), "stop", "node", on, "MANAGE=move")
		next := w.elsewhere(on)
		w.answersFrom(next)
		w.clmgr(next, "start", "node", on)
		w.whole()
		if now := w.online(group); now != next {
			w.t.Errorf("NFB: the group went from %s to %s", next, now)
		}
	})
	step("stop a node with its groups", func(w *world) {
		on := w.online(group)
		w.clmgr(w.other(on), "stop", "node", on, "MANAGE=offline")
		released(w)
		w.clmgr(w.other(on), "start", "node", on)
		w.whole()
		w.clmgr("node1", "online", "resource_group", group, "NODE="+on)
		w.answersFrom(on)
	})
	step("leave a node's groups running, and take them back", func(w *world) {
		on := w.online(group)
		pid := w.appPID(on)
		w.clmgr(w.other(on), "stop", "node", on, "MANAGE=unmanage")
		if out := w.must(w.other(on), "clRGinfo"); !strings.Contains(out, "UNMANAGED") {
			w.t.Errorf("clRGinfo:\n%s", out)
		}
		w.answersFrom(on)
		starts := w.lookAt(on).Agent.Starts
		check(w.t, w.Kill(w.ctx(), on, "agent")) // as an update does
		w.await("the daemon is back", func() string {
			if w.lookAt(on).Agent.Starts == starts || w.instance(on) == "" {
				return "not yet"
			}
			return ""
		})
		w.clmgr(w.other(on), "start", "node", on)
		w.whole()
		if now := w.online(group); now != on || w.appPID(on) != pid {
			w.t.Errorf("the group was on %s, process %s; now on %s, process %s", on, pid, now, w.appPID(on))
		}
	})
	step("stop the cluster in each way", func(w *world) {
		for _, mode := range []string{"graceful", "takeover"} {
			w.clmgr("node2", "stop", "cluster", "-m", mode)
			released(w)
			w.clmgr("node2", "start", "cluster", "-o", "home")
			w.answersFrom("node1")
		}
		pid := w.appPID("node1")
		w.clmgr("node2", "stop", "cluster", "-m", "forced")
		w.clmgr("node2", "start", "cluster")
		w.whole()
		if now := w.online(group); now != "node1" || w.appPID("node1") != pid {
			w.t.Errorf("forced stop and start: process %s on node1, then %s on %s", pid, w.appPID(now), now)
		}
	})
	step("a definition that is applied again changes nothing", func(w *world) {
		text := w.must("node3", "clmgr", "export")
		r, err := w.RunInput(w.ctx(), "node3", text, "clmgr", "diff", "-f", "-")
		check(w.t, err)
		if r.Code != 0 || strings.Contains(r.Stdout, "resource_group") {
			w.t.Errorf("diff of the own export: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		pid := w.appPID("node1")
		r, err = w.RunInput(w.ctx(), "node3", text, "clmgr", "apply", "-f", "-")
		check(w.t, err)
		if r.Code != 0 || w.appPID("node1") != pid {
			w.t.Errorf("apply of the own export: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		w.refused("node1", 1, []string{group, "node1"}, "delete", "resource_group", group) // it runs
	})
	step("queries", func(w *world) {
		for _, c := range [][]string{{"clRGinfo"}, {"clRGinfo", "-v"}, {"clRGinfo", "-s"}, {"clRGinfo", "-p"}, {"clRGinfo", "-t"}, {"clRGinfo", "-m"},
			{"clstat", "-o"}, {"cltopinfo"}, {"clshowres"}, {"clshowsrv"}, {"clmgr", "query", "cluster"}, {"clmgr", "-o", "json", "query", "node"},
			{"clmgr", "query", "resource_group", "-v"}, {"clmgr", "explain", group}, {"clmgr", "query", "events"}, {"clmgr", "view", "log"}} {
			if r := w.run("node2", c...); r.Code != 0 || r.Stdout == "" {
				w.t.Errorf("%s: exit status %d\n%s%s", strings.Join(c, " "), r.Code, r.Stdout, r.Stderr)
			}
		}
	})
	w.whole()
	w.loserFirst()
	w.outages()
}

// A start script that fails on one node sends the group on; one that fails everywhere ends in ERROR, until the operator clears it.
func TestStartScriptFails(t *testing.T) {
	long(t)
	t.Parallel()
	const start = `for n in $(cat /shared/failing); do [ "$n" = "$(hostname)" ] && { echo "refused on $n"; exit 1; }; done
exec /holdfast/bin/cllab app start --data /app/data --listen ` + target + "\n"
	w := begin(t, setup{start: []string{"/bin/sh", "/shared/start.sh"}, share: map[string]string{"start.sh": start, "failing": "node2\n"}})
	w.ask()
	since := w.lastEvent()
	r := w.run("node1", "clmgr", "move", "resource_group", group, "NODE=node2")
	w.expect("a move to where it cannot start", r, 1, "node2")
	if on := w.online(group); on == "node2" {
		t.Error("it is online where its start script fails")
	}
	w.happened(since, "rg_acquire_failed", "node2")
	w.must("node1", "sh", "-c", "echo node1 node2 node3 >/shared/failing")
	on := w.online(group)
	w.run("node1", "clmgr", "clear", "resource_group", group)
	r = w.run(on, "clmgr", "move", "resource_group", group, "NODE="+w.other(on))
	w.expect("a move when it starts nowhere", r, 1, "ERROR")
	w.await("the group is in ERROR", func() string {
		st := w.view()
		if st == nil || st.Cluster.State != api.ClusterError {
			return "not yet"
		}
		return ""
	})
	if h := w.holders(); h[len(h)-1].Event != "lost" {
		t.Error("a group in ERROR after a failed start holds its address")
	}
	w.must("node1", "sh", "-c", "echo >/shared/failing")
	w.clmgr("node1", "clear", "resource_group", group)
	w.answersFrom(w.online(group))
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// A stop script that fails: with error, nothing starts elsewhere and the operator must look; with reset, the node gives up its
// lease and is reset, and the group goes on elsewhere.
func TestStopScriptFails(t *testing.T) {
	long(t)
	t.Parallel()
	const stop = `[ -e /shared/broken ] && { echo "stop is broken"; exit 1; }
exec /holdfast/bin/cllab app stop --data /app/data --listen ` + target + "\n"
	common := setup{profile: "fast", stop: []string{"/bin/sh", "/shared/stop.sh"}, share: map[string]string{"stop.sh": stop}}
	t.Run("error", func(t *testing.T) {
		w := begin(t, common)
		w.ask()
		since := w.lastEvent()
		w.must("node1", "touch", "/shared/broken")
		r := w.run("node2", "clmgr", "move", "resource_group", group, "NODE=node2", "TIMEOUT=60")
		w.expect("a move from where it cannot stop", r, 1, "node1")
		w.await("ERROR on node1", func() string {
			if st := w.view(); st == nil || st.Group(group).On("node1").State != api.GroupError {
				return "not yet"
			}
			return ""
		})
		if e := w.find(since, "rg_move_acquire", ""); e != nil {
			t.Errorf("a group that was not released was acquired: %s", e.Sentence)
		}
		w.must("node1", "rm", "/shared/broken")
		w.clmgr("node1", "clear", "resource_group", group)
		w.answersFrom(w.online(group))
		w.timeline(since)
		w.loserFirst()
		w.outages()
	})
	t.Run("reset", func(t *testing.T) {
		common.rg = "on_release_failure: reset"
		w := begin(t, common)
		w.ask()
		since, boots := w.lastEvent(), w.boots("node1")
		w.must("node1", "touch", "/shared/broken")
		r := w.run("node2", "clmgr", "move", "resource_group", group, "NODE=node2")
		t.Logf("clmgr move: exit status %d: %s", r.Code, firstLines(r.Stderr+r.Stdout, 20))
		next := w.elsewhere("node1")
		w.answersFrom(next)
		w.reset("node1", boots)
		w.must("node2", "rm", "/shared/broken")
		w.whole()
		w.timeline(since)
		w.loserFirst()
		w.outages()
	})
}
