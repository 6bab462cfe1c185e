package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Locks. The log has the locks and their sessions (pkg/state/lock.go). Each node keeps the sessions of its own clients: it proposes what
// they ask for, ends a session whose client has gone, and tells a client when its session is lost.
//
// # Why a client hears of the loss before another can have its lock
//
// A session ends in the log by its node's own word (the client has then gone, or been told), by an operator, or with the node. Of the
// latter, a fence, a boot, the operator's confirmation and the reset that a time proof stands for end the client as well. Three cases
// are left in which the client may run on:
//
//   - The node is isolated and armed. It lets go of its groups and disarms at L_soft, and is proven dead by time no sooner than at
//     Expiry, after the last request that was granted. It tells its clients at L_soft (tendLocks).
//   - It is isolated and not armed. The leader proves it dead at once, which says nothing of programs, so Apply keeps the sessions. No
//     leader grants that incarnation anything after the proof; so the node's newest granted request is older than the proof, and it
//     tells its clients within L_soft of it. The leader ends the sessions after their TTL and 2 L_soft, counted from when it saw the proof
//     in its own state (package leader).
//   - Its daemon is down. A client that gets no answer gives up when its TTL has passed since it began its last answered call, which was
//     before the daemon went, which was before the proof. A daemon that is back in time waits the TTL for the clients of the sessions
//     that it finds. A new life of the boot takes them over.
//
// All of it rests on a client and a daemon that run. One that is stopped for longer learns too late. For that there are fencing tokens.

// lockDesk is this node's sessions of clients. Its lock is held for no call.
type lockDesk struct {
	ctx      context.Context // ends with the member
	news     notifier        // locks or sessions have changed in the log's state
	seen     uint64          // LocksChanged of the newest state; the log's goroutine only
	lease    atomic.Pointer[leaseView]
	mu       sync.Mutex
	sessions map[string]*deskSession
	strays   map[string]lease.Instant // sessions of this node that no client has claimed, and since when
	ending   map[string]bool          // sessions that the log must end: true while that is under way
	closed   bool                     // the daemon stops
}

// leaseView is what the loop last knew of this node's lease.
type leaseView struct {
	requested lease.Instant // of the newest granted request
	soft      time.Duration
}

type deskSession struct {
	id, who   string
	ttl       time.Duration
	confirmed lease.Instant // before its opening, which succeeded, was proposed
	index     uint64        // of that entry

	// Under lockDesk.mu:
	heard lease.Instant     // the client's last sign of life
	keeps int               // calls that hang now, which are one too
	held  map[string]uint64 // locks, with the index at which they were known to be held
	lost  string            // why, once it is
	told  bool              // the client knows
	done  chan struct{}     // closed when it is lost
}

func (d *lockDesk) init() {
	d.news.init()
	d.sessions, d.strays, d.ending = map[string]*deskSession{}, map[string]lease.Instant{}, map[string]bool{}
	d.lease.Store(&leaseView{})
}

// lookForNews wakes those who wait for locks. It is called by the log after each entry.
func (d *lockDesk) lookForNews(view *state.State) {
	if c := view.LocksChanged(); c != d.seen {
		d.seen = c
		d.news.fire()
	}
}

// lockPace is how often the desk looks at its sessions while there are any.
const lockPace = 250 * time.Millisecond

// keepLocks watches the sessions of this node until ctx ends. It sleeps while there are none.
func (m *member) keepLocks(ctx context.Context) {
	tick := time.NewTicker(lockPace)
	defer tick.Stop()
	tick.Stop()
	idle := true
	for {
		news := m.locks.news.wait()
		busy := m.tendLocks(ctx)
		switch {
		case busy && idle:
			tick.Reset(lockPace)
		case !busy:
			tick.Stop()
		}
		idle = !busy
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-news:
		}
	}
}

// tendLocks is one look at all sessions. It reports whether there are any.
func (m *member) tendLocks(ctx context.Context) bool {
	d, view, now := &m.locks, m.view(), m.clock.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions {
		switch isolated := m.withoutGrant(s, now); {
		case view.Index >= s.index && view.LockSession(s.id) == nil:
			d.lose(s, "the cluster has ended it")
			delete(d.sessions, s.id)
		case isolated > 0:
			d.lose(s, fmt.Sprintf("node %s has had no word of a leader for %.1f s: others may be given its locks", m.name, isolated.Seconds()))
		case s.keeps == 0 && now.Sub(s.heard) >= s.ttl:
			d.lose(s, fmt.Sprintf("its client has said nothing for %s", s.ttl))
		}
		// Its client first: it is told, or has given up by itself.
		if s.lost != "" && d.sessions[s.id] == s && (s.told || s.keeps == 0 && now.Sub(s.heard) >= s.ttl) {
			d.end(s.id)
		}
	}
	m.claimStrays(view, now)
	for id, busy := range d.ending {
		if view.LockSession(id) == nil {
			delete(d.ending, id)
			if s := d.sessions[id]; s != nil && s.keeps == 0 {
				delete(d.sessions, id)
			}
		} else if !busy {
			d.ending[id] = true
			m.work.Go(func() { m.endLockSession(ctx, id) })
		}
	}
	return len(d.sessions)+len(d.strays)+len(d.ending) > 0
}

// withoutGrant is for how long this node has had no grant, once that is too long; else 0.
func (m *member) withoutGrant(s *deskSession, now lease.Instant) time.Duration {
	v := m.locks.lease.Load()
	soft := v.soft
	if soft == 0 {
		soft = m.params().Soft
	}
	if ago := now.Sub(max(v.requested, s.confirmed)); ago >= soft {
		return ago
	}
	return 0
}

// claimStrays gives the clients of an earlier daemon of this node the TTL to come back; then their sessions end.
func (m *member) claimStrays(view *state.State, now lease.Instant) {
	d := &m.locks
	found := map[string]bool{}
	if view.Locks != nil {
		for id, x := range view.Locks.Sessions {
			if _, ending := d.ending[id]; x.Node != m.name || d.sessions[id] != nil || ending {
				continue
			}
			found[id] = true
			if since, ok := d.strays[id]; !ok {
				d.strays[id] = now
			} else if now.Sub(since) >= x.TTL {
				m.log.Info("a lock session is ended: no client has claimed it since the daemon was started", "session", id, "who", x.Who)
				d.ending[id] = false
			}
		}
	}
	maps.DeleteFunc(d.strays, func(id string, _ lease.Instant) bool { return !found[id] })
}

// lose tells the session's client, now or when it asks.
func (d *lockDesk) lose(s *deskSession, why string) {
	if s.lost == "" {
		s.lost = why
		close(s.done)
	}
}

// endLockSession has the log end a session; if that does not succeed it is tried again by tendLocks.
func (m *member) endLockSession(ctx context.Context, id string) {
	_, err := m.proposeLock(ctx, &state.Command{LockClose: &state.LockClose{Session: id, Node: m.name}})
	if err != nil {
		m.log.Debug("end a lock session", "session", id, "error", err)
	}
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	if _, ok := m.locks.ending[id]; ok {
		m.locks.ending[id] = false
	}
}

// proposeLock brings a command of a session into the log, and tries again while there is no leader: the command is one that may be
// repeated. An error with api.CodeUncertain: it may have been done.
func (m *member) proposeLock(ctx context.Context, c *state.Command) (state.Result, error) {
	if behind := m.view().BehindFormat(c.Needs()); len(behind) > 0 {
		return state.Result{}, api.Errorf(api.CodeRefused, "the daemon of %s is older and knows no locks: upgrade it first", listOr(behind, ""))
	}
	ctx, cancel := context.WithTimeout(ctx, forwardLimit)
	defer cancel()
	sent := false
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		one := *c
		res, err := m.report(ctx, &one)
		if err == nil {
			return res, nil
		}
		sent = sent || !errors.Is(err, errNoLeader) && !errors.Is(err, consensus.ErrNotLeader)
		select {
		case <-ctx.Done():
			if sent {
				return res, api.Errorf(api.CodeUncertain, "the leader's answer did not come: it may have been done")
			}
			return res, api.Errorf(api.CodeUnavailable, "no leader: the cluster has no quorum that this node can reach, nothing was done")
		case <-after(pause):
		}
	}
}

// lockSession finds a client's session.
func (a *Agent) lockSession(who api.Caller, id string) (*member, *deskSession, error) {
	m, err := a.configured()
	if err != nil {
		return nil, nil, err
	}
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	s := m.locks.sessions[id]
	switch {
	case s == nil:
		return nil, nil, api.Errorf(api.CodeNotFound, "this daemon has no such lock session: if it was restarted, open it again")
	case s.who != who.String() && !who.Role.Allows(api.RoleAdmin):
		return nil, nil, api.Errorf(api.CodeForbidden, "the lock session is not one of %s", who)
	}
	return m, s, nil
}

// OpenLocks implements server.Locker.
func (a *Agent) OpenLocks(ctx context.Context, who api.Caller, r api.LockOpen) (api.LockSession, error) {
	m, err := a.configured()
	if err != nil {
		return api.LockSession{}, err
	}
	ttl := time.Duration(r.TTLSeconds * float64(time.Second))
	switch {
	case r.TTLSeconds == 0:
		ttl = api.DefaultLockTTL
	case !(r.TTLSeconds >= state.MinLockTTL.Seconds() && r.TTLSeconds <= state.MaxLockTTL.Seconds()):
		return api.LockSession{}, api.Errorf(api.CodeInvalid, "the TTL of a lock session is from %v to %v", state.MinLockTTL, state.MaxLockTTL)
	}
	if r.Again != (r.Session != "") {
		return api.LockSession{}, api.Errorf(api.CodeInvalid, "a session is named to open it again, and only then")
	}
	s := &deskSession{id: r.Session, who: who.String(), ttl: ttl, confirmed: m.clock.Now(), held: map[string]uint64{}, done: make(chan struct{})}
	s.heard = s.confirmed
	if r.Again {
		err = m.openAgain(ctx, s)
	} else {
		s.id = newNonce()
		err = m.openSession(ctx, s)
	}
	if err != nil {
		return api.LockSession{}, err
	}
	m.locks.news.fire() // the desk has something to watch
	return api.LockSession{Session: s.id, TTLSeconds: s.ttl.Seconds(), Node: m.name}, nil
}

// openSession opens a new one. Its id is used for one proposal only: what becomes of an attempt whose answer did not come is a stray.
func (m *member) openSession(ctx context.Context, s *deskSession) error {
	inc := m.incarnation(m.view())
	if inc == 0 {
		return api.Errorf(api.CodeUnavailable, "the cluster does not know this boot of node %s yet: nothing was done", m.name)
	}
	c := &state.Command{LockOpen: &state.LockOpen{Session: s.id, Node: m.name, Incarnation: inc, Who: s.who, TTL: s.ttl}}
	if behind := m.view().BehindFormat(c.Needs()); len(behind) > 0 {
		return api.Errorf(api.CodeRefused, "the daemon of %s is older and knows no locks: upgrade it first", listOr(behind, ""))
	}
	ctx, cancel := context.WithTimeout(ctx, forwardLimit)
	defer cancel()
	res, err := m.report(ctx, c)
	for errors.Is(err, errNoLeader) && ctx.Err() == nil {
		<-after(50 * time.Millisecond)
		res, err = m.report(ctx, c)
	}
	switch {
	case err != nil:
		return api.Errorf(api.CodeUnavailable, "the lock session could not be opened: %v", err)
	case res.Refused != "":
		return api.Errorf(api.CodeRefused, "%s", res.Refused)
	}
	s.index = res.Index
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	m.locks.sessions[s.id] = s
	return nil
}

// openAgain finds the session that the daemon before this one had.
func (m *member) openAgain(ctx context.Context, s *deskSession) error {
	m.locks.mu.Lock()
	old := m.locks.sessions[s.id]
	_, ending := m.locks.ending[s.id]
	m.locks.mu.Unlock()
	if old != nil && old.lost == "" && old.who == s.who {
		*s = deskSession{id: old.id, ttl: old.ttl}
		return nil // the client has lost its connection, and not its daemon
	}
	inc := m.incarnation(m.view())
	if inc == 0 {
		return api.Errorf(api.CodeUnavailable, "the cluster does not know this boot of node %s yet: nothing was done", m.name)
	}
	if old != nil || ending {
		return api.Errorf(api.CodeNotFound, "the lock session is lost")
	}
	res, err := m.proposeLock(ctx, &state.Command{LockOpen: &state.LockOpen{Session: s.id, Node: m.name, Incarnation: inc, Who: s.who,
		TTL: s.ttl, Again: true}})
	switch {
	case err != nil:
		return err
	case res.Refused != "":
		return api.Errorf(api.CodeNotFound, "%s", res.Refused)
	}
	m.await(ctx, res.Index)
	view := m.view()
	x := view.LockSession(s.id)
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	if _, ending := m.locks.ending[s.id]; x == nil || ending {
		return api.Errorf(api.CodeNotFound, "the lock session is lost")
	}
	s.ttl, s.index = x.TTL, res.Index
	for _, name := range x.Locks {
		if view.Lock(name).Holder(s.id) != nil {
			s.held[name] = res.Index
		}
	}
	delete(m.locks.strays, s.id)
	m.locks.sessions[s.id] = s
	return nil
}

// KeepLocks implements server.Locker.
func (a *Agent) KeepLocks(ctx context.Context, who api.Caller, r api.LockKeep) (api.LockKept, error) {
	m, s, err := a.lockSession(who, r.Session)
	if err != nil {
		return api.LockKept{}, err
	}
	wait := min(time.Duration(r.WaitSeconds*float64(time.Second)), s.ttl/3)
	if !(r.WaitSeconds > 0) {
		wait = s.ttl / 3
	}
	m.locks.mu.Lock()
	s.keeps++
	m.locks.mu.Unlock()
	defer func() {
		m.locks.mu.Lock()
		s.keeps--
		s.heard = m.clock.Now()
		m.locks.mu.Unlock()
	}()
	end := after(wait)
	for {
		news := m.locks.news.wait()
		if kept := m.lookAtSession(s); kept.Lost != "" || len(kept.Gone) > 0 {
			return kept, nil
		}
		select {
		case <-end:
			return api.LockKept{}, nil
		case <-news:
		case <-s.done:
		case <-m.locks.ctx.Done():
			return api.LockKept{}, api.Errorf(api.CodeUnavailable, "the daemon stops")
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), server.ErrClosed) && m.locks.ctx.Err() == nil {
				m.clientGone(s)
			}
			return api.LockKept{}, context.Cause(ctx)
		}
	}
}

// lookAtSession says what a session has lost.
func (m *member) lookAtSession(s *deskSession) api.LockKept {
	view := m.view()
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	out := api.LockKept{Lost: s.lost}
	s.told = s.lost != ""
	for _, name := range slices.Sorted(maps.Keys(s.held)) {
		if view.Index >= s.held[name] && view.Lock(name).Holder(s.id) == nil {
			out.Gone = append(out.Gone, name)
			delete(s.held, name)
		}
	}
	return out
}

// close lets nothing more begin: calls of clients may outlast the daemon's other goroutines.
func (d *lockDesk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// end has the log end the session, if that is not under way. Called with the lock.
func (d *lockDesk) end(id string) {
	if _, ok := d.ending[id]; !ok {
		d.ending[id] = false
	}
}

// clientGone ends the session of a client that hung up.
func (m *member) clientGone(s *deskSession) {
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	if m.locks.sessions[s.id] != s {
		return
	}
	m.locks.lose(s, "its client has gone")
	m.locks.end(s.id)
	m.locks.news.fire()
}

// TakeLock implements server.Locker.
func (a *Agent) TakeLock(ctx context.Context, who api.Caller, r api.LockTake) (api.LockTaken, error) {
	m, s, err := a.lockSession(who, r.Session)
	if err != nil {
		return api.LockTaken{}, err
	}
	switch {
	case r.Seq == 0 || r.Seq > 1<<62:
		return api.LockTaken{}, api.Errorf(api.CodeMissing, "a session's calls are numbered: seq is missing")
	case !state.GoodLockName(r.Name):
		return api.LockTaken{}, api.Errorf(api.CodeInvalid, "%.80q cannot be the name of a lock: 1 to %d letters, digits and . _ : / @ + -, not beginning with -",
			r.Name, state.MaxLockName)
	case !(r.WaitSeconds >= 0 && r.WaitSeconds < 1e8):
		return api.LockTaken{}, api.Errorf(api.CodeInvalid, "the time to wait is no number of seconds")
	}
	mode := state.LockExclusive
	if r.Shared {
		mode = state.LockShared
	}
	c := &state.LockAcquire{Session: s.id, Node: m.name, Seq: 2 * r.Seq, Name: r.Name, Mode: mode, Wait: r.Wait}
	res, err := m.proposeLock(ctx, &state.Command{LockAcquire: c})
	switch {
	case err != nil:
		m.dropTake(c)
		return api.LockTaken{}, err
	case res.Busy:
		return api.LockTaken{Busy: res.Refused}, nil
	case res.Refused != "":
		return api.LockTaken{Refused: res.Refused}, nil
	case res.Token != 0:
		return m.taken(s, r.Name, res.Token, res.Index)
	}
	out, err := m.awaitLock(ctx, s, r, res.Index)
	if err != nil || !out.Held {
		m.dropTake(c)
	}
	return out, err
}

// taken notes a lock that is held. A session that was lost meanwhile does not have it.
func (m *member) taken(s *deskSession, name string, token, index uint64) (api.LockTaken, error) {
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	if s.lost != "" {
		return api.LockTaken{}, api.Errorf(api.CodeNotFound, "the lock session is lost: %s", s.lost)
	}
	s.held[name] = index
	return api.LockTaken{Held: true, Token: token}, nil
}

// awaitLock waits for its turn, which comes with the log's state.
func (m *member) awaitLock(ctx context.Context, s *deskSession, r api.LockTake, index uint64) (api.LockTaken, error) {
	var end <-chan time.Time
	if r.WaitSeconds > 0 {
		end = after(time.Duration(r.WaitSeconds * float64(time.Second)))
	}
	for {
		news := m.locks.news.wait()
		if view := m.view(); view.Index >= index {
			l := view.Lock(r.Name)
			if h := l.Holder(s.id); h != nil {
				return m.taken(s, r.Name, h.Token, view.Index)
			}
			if l.Waiter(s.id) == nil {
				return api.LockTaken{Refused: "the session was taken out of the line for lock " + r.Name}, nil
			}
		}
		select {
		case <-news:
		case <-s.done:
			return api.LockTaken{}, api.Errorf(api.CodeNotFound, "the lock session is lost: %s", s.lost)
		case <-end:
			return api.LockTaken{Busy: fmt.Sprintf("lock %s was not free within %v", r.Name, time.Duration(r.WaitSeconds*float64(time.Second)))}, nil
		case <-ctx.Done():
			return api.LockTaken{}, context.Cause(ctx)
		}
	}
}

// dropTake takes a request back whose caller does not wait any more, or has no answer. It comes after it by its number, so that the
// request is late wherever it still is.
func (m *member) dropTake(c *state.LockAcquire) {
	m.locks.mu.Lock()
	defer m.locks.mu.Unlock()
	if m.locks.closed { // nobody waits for what is begun now; the session ends with its client, or by its TTL
		return
	}
	m.work.Go(func() {
		_, err := m.proposeLock(m.locks.ctx, &state.Command{LockRelease: &state.LockRelease{Session: c.Session, Node: c.Node, Seq: c.Seq + 1, Name: c.Name}})
		if err != nil { // the caller was not told that it is held: it ends with the session
			m.log.Info("a request for a lock could not be taken back; it ends with its session", "lock", c.Name, "session", c.Session, "error", err)
		}
	})
}

// GiveLock implements server.Locker.
func (a *Agent) GiveLock(ctx context.Context, who api.Caller, r api.LockGive) (api.Reply, error) {
	m, s, err := a.lockSession(who, r.Session)
	if err != nil {
		return api.Reply{}, err
	}
	if r.Seq == 0 || r.Seq > 1<<62 {
		return api.Reply{}, api.Errorf(api.CodeMissing, "a session's calls are numbered: seq is missing")
	}
	m.locks.mu.Lock()
	delete(s.held, r.Name)
	m.locks.mu.Unlock()
	res, err := m.proposeLock(ctx, &state.Command{LockRelease: &state.LockRelease{Session: s.id, Node: m.name, Seq: 2 * r.Seq, Name: r.Name}})
	return api.Reply{Index: res.Index, Refused: res.Refused}, err
}

// CloseLocks implements server.Locker.
func (a *Agent) CloseLocks(ctx context.Context, who api.Caller, r api.LockClose) (api.Reply, error) {
	m, s, err := a.lockSession(who, r.Session)
	if err != nil {
		return api.Reply{}, err
	}
	m.locks.mu.Lock()
	m.locks.lose(s, "its client has closed it")
	m.locks.ending[s.id] = true
	m.locks.mu.Unlock()
	res, err := m.proposeLock(ctx, &state.Command{LockClose: &state.LockClose{Session: s.id, Node: m.name}})
	m.locks.mu.Lock()
	m.locks.ending[s.id] = false // looked at again: it is forgotten when the log shows it ended
	m.locks.mu.Unlock()
	m.locks.news.fire()
	return api.Reply{Index: res.Index, Refused: res.Refused}, err
}

// Locks implements server.Locker.
func (a *Agent) Locks(ctx context.Context, name string, since uint64, wait time.Duration) (api.LockList, error) {
	m, err := a.configured()
	if err != nil {
		return api.LockList{}, err
	}
	var end <-chan time.Time
	if wait > 0 {
		end = after(wait)
	}
	for {
		news := m.locks.news.wait()
		view := m.view()
		if end == nil || view.LocksChanged() != since {
			return lockList(view, name), nil
		}
		select {
		case <-news:
		case <-end:
			end = nil
		case <-ctx.Done():
			return api.LockList{}, context.Cause(ctx)
		}
	}
}

func lockList(view *state.State, only string) api.LockList {
	out := api.LockList{Version: view.LocksChanged(), Locks: []api.Lock{}}
	if view.Locks == nil {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(view.Locks.Locks)) {
		if only != "" && name != only {
			continue
		}
		l := view.Locks.Locks[name]
		one := api.Lock{Name: name, Mode: string(l.Holders[0].Mode)}
		for i := range l.Holders {
			one.Holders = append(one.Holders, lockShare(view, &l.Holders[i]))
		}
		for i := range l.Waiters {
			one.Waiters = append(one.Waiters, lockShare(view, &l.Waiters[i]))
		}
		out.Locks = append(out.Locks, one)
	}
	return out
}

func lockShare(view *state.State, h *state.LockShare) api.LockShare {
	x := view.LockSession(h.Session)
	return api.LockShare{Session: h.Session, Node: x.Node, Who: x.Who, Mode: string(h.Mode), Token: h.Token, Since: h.At,
		Silent: !view.Node(x.Node).Alive() || x.Incarnation != view.Node(x.Node).Incarnation}
}
