package cluster

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/executor/sim"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
	"github.com/holdfast-ha/holdfast/pkg/verify"
	"github.com/holdfast-ha/holdfast/test/fake"
)

var (
	verbose = flag.Bool("cluster.log", false, "print what the machines do, and the agents' logs")
	seed    = flag.Uint64("cluster.seed", 0, "run the random schedules with this seed only")
	rounds  = flag.Int("cluster.rounds", 0, "faults per random schedule; 0: the default")
)

// A rig is a cluster of machines with its checkers.
type rig struct {
	t       testing.TB
	options options
	params  lease.Params
	class   lease.Class
	lan     *fake.LAN
	world   *sim.World
	ledger  *ledger
	log     *slog.Logger
	names   []string
	groups  map[string][]string // group -> its resources

	machines map[string]*machine
	zombies  []*process

	rngMu sync.Mutex
	rng   *rand.Rand

	snagMu sync.Mutex
	snags  []*snag

	wrapDeadman func(node string, d agent.Deadman) agent.Deadman
	naive       func(p *process) agent.Deadman // instead of the deadman of a machine
	fenceTime   time.Duration
	fenceBy     func(shooter string) time.Duration                  // instead of fenceTime
	fenceHand   func(device, node string) (proof string, err error) // what the devices do, instead
	facts       func(*verify.Facts)                                 // what a node sees when it looks at itself
	fenceAnswer time.Duration                                       // from the shot to the device's answer
	fenceBroken atomic.Bool
	shots       atomic.Int32
	announced   atomic.Int32
	probes      atomic.Int32
	exits       atomic.Int32
	closed      bool
	planted     bool // a fault was planted: the checkers must catch it

	disk *repositorytest.Disk // the repository volume of two nodes; nil without one

	headersLocked atomic.Bool          // no list of members can be written on it
	spare         *repositorytest.Disk // another one, at spareDevice
	lost          sync.Map             // devices that nobody reaches
	formats       atomic.Int32
	slowFormat    time.Duration
	unformatted   bool // the cluster is formed without formatting the volume

	watch     *watch
	stopWatch context.CancelFunc
}

type options struct {
	nodes    int
	groups   []string // each "name home ..." ; default g1 on n1, g2 on n2, g3 on n3
	profile  string
	fence    bool
	settings string // further lines of the definition's settings
	more     string // further lines of the definition
	seed     uint64
	volume   bool // a repository volume for more than two nodes, too
}

// inBubble runs a test of a cluster in fake time. A cluster that is made by newRig is closed, and its checkers asked, at the end.
func inBubble(t *testing.T, o options, test func(r *rig)) {
	t.Helper()
	inBubbleWith(t, o, func(*rig) {}, test)
}

// inBubbleWith lets the rig be changed before the cluster is formed.
func inBubbleWith(t *testing.T, o options, change, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		defer r.close()
		change(r)
		r.form()
		test(r)
	})
}

func newRig(t testing.TB, o options) *rig {
	t.Helper()
	if o.nodes == 0 {
		o.nodes = 3
	}
	if o.profile == "" {
		o.profile = "default"
	}
	if o.seed == 0 {
		o.seed = 1
	}
	params, err := lease.Profile(o.profile)
	must(t, err)
	world, err := sim.NewWorld("")
	must(t, err)
	r := &rig{t: t, options: o, params: params, class: lease.Independent, lan: fake.NewLAN(), world: world, ledger: newLedger(),
		rng: rand.New(rand.NewPCG(o.seed, 7)), log: slog.New(slog.DiscardHandler), groups: map[string][]string{}, machines: map[string]*machine{},
		fenceTime: 150 * time.Millisecond}
	r.lan.SetDelay(200 * time.Microsecond)
	if *verbose {
		r.ledger.watching = t.Logf
		r.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	dir := scratch(t)
	for i := range o.nodes {
		name := fmt.Sprintf("n%d", i+1)
		r.names = append(r.names, name)
		r.machines[name] = &machine{r: r, name: name, host: r.lan.Host(name), dir: filepath.Join(dir, name)}
		r.machines[name].host.PowerOff()
	}
	if o.nodes == 2 || o.volume {
		r.disk = repositorytest.NewDisk(repository.MinLabSize)
		r.options.more += "repositories:\n  - {name: repo, device: /dev/repo}\n"
		if o.groups == nil && o.nodes == 2 {
			o.groups = []string{"g1 n1 n2", "g2 n2 n1"}
			r.options.groups = o.groups
		}
	}
	if o.groups == nil {
		r.options.groups = []string{"g1 n1 n2 n3", "g2 n2 n3 n1", "g3 n3 n1 n2"}
	}
	for _, g := range r.options.groups {
		name := strings.Fields(g)[0]
		r.groups[name] = []string{name + "_ip", name + "_fs", name + "_app"}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stopWatch = cancel
	r.watch = newWatch(r)
	go r.watch.run(ctx)
	return r
}

// scratch is a directory for the machines' disks: in memory where that can be had, because time stands still while a disk writes.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "cluster-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// random is a number below n, from the rig's seed.
func (r *rig) random(n int) int {
	r.rngMu.Lock()
	defer r.rngMu.Unlock()
	return r.rng.IntN(n)
}

// definition is the cluster file.
func (r *rig) definition() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("name: test\nnodes:")
	for i, n := range r.names {
		p("  - {name: %s, addresses: {net1: 10.1.0.%d/24}}", n, i+1)
	}
	p("networks:\n  - {name: net1}\nservice_ips:")
	for i, g := range r.options.groups {
		p("  - {name: %s_ip, address: 10.1.0.%d, network: net1}", strings.Fields(g)[0], 100+i)
	}
	p("file_systems:")
	for _, g := range r.options.groups {
		n := strings.Fields(g)[0]
		p("  - {name: %s_fs, device: /dev/%s, mount_point: /mnt/%s, type: ext4}", n, n, n)
	}
	p("application_controllers:")
	for _, g := range r.options.groups {
		p("  - {name: %s_app, start_script: /opt/start, stop_script: /opt/stop}", strings.Fields(g)[0])
	}
	p("resource_groups:")
	for _, g := range r.options.groups {
		f := strings.Fields(g)
		p("  - {name: %s, nodes: [%s], startup: OHN, fallover: FNPN, fallback: NFB, service_ips: [%s_ip], file_systems: [%s_fs], applications: [%s_app]}",
			f[0], strings.Join(f[1:], ", "), f[0], f[0], f[0])
	}
	if r.options.fence {
		p("fence_devices:\n  - {name: power, agent: /opt/fence, nodes: [%s], timeout: 5s}", strings.Join(r.names, ", "))
	}
	p("%s", r.options.more)
	p("settings:\n  profile: %s\n%s", r.options.profile, r.options.settings)
	return b.String()
}

var operator = api.Caller{User: "operator", Role: api.RoleAdmin}

// form founds the cluster on the first node, joins the others, starts the services, and waits until all is online at home.
func (r *rig) form() {
	r.t.Helper()
	for _, n := range r.names {
		r.machines[n].boot()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, err := r.machines[r.names[0]].agent().CreateCluster(ctx, operator, api.CreateCluster{Name: "test", YAML: r.definition(), File: "test.yaml"})
	if err != nil {
		r.t.Fatalf("create the cluster: %v %+v", err, err)
	}
	for _, tok := range reply.Tokens {
		_, err := r.machines[tok.Node].agent().Join(ctx, operator, api.Join{Token: tok.Token})
		must(r.t, err)
	}
	r.await(30*time.Second, "all nodes are known", func() bool {
		s := r.status()
		for _, n := range s.Nodes {
			if n.Incarnation == 0 || !n.Voter && len(r.names) <= 5 && len(r.names)%2 == 1 {
				return false
			}
		}
		return len(s.Nodes) == len(r.names)
	})
	if r.disk != nil && !r.unformatted {
		r.do(api.Request{Op: api.OpFormat, Repository: "repo"})
		r.await(30*time.Second, "the repository votes", r.allVote)
	}
	r.do(api.Request{Op: api.OpStart})
	r.settle(30 * time.Second)
	time.Sleep(2 * lookEvery)
	r.watch.forget()
}

// close ends everything and asks the checkers.
func (r *rig) close() {
	r.t.Helper()
	if r.closed {
		return
	}
	r.closed = true
	r.stopWatch()
	r.snagMu.Lock()
	for _, s := range r.snags {
		if s.gate != nil {
			closeOnce(s.gate)
		}
	}
	r.snagMu.Unlock()
	for _, n := range r.names {
		m := r.machines[n]
		m.end("the test is over")
		m.release()
	}
	for _, z := range r.zombies {
		<-z.done
	}
	time.Sleep(time.Minute)
	r.check()
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// check fails the test if a promise was broken.
func (r *rig) check() {
	r.t.Helper()
	broken, journal := r.ledger.verdict()
	for _, v := range r.world.Violations() {
		broken = append(broken, v.String())
	}
	if r.planted {
		if len(broken) == 0 {
			r.t.Errorf("the planted fault was not caught; what happened:\n%s", strings.Join(tail(journal, 150), "\n"))
		} else {
			r.t.Logf("caught: %s", broken[0])
		}
		return
	}
	if len(broken) == 0 {
		return
	}
	for _, b := range broken {
		r.t.Errorf("%s", b)
	}
	r.t.Logf("seed %d; what happened:\n%s", r.options.seed, strings.Join(tail(journal, 150), "\n"))
}

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// fatal fails the test and shows what happened.
func (r *rig) fatal(format string, args ...any) {
	r.t.Helper()
	_, journal := r.ledger.verdict()
	for _, n := range r.names {
		if a := r.machines[n].agent(); a != nil {
			s := a.Status()
			r.t.Logf("%s sees: %s", n, summary(&s))
		}
	}
	if h, err := r.anyAgent().Events(0, 80); err == nil {
		for _, e := range h.Events {
			r.t.Logf("event %s %s %s %s: %s", e.Time.Format("15:04:05.000"), e.Kind, e.Node, e.Group, e.Sentence)
		}
	}
	r.t.Logf("seed %d; what happened:\n%s", r.options.seed, strings.Join(tail(journal, 120), "\n"))
	r.t.Fatalf(format, args...)
}

func summary(s *api.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s leader %q term %d index %d;", s.Cluster.State, s.Cluster.Leader, s.Cluster.Term, s.Cluster.AppliedIndex)
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, " %s %s/%d voter %v %s;", n.Name, n.State, n.Incarnation, n.Voter, n.Reason)
	}
	for _, g := range s.Groups {
		fmt.Fprintf(&b, " %s", g.Name)
		for _, i := range g.Instances {
			fmt.Fprintf(&b, " %s=%s", i.Node, i.State)
		}
		b.WriteString(";")
	}
	return b.String()
}

// await waits until the condition holds; it looks every 10 ms.
func (r *rig) await(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.fatal("after %v still not: %s", limit, what)
		}
	}
}

// connected reports whether the machine runs and has a majority of the others.
func (r *rig) connected(name string) bool {
	m := r.machines[name]
	m.mu.Lock()
	ok := m.on && m.frozen == nil
	m.mu.Unlock()
	if !ok {
		return false
	}
	if r.disk != nil {
		return true // with the volume it may have one alone
	}
	n := 1
	for _, o := range r.names {
		if o != name && r.machines[o].isOn() && r.lan.Open(name, o) {
			n++
		}
	}
	return n > len(r.names)/2
}

// leader is the machine that leads, "" if none does, as seen by itself and with a majority.
func (r *rig) leader() string {
	best, term := "", uint64(0)
	for _, n := range r.names {
		a := r.machines[n].agent()
		if a == nil || !r.connected(n) {
			continue
		}
		if s := a.Status(); s.Cluster.Leader == n && s.Cluster.Term > term {
			best, term = n, s.Cluster.Term
		}
	}
	return best
}

func (r *rig) awaitLeader(limit time.Duration) string {
	r.t.Helper()
	r.await(limit, "somebody leads", func() bool { return r.leader() != "" })
	return r.leader()
}

// anyAgent is an agent to ask: the leader's, or one with a majority, or any.
func (r *rig) anyAgent() *agent.Agent {
	if l := r.leader(); l != "" {
		if a := r.machines[l].agent(); a != nil {
			return a
		}
	}
	var out *agent.Agent
	for _, n := range r.names {
		if a := r.machines[n].agent(); a != nil && (out == nil || r.connected(n)) {
			out = a
		}
	}
	return out
}

func (r *rig) status() api.Status {
	if a := r.anyAgent(); a != nil {
		return a.Status()
	}
	return api.Status{}
}

var requests atomic.Uint64

// do gives a command, which must not fail.
func (r *rig) do(q api.Request) api.Reply {
	r.t.Helper()
	reply, err := r.try(q)
	if err != nil || reply.Refused != "" {
		r.fatal("%s: %v %s", q.Op, err, reply.Refused)
	}
	return reply
}

func (r *rig) try(q api.Request) (api.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	q.ID = fmt.Sprintf("test-request-%06d", requests.Add(1))
	a := r.anyAgent()
	if a == nil {
		return api.Reply{}, errEnded
	}
	return a.Do(ctx, operator, q)
}

// settled reports whether every group is online on exactly one machine, by the leader's word and by the ledger's.
func (r *rig) settled() bool {
	l := r.leader()
	if l == "" {
		return false
	}
	s := r.machines[l].agent().Status()
	if s.Cluster.State != api.ClusterStable {
		return false
	}
	for _, g := range s.Groups {
		online := ""
		for _, i := range g.Instances {
			if i.State == api.GroupOnline {
				online = i.Node
			}
		}
		if online == "" || r.ledger.server(r.groups[g.Name]) != online {
			return false
		}
	}
	return true
}

func (r *rig) settle(limit time.Duration) {
	r.t.Helper()
	r.await(limit, "every group is online and the cluster is stable", r.settled)
}

// holder is the machine that serves the group, "" for none.
func (r *rig) holder(group string) string { return r.ledger.server(r.groups[group]) }

// others lists the machines but the given ones.
func (r *rig) others(but ...string) []string {
	var out []string
next:
	for _, n := range r.names {
		for _, b := range but {
			if n == b {
				continue next
			}
		}
		out = append(out, n)
	}
	return out
}

// snag adds one; the returned function takes it away.
func (r *rig) snag(s *snag, times int) (remove func()) {
	s.times.Store(int32(times))
	if times == 0 {
		s.times.Store(-1)
	}
	r.snagMu.Lock()
	defer r.snagMu.Unlock()
	r.snags = append(r.snags, s)
	return func() { s.times.Store(0) }
}

func (r *rig) snagFor(node, op, resource string) *snag {
	r.snagMu.Lock()
	defer r.snagMu.Unlock()
	for _, s := range r.snags {
		if s.times.Load() == 0 || s.node != "" && s.node != node || s.op != "" && s.op != op || s.resource != "" && s.resource != resource {
			continue
		}
		if s.times.Load() > 0 {
			s.times.Add(-1)
		}
		return s
	}
	return nil
}

// expiry is how long after the last grant a silent node's resources may be started elsewhere.
func (r *rig) expiry() time.Duration {
	p := r.params
	return lease.Armed{Watchdog: p.Watchdog, MaxAge: p.MaxAge, Residue: p.Residue, Margin: p.Margin}.Expiry()
}

// tend does what the world around the cluster does: machines that were reset boot again, agents that ended are started again.
func (r *rig) tend() {
	for _, n := range r.names {
		m := r.machines[n]
		m.mu.Lock()
		on, gone, proc := m.on, time.Since(m.died), m.proc
		m.mu.Unlock()
		switch {
		case !on && gone > bootTime:
			m.boot()
		case on && proc == nil:
			m.startAgent()
		}
	}
}

// bootTime is how long a machine takes from its end until its agent runs again.
const bootTime = 3 * time.Second

// recover ends all faults and waits until the cluster serves everything again.
func (r *rig) recover(limit time.Duration) {
	r.t.Helper()
	for _, n := range r.names {
		r.machines[n].thaw()
	}
	r.lan.Heal()
	r.fenceBroken.Store(false)
	r.await(limit, "the cluster serves everything again after the end of all faults", func() bool {
		r.tend()
		r.startStopped()
		r.clearQuarantined()
		return r.allUp() && r.settled()
	})
}

// startStopped starts the services of nodes that are there and have them stopped.
func (r *rig) startStopped() {
	if r.leader() == "" {
		return
	}
	for _, n := range r.status().Nodes {
		if n.State == api.NodeOffline && n.Incarnation > 0 {
			_, _ = r.try(api.Request{Op: api.OpStart, Nodes: []string{n.Name}})
		}
	}
}

// clearQuarantined does what an operator does with a node that was reset too often, by design.
func (r *rig) clearQuarantined() {
	if r.leader() == "" {
		return
	}
	for _, n := range r.status().Nodes {
		if n.State == api.NodeQuarantined {
			_, _ = r.try(api.Request{Op: api.OpClear, Node: n.Name})
		}
	}
}

func (r *rig) allUp() bool {
	for _, n := range r.names {
		if r.machines[n].agent() == nil {
			return false
		}
	}
	for _, n := range r.status().Nodes {
		if n.State != api.NodeNormal {
			return false
		}
	}
	return true
}

// within fails the test if a group had an outage longer than the bound.
func (r *rig) within(bound time.Duration, what string) {
	r.t.Helper()
	for _, o := range r.watch.outages("") {
		if o.long > bound {
			r.fatal("%s: %s was not served for %v, the bound is %v", what, o.group, o.long, bound)
		}
	}
}

// ends waits until the machine is off, for its watchdog or its deadman has ended it.
func (r *rig) ends(name string, limit time.Duration) {
	r.t.Helper()
	r.await(limit, name+" is reset", func() bool { return !r.machines[name].isOn() })
}
