package agent

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// fsm joins the replicated log to package state: it decodes, applies and publishes, and knows nothing else. The log calls it
// from one goroutine; readers take the newest state by a pointer.
type fsm struct {
	log     *slog.Logger
	newest  atomic.Pointer[state.State]
	changed func()           // called after each entry that may matter; must not block
	broken  func(why string) // called when an entry cannot be understood: the daemon must stop, never guess
}

func newFSM(log *slog.Logger, changed func(), broken func(string)) *fsm {
	f := &fsm{log: log, changed: changed, broken: broken}
	f.newest.Store(state.New())
	return f
}

// Apply is called once for each committed entry, in order.
func (f *fsm) Apply(index, term uint64, data []byte) any {
	if len(data) == 0 {
		return state.Result{Index: index}
	}
	c, err := state.DecodeCommand(data)
	if err != nil {
		// Every replica would have to skip the same entries, so none may: an older daemon in a newer cluster stops here.
		f.broken(fmt.Sprintf("log entry %d cannot be understood (%v): this daemon is older than the cluster, or the log is damaged", index, err))
		return state.Result{Index: index, Refused: "the entry cannot be understood"}
	}
	s, r := state.Apply(f.newest.Load(), state.Entry{Index: index, Term: term, Command: c})
	f.newest.Store(s)
	f.changed()
	return r
}

// Snapshot encodes the newest state.
func (f *fsm) Snapshot() ([]byte, error) { return f.newest.Load().Encode() }

// Restore replaces the state by a snapshot.
func (f *fsm) Restore(b []byte) error {
	s, err := state.Decode(b)
	if err != nil {
		return fmt.Errorf("decode the state's snapshot: %w", err)
	}
	f.newest.Store(s)
	f.changed()
	return nil
}
