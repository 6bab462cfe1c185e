package agent

import (
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A cluster may decide, and yet stop with its next failure although it is laid out to survive one: two nodes whose volume was never
// formatted, or is lost. Nothing is wrong with any group then, so it has to be said aloud: in the status, by clstat and clmgr, by the
// verification, as a metric, and once in the history.

// riskPatience is how long votes may be missing before the history says so: a volume that is taken over is away for a moment.
const riskPatience = 10 * time.Second

// voteRisk says what is missing, and what to do about it; "" if nothing is but what other sentences say (a node that is down).
func (m *member) voteRisk(view *state.State, q api.Quorum) string {
	d := view.Definition
	if d == nil || len(d.Nodes) < 2 || !q.Have {
		return ""
	}
	for i := range d.Nodes {
		if n := view.Node(d.Nodes[i].Name); n == nil || n.RaftID == "" {
			return fmt.Sprintf("node %s has not joined the cluster: its token comes from clmgr add token %s", d.Nodes[i].Name, d.Nodes[i].Name)
		}
	}
	if len(d.Nodes) != 2 {
		return ""
	}
	repo, server := d.Repository(), repositoryServer(d)
	const stop = "if %s fails, the cluster stops and nothing moves"
	switch alone := m.onlyVoter(); {
	case repo == nil && len(d.Repositories) == 0:
		return "two nodes have no repository volume: " + cluster.TwoNodeSentence
	case repo == nil && alone != "":
		return fmt.Sprintf("the repository volume is not formatted, so node %s votes alone: "+stop+". Format it: clmgr format repository %s", alone, alone,
			d.Repositories[0].Name)
	case repo == nil:
		return fmt.Sprintf("the repository volume is not formatted: "+stop+". Format it: clmgr format repository %s", "one node", d.Repositories[0].Name)
	case !votes(m.raft.Configuration(), server) && alone != "":
		return fmt.Sprintf("the repository volume %s does not vote yet, so node %s votes alone: "+stop+". It votes when both nodes run and reach %s",
			repo.Name, alone, alone, repo.Device)
	case !votes(m.raft.Configuration(), server):
		return fmt.Sprintf("the repository volume %s does not vote yet: "+stop+". It votes when a node reaches %s", repo.Name, "one more vote", repo.Device)
	case !m.repositoryAlive(server):
		if backups := d.BackupRepositories(); len(backups) > 0 && !d.Settings.NoRepositoryReplacement {
			return fmt.Sprintf("the repository volume %s (%s) does not answer: "+stop+". Its backup %s takes its place when no node could use it for %v; "+
				"sooner: clmgr replace repository", repo.Name, repo.Device, "a node", backups[0].Name, d.Settings.RepositoryPatience())
		}
		return fmt.Sprintf("the repository volume %s (%s) does not answer: "+stop+". If the device is lost, put another one in its place: clmgr add "+
			"repository, clmgr format repository, clmgr replace repository", repo.Name, repo.Device, "a node")
	}
	return ""
}

// onlyVoter is the node that votes alone, "" if several servers vote.
func (m *member) onlyVoter() string {
	if all := votersOf(m.raft.Configuration()); len(all) == 1 {
		return nodeOfServer(all[0])
	}
	return ""
}

// riskTold is what the leader has put into the history in its term.
type riskTold struct {
	now, told string
	since     lease.Instant
}

// tendRisk brings a risk that lasts, and its end, into the history. Of the leader's loop.
func (m *member) tendRisk(led *leadership, view *state.State, now lease.Instant) {
	c := api.Cluster{Leader: m.name}
	zero := 0.0
	c.AgeSeconds = &zero
	r := &led.risk
	if risk := m.voteRisk(view, m.quorum(view, &c)); risk != r.now {
		r.now, r.since = risk, now
	}
	if r.now == r.told || now.Sub(r.since) < riskPatience {
		return
	}
	r.told = r.now
	note := &state.Note{Event: "quorum_at_risk", Sentence: r.now}
	if r.now == "" {
		note = &state.Note{Event: "quorum_restored", Sentence: "the votes that were missing are there"}
	}
	m.log.Warn(note.Sentence, "event", note.Event)
	m.submit(&state.Command{Note: note})
}
