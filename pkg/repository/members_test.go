package repository

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// rebuilt is a node under a new certificate of the same name.
type rebuilt struct{ repositorytest.Authority }

func (r rebuilt) Card() []byte { return []byte("new card of " + string(r.Authority)) }

func (r rebuilt) Open(sealed []byte) ([]byte, error) {
	if n := len(sealed) - keySize; n > 0 {
		if again, err := r.Seal(r.Card(), sealed[n:]); err == nil && bytes.Equal(again, sealed) {
			return sealed[n:], nil
		}
	}
	return nil, errors.New("it is not sealed for the new card")
}

func openRebuilt(t *testing.T, d *repositorytest.Disk, dir, node string, role Role) (*Volume, error) {
	t.Helper()
	o := openOptions(t, d, dir, node, role)
	o.Dir, o.Authority = filepath.Join(dir, node+" rebuilt"), rebuilt{repositorytest.Authority(node)}
	v, err := Open(o)
	if err == nil {
		t.Cleanup(func() { v.Close() })
	}
	return v, err
}

// A node that comes back under a new certificate gets a place of its own: it can open the volume, host the voter and inherits; the
// former one is out; and what the former one wrote there does not count against it.
func TestARebuiltNodeGetsAPlaceOfItsOwn(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b"), t.TempDir()
	a := claim(t, openDisk(t, d, dir, "a", RoleVoter))
	if err := a.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	former := openDisk(t, d, dir, "b", RoleVoter)
	if _, err := openRebuilt(t, d, dir, "b", RoleVoter); err == nil {
		t.Fatal("the rebuilt node opened the volume before it was sealed to it")
	}
	keeper := openDisk(t, d, dir, "a", RoleKeeper)
	again := Member{Name: "b", Card: rebuilt{"b"}.Card()}
	if err := keeper.Change(Change{Add: []Member{again}}); err == nil {
		t.Fatal("a member's card was exchanged in its place")
	}
	if err := keeper.Change(Change{Add: []Member{again}, Remove: []string{"b"}, Term: 3}); err != nil {
		t.Fatal(err)
	}
	if got := keeper.head.Load().member("b").Index; got == former.index {
		t.Fatalf("the rebuilt node writes in the place of the former one, %d", got)
	}
	if err := a.HandOver("b"); err != nil {
		t.Fatal(err)
	}
	v, err := openRebuilt(t, d, dir, "b", RoleVoter)
	if err != nil {
		t.Fatal(err)
	}
	b := claim(t, v)
	wantRecords(t, b, "one")
	if err := b.Append([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := former.Host(); err == nil {
		t.Fatal("the former node reads on")
	}
	// And back, and once more: places that were used are used again, but not by who has just left them.
	if err := b.HandOver("a"); err != nil {
		t.Fatal(err)
	}
	a = claim(t, openVoterAgain(t, d, dir))
	wantRecords(t, a, "one", "two")
	for range 2 {
		before := keeper.head.Load().member("b").Index
		for _, who := range []Member{{Name: "b", Card: repositorytest.Authority("b").Card()}, again} {
			if err := keeper.Change(Change{Add: []Member{who}, Remove: []string{"b"}, Term: 3}); err != nil {
				t.Fatal(err)
			}
			if now := keeper.head.Load().member("b").Index; now == before {
				t.Fatalf("the place %d was given again at once", now)
			} else {
				before = now
			}
			if err := a.Append([]byte("more")); err != nil {
				t.Fatal(err)
			}
		}
	}
	v.Close()
	if v, err = openRebuilt(t, d, dir, "b", RoleVoter); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Host(); err != nil {
		t.Fatal(err)
	}
}

// openVoterAgain opens the volume as a new process of node a.
func openVoterAgain(t *testing.T, d *repositorytest.Disk, dir string) *Volume {
	t.Helper()
	o := openOptions(t, d, dir, "a", RoleVoter)
	o.Dir = filepath.Join(dir, "a, later")
	v, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// A deposed leader's change lands late, in whichever order: the newer leader's is in force, for everybody, and no block becomes
// unreadable under a key that both made.
func TestADeposedLeadersChangeIsNeverInForce(t *testing.T) {
	for _, first := range []string{"deposed first", "deposed last"} {
		t.Run(first, func(t *testing.T) {
			d, dir := memoryDisk(t, "a", "b", "c"), t.TempDir()
			o := openOptions(t, d, dir, "a", RoleKeeper)
			h := d.Open()
			hold, held := make(chan struct{}), make(chan struct{})
			var once sync.Once
			var l layout
			h.Before = func(write bool, off int64, _ int) error {
				if write && l.blocks > 0 && off >= l.header(0, 0)*BlockSize && off < l.areas()*BlockSize {
					once.Do(func() { close(held) })
					<-hold
				}
				return nil
			}
			o.Device = h
			old, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			l = old.layout
			ended := make(chan error, 1)
			go func() { ended <- old.Change(Change{NewKey: true, Term: 5}) }()
			<-held
			c := openDisk(t, d, dir, "c", RoleAgent)
			newer := openDisk(t, d, dir, "b", RoleKeeper)
			land := func() {
				close(hold)
				if err := <-ended; first == "deposed last" && !errors.Is(err, ErrNewerTerm) {
					t.Errorf("the deposed leader was told: %v", err)
				}
			}
			if first == "deposed first" {
				land()
				if err := c.Refresh(); err != nil {
					t.Fatal(err)
				}
				if err := c.WriteBeat(Beat{Boot: "under the deposed leader's key"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := newer.Change(Change{NewKey: true, Term: 6}); err != nil {
				t.Fatal(err)
			}
			if first == "deposed last" {
				if err := c.Refresh(); err != nil {
					t.Fatal(err)
				}
				if err := c.WriteBeat(Beat{Boot: "under the newer leader's key"}); err != nil {
					t.Fatal(err)
				}
				land()
			}
			if err := old.Change(Change{NewKey: true, Term: 5}); !errors.Is(err, ErrNewerTerm) {
				t.Errorf("another change of the deposed leader: %v", err)
			}
			for _, node := range []string{"a", "b", "c"} {
				v := openDisk(t, d, filepath.Join(dir, "later"), node, RoleAgent)
				if got := v.head.Load(); got.Writer != "b" || got.Generation>>termShift != 6 {
					t.Errorf("node %s uses the header of %s, generation %#x", node, got.Writer, got.Generation)
				}
				beats, err := v.ReadBeats()
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range beats {
					if s.Node == "c" && (s.Err != nil || s.Beat.Boot == "") {
						t.Errorf("node %s cannot read c's heartbeat: %v", node, s.Err)
					}
				}
			}
		})
	}
}

// What landed between another leader's read and its write, and was used: its key is taken over.
func TestAKeyThatWasUsedMeanwhileIsKept(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b", "c"), t.TempDir()
	late := openDisk(t, d, dir, "a", RoleKeeper)
	c := openDisk(t, d, dir, "c", RoleAgent)
	o := openOptions(t, d, dir, "b", RoleKeeper)
	h := d.Open()
	var l layout
	var once sync.Once
	h.Before = func(write bool, off int64, _ int) error {
		if write && l.blocks > 0 && off >= l.header(0, 0)*BlockSize && off < l.areas()*BlockSize {
			once.Do(func() { // right before b's header is written
				if err := late.Change(Change{NewKey: true, Term: 5}); err != nil {
					t.Error(err)
				}
				if err := c.Refresh(); err != nil {
					t.Error(err)
				}
				if err := c.WriteBeat(Beat{Boot: "x"}); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	}
	o.Device = h
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	l = b.layout
	if err := b.Change(Change{NewKey: true, Term: 6}); err != nil {
		t.Fatal(err)
	}
	beats, err := b.ReadBeats()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range beats {
		if s.Node == "c" && (s.Err != nil || !bytes.Equal([]byte(s.Beat.Boot), []byte("x"))) {
			t.Errorf("c's heartbeat: %+v %v", s.Beat, s.Err)
		}
	}
}

// The layout leaves the voter the room that it is asked for, in as few places as the members need, or says how large the volume must be.
func TestLayoutUsesTheRoomThereIs(t *testing.T) {
	for _, c := range []struct {
		mib     int64
		members int
		room    int64
		nodes   int    // 0: refused
		says    string // by what
	}{
		{64, 2, 0, 8, ""},
		{64, 2, 1 << 20, 8, ""},
		{64, 2, 3 << 20, 4, ""}, // eight places would leave 1.9 MiB
		{64, 7, 3 << 20, 0, "are needed"},
		{64, 2, 6 << 20, 0, "(100 MiB) are needed"},
		{100, 2, 6 << 20, 4, ""},
		{512, 2, 6 << 20, 16, ""},
		{512, 32, 0, 32, ""},
		{10 << 10, 2, 20 << 20, 0, "is the most that any volume takes"},
	} {
		l, err := chooseLayout(c.mib<<20/BlockSize, c.members, c.room)
		switch {
		case c.nodes == 0 && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%d MiB, %d members, %d bytes: %v", c.mib, c.members, c.room, err)
		case c.nodes != 0 && (err != nil || l.nodes != c.nodes || l.room() < c.room):
			t.Errorf("%d MiB, %d members, %d bytes: %d places with %d bytes each, %v", c.mib, c.members, c.room, l.nodes, l.room(), err)
		}
	}
	d := repositorytest.NewDisk(MinLabSize)
	o := FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: "a", Members: members("a", "b"),
		Authority: repositorytest.Authority("a"), Lab: true, Room: 1 << 20}
	if _, err := Format(o); err == nil || !strings.Contains(err.Error(), "MiB) are needed") {
		t.Errorf("a volume that is too small: %v", err)
	}
	if !bytes.Equal(d.Bytes(0, MinLabSize), make8MiB()) {
		t.Error("a refused format wrote")
	}
}
