//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

var (
	crashes   = flag.Int("crashes", 30, "TestHundredCrashes: how many crashes in a row")
	kills     = flag.Int("kills", 50, "TestAgentKilledFiftyTimes: how many")
	flapFor   = flag.Duration("flap", 2*time.Minute, "TestFlappingCut: how long the link goes up and down")
	labPrefix = flag.String("lab", "e2e", "beginning of the labs' names")
	binDir    = flag.String("bin", os.Getenv("HOLDFAST_BIN"), "directory of the binaries (default ../../bin)")
)

// The group that most tests run: a service IP, a file system, an application.
const (
	group   = "app_rg"
	service = "10.77.1.100"
	target  = service + ":8080"
)

// patience is how long anything may take before it counts as not happening. It bounds waits; it is no promise.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if *binDir == "" {
		*binDir = "../../bin"
	}
	dir, err := filepath.Abs(*binDir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*binDir = dir
	for _, p := range []string{"cllab", "fence_cllab", "clstrmgrd", "cldeadman", "clmgr", "clRGinfo"} {
		if _, err := os.Stat(filepath.Join(dir, p)); err == nil {
			continue
		}
		build := exec.Command("make", "-s", "-C", "../..", "build")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: the binaries are missing and cannot be built:", err)
			return 1
		}
		break
	}
	return m.Run()
}

// long marks a test that only `make e2e` runs.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out by -short; `make e2e` runs it")
	}
}

// A setup says what cluster a test wants.
type setup struct {
	nodes    int      // default 3
	networks int      // default 1
	collect  bool     // service IPs of a network are together on one interface
	links    int      // interfaces of each node on each network; default 1
	ips      []string // more service IPs of the group, on net1
	profile  string   // default "default"
	fence    bool
	// app adds keys to the application controller, monitor and rg to theirs, more to the whole file, settings to the settings.
	// They are YAML in flow form ("key: value, key: value"), more is a block at the left margin.
	app, monitor, rg, more, settings string
	units                            []unit   // more groups
	start, stop                      []string // other programs of the application, with arguments
	nodeOrder                        []string // of the group; default all
	fenceDelay                       time.Duration
	share                            map[string]string // files below /shared, by name
	content                          map[string]string // files in the group's file system, by name
	files                            []string          // more files for /shared
	body                             string            // what the file says of resources and groups, instead of the group that most tests run
	bare                             bool              // nodes and daemons, but no cluster
	noGroup                          bool
	noWatch                          bool
	noAutoBoot                       bool
	system, commandDir               string // of the executors
	// notExclusive begins the names of what several nodes may hold: the lock of an emulator's state, of which the watcher sees
	// those who wait too.
	notExclusive string
}

// A world is one lab with its watcher, and what a test knows of it.
type world struct {
	*lab.Lab
	t     testing.TB
	setup setup
	nodes []string
	watch *lab.Watch
	probe *lab.Probe
	dumps int

	clients map[string]*client.Client
}

var labs atomic.Int64

// begin starts a lab for a test, and ends it with the test.
func begin(t testing.TB, s setup) *world {
	t.Helper()
	if s.nodes == 0 {
		s.nodes = 3
	}
	if s.networks == 0 {
		s.networks = 1
	}
	w := &world{t: t, setup: s, clients: map[string]*client.Client{}}
	for n := 1; n <= s.nodes; n++ {
		w.nodes = append(w.nodes, lab.NodeName(n))
	}
	opt := lab.Options{Binary: filepath.Join(*binDir, "cllab"), Name: fmt.Sprintf("%s-%d-%d", *labPrefix, os.Getpid(), labs.Add(1)),
		Nodes: s.nodes, Networks: s.networks, Links: s.links, Profile: s.profile, Fence: s.fence, Bare: s.bare, NoAutoBoot: s.noAutoBoot, RebootDelay: 500 * time.Millisecond,
		FenceDelay: s.fenceDelay, System: s.system, CommandDir: s.commandDir}
	if !s.bare && !s.noGroup {
		dir := t.TempDir()
		opt.ClusterFile = filepath.Join(dir, "cluster.yaml")
		image := makeImage(t, dir)
		if image != "" {
			opt.Share = append(opt.Share, image)
			fillImage(t, image, s.content)
		}
		opt.Share = append(opt.Share, s.files...)
		for name, text := range s.share {
			path := filepath.Join(dir, name)
			check(t, os.WriteFile(path, []byte(text), 0o644))
			opt.Share = append(opt.Share, path)
		}
		check(t, os.WriteFile(opt.ClusterFile, []byte(w.definition(image != "")), 0o644))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	l, err := lab.Up(ctx, opt)
	if err != nil {
		w.Lab = lab.Open(lab.Dir(opt.Name))
		w.dump()
		_ = os.RemoveAll(w.Dir)
		t.Fatal(err)
	}
	w.Lab = l
	t.Cleanup(w.end)
	if !s.noWatch {
		w.watch, err = l.StartWatch(ctx, lab.WatchOptions{})
		check(t, err)
	}
	return w
}

// end judges what the watcher saw, shows what happened if the test failed, and takes the lab down whatever happened.
func (w *world) end() {
	if w.probe != nil {
		_, _ = w.probe.Stop()
	}
	w.judge()
	if w.t.Failed() {
		w.dump()
	}
	for _, c := range w.clients {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Down(ctx, false); err != nil {
		w.t.Errorf("take the lab down: %v", err)
	}
}

// judge stops the watcher and fails the test on any overlap.
func (w *world) judge() {
	if w.watch == nil {
		return
	}
	report, err := w.watch.Stop()
	w.watch = nil
	if err != nil {
		w.t.Errorf("the watcher: %v", err)
		return
	}
	overlaps := slices.DeleteFunc(report.Overlaps, func(o lab.Overlap) bool {
		return w.setup.notExclusive != "" && strings.HasPrefix(o.What, w.setup.notExclusive)
	})
	for _, o := range overlaps {
		w.t.Errorf("OVERLAP: %s %s was on %s at once, from %s for %v", o.Kind, o.What, strings.Join(o.Nodes, " and "),
			o.Begin.Format("15:04:05.000"), o.Took)
	}
	w.t.Logf("watcher: %d looks in %.0f s, at worst %v apart, %d overlaps", report.Samples, report.End.Sub(report.Begin).Seconds(),
		report.WorstGap.Round(time.Millisecond), len(overlaps))
	if notes, _ := filepath.Glob(w.SharedPath("*/data/double-start")); len(notes) > 0 {
		text, _ := os.ReadFile(notes[0])
		w.t.Errorf("DOUBLE START, noted by the application itself: %s", text)
	}
}

// makeImage makes the file system of the group when this machine can mount one; otherwise a directory is bound into place.
func makeImage(t testing.TB, dir string) string {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if _, e := os.Stat("/dev/loop-control"); os.Getuid() != 0 || err != nil || e != nil {
		return ""
	}
	image := filepath.Join(dir, "app.img")
	f, err := os.Create(image)
	check(t, err)
	check(t, errors.Join(f.Truncate(16<<20), f.Close()))
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return image
}

// fillImage writes files into an ext4 file system that is not mounted.
func fillImage(t testing.TB, image string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		source := filepath.Join(t.TempDir(), name)
		check(t, os.WriteFile(source, []byte(text), 0o644))
		if out, err := exec.CommandContext(t.Context(), "debugfs", "-w", "-R", "write "+source+" "+name, image).CombinedOutput(); err != nil {
			t.Fatalf("debugfs: %v: %s", err, out)
		}
	}
}

// program is the path of one of the product's programs as the nodes see it, wherever the checkout is.
func program(name string) string { return "/holdfast/bin/" + name }

func flow(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// definition is the cluster file of a setup.
func (w *world) definition(image bool) string {
	s := w.setup
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("name: e2e\nnodes:\n")
	for i, n := range w.nodes {
		var addrs []string
		for k := 1; k <= s.networks; k++ {
			addrs = append(addrs, fmt.Sprintf("net%d: 10.77.%d.%d/24", k, k, i+1))
		}
		p("  - {name: %s, addresses: {%s}%s}\n", n, strings.Join(addrs, ", "), w.interfaces())
	}
	p("networks:\n")
	for k := 1; k <= s.networks; k++ {
		p("  - {name: net%d, prefix: 24%s}\n", k, map[bool]string{true: ", distribution: C"}[s.collect])
	}
	if s.body == "" {
		w.usualGroup(p, image)
	} else {
		p("%s", s.body)
	}
	if s.fence {
		p("fence_devices:\n  - {name: power, agent: %s, nodes: %s, timeout: 5s}\n", program("fence_cllab"), flow(w.nodes))
	}
	if s.nodes == 2 {
		p("repositories:\n  - {name: repo, device: %s}\n", volume)
	}
	profile := s.profile
	if profile == "" {
		profile = "default"
	}
	p("settings: {profile: %s%s}\n%s", profile, more(s.settings), s.more)
	return b.String()
}

// interfaces is what the file says of a node's interfaces, where there are several on a network.
func (w *world) interfaces() string {
	if w.setup.links < 2 {
		return ""
	}
	var nets []string
	for k := 1; k <= w.setup.networks; k++ {
		var names []string
		for l := range w.setup.links {
			names = append(names, lab.InterfaceName(k+l*w.setup.networks))
		}
		nets = append(nets, fmt.Sprintf("net%d: [%s]", k, strings.Join(names, ", ")))
	}
	return fmt.Sprintf(", interfaces: {%s}", strings.Join(nets, ", "))
}

// usualGroup writes the service IP, the file system and the application that most tests run.
func (w *world) usualGroup(p func(string, ...any), image bool) {
	s := w.setup
	p("service_ips:\n  - {name: app_svc, address: %s, network: net1}\n", service)
	ips := []string{"app_svc"}
	for i, a := range s.ips {
		ips = append(ips, fmt.Sprintf("app_svc%d", i+2))
		p("  - {name: %s, address: %q, network: net1%s}\n", ips[i+1], a, prefixFor(a))
	}
	if image {
		p("file_systems:\n  - {name: app_fs, device: /shared/app.img, mount_point: /app, type: ext4, options: loop}\n")
	} else {
		p("file_systems:\n  - {name: app_fs, device: /shared/app, mount_point: /app, type: bind}\n")
	}
	if s.start == nil {
		s.start = []string{program("cllab"), "app", "start", "--data", "/app/data", "--listen", target}
	}
	if s.stop == nil {
		s.stop = []string{program("cllab"), "app", "stop", "--data", "/app/data", "--listen", target}
	}
	p("application_controllers:\n  - {name: app, start_script: %q, start_args: %s, stop_script: %q, stop_args: %s, monitors: [app_mon]%s}\n",
		s.start[0], flow(s.start[1:]), s.stop[0], flow(s.stop[1:]), more(s.app))
	for _, u := range s.units {
		p("  - {name: %s_app, start_script: /bin/sh, start_args: [/shared/unit.sh, start, %s], stop_script: /bin/sh, stop_args: [/shared/unit.sh, stop, %s]}\n",
			u.name, u.name, u.name)
	}
	if s.monitor == "" {
		s.monitor = "failure_action: fallover, restart_count: 3, stabilization: 1s, restart_interval: 60s"
	}
	p("application_monitors:\n  - {name: app_mon, type: process, pid_file: /run/app.pid%s}\n", more(s.monitor))
	order := s.nodeOrder
	if order == nil {
		order = w.nodes
	}
	policies := "startup: OHN, fallover: FNPN, fallback: NFB"
	p("resource_groups:\n  - {name: %s, nodes: %s, %s, service_ips: %s, file_systems: [app_fs], applications: [app]%s}\n",
		group, flow(order), policies, flow(ips), more(s.rg))
	for _, u := range s.units {
		p("  - {name: %s, nodes: %s, %s, applications: [%s_app]}\n", u.name, flow(u.nodes), u.policies, u.name)
	}
}

func prefixFor(address string) string {
	if strings.Contains(address, ":") {
		return ", prefix: 64"
	}
	return ""
}

func more(keys string) string {
	if keys == "" {
		return ""
	}
	return ", " + keys
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ctx bounds one step of a test. It outlives the test's own context, which ends before the clean-up.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// Commands.

// run runs a command in a node, whatever its exit status.
func (w *world) run(node string, argv ...string) lab.Result {
	w.t.Helper()
	r, err := w.Lab.Run(w.ctx(), node, argv...)
	if err != nil && r.Code == lab.ExitLab {
		w.t.Fatalf("%s: %s: %v", node, strings.Join(argv, " "), err)
	}
	return r
}

// must runs a command that must succeed, and returns what it wrote.
func (w *world) must(node string, argv ...string) string {
	w.t.Helper()
	r := w.run(node, argv...)
	if r.Code != 0 {
		w.t.Fatalf("%s: %s: exit status %d\n%s%s", node, strings.Join(argv, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func (w *world) clmgr(node string, args ...string) string {
	w.t.Helper()
	return w.must(node, append([]string{"clmgr"}, args...)...)
}

// refused runs clmgr with something that must be refused: with this exit status, and all these words in its message.
func (w *world) refused(node string, code int, words []string, args ...string) {
	w.t.Helper()
	r := w.run(node, append([]string{"clmgr"}, args...)...)
	w.expect("clmgr "+strings.Join(args, " "), r, code, words...)
}

func (w *world) expect(what string, r lab.Result, code int, words ...string) {
	w.t.Helper()
	if r.Code != code {
		w.t.Errorf("%s: exit status %d, want %d\n%s%s", what, r.Code, code, r.Stdout, r.Stderr)
		return
	}
	all := r.Stdout + r.Stderr
	for _, word := range words {
		if !strings.Contains(all, word) {
			w.t.Errorf("%s: the message lacks %q:\n%s", what, word, all)
		}
	}
	w.t.Logf("%s: exit status %d: %s", what, r.Code, firstLines(r.Stderr+r.Stdout, 3))
}

func firstLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n    ")
}

// Looking.

// status asks one node's daemon at its own socket.
func (w *world) status(node string) (*api.Status, error) {
	c := w.clients[node]
	if c == nil {
		c = client.New(w.NodePath(node, "run", "clstrmgrd.sock"))
		w.clients[node] = c
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &st, nil
}

// up lists the nodes that run.
func (w *world) up() []string {
	st, err := w.Status(w.ctx())
	check(w.t, err)
	var out []string
	for _, n := range st.Nodes {
		if n.State == lab.StateUp {
			out = append(out, n.Name)
		}
	}
	return out
}

// view is the newest picture that any of the nodes gives whose knowledge is not stale; nil if none does.
func (w *world) view() *api.Status {
	var best *api.Status
	for _, n := range w.up() {
		st, err := w.status(n)
		if err != nil || st.Cluster.Stale() || st.Cluster.Leader == "" || len(st.Nodes) == 0 {
			continue
		}
		if best == nil || st.Cluster.AppliedIndex > best.Cluster.AppliedIndex || st.Cluster.AppliedIndex == best.Cluster.AppliedIndex &&
			st.Cluster.LocalNode == st.Cluster.Leader {
			best = st
		}
	}
	return best
}

// await looks until missing returns "", which says what is not as it should be yet.
func (w *world) await(what string, missing func() string) {
	w.t.Helper()
	if lacks := w.waitFor(patience, missing); lacks != "" {
		w.t.Fatalf("wait until %s: after %v: %s", what, patience, lacks)
	}
}

func (w *world) waitFor(limit time.Duration, missing func() string) string {
	end := time.Now().Add(limit)
	for {
		lacks := missing()
		if lacks == "" || time.Now().After(end) {
			return lacks
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// online waits until the group is online somewhere and nothing more is planned, and returns where.
func (w *world) online(name string) (node string) {
	w.t.Helper()
	w.await(name+" is online and the cluster is settled", func() string {
		st := w.view()
		switch {
		case st == nil:
			return "no node knows a leader"
		case st.Cluster.State != api.ClusterStable:
			return "the cluster is " + st.Cluster.State + ": " + groupStates(st)
		}
		g := st.Group(name)
		if g == nil || len(g.OnlineOn()) != 1 {
			return groupStates(st)
		}
		node = g.OnlineOn()[0]
		return ""
	})
	return node
}

// onlineOn waits until the group is online on that node and the cluster is settled.
func (w *world) onlineOn(name, node string) {
	w.t.Helper()
	w.await(name+" is online on "+node, func() string {
		st := w.view()
		if st == nil {
			return "no node knows a leader"
		}
		if g := st.Group(name); g == nil || !slices.Equal(g.OnlineOn(), []string{node}) {
			return groupStates(st)
		}
		return ""
	})
}

func groupStates(st *api.Status) string {
	var out []string
	for _, g := range st.Groups {
		for _, i := range g.Instances {
			out = append(out, fmt.Sprintf("%s on %s: %s %s", g.Name, i.Node, i.Text(), i.Reason))
		}
	}
	return strings.Join(out, "; ")
}

// nodesAre waits until the nodes have this state (all nodes when none is named) and the cluster has quorum.
func (w *world) nodesAre(state string, nodes ...string) *api.Status {
	w.t.Helper()
	if len(nodes) == 0 {
		nodes = w.nodes
	}
	var st *api.Status
	w.await(strings.Join(nodes, " ")+" "+state, func() string {
		if st = w.view(); st == nil {
			return "no node knows a leader"
		}
		var not []string
		for _, n := range nodes {
			if s := st.Node(n); s == nil || s.State != state {
				not = append(not, fmt.Sprintf("%s is %s (%s)", n, s.State, s.Reason))
			}
		}
		return strings.Join(not, "; ")
	})
	return st
}

// whole waits until all nodes take part and three vote, so that the next fault is survived. A node that was reset too often is
// quarantined by design; the operator clears it.
func (w *world) whole() {
	w.t.Helper()
	w.await("all nodes take part", func() string {
		st := w.view()
		if st == nil {
			return "no node knows a leader"
		}
		var not []string
		for i := range st.Nodes {
			n := &st.Nodes[i]
			switch n.State {
			case api.NodeNormal:
			case api.NodeQuarantined:
				w.run(st.Cluster.LocalNode, "clmgr", "clear", "node", n.Name)
				fallthrough
			default:
				not = append(not, fmt.Sprintf("%s is %s (%s)", n.Name, n.State, n.Reason))
			}
		}
		if q := st.Cluster.Quorum; q.Voters < min(3, len(w.nodes)) || q.Alive < q.Voters {
			not = append(not, fmt.Sprintf("%d voters, %d alive", q.Voters, q.Alive))
		}
		return strings.Join(not, "; ")
	})
}

// place makes the group run on the node, if it does not, and waits until the client is answered from there.
func (w *world) place(node string) {
	w.t.Helper()
	if w.online(group) != node {
		w.clmgr(node, "move", "resource_group", group, "NODE="+node)
	}
	w.onlineOn(group, node)
	if w.probe != nil {
		w.answersFrom(node)
	}
}

// servedOn is where the group is online; nowhere, if a daemon that has just started does not know it yet.
func servedOn(st *api.Status) []string {
	if g := st.Group(group); g != nil {
		return g.OnlineOn()
	}
	return nil
}

// elsewhere waits until the group is online on another node than this one, and returns which.
func (w *world) elsewhere(not string) (node string) {
	w.t.Helper()
	w.await(group+" is online on another node than "+not, func() string {
		st := w.view()
		if st == nil {
			return "no node knows a leader"
		}
		on := servedOn(st)
		if len(on) != 1 || on[0] == not {
			return groupStates(st)
		}
		node = on[0]
		return ""
	})
	return node
}

// leader is the node that leads.
func (w *world) leader() string {
	w.t.Helper()
	leader := ""
	w.await("there is a leader", func() string {
		st := w.view()
		if st == nil {
			return "no node knows one"
		}
		leader = st.Cluster.Leader
		return ""
	})
	return leader
}

// other is a node that is none of these.
func (w *world) other(not ...string) string {
	for _, n := range w.nodes {
		if !slices.Contains(not, n) {
			return n
		}
	}
	w.t.Fatalf("no node beside %v", not)
	return ""
}

// events is the history as the newest node tells it.
func (w *world) events(since uint64) []api.Event {
	st := w.view()
	if st == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := w.clients[st.Cluster.LocalNode].Events(ctx, since, 1000)
	if err != nil {
		w.t.Logf("events: %v", err)
	}
	return list.Events
}

func (w *world) lastEvent() uint64 {
	var last uint64
	for _, e := range w.events(0) {
		last = max(last, e.ID)
	}
	return last
}

// find is the first event of the kind, about the node if one is named, after since; nil if there is none.
func (w *world) find(since uint64, kind, node string) *api.Event {
	for _, e := range w.events(since) {
		if e.ID > since && e.Kind == kind && (node == "" || e.Node == node) {
			return &e
		}
	}
	return nil
}

// happened waits for such an event.
func (w *world) happened(since uint64, kind, node string) *api.Event {
	w.t.Helper()
	var e *api.Event
	w.await("event "+kind+" "+node, func() string {
		if e = w.find(since, kind, node); e == nil {
			return "it is not in the history"
		}
		return ""
	})
	return e
}

// timeline prints the history since an event, with what the watcher saw of the service address beside it.
func (w *world) timeline(since uint64) {
	w.t.Helper()
	w.timelineFrom(since, 0)
}

// timelineFrom leaves out the first sightings of the watcher, of earlier parts of the test.
func (w *world) timelineFrom(since uint64, sightings int) {
	w.t.Helper()
	var lines []string
	for _, e := range w.events(since) {
		if e.ID > since {
			lines = append(lines, fmt.Sprintf("%s  %-18s %s", e.Time.Local().Format("15:04:05.000"), e.Kind, e.Sentence))
		}
	}
	if w.watch != nil {
		for _, e := range w.holders()[sightings:] {
			lines = append(lines, fmt.Sprintf("%s  %-18s %s %s %s", e.Time.Local().Format("15:04:05.000"), "(watcher)", e.Node, e.Event, service))
		}
	}
	slices.Sort(lines)
	w.t.Logf("timeline:\n  %s", strings.Join(lines, "\n  "))
}

// appPID is the application's process on a node, 0 if there is none.
func (w *world) appPID(node string) string {
	w.t.Helper()
	return strings.TrimSpace(w.run(node, "cat", "/run/app.pid").Stdout)
}

// ask starts the client that never stops asking, and waits for its first answer.
func (w *world) ask() {
	w.t.Helper()
	p, err := w.StartProbe(target, lab.ProbeOptions{})
	check(w.t, err)
	w.probe = p
	check(w.t, p.AwaitAnswer(w.ctx(), ""))
}

// answersFrom waits until the client is answered by the node.
func (w *world) answersFrom(node string) {
	w.t.Helper()
	check(w.t, w.probe.AwaitAnswer(w.ctx(), node))
}

// outages ends the client and returns what it suffered.
func (w *world) outages() []lab.Outage {
	w.t.Helper()
	report, err := w.probe.Stop()
	w.probe = nil
	check(w.t, err)
	for _, o := range report.Outages {
		w.t.Logf("client: %.3f s without an answer, %s (process %d) -> %s (process %d)", o.Length.Seconds(), o.Before.Node, o.Before.PID,
			o.After.Node, o.After.PID)
	}
	return report.Outages
}

// holders is who had the service address, in order, as the watcher saw it.
func (w *world) holders() []lab.WatchEvent {
	var out []lab.WatchEvent
	for _, e := range w.watch.Events() {
		if h := e.Holding; h != nil && h.Kind == "address" && h.What == service {
			out = append(out, e)
		}
	}
	return out
}

// loserFirst checks that each holder of the service address lost it before the next one got it, and returns how many moves
// there were.
func (w *world) loserFirst() (moves int) {
	w.t.Helper()
	held, last := "", ""
	for _, e := range w.holders() {
		switch e.Event {
		case "gained":
			if held != "" && held != e.Node {
				w.t.Errorf("%s got %s at %s while %s had it", e.Node, service, e.Time.Format("15:04:05.000"), held)
			}
			if last != "" && last != e.Node {
				moves++
			}
			held, last = e.Node, e.Node
		case "lost":
			if held == e.Node {
				held = ""
			}
		}
	}
	return moves
}

// dump shows what is needed to understand a failure: the history, the lab's own events, and the ends of the logs.
func (w *world) dump() {
	if w.dumps++; w.dumps > 1 {
		return
	}
	here, err := w.Lab.Status(w.ctx())
	if err != nil { // a lab that never came up: there is nobody to ask, and the logs may say why
		w.t.Logf("lab: %v", err)
	} else if st := w.view(); st != nil {
		w.t.Logf("state: cluster %s, leader %s; %s", st.Cluster.State, st.Cluster.Leader, groupStates(st))
		for _, n := range st.Nodes {
			w.t.Logf("state: %s %s incarnation %d: %s", n.Name, n.State, n.Incarnation, n.Reason)
		}
		for _, p := range st.Pending {
			w.t.Logf("pending: %+v", p)
		}
		w.timeline(0)
	}
	if here != nil {
		for _, e := range here.Events[max(0, len(here.Events)-30):] {
			w.t.Logf("lab: %s %s %s %s", e.Time.Local().Format("15:04:05.000"), e.Node, e.Kind, e.Detail)
		}
	}
	for _, n := range w.nodes {
		for _, f := range []string{"clstrmgrd.out", "cldeadman.out", "log/clstrmgr.debug", "log/voter.debug"} {
			if text := tail(w.NodePath(n, "log", f), 25); text != "" {
				w.t.Logf("%s %s:\n%s", n, f, text)
			}
		}
	}
}

func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := slices.Compact(strings.Split(strings.TrimSpace(string(b)), "\n"))
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
