package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A guard watches every call of the stores. A server whose disk hangs must not lead, and raft does not see it: heartbeats go
// on in other goroutines while the main loop sits in the call. So a call that is late, and any call that fails, ends the
// process (attack B6). Raft is never told of a failure, which it would answer by leading again: the call does not return.
type guard struct {
	limit time.Duration
	exit  func(reason string)
	what  string // how the operator knows the store: its directory

	running  atomic.Bool   // before, while the stores are opened, failures are returned to the opener
	released chan struct{} // closed when the node is closed: calls that failed return after all

	once    sync.Once
	failed  atomic.Bool
	calls   atomic.Uint64
	slowest atomic.Int64 // nanoseconds
}

func newGuard(cfg Config) *guard {
	return &guard{limit: cfg.StoreTimeout, exit: cfg.Exit, what: cfg.place(), released: make(chan struct{})}
}

// fail ends the process, once, by a goroutine of its own: the caller may sit on a lock that Exit's logging needs.
func (g *guard) fail(reason string) {
	g.failed.Store(true)
	g.once.Do(func() { go g.exit(reason) })
}

// stop is fail for a goroutine of raft's that must not go on: it returns when the node is closed.
func (g *guard) stop(reason string) {
	g.fail(reason)
	if g.running.Load() {
		<-g.released
	}
}

// do runs one call. benign says which errors are answers and not failures.
func (g *guard) do(call string, benign func(error) bool, f func() error) (err error) {
	start := time.Now()
	late := time.AfterFunc(g.limit, func() {
		g.fail(fmt.Sprintf("the store in %s hangs: %q has not returned for %v; a server that cannot write must neither lead nor follow, "+
			"so the process ends. Check the disk", g.what, call, g.limit))
	})
	err = unpanicked(f)
	late.Stop()
	g.observe(time.Since(start))
	switch {
	case !g.running.Load():
	case err != nil && !benign(err):
		g.stop(fmt.Sprintf("the store in %s failed: %s: %v. Check the disk: is it full, read-only or damaged?", g.what, call, err))
	case g.failed.Load():
		<-g.released
	}
	return err
}

func (g *guard) observe(d time.Duration) {
	g.calls.Add(1)
	for {
		old := g.slowest.Load()
		if int64(d) <= old || g.slowest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// unpanicked turns a panic of f, and a fault in a mapped file that was cut short, into an error.
func unpanicked(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	return f()
}

func never(error) bool { return false }

func isNotFound(err error) bool {
	return errors.Is(err, raft.ErrLogNotFound) || err.Error() == "not found"
}

// logStore is the guarded log.
type logStore struct {
	raft.LogStore
	guard *guard
	// onConfiguration is told of each configuration before it is stored.
	onConfiguration func(raft.Configuration)
}

func (s *logStore) FirstIndex() (i uint64, err error) {
	err = s.guard.do("read the first index", never, func() (err error) { i, err = s.LogStore.FirstIndex(); return err })
	return i, err
}

func (s *logStore) LastIndex() (i uint64, err error) {
	err = s.guard.do("read the last index", never, func() (err error) { i, err = s.LogStore.LastIndex(); return err })
	return i, err
}

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	return s.guard.do("read a log entry", isNotFound, func() error { return s.LogStore.GetLog(index, l) })
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			s.onConfiguration(raft.DecodeConfiguration(l.Data))
		}
	}
	return s.guard.do("write log entries", never, func() error { return s.LogStore.StoreLogs(logs) })
}

func (s *logStore) DeleteRange(from, to uint64) error {
	return s.guard.do("delete log entries", never, func() error { return s.LogStore.DeleteRange(from, to) })
}

// Raft's keys, and ours for the vote.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
	keyVote         = "Vote"
)

// stableStore is the guarded store of term and vote. It keeps both in memory, notes every term before it writes it, refuses
// to write a lower term than it ever saw, and gives each record a checksum.
//
// Raft writes a vote as two records, term and candidate, one after the other; the disk gets them as one, when the second
// comes. A crash in between leaves the vote unwritten and unanswered.
type stableStore struct {
	raft.StableStore
	guard *guard
	note  func(term uint64)

	mu        sync.Mutex
	term      uint64 // as on the disk
	voteTerm  uint64
	candidate []byte
}

// openStable reads the records.
func openStable(inner raft.StableStore, g *guard, note func(uint64)) (*stableStore, error) {
	s := &stableStore{StableStore: inner, guard: g, note: note}
	term, err := s.read(keyCurrentTerm)
	if err != nil {
		return nil, err
	}
	vote, err := s.read(keyVote)
	if err != nil {
		return nil, err
	}
	if len(term) >= 8 {
		s.term = binary.BigEndian.Uint64(term)
	}
	if len(vote) >= 8 {
		s.voteTerm, s.candidate = binary.BigEndian.Uint64(vote), vote[8:]
	}
	note(max(s.term, s.voteTerm))
	if s.voteTerm > s.term {
		// A vote is in a term that this server has reached, whatever was written last.
		return s, s.SetUint64([]byte(keyCurrentTerm), s.voteTerm)
	}
	return s, nil
}

// read returns a record's value, nil if there is none.
func (s *stableStore) read(key string) (value []byte, err error) {
	var b []byte
	err = s.guard.do("read the record "+key, isNotFound, func() (err error) { b, err = s.StableStore.Get([]byte(key)); return err })
	switch {
	case err != nil && isNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the record %s: %w", key, err)
	}
	if value, err = unseal(key, b); err != nil {
		return nil, err
	}
	return value, nil
}

func (s *stableStore) write(key string, value []byte) error {
	err := s.guard.do("write the record "+key, never, func() error { return s.StableStore.Set([]byte(key), seal(key, value)) })
	if err != nil && s.guard.running.Load() {
		// Only a node that is being closed gets here. Raft would panic at the error, and go on voting without it.
		runtime.Goexit()
	}
	return err
}

// seal appends a checksum over key and value.
func seal(key string, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(append([]byte(nil), value...), sum)
}

func unseal(key string, b []byte) ([]byte, error) {
	if len(b) < 4 || !equal(b, seal(key, b[:len(b)-4])) {
		return nil, fmt.Errorf("the record %s does not match its checksum", key)
	}
	return b[:len(b)-4], nil
}

func equal(a, b []byte) bool { return string(a) == string(b) }

func (s *stableStore) SetUint64(key []byte, value uint64) error {
	s.note(value) // before the disk: a confirmation that is answered meanwhile must already see it
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyLastVoteTerm:
		s.voteTerm = value
		return nil
	case keyCurrentTerm:
		return s.setTerm(value)
	}
	return fmt.Errorf("write the record %s: raft v1.8.0 has no such record", key)
}

func (s *stableStore) setTerm(value uint64) error {
	low := max(s.term, s.voteTerm)
	switch {
	case value == s.term:
		return nil
	case value < low:
		// Raft's handler of heartbeats and its main loop both set the term. Had the older one the last word, this server
		// could acknowledge entries of a leader whose term it voted out. One restart is the cheaper end.
		err := fmt.Errorf("refuse to go back from term %d to term %d", low, value)
		s.guard.stop("consensus: " + err.Error())
		return err
	}
	if err := s.write(keyCurrentTerm, binary.BigEndian.AppendUint64(nil, value)); err != nil {
		return err
	}
	s.term = value
	return nil
}

func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyLastVoteTerm:
		return s.voteTerm, nil
	case keyCurrentTerm:
		return s.term, nil
	}
	return 0, fmt.Errorf("read the record %s: raft v1.8.0 has no such record", key)
}

func (s *stableStore) Set(key, value []byte) error {
	if string(key) != keyLastVoteCand {
		return fmt.Errorf("write the record %s: raft v1.8.0 has no such record", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(keyVote, append(binary.BigEndian.AppendUint64(nil, s.voteTerm), value...)); err != nil {
		return err
	}
	s.candidate = append([]byte(nil), value...)
	return nil
}

func (s *stableStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyLastVoteCand {
		return nil, fmt.Errorf("read the record %s: raft v1.8.0 has no such record", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.candidate, nil
}

// snapshotStore is the guarded store of snapshots.
type snapshotStore struct {
	raft.SnapshotStore
	guard           *guard
	onConfiguration func(index uint64, c raft.Configuration)
}

func newSnapshotStore(inner raft.SnapshotStore, g *guard, onConfiguration func(raft.Configuration)) *snapshotStore {
	var newest uint64 // configuration known from a snapshot; Create is called by one goroutine at a time
	return &snapshotStore{SnapshotStore: inner, guard: g, onConfiguration: func(index uint64, c raft.Configuration) {
		if index > newest {
			newest = index
			onConfiguration(c)
		}
	}}
}

func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64,
	trans raft.Transport) (sink raft.SnapshotSink, err error) {
	s.onConfiguration(cIndex, c)
	err = s.guard.do("create a snapshot", never, func() (err error) {
		sink, err = s.SnapshotStore.Create(version, index, term, c, cIndex, trans)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &snapshotSink{SnapshotSink: sink, guard: s.guard}, nil
}

func (s *snapshotStore) List() (list []*raft.SnapshotMeta, err error) {
	err = s.guard.do("list the snapshots", never, func() (err error) { list, err = s.SnapshotStore.List(); return err })
	return list, err
}

// Open does not end the process on an error: a damaged snapshot may have an older one behind it.
func (s *snapshotStore) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	err = s.guard.do("open a snapshot", func(error) bool { return true }, func() (err error) {
		meta, r, err = s.SnapshotStore.Open(id)
		return err
	})
	return meta, r, err
}

type snapshotSink struct {
	raft.SnapshotSink
	guard *guard
	size  int64
}

func (s *snapshotSink) Write(b []byte) (n int, err error) {
	if s.size += int64(len(b)); s.size > MaxSnapshot {
		return 0, fmt.Errorf("write the snapshot: it is larger than %d bytes", MaxSnapshot)
	}
	err = s.guard.do("write a snapshot", never, func() (err error) { n, err = s.SnapshotSink.Write(b); return err })
	return n, err
}

func (s *snapshotSink) Close() error {
	return s.guard.do("finish a snapshot", never, s.SnapshotSink.Close)
}

func (s *snapshotSink) Cancel() error {
	return s.guard.do("cancel a snapshot", func(error) bool { return true }, s.SnapshotSink.Cancel)
}
