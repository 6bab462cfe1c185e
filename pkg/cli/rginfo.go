package cli

import (
	"context"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// rule is the line of dashes of clRGinfo.
var rule = strings.Repeat("-", 77)

// rginfo is clRGinfo. The forms are PowerHA's, character by character, because scripts read them.
func rginfo(_ context.Context, t *toolCall) error {
	groups, err := t.groups(t.args)
	if err != nil {
		return err
	}
	t.widths = widthsOf(groups)
	switch {
	case t.has('s'), t.has('c'):
		t.rgColon(groups)
	case t.has('p'):
		t.rgPriority(groups)
	case t.has('v'):
		t.rgVerbose(groups)
	case t.has('t'):
		t.rgTimers(groups)
	case t.has('m'):
		t.rgMonitors(groups)
	case t.has('a'):
		t.rgLocations(groups)
	default:
		t.rgTable(groups)
	}
	return nil
}

// A table's columns have PowerHA's widths, and are wider where something longer stands in them.
type widths struct{ name, state, node int }

func widthsOf(groups []*api.Group) widths {
	w := widths{15, 17, 16}
	for _, g := range groups {
		w.name = max(w.name, len(g.Name)+1)
		for i := range g.Instances {
			w.state = max(w.state, len(g.Instances[i].Text())+1)
			w.node = max(w.node, len(g.Instances[i].Node)+1)
		}
	}
	return w
}

func (t *toolCall) rgTable(groups []*api.Group) {
	t.line("%s", rule)
	t.line("%s%sNode", column("Group Name", t.widths.name), column("Group State", t.widths.state))
	t.line("%s", rule)
	for k, g := range groups {
		if k > 0 {
			t.line("")
		}
		t.instances(g, func(string) string { return "" })
	}
}

// instances prints the rows of one group: its name stands in the first only.
func (t *toolCall) instances(g *api.Group, last func(node string) string) {
	name := g.Name
	for i := range g.Instances {
		in := &g.Instances[i]
		t.line("%s%s%s%s", column(name, t.widths.name), column(in.Text(), t.widths.state), column(in.Node, t.widths.node), last(in.Node))
		name = ""
	}
	if len(g.Instances) == 0 {
		t.line("%s%s", column(name, t.widths.name), api.Unknown)
	}
}

func (t *toolCall) rgHead(g *api.Group, first bool) {
	if first {
		t.line("Cluster Name: %s", t.st.Cluster.Name)
	}
	t.line("")
	t.line("Resource Group Name: %s", g.Name)
}

func (t *toolCall) rgNodes(g *api.Group) {
	t.line("%sGroup State", column("Node", 29))
	t.line("%s %s", strings.Repeat("-", 28), strings.Repeat("-", 15))
	for i := range g.Instances {
		t.line("%s%s", column(g.Instances[i].Node, 29), g.Instances[i].Text())
	}
}

func (t *toolCall) rgVerbose(groups []*api.Group) {
	for k, g := range groups {
		t.rgHead(g, k == 0)
		t.line("Startup Policy: %s", cluster.PolicyWords(g.Startup))
		t.line("Fallover Policy: %s", cluster.PolicyWords(g.Fallover))
		t.line("Fallback Policy: %s", cluster.PolicyWords(g.Fallback))
		t.line("Site Policy: %s", sitePolicy(g))
		t.rgNodes(g)
	}
}

func sitePolicy(g *api.Group) string {
	if g.SitePolicy == "" {
		return "ignore"
	}
	return g.SitePolicy
}

func (t *toolCall) rgPriority(groups []*api.Group) {
	for k, g := range groups {
		t.rgHead(g, k == 0)
		if g.Override != nil {
			t.line("Primary instance(s):")
			t.line("The following node temporarily has the highest priority for this instance:")
			t.line("%s, user-requested rg_move performed on %s", g.Override.Node, t.stamp(g.Override.Time))
			t.line("")
		}
		t.rgNodes(g)
	}
}

func (t *toolCall) rgTimers(groups []*api.Group) {
	t.line("%s%s%sDelayed Timers", column("Group Name", t.widths.name), column("Group State", t.widths.state), column("Node", t.widths.node))
	t.line("%s", rule)
	for k, g := range groups {
		if k > 0 {
			t.line("")
		}
		t.instances(g, func(node string) string {
			// A timer belongs to the group: it stands where the group is, or, if it is nowhere, in its first row.
			on := g.OnlineOn()
			if len(on) > 0 && on[0] == node || len(on) == 0 && len(g.Instances) > 0 && g.Instances[0].Node == node {
				return t.timers(g)
			}
			return ""
		})
	}
}

func (t *toolCall) timers(g *api.Group) string {
	var out []string
	for _, x := range g.Timers {
		word := "Fallback Timer"
		if x.Kind == api.TimerSettling {
			word = "Settling Timer"
		}
		out = append(out, word+": "+t.stamp(x.At))
	}
	return strings.Join(out, ", ")
}

func (t *toolCall) rgMonitors(groups []*api.Group) {
	t.line("%s%s%sNode", column("Group Name", t.widths.name), column("Group State", t.widths.state), column("Application state", 23))
	t.line("%s", rule)
	for k, g := range groups {
		if k > 0 {
			t.line("")
		}
		for i := range g.Instances {
			in := &g.Instances[i]
			// As PowerHA, rows are those where the group is something; a group that is nowhere has its first row.
			if in.State == api.GroupOffline && !(i == 0 && allOffline(g)) {
				continue
			}
			t.line("%s%s%s%s", column(g.Name, t.widths.name), column(in.Text(), t.widths.state), column("", 23), in.Node)
			for _, a := range g.Applications {
				if a.Node == in.Node || a.Node == "" {
					t.line("%s%s", column(a.Name, t.widths.name+t.widths.state), a.State)
				}
			}
		}
	}
}

func allOffline(g *api.Group) bool {
	for i := range g.Instances {
		if g.Instances[i].State != api.GroupOffline {
			return false
		}
	}
	return true
}

// rgLocations is for scripts that run during an event.
func (t *toolCall) rgLocations(groups []*api.Group) {
	t.line("%s", rule)
	t.line("%s%s%sPre-event Node", column("Group Name", t.widths.name), column("Group State", t.widths.state), column("Node", t.widths.node))
	t.line("%s", rule)
	for k, g := range groups {
		if k > 0 {
			t.line("")
		}
		first := true
		t.instances(g, func(string) string {
			if !first {
				return ""
			}
			first = false
			return strings.Join(g.PreviousNodes, ",")
		})
	}
}

// rgColon is the form for programs: group, state, node, policies, site policy, and fields that only sites fill.
func (t *toolCall) rgColon(groups []*api.Group) {
	for _, g := range groups {
		for i := range g.Instances {
			in := &g.Instances[i]
			t.line("%s:%s:%s:%s:%s:%s:%s: : : : :", g.Name, in.Text(), in.Node, g.Startup, g.Fallover, g.Fallback, sitePolicy(g))
		}
	}
}
