//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// Free commands and file collections on four nodes, of which one is down and one refuses: the others are done, those two are named for
// what they are, and the exit status says that not all is well. No word that is typed reaches a shell.
func TestOperationsOnAllNodes(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{nodes: 4, noGroup: true, noAutoBoot: true})
	for i, n := range w.nodes {
		w.must(n, "sh", "-c", fmt.Sprintf(`mkdir -p /ha && printf '#!/bin/sh\necho "$HOLDFAST_NODE"\nfor w; do printf "[%%%%s]" "$w"; done\n' > /ha/words && chmod 755 /ha/words`+
			` && echo 'copy %d' > /ha/conf && chmod 640 /ha/conf`, i+1))
	}
	w.must("node3", "chmod", "777", "/ha") // whoever may write there would be root
	w.expect("off by default", w.run("node1", "clcmd", "touch", "/shared/ran"), 1, "free commands are off", "nothing was run")
	w.clmgr("node1", "modify", "cluster", "FREE_COMMANDS=yes")
	w.clmgr("node1", "add", "file_collection", "conf", "FILES=/ha/conf")
	w.refused("node1", 3, []string{"whose copy"}, "sync", "file_collection", "conf")

	t.Run("all well", func(t *testing.T) {
		out := w.must("node2", "clcmd", "-n", "node4,node1", "hostname")
		for _, block := range []string{"NODE node1\n-------------------------------\n", "NODE node4\n-------------------------------\n"} {
			if strings.Count(out, block) != 1 || strings.Contains(out, "node2") || strings.Contains(out, "node3") {
				t.Fatalf("clcmd printed\n%s", out)
			}
		}
	})
	check(t, w.Crash(w.ctx(), "node4"))
	t.Run("a command", func(t *testing.T) {
		r := w.run("node2", "clcmd", "/ha/words", "$(touch /shared/ran)", "; touch /shared/ran", "a  b", "-n", "'", "*")
		w.expect("clcmd", r, 1, "NODE node1", "NODE node2", "node3: refused", "can be written by everybody", "node4: unreachable", "not done on 2 of 4 nodes: node3, node4")
		words := "[$(touch /shared/ran)][; touch /shared/ran][a  b][-n]['][*]"
		for _, n := range []string{"node1", "node2"} {
			if !strings.Contains(r.Stdout, n+"\n"+words+"\n") {
				t.Errorf("the words did not arrive at %s as they were typed:\n%s", n, r.Stdout)
			}
		}
		if strings.Contains(r.Stdout, "NODE node3") || strings.Contains(r.Stdout, "NODE node4") {
			t.Errorf("a block for a node where nothing ran:\n%s", r.Stdout)
		}
		w.expect("a word that was run", w.run("node1", "test", "-e", "/shared/ran"), 1)
		w.expect("a status", w.run("node1", "cl_nodecmd", "-n", "node2", "sh", "-c", "echo out; exit 3"), 1, "out", "node2: failed: exit status 3")
		w.expect("too slow", w.run("node1", "clcmd", "-n", "node1", "-t", "1", "sleep", "60"), 1, "node1: failed", "timed out")
		w.expect("a view's user", w.run("node1", "setpriv", "--reuid", "1234", "--clear-groups", "clcmd", "id"), 1, "may not run free commands")
	})
	t.Run("its record", func(t *testing.T) {
		for node, want := range map[string]string{"node1": `"user":"root via node2","uid":0,"role":"admin","call":"operation on node node1","what":"free command /ha/words`,
			"node2": `"call":"POST /v1/remote","what":"free command /ha/words`, "node3": `"result":"refused","detail":"unsafe program`} {
			if audit := w.must(node, "cat", "/var/log/holdfast/adm/audit.log"); !strings.Contains(audit, want) {
				t.Errorf("the record of %s has no %q:\n%s", node, want, audit)
			}
		}
		if out := w.clmgr("node2", "view", "log", "cspoc.log"); !strings.Contains(out, "node3: rc=-1 refused FAIL") || !strings.Contains(out, "node1: rc=0 done") {
			t.Errorf("cspoc.log:\n%s", out)
		}
		w.await("the history says it", func() string {
			for _, e := range w.events(0) {
				if e.Kind == "cspoc" && e.Node == "node2" && strings.HasPrefix(e.Sentence, "free command /ha/words by root on 4 nodes: not done on node3 (refused)") {
					return ""
				}
			}
			return "it is not there"
		})
	})
	t.Run("an id", func(t *testing.T) {
		for range 3 {
			w.must("node1", "clcmd", "-n", "node1,node2", "-i", "0123456789abcdef", "sh", "-c", `echo x >> /ha/count`)
		}
		for _, n := range []string{"node1", "node2"} {
			if out := w.must(n, "cat", "/ha/count"); out != "x\n" {
				t.Errorf("on %s it ran more than once: %q", n, out)
			}
		}
		w.expect("another command under its id", w.run("node1", "clcmd", "-i", "0123456789abcdef", "date"), 1, "nothing was done")
	})
	t.Run("a collection", func(t *testing.T) {
		r := w.run("node2", "clmgr", "sync", "file_collection", "conf", "SOURCE=node1")
		w.expect("sync", r, 1, "node2        replaced  /ha/conf: other content", "node3        refused", "node4        failed    /ha/conf: the node cannot be reached",
			"not done on 2 of 4 nodes: node3, node4")
		if out := w.must("node2", "sh", "-c", "cat /ha/conf; stat -c %a /ha/conf"); out != "copy 1\n640\n" {
			t.Errorf("node2 has %q", out)
		}
		if out := w.must("node3", "cat", "/ha/conf"); out != "copy 3\n" {
			t.Errorf("node3, which refused, has %q", out)
		}
		w.must("node3", "chmod", "755", "/ha")
		w.clmgr("node3", "sync", "file_collection", "conf", "SOURCE=node1", "NODES=node2,node3")
		if out := w.must("node3", "cat", "/ha/conf"); out != "copy 1\n" {
			t.Errorf("node3 has %q", out)
		}
		var op api.RemoteOperation
		r = w.run("node3", "clmgr", "-o", "json", "verify", "file_collection", "conf", "SOURCE=node2")
		if err := json.Unmarshal([]byte(r.Stdout), &op); err != nil || r.Code != 1 || fmt.Sprint(op.Failed()) != "[node4]" {
			t.Errorf("verify: %d, %v, %s", r.Code, err, r.Stdout)
		}
		w.expect("the keys", w.run("node1", "clmgr", "add", "file_collection", "keys", "FILES="+"/var/lib/holdfast/identity/ca-key.pem"), 0)
		w.expect("the keys", w.run("node1", "clmgr", "sync", "file_collection", "keys", "SOURCE=node1", "NODES=node2"), 1, "the product's own")
		w.clmgr("node1", "delete", "file_collection", "keys")
	})
	t.Run("by itself", func(t *testing.T) {
		w.clmgr("node1", "modify", "cluster", "FC_SYNC_INTERVAL=10s")
		w.clmgr("node1", "modify", "file_collection", "conf", "SOURCE=node2", "SYNC_WHEN_CHANGED=yes")
		w.must("node2", "sh", "-c", "echo 'the newest' > /ha/conf")
		w.must("node3", "sh", "-c", "echo 'touched by hand' > /ha/conf")
		w.await("all copies are node2's again", func() string {
			for _, n := range []string{"node1", "node2", "node3"} {
				if out := w.must(n, "cat", "/ha/conf"); out != "the newest\n" {
					return n + " has " + out
				}
			}
			return ""
		})
	})
	t.Run("the leader's daemon dies", func(t *testing.T) {
		leader := w.leader()
		from := w.other(leader, "node4")
		instance := w.instance(leader)
		done := make(chan lab.Result, 1)
		go func() {
			r, err := w.Lab.Run(w.ctx(), from, "clcmd", "-n", "node1,node2,node3", "sh", "-c", "touch /ha/begun; sleep 3; echo over")
			if err != nil {
				r.Stderr += err.Error()
			}
			done <- r
		}()
		w.await("it has begun there", func() string {
			if w.run(leader, "test", "-e", "/ha/begun").Code != 0 {
				return "not yet"
			}
			return ""
		})
		check(t, w.Kill(w.ctx(), leader, "agent"))
		r := <-done
		w.expect("clcmd", r, 1, leader+": unknown: the daemon was restarted", "not done on 1 of 3 nodes: "+leader)
		if strings.Count(r.Stdout, "over\n") != 2 {
			t.Errorf("the two others:\n%s", r.Stdout)
		}
		w.await("a new daemon", func() string {
			if now := w.instance(leader); now == "" || now == instance {
				return "not yet"
			}
			return ""
		})
	})
}
