package state

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// What starts on a node that is back, by the plan and by how its last boot ended.
func TestActionPlan(t *testing.T) {
	silent := func(l *log) { l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "silent"}}) }
	dead := func(kind ProofKind) func(*log) {
		return func(l *log) {
			silent(l)
			l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: kind, Sentence: "it is off"}})
		}
	}
	for name, tc := range map[string]struct {
		plan   string
		before func(*log)
		want   Services
		told   bool
	}{
		"a reboot that nobody missed": {cluster.ActionPlanNoServices, func(*log) {}, ServicesOn, false},
		"taken for dead":              {"", dead(ProofFenced), ServicesOn, false},
		"the plan is reboot":          {cluster.ActionPlanReboot, dead(ProofFenced), ServicesOn, false},
		"fenced, no services":         {cluster.ActionPlanNoServices, dead(ProofFenced), ServicesOff, true},
		"by the operator's word":      {cluster.ActionPlanNoServices, dead(ProofOperator), ServicesOff, true},
		"back before the proof":       {cluster.ActionPlanNoServices, silent, ServicesOff, true},
		"fenced, no groups":           {cluster.ActionPlanNoGroups, dead(ProofFenced), ServicesManual, true},
		"heard again, then a reboot": {cluster.ActionPlanNoServices, func(l *log) {
			silent(l)
			l.ok(Command{NodeFound: &NodeFound{Node: "n1", Incarnation: 1}})
		}, ServicesOn, false},
		"services were stopped": {cluster.ActionPlanNoGroups, func(l *log) {
			l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n1"}, Stop: StopOffline}})
			dead(ProofFenced)(l)
		}, ServicesOff, false},
	} {
		d := three()
		d.Settings.ActionPlan = tc.plan
		l := newLog(t, d)
		l.up("n1", "n2", "n3")
		tc.before(l)
		l.boot("n1", "n1-boot2", 1, true)
		told := false
		for _, e := range l.s.Events(0) {
			told = told || e.Name == EventActionPlan && e.Node == "n1"
		}
		if got := l.s.Nodes["n1"].Services; got != tc.want || told != tc.told {
			t.Errorf("%s: services are %s, told %v", name, got, told)
		}
	}
}
