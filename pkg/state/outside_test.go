package state

import (
	"strings"
	"testing"
	"time"
)

// A4: what ran UNMANAGED is outside the lease until its node has said, knowing that it is managed again, that it holds it under an
// arming. Before that neither time nor the lack of an arming frees it: the node may have disarmed while it was UNMANAGED, and be cut
// off before it hears of the change.
func TestA4ManagedAgainIsOutsideTheLeaseUntilAdopted(t *testing.T) {
	begin := func(t *testing.T, disarm bool) *log {
		l := newLog(t, three())
		l.up("n1", "n2", "n3")
		l.online("a", "n1")
		l.ok(Command{UnmanageGroup: &UnmanageGroup{Group: "a"}})
		if disarm {
			l.ok(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: l.s.Nodes["n1"].Arming}})
		}
		l.ok(Command{ManageGroup: &ManageGroup{Group: "a"}})
		return l
	}
	dies := func(l *log) {
		p := &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}
		l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "silent"}})
		if armed := l.s.Nodes["n1"].Armed; armed != nil {
			p.Kind, p.Time = ProofTime, timeProof(*armed, time.Hour)
		}
		l.ok(Command{Proof: p})
	}
	for _, disarm := range []bool{true, false} {
		l := begin(t, disarm)
		dies(l)
		if i := l.s.Instance("a", "n1"); !i.Held {
			t.Errorf("disarmed %v: what may run without a lease was freed: %+v", disarm, i)
		}
		l.refused(l.acquire("a", "n2"))
		l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced}})
		if l.s.Instance("a", "n1").Held {
			t.Error("a fence frees it")
		}
		l.ok(l.acquire("a", "n2"))
	}

	// A report from before does not end it, one from after does.
	l := begin(t, false)
	r := l.report("a", "n1", OutcomeOnline)
	r.Report.Applied = l.s.Instance("a", "n1").Since - 1
	if why := l.refused(r); !strings.Contains(why, "managed again") {
		t.Errorf("refused because %q", why)
	}
	r.Report.Applied++
	l.ok(r)
	l.state("a", "n1", Online)
	dies(l)
	if l.s.Instance("a", "n1").Held {
		t.Error("under a lease again, and time does not free it")
	}
}
