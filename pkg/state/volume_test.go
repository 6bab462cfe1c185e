package state

import (
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// withVolumes is the example's definition with three formatted volumes.
func withVolumes() *cluster.Definition {
	d := three()
	for i, name := range []string{"one", "two", "tri"} {
		d.Repositories = append(d.Repositories, cluster.Repository{Name: name, Device: "/dev/" + name,
			UUID: "11111111-2222-4333-8444-55555555555" + string(rune('1'+i))})
	}
	return d
}

// A lost volume is replaced by a decision of the leader of the term, once, and what is staged follows, so that its sync does not put the
// lost one to use again. Nothing of groups and nodes changes by it.
func TestReplaceVolume(t *testing.T) {
	s, index := New(), uint64(0)
	do := func(c Command, want string) {
		t.Helper()
		index++
		next, r := Apply(s, Entry{Index: index, Term: 3, Command: &c})
		if (want == "") != (r.Refused == "") || !strings.Contains(r.Refused, want) {
			t.Fatalf("%s: refused %q, wanted %q", c.Kind(), r.Refused, want)
		}
		s = next
	}
	const one, two, tri = "11111111-2222-4333-8444-555555555551", "11111111-2222-4333-8444-555555555552", "11111111-2222-4333-8444-555555555553"
	replace := func(from, to string, term uint64) Command {
		return Command{Term: term, ReplaceVolume: &ReplaceVolume{From: from, To: to, Sentence: "it is lost"}}
	}
	do(replace(one, two, 3), "no cluster yet")
	do(Command{Create: &Create{ClusterID: "id", Definition: withVolumes()}}, "")
	staged := withVolumes()
	staged.Nodes[0].Site = "there"
	do(Command{Stage: &Stage{Definition: staged}}, "")
	do(replace(one, two, 2), "term 2")
	do(replace(two, tri, 3), "not the one in use")
	do(replace(one, "x", 3), "no backup repository")
	groups := s.Groups
	do(replace(one, two, 3), "")
	if got := s.Definition.Repository().Name; got != "two" || !s.Definition.Repositories[1].Lost || s.DefinitionVersion != 2 {
		t.Fatalf("%s is in use: %+v", got, s.Definition.Repositories)
	}
	for name, g := range groups {
		if !reflect.DeepEqual(s.Groups[name], g) {
			t.Errorf("group %s changed", name)
		}
	}
	var last Event
	for _, e := range s.Events(0) {
		last = e
	}
	if last.Name != EventRepositoryReplaced || last.Sentence != "it is lost" {
		t.Errorf("the history says %+v", last)
	}
	do(replace(one, two, 3), "not the one in use") // the same decision, by a leader that has not seen its first effect
	do(Command{Activate: &Activate{Version: 1}}, "the newest is 2")
	do(Command{Activate: &Activate{Version: 2}}, "")
	if got := s.Definition.Repository().Name; got != "two" || s.Definition.Nodes[0].Site != "there" {
		t.Fatalf("after the sync %s is in use", got)
	}
	off := s.Definition.Clone()
	off.Settings.NoRepositoryReplacement = true
	do(Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: off}}, "")
	do(replace(two, tri, 3), "REPOSITORY_AUTO_REPLACE is false")
	c := replace(two, tri, 3)
	if c.Needs() != 4 || s.needs() != 4 {
		t.Errorf("an older daemon is given what it does not understand: %d, %d", c.Needs(), s.needs())
	}
}
