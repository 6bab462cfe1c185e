package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// An AppRecord is what an executor of applications has last done with one. The zero value is that of an application
// that is stopped, or was never started in this boot.
type AppRecord struct {
	State     AppState `json:"state"`
	Processes bool     `json:"processes,omitempty"` // the start left processes behind; only scripts are judged by it
	Boot      string   `json:"boot"`                // set by Save
}

// AppState is how far an application got; empty: it is stopped.
type AppState string

// The states of an AppRecord.
const (
	AppStarting AppState = "starting"
	AppStarted  AppState = "started"
	AppFailed   AppState = "failed"
)

// AppRecords remember, for one boot, what became of applications. They only help where processes and agents say nothing, so a record is
// replaced at once but not flushed to disk: after a crash of the machine it is void. One application must not be used by two callers at
// once.
type AppRecords struct {
	run         *Runner
	dir, prefix string
}

// NewAppRecords keeps records in a directory below the runner's, in files whose names begin with the prefix.
func NewAppRecords(run *Runner, dir, prefix string) AppRecords { return AppRecords{run, dir, prefix} }

func (x AppRecords) path(r Resource) string {
	name := strings.NewReplacer("/", "%2F", "%", "%25").Replace(r.Group + "@" + r.Name)
	return filepath.Join(x.run.Dir(), x.dir, x.prefix+name+".json")
}

// Load reads the application's record. A file that cannot be read is an error that tells the operator what to do: what it said may
// matter.
func (x AppRecords) Load(r Resource) (AppRecord, error) {
	var rec AppRecord
	f, err := os.Open(x.path(r))
	if errors.Is(err, os.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("read what is known of application %s: %w", r.Name, err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 4<<10)).Decode(&rec); err != nil {
		return AppRecord{}, fmt.Errorf("what is known of application %s, in %s, is damaged: %w; see that the application does not run, "+
			"then remove the file", r.Name, x.path(r), err)
	}
	if rec.Boot != x.run.BootID() {
		return AppRecord{}, nil
	}
	return rec, nil
}

// Save replaces the application's record.
func (x AppRecords) Save(r Resource, rec AppRecord) error {
	path := x.path(r)
	if rec.State == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("note that application %s was stopped: %w", r.Name, err)
		}
		return nil
	}
	rec.Boot = x.run.BootID()
	data, err := json.Marshal(rec)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = os.WriteFile(path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("note that application %s is %s: %w", r.Name, rec.State, err)
	}
	return nil
}
