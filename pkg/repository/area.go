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
// Every batch is there twice, one copy behind the other, in one write: a write that was broken off tears what nobody relies on
// yet, and damage to a block later leaves the other copy. Without it a damaged last batch could not be told from one that was
// never finished.
//
// The payload of an area's block:
//
//	 0  number of the block in the area    4
//	 4  number of the batch's first block  4
//	 8  blocks of one copy of the batch    4
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

// copyBlocks is how many blocks one copy of the records takes as a batch. There is at least one.
func copyBlocks(records [][]byte) int64 {
	n := 0
	for _, r := range records {
		n += 4 + len(r)
	}
	return max(int64(n+areaData-1)/areaData, 1)
}

// batchBlocks is how many blocks the records take as one batch.
func batchBlocks(records [][]byte) int64 { return 2 * copyBlocks(records) }

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
	n := copyBlocks(records)
	out := alignedBlocks(int(2 * n))
	payload := make([]byte, 0, maxPayload)
	for i := range 2 * n {
		from := min((i%n)*areaData, int64(len(data)))
		payload = binary.BigEndian.AppendUint32(payload[:0], start+uint32(i))
		payload = binary.BigEndian.AppendUint32(payload, start)
		payload = binary.BigEndian.AppendUint32(payload, uint32(n))
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(data)))
		payload = append(payload, data[from:min(from+areaData, int64(len(data)))]...)
		c.encode(out[i*BlockSize:(i+1)*BlockSize], frame{kind: kindArea, writer: writer, position: first + int64(start) + i,
			seq: number, payload: payload}, false)
	}
	return out, nil
}

// An areaBlock is one block of an area, decoded.
type areaBlock struct {
	start, blocks, bytes uint32
	data                 []byte
	ok                   bool // it is of this claim, and can be believed
}

// decodeAreaBlock reads block i of an area.
func decodeAreaBlock(f frame, i uint32, areaBlocks int64) areaBlock {
	p := f.payload
	if len(p) < areaHead || binary.BigEndian.Uint32(p) != i {
		return areaBlock{}
	}
	b := areaBlock{binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:]), p[areaHead:], true}
	// In 64 bits: the numbers are read from a disk.
	end := int64(b.start) + 2*int64(b.blocks)
	if b.start > i || int64(i) >= end || end > areaBlocks {
		return areaBlock{}
	}
	if need := max((int64(b.bytes)+areaData-1)/areaData, 1); need != int64(b.blocks) {
		return areaBlock{}
	}
	part := int64(i-b.start) % int64(b.blocks)
	if int64(len(b.data)) != min(areaData, int64(b.bytes)-part*areaData) {
		return areaBlock{}
	}
	return b
}

// joinArea puts the blocks of an area together. tail is where the next batch begins.
func joinArea(blocks []areaBlock) (records [][]byte, tail uint32, err error) {
	for {
		data, next, err := joinBatch(blocks, tail)
		if err != nil {
			return nil, 0, err
		}
		if next == tail {
			return records, tail, nil
		}
		if records, err = splitBatch(records, data); err != nil {
			return nil, 0, err
		}
		tail = next
	}
}

// joinBatch reads the batch at block tail; next is tail when there is none. A batch of which a part is in neither copy was never
// finished, unless a later one is there: then its blocks were lost.
func joinBatch(blocks []areaBlock, tail uint32) (data []byte, next uint32, err error) {
	var head areaBlock
	for _, b := range blocks[tail:] {
		if !b.ok {
			continue
		}
		if b.start != tail {
			break
		}
		head = b
		break
	}
	whole := head.ok
	if whole {
		n := head.blocks
		for part := range n {
			b := blocks[tail+part]
			if !b.ok {
				b = blocks[tail+n+part]
			}
			if whole = b.ok && b.start == tail && b.blocks == n && b.bytes == head.bytes; !whole {
				break
			}
			data = append(data, b.data...)
		}
	}
	if whole {
		return data, tail + 2*head.blocks, nil
	}
	for i := int(tail); i < len(blocks); i++ {
		if b := blocks[i]; b.ok && b.start != tail {
			return nil, 0, fmt.Errorf("%w: the batch at block %d of the voter's area is lost, and later ones are there", errDamaged, tail)
		}
	}
	return nil, tail, nil
}

func splitBatch(records [][]byte, data []byte) ([][]byte, error) {
	for len(data) > 0 {
		if len(data) < 4 {
			return nil, errShape
		}
		n := binary.BigEndian.Uint32(data)
		if data = data[4:]; int64(n) > int64(len(data)) {
			return nil, errShape
		}
		records = append(records, bytes.Clone(data[:n]))
		data = data[n:]
	}
	return records, nil
}

// readArea reads the records of a claim from the area that its host published. atLeast is how many blocks are known to have held
// acknowledged records; fewer mean that the disk lost some.
func (v *Volume) readArea(node int, area uint8, number uint64, atLeast uint32) (records [][]byte, tail uint32, err error) {
	first := v.layout.areaAt(node, int(area))
	blocks := make([]areaBlock, v.layout.area)
	for at := int64(0); at < v.layout.area; at += chunk {
		n := min(chunk, v.layout.area-at)
		buf := alignedBlocks(int(n))
		err := v.areaLane.do(v.timings().IO, func() error { return readBlocks(v.dev, buf, first+at) })
		if err != nil {
			return nil, 0, err
		}
		for i := range n {
			f, err := v.codec.decode(buf[i*BlockSize:(i+1)*BlockSize], kindArea, uint16(node), first+at+i)
			if err == nil && f.seq == number {
				blocks[at+i] = decodeAreaBlock(f, uint32(at+i), v.layout.area)
			}
		}
	}
	records, tail, err = joinArea(blocks)
	if err != nil {
		return nil, 0, err
	}
	if tail < atLeast {
		return nil, 0, fmt.Errorf("%w: block %d of the voter's area on node %d cannot be read, and %d were acknowledged",
			errDamaged, tail, node, atLeast)
	}
	return records, tail, nil
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
