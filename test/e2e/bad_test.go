//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Bad input and faults: each gives a clear message with the place and the documented exit status, and changes nothing.

const wrongYAML = `name: e2e
nodes:
  - {name: node1, addresses: {net1: 10.77.1.1/24}}
  - {name: node2, addresses: {net1: 10.77.1.2/24}, colour: red}
networks:
  - {name: net1, prefix: 24}
service_ips:
  - {name: app_svc, address: 10.77.1.300, network: net9}
resource_groups:
  - {name: app_rg, nodes: [node1, node7], startup: SOMETIMES, service_ips: [app_svc]}
`

func TestBadCommands(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	version := w.view().Cluster.DefinitionVersion
	put := func(name, text string) string {
		check(t, os.WriteFile(w.SharedPath(name), []byte(text), 0o644))
		return "/shared/" + name
	}
	all := []string{":4:52: nodes[1].colour", ":8:30: service_ips[0].address", `no network "net9"`, `no node "node7"`, `"SOMETIMES" is unknown`, "5 faults; nothing was changed"}
	for _, c := range []struct {
		code  int
		words []string
		args  string
	}{
		{2, all, "apply -f " + put("wrong.yaml", wrongYAML)},
		{2, all, "verify cluster FILE=/shared/wrong.yaml"},
		{2, []string{":1:7", "1 fault; nothing was changed"}, "apply -f " + put("broken.yaml", "name: [unclosed\n")},
		{2, []string{"/shared/missing.yaml"}, "apply -f /shared/missing.yaml"},
		{2, []string{"COLOUR", "STARTUP"}, "modify resource_group app_rg COLOUR=red"},
		{4, []string{"STARTUP=NEVER", "OHN"}, "modify resource_group app_rg STARTUP=NEVER"},
		{2, []string{"node9", "nothing was changed"}, "add resource_group x_rg NODES=node1,node9"},
		{2, []string{`"nope_rg"`}, "move resource_group nope_rg NODE=node2"},
		{2, []string{`"node9"`}, "move resource_group app_rg NODE=node9"},
		{2, []string{"frobnicate", "query"}, "frobnicate cluster"},
		{2, []string{"gadget"}, "online gadget x"},
		{3, []string{"name"}, "add resource_group"},
		{5, []string{"app_svc", "in use"}, "delete network net1"},
		{2, []string{"10.99.9.9", "net1"}, "add service_ip other_svc ADDRESS=10.99.9.9 NETWORK=net1"},
		{6, []string{"conditions"}, "query resource_group STARTUP=OFAN"},
		{1, []string{"belongs to cluster"}, "add cluster other"},
		{1, []string{"app_rg", "node1"}, "delete resource_group app_rg"},
		{2, []string{"l_soft", "nothing was changed"}, "modify cluster L_SOFT=0.1"},
	} {
		w.refused("node2", c.code, c.words, strings.Fields(c.args)...)
	}
	if st := w.view(); st.Cluster.DefinitionVersion != version {
		t.Errorf("the definition was version %d, is %d", version, st.Cluster.DefinitionVersion)
	}
	if on := w.online(group); on != "node1" {
		t.Errorf("the group is on %s", on)
	}
}

// Founding and joining with what cannot be used.
func TestBadMembership(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{nodes: 4, bare: true, noWatch: true})
	two := "name: two\nnodes:\n  - {name: node1, addresses: {net1: 10.77.1.1/24}}\n  - {name: node2, addresses: {net1: 10.77.1.2/24}}\nnetworks: [net1]\n"
	three := strings.Replace(two, "networks:", "  - {name: node3, addresses: {net1: 10.77.1.3/24}}\nnetworks:", 1)
	check(t, os.WriteFile(w.SharedPath("two.yaml"), []byte(two), 0o644))
	check(t, os.WriteFile(w.SharedPath("three.yaml"), []byte(three), 0o644))
	for _, c := range [][]string{{"clRGinfo"}, {"clmgr", "query", "cluster"}, {"clmgr", "online", "cluster"}} {
		w.expect(strings.Join(c, " ")+" without a cluster", w.run("node1", c...), 5, "belongs to no cluster")
	}
	w.refused("node1", 1, []string{"two nodes", "repository volume", "three or more"}, "add", "cluster", "FILE=/shared/two.yaml")
	w.refused("node1", 5, []string{"belongs to no cluster"}, "query", "cluster") // nothing half done
	w.refused("node1", 2, []string{"/shared/none.yaml"}, "add", "cluster", "FILE=/shared/none.yaml")

	tokens := func(node, file string) map[string]string {
		var founded struct {
			Tokens []struct{ Node, Token string }
		}
		check(t, json.Unmarshal([]byte(w.clmgr(node, "-o", "json", "add", "cluster", "FILE="+file)), &founded))
		out := map[string]string{}
		for _, tok := range founded.Tokens {
			out[tok.Node] = tok.Token
		}
		return out
	}
	tok := tokens("node1", "/shared/three.yaml")
	w.refused("node2", 4, []string{"token"}, "join", "cluster", "TOKEN=garbage")
	w.refused("node2", 4, []string{"token"}, "join", "cluster", "TOKEN="+tok["node2"]+"x")
	w.refused("node3", 4, []string{"node2"}, "join", "cluster", "TOKEN="+tok["node2"]) // a name that another node has
	w.refused("node2", 3, nil, "join", "cluster")
	w.clmgr("node2", "join", "cluster", "TOKEN="+tok["node2"])
	w.refused("node2", 1, []string{"belongs to cluster"}, "join", "cluster", "TOKEN="+tok["node2"])

	// A used token: node3 takes the name of node2, with the token that node2 has used.
	r := w.run("node3", "clmgr", "join", "cluster", "TOKEN="+tok["node2"], "NODE=node2")
	if r.Code == 0 {
		t.Error("a used token was taken")
	}
	w.clmgr("node3", "join", "cluster", "TOKEN="+tok["node3"])
	w.refused("node1", 2, []string{"node9"}, "add", "token", "node9")
	w.clmgr("node1", "online", "cluster")
	w.whole()

	// A second cluster on the same wire, with a CA of its own: neither disturbs the other.
	own := "name: second\nnodes:\n  - {name: node4, addresses: {net1: 10.77.1.4/24}}\nnetworks: [net1]\n"
	check(t, os.WriteFile(w.SharedPath("second.yaml"), []byte(own), 0o644))
	w.clmgr("node4", "add", "cluster", "FILE=/shared/second.yaml")
	w.clmgr("node4", "online", "cluster")
	// Its token of the first cluster's CA, changed by hand to point at the second's node, is refused by the fingerprint.
	w.clmgr("node1", "add", "node", "node4", "ADDRESS=net1:10.77.1.4/24")
	var joins struct{ Token string }
	check(t, json.Unmarshal([]byte(w.clmgr("node1", "-o", "json", "add", "token", "node4")), &joins))
	r = w.run("node4", "clmgr", "join", "cluster", "TOKEN="+joins.Token)
	w.expect("join from another cluster", r, 1, "belongs to cluster second")
	w.clmgr("node4", "-f", "delete", "cluster", "second")
	r = w.run("node4", "clmgr", "join", "cluster", "TOKEN="+joins.Token, "ADDRESS=10.77.1.4:6191")
	if r.Code == 0 {
		t.Error("it joined by itself")
	}
	t.Logf("join through nobody: exit status %d: %s", r.Code, firstLines(r.Stderr, 3))
	w.clmgr("node4", "join", "cluster", "TOKEN="+joins.Token)
	for _, n := range []string{"node1", "node2", "node3", "node4"} {
		w.await(n+" is in the first cluster", func() string {
			if st, err := w.status(n); err != nil || st.Cluster.Name != "two" || len(st.Nodes) != 4 {
				return "not yet"
			}
			return ""
		})
	}
}

// Scripts that must not be run, each with its reason, and the group nowhere.
func TestBadScripts(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	for _, n := range w.nodes {
		w.must(n, "sh", "-c", "mkdir /s && cd /s && printf '#!/bin/sh\\nexit 0\\n' | tee plain >open && chmod 644 plain && chmod 777 open")
	}
	for _, c := range []struct{ script, word string }{
		{"/nowhere/start", "does not exist"},
		{"/s/plain", "not executable"},
		{"/s/open", "written by everybody"},
		{"/s", "not a regular file"},
		{"/shared/start", "sticky directory"},
	} {
		t.Run(filepath.Base(c.script), func(t *testing.T) {
			w := w.sub(t)
			w.run("node1", "clmgr", "clear", "resource_group", group)
			w.clmgr("node1", "offline", "resource_group", group)
			w.clmgr("node1", "modify", "application_controller", "app", "STARTSCRIPT="+c.script)
			since := w.lastEvent()
			r := w.run("node1", "clmgr", "online", "resource_group", group)
			w.expect("online with the start script "+c.script, r, 1, "ERROR")
			e := w.happened(since, "rg_acquire_failed", "node1")
			if !strings.Contains(e.Sentence, c.word) || !strings.Contains(e.Sentence, strings.TrimSuffix(filepath.Dir(c.script), "/")) {
				t.Errorf("the event says: %s", e.Sentence)
			}
			t.Logf("%s", e.Sentence)
			if h := w.holders(); h[len(h)-1].Event != "lost" {
				t.Error("the address was left behind")
			}
		})
	}
	w.clmgr("node1", "modify", "application_controller", "app", "STARTSCRIPT=/holdfast/bin/cllab")
	w.clmgr("node1", "clear", "resource_group", group)
	w.online(group)
}

// Somebody else has the service address: it is not taken, and the message names who answers for it.
func TestAddressInUse(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	w.clmgr("node1", "offline", "resource_group", group)
	w.must("client", "ip", "address", "add", service+"/24", "dev", "eth0")
	since := w.lastEvent()
	r := w.run("node1", "clmgr", "online", "resource_group", group)
	w.expect("online while the address is in use", r, 1, "is in use on the network")
	e := w.happened(since, "rg_acquire_failed", "")
	if !strings.Contains(e.Sentence, service) || !strings.Contains(e.Sentence, "02:68:66") {
		t.Errorf("the event says: %s", e.Sentence)
	}
	w.must("client", "ip", "address", "del", service+"/24", "dev", "eth0")
	w.clmgr("node1", "clear", "resource_group", group)
	w.online(group)
}

// A network in the definition that a node does not have: the group goes where it can.
func TestNetworkThatNoNodeHas(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	w.refused("node1", 2, []string{"net7"}, "add", "service_ip", "x_svc", "ADDRESS=10.99.1.1", "NETWORK=net7")
	w.clmgr("node1", "add", "network", "net2", "PREFIX=24")
	w.clmgr("node1", "add", "service_ip", "x_svc", "ADDRESS=10.99.1.1", "NETWORK=net2")
	r := w.run("node1", "clmgr", "add", "resource_group", "x_rg", "NODES=node1,node2", "STARTUP=OFAN", "SERVICE_LABEL=x_svc")
	t.Logf("a group on a network that no node has: exit status %d: %s", r.Code, firstLines(r.Stderr+r.Stdout, 10))
	st := w.view()
	if g := st.Group("x_rg"); g != nil && len(g.OnlineOn()) > 0 {
		t.Error("it is online")
	}
	if out := w.run("node1", "clmgr", "explain", "x_rg"); !strings.Contains(out.Stdout+out.Stderr, "net2") && r.Code == 0 {
		t.Errorf("explain does not name the network:\n%s", out.Stdout)
	}
	if on := w.online(group); on != "node1" {
		t.Errorf("the other group is on %s", on)
	}
}

// What a daemon meets at its start: it says so and ends with a status, and when the fault is gone it is back.
func TestBadMachine(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.ask()
	w.place("node1")
	const node = "node3"
	log := func() string { return tail(w.NodePath(node, "log", "clstrmgrd.out"), 3) }
	says := func(w *world, words ...string) {
		w.t.Helper()
		w.await("the daemon says what is wrong", func() string {
			for _, word := range words {
				if !strings.Contains(log(), word) {
					return "it says: " + log()
				}
			}
			return ""
		})
		w.t.Logf("it says: %s", tail(w.NodePath(node, "log", "clstrmgrd.out"), 1))
	}
	// One fault at a time: the node boots into it or gets it while it runs, says so, and is whole when it is mended. It is mended
	// whatever happened, so that one failed case does not fail those after it.
	fault := func(name string, break_, mend func(w *world), words ...string) {
		t.Run(name, func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			check(t, w.Crash(w.ctx(), node))
			w.nodesAre(api.NodeDead, node)
			check(t, os.RemoveAll(w.NodePath(node, "log", "clstrmgrd.out")))
			mended := false
			repair := func() {
				if !mended {
					mended = true
					mend(w)
				}
			}
			defer repair()
			break_(w)
			says(w, words...)
			if on := w.online(group); on != "node1" {
				t.Errorf("the group is on %s", on)
			}
			repair()
			w.whole()
		})
	}
	// running boots the node and waits until its daemon runs and takes part: a daemon that has just been forked may not have read
	// its files yet, or may not be there yet to be killed.
	running := func(w *world) {
		w.t.Helper()
		check(w.t, w.PowerOn(w.ctx(), node))
		w.whole()
	}
	// restart ends the daemon, which then is started again and again; one that the fault has ended already need not be killed.
	restart := func(w *world) {
		w.t.Helper()
		err := w.Kill(w.ctx(), node, "agent")
		if err != nil && !strings.Contains(err.Error(), "has no agent running") && !strings.Contains(err.Error(), "no process has the number") {
			w.t.Fatal(err)
		}
	}
	raft := w.NodePath(node, "lib", "raft/raft.db")
	var saved []byte
	fault("damaged store", func(w *world) {
		b, err := os.ReadFile(raft)
		check(w.t, err)
		saved = append([]byte(nil), b...)
		copy(b, strings.Repeat("damage!!", 1024)) // both meta pages
		check(w.t, os.WriteFile(raft, b, 0o600))
		check(w.t, w.PowerOn(w.ctx(), node))
	}, func(w *world) { writeInPlace(w, raft, saved) }, "raft.db")
	fault("truncated store", func(w *world) {
		b, err := os.ReadFile(raft)
		check(w.t, err)
		saved = b
		check(w.t, os.Truncate(raft, 4096))
		check(w.t, w.PowerOn(w.ctx(), node))
	}, func(w *world) { writeInPlace(w, raft, saved) }, "raft.db")
	nodeFile := w.NodePath(node, "etc", "node.yaml")
	colour := func(w *world) {
		running(w)
		b, err := os.ReadFile(nodeFile)
		check(w.t, err)
		saved = b
		check(w.t, os.WriteFile(nodeFile, append(slices.Clip(b), "colour: red\n"...), 0o644))
		restart(w)
	}
	uncolour := func(w *world) { check(w.t, os.WriteFile(nodeFile, saved, 0o644)) }
	fault("wrong node file", colour, uncolour, "node.yaml", "colour")
	fault("port in use", func(w *world) {
		colour(w) // a daemon that cannot start leaves its port to the thief
		says(w, "colour")
		w.must(node, "cllab", "app", "start", "--app", "thief", "--listen", ":6191", "--data", "/run/thief")
		uncolour(w)
	}, func(w *world) {
		w.must(node, "cllab", "app", "stop", "--app", "thief", "--listen", ":6191", "--data", "/run/thief")
	}, "6191", "in use")
	fault("state directory that cannot be written", func(w *world) {
		running(w)
		w.must(node, "mount", "-o", "bind,ro", "/var/lib/holdfast", "/var/lib/holdfast")
		restart(w)
	}, func(w *world) { w.must(node, "umount", "/var/lib/holdfast") }, "/var/lib/holdfast", "cannot be written")
	w.loserFirst()
	w.outages()
}

// writeInPlace puts a file's old content back without making another file of it, which the daemon would take for a copy. The
// content comes in one write over what is there: a daemon that is being started all the while never sees an empty file.
func writeInPlace(w *world, path string, content []byte) {
	w.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0o600)
	check(w.t, err)
	_, err = f.WriteAt(content, 0)
	check(w.t, errors.Join(err, f.Truncate(int64(len(content))), f.Close()))
}
