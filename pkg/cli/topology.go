package cli

import (
	"cmp"
	"context"
	"net/netip"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// topinfo is cltopinfo: what is defined, not what is up.
func topinfo(ctx context.Context, t *toolCall) error {
	d, err := t.definitionOf(ctx)
	if err != nil {
		return err
	}
	all := !t.has('c') && !t.has('i') && !t.has('n') && !t.has('m') && !t.has('w')
	if all || t.has('c') {
		t.topCluster(d)
	}
	if t.has('i') {
		t.interfaceTable(d)
	}
	if all || t.has('n') {
		for i := range d.Nodes {
			t.topNode(d, &d.Nodes[i])
		}
	}
	if t.has('w') {
		for i := range d.Networks {
			t.topNetwork(d, &d.Networks[i])
		}
	}
	if t.has('m') {
		t.line("Timing profile: %s", d.Settings.Profile)
	}
	if all {
		for i := range d.ResourceGroups {
			t.topGroup(&d.ResourceGroups[i])
		}
	}
	return nil
}

func (t *toolCall) topCluster(d *cluster.Definition) {
	t.line("Cluster Name:    %s", d.Name)
	t.line("Cluster Type:    Standard")
	t.line("Heartbeat Type:  Unicast")
	disk := "None"
	for i, r := range d.Repositories {
		if i == 0 {
			disk = r.Device + " (" + cmp.Or(r.UUID, "not formatted") + ")"
		}
	}
	t.line("Repository Disk: %s", disk)
	t.line("There are %d node(s) and %d network(s) defined", len(d.Nodes), len(d.Networks))
}

func (t *toolCall) topNode(d *cluster.Definition, n *cluster.Node) {
	t.line("NODE %s:", n.Name)
	for _, w := range d.Networks {
		own, ok := n.Addresses[w.Name]
		if !ok {
			continue
		}
		t.line("        Network %s", w.Name)
		for _, s := range d.ServiceIPs {
			if s.Network == w.Name {
				t.line("                %s%s", column(s.Name, 16), s.Address)
			}
		}
		for _, p := range d.PersistentIPs {
			if p.Network == w.Name && p.Node == n.Name {
				t.line("                %s%s", column(p.Name, 16), p.Address)
			}
		}
		address, _ := splitPrefix(own)
		t.line("                %s%s", column(t.bootLabel(n.Name, w.Name), 16), address)
	}
}

// bootLabel names a node's own address, which has no name in the definition, as the status does.
func (t *toolCall) bootLabel(node, network string) string {
	if n := t.st.Node(node); n != nil {
		for _, a := range n.Addresses {
			if a.Kind == api.AddressBoot && a.Network == network && a.Label != "" {
				return a.Label
			}
		}
	}
	return node + "_" + network
}

func splitPrefix(s string) (address string, bits int) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().String(), p.Bits()
	}
	return s, 0
}

func (t *toolCall) topNetwork(d *cluster.Definition, w *cluster.Network) {
	t.line("Network %s", w.Name)
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if own, ok := n.Addresses[w.Name]; ok {
			address, _ := splitPrefix(own)
			t.line("        NODE %s:", n.Name)
			t.line("                %s%s", column(t.bootLabel(n.Name, w.Name), 16), address)
		}
	}
}

func (t *toolCall) topGroup(g *cluster.ResourceGroup) {
	t.line("Resource Group %s", g.Name)
	t.line("        Startup Policy   %s", cluster.PolicyWords(string(g.Startup)))
	t.line("        Fallover Policy  %s", cluster.PolicyWords(string(g.Fallover)))
	t.line("        Fallback Policy  %s", cluster.PolicyWords(string(g.Fallback)))
	t.line("        Participating Nodes      %s", strings.Join(g.Nodes, " "))
	for _, s := range g.ServiceIPs {
		t.line("        Service IP Label                 %s", s)
	}
}

// interfaces is cllsif.
func interfaces(ctx context.Context, t *toolCall) error {
	d, err := t.definitionOf(ctx)
	if err != nil {
		return err
	}
	if node, ok := t.flags['n']; ok && d.Node(node) == nil {
		return fail(ExitNotFound, "there is no node %q", node)
	}
	t.interfaceTable(d)
	return nil
}

// interfaceColumns are cllsif's, with the widths of its table. What this cluster has not - hardware addresses, global names, aliases
// for heartbeats - stays empty.
var interfaceColumns = []struct {
	name  string
	width int
}{{"Adapter", 20}, {"Type", 11}, {"Network", 16}, {"Net Type", 9}, {"Attribute", 10}, {"Node", 12}, {"IP Address", 24}, {"Hardware Address", 17},
	{"Interface Name", 17}, {"Global Name", 12}, {"Netmask", 16}, {"Alias for HB", 13}, {"Prefix Length", 14}}

func (t *toolCall) interfaceTable(d *cluster.Definition) {
	heading := make([]string, 0, len(interfaceColumns))
	for _, c := range interfaceColumns {
		heading = append(heading, c.name)
	}
	colons := t.name == "cllsif" && t.has('c')
	switch {
	case colons && !t.has('S'):
		t.interfaceLine(append([]string{"#" + heading[0]}, heading[1:]...))
	case !colons:
		t.interfaceRow(heading)
	}
	t.eachInterface(d, func(c []string) {
		label, byLabel := t.flags['i']
		node, byNode := t.flags['n']
		if t.name == "cllsif" && (byLabel && c[0] != label || byNode && c[5] != node) {
			return
		}
		if colons {
			t.interfaceLine(c)
			return
		}
		t.interfaceRow(c)
	})
}

func (t *toolCall) interfaceRow(c []string) {
	var b strings.Builder
	for i, v := range c {
		b.WriteString(column(v, interfaceColumns[i].width))
	}
	t.line("%s", b.String())
}

func (t *toolCall) interfaceLine(c []string) {
	escape := strings.NewReplacer("\\", "\\\\", ":", "\\:")
	out := make([]string, 0, len(c))
	for _, v := range c {
		out = append(out, escape.Replace(v))
	}
	t.line("%s", strings.Join(out, ":"))
}

// eachInterface calls show with the columns of each address: of a node its own, then the services that may come there.
func (t *toolCall) eachInterface(d *cluster.Definition, show func([]string)) {
	for i := range d.Nodes {
		n := &d.Nodes[i]
		for _, w := range d.Networks {
			own, ok := n.Addresses[w.Name]
			if !ok {
				continue
			}
			attribute := "public"
			if w.Private {
				attribute = "private"
			}
			row := func(label, kind, address, iface string, bits int) {
				show([]string{label, kind, w.Name, "ether", attribute, n.Name, address, "", iface, "", netmask(address, bits), "", length(bits)})
			}
			address, bits := splitPrefix(own)
			row(t.bootLabel(n.Name, w.Name), "boot", address, t.interfaceOf(n.Name, w.Name), bits)
			for _, p := range d.PersistentIPs {
				if p.Network == w.Name && p.Node == n.Name {
					row(p.Name, "persistent", p.Address, "", firstNonZero(p.Prefix, w.Prefix, bits))
				}
			}
			for _, s := range d.ServiceIPs {
				if s.Network == w.Name {
					row(s.Name, "service", s.Address, s.Interface, firstNonZero(s.Prefix, w.Prefix, bits))
				}
			}
		}
	}
}

func firstNonZero(list ...int) int {
	for _, n := range list {
		if n != 0 {
			return n
		}
	}
	return 0
}

func length(bits int) string {
	if bits == 0 {
		return ""
	}
	return strconv.Itoa(bits)
}

func netmask(address string, bits int) string {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is4() || bits == 0 {
		return ""
	}
	p, err := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(bits)
	if err != nil {
		return ""
	}
	return p.Addr().String()
}

func (t *toolCall) interfaceOf(node, network string) string {
	if n := t.st.Node(node); n != nil {
		for _, w := range n.Networks {
			if w.Name == network {
				return w.Interface
			}
		}
	}
	return ""
}

// showres is clshowres: the resources of groups as they are defined.
func showres(ctx context.Context, t *toolCall) error {
	d, err := t.definitionOf(ctx)
	if err != nil {
		return err
	}
	node := t.flags['n']
	if node != "" && d.Node(node) == nil {
		return fail(ExitNotFound, "there is no node %q", node)
	}
	name := t.flags['g']
	if name != "" && d.Group(name) == nil {
		return fail(ExitNotFound, "there is no resource group %q%s", name, cluster.DidYouMean(name, groupNames(&t.st)))
	}
	first := true
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		if name != "" && g.Name != name || node != "" && !g.Has(node) {
			continue
		}
		if !first {
			t.line("")
		}
		first = false
		t.showGroup(d, g)
	}
	return nil
}

func (t *toolCall) showGroup(d *cluster.Definition, g *cluster.ResourceGroup) {
	row := func(label, value string) { t.line("%s%s", column(label, 52), value) }
	row("Resource Group Name", g.Name)
	row("Participating Node Name(s)", strings.Join(g.Nodes, " "))
	row("Startup Policy", cluster.PolicyWords(string(g.Startup)))
	row("Fallover Policy", cluster.PolicyWords(string(g.Fallover)))
	row("Fallback Policy", cluster.PolicyWords(string(g.Fallback)))
	row("Site Relationship", "ignore")
	row("Dynamic Node Priority", g.NodePriorityPolicy)
	row("Service IP Label", strings.Join(g.ServiceIPs, " "))
	row("Filesystems", strings.Join(mountPoints(d, g), " "))
	row("Filesystems Consistency Check", checks(d, g))
	row("Filesystems Recovery Method", cmp.Or(g.RecoveryMethod, cluster.RecoverInParallel))
	row("Volume Groups", strings.Join(g.VolumeGroups, " "))
	row("Use forced varyon for volume groups, if necessary", strconv.FormatBool(g.ForcedVaryon))
	row("Application Servers", strings.Join(g.Applications, " "))
	row("Delayed Fallback Timer", g.FallbackAt)
	row("Automatically Import Volume Groups", strconv.FormatBool(g.VGAutoImport))
	row("Filesystems mounted before IP configured", strconv.FormatBool(g.FSBeforeIP))
}

func mountPoints(d *cluster.Definition, g *cluster.ResourceGroup) []string {
	var out []string
	for _, n := range g.FileSystems {
		if f := d.FileSystem(n); f != nil {
			out = append(out, f.MountPoint)
		}
	}
	return out
}

func checks(d *cluster.Definition, g *cluster.ResourceGroup) string {
	for _, n := range g.FileSystems {
		if f := d.FileSystem(n); f != nil && f.Check != "" {
			return f.Check
		}
	}
	return "fsck"
}

// showsrv is clshowsrv: the services of each node.
func showsrv(_ context.Context, t *toolCall) error {
	if !t.has('v') {
		return t.subsystems()
	}
	if t.st.Cluster.State == api.ClusterNotConfigured {
		t.line("Local node: %q", t.st.Cluster.LocalNode)
		t.line("         Cluster services status:   \"OFFLINE\" (%q)", api.RawNotConfigured)
		return nil
	}
	var order []*api.Node
	if n := t.st.Node(t.st.Cluster.LocalNode); n != nil {
		order = append(order, n)
	}
	for i := range t.st.Nodes {
		if t.st.Nodes[i].Name != t.st.Cluster.LocalNode {
			order = append(order, &t.st.Nodes[i])
		}
	}
	for i, n := range order {
		word := "Remote"
		if n.Name == t.st.Cluster.LocalNode {
			word = "Local"
		}
		if i > 0 {
			t.line("")
		}
		t.line("%s node: %q (%q, %q)", word, n.Name, bootAddress(n), n.Name)
		t.line("         Cluster services status:   %q (%q)", orUnknown(n.State), orUnknown(n.RawState))
		t.line("         Remote communications:     %q", reachable(n))
		t.line("         Cluster-Aware AIX status:  %q", reachable(n))
	}
	return nil
}

func bootAddress(n *api.Node) string {
	for _, a := range n.Addresses {
		if a.Kind == api.AddressBoot {
			return a.Address
		}
	}
	return n.Name
}

// reachable says whether the node is heard. Silence is not yet a death, and so it is not DOWN.
func reachable(n *api.Node) string {
	switch n.State {
	case api.NodeDead:
		return api.Down
	case api.NodeSilent, api.NodeIsolated, "", api.Unknown:
		return api.Unknown
	}
	return api.Up
}

// subsystems is what clshowsrv says of the daemons here, in the form of lssrc. The subsystems that PowerHA has and Holdfast
// does inside its one daemon have its state.
func (t *toolCall) subsystems() error {
	known := []string{"clstrmgrES", "clinfoES", "clcomd"}
	want := known
	if len(t.args) > 0 && !t.has('a') {
		want = t.args
	}
	t.line("%s%s%sStatus", column("Subsystem", 18), column("Group", 17), column("PID", 13))
	for _, w := range want {
		if !hasWord(known, w) {
			return fail(ExitNotFound, "there is no subsystem %q; there are: %s", w, strings.Join(known, ", "))
		}
		t.line(" %s%s%sactive", column(w, 17), column("cluster", 17), column("", 13))
	}
	return nil
}
