//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
)

// Machines for the packages: this machine's own file system, written to a copy in memory, with a systemd of its own as process 1
// of its own namespaces, one network between them, and a watchdog each. Nothing of Holdfast is on them.

// A machine is one of them.
type machine struct {
	t     *testing.T
	name  string
	index int
	dir   string // outside: the machine's root is below it
	hub   int    // the process in whose network namespace the bridge is
	boots int
	// disarm is what switching off does to the watchdog.
	disarm func()

	mu   sync.Mutex
	cmd  *exec.Cmd
	gone chan struct{}
}

// bootMachine is what the first process of a machine does before it becomes systemd. $1 is the machine's directory, $2 its name.
const bootMachine = `set -e
root=$1/root
mount --make-rprivate /
hostname "$2"
mount -t overlay overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $root
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount --rbind /dev $root/dev
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
mount -t tmpfs tmpfs $root/run
mount -t tmpfs tmpfs $root/tmp
mkdir -p $root/mnt/outside $root/run/old
mount --bind $1/outside $root/mnt/outside
mkdir -p $root/etc/systemd/system $root/var/lib/holdfast
mount --bind $1/state $root/var/lib/holdfast # directories of an overlay do not keep their inodes over a boot
for unit in console-getty exim4 postgresql proc-sys-fs-binfmt_misc.automount systemd-udevd systemd-timesyncd apt-daily.timer; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    ln -sf /dev/null $root/etc/systemd/system/$unit
done
echo "$2" >$root/etc/hostname
cd $root
pivot_root . run/old
umount -l /run/old
exec env -i container=holdfast PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
`

// machines makes n of them and boots them.
func machines(t *testing.T, n int) []*machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("machines with a systemd of their own need root")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed: ", err)
	}
	hub := exec.Command("/bin/sleep", "infinity")
	hub.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	check(t, hub.Start())
	t.Cleanup(func() { _ = hub.Process.Kill(); _ = hub.Wait() })
	inHub := func(args ...string) {
		must(t, "nsenter", append([]string{"-t", fmt.Sprint(hub.Process.Pid), "-n"}, args...)...)
	}
	inHub("ip", "link", "set", "lo", "up")
	inHub("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	inHub("ip", "address", "add", "10.78.1.254/24", "dev", "br0")
	inHub("ip", "link", "set", "br0", "up")
	var all []*machine
	for i := range n {
		m := &machine{t: t, name: fmt.Sprintf("node%d", i+1), index: i + 1, dir: t.TempDir(), hub: hub.Process.Pid}
		must(t, "mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", m.dir) // overlayfs wants its upper layer outside the lower one
		t.Cleanup(func() {
			m.off()
			if out, err := exec.Command("umount", "-l", m.dir).CombinedOutput(); err != nil { // the test's own context has ended
				t.Errorf("umount: %v: %s", err, out)
			}
		})
		for _, d := range []string{"upper", "work", "root", "outside", "state"} {
			check(t, os.Mkdir(filepath.Join(m.dir, d), 0o755))
		}
		m.serveWatchdog()
		m.boot()
		all = append(all, m)
	}
	return all
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil && t.Context().Err() == nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// boot switches the machine on and waits until its systemd has started what it wants to, and its network is there.
func (m *machine) boot() {
	m.t.Helper()
	m.disarm()
	cmd := exec.Command("/bin/sh", "-c", bootMachine, "sh", m.dir, m.name)
	console, err := os.OpenFile(filepath.Join(m.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(m.t, err)
	defer console.Close()
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
		syscall.CLONE_NEWIPC | 0x02000000, /* CLONE_NEWCGROUP */ Setsid: true, Pdeathsig: syscall.SIGKILL}
	check(m.t, cmd.Start())
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	m.mu.Lock()
	m.cmd, m.gone = cmd, gone
	m.boots++
	m.mu.Unlock()
	veth := fmt.Sprintf("m%d-%d", m.index, m.boots)
	must(m.t, "nsenter", "-t", fmt.Sprint(m.hub), "-n", "ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(cmd.Process.Pid))
	must(m.t, "nsenter", "-t", fmt.Sprint(m.hub), "-n", "ip", "link", "set", veth, "master", "br0", "up")
	for _, c := range []string{"link set lo up", fmt.Sprintf("address add %s/24 dev eth0", m.address()), "link set eth0 up"} {
		must(m.t, "nsenter", append([]string{"-t", fmt.Sprint(cmd.Process.Pid), "-n", "ip"}, strings.Fields(c)...)...)
	}
	m.await("systemd is up", func() string {
		out, _ := m.try("systemctl", "is-system-running")
		if s := strings.TrimSpace(out); s != "running" && s != "degraded" {
			text, _ := os.ReadFile(console.Name())
			return s + "\n" + string(text)
		}
		return ""
	})
}

func (m *machine) address() string { return fmt.Sprintf("10.78.1.%d", m.index) }

// off switches it off: all its processes end at once.
func (m *machine) off() {
	m.mu.Lock()
	cmd, gone := m.cmd, m.gone
	m.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-gone
	}
}

// serveWatchdog plays the watchdog of the machine, as the lab does for its nodes: when nobody pets it, the machine goes off.
func (m *machine) serveWatchdog() {
	l, err := net.Listen("unix", filepath.Join(m.dir, "outside", "watchdog"))
	check(m.t, err)
	m.t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	timeout := time.Minute
	var timer *time.Timer
	pet := func() {
		if timer != nil {
			timer.Stop()
		}
		timer = time.AfterFunc(timeout, m.off)
	}
	m.disarm = func() {
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
	}
	serve := func(c net.Conn) {
		defer c.Close()
		var f [watchdog.LabFrame]byte
		for {
			if _, err := io.ReadFull(c, f[:]); err != nil {
				return // the timer runs on
			}
			mu.Lock()
			switch f[0] {
			case watchdog.LabSetTimeout:
				timeout = time.Duration(binary.BigEndian.Uint32(f[4:])) * time.Millisecond
				pet()
				_, _ = c.Write(f[:])
			case watchdog.LabGetTimeout:
				binary.BigEndian.PutUint32(f[4:], uint32(timeout/time.Millisecond))
				_, _ = c.Write(f[:])
			case watchdog.LabBootStatus:
				binary.BigEndian.PutUint32(f[4:], 0)
				_, _ = c.Write(f[:])
			case watchdog.LabPet:
				pet()
			case watchdog.LabMagicClose:
				if timer != nil {
					timer.Stop()
				}
			case watchdog.LabReset:
				m.off()
			}
			mu.Unlock()
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

// try runs a command on the machine, as somebody who has logged in.
func (m *machine) try(args ...string) (string, error) {
	m.mu.Lock()
	pid := m.cmd.Process.Pid
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "nsenter", append([]string{"-t", fmt.Sprint(pid), "-a", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}, args...)...)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	return string(out), err
}

func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%s: %s: %v: %s\n%s", m.name, strings.Join(args, " "), err, out, m.journal())
	}
	return out
}

func (m *machine) journal() string {
	out, _ := m.try("journalctl", "--no-pager", "-n", "40", "-u", "holdfast", "-u", "holdfast-deadman")
	return out
}

func (m *machine) await(what string, missing func() string) {
	m.t.Helper()
	w := world{t: m.t}
	if lacks := w.waitFor(patience, missing); lacks != "" {
		m.t.Fatalf("%s: wait until %s: after %v: %s\n%s", m.name, what, patience, lacks, m.journal())
	}
}

// write makes a file on the machine.
func (m *machine) write(path, text string) {
	m.t.Helper()
	check(m.t, os.WriteFile(filepath.Join(m.dir, "outside", "file"), []byte(text), 0o644))
	m.must("install", "-D", "-m", "755", "/mnt/outside/file", path)
}

// makePackages builds the packages of a source tree (empty: this one) under a version, and copies them to where the machines see them.
func makePackages(t *testing.T, version, source string, machines ...*machine) {
	t.Helper()
	dist := t.TempDir()
	args := []string{"-s", "-C", "../..", "packages", "DIST=" + dist, "VERSION=" + version, "PACKAGE_VERSION=" + version, "FORMATS=deb",
		"PACKAGE_PLATFORMS=" + runtime.GOARCH}
	if source != "" {
		args = append(args, "PACKAGE_SOURCE="+source)
	}
	if out, err := exec.CommandContext(t.Context(), "make", args...).CombinedOutput(); err != nil {
		t.Fatalf("make packages: %v: %s", err, out)
	}
	for _, m := range machines {
		must(t, "cp", "-a", dist, filepath.Join(m.dir, "outside", version))
	}
}

// previous is the source tree of the newest commit before this one that builds; empty when this checkout has no history.
func previous(t *testing.T) string {
	t.Helper()
	git := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*", "-C", "../.."}, args...)...)
	}
	for n := 1; n <= 8; n++ {
		commit := fmt.Sprintf("HEAD~%d", n)
		if out, err := git("rev-parse", "--verify", "-q", commit).CombinedOutput(); err != nil {
			t.Logf("this checkout has no %s (%v %s)", commit, err, out)
			break
		}
		dir := t.TempDir()
		tar := filepath.Join(dir, "previous.tar")
		if out, err := git("archive", "-o", tar, commit).CombinedOutput(); err != nil {
			t.Fatalf("git archive: %v: %s", err, out)
		}
		must(t, "tar", "-x", "-f", tar, "-C", dir)
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, "built")+"/", "./cmd/clstrmgrd", "./cmd/clmgr")
		build.Dir = dir
		if out, err := build.CombinedOutput(); err == nil {
			t.Logf("the old version is %s", commit)
			return dir
		} else {
			t.Logf("%s does not build: %s", commit, out)
		}
	}
	t.Log("the old version is the same code under another number")
	return ""
}

// page is docs/getting-started.md: what is typed here must stand there.
func page(t *testing.T) (text, clusterFile string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/getting-started.md")
	check(t, err)
	_, rest, _ := strings.Cut(string(b), "```yaml\n")
	clusterFile, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/getting-started.md has no cluster file")
	}
	return string(b), clusterFile
}

var tokenLine = regexp.MustCompile(`TOKEN=(\S+)`)

// From three machines on which nothing is to a cluster, by the packages and docs/getting-started.md alone; then an upgrade under
// a running group, a crash, and the removal.
func TestPackages(t *testing.T) {
	long(t)
	t.Parallel()
	began := time.Now()
	all := machines(t, 3)
	n1, n2, n3 := all[0], all[1], all[2]
	makePackages(t, "1.0.0", previous(t), all...)
	makePackages(t, "1.1.0", "", all...)
	text, clusterFile := page(t)
	t.Logf("%v: three machines are up, the packages are built", time.Since(began).Round(100*time.Millisecond))

	// What stands in for a watchdog device is the only thing that is not in docs/getting-started.md.
	for _, m := range all {
		m.write("/etc/systemd/system/holdfast-deadman.service.d/lab.conf", "[Service]\nEnvironmentFile=/etc/default/holdfast-lab\n")
		m.write("/etc/default/holdfast-lab", "DEADMAN_OPTIONS=\"--backend lab --device /mnt/outside/watchdog --holder-socket /run/holdfast/holder.sock\"\n")
		m.write("/etc/holdfast/node.yaml", "deadman: {backend: lab, device: /mnt/outside/watchdog}\n")
		m.write("/opt/shop/run", "#!/bin/sh\nexec /opt/shop/serve >/dev/null 2>&1\n")
		m.write("/opt/shop/start", "#!/bin/sh\nsetsid sleep infinity </dev/null >/dev/null 2>&1 &\necho $! >/run/shop.pid\n")
		m.write("/opt/shop/stop", "#!/bin/sh\n[ -f /run/shop.pid ] && kill $(cat /run/shop.pid) 2>/dev/null\nrm -f /run/shop.pid\n")
	}
	n1.write("/root/cluster.yaml", clusterFile)
	var commands int
	do := func(m *machine, args ...string) string {
		t.Helper()
		commands++
		typed := strings.Join(args, " ")
		if args[0] == "sh" {
			typed = args[2]
		}
		if said := tokenLine.ReplaceAllString(typed, "TOKEN=..."); !strings.Contains(text, "\n"+said+"\n") {
			t.Errorf("docs/getting-started.md does not have the command %q", said)
		}
		if args[0] == "sh" {
			args[2] = "cd /mnt/outside/1.0.0 && " + typed
		}
		out := m.must(args...)
		t.Logf("%2d %s# %s", commands, m.name, tokenLine.ReplaceAllString(typed, "TOKEN=..."))
		return out
	}
	typing := time.Now()
	for _, m := range all {
		do(m, "sh", "-c", "dpkg -i holdfast-client_*.deb holdfast_*.deb")
		do(m, "systemctl", "enable", "--now", "holdfast-deadman", "holdfast")
	}
	tokens := tokenLine.FindAllStringSubmatch(do(n1, "clmgr", "add", "cluster", "FILE=/root/cluster.yaml"), -1)
	if len(tokens) != 2 {
		t.Fatalf("clmgr add cluster names %d tokens, not 2", len(tokens))
	}
	do(n2, "clmgr", "join", "cluster", "TOKEN="+tokens[0][1])
	do(n3, "clmgr", "join", "cluster", "TOKEN="+tokens[1][1])
	do(n1, "clmgr", "online", "cluster")
	n1.await("the group is online", n1.runs)
	t.Logf("%d commands and %d lines of configuration for three nodes, %v", commands, strings.Count(clusterFile, "\n"), time.Since(typing).Round(100*time.Millisecond))
	t.Log("\n" + n1.must("clRGinfo"))
	if out := n2.must("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "clRGinfo"); !strings.Contains(out, "ONLINE") {
		t.Errorf("an ordinary user sees: %s", out)
	}
	if out, err := n2.try("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "clmgr", "move", "resource_group", "shop_rg", "NODE=node2"); err == nil {
		t.Errorf("an ordinary user moved the group: %s", out)
	}

	// The upgrade: one node after another, old ones with new ones, and nothing of the group is touched.
	pid := n1.must("cat", "/run/shop.pid")
	last := n1.changes()
	for i, m := range []*machine{n2, n3, n1} {
		m.must("sh", "-c", "cd /mnt/outside/1.1.0 && dpkg -i holdfast-client_*.deb holdfast_*.deb")
		m.await("the new daemon takes part", func() string {
			if out := m.must("clmgr", "--version"); !strings.Contains(out, "1.1.0") {
				return out
			}
			out, err := m.try("clmgr", "-c", "-S", "-a", "STATE", "query", "node", m.name)
			if err != nil || strings.TrimSpace(out) != "NORMAL" {
				return out
			}
			return ""
		})
		for _, other := range all {
			other.must("clmgr", "query", "cluster") // old and new answer
		}
		t.Logf("%s has the new packages, %d of 3", m.name, i+1)
	}
	if now := n1.must("cat", "/run/shop.pid"); now != pid {
		t.Errorf("the upgrade cost a restart of the application: process %s, then %s", pid, now)
	}
	n1.must("kill", "-0", strings.TrimSpace(pid))
	if moved := strings.TrimPrefix(n1.changes(), last); strings.TrimSpace(moved) != "" {
		t.Errorf("the upgrade touched groups: %s", moved)
	}

	// In use it cannot be removed.
	if out, err := n2.try("dpkg", "-r", "holdfast"); err == nil || !strings.Contains(out, "clmgr offline node node2") {
		t.Errorf("the removal of a running node: %v: %s", err, out)
	}

	// A crash, and the machine boots again into the cluster by its units alone.
	n1.off()
	n2.await("the group is online on the next node", n2.runs)
	t.Log("\n" + n2.must("clRGinfo"))
	n1.boot()
	n1.await("the machine is a node again after its boot", func() string {
		out, err := n1.try("clmgr", "-c", "-S", "-a", "STATE", "query", "node", "node1")
		if err != nil || strings.TrimSpace(out) != "NORMAL" {
			return out
		}
		return ""
	})

	// The end of a node.
	n3.must("clmgr", "offline", "node", "node3")
	out := n3.must("dpkg", "-r", "holdfast")
	if running, _ := n3.try("sh", "-c", "ps -e -o comm= | grep -x -e clstrmgrd -e cldeadman"); strings.TrimSpace(running) != "" {
		t.Errorf("after the removal there are processes %s: %s", running, out)
	}
	n3.must("test", "-d", "/var/lib/holdfast/identity") // what it promised is not forgotten
	n2.must("sh", "-c", "clRGinfo | grep -q ONLINE")
}

// runs says that the group is not online on this machine, or what is missing.
func (m *machine) runs() string {
	out, err := m.try("clRGinfo", "-s")
	if err != nil {
		return out
	}
	if !strings.Contains(out, ":ONLINE:"+m.name+":") {
		return out
	}
	if out, err := m.try("sh", "-c", "ip -o address show dev eth0 | grep -q 'inet 10.78.1.100/' && kill -0 $(cat /run/shop.pid)"); err != nil {
		return "address or process are missing: " + out
	}
	return ""
}

// changes are the groups' events so far.
func (m *machine) changes() string {
	m.t.Helper()
	out := m.must("clmgr", "query", "events")
	var rg []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, " rg_") {
			rg = append(rg, strings.TrimSpace(line))
		}
	}
	return strings.Join(rg, "\n")
}
