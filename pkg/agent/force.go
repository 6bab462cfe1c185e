package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A forced configuration: the majority is lost for good, and the operator's word takes its place (docs/design/0009-forced-configuration.md
// has the argument). This node becomes the only voter of a new epoch, all at once: the new configuration, the epoch and the deaths are one
// write to its log. What can be known is asked before: whether the lost answer, whether somebody leads or has more of the log, whether
// the volume is there, what the fence devices say; and for as long as any lease could last nobody may be heard.

// Times of a forced configuration.
const (
	forceLook   = 250 * time.Millisecond // between two looks at the others
	forceAsk    = time.Second            // for one answer
	forceLead   = 20 * time.Second       // until this node leads alone; its log may be long
	forceVolume = "if the volume works its vote brings the majority back"
)

// standing is what a node says of itself to one that is about to force its configuration.
type standing struct {
	Leader string `json:"leader,omitempty"`
	Term   uint64 `json:"term"` // of the last entry of its log
	Index  uint64 `json:"index"`
}

func (m *member) serveStanding(context.Context, string, []byte) ([]byte, error) {
	s, err := m.standing()
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func (m *member) standing() (standing, error) {
	s := standing{Leader: m.leaderNode()}
	var err error
	s.Index, s.Term, err = m.raft.LastEntry()
	return s, err
}

// Recover implements server.Membership.
func (a *Agent) Recover(ctx context.Context, who api.Caller, r api.Recover) (api.Reply, error) {
	m, err := a.configured()
	if err != nil {
		return api.Reply{}, err
	}
	a.mu.Lock()
	busy := a.changing
	a.changing = true
	a.mu.Unlock()
	if busy {
		return api.Reply{}, api.Errorf(api.CodeRefused, "this node is being made, or taken out of, a member already")
	}
	defer a.end1()
	if a.forced.id == r.ID { // changing keeps others away
		return a.awaitForced(ctx, m.name, a.forced.epoch)
	}
	view, err := m.wholeView()
	if err != nil {
		return api.Reply{}, err
	}
	f := &forcing{m: m, view: view, dead: slices.Sorted(slices.Values(r.Dead)), lost: slices.Sorted(slices.Values(r.Lost)), noFence: r.SkipFence,
		volumes: map[string]bool{}}
	for _, step := range []func(context.Context) error{f.checkNames, f.checkVotes, f.checkHere, f.listen, f.fence} {
		if err := step(ctx); err != nil {
			a.log.Warn("the configuration is not forced", "by", who.String(), "dead", f.dead, "lost", f.lost, "why", err)
			return api.Reply{}, err
		}
	}
	return a.force(ctx, who, f, r)
}

// wholeView is the state that this node's log leads to, with the part of which no leader has said that it is committed: a node that was
// started without a majority knows nothing else, and a forced configuration makes all of it count.
func (m *member) wholeView() (*state.State, error) {
	view := m.view()
	var bad error
	err := m.raft.Tail(func(index, term uint64, data []byte) {
		if len(data) == 0 || bad != nil {
			return
		}
		c, err := state.DecodeCommand(data)
		if err != nil {
			bad = fmt.Errorf("entry %d of the log cannot be understood: %w", index, err)
			return
		}
		view, _ = state.Apply(view, state.Entry{Index: index, Term: term, Command: c})
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("read what this node's log leads to: %w", err)
	}
	return view, nil
}

// A forcing is one attempt.
type forcing struct {
	m       *member
	view    *state.State
	dead    []string // nodes
	lost    []string // repositories
	noFence bool
	fenced  []string        // what the devices said
	volumes map[string]bool // voters without a vote that have said what they have
}

func refuse(format string, args ...any) error { return api.Errorf(api.CodeRefused, format, args...) }

// checkNames: a name that is wrong stops everything.
func (f *forcing) checkNames(context.Context) error {
	d := f.view.Definition
	if d == nil {
		return refuse("this node's log has no definition of the cluster: it has nothing to go on with")
	}
	if len(f.dead)+len(f.lost) == 0 {
		return api.Errorf(api.CodeMissing, "nothing is declared dead or lost")
	}
	for _, name := range f.dead {
		switch {
		case d.Node(name) == nil:
			return api.Errorf(api.CodeNotFound, "there is no node %q in the definition", name)
		case name == f.m.name:
			return api.Errorf(api.CodeInvalid, "node %s is this one: the configuration is forced on a node that goes on", name)
		}
	}
	for _, name := range f.lost {
		if !slices.ContainsFunc(d.Repositories, func(r cluster.Repository) bool { return r.Name == name }) {
			return api.Errorf(api.CodeNotFound, "there is no repository %q in the definition", name)
		}
	}
	return nil
}

// checkVotes: what is named must be the majority, or the word is not needed. A volume in use must be named too: it goes with the old
// configuration, and what its voter has stored may be more than this node has.
func (f *forcing) checkVotes(context.Context) error {
	var all, left []string
	for _, s := range f.m.raft.Configuration() {
		if !s.Voter {
			continue
		}
		all = append(all, s.ID)
		if !f.names(s.ID) {
			left = append(left, f.speak(s.ID))
		}
	}
	if len(left) >= len(all)/2+1 {
		return refuse("%s of %d votes are not named, which is a majority: nothing needs to be forced while they can come back. Name all that are lost for good, or wait",
			strings.Join(left, " and "), len(all))
	}
	for _, r := range formatted(f.view.Definition) {
		if !slices.Contains(f.lost, r.Name) {
			return refuse("the repository volume %s is in use and is not named as lost (LOST=%s): %s", r.Name, r.Name, forceVolume)
		}
	}
	return nil
}

func (f *forcing) names(server string) bool {
	if isRepository(server) {
		return slices.ContainsFunc(formatted(f.view.Definition), func(r cluster.Repository) bool {
			return repositoryPrefix+r.UUID == server && slices.Contains(f.lost, r.Name)
		})
	}
	return slices.Contains(f.dead, nodeOfServer(server))
}

func (f *forcing) speak(server string) string {
	if !isRepository(server) {
		return "node " + nodeOfServer(server)
	}
	for _, r := range formatted(f.view.Definition) {
		if repositoryPrefix+r.UUID == server {
			return "repository " + r.Name
		}
	}
	return server
}

// checkHere: this node has no leader, and holds nothing that an old leader could think is its.
func (f *forcing) checkHere(context.Context) error { return f.check(false) }

// check is checkHere; over says that the listening is. A volume that has no vote (three nodes and more have one) is given up with the old
// configuration, but not with more of the log than there is here.
func (f *forcing) check(over bool) error {
	m := f.m
	if leader := m.leaderNode(); leader != "" {
		return refuse("node %s leads: the cluster has its majority. A node that is dead is declared so by: clmgr confirm node_down NODE", leader)
	}
	if loc := m.local.Load(); loc == nil || loc.armed {
		return refuse("node %s has not let go yet of what it held under the old majority: its deadman is armed. Try again in some seconds", m.name)
	}
	for _, r := range formatted(f.view.Definition) {
		if !slices.Contains(f.lost, r.Name) {
			continue
		}
		rep := m.repo.reportOf(r.UUID)
		open := m.disk.trouble.Load() == nil && m.wantedVolume() != nil && m.wantedVolume().UUID == r.UUID
		readable := open || rep != nil && (rep.State == VoterRunning || rep.Host != "")
		switch {
		case readable && votes(m.raft.Configuration(), repositoryPrefix+r.UUID):
			return refuse("the repository volume %s can be read here: it is not lost. %s", r.Name, forceVolume)
		case readable && over && !f.volumes[repositoryPrefix+r.UUID]:
			return refuse("the repository volume %s can be read here, and its voter has not said yet whether it has more of the log than this node. Try again in some seconds", r.Name)
		}
	}
	return nil
}

// listen asks everybody again and again, for as long as a lease of the old majority could last: nobody who is named may be heard, and nobody
// may lead or know more than this node.
func (f *forcing) listen(ctx context.Context) error {
	m := f.m
	own, err := m.standing()
	if err != nil {
		return err
	}
	bound := f.longestLease()
	m.log.Warn("the configuration is about to be forced; this node listens for the others first", "dead", f.dead, "lost", f.lost, "for", bound)
	began := m.clock.Now()
	for {
		if err := f.look(ctx, own, began); err != nil {
			return err
		}
		over := m.clock.Now().Sub(began) >= bound
		if err := f.check(over); err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return refuse("the others were not listened for long enough (%.1f s are needed): nothing was done", bound.Seconds())
		case <-after(forceLook):
		}
	}
}

// longestLease is how long a lease can have been in force for: by what the log knows of each node's deadman, and by the definition.
func (f *forcing) longestLease() time.Duration {
	bound := f.m.params().Expiry()
	for _, name := range f.view.NodeNames() {
		if n := f.view.Node(name); n != nil && n.Armed != nil {
			bound = max(bound, n.Armed.Expiry())
		}
	}
	return bound
}

// look asks each other member once, all at the same time.
func (f *forcing) look(ctx context.Context, own standing, began lease.Instant) error {
	m := f.m
	type answer struct {
		node string
		s    *standing
		err  error
	}
	var others []string
	for i := range f.view.Definition.Nodes {
		if name := f.view.Definition.Nodes[i].Name; name != m.name {
			others = append(others, name)
		}
	}
	for _, r := range formatted(f.view.Definition) {
		others = append(others, repositoryPrefix+r.UUID)
	}
	answers := make(chan answer, len(others))
	ctx, cancel := context.WithTimeout(ctx, forceAsk)
	defer cancel()
	for _, node := range others {
		m.work.Go(func() {
			a := answer{node: node}
			var out []byte
			if out, a.err = m.links.Call(ctx, node, rpcStanding, nil); a.err == nil {
				a.s = &standing{}
				a.err = json.Unmarshal(out, a.s)
			}
			answers <- a
		})
	}
	var said []answer
	for range others {
		said = append(said, <-answers)
	}
	slices.SortFunc(said, func(x, y answer) int { return strings.Compare(x.node, y.node) })
	for _, a := range said {
		if err := f.judge(a.node, a.s, a.err, own, began); err != nil {
			return err
		}
	}
	return nil
}

// judge says what stands against the operator's word in one member's answer, or in signs of life of any other kind.
func (f *forcing) judge(node string, s *standing, err error, own standing, began lease.Instant) error {
	m := f.m
	if isRepository(node) {
		return f.judgeVolume(node, s, own)
	}
	named := slices.Contains(f.dead, node)
	m.detMu.Lock()
	now := m.clock.Now()
	silent, known := m.det.Silent(node, now)
	disk := m.det.OnDisk(node, now)
	m.detMu.Unlock()
	heard := known && silent < now.Sub(began)
	switch {
	case named && disk:
		return refuse("node %s is not dead: its heartbeat on the repository volume goes on", node)
	case named && s != nil:
		return refuse("node %s is not dead: it answers", node)
	case named && otherEpoch(err):
		return refuse("node %s is not dead: it answers, and belongs to another epoch of the cluster", node)
	case named && (heard || known && silent < m.params().Silence):
		return refuse("node %s is not dead: it was heard %.1f s ago", node, silent.Seconds())
	case s == nil:
		return nil
	case s.Leader != "":
		return refuse("node %s knows a leader, node %s: the cluster has its majority, and this node is cut off from it", node, s.Leader)
	case s.Term > own.Term || s.Term == own.Term && s.Index > own.Index:
		return refuse("node %s lives and has more of the log than this node (entry %d of term %d, here entry %d of term %d): force the configuration there",
			node, s.Index, s.Term, own.Index, own.Term)
	}
	return nil
}

// judgeVolume takes the answer of a repository voter; nil: there was none.
func (f *forcing) judgeVolume(server string, s *standing, own standing) error {
	if s == nil {
		return nil
	}
	f.volumes[server] = true
	if s.Term > own.Term || s.Term == own.Term && s.Index > own.Index {
		return refuse("%s has more of the log than this node (entry %d of term %d, here entry %d of term %d). Force the configuration on a node that has it; "+
			"only a volume that this node cannot read is lost", f.speak(server), s.Index, s.Term, own.Index, own.Term)
	}
	return nil
}

// fence asks the devices that can say more than silence does. One that cannot say "off" stops it.
func (f *forcing) fence(ctx context.Context) error {
	for _, node := range f.dead {
		levels := f.view.Definition.FenceLevelsOf(node)
		if len(levels) == 0 || f.noFence {
			continue
		}
		if n := f.view.Node(node); n != nil && n.Dead != nil && n.Dead.Kind == state.ProofFenced {
			continue
		}
		proof, err := f.off(ctx, node, levels)
		if err != nil {
			return refuse("no fence device says that node %s is off: %v. If you have seen that it is: FENCE=no", node, err)
		}
		f.fenced = append(f.fenced, proof)
	}
	return nil
}

// off switches the node off by the first level whose devices all say so, each of them after the last was switched.
func (f *forcing) off(ctx context.Context, node string, levels [][]*cluster.FenceDevice) (string, error) {
	var errs []error
	for _, level := range levels {
		var words []string
		var failed error
		for _, d := range slices.Concat(level, level[:len(level)-1]) {
			proof, err := f.m.fencer.Off(ctx, d, node, nil)
			if err != nil {
				failed = fmt.Errorf("fence device %s: %w", d.Name, err)
				break
			}
			words = append(words, proof)
		}
		if failed == nil {
			return node + ": " + strings.Join(words[len(level)-1:], "; "), nil
		}
		errs = append(errs, failed)
	}
	return "", errors.Join(errs...)
}

// force stops this node's part in the cluster, changes its log, and takes part again, alone.
func (a *Agent) force(ctx context.Context, who api.Caller, f *forcing, r api.Recover) (api.Reply, error) {
	m, dir := f.m, a.opt.Node.StateDir
	commands, id, err := f.commands(who, r.ID)
	if err != nil {
		return api.Reply{}, err
	}
	next := m.epoch + 1
	a.log.Warn("the configuration is forced", "by", who.String(), "dead", f.dead, "lost", f.lost, "epoch", next, "fence_devices", f.fenced)
	if err := saveEpoch(dir, epochRecord{Epoch: m.epoch, Next: next, NextID: id}); err != nil {
		return api.Reply{}, err
	}
	a.stopMember()
	err = consensus.Force(consensus.Forcing{ID: m.id.RaftID, ClusterID: m.id.ClusterUUID, Dir: m.raftDir(), MachineID: machineID(), Commands: commands,
		Config: consensus.Config{Clock: a.opt.Clock, Logger: a.log}})
	if err == nil {
		err = saveEpoch(dir, epochRecord{Epoch: next})
	}
	if err == nil && len(formatted(f.view.Definition)) > 0 {
		err = m.forgetVolume(f.view.DefinitionVersion + 1)
	}
	a.forced.id, a.forced.epoch = r.ID, next
	// Whether it was done or not: the file and the log tell the next member.
	if berr := a.begin(context.WithoutCancel(ctx), m.id, nil); berr != nil {
		a.fail(berr)
		return api.Reply{}, api.Errorf(api.CodeUncertain, "this node's daemon does not come back and ends: %v. The service manager starts it again; "+
			"clmgr query cluster then shows the epoch", errors.Join(err, berr))
	}
	if err != nil {
		return api.Reply{}, err
	}
	return a.awaitForced(ctx, m.name, next)
}

// commands tell the state machine. The definition loses the ids of the volumes that are lost: should a disk be found again, nothing uses it.
func (f *forcing) commands(who api.Caller, request string) (out [][]byte, id string, err error) {
	id = "force-" + request[:min(len(request), 50)]
	list := []*state.Command{{ID: id, NewEpoch: &state.NewEpoch{Epoch: f.view.Epoch + 1, Dead: f.dead}}}
	if len(formatted(f.view.Definition)) > 0 {
		if f.view.Staged != nil {
			list = append(list, &state.Command{Stage: &state.Stage{Version: f.view.StagedVersion}}) // or the definition could not change
		}
		d := f.view.Definition.Clone()
		for i := range d.Repositories {
			d.Repositories[i].UUID = ""
		}
		list = append(list, &state.Command{SetDefinition: &state.SetDefinition{Base: f.view.DefinitionVersion, Definition: d}})
	}
	sentence := fmt.Sprintf("%s has forced the configuration on node %s; declared dead: %s", who, f.m.name, orNone(f.dead))
	if len(f.lost) > 0 {
		sentence += "; declared lost: the repository volume " + strings.Join(f.lost, ", ")
	}
	for _, proof := range f.fenced {
		sentence += "; " + proof
	}
	if f.noFence {
		sentence += "; without asking the fence devices"
	}
	list = append(list, &state.Command{Note: &state.Note{Event: state.EventEpoch, Node: f.m.name, Sentence: bounded(sentence, 500)}})
	for _, c := range list {
		c.At, c.By = f.m.wall(), who.String()
		b, err := c.Encode()
		if err != nil {
			return nil, "", fmt.Errorf("encode the command: %w", err)
		}
		out = append(out, b)
	}
	return out, id, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "no node"
	}
	return strings.Join(list, ", ")
}

// awaitForced waits until this node leads alone and the epoch has begun.
func (a *Agent) awaitForced(ctx context.Context, node string, epoch uint64) (api.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, forceLead)
	defer cancel()
	for {
		if m := a.current(); m != nil {
			view := m.view()
			if led := m.leading(); led != nil && led.ready() && view.Epoch >= epoch {
				return api.Reply{Index: view.Index, Sentence: fmt.Sprintf("epoch %d has begun; node %s votes alone. All other nodes take no part as they are, should they come "+
					"back: for each, clmgr add token NODE here, and clmgr join cluster TOKEN=... there", epoch, node)}, nil
			}
		}
		select {
		case <-ctx.Done():
			return api.Reply{}, api.Errorf(api.CodeUncertain, "the configuration is forced, but node %s does not lead yet: clmgr query cluster", node)
		case <-after(50 * time.Millisecond):
		}
	}
}
