package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The epoch of the cluster, as this node's links speak it (package peer). It is in a file because the links are open before the log is.
// It changes in two ways only: a node forces its configuration (force.go), or joins a cluster that has done so.
//
// A member that is told, under another's certificate, of a newer epoch than its own is not in the cluster any more: it was declared dead, or
// left behind. If it may hold anything it resets, as one that hears that it is dead; then it sets its identity and its log aside,
// durably noted before, and belongs to no cluster until it joins again.

// errOutdated says that this node belongs to an epoch of the cluster that is over.
var errOutdated = errors.New("the cluster's configuration was forced without this node")

// epochRecord is the file.
type epochRecord struct {
	Epoch uint64 `json:"epoch"`
	// Next is being begun: whether it was is told by the log, which either holds the command of that id or not.
	Next   uint64 `json:"next,omitempty"`
	NextID string `json:"next_id,omitempty"`
}

func epochFile(dir string) string { return filepath.Join(dir, "epoch.json") }

func saveEpoch(dir string, r epochRecord) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = writeFile(epochFile(dir), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store the epoch of the cluster: %w", err)
	}
	return nil
}

// beginEpoch is for a new member: nothing of a cluster that it was in before may stand for this one.
func (a *Agent) beginEpoch(epoch uint64) error {
	dir := a.opt.Node.StateDir
	for _, path := range []string{epochFile(dir), outdatedFile(dir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the epoch of an earlier cluster: %w", err)
		}
	}
	if epoch <= 1 {
		return nil
	}
	return saveEpoch(dir, epochRecord{Epoch: epoch})
}

// tendEpoch ends a daemon whose links speak an older epoch than its log, because the file was lost: it would talk to those that were left
// behind. The next one is right.
func (m *member) tendEpoch(view *state.State) {
	if view.Epoch <= m.epoch || m.loop.epochTold {
		return
	}
	m.loop.epochTold = true
	err := saveEpoch(m.opt.Node.StateDir, epochRecord{Epoch: view.Epoch})
	m.a.fail(errors.Join(fmt.Errorf("the log is in epoch %d of the cluster, the file %s said %d: the daemon begins anew with the log's", view.Epoch,
		epochFile(m.opt.Node.StateDir), m.epoch), err))
}

// forcedEntries is how far back the log is looked through for the command that began an epoch: it was the last but two entries then, and
// the file is settled at the next start.
const forcedEntries = 64

// readEpoch reads the file. A cluster whose configuration was never forced has none.
func readEpoch(dir string) (epochRecord, error) {
	b, err := os.ReadFile(epochFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return epochRecord{Epoch: 1}, nil
	}
	var r epochRecord
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && r.Epoch == 0 {
		err = errors.New("it holds no epoch")
	}
	if err != nil {
		return r, fmt.Errorf("read the epoch of the cluster in %s: %w; without it this node cannot tell members from those that were left behind: "+
			"remove the state directory and join again", epochFile(dir), err)
	}
	return r, nil
}

// loadEpoch reads the epoch, and settles one that was being begun when the daemon ended.
func loadEpoch(dir, raftDir string) (uint64, error) {
	r, err := readEpoch(dir)
	if err != nil || r.Next == 0 {
		return r.Epoch, err
	}
	begun, err := consensus.LogEnds(raftDir, forcedEntries, func(data []byte) bool {
		c, err := state.DecodeCommand(data)
		return err == nil && c.NewEpoch != nil && c.ID == r.NextID
	})
	if err != nil {
		return 0, err
	}
	if begun {
		r.Epoch = r.Next
	}
	r.Next, r.NextID = 0, ""
	return r.Epoch, saveEpoch(dir, r)
}

// outdated is what a node has heard of a newer epoch.
type outdated struct {
	Epoch uint64 `json:"epoch"`
	Own   uint64 `json:"own"`
	Node  string `json:"node"` // who said so
}

func (o outdated) Error() string {
	return fmt.Sprintf("%v: node %s belongs to epoch %d of the cluster, this node to epoch %d", errOutdated, o.Node, o.Epoch, o.Own)
}

func (o outdated) Unwrap() error { return errOutdated }

func outdatedFile(dir string) string { return filepath.Join(dir, "outdated.json") }

// heardNewerEpoch is told by the links, on the goroutine of a connection that was refused, of a member of a newer epoch.
func (m *member) heardNewerEpoch(node string, epoch uint64) {
	m.newer.Do(func() {
		o := outdated{Epoch: epoch, Own: m.epoch, Node: node}
		m.memory.mu.Lock()
		if m.memory.lost == nil {
			m.memory.lost = o // nothing of the log is said to anybody any more
		}
		m.memory.mu.Unlock()
		m.log.Error("this node is not in the cluster any more; it lets go of everything, and must join again", "why", o.Error())
		b, err := json.Marshal(o)
		if err == nil {
			err = writeFile(outdatedFile(m.opt.Node.StateDir), b, 0o600)
		}
		if err != nil { // it will hear it again at its next start
			m.log.Error("the end of this node's epoch cannot be noted", "error", err)
		}
		m.post(o)
	})
}

// gotOutdated ends this member, and the boot: whatever it holds, the new epoch may have given to others, and an incarnation that was declared
// dead does not come back. In mode e a human does the rest. Of the loop.
func (m *member) gotOutdated(o outdated) {
	if dm := m.loop.node.dm; dm != nil && dm.Info().Mode == lease.ModeReset {
		m.resetNode(o.Error())
		return
	}
	m.a.fail(o)
}

// setOutdatedAside makes a node that was left behind by a forced configuration one that belongs to no cluster. Its log is kept: whoever was
// wrong about the others may need it.
func (a *Agent) setOutdatedAside(id *identity.Identity) (bool, error) {
	dir := a.opt.Node.StateDir
	b, err := os.ReadFile(outdatedFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var o outdated
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return false, fmt.Errorf("read what was noted of this node's epoch in %s: %w; remove the file if the node is to take part as it is", outdatedFile(dir), err)
	}
	kept := filepath.Join(dir, fmt.Sprintf("raft.epoch%d", o.Own))
	if err := os.RemoveAll(kept); err != nil {
		return false, fmt.Errorf("remove an older log that was set aside: %w", err)
	}
	if err := os.Rename(filepath.Join(dir, "raft"), kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("set the log of this node aside: %w", err)
	}
	a.log.Error("the cluster's configuration was forced without this node; its log is kept", "log", kept, "own_epoch", o.Own, "epoch", o.Epoch, "node", o.Node)
	return true, a.setIdentityAside(id)
}

// otherEpoch reports whether a call failed because the member is of another epoch.
func otherEpoch(err error) bool { return errors.Is(err, peer.ErrOtherEpoch) }
