package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// memoryDisk formats a disk in memory for the named nodes.
func memoryDisk(t testing.TB, names ...string) *repositorytest.Disk {
	t.Helper()
	d := repositorytest.NewDisk(MinLabSize)
	_, err := Format(FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: names[0], Members: members(names...),
		Authority: repositorytest.Authority(names[0]), Timings: testTimings, Lab: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func openOptions(t testing.TB, d *repositorytest.Disk, dir, node string, role Role) Options {
	t.Helper()
	return Options{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: node, Authority: repositorytest.Authority(node),
		Dir: filepath.Join(dir, node), Role: role}
}

func openDisk(t testing.TB, d *repositorytest.Disk, dir, node string, role Role) *Volume {
	t.Helper()
	v, err := Open(openOptions(t, d, dir, node, role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func TestFormatRefusesWhatHoldsData(t *testing.T) {
	put := func(off int, text string) func([]byte) { return func(b []byte) { copy(b[off:], text) } }
	for name, make := range map[string]func([]byte){
		"ext":            put(1080, "\x53\xef"),
		"XFS":            put(0, "XFSB"),
		"LVM":            put(512, "LABELONE"),
		"GPT":            put(512, "EFI PART"),
		"copy of a GPT":  put(MinLabSize-512, "EFI PART"),
		"partition":      put(510, "\x55\xaa"),
		"swap":           put(4086, "SWAPSPACE2"),
		"AIX LVM":        put(3584, "_LVM"),
		"btrfs":          put(65536+64, "_BHRfS_M"),
		"repository vol": put(0, "HFRV"),
	} {
		d := repositorytest.NewDisk(MinLabSize)
		raw := make8MiB()
		make(raw)
		d.Set(0, raw)
		o := FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: "a", Members: members("a", "b"),
			Authority: repositorytest.Authority("a"), Lab: true}
		if _, err := Format(o); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(d.Bytes(0, MinLabSize), raw) {
			t.Errorf("%s: a refused format wrote", name)
		}
		o.Force, o.Device = true, d.Open()
		if _, err := Format(o); err != nil {
			t.Errorf("%s, forced: %v", name, err)
		}
	}
}

func make8MiB() []byte { return make([]byte, MinLabSize) }

// TestFormatKnowsRealFileSystems asks the real tools to make what is refused.
func TestFormatKnowsRealFileSystems(t *testing.T) {
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F"}, {"mkswap", "-q"}, {"mkfs.xfs", "-q", "-f"}} {
		tool, err := exec.LookPath(argv[0])
		if err != nil {
			t.Logf("%s is not here", argv[0])
			continue
		}
		path := testFile(t, 320<<20)
		if out, err := exec.Command(tool, append(argv[1:], path)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", argv[0], err, out)
			continue
		}
		_, err = Format(FormatOptions{Path: path, Cluster: testCluster, Node: "a", Members: members("a", "b"), Authority: repositorytest.Authority("a"), Lab: true})
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v", argv[0], err)
		}
	}
}

func TestFormatSizesAndMembers(t *testing.T) {
	good := func() FormatOptions {
		d := repositorytest.NewDisk(MinLabSize)
		return FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: "a", Members: members("a", "b"),
			Authority: repositorytest.Authority("a"), Lab: true}
	}
	for name, change := range map[string]func(*FormatOptions){
		"too small outside the lab": func(o *FormatOptions) { o.Lab = false },
		"too small":                 func(o *FormatOptions) { o.Size = MinLabSize - 1 },
		"no UUID":                   func(o *FormatOptions) { o.Cluster = "x" },
		"not a member":              func(o *FormatOptions) { o.Node = "c" },
		"a name twice":              func(o *FormatOptions) { o.Members = members("a", "a") },
		"too many members":          func(o *FormatOptions) { o.Nodes = 2; o.Members = members("a", "b", "c") },
		"one node":                  func(o *FormatOptions) { o.Nodes = 1 },
		"33 nodes":                  func(o *FormatOptions) { o.Nodes = 33 },
		"no room for 32":            func(o *FormatOptions) { o.Nodes = 32 },
		"odd timings":               func(o *FormatOptions) { o.Timings = Timings{Host: time.Second, IO: 2 * time.Second, Beat: time.Second} },
	} {
		o := good()
		change(&o)
		if _, err := Format(o); err == nil {
			t.Errorf("%s was not refused", name)
		}
	}
	if _, err := Format(good()); err != nil {
		t.Fatal(err)
	}
}

func TestOpenDeviceRefuses(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(testFile(t, 4096), link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenDevice(link, true, true); err == nil {
		t.Fatal("a symbolic link was followed")
	}
	if _, _, err := OpenDevice("/dev/null", true, true); err == nil {
		t.Fatal("a character device was taken")
	}
	if _, _, err := OpenDevice(t.TempDir(), true, true); err == nil {
		t.Fatal("a directory was taken")
	}
}

func TestOpenRefuses(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b"), t.TempDir()
	o := openOptions(t, d, dir, "c", RoleAgent)
	if _, err := Open(o); !errors.Is(err, ErrNotMember) {
		t.Errorf("a node that is no member: %v", err)
	}
	o = openOptions(t, d, dir, "a", RoleAgent)
	o.Cluster = strings.Replace(testCluster, "1", "2", 1)
	if _, err := Open(o); !errors.Is(err, ErrNotFormatted) {
		t.Errorf("another cluster: %v", err)
	}
	blank := repositorytest.NewDisk(MinLabSize)
	o = openOptions(t, blank, dir, "a", RoleAgent)
	if _, err := Open(o); !errors.Is(err, ErrNotFormatted) {
		t.Errorf("a blank disk: %v", err)
	}
}

func TestBeatsAndMail(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b"), t.TempDir()
	a, b := openDisk(t, d, dir, "a", RoleAgent), openDisk(t, d, dir, "b", RoleAgent)
	see := func() map[string]Seen {
		t.Helper()
		list, err := b.ReadBeats()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]Seen{}
		for _, s := range list {
			if s.Err != nil {
				t.Fatal(s.Err)
			}
			out[s.Node] = s
		}
		return out
	}
	if see()["a"].Advanced {
		t.Fatal("the first look shows an advance")
	}
	beat := Beat{Incarnation: 3, Boot: "x", Held: []Held{{"g", 7}}, Networks: []Network{{"net1", true}}, WantsHost: true}
	if err := a.WriteBeat(beat); err != nil {
		t.Fatal(err)
	}
	s := see()["a"]
	if !s.Advanced || s.Beat.Incarnation != 3 || fmt.Sprint(s.Beat.Held) != "[{g 7}]" || !s.Beat.WantsHost {
		t.Fatalf("b sees %+v", s)
	}
	if see()["a"].Advanced {
		t.Fatal("an advance without a new heartbeat")
	}

	letters := []Letter{{LetterRequest, []byte("please")}, {LetterReport, nil}}
	if err := a.WriteMail("b", letters...); err != nil {
		t.Fatal(err)
	}
	mail, err := b.ReadMail()
	if err != nil || len(mail) != 1 || mail[0].From != "a" || fmt.Sprint(mail[0].Letters) != fmt.Sprint(letters) {
		t.Fatalf("b reads %+v, %v", mail, err)
	}
	if err := a.WriteMail("b", Letter{LetterGrant, bytes.Repeat([]byte("x"), MaxMail-3)}); err != nil {
		t.Fatal(err)
	}
	if again, err := b.ReadMail(); err != nil || again[0].Seq <= mail[0].Seq {
		t.Fatalf("b reads %+v, %v", again, err)
	}
	if err := a.WriteMail("b", Letter{LetterGrant, bytes.Repeat([]byte("x"), MaxMail-2)}); err == nil {
		t.Fatal("mail over the limit was taken")
	}
	if mail, err := a.ReadMail(); err != nil || len(mail) != 0 {
		t.Fatalf("a has mail %v, %v", mail, err)
	}

	var many Beat
	for i := range 300 {
		many.Held = append(many.Held, Held{fmt.Sprintf("group_with_a_long_name_%03d", i), uint64(i)})
	}
	if err := a.WriteBeat(many); err != nil {
		t.Fatal(err)
	}
	if s := see()["a"]; len(s.Beat.Held)+s.Beat.HeldMore != 300 || len(s.Beat.Held) < 50 {
		t.Fatalf("of 300 groups %d are named and %d counted", len(s.Beat.Held), s.Beat.HeldMore)
	}
}

// TestA10ARestoredVolumeHasFailed: the volume is put back to an older copy (an array's snapshot), all blocks of which are valid.
func TestA10ARestoredVolumeHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := memoryDisk(t, "a", "b"), t.TempDir()
		open := func(node string, role Role) *Volume { return openDisk(t, d, dir, node, role) }
		va := open("a", RoleVoter)
		a := claim(t, va)
		if err := a.Append([]byte("one")); err != nil {
			t.Fatal(err)
		}
		agent := open("b", RoleAgent)
		if err := agent.WriteBeat(Beat{}); err != nil {
			t.Fatal(err)
		}
		snapshot := d.Bytes(0, d.Size())

		for range 3 {
			if err := agent.WriteBeat(Beat{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Compact([][]byte{[]byte("two")}); err != nil {
			t.Fatal(err)
		}
		d.Set(0, snapshot)
		if err := a.Check(); !errors.Is(err, ErrFailed) {
			t.Errorf("the running voter: %v", err)
		}
		a.Close()
		va.Close()
		if _, err := open("a", RoleVoter).Claim(t.Context()); !errors.Is(err, ErrFailed) {
			t.Errorf("a new claim of the same node: %v", err)
		}
		if _, err := agent.ReadBeats(); err != nil {
			t.Errorf("one look may be a write that came late: %v", err)
		}
		time.Sleep(2 * testTimings.Host)
		if _, err := agent.ReadBeats(); !errors.Is(err, ErrFailed) {
			t.Errorf("the agent that wrote: %v", err)
		}
	})
}

// TestB7ANodeAloneOpensWhatAnotherRotated: one node makes a new key and stops; the other comes up alone and has never heard of it.
func TestB7ANodeAloneOpensWhatAnotherRotated(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b"), t.TempDir()
	va := openDisk(t, d, dir, "a", RoleVoter)
	a := claim(t, va)
	if err := a.Append([]byte("old key")); err != nil {
		t.Fatal(err)
	}
	agent, keeper := openDisk(t, d, dir, "a", RoleAgent), openDisk(t, d, dir, "a", RoleKeeper)
	if err := keeper.Change(Change{NewKey: true}); err != nil {
		t.Fatal(err)
	}
	if err := agent.Refresh(); err != nil {
		t.Fatal(err)
	}
	if err := agent.WriteBeat(Beat{}); err != nil { // under the new key, which the voter's process has not heard of
		t.Fatal(err)
	}
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := va.Host(); err != nil { // reads the heartbeats too
		t.Fatal(err)
	}
	if got := va.head.Load().Newest; got != keeper.head.Load().Newest || got == 1 {
		t.Fatalf("the voter's process uses key %d", got)
	}
	if err := a.Append([]byte("new key")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	va.Close()
	agent.Close()

	b := claim(t, openDisk(t, d, dir, "b", RoleVoter))
	wantRecords(t, b, "old key", "new key")
}

func TestMembersComeAndGo(t *testing.T) {
	d, dir := memoryDisk(t, "a", "b"), t.TempDir()
	agent, keeper := openDisk(t, d, dir, "a", RoleAgent), openDisk(t, d, dir, "a", RoleKeeper)
	vb := openDisk(t, d, dir, "b", RoleVoter)
	b := claim(t, vb)
	if err := b.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Change(Change{Add: members("c")}); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Change(Change{Remove: []string{"b"}}); err == nil || !strings.Contains(err.Error(), "newest claim") {
		t.Fatalf("the host was removed: %v", err)
	}
	if err := b.HandOver("c"); err != nil {
		t.Fatal(err)
	}
	if err := agent.Refresh(); err != nil {
		t.Fatal(err)
	}
	if h, err := agent.Host(); err != nil || h.Next != "c" || !h.Released {
		t.Fatalf("the host is %+v, %v", h, err)
	}
	vc := openDisk(t, d, dir, "c", RoleVoter)
	c := claim(t, vc)
	wantRecords(t, c, "one")
	if err := keeper.Change(Change{Remove: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	vb.Close()
	if _, err := Open(openOptions(t, d, dir, "b", RoleVoter)); !errors.Is(err, ErrNotMember) {
		t.Fatalf("a removed node: %v", err)
	}
	if err := c.Append([]byte("two")); err != nil {
		t.Fatal(err)
	}
	// Many new keys while one member is away: it can still read the header, and its old blocks can still be read.
	for i := range 20 {
		err := keeper.Change(Change{NewKey: true})
		if err != nil && !errors.Is(err, ErrKeyInUse) {
			t.Fatal(err)
		}
		if err != nil {
			t.Logf("refused at change %d", i)
			break
		}
		if i == 19 {
			t.Fatal("keys without end")
		}
	}
	if err := c.Compact([][]byte{[]byte("all")}); err != nil {
		t.Fatal(err)
	}
	if err := agent.WriteBeat(Beat{}); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, c, "all")
}

// The host that gave the claim to another does not take it back before that one had T_host to take it; then anybody may.
func TestHandOverIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := memoryDisk(t, "a", "b"), fastTemp(t)
		va := openDisk(t, d, dir, "a", RoleVoter)
		defer va.Close()
		a := claim(t, va)
		if err := a.HandOver("b"); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), va.Timings().Host/2)
		defer cancel()
		if _, err := va.Claim(soon); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the old host claimed at once: %v", err)
		}
		vb := openDisk(t, d, dir, "b", RoleVoter)
		defer vb.Close()
		began := time.Now()
		b := claim(t, vb)
		if took := time.Since(began); took > vb.Timings().Host/4 {
			t.Errorf("the new host waited %v", took)
		}
		if err := b.HandOver("a"); err != nil { // which is asleep, it turns out
			t.Fatal(err)
		}
		began = time.Now()
		b = claim(t, vb)
		if took := time.Since(began); took < vb.Timings().Host {
			t.Errorf("the old host waited only %v", took)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestGarbageInEveryBlockInTurn: whatever one block becomes, a claim inherits all that was acknowledged.
func TestGarbageInEveryBlockInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, base := memoryDisk(t, "a", "b"), fastTemp(t)
		va := openDisk(t, d, base, "a", RoleVoter)
		a := claim(t, va)
		long := string(bytes.Repeat([]byte("long "), 3000))
		for _, r := range []string{"one", long, "three"} {
			if err := a.Append([]byte(r)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(testTimings.Host)
		whole := d.Bytes(0, d.Size())
		garbage := bytes.Repeat([]byte{0xa5, 0x5a, 0x00, 0xff}, BlockSize/4)
		failed, tried := 0, 0
		for block := range d.Size() / BlockSize {
			if blank := alignedBlocks(1); block%16 != 0 && bytes.Equal(whole[block*BlockSize:(block+1)*BlockSize], blank) {
				continue // of the blocks that were never written, some are enough
			}
			tried++
			broken := repositorytest.NewDisk(d.Size())
			broken.Set(0, whole)
			broken.Set(block*BlockSize, garbage)
			dir := filepath.Join(base, fmt.Sprint(block))
			v, err := Open(openOptions(t, broken, dir, "b", RoleVoter))
			if err != nil {
				t.Fatalf("block %d: %v", block, err)
			}
			b, err := v.takeOver()
			if err != nil {
				t.Errorf("block %d: %v", block, err)
				if failed++; failed > 5 {
					t.Fatal("and so on")
				}
				continue
			}
			wantRecords(t, b, "one", long, "three")
			b.Close()
			v.Close()
			_ = os.RemoveAll(dir)
		}
		t.Logf("%d blocks were spoilt, one at a time", tried)
		a.Close()
		va.Close()
	})
}

// fastTemp is a directory in memory where there is one.
func fastTemp(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(fastDir(), "holdfast")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestB8TheDiskLoadOfAnIdleClusterIsSmall counts the accesses of two nodes for a minute: heartbeats of both agents, one voter with the
// answers that an idle log needs, one that waits. The real log's answers are counted in the end-to-end tests; here 8 looks and half a
// record per second stand for them.
func TestB8TheDiskLoadOfAnIdleClusterIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timings := TimingsFor(1500 * time.Millisecond)
		d, dir := repositorytest.NewDisk(MinLabSize), fastTemp(t)
		if _, err := Format(FormatOptions{Device: d.Open(), Size: d.Size(), Cluster: testCluster, Node: "a", Members: members("a", "b"),
			Authority: repositorytest.Authority("a"), Timings: timings, Lab: true}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var count [2]atomic.Int64
		for i, node := range []string{"a", "b"} {
			open := func(role Role) *Volume {
				o := openOptions(t, d, dir, node, role)
				o.Device.(*repositorytest.Handle).Before = func(bool, int64, int) error { count[i].Add(1); return nil }
				v, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { v.Close() })
				return v
			}
			agent, voter := open(RoleAgent), open(RoleVoter)
			every := func(d time.Duration, f func() error) {
				wg.Go(func() {
					for sleep(ctx, d) == nil {
						if err := f(); err != nil && ctx.Err() == nil {
							t.Error(err)
						}
					}
				})
			}
			every(timings.Beat, func() error { return agent.WriteBeat(Beat{}) })
			every(timings.Beat, func() error { _, err := agent.ReadBeats(); return err })
			if i == 0 {
				w := claim(t, voter)
				every(time.Second/8, w.Check)
				every(2*time.Second, func() error { return w.Append([]byte("x")) })
				wg.Go(func() { <-ctx.Done(); w.Close() })
				continue
			}
			wg.Go(func() {
				if w, err := voter.Claim(ctx); err == nil {
					t.Error("the waiting voter claimed")
					w.Close()
				}
			})
		}
		time.Sleep(time.Second)
		begun := [2]int64{count[0].Load(), count[1].Load()}
		time.Sleep(time.Minute)
		for i := range count {
			perSecond := float64(count[i].Load()-begun[i]) / 60
			fmt.Printf("disk load: node %d: %.1f accesses per second\n", i, perSecond)
			if perSecond > 20 {
				t.Errorf("node %d has %.1f accesses per second", i, perSecond)
			}
		}
		stop()
		wg.Wait()
	})
}

// TestADiskThatNeverAnswersBlocksNobody: calls end, nothing newer is written after a write that hangs, and the lock stays.
func TestADiskThatNeverAnswersBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := memoryDisk(t, "a", "b"), fastTemp(t)
		o := openOptions(t, d, dir, "a", RoleVoter)
		hang := make(chan struct{})
		var hanging, writes atomic.Int64
		h := o.Device.(*repositorytest.Handle)
		v, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		w := claim(t, v)
		synctest.Wait() // the host heartbeat is not under way
		h.Before = func(write bool, _ int64, _ int) error {
			hanging.Add(1)
			if write {
				writes.Add(1)
			}
			<-hang
			return nil
		}
		begun := time.Now()
		if err := w.Append([]byte("x")); !errors.Is(err, ErrHung) {
			t.Fatalf("the append: %v", err)
		}
		if took := time.Since(begun); took > 2*testTimings.IO {
			t.Fatalf("the append took %v", took)
		}
		<-w.Done()
		if err := w.Check(); !errors.Is(err, ErrHung) {
			t.Fatalf("a look after the end: %v", err)
		}
		for range 20 {
			if w.Append([]byte("y")) == nil || w.Compact(nil) == nil {
				t.Fatal("a promise after the end")
			}
			time.Sleep(testTimings.IO)
		}
		if n := writes.Load(); n > 2 { // the record's, and the host heartbeat's
			t.Fatalf("%d writes are under way", n)
		}
		w.Close()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(openOptions(t, d, dir, "a", RoleVoter)); !errors.Is(err, ErrLocked) {
			t.Fatalf("a second process while the write of the first hangs: %v", err)
		}
		close(hang)
		synctest.Wait()
		v.memory.lock.Close() // as the kernel does when the process has ended at last
		next := openDisk(t, d, dir, "a", RoleVoter)
		if next.notBefore.IsZero() {
			t.Fatal("the next process does not wait")
		}
		again := claim(t, next)
		wantRecords(t, again, "x") // the write happened, though nobody promised it
		again.Close()
	})
}
