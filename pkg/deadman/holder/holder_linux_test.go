package holder

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

func TestLabelSurvivesADescriptorsName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label := string(rapid.SliceOfN(rapid.Byte(), 0, MaxLabel).Draw(t, "label"))
		name := escape(label)
		if strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r <= ' ' || r > unicode.MaxASCII || unicode.IsControl(r) }) {
			t.Fatalf("%q is no name of a descriptor", name)
		}
		if got := unescape(name); got != label {
			t.Fatalf("%q came back as %q", label, got)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(pack(opHold, "lab /run/x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		op, label, err := unpack(b)
		if err == nil && string(pack(op, label)[:2+len(label)]) != string(b[:2+len(label)]) {
			t.Errorf("%x was read as %q %q", b, op, label)
		}
	})
}

func TestListenVariables(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, n, names string
		fails         bool
	}{
		{"", "", "", false}, {"1", "2", "watchdog:keeper", false}, {pid, "x", "", true}, {pid, "-1", "", true}, {pid, "1000", "", true}, {pid, "0", "", false},
	} {
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.n)
		t.Setenv("LISTEN_FDNAMES", c.names)
		t.Setenv("NOTIFY_SOCKET", "")
		s, left, err := FromSystemd()
		if s != nil || left != nil || (err != nil) != c.fails {
			t.Errorf("%+v: %v, %v, %v", c, s, left, err)
		}
	}
}

func TestSystemdWithoutRoom(t *testing.T) {
	for store, capable := range map[string]bool{"": false, "1": false, "2": true, "x": false} {
		t.Setenv("NOTIFY_SOCKET", "relative")
		t.Setenv("FDSTORE", store)
		s, _, err := FromSystemd()
		if err != nil || s == nil || s.Capable() != capable {
			t.Fatalf("FDSTORE=%s: %+v, %v", store, s, err)
		}
		if err := s.Hold(Copy{}); err == nil {
			t.Errorf("FDSTORE=%s: held by nobody", store)
		}
	}
}
