package state

import (
	"maps"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// Limits of the locks, so that no client can fill the log's state.
const (
	MaxLocks            = 2048 // names that somebody holds or waits for
	MaxLockSessions     = 2048 // in the cluster
	MaxNodeLockSessions = 512  // of one node
	MaxSessionLocks     = 64   // that one session holds or waits for
	MaxLockWaiters      = 512  // for one lock
	MaxLockName         = 64   // bytes
	MinLockTTL          = 5 * time.Second
	MaxLockTTL          = 10 * time.Minute
)

// Locks are the cluster's named locks and the sessions that hold them.
//
// For each lock, in every state that Apply can reach: either no session holds it, or one holds it exclusively, or several hold it
// shared. Those who wait are served in the order in which they came; nobody who comes later, or only tries, overtakes them. Each
// grant has a token that is larger than every token given before, for whatever lock.
//
// A session ends by its own node's word (its client has gone, or kept silent for the TTL), by an operator for one lock, or with its
// node: see LocksEnd. Never by a node's silence alone.
//
// What a lock does not promise: that the program that holds it still runs, or has noticed that it holds it no longer. Only the resource
// itself can refuse a program that is late, by the token.
type Locks struct {
	Token    uint64                  `json:"token"`   // the newest given out: epoch<<40 | count, as generations are
	Changed  uint64                  `json:"changed"` // index of the last change of anything here
	Sessions map[string]*LockSession `json:"sessions,omitempty"`
	Locks    map[string]*Lock        `json:"locks,omitempty"` // those that somebody holds or waits for
}

// A LockSession is one client on one node.
type LockSession struct {
	ID          string        `json:"id"`
	Node        string        `json:"node"`
	Incarnation uint64        `json:"incarnation"` // of the node; a new life of the same boot takes the sessions over
	Who         string        `json:"who,omitempty"`
	TTL         time.Duration `json:"ttl"` // how long the client may be silent before its node ends it
	Opened      uint64        `json:"opened"`
	At          time.Time     `json:"at"`
	Seq         uint64        `json:"seq,omitempty"`   // of its newest command: what has a lower one is late
	Locks       []string      `json:"locks,omitempty"` // held or waited for, sorted
}

// A Lock is one name.
type Lock struct {
	Name    string      `json:"name"`
	Holders []LockShare `json:"holders,omitempty"` // one, or several that share it, oldest grant first
	Waiters []LockShare `json:"waiters,omitempty"` // in order
}

// A LockShare is a session's part in a lock.
type LockShare struct {
	Session string   `json:"session"`
	Mode    LockMode `json:"mode"`
	Token   uint64   `json:"token,omitempty"` // 0 while it waits
	Since   uint64   `json:"since"`           // index at which it was granted, or began to wait
	// At is that entry's wall time, for people.
	At time.Time `json:"at"`
}

// LockMode says who else may hold a lock.
type LockMode string

const (
	LockExclusive LockMode = "exclusive" // nobody
	LockShared    LockMode = "shared"    // others who share it
)

// The commands of locks. All but LocksEnd and LockBreak come from the session's own node, in the order of Seq.
type (
	// LockOpen opens a session, or with Again finds an open one after a restart of its node's daemon. Refused: a node or incarnation
	// that is not current; an id that is in use, or with Again one that is not; too many.
	LockOpen struct {
		Session     string        `json:"session"` // 16 to 64 letters and digits, drawn by the proposer, never used again
		Node        string        `json:"node"`
		Incarnation uint64        `json:"incarnation"`
		Who         string        `json:"who,omitempty"`
		TTL         time.Duration `json:"ttl"`
		Again       bool          `json:"again,omitempty"`
	}
	// LockClose ends a session and frees what it holds. One that is not there is closed already.
	LockClose struct {
		Session string `json:"session"`
		Node    string `json:"node"`
		Cause   string `json:"cause,omitempty"`
	}
	// LockAcquire takes a lock, or with Wait gets in line. The same again, by the same Seq, gets the present answer. Refused: a session
	// that is not there or whose node is over; held otherwise (without Wait); another mode than the session has; too many.
	LockAcquire struct {
		Session string   `json:"session"`
		Node    string   `json:"node"`
		Seq     uint64   `json:"seq"`
		Name    string   `json:"name"`
		Mode    LockMode `json:"mode"`
		Wait    bool     `json:"wait,omitempty"`
	}
	// LockRelease gives a lock back, or leaves the line. What is not held is released already.
	LockRelease struct {
		Session string `json:"session"`
		Node    string `json:"node"`
		Seq     uint64 `json:"seq"`
		Name    string `json:"name"`
	}
	// LockBreak is the operator's release of one session's part in a lock.
	LockBreak struct {
		Session string `json:"session"`
		Name    string `json:"name"`
	}
	// LocksEnd ends the sessions of an incarnation that is over without its machine being known to have ended: dead because it never
	// armed or stopped in order, or followed by a boot that proves nothing. The leader proposes it when those sessions' TTL has passed
	// since it has seen that; by then the clients have given up, see docs/locks.md. Refused for an incarnation that is current.
	LocksEnd struct {
		Node        string `json:"node"`
		Incarnation uint64 `json:"incarnation"`
	}
)

// Lock finds a lock; nil if nobody holds it or waits for it.
func (s *State) Lock(name string) *Lock {
	if s.Locks == nil {
		return nil
	}
	return s.Locks.Locks[name]
}

// LockSession finds a session; nil if it is not open.
func (s *State) LockSession(id string) *LockSession {
	if s.Locks == nil {
		return nil
	}
	return s.Locks.Sessions[id]
}

// LocksChanged is the index of the last change of a lock or a session; 0: there never was one.
func (s *State) LocksChanged() uint64 {
	if s.Locks == nil {
		return 0
	}
	return s.Locks.Changed
}

// Holder is the session's share if it holds the lock; nil if it does not.
func (l *Lock) Holder(session string) *LockShare { return shareOf(l, session, false) }

// Waiter is the session's place in the line; nil if it does not wait.
func (l *Lock) Waiter(session string) *LockShare { return shareOf(l, session, true) }

func shareOf(l *Lock, session string, waits bool) *LockShare {
	if l == nil {
		return nil
	}
	list := l.Holders
	if waits {
		list = l.Waiters
	}
	for i := range list {
		if list[i].Session == session {
			return &list[i]
		}
	}
	return nil
}

// GoodLockName reports whether the name can be a lock's: 1 to 64 letters, digits and . _ : / @ + -, not beginning with '-'.
func GoodLockName(name string) bool {
	if name == "" || len(name) > MaxLockName || name[0] == '-' {
		return false
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case r == '.', r == '_', r == ':', r == '/', r == '@', r == '+', r == '-':
		default:
			return false
		}
	}
	return true
}

func goodSession(id string) bool {
	if len(id) < 16 || len(id) > 64 {
		return false
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// endsLocks reports whether the proof says that no client of the incarnation runs any more, or that its node has told them to end.
// A node that never armed, or stopped its services in order, may run on with all its programs: LocksEnd ends those.
func (k ProofKind) endsLocks() bool {
	return k == ProofTime || k == ProofFenced || k == ProofOperator || k == ProofBoot
}

// locks returns the locks for writing.
func (t *tx) locks() *Locks {
	if !t.ownLocks.all {
		l := Locks{}
		if t.s.Locks != nil {
			l = *t.s.Locks
		}
		l.Changed = t.e.Index
		t.s.Locks, t.ownLocks.all = &l, true
	}
	return t.s.Locks
}

func (t *tx) sessions() map[string]*LockSession {
	l := t.locks()
	if !t.ownLocks.sessions {
		l.Sessions, t.ownLocks.sessions = copyMap(l.Sessions), true
	}
	return l.Sessions
}

// session returns an open session for writing.
func (t *tx) session(id string) *LockSession {
	m := t.sessions()
	c := *m[id]
	m[id] = &c
	return &c
}

// lock returns the lock for writing, a new one if nobody had to do with it.
func (t *tx) lock(name string) *Lock {
	l := t.locks()
	if !t.ownLocks.locks {
		l.Locks, t.ownLocks.locks = copyMap(l.Locks), true
	}
	c := Lock{Name: name}
	if old := l.Locks[name]; old != nil {
		c = *old
	}
	l.Locks[name] = &c
	return &c
}

func (t *tx) lockOpen(c *LockOpen) {
	if t.subject(c.Node, c.Incarnation, "the lock session") == nil {
		return
	}
	old := t.s.LockSession(c.Session)
	count, own := 0, 0
	if t.s.Locks != nil {
		count = len(t.s.Locks.Sessions)
		for _, x := range t.s.Locks.Sessions {
			if x.Node == c.Node {
				own++
			}
		}
	}
	switch {
	case !goodSession(c.Session):
		t.refuse("the id of a lock session has 16 to 64 letters and digits")
	case c.TTL < MinLockTTL || c.TTL > MaxLockTTL:
		t.refuse("the TTL of a lock session is from %v to %v", MinLockTTL, MaxLockTTL)
	case c.Again && (old == nil || old.Node != c.Node || old.Incarnation != c.Incarnation || old.Who != c.Who):
		t.refuse("the lock session is not open any more: what it held is lost")
	case c.Again, old != nil && old.Node == c.Node && old.Incarnation == c.Incarnation && old.Who == c.Who:
		// It is open: a repetition, or the daemon was restarted.
	case old != nil:
		t.refuse("the id of the lock session is in use")
	case count >= MaxLockSessions:
		t.refuse("there are %d lock sessions, more are not allowed", count)
	case own >= MaxNodeLockSessions:
		t.refuse("node %s has %d lock sessions, more are not allowed", c.Node, own)
	default:
		t.sessions()[c.Session] = &LockSession{ID: c.Session, Node: c.Node, Incarnation: c.Incarnation, Who: bounded(c.Who), TTL: c.TTL,
			Opened: t.e.Index, At: t.at()}
	}
}

func (t *tx) lockClose(c *LockClose) {
	x := t.s.LockSession(c.Session)
	switch {
	case x == nil: // closed already
	case x.Node != c.Node:
		t.refuse("the lock session is not one of node %s", c.Node)
	default:
		t.endSession(c.Session)
	}
}

// lockSubject finds the session of a command, and refuses one that is late or not its node's.
func (t *tx) lockSubject(session, node string, seq uint64) *LockSession {
	x := t.s.LockSession(session)
	switch {
	case x == nil:
		t.refuse("the lock session is not open: it was ended, and what it held is lost")
	case x.Node != node:
		t.refuse("the lock session is not one of node %s", node)
	case seq < x.Seq:
		t.refuse("the command is late: the session has sent others since")
	default:
		return x
	}
	return nil
}

func (t *tx) lockAcquire(c *LockAcquire) {
	x := t.lockSubject(c.Session, c.Node, c.Seq)
	if x == nil {
		return
	}
	l := t.s.Lock(c.Name)
	held, waits := l.Holder(c.Session), l.Waiter(c.Session)
	switch {
	case !GoodLockName(c.Name):
		t.refuse("%q cannot be the name of a lock: 1 to %d letters, digits and . _ : / @ + -", bounded(c.Name), MaxLockName)
	case c.Mode != LockExclusive && c.Mode != LockShared:
		t.refuse("there is no lock mode %q", bounded(string(c.Mode)))
	case !t.s.Current(x.Node, x.Incarnation):
		t.refuse("incarnation %d of node %s is over: its lock sessions take nothing more", x.Incarnation, x.Node)
	case held != nil && held.Mode != c.Mode:
		t.refuse("the session holds lock %s in mode %s: it must be released before it is taken in another", c.Name, held.Mode)
	case held != nil: // a repetition
		t.res.Token = held.Token
		t.seq(x, c.Seq)
	case waits != nil && waits.Mode == c.Mode && c.Wait: // a repetition
		t.res.Waits = true
		t.seq(x, c.Seq)
	case waits != nil:
		t.refuse("the session waits for lock %s already", c.Name)
	case !c.Wait && !l.free(c.Mode):
		t.refuse("lock %s is held by %s", c.Name, t.s.lockHolders(l))
		t.res.Busy = true
	case l == nil && t.s.Locks != nil && len(t.s.Locks.Locks) >= MaxLocks:
		t.refuse("%d locks are in use, more are not allowed", MaxLocks)
	case len(x.Locks) >= MaxSessionLocks:
		t.refuse("the session holds or waits for %d locks, more are not allowed", len(x.Locks))
	case l != nil && len(l.Waiters) >= MaxLockWaiters:
		t.refuse("%d wait for lock %s, more are not allowed", len(l.Waiters), c.Name)
	default:
		w := t.session(c.Session)
		w.Seq, w.Locks = c.Seq, withSorted(x.Locks, c.Name)
		n := t.lock(c.Name)
		n.Waiters = append(slices.Clip(slices.Clone(n.Waiters)), LockShare{Session: c.Session, Mode: c.Mode, Since: t.e.Index, At: t.at()})
		t.grantLock(c.Name)
		if h := t.s.Lock(c.Name).Holder(c.Session); h != nil {
			t.res.Token = h.Token
		} else {
			t.res.Waits = true
		}
	}
}

func (t *tx) seq(x *LockSession, seq uint64) {
	if seq > x.Seq {
		t.session(x.ID).Seq = seq
	}
}

// free reports whether one more could hold the lock at once, without overtaking anybody.
func (l *Lock) free(mode LockMode) bool { return l == nil || len(l.Waiters) == 0 && l.admits(mode) }

// admits reports whether the holders let another one in.
func (l *Lock) admits(mode LockMode) bool {
	return len(l.Holders) == 0 || mode == LockShared && l.Holders[0].Mode == LockShared
}

// lockHolders names them for a refusal.
func (s *State) lockHolders(l *Lock) string {
	if len(l.Holders) == 0 {
		return "nobody, and others wait for it"
	}
	h := &l.Holders[0]
	out := "session " + h.Session
	if x := s.LockSession(h.Session); x != nil {
		out = x.Who + " on node " + x.Node
	}
	if len(l.Holders) > 1 {
		out += " and others"
	}
	return out + " (" + string(h.Mode) + ")"
}

func (t *tx) lockRelease(c *LockRelease) {
	x := t.lockSubject(c.Session, c.Node, c.Seq)
	if x == nil {
		return
	}
	t.seq(x, c.Seq) // an acquisition that comes later than this is late
	if slices.Contains(x.Locks, c.Name) {
		t.leaveLock(c.Session, c.Name)
	}
}

func (t *tx) lockBreak(c *LockBreak) {
	l, x := t.s.Lock(c.Name), t.s.LockSession(c.Session)
	switch {
	case l == nil:
		t.refuse("nobody holds lock %s or waits for it", bounded(c.Name))
	case x == nil || l.Holder(c.Session) == nil && l.Waiter(c.Session) == nil:
		t.refuse("session %s does not hold lock %s and does not wait for it", bounded(c.Session), c.Name)
	default:
		t.leaveLock(c.Session, c.Name)
		t.event(EventLock, x.Node, "", "lock %s was taken from %s on node %s by %s", c.Name, x.Who, x.Node, t.by())
	}
}

func (t *tx) locksEnd(c *LocksEnd) {
	switch {
	case t.s.Current(c.Node, c.Incarnation):
		t.refuse("incarnation %d of node %s is not over: its lock sessions end only with it", c.Incarnation, c.Node)
	default:
		t.endSessions(c.Node, c.Incarnation, "their TTL has passed since it was over")
	}
}

// leaveLock takes a session out of a lock and lets the next in.
func (t *tx) leaveLock(session, name string) {
	w := t.session(session)
	w.Locks = without(w.Locks, name)
	l := t.lock(name)
	gone := func(h LockShare) bool { return h.Session == session }
	l.Holders = slices.DeleteFunc(slices.Clone(l.Holders), gone)
	l.Waiters = slices.DeleteFunc(slices.Clone(l.Waiters), gone)
	t.grantLock(name)
}

// grantLock lets those in who are next and admitted; a lock that nobody needs is forgotten.
func (t *tx) grantLock(name string) {
	l := t.lock(name)
	for len(l.Waiters) > 0 && l.admits(l.Waiters[0].Mode) {
		h := l.Waiters[0]
		all := t.locks()
		all.Token = max(all.Token, t.s.Epoch<<generationBits) + 1
		h.Token, h.Since, h.At = all.Token, t.e.Index, t.at()
		l.Holders = append(slices.Clip(slices.Clone(l.Holders)), h)
		l.Waiters = slices.Clone(l.Waiters[1:])
	}
	if len(l.Holders)+len(l.Waiters) == 0 {
		delete(t.s.Locks.Locks, name)
	}
}

func (t *tx) endSession(id string) {
	for _, name := range t.s.LockSession(id).Locks {
		t.leaveLock(id, name)
	}
	delete(t.sessions(), id)
}

// endSessions ends all sessions of an incarnation, in an order that every replica has.
func (t *tx) endSessions(node string, incarnation uint64, why string) {
	ids := t.s.sessionsOf(node, incarnation)
	for _, id := range ids {
		t.endSession(id)
	}
	if len(ids) > 0 {
		t.event(EventLock, node, "", "%d lock sessions of incarnation %d of node %s have ended: %s", len(ids), incarnation, node, why)
	}
}

// endRemoved ends the sessions of nodes that a definition does not have any more.
func (t *tx) endRemoved(d *cluster.Definition) {
	if t.s.Locks == nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(t.s.Locks.Sessions)) {
		if d.Node(t.s.Locks.Sessions[id].Node) == nil {
			t.endSession(id)
		}
	}
}

// carrySessions hands the sessions to the next incarnation of the same boot: it is the same machine, and their clients run on.
func (t *tx) carrySessions(node string, from, to uint64) {
	for _, id := range t.s.sessionsOf(node, from) {
		t.session(id).Incarnation = to
	}
}

func (s *State) sessionsOf(node string, incarnation uint64) []string {
	if s.Locks == nil {
		return nil
	}
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(s.Locks.Sessions)) {
		if x := s.Locks.Sessions[id]; x.Node == node && x.Incarnation == incarnation {
			ids = append(ids, id)
		}
	}
	return ids
}

// checkLocks refuses decoded locks on which Apply could not work.
func (s *State) checkLocks() string {
	if s.Locks == nil {
		return ""
	}
	for id, x := range s.Locks.Sessions {
		if x == nil || x.ID != id {
			return "lock session " + id + " is not well formed"
		}
		for _, name := range x.Locks {
			if l := s.Locks.Locks[name]; l.Holder(id) == nil && l.Waiter(id) == nil {
				return "lock session " + id + " names lock " + name + " and has no part in it"
			}
		}
	}
	for name, l := range s.Locks.Locks {
		if l == nil || l.Name != name {
			return "lock " + name + " is not well formed"
		}
		for _, h := range slices.Concat(l.Holders, l.Waiters) {
			if x := s.Locks.Sessions[h.Session]; x == nil || !slices.Contains(x.Locks, name) {
				return "lock " + name + " names a session that does not know it"
			}
		}
	}
	return ""
}
