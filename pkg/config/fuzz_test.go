package config

import (
	"errors"
	"testing"
)

// seeds are where the fuzzers begin.
func seeds(f *testing.F, more ...string) {
	for _, s := range append(more, "", "a: b", "- a", "{a: [b]}", "a: &x {b: c}\nd: {<<: *x}", "a: |\n  b\n c", "? a\n: b", "'", "\"\\u00\"", "\xef\xbb\xbfa: b\r\n", "%YAML 1.2\n---\na", "a: !!str b",
		"- - - a", "a:\n\tb", "[[[[", "*a", "&a", "a: *a", "<<: a", "\x00") {
		f.Add([]byte(s))
	}
}

// answered checks what holds for every input: a value, or faults with places and texts.
func answered(t *testing.T, got bool, err error) {
	t.Helper()
	if err == nil {
		if !got {
			t.Fatal("neither a value nor a fault")
		}
		return
	}
	var faults Faults
	if got || !errors.As(err, &faults) || len(faults) == 0 || len(faults) > maxFaults+1 {
		t.Fatalf("a value and an error, or an error of another kind: %v", err)
	}
	for _, x := range faults {
		if x.Text == "" || x.File != "f" || x.Line < 0 {
			t.Fatalf("a fault without a place or a text: %+v", x)
		}
	}
}

func FuzzCluster(f *testing.F) {
	seeds(f, full, bomb())
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := DecodeCluster("f", data)
		answered(t, d != nil, err)
		if err != nil {
			return
		}
		if p := d.Validate(); len(p) > 0 {
			t.Fatalf("what was taken is not valid: %v", p)
		}
		text, err := EncodeCluster(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCluster("f", text)
		if err != nil || !back.Equal(d) {
			t.Fatalf("what was taken does not survive being written: %v\n%s", err, text)
		}
	})
}

func FuzzNodeFile(f *testing.F) {
	seeds(f, "name: node1\nport: 1\nlisten: [10.0.0.1]\ndeadman: {backend: lab, device: /x}\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := DecodeNode("f", data)
		answered(t, n != nil, err)
	})
}

func FuzzScenario(f *testing.F) {
	seeds(f, scenario)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeScenario("f", data)
		answered(t, s != nil, err)
		if err == nil && s.Start.IsZero() {
			t.Fatal("no start")
		}
	})
}
