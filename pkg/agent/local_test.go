package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Nothing that is posted is lost, from however many goroutines; a wake without an event is a wake.
func TestMailbox(t *testing.T) {
	b := newMailbox()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				b.post(1)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	n := 0
	for n < 8000 {
		<-b.ready
		n += len(b.take())
	}
	<-done
	if n != 8000 || len(b.take()) != 0 {
		t.Errorf("%d events of 8000", n)
	}
	b.wake()
	b.wake()
	<-b.ready
	if got := b.take(); len(got) != 0 {
		t.Errorf("a wake brought %v", got)
	}
}

// Who waits before the change is woken by it; who comes after waits for the next.
func TestNotifier(t *testing.T) {
	var n notifier
	n.init()
	before := n.wait()
	n.fire()
	select {
	case <-before:
	default:
		t.Error("not woken")
	}
	select {
	case <-n.wait():
		t.Error("woken without a change")
	default:
	}
}

func TestHistoryLine(t *testing.T) {
	at := time.Date(2024, 8, 20, 14, 56, 39, 0, time.UTC)
	for _, c := range []struct {
		event state.Event
		want  string
	}{
		{state.Event{At: at, Name: state.EventNodeUp, Node: "node1", Sentence: "started"},
			"Aug 20 14:56:39 n9 user:notice Holdfast: EVENT START: node_up node1 # started\n"},
		{state.Event{At: at, Name: state.EventNodeUpComplete, Node: "node1", Sentence: "done"},
			"Aug 20 14:56:39 n9 user:notice Holdfast: EVENT COMPLETED: node_up_complete node1 0 # done\n"},
		{state.Event{At: at, Name: state.EventGroupAcquireFailed, Node: "node1", Group: "g", Sentence: "two\nlines\x1b"},
			"Aug 20 14:56:39 n9 user:notice Holdfast: EVENT FAILED: rg_acquire_failed g node1 1 # two lines \n"},
		{state.Event{At: at, Name: state.EventEpoch}, "Aug 20 14:56:39 n9 user:notice Holdfast: EVENT START: forced_configuration # \n"},
	} {
		if got := historyLine("n9", c.event); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "clstrmgr.debug")
	l, err := OpenLogFile(path, 100, 2)
	if err != nil {
		t.Fatal(err)
	}
	line := func(c string) string { return strings.Repeat(c, 59) + "\n" }
	for _, c := range []string{"a", "b", "c", "d"} {
		if n, err := l.Write([]byte(line(c))); n != 60 || err != nil {
			t.Fatalf("write: %d %v", n, err)
		}
	}
	for name, want := range map[string]string{"": "d", ".1": "c", ".2": "b"} {
		if b, err := os.ReadFile(path + name); err != nil || string(b) != line(want) {
			t.Errorf("%s holds %q, %v", path+name, b, err)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("more old files are kept than asked for")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n, err := l.Write([]byte("after")); n != 5 || err != nil {
		t.Errorf("a closed log must take lines and lose them: %d %v", n, err)
	}
	if l, err = OpenLogFile(path, 100, 2); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Write([]byte(line("e"))); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path + ".1"); string(b) != line("d") {
		t.Errorf("the size of the old log was not counted: %q", b)
	}
}

func TestLogFileIsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLogFile(filepath.Join(dir, "log"), 100, 1); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// The history goes on where the last daemon ended.
func TestHistoryGoesOn(t *testing.T) {
	dir := t.TempDir()
	view := state.New()
	apply := func(index uint64, c *state.Command) {
		c.At = time.Date(2024, 8, 20, 12, 0, int(index), 0, time.UTC)
		var r state.Result
		if view, r = state.Apply(view, state.Entry{Index: index, Term: 1, Command: c}); r.Refused != "" {
			t.Fatal(r.Refused)
		}
	}
	lines := func() int {
		b, err := os.ReadFile(filepath.Join(dir, "adm", "cluster.log"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "\n")
	}
	d := testDefinition(t)
	apply(1, &state.Command{Create: &state.Create{ClusterID: "c", Definition: d}})
	for range 2 {
		h, err := openHistory(dir, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.write(view); err != nil {
			t.Fatal(err)
		}
		if n := lines(); n != 1 {
			t.Errorf("%d lines for one event", n)
		}
	}
	apply(2, &state.Command{SetMember: &state.SetMember{Node: "n1", RaftID: "n1-1"}})
	h, err := openHistory(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	var counted []string
	h.count = func(name string) { counted = append(counted, name) }
	for range 2 {
		if err := h.write(view); err != nil || lines() != 2 {
			t.Errorf("%d lines, %v", lines(), err)
		}
	}
	if len(counted) != 1 || counted[0] != state.EventMember {
		t.Errorf("counted for the metrics: %v", counted)
	}
}

const testCluster = `
name: test
nodes:
  - {name: n1, addresses: {net1: 10.1.0.1/24, net2: 10.2.0.1/24}}
  - {name: n2, addresses: {net1: 10.1.0.2/24}}
  - {name: n3, addresses: {net1: 10.1.0.3/24}}
networks:
  - {name: net1, prefix: 20}
  - {name: net2}
service_ips:
  - {name: ip, address: 10.1.0.9, network: net1}
  - {name: ip2, address: 10.1.0.8, network: net1, prefix: 28, interface: eth7}
persistent_ips:
  - {name: per, address: 10.1.0.7, node: n1, network: net1}
file_systems:
  - {name: fs, device: /dev/a, mount_point: /a, type: ext4}
application_controllers:
  - {name: app, start_script: /opt/start, stop_script: /opt/stop}
resource_groups:
  - {name: g, nodes: [n1, n2], service_ips: [ip, ip2], file_systems: [fs], applications: [app]}
  - {name: h, nodes: [n2], fs_before_ip: true}
`

func testDefinition(t *testing.T) *cluster.Definition {
	t.Helper()
	d, err := config.DecodeCluster("test", []byte(testCluster))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func names(list []executor.Resource) string {
	var out []string
	for _, r := range list {
		out = append(out, r.Name)
	}
	return strings.Join(out, " ")
}

func TestResourcesOf(t *testing.T) {
	d := testDefinition(t)
	list, err := resourcesOf(d, d.Group("g"), "n1")
	if err != nil || names(list) != "ip ip2 fs app" {
		t.Fatalf("%v, %v", names(list), err)
	}
	if a := list[0].IP; a.Prefix != 20 || a.NodeAddress != "10.1.0.1/24" || a.Network != "net1" || a.Address != "10.1.0.9" {
		t.Errorf("resolved as %+v", *a)
	}
	if a := list[1].IP; a.Prefix != 28 || a.Interface != "eth7" {
		t.Errorf("resolved as %+v", *a)
	}
	d.Group("g").FSBeforeIP = true
	if list, _ = resourcesOf(d, d.Group("g"), "n1"); names(list) != "fs ip ip2 app" {
		t.Errorf("file systems first: %s", names(list))
	}
	if p, err := persistentIPsOf(d, "n1"); err != nil || names(p) != "per" {
		t.Errorf("persistent addresses: %v %v", p, err)
	}
	if p, err := persistentIPsOf(d, "n2"); err != nil || len(p) != 0 {
		t.Errorf("persistent addresses of another node: %v %v", p, err)
	}
	for _, spoil := range []func(g *cluster.ResourceGroup){
		func(g *cluster.ResourceGroup) { g.ServiceIPs = []string{"none"} },
		func(g *cluster.ResourceGroup) { g.FileSystems = []string{"none"} },
		func(g *cluster.ResourceGroup) { g.Applications = []string{"none"} },
	} {
		g := *d.Group("g")
		spoil(&g)
		if _, err := resourcesOf(d, &g, "n1"); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("a name that is not defined: %v", err)
		}
	}
	if _, err := resourcesOf(d, d.Group("g"), "n9"); err == nil {
		t.Error("a node that is not defined")
	}
}

// What a change of the definition takes from a group and gives to it.
func TestDiffer(t *testing.T) {
	old, fresh := testDefinition(t), testDefinition(t)
	fresh.ServiceIP("ip").Address = "10.1.0.19"
	fresh.Group("g").ServiceIPs = []string{"ip"}
	a, _ := resourcesOf(old, old.Group("g"), "n1")
	b, _ := resourcesOf(fresh, fresh.Group("g"), "n1")
	if gone, added := names(differ(a, b)), names(differ(b, a)); gone != "ip ip2" || added != "ip" {
		t.Errorf("gone %q, added %q", gone, added)
	}
	if len(differ(a, a)) != 0 {
		t.Error("no change is a change")
	}
}

func TestNamesAndAddresses(t *testing.T) {
	for id, want := range map[string]string{"n1-abc": "n1", "data-base-1-0f": "data-base-1", "plain": "plain", "": "", "-x": "-x"} {
		if got := nodeOfServer(id); got != want {
			t.Errorf("node of server %q: %q", id, got)
		}
	}
	for a, want := range map[string]string{"10.1.0.1/24": "10.1.0.1", "fd00::1/64": "fd00::1", "10.1.0.1": "10.1.0.1", "": ""} {
		if got := plainAddress(a); got != want {
			t.Errorf("plain %q: %q", a, got)
		}
	}
	d := testDefinition(t)
	if got := dialAddresses(d, d.Node("n1"), "7"); strings.Join(got, " ") != "10.1.0.1:7 10.2.0.1:7" {
		t.Errorf("addresses to dial: %v", got)
	}
}

// One boot keeps its life over restarts of the daemon; another boot has another; and so has a boot that was told to begin anew.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	open := func(boot string) *member {
		m := &member{opt: &Options{Node: &config.Node{StateDir: dir}}, bootID: boot}
		if err := m.loadLife(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := open("b1")
	if again := open("b1"); again.bootKey() != first.bootKey() {
		t.Errorf("another life after a restart: %s, %s", first.bootKey(), again.bootKey())
	}
	if err := first.newLife(); err != nil {
		t.Fatal(err)
	}
	second := open("b1")
	if second.bootKey() != first.bootKey() {
		t.Errorf("the new life was not kept: %s, %s", first.bootKey(), second.bootKey())
	}
	if third := open("b2"); third.bootKey() == second.bootKey() || !strings.HasPrefix(third.bootKey(), "b2/") {
		t.Errorf("another boot: %s", third.bootKey())
	}
	if err := os.WriteFile(filepath.Join(dir, "life.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if spoilt := open("b2"); spoilt.bootKey() == "b2/" {
		t.Error("a damaged file gave an empty life")
	}
}

type testClock struct{}

func (testClock) Now() lease.Instant { return lease.Instant(time.Hour) }

func testLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A member that leads, as far as the handshake needs one.
func leadingMember(t *testing.T, view *state.State) (*member, *leadership) {
	t.Helper()
	m := &member{name: "n1", bootID: "b1", clock: testClock{}, log: testLog(), mail: newMailbox()}
	m.fsm = newFSM(m.log, func() {}, func(string) {})
	m.fsm.newest.Store(view)
	m.life.Store("l1")
	m.setTiming(lease.Params{})
	m.det = detector.New(detector.ParamsFor(m.params()), m.clock.Now())
	led := &leadership{ctx: t.Context(), term: 3, book: lease.NewGrantor(3), nonces: map[string]string{}}
	led.duties = leader.New("n1", led.book)
	led.book.Committed(1)
	m.lead.Store(led)
	return m, led
}

// Attack A6: only the answer to the leader's newest question is a boot's proof, once, and only from the node that was asked.
func TestA6BootNonces(t *testing.T) {
	view := state.New()
	view, _ = state.Apply(view, state.Entry{Index: 1, Term: 1, Command: &state.Command{At: time.Unix(0, 0),
		Create: &state.Create{ClusterID: "c", Definition: testDefinition(t)}}})
	m, led := leadingMember(t, view)
	ask := func(node string) string {
		r := m.hello(node, helloRequest{BootID: "b", Life: "l"})
		if r.Leader != "" || r.Nonce == "" || r.Definition == nil {
			t.Fatalf("hello: %+v", r)
		}
		return r.Nonce
	}
	prove := func(node, nonce string) bootReply {
		return m.boot(context.Background(), node, bootRequest{Nonce: nonce, BootID: "b", AllStopped: true})
	}
	old, other := ask("n2"), ask("n3")
	newest := ask("n2")
	if old == newest || newest == other {
		t.Fatal("nonces repeat")
	}
	for what, r := range map[string]bootReply{"an older question": prove("n2", old), "no question": prove("n2", ""), "another node's": prove("n2", other)} {
		if r.Refused == "" {
			t.Errorf("the answer to %s was taken: %+v", what, r)
		}
	}
	if r := prove("n2", newest); r.Refused == "" {
		t.Error("a nonce lived on after a wrong answer")
	}
	if led.nonces["n3"] != other {
		t.Error("one node's answer took another's nonce away")
	}
}

func TestKnowsBoot(t *testing.T) {
	m := &member{}
	node := func(inc uint64, boot, life string, dead *state.Death) *state.State {
		return &state.State{Nodes: map[string]*state.Node{"n2": {Name: "n2", Incarnation: inc, BootID: boot, Life: life, Dead: dead}}}
	}
	req := lease.Request{Node: "n2", BootID: "b/l", Incarnation: 4}
	for _, c := range []struct {
		what string
		view *state.State
		ok   bool
		want func(a leaseAnswer) bool
	}{
		{"the living one", node(4, "b", "l", nil), true, func(a leaseAnswer) bool { return a == leaseAnswer{} }},
		{"not in the definition", state.New(), false, func(a leaseAnswer) bool { return a.Wait != "" }},
		{"never introduced", node(0, "", "", nil), false, func(a leaseAnswer) bool { return a.Boot }},
		{"another boot", node(4, "b0", "l", nil), false, func(a leaseAnswer) bool { return a.Boot }},
		{"another life", node(4, "b", "l0", nil), false, func(a leaseAnswer) bool { return a.Boot }},
		{"dead", node(4, "b", "l", &state.Death{Sentence: "fenced"}), false, func(a leaseAnswer) bool { return a.Dead == "fenced" }},
		{"behind its own log", node(5, "b", "l", nil), false, func(a leaseAnswer) bool { return a.Wait != "" }},
	} {
		if a, ok := m.knowsBoot(c.view, req); ok != c.ok || !c.want(a) {
			t.Errorf("%s: %v %+v", c.what, ok, a)
		}
	}
}

// A request is refused before any round is spent on it: by who does not lead, by a leader that makes no progress, for another
// node's name.
func TestGrantRefusals(t *testing.T) {
	view := state.New()
	m, led := leadingMember(t, view)
	req := lease.Request{Node: "n2", BootID: "b/l", Incarnation: 1}
	if a := m.grantLease(t.Context(), "n3", req); a.Grant != nil || !strings.Contains(a.Wait, "another node") {
		t.Errorf("another node's name: %+v", a)
	}
	if a := m.grantLease(t.Context(), "n2", req); a.Grant != nil || !strings.Contains(a.Wait, "loop") {
		t.Errorf("a loop that makes no progress: %+v", a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	led.ctx = ctx
	if m.leading() != nil {
		t.Error("a leadership that has ended is one")
	}
}

// A fact that covers two others allows no proof earlier than either.
func TestWidest(t *testing.T) {
	a := lease.Armed{Node: "n", Incarnation: 1, Class: lease.Independent, Mode: lease.ModeReset, Watchdog: 5, MaxAge: 1, Residue: 3, Margin: 1}
	b := lease.Armed{Node: "n", Incarnation: 1, Class: lease.Independent, Mode: lease.ModeReset, Watchdog: 2, MaxAge: 2, Residue: 1, Margin: 2}
	w := widest(a, b)
	if w.Watchdog != 5 || w.MaxAge != 2 || w.Residue != 3 || w.Margin != 2 || !w.TimeProves() {
		t.Errorf("%+v", w)
	}
	for _, x := range []lease.Armed{a, b} {
		if w.Expiry() < x.Expiry() || !covers(w, x) {
			t.Errorf("%+v does not cover %+v", w, x)
		}
	}
	if covers(b, a) || covers(a, b) {
		t.Error("covers what it does not")
	}
	e := b
	e.Mode = lease.ModeEvent
	if widest(a, e).TimeProves() || widest(e, a).TimeProves() || covers(a, e) {
		t.Error("mode e is lost")
	}
	p := b
	p.Class, p.Waived = lease.Process, true
	if widest(a, p).TimeProves() || covers(a, p) {
		t.Error("a class that proves nothing is lost")
	}
}

func TestCommandsOf(t *testing.T) {
	for op, want := range map[api.Op]string{
		api.OpOnline: "online_group", api.OpOffline: "offline_group", api.OpMove: "move_group", api.OpClear: "clear_group",
		api.OpSuspend: "suspend_group", api.OpResume: "resume_group", api.OpManage: "manage_group", api.OpUnmanage: "unmanage_group",
		api.OpUnsetPriority: "unset_priority", api.OpStart: "node_services", api.OpStop: "node_services", api.OpConfirmDown: "proof",
	} {
		list, err := commandsOf(api.Request{Op: op, Groups: []string{"g"}, Node: "n1"})
		if err != nil || len(list) != 1 || list[0].Kind() != want {
			t.Errorf("%s: %v %v", op, list, err)
		}
	}
	for _, r := range []api.Request{{Op: "nonsense"}, {Op: api.OpMove, Groups: []string{"g"}}, {Op: api.OpOnline}} {
		if _, err := commandsOf(r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	if list, _ := commandsOf(api.Request{Op: api.OpClear, Node: "n1"}); len(list) != 1 || list[0].ClearNode == nil {
		t.Errorf("clear of a node: %v", list)
	}
}

// A node reports of itself, and nothing that only a leader or an operator may say.
func TestSubjectOf(t *testing.T) {
	for _, c := range []*state.Command{{Proof: &state.Proof{Node: "n2"}}, {NodeLost: &state.NodeLost{Node: "n2"}}, {MoveGroup: &state.MoveGroup{Node: "n2"}},
		{NodeBoot: &state.NodeBoot{Node: "n2"}}, {Acquire: &state.Acquire{Node: "n2"}}, {Release: &state.Release{Node: "n2"}}} {
		if s := subjectOf(c); s != "" {
			t.Errorf("a node may send %s", c.Kind())
		}
	}
	if s := subjectOf(&state.Command{Report: &state.Report{Node: "n2"}}); s != "n2" {
		t.Errorf("the subject of a report: %q", s)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two"} {
		if err := writeFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		fi, _ := os.Stat(path)
		if err != nil || string(b) != text || fi.Mode().Perm() != 0o600 {
			t.Errorf("%q %v %v", b, err, fi.Mode())
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("something is left: %v", list)
	}
	if err := writeFile(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("written into a directory that does not exist")
	}
}

// What counts as a reset of the boot before, and what does not.
func TestCountedReset(t *testing.T) {
	note := func(boot string) formerEnd {
		return formerEnd{Note: &resetNote{BootID: boot, Why: "the lease ran out"}}
	}
	old := func() *state.Node { return &state.Node{Name: "n", Incarnation: 4, BootID: "b4"} }
	fenced, timed := old(), old()
	fenced.Dead, timed.Dead = &state.Death{Kind: state.ProofFenced}, &state.Death{Kind: state.ProofTime}
	for _, c := range []struct {
		what string
		n    *state.Node
		end  formerEnd
		boot string
		want string
	}{
		{"nothing is known", old(), formerEnd{}, "b5", ""},
		{"a note of the boot before", old(), note("b4"), "b5", "the lease ran out"},
		{"the same after its death was proven by time", timed, note("b4"), "b5", "the lease ran out"},
		{"a note of an older boot", old(), note("b3"), "b5", ""},
		{"a note of an older boot, and the device has fired", old(), formerEnd{Note: note("b3").Note, Fired: true}, "b5", "its watchdog device says that it has fired"},
		{"the device has fired", old(), formerEnd{Fired: true}, "b5", "its watchdog device says that it has fired"},
		{"it was fenced", fenced, formerEnd{Note: note("b4").Note, Fired: true}, "b5", ""},
		{"a new life of the same boot", old(), formerEnd{Fired: true}, "b4", ""},
		{"the first boot", &state.Node{Name: "n"}, formerEnd{Fired: true}, "b1", ""},
		{"a node that the log does not know", nil, formerEnd{Fired: true}, "b1", ""},
	} {
		if got := countedReset(c.n, bootRequest{BootID: c.boot, formerEnd: c.end}); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	var back bootRequest
	b, err := json.Marshal(bootRequest{BootID: "b5", formerEnd: formerEnd{Note: note("b4").Note, Fired: true}})
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || !back.Fired || back.Note == nil || *back.Note != *note("b4").Note {
		t.Errorf("over the wire: %s, %+v, %v", b, back, err)
	}
}

// The note about a reset is kept over a boot, and one that cannot be read is no note.
func TestResetNote(t *testing.T) {
	dir := t.TempDir()
	open := func(boot string) *member {
		m := &member{log: testLog(), opt: &Options{Node: &config.Node{StateDir: dir}}, bootID: boot}
		m.loadResetNote()
		return m
	}
	if m := open("b1"); m.former != (resetNote{}) || m.loop.node.note != "" {
		t.Errorf("without a note: %+v", m.former)
	}
	if err := open("b1").writeResetNote("the lease ran out"); err != nil {
		t.Fatal(err)
	}
	if m := open("b1"); m.former != (resetNote{}) || m.loop.node.note != "the lease ran out" {
		t.Errorf("in the same boot: %+v, %q", m.former, m.loop.node.note)
	}
	if m := open("b2"); m.former != (resetNote{"b1", "the lease ran out"}) || m.loop.node.note != "" || !m.loop.node.oldNote {
		t.Errorf("in the next boot: %+v", m.former)
	}
	m := open("b2")
	for range 2 {
		if err := m.writeResetNote(""); err != nil {
			t.Fatal(err)
		}
	}
	if m := open("b3"); m.former != (resetNote{}) {
		t.Errorf("after it was taken away: %+v", m.former)
	}
	if err := os.WriteFile(m.resetNoteFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m := open("b3"); m.former != (resetNote{}) || m.loop.node.note != "" {
		t.Errorf("a damaged note: %+v", m.former)
	}
}

// What the log holds of a server's starts is read back as it was written, and that of another server is none.
func TestLoggedBoot(t *testing.T) {
	b := consensus.Boot{Number: 7, Random: "00ff"}
	for _, c := range []struct {
		value string
		want  consensus.Boot
		bad   bool
	}{
		{value: bootValue("n1-aa", b), want: b},
		{value: bootValue("n1-bb", b)},
		{value: ""},
		{value: "n1-aa 7", bad: true},
		{value: "n1-aa x 00ff", bad: true},
	} {
		if got, err := loggedBoot("n1-aa", c.value); got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: %+v, %v", c.value, got, err)
		}
	}
}
