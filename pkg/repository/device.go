package repository

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"
)

// A Device is the disk below a volume. Reads and writes are whole blocks at multiples of BlockSize, from buffers that begin at
// a multiple of BlockSize in memory. WriteAt returns nil only when the data is durable and visible to every other reader of the
// device. A call may hang; Volume bears that. It is used by several goroutines.
type Device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Close() error
}

// ErrHung says that the disk did not answer within the time for one access. What became of a write is not known; it may still
// happen at any later time.
var ErrHung = errors.New("the disk does not answer")

// alignedBlocks gives n blocks of zeros that direct I/O accepts.
func alignedBlocks(n int) []byte {
	b := make([]byte, (n+1)*BlockSize)
	if skip := int(uintptr(unsafe.Pointer(&b[0])) % BlockSize); skip != 0 {
		b = b[BlockSize-skip:]
	}
	return b[: n*BlockSize : n*BlockSize]
}

// A lane carries the accesses of one kind, one at a time, each in a goroutine of its own, so that a disk that never answers
// blocks nobody and never more than one access of a kind is outstanding.
type lane struct {
	name string
	turn chan struct{} // holds one token while nobody uses the lane; a channel, for a wait that can end
	// pending is closed when the access that hangs has ended; nil when none does. Belongs to the holder of the turn.
	pending chan struct{}
}

func newLane(name string) *lane {
	l := &lane{name: name, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// do runs one access within the limit, waiting for the accesses before it included. When it returns ErrHung the access may
// still be under way, with the buffers that it was given.
func (l *lane) do(limit time.Duration, access func() error) error {
	begun := time.Now()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.turn:
	case <-timer.C:
		return fmt.Errorf("%s: %w (the accesses before it take all the time)", l.name, ErrHung)
	}
	defer func() { l.turn <- struct{}{} }()
	if l.pending != nil {
		select {
		case <-l.pending:
			l.pending = nil
		case <-timer.C:
			return fmt.Errorf("%s: %w (an earlier access has not ended yet)", l.name, ErrHung)
		}
	}
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = access()
	}()
	select {
	case <-ended:
	case <-timer.C:
		l.pending = ended
		return fmt.Errorf("%s: %w within %v", l.name, ErrHung, limit)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if took := time.Since(begun); took > limit {
		return fmt.Errorf("%s: %w within %v (it took %v)", l.name, ErrHung, limit, took.Round(time.Millisecond))
	}
	return nil
}

// busy reports whether an access hangs.
func (l *lane) busy() bool {
	select {
	case <-l.turn:
	default:
		return true
	}
	defer func() { l.turn <- struct{}{} }()
	if l.pending == nil {
		return false
	}
	select {
	case <-l.pending:
		l.pending = nil
		return false
	default:
		return true
	}
}

// readBlocks and writeBlocks are whole or fail.
func readBlocks(d Device, p []byte, block int64) error {
	n, err := d.ReadAt(p, block*BlockSize)
	if err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return fmt.Errorf("read %d blocks at block %d: %w", len(p)/BlockSize, block, err)
	}
	if n != len(p) {
		return fmt.Errorf("read %d blocks at block %d: only %d bytes came", len(p)/BlockSize, block, n)
	}
	return nil
}

func writeBlocks(d Device, p []byte, block int64) error {
	n, err := d.WriteAt(p, block*BlockSize)
	if err != nil {
		return fmt.Errorf("write %d blocks at block %d: %w", len(p)/BlockSize, block, err)
	}
	if n != len(p) {
		return fmt.Errorf("write %d blocks at block %d: only %d bytes were taken", len(p)/BlockSize, block, n)
	}
	return nil
}

// OpenDevice opens a file or block device for direct, durable access. With writable false nothing can be written by it.
// It never creates anything, never follows a symbolic link in the last part of the path, and refuses what is neither a file nor
// a block device. lab allows what only tests may use: a file on a file system without direct I/O (tmpfs).
func OpenDevice(path string, writable, lab bool) (Device, int64, error) {
	f, err := openDirect(path, writable, lab)
	if err != nil {
		return nil, 0, fmt.Errorf("open the repository volume %s: %w", path, err)
	}
	size, err := deviceSize(f)
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("open the repository volume %s: %w", path, err)
	}
	return f, size, nil
}

// deviceSize is the usable size in bytes.
func deviceSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return info.Size(), nil
	case mode&os.ModeDevice != 0 && (mode&os.ModeCharDevice == 0 || rawCharDevices):
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return 0, fmt.Errorf("find its size: %w", err)
		}
		return size, nil
	default:
		return 0, errors.New("it is neither a file nor a block device")
	}
}
