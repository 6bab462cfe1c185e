package state

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

type stager struct {
	t *testing.T
	s *State
	n uint64
}

func newStager(t *testing.T) *stager {
	d := &cluster.Definition{Name: "c", Nodes: []cluster.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}},
		ResourceGroups: []cluster.ResourceGroup{{Name: "g", Nodes: []string{"a", "b"}}}}
	d.Defaults()
	x := &stager{t: t, s: New()}
	x.do(&Command{Create: &Create{ClusterID: "u", Definition: d}}, "")
	return x
}

func (x *stager) do(c *Command, refused string) {
	x.t.Helper()
	x.n++
	c.At, c.By = time.Date(2026, 1, 1, 0, 0, int(x.n), 0, time.UTC), "root"
	b, err := c.Encode()
	if err != nil {
		x.t.Fatal(err)
	}
	back, err := DecodeCommand(b)
	if err != nil {
		x.t.Fatal(err)
	}
	before, _ := x.s.Encode()
	s, r := Apply(x.s, Entry{Index: x.n, Term: 1, Command: back})
	if refused == "" && r.Refused != "" || refused != "" && !strings.Contains(r.Refused, refused) {
		x.t.Fatalf("%s: refused %q, wanted %q", c.Kind(), r.Refused, refused)
	}
	if now, _ := x.s.Encode(); string(now) != string(before) {
		x.t.Fatal("Apply changed the old state")
	}
	x.s = s
	enc, err := s.Encode()
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := Decode(enc); err != nil {
		x.t.Fatalf("after %s: %v", c.Kind(), err)
	}
}

func (x *stager) changed(name string) *cluster.Definition {
	d := x.s.Definition.Clone()
	if x.s.Staged != nil {
		d = x.s.Staged.Definition.Clone()
	}
	d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: name, Nodes: []string{"b"}})
	d.Defaults()
	return d
}

// What is staged has no effect until one entry activates all of it.
func TestStageAndActivate(t *testing.T) {
	x := newStager(t)
	v := x.s.DefinitionVersion
	x.do(&Command{Stage: &Stage{Version: 0, Definition: x.changed("one")}}, "")
	x.do(&Command{Stage: &Stage{Version: 1, Definition: x.changed("two")}}, "")
	if x.s.DefinitionVersion != v || x.s.Definition.Group("one") != nil || x.s.Groups["one"] != nil {
		t.Fatal("staging had an effect")
	}
	if x.s.Staged.Since.Second() != 2 || x.s.Staged.Base != v {
		t.Errorf("the second change hides when the first was made: %+v", x.s.Staged)
	}
	x.do(&Command{Activate: &Activate{Version: 2}}, "")
	if x.s.DefinitionVersion != v+1 || x.s.Definition.Group("one") == nil || x.s.Groups["two"] == nil || x.s.Staged != nil {
		t.Fatal("not all of it is active")
	}
	x.do(&Command{Activate: &Activate{Version: 2}}, "nothing is staged")
}

// Two administrators: one wins, and the other is told.
func TestTwoStage(t *testing.T) {
	x := newStager(t)
	mine, yours := x.changed("mine"), x.changed("yours")
	x.do(&Command{Stage: &Stage{Version: 0, Definition: mine}}, "")
	x.do(&Command{Stage: &Stage{Version: 0, Definition: yours}}, "changed in the meantime")
	x.do(&Command{Activate: &Activate{Version: 0}}, "was verified, the newest is 1")
	x.do(&Command{SetDefinition: &SetDefinition{Base: x.s.DefinitionVersion, Definition: yours}}, "sync or undo them first")
	if x.s.Staged.Definition.Group("mine") == nil {
		t.Error("a refused change had an effect")
	}
}

func TestUndo(t *testing.T) {
	x := newStager(t)
	x.do(&Command{Stage: &Stage{}}, "nothing is staged")
	x.do(&Command{Stage: &Stage{Definition: x.changed("one")}}, "")
	x.do(&Command{Stage: &Stage{Version: 1}}, "")
	if x.s.Staged != nil {
		t.Fatal("it is still staged")
	}
	// The same number does not come twice: a late sync of what was undone finds another version.
	x.do(&Command{Stage: &Stage{Version: 2, Definition: x.changed("two")}}, "")
	x.do(&Command{Activate: &Activate{Version: 1}}, "the newest is 3")
	x.do(&Command{SetDefinition: &SetDefinition{Base: x.s.DefinitionVersion, Definition: x.s.Definition}}, "sync or undo")
}

// What a live change must not do a sync must not do either: a group that is held cannot be taken away by it.
func TestActivateKeepsWhatIsHeld(t *testing.T) {
	x := newStager(t)
	d := x.s.Definition.Clone()
	d.ResourceGroups = nil
	x.do(&Command{Stage: &Stage{Definition: d}}, "")
	s := *x.s
	g := *s.Groups["g"]
	g.Instances = map[string]*Instance{"a": {State: Online, Held: true, Generation: 1}}
	s.Groups = map[string]*Group{"g": &g}
	x.s = &s
	x.do(&Command{Activate: &Activate{Version: 1}}, "cannot be removed: it is held by node a")
	if x.s.Staged == nil {
		t.Error("the refused sync has dropped what was staged")
	}
}
