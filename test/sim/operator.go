package sim

import (
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// operators give commands on any node, and remember what was acknowledged (pkg/agent operate.go).
type operators struct {
	w     *world
	ids   int
	acked []acknowledged
}

type acknowledged struct {
	id    string
	index uint64
}

const forwardLimit = 10 * time.Second

// live makes operators do something from time to time.
func (o *operators) live() {
	w := o.w
	if w.calm {
		return
	}
	if a := w.someNode().current(); a != nil {
		if c := o.choose(a); c != nil {
			o.give(a, c, func(string) {})
		}
	}
	w.after(w.fbetween(200*time.Millisecond, 4*time.Second), "operator", o.live)
}

// give runs a command from a node (operate): it is passed to the leader, wherever that is, and tried again while there is none.
func (o *operators) give(a *agent, c *state.Command, done func(refused string)) {
	o.ids++
	c.ID, c.By = fmt.Sprint("op", o.ids), "operator"
	id, limit := c.ID, o.w.now+forwardLimit
	o.w.note("operator", a.name, "%s: %s %s", id, c.Kind(), describe(c))
	var try func()
	try = func() {
		if o.w.now >= limit {
			done("no leader")
			return
		}
		again := func() { o.w.post(a.p, 100*time.Millisecond, "operator", try) }
		to := a.s.leader
		if to == "" {
			again()
			return
		}
		call(a, to, "operate", 2*time.Second, func(dst *agent, reply func(operateReply)) { dst.operateHere(c, reply) },
			func(r operateReply, ok bool) {
				switch {
				case !ok || r.leader != "":
					again()
				case r.refused != "":
					done(r.refused)
				default:
					if r.index > 0 {
						o.acked = append(o.acked, acknowledged{id, r.index})
						o.w.stats.Acknowledged++
					}
					done("")
				}
			})
	}
	try()
}

type operateReply struct {
	leader, refused string
	index           uint64
}

// operateHere is the leader's side: admission on its newest view, then the log.
func (a *agent) operateHere(c *state.Command, reply func(operateReply)) {
	l := a.leading()
	if l == nil || !l.book.Ready() {
		reply(operateReply{leader: "?"})
		return
	}
	v := a.view()
	if d := c.SetDefinition; d != nil {
		if d.Base != v.DefinitionVersion {
			reply(operateReply{refused: "the definition has changed meanwhile"})
			return
		}
	} else {
		x := scheduler.Admit(v, c, a.w.wall(a.n))
		if x.Refused != "" || x.Already {
			reply(operateReply{refused: x.Refused})
			return
		}
	}
	same := *c
	same.At = a.w.wall(a.n)
	a.commit(&same, func(r state.Result, err error) {
		if err != nil {
			reply(operateReply{leader: "?"})
			return
		}
		reply(operateReply{refused: r.Refused, index: r.Index})
	})
}

// check: what was acknowledged is in the log, and stays there.
func (o *operators) check() {
	w := o.w
	for _, k := range o.acked {
		if k.index > uint64(len(w.canon)) || w.canon[k.index-1].cmd == nil || w.canon[k.index-1].cmd.ID != k.id {
			w.fail("P3 no lost decision", "the command %s was acknowledged at %d and is not there", k.id, k.index)
			return
		}
	}
}

// choose thinks of a command, with what the node at hand shows.
func (o *operators) choose(a *agent) *state.Command {
	w, v := o.w, a.view()
	if v.Definition == nil {
		return nil
	}
	r := w.fr
	group := v.Definition.ResourceGroups[r.IntN(len(v.Definition.ResourceGroups))].Name
	node := w.someNode()
	switch r.IntN(40) {
	case 0, 1, 2, 3, 4, 5:
		return &state.Command{MoveGroup: &state.MoveGroup{Group: group, Node: node.name}}
	case 6, 7, 8:
		return &state.Command{OnlineGroup: &state.OnlineGroup{Group: group}}
	case 9:
		return &state.Command{OnlineGroup: &state.OnlineGroup{Group: group, Node: node.name}}
	case 10, 11:
		return &state.Command{OfflineGroup: &state.OfflineGroup{Group: group}}
	case 12:
		return &state.Command{OfflineGroup: &state.OfflineGroup{Group: group, Node: node.name}}
	case 13:
		for _, g := range v.GroupNames() {
			if v.Group(g).Override != nil {
				group = g
			}
		}
		return &state.Command{UnsetPriority: &state.UnsetPriority{Group: group}}
	case 14:
		return &state.Command{SuspendGroup: &state.SuspendGroup{Group: group}}
	case 15, 16, 17:
		return &state.Command{ResumeGroup: &state.ResumeGroup{Group: group}}
	case 18, 19, 20:
		return &state.Command{ClearGroup: &state.ClearGroup{Group: group}}
	case 21:
		return &state.Command{UnmanageGroup: &state.UnmanageGroup{Group: group}}
	case 22, 23, 24:
		return &state.Command{ManageGroup: &state.ManageGroup{Group: group}}
	case 25:
		return &state.Command{ClearNode: &state.ClearNode{Node: node.name}}
	case 26, 27, 28, 29, 30:
		mode := pick(r, state.StartAuto, state.StartAuto, state.StartAuto, state.StartManual)
		return &state.Command{NodeServices: &state.NodeServices{Nodes: []string{node.name}, Start: mode}}
	case 31, 32:
		mode := pick(r, state.StopOffline, state.StopMove, state.StopMove, state.StopUnmanage)
		return &state.Command{NodeServices: &state.NodeServices{Nodes: []string{node.name}, Stop: mode}}
	case 33, 34:
		return o.confirmDown(v, node)
	case 35, 36:
		switch {
		case v.Staged != nil && r.IntN(4) == 0:
			return &state.Command{Stage: &state.Stage{Version: v.StagedVersion}} // undo
		case v.Staged != nil:
			return &state.Command{Activate: &state.Activate{Version: v.StagedVersion}}
		case r.IntN(3) == 0:
			return &state.Command{Stage: &state.Stage{Version: v.StagedVersion, Definition: changed(r, v.Definition)}}
		}
		return &state.Command{SetDefinition: &state.SetDefinition{Base: v.DefinitionVersion, Definition: changed(r, v.Definition)}}
	case 37:
		return &state.Command{Note: &state.Note{Event: state.EventConfigTooLong, Group: group, Sentence: "by chance"}}
	case 38:
		if r.IntN(4) == 0 {
			return &state.Command{NewEpoch: &state.NewEpoch{Epoch: v.Epoch + 1}}
		}
		return &state.Command{Noop: &state.Noop{}}
	}
	return &state.Command{TokenAdd: &state.TokenAdd{Hash: fmt.Sprintf("%064d", o.ids), Node: node.name, Expires: w.wall0.Add(time.Hour)}}
}

// confirmDown: operators confirm only what is so, and keep it so until the word has arrived.
func (o *operators) confirmDown(v *state.State, n *node) *state.Command {
	x := v.Node(n.name)
	if x == nil || x.Lost == nil || n.m.up || len(n.old) > 0 {
		return nil
	}
	n.offUntil = o.w.now + forwardLimit + 5*time.Second
	return &state.Command{Proof: &state.Proof{Node: n.name, Kind: state.ProofOperator, Sentence: "the operator confirms that it is down"}}
}

func describe(c *state.Command) string {
	switch {
	case c.MoveGroup != nil:
		return c.MoveGroup.Group + " to " + c.MoveGroup.Node
	case c.OnlineGroup != nil:
		return c.OnlineGroup.Group
	case c.OfflineGroup != nil:
		return c.OfflineGroup.Group
	case c.NodeServices != nil:
		return fmt.Sprint(c.NodeServices.Nodes, c.NodeServices.Start, c.NodeServices.Stop)
	case c.SetDefinition != nil:
		s := c.SetDefinition.Definition.Settings
		return fmt.Sprint("profile ", s.Profile, ", mode ", s.DeadmanMode)
	case c.Proof != nil:
		return c.Proof.Node
	}
	return ""
}

// noteEntry tells of a committed entry what a reader of the trace needs.
func (w *world) noteEntry(e *entry) {
	c, refused := e.cmd, e.res.Refused
	switch {
	case refused != "":
		w.note("log", "", "%d %s refused: %s", e.index, c.Kind(), refused)
	case c.Acquire != nil:
		w.note("log", c.Acquire.Node, "%d acquire %s gen %d: %s", e.index, c.Acquire.Group, e.res.Generation&0xffffff, c.Acquire.Reason)
	case c.Release != nil:
		w.note("log", c.Release.Node, "%d release %s gen %d: %s", e.index, c.Release.Group, c.Release.Generation&0xffffff, c.Release.Reason)
	case c.Report != nil:
		w.note("log", c.Report.Node, "%d report %s gen %d %s", e.index, c.Report.Group, c.Report.Generation&0xffffff, c.Report.Outcome)
	case c.Proof != nil:
		w.note("log", c.Proof.Node, "%d proof %s of %d", e.index, c.Proof.Kind, c.Proof.Incarnation)
	case c.NodeBoot != nil:
		w.note("log", c.NodeBoot.Node, "%d boot %s is %d, stopped %v", e.index, c.NodeBoot.BootID, e.res.Incarnation, c.NodeBoot.AllStopped)
	case c.Armed != nil:
		w.note("log", c.Armed.Fact.Node, "%d armed %d %s W %v mode %s", e.index, c.Armed.Fact.Incarnation, c.Armed.Arming, c.Armed.Fact.Watchdog, c.Armed.Fact.Mode)
	case c.NodeLost != nil:
		w.note("log", c.NodeLost.Node, "%d lost %d", e.index, c.NodeLost.Incarnation)
	case c.Disarmed != nil:
		w.note("log", c.Disarmed.Node, "%d disarmed %d", e.index, c.Disarmed.Incarnation)
	default:
		w.note("log", "", "%d %s %s", e.index, c.Kind(), describe(c))
	}
}
