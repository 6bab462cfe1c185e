package repository

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// maxKeys is how many keys a header can hold. Two are usual: the newest, and the one that blocks may still carry.
const maxKeys = 8

// ErrKeyInUse says that a new key cannot be made now.
var ErrKeyInUse = errors.New("too many of the volume's keys are in use: start the nodes that have not used the newest one yet, or remove them")

// A Change says what is to be different in the header.
type Change struct {
	Add     []Member // names and cards
	Remove  []string // names; a removal always makes a new key, which is not sealed to those removed
	NewKey  bool
	Timings *Timings
	// Term orders the changes of different leaders: a change of a lower term is never in force once one of a higher term is on
	// the volume, however late it lands. 0: nobody else changes the header.
	Term uint64
}

// ErrNewerTerm says that a leader of a higher term has changed the header.
var ErrNewerTerm = errors.New("a newer leader has changed the volume's header")

// termShift is where the term stands in a generation; below it, changes within a term are counted.
const termShift = 24

// Change writes a new header, with a generation above all others, as this node. It is complete on the volume, and was read back,
// before anything here uses it.
//
// Two nodes may do it at once, each for a leader that believes it leads. Generations and the ids of new keys are never the same
// for two of them; the generation begins with the term, so the newer leader's is in force for good. Who finds another's header
// after its own takes over the keys that may have been used meanwhile.
//
// A node is removed only when it has stopped for good, and when the newest claim of the repository voter is another's.
func (v *Volume) Change(c Change) error {
	if err := v.mustBe(RoleKeeper); err != nil {
		return err
	}
	// A write of this node's former process, if it was not ended in order, may still land: on the copy that is written next.
	if wait := time.Until(v.notBefore); wait > 0 {
		time.Sleep(wait)
	}
	if err := v.change(c); err != nil {
		return fmt.Errorf("change the volume's header: %w", err)
	}
	return nil
}

// changeAttempts is how often a header is written anew because another was found after it.
const changeAttempts = 4

func (v *Volume) change(c Change) error {
	if err := v.Refresh(); err != nil {
		return err
	}
	now := v.head.Load()
	r, bs, all, err := v.lookAtMembers()
	if err != nil {
		return err
	}
	if now.Generation>>termShift > c.Term {
		return fmt.Errorf("%w (term %d; ours is %d)", ErrNewerTerm, now.Generation>>termShift, c.Term)
	}
	next := &header{Writer: v.name, Timings: now.Timings, Newest: now.Newest}
	if c.Timings != nil {
		next.Timings = *c.Timings
	}
	if next.Members, err = v.newMembers(now, c, bs); err != nil {
		return err
	}
	if err := v.prepareSlots(now, next, bs, r); err != nil {
		return err
	}
	newest := v.codec.ring.Load().newest
	var fresh []byte
	if c.NewKey || len(c.Remove) > 0 {
		newest, fresh = v.nextKeyID(all), newKey()
	}
	for range changeAttempts {
		ring := v.keysInUse(next, r, v.keysOf(all, next))
		if fresh != nil {
			ring.newest, ring.keys[newest] = newest, fresh
		}
		if len(ring.keys) > maxKeys {
			return ErrKeyInUse
		}
		next.Generation = v.nextGeneration(all, c.Term)
		if err := next.seal(ring, v.opts.Authority); err != nil {
			return err
		}
		if err := next.check(v.layout); err != nil {
			return err
		}
		if err := v.writeHeader(next, all); err != nil {
			return err
		}
		// What landed before ours may have been read, and its key used, until ours was there.
		if r, _, all, err = v.lookAtMembers(); err != nil {
			return err
		}
		missing := false
		for id := range v.keysInUse(next, r, v.keysOf(all, next)).keys {
			missing = missing || ring.keys[id] == nil
		}
		if !missing {
			return nil
		}
	}
	return errors.New("other nodes change the header all the time")
}

// lookAtMembers reads what a change is made from: the blocks of all nodes and all headers.
func (v *Volume) lookAtMembers() (*frontRead, []ballot, []placedHeader, error) {
	r, err := v.readFront(true)
	if err != nil {
		return nil, nil, nil, err
	}
	bs, err := v.ballotsOf(r)
	if err != nil {
		return nil, nil, nil, err
	}
	all, err := v.readHeaders()
	return r, bs, all, err
}

// nextGeneration is the lowest generation of this node that is above all others and not below the term's first.
func (v *Volume) nextGeneration(all []placedHeader, term uint64) uint64 {
	top := term << termShift
	for _, h := range all {
		top = max(top, h.Generation+1)
	}
	return nextOf(top, v.index)
}

// nextKeyID is the lowest id of a key that only this node can give, above all others.
func (v *Volume) nextKeyID(all []placedHeader) uint32 {
	top := v.codec.ring.Load().newest + 1
	for _, h := range all {
		top = max(top, h.Newest+1)
	}
	return uint32(nextOf(uint64(top), v.index))
}

// nextOf is the lowest number from the least on that belongs to the node of the index: two nodes never make the same.
func nextOf(least uint64, index int) uint64 {
	return least + (uint64(index)+MaxNodes-least%MaxNodes)%MaxNodes
}

// keysOf are the keys that the members' headers hold for this node.
func (v *Volume) keysOf(all []placedHeader, next *header) map[uint32][]byte {
	out := maps.Clone(v.codec.ring.Load().keys)
	for _, h := range all {
		if next.member(h.Writer) == nil {
			continue
		}
		ring, err := h.openKeys(v.name, v.opts.Authority)
		if err != nil {
			continue // it was not made for this node
		}
		for id, k := range ring.keys {
			if out[id] == nil {
				out[id] = k
			}
		}
	}
	return out
}

// newMembers applies the change to the list of members.
//
// Who comes with another card is another machine as far as the volume knows: it gets a place of its own, where the former one, should
// it run on somewhere, cannot write. A place whose ballot is the newest claim is nobody's until another node has taken over what its
// owner promised.
func (v *Volume) newMembers(now *header, c Change, bs []ballot) ([]Member, error) {
	var out []Member
	taken, left := map[int]bool{}, map[int]bool{}
	for _, m := range now.Members {
		if !slices.Contains(c.Remove, m.Name) {
			out = append(out, Member{Index: m.Index, Name: m.Name, Card: m.Card})
			taken[m.Index] = true
			continue
		}
		left[m.Index] = true
		if m.Name == v.name {
			return nil, errors.New("a node does not remove itself")
		}
		if newestClaim(bs)[m.Index] {
			return nil, fmt.Errorf("the newest claim of the repository voter is %s's: let another node take it over first", m.Name)
		}
	}
	used := func(i int) int { // the less, the better as somebody's new place
		switch {
		case left[i]:
			return 2
		case bs[i].mbal > 0 || v.memory.of(i).Mbal > 0:
			return 1
		}
		return 0
	}
	for _, n := range c.Add {
		if slices.ContainsFunc(out, func(m Member) bool { return m.Name == n.Name }) {
			return nil, fmt.Errorf("%s is a member already: a new certificate means a new place, so remove it in the same change", n.Name)
		}
		place := -1
		for i := range v.layout.nodes {
			if !taken[i] && !newestClaim(bs)[i] && (place < 0 || used(i) < used(place)) {
				place = i
			}
		}
		if place < 0 {
			return nil, fmt.Errorf("the volume was made for %d nodes and has no place for %s", v.layout.nodes, n.Name)
		}
		taken[place] = true
		out = append(out, Member{Index: place, Name: n.Name, Card: n.Card})
	}
	return out, nil
}

// newestClaim are the places of the highest ballot and of the highest published one: what was promised last lies with them.
func newestClaim(bs []ballot) map[int]bool {
	var mbal, pub uint64
	for _, b := range bs {
		mbal, pub = max(mbal, b.mbal), max(pub, b.pub)
	}
	out := map[int]bool{}
	for i, b := range bs {
		if b.mbal > 0 && b.mbal == mbal || b.pub > 0 && b.pub == pub {
			out[i] = true
		}
	}
	return out
}

// keysInUse keeps the newest key, all that blocks of members still carry, and the one before those.
func (v *Volume) keysInUse(next *header, r *frontRead, known map[uint32][]byte) *keyring {
	old := v.codec.ring.Load()
	used := map[uint32]bool{old.newest: true}
	member := map[int]bool{}
	for _, m := range next.Members {
		member[m.Index] = true
	}
	for i, f := range r.frames {
		if r.errs[i] == nil && member[i%v.layout.nodes] {
			used[f.keyID] = true
		}
	}
	oldest := old.newest
	for id := range used {
		oldest = min(oldest, id)
	}
	// The live area carries the key of the ballot that published it, or, if a new key came in between, the one before it; blocks
	// appended since carry newer ones.
	before := uint32(0)
	for id := range known {
		if id < oldest {
			before = max(before, id)
		}
	}
	ring := &keyring{newest: old.newest, keys: map[uint32][]byte{}}
	for id, k := range known {
		if id >= before {
			ring.keys[id] = k
		}
	}
	return ring
}

// prepareSlots writes the ballots and heartbeats of places that become a member's: what lies there may be under a key that is gone.
// These are nobody's blocks until the header that follows.
//
// What the former owner promised there is dropped; it is not the newest claim (newMembers), so others have inherited it. Sequences go
// on above the former ones, or those who saw these would take the volume for an older copy.
func (v *Volume) prepareSlots(now, next *header, bs []ballot, r *frontRead) error {
	for _, m := range next.Members {
		if was := now.member(m.Name); was != nil && was.Index == m.Index && bytes.Equal(was.Card, m.Card) {
			continue
		}
		old := v.memory.of(m.Index)
		b := ballot{seq: max(r.lastSequence(m.Index, old.Ballot), r.lastSequence(v.layout.nodes+m.Index, old.Ballot)) + 1,
			mbal: max(bs[m.Index].mbal, old.Mbal), pub: 0, successor: noNode}
		for copyNo := range 2 {
			at := v.layout.ballot(m.Index, copyNo)
			if err := v.writeOther(frame{kind: kindBallot, writer: uint16(m.Index), position: at, seq: b.seq, payload: b.encode()}); err != nil {
				return err
			}
		}
		at := v.layout.hostBeat(m.Index)
		if err := v.writeOther(frame{kind: kindHostBeat, writer: uint16(m.Index), position: at,
			seq: r.lastSequence(2*v.layout.nodes+m.Index, old.Host) + 1, payload: hostBeat{}.encode()}); err != nil {
			return err
		}
		at = v.layout.beat(m.Index)
		if err := v.writeOther(frame{kind: kindBeat, writer: uint16(m.Index), position: at,
			seq: r.lastSequence(3*v.layout.nodes+m.Index, old.Beat) + 1, payload: Beat{}.encode()}); err != nil {
			return err
		}
	}
	return nil
}

// lastSequence is that of the block at a place of the front, whoever wrote it and under whatever key.
func (r *frontRead) lastSequence(place int, remembered uint64) uint64 {
	f, err := parseFrame(r.raw[place*BlockSize : (place+1)*BlockSize])
	if err != nil {
		return remembered + sequenceGap
	}
	return max(f.seq, remembered)
}

func (v *Volume) writeOther(f frame) error {
	buf := alignedBlocks(1)
	v.codec.encode(buf, f, false)
	return v.headerLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, f.position) })
}

// writeHeader writes a header as this node's, into the copy that does not hold this node's newest one, and reads it back.
func (v *Volume) writeHeader(h *header, all []placedHeader) error {
	copyNo, newest := 0, uint64(0)
	for _, o := range all {
		if o.index == v.index && o.Generation > newest {
			copyNo, newest = 1-o.copyNo, o.Generation
		}
	}
	buf, err := v.codec.encodeHeader(h, v.opts.Authority, v.layout, v.index, copyNo)
	if err != nil {
		return err
	}
	at := v.layout.header(v.index, copyNo)
	if err := v.headerLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, at) }); err != nil {
		return err
	}
	back := alignedBlocks(headerBlocks)
	if err := v.headerLane.do(v.timings().IO, func() error { return readBlocks(v.dev, back, at) }); err != nil {
		return err
	}
	if !bytes.Equal(buf, back) {
		return fmt.Errorf("%w: what was written at block %d did not come back", errDamaged, at)
	}
	if err := v.Refresh(); err != nil {
		return err
	}
	if got := v.head.Load(); got.Generation != h.Generation || got.Writer != v.name {
		return fmt.Errorf("%w: %s did, at the same time", ErrNewerTerm, got.Writer)
	}
	return nil
}
