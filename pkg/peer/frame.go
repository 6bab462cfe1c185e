package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxFrame is the largest frame in bytes, header excluded.
const MaxFrame = 1 << 20

// maxMethod is the longest name of a method in bytes.
const maxMethod = 255

// A frame on the wire, all numbers big-endian:
//
//	uint32 length of the rest
//	uint8  kind
//	uint32 id
//	       request only: uint32 milliseconds that the caller waits (0: for ever), uint8 length of the method, the method
//	       body
const (
	kindRequest byte = iota + 1
	kindReply        // body: the handler's answer
	kindFailure      // body: the text of the handler's error
	kindUnknown      // no such method
	kindBusy         // too many requests at once
	kindPing
	kindPong
	kindEnd // first unused
)

const (
	lengthSize  = 4
	headSize    = 5 // kind and id
	requestSize = 5 // timeout and length of the method
)

// A frame's slices point into the buffer that it was read into.
type frame struct {
	kind   byte
	id     uint32
	wait   time.Duration
	method []byte
	body   []byte
}

var errFrame = errors.New("malformed frame")

// appendFrame appends the encoded frame. The caller has checked the sizes.
func appendFrame[B string | []byte](b []byte, kind byte, id uint32, wait time.Duration, method string, body B) []byte {
	n := headSize + len(body)
	if kind == kindRequest {
		n += requestSize + len(method)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, id)
	if kind == kindRequest {
		b = binary.BigEndian.AppendUint32(b, waitField(wait))
		b = append(b, byte(len(method)))
		b = append(b, method...)
	}
	return append(b, body...)
}

// waitField rounds up to milliseconds, so that a wait never becomes "for ever".
func waitField(wait time.Duration) uint32 {
	ms := (wait + time.Millisecond - 1) / time.Millisecond
	return uint32(min(max(ms, 0), 1<<32-1))
}

// readFrame reads one frame of at most limit bytes into buf, which it grows as needed and returns for the next call.
func readFrame(r *bufio.Reader, buf []byte, limit int) (frame, []byte, error) {
	var head [lengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, buf, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n < headSize || n > int64(limit) {
		return frame{}, buf, fmt.Errorf("%w: length %d is outside %d to %d", errFrame, n, headSize, limit)
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n, max(n, 512))
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, buf, err
	}
	f, err := parseFrame(buf)
	return f, buf, err
}

func parseFrame(b []byte) (frame, error) {
	if len(b) < headSize {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	f := frame{kind: b[0], id: binary.BigEndian.Uint32(b[1:]), body: b[headSize:]}
	if f.kind == 0 || f.kind >= kindEnd {
		return frame{}, fmt.Errorf("%w: kind %d", errFrame, f.kind)
	}
	if f.kind != kindRequest {
		return f, nil
	}
	if len(f.body) < requestSize {
		return frame{}, fmt.Errorf("%w: request of %d bytes", errFrame, len(b))
	}
	f.wait = time.Duration(binary.BigEndian.Uint32(f.body)) * time.Millisecond
	n := int(f.body[4])
	f.body = f.body[requestSize:]
	if n == 0 || n > len(f.body) {
		return frame{}, fmt.Errorf("%w: method of %d bytes in %d", errFrame, n, len(f.body))
	}
	f.method, f.body = f.body[:n], f.body[n:]
	return f, nil
}
