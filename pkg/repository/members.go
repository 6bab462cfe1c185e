package repository

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
}

// Change writes a new header, with a generation above all others, as this node. It is complete on the volume, and was read back,
// before anything here uses it. One node at a time may do it: the caller agrees with the others by the replicated log.
//
// A node is removed only when it has stopped for good, and when the newest claim of the repository voter is another's.
func (v *Volume) Change(c Change) error {
	if err := v.mustBe(RoleAgent); err != nil {
		return err
	}
	if err := v.change(c); err != nil {
		return fmt.Errorf("change the volume's header: %w", err)
	}
	return nil
}

func (v *Volume) change(c Change) error {
	if err := v.Refresh(); err != nil {
		return err
	}
	r, err := v.readFront(true)
	if err != nil {
		return err
	}
	bs, err := v.ballotsOf(r)
	if err != nil {
		return err
	}
	now := v.head.Load()
	next := &header{Generation: now.Generation + 1, Writer: v.name, Timings: now.Timings, Newest: now.Newest}
	if c.Timings != nil {
		next.Timings = *c.Timings
	}
	if next.Members, err = v.newMembers(now, c, bs); err != nil {
		return err
	}
	ring := v.keysInUse(next, r)
	if c.NewKey || len(c.Remove) > 0 {
		if len(ring.keys) >= maxKeys {
			return ErrKeyInUse
		}
		ring.newest++
		ring.keys[ring.newest] = newKey()
	}
	if err := next.seal(ring, v.opts.Authority); err != nil {
		return err
	}
	if err := next.check(v.layout); err != nil {
		return err
	}
	if err := v.prepareSlots(now, next, bs); err != nil {
		return err
	}
	return v.writeHeader(next)
}

// newMembers applies the change to the list of members.
func (v *Volume) newMembers(now *header, c Change, bs []ballot) ([]Member, error) {
	var out []Member
	taken := map[int]bool{}
	for _, m := range now.Members {
		if !slices.Contains(c.Remove, m.Name) {
			out = append(out, Member{Index: m.Index, Name: m.Name, Card: m.Card})
			taken[m.Index] = true
			continue
		}
		if m.Name == v.name {
			return nil, errors.New("a node does not remove itself")
		}
		if top := newestClaim(bs); top == m.Index {
			return nil, fmt.Errorf("the newest claim of the repository voter is %s's: let another node take it over first", m.Name)
		}
	}
	for _, n := range c.Add {
		if i := slices.IndexFunc(out, func(m Member) bool { return m.Name == n.Name }); i >= 0 {
			out[i].Card = n.Card // it joined again, with a new certificate
			continue
		}
		free := 0
		for taken[free] {
			free++
		}
		if free >= v.layout.nodes {
			return nil, fmt.Errorf("the volume was made for %d nodes and has no place for %s", v.layout.nodes, n.Name)
		}
		taken[free] = true
		out = append(out, Member{Index: free, Name: n.Name, Card: n.Card})
	}
	return out, nil
}

// newestClaim is the index of the node with the highest published ballot, or -1.
func newestClaim(bs []ballot) int {
	top, at := uint64(0), -1
	for i, b := range bs {
		if b.pub > top {
			top, at = b.pub, i
		}
	}
	return at
}

// keysInUse keeps the newest key, all that blocks of members still carry, and the one before those.
func (v *Volume) keysInUse(next *header, r *frontRead) *keyring {
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
	for id := range old.keys {
		if id < oldest {
			before = max(before, id)
		}
	}
	ring := &keyring{newest: old.newest, keys: map[uint32][]byte{}}
	for id, k := range old.keys {
		if id >= before {
			ring.keys[id] = k
		}
	}
	return ring
}

// prepareSlots writes the ballots and heartbeats of places that become a member's: what lies there may be under a key that is gone.
// These are nobody's blocks until the header that follows.
func (v *Volume) prepareSlots(now, next *header, bs []ballot) error {
	for _, m := range next.Members {
		if v.nameOf(m.Index) == m.Name || now.member(m.Name) != nil {
			continue
		}
		old := v.memory.of(m.Index)
		b := ballot{seq: max(bs[m.Index].seq, old.Ballot) + 1, mbal: max(bs[m.Index].mbal, old.Mbal), pub: 0, successor: noNode}
		for copyNo := range 2 {
			at := v.layout.ballot(m.Index, copyNo)
			if err := v.writeOther(frame{kind: kindBallot, writer: uint16(m.Index), position: at, seq: b.seq, payload: b.encode()}); err != nil {
				return err
			}
		}
		at := v.layout.hostBeat(m.Index)
		if err := v.writeOther(frame{kind: kindHostBeat, writer: uint16(m.Index), position: at, seq: b.seq, payload: hostBeat{}.encode()}); err != nil {
			return err
		}
		at = v.layout.beat(m.Index)
		if err := v.writeOther(frame{kind: kindBeat, writer: uint16(m.Index), position: at, seq: old.Beat + 1, payload: Beat{}.encode()}); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) writeOther(f frame) error {
	buf := alignedBlocks(1)
	v.codec.encode(buf, f, false)
	return v.headerLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, f.position) })
}

// writeHeader writes a header as this node's, into the copy that is not the newer one, and reads it back.
func (v *Volume) writeHeader(h *header) error {
	copyNo := int(h.Generation % 2)
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
	if got := v.head.Load().Generation; got != h.Generation || v.head.Load().Writer != v.name {
		return fmt.Errorf("another node changed the header at the same time (generation %d); look at the result and try again", got)
	}
	return nil
}
