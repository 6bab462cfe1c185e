package repository

import (
	"encoding/binary"
	"fmt"
)

// Limits of a volume.
const (
	MinSize    = 64 << 20 // bytes
	MaxSize    = 10 << 30 // bytes; what a device has beyond is not used
	MinLabSize = 8 << 20  // bytes, with Options.Lab
	MaxNodes   = 32

	maxArea      = 4096 // blocks of one area: 16 MiB, so that a take-over reads it in well under a second
	minArea      = 64
	headerBlocks = 24 // of one copy of the header
)

// A layout says what lies where, in blocks. It follows from the number of blocks and of nodes.
//
//	0                     format block
//	1                     ballots, and then a copy of each: a stray write of some blocks does not hit both
//	1 + 2N                host heartbeats of the repository voter, one per node
//	1 + 3N                heartbeats, one per node
//	1 + 4N                mailboxes, one per ordered pair, a node's inbox together: from 0 to 0, from 1 to 0, ...
//	1 + 4N + N*N          headers, two per node
//	... + 2N*24           areas of the repository voter, two per node
//	last                  copy of the format block
//
// All that is read often is one extent at the front: one read takes all ballots, one all heartbeats with them.
type layout struct {
	blocks int64
	nodes  int
	area   int64 // blocks of one area
}

// defaultNodes is how many nodes a volume is made for when nobody says.
func defaultNodes(blocks int64) int {
	switch size := blocks * BlockSize; {
	case size >= 512<<20:
		return MaxNodes
	case size >= 256<<20:
		return 16
	case size >= MinSize:
		return 8
	}
	return 4
}

func newLayout(blocks int64, nodes int) (layout, error) {
	blocks = min(blocks, MaxSize/BlockSize)
	if nodes == 0 {
		nodes = defaultNodes(blocks)
	}
	if nodes < 2 || nodes > MaxNodes {
		return layout{}, fmt.Errorf("a volume is for 2 to %d nodes, not %d", MaxNodes, nodes)
	}
	l := layout{blocks: blocks, nodes: nodes}
	l.area = min((blocks-1-l.areas())/int64(2*nodes), maxArea)
	if l.area < minArea {
		need := (l.areas() + 1 + int64(2*nodes*minArea)) * BlockSize
		return layout{}, fmt.Errorf("%d bytes are too few for %d nodes: %d are needed", blocks*BlockSize, nodes, need)
	}
	return l, nil
}

// room is how many bytes of records an area takes.
func (l layout) room() int64 { return l.area / 2 * areaData }

// chooseLayout makes a layout whose areas take room bytes of records: for as many nodes as is usual for the size, or else for fewer, but
// for the members and one more, which a member that is rebuilt needs for a while.
func chooseLayout(blocks int64, members int, room int64) (layout, error) {
	least := min(max(4, members+1), MaxNodes)
	for nodes := max(defaultNodes(min(blocks, MaxSize/BlockSize)), least); ; nodes = max(nodes/2, least) {
		l, err := newLayout(blocks, nodes)
		if err == nil && l.room() >= room {
			return l, nil
		}
		if nodes > least {
			continue
		}
		area := max(2*((room+areaData-1)/areaData), minArea)
		if area > maxArea {
			return layout{}, fmt.Errorf("the repository voter must be able to keep %d bytes, and %d is the most that any volume takes", room, int64(maxArea/2*areaData))
		}
		need := (layout{nodes: least}.areas() + 1 + int64(2*least)*area) * BlockSize
		return layout{}, fmt.Errorf("%d bytes are too few for %d nodes and %d bytes of records: %d (%d MiB) are needed", blocks*BlockSize, least, room,
			need, (need+1<<20-1)>>20)
	}
}

func (l layout) ballot(node, copyNo int) int64 { return 1 + int64(copyNo*l.nodes+node) }
func (l layout) hostBeat(node int) int64       { return 1 + int64(2*l.nodes+node) }
func (l layout) beat(node int) int64           { return 1 + int64(3*l.nodes+node) }
func (l layout) mail(from, to int) int64       { return 1 + int64(4*l.nodes+to*l.nodes+from) }
func (l layout) header(node, copyNo int) int64 {
	return 1 + int64(4*l.nodes+l.nodes*l.nodes) + int64(2*node+copyNo)*headerBlocks
}
func (l layout) areas() int64              { return 1 + int64(4*l.nodes+l.nodes*l.nodes+2*l.nodes*headerBlocks) }
func (l layout) areaAt(node, no int) int64 { return l.areas() + int64(2*node+no)*l.area }
func (l layout) lastFormat() int64         { return l.blocks - 1 }
func (l layout) formatBlocks() []int64     { return []int64{0, l.lastFormat()} }
func (l layout) encode() []byte            { return l.append(nil) }
func (l layout) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(l.blocks))
	b = binary.BigEndian.AppendUint32(b, uint32(l.nodes))
	return binary.BigEndian.AppendUint64(b, uint64(l.area))
}

// decodeLayout reads a format block's payload.
func decodeLayout(b []byte) (layout, error) {
	if len(b) != 20 {
		return layout{}, errShape
	}
	blocks := binary.BigEndian.Uint64(b)
	nodes := binary.BigEndian.Uint32(b[8:])
	area := binary.BigEndian.Uint64(b[12:])
	if blocks > MaxSize/BlockSize || nodes > MaxNodes {
		return layout{}, errShape
	}
	l, err := newLayout(int64(blocks), int(nodes))
	if err != nil || nodes == 0 || uint64(l.area) != area {
		return layout{}, errShape
	}
	return l, nil
}
