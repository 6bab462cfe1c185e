package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// systemDirectories cannot be mounted over without taking the machine away from under the cluster.
var systemDirectories = []string{"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var"}

// sharedTypes are the file systems that may be mounted on several nodes at once.
var sharedTypes = []string{"nfs", "nfs3", "nfs4", "gpfs", "mmfs", "gfs2", "ocfs2", "glusterfs", "ceph", "cifs", "lustre"}

func (v *validator) fileSystems() {
	for i, f := range v.d.FileSystems {
		p := fmt.Sprintf("file_systems[%d]", i)
		v.device(p+".device", f)
		if v.absolute(p+".mount_point", f.MountPoint) && contains(systemDirectories, f.MountPoint) {
			v.add(p+".mount_point", "a directory of its own, as /data", "the machine needs %s for itself", f.MountPoint)
		}
		if strings.ContainsAny(f.Type, "/ \t,") {
			v.add(p+".type", "a type as mount -t takes it", "the type %q cannot be used", f.Type)
		}
		if strings.ContainsAny(f.Options, " \t") {
			v.add(p+".options", "options separated by commas, without blanks", "the options %q cannot be used", f.Options)
		}
		v.oneOf(p+".check", f.Check, "fsck", "none")
		v.within(p+".stop_timeout", f.StopTimeout, 24*time.Hour)
	}
}

func (v *validator) volumeGroups() {
	owner := map[string]int{} // disk -> volume group
	for i, g := range v.d.VolumeGroups {
		p := fmt.Sprintf("volume_groups[%d]", i)
		v.oneOf(p+".mode", g.Mode, VolumeGroupExclusive, VolumeGroupEnhanced)
		v.distinct(p+".physical_volumes", g.PhysicalVolumes)
		for j, disk := range g.PhysicalVolumes {
			at := fmt.Sprintf("%s.physical_volumes[%d]", p, j)
			if disk == "" || strings.ContainsAny(disk, "/ \t,") {
				v.add(at, "the disk's identifier, as lspv shows it (00f6f42a8bd9ee03)", "%q cannot be used", disk)
			}
			if o, taken := owner[disk]; taken && o != i {
				v.add(at, "a disk of its own", "%s is a disk of volume group %s too", disk, v.d.VolumeGroups[o].Name)
			}
			owner[disk] = i
		}
		v.inRange(p+".major_number", g.MajorNumber, 0, 1<<20)
	}
}

func (v *validator) nfsExports() {
	for i, e := range v.d.NFSExports {
		p := fmt.Sprintf("nfs_exports[%d]", i)
		v.absolute(p+".directory", e.Directory)
		v.distinct(p+".clients", e.Clients)
		for j, c := range e.Clients {
			if c == "" || strings.ContainsAny(c, " \t,:()") && !strings.Contains(c, "::") {
				v.add(fmt.Sprintf("%s.clients[%d]", p, j), "a host name, an address or a network", "the client %q cannot be used", c)
			}
		}
		if strings.ContainsAny(e.Options, " \t()") || strings.HasPrefix(e.Options, "-") {
			v.add(p+".options", "options separated by commas, without blanks", "the options %q cannot be used", e.Options)
		}
	}
}

func (v *validator) device(path string, f FileSystem) {
	const want = "a path (/dev/datavg/lv1), UUID=..., LABEL=..., or host:/path for a network file system"
	switch {
	case f.Device == "":
		v.add(path, want, "the device is missing")
	case strings.HasPrefix(f.Device, "/"):
		v.absolute(path, f.Device)
	case tagged(f.Device), contains(sharedTypes, f.Type), f.Type == "tmpfs":
	default:
		v.add(path, want, "the device %q cannot be used", f.Device)
	}
}

func tagged(device string) bool {
	for _, t := range []string{"UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="} {
		if strings.HasPrefix(device, t) && len(device) > len(t) {
			return true
		}
	}
	return false
}

func (v *validator) controllers() {
	for i, a := range v.d.ApplicationControllers {
		p := fmt.Sprintf("application_controllers[%d]", i)
		v.oneOf(p+".startup_mode", a.StartupMode, "foreground", "background")
		if a.Agent != "" {
			v.agent(p, &a)
		} else {
			v.script(p+".start_script", a.StartScript, true)
			v.script(p+".stop_script", a.StopScript, true)
			if len(a.Params) > 0 {
				v.add(p+".params", "an agent, or start_args", "scripts take no parameters")
			}
		}
		v.agentMonitors(p, &a)
		if !a.OwnTimes() || a.StartTimeout != 0 {
			v.within(p+".start_timeout", a.StartTimeout, 7*24*time.Hour)
		}
		if !a.OwnTimes() || a.StopTimeout != 0 {
			v.within(p+".stop_timeout", a.StopTimeout, 7*24*time.Hour)
		}
		v.distinct(p+".monitors", a.Monitors)
	}
}

// script checks the path of a program. Whether it is there, and safe to run, is found out on each node.
func (v *validator) script(path, value string, needed bool) {
	switch {
	case value == "" && needed:
		v.add(path, "an absolute path", "the script is missing")
	case value == "":
	case strings.ContainsAny(value, " \t") && strings.HasPrefix(value, "/"):
		v.add(path, "the path alone; arguments stand in a list of their own, where they are allowed", "the path %q has blanks", value)
	default:
		v.absolute(path, value)
	}
}

func (v *validator) monitors() {
	for i := range v.d.ApplicationMonitors {
		v.monitor(fmt.Sprintf("application_monitors[%d].", i), &v.d.ApplicationMonitors[i])
	}
}

func (v *validator) monitor(p string, m *ApplicationMonitor) {
	if v.oneOf(p+"type", m.Type, "process", "custom", "agent") {
		v.monitorType(p, m)
	}
	v.oneOf(p+"mode", m.Mode, "longrunning", "startup", "both")
	v.oneOf(p+"failure_action", m.FailureAction, "notify", "fallover")
	v.within(p+"monitor_interval", m.MonitorInterval, 1024*time.Second)
	v.within(p+"stabilization", m.Stabilization, time.Hour)
	v.inRange(p+"instance_count", m.InstanceCount, 1, 1024)
	v.inRange(p+"hung_signal", m.HungSignal, 1, 63)
	v.inRange(p+"restart_count", *m.RestartCount, 0, 100)
	if least := m.leastRestartInterval(); m.RestartInterval < least {
		v.add(p+"restart_interval", "at least "+FormatDuration(least)+", or nothing",
			"%v is below what restart_count restarts may take: they would be forgotten before they are used up", m.RestartInterval)
	}
	v.script(p+"notify_method", m.NotifyMethod, false)
	v.script(p+"cleanup_method", m.CleanupMethod, false)
	v.script(p+"restart_method", m.RestartMethod, false)
}

// monitorType checks what only one type of monitor has.
func (v *validator) monitorType(p string, m *ApplicationMonitor) {
	if m.Type == "agent" {
		v.inRange(p+"depth", m.Depth, 0, 100)
		if m.MonitorMethod != "" {
			v.add(p+"monitor_method", "leave it out, or type custom", "an agent has its own method")
		}
	} else if m.Depth != 0 {
		v.add(p+"depth", "leave it out, or type agent", "only an agent can be asked to look more thoroughly")
	}
	if m.Type != "process" {
		v.script(p+"monitor_method", m.MonitorMethod, m.Type == "custom")
		for _, f := range []struct {
			key   string
			given bool
		}{{"processes", len(m.Processes) > 0}, {"pid_file", m.PIDFile != ""}, {"owner", m.Owner != ""}, {"instance_count", m.InstanceCount != 1}} {
			if f.given {
				v.add(p+f.key, "leave it out, or type process", "a monitor of type %s has no %s", m.Type, f.key)
			}
		}
		return
	}
	if m.MonitorMethod != "" {
		v.add(p+"monitor_method", "leave it out, or type custom", "a process monitor has no monitor_method")
	}
	if len(m.Processes) == 0 && m.PIDFile == "" {
		v.add(p+"processes", "names of processes, or a pid_file", "a process monitor must know what to watch")
	}
	v.distinct(p+"processes", m.Processes)
	if m.PIDFile != "" {
		v.absolute(p+"pid_file", m.PIDFile)
	}
}

func (v *validator) inRange(path string, n, least, most int) {
	if n < least || n > most {
		v.add(path, fmt.Sprintf("%d to %d", least, most), "the value %d cannot be used", n)
	}
}

func (v *validator) groups() {
	for i := range v.d.ResourceGroups {
		g, p := &v.d.ResourceGroups[i], fmt.Sprintf("resource_groups[%d].", i)
		if len(g.Nodes) == 0 {
			v.add(p+"nodes", "the nodes in order of priority", "the group has no nodes")
		}
		v.distinct(p+"nodes", g.Nodes)
		v.distinct(p+"service_ips", g.ServiceIPs)
		v.distinct(p+"volume_groups", g.VolumeGroups)
		v.distinct(p+"file_systems", g.FileSystems)
		v.distinct(p+"nfs_exports", g.NFSExports)
		v.distinct(p+"applications", g.Applications)
		v.policies(p, g)
		v.priorityPolicy(p, g)
		v.concurrent(p, g)
		v.reachable(p, g)
		if g.RecoveryMethod != "" {
			v.oneOf(p+"recovery_method", g.RecoveryMethod, RecoverInParallel, RecoverSequentially)
		}
		v.oneOf(p+"on_release_failure", g.OnReleaseFailure, OnReleaseFailureError, OnReleaseFailureReset)
		if g.Weight < 0 {
			v.add(p+"weight", "0 (not counted) or more", "the weight %d cannot be used", g.Weight)
		}
	}
}

// policies checks the combinations that PowerHA's verification allows. A timer of a group that never falls back does no harm.
func (v *validator) policies(p string, g *ResourceGroup) {
	good := v.oneOf(p+"startup", string(g.Startup), "OHN", "OFAN", "OAAN", "OUDP")
	good = v.oneOf(p+"fallover", string(g.Fallover), "FNPN", "FUDNP", "BO") && good
	good = v.oneOf(p+"fallback", string(g.Fallback), "NFB", "FBHPN") && good
	if !good {
		return
	}
	switch g.Startup {
	case OnlineOnAllAvailable:
		if g.Fallover != FalloverBringOffline {
			v.add(p+"fallover", "BO", "a group that is online on all nodes (OAAN) cannot fall over by %s", g.Fallover)
		}
		if g.Fallback != NeverFallback {
			v.add(p+"fallback", "NFB", "a group that is online on all nodes (OAAN) cannot fall back")
		}
	case OnlineUsingDistribution:
		if g.Fallover == FalloverBringOffline {
			v.add(p+"fallover", "FNPN or FUDNP", "a group that is distributed at start (OUDP) cannot have BO")
		}
		if g.Fallback != NeverFallback {
			v.add(p+"fallback", "NFB", "a group that is distributed at start (OUDP) cannot fall back")
		}
	}
}

// priorityPolicy checks how dynamic node priority chooses. Whether the script of least and most is there is verification's
// question: a simulation is given its answers.
func (v *validator) priorityPolicy(p string, g *ResourceGroup) {
	legal := []string{PriorityMemory, PriorityCPU, PriorityDisk, PriorityLeast, PriorityMost}
	switch {
	case g.Fallover == FalloverUsingDNP && g.NodePriorityPolicy == "":
		v.add(p+"node_priority_policy", "one of "+strings.Join(legal, ", "), "FUDNP needs to know how to choose")
	case g.NodePriorityPolicy == "":
	case !v.oneOf(p+"node_priority_policy", g.NodePriorityPolicy, legal...):
	case g.Fallover != FalloverUsingDNP:
		v.add(p+"node_priority_policy", "leave it out, or fallover FUDNP", "only FUDNP chooses by a policy, and fallover is %s", g.Fallover)
	}
	asks := g.NodePriorityPolicy == PriorityLeast || g.NodePriorityPolicy == PriorityMost
	if !asks && g.NodePriorityScript != "" {
		v.add(p+"node_priority_script", "leave it out, or node_priority_policy least or most", "the policy asks no script")
	}
	if !asks && g.NodePriorityTimeout != 0 {
		v.add(p+"node_priority_timeout", "leave it out, or node_priority_policy least or most", "the policy asks no script")
	}
	v.script(p+"node_priority_script", g.NodePriorityScript, false)
	if asks {
		v.within(p+"node_priority_timeout", g.NodePriorityTimeout, time.Hour)
	}
}

// concurrent checks that a group that runs everywhere holds nothing that may be held once only.
func (v *validator) concurrent(p string, g *ResourceGroup) {
	if !g.Concurrent() {
		return
	}
	if len(g.ServiceIPs) > 0 {
		v.add(p+"service_ips", "leave them out, or another startup policy", "a group that is online on all nodes (OAAN) cannot hold an address")
	}
	if len(g.VolumeGroups) > 0 {
		v.add(p+"volume_groups", "leave them out, or another startup policy", "a group that is online on all nodes (OAAN) cannot hold a volume group")
	}
	for i, name := range g.FileSystems {
		at, ok := v.known["file_system"][name]
		if ok && !contains(sharedTypes, v.d.FileSystems[at].Type) {
			v.add(fmt.Sprintf("%sfile_systems[%d]", p, i), "a shared type ("+strings.Join(sharedTypes, ", ")+"), or another startup policy",
				"file system %s of type %q must not be mounted on several nodes, as OAAN would", name, v.d.FileSystems[at].Type)
		}
	}
}

// reachable checks that at least one node of the group has each network that the group needs.
func (v *validator) reachable(p string, g *ResourceGroup) {
	if !v.addressesKnown() || len(g.Nodes) == 0 {
		return
	}
	for _, w := range v.d.NetworksOf(g) {
		if !v.has("network", w) {
			continue
		}
		here := slices.ContainsFunc(g.Nodes, func(n string) bool { x := v.node(n); return x != nil && x.Addresses[w] != "" })
		if !here {
			v.add(p+"nodes", "a node with an address on it", "no node of the group has network %s, which its addresses need", w)
		}
	}
}

// sharedResources checks that what can be held once is listed once: by one group, under one mount point.
func (v *validator) sharedResources() {
	for i := range v.d.ResourceGroups {
		g, p := &v.d.ResourceGroups[i], fmt.Sprintf("resource_groups[%d].", i)
		v.listedOnce(p+"service_ips", "service_ip", g.ServiceIPs, i)
		v.listedOnce(p+"volume_groups", "volume_group", g.VolumeGroups, i)
		v.listedOnce(p+"file_systems", "file_system", g.FileSystems, i)
		v.listedOnce(p+"nfs_exports", "nfs_export", g.NFSExports, i)
		v.listedOnce(p+"applications", "application_controller", g.Applications, i)
	}
	v.mountPoints()
	v.devices()
}

func (v *validator) listedOnce(path, class string, list []string, group int) {
	if v.usedBy[class] == nil {
		v.usedBy[class] = map[string]int{}
	}
	for i, name := range list {
		first, used := v.usedBy[class][name]
		if !used {
			v.usedBy[class][name] = group
		} else if first != group {
			v.add(fmt.Sprintf("%s[%d]", path, i), "each in one group", "%s %s is in group %s already", class, name, v.d.ResourceGroups[first].Name)
		}
	}
}

// groupOf is the index of the group that holds a file system, -1 for none.
func (v *validator) groupOf(fileSystem string) int {
	if i, ok := v.usedBy["file_system"][fileSystem]; ok {
		return i
	}
	return -1
}

// mountPoints reports two file systems on one directory, and one inside another of a different group: the two could be on
// different nodes. Inside one group the outer is mounted first.
func (v *validator) mountPoints() {
	at := map[string]int{}
	for i, f := range v.d.FileSystems {
		if first, twice := at[f.MountPoint]; twice && f.MountPoint != "" {
			v.add(fmt.Sprintf("file_systems[%d].mount_point", i), "a directory of its own", "%s is the mount point of file_systems[%d] (%s) too",
				f.MountPoint, first, v.d.FileSystems[first].Name)
			continue
		}
		at[f.MountPoint] = i
	}
	for i, f := range v.d.FileSystems {
		inner := v.groupOf(f.Name)
		for dir := parentDir(f.MountPoint); dir != ""; dir = parentDir(dir) {
			o, ok := at[dir]
			if ok && inner >= 0 {
				if outer := v.groupOf(v.d.FileSystems[o].Name); outer >= 0 && outer != inner {
					v.add(fmt.Sprintf("file_systems[%d].mount_point", i), "both in one group, or apart",
						"%s lies inside %s, which is in another group (%s)", f.MountPoint, dir, v.d.ResourceGroups[outer].Name)
				}
			}
		}
	}
}

// parentDir is the directory above, "" above the root.
func parentDir(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i <= 0 {
		return ""
	}
	return p[:i]
}

// devices reports a device that two groups would mount.
func (v *validator) devices() {
	first := map[string]int{}
	for i, f := range v.d.FileSystems {
		if f.Device == "" || f.Type == "bind" || f.Type == "tmpfs" || contains(sharedTypes, f.Type) || contains(strings.Split(f.Options, ","), "bind") {
			continue
		}
		o, twice := first[f.Device]
		if !twice {
			first[f.Device] = i
			continue
		}
		a, b := v.groupOf(v.d.FileSystems[o].Name), v.groupOf(f.Name)
		if a >= 0 && b >= 0 && a != b {
			v.add(fmt.Sprintf("file_systems[%d].device", i), "a device of its own", "%s is the device of file system %s too, which is in group %s",
				f.Device, v.d.FileSystems[o].Name, v.d.ResourceGroups[a].Name)
		}
	}
}
