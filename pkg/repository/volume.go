package repository

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// A Role says what a process does with the volume. One process per node has each of the writing roles.
type Role string

// The roles.
const (
	RoleReader Role = "reader" // looks, and writes nothing
	RoleAgent  Role = "agent"  // writes the node's heartbeat and its mail
	RoleVoter  Role = "voter"  // runs the repository voter: claims, and its records
	RoleKeeper Role = "keeper" // writes the header: who the members are, and their keys
)

// Options say how a volume is opened.
type Options struct {
	Path      string
	Cluster   string // the cluster's UUID
	Node      string // this node's name
	Authority Authority
	// Dir is a directory on the node's own disk, for the lock and for what was seen on the volume. A reader needs none.
	Dir  string
	Role Role
	// Lab allows a file system without direct I/O.
	Lab bool

	// Device is used instead of Path, for tests; it is closed by Close. Size is its size in bytes.
	Device Device
	Size   int64
}

// A Volume is an open repository volume. Its methods may be called by several goroutines.
type Volume struct {
	opts   Options
	dev    Device
	codec  *codec
	layout layout
	name   string
	index  int // of this node's slot
	memory *memory
	head   atomic.Pointer[header]

	// notBefore is when an access of this node's former process, if it was not ended in order, is taken to be over.
	notBefore time.Time

	frontLane, ballotLane, hostLane, areaLane, beatLane, mailLane, headerLane *lane

	cached atomic.Pointer[frontRead]

	beatTurn chan struct{} // one token, for beats
	beats    beats
}

// A frontRead is one read of the volume's front, with what was decoded of it: blocks that have not changed are not checked again.
type frontRead struct {
	raw    []byte
	ring   *keyring
	frames []frame
	errs   []error
	// unknownKey says that a block that is new in this read names a key that the ring does not have.
	unknownKey bool
	// floor are the marks of all nodes from before the read.
	floor []mark
}

// ErrNotFormatted says that the device is no repository volume (any more).
var ErrNotFormatted = errors.New("it is not a repository volume")

// Open opens the volume. It fails when the volume belongs to another cluster, does not admit this node, or shows less than this
// node has seen on it before (ErrFailed), and with ErrLocked while another process of this machine has the role.
func Open(o Options) (*Volume, error) {
	cluster, err := ParseUUID(o.Cluster)
	if err != nil {
		return nil, fmt.Errorf("open the repository volume: the cluster's id: %w", err)
	}
	dev, size := o.Device, o.Size
	if dev == nil {
		if dev, size, err = OpenDevice(o.Path, o.Role != RoleReader, o.Lab); err != nil {
			return nil, err
		}
	}
	v := &Volume{opts: o, dev: dev, codec: &codec{cluster: cluster}, name: o.Node,
		frontLane: newLane("read the volume's front"), ballotLane: newLane("write the ballot"),
		hostLane: newLane("write the host heartbeat"), areaLane: newLane("the voter's area"),
		beatLane: newLane("write the heartbeat"), mailLane: newLane("the mailbox"), headerLane: newLane("the header"), beatTurn: make(chan struct{}, 1)}
	v.beatTurn <- struct{}{}
	if err := v.open(size); err != nil {
		if v.memory != nil {
			_ = v.memory.close(v.memory.m.Clean) // the first error is the one to tell
		}
		dev.Close()
		return nil, fmt.Errorf("open the repository volume %s: %w", o.Path, err)
	}
	return v, nil
}

// openLimit is T_io until the header has told it.
const openLimit = 5 * time.Second

func (v *Volume) open(size int64) error {
	if err := v.readFormat(size); err != nil {
		return err
	}
	if v.opts.Role != RoleReader {
		m, err := openMemory(v.opts.Dir, string(v.opts.Role), v.codec.volume)
		if err != nil {
			return err
		}
		v.memory = m
	}
	if err := v.Refresh(); err != nil {
		return err
	}
	m := v.head.Load().member(v.name)
	v.index = m.Index
	if v.memory == nil {
		return nil
	}
	clean, err := v.memory.wasClean()
	if err != nil {
		return err
	}
	if !clean {
		v.notBefore = time.Now().Add(v.timings().IO)
	}
	return nil
}

// readFormat finds what volume it is. One of the two copies is enough.
func (v *Volume) readFormat(size int64) error {
	var worst error
	for _, at := range []int64{0, min(size, MaxSize)/BlockSize - 1} {
		if at < 0 {
			return ErrNotFormatted
		}
		buf := alignedBlocks(1)
		if err := v.headerLane.do(openLimit, func() error { return readBlocks(v.dev, buf, at) }); err != nil {
			return err
		}
		l, volume, err := v.codec.readFormatBlock(buf, at)
		if err == nil {
			v.codec.volume, v.layout = volume, l
			return nil
		}
		if worst == nil || errors.Is(err, errForeign) {
			worst = err
		}
	}
	if errors.Is(worst, errForeign) {
		return fmt.Errorf("%w: it belongs to another cluster", ErrNotFormatted)
	}
	return fmt.Errorf("%w: %w", ErrNotFormatted, worst)
}

func (c *codec) readFormatBlock(b []byte, at int64) (layout, UUID, error) {
	f, err := parseFrame(b)
	switch {
	case err != nil:
		return layout{}, UUID{}, err
	case f.kind != kindFormat || f.position != at:
		return layout{}, UUID{}, errMisplaced
	case [16]byte(b[8:24]) != c.cluster:
		return layout{}, UUID{}, errForeign
	}
	l, err := decodeLayout(f.payload)
	if err != nil {
		return layout{}, UUID{}, err
	}
	if at != 0 && at != l.lastFormat() {
		return layout{}, UUID{}, errMisplaced
	}
	return l, UUID(b[24:40]), nil
}

// Refresh reads the header again: members, timings, keys. It is called by itself when a block names an unknown key.
func (v *Volume) Refresh() error {
	best, err := v.newestHeader()
	if err != nil {
		return err
	}
	if now := v.head.Load(); now != nil && best.Generation < now.Generation {
		return fmt.Errorf("%w (the header's generation is %d, and was %d)", ErrFailed, best.Generation, now.Generation)
	}
	if v.memory != nil {
		if err := v.memory.seeGeneration(best.Generation); err != nil {
			return err
		}
	}
	if now := v.head.Load(); now != nil && now.Generation == best.Generation {
		return nil
	}
	ring, err := best.openKeys(v.name, v.opts.Authority)
	if err != nil {
		return err
	}
	v.codec.ring.Store(ring)
	v.head.Store(best)
	return nil
}

// headerLook is the interval at which those who use the volume all the time look whether the header has changed. Whoever meets a block
// under a new key learns it at once; this is how the first one does.
const headerLook = 15 * time.Second

// refreshIfNewer is Refresh if a member's header is newer than that in use, as the first block of each says. An error of the look itself
// is none: it was only a look.
func (v *Volume) refreshIfNewer() error {
	now := v.head.Load()
	buf := alignedBlocks(1)
	for _, m := range now.Members {
		for copyNo := range 2 {
			err := v.headerLane.do(now.Timings.IO, func() error { return readBlocks(v.dev, buf, v.layout.header(m.Index, copyNo)) })
			if err != nil {
				return nil
			}
			if f, err := parseFrame(buf); err == nil && f.kind == kindHeader && f.seq > now.Generation {
				return v.Refresh()
			}
		}
	}
	return nil
}

func (v *Volume) newestHeader() (*header, error) {
	all, err := v.readHeaders()
	if err != nil {
		return nil, err
	}
	best := all[0].header
	for _, h := range all[1:] {
		if h.Generation > best.Generation {
			best = h.header
		}
	}
	return best, nil
}

// A placedHeader is a header that can be believed, with the place where it lies.
type placedHeader struct {
	*header
	index, copyNo int
}

// readHeaders reads the headers of all nodes. There is at least one, or an error.
func (v *Volume) readHeaders() ([]placedHeader, error) {
	limit := openLimit
	if h := v.head.Load(); h != nil {
		limit = h.Timings.IO
	}
	var out []placedHeader
	var worst error
	for i := range v.layout.nodes {
		buf := alignedBlocks(2 * headerBlocks)
		err := v.headerLane.do(limit, func() error { return readBlocks(v.dev, buf, v.layout.header(i, 0)) })
		if err != nil {
			return nil, err
		}
		for copyNo := range 2 {
			part := buf[copyNo*headerBlocks*BlockSize : (copyNo+1)*headerBlocks*BlockSize]
			h, err := v.codec.decodeHeader(part, v.opts.Authority, v.layout, i, copyNo)
			switch {
			case err == nil:
				out = append(out, placedHeader{h, i, copyNo})
			case !errors.Is(err, errBlank):
				worst = &BlockError{v.layout.header(i, copyNo), "header of node " + strconv.Itoa(i), err}
			}
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case worst == nil:
		worst = errors.New("it has no header")
	}
	return nil, worst
}

func (v *Volume) timings() Timings { return v.head.Load().Timings }

// Timings are those of the header.
func (v *Volume) Timings() Timings { return v.timings() }

// UUID names this format of the volume.
func (v *Volume) UUID() UUID { return v.codec.volume }

// ServerID is the repository voter's server id in the replicated log. Another format of the volume is another voter.
func (v *Volume) ServerID() string { return "repository-" + v.codec.volume.String() }

// Members are the nodes of the header, by index.
func (v *Volume) Members() []Member { return append([]Member(nil), v.head.Load().Members...) }

// Close gives the lock up and closes the device. While an access hangs the lock stays until the process has ended.
func (v *Volume) Close() error {
	clean := true
	for _, l := range []*lane{v.ballotLane, v.hostLane, v.areaLane, v.beatLane, v.mailLane, v.headerLane} {
		clean = clean && !l.busy()
	}
	var err error
	if v.memory != nil && clean {
		err = v.memory.close(true)
	} else if v.memory != nil {
		err = v.memory.save() // the lock is kept: a write of ours may still happen
	}
	if clean && !v.frontLane.busy() {
		if e := v.dev.Close(); err == nil {
			err = e
		}
	}
	return err
}

// readFront reads the blocks of all nodes' ballots, and of the host heartbeats and heartbeats with full. It is one access.
func (v *Volume) readFront(full bool) (*frontRead, error) {
	n := 2 * v.layout.nodes
	if full {
		n = 4 * v.layout.nodes
	}
	floor := v.memory.now(v.layout.nodes)
	buf := alignedBlocks(n)
	if err := v.frontLane.do(v.timings().IO, func() error { return readBlocks(v.dev, buf, v.layout.ballot(0, 0)) }); err != nil {
		return nil, err
	}
	r := v.decodeFront(buf, n)
	if r.unknownKey { // it may be newer than the header this process has read
		if err := v.Refresh(); err != nil {
			return nil, err
		}
		r = v.decodeFront(buf, n)
	}
	r.floor = floor
	v.cached.Store(r)
	return r, nil
}

func (v *Volume) decodeFront(buf []byte, n int) *frontRead {
	r := &frontRead{raw: buf, ring: v.codec.ring.Load(), frames: make([]frame, n), errs: make([]error, n)}
	old := v.cached.Load()
	for i := range n {
		b := buf[i*BlockSize : (i+1)*BlockSize]
		if old != nil && old.ring == r.ring && i < len(old.frames) && bytes.Equal(b, old.raw[i*BlockSize:(i+1)*BlockSize]) {
			r.frames[i], r.errs[i] = old.frames[i], old.errs[i]
			continue
		}
		k, node := [...]kind{kindBallot, kindBallot, kindHostBeat, kindBeat}[i/v.layout.nodes], i%v.layout.nodes
		r.frames[i], r.errs[i] = v.codec.decode(b, k, uint16(node), v.layout.ballot(0, 0)+int64(i))
		r.unknownKey = r.unknownKey || errors.Is(r.errs[i], errKey)
	}
	return r
}

// ballotsOf puts the two copies of each node's ballot together.
func (v *Volume) ballotsOf(r *frontRead) ([]ballot, error) {
	out := make([]ballot, v.layout.nodes)
	for i := range out {
		var found [2]ballot
		var bad [2]error
		for c := range 2 {
			if bad[c] = r.errs[c*v.layout.nodes+i]; bad[c] == nil {
				found[c], bad[c] = decodeBallot(r.frames[c*v.layout.nodes+i], i)
			}
		}
		switch {
		case bad[0] != nil && bad[1] != nil && v.nameOf(i) == "":
			continue // nobody's: no member of the newest header has this place
		case bad[0] != nil && bad[1] != nil:
			return nil, &BlockError{v.layout.ballot(i, 0), fmt.Sprintf("ballot of node %d, and its copy", i), bad[0]}
		case bad[0] != nil:
			out[i] = found[1]
		case bad[1] != nil || found[0].seq > found[1].seq:
			out[i] = found[0]
		case found[0].seq == found[1].seq && found[0] != found[1]:
			return nil, &BlockError{v.layout.ballot(i, 0), fmt.Sprintf("ballot of node %d", i),
				errors.New("its two copies contradict each other: two processes write as one node")}
		default:
			out[i] = found[1]
		}
		b := out[i]
		if err := v.memory.see(i, mark{Ballot: b.seq, Mbal: b.mbal, Pub: b.pub}, r.floor[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readBallots reads all ballots, in one access that begins after the call.
func (v *Volume) readBallots() ([]ballot, error) {
	r, err := v.readFront(false)
	if err != nil {
		return nil, err
	}
	return v.ballotsOf(r)
}

// writeBallot writes both copies of this node's ballot, one after the other.
func (v *Volume) writeBallot(b ballot) error {
	for copyNo := range 2 {
		at := v.layout.ballot(v.index, copyNo)
		buf := alignedBlocks(1)
		v.codec.encode(buf, frame{kind: kindBallot, writer: uint16(v.index), position: at, seq: b.seq, payload: b.encode()}, false)
		if err := v.ballotLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, at) }); err != nil {
			return err
		}
	}
	return nil
}
