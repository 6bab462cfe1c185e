package repository

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
)

// BlockSize is the size of every block, and the alignment of every access, in bytes.
const BlockSize = 4096

// The frame around a block's payload; integers are big-endian.
//
//	   0  magic "HFRV"        4
//	   4  layout version      2
//	   6  kind                2
//	   8  cluster UUID       16
//	  24  volume UUID        16   a new one at each format
//	  40  writer              2
//	  42  reserved            2
//	  44  key id              4   0: not authenticated by HMAC (the header, which is signed)
//	  48  position            8   the number of the block
//	  56  sequence            8
//	  64  payload length      4
//	  68  reserved            4
//	  72  payload          3988
//	4060  CRC-32C             4   of everything before
//	4064  HMAC-SHA256        32   of everything before
const (
	frameHead  = 72
	frameCRC   = BlockSize - sha256.Size - 4
	frameMAC   = BlockSize - sha256.Size
	maxPayload = frameCRC - frameHead

	layoutVersion = 1
	// anyWriter is the writer of the blocks that only Format writes.
	anyWriter = 0xffff
)

var magic = [4]byte{'H', 'F', 'R', 'V'}

// A kind says what a block is.
type kind uint16

const (
	kindFormat kind = 1 + iota
	kindHeader
	kindBallot
	kindHostBeat
	kindBeat
	kindMail
	kindArea
)

// String gives the word that an error shows.
func (k kind) String() string {
	names := [...]string{kindFormat: "format", kindHeader: "header", kindBallot: "ballot", kindHostBeat: "host heartbeat",
		kindBeat: "heartbeat", kindMail: "mailbox", kindArea: "voter's area"}
	if k > 0 && int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// A UUID names a cluster or a volume.
type UUID [16]byte

// String gives the usual form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// ParseUUID reads the usual form: 8-4-4-4-12 hexadecimal digits.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		if b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]); err == nil {
			copy(u[:], b)
			return u, nil
		}
	}
	return u, fmt.Errorf("%.40q is not a UUID", s)
}

// What can be wrong with a block. Each is reported inside a BlockError.
var (
	errBlank     = errors.New("it was never written")
	errNotOurs   = errors.New("it is no block of a repository volume")
	errVersion   = errors.New("it has another version of the layout")
	errForeign   = errors.New("it belongs to another cluster or to an earlier format of the volume")
	errDamaged   = errors.New("its checksum is wrong: it is damaged, or was written in part")
	errMisplaced = errors.New("it belongs to another place: a write went astray")
	errKey       = errors.New("the key that it names is not known to this node")
	errForged    = errors.New("its authentication is wrong: it was not written by a member of this cluster")
	errShape     = errors.New("its content has no meaning")
)

// A BlockError says which block cannot be believed, and why.
type BlockError struct {
	Block int64
	What  string // kind and owner
	Err   error
}

// Error is the sentence for the operator.
func (e *BlockError) Error() string {
	return fmt.Sprintf("block %d of the volume (%s) cannot be used: %v", e.Block, e.What, e.Err)
}

// Unwrap gives the cause.
func (e *BlockError) Unwrap() error { return e.Err }

// A frame is a block's content.
type frame struct {
	kind     kind
	writer   uint16
	keyID    uint32
	position int64
	seq      uint64
	payload  []byte
}

// A keyring holds the keys that authenticate blocks, by id; new blocks are written with the newest.
type keyring struct {
	newest uint32
	keys   map[uint32][]byte
}

// A codec frames and checks the blocks of one volume. It is safe for concurrent use.
type codec struct {
	cluster, volume UUID
	ring            atomic.Pointer[keyring]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes the frame into dst, a whole block. A kind that is not authenticated by key leaves f.keyID 0 and plain set.
func (c *codec) encode(dst []byte, f frame, plain bool) {
	if len(dst) != BlockSize || len(f.payload) > maxPayload {
		panic(fmt.Sprintf("repository: a %v of %d bytes into a block of %d", f.kind, len(f.payload), len(dst)))
	}
	clear(dst)
	copy(dst, magic[:])
	binary.BigEndian.PutUint16(dst[4:], layoutVersion)
	binary.BigEndian.PutUint16(dst[6:], uint16(f.kind))
	copy(dst[8:], c.cluster[:])
	copy(dst[24:], c.volume[:])
	binary.BigEndian.PutUint16(dst[40:], f.writer)
	var key []byte
	if !plain {
		ring := c.ring.Load()
		key = ring.keys[ring.newest]
		binary.BigEndian.PutUint32(dst[44:], ring.newest)
	}
	binary.BigEndian.PutUint64(dst[48:], uint64(f.position))
	binary.BigEndian.PutUint64(dst[56:], f.seq)
	binary.BigEndian.PutUint32(dst[64:], uint32(len(f.payload)))
	copy(dst[frameHead:], f.payload)
	binary.BigEndian.PutUint32(dst[frameCRC:], crc32.Checksum(dst[:frameCRC], castagnoli))
	if key != nil {
		m := hmac.New(sha256.New, key)
		m.Write(dst[:frameMAC])
		m.Sum(dst[:frameMAC])
	}
}

// decode checks a whole block that was read from the given place and gives its content. The payload shares src's memory.
func (c *codec) decode(src []byte, k kind, writer uint16, position int64) (frame, error) {
	f, err := parseFrame(src)
	switch {
	case err != nil:
		return frame{}, err
	case [16]byte(src[8:24]) != c.cluster || [16]byte(src[24:40]) != c.volume:
		return frame{}, errForeign
	case f.position != position || f.kind != k || f.writer != writer:
		return frame{}, errMisplaced
	}
	plain := k == kindFormat || k == kindHeader
	if plain {
		if f.keyID != 0 {
			return frame{}, errShape
		}
		return f, nil
	}
	ring := c.ring.Load()
	if ring == nil {
		return frame{}, errKey
	}
	key, ok := ring.keys[f.keyID]
	if !ok {
		return frame{}, errKey
	}
	m := hmac.New(sha256.New, key)
	m.Write(src[:frameMAC])
	if !hmac.Equal(m.Sum(nil), src[frameMAC:]) {
		return frame{}, errForged
	}
	return f, nil
}

// parseFrame checks what can be checked without knowing the volume.
func parseFrame(src []byte) (frame, error) {
	if len(src) != BlockSize {
		return frame{}, errShape
	}
	if [4]byte(src[:4]) != magic {
		for _, b := range src {
			if b != 0 {
				return frame{}, errNotOurs
			}
		}
		return frame{}, errBlank
	}
	if crc32.Checksum(src[:frameCRC], castagnoli) != binary.BigEndian.Uint32(src[frameCRC:]) {
		return frame{}, errDamaged
	}
	if binary.BigEndian.Uint16(src[4:]) != layoutVersion {
		return frame{}, errVersion
	}
	n := binary.BigEndian.Uint32(src[64:])
	if n > maxPayload {
		return frame{}, errShape
	}
	return frame{
		kind:     kind(binary.BigEndian.Uint16(src[6:])),
		writer:   binary.BigEndian.Uint16(src[40:]),
		keyID:    binary.BigEndian.Uint32(src[44:]),
		position: int64(binary.BigEndian.Uint64(src[48:])),
		seq:      binary.BigEndian.Uint64(src[56:]),
		payload:  src[frameHead : frameHead+n],
	}, nil
}
