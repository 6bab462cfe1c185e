package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// leadership is one term in which a node leads (pkg/agent leader.go, lease.go, fence.go; the rounds of pkg/consensus confirm.go).
type leadership struct {
	a          *agent
	w          *world
	term       uint64
	over       bool
	book       *lease.Grantor
	duties     *leader.Duties // the product's own
	nonces     map[string]string
	lastCommit lease.Instant
	since      lease.Instant
	proposing  bool
	voters     lease.Instant

	waiting []func(bool) // for the next round
	running int
	begun   lease.Instant

	doomedHere map[lease.Subject]bool // for the checker of grants
}

func (l *leadership) end(why string) {
	if l.over {
		return
	}
	l.over = true
	l.w.note("leads no longer", l.a.name, "term %d: %s", l.term, why)
	l.a.det.Follow()
	list := l.waiting
	l.waiting = nil
	for _, f := range list {
		l.w.post(l.a.p, l.w.soon(), "round over", func() { f(false) })
	}
	l.a.wake()
}

// confirm has the term confirmed by a round that begins after the call, and books what the voters said.
func (l *leadership) confirm(done func(bool)) {
	if l.over {
		l.w.post(l.a.p, l.w.soon(), "no lead", func() { done(false) })
		return
	}
	l.waiting = append(l.waiting, done)
	l.beginRound()
}

const (
	roundOverlap = 50 * time.Millisecond
	maxRounds    = 8
)

// beginRound seals the list of those who wait before the first message leaves (attack A11).
func (l *leadership) beginRound() {
	if len(l.waiting) == 0 || l.running >= maxRounds || l.over {
		return
	}
	now := l.a.now()
	if l.running > 0 {
		if left := roundOverlap - now.Sub(l.begun); left > 0 {
			l.w.post(l.a.p, left, "next round", l.beginRound)
			return
		}
	}
	batch := l.waiting
	l.waiting = nil
	l.running++
	l.begun = now
	l.w.post(l.a.p, l.w.soon(), "round", func() { l.round(batch) })
}

func (l *leadership) round(batch []func(bool)) {
	a, s := l.a, l.a.s
	asked := s.voters
	over := false
	left := len(asked)
	type heard struct {
		voter   string
		receipt lease.Instant
		age     time.Duration
	}
	var answers []heard
	end := func(ok bool) {
		if over {
			return
		}
		over = true
		if ok {
			ok = s.role == leading && s.top == l.term && !l.over
			if a.w.bug.is(BugElectionT0) { // nor has this server heard of its successor
				ok = s.role == leading && !l.over
			}
		}
		if ok { // leader.go: confirm
			l.book.SetVoters(s.voters)
			for _, h := range answers {
				l.book.HeardVoter(h.voter, h.receipt, h.age)
			}
		}
		l.running--
		l.beginRound()
		for _, f := range batch {
			f(ok)
		}
	}
	for _, v := range asked {
		call(a, v, "confirm", a.params.MaxAge, func(dst *agent, reply func(confirmReply)) { reply(dst.s.confirm(l.term)) },
			func(r confirmReply, ok bool) {
				left--
				if ok && r.server == v && r.term == l.term {
					answers = append(answers, heard{v, a.now(), r.age})
				}
				latest := answers[:0:0]
				for _, h := range answers {
					if slices.Contains(s.voters, h.voter) {
						latest = append(latest, h)
					}
				}
				switch {
				case len(latest) >= s.majority() && len(answers) > len(asked)/2:
					answers = latest
					end(true)
				case left == 0:
					end(false)
				}
			})
	}
}

// Asking and granting (lease.go).

type leaseAnswer struct {
	grant  *lease.Grant
	leader string
	boot   bool
	dead   string
	wait   string
}

// carryRequest passes a request of the deadman to the leader, while the loop makes progress.
func (a *agent) carryRequest(l *link, nonce lease.Nonce, at lease.Instant) {
	if !a.loopAlive() {
		a.w.stats.NotCarried++
		return
	}
	req := lease.Request{Nonce: nonce, Node: a.name, BootID: a.bootKey(), Urgent: a.urgent}
	a.urgent = false
	limit := a.w.now + a.params.MaxAge
	over := false
	var ask func()
	again := func() {
		if a.w.now+retryLease < limit {
			a.w.post(a.p, retryLease, "ask again", ask)
		}
	}
	ask = func() {
		v := a.view()
		req.Incarnation, req.Applied = a.knownIncarnation(v), v.Index
		to := a.s.leader
		if to == "" {
			again()
			return
		}
		r := req
		call(a, to, "lease", limit-a.w.now, func(dst *agent, reply func(leaseAnswer)) { dst.grantLease(a.name, r, reply) },
			func(x leaseAnswer, ok bool) {
				switch {
				case over:
				case !ok:
				case x.grant != nil:
					over = true
					a.takeGrant(l, at, x.grant)
				case x.dead != "":
					over = true
				case x.boot:
					over = true
					a.mail(func() { a.unknown = true })
				default:
					again()
				}
			})
	}
	ask()
}

func (a *agent) takeGrant(l *link, at lease.Instant, g *lease.Grant) {
	a.w.truth.takes(a.m, g, at)
	l.call(grantFrame(g), func(err string) {
		if err != "" {
			return
		}
		a.w.stats.Grants++
		a.mail(func() { a.gotGrant(g, at) })
		if g.Next > 0 && g.Next < a.params.Renew {
			a.w.post(a.p, g.Next, "renew", func() { l.renew() })
		}
	})
}

// grantLease decides about one request, in this order: fit, known, a round that begins after the request came; then, in one
// step, everything again, the note of the grant, and the list (attacks A1, A9, A11).
func (a *agent) grantLease(from string, req lease.Request, reply func(leaseAnswer)) {
	l := a.leading()
	if l == nil {
		reply(leaseAnswer{leader: "?"})
		return
	}
	a.heard(from, detector.PathLease)
	if why := a.unfitToGrant(l); why != "" {
		reply(leaseAnswer{wait: why})
		return
	}
	if x, ok := a.knowsBoot(a.view(), &req); !ok {
		reply(x)
		return
	}
	arrived := a.w.now
	confirm := func() {
		l.confirm(func(ok bool) {
			if !ok || l.over {
				reply(leaseAnswer{wait: "the term could not be confirmed"})
				return
			}
			a.giveGrant(l, req, arrived, reply)
		})
	}
	if req.Urgent {
		confirm()
	} else {
		a.w.post(a.p, gatherTime, "gather", confirm)
	}
}

func (a *agent) giveGrant(l *leadership, req lease.Request, arrived time.Duration, reply func(leaseAnswer)) {
	v := a.view()
	if x, ok := a.knowsBoot(v, &req); !ok {
		reply(x)
		return
	}
	s := lease.Subject{Node: req.Node, Incarnation: req.Incarnation}
	if !l.book.MayGrant(s) && !a.w.bug.is(BugGrantAfterDoom) {
		reply(leaseAnswer{wait: "a proof of the node's death is being committed"})
		return
	}
	now := a.now()
	l.book.Granted(s, now)
	g := &lease.Grant{Nonce: req.Nonce, Node: req.Node, Incarnation: req.Incarnation, Leader: a.name, Term: l.term, Applied: v.Index,
		LeaderBoot: a.m.bootID, LeaderTime: now, Hold: v.Holds(req.Node, req.Incarnation), Next: a.nextSlot(now)}
	a.w.checkGrant(l, g, arrived)
	reply(leaseAnswer{grant: g})
}

func (a *agent) nextSlot(now lease.Instant) time.Duration {
	period := a.params.Renew * 9 / 10
	next := period - time.Duration(now)%period
	if next < period/2 {
		return next + period/2
	}
	return next
}

func (a *agent) knowsBoot(v *state.State, req *lease.Request) (leaseAnswer, bool) {
	n := v.Node(req.Node)
	switch {
	case n == nil:
		return leaseAnswer{wait: "not in the definition"}, false
	case n.Incarnation == 0 || bootKey(n.BootID, n.Life) != req.BootID:
		return leaseAnswer{boot: true}, false
	case n.Dead != nil:
		return leaseAnswer{dead: n.Dead.Sentence}, false
	case n.Incarnation != req.Incarnation:
		if a.w.bug.is(BugTrustLocal) {
			req.Incarnation = n.Incarnation
			return leaseAnswer{}, true
		}
		return leaseAnswer{wait: "the node does not know its own incarnation yet"}, false
	}
	return leaseAnswer{}, true
}

func (a *agent) unfitToGrant(l *leadership) string {
	switch {
	case a.w.bug.is(BugStuckLeader):
		return ""
	case !a.loopAlive():
		return "the leader's loop makes no progress"
	case a.now().Sub(l.lastCommit) > progressLimit && !a.w.bug.is(BugElectionT0): // which would mostly hide it
		return "the leader has committed nothing for 2 s"
	case !l.book.Ready():
		return "the leader has not applied an entry of its own term yet"
	}
	return ""
}

// One pass of the leader's duties: what is proposed is decided by the product's pkg/leader; this is the adapter's part (leader.go).

func (a *agent) leadPass(l *leadership, v *state.State, now lease.Instant) {
	a.lookAtSuspects(now)
	if now.Sub(l.voters) > time.Second {
		l.voters = now
		a.tendVoters(l, v)
	}
	if l.proposing || v.Definition == nil {
		return
	}
	batch := a.findings(l, v, now)
	if len(batch) == 0 {
		batch = a.plan(l, v, now)
	}
	if len(batch) > 0 {
		a.proposeAll(l, batch)
	}
}

func (a *agent) findings(l *leadership, v *state.State, now lease.Instant) []leader.Proposal {
	found, shots := l.duties.Findings(leader.Look{Now: now, View: v, Incarnation: a.incarnation, Detector: a.det, Params: a.params})
	for _, p := range found {
		if p.Command.Proof != nil {
			l.doomedHere[p.Doomed] = true
			a.w.trap(a.w.byName[p.Doomed.Node], "doom")
			a.w.note("doom", a.name, "%s %d by %s", p.Doomed.Node, p.Doomed.Incarnation, p.Command.Proof.Kind)
		}
	}
	for _, s := range shots {
		a.fence(l, s)
	}
	return found
}

func (a *agent) plan(l *leadership, v *state.State, now lease.Instant) []leader.Proposal {
	res, ok := l.duties.Plan(v, now, a.w.wall(a.n))
	if !ok {
		return nil
	}
	a.w.stats.Plans++
	var out []leader.Proposal
	for i := range res.Decisions {
		c := res.Decisions[i].Command()
		out = append(out, leader.Proposal{Command: &c})
	}
	return out
}

// proposeAll sends a batch into the log, and tells the loop when all are in.
func (a *agent) proposeAll(l *leadership, batch []leader.Proposal) {
	l.proposing = true
	left := len(batch)
	for _, p := range batch {
		a.w.post(a.p, a.w.soon()+a.w.between(0, a.w.slowProposals), "goroutine", func() {
			if l.over {
				a.finishOne(l, p, state.Result{}, errNotLeader, &left)
				return
			}
			a.commit(p.Command, func(r state.Result, err error) { a.finishOne(l, p, r, err, &left) })
		})
	}
}

func (a *agent) finishOne(l *leadership, p leader.Proposal, r state.Result, err error, left *int) {
	a.mail(func() {
		if err == nil {
			l.duties.Answered(p, r.Refused != "", a.now())
		}
		if err == nil && r.Refused != "" {
			delete(l.doomedHere, p.Doomed)
			a.w.note("refused", a.name, "%s", r.Refused)
		}
		if *left--; *left == 0 {
			l.proposing = false
			l.duties.Replan()
		}
	})
}

// Fencing (fence.go).

// fenceDevice switches machines off. It never says off when it is not so.
type fenceDevice struct {
	shots int
}

type fenceFaults struct {
	fails, slow bool
}

func (a *agent) fence(l *leadership, aim leader.Shot) {
	l.duties.Fired(aim.Subject)
	s, device := aim.Subject, aim.Devices[0].Name // one device on each level: what several together prove is pkg/agent's to test
	a.shoot(l, device, s, func(proof, err string) {
		a.mail(func() {
			if err == "" {
				l.duties.Fenced(s, leader.FenceOff, proof, a.now())
				return
			}
			l.duties.Fenced(s, leader.FenceFailed, "", a.now())
			if !l.over {
				a.submit(&state.Command{Fence: &state.Fence{Node: s.Node, Incarnation: s.Incarnation, Device: device, Failed: err}})
			}
		})
	})
}

func (a *agent) shoot(l *leadership, device string, s lease.Subject, done func(proof, err string)) {
	w := a.w
	a.commit(&state.Command{Fence: &state.Fence{Node: s.Node, Incarnation: s.Incarnation, Device: device}}, func(r state.Result, err error) {
		if err != nil || r.Refused != "" {
			done("", "the intent could not be committed")
			return
		}
		l.confirm(func(ok bool) {
			n := a.view().Node(s.Node)
			if !ok || n == nil || n.Incarnation != s.Incarnation || n.Lost == nil || n.Dead != nil {
				done("", "the node is no longer silent: not fenced")
				return
			}
			target := w.byName[s.Node]
			d := w.between(20*time.Millisecond, 200*time.Millisecond)
			if target.fence.slow {
				d += w.between(0, 6*time.Second)
			}
			// The device acts whether the one who asked lives on or not.
			w.after(d, "fence off", func() {
				if target.fence.fails {
					w.post(a.p, 0, "fence failed", func() { done("", "the device does not answer") })
					return
				}
				w.fenced.shots++
				w.stats.Fenced++
				target.offUntil = w.now + w.between(2*time.Second, 8*time.Second)
				target.powerOff("fenced")
				w.post(a.p, w.between(time.Millisecond, 50*time.Millisecond), "fence status", func() {
					if target.m.up { // switched on again before the status was asked
						done("", "the node is on")
						return
					}
					done(fmt.Sprintf("fence device %s says off", device), "")
				})
			})
		})
	})
}

// tendVoters makes the right members vote, one change at a time (membership.go).
func (a *agent) tendVoters(l *leadership, v *state.State) {
	if a.changingVoters || v.Definition == nil {
		return
	}
	var list []consensus.Member
	last, _ := a.s.disk.last()
	now := a.now()
	for rank, name := range v.NodeNames() {
		n := v.Node(name)
		self := name == a.name
		c := a.s.heardOf[name]
		fresh := c != 0 && now.Sub(c) < time.Second
		list = append(list, consensus.Member{ID: name, Voter: slices.Contains(a.s.voters, name), Leader: self, Rank: rank,
			Dead: n.Dead != nil && !fresh, Alive: self || n.Alive() || fresh, CaughtUp: self || fresh && a.s.match[name]+16 >= last})
	}
	changes := consensus.PlanVoters(list, len(v.Definition.Nodes))
	if len(changes) == 0 {
		return
	}
	a.changingVoters = true
	finish := func() { a.mail(func() { a.changingVoters = false }) }
	var next func(i int)
	next = func(i int) {
		if i == len(changes) || l.over {
			finish()
			return
		}
		voters := slices.Clone(a.s.voters)
		if changes[i].Op == consensus.Demote {
			voters = slices.DeleteFunc(voters, func(v string) bool { return v == changes[i].ID })
		} else {
			voters = append(voters, changes[i].ID)
		}
		a.w.note("voters change", a.name, "%s %s", changes[i].Op, changes[i].ID)
		a.w.stats.VoterChanges++
		a.s.reconfigure(voters, func(err error) {
			if err != nil {
				finish()
				return
			}
			next(i + 1)
		})
	}
	next(0)
}
