package sim

import (
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

const (
	pathPeer = detector.PathPeer

	progressLimit = 2 * time.Second       // lease.go
	retryLease    = 40 * time.Millisecond // lease.go
	gatherTime    = 4 * time.Millisecond  // lease.go
	renewPause    = 30 * time.Millisecond // nodepass.go
	refusedPause  = 300 * time.Millisecond
	pace          = 100 * time.Millisecond
)

// agent is the daemon's process: package agent's member, of which this file has the loop and the node's own side (member.go,
// loop.go, node.go, nodepass.go).
type agent struct {
	w    *world
	n    *node
	m    *machine
	p    *proc
	name string
	s    *server
	det  *detector.Detector

	params lease.Params
	life   string

	// The loop.
	loopAt     lease.Instant
	stuckUntil time.Duration
	mails      []func()
	passDue    bool
	idle       int
	defined    uint64
	tick       int

	changingVoters bool
	suspectLeader  lease.Instant
	hurried        bool
	suspects       bool
	lead           *leadership
	lastLeader     string
	urgent         bool
	probing        map[string]bool

	// The node's own side.
	dm          *link
	dmBusy      bool
	armed       bool
	caughtUp    bool
	armedAt     lease.Instant
	arming      string
	armedWith   lease.Params
	grant       *lease.Grant
	requested   lease.Instant
	listAt      lease.Instant
	unknown     bool
	incarnation uint64
	introducing bool
	retryAt     lease.Instant
	groups      map[string]*groupState
	reporting   map[string]bool
	recovered   bool
	renewedAt   lease.Instant
	resetAt     lease.Instant
	actions     window // for the checker
}

// groupState is node.go's.
type groupState struct {
	job        scheduler.Busy
	generation uint64
	cancel     func()
	unwanted   bool // the start was cancelled before its first step
	seen       scheduler.Seen
	seenAt     lease.Instant
	known      scheduler.LocalGroup
	stopSince  uint64
	appFailed  uint64
}

// startAgent begins a process: newMember and start.
func (m *machine) startAgent() {
	w, n := m.w, m.n
	if m.agentP.alive || !m.up {
		return
	}
	m.agentP = &proc{name: n.name + " agent"} // of its own: what still comes for its predecessor finds nobody
	m.agentP.start()
	a := &agent{w: w, n: n, m: m, p: m.agentP, name: n.name, probing: map[string]bool{}, groups: map[string]*groupState{},
		reporting: map[string]bool{}}
	m.agent = a
	if n.disk.lifeBoot != m.bootID { // loadLife
		a.newLife()
	}
	a.life = n.disk.life
	if w.bug.is(BugNoTombstone) {
		n.disk.tombstones = map[string]uint64{}
	}
	a.setTiming(n.disk.raft.snapOf)
	a.det = detector.New(detector.ParamsFor(a.params), m.clock())
	a.s = newServer(a)
	a.loopAt = m.clock()
	w.note("agent starts", n.name, "state at %d", a.s.commit)
	w.post(a.p, w.between(time.Millisecond, 30*time.Millisecond), "recover actions", func() {
		a.recoverActions(func() { a.mail(func() { a.recovered = true }) })
	})
	w.post(a.p, w.soon(), "connect to deadman", a.keepDeadman)
	w.post(a.p, pace, "tick", a.onTick)
	a.wake()
}

// killAgent is kill -9: what it was executing goes on as orphans, and a supervisor starts it again.
func (m *machine) killAgent(why string) {
	if !m.agentP.alive {
		return
	}
	w := m.w
	w.note("agent killed", m.n.name, "%s", why)
	m.agentP.kill()
	m.agent.ended()
	if l := m.agent.dm; l != nil {
		l.hangUp()
	}
	w.post(m.kernel, w.between(30*time.Millisecond, 1500*time.Millisecond), "start agent", m.startAgent)
}

// ended forgets what lived in the process.
func (a *agent) ended() {
	if a.lead != nil {
		a.lead.over = true
	}
	if a.s != nil {
		a.s.role, a.s.lead = follower, nil
	}
}

func (a *agent) now() lease.Instant { return a.m.clock() }
func (a *agent) view() *state.State { return a.s.view }

// newLife is member.go's.
func (a *agent) newLife() {
	a.w.spawned++
	a.n.disk.lifeBoot, a.n.disk.life = a.m.bootID, fmt.Sprintf("life%d", a.w.spawned)
	a.life = a.n.disk.life
}

func bootKey(boot, life string) string { return boot + "/" + life }

func (a *agent) bootKey() string { return bootKey(a.m.bootID, a.life) }

// knownIncarnation is boot.go's incarnation.
func (a *agent) knownIncarnation(v *state.State) uint64 {
	n := v.Node(a.name)
	if n == nil || bootKey(n.BootID, n.Life) != a.bootKey() {
		return 0
	}
	return n.Incarnation
}

// setTiming is timingOf and setTiming.
func (a *agent) setTiming(v *state.State) {
	a.params = timingOf(v)
}

func timingOf(v *state.State) lease.Params {
	def, _ := lease.Profile("")
	if v == nil || v.Definition == nil {
		return def
	}
	p, err := lease.Profile(v.Definition.Settings.Profile)
	if err == nil {
		p, err = p.With(v.Definition.Settings.Timings)
	}
	if err != nil || len(p.Validate()) > 0 {
		return def
	}
	return p
}

func deadmanMode(v *state.State) lease.Mode {
	if v.Definition != nil && v.Definition.Settings.DeadmanMode == string(lease.ModeEvent) {
		return lease.ModeEvent
	}
	return lease.ModeReset
}

// The loop.

// mail brings an event to the loop.
func (a *agent) mail(f func()) {
	a.mails = append(a.mails, f)
	a.wake()
}

func (a *agent) viewChanged() { a.wake() }

func (a *agent) wake() {
	if a.passDue || !a.p.alive {
		return
	}
	a.passDue = true
	d := a.w.soon()
	if left := a.stuckUntil - a.w.now; left > d {
		d = left
	}
	a.w.post(a.p, d, "pass", func() {
		a.passDue = false
		list := a.mails
		a.mails = nil
		for _, f := range list {
			f()
		}
		a.idle = 0
		a.pass()
	})
}

func (a *agent) onTick() {
	if left := a.stuckUntil - a.w.now; left > 0 {
		a.w.post(a.p, left, "tick", a.onTick)
		return
	}
	a.idle++
	a.tick++
	a.pass()
	a.ownMeasures()
	a.w.post(a.p, pace, "tick", a.onTick)
}

func (a *agent) loopAlive() bool { return a.now().Sub(a.loopAt) < progressLimit }

// pass is one round of runLoop.
func (a *agent) pass() {
	if a.stuckUntil > a.w.now {
		a.wake()
		return
	}
	now := a.now()
	a.loopAt = now
	v := a.view()
	news := a.tickDetector(now)
	if !news && a.idle > 0 && a.idle%4 != 0 && !a.isUrgent(v, now) {
		if a.leading() == nil {
			a.followPass(now)
		}
		return
	}
	if v.DefinitionVersion != a.defined {
		a.putIntoEffect(v)
	}
	if l := a.leading(); l != nil {
		a.leadPass(l, v, now)
	} else {
		a.followPass(now)
	}
	a.nodePass(v, now)
}

func (a *agent) isUrgent(v *state.State, now lease.Instant) bool {
	if a.armed && now.Sub(max(a.requested, a.armedAt)) >= a.softLimit()-2*pace || a.incarnation == 0 || a.dm == nil {
		return true
	}
	if a.leading() != nil {
		for _, n := range v.Nodes {
			if n.Lost != nil {
				return true
			}
		}
	}
	return false
}

// leads is watchLeadership: the lead began with its first commit.
func (a *agent) leads(term uint64, first lease.Instant) {
	l := &leadership{a: a, w: a.w, term: term, book: lease.NewGrantor(term), nonces: map[string]string{}, since: a.now(),
		lastCommit: a.now(), doomedHere: map[lease.Subject]bool{}}
	l.duties = leader.New(a.name, l.book)
	l.book.SetVoters(a.s.voters)
	l.book.Committed(first)
	a.s.lead, a.lead = l, l
	a.w.stats.Leads++
	a.det.Lead(a.lastLeader, l.since)
	a.w.note("leads", a.name, "term %d", term)
	a.wake()
	l.confirm(func(bool) {})
}

func (a *agent) leading() *leadership {
	if a.lead == nil || a.lead.over {
		return nil
	}
	return a.lead
}

func (a *agent) heard(node string, path detector.Path) { a.det.Observe(node, path, a.now()) }

func (a *agent) heardRaft(node string) { a.det.Observe(node, detector.PathRaft, a.now()) }

func (a *agent) tickDetector(now lease.Instant) (news bool) {
	for _, c := range a.det.Changes(now) {
		news = true
		a.suspects = c.To == detector.Suspect || c.To == detector.Lost
		if c.To == detector.Lost {
			a.w.note("detector", a.name, "%s is lost: %s", c.Node, c.Why)
		}
	}
	return news || a.suspects
}

func hurryAfter(p lease.Params) time.Duration { return p.RaftElection * 4 / 5 }

// followPass watches the leader and may hurry an election.
func (a *agent) followPass(now lease.Instant) {
	s := a.s
	if s.leader != "" && s.leader != a.name {
		a.lastLeader = s.leader
	}
	ago := now.Sub(s.contact)
	if s.contact == 0 || s.leader == "" || !s.votesHere() || ago < hurryAfter(a.params) {
		a.suspectLeader, a.hurried = 0, false
		return
	}
	if a.suspectLeader == 0 {
		a.suspectLeader = now
		a.look(s.leader)
	}
	rank := 0
	for i, v := range s.voters {
		if v == a.name {
			rank = i
		}
	}
	if a.hurried || now.Sub(a.suspectLeader) < time.Duration(60+rank*120)*time.Millisecond {
		return
	}
	if silent, known := a.det.Silent(s.leader, now); known && silent < hurryAfter(a.params) {
		return
	}
	a.hurried = true
	s.leader = ""
	s.campaign(false)
	s.armElectionAfter(a.w.between(a.params.RaftElection, 2*a.params.RaftElection))
}

func (a *agent) lookAtSuspects(now lease.Instant) {
	for _, n := range a.det.ProbesDue(now) {
		a.look(n)
	}
}

// look asks a node directly.
func (a *agent) look(node string) {
	if node == a.name || a.probing[node] {
		return
	}
	a.probing[node] = true
	done := func(answer detector.Answer) {
		a.det.Probe(node, answer, a.now())
		a.mail(func() { delete(a.probing, node) })
	}
	if n := a.w.byName[node]; n != nil && n.m.up && n.current() == nil && !a.m.cutOff && a.w.carries(a.n.index, n.index) && a.w.carries(n.index, a.n.index) {
		a.w.post(a.p, a.w.delay(), "refused", func() { done(detector.Refused) })
		return
	}
	call(a, node, "ping", a.params.Silence/4, func(_ *agent, reply func(bool)) { reply(true) }, func(_ bool, ok bool) {
		if ok {
			done(detector.Answered)
		} else {
			done(detector.TimedOut)
		}
	})
}

// putIntoEffect makes this node follow a new definition.
func (a *agent) putIntoEffect(v *state.State) {
	if v.Definition == nil {
		return
	}
	a.defined = v.DefinitionVersion
	a.det.Watch(v.NodeNames(), a.now())
	if p := timingOf(v); p != a.params {
		a.params = p
		a.det.SetParams(detector.ParamsFor(p))
	}
}

// The deadman's connection (node.go).

// settings are those that the definition wants.
func (a *agent) settings() deadman.Settings {
	return deadman.Settings{Params: a.params, Mode: deadmanMode(a.view())}
}

// settingsNow are those to connect with: an arming keeps the ones that it began with, because its Armed fact says so (attack A4).
func (a *agent) settingsNow() deadman.Settings {
	if d := &a.n.disk; d.armedBoot == a.m.bootID && !a.w.bug.is(BugSettings) {
		return d.armedWith
	}
	return a.settings()
}

func (a *agent) keepDeadman() {
	a.connect(a.settingsNow(), func(l *link) {
		if l == nil {
			a.keepDeadman()
			return
		}
		a.mail(func() { a.gotDeadman(l) })
	})
}

func (a *agent) gotDeadman(l *link) {
	if !l.alive {
		a.keepDeadman()
		return
	}
	a.dm, a.dmBusy = l, false
	info := l.info()
	a.armed = info.Armed
	if a.armed { // by an earlier agent: only requests made through this connection count
		a.armedAt, a.armedWith, a.arming = a.now(), l.settled.Params, armingName(info)
	} else {
		a.n.disk.armedBoot = ""
	}
}

func (a *agent) lostDeadman(l *link) {
	if a.dm == l {
		a.dm, a.dmBusy = nil, false
		a.keepDeadman()
	}
}

func armingName(i deadman.Info) string { return fmt.Sprintf("%d-%d-%d", i.Pid, i.Started, i.ArmedAt) }

func (a *agent) setArmed(arm bool) {
	l := a.dm
	if l == nil || a.dmBusy {
		return
	}
	a.dmBusy = true
	finish := func(err string) {
		at := a.now()
		a.mail(func() { a.finishDeadman(l, arm, err, at) })
	}
	if !arm {
		l.call(wire.Message{Kind: wire.Disarm}, finish)
		return
	}
	l.update(a.settings(), func(err string) {
		if err != "" {
			finish(err)
			return
		}
		a.n.disk.armedBoot, a.n.disk.armedWith = a.m.bootID, l.settled
		l.call(wire.Message{Kind: wire.Arm}, finish)
	})
}

func (a *agent) finishDeadman(l *link, arm bool, err string, at lease.Instant) {
	if a.dm != l {
		return
	}
	if err != "" { // tried again, and not at once: what refuses now refuses again
		a.w.post(a.p, pace, "deadman refused", func() {
			if a.dm == l {
				a.dmBusy = false
			}
		})
		return
	}
	a.dmBusy = false
	a.armed = arm
	if !arm {
		a.n.disk.armedBoot = ""
		return
	}
	a.armedAt, a.armedWith, a.arming = at, l.settled.Params, armingName(l.info())
	if a.w.bug.is(BugSettings) {
		a.armedWith = a.params
	}
	a.m.residue = a.armedWith.Residue
}

// followDeadman is nodepass.go's: the deadman disarms by itself a node that has started nothing.
func (a *agent) followDeadman() {
	info := a.dm.info()
	if info.Armed == a.armed {
		return
	}
	a.armed = info.Armed
	if info.Armed {
		a.armedAt, a.armedWith, a.arming = a.now(), a.dm.settled.Params, armingName(info)
	} else {
		a.n.disk.armedBoot = ""
	}
}

func (a *agent) gotGrant(g *lease.Grant, requested lease.Instant) {
	a.unknown = false
	a.requested = max(a.requested, requested)
	if g.Newer(a.grant) {
		a.grant, a.listAt = g, requested
	}
}

func (a *agent) softLimit() time.Duration {
	if a.armed {
		return a.armedWith.Soft
	}
	return a.params.Soft
}

func (a *agent) softExpired(now lease.Instant) bool {
	return a.armed && now.Sub(max(a.requested, a.armedAt)) >= a.softLimit()
}

// nodePass shows scheduler.Local what the node knows, and does what it says.
func (a *agent) nodePass(v *state.State, now lease.Instant) {
	if !a.recovered {
		return
	}
	if a.dm != nil && !a.dmBusy {
		a.followDeadman()
	}
	if inc := a.knownIncarnation(v); inc != 0 {
		a.incarnation = inc
	} else if a.incarnation == 0 || a.unknown {
		a.beginIntroduction()
	}
	a.caughtUp = a.caughtUp || scheduler.CaughtUp(v, a.grant)
	local := a.localView(now)
	grant := a.grant
	if b := a.w.bug; b != nil && b.Local != nil {
		v, grant, local = b.Local(a, v, grant, local)
	}
	for _, x := range scheduler.Local(v, a.name, grant, local) {
		a.w.stats.Local[string(x.Kind)]++
		a.w.checkActions(a, string(x.Kind))
		a.doLocal(v, x)
	}
	a.reportNetworks(v)
}

func (a *agent) localView(now lease.Instant) scheduler.LocalView {
	v := scheduler.LocalView{BootID: a.m.bootID, Incarnation: a.incarnation, Armed: a.armed, Soft: a.softExpired(now), CaughtUp: a.caughtUp,
		Groups: make(map[string]scheduler.LocalGroup, len(a.groups))}
	if a.armed {
		v.Arming = a.arming
		if a.grant != nil && a.listAt > a.armedAt {
			v.GrantArming = a.arming
		}
	}
	for name, gen := range a.n.disk.tombstones {
		v.Groups[name] = scheduler.LocalGroup{Tombstone: gen}
	}
	for name, g := range a.groups {
		l := g.known
		l.Seen, l.Busy, l.Tombstone = g.seen, g.job, v.Groups[name].Tombstone
		if g.seenAt == 0 || g.job != "" {
			l.Seen = scheduler.NotProbed
		}
		l.AppFailed, l.AppWhy = g.appFailed, "the application died"
		v.Groups[name] = l
	}
	return v
}

// doLocal carries one action out, beside the loop.
func (a *agent) doLocal(v *state.State, x scheduler.LocalAction) {
	switch x.Kind {
	case scheduler.DoProbe:
		a.beginJob(v, x.Group, 0, scheduler.Probing)
	case scheduler.DoStart:
		a.beginJob(v, x.Group, x.Generation, scheduler.Starting)
	case scheduler.DoAdopt:
		a.adopt(x.Group, x.Generation)
	case scheduler.DoStop:
		a.stopLocal(v, x)
	case scheduler.DoUnmanage:
		g := a.group(x.Group)
		g.known.Started, g.seenAt = 0, 0
	case scheduler.DoTombstone:
		a.writeTombstone(x.Group, x.Generation)
	case scheduler.DoReport:
		a.once("report/"+x.Group+"/"+string(x.Outcome), &state.Command{Report: &state.Report{Node: a.name, Incarnation: a.incarnation,
			Group: x.Group, Generation: x.Generation, Outcome: x.Outcome, Sentence: x.Reason, Applied: v.Index}})
	case scheduler.DoArm:
		a.setArmed(true)
	case scheduler.DoDisarm:
		a.setArmed(false)
	case scheduler.DoProposeArmed:
		a.commitArmed(v)
	case scheduler.DoTellDisarmed:
		a.once("disarmed/"+x.Arming, &state.Command{Disarmed: &state.Disarmed{Node: a.name, Incarnation: a.incarnation, Arming: x.Arming}})
	case scheduler.DoRequestGrant:
		if now := a.now(); a.dm != nil && now.Sub(a.renewedAt) > renewPause {
			a.renewedAt, a.urgent = now, true
			a.dm.renew()
		}
	case scheduler.DoNewLife:
		a.newLife()
		a.incarnation, a.unknown, a.grant = 0, false, nil
		for _, g := range a.groups {
			g.known = scheduler.LocalGroup{}
		}
	case scheduler.DoReset:
		a.resetNode(x.Reason)
	}
}

func (a *agent) group(name string) *groupState {
	g := a.groups[name]
	if g == nil {
		g = &groupState{seen: scheduler.SeenUnclear}
		a.groups[name] = g
	}
	return g
}

func (a *agent) resetNode(reason string) {
	now := a.now()
	if a.dm == nil || a.resetAt != 0 && now.Sub(a.resetAt) < time.Second {
		return
	}
	a.resetAt = now
	a.w.note("agent resets", a.name, "%s", reason)
	a.dm.call(wire.Message{Kind: wire.Reset}, func(string) {})
}

// commitArmed brings this arming's fact into the log (act.go).
func (a *agent) commitArmed(v *state.State) {
	if a.dm == nil {
		return
	}
	info, p, mode := a.dm.info(), a.armedWith, a.dm.settled.Mode
	if a.w.bug.is(BugSettings) {
		mode = deadmanMode(v)
	} else { // a timeout that the device may get with the next pet counts already
		wanted := (p.Watchdog + time.Second - 1) / time.Second * time.Second
		if info.Class == lease.Independent && !info.Held {
			wanted *= 2
		}
		info.Watchdog = max(info.Watchdog, wanted)
	}
	fact := lease.Armed{Node: a.name, Incarnation: a.incarnation, Class: info.Class, Mode: mode, Watchdog: info.Watchdog,
		MaxAge: p.MaxAge, Residue: p.Residue, Margin: p.Margin}
	if v.Definition != nil && info.Class == lease.Process {
		fact.Waived = v.Definition.Settings.WaiveTimeProof
	}
	if a.w.bug.is(BugClassProcess) {
		fact.Class = lease.Independent
	}
	a.once("armed/"+a.arming, &state.Command{Armed: &state.Armed{Fact: fact, Arming: a.arming}})
}

// once sends one fact of this node to the leader, unless the same is under way (act.go).
func (a *agent) once(key string, c *state.Command) {
	if a.reporting[key] {
		return
	}
	a.reporting[key] = true
	if r := c.Report; r != nil {
		a.w.truth.reports(a.m, r)
		a.w.trapReport(a.n, r)
	}
	a.report(c, 2*time.Second, func(res state.Result, ok bool) {
		again := func(d time.Duration) {
			a.w.post(a.p, d, "reported", func() { a.mail(func() { delete(a.reporting, key) }) })
		}
		switch {
		case !ok:
			again(50 * time.Millisecond)
		case res.Refused != "":
			again(300 * time.Millisecond)
		default:
			a.await(res.Index, a.w.now+2*time.Second, func() { again(0) })
		}
	})
}

// await lets this node catch up with what was committed (operate.go).
func (a *agent) await(index uint64, limit time.Duration, f func()) {
	if a.view().Index >= index || a.w.now >= limit {
		f()
		return
	}
	a.w.post(a.p, 2*time.Millisecond, "await", func() { a.await(index, limit, f) })
}

type reportReply struct {
	res state.Result
	err bool
}

// report brings a fact of this node into the log through the leader (operate.go).
func (a *agent) report(c *state.Command, limit time.Duration, done func(state.Result, bool)) {
	c.By, c.At = a.name, a.w.wall(a.n)
	to := a.s.leader
	if to == "" {
		a.w.post(a.p, a.w.soon(), "no leader", func() { done(state.Result{}, false) })
		return
	}
	call(a, to, "report", limit, func(dst *agent, reply func(reportReply)) {
		dst.commit(c, func(r state.Result, err error) { reply(reportReply{r, err != nil}) })
	}, func(r reportReply, ok bool) { done(r.res, ok && !r.err) })
}

// commit proposes a command and waits for its result (operate.go).
func (a *agent) commit(c *state.Command, done func(state.Result, error)) {
	if c.At.IsZero() {
		c.At = a.w.wall(a.n)
	}
	if p := c.Proof; p != nil && p.Kind == state.ProofOperator && p.Incarnation == 0 {
		if n := a.view().Node(p.Node); n != nil {
			copied := *p
			copied.Incarnation = n.Incarnation
			again := *c
			again.Proof = &copied
			c = &again
		}
	}
	a.w.post(a.p, a.w.soon(), "propose", func() { a.s.propose(c, done) })
}

// Introduction of this boot (boot.go).

type helloReply struct {
	leader   string
	nonce    string
	replaces uint64
	known    bool
	def      *cluster.Definition
	gens     map[string]uint64
}

type bootRequest struct {
	nonce, bootID, life, reset string
	replaces                   uint64
	allStopped                 bool
}

type bootReply struct{ leader, refused string }

func (a *agent) beginIntroduction() {
	now := a.now()
	if a.introducing || now < a.retryAt {
		return
	}
	a.introducing = true
	a.introduce(func(ok bool) {
		a.mail(func() {
			a.introducing = false
			a.retryAt = a.now().Add(100 * time.Millisecond)
			if !ok {
				return
			}
			a.unknown = false
			if a.dm != nil {
				a.urgent = true
				a.dm.renew()
			}
		})
	})
}

func (a *agent) introduce(done func(bool)) {
	to := a.s.leader
	if to == "" {
		a.w.post(a.p, a.w.soon(), "no leader", func() { done(false) })
		return
	}
	boot, life := a.m.bootID, a.life
	reset := ""
	if a.n.remembers {
		reset = a.n.resetWhy
	}
	call(a, to, "hello", 5*time.Second, func(dst *agent, reply func(helloReply)) { reply(dst.hello(a.name, boot, life)) },
		func(h helloReply, ok bool) {
			switch {
			case !ok || h.leader != "" || h.def == nil:
				done(false)
				return
			case h.known:
				done(true)
				return
			}
			a.stopEverything(h.def, h.gens, func(stopped bool) {
				req := bootRequest{nonce: h.nonce, bootID: boot, life: life, reset: reset, replaces: h.replaces, allStopped: stopped}
				a.w.trap(a.n, "boot")
				call(a, to, "boot", 5*time.Second, func(dst *agent, reply func(bootReply)) { dst.boot(a.name, req, reply) },
					func(b bootReply, ok bool) { done(ok && b.leader == "" && b.refused == "") })
			})
		})
}

func (a *agent) hello(from, boot, life string) helloReply {
	l := a.leading()
	if l == nil || !l.book.Ready() {
		return helloReply{leader: "?"}
	}
	v := a.view()
	h := helloReply{def: v.Definition, gens: map[string]uint64{}}
	for name, g := range v.Groups {
		h.gens[name] = g.Generation
	}
	if n := v.Node(from); n != nil {
		h.replaces = n.Incarnation
		h.known = n.Incarnation > 0 && n.BootID == boot && n.Life == life
	}
	a.w.spawned++
	h.nonce = fmt.Sprint("nonce", a.w.spawned)
	l.nonces[from] = h.nonce
	return h
}

func (a *agent) boot(from string, req bootRequest, reply func(bootReply)) {
	l := a.leading()
	if l == nil {
		reply(bootReply{leader: "?"})
		return
	}
	ok := req.nonce != "" && l.nonces[from] == req.nonce
	delete(l.nonces, from)
	if !ok && !a.w.bug.is(BugStaleNonce) {
		reply(bootReply{refused: "the boot message answers no current question of the leader"})
		return
	}
	a.commit(&state.Command{By: from, NodeBoot: &state.NodeBoot{Node: from, BootID: req.bootID, Life: req.life, Replaces: req.replaces,
		AllStopped: req.allStopped, Reset: req.reset, Format: state.Format, Version: "sim"}}, func(r state.Result, err error) {
		switch {
		case err != nil:
			reply(bootReply{leader: "?"})
		default:
			reply(bootReply{refused: r.Refused})
		}
	})
}

// Facts about the node that no decision of safety rests on.

func (a *agent) reportNetworks(v *state.State) {
	n := v.Node(a.name)
	if n == nil || a.incarnation == 0 || n.Incarnation != a.incarnation || n.Dead != nil {
		return
	}
	for _, net := range sortedKeys(a.n.netDown) {
		if down := a.n.netDown[net]; down != n.NetworkDown(net) && v.Definition.Network(net) != nil {
			a.once("network/"+net+fmt.Sprint(down), &state.Command{NetworkState: &state.NetworkState{Node: a.name, Incarnation: a.incarnation,
				Network: net, Up: !down, Sentence: "its interfaces"}})
		}
	}
}

func (a *agent) ownMeasures() {
	if a.tick%97 != 5 || a.incarnation == 0 {
		return
	}
	cpu, mem := float64(a.w.r.IntN(100)), float64(a.w.r.IntN(4096))
	a.once("measure", &state.Command{Measure: &state.Measure{Node: a.name, Incarnation: a.incarnation, Measures: state.Measures{CPU: &cpu, Memory: &mem}}})
	if a.tick%291 == 5 {
		a.once("random", &state.Command{BootRandom: &state.BootRandom{Node: a.name, Value: a.m.bootID}})
	}
}
