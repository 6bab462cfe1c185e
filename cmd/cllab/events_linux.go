package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// An eventLog keeps what happened to the lab: all of it in a file, the newest in memory, each to whoever listens.
type eventLog struct {
	mu     sync.Mutex
	file   *os.File
	recent []lab.Event
	subs   map[chan lab.Event]bool
}

const keptEvents = 500

func newEventLog(path string) (*eventLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lab's event file: %w", err)
	}
	return &eventLog{file: f, subs: map[chan lab.Event]bool{}}, nil
}

// add records an event. A listener that does not keep up is cut off rather than waited for.
func (l *eventLog) add(e lab.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent = append(l.recent, e)
	if len(l.recent) > keptEvents {
		l.recent = append([]lab.Event(nil), l.recent[len(l.recent)-keptEvents/2:]...)
	}
	for c := range l.subs {
		select {
		case c <- e:
		default:
			delete(l.subs, c)
			close(c)
		}
	}
	if err := json.NewEncoder(l.file).Encode(e); err != nil {
		slog.Error("an event was not written down", "error", err)
	}
}

func (l *eventLog) newest(n int) []lab.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := max(0, len(l.recent)-n)
	return append([]lab.Event{}, l.recent[from:]...)
}

func (l *eventLog) subscribe() (<-chan lab.Event, func()) {
	c := make(chan lab.Event, 256)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs[c] = true
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.subs[c] {
			delete(l.subs, c)
			close(c)
		}
	}
}
