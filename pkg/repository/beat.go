package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Beat is what a node says of itself in its heartbeat on the volume. It is a hint: no group is freed because of it.
type Beat struct {
	Incarnation uint64 `json:"incarnation,omitempty"` // as the replicated log numbers its boots; 0: not known yet
	Boot        string `json:"boot,omitempty"`        // id of the machine's boot
	Generation  uint64 `json:"generation,omitempty"`  // of the volume's header that it has read; filled in by WriteBeat
	Held        []Held `json:"held,omitempty"`        // what it may have running
	// HeldMore counts the groups that found no place in Held.
	HeldMore int       `json:"held_more,omitempty"`
	Networks []Network `json:"networks,omitempty"`
	// WantsHost asks the repository voter's host to hand it over to this node: the networks here are better.
	WantsHost bool `json:"wants_host,omitempty"`
	// Leads is the term in which this node leads the cluster; 0: it does not, as far as it knows.
	Leads uint64 `json:"leads,omitempty"`
	// LogMark and NextLogMark are the random values by which this node's copy of the log is known, the last and the proposed one;
	// a copy that was restored shows an older one.
	LogMark     string `json:"log_mark,omitempty"`
	NextLogMark string `json:"next_log_mark,omitempty"`
	// BreakGlass are groups that were started on this node by hand, past the cluster, and were not released: no other node may start
	// them, though the log does not know. It stays until the node's next heartbeat says otherwise, and no age makes it void.
	BreakGlass []string `json:"break_glass,omitempty"`
	// Mail is the sequence of the newest mail to each node, by index; filled in by WriteBeat.
	Mail []uint64 `json:"mail,omitempty"`
}

// Held is a group that a node may have running.
type Held struct {
	Group      string `json:"g"`
	Generation uint64 `json:"n"`
}

// Network is the health of a network as its node sees it.
type Network struct {
	Name string `json:"n"`
	Up   bool   `json:"u"`
}

// A Seen is what a read showed of a member's heartbeat.
type Seen struct {
	Node string
	Beat Beat
	Seq  uint64
	// Advanced says that the heartbeat is another than at the read before: the node was alive in between. The first read of a
	// process shows no advance.
	Advanced bool
	// Err is why the heartbeat cannot be believed; Beat is empty then.
	Err error
}

// beats is what a process remembers of heartbeats. One goroutine at a time uses it, under the token of Volume.beatTurn.
type beats struct {
	own      uint64 // sequence written last
	ownKnown bool
	mail     []uint64 // sequence of the mail written last, by recipient
	seen     []uint64 // by index
	// lower is when a heartbeat first showed a lower sequence than before; zero when it does not.
	lower []time.Time
}

// WriteBeat writes this node's heartbeat. It waits at most T_io for the disk (twice that in the first call of a process whose
// predecessor did not end in order, so that a write which that one left behind comes first).
func (v *Volume) WriteBeat(b Beat) error {
	if err := v.mustBe(RoleAgent); err != nil {
		return err
	}
	<-v.beatTurn
	defer func() { v.beatTurn <- struct{}{} }()
	if err := v.learnOwn(); err != nil {
		return err
	}
	b.Generation = v.head.Load().Generation
	b.Mail = v.beats.mail
	seq := v.beats.own + 1
	at := v.layout.beat(v.index)
	buf := alignedBlocks(1)
	v.codec.encode(buf, frame{kind: kindBeat, writer: uint16(v.index), position: at, seq: seq, payload: b.encode()}, false)
	if err := v.beatLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, at) }); err != nil {
		return fmt.Errorf("write the heartbeat on the volume: %w", err)
	}
	v.beats.own = seq
	return v.memory.see(v.index, mark{Beat: seq}, mark{})
}

// encode gives the payload; groups that find no place are counted.
func (b Beat) encode() []byte {
	for {
		p := mustJSON(b)
		if len(p) <= maxPayload {
			return p
		}
		if len(b.Held) == 0 { // cannot be in a cluster that passes validation; what is certain is kept
			return mustJSON(Beat{Incarnation: b.Incarnation, Generation: b.Generation, HeldMore: b.HeldMore, BreakGlass: b.BreakGlass, Mail: b.Mail})
		}
		drop := min(len(b.Held), 1+(len(p)-maxPayload)/80)
		b.Held, b.HeldMore = b.Held[:len(b.Held)-drop], b.HeldMore+drop
	}
}

func decodeBeat(f frame) (Beat, error) {
	var b Beat
	// Not strict: a node of a later version may say more.
	if err := json.Unmarshal(f.payload, &b); err != nil {
		return Beat{}, fmt.Errorf("%w: %w", errShape, err)
	}
	if len(b.Mail) > MaxNodes || b.HeldMore < 0 {
		return Beat{}, errShape
	}
	return b, nil
}

// learnOwn reads this node's own sequences, once.
func (v *Volume) learnOwn() error {
	if v.beats.ownKnown {
		return nil
	}
	if wait := time.Until(v.notBefore); wait > 0 {
		time.Sleep(wait)
	}
	r, err := v.readFront(true)
	if err != nil {
		return err
	}
	v.beats.own = r.sequence(3*v.layout.nodes+v.index, v.memory.of(v.index).Beat)
	v.beats.mail = make([]uint64, v.layout.nodes)
	for to := range v.layout.nodes {
		f, err := v.readMail(v.index, to)
		switch {
		case err == nil:
			v.beats.mail[to] = f.seq
		case v.lostMail(err):
			return err
		}
	}
	v.beats.ownKnown = true
	return nil
}

// ReadBeats reads all members' heartbeats, in one access. It fails with ErrFailed when a heartbeat shows an older state for longer
// than T_host: the volume was brought back from a copy.
func (v *Volume) ReadBeats() ([]Seen, error) {
	r, err := v.readFront(true)
	if err != nil {
		return nil, err
	}
	<-v.beatTurn
	defer func() { v.beatTurn <- struct{}{} }()
	if v.beats.seen == nil {
		v.beats.seen = make([]uint64, v.layout.nodes)
		v.beats.lower = make([]time.Time, v.layout.nodes)
	}
	var out []Seen
	newest := v.head.Load().Generation
	for _, m := range v.head.Load().Members {
		i := 3*v.layout.nodes + m.Index
		s := Seen{Node: m.Name, Err: r.errs[i], Seq: r.frames[i].seq}
		if s.Err == nil {
			s.Beat, s.Err = decodeBeat(r.frames[i])
		}
		if s.Err != nil {
			s.Err = &BlockError{v.layout.beat(m.Index), "heartbeat of " + m.Name, s.Err}
			out = append(out, s)
			continue
		}
		if err := v.judgeBeat(m.Index, &s, r.floor[m.Index].Beat); err != nil {
			return nil, err
		}
		newest = max(newest, s.Beat.Generation)
		out = append(out, s)
	}
	if newest > v.head.Load().Generation {
		if err := v.Refresh(); err != nil { // a member has read a newer header
			return nil, err
		}
	}
	return out, nil
}

// judgeBeat compares with what was seen before the read. A lower sequence may be a write that was late; if it stays, the volume has
// gone back.
func (v *Volume) judgeBeat(index int, s *Seen, floor uint64) error {
	if v.memory.see(index, mark{Beat: s.Seq}, mark{Beat: floor}) != nil {
		now := time.Now()
		if v.beats.lower[index].IsZero() {
			v.beats.lower[index] = now
		}
		if now.Sub(v.beats.lower[index]) > v.timings().Host {
			return fmt.Errorf("%w (the heartbeat of %s has the number %d, and had %d)", ErrFailed, s.Node, s.Seq, floor)
		}
		return nil
	}
	v.beats.lower[index] = time.Time{}
	s.Advanced = v.beats.seen[index] != 0 && s.Seq > v.beats.seen[index]
	v.beats.seen[index] = max(v.beats.seen[index], s.Seq)
	return nil
}

// SaveMarks writes what was seen of the volume to this node's own disk, if it changed. Ballots are saved by themselves; call it
// now and then, from a goroutine that may wait for the local disk.
func (v *Volume) SaveMarks() error {
	if v.memory == nil {
		return nil
	}
	return v.memory.save()
}

func (v *Volume) mustBe(r Role) error {
	if v.opts.Role != r {
		return fmt.Errorf("the repository volume is open as %s; this is done as %s", v.opts.Role, r)
	}
	return nil
}

// lostMail reports whether an error of a mail block is the disk's, and not the block's.
func (*Volume) lostMail(err error) bool { return !errors.As(err, new(*BlockError)) }
