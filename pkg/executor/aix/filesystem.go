package aix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// FileSystems is the executor of file systems: JFS2 on a logical volume of a volume group that is varied on before.
//
// A file system that was not unmounted is replayed from its log, or checked in preen mode, before it is mounted. Mount guard
// that is still set means that another node may have it mounted: it is cleared only when a proof of that node's end is known
// (executor.Proof), and else the mount is refused.
type FileSystems struct{ sys *System }

var _ executor.Executor = (*FileSystems)(nil)

// FileSystems makes the executor of file systems.
func (s *System) FileSystems() *FileSystems { return &FileSystems{s} }

// Kind is that of file systems.
func (x *FileSystems) Kind() executor.Kind { return executor.KindFileSystem }

// Validate checks that device and mount point can be used and that the commands are there. The device itself comes and goes
// with its volume group.
func (x *FileSystems) Validate(_ context.Context, r executor.Resource) error {
	f := r.FileSystem
	if f == nil {
		return errMissing("file system")
	}
	errs := []error{executor.CheckMountPoint(f, os.Lstat), x.sys.need("mount", "umount", "fsck", "fuser")}
	if !strings.HasPrefix(f.Device, "/dev/") {
		errs = append(errs, fmt.Errorf("device %q of file system %s is not a logical volume below /dev", f.Device, f.Name))
	}
	if f.Check != "" && f.Check != "fsck" && f.Check != "none" {
		errs = append(errs, fmt.Errorf("check %q of file system %s is neither fsck nor none", f.Check, f.Name))
	}
	return errors.Join(errs...)
}

// A finding is what the mount table says of a file system.
type finding struct {
	here      *mounted
	times     int
	other     *mounted  // something else on the point
	elsewhere *mounted  // the device on another point
	below     []mounted // mounts inside it
}

func (x *FileSystems) find(ctx context.Context, r executor.Resource) (finding, error) {
	f := r.FileSystem
	o := x.sys.ask(ctx, r, "mount")
	if o.Err != nil {
		return finding{}, fmt.Errorf("see what is mounted: %w", failed(o))
	}
	all, err := parseMounts(o.Output)
	if err != nil {
		return finding{}, err
	}
	var d finding
	for i := range all {
		m := &all[i]
		switch {
		case m.point == f.MountPoint && m.device == f.Device && m.node == "":
			d.here, d.times = m, d.times+1
		case m.point == f.MountPoint:
			d.other = m
		case m.device == f.Device && m.node == "":
			d.elsewhere = m
		case strings.HasPrefix(m.point, f.MountPoint+"/"):
			d.below = append(d.below, *m)
		}
	}
	return d, nil
}

// Probe looks for the file system in the mount table.
func (x *FileSystems) Probe(ctx context.Context, r executor.Resource) executor.Result {
	f := r.FileSystem
	if f == nil {
		return unknown(errMissing("file system"))
	}
	if err := x.sys.atWork(r); err != nil {
		return unknown(err)
	}
	d, err := x.find(ctx, r)
	if err != nil {
		return unknown(err)
	}
	switch {
	case d.here != nil && d.other != nil:
		return say(executor.Degraded, "%s is mounted on %s, and so is %s", f.Device, f.MountPoint, d.other.device)
	case d.times > 1:
		return say(executor.Degraded, "%s is mounted %d times on %s", f.Device, d.times, f.MountPoint)
	case d.here != nil && contains(d.here.options, "ro") && !contains(strings.Split(f.Options, ","), "ro"):
		return say(executor.Degraded, "%s is mounted on %s, but read-only", f.Device, f.MountPoint)
	case d.here != nil:
		return say(executor.Running, "%s is mounted on %s", f.Device, f.MountPoint)
	case d.elsewhere != nil:
		return say(executor.Degraded, "%s is mounted on %s instead of %s", f.Device, d.elsewhere.point, f.MountPoint)
	case d.other != nil:
		return say(executor.Stopped, "%s is not mounted; %s is mounted on %s", f.Device, d.other.device, f.MountPoint)
	}
	return say(executor.Stopped, "%s is not mounted on %s", f.Device, f.MountPoint)
}

// Start mounts the file system, and makes it clean first where the mount asks for that.
func (x *FileSystems) Start(ctx context.Context, r executor.Resource) executor.Result {
	f := r.FileSystem
	before := x.Probe(ctx, r)
	switch before.Status {
	case executor.Running, executor.Unknown:
		return before
	case executor.Degraded:
		return because(before, fmt.Errorf("file system %s is not mounted again: %s", f.Name, before.Detail))
	}
	how, err := "", x.prepare(ctx, r)
	if err == nil {
		how, err = x.mount(ctx, r)
	}
	if err != nil {
		return because(x.Probe(context.WithoutCancel(ctx), r), err)
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Running {
		return because(res, fmt.Errorf("file system %s was mounted but is not well: %s", f.Name, res.Detail))
	}
	res.Detail += how
	return res
}

// prepare makes the mount point if it is missing, and refuses one on which something else is mounted.
func (x *FileSystems) prepare(ctx context.Context, r executor.Resource) error {
	f := r.FileSystem
	if err := executor.CheckMountPoint(f, os.Lstat); err != nil {
		return err
	}
	d, err := x.find(ctx, r)
	if err != nil {
		return err
	}
	if d.other != nil {
		return fmt.Errorf("file system %s cannot be mounted: %s is mounted on %s", f.Name, d.other.device, f.MountPoint)
	}
	if err := os.MkdirAll(f.MountPoint, 0o755); err != nil {
		return fmt.Errorf("make the mount point of file system %s: %w", f.Name, err)
	}
	return nil
}

// Ids and words of mount's messages. The guard's have no id of their own in what is published.
const (
	idDirty   = "0506-342"                // the superblock is dirty
	idBusy    = "0506-349"                // cannot unmount: busy
	idNothing = "0506-347"                // nothing to unmount
	wordGuard = "mounted on another node" // Cannot mount guarded filesystem.
)

// mount mounts the file system. First as it is: a clean one needs no check, and a guard that is set shows only so. The result is
// a clause for the operator.
func (x *FileSystems) mount(ctx context.Context, r executor.Resource) (string, error) {
	f := r.FileSystem
	how := ""
	for try := 0; ; try++ {
		o := x.mountOnce(ctx, r)
		switch {
		case o.Err == nil:
			return how, nil
		case try >= 2 || f.Check == "none" && !strings.Contains(o.Output, wordGuard):
			return "", fmt.Errorf("mount file system %s: %w", f.Name, failed(o))
		case strings.Contains(o.Output, wordGuard):
			proof := executor.Proof(ctx)
			if proof == "" {
				return "", fmt.Errorf("file system %s is guarded: it may be mounted on another node, and nothing proves that it is not; "+
					"unmount it there, or if that node is certainly gone, run fsck %s here: %w", f.Name, f.Device, failed(o))
			}
			x.sys.log.Warn("the mount guard of a node that is gone is cleared", "file_system", f.Name, "proof", proof)
			how += "; the mount guard of its last holder was cleared (" + proof + ")"
			if err := x.check(ctx, r); err != nil {
				return "", err
			}
		case has(o, idDirty):
			how += "; it was checked first"
			if err := x.check(ctx, r); err != nil {
				return "", err
			}
		default:
			return "", fmt.Errorf("mount file system %s: %w", f.Name, failed(o))
		}
	}
}

func (x *FileSystems) mountOnce(ctx context.Context, r executor.Resource) executor.Outcome {
	f := r.FileSystem
	vfs := f.Type
	if vfs == "" || vfs == "auto" {
		vfs = "jfs2"
	}
	args := []string{"-v", vfs}
	if f.Options != "" {
		args = append(args, "-o", f.Options)
	}
	return x.sys.do(ctx, r, "mount", "mount", append(args, f.Device, f.MountPoint)...)
}

// check replays the log and checks in preen mode, which repairs what is safe to repair. More is a human's decision.
func (x *FileSystems) check(ctx context.Context, r executor.Resource) error {
	f := r.FileSystem
	if o := x.sys.do(ctx, r, "logredo", "logredo", f.Device); o.Err != nil {
		x.sys.log.Warn("the log of a file system could not be replayed", "file_system", f.Name, "cause", failed(o).Error())
	}
	o := x.sys.do(ctx, r, "fsck", "fsck", "-fp", f.Device)
	if o.Err != nil {
		return fmt.Errorf("fsck finds errors in %s that it does not correct by itself: run fsck -y %s by hand when you have decided to: %w",
			f.Device, f.Device, failed(o))
	}
	return nil
}

// Stop unmounts the file system. Who holds it is named and, when the orderly time is over, killed.
func (x *FileSystems) Stop(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Stopped || before.Status == executor.Unknown {
		return before
	}
	f := r.FileSystem
	timeout := f.StopTimeout
	if timeout <= 0 {
		timeout = DefaultUnmountTimeout
	}
	// As much again for the killing and the unmount after it.
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	err := x.unmount(ctx, r, timeout)
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.sys.o.QueryTimeout)
	defer cancel()
	res := x.Probe(look, r)
	switch {
	case res.Status == executor.Stopped && errors.Is(err, executor.ErrStuck):
		return unknown(err)
	case res.Status == executor.Stopped:
		return res
	case err == nil:
		err = fmt.Errorf("file system %s is still there: %s", f.Name, res.Detail)
	}
	return because(res, err)
}

func (x *FileSystems) unmount(ctx context.Context, r executor.Resource, orderly time.Duration) error {
	f := r.FileSystem
	began, killing := time.Now(), false
	var users []int
	busy := func(at string) error {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.sys.o.QueryTimeout)
		defer cancel()
		return fmt.Errorf("unmount %s: it is still busy after %s%s", at, time.Since(began).Round(time.Millisecond), x.holders(after, r, at, users))
	}
	for {
		d, err := x.find(ctx, r)
		if err != nil && ctx.Err() != nil {
			return busy(f.MountPoint)
		}
		if err != nil {
			return err
		}
		at := d.here
		if at == nil {
			at = d.elsewhere
		}
		switch {
		case at == nil:
			return nil
		case len(d.below) > 0:
			return fmt.Errorf("file system %s cannot be unmounted: %s is mounted inside it on %s", f.Name, d.below[0].device, d.below[0].point)
		}
		o := x.sys.do(ctx, r, "umount", "umount", at.point)
		if o.Err == nil || has(o, idNothing) {
			return nil
		}
		if !has(o, idBusy) && ctx.Err() != nil && !errors.Is(o.Err, executor.ErrStuck) {
			return busy(at.point) // the time ran out while it was tried once more: what was in the way all the time is the reason
		}
		if !has(o, idBusy) {
			return fmt.Errorf("unmount %s: %w", at.point, failed(o))
		}
		killing = killing || time.Since(began) >= orderly
		if users, err = x.users(ctx, r, at.point, killing); err != nil && ctx.Err() == nil {
			return fmt.Errorf("unmount %s: %w; and %w", at.point, failed(o), err)
		}
		if !sleep(ctx, min(200*time.Millisecond, orderly/10)) {
			return busy(at.point)
		}
	}
}

// users lists the processes that hold the mount, and kills them where kill says so.
func (x *FileSystems) users(ctx context.Context, r executor.Resource, point string, kill bool) ([]int, error) {
	args := []string{"-xuc", point}
	if kill {
		args[0] = "-kxuc"
	}
	o := x.sys.run(ctx, step{r: r, op: "fuser", timeout: x.sys.o.QueryTimeout, look: !kill, command: "fuser", args: args})
	if o.Err != nil && o.Exit < 0 {
		return nil, fmt.Errorf("see who holds %s: %w", point, o.Err)
	}
	users := parseUsers(o.Output, point)
	if kill && len(users) > 0 {
		x.sys.log.Warn("processes that hold a file system that is to be unmounted are killed", "mount_point", point, "processes", fmt.Sprint(users))
	}
	return users, nil
}

// holders says what keeps a mount busy: processes, or what fuser does not see.
func (x *FileSystems) holders(ctx context.Context, r executor.Resource, point string, users []int) string {
	if len(users) > 0 {
		return fmt.Sprintf(", held by processes %v", users)
	}
	for dir := range parseExports(x.sys.ask(ctx, r, "exportfs").Output) {
		if dir == point || strings.HasPrefix(dir, point+"/") {
			return ", and no process holds it: " + dir + " is exported by NFS"
		}
	}
	return ", and no process holds it: look for NFS exports and kernel extensions (exportfs, genkex)"
}
