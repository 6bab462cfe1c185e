package main

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// labWatchdog plays the lab's supervisor: it emulates a kernel watchdog device behind a unix socket. It behaves at a close as a
// kernel does: unless the magic close was the last operation, closing pets once more, and the timer runs on.
type labWatchdog struct {
	path  string
	clock deadman.BootClock

	mu      sync.Mutex
	timeout time.Duration
	timer   *time.Timer
	opens   int
	pets    []lease.Instant // receipt of each pet, opening and setting a timeout included
	closed  []lease.Instant
	magic   bool
	running bool

	fired chan lease.Instant // the timer ran out
	reset chan lease.Instant // the node's own reset
	open  chan struct{}
	ended chan bool // the last descriptor was closed: with the magic close?
}

func newLabWatchdog(t testing.TB) *labWatchdog {
	t.Helper()
	l := &labWatchdog{
		path: filepath.Join(t.TempDir(), "dog"), timeout: 2 * time.Second,
		fired: make(chan lease.Instant, 16), reset: make(chan lease.Instant, 16), open: make(chan struct{}, 16), ended: make(chan bool, 16),
	}
	listener, err := net.Listen("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		if l.timer != nil {
			l.timer.Stop()
		}
		l.mu.Unlock()
	})
	return l
}

// ping starts the timer again. The caller holds the lock.
func (l *labWatchdog) ping() {
	now := l.clock.Now()
	l.pets = append(l.pets, now)
	l.running = true
	if l.timer != nil {
		l.timer.Stop()
	}
	fires := now.Add(l.timeout) // however late this process gets to run on a busy machine
	l.timer = time.AfterFunc(l.timeout, func() {
		select {
		case l.fired <- fires:
		default:
		}
	})
}

func (l *labWatchdog) serve(conn net.Conn) {
	defer conn.Close()
	l.mu.Lock()
	l.opens++
	l.magic = false
	l.ping()
	l.mu.Unlock()
	l.open <- struct{}{}
	var b [watchdog.LabFrame]byte
	for {
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			break
		}
		l.operate(conn, b)
	}
	l.mu.Lock()
	magic := l.magic
	l.closed = append(l.closed, l.clock.Now())
	if magic {
		l.timer.Stop()
		l.running = false
	} else {
		l.ping()
	}
	l.mu.Unlock()
	l.ended <- magic
}

func (l *labWatchdog) operate(conn net.Conn, b [watchdog.LabFrame]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.magic = b[0] == watchdog.LabMagicClose
	switch b[0] {
	case watchdog.LabSetTimeout:
		l.timeout = time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Millisecond
		l.ping()
		_, _ = conn.Write(b[:])
	case watchdog.LabGetTimeout:
		binary.BigEndian.PutUint32(b[4:], uint32(l.timeout/time.Millisecond))
		_, _ = conn.Write(b[:])
	case watchdog.LabBootStatus:
		_, _ = conn.Write([]byte{watchdog.LabBootStatus, 0, 0, 0, 0, 0, 0, 0})
	case watchdog.LabPet:
		l.ping()
	case watchdog.LabReset:
		select {
		case l.reset <- l.clock.Now():
		default:
		}
	}
}

// lastPet is when the newest pet was received.
func (l *labWatchdog) lastPet() lease.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pets) == 0 {
		return 0
	}
	return l.pets[len(l.pets)-1]
}

func (l *labWatchdog) count() (opens, pets int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opens, len(l.pets)
}
