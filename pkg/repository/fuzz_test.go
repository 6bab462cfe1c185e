package repository

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// fuzzCodec has a key that the fuzzer does not know.
func fuzzCodec() *codec {
	c := &codec{cluster: UUID{1}, volume: UUID{2}}
	c.ring.Store(&keyring{newest: 1, keys: map[uint32][]byte{1: bytes.Repeat([]byte{7}, keySize)}})
	return c
}

// fix makes a block pass the outer checks, so that the fuzzer reaches what lies behind them.
func fix(c *codec, b []byte) []byte {
	if len(b) > BlockSize {
		b = b[:BlockSize]
	}
	out := append(bytes.Clone(b), make([]byte, BlockSize-len(b))...)
	copy(out, magic[:])
	binary.BigEndian.PutUint16(out[4:], layoutVersion)
	copy(out[8:], c.cluster[:])
	copy(out[24:], c.volume[:])
	binary.BigEndian.PutUint32(out[frameCRC:], crc32.Checksum(out[:frameCRC], castagnoli))
	return out
}

func FuzzFrame(f *testing.F) {
	c := fuzzCodec()
	good := make([]byte, BlockSize)
	c.encode(good, frame{kind: kindBallot, writer: 1, position: 5, seq: 9, payload: ballot{successor: noNode}.encode()}, false)
	f.Add(good[:200])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 512 {
			return // what lies behind is payload: it only makes the search slow
		}
		if got, err := c.decode(b, kindBallot, 1, 5); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("a block that was not written with the key was believed: %+v", got)
		}
		fixed := fix(c, b)
		if got, err := parseFrame(fixed); err == nil && len(got.payload) > maxPayload {
			t.Fatalf("a payload of %d bytes", len(got.payload))
		}
		if _, err := c.decode(fixed, kindBallot, 1, 5); err == nil && !bytes.Equal(fixed, good) {
			t.Fatal("a block with a wrong HMAC was believed")
		}
	})
}

func FuzzFormatBlock(f *testing.F) {
	c := fuzzCodec()
	l, err := newLayout(MinLabSize/BlockSize, 4)
	if err != nil {
		f.Fatal(err)
	}
	good := make([]byte, BlockSize)
	c.encode(good, frame{kind: kindFormat, writer: anyWriter, seq: 1, payload: l.encode()}, true)
	f.Add(good[:120])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 512 {
			return
		}
		for _, raw := range [][]byte{b, fix(c, b)} {
			l, _, err := c.readFormatBlock(raw, 0)
			if err != nil {
				continue
			}
			if l.nodes < 2 || l.nodes > MaxNodes || l.area < minArea || l.areaAt(l.nodes-1, 1)+l.area > l.lastFormat() || l.blocks > MaxSize/BlockSize {
				t.Fatalf("a layout that cannot be: %+v", l)
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	c := fuzzCodec()
	l, err := newLayout(MinLabSize/BlockSize, 4)
	if err != nil {
		f.Fatal(err)
	}
	a := repositorytest.Authority("a")
	h := &header{Generation: 3, Writer: "a", Timings: testTimings, Newest: 1, Members: members("a", "b")}
	h.Members[1].Index = 1
	if err := h.seal(c.ring.Load(), a); err != nil {
		f.Fatal(err)
	}
	good, err := c.encodeHeader(h, a, l, 0, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[frameHead:600])
	f.Add([]byte(`{"header":{},"card":"","signature":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > headerBlocks*maxPayload {
			return
		}
		raw := make([]byte, headerBlocks*BlockSize)
		for i := range int64(headerBlocks) {
			n := min(len(text), maxPayload)
			c.encode(raw[i*BlockSize:(i+1)*BlockSize], frame{kind: kindHeader, position: l.header(0, 0) + i, seq: 3, payload: text[:n]}, true)
			text = text[n:]
		}
		got, err := c.decodeHeader(raw, a, l, 0, 0)
		if err != nil {
			return
		}
		if err := got.check(l); err != nil {
			t.Fatal(err)
		}
		if ring, err := got.openKeys("a", a); err == nil && ring.keys[ring.newest] == nil {
			t.Fatal("a ring without its newest key")
		}
	})
}

func FuzzBallot(f *testing.F) {
	f.Add(ballot{mbal: 129, pub: 65, area: 1, successor: noNode}.encode(), uint8(1))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, p []byte, index uint8) {
		b, err := decodeBallot(frame{seq: 3, payload: p}, int(index%MaxNodes))
		if err != nil {
			return
		}
		if b.pub > b.mbal || b.area > 1 || b.mbal != 0 && ballotOwner(b.mbal) != int(index%MaxNodes) {
			t.Fatalf("a ballot that cannot be: %+v", b)
		}
		if again, err := decodeBallot(frame{seq: 3, payload: b.encode()}, int(index%MaxNodes)); err != nil || again != b {
			t.Fatalf("%+v comes back as %+v, %v", b, again, err)
		}
	})
}

func FuzzHostBeat(f *testing.F) {
	f.Add(hostBeat{1, 65, 3, 4}.encode(), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, index uint8) {
		h, err := decodeHostBeat(frame{seq: 1, payload: p}, int(index%MaxNodes))
		if err == nil && !bytes.Equal(h.encode(), p) {
			t.Fatalf("%+v comes back otherwise", h)
		}
	})
}

func FuzzBeat(f *testing.F) {
	f.Add(Beat{Incarnation: 1, Held: []Held{{"g", 1}}, Mail: []uint64{1, 2}}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxPayload {
			return
		}
		b, err := decodeBeat(frame{payload: p})
		if err != nil {
			return
		}
		if n := len(b.encode()); n > maxPayload {
			t.Fatalf("a heartbeat of %d bytes", n)
		}
	})
}

func FuzzMail(f *testing.F) {
	good, err := encodeLetters([]Letter{{LetterGrant, []byte("x")}, {LetterPoison, nil}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, p []byte) {
		letters, err := decodeLetters(p)
		if err != nil || len(p) > maxPayload {
			return
		}
		if again, err := encodeLetters(letters); err != nil || !bytes.Equal(again, p) {
			t.Fatalf("%x comes back as %x, %v", p, again, err)
		}
	})
}

// FuzzArea makes an area of blocks whose frames hold, and whose payloads are the fuzzer's.
func FuzzArea(f *testing.F) {
	c := fuzzCodec()
	batch, err := c.encodeBatch([][]byte{[]byte("one"), bytes.Repeat([]byte("x"), 9000)}, 0, 65, 0, 0)
	if err != nil {
		f.Fatal(err)
	}
	var seed []byte
	for i := range len(batch) / BlockSize {
		seed = append(seed, batch[i*BlockSize+frameHead:i*BlockSize+frameHead+40]...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		blocks := make([]areaBlock, 64)
		for i := range blocks {
			n := min(len(b), 40)
			blocks[i] = decodeAreaBlock(frame{payload: b[:n]}, uint32(i), 64)
			b = b[n:]
		}
		records, tail, err := joinArea(blocks)
		if err == nil && (tail > 64 || len(records) > 64*areaData) {
			t.Fatalf("%d records, tail %d", len(records), tail)
		}
	})
}

// TestAreaComesBack: what was encoded comes back, whichever single block is lost; a batch with a part lost in both copies ends the
// records, and is an error when a later batch is there.
func TestAreaComesBack(t *testing.T) {
	c := fuzzCodec()
	batches := [][][]byte{{}, {[]byte("one")}, {nil, bytes.Repeat([]byte("x"), 9000), []byte("y")}, {bytes.Repeat([]byte("z"), areaData-4)}, {[]byte("end")}}
	var blocks []areaBlock
	var want []string
	var starts []int
	for _, b := range batches {
		raw, err := c.encodeBatch(b, 0, 65, 0, uint32(len(blocks)))
		if err != nil {
			t.Fatal(err)
		}
		starts = append(starts, len(blocks))
		first := int64(len(blocks))
		for i := range int64(len(raw)) / BlockSize {
			fr, err := c.decode(raw[i*BlockSize:(i+1)*BlockSize], kindArea, 0, first+i)
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, decodeAreaBlock(fr, uint32(first+i), 100))
		}
		for _, r := range b {
			want = append(want, string(r))
		}
	}
	used := len(blocks)
	blocks = append(blocks, make([]areaBlock, 100-used)...)
	check := func(what string, lost ...int) ([][]byte, uint32, error) {
		t.Helper()
		spoilt := append([]areaBlock(nil), blocks...)
		for _, i := range lost {
			spoilt[i] = areaBlock{}
		}
		return joinArea(spoilt)
	}
	for i := range 100 {
		got, tail, err := check("one block", i)
		if err != nil || int(tail) != used || len(got) != len(want) {
			t.Fatalf("block %d lost: %d records, tail %d, %v", i, len(got), tail, err)
		}
		for k := range got {
			if string(got[k]) != want[k] {
				t.Fatalf("block %d lost: record %d is another", i, k)
			}
		}
	}
	last := starts[len(starts)-1]
	if got, tail, err := check("the last batch", last, last+1); err != nil || int(tail) != last || len(got) != len(want)-1 {
		t.Fatalf("without the last batch: %d records, tail %d, %v", len(got), tail, err)
	}
	if _, _, err := check("an earlier batch", starts[1], starts[1]+1); err == nil {
		t.Fatal("a batch in the middle is lost, and nobody noticed")
	}
	if _, _, err := check("a part of an earlier batch", starts[2]+1, starts[2]+4); err == nil {
		t.Fatal("a part of a batch in the middle is lost, and nobody noticed")
	}
}
