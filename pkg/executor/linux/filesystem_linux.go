package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// FileSystems is the executor of file systems.
type FileSystems struct {
	run *executor.Runner
	log *slog.Logger
}

var _ executor.Executor = (*FileSystems)(nil)

// NewFileSystem makes the executor of file systems.
func NewFileSystem(o FileSystemOptions) *FileSystems {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &FileSystems{run: o.Runner, log: o.Logger.With("component", "file system")}
}

// Kind is that of file systems.
func (x *FileSystems) Kind() executor.Kind { return executor.KindFileSystem }

// Validate checks that the device exists, that the mount point can be used and that the tools are there.
func (x *FileSystems) Validate(ctx context.Context, r executor.Resource) error {
	f := r.FileSystem
	if f == nil {
		return errors.New("the resource has no file system: this is a fault of the caller")
	}
	errs := []error{executor.CheckMountPoint(f, os.Stat)}
	if _, err := x.deviceOf(ctx, r); err != nil {
		errs = append(errs, err)
	}
	if f.Check != "" && f.Check != "fsck" && f.Check != "none" {
		errs = append(errs, fmt.Errorf("check %q of file system %s is neither fsck nor none", f.Check, f.Name))
	}
	for _, tool := range []string{"mount", "umount"} {
		if _, err := findTool(tool); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A device is what a file system is mounted from, resolved on this node.
type device struct {
	path  string // what mount is given
	block bool
	rdev  uint64 // of a block device
	bind  bool
	loop  bool
	dev   uint64 // file system and inode of an image file or a directory
	ino   uint64
}

// deviceOf finds the device. Types without one (tmpfs, NFS, ...) keep their text.
func (x *FileSystems) deviceOf(ctx context.Context, r executor.Resource) (device, error) {
	f := r.FileSystem
	d := device{path: f.Device, bind: f.Type == "bind" || hasOption(f.Options, "bind"), loop: hasOption(f.Options, "loop")}
	if tag, value, ok := strings.Cut(f.Device, "="); ok && !filepath.IsAbs(f.Device) {
		path, err := x.deviceByTag(ctx, r, tag, value)
		if err != nil {
			return d, err
		}
		d.path = path
	}
	if !filepath.IsAbs(d.path) {
		if d.bind || d.loop {
			return d, fmt.Errorf("device %q of file system %s must be an absolute path", f.Device, f.Name)
		}
		return d, nil
	}
	path, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return d, fmt.Errorf("device of file system %s: %w", f.Name, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return d, fmt.Errorf("device of file system %s: %w", f.Name, err)
	}
	st := info.Sys().(*syscall.Stat_t)
	d.path, d.dev, d.ino, d.rdev = path, st.Dev, st.Ino, st.Rdev
	d.block = info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	switch {
	case d.bind && !info.IsDir():
		return d, fmt.Errorf("%s of file system %s is not a directory, a bind mount needs one", path, f.Name)
	case d.loop && !d.block && !info.Mode().IsRegular():
		return d, fmt.Errorf("%s of file system %s is not an image file", path, f.Name)
	case !d.bind && !d.block && !d.loop && info.Mode().IsRegular():
		return d, fmt.Errorf("%s of file system %s is a file; to mount an image add the option loop", path, f.Name)
	}
	return d, nil
}

func (x *FileSystems) deviceByTag(ctx context.Context, r executor.Resource, tag, value string) (string, error) {
	dirs := map[string]string{"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
	dir, ok := dirs[tag]
	if !ok || value == "" {
		return "", fmt.Errorf("device %s=%s: only UUID=, LABEL=, PARTUUID= and PARTLABEL= are known", tag, value)
	}
	link := filepath.Join("/dev/disk", dir, value)
	if _, err := os.Stat(link); err == nil && !strings.Contains(value, "/") {
		return link, nil
	}
	tool, err := findTool("blkid")
	if err != nil {
		return "", fmt.Errorf("find the device %s=%s: it is not below /dev/disk, and %w", tag, value, err)
	}
	out := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "blkid", Path: tool, Trusted: true, Unrecorded: true,
		Args: []string{"-l", "-o", "device", "-t", tag + "=" + value}, Timeout: 30 * time.Second})
	path := strings.TrimSpace(out.Output)
	if out.Err != nil || !filepath.IsAbs(path) {
		return "", fmt.Errorf("no device on this node has %s=%s", tag, value)
	}
	return path, nil
}

// is reports whether the mount is one of the device.
func (d device) is(m mount, f *cluster.FileSystem) bool {
	switch {
	case d.bind:
		var st unix.Stat_t // of the directory that is mounted; it is local, or the bind mount's own file system hangs anyway
		if err := unix.Stat(m.point, &st); err != nil {
			return false
		}
		return st.Dev == d.dev && st.Ino == d.ino
	case d.block:
		if unix.Mkdev(m.major, m.minor) == d.rdev {
			return true
		}
		return sameDevice(m.source, d.rdev) // btrfs and its like show a number of their own
	case d.loop:
		return loopOf(m, d)
	}
	return m.source == f.Device && (f.Type == "" || f.Type == m.fsType)
}

func sameDevice(source string, rdev uint64) bool {
	if !strings.HasPrefix(source, "/dev/") {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == rdev
}

// loopOf reports whether the mount is of a loop device over the image file.
func loopOf(m mount, d device) bool {
	const loopMajor = 7
	if m.major != loopMajor {
		return false
	}
	name := fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", m.major, m.minor)
	if text, err := os.ReadFile(name); err == nil {
		backing := strings.TrimSuffix(string(text), "\n")
		var st unix.Stat_t
		if unix.Stat(backing, &st) == nil {
			return st.Dev == d.dev && st.Ino == d.ino
		}
		return strings.TrimSuffix(backing, " (deleted)") == d.path
	}
	fd, err := unix.Open(m.source, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	return err == nil && info.Device == d.dev && info.Inode == d.ino
}

// A finding is what the mount table says of a file system.
type finding struct {
	here      []mount // mounts of the device on its point
	covered   bool    // something else lies over it
	other     *mount  // something else on the point
	elsewhere []mount // mounts of the device on other points
	below     []mount // mounts inside it
}

func find(mounts []mount, d device, f *cluster.FileSystem) finding {
	var fd finding
	for i := range mounts {
		m := mounts[i]
		switch {
		case m.point == f.MountPoint && d.is(m, f):
			fd.here, fd.covered, fd.other = append(fd.here, m), false, nil
		case m.point == f.MountPoint:
			fd.covered, fd.other = len(fd.here) > 0, &mounts[i]
		case below(m.point, f.MountPoint):
			fd.below = append(fd.below, m)
		case (d.block || d.loop) && d.is(m, f):
			fd.elsewhere = append(fd.elsewhere, m)
		}
	}
	return fd
}

// Probe looks for the file system in the mount table, by device and not by name.
func (x *FileSystems) Probe(ctx context.Context, r executor.Resource) executor.Result {
	f := r.FileSystem
	if f == nil {
		return unknown(errors.New("the resource has no file system: this is a fault of the caller"))
	}
	if err := x.atWork(r); err != nil {
		return unknown(err)
	}
	mounts, err := readMounts("self")
	if err != nil {
		return unknown(err)
	}
	d, err := x.deviceOf(ctx, r)
	if err != nil {
		return x.probeWithoutDevice(f, mounts, err)
	}
	return judge(f, d, find(mounts, d, f))
}

// atWork reports a mount or unmount, of this daemon or an earlier one, that has not ended: the mount table may change at any
// moment then, so what it says now is worth nothing.
func (x *FileSystems) atWork(r executor.Resource) error {
	s := executor.ScopeOf(r)
	if err := x.run.Blocked(s); err != nil {
		return err
	}
	if at := x.run.Unfinished(s); len(at) > 0 {
		return fmt.Errorf("%s of file system %s has not ended: %w", at[0].Op, r.Name, executor.ErrStuck)
	}
	return nil
}

// probeWithoutDevice: the device cannot be found (a disk that this node does not see). If nothing is mounted on the point and
// nothing that could be the device is mounted, it is stopped; else who knows.
func (x *FileSystems) probeWithoutDevice(f *cluster.FileSystem, mounts []mount, cause error) executor.Result {
	for _, m := range mounts {
		if m.point == f.MountPoint || m.source == f.Device {
			return unknown(fmt.Errorf("%s is mounted on %s, and whether that is file system %s cannot be said: %w",
				m.source, m.point, f.Name, cause))
		}
	}
	return executor.Result{Status: executor.Stopped,
		Detail: fmt.Sprintf("nothing is mounted on %s, and its device is not on this node (%v)", f.MountPoint, cause)}
}

func judge(f *cluster.FileSystem, d device, fd finding) executor.Result {
	say := func(s executor.Status, format string, args ...any) executor.Result {
		return executor.Result{Status: s, Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(fd.here) > 0 && fd.covered:
		return say(executor.Degraded, "%s is mounted on %s, but %s lies over it", d.path, f.MountPoint, fd.other.source)
	case len(fd.here) > 1:
		return say(executor.Degraded, "%s is mounted %d times on %s", d.path, len(fd.here), f.MountPoint)
	case len(fd.here) == 1 && (hasOption(fd.here[0].superOptions, "ro") || hasOption(fd.here[0].options, "ro")) && !hasOption(f.Options, "ro"):
		return say(executor.Degraded, "%s is mounted on %s, but read-only: the kernel may have found an error", d.path, f.MountPoint)
	case len(fd.here) == 1:
		return say(executor.Running, "%s is mounted on %s", d.path, f.MountPoint)
	case len(fd.elsewhere) > 0:
		return say(executor.Degraded, "%s is mounted on %s instead of %s", d.path, fd.elsewhere[0].point, f.MountPoint)
	case fd.other != nil:
		return say(executor.Stopped, "%s is not mounted; %s is mounted on %s", d.path, fd.other.source, f.MountPoint)
	}
	return say(executor.Stopped, "%s is not mounted on %s", d.path, f.MountPoint)
}

// Start checks the file system and mounts it.
func (x *FileSystems) Start(ctx context.Context, r executor.Resource) executor.Result {
	f := r.FileSystem
	before := x.Probe(ctx, r)
	if before.Status == executor.Running || before.Status == executor.Unknown {
		return before
	}
	if before.Status == executor.Degraded {
		before.Err = fmt.Errorf("file system %s is not mounted again: %s", f.Name, before.Detail)
		return before
	}
	fail := func(err error) executor.Result {
		res := x.Probe(ctx, r)
		return executor.Result{Status: res.Status, Detail: err.Error(), Err: err}
	}
	d, err := x.deviceOf(ctx, r)
	if err != nil {
		return fail(err)
	}
	if err := x.prepare(f); err != nil {
		return fail(err)
	}
	checked, err := x.check(ctx, r, d)
	if err != nil {
		return fail(err)
	}
	if err := x.mount(ctx, r, d); err != nil {
		return fail(err)
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Running {
		res.Err = fmt.Errorf("file system %s was mounted but is not well: %s", f.Name, res.Detail)
		return res
	}
	res.Detail += checked
	return res
}

// prepare makes the mount point if it is missing, and refuses one that something else is mounted on.
func (x *FileSystems) prepare(f *cluster.FileSystem) error {
	if err := executor.CheckMountPoint(f, os.Stat); err != nil {
		return err
	}
	mounts, err := readMounts("self")
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.point == f.MountPoint {
			return fmt.Errorf("file system %s cannot be mounted: %s is mounted on %s", f.Name, m.source, f.MountPoint)
		}
	}
	if err := os.MkdirAll(f.MountPoint, 0o755); err != nil {
		return fmt.Errorf("make the mount point of file system %s: %w", f.Name, err)
	}
	if dir, err := os.Open(f.MountPoint); err == nil {
		names, _ := dir.Readdirnames(1)
		_ = dir.Close()
		if len(names) > 0 {
			x.log.Warn("the mount point is not empty; what lies in it is hidden while the file system is mounted",
				"file_system", f.Name, "mount_point", f.MountPoint)
		}
	}
	return nil
}

// check runs fsck in preen mode where the type has one, and returns a clause for the operator.
func (x *FileSystems) check(ctx context.Context, r executor.Resource, d device) (string, error) {
	f := r.FileSystem
	if f.Check == "none" || d.bind || !d.block && !d.loop {
		return "", nil
	}
	fsType := f.Type
	if fsType == "" || fsType == "auto" {
		if fsType = x.probeType(ctx, r, d); fsType == "" {
			return " (not checked: its type is not known)", nil
		}
	}
	switch fsType {
	case "xfs", "btrfs": // they replay their journal when they are mounted; their fsck does nothing
		return "", nil
	}
	tool, err := findTool("fsck." + fsType)
	if err != nil {
		return " (not checked: there is no fsck." + fsType + ")", nil
	}
	out := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "fsck", Path: tool, Trusted: true,
		Args: fsckArgs(fsType, d.path)})
	switch {
	case out.Err == nil:
		return "", nil
	case out.Exit > 0 && out.Exit < 4: // 1: corrected; 2: corrected, reboot if it is mounted, which it is not
		x.log.Warn("fsck corrected the file system", "file_system", f.Name, "output", out.Output)
		return " (fsck corrected errors)", nil
	case out.Exit == 4:
		return "", fmt.Errorf("fsck found errors in %s that it does not correct by itself: run fsck by hand: %q", d.path, out.LastLine())
	}
	return "", fmt.Errorf("check file system %s: %w", f.Name, out.Err)
}

func fsckArgs(fsType, path string) []string {
	switch fsType {
	case "vfat", "msdos", "fat":
		return []string{"-a", path}
	}
	return []string{"-p", path}
}

func (x *FileSystems) probeType(ctx context.Context, r executor.Resource, d device) string {
	tool, err := findTool("blkid")
	if err != nil {
		return ""
	}
	out := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "blkid", Path: tool, Trusted: true, Unrecorded: true,
		Args: []string{"-p", "-o", "value", "-s", "TYPE", d.path}, Timeout: 30 * time.Second})
	if out.Err != nil {
		return ""
	}
	return strings.TrimSpace(out.Output)
}

// mount uses mount(8), which knows every type's helper, and in a process of its own, which can hang without us.
func (x *FileSystems) mount(ctx context.Context, r executor.Resource, d device) error {
	f := r.FileSystem
	tool, err := findTool("mount")
	if err != nil {
		return err
	}
	var args []string
	if d.bind {
		args = append(args, "--bind")
	} else if f.Type != "" {
		args = append(args, "-t", f.Type)
	}
	if f.Options != "" {
		args = append(args, "-o", f.Options)
	}
	args = append(args, "--", d.path, f.MountPoint)
	out := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "mount", Path: tool, Args: args, Trusted: true})
	if out.Err != nil {
		return fmt.Errorf("mount file system %s: %w", f.Name, out.Err)
	}
	return nil
}

// Stop writes the file system's data out and unmounts it. Processes that hold it are named, asked to end, and killed after
// half of the time. It is never unmounted lazily: what is reported as stopped is unmounted.
func (x *FileSystems) Stop(ctx context.Context, r executor.Resource) executor.Result {
	f := r.FileSystem
	before := x.Probe(ctx, r)
	if before.Status == executor.Stopped || before.Status == executor.Unknown {
		return before
	}
	timeout := f.StopTimeout
	if timeout <= 0 {
		timeout = DefaultUnmountTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := x.flush(ctx, f)
	if err == nil {
		err = x.unmountAll(ctx, r, timeout)
	}
	res := x.Probe(context.WithoutCancel(ctx), r)
	switch {
	case res.Status == executor.Stopped && errors.Is(err, executor.ErrStuck):
		return unknown(err)
	case res.Status == executor.Stopped:
		return res
	case err == nil:
		err = fmt.Errorf("file system %s is still there: %s", f.Name, res.Detail)
	}
	return executor.Result{Status: res.Status, Detail: err.Error(), Err: err}
}

// flush writes the data out. A device that does not answer holds the call in the kernel, so it is waited for with a bound.
func (x *FileSystems) flush(ctx context.Context, f *cluster.FileSystem) error {
	fd, err := unix.Open(f.MountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // covered or gone; the unmount says more
	}
	done := make(chan error, 1)
	go func() {
		defer unix.Close(fd)
		done <- unix.Syncfs(fd)
	}()
	select {
	case err := <-done:
		if err != nil {
			x.log.Error("data could not be written out before the unmount", "file_system", f.Name, "cause", err.Error())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("data of file system %s cannot be written out in time: %w: the device does not answer", f.Name, executor.ErrStuck)
	}
}

// unmountAll unmounts the device from its point, and from others where it was found.
func (x *FileSystems) unmountAll(ctx context.Context, r executor.Resource, timeout time.Duration) error {
	f := r.FileSystem
	for range 16 { // mounts may be stacked; each round removes one
		mounts, err := readMounts("self")
		if err != nil {
			return err
		}
		d, err := x.deviceOf(ctx, r)
		if err != nil {
			return err
		}
		fd := find(mounts, d, f)
		switch {
		case fd.covered:
			return fmt.Errorf("file system %s cannot be unmounted: %s lies over it on %s", f.Name, fd.other.source, f.MountPoint)
		case len(fd.here) > 0 && len(fd.below) > 0:
			return fmt.Errorf("file system %s cannot be unmounted: %s is mounted inside it on %s", f.Name, fd.below[0].source,
				fd.below[0].point)
		case len(fd.here) > 0:
			err = x.unmount(ctx, r, fd.here[len(fd.here)-1], timeout)
		case len(fd.elsewhere) > 0:
			err = x.unmount(ctx, r, fd.elsewhere[0], timeout)
		default:
			return x.heldElsewhere(d, f)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("file system %s is mounted too many times", f.Name)
}

// unmount unmounts one mount, and ends its users when it is busy.
func (x *FileSystems) unmount(ctx context.Context, r executor.Resource, m mount, timeout time.Duration) error {
	tool, err := findTool("umount")
	if err != nil {
		return err
	}
	began := time.Now()
	asked, killed := map[int]bool{}, map[int]bool{}
	for {
		out := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "umount", Path: tool, Trusted: true,
			Args: []string{"--", m.point}})
		if out.Err == nil {
			return nil
		}
		users, err := usersOf(m)
		if err != nil {
			return err
		}
		if ctx.Err() != nil || out.Exit < 0 {
			return fmt.Errorf("unmount %s: %w%s", m.point, out.Err, nameUsers(users))
		}
		if len(users) == 0 && !strings.Contains(out.Output, "busy") {
			return fmt.Errorf("unmount %s: %w", m.point, out.Err)
		}
		sig, done := syscall.SIGTERM, asked
		if time.Since(began) >= timeout/2 {
			sig, done = syscall.SIGKILL, killed
		}
		x.signal(users, sig, done, m)
		select {
		case <-ctx.Done():
			return fmt.Errorf("unmount %s: it is still busy after %s%s", m.point, timeout, nameUsers(users))
		case <-time.After(min(50*time.Millisecond, timeout/20)):
		}
	}
}

// signal sends each user the signal once.
func (x *FileSystems) signal(users []user, sig syscall.Signal, done map[int]bool, m mount) {
	for _, u := range users {
		if done[u.pid] || u.pid == os.Getpid() || u.pid == 1 {
			continue
		}
		done[u.pid] = true
		x.log.Warn("a process holds a file system that is to be unmounted", "mount_point", m.point, "process", u.String(),
			"signal", unix.SignalName(sig))
		_ = syscall.Kill(u.pid, sig)
	}
}

// heldElsewhere looks for the device in the mount namespaces of other processes: as long as it is mounted there the kernel
// still writes to it, although it is gone here.
func (x *FileSystems) heldElsewhere(d device, f *cluster.FileSystem) error {
	if !d.block && !d.loop {
		return nil
	}
	for _, pid := range otherNamespaces() {
		mounts, err := readMounts(pid)
		if err != nil {
			continue // the process ended
		}
		for _, m := range mounts {
			if d.block && unix.Mkdev(m.major, m.minor) == d.rdev || d.loop && loopOf(m, d) {
				return fmt.Errorf("file system %s is unmounted here but still mounted in the mount namespace of process %s (%s) and so "+
					"still in use: %w", f.Name, pid, commandOf(pid), executor.ErrStuck)
			}
		}
	}
	return nil
}

// findTool finds a program of the operating system in its usual places; PATH is not asked.
func findTool(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("the program %s is not installed on this node", name)
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}
