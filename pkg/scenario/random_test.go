package scenario

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// TestRandomClusters plays random steps on random clusters with every policy and dependency, and lets the checker watch. What
// is found here becomes a scenario.
func TestRandomClusters(t *testing.T) {
	worlds, length := 600, 40
	if testing.Short() {
		worlds = 150
	}
	first := 0
	if s := os.Getenv("HOLDFAST_SEED"); s != "" { // one world, with its story
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		first, worlds = n, 1
	}
	if s := os.Getenv("HOLDFAST_FIRST"); s != "" { // begin elsewhere
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		first = n
	}
	if s := os.Getenv("HOLDFAST_WORLDS"); s != "" { // more, for a long search
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		worlds = n
	}
	decisions, steps, refusals := 0, 0, 0
	for seed := first; seed < first+worlds; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		d := randomCluster(r)
		if p := d.Validate(); len(p) > 0 {
			t.Fatalf("seed %d: the generator made an unusable cluster: %v", seed, p)
		}
		w := newWorld(d, time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC))
		p := &parser{def: d}
		rep := &Report{OK: true}
		for i := range length {
			do := randomStep(r, d)
			if i == 0 {
				do = "online cluster"
			}
			a, err := p.parse(do)
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, do, err)
			}
			s := &StepReport{Step: i + 1, Do: do}
			before := w.s
			w.play(s, a)
			s.Failed = append(s.Failed, properties(w, before, s)...)
			rep.add(s)
			decisions += len(s.Decisions)
			steps++
			if s.Refused != "" {
				refusals++
			}
			if !rep.OK {
				var b strings.Builder
				_ = rep.Text(&b)
				t.Fatalf("seed %d:\n%s\n%s", seed, describe(d), shorten(b.String(), 75))
			}
		}
	}
	t.Logf("%d worlds, %d steps, %d decisions, %d refused requests", worlds, steps, decisions, refusals)
	if worlds > 100 && decisions < steps/4 {
		t.Error("hardly anything was decided: the test does not reach the planner")
	}
}

// properties are what holds after every step, beside the checker's promises.
func properties(w *world, before *state.State, s *StepReport) []string {
	var bad []string
	for _, d := range s.Decisions {
		if strings.TrimSpace(d.Reason) == "" {
			bad = append(bad, "not explained: "+d.Op+" "+d.Group+" on "+d.Node)
		}
	}
	// Deterministic: the same state gives the same plan, byte for byte, also after it was stored and read again.
	for _, st := range []*state.State{before, w.s} {
		one := fmt.Sprintf("%+v", scheduler.Plan(st, w.now))
		if two := fmt.Sprintf("%+v", scheduler.Plan(st, w.now)); one != two {
			bad = append(bad, "not deterministic:\n"+one+"\n"+two)
		}
	}
	if s.Step%10 == 0 {
		b, err := w.s.Encode()
		if err != nil {
			return append(bad, err.Error())
		}
		again, err := state.Decode(b)
		if err != nil {
			return append(bad, err.Error())
		}
		if one, two := fmt.Sprintf("%+v", scheduler.Plan(w.s, w.now)), fmt.Sprintf("%+v", scheduler.Plan(again, w.now)); one != two {
			bad = append(bad, "a stored state is planned otherwise:\n"+one+"\n"+two)
		}
		for _, g := range w.s.GroupNames() {
			if e := scheduler.Explain(w.s, g, w.now); len(e.Sentences) == 0 || len(e.Nodes) != len(w.def.Group(g).Nodes) {
				bad = append(bad, "not explained: "+g)
			}
		}
	}
	bad = append(bad, granted(w, s)...)
	if s.Step%3 == 0 {
		bad = append(bad, wakes(w)...)
	}
	return append(bad, calm(w, s)...)
}

// granted: where nothing fails, a request that was taken has its effect.
func granted(w *world, s *StepReport) []string {
	words := strings.Fields(s.Do)
	if s.Refused != "" || len(w.acquireFails)+len(w.releaseFails) > 0 || len(words) < 2 || w.def.Group(words[1]) == nil {
		return nil
	}
	g, online := words[1], []string{}
	for _, n := range w.def.Group(g).Nodes {
		if s.Groups[g][n] == "ONLINE" {
			online = append(online, n)
		}
	}
	switch {
	case words[0] == "offline" && len(words) == 2 && len(online) > 0:
	case words[0] == "offline" && len(words) == 3 && slices.Contains(online, words[2]):
	case words[0] == "online" && len(words) == 2 && len(online) == 0:
	case (words[0] == "online" || words[0] == "move") && len(words) == 3 && !slices.Contains(online, words[2]):
	default:
		return nil
	}
	return []string{fmt.Sprintf("without effect: %s was taken, and %s is online on %v: %s", s.Do, g, online,
		strings.Join(scheduler.Explain(w.s, g, w.now).Sentences, "; "))}
}

// wakes: the leader sleeps until Next, so the same state must not be planned otherwise before.
func wakes(w *world) []string {
	now := scheduler.Plan(w.s, w.now)
	for _, later := range []time.Duration{time.Second, 20 * time.Second, time.Minute, 59 * time.Minute, 61 * time.Minute, 9 * time.Hour, 23 * time.Hour} {
		at := w.now.Add(later)
		if !now.Next.IsZero() && !at.Before(now.Next) {
			return nil
		}
		if p := scheduler.Plan(w.s, at); len(p.Decisions) != len(now.Decisions) {
			return []string{fmt.Sprintf("sleeps too long: Next is %s, and %v from now (%s) it plans to %s %s on %s", now.Next, later, w.now,
				p.Decisions[0].Op, p.Decisions[0].Group, p.Decisions[0].Node)}
		}
	}
	return nil
}

// calm: a group moves at most as often as it has nodes, and once if nothing fails.
func calm(w *world, s *StepReport) []string {
	var bad []string
	starts := map[string]int{}
	for _, d := range s.Decisions {
		if d.Op == "acquire" {
			starts[d.Group]++
		}
	}
	failures := len(w.acquireFails) + len(w.releaseFails)
	for i := range w.def.ResourceGroups {
		g := &w.def.ResourceGroups[i]
		if n := starts[g.Name]; n > 2*len(g.Nodes)+2 || n > 1 && failures == 0 && len(w.def.Dependencies) == 0 &&
			g.Startup != cluster.OnlineOnAllAvailable && !strings.HasPrefix(s.Do, "wait") {
			bad = append(bad, fmt.Sprintf("not calm: %s was started %d times in one step", g.Name, n))
		}
	}
	return bad
}

// shorten keeps the end of a long story, and leaves out what repeats itself.
func shorten(s string, lines int) string {
	var l []string
	seen := map[string]int{}
	for line := range strings.SplitSeq(s, "\n") {
		if seen[line]++; seen[line] < 4 || !strings.HasPrefix(line, "step") {
			l = append(l, line)
		}
	}
	return strings.Join(l[max(0, len(l)-lines):], "\n")
}

func describe(d *cluster.Definition) string {
	var b strings.Builder
	for _, n := range d.Nodes {
		fmt.Fprintf(&b, "node %s capacity %d\n", n.Name, n.Capacity)
	}
	for _, g := range d.ResourceGroups {
		fmt.Fprintf(&b, "group %s %v %s %s %s at %q net %q prio %d weight %d dnp %q release %s\n", g.Name, g.Nodes, g.Startup, g.Fallover, g.Fallback,
			g.FallbackAt, g.Network, g.Priority, g.Weight, g.NodePriorityPolicy, g.OnReleaseFailure)
	}
	for _, x := range d.Dependencies {
		switch {
		case x.Parent != "":
			fmt.Fprintf(&b, "parent %s child %s\n", x.Parent, x.Child)
		case x.Start != "":
			fmt.Fprintf(&b, "start %s after %s\n", x.Start, x.After)
		case x.Stop != "":
			fmt.Fprintf(&b, "stop %s after %s\n", x.Stop, x.After)
		case x.SameNode != nil:
			fmt.Fprintf(&b, "same node %v\n", x.SameNode)
		case x.DifferentNodes != nil:
			fmt.Fprintf(&b, "different nodes %+v\n", *x.DifferentNodes)
		}
	}
	return b.String()
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomCluster makes a usable definition: dependencies that do not fit are left out again.
func randomCluster(r *rand.Rand) *cluster.Definition {
	d := &cluster.Definition{Name: "random", Networks: []cluster.Network{{Name: "net1"}, {Name: "net2"}},
		FallbackTimers: []cluster.FallbackTimer{{Name: "nightly", Repeats: "daily", Hour: 2}}}
	if r.IntN(3) == 0 {
		d.Settings.SettlingTime = 30 * time.Second
	}
	for i := 0; i < 2+r.IntN(4); i++ {
		n := cluster.Node{Name: fmt.Sprintf("n%d", i+1)}
		if r.IntN(5) == 0 {
			n.Capacity = 3 + r.IntN(5)
		}
		d.Nodes = append(d.Nodes, n)
	}
	for i := 0; i < 1+r.IntN(7); i++ {
		d.ResourceGroups = append(d.ResourceGroups, randomGroup(r, d, fmt.Sprintf("g%d", i+1)))
	}
	for i := 0; i < r.IntN(5); i++ {
		d.Dependencies = append(d.Dependencies, randomDependency(r, d))
		if len(d.Validate()) > 0 {
			d.Dependencies = d.Dependencies[:len(d.Dependencies)-1]
		}
	}
	d.Defaults()
	return d
}

func randomGroup(r *rand.Rand, d *cluster.Definition, name string) cluster.ResourceGroup {
	g := cluster.ResourceGroup{Name: name, Startup: pick(r, cluster.OnlineOnHomeNode, cluster.OnlineOnFirstAvailable, cluster.OnlineOnFirstAvailable,
		cluster.OnlineUsingDistribution, cluster.OnlineOnAllAvailable), Fallover: pick(r, cluster.FalloverToNextPriority, cluster.FalloverToNextPriority,
		cluster.FalloverUsingDNP, cluster.FalloverBringOffline), Fallback: pick(r, cluster.NeverFallback, cluster.FallbackToHigherPriority)}
	switch g.Startup {
	case cluster.OnlineOnAllAvailable:
		g.Fallover, g.Fallback = cluster.FalloverBringOffline, cluster.NeverFallback
	case cluster.OnlineUsingDistribution:
		g.Fallback = cluster.NeverFallback
		if g.Fallover == cluster.FalloverBringOffline {
			g.Fallover = cluster.FalloverToNextPriority
		}
	}
	if g.Fallover == cluster.FalloverUsingDNP {
		g.NodePriorityPolicy = pick(r, cluster.PriorityCPU, cluster.PriorityMemory, cluster.PriorityDisk)
	}
	if g.Fallback == cluster.FallbackToHigherPriority && r.IntN(4) == 0 {
		g.FallbackAt = "nightly"
	}
	for _, k := range r.Perm(len(d.Nodes))[:1+r.IntN(len(d.Nodes))] {
		g.Nodes = append(g.Nodes, d.Nodes[k].Name)
	}
	if r.IntN(3) == 0 {
		g.Network = pick(r, "net1", "net2")
	}
	if r.IntN(3) == 0 {
		g.Priority = r.IntN(4)
	}
	if r.IntN(3) == 0 {
		g.Weight = 1 + r.IntN(3)
	}
	if r.IntN(6) == 0 {
		g.OnReleaseFailure = cluster.OnReleaseFailureReset
	}
	return g
}

func randomDependency(r *rand.Rand, d *cluster.Definition) cluster.Dependency {
	perm := r.Perm(len(d.ResourceGroups))
	name := func(i int) string { return d.ResourceGroups[perm[i%len(perm)]].Name }
	switch r.IntN(5) {
	case 0:
		return cluster.Dependency{Parent: name(0), Child: name(1)}
	case 1:
		return cluster.Dependency{Start: name(0), After: name(1)}
	case 2:
		return cluster.Dependency{Stop: name(0), After: name(1)}
	case 3:
		set := []string{name(0), name(1)}
		if len(perm) > 2 && r.IntN(2) == 0 {
			set = append(set, name(2))
		}
		return cluster.Dependency{SameNode: set}
	}
	t := &cluster.DifferentNodes{}
	for i := 0; i < min(len(perm), 2+r.IntN(2)); i++ {
		switch r.IntN(3) {
		case 0:
			t.High = append(t.High, name(i))
		case 1:
			t.Intermediate = append(t.Intermediate, name(i))
		default:
			t.Low = append(t.Low, name(i))
		}
	}
	return cluster.Dependency{DifferentNodes: t}
}

func randomStep(r *rand.Rand, d *cluster.Definition) string {
	n := d.Nodes[r.IntN(len(d.Nodes))].Name
	gr := d.ResourceGroups[r.IntN(len(d.ResourceGroups))]
	g := gr.Name
	if r.IntN(2) == 0 {
		n = gr.Nodes[r.IntN(len(gr.Nodes))]
	}
	switch r.IntN(34) {
	case 0, 1, 2:
		return "crash " + n
	case 3:
		return "lose " + n
	case 4:
		return "prove " + n
	case 5, 6, 7, 8, 9:
		return "join " + n
	case 10, 11:
		return "move " + g + " " + n
	case 12:
		return "online " + g
	case 13:
		return "online " + g + " " + n
	case 14:
		return pick(r, "offline "+g, "offline "+g+" "+n)
	case 15:
		return "unset-priority " + g
	case 16, 17:
		return "fail " + g + " " + n
	case 18:
		return "acquire-fails " + g + " " + n
	case 19, 20:
		return "acquire-works " + g + " " + n
	case 21:
		return "release-fails " + g + " " + n
	case 22, 23:
		return "release-works " + g + " " + n
	case 24, 25:
		return "clear " + g
	case 26:
		return "network-down " + pick(r, "net1", "net2") + " " + n
	case 27:
		return "network-up " + pick(r, "net1", "net2") + " " + n
	case 28:
		return pick(r, "suspend ", "resume ", "resume ") + g
	case 29:
		return "measure " + n + fmt.Sprintf(" cpu=%d mem=%d disk=%d", r.IntN(100), r.IntN(9999), r.IntN(100))
	case 30:
		return "wait " + pick(r, "10s", "1m", "10h", "25h")
	case 31:
		return pick(r, "offline "+n, "offline "+n+" move", "offline "+n+" unmanage")
	case 32:
		return pick(r, "online cluster", "online "+n, "online "+n+" manual")
	}
	if r.IntN(4) == 0 {
		return pick(r, "offline cluster", "offline cluster move", "offline cluster unmanage")
	}
	return "online cluster"
}
