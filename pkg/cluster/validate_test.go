package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// whole is a definition that uses everything and has nothing wrong with it.
func whole() *Definition {
	three := 3
	return &Definition{
		Name: "prod",
		Nodes: []Node{
			{Name: "node1", Addresses: map[string]string{"net1": "10.1.1.1/24", "net2": "10.2.2.1/24"}, Interfaces: map[string][]string{"net1": {"eth0", "eth2"}}},
			{Name: "node2", Addresses: map[string]string{"net1": "10.1.1.2/24", "net2": "10.2.2.2/24"}},
			{Name: "node3", Addresses: map[string]string{"net1": "10.1.1.3/24"}, Capacity: 10},
		},
		Networks:   []Network{{Name: "net1", ProbeTargets: []string{"10.1.1.254"}}, {Name: "net2", Private: true}},
		ServiceIPs: []ServiceIP{{Name: "svc1", Address: "10.1.1.10", Network: "net1"}, {Name: "svc2", Address: "10.1.1.11", Network: "net1"}},
		PersistentIPs: []PersistentIP{
			{Name: "per1", Address: "10.1.1.21", Node: "node1", Network: "net1"}},
		FileSystems: []FileSystem{
			{Name: "fs1", Device: "/dev/vg/lv1", MountPoint: "/data"},
			{Name: "fs2", Device: "UUID=1234", MountPoint: "/data/log"},
			{Name: "fs3", Device: "/dev/vg/lv3", MountPoint: "/web"}},
		ApplicationControllers: []ApplicationController{
			{Name: "app1", StartScript: "/ha/start", StopScript: "/ha/stop", Monitors: []string{"mon1", "mon2"}},
			{Name: "app2", StartScript: "/ha/start2", StopScript: "/ha/stop2"}},
		ApplicationMonitors: []ApplicationMonitor{
			{Name: "mon1", Type: "process", Processes: []string{"oracle"}, RestartCount: &three},
			{Name: "mon2", Type: "custom", MonitorMethod: "/ha/check", MonitorInterval: 500 * time.Millisecond, Stabilization: time.Second}},
		FenceDevices: []FenceDevice{{Name: "pdu", Agent: "/usr/sbin/fence_apc", Nodes: []string{"node1", "node2"}, Plugs: map[string]string{"node1": "4"}}},
		ResourceGroups: []ResourceGroup{
			{Name: "db_rg", Nodes: []string{"node1", "node2"}, ServiceIPs: []string{"svc1"}, FileSystems: []string{"fs1", "fs2"}, Applications: []string{"app1"}},
			{Name: "web_rg", Nodes: []string{"node2", "node1", "node3"}, Startup: "OFAN", FallbackAt: "weekend", ServiceIPs: []string{"svc2"}, FileSystems: []string{"fs3"}, Applications: []string{"app2"}},
			{Name: "mon_rg", Nodes: []string{"node1", "node2", "node3"}, Startup: "OAAN"},
			{Name: "dnp_rg", Nodes: []string{"node1", "node2", "node3"}, Fallover: "FUDNP", NodePriorityPolicy: "cpu"},
			{Name: "low_rg", Nodes: []string{"node3", "node2"}, Startup: "OUDP"},
		},
		Dependencies: []Dependency{{Parent: "db_rg", Child: "web_rg"}, {Start: "dnp_rg", After: "web_rg"}, {Stop: "dnp_rg", After: "low_rg"},
			{SameNode: []string{"db_rg", "dnp_rg"}}, {DifferentNodes: &DifferentNodes{High: []string{"web_rg"}, Low: []string{"low_rg"}}}},
		FallbackTimers: []FallbackTimer{{Name: "weekend", Repeats: "weekly", Hour: 2}},
		Methods:        []Method{{Name: "backup_ran", Type: "verify", File: "/opt/db/check", Nodes: []string{"node1"}}},
		Events: []EventCommands{{Name: "node_down", Notify: "/ha/tell", Pre: []string{"/ha/pre1", "/ha/pre2"}, Post: []string{"/ha/post"}},
			{Name: "start_server", FailOnError: true, Pre: []string{"/ha/pre"}, Recovery: "/ha/recover", RecoveryLimit: 3, Timeout: time.Minute}},
		Waivers:  []Waiver{{Name: "one_net", Check: "V1801", Node: "node1", Reason: "the second switch comes in spring", Expires: "2027-04-01"}},
		Settings: Settings{SettlingTime: 30 * time.Second, Profile: "fast"},
	}
}

func TestAWholeDefinitionIsValid(t *testing.T) {
	for _, p := range whole().Validate() {
		t.Error(p)
	}
	for _, p := range session(t).Validate() {
		t.Error(p)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, w := range []struct {
		name  string
		spoil func(d *Definition)
		path  string
		text  string // in "text: want"
	}{
		{"no name", func(d *Definition) { d.Name = "" }, "name", "a name is needed"},
		{"no such event", func(d *Definition) { d.Events[0].Name = "node_donw" }, "events[0].name", `did you mean "node_down"?`},
		{"an event twice", func(d *Definition) {
			d.Events[1].Name = "node_down"
			d.Events[1].FailOnError = false
			d.Events[1].Recovery = "/x"
		},
			"events[1].name", "there is a event_command node_down already"},
		{"an event without commands", func(d *Definition) { d.Events[0] = EventCommands{Name: "node_up"} }, "events[0].name", "no command is given"},
		{"a command with arguments", func(d *Definition) { d.Events[0].Pre[1] = "/ha/pre $(id)" }, "events[0].pre[1]", "has blanks"},
		{"a relative command", func(d *Definition) { d.Events[0].Notify = "tell" }, "events[0].notify", "tell"},
		{"a command twice", func(d *Definition) { d.Events[0].Pre[1] = "/ha/pre1" }, "events[0].pre[1]", "/ha/pre1"},
		{"a fact cannot fail", func(d *Definition) { d.Events[0].FailOnError = true }, "events[0].fail_on_error", "cannot fail any more"},
		{"a fact cannot be tried again", func(d *Definition) { d.Events[0].Recovery = "/ha/x" }, "events[0].recovery", "cannot be tried again"},
		{"a move cannot be tried again", func(d *Definition) { d.Events[1].Name, d.Events[1].FailOnError = "rg_move_acquire", false },
			"events[1].recovery", "fail_on_error: true"},
		{"tries without recovery", func(d *Definition) { d.Events[1].Recovery = "" }, "events[1].recovery_limit", "no recovery command"},
		{"too many tries", func(d *Definition) { d.Events[1].RecoveryLimit = 99 }, "events[1].recovery_limit", "1 to 10"},
		{"an event without an end", func(d *Definition) { d.Events[0].Timeout = 2 * time.Hour }, "events[0].timeout", "at most 1h"},
		{"bad name", func(d *Definition) { d.Name = "a b" }, "name", "letters, digits"},
		{"no nodes", func(d *Definition) { *d = Definition{Name: "c"} }, "nodes", "at least one node"},
		{"too many nodes", func(d *Definition) {
			for i := range 33 {
				d.Nodes = append(d.Nodes, Node{Name: fmt.Sprintf("n%d", i)})
			}
		}, "nodes", "at most 32"},
		{"long node name", func(d *Definition) { d.Nodes[0].Name = long }, "nodes[0].name", "at most 64"},
		{"two nodes of one name", func(d *Definition) { d.Nodes[1].Name = "node1" }, "nodes[1].name", "nodes[0]"},
		{"group called as a node", func(d *Definition) { d.ResourceGroups[0].Name = "node3" }, "resource_groups[0].name", "may not share"},
		{"unknown node", func(d *Definition) { d.ResourceGroups[1].Nodes[2] = "node4" }, "resource_groups[1].nodes[2]", `did you mean "node`},
		{"unknown network", func(d *Definition) { d.Nodes[0].Addresses["net3"] = "10.3.3.3" }, "nodes[0].addresses.net3", "no network"},
		{"unknown service ip", func(d *Definition) { d.ResourceGroups[0].ServiceIPs = []string{"svc9"} }, "resource_groups[0].service_ips[0]", "no service_ip"},
		{"unknown application", func(d *Definition) { d.ResourceGroups[0].Applications[0] = "x" }, "resource_groups[0].applications[0]", "one of app1, app2"},
		{"unknown file system", func(d *Definition) { d.ResourceGroups[0].FileSystems[1] = "x" }, "resource_groups[0].file_systems[1]", "one of fs1"},
		{"unknown timer", func(d *Definition) { d.ResourceGroups[1].FallbackAt = "week-end" }, "resource_groups[1].fallback_at", `"weekend"`},
		{"unknown shorthand network", func(d *Definition) { d.ResourceGroups[1].Network = "x" }, "resource_groups[1].network", "one of net1"},
		{"unknown monitor", func(d *Definition) { d.ApplicationControllers[0].Monitors[1] = "x" }, "application_controllers[0].monitors[1]", "no application_monitor"},
		{"unknown group", func(d *Definition) { d.Dependencies[0].Child = "x" }, "dependencies[0].child", "no resource_group"},
		{"unknown tier member", func(d *Definition) { d.Dependencies[4].DifferentNodes.Low[0] = "x" }, "dependencies[4].different_nodes.low[0]", "no resource_group"},
		{"unknown fenced node", func(d *Definition) { d.FenceDevices[0].Nodes[1] = "x" }, "fence_devices[0].nodes[1]", "no node"},
		{"unknown plug", func(d *Definition) { d.FenceDevices[0].Plugs["x"] = "1" }, "fence_devices[0].plugs.x", "no node"},
		{"plug of a foreign node", func(d *Definition) { d.FenceDevices[0].Plugs["node3"] = "1" }, "fence_devices[0].plugs.node3", "not in the device's list"},
		{"reserved fence parameter", func(d *Definition) { d.FenceDevices[0].Params = map[string]string{"action": "off"} }, "fence_devices[0].params.action", "set by Holdfast"},
		{"fence agent by name", func(d *Definition) { d.FenceDevices[0].Agent = "fence_apc" }, "fence_devices[0].agent", "absolute"},
		{"fence device of nobody", func(d *Definition) { d.FenceDevices[0].Nodes = nil; d.FenceDevices[0].Plugs = nil }, "fence_devices[0].nodes", "no nodes"},
		{"negative capacity", func(d *Definition) { d.Nodes[2].Capacity = -1 }, "nodes[2].capacity", "-1"},

		{"bad node address", func(d *Definition) { d.Nodes[0].Addresses["net1"] = "10.1.1.256" }, "nodes[0].addresses.net1", "not an IP address"},
		{"multicast", func(d *Definition) { d.ServiceIPs[0].Address = "224.0.0.1" }, "service_ips[0].address", "not an address that a machine"},
		{"unspecified", func(d *Definition) { d.ServiceIPs[0].Address = "::" }, "service_ips[0].address", "not an address that a machine"},
		{"address with a length", func(d *Definition) { d.ServiceIPs[0].Address = "10.1.1.10/24" }, "service_ips[0].address", "goes into prefix"},
		{"address with a zone", func(d *Definition) { d.ServiceIPs[0].Address = "fe80::1%eth0" }, "service_ips[0].address", "names an interface"},
		{"prefix too long", func(d *Definition) { d.ServiceIPs[0].Prefix = 33 }, "service_ips[0].prefix", "1 to 32"},
		{"other subnet", func(d *Definition) { d.ServiceIPs[0].Address = "10.1.2.10" }, "service_ips[0].address", "10.1.1.0/24"},
		{"broadcast", func(d *Definition) { d.ServiceIPs[0].Address = "10.1.1.255" }, "service_ips[0].address", "first or last"},
		{"address twice", func(d *Definition) { d.ServiceIPs[1].Address = "10.1.1.10" }, "service_ips[1].address", "service_ips[0]"},
		{"address of a node", func(d *Definition) { d.ServiceIPs[1].Address = "10.1.1.3" }, "service_ips[1].address", "nodes[2]"},
		{"mapped address twice", func(d *Definition) { d.ServiceIPs[1].Address = "::ffff:10.1.1.10" }, "service_ips[1].address", "used already"},
		{"private network", func(d *Definition) { d.ServiceIPs[1].Network = "net2" }, "service_ips[1].network", "private"},
		{"network missing", func(d *Definition) { d.ServiceIPs[1].Network = "" }, "service_ips[1].network", "missing"},
		{"interface", func(d *Definition) { d.ServiceIPs[1].Interface = "../eth0" }, "service_ips[1].interface", "cannot be used"},
		{"network of no node", func(d *Definition) {
			d.Networks = append(d.Networks, Network{Name: "net3"})
			d.ServiceIPs[1].Network = "net3"
		}, "resource_groups[1].nodes", "no node of the group has network net3"},
		{"persistent without address there", func(d *Definition) { d.PersistentIPs[0].Node = "node3"; d.PersistentIPs[0].Network = "net2" }, "persistent_ips[0].network", "no address on network net2"},
		{"two persistent", func(d *Definition) {
			d.PersistentIPs = append(d.PersistentIPs, PersistentIP{Name: "per2", Address: "10.1.1.22", Node: "node1", Network: "net1"})
		}, "persistent_ips[1]", "per1"},
		{"distribution", func(d *Definition) { d.Networks[0].Distribution = "ACC" }, "networks[0].distribution", "did you mean"},
		{"interface name", func(d *Definition) { d.Nodes[0].Interfaces = map[string][]string{"net1": {"eth0", "a/b"}} }, "nodes[0].interfaces.net1[1]", "as eth0"},
		{"interface on two networks", func(d *Definition) {
			d.Nodes[0].Interfaces = map[string][]string{"net1": {"eth0"}, "net2": {"eth1", "eth0"}}
		}, "nodes[0].interfaces.net2[1]", "already, on network net1"},
		{"no interfaces", func(d *Definition) { d.Nodes[0].Interfaces = map[string][]string{"net1": {}} }, "nodes[0].interfaces.net1", "empty list"},
		{"interface without address", func(d *Definition) { d.Nodes[2].Interfaces = map[string][]string{"net2": {"eth0"}} }, "nodes[2].interfaces.net2", "no address on network net2"},
		{"interface of no network", func(d *Definition) { d.Nodes[2].Interfaces = map[string][]string{"net7": {"eth0"}} }, "nodes[2].interfaces.net7", "no network"},
		{"probe target", func(d *Definition) { d.Networks[0].ProbeTargets = []string{"10.1.1.254", "router1"} }, "networks[0].probe_targets[1]", "not an IP address"},
		{"probe target elsewhere", func(d *Definition) { d.Networks[0].ProbeTargets = []string{"192.0.2.1"} }, "networks[0].probe_targets[0]", "10.1.1.0/24"},
		{"probe target twice", func(d *Definition) { d.Networks[0].ProbeTargets = []string{"10.1.1.254", "10.1.1.254"} }, "networks[0].probe_targets[1]", ""},
		{"network prefix", func(d *Definition) { d.Networks[0].Prefix = 129 }, "networks[0].prefix", "129"},

		{"no device", func(d *Definition) { d.FileSystems[0].Device = "" }, "file_systems[0].device", "missing"},
		{"device name", func(d *Definition) { d.FileSystems[0].Device = "lv1" }, "file_systems[0].device", "cannot be used"},
		{"relative mount point", func(d *Definition) { d.FileSystems[0].MountPoint = "data" }, "file_systems[0].mount_point", "not absolute"},
		{"detour", func(d *Definition) { d.FileSystems[0].MountPoint = "/web/../data" }, "file_systems[0].mount_point", "/data"},
		{"over the system", func(d *Definition) { d.FileSystems[0].MountPoint = "/usr" }, "file_systems[0].mount_point", "for itself"},
		{"mount point twice", func(d *Definition) { d.FileSystems[2].MountPoint = "/data" }, "file_systems[2].mount_point", "fs1"},
		{"nested across groups", func(d *Definition) { d.FileSystems[2].MountPoint = "/data/web" }, "file_systems[2].mount_point", "another group (db_rg)"},
		{"device twice", func(d *Definition) { d.FileSystems[2].Device = "/dev/vg/lv1" }, "file_systems[2].device", "fs1"},
		{"check", func(d *Definition) { d.FileSystems[2].Check = "logredo" }, "file_systems[2].check", "fsck, none"},
		{"file system in two groups", func(d *Definition) { d.ResourceGroups[1].FileSystems = []string{"fs1"} }, "resource_groups[1].file_systems[0]", "db_rg"},
		{"label in two groups", func(d *Definition) { d.ResourceGroups[1].ServiceIPs = []string{"svc1"} }, "resource_groups[1].service_ips[0]", "db_rg"},
		{"application in two groups", func(d *Definition) { d.ResourceGroups[1].Applications = []string{"app1"} }, "resource_groups[1].applications[0]", "db_rg"},
		{"listed twice", func(d *Definition) { d.ResourceGroups[0].FileSystems = []string{"fs1", "fs1"} }, "resource_groups[0].file_systems[1]", "twice"},

		{"script by name", func(d *Definition) { d.ApplicationControllers[0].StartScript = "start.sh" }, "application_controllers[0].start_script", "absolute"},
		{"script with arguments", func(d *Definition) { d.ApplicationControllers[0].StopScript = "/ha/stop now" }, "application_controllers[0].stop_script", "arguments"},
		{"no script", func(d *Definition) { d.ApplicationControllers[0].StopScript = "" }, "application_controllers[0].stop_script", "missing"},
		{"startup mode", func(d *Definition) { d.ApplicationControllers[0].StartupMode = "daemon" }, "application_controllers[0].startup_mode", "foreground"},
		{"timeout", func(d *Definition) { d.ApplicationControllers[0].StartTimeout = -1 }, "application_controllers[0].start_timeout", "above 0"},
		{"monitor type", func(d *Definition) { d.ApplicationMonitors[0].Type = "proces" }, "application_monitors[0].type", `did you mean "process"`},
		{"monitor watches nothing", func(d *Definition) { d.ApplicationMonitors[0].Processes = nil }, "application_monitors[0].processes", "what to watch"},
		{"monitor method missing", func(d *Definition) { d.ApplicationMonitors[1].MonitorMethod = "" }, "application_monitors[1].monitor_method", "missing"},
		{"custom with processes", func(d *Definition) { d.ApplicationMonitors[1].Processes = []string{"x"} }, "application_monitors[1].processes", "no processes"},
		{"process with method", func(d *Definition) { d.ApplicationMonitors[0].MonitorMethod = "/x" }, "application_monitors[0].monitor_method", "process monitor"},
		{"instances", func(d *Definition) { d.ApplicationMonitors[0].InstanceCount = 1025 }, "application_monitors[0].instance_count", "1 to 1024"},
		{"interval", func(d *Definition) { d.ApplicationMonitors[0].MonitorInterval = 1025 * time.Second }, "application_monitors[0].monitor_interval", "17m4s"},
		{"stabilization", func(d *Definition) { d.ApplicationMonitors[0].Stabilization = 3601 * time.Second }, "application_monitors[0].stabilization", "1h"},
		{"restart count", func(d *Definition) { n := 101; d.ApplicationMonitors[0].RestartCount = &n }, "application_monitors[0].restart_count", "0 to 100"},
		{"restart interval", func(d *Definition) { d.ApplicationMonitors[0].RestartInterval = 29 * time.Second }, "application_monitors[0].restart_interval", "at least 30s"},
		{"restart interval of a method", func(d *Definition) { d.ApplicationMonitors[1].RestartInterval = 4 * time.Second }, "application_monitors[1].restart_interval", "at least 4.5s"},
		{"signal", func(d *Definition) { d.ApplicationMonitors[0].HungSignal = 64 }, "application_monitors[0].hung_signal", "1 to 63"},
		{"failure action", func(d *Definition) { d.ApplicationMonitors[0].FailureAction = "failover" }, "application_monitors[0].failure_action", `did you mean "fallover"`},
		{"mode", func(d *Definition) { d.ApplicationMonitors[0].Mode = "x" }, "application_monitors[0].mode", "longrunning"},
		{"notify method", func(d *Definition) { d.ApplicationMonitors[0].NotifyMethod = "mail" }, "application_monitors[0].notify_method", "absolute"},

		{"group of no node", func(d *Definition) { d.ResourceGroups[3].Nodes = nil }, "resource_groups[3].nodes", "no nodes"},
		{"node twice", func(d *Definition) { d.ResourceGroups[3].Nodes[1] = "node1" }, "resource_groups[3].nodes[1]", "twice"},
		{"startup", func(d *Definition) { d.ResourceGroups[0].Startup = "OHNN" }, "resource_groups[0].startup", `did you mean "OHN"`},
		{"OAAN falls over", func(d *Definition) { d.ResourceGroups[2].Fallover = "FNPN" }, "resource_groups[2].fallover", "BO"},
		{"OAAN falls back", func(d *Definition) { d.ResourceGroups[2].Fallback = "FBHPN" }, "resource_groups[2].fallback", "NFB"},
		{"OAAN with an address", func(d *Definition) { d.ResourceGroups[2].ServiceIPs = []string{"svc1"} }, "resource_groups[2].service_ips", "cannot hold an address"},
		{"OAAN with a file system", func(d *Definition) { d.ResourceGroups[2].FileSystems = []string{"fs1"} }, "resource_groups[2].file_systems[0]", "several nodes"},
		{"OUDP with BO", func(d *Definition) { d.ResourceGroups[4].Fallover = "BO" }, "resource_groups[4].fallover", "OUDP"},
		{"OUDP falls back", func(d *Definition) { d.ResourceGroups[4].Fallback = "FBHPN" }, "resource_groups[4].fallback", "NFB"},
		{"FUDNP without policy", func(d *Definition) { d.ResourceGroups[3].NodePriorityPolicy = "" }, "resource_groups[3].node_priority_policy", "how to choose"},
		{"policy without FUDNP", func(d *Definition) { d.ResourceGroups[0].NodePriorityPolicy = "cpu" }, "resource_groups[0].node_priority_policy", "FUDNP"},
		{"script without least", func(d *Definition) { d.ResourceGroups[3].NodePriorityScript = "/x" }, "resource_groups[3].node_priority_script", "least or most"},
		{"release failure", func(d *Definition) { d.ResourceGroups[1].OnReleaseFailure = "halt" }, "resource_groups[1].on_release_failure", "error, reset"},
		{"weight", func(d *Definition) { d.ResourceGroups[1].Weight = -1 }, "resource_groups[1].weight", "-1"},

		{"empty dependency", func(d *Definition) { d.Dependencies[0] = Dependency{} }, "dependencies[0]", "says nothing"},
		{"parent only", func(d *Definition) { d.Dependencies[0].Child = "" }, "dependencies[0]", "at least two"},
		{"two forms", func(d *Definition) { d.Dependencies[0].Start = "low_rg"; d.Dependencies[0].After = "db_rg" }, "dependencies[0]", "stand together"},
		{"stray after", func(d *Definition) { d.Dependencies[0].After = "low_rg" }, "dependencies[0].after", "belongs to"},
		{"itself", func(d *Definition) { d.Dependencies[0].Child = "db_rg" }, "dependencies[0]", "itself"},
		{"same-node set of one", func(d *Definition) { d.Dependencies[3].SameNode = []string{"db_rg"} }, "dependencies[3]", "at least two"},
		{"said twice", func(d *Definition) { d.Dependencies = append(d.Dependencies, d.Dependencies[0]) }, "dependencies[5]", "already"},
		{"circle of two", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{Parent: "web_rg", Child: "db_rg"})
		}, "dependencies[5]", "a circle"},
		{"circle over kinds", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{Start: "db_rg", After: "dnp_rg"})
		}, "dependencies", "web_rg starts after db_rg"},
		{"circle of stops", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{Stop: "web_rg", After: "db_rg"})
		}, "dependencies", "stops after"},
		{"four levels", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{Parent: "web_rg", Child: "low_rg"}, Dependency{Parent: "low_rg", Child: "mon_rg"})
		}, "dependencies[6]", "at most 3 levels"},
		{"parent and start-after", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{Start: "web_rg", After: "db_rg"})
		}, "dependencies[5]", "parent and child already"},
		{"two same-node sets", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{SameNode: []string{"web_rg", "db_rg"}})
		}, "dependencies[5].same_node[1]", "already"},
		{"no common node", func(d *Definition) { d.ResourceGroups[3].Nodes = []string{"node3"} }, "dependencies[3].same_node", "no node together"},
		{"together and apart", func(d *Definition) { d.Dependencies[4].DifferentNodes.High = []string{"db_rg", "dnp_rg"} }, "dependencies[4].different_nodes", "must be on one node"},
		{"two different-nodes sets", func(d *Definition) {
			d.Dependencies = append(d.Dependencies, Dependency{DifferentNodes: &DifferentNodes{High: []string{"low_rg"}, Low: []string{"db_rg"}}})
		}, "dependencies[5].different_nodes", "already"},
		{"concurrent in a set", func(d *Definition) { d.Dependencies[3].SameNode[1] = "mon_rg" }, "dependencies[3]", "OAAN"},
		{"tier twice", func(d *Definition) { d.Dependencies[4].DifferentNodes.High = []string{"low_rg"} }, "dependencies[4]", "twice"},

		{"repeats", func(d *Definition) { d.FallbackTimers[0].Repeats = "hourly" }, "fallback_timers[0].repeats", "daily"},
		{"day of week", func(d *Definition) { d.FallbackTimers[0].DayOfWeek = 7 }, "fallback_timers[0].day_of_week", "0 to 6"},
		{"hour", func(d *Definition) { d.FallbackTimers[0].Hour = 24 }, "fallback_timers[0].hour", "0 to 23"},
		{"stray month", func(d *Definition) { d.FallbackTimers[0].Month = 3 }, "fallback_timers[0].month", "leave it out"},
		{"no day", func(d *Definition) { d.FallbackTimers[0] = FallbackTimer{Name: "weekend", Repeats: "monthly"} }, "fallback_timers[0].day_of_month", "needs it"},
		{"29 February 2026", func(d *Definition) {
			d.FallbackTimers[0] = FallbackTimer{Name: "weekend", Repeats: "never", Year: 2026, Month: 2, DayOfMonth: 29}
		}, "fallback_timers[0].day_of_month", "February 2026 has no day 29"},
		{"31 April", func(d *Definition) {
			d.FallbackTimers[0] = FallbackTimer{Name: "weekend", Repeats: "yearly", Month: 4, DayOfMonth: 31}
		}, "fallback_timers[0].day_of_month", "April has no day 31"},

		{"profile", func(d *Definition) { d.Settings.Profile = "fats" }, "settings.profile", `did you mean "fast"`},
		{"timing", func(d *Definition) { d.Settings.Timings = map[string]time.Duration{"l_sfot": time.Second} }, "settings.timings.l_sfot", `did you mean "l_soft"`},
		{"unsafe timing", func(d *Definition) { d.Settings.Timings = map[string]time.Duration{"l_hard": time.Minute} }, "settings.timings", "watchdog"},
		{"deadman mode", func(d *Definition) { d.Settings.DeadmanMode = "x" }, "settings.deadman_mode", "one of a, e"},
		{"settling time", func(d *Definition) { d.Settings.SettlingTime = -time.Second }, "settings.settling_time", "0 to 1d"},
		{"control characters", func(d *Definition) { d.FenceDevices[0].Params = map[string]string{"ip": "1\naction=off"} }, "fence_devices[0].params.ip", "control characters"},
		{"not text", func(d *Definition) { d.Nodes[0].Site = "\xff" }, "nodes[0].site", "not text"},
		{"too long", func(d *Definition) { d.Nodes[0].Site = strings.Repeat("x", 5000) }, "nodes[0].site", "5000 bytes"},
	} {
		t.Run(w.name, func(t *testing.T) {
			d := whole()
			w.spoil(d)
			before := d.Clone()
			got := d.Validate()
			for _, p := range got {
				if strings.HasPrefix(p.Path, w.path) && strings.Contains(p.Text+": "+p.Want, w.text) {
					if !before.Equal(d) {
						t.Error("Validate changed the definition")
					}
					return
				}
			}
			t.Errorf("want %s: %s; got %d:", w.path, w.text, len(got))
			for _, p := range got {
				t.Error("   ", p)
			}
		})
	}
}

// One slip must not hide another: all are reported at once.
func TestAllProblemsAtOnce(t *testing.T) {
	d := whole()
	d.Name = "a b"
	d.Nodes[0].Name = "-"
	d.ServiceIPs[1].Address = "nix"
	d.FallbackTimers[0].Hour = 99
	d.Settings.Profile = "?"
	got := fmt.Sprint(d.Validate())
	for _, path := range []string{"name:", "nodes[0].name:", "service_ips[1].address:", "fallback_timers[0].hour:", "settings.profile:"} {
		if !strings.Contains(got, path) {
			t.Errorf("%s is not reported in %s", path, got)
		}
	}
}

// drawDefinition makes a definition out of few names, so that everything collides with everything.
func drawDefinition(t *rapid.T) *Definition {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "net", "", "a b", strings.Repeat("n", 70)})
	names := rapid.SliceOfN(name, 0, 4)
	addr := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2/24", "fd00::1", "", "x", "10.0.0.255"})
	d := &Definition{Name: name.Draw(t, "cluster")}
	for range rapid.IntRange(0, 4).Draw(t, "nodes") {
		d.Nodes = append(d.Nodes, Node{Name: name.Draw(t, "node"), Addresses: rapid.MapOfN(name, addr, 0, 2).Draw(t, "addresses")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "others") {
		d.Networks = append(d.Networks, Network{Name: name.Draw(t, "network"), Private: rapid.Bool().Draw(t, "private")})
		d.ServiceIPs = append(d.ServiceIPs, ServiceIP{Name: name.Draw(t, "ip"), Address: addr.Draw(t, "a"), Network: name.Draw(t, "n"), Prefix: rapid.IntRange(-1, 130).Draw(t, "p")})
		d.FileSystems = append(d.FileSystems, FileSystem{Name: name.Draw(t, "fs"), Device: "/dev/" + name.Draw(t, "dev"), MountPoint: "/" + name.Draw(t, "m") + "/" + name.Draw(t, "m2")})
		d.ApplicationMonitors = append(d.ApplicationMonitors, ApplicationMonitor{Name: name.Draw(t, "mon"), Type: rapid.SampledFrom([]string{"process", "custom", ""}).Draw(t, "type"),
			MonitorInterval: time.Duration(rapid.Int64().Draw(t, "i")), Stabilization: time.Duration(rapid.Int64().Draw(t, "s"))})
		d.FallbackTimers = append(d.FallbackTimers, FallbackTimer{Name: name.Draw(t, "timer"), Repeats: rapid.SampledFrom([]string{"never", "yearly", "weekly", "x"}).Draw(t, "r"),
			Year: rapid.Int().Draw(t, "y"), Month: rapid.IntRange(-1, 13).Draw(t, "mo"), DayOfMonth: rapid.IntRange(-1, 32).Draw(t, "d")})
		d.FenceDevices = append(d.FenceDevices, FenceDevice{Name: name.Draw(t, "fence"), Nodes: names.Draw(t, "fn")})
	}
	for range rapid.IntRange(0, 5).Draw(t, "groups") {
		d.ResourceGroups = append(d.ResourceGroups, ResourceGroup{Name: name.Draw(t, "group"), Nodes: names.Draw(t, "gn"),
			Startup:    rapid.SampledFrom([]Startup{"", "OHN", "OAAN", "OUDP", "x"}).Draw(t, "startup"),
			ServiceIPs: names.Draw(t, "gs"), FileSystems: names.Draw(t, "gf"), Applications: names.Draw(t, "ga"), FallbackAt: name.Draw(t, "at")})
	}
	for range rapid.IntRange(0, 6).Draw(t, "dependencies") {
		var x Dependency
		switch rapid.IntRange(0, 4).Draw(t, "form") {
		case 0:
			x = Dependency{Parent: name.Draw(t, "p"), Child: name.Draw(t, "c")}
		case 1:
			x = Dependency{Start: name.Draw(t, "s"), After: name.Draw(t, "a")}
		case 2:
			x = Dependency{Stop: name.Draw(t, "s"), After: name.Draw(t, "a")}
		case 3:
			x = Dependency{SameNode: names.Draw(t, "same")}
		case 4:
			x = Dependency{DifferentNodes: &DifferentNodes{High: names.Draw(t, "h"), Low: names.Draw(t, "l")}}
		}
		d.Dependencies = append(d.Dependencies, x)
	}
	return d
}

// Whatever is written, Validate answers: without a panic, the same each time, every problem with a text, and nothing changed.
func TestValidateAnswersAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDefinition(t)
		before := d.Clone()
		a, b := d.Validate(), d.Validate()
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("two answers: %v and %v", a, b)
		}
		for _, p := range a {
			if p.Text == "" {
				t.Fatalf("a problem without a text: %+v", p)
			}
		}
		if !d.Equal(before) || !d.Equal(d.Sparse()) {
			t.Fatal("the definition changed")
		}
		c := d.Clone()
		c.Defaults()
		once := c.Clone()
		c.Defaults()
		if fmt.Sprintf("%+v", deref(once)) != fmt.Sprintf("%+v", deref(c)) {
			t.Fatal("filling defaults twice is not filling them once")
		}
	})
}

// deref makes pointers printable.
func deref(d *Definition) any {
	type flat struct {
		D Definition
		R []int
	}
	f := flat{D: *d.Clone()}
	for i := range f.D.ApplicationMonitors {
		f.R = append(f.R, *f.D.ApplicationMonitors[i].RestartCount)
		f.D.ApplicationMonitors[i].RestartCount = nil
	}
	for i := range f.D.Nodes {
		f.D.Nodes[i].StartOnBoot = nil
	}
	f.D.Dependencies = nil
	return f
}

// A circle is found exactly when one exists: a second, stupid implementation removes groups that wait for nobody until none
// can be removed.
func TestCirclesAgainstASecondOpinion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e", "f"}
		d := &Definition{Name: "c", Nodes: []Node{{Name: "n"}}}
		for _, n := range names {
			d.ResourceGroups = append(d.ResourceGroups, ResourceGroup{Name: n, Nodes: []string{"n"}})
		}
		waits := map[[2]string]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "edges") {
			x, y := rapid.SampledFrom(names).Draw(t, "x"), rapid.SampledFrom(names).Draw(t, "y")
			if x != y && !waits[[2]string{x, y}] {
				waits[[2]string{x, y}] = true
				d.Dependencies = append(d.Dependencies, Dependency{Start: x, After: y})
			}
		}
		left := map[string]bool{}
		for _, n := range names {
			left[n] = true
		}
		for again := true; again; {
			again = false
			for _, n := range names {
				free := left[n]
				for _, m := range names {
					free = free && !(left[m] && waits[[2]string{n, m}])
				}
				if free {
					delete(left, n)
					again = true
				}
			}
		}
		found := strings.Contains(fmt.Sprint(d.Validate()), "a circle")
		if found != (len(left) > 0) {
			t.Fatalf("Validate says %v, the second opinion %v", found, left)
		}
	})
}

// A definition at its limits, all of it wrong, is answered with a bounded list.
func TestValidateIsBounded(t *testing.T) {
	d := &Definition{Name: "c"}
	for i := range 20_000 {
		d.ResourceGroups = append(d.ResourceGroups, ResourceGroup{Name: fmt.Sprint("g", i), Nodes: []string{"nowhere"}, ServiceIPs: []string{"x"}})
		d.Dependencies = append(d.Dependencies, Dependency{Parent: fmt.Sprint("g", i), Child: fmt.Sprint("g", (i+1)%20_000)})
		d.FileSystems = append(d.FileSystems, FileSystem{Name: fmt.Sprint("f", i), MountPoint: strings.Repeat("/x", 2000)})
	}
	if got := d.Validate(); len(got) > maxProblems+1 {
		t.Errorf("%d problems are listed", len(got))
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "30s": 30 * time.Second, "1d": 24 * time.Hour, "1.5d": 36 * time.Hour, "1d12h": 36 * time.Hour, "500ms": 500 * time.Millisecond, "2h45m": 165 * time.Minute} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if back, err := ParseDuration(FormatDuration(got)); err != nil || back != got {
			t.Errorf("%s is written as %s, which is read as %v, %v", text, FormatDuration(got), back, err)
		}
	}
	for _, text := range []string{"", "30", "-1s", "1d-1h", "1d+1h", "d", "99999999999d", "1w", "NaNd", "1e400d", "2562048h", "100000d100000h1"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(100_000*24*time.Hour-1)).Draw(t, "d"))
		if back, err := ParseDuration(FormatDuration(d)); err != nil || back != d {
			t.Fatalf("%d is written as %s, which is read as %d, %v", d, FormatDuration(d), back, err)
		}
		if back, err := ParseSeconds(formatSeconds(d)); err != nil || back != d {
			t.Fatalf("%d is shown as %s, which is read as %d, %v", d, formatSeconds(d), back, err)
		}
	})
}

func TestCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.StringOf(rapid.SampledFrom([]rune(`ab '"\	é`)))).Draw(t, "words")
		back, err := SplitCommand(JoinCommand(words))
		if err != nil || fmt.Sprintf("%q", back) != fmt.Sprintf("%q", words) && len(words) > 0 {
			t.Fatalf("%q became %q, %v", words, back, err)
		}
	})
	for _, bad := range []string{`a "b`, `a 'b`, `a \`} {
		if _, err := SplitCommand(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestVolumeGroupsExportsAndAgents(t *testing.T) {
	base := func() *Definition {
		return &Definition{Name: "c", Nodes: []Node{{Name: "a"}, {Name: "b"}, {Name: "c1"}},
			VolumeGroups:           []VolumeGroup{{Name: "datavg", PhysicalVolumes: []string{"00f6f42a8bd9ee03"}}, {Name: "logvg"}},
			NFSExports:             []NFSExport{{Name: "e", Directory: "/data", Clients: []string{"10.0.0.1"}, Options: "rw"}},
			ApplicationControllers: []ApplicationController{{Name: "web", Agent: "src:httpd"}},
			ResourceGroups: []ResourceGroup{{Name: "g", Nodes: []string{"a", "b"}, VolumeGroups: []string{"datavg"}, NFSExports: []string{"e"},
				Applications: []string{"web"}}, {Name: "h", Nodes: []string{"a"}}}}
	}
	if p := base().Validate(); len(p) != 0 {
		t.Fatalf("a good definition is refused: %v", p)
	}
	for what, spoil := range map[string]func(d *Definition){
		"volume_groups[1].physical_volumes[0]: 00f6f42a8bd9ee03 is a disk of volume group datavg too": func(d *Definition) {
			d.VolumeGroups[1].PhysicalVolumes = []string{"00f6f42a8bd9ee03"}
		},
		"volume_groups[0].mode":     func(d *Definition) { d.VolumeGroups[0].Mode = "shared" },
		"nfs_exports[0].directory":  func(d *Definition) { d.NFSExports[0].Directory = "data" },
		"nfs_exports[0].clients[0]": func(d *Definition) { d.NFSExports[0].Clients = []string{"a b"} },
		"nfs_exports[0].options":    func(d *Definition) { d.NFSExports[0].Options = "-rw" },
		"application_controllers[0].agent: \"src:\" names no subsystem": func(d *Definition) { d.ApplicationControllers[0].Agent = "src:" },
		"is run by the agent src:httpd, not by scripts":                 func(d *Definition) { d.ApplicationControllers[0].StartScript = "/x" },
		"application_controllers[0].start_script":                       func(d *Definition) { d.ApplicationControllers[0].Agent = "" },
		"resource_groups[1].volume_groups[0]":                           func(d *Definition) { d.ResourceGroups[1].VolumeGroups = []string{"datavg"} },
		"cannot hold a volume group":                                    func(d *Definition) { d.ResourceGroups[0].Startup = OnlineOnAllAvailable },
		"no volume_group \"nowhere\"":                                   func(d *Definition) { d.ResourceGroups[0].VolumeGroups = []string{"nowhere"} },
	} {
		d := base()
		spoil(d)
		found := false
		for _, p := range d.Validate() {
			found = found || strings.Contains(p.String(), what)
		}
		if !found {
			t.Errorf("%s: found only %v", what, d.Validate())
		}
	}
}
