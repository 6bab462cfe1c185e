package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var securityChecks = []Check{
	{ID: "V2101", Severity: api.SeverityError, Title: "users that monitors look for exist", run: checkUsers, Needs: []string{"users"},
		Why: "the process monitor finds no process of a user that does not exist", Fix: "create the user on the node"},
	{ID: "V2102", Severity: api.SeverityWarning, Title: "users have one number on all nodes", run: checkUserNumbers, Needs: []string{"users"},
		Why: "files on shared file systems belong to somebody else after a failover", Fix: "give the user the same number everywhere"},
	{ID: "V2601", Severity: api.SeverityWarning, Title: "clocks agree", run: checkSkew,
		Why: "logs cannot be read together, certificates may be refused, and applications see time jump at a failover. No safety decision of the cluster uses wall clocks", Fix: "synchronise the clocks (chrony, ntpd)"},
	{ID: "V2602", Severity: api.SeverityWarning, Title: "clocks are synchronised", run: checkSynchronised,
		Why: "clocks that nobody sets drift apart", Fix: "start chrony or ntpd"},
	{ID: "V2603", Severity: api.SeverityError, Title: "certificates hold", run: checkCertificates, Needs: []string{"certificates"},
		Why: "with an expired certificate the node is refused by all others", Fix: "on another node: clmgr add token NODE, then let the node join anew"},
	{ID: "V2604", Severity: api.SeverityError, Title: "keys are private", run: checkKeyFiles,
		Why: "whoever can read the key is this node for all others", Fix: "chmod 0600 for files, 0700 for directories (FIX=yes does it); if others could read it, let the node join anew"},
	{ID: "V2605", Severity: api.SeverityInfo, Title: "one time zone", run: checkTimeZone,
		Why: "logs of the nodes are hard to read together; timers of the definition are in UTC", Fix: "set the same time zone"},
	{ID: "V2606", Severity: api.SeverityError, Title: "all nodes have the cluster's CA", run: checkCA, Needs: []string{"certificates"},
		Why: "a node with another CA is refused by the others after the next connection", Fix: "let the node join anew"},
	{ID: "V2701", Severity: api.SeverityError, Title: "methods of your own are content", run: checkMethods, Needs: []string{"methods"},
		Why: "as the method says", Fix: "as the method says"},
}

var capacityChecks = []Check{
	{ID: "V2801", Severity: api.SeverityError, Title: "the daemon's directories have room", run: checkSpace, Needs: []string{"space"},
		Why: "a daemon that cannot write its log of decisions ends itself", Fix: "free space, or give the directory a file system of its own"},
	{ID: "V2802", Severity: api.SeverityWarning, Title: "there are inodes left", run: checkInodes, Needs: []string{"space"},
		Why: "no new file can be made although there is room", Fix: "remove what has many small files"},
	{ID: "V2803", Severity: api.SeverityError, Title: "the daemon's directories can be written", run: checkReadOnly, Needs: []string{"space"},
		Why: "a file system that went read-only after an error keeps the daemon from promising anything", Fix: "look in the kernel's log; repair the disk"},
	{ID: "V2804", Severity: api.SeverityError, Title: "the daemon's state survives a boot", run: checkStateDir, Needs: []string{"space"},
		Why: "a node that forgets its votes and promises at a boot is refused, or worse", Fix: "state_dir: on a local disk"},
	{ID: "V2805", Severity: api.SeverityWarning, Title: "after the loss of a node the others have room", run: checkCapacity,
		Why: "groups that fit nowhere stay offline (LACK OF NODE)", Fix: "raise CAPACITY, add a node, or lower WEIGHT"},
	{ID: "V2901", Severity: api.SeverityInfo, Title: "applications stop within the lease", run: checkStopTime,
		Why: "a node that is cut off has L_hard - L_soft to stop its groups in order, then it is reset; a stop that may take longer is cut short", Fix: "the careful profile, or L_SOFT and L_HARD; otherwise nothing: the reset is safe"},
	{ID: "V2902", Severity: api.SeverityWarning, Title: "start and stop end before config_too_long", run: checkTooLong,
		Why: "config_too_long would be raised for a start that is as slow as it may be", Fix: "raise MAX_RG_PROCESSING_TIME, or lower the timeout"},
	{ID: "V2903", Severity: api.SeverityInfo, Title: "monitors see a failure in time", run: checkMonitorInterval,
		Why: "that is how long a dead application may go unseen", Fix: "a shorter MONITORINTERVAL, or a process monitor, which sees a death at once"},
	{ID: "V2904", Severity: api.SeverityWarning, Title: "the fast profile is for real hardware", run: checkFastVirtual,
		Why: "a hypervisor that takes the processor away for two seconds resets the node", Fix: "PROFILE=default"},
}

var stateChecks = []Check{
	{ID: "V3001", Severity: api.SeverityError, Title: "no group is in ERROR", run: checkGroupErrors,
		Why: "it waits for you", Fix: "find the cause (clmgr explain GROUP), then clmgr clear resource_group GROUP"},
	{ID: "V3002", Severity: api.SeverityWarning, Title: "no node is quarantined", run: checkQuarantine,
		Why: "it takes no groups after repeated resets", Fix: "find the cause of the resets, then clmgr clear node NODE"},
	{ID: "V3003", Severity: api.SeverityWarning, Title: "one more failure is survived", run: checkQuorum,
		Why: "the next loss of a node stops decisions: nothing moves any more", Fix: "bring the missing nodes back"},
	{ID: "V3004", Severity: api.SeverityWarning, Title: "no group is left out of the cluster's care", run: checkSuspended,
		Why: "it is not taken over when its node fails", Fix: "clmgr resume, or clmgr manage, when the maintenance is over"},
	{ID: "V3005", Severity: api.SeverityWarning, Title: "nothing waits for a sync", run: checkUnsynced,
		Why: "the cluster acts on the active definition, not on what was typed", Fix: "clmgr diff, then clmgr sync cluster, or clmgr undo"},
	{ID: "V3007", Severity: api.SeverityWarning, Title: "cluster services run on all nodes", run: checkServices,
		Why: "the node takes nothing over", Fix: "clmgr online node NODE"},
	{ID: "V3008", Severity: api.SeverityWarning, Title: "groups are online", run: checkOffline,
		Why: "nobody is served", Fix: "clmgr explain GROUP says why"},
	{ID: "V3009", Severity: api.SeverityWarning, Title: "every vote that is due is there", run: checkVotes,
		Why: "the cluster is laid out to survive a failure, and would not now", Fix: "what the sentence says"},
}

func checkUsers(in *Input, h *hits) {
	in.each([]string{"users"}, func(n *cluster.Node, f *Facts) {
		in.eachOwner(n.Name, func(m *cluster.ApplicationMonitor) {
			if id, asked := f.Users[m.Owner]; asked && id == "" {
				h.add(n.Name, "application_monitor "+m.Name, "there is no user %s", m.Owner)
			}
		})
	})
}

func (in *Input) eachOwner(node string, f func(m *cluster.ApplicationMonitor)) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if !g.Has(node) {
			return
		}
		for _, name := range g.Applications {
			if a := in.Definition.ApplicationController(name); a != nil {
				for _, mn := range a.Monitors {
					if m := in.Definition.ApplicationMonitor(mn); m != nil && m.Owner != "" {
						f(m)
					}
				}
			}
		}
	})
}

// Owners lists the users that a node must know.
func Owners(d *cluster.Definition) []string {
	var out []string
	for i := range d.ApplicationMonitors {
		if o := d.ApplicationMonitors[i].Owner; o != "" && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

func checkUserNumbers(in *Input, h *hits) {
	type seen struct{ node, id string }
	first := map[string]seen{}
	in.each([]string{"users"}, func(n *cluster.Node, f *Facts) {
		for _, user := range sortedNames(f.Users) {
			id := f.Users[user]
			if id == "" {
				continue
			}
			if s, ok := first[user]; !ok {
				first[user] = seen{n.Name, id}
			} else if s.id != id {
				h.add(n.Name, "user "+user, "its number is %s, on node %s it is %s", id, s.node, s.id)
			}
		}
	})
}

func checkSkew(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		off := f.Skew.Abs() - f.Uncertain
		if off <= time.Second {
			return
		}
		hit := h.add(n.Name, "node "+n.Name, "its clock is off by %v (known within %v)", f.Skew.Round(time.Millisecond), f.Uncertain.Round(time.Millisecond))
		if off > time.Minute {
			hit.as(api.SeverityError)
		}
	})
}

func checkSynchronised(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if s := f.System.ClockSynchronised; s != nil && !*s && !f.System.Contained {
			h.add(n.Name, "node "+n.Name, "the kernel says that nothing sets its clock")
		}
	})
}

func checkCertificates(in *Input, h *hits) {
	in.each([]string{"certificates"}, func(n *cluster.Node, f *Facts) {
		for _, c := range f.Certs {
			left := c.NotAfter.Sub(in.Now)
			switch {
			case left <= 0:
				h.add(n.Name, c.What, "it ended on %s", c.NotAfter.UTC().Format(time.DateOnly))
			case in.Now.Before(c.NotBefore):
				h.add(n.Name, c.What, "it begins on %s only: a clock is wrong", c.NotBefore.UTC().Format(time.DateTime))
			case left < 7*24*time.Hour:
				h.add(n.Name, c.What, "it ends on %s, in %d days", c.NotAfter.UTC().Format(time.DateOnly), int(left.Hours()/24))
			case left < 60*24*time.Hour:
				h.add(n.Name, c.What, "it ends on %s, in %d days", c.NotAfter.UTC().Format(time.DateOnly), int(left.Hours()/24)).as(api.SeverityWarning)
			}
		}
	})
}

func checkKeyFiles(in *Input, h *hits) {
	in.each(nil, func(n *cluster.Node, f *Facts) {
		for _, name := range sortedNames(f.Daemon.Files) {
			file := f.Daemon.Files[name]
			if !file.Exists {
				continue
			}
			want := uint32(0o600)
			if file.Kind == "directory" {
				want = 0o700
			}
			if file.Mode&^want != 0 {
				h.add(n.Name, name, "its mode is %04o", file.Mode).fixBy(Action{Kind: ActionChmod, Path: name, Mode: want})
			}
		}
	})
}

func checkTimeZone(in *Input, h *hits) {
	differ(in, h, "node %s is in the time zone %s, most nodes in %s", func(f *Facts) string { return f.System.TimeZone })
}

func checkCA(in *Input, h *hits) {
	differ(in, h, "node %s has the CA %s, most nodes have %s", func(f *Facts) string {
		if len(f.CA) > 16 {
			return f.CA[:16]
		}
		return f.CA
	})
}

func checkMethods(in *Input, h *hits) {
	for _, n := range in.nodeNames() {
		for _, name := range sortedNames(in.Nodes[n].Methods) {
			m := in.Nodes[n].Methods[name]
			switch {
			case m.Error != "":
				h.add(n, "method "+name, "it did not run to its end: %s", m.Error)
			case m.Exit != 0:
				h.add(n, "method "+name, "it ended with %d: %s", m.Exit, oneLine(m.Output, 300))
			}
		}
	}
}

func oneLine(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return "it said nothing"
	}
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}

func (in *Input) eachSpace(f func(n *cluster.Node, path string, s Space)) {
	in.each([]string{"space"}, func(n *cluster.Node, facts *Facts) {
		for _, p := range sortedNames(facts.Space) {
			if s := facts.Space[p]; s.Error == "" {
				f(n, p, s)
			}
		}
	})
}

func checkSpace(in *Input, h *hits) {
	in.eachSpace(func(n *cluster.Node, p string, s Space) {
		switch {
		case s.NeedMiB > 0 && s.FreeMiB < s.NeedMiB:
			h.add(n.Name, "directory "+p, "%s: %d MiB are free, %d are wanted", s.Purpose, s.FreeMiB, s.NeedMiB)
		case s.TotalMiB > 0 && s.FreeMiB*20 < s.TotalMiB && s.FreeMiB < 10*max(s.NeedMiB, 100):
			h.add(n.Name, "directory "+p, "%s: %d of %d MiB are free", s.Purpose, s.FreeMiB, s.TotalMiB).as(api.SeverityWarning)
		}
	})
}

func checkInodes(in *Input, h *hits) {
	in.eachSpace(func(n *cluster.Node, p string, s Space) {
		if s.Inodes > 0 && s.FreeInodes*50 < s.Inodes {
			h.add(n.Name, "directory "+p, "%s: %d of %d inodes are free", s.Purpose, s.FreeInodes, s.Inodes)
		}
	})
}

func checkReadOnly(in *Input, h *hits) {
	in.eachSpace(func(n *cluster.Node, p string, s Space) {
		if s.ReadOnly {
			h.add(n.Name, "directory "+p, "%s: the file system is read-only", s.Purpose)
		}
	})
}

func checkStateDir(in *Input, h *hits) {
	in.eachSpace(func(n *cluster.Node, p string, s Space) {
		switch {
		case s.Purpose != "the daemon's state":
		case s.TemporaryFileSystem:
			h.add(n.Name, "directory "+p, "it is on a file system in memory")
		case s.NetworkFileSystem != "":
			h.add(n.Name, "directory "+p, "it is on a file system of the network (%s): the daemon hangs with the server", s.NetworkFileSystem)
		}
	})
}

// checkCapacity takes each node away once and adds up what the others could take.
func checkCapacity(in *Input, h *hits) {
	if in.alone() {
		return
	}
	d := in.Definition
	for i := range d.Nodes {
		if d.Nodes[i].Capacity == 0 {
			return // a node without a limit takes everything
		}
	}
	need := 0
	in.eachGroup(func(g *cluster.ResourceGroup) { need += g.Weight })
	for lost := range d.Nodes {
		room := 0
		for i := range d.Nodes {
			if i != lost {
				room += d.Nodes[i].Capacity
			}
		}
		if room < need {
			h.add(d.Nodes[lost].Name, "node "+d.Nodes[lost].Name, "without it the others take %d, and all groups weigh %d", room, need)
		}
	}
}

func checkStopTime(in *Input, h *hits) {
	has := in.Params.Hard - in.Params.Soft
	in.eachApplication(func(a *cluster.ApplicationController) {
		if has > 0 && a.StopTimeout > has {
			h.add("", "application_controller "+a.Name, "its stop may take %v; a node without a leader has %v", a.StopTimeout, has)
		}
	})
}

func checkTooLong(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	limit := in.Definition.Settings.MaxEventTime + in.Definition.Settings.MaxGroupTime
	in.eachApplication(func(a *cluster.ApplicationController) {
		for _, t := range []struct {
			what string
			d    time.Duration
		}{{"start", a.StartTimeout}, {"stop", a.StopTimeout}} {
			if limit > 0 && t.d > limit {
				h.add("", "application_controller "+a.Name, "its %s may take %v, config_too_long is raised after %v", t.what, t.d, limit)
			}
		}
	})
}

func checkMonitorInterval(in *Input, h *hits) {
	in.eachApplication(func(a *cluster.ApplicationController) {
		for _, m := range in.monitorsOf(a, "longrunning") {
			if m.Type == "custom" && m.MonitorInterval > 2*time.Minute {
				h.add("", "application_monitor "+m.Name, "MONITORINTERVAL is %v", m.MonitorInterval)
			}
		}
	})
}

func checkFastVirtual(in *Input, h *hits) {
	if in.Definition == nil || in.Definition.Settings.Profile != "fast" {
		return
	}
	in.each(nil, func(n *cluster.Node, f *Facts) {
		if f.System.Virtual != "" && !f.System.Contained {
			h.add(n.Name, "node "+n.Name, "it is a guest of %s, and the profile is fast", f.System.Virtual)
		}
	})
}

func checkGroupErrors(in *Input, h *hits) {
	in.eachInstance(func(g *api.Group, i *api.Instance) {
		if i.State == api.GroupError {
			h.add(i.Node, "resource_group "+g.Name, "it is in ERROR: %s", orNone(i.Reason))
		}
	})
}

func (in *Input) eachInstance(f func(g *api.Group, i *api.Instance)) {
	if in.Status == nil {
		return
	}
	for k := range in.Status.Groups {
		for i := range in.Status.Groups[k].Instances {
			f(&in.Status.Groups[k], &in.Status.Groups[k].Instances[i])
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "no reason is known"
	}
	return s
}

func checkQuarantine(in *Input, h *hits) {
	if in.Status == nil {
		return
	}
	for i := range in.Status.Nodes {
		if n := &in.Status.Nodes[i]; n.State == api.NodeQuarantined {
			h.add(n.Name, "node "+n.Name, "%s", orNone(n.Reason))
		}
	}
}

func checkVotes(in *Input, h *hits) {
	if in.Status != nil && in.Status.Cluster.Quorum.Risk != "" {
		h.add("", "cluster "+in.Status.Cluster.Name, "%s", in.Status.Cluster.Quorum.Risk)
	}
}

func checkQuorum(in *Input, h *hits) {
	if in.Status == nil || in.alone() {
		return
	}
	if q := in.Status.Cluster.Quorum; q.Needed > 0 && q.Alive <= q.Needed && q.Risk == "" {
		h.add("", "cluster "+in.Status.Cluster.Name, "%d of %d voters are alive, %d are needed", q.Alive, q.Voters, q.Needed)
	}
}

func checkSuspended(in *Input, h *hits) {
	if in.Status == nil {
		return
	}
	for i := range in.Status.Groups {
		if g := &in.Status.Groups[i]; g.Suspended {
			h.add("", "resource_group "+g.Name, "it is suspended")
		}
	}
	in.eachInstance(func(g *api.Group, i *api.Instance) {
		if i.State == api.GroupUnmanaged {
			h.add(i.Node, "resource_group "+g.Name, "it is UNMANAGED")
		}
	})
}

func checkUnsynced(in *Input, h *hits) {
	if !in.Unsynced.IsZero() && in.Definition != nil && in.Now.Sub(in.Unsynced) > 24*time.Hour {
		h.add("", "cluster "+in.Definition.Name, "changes have been staged since %s", in.Unsynced.UTC().Format("2006-01-02 15:04"))
	}
}

func checkServices(in *Input, h *hits) {
	if in.Status == nil || in.Status.Cluster.State == api.ClusterOffline {
		return // all are stopped: somebody is setting it up
	}
	for i := range in.Status.Nodes {
		if n := &in.Status.Nodes[i]; n.State == api.NodeOffline || n.State == api.NodeUnmanaged {
			h.add(n.Name, "node "+n.Name, "its cluster services are %s", n.State)
		}
	}
}

func checkOffline(in *Input, h *hits) {
	if in.Status == nil || in.Status.Cluster.State != api.ClusterStable && in.Status.Cluster.State != api.ClusterError {
		return
	}
	for i := range in.Status.Groups {
		g := &in.Status.Groups[i]
		live := slices.ContainsFunc(g.Instances, func(x api.Instance) bool { return x.State != api.GroupOffline })
		if live || len(g.Instances) == 0 {
			continue
		}
		due := ""
		for _, x := range g.Instances {
			if x.Due != "" {
				due = fmt.Sprintf(" (due to %s)", strings.ToLower(x.Due))
			}
		}
		h.add("", "resource_group "+g.Name, "it is offline on all nodes%s", due)
	}
}
