package scenario

import (
	"fmt"
	"sort"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// checker holds the promises against what the simulated machines really run. It knows the definition, and nothing of how the
// scheduler thinks.
type checker struct {
	def        *cluster.Definition
	concurrent map[string]bool
	parents    map[string][]string
	children   map[string][]string
	startAfter map[string][]string // source -> targets
	stopAfter  map[string][]string // source -> targets that must be offline before it stops
	apart      [][]string
	apartOf    map[string][]int // group -> its sets in apart
	together   [][]string
}

func newChecker(d *cluster.Definition) *checker {
	c := &checker{def: d, concurrent: map[string]bool{}, parents: map[string][]string{}, children: map[string][]string{},
		startAfter: map[string][]string{}, stopAfter: map[string][]string{},
		apartOf: map[string][]int{}}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		c.concurrent[g.Name] = g.Startup == cluster.OnlineOnAllAvailable
	}
	for _, dep := range d.Dependencies {
		switch {
		case dep.Parent != "":
			c.parents[dep.Child] = append(c.parents[dep.Child], dep.Parent)
			c.children[dep.Parent] = append(c.children[dep.Parent], dep.Child)
		case dep.Start != "":
			c.startAfter[dep.Start] = append(c.startAfter[dep.Start], dep.After)
		case dep.Stop != "":
			c.stopAfter[dep.Stop] = append(c.stopAfter[dep.Stop], dep.After)
		case dep.SameNode != nil:
			c.together = append(c.together, dep.SameNode)
		case dep.DifferentNodes != nil:
			t := dep.DifferentNodes
			set := append(append(append([]string(nil), t.High...), t.Intermediate...), t.Low...)
			for _, g := range set {
				c.apartOf[g] = append(c.apartOf[g], len(c.apart))
			}
			c.apart = append(c.apart, set)
		}
	}
	return c
}

// runsOn lists the machines that run the group, silent ones too, in the definition's order.
func (c *checker) runsOn(w *world, group string) []string {
	var out []string
	for i := range c.def.Nodes {
		name := c.def.Nodes[i].Name
		if _, ok := w.machines[name].running[group]; ok {
			out = append(out, name)
		}
	}
	return out
}

// exclusive: the group is not on two machines, and on none with another member of a different-nodes set of its.
func (c *checker) exclusive(w *world, group string) []string {
	var out []string
	on := c.runsOn(w, group)
	if len(on) > 1 && !c.concurrent[group] {
		out = append(out, fmt.Sprintf("PROMISE BROKEN: %s runs on %v", group, on))
	}
	for _, set := range c.apartOf[group] {
		for _, o := range c.apart[set] {
			for _, n := range on {
				if _, runs := w.machines[n].running[o]; runs && o != group {
					out = append(out, fmt.Sprintf("PROMISE BROKEN: %s and %s of a different-nodes set run on %s", group, o, n))
				}
			}
		}
	}
	return out
}

// serving reports whether the group is online somewhere that is not silent.
func (c *checker) serving(w *world, group string) bool {
	for _, n := range c.runsOn(w, group) {
		if s := w.s.Instance(group, n).State; !w.machines[n].silent && (s == state.Online || s == state.Unmanaged) {
			return true
		}
	}
	return false
}

// mayStart: what must hold before a start is even decided.
func (c *checker) mayStart(w *world, group, node string) []string {
	var out []string
	for _, n := range c.runsOn(w, group) {
		if !c.concurrent[group] {
			out = append(out, fmt.Sprintf("PROMISE BROKEN: %s is to start on %s without proof that %s does not run it", group, node, n))
		}
	}
	for _, p := range c.parents[group] {
		if !c.serving(w, p) {
			out = append(out, fmt.Sprintf("PROMISE BROKEN: %s is to start before its parent %s is online", group, p))
		}
	}
	for _, t := range c.startAfter[group] {
		if !c.serving(w, t) {
			out = append(out, fmt.Sprintf("PROMISE BROKEN: %s is to start before %s is online", group, t))
		}
	}
	return out
}

// mayStop: what must have stopped before.
func (c *checker) mayStop(w *world, group, node string) []string {
	if c.concurrent[group] && len(c.runsOn(w, group)) > 1 {
		return nil
	}
	var out []string
	for _, list := range [][]string{c.children[group], c.stopAfter[group]} {
		for _, o := range list {
			if c.touchable(w, o) {
				out = append(out, fmt.Sprintf("PROMISE BROKEN: %s stops on %s before %s has stopped", group, node, o))
			}
		}
	}
	return out
}

// touchable reports whether the group runs where the cluster can order it: not silent, not unmanaged, not suspended, and not in
// ERROR after a failed release.
func (c *checker) touchable(w *world, group string) bool {
	if w.s.Groups[group].Suspended {
		return false
	}
	for _, n := range c.runsOn(w, group) {
		s := w.s.Instance(group, n).State
		if !w.machines[n].silent && s != state.Unmanaged && s != state.Error {
			return true
		}
	}
	return false
}

// settled: what must hold when nothing more is planned.
func (c *checker) settled(w *world) []string {
	var out []string
	for i := range c.def.ResourceGroups {
		out = append(out, c.exclusive(w, c.def.ResourceGroups[i].Name)...)
	}
	if p := scheduler.Plan(w.s, w.now); len(p.Decisions) > 0 {
		d := p.Decisions[0]
		out = append(out, fmt.Sprintf("PROMISE BROKEN: the settled state still plans to %s %s on %s", d.Op, d.Group, d.Node))
	}
	for child, parents := range c.parents {
		for _, p := range parents {
			if c.touchable(w, child) && !c.serving(w, p) && !c.doubtful(w, p) {
				out = append(out, fmt.Sprintf("PROMISE BROKEN: %s is online and its parent %s is not", child, p))
			}
		}
	}
	for _, set := range c.together {
		at := ""
		for _, g := range set {
			for _, n := range c.runsOn(w, g) {
				if at != "" && at != n && c.touchable(w, g) {
					out = append(out, fmt.Sprintf("PROMISE BROKEN: the same-node set %v runs on %s and %s", set, at, n))
				}
				if c.touchable(w, g) {
					at = n
				}
			}
		}
	}
	for i := range c.def.ResourceGroups { // the log says what is so, for all machines that speak
		g := c.def.ResourceGroups[i].Name
		for _, n := range c.def.ResourceGroups[i].Nodes {
			shown := w.s.Shown(g, n).State
			_, runs := w.machines[n].running[g]
			if runs && (shown == state.Offline || shown == state.TempError) || !runs && shown == state.Online {
				out = append(out, fmt.Sprintf("PROMISE BROKEN: %s on %s is shown %s, and runs there: %v", g, n, shown, runs))
			}
		}
	}
	sort.Strings(out)
	return out
}

// doubtful reports whether the group may run on a silent machine.
func (c *checker) doubtful(w *world, group string) bool {
	for _, n := range c.runsOn(w, group) {
		if w.machines[n].silent {
			return true
		}
	}
	return false
}
