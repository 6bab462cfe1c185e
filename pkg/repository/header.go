package repository

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// An Authority is this node's identity, as far as the volume needs it. A card is what others need to know of a member to seal
// for it and to check its signatures: its certificate. Methods are called by several goroutines.
type Authority interface {
	// Card is this node's own.
	Card() []byte
	// Sign signs as this node.
	Sign(message []byte) ([]byte, error)
	// Verify checks that the card belongs to the named member of this cluster and that the signature is its own.
	Verify(node string, card, message, signature []byte) error
	// Seal encrypts a short secret so that only the card's owner can open it.
	Seal(card, secret []byte) ([]byte, error)
	// Open opens what was sealed for this node.
	Open(sealed []byte) ([]byte, error)
}

// Timings are in the header, so that all nodes use the same.
type Timings struct {
	Host time.Duration `json:"host"` // T_host: silence of the voter's host, after which another may claim
	IO   time.Duration `json:"io"`   // T_io: an access that takes longer counts as failed
	Beat time.Duration `json:"beat"` // interval of the heartbeats
}

// Validate lists what does not fit together.
func (t Timings) Validate() error {
	switch {
	case t.Host < 100*time.Millisecond || t.Host > time.Minute:
		return fmt.Errorf("the host's timeout T_host is %v; 100ms to 1m is possible", t.Host)
	case t.IO <= 0 || t.IO > t.Host:
		return fmt.Errorf("the access timeout T_io is %v; it must be positive and not over T_host, %v", t.IO, t.Host)
	case t.Beat <= 0 || t.Beat > t.Host/2:
		return fmt.Errorf("the heartbeat's interval is %v; it must be positive and at most half of T_host, %v", t.Beat, t.Host)
	}
	return nil
}

// TimingsFor derives the volume's times from T_host of the cluster's profile.
func TimingsFor(host time.Duration) Timings {
	return Timings{Host: host, IO: host * 2 / 3, Beat: host / 4}
}

// A Member is a node that uses the volume.
type Member struct {
	Index int    `json:"index"` // of its slot, for as long as it is a member
	Name  string `json:"name"`
	Card  []byte `json:"card"`
	// Sealed are the volume's keys by their id, each sealed to this member.
	Sealed map[uint32][]byte `json:"sealed"`
}

// A header holds the members, the timings and the sealed keys. Every node has two copies of its own; the valid one with the highest
// generation, of any node, is in force. It is signed by its writer.
type header struct {
	Generation uint64   `json:"generation"`
	Writer     string   `json:"writer"`
	Timings    Timings  `json:"timings"`
	Newest     uint32   `json:"newest_key"`
	Members    []Member `json:"members"`
}

func (h *header) member(name string) *Member {
	for i := range h.Members {
		if h.Members[i].Name == name {
			return &h.Members[i]
		}
	}
	return nil
}

func (h *header) check(l layout) error {
	seenName, seenIndex := map[string]bool{}, map[int]bool{}
	for _, m := range h.Members {
		switch {
		case m.Name == "" || len(m.Name) > 64 || seenName[m.Name]:
			return fmt.Errorf("%w: the member's name %.70q is empty, too long, or there twice", errShape, m.Name)
		case m.Index < 0 || m.Index >= l.nodes || seenIndex[m.Index]:
			return fmt.Errorf("%w: member %s has the index %d", errShape, m.Name, m.Index)
		}
		seenName[m.Name], seenIndex[m.Index] = true, true
	}
	if h.Newest == 0 || len(h.Members) == 0 || !seenName[h.Writer] {
		return errShape
	}
	return h.Timings.Validate()
}

// A signedHeader is what lies on the volume.
type signedHeader struct {
	Header    json.RawMessage `json:"header"`
	Card      []byte          `json:"card"`
	Signature []byte          `json:"signature"`
}

// signedWords keeps a signature of a header from being taken for anything else.
const signedWords = "holdfast repository volume header\x00"

// toSign binds the header to this format of this cluster's volume, so that one of an earlier format cannot be put back.
func (c *codec) toSign(text []byte) []byte {
	return slices.Concat([]byte(signedWords), c.cluster[:], c.volume[:], text)
}

// encodeHeader gives the blocks of one copy.
func (c *codec) encodeHeader(h *header, a Authority, l layout, index, copyNo int) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the volume's header: %w", err)
	}
	sig, err := a.Sign(c.toSign(text))
	if err != nil {
		return nil, fmt.Errorf("sign the volume's header: %w", err)
	}
	whole, err := json.Marshal(signedHeader{Header: text, Card: a.Card(), Signature: sig})
	if err != nil {
		return nil, fmt.Errorf("encode the volume's header: %w", err)
	}
	if len(whole) > headerBlocks*maxPayload {
		return nil, fmt.Errorf("the volume's header has %d bytes; %d is the most", len(whole), headerBlocks*maxPayload)
	}
	out := alignedBlocks(headerBlocks)
	first := l.header(index, copyNo)
	for i := range int64(headerBlocks) {
		n := min(len(whole), maxPayload)
		c.encode(out[i*BlockSize:(i+1)*BlockSize], frame{kind: kindHeader, writer: uint16(index), position: first + i,
			seq: h.Generation, payload: whole[:n]}, true)
		whole = whole[n:]
	}
	return out, nil
}

// decodeHeader reads one copy; the signature decides whether it is believed.
func (c *codec) decodeHeader(b []byte, a Authority, l layout, index, copyNo int) (*header, error) {
	first := l.header(index, copyNo)
	var whole []byte
	var generation uint64
	for i := range int64(headerBlocks) {
		f, err := c.decode(b[i*BlockSize:(i+1)*BlockSize], kindHeader, uint16(index), first+i)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			generation = f.seq
		}
		if f.seq != generation {
			return nil, errDamaged // written in part
		}
		whole = append(whole, f.payload...)
	}
	var s signedHeader
	if err := strictJSON(whole, &s); err != nil {
		return nil, err
	}
	var h header
	if err := strictJSON(s.Header, &h); err != nil {
		return nil, err
	}
	if err := a.Verify(h.Writer, s.Card, c.toSign(s.Header), s.Signature); err != nil {
		return nil, fmt.Errorf("%w: %w", errForged, err)
	}
	if h.Generation != generation {
		return nil, errShape
	}
	if err := h.check(l); err != nil {
		return nil, err
	}
	if m := h.member(h.Writer); m.Index != index {
		return nil, fmt.Errorf("%w: it was written by %s, whose place is another", errShape, h.Writer)
	}
	return &h, nil
}

func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errShape, err)
	}
	if d.More() {
		return errShape
	}
	return nil
}

// ErrNotMember says that the volume's keys are not sealed to this node.
var ErrNotMember = errors.New("this node is not a member of the repository volume: its keys are not sealed to it")

// openKeys unseals the keys that the header holds for the node.
func (h *header) openKeys(node string, a Authority) (*keyring, error) {
	m := h.member(node)
	if m == nil || len(m.Sealed) == 0 {
		return nil, ErrNotMember
	}
	ring := &keyring{newest: h.Newest, keys: map[uint32][]byte{}}
	for id, sealed := range m.Sealed {
		key, err := a.Open(sealed)
		if err != nil {
			return nil, fmt.Errorf("open key %d of the volume: %w", id, err)
		}
		if id == 0 || len(key) != keySize {
			return nil, fmt.Errorf("key %d of the volume: %w", id, errShape)
		}
		ring.keys[id] = key
	}
	if ring.keys[ring.newest] == nil {
		return nil, fmt.Errorf("%w: the newest key, %d, is missing", ErrNotMember, ring.newest)
	}
	return ring, nil
}

// keySize is that of the volume's keys, in bytes.
const keySize = 32

// seal puts the ring's keys into every member's entry.
func (h *header) seal(ring *keyring, a Authority) error {
	h.Newest = ring.newest
	for i := range h.Members {
		m := &h.Members[i]
		m.Sealed = map[uint32][]byte{}
		for id, key := range ring.keys {
			s, err := a.Seal(m.Card, key)
			if err != nil {
				return fmt.Errorf("seal key %d of the volume to %s: %w", id, m.Name, err)
			}
			m.Sealed[id] = s
		}
	}
	return nil
}

func newKey() []byte {
	k := make([]byte, keySize)
	rand.Read(k)
	return k
}
