package consensus

import (
	"context"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// beat makes the heartbeats of all followers leave together while this server leads. Raft has a timer of its own per follower
// and none in step with another; each wakes an idle process twice over, which is most of what an idle leader costs. Here one
// ticker asks raft for a round of heartbeats (VerifyLeader; what it answers is not used), a little before raft's own timers
// would send, which wait on as they are for the moments when raft's main loop sits in a write to the disk: for that the
// leader's heartbeat timeout, a tenth of which is their shortest wait, is made four times as long.
//
// The pause between two heartbeats is a little over a third of the heartbeat timeout; while the main loop is stuck it is at
// most four fifths of it, which is below the leader's lease.
func (n *Node) beat(ctx context.Context) {
	n.setTimeouts(4)
	tick := time.NewTicker(beatInterval(n.cfg.Params))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.raft.Load().VerifyLeader()
		case <-ctx.Done():
			return
		}
	}
}

func beatInterval(p lease.Params) time.Duration { return p.RaftHeartbeat * 9 / 25 }

// setTimeouts sets raft's heartbeat and election timeouts to a multiple of the configured ones.
func (n *Node) setTimeouts(factor time.Duration) {
	r := n.raft.Load()
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = factor*n.cfg.Params.RaftHeartbeat, factor*n.cfg.Params.RaftElection
	if err := r.ReloadConfig(c); err != nil {
		n.log.Error("cannot set raft's timeouts", "error", err)
	}
}
