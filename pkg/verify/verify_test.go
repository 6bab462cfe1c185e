package verify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// healthy is a cluster in which nothing is to be found.
func healthy() *verify.Input {
	three := 3
	d := &cluster.Definition{
		Name:        "prod",
		Networks:    []cluster.Network{{Name: "net1", Prefix: 24}, {Name: "net2", Prefix: 24}},
		ServiceIPs:  []cluster.ServiceIP{{Name: "app_svc", Address: "10.1.1.100", Network: "net1"}},
		FileSystems: []cluster.FileSystem{{Name: "app_fs", Device: "/dev/mapper/app", MountPoint: "/app", Type: "ext4"}},
		ApplicationControllers: []cluster.ApplicationController{{Name: "app", StartScript: "/ha/start", StopScript: "/ha/stop", StopTimeout: time.Second,
			Monitors: []string{"app_mon"}}},
		ApplicationMonitors: []cluster.ApplicationMonitor{{Name: "app_mon", Type: "process", Processes: []string{"appd"}, Owner: "app", RestartCount: &three,
			FailureAction: "fallover"}},
		ResourceGroups: []cluster.ResourceGroup{{Name: "app_rg", Nodes: []string{"n1", "n2", "n3"}, ServiceIPs: []string{"app_svc"},
			FileSystems: []string{"app_fs"}, Applications: []string{"app"}}},
		FenceDevices: []cluster.FenceDevice{{Name: "power", Agent: "/sbin/fence", Nodes: []string{"n1", "n2", "n3"}}},
	}
	p, _ := lease.Profile("")
	st := &api.Status{Cluster: api.Cluster{Name: "prod", State: api.ClusterStable, Quorum: api.Quorum{Have: true, Voters: 3, Needed: 2, Alive: 3}}}
	in := &verify.Input{Definition: d, Params: p, Nodes: map[string]*verify.Facts{}, Silent: map[string]string{}, Status: st, Now: now}
	g := api.Group{Name: "app_rg", Nodes: []string{"n1", "n2", "n3"}}
	for i, n := range []string{"n1", "n2", "n3"} {
		d.Nodes = append(d.Nodes, cluster.Node{Name: n, Addresses: map[string]string{"net1": fmt.Sprintf("10.1.1.%d/24", i+1), "net2": fmt.Sprintf("10.2.2.%d/24", i+1)}})
		st.Nodes = append(st.Nodes, api.Node{Name: n, State: api.NodeNormal})
		in.Nodes[n] = facts(n, i+1)
		state := api.GroupOffline
		if n == "n1" {
			state = api.GroupOnline
		}
		g.Instances = append(g.Instances, api.Instance{Node: n, State: state})
	}
	st.Groups = []api.Group{g}
	in.Nodes["n1"].Interfaces[1].Addresses = append(in.Nodes["n1"].Interfaces[1].Addresses, "10.1.1.100/24")
	in.Nodes["n1"].Mounts = []verify.Mount{{Source: "/dev/mapper/app", Point: "/app", Type: "ext4"}}
	d.Defaults()
	return in
}

func facts(n string, i int) *verify.Facts {
	yes := true
	script := verify.File{Exists: true, Kind: "file", Mode: 0o755, Size: 100, Digest: strings.Repeat("ab", 32), Script: "/bin/sh", Runner: true}
	addr := func(net int) []string { return []string{fmt.Sprintf("10.%d.%d.%d/24", net, net, i)} }
	return &verify.Facts{
		Node: n, Time: now, Version: "1.0", Format: 2, Definition: 7,
		System: verify.System{OS: "linux", Arch: "amd64", Kernel: "6.1", Hostname: n, TimeZone: "UTC", MemoryMiB: 16000, ClockSynchronised: &yes},
		Interfaces: []verify.Interface{{Name: "lo", Up: true, Loopback: true, Addresses: []string{"127.0.0.1/8"}},
			{Name: "bond0", Up: true, Carrier: "up", MTU: 1500, Addresses: addr(1)}, {Name: "bond1", Up: true, Carrier: "up", MTU: 1500, Addresses: addr(2)}},
		Names:    map[string]verify.Name{"app_svc": {Addresses: []string{"10.1.1.100"}}, n: {Addresses: []string{fmt.Sprintf("10.1.1.%d", i)}}},
		Files:    map[string]verify.File{"/ha/start": script, "/ha/stop": script, "/sbin/fence": script, "/app": {Exists: true, Kind: "directory", Empty: true}},
		Devices:  map[string]verify.Device{"/dev/mapper/app": {Exists: true, Kind: "block", Type: "ext", UUID: "u-1"}},
		Space:    map[string]verify.Space{"/var/lib/holdfast": {Purpose: "the daemon's state", FreeMiB: 5000, TotalMiB: 10000, NeedMiB: 64, Inodes: 1000, FreeInodes: 900}},
		Users:    map[string]string{"app": "1001"},
		Programs: map[string]string{"fsck.ext4": "/sbin/fsck.ext4"},
		Settings: map[string]string{"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.all.arp_ignore": "0", "net.ipv6.conf.all.disable_ipv6": "0"},
		Units:    map[string]verify.Unit{"holdfast.service": {Exists: true, Enabled: true}},
		Certs:    []verify.Cert{{What: "the node's certificate", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(5, 0, 0)}},
		CA:       strings.Repeat("c", 64),
		Deadman: verify.Deadman{Connected: true, Class: "independent", Backend: "watchdog", Mode: "a", Watchdog: 5 * time.Second, Counted: 5 * time.Second, Held: true,
			WorstMargin: 400 * time.Millisecond},
		Daemon: verify.Daemon{Port: 6191, GossipPort: 6192, Metrics: "127.0.0.1:6193", Files: map[string]verify.File{"/k": {Exists: true, Kind: "file", Mode: 0o600}}},
		Power:  map[string]verify.Power{},
	}
}

func TestAHealthyClusterHasNoFindings(t *testing.T) {
	r := verify.Run(healthy())
	for _, f := range r.Findings {
		t.Errorf("%s %s %s: %s", f.Check, f.Node, f.Object, f.Saw)
	}
	if r.Failed() || r.Checks < 60 || r.Passed != r.Checks {
		t.Errorf("%d checks, %d passed", r.Checks, r.Passed)
	}
}

// A plant spoils a healthy cluster in the way that one check must see; want is the node that it must name ("": the cluster).
type plant struct {
	want  string
	spoil func(in *verify.Input, d *cluster.Definition, n2 *verify.Facts)
}

func file(n *verify.Facts, p string, change func(*verify.File)) {
	f := n.Files[p]
	change(&f)
	n.Files[p] = f
}

var plants = map[string]plant{
	"V0101": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Faults = []api.Fault{{Key: "nodes", Message: "none"}}
	}},
	"V0102": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Networks[1].Name = "all" }},
	"V0103": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Networks[1].Name = "NET1" }},
	"V0201": {"n3", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		delete(in.Nodes, "n3")
		in.Silent["n3"] = "no answer in time"
	}},
	"V0202": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Interfaces[2].Addresses = nil }},
	"V0203": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Interfaces[2].Carrier = "down" }},
	"V0204": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Interfaces[2].Name = "eth1" }},
	"V0205": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Reach = []verify.Reach{{Node: "n1", Network: "net2", Address: "10.2.2.1", Error: "refused"}}
	}},
	"V0206": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces[1].Addresses[0] = "10.1.1.2/16"
	}},
	"V0301": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Definition = 6 }},
	"V0302": {"", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces[1].Addresses = append(n.Interfaces[1].Addresses, "10.1.1.100/24")
	}},
	"V0303": {"n2", func(in *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces[1].Addresses = append(n.Interfaces[1].Addresses, "10.1.1.100/24")
	}},
	"V0304": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Mounts = []verify.Mount{{Source: "/dev/mapper/app", Point: "/app"}}
	}},
	"V0401": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Devices["/dev/mapper/app"] = verify.Device{}
	}},
	"V0402": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Devices["/dev/mapper/app"] = verify.Device{Exists: true, Type: "ext", UUID: "u-2"}
	}},
	"V0403": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Files["/app"] = verify.File{} }},
	"V0404": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Files["/app"] = verify.File{Exists: true, Kind: "file"}
	}},
	"V0405": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/app", func(f *verify.File) { f.Empty = false })
	}},
	"V0406": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Boot = []verify.Mount{{Source: "UUID=u-1", Point: "/srv", Type: "ext4", Auto: true, Line: 9}}
	}},
	"V0407": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Programs["fsck.ext4"] = "" }},
	"V0408": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.FileSystems[0].Device = "/dev/sdb1" }},
	"V0409": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		n.Devices["/dev/mapper/app"] = verify.Device{Exists: true, Type: "xfs"}
	}},
	"V0410": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Boot = []verify.Mount{{Source: "tmpfs", Point: "/app", Line: 3}}
	}},
	"V0501": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Version = "0.9" }},
	"V0502": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Format = 1 }},
	"V0503": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.System.Kernel = "5.4" }},
	"V0504": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.System.MemoryMiB = 4000 }},
	"V0505": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.System.UID = 1000 }},
	"V0601": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Names["app_svc"] = verify.Name{Addresses: []string{"10.1.1.99"}}
	}},
	"V0602": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Names["app_svc"] = verify.Name{Error: "no such host"}
	}},
	"V0603": {"n2", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.ServiceIPs[0].Address = "10.1.1.2" }},
	"V0604": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Interfaces[1].MTU = 9000 }},
	"V0605": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		d.ServiceIPs[0].Interface = "bond0"
		n.Interfaces[1].Name = "eth9"
	}},
	"V0606": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		d.ServiceIPs[0].Address = "fd00::9"
		n.Settings["net.ipv6.conf.all.disable_ipv6"] = "1"
	}},
	"V0607": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces[1].Addresses[0] = "10.1.1.2/16"
	}},
	"V0608": {"n2", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.Nodes[1].Addresses["net2"] = "10.1.1.222/24"
	}},
	"V0609": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces[1].Addresses = append(n.Interfaces[1].Addresses, "10.1.1.3/24")
	}},
	"V0701": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.System.Hostname = "app_svc.example.com"
	}},
	"V0702": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Names["n2"] = verify.Name{Addresses: []string{"127.0.1.1"}}
	}},
	"V0703": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.System.Hostname = "n1" }},
	"V0901": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.ResourceGroups[0].ServiceIPs = nil }},
	"V0902": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: "empty", Nodes: []string{"n1", "n2"}})
	}},
	"V1201": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Files["/ha/start"] = verify.File{} }},
	"V1202": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.Mode = 0o644 })
	}},
	"V1203": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.Mode, f.Unsafe = 0o777, "/ha/start can be written by everybody" })
	}},
	"V1204": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.Digest = "0123456789abcdef" })
	}},
	"V1205": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.NoHead = true })
	}},
	"V1206": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.Runner = false })
	}},
	"V1207": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		file(n, "/ha/start", func(f *verify.File) { f.Size = 0 })
	}},
	"V1208": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationControllers[0].StopScript = "/ha/start"
	}},
	"V1301": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		for i := range 4 {
			d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: fmt.Sprint("x", i), Nodes: []string{"n1", "n2"}, Startup: "OUDP", ServiceIPs: []string{"app_svc"}})
		}
	}},
	"V1302": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ResourceGroups[0].Fallover, d.ResourceGroups[0].Nodes = "FUDNP", []string{"n1", "n2"}
	}},
	"V1303": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ResourceGroups[0].Nodes = []string{"n1"}
	}},
	"V1304": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationMonitors[0].Mode = "startup"
	}},
	"V1305": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationMonitors[0].FailureAction = "notify"
	}},
	"V1306": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationControllers[0].StartupMode = "background"
	}},
	"V1307": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.ResourceGroups[0].Fallover = "BO" }},
	"V1401": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ResourceGroups = append(d.ResourceGroups, cluster.ResourceGroup{Name: "p", Nodes: []string{"n1", "n2"}, ServiceIPs: []string{"app_svc"}})
		d.Dependencies = []cluster.Dependency{{Parent: "p", Child: "app_rg"}}
	}},
	"V1501": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.FallbackTimers = []cluster.FallbackTimer{{Name: "t", Repeats: "daily"}}
	}},
	"V1502": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.FallbackTimers = []cluster.FallbackTimer{{Name: "t", Repeats: "never", Year: 2020, Month: 1, DayOfMonth: 1}}
	}},
	"V1503": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Settings.SettlingTime = time.Minute }},
	"V1601": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Units["holdfast.service"] = verify.Unit{Exists: true}
	}},
	"V1602": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Daemon.Metrics = ":6193" }},
	"V1603": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Daemon.GossipPort = 7000 }},
	"V1701": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Settings["net.ipv4.conf.all.rp_filter"] = "1"
		n.Interfaces = append(n.Interfaces, verify.Interface{Name: "eth5", Addresses: []string{"10.1.1.77/24"}})
	}},
	"V1702": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Interfaces = append(n.Interfaces, verify.Interface{Name: "eth5", Addresses: []string{"10.1.1.77/24"}})
	}},
	"V1801": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Networks = d.Networks[:1] }},
	"V1802": {"n2", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { delete(d.Nodes[1].Addresses, "net2") }},
	"V1803": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.Nodes = append(d.Nodes, cluster.Node{Name: "n4"})
	}},
	"V2001": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		d.FenceDevices = nil
		n.Deadman.Class = "process"
	}},
	"V2002": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Deadman.Backend = "none" }},
	"V2003": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Deadman.Connected = false }},
	"V2004": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Deadman.Watchdog = 30 * time.Second }},
	"V2005": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Deadman.Held, n.Deadman.Counted = false, 10*time.Second
	}},
	"V2006": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Deadman.Warnings = []string{"no real-time priority"}
	}},
	"V2007": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Settings.DeadmanMode = "e" }},
	"V2008": {"n2", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.FenceDevices[0].Nodes = []string{"n1", "n3"}
	}},
	"V2009": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Power["power/n3"] = verify.Power{Error: "timed out"}
	}},
	"V2010": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Power["power/n3"] = verify.Power{State: "off"}
	}},
	"V2011": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		d.FenceDevices = nil
		n.System.Virtual = "QEMU"
	}},
	"V2012": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) { d.Settings.WaiveTimeProof = true }},
	"V2013": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Deadman.TakenOver = true }},
	"V2014": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Deadman.WorstMargin = time.Millisecond
	}},
	"V2101": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Users["app"] = "" }},
	"V2102": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.Users["app"] = "1002" }},
	"V2601": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Skew, n.Uncertain = -5*time.Second, 100*time.Millisecond
	}},
	"V2602": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		no := false
		n.System.ClockSynchronised = &no
	}},
	"V2603": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Certs[0].NotAfter = now.AddDate(0, 0, 3)
	}},
	"V2604": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Daemon.Files["/k"] = verify.File{Exists: true, Kind: "file", Mode: 0o640}
	}},
	"V2605": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.System.TimeZone = "CET" }},
	"V2606": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) { n.CA = strings.Repeat("d", 64) }},
	"V2701": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		n.Methods = map[string]verify.MethodRun{"m": {Exit: 3, Output: "no backup"}}
	}},
	"V2801": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		space(n, func(s *verify.Space) { s.FreeMiB = 3 })
	}},
	"V2802": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		space(n, func(s *verify.Space) { s.FreeInodes = 3 })
	}},
	"V2803": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		space(n, func(s *verify.Space) { s.ReadOnly = true })
	}},
	"V2804": {"n2", func(_ *verify.Input, _ *cluster.Definition, n *verify.Facts) {
		space(n, func(s *verify.Space) { s.TemporaryFileSystem = true })
	}},
	"V2805": {"n2", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.Nodes[0].Capacity, d.Nodes[1].Capacity, d.Nodes[2].Capacity, d.ResourceGroups[0].Weight = 1, 9, 1, 5
	}},
	"V2901": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationControllers[0].StopTimeout = time.Minute
	}},
	"V2902": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationControllers[0].StartTimeout = time.Hour
	}},
	"V2903": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.ApplicationMonitors[0].Type, d.ApplicationMonitors[0].MonitorInterval = "custom", 10*time.Minute
	}},
	"V2904": {"n2", func(_ *verify.Input, d *cluster.Definition, n *verify.Facts) {
		d.Settings.Profile = "fast"
		n.System.Virtual = "KVM"
	}},
	"V3001": {"n2", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Status.Groups[0].Instances[1].State = api.GroupError
	}},
	"V3002": {"n2", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Status.Nodes[1].State = api.NodeQuarantined
	}},
	"V3003": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) { in.Status.Cluster.Quorum.Alive = 2 }},
	"V3009": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Status.Cluster.Quorum.Risk = "the repository volume is not formatted"
	}},
	"V3004": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) { in.Status.Groups[0].Suspended = true }},
	"V3005": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) { in.Unsynced = now.Add(-25 * time.Hour) }},
	"V3006": {"", func(_ *verify.Input, d *cluster.Definition, _ *verify.Facts) {
		d.Waivers = []cluster.Waiver{{Name: "w", Check: "V1801", Reason: "known", Expires: "2026-11-21"}}
	}},
	"V3007": {"n2", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Status.Nodes[1].State = api.NodeOffline
	}},
	"V3008": {"", func(in *verify.Input, _ *cluster.Definition, _ *verify.Facts) {
		in.Status.Groups[0].Instances[0].State = api.GroupOffline
	}},
}

func space(n *verify.Facts, change func(*verify.Space)) {
	s := n.Space["/var/lib/holdfast"]
	change(&s)
	n.Space["/var/lib/holdfast"] = s
}

// Every check must see what it is there for, name the node, and say why and what to do.
func TestEveryCheckSeesItsFault(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range verify.Checks() {
		if seen[c.ID] {
			t.Errorf("the number %s is given twice", c.ID)
		}
		seen[c.ID] = true
		if c.Title == "" || c.Why == "" || c.Fix == "" || verify.Subjects[c.ID[1:3]] == "" {
			t.Errorf("%s says too little", c.ID)
		}
		p, ok := plants[c.ID]
		if !ok {
			t.Errorf("nothing shows that %s sees anything", c.ID)
			continue
		}
		in := healthy()
		p.spoil(in, in.Definition, in.Nodes["n2"])
		found := false
		for _, f := range verify.Run(in).Findings {
			found = found || f.Check == c.ID && f.Node == p.want && f.Saw != ""
		}
		if !found {
			t.Errorf("%s (%s) does not see its fault on %q: %+v", c.ID, c.Title, p.want, verify.Run(in).Findings)
		}
	}
}

// What a node could not look at is listed, and never counts as well or as broken.
func TestWhatWasMissedIsSaid(t *testing.T) {
	in := healthy()
	in.Nodes["n2"].Files, in.Nodes["n2"].Missed = nil, map[string]string{"files": "no answer within 4s"}
	r := verify.Run(in)
	if r.Failed() || !strings.Contains(strings.Join(r.NotChecked, "\n"), "files on node n2: no answer within 4s") {
		t.Errorf("%+v %q", r.Findings, r.NotChecked)
	}
}

func TestWaivers(t *testing.T) {
	spoiled := func(w cluster.Waiver) api.VerifyReport {
		in := healthy()
		file(in.Nodes["n2"], "/ha/start", func(f *verify.File) { f.Mode = 0o644 })
		in.Definition.Waivers = []cluster.Waiver{w}
		return verify.Run(in)
	}
	for name, tc := range map[string]struct {
		w      cluster.Waiver
		failed bool
	}{
		"covers":          {cluster.Waiver{Name: "w", Check: "V1202", Node: "n2", Reason: "r"}, false},
		"its last day":    {cluster.Waiver{Name: "w", Check: "V1202", Reason: "r", Expires: "2026-11-22"}, false},
		"the day after":   {cluster.Waiver{Name: "w", Check: "V1202", Reason: "r", Expires: "2026-11-21"}, true},
		"another node":    {cluster.Waiver{Name: "w", Check: "V1202", Node: "n1", Reason: "r"}, true},
		"another object":  {cluster.Waiver{Name: "w", Check: "V1202", Object: "method x", Reason: "r"}, true},
		"another check":   {cluster.Waiver{Name: "w", Check: "V1203", Reason: "r"}, true},
		"no such check":   {cluster.Waiver{Name: "w", Check: "V9999", Reason: "r"}, true},
		"of the one only": {cluster.Waiver{Name: "w", Check: "V1202", Object: "application_controller app", Reason: "r"}, false},
	} {
		if r := spoiled(tc.w); r.Failed() != tc.failed {
			t.Errorf("%s: failed is %t: %+v", name, r.Failed(), r.Findings)
		}
	}
}

// Only what is safe is repaired, on the node where it is, and not what is waived.
func TestActions(t *testing.T) {
	in := healthy()
	n2 := in.Nodes["n2"]
	n2.Files["/app"] = verify.File{}
	file(n2, "/ha/start", func(f *verify.File) { f.Mode = 0o600 })
	n2.Boot = []verify.Mount{{Source: "/dev/mapper/app", Point: "/app", Auto: true}}
	n2.Users["app"] = ""
	kinds := ""
	for _, a := range verify.Actions(in, "n2") {
		kinds += a.Kind + " "
	}
	if kinds != "mkdir noauto chmod " || len(verify.Actions(in, "n1")) != 0 {
		t.Errorf("got %q", kinds)
	}
	in.Definition.Waivers = []cluster.Waiver{{Name: "w", Check: "V1202", Reason: "r"}}
	if n := len(verify.Actions(in, "n2")); n != 2 {
		t.Errorf("%d actions although one is waived", n)
	}
}

// A logical volume's device is there only where its volume group is active.
func TestADeviceOfAVolumeGroup(t *testing.T) {
	in := healthy()
	in.Definition.VolumeGroups = []cluster.VolumeGroup{{Name: "vg"}}
	in.Definition.ResourceGroups[0].VolumeGroups = []string{"vg"}
	in.Nodes["n2"].Devices["/dev/mapper/app"] = verify.Device{}
	if r := verify.Run(in); len(r.Findings) != 0 {
		t.Errorf("%+v", r.Findings)
	}
}

func TestCompareIsQuietWhenNothingChanged(t *testing.T) {
	a, b := verify.Run(healthy()), verify.Run(healthy())
	if x, y := verify.Compare(&a, &b); len(x)+len(y) != 0 {
		t.Errorf("%v %v", x, y)
	}
	in := healthy()
	in.Nodes["n2"].Interfaces[1].MTU = 9000
	c := verify.Run(in)
	if x, y := verify.Compare(&a, &c); len(x) != 1 || x[0].Check != "V0604" || len(y) != 0 {
		t.Errorf("%v %v", x, y)
	}
	if x, y := verify.Compare(&c, &a); len(x) != 0 || len(y) != 1 {
		t.Errorf("%v %v", x, y)
	}
}

// A verification without a single fact must not fall over: a node may answer nothing, and a definition may be empty.
func TestEmptyInputs(t *testing.T) {
	verify.Run(&verify.Input{})
	verify.Run(&verify.Input{Definition: &cluster.Definition{}, Nodes: map[string]*verify.Facts{"x": {}}})
	in := healthy()
	in.Nodes["n2"] = &verify.Facts{Node: "n2"}
	verify.Run(in)
	in.Status = nil
	verify.Run(in)
}

func BenchmarkRun32Nodes(b *testing.B) {
	in := healthy()
	base := in.Nodes["n1"]
	for i := 4; i <= 32; i++ {
		n := fmt.Sprint("n", i)
		in.Definition.Nodes = append(in.Definition.Nodes, cluster.Node{Name: n, Addresses: map[string]string{"net1": fmt.Sprintf("10.1.1.%d/24", i)}})
		f := *base
		f.Node = n
		in.Nodes[n] = &f
	}
	for b.Loop() {
		verify.Run(in)
	}
}

// Interfaces that the definition names are looked at one by one, and a network with several is no single point of failure.
func TestNamedInterfaces(t *testing.T) {
	find := func(spoil func(n *verify.Facts), names ...string) (seen []string) {
		in := healthy()
		n := in.Nodes["n2"]
		for i := range n.Interfaces {
			n.Interfaces[i].Name = strings.Replace(n.Interfaces[i].Name, "bond", "eth", 1)
		}
		n.Interfaces = append(n.Interfaces, verify.Interface{Name: "eth2", Up: true, Carrier: "up", MTU: 1500})
		in.Definition.Nodes[1].Interfaces = map[string][]string{"net1": names}
		spoil(n)
		for _, f := range verify.Run(in).Findings {
			if f.Node == "n2" && (f.Check == "V0203" || f.Check == "V0204") && f.Object == "network net1" {
				seen = append(seen, f.Saw)
			}
		}
		return seen
	}
	for _, c := range []struct {
		spoil func(n *verify.Facts)
		names []string
		want  string
	}{
		{func(*verify.Facts) {}, []string{"eth0", "eth2"}, ""},
		{func(*verify.Facts) {}, []string{"eth0", "eth7"}, "there is no interface eth7, which the definition names"},
		{func(n *verify.Facts) { n.Interfaces[3].Carrier = "down" }, []string{"eth0", "eth2"}, "the interface eth2 has no link"},
		{func(n *verify.Facts) { n.Interfaces[3].Up = false }, []string{"eth2", "eth0"}, "the interface eth2 is switched off"},
		{func(n *verify.Facts) { n.Interfaces[1].Up = false }, []string{"eth0", "eth2"}, "the interface eth0 is switched off"},
		{func(*verify.Facts) {}, []string{"eth0"}, "only the interface eth0"},
	} {
		if got := strings.Join(find(c.spoil, c.names...), "; "); got != c.want {
			t.Errorf("%v: %q, wanted %q", c.names, got, c.want)
		}
	}
}
