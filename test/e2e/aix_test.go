//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

// A cluster whose agents use the executors of AIX, on an emulator of AIX's commands (test/fake/aix). Addresses and mounts are
// real ones of the lab; volume groups, ODM and SRC are the emulator's. Nothing in it keeps two nodes off one volume group:
// every varyon and mount is compared, under the storage's own lock, with who has it, and what the lab says about who lived then
// decides whether it was an overlap.

// An aixWorld is a world with the emulator.
type aixWorld struct {
	*world
	cfg    fake.Config // as seen from outside: only Shared can be used
	stop   context.CancelFunc
	nurses sync.WaitGroup
	looks  int
}

const (
	aixVG  = "datavg"
	aixDev = "/dev/datalv"
)

// beginAIX starts the lab, installs the emulator, and forms the cluster.
func beginAIX(t *testing.T, s setup) *aixWorld {
	t.Helper()
	s.bare, s.system, s.commandDir, s.notExclusive = true, "aix", "/shared/aix/bin", "/shared/aix/storage/"
	w := &aixWorld{world: begin(t, s)}
	w.cfg = fake.Config{Shared: w.SharedPath("aix/storage")}
	w.install()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	t.Cleanup(func() { cancel(); w.nurses.Wait() })
	for _, n := range w.nodes {
		w.nurses.Go(func() { w.nurse(ctx, n) })
	}
	w.nurses.Go(func() { w.watchStorage(ctx) })
	w.formAIX()
	return w
}

// install puts the emulator where the nodes find it, and makes the shared storage and each node's ODM.
func (w *aixWorld) install() {
	t := w.t
	t.Helper()
	dir := w.SharedPath("aix")
	check(t, os.MkdirAll(dir, 0o755))
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "aixemu"), "../fake/aix/aixemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the emulator: %v: %s", err, out)
	}
	inside := fake.Config{Shared: "/shared/aix/storage", ODM: "/var/lib/holdfast/aix", Run: "/run/holdfast/aix", Real: true,
		BootFile: "/run/holdfast/boot_id"}
	check(t, fake.Install(filepath.Join(dir, "bin"), "/shared/aix/aixemu", inside))
	for i, n := range w.nodes {
		cfg := fake.Config{Node: n, Shared: w.cfg.Shared, ODM: w.NodePath(n, "lib", "aix"), Run: filepath.Join(t.TempDir(), n)}
		check(t, fake.Change(cfg, func(x *fake.World) { w.furnish(x, i) }))
	}
}

func (w *aixWorld) furnish(x *fake.World, shift int) {
	const id = "00f6f42a00004c000000017a0bd88942"
	if x.Shared.Groups[id] == nil {
		x.Shared.Groups[id] = &fake.Group{Name: aixVG, ID: id, Timestamp: "61a5f0c81c2e7f3a", Quorum: true,
			Volumes: map[string]*fake.Volume{"loglv": {Type: "jfs2log"}, "datalv": {Type: "jfs2", Guard: true}}}
	}
	for d := range 2 {
		pvid := fmt.Sprintf("00f6f42a8bd9ee%02x", d)
		x.Shared.Disks[pvid] = &fake.Disk{Group: id, Policy: "no_reserve"}
		x.ODM.Disks[fmt.Sprintf("hdisk%d", 1+shift+d)] = pvid // another number on each node
	}
	if shift != 1 { // the second node does not know it yet
		x.ODM.Groups[aixVG] = &fake.Known{ID: id, Timestamp: "61a5f0c81c2e7f3a", Major: 40, Volumes: []string{"datalv", "loglv"}}
	}
	x.ODM.Subsystems["app"] = &fake.Subsystem{Group: "apps", Path: program("cllab"), Signals: true, Wait: 2,
		Args: "app run --data /app/data --listen " + target, Stdout: "/run/app.out", Stderr: "/run/app.out"}
}

// nurse keeps the master of the subsystems running on a node, over its boots.
func (w *aixWorld) nurse(ctx context.Context, node string) {
	for ctx.Err() == nil {
		_, _ = w.Exec(ctx, node, []string{"/shared/aix/aixemu", "srcmstr", "/shared/aix/bin"}, lab.ExecOptions{})
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // the node is down, or just booting
		}
	}
}

// watchStorage looks at what the storage says, many times a second: no volume group may be on in two living boots.
func (w *aixWorld) watchStorage(ctx context.Context) {
	for ctx.Err() == nil {
		st, err := w.Lab.Status(ctx)
		if err != nil {
			return
		}
		boots := map[string]bool{}
		for _, n := range st.Nodes {
			if n.State == lab.StateUp {
				boots[n.BootID] = true
			}
		}
		var s fake.Shared
		text, err := os.ReadFile(filepath.Join(w.cfg.Shared, "shared.json"))
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err == nil {
			w.looks++
			for _, g := range s.Groups {
				var on []string
				for n, boot := range g.On {
					if boots[boot] {
						on = append(on, n)
					}
				}
				if len(on) > 1 {
					w.t.Errorf("OVERLAP: volume group %s is varied on by %v at once", g.Name, on)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// formAIX founds the cluster and brings its group online.
func (w *aixWorld) formAIX() {
	t := w.t
	t.Helper()
	check(t, os.WriteFile(w.SharedPath("cluster.yaml"), []byte(w.aixDefinition()), 0o644))
	w.await("the agents answer", func() string {
		for _, n := range w.nodes {
			if _, err := w.status(n); err != nil {
				return err.Error()
			}
		}
		return ""
	})
	var founded struct {
		Tokens []struct{ Node, Token string }
	}
	check(t, json.Unmarshal([]byte(w.clmgr("node1", "-o", "json", "add", "cluster", "FILE=/shared/cluster.yaml")), &founded))
	for _, tok := range founded.Tokens {
		w.clmgr(tok.Node, "join", "cluster", "TOKEN="+tok.Token)
	}
	w.clmgr("node1", "online", "cluster")
	w.onlineOn(group, "node1")
}

func (w *aixWorld) aixDefinition() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("name: aixlab\nnodes:\n")
	for i, n := range w.nodes {
		var addrs []string
		for k := 1; k <= w.setup.networks; k++ {
			addrs = append(addrs, fmt.Sprintf("net%d: 10.77.%d.%d/24", k, k, i+1))
		}
		p("  - {name: %s, addresses: {%s}}\n", n, strings.Join(addrs, ", "))
	}
	p("networks:\n")
	for k := 1; k <= w.setup.networks; k++ {
		p("  - {name: net%d, prefix: 24}\n", k)
	}
	p("service_ips: [{name: app_svc, address: %s, network: net1}]\n", service)
	p("persistent_ips: [{name: n2_per, address: 10.77.1.90, node: node2, network: net1}]\n")
	p("volume_groups: [{name: %s, physical_volumes: [00f6f42a8bd9ee00, 00f6f42a8bd9ee01]}]\n", aixVG)
	p("file_systems: [{name: app_fs, device: %s, mount_point: /app, stop_timeout: 2s}]\n", aixDev)
	p("nfs_exports: [{name: app_exp, directory: /app, clients: [10.77.1.50], options: rw}]\n")
	p("application_controllers: [{name: app, agent: \"src:app\", start_timeout: 20s, stop_timeout: 10s}]\n")
	p("resource_groups: [{name: %s, nodes: %s, startup: OHN, fallover: FNPN, fallback: NFB, service_ips: [app_svc], volume_groups: [%s], file_systems: [app_fs], "+
		"nfs_exports: [app_exp], applications: [app], vg_auto_import: true}]\n", group, flow(w.nodes), aixVG)
	if w.setup.fence {
		p("fence_devices: [{name: power, agent: %s, nodes: %s, timeout: 5s}]\n", program("fence_cllab"), flow(w.nodes))
	}
	p("settings: {profile: %s}\n", w.setup.profile)
	return b.String()
}

// storage changes the shared storage and a node's state from outside.
func (w *aixWorld) storage(node string, f func(x *fake.World)) {
	w.t.Helper()
	check(w.t, fake.Change(fake.Config{Node: node, Shared: w.cfg.Shared, ODM: w.NodePath(node, "lib", "aix"), Run: w.NodePath(node, "run", "aix")}, f))
}

// emulated runs one of the emulated commands in a node.
func (w *aixWorld) emulated(node, name string, args ...string) string {
	w.t.Helper()
	return w.must(node, append([]string{"/shared/aix/bin/" + name}, args...)...)
}

// complete looks that everything of the group is on the node, in the emulator's eyes.
func (w *aixWorld) complete(node string) {
	w.t.Helper()
	for _, c := range []struct{ name, args, want string }{{"lsvg", "-o", aixVG}, {"mount", "", aixDev}, {"exportfs", "", "/app -rw,access=10.77.1.50"},
		{"ifconfig", "-a", "inet " + service + " "}, {"lssrc", "-s app", "active"}} {
		if out := w.emulated(node, c.name, strings.Fields(c.args)...); !strings.Contains(out, c.want) {
			w.t.Errorf("%s: %s %s does not show %q:\n%s", node, c.name, c.args, c.want, out)
		}
	}
	for _, n := range w.up() {
		if n != node {
			if out := w.emulated(n, "lsvg", "-o"); strings.Contains(out, aixVG) {
				w.t.Errorf("%s is varied on on %s too", aixVG, n)
			}
		}
	}
}

// judgeStorage takes what the storage noted itself, and asks the lab's events who lived then.
func (w *aixWorld) judgeStorage() {
	w.t.Helper()
	w.stop()
	w.nurses.Wait()
	var s fake.Shared
	text, err := os.ReadFile(filepath.Join(w.cfg.Shared, "shared.json"))
	check(w.t, err)
	check(w.t, json.Unmarshal(text, &s))
	st, err := w.Lab.Status(w.ctx())
	check(w.t, err)
	crashes := 0
	for _, line := range s.Overlaps {
		if w.stillLived(line, st.Events) {
			w.t.Errorf("OVERLAP: %s", line)
		} else {
			crashes++
		}
	}
	journal, _ := os.ReadFile(filepath.Join(w.cfg.Shared, "journal"))
	w.t.Logf("storage: %d looks, %d varyons, %d take-overs from boots that had ended, and no overlap", w.looks,
		strings.Count(string(journal), " varyon "), crashes)
	if w.looks < 50 {
		w.t.Errorf("the storage was looked at only %d times", w.looks)
	}
}

// stillLived: "TIME volume group datavg is varied on by node2 (boot B) while node1 (boot A) has it".
func (w *aixWorld) stillLived(line string, events []lab.Event) bool {
	f := strings.Fields(line)
	at, err := time.Parse(time.RFC3339Nano, f[0])
	check(w.t, err)
	i := slices.Index(f, "while")
	node, boot := f[i+1], strings.TrimSuffix(f[i+3], ")")
	up := false
	for _, e := range events {
		switch {
		case e.Node != node:
		case e.Kind == "up" && strings.Contains(e.Detail, boot[:8]):
			up = true
		case up && slices.Contains([]string{"crash", "reset", "power_off"}, e.Kind):
			return at.Before(e.Time.Add(e.Took))
		}
	}
	return true
}

func TestAIXClusterOnTheEmulator(t *testing.T) {
	long(t)
	w := beginAIX(t, setup{networks: 2, fence: true, profile: "default"})
	w.complete("node1")
	w.ask()
	// Planned moves: to a node that must import the volume group first, and on.
	for _, to := range []string{"node2", "node3", "node1"} {
		w.place(to)
		w.complete(to)
	}
	if out := w.emulated("node2", "lsvg"); !strings.Contains(out, aixVG) {
		t.Errorf("node2 did not import the volume group: %s", out)
	}
	if out := w.emulated("node2", "ifconfig", "-a"); !strings.Contains(out, "inet 10.77.1.90 ") {
		t.Errorf("the persistent address is not on node2:\n%s", out)
	}

	t.Run("crash", func(t *testing.T) {
		w.whole()
		check(t, w.Crash(w.ctx(), "node1"))
		to := w.elsewhere("node1")
		w.answersFrom(to)
		w.complete(to)
		check(t, w.Boot(w.ctx(), "node1"))
		w.whole()
	})

	t.Run("locked volume group", func(t *testing.T) {
		from := w.online(group)
		to := w.other(from)
		w.storage(to, func(x *fake.World) { x.ODM.Locks[aixVG] = &fake.Lock{Command: "varyonvg"} })
		w.place(to) // the lock of a dead command is cleared
		w.complete(to)
		// One that is held by a command at work is not: the group goes on to the third node.
		third := w.other(to)
		w.storage(third, func(x *fake.World) {
			x.ODM.Locks[aixVG] = &fake.Lock{Command: "reorgvg"}
			x.Run.LVM = []string{"reorgvg"}
		})
		since := w.lastEvent()
		w.run("node1", "clmgr", "move", "resource_group", group, "NODE="+third)
		on := w.elsewhere(third)
		w.complete(on)
		if !slices.ContainsFunc(w.events(since), func(e api.Event) bool { return strings.Contains(e.Sentence, "reorgvg is at work") }) {
			t.Errorf("the cause is not in the history: %v", w.events(since))
		}
		if out := w.emulated(third, "errpt", "-a", "-j", "AA8AB241"); !strings.Contains(out, "could not be acquired on node "+third) {
			t.Errorf("the failure is not in the error log of %s: %s", third, out)
		}
		w.storage(third, func(x *fake.World) { delete(x.ODM.Locks, aixVG); x.Run.LVM = nil })
	})

	t.Run("busy file system", func(t *testing.T) {
		from := w.online(group)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { // an administrator's shell in /app
			defer close(done)
			_, _ = w.Exec(ctx, from, []string{"/bin/sleep", "600"}, lab.ExecOptions{Dir: "/app"})
		}()
		w.await("the shell is in /app", func() string {
			if out := w.run(from, "/shared/aix/bin/fuser", "-xuc", "/app"); strings.Count(out.Stdout, " ") < 2 {
				return "fuser does not see it: " + out.Stdout
			}
			return ""
		})
		to := w.other(from)
		w.place(to)
		w.complete(to)
		<-done // it was killed
	})

	t.Run("lost NIC", func(t *testing.T) {
		w.whole()
		from := w.online(group)
		since := w.lastEvent()
		check(t, w.Unplug(w.ctx(), from, "net1"))
		to := w.elsewhere(from)
		w.answersFrom(to)
		w.complete(to)
		check(t, w.Heal(w.ctx(), from))
		w.happened(since, "network_up", from) // interfaces are looked at every 2 s only
		w.whole()
	})

	t.Run("lost network", func(t *testing.T) { // of all nodes: nobody can do better, so nothing moves
		w.whole()
		on := w.online(group)
		since := w.lastEvent()
		for _, n := range w.nodes { // the holder last, or it would rightly move while another still has the network
			if n != on {
				check(t, w.Unplug(w.ctx(), n, "net1"))
				w.happened(since, "network_down", n)
			}
		}
		check(t, w.Unplug(w.ctx(), on, "net1"))
		w.happened(since, "network_down", on)
		time.Sleep(5 * time.Second) // in which nothing is to happen
		if now := w.online(group); now != on {
			t.Errorf("the group moved from %s to %s although no node has the network", on, now)
		}
		since = w.lastEvent()
		for _, n := range w.nodes {
			check(t, w.Heal(w.ctx(), n))
		}
		for _, n := range w.nodes {
			w.happened(since, "network_up", n)
		}
		w.whole()
		w.answersFrom(w.online(group))
	})

	t.Run("isolated node", func(t *testing.T) { // both networks of the holder
		w.whole()
		from := w.online(group)
		check(t, w.Cut(w.ctx(), from, "", lab.Both))
		to := w.elsewhere(from)
		w.answersFrom(to)
		check(t, w.Heal(w.ctx(), from))
		w.complete(to)
	})

	w.outages()
	if moves := w.loserFirst(); moves < 8 {
		t.Errorf("the watcher saw only %d moves", moves)
	}
	w.judgeStorage()
}

// The judge of the storage's notes can tell a living holder from one that had ended.
func TestStillLived(t *testing.T) {
	w := &aixWorld{world: &world{t: t}}
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	events := []lab.Event{{Time: begin, Node: "node1", Kind: "up", Detail: "boot 0123abcd"}, {Time: begin, Node: "node2", Kind: "reset"},
		{Time: begin.Add(10 * time.Second), Node: "node1", Kind: "crash", Took: time.Second}, {Time: begin.Add(20 * time.Second), Node: "node1", Kind: "up", Detail: "boot 4567abcd"}}
	for boot, ends := range map[string]time.Duration{"0123abcd-9": 11 * time.Second, "4567abcd-9": time.Hour, "89efabcd-9": time.Hour} {
		for _, after := range []time.Duration{time.Second, 10500 * time.Millisecond, 11 * time.Second, 30 * time.Second} {
			line := begin.Add(after).Format(time.RFC3339Nano) + " volume group datavg is varied on by node2 (boot x) while node1 (boot " + boot + ") has it"
			if got := w.stillLived(line, events); got != (after < ends) {
				t.Errorf("%s after %v: %v", boot, after, got)
			}
		}
	}
}
