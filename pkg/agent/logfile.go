package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// A LogFile is a log of bounded size: when it is full it becomes NAME.1, NAME.1 becomes NAME.2, and so on. Writes may come from
// any goroutine. A log that cannot be written never stops the daemon: the line is lost.
type LogFile struct {
	path  string
	limit int64
	keep  int

	mu   sync.Mutex
	f    *os.File
	size int64
}

// OpenLogFile opens or creates the log; its directory is made if it is missing. limit is in bytes, keep the number of old files.
func OpenLogFile(path string, limit int64, keep int) (*LogFile, error) {
	l := &LogFile{path: path, limit: limit, keep: keep}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create the log's directory: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, fi.Size()
	return nil
}

// Write appends one or more lines.
func (l *LogFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return len(b), nil
	}
	if l.size+int64(len(b)) > l.limit && l.size > 0 {
		l.rotate()
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, err
}

// rotate goes on with the old file if the new one cannot be made.
func (l *LogFile) rotate() {
	for i := l.keep - 1; i >= 1; i-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", l.path, i), fmt.Sprintf("%s.%d", l.path, i+1))
	}
	old := l.f
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		l.size = 0 // try again after another limit
		return
	}
	if err := l.open(); err != nil {
		l.f, l.size = old, 0
		return
	}
	_ = old.Close()
}

// Close closes the log.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
