package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A change of the definition reaches running groups here: what a group no longer has is released, what it has gained is
// acquired, and nothing else of it is touched. A group whose change fails stays as it is, with an event: the operator who
// changed it is there to look.

// jobChange brings a group that runs here into line with a new definition.
const jobChange job = "change"

// followDefinition compares what each group that runs here consists of with what it consisted of.
func (m *member) followDefinition(old, fresh *cluster.Definition) {
	n := &m.loop.node
	for _, name := range sortedKeys(n.groups) {
		g := n.groups[name]
		if g.known.Started == 0 || old == nil || old.Group(name) == nil || fresh.Group(name) == nil {
			continue
		}
		before, err1 := resourcesOf(old, old.Group(name), m.name)
		after, err2 := resourcesOf(fresh, fresh.Group(name), m.name)
		if err1 != nil || err2 != nil {
			continue
		}
		gone, added := differ(before, after), differ(after, before)
		if len(gone)+len(added) > 0 {
			m.changeGroup(name, g, gone, added)
		}
		if g.watch != nil { // monitors may have changed as well
			gen := g.watch.generation
			m.endWatch(g)
			m.beginWatch(m.view(), name, gen, true)
		}
	}
	m.followPersistentIPs(old, fresh)
}

// differ lists the resources of a that b does not have: by kind, name, and what says which thing it is.
func differ(a, b []executor.Resource) []executor.Resource {
	have := map[string]bool{}
	for _, r := range b {
		have[resourceKey(r)] = true
	}
	var out []executor.Resource
	for _, r := range a {
		if !have[resourceKey(r)] {
			out = append(out, r)
		}
	}
	return out
}

func resourceKey(r executor.Resource) string {
	k := string(r.Kind) + "/" + r.Name
	switch {
	case r.IP != nil:
		k += "/" + r.IP.Address
	case r.Export != nil:
		k += "/" + r.Export.Directory + "/" + r.Export.Options + "/" + strings.Join(r.Export.Clients, ",")
	case r.FileSystem != nil:
		k += "/" + r.FileSystem.Device + "/" + r.FileSystem.MountPoint
	case r.App != nil && r.App.Agent != "": // an agent's parameters say which resource it is, so another value is another resource
		k += fmt.Sprintf("/%s/%q", r.App.Agent, r.App.Params)
	}
	return k
}

func (m *member) changeGroup(name string, g *groupState, gone, added []executor.Resource) {
	if g.job != "" {
		return // it is on its way up or down, and will be taken up by the new definition
	}
	generation := g.known.Started
	ctx, cancel := context.WithCancel(m.loop.ctx)
	g.job, g.cancel, g.jobBegan = jobChange, cancel, m.clock.Now()
	m.work.Go(func() {
		defer cancel()
		ctx := executor.WithGeneration(ctx, generation)
		for _, r := range slices.Backward(gone) {
			m.noteChange(name, r, "released", m.step(ctx, r, jobStop))
		}
		for _, r := range added {
			m.noteChange(name, r, "acquired", m.step(ctx, r, jobStart))
		}
		m.post(workDone{group: name, generation: generation, job: jobChange, status: executor.Running})
	})
}

func (m *member) noteChange(group string, r executor.Resource, what string, res executor.Result) {
	text := string(r.Kind) + " " + r.Name + " was " + what + " by a change of the definition"
	event := "resource_modify"
	if res.Err != nil {
		event, text = "event_error", string(r.Kind)+" "+r.Name+" could not be "+what+" after a change of the definition: "+res.Err.Error()
	}
	m.submit(&state.Command{Note: &state.Note{Event: event, Node: m.name, Group: group, Sentence: text}})
}

// followPersistentIPs takes the persistent addresses that this node has gained, and drops those that it has lost.
func (m *member) followPersistentIPs(old, fresh *cluster.Definition) {
	after, err := persistentIPsOf(fresh, m.name)
	if err != nil {
		m.log.Error("persistent addresses", "error", err)
		return
	}
	var before []executor.Resource
	if old != nil {
		before, _ = persistentIPsOf(old, m.name)
	}
	for _, r := range differ(before, after) {
		m.work.Go(func() { m.step(m.loop.ctx, r, jobStop) })
	}
	for _, r := range after {
		r = m.withNICs(r)
		m.work.Go(func() { m.step(m.loop.ctx, r, jobStart) })
	}
}

// removeStrangers takes servers out of the log whose nodes the definition no longer has.
func (m *member) removeStrangers(led *leadership, d *cluster.Definition, servers []consensus.Server) bool {
	for _, s := range servers {
		if d.Node(nodeOfServer(s.ID)) != nil || s.ID == m.id.RaftID || isRepository(s.ID) {
			continue
		}
		if repo := repositoryServer(d); s.Voter && len(d.Nodes) == 2 && repo != "" && !votes(servers, repo) {
			// Two votes alone stand no loss: the repository's comes first, and as long as it cannot come the old one stays.
			if !m.caughtUp(repo) {
				continue
			}
			m.changeServers(led, "give the repository voter its vote", func(ctx context.Context) error { return m.raft.AddVoter(ctx, repo) })
			return true
		}
		m.loop.changingVoters = true
		m.work.Go(func() {
			ctx, cancel := context.WithTimeout(led.ctx, 5*time.Second)
			defer cancel()
			defer m.post(votersDone{})
			done, err := m.takeVoters(ctx)
			if err == nil {
				defer done()
				err = m.raft.Remove(ctx, s.ID)
			}
			if err != nil {
				m.log.Warn("remove a node's server from the log", "server", s.ID, "error", err)
			}
		})
		return true
	}
	return false
}

// votes reports whether the server is a voter.
func votes(servers []consensus.Server, id string) bool {
	return slices.ContainsFunc(servers, func(s consensus.Server) bool { return s.ID == id && s.Voter })
}

// handOver gives the leadership away before this daemon ends, if another node can take it.
func (m *member) handOver() {
	if m.leading() == nil || len(votersOf(m.raft.Configuration())) < 2 {
		return
	}
	to := ""
	var best uint64
	followers := m.raft.Followers()
	for _, s := range m.raft.Configuration() {
		f := followers[s.ID]
		if s.Voter && f.LastIndex > best && m.clock.Now().Sub(f.Contact) < time.Second && !isRepository(s.ID) {
			to, best = s.ID, f.LastIndex
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.params().RaftElection*2)
	defer cancel()
	if err := m.raft.TransferLeadership(ctx, to); err != nil {
		m.log.Info("the leadership was not handed over; the others will elect", "error", err)
	}
}
