package config

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func snapshotOf() *Snapshot {
	d := &cluster.Definition{Name: "c", Nodes: []cluster.Node{{Name: "a", Addresses: map[string]string{"net1": "10.1.1.1/24"}}}, Networks: []cluster.Network{{Name: "net1"}}}
	return &Snapshot{Name: "s1", Description: "before the move: all well", Cluster: "c", Version: 7, Taken: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC), By: "root", Definition: d}
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := snapshotOf()
	s.Description = "two\nlines \x1b[2J"
	b, err := EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSnapshot("s1", b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "s1" || got.Version != 7 || !got.Taken.Equal(s.Taken) || got.By != "root" || got.Description != "two lines  [2J" || !got.Definition.Equal(s.Definition) {
		t.Errorf("%+v\n%s", got, b)
	}
	// It is a cluster file as it stands.
	if d, err := DecodeCluster("s1", b); err != nil || !d.Equal(s.Definition) {
		t.Errorf("%v", err)
	}
	s.Description = strings.Repeat("x", MaxDescription+1)
	if _, err := EncodeSnapshot(s); err == nil {
		t.Error("a description that is too long was kept")
	}
}

// No byte of it can change unseen.
func TestSnapshotChecksum(t *testing.T) {
	b, err := EncodeSnapshot(snapshotOf())
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := append([]byte(nil), b...)
		bad[i] ^= 1
		if _, err := DecodeSnapshot("s", bad); err == nil {
			t.Fatalf("byte %d (%q) was changed, and nobody saw", i, b[i])
		}
	}
	for _, cut := range []int{0, 1, 20, len(b) / 2, len(b) - 1} {
		if _, err := DecodeSnapshot("s", b[:cut]); err == nil {
			t.Errorf("cut at %d, and nobody saw", cut)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	b, _ := EncodeSnapshot(snapshotOf())
	f.Add(b)
	f.Add([]byte(snapshotMark + "\n# sha256: x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSnapshot("s", b)
		if err == nil && s.Definition == nil {
			t.Error("a snapshot without a definition")
		}
	})
}
