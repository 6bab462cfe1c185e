package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The lab's watchdog stands in for a watchdog card: it lives in the supervisor, outside everything that can stop, starve or
// die in the node, and takes the whole node away when it is not petted in time. It behaves as the kernel's watchdog devices
// do, with a stream socket in place of the device file:
//
//	connect          open: starts the timer. A second connection while one is open is refused (frame 'B', then closed).
//	'T' ms           set the timeout, and pet; the answer is 'T' with the timeout in force
//	'G'              ask for the timeout; the answer is 'G' with the timeout in force
//	'P'              pet
//	'V'              the magic character: closing next stops the timer
//	'K'              reset the node now
//	'S'              why the node has booted; the answer is 'S' with 1 if this timer had expired, else 0
//	last close       after 'V': stops the timer. Otherwise: pets once more, and the timer runs on.
//
// A frame has eight bytes: the operation, three zero bytes, and a big-endian number of milliseconds.
const (
	watchdogDefault  = 60 * time.Second
	watchdogShortest = 100 * time.Millisecond
	watchdogLongest  = 10 * time.Minute
)

type watchdog struct {
	node *node

	mu       sync.Mutex
	listener *net.UnixListener
	boot     int // counts listen and reset, so that what belongs to an earlier boot has no effect
	open     *net.UnixConn
	timeout  time.Duration
	timer    *time.Timer
	due      time.Time // when the running timer expires; zero: not running
	fired    int
	hit      bool // this timer's expiry ended the last boot, as a card's boot status tells
	tells    bool // what hit was when this boot began
}

func newWatchdog(n *node) *watchdog { return &watchdog{node: n, timeout: watchdogDefault} }

func (w *watchdog) status() lab.WatchStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lab.WatchStatus{Open: w.open != nil, Running: w.timer != nil, Timeout: w.timeout, Fired: w.fired}
}

// listen makes the device of a new boot, in the node's run directory.
func (w *watchdog) listen(dir string) error {
	l, err := listenStream(filepath.Join(dir, "watchdog.sock"), 0o600)
	if err != nil {
		return fmt.Errorf("make the watchdog of %s: %w", w.node.name, err)
	}
	w.reset()
	w.mu.Lock()
	w.listener = l
	w.tells, w.hit = w.hit, false
	boot := w.boot
	w.mu.Unlock()
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go w.serve(conn, boot)
		}
	}()
	return nil
}

// listenStream opens a stream socket in a directory whose path may be longer than a socket address.
func listenStream(path string, mode os.FileMode) (*net.UnixListener, error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	name := "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + filepath.Base(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: name})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path by descriptor is gone by then
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// reset stops the device, as switching a machine off does.
func (w *watchdog) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boot++
	w.stopLocked()
	w.timeout = watchdogDefault
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
	}
	if w.open != nil {
		w.open.Close()
		w.open = nil
	}
}

func (w *watchdog) stopLocked() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer, w.due = nil, time.Time{}
	}
}

// pingLocked starts the timer anew.
func (w *watchdog) pingLocked() {
	w.stopLocked()
	boot, due := w.boot, time.Now().Add(w.timeout)
	w.due = due
	w.timer = time.AfterFunc(w.timeout, func() { w.expire(boot, due) })
}

func (w *watchdog) expire(boot int, due time.Time) {
	w.mu.Lock()
	if w.boot != boot || w.due != due {
		w.mu.Unlock() // petted or reset while this call was on its way
		return
	}
	w.fired++
	w.hit = true
	timeout := w.timeout
	w.stopLocked()
	w.mu.Unlock()
	w.node.expired("watchdog", fmt.Sprintf("no pet for %v; acted %v late", timeout, time.Since(due).Round(time.Microsecond)))
}

// serve is one opening of the device, until its last descriptor is closed.
func (w *watchdog) serve(conn *net.UnixConn, boot int) {
	defer conn.Close()
	w.mu.Lock()
	if w.boot != boot || w.open != nil {
		w.mu.Unlock()
		_, _ = conn.Write(frame('B', 0))
		return
	}
	w.open = conn
	w.pingLocked()
	w.mu.Unlock()
	magic := false
	var err error
	for err == nil {
		var f [8]byte
		if _, err = io.ReadFull(conn, f[:]); err != nil {
			break
		}
		if magic, err = w.do(conn, boot, f); err != nil {
			w.node.sup.log.Warn("a watchdog was misused", "node", w.node.name, "error", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.boot != boot {
		return
	}
	w.open = nil
	if magic && errors.Is(err, io.EOF) {
		w.stopLocked()
	} else {
		w.pingLocked()
	}
}

// do carries out one frame. It tells whether the frame was the magic character.
func (w *watchdog) do(conn *net.UnixConn, boot int, f [8]byte) (magic bool, err error) {
	if f[1] != 0 || f[2] != 0 || f[3] != 0 {
		return false, fmt.Errorf("frame % x: bytes 1 to 3 must be zero", f)
	}
	w.mu.Lock()
	if w.boot != boot {
		w.mu.Unlock()
		return false, errors.New("the node has gone down")
	}
	timeout, tells := w.timeout, w.tells
	switch op := f[0]; op {
	case 'T':
		wanted := time.Duration(binary.BigEndian.Uint32(f[4:])) * time.Millisecond
		timeout = min(max(wanted, watchdogShortest), watchdogLongest)
		w.timeout = timeout
		w.pingLocked()
	case 'P':
		w.pingLocked()
	case 'G', 'V', 'S':
	case 'K':
		w.mu.Unlock()
		// Elsewhere, since it waits for the node's end, and with it for this connection's.
		go w.node.expired("reset", "ordered through the watchdog")
		return false, nil
	default:
		w.mu.Unlock()
		return false, fmt.Errorf("frame % x: operation is not known", f)
	}
	w.mu.Unlock()
	switch f[0] {
	case 'T', 'G':
		_, err = conn.Write(frame(f[0], timeout))
	case 'S':
		answer := time.Duration(0)
		if tells {
			answer = time.Millisecond
		}
		_, err = conn.Write(frame('S', answer))
	}
	return f[0] == 'V', err
}

func frame(op byte, d time.Duration) []byte {
	b := make([]byte, 8)
	b[0] = op
	binary.BigEndian.PutUint32(b[4:], uint32(d/time.Millisecond))
	return b
}
