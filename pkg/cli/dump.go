package cli

import (
	"context"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// clinfoState and clinfoSubstate are the cluster's state in the words of clinfo.
func clinfoState(c *api.Cluster) string {
	switch {
	case c.Stale():
		return api.Unknown
	case c.State == api.ClusterOffline, c.State == api.ClusterNotConfigured:
		return api.Down
	}
	return api.Up
}

func clinfoSubstate(c *api.Cluster) string {
	if c.Stale() {
		return api.Unknown
	}
	return orUnknown(c.State)
}

// dump is cldump.
func dump(_ context.Context, t *toolCall) error {
	line := strings.Repeat("_", 77)
	t.line("Obtaining information from Node: %s...", t.st.Cluster.LocalNode)
	t.line("%s", line)
	t.line("Cluster Name: %s", t.st.Cluster.Name)
	t.line("Cluster State: %s", clinfoState(&t.st.Cluster))
	t.line("Cluster Substate: %s", clinfoSubstate(&t.st.Cluster))
	t.line("%s", line)
	for i := range t.st.Nodes {
		t.dumpNode(&t.st.Nodes[i])
	}
	groups, err := t.groups(nil)
	if err != nil {
		return err
	}
	t.rgVerbose(groups)
	return nil
}

func (t *toolCall) dumpNode(n *api.Node) {
	t.line("Node Name: %sState: %s", column(n.Name, 21), nodeUp(n))
	for _, w := range n.Networks {
		t.line("    Network Name: %sState: %s", column(w.Name, 22), w.State)
		for _, a := range n.Addresses {
			if a.Network == w.Name {
				t.line("        Address: %sLabel: %sState: %s", column(a.Address, 15), column(a.Label, 17), a.State)
			}
		}
	}
	t.line("")
}

// nodeUp is a node's state in the words of clinfo.
func nodeUp(n *api.Node) string {
	switch n.State {
	case api.NodeNormal, api.NodeUnmanaged:
		return api.Up
	case api.NodeJoining, api.NodeLeaving:
		return n.State
	case api.NodeOffline, api.NodeDead, api.NodeQuarantined:
		return api.Down
	}
	return api.Unknown
}

// disp is cldisp: the cluster as its applications see it.
func disp(ctx context.Context, t *toolCall) error {
	d, err := t.definitionOf(ctx)
	if err != nil {
		return err
	}
	t.line("Cluster: %s", d.Name)
	t.line("   Cluster services: %s", orUnknown(t.st.Cluster.State))
	t.line("")
	t.line("#############")
	t.line("APPLICATIONS")
	t.line("#############")
	for i := range d.ApplicationControllers {
		t.dispApplication(d, &d.ApplicationControllers[i])
	}
	return nil
}

func (t *toolCall) dispApplication(d *cluster.Definition, a *cluster.ApplicationController) {
	t.line("Cluster %s provides the following application: %s", d.Name, a.Name)
	t.line("   Application: %s {%s}", a.Name, strings.ToLower(appState(&t.st, a.Name)))
	if a.Agent != "" {
		t.line("      %s is started and stopped by the agent %s", a.Name, a.Agent)
	} else {
		t.line("      %s is started by %s", a.Name, strings.Join(append([]string{a.StartScript}, a.StartArgs...), " "))
		t.line("      %s is stopped by %s", a.Name, strings.Join(append([]string{a.StopScript}, a.StopArgs...), " "))
	}
	for _, m := range a.Monitors {
		if mon := d.ApplicationMonitor(m); mon != nil {
			t.line("      Application monitor of %s: %s (%s, %s); on failure: %s", a.Name, mon.Name, mon.Type, mon.Mode, mon.FailureAction)
		}
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		if !hasWord(g.Applications, a.Name) {
			continue
		}
		t.line("      This application is part of resource group '%s'.", g.Name)
		t.line("         Resource group policies:")
		t.line("            Startup: %s", strings.ToLower(cluster.PolicyWords(string(g.Startup))))
		t.line("            Fallover: %s", strings.ToLower(cluster.PolicyWords(string(g.Fallover))))
		t.line("            Fallback: %s", strings.ToLower(cluster.PolicyWords(string(g.Fallback))))
		t.line("         State of %s: %s", g.Name, groupIs(&t.st, g.Name, ""))
		t.line("         Nodes configured to provide %s: %s", a.Name, t.nodesWithState(g.Nodes))
		t.line("         Resources associated with %s:", g.Name)
		for _, n := range g.ServiceIPs {
			if s := d.ServiceIP(n); s != nil {
				t.line("            Service Label: %s (%s) on network %s", s.Name, s.Address, s.Network)
			}
		}
		for _, n := range g.VolumeGroups {
			t.line("            Volume Group: %s", n)
		}
		for _, n := range g.FileSystems {
			if f := d.FileSystem(n); f != nil {
				t.line("            Filesystem: %s (%s)", f.MountPoint, f.Device)
			}
		}
	}
	t.line("")
}

func (t *toolCall) nodesWithState(names []string) string {
	var out []string
	for _, n := range names {
		state := api.Unknown
		if x := t.st.Node(n); x != nil {
			state = nodeUp(x)
		}
		out = append(out, n+" {"+strings.ToLower(state)+"}")
	}
	return strings.Join(out, "  ")
}
