package aix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// volume finds the logical volume of a device, if its volume group is varied on here.
func (c *call) volume(device string) (*Volume, string, bool) {
	lv := strings.TrimPrefix(device, "/dev/")
	for _, n := range keys(c.ODM.Groups) {
		k, g := c.known(n)
		if g == nil || !slices.Contains(k.Volumes, lv) {
			continue
		}
		if v := g.Volumes[lv]; v != nil {
			return v, lv, c.Run.On[n] == "active" || c.Run.On[n] == "concurrent"
		}
	}
	return nil, lv, false
}

func mount(c *call) int {
	f, args, ok := c.flags("von")
	switch {
	case !ok || len(args) > 2:
		return c.fail(1, "Usage: mount [-fr] [-v vfs] [-n node] [-o options] [[device] directory]")
	case len(args) == 0:
		c.table()
		return 0
	}
	device, point := "", args[len(args)-1]
	if len(args) == 2 {
		device = args[0]
	} else if s := c.ODM.FileSystems[point]; s != nil {
		device = s.Dev
	} else {
		return c.fail(1, "mount: 0506-334 %s is not a known file system.", point)
	}
	v, lv, on := c.volume(device)
	if v == nil || !on {
		return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: There is an input or output error.", device, point)
	}
	options := f['o']
	for _, m := range c.Run.Mounts {
		if m.Device == device || m.Point == point {
			return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: The requested resource is busy.", device, point)
		}
	}
	if v.Broken || v.Dirty && v.Type == "jfs2" {
		if !v.Broken && !v.mustCheck() {
			c.say("Replaying log for %s.", device)
			v.Dirty = false
		} else {
			return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: The media is not formatted or the format is not correct.\n"+
				"0506-342 The superblock on %s is dirty.  Run a full fsck to fix.", device, point, device)
		}
	}
	if v.Guard && v.Held != "" && !slices.Contains(strings.Split(options, ","), "noguard") {
		return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: Operation not permitted.\nCannot mount guarded filesystem.\n"+
			"The filesystem is potentially mounted on another node.", device, point)
	}
	if _, err := os.Stat(point); c.Config.Real && err != nil {
		return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: A file or directory in the path name does not exist.", device, point)
	}
	if c.Config.Real {
		data := filepath.Join(c.Config.Shared, "lv", lv)
		if err := os.MkdirAll(data, 0o755); err != nil {
			return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: %v", device, point, err)
		}
		if err := realMount(data, point, slices.Contains(strings.Split(options, ","), "ro")); err != nil {
			return c.fail(1, "mount: 0506-324 Cannot mount %s on %s: %v", device, point, err)
		}
	}
	if v.MountedBy != "" && (v.MountedBy != c.Config.Node || v.MountBoot != c.Run.Boot) {
		c.Shared.Overlaps = append(c.Shared.Overlaps, fmt.Sprintf("%s file system %s is mounted by %s (boot %s) while %s (boot %s) has it",
			time.Now().UTC().Format(time.RFC3339Nano), device, c.Config.Node, c.Run.Boot, v.MountedBy, v.MountBoot))
	}
	if v.Guard {
		v.Held = c.Config.Node
	}
	v.MountedBy, v.MountBoot, v.Dirty = c.Config.Node, c.Run.Boot, true
	if options == "" {
		options = "rw"
	}
	c.Run.Mounts = append(c.Run.Mounts, Mount{Device: device, Point: point, Vfs: "jfs2", Options: options + ",log=INLINE", At: time.Now()})
	return 0
}

// mustCheck: a file system that was mounted by a boot that is over is only dirty in its log; the mount replays that.
func (v *Volume) mustCheck() bool { return v.Broken }

func (c *call) table() {
	c.say("  node       mounted        mounted over    vfs       date        options      ")
	c.say("-------- ---------------  ---------------  ------ ------------ --------------- ")
	base := []Mount{{Device: "/dev/hd4", Point: "/", Vfs: "jfs2", Options: "rw,log=/dev/hd8"}, {Device: "/proc", Point: "/proc", Vfs: "procfs", Options: "rw"}}
	for _, m := range append(base, c.Run.Mounts...) {
		c.say("%-8s %-16s %-16s %-6s %s %s", m.Node, m.Device, m.Point, m.Vfs, m.At.Format("Jan 02 15:04"), m.Options)
	}
}

func umount(c *call) int {
	_, args, _ := c.flags("")
	if len(args) != 1 {
		return c.fail(1, "Usage: umount [-fs] {-a|all|allr|device|directory}")
	}
	at := slices.IndexFunc(c.Run.Mounts, func(m Mount) bool { return m.Point == args[0] || m.Device == args[0] })
	if at < 0 {
		return c.fail(1, "umount: 0506-347 Cannot find anything to unmount.")
	}
	m := c.Run.Mounts[at]
	busy := false
	for _, o := range c.Run.Mounts {
		busy = busy || strings.HasPrefix(o.Point, m.Point+"/")
	}
	for dir := range c.Run.Exports {
		busy = busy || dir == m.Point || strings.HasPrefix(dir, m.Point+"/")
	}
	if len(c.users(m.Point)) > 0 {
		busy = true
	}
	if !busy && c.Config.Real {
		var err error
		if busy, err = realUnmount(m.Point); err != nil && !busy {
			return c.fail(1, "umount: 0506-346 Cannot unmount %s: %v", m.Device, err)
		}
	}
	if busy {
		return c.fail(1, "umount: 0506-349 Cannot unmount %s: The requested resource is busy.", m.Device)
	}
	if v, _, _ := c.volume(m.Device); v != nil {
		v.MountedBy, v.MountBoot, v.Held, v.Dirty = "", "", "", false
	}
	c.Run.Mounts = append(c.Run.Mounts[:at:at], c.Run.Mounts[at+1:]...)
	return 0
}

// users lists the processes that hold a mount.
func (c *call) users(point string) []int {
	var out []int
	for _, pid := range c.Run.Busy[point] {
		if pid <= 0 || alive(pid) {
			out = append(out, pid)
		}
	}
	if c.Config.Real {
		out = append(out, realUsers(point)...)
	}
	return out
}

func fuser(c *call) int {
	f, args, _ := c.flags("")
	if len(args) != 1 {
		return c.fail(2, "Usage: fuser [-cfkuxV] file...")
	}
	point := args[0]
	for _, m := range c.Run.Mounts {
		if m.Device == args[0] {
			point = m.Point
		}
	}
	fmt.Fprintf(c.err, "%s: ", point)
	var keep []int
	for _, pid := range c.users(point) {
		fmt.Fprintf(c.out, " %8d", max(pid, -pid))
		fmt.Fprintf(c.err, "c")
		if f['u'] != "" {
			fmt.Fprintf(c.err, "(root)")
		}
		if f['k'] != "" && pid > 0 {
			terminate(pid, true)
		}
		if pid < 0 { // a user that no signal reaches
			keep = append(keep, pid)
		}
	}
	if f['k'] != "" {
		c.Run.Busy[point] = keep
	}
	fmt.Fprintln(c.err)
	return 0
}

func fsck(c *call) int {
	f, args, _ := c.flags("o")
	if len(args) != 1 {
		return c.fail(8, "Usage: fsck [-fpn|y] [-o options] filesystem")
	}
	v, _, on := c.volume(args[0])
	if v == nil || !on {
		return c.fail(8, "fsck: 0506-023 Cannot determine the vfs value for file system %s.", args[0])
	}
	for _, m := range c.Run.Mounts {
		if m.Device == args[0] {
			return c.fail(4, "The current volume is: %s\nFile system is currently mounted.\nFSCK STOPPED.", args[0])
		}
	}
	c.say("The current volume is: %s\nPrimary superblock is valid.", args[0])
	if v.Broken && f['y'] == "" {
		c.say("File system is dirty.\nFile system has errors that cannot be repaired in preen mode.")
		return 4
	}
	if v.Dirty && f['f'] == "" || v.Broken || v.Held != "" {
		c.say("J2_LOGREDO:log redo processing for %s", args[0])
	}
	v.Dirty, v.Broken, v.Held = false, false, ""
	c.say("File system is clean.")
	return 0
}

func logredo(c *call) int {
	if len(c.args) != 1 {
		return c.fail(1, "Usage: logredo Special")
	}
	v, _, on := c.volume(c.args[0])
	if v == nil || !on {
		return c.fail(1, "logredo: cannot open %s", c.args[0])
	}
	c.say("J2_LOGREDO:log redo processing for %s", c.args[0])
	if v.Broken {
		return c.fail(1, "J2_LOGREDO:log redo failed for %s", c.args[0])
	}
	v.Dirty = false
	return 0
}

func lsfs(c *call) int {
	c.say("#MountPoint:Device:Vfs:Nodename:Type:Size:Options:AutoMount:Acct")
	status := 0
	for _, p := range keys(c.ODM.FileSystems) {
		s := c.ODM.FileSystems[p]
		v, _, _ := c.volume(s.Dev)
		guard := "no"
		if v == nil {
			status = 1
			c.fail(1, "lsfs: 0506-915 No record matching %s was found in /etc/filesystems.", s.Dev)
		} else if v.Guard {
			guard = "yes"
		}
		c.say("%s:%s:%s:::10485760:%s:%s:no", p, s.Dev, s.Vfs, s.Options, map[string]string{"true": "yes", "false": "no"}[s.Mount])
		c.say("  (lv size 10485760:fs size 10485760:block size 4096:sparse files yes:inline log no:MountGuard %s:LFF no)", guard)
	}
	return status
}

func df(c *call) int {
	c.say("Filesystem    512-blocks      Free %%Used    Iused %%Iused Mounted on")
	c.say("/dev/hd4         4194304   3344184   21%%    12042     3%% /")
	for _, m := range c.Run.Mounts {
		c.say("%-16s 20971520  20000000    5%%       10     1%% %s", m.Device, m.Point)
	}
	return 0
}

func exportfs(c *call) int {
	f, args, _ := c.flags("o")
	switch {
	case f['u'] != "" && len(args) == 1:
		if _, ok := c.Run.Exports[args[0]]; !ok {
			return c.fail(1, "exportfs: 1831-187 %s: not found in sharetab", args[0])
		}
		delete(c.Run.Exports, args[0])
	case f['i'] != "" && len(args) == 1:
		if _, err := os.Stat(args[0]); err != nil && c.Config.Real {
			return c.fail(1, "exportfs: 1831-187 %s: No such file or directory", args[0])
		}
		c.Run.Exports[args[0]] = f['o']
	case len(args) == 0:
		for _, d := range keys(c.Run.Exports) {
			c.say("%s -%s", d, c.Run.Exports[d])
		}
	default:
		return c.fail(2, "Usage: exportfs [-aiuv] [-o options] [directory]")
	}
	return 0
}
