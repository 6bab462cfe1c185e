package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// action is one step, read and checked: what to do in the world.
type action func(w *world)

// verbs maps the first word of a step to its reader. The arguments are the words that follow.
var verbs = map[string]func(p *parser, args []string) action{
	"online":         (*parser).online,
	"offline":        (*parser).offline,
	"crash":          nodeVerb((*world).crash),
	"lose":           nodeVerb((*world).lose),
	"prove":          nodeVerb((*world).prove),
	"join":           nodeVerb((*world).join),
	"move":           (*parser).move,
	"unset-priority": groupVerb(func(g string) state.Command { return state.Command{UnsetPriority: &state.UnsetPriority{Group: g}} }),
	"clear":          groupVerb(func(g string) state.Command { return state.Command{ClearGroup: &state.ClearGroup{Group: g}} }),
	"suspend":        groupVerb(func(g string) state.Command { return state.Command{SuspendGroup: &state.SuspendGroup{Group: g}} }),
	"resume":         groupVerb(func(g string) state.Command { return state.Command{ResumeGroup: &state.ResumeGroup{Group: g}} }),
	"fail":           pairVerb((*world).fail),
	"acquire-fails":  pairVerb(func(w *world, g, n string) { w.acquireFails[pair{g, n}] = true }),
	"acquire-works":  pairVerb(func(w *world, g, n string) { delete(w.acquireFails, pair{g, n}) }),
	"release-fails":  pairVerb(func(w *world, g, n string) { w.releaseFails[pair{g, n}] = true }),
	"release-works":  pairVerb(func(w *world, g, n string) { delete(w.releaseFails, pair{g, n}) }),
	"network-down":   networkVerb(false),
	"network-up":     networkVerb(true),
	"measure":        (*parser).measure,
	"wait":           (*parser).wait,
}

// pair is a group and a node.
type pair struct{ group, node string }

// parser reads steps against a definition. The first fault of a step is kept in err.
type parser struct {
	def *cluster.Definition
	err error
}

// parse reads one step.
func (p *parser) parse(do string) (action, error) {
	p.err = nil
	words := strings.Fields(do)
	if len(words) == 0 {
		return nil, fmt.Errorf("the step is empty: say what to do, as in: crash node1")
	}
	read, ok := verbs[words[0]]
	if !ok {
		return nil, fmt.Errorf("there is no step %q%s; there are %s", clip(words[0]), cluster.DidYouMean(words[0], verbNames()), strings.Join(verbNames(), ", "))
	}
	a := read(p, words[1:])
	if p.err != nil {
		return nil, p.err
	}
	return a, nil
}

func verbNames() []string {
	var out []string
	for v := range verbs {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

func (p *parser) fail(format string, args ...any) action {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	return nil
}

// count checks the number of arguments.
func (p *parser) count(args []string, least, most int, usage string) bool {
	if len(args) < least || len(args) > most {
		p.fail("usage: %s", usage)
		return false
	}
	return true
}

func (p *parser) node(name string) bool {
	if p.def.Node(name) == nil {
		p.fail("there is no node %q%s; there are %s", clip(name), cluster.DidYouMean(name, nodeNames(p.def)), strings.Join(nodeNames(p.def), ", "))
		return false
	}
	return true
}

func (p *parser) group(name string) bool {
	if p.def.Group(name) == nil {
		p.fail("there is no resource group %q%s; there are %s", clip(name), cluster.DidYouMean(name, groupNames(p.def)), orNone(groupNames(p.def)))
		return false
	}
	return true
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func nodeNames(d *cluster.Definition) []string {
	var out []string
	for i := range d.Nodes {
		out = append(out, d.Nodes[i].Name)
	}
	return out
}

func groupNames(d *cluster.Definition) []string {
	var out []string
	for i := range d.ResourceGroups {
		out = append(out, d.ResourceGroups[i].Name)
	}
	return out
}

func nodeVerb(f func(*world, string)) func(*parser, []string) action {
	return func(p *parser, args []string) action {
		if !p.count(args, 1, 1, "VERB NODE") || !p.node(args[0]) {
			return nil
		}
		return func(w *world) { f(w, args[0]) }
	}
}

func groupVerb(f func(string) state.Command) func(*parser, []string) action {
	return func(p *parser, args []string) action {
		if !p.count(args, 1, 1, "VERB GROUP") || !p.group(args[0]) {
			return nil
		}
		return func(w *world) { w.request(f(args[0])) }
	}
}

func pairVerb(f func(w *world, group, node string)) func(*parser, []string) action {
	return func(p *parser, args []string) action {
		if !p.count(args, 2, 2, "VERB GROUP NODE") || !p.group(args[0]) || !p.node(args[1]) {
			return nil
		}
		return func(w *world) { f(w, args[0], args[1]) }
	}
}

func networkVerb(up bool) func(*parser, []string) action {
	return func(p *parser, args []string) action {
		if !p.count(args, 2, 2, "VERB NETWORK NODE") {
			return nil
		}
		if p.def.Network(args[0]) == nil {
			return p.fail("there is no network %q", clip(args[0]))
		}
		if !p.node(args[1]) {
			return nil
		}
		return func(w *world) { w.network(args[0], args[1], up) }
	}
}

// online reads: online cluster [manual] | online NODE [manual] | online GROUP [NODE].
func (p *parser) online(args []string) action {
	if !p.count(args, 1, 2, "online cluster | online NODE [manual] | online GROUP [NODE]") {
		return nil
	}
	if nodes, ok := p.services(args[0]); ok {
		mode := state.StartAuto
		if len(args) == 2 {
			if args[1] != "manual" {
				return p.fail("cluster services start %q? There is only: manual", clip(args[1]))
			}
			mode = state.StartManual
		}
		return func(w *world) { w.request(state.Command{NodeServices: &state.NodeServices{Nodes: nodes, Start: mode}}) }
	}
	c := &state.OnlineGroup{Group: args[0]}
	if !p.nodeOrGroup(args[0]) || len(args) == 2 && !p.node(args[1]) {
		return nil
	}
	if len(args) == 2 {
		c.Node = args[1]
	}
	return func(w *world) { w.request(state.Command{OnlineGroup: c}) }
}

// offline reads: offline cluster [move|unmanage] | offline NODE [move|unmanage] | offline GROUP [NODE].
func (p *parser) offline(args []string) action {
	if !p.count(args, 1, 2, "offline cluster|NODE [move|unmanage] | offline GROUP [NODE]") {
		return nil
	}
	if nodes, ok := p.services(args[0]); ok {
		mode := state.StopOffline
		if len(args) == 2 {
			mode = state.StopMode(args[1])
			if mode != state.StopMove && mode != state.StopUnmanage && mode != state.StopOffline {
				return p.fail("cluster services stop %q? There are: move, unmanage", clip(args[1]))
			}
		}
		return func(w *world) { w.request(state.Command{NodeServices: &state.NodeServices{Nodes: nodes, Stop: mode}}) }
	}
	c := &state.OfflineGroup{Group: args[0]}
	if !p.nodeOrGroup(args[0]) || len(args) == 2 && !p.node(args[1]) {
		return nil
	}
	if len(args) == 2 {
		c.Node = args[1]
	}
	return func(w *world) { w.request(state.Command{OfflineGroup: c}) }
}

// services says whether the word means cluster services, and on which nodes (nil: all).
func (p *parser) services(word string) ([]string, bool) {
	switch {
	case p.def.Group(word) != nil:
		return nil, false
	case p.def.Node(word) != nil:
		return []string{word}, true
	}
	return nil, word == "cluster"
}

func (p *parser) nodeOrGroup(name string) bool {
	if p.def.Group(name) != nil {
		return true
	}
	all := append(nodeNames(p.def), groupNames(p.def)...)
	p.fail("there is no node or resource group %q%s", clip(name), cluster.DidYouMean(name, append(all, "cluster")))
	return false
}

func (p *parser) move(args []string) action {
	if !p.count(args, 2, 2, "move GROUP NODE") || !p.group(args[0]) || !p.node(args[1]) {
		return nil
	}
	return func(w *world) { w.request(state.Command{MoveGroup: &state.MoveGroup{Group: args[0], Node: args[1]}}) }
}

// measure reads: measure NODE cpu=90 mem=4096 disk=3 script=7, in any order, each at most once.
func (p *parser) measure(args []string) action {
	const usage = "measure NODE [cpu=IDLE%%] [mem=FREE_MIB] [disk=BUSY%%] [script=ANSWER]"
	if len(args) < 2 {
		return p.fail("usage: " + usage)
	}
	if !p.node(args[0]) {
		return nil
	}
	var m state.Measures
	seen := map[string]bool{}
	for _, a := range args[1:] {
		key, text, ok := strings.Cut(a, "=")
		value, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || value != value || value > 1e18 || value < -1e18 {
			return p.fail("%q is no measure: usage: "+usage, clip(a))
		}
		if seen[key] {
			return p.fail("%s is measured twice", key)
		}
		seen[key] = true
		switch key {
		case "cpu":
			m.CPU = &value
		case "mem":
			m.Memory = &value
		case "disk":
			m.Disk = &value
		case "script":
			m.Script = map[string]float64{"": value}
		default:
			return p.fail("there is no measure %q: usage: "+usage, clip(key))
		}
	}
	return func(w *world) { w.measure(args[0], m) }
}

func (p *parser) wait(args []string) action {
	if !p.count(args, 1, 1, "wait DURATION, as in: wait 10m") {
		return nil
	}
	d, err := cluster.ParseDuration(args[0])
	if err != nil {
		return p.fail("%v", err)
	}
	if d < 0 || d > 100*365*24*time.Hour {
		return p.fail("a wait lasts between 0 and 100 years, not %s", clip(args[0]))
	}
	return func(w *world) { w.wait(d) }
}
