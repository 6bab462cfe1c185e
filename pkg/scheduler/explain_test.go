package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

func TestExplainSaysWhatItDoesNotKnow(t *testing.T) {
	if e := Explain(nil, "a", start); len(e.Sentences) != 1 || !strings.Contains(e.Sentences[0], "no cluster") {
		t.Fatalf("%+v", e)
	}
	w := newLocalWorld(t)
	if e := Explain(w.s, "zz", start); len(e.Sentences) != 1 || !strings.Contains(e.Sentences[0], "no group zz") {
		t.Fatalf("%+v", e)
	}
	if d := OfflineDueTo(nil, start); len(d) != 0 || d.Of(w.s, "a", "n1") != "" {
		t.Fatalf("%v", d)
	}
}

func TestPlanOfNothing(t *testing.T) {
	if p := Plan(nil, start); len(p.Decisions) != 0 {
		t.Fatalf("%+v", p)
	}
	if p := Plan(state.New(), start); len(p.Decisions) != 0 {
		t.Fatalf("%+v", p)
	}
	if a := Admit(nil, &state.Command{}, start); a.Refused == "" {
		t.Fatal("a request without a cluster was admitted")
	}
}

// TestNextIsWhenTheSameStateIsPlannedOtherwise: the leader sleeps until Next.
func TestNextIsWhenTheSameStateIsPlannedOtherwise(t *testing.T) {
	w := newLocalWorld(t)
	d := *w.s.Definition
	d.Settings.SettlingTime = 30 * time.Second
	w.do(state.Command{NodeServices: &state.NodeServices{Stop: state.StopOffline}})
	w.do(state.Command{SetDefinition: &state.SetDefinition{Base: w.s.DefinitionVersion, Definition: &d}})
	w.do(state.Command{NodeServices: &state.NodeServices{Nodes: []string{"n2"}, Start: state.StartAuto}})
	p := Plan(w.s, start)
	if !p.Next.Equal(start.Add(30*time.Second)) || len(p.Decisions) != 1 || p.Decisions[0].Group != "b" {
		t.Fatalf("%+v", p) // b is at home on n2, a waits for a better node
	}
	if p := Plan(w.s, start.Add(30*time.Second)); len(p.Decisions) != 2 || !p.Next.IsZero() {
		t.Fatalf("%+v", p)
	}
}
