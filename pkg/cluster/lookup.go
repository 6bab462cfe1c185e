package cluster

// The finders return nil for a name that the definition does not hold. They are linear: definitions are small, and callers
// that ask often build an index of their own.

import "slices"

// Node finds a node by name.
func (d *Definition) Node(name string) *Node {
	return find(d.Nodes, name, func(n *Node) string { return n.Name })
}

// Network finds a network by name.
func (d *Definition) Network(name string) *Network {
	return find(d.Networks, name, func(n *Network) string { return n.Name })
}

// ServiceIP finds a service IP by its label.
func (d *Definition) ServiceIP(name string) *ServiceIP {
	return find(d.ServiceIPs, name, func(s *ServiceIP) string { return s.Name })
}

// VolumeGroup finds a volume group by name.
func (d *Definition) VolumeGroup(name string) *VolumeGroup {
	return find(d.VolumeGroups, name, func(g *VolumeGroup) string { return g.Name })
}

// NFSExport finds an NFS export by name.
func (d *Definition) NFSExport(name string) *NFSExport {
	return find(d.NFSExports, name, func(e *NFSExport) string { return e.Name })
}

// FileSystem finds a file system by name.
func (d *Definition) FileSystem(name string) *FileSystem {
	return find(d.FileSystems, name, func(f *FileSystem) string { return f.Name })
}

// ApplicationController finds an application controller by name.
func (d *Definition) ApplicationController(name string) *ApplicationController {
	return find(d.ApplicationControllers, name, func(a *ApplicationController) string { return a.Name })
}

// ApplicationMonitor finds an application monitor by name.
func (d *Definition) ApplicationMonitor(name string) *ApplicationMonitor {
	return find(d.ApplicationMonitors, name, func(a *ApplicationMonitor) string { return a.Name })
}

// Group finds a resource group by name.
func (d *Definition) Group(name string) *ResourceGroup {
	return find(d.ResourceGroups, name, func(g *ResourceGroup) string { return g.Name })
}

// FallbackTimer finds a fallback timer by name.
func (d *Definition) FallbackTimer(name string) *FallbackTimer {
	return find(d.FallbackTimers, name, func(t *FallbackTimer) string { return t.Name })
}

// FenceDevicesOf lists the devices that can switch the node, in the order of the file.
func (d *Definition) FenceDevicesOf(node string) []*FenceDevice {
	var out []*FenceDevice
	for i := range d.FenceDevices {
		if slices.Contains(d.FenceDevices[i].Nodes, node) {
			out = append(out, &d.FenceDevices[i])
		}
	}
	return out
}

// FenceLevelsOf lists what is tried to switch the node off, in order. All devices of one level must say that it is off.
func (d *Definition) FenceLevelsOf(node string) [][]*FenceDevice {
	var out [][]*FenceDevice
	devices := d.FenceDevicesOf(node)
	for level := 1; level <= MaxFenceLevel; level++ {
		var together []*FenceDevice
		for _, f := range devices {
			if slices.Contains(f.Levels, level) {
				together = append(together, f)
			}
		}
		if together != nil {
			out = append(out, together)
		}
	}
	for _, f := range devices {
		if len(f.Levels) == 0 {
			out = append(out, []*FenceDevice{f})
		}
	}
	return out
}

// NetworksOf lists the networks on which the group's service IPs live, each once, in the order of its list.
func (d *Definition) NetworksOf(g *ResourceGroup) []string {
	var out []string
	add := func(n string) {
		if slices.Contains(out, n) {
			return
		}
		out = append(out, n)
	}
	if g.Network != "" {
		add(g.Network)
	}
	for _, name := range g.ServiceIPs {
		if s := d.ServiceIP(name); s != nil {
			add(s.Network)
		}
	}
	return out
}

func find[T any](list []T, name string, of func(*T) string) *T {
	for i := range list {
		if of(&list[i]) == name {
			return &list[i]
		}
	}
	return nil
}
