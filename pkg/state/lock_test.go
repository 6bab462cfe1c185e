package state

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

func sid(n int) string { return fmt.Sprintf("session%09d", n) }

func (l *log) open(node string, n int) {
	l.t.Helper()
	l.ok(Command{LockOpen: &LockOpen{Session: sid(n), Node: node, Incarnation: l.s.Nodes[node].Incarnation, Who: "app", TTL: 15 * time.Second}})
}

var lockSeq uint64

func acquire(node string, n int, name string, mode LockMode, wait bool) Command {
	lockSeq++
	return Command{LockAcquire: &LockAcquire{Session: sid(n), Node: node, Seq: lockSeq, Name: name, Mode: mode, Wait: wait}}
}

func releaseLock(node string, n int, name string) Command {
	lockSeq++
	return Command{LockRelease: &LockRelease{Session: sid(n), Node: node, Seq: lockSeq, Name: name}}
}

func (l *log) holders(name string) string {
	var out []string
	if x := l.s.Lock(name); x != nil {
		for _, h := range x.Holders {
			out = append(out, strings.TrimLeft(strings.TrimPrefix(h.Session, "session"), "0"))
		}
		out = append(out, "|")
		for _, h := range x.Waiters {
			out = append(out, strings.TrimLeft(strings.TrimPrefix(h.Session, "session"), "0"))
		}
	}
	return strings.Join(out, " ")
}

func (l *log) wantHolders(name, want string) {
	l.t.Helper()
	if got := l.holders(name); got != want {
		l.t.Fatalf("lock %s: %q, want %q", name, got, want)
	}
}

func locksOf(t *testing.T) *log {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	for i, n := range []string{"n1", "n2", "n3"} {
		l.open(n, i+1)
	}
	return l
}

// Exclusive, shared, waiting in order, tokens.
func TestLocks(t *testing.T) {
	l := locksOf(t)
	first := l.ok(acquire("n1", 1, "db", LockExclusive, false)).Token
	if first == 0 {
		t.Fatal("no token")
	}
	if why := l.refused(acquire("n2", 2, "db", LockShared, false)); !strings.Contains(why, "app on node n1") {
		t.Fatal(why)
	}
	if r := l.ok(acquire("n2", 2, "db", LockShared, true)); !r.Waits || r.Token != 0 {
		t.Fatalf("%+v", r)
	}
	if r := l.ok(acquire("n3", 3, "db", LockShared, true)); !r.Waits {
		t.Fatalf("%+v", r)
	}
	l.wantHolders("db", "1 | 2 3")
	l.ok(releaseLock("n1", 1, "db"))
	l.wantHolders("db", "2 3 |")
	x := l.s.Lock("db")
	if x.Holders[0].Token <= first || x.Holders[1].Token <= x.Holders[0].Token {
		t.Fatalf("the tokens do not grow: %d, %+v", first, x.Holders)
	}
	// Who shares it does not let a third in while an exclusive one waits.
	l.ok(acquire("n1", 1, "db", LockExclusive, true))
	l.open("n1", 4)
	l.refused(acquire("n1", 4, "db", LockShared, false))
	l.ok(acquire("n1", 4, "db", LockShared, true))
	l.wantHolders("db", "2 3 | 1 4")
	l.ok(releaseLock("n2", 2, "db"))
	l.wantHolders("db", "3 | 1 4")
	l.ok(releaseLock("n3", 3, "db"))
	l.wantHolders("db", "1 | 4")
	l.refused(acquire("n1", 1, "db", LockShared, false)) // another mode than it has
	l.ok(Command{LockClose: &LockClose{Session: sid(1), Node: "n1"}})
	l.wantHolders("db", "4 |")
	l.ok(Command{LockClose: &LockClose{Session: sid(1), Node: "n1"}}) // closed already
	l.ok(Command{LockBreak: &LockBreak{Session: sid(4), Name: "db"}})
	l.wantHolders("db", "")
	l.refused(Command{LockBreak: &LockBreak{Session: sid(4), Name: "db"}})
	if len(l.s.Locks.Locks) != 0 || len(l.s.LockSession(sid(4)).Locks) != 0 {
		t.Fatalf("something is left: %+v", l.s.Locks)
	}
	if again := l.ok(acquire("n1", 4, "db", LockExclusive, false)).Token; again <= first+2 {
		t.Fatalf("token %d after the lock was forgotten", again)
	}
}

// What comes late, twice, or from another node changes nothing.
func TestLateLockCommands(t *testing.T) {
	l := locksOf(t)
	a := acquire("n1", 1, "db", LockExclusive, false)
	one := l.ok(a).Token
	if two := l.ok(a).Token; two != one {
		t.Fatalf("the repetition got token %d, not %d", two, one)
	}
	w := acquire("n2", 2, "db", LockExclusive, true)
	l.ok(w)
	l.ok(w)
	l.wantHolders("db", "1 | 2")
	l.ok(releaseLock("n2", 2, "db"))
	l.refused(w)
	l.ok(releaseLock("n1", 1, "db"))
	l.refused(a)
	l.wantHolders("db", "")
	l.refused(acquire("n2", 1, "db", LockExclusive, false))
	l.refused(Command{LockClose: &LockClose{Session: sid(1), Node: "n3"}})
	l.refused(Command{LockOpen: &LockOpen{Session: sid(1), Node: "n2", Incarnation: 1, Who: "app", TTL: 15 * time.Second}})
	l.refused(Command{LockOpen: &LockOpen{Session: sid(1), Node: "n1", Incarnation: 1, Who: "other", TTL: 15 * time.Second, Again: true}})
	l.ok(Command{LockOpen: &LockOpen{Session: sid(1), Node: "n1", Incarnation: 1, Who: "app", TTL: 15 * time.Second, Again: true}})
	l.refused(Command{LockOpen: &LockOpen{Session: sid(9), Node: "n1", Incarnation: 1, Who: "app", TTL: 15 * time.Second, Again: true}})
	l.refused(Command{LockOpen: &LockOpen{Session: sid(9), Node: "n1", Incarnation: 7, Who: "app", TTL: 15 * time.Second}})
	for _, ttl := range []time.Duration{0, MinLockTTL - 1, MaxLockTTL + 1} {
		l.refused(Command{LockOpen: &LockOpen{Session: sid(9), Node: "n1", Incarnation: 1, TTL: ttl}})
	}
	l.refused(Command{LockOpen: &LockOpen{Session: "short", Node: "n1", Incarnation: 1, TTL: MinLockTTL}})
	for _, name := range []string{"", "-a", "a b", "ä", strings.Repeat("x", MaxLockName+1), "a\n"} {
		l.refused(acquire("n1", 1, name, LockExclusive, true))
	}
	l.refused(acquire("n1", 1, "x", "sideways", true))
}

// Silence frees nothing. What ends sessions is what says that their clients have ended.
func TestLocksOfANodeThatEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		armed bool
		end   func(l *log)
		want  string
	}{
		"silent":      {true, func(*log) {}, "1 | 2"},
		"time":        {true, func(l *log) { f := armedFact("n1", 1); l.proof(ProofTime, timeProof(f, f.Expiry())) }, "2 |"},
		"fenced":      {true, func(l *log) { l.proof(ProofFenced, nil) }, "2 |"},
		"operator":    {false, func(l *log) { l.proof(ProofOperator, nil) }, "2 |"},
		"never armed": {false, func(l *log) { l.proof(ProofNeverArmed, nil) }, "1 | 2"},
		"never armed, then its TTL": {false, func(l *log) {
			l.proof(ProofNeverArmed, nil)
			l.ok(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 1}})
		}, "2 |"},
		"never armed, then fenced": {false, func(l *log) { l.proof(ProofNeverArmed, nil); l.proof(ProofFenced, nil) }, "2 |"},
		"a new life of the boot": {false, func(l *log) {
			l.proof(ProofNeverArmed, nil)
			l.ok(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-boot1", Life: "2", Replaces: 1, AllStopped: true}})
			l.refused(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 2}})
			l.ok(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 1}}) // there are none of it
		}, "1 | 2"},
		"a boot":         {true, func(l *log) { l.boot("n1", "n1-boot2", 1, true) }, "2 |"},
		"an unsure boot": {true, func(l *log) { l.boot("n1", "n1-boot2", 1, false) }, "2 |"},
	} {
		t.Run(name, func(t *testing.T) {
			l := locksOf(t)
			if tc.armed {
				l.arm("n1", 1)
			}
			l.ok(acquire("n1", 1, "db", LockExclusive, false))
			l.ok(acquire("n2", 2, "db", LockExclusive, true))
			l.ok(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "silent"}})
			l.refused(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 1}})
			tc.end(l)
			l.wantHolders("db", tc.want)
			if l.s.Nodes["n1"].Dead != nil && l.s.LockSession(sid(1)) != nil {
				l.refused(acquire("n1", 1, "other", LockExclusive, false))
			}
			if _, err := Decode(mustEncode(t, l.s)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A platform that may run a second copy of a node: its boot does not say that the first copy's programs have ended.
func TestLocksOfASecondCopy(t *testing.T) {
	d := three()
	d.Nodes[0].PlatformRestart = true
	l := newLog(t, d)
	l.up("n1", "n2", "n3")
	l.open("n1", 1)
	l.open("n2", 2)
	l.ok(acquire("n1", 1, "db", LockExclusive, false))
	l.ok(acquire("n2", 2, "db", LockExclusive, true))
	l.boot("n1", "n1-boot2", 1, true)
	l.wantHolders("db", "1 | 2")
	l.ok(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 1}})
	l.wantHolders("db", "2 |")
}

func (l *log) proof(kind ProofKind, time *lease.TimeProof) {
	l.t.Helper()
	l.ok(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: kind, Time: time, Sentence: "test"}})
}

func TestLocksOfARemovedNode(t *testing.T) {
	l := locksOf(t)
	l.ok(acquire("n3", 3, "db", LockExclusive, false))
	d := three()
	d.Nodes = d.Nodes[:2]
	for i := range d.ResourceGroups {
		d.ResourceGroups[i].Nodes = without(d.ResourceGroups[i].Nodes, "n3")
	}
	l.ok(Command{NodeServices: &NodeServices{Nodes: []string{"n3"}, Stop: StopOffline}})
	l.ok(Command{SetDefinition: &SetDefinition{Base: l.s.DefinitionVersion, Definition: d}})
	if l.s.LockSession(sid(3)) != nil || l.s.Lock("db") != nil {
		t.Fatalf("%+v", l.s.Locks)
	}
}

// After a forced configuration tokens are larger than any that the lost majority may have given out.
func TestTokensAfterAForcedConfiguration(t *testing.T) {
	l := locksOf(t)
	before := l.ok(acquire("n1", 1, "db", LockExclusive, false)).Token
	l.ok(Command{NewEpoch: &NewEpoch{Epoch: l.s.Epoch + 1, Dead: []string{"n1"}}})
	if after := l.ok(acquire("n2", 2, "db", LockExclusive, false)).Token; after>>generationBits != l.s.Epoch || after <= before {
		t.Fatalf("token %#x after %#x in epoch %d", after, before, l.s.Epoch)
	}
}

func TestLockLimits(t *testing.T) {
	l := locksOf(t)
	for i := range MaxSessionLocks {
		l.ok(acquire("n1", 1, fmt.Sprint("l", i), LockShared, false))
	}
	l.refused(acquire("n1", 1, "more", LockShared, false))
	for i := range MaxNodeLockSessions - 1 {
		l.open("n2", 100+i)
		r := l.do(acquire("n2", 100+i, "line", LockExclusive, true))
		if want := i > MaxLockWaiters; (r.Refused != "") != want {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	l.refused(Command{LockOpen: &LockOpen{Session: sid(99), Node: "n2", Incarnation: 1, TTL: MinLockTTL}})
	l.open("n1", 9000)
	l.ok(acquire("n1", 9000, "line", LockExclusive, true))
	l.open("n1", 9001)
	l.ok(acquire("n1", 9001, "line", LockExclusive, true))
	l.open("n1", 9002)
	if why := l.refused(acquire("n1", 9002, "line", LockExclusive, true)); !strings.Contains(why, "512 wait") {
		t.Fatal(why)
	}
	for n := 9100; len(l.s.Locks.Locks) < MaxLocks; n++ {
		l.open("n1", n)
		for i := range min(MaxSessionLocks, MaxLocks-len(l.s.Locks.Locks)) {
			l.ok(acquire("n1", n, fmt.Sprint("n", n, "-", i), LockExclusive, false))
		}
	}
	if why := l.refused(acquire("n1", 9000, "one-too-many", LockExclusive, false)); !strings.Contains(why, "in use") {
		t.Fatal(why)
	}
}

// TestRandomLocks applies random commands of locks among all others, late and repeated ones too, and holds them against rules of
// its own: one exclusive holder, the order of those who wait, tokens that only grow, and what may end a session.
func TestRandomLocks(t *testing.T) {
	runs, steps := 60, 400
	if testing.Short() {
		runs = 15
	}
	taken := map[string]int{}
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		d := three()
		d.Nodes[0].PlatformRestart = r.IntN(4) == 0
		w := &randomWorld{log: newLog(t, d), r: r, taken: taken, used: map[uint64]string{}}
		w.up("n1", "n2", "n3")
		m := &lockModel{last: 0, ended: map[string]bool{}}
		var old []Command
		for i := range steps {
			c := m.random(w)
			switch {
			case len(old) > 0 && r.IntN(5) == 0:
				c = old[r.IntN(len(old))]
			case r.IntN(5) == 0:
				c = w.random()
			}
			old = append(old, c)
			before := w.s
			res := w.do(c)
			if res.Refused == "" {
				taken[c.Kind()]++
			}
			if why := m.broken(before, w.s, &c, res); why != "" {
				t.Fatalf("seed %d step %d: %s %+v: %s", seed, i, c.Kind(), res, why)
			}
			if r.IntN(20) == 0 {
				b := mustEncode(t, w.s)
				s, err := Decode(b)
				if err != nil || !bytes.Equal(b, mustEncode(t, s)) {
					t.Fatalf("seed %d step %d: the state is not the same after decoding: %v", seed, i, err)
				}
				w.s = s
			}
		}
	}
	for _, kind := range []string{"lock_open", "lock_close", "lock_acquire", "lock_release", "lock_break", "locks_end", "proof", "node_boot", "new_epoch"} {
		if taken[kind] == 0 {
			t.Errorf("no %s was ever taken: the test does not reach it", kind)
		}
	}
}

type lockModel struct {
	last  uint64
	ids   int
	seq   uint64
	ended map[string]bool
}

func (m *lockModel) random(w *randomWorld) Command {
	r := w.r
	node := []string{"n1", "n2", "n3"}[r.IntN(3)]
	name := []string{"a", "b"}[r.IntN(2)]
	var ids []string
	if w.s.Locks != nil {
		ids = slices.Sorted(maps.Keys(w.s.Locks.Sessions))
	}
	if len(ids) < 3 || len(ids) < 8 && r.IntN(6) == 0 {
		m.ids++
		return Command{LockOpen: &LockOpen{Session: sid(m.ids), Node: node, Incarnation: w.s.Nodes[node].Incarnation, Who: node, TTL: 15 * time.Second}}
	}
	id := ids[r.IntN(len(ids))]
	if r.IntN(10) > 0 {
		node = w.s.LockSession(id).Node
	}
	m.seq++
	switch r.IntN(12) {
	case 0:
		return Command{LockClose: &LockClose{Session: id, Node: node}}
	case 1:
		return Command{LockBreak: &LockBreak{Session: id, Name: name}}
	case 2:
		inc := w.s.LockSession(id).Incarnation
		return Command{LocksEnd: &LocksEnd{Node: node, Incarnation: inc}}
	case 3, 4, 5, 6:
		return Command{LockRelease: &LockRelease{Session: id, Node: node, Seq: m.seq, Name: name}}
	}
	return Command{LockAcquire: &LockAcquire{Session: id, Node: node, Seq: m.seq, Name: name, Mode: []LockMode{LockExclusive, LockShared}[r.IntN(2)], Wait: r.IntN(3) > 0}}
}

// broken is the checker: it knows nothing of how Apply works.
func (m *lockModel) broken(before, after *State, c *Command, res Result) string {
	if after.Locks == nil {
		return ""
	}
	if c.LockOpen != nil && res.Refused == "" {
		delete(m.ended, c.LockOpen.Session) // a late repetition, which its node would close: the daemon never sends one
	}
	newest := m.last
	for name, l := range after.Locks.Locks {
		b := before.Lock(name)
		for _, h := range l.Holders {
			if h.Mode == LockExclusive && len(l.Holders) > 1 {
				return "an exclusive lock has several holders"
			}
			if b.Holder(h.Session) == nil {
				if h.Token <= m.last {
					return fmt.Sprintf("token %d after %d", h.Token, m.last)
				}
				// Nobody who was there before and still waits is overtaken.
				if b != nil {
					for _, w := range l.Waiters {
						was := slices.IndexFunc(b.Waiters, func(x LockShare) bool { return x.Session == w.Session })
						own := slices.IndexFunc(b.Waiters, func(x LockShare) bool { return x.Session == h.Session })
						if was >= 0 && (own < 0 || was < own) {
							return h.Session + " has overtaken " + w.Session
						}
					}
				}
			}
			newest = max(newest, h.Token)
			if m.ended[h.Session] {
				return "a session that has ended holds a lock"
			}
		}
		if len(l.Waiters) > 0 && len(l.Holders) == 0 {
			return "they wait for a lock that nobody holds"
		}
	}
	m.last = newest
	if c.LockAcquire != nil && res.Refused == "" && !res.Repeated {
		h := after.Lock(c.LockAcquire.Name).Holder(c.LockAcquire.Session)
		if (h != nil) == res.Waits || h != nil && h.Token != res.Token {
			return "the answer is not what the state says"
		}
	}
	if before.Locks == nil {
		return ""
	}
	for id, x := range before.Locks.Sessions {
		if after.Locks.Sessions[id] != nil {
			continue
		}
		m.ended[id] = true
		n := before.Nodes[x.Node]
		switch {
		case c.LockClose != nil && c.LockClose.Session == id && c.LockClose.Node == x.Node:
		case c.LocksEnd != nil && c.LocksEnd.Node == x.Node && c.LocksEnd.Incarnation == x.Incarnation && (n.Dead != nil || n.Incarnation != x.Incarnation):
		case c.Proof != nil && c.Proof.Node == x.Node && c.Proof.Incarnation == x.Incarnation && c.Proof.Kind != ProofNeverArmed && c.Proof.Kind != ProofCleanStop:
		case c.NodeBoot != nil && c.NodeBoot.Node == x.Node && c.NodeBoot.BootID != n.BootID && !before.Definition.Node(x.Node).PlatformRestart:
		case c.NewEpoch != nil && slices.Contains(c.NewEpoch.Dead, x.Node):
		default:
			return "session " + id + " was ended by " + c.Kind()
		}
	}
	return ""
}

func TestLocksNeedTheirFormat(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	if l.s.needs() >= 3 {
		t.Fatal("a state without locks is written in the format of locks")
	}
	c := acquire("n1", 1, "db", LockExclusive, false)
	if b, err := c.Encode(); err != nil || !bytes.HasPrefix(b, []byte(`{"format":3`)) {
		t.Fatalf("%s %v", b, err)
	}
	l.open("n1", 1)
	if l.s.needs() != 3 {
		t.Fatal("a state with locks is written in a format that does not have them")
	}
}

func TestDecodeRefusesBrokenLocks(t *testing.T) {
	l := locksOf(t)
	l.ok(acquire("n1", 1, "db", LockExclusive, false))
	good := string(mustEncode(t, l.s))
	for _, change := range [][2]string{
		{`"db":{"name":"db"`, `"db":{"name":"dc"`},
		{`"holders":[{"session":"` + sid(1), `"holders":[{"session":"` + sid(2)},
		{`"locks":["db"]`, `"locks":["dx"]`},
		{`"` + sid(2) + `":{"id":"` + sid(2), `"` + sid(2) + `":{"id":"` + sid(3)},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s does not stand in %s", change[0], good)
		}
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s was taken", change[1])
		}
	}
}
