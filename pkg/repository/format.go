package repository

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// FormatOptions say what Format makes.
type FormatOptions struct {
	Path    string
	Cluster string // the cluster's UUID
	Node    string // this node
	// Members are the nodes that will use the volume, this one among them; the order gives the slots. Index and Sealed are
	// filled in by Format.
	Members   []Member
	Authority Authority
	// Nodes is for how many nodes the volume is laid out; 0 chooses by the size, the members, and Room.
	Nodes int
	// Room is how many bytes of records the repository voter must be able to keep; a volume that is too small for it is refused.
	Room    int64
	Timings Timings
	// Force overwrites whatever is there. Without it a device with a known signature is refused.
	Force bool
	// Lab allows what only tests may use: a small volume (MinLabSize), and a file system without direct I/O.
	Lab bool

	// Device is used instead of Path, for tests; it is closed by Format. Size is its size in bytes.
	Device Device
	Size   int64
}

// ErrInUse says that the device holds something that Format would destroy.
var ErrInUse = errors.New("the device holds data")

// Format makes the volume: it destroys what is on the device. It is never done by itself, only on an administrator's confirmed
// word, and nobody may have the volume open meanwhile. It returns the volume's new UUID, which is part of the repository voter's
// server id: a volume that was formatted is another voter.
//
// Format does not fill the device with zeros. What is left of an earlier format is not believed, because it carries another
// volume's UUID.
func Format(o FormatOptions) (UUID, error) {
	h, c, l, dev, err := prepareFormat(&o)
	if err != nil {
		return UUID{}, err
	}
	defer dev.Close()
	ring := &keyring{newest: 1, keys: map[uint32][]byte{1: newKey()}}
	c.ring.Store(ring)
	if err := h.seal(ring, o.Authority); err != nil {
		return UUID{}, err
	}
	own := h.member(o.Node).Index

	// The format blocks go first and come back last: a format that was broken off leaves nothing that could be opened.
	blank := alignedBlocks(1)
	for _, b := range l.formatBlocks() {
		if err := writeBlocks(dev, blank, b); err != nil {
			return UUID{}, fmt.Errorf("format the volume: %w", err)
		}
	}
	if err := wipe(dev, 1, l.areas()-1); err != nil {
		return UUID{}, fmt.Errorf("format the volume: %w", err)
	}
	if err := c.writeEmpty(dev, l); err != nil {
		return UUID{}, fmt.Errorf("format the volume: %w", err)
	}
	for copyNo := range 2 {
		b, err := c.encodeHeader(h, o.Authority, l, own, copyNo)
		if err != nil {
			return UUID{}, err
		}
		if err := writeBlocks(dev, b, l.header(own, copyNo)); err != nil {
			return UUID{}, fmt.Errorf("format the volume: %w", err)
		}
	}
	for _, b := range l.formatBlocks() {
		buf := alignedBlocks(1)
		c.encode(buf, frame{kind: kindFormat, writer: anyWriter, position: b, seq: 1, payload: l.encode()}, true)
		if err := writeBlocks(dev, buf, b); err != nil {
			return UUID{}, fmt.Errorf("format the volume: %w", err)
		}
	}
	return c.volume, nil
}

// prepareFormat checks everything that can be checked before something is written.
func prepareFormat(o *FormatOptions) (*header, *codec, layout, Device, error) {
	fail := func(err error) (*header, *codec, layout, Device, error) { return nil, nil, layout{}, nil, err }
	cluster, err := ParseUUID(o.Cluster)
	if err != nil {
		return fail(fmt.Errorf("format the volume: the cluster's id: %w", err))
	}
	if o.Timings == (Timings{}) {
		o.Timings = TimingsFor(1500 * time.Millisecond)
	}
	dev, size := o.Device, o.Size
	if dev == nil {
		if dev, size, err = OpenDevice(o.Path, true, o.Lab); err != nil {
			return fail(err)
		}
	}
	least := int64(MinSize)
	if o.Lab {
		least = MinLabSize
	}
	if size < least {
		dev.Close()
		return fail(fmt.Errorf("format the volume: %s has %d bytes, and a repository volume needs at least %d (64 MiB)", o.Path, size, least))
	}
	var l layout
	if o.Nodes == 0 {
		l, err = chooseLayout(size/BlockSize, len(o.Members), o.Room)
	} else if l, err = newLayout(size/BlockSize, o.Nodes); err == nil && l.room() < o.Room {
		err = fmt.Errorf("%d bytes are too few for %d nodes: the repository voter must be able to keep %d, and has room for %d", size, o.Nodes, o.Room, l.room())
	}
	if err != nil {
		dev.Close()
		return fail(fmt.Errorf("format the volume: %w", err))
	}
	h := &header{Generation: 1, Writer: o.Node, Timings: o.Timings, Newest: 1}
	for i, m := range o.Members {
		h.Members = append(h.Members, Member{Index: i, Name: m.Name, Card: m.Card})
	}
	if err := h.check(l); err != nil {
		dev.Close()
		return fail(fmt.Errorf("format the volume: %w", err))
	}
	if !o.Force {
		found, err := findSignature(dev, size)
		if err == nil && found != "" {
			err = fmt.Errorf("%w: %s on %s; it would be destroyed. Give the name of another device, or force it", ErrInUse, found, o.Path)
		}
		if err != nil {
			dev.Close()
			return fail(fmt.Errorf("format the volume: %w", err))
		}
	}
	c := &codec{cluster: cluster}
	rand.Read(c.volume[:])
	c.volume[6], c.volume[8] = c.volume[6]&0x0f|0x40, c.volume[8]&0x3f|0x80
	return h, c, l, dev, nil
}

// wipe writes zeros over n blocks.
func wipe(dev Device, at, n int64) error {
	zeros := alignedBlocks(chunk)
	for end := at + n; at < end; at += chunk {
		if err := writeBlocks(dev, zeros[:min(chunk, end-at)*BlockSize], at); err != nil {
			return err
		}
	}
	return nil
}

// writeEmpty writes every node's ballots and heartbeats: "nothing yet" must be told from "cannot be read".
func (c *codec) writeEmpty(dev Device, l layout) error {
	n := int(l.mail(0, 0) - l.ballot(0, 0))
	buf := alignedBlocks(n)
	put := func(at int64, f frame) {
		f.position, f.seq = at, 1
		off := (at - l.ballot(0, 0)) * BlockSize
		c.encode(buf[off:off+BlockSize], f, false)
	}
	for i := range l.nodes {
		for copyNo := range 2 {
			put(l.ballot(i, copyNo), frame{kind: kindBallot, writer: uint16(i), payload: ballot{successor: noNode}.encode()})
		}
		put(l.hostBeat(i), frame{kind: kindHostBeat, writer: uint16(i), payload: hostBeat{}.encode()})
		put(l.beat(i), frame{kind: kindBeat, writer: uint16(i), payload: mustJSON(Beat{})})
	}
	return writeBlocks(dev, buf, l.ballot(0, 0))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("repository: " + err.Error()) // plain values
	}
	return b
}
