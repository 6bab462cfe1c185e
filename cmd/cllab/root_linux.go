package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A node's root file system is a small memory file system of its own. The machine's top directories are bound into it; /etc
// and /var are made of links into the machine's, so that the node can have files of its own between them; /run is empty, as
// after a boot; /proc and /sys belong to the node's namespaces. It ends with the node.

// assemblyPoint is where the new root is put together: a directory of the machine that the node does not see anyway.
const assemblyPoint = "/run"

// hostPoint is where a node sees the machine's own /etc and /var.
const hostPoint = "/.host"

// binPoint is where a node sees the directory of the binaries, wherever that is on the machine: scripts and fence agents must
// not lie below a directory in which everybody may write.
const binPoint = "/holdfast/bin"

// A rootBuilder makes the new root. The first error stays.
type rootBuilder struct {
	root string
	err  error
}

func buildRoot(cfg initConfig) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the node's mounts private: %w", err)
	}
	keep, err := openDirectories(cfg.NodeDir, cfg.SharedDir, cfg.BinDir, cfg.LabDir)
	if err != nil {
		return err
	}
	defer closeAll(keep)
	b := &rootBuilder{root: assemblyPoint}
	b.mount("tmpfs", "/", "tmpfs", unix.MS_NOSUID, "mode=755")
	b.bindTopDirectories()
	b.splitDirectory("/etc", "holdfast", "hosts", "hostname")
	b.splitDirectory("/var", "lib", "log", "run", "lock")
	b.splitDirectory("/var/lib", "holdfast")
	b.splitDirectory("/var/log", "holdfast")
	b.link("/run", "/var/run")
	b.link("/run/lock", "/var/lock")
	b.directory("/run/lock")
	for d, inside := range nodeDirs {
		b.bindDescriptor(keep[0], "/"+d, inside)
	}
	b.bindDescriptor(keep[1], "", "/shared")
	b.reach(cfg.BinDir, keep[2])
	b.bindDescriptor(keep[2], "", binPoint)
	b.reach(cfg.LabDir, keep[3])
	b.file("/etc/hosts", cfg.Hosts)
	b.file("/etc/hostname", cfg.Hostname+"\n")
	b.kernelFileSystems(cfg.Cgroup)
	if b.err != nil {
		return b.err
	}
	return enter(b.root)
}

func openDirectories(paths ...string) ([]*os.File, error) {
	var list []*os.File
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(list)
			return nil, fmt.Errorf("open directory %s: %w", p, err)
		}
		list = append(list, os.NewFile(uintptr(fd), p))
	}
	return list, nil
}

func (b *rootBuilder) fail(what string, err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("build the node's root: %s: %w", what, err)
	}
}

func (b *rootBuilder) mount(source, at, fsType string, flags uintptr, data string) {
	if b.err == nil {
		b.fail("mount "+fsType+" at "+at, unix.Mount(source, b.root+at, fsType, flags, data))
	}
}

func (b *rootBuilder) directory(at string) {
	if b.err == nil {
		b.fail("make directory "+at, os.MkdirAll(b.root+at, 0o755))
	}
}

func (b *rootBuilder) link(to, at string) {
	if b.err != nil {
		return
	}
	if err := os.Symlink(to, b.root+at); !errors.Is(err, os.ErrExist) {
		b.fail("link "+at, err)
	}
}

func (b *rootBuilder) file(at, content string) {
	if b.err == nil {
		b.fail("write "+at, os.WriteFile(b.root+at, []byte(content), 0o644))
	}
}

// bind makes a directory of the machine, and all that is mounted below, visible in the node.
func (b *rootBuilder) bind(source, at string) {
	b.directory(at)
	if b.err == nil {
		b.fail("bind "+source, unix.Mount(source, b.root+at, "", unix.MS_BIND|unix.MS_REC, ""))
	}
}

func (b *rootBuilder) bindDescriptor(f *os.File, below, at string) {
	b.bind("/proc/self/fd/"+strconv.Itoa(int(f.Fd()))+below, at)
}

// bindTopDirectories shows the machine's top directories, except those that a node has for itself.
func (b *rootBuilder) bindTopDirectories() {
	entries, err := os.ReadDir("/")
	b.fail("read /", err)
	own := map[string]bool{"proc": true, "sys": true, "run": true, "etc": true, "var": true, "shared": true, "lost+found": true,
		strings.TrimPrefix(hostPoint, "/"): true}
	b.directory(hostPoint)
	for _, e := range entries {
		at := "/" + e.Name()
		switch {
		case own[e.Name()]:
		case e.Type()&os.ModeSymlink != 0:
			to, err := os.Readlink(at)
			b.fail("read link "+at, err)
			b.link(to, at)
			b.link(at, hostPoint+at)
		case e.IsDir():
			b.directory(at)
			// A directory that cannot be shown (an automounter's, say) is left out; what matters is checked by its use.
			_ = unix.Mount(at, b.root+at, "", unix.MS_BIND|unix.MS_REC, "")
			b.link(at, hostPoint+at) // relative links out of /.host/etc then lead where they should
		}
	}
	b.bind("/etc", hostPoint+"/etc")
	b.bind("/var", hostPoint+"/var")
	b.directory("/tmp")
}

// splitDirectory makes a directory of the node in which everything is the machine's except the given names.
func (b *rootBuilder) splitDirectory(at string, own ...string) {
	b.directory(at)
	mine := map[string]bool{}
	for _, name := range own {
		mine[name] = true
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return // the machine does not have it
	}
	for _, e := range entries {
		if mine[e.Name()] {
			continue
		}
		path := at + "/" + e.Name()
		if e.Type()&os.ModeSymlink != 0 {
			if to, err := os.Readlink(path); err == nil {
				b.link(to, path)
				continue
			}
		}
		b.link(hostPoint+path, path)
	}
}

// reach makes sure that a directory of the machine has the same path in the node, wherever it is.
func (b *rootBuilder) reach(path string, f *os.File) {
	if b.err != nil || !strings.HasPrefix(path+"/", assemblyPoint+"/") {
		return // all other places are bound or linked
	}
	b.bindDescriptor(f, "", path)
}

// kernelFileSystems gives the node its own views of the kernel, and hides what would reach through to the machine.
func (b *rootBuilder) kernelFileSystems(cgroup bool) {
	b.directory("/proc")
	b.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	b.directory("/sys")
	if b.err != nil {
		return
	}
	if unix.Mount("sysfs", b.root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil {
		b.bind("/sys", "/sys") // some kernels refuse a new one in a user namespace; the machine's shows no wrong numbers
	} else if cgroup {
		b.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if _, err := os.Stat(b.root + "/dev/shm"); err == nil {
		b.mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	}
	// Whoever asks the kernel for the boot's id gets that of this node's boot. Where it cannot be had, the file remains.
	_ = unix.Mount(b.root+"/run/holdfast/boot_id", b.root+"/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, "")
	hide, _ := filepath.Glob(b.root + "/dev/watchdog*")
	for _, path := range append(hide, b.root+"/proc/sysrq-trigger") {
		if _, err := os.Stat(path); err == nil && b.err == nil {
			b.fail("hide "+path, unix.Mount("/dev/null", path, "", unix.MS_BIND, ""))
		}
	}
}

// enter makes the new root the root, and lets the old one go.
func enter(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the node's root: %w", err)
	}
	err := unix.PivotRoot(".", ".")
	if err == nil {
		err = unix.Unmount(".", unix.MNT_DETACH)
	} else if err == unix.EINVAL {
		// The machine runs from its initial memory file system, which cannot be pivoted away.
		if err = unix.Mount(root, "/", "", unix.MS_MOVE, ""); err == nil {
			err = unix.Chroot(".")
		}
	}
	if err != nil {
		return fmt.Errorf("change to the node's root: %w", err)
	}
	return unix.Chdir("/")
}
