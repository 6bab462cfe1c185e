package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

const (
	// readBuffer is per connection; frames are small.
	readBuffer = 4 << 10
	// maxInWork is how many requests of one connection are served at once.
	maxInWork = 256
)

// A serverConn answers the calls of one connection.
type serverConn struct {
	p      *Peer
	node   string
	w      writer
	ctx    context.Context
	inWork atomic.Int32
}

// serveCalls reads requests until the connection ends.
func (p *Peer) serveCalls(c *tls.Conn, node string) {
	s := &serverConn{p: p, node: node, w: writer{conn: c}}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	s.ctx = ctx
	_ = send(&s.w, kindPong, 0, 0, "", "") // the greeting: we took you
	err := s.read(bufio.NewReaderSize(c, readBuffer))
	closeNow(c)
	if err != nil && p.ctx.Err() == nil {
		p.log.Debug("the connection of a node ended", "node", node, "error", err)
	}
}

func (s *serverConn) read(r *bufio.Reader) error {
	var buf []byte
	for {
		f, b, err := readFrame(r, buf, MaxFrame)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if buf = b; cap(buf) > keepSize {
			buf = nil
		}
		if !s.p.member(s.node) {
			return errors.New("it is not a member any more")
		}
		s.p.heard(s.node)
		switch f.kind {
		case kindRequest:
			s.request(f)
		case kindPing:
			_ = send(&s.w, kindPong, f.id, 0, "", "")
		default:
			return fmt.Errorf("%w: kind %d from a caller", errFrame, f.kind)
		}
	}
}

func (s *serverConn) request(f frame) {
	m, ok := (*s.p.handlers.Load())[string(f.method)]
	switch {
	case !ok:
		_ = send(&s.w, kindUnknown, f.id, 0, "", "")
	case m.inline:
		answer, err := m.serve(s.ctx, s.node, f.body)
		s.reply(f.id, answer, err)
	case s.inWork.Load() >= maxInWork:
		_ = send(&s.w, kindBusy, f.id, 0, "", "")
	default:
		s.inWork.Add(1)
		body := bodies.Get().(*[]byte)
		*body = append((*body)[:0], f.body...)
		s.p.workers.run(job{conn: s, h: m.serve, id: f.id, wait: f.wait, body: body})
	}
}

// maxErrorText bounds what a handler's error costs on the wire.
const maxErrorText = 4 << 10

func (s *serverConn) reply(id uint32, answer []byte, err error) {
	if err == nil && len(answer) > MaxFrame-headSize {
		err = fmt.Errorf("%w: the answer has %d bytes, at most %d fit", ErrTooLarge, len(answer), MaxFrame-headSize)
	}
	if err != nil {
		text := err.Error()
		if len(text) > maxErrorText {
			text = text[:maxErrorText]
		}
		_ = send(&s.w, kindFailure, id, 0, "", text)
		return
	}
	_ = send(&s.w, kindReply, id, 0, "", answer)
}
