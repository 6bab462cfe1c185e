package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// The tools of this file do what clmgr does, by their own words: they make its command line and run it. So roles, audit, waiting and
// refusals are the same.

// clmgr runs a command line of clmgr in place of the tool.
func (t *toolCall) clmgr(ctx context.Context, args ...string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	c.socket = t.socket
	s := *t.session
	s.command = c
	return s.run(ctx)
}

// rgmove is clRGmove.
func rgmove(ctx context.Context, t *toolCall) error {
	groups := cluster.SplitList(t.flags['g'])
	var what []string
	for _, f := range "mudr" {
		if t.has(f) {
			what = append(what, "-"+string(f))
		}
	}
	node := t.flags['n']
	switch {
	case t.has('x'):
		return fail(ExitIncorrect, "clRGmove: -x: sites are not managed yet")
	case t.has('s') && !strings.EqualFold(t.flags['s'], "false"):
		return fail(ExitIncorrect, "clRGmove: -s %s: there are no secondary instances, because sites are not managed yet", t.flags['s'])
	case len(t.args) > 0:
		return fail(ExitIncorrect, "clRGmove takes no word %q; usage: %s", t.args[0], tools["clrgmove"].usage)
	case len(groups) == 0:
		return fail(ExitMissing, "clRGmove needs -g RG; usage: %s", tools["clrgmove"].usage)
	case len(what) > 1:
		return fail(ExitIncorrect, "clRGmove: %s do not go together", strings.Join(what, " and "))
	case t.has('a') && node != "":
		return fail(ExitIncorrect, "clRGmove: -a (all nodes) and -n %s do not go together", node)
	}
	args := []string{"move", "resource_group", strings.Join(groups, ","), "NODE=" + node}
	switch {
	case t.has('r'):
		args = []string{"unset", "priority", strings.Join(groups, ",")}
	case t.has('u'):
		args[0] = "online"
	case t.has('d'):
		args[0] = "offline"
	case t.has('a'):
		return fail(ExitMissing, "clRGmove: -a goes with -u or -d; usage: %s", tools["clrgmove"].usage)
	}
	if node == "" && !t.has('r') {
		if !t.has('a') {
			return fail(ExitMissing, "clRGmove needs -n NODE, or -a with -u or -d; usage: %s", tools["clrgmove"].usage)
		}
		args = args[:3]
	}
	if err := t.clmgr(ctx, args...); err != nil || !t.has('i') {
		return err
	}
	st, err := t.client.Status(ctx)
	if err != nil {
		return fmt.Errorf("it is done; the state afterwards could not be read: %w", err)
	}
	t.st, t.args = st, groups
	return rginfo(ctx, &toolCall{session: t.session, name: "clRGinfo", flags: map[rune]string{}, args: groups, st: st})
}

// clsnapshot is PowerHA's command of that name.
func clsnapshot(ctx context.Context, t *toolCall) error {
	var what []rune
	for _, f := range "carsl" {
		if t.has(f) {
			what = append(what, f)
		}
	}
	usage := tools["clsnapshot"].usage
	name, named := t.flags['n']
	switch {
	case t.has('m'):
		return fail(ExitIncorrect, "clsnapshot: -m: methods of snapshots are not there yet")
	case t.has('N'):
		return fail(ExitIncorrect, "clsnapshot: -N: a snapshot stays as it was taken: add another, and remove this one")
	case len(t.args) > 0:
		return fail(ExitIncorrect, "clsnapshot takes no word %q; usage: %s", t.args[0], usage)
	case len(what) != 1:
		return fail(ExitMissing, "clsnapshot needs one of -c, -a, -r, -s and -l; usage: %s", usage)
	case what[0] == 'l' && !named:
		return t.clmgr(ctx, "query", "snapshot")
	case name == "":
		return fail(ExitMissing, "clsnapshot needs -n NAME; usage: %s", usage)
	}
	switch what[0] {
	case 'c':
		return t.clmgr(ctx, "add", "snapshot", name, "DESCRIPTION="+t.flags['d'])
	case 'a':
		force := "no"
		if v, ok := t.flags['f']; ok {
			b, err := cluster.ParseBool(v)
			if err != nil {
				return fail(ExitIncorrect, "clsnapshot: -f takes true or false")
			}
			if b {
				force = "yes"
			}
		}
		return t.clmgr(ctx, "manage", "snapshot", "restore", name, "FORCE="+force)
	case 'r':
		return t.clmgr(ctx, "delete", "snapshot", name)
	case 's':
		return t.clmgr(ctx, "view", "snapshot", name)
	}
	return t.clmgr(ctx, "query", "snapshot", name)
}

// lscluster is AIX's command, as far as this cluster has what it shows. What nobody measures is UNKNOWN.
func lscluster(ctx context.Context, t *toolCall) error {
	switch {
	case t.has('m'):
		t.lsNodes()
	case t.has('i'):
		d, err := t.definitionOf(ctx)
		if err != nil {
			return err
		}
		t.lsInterfaces(d)
	case t.has('d'):
		t.lsDisks()
	case t.has('c'):
		t.lsCluster()
	case t.has('s'):
		return fail(ExitIncorrect, "lscluster -s: packets are counted in /metrics")
	default:
		return fail(ExitMissing, "lscluster needs one of -m, -i, -d and -c; usage: %s", tools["lscluster"].usage)
	}
	return nil
}

// caaState is a node's state in the words of lscluster: whether it is heard, not whether its services run.
func (t *toolCall) caaState(n *api.Node) string {
	s := reachable(n)
	if n.State == api.NodeIsolated {
		s = api.Up // by its disk: it lives
	}
	if n.Name == t.st.Cluster.LocalNode {
		s += "  NODE_LOCAL"
	}
	return s
}

func (t *toolCall) lsNodes() {
	t.line("Calling node query for all nodes")
	t.line("Node query number of nodes examined: %d", len(t.st.Nodes))
	for i := range t.st.Nodes {
		n := &t.st.Nodes[i]
		if i > 0 {
			t.line("%s", strings.Repeat("-", 76))
		}
		t.line("")
		t.line("        Node name: %s", n.Name)
		t.line("        Cluster shorthand id for node: %d", n.ID)
		t.line("        UUID for node: %s", api.Unknown)
		t.line("        State of node: %s", t.caaState(n))
		t.line("        Smoothed rtt to node: %s", api.Unknown)
		t.line("        Mean Deviation in network rtt to node: %s", api.Unknown)
		t.line("        Number of clusters node is a member in: 1")
		t.line("        CLUSTER NAME       SHID         UUID")
		t.line("        %s%s%s", column(t.st.Cluster.Name, 19), column("0", 13), t.st.Cluster.UUID)
		t.line("        SITE NAME          SHID         UUID")
		t.line("        %s%s%s", column("LOCAL", 19), column("1", 13), api.Unknown)
		contacts := t.contacts(n)
		t.line("        Points of contact for node: %d", len(contacts))
		if len(contacts) == 0 {
			continue
		}
		t.line("        ------------------------------------------")
		t.line("        Interface     State  Protocol    Status")
		t.line("        ------------------------------------------")
		for _, c := range contacts {
			t.line("        %s%s%s%s", column(c.name, 14), column(c.state, 7), column(c.protocol, 12), c.status)
		}
	}
}

// A contact is a way to another node.
type contact struct{ name, state, protocol, status string }

// contacts are the ways to another node: its networks, and the repository volume, which CAA calls dpcom and uses when nothing else is
// left. To oneself there are none.
func (t *toolCall) contacts(n *api.Node) []contact {
	if n.Name == t.st.Cluster.LocalNode {
		return nil
	}
	var out []contact
	if r := t.st.Cluster.Repository; r != nil {
		disk := contact{"dpcom", api.Down, "none", "RESTRICTED"}
		if r.Alive {
			disk.state = api.Up
		}
		if n.State == api.NodeIsolated {
			disk.state, disk.status = api.Up, "none"
		}
		out = append(out, disk)
	}
	for _, w := range n.Networks {
		c := contact{w.Interface, orUnknown(w.State), "IPv4", "none"}
		if c.name == "" {
			c.name = w.Name
		}
		for _, a := range n.Addresses {
			if a.Network == w.Name && a.Kind == api.AddressBoot && strings.Contains(a.Address, ":") {
				c.protocol = "IPv6"
			}
		}
		out = append(out, c)
	}
	return out
}

func (t *toolCall) lsInterfaces(d *cluster.Definition) {
	t.line("Network/Storage Interface Query")
	t.line("")
	t.line("Cluster Name: %s", t.st.Cluster.Name)
	t.line("Cluster UUID: %s", t.st.Cluster.UUID)
	t.line("Number of nodes reporting = %d", t.reporting())
	t.line("Number of nodes stale = %d", len(t.st.Nodes)-t.reporting())
	t.line("Number of nodes expected = %d", len(t.st.Nodes))
	for i := range t.st.Nodes {
		n := &t.st.Nodes[i]
		t.line("")
		t.line("Node %s", n.Name)
		t.line("Node UUID = %s", api.Unknown)
		t.line("Number of interfaces discovered = %d", len(n.Networks))
		for k, w := range n.Networks {
			t.line("        Interface number %d, %s", k+1, orUnknown(w.Interface))
			t.lsInterface(d, n, &w)
		}
	}
}

func (t *toolCall) lsInterface(d *cluster.Definition, n *api.Node, w *api.NodeNetwork) {
	t.line("                IFNET type = 6 (IFT_ETHER)")
	t.line("                MAC address = %s", api.Unknown)
	t.line("                Smoothed RTT across interface = %s", api.Unknown)
	t.line("                Interface state = %s", orUnknown(w.State))
	t.line("                Network = %s", w.Name)
	var list []api.Address
	for _, a := range n.Addresses {
		if a.Network == w.Name {
			list = append(list, a)
		}
	}
	t.line("                Number of regular addresses configured on interface = %d", len(list))
	for _, a := range list {
		family, mask := "IPv4 ADDRESS", netmask(a.Address, prefixOf(d, n.Name, &a))
		if strings.Contains(a.Address, ":") {
			family, mask = "IPv6 ADDRESS", length(prefixOf(d, n.Name, &a))
		}
		if mask != "" {
			mask = " netmask " + mask
		}
		t.line("                %s: %s%s", family, a.Address, mask)
	}
}

// prefixOf is the length of an address's prefix as it is defined; 0: it is not said.
func prefixOf(d *cluster.Definition, node string, a *api.Address) int {
	own, network := 0, 0
	if n := d.Node(node); n != nil {
		_, own = splitPrefix(n.Addresses[a.Network])
	}
	if w := d.Network(a.Network); w != nil {
		network = w.Prefix
	}
	if a.Kind == api.AddressBoot {
		return firstNonZero(own, a.Prefix)
	}
	if s := d.ServiceIP(a.Label); s != nil {
		return firstNonZero(a.Prefix, s.Prefix, network, own)
	}
	return firstNonZero(a.Prefix, network, own)
}

// reporting counts the nodes that are heard.
func (t *toolCall) reporting() int {
	n := 0
	for i := range t.st.Nodes {
		if reachable(&t.st.Nodes[i]) == api.Up {
			n++
		}
	}
	return n
}

func (t *toolCall) lsDisks() {
	t.line("Storage Interface Query")
	t.line("")
	t.line("Cluster Name: %s", t.st.Cluster.Name)
	t.line("Cluster UUID: %s", t.st.Cluster.UUID)
	t.line("Number of nodes reporting = %d", t.reporting())
	t.line("Number of nodes expected = %d", len(t.st.Nodes))
	r := t.st.Cluster.Repository
	disks := 0
	if r != nil {
		disks = 1
	}
	for i := range t.st.Nodes {
		t.line("")
		t.line("Node %s", t.st.Nodes[i].Name)
		t.line("Node UUID = %s", api.Unknown)
		t.line("Number of disks discovered = %d", disks)
		if r == nil {
			continue
		}
		state := api.Down
		if r.Alive {
			state = api.Up
		}
		if t.st.Nodes[i].Name != r.Host && t.st.Nodes[i].Name != t.st.Cluster.LocalNode {
			state = api.Unknown // each node sees the volume for itself
		}
		t.line("        %s:", r.Device)
		t.line("                State : %s", state)
		t.line("                 uDid : %s", api.Unknown)
		t.line("                 uUid : %s", r.UUID)
		t.line("            Site uUid : %s", api.Unknown)
		t.line("                 Type : REPDISK")
	}
}

func (t *toolCall) lsCluster() {
	c := &t.st.Cluster
	t.line("Cluster Name: %s", c.Name)
	t.line("Cluster UUID: %s", c.UUID)
	t.line("Number of nodes in cluster = %d", len(t.st.Nodes))
	for i := range t.st.Nodes {
		n := &t.st.Nodes[i]
		t.line("        Cluster ID for node %s: %d", n.Name, n.ID)
		t.line("        Primary IP address for node %s: %s", n.Name, bootAddress(n))
	}
	disks := 0
	if c.Repository != nil {
		disks = 1
	}
	t.line("Number of disks in cluster = %d", disks)
	if r := c.Repository; r != nil {
		t.line("        Disk = %s UUID = %s cluster_major = 0 cluster_minor = 1", r.Device, r.UUID)
	}
	t.line("Multicast for site LOCAL: none")
	t.line("Communication Mode: unicast")
}

// showSubsystem is lssrc -ls clstrmgrES, of this node.
func showSubsystem(ctx context.Context, s *session, t *target) error {
	if n := t.name(); n != "" && !strings.EqualFold(n, "clstrmgrES") {
		return fail(ExitNotFound, "there is no subsystem %q to view; there is: clstrmgrES", n)
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	st, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	v := subsystemView(&st)
	if s.form == formJSON {
		return writeJSON(s.out, v)
	}
	p := func(format string, args ...any) {
		fmt.Fprintln(s.out, strings.TrimRight(printable(fmt.Sprintf(format, args...)), " "))
	}
	p("Current state: %s", v.State)
	p("build = %q", v.Version)
	p("i_local_nodeid %d, i_local_siteid -1, my_handle %d", v.NodeID-1, v.NodeID)
	p("There are %d events on the Ibcast queue", v.Pending)
	p("CLversion: %d", v.DefinitionVersion)
	p("local node vrmf is %s", v.Version)
	p("The following timer(s) are currently active:")
	for _, x := range v.Timers {
		p("    %s", x)
	}
	p("Current DNP values")
	for i := range st.Nodes {
		n := &st.Nodes[i]
		p("DNP Values for NodeId - %d  NodeName - %s", n.ID, n.Name)
		p("    PgSpFree = %s  PvPctBusy = %s  PctTotalTimeIdle = %s", value(n, "mem"), value(n, "disk"), value(n, "cpu"))
	}
	if len(v.ForcedDown) > 0 {
		p("Forced down node list: %s", strings.Join(v.ForcedDown, " "))
	}
	return nil
}

// A subsystem is what lssrc -ls clstrmgrES shows, for -o json.
type subsystem struct {
	State             string   `json:"state"`
	Node              string   `json:"node"`
	NodeID            int      `json:"node_id"`
	Version           string   `json:"version"`
	DefinitionVersion uint64   `json:"definition_version"`
	Pending           int      `json:"pending"`
	Timers            []string `json:"timers"`
	ForcedDown        []string `json:"forced_down"`
}

func subsystemView(st *api.Status) subsystem {
	v := subsystem{State: api.RawNotConfigured, Node: st.Cluster.LocalNode, Version: orUnknown(st.Cluster.ProductVersion),
		DefinitionVersion: st.Cluster.DefinitionVersion, Pending: len(st.Pending), Timers: []string{}, ForcedDown: []string{}}
	if st.Cluster.State == api.ClusterNotConfigured {
		return v
	}
	v.State = api.Unknown
	if n := st.Node(st.Cluster.LocalNode); n != nil {
		v.State, v.NodeID = orUnknown(n.RawState), n.ID
	}
	for i := range st.Groups {
		for _, x := range st.Groups[i].Timers {
			v.Timers = append(v.Timers, st.Groups[i].Name+" "+x.Kind+" "+x.At.UTC().Format("2006-01-02T15:04:05Z"))
		}
	}
	for i := range st.Nodes {
		if st.Nodes[i].State == api.NodeUnmanaged {
			v.ForcedDown = append(v.ForcedDown, st.Nodes[i].Name)
		}
	}
	return v
}

func value(n *api.Node, key string) string {
	if v, ok := n.Values[key]; ok {
		return fmt.Sprintf("%g", v)
	}
	return api.Unknown
}
