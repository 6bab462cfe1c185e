package agent

import (
	"os"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// published is what decides whether the status has changed enough for those who wait for it.
type published struct {
	index  uint64
	leader string
	term   uint64
	loose  uint64 // version of what this node alone knows
	stale  bool
}

// publish shows the loop's own knowledge to the status, the metrics and the logs.
func (m *member) publish(view *state.State, now lease.Instant) {
	n := &m.loop.node
	if err := m.history.write(view); err != nil {
		m.log.Warn("the history cannot be written", "error", err)
	}
	m.publishDisk(view)
	loc := m.localNow(now)
	m.local.Store(loc)
	leader, term := m.raft.Leader()
	stale := now.Sub(n.lastContact) > m.params().Soft
	p := published{index: view.Index, leader: leader, term: term, loose: n.version, stale: stale}
	if p != m.loop.lastPublished {
		m.loop.lastPublished = p
		m.version.Add(1)
		m.notify.fire()
	}
}

func (m *member) localNow(now lease.Instant) *local {
	n := &m.loop.node
	loc := &local{armed: n.armed, apps: map[string]appStatus{}, warnings: append([]string(nil), n.dmWarnings...)}
	wall := m.wall()
	if n.lastContact != 0 {
		loc.contact = wall.Add(-now.Sub(n.lastContact))
	}
	if n.requested != 0 {
		loc.leaseAt = wall.Add(-now.Sub(n.requested))
	}
	if v := m.deadmanIs.Load(); v == nil || v.dm != n.dm || !slices.Equal(v.warnings, n.dmWarnings) {
		m.deadmanIs.Store(&deadmanView{dm: n.dm, warnings: slices.Clone(n.dmWarnings)})
	}
	if n.dm != nil {
		loc.class, loc.backend = string(n.dm.Info().Class), m.opt.Node.Deadman.Backend
	} else {
		loc.warnings = append(loc.warnings, "the deadman cannot be reached: this node can hold no group")
	}
	if n.cutOffGrant() {
		loc.warnings = append(loc.warnings,
			"the networks do not reach this node: its lease is renewed by the repository volume, and it hands over what it holds")
	}
	for _, g := range n.groups {
		if g.watch != nil {
			g.watch.fill(loc.apps)
		}
	}
	return loc
}

// noteContact marks the moment at which this node's knowledge was confirmed to be the newest.
func (m *member) noteContact() { m.loop.node.lastContact = m.clock.Now() }

// sample is what a scrape shows: read when it is asked for, by any goroutine, from what the loop has published.
func (m *member) sample() metrics.Sample {
	view, loc, st, wall := m.view(), m.local.Load(), m.raft.Stats(), m.wall()
	out := metrics.Sample{Raft: &metrics.Raft{Term: st.Term, LastIndex: st.LastIndex, CommitIndex: st.CommitIndex,
		AppliedIndex: st.AppliedIndex, SnapshotIndex: st.SnapshotIndex, Voter: st.Voter, Voters: st.Voters, Servers: st.Servers,
		StoreCalls: st.StoreCalls, SlowestStoreCall: st.SlowestStoreCall, Rounds: st.Rounds, RoundsFailed: st.RoundsFailed}}
	cl := m.clusterStatus(view, loc, wall)
	if out.Raft.Spare = cl.Quorum.Alive - cl.Quorum.Needed; !cl.Quorum.Have {
		out.Raft.Spare = -1
	}
	if cl.Repository != nil {
		v := &metrics.Volume{Answers: cl.Repository.Alive}
		for _, b := range cl.Backups {
			switch b.State {
			case api.BackupLost:
				v.Lost++
				continue
			case api.BackupUsable:
				v.Usable++
			}
			v.Backups++
		}
		out.Raft.Volume = v
	}
	now := m.clock.Now()
	for _, name := range view.NodeNames() {
		node := metrics.Node{Name: name, Up: view.Node(name).Up(), Silence: -1}
		m.detMu.Lock()
		if silent, ok := m.det.Silent(name, now); ok && name != m.name {
			node.Silence = silent
		}
		m.detMu.Unlock()
		out.Nodes = append(out.Nodes, node)
	}
	for _, group := range view.GroupNames() {
		for _, node := range view.Definition.Group(group).Nodes {
			out.Groups = append(out.Groups, metrics.Group{Name: group, Node: node, State: string(view.Shown(group, node).State)})
		}
	}
	out.Gossip = m.ringSamples()
	refused := m.links.Refused()
	out.Refused = &metrics.Refused{Void: refused.Void, Stranger: refused.Stranger, Unknown: refused.Unknown}
	out.Deadman = &metrics.Deadman{Connected: loc.backend != "", Armed: loc.armed}
	if !loc.leaseAt.IsZero() {
		age := wall.Sub(loc.leaseAt)
		out.Lease = &metrics.Lease{Age: age, Margin: m.params().Soft - age}
		out.Deadman.Margin = m.params().Hard - age
	}
	return out
}

// ringSamples counts, for each network, who should be on the ring and who answers.
func (m *member) ringSamples() []metrics.Ring {
	g := m.gossip.Load()
	if g == nil {
		return nil
	}
	var out []metrics.Ring
	for _, s := range g.Status() {
		if len(out) == 0 || out[len(out)-1].Network != s.Network {
			out = append(out, metrics.Ring{Network: s.Network})
		}
		r := &out[len(out)-1]
		r.Members++
		if s.Up || s.Node == m.name {
			r.Alive++
		}
	}
	return out
}

// readBootID reads the id of this boot: the file that the node file names, or the kernel's.
func readBootID(n *config.Node) (string, error) {
	path := n.BootIDFile
	if path == "" {
		path = "/proc/sys/kernel/random/boot_id"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// machineID is the machine's own, empty if it has none.
func machineID() string {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
