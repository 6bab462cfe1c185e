package state

import (
	"bytes"
	"slices"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// founded is a cluster of the nodes, and apply the next entry of its log, which must be taken.
func founded(t *testing.T, nodes ...string) (apply func(Command) *State) {
	t.Helper()
	d := &cluster.Definition{Name: "c"}
	for _, n := range nodes {
		d.Nodes = append(d.Nodes, cluster.Node{Name: n})
	}
	d.Defaults()
	s, index := New(), uint64(0)
	apply = func(c Command) *State {
		t.Helper()
		index++
		c.At = t0
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		next, r := Apply(s, Entry{Index: index, Term: 1, Command: back})
		if r.Refused != "" {
			t.Fatalf("entry %d: %s", index, r.Refused)
		}
		s = next
		return s
	}
	apply(Command{Create: &Create{ClusterID: "id", Definition: d}})
	return apply
}

// A floor rises by the node's own word, by its admission and by its removal, and never falls: what is void stays void.
func TestCertificateFloors(t *testing.T) {
	apply := founded(t, "a", "b", "c")
	s := apply(Command{SetMember: &SetMember{Node: "b", RaftID: "b-1", Cert: 2}})
	if s.CertFloor("a") != 0 || s.CertFloor("b") != 2 {
		t.Fatalf("after the join: %+v", s.Certs)
	}
	before := s
	s = apply(Command{RenewCerts: &RenewCerts{}}) // entry 3
	if s.CertWanted("a") != 3 || s.CertWanted("b") != 3 || s.CertFloor("b") != 2 {
		t.Fatalf("a renewal makes nothing void by itself: %+v", s.Certs)
	}
	if before.CertWanted("a") != 0 {
		t.Fatal("an older state was changed")
	}
	apply(Command{CertInUse: &CertInUse{Node: "b", Number: 3}})
	s = apply(Command{CertInUse: &CertInUse{Node: "b", Number: 2}}) // late
	if s.CertFloor("b") != 3 || s.CertWanted("b") != 0 || s.CertWanted("a") != 3 {
		t.Fatalf("after b has renewed: %+v", s.Certs)
	}
	less := s.Definition.Clone()
	less.Nodes = slices.DeleteFunc(less.Nodes, func(n cluster.Node) bool { return n.Name == "b" })
	all := s.Definition
	s = apply(Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: less}}) // 6
	s = apply(Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: all}})  // 7
	if f := s.CertFloor("b"); f != 6 {
		t.Fatalf("the name is a member's again, and certificates from %d on are good: the removed node's must not be", f)
	}
	s = apply(Command{SetMember: &SetMember{Node: "b", RaftID: "b-2", Cert: 8}})
	if s.CertFloor("b") != 8 {
		t.Fatalf("after the second join: %+v", s.Certs)
	}
	b, err := s.Encode()
	if err != nil || !bytes.HasPrefix(b, []byte(`{"format":4`)) {
		t.Fatalf("%v %.40s", err, b)
	}
	back, err := Decode(b)
	if err != nil || back.CertFloor("b") != 8 || back.CertWanted("a") != 3 {
		t.Fatalf("read again: %v %+v", err, back.Certs)
	}
}

// While no certificate was ever numbered there may be daemons that know nothing of this: a removal must write nothing that is new.
func TestRemovalBeforeAnyNumber(t *testing.T) {
	apply := founded(t, "a", "b", "c", "d")
	s := apply(Command{Noop: &Noop{}})
	less := s.Definition.Clone()
	less.Nodes = less.Nodes[:3]
	s = apply(Command{SetDefinition: &SetDefinition{Base: 1, Definition: less}})
	if s.Certs != nil || s.needs() != 1 {
		t.Fatalf("format %d: %+v", s.needs(), s.Certs)
	}
}

// The steps of a gossip key's rotation come in their order, and at no step does anybody send with a key that the step before did not
// give to all.
func TestGossipKeySteps(t *testing.T) {
	apply := founded(t, "a", "b", "c")
	s := apply(Command{Noop: &Noop{}})
	for range 3 {
		var seen [][]uint64
		seen = append(seen, s.GossipKeyNumbers())
		s = apply(Command{GossipKey: &GossipKey{Step: KeyAdd}})
		seen = append(seen, s.GossipKeyNumbers())
		for s.NextGossipStep() != nil {
			s = apply(Command{GossipKey: s.NextGossipStep()})
			seen = append(seen, s.GossipKeyNumbers())
		}
		if len(seen) != 4 || len(seen[3]) != 1 || seen[3][0] == seen[0][0] {
			t.Fatalf("the rotation went %v", seen)
		}
		for i := range seen[1:] {
			// One node may be a step behind: each understands what the other sends with.
			if !slices.Contains(seen[i], seen[i+1][0]) || !slices.Contains(seen[i+1], seen[i][0]) {
				t.Errorf("between %v and %v nodes do not understand each other", seen[i], seen[i+1])
			}
		}
	}
}
