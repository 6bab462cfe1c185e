package scenario

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
)

var rewrite = flag.Bool("rewrite", false, "write the stories anew; review the difference")

// stories are the scenarios that are told in full: every decision with its sentence, what explain says at the end, and the
// event history. The texts are in testdata/stories; a change of them is to be read as a change of what operators see.
var stories = []string{
	"chain-nobody-can-the-last-tried-shows-error",
	"different-nodes-cascade-of-displacements",
	"different-nodes-the-move-of-a-lower-is-refused",
	"different-nodes-a-suspended-group-is-not-displaced",
	"failover-bo-application-failure-is-error-there",
	"failover-fudnp-cpu",
	"failover-fudnp-least",
	"failover-no-node-left-is-offline",
	"fallback-at-weekly",
	"fallback-that-fails-returns-and-stays",
	"manual-start-acquires-nothing",
	"mark-a-young-mark-keeps-the-node-out",
	"mark-an-old-mark-is-taken-when-no-other-can",
	"network-loss-everywhere-moves-nothing",
	"network-error-for-lack-of-a-network-is-tried-again",
	"oaan-application-fails-on-one-node",
	"oaan-offline-on-one-node",
	"oaan-silent-node",
	"operator-move-under-fbhpn-stays",
	"operator-offline-and-online",
	"parent-child-failover-of-the-parent-restarts-the-child",
	"parent-child-offline-of-the-parent-is-refused",
	"parent-child-silent-parent-the-child-runs-on",
	"priority-the-higher-is-placed-first",
	"refused-move-of-a-group-on-a-silent-node",
	"release-failure-clear-tries-the-release-again",
	"release-failure-reset-moves-the-others-away-first",
	"same-node-a-failure-moves-all",
	"same-node-release-failure-pins-the-set",
	"same-node-the-most-important-decides",
	"settling-time-waits-for-a-better-node",
	"silent-node-is-unknown-and-nothing-starts",
	"start-after-waits-for-the-target",
	"startup-oudp-more-groups-than-nodes",
	"stop-after-node-stop-of-the-source-only",
	"stop-after-no-voluntary-move-at-that-price",
	"stop-offline-releases-and-leaves-offline",
	"suspend-requests-are-refused",
	"unmanaged-is-not-taken-over-when-its-node-dies",
	"unmanaged-whole-cluster",
	"weight-failover-takes-a-node-with-room",
	"chain-ends-with-online",
	"different-nodes-an-unmanaged-group-keeps-its-node",
	"different-nodes-fallback-to-a-free-node-only",
	"error-a-join-of-another-node-does-not-count",
	"failover-bo-stop-with-move-moves-it",
	"failover-fudnp-with-fbhpn-unset-priority",
	"fallback-at-the-operators-placement-outlives-the-timer",
	"mark-an-acquisition-failure-does-not-replace-it",
	"network-a-moved-group-does-not-go-to-a-marked-node",
	"oaan-node-stops",
	"oaan-release-fails-on-one-node",
	"operator-override-a-failed-acquisition-there-goes-on",
	"parent-child-concurrent-parent",
	"parent-child-three-levels",
	"parent-child-two-parents",
	"priority-of-a-child-lifts-its-parent",
	"refused-move-beyond-the-capacity",
	"refused-move-to-a-node-without-the-network",
	"release-failure-of-a-concurrent-group-tried-again",
	"release-failure-on-services-stop",
	"release-failure-the-second-try-keeps-the-stop-order",
	"same-node-move-refused-where-one-cannot-go",
	"same-node-one-cannot-be-acquired-the-set-goes-on",
	"same-node-silent-node-holds-all",
	"same-node-with-parent-and-child",
	"silent-node-that-boots-frees-its-groups",
	"start-after-a-silent-target",
	"startup-oudp-prefers-parents",
	"stop-after-operators-offline-is-refused",
	"suspend-the-timer-passes",
	"weight-starts-when-there-is-room",
	"release-failure-reset-of-a-node-with-a-concurrent-group",
	"release-failure-the-operators-online-starts-it-again",
	"same-node-a-member-that-waits-counts-for-a-move",
	"same-node-a-request-for-one-counts-for-all",
}

func TestStories(t *testing.T) {
	for _, name := range stories {
		t.Run(name, func(t *testing.T) {
			got := tell(t, filepath.Join(scenarios, name+".yaml"))
			file := filepath.Join("testdata", "stories", name+".txt")
			if *rewrite {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(read(t, file)); got != want {
				t.Errorf("the story has changed; if that is meant, run the test with -rewrite and review the difference\n%s", firstDifference(want, got))
			}
		})
	}
}

// tell plays a scenario and writes down all that an operator could see of it.
func tell(t *testing.T, file string) string {
	t.Helper()
	doc, err := config.DecodeScenario(filepath.Base(file), read(t, file))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(doc.Cluster, doc.Start)
	p := &parser{def: doc.Cluster}
	r := &Report{Name: doc.Name, OK: true}
	var b bytes.Buffer
	var explained bytes.Buffer
	for i, step := range doc.Steps {
		a, err := p.parse(step.Do)
		if err != nil {
			t.Fatal(err)
		}
		s := &StepReport{Step: i + 1, Do: step.Do}
		w.play(s, a)
		s.expect(step)
		r.add(s)
		explained.Reset() // only what it says at the end
		for _, g := range w.s.GroupNames() {
			e := scheduler.Explain(w.s, g, w.now)
			for _, sentence := range e.Sentences {
				fmt.Fprintf(&explained, "  %s: %s\n", g, sentence)
			}
			for _, n := range e.Nodes {
				fmt.Fprintf(&explained, "  %s on %s: can %v: %s\n", g, n.Node, n.Can, n.Reason)
			}
		}
	}
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\nexplain, at the end\n")
	b.Write(explained.Bytes())
	b.WriteString("\nnotes of the plan, at the end\n")
	for _, n := range scheduler.Plan(w.s, w.now).Notes {
		fmt.Fprintf(&b, "%s [%s] %s\n", n.Group, n.Node, n.Sentence)
	}
	b.WriteString("\nwhat would be refused now, or is so already\n")
	for _, do := range requests(doc.Cluster) {
		a, err := p.parse(do)
		if err != nil {
			t.Fatal(err)
		}
		st, index, s := w.s, w.index, &StepReport{}
		w.step = s
		a(w)
		switch {
		case s.Refused != "":
			fmt.Fprintf(&b, "%s: %s\n", do, s.Refused)
		case w.s == st:
			fmt.Fprintf(&b, "%s: already\n", do)
		}
		w.s, w.index = st, index
	}
	b.WriteString("\nhistory\n")
	for _, e := range w.s.Events(0) {
		fmt.Fprintf(&b, "%d %s %s [%s] [%s] %s\n", e.ID, e.At.Format("2006-01-02 15:04:05"), e.Name, e.Node, e.Group, e.Sentence)
	}
	return b.String()
}

// requests are all that the operator could ask of the cluster.
func requests(d *cluster.Definition) []string {
	out := []string{"online cluster", "offline cluster"}
	for _, n := range nodeNames(d) {
		out = append(out, "online "+n, "offline "+n, "offline "+n+" unmanage")
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		out = append(out, "online "+g.Name, "offline "+g.Name, "unset-priority "+g.Name, "suspend "+g.Name, "resume "+g.Name, "clear "+g.Name)
		for _, n := range nodeNames(d) {
			out = append(out, "move "+g.Name+" "+n, "online "+g.Name+" "+n, "offline "+g.Name+" "+n)
		}
	}
	return out
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwas: %s\nis:  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("it has %d lines, it had %d", len(g), len(w))
}
