package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Names in the directory.
const (
	boltName     = "raft.db"
	snapshotsDir = "snapshots" // FileSnapshotStore's own name for it
)

// howToReplace tells the operator what to do with a store that cannot be trusted.
const howToReplace = "this node's copy of the log cannot be trusted. Keep a copy of the directory for the support, remove the directory, " +
	"and join the node to the cluster again: the other nodes have the data"

// disk holds the open stores of a directory, or of the repository volume.
type disk struct {
	identity  *Identity             // nil on the volume
	bolt      *raftboltdb.BoltStore // nil on the volume
	volume    VoterStore            // nil in a directory
	tight     chan struct{}         // told when a snapshot would make room; nil in a directory
	logs      raft.LogStore
	stable    *stableStore
	snapshots *snapshotStore
}

func (d *disk) close() error {
	if d.volume != nil {
		return d.volume.Close()
	}
	return d.bolt.Close()
}

// openDisk opens the stores, after it has checked them.
func openDisk(cfg Config, g *guard, t *terms) (*disk, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the log: %w", err)
	}
	path := filepath.Join(cfg.Dir, boltName)
	indexes, err := checkBoltFile(path)
	if err != nil {
		return nil, damaged(path, err)
	}
	d := &disk{}
	if d.identity, err = findIdentity(cfg, path, len(indexes) > 0); err != nil {
		return nil, err
	}
	if d.bolt, err = openBolt(path); err != nil {
		return nil, err
	}
	if err := d.open(cfg, g, t, path, indexes); err != nil {
		_ = d.bolt.Close() // nothing was written; the first error is the one to tell
		return nil, err
	}
	return d, nil
}

// findIdentity reads and checks the record of a store that is in use; nil means a new store.
func findIdentity(cfg Config, path string, entries bool) (*Identity, error) {
	id, err := LoadIdentity(cfg.Dir)
	switch {
	case errors.Is(err, ErrNoIdentity) && entries:
		return nil, fmt.Errorf("%w, but it holds a log; %s", err, howToReplace)
	case errors.Is(err, ErrNoIdentity):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil, fmt.Errorf("the log %s is missing or empty, though this server has taken part before; %s", path, howToReplace)
	}
	return id, id.check(cfg.ClusterID, cfg.ID, cfg.MachineID)
}

func (d *disk) open(cfg Config, g *guard, t *terms, path string, indexes []uint64) error {
	var err error
	if d.stable, err = openStable(d.bolt, g, t.note); err != nil {
		return damaged(path, err)
	}
	if d.identity == nil {
		if t.highest() > 0 {
			return fmt.Errorf("open the log %s: %w, but it holds a term; %s", path, ErrNoIdentity, howToReplace)
		}
		// After the log's file: whoever crashes in between starts anew, and a record without a log is a loss.
		if d.identity, err = createIdentity(cfg.Dir, cfg.ClusterID, cfg.ID, cfg.MachineID); err != nil {
			return err
		}
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, keptSnapshots, newRaftLogger(cfg.Logger))
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", filepath.Join(cfg.Dir, snapshotsDir), err)
	}
	if err := checkEntries(d.bolt, indexes, newestSnapshot(files)); err != nil {
		return damaged(path, err)
	}
	voter := t.onConfiguration(cfg.ID)
	d.snapshots = newSnapshotStore(files, g, voter)
	inner := raft.LogStore(d.bolt)
	if cfg.logs != nil {
		inner = cfg.logs(inner)
	}
	d.logs, err = raft.NewLogCache(cachedEntries, &logStore{LogStore: inner, guard: g, onConfiguration: voter})
	return err
}

// openBolt opens the file. Small pages everywhere: a machine with pages of 64 KiB would otherwise write 64 KiB for each
// page that a commit touches.
func openBolt(path string) (store *raftboltdb.BoltStore, err error) {
	err = unpanicked(func() (err error) {
		store, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
			Timeout: time.Second, NoFreelistSync: true, PageSize: 4096, NoStatistics: true,
		}})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open the log %s: another process holds it; is the daemon already running?", path)
	case err != nil && (errors.Is(err, os.ErrPermission) || errors.As(err, new(*os.PathError))):
		return nil, fmt.Errorf("open the log: %w; the directory must be writable and have room", err)
	case err != nil:
		return nil, damaged(path, err)
	}
	return store, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("the log %s is damaged: %w; %s", path, err, howToReplace)
}

// newestSnapshot is the index of the newest snapshot that can be read, 0 for none.
func newestSnapshot(s raft.SnapshotStore) uint64 {
	list, err := s.List()
	if err != nil {
		return 0
	}
	for _, m := range list {
		if _, r, err := s.Open(m.ID); err == nil { // reads it through and checks its checksum
			_ = r.Close()
			return m.Index
		}
	}
	return 0
}

// checkEntries reads every entry behind the newest snapshot: none may be missing or damaged. Entries before it may have
// gaps, which the installation of a snapshot leaves.
func checkEntries(s raft.LogStore, indexes []uint64, snapshot uint64) error {
	next := snapshot + 1
	for _, i := range indexes {
		if i <= snapshot {
			continue
		}
		if i != next {
			return fmt.Errorf("entries %d to %d are missing (the newest whole snapshot ends at %d)", next, i-1, snapshot)
		}
		next = i + 1
		if err := checkEntry(s, i); err != nil {
			return err
		}
	}
	return nil
}

func checkEntry(s raft.LogStore, index uint64) error {
	var l raft.Log
	err := unpanicked(func() error { return s.GetLog(index, &l) })
	switch {
	case err != nil:
		return fmt.Errorf("entry %d cannot be read: %w", index, err)
	case l.Index != index || l.Type > raft.LogConfiguration:
		return fmt.Errorf("entry %d is damaged", index)
	case l.Type == raft.LogConfiguration:
		return unpanicked(func() error { raft.DecodeConfiguration(l.Data); return nil })
	case l.Type == raft.LogCommand:
		return checkCommand(&l)
	}
	return nil
}

func votesIn(c raft.Configuration, id string) bool {
	for _, s := range c.Servers {
		if string(s.ID) == id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// HasState reports whether the directory holds the state of a server that has taken part in a cluster: a term, log entries
// or a snapshot. A directory that does not exist has none. It fails while a process has the directory open.
func HasState(dir string) (bool, error) {
	if list, err := os.ReadDir(filepath.Join(dir, snapshotsDir)); err == nil {
		for _, e := range list {
			if e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") {
				return true, nil
			}
		}
	}
	path := filepath.Join(dir, boltName)
	indexes, err := checkBoltFile(path)
	switch {
	case err != nil:
		return false, damaged(path, err)
	case len(indexes) > 0:
		return true, nil
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("look for the log: %w", err)
		}
		return false, nil
	}
	store, err := openBolt(path)
	if err != nil {
		return false, err
	}
	defer store.Close()
	g := newGuard(Config{StoreTimeout: time.Minute, Exit: func(string) {}, Dir: dir})
	s, err := openStable(store, g, func(uint64) {})
	if err != nil {
		return false, damaged(path, err)
	}
	return s.term > 0, nil
}
