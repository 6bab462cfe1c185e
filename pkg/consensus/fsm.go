package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Each command begins with one byte that says what it is.
const (
	kindCommand byte = 1 // the rest is for the FSM
	kindOpening byte = 2 // a leader's first entry of its term; the FSM does not see it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// command wraps data for the log. The checksum travels with the entry, through every store, to every Apply: a bit that rots
// on one disk must stop that server, not let its state drift away from the others'.
func command(kind byte, data []byte) raft.Log {
	b := make([]byte, 0, 1+len(data))
	b = append(append(b, kind), data...)
	return raft.Log{Data: b, Extensions: checksum(b)}
}

func checksum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli))
}

// checkCommand reports whether a command's entry is whole.
func checkCommand(l *raft.Log) error {
	switch {
	case len(l.Data) == 0:
		return fmt.Errorf("log entry %d of term %d is empty", l.Index, l.Term)
	case !bytes.Equal(l.Extensions, checksum(l.Data)):
		return fmt.Errorf("log entry %d of term %d does not match its checksum", l.Index, l.Term)
	}
	return nil
}

// applied is what one Apply gave, with the place of its entry.
type applied struct {
	index, term uint64
	value       any
}

// machine stands between raft and the FSM.
type machine struct {
	fsm  FSM
	fail func(reason string)
	// onApply is told of every command after it was applied, on raft's goroutine.
	onApply func(index, term uint64)

	index atomic.Uint64 // of the last command applied: the same number on every server at the same place of the log
	term  uint64        // of that command; only raft's goroutine reads and writes it
}

var _ raft.FSM = (*machine)(nil)

func (m *machine) Apply(l *raft.Log) any {
	if err := checkCommand(l); err != nil {
		m.fail(fmt.Sprintf("cannot apply the log: %v; %s", err, howToReplace))
		return applied{index: l.Index, term: l.Term, value: err}
	}
	out := applied{index: l.Index, term: l.Term}
	switch kind := l.Data[0]; kind {
	case kindCommand:
		out.value = m.fsm.Apply(l.Index, l.Term, l.Data[1:])
	case kindOpening:
	default:
		// Written by a newer version: guessing what it means would let the states diverge.
		m.fail(fmt.Sprintf("log entry %d is of kind %d, which this version does not know: install the cluster's version", l.Index, kind))
		return out
	}
	m.term = l.Term
	m.index.Store(l.Index)
	if m.onApply != nil {
		m.onApply(l.Index, l.Term)
	}
	return out
}

const snapshotMagic = "HFSNAP1\n"

type snapshot struct {
	index, term uint64
	data        []byte
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	data, err := m.fsm.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	if len(data) > MaxSnapshot-32 {
		return nil, fmt.Errorf("encode the state: %d bytes are more than the limit of %d", len(data), MaxSnapshot)
	}
	return &snapshot{index: m.index.Load(), term: m.term, data: data}, nil
}

// Persist writes the state and the place of its last command: raft's own index of a snapshot counts entries that no FSM sees.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	head := []byte(snapshotMagic)
	head = binary.BigEndian.AppendUint64(head, s.index)
	head = binary.BigEndian.AppendUint64(head, s.term)
	for _, part := range [][]byte{head, s.data} {
		if _, err := sink.Write(part); err != nil {
			_ = sink.Cancel() // the write's error is the one to tell
			return fmt.Errorf("write the snapshot: %w", err)
		}
	}
	return sink.Close()
}

func (s *snapshot) Release() {}

func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, MaxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	const head = len(snapshotMagic) + 16
	switch {
	case len(b) > MaxSnapshot:
		return fmt.Errorf("read the snapshot: it is larger than %d bytes", MaxSnapshot)
	case len(b) < head || string(b[:len(snapshotMagic)]) != snapshotMagic:
		return fmt.Errorf("read the snapshot: it does not begin as this version writes it")
	}
	if err := m.fsm.Restore(b[head:]); err != nil {
		return fmt.Errorf("restore the state: %w", err)
	}
	m.term = binary.BigEndian.Uint64(b[len(snapshotMagic)+8:])
	m.index.Store(binary.BigEndian.Uint64(b[len(snapshotMagic):]))
	return nil
}
