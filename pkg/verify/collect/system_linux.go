package collect

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/verify"
)

func describeSystem(s *verify.System) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		s.MemoryMiB = int64(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	}
	s.Virtual = hypervisor()
	s.Contained = contained()
	// The kernel's own word: whoever sets the clock clears the flag.
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		ok := state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
		s.ClockSynchronised = &ok
	}
}

// hypervisor names the machine's host, empty on bare metal.
func hypervisor() string {
	vendor := func(p string) string {
		b, err := os.ReadFile(p)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	cpu, err := readTable("/proc/cpuinfo")
	if err == nil && runtime.GOARCH == "amd64" {
		flags := ""
		for line := range strings.SplitSeq(cpu, "\n") {
			if strings.HasPrefix(line, "flags") {
				flags = line
				break
			}
		}
		if !strings.Contains(flags+" ", " hypervisor ") {
			return ""
		}
	}
	if v := vendor("/sys/class/dmi/id/sys_vendor"); v != "" {
		return v
	}
	if v := vendor("/sys/hypervisor/type"); v != "" {
		return v
	}
	if err == nil && runtime.GOARCH == "amd64" {
		return "an unknown hypervisor"
	}
	return ""
}

// contained reports whether this is a namespace of a machine: its first process is not the machine's.
func contained() bool {
	self, err1 := os.Readlink("/proc/self/ns/pid")
	// The initial namespace has a fixed number (PROC_PID_INIT_INO).
	return err1 == nil && self != "pid:[4026531836]"
}

func carrierOf(name string) string {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", filepath.Base(name), "operstate"))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func mounts() ([]verify.Mount, error) {
	text, err := readTable("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var out []verify.Mount
	for line := range strings.SplitSeq(text, "\n") {
		if f := strings.Fields(line); len(f) > 2 {
			out = append(out, verify.Mount{Source: unescape(f[0]), Point: unescape(f[1]), Type: f[2]})
		}
	}
	return out, nil
}

func lookMounts(_ context.Context, l *looker) error {
	list, err := mounts()
	points := map[string]bool{}
	for i := range l.o.Definition.FileSystems {
		points[l.o.Definition.FileSystems[i].MountPoint] = true
	}
	var out []verify.Mount
	for _, m := range list {
		if points[m.Point] {
			out = append(out, m)
		}
	}
	l.set(func(f *verify.Facts) { f.Mounts = out })
	return err
}

func lookBootTable(_ context.Context, l *looker) error {
	text, err := readTable(tableFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the table of what is mounted at boot: %w", err)
	}
	list := parseFstab(text)
	l.set(func(f *verify.Facts) { f.Boot = list })
	return nil
}

func lookDevices(_ context.Context, l *looker) error {
	m := map[string]verify.Device{}
	for i := range l.o.Definition.FileSystems {
		fs := &l.o.Definition.FileSystems[i]
		m[fs.Device] = deviceAt(fs.Device)
	}
	l.set(func(f *verify.Facts) { f.Devices = m })
	return nil
}

// deviceAt looks at a file system's device, in all the ways in which it can be named.
func deviceAt(name string) verify.Device {
	p := name
	for prefix, dir := range map[string]string{"UUID=": "by-uuid", "LABEL=": "by-label", "PARTUUID=": "by-partuuid", "PARTLABEL=": "by-partlabel"} {
		if v, ok := strings.CutPrefix(name, prefix); ok {
			p = filepath.Join("/dev/disk", dir, strings.Trim(v, `"`))
		}
	}
	if !filepath.IsAbs(p) {
		return verify.Device{Exists: true, Kind: "other"} // not a path: the mount program knows what it means
	}
	info, err := os.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return verify.Device{}
	case err != nil:
		return verify.Device{Error: cause(err)}
	}
	d := verify.Device{Exists: true, Size: info.Size()}
	switch {
	case info.IsDir():
		d.Kind = "directory"
		return d
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		d.Kind = "block"
	case info.Mode().IsRegular():
		d.Kind = "file"
	default:
		d.Kind = "other"
		return d
	}
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		d.Error = cause(err)
		return d
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 0x10200)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		d.Error = cause(err)
		return d
	}
	d.Type, d.UUID = superblock(head[:n])
	return d
}

// superblock recognises the file systems that people use, and their UUIDs.
func superblock(b []byte) (kind, uuid string) {
	at := func(off, n int) []byte {
		if off+n > len(b) {
			return nil
		}
		return b[off : off+n]
	}
	form := func(u []byte) string {
		if len(u) != 16 {
			return ""
		}
		h := hex.EncodeToString(u)
		return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	}
	switch {
	case len(at(0x438, 2)) == 2 && binary.LittleEndian.Uint16(at(0x438, 2)) == 0xef53:
		return "ext", form(at(0x468, 16))
	case string(at(0, 4)) == "XFSB":
		return "xfs", form(at(32, 16))
	case string(at(0x10040, 8)) == "_BHRfS_M":
		return "btrfs", form(at(0x10020, 16))
	case string(at(512, 8)) == "LABELONE":
		return "lvm", string(at(512+32, 32))
	}
	return "", ""
}

func lookSpace(_ context.Context, l *looker) error {
	m := map[string]verify.Space{}
	for _, p := range l.o.Places {
		s := verify.Space{Purpose: p.Purpose, NeedMiB: p.NeedMiB}
		var st unix.Statfs_t
		if err := unix.Statfs(p.Path, &st); err != nil {
			s.Error = err.Error()
			m[p.Path] = s
			continue
		}
		size := uint64(st.Bsize)
		s.FreeMiB, s.TotalMiB = int64(st.Bavail*size>>20), int64(st.Blocks*size>>20)
		s.FreeInodes, s.Inodes = int64(st.Ffree), int64(st.Files)
		s.ReadOnly = st.Flags&unix.ST_RDONLY != 0
		switch int64(st.Type) {
		case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
			s.TemporaryFileSystem = true
		case unix.NFS_SUPER_MAGIC:
			s.NetworkFileSystem = "NFS"
		case unix.SMB_SUPER_MAGIC:
			s.NetworkFileSystem = "SMB"
		}
		m[p.Path] = s
	}
	l.set(func(f *verify.Facts) { f.Space = m })
	return nil
}

func lookSettings(_ context.Context, l *looker) error {
	m := map[string]string{}
	for _, k := range []string{"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.arp_ignore", "net.ipv6.conf.all.disable_ipv6", "kernel.panic"} {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(k, ".", "/"))
		switch {
		case err == nil:
			m[k] = strings.TrimSpace(string(b))
		case k == "net.ipv6.conf.all.disable_ipv6" && errors.Is(err, fs.ErrNotExist):
			m[k] = strconv.Itoa(1)
		}
	}
	l.set(func(f *verify.Facts) { f.Settings = m })
	return nil
}

// lookUnits reads what is enabled from the directories in which systemd notes it, so that a node without systemd has no units.
func lookUnits(_ context.Context, l *looker) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	m := map[string]verify.Unit{}
	for _, name := range l.o.Units {
		u := verify.Unit{}
		for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				u.Exists = true
			}
		}
		wants, _ := filepath.Glob(filepath.Join("/etc/systemd/system", "*.wants", name))
		requires, _ := filepath.Glob(filepath.Join("/etc/systemd/system", "*.requires", name))
		u.Enabled = len(wants)+len(requires) > 0
		m[name] = u
	}
	l.set(func(f *verify.Facts) { f.Units = m })
	return nil
}
