package cluster

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// classTable is the one table. Names and abbreviations are PowerHA's where PowerHA has the thing.
var classTable = []Class{
	clusterClass(),
	nodeClass(),
	networkClass(),
	serviceIPClass(),
	persistentIPClass(),
	volumeGroupClass(),
	fileSystemClass(),
	nfsExportClass(),
	controllerClass(),
	monitorClass(),
	groupClass(),
	dependencyClass(),
	timerClass(),
	fenceClass(),
	methodClass(),
	eventClass(),
	waiverClass(),
	collectionClass(),
	repositoryClass(),
}

// policyWords maps the policies' abbreviations to the words that status tools print.
var policyWords = map[string]string{
	"OHN":   "Online On Home Node Only",
	"OFAN":  "Online On First Available Node",
	"OAAN":  "Online On All Available Nodes",
	"OUDP":  "Online Using Node Distribution Policy",
	"FNPN":  "Fallover To Next Priority Node In The List",
	"FUDNP": "Fallover Using Dynamic Node Priority",
	"BO":    "Bring Offline (On Error Node Only)",
	"NFB":   "Never Fallback",
	"FBHPN": "Fallback To Higher Priority Node In The List",
}

// PolicyWords returns the long form of a policy's abbreviation as PowerHA's status tools print it; an unknown one unchanged.
func PolicyWords(policy string) string {
	if w, ok := policyWords[policy]; ok {
		return w
	}
	return policy
}

func clusterClass() Class {
	settings := func(at func(*Settings) *time.Duration) func(*Definition) *time.Duration {
		return func(d *Definition) *time.Duration { return at(&d.Settings) }
	}
	fields := []field[Definition]{
		{Attribute{Name: "NODES", Kind: KindNames, Refers: "node", Doc: "the member nodes"},
			func(d *Definition, _ *Definition) string { return strings.Join(nodeNames(d), ",") }, setNodes},
		{Attribute{Name: "TYPE", Kind: KindEnum, Values: []string{"NSC"}, Default: "NSC", Doc: "a standard cluster, without sites"},
			func(*Definition, *Definition) string { return "NSC" },
			func(_, _ *Definition, v string) error {
				if v != "" && !strings.EqualFold(v, "NSC") {
					return fmt.Errorf("only NSC (a standard cluster) can be made")
				}
				return nil
			}},
		seconds(Attribute{Name: "RG_SETTLING_TIME", Aliases: []string{"SETTLING_TIME"}, Default: "0",
			Doc: "how long an OFAN group waits for a better node at start"}, settings(func(s *Settings) *time.Duration { return &s.SettlingTime })),
		seconds(Attribute{Name: "MAX_EVENT_TIME", Default: "180", Doc: "after which config_too_long is raised"},
			settings(func(s *Settings) *time.Duration { return &s.MaxEventTime })),
		seconds(Attribute{Name: "MAX_RG_PROCESSING_TIME", Default: "180", Doc: "added to MAX_EVENT_TIME for steps that handle groups"},
			settings(func(s *Settings) *time.Duration { return &s.MaxGroupTime })),
		seconds(Attribute{Name: "FAILURE_WINDOW", Default: "3600", Doc: "how long an application's failure marks a node for its group"},
			settings(func(s *Settings) *time.Duration { return &s.FailureWindow })),
		enum(Attribute{Name: "PROFILE", Aliases: []string{"TIMING_PROFILE"}, Values: lease.Profiles(), Default: DefaultProfile,
			Doc: "the set of timings: how fast a failure is seen, and how much slowness is forgiven"},
			func(d *Definition) *string { return &d.Settings.Profile }, nil),
		enum(Attribute{Name: "DEADMAN_MODE", Aliases: []string{"CAA_DEADMAN_MODE"}, Values: []string{"assert", "event"}, Default: "assert",
			Doc: "what a node does whose lease has run out: reset itself (assert), or raise an event for a human"},
			func(d *Definition) *string { return &d.Settings.DeadmanMode }, map[string]string{"assert": "a", "event": "e"}),
		boolean(Attribute{Name: "LAST_STANDING", Default: "false", Doc: "the last of three nodes runs on alone; not built yet, without effect"},
			func(d *Definition) bool { return d.Settings.LastStanding }, func(d *Definition, v bool) { d.Settings.LastStanding = v }),
		boolean(Attribute{Name: "WAIVE_TIME_PROOF", Default: "false",
			Doc: "accept that the silence of a node without an independent watchdog counts as its death"},
			func(d *Definition) bool { return d.Settings.WaiveTimeProof }, func(d *Definition, v bool) { d.Settings.WaiveTimeProof = v }),
	}
	fields = append(fields,
		boolean(Attribute{Name: "DAILY_VERIFICATION", Default: "true", Doc: "the cluster verifies itself each day"},
			func(d *Definition) bool { return !d.Settings.NoDailyVerification }, func(d *Definition, v bool) { d.Settings.NoDailyVerification = !v }),
		integer(Attribute{Name: "VERIFICATION_HOUR", Default: "0", Doc: "the hour of the daily verification, 0 to 23, UTC"}, 0, 23,
			func(d *Definition) *int { return &d.Settings.VerificationHour }),
		seconds(Attribute{Name: "VERIFICATION_INTERVAL", Default: "600", Doc: "how often the cluster looks for what has changed on its nodes; 10 s or more"},
			settings(func(s *Settings) *time.Duration { return &s.VerificationInterval })),
		enum(Attribute{Name: "CHANGES", Values: []string{ChangesLive, ChangesStaged}, Default: DefaultChanges,
			Doc: "when add, modify and delete count: at once, or with the next clmgr sync cluster"},
			func(d *Definition) *string { return &d.Settings.Changes }, nil),
		boolean(Attribute{Name: "FREE_COMMANDS", Default: "false", Doc: "clcmd and cl_nodecmd may run commands on all nodes, for root and those of access.command in node.yaml"},
			func(d *Definition) bool { return d.Settings.FreeCommands }, func(d *Definition, v bool) { d.Settings.FreeCommands = v }),
		minutes(Attribute{Name: "FC_SYNC_INTERVAL", Default: "10", Doc: "how often file collections with SYNC_WHEN_CHANGED are compared, in minutes, 1 to 1440"}, 1, 1440,
			settings(func(s *Settings) *time.Duration { return &s.CollectionInterval })),
	)
	fields = append(fields,
		enum(Attribute{Name: "ACTION_PLAN", Values: []string{ActionPlanReboot, ActionPlanNoGroups, ActionPlanNoServices}, Default: ActionPlanReboot,
			Doc: "what becomes of a node that was taken for dead, when it is back: its services start again (reboot), without groups, or not at all"},
			func(d *Definition) *string { return &d.Settings.ActionPlan }, nil),
		boolean(Attribute{Name: "REPOSITORY_AUTO_REPLACE", Aliases: []string{"AUTO_REPOSITORY_REPLACEMENT"}, Default: "true",
			Doc: "a backup repository takes the place of one that no node can use any more"},
			func(d *Definition) bool { return !d.Settings.NoRepositoryReplacement }, func(d *Definition, v bool) { d.Settings.NoRepositoryReplacement = !v }),
		seconds(Attribute{Name: "REPOSITORY_LOSS_TIME", Default: "60", Doc: "how long no node may be able to use the repository before it is lost; 5 s or more"},
			settings(func(s *Settings) *time.Duration { return &s.RepositoryLossTime })),
	)
	for _, key := range lease.Keys() {
		fields = append(fields, timing(key))
	}
	c := Class{Name: "cluster", Aliases: []string{"cl"}, Singleton: true, Doc: "the cluster itself"}
	c.names = func(d *Definition) []string {
		if d.Name == "" {
			return nil
		}
		return []string{d.Name}
	}
	c.create = func(d *Definition, name string) { d.Name = name }
	c.remove = func(d *Definition, _ string) { *d = Definition{} }
	c.rename = func(d *Definition, _, to string) { d.Name = to }
	c.Attributes = append(c.Attributes, nameAttribute("CLUSTER_NAME", "cluster"))
	self := func(d *Definition, _ string) *Definition { return d }
	for _, f := range fields {
		c.Attributes = append(c.Attributes, bind(f, self))
	}
	return c
}

// timing is one override of the profile; its value, if not set, is the profile's.
func timing(key string) field[Definition] {
	docs := map[string]string{
		"watchdog_timeout": "W: after how long without a pet the watchdog resets the node",
		"l_hard":           "L_hard: after how long without a new grant the deadman resets the node",
		"l_soft":           "L_soft: after how long without a new grant a node releases its groups in order",
		"max_age":          "A: how old a grant may be when it arrives",
		"residue":          "R: how long after the reset the node may still have effects",
		"margin":           "p: the margin of the deadman's own timer",
		"renew":            "how often a node asks for a grant",
		"silence":          "after how long without a sign of life a node is taken for lost",
	}
	return field[Definition]{Attribute{Name: strings.ToUpper(key), Kind: KindSeconds, Doc: docs[key] + " (overrides the profile)"},
		func(d *Definition, _ *Definition) string {
			t, ok := d.Settings.Timings[key]
			if !ok {
				p, err := lease.Profile(d.Settings.Profile)
				if err != nil {
					return ""
				}
				t = timingOf(p, key)
			}
			return formatSeconds(t)
		},
		func(d *Definition, _ *Definition, v string) error {
			if v == "" {
				delete(d.Settings.Timings, key)
				return nil
			}
			t, err := ParseSeconds(v)
			if err != nil {
				return err
			}
			if t <= 0 {
				return fmt.Errorf("it must be above 0")
			}
			if d.Settings.Timings == nil {
				d.Settings.Timings = map[string]time.Duration{}
			}
			d.Settings.Timings[key] = t
			return nil
		}}
}

// timingOf reads one timing by its key.
func timingOf(p lease.Params, key string) time.Duration {
	switch key {
	case "watchdog_timeout":
		return p.Watchdog
	case "l_hard":
		return p.Hard
	case "l_soft":
		return p.Soft
	case "max_age":
		return p.MaxAge
	case "residue":
		return p.Residue
	case "margin":
		return p.Margin
	case "renew":
		return p.Renew
	case "silence":
		return p.Silence
	}
	panic("cluster: no timing " + key)
}

func nodeNames(d *Definition) []string {
	var out []string
	for _, n := range d.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// setNodes adds the nodes that are new, drops those that are not listed and unused, and puts them in the order given.
func setNodes(d *Definition, _ *Definition, v string) error {
	list := SplitList(v)
	var nodes []Node
	for i, name := range list {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("node %q: %w", name, err)
		}
		if slices.Contains(list[:i], name) {
			return fmt.Errorf("node %s is named twice", name)
		}
		if n := d.Node(name); n != nil {
			nodes = append(nodes, *n)
		} else {
			nodes = append(nodes, Node{Name: name})
		}
	}
	for _, n := range d.Nodes {
		if users := d.Users("node", n.Name); !slices.Contains(list, n.Name) && len(users) > 0 {
			return fmt.Errorf("node %s would go, and is used by %s", n.Name, strings.Join(users, ", "))
		}
	}
	d.Nodes = nodes
	return nil
}

func nodeClass() Class {
	return newClass(Class{Name: "node", Aliases: []string{"no"}, Doc: "a member machine"},
		func(d *Definition) *[]Node { return &d.Nodes }, func(n *Node) *string { return &n.Name },
		field[Node]{Attribute{Name: "COMMPATH", Kind: KindAddress,
			Doc: "the node's address on the first network, with or without a prefix length; made for PowerHA's habit, see ADDRESSES"},
			func(d *Definition, n *Node) string {
				for _, w := range d.Networks {
					if a := n.Addresses[w.Name]; a != "" {
						return a
					}
				}
				return ""
			},
			func(d *Definition, n *Node, v string) error {
				if len(d.Networks) == 0 {
					return fmt.Errorf("there is no network to which the address could belong: add one first (clmgr add network net1)")
				}
				return setAddress(n, d.Networks[0].Name, v)
			}},
		field[Node]{Attribute{Name: "ADDRESSES", Aliases: []string{"ADDRESS"}, Kind: KindPairs, Refers: "network",
			Doc: "the node's own address on each network, as net1:10.1.1.1/24,net2:10.2.2.1/24"},
			func(_ *Definition, n *Node) string {
				var out []string
				for _, k := range sortedKeys(n.Addresses) {
					out = append(out, k+":"+n.Addresses[k])
				}
				return strings.Join(out, ",")
			},
			func(_ *Definition, n *Node, v string) error {
				n.Addresses = nil
				for _, p := range SplitList(v) {
					net, a, ok := strings.Cut(p, ":")
					if !ok {
						return fmt.Errorf("%q is not of the form network:address", p)
					}
					if n.Addresses[net] != "" {
						return fmt.Errorf("network %s is given twice", net)
					}
					if err := setAddress(n, net, a); err != nil {
						return err
					}
				}
				return nil
			}},
		field[Node]{Attribute{Name: "INTERFACES", Aliases: []string{"INTERFACE"}, Kind: KindPairs, Refers: "network",
			Doc: "the node's interfaces on a network by name, the preferred one first, as net1:eth0,net1:eth2; none: found by their addresses"},
			func(_ *Definition, n *Node) string {
				var out []string
				for _, k := range sortedKeys(n.Interfaces) {
					for _, i := range n.Interfaces[k] {
						out = append(out, k+":"+i)
					}
				}
				return strings.Join(out, ",")
			}, setInterfaces},
		text(Attribute{Name: "SITE", Doc: "where the machine stands"}, func(n *Node) *string { return &n.Site }),
		integer(Attribute{Name: "CAPACITY", Default: "0", Doc: "the sum of the weights of the groups that the node takes; 0 is no limit"},
			0, 1_000_000, func(n *Node) *int { return &n.Capacity }),
		boolean(Attribute{Name: "START_ON_BOOT", Default: "true", Doc: "services that ran when the node went away start again by themselves"},
			func(n *Node) bool { return n.StartOnBoot == nil || *n.StartOnBoot }, func(n *Node, v bool) { n.StartOnBoot = &v }),
		boolean(Attribute{Name: "PLATFORM_RESTART", Default: "false",
			Doc: "the platform may start a second copy of the node (HA restart of a virtual machine)"},
			func(n *Node) bool { return n.PlatformRestart }, func(n *Node, v bool) { n.PlatformRestart = v }),
	)
}

func setInterfaces(_ *Definition, n *Node, v string) error {
	all := map[string][]string{}
	for _, p := range SplitList(v) {
		net, name, ok := strings.Cut(p, ":")
		if !ok {
			return fmt.Errorf("%q is not of the form network:interface", p)
		}
		if !interfaceName(name) {
			return fmt.Errorf("the interface %q of network %s cannot be used: a name as eth0 or en1 is needed", name, net)
		}
		if slices.Contains(all[net], name) {
			return fmt.Errorf("interface %s is given twice for network %s", name, net)
		}
		all[net] = append(all[net], name)
	}
	n.Interfaces = nil
	if len(all) > 0 {
		n.Interfaces = all
	}
	return nil
}

// interfaceName reports whether a machine can have an interface of that name.
func interfaceName(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/ \t\n:,")
}

func setAddress(n *Node, network, v string) error {
	if v == "" {
		delete(n.Addresses, network)
		return nil
	}
	if _, _, err := parseNodeAddress(v); err != nil {
		return err
	}
	if n.Addresses == nil {
		n.Addresses = map[string]string{}
	}
	n.Addresses[network] = v
	return nil
}

// parseNodeAddress reads an address with or without a prefix length; 0 is none.
func parseNodeAddress(s string) (netip.Addr, int, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), p.Bits(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, 0, fmt.Errorf("%q is not an IP address (as 10.1.1.1/24, 10.1.1.1 or fd00::1/64)", s)
	}
	return a, 0, nil
}

func networkClass() Class {
	return newClass(Class{Name: "network", Aliases: []string{"ne", "nw", "net"}, Doc: "a network for heartbeats and service IPs"},
		func(d *Definition) *[]Network { return &d.Networks }, func(n *Network) *string { return &n.Name },
		field[Network]{Attribute{Name: "TYPE", Kind: KindEnum, Values: []string{"ether"}, Default: "ether", Doc: "an IP network"},
			func(*Definition, *Network) string { return "ether" },
			func(_ *Definition, _ *Network, v string) error {
				if v != "" && !strings.EqualFold(v, "ether") {
					return fmt.Errorf("only ether can be made")
				}
				return nil
			}},
		prefix(Attribute{Name: "PREFIX", Aliases: []string{"NETMASK"}, Doc: "prefix length (or netmask) of service IPs here; none: the node's interface's"},
			func(n *Network) *int { return &n.Prefix }),
		boolean(Attribute{Name: "PUBLIC", Default: "true", Doc: "false: heartbeats only, no service IPs"},
			func(n *Network) bool { return !n.Private }, func(n *Network, v bool) { n.Private = !v }),
		distribution(enum(Attribute{Name: "RESOURCE_DIST_PREF", Aliases: []string{"DISTRIBUTION"}, Values: distributions, Default: DefaultDistribution,
			Doc: "how a service IP chooses its interface: anti-collocation, collocation, and the same away from or with the persistent IP"},
			func(n *Network) *string { return &n.Distribution }, nil)),
		names(Attribute{Name: "PROBE_TARGETS", Aliases: []string{"NETMON"}, Kind: KindList,
			Doc: "addresses in the network's subnet that are asked when it is in doubt whether an interface works; the members are asked anyway"},
			func(n *Network) *[]string { return &n.ProbeTargets }),
	)
}

func serviceIPClass() Class {
	c := newClass(Class{Name: "service_ip", Aliases: []string{"se", "sip", "si"}, Doc: "an address for clients that moves with its group"},
		func(d *Definition) *[]ServiceIP { return &d.ServiceIPs }, func(s *ServiceIP) *string { return &s.Name },
		text(Attribute{Name: "ADDRESS", Aliases: []string{"IPADDR", "IP"}, Kind: KindAddress, Required: true,
			Doc: "the IP address; not needed when the name is one"}, func(s *ServiceIP) *string { return &s.Address }),
		text(Attribute{Name: "NETWORK", Kind: KindName, Refers: "network", Required: true, Doc: "the network on which it lives"},
			func(s *ServiceIP) *string { return &s.Network }),
		prefix(Attribute{Name: "PREFIX", Aliases: []string{"NETMASK"}, Doc: "prefix length or netmask; none: the network's"},
			func(s *ServiceIP) *int { return &s.Prefix }),
		text(Attribute{Name: "INTERFACE", Doc: "the interface by name; none: chosen by the network's RESOURCE_DIST_PREF"},
			func(s *ServiceIP) *string { return &s.Interface }),
	)
	plain := c.create
	c.create = func(d *Definition, name string) {
		plain(d, name)
		if _, err := netip.ParseAddr(name); err == nil {
			d.ServiceIP(name).Address = name
		}
		if len(d.Networks) == 1 {
			d.ServiceIP(name).Network = d.Networks[0].Name
		}
	}
	return c
}

func persistentIPClass() Class {
	return newClass(Class{Name: "persistent_ip", Aliases: []string{"pe", "pip"}, Doc: "an address that stays on one node"},
		func(d *Definition) *[]PersistentIP { return &d.PersistentIPs }, func(p *PersistentIP) *string { return &p.Name },
		text(Attribute{Name: "ADDRESS", Aliases: []string{"IPADDR", "IP"}, Kind: KindAddress, Required: true, Doc: "the IP address"},
			func(p *PersistentIP) *string { return &p.Address }),
		text(Attribute{Name: "NODE", Kind: KindName, Refers: "node", Required: true, Doc: "the node that has it"},
			func(p *PersistentIP) *string { return &p.Node }),
		text(Attribute{Name: "NETWORK", Kind: KindName, Refers: "network", Required: true, Doc: "the network on which it lives"},
			func(p *PersistentIP) *string { return &p.Network }),
		prefix(Attribute{Name: "PREFIX", Aliases: []string{"NETMASK"}, Doc: "prefix length or netmask; none: the network's"},
			func(p *PersistentIP) *int { return &p.Prefix }),
	)
}

func volumeGroupClass() Class {
	type V = VolumeGroup
	return newClass(Class{Name: "volume_group", Aliases: []string{"vg"}, Doc: "a volume group that is varied on where its group runs, and nowhere else"},
		func(d *Definition) *[]V { return &d.VolumeGroups }, func(g *V) *string { return &g.Name },
		names(Attribute{Name: "PHYSICAL_VOLUMES", Aliases: []string{"DISKS"}, Kind: KindList,
			Doc: "the PVIDs of its disks, for the import on a node that does not know it"}, func(g *V) *[]string { return &g.PhysicalVolumes }),
		enum(Attribute{Name: "MODE", Values: []string{VolumeGroupExclusive, VolumeGroupEnhanced}, Default: VolumeGroupExclusive,
			Doc: "exclusive: plain varyonvg; enhanced: enhanced concurrent, which needs RSCT"}, func(g *V) *string { return &g.Mode }, nil),
		integer(Attribute{Name: "MAJOR_NUMBER", Default: "0", Doc: "given at the import, the same on all nodes for NFS; 0: any"},
			0, 1<<20, func(g *V) *int { return &g.MajorNumber }),
	)
}

func nfsExportClass() Class {
	type E = NFSExport
	return newClass(Class{Name: "nfs_export", Aliases: []string{"nfs", "export"}, Doc: "a directory that is exported where its group runs"},
		func(d *Definition) *[]E { return &d.NFSExports }, func(e *E) *string { return &e.Name },
		text(Attribute{Name: "DIRECTORY", Kind: KindPath, Required: true, Doc: "the directory that clients mount"}, func(e *E) *string { return &e.Directory }),
		names(Attribute{Name: "CLIENTS", Kind: KindList, Doc: "who may mount it; none: everybody"}, func(e *E) *[]string { return &e.Clients }),
		text(Attribute{Name: "OPTIONS", Doc: "as exportfs -o takes them, without the clients"}, func(e *E) *string { return &e.Options }),
	)
}

func fileSystemClass() Class {
	return newClass(Class{Name: "file_system", Aliases: []string{"fs", "filesystem"}, Doc: "a file system that is mounted where its group runs"},
		func(d *Definition) *[]FileSystem { return &d.FileSystems }, func(f *FileSystem) *string { return &f.Name },
		text(Attribute{Name: "DEVICE", Required: true, Doc: "block device, image file (with OPTIONS=loop), directory (with TYPE=bind), UUID= or LABEL="},
			func(f *FileSystem) *string { return &f.Device }),
		text(Attribute{Name: "MOUNT_POINT", Aliases: []string{"MOUNTPOINT"}, Kind: KindPath, Required: true, Doc: "the directory on which it is mounted"},
			func(f *FileSystem) *string { return &f.MountPoint }),
		text(Attribute{Name: "TYPE", Doc: "as mount -t takes it; none: found out by mount"}, func(f *FileSystem) *string { return &f.Type }),
		text(Attribute{Name: "OPTIONS", Doc: "as mount -o takes them"}, func(f *FileSystem) *string { return &f.Options }),
		enum(Attribute{Name: "CHECK", Aliases: []string{"FSCHECK_TOOL"}, Values: []string{"fsck", "none"}, Default: "fsck",
			Doc: "whether it is checked before it is mounted"}, func(f *FileSystem) *string { return &f.Check }, nil),
		seconds(Attribute{Name: "STOP_TIMEOUT", Default: "10", Doc: "how long the orderly unmount may take before those who hold it are killed"},
			func(f *FileSystem) *time.Duration { return &f.StopTimeout }),
	)
}

func controllerClass() Class {
	c := newClass(Class{Name: "application_controller", Aliases: []string{"ac", "app", "application"}, Doc: "how an application is started and stopped"},
		func(d *Definition) *[]ApplicationController { return &d.ApplicationControllers }, func(a *ApplicationController) *string { return &a.Name },
		text(Attribute{Name: "AGENT", Doc: "what runs it instead of scripts: ocf:heartbeat:nginx, systemd:nginx.service, user:TYPE, or src:SUBSYSTEM on AIX"},
			func(a *ApplicationController) *string { return &a.Agent }),
		words(Attribute{Name: "PARAMS", Aliases: []string{"PARAM"}, Doc: "the agent's parameters, as name:value separated by blanks; a value with blanks is quoted"},
			func(a *ApplicationController) *map[string]string { return &a.Params }, Secret),
		command(Attribute{Name: "STARTSCRIPT", Required: true, Unless: "AGENT", Doc: "absolute path of the start script, and its arguments"},
			func(a *ApplicationController) *string { return &a.StartScript }, func(a *ApplicationController) *[]string { return &a.StartArgs }),
		command(Attribute{Name: "STOPSCRIPT", Required: true, Unless: "AGENT", Doc: "absolute path of the stop script, and its arguments"},
			func(a *ApplicationController) *string { return &a.StopScript }, func(a *ApplicationController) *[]string { return &a.StopArgs }),
		names(Attribute{Name: "MONITORS", Refers: "application_monitor", Doc: "the monitors that watch it"},
			func(a *ApplicationController) *[]string { return &a.Monitors }),
		enum(Attribute{Name: "STARTUP_MODE", Values: []string{"foreground", "background"}, Default: "foreground",
			Doc: "foreground: the group is online when the start script has ended with 0"},
			func(a *ApplicationController) *string { return &a.StartupMode }, nil),
		seconds(Attribute{Name: "START_TIMEOUT", Default: "60", Doc: "after which a start is killed and counts as failed; of an agent: what it asks for"},
			func(a *ApplicationController) *time.Duration { return &a.StartTimeout }),
		seconds(Attribute{Name: "STOP_TIMEOUT", Default: "60", Doc: "after which a stop is killed and counts as failed; of an agent: what it asks for"},
			func(a *ApplicationController) *time.Duration { return &a.StopTimeout }),
	)
	runByAgent := func(d *Definition, name string) bool {
		a := d.ApplicationController(name)
		return a != nil && a.OwnTimes()
	}
	for _, name := range []string{"START_TIMEOUT", "STOP_TIMEOUT"} {
		c.Attribute(name).noDefault = runByAgent
	}
	// The default times of scripts are not an agent's, when an application becomes one's.
	c.settle = func(d *Definition, name string) {
		if a := d.ApplicationController(name); a != nil && !a.OwnTimes() {
			drop(&a.StartTimeout, DefaultStartTimeout)
			drop(&a.StopTimeout, DefaultStopTimeout)
		}
	}
	return c
}

func monitorClass() Class {
	type M = ApplicationMonitor
	c := newClass(Class{Name: "application_monitor", Aliases: []string{"am", "mon", "monitor"}, Doc: "what watches an application"},
		func(d *Definition) *[]M { return &d.ApplicationMonitors }, func(m *M) *string { return &m.Name },
		enum(Attribute{Name: "TYPE", Values: []string{"Process", "Custom", "Agent"}, Required: true, Doc: "watch processes, ask a script, or ask the application's agent"},
			func(m *M) *string { return &m.Type }, map[string]string{"Process": "process", "Custom": "custom", "Agent": "agent"}),
		enum(Attribute{Name: "MODE", Values: []string{"longrunning", "startup", "both"}, Default: "longrunning",
			Doc: "watch while it runs, judge the start, or both"}, func(m *M) *string { return &m.Mode }, nil),
		field[M]{Attribute{Name: "APPLICATIONS", Kind: KindNames, Refers: "application_controller", Doc: "the controllers that it watches"},
			func(d *Definition, m *M) string {
				var out []string
				for _, a := range d.ApplicationControllers {
					if contains(a.Monitors, m.Name) {
						out = append(out, a.Name)
					}
				}
				return strings.Join(out, ",")
			}, setMonitored},
		names(Attribute{Name: "PROCESSES", Kind: KindList, Doc: "names of the processes, as ps -e -o comm shows them"},
			func(m *M) *[]string { return &m.Processes }),
		text(Attribute{Name: "PID_FILE", Kind: KindPath, Doc: "the file that holds the main process's id"}, func(m *M) *string { return &m.PIDFile }),
		text(Attribute{Name: "OWNER", Doc: "the user to whom the processes belong"}, func(m *M) *string { return &m.Owner }),
		integer(Attribute{Name: "INSTANCECOUNT", Aliases: []string{"INSTANCE_COUNT"}, Default: "1", Doc: "how many of the process must run"},
			1, 1024, func(m *M) *int { return &m.InstanceCount }),
		text(Attribute{Name: "MONITORMETHOD", Kind: KindPath, Doc: "the script of a custom monitor, without arguments; exit 0 is healthy"},
			func(m *M) *string { return &m.MonitorMethod }),
		seconds(Attribute{Name: "MONITORINTERVAL", Default: formatSeconds(DefaultMonitorInterval), Doc: "how often the script is asked; not back in this time it hangs"},
			func(m *M) *time.Duration { return &m.MonitorInterval }),
		integer(Attribute{Name: "DEPTH", Aliases: []string{"OCF_CHECK_LEVEL"}, Default: "0", Doc: "how thoroughly an agent looks: 0, 10, 20, ..."},
			0, 100, func(m *M) *int { return &m.Depth }),
		integer(Attribute{Name: "HUNGSIGNAL", Default: "9", Doc: "the signal for a script that hangs"}, 1, 63, func(m *M) *int { return &m.HungSignal }),
		seconds(Attribute{Name: "STABILIZATION", Doc: "what the application gets after its start until it is first seen well; none: 10 for Process, 60 for Custom"},
			func(m *M) *time.Duration { return &m.Stabilization }),
		field[M]{Attribute{Name: "RESTARTCOUNT", Aliases: []string{"RESTART_COUNT"}, Kind: KindInt, Default: "3",
			Doc: "how often it is restarted before FAILUREACTION is taken"},
			func(_ *Definition, m *M) string {
				if m.RestartCount == nil {
					return ""
				}
				return strconv.Itoa(*m.RestartCount)
			},
			func(_ *Definition, m *M, v string) error {
				m.RestartCount = nil
				if v == "" {
					return nil
				}
				n, err := parseInt(v, 0, 100)
				if err == nil {
					m.RestartCount = &n
				}
				return err
			}},
		seconds(Attribute{Name: "RESTARTINTERVAL", Aliases: []string{"RESTART_INTERVAL"},
			Doc: "after how long a healthy application has its restarts back; none: 1.1 x RESTARTCOUNT x (STABILIZATION + MONITORINTERVAL), for Process without the latter"},
			func(m *M) *time.Duration { return &m.RestartInterval }),
		enum(Attribute{Name: "FAILUREACTION", Aliases: []string{"FAILURE_ACTION"}, Values: []string{"notify", "fallover"}, Default: "notify",
			Doc: "when the restarts are used up: leave the group and tell, or move it"}, func(m *M) *string { return &m.FailureAction }, nil),
		text(Attribute{Name: "NOTIFYMETHOD", Kind: KindPath, Doc: "the script that tells a human"}, func(m *M) *string { return &m.NotifyMethod }),
		text(Attribute{Name: "CLEANUPMETHOD", Kind: KindPath, Doc: "run before a restart; none: the stop script"}, func(m *M) *string { return &m.CleanupMethod }),
		text(Attribute{Name: "RESTARTMETHOD", Kind: KindPath, Doc: "restarts the application; none: the start script"}, func(m *M) *string { return &m.RestartMethod }),
	)
	// What was a default follows the values from which it is computed: the type, the number of restarts, the times.
	c.settle = func(d *Definition, name string) {
		if m := d.ApplicationMonitor(name); m != nil {
			m.sparse()
		}
	}
	return c
}

// setMonitored makes the monitor one of the named controllers' and nobody else's.
func setMonitored(d *Definition, m *ApplicationMonitor, v string) error {
	want := SplitList(v)
	for _, n := range want {
		if d.ApplicationController(n) == nil {
			return fmt.Errorf("no application_controller %q", n)
		}
	}
	for i := range d.ApplicationControllers {
		a := &d.ApplicationControllers[i]
		has, should := contains(a.Monitors, m.Name), contains(want, a.Name)
		if should && !has {
			a.Monitors = append(a.Monitors, m.Name)
		}
		if has && !should {
			name := m.Name
			a.Monitors = slices.DeleteFunc(a.Monitors, func(s string) bool { return s == name })
		}
	}
	return nil
}

func groupClass() Class {
	type G = ResourceGroup
	startup := enum(Attribute{Name: "STARTUP", Values: []string{"OHN", "OFAN", "OAAN", "OUDP"}, Default: "OHN",
		Doc: "home node only, first available node, all available nodes, node distribution"}, func(g *G) *Startup { return &g.Startup }, nil)
	plain := startup.write
	// What the startup policy leaves no choice about follows it; FALLOVER and FALLBACK in the same command are set after this.
	startup.write = func(d *Definition, g *G, v string) error {
		if err := plain(d, g, v); err != nil {
			return err
		}
		switch g.Startup {
		case OnlineOnAllAvailable:
			g.Fallover, g.Fallback = FalloverBringOffline, NeverFallback
		case OnlineUsingDistribution:
			g.Fallback = NeverFallback
		}
		return nil
	}
	return newClass(Class{Name: "resource_group", Aliases: []string{"rg"}, Doc: "what moves as one: addresses, storage, applications"},
		func(d *Definition) *[]G { return &d.ResourceGroups }, func(g *G) *string { return &g.Name },
		names(Attribute{Name: "NODES", Refers: "node", Required: true, Doc: "in order of priority; the first is the home node"}, func(g *G) *[]string { return &g.Nodes }),
		startup,
		enum(Attribute{Name: "FALLOVER", Aliases: []string{"FAILOVER"}, Values: []string{"FNPN", "FUDNP", "BO"}, Default: "FNPN",
			Doc: "next priority node, dynamic node priority, bring offline"}, func(g *G) *Fallover { return &g.Fallover }, nil),
		enum(Attribute{Name: "FALLBACK", Values: []string{"NFB", "FBHPN"}, Default: "FBHPN", Doc: "never, or to a node of higher priority when it comes back"},
			func(g *G) *Fallback { return &g.Fallback }, nil),
		text(Attribute{Name: "FALLBACK_AT", Kind: KindName, Refers: "fallback_timer", Doc: "the timer that says when it may fall back"},
			func(g *G) *string { return &g.FallbackAt }),
		enum(Attribute{Name: "NODE_PRIORITY_POLICY", Values: []string{"default", "mem", "cpu", "disk", "least", "most"}, Default: "default",
			Doc: "with FUDNP: most free memory, most idle processor, least busy disk, lowest or highest answer of the script"},
			func(g *G) *string { return &g.NodePriorityPolicy }, map[string]string{"default": ""}),
		text(Attribute{Name: "NODE_PRIORITY_POLICY_SCRIPT", Aliases: []string{"NODE_PRIORITY_SCRIPT"}, Kind: KindPath, Doc: "the script of least and most"},
			func(g *G) *string { return &g.NodePriorityScript }),
		seconds(Attribute{Name: "NODE_PRIORITY_POLICY_TIMEOUT", Aliases: []string{"NODE_PRIORITY_TIMEOUT"}, Doc: "how long that script may take"},
			func(g *G) *time.Duration { return &g.NodePriorityTimeout }),
		names(Attribute{Name: "SERVICE_LABEL", Aliases: []string{"SERVICE_LABELS", "SERVICE_IP"}, Refers: "service_ip", Doc: "its service IPs"},
			func(g *G) *[]string { return &g.ServiceIPs }),
		names(Attribute{Name: "APPLICATIONS", Aliases: []string{"APPLICATION"}, Refers: "application_controller", Doc: "its applications"},
			func(g *G) *[]string { return &g.Applications }),
		names(Attribute{Name: "FILESYSTEM", Aliases: []string{"FILESYSTEMS", "FILE_SYSTEM", "FILE_SYSTEMS"}, Refers: "file_system", Doc: "its file systems"},
			func(g *G) *[]string { return &g.FileSystems }),
		names(Attribute{Name: "VOLUME_GROUP", Aliases: []string{"VOLUME_GROUPS"}, Refers: "volume_group", Doc: "its volume groups"},
			func(g *G) *[]string { return &g.VolumeGroups }),
		names(Attribute{Name: "NFS_EXPORT", Aliases: []string{"NFS_EXPORTS"}, Refers: "nfs_export", Doc: "its NFS exports"},
			func(g *G) *[]string { return &g.NFSExports }),
		boolean(Attribute{Name: "FORCED_VARYON", Default: "false", Doc: "vary on although disks are missing"},
			func(g *G) bool { return g.ForcedVaryon }, func(g *G, v bool) { g.ForcedVaryon = v }),
		boolean(Attribute{Name: "VG_AUTO_IMPORT", Default: "false", Doc: "import a volume group that this node does not know"},
			func(g *G) bool { return g.VGAutoImport }, func(g *G, v bool) { g.VGAutoImport = v }),
		boolean(Attribute{Name: "FS_BEFORE_IPADDR", Default: "false", Doc: "file systems are mounted before the addresses come up"},
			func(g *G) bool { return g.FSBeforeIP }, func(g *G, v bool) { g.FSBeforeIP = v }),
		enum(Attribute{Name: "RECOVERY_METHOD", Values: []string{RecoverInParallel, RecoverSequentially}, Default: RecoverInParallel,
			Doc: "file systems are checked and mounted side by side, or one after another"}, func(g *G) *string { return &g.RecoveryMethod },
			map[string]string{RecoverInParallel: ""}),
		text(Attribute{Name: "NETWORK", Kind: KindName, Refers: "network", Doc: "a network without which the group cannot run"},
			func(g *G) *string { return &g.Network }),
		integer(Attribute{Name: "PRIORITY", Default: "0", Doc: "the higher is placed first when not all can be placed"},
			math.MinInt, math.MaxInt, func(g *G) *int { return &g.Priority }),
		integer(Attribute{Name: "WEIGHT", Default: "0", Doc: "what the group takes of a node's CAPACITY"}, 0, 1_000_000, func(g *G) *int { return &g.Weight }),
		enum(Attribute{Name: "ON_RELEASE_FAILURE", Values: []string{"error", "reset"}, Default: "error",
			Doc: "when it cannot be released: ERROR and wait for a human, or reset the node"}, func(g *G) *string { return &g.OnReleaseFailure }, nil),
	)
}

func timerClass() Class {
	type F = FallbackTimer
	return newClass(Class{Name: "fallback_timer", Aliases: []string{"fa", "timer"}, Doc: "a moment at which groups may fall back, in UTC"},
		func(d *Definition) *[]F { return &d.FallbackTimers }, func(f *F) *string { return &f.Name },
		enum(Attribute{Name: "REPEATS", Values: []string{"never", "daily", "weekly", "monthly", "yearly"}, Default: "daily", Doc: "how often"},
			func(f *F) *string { return &f.Repeats }, nil),
		integer(Attribute{Name: "YEAR", Doc: "with never"}, 1970, 9999, func(f *F) *int { return &f.Year }),
		integer(Attribute{Name: "MONTH", Doc: "1 to 12; with never and yearly"}, 1, 12, func(f *F) *int { return &f.Month }),
		integer(Attribute{Name: "DAY_OF_MONTH", Doc: "1 to 31; with never, monthly and yearly"}, 1, 31, func(f *F) *int { return &f.DayOfMonth }),
		integer(Attribute{Name: "DAY_OF_WEEK", Doc: "0 (Sunday) to 6; with weekly"}, 0, 6, func(f *F) *int { return &f.DayOfWeek }),
		integer(Attribute{Name: "HOUR", Doc: "0 to 23"}, 0, 23, func(f *F) *int { return &f.Hour }),
		integer(Attribute{Name: "MINUTE", Doc: "0 to 59"}, 0, 59, func(f *F) *int { return &f.Minute }),
	)
}

func fenceClass() Class {
	type F = FenceDevice
	return newClass(Class{Name: "fence_device", Aliases: []string{"fd", "fence"}, Doc: "what switches nodes off, and says whether they are off"},
		func(d *Definition) *[]F { return &d.FenceDevices }, func(f *F) *string { return &f.Name },
		text(Attribute{Name: "AGENT", Kind: KindPath, Required: true, Doc: "absolute path of a fence agent"}, func(f *F) *string { return &f.Agent }),
		names(Attribute{Name: "NODES", Refers: "node", Required: true, Doc: "the nodes that it can switch"}, func(f *F) *[]string { return &f.Nodes }),
		pairs(Attribute{Name: "PARAMS", Doc: "what the agent reads on its standard input, as name:value,...; give secrets by password_script"},
			func(f *F) *map[string]string { return &f.Params }, Secret),
		pairs(Attribute{Name: "PLUGS", Doc: "the agent's plug of each node, as node:plug,...; none: the node's name"},
			func(f *F) *map[string]string { return &f.Plugs }, notSecret),
		seconds(Attribute{Name: "TIMEOUT", Default: "20", Doc: "for one call of the agent"}, func(f *F) *time.Duration { return &f.Timeout }),
		field[F]{Attribute{Name: "LEVELS", Aliases: []string{"LEVEL"}, Kind: KindList,
			Doc: "the levels (1 to 9) in which it takes part: they are tried in order, and all devices of a level must say off; none: by itself, after them"},
			func(_ *Definition, f *F) string {
				var out []string
				for _, l := range f.Levels {
					out = append(out, strconv.Itoa(l))
				}
				return strings.Join(out, ",")
			},
			func(_ *Definition, f *F, v string) error {
				f.Levels = nil
				for _, word := range SplitList(v) {
					n, err := parseInt(word, 1, MaxFenceLevel)
					if err != nil {
						return err
					}
					f.Levels = append(f.Levels, n)
				}
				return nil
			}},
	)
}

func methodClass() Class {
	type M = Method
	return newClass(Class{Name: "method", Aliases: []string{"me"}, Doc: "a program of your own that a verification runs on the nodes"},
		func(d *Definition) *[]M { return &d.Methods }, func(m *M) *string { return &m.Name },
		enum(Attribute{Name: "TYPE", Values: []string{MethodVerify}, Default: MethodVerify, Doc: "when it runs"}, func(m *M) *string { return &m.Type }, nil),
		text(Attribute{Name: "FILE", Kind: KindPath, Required: true, Doc: "the program; 0 means well, anything else is a finding that its output explains"},
			func(m *M) *string { return &m.File }),
		text(Attribute{Name: "DESCRIPTION", Doc: "what it looks at"}, func(m *M) *string { return &m.Description }),
		names(Attribute{Name: "NODES", Refers: "node", Doc: "where it runs; none: on all nodes"}, func(m *M) *[]string { return &m.Nodes }),
		seconds(Attribute{Name: "TIMEOUT", Default: "30", Doc: "how long it may take"}, func(m *M) *time.Duration { return &m.Timeout }),
	)
}

func waiverClass() Class {
	type W = Waiver
	return newClass(Class{Name: "waiver", Aliases: []string{"wa"}, Doc: "a finding of the verification that is known and accepted"},
		func(d *Definition) *[]W { return &d.Waivers }, func(w *W) *string { return &w.Name },
		text(Attribute{Name: "CHECK", Required: true, Doc: "the check's number, as V0408"}, func(w *W) *string { return &w.Check }),
		text(Attribute{Name: "NODE", Kind: KindName, Refers: "node", Doc: "on this node; none: on any"}, func(w *W) *string { return &w.Node }),
		text(Attribute{Name: "OBJECT", Doc: "of this object, as the finding shows it; none: of any"}, func(w *W) *string { return &w.Object }),
		text(Attribute{Name: "REASON", Required: true, Doc: "why it is accepted"}, func(w *W) *string { return &w.Reason }),
		text(Attribute{Name: "EXPIRES", Doc: "the last day on which it is, as 2027-01-31 (UTC); none: it does not end"}, func(w *W) *string { return &w.Expires }),
	)
}

func collectionClass() Class {
	type F = FileCollection
	return newClass(Class{Name: "file_collection", Aliases: []string{"fc"}, Doc: "files that are to be the same on their nodes"},
		func(d *Definition) *[]F { return &d.FileCollections }, func(f *F) *string { return &f.Name },
		names(Attribute{Name: "FILES", Kind: KindList, Required: true, Doc: "absolute paths; each has at most 512 KiB"}, func(f *F) *[]string { return &f.Files }),
		text(Attribute{Name: "DESCRIPTION", Doc: "what it is for"}, func(f *F) *string { return &f.Description }),
		names(Attribute{Name: "NODES", Refers: "node", Doc: "where the files are the same; none: on all nodes"}, func(f *F) *[]string { return &f.Nodes }),
		text(Attribute{Name: "SOURCE", Kind: KindName, Refers: "node", Doc: "the node whose copy wins; none: it is said with each sync file_collection"},
			func(f *F) *string { return &f.Source }),
		boolean(Attribute{Name: "SYNC_WITH_CLUSTER", Default: "false", Doc: "with each clmgr sync cluster; needs SOURCE"},
			func(f *F) bool { return f.SyncWithCluster }, func(f *F, v bool) { f.SyncWithCluster = v }),
		boolean(Attribute{Name: "SYNC_WHEN_CHANGED", Default: "false", Doc: "by itself, every FC_SYNC_INTERVAL; needs SOURCE"},
			func(f *F) bool { return f.SyncWhenChanged }, func(f *F, v bool) { f.SyncWhenChanged = v }),
	)
}

func repositoryClass() Class {
	type F = Repository
	return newClass(Class{Name: "repository", Aliases: []string{"rp", "repo"}, Doc: "a shared file or disk that carries the third vote of two nodes"},
		func(d *Definition) *[]F { return &d.Repositories }, func(f *F) *string { return &f.Name },
		text(Attribute{Name: "DEVICE", Kind: KindPath, Required: true, Doc: "absolute path of the file or raw device, the same on all nodes"},
			func(f *F) *string { return &f.Device }),
		text(Attribute{Name: "UUID", ReadOnly: true, Doc: "of the volume's format; written by clmgr format repository"}, func(f *F) *string { return &f.UUID }),
		field[F]{Attribute{Name: "STATE", Kind: KindEnum, ReadOnly: true,
			Values: []string{RepositoryActive, RepositoryBackup, RepositoryLost, RepositoryUnformatted},
			Doc:    "active: in use; backup: takes its place; lost: a backup has taken its place; unformatted: clmgr format repository is due"},
			func(d *Definition, f *F) string { return d.RepositoryState(f) },
			func(*Definition, *F, string) error { return nil }},
	)
}
