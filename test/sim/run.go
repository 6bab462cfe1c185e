package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Stats count what runs have done.
type Stats struct {
	Runs, Steps                                         int
	Simulated                                           time.Duration
	Boots, Fired, KillTimer, Fenced, Orphans, Starts    int
	Messages, Lost, Repeated                            int
	Elections, Leads, StoodDown, VoterChanges           int
	Grants, NotCarried, Plans, Failovers, Acknowledged  int
	Refused, Snapshots, Entries                         int
	Faults, Commands, Proofs, Local, Resets, Unexplored map[string]int
	Events                                              map[string]int // steps by what they are
	Settled                                             time.Duration  // the longest time from the end of the faults to a settled cluster
	Unplaceable                                         int

	Watch func(line string) // each line of the trace, if set
}

// NewStats is for one or several runs.
func NewStats() *Stats {
	return &Stats{Faults: map[string]int{}, Commands: map[string]int{}, Proofs: map[string]int{}, Local: map[string]int{}, Resets: map[string]int{},
		Events: map[string]int{}}
}

// Run makes one run: a cluster is built, disturbed for so many steps, left alone, and must come to rest with all groups where
// they can be. It returns the first broken promise, nil if there was none.
func Run(o Options, stats *Stats) *Violation {
	w := newWorld(o, stats)
	for w.steps < o.Steps && w.failed == nil && w.step() {
	}
	if w.failed == nil && o.Bug == nil { // what is planted must break a promise of safety
		w.heal()
	}
	w.ops.check()
	stats.Runs++
	stats.Steps += w.steps
	stats.Simulated += w.now
	stats.Entries += len(w.canon)
	return w.failed
}

// Shrink finds how few of a failing run's faults are enough, by leaving out the last ones.
func Shrink(o Options, v *Violation) (Options, *Violation) {
	low, high := 1, v.Faults
	best, found := o, v
	for low < high {
		mid := (low + high) / 2
		try := o
		try.MaxFaults = mid
		if x := Run(try, NewStats()); x != nil && x.Check == v.Check {
			high, best, found = mid, try, x
		} else {
			low = mid + 1
		}
	}
	return best, found
}

func newWorld(o Options, stats *Stats) *world {
	w := &world{opt: o, bug: o.Bug, stats: stats, r: rand.New(rand.NewPCG(o.Seed, 1)), fr: rand.New(rand.NewPCG(o.Seed, 2)),
		byName: map[string]*node{}, wall0: time.Date(2026, 3, 2, 8, 59, 20, 0, time.UTC)}
	count := pick(w.fr, 1, 3, 3, 3, 3, 4, 5, 5, 6, 7)
	if o.Bug != nil {
		count = pick(w.fr, 3, 3, 4, 5)
		if o.Bug.Nodes > 0 {
			count = o.Bug.Nodes
		}
	}
	w.def0 = randomDefinition(w.fr, count)
	if o.Bug != nil {
		w.def0.Settings.DeadmanMode = "a"
	}
	w.book, w.truth, w.ops = newLedger(w), newTruth(w), &operators{w: w}
	w.newest = state.New()
	w.params0 = timingOf(nil)
	for i := range w.def0.Nodes {
		n := &node{w: w, name: w.def0.Nodes[i].Name, index: i, class: lease.Independent, netDown: map[string]bool{}, late: map[string]time.Duration{}, again: map[string]time.Duration{},
			snapEvery: 5 + w.fr.IntN(60), unheld: w.fr.IntN(8) == 0, remembers: w.fr.IntN(4) == 0}
		if w.fr.IntN(7) == 0 {
			n.class = lease.Process
		}
		if o.Bug != nil && o.Bug.Class != "" {
			n.class = o.Bug.Class
		}
		n.disk.tombstones = map[string]uint64{}
		w.nodes = append(w.nodes, n)
		w.names = append(w.names, n.name)
		w.byName[n.name] = n
		w.cut = append(w.cut, make([]int, count))
	}
	w.found()
	for _, n := range w.nodes {
		w.after(w.fbetween(0, 500*time.Millisecond), "boot", func() { w.boot(n) })
	}
	w.after(3*time.Second, "services", func() { w.startServices() })
	w.after(8*time.Second, "fault", w.inject)
	w.after(9*time.Second, "operator", w.ops.live)
	clients := &lockClients{w: w, r: rand.New(rand.NewPCG(o.Seed, 3))}
	w.after(10*time.Second, "locks", clients.live)
	w.after(time.Second, "watch", w.watchLosers)
	return w
}

// found is how a cluster begins (membership.go: found, admit): the first entries, and who votes.
func (w *world) found() {
	voters := w.names[:1]
	if len(w.names) >= 3 {
		voters = w.names[:3]
	}
	if len(w.names) >= 5 {
		voters = w.names[:5]
	}
	list := []*entry{{voters: voters}, {cmd: &state.Command{Create: &state.Create{ClusterID: "sim", Definition: w.def0}}}}
	for i, n := range w.names {
		if hash := fmt.Sprintf("%064x", i); i > 0 {
			list = append(list, &entry{cmd: &state.Command{TokenAdd: &state.TokenAdd{Hash: hash, Node: n, Expires: w.wall0.Add(time.Hour)}}},
				&entry{cmd: &state.Command{TokenUse: &state.TokenUse{Hash: hash, Node: n}}})
		}
		list = append(list, &entry{cmd: &state.Command{SetMember: &state.SetMember{Node: n, RaftID: n + "-1"}}})
	}
	for i, e := range list {
		e.index, e.term = uint64(i+1), 1
		if e.cmd != nil {
			e.cmd.At = w.wall0
		}
		w.committed(e)
	}
	for _, n := range w.nodes {
		d := &n.disk.raft
		d.term, d.log = 1, append([]*entry(nil), list...)
		d.snap, d.snapOf = uint64(len(list)), w.newest
	}
}

// startServices asks a leader, until it is done.
func (w *world) startServices() {
	n := w.leaderNode()
	if n == nil {
		w.after(300*time.Millisecond, "services", w.startServices)
		return
	}
	w.ops.give(n.m.agent, &state.Command{NodeServices: &state.NodeServices{Start: state.StartAuto}}, func(refused string) {
		if refused != "" {
			w.after(300*time.Millisecond, "services", w.startServices)
		}
	})
}

// heal ends all faults, repairs what operators must repair, and waits until the cluster is at rest.
func (w *world) heal() {
	w.calm, w.healed = true, w.now
	w.note("HEAL", "", "")
	w.net, w.sticky, w.slow, w.traps = netQuality{}, false, 0, nil
	for i := range w.cut {
		clear(w.cut[i])
	}
	for _, n := range w.nodes {
		n.exec, n.fence, n.lagUntil, n.wallOffset, n.unreset, n.offUntil = execFaults{}, fenceFaults{}, 0, 0, false, w.now
		n.disk.full = false
		clear(n.netDown)
		for _, m := range append([]*machine{n.m}, n.old...) {
			w.resume(m.agentP)
			if m.dead != nil {
				w.resume(m.dead.p)
			}
			for _, u := range m.units {
				if u.action != nil {
					u.action.stuck = false
				}
			}
			if m.agent != nil {
				m.agent.stuckUntil = min(m.agent.stuckUntil, w.now)
			}
		}
		if !n.m.up {
			w.after(max(time.Second, n.m.quiet+time.Millisecond-w.now), "boot", func() { w.boot(n) })
		}
	}
	w.after(12*time.Second, "repair", w.repair)
	limit := w.now + 3*time.Minute
	quiet := 0
	for w.failed == nil {
		next := w.now + time.Second
		for w.now < next && w.failed == nil && w.step() {
		}
		why := w.unsettled()
		if why == "" {
			if quiet++; quiet == 3 {
				w.stats.Settled = max(w.stats.Settled, w.now-w.healed)
				return
			}
			continue
		}
		quiet = 0
		if w.now > limit {
			w.fail("liveness", "%v after the last fault: %s", w.now-w.healed, why)
		}
	}
}

// repair is what operators do after the storm, again and again until nothing is left to do.
func (w *world) repair() {
	n := w.leaderNode()
	if n == nil {
		w.after(time.Second, "repair", w.repair)
		return
	}
	a, v := n.m.agent, w.newest
	give := func(c *state.Command) { w.ops.give(a, c, func(string) {}) }
	for _, name := range v.NodeNames() {
		x := v.Node(name)
		if x.Quarantined != "" {
			give(&state.Command{ClearNode: &state.ClearNode{Node: name}})
		}
		if x.Alive() && x.Services != state.ServicesOn && x.Services != state.ServicesStopping {
			give(&state.Command{NodeServices: &state.NodeServices{Nodes: []string{name}, Start: state.StartAuto}})
		}
		// In mode e a human resets a node that the cluster has declared dead, or that must give up its lease.
		if m := w.byName[name].m; (x.Dead != nil || x.Resetting != "") && m.up && m.dead != nil && m.dead.k.State().ModeEvent {
			w.byName[name].powerOff("reset by the operator")
		}
		// An earlier boot that no proof has ended: the operator switches it off, and says so.
		for _, f := range x.Former {
			for _, m := range w.byName[name].old {
				m.end("switched off", 0)
				m.silent()
			}
			a.commit(&state.Command{Proof: &state.Proof{Node: name, Incarnation: f.Incarnation, Kind: state.ProofOperator, Sentence: "it is gone"}},
				func(state.Result, error) {})
		}
	}
	for _, name := range v.GroupNames() {
		g := v.Group(name)
		_, inst := g.Holder()
		switch {
		case g.Suspended:
			give(&state.Command{ResumeGroup: &state.ResumeGroup{Group: name}})
		case unmanaged(g):
			give(&state.Command{ManageGroup: &state.ManageGroup{Group: name}})
		case g.Phase == state.PhaseError || inError(g):
			give(&state.Command{ClearGroup: &state.ClearGroup{Group: name}})
		case g.Offline || len(g.OfflineOn) > 0 || inst == nil:
			give(&state.Command{OnlineGroup: &state.OnlineGroup{Group: name}})
		}
	}
	w.after(5*time.Second, "repair", w.repair)
}

// heldBy lists what the log says that a node holds.
func (w *world) heldBy(v *state.State, node string) string {
	out := ""
	for _, g := range v.GroupNames() {
		if i := v.Instance(g, node); i.Held {
			out += fmt.Sprintf("%s %s since %d by %d; ", g, i.State, i.Since, i.Incarnation)
		}
	}
	if out == "" {
		return "nothing"
	}
	return out
}

func inError(g *state.Group) bool {
	for _, i := range g.Instances {
		if i.State == state.Error {
			return true
		}
	}
	return false
}

func unmanaged(g *state.Group) bool {
	for _, i := range g.Instances {
		if i.State == state.Unmanaged {
			return true
		}
	}
	return false
}

// unsettled says what is not at rest; empty if all is.
func (w *world) unsettled() string {
	l := w.leaderNode()
	if l == nil {
		return "nobody leads"
	}
	v := w.newest
	for _, name := range v.NodeNames() {
		if n := v.Node(name); !n.Up() {
			return fmt.Sprintf("node %s is not up: %s (%s), dead %v, lost %v, holds %s", name, n.Services, n.StopMode, n.Dead, n.Lost != nil, w.heldBy(v, name))
		}
	}
	wall := w.wall(l)
	for _, name := range v.GroupNames() {
		if why := w.groupUnsettled(v, name, wall); why != "" {
			return why
		}
	}
	if p := scheduler.Plan(v, wall); len(p.Decisions) > 0 {
		return fmt.Sprintf("the plan is not empty: %s %s on %s (%s)", p.Decisions[0].Op, p.Decisions[0].Group, p.Decisions[0].Node, p.Decisions[0].Reason)
	}
	return ""
}

func (w *world) groupUnsettled(v *state.State, name string, wall time.Time) string {
	g, d := v.Group(name), v.Definition.Group(name)
	online := 0
	for _, node := range d.Nodes {
		i := v.Instance(name, node)
		switch {
		case i.State == state.Online:
			online++
			if u := w.byName[node].m.units[name]; u == nil || u.state != running {
				n := v.Node(node)
				return fmt.Sprintf("group %s is online on %s by the log (incarnation %d of %d, former %v), and does not run there", name, node, i.Incarnation, n.Incarnation, n.Former)
			}
		case i.Held:
			n := v.Node(node)
			return fmt.Sprintf("group %s is %s on %s, held by incarnation %d of %d (former %v)", name, i.State, node, i.Incarnation, n.Incarnation, n.Former)
		}
	}
	if online > 0 {
		return ""
	}
	x := scheduler.Admit(v, &state.Command{OnlineGroup: &state.OnlineGroup{Group: name}}, wall)
	if x.Refused != "" {
		w.stats.Unplaceable++
		return ""
	}
	return fmt.Sprintf("group %s is nowhere online (phase %s, reason %s), and could be", name, g.Phase, g.LastReason)
}
