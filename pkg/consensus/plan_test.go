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
	for _, tc := range []struct{ name, members, want string }{
		{"one node votes alone", "a:VL", ""},
		{"two nodes: no second vote without the repository voter", "a:VL b:-", ""},
		{"one to three, nobody has caught up", "a:VL b:~ c:~", ""},
		{"one to three, one has caught up: two would stand no loss", "a:VL b:- c:~", ""},
		{"one to three, both have", "a:VL b:- c:-", "+b +c"},
		{"one to three, interrupted after the first", "a:VL b:V c:-", "+c"},
		{"one to three, interrupted, the other is behind again", "a:VL b:V c:~", ""},
		{"four nodes, three vote", "a:VL b:- c:- d:-", "+b +c"},
		{"four nodes, by rank of those that have caught up", "a:VL b:~ c:- d:-", "+c +d"},
		{"three nodes, settled", "a:VL b:V c:V", ""},
		{"three nodes, one silent: silence is no proof", "a:VL b:V c:V?", ""},
		{"three nodes, one dead: it keeps its vote, never two", "a:VL b:V c:V!", ""},
		{"three nodes, two dead", "a:VL b:V! c:V!", ""},
		{"four nodes, a voter dead: the fourth takes its vote", "a:VL b:V c:V! d:-", "+d -c"},
		{"four nodes, a voter dead, the fourth is behind", "a:VL b:V c:V! d:~", ""},
		{"four nodes, a voter dead, the fourth is silent", "a:VL b:V c:V! d:?", ""},
		{"interrupted between the two steps", "a:VL b:V c:V! d:V", "-c"},
		{"the dead is back, without its vote", "a:VL b:V c:- d:V", ""},
		{"five nodes, all vote", "a:VL b:- c:- d:- e:-", "+b +c +d +e"},
		{"five nodes, three have caught up: three votes", "a:VL b:- c:- d:- e:~", "+b +c"},
		{"five nodes, three vote, one newcomer: four stand no more", "a:VL b:V c:V d:- e:~", ""},
		{"five nodes, three vote, both newcomers", "a:VL b:V c:V d:- e:-", "+d +e"},
		{"five votes, one dead, nobody left", "a:VL b:V c:V d:V e:V!", ""},
		{"five votes, two dead, nobody left: three stand one more", "a:VL b:V c:V d:V! e:V!", "-e -d"},
		{"five votes, three dead: no quorum, nothing can be changed", "a:VL b:V c:V! d:V! e:V!", "-e -d"},
		{"six nodes, one dead of five", "a:VL b:V c:V d:V e:V! f:-", "+f -e"},
		{"seven nodes, two dead of five, two heirs", "a:VL b:V c:V! d:V e:V! f:- g:-", "+f -e +g -c"},
		{"32 nodes", "a:VL b:V c:V d:V e:V f:- g:- h:-", ""},
		{"a member was removed: four votes of four members", "a:VL b:V c:V d:V", "-d"},
		{"never the leader, though it is last", "a:V b:V c:V d:VL", "-c"},
		{"rather the silent one", "a:VL b:V? c:V d:V", "-b"},
		{"five votes of four members, one dead", "a:VL b:V! c:V d:V e:V", ""},
		{"growing while a voter is dead: replaced, not grown", "a:VL b:V c:V! d:- e:-", "+d -c"},
		{"the dead leader's vote, seen by the new one", "a:V! b:VL c:V d:-", "+d -a"},
		{"nobody votes: nothing to plan", "a:- b:- c:-", ""},
		{"no members", "", ""},
		{"two nodes and the repository", "a:VL b:- R:-", "+b +R"},
		{"two nodes, the repository is behind: one votes alone", "a:VL b:- R:~", ""},
		{"two nodes, the repository does not answer", "a:VL b:- R:?", ""},
		{"two nodes, the other is behind: the repository alone is no help", "a:VL b:~ R:-", ""},
		{"two nodes, interrupted after the node", "a:VL b:V R:-", "+R"},
		{"two nodes, interrupted after the node, the repository is gone", "a:VL b:V R:?", ""},
		{"two nodes, interrupted after the repository", "a:VL b:- R:V", "+b"},
		{"two nodes, settled", "a:VL b:V R:V", ""},
		{"two nodes, the volume is lost: nothing changes", "a:VL b:V R:V?", ""},
		{"two nodes, one dead: nothing changes", "a:VL b:V! R:V", ""},
		{"two nodes, one silent", "a:VL b:V? R:V", ""},
		{"two nodes become one", "a:VL R:V", "-R"},
		{"three nodes, settled: the repository does not vote", "a:VL b:V c:V R:-", ""},
		{"three nodes, one silent: silence is no proof", "a:VL b:V c:V? R:-", ""},
		{"three nodes, one dead: the repository takes its vote", "a:VL b:V c:V! R:-", "+R -c"},
		{"three nodes, one dead, no volume: it keeps its vote", "a:VL b:V c:V! R:?", ""},
		{"three nodes, one dead, interrupted", "a:VL b:V c:V! R:V", "-c"},
		{"three nodes, the third is back but behind", "a:VL b:V c:~ R:V", ""},
		{"three nodes, the third votes again", "a:VL b:V c:- R:V", "+c -R"},
		{"three nodes, the third votes again, though the volume is lost", "a:VL b:V c:- R:V?", "+c -R"},
		{"three nodes, the third votes again, interrupted", "a:VL b:V c:V R:V", "-R"},
		{"two grow to three, the newcomer is behind", "a:VL b:V c:~ R:V", ""},
		{"one to three, one has caught up: with the repository", "a:VL b:- c:~ R:-", "+b +R"},
		{"one to three, both have: without it", "a:VL b:- c:- R:-", "+b +c"},
		{"four nodes, a voter dead: the fourth takes its vote, not the repository", "a:VL b:V c:V! d:- R:-", "+d -c"},
		{"four nodes, two dead: the repository", "a:VL b:V c:V! d:! R:-", "+R -c"},
		{"five votes, two dead: three nodes are left", "a:VL b:V c:V d:V! e:V! R:-", "-e -d"},
		{"three left of five, one more dead", "a:VL b:V c:V! d:! e:! R:-", "+R -c"},
	} {
		var got []string
		for _, c := range PlanVoters(parseMembers(tc.members)) {
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
		plan := PlanVoters(members)
		shuffled := slices.Clone(members)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := PlanVoters(shuffled); !slices.Equal(plan, again) {
			t.Fatalf("%v: %v, in another order %v", members, plan, again)
		}
		for i, c := range plan {
			if msg := step(members, c); msg != "" {
				t.Fatalf("%s\nmembers %+v\nplan %v, step %d", msg, members, plan, i)
			}
		}
		if more := PlanVoters(members); len(more) > 0 {
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
