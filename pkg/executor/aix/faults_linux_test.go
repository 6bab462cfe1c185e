package aix

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

// The stories that the conformance suite does not tell: what AIX does to those who fail over.

func started(t *testing.T, x executor.Executor, r executor.Resource) executor.Result {
	t.Helper()
	res := x.Start(t.Context(), r)
	if res.Status != executor.Running || res.Err != nil {
		t.Fatalf("start %s: %+v", r.Name, res)
	}
	return res
}

func stopped(t *testing.T, x executor.Executor, r executor.Resource) executor.Result {
	t.Helper()
	res := x.Stop(t.Context(), r)
	if res.Status != executor.Stopped || res.Err != nil {
		t.Fatalf("stop %s: %+v", r.Name, res)
	}
	return res
}

// refused expects a start that fails and says all of these words.
func refused(t *testing.T, x executor.Executor, r executor.Resource, words ...string) {
	t.Helper()
	res := x.Start(t.Context(), r)
	if res.Err == nil || res.Status == executor.Running {
		t.Fatalf("start %s: %+v, it must fail", r.Name, res)
	}
	for _, w := range words {
		if !strings.Contains(res.Detail, w) {
			t.Errorf("start %s says %q, not %q", r.Name, res.Detail, w)
		}
	}
}

func (m *machine) group(w *fake.World, name string) *fake.Group {
	for _, g := range w.Shared.Groups {
		if g.Name == name {
			return g
		}
	}
	m.t.Fatalf("no volume group %s", name)
	return nil
}

func TestALockOfADeadCommandIsCleared(t *testing.T) {
	m := machines(t, 1)[0]
	m.change(func(w *fake.World) { w.ODM.Locks["vg0"] = &fake.Lock{Command: "varyonvg"} })
	started(t, m.sys.VolumeGroups(), vg(0))
	if n := see(m, func(w *fake.World) int { return len(w.ODM.Locks) }); n != 0 {
		t.Error("the lock is still there")
	}
}

func TestALockOfALivingCommandIsRespected(t *testing.T) {
	m := machines(t, 1)[0]
	m.change(func(w *fake.World) {
		w.ODM.Locks["vg0"] = &fake.Lock{Command: "extendlv"}
		w.Run.LVM = []string{"extendlv"}
	})
	refused(t, m.sys.VolumeGroups(), vg(0), "vg0 is locked", "extendlv", "chvg -u vg0")
	if m.variedOn("vg0") || see(m, func(w *fake.World) int { return len(w.ODM.Locks) }) != 1 {
		t.Error("the lock of a command at work was broken")
	}
	// A probe waits for no lock.
	if res := m.sys.VolumeGroups().Probe(t.Context(), vg(0)); res.Status != executor.Stopped {
		t.Errorf("probe: %+v", res)
	}
}

func TestALockThatIsGivenBackInTimeIsWaitedFor(t *testing.T) {
	m := machines(t, 1)[0]
	m.sys.o.LockTimeout = 5 * time.Second
	m.change(func(w *fake.World) {
		w.ODM.Locks["vg0"] = &fake.Lock{Command: "syncvg"}
		w.Run.LVM = []string{"syncvg"}
	})
	done := make(chan executor.Result, 1)
	go func() { done <- m.sys.VolumeGroups().Start(t.Context(), vg(0)) }()
	select {
	case res := <-done:
		t.Fatalf("it did not wait: %+v", res)
	case <-time.After(300 * time.Millisecond):
	}
	m.change(func(w *fake.World) { delete(w.ODM.Locks, "vg0"); w.Run.LVM = nil })
	if res := <-done; res.Status != executor.Running || res.Err != nil {
		t.Errorf("%+v", res)
	}
}

func TestMissingDisks(t *testing.T) {
	m := machines(t, 1)[0]
	x := m.sys.VolumeGroups()
	m.change(func(w *fake.World) { w.Shared.Disks[pvid(0)].Missing = []string{"node1"} })
	refused(t, x, vg(0), "disks are missing", pvid(0), "forced_varyon", "0516-052")
	forced := vg(0)
	forced.VolumeGroup.Forced = true
	if res := started(t, x, forced); !strings.Contains(res.Detail, "by force") || !strings.Contains(res.Detail, pvid(0)) {
		t.Errorf("it does not say at what price: %s", res.Detail)
	}
	if res := x.Probe(t.Context(), vg(0)); !strings.Contains(res.Detail, "1 of its 2 disks are missing") {
		t.Errorf("the loss is not shown: %+v", res)
	}
	m.change(func(w *fake.World) {
		w.Shared.Disks[pvid(3)].Missing = []string{"*"}
		w.Shared.Disks[pvid(2)].Missing = []string{"*"}
	})
	forced = vg(1)
	forced.VolumeGroup.Forced = true
	refused(t, x, forced, "0516-052")
}

func TestTheReserveOfALostNodeIsBroken(t *testing.T) {
	ms := machines(t, 2)
	ms[0].change(func(w *fake.World) {
		for _, d := range w.Shared.Disks {
			d.Policy = "single_path"
		}
	})
	started(t, ms[0].sys.VolumeGroups(), vg(0))
	ms[0].reboot() // its reserve outlives it
	res := started(t, ms[1].sys.VolumeGroups(), vg(0))
	if !strings.Contains(res.Detail, "reserve of another node was broken") {
		t.Error(res.Detail)
	}
	if o := overlaps(ms[0]); len(o) != 0 {
		t.Error(o)
	}
}

func TestAnUnknownVolumeGroupIsImported(t *testing.T) {
	ms := machines(t, 2)
	m := ms[1]
	m.must("exportvg", "vg0")
	x := m.sys.VolumeGroups()
	if err := x.Validate(t.Context(), vg(0)); err == nil || !strings.Contains(err.Error(), "vg_auto_import") {
		t.Errorf("validate: %v", err)
	}
	refused(t, x, vg(0), "not known on this node")
	r := vg(0)
	r.VolumeGroup.AutoImport, r.VolumeGroup.MajorNumber = true, 77
	if err := x.Validate(t.Context(), r); err != nil {
		t.Error(err)
	}
	started(t, x, r)
	k := see(m, func(w *fake.World) fake.Known { return *w.ODM.Groups["vg0"] })
	if k.AutoOn || k.Major != 77 {
		t.Errorf("after the import: %+v: it would vary on at boot, or has another major number", k)
	}
	stopped(t, x, r)
	r = vg(1)
	m.must("exportvg", "vg1")
	r.VolumeGroup.AutoImport, r.VolumeGroup.PhysicalVolumes = true, []string{"00f6f42affffffff"}
	refused(t, x, r, "00f6f42affffffff")
}

// A file system that another node added while it had the volume group must be there when it moves here.
func TestChangesOfTheOtherNodeAreLearned(t *testing.T) {
	ms := machines(t, 2)
	started(t, ms[0].sys.VolumeGroups(), vg(0))
	ms[0].change(func(w *fake.World) {
		g := ms[0].group(w, "vg0")
		g.Volumes["newlv"] = &fake.Volume{Type: "jfs2"}
		g.Timestamp = "61a5f0c81c2e7fff"
		w.ODM.Groups["vg0"].Volumes = append(w.ODM.Groups["vg0"].Volumes, "newlv")
		w.ODM.Groups["vg0"].Timestamp = g.Timestamp
	})
	stopped(t, ms[0].sys.VolumeGroups(), vg(0))
	started(t, ms[1].sys.VolumeGroups(), vg(0))
	if v := see(ms[1], func(w *fake.World) []string { return w.ODM.Groups["vg0"].Volumes }); !contains(v, "newlv") {
		t.Errorf("the node knows only %v", v)
	}
	stopped(t, ms[1].sys.VolumeGroups(), vg(0))
	// Without the tools that show the timestamps it is learned each time, and a failure of that is no obstacle.
	ms[1].fault(fake.Fault{Command: "lqueryvg", Mode: "fail"})
	ms[1].fault(fake.Fault{Command: "importvg", Mode: "fail", Text: "0516-024 lqueryvg: Unable to open physical volume."})
	started(t, ms[1].sys.VolumeGroups(), vg(0))
}

func TestEnhancedConcurrentOnlyWithGroupServices(t *testing.T) {
	ms := machines(t, 2)
	r := vg(0)
	r.VolumeGroup.Mode = cluster.VolumeGroupEnhanced
	ms[0].change(func(w *fake.World) { ms[0].group(w, "vg0").Concurrent = true })
	x := ms[0].sys.VolumeGroups()
	if err := x.Validate(t.Context(), r); err == nil || !strings.Contains(err.Error(), "RSCT") {
		t.Errorf("validate: %v", err)
	}
	refused(t, x, r, "RSCT group services")
	for _, m := range ms {
		m.change(func(w *fake.World) {
			w.ODM.Subsystems["cthags"] = &fake.Subsystem{Path: "/usr/sbin/rsct/bin/hagsd", Group: "cthags"}
			w.Run.Running["cthags"] = fake.Process{PID: -1, Status: "active"}
		})
	}
	started(t, x, r)
	stopped(t, x, r)
	if s := see(ms[0], func(w *fake.World) string { return w.Run.On["vg0"] }); s != "passive" {
		t.Errorf("after the stop it is %q, not passive", s)
	}
	started(t, ms[1].sys.VolumeGroups(), r)
	if res := x.Probe(t.Context(), r); res.Status != executor.Stopped {
		t.Errorf("passive mode counts as %+v", res)
	}
	if o := overlaps(ms[0]); len(o) != 0 {
		t.Error(o)
	}
}

func TestWhatKeepsAVolumeGroupOnIsNamed(t *testing.T) {
	m := machines(t, 1)[0]
	started(t, m.sys.VolumeGroups(), vg(0))
	started(t, m.sys.FileSystems(), m.fs(0))
	res := m.sys.VolumeGroups().Stop(t.Context(), vg(0))
	if res.Err == nil || !strings.Contains(res.Detail, "0516-012") || !strings.Contains(res.Detail, "open: lv0") {
		t.Errorf("%+v", res)
	}
}

// The emulator itself: nothing keeps a second node off, so that only the cluster does; and it tells.
func TestTheEmulatorNotesOverlaps(t *testing.T) {
	ms := machines(t, 2)
	for _, m := range ms {
		m.must("varyonvg", "vg0")
		if err := os.MkdirAll(m.fs(0).FileSystem.MountPoint, 0o755); err != nil {
			t.Fatal(err)
		}
		m.must("mount", "-v", "jfs2", "/dev/lv0", m.fs(0).FileSystem.MountPoint)
	}
	if o := overlaps(ms[0]); len(o) != 2 || !strings.Contains(o[0], "vg0 is varied on by node2") || !strings.Contains(o[1], "/dev/lv0 is mounted by node2") {
		t.Errorf("noted: %q", o)
	}
}

// crashed leaves fs0 mounted by node1, guarded if so wanted, and crashes that node.
func crashed(t *testing.T, guard bool) []*machine {
	ms := machines(t, 2)
	ms[0].change(func(w *fake.World) { ms[0].group(w, "vg0").Volumes["lv0"].Guard = guard })
	started(t, ms[0].sys.VolumeGroups(), vg(0))
	started(t, ms[0].sys.FileSystems(), ms[0].fs(0))
	ms[0].reboot()
	started(t, ms[1].sys.VolumeGroups(), vg(0))
	return ms
}

func TestAFileSystemThatWasNotUnmounted(t *testing.T) {
	ms := crashed(t, false)
	started(t, ms[1].sys.FileSystems(), ms[1].fs(0)) // the log is replayed by the mount
	ms = crashed(t, false)
	ms[1].change(func(w *fake.World) { ms[1].group(w, "vg0").Volumes["lv0"].Broken = true })
	refused(t, ms[1].sys.FileSystems(), ms[1].fs(0), "fsck finds errors", "by hand")
	r := ms[1].fs(0)
	r.FileSystem.Check = "none"
	refused(t, ms[1].sys.FileSystems(), r, "0506-342")
	if ms[1].mounted(r) {
		t.Error("a broken file system is mounted")
	}
}

func TestMountGuardIsRespectedWithoutAProof(t *testing.T) {
	ms := crashed(t, true)
	x, r := ms[1].sys.FileSystems(), ms[1].fs(0)
	refused(t, x, r, "guarded", "nothing proves")
	res := x.Start(executor.WithProof(t.Context(), "node1 was fenced"), r)
	if res.Status != executor.Running || res.Err != nil || !strings.Contains(res.Detail, "node1 was fenced") {
		t.Errorf("with a proof: %+v", res)
	}
	if o := overlaps(ms[0]); len(o) != 0 {
		t.Error(o)
	}
}

func TestBusyFileSystem(t *testing.T) {
	m := machines(t, 1)[0]
	m.master()
	started(t, m.sys.VolumeGroups(), vg(0))
	x, r := m.sys.FileSystems(), m.fs(0)
	started(t, x, r)
	started(t, m.sys.Subsystems(), src(0)) // a process to be killed
	pid := see(m, func(w *fake.World) int { return w.Run.Running["app0"].PID })
	m.change(func(w *fake.World) { w.Run.Busy[r.FileSystem.MountPoint] = []int{pid} })
	stopped(t, x, r)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		t.Error("the process that held it still runs")
	}
	started(t, x, r)
	m.change(func(w *fake.World) { w.Run.Exports[r.FileSystem.MountPoint] = "rw" })
	res := x.Stop(t.Context(), r)
	if res.Err == nil || !strings.Contains(res.Detail, "exported by NFS") {
		t.Errorf("held by an export: %+v", res)
	}
	m.change(func(w *fake.World) {
		clear(w.Run.Exports)
		w.Run.Mounts = append(w.Run.Mounts, fake.Mount{Device: "/dev/other", Point: r.FileSystem.MountPoint + "/in", Vfs: "jfs2", Options: "rw"})
	})
	if res = x.Stop(t.Context(), r); res.Err == nil || !strings.Contains(res.Detail, "mounted inside it") {
		t.Errorf("with a mount inside: %+v", res)
	}
}

func TestAnAddressOfAStrangerIsNotTaken(t *testing.T) {
	m := machines(t, 1)[0]
	m.change(func(w *fake.World) { w.Shared.Foreign = []string{"10.1.1.100"} })
	refused(t, m.sys.ServiceIP(), ip(0), "in use on the network", "2:0:5e:10:0:1", "not taken")
	started(t, m.sys.ServiceIP(), ip(1))
}

func TestTheAddressGoesWhereTheLinkIs(t *testing.T) {
	m := machines(t, 1)[0]
	x := m.sys.ServiceIP()
	set := func(f func(i []*fake.Interface)) { m.change(func(w *fake.World) { f(w.Run.Interfaces) }) }
	set(func(i []*fake.Interface) { i[0].NoLink = true })
	if res := started(t, x, ip(0)); !strings.Contains(res.Detail, "en1") {
		t.Errorf("en0 has no link: %+v", res)
	}
	set(func(i []*fake.Interface) { i[0].NoLink, i[1].NoLink = false, true })
	if res := x.Probe(t.Context(), ip(0)); res.Status != executor.Degraded {
		t.Errorf("its interface lost its link: %+v", res)
	}
	if res := started(t, x, ip(0)); !strings.Contains(res.Detail, "en0") {
		t.Errorf("it did not move to en0: %+v", res)
	}
	set(func(i []*fake.Interface) { i[0].Down = true })
	refused(t, x, ip(1), "en0 is down", "en1 has no link")
	stopped(t, x, ip(0))
}

func TestAddressesOfBothFamilies(t *testing.T) {
	m := machines(t, 1)[0]
	x := m.sys.PersistentIP()
	r := executor.Resource{Kind: executor.KindPersistentIP, Name: "p6", IP: &executor.Address{Label: "p6", Address: "fd00::50", Network: "net2",
		NodeAddress: "fd00::1/64"}}
	if res := started(t, x, r); !strings.Contains(res.Detail, "fd00::50/64 is on en2") {
		t.Error(res.Detail)
	}
	if err := x.Announce(t.Context(), r); err != nil {
		t.Error(err)
	}
	stopped(t, x, r)
	if err := x.Announce(t.Context(), r); err == nil {
		t.Error("an address that is not there is announced")
	}
	r = ip(5)
	r.IP.Interface = "en2"
	if res := started(t, m.sys.ServiceIP(), r); !strings.Contains(res.Detail, "on en2") {
		t.Error(res.Detail)
	}
	for _, bad := range []string{"", "10.1.1", "127.0.0.1", "fe80::1", "224.0.0.1"} {
		r.IP.Address = bad
		if res := x.Start(t.Context(), r); res.Status != executor.Unknown || res.Err == nil {
			t.Errorf("%q: %+v", bad, res)
		}
	}
}

// A wrapper that ends while its helper keeps the pipe, one that hangs, one that prints megabytes and one that says it is done:
// the executor comes back in time, and tells the truth.
func TestBadCommands(t *testing.T) {
	m := machines(t, 1)[0]
	x := m.sys.VolumeGroups()
	m.fault(fake.Fault{Command: "varyonvg", Mode: "hangchild", Times: 1})
	began := time.Now()
	started(t, x, vg(0))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("a helper that keeps the pipe cost %v", took)
	}
	m.fault(fake.Fault{Command: "varyoffvg", Mode: "lie", Times: 1})
	if res := x.Stop(t.Context(), vg(0)); res.Err == nil || res.Status != executor.Running {
		t.Errorf("varyoffvg did nothing: %+v", res)
	}
	m.fault(fake.Fault{Command: "lsvg", Arg: "-o", Mode: "garbage", Times: 1})
	if res := x.Probe(t.Context(), vg(0)); res.Status == executor.Stopped {
		t.Errorf("among megabytes nothing was found, which is no answer: %+v", res)
	}
	stopped(t, x, vg(0))
	m.fault(fake.Fault{Command: "varyonvg", Mode: "lie", Times: 1})
	refused(t, x, vg(0), "not well")
	m.sys.o.QueryTimeout = 100 * time.Millisecond
	m.fault(fake.Fault{Command: "lssrc", Mode: "hang"})
	if res := m.sys.Subsystems().Probe(t.Context(), src(0)); res.Status != executor.Unknown {
		t.Errorf("no answer in time is taken for %+v", res)
	}
}

func TestSubsystemThatDoesNotStop(t *testing.T) {
	m := machines(t, 1)[0]
	m.master()
	m.change(func(w *fake.World) {
		w.ODM.Subsystems["app0"].Path, w.ODM.Subsystems["app0"].Args = "/bin/sh", ""
		w.ODM.Subsystems["app0"].Path = script(t, "trap '' TERM; while :; do sleep 0.1; done")
	})
	x, r := m.sys.Subsystems(), src(0)
	r.App.StopTimeout = 6 * time.Second
	started(t, x, r)
	stopped(t, x, r) // cancelled, and then killed by SRC
	r = src(1)
	m.change(func(w *fake.World) { w.ODM.Subsystems["app1"].Path = script(t, "exit 3") })
	r.App.StartTimeout = 2 * time.Second
	refusedSoon := x.Start(t.Context(), r)
	probe := x.Probe(t.Context(), r)
	if probe.Status == executor.Running && refusedSoon.Err == nil {
		t.Errorf("a subsystem that ends at once: %+v, then %+v", refusedSoon, probe)
	}
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := t.TempDir() + "/program"
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWatchLinks(t *testing.T) {
	m := machines(t, 1)[0]
	events, err := m.sys.WatchLinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, good func(e LinkEvent) bool) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case e := <-events:
				if good(e) {
					return
				}
			case <-timeout:
				t.Fatalf("no event: %s", what)
			}
		}
	}
	await("en2 at first", func(e LinkEvent) bool { return e.Interface == "en2" && e.Up && e.Carrier && len(e.Addresses) == 2 })
	m.change(func(w *fake.World) { w.Run.Interfaces[0].NoLink = true })
	await("en0 loses its link", func(e LinkEvent) bool { return e.Interface == "en0" && !e.Carrier })
	m.change(func(w *fake.World) { w.Run.Interfaces[0].NoLink = false; w.Run.Interfaces[1].Down = true })
	await("en0 has it again", func(e LinkEvent) bool { return e.Interface == "en0" && e.Carrier })
	await("en1 is down", func(e LinkEvent) bool { return e.Interface == "en1" && !e.Up })
	m.change(func(w *fake.World) { w.Run.Interfaces = w.Run.Interfaces[:2] })
	await("en2 is gone", func(e LinkEvent) bool { return e.Interface == "en2" && !e.Present })
}

func TestErrorLog(t *testing.T) {
	m := machines(t, 1)[0]
	if err := m.sys.LogError(t.Context(), strings.Repeat("holdfast ", 300)); err != nil {
		t.Fatal(err)
	}
	if out := m.must("errpt", "-a", "-j", "AA8AB241"); !strings.Contains(out, "OPMSG") || !strings.Contains(out, "holdfast") {
		t.Error(out)
	}
}

func TestMissingCommands(t *testing.T) {
	m := machines(t, 1)[0]
	m.sys.o.CommandDir = t.TempDir()
	for _, x := range m.sys.Executors() {
		r := map[executor.Kind]executor.Resource{executor.KindServiceIP: ip(0), executor.KindPersistentIP: ip(0), executor.KindVolumeGroup: vg(0),
			executor.KindFileSystem: m.fs(0), executor.KindNFSExport: m.export(0), executor.KindSubsystem: src(0)}[x.Kind()]
		if err := x.Validate(t.Context(), r); err == nil || !strings.Contains(err.Error(), "is not in") {
			t.Errorf("%s: validate: %v", x.Kind(), err)
		}
		if res := x.Probe(t.Context(), r); res.Status != executor.Unknown {
			t.Errorf("%s: probe: %+v", x.Kind(), res)
		}
		if res := x.Stop(t.Context(), r); res.Status == executor.Stopped {
			t.Errorf("%s: stop: %+v", x.Kind(), res)
		}
	}
}
