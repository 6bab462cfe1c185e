package scenario

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// TestAgainstASimplePlacement plays random steps on small clusters of independent groups, and compares each state with that of
// a second, much simpler placement, which is written from the documented rules alone and thinks in events.
func TestAgainstASimplePlacement(t *testing.T) {
	worlds := 1200
	if testing.Short() {
		worlds = 150
	}
	compared := 0
	for seed := 0; seed < worlds; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		d := simpleCluster(r)
		if p := d.Validate(); len(p) > 0 {
			t.Fatalf("seed %d: %v", seed, p)
		}
		w := newWorld(d, time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC))
		o := newOracle(d, w.now)
		p := &parser{def: d}
		var story strings.Builder
		for i := range 35 {
			do := simpleStep(r, d)
			a, err := p.parse(do)
			if err != nil {
				t.Fatal(err)
			}
			s := &StepReport{Step: i + 1, Do: do}
			w.play(s, a)
			o.step(do)
			rep := &Report{Steps: []*StepReport{s}}
			_ = rep.Text(&story)
			if len(s.Failed) > 0 {
				t.Fatalf("seed %d: %v\n%s%s", seed, s.Failed, describe(d), story.String())
			}
			if (s.Refused != "") != o.refused {
				t.Fatalf("seed %d: %s: refused %q, the simple placement says refused %v\n%s%s", seed, do, s.Refused, o.refused, describe(d), story.String())
			}
			for _, g := range d.ResourceGroups {
				for _, n := range g.Nodes {
					compared++
					if got, want := s.Groups[g.Name][n], o.shows(g.Name, n); got != want {
						t.Fatalf("seed %d: after %s %s on %s is %s, the simple placement says %s\n%s%s", seed, do, g.Name, n, got, want, describe(d), story.String())
					}
				}
			}
		}
	}
	t.Logf("%d states compared in %d worlds", compared, worlds)
}

func simpleCluster(r *rand.Rand) *cluster.Definition {
	d := &cluster.Definition{Name: "simple", Networks: []cluster.Network{{Name: "net1"}}}
	for i := range 3 {
		d.Nodes = append(d.Nodes, cluster.Node{Name: fmt.Sprintf("n%d", i+1)})
	}
	for i := 0; i < 1+r.IntN(3); i++ {
		g := cluster.ResourceGroup{Name: fmt.Sprintf("g%d", i+1), Startup: pick(r, cluster.OnlineOnHomeNode, cluster.OnlineOnFirstAvailable),
			Fallover: pick(r, cluster.FalloverToNextPriority, cluster.FalloverToNextPriority, cluster.FalloverBringOffline),
			Fallback: pick(r, cluster.NeverFallback, cluster.FallbackToHigherPriority)}
		for _, k := range r.Perm(3)[:1+r.IntN(3)] {
			g.Nodes = append(g.Nodes, d.Nodes[k].Name)
		}
		if r.IntN(2) == 0 {
			g.Network = "net1"
		}
		d.ResourceGroups = append(d.ResourceGroups, g)
	}
	d.Defaults()
	return d
}

func simpleStep(r *rand.Rand, d *cluster.Definition) string {
	g := d.ResourceGroups[r.IntN(len(d.ResourceGroups))]
	n := g.Nodes[r.IntN(len(g.Nodes))]
	if r.IntN(3) == 0 {
		n = d.Nodes[r.IntN(len(d.Nodes))].Name
	}
	return pick(r, "online cluster", "online cluster", "online "+n, "online "+n+" manual", "offline "+n, "offline "+n+" move", "crash "+n, "crash "+n,
		"join "+n, "join "+n, "join "+n, "lose "+n, "prove "+n, "move "+g.Name+" "+n, "move "+g.Name+" "+n, "unset-priority "+g.Name,
		"offline "+g.Name, "online "+g.Name, "fail "+g.Name+" "+n, "fail "+g.Name+" "+n, "clear "+g.Name, "acquire-fails "+g.Name+" "+n,
		"acquire-works "+g.Name+" "+n, "acquire-works "+g.Name+" "+n, "network-down net1 "+n, "network-up net1 "+n, "wait 2h", "offline cluster")
}

// oracle is the simple placement.
type oracle struct {
	def     *cluster.Definition
	now     time.Time
	nodes   map[string]*oracleNode
	groups  map[string]*oracleGroup
	fails   map[pair]bool
	refused bool
}

type oracleNode struct{ alive, silent, up, manual, netDown bool }

type oracleGroup struct {
	def      *cluster.ResourceGroup
	at       string // the node that runs it
	unknown  bool   // ... and is silent
	errorAt  string
	override string
	offline  bool // by request
	parked   bool // left offline by a stop
	started  bool // it has been online (or tried) since the cluster started: failovers, no startup
	request  bool // the operator wants it: any node of the list
	lostNet  bool // in ERROR, and a node was left out for its network
	tried    []string
	appMark  map[string]time.Time
	acqMark  map[string]bool
	inFlight bool
}

func newOracle(d *cluster.Definition, now time.Time) *oracle {
	o := &oracle{def: d, now: now, nodes: map[string]*oracleNode{}, groups: map[string]*oracleGroup{}, fails: map[pair]bool{}}
	for _, n := range d.Nodes {
		o.nodes[n.Name] = &oracleNode{alive: true}
	}
	for i := range d.ResourceGroups {
		o.groups[d.ResourceGroups[i].Name] = &oracleGroup{def: &d.ResourceGroups[i], appMark: map[string]time.Time{}, acqMark: map[string]bool{}}
	}
	return o
}

func (o *oracle) shows(group, node string) string {
	g := o.groups[group]
	switch {
	case g.at == node && g.unknown:
		return "UNKNOWN"
	case g.at == node:
		return "ONLINE"
	case g.errorAt == node:
		return "ERROR"
	}
	return "OFFLINE"
}

func (o *oracle) all(f func(*oracleGroup)) {
	for i := range o.def.ResourceGroups {
		f(o.groups[o.def.ResourceGroups[i].Name])
	}
}

func (o *oracle) able(g *oracleGroup, node string) bool {
	n := o.nodes[node]
	return n.alive && !n.silent && n.up && !(g.def.Network != "" && n.netDown) && slices.Contains(g.def.Nodes, node) && !slices.Contains(g.tried, node)
}

func (o *oracle) young(g *oracleGroup, node string) bool {
	at, ok := g.appMark[node]
	return ok && o.now.Sub(at) < time.Hour
}

func (o *oracle) failed(g *oracleGroup, node string) bool {
	_, app := g.appMark[node]
	return app || g.acqMark[node]
}

// failover finds the first node of the list that can take it: unmarked ones first, then those marked long ago.
func (o *oracle) failover(g *oracleGroup, not string) string {
	for _, want := range []bool{false, true} {
		for _, n := range g.def.Nodes {
			_, app := g.appMark[n]
			if n != not && o.able(g, n) && app == want && (!o.young(g, n) || g.request) {
				return n
			}
		}
	}
	return ""
}

// target says where a group that is offline should start; "" for nowhere.
func (o *oracle) target(g *oracleGroup) string {
	if _, app := g.appMark[g.override]; g.override != "" && o.able(g, g.override) && !app {
		return g.override
	}
	switch {
	case g.request:
		return o.failover(g, "")
	case !g.started:
		for _, old := range []bool{false, true} { // marks count like in a failover
			for i, n := range g.def.Nodes {
				_, app := g.appMark[n]
				if (i == 0 || g.def.Startup != cluster.OnlineOnHomeNode) && o.able(g, n) && !o.nodes[n].manual && app == old && !o.young(g, n) {
					return n
				}
			}
		}
		return ""
	case g.def.Fallover == cluster.FalloverBringOffline && !g.inFlight:
		return ""
	}
	return o.failover(g, "")
}

// settle lets everything happen that the rules ask for.
func (o *oracle) settle() {
	for changed := true; changed; {
		changed = false
		o.all(func(g *oracleGroup) { changed = o.once(g) || changed })
	}
}

func (o *oracle) once(g *oracleGroup) bool {
	if g.unknown || g.offline || g.parked && g.at == "" {
		return false
	}
	if g.at != "" {
		return o.leaves(g)
	}
	if g.errorAt != "" && len(g.tried) == 0 {
		return false
	}
	n := o.target(g)
	if n == "" {
		if len(g.tried) == 0 {
			return false
		}
		g.errorAt = g.tried[len(g.tried)-1]
		g.lostNet = false
		for _, l := range g.def.Nodes {
			nd := o.nodes[l]
			if g.def.Network != "" && nd.netDown && nd.up && nd.alive && !nd.silent && g.def.Fallover != cluster.FalloverBringOffline {
				g.lostNet = true
			}
		}
		g.tried = nil
		return true
	}
	g.started, g.request, g.errorAt, g.inFlight = true, false, "", false
	if o.fails[pair{g.def.Name, n}] {
		g.tried = append(g.tried, n)
		g.acqMark[n] = true
		return true
	}
	g.at, g.tried = n, nil
	return true
}

// leaves moves a running group if a rule asks for it.
func (o *oracle) leaves(g *oracleGroup) bool {
	to := ""
	switch {
	case g.override != "" && g.override != g.at && o.able(g, g.override) && !o.failed(g, g.override):
		to = g.override
	case g.def.Network != "" && o.nodes[g.at].netDown:
		if g.def.Fallover != cluster.FalloverBringOffline {
			for _, n := range g.def.Nodes {
				if n != g.at && o.able(g, n) && !o.failed(g, n) && to == "" {
					to = n
				}
			}
			if g.override != "" && g.override == g.at {
				break
			}
		}
	case g.override == "" && g.def.Fallback == cluster.FallbackToHigherPriority:
		for _, n := range g.def.Nodes {
			if n == g.at {
				break
			}
			if o.able(g, n) && !o.failed(g, n) && !o.nodes[n].manual {
				to = n
				break
			}
		}
	}
	if to == "" {
		return false
	}
	g.at = ""
	if o.fails[pair{g.def.Name, to}] {
		g.tried = append(g.tried, to)
		g.acqMark[to] = true
		return true
	}
	g.at = to
	return true
}

func (o *oracle) anyUp() bool {
	for _, n := range o.nodes {
		if n.alive && n.up {
			return true
		}
	}
	return false
}

// gone: the last node has left.
func (o *oracle) gone(inOrder bool) {
	if o.anyUp() {
		return
	}
	o.all(func(g *oracleGroup) {
		if g.at != "" {
			return
		}
		if inOrder {
			g.override, g.offline = "", false
		}
		if g.errorAt == "" {
			g.started, g.request, g.parked, g.tried, g.inFlight = false, false, false, nil, false
		}
	})
}

func (o *oracle) startNode(name string, manual bool) {
	n := o.nodes[name]
	if !n.alive || n.silent || n.up {
		return
	}
	first := !o.anyUp()
	n.up, n.manual = true, manual
	o.all(func(g *oracleGroup) {
		if !slices.Contains(g.def.Nodes, name) {
			return
		}
		delete(g.appMark, name)
		delete(g.acqMark, name)
		if manual || g.at != "" {
			return
		}
		bo := g.def.Fallover == cluster.FalloverBringOffline
		switch {
		case g.errorAt != "" && (first || bo):
			g.errorAt, g.started = "", false
		case g.errorAt != "":
			g.errorAt = ""
		case g.parked:
			g.parked, g.started = false, false
		case g.started && bo:
			g.started, g.inFlight = false, false
		}
	})
}

func (o *oracle) stopNode(name string, move bool) {
	n := o.nodes[name]
	if !n.alive || n.silent || !n.up {
		return
	}
	n.up = false
	o.all(func(g *oracleGroup) {
		if g.override == name {
			g.override = ""
		}
		if g.at == name {
			g.at = ""
			g.parked, g.inFlight = !move, move
		}
	})
}

func (o *oracle) die(name string) {
	n := o.nodes[name]
	if !n.alive {
		return
	}
	n.alive, n.silent, n.up = false, false, false
	o.all(func(g *oracleGroup) {
		if g.override == name {
			g.override = ""
		}
		if g.at == name {
			g.at, g.unknown = "", false
		}
	})
	o.gone(false)
}

// again is what the operator's online and move do to a group that is not running.
func (o *oracle) again(g *oracleGroup) {
	g.offline, g.errorAt, g.tried, g.lostNet = false, "", nil, false
	if g.at == "" {
		g.request, g.parked, g.started = true, false, true
	}
}

// step does one step, and settles.
func (o *oracle) step(do string) {
	o.refused = false
	f := strings.Fields(do)
	g := o.groups[f[len(f)-1]]
	if len(f) > 1 && o.groups[f[1]] != nil {
		g = o.groups[f[1]]
	}
	switch {
	case do == "online cluster":
		for _, n := range o.def.Nodes {
			o.startNode(n.Name, false)
		}
	case do == "offline cluster":
		ran := o.anyUp()
		for _, n := range o.def.Nodes {
			o.stopNode(n.Name, false)
		}
		if ran {
			o.gone(true)
		}
	case f[0] == "online" && g != nil:
		o.onlineGroup(g)
	case f[0] == "offline" && g != nil:
		if o.refused = g.unknown; !o.refused {
			if !g.offline || g.at != "" {
				g.override = ""
			}
			g.offline, g.at, g.errorAt, g.tried, g.parked, g.request, g.lostNet = true, "", "", nil, true, false, false
		}
	case f[0] == "online":
		n := o.nodes[f[1]]
		o.refused = !n.alive || n.silent && !n.up
		if !o.refused {
			o.startNode(f[1], len(f) == 3)
		}
	case f[0] == "offline":
		n := o.nodes[f[1]]
		o.refused = n.alive && n.silent && n.up
		last := true
		for name, other := range o.nodes {
			last = last && (name == f[1] || !other.alive || other.silent || !other.up)
		}
		if was := n.up; !o.refused {
			o.stopNode(f[1], len(f) == 3 && !last)
			if was {
				o.gone(true)
			}
		}
	case f[0] == "crash":
		o.die(f[1])
	case f[0] == "prove":
		if o.nodes[f[1]].silent {
			o.die(f[1])
		}
	case f[0] == "lose":
		if n := o.nodes[f[1]]; n.alive && !n.silent {
			n.silent = true
			o.all(func(g *oracleGroup) { g.unknown = g.unknown || g.at == f[1] })
		}
	case f[0] == "join":
		n := o.nodes[f[1]]
		if n.silent {
			o.die(f[1])
		}
		n.alive = true
		o.startNode(f[1], false)
	case f[0] == "move":
		o.moveGroup(g, f[2])
	case f[0] == "unset-priority":
		g.override = ""
	case f[0] == "fail":
		if g.at == f[2] && !g.unknown {
			g.appMark[f[2]] = o.now
			g.at = ""
			g.tried = append(g.tried, f[2])
		}
	case f[0] == "clear":
		o.clear(g)
	case f[0] == "acquire-fails":
		o.fails[pair{g.def.Name, f[2]}] = true
	case f[0] == "acquire-works":
		delete(o.fails, pair{g.def.Name, f[2]})
	case f[0] == "network-down":
		o.nodes[f[2]].netDown = true
	case f[0] == "network-up":
		o.networkUp(f[2])
	case f[0] == "wait":
		o.now = o.now.Add(2 * time.Hour)
	}
	o.settle()
}

func (o *oracle) onlineGroup(g *oracleGroup) {
	switch {
	case g.unknown:
		o.refused = true
	case g.at != "":
	default:
		if !slices.ContainsFunc(g.def.Nodes, func(n string) bool { x := *g; x.tried = nil; return o.able(&x, n) }) {
			o.refused = true
			return
		}
		o.again(g)
	}
}

func (o *oracle) moveGroup(g *oracleGroup, node string) {
	x := *g
	x.tried = nil
	there := g.at == node && !g.unknown && o.nodes[node].up
	if g.unknown || !there && !o.able(&x, node) || !slices.Contains(g.def.Nodes, node) {
		o.refused = true
		return
	}
	delete(g.appMark, node)
	delete(g.acqMark, node)
	g.override = node
	o.again(g)
}

func (o *oracle) clear(g *oracleGroup) {
	clear(g.appMark)
	clear(g.acqMark)
	if g.errorAt != "" {
		g.errorAt, g.lostNet = "", false
		g.started = g.def.Fallover != cluster.FalloverBringOffline
	}
}

func (o *oracle) networkUp(node string) {
	n := o.nodes[node]
	was := n.netDown
	n.netDown = false
	if !was || !n.alive || n.silent {
		return
	}
	o.all(func(g *oracleGroup) {
		if g.def.Network == "" || !slices.Contains(g.def.Nodes, node) {
			return
		}
		delete(g.acqMark, node)
		if g.errorAt != "" && g.lostNet {
			g.errorAt, g.lostNet = "", false
		}
	})
}
