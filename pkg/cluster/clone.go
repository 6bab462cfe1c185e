package cluster

import (
	"maps"
	"reflect"
	"slices"
)

// Clone returns a deep copy: no change to one can be seen in the other.
func (d *Definition) Clone() *Definition {
	if d == nil {
		return nil
	}
	c := *d
	c.Nodes = slices.Clone(d.Nodes)
	for i := range c.Nodes {
		c.Nodes[i].Addresses = cloneMap(c.Nodes[i].Addresses)
		c.Nodes[i].Interfaces = cloneMap(c.Nodes[i].Interfaces)
		for k, list := range c.Nodes[i].Interfaces {
			c.Nodes[i].Interfaces[k] = slices.Clone(list)
		}
		c.Nodes[i].StartOnBoot = clonePointer(c.Nodes[i].StartOnBoot)
	}
	c.Networks = slices.Clone(d.Networks)
	for i := range c.Networks {
		c.Networks[i].ProbeTargets = slices.Clone(c.Networks[i].ProbeTargets)
	}
	c.ServiceIPs = slices.Clone(d.ServiceIPs)
	c.PersistentIPs = slices.Clone(d.PersistentIPs)
	c.VolumeGroups = slices.Clone(d.VolumeGroups)
	for i := range c.VolumeGroups {
		c.VolumeGroups[i].PhysicalVolumes = slices.Clone(c.VolumeGroups[i].PhysicalVolumes)
	}
	c.FileSystems = slices.Clone(d.FileSystems)
	c.NFSExports = slices.Clone(d.NFSExports)
	for i := range c.NFSExports {
		c.NFSExports[i].Clients = slices.Clone(c.NFSExports[i].Clients)
	}
	c.ApplicationControllers = slices.Clone(d.ApplicationControllers)
	for i := range c.ApplicationControllers {
		a := &c.ApplicationControllers[i]
		a.Params = cloneMap(a.Params)
		a.StartArgs, a.StopArgs, a.Monitors = slices.Clone(a.StartArgs), slices.Clone(a.StopArgs), slices.Clone(a.Monitors)
	}
	c.ApplicationMonitors = slices.Clone(d.ApplicationMonitors)
	for i := range c.ApplicationMonitors {
		m := &c.ApplicationMonitors[i]
		m.Processes, m.RestartCount = slices.Clone(m.Processes), clonePointer(m.RestartCount)
	}
	c.Repositories = slices.Clone(d.Repositories)
	c.FenceDevices = slices.Clone(d.FenceDevices)
	for i := range c.FenceDevices {
		f := &c.FenceDevices[i]
		f.Nodes, f.Params, f.Plugs, f.Levels = slices.Clone(f.Nodes), cloneMap(f.Params), cloneMap(f.Plugs), slices.Clone(f.Levels)
	}
	c.ResourceGroups = slices.Clone(d.ResourceGroups)
	for i := range c.ResourceGroups {
		g := &c.ResourceGroups[i]
		g.Nodes, g.ServiceIPs = slices.Clone(g.Nodes), slices.Clone(g.ServiceIPs)
		g.FileSystems, g.Applications = slices.Clone(g.FileSystems), slices.Clone(g.Applications)
		g.VolumeGroups, g.NFSExports = slices.Clone(g.VolumeGroups), slices.Clone(g.NFSExports)
	}
	c.Dependencies = slices.Clone(d.Dependencies)
	for i := range c.Dependencies {
		p := &c.Dependencies[i]
		p.SameNode = slices.Clone(p.SameNode)
		if p.DifferentNodes != nil {
			p.DifferentNodes = &DifferentNodes{High: slices.Clone(p.DifferentNodes.High),
				Intermediate: slices.Clone(p.DifferentNodes.Intermediate), Low: slices.Clone(p.DifferentNodes.Low)}
		}
	}
	c.FallbackTimers = slices.Clone(d.FallbackTimers)
	c.Events = slices.Clone(d.Events)
	for i := range c.Events {
		c.Events[i].Pre, c.Events[i].Post = slices.Clone(c.Events[i].Pre), slices.Clone(c.Events[i].Post)
	}
	c.Methods = slices.Clone(d.Methods)
	for i := range c.Methods {
		c.Methods[i].Nodes = slices.Clone(c.Methods[i].Nodes)
	}
	c.Waivers = slices.Clone(d.Waivers)
	c.FileCollections = slices.Clone(d.FileCollections)
	for i := range c.FileCollections {
		c.FileCollections[i].Files = slices.Clone(c.FileCollections[i].Files)
		c.FileCollections[i].Nodes = slices.Clone(c.FileCollections[i].Nodes)
	}
	c.Settings.Timings = cloneMap(d.Settings.Timings)
	return &c
}

// Equal reports whether two definitions mean the same: defaults that one leaves out and the other writes down do not
// differ, nor do empty and missing lists. The order of lists counts, because it is the order of priorities and listings.
func (d *Definition) Equal(o *Definition) bool {
	if d == nil || o == nil {
		return d == o
	}
	a, b := d.Clone(), o.Clone()
	for _, x := range []*Definition{a, b} {
		x.Defaults()
		dropEmpty(reflect.ValueOf(x).Elem())
	}
	return reflect.DeepEqual(a, b)
}

// dropEmpty turns empty slices and maps into nil ones, all the way down.
func dropEmpty(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			dropEmpty(field)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			dropEmpty(v.Elem())
		}
	case reflect.Map:
		if v.Len() == 0 {
			v.SetZero()
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.SetZero()
			return
		}
		for i := range v.Len() {
			dropEmpty(v.Index(i))
		}
	}
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return nil
	}
	out := make(map[string]V, len(m))
	maps.Copy(out, m)
	return out
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
