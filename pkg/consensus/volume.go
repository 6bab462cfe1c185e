package consensus

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// What a record says: its first byte.
const (
	recIdentity byte = 1 // JSON of volumeIdentity; the first record of an area
	recEntry    byte = 2 // one log entry
	recDelete   byte = 3 // entries from, to are gone
	recValue    byte = 4 // a key of the stable store
	recSnapHead byte = 5 // JSON of raft.SnapshotMeta; chunks follow
	recSnapData byte = 6
	recSnapEnd  byte = 7 // checksum of the data: only now the snapshot exists
)

const (
	volumeFormat  = 1
	snapshotChunk = 256 << 10
	// compactAfter is how many bytes of records that count no longer make the area be written anew.
	compactAfter = 2 << 20
	// roomReserve stays free in the area, for what records cost besides their bytes.
	roomReserve = 64 << 10
)

type volumeIdentity struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
	ServerID  string `json:"server_id"`
}

// records is the repository voter's log, stable values and newest snapshot, in memory, as the records of the volume say. What is
// in memory is always what a replay of the records gives: each change is appended first and then replayed.
type records struct {
	store VoterStore
	// tight is told when the entries behind the snapshot take much of the area: a snapshot would make room.
	tight chan struct{}

	write chan struct{} // full while an append or a compaction is under way; no mutex, because it is held across I/O

	mu       sync.Mutex
	identity []byte
	values   map[string][]byte
	entries  map[uint64]*raft.Log
	first    uint64 // 0: no entries
	last     uint64
	snap     *volumeSnapshot
	partial  *volumeSnapshot
	total    int // bytes of all records
	live     int // of those that still count
}

type volumeSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

var (
	_ raft.LogStore      = (*records)(nil)
	_ raft.StableStore   = (*records)(nil)
	_ raft.SnapshotStore = (*records)(nil)
)

// openVolume reads the records of the claimed volume, after the checks that openDisk makes of a directory.
func openVolume(cfg Config, store VoterStore, g *guard, t *terms) (*disk, error) {
	all, err := store.Records()
	if err != nil {
		return nil, fmt.Errorf("read the repository volume: %w", err)
	}
	r := newRecords(store)
	for i, b := range all {
		if err := r.replay(b); err != nil {
			return nil, fmt.Errorf("the repository volume is damaged: record %d of %d: %w; replace it (clmgr replace repository)", i+1, len(all), err)
		}
	}
	if err := r.checkWhole(); err != nil {
		return nil, fmt.Errorf("the repository volume is damaged: %w; replace it (clmgr replace repository)", err)
	}
	if err := r.checkIdentity(cfg); err != nil {
		return nil, err
	}
	if !r.roomFor(nil) {
		if _, err := r.makeRoom(nil); err != nil {
			return nil, err
		}
	}
	d := &disk{volume: store, tight: r.tight}
	note := t.note
	if s, ok := store.(interface{ NoteTerm(uint64) }); ok {
		note = func(term uint64) { t.note(term); s.NoteTerm(term) }
	}
	if d.stable, err = openStable(r, g, note); err != nil {
		return nil, fmt.Errorf("the repository volume is damaged: %w; replace it (clmgr replace repository)", err)
	}
	voter := t.onConfiguration(cfg.ID)
	d.logs = &logStore{LogStore: r, guard: g, onConfiguration: voter}
	d.snapshots = newSnapshotStore(r, g, voter)
	return d, nil
}

func newRecords(store VoterStore) *records {
	return &records{store: store, write: make(chan struct{}, 1), tight: make(chan struct{}, 1), values: map[string][]byte{}, entries: map[uint64]*raft.Log{}}
}

// checkIdentity makes the identity record of a volume that was never used, and compares that of another.
func (r *records) checkIdentity(cfg Config) error {
	want := volumeIdentity{volumeFormat, cfg.ClusterID, cfg.ID}
	if r.identity == nil {
		if r.total > 0 {
			return errors.New("the repository volume holds records but does not say of which cluster; replace it (clmgr replace repository)")
		}
		b, err := json.Marshal(want)
		if err != nil {
			return err
		}
		return r.append(append([]byte{recIdentity}, b...))
	}
	var have volumeIdentity
	if err := json.Unmarshal(r.identity, &have); err != nil {
		return fmt.Errorf("the identity on the repository volume cannot be read: %w", err)
	}
	if have != want {
		return fmt.Errorf("the repository volume holds the log of server %s of cluster %s (format %d), this is server %s of cluster %s (format %d)",
			have.ServerID, have.ClusterID, have.Format, want.ServerID, want.ClusterID, want.Format)
	}
	return nil
}

// checkWhole makes sure that no entry behind the snapshot is missing or damaged.
func (r *records) checkWhole() error {
	var behind uint64
	if r.snap != nil {
		behind = r.snap.meta.Index
	}
	for i := behind + 1; i <= r.last; i++ {
		l, ok := r.entries[i]
		if !ok {
			return fmt.Errorf("entry %d is missing (the snapshot ends at %d)", i, behind)
		}
		switch {
		case l.Type == raft.LogConfiguration:
			if err := unpanicked(func() error { raft.DecodeConfiguration(l.Data); return nil }); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		case l.Type == raft.LogCommand:
			if err := checkCommand(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// ErrNoRoom says that what the repository voter must keep does not fit on its volume.
var ErrNoRoom = errors.New("the repository volume has no room for what its voter must keep; put a larger one in its place (clmgr add repository, " +
	"clmgr format repository, clmgr replace repository)")

// append writes the records and replays them. When too much of the area counts no longer, it is written anew first.
func (r *records) append(recs ...[]byte) error {
	r.write <- struct{}{}
	defer func() { <-r.write }()
	if !r.roomFor(recs) {
		if written, err := r.makeRoom(recs); err != nil || written {
			return err
		}
	}
	if err := r.store.Append(recs...); err != nil {
		return err
	}
	if err := r.replayAll(recs); err != nil {
		return err
	}
	r.noteTight()
	return nil
}

// makeRoom writes the area anew so that the records fit behind what counts. What goes, in this order: what counts no longer; entries that
// the snapshot covers, which are kept only to spare a follower the snapshot; and the snapshot before, when the records are a newer one:
// then they are written with the rest, and written is true. In each case the area is published as a whole, so that the next host finds
// the state before or the state after, and never neither.
func (r *records) makeRoom(recs [][]byte) (written bool, err error) {
	r.mu.Lock()
	all := r.dump(r.snap, 0)
	bare := r.dump(r.snap, r.covered(r.snap))
	var next *volumeSnapshot
	if len(recs) > 0 && recs[0][0] == recSnapHead {
		next, err = readSnapshot(recs)
	}
	var anew [][]byte
	if next != nil {
		anew = r.dump(next, r.covered(next))
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		return false, err
	case r.fits(all, recs):
		return false, r.rewrite(all)
	case r.fits(bare, recs):
		return false, r.rewrite(bare)
	case next != nil && r.fits(anew, nil):
		return true, r.rewrite(anew)
	}
	least := bare
	if next != nil {
		least, recs = anew, nil
	}
	_, area := r.room()
	return false, fmt.Errorf("%w: %d bytes are needed, and there are %d", ErrNoRoom, footprint(least)+footprint(recs)+roomReserve, area)
}

// covered is the last entry that the snapshot makes dispensable.
func (r *records) covered(s *volumeSnapshot) uint64 {
	if s == nil {
		return 0
	}
	return s.meta.Index
}

// room is what the area can take, and its size; without a limit both are as large as can be.
func (r *records) room() (free, size int64) {
	if s, ok := r.store.(interface{ Room() (free, size int64) }); ok {
		return s.Room()
	}
	return math.MaxInt64, math.MaxInt64
}

// footprint is how many bytes of an area the records take, with the length before each.
func footprint(recs [][]byte) int64 { return int64(size(recs) + 4*len(recs)) }

// fits reports whether an empty area can take the records, and then the others, and go on for a while.
func (r *records) fits(recs, then [][]byte) bool {
	_, area := r.room()
	return footprint(recs)+footprint(then)+roomReserve <= area
}

// noteTight asks for a snapshot when the entries that none covers take a quarter of the area.
func (r *records) noteTight() {
	_, area := r.room()
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(r.live) < area/4 {
		return
	}
	var behind int64
	for i := max(r.first, r.covered(r.snap)+1); r.first > 0 && i <= r.last; i++ {
		if l, ok := r.entries[i]; ok {
			behind += int64(entrySize(l))
		}
	}
	if behind > area/4 {
		select {
		case r.tight <- struct{}{}:
		default:
		}
	}
}

// roomFor reports whether the records go into the area without writing it anew. Each append may use up whole blocks.
func (r *records) roomFor(recs [][]byte) bool {
	if free, _ := r.room(); free < footprint(recs)+roomReserve {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total-r.live < compactAfter
}

// rewrite writes the records into the other area, and takes what they say for what is. The caller has the write channel.
func (r *records) rewrite(recs [][]byte) error {
	fresh := newRecords(nil)
	if err := fresh.replayAll(recs); err != nil {
		return err
	}
	if err := r.store.Compact(recs); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.identity, r.values, r.entries, r.first, r.last, r.snap, r.partial = fresh.identity, fresh.values, fresh.entries, fresh.first, fresh.last, fresh.snap, nil
	r.total, r.live = fresh.total, fresh.live
	return nil
}

func size(recs [][]byte) int {
	n := 0
	for _, b := range recs {
		n += len(b)
	}
	return n
}

// dump is the records that give the present state with this snapshot, without the entries up to after. The caller holds the lock.
func (r *records) dump(snap *volumeSnapshot, after uint64) [][]byte {
	var out [][]byte
	if r.identity != nil {
		out = append(out, append([]byte{recIdentity}, r.identity...))
	}
	keys := make([]string, 0, len(r.values))
	for k := range r.values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		out = append(out, valueRecord(k, r.values[k]))
	}
	if snap != nil {
		out = append(out, snap.records()...)
	}
	if r.first > 0 {
		for i := max(r.first, after+1); i <= r.last; i++ {
			if l, ok := r.entries[i]; ok {
				out = append(out, entryRecord(l))
			}
		}
	}
	return out
}

func (r *records) replayAll(recs [][]byte) error {
	for _, b := range recs {
		if err := r.replay(b); err != nil {
			return err
		}
	}
	return nil
}

// replay makes one record count.
func (r *records) replay(b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(b) == 0 {
		return errors.New("it is empty")
	}
	r.total += len(b)
	body := b[1:]
	switch b[0] {
	case recIdentity:
		if r.identity != nil {
			return errors.New("a second identity")
		}
		r.identity = body
		r.live += len(b)
	case recEntry:
		l, err := decodeEntry(body)
		if err != nil {
			return err
		}
		r.put(l, len(b))
	case recDelete:
		if len(body) != 16 {
			return fmt.Errorf("a deletion of %d bytes", len(body))
		}
		r.cut(binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:]))
	case recValue:
		return r.setValue(body)
	case recSnapHead, recSnapData, recSnapEnd:
		return r.replaySnapshot(b[0], body)
	default:
		return fmt.Errorf("kind %d, which this version does not know: install the cluster's version", b[0])
	}
	return nil
}

func (r *records) setValue(body []byte) error {
	if len(body) < 1 || len(body) < 1+int(body[0]) {
		return errors.New("a value that is cut short")
	}
	size := 1 + int(body[0])
	key, value := string(body[1:size]), body[size:]
	if old, ok := r.values[key]; ok {
		r.live -= 2 + len(key) + len(old)
	}
	r.live += 2 + len(key) + len(value)
	r.values[key] = value
	return nil
}

func (r *records) put(l *raft.Log, bytes int) {
	if old, ok := r.entries[l.Index]; ok {
		r.live -= entrySize(old)
	}
	r.entries[l.Index] = l
	r.live += bytes
	if r.first == 0 || l.Index < r.first {
		r.first = l.Index
	}
	r.last = max(r.last, l.Index)
}

func (r *records) cut(from, to uint64) {
	for i := max(from, r.first); i <= min(to, r.last); i++ {
		if l, ok := r.entries[i]; ok {
			r.live -= entrySize(l)
			delete(r.entries, i)
		}
	}
	switch {
	case len(r.entries) == 0:
		r.first, r.last = 0, 0
	default:
		for r.entries[r.first] == nil {
			r.first++
		}
		for r.entries[r.last] == nil {
			r.last--
		}
	}
}

func (r *records) replaySnapshot(kind byte, body []byte) error {
	switch kind {
	case recSnapHead:
		p := &volumeSnapshot{}
		if err := json.Unmarshal(body, &p.meta); err != nil {
			return fmt.Errorf("the head of a snapshot: %w", err)
		}
		r.partial = p
	case recSnapData:
		if r.partial == nil || len(r.partial.data)+len(body) > MaxSnapshot {
			return errors.New("data of a snapshot without its head, or too much of it")
		}
		r.partial.data = append(r.partial.data, body...)
	case recSnapEnd:
		p := r.partial
		r.partial = nil
		if p == nil || len(body) != 4 || binary.BigEndian.Uint32(body) != crc32.Checksum(p.data, castagnoli) || p.meta.Size != int64(len(p.data)) {
			return errors.New("the end of a snapshot does not match its data")
		}
		if r.snap != nil {
			r.live -= size(r.snap.records())
		}
		r.snap = p
		r.live += size(p.records())
	}
	return nil
}

// readSnapshot reads the records of one whole snapshot.
func readSnapshot(recs [][]byte) (*volumeSnapshot, error) {
	r := newRecords(nil)
	if err := r.replayAll(recs); err != nil {
		return nil, err
	}
	if r.snap == nil {
		return nil, errors.New("a snapshot without its end")
	}
	return r.snap, nil
}

func (s *volumeSnapshot) records() [][]byte {
	head, err := json.Marshal(s.meta)
	if err != nil {
		panic(fmt.Sprintf("consensus: encode the head of a snapshot: %v", err)) // plain data
	}
	out := [][]byte{append([]byte{recSnapHead}, head...)}
	for chunk := range slices.Chunk(s.data, snapshotChunk) {
		out = append(out, append([]byte{recSnapData}, chunk...))
	}
	return append(out, binary.BigEndian.AppendUint32([]byte{recSnapEnd}, crc32.Checksum(s.data, castagnoli)))
}

func valueRecord(key string, value []byte) []byte {
	return append(append([]byte{recValue, byte(len(key))}, key...), value...)
}

// An entry is index, term, type, time of its first append, length of the extensions, extensions, data.
const entryHead = 8 + 8 + 1 + 8 + 4

func entryRecord(l *raft.Log) []byte {
	b := make([]byte, 0, entrySize(l))
	b = append(b, recEntry)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	return append(b, l.Data...)
}

func entrySize(l *raft.Log) int { return 1 + entryHead + len(l.Extensions) + len(l.Data) }

func decodeEntry(b []byte) (*raft.Log, error) {
	if len(b) < entryHead {
		return nil, errors.New("an entry that is cut short")
	}
	l := &raft.Log{Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16])}
	if at := int64(binary.BigEndian.Uint64(b[17:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	ext := uint64(binary.BigEndian.Uint32(b[25:]))
	rest := b[entryHead:]
	if ext > uint64(len(rest)) || l.Index == 0 || l.Type > raft.LogConfiguration {
		return nil, errors.New("an entry that makes no sense")
	}
	l.Extensions, l.Data = bytes.Clone(rest[:ext]), bytes.Clone(rest[ext:])
	return l, nil
}

// The log.

// FirstIndex is the index of the first entry, 0 for none.
func (r *records) FirstIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first, nil
}

// LastIndex is the index of the last entry, 0 for none.
func (r *records) LastIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, nil
}

// GetLog copies an entry.
func (r *records) GetLog(index uint64, out *raft.Log) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*out = *l
	return nil
}

// StoreLog stores one entry.
func (r *records) StoreLog(l *raft.Log) error { return r.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores the entries in one append.
func (r *records) StoreLogs(logs []*raft.Log) error {
	recs := make([][]byte, 0, len(logs))
	for _, l := range logs {
		recs = append(recs, entryRecord(l))
	}
	return r.append(recs...)
}

// DeleteRange appends the deletion.
func (r *records) DeleteRange(from, to uint64) error {
	b := binary.BigEndian.AppendUint64([]byte{recDelete}, from)
	return r.append(binary.BigEndian.AppendUint64(b, to))
}

// The stable values.

// Set appends a value.
func (r *records) Set(key, value []byte) error {
	if len(key) > 255 {
		return fmt.Errorf("a key of %d bytes", len(key))
	}
	return r.append(valueRecord(string(key), value))
}

var errNotFound = errors.New("not found") // the text that raft looks for

// Get returns a value.
func (r *records) Get(key []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.values[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return bytes.Clone(v), nil
}

// SetUint64 and GetUint64 are not used: numbers are sealed by the store above.
func (r *records) SetUint64(key []byte, _ uint64) error {
	return fmt.Errorf("write the record %s: it would have no checksum", key)
}

// GetUint64 is not used either.
func (r *records) GetUint64(key []byte) (uint64, error) {
	return 0, fmt.Errorf("read the record %s: it would have no checksum", key)
}

// The snapshots: the newest is kept.

// Create begins a snapshot, which exists once its sink is closed.
func (r *records) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64,
	_ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("a snapshot of version %d; this version writes %d", version, raft.SnapshotVersionMax)
	}
	s := &volumeSink{of: r}
	s.snap.meta = raft.SnapshotMeta{Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano()), Index: index, Term: term,
		Configuration: c, ConfigurationIndex: cIndex}
	return s, nil
}

// List is the newest snapshot, if there is one.
func (r *records) List() ([]*raft.SnapshotMeta, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snap == nil {
		return nil, nil
	}
	meta := r.snap.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open reads the snapshot.
func (r *records) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snap == nil || r.snap.meta.ID != id {
		return nil, nil, fmt.Errorf("snapshot %s is not there any more", id)
	}
	meta := r.snap.meta
	return &meta, io.NopCloser(bytes.NewReader(r.snap.data)), nil
}

type volumeSink struct {
	of   *records
	snap volumeSnapshot
	done bool
}

func (s *volumeSink) ID() string { return s.snap.meta.ID }

func (s *volumeSink) Write(b []byte) (int, error) {
	s.snap.data = append(s.snap.data, b...)
	return len(b), nil
}

// Close makes the snapshot exist.
func (s *volumeSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	s.snap.meta.Size = int64(len(s.snap.data))
	return s.of.append(s.snap.records()...)
}

// Cancel drops what was written.
func (s *volumeSink) Cancel() error {
	s.done = true
	return nil
}
