package verify

import (
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var storageChecks = []Check{
	{ID: "V0401", Severity: api.SeverityError, Title: "every node of the group has the device", run: checkDevice, Needs: []string{"devices"},
		Why: "the group cannot start there", Fix: "map the volume to the node and look for it (rescan), or take the node out of the group's list"},
	{ID: "V0402", Severity: api.SeverityError, Title: "the device holds the same file system on all nodes", run: checkSameDevice, Needs: []string{"devices"},
		Why: "a failover would bring up other data", Fix: "give the device by UUID=, or correct the mapping"},
	{ID: "V0403", Severity: api.SeverityWarning, Title: "the mount point exists", run: checkMountPoint, Needs: []string{"files"},
		Why: "the first takeover has to make the directory, and fails where that is not possible", Fix: "make the directory, the same on all nodes (FIX=yes does it)"},
	{ID: "V0404", Severity: api.SeverityError, Title: "the mount point is a directory", run: checkMountPointKind, Needs: []string{"files"},
		Why: "the file system cannot be mounted there", Fix: "move what stands there away"},
	{ID: "V0405", Severity: api.SeverityWarning, Title: "the mount point is empty while nothing is mounted", run: checkMountPointEmpty, Needs: []string{"files"},
		Why: "files there were written to the wrong file system, and are hidden when the right one is mounted", Fix: "look whose files these are; move them away"},
	{ID: "V0406", Severity: api.SeverityError, Title: "the system's own table does not mount it at boot", run: checkBootTable, Needs: []string{"boot table"},
		Why: "a node that boots would mount a file system that another node is writing", Fix: "add the option noauto to the entry, or remove it (FIX=yes adds it)"},
	{ID: "V0407", Severity: api.SeverityError, Title: "the programs for the file system are there", run: checkHelpers, Needs: []string{"programs"},
		Why: "the check or the mount fails at the takeover", Fix: "install the package of the file system's programs"},
	{ID: "V0408", Severity: api.SeverityWarning, Title: "the device's name cannot change", run: checkDeviceName,
		Why: "names such as /dev/sdb are given in the order of discovery and may be another disk after a boot", Fix: "use UUID=, LABEL=, a path below /dev/disk/by-id, or a logical volume"},
	{ID: "V0409", Severity: api.SeverityWarning, Title: "the type of the file system is that of the definition", run: checkType, Needs: []string{"devices"},
		Why: "the mount with another type fails", Fix: "correct TYPE= of the file system"},
	{ID: "V0410", Severity: api.SeverityWarning, Title: "no other entry of the system's table has the mount point", run: checkBootPoint, Needs: []string{"boot table"},
		Why: "after a boot something else would be mounted there", Fix: "remove the entry"},
}

// eachFileSystem calls f for every file system on every node of its group.
func (in *Input) eachFileSystem(needs []string, f func(n *cluster.Node, facts *Facts, fs *cluster.FileSystem)) {
	in.each(needs, func(n *cluster.Node, facts *Facts) {
		for i := range in.Definition.FileSystems {
			fs := &in.Definition.FileSystems[i]
			g := in.groupWith(fs.Name, func(g *cluster.ResourceGroup) []string { return g.FileSystems })
			if g != nil && g.Has(n.Name) {
				f(n, facts, fs)
			}
		}
	})
}

func checkDevice(in *Input, h *hits) {
	in.eachFileSystem([]string{"devices"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		d, ok := f.Devices[fs.Device]
		switch {
		case ok && d.Error != "":
			h.add(n.Name, "file_system "+fs.Name, "the device %s cannot be looked at: %s", fs.Device, d.Error)
		case ok && !d.Exists && !in.inVolumeGroup(fs):
			h.add(n.Name, "file_system "+fs.Name, "there is no %s", fs.Device)
		}
	})
}

// inVolumeGroup reports whether the file system's group brings volume groups: a logical volume's device is there only where they are
// active.
func (in *Input) inVolumeGroup(fs *cluster.FileSystem) bool {
	g := in.groupWith(fs.Name, func(g *cluster.ResourceGroup) []string { return g.FileSystems })
	return g != nil && len(g.VolumeGroups) > 0
}

func checkSameDevice(in *Input, h *hits) {
	type seen struct{ node, uuid string }
	first := map[string]seen{}
	in.eachFileSystem([]string{"devices"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		d := f.Devices[fs.Device]
		if d.UUID == "" {
			return
		}
		if s, ok := first[fs.Name]; !ok {
			first[fs.Name] = seen{n.Name, d.UUID}
		} else if s.uuid != d.UUID {
			h.add(n.Name, "file_system "+fs.Name, "%s holds the file system %s, on node %s %s", fs.Device, d.UUID, s.node, s.uuid)
		}
	})
}

func checkMountPoint(in *Input, h *hits) {
	in.eachFileSystem([]string{"files"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		if p, ok := f.Files[fs.MountPoint]; ok && !p.Exists && p.Error == "" {
			h.add(n.Name, "file_system "+fs.Name, "there is no directory %s", fs.MountPoint).
				fixBy(Action{Kind: ActionMkdir, Path: fs.MountPoint, Mode: 0o755})
		}
	})
}

func checkMountPointKind(in *Input, h *hits) {
	in.eachFileSystem([]string{"files"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		if p := f.Files[fs.MountPoint]; p.Exists && p.Kind != "directory" {
			h.add(n.Name, "file_system "+fs.Name, "%s is a %s", fs.MountPoint, p.Kind)
		}
	})
}

func checkMountPointEmpty(in *Input, h *hits) {
	in.eachFileSystem([]string{"files"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		if p := f.Files[fs.MountPoint]; p.Exists && p.Kind == "directory" && !p.Mounted && !p.Empty {
			h.add(n.Name, "file_system "+fs.Name, "%s has files in it, and nothing is mounted there", fs.MountPoint)
		}
	})
}

// sameDevice compares two ways to write a device.
func sameDevice(a, b string) bool {
	unquote := func(s string) string { return strings.ReplaceAll(s, `"`, "") }
	return unquote(a) == unquote(b)
}

func checkBootTable(in *Input, h *hits) {
	in.eachFileSystem([]string{"boot table"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		uuid := f.Devices[fs.Device].UUID
		for _, m := range f.Boot {
			same := sameDevice(m.Source, fs.Device) || uuid != "" && sameDevice(m.Source, "UUID="+uuid)
			if m.Auto && (same || m.Point == fs.MountPoint) {
				h.add(n.Name, "file_system "+fs.Name, "line %d of the system's table mounts %s on %s at boot", m.Line, m.Source, m.Point).
					fixBy(Action{Kind: ActionNoAuto, Path: m.Source, Line: m.Point})
			}
		}
	})
}

func checkBootPoint(in *Input, h *hits) {
	in.eachFileSystem([]string{"boot table"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		uuid := f.Devices[fs.Device].UUID
		for _, m := range f.Boot {
			same := sameDevice(m.Source, fs.Device) || uuid != "" && sameDevice(m.Source, "UUID="+uuid)
			if !m.Auto && !same && m.Point == fs.MountPoint {
				h.add(n.Name, "file_system "+fs.Name, "line %d of the system's table has %s for %s", m.Line, m.Source, m.Point)
			}
		}
	})
}

// HelpersOf are the programs that a file system needs beside the kernel.
func HelpersOf(fs *cluster.FileSystem) []string {
	if fs.Type == "" || fs.Type == "bind" || fs.Type == "tmpfs" || fs.Check == "none" {
		return nil
	}
	return []string{"fsck." + fs.Type}
}

func checkHelpers(in *Input, h *hits) {
	in.eachFileSystem([]string{"programs"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		for _, p := range HelpersOf(fs) {
			if at, looked := f.Programs[p]; looked && at == "" {
				h.add(n.Name, "file_system "+fs.Name, "the program %s is not installed", p)
			}
		}
	})
}

var fleeting = regexp.MustCompile(`^/dev/(sd[a-z]+|vd[a-z]+|xvd[a-z]+|hd[a-z]+|nvme[0-9]+n[0-9]+|dm-[0-9]+|loop[0-9]+)p?[0-9]*$`)

func checkDeviceName(in *Input, h *hits) {
	if in.Definition == nil {
		return
	}
	for i := range in.Definition.FileSystems {
		if fs := &in.Definition.FileSystems[i]; fleeting.MatchString(fs.Device) {
			h.add("", "file_system "+fs.Name, "the device is %s", fs.Device)
		}
	}
}

func checkType(in *Input, h *hits) {
	in.eachFileSystem([]string{"devices"}, func(n *cluster.Node, f *Facts, fs *cluster.FileSystem) {
		d := f.Devices[fs.Device]
		family := fs.Type
		if slices.Contains([]string{"ext2", "ext3", "ext4"}, family) {
			family = "ext"
		}
		if d.Type != "" && family != "" && family != "bind" && d.Type != family {
			h.add(n.Name, "file_system "+fs.Name, "%s holds a file system of type %s, the definition says %s", fs.Device, d.Type, fs.Type)
		}
	})
}
