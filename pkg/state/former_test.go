package state

import "testing"

// The proof against an earlier boot may free the last thing that a node's services were waiting for with their stop.
func TestServicesStopWhenAnEarlierBootIsProvenGone(t *testing.T) {
	d := three()
	d.Nodes[0].PlatformRestart = true
	l := newLog(t, d)
	l.up("n1", "n2", "n3")
	l.online("a", "n1")
	l.boot("n1", "n1-boot2", 1, true) // proves nothing: the platform may run two copies
	if _, i := l.s.Groups["a"].Holder(); i == nil {
		t.Fatal("the group was freed by a boot that proves nothing")
	}
	l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n1"}, Stop: StopOffline}})
	if l.s.Nodes["n1"].Services != ServicesStopping {
		t.Fatalf("services are %s", l.s.Nodes["n1"].Services)
	}
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofOperator, Sentence: "switched off"}})
	if l.s.Nodes["n1"].Services != ServicesOff {
		t.Fatalf("services are %s after the last thing was freed", l.s.Nodes["n1"].Services)
	}
}
