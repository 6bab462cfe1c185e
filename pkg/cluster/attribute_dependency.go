package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Name is a dependency's name, which follows from what it says: parent/db_rg/child/app_rg, start/a/after/b, stop/a/after/b,
// same_node/a/b, different_nodes/p/q. Group names hold no slash, so a name is read in one way only.
func (x *Dependency) Name() string {
	switch {
	case x.Parent != "" || x.Child != "":
		return "parent/" + x.Parent + "/child/" + x.Child
	case x.Start != "":
		return "start/" + x.Start + "/after/" + x.After
	case x.Stop != "":
		return "stop/" + x.Stop + "/after/" + x.After
	case x.DifferentNodes != nil:
		return "different_nodes/" + strings.Join(x.DifferentNodes.All(), "/")
	}
	return "same_node/" + strings.Join(x.SameNode, "/")
}

// All lists the set's members, the highest tier first.
func (t *DifferentNodes) All() []string { return slices.Concat(t.High, t.Intermediate, t.Low) }

func dependencyClass() Class {
	find := func(d *Definition, name string) *Dependency {
		for i := range d.Dependencies {
			if d.Dependencies[i].Name() == name {
				return &d.Dependencies[i]
			}
		}
		return nil
	}
	c := Class{Name: "dependency", Aliases: []string{"de"}, Derived: true,
		Doc: "a relation between groups: PARENT= CHILD=; START= AFTER=; STOP= AFTER=; SAME=NODE GROUPS=; SEPARATE=NODE HIGH= INTERMEDIATE= LOW="}
	c.names = func(d *Definition) []string {
		var out []string
		for i := range d.Dependencies {
			out = append(out, d.Dependencies[i].Name())
		}
		return out
	}
	c.remove = func(d *Definition, name string) {
		d.Dependencies = slices.DeleteFunc(d.Dependencies, func(x Dependency) bool { return x.Name() == name })
	}
	c.addAll = func(d *Definition, set []Assignment) error { return addDependencies(&c, d, set) }
	tier := func(at func(*DifferentNodes) *[]string) func(x *Dependency) *[]string {
		return func(x *Dependency) *[]string {
			if x.DifferentNodes == nil {
				return new([]string)
			}
			return at(x.DifferentNodes)
		}
	}
	c.Attributes = append(c.Attributes, nameAttribute("NAME", "dependency"))
	for _, f := range []field[Dependency]{
		text(Attribute{Name: "PARENT", Kind: KindName, Refers: "resource_group", Doc: "CHILD is online only while this group is"}, func(x *Dependency) *string { return &x.Parent }),
		text(Attribute{Name: "CHILD", Kind: KindNames, Refers: "resource_group", Doc: "the group, or several, that need PARENT"}, func(x *Dependency) *string { return &x.Child }),
		text(Attribute{Name: "START", Kind: KindNames, Refers: "resource_group", Doc: "the group, or several, that start only when AFTER is online"}, func(x *Dependency) *string { return &x.Start }),
		text(Attribute{Name: "STOP", Kind: KindNames, Refers: "resource_group", Doc: "the group, or several, that stop only after AFTER is offline"}, func(x *Dependency) *string { return &x.Stop }),
		text(Attribute{Name: "AFTER", Kind: KindName, Refers: "resource_group", Doc: "the target of START or STOP"}, func(x *Dependency) *string { return &x.After }),
		{Attribute{Name: "SAME", Kind: KindEnum, Values: []string{"NODE"}, Doc: "GROUPS run on one node together"},
			func(_ *Definition, x *Dependency) string { return when(len(x.SameNode) > 0, "NODE") }, nil},
		names(Attribute{Name: "GROUPS", Refers: "resource_group", Doc: "the members of a SAME=NODE set"}, func(x *Dependency) *[]string { return &x.SameNode }),
		{Attribute{Name: "SEPARATE", Kind: KindEnum, Values: []string{"NODE"}, Doc: "no two of HIGH, INTERMEDIATE and LOW run on one node"},
			func(_ *Definition, x *Dependency) string { return when(x.DifferentNodes != nil, "NODE") }, nil},
		names(Attribute{Name: "HIGH", Refers: "resource_group", Doc: "may displace the two below"}, tier(func(t *DifferentNodes) *[]string { return &t.High })),
		names(Attribute{Name: "INTERMEDIATE", Refers: "resource_group", Doc: "may displace LOW"}, tier(func(t *DifferentNodes) *[]string { return &t.Intermediate })),
		names(Attribute{Name: "LOW", Refers: "resource_group", Doc: "displaces nobody"}, tier(func(t *DifferentNodes) *[]string { return &t.Low })),
	} {
		a := bind(f, find)
		if a.Name == "SAME" || a.Name == "SEPARATE" {
			a.set = func(_ *Definition, _, v string) error {
				if !strings.EqualFold(v, "NODE") {
					return fmt.Errorf("only NODE is possible")
				}
				return nil
			}
		}
		c.Attributes = append(c.Attributes, a)
	}
	return c
}

func when(yes bool, s string) string {
	if yes {
		return s
	}
	return ""
}

// addDependencies makes the dependencies that one add describes: PARENT with several CHILDren, and START or STOP with
// several groups, are several.
func addDependencies(class *Class, d *Definition, set []Assignment) error {
	v, err := dependencyValues(class, set)
	if err != nil {
		return err
	}
	groups := func(key string) []string { return SplitList(v[key]) }
	var made []Dependency
	form := ""
	for _, f := range []struct{ key, needs string }{{"PARENT", "CHILD"}, {"START", "AFTER"}, {"STOP", "AFTER"}, {"SAME", "GROUPS"}, {"SEPARATE", "HIGH"}} {
		if _, ok := v[f.key]; !ok {
			continue
		}
		if form != "" {
			return fmt.Errorf("add dependency: %s and %s cannot be given together: %w", form, f.key, ErrIncorrect)
		}
		form = f.key
		if len(groups(f.needs)) == 0 && f.key != "SEPARATE" {
			return fmt.Errorf("add dependency: %s= needs %s=: %w", f.key, f.needs, ErrMissing)
		}
	}
	switch form {
	case "":
		return fmt.Errorf("add dependency: one of PARENT=, START=, STOP=, SAME= or SEPARATE= is needed: %w", ErrMissing)
	case "PARENT":
		for _, child := range groups("CHILD") {
			made = append(made, Dependency{Parent: v["PARENT"], Child: child})
		}
	case "START":
		for _, g := range groups("START") {
			made = append(made, Dependency{Start: g, After: v["AFTER"]})
		}
	case "STOP":
		for _, g := range groups("STOP") {
			made = append(made, Dependency{Stop: g, After: v["AFTER"]})
		}
	case "SAME":
		made = append(made, Dependency{SameNode: groups("GROUPS")})
	case "SEPARATE":
		made = append(made, Dependency{DifferentNodes: &DifferentNodes{High: groups("HIGH"), Intermediate: groups("INTERMEDIATE"), Low: groups("LOW")}})
	}
	return appendDependencies(d, made)
}

// dependencyValues reads the assignments by canonical name, and checks what can be checked of each by itself.
func dependencyValues(class *Class, set []Assignment) (map[string]string, error) {
	var bad []error
	v := map[string]string{}
	for _, s := range set {
		a := class.Attribute(s.Attribute)
		switch {
		case a == nil:
			bad = append(bad, class.noAttribute(s.Attribute))
		case a.ReadOnly:
			bad = append(bad, fmt.Errorf("add dependency: %s cannot be set: %w", a.Name, ErrIncorrect))
		case v[a.Name] != "":
			bad = append(bad, fmt.Errorf("add dependency: %s is given twice: %w", a.Name, ErrIncorrect))
		case a.Kind == KindEnum && !strings.EqualFold(strings.TrimSpace(s.Value), "NODE"):
			bad = append(bad, fmt.Errorf("add dependency: %s=%s: only NODE is possible: %w", a.Name, s.Value, ErrIncorrect))
		default:
			v[a.Name] = strings.TrimSpace(s.Value)
		}
	}
	return v, errors.Join(bad...)
}

func appendDependencies(d *Definition, made []Dependency) error {
	var bad []error
	for i := range made {
		x := &made[i]
		if !x.whole() {
			bad = append(bad, fmt.Errorf("add dependency: at least two groups are needed: %w", ErrMissing))
			continue
		}
		for _, old := range d.Dependencies {
			if old.Name() == x.Name() {
				bad = append(bad, fmt.Errorf("add dependency %s: there is one already: %w", x.Name(), ErrExists))
			}
		}
		for _, g := range x.Groups() {
			if d.Group(g) == nil {
				bad = append(bad, fmt.Errorf("add dependency: no resource_group %q: %w", g, ErrNotFound))
			}
		}
		d.Dependencies = append(d.Dependencies, *x)
	}
	return errors.Join(bad...)
}

// Groups lists the groups that the dependency relates, in the order in which it names them.
func (x *Dependency) Groups() []string {
	var out []string
	for _, g := range []string{x.Parent, x.Child, x.Start, x.Stop, x.After} {
		if g != "" {
			out = append(out, g)
		}
	}
	out = append(out, x.SameNode...)
	if x.DifferentNodes != nil {
		out = append(out, x.DifferentNodes.All()...)
	}
	return out
}
