package scenario

import (
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// world is the simulation: one log, and nodes that do what it says.
type world struct {
	def   *cluster.Definition
	s     *state.State
	now   time.Time
	index uint64

	machines     map[string]*machine
	acquireFails map[pair]bool
	releaseFails map[pair]bool

	check *checker
	step  *StepReport // the one under way
	// stuck is set when planning did not come to an end: nothing more is done.
	stuck bool
}

// machine is a simulated node: what it really runs, whatever the log says.
type machine struct {
	boots    int
	alive    bool // it runs; it may be silent
	silent   bool
	running  map[string]uint64 // group -> generation
	netsDown map[string]bool
}

func newWorld(d *cluster.Definition, start time.Time) *world {
	w := blank(d, start)
	w.must(state.Command{Create: &state.Create{ClusterID: "simulation", Definition: d}})
	for _, n := range nodeNames(d) {
		w.machines[n] = &machine{running: map[string]uint64{}, netsDown: map[string]bool{}}
		w.boot(n)
	}
	return w
}

func blank(d *cluster.Definition, start time.Time) *world {
	return &world{def: d, s: state.New(), now: start.UTC(), machines: map[string]*machine{}, acquireFails: map[pair]bool{},
		releaseFails: map[pair]bool{}, check: newChecker(d), step: &StepReport{}}
}

// liveWorld begins where a running cluster stands.
func liveWorld(s *state.State, now time.Time) *world {
	w := blank(s.Definition, now)
	w.s, w.index = s, s.Index
	for _, name := range s.NodeNames() {
		n := s.Nodes[name]
		m := &machine{alive: n.Incarnation > 0 && n.Dead == nil, silent: n.Lost != nil, running: map[string]uint64{}, netsDown: map[string]bool{}}
		for _, net := range n.NetworksDown {
			m.netsDown[net] = true
		}
		for _, g := range s.GroupNames() {
			if i := s.Instance(g, name); i.Held && m.alive {
				m.running[g] = i.Generation
			}
		}
		w.machines[name] = m
	}
	return w
}

// apply puts a command into the log.
func (w *world) apply(c state.Command) state.Result {
	w.index++
	c.At = w.now
	var r state.Result
	w.s, r = state.Apply(w.s, state.Entry{Index: w.index, Term: 1, Command: &c})
	return r
}

// must applies what cannot be refused unless the simulation itself is wrong.
func (w *world) must(c state.Command) state.Result {
	r := w.apply(c)
	if r.Refused != "" {
		w.broken("the simulation's own %s was refused: %s", c.Kind(), r.Refused)
	}
	return r
}

func (w *world) broken(format string, args ...any) {
	w.step.Failed = append(w.step.Failed, fmt.Sprintf(format, args...))
}

// request is the operator's: admitted, then committed.
func (w *world) request(c state.Command) {
	a := scheduler.Admit(w.s, &c, w.now)
	switch {
	case a.Refused != "":
		w.step.Refused = a.Refused
	case a.Already:
	default:
		if r := w.apply(c); r.Refused != "" {
			w.step.Refused = r.Refused
		}
	}
}

// boot starts a machine's daemon: the log numbers the boot, and the first probe finds everything stopped.
func (w *world) boot(name string) {
	m := w.machines[name]
	m.boots++
	m.alive, m.silent, m.running = true, false, map[string]uint64{}
	n := w.s.Nodes[name]
	id := fmt.Sprintf("boot %d of %s at %d", m.boots, name, w.index)
	inc := w.must(state.Command{NodeBoot: &state.NodeBoot{Node: name, BootID: id, Replaces: n.Incarnation, AllStopped: true}}).Incarnation
	for i := range w.def.Networks {
		if net := w.def.Networks[i].Name; m.netsDown[net] {
			w.must(state.Command{NetworkState: &state.NetworkState{Node: name, Incarnation: inc, Network: net}})
		}
	}
	if def := w.def.Node(name); def.PlatformRestart { // in a simulation the old boot is over
		for _, f := range w.s.Nodes[name].Former {
			w.must(state.Command{Proof: &state.Proof{Node: name, Incarnation: f.Incarnation, Kind: state.ProofOperator}})
		}
	}
}

// dies ends a machine, with all that it runs.
func (w *world) dies(name string, kind state.ProofKind, why string) {
	m, n := w.machines[name], w.s.Nodes[name]
	m.alive, m.silent, m.running = false, false, map[string]uint64{}
	p := &state.Proof{Node: name, Incarnation: n.Incarnation, Kind: kind, Sentence: why}
	if kind == state.ProofTime {
		if n.Armed == nil {
			p.Kind = state.ProofNeverArmed
		} else {
			p.Time = &lease.TimeProof{T0: 1, Now: lease.Instant(1).Add(n.Armed.Expiry()), Armed: *n.Armed}
		}
	}
	w.must(state.Command{Proof: p})
}

func (w *world) crash(name string) {
	if m := w.machines[name]; m.alive {
		w.dies(name, state.ProofFenced, "")
	}
}

func (w *world) lose(name string) {
	m := w.machines[name]
	if !m.alive || m.silent {
		return
	}
	m.silent = true
	w.must(state.Command{NodeLost: &state.NodeLost{Node: name, Incarnation: w.s.Nodes[name].Incarnation, Sentence: "no sign of life on any path"}})
}

func (w *world) prove(name string) {
	if m := w.machines[name]; m.alive && m.silent {
		w.dies(name, state.ProofFenced, "")
	}
}

func (w *world) join(name string) {
	if m := w.machines[name]; !m.alive || m.silent {
		w.boot(name)
	} else if w.s.Nodes[name].Up() {
		return
	}
	w.request(state.Command{NodeServices: &state.NodeServices{Nodes: []string{name}, Start: state.StartAuto}})
}

func (w *world) fail(group, node string) {
	i := w.s.Instance(group, node)
	m := w.machines[node]
	if _, runs := m.running[group]; !runs || m.silent || i.State != state.Online {
		return // nothing runs there that could fail, or nobody hears of it
	}
	w.apply(state.Command{Report: &state.Report{Node: node, Incarnation: i.Incarnation, Group: group, Generation: i.Generation, Applied: w.s.Index,
		Outcome: state.OutcomeAppFailed, Sentence: "beyond its restarts"}})
}

func (w *world) network(net, node string, up bool) {
	m := w.machines[node]
	if up {
		delete(m.netsDown, net)
	} else {
		m.netsDown[net] = true
	}
	if m.alive && !m.silent {
		w.apply(state.Command{NetworkState: &state.NetworkState{Node: node, Incarnation: w.s.Nodes[node].Incarnation, Network: net, Up: up}})
	}
}

func (w *world) measure(node string, ms state.Measures) {
	if m := w.machines[node]; m.alive && !m.silent {
		w.apply(state.Command{Measure: &state.Measure{Node: node, Incarnation: w.s.Nodes[node].Incarnation, Measures: ms}})
	}
}

// wait moves the clock, from timer to timer.
func (w *world) wait(d time.Duration) {
	end := w.now.Add(d)
	for !w.stuck {
		next := w.settle()
		if next.IsZero() || next.After(end) {
			break
		}
		if !next.After(w.now) {
			w.broken("a timer is due at %s, and planning it changes nothing", next.Format(time.RFC3339))
			w.stuck = true
			break
		}
		w.now = next
	}
	w.now = end
}

// settle lets leader and nodes go on until nothing more is planned, and returns when a timer will change that.
func (w *world) settle() time.Time {
	limit := 100 + 10*len(w.def.ResourceGroups)*(1+len(w.def.Nodes)) // far beyond what any chain needs
	for range limit {
		acted := w.nodesAct()
		plan := scheduler.Plan(w.s, w.now)
		if !acted && len(plan.Decisions) == 0 {
			return plan.Next
		}
		for _, d := range plan.Decisions {
			w.decide(d)
		}
	}
	w.broken("planning does not come to an end")
	w.stuck = true
	return time.Time{}
}

// decide commits a decision.
func (w *world) decide(d scheduler.Decision) {
	w.step.record(d)
	if d.Op == scheduler.OpAcquire {
		for _, why := range w.check.mayStart(w, d.Group, d.Node) {
			w.broken("%s", why)
		}
	}
	if r := w.apply(d.Command()); r.Refused != "" {
		w.broken("the plan's %s of %s on %s was refused: %s", d.Op, d.Group, d.Node, r.Refused)
	}
}

// nodesAct lets each node do what the log says about its instances, and report.
func (w *world) nodesAct() bool {
	acted := false
	for i := range w.def.Nodes {
		name := w.def.Nodes[i].Name
		m, n := w.machines[name], w.s.Nodes[name]
		if !m.alive || m.silent || n.Dead != nil {
			continue
		}
		if n.Resetting != "" {
			w.dies(name, state.ProofTime, "it gave up its lease")
			acted = true
			continue
		}
		for j := range w.def.ResourceGroups {
			g := &w.def.ResourceGroups[j]
			if w.s.Groups[g.Name].Instances[name] != nil {
				acted = w.act(name, m, g) || acted
			}
		}
	}
	return acted
}

// act does one node's part for one group.
func (w *world) act(node string, m *machine, g *cluster.ResourceGroup) bool {
	i := w.s.Instance(g.Name, node)
	if !i.Held || i.Incarnation != w.s.Nodes[node].Incarnation {
		return false
	}
	report := func(o state.Outcome, why string) {
		w.must(state.Command{Report: &state.Report{Node: node, Incarnation: i.Incarnation, Group: g.Name, Generation: i.Generation, Outcome: o, Sentence: why, Applied: w.s.Index}})
	}
	switch i.State {
	case state.Acquiring:
		w.arm(node)
		if w.acquireFails[pair{g.Name, node}] {
			delete(m.running, g.Name)
			report(state.OutcomeAcquireFailed, "simulated")
			break
		}
		m.running[g.Name] = i.Generation
		report(state.OutcomeOnline, "")
	case state.Releasing:
		if w.releaseFails[pair{g.Name, node}] {
			report(state.OutcomeReleaseFailed, "simulated")
			break
		}
		if _, runs := m.running[g.Name]; runs {
			for _, why := range w.check.mayStop(w, g.Name, node) {
				w.broken("%s", why)
			}
		}
		delete(m.running, g.Name)
		report(state.OutcomeReleased, "")
	default:
		return false
	}
	for _, why := range w.check.exclusive(w, g.Name) {
		w.broken("%s", why)
	}
	return true
}

// arm commits the node's Armed fact before its first start.
func (w *world) arm(node string) {
	n := w.s.Nodes[node]
	if n.Armed != nil {
		return
	}
	p, err := lease.Profile(w.def.Settings.Profile)
	if err != nil {
		p, _ = lease.Profile("")
	}
	w.must(state.Command{Armed: &state.Armed{Arming: fmt.Sprintf("arming at %d", w.index), Fact: lease.Armed{Node: node, Incarnation: n.Incarnation,
		Class: lease.Independent, Mode: lease.ModeReset, Watchdog: p.Watchdog, MaxAge: p.MaxAge, Residue: p.Residue, Margin: p.Margin}}})
}
