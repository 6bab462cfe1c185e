package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A break-glass start brings one resource group up on one node while no cluster runs: the last thing that is left when the cluster cannot
// be started in the time that there is. It takes the group's steps by the daemon's own executors and in the daemon's own order, and it is
// no part of the cluster: no lease covers what it starts, no deadman stands behind it, nothing moves it when the node fails. That no
// other node holds the group is the operator's word, given by naming the nodes; what can be checked is checked before, and contradicts
// the word where it can (docs/design/0008-break-glass.md).

// GlassOptions are those of a break-glass command. Node, Version and Logger of Options are needed.
type GlassOptions struct {
	Options
	Group string
	// File is a cluster file to go by; empty: what this node knew last.
	File string
	// Confirm is the confirmation of a script: the group, each other node of the cluster, and WithoutVolume where that is asked for.
	Confirm string
	// Ask reads the operator's answers, a line each; nil: nobody can be asked.
	Ask io.Reader
	Out io.Writer
	By  string // the operator, for the record

	dial func(ctx context.Context, address string) error
}

// WithoutVolume stands in a confirmation when the cluster has a repository volume that cannot be read.
const WithoutVolume = "without-volume"

// ErrGlassRefused says that nothing was begun.
var ErrGlassRefused = errors.New("refused, nothing was changed")

func glassRefused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrGlassRefused, fmt.Errorf(format, args...))
}

// glass is one break-glass command.
type glass struct {
	o       GlassOptions
	a       *Agent
	m       *member
	release func()
	answers <-chan string // lines that the operator typed; nil: nobody can be asked
	known   *lastKnown    // nil: this node has none
	source  string
	others  []string
	target  target
	volume  *glassVolume // nil: none is defined, or it cannot be read
	unseen  []string     // what could not be checked
	mark    *glassMark
}

// BreakGlassStart starts a resource group on this node without the cluster. An error that is ErrGlassRefused: nothing was changed. Any
// other: what was started is stopped again, or the error says what is not.
func BreakGlassStart(ctx context.Context, o GlassOptions) error {
	g, err := openGlass(ctx, o)
	if err != nil {
		return err
	}
	defer g.close()
	err = g.prepareStart(ctx)
	if err != nil {
		g.audit("start", "refused", err)
		return err
	}
	g.audit("start", "begun", nil)
	err = g.start(ctx)
	g.audit("start", "done", err)
	return err
}

// BreakGlassStop releases what BreakGlassStart has started, in reverse order.
func BreakGlassStop(ctx context.Context, o GlassOptions) error {
	g, err := openGlass(ctx, o)
	if err != nil {
		return err
	}
	defer g.close()
	err = g.stop(ctx)
	g.audit("stop", "done", err)
	return err
}

// openGlass makes sure that this command is alone on its machine.
func openGlass(ctx context.Context, o GlassOptions) (*glass, error) {
	if err := cluster.CheckName(o.Group); err != nil {
		return nil, glassRefused("a resource group cannot be called %q: %w", o.Group, err)
	}
	release, err := HoldMachine(o.Node)
	if err != nil {
		return nil, glassRefused("%w: a break-glass command is for a node whose cluster services do not run; use clmgr without --break-glass, or "+
			"stop the daemon first (systemctl stop holdfast)", err)
	}
	g := &glass{o: o, release: release}
	if g.a, err = New(o.Options); err != nil {
		release()
		return nil, err
	}
	if o.Ask != nil {
		g.answers = readLines(ctx, o.Ask)
	}
	if g.o.dial == nil {
		g.o.dial = func(ctx context.Context, address string) error {
			c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
			if err == nil {
				c.Close()
			}
			return err
		}
	}
	m := &member{a: g.a, opt: &g.a.opt, log: g.a.log, name: o.Node.Name, clock: g.a.opt.Clock, bootID: g.a.opt.BootID, executors: g.a.opt.Executors,
		runner: g.a.opt.Runner, mail: newMailbox()}
	m.loop.ctx = ctx
	m.disk.init(m.clock.Now())
	m.fsm = newFSM(m.log, func() {}, func(string) {})
	m.tombstones, err = executor.OpenTombstones(filepath.Join(o.Node.StateDir, "tombstones"))
	if err != nil {
		g.close()
		return nil, err
	}
	g.m = m
	g.a.mu.Lock()
	g.a.member = m // whom the executors ask for the applications' monitors
	g.a.mu.Unlock()
	return g, nil
}

func (g *glass) close() {
	if g.volume != nil {
		g.volume.close()
	}
	g.release()
}

func (g *glass) say(format string, args ...any) { fmt.Fprintf(g.o.Out, format+"\n", args...) }

// readLines reads apart from who waits for the answer: a terminal cannot be told that its question is off. It ends with the input, or with
// the process.
func readLines(ctx context.Context, from io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(from); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// answer waits for a line; ok is false when there is none to come.
func (g *glass) answer(ctx context.Context) (line string, ok bool) {
	select {
	case line, ok = <-g.answers:
		return line, ok
	case <-ctx.Done():
		return "", false
	}
}

// ask puts a question that only yes answers.
func (g *glass) ask(ctx context.Context, question string) bool {
	if g.answers == nil || g.o.Confirm != "" {
		return true
	}
	fmt.Fprintf(g.o.Out, "%s [y/N] ", question)
	line, _ := g.answer(ctx)
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}

// prepareStart does everything that changes nothing.
func (g *glass) prepareStart(ctx context.Context) error {
	for _, check := range []func(context.Context) error{g.noDeadman, g.noMark, g.findDefinition, g.scriptedWord, g.show, g.noneAnswers, g.watchVolume,
		g.confirm} {
		if err := check(ctx); err != nil {
			if !errors.Is(err, ErrGlassRefused) {
				err = fmt.Errorf("%w: %w", ErrGlassRefused, err)
			}
			return err
		}
	}
	return nil
}

// noDeadman refuses beside a deadman: armed, it would reset this node in the middle of it.
func (g *glass) noDeadman(ctx context.Context) error {
	d := g.o.Node.Deadman
	if d.Socket == "" || d.Backend == config.BackendNone {
		return nil
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", d.Socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err == nil {
		c.Close()
		err = errors.New("it answers")
	}
	return glassRefused("the deadman of this node runs (%s: %w): stop it first (systemctl stop holdfast-deadman)", d.Socket, err)
}

func (g *glass) noMark(context.Context) error {
	marks, err := loadMarks(g.o.Node.StateDir)
	if err != nil {
		return err
	}
	for _, k := range marks {
		if k.BootID == g.m.bootID && k.Group == g.o.Group {
			return glassRefused("group %s is %s here by a break-glass start of %s already; release it first: clmgr stop resource_group %s --break-glass",
				k.Group, k.State, k.Begun.Format(time.DateTime), k.Group)
		}
	}
	return nil
}

// findDefinition reads what the cluster was, by the file given or by what this node knew last, and changes neither.
func (g *glass) findDefinition(context.Context) error {
	known, err := loadLastKnown(g.o.Node.StateDir)
	if err == nil {
		g.known = known
	}
	var d *cluster.Definition
	if g.o.File != "" {
		b, err := readBounded(g.o.File, config.MaxFile)
		if err != nil {
			return err
		}
		if d, err = config.DecodeCluster(g.o.File, b); err != nil {
			return err
		}
		g.source = "the cluster file " + g.o.File
	} else {
		if err != nil {
			return fmt.Errorf("%w: give a cluster file with -f; snapshots, if this node has any, are in %s", err, g.m.snapshotDir())
		}
		d = known.Definition
		g.source = fmt.Sprintf("version %d, as this node last applied it (log index %d, %s); whatever was changed after that is not known here",
			known.Version, known.Index, known.Written.Local().Format(time.DateTime))
	}
	id, err := identity.Load(g.a.identityDir())
	if err == nil {
		g.m.id, g.m.name = id, id.Node
	} else if g.m.name == "" && known != nil {
		g.m.name = known.Node
	}
	return g.useDefinition(d)
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return b, err
}

func (g *glass) useDefinition(d *cluster.Definition) error {
	if d.Node(g.m.name) == nil {
		return fmt.Errorf("node %q, which this is by its node file or identity, is not in the definition (%s)", g.m.name, g.source)
	}
	rg := d.Group(g.o.Group)
	if rg == nil {
		return fmt.Errorf("there is no resource group %s in the definition (%s)", g.o.Group, g.source)
	}
	if !rg.Has(g.m.name) {
		return fmt.Errorf("resource group %s is not for node %s, but for %s", rg.Name, g.m.name, strings.Join(rg.Nodes, ", "))
	}
	view := state.New()
	view.Definition = d
	g.m.fsm.newest.Store(view)
	g.m.setTiming(g.m.timingOf(view))
	for i := range d.Nodes {
		if n := d.Nodes[i].Name; n != g.m.name {
			g.others = append(g.others, n)
		}
	}
	slices.Sort(g.others)
	var generation uint64
	if g.known != nil {
		generation = g.known.Generations[rg.Name]
	}
	var err error
	g.target, err = g.m.target(d, rg.Name, generation)
	return err
}

// show prints what this node is and what would be done.
func (g *glass) show(ctx context.Context) error {
	g.say("break-glass start of resource group %s on node %s, without the cluster", g.o.Group, g.m.name)
	g.say("definition: %s", g.source)
	faces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("look at this node's interfaces: %w", err)
	}
	for _, f := range faces {
		addrs, err := f.Addrs()
		if err != nil {
			return fmt.Errorf("look at interface %s: %w", f.Name, err)
		}
		words := []string{"down"}
		if f.Flags&net.FlagUp != 0 {
			words[0] = "up"
		}
		for _, a := range addrs {
			words = append(words, a.String())
		}
		g.say("interface %s: %s", f.Name, strings.Join(words, " "))
	}
	g.say("resources, in the order of acquisition:")
	for _, r := range g.ordered() {
		res := g.m.step(ctx, r, jobProbe)
		g.say("  %-60s %s", describeResource(r), probeWord(res))
	}
	d := g.target.definition
	for _, dep := range d.Dependencies {
		if dep.Child == g.o.Group {
			g.unseen = append(g.unseen, fmt.Sprintf("group %s needs group %s, which this command does not start", dep.Child, dep.Parent))
		}
	}
	return nil
}

func probeWord(r executor.Result) string {
	if r.Err != nil {
		return fmt.Sprintf("%s (%v)", r.Status, r.Err)
	}
	return string(r.Status)
}

// ordered lists the resources as the daemon acquires them, one after another.
func (g *glass) ordered() []executor.Resource {
	return slices.Concat(stages(g.target.resources, g.target.sequential)...)
}

func describeResource(r executor.Resource) string {
	s := fmt.Sprintf("%s %s", r.Kind, r.Name)
	switch {
	case r.IP != nil:
		s += fmt.Sprintf(" (%s/%d on %s)", r.IP.Address, r.IP.Prefix, r.IP.Network)
	case r.FileSystem != nil:
		s += fmt.Sprintf(" (%s on %s)", r.FileSystem.Device, r.FileSystem.MountPoint)
	}
	return s
}

// noneAnswers refuses while another node's daemon takes connections.
func (g *glass) noneAnswers(ctx context.Context) error {
	d := g.target.definition
	for _, name := range g.others {
		addresses := dialAddresses(d, d.Node(name), g.m.port())
		machine := ""
		for _, a := range addresses {
			err := g.o.dial(ctx, a)
			switch {
			case err == nil:
				return glassRefused("node %s is alive: its daemon answers at %s", name, a)
			case errors.Is(err, syscall.ECONNREFUSED):
				machine = a
			}
		}
		if machine != "" {
			g.unseen = append(g.unseen, fmt.Sprintf("the machine of node %s is up (no daemon listens at %s): whether anything of group %s runs there "+
				"cannot be seen from here", name, machine, g.o.Group))
			continue
		}
		g.unseen = append(g.unseen, fmt.Sprintf("node %s does not answer at %s: it may be down, or unreachable from here", name, strings.Join(addresses, ", ")))
	}
	return nil
}

// repository is the cluster's volume. A cluster file does not say which of those that it lists is the one in use.
func (g *glass) repository() *cluster.Repository {
	d := g.target.definition
	if r := d.Repository(); r != nil {
		return r
	}
	if g.known != nil && g.known.Definition.Repository() != nil {
		return g.known.Definition.Repository()
	}
	if len(d.Repositories) > 0 {
		return &d.Repositories[0]
	}
	return nil
}

// watchVolume looks for life on the repository volume for as long as a lease of another node may still run.
func (g *glass) watchVolume(ctx context.Context) error {
	repo := g.repository()
	if repo == nil {
		g.unseen = append(g.unseen, "the cluster has no repository volume: that the other nodes hold nothing rests on your word alone")
		return nil
	}
	v, err := openGlassVolume(ctx, g.a, g.m, repo.Device)
	if err != nil {
		g.volumeUnread(err)
		return nil
	}
	window := g.window(v)
	g.say("the repository volume %s is watched for %v, the longest that a lease of another node can still run", repo.Device, window.Round(time.Millisecond))
	alive, err := v.watch(ctx, g.o.Group, window)
	switch {
	case err != nil:
		v.close()
		g.volumeUnread(err)
		return ctx.Err()
	case alive != "":
		v.close()
		return glassRefused("%s", alive)
	}
	g.say("nobody has written on it")
	g.volume = v
	return nil
}

func (g *glass) volumeUnread(err error) {
	g.volume = nil
	g.unseen = append(g.unseen, fmt.Sprintf("the repository volume cannot be read, so it cannot be seen whether another node is alive: %v", err))
}

// window is how long the volume must stand still: the longest expiry of what the others had armed as far as this node knows and of what
// the definition says, and never less than a few heartbeats.
func (g *glass) window(v *glassVolume) time.Duration {
	w := max(g.m.params().Expiry(), 3*diskRest, 2*v.vol.Timings().Host)
	for _, name := range g.others {
		a := (*lease.Armed)(nil)
		if g.known != nil {
			a = g.known.Armed[name]
		}
		if a == nil {
			continue
		}
		w = max(w, a.Expiry())
		if !a.TimeProves() {
			g.unseen = append(g.unseen, fmt.Sprintf("the deadman of node %s is of class %s in mode %s: its silence does not prove that it holds nothing",
				name, a.Class, a.Mode))
		}
	}
	return w
}

// scriptedWord judges a script's confirmation before anything takes time.
func (g *glass) scriptedWord(context.Context) error {
	if g.o.Confirm == "" && g.answers == nil {
		return glassRefused("there is no terminal to ask at: confirm with CONFIRM=%q, and the nodes named there are your word that they are dead or "+
			"hold nothing", g.wanted(false))
	}
	if g.o.Confirm == "" {
		return nil
	}
	_, err := g.judge(g.o.Confirm)
	return err
}

// wanted is the confirmation that is asked for.
func (g *glass) wanted(volume bool) string {
	words := append([]string{g.o.Group}, g.others...)
	if volume {
		words = append(words, WithoutVolume)
	}
	return strings.Join(words, " ")
}

// judge compares a confirmation with what must be confirmed: the group first, then each other node of the cluster.
func (g *glass) judge(text string) (withoutVolume bool, err error) {
	words := strings.Fields(text)
	bad := glassRefused("the confirmation %q does not name the group %s and then each other node of the cluster, %s", text, g.o.Group,
		strings.Join(g.others, ", "))
	if len(words) == 0 || words[0] != g.o.Group {
		return false, bad
	}
	var nodes []string
	for _, w := range words[1:] {
		if w == WithoutVolume {
			withoutVolume = true
			continue
		}
		nodes = append(nodes, w)
	}
	slices.Sort(nodes)
	if !slices.Equal(nodes, g.others) {
		return false, bad
	}
	return withoutVolume, nil
}

// confirm says what could not be checked and takes the operator's word for it.
func (g *glass) confirm(ctx context.Context) error {
	blind := g.repository() != nil && g.volume == nil
	for _, u := range g.unseen {
		g.say("not checked: %s", u)
	}
	text := g.o.Confirm
	if text == "" {
		g.say("If a node named below holds anything of group %s, now or before it is released here, data are lost. They must stay down until then.", g.o.Group)
		fmt.Fprintf(g.o.Out, "Your word that they are dead or hold nothing, and will not be started: type %q: ", g.wanted(blind))
		var ok bool
		if text, ok = g.answer(ctx); !ok {
			return glassRefused("nothing was typed")
		}
	}
	without, err := g.judge(text)
	if err != nil {
		return err
	}
	if blind && !without {
		return glassRefused("the repository volume cannot be read; if you know without it that nobody else holds the group, confirm with %q", g.wanted(true))
	}
	if g.volume != nil { // answering takes a human as long as he wants
		if alive, err := g.volume.moved(g.o.Group); alive != "" || err != nil {
			return glassRefused("%s", joinWords(alive, err))
		}
	}
	return g.noneAnswers(ctx)
}

func joinWords(s string, err error) string {
	if s != "" || err == nil {
		return s
	}
	return err.Error()
}

// start takes the steps. From here on the mark says that something may run.
func (g *glass) start(ctx context.Context) error {
	g.mark = &glassMark{Format: glassFormat, Group: g.o.Group, Node: g.m.name, BootID: g.m.bootID, State: glassStarting, Begun: g.m.wall(), By: g.o.By,
		Declared: g.others, Source: g.source, Generation: g.target.generation, Definition: g.target.definition}
	if err := g.mark.save(g.o.Node.StateDir); err != nil {
		return err
	}
	begun, err := g.steps(ctx)
	if err != nil {
		return g.undo(context.WithoutCancel(ctx), begun, err)
	}
	g.mark.State = glassRunning
	if err := g.mark.save(g.o.Node.StateDir); err != nil {
		return err // it says starting, which is as good for everybody but a reader
	}
	g.say("group %s is started on node %s. No cluster guards it: nothing restarts it, moves it, or keeps another node from it, except that", g.o.Group, g.m.name)
	g.say("the daemon of this node does not start until it is released: clmgr stop resource_group %s --break-glass", g.o.Group)
	g.m.log.Warn("break-glass start", "group", g.o.Group, "by", g.o.By, "declared_dead", g.others)
	return nil
}

// steps starts the resources one after another, and returns those whose step was begun.
func (g *glass) steps(ctx context.Context) (begun []executor.Resource, err error) {
	if g.volume != nil {
		if err := g.volume.declare(g.m.bootID, g.marked()); err != nil {
			return nil, fmt.Errorf("the other nodes cannot be told by the repository volume: %w", err)
		}
	}
	if _, err := g.m.runner.Recover(ctx); err != nil {
		return nil, fmt.Errorf("actions of an earlier daemon cannot be ended: %w", err)
	}
	ctx = executor.WithGeneration(ctx, g.target.generation)
	for _, r := range g.ordered() {
		what := describeResource(r)
		if g.m.step(ctx, r, jobProbe).Status == executor.Running {
			g.say("%s: runs already, and is kept as it is", what)
			continue
		}
		if !g.ask(ctx, "start "+what+"?") {
			return begun, fmt.Errorf("%s was not wanted", what)
		}
		if g.volume != nil {
			if alive, err := g.volume.moved(g.o.Group); alive != "" || err != nil {
				return begun, fmt.Errorf("before %s: %s", what, joinWords(alive, err))
			}
		}
		g.mark.Begin = append(g.mark.Begin, string(r.Kind)+" "+r.Name)
		if err := g.mark.save(g.o.Node.StateDir); err != nil {
			return begun, err
		}
		begun = append(begun, r)
		began := g.m.clock.Now()
		res := g.m.startResource(ctx, g.target, r)
		if res.Err == nil && res.Status != executor.Running {
			res.Err = fmt.Errorf("it is %s", res.Status)
		}
		if res.Err != nil {
			g.say("%s: FAILED: %v", what, res.Err)
			return begun, fmt.Errorf("%s could not be acquired: %w", what, res.Err)
		}
		g.say("%s: started (%v) %s", what, g.m.clock.Now().Sub(began).Round(time.Millisecond), res.Detail)
	}
	return begun, nil
}

// undo stops what was begun, in reverse.
func (g *glass) undo(ctx context.Context, begun []executor.Resource, cause error) error {
	g.say("%v: what was started is stopped again", cause)
	if err := g.stopAll(ctx, begun); err != nil {
		g.mark.State = glassFailed
		return errors.Join(cause, fmt.Errorf("and it could not all be undone: %w. See to it, then: clmgr stop resource_group %s --break-glass", err, g.o.Group),
			g.mark.save(g.o.Node.StateDir))
	}
	if err := g.forget(); err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%w; what was started was stopped again, in reverse order", cause)
}

// stopAll stops the resources in reverse. What lies below one that still runs is not taken away from under it.
func (g *glass) stopAll(ctx context.Context, resources []executor.Resource) error {
	ctx = executor.WithGeneration(ctx, g.target.generation)
	for _, r := range slices.Backward(resources) {
		what := describeResource(r)
		res := g.m.step(ctx, r, jobStop)
		if res.Err == nil && res.Status != executor.Stopped {
			res.Err = fmt.Errorf("it is %s", res.Status)
		}
		if res.Err != nil {
			g.say("%s: NOT STOPPED: %v", what, res.Err)
			return fmt.Errorf("%s could not be released: %w", what, res.Err)
		}
		g.say("%s: stopped %s", what, res.Detail)
	}
	return nil
}

// marked lists the groups that are held here by break-glass starts, this one included.
func (g *glass) marked(except ...string) []string {
	marks, err := loadMarks(g.o.Node.StateDir)
	if err != nil {
		return []string{g.o.Group} // noMark has read them; one that rots meanwhile is no reason to say less
	}
	var out []string
	for _, k := range marks {
		if k.BootID == g.m.bootID && !slices.Contains(except, k.Group) {
			out = append(out, k.Group)
		}
	}
	slices.Sort(out)
	return out
}

// forget takes the group off the volume, and then the mark away: nothing of it runs here any more.
func (g *glass) forget() error {
	if g.volume != nil {
		if err := g.volume.declare(g.m.bootID, g.marked(g.o.Group)); err != nil {
			g.say("the repository volume could not be told of the release (%v): until this node's daemon runs again other nodes do not start the group", err)
		}
	}
	return g.mark.remove(g.o.Node.StateDir)
}

// stop releases a group by the mark of its start.
func (g *glass) stop(ctx context.Context) error {
	marks, err := loadMarks(g.o.Node.StateDir)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(marks, func(k *glassMark) bool { return k.Group == g.o.Group })
	if at < 0 {
		return glassRefused("group %s is not held here by a break-glass start", g.o.Group)
	}
	g.mark = marks[at]
	if g.mark.BootID != g.m.bootID {
		g.say("the break-glass start of group %s was before this node's last boot, and has ended with it", g.o.Group)
		return g.mark.remove(g.o.Node.StateDir)
	}
	if err := g.openForStop(ctx); err != nil {
		return err
	}
	g.mark.State = glassStopping
	if err := g.mark.save(g.o.Node.StateDir); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // a release, once begun, is finished
	if _, err := g.m.runner.Recover(ctx); err != nil {
		return fmt.Errorf("actions of an earlier command cannot be ended: %w", err)
	}
	if err := g.stopAll(ctx, g.ordered()); err != nil {
		return err
	}
	if p := g.m.probeGroup(ctx, g.target); p.status != executor.Stopped {
		return fmt.Errorf("after the release: %s", p.sentence)
	}
	if g.target.generation > 0 {
		// The log may still say that this generation is here.
		if err := g.m.tombstones.Write(g.o.Group, g.target.generation); err != nil {
			return err
		}
	}
	if err := g.forget(); err != nil {
		return err
	}
	g.say("group %s is released on node %s; the daemon may start again", g.o.Group, g.m.name)
	return nil
}

// openForStop finds by the mark what was started.
func (g *glass) openForStop(ctx context.Context) error {
	g.m.name, g.source = g.mark.Node, g.mark.Source
	if id, err := identity.Load(g.a.identityDir()); err == nil {
		g.m.id = id
	}
	if err := g.useDefinition(g.mark.Definition); err != nil {
		return err
	}
	g.target.generation = g.mark.Generation
	if known, err := loadLastKnown(g.o.Node.StateDir); err == nil {
		g.known = known
	}
	repo := g.repository()
	if repo == nil {
		return nil
	}
	v, err := openGlassVolume(ctx, g.a, g.m, repo.Device)
	if err != nil {
		g.say("the repository volume cannot be told of the release: %v", err)
		return nil
	}
	g.volume = v
	return nil
}

// audit writes to the record of changes, in the form of what is asked at the daemon's door.
func (g *glass) audit(action, result string, err error) {
	detail := ""
	switch {
	case errors.Is(err, ErrGlassRefused):
		result, detail = "refused", err.Error()
	case err != nil:
		result, detail = "failed", err.Error()
	}
	what := fmt.Sprintf("%s resource_group %s --break-glass", action, g.o.Group)
	if len(g.others) > 0 {
		what += ", declared dead: " + strings.Join(g.others, ", ")
	}
	g.a.auditLog().LogAttrs(context.Background(), slog.LevelInfo, "audit", slog.String("user", g.o.By), slog.Int("uid", os.Getuid()),
		slog.String("role", "admin"), slog.String("call", "break-glass "+action), slog.String("what", what), slog.String("result", result),
		slog.String("detail", detail), slog.Uint64("index", 0))
}
