package cluster

import (
	"fmt"
	"slices"
	"sort"
)

// A reference is one place in a definition that names another object.
type reference struct {
	class string  // the class of the object that is named
	path  string  // where it stands: resource_groups[2].nodes[0]
	owner string  // who says it, for a human: resource_group app_rg
	name  *string // the name itself; for a key of a map a copy, so that writing to it changes nothing
}

// references calls visit for every reference, in the order of the definition. Keys of maps come in alphabetical order.
func (d *Definition) references(visit func(reference)) {
	one := func(class, path, owner string, name *string) {
		if *name != "" {
			visit(reference{class, path, owner, name})
		}
	}
	all := func(class, path, owner string, names []string) {
		for i := range names {
			visit(reference{class, fmt.Sprintf("%s[%d]", path, i), owner, &names[i]})
		}
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		for _, k := range sortedKeys(n.Addresses) {
			key := k
			visit(reference{"network", fmt.Sprintf("nodes[%d].addresses.%s", i, k), "node " + n.Name, &key})
		}
		for _, k := range sortedKeys(n.Interfaces) {
			key := k
			visit(reference{"network", fmt.Sprintf("nodes[%d].interfaces.%s", i, k), "node " + n.Name, &key})
		}
	}
	for i := range d.ServiceIPs {
		s := &d.ServiceIPs[i]
		one("network", fmt.Sprintf("service_ips[%d].network", i), "service_ip "+s.Name, &s.Network)
	}
	for i := range d.PersistentIPs {
		p := &d.PersistentIPs[i]
		one("node", fmt.Sprintf("persistent_ips[%d].node", i), "persistent_ip "+p.Name, &p.Node)
		one("network", fmt.Sprintf("persistent_ips[%d].network", i), "persistent_ip "+p.Name, &p.Network)
	}
	for i := range d.ApplicationControllers {
		a := &d.ApplicationControllers[i]
		all("application_monitor", fmt.Sprintf("application_controllers[%d].monitors", i), "application_controller "+a.Name, a.Monitors)
	}
	for i := range d.FenceDevices {
		f := &d.FenceDevices[i]
		owner := "fence_device " + f.Name
		all("node", fmt.Sprintf("fence_devices[%d].nodes", i), owner, f.Nodes)
		for _, k := range sortedKeys(f.Plugs) {
			key := k
			visit(reference{"node", fmt.Sprintf("fence_devices[%d].plugs.%s", i, k), owner, &key})
		}
	}
	for i := range d.ResourceGroups {
		g, p, owner := &d.ResourceGroups[i], fmt.Sprintf("resource_groups[%d]", i), "resource_group "+d.ResourceGroups[i].Name
		all("node", p+".nodes", owner, g.Nodes)
		one("fallback_timer", p+".fallback_at", owner, &g.FallbackAt)
		all("service_ip", p+".service_ips", owner, g.ServiceIPs)
		all("volume_group", p+".volume_groups", owner, g.VolumeGroups)
		all("file_system", p+".file_systems", owner, g.FileSystems)
		all("nfs_export", p+".nfs_exports", owner, g.NFSExports)
		all("application_controller", p+".applications", owner, g.Applications)
		one("network", p+".network", owner, &g.Network)
	}
	for i := range d.Methods {
		all("node", fmt.Sprintf("methods[%d].nodes", i), "method "+d.Methods[i].Name, d.Methods[i].Nodes)
	}
	for i := range d.FileCollections {
		f, p := &d.FileCollections[i], fmt.Sprintf("file_collections[%d]", i)
		all("node", p+".nodes", "file_collection "+f.Name, f.Nodes)
		one("node", p+".source", "file_collection "+f.Name, &f.Source)
	}
	for i := range d.Waivers {
		one("node", fmt.Sprintf("waivers[%d].node", i), "waiver "+d.Waivers[i].Name, &d.Waivers[i].Node)
	}
	for i := range d.Dependencies {
		x, p := &d.Dependencies[i], fmt.Sprintf("dependencies[%d]", i)
		owner := "dependency " + x.Name()
		one("resource_group", p+".parent", owner, &x.Parent)
		one("resource_group", p+".child", owner, &x.Child)
		one("resource_group", p+".start", owner, &x.Start)
		one("resource_group", p+".stop", owner, &x.Stop)
		one("resource_group", p+".after", owner, &x.After)
		all("resource_group", p+".same_node", owner, x.SameNode)
		if t := x.DifferentNodes; t != nil {
			all("resource_group", p+".different_nodes.high", owner, t.High)
			all("resource_group", p+".different_nodes.intermediate", owner, t.Intermediate)
			all("resource_group", p+".different_nodes.low", owner, t.Low)
		}
	}
}

// Users lists who refers to an object, each once, in the order of the definition: "resource_group app_rg".
func (d *Definition) Users(class, name string) []string {
	var out []string
	d.references(func(r reference) {
		if r.class == class && *r.name == name && !contains(out, r.owner) {
			out = append(out, r.owner)
		}
	})
	return out
}

// renameReferences lets everything that names the object follow its new name.
func (d *Definition) renameReferences(class, from, to string) {
	d.references(func(r reference) {
		if r.class == class && *r.name == from {
			*r.name = to
		}
	})
	switch class {
	case "network":
		for i := range d.Nodes {
			rekey(d.Nodes[i].Addresses, from, to)
			rekey(d.Nodes[i].Interfaces, from, to)
		}
	case "node":
		for i := range d.FenceDevices {
			rekey(d.FenceDevices[i].Plugs, from, to)
		}
	}
}

func rekey[V any](m map[string]V, from, to string) {
	if v, ok := m[from]; ok {
		delete(m, from)
		m[to] = v
	}
}

// forget removes every reference to an object. Lists lose the entry, single values become empty, and a dependency that
// says nothing any more goes.
func (d *Definition) forget(class, name string) {
	if class == "node" {
		// Without its node a waiver would hold for all of them, and a method run on all.
		d.Waivers = slices.DeleteFunc(d.Waivers, func(w Waiver) bool { return w.Node == name })
		d.Methods = slices.DeleteFunc(d.Methods, func(m Method) bool { return len(m.Nodes) == 1 && m.Nodes[0] == name })
		d.forgetCollections(name)
	}
	d.references(func(r reference) {
		if r.class == class && *r.name == name {
			*r.name = ""
		}
	})
	empty := func(s string) bool { return s == "" }
	compact := func(lists ...*[]string) {
		for _, l := range lists {
			*l = slices.DeleteFunc(*l, empty)
		}
	}
	for i := range d.Nodes {
		if class == "network" {
			delete(d.Nodes[i].Addresses, name)
			delete(d.Nodes[i].Interfaces, name)
		}
	}
	for i := range d.ApplicationControllers {
		compact(&d.ApplicationControllers[i].Monitors)
	}
	for i := range d.FenceDevices {
		compact(&d.FenceDevices[i].Nodes)
		if class == "node" {
			delete(d.FenceDevices[i].Plugs, name)
		}
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		compact(&g.Nodes, &g.ServiceIPs, &g.VolumeGroups, &g.FileSystems, &g.NFSExports, &g.Applications)
	}
	if class == "node" {
		d.PersistentIPs = slices.DeleteFunc(d.PersistentIPs, func(p PersistentIP) bool { return p.Node == "" })
		d.FenceDevices = slices.DeleteFunc(d.FenceDevices, func(f FenceDevice) bool { return len(f.Nodes) == 0 })
	}
	for i := range d.Methods {
		compact(&d.Methods[i].Nodes)
	}
	for i := range d.FileCollections {
		compact(&d.FileCollections[i].Nodes)
	}
	if class == "resource_group" {
		for i := range d.Dependencies {
			x := &d.Dependencies[i]
			compact(&x.SameNode)
			if t := x.DifferentNodes; t != nil {
				compact(&t.High, &t.Intermediate, &t.Low)
			}
		}
		d.Dependencies = slices.DeleteFunc(d.Dependencies, func(x Dependency) bool { return !x.whole() })
	}
}

// whole reports whether the dependency still relates at least two groups.
func (x *Dependency) whole() bool {
	switch {
	case x.DifferentNodes != nil:
		return len(x.DifferentNodes.High)+len(x.DifferentNodes.Intermediate)+len(x.DifferentNodes.Low) > 1
	case x.SameNode != nil:
		return len(x.SameNode) > 1
	case x.Parent != "" || x.Child != "":
		return x.Parent != "" && x.Child != ""
	default:
		return x.After != "" && (x.Start != "" || x.Stop != "")
	}
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
