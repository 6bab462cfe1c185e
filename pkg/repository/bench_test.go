package repository

import (
	"bytes"
	"context"
	"testing"
)

// The benchmarks run on a real file with direct and synchronous access where the file system has it.

func benchVoter(b *testing.B) *Voter {
	b.Helper()
	path := formatted(b, "a", "b")
	w, err := openAs(b, path, "a", RoleVoter).Claim(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.Close() })
	return w
}

func BenchmarkCheck(b *testing.B) {
	w := benchVoter(b)
	for b.Loop() {
		if err := w.Check(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	w := benchVoter(b)
	record := bytes.Repeat([]byte("x"), 300)
	for b.Loop() {
		if free, _ := w.Room(); free < areaData {
			b.StopTimer()
			if err := w.Compact(nil); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := w.Append(record); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTakeOver(b *testing.B) {
	path := formatted(b, "a", "b")
	volumes := []*Volume{openAs(b, path, "a", RoleVoter), openAs(b, path, "b", RoleVoter)}
	n := 0
	for b.Loop() {
		w, err := volumes[n%2].takeOver()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if n == 0 {
			if err := w.Append(bytes.Repeat([]byte("x"), 100_000)); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		n++
	}
}

func BenchmarkWriteBeat(b *testing.B) {
	v := openAs(b, formatted(b, "a", "b"), "a", RoleAgent)
	beat := Beat{Incarnation: 1, Held: []Held{{"group", 3}}, Networks: []Network{{"net", true}}}
	for b.Loop() {
		if err := v.WriteBeat(beat); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeFront(b *testing.B) {
	v := openAs(b, formatted(b, "a", "b"), "a", RoleReader)
	buf := alignedBlocks(4 * v.layout.nodes)
	if err := readBlocks(v.dev, buf, v.layout.ballot(0, 0)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		v.decodeFront(buf, 4*v.layout.nodes)
	}
}
