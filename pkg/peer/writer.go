package peer

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// inlineSize bounds what a sender writes to the connection itself. So little fits into any socket buffer, unless the
	// path has been dead for long; more is left to a goroutine, so that no caller hangs in a write beyond its context.
	inlineSize = 16 << 10
	// backlogSize bounds what waits to be written; a peer that reads so slowly is given up.
	backlogSize = 8 << 20
	// keepSize bounds the buffers that are kept between writes.
	keepSize = 64 << 10
	// writeTimeout ends a large write that makes no progress. Small ones need no timer of their own: whoever waits for the
	// answer gives the connection up, or the backlog does.
	writeTimeout = time.Second
)

var errBacklog = errors.New("the other side does not read")

// A writer puts frames on a connection. Frames that arrive while a write is under way go out together in the next one. Any
// goroutine may send. After an error the connection is closed and every later send fails.
type writer struct {
	conn net.Conn

	mu       sync.Mutex
	buf      []byte // waits
	spare    []byte // the other buffer, while none is being written
	flushing bool
	err      error
}

// send queues one frame, and writes it unless another goroutine is writing. Its error is the connection's, which ends by it: only who
// waits for an answer needs to look.
func send[B string | []byte](w *writer, kind byte, id uint32, wait time.Duration, method string, body B) error {
	w.mu.Lock()
	if w.err == nil && len(w.buf) > backlogSize {
		w.fail(errBacklog)
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	w.buf = appendFrame(w.buf, kind, id, wait, method, body)
	if w.flushing {
		w.mu.Unlock()
		return nil
	}
	w.flushing = true
	if len(w.buf) > inlineSize {
		w.mu.Unlock()
		go w.drain()
		return nil
	}
	more := w.flush()
	err := w.err
	w.mu.Unlock()
	if more {
		go w.drain()
	}
	return err
}

// flush writes what waits, once, and reports whether more has come meanwhile. It is called with the lock, which it gives up
// while it writes.
func (w *writer) flush() (more bool) {
	b := w.buf
	w.buf, w.spare = w.spare[:0], nil
	w.mu.Unlock()
	_, err := w.conn.Write(b)
	w.mu.Lock()
	if cap(b) <= keepSize {
		w.spare = b[:0]
	}
	if err != nil && w.err == nil {
		w.fail(err)
	}
	more = w.err == nil && len(w.buf) > 0
	w.flushing = more
	return more
}

// drain writes until nothing waits.
func (w *writer) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for more := true; more; {
		w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		more = w.flush()
	}
	w.conn.SetWriteDeadline(time.Time{})
}

// fail is called with the lock. Closing must not wait for it: a close of a TLS connection may write.
func (w *writer) fail(err error) {
	w.err = err
	w.buf = nil
	closeNow(w.conn)
}
