package verify

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var scriptChecks = []Check{
	{ID: "V0901", Severity: api.SeverityWarning, Title: "everything defined is used", run: checkUnused,
		Why: "what belongs to no group is never started, watched or moved", Fix: "give it to a group, or delete it"},
	{ID: "V0902", Severity: api.SeverityWarning, Title: "groups have something to run", run: checkEmptyGroup,
		Why: "an empty group comes online and serves nobody", Fix: "give it addresses, file systems or applications"},
	{ID: "V1201", Severity: api.SeverityError, Title: "scripts are there", run: checkScriptThere, Needs: []string{"files"},
		Why: "the group cannot be started, stopped or watched there", Fix: "copy the script to the node, the same file as on the others"},
	{ID: "V1202", Severity: api.SeverityError, Title: "scripts are executable", run: checkScriptExecutable, Needs: []string{"files"},
		Why: "the group cannot be started, stopped or watched there", Fix: "chmod 0755 (FIX=yes does it)"},
	{ID: "V1203", Severity: api.SeverityError, Title: "scripts can be changed by root alone", run: checkScriptSafe, Needs: []string{"files"},
		Why: "they run with root's rights; whoever can change one is root. The daemon refuses to run it", Fix: "as it says; FIX=yes takes write rights of others away, and changes no owner"},
	{ID: "V1204", Severity: api.SeverityWarning, Title: "scripts are the same everywhere", run: checkScriptSame, Needs: []string{"files"},
		Why: "after a failover the application would be started differently", Fix: "copy the right one to all nodes"},
	{ID: "V1205", Severity: api.SeverityError, Title: "scripts can be executed", run: checkScriptHead, Needs: []string{"files"},
		Why: "the system cannot run a file that is neither a program nor begins with #! and its interpreter", Fix: "begin the script with #!/bin/sh, with lines that end as on Unix"},
	{ID: "V1206", Severity: api.SeverityError, Title: "the scripts' interpreters are there", run: checkInterpreter, Needs: []string{"files"},
		Why: "the script cannot be run there", Fix: "install the interpreter, or correct the first line"},
	{ID: "V1207", Severity: api.SeverityError, Title: "scripts are not empty", run: checkScriptEmpty, Needs: []string{"files"},
		Why: "an empty script succeeds and does nothing", Fix: "copy the right one"},
	{ID: "V1208", Severity: api.SeverityWarning, Title: "start and stop differ", run: checkStartStop,
		Why: "the same call would have to start and to stop", Fix: "give two scripts, or different arguments"},
}

var policyChecks = []Check{
	{ID: "V1301", Severity: api.SeverityWarning, Title: "there is a node for each group of the distribution policy", run: checkDistribution,
		Why: "OUDP brings at most one such group online on each node: the others stay offline at start", Fix: "add nodes, or give some of the groups another startup policy"},
	{ID: "V1302", Severity: api.SeverityWarning, Title: "dynamic node priority has a choice", run: checkDynamic,
		Why: "with one other node there is nothing to choose", Fix: "use FNPN, or add nodes to the group"},
	{ID: "V1303", Severity: api.SeverityWarning, Title: "groups can fail over", run: checkOneNode,
		Why: "the group has nowhere to go", Fix: "add nodes to its list"},
	{ID: "V1304", Severity: api.SeverityWarning, Title: "applications are watched", run: checkUnwatched,
		Why: "the death of an application that nobody watches is seen by its users first", Fix: "add an application monitor (clmgr add application_monitor NAME TYPE=process ... APPLICATIONS=app)"},
	{ID: "V1305", Severity: api.SeverityInfo, Title: "application failures lead to something", run: checkNotifyOnly,
		Why: "the monitor restarts the application, and then only tells: the group stays where it does not work", Fix: "FAILUREACTION=fallover, or a NOTIFYMETHOD that reaches somebody"},
	{ID: "V1306", Severity: api.SeverityWarning, Title: "starts are waited for", run: checkBackground,
		Why: "the group is ONLINE whatever the start script says: a failed start is not seen", Fix: "STARTUP_MODE=foreground, or a startup monitor"},
	{ID: "V1307", Severity: api.SeverityInfo, Title: "groups go somewhere when their node fails", run: checkBringOffline,
		Why: "with BO the group stays offline after the loss of its node, although its list has others", Fix: "FALLOVER=FNPN"},
	{ID: "V1401", Severity: api.SeverityWarning, Title: "a child can run where its parent cannot be missing", run: checkParentNodes,
		Why: "the loss of the parent's nodes takes the child with it, wherever it runs", Fix: "give the parent as many nodes as the child"},
	{ID: "V1501", Severity: api.SeverityWarning, Title: "fallback timers are used", run: checkTimerUnused,
		Why: "it fires for nobody", Fix: "FALLBACK_AT= of a group, or delete it"},
	{ID: "V1502", Severity: api.SeverityWarning, Title: "fallback timers lie ahead", run: checkTimerPast,
		Why: "it never fires again: its groups do not fall back", Fix: "give it another moment"},
	{ID: "V1503", Severity: api.SeverityInfo, Title: "the settling time has an effect", run: checkSettling,
		Why: "only groups with STARTUP=OFAN wait for it", Fix: "RG_SETTLING_TIME=0, or OFAN"},
}

// A use is one program that the definition names, and on which nodes it must be.
type use struct {
	path, object string
	nodes        []string
	// away: the program lies in a file system of its group, and is seen only where that is mounted.
	away bool
}

// uses lists the programs of the definition.
func uses(d *cluster.Definition) []use {
	var out []use
	add := func(p, object string, g *cluster.ResourceGroup, nodes []string) {
		if p != "" {
			out = append(out, use{p, object, nodes, g != nil && insideGroup(d, g, p)})
		}
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		add(g.NodePriorityScript, "resource_group "+g.Name, g, g.Nodes)
		for _, name := range g.Applications {
			a := d.ApplicationController(name)
			if a == nil {
				continue
			}
			object := "application_controller " + a.Name
			add(a.StartScript, object, g, g.Nodes)
			add(a.StopScript, object, g, g.Nodes)
			for _, mon := range a.Monitors {
				m := d.ApplicationMonitor(mon)
				if m == nil {
					continue
				}
				object := "application_monitor " + m.Name
				for _, p := range []string{m.MonitorMethod, m.NotifyMethod, m.CleanupMethod, m.RestartMethod} {
					add(p, object, g, g.Nodes)
				}
			}
		}
	}
	var all []string
	for i := range d.Nodes {
		all = append(all, d.Nodes[i].Name)
	}
	for i := range d.FenceDevices {
		add(d.FenceDevices[i].Agent, "fence_device "+d.FenceDevices[i].Name, nil, all)
	}
	for i := range d.Methods {
		nodes := d.Methods[i].Nodes
		if len(nodes) == 0 {
			nodes = all
		}
		add(d.Methods[i].File, "method "+d.Methods[i].Name, nil, nodes)
	}
	for i := range d.Events {
		e := &d.Events[i]
		for _, path := range slices.Concat([]string{e.Notify, e.Recovery}, e.Pre, e.Post) {
			if path != "" {
				add(path, "event_command "+e.Name, nil, all)
			}
		}
	}
	return out
}

func insideGroup(d *cluster.Definition, g *cluster.ResourceGroup, p string) bool {
	return slices.ContainsFunc(g.FileSystems, func(name string) bool {
		fs := d.FileSystem(name)
		return fs != nil && fs.MountPoint != "" && strings.HasPrefix(p, strings.TrimSuffix(fs.MountPoint, "/")+"/")
	})
}

// eachScript calls f once for each program on each of its nodes.
func (in *Input) eachScript(f func(n *cluster.Node, u use, file File)) {
	if in.Definition == nil {
		return
	}
	list := uses(in.Definition)
	in.each([]string{"files"}, func(n *cluster.Node, facts *Facts) {
		seen := map[string]bool{}
		for _, u := range list {
			file, looked := facts.Files[u.path]
			if !looked || seen[u.path+u.object] || !slices.Contains(u.nodes, n.Name) || u.away && !file.Exists {
				continue
			}
			seen[u.path+u.object] = true
			f(n, u, file)
		}
	})
}

func checkScriptThere(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		switch {
		case f.Error != "":
			h.add(n.Name, u.object, "%s cannot be looked at: %s", u.path, f.Error)
		case !f.Exists:
			h.add(n.Name, u.object, "there is no %s", u.path)
		case f.Kind != "file":
			h.add(n.Name, u.object, "%s is a %s", u.path, f.Kind)
		}
	})
}

func isScript(f File) bool { return f.Exists && f.Error == "" && f.Kind == "file" }

func checkScriptExecutable(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		if isScript(f) && f.Mode&0o111 == 0 {
			h.add(n.Name, u.object, "%s has the mode %04o", u.path, f.Mode).fixBy(Action{Kind: ActionChmod, Path: u.path, Mode: 0o755})
		}
	})
}

func checkScriptSafe(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		if !isScript(f) || f.Mode&0o111 == 0 || f.Unsafe == "" {
			return
		}
		hit := h.add(n.Name, u.object, "%s", f.Unsafe)
		if f.Mode&0o022 != 0 {
			hit.fixBy(Action{Kind: ActionChmod, Path: u.path, Mode: f.Mode &^ 0o022})
		}
	})
}

func checkScriptSame(in *Input, h *hits) {
	type version struct{ node, digest string }
	first := map[string]version{}
	in.eachScript(func(n *cluster.Node, u use, f File) {
		if f.Digest == "" {
			return
		}
		key := u.path + u.object
		if v, ok := first[key]; !ok {
			first[key] = version{n.Name, f.Digest}
		} else if v.digest != f.Digest {
			h.add(n.Name, u.object, "%s is not the file that node %s has (SHA-256 %.12s, there %.12s)", u.path, v.node, f.Digest, v.digest)
		}
	})
}

func checkScriptHead(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		switch {
		case !isScript(f) || f.Size == 0:
		case f.CRLF:
			h.add(n.Name, u.object, "the first line of %s ends in a carriage return: the interpreter %q is looked for", u.path, f.Script+`\r`)
		case f.NoHead:
			h.add(n.Name, u.object, "%s is no program and does not begin with #!", u.path)
		}
	})
}

func checkInterpreter(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		if isScript(f) && f.Script != "" && !f.Runner && !f.CRLF {
			h.add(n.Name, u.object, "%s wants %s, which is not there", u.path, f.Script)
		}
	})
}

func checkScriptEmpty(in *Input, h *hits) {
	in.eachScript(func(n *cluster.Node, u use, f File) {
		if isScript(f) && f.Size == 0 {
			h.add(n.Name, u.object, "%s has no bytes", u.path)
		}
	})
}

func checkStartStop(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.ApplicationControllers {
		a := &in.Definition.ApplicationControllers[i]
		if a.StartScript != "" && a.StartScript == a.StopScript && slices.Equal(a.StartArgs, a.StopArgs) {
			h.add("", "application_controller "+a.Name, "%s is both", a.StartScript)
		}
	}
}

func checkUnused(in *Input, h *hits) {
	d := in.Definition
	if d == nil {
		return
	}
	used := func(class, name string) bool {
		return slices.ContainsFunc(d.Users(class, name), func(u string) bool { return !strings.HasPrefix(u, "waiver ") })
	}
	for _, class := range []string{"service_ip", "volume_group", "file_system", "nfs_export", "application_controller", "application_monitor"} {
		c, err := cluster.FindClass(class)
		if err != nil {
			continue
		}
		for _, n := range c.Names(d) {
			if !used(class, n) {
				h.add("", class+" "+n, "nothing uses it")
			}
		}
	}
}

func (in *Input) eachGroup(f func(g *cluster.ResourceGroup)) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.ResourceGroups {
		f(&in.Definition.ResourceGroups[i])
	}
}

func checkEmptyGroup(in *Input, h *hits) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if len(g.ServiceIPs)+len(g.FileSystems)+len(g.Applications)+len(g.VolumeGroups)+len(g.NFSExports) == 0 {
			h.add("", "resource_group "+g.Name, "it has no resources")
		}
	})
}

func checkDistribution(in *Input, h *hits) {
	n := 0
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if g.Startup == cluster.OnlineUsingDistribution {
			n++
		}
	})
	if in.Definition != nil && n > len(in.Definition.Nodes) {
		h.add("", "cluster "+in.Definition.Name, "%d groups have STARTUP=OUDP, and there are %d nodes", n, len(in.Definition.Nodes))
	}
}

func checkDynamic(in *Input, h *hits) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if g.Fallover == cluster.FalloverUsingDNP && len(g.Nodes) < 3 {
			h.add("", "resource_group "+g.Name, "FALLOVER=FUDNP with %d nodes", len(g.Nodes))
		}
	})
}

func checkOneNode(in *Input, h *hits) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if len(g.Nodes) == 1 && !g.Concurrent() {
			h.add("", "resource_group "+g.Name, "its list has the node %s alone", g.Nodes[0])
		}
	})
}

func (in *Input) eachApplication(f func(a *cluster.ApplicationController)) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		for _, n := range g.Applications {
			if a := in.Definition.ApplicationController(n); a != nil {
				f(a)
			}
		}
	})
}

func (in *Input) monitorsOf(a *cluster.ApplicationController, mode string) []*cluster.ApplicationMonitor {
	var out []*cluster.ApplicationMonitor
	for _, n := range a.Monitors {
		if m := in.Definition.ApplicationMonitor(n); m != nil && (m.Mode == mode || m.Mode == "both") {
			out = append(out, m)
		}
	}
	return out
}

func checkUnwatched(in *Input, h *hits) {
	in.eachApplication(func(a *cluster.ApplicationController) {
		if a.Agent == "" && len(in.monitorsOf(a, "longrunning")) == 0 { // an agent watches what it starts
			h.add("", "application_controller "+a.Name, "no monitor watches it while it runs")
		}
	})
}

func checkNotifyOnly(in *Input, h *hits) {
	in.eachApplication(func(a *cluster.ApplicationController) {
		for _, m := range in.monitorsOf(a, "longrunning") {
			if m.FailureAction != "fallover" && m.NotifyMethod == "" {
				h.add("", "application_monitor "+m.Name, "FAILUREACTION=notify, and there is no NOTIFYMETHOD")
			}
		}
	})
}

func checkBackground(in *Input, h *hits) {
	in.eachApplication(func(a *cluster.ApplicationController) {
		if a.StartupMode == "background" && len(in.monitorsOf(a, "startup")) == 0 {
			h.add("", "application_controller "+a.Name, "STARTUP_MODE=background, and no startup monitor")
		}
	})
}

func checkBringOffline(in *Input, h *hits) {
	in.eachGroup(func(g *cluster.ResourceGroup) {
		if g.Fallover == cluster.FalloverBringOffline && !g.Concurrent() && len(g.Nodes) > 1 {
			h.add("", "resource_group "+g.Name, "FALLOVER=BO with %d nodes", len(g.Nodes))
		}
	})
}

func checkParentNodes(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for _, x := range in.Definition.Dependencies {
		p, c := in.Definition.Group(x.Parent), in.Definition.Group(x.Child)
		if p != nil && c != nil && len(p.Nodes) < len(c.Nodes) {
			h.add("", "resource_group "+p.Name, "it has %d nodes, and its child %s has %d", len(p.Nodes), c.Name, len(c.Nodes))
		}
	}
}

func checkTimerUnused(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for _, t := range in.Definition.FallbackTimers {
		if len(in.Definition.Users("fallback_timer", t.Name)) == 0 {
			h.add("", "fallback_timer "+t.Name, "no group has FALLBACK_AT=%s", t.Name)
		}
	}
}

func checkTimerPast(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for _, t := range in.Definition.FallbackTimers {
		at := fmt.Sprintf("%04d-%02d-%02d %02d:%02d", t.Year, t.Month, t.DayOfMonth, t.Hour, t.Minute)
		if t.Repeats == "never" && at < in.Now.UTC().Format("2006-01-02 15:04") {
			h.add("", "fallback_timer "+t.Name, "its moment was %s UTC", at)
		}
	}
}

func checkSettling(in *Input, h *hits) {
	if in.Definition == nil || in.Definition.Settings.SettlingTime == 0 {
		return
	}
	found := false
	in.eachGroup(func(g *cluster.ResourceGroup) { found = found || g.Startup == cluster.OnlineOnFirstAvailable })
	if !found {
		h.add("", "cluster "+in.Definition.Name, "RG_SETTLING_TIME=%v, and no group has STARTUP=OFAN", in.Definition.Settings.SettlingTime)
	}
}

// Paths lists the files that a node must look at for the definition.
func Paths(d *cluster.Definition) []string {
	seen := map[string]bool{}
	for _, u := range uses(d) {
		seen[path.Clean(u.path)] = true
	}
	for i := range d.FileSystems {
		seen[d.FileSystems[i].MountPoint] = true
	}
	delete(seen, "")
	return sortedNames(seen)
}
