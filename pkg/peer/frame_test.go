package peer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, f := range []frame{
		{kind: kindRequest, id: 7, wait: 1500 * time.Millisecond, method: []byte("lease"), body: []byte("hello")},
		{kind: kindRequest, id: 1<<32 - 1, method: []byte("x")},
		{kind: kindReply, id: 9, body: bytes.Repeat([]byte("y"), 100000)},
		{kind: kindPing},
	} {
		b := appendFrame(nil, f.kind, f.id, f.wait, string(f.method), f.body)
		got, _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), nil, MaxFrame)
		if err != nil || got.kind != f.kind || got.id != f.id || got.wait != f.wait || !bytes.Equal(got.method, f.method) ||
			!bytes.Equal(got.body, f.body) {
			t.Errorf("%+v became %+v, %v", f, got, err)
		}
	}
}

func TestWaitRoundsUp(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, -time.Second: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2,
		1 << 62: 1<<32 - 1} {
		if got := waitField(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

func TestReadFrameBounds(t *testing.T) {
	b := appendFrame(nil, kindReply, 1, 0, "", make([]byte, 100))
	if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), nil, 100); !errors.Is(err, errFrame) {
		t.Errorf("a frame over the limit: %v", err)
	}
	if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(b[:50])), nil, 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut frame: %v", err)
	}
	if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(nil)), nil, 1000); !errors.Is(err, io.EOF) {
		t.Errorf("an end between frames: %v", err)
	}
}

// Whatever arrives, the reader neither panics nor takes more than the limit, and what it takes means the same when it is
// written again.
func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, kindRequest, 1, time.Second, "lease", "body"))
	f.Add(appendFrame(nil, kindReply, 1, 0, "", "body"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 10, kindRequest, 0, 0, 0, 1, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 4096
		r := bufio.NewReader(bytes.NewReader(b))
		var buf []byte
		for {
			var fr frame
			var err error
			fr, buf, err = readFrame(r, buf, limit)
			if cap(buf) > 2*limit {
				t.Fatalf("a buffer of %d bytes", cap(buf))
			}
			if err != nil {
				return
			}
			again := appendFrame(nil, fr.kind, fr.id, fr.wait, string(fr.method), fr.body)
			got, err := parseFrame(again[lengthSize:])
			if err != nil || got.kind != fr.kind || got.id != fr.id || got.wait != fr.wait ||
				!bytes.Equal(got.method, fr.method) || !bytes.Equal(got.body, fr.body) {
				t.Fatalf("%+v became %+v, %v", fr, got, err)
			}
		}
	})
}
