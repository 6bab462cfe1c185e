package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// parseMembers reads a line such as "a:VL b:V! c:- d:?": V votes, L leads, ! proven dead, ? silent, ~ alive but not caught up;
// anything else is alive and caught up. The rank is the place in the line.
func parseMembers(line string) []Member {
	var out []Member
	for rank, word := range strings.Fields(line) {
		id, marks, _ := strings.Cut(word, ":")
		has := func(s string) bool { return strings.Contains(marks, s) }
		out = append(out, Member{
			ID: id, Rank: rank, Voter: has("V"), Leader: has("L"), Dead: has("!"),
			Alive: !has("!") && !has("?"), CaughtUp: !has("!") && !has("?") && !has("~"), Repository: id == "R",
		})
	}
	return out
}

func TestPlanVoters(t *testing.T) {
	for _, tc := range []struct {
		name, members, want string
		nodes               int // 0: those of the line
	}{
		{"one node votes alone", "a:VL", "", 0},
		{"two nodes: no second vote without the repository voter", "a:VL b:-", "", 0},
		{"one to three, nobody has caught up", "a:VL b:~ c:~", "", 0},
		{"one to three, one has caught up: two would stand no loss", "a:VL b:- c:~", "", 0},
		{"one to three, both have", "a:VL b:- c:-", "+b +c", 0},
		{"one to three, interrupted after the first", "a:VL b:V c:-", "+c", 0},
		{"one to three, interrupted, the other is behind again", "a:VL b:V c:~", "", 0},
		{"four nodes, three vote", "a:VL b:- c:- d:-", "+b +c", 0},
		{"four nodes, by rank of those that have caught up", "a:VL b:~ c:- d:-", "+c +d", 0},
		{"three nodes, settled", "a:VL b:V c:V", "", 0},
		{"three nodes, one silent: silence is no proof", "a:VL b:V c:V?", "", 0},
		{"three nodes, one dead: it keeps its vote, never two", "a:VL b:V c:V!", "", 0},
		{"three nodes, two dead", "a:VL b:V! c:V!", "", 0},
		{"four nodes, a voter dead: the fourth takes its vote", "a:VL b:V c:V! d:-", "+d -c", 0},
		{"four nodes, a voter dead, the fourth is behind", "a:VL b:V c:V! d:~", "", 0},
		{"four nodes, a voter dead, the fourth is silent", "a:VL b:V c:V! d:?", "", 0},
		{"interrupted between the two steps", "a:VL b:V c:V! d:V", "-c", 0},
		{"the dead is back, without its vote", "a:VL b:V c:- d:V", "", 0},
		{"five nodes, all vote", "a:VL b:- c:- d:- e:-", "+b +c +d +e", 0},
		{"five nodes, three have caught up: three votes", "a:VL b:- c:- d:- e:~", "+b +c", 0},
		{"five nodes, three vote, one newcomer: four stand no more", "a:VL b:V c:V d:- e:~", "", 0},
		{"five nodes, three vote, both newcomers", "a:VL b:V c:V d:- e:-", "+d +e", 0},
		{"five votes, one dead, nobody left", "a:VL b:V c:V d:V e:V!", "", 0},
		{"five votes, two dead, nobody left: three stand one more", "a:VL b:V c:V d:V! e:V!", "-e -d", 0},
		{"five votes, three dead: no quorum, nothing can be changed", "a:VL b:V c:V! d:V! e:V!", "-e -d", 0},
		{"six nodes, one dead of five", "a:VL b:V c:V d:V e:V! f:-", "+f -e", 0},
		{"seven nodes, two dead of five, two heirs", "a:VL b:V c:V! d:V e:V! f:- g:-", "+f -e +g -c", 0},
		{"32 nodes", "a:VL b:V c:V d:V e:V f:- g:- h:-", "", 0},
		{"a member was removed: four votes of four members", "a:VL b:V c:V d:V", "-d", 0},
		{"never the leader, though it is last", "a:V b:V c:V d:VL", "-c", 0},
		{"rather the silent one", "a:VL b:V? c:V d:V", "-b", 0},
		{"five votes of four members, one dead", "a:VL b:V! c:V d:V e:V", "", 0},
		{"growing while a voter is dead: replaced, not grown", "a:VL b:V c:V! d:- e:-", "+d -c", 0},
		{"the dead leader's vote, seen by the new one", "a:V! b:VL c:V d:-", "+d -a", 0},
		{"nobody votes: nothing to plan", "a:- b:- c:-", "", 0},
		{"no members", "", "", 0},
		{"two nodes and the repository", "a:VL b:- R:-", "+b +R", 0},
		{"two nodes, the repository is behind: one votes alone", "a:VL b:- R:~", "", 0},
		{"two nodes, the repository does not answer", "a:VL b:- R:?", "", 0},
		{"two nodes, the other is behind: the repository alone is no help", "a:VL b:~ R:-", "", 0},
		{"two nodes, interrupted after the node", "a:VL b:V R:-", "+R", 0},
		{"two nodes, interrupted after the node, the repository is gone", "a:VL b:V R:?", "", 0},
		{"two nodes, interrupted after the repository", "a:VL b:- R:V", "+b", 0},
		{"two nodes, settled", "a:VL b:V R:V", "", 0},
		{"two nodes, the volume is lost: nothing changes", "a:VL b:V R:V?", "", 0},
		{"two nodes, one dead: nothing changes", "a:VL b:V! R:V", "", 0},
		{"two nodes, one silent", "a:VL b:V? R:V", "", 0},
		{"two nodes become one", "a:VL R:V", "-R", 0},
		{"three nodes, settled: the repository does not vote", "a:VL b:V c:V R:-", "", 0},
		{"three nodes, one silent: silence is no proof", "a:VL b:V c:V? R:-", "", 0},
		{"three nodes, one dead: the repository takes its vote", "a:VL b:V c:V! R:-", "+R -c", 0},
		{"three nodes, one dead, no volume: it keeps its vote", "a:VL b:V c:V! R:?", "", 0},
		{"three nodes, one dead, interrupted", "a:VL b:V c:V! R:V", "-c", 0},
		{"three nodes, the third is back but behind", "a:VL b:V c:~ R:V", "", 0},
		{"three nodes, the third votes again", "a:VL b:V c:- R:V", "+c -R", 0},
		{"three nodes, the third votes again, though the volume is lost", "a:VL b:V c:- R:V?", "+c -R", 0},
		{"three nodes, the third votes again, interrupted", "a:VL b:V c:V R:V", "-R", 0},
		{"two grow to three, the newcomer is behind", "a:VL b:V c:~ R:V", "", 0},
		{"one to three, one has caught up: with the repository", "a:VL b:- c:~ R:-", "+b +R", 0},
		{"one to three, both have: without it", "a:VL b:- c:- R:-", "+b +c", 0},
		{"four nodes, a voter dead: the fourth takes its vote, not the repository", "a:VL b:V c:V! d:- R:-", "+d -c", 0},
		{"four nodes, two dead: the repository", "a:VL b:V c:V! d:! R:-", "+R -c", 0},
		{"five votes, two dead: three nodes are left", "a:VL b:V c:V d:V! e:V! R:-", "-e -d", 0},
		{"three left of five, one more dead", "a:VL b:V c:V! d:! e:! R:-", "+R -c", 0},
		{"two nodes, the other joins again: the repository keeps its vote", "a:VL R:V", "", 2},
		{"two nodes, the other joins again, the repository is silent", "a:VL R:V?", "", 2},
		{"three nodes, one joins again: the repository votes with the two", "a:VL b:V R:-", "+R", 3},
		{"five nodes, one joins again", "a:VL b:V c:V d:V", "-d", 5},
	} {
		var got []string
		for _, c := range PlanVoters(parseMembers(tc.members), tc.nodes) {
			if c.Reason == "" {
				t.Errorf("%s: no reason for %v", tc.name, c)
			}
			got = append(got, map[VoterOp]string{Promote: "+", Demote: "-"}[c.Op]+c.ID)
		}
		if g := strings.Join(got, " "); g != tc.want {
			t.Errorf("%s: plan %q, want %q", tc.name, g, tc.want)
		}
	}
}

// Properties, on random members: a plan is deterministic; it settles (the members it leads to need no further change); its
// steps keep the leader's vote, never lower the votes below three once there were three, never demote a living member
// while the votes are at most the target, and promote only members that live and have caught up.
func TestPlanVotersProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		members := randomMembers(rng)
		plan := PlanVoters(members, 0)
		shuffled := slices.Clone(members)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := PlanVoters(shuffled, 0); !slices.Equal(plan, again) {
			t.Fatalf("%v: %v, in another order %v", members, plan, again)
		}
		for i, c := range plan {
			if msg := step(members, c); msg != "" {
				t.Fatalf("%s\nmembers %+v\nplan %v, step %d", msg, members, plan, i)
			}
		}
		if more := PlanVoters(members, 0); len(more) > 0 {
			t.Fatalf("after %v still %v\nmembers %+v", plan, more, members)
		}
	}
}

func randomMembers(rng *rand.Rand) []Member {
	members := make([]Member, rng.IntN(8)+1)
	for i := range members {
		m := Member{ID: fmt.Sprint(i), Rank: rng.IntN(3), Voter: rng.IntN(2) == 0}
		switch rng.IntN(4) {
		case 0:
			m.Dead = true
		case 1:
		default:
			m.Alive, m.CaughtUp = true, rng.IntN(3) > 0
		}
		members[i] = m
	}
	if rng.IntN(2) == 0 {
		m := Member{ID: "R", Rank: 9, Repository: true, Voter: rng.IntN(2) == 0, Alive: rng.IntN(3) > 0}
		m.CaughtUp = m.Alive && rng.IntN(3) > 0
		members = append(members, m)
	}
	members[0].Voter, members[0].Leader, members[0].Dead, members[0].Alive, members[0].CaughtUp = true, true, false, true, true
	return members
}

// step makes one change and says what is wrong with it.
func step(members []Member, c VoterChange) string {
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == c.ID })
	m := &members[i]
	votes, nodes, living, all := 0, 0, 0, 0
	for _, o := range members {
		if o.Voter {
			all++
		}
		if o.Voter && !o.Repository {
			votes++
		}
		if !o.Repository {
			nodes++
		}
		if o.Voter && !o.Dead && !o.Repository {
			living++
		}
	}
	switch {
	case m.Repository && c.Op == Demote && (!m.Voter || living == 2 || living == 1 && nodes > 1):
		return "takes the repository's vote while it is needed"
	case m.Repository && c.Op == Demote:
		m.Voter = false
		return ""
	case m.Repository && (living != 2 || !m.Alive || !m.CaughtUp || m.Voter):
		return "gives the repository a vote"
	case c.Op == Promote && (m.Voter || !m.Alive || m.Dead || !m.CaughtUp):
		return "promotes " + m.ID
	case c.Op == Demote && (!m.Voter || m.Leader):
		return "demotes " + m.ID
	case c.Op == Demote && all <= 3 && nodes >= 3:
		return "leaves fewer than three votes"
	case c.Op == Demote && !m.Dead && votes <= target(nodes) && votes%2 == 1:
		return "demotes the living " + m.ID
	}
	m.Voter = c.Op == Promote
	return ""
}
