package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// A Record says that an action may be running. It is written before the action's program is executed and goes away when the
// action and all its descendants are known to have ended, so that a new daemon finds every orphan of its predecessor (attack
// A8).
//
// It must outlive the daemon, not the machine: a record of an earlier boot is void, because no process survives one. So it is
// handed to the kernel and not flushed to the disk, and a disk that hangs does not keep a group from being stopped.
type Record struct {
	ID         string `json:"id"`
	Marker     string `json:"marker"` // names the action's cgroup and stands in the environment of its processes
	Group      string `json:"group"`
	Kind       Kind   `json:"kind"`
	Resource   string `json:"resource"`
	Op         string `json:"op"`
	Generation uint64 `json:"generation"`
	BootID     string `json:"boot_id"`
	Cgroup     string `json:"cgroup,omitempty"`
	PID        int    `json:"pid,omitempty"`     // of the program itself; 0 until it was executed
	Started    uint64 `json:"started,omitempty"` // start time of that process in the kernel's ticks, against reuse of its number
}

// Scope is what the action belongs to.
func (r Record) Scope() Scope { return Scope{Group: r.Group, Kind: r.Kind, Name: r.Resource} }

// An ActionLog keeps the records of the actions that may be running, one file each. All methods may be called by any
// goroutine.
type ActionLog struct {
	dir  string
	boot string

	mu   sync.Mutex
	mine map[string]Record // begun by this process
}

// OpenActionLog opens the directory, and creates it when it is missing. boot identifies this boot of the machine. One process
// uses a directory at a time; the caller sees to that.
func OpenActionLog(dir, boot string) (*ActionLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of action records: %w", err)
	}
	// What was written half when the daemon ended belongs to an action that never began.
	stale, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil {
		return nil, err
	}
	for _, f := range stale {
		_ = os.Remove(f)
	}
	return &ActionLog{dir: dir, boot: boot, mine: map[string]Record{}}, nil
}

// Begin writes the record; when it returns nil the record outlives this process, however it ends.
func (l *ActionLog) Begin(r Record) error {
	r.BootID = l.boot
	l.mu.Lock()
	l.mine[r.ID] = r
	l.mu.Unlock()
	if err := l.write(r); err != nil {
		l.mu.Lock()
		delete(l.mine, r.ID)
		l.mu.Unlock()
		return fmt.Errorf("record action %s of %s before it begins: %w", r.Op, r.Scope(), err)
	}
	return nil
}

// Executed adds the process id. It helps to find the process, but nothing rests on it.
func (l *ActionLog) Executed(id string, pid int, started uint64) {
	l.mu.Lock()
	r, ok := l.mine[id]
	if ok {
		r.PID, r.Started = pid, started
		l.mine[id] = r
	}
	l.mu.Unlock()
	if ok {
		_ = l.write(r)
	}
}

// End removes the record: the action and its descendants have ended, or live on as an application.
func (l *ActionLog) End(id string) error {
	l.mu.Lock()
	delete(l.mine, id)
	l.mu.Unlock()
	err := os.Remove(l.path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Pending lists the records that stand, in the order of their ids. Records of an earlier boot are removed: no process
// survives one. A record that cannot be read is an error, because an orphan may stand behind it.
func (l *ActionLog) Pending() ([]Record, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("read the action records: %w", err)
	}
	var out []Record
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".new-") || !strings.HasSuffix(name, ".json") {
			continue
		}
		r, err := l.read(filepath.Join(l.dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist): // ended meanwhile
		case err != nil:
			errs = append(errs, err)
		case r.BootID != l.boot:
			_ = os.Remove(filepath.Join(l.dir, name))
		default:
			out = append(out, r)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, errors.Join(errs...)
}

// Orphans lists the pending records that this process did not begin.
func (l *ActionLog) Orphans() ([]Record, error) {
	all, err := l.Pending()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Record
	for _, r := range all {
		if _, ok := l.mine[r.ID]; !ok {
			out = append(out, r)
		}
	}
	return out, err
}

// running lists the actions of a scope that this process has begun and not ended.
func (l *ActionLog) running(s Scope) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Record
	for _, r := range l.mine {
		if r.Scope() == s {
			out = append(out, r)
		}
	}
	return out
}

func (l *ActionLog) path(id string) string {
	return filepath.Join(l.dir, id+".json")
}

// write replaces the record's file, so that a reader finds it whole.
func (l *ActionLog) write(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(l.dir, ".new-"+filepath.Base(l.path(r.ID)))
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	// A record that has ended meanwhile must not come back, so the rename holds the lock under which End forgets it.
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.mine[r.ID]; !ok {
		return os.Remove(tmp)
	}
	return os.Rename(tmp, l.path(r.ID))
}

func (l *ActionLog) read(path string) (Record, error) {
	var r Record
	data, err := readFileBounded(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("the action record %s is damaged (%w): see that no process of that action runs, then remove the "+
			"file", path, err)
	}
	return r, nil
}
