package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/sim"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A glassBench is node n1 with no daemon, in a simulated world.
type glassBench struct {
	t     *testing.T
	dir   string
	world *sim.World
	o     GlassOptions
	out   bytes.Buffer

	ctx    context.Context // of the command
	cancel func()
}

func newGlassBench(t *testing.T, definition string) *glassBench {
	t.Helper()
	b := &glassBench{t: t, dir: t.TempDir(), ctx: t.Context()}
	var err error
	if b.world, err = sim.NewWorld(""); err != nil {
		t.Fatal(err)
	}
	node, err := config.DecodeNode("node", fmt.Appendf(nil, "name: n1\nstate_dir: %s/state\nrun_dir: %s/run\nlog_dir: %s/log\ndeadman: {backend: none}\n",
		b.dir, b.dir, b.dir))
	if err != nil {
		t.Fatal(err)
	}
	b.o = GlassOptions{Options: Options{Node: node, Version: "test", Logger: testLog(), Clock: testClock{}, BootID: "boot1", Executors: b.world.Registry("n1")},
		Group: "g", Out: &b.out, By: "root", dial: func(context.Context, string) error { return errors.New("no route to host") }}
	if definition != "" {
		d, err := config.DecodeCluster("test", []byte(definition))
		if err != nil {
			t.Fatal(err)
		}
		b.know(d)
	}
	return b
}

// know makes the definition what this node knew last.
func (b *glassBench) know(d *cluster.Definition) {
	b.t.Helper()
	m := &member{name: "n1", opt: &b.o.Options, log: testLog(), clock: testClock{}, mail: newMailbox()}
	view := state.New()
	view.Definition, view.DefinitionVersion, view.Index = d, 7, 99
	view.Groups = map[string]*state.Group{"g": {Generation: 5}}
	view.Nodes = map[string]*state.Node{}
	for _, n := range []string{"n2", "b"} { // all others have never been seen
		view.Nodes[n] = &state.Node{Name: n, Armed: &lease.Armed{Node: n, Class: lease.Independent, Mode: lease.ModeReset, Watchdog: 20 * time.Second}}
	}
	if err := os.MkdirAll(b.o.Node.StateDir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	m.keepLastKnown(view, m.clock.Now())
	m.work.Wait()
	if e, ok := m.mail.list[0].(knownKept); !ok || e.err != nil {
		b.t.Fatalf("%+v", m.mail.list)
	}
}

func (b *glassBench) start() error {
	b.t.Helper()
	b.out.Reset()
	return BreakGlassStart(b.ctx, b.o)
}

func (b *glassBench) stop() error {
	b.t.Helper()
	b.out.Reset()
	return BreakGlassStop(b.ctx, b.o)
}

// held lists what n1 holds in the world, in the order of the definition.
func (b *glassBench) held() string {
	b.t.Helper()
	var out []string
	for _, r := range []struct {
		kind executor.Kind
		name string
	}{{executor.KindServiceIP, "ip"}, {executor.KindServiceIP, "ip2"}, {executor.KindFileSystem, "fs"}, {executor.KindApplication, "app"}} {
		who, err := b.world.Holders(r.kind, r.name)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(who) > 0 {
			out = append(out, r.name)
		}
	}
	return strings.Join(out, " ")
}

func (b *glassBench) marks() []*glassMark {
	b.t.Helper()
	marks, err := loadMarks(b.o.Node.StateDir)
	if err != nil {
		b.t.Fatal(err)
	}
	return marks
}

// daemon starts the daemon as far as the marks: nil means that they do not keep it from starting.
func (b *glassBench) daemon(boot string) error {
	b.t.Helper()
	o := b.o.Options
	o.BootID = boot
	a, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return a.refuseBehindGlass()
}

// said checks that the words were printed, in this order.
func (b *glassBench) said(words ...string) {
	b.t.Helper()
	rest := b.out.String()
	for _, w := range words {
		at := strings.Index(rest, w)
		if at < 0 {
			b.t.Fatalf("%q is not said, or not in its turn:\n%s", w, b.out.String())
		}
		rest = rest[at+len(w):]
	}
}

func refusedWith(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, ErrGlassRefused) {
		t.Fatalf("%v is no refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("%q does not say %q", err, w)
		}
	}
}

// A start takes the steps in the daemon's order, keeps the daemon of this boot out, and a stop releases in reverse.
func TestBreakGlassStartAndStop(t *testing.T) {
	b := newGlassBench(t, testCluster)
	b.o.Confirm = "g n3 n2"
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if got := b.held(); got != "ip ip2 fs app" {
		t.Errorf("held: %s", got)
	}
	b.said("version 7", "log index 99", "interface lo", "not checked: node n2", "not checked: node n3", "no repository volume", "service_ip ip ",
		"service_ip ip2", "file_system fs", "application app", "is started on node n1")
	if k := b.marks(); len(k) != 1 || k[0].State != glassRunning || k[0].Generation != 5 || strings.Join(k[0].Begin, ",") !=
		"service_ip ip,service_ip ip2,file_system fs,application app" {
		t.Errorf("marks: %+v", k)
	}
	err := b.daemon("boot1")
	if !errors.Is(err, ErrBreakGlass) || !NeedsAdministrator(err) || !strings.Contains(err.Error(), "clmgr stop resource_group g --break-glass") {
		t.Errorf("the daemon starts: %v", err)
	}
	refusedWith(t, b.start(), "already")

	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b.said("application app", "file_system fs", "service_ip ip2", "service_ip ip ", "is released")
	if got := b.held(); got != "" || len(b.marks()) != 0 {
		t.Errorf("held after the stop: %s, %d marks", got, len(b.marks()))
	}
	if err := b.daemon("boot1"); err != nil {
		t.Error(err)
	}
	stones, err := executor.OpenTombstones(filepath.Join(b.o.Node.StateDir, "tombstones"))
	if err != nil || !stones.Has("g", 5) || stones.Has("g", 6) {
		t.Errorf("tombstones: %v, %v", stones.Highest(), err)
	}
	refusedWith(t, b.stop(), "not held here")
	audit, err := os.ReadFile(filepath.Join(b.o.Node.LogDir, "adm", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{`"result":"begun"`, `"result":"done"`, `"result":"refused"`, "declared dead: n2, n3", `"user":"root"`} {
		if !strings.Contains(string(audit), w) {
			t.Errorf("the record lacks %s:\n%s", w, audit)
		}
	}
}

// Whatever is refused changes nothing.
func TestBreakGlassRefusals(t *testing.T) {
	good := "g n2 n3"
	refuse := func(what string, set func(b *glassBench), words ...string) {
		t.Run(what, func(t *testing.T) {
			b := newGlassBench(t, testCluster)
			b.o.Confirm = good
			set(b)
			refusedWith(t, b.start(), words...)
			if b.held() != "" || len(b.marks()) != 0 {
				t.Errorf("held: %s, %d marks", b.held(), len(b.marks()))
			}
		})
	}
	refuse("nobody to ask", func(b *glassBench) { b.o.Confirm = "" }, `CONFIRM="g n2 n3"`)
	for _, c := range []string{"n2 n3", "g", "g n2", "g n2 n3 n1", "h n2 n3", "g n2 n2", "yes"} {
		refuse("confirmation "+c, func(b *glassBench) { b.o.Confirm = c }, "does not name", "n2, n3")
	}
	refuse("typed wrong", func(b *glassBench) { b.o.Confirm, b.o.Ask = "", strings.NewReader("yes\n") }, "does not name")
	refuse("nothing typed", func(b *glassBench) { b.o.Confirm, b.o.Ask = "", strings.NewReader("") }, "nothing was typed")
	refuse("unknown group", func(b *glassBench) { b.o.Group = "nope" }, "no resource group nope")
	refuse("another path as a group", func(b *glassBench) { b.o.Group = "../x" }, "cannot be called")
	refuse("another node's group", func(b *glassBench) { b.o.Group = "h" }, "not for node n1")
	refuse("another node answers", func(b *glassBench) {
		b.o.dial = func(_ context.Context, a string) error {
			if a == "10.1.0.3:6191" {
				return nil
			}
			return errors.New("no route to host")
		}
	}, "node n3 is alive", "10.1.0.3:6191")
	refuse("the daemon runs", func(b *glassBench) {
		release, err := HoldMachine(b.o.Node)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(release)
	}, "is running", "stop the daemon first")
	refuse("the deadman runs", func(b *glassBench) {
		b.o.Node.Deadman = config.Deadman{Backend: config.BackendLab, Socket: filepath.Join(b.dir, "deadman.sock")}
		l, err := net.Listen("unix", b.o.Node.Deadman.Socket)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { l.Close() })
	}, "the deadman of this node runs")
	refuse("nothing is known", func(b *glassBench) {
		if err := os.Remove(lastKnownFile(b.o.Node.StateDir)); err != nil {
			b.t.Fatal(err)
		}
	}, "give a cluster file with -f")
	refuse("interrupted at the question", func(b *glassBench) {
		r, w := io.Pipe()
		b.t.Cleanup(func() { w.Close() })
		b.o.Confirm, b.o.Ask = "", r
		b.ctx, b.cancel = context.WithCancel(b.t.Context())
		b.o.dial = func(context.Context, string) error { b.cancel(); return errors.New("no route to host") }
	}, "nothing was typed")
	refuse("what is known is damaged", func(b *glassBench) {
		if err := os.WriteFile(lastKnownFile(b.o.Node.StateDir), []byte(`{"format":1,"defin`), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}, "give a cluster file with -f")
}

// A cluster file does where nothing is known; a machine that answers without a daemon is told.
func TestBreakGlassByFile(t *testing.T) {
	b := newGlassBench(t, "")
	b.o.File, b.o.Confirm = filepath.Join(b.dir, "cluster.yaml"), "g n2 n3"
	b.o.dial = func(context.Context, string) error { return fmt.Errorf("dial: %w", syscall.ECONNREFUSED) }
	if err := os.WriteFile(b.o.File, []byte(testCluster), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	b.said("the cluster file "+b.o.File, "the machine of node n2 is up (no daemon listens", "is started")
	b.o.File = "" // the mark says what was started
	if err := b.stop(); err != nil || b.held() != "" {
		t.Errorf("held: %s, %v", b.held(), err)
	}
}

// A step that fails undoes those before it, in reverse; what cannot be undone keeps the mark.
func TestBreakGlassUndo(t *testing.T) {
	b := newGlassBench(t, testCluster)
	b.o.Confirm = "g n2 n3"
	b.world.Inject(sim.Fault{Resource: "app", Op: sim.OpStart, Err: errors.New("no licence"), Times: 1})
	err := b.start()
	if err == nil || errors.Is(err, ErrGlassRefused) || !strings.Contains(err.Error(), "no licence") || !strings.Contains(err.Error(), "stopped again") {
		t.Fatal(err)
	}
	b.said("application app: FAILED", "application app: stopped", "file_system fs", "service_ip ip2", "service_ip ip ")
	if b.held() != "" || len(b.marks()) != 0 || b.daemon("boot1") != nil {
		t.Errorf("held: %s, %d marks", b.held(), len(b.marks()))
	}

	b.world.Inject(sim.Fault{Resource: "app", Op: sim.OpStart, Err: errors.New("no licence"), Times: 1})
	clear := b.world.Inject(sim.Fault{Resource: "fs", Op: sim.OpStop, Err: errors.New("busy")})
	if err := b.start(); err == nil || !strings.Contains(err.Error(), "busy") || !strings.Contains(err.Error(), "--break-glass") {
		t.Fatal(err)
	}
	if k := b.marks(); b.held() != "ip ip2 fs" || len(k) != 1 || k[0].State != glassFailed || !errors.Is(b.daemon("boot1"), ErrBreakGlass) {
		t.Errorf("held: %s, marks %+v", b.held(), k)
	}
	if err := b.stop(); err == nil || len(b.marks()) != 1 || b.held() != "ip ip2 fs" {
		t.Errorf("a stop that fails: %v, held: %s", err, b.held())
	}
	clear()
	if err := b.stop(); err != nil || b.held() != "" || len(b.marks()) != 0 {
		t.Errorf("the stop afterwards: %v, held: %s", err, b.held())
	}
}

// At a terminal each step is asked for; what ran already is kept, by the undoing too.
func TestBreakGlassAsks(t *testing.T) {
	b := newGlassBench(t, testCluster)
	b.o.Ask = strings.NewReader("g n2 n3\ny\nyes\nn\n")
	if r := b.world.Executor(executor.KindServiceIP, "n1").Start(t.Context(), executor.Resource{Kind: executor.KindServiceIP, Name: "ip2"}); r.Err != nil {
		t.Fatal(r.Err)
	}
	err := b.start()
	if err == nil || !strings.Contains(err.Error(), "application app was not wanted") {
		t.Fatal(err)
	}
	b.said(`type "g n2 n3"`, "start service_ip ip ", "started", "service_ip ip2", "runs already", "start file_system fs", "start application app?",
		"is stopped again", "file_system fs", "service_ip ip ")
	if b.held() != "ip2" || len(b.marks()) != 0 {
		t.Errorf("held: %s, %d marks", b.held(), len(b.marks()))
	}
}

// A mark of an earlier boot is over; one that cannot be read keeps the daemon out.
func TestMarksOfBreakGlass(t *testing.T) {
	b := newGlassBench(t, testCluster)
	b.o.Confirm = "g n2 n3"
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	path := glassFile(b.o.Node.StateDir, "g")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", strings.Replace(string(whole), `"format": 1`, `"format": 2`, 1), strings.Replace(string(whole), `"group": "g"`, `"group": "h"`, 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.daemon("boot1"); !errors.Is(err, ErrBreakGlass) {
			t.Errorf("the daemon starts beside the mark %.40q: %v", bad, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.daemon("boot2"); err != nil || len(b.marks()) != 0 {
		t.Errorf("a mark of another boot: %v, %d marks", err, len(b.marks()))
	}
}

const glassTwo = `
name: test
nodes:
  - {name: a, addresses: {net1: 10.1.0.1/24}}
  - {name: b, addresses: {net1: 10.1.0.2/24}}
networks: [{name: net1}]
service_ips: [{name: ip, address: 10.1.0.9, network: net1}]
resource_groups: [{name: g, nodes: [a, b], service_ips: [ip]}]
repositories: [{name: repo, device: /dev/repo}]
`

// The volume is watched for as long as a lease may run: a heartbeat in that time refuses, and so does a volume that cannot be read, without
// another word. What is held is told on it, and the other node's daemon believes it.
func TestBreakGlassVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, other, clock := diskPair(t)
		b := newGlassBench(t, glassTwo)
		b.o.Node.Name, b.o.Clock, b.o.Confirm = "a", clock, "g b"
		b.o.Executors = b.world.Registry("a")
		_, err := identity.NewCluster(filepath.Join(b.o.Node.StateDir, "identity"), "test", "a")
		if err != nil {
			t.Fatal(err)
		}
		run(t, 3*time.Second, a, other)
		a.vol.Close()
		handle := a.handle
		b.o.OpenVolume = func(o repository.Options) (*repository.Volume, error) {
			o.Cluster, o.Authority, o.Device, o.Size = testVolumeCluster, repositorytest.Authority("a"), handle, repository.MinLabSize
			return repository.Open(o)
		}

		stop := make(chan struct{})
		beating := make(chan struct{})
		go func() { // b lives: 25 s of standing still would be needed, and it writes once in that time
			defer close(beating)
			select {
			case <-time.After(15 * time.Second):
				if err := other.vol.WriteBeat(repository.Beat{Boot: "b/1"}); err != nil {
					t.Error(err)
				}
			case <-stop:
			}
		}()
		refusedWith(t, b.start(), "node b is alive", "repository volume")
		close(stop)
		<-beating

		handle.Before = func(bool, int64, int) error { return errors.New("input/output error") }
		refusedWith(t, b.start(), "cannot be read", "g b "+WithoutVolume)
		b.o.Confirm += " " + WithoutVolume
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		b.said("cannot be read", "is started")
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		handle.Before = nil

		b.o.Confirm = "g b"
		began := time.Now()
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 20*time.Second {
			t.Errorf("the volume was watched for %v, and the watchdog that b had armed has 20s", took)
		}
		other.glass = nil
		run(t, 200*time.Millisecond, other)
		if got := strings.Join(other.glass, ";"); !strings.HasPrefix(got, "a[g]") {
			t.Errorf("b sees %q", got)
		}
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		other.glass = nil
		run(t, 200*time.Millisecond, other)
		if got := strings.Join(other.glass, ";"); !strings.HasPrefix(got, "a[]") {
			t.Errorf("b sees %q after the release", got)
		}
		// A node that is held by the other's break-glass start is not started here.
		if err := other.vol.WriteBeat(repository.Beat{BreakGlass: []string{"g"}}); err != nil {
			t.Fatal(err)
		}
		refusedWith(t, b.start(), "node b holds group g by a break-glass start")
	})
}

// What the volume shows of another node's break-glass start keeps the group from being started here, and only that group.
func TestGroupHeldByGlassIsNotStarted(t *testing.T) {
	b := newGlassBench(t, testCluster)
	m := &member{name: "n1", log: testLog(), clock: testClock{}, opt: &b.o.Options, executors: b.world.Registry("n1")}
	r, err := executor.NewRunner(executor.RunnerOptions{Dir: filepath.Join(b.dir, "runner"), Node: "n1", BootID: "boot1", CgroupRoot: "none"})
	if err != nil {
		t.Fatal(err)
	}
	m.runner = r
	if m.tombstones, err = executor.OpenTombstones(filepath.Join(b.dir, "tombstones")); err != nil {
		t.Fatal(err)
	}
	m.disk.init(0)
	m.fsm = newFSM(m.log, func() {}, func(string) {})
	d := testDefinition(t)
	d.Repositories = []cluster.Repository{{Name: "repo", Device: "/dev/repo", UUID: "u"}}
	view := state.New()
	view.Definition = d
	m.fsm.newest.Store(view)
	m.disk.sawGlass("n2", []string{"g"})
	m.disk.wasRead()
	for _, c := range []struct {
		held    []string
		outcome state.Outcome
		want    string
	}{{[]string{"g"}, state.OutcomeAcquireFailed, ""}, {[]string{"h"}, state.OutcomeOnline, "ip ip2 fs app"}, {nil, state.OutcomeOnline, "ip ip2 fs app"}} {
		m.disk.sawGlass("n2", c.held)
		tgt, err := m.target(d, "g", 9)
		if err != nil {
			t.Fatal(err)
		}
		got := m.startGroup(t.Context(), tgt)
		if got.outcome != c.outcome || b.held() != c.want {
			t.Errorf("with %v held by n2: %s (%s), held: %s", c.held, got.outcome, got.sentence, b.held())
		}
		if len(c.held) > 0 && c.held[0] == "g" && !strings.Contains(got.sentence, "node n2 holds group g by a break-glass start") {
			t.Errorf("why: %s", got.sentence)
		}
	}
}
