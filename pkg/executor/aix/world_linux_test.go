package aix

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

// The test's own program is the emulator, when it is called by a command's name.
func TestMain(m *testing.M) {
	if fake.Called(os.Args[0]) {
		os.Exit(fake.Main(os.Args))
	}
	if dir := os.Getenv("HOLDFAST_TEST_SRCMSTR"); dir != "" {
		os.Exit(fake.Master(dir))
	}
	status := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

// built is the directory of an emulator that was built for this run.
var built string

// underRace: the race detector makes every program wait for a second when it ends, and the emulator's commands are many.
var underRace bool

// emulator is the program that plays the commands: this one, or under the race detector one that is built without it.
var emulator = sync.OnceValues(func() (string, error) {
	if !underRace {
		return os.Executable()
	}
	dir, err := os.MkdirTemp("", "aixemu")
	if err != nil {
		return "", err
	}
	built = dir
	build := exec.Command("go", "build", "-o", dir, "../../../test/fake/aix/aixemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the emulator: %w: %s", err, out)
	}
	return filepath.Join(dir, "aixemu"), nil
})

// A machine is one emulated node.
type machine struct {
	t   *testing.T
	cfg fake.Config
	dir string // of the commands
	sys *System
	run *executor.Runner
}

// pvid is the nth shared disk's identifier.
func pvid(n int) string { return fmt.Sprintf("00f6f42a8bd9ee%02x", n) }

// machines makes emulated nodes that share storage: volume groups vg0 to vg3, each of two disks, with a log and a file system.
// Disks have another number on each node.
func machines(t *testing.T, n int) []*machine {
	t.Helper()
	self, err := emulator()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var out []*machine
	for i := range n {
		name := fmt.Sprintf("node%d", i+1)
		m := &machine{t: t, dir: filepath.Join(root, name, "bin"), cfg: fake.Config{Node: name, Shared: filepath.Join(root, "shared"),
			ODM: filepath.Join(root, name, "odm"), Run: filepath.Join(root, name, "run")}}
		if err := fake.Install(m.dir, self, m.cfg); err != nil {
			t.Fatal(err)
		}
		m.run = executortest.Runner(t, "none")
		m.sys = New(Options{Runner: m.run, CommandDir: m.dir, LockTimeout: 300 * time.Millisecond, ProbeWait: time.Millisecond,
			WatchEvery: 20 * time.Millisecond, Poke: func(netip.Addr) {}})
		out = append(out, m)
	}
	out[0].change(func(w *fake.World) { storage(w.Shared) })
	for i, m := range out {
		m.change(func(w *fake.World) { odm(w, i) })
	}
	return out
}

func storage(s *fake.Shared) {
	for g := range 4 {
		id := fmt.Sprintf("00f6f42a00004c000000017a0bd8894%d", g)
		s.Groups[id] = &fake.Group{Name: fmt.Sprintf("vg%d", g), ID: id, Timestamp: "61a5f0c81c2e7f3a", Quorum: true, Volumes: map[string]*fake.Volume{
			fmt.Sprintf("log%d", g): {Type: "jfs2log"}, fmt.Sprintf("lv%d", g): {Type: "jfs2"}}}
		for d := range 2 {
			s.Disks[pvid(2*g+d)] = &fake.Disk{Group: id, Policy: "no_reserve"}
		}
	}
}

func odm(w *fake.World, shift int) {
	for d := range 8 {
		w.ODM.Disks[fmt.Sprintf("hdisk%d", 1+shift+d)] = pvid(d)
	}
	for id, g := range w.Shared.Groups {
		w.ODM.Groups[g.Name] = &fake.Known{ID: id, Timestamp: g.Timestamp, Major: 40}
		for lv := range g.Volumes {
			w.ODM.Groups[g.Name].Volumes = append(w.ODM.Groups[g.Name].Volumes, lv)
		}
	}
	w.Run.Interfaces = []*fake.Interface{
		{Name: "en0", Addresses: []string{fmt.Sprintf("10.1.1.%d/24", shift+1)}},
		{Name: "en1", Addresses: []string{fmt.Sprintf("10.1.1.%d/24", shift+21)}, Virtual: true},
		{Name: "en2", Addresses: []string{fmt.Sprintf("10.2.2.%d/24", shift+1), fmt.Sprintf("fd00::%d/64", shift+1)}}}
	for n := range 4 {
		w.ODM.Subsystems[fmt.Sprintf("app%d", n)] = &fake.Subsystem{Group: "apps", Path: "/bin/sleep", Args: "3600", Wait: 1, Signals: true}
	}
}

func (m *machine) change(f func(w *fake.World)) {
	m.t.Helper()
	if err := fake.Change(m.cfg, f); err != nil {
		m.t.Fatal(err)
	}
}

// see reads the state.
func see[T any](m *machine, f func(w *fake.World) T) T {
	var v T
	m.change(func(w *fake.World) { v = f(w) })
	return v
}

func (m *machine) fault(f fake.Fault) {
	m.change(func(w *fake.World) { w.Run.Faults = append(w.Run.Faults, &f) })
}

// command runs an emulated command by hand.
func (m *machine) command(name string, args ...string) (string, error) {
	m.t.Helper()
	out, err := exec.Command(filepath.Join(m.dir, name), args...).CombinedOutput()
	return string(out), err
}

func (m *machine) must(name string, args ...string) string {
	m.t.Helper()
	out, err := m.command(name, args...)
	if err != nil {
		m.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// master starts the master of the subsystems.
func (m *machine) master() {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_SRCMSTR="+m.dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// reboot is a crash and a boot: what the node had in use stays as it was in the disks, and nobody has it any more.
func (m *machine) reboot() {
	m.change(func(w *fake.World) {
		interfaces := w.Run.Interfaces
		for _, i := range interfaces {
			i.Addresses = i.Addresses[:1]
		}
		for _, g := range w.Shared.Groups {
			delete(g.On, w.Config.Node)
			for _, v := range g.Volumes {
				if v.MountedBy == w.Config.Node {
					v.MountedBy, v.MountBoot = "", ""
				}
			}
		}
		*w.Run = fake.Volatile{Boot: fmt.Sprint(time.Now().UnixNano()), Interfaces: interfaces}
	})
}

func overlaps(m *machine) []string {
	return see(m, func(w *fake.World) []string { return w.Shared.Overlaps })
}

func ip(n int) executor.Resource {
	return executor.Resource{Kind: executor.KindServiceIP, Name: fmt.Sprintf("svc%d", n), Group: "rg", IP: &executor.Address{
		Label: fmt.Sprintf("svc%d", n), Address: fmt.Sprintf("10.1.1.%d", 100+n), Network: "net1", NodeAddress: "10.1.1.1/24"}}
}

func vg(n int) executor.Resource {
	name := fmt.Sprintf("vg%d", n)
	return executor.Resource{Kind: executor.KindVolumeGroup, Name: name, Group: "rg", VolumeGroup: &executor.VolumeGroup{
		VolumeGroup: cluster.VolumeGroup{Name: name, PhysicalVolumes: []string{pvid(2 * n), pvid(2*n + 1)}, Mode: cluster.VolumeGroupExclusive}}}
}

func (m *machine) fs(n int) executor.Resource {
	name := fmt.Sprintf("fs%d", n)
	return executor.Resource{Kind: executor.KindFileSystem, Name: name, Group: "rg", FileSystem: &cluster.FileSystem{
		Name: name, Device: fmt.Sprintf("/dev/lv%d", n), MountPoint: filepath.Join(filepath.Dir(m.dir), "mnt", name), StopTimeout: 2 * time.Second}}
}

func (m *machine) export(n int) executor.Resource {
	name := fmt.Sprintf("exp%d", n)
	return executor.Resource{Kind: executor.KindNFSExport, Name: name, Group: "rg", Export: &cluster.NFSExport{
		Name: name, Directory: fmt.Sprintf("/data%d", n), Clients: []string{"10.1.1.50", "10.1.1.51"}, Options: "rw,sec=sys"}}
}

func src(n int) executor.Resource {
	name := fmt.Sprintf("app%d", n)
	return executor.Resource{Kind: executor.KindSubsystem, Name: name, Group: "rg", App: &cluster.ApplicationController{Name: name,
		Agent: cluster.AgentSRC + name, StartTimeout: 10 * time.Second, StopTimeout: 4 * time.Second}}
}

// mounted reports whether the emulator has it mounted.
func (m *machine) mounted(r executor.Resource) bool {
	return see(m, func(w *fake.World) bool {
		return slices.ContainsFunc(w.Run.Mounts, func(x fake.Mount) bool { return x.Device == r.FileSystem.Device })
	})
}

func (m *machine) variedOn(name string) bool {
	return see(m, func(w *fake.World) bool { s := w.Run.On[name]; return s == "active" || s == "concurrent" })
}
