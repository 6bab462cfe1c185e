package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A liveAttribute is one that a query shows and that is not part of the definition.
type liveAttribute struct {
	name string
	doc  string
	get  func(st *api.Status, object string) string
}

// liveAttributes by class. They stand before the definition's own, because a person looks for them first.
var liveAttributes = map[string][]liveAttribute{
	"cluster": {
		{"CLUSTER_ID", "the cluster's short number", func(st *api.Status, _ string) string { return strconv.FormatUint(st.Cluster.ID, 10) }},
		{"CLUSTER_UUID", "the cluster's id", func(st *api.Status, _ string) string { return st.Cluster.UUID }},
		{"STATE", "STABLE, UNSTABLE, ERROR, OFFLINE", func(st *api.Status, _ string) string { return st.Cluster.State }},
		{"LEADER", "the node that leads; UNKNOWN: none is known", func(st *api.Status, _ string) string { return orUnknown(st.Cluster.Leader) }},
		{"QUORUM", "whether the cluster can decide", func(st *api.Status, _ string) string { return quorumText(&st.Cluster) }},
		{"EPOCH", "how often the configuration was forced, and one", func(st *api.Status, _ string) string { return strconv.FormatUint(st.Cluster.Epoch, 10) }},
		{"REPOSITORY", "the repository volume in use, and who runs its voter", func(st *api.Status, _ string) string { return repositoryText(&st.Cluster) }},
		{"REPOSITORY_BACKUPS", "the repository volumes that are not in use", func(st *api.Status, _ string) string { return backupsText(&st.Cluster) }},
		{"VERSION", "of this node's daemon", func(st *api.Status, _ string) string { return st.Cluster.ProductVersion }},
		{"LOCAL_NODE", "this node", func(st *api.Status, _ string) string { return st.Cluster.LocalNode }},
		{"DEFINITION_VERSION", "grows with each change of the definition",
			func(st *api.Status, _ string) string { return strconv.FormatUint(st.Cluster.DefinitionVersion, 10) }},
		{"UNSYNCED_CHANGES", "whether staged changes wait for a sync", func(st *api.Status, _ string) string { return strconv.FormatBool(st.Cluster.Unsynced) }},
		{"AGE", "how long ago this node last knew that it knows the newest", func(st *api.Status, _ string) string { return optional(st.Cluster.AgeSeconds) }},
		{"WARNINGS", "what the operator should know", func(st *api.Status, _ string) string { return strings.Join(st.Cluster.Warnings, "; ") }},
	},
	"node": {
		{"STATE", "NORMAL, OFFLINE, UNMANAGED, JOINING, LEAVING, SILENT, ISOLATED, DEAD, QUARANTINED", ofNode(func(n *api.Node) string { return orUnknown(n.State) })},
		{"RAW_STATE", "the state in the words of clstrmgrES", ofNode(func(n *api.Node) string { return n.RawState })},
		{"REASON", "the last sentence about the node", ofNode(func(n *api.Node) string { return n.Reason })},
		{"VOTER", "whether the node votes", ofNode(func(n *api.Node) string { return strconv.FormatBool(n.Voter) })},
		{"LEADER", "whether the node leads", ofNode(func(n *api.Node) string { return strconv.FormatBool(n.Leader) })},
		{"INCARNATION", "the number of the node's boot", ofNode(func(n *api.Node) string { return strconv.FormatUint(n.Incarnation, 10) })},
		{"RESETS", "boots after a reset by its deadman, as counted for the quarantine",
			ofNode(func(n *api.Node) string { return strconv.Itoa(n.Resets) })},
		{"VERSION", "of the node's daemon", ofNode(func(n *api.Node) string { return n.Version })},
		{"LEASE_AGE", "seconds since the request behind its newest grant", ofLease(func(l *api.Lease) string { return optional(l.AgeSeconds) })},
		{"LEASE_MARGIN", "seconds until it would release its groups", ofLease(func(l *api.Lease) string { return optional(l.MarginSeconds) })},
		{"ARMED", "whether its deadman is armed", ofLease(func(l *api.Lease) string { return strconv.FormatBool(l.Armed) })},
		{"DEADMAN", "the deadman's class and device", ofLease(func(l *api.Lease) string { return strings.TrimSpace(l.Class + " " + l.Backend) })},
		{"NETWORKS", "its networks and their states", ofNode(func(n *api.Node) string {
			var out []string
			for _, w := range n.Networks {
				out = append(out, w.Name+":"+w.State)
			}
			return strings.Join(out, ",")
		})},
	},
	"network": {{"STATE", "UP on one node at least", func(st *api.Status, o string) string {
		for _, n := range st.Networks {
			if n.Name == o {
				return n.State
			}
		}
		return api.Unknown
	}}},
	"service_ip":             {{"CURRENT_NODE", "where it is held", holder("service_ip")}, {"STATE", "running, stopped, degraded, unknown", held("service_ip")}},
	"volume_group":           {{"CURRENT_NODE", "where it is varied on", holder("volume_group")}, {"STATE", "running, stopped, degraded, unknown", held("volume_group")}},
	"nfs_export":             {{"CURRENT_NODE", "where it is exported", holder("nfs_export")}, {"STATE", "running, stopped, degraded, unknown", held("nfs_export")}},
	"file_system":            {{"CURRENT_NODE", "where it is held", holder("file_system")}, {"STATE", "running, stopped, degraded, unknown", held("file_system")}},
	"application_controller": {{"CURRENT_NODE", "where it is held", holder("application")}, {"STATE", "as clRGinfo -m shows it", appState}},
	"resource_group": {
		{"CURRENT_NODE", "where it is ONLINE", ofGroup(func(g *api.Group) string { return strings.Join(g.OnlineOn(), ",") })},
		{"STATE", "its most telling state", ofGroup(groupState)},
		{"INSTANCES", "its state on each node", ofGroup(func(g *api.Group) string {
			var out []string
			for i := range g.Instances {
				out = append(out, g.Instances[i].Node+":"+g.Instances[i].Text())
			}
			return strings.Join(out, ",")
		})},
		{"SUSPENDED", "per-group maintenance", ofGroup(func(g *api.Group) string { return strconv.FormatBool(g.Suspended) })},
		{"PRIORITY_OVERRIDE", "where the operator has placed it", ofGroup(func(g *api.Group) string {
			if g.Override == nil {
				return ""
			}
			return g.Override.Node
		})},
		{"GENERATION", "the number of its newest acquisition", ofGroup(func(g *api.Group) string { return strconv.FormatUint(g.Generation, 10) })},
		{"REASON", "the last decision about it", ofGroup(func(g *api.Group) string { return g.Sentence })},
	},
}

func ofNode(f func(*api.Node) string) func(*api.Status, string) string {
	return func(st *api.Status, name string) string {
		if n := st.Node(name); n != nil {
			return f(n)
		}
		return api.Unknown
	}
}

func ofLease(f func(*api.Lease) string) func(*api.Status, string) string {
	return ofNode(func(n *api.Node) string {
		if n.Lease == nil {
			return api.Unknown
		}
		return f(n.Lease)
	})
}

func ofGroup(f func(*api.Group) string) func(*api.Status, string) string {
	return func(st *api.Status, name string) string {
		if g := st.Group(name); g != nil {
			return f(g)
		}
		return api.Unknown
	}
}

// optional shows a number of seconds that may not be known.
func optional(f *float64) string {
	if f == nil {
		return api.Unknown
	}
	return strconv.FormatFloat(math.Round(*f*1000)/1000, 'f', -1, 64)
}

func repositoryText(c *api.Cluster) string {
	r := c.Repository
	if r == nil {
		return "none"
	}
	vote := "it does not vote"
	if r.Voter {
		vote = "it votes"
	}
	return fmt.Sprintf("%s (%s): %s; %s", r.Name, r.Device, vote, r.Sentence)
}

func backupsText(c *api.Cluster) string {
	var out []string
	for _, b := range c.Backups {
		out = append(out, fmt.Sprintf("%s (%s) %s: %s", b.Name, b.Device, b.State, b.Sentence))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, "; ")
}

func quorumText(c *api.Cluster) string {
	have := "no"
	if c.Quorum.Have {
		have = "yes"
	}
	s := fmt.Sprintf("%s: %d of %d voters alive, %d needed", have, c.Quorum.Alive, c.Quorum.Voters, c.Quorum.Needed)
	if c.Quorum.Sentence != "" {
		s += "; " + c.Quorum.Sentence
	}
	return s
}

// groupState is the one word for a group that stands on several nodes: what needs attention first, then what works.
func groupState(g *api.Group) string {
	order := []string{api.GroupError, api.Unknown, api.GroupTempError, api.GroupReleasing, api.GroupAcquiring, api.GroupUnmanaged, api.GroupOnline}
	for _, s := range order {
		for i := range g.Instances {
			if g.Instances[i].State == s {
				return g.Instances[i].Text()
			}
		}
	}
	if len(g.Instances) == 0 {
		return api.Unknown
	}
	text := g.Instances[0].Text()
	for i := range g.Instances {
		if g.Instances[i].Text() != text {
			return api.GroupOffline
		}
	}
	return text
}

func resource(st *api.Status, kind, name string) *api.Resource {
	var found *api.Resource
	for i := range st.Groups {
		for k := range st.Groups[i].Resources {
			r := &st.Groups[i].Resources[k]
			if r.Kind == kind && r.Name == name && (found == nil || r.State == "running") {
				found = r
			}
		}
	}
	return found
}

func holder(kind string) func(*api.Status, string) string {
	return func(st *api.Status, name string) string {
		if r := resource(st, kind, name); r != nil && r.State == "running" {
			return r.Node
		}
		return ""
	}
}

func held(kind string) func(*api.Status, string) string {
	return func(st *api.Status, name string) string {
		if r := resource(st, kind, name); r != nil {
			return r.State
		}
		return strings.ToLower(api.Unknown)
	}
}

func appState(st *api.Status, name string) string {
	state := api.AppOffline
	for i := range st.Groups {
		for _, a := range st.Groups[i].Applications {
			if a.Name == name && a.State != api.AppOffline {
				state = a.State
			}
		}
	}
	return state
}

// queryObjects shows objects of a class of the definition.
func queryObjects(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	d, now, err := s.editable(ctx)
	if err != nil {
		return err
	}
	if now.Staged {
		s.warn("staged changes wait for a sync: attributes are as staged, states as they are (clmgr diff shows what differs)")
	}
	st, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	columns, err := chosenAttributes(t.class, s.attrs)
	if err != nil {
		return err
	}
	names := t.names
	if len(names) == 0 {
		names = t.class.Names(d)
	}
	for _, n := range names {
		if !t.class.Has(d, n) {
			return fail(ExitNotFound, "there is no %s %q%s", t.class.Name, n, cluster.DidYouMean(n, t.class.Names(d)))
		}
	}
	bare := len(t.names) == 0 && !t.class.Singleton && !s.verbose && len(s.attrs) == 0 && len(s.set) == 0
	if bare && s.form != formJSON {
		return s.printNames(t.class.Name, names)
	}
	list, err := s.matching(d, &st, t.class, names, columns)
	if err != nil {
		return err
	}
	if st.Cluster.Stale() && s.form != formJSON {
		s.warn("%s: states are as they were then", staleness(&st.Cluster))
	}
	return s.printRecords(t.class.Name, list)
}

// matching builds the records of the objects that meet the conditions ATTR=VALUE; VALUE may have * for any text.
func (s *session) matching(d *cluster.Definition, st *api.Status, c *cluster.Class, names, columns []string) ([]record, error) {
	for _, cond := range s.set {
		if _, err := chosenAttributes(c, []string{cond.Attribute}); err != nil {
			return nil, err
		}
	}
	var list []record
	for _, n := range names {
		all := recordOf(d, st, c, n)
		if !slices.ContainsFunc(s.set, func(a cluster.Assignment) bool { return !matches(a.Value, all.value(canonical(c, a.Attribute))) }) {
			r := make(record, 0, len(columns))
			for _, col := range columns {
				r = append(r, attribute{col, all.value(col)})
			}
			list = append(list, r)
		}
	}
	if len(list) == 0 && len(s.set) > 0 {
		return nil, fail(ExitNoMatch, "no %s matches the conditions", c.Name)
	}
	return list, nil
}

func matches(pattern, value string) bool {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	re, err := regexp.Compile("(?is)^" + strings.Join(parts, ".*") + "$")
	if err != nil { // too long for the engine
		return false
	}
	if re.MatchString(value) {
		return true
	}
	return slices.ContainsFunc(cluster.SplitList(value), re.MatchString)
}

// recordOf is an object with all its attributes, live ones after the name.
func recordOf(d *cluster.Definition, st *api.Status, c *cluster.Class, name string) record {
	var r record
	live := liveAttributes[c.Name]
	for i, a := range c.Attributes {
		v, err := c.Get(d, name, a.Name)
		if err != nil {
			v = api.Unknown
		}
		r = append(r, attribute{a.Name, v})
		if i == 0 {
			for _, l := range live {
				r = append(r, attribute{l.name, l.get(st, name)})
			}
		}
	}
	return r
}

// attributeNames lists what a query of the class shows.
func attributeNames(c *cluster.Class) []string {
	var out []string
	for i, a := range c.Attributes {
		out = append(out, a.Name)
		if i == 0 {
			for _, l := range liveAttributes[c.Name] {
				out = append(out, l.name)
			}
		}
	}
	return out
}

func canonical(c *cluster.Class, name string) string {
	if a := c.Attribute(name); a != nil {
		return a.Name
	}
	return strings.ToUpper(name)
}

// chosenAttributes resolves -a, which takes NAME for the object's own name in every class; with nothing chosen, all.
func chosenAttributes(c *cluster.Class, names []string) ([]string, error) {
	all := attributeNames(c)
	if len(names) == 0 {
		return all, nil
	}
	var out []string
	for _, n := range names {
		can := canonical(c, n)
		if can == "NAME" && !slices.Contains(all, can) {
			can = all[0]
		}
		if !slices.Contains(all, can) {
			if f := cluster.FindForeign(can, c.Name); f != nil {
				return nil, fail(ExitNotFound, "%s has no attribute %s, which is PowerHA's: %s", c.Name, f.Name, f.Why)
			}
			return nil, fail(ExitNotFound, "%s has no attribute %s%s; it has: %s", c.Name, strings.ToUpper(n),
				cluster.DidYouMean(strings.ToUpper(n), all), strings.Join(all, ", "))
		}
		out = append(out, can)
	}
	return out, nil
}

// queryStatus shows everything that the node knows.
func queryStatus(ctx context.Context, s *session, _ *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	st, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	return writeJSON(s.out, st)
}

// queryEvents shows the history.
func queryEvents(ctx context.Context, s *session, _ *target) error {
	tail, since, follow := 100, uint64(0), false
	if v, ok := s.take("TAIL"); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > api.MaxEvents {
			return fail(ExitIncorrect, "TAIL=%s: a number from 1 to %d", v, api.MaxEvents)
		}
		tail = n
	}
	if v, ok := s.take("SINCE"); ok {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return fail(ExitIncorrect, "SINCE=%s: the id of an event", v)
		}
		since = n
	}
	if v, ok := s.take("FOLLOW"); ok {
		var err error
		if follow, err = cluster.ParseBool(v); err != nil {
			return fail(ExitIncorrect, "FOLLOW=%s: yes or no", v)
		}
	}
	keep := map[string]string{}
	for _, a := range []string{"NODE", "GROUP", "KIND"} {
		if v, ok := s.take(a); ok {
			keep[a] = v
		}
	}
	if follow {
		return s.followEvents(ctx, since, tail, keep)
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	// Conditions are applied here, so more than TAIL events may have to be read.
	ask := tail
	if len(keep) > 0 || since > 0 {
		ask = api.MaxEvents
	}
	list, err := s.client.Events(ctx, since, ask)
	if err != nil {
		return err
	}
	var out []api.Event
	for _, e := range list.Events {
		if wantsEvent(keep, e) {
			out = append(out, e)
		}
	}
	if len(out) > tail {
		out = out[len(out)-tail:]
	}
	if len(out) == 0 && len(keep) > 0 {
		return fail(ExitNoMatch, "no event matches the conditions")
	}
	if list.Lost {
		s.warn("events between %d and the first one shown are no longer kept", since)
	}
	return s.printEvents(out)
}

// followEvents shows events as they come, until it is interrupted. TAIL counts before the conditions: what is still to come cannot be
// counted.
func (s *session) followEvents(ctx context.Context, since uint64, tail int, keep map[string]string) error {
	if s.yaml || s.form == formXML {
		return fail(ExitIncorrect, "query event: FOLLOW=yes has no end, and %s is written as a whole: take -o json, which is one object a line, -c or text",
			map[bool]string{true: "-o yaml", false: "-x"}[s.yaml])
	}
	err := s.client.Follow(ctx, since, tail, func(e api.Event) error {
		switch {
		case !wantsEvent(keep, e):
			return nil
		case s.form == formJSON:
			return json.NewEncoder(s.out).Encode(e)
		}
		defer func() { s.noHeader = true }()
		return s.printEvents([]api.Event{e})
	}, func(sentence string) { s.warn("%s", sentence) })
	if ctx.Err() != nil {
		return nil // interrupted, which is how this ends
	}
	return err
}

func wantsEvent(keep map[string]string, e api.Event) bool {
	return wants(keep, "NODE", e.Node) && wants(keep, "GROUP", e.Group) && wants(keep, "KIND", e.Kind)
}

func wants(keep map[string]string, attr, value string) bool {
	p, ok := keep[attr]
	return !ok || matches(p, value)
}

func (s *session) printEvents(list []api.Event) error {
	switch {
	case s.form == formJSON:
		if list == nil {
			list = []api.Event{}
		}
		return writeJSON(s.out, list)
	case s.form != formText || len(s.attrs) > 0:
		var out []record
		for _, e := range list {
			out = append(out, record{{"ID", strconv.FormatUint(e.ID, 10)}, {"TIME", s.time(e)}, {"KIND", e.Kind}, {"NODE", e.Node}, {"GROUP", e.Group},
				{"SENTENCE", e.Sentence}, {"USER", e.User}})
		}
		return s.printChosen("event", out)
	}
	for _, e := range list {
		who := ""
		if e.User != "" {
			who = " [" + e.User + "]"
		}
		fmt.Fprintln(s.out, printable(fmt.Sprintf("%6d %s %-24s %s%s", e.ID, s.time(e), e.Kind, e.Sentence, who)))
	}
	return nil
}

func (s *session) time(e api.Event) string {
	return e.Time.In(s.env.Location).Format("2006-01-02 15:04:05.000")
}
