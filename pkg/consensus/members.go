package consensus

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// AddNonvoter adds a server that receives the log and does not vote. It waits for the commit; errors are those of Propose.
// So do the other changes of membership; all are the leader's only, and one at a time.
func (n *Node) AddNonvoter(ctx context.Context, id string) error {
	return n.change(ctx, "add the server "+id, func(r *raft.Raft) raft.IndexFuture {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, enqueueTimeout)
	})
}

// AddVoter gives a non-voter its vote. Who gets it, and that it has caught up, is the caller's choice (PlanVoters).
func (n *Node) AddVoter(ctx context.Context, id string) error {
	if _, known := n.member(id); !known {
		return fmt.Errorf("give server %s a vote: it is not a member yet; add it without a vote first", id)
	}
	return n.change(ctx, "give a vote to server "+id, func(r *raft.Raft) raft.IndexFuture {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, enqueueTimeout)
	})
}

// Demote takes a server's vote away; it goes on receiving the log. A leader that demotes itself steps down.
func (n *Node) Demote(ctx context.Context, id string) error {
	return n.change(ctx, "take the vote of server "+id, func(r *raft.Raft) raft.IndexFuture {
		return r.DemoteVoter(raft.ServerID(id), 0, enqueueTimeout)
	})
}

// Remove takes a server out of the configuration.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, "remove the server "+id, func(r *raft.Raft) raft.IndexFuture {
		return r.RemoveServer(raft.ServerID(id), 0, enqueueTimeout)
	})
}

func (n *Node) change(ctx context.Context, what string, call func(*raft.Raft) raft.IndexFuture) error {
	r := n.raft.Load()
	if r.State() != raft.Leader {
		return fmt.Errorf("%s: %w", what, ErrNotLeader)
	}
	if _, err := n.await(ctx, func() raft.Future { return call(r) }); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (n *Node) member(id string) (Server, bool) {
	for _, s := range n.Configuration() {
		if s.ID == id {
			return s, true
		}
	}
	return Server{}, false
}

// TransferLeadership hands the leadership to the server, or with "" to the voter whose log is newest, and waits until it is
// given away. It may fail when the target is slow; the leader then goes on to lead, and the call may be repeated.
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	r := n.raft.Load()
	if r.State() != raft.Leader {
		return fmt.Errorf("hand the leadership over: %w", ErrNotLeader)
	}
	if to == n.cfg.ID {
		return fmt.Errorf("hand the leadership over: server %s has it", to)
	}
	if s, ok := n.member(to); to != "" && (!ok || !s.Voter) {
		return fmt.Errorf("hand the leadership over: server %s does not vote", to)
	}
	_, err := n.await(ctx, func() raft.Future {
		if to == "" {
			return r.LeadershipTransfer()
		}
		return r.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
	})
	if err != nil {
		return fmt.Errorf("hand the leadership over: %w", err)
	}
	return nil
}
