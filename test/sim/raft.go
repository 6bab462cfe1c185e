package sim

import (
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The replicated log: raft as package consensus uses it, as far as its outcomes matter here. Terms, votes, pre-votes, appends,
// commit by a majority, one change of the voters at a time, leaders that do not know yet that they are none, followers that
// lag, stores that hang, and a restart that begins with the newest snapshot, because the commit index is not on the disk
// (attack A1).

// entry is one log entry. Entries are shared between the servers: whoever has the same index and term has the same entry.
type entry struct {
	index, term uint64
	cmd         *state.Command // nil: no business of the state's
	voters      []string       // a configuration
	at          time.Duration  // when it was proposed
	after       *state.State   // once committed
	res         state.Result
}

// raftDisk is what a server has durably.
type raftDisk struct {
	term   uint64
	vote   string
	log    []*entry // log[i] has index i+1
	snap   uint64   // index of the newest snapshot
	snapOf *state.State
}

func (d *raftDisk) last() (index, term uint64) {
	if n := len(d.log); n > 0 {
		return uint64(n), d.log[n-1].term
	}
	return 0, 0
}

func (d *raftDisk) termAt(i uint64) uint64 {
	if i == 0 || i > uint64(len(d.log)) {
		return 0
	}
	return d.log[i-1].term
}

type role int

const (
	follower role = iota
	candidate
	leading
)

// server is one process's part in the log.
type server struct {
	a    *agent
	w    *world
	disk *raftDisk
	role role

	commit  uint64
	view    *state.State
	voters  []string
	leader  string        // as far as it knows
	contact lease.Instant // of the leader
	began   lease.Instant // of the candidacy
	token   int           // of the election timer
	votes   map[string]bool
	pre     bool

	// Of a leader.
	next, match map[string]uint64
	heardOf     map[string]lease.Instant // contact with followers
	waiting     map[uint64]func(state.Result, uint64, error)
	lead        *leadership
	since       lease.Instant

	hung    bool // the store does not answer
	blocked []func()

	// pkg/consensus terms.go, under one lock there, in one event here.
	top       uint64
	shown     uint64 // what raft's memory says; only a planted fault looks at it
	confirmed *lease.Confirmations
}

type raftError string

func (e raftError) Error() string { return string(e) }

const (
	errNotLeader raftError = "not the leader"
	errUnknown   raftError = "leadership was lost: the outcome is unknown"
)

func newServer(a *agent) *server {
	d := &a.n.disk.raft
	s := &server{a: a, w: a.w, disk: d, top: d.term, shown: d.term, commit: d.snap, view: d.snapOf,
		confirmed: lease.NewConfirmations(a.m.clock())}
	if a.w.bug.is(BugVoterAge) {
		s.confirmed = lease.NewConfirmations(a.m.origin) // as old as the boot, whatever this process cannot know
	}
	s.findVoters()
	s.armElection()
	return s
}

// findVoters takes the newest configuration in the log, committed or not.
func (s *server) findVoters() {
	was := s.votesHere()
	for _, e := range slices.Backward(s.disk.log) {
		if v := e.voters; v != nil {
			s.voters = v
			break
		}
	}
	if s.votesHere() && !was && s.confirmed != nil && !s.w.bug.is(BugVoterAge) {
		s.confirmed.Restart(s.now())
	}
}

func (s *server) votesHere() bool    { return slices.Contains(s.voters, s.a.name) }
func (s *server) now() lease.Instant { return s.a.m.clock() }
func (s *server) majority() int      { return len(s.voters)/2 + 1 }

// note takes a term that is about to be written (terms.go: note): a lead of an older one ends.
func (s *server) note(term uint64) {
	s.top = max(s.top, term)
	if s.lead != nil && s.lead.term < s.top {
		s.lead.end("a newer term was seen")
		s.lead = nil
	}
}

func (s *server) setTerm(term uint64) {
	s.note(term)
	s.disk.term, s.disk.vote = term, ""
	s.shown = term
	s.leader = ""
	s.stepDown()
}

func (s *server) stepDown() {
	if s.role == leading {
		s.loseLead("another term")
	}
	s.role = follower
}

func (s *server) loseLead(why string) {
	s.role = follower
	s.leader = ""
	s.contact = s.now()
	if s.lead != nil {
		s.lead.end(why)
		s.lead = nil
	}
	list := s.waiting
	s.waiting = nil
	for _, i := range sortedIndexes(list) {
		f := list[i]
		s.w.post(s.a.p, s.w.soon(), "proposal lost", func() { f(state.Result{}, 0, errUnknown) })
	}
	s.armElection()
}

func sortedIndexes[V any](m map[uint64]V) []uint64 {
	out := make([]uint64, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// armElection lets the server look after its timeout whether there is a leader.
func (s *server) armElection() {
	s.token++
	token := s.token
	p := s.a.params
	limit := p.RaftHeartbeat + s.w.between(0, p.RaftElection)
	var look func()
	look = func() {
		if s.token != token || s.role == leading {
			return
		}
		if left := limit - s.now().Sub(s.contact); s.contact != 0 && left > 0 {
			s.w.post(s.a.p, s.a.m.until(s.now().Add(left)), "election timer", look)
			return
		}
		s.leader = ""
		s.campaign(true)
		s.armElectionAfter(s.w.between(p.RaftElection, 2*p.RaftElection))
	}
	s.w.post(s.a.p, limit, "election timer", look)
}

func (s *server) armElectionAfter(d time.Duration) {
	s.token++
	token := s.token
	s.w.post(s.a.p, d, "election timer", func() {
		if s.token == token && s.role != leading {
			s.armElection()
		}
	})
}

// campaign asks for votes, or, before, whether it would get them.
func (s *server) campaign(pre bool) {
	if !s.votesHere() || s.hung {
		return
	}
	s.role, s.pre, s.votes = candidate, pre, map[string]bool{s.a.name: true}
	term := s.disk.term + 1
	s.began = s.now()
	if !pre {
		s.note(term)
		s.disk.term, s.disk.vote, s.shown = term, s.a.name, term
		s.w.stats.Elections++
	}
	if len(s.votes) >= s.majority() {
		s.won(pre, term)
		return
	}
	lastIndex, lastTerm := s.disk.last()
	from := s.a
	for _, v := range s.voters {
		if v == s.a.name {
			continue
		}
		s.a.send(v, "vote?", func(dst *agent) {
			dst.s.unlessHung(func() { dst.s.votedFor(from, pre, term, lastIndex, lastTerm) })
		})
	}
}

// unlessHung runs what must write to the store; a store that hangs holds it up.
func (s *server) unlessHung(f func()) {
	if s.hung {
		s.blocked = append(s.blocked, f)
		return
	}
	f()
}

func (s *server) votedFor(from *agent, pre bool, term, lastIndex, lastTerm uint64) {
	myIndex, myTerm := s.disk.last()
	ok := term >= s.disk.term && (lastTerm > myTerm || lastTerm == myTerm && lastIndex >= myIndex)
	switch {
	case s.role == leading || s.leader != "" && s.leader != from.name && s.now().Sub(s.contact) < s.a.params.RaftHeartbeat:
		ok = false // it has a leader
	case pre:
		ok = ok && term > s.disk.term
	default:
		if term > s.disk.term {
			s.setTerm(term)
		}
		ok = ok && (s.disk.vote == "" || s.disk.vote == from.name)
		if ok {
			s.note(term)
			s.disk.vote = from.name
			s.contact = s.now()
			s.w.trap(s.a.n, "voted")
		}
	}
	me, mine, epoch := s.a.name, s.disk.term, from.p.epoch
	s.a.answer(from, epoch, "vote", func() {
		c := from.s
		switch {
		case mine > c.disk.term:
			c.setTerm(mine)
		case c.role == candidate && c.pre == pre && ok && (pre && term == c.disk.term+1 || !pre && term == c.disk.term):
			c.votes[me] = true
			n := 0
			for _, v := range c.voters {
				if c.votes[v] {
					n++
				}
			}
			if n >= c.majority() {
				c.won(pre, term)
			}
		}
	})
}

func (s *server) won(pre bool, term uint64) {
	if pre {
		s.campaign(false)
		return
	}
	s.role, s.leader, s.since = leading, s.a.name, s.now()
	s.next, s.match, s.heardOf = map[string]uint64{}, map[string]uint64{}, map[string]lease.Instant{}
	s.waiting = map[uint64]func(state.Result, uint64, error){}
	last, _ := s.disk.last()
	for _, n := range s.w.names {
		s.next[n] = last + 1
	}
	s.w.note("elected", s.a.name, "term %d", term)
	// lead.go: the lead begins with the first entry of its term that commits.
	won, began := s.now(), s.began
	s.append(&entry{term: term}, func(_ state.Result, t uint64, err error) {
		if err != nil || s.role != leading || s.top != t {
			return
		}
		first := s.now()
		if s.w.bug.is(BugElectionT0) {
			first = min(won, began)
		}
		s.a.leads(t, first)
	})
	s.beat(term)
}

// append brings an entry into the leader's log. done gets the result once it is committed and applied here.
func (s *server) append(e *entry, done func(state.Result, uint64, error)) {
	if s.role != leading {
		s.w.post(s.a.p, s.w.soon(), "not leader", func() { done(state.Result{}, 0, errNotLeader) })
		return
	}
	if s.hung {
		s.blocked = append(s.blocked, func() { s.append(e, done) })
		return
	}
	last, _ := s.disk.last()
	e.index, e.term, e.at = last+1, s.disk.term, s.w.now
	s.disk.log = append(s.disk.log, e)
	s.waiting[e.index] = done
	if e.voters != nil {
		s.findVoters()
	}
	s.advance()
	s.replicate("")
}

// propose is Node.Propose.
func (s *server) propose(c *state.Command, done func(state.Result, error)) {
	s.append(&entry{cmd: c}, func(r state.Result, _ uint64, err error) { done(r, err) })
}

// reconfigure changes the voters, one at a time, and only after the term's first entry is committed.
func (s *server) reconfigure(voters []string, done func(error)) {
	if s.role != leading || s.lead == nil || s.configPending() {
		done(errNotLeader)
		return
	}
	s.append(&entry{voters: voters}, func(_ state.Result, _ uint64, err error) { done(err) })
}

func (s *server) configPending() bool {
	for i := len(s.disk.log); i > int(s.commit); i-- {
		if s.disk.log[i-1].voters != nil {
			return true
		}
	}
	return false
}

const beatEvery = 150 * time.Millisecond

func (s *server) beat(term uint64) {
	if s.role != leading || s.disk.term != term {
		return
	}
	if s.lostMajority() {
		s.w.stats.StoodDown++
		s.loseLead("no contact with a majority")
		return
	}
	s.replicate("")
	// lead.go: keepCommitting writes an empty entry whenever nothing else was committed for a while.
	if l := s.lead; l != nil && s.now().Sub(l.lastCommit) >= time.Second && len(s.waiting) == 0 && !s.hung {
		s.append(&entry{}, func(state.Result, uint64, error) {})
	}
	s.w.post(s.a.p, min(beatEvery, s.a.params.RaftHeartbeat/3), "heartbeat", func() { s.beat(term) })
}

// lostMajority is raft's leader lease. No lease of ours rests on it, so it may fail to be noticed.
func (s *server) lostMajority() bool {
	if s.w.sticky {
		return false
	}
	n := 0
	for _, v := range s.voters {
		if v == s.a.name || s.now().Sub(max(s.heardOf[v], s.since)) < s.a.params.RaftLease {
			n++
		}
	}
	return n < s.majority()
}

// replicate sends what followers lack, or a heartbeat.
func (s *server) replicate(only string) {
	from, term, commit := s.a, s.disk.term, s.commit
	for _, to := range s.w.names {
		if to == s.a.name || only != "" && to != only {
			continue
		}
		prev := s.next[to] - 1
		var list []*entry
		if !s.hung {
			if last, _ := s.disk.last(); prev < last {
				list = s.disk.log[prev:min(last, prev+64)]
				list = slices.Clip(list)
			}
		}
		prevTerm := s.disk.termAt(prev)
		f := func(dst *agent) { dst.s.appended(from, term, prev, prevTerm, list, commit) }
		if n := s.w.byName[to]; n.lagUntil > s.w.now {
			s.w.after(n.lagged, "lagging", func() {
				if from.p.alive {
					from.send(to, "append", f)
				}
			})
			continue
		}
		s.a.send(to, "append", f)
	}
}

// appended is AppendEntries.
func (s *server) appended(from *agent, term, prev, prevTerm uint64, list []*entry, commit uint64) {
	if s.hung && len(list) > 0 {
		s.blocked = append(s.blocked, func() { s.appended(from, term, prev, prevTerm, list, commit) })
		return
	}
	epoch, me := from.p.epoch, s.a.name
	if term < s.disk.term {
		if s.w.bug.is(BugElectionT0) && s.leader == "" { // the race of heartbeats with votes (attack A11)
			s.shown = term
			s.contact = s.now()
		}
		mine := s.disk.term
		s.a.answer(from, epoch, "appended", func() {
			if from.s.disk.term < mine && !s.w.bug.is(BugElectionT0) {
				from.s.setTerm(mine)
			}
		})
		return
	}
	if term > s.disk.term {
		s.setTerm(term)
	} else if s.role == candidate {
		s.role = follower
	}
	s.shown = term
	s.leader, s.contact = from.name, s.now()
	s.a.heardRaft(from.name)
	ok := prev == 0 || prev <= uint64(len(s.disk.log)) && s.disk.termAt(prev) == prevTerm
	if ok {
		s.store(prev, list)
		if c := min(commit, prev+uint64(len(list))); c > s.commit {
			s.commitTo(c)
		}
	}
	match := prev + uint64(len(list))
	mine, last := s.disk.term, uint64(len(s.disk.log))
	s.a.answer(from, epoch, "appended", func() {
		l := from.s
		if mine > l.disk.term {
			l.setTerm(mine)
			return
		}
		if l.role != leading || l.disk.term != term {
			return
		}
		l.heardOf[me] = l.now()
		from.heardRaft(me)
		if !ok {
			l.next[me] = max(1, min(l.next[me]-1, last+1))
			l.replicate(me)
			return
		}
		if match > l.match[me] {
			l.match[me] = match
			l.advance()
		}
		if l.next[me] <= match {
			l.next[me] = match + 1
		}
		if end, _ := l.disk.last(); l.next[me] <= end && !l.hung && len(list) > 0 {
			l.replicate(me)
		}
	})
}

// store appends, and drops what contradicts the leader.
func (s *server) store(prev uint64, list []*entry) {
	changed := false
	for i, e := range list {
		at := prev + uint64(i) + 1
		if at <= uint64(len(s.disk.log)) {
			if s.disk.log[at-1] == e {
				continue
			}
			s.disk.log = s.disk.log[: at-1 : at-1]
		}
		s.disk.log = append(s.disk.log, e)
		changed = true
	}
	if changed {
		s.findVoters()
	}
}

// advance commits what a majority of the voters has stored, if it is of this term.
func (s *server) advance() {
	if s.role != leading {
		return
	}
	last, _ := s.disk.last()
	var have []uint64
	for _, v := range s.voters {
		if v == s.a.name {
			have = append(have, last)
		} else {
			have = append(have, s.match[v])
		}
	}
	if len(have) == 0 {
		return
	}
	slices.Sort(have)
	c := have[len(have)-s.majority()]
	if c > s.commit && s.disk.termAt(c) == s.disk.term {
		s.commitTo(c)
		s.replicate("") // notices.go: followers learn of the commit at once
	}
}

// commitTo applies all up to the index, which is known to be committed.
func (s *server) commitTo(c uint64) {
	for s.commit < c {
		e := s.disk.log[s.commit]
		s.w.committed(e)
		s.commit++
		s.view = e.after
		if s.lead != nil && s.lead.term == e.term {
			s.lead.lastCommit = s.now()
		}
		if f := s.waiting[e.index]; f != nil {
			delete(s.waiting, e.index)
			f(e.res, e.term, nil)
		}
	}
	if s.commit >= s.disk.snap+uint64(s.a.n.snapEvery) {
		s.snapshot()
	}
	s.a.viewChanged()
}

// snapshot keeps the state; now and then through the codec, as the product does always.
func (s *server) snapshot() {
	s.disk.snap, s.disk.snapOf = s.commit, s.view
	if s.w.seq%16 == 0 {
		s.w.checkCodec(s.view)
	}
}

// committed is called whenever a server learns that an entry is committed; the first time it is applied. That there is one log
// is raft's promise, and checked.
func (w *world) committed(e *entry) {
	if e.index <= uint64(len(w.canon)) {
		if w.canon[e.index-1] != e {
			w.fail("one log", "entry %d of term %d was committed where another one had been", e.index, e.term)
		}
		return
	}
	if e.index != uint64(len(w.canon))+1 {
		w.fail("one log", "entry %d is committed after entry %d", e.index, len(w.canon))
		return
	}
	before := w.newest
	e.after = before
	if e.cmd != nil {
		e.after, e.res = w.apply(before, e)
	}
	w.canon = append(w.canon, e)
	w.newest = e.after
	if e.cmd != nil {
		w.stats.Commands[e.cmd.Kind()]++
		if e.res.Refused != "" {
			w.stats.Refused++
		}
		w.noteEntry(e)
		w.checkStorm(e)
		w.book.entry(e, before)
		w.trapEntry(e)
	}
}

// hang makes the store stop answering; after a second the process ends (pkg/consensus).
func (s *server) hang(d time.Duration) {
	s.hung = true
	if d > time.Second {
		s.w.post(s.a.m.kernel, time.Second, "store hangs", func() {
			if s.hung && s.a.p.alive {
				s.a.m.killAgent("its store hangs")
			}
		})
	}
	s.w.post(s.a.p, d, "store answers", func() {
		s.hung = false
		list := s.blocked
		s.blocked = nil
		for _, f := range list {
			f()
		}
	})
}

// confirmReply is a voter's answer to a round (terms.go: confirm).
type confirmReply struct {
	server string
	term   uint64
	age    time.Duration
}

func (s *server) confirm(term uint64) confirmReply {
	now := s.now()
	top := s.top
	if s.w.bug.is(BugElectionT0) {
		top = s.shown
	}
	if term == top && !s.w.bug.is(BugNoConfirm) {
		s.confirmed.Confirm(term, now)
	}
	return confirmReply{server: s.a.name, term: top, age: s.confirmed.Age(term, now)}
}
