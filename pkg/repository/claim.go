package repository

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrSuperseded says that another node has claimed the repository voter, with a higher ballot.
var ErrSuperseded = errors.New("another node has claimed the repository voter")

// A Host says who runs the repository voter, as far as the volume shows it.
type Host struct {
	Node     string // name, or "" when nobody ever claimed it, or when its owner is no member any more
	Index    int    // -1: nobody ever claimed
	Ballot   uint64
	Running  bool   // it published its claim and has not given it up; Claimed says nothing of whether it is alive
	Released bool   // it gave the claim up
	Next     string // whom it wants as its successor, or ""
	Beat     uint64 // changes while it is alive
	Tail     uint32 // blocks of its area that hold acknowledged records
	Term     uint64
}

// host finds the node with the highest ballot.
func (v *Volume) host(bs []ballot, beats []hostBeat) Host {
	h := Host{Index: -1}
	for i, b := range bs {
		if b.mbal <= h.Ballot {
			continue
		}
		h = Host{Index: i, Ballot: b.mbal, Running: b.pub == b.mbal && !b.released, Released: b.released, Node: v.nameOf(i)}
		if b.released && b.successor != noNode {
			h.Next = v.nameOf(int(b.successor))
		}
		h.Beat = beats[i].seq
		if beats[i].ballot == b.mbal {
			h.Tail, h.Term = beats[i].tail, beats[i].term
		}
	}
	return h
}

func (v *Volume) nameOf(index int) string {
	for _, m := range v.head.Load().Members {
		if m.Index == index {
			return m.Name
		}
	}
	return ""
}

// Host reads who runs the repository voter.
func (v *Volume) Host() (Host, error) {
	s, err := v.readHosts()
	if err != nil {
		return Host{}, err
	}
	return s.host, nil
}

// hosts is what one read shows of the claims.
type hosts struct {
	read    *frontRead
	ballots []ballot
	beats   []hostBeat // zero where it cannot be read: nothing that must hold rests on it
	host    Host
}

// readHosts reads ballots and host heartbeats.
func (v *Volume) readHosts() (hosts, error) {
	r, err := v.readFront(true)
	if err != nil {
		return hosts{}, err
	}
	bs, err := v.ballotsOf(r)
	if err != nil {
		return hosts{}, err
	}
	s := hosts{read: r, ballots: bs, beats: make([]hostBeat, v.layout.nodes)}
	for i := range s.beats {
		at := 2*v.layout.nodes + i
		if r.errs[at] == nil {
			if b, err := decodeHostBeat(r.frames[at], i); err == nil {
				s.beats[i] = b
			}
		}
		if v.memory != nil {
			v.memory.noteTail(i, s.beats[i])
		}
	}
	s.host = v.host(bs, s.beats)
	return s, nil
}

// hasGoneBack compares the heartbeats of a read with what this node had seen before it. They are hints, and a write that is late may
// show an older one for a moment; but nobody claims on a volume that shows less than it did.
func (v *Volume) hasGoneBack(r *frontRead) error {
	for i := range v.layout.nodes {
		var m mark
		if at := 2*v.layout.nodes + i; r.errs[at] == nil {
			m.Host = r.frames[at].seq
		}
		if at := 3*v.layout.nodes + i; r.errs[at] == nil {
			m.Beat = r.frames[at].seq
		}
		if err := v.memory.see(i, m, r.floor[i]); err != nil {
			return err
		}
	}
	return nil
}

// sequenceGap is what a node adds to its sequence when it cannot read its own block: more than it can have written since it last
// saved what it remembers, so that the others do not see it go back.
const sequenceGap = 1 << 20

// sequence is that of this node's own block at a place of the front.
func (r *frontRead) sequence(place int, remembered uint64) uint64 {
	if r.errs[place] == nil {
		return max(r.frames[place].seq, remembered)
	}
	return remembered + sequenceGap
}

// RememberedTerm is the highest term of the replicated log that this node has seen on the volume. Records of a claim that end in a
// lower one were brought back from an older copy.
func (v *Volume) RememberedTerm() uint64 {
	if v.memory == nil {
		return 0
	}
	return v.memory.term()
}

// Claim waits until this node may run the repository voter, and takes it over: at once when its host has given it up or was this
// node, else when the host has been silent for T_host by this node's own clock. It returns the context's cause when that ends
// first, and any error of the volume. A claim that was lost to another node is tried again when that one is silent.
//
// When to try is a matter of time; whether the claim holds is not. Claim returns a Voter only after the records of the newest
// published claim were copied and no higher ballot was there.
func (v *Volume) Claim(ctx context.Context) (*Voter, error) {
	if v.opts.Role != RoleVoter {
		return nil, fmt.Errorf("claim the repository voter: the volume is open as %s", v.opts.Role)
	}
	if err := sleep(ctx, time.Until(v.notBefore)); err != nil {
		return nil, err
	}
	for {
		if err := v.awaitTurn(ctx); err != nil {
			return nil, fmt.Errorf("claim the repository voter: %w", err)
		}
		w, err := v.takeOver()
		if err == nil {
			return w, nil
		}
		if !errors.Is(err, ErrSuperseded) {
			return nil, fmt.Errorf("claim the repository voter: %w", err)
		}
		// Two claimed at once. The one with the higher ballot goes on; should it fail, a random time keeps the two apart.
		if err := sleep(ctx, time.Duration(rand.Int64N(int64(v.timings().Host)))); err != nil {
			return nil, err
		}
	}
}

// awaitTurn returns when this node may try.
func (v *Volume) awaitTurn(ctx context.Context) error {
	var last Host
	since, looked := time.Now(), time.Now()
	for {
		if time.Since(looked) >= headerLook {
			looked = time.Now()
			if err := v.refreshIfNewer(); err != nil {
				return err
			}
		}
		seen, err := v.readHosts()
		if err != nil {
			return err
		}
		h := seen.host
		if err := v.freshen(seen); err != nil {
			return err
		}
		_ = v.hasGoneBack(seen.read) // remembers; it is judged when this node claims
		v.memory.saveSoon()
		if h.Index != last.Index || h.Ballot != last.Ballot || h.Beat != last.Beat || h.Released != last.Released {
			last, since = h, time.Now()
		}
		switch {
		case h.Index < 0:
			return nil
		case time.Since(since) >= v.timings().Host:
			return nil
		case h.Released && h.Next != "":
			if h.Next == v.name {
				return nil
			} // it has its time, also before the host that gave the claim to it
		case h.Released || h.Index == v.index:
			return nil
		}
		wait := min(v.timings().Host/8, v.timings().Host-time.Since(since))
		if err := sleep(ctx, max(wait, time.Millisecond)); err != nil {
			return err
		}
	}
}

// freshen writes this node's ballot again, with nothing changed, when one of its copies cannot be read or carries an old key.
func (v *Volume) freshen(s hosts) error {
	r, b, fresh := s.read, s.ballots[v.index], true
	for c := range 2 {
		i := c*v.layout.nodes + v.index
		fresh = fresh && r.errs[i] == nil && r.frames[i].keyID == r.ring.newest && r.frames[i].seq == b.seq
	}
	if fresh {
		return nil
	}
	b.seq++
	return v.announce(b)
}

// takeOver makes one attempt:
//
//	a ballot above all that were seen, in this node's own block; read all ballots: a higher one ends the attempt
//	copy the records of the highest published claim into this node's spare area; read all
//	publish; read all; only then run
//
// docs/design/0003-repository-volume.md has the argument; model_test.go checks it over all interleavings.
func (v *Volume) takeOver() (*Voter, error) {
	first, err := v.readHosts()
	if err != nil {
		return nil, err
	}
	if err := v.hasGoneBack(first.read); err != nil {
		return nil, err
	}
	own := first.ballots[v.index]
	next := ballot{seq: own.seq + 1, mbal: nextBallot(v.highest(first.ballots), v.index), pub: own.pub, area: own.area, base: own.base,
		successor: noNode}
	if err := v.announce(next); err != nil {
		return nil, err
	}
	seen, err := v.readHosts()
	if err != nil {
		return nil, err
	}
	if err := v.stillOurs(seen.ballots, next, next.mbal); err != nil {
		return nil, err
	}

	records, err := v.inherit(seen.ballots, seen.beats)
	if err != nil {
		return nil, err
	}
	return v.publish(next, records, seen.read.sequence(2*v.layout.nodes+v.index, v.memory.of(v.index).Host))
}

// announce writes this node's ballot, and remembers it on the node's own disk: a volume that shows less later has failed. In
// this order, because a crash in between must not look like a volume that went back.
func (v *Volume) announce(b ballot) error {
	if err := v.writeBallot(b); err != nil {
		return err
	}
	if err := v.memory.see(v.index, mark{Ballot: b.seq, Mbal: b.mbal, Pub: b.pub}, mark{}); err != nil {
		return err
	}
	return v.memory.save()
}

// highest is the highest ballot seen, now or ever.
func (v *Volume) highest(bs []ballot) uint64 {
	var top uint64
	for i, b := range bs {
		top = max(top, b.mbal, v.memory.of(i).Mbal)
	}
	return top
}

// stillOurs fails when a node has a ballot above limit, or when this node's own block is not what this process wrote.
func (v *Volume) stillOurs(bs []ballot, own ballot, limit uint64) error {
	if bs[v.index] != own {
		return fmt.Errorf("%w: this node's ballot on the volume is not what was written: another process writes as %s, or the disk "+
			"lost the write", ErrFailed, v.name)
	}
	for i, b := range bs {
		if i != v.index && b.mbal > limit {
			return fmt.Errorf("%w (%s, ballot %d; ours is %d)", ErrSuperseded, v.nameOf(i), b.mbal, limit)
		}
	}
	return nil
}

// inherit reads the records of the highest published claim.
func (v *Volume) inherit(bs []ballot, beats []hostBeat) ([][]byte, error) {
	source := -1
	for i, b := range bs {
		if b.pub > 0 && (source < 0 || b.pub > bs[source].pub) {
			source = i
		}
	}
	if source < 0 {
		return nil, nil // nobody ever published on this volume: there is nothing that could have been promised
	}
	if v.nameOf(source) == "" {
		return nil, fmt.Errorf("the newest claim, %d, belongs to a node that is no member of the volume any more: its records cannot be "+
			"trusted, and without them nothing can be promised; replace the volume", bs[source].pub)
	}
	b := bs[source]
	atLeast := max(b.base, v.memory.tailOf(b.pub))
	if h := beats[source]; h.ballot == b.pub {
		atLeast = max(atLeast, h.tail)
	}
	records, _, err := v.readArea(source, b.area, b.pub, atLeast)
	if err != nil {
		return nil, fmt.Errorf("read the records of %s: %w", v.nameOf(source), err)
	}
	return records, nil
}

// publish writes the records into this node's spare area and makes the announced ballot the published one. beat is the sequence of
// this node's host heartbeat so far.
func (v *Volume) publish(own ballot, records [][]byte, beat uint64) (*Voter, error) {
	spare := uint8(0)
	if own.pub != 0 {
		spare = 1 - own.area
	}
	tail, err := v.writeArea(spare, own.mbal, 0, records)
	if err != nil {
		return nil, err
	}
	bs, err := v.readBallots()
	if err != nil {
		return nil, err
	}
	if err := v.stillOurs(bs, own, own.mbal); err != nil {
		return nil, err
	}
	done := ballot{seq: own.seq + 1, mbal: own.mbal, pub: own.mbal, area: spare, base: tail, successor: noNode}
	if err := v.announce(done); err != nil {
		return nil, err
	}
	bs, err = v.readBallots()
	if err != nil {
		return nil, err
	}
	if err := v.stillOurs(bs, done, done.mbal); err != nil {
		return nil, err
	}
	return newVoter(v, done, tail, beat), nil
}

// sleep waits, or returns the context's cause.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
