package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// maxParentLevels is how many groups a chain of parents and children may have.
const maxParentLevels = 3

// dependencies checks the relations between groups: each is whole, none contradicts another, and every order has a first.
func (v *validator) dependencies() {
	seen := map[string]int{}
	for i := range v.d.Dependencies {
		x, p := &v.d.Dependencies[i], fmt.Sprintf("dependencies[%d]", i)
		if !v.form(p, x) {
			continue
		}
		if first, twice := seen[x.Name()]; twice {
			v.add(p, "each once", "this is said already, by dependencies[%d]", first)
			continue
		}
		seen[x.Name()] = i
		if len(x.SameNode) > 0 || x.DifferentNodes != nil {
			v.set(p, x)
		}
	}
	v.orders()
	v.oneRelation()
	v.sameNodeSets()
	v.differentNodesSets()
}

// form checks that exactly one of the five forms is given, and all of it.
func (v *validator) form(p string, x *Dependency) bool {
	const want = "{parent: a, child: b}, {start: a, after: b}, {stop: a, after: b}, {same_node: [a, b]} or {different_nodes: {high: [a], low: [b]}}"
	var forms []string
	for _, f := range []struct {
		name  string
		given bool
	}{{"parent/child", x.Parent != "" || x.Child != ""}, {"start/after", x.Start != ""}, {"stop/after", x.Stop != ""},
		{"same_node", x.SameNode != nil}, {"different_nodes", x.DifferentNodes != nil}} {
		if f.given {
			forms = append(forms, f.name)
		}
	}
	switch {
	case len(forms) == 0:
		v.add(p, want, "the dependency says nothing")
		return false
	case len(forms) > 1:
		v.add(p, "one dependency for each", "%s stand together", strings.Join(forms, " and "))
		return false
	case x.After != "" && x.Start == "" && x.Stop == "":
		v.add(p+".after", want, "after belongs to start or stop, not to %s", forms[0])
		return false
	case !x.whole():
		v.add(p, want, "at least two groups are needed for %s", forms[0])
		return false
	}
	if g := x.Groups(); x.SameNode == nil && x.DifferentNodes == nil && g[0] == g[1] {
		v.add(p, "two groups", "%s cannot depend on itself", x.Groups()[0])
		return false
	}
	return true
}

// set checks one same-node or different-nodes set by itself.
func (v *validator) set(p string, x *Dependency) {
	members := x.Groups()
	for i, name := range members {
		if slices.Contains(members[:i], name) {
			v.add(p, "each once", "%s is in the set twice", name)
		}
		if g := v.group(name); g != nil && g.Concurrent() {
			v.add(p, "groups that run on one node", "group %s is online on all nodes (OAAN) and can be in no such set", name)
		}
	}
	if len(x.SameNode) > 0 {
		v.commonNode(p, x.SameNode)
	}
}

// commonNode checks that the members of a same-node set have a node in common.
func (v *validator) commonNode(p string, members []string) {
	var common []string
	for i, name := range members {
		g := v.group(name)
		if g == nil {
			return
		}
		if i == 0 {
			common = slices.Clone(g.Nodes)
			continue
		}
		common = slices.DeleteFunc(common, func(n string) bool { return !g.Has(n) })
	}
	if len(common) == 0 {
		v.add(p+".same_node", "lists with a common node", "%s can run on no node together", strings.Join(members, ", "))
	}
}

func (v *validator) group(name string) *ResourceGroup {
	if i, ok := v.known["resource_group"][name]; ok {
		return &v.d.ResourceGroups[i]
	}
	return nil
}

// An edge says that one group waits for another, and which dependency says so.
type edge struct {
	to string
	by int
}

// orders checks that no start and no stop waits for itself, and that chains of parents stay within maxParentLevels.
func (v *validator) orders() {
	parents, start, stop := map[string][]edge{}, map[string][]edge{}, map[string][]edge{}
	wait := func(m map[string][]edge, who, forWhom string, by int) {
		if who != "" && forWhom != "" && who != forWhom {
			m[who] = append(m[who], edge{forWhom, by})
		}
	}
	for i, x := range v.d.Dependencies {
		wait(parents, x.Child, x.Parent, i)
		wait(start, x.Child, x.Parent, i)
		wait(start, x.Start, x.After, i)
		wait(stop, x.Parent, x.Child, i) // A parent stops only when its children have.
		wait(stop, x.Stop, x.After, i)
	}
	startCycle := v.cycle(start, "starts")
	v.cycle(stop, "stops")
	if startCycle {
		return
	}
	v.depth(parents)
}

// cycle reports the circles of a graph, each at the dependency that closes it, and whether there is one.
func (v *validator) cycle(graph map[string][]edge, verb string) bool {
	const (
		unseen = iota
		open
		done
	)
	state := map[string]int{}
	found := false
	for _, root := range sortedKeys(graph) {
		if state[root] != unseen {
			continue
		}
		// Depth first, with a stack of its own: a chain may be as long as the definition.
		path := []string{root}
		next := []int{0}
		state[root] = open
		for len(path) > 0 {
			at := path[len(path)-1]
			if next[len(next)-1] == len(graph[at]) {
				state[at] = done
				path, next = path[:len(path)-1], next[:len(next)-1]
				continue
			}
			e := graph[at][next[len(next)-1]]
			next[len(next)-1]++
			switch state[e.to] {
			case open:
				found = true
				circle := append(slices.Clone(path[slices.Index(path, e.to):]), e.to)
				v.add(fmt.Sprintf("dependencies[%d]", e.by), "take one of them out", "a circle: %s", sayCircle(circle, verb))
			case unseen:
				state[e.to] = open
				path, next = append(path, e.to), append(next, 0)
			}
		}
	}
	return found
}

// sayCircle writes "a starts after b, b starts after a"; of a long circle only the beginning.
func sayCircle(circle []string, verb string) string {
	var parts []string
	for i := 0; i+1 < len(circle); i++ {
		if i == 8 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, fmt.Sprintf("%s %s after %s", circle[i], verb, circle[i+1]))
	}
	return strings.Join(parts, ", ")
}

// depth checks the chains of parents. The graph has no circle.
func (v *validator) depth(parents map[string][]edge) {
	level := map[string]int{}
	// Levels settle in as many rounds as the longest chain has groups; one more than allowed is enough to know.
	for range maxParentLevels {
		for child, up := range parents {
			for _, e := range up {
				if l := levelOf(level, e.to) + 1; l > levelOf(level, child) && l <= maxParentLevels+1 {
					level[child] = l
				}
			}
		}
	}
	for i, x := range v.d.Dependencies {
		if x.Parent != "" && levelOf(level, x.Child) > maxParentLevels && levelOf(level, x.Parent) == maxParentLevels {
			v.add(fmt.Sprintf("dependencies[%d]", i), fmt.Sprintf("at most %d levels", maxParentLevels),
				"%s would be on the level %d below its furthest parent", x.Child, maxParentLevels+1)
		}
	}
}

func levelOf(level map[string]int, group string) int {
	if l, ok := level[group]; ok {
		return l
	}
	return 1
}

// oneRelation reports a pair that is parent and child, and also starts one after the other: the first already says the
// second, and in the other direction it contradicts it.
func (v *validator) oneRelation() {
	type pair struct{ a, b string }
	family := map[pair]int{}
	for i, x := range v.d.Dependencies {
		if x.Parent != "" && x.Child != "" {
			family[pair{x.Parent, x.Child}] = i
		}
	}
	for i, x := range v.d.Dependencies {
		if x.Start == "" || x.After == "" {
			continue
		}
		for _, p := range []pair{{x.Start, x.After}, {x.After, x.Start}} {
			if first, ok := family[p]; ok {
				v.add(fmt.Sprintf("dependencies[%d]", i), "one of the two", "%s and %s are parent and child already, by dependencies[%d]", x.Start, x.After, first)
			}
		}
	}
}

// tierOf names the list in which a group stands.
func (t *DifferentNodes) tierOf(group string) string {
	switch {
	case slices.Contains(t.High, group):
		return "high"
	case slices.Contains(t.Intermediate, group):
		return "intermediate"
	}
	return "low"
}

// sameNodeSets checks that no group is in two of them.
func (v *validator) sameNodeSets() {
	in := map[string]int{}
	for i, x := range v.d.Dependencies {
		for k, g := range x.SameNode {
			if first, twice := in[g]; twice && first != i {
				v.add(fmt.Sprintf("dependencies[%d].same_node[%d]", i, k), "one larger set", "group %s is in a same-node set already, by dependencies[%d]", g, first)
				continue
			}
			in[g] = i
		}
	}
}

// differentNodesSets checks that no group is in two of them, that no two members must also be together, and that groups which must be
// together have one tier: what displaces one of them would displace all.
func (v *validator) differentNodesSets() {
	together := map[string]int{}
	for i, x := range v.d.Dependencies {
		for _, g := range x.SameNode {
			together[g] = i
		}
	}
	in := map[string]int{}
	type place struct{ group, tier string }
	tiers := map[int]place{} // by same-node set: the first of its members that is in a different-nodes set
	for i, x := range v.d.Dependencies {
		if x.DifferentNodes == nil {
			continue
		}
		p := fmt.Sprintf("dependencies[%d].different_nodes", i)
		sets := map[int]string{}
		for _, g := range x.DifferentNodes.All() {
			if first, twice := in[g]; twice && first != i {
				v.add(p, "one larger set", "group %s is in a different-nodes set already, by dependencies[%d]", g, first)
				continue
			}
			in[g] = i
			s, ok := together[g]
			if !ok {
				continue
			}
			if other, both := sets[s]; both && other != g {
				v.add(p, "one of the two", "%s and %s must be on one node, by dependencies[%d], and cannot be on different nodes", other, g, s)
				continue
			}
			sets[s] = g
			tier := x.DifferentNodes.tierOf(g)
			if first, twice := tiers[s]; twice && first.tier != tier {
				v.add(p, "the same tier for both", "%s and %s must be on one node, by dependencies[%d], and %s is %s where %s is %s", first.group, g, s,
					g, tier, first.group, first.tier)
				continue
			}
			tiers[s] = place{g, tier}
		}
	}
}
