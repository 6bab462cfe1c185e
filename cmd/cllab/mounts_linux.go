package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A mount is one line of mountinfo, as far as it matters here.
type mount struct {
	id     string
	device string // major:minor
	root   string
	point  string
	fsType string
	source string
}

// parseMount reads a line of /proc/PID/mountinfo. The executors have a reader of their own: the lab judges them by what it sees here, and
// a mistake in a common one would blind both.
func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 2 {
		return mount{}, false
	}
	return mount{id: l[0], device: l[2], root: unescape(l[3]), point: unescape(l[4]), fsType: r[0], source: unescape(r[1])}, true
}

// unescape undoes the kernel's octal escapes in paths (space, tab, newline, backslash).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func readMounts(pid string) ([]mount, error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mount
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if m, ok := parseMount(sc.Text()); ok {
			list = append(list, m)
		}
	}
	return list, sc.Err()
}

// mountedDisks lists the block devices that the node has mounted and the supervisor has not: those that it brought itself.
func mountedDisks(pid int) []string {
	own := map[string]bool{}
	mine, err := readMounts("self")
	if err != nil {
		return nil
	}
	for _, m := range mine {
		own[m.device] = true
	}
	theirs, err := readMounts(strconv.Itoa(pid))
	if err != nil {
		return nil // it is dead already
	}
	var disks []string
	for _, m := range theirs {
		if !own[m.device] && !strings.HasPrefix(m.device, "0:") {
			own[m.device] = true
			disks = append(disks, m.device)
		}
	}
	return disks
}

// awaitDisks returns when the file systems on the devices are released: the kernel gives a device to an exclusive opener only
// when no mounted file system has it. It also lets loop devices go that the dead node left behind.
func awaitDisks(disks []string, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	var errs []error
	for _, d := range disks {
		if err := awaitDisk(d, deadline); err != nil {
			errs = append(errs, fmt.Errorf("block device %s is still in use: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

func awaitDisk(device string, deadline time.Time) error {
	name, err := os.Readlink("/sys/dev/block/" + device)
	if err != nil {
		return nil // the device itself is gone
	}
	path := "/dev/" + filepath.Base(name)
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		switch {
		case err == nil:
			detachLoop(fd, path)
			return unix.Close(fd)
		case err != unix.EBUSY:
			return nil // no medium behind it, or no right to look: nothing more can be found out
		case time.Now().After(deadline):
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func detachLoop(fd int, path string) {
	if strings.HasPrefix(path, "/dev/loop") {
		_ = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0) // it may have cleared itself already
	}
}

// A goneMarker tells when the root file system of a node is released, which the kernel does when the node's mount namespace
// ends. It watches an inode of it without holding it.
type goneMarker struct {
	inotify *os.File
}

func markRoot(pid int) (*goneMarker, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the node's root file system: %w", err)
	}
	m := &goneMarker{inotify: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, "/proc/"+strconv.Itoa(pid)+"/root", unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
		m.inotify.Close()
		return nil, fmt.Errorf("watch the node's root file system: %w", err)
	}
	return m, nil
}

func (m *goneMarker) wait(timeout time.Duration) error {
	if m == nil {
		return nil
	}
	defer m.inotify.Close()
	_ = m.inotify.SetReadDeadline(time.Now().Add(timeout))
	buf := make([]byte, 4096)
	if _, err := m.inotify.Read(buf); err != nil {
		return fmt.Errorf("its mounts are still there after %v: %w", timeout, err)
	}
	return nil
}

// sweep removes what a lab leaves in the kernel when its supervisor was killed: cgroups, and loop devices whose file lies in the
// lab's shared directory. It is also right after an orderly end, when it finds nothing.
func sweep(cfg *lab.Config, dir string, log *slog.Logger) {
	if cfg.CgroupRoot != "" {
		killCgroup(cfg.CgroupRoot)
		if err := removeCgroup(cfg.CgroupRoot); err != nil {
			log.Error("remove the lab's cgroups", "error", err)
		}
	}
	for _, name := range loopsOf(filepath.Join(dir, lab.SharedDir), filepath.Join(dir, lab.NodesDir)) {
		if err := clearLoop(name); err != nil {
			log.Error("free a loop device of the lab", "device", name, "error", err)
		}
	}
	_ = os.Remove(filepath.Join(dir, lab.ControlSocket))
	_ = os.Remove(filepath.Join(dir, lab.PIDFile))
}

// loopsOf lists the loop devices whose backing file lies below one of the directories, found by device and inode: the path
// that the kernel shows is that of another mount namespace.
func loopsOf(dirs ...string) []string {
	files := map[[2]uint64]bool{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && e.Type().IsRegular() && unix.Lstat(path, &st) == nil {
				files[[2]uint64{st.Dev, st.Ino}] = true
			}
			return nil
		})
	}
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []string
	for _, n := range names {
		dev := "/dev/" + strings.Split(n, "/")[3]
		fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(fd)
		unix.Close(fd)
		if err == nil && files[[2]uint64{info.Device, info.Inode}] {
			found = append(found, dev)
		}
	}
	return found
}

func clearLoop(dev string) error {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
}

func sweepQuietly(cfg *lab.Config, dir string) {
	sweep(cfg, dir, slog.New(slog.DiscardHandler))
}
