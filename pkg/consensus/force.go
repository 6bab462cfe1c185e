package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// A Forcing is a change of a closed store that no majority has agreed to.
type Forcing struct {
	ID, ClusterID, Dir, MachineID string // as in Config
	// Commands are appended to the log before the new configuration, in order; at least one, which tells the FSM of it.
	Commands [][]byte
	Config   Config // Clock and Logger of it are used
}

// Force makes this server the only one in the configuration of its log, whatever the others say: for the operator whose majority is
// lost for good. The store must be closed. What it held stays, entries of which nobody knows whether they were committed included:
// they are when the server leads next.
//
// Commands and configuration are one write: after a crash the log has all of it or nothing, so there is never a forced
// configuration of which the FSM does not hear. (That is why raft.RecoverCluster is not used: it writes a snapshot, and
// deletes the log, with nothing of the caller's.) They are entries of a new term, in which the server notes its own vote.
//
// Nothing here keeps the servers of the old configuration from going on: no majority of theirs shares a server with the new one. That
// is what the caller's epoch is for.
func Force(f Forcing) error {
	if len(f.Commands) == 0 {
		return errors.New("force a configuration: no command tells the state machine of it")
	}
	cfg := f.Config
	cfg.ID, cfg.ClusterID, cfg.Dir, cfg.MachineID = f.ID, f.ClusterID, f.Dir, f.MachineID
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := newGuard(Config{Dir: f.Dir, StoreTimeout: forceTimeout, Exit: func(string) {}}) // a failure is the caller's to hear
	t := newTerms(f.ID, f.ClusterID, cfg.Clock)
	d, err := openDisk(cfg, g, t)
	if err != nil {
		return fmt.Errorf("force a configuration: %w", err)
	}
	err = d.force(cfg.ID, f.Commands, t.highest()+1)
	if cerr := d.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("force a configuration in %s: %w", f.Dir, err)
	}
	return nil
}

// force appends the entries of the term, after its own vote in it.
func (d *disk) force(id string, commands [][]byte, term uint64) error {
	index, lastTerm, err := d.end()
	if err != nil {
		return err
	}
	if index == 0 {
		return errors.New("the log is empty: this server has taken no part in the cluster")
	}
	term = max(term, lastTerm+1)
	if err := d.stable.SetUint64([]byte(keyCurrentTerm), term); err != nil {
		return err
	}
	if err := d.stable.SetUint64([]byte(keyLastVoteTerm), term); err != nil {
		return err
	}
	if err := d.stable.Set([]byte(keyLastVoteCand), []byte(id)); err != nil {
		return err
	}
	var entries []*raft.Log
	add := func(l raft.Log) {
		index++
		l.Index, l.Term = index, term
		entries = append(entries, &l)
	}
	for _, c := range commands {
		add(command(kindCommand, c))
	}
	add(raft.Log{Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}})})
	return d.logs.StoreLogs(entries)
}

const forceTimeout = 10 * time.Second // of one call of the store: nobody waits for this server meanwhile

// end is the last entry, of the log or of the newest snapshot.
func (d *disk) end() (index, term uint64, err error) {
	if index, err = d.logs.LastIndex(); err != nil {
		return 0, 0, err
	}
	if index > 0 {
		var l raft.Log
		if err := d.logs.GetLog(index, &l); err != nil {
			return 0, 0, err
		}
		term = l.Term
	}
	list, err := d.snapshots.List()
	if err != nil {
		return 0, 0, err
	}
	for _, s := range list {
		if s.Index > index {
			index, term = s.Index, s.Term
		}
	}
	return index, term, nil
}

// LogEnds calls f with each command among the last entries of a closed store, newest first, until f says that it has found what it looks
// for. It looks at no more than limit entries.
func LogEnds(dir string, limit int, f func(data []byte) bool) (found bool, err error) {
	path := filepath.Join(dir, boltName)
	indexes, err := checkBoltFile(path)
	if err != nil {
		return false, damaged(path, err)
	}
	if len(indexes) == 0 {
		return false, nil
	}
	store, err := openBolt(path)
	if err != nil {
		return false, err
	}
	defer store.Close()
	for n := len(indexes) - 1; n >= 0 && n >= len(indexes)-limit; n-- {
		if err := checkEntry(store, indexes[n]); err != nil {
			return false, damaged(path, err)
		}
		var l raft.Log
		if err := store.GetLog(indexes[n], &l); err != nil {
			return false, damaged(path, err)
		}
		if l.Type == raft.LogCommand && l.Data[0] == kindCommand && f(l.Data[1:]) {
			return true, nil
		}
	}
	return false, nil
}

// LastEntry is the end of this server's log: which of two logs is the newer one is told by its term, then by its index.
func (n *Node) LastEntry() (index, term uint64, err error) { return n.disk.end() }
