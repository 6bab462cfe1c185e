package config

import (
	"maps"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Change is one difference between two definitions, in clmgr's words.
type Change struct {
	Op        string // add, delete or modify; for a list whose order changed, reorder
	Class     string
	Name      string
	Attribute string // empty for an object that is deleted
	Old, New  string // secrets are shown as ***
}

// String is one line: "resource_group app_rg: FALLBACK: NFB -> FBHPN".
func (c Change) String() string {
	s := c.Class + " " + c.Name
	switch {
	case c.Op == "add" && c.Attribute == "":
		return "add " + s
	case c.Op == "add":
		return "add " + s + ": " + c.Attribute + ": " + c.New
	case c.Op == "delete":
		return "delete " + s
	case c.Op == "reorder":
		return c.Class + " order: " + c.Old + " -> " + c.New
	}
	return s + ": " + c.Attribute + ": " + quoteEmpty(c.Old) + " -> " + quoteEmpty(c.New)
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// Diff lists what must be done to a to get b, class by class in the table's order: first what goes, then what changes, then
// what comes. Equal definitions give nothing, and different ones never do. A nil definition is an empty one.
func Diff(a, b *cluster.Definition) []Change {
	a, b = filled(a), filled(b)
	if a.Equal(b) {
		return nil
	}
	var out []Change
	for _, c := range cluster.Classes() {
		out = append(out, diffClass(&c, a, b)...)
	}
	if len(out) == 0 {
		out = append(out, Change{Op: "modify", Class: "cluster", Name: b.Name, Attribute: noAttribute, New: "the definitions differ in something that has no attribute"})
	}
	return out
}

// noAttribute stands for a difference that no attribute shows. There is none in valid definitions.
const noAttribute = "DEFINITION"

func filled(d *cluster.Definition) *cluster.Definition {
	if d == nil {
		return &cluster.Definition{}
	}
	c := d.Clone()
	c.Defaults()
	return c
}

func diffClass(c *cluster.Class, a, b *cluster.Definition) []Change {
	before, after := c.Names(a), c.Names(b)
	if c.Singleton && len(before) == 1 && len(after) == 1 {
		return modified(c, a, b, before[0], after[0])
	}
	var out []Change
	for _, n := range before {
		if !contains(after, n) {
			out = append(out, Change{Op: "delete", Class: c.Name, Name: n})
		}
	}
	var keptBefore, keptAfter []string
	for _, n := range before {
		if contains(after, n) {
			keptBefore = append(keptBefore, n)
			out = append(out, modified(c, a, b, n, n)...)
		}
	}
	for _, n := range after {
		if contains(before, n) {
			keptAfter = append(keptAfter, n)
			continue
		}
		out = append(out, added(c, b, n)...)
	}
	return append(out, reordered(c, keptBefore, keptAfter)...)
}

// modified compares two objects attribute by attribute.
func modified(c *cluster.Class, a, b *cluster.Definition, from, to string) []Change {
	var out []Change
	for _, at := range c.Attributes {
		if derived(c.Name, at.Name) {
			continue
		}
		was, _ := c.Get(a, from, at.Name)
		is, _ := c.Get(b, to, at.Name)
		if was == is {
			is += unseen(c.Name, at.Name, a, b, from)
		}
		if was != is {
			out = append(out, Change{Op: "modify", Class: c.Name, Name: from, Attribute: at.Name, Old: was, New: is})
		}
	}
	return out
}

// unseen says what changed although the value is shown as before: a secret, or a timing that is now set to what the profile
// says anyway. Empty: nothing.
func unseen(class, attribute string, a, b *cluster.Definition, name string) string {
	switch {
	case attribute == "PARAMS":
		if !maps.Equal(paramsOf(a, class, name), paramsOf(b, class, name)) {
			return " (another secret)"
		}
	case class == "cluster":
		_, was := a.Settings.Timings[strings.ToLower(attribute)]
		_, is := b.Settings.Timings[strings.ToLower(attribute)]
		switch {
		case is && !was:
			return " (set, whatever the profile says)"
		case was && !is:
			return " (the profile's)"
		}
	}
	return ""
}

func paramsOf(d *cluster.Definition, class, name string) map[string]string {
	if class == "application_controller" {
		if a := d.ApplicationController(name); a != nil {
			return a.Params
		}
	}
	for _, f := range d.FenceDevices {
		if class == "fence_device" && f.Name == name {
			return f.Params
		}
	}
	return nil
}

// added lists the attributes of a new object that are not the default.
func added(c *cluster.Class, d *cluster.Definition, name string) []Change {
	out := []Change{{Op: "add", Class: c.Name, Name: name}}
	for _, at := range c.Attributes {
		if at.ReadOnly || derived(c.Name, at.Name) {
			continue
		}
		if v, _ := c.Get(d, name, at.Name); v != at.Default && v != "" {
			out = append(out, Change{Op: "add", Class: c.Name, Name: name, Attribute: at.Name, New: v})
		}
	}
	return out
}

// derived attributes only repeat others.
func derived(class, attribute string) bool {
	return class == "node" && attribute == "COMMPATH" || class == "application_monitor" && attribute == "APPLICATIONS" || class == "cluster" && attribute == "NODES"
}

func reordered(c *cluster.Class, before, after []string) []Change {
	for i := range before {
		if before[i] != after[i] {
			return []Change{{Op: "reorder", Class: c.Name, Old: joinNames(before), New: joinNames(after)}}
		}
	}
	return nil
}

func joinNames(list []string) string {
	s := ""
	for i, n := range list {
		if i > 0 {
			s += ","
		}
		s += n
	}
	return s
}
