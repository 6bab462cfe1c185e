package repository

import "encoding/binary"

// A ballot is what a node's ballot block says. It lies there twice, and both copies are written, one after the other, before the
// writer relies on it: a write that was torn leaves the other copy, and so does damage to one.
type ballot struct {
	seq  uint64 // of the block
	mbal uint64 // the node's newest claim: nobody below it may promise anything
	pub  uint64 // its newest claim that it published, 0 for none
	area uint8  // which of its areas holds the records of pub
	base uint32 // blocks in the area when it was published
	// released: the node gave the claim up, in order. Another need not wait.
	released bool
	// successor is the index of the node that is meant to claim next, noNode for any.
	successor uint16
}

const noNode = 0xffff

// A ballot's number is unique per node: a counter and the node's index.
const ballotNodes = 64

func nextBallot(highest uint64, index int) uint64 {
	return (highest/ballotNodes+1)*ballotNodes + uint64(index)
}

// ballotOwner is the index of the node whose ballot it is.
func ballotOwner(b uint64) int { return int(b % ballotNodes) }

const ballotSize = 8 + 8 + 1 + 1 + 2 + 4

func (b ballot) encode() []byte {
	out := make([]byte, 0, ballotSize)
	out = binary.BigEndian.AppendUint64(out, b.mbal)
	out = binary.BigEndian.AppendUint64(out, b.pub)
	out = append(out, b.area, 0)
	if b.released {
		out[17] = 1
	}
	out = binary.BigEndian.AppendUint16(out, b.successor)
	return binary.BigEndian.AppendUint32(out, b.base)
}

// decodeBallot reads the payload of node index's ballot block.
func decodeBallot(f frame, index int) (ballot, error) {
	p := f.payload
	if len(p) != ballotSize || p[16] > 1 || p[17] > 1 {
		return ballot{}, errShape
	}
	b := ballot{
		seq:       f.seq,
		mbal:      binary.BigEndian.Uint64(p),
		pub:       binary.BigEndian.Uint64(p[8:]),
		area:      p[16],
		released:  p[17] == 1,
		successor: binary.BigEndian.Uint16(p[18:]),
		base:      binary.BigEndian.Uint32(p[20:]),
	}
	own := func(v uint64) bool { return v == 0 || ballotOwner(v) == index }
	if b.pub > b.mbal || !own(b.mbal) || !own(b.pub) {
		return ballot{}, errShape
	}
	return b, nil
}

// A hostBeat is what the process that runs the repository voter says, several times per T_host.
type hostBeat struct {
	seq    uint64
	ballot uint64 // under which it runs
	tail   uint32 // blocks of its area that hold acknowledged records
	term   uint64 // of the replicated log, as far as the voter has promised
}

const hostBeatSize = 8 + 4 + 8

func (h hostBeat) encode() []byte {
	out := make([]byte, 0, hostBeatSize)
	out = binary.BigEndian.AppendUint64(out, h.ballot)
	out = binary.BigEndian.AppendUint32(out, h.tail)
	return binary.BigEndian.AppendUint64(out, h.term)
}

func decodeHostBeat(f frame, index int) (hostBeat, error) {
	p := f.payload
	if len(p) != hostBeatSize {
		return hostBeat{}, errShape
	}
	h := hostBeat{f.seq, binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint64(p[12:])}
	if h.ballot != 0 && ballotOwner(h.ballot) != index {
		return hostBeat{}, errShape
	}
	return h, nil
}
