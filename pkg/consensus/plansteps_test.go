package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A votingWorld is a cluster over time: nodes and the volume come, go, fall silent, are proven dead, join again under new servers,
// and the leader plans in between, one step at a time, interrupted at will.
type votingWorld struct {
	rng     *rand.Rand
	nodes   []*votingNode // of the definition
	repo    *Member       // nil: the cluster has no volume
	story   []string
	servers int
	// rejoining is the node whose old server is gone and whose new one is not there yet.
	rejoining *votingNode
}

type votingNode struct {
	name   string
	server string // "" while it is not in the configuration
	voter  bool
	up     bool // it answers
	dead   bool // proven
	caught bool
}

func newVotingWorld(rng *rand.Rand, nodes int, repo bool) *votingWorld {
	w := &votingWorld{rng: rng}
	for range nodes {
		w.add()
	}
	w.nodes[0].voter, w.nodes[0].caught, w.nodes[0].up = true, true, true
	if repo {
		w.repo = &Member{ID: "R", Repository: true, Alive: true, CaughtUp: true}
	}
	return w
}

func (w *votingWorld) add() {
	w.servers++
	w.nodes = append(w.nodes, &votingNode{name: fmt.Sprintf("n%d", len(w.nodes)+1), server: fmt.Sprint("s", w.servers), up: true})
}

func (w *votingWorld) say(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...)+"   ["+w.votes()+"]")
}

func (w *votingWorld) votes() string {
	var out []string
	for _, n := range w.nodes {
		s := n.name + ":"
		if n.voter {
			s += "V"
		}
		switch {
		case n.server == "":
			s += "absent"
		case n.dead:
			s += "!"
		case !n.up:
			s += "?"
		case !n.caught:
			s += "~"
		}
		out = append(out, s)
	}
	if w.repo != nil {
		s := "R:"
		if w.repo.Voter {
			s += "V"
		}
		if !w.repo.Alive {
			s += "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// spare is how many more failures the votes survive; below 0 nothing can be decided.
func (w *votingWorld) spare() int {
	all, up := 0, 0
	for _, n := range w.nodes {
		if n.voter {
			all++
			if n.up {
				up++
			}
		}
	}
	if w.repo != nil && w.repo.Voter {
		all++
		if w.repo.Alive {
			up++
		}
	}
	return up - (all/2 + 1)
}

// promised is how many failures a cluster of this size survives when all is well.
func (w *votingWorld) promised() int {
	switch n := len(w.nodes); {
	case n >= 5:
		return 2
	case n >= 3, n == 2 && w.repo != nil:
		return 1
	}
	return 0
}

// leader is a voter that is up and has caught up; there is one when there is a majority.
func (w *votingWorld) leader() *votingNode {
	if w.spare() < 0 {
		return nil
	}
	var can []*votingNode
	for _, n := range w.nodes {
		if n.voter && n.up {
			can = append(can, n)
		}
	}
	if len(can) == 0 {
		return nil
	}
	return can[w.rng.IntN(len(can))]
}

func (w *votingWorld) members(leader *votingNode) []Member {
	var out []Member
	for rank, n := range w.nodes {
		if n.server != "" {
			self := n == leader
			out = append(out, Member{ID: n.server, Voter: n.voter, Leader: self, Rank: rank, Dead: n.dead && !n.up, Alive: n.up, CaughtUp: self || n.up && n.caught})
		}
	}
	if w.repo != nil {
		out = append(out, *w.repo)
	}
	return out
}

// step makes the first change of the plan. It returns false when there is nothing to do, or nobody who can.
func (w *votingWorld) step(t *testing.T) bool {
	leader := w.leader()
	if leader == nil {
		return false
	}
	plan := PlanVoters(w.members(leader), len(w.nodes))
	if len(plan) == 0 {
		return false
	}
	c, before := plan[0], w.spare()
	needed := w.repo != nil && len(w.nodes) == 2
	if c.ID == "R" {
		w.repo.Voter = c.Op == Promote
		if !w.repo.Voter && needed {
			w.say("%s %s", c.Op, c.ID)
			w.fail(t, "the repository's vote is taken from a cluster of two nodes")
		}
	}
	for _, n := range w.nodes {
		if n.server == c.ID && c.ID != "" {
			n.voter = c.Op == Promote
		}
	}
	w.say("%s %s (%s)", c.Op, c.ID, c.Reason)
	after := w.spare()
	switch {
	case after < 0:
		w.fail(t, "a step that cannot be committed, or after which nothing can be decided")
	case after < min(before, w.promised()):
		w.fail(t, fmt.Sprintf("the votes survived %d failures before the step, and survive %d after it; %d are promised", before, after, w.promised()))
	}
	return true
}

func (w *votingWorld) fail(t *testing.T, why string) {
	t.Helper()
	t.Fatalf("%s\n%s", why, strings.Join(w.story[max(0, len(w.story)-25):], "\n"))
}

// happen changes the world.
func (w *votingWorld) happen() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch w.rng.IntN(11) {
	case 0, 1:
		if n.up && n.server != "" {
			n.up = false
			if w.spare() < 0 && w.rng.IntN(20) > 0 { // seldom more than it can stand: nothing happens then
				n.up = true
				return
			}
			w.say("%s falls silent", n.name)
		}
	case 2, 3:
		if !n.up && !n.dead && w.spare() >= 0 && n.server != "" { // a proof is committed
			n.dead = true
			w.say("%s is proven dead", n.name)
		}
	case 4:
		if !n.up && n.server != "" {
			n.up, n.dead, n.caught = true, false, n.voter
			w.say("%s is back", n.name)
		}
	case 5, 6:
		if n.up {
			n.caught = true
		}
	case 7: // its disk was lost: it joins again. Its old server goes first, and its new one comes in a second change.
		if !n.up && w.rejoining == nil && w.spare() >= 0 && n.server != "" {
			n.server, n.voter, n.dead = "", false, false
			w.rejoining = n
			w.say("the old server of %s is removed", n.name)
		}
	case 8:
		if r := w.rejoining; r != nil && w.spare() >= 0 {
			w.servers++
			r.server, r.up, r.dead, r.caught = fmt.Sprint("s", w.servers), true, false, false
			w.rejoining = nil
			w.say("the new server of %s is added", r.name)
		}
	case 9:
		if w.repo != nil {
			w.repo.Alive = !w.repo.Alive
			if w.spare() < 0 && w.rng.IntN(20) > 0 {
				w.repo.Alive = true
			}
			w.repo.CaughtUp = w.repo.Alive
			w.say("the volume is there: %v", w.repo.Alive)
		}
	case 10:
		if len(w.nodes) < 6 && w.rng.IntN(4) == 0 {
			w.add()
			w.say("%s joins", w.nodes[len(w.nodes)-1].name)
		}
	}
}

// settle brings everything back and lets the leader finish.
func (w *votingWorld) settle(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		if n.server == "" {
			w.servers++
			n.server = fmt.Sprint("s", w.servers)
		}
		n.up, n.dead, n.caught = true, false, true
	}
	w.rejoining = nil
	if w.repo != nil {
		w.repo.Alive, w.repo.CaughtUp = true, true
	}
	w.say("all is well")
	for i := 0; w.step(t); i++ {
		if i > 30 {
			w.fail(t, "the plans do not come to an end")
		}
	}
	if got := w.spare(); got < w.promised() {
		w.fail(t, fmt.Sprintf("with everything back, %d failures are survived; %d are promised", got, w.promised()))
	}
	if w.repo != nil && w.repo.Voter != (len(w.nodes) == 2) {
		w.fail(t, fmt.Sprintf("%d nodes are well, and the repository votes: %v", len(w.nodes), w.repo.Voter))
	}
}

// TestPlanVotersOverTime: no step makes a cluster survive fewer failures than before, down to what is promised for its size; the
// repository's vote is never taken from two nodes; and when all is well again, the votes are as they should be, the repository's
// only with two nodes.
func TestPlanVotersOverTime(t *testing.T) {
	steps, stuck := 0, 0
	for seed := range uint64(12000) {
		rng := rand.New(rand.NewPCG(seed, 11))
		w := newVotingWorld(rng, 1+rng.IntN(5), rng.IntN(3) > 0)
		for range 60 {
			if rng.IntN(3) == 0 {
				if w.step(t) {
					steps++
				}
			} else {
				w.happen()
			}
			if living := w.living(); w.repo != nil && w.repo.Voter && living >= 3 && w.leader() != nil {
				// Never for good: the next step of whoever leads ends it, unless something else is more pressing.
				plan := PlanVoters(w.members(w.leader()), len(w.nodes))
				if !slices.ContainsFunc(plan, func(c VoterChange) bool { return c.ID == "R" && c.Op == Demote }) {
					w.fail(t, "the repository votes beside three nodes, and no plan ends it")
				}
			}
			if w.spare() < 0 {
				stuck++
			}
		}
		w.settle(t)
	}
	t.Logf("%d steps; at %d moments more was broken than is promised", steps, stuck)
	if steps < 10000 {
		t.Errorf("only %d steps were made", steps)
	}
}

// living counts the voting nodes that are not proven dead.
func (w *votingWorld) living() int {
	n := 0
	for _, o := range w.nodes {
		if o.voter && !(o.dead && !o.up) {
			n++
		}
	}
	return n
}
