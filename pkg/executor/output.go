package executor

import (
	"fmt"
	"os"
	"sync"
)

// A headTail keeps the first quarter and the last three quarters of limit bytes of what is written to it. The cause of a
// failure stands at the end, what was tried at the start. Safe for concurrent use.
type headTail struct {
	mu    sync.Mutex
	limit int
	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where the ring is written next
	total int64
}

func newHeadTail(limit int) *headTail { return &headTail{limit: limit} }

func (b *headTail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	b.total += int64(n)
	if room := b.limit/4 - len(b.head); room > 0 {
		take := min(room, len(p))
		b.head = append(b.head, p[:take]...)
		p = p[take:]
	}
	size := b.limit - b.limit/4
	if len(p) > size {
		p = p[len(p)-size:]
		b.tail, b.next = b.tail[:0], 0
	}
	for len(p) > 0 {
		if len(b.tail) < size {
			take := min(size-len(b.tail), len(p))
			b.tail = append(b.tail, p[:take]...)
			p = p[take:]
			continue
		}
		took := copy(b.tail[b.next:], p)
		b.next = (b.next + took) % size
		p = p[took:]
	}
	return n, nil
}

func (b *headTail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	tail := string(b.tail[b.next:]) + string(b.tail[:b.next])
	cut := b.total - int64(len(b.head)) - int64(len(b.tail))
	if cut <= 0 {
		return string(b.head) + tail
	}
	return fmt.Sprintf("%s\n[... %d bytes left out ...]\n%s", b.head, cut, tail)
}

// readBounded reads the same extract of what stands in f from offset on.
func readBounded(f *os.File, offset int64, limit int) string {
	info, err := f.Stat()
	if err != nil {
		return fmt.Sprintf("[the output cannot be read: %v]", err)
	}
	if info.Size() < offset { // it was cut in the meantime
		offset = 0
	}
	b := newHeadTail(limit)
	size := info.Size() - offset
	headLen := min(size, int64(limit/4))
	tailLen := min(size-headLen, int64(limit-limit/4))
	copyRange(b, f, offset, headLen)
	b.mu.Lock()
	b.total = size - tailLen
	b.mu.Unlock()
	copyRange(b, f, info.Size()-tailLen, tailLen)
	return b.String()
}

func copyRange(b *headTail, f *os.File, offset, length int64) {
	buf := make([]byte, length)
	n, _ := f.ReadAt(buf, offset) // a file that shrinks meanwhile gives less
	_, _ = b.Write(buf[:n])
}
