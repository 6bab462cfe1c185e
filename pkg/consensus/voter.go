package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Voter is the repository voter: an ordinary server of the log, with a real FSM and the timeouts of all others, whose stores
// are records on the repository volume, and which one host runs at a time. Safety does not rest on the "one": every write is
// followed by a re-read of the volume's slots before it counts, and every answer by one before it leaves, so that of a host
// whose claim was taken over nothing is believed any more.
//
// The four places where a promise could leave: LogStore, StableStore and SnapshotStore return only after write and re-read
// (which covers what is no answer at all: the vote for itself, the count of its own copy of an entry); and no answer to a
// message, confirmations of a term included, is given before a re-read that began after its content was read.
//
// It leads only to hand over, grants nothing and proposes nothing.
type Voter struct{ n *Node }

const (
	// handOverLimit is how long the voter may lead: a leader whose volume hangs would lead for ever.
	handOverLimit = 2 * time.Second
	// handOverPause is between two attempts.
	handOverPause = 20 * time.Millisecond
	// watchInterval is how often a voter that nobody asks looks for a higher ballot.
	watchInterval = time.Second

	// roomPause is between two snapshots that are taken to make room.
	roomPause = time.Second

	voterCommitTimeout = 50 * time.Millisecond // it sends no notices of commit
	voterThreshold     = 1024
	voterTrailing      = 256
)

// OpenVoter starts the repository voter on a volume that was claimed. Config.Dir must be empty; Config.ID contains the volume's
// format UUID, so that a volume which was formatted anew is another server. A volume without records belongs to a voter that
// has not taken part yet and waits for a leader to add it: it never founds a cluster. The Voter closes the store.
func OpenVoter(cfg Config, store VoterStore) (*Voter, error) {
	if cfg.Dir != "" {
		return nil, errors.New("open the repository voter: it has no directory")
	}
	setDefault(&cfg.CommitTimeout, voterCommitTimeout)
	setDefault(&cfg.SnapshotThreshold, voterThreshold)
	setDefault(&cfg.TrailingLogs, voterTrailing)
	n, err := open(cfg, store)
	if err != nil {
		return nil, err
	}
	n.spawn(n.watchClaim)
	n.spawn(n.watchRoom)
	return &Voter{n}, nil
}

// Confirm is the voter's side of a round of term confirmation, gated as every answer.
func (v *Voter) Confirm(req ConfirmRequest) ConfirmReply { return v.n.Confirm(req) }

// Unapplied is Node.Unapplied.
func (v *Voter) Unapplied(f func(data []byte)) error { return v.n.Unapplied(f) }

// LastEntry is Node.LastEntry.
func (v *Voter) LastEntry() (index, term uint64, err error) { return v.n.LastEntry() }

// Leader is Node.Leader.
func (v *Voter) Leader() (id string, term uint64) { return v.n.Leader() }

// Configuration is Node.Configuration.
func (v *Voter) Configuration() []Server { return v.n.Configuration() }

// Stats is Node.Stats.
func (v *Voter) Stats() Stats { return v.n.Stats() }

// Close stops the voter and gives the claim up.
func (v *Voter) Close() error { return v.n.Close() }

// watchClaim finds out that the claim was taken over when nothing else does.
func (n *Node) watchClaim() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !n.gate.pass() {
				return
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// watchRoom takes a snapshot when the log takes much of the volume: entries are of any size, and raft counts them only.
func (n *Node) watchRoom() {
	for {
		select {
		case <-n.disk.tight:
			if err := n.raft.Load().Snapshot().Error(); err != nil {
				n.log.Debug("a snapshot to make room on the volume", "error", err)
			}
		case <-n.ctx.Done():
			return
		}
		if !pause(n.ctx, roomPause) {
			return
		}
	}
}

// handOver gives the leadership that the voter has won to a node. It may have won because its log was the newest: then the node
// gets the log first. Who cannot be rid of it in time exits; the host starts the voter again.
func (n *Node) handOver(ctx context.Context) {
	n.log.Info("the repository voter leads: it hands over")
	end := time.AfterFunc(handOverLimit, func() {
		if ctx.Err() == nil {
			n.guard.fail(fmt.Sprintf("the repository voter has led for %v and no node could take over, so the process ends", handOverLimit))
		}
	})
	defer end.Stop()
	for ctx.Err() == nil {
		if to := n.heir(); to != "" {
			if err := n.TransferLeadership(ctx, to); err != nil {
				n.log.Debug("hand the leadership over", "to", to, "error", err)
			}
		}
		if !pause(ctx, handOverPause) {
			return
		}
	}
}

// heir is the voter that answers and whose log is the longest, "" while none answers.
func (n *Node) heir() string {
	best, longest := "", uint64(0)
	followers := n.trans.followers()
	for _, id := range voters(n.Configuration()) {
		f, ok := followers[id]
		fresh := ok && f.Contact != lease.Instant(0) && n.now().Sub(f.Contact) < n.cfg.Params.RaftHeartbeat
		if fresh && (best == "" || f.LastIndex > longest) {
			best, longest = id, f.LastIndex
		}
	}
	return best
}
