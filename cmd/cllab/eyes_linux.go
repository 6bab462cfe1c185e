package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// baseMounts is the file in a node's directory that lists the mounts which a boot begins with, by the kernel's mount ids.
const baseMounts = "mounts.base"

// writeBaseMounts notes the mounts of a node that has just booted.
func writeBaseMounts(pid int, file string) error {
	list, err := readMounts(strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("read the node's mounts: %w", err)
	}
	var b strings.Builder
	for _, m := range list {
		b.WriteString(m.id + " " + m.point + "\n")
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

// nodeEyes look at one boot of a node through the /proc files of its init. They are opened for each look: an open mount table
// would keep the mounts of a dead node alive. What can no longer be opened, because the node is gone, shows nothing.
type nodeEyes struct {
	pid   int
	own   map[string]bool // the node's own addresses
	base  map[string]bool // ids of the mounts that it booted with
	proc  *os.File        // /proc/PID, which does not become another process when the number is used again
	pidNS string          // of the node
	buf   []byte
}

func newNodeEyes(pid int, own map[string]bool, baseFile string) *nodeEyes {
	dir := "/proc/" + strconv.Itoa(pid)
	e := &nodeEyes{pid: pid, own: own, base: map[string]bool{}, buf: make([]byte, 64<<10)}
	e.proc, _ = os.Open(dir) // gone already: shows nothing
	e.pidNS, _ = os.Readlink(dir + "/ns/pid")
	b, _ := os.ReadFile(baseFile)
	for line := range strings.SplitSeq(string(b), "\n") {
		id, _, _ := strings.Cut(line, " ")
		e.base[id] = true
	}
	return e
}

func (e *nodeEyes) close() {
	if e != nil {
		closeAll([]*os.File{e.proc})
	}
}

// alive tells whether the node's init still is a process.
func (e *nodeEyes) alive() bool {
	return e != nil && e.proc != nil && unix.Faccessat(int(e.proc.Fd()), "stat", unix.F_OK, 0) == nil
}

// read returns a whole file of the init's directory, valid until the next read.
func (e *nodeEyes) read(name string) []byte {
	if e.proc == nil {
		return nil
	}
	fd, err := unix.Openat(int(e.proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if n == len(e.buf) {
			e.buf = append(e.buf, make([]byte, len(e.buf))...)
		}
		m, err := unix.Read(fd, e.buf[n:])
		if err == unix.EINTR {
			continue
		} else if err != nil {
			return nil
		} else if m == 0 {
			return e.buf[:n]
		}
		n += m
	}
}

func (e *nodeEyes) look() map[lab.Holding]string {
	held := map[lab.Holding]string{}
	for _, a := range localAddresses(e.read("net/fib_trie")) {
		if !e.own[a] {
			held[lab.Holding{Kind: "address", What: a}] = ""
		}
	}
	for _, a := range inet6Addresses(e.read("net/if_inet6")) {
		held[lab.Holding{Kind: "address", What: a}] = ""
	}
	e.lookAtMounts(held)
	return held
}

func (e *nodeEyes) lookAtMounts(held map[lab.Holding]string) {
	sc := bufio.NewScanner(bytes.NewReader(e.read("mountinfo")))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m, ok := parseMount(sc.Text())
		if !ok || e.base[m.id] {
			continue
		}
		held[lab.Holding{Kind: "mount", What: m.point}] = m.fsType + " from " + m.source
		if !strings.HasPrefix(m.device, "0:") && m.root == "/" {
			held[lab.Holding{Kind: "disk", What: diskName(m.device)}] = "at " + m.point
		}
	}
}

// diskName names a disk by what it is: two loop devices on one file are one disk.
func diskName(device string) string {
	if b, err := os.ReadFile("/sys/dev/block/" + device + "/loop/backing_file"); err == nil {
		return strings.TrimSpace(string(b))
	}
	return device
}

// localAddresses finds the local addresses in the kernel's fib_trie, loopback excepted.
func localAddresses(fib []byte) []string {
	var list []string
	seen := map[string]bool{}
	var leaf string
	for len(fib) > 0 {
		var line []byte
		line, fib, _ = bytes.Cut(fib, []byte("\n"))
		line = bytes.TrimLeft(line, " ")
		if a, ok := bytes.CutPrefix(line, []byte("|-- ")); ok {
			leaf = string(a)
		} else if bytes.HasPrefix(line, []byte("/32 host LOCAL")) && !strings.HasPrefix(leaf, "127.") && !seen[leaf] {
			seen[leaf] = true
			list = append(list, leaf)
		}
	}
	return list
}

// inet6Addresses finds the usable addresses in the kernel's if_inet6, loopback and link-local ones excepted. An address whose
// uniqueness is being tested, or that failed the test, is not usable.
func inet6Addresses(text []byte) []string {
	var list []string
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		f := bytes.Fields(line)
		if len(f) < 6 {
			continue
		}
		raw, err := hex.DecodeString(string(f[0]))
		flags, errFlags := strconv.ParseUint(string(f[4]), 16, 16)
		a, ok := netip.AddrFromSlice(raw)
		if err != nil || errFlags != nil || !ok || a.IsLoopback() || a.IsLinkLocalUnicast() ||
			flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		list = append(list, a.String())
	}
	return list
}

// A lockSample is what /proc/locks shows of the files below /shared.
type lockSample struct {
	held   map[string]map[lab.Holding]string // by node
	wanted map[lab.Holding][]string          // held by one node and waited for by another: two copies run
}

// A lockReader reads /proc/locks and knows files by inode and nodes by process.
type lockReader struct {
	shared string
	dev    string             // of the shared directory, as the kernel prints it there
	files  map[lockKey]string // path below /shared; "" when it is not there
	file   *os.File
}

func newLockReader(shared string) *lockReader {
	r := &lockReader{shared: shared, files: map[lockKey]string{}}
	var st unix.Stat_t
	if unix.Stat(shared, &st) == nil {
		r.dev = fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev))
	}
	r.file, _ = os.Open("/proc/locks") // absent: no locks are shown
	return r
}

// A lockLine is one line of /proc/locks.
type lockLine struct {
	id      string
	waiting bool
	write   bool
	pid     int
	dev     string
	inode   string
}

// parseLock reads "1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF", with "->" after the number for a waiter.
func parseLock(line string) (lockLine, bool) {
	f := strings.Fields(line)
	var l lockLine
	if len(f) > 2 && f[1] == "->" {
		l.waiting = true
		f = append(f[:1], f[2:]...)
	}
	if len(f) < 6 {
		return l, false
	}
	where := strings.Split(f[5], ":")
	pid, err := strconv.Atoi(f[4])
	if err != nil || len(where) != 3 {
		return l, false
	}
	l.id, l.write, l.pid, l.dev, l.inode = f[0], f[3] == "WRITE", pid, where[0]+":"+where[1], where[2]
	return l, true
}

func (r *lockReader) read(nodes []*watched) lockSample {
	s := lockSample{held: map[string]map[lab.Holding]string{}, wanted: map[lab.Holding][]string{}}
	if r.file == nil {
		return s
	}
	sc := bufio.NewScanner(io.NewSectionReader(r.file, 0, 8<<20))
	owner := map[string]string{} // lock id -> node
	for sc.Scan() {
		l, ok := parseLock(sc.Text())
		if !ok || !l.write || l.dev != r.dev {
			continue
		}
		path := r.path(l)
		if path == "" {
			continue
		}
		node, h := nodeOf(l.pid, nodes), lab.Holding{Kind: "lock", What: path}
		switch {
		case node == "":
		case !l.waiting:
			owner[l.id] = node
			if s.held[node] == nil {
				s.held[node] = map[lab.Holding]string{}
			}
			s.held[node][h] = ""
		case owner[l.id] != "" && owner[l.id] != node:
			s.wanted[h] = []string{owner[l.id], node}
		}
	}
	return s
}

// A lockKey tells files apart: an inode's number alone is soon used again for another file.
type lockKey struct {
	inode string
	pid   int
}

// path finds the file of a lock below the shared directory, which is small in a lab.
func (r *lockReader) path(l lockLine) string {
	key := lockKey{l.inode, l.pid}
	if p, known := r.files[key]; known {
		return p
	}
	if len(r.files) > 10000 {
		r.files = map[lockKey]string{}
	}
	r.files[key] = ""
	_ = filepath.WalkDir(r.shared, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil && strconv.FormatUint(st.Ino, 10) == l.inode {
			rel, _ := filepath.Rel(r.shared, path)
			r.files[key] = "/shared/" + rel
			return filepath.SkipAll
		}
		return nil
	})
	return r.files[key]
}

// nodeOf tells to which node a process belongs.
func nodeOf(pid int, nodes []*watched) string {
	ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		return ""
	}
	for _, n := range nodes {
		if n.eyes != nil && n.eyes.pidNS == ns && n.eyes.alive() {
			return n.name
		}
	}
	return ""
}
