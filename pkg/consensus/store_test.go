package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// badLogs is a log store that hangs or fails on demand.
type badLogs struct {
	raft.LogStore
	hang atomic.Pointer[chan struct{}]
	err  atomic.Pointer[error]
	slow atomic.Int64 // nanoseconds
}

func (b *badLogs) StoreLogs(logs []*raft.Log) error {
	if gate := b.hang.Load(); gate != nil {
		<-*gate
	}
	if err := b.err.Load(); err != nil {
		return *err
	}
	time.Sleep(time.Duration(b.slow.Load()))
	return b.LogStore.StoreLogs(logs)
}

func (b *badLogs) StoreLog(l *raft.Log) error { return b.StoreLogs([]*raft.Log{l}) }

// withBadLogs makes a cluster whose servers' disks can be spoilt.
func withBadLogs(c *cluster) map[string]*badLogs {
	bad := map[string]*badLogs{}
	c.tune = func(cfg *Config) {
		b := &badLogs{}
		bad[cfg.ID] = b
		cfg.logs = func(inner raft.LogStore) raft.LogStore { b.LogStore = inner; return b }
	}
	return bad
}

// A hung store ends the process of the leader, and of a follower; the others go on.
func TestB6HungStoreEndsTheProcess(t *testing.T) {
	for _, victim := range []string{"a", "b"} {
		t.Run(victim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.close()
				bad := withBadLogs(c)
				ids := []string{"a", "b", "c"}
				lead := c.form(ids...)
				time.Sleep(2 * time.Second)
				gate := make(chan struct{})
				defer close(gate)
				bad[victim].hang.Store(&gate)
				start := time.Now()
				select {
				case reason := <-c.server(victim).exits:
					// The leader writes at least once a second, so the disk is seen to hang 2 s after it did.
					if took := time.Since(start); took > 2100*time.Millisecond {
						t.Errorf("the process ended after %v", took)
					}
					if !strings.Contains(reason, "hangs") || !strings.Contains(reason, filepath.Join(c.dir, victim)) {
						t.Errorf("the reason names neither hang nor directory: %q", reason)
					}
				case <-time.After(time.Minute):
					t.Fatal("the process goes on")
				}
				c.lan.Isolate(victim) // the process is gone
				if victim == "a" {
					_, lead = c.anyLead(5*time.Second, "b", "c")
				}
				c.propose(lead, "after")
			})
		})
	}
}

// While its disk hangs a leader commits nothing of its own, and says so: whoever grants looks at LastCommit.
func TestB6LeaderWithAHungStoreShowsOldCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.tune = nil
		bad := withBadLogs(c)
		tune := c.tune
		c.tune = func(cfg *Config) { tune(cfg); cfg.StoreTimeout = time.Hour } // the guard, too, is stuck
		lead := c.form("a", "b", "c")
		gate := make(chan struct{})
		bad["a"].hang.Store(&gate)
		time.Sleep(10 * time.Second)
		if lead.Ctx.Err() != nil {
			t.Fatal("the case is a leader that raft keeps")
		}
		if idle := (timeClock{}).Now().Sub(lead.LastCommit()); idle < 8*time.Second {
			t.Errorf("the last commit is told as %v old", idle)
		}
		bad["a"].hang.Store(nil)
		close(gate)
	})
}

// A disk that is slow, but not so slow, costs no leadership: heartbeats do not wait for it.
func TestSlowStoreKeepsTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		bad := withBadLogs(c)
		lead := c.form("a", "b", "c")
		for _, b := range bad {
			b.slow.Store(int64(700 * time.Millisecond))
		}
		for i := range 20 {
			c.propose(lead, fmt.Sprint(i))
		}
		if err := context.Cause(lead.Ctx); err != nil {
			t.Errorf("the lead ended: %v", err)
		}
	})
}

// A store that fails ends the process, of a leader and of a follower, and raft does not lead again on it.
func TestFailedStoreEndsTheProcess(t *testing.T) {
	for _, victim := range []string{"a", "b"} {
		t.Run(victim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.close()
				bad := withBadLogs(c)
				lead := c.form("a", "b", "c")
				time.Sleep(2 * time.Second)
				err := error(&os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC})
				bad[victim].err.Store(&err)
				select {
				case reason := <-c.server(victim).exits:
					if !strings.Contains(reason, "no space left") || !strings.Contains(reason, filepath.Join(c.dir, victim)) {
						t.Errorf("reason %q", reason)
					}
				case <-time.After(time.Minute):
					t.Fatal("the process goes on")
				}
				c.lan.Isolate(victim)
				if victim == "a" {
					_, lead = c.anyLead(5*time.Second, "b", "c")
				}
				c.propose(lead, "after")
			})
		})
	}
}

// store makes a directory with some history: terms, votes, entries behind a snapshot.
func store(t *testing.T) (dir string, want []string) {
	t.Helper()
	base := t.TempDir() // the bubble's own directory ends with it
	dir = filepath.Join(base, "a")
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.dir = base
		defer c.close()
		c.tune = func(cfg *Config) {
			cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 16, 4, 100*time.Millisecond
		}
		lead := c.form("a")
		for i := range 40 {
			if i == 39 {
				time.Sleep(time.Second) // the snapshot that is due is taken: the last entry is in none
			}
			c.propose(lead, fmt.Sprint("entry ", i, strings.Repeat(".", 100)))
			time.Sleep(20 * time.Millisecond)
		}
		want = c.server("a").fsm.list()
		if c.server("a").node.Stats().SnapshotIndex == 0 {
			t.Fatal("no snapshot")
		}
	})
	return dir, want
}

// reopen opens a copy of a directory after spoil had it, and returns the log that it held.
func reopen(t *testing.T, dir string, spoil func(dir string)) (got []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		to := filepath.Join(c.dir, "a")
		must(t, os.CopyFS(to, os.DirFS(dir)))
		rehome(t, to)
		spoil(to)
		fsm := &journal{}
		cfg := c.config("a")
		cfg.FSM = fsm
		exits := make(chan string, 1)
		cfg.Exit = func(r string) { exits <- r }
		var n *Node
		if n, err = Open(cfg); err != nil {
			time.Sleep(time.Minute)
			return
		}
		select {
		case l := <-n.Leads():
			_, err = l.Propose(c.timeout(time.Minute), []byte("again"))
		case r := <-exits:
			err = errors.New(r)
		case <-time.After(time.Minute):
			err = errors.New("no lead")
		}
		got = fsm.list()
		must(t, n.Close())
		time.Sleep(time.Minute)
	})
	return got, err
}

// rehome makes the copy pass for the original: what is tested is not the identity.
func rehome(t *testing.T, dir string) {
	t.Helper()
	id, err := LoadIdentity(dir)
	must(t, err)
	id.Place, err = placeOf(dir, "")
	must(t, err)
	must(t, id.save())
}

func TestReopenedStoreHasEverything(t *testing.T) {
	dir, want := store(t)
	got, err := reopen(t, dir, func(string) {})
	must(t, err)
	if !slices.Equal(got, append(want, "again")) {
		t.Errorf("got %d entries, want %d and one", len(got), len(want))
	}
}

// A damaged store is refused with an error that names the file and says what to do; it never panics, hangs, or opens with
// something missing.
func TestDamagedStoreIsRefused(t *testing.T) {
	dir, want := store(t)
	check := func(name string, got []string, err error) {
		t.Helper()
		switch {
		case err == nil && !slices.Equal(got, append(slices.Clone(want), "again")):
			t.Errorf("%s: opened with another log: %d entries, want %d", name, len(got)-1, len(want))
		case err != nil && (!strings.Contains(err.Error(), boltName) || !strings.Contains(err.Error(), "join the node")):
			t.Errorf("%s: the error does not name the file or does not say what to do: %v", name, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, boltName))
	must(t, err)
	for _, size := range []int64{0, 1, 100, 4096, 8192, 12000, info.Size() / 2, info.Size() - 4096} {
		got, err := reopen(t, dir, func(to string) { must(t, os.Truncate(filepath.Join(to, boltName), size)) })
		check(fmt.Sprint("cut to ", size), got, err)
		if err == nil && size <= 12000 {
			t.Errorf("a file cut to %d bytes of %d was opened", size, info.Size())
		}
	}
	got, err := reopen(t, dir, func(to string) { must(t, os.Remove(filepath.Join(to, boltName))) })
	if check("removed", got, err); err == nil {
		t.Error("a removed file was made anew")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		at, bit := rng.Int64N(info.Size()), byte(1)<<rng.IntN(8)
		if i%2 == 0 {
			at = 2*4096 + rng.Int64N(4)*4096 + rng.Int64N(64) // headers and first elements of pages
		}
		got, err := reopen(t, dir, func(to string) { flip(t, filepath.Join(to, boltName), at, bit) })
		check(fmt.Sprintf("bit %#x of byte %d flipped", bit, at), got, err)
	}
}

// A bit that rots inside an entry's data is found too, before it is applied.
func TestRottenEntryIsRefused(t *testing.T) {
	dir, _ := store(t)
	got, err := reopen(t, dir, func(to string) {
		path := filepath.Join(to, boltName)
		b, err := os.ReadFile(path)
		must(t, err)
		spoilt := 0
		for at := 0; ; spoilt++ {
			i := strings.Index(string(b[at:]), "entry 39...")
			if i < 0 {
				break
			}
			at += i + 1
			flip(t, path, int64(at+20), 1)
		}
		if spoilt == 0 {
			t.Fatal("the entry is not in the file")
		}
	})
	if err == nil || !strings.Contains(err.Error(), "checksum") || !strings.Contains(err.Error(), "join the node") {
		t.Errorf("got %d entries, error %v", len(got), err)
	}
}

func flip(t *testing.T, path string, at int64, bit byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= bit
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// The newest snapshot is damaged: an older one does, if the entries reach back to it; else the store is refused.
func TestDamagedSnapshot(t *testing.T) {
	dir, _ := store(t)
	got, err := reopen(t, dir, func(to string) {
		list, err := filepath.Glob(filepath.Join(to, snapshotsDir, "*", "state.bin"))
		must(t, err)
		if len(list) == 0 {
			t.Fatal("no snapshot")
		}
		for _, p := range list {
			flip(t, p, 40, 4)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "join the node") {
		t.Errorf("got %d entries, error %v", len(got), err)
	}
}

func TestStoreInUseIsSaid(t *testing.T) {
	dir := t.TempDir()
	s, err := openBolt(filepath.Join(dir, boltName))
	must(t, err)
	defer s.Close()
	if _, err := openBolt(filepath.Join(dir, boltName)); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("error %v", err)
	}
}

func TestUnusableDirectoryIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		cfg := c.config("a")
		cfg.FSM, cfg.Dir = &journal{}, filepath.Join(file, "raft")
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("error %v", err)
		}
		cfg.Listener.Close()
	})
}

func TestConfigurationIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		good := c.config("a")
		good.FSM = &journal{}
		defer good.Listener.Close()
		for name, spoil := range map[string]func(*Config){
			"server id": func(c *Config) { c.ID = "" }, "cluster id": func(c *Config) { c.ClusterID = "" },
			"directory": func(c *Config) { c.Dir = "" }, "peers": func(c *Config) { c.Ask = nil },
			"machine": func(c *Config) { c.FSM = nil }, "clock": func(c *Config) { c.Clock = nil },
			"timings": func(c *Config) { c.Params.RaftLease = time.Hour },
		} {
			bad := good
			spoil(&bad)
			if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	})
}

func FuzzCheckBolt(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, boltName)
	s, err := openBolt(path)
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(50) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte("data")}); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), byte(0), uint32(len(whole)))
	f.Add(uint32(4096*2+10), byte(0xff), uint32(len(whole)))
	f.Add(uint32(4096*3), byte(1), uint32(5000))
	f.Fuzz(func(t *testing.T, at uint32, with byte, size uint32) {
		b := slices.Clone(whole)
		b[int(at)%len(b)] ^= with
		b = b[:int(size)%(len(b)+1)]
		logs, err := checkBolt(strings.NewReader(string(b)), int64(len(b)))
		if err == nil && with == 0 && len(b) == len(whole) && len(logs) != 50 {
			t.Errorf("%d entries", len(logs))
		}
	})
}
