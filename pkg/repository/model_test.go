package repository

import (
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
)

// This file is an executable model of claim, take-over, compaction and acknowledgement, searched exhaustively within small bounds.
// It is written apart from the code: what the code does is checked by the same rules on a simulated disk in sim_test.go.
//
// One step is one access to the disk, or one decision. Between any two steps of a host any number of steps of the others may
// happen, which is a pause of any length. A host may crash before or after each step; an access that was under way then happened,
// happened in part (a torn block, which nobody can read), did not happen, or happens later.

// modelBug is a rule that is left out.
type modelBug int

const (
	sound            modelBug = iota
	bugNoReread               // an acknowledgement without a look at the ballots after the write
	bugCheckFirst             // a look before the write, none after it
	bugClock                  // a lease by the clock: what was found valid before a pause is taken to be valid after it
	bugOneRecord              // one record that all hosts write, in place of one per host
	bugSameArea               // one area for all hosts
	bugInPlace                // compaction overwrites the live area
	bugGhost                  // a host starts again while a write of its former process is under way
	bugNewLimit               // compaction looks for ballots above its new one, and not above its old one
	bugNoPublishLook          // a claim serves without a look after it published: harmless, see TestModelOfWhatIsNotNeeded
	bugNoCopyLook             // no look between the copy and the publication: harmless too
	bugTornIsEmpty            // both copies of a ballot written at once, and what cannot be read counts as never written
)

// The program of a host.
const (
	mIdle      = iota
	mBallot0   // write the first copy of the ballot
	mBallot1   // write the second
	mLook      // read the others' ballots, one host after the other
	mRead      // read the area of the highest published claim
	mWipe      // the spare area is being written: nothing in it can be read
	mCopy      // it is written
	mLookCopy  //
	mPub0      // publish, first copy
	mPub1      //
	mLookPub   //
	mServe     //
	mWrite     // write an item (after mServe chose one)
	mLookItem  // and acknowledge it
	mLookFirst // bugCheckFirst and bugClock: look before the write
	mCompact0  // the same as above, for a compaction
	mCompact1
	mLookAgain
	mWipeAgain
	mCopyAgain
	mLookCopyAgain
	mPubAgain0
	mPubAgain1
	mLookPubAgain
	mConfirm // a look for an answer that depends on no write
)

const modelHosts = 3 // at most

type modelSlot struct {
	mbal, pub, area uint8
	torn            bool
}

type modelArea struct{ ballot, items uint8 } // ballot 0: nothing that can be read

type modelHost struct {
	pc      uint8
	b       uint8 // ballot of the claim
	old     uint8 // the ballot before, during a compaction
	live    uint8 // which of its areas
	from    uint8 // source: host*2 + area
	top     uint8 // highest published ballot seen
	at      uint8 // next host to look at
	snap    uint8 // items in memory
	item    uint8 // being written, as a bit
	stale   bool  // when the look began, another host served with a higher ballot
	pending modelWrite
}

// A modelWrite is under way although its process has died.
type modelWrite struct {
	what  uint8 // 0 none, 1 copy 0, 2 copy 1, 3 an item, 4 an area, 5 both copies
	slot  modelSlot
	area  uint8
	value modelArea
}

type modelState struct {
	slots   [modelHosts][2]modelSlot
	areas   [modelHosts][2]modelArea
	host    [modelHosts]modelHost
	acked   uint8
	items   uint8 // how many were written
	crashes uint8
}

type model struct {
	hosts, ballots, items, crashes int
	bug                            modelBug
	late                           bool // writes may land after their process has died
}

func (m *model) slotOwner(i int) int {
	if m.bug == bugOneRecord {
		return 0
	}
	return i
}

// slot is what a reader makes of a host's two copies; ok is false if neither can be read.
func (m *model) slot(s *modelState, i int) (modelSlot, bool) {
	c := s.slots[m.slotOwner(i)]
	switch {
	case c[0].torn && c[1].torn:
		return modelSlot{}, m.bug == bugTornIsEmpty
	case c[0].torn || !c[1].torn && (c[1].mbal > c[0].mbal || c[1].mbal == c[0].mbal && c[1].pub > c[0].pub):
		return c[1], true
	}
	return c[0], true
}

func (m *model) area(i int, no uint8) (int, uint8) {
	if m.bug == bugSameArea {
		return 0, 0
	}
	return i, no
}

// running is the ballot that a host serves with.
func (h *modelHost) running() uint8 {
	if h.old != 0 {
		return h.old
	}
	return h.b
}

// wrong tells what is wrong in a state: a host that serves with the highest ballot lacks what was acknowledged, or the next one to
// claim could not read it.
func (m *model) wrong(s *modelState) string {
	var newest modelSlot
	owner, readable := 0, true
	for i := range m.hosts {
		c, ok := m.slot(s, i)
		readable = readable && ok
		if c.pub > newest.pub {
			newest, owner = c, int(c.pub)%m.hosts
		}
	}
	if newest.pub != 0 && readable {
		o, no := m.area(owner, newest.area)
		a := s.areas[o][no]
		if a.ballot != newest.pub && m.bug != bugSameArea {
			return fmt.Sprintf("the area of ballot %d, the highest that was published, cannot be read", newest.pub)
		}
		if s.acked&^a.items != 0 {
			return fmt.Sprintf("items %b were acknowledged, and are not in the area of ballot %d, the highest that was published", s.acked&^a.items, newest.pub)
		}
	}
	for i := range m.hosts {
		h := &s.host[i]
		if h.pc < mServe || h.running() < newest.pub {
			continue
		}
		if o, no := m.area(i, h.live); s.acked&^s.areas[o][no].items != 0 {
			return fmt.Sprintf("host %d serves, and lacks items %b", i, s.acked&^s.areas[o][no].items)
		}
	}
	return ""
}

// A modelStep is a way on from a state.
type modelStep struct {
	what string
	s    modelState
	bad  string
}

// next lists the ways on.
func (m *model) next(s modelState, out []modelStep) []modelStep {
	for i := range m.hosts {
		out = m.hostSteps(s, i, out)
	}
	return out
}

func (m *model) hostSteps(s modelState, i int, out []modelStep) []modelStep {
	h := s.host[i]
	emit := func(what string, f func(t *modelState, h *modelHost) string) {
		t := s
		bad := f(&t, &t.host[i])
		out = append(out, modelStep{fmt.Sprintf("%d %s", i, what), t, bad})
	}
	if h.pending.what != 0 {
		emit("late write lands", func(t *modelState, h *modelHost) string { m.land(t, i, h.pending); h.pending = modelWrite{}; return "" })
		emit("late write is lost", func(_ *modelState, h *modelHost) string { h.pending = modelWrite{}; return "" })
		if m.bug != bugGhost {
			return out // the lock of the machine, and the wait after a boot
		}
	}
	if h.pc != mIdle && int(s.crashes) < m.crashes {
		out = m.crash(s, i, out)
	}
	switch h.pc {
	case mIdle:
		if b := m.choose(&s, i); b != 0 {
			emit(fmt.Sprintf("claims with %d", b), func(_ *modelState, h *modelHost) string {
				*h = modelHost{pc: mBallot0, b: b, pending: h.pending}
				return ""
			})
		}
	case mBallot0, mBallot1, mPub0, mPub1, mCompact0, mCompact1, mPubAgain0, mPubAgain1, mCopy, mCopyAgain, mWrite:
		emit("writes "+modelNames[h.pc], func(t *modelState, h *modelHost) string { m.land(t, i, m.write(&s, i)); m.after(t, h, i); return "" })
	case mWipe, mWipeAgain:
		emit("begins to write its spare area", func(t *modelState, h *modelHost) string {
			o, no := m.area(i, m.spare(&s, i))
			t.areas[o][no] = modelArea{}
			h.pc++
			return ""
		})
	case mRead:
		emit(fmt.Sprintf("reads the area of %d", h.top), func(t *modelState, h *modelHost) string {
			if h.top != 0 {
				o, no := m.area(int(h.from/2), h.from%2)
				a := t.areas[o][no]
				if a.ballot != h.top && m.bug != bugSameArea {
					m.stop(h) // unreadable: no claim
					return ""
				}
				h.snap = a.items
			}
			h.pc, h.from, h.top = mWipe, 0, 0
			return ""
		})
	case mServe:
		if int(s.items) < m.items {
			emit("takes an item", func(t *modelState, h *modelHost) string {
				h.item = 1 << t.items
				t.items++
				h.pc = mWrite
				if m.bug == bugCheckFirst || m.bug == bugClock {
					h.pc = mLookFirst
				}
				return ""
			})
		}
		if b := m.choose(&s, i); b != 0 {
			emit(fmt.Sprintf("compacts with %d", b), func(_ *modelState, h *modelHost) string { h.old, h.b, h.pc = h.b, b, mCompact0; return "" })
		}
		emit("begins to confirm", func(t *modelState, h *modelHost) string { h.pc = mConfirm; h.stale = m.newerServes(t, i); return "" })
	default:
		emit("looks ("+modelNames[h.pc]+")", func(t *modelState, h *modelHost) string { return m.look(t, h, i) })
	}
	return out
}

var modelNames = map[uint8]string{mBallot0: "ballot copy 0", mBallot1: "ballot copy 1", mPub0: "publication copy 0", mPub1: "publication copy 1",
	mCompact0: "new ballot copy 0", mCompact1: "new ballot copy 1", mPubAgain0: "new publication copy 0", mPubAgain1: "new publication copy 1",
	mCopy: "its area", mCopyAgain: "its other area", mWrite: "the item", mLook: "after the ballot", mLookCopy: "after the copy",
	mLookPub: "after the publication", mLookItem: "after the item, and acknowledges", mLookFirst: "before the write",
	mLookAgain: "after the new ballot", mLookCopyAgain: "after the new copy", mLookPubAgain: "after the new publication", mConfirm: "to confirm"}

// choose gives a host's smallest ballot above all, or 0 when the bound is reached.
func (m *model) choose(s *modelState, i int) uint8 {
	var top uint8
	for j := range m.hosts {
		c, ok := m.slot(s, j)
		if !ok {
			return 0
		}
		top = max(top, c.mbal)
	}
	for b := int(top) + 1; b <= m.ballots; b++ {
		if b%m.hosts == i {
			return uint8(b)
		}
	}
	return 0
}

// spare is the area that a take-over writes.
func (m *model) spare(s *modelState, i int) uint8 {
	h := &s.host[i]
	if h.pc >= mServe {
		if m.bug == bugInPlace {
			return h.live
		}
		return 1 - h.live
	}
	c, _ := m.slot(s, i)
	if c.pub == 0 {
		return 0
	}
	return 1 - c.area
}

// write is what the host's present step writes.
func (m *model) write(s *modelState, i int) modelWrite {
	h := &s.host[i]
	own, _ := m.slot(s, i)
	switch h.pc {
	case mBallot0, mBallot1, mCompact0, mCompact1:
		w := modelWrite{what: 1, slot: modelSlot{mbal: h.b, pub: own.pub, area: own.area}}
		if h.pc == mBallot1 || h.pc == mCompact1 {
			w.what = 2
		}
		if m.bug == bugTornIsEmpty {
			w.what = 5
		}
		return w
	case mPub0, mPub1, mPubAgain0, mPubAgain1:
		w := modelWrite{what: 1, slot: modelSlot{mbal: h.b, pub: h.b, area: m.published(s, i)}}
		if h.pc == mPub1 || h.pc == mPubAgain1 {
			w.what = 2
		}
		if m.bug == bugTornIsEmpty {
			w.what = 5
		}
		return w
	case mCopy, mCopyAgain:
		return modelWrite{what: 4, area: m.spare(s, i), value: modelArea{h.b, h.snap}}
	default:
		b := h.b
		return modelWrite{what: 3, area: h.live, value: modelArea{b, h.item}}
	}
}

// published is the area that a publication names: the one just copied. It is kept in from until then.
func (m *model) published(s *modelState, i int) uint8 { return s.host[i].from }

// land makes a write happen.
func (m *model) land(t *modelState, i int, w modelWrite) {
	o, no := m.area(i, w.area)
	switch w.what {
	case 1, 2:
		t.slots[m.slotOwner(i)][w.what-1] = w.slot
	case 5:
		t.slots[m.slotOwner(i)] = [2]modelSlot{w.slot, w.slot}
	case 3:
		if m.bug == bugSameArea || t.areas[o][no].ballot == w.value.ballot {
			t.areas[o][no].items |= w.value.items
		}
	case 4:
		t.areas[o][no] = w.value
	}
}

// tear makes a write happen in part.
func (m *model) tear(t *modelState, i int, w modelWrite) {
	switch w.what {
	case 1, 2:
		t.slots[m.slotOwner(i)][w.what-1] = modelSlot{torn: true}
	case 5:
		t.slots[m.slotOwner(i)] = [2]modelSlot{{torn: true}, {torn: true}}
	case 4:
		o, no := m.area(i, w.area)
		t.areas[o][no] = modelArea{}
	} // a torn item is one that is not there: its batch is not whole
}

// after goes on behind a write.
func (m *model) after(t *modelState, h *modelHost, i int) {
	switch h.pc {
	case mCopy, mCopyAgain:
		h.from = m.spare(t, i)
		h.pc++
	case mWrite:
		h.pc = mLookItem
		if m.bug == bugNoReread || m.bug == bugCheckFirst || m.bug == bugClock {
			t.acked |= h.item
			h.item, h.pc = 0, mServe
		}
	case mPub1:
		h.live, h.from, h.pc = h.from, 0, mLookPub
		if m.bug == bugNoPublishLook {
			h.snap, h.pc = 0, mServe
		}
	default:
		h.pc++
	}
}

// look reads one other host's ballot; behind the last one it goes on.
func (m *model) look(t *modelState, h *modelHost, i int) string {
	j := int(h.at)
	if j == i {
		j++
	}
	if j < m.hosts {
		c, ok := m.slot(t, j)
		limit := h.b
		if h.old != 0 && m.bug != bugNewLimit {
			limit = h.old
		}
		if !ok || c.mbal > limit && m.bug != bugClock && !(h.pc == mLookCopy && m.bug == bugNoCopyLook) {
			m.stop(h)
			return ""
		}
		if h.pc == mLook && c.pub > h.top {
			h.top, h.from = c.pub, uint8(int(c.pub)%m.hosts*2)+c.area
		}
		h.at = uint8(j + 1)
		if next := int(h.at); next < m.hosts && !(next == i && next+1 >= m.hosts) {
			return ""
		}
	}
	h.at = 0
	return m.looked(t, h, i)
}

// looked goes on behind a look that found nothing above.
func (m *model) looked(t *modelState, h *modelHost, i int) string {
	switch h.pc {
	case mLook:
		if own, _ := m.slot(t, i); own.pub > h.top {
			h.top, h.from = own.pub, uint8(int(own.pub)%m.hosts*2)+own.area
		}
		h.pc = mRead
	case mLookPub:
		h.snap, h.pc = 0, mServe
	case mLookItem:
		t.acked |= h.item
		h.item, h.pc = 0, mServe
	case mLookFirst:
		h.pc = mWrite
	case mLookAgain:
		o, no := m.area(i, h.live)
		h.snap, h.pc = t.areas[o][no].items, mWipeAgain
	case mLookPubAgain:
		h.live, h.from, h.old, h.snap, h.pc = h.from, 0, 0, 0, mServe
	case mConfirm:
		h.pc = mServe
		if h.stale {
			h.stale = false
			return fmt.Sprintf("host %d confirms although another served when it began to look", i)
		}
	default:
		h.pc++
	}
	return ""
}

// newerServes reports whether another host serves with a higher ballot.
func (m *model) newerServes(t *modelState, i int) bool {
	for j := range m.hosts {
		if j != i && t.host[j].pc >= mServe && t.host[j].running() > t.host[i].running() {
			return true
		}
	}
	return false
}

func (m *model) stop(h *modelHost) { *h = modelHost{pending: h.pending} }

// crash lists the ways in which a host can die now.
func (m *model) crash(s modelState, i int, out []modelStep) []modelStep {
	h := s.host[i]
	emit := func(what string, f func(t *modelState, h *modelHost)) {
		t := s
		t.crashes++
		m.stop(&t.host[i])
		f(&t, &t.host[i])
		out = append(out, modelStep{fmt.Sprintf("%d crashes%s", i, what), t, ""})
	}
	emit("", func(*modelState, *modelHost) {})
	switch h.pc {
	case mBallot0, mBallot1, mPub0, mPub1, mCompact0, mCompact1, mPubAgain0, mPubAgain1, mCopy, mCopyAgain, mWrite:
		w := m.write(&s, i)
		if w.what != 3 {
			emit(" in a write that is torn", func(t *modelState, _ *modelHost) { m.tear(t, i, w) })
		}
		if m.late && h.pending.what == 0 {
			emit(" with a write under way", func(_ *modelState, h *modelHost) { h.pending = w })
		}
	}
	return out
}

// search visits every state within the bounds; it returns their number, and the way to the first wrong one.
func (m *model) search(limit int) (states int, bad string, way []string) {
	type key [2]uint64
	seedA, seedB := maphash.MakeSeed(), maphash.MakeSeed()
	keyOf := func(s modelState) key { return key{maphash.Comparable(seedA, s), maphash.Comparable(seedB, s)} }
	type node struct {
		s      modelState
		parent int32
		what   string
	}
	queue := []node{{parent: -1}}
	seen := map[key]struct{}{keyOf(modelState{}): {}}
	trail := func(n int, last string) []string {
		out := []string{last}
		for ; n > 0; n = int(queue[n].parent) {
			out = append([]string{queue[n].what}, out...)
		}
		return out
	}
	var steps []modelStep
	for n := 0; n < len(queue); n++ {
		if n >= limit {
			return n, "the limit of states was reached", nil
		}
		steps = m.next(queue[n].s, steps[:0])
		for _, st := range steps {
			if st.bad == "" {
				st.bad = m.wrong(&st.s)
			}
			if st.bad != "" {
				return n, st.bad, trail(n, st.what)
			}
			k := keyOf(st.s)
			if _, ok := seen[k]; ok {
				continue
			}
			seen[k] = struct{}{}
			queue = append(queue, node{st.s, int32(n), st.what})
		}
	}
	return len(queue), "", nil
}

func TestModel(t *testing.T) {
	for _, c := range []struct {
		name string
		m    model
	}{
		{"two hosts, torn and late writes", model{hosts: 2, ballots: 5, items: 2, crashes: 2, late: true}},
		{"two hosts, more ballots", model{hosts: 2, ballots: 7, items: 2, crashes: 0}},
		{"three hosts", model{hosts: 3, ballots: 5, items: 1, crashes: 1}},
	} {
		if testing.Short() { // the race detector's run: the model has no goroutines
			c.m.ballots -= 2
		}
		states, bad, way := c.m.search(20_000_000)
		if bad != "" {
			t.Fatalf("%s: after %d states: %s\n%s", c.name, states, bad, strings.Join(way, "\n"))
		}
		fmt.Printf("model: %s: %d states, nothing wrong (ballots up to %d, %d items, %d crashes)\n", c.name, states, c.m.ballots, c.m.items, c.m.crashes)
	}
}

// TestModelFindsBugs plants each bug into the model. What the search cannot find it cannot rule out either.
func TestModelFindsBugs(t *testing.T) {
	for _, c := range []struct {
		name string
		m    model
	}{
		{"no look after the write", model{hosts: 2, ballots: 4, items: 2, bug: bugNoReread}},
		{"a look before the write only", model{hosts: 2, ballots: 4, items: 2, bug: bugCheckFirst}},
		{"a lease by the clock", model{hosts: 2, ballots: 4, items: 2, bug: bugClock}},
		{"one record for all", model{hosts: 2, ballots: 5, items: 2, bug: bugOneRecord}},
		{"one area for all", model{hosts: 2, ballots: 2, items: 2, bug: bugSameArea}},
		{"compaction in place", model{hosts: 2, ballots: 5, items: 2, crashes: 1, bug: bugInPlace}},
		{"a new process beside a late write", model{hosts: 2, ballots: 5, items: 2, crashes: 2, late: true, bug: bugGhost}},
		{"compaction looks above its new ballot", model{hosts: 2, ballots: 6, items: 2, bug: bugNewLimit}},
		{"a torn ballot counts as none", model{hosts: 2, ballots: 5, items: 1, crashes: 2, bug: bugTornIsEmpty}},
	} {
		states, bad, way := c.m.search(20_000_000)
		if bad == "" || way == nil {
			t.Errorf("%s: not found in %d states %s", c.name, states, bad)
			continue
		}
		fmt.Printf("model: %s: found after %d states: %s\n", c.name, states, bad)
		t.Log(strings.Join(way, "; "))
	}
}

// TestModelOfWhatIsNotNeeded shows two looks of a claim not to be needed for safety: the one before an acknowledgement is. The code
// keeps them, so that a claim that is lost ends early.
func TestModelOfWhatIsNotNeeded(t *testing.T) {
	for _, c := range []struct {
		name string
		bug  modelBug
	}{
		{"without the look after the publication", bugNoPublishLook},
		{"without the look after the copy", bugNoCopyLook},
	} {
		m := model{hosts: 2, ballots: 6, items: 2, bug: c.bug}
		states, bad, way := m.search(20_000_000)
		if bad != "" {
			t.Errorf("%s: %s\n%s", c.name, bad, strings.Join(way, "\n"))
		}
		fmt.Printf("model: %s: %d states, nothing wrong\n", c.name, states)
	}
}
