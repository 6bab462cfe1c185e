package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrLocked says that another process of this machine writes this node's blocks, or that one which was killed has not ended yet
// because the disk has not answered it.
var ErrLocked = errors.New("another process of this machine uses the repository volume in this role")

// ErrFailed says that the volume shows less than this node has seen on it: it was restored from an older copy, exchanged, or it
// loses writes. Nothing on it can be believed; it must be replaced.
var ErrFailed = errors.New("the repository volume has failed: it shows an older state than this node has seen on it; replace it")

// A mark is the highest that was seen of one writer.
type mark struct {
	Beat   uint64 `json:"beat"`   // sequence of its heartbeat
	Mail   uint64 `json:"mail"`   // highest sequence of its mail to this node
	Ballot uint64 `json:"ballot"` // sequence of its ballot block
	Mbal   uint64 `json:"mbal"`
	Pub    uint64 `json:"pub"`
	Host   uint64 `json:"host"` // sequence of its host heartbeat
	// Term, of the replicated log, and Tail, blocks of acknowledged records under the ballot TailOf, are what its host heartbeat said.
	Term   uint64 `json:"term"`
	TailOf uint64 `json:"tail_of"`
	Tail   uint32 `json:"tail"`
}

// marks are what a node remembers of a volume, on its own disk.
type marks struct {
	Format     int          `json:"format"`
	Volume     string       `json:"volume"`
	Generation uint64       `json:"generation"` // of the header
	Clean      bool         `json:"clean"`      // the last process ended with no access outstanding
	Writers    map[int]mark `json:"writers"`    // by the index of the slot
}

// A memory holds the marks, and the lock that keeps a second writer of this node away. It is safe for concurrent use.
type memory struct {
	lock *os.File
	path string

	mu      sync.Mutex
	m       marks
	changed bool
	saved   time.Time
	saving  bool

	writing sync.Mutex // one writer of the file at a time
}

const maxMemory = 64 << 10

// openMemory takes the role's lock for the volume and reads what was remembered of it. Each volume has files of its own: while one is
// being replaced a node uses two, and a volume that was formatted anew begins anew.
func openMemory(dir, role string, volume UUID) (*memory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the volume's marks: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "volume-"+role+"-"+volume.String()+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the volume: %w", err)
	}
	if err := machineLock(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("take the lock of the volume: %w", err)
	}
	y := &memory{lock: lock, path: filepath.Join(dir, "volume-"+role+"-"+volume.String()+".json")}
	if err := y.load(volume); err != nil {
		lock.Close()
		return nil, err
	}
	return y, nil
}

func (y *memory) load(volume UUID) error {
	fresh := marks{Format: 1, Volume: volume.String(), Clean: true, Writers: map[int]mark{}}
	f, err := os.Open(y.path)
	if errors.Is(err, os.ErrNotExist) {
		y.m = fresh
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the marks of the volume: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return fmt.Errorf("read the marks of the volume: %w", err)
	}
	var m marks
	if err := strictJSON(text, &m); err != nil || m.Format != 1 || m.Writers == nil {
		return fmt.Errorf("the marks of the volume in %s are damaged (%v): what this node saw of the volume is not known. If the "+
			"volume was not restored from a copy, remove the file", y.path, err)
	}
	if m.Volume != fresh.Volume {
		fresh.Clean = m.Clean
		m = fresh
	}
	y.m = m
	return nil
}

// now gives all marks: taken before a read, they are what the read must not fall behind. What is seen meanwhile by others may be newer.
func (y *memory) now(nodes int) []mark {
	out := make([]mark, nodes)
	if y == nil {
		return out
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for i := range out {
		out[i] = y.m.Writers[i]
	}
	return out
}

// see remembers what was seen of a writer, and fails if it is less than the floor: the marks from before the read. A zero is not
// compared. It does not write to the disk: save does.
func (y *memory) see(writer int, seen, floor mark) error {
	if y == nil {
		return nil
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	old := y.m.Writers[writer]
	next := old
	var err error
	grow := func(what string, remembered *uint64, v, least uint64) {
		if v != 0 && v < least && err == nil {
			err = fmt.Errorf("%w (%s of node %d is %d, and was %d)", ErrFailed, what, writer, v, least)
		}
		*remembered = max(*remembered, v)
	}
	grow("the heartbeat's sequence", &next.Beat, seen.Beat, floor.Beat)
	grow("the mail's sequence", &next.Mail, seen.Mail, floor.Mail)
	grow("the ballot's sequence", &next.Ballot, seen.Ballot, floor.Ballot)
	grow("the ballot", &next.Mbal, seen.Mbal, floor.Mbal)
	grow("the published ballot", &next.Pub, seen.Pub, floor.Pub)
	grow("the host heartbeat's sequence", &next.Host, seen.Host, floor.Host)
	if next != old {
		y.m.Writers[writer] = next
		y.changed = true
	}
	return err
}

func (y *memory) of(writer int) mark {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.m.Writers[writer]
}

// seeGeneration does the same for the header.
func (y *memory) seeGeneration(g uint64) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if g < y.m.Generation {
		return fmt.Errorf("%w (the header's generation is %d, and was %d)", ErrFailed, g, y.m.Generation)
	}
	if g > y.m.Generation {
		y.m.Generation, y.changed = g, true
	}
	return nil
}

// wasClean reports whether the process before ended in order, and says from now on that this one did not.
func (y *memory) wasClean() (bool, error) {
	y.mu.Lock()
	clean := y.m.Clean
	y.m.Clean, y.changed = false, true
	y.mu.Unlock()
	return clean, y.save()
}

// noteTail remembers what a host heartbeat says of the records.
func (y *memory) noteTail(index int, h hostBeat) {
	y.mu.Lock()
	defer y.mu.Unlock()
	old := y.m.Writers[index]
	next := old
	next.Term = max(next.Term, h.term)
	switch {
	case h.ballot > next.TailOf:
		next.TailOf, next.Tail = h.ballot, h.tail
	case h.ballot == next.TailOf:
		next.Tail = max(next.Tail, h.tail)
	}
	if next != old {
		y.m.Writers[index] = next
		y.changed = true
	}
}

// tailOf is how many blocks of the ballot's records were seen acknowledged.
func (y *memory) tailOf(ballot uint64) uint32 {
	y.mu.Lock()
	defer y.mu.Unlock()
	var tail uint32
	for _, m := range y.m.Writers {
		if m.TailOf == ballot {
			tail = max(tail, m.Tail)
		}
	}
	return tail
}

// term is the highest that was seen.
func (y *memory) term() uint64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	var term uint64
	for _, m := range y.m.Writers {
		term = max(term, m.Term)
	}
	return term
}

// saveEvery is how old what is on the local disk may be, of what has no save of its own.
const saveEvery = time.Second

// saveSoon saves beside the caller, at most once per saveEvery: a local disk that hangs delays nobody.
func (y *memory) saveSoon() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if !y.changed || y.saving || time.Since(y.saved) < saveEvery {
		return
	}
	y.saving, y.saved = true, time.Now()
	go func() {
		err := y.save() // tried again the next time
		y.mu.Lock()
		defer y.mu.Unlock()
		y.saving = false
		y.changed = y.changed || err != nil
	}()
}

// save writes the marks durably, if they have changed.
func (y *memory) save() error {
	y.writing.Lock()
	defer y.writing.Unlock()
	y.mu.Lock()
	changed := y.changed
	text, err := json.Marshal(y.m)
	y.changed = false
	y.mu.Unlock()
	if !changed {
		return nil
	}
	if err == nil {
		err = replaceFile(y.path, append(text, '\n'))
	}
	if err != nil {
		y.mu.Lock()
		y.changed = true
		y.mu.Unlock()
		return fmt.Errorf("write the marks of the volume: %w", err)
	}
	return nil
}

// close gives the lock up. clean says that no access of this process is outstanding.
func (y *memory) close(clean bool) error {
	y.mu.Lock()
	y.m.Clean, y.changed = clean, true
	y.mu.Unlock()
	err := y.save()
	y.lock.Close()
	return err
}

// replaceFile writes a file so that after a crash the old or the new one is there, whole.
func replaceFile(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
