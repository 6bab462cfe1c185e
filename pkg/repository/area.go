package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// An area holds one claim's records: batches of blocks, appended, never changed. The frame's sequence is the ballot of the claim,
// so that blocks of the area's earlier uses are not taken for it. A batch is there as a whole or not at all.
//
// The payload of an area's block:
//
//	 0  number of the block in the area    4
//	 4  number of the batch's first block  4
//	 8  blocks of the batch                4
//	12  bytes of the batch                 4
//	16  part of the batch: its records, each with its length (4 bytes) before it
const (
	areaHead = 16
	areaData = maxPayload - areaHead
	// chunk is how many blocks one access takes at most: 256 KiB.
	chunk = 64
)

// MaxRecord is the size of the largest record, in bytes.
const MaxRecord = 8 << 20

// ErrNoRoom says that the live area has no room for the records: compact first.
var ErrNoRoom = errors.New("the repository voter's area has no room for it")

// batchBlocks is how many blocks the records take as one batch. There is at least one.
func batchBlocks(records [][]byte) int64 {
	n := 0
	for _, r := range records {
		n += 4 + len(r)
	}
	return max(int64(n+areaData-1)/areaData, 1)
}

// encodeBatch gives the blocks of a batch that begins at block start of the area whose first block on the volume is first.
func (c *codec) encodeBatch(records [][]byte, writer uint16, number uint64, first int64, start uint32) ([]byte, error) {
	var data []byte
	for _, r := range records {
		if len(r) > MaxRecord {
			return nil, fmt.Errorf("a record of %d bytes is over the limit, %d", len(r), MaxRecord)
		}
		data = binary.BigEndian.AppendUint32(data, uint32(len(r)))
		data = append(data, r...)
	}
	blocks := batchBlocks(records)
	out := alignedBlocks(int(blocks))
	payload := make([]byte, 0, maxPayload)
	total := uint32(len(data))
	for i := range blocks {
		n := min(len(data), areaData)
		payload = binary.BigEndian.AppendUint32(payload[:0], start+uint32(i))
		payload = binary.BigEndian.AppendUint32(payload, start)
		payload = binary.BigEndian.AppendUint32(payload, uint32(blocks))
		payload = binary.BigEndian.AppendUint32(payload, total)
		payload = append(payload, data[:n]...)
		data = data[n:]
		c.encode(out[i*BlockSize:(i+1)*BlockSize], frame{kind: kindArea, writer: writer, position: first + int64(start) + i,
			seq: number, payload: payload}, false)
	}
	return out, nil
}

// An areaBlock is one block of an area, decoded.
type areaBlock struct {
	start, blocks, bytes uint32
	data                 []byte
}

// decodeAreaBlock reads block i of an area; ok is false for a block that is not of this claim, or that cannot be believed.
func decodeAreaBlock(f frame, i uint32, areaBlocks int64) (areaBlock, bool) {
	p := f.payload
	if len(p) < areaHead || binary.BigEndian.Uint32(p) != i {
		return areaBlock{}, false
	}
	b := areaBlock{binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:]), p[areaHead:]}
	// In 64 bits: the numbers are read from a disk.
	end := int64(b.start) + int64(b.blocks)
	if b.start > i || int64(i) >= end || end > areaBlocks {
		return areaBlock{}, false
	}
	if need := max((int64(b.bytes)+areaData-1)/areaData, 1); need != int64(b.blocks) {
		return areaBlock{}, false
	}
	return b, true
}

// An areaScan puts the blocks of an area together, as they are read in order.
type areaScan struct {
	next    uint32 // where the next batch begins
	data    []byte // of the batch that is being read
	batch   areaBlock
	records [][]byte
	broken  bool // the records end at next
}

// add takes block i; ok is false where it cannot be used.
func (s *areaScan) add(i uint32, b areaBlock, ok bool) error {
	if s.broken {
		// What follows the end of the records is the rest of a batch that was never finished, or nothing. A block of a later
		// batch means that the blocks before it were written, and are lost.
		if ok && b.start != s.next {
			return fmt.Errorf("%w: block %d of the voter's area is lost, and later ones are there", errDamaged, s.next)
		}
		return nil
	}
	if !ok {
		s.broken = true
		return nil
	}
	if i == s.next {
		s.batch, s.data = b, make([]byte, 0, int(b.blocks)*areaData)
	}
	if b.start != s.next || b.blocks != s.batch.blocks || b.bytes != s.batch.bytes {
		return fmt.Errorf("%w: block %d of the voter's area contradicts the one before it", errDamaged, i)
	}
	s.data = append(s.data, b.data...)
	if i+1 < b.start+b.blocks {
		return nil
	}
	if len(s.data) != int(b.bytes) {
		return fmt.Errorf("%w: a batch of the voter's area has %d bytes and not %d", errShape, len(s.data), b.bytes)
	}
	s.next = i + 1
	return s.split(s.data)
}

func (s *areaScan) split(data []byte) error {
	for len(data) > 0 {
		if len(data) < 4 {
			return errShape
		}
		n := binary.BigEndian.Uint32(data)
		if data = data[4:]; int64(n) > int64(len(data)) {
			return errShape
		}
		s.records = append(s.records, bytes.Clone(data[:n]))
		data = data[n:]
	}
	return nil
}

// readArea reads the records of a claim from the area that its host published. atLeast is how many blocks are known to have held
// acknowledged records; fewer mean that the disk lost some.
func (v *Volume) readArea(node int, area uint8, number uint64, atLeast uint32) (records [][]byte, tail uint32, err error) {
	first := v.layout.areaAt(node, int(area))
	var s areaScan
	for at := int64(0); at < v.layout.area; at += chunk {
		n := min(chunk, v.layout.area-at)
		buf := alignedBlocks(int(n))
		err := v.areaLane.do(v.timings().IO, func() error { return readBlocks(v.dev, buf, first+at) })
		if err != nil {
			return nil, 0, err
		}
		for i := range n {
			b := areaBlock{}
			f, err := v.codec.decode(buf[i*BlockSize:(i+1)*BlockSize], kindArea, uint16(node), first+at+i)
			ok := err == nil && f.seq == number
			if ok {
				b, ok = decodeAreaBlock(f, uint32(at+i), v.layout.area)
			}
			if err := s.add(uint32(at+i), b, ok); err != nil {
				return nil, 0, err
			}
		}
	}
	if s.next < atLeast {
		return nil, 0, fmt.Errorf("%w: block %d of the voter's area on node %d cannot be read, and %d were acknowledged",
			errDamaged, s.next, node, atLeast)
	}
	return s.records, s.next, nil
}

// writeArea writes a batch at block start of this node's area and reads it back: a write that the disk lost or put elsewhere must
// not be promised on. It returns the number of blocks.
func (v *Volume) writeArea(area uint8, number uint64, start uint32, records [][]byte) (uint32, error) {
	blocks := batchBlocks(records)
	if int64(start)+blocks > v.layout.area {
		return 0, fmt.Errorf("%w: %d blocks are wanted, %d are free", ErrNoRoom, blocks, v.layout.area-int64(start))
	}
	first := v.layout.areaAt(v.index, int(area))
	buf, err := v.codec.encodeBatch(records, uint16(v.index), number, first, start)
	if err != nil {
		return 0, err
	}
	for at := int64(0); at < blocks; at += chunk {
		n := min(chunk, blocks-at)
		part := buf[at*BlockSize : (at+n)*BlockSize]
		place := first + int64(start) + at
		if err := v.areaLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, part, place) }); err != nil {
			return 0, err
		}
		back := alignedBlocks(int(n))
		if err := v.areaLane.do(v.timings().IO, func() error { return readBlocks(v.dev, back, place) }); err != nil {
			return 0, err
		}
		if !bytes.Equal(part, back) {
			return 0, fmt.Errorf("%w: what was written at block %d did not come back", errDamaged, place)
		}
	}
	return uint32(blocks), nil
}
