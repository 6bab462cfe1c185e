package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// These tests start real labs. They run as root, and as an ordinary user where the kernel lets him make namespaces.

func TestNodeIsAMachineOfItsOwn(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Networks: 2})
	for _, c := range []struct{ argv, want string }{
		{"hostname", "node2"},
		{"cat /etc/hostname", "node2"},
		{"cmp /proc/sys/kernel/random/boot_id /run/holdfast/boot_id", ""},
		{"cat /sys/class/net/eth1/address", "02:68:66:00:02:02"},
		{"cat /sys/class/net/lo/operstate", "unknown"},
	} {
		if c.argv == "hostname" {
			c.argv = "cat /proc/sys/kernel/hostname"
		}
		if got := strings.TrimSpace(must(t, l, "node2", strings.Fields(c.argv)...)); got != c.want {
			t.Errorf("%s: %q, want %q", c.argv, got, c.want)
		}
	}
	if got := must(t, l, "node2", "cat", "/etc/holdfast/node.yaml"); !strings.Contains(got, `listen: ["10.77.1.2", "10.77.2.2"]`) {
		t.Errorf("node file:\n%s", got)
	}
	must(t, l, "node1", "sh", "-c", "echo from node1 >/shared/note; echo mine >/var/lib/holdfast/own; echo >/run/gone")
	if got := must(t, l, "node2", "cat", "/shared/note"); got != "from node1\n" {
		t.Errorf("/shared is not shared: %q", got)
	}
	if r, err := l.Run(t.Context(), "node2", "cat", "/var/lib/holdfast/own"); err != nil || r.Code == 0 {
		t.Errorf("/var/lib/holdfast of node1 is seen in node2: %+v, %v", r, err)
	}
	if _, err := os.Stat(l.NodePath("node1", "lib", "own")); err != nil {
		t.Error(err)
	}
	// What the node sees of processes is its own: its init, and the command.
	pids := strings.Fields(must(t, l, "node1", "sh", "-c", "cd /proc && echo [0-9]*"))
	if len(pids) > 4 || pids[0] != "1" {
		t.Errorf("processes of node1: %v", pids)
	}
	for _, path := range []string{"/shared", "/etc/holdfast", "/var/lib/holdfast/own", "/run/gone", "/.host"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("the machine itself has %s", path)
		}
	}
}

func TestBootClearsWhatABootClears(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	must(t, l, "node1", "sh", "-c", "echo >/run/a; echo >/run/holdfast/b; echo kept >/var/lib/holdfast/c; echo >/dev/shm/d")
	before := strings.TrimSpace(must(t, l, "node1", "cat", "/run/holdfast/boot_id"))
	check(t, l.Crash(t.Context(), "node1"))
	check(t, l.Boot(t.Context(), "node1"))
	after := strings.TrimSpace(must(t, l, "node1", "cat", "/run/holdfast/boot_id"))
	if len(before) != 36 || before == after || nodeStatus(t, l, "node1").BootID != after {
		t.Errorf("boot ids: %q, then %q", before, after)
	}
	if got := must(t, l, "node1", "sh", "-c", "ls /run/a /run/holdfast/b /dev/shm/d 2>/dev/null; cat /var/lib/holdfast/c"); got != "kept\n" {
		t.Errorf("after the boot there is: %q", got)
	}
}

func TestExecStatuses(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	for _, c := range []struct {
		argv []string
		want int
		err  bool
	}{
		{[]string{"true"}, 0, false},
		{[]string{"sh", "-c", "exit 7"}, 7, false},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, false},
		{[]string{"no-such-command"}, lab.ExitNotFound, true},
		{[]string{"/no/such/command"}, lab.ExitNotFound, true},
		{[]string{"/etc/passwd"}, lab.ExitNoExec, true},
	} {
		for _, node := range []string{"node1", lab.ClientNode} {
			r, err := l.Run(t.Context(), node, c.argv...)
			if r.Code != c.want || (err != nil) != c.err {
				t.Errorf("%s: %q: exit status %d, %v; want %d", node, c.argv, r.Code, err, c.want)
			}
		}
	}
	if r, err := l.RunInput(t.Context(), "node1", "in", "sh", "-c", "cat; echo err >&2"); r.Stdout != "in" || r.Stderr != "err\n" {
		t.Errorf("streams: %+v, %v", r, err)
	}
	if r, err := l.Run(t.Context(), "node7", "true"); r.Code != lab.ExitLab || err == nil {
		t.Errorf("a node that is not there: %+v, %v", r, err)
	}
	check(t, l.Crash(t.Context(), "node1"))
	if r, err := l.Run(t.Context(), "node1", "true"); r.Code != lab.ExitLab || err == nil {
		t.Errorf("a node that is down: %+v, %v", r, err)
	}
}

// The command itself, with its exit statuses and the signals of the terminal.
func TestExecCommand(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(program, append([]string{"exec", "--name", "lab", "node1", "--"}, args...)...)
		cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+filepath.Dir(l.Dir))
		return cmd
	}
	if err := command("sh", "-c", "exit 9").Run(); exitCode(err) != 9 {
		t.Errorf("exit 9: %v", err)
	}
	cmd := command(helper("trap")...)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line := make([]byte, 64)
	n, _ := out.Read(line)
	if string(line[:n]) != "ready\n" {
		t.Fatalf("got %q", line[:n])
	}
	check(t, cmd.Process.Signal(unix.SIGTERM))
	n, _ = out.Read(line)
	if err := cmd.Wait(); exitCode(err) != 42 || string(line[:n]) != "terminated\n" {
		t.Errorf("after a signal: %v, %q", err, line[:n])
	}
	// A caller that dies takes its command along.
	cmd = command("sh", "-c", "echo ready; exec sleep 1000")
	out, err = cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, _ = out.Read(line)
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	eventually(t, "the command of a dead caller ends", func() bool {
		return !strings.Contains(must(t, l, "node1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), "sleep 1000")
	})
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return -1
}

// becomesReachable gives node1 the time to find the other's hardware address again, which the kernel asks for once a second.
func becomesReachable(t *testing.T, l *lab.Lab, address string) bool {
	t.Helper()
	for range 20 {
		if reaches(t, l, address) {
			return true
		}
	}
	return false
}

// reaches tells whether node1 gets answers from an application at the address, within a quarter of a second.
func reaches(t *testing.T, l *lab.Lab, address string) bool {
	t.Helper()
	r, err := l.Run(t.Context(), "node1", "cllab", "probe", address, "--here", "--udp", "--for=250ms", "-o=json")
	if err != nil || (r.Code != 0 && r.Code != 1) {
		t.Fatalf("probe %s: %+v, %v", address, r, err)
	}
	return r.Code == 0
}

func startApp(t *testing.T, l *lab.Lab, node, address string, more ...string) {
	t.Helper()
	must(t, l, node, append([]string{"cllab", "app", "start", "--listen", address}, more...)...)
}

func counter(t *testing.T, l *lab.Lab, node string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimLeft(strings.TrimSpace(must(t, l, node, "cat", "/run/data/counter")), "0"))
	check(t, err)
	return n
}

func TestCutUnplugHeal(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2, Networks: 2})
	startApp(t, l, "node2", ":8080", "--data=/run/data")
	const one, two = "10.77.1.2:8080", "10.77.2.2:8080"
	carrier := func() string { return strings.TrimSpace(must(t, l, "node2", "cat", "/sys/class/net/eth0/carrier")) }
	expect := func(what string, first, second bool, wantCarrier string) {
		t.Helper()
		for address, want := range map[string]bool{one: first, two: second} {
			if want && !becomesReachable(t, l, address) {
				t.Errorf("%s: %s does not answer", what, address)
			}
			if !want && reaches(t, l, address) {
				t.Errorf("%s: %s answers", what, address)
			}
		}
		if got := carrier(); got != wantCarrier {
			t.Errorf("%s: carrier of net1 is %s", what, got)
		}
	}
	expect("at first", true, true, "1")
	check(t, l.Cut(t.Context(), "node2", "net1", lab.Both))
	expect("cut", false, true, "1")
	check(t, l.Heal(t.Context(), "node2"))
	expect("healed", true, true, "1")
	check(t, l.Unplug(t.Context(), "node2", "net1"))
	expect("unplugged", false, true, "0")
	check(t, l.Heal(t.Context(), ""))
	expect("plugged", true, true, "1")
	check(t, l.Cut(t.Context(), "node1", "", lab.Both))
	expect("other end cut", false, false, "1")
	// What is wrong with a cable outlives a boot.
	check(t, l.Crash(t.Context(), "node1"))
	check(t, l.Boot(t.Context(), "node1"))
	expect("other end still cut", false, false, "1")
	check(t, l.Heal(t.Context(), ""))
	expect("healed at last", true, true, "1")
	if err := l.Cut(t.Context(), "node2", "net3", lab.Both); err == nil {
		t.Error("net3 was cut, and there is none")
	}
}

func TestOneWayCuts(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2})
	startApp(t, l, "node2", ":8080", "--data=/run/data")
	const there = "10.77.1.2:8080"
	if !becomesReachable(t, l, there) {
		t.Fatal("node1 does not reach node2")
	}
	for _, c := range []struct {
		direction string
		counts    bool // questions arrive
	}{{lab.In, false}, {lab.Out, true}} {
		before := counter(t, l, "node2")
		check(t, l.Cut(t.Context(), "node2", "net1", c.direction))
		if reaches(t, l, there) {
			t.Errorf("cut %s: answers come", c.direction)
		}
		if after := counter(t, l, "node2"); (after > before) != c.counts {
			t.Errorf("cut %s: the counter went from %d to %d", c.direction, before, after)
		}
		check(t, l.Heal(t.Context(), "node2"))
		if !becomesReachable(t, l, there) {
			t.Errorf("healed after cut %s: no answers", c.direction)
		}
	}
	// Both directions one after the other are a whole cut.
	check(t, l.Cut(t.Context(), "node2", "", lab.In))
	check(t, l.Cut(t.Context(), "node2", "", lab.Out))
	if st := nodeStatus(t, l, "node2").Links[0]; !st.CutIn || !st.CutOut || reaches(t, l, there) {
		t.Errorf("in and out cut: %+v", st)
	}
}

func TestPauseStopsEverything(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	must(t, l, "node1", "sh", "-c", "for i in 1 2 3; do "+strings.Join(helper("tree", "3"), " ")+" >/dev/null 2>&1 & done")
	init := nodeStatus(t, l, "node1").PID
	for range 5 {
		check(t, l.Pause(t.Context(), "node1"))
		before, err := descendants(init)
		check(t, err)
		if len(before) < 4 {
			t.Fatalf("processes: %v", before)
		}
		for _, pid := range before {
			if activityOf(pid) == active {
				t.Errorf("process %d is in state %c", pid, processState(pid))
			}
		}
		if st := nodeStatus(t, l, "node1"); st.State != lab.StatePaused {
			t.Errorf("the node is %s", st.State)
		}
		again, err := descendants(init)
		check(t, err)
		if !slices.Equal(before, again) {
			t.Errorf("processes came or went in a paused node: %v, then %v", before, again)
		}
		check(t, l.Resume(t.Context(), "node1"))
		must(t, l, "node1", "true")
	}
	if err := l.Resume(t.Context(), "node1"); err == nil {
		t.Error("a node that is not paused was resumed")
	}
}

// What was stopped before a pause stays stopped after it.
func TestResumeLeavesTheStoppedAlone(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	pid := strings.TrimSpace(must(t, l, "node1", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & kill -STOP $!; echo $!"))
	state := func() string {
		return strings.Fields(must(t, l, "node1", "cat", "/proc/"+pid+"/stat"))[2]
	}
	eventually(t, "the process is stopped", func() bool { return state() == "T" })
	check(t, l.Pause(t.Context(), "node1"))
	check(t, l.Resume(t.Context(), "node1"))
	if s := state(); s != "T" {
		t.Errorf("state %s", s)
	}
}

func TestCrashTakesEverythingAtOnce(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2})
	startApp(t, l, "node1", ":8080")
	must(t, l, "node1", helper("addr-add", "10.77.1.100/24", "eth0")...)
	init := nodeStatus(t, l, "node1").PID
	all, err := descendants(init)
	check(t, err)
	check(t, l.Crash(t.Context(), "node1"))
	for _, pid := range all {
		if s := processState(pid); s != 0 {
			t.Errorf("process %d lives, state %c", pid, s)
		}
	}
	if st := nodeStatus(t, l, "node1"); st.State != lab.StateDown || st.PID != 0 {
		t.Errorf("status: %+v", st)
	}
	if err := l.Crash(t.Context(), "node1"); err == nil {
		t.Error("a node that is down crashed")
	}
	if out := must(t, l, lab.ClientNode, "cat", "/proc/self/net/dev"); strings.Contains(out, "p1n1") {
		t.Errorf("the client sees the switch: %s", out)
	}
	check(t, l.Boot(t.Context(), "node1"))
	if err := l.Boot(t.Context(), "node1"); err == nil {
		t.Error("a node that is up was booted")
	}
	startApp(t, l, "node1", ":8080") // its lock is free, so the old copy is gone
}

// A client that had a connection to a crashed node hears nothing: no reset, no end of file.
func TestCrashIsSilent(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2})
	startApp(t, l, "node1", ":8080")
	done := make(chan lab.Result, 1)
	go func() {
		r, _ := l.Run(t.Context(), "node2", helper("converse", "10.77.1.1:8080", "/shared/connected")...)
		done <- r
	}()
	eventually(t, "the connection stands", func() bool { _, err := os.Stat(l.SharedPath("connected")); return err == nil })
	check(t, l.Crash(t.Context(), "node1"))
	if r := <-done; r.Stdout != "silence\n" {
		t.Errorf("the client: %+v", r)
	}
}

func TestCrashReleasesDisks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root has loop devices")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2})
	image := l.SharedPath("disk.img")
	check(t, os.WriteFile(image, nil, 0o644))
	check(t, os.Truncate(image, 16<<20))
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shared := filepath.Dir(image)
	for i := range 6 {
		node := lab.NodeName(i%2 + 1)
		must(t, l, node, "sh", "-c", "mkdir -p /data && mount -o loop /shared/disk.img /data && touch /data/"+strconv.Itoa(i))
		if len(loopsOf(shared)) != 1 {
			t.Errorf("loop devices of the lab: %v", loopsOf(shared))
		}
		check(t, l.Crash(t.Context(), node))
		if found := loopsOf(shared); len(found) != 0 {
			t.Errorf("crash %d returned while %v was in use", i, found)
		}
		check(t, l.Boot(t.Context(), node))
	}
	// A device that nobody has mounted goes with the lab, even when the supervisor is killed.
	must(t, l, "node1", "losetup", "-f", "/shared/disk.img")
	st, err := l.Status(t.Context())
	check(t, err)
	check(t, unix.Kill(st.PID, unix.SIGKILL))
	eventually(t, "the loop device is free", func() bool { return len(loopsOf(shared)) == 0 })
}

// A lab may run for days: what a boot takes, its end gives back.
func TestManyBootsLeakNothing(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2, Fence: true})
	st, err := l.Status(t.Context())
	check(t, err)
	files := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.PID))
		check(t, err)
		return len(list)
	}
	var before int
	for i := range 12 {
		check(t, l.Crash(t.Context(), "node1"))
		check(t, l.Boot(t.Context(), "node1"))
		must(t, l, "node1", "true")
		if i == 1 {
			before = files()
		}
	}
	if after := files(); after > before+2 {
		t.Errorf("the supervisor had %d open files, and has %d", before, after)
	}
}

func TestRebootInsideIsAReset(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a user namespace does not give the right to reboot in every kernel")
	}
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1, RebootDelay: 50 * time.Millisecond})
	before := nodeStatus(t, l, "node1").BootID
	_, _ = l.Run(t.Context(), "node1", helper("reboot")...)
	eventually(t, "the node boots again", func() bool {
		st := nodeStatus(t, l, "node1")
		return st.State == lab.StateUp && st.BootID != before
	})
}

func TestWatchdog(t *testing.T) {
	const quick = 100 * time.Millisecond
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2, RebootDelay: quick})
	watchdog := func(steps ...string) string {
		return must(t, l, "node1", helper(append([]string{"watchdog"}, steps...)...)...)
	}
	boots := func() int { return nodeStatus(t, l, "node1").Boots }
	comesBack := func(what string, boots int) {
		t.Helper()
		eventually(t, what+": the node boots again", func() bool {
			st := nodeStatus(t, l, "node1")
			return st.Boots == boots+1 && st.State == lab.StateUp
		})
	}
	n := boots()

	// Timeouts are told back as they are in force; petting keeps the node; the magic character stops the timer.
	if out := watchdog("open", "G", "T1", "T1000", "G", "second", "pet1500", "V", "close"); out != "G60000\nT100\nT1000\nG1000\n" {
		t.Errorf("answers: %q", out)
	}
	if st := nodeStatus(t, l, "node1").Watchdog; st.Open || st.Running || boots() != n {
		t.Errorf("closed with the magic character: %+v, boots %d", st, boots())
	}

	// Closed in any other way it pets once more and runs on.
	watchdog("open", "T2000", "V", "P", "close", "exit")
	if st := nodeStatus(t, l, "node1").Watchdog; !st.Running {
		t.Error("the timer stopped at a close without the magic character")
	}
	comesBack("closed without magic", n)

	// Nobody pets.
	n = boots()
	r, err := l.Run(t.Context(), "node1", helper("watchdog", "open", "T200", "hold")...)
	if err == nil || r.Code != lab.ExitLab {
		t.Errorf("no pet: %+v, %v", r, err)
	}
	comesBack("not petted", n)
	kinds := events(t, l, "node1")
	if i := slices.IndexFunc(kinds, func(e lab.Event) bool { return e.Kind == "watchdog" }); i < 0 || kinds[i].Took <= 0 {
		t.Errorf("events: %+v", kinds)
	}
	if st := nodeStatus(t, l, "node1").Watchdog; st.Fired != 2 || st.Running || st.Timeout != time.Minute {
		t.Errorf("after the boot: %+v", st)
	}

	// A new opening of a running timer pets it and takes over.
	n = boots()
	watchdog("open", "T5000", "close", "wait50", "open", "pet100", "V", "close")
	if boots() != n {
		t.Error("the node was reset")
	}

	// A paused node is reset all the same, and ordered resets come at once.
	go func() { _, _ = l.Run(t.Context(), "node1", helper("watchdog", "open", "T1500", "pet100000")...) }()
	eventually(t, "the timer runs", func() bool { return nodeStatus(t, l, "node1").Watchdog.Timeout == 1500*time.Millisecond })
	check(t, l.Pause(t.Context(), "node1"))
	comesBack("paused", n)
	_, _ = l.Run(t.Context(), "node1", helper("watchdog", "open", "K", "hold")...)
	comesBack("ordered", n+1)
	if st := nodeStatus(t, l, "node2"); st.Boots != 1 {
		t.Errorf("node2 was booted %d times", st.Boots)
	}
}

func TestWatchdogWithoutAutoBoot(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1, NoAutoBoot: true, RebootDelay: time.Millisecond})
	_, _ = l.Run(t.Context(), "node1", helper("watchdog", "open", "K", "hold")...)
	eventually(t, "the node is down", func() bool { return nodeStatus(t, l, "node1").State == lab.StateDown })
	check(t, l.Boot(t.Context(), "node1"))
}

func TestFencing(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Fence: true, RebootDelay: time.Hour})
	fence := func(action, plug string, more ...string) int {
		t.Helper()
		r, err := l.RunInput(t.Context(), "node1", "action="+action+"\nplug="+plug+"\n"+strings.Join(more, "\n"), "cllab", "fence")
		check(t, err)
		return r.Code
	}
	expect := func(want int, action, plug string, more ...string) {
		t.Helper()
		if got := fence(action, plug, more...); got != want {
			t.Errorf("%s %s: exit status %d, want %d", action, plug, got, want)
		}
	}
	expect(0, "monitor", "")
	expect(0, "status", "node2")
	expect(0, "off", "node2")
	if st := nodeStatus(t, l, "node2"); st.State != lab.StateOff || st.PID != 0 {
		t.Errorf("after off: %+v", st)
	}
	expect(0, "off", "node2")
	expect(2, "status", "node2")
	expect(0, "on", "node2")
	expect(0, "status", "node2")
	must(t, l, "node2", "true")
	// A crashed node has power until it is switched off; a boot that was due is not, then.
	check(t, l.Crash(t.Context(), "node2"))
	expect(0, "status", "node2")
	expect(0, "off", "node2")
	expect(2, "status", "node2")
	expect(0, "reboot", "node2")
	expect(1, "off", "node9")
	expect(1, "explode", "node2")
	expect(1, "off", "")
	expect(0, "metadata", "")
	// A node may switch itself off; its command then ends with it.
	if r, err := l.RunInput(t.Context(), "node3", "action=off\nplug=node3\n", "cllab", "fence"); err == nil {
		t.Errorf("node3 fenced itself and answered %+v", r)
	}
	eventually(t, "node3 is off", func() bool { return nodeStatus(t, l, "node3").State == lab.StateOff })

	check(t, l.PowerReach(t.Context(), "node1", false))
	expect(1, "off", "node2", "power_timeout=0.2")
	check(t, l.PowerReach(t.Context(), "", true))
	check(t, l.PowerDelay(t.Context(), 300*time.Millisecond))
	expect(1, "status", "node2", "power_timeout=0.1")
	expect(0, "status", "node2", "power_timeout=10")
}

func TestFenceAgentByItsName(t *testing.T) {
	link := filepath.Join(t.TempDir(), "fence_cllab")
	check(t, os.Symlink(program, link))
	cmd := exec.Command(link)
	cmd.Stdin = strings.NewReader("action=metadata\n")
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte(`<resource-agent name="fence_cllab"`)) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDaemonsAreKept(t *testing.T) {
	l := startLab(t, lab.Options{Bare: true, Nodes: 1})
	running := func() (agent, deadman lab.DaemonStatus) {
		st := nodeStatus(t, l, "node1")
		return st.Agent, st.Deadman
	}
	eventually(t, "both run", func() bool { a, d := running(); return a.PID != 0 && d.PID != 0 })
	out := must(t, l, "node1", "cat", "/var/log/holdfast/cldeadman.out")
	if !strings.Contains(out, "/run/holdfast/watchdog.sock") {
		t.Errorf("arguments of the deadman: %q", out)
	}
	first, deadman := running()
	check(t, l.Kill(t.Context(), "node1", "agent"))
	eventually(t, "the agent runs again", func() bool { a, _ := running(); return a.PID != 0 && a.PID != first.PID && a.Starts == 2 })
	if _, d := running(); d != deadman {
		t.Errorf("the deadman was %+v, is %+v", deadman, d)
	}
	check(t, l.Pause(t.Context(), "node1", "agent", "deadman"))
	a, d := running()
	for _, pid := range []int{a.PID, d.PID} {
		eventually(t, "the daemon is stopped", func() bool {
			return strings.Fields(must(t, l, "node1", "cat", fmt.Sprintf("/proc/%d/stat", pid)))[2] == "T"
		})
	}
	check(t, l.Resume(t.Context(), "node1", "deadman", "agent"))
	// A paused node's daemons die too, and are started again when it goes on.
	check(t, l.Pause(t.Context(), "node1"))
	a, _ = running()
	check(t, l.Kill(t.Context(), "node1", "agent"))
	check(t, l.Resume(t.Context(), "node1"))
	eventually(t, "the agent runs again", func() bool { b, _ := running(); return b.PID != 0 && b.PID != a.PID })
	if err := l.Kill(t.Context(), "node1", "init"); err == nil {
		t.Error("kill init was taken")
	}
}

// takeOver makes a node hold the service address and answer there.
func takeOver(t *testing.T, l *lab.Lab, node string) {
	t.Helper()
	must(t, l, node, helper("addr-add", "10.77.1.100/24", "eth0")...)
	startApp(t, l, node, "10.77.1.100:8080")
	must(t, l, node, helper("announce", "10.77.1.100", "eth0")...)
}

func TestProbeReportsOutages(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2})
	takeOver(t, l, "node1")
	var probes []*lab.Probe
	for _, o := range []lab.ProbeOptions{{}, {UDP: true}, {Interval: 5 * time.Millisecond, Timeout: 100 * time.Millisecond}} {
		p, err := l.StartProbe("10.77.1.100:8080", o)
		check(t, err)
		probes = append(probes, p)
	}
	for _, p := range probes {
		check(t, p.AwaitAnswer(t.Context(), "node1"))
	}
	begin := time.Now()
	check(t, l.Crash(t.Context(), "node1"))
	for _, p := range probes {
		check(t, p.Await(t.Context(), func(e []lab.ProbeEvent) bool {
			return slices.ContainsFunc(e, func(e lab.ProbeEvent) bool { return e.Event == "silent" })
		}))
	}
	takeOver(t, l, "node2")
	for _, p := range probes {
		check(t, p.AwaitAnswer(t.Context(), "node2"))
	}
	end := time.Now()
	for _, p := range probes {
		r, err := p.Stop()
		check(t, err)
		i := slices.IndexFunc(r.Outages, func(o lab.Outage) bool { return o.Before.Node == "node1" && o.After.Node == "node2" })
		if i < 0 || r.First.Node != "node1" || r.Last.Node != "node2" {
			t.Fatalf("report: %+v", r)
		}
		o := r.Outages[i]
		// The last answer may be older than the crash by what the client was late; it cannot be much newer.
		if o.Before.Node != "node1" || o.After.Node != "node2" || o.Open || o.Asked == 0 || (o.Length-o.End.Sub(o.Begin)).Abs() > time.Millisecond ||
			o.End.After(end) || o.Begin.After(begin.Add(o.Length)) || o.After.Count <= o.Before.Count {
			t.Errorf("outage between %v and %v: %+v", begin, end, o)
		}
	}
}

func TestProbeOfNobody(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	p, err := l.StartProbe("10.77.1.1:9", lab.ProbeOptions{})
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.AwaitAnswer(ctx, ""); err == nil {
		t.Error("there was an answer")
	}
	r, err := p.Stop()
	check(t, err)
	if r.Answers != 0 || r.Attempts == 0 || len(r.Outages) != 0 {
		t.Errorf("report: %+v", r)
	}
}

func TestWatchSeesOverlaps(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 3})
	w, err := l.StartWatch(t.Context(), lab.WatchOptions{Interval: 2 * time.Millisecond, Ignore: []string{"/fine/*"}})
	check(t, err)
	seen := func(match func(lab.WatchEvent) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := w.Await(ctx, func(e []lab.WatchEvent) bool { return slices.ContainsFunc(e, match) }); err != nil {
			t.Fatalf("%v; seen: %+v", err, w.Events())
		}
	}
	gained := func(node, kind, what string) {
		t.Helper()
		seen(func(e lab.WatchEvent) bool {
			return e.Event == "gained" && e.Node == node && *e.Holding == lab.Holding{Kind: kind, What: what}
		})
	}
	overlap := func(kind, what string, nodes ...string) {
		t.Helper()
		seen(func(e lab.WatchEvent) bool {
			return e.Event == "overlap" && e.Overlap.Kind == kind && e.Overlap.What == what && slices.Equal(e.Overlap.Nodes, nodes)
		})
	}
	// A move, however quick, is no overlap.
	for i := range 10 {
		node := lab.NodeName(i%3 + 1)
		must(t, l, node, helper("addr-add", "10.77.1.100/24", "eth0")...)
		gained(node, "address", "10.77.1.100")
		must(t, l, node, helper("addr-del", "10.77.1.100/24", "eth0")...)
	}
	must(t, l, "node3", helper("addr-add", "10.77.1.101/24", "eth0")...)
	gained("node3", "address", "10.77.1.101")
	check(t, l.Crash(t.Context(), "node3"))
	must(t, l, "node1", helper("addr-add", "10.77.1.101/24", "eth0")...)
	for _, node := range []string{"node1", "node2"} {
		must(t, l, node, helper("mount", "/fine/data")...)
		gained(node, "mount", "/fine/data")
	}
	for _, e := range w.Events() {
		if e.Event == "overlap" {
			t.Errorf("no overlap was made, and one was seen: %+v", e.Overlap)
		}
	}
	// Now real ones.
	must(t, l, "node2", helper("addr-add", "10.77.1.101/24", "eth0")...)
	overlap("address", "10.77.1.101", "node1", "node2")
	must(t, l, "node2", helper("addr-add", "fd00::5/64", "eth0")...)
	must(t, l, "node1", helper("addr-add", "fd00::5/64", "eth0")...)
	overlap("address", "fd00::5", "node1", "node2")
	must(t, l, "node1", helper("mount", "/both")...)
	must(t, l, "node2", helper("mount", "/both")...)
	overlap("mount", "/both", "node1", "node2")
	startApp(t, l, "node1", ":8080")
	gained("node1", "lock", "/shared/app/lock")
	if r, err := l.Run(t.Context(), "node2", "cllab", "app", "start"); err != nil || r.Code != 1 {
		t.Errorf("a second copy: %+v, %v", r, err)
	}
	overlap("lock", "/shared/app/lock", "node1", "node2")
	if _, err := os.Stat(l.SharedPath("app/double-start")); err != nil {
		t.Error(err)
	}
	r, err := w.Stop()
	check(t, err)
	if len(r.Overlaps) != 4 || r.Samples < 10 || r.WorstGap <= 0 {
		t.Errorf("report: %+v", r)
	}
}

func TestAppIsAStartStopScript(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 1})
	app := func(what string, more ...string) int {
		t.Helper()
		r, err := l.Run(t.Context(), "node1", append([]string{"cllab", "app", what, "--listen=:8080"}, more...)...)
		check(t, err)
		return r.Code
	}
	if code := app("status"); code != 3 {
		t.Errorf("status before the start: %d", code)
	}
	for range 2 { // both may be done twice
		if code := app("start"); code != 0 {
			t.Errorf("start: %d", code)
		}
	}
	if !becomesReachable(t, l, "10.77.1.1:8080") || app("status") != 0 {
		t.Error("it does not run")
	}
	for range 2 {
		if code := app("stop"); code != 0 || reaches(t, l, "10.77.1.1:8080") {
			t.Errorf("stop: %d", code)
		}
	}
	if code := app("start", "--listen=10.9.9.9:80"); code != 1 {
		t.Errorf("start at an address that is not there: %d", code)
	}
	must(t, l, "node1", "sh", "-c", "echo nonsense >/shared/app/counter")
	if code := app("start"); code != 1 {
		t.Errorf("start with a damaged counter: %d", code)
	}
}

// Whatever ends a lab, nothing of it stays.
func TestNothingIsLeft(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, l *lab.Lab, supervisor, keeper int)
	}{
		{"down", func(t *testing.T, l *lab.Lab, _, _ int) { check(t, l.Down(t.Context(), true)) }},
		{"supervisor killed", func(t *testing.T, _ *lab.Lab, supervisor, _ int) { check(t, unix.Kill(supervisor, unix.SIGKILL)) }},
		{"supervisor terminated", func(t *testing.T, _ *lab.Lab, supervisor, _ int) { check(t, unix.Kill(supervisor, unix.SIGTERM)) }},
		{"keeper killed", func(t *testing.T, l *lab.Lab, _, keeper int) {
			check(t, unix.Kill(keeper, unix.SIGKILL))
			check(t, l.Down(t.Context(), true)) // what the keeper would have swept
			check(t, commandDown(l))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := startLab(t, lab.Options{NoDaemons: true, Networks: 2, Fence: true})
			must(t, l, "node1", "sh", "-c", "mkdir -p /sys/fs/cgroup/deep/er; sleep 1000 >/dev/null 2>&1 &")
			must(t, l, "node2", helper("mount", "/run/x")...)
			check(t, l.Pause(t.Context(), "node3"))
			st, err := l.Status(t.Context())
			check(t, err)
			pids := []int{st.PID}
			for _, n := range st.Nodes {
				below, err := descendants(n.PID)
				check(t, err)
				pids = append(pids, below...)
			}
			c.end(t, l, st.PID, parentOf(t, st.PID))
			eventually(t, "all processes are gone", func() bool {
				return !slices.ContainsFunc(pids, func(pid int) bool { s := processState(pid); return s != 0 && s != 'Z' })
			})
			eventually(t, "the cgroups are gone", func() bool {
				_, err := os.Stat(st.Config.CgroupRoot)
				return st.Config.CgroupRoot == "" || errors.Is(err, os.ErrNotExist)
			})
			mounts, err := readMounts("self")
			check(t, err)
			for _, m := range mounts {
				if strings.HasPrefix(m.point, l.Dir) {
					t.Errorf("mount left: %+v", m)
				}
			}
			if _, err := l.Status(t.Context()); !errors.Is(err, lab.ErrNotRunning) {
				t.Errorf("status after the end: %v", err)
			}
			// The name can be used again at once.
			again := startLab(t, lab.Options{NoDaemons: true, Nodes: 1, BaseDir: filepath.Dir(l.Dir)})
			must(t, again, "node1", "true")
		})
	}
}

func commandDown(l *lab.Lab) error {
	cmd := exec.Command(program, "down", "--keep")
	cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+filepath.Dir(l.Dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	n, err := strconv.Atoi(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))[1])
	check(t, err)
	return n
}

// Of two who start a lab of one name at once, one does, and the other hears why not.
func TestTwoStartOneLab(t *testing.T) {
	base := t.TempDir()
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := lab.Up(t.Context(), lab.Options{Binary: program, NoDaemons: true, BaseDir: base})
			results <- err
		}()
	}
	first, second := <-results, <-results
	if first != nil {
		first, second = second, first
	}
	if first != nil || second == nil || !strings.Contains(second.Error(), "running already") {
		t.Errorf("%v, %v", first, second)
	}
	l := lab.Open(filepath.Join(base, "lab"))
	must(t, l, "node3", "true")
	check(t, l.Down(t.Context(), false))
}

func TestLabEndsWithItsProcess(t *testing.T) {
	owner := exec.Command("sleep", "1000")
	check(t, owner.Start())
	base := t.TempDir()
	cmd := exec.Command(program, "up", "--no-daemons", "--nodes=1", "--tie="+strconv.Itoa(owner.Process.Pid))
	cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+base)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := lab.Open(filepath.Join(base, "lab"))
	must(t, l, "node1", "true")
	check(t, owner.Process.Kill())
	_ = owner.Wait()
	eventually(t, "the lab is down", func() bool {
		_, err := l.Status(t.Context())
		return errors.Is(err, lab.ErrNotRunning)
	})
	check(t, l.Down(t.Context(), false)) // waits for its last process
}

func TestSeveralLabsSideBySide(t *testing.T) {
	base := t.TempDir()
	var labs []*lab.Lab
	for _, name := range []string{"a", "b"} {
		l := startLab(t, lab.Options{NoDaemons: true, Nodes: 2, Name: name, BaseDir: base})
		startApp(t, l, "node2", ":8080", "--data=/run/data")
		labs = append(labs, l)
	}
	for _, l := range labs {
		if !becomesReachable(t, l, "10.77.1.2:8080") {
			t.Errorf("%s: node1 does not reach node2", l.Dir)
		}
	}
	check(t, labs[0].Crash(t.Context(), "node2"))
	if reaches(t, labs[0], "10.77.1.2:8080") || !becomesReachable(t, labs[1], "10.77.1.2:8080") {
		t.Error("the labs are not apart")
	}
	if _, err := lab.Up(t.Context(), lab.Options{Binary: program, NoDaemons: true, Name: "b", BaseDir: base}); err == nil ||
		!strings.Contains(err.Error(), "running already") {
		t.Errorf("a second lab of one name: %v", err)
	}
}

func TestThirtyTwoNodes(t *testing.T) {
	l := startLab(t, lab.Options{NoDaemons: true, Nodes: 32, Networks: 2})
	startApp(t, l, "node32", ":8080", "--data=/run/data")
	if !becomesReachable(t, l, "10.77.2.32:8080") {
		t.Error("node1 does not reach node32")
	}
	st, err := l.Status(t.Context())
	check(t, err)
	for _, n := range st.Nodes {
		if n.State != lab.StateUp {
			t.Errorf("%s is %s", n.Name, n.State)
		}
	}
}

func TestUpSaysWhatIsMissing(t *testing.T) {
	alone := filepath.Join(t.TempDir(), "cllab")
	b, err := os.ReadFile(program)
	check(t, err)
	check(t, os.WriteFile(alone, b, 0o755))
	run := func(args ...string) (int, string) {
		cmd := exec.Command(alone, append([]string{"up"}, args...)...)
		cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+filepath.Join(t.TempDir(), "labs"))
		out, err := cmd.CombinedOutput()
		return exitCode(err), string(out)
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"--cluster=/no/such.yaml"}, 1, []string{"cldeadman is not beside", "clstrmgrd is not", "clmgr is not", "/no/such.yaml"}},
		{[]string{"--nodes=0"}, 2, []string{"--nodes 0: want 1 to"}},
		{[]string{"--nodes=65"}, 2, []string{"--nodes 65"}},
		{[]string{"--networks=9"}, 2, []string{"--networks 9"}},
		{[]string{"--name=../x"}, 2, []string{"lab name"}},
		{[]string{"--subnet=10.300"}, 2, []string{"--subnet"}},
		{[]string{"--profile=quick"}, 2, []string{"--profile"}},
		{[]string{"--colour"}, 2, []string{"unknown flag"}},
	} {
		code, out := run(c.args...)
		if code != c.code {
			t.Errorf("up %v: exit status %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("up %v does not say %q: %s", c.args, w, out)
			}
		}
	}
}

// A directory that others may write is refused: whoever writes there owns the lab.
func TestUpRefusesAnUnsafeDirectory(t *testing.T) {
	base := t.TempDir()
	check(t, os.Chmod(base, 0o777))
	if _, err := lab.Up(t.Context(), lab.Options{Binary: program, NoDaemons: true, BaseDir: base}); err == nil ||
		!strings.Contains(err.Error(), "nobody else may write") {
		t.Errorf("got %v", err)
	}
}

// The same as an ordinary user, where the kernel allows it.
func TestRootless(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("all tests of this run are rootless")
	}
	if why := restrictions(); why != "" {
		t.Skip(why)
	}
	base, err := os.MkdirTemp("", "cllab-rootless")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	check(t, os.Chown(base, 65534, 65534))
	run := func(stdin string, args ...string) (int, string) {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+base)
		cmd.Dir = "/"
		cmd.Stdin = strings.NewReader(stdin)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			return 0, string(out)
		}
		return exitCode(err), string(out)
	}
	expect := func(code int, args ...string) string {
		t.Helper()
		got, out := run("", args...)
		if got != code {
			t.Errorf("%v: exit status %d, want %d: %s", args, got, code, out)
		}
		return out
	}
	expect(0, "up", "--no-daemons", "--fence", "--networks=2", "--tie="+strconv.Itoa(os.Getpid()))
	t.Cleanup(func() { expect(0, "down") })
	expect(0, "exec", "node2", "--", "cllab", "app", "start", "--listen=:8080", "--data=/run/data")
	probe := []string{"probe", "10.77.1.2:8080", "--for=200ms", "--udp"}
	expect(0, probe...)
	expect(0, "cut", "node2", "net1")
	expect(1, probe...)
	expect(0, "heal")
	expect(0, "cut", "node2", "net1", "--in")
	expect(1, probe...)
	expect(0, "heal")
	expect(0, probe...)
	expect(0, "pause", "node1")
	expect(0, "resume", "node1")
	expect(0, "watch", "--for=50ms")
	if code, out := run("action=off\nplug=node3\n", "exec", "node1", "--", "cllab", "fence"); code != 0 {
		t.Errorf("fence: %d %s", code, out)
	}
	expect(0, "crash", "node2")
	expect(1, probe...)
	expect(0, "boot", "node2")
	if out := expect(0, "status"); !strings.Contains(out, "off") || !strings.Contains(out, "up") {
		t.Errorf("status: %s", out)
	}
}
