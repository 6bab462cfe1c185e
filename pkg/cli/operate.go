package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// do sends an operator's request and waits for its goal.
func (s *session) do(ctx context.Context, what string, r api.Request, g goal) error {
	r.ID = client.NewID() // one id for all attempts: the request is done once
	r.Force = r.Force || s.force
	r.Reason = s.trace
	reply, err := send(ctx, s, what, func(ctx context.Context) (api.Reply, error) { return s.client.Do(ctx, r) })
	if err != nil {
		return err
	}
	return s.finish(ctx, what, reply, g)
}

// look reads the status and refuses names that do not exist, before anything is sent.
func (s *session) look(ctx context.Context, groups, nodes []string) (*api.Status, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	st, err := s.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	if st.Cluster.State == api.ClusterNotConfigured {
		return nil, errNoCluster()
	}
	if len(st.Nodes) == 0 { // the daemon has just started: what it does not know yet is not "there is none"
		if st, err = s.awaitDefinition(ctx); err != nil {
			return nil, err
		}
	}
	for _, g := range groups {
		if st.Group(g) == nil {
			return nil, fail(ExitNotFound, "there is no resource group %q%s", g, cluster.DidYouMean(g, groupNames(&st)))
		}
	}
	for _, n := range nodes {
		if st.Node(n) == nil {
			return nil, fail(ExitNotFound, "there is no node %q%s", n, cluster.DidYouMean(n, nodeNames(&st)))
		}
	}
	return &st, nil
}

// definitionPatience is how long a daemon that has just started may take until it has the cluster's definition.
const definitionPatience = 10 * time.Second

func (s *session) awaitDefinition(ctx context.Context) (api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, definitionPatience)
	defer cancel()
	st, err := s.client.WaitFor(ctx, func(st *api.Status) (bool, error) {
		return len(st.Nodes) > 0 || st.Cluster.State == api.ClusterNotConfigured, nil
	}, nil)
	if err != nil {
		return st, fail(ExitFailed, "node %s has just started and has not received the cluster's definition yet: it reaches no leader", st.Cluster.LocalNode)
	}
	return st, nil
}

func errNoCluster() error {
	return fail(ExitDependency, "this node belongs to no cluster yet: found one with clmgr add cluster, or join one with clmgr join cluster TOKEN=...")
}

func groupNames(st *api.Status) []string {
	out := make([]string, 0, len(st.Groups))
	for i := range st.Groups {
		out = append(out, st.Groups[i].Name)
	}
	return out
}

func nodeNames(st *api.Status) []string {
	out := make([]string, 0, len(st.Nodes))
	for i := range st.Nodes {
		out = append(out, st.Nodes[i].Name)
	}
	return out
}

// clusterName checks that a cluster's name, if one was given, is this cluster's.
func (t *target) clusterName(st *api.Status) error {
	if t.class != nil && t.class.Name == "cluster" && t.name() != "" && t.name() != st.Cluster.Name {
		return fail(ExitNotFound, "there is no cluster %q here: this node belongs to %q", t.name(), st.Cluster.Name)
	}
	return nil
}

func whenNow(s *session) error {
	if v, ok := s.take("WHEN"); ok && !strings.EqualFold(v, "now") {
		return fail(ExitIncorrect, "WHEN=%s: only now is possible; whether services start at boot is the node's START_ON_BOOT", v)
	}
	return nil
}

func oneOf(attr, v string, allowed ...string) (string, error) {
	for _, a := range allowed {
		if strings.EqualFold(v, a) {
			return a, nil
		}
	}
	return "", fail(ExitIncorrect, "%s=%s: it must be one of %s%s", attr, v, strings.Join(allowed, ", "), cluster.DidYouMean(strings.ToLower(v), allowed))
}

// serviceNodes are the nodes that a start or stop of services names; none: all.
func (s *session) serviceNodes(ctx context.Context, t *target) ([]string, *api.Status, error) {
	var nodes []string
	if t.class.Name == "node" {
		nodes = t.names
	} else if v, ok := s.take("NODES"); ok {
		if nodes = cluster.SplitList(v); len(nodes) == 0 {
			return nil, nil, fail(ExitMissing, "NODES= names no node")
		}
	}
	st, err := s.look(ctx, nil, nodes)
	if err != nil {
		return nil, nil, err
	}
	return nodes, st, t.clusterName(st)
}

func startServices(ctx context.Context, s *session, t *target) error {
	r := api.Request{Op: api.OpStart, Manage: api.ManageAuto}
	if err := whenNow(s); err != nil {
		return err
	}
	if v, ok := s.take("MANAGE"); ok {
		m, err := oneOf("MANAGE", v, api.ManageAuto, api.ManageManual)
		if err != nil {
			return err
		}
		r.Manage = m
	}
	switch o := strings.ToLower(s.options["o"]); o {
	case "home":
		r.Placement = api.PlacementHome
	case "", "available":
	case "manual":
		r.Manage = api.ManageManual
	default:
		return fail(ExitIncorrect, "option -o: %q is not one of home, available, manual (or json, for the output)", s.options["o"])
	}
	nodes, before, err := s.serviceNodes(ctx, t)
	if err != nil {
		return err
	}
	r.Nodes = nodes
	return s.do(ctx, t.what(), r, startGoal(nodes, before, r))
}

// startGoal: services run on the nodes, the cluster has settled, no group is in error; with home, each group that the start
// brought online is at home.
func startGoal(nodes []string, before *api.Status, r api.Request) goal {
	home := r.Placement == api.PlacementHome
	return goal{
		calm: true,
		missing: func(st *api.Status) []string {
			var out []string
			for _, n := range chosen(st, nodes) {
				if n.State != api.NodeNormal {
					out = append(out, nodeIs(st, n.Name)+", wanted NORMAL")
				}
			}
			out = append(out, unsettled(st)...)
			out = append(out, fewVoters(st)...)
			for i := range st.Groups {
				g := &st.Groups[i]
				out = append(out, errorsOf(st, g)...)
				if home && len(out) == 0 {
					out = append(out, notAtHome(st, before, g)...)
				}
			}
			return out
		},
		done: func(st *api.Status) string {
			var out []string
			for _, n := range chosen(st, nodes) {
				out = append(out, n.Name)
			}
			return "cluster services run on " + join(out) + "; " + whereGroupsAre(st)
		},
	}
}

// fewVoters waits for the votes of nodes that have just joined: until three vote, the loss of one may end everything, and whoever
// has started a cluster takes it for one that survives that.
func fewVoters(st *api.Status) []string {
	running := 0
	for i := range st.Nodes {
		if st.Nodes[i].State == api.NodeNormal {
			running++
		}
	}
	if v := st.Cluster.Quorum.Voters; v > 0 && v < 3 && running >= 3 {
		return []string{fmt.Sprintf("%d of 3 nodes vote so far (no failure is survived yet), wanted 3", v)}
	}
	return nil
}

// chosen are the nodes that were named, or all.
func chosen(st *api.Status, names []string) []*api.Node {
	var out []*api.Node
	for i := range st.Nodes {
		if len(names) == 0 || slices.Contains(names, st.Nodes[i].Name) {
			out = append(out, &st.Nodes[i])
		}
	}
	return out
}

func errorsOf(st *api.Status, g *api.Group) []string {
	var out []string
	for i := range g.Instances {
		if g.Instances[i].State == api.GroupError {
			out = append(out, groupIs(st, g.Name, g.Instances[i].Node))
		}
	}
	return out
}

// notAtHome judges a group that was nowhere before the start. One that ran already is not moved by a start.
func notAtHome(st, before *api.Status, g *api.Group) []string {
	if len(g.Nodes) == 0 || g.Suspended {
		return nil
	}
	if old := before.Group(g.Name); old != nil && len(old.OnlineOn()) > 0 {
		return nil
	}
	if i := g.On(g.Nodes[0]); i != nil && i.State == api.GroupOnline {
		return nil
	}
	return []string{groupIs(st, g.Name, "") + ", wanted ONLINE on its home node " + g.Nodes[0]}
}

// unsettled says what the cluster is still doing.
func unsettled(st *api.Status) []string {
	if st.Cluster.State != api.ClusterUnstable {
		return nil
	}
	var out []string
	for _, p := range st.Pending {
		what := p.Op
		if p.Group != "" {
			what += " of " + p.Group
		}
		out = append(out, what+" on "+p.Node+inBrackets(p.Reason))
	}
	if len(out) == 0 {
		out = []string{"the cluster to settle (it is UNSTABLE)"}
	}
	return out
}

func whereGroupsAre(st *api.Status) string {
	var out []string
	for i := range st.Groups {
		g := &st.Groups[i]
		if on := g.OnlineOn(); len(on) > 0 {
			out = append(out, g.Name+" is ONLINE on "+join(on))
		} else {
			out = append(out, groupIs(st, g.Name, ""))
		}
	}
	if len(out) == 0 {
		return "there are no resource groups"
	}
	return strings.Join(out, "; ")
}

func join(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

func stopServices(ctx context.Context, s *session, t *target) error {
	r := api.Request{Op: api.OpStop, Manage: api.ManageOffline}
	if err := whenNow(s); err != nil {
		return err
	}
	v, byAttr := s.take("MANAGE")
	if byAttr {
		m, err := oneOf("MANAGE", v, api.ManageOffline, api.ManageMove, api.ManageUnmanage)
		if err != nil {
			return err
		}
		r.Manage = m
	}
	if w, ok := s.options["m"]; ok {
		m, err := modeOf("m", w, stopModes)
		if err != nil {
			return err
		}
		if byAttr && m != r.Manage {
			return fail(ExitIncorrect, "%s: -m %s and MANAGE=%s say different things", t.what(), w, v)
		}
		r.Manage = m
	}
	nodes, _, err := s.serviceNodes(ctx, t)
	if err != nil {
		return err
	}
	r.Nodes = nodes
	return s.do(ctx, t.what(), r, stopGoal(nodes, r.Manage))
}

// stopGoal: no services on the nodes, and nothing of a group there; with unmanage what ran there is UNMANAGED.
func stopGoal(nodes []string, manage string) goal {
	wanted := api.NodeOffline
	if manage == api.ManageUnmanage {
		wanted = api.NodeUnmanaged
	}
	return goal{
		calm: len(nodes) > 0,
		missing: func(st *api.Status) []string {
			var out []string
			for _, n := range chosen(st, nodes) {
				// A node that ran nothing has nothing to be unmanaged; a dead one runs nothing, which is proven.
				if n.State != wanted && n.State != api.NodeOffline && n.State != api.NodeDead {
					out = append(out, nodeIs(st, n.Name)+", wanted "+wanted)
				}
				for i := range st.Groups {
					if in := st.Groups[i].On(n.Name); in != nil && !stopped(in, manage) {
						out = append(out, groupIs(st, st.Groups[i].Name, n.Name)+", wanted it to be gone from there")
					}
				}
			}
			if len(out) == 0 && len(nodes) > 0 {
				out = unsettled(st) // the others may have to take something over
			}
			return out
		},
		done: func(st *api.Status) string {
			var out []string
			for _, n := range chosen(st, nodes) {
				out = append(out, n.Name+" is "+n.State)
			}
			if len(nodes) == 0 && manage != api.ManageUnmanage {
				return "cluster services are stopped: " + join(out)
			}
			return "cluster services are stopped: " + join(out) + "; " + whereGroupsAre(st)
		},
	}
}

func stopped(i *api.Instance, manage string) bool {
	return i.State == api.GroupOffline || manage == api.ManageUnmanage && i.State == api.GroupUnmanaged
}

// groupsAndNode reads the groups of a request, and the attribute NODE or NODES (one node).
func (s *session) groupsAndNode(ctx context.Context, t *target) (*api.Status, string, error) {
	node, _ := s.take("NODE")
	node = strings.TrimSpace(node)
	var nodes []string
	if node != "" {
		nodes = []string{node}
	}
	st, err := s.look(ctx, t.names, nodes)
	return st, node, err
}

func onlineGroups(ctx context.Context, s *session, t *target) error {
	if glass, err := s.breakGlass(ctx, t, "start"); glass || err != nil {
		return err
	}
	_, node, err := s.groupsAndNode(ctx, t)
	if err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(node), api.Request{Op: api.OpOnline, Groups: t.names, Node: node}, onlineGoal(t.names, node))
}

func moveGroups(ctx context.Context, s *session, t *target) error {
	_, node, err := s.groupsAndNode(ctx, t)
	if err != nil {
		return err
	}
	if node == "" {
		return fail(ExitMissing, "%s needs NODE=node; usage: %s", t.what(), t.usage())
	}
	return s.do(ctx, t.whatOf(node), api.Request{Op: api.OpMove, Groups: t.names, Node: node}, onlineGoal(t.names, node))
}

// whatOf names the command with its objects, for messages.
func (t *target) whatOf(node string) string {
	s := t.what() + " " + strings.Join(t.names, ",")
	if node != "" {
		s += " NODE=" + node
	}
	return s
}

// onlineGoal: each group is ONLINE on the node, or, with none named, somewhere; and in no transition elsewhere.
func onlineGoal(groups []string, node string) goal {
	return goal{
		missing: func(st *api.Status) []string {
			var out []string
			for _, name := range groups {
				g := st.Group(name)
				if g == nil {
					out = append(out, groupIs(st, name, ""))
					continue
				}
				out = append(out, notOnline(st, g, node)...)
			}
			return out
		},
		done: func(st *api.Status) string {
			var out []string
			for _, name := range groups {
				out = append(out, name+" is ONLINE on "+join(st.Group(name).OnlineOn()))
			}
			return strings.Join(out, "; ")
		},
	}
}

func notOnline(st *api.Status, g *api.Group, node string) []string {
	if node != "" {
		if i := g.On(node); i == nil || i.State != api.GroupOnline {
			return []string{groupIs(st, g.Name, node) + ", wanted ONLINE" + elsewhere(g, node)}
		}
	} else if len(g.OnlineOn()) == 0 {
		return []string{groupIs(st, g.Name, "") + ", wanted ONLINE"}
	}
	var out []string
	for k := range g.Instances {
		if i := &g.Instances[k]; i.State == api.GroupAcquiring || i.State == api.GroupReleasing {
			out = append(out, groupIs(st, g.Name, i.Node))
		}
	}
	return out
}

// elsewhere says where a group is instead.
func elsewhere(g *api.Group, node string) string {
	var parts []string
	for k := range g.Instances {
		if i := &g.Instances[k]; i.Node != node && i.State != api.GroupOffline {
			parts = append(parts, i.Text()+" on "+i.Node+inBrackets(reasonFor(g, i)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; it is " + join(parts)
}

func offlineGroups(ctx context.Context, s *session, t *target) error {
	if glass, err := s.breakGlass(ctx, t, "stop"); glass || err != nil {
		return err
	}
	_, node, err := s.groupsAndNode(ctx, t)
	if err != nil {
		return err
	}
	groups := t.names
	return s.do(ctx, t.whatOf(node), api.Request{Op: api.OpOffline, Groups: groups, Node: node}, goal{
		missing: func(st *api.Status) []string { return notOffline(st, groups, node) },
		done: func(*api.Status) string {
			if node != "" {
				return join(groups) + " is OFFLINE on " + node
			}
			return join(groups) + " is OFFLINE"
		},
	})
}

func notOffline(st *api.Status, groups []string, node string) []string {
	var out []string
	for _, name := range groups {
		g := st.Group(name)
		if g == nil {
			continue // it was deleted meanwhile
		}
		for k := range g.Instances {
			i := &g.Instances[k]
			if (node == "" || node == i.Node) && i.State != api.GroupOffline {
				out = append(out, groupIs(st, name, i.Node)+", wanted OFFLINE")
			}
		}
	}
	return out
}

func unsetPriority(ctx context.Context, s *session, t *target) error {
	groups := append(t.names, cluster.SplitList(s.options["g"])...)
	if len(groups) == 0 {
		return fail(ExitMissing, "%s needs a group; usage: %s", t.what(), t.usage())
	}
	t.names = groups
	if _, err := s.look(ctx, groups, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpUnsetPriority, Groups: groups}, goal{
		calm: true,
		missing: func(st *api.Status) []string {
			out := unsettled(st)
			for _, name := range groups {
				if g := st.Group(name); g != nil && g.Override != nil {
					out = append(out, name+" still has "+g.Override.Node+" as its first priority")
				}
			}
			return out
		},
		done: func(st *api.Status) string {
			return "no operator's placement for " + join(groups) + "; " + groupsAre(st, groups)
		},
	})
}

// groupsAre says where some groups are.
func groupsAre(st *api.Status, groups []string) string {
	var out []string
	for _, g := range groups {
		out = append(out, groupIs(st, g, ""))
	}
	return strings.Join(out, "; ")
}

func clearGroups(ctx context.Context, s *session, t *target) error {
	groups := t.names
	if _, err := s.look(ctx, groups, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpClear, Groups: groups}, goal{
		calm: true,
		missing: func(st *api.Status) []string {
			out := unsettled(st)
			for _, name := range groups {
				if g := st.Group(name); g != nil {
					out = append(out, errorsOf(st, g)...)
				}
			}
			return out
		},
		done: func(st *api.Status) string { return "cleared; " + groupsAre(st, groups) },
	})
}

func clearNode(ctx context.Context, s *session, t *target) error {
	node := t.name()
	if _, err := s.look(ctx, nil, []string{node}); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpClear, Node: node}, goal{
		missing: func(st *api.Status) []string {
			if n := st.Node(node); n == nil || n.State == api.NodeQuarantined {
				return []string{nodeIs(st, node)}
			}
			return nil
		},
		done: func(st *api.Status) string { return nodeIs(st, node) },
	})
}

// flagGoal: the groups are suspended, or not, and the cluster has settled.
func flagGoal(groups []string, suspended bool, word string) goal {
	return goal{
		calm: !suspended,
		missing: func(st *api.Status) []string {
			var out []string
			for _, name := range groups {
				if g := st.Group(name); g != nil && g.Suspended != suspended {
					out = append(out, name+" is not yet "+word)
				}
			}
			if !suspended {
				out = append(out, unsettled(st)...)
			}
			return out
		},
		done: func(st *api.Status) string { return join(groups) + " is " + word + "; " + groupsAre(st, groups) },
	}
}

func suspendGroups(ctx context.Context, s *session, t *target) error {
	if _, err := s.look(ctx, t.names, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpSuspend, Groups: t.names}, flagGoal(t.names, true, "suspended"))
}

func resumeGroups(ctx context.Context, s *session, t *target) error {
	if _, err := s.look(ctx, t.names, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpResume, Groups: t.names}, flagGoal(t.names, false, "resumed"))
}

// managedGoal: the groups are, or are not, under the cluster's care.
func managedGoal(groups []string, managed bool) goal {
	return goal{
		calm: true,
		missing: func(st *api.Status) []string {
			out := unsettled(st)
			for _, name := range groups {
				g := st.Group(name)
				if g == nil {
					continue
				}
				for k := range g.Instances {
					i := &g.Instances[k]
					if managed == (i.State == api.GroupUnmanaged) && (managed || i.State == api.GroupOnline) {
						out = append(out, groupIs(st, name, i.Node))
					}
				}
			}
			return out
		},
		done: func(st *api.Status) string { return groupsAre(st, groups) },
	}
}

func unmanageGroups(ctx context.Context, s *session, t *target) error {
	if _, err := s.look(ctx, t.names, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpUnmanage, Groups: t.names}, managedGoal(t.names, false))
}

func manageGroups(ctx context.Context, s *session, t *target) error {
	if _, err := s.look(ctx, t.names, nil); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpManage, Groups: t.names}, managedGoal(t.names, true))
}

func confirmNodeDown(ctx context.Context, s *session, t *target) error {
	node := t.name()
	st, err := s.look(ctx, nil, []string{node})
	if err != nil {
		return err
	}
	if err := s.sure(fmt.Sprintf("%s. You say that it is dead: its power is off, or its disks are cut off from it. If it still runs, two nodes "+
		"may hold the same file systems and addresses.", nodeIs(st, node)), "confirm node_down "+node); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpConfirmDown, Node: node}, goal{
		calm: true,
		missing: func(st *api.Status) []string {
			out := unsettled(st)
			if n := st.Node(node); n != nil && n.State != api.NodeDead && n.State != api.NodeJoining && n.State != api.NodeNormal {
				out = append(out, nodeIs(st, node)+", wanted DEAD")
			}
			return out
		},
		done: func(st *api.Status) string { return nodeIs(st, node) + "; " + whereGroupsAre(st) },
	})
}

func formatRepository(ctx context.Context, s *session, t *target) error {
	name := t.name()
	r := api.Request{Op: api.OpFormat, Repository: name}
	if v, ok := s.take("OVERWRITE"); ok {
		switch {
		case strings.EqualFold(v, "yes"):
			r.Overwrite = true
		case !strings.EqualFold(v, "no"):
			return fail(ExitIncorrect, "OVERWRITE=%s: it must be yes or no", v)
		}
	}
	if err := s.sure(fmt.Sprintf("The device of repository %s is formatted: everything on it is lost.", name), "format repository "+name); err != nil {
		return err
	}
	r.ID = client.NewID()
	what := t.whatOf("")
	reply, err := send(ctx, s, what, func(ctx context.Context) (api.Reply, error) { return s.client.Do(ctx, r) })
	if err != nil {
		return err
	}
	return s.finish(ctx, what, reply, goal{
		missing: func(st *api.Status) []string { return voteMissing(st) },
		done:    func(*api.Status) string { return reply.Sentence },
	})
}

// replaceRepository puts another formatted volume to use, waits until it votes where a vote is due, and then takes the one before out of
// the definition.
func replaceRepository(ctx context.Context, s *session, t *target) error {
	r := api.Request{ID: client.NewID(), Op: api.OpReplace, Repository: t.name(), Force: s.force}
	st, err := s.look(ctx, nil, nil)
	if err != nil {
		return err
	}
	d, _, err := s.definition(ctx)
	if err != nil {
		return err
	}
	if t.name() != "" && !slices.ContainsFunc(d.Repositories, func(r cluster.Repository) bool { return r.Name == t.name() }) {
		return fail(ExitNotFound, "no repository %s in the definition: clmgr add repository %s DEVICE=..., then clmgr format repository %s", t.name(), t.name(), t.name())
	}
	what, before := strings.TrimSpace("replace repository "+t.name()), ""
	if st.Cluster.Repository != nil {
		before = st.Cluster.Repository.Name
	}
	reply, err := send(ctx, s, what, func(ctx context.Context) (api.Reply, error) { return s.client.Do(ctx, r) })
	if err != nil {
		return err
	}
	done := reply.Sentence
	if reply.Refused == "" && !reply.Already && !s.noWait {
		st, err := s.await(ctx, what, reply, goal{missing: func(st *api.Status) []string {
			if now := st.Cluster.Repository; now == nil || now.Name == before {
				return []string{"this node does not know the new volume yet"}
			} else if len(now.Leaving) > 0 {
				return []string{"the volume that is replaced still votes"}
			}
			return voteMissing(st)
		}, failed: func(*api.Status) string { return "" }})
		if err != nil {
			return err
		}
		left, err := s.dropRepository(ctx, what, before)
		if err != nil {
			return err
		}
		done = reply.Sentence + "; " + st.Cluster.Repository.Sentence + left
	}
	return s.finish(ctx, what, reply, goal{missing: func(*api.Status) []string { return nil }, done: func(*api.Status) string { return done }})
}

// dropRepository takes a volume that is not in use any more out of the definition. left says so.
func (s *session) dropRepository(ctx context.Context, what, name string) (left string, err error) {
	was := s.live
	s.live = true // also where changes are staged: it is the end of what has just been done
	defer func() { s.live = was }()
	_, err = s.edit(ctx, what, func(d *cluster.Definition) error {
		d.Repositories = slices.DeleteFunc(d.Repositories, func(r cluster.Repository) bool { return r.Name == name })
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("%s: the new volume is in use; %s is still in the definition and can be deleted: %w", what, name, err)
	}
	return "; " + name + " is not in the definition any more", nil
}

// voteMissing waits for the repository's vote where it is due: two nodes run.
func voteMissing(st *api.Status) []string {
	running := 0
	for i := range st.Nodes {
		if st.Nodes[i].State != api.NodeDead && st.Nodes[i].State != api.Unknown {
			running++
		}
	}
	if q := st.Cluster.Quorum; len(st.Nodes) == 2 && running == 2 && (q.Voters < 3 || q.Alive < 3) {
		return []string{fmt.Sprintf("%d of %d votes (two nodes and the repository vote, wanted 3 of 3)", q.Alive, q.Voters)}
	}
	return nil
}

// sure asks a human, unless -f was given. Without a terminal there is nobody to ask, and -f is needed.
func (s *session) sure(consequence, what string) error {
	if s.force {
		return nil
	}
	if !s.env.Terminal {
		return fail(ExitMissing, "%s\n%s needs -f when nobody can be asked", consequence, what)
	}
	fmt.Fprintf(s.env.Stderr, "%s\nType yes to go on: ", consequence)
	if answer := readLine(s.env.Stdin); !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return fail(ExitFailed, "%s: not confirmed, nothing was done", what)
	}
	return nil
}

func explain(ctx context.Context, s *session, t *target) error {
	names := t.names
	st, err := s.look(ctx, nil, nil)
	if err != nil {
		return err
	}
	// `explain resource_group app_rg` is what the grammar of the other actions suggests.
	if len(names) == 2 && st.Group(names[0]) == nil {
		if c, err := cluster.FindClass(names[0]); err == nil && c.Name == "resource_group" {
			names = names[1:]
		}
	}
	group, node := names[0], ""
	var nodes []string
	if len(names) == 2 {
		node = names[1]
		nodes = []string{node}
	}
	if _, err := s.look(ctx, []string{group}, nodes); err != nil {
		return err
	}
	e, err := s.client.Explain(ctx, group, node)
	if err != nil {
		return err
	}
	if s.form == formJSON {
		return writeJSON(s.out, e)
	}
	if st.Cluster.Stale() {
		s.warn("%s", staleness(&st.Cluster))
	}
	for _, sentence := range e.Sentences {
		fmt.Fprintln(s.out, printable(sentence))
	}
	for _, v := range e.Nodes {
		can := "cannot take it"
		if v.Can {
			can = "can take it"
		}
		fmt.Fprintf(s.out, "  %-15s %-10s %s%s\n", v.Node, v.State, can, inBrackets(printable(v.Reason)))
	}
	return nil
}

func simulate(ctx context.Context, s *session, t *target) error {
	if s.env.Simulate == nil {
		return fail(ExitFailed, "simulate is not built into this binary")
	}
	sim := Simulation{File: t.name(), JSON: s.form == formJSON, Client: s.client, Stdin: s.env.Stdin, Stdout: s.out, Stderr: s.env.Stderr}
	if _, live := s.options["live"]; live {
		sim.File, sim.Live = "", t.names
	}
	switch {
	case t.name() == "":
		return fail(ExitMissing, "%s needs a file, or --live and steps; usage: %s", t.what(), t.usage())
	case sim.Live == nil && len(t.names) > 1:
		return fail(ExitIncorrect, "%s takes one file, and %q is one word too many; usage: %s", t.what(), t.names[1], t.usage())
	}
	if status := s.env.Simulate(ctx, sim); status != ExitOK {
		return &failure{status, errSilent}
	}
	return nil
}
