package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A smallArea is a voter's store of a few KiB: two areas, of which one is live, as on a volume.
type smallArea struct {
	size    int64
	live    [][]byte
	rewrote int
}

func (a *smallArea) used() int64                { return footprint(a.live) }
func (a *smallArea) Records() ([][]byte, error) { return a.live, nil }
func (a *smallArea) Check() error               { return nil }
func (a *smallArea) Close() error               { return nil }
func (a *smallArea) Room() (free, size int64)   { return a.size - a.used(), a.size }

func (a *smallArea) Append(recs ...[]byte) error {
	if a.used()+footprint(recs) > a.size {
		return errors.New("appended beyond the area")
	}
	a.live = append(a.live, recs...)
	return nil
}

func (a *smallArea) Compact(recs [][]byte) error {
	if footprint(recs) > a.size {
		return errors.New("written anew beyond the area")
	}
	a.live, a.rewrote = append([][]byte(nil), recs...), a.rewrote+1
	return nil
}

func opened(t *testing.T, a *smallArea) *records {
	t.Helper()
	r := newRecords(a)
	if err := r.replayAll(a.live); err != nil {
		t.Fatal(err)
	}
	if err := r.checkWhole(); err != nil {
		t.Fatal(err)
	}
	return r
}

func takeSnapshot(r *records, index uint64, data []byte) error {
	sink, err := r.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(data); err != nil {
		return err
	}
	return sink.Close()
}

// A snapshot that does not fit beside the one before takes its place in one write; what a crash leaves is one of the two.
func TestASnapshotNeedsNoRoomBesideTheOneBefore(t *testing.T) {
	a := &smallArea{size: 1 << 20}
	r := opened(t, a)
	for i := range uint64(5) {
		if err := r.StoreLog(&raft.Log{Index: i + 1, Term: 1, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{byte(i)}, 700<<10)
		if err := takeSnapshot(r, i+1, want); err != nil {
			t.Fatalf("snapshot %d: %v", i, err)
		}
		if got := opened(t, a); !bytes.Equal(got.snap.data, want) {
			t.Fatalf("snapshot %d is not what a new host finds", i)
		}
	}
	err := takeSnapshot(r, 6, make([]byte, 2<<20))
	if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "clmgr replace repository") {
		t.Errorf("a snapshot larger than the area: %v", err)
	}
	if got := opened(t, a); got.snap.meta.Index != 5 {
		t.Errorf("after the refusal a new host finds the snapshot at %d", got.snap.meta.Index)
	}
}

// Whatever is stored, in whatever order and however full the area is: what counts is there for the next host, or the call fails with
// ErrNoRoom because it cannot be there; and a volume that is full of what counts can be opened again.
func TestTheAreaNeverLosesWhatCounts(t *testing.T) {
	refused, rewrote, tight := 0, 0, 0
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 5))
		a := &smallArea{size: 200<<10 + rng.Int64N(400<<10)}
		r := opened(t, a)
		entries, values := map[uint64][]byte{}, map[string][]byte{}
		var snapAt, last uint64
		var snapData []byte
		for range 80 {
			var err error
			switch rng.IntN(8) {
			case 0:
				if last > snapAt {
					at, data := snapAt+1+rng.Uint64N(last-snapAt), make([]byte, rng.IntN(int(a.size)))
					if err = takeSnapshot(r, at, data); err == nil {
						snapAt, snapData = at, data
					}
				}
			case 1:
				v := fmt.Appendf(nil, "%d", rng.Uint64())
				if err = r.Set([]byte("vote"), v); err == nil {
					values["vote"] = v
				}
			case 2:
				if last > snapAt+1 { // a follower's log is cut behind what is committed
					if err = r.DeleteRange(last, last); err == nil {
						delete(entries, last)
						last--
					}
				}
			default:
				l := &raft.Log{Index: last + 1, Term: 1, Type: raft.LogNoop, Extensions: make([]byte, rng.IntN(30<<10))}
				if err = r.StoreLog(l); err == nil {
					last++
					entries[last] = l.Extensions
				}
			}
			select {
			case <-r.tight:
				tight++
			default:
			}
			if err != nil && !errors.Is(err, ErrNoRoom) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err != nil { // the process ends, and another host opens what is there
				refused++
				r = opened(t, a)
				if _, err := r.makeRoom(nil); err != nil {
					t.Fatalf("seed %d: a full volume cannot be opened again: %v", seed, err)
				}
			}
			got := opened(t, a)
			for i := snapAt + 1; i <= last; i++ {
				if l := got.entries[i]; l == nil || !bytes.Equal(l.Extensions, entries[i]) {
					t.Fatalf("seed %d: entry %d is lost (snapshot at %d, last %d)", seed, i, snapAt, last)
				}
				if l := r.entries[i]; l == nil {
					t.Fatalf("seed %d: entry %d is on the volume and not in memory", seed, i)
				}
			}
			if snapAt > 0 && !bytes.Equal(got.snap.data, snapData) || !bytes.Equal(got.values["vote"], values["vote"]) {
				t.Fatalf("seed %d: the snapshot or the vote is lost", seed)
			}
		}
		rewrote += a.rewrote
	}
	t.Logf("%d calls were refused for want of room, the area was written anew %d times, a snapshot was asked for %d times", refused, rewrote, tight)
	if refused == 0 || rewrote == 0 || tight == 0 {
		t.Error("it was never full")
	}
}
