package aix

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// known finds a volume group of this node's ODM, and what its disks say of it.
func (c *call) known(name string) (*Known, *Group) {
	k := c.ODM.Groups[name]
	if k == nil {
		return nil, nil
	}
	return k, c.Shared.Groups[k.ID]
}

// locked reports that somebody holds the lock of the volume group: the command waits for it, and says so once.
func (c *call) locked(name string) bool {
	l := c.ODM.Locks[name]
	if l == nil {
		return false
	}
	if l.Owner != 0 && !alive(l.Owner) && l.Owner > 0 {
		l.Owner = 0 // its owner died: the lock stays
	}
	if !c.warned {
		c.fail(0, "0516-1201 %s: Warning: Volume group %s is locked. This command\n\twill continue retries until lock is free.  If lock is inadvertent\n"+
			"\tand needs to be removed, execute 'chvg -u %s'.", c.name, name, name)
	}
	c.again = true
	return true
}

// disks lists the PVIDs of a volume group, and those that this node does not see.
func (c *call) disks(g *Group) (all, missing []string) {
	for _, id := range keys(c.Shared.Disks) {
		d := c.Shared.Disks[id]
		if d.Group != g.ID {
			continue
		}
		all = append(all, id)
		if slices.Contains(d.Missing, c.Config.Node) || slices.Contains(d.Missing, "*") || c.hdisk(id) == "" {
			missing = append(missing, id)
		}
	}
	return all, missing
}

func (c *call) hdisk(pvid string) string {
	for _, h := range keys(c.ODM.Disks) {
		if c.ODM.Disks[h] == pvid {
			return h
		}
	}
	return ""
}

func (c *call) groupOfDisk(pvid string) (string, *Known) {
	d := c.Shared.Disks[pvid]
	if d == nil {
		return "", nil
	}
	for _, n := range keys(c.ODM.Groups) {
		if c.ODM.Groups[n].ID == d.Group {
			return n, c.ODM.Groups[n]
		}
	}
	return "", nil
}

func lspv(c *call) int {
	_, args, _ := c.flags("n")
	if len(args) == 1 {
		return c.onePV(args[0])
	}
	for _, h := range keys(c.ODM.Disks) {
		pvid := c.ODM.Disks[h]
		d := c.Shared.Disks[pvid]
		if d == nil || slices.Contains(d.Missing, c.Config.Node) || slices.Contains(d.Missing, "*") {
			// A disk that is Defined only is not listed.
			continue
		}
		group, state := "None", ""
		if n, _ := c.groupOfDisk(pvid); n != "" {
			group = n
			switch {
			case c.ODM.Locks[n] != nil:
				state = "locked"
			case c.Run.On[n] == "concurrent" || c.Run.On[n] == "passive":
				state = "concurrent"
			case c.Run.On[n] != "":
				state = "active"
			}
		}
		c.say("%-15s %-35s %-15s %s", h, pvid, group, state)
	}
	return 0
}

func (c *call) onePV(h string) int {
	pvid, ok := c.ODM.Disks[h]
	if !ok {
		return c.fail(1, "0516-320 lspv: Physical volume %s is not assigned to\n\ta volume group.", h)
	}
	n, k := c.groupOfDisk(pvid)
	if n == "" {
		return c.fail(1, "0516-320 lspv: Physical volume %s is not assigned to\n\ta volume group.", h)
	}
	c.say("PHYSICAL VOLUME:    %-24s VOLUME GROUP:     %s", h, n)
	c.say("PV IDENTIFIER:      %-24s VG IDENTIFIER     %s", pvid, k.ID)
	if c.Run.On[n] == "" {
		c.say("PV STATE:           ???????                                    ")
		c.say("STALE PARTITIONS:   ???????                  ALLOCATABLE:      ???????")
		return 0
	}
	c.say("PV STATE:           active                                     ")
	c.say("STALE PARTITIONS:   0                        ALLOCATABLE:      yes")
	return 0
}

func lsvg(c *call) int {
	f, args, ok := c.flags("n")
	if !ok {
		return c.fail(1, "Usage: lsvg [-o] [-n PVname] or lsvg [-L] [-n PVname] [-l|-M|-p] vgname...")
	}
	if len(args) == 0 {
		for _, n := range keys(c.ODM.Groups) {
			if state := c.Run.On[n]; f['o'] == "" || state == "active" || state == "concurrent" {
				c.say("%s", n)
			}
		}
		return 0
	}
	name := args[0]
	k, g := c.known(name)
	if k == nil || g == nil {
		return c.fail(1, "0516-306 lsvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", name)
	}
	if f['L'] == "" && c.locked(name) {
		return 1
	}
	state := c.Run.On[name]
	if state == "" {
		return c.fail(1, "0516-010 lsvg: Volume group must be varied on; use varyonvg command.")
	}
	switch {
	case f['l'] != "":
		return c.listVolumes(name, g)
	case f['p'] != "":
		return c.listDisks(name, g)
	}
	c.describe(name, k, g, state)
	return 0
}

func (c *call) describe(name string, k *Known, g *Group, state string) {
	all, missing := c.disks(g)
	open, quorum, permission := 0, "1 (Disabled)", "read/write"
	for _, lv := range g.Volumes {
		if c.open(lv) {
			open++
		}
	}
	if g.Quorum {
		quorum = fmt.Sprintf("%d (Enabled)", len(all)/2+1)
	}
	if state == "passive" {
		permission = "passive-only"
	}
	auto := map[bool]string{true: "yes", false: "no"}[k.AutoOn]
	row := func(a, av, b, bv string) { c.say("%-19s %-24s %-15s %s", a, av, b, bv) }
	row("VOLUME GROUP:", name, "VG IDENTIFIER:", " "+g.ID)
	row("VG STATE:", "active", "PP SIZE:", "       16 megabyte(s)")
	row("VG PERMISSION:", permission, "TOTAL PPs:", fmt.Sprintf("     %d (%d megabytes)", 1275*len(all), 20400*len(all)))
	row("MAX LVs:", "256", "FREE PPs:", fmt.Sprintf("      %d (%d megabytes)", 1275*len(all), 20400*len(all)))
	row("LVs:", fmt.Sprint(len(g.Volumes)), "USED PPs:", "      0 (0 megabytes)")
	row("OPEN LVs:", fmt.Sprint(open), "QUORUM:", "        "+quorum)
	row("TOTAL PVs:", fmt.Sprint(len(all)), "VG DESCRIPTORS:", "3")
	row("STALE PVs:", fmt.Sprint(len(missing)), "STALE PPs:", "     0")
	row("ACTIVE PVs:", fmt.Sprint(len(all)-len(missing)), "AUTO ON:", "       "+auto)
	if g.Concurrent {
		row("Concurrent:", "Enhanced-Capable", "Auto-Concurrent:", "Disabled")
		if state != "active" {
			row("VG Mode:", "Concurrent", "", "")
			row("Node ID:", "1", "Active Nodes:", "       2")
		}
	}
	row("MAX PPs per VG:", "32768", "MAX PVs:", "       1024")
	row("LTG size (Dynamic):", "256 kilobyte(s)", "AUTO SYNC:", "     no")
	row("HOT SPARE:", "no", "BB POLICY:", "     relocatable")
	row("PV RESTRICTION:", "none", "INFINITE RETRY:", "no")
}

// open reports whether a logical volume is open on this node.
func (c *call) open(v *Volume) bool {
	return v.OpenRaw || v.MountedBy == c.Config.Node && v.MountBoot == c.Run.Boot
}

func (c *call) listVolumes(name string, g *Group) int {
	c.say("%s:", name)
	c.say("%-19s %-10s %-7s %-7s %-5s %-13s %s", "LV NAME", "TYPE", "LPs", "PPs", "PVs", "LV STATE", "MOUNT POINT")
	for _, n := range keys(g.Volumes) {
		v := g.Volumes[n]
		state, point := "closed/syncd", v.Point
		if c.open(v) {
			state = "open/syncd"
		}
		if point == "" {
			point = "N/A"
		}
		c.say("%-19s %-10s %-7d %-7d %-5d %-13s %s", n, v.Type, 10, 10, 1, state, point)
	}
	return 0
}

func (c *call) listDisks(name string, g *Group) int {
	c.say("%s:", name)
	c.say("%-17s %-17s %-11s %-11s %s", "PV_NAME", "PV STATE", "TOTAL PPs", "FREE PPs", "FREE DISTRIBUTION")
	all, missing := c.disks(g)
	for _, id := range all {
		h, state := c.hdisk(id), "active"
		if slices.Contains(missing, id) {
			state = "missing"
		}
		if h == "" {
			h = id
		}
		c.say("%-17s %-17s %-11d %-11d %s", h, state, 1275, 1275, "255..255..255..255..255")
	}
	return 0
}

func varyonvg(c *call) int {
	f, args, ok := c.flags("kM")
	if !ok || len(args) != 1 {
		return c.fail(1, "Usage: varyonvg [-b] [-c] [-f] [-n] [-p] [-r] [-s] [-t] [-u] [-d] [-o] [-O] vgname")
	}
	name := args[0]
	k, g := c.known(name)
	if k == nil || g == nil {
		return c.fail(1, "0516-306 varyonvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", name)
	}
	if c.locked(name) {
		return 1
	}
	if f['c'] != "" && !g.Concurrent {
		return c.fail(1, "0516-949 varyonvg: This volume group not created concurrent capable.")
	}
	if f['c'] != "" && c.Run.Running["cthags"].Status != "active" {
		return c.fail(1, "0516-1335 varyonvg: This system does not support enhanced concurrent\n\tcapable volume groups.")
	}
	all, missing := c.disks(g)
	for _, id := range all {
		if d := c.Shared.Disks[id]; d.Reserve != "" && d.Reserve != c.Config.Node && !slices.Contains(missing, id) {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		for _, id := range all {
			state := "PVACTIVE"
			if slices.Contains(missing, id) {
				state = "PVMISSING"
			}
			c.say("PV Status:\t%s\t%s\t%s", c.hdisk(id), id, state)
		}
		if f['f'] == "" || len(missing) == len(all) {
			return c.fail(1, "0516-052 varyonvg: Volume group cannot be varied on without a\n\tquorum. More physical volumes in the group must be active.\n"+
				"\tRun diagnostics on inactive PVs.")
		}
	}
	how := "active"
	switch {
	case f['P'] != "":
		how = "passive"
	case f['c'] != "":
		how = "concurrent"
	}
	c.switchOn(name, g, how)
	for _, id := range all {
		if d := c.Shared.Disks[id]; d.Policy == "single_path" && how == "active" && !slices.Contains(missing, id) {
			d.Reserve = c.Config.Node
		}
	}
	k.Timestamp = g.Timestamp
	return 0
}

// switchOn varies on, and notes it when another node has it on: nothing in the disks prevents that.
func (c *call) switchOn(name string, g *Group, how string) {
	mk(&g.On)
	was := c.Run.On[name]
	c.Run.On[name] = how
	if how == "passive" {
		delete(g.On, c.Config.Node)
		return
	}
	for _, n := range keys(g.On) {
		if n != c.Config.Node {
			c.Shared.Overlaps = append(c.Shared.Overlaps, fmt.Sprintf("%s volume group %s is varied on by %s (boot %s) while %s (boot %s) has it",
				time.Now().UTC().Format(time.RFC3339Nano), g.Name, c.Config.Node, c.Run.Boot, n, g.On[n]))
		}
	}
	g.On[c.Config.Node] = c.Run.Boot
	if was == "" {
		c.journal("varyon", g.Name)
	}
}

func varyoffvg(c *call) int {
	_, args, ok := c.flags("")
	if !ok || len(args) != 1 {
		return c.fail(1, "Usage: varyoffvg [-s] vgname")
	}
	name := args[0]
	k, g := c.known(name)
	if k == nil || g == nil {
		return c.fail(1, "0516-306 varyoffvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", name)
	}
	if c.locked(name) {
		return 1
	}
	if c.Run.On[name] == "" {
		return c.fail(1, "0516-010 lvaryoffvg: Volume group must be varied on; use varyonvg command.\n0516-942 varyoffvg: Unable to vary off volume group %s.", name)
	}
	for _, n := range keys(g.Volumes) {
		if c.open(g.Volumes[n]) {
			return c.fail(1, "0516-012 lvaryoffvg: Logical volume must be closed.  If the logical\n\tvolume contains a filesystem, the umount command will close\n"+
				"\tthe LV device.\n0516-942 varyoffvg: Unable to vary off volume group %s.", name)
		}
	}
	delete(c.Run.On, name)
	delete(g.On, c.Config.Node)
	all, _ := c.disks(g)
	for _, id := range all {
		if d := c.Shared.Disks[id]; d.Reserve == c.Config.Node {
			d.Reserve = ""
		}
	}
	c.journal("varyoff", g.Name)
	return 0
}

func importvg(c *call) int {
	f, args, ok := c.flags("VyL")
	if !ok || len(args) != 1 {
		return c.fail(1, "Usage: importvg [-V MajorNumber] [-y VGname] [-f] [-c] [-x] | [-L VGname] [-n] [-F] [-R] [-I] PVname | PVid")
	}
	pvid := c.ODM.Disks[args[0]]
	d := c.Shared.Disks[pvid]
	if d == nil {
		return c.fail(1, "0516-306 importvg: Unable to find physical volume %s in the Device\n\tConfiguration Database.", args[0])
	}
	g := c.Shared.Groups[d.Group]
	if g == nil || slices.Contains(d.Missing, c.Config.Node) || d.Reserve != "" && d.Reserve != c.Config.Node {
		return c.fail(1, "0516-024 lqueryvg: Unable to open physical volume.\n\tEither PV was not configured or could not be opened. Run\n\tdiagnostics.")
	}
	if learn := f['L']; learn != "" && learn != "yes" {
		return c.learn(learn, g)
	}
	name := f['y']
	if name == "" {
		name = "vg00"
	}
	if c.ODM.Groups[name] != nil {
		return c.fail(1, "0516-360 importvg: The device name %s is already used; choose a\n\tdifferent name.", name)
	}
	major := 0
	_, _ = fmt.Sscan(f['V'], &major)
	if major == 0 {
		major = 34 + len(c.ODM.Groups)
	}
	c.ODM.Groups[name] = &Known{ID: g.ID, Major: major, AutoOn: true}
	c.learn(name, g)
	g.Quorum = true
	c.say("%s", name)
	if !g.Concurrent {
		c.switchOn(name, g, "active")
	}
	return 0
}

// learn takes what the disks say into the node's ODM.
func (c *call) learn(name string, g *Group) int {
	k := c.ODM.Groups[name]
	if k == nil || k.ID != g.ID {
		return c.fail(1, "0516-306 importvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", name)
	}
	if c.Run.On[name] == "active" && c.name == "importvg" && c.flagL() {
		return c.fail(1, "0516-1281 synclvodm: Warning, the volume group %s is varied on.", name)
	}
	k.Timestamp, k.Volumes = g.Timestamp, keys(g.Volumes)
	for _, n := range k.Volumes {
		if v := g.Volumes[n]; v.Point != "" && c.ODM.FileSystems[v.Point] == nil {
			c.ODM.FileSystems[v.Point] = &Stanza{Dev: "/dev/" + n, Mount: "false", Vfs: "jfs2"}
		}
	}
	return 0
}

func (c *call) flagL() bool {
	f, _, _ := c.flags("VyL")
	return f['L'] != ""
}

func exportvg(c *call) int {
	if len(c.args) != 1 || c.ODM.Groups[c.args[0]] == nil {
		return c.fail(1, "0516-306 exportvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", strings.Join(c.args, " "))
	}
	name := c.args[0]
	if c.Run.On[name] != "" {
		return c.fail(1, "0516-764 exportvg: The volume group must be varied off\n\tbefore exporting.")
	}
	for _, lv := range c.ODM.Groups[name].Volumes {
		for point, s := range c.ODM.FileSystems {
			if s.Dev == "/dev/"+lv {
				delete(c.ODM.FileSystems, point)
			}
		}
	}
	delete(c.ODM.Groups, name)
	return 0
}

func chvg(c *call) int {
	f, args, ok := c.flags("aQsx")
	if !ok || len(args) != 1 {
		return c.fail(1, "Usage: chvg [-s y|n] [-a y|n] [-Q y|n] [-u] [-C] vgname")
	}
	name := args[0]
	k, g := c.known(name)
	if k == nil {
		return c.fail(1, "0516-306 chvg: Unable to find volume group %s in the Device\n\tConfiguration Database.", name)
	}
	if f['u'] != "" {
		delete(c.ODM.Locks, name)
		return 0
	}
	if c.locked(name) {
		return 1
	}
	if c.Run.On[name] == "" {
		return c.fail(1, "0516-010 lchangevg: Volume group must be varied on; use varyonvg command.\n0516-732 chvg: Unable to change volume group %s.", name)
	}
	if f['a'] != "" {
		k.AutoOn = f['a'] == "y"
	}
	if f['Q'] != "" {
		g.Quorum = f['Q'] == "y"
	}
	return 0
}

func lqueryvg(c *call) int {
	f, _, _ := c.flags("pg")
	d := c.Shared.Disks[c.ODM.Disks[f['p']]]
	if d == nil || slices.Contains(d.Missing, c.Config.Node) || d.Reserve != "" && d.Reserve != c.Config.Node {
		return c.fail(1, "0516-024 lqueryvg: Unable to open physical volume.\n\tEither PV was not configured or could not be opened. Run\n\tdiagnostics.")
	}
	g := c.Shared.Groups[d.Group]
	if g == nil {
		return c.fail(1, "0516-066 lqueryvg: Physical volume is not a volume group member.\n\tCheck the physical volume name specified.")
	}
	switch {
	case f['T'] != "":
		c.say("%s", g.Timestamp)
	case f['v'] != "":
		c.say("%s", g.ID)
	}
	return 0
}

func getlvodm(c *call) int {
	f, _, _ := c.flags("Tvj")
	switch {
	case f['v'] != "":
		if k := c.ODM.Groups[f['v']]; k != nil {
			c.say("%s", k.ID)
			return 0
		}
	case f['T'] != "":
		for n, k := range c.ODM.Groups {
			if k.ID == f['T'] || n == f['T'] {
				c.say("%s", k.Timestamp)
				return 0
			}
		}
	case f['j'] != "":
		if n, k := c.groupOfDisk(c.ODM.Disks[f['j']]); n != "" {
			c.say("%s", k.ID)
			return 0
		}
	}
	return c.fail(1, "0516-306 getlvodm: Unable to find volume group %s%s in the Device\n\tConfiguration Database.", f['v'], f['T'])
}

func devrsrv(c *call) int {
	f, _, _ := c.flags("clskrt")
	h := f['l']
	d := c.Shared.Disks[c.ODM.Disks[h]]
	if d == nil {
		return c.fail(1, "Device %s is not found", h)
	}
	if f['f'] != "" || f['c'] == "release" {
		if f['f'] == "" && d.Reserve != c.Config.Node {
			return c.fail(1, "Device %s: Reservation conflict", h)
		}
		d.Reserve = ""
		return 0
	}
	words := map[string]string{"no_reserve": "NO RESERVE", "single_path": "SINGLE PATH RESERVE", "PR_exclusive": "PR EXCLUSIVE", "PR_shared": "PR SHARED"}
	open, state := "NO", "NO RESERVE"
	if n, _ := c.groupOfDisk(c.ODM.Disks[h]); c.Run.On[n] != "" {
		open = "YES"
	}
	if d.Reserve != "" {
		state = "SINGLE PATH RESERVE"
	}
	c.say("Device Reservation State Information")
	c.say("==================================================")
	c.say("Device Name                     :  %s", h)
	c.say("Device Open On Current Host?    :  %s", open)
	c.say("ODM Reservation Policy          :  %s", words[d.Policy])
	c.say("Device Reservation State        :  %s", state)
	if d.Reserve == c.Config.Node {
		c.say("Path Id of Reserved Path        :  0")
	}
	return 0
}

func lsattr(c *call) int {
	f, _, _ := c.flags("la")
	if d := c.Shared.Disks[c.ODM.Disks[f['l']]]; d != nil {
		c.say("reserve_policy %s Reserve Policy True", d.Policy)
		return 0
	}
	return c.fail(255, "lsattr: 0514-519 The following device was not found in the customized\n\tdevice configuration database:\n\t%s", f['l'])
}

func lsdev(c *call) int {
	for _, h := range keys(c.ODM.Disks) {
		state := "Available"
		if d := c.Shared.Disks[c.ODM.Disks[h]]; d == nil || slices.Contains(d.Missing, c.Config.Node) {
			state = "Defined"
		}
		c.say("%s %s  C6-T1-01 Virtual SCSI Disk Drive", h, state)
	}
	return 0
}

func lspath(c *call) int {
	for _, h := range keys(c.ODM.Disks) {
		state := "Enabled"
		if d := c.Shared.Disks[c.ODM.Disks[h]]; d == nil || slices.Contains(d.Missing, c.Config.Node) {
			state = "Failed"
		}
		c.say("%s:%s:vscsi0:810000000000", state, h)
	}
	return 0
}
