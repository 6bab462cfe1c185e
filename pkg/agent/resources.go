package agent

import (
	"fmt"
	"slices"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// resourcesOf lists a group's resources in the order of acquisition, resolved for the node: volume groups, addresses, file
// systems, exports, applications; or file systems before addresses where the group says so. Release is the reverse.
func resourcesOf(d *cluster.Definition, g *cluster.ResourceGroup, node string) ([]executor.Resource, error) {
	var ips, fss, apps []executor.Resource
	vgs, err := volumeGroupsOf(d, g)
	if err != nil {
		return nil, err
	}
	exports, err := exportsOf(d, g)
	if err != nil {
		return nil, err
	}
	for _, label := range g.ServiceIPs {
		s := d.ServiceIP(label)
		if s == nil {
			return nil, fmt.Errorf("service IP %s of group %s is not defined", label, g.Name)
		}
		a, err := resolve(d, node, s.Name, s.Address, s.Network, s.Prefix, s.Interface)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", g.Name, err)
		}
		ips = append(ips, executor.Resource{Kind: executor.KindServiceIP, Name: s.Name, Group: g.Name, IP: a})
	}
	for _, name := range g.FileSystems {
		f := d.FileSystem(name)
		if f == nil {
			return nil, fmt.Errorf("file system %s of group %s is not defined", name, g.Name)
		}
		fss = append(fss, executor.Resource{Kind: executor.KindFileSystem, Name: f.Name, Group: g.Name, FileSystem: f})
	}
	for _, name := range g.Applications {
		a := d.ApplicationController(name)
		if a == nil {
			return nil, fmt.Errorf("application controller %s of group %s is not defined", name, g.Name)
		}
		apps = append(apps, executor.Resource{Kind: executor.KindOf(a), Name: a.Name, Group: g.Name, App: a})
	}
	if g.FSBeforeIP {
		return slices.Concat(vgs, fss, ips, exports, apps), nil
	}
	return slices.Concat(vgs, ips, fss, exports, apps), nil
}

func volumeGroupsOf(d *cluster.Definition, g *cluster.ResourceGroup) ([]executor.Resource, error) {
	var out []executor.Resource
	for _, name := range g.VolumeGroups {
		v := d.VolumeGroup(name)
		if v == nil {
			return nil, fmt.Errorf("volume group %s of group %s is not defined", name, g.Name)
		}
		out = append(out, executor.Resource{Kind: executor.KindVolumeGroup, Name: v.Name, Group: g.Name,
			VolumeGroup: &executor.VolumeGroup{VolumeGroup: *v, Forced: g.ForcedVaryon, AutoImport: g.VGAutoImport}})
	}
	return out, nil
}

func exportsOf(d *cluster.Definition, g *cluster.ResourceGroup) ([]executor.Resource, error) {
	var out []executor.Resource
	for _, name := range g.NFSExports {
		e := d.NFSExport(name)
		if e == nil {
			return nil, fmt.Errorf("NFS export %s of group %s is not defined", name, g.Name)
		}
		out = append(out, executor.Resource{Kind: executor.KindNFSExport, Name: e.Name, Group: g.Name, Export: e})
	}
	return out, nil
}

// persistentIPsOf lists the persistent IPs of a node.
func persistentIPsOf(d *cluster.Definition, node string) ([]executor.Resource, error) {
	var out []executor.Resource
	for i := range d.PersistentIPs {
		p := &d.PersistentIPs[i]
		if p.Node != node {
			continue
		}
		a, err := resolve(d, node, p.Name, p.Address, p.Network, p.Prefix, "")
		if err != nil {
			return nil, err
		}
		out = append(out, executor.Resource{Kind: executor.KindPersistentIP, Name: p.Name, IP: a})
	}
	return out, nil
}

func resolve(d *cluster.Definition, node, label, address, network string, prefix int, iface string) (*executor.Address, error) {
	n, w := d.Node(node), d.Network(network)
	if n == nil || w == nil {
		return nil, fmt.Errorf("address %s: node %s or network %s is not defined", label, node, network)
	}
	if prefix == 0 {
		prefix = w.Prefix
	}
	a := &executor.Address{Label: label, Address: address, Prefix: prefix, Network: network, NodeAddress: n.Addresses[network],
		Interface: iface, Interfaces: n.Interfaces[network], Distribution: w.Distribution}
	for i := range d.ServiceIPs {
		if s := &d.ServiceIPs[i]; s.Network == network && s.Address != address {
			a.Services = append(a.Services, s.Address)
		}
	}
	for i := range d.PersistentIPs {
		if p := &d.PersistentIPs[i]; p.Node == node && p.Network == network && p.Address != address {
			a.Persistent = p.Address
		}
	}
	return a, nil
}
