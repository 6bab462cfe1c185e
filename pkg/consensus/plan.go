package consensus

import (
	"cmp"
	"fmt"
	"slices"
)

// A Member is one node of the cluster as PlanVoters sees it.
type Member struct {
	ID       string
	Voter    bool // votes in the latest configuration
	Alive    bool // heard of lately. Neither alive nor dead: not known; such a voter keeps its vote
	Dead     bool // proven dead, which silence alone never is
	CaughtUp bool // has the log up to the leader's commit, or nearly
	Leader   bool // never demoted
	Rank     int  // lower ranks vote first; ties by id
	// Repository marks the repository voter, of which there is at most one. It is alive if it answers, and never dead.
	Repository bool
}

// VoterOp is what is to be done to one member's vote.
type VoterOp string

// The operations.
const (
	Promote VoterOp = "promote" // AddVoter
	Demote  VoterOp = "demote"
)

// A VoterChange is one step. Steps are made in order, back to back; whoever is interrupted, or has time, plans again after each.
type VoterChange struct {
	Op     VoterOp
	ID     string
	Reason string // one sentence
}

// PlanVoters says how the votes should change. Members are those that the configuration holds, voters or not; nobody else
// can get a vote. nodes is how many nodes the cluster has by its definition: one that joins again is for a moment not in the
// configuration, and the cluster has not become smaller by that.
//
// One node votes alone; of three or four, three vote; of five or more, five. The number is odd, so that no vote is without
// use. A voter proven dead gives its vote to a living member that has caught up; without one it stays, because an
// acknowledged command must be on two nodes: the votes never shrink to two. Two dead of five, with nobody to take their
// votes, leave three. Growing passes an even number only when both newcomers have caught up.
//
// The repository voter votes while exactly two living nodes do: with the two nodes of a cluster of two, and with the two that are
// left of a larger one, in the place of a vote of the dead. It gives its vote up when a third node votes again. That it cannot be
// reached changes nothing: the loss of the volume must not cost a vote that the next failure needs. Without it, two nodes have one
// vote.
func PlanVoters(members []Member, nodes int) []VoterChange {
	p := &votePlan{nodes: nodes}
	for _, m := range members {
		if m.Repository {
			p.repo = &m
		} else {
			p.members = append(p.members, m)
		}
	}
	slices.SortFunc(p.members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID)) })
	p.nodes = max(p.nodes, len(p.members))
	p.replaceDead()
	p.shrink()
	p.grow()
	if p.repo != nil {
		p.repository()
	}
	return p.changes
}

type votePlan struct {
	members []Member // the nodes
	nodes   int      // that there should be
	repo    *Member  // the repository voter, if there is one
	changes []VoterChange
}

// target is how many should vote among so many members.
func target(members int) int {
	switch {
	case members >= 5:
		return 5
	case members >= 3:
		return 3
	}
	return 1
}

func (p *votePlan) count(f func(*Member) bool) int {
	n := 0
	for i := range p.members {
		if f(&p.members[i]) {
			n++
		}
	}
	return n
}

func isVoter(m *Member) bool   { return m.Voter }
func deadVoter(m *Member) bool { return m.Voter && m.Dead }
func fit(m *Member) bool       { return !m.Voter && m.Alive && !m.Dead && m.CaughtUp }

// first finds the best such member, last the worst.
func (p *votePlan) first(f func(*Member) bool) *Member {
	for i := range p.members {
		if f(&p.members[i]) {
			return &p.members[i]
		}
	}
	return nil
}

func (p *votePlan) last(f func(*Member) bool) *Member {
	for i := len(p.members) - 1; i >= 0; i-- {
		if f(&p.members[i]) {
			return &p.members[i]
		}
	}
	return nil
}

func (p *votePlan) promote(m *Member, format string, args ...any) {
	m.Voter = true
	p.changes = append(p.changes, VoterChange{Promote, m.ID, fmt.Sprintf(format, args...)})
}

func (p *votePlan) demote(m *Member, format string, args ...any) {
	m.Voter = false
	p.changes = append(p.changes, VoterChange{Demote, m.ID, fmt.Sprintf(format, args...)})
}

// replaceDead moves votes from the dead to the living: the new voter first, so that there are never fewer.
func (p *votePlan) replaceDead() {
	for p.count(isVoter) > 1 {
		dead, heir := p.last(deadVoter), p.first(fit)
		if dead == nil || heir == nil {
			return
		}
		p.promote(heir, "%s takes the vote of %s, which is dead", heir.ID, dead.ID)
		if p.count(isVoter) > 3 {
			p.demote(dead, "%s is dead, %s votes in its place", dead.ID, heir.ID)
		}
	}
}

// shrink takes votes away where there are too many for the members, or for the living.
func (p *votePlan) shrink() {
	want := target(p.nodes)
	for p.count(isVoter) > max(want, 3) {
		p.demote(p.idlest(), "%d of %d nodes vote", want, p.nodes)
	}
	// Five votes with two dead stand no further loss; the three that are left stand one.
	for p.count(isVoter) > 3 && p.count(deadVoter) >= 2 {
		m := p.idlest()
		p.demote(m, "%s is dead and nobody can take its vote; three votes stand one more loss", m.ID)
	}
	if p.count(isVoter) == 4 && (want < 5 || p.first(fit) == nil) {
		p.demote(p.idlest(), "an even number of votes stands no more losses than one less")
	}
}

// idlest is the voter whose vote is worth least: dead, else silent, else the last by rank; never the leader.
func (p *votePlan) idlest() *Member {
	for _, f := range []func(*Member) bool{
		deadVoter,
		func(m *Member) bool { return m.Voter && !m.Alive && !m.Leader },
		func(m *Member) bool { return m.Voter && !m.Leader },
	} {
		if m := p.last(f); m != nil {
			return m
		}
	}
	return nil
}

// grow gives votes until the number is right, from one odd number to the next.
func (p *votePlan) grow() {
	want := target(p.nodes)
	for {
		have := p.count(isVoter)
		step := 2 - 1 + have%2 // an odd number grows by two, an even one by one
		if have == 0 || have+step > want || p.count(fit) < step || p.count(deadVoter) > 0 {
			return
		}
		for range step {
			m := p.first(fit)
			p.promote(m, "%s has caught up; %d of %d nodes vote", m.ID, want, p.nodes)
		}
	}
}

// repository gives the repository voter its vote, or takes it, by how many living nodes vote.
func (p *votePlan) repository() {
	r := p.repo
	living := p.count(func(m *Member) bool { return m.Voter && !m.Dead })
	switch {
	case living >= 3 && r.Voter:
		p.demote(r, "three nodes vote")
	case living == 1 && p.nodes == 1 && r.Voter:
		p.demote(r, "one node is left in the cluster, and votes alone")
	case living == 1 && p.count(deadVoter) == 0 && (r.Voter || fit(r)) && p.first(fit) != nil:
		m := p.first(fit)
		p.promote(m, "%s and the repository voter have caught up; two nodes and the repository vote", m.ID)
		if !r.Voter {
			p.promote(r, "two nodes vote, and the repository with them")
		}
	case living == 2 && !r.Voter && fit(r):
		p.promote(r, "two living nodes vote, and the repository with them")
	}
	// A vote of the dead is without use beside that of the repository.
	living = p.count(func(m *Member) bool { return m.Voter && !m.Dead })
	for r.Voter && living == 2 && p.count(isVoter) > 2 {
		m := p.last(deadVoter)
		p.demote(m, "%s is dead, the repository votes in its place", m.ID)
	}
}
