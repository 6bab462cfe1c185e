//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A unit is a group whose application is nothing but a file, /run/NAME.up on the node where it runs.
type unit struct {
	name     string
	nodes    []string
	policies string // YAML in flow form
}

const unitScript = `case $1 in
start) echo "$(hostname) start $2" >>/shared/units.log; : >/run/$2.up ;;
stop) echo "$(hostname) stop $2" >>/shared/units.log; rm -f /run/$2.up ;;
esac
`

// answerScript is a dynamic node priority of the user's own: each node answers what stands beside its name.
const answerScript = `#!/bin/sh
while read -r node answer; do [ "$node" = "$(hostname)" ] && echo "$answer"; done </shared/answers
exit 0
`

// Policies at work in one cluster, one after another, each with what explain says of it: a settling time that runs out and one that
// the home node ends; a displacement and a dynamic node priority when a node dies; a delayed fallback that outlives its leader.
func TestPolicies(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: true, settings: "settling_time: 8s",
		share: map[string]string{"unit.sh": unitScript, "answer.sh": answerScript, "answers": "node1 9\nnode2 0\nnode3 5\n"},
		units: []unit{
			{"settle_rg", []string{"node3", "node1"}, "startup: OFAN, fallover: FNPN, fallback: NFB"},
			{"high_rg", []string{"node1", "node2"}, "startup: OHN, fallover: FNPN, fallback: NFB"},
			{"low_rg", []string{"node2", "node3"}, "startup: OHN, fallover: FNPN, fallback: NFB"},
			{"dnp_rg", []string{"node1", "node2", "node3"},
				"startup: OHN, fallover: FUDNP, fallback: NFB, node_priority_policy: least, node_priority_script: /run/answer.sh"},
			{"timer2_rg", []string{"node1", "node2", "node3"}, "startup: OHN, fallover: FNPN, fallback: FBHPN"},
			{"timer3_rg", []string{"node1", "node3", "node2"}, "startup: OHN, fallover: FNPN, fallback: FBHPN"},
		},
		more: "dependencies:\n  - {different_nodes: {high: [high_rg], low: [low_rg]}}\n"})
	w.ask()
	for _, n := range w.nodes { // a program must lie where only root can write
		w.must(n, "install", "-m", "755", "/shared/answer.sh", "/run/answer.sh")
	}
	since := w.lastEvent()
	step := func(name string, f func(w *world)) {
		t.Helper()
		if !t.Failed() {
			t.Run(name, func(t *testing.T) { f(w.sub(t)) })
		}
	}
	step("a settling time runs out", (*world).settlingRunsOut)
	step("the home node ends a settling time", (*world).settlingEnds)
	step("a node dies", (*world).displacementAndPriority)
	step("a delayed fallback outlives its leader", (*world).delayedFallback)
	w.whole()
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// explains waits until explain, asked on the node, says all these words of the group, and shows what it says.
func (w *world) explains(node, name string, words ...string) {
	w.t.Helper()
	out := ""
	w.await("explain "+name+" says "+strings.Join(words, ", "), func() string {
		r := w.run(node, "clmgr", "explain", name)
		if out = r.Stdout; r.Code != 0 {
			return fmt.Sprintf("exit status %d: %s", r.Code, r.Stderr)
		}
		for _, word := range words {
			if !strings.Contains(out, word) {
				return out
			}
		}
		return ""
	})
	w.t.Logf("clmgr explain %s\n%s", name, out)
}

// runs waits until the cluster says that the unit is online on the node, and looks whether its application is there and nowhere else.
func (w *world) runs(name, node string) {
	w.t.Helper()
	w.onlineOn(name, node)
	for _, n := range w.up() {
		if there := w.run(n, "test", "-e", "/run/"+name+".up").Code == 0; there != (n == node) {
			w.t.Errorf("%s is online on %s; its application runs on %s: %v", name, node, n, there)
		}
	}
}

// only starts cluster services anew, on these nodes alone.
func (w *world) only(nodes ...string) {
	w.t.Helper()
	w.clmgr("node1", "offline", "cluster")
	for _, n := range nodes {
		w.clmgr("node1", "online", "node", n)
	}
}

// acquired is the first event after since that says the group is to start on the node.
func (w *world) acquired(since uint64, name, node string) *api.Event {
	for _, e := range w.events(since) {
		if e.ID > since && e.Kind == "rg_move_acquire" && e.Group == name && e.Node == node {
			return &e
		}
	}
	return nil
}

// The home node does not come: the group waits, says so, and starts on the other node when the time is over, not before.
func (w *world) settlingRunsOut() {
	w.only()
	since := w.lastEvent()
	began := time.Now()
	w.clmgr("node1", "online", "node", "node1")
	w.explains("node2", "settle_rg", "the settling time runs until")
	w.runs("settle_rg", "node1")
	e := w.acquired(since, "settle_rg", "node1")
	if e == nil {
		w.t.Fatal("the history has no acquisition of settle_rg on node1")
	}
	if e.Time.Sub(began) < 8*time.Second {
		w.t.Errorf("it started %v after node1, before the settling time was over", e.Time.Sub(began))
	}
	w.explains("node2", "settle_rg", "settle_rg is ONLINE on node1: node1 is the first available node")
}

// The home node comes: it starts there at once, whatever is left of the settling time.
func (w *world) settlingEnds() {
	w.clmgr("node1", "modify", "cluster", "RG_SETTLING_TIME=3600")
	w.only("node1")
	w.explains("node2", "settle_rg", "the settling time runs until", "OFFLINE")
	w.clmgr("node1", "online", "node", "node3")
	w.runs("settle_rg", "node3")
	w.explains("node2", "settle_rg", "settle_rg is ONLINE on node3: node3 is the first available node")
	w.clmgr("node1", "online", "node", "node2")
	w.whole()
}

// node1 dies with the group of the high tier: it takes node2 from the one of the low tier, which goes to node3. The group with a
// dynamic node priority passes node2 by, whose script answers zero.
func (w *world) displacementAndPriority() {
	w.runs("high_rg", "node1")
	w.runs("low_rg", "node2")
	w.runs("dnp_rg", "node1")
	w.explains("node3", "dnp_rg", "would move it to node3", "its script answers 5")
	check(w.t, w.Crash(w.ctx(), "node1"))
	w.runs("high_rg", "node2")
	w.runs("low_rg", "node3")
	w.runs("dnp_rg", "node3")
	w.runs("timer2_rg", "node2")
	w.runs("timer3_rg", "node3")
	w.explains("node2", "high_rg", "high_rg is ONLINE on node2", "node1 is dead: proof fenced")
	w.explains("node2", "low_rg", "low_rg is ONLINE on node3", "high_rg takes node2 and comes before it in their different-nodes set")
	w.explains("node2", "dnp_rg", "dnp_rg is ONLINE on node3", "best by dynamic node priority", "its script answers 5")
	check(w.t, w.Boot(w.ctx(), "node1"))
	w.whole() // fallback would be possible now: FBHPN moves back, NFB stays
	w.runs("timer2_rg", "node1")
	w.runs("timer3_rg", "node1")
	w.runs("high_rg", "node2")
	w.runs("dnp_rg", "node3")
}

// Two groups away from home wait for a timer; the leader dies before it fires. The group that was not on the leader waits on, and
// falls back when the timer fires: not before, and although nobody who heard of the timer's beginning leads any more.
func (w *world) delayedFallback() {
	far := time.Now().UTC().Add(12 * time.Hour)
	w.clmgr("node2", "add", "fallback_timer", "soon", "REPEATS=daily", fmt.Sprintf("HOUR=%d", far.Hour()), "MINUTE=0")
	for _, g := range []string{"timer2_rg", "timer3_rg"} {
		w.clmgr("node2", "modify", "resource_group", g, "FALLBACK_AT=soon")
	}
	check(w.t, w.Crash(w.ctx(), "node1"))
	w.runs("timer2_rg", "node2")
	w.runs("timer3_rg", "node3")
	check(w.t, w.Boot(w.ctx(), "node1"))
	w.whole()
	fires := time.Now().UTC().Add(100 * time.Second).Truncate(time.Minute)
	w.clmgr("node2", "modify", "fallback_timer", "soon", fmt.Sprintf("HOUR=%d", fires.Hour()), fmt.Sprintf("MINUTE=%d", fires.Minute()))
	leader := w.leader()
	waits, from := "timer2_rg", "node2"
	if leader == from {
		waits, from = "timer3_rg", "node3"
	}
	w.explains(from, waits, waits+" is ONLINE on "+from, "soon fires at "+fires.Format(time.RFC3339))
	since := w.lastEvent()
	check(w.t, w.Crash(w.ctx(), leader))
	w.await("another node leads", func() string {
		if st := w.view(); st == nil || st.Cluster.Leader == leader {
			return "not yet"
		}
		return ""
	})
	w.t.Logf("%s led and died, %s leads; %v are left until the timer fires", leader, w.leader(), time.Until(fires).Round(time.Second))
	check(w.t, w.Boot(w.ctx(), leader))
	lacks := w.waitFor(time.Until(fires)+patience, func() string {
		st := w.view()
		if st == nil {
			return "no node knows a leader"
		}
		if g := st.Group(waits); len(g.OnlineOn()) != 1 || g.OnlineOn()[0] != "node1" {
			return groupStates(st)
		}
		return ""
	})
	if lacks != "" {
		w.t.Fatalf("%s does not fall back to node1: %s", waits, lacks)
	}
	w.runs(waits, "node1")
	e := w.acquired(since, waits, "node1")
	switch {
	case e == nil:
		w.t.Fatalf("the history has no acquisition of %s on node1", waits)
	case e.Time.Before(fires):
		w.t.Errorf("%s fell back at %s, before %s", waits, e.Time.UTC().Format(time.RFC3339Nano), fires.Format(time.RFC3339))
	}
	w.explains("node2", waits, waits+" is ONLINE on node1")
}
