package ocf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A record remembers, for one boot, whether an application was started here and not stopped since. It only decides what an
// agent's silence means ("not installed", "wrongly configured"), so it is replaced at once but not flushed to disk.
type record struct {
	State string `json:"state"`
	Boot  string `json:"boot"`
}

const (
	stateStarting = "starting"
	stateStarted  = "started"
	stateFailed   = "failed"
)

func (x *Applications) recordPath(r executor.Resource) string {
	name := strings.NewReplacer("/", "%2F", "%", "%25").Replace(r.Group + "@" + r.Name)
	return filepath.Join(x.run.Dir(), "agents", string(x.kind)+"."+name+".json")
}

func (x *Applications) load(r executor.Resource) (record, error) {
	var rec record
	f, err := os.Open(x.recordPath(r))
	if errors.Is(err, os.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("read what is known of application %s: %w", r.Name, err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 4<<10)).Decode(&rec); err != nil {
		return record{}, fmt.Errorf("what is known of application %s, in %s, is damaged: %w; see that the application does not run, "+
			"then remove the file", r.Name, x.recordPath(r), err)
	}
	if rec.Boot != x.run.BootID() {
		return record{}, nil
	}
	return rec, nil
}

// save notes a state; the empty one is that of a stopped application.
func (x *Applications) save(r executor.Resource, state string) error {
	path := x.recordPath(r)
	if state == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("note that application %s was stopped: %w", r.Name, err)
		}
		return nil
	}
	data, err := json.Marshal(record{State: state, Boot: x.run.BootID()})
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
		return fmt.Errorf("note that application %s is %s: %w", r.Name, state, err)
	}
	return nil
}
