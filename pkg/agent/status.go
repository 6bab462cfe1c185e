package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// status.go turns the newest view, and what this node alone knows, into the API's words. It reads values that the loop has
// published and never asks anybody, so that it answers even when nothing else does.

// local is what the loop publishes of itself for the status: values, replaced as a whole.
type local struct {
	contact  time.Time // when this node last knew its view to be the newest; zero: never
	armed    bool
	class    string
	backend  string
	leaseAt  time.Time // of the request behind the newest grant
	apps     map[string]appStatus
	warnings []string
}

type appStatus struct {
	group, state, reason string
	restarts             int
}

func (m *member) status() api.Status {
	view, now, loc := m.view(), m.wall(), m.local.Load()
	s := api.Status{Version: m.version.Load(), Instance: m.opt.instance, Time: now}
	s.Cluster = m.clusterStatus(view, loc, now)
	if view.Definition == nil {
		return s
	}
	d := view.Definition
	for i := range d.Nodes {
		s.Nodes = append(s.Nodes, m.nodeStatus(view, &d.Nodes[i], i+1, loc, now))
	}
	for i := range d.ResourceGroups {
		s.Groups = append(s.Groups, m.groupStatus(view, &d.ResourceGroups[i], i+1, loc))
	}
	for _, n := range d.Networks {
		s.Networks = append(s.Networks, api.Network{Name: n.Name, State: networkState(view, n.Name), Private: n.Private})
	}
	s.Pending = pending(view)
	s.Cluster.State = clusterState(&s)
	if s.Cluster.State == api.ClusterStable || s.Cluster.State == api.ClusterError {
		// What is planned and not yet begun is no rest either.
		if len(scheduler.Plan(view, now).Decisions) > 0 {
			s.Cluster.State = api.ClusterUnstable
		}
	}
	return s
}

func (m *member) clusterStatus(view *state.State, loc *local, now time.Time) api.Cluster {
	_, term := m.raft.Leader()
	c := api.Cluster{UUID: m.id.ClusterUUID, Name: m.id.ClusterName, ID: shortID(m.id.ClusterUUID), Epoch: view.Epoch, Term: term,
		AppliedIndex: view.Index, Leader: m.leaderNode(), LocalNode: m.name, StaleSeconds: m.params().Soft.Seconds(),
		Profile: m.params().Profile, DeadmanMode: string(m.deadmanMode(view)), DefinitionVersion: view.DefinitionVersion,
		GossipKeys: view.GossipKeyNumbers(), Unsynced: view.Staged != nil, StagedVersion: view.StagedVersion,
		ProductVersion: m.opt.Version, Warnings: append([]string(nil), loc.warnings...)}
	if view.Definition != nil {
		c.Name, c.SettlingSeconds = view.Definition.Name, view.Definition.Settings.SettlingTime.Seconds()
	}
	switch {
	case m.leading() != nil:
		zero := 0.0
		c.AgeSeconds = &zero
	case !loc.contact.IsZero():
		age := now.Sub(loc.contact).Seconds()
		c.AgeSeconds = &age
	}
	c.Quorum = m.quorum(view, &c)
	if c.Quorum.Risk = m.voteRisk(view, c.Quorum); c.Quorum.Risk != "" {
		c.Warnings = append(c.Warnings, c.Quorum.Risk)
	}
	c.Repository = m.repositoryStatus(view, c.Quorum.Have)
	c.Backups = m.backupStatus(view.Definition)
	for i := range c.Backups {
		if b := &c.Backups[i]; b.State == api.BackupUnusable {
			c.Warnings = append(c.Warnings, fmt.Sprintf("the backup repository %s (%s): %s", b.Name, b.Device, b.Sentence))
		}
	}
	return c
}

// repositoryStatus is what this node knows of the volume: from its own voter process, and as leader from the voter's answers.
// have is whether a majority is known to decide.
func (m *member) repositoryStatus(view *state.State, have bool) *api.Repository {
	if view.Definition == nil || view.Definition.Repository() == nil {
		return nil
	}
	def, server := view.Definition.Repository(), repositoryServer(view.Definition)
	r := &api.Repository{Name: def.Name, Device: def.Device, UUID: def.UUID, Alive: m.repositoryAlive(server)}
	for _, s := range m.raft.Configuration() {
		r.Voter = r.Voter || s.ID == server && s.Voter
		if isRepository(s.ID) && s.ID != server && s.Voter {
			r.Leaving = append(r.Leaving, strings.TrimPrefix(s.ID, repositoryPrefix))
		}
	}
	rep := m.repo.reportOf(def.UUID)
	if rep != nil {
		r.Host = rep.Host
	}
	defer func() {
		if why := m.disk.trouble.Load(); why != nil {
			r.Sentence += "; the heartbeats and mail of this node do not get through: " + *why
		}
	}()
	switch words := m.repo.lastWords(def.UUID); {
	case rep == nil && words != "":
		r.Sentence = "this node does not reach the volume: its voter ended: " + words
	case rep == nil:
		r.Sentence = "this node does not reach the volume"
	case rep.Text != "":
		r.Sentence = "this node does not reach the volume: " + rep.Text
	case r.Host == "":
		r.Sentence = "no node runs the repository voter"
	default:
		r.Sentence = "the repository voter runs on " + r.Host
	}
	if len(r.Leaving) > 0 {
		r.Sentence += "; the volume that it replaces votes until it does"
	}
	if !r.Alive && r.Voter && have {
		r.Sentence += "; it does not answer: the nodes go on without it, and no further failure is survived"
	}
	if r.Replacement = m.replacementSentence(view.Definition, have); r.Alive || r.Replacement == "" {
		r.Replacement = ""
	} else {
		r.Sentence += "; " + r.Replacement
	}
	return r
}

func (m *member) quorum(view *state.State, c *api.Cluster) api.Quorum {
	q := api.Quorum{Have: c.Leader != "" && !c.Stale()}
	for _, s := range m.raft.Configuration() {
		if !s.Voter {
			continue
		}
		q.Voters++
		if isRepository(s.ID) {
			if m.repositoryAlive(s.ID) {
				q.Alive++
			}
		} else if n := view.Node(nodeOfServer(s.ID)); n.Alive() {
			q.Alive++
		}
	}
	q.Needed = q.Voters/2 + 1
	switch spare := q.Alive - q.Needed; {
	case !q.Have:
		q.Sentence = "no quorum is known from here: nothing can be decided"
	case spare <= 0:
		q.Sentence = "no further failure is survived"
	case spare == 1:
		q.Sentence = "one more failure is survived"
	default:
		q.Sentence = fmt.Sprintf("%d more failures are survived", spare)
	}
	return q
}

func (m *member) nodeStatus(view *state.State, def *cluster.Node, id int, loc *local, now time.Time) api.Node {
	n := view.Node(def.Name)
	out := api.Node{Name: def.Name, ID: id, Site: def.Site, State: api.Unknown, RawState: api.RawInit}
	for _, s := range m.raft.Configuration() {
		if nodeOfServer(s.ID) == def.Name {
			out.Voter = s.Voter
		}
	}
	out.Leader = m.leaderNode() == def.Name
	out.Certificate, out.RenewsTo = view.CertFloor(def.Name), view.CertWanted(def.Name)
	if n != nil {
		out.Incarnation, out.Version, out.Resets = n.Incarnation, n.Version, len(n.Resets)
		out.State, out.RawState, out.Reason = nodeState(view, n)
		if out.State == api.NodeSilent && def.Name != m.name && m.onVolume(n) {
			out.State = api.NodeIsolated
		}
		if n.Armed != nil {
			out.Lease = &api.Lease{Armed: n.Alive(), Class: string(n.Armed.Class), Mode: string(n.Armed.Mode)}
		}
	}
	if led := m.leading(); led != nil && n != nil && out.Lease != nil && def.Name != m.name {
		led.mu.Lock()
		last := led.book.LastGrant(lease.Subject{Node: def.Name, Incarnation: n.Incarnation})
		led.mu.Unlock()
		if last != 0 {
			age := m.clock.Now().Sub(last).Seconds()
			margin := m.params().Soft.Seconds() - age
			out.Lease.AgeSeconds, out.Lease.MarginSeconds = &age, &margin
		}
	}
	if def.Name == m.name {
		if out.Lease == nil {
			out.Lease = &api.Lease{Mode: string(m.deadmanMode(view))}
		}
		out.Lease.Armed, out.Lease.Class, out.Lease.Backend = loc.armed, loc.class, loc.backend
		if !loc.leaseAt.IsZero() {
			age := now.Sub(loc.leaseAt).Seconds()
			margin := m.params().Soft.Seconds() - age
			out.Lease.AgeSeconds, out.Lease.MarginSeconds = &age, &margin
		}
	}
	out.Addresses, out.Networks = addressesOf(view, def, n)
	return out
}

// nodeState is a node's state, its raw state, and the sentence behind it.
func nodeState(view *state.State, n *state.Node) (string, string, string) {
	busy := false
	for _, g := range view.Groups {
		if i := g.Instances[n.Name]; i != nil && (i.State == state.Acquiring || i.State == state.Releasing) {
			busy = true
		}
	}
	raw := api.RawStable
	if busy {
		raw = api.RawRunning
	}
	switch {
	case n.Dead != nil:
		return api.NodeDead, api.RawInit, n.Dead.Sentence
	case n.Lost != nil:
		return api.NodeSilent, api.Unknown, n.Lost.Sentence
	case n.Incarnation == 0:
		return api.NodeOffline, api.RawInit, "not seen yet"
	case n.Quarantined != "":
		return api.NodeQuarantined, api.RawInit, n.Quarantined
	case n.Services == state.ServicesOn, n.Services == state.ServicesManual:
		return api.NodeNormal, raw, ""
	case n.Services == state.ServicesStopping:
		return api.NodeLeaving, raw, ""
	case n.Services == state.ServicesUnmanaged:
		return api.NodeUnmanaged, api.RawStable, "services were stopped with unmanage: its groups run on, unwatched"
	}
	return api.NodeOffline, api.RawInit, "cluster services are stopped"
}

func addressesOf(view *state.State, def *cluster.Node, n *state.Node) ([]api.Address, []api.NodeNetwork) {
	var addrs []api.Address
	var nets []api.NodeNetwork
	d := view.Definition
	known := n.Alive()
	stateOf := func(up bool) string {
		switch {
		case !known:
			return api.Unknown
		case up:
			return api.Up
		}
		return api.Down
	}
	for _, w := range d.Networks {
		a, ok := def.Addresses[w.Name]
		if !ok {
			continue
		}
		up := known && !n.NetworkDown(w.Name)
		nets = append(nets, api.NodeNetwork{Name: w.Name, State: stateOf(up)})
		addrs = append(addrs, api.Address{Label: def.Name + "_" + w.Name, Address: plainAddress(a), Network: w.Name,
			Kind: api.AddressBoot, State: stateOf(up)})
	}
	for _, p := range d.PersistentIPs {
		if p.Node == def.Name {
			addrs = append(addrs, api.Address{Label: p.Name, Address: p.Address, Network: p.Network, Prefix: p.Prefix,
				Kind: api.AddressPersistent, State: stateOf(!n.NetworkDown(p.Network))})
		}
	}
	for i := range d.ResourceGroups {
		g := &d.ResourceGroups[i]
		if view.Shown(g.Name, def.Name).State != state.Online {
			continue
		}
		for _, label := range g.ServiceIPs {
			if s := d.ServiceIP(label); s != nil {
				addrs = append(addrs, api.Address{Label: s.Name, Address: s.Address, Network: s.Network, Prefix: s.Prefix,
					Kind: api.AddressService, State: stateOf(true)})
			}
		}
	}
	return addrs, nets
}

func networkState(view *state.State, network string) string {
	out := api.Unknown
	for _, n := range view.Nodes {
		switch {
		case !n.Alive():
		case !n.NetworkDown(network):
			return api.Up
		default:
			out = api.Down
		}
	}
	return out
}

func (m *member) groupStatus(view *state.State, def *cluster.ResourceGroup, id int, loc *local) api.Group {
	out := api.Group{Name: def.Name, ID: id, Nodes: def.Nodes, Startup: string(def.Startup), Fallover: string(def.Fallover),
		Fallback: string(def.Fallback)}
	g := view.Group(def.Name)
	if g != nil {
		out.Generation, out.Suspended, out.Sentence = g.Generation, g.Suspended, g.LastReason
		if g.Override != nil {
			out.Override = &api.Override{Node: g.Override.Node, Time: g.Override.At, User: g.Override.By}
		}
		if !g.SettleUntil.IsZero() {
			out.Timers = append(out.Timers, api.Timer{Kind: api.TimerSettling, At: g.SettleUntil})
		}
		if t := view.Timers[def.FallbackAt]; t != nil && !t.Due.IsZero() {
			out.Timers = append(out.Timers, api.Timer{Kind: api.TimerFallback, Name: t.Name, At: t.Due})
		}
	}
	for _, node := range def.Nodes {
		out.Instances = append(out.Instances, instanceStatus(view, g, def.Name, node))
	}
	out.Applications = applications(view, def, m.name, loc)
	for _, label := range def.ServiceIPs {
		if s := view.Definition.ServiceIP(label); s != nil {
			out.Resources = append(out.Resources, resource(view, def, "service_ip", s.Name, s.Address, s.Network))
		}
	}
	for _, name := range def.VolumeGroups {
		out.Resources = append(out.Resources, resource(view, def, "volume_group", name, "", ""))
	}
	for _, name := range def.FileSystems {
		out.Resources = append(out.Resources, resource(view, def, "file_system", name, "", ""))
	}
	for _, name := range def.NFSExports {
		out.Resources = append(out.Resources, resource(view, def, "nfs_export", name, "", ""))
	}
	for _, name := range def.Applications {
		out.Resources = append(out.Resources, resource(view, def, "application", name, "", ""))
	}
	return out
}

func instanceStatus(view *state.State, g *state.Group, group, node string) api.Instance {
	sh := view.Shown(group, node)
	i := api.Instance{Node: node, State: string(sh.State), Due: string(sh.DueTo), Reason: sh.Sentence}
	if g == nil {
		return i
	}
	for _, t := range g.Tried {
		i.Tried = i.Tried || t == node
	}
	i.Tried = i.Tried || g.Marks[node] != nil
	return i
}

// resource says where a resource is, by the group's state: a resource of a group that is online was seen running when the
// group was reported so.
func resource(view *state.State, def *cluster.ResourceGroup, kind, name, address, network string) api.Resource {
	r := api.Resource{Kind: kind, Name: name, State: "stopped", Address: address, Network: network}
	for _, node := range def.Nodes {
		switch view.Shown(def.Name, node).State {
		case state.Online:
			r.Node, r.State = node, "running"
			return r
		case state.Offline:
		default:
			r.Node, r.State = node, "unknown"
		}
	}
	return r
}

func applications(view *state.State, def *cluster.ResourceGroup, self string, loc *local) []api.Application {
	var out []api.Application
	for _, name := range def.Applications {
		for _, node := range def.Nodes {
			sh := view.Shown(def.Name, node)
			a := api.Application{Name: name, Node: node}
			switch sh.State {
			case state.Online:
				a.State = api.AppNotMonitored
				if c := view.Definition.ApplicationController(name); c != nil && len(c.Monitors) > 0 {
					a.State = api.AppMonitored
				}
				if sh.Failed {
					a.State = api.AppFailed
				}
			case state.Unknown:
				a.State = api.Unknown
			default:
				continue
			}
			if s, ok := loc.apps[name]; ok && node == self && s.state != "" {
				a.State, a.Reason, a.Restarts = s.state, s.reason, s.restarts
			}
			out = append(out, a)
		}
	}
	return out
}

func pending(view *state.State) []api.PendingStep {
	var out []api.PendingStep
	for _, group := range view.GroupNames() {
		g := view.Group(group)
		for _, node := range view.Definition.Group(group).Nodes {
			i := g.Instances[node]
			if i == nil {
				continue
			}
			switch i.State {
			case state.Acquiring:
				out = append(out, api.PendingStep{Op: "acquire", Group: group, Node: node, Reason: i.Sentence})
			case state.Releasing:
				out = append(out, api.PendingStep{Op: "release", Group: group, Node: node, Reason: i.Sentence})
			}
		}
	}
	for _, name := range view.NodeNames() {
		if n := view.Node(name); n != nil && n.Services == state.ServicesStopping {
			out = append(out, api.PendingStep{Op: "stop services", Node: name})
		}
	}
	return out
}

// clusterState sums up: unknown when this node cannot know, unstable while something is being done or a node is silent,
// error when a group needs the operator.
func clusterState(s *api.Status) string {
	if s.Cluster.Stale() || s.Cluster.Leader == "" {
		return api.Unknown
	}
	up, silent := false, false
	for _, n := range s.Nodes {
		up = up || n.State == api.NodeNormal || n.State == api.NodeUnmanaged || n.State == api.NodeLeaving
		silent = silent || n.State == api.NodeSilent || n.State == api.NodeIsolated
	}
	if !up {
		return api.ClusterOffline
	}
	if len(s.Pending) > 0 || silent {
		return api.ClusterUnstable
	}
	for _, g := range s.Groups {
		for _, i := range g.Instances {
			if i.State == api.GroupError {
				return api.ClusterError
			}
		}
	}
	return api.ClusterStable
}

// shortID is the number by which PowerHA's tools name a cluster.
func shortID(uuid string) uint64 {
	h := sha256.Sum256([]byte(uuid))
	return uint64(binary.BigEndian.Uint32(h[:4]) & 0x7fffffff)
}
