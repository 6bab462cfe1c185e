package wire

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// anyMessage draws a message as Decode may return it.
func anyMessage(t *rapid.T) Message {
	duration := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(maxDuration)).Draw(t, "duration"))
	})
	instant := rapid.Custom(func(t *rapid.T) lease.Instant { return lease.Instant(rapid.Int64Range(0, 1<<62).Draw(t, "instant")) })
	bytes := func(name string) (b [16]byte) {
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
		return b
	}
	m := Message{Kind: Kind(rapid.IntRange(1, int(lastKind)).Draw(t, "kind")), Seq: rapid.Uint32().Draw(t, "seq")}
	switch m.Kind {
	case Hello:
		m.Settings = Settings{duration.Draw(t, "w"), duration.Draw(t, "hard"), duration.Draw(t, "a"), duration.Draw(t, "p"), duration.Draw(t, "renew"),
			rapid.Bool().Draw(t, "e")}
	case Grant:
		m.Nonce, m.Boot, m.Time = lease.Nonce(bytes("nonce")), bytes("boot"), instant.Draw(t, "time")
	case Holds:
		m.Started = rapid.Bool().Draw(t, "started")
	case Info:
		m.State = State{Independent: rapid.Bool().Draw(t, "i"), ModeEvent: rapid.Bool().Draw(t, "e"), Armed: rapid.Bool().Draw(t, "armed"),
			Held: rapid.Bool().Draw(t, "held"), TakenOver: rapid.Bool().Draw(t, "taken"), NoWayOut: rapid.Bool().Draw(t, "no"), Pid: rapid.Uint32().Draw(t, "pid"),
			Watchdog: duration.Draw(t, "w"), Started: instant.Draw(t, "since"), ArmedAt: instant.Draw(t, "at"),
			Fired: rapid.Bool().Draw(t, "fired")}
		for i := range m.State.Warnings {
			m.State.Warnings[i] = Warning{Trouble(rapid.IntRange(0, int(lastTrouble)).Draw(t, "trouble")), rapid.Uint16().Draw(t, "errno")}
		}
	case Request:
		m.Nonce, m.At = lease.Nonce(bytes("nonce")), instant.Draw(t, "at")
	case Ack:
		m.Code = Code(rapid.IntRange(0, int(lastCode)).Draw(t, "code"))
	case Status:
		n := rapid.Uint64()
		m.Figures = Figures{instant.Draw(t, "g"), instant.Draw(t, "p"), duration.Draw(t, "m"), duration.Draw(t, "mm"), n.Draw(t, "1"), n.Draw(t, "2"),
			n.Draw(t, "3"), n.Draw(t, "4"), n.Draw(t, "5")}
	case Event:
		m.Reason, m.At = Reason(rapid.IntRange(0, int(lastReason)).Draw(t, "reason")), instant.Draw(t, "at")
		m.Dooms = rapid.Bool().Draw(t, "dooms")
	}
	return m
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMessage(t)
		var b [Size]byte
		var got Message
		Encode(&m, &b)
		if err := Decode(&b, &got); err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if got != m {
			t.Fatalf("encoded %+v, decoded %+v", m, got)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	hello := func(change func(b *[Size]byte)) [Size]byte {
		var b [Size]byte
		Encode(&Message{Kind: Hello, Settings: Settings{Watchdog: time.Second}}, &b)
		change(&b)
		return b
	}
	for name, c := range map[string]struct {
		b    [Size]byte
		want error
	}{
		"nothing":           {[Size]byte{}, ErrMagic},
		"another protocol":  {hello(func(b *[Size]byte) { b[1] = 'X' }), ErrMagic},
		"another version":   {hello(func(b *[Size]byte) { b[2]++ }), ErrVersion},
		"kind 0":            {hello(func(b *[Size]byte) { b[3] = 0 }), ErrKind},
		"an unknown kind":   {hello(func(b *[Size]byte) { b[3] = uint8(lastKind) + 1 }), ErrKind},
		"a long duration":   {hello(func(b *[Size]byte) { b[8] = 0xff }), ErrValue},
		"a bool of 2":       {hello(func(b *[Size]byte) { b[8+5*8] = 2 }), ErrValue},
		"bytes at the end":  {hello(func(b *[Size]byte) { b[Size-1] = 1 }), ErrPadding},
		"bytes in between":  {hello(func(b *[Size]byte) { b[8+5*8+1] = 1 }), ErrPadding},
		"a code that is no": {[Size]byte{'H', 'D', Version, uint8(Ack), 8: uint8(lastCode) + 1}, ErrValue},
	} {
		var m Message
		if err := Decode(&c.b, &m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

// FuzzDecode: whatever Decode takes, Encode writes back byte by byte.
func FuzzDecode(f *testing.F) {
	for k := Kind(1); k <= lastKind; k++ {
		var b [Size]byte
		Encode(&Message{Kind: k, Seq: 7, Code: TooOld, Reason: LeaseLost, Started: true, Nonce: lease.Nonce{1}}, &b)
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, back [Size]byte
		copy(b[:], data)
		var m Message
		if Decode(&b, &m) != nil {
			return
		}
		Encode(&m, &back)
		if b != back {
			t.Errorf("decoded %+v from %x, encoded %x", m, b, back)
		}
		_, _ = m.Code.Text(), m.Reason.Text()
		for _, w := range m.State.Warnings {
			_ = w.Text()
		}
	})
}

func TestEverythingHasASentence(t *testing.T) {
	for c := OK; c <= lastCode; c++ {
		if c.Text() == "" || strings.HasPrefix(c.Text(), "unknown") {
			t.Errorf("code %d says %q", c, c.Text())
		}
	}
	for r := NoReason + 1; r <= lastReason; r++ {
		if r.Text() == "" || strings.HasPrefix(r.Text(), "unknown") {
			t.Errorf("reason %d says %q", r, r.Text())
		}
	}
	for x := NoTrouble + 1; x <= lastTrouble; x++ {
		if text := (Warning{Trouble: x, Errno: 1}).Text(); strings.HasPrefix(text, "unknown") || !strings.Contains(text, ": operation not permitted") {
			t.Errorf("trouble %d says %q", x, text)
		}
	}
	if (Code(200)).Text() == "" || (Reason(200)).Text() == "" || (Warning{Trouble: 200}).Text() == "" {
		t.Error("a number out of range says nothing")
	}
}
