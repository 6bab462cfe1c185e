package executor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTombstonesKeepTheirPromise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "tombstones")
	ts, err := OpenTombstones(path)
	if err != nil {
		t.Fatal(err)
	}
	if ts.Has("rg", 0) {
		t.Error("a promise that was never made")
	}
	for _, gen := range []uint64{3, 7, 5} {
		if err := ts.Write("rg", gen); err != nil {
			t.Fatal(err)
		}
	}
	if err := ts.Write("zero", 0); err != nil {
		t.Fatal(err)
	}
	again, err := OpenTombstones(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Tombstones{ts, again} {
		if !x.Has("rg", 7) || !x.Has("rg", 1) || x.Has("rg", 8) || !x.Has("zero", 0) || x.Has("zero", 1) || x.Has("other", 0) {
			t.Errorf("promises %v", x.Highest())
		}
	}
}

func TestTombstonesThatCannotBeReadOrWrittenAreErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tombstones")
	ts, err := OpenTombstones(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ts.Write("rg", 7); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{"empty": "", "cut": string(good[:len(good)-3]), "bit": strings.Replace(string(good), "7", "6", 1),
		"format": strings.Replace(string(good), `"format":1`, `"format":2`, 1), "huge": strings.Repeat("x", maxStateFile+1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenTombstones(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := ts.Write("rg", 9); err == nil || ts.Has("rg", 9) {
		t.Errorf("a promise that could not be written counts: %v", err)
	}
}

func TestActionRecords(t *testing.T) {
	dir := t.TempDir()
	log, err := OpenActionLog(dir, "boot1")
	if err != nil {
		t.Fatal(err)
	}
	rec := Record{ID: "start-1", Group: "rg", Kind: KindApplication, Resource: "app", Op: "start", Generation: 3}
	if err := log.Begin(rec); err != nil {
		t.Fatal(err)
	}
	log.Executed("start-1", 42, 77)
	if o, err := log.Orphans(); len(o) != 0 || err != nil {
		t.Errorf("our own action is an orphan: %v, %v", o, err)
	}
	next, err := OpenActionLog(dir, "boot1")
	if err != nil {
		t.Fatal(err)
	}
	o, err := next.Orphans()
	if err != nil || len(o) != 1 || o[0].PID != 42 || o[0].Started != 77 || o[0].Generation != 3 || o[0].BootID != "boot1" {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := log.End("start-1"); err != nil {
		t.Fatal(err)
	}
	log.Executed("start-1", 43, 78) // too late: it must not come back
	if o, err := next.Orphans(); len(o) != 0 || err != nil {
		t.Errorf("%+v, %v", o, err)
	}

	// Records of an earlier boot are void, damaged ones are not.
	if err := log.Begin(rec); err != nil {
		t.Fatal(err)
	}
	rebooted, err := OpenActionLog(dir, "boot2")
	if err != nil {
		t.Fatal(err)
	}
	if o, err := rebooted.Orphans(); len(o) != 0 || err != nil {
		t.Errorf("%+v, %v", o, err)
	}
	for name, text := range map[string]string{"bad.json": "{", ".new-1": "half", "huge.json": strings.Repeat("x", maxStateFile+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = rebooted.Orphans()
	if err == nil || !strings.Contains(err.Error(), "bad.json") || !strings.Contains(err.Error(), "huge.json") {
		t.Errorf("%v", err)
	}
	if _, err := OpenActionLog(dir, "boot2"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".new-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was half written stays: %v", err)
	}
}

// The bounded output equals what a simple implementation keeps.
func TestHeadTailKeepsStartAndEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(4, 40).Draw(t, "limit")
		b := newHeadTail(limit)
		var all []byte
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "p")
			all = append(all, p...)
			if n, err := b.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		got := b.String()
		if len(all) <= limit {
			if got != string(all) {
				t.Fatalf("%q, wanted all of %q", got, all)
			}
			return
		}
		head, tail := string(all[:limit/4]), string(all[len(all)-(limit-limit/4):])
		if !strings.HasPrefix(got, head) || !strings.HasSuffix(got, "...]\n"+tail) {
			t.Fatalf("%q, wanted %q ... %q", got, head, tail)
		}
	})
}

func TestEscapedNamesStayApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		x, y := escape(a), escape(b)
		if a != b && x == y {
			t.Fatalf("%q and %q become %q", a, b, x)
		}
		if strings.ContainsAny(x, "/\n\x00 .") || x == "" || len(x) > 100 {
			t.Fatalf("%q becomes %q", a, x)
		}
	})
}
