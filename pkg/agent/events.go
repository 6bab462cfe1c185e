package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// events.go runs the administrator's commands around events, and writes hacmp.out.
//
// What happens elsewhere, or has happened already (node_down), is told to each node by the log: its pre- and post-commands run there
// one after another, in the order of the history. Work on a group (rg_move_acquire, start_server) has its commands around it, on the
// node that does the work, and after those of all that the node heard before.
//
// Why this cannot make two nodes hold one group, nor keep a node from letting go in time:
//
//   - No command decides anything. The only thing that it can do to the cluster is to let an acquisition fail, or to let a report come later;
//     both only delay a start.
//   - The lease does not wait, and nothing starts. From L_soft on (hurry) no pre-, post- or recovery command begins, the one under way is killed, and
//     the release goes on in that moment without waiting for its end: what remains until L_hard is the resources' alone. The deadman
//     knows nothing of commands. An acquisition that waited for a command then fails instead of going on.
//   - "Released" is said only when no command of the group's own events is left: they carry the group's name, are recorded before they are executed
//     as all actions are, and what cannot be killed makes the release a failed one. The last look at the resources comes after them.
//   - Commands of the cluster's events and notify commands belong to no group, and nothing of what keeps the cluster safe waits for them.

// errHurry is why a command was not awaited.
var errHurry = errors.New("the lease of this node runs out: nothing waits for commands")

// commandScope is that of the commands around a group's events; with an empty group, of those of the cluster's.
func commandScope(group string) executor.Scope {
	return executor.Scope{Group: group, Kind: "event", Name: "commands"}
}

const (
	maxLane      = 256 // events that wait for their commands
	oldestEvent  = 5 * time.Minute
	killPatience = 2*executor.DefaultKillWait + time.Second // for a command that was killed, before a release counts as failed
)

// An eventDesk runs commands around events on one node. Its methods may be called by any goroutine, and do not block, except those
// of a groupRun.
type eventDesk struct {
	cluster, node string
	run           func(context.Context, executor.Command) executor.Outcome
	unfinished    func(executor.Scope) error // why commands of the scope are not known to have ended
	out           io.WriteCloser
	now           func() time.Time
	log           *slog.Logger
	mark          string // the file with the newest event that was taken
	boot          string
	met           func(failed bool)

	taken uint64 // newest event of the history; of the loop alone
	begun bool   // so is this

	mu    sync.Mutex
	lanes map[string]*lane
	left  map[string][]<-chan struct{} // by group: commands that nobody waits for any more, closed when they have ended
	wg    sync.WaitGroup
}

// A lane runs what it is given one after another.
type lane struct {
	queue []func()
	busy  bool
	tail  chan struct{} // closed when all that was put so far has ended
}

// put lets the lane run f after all that it was given before. It reports whether there was room.
func (d *eventDesk) put(name string, f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes == nil {
		d.lanes = map[string]*lane{}
	}
	l := d.lanes[name]
	if l == nil {
		l = &lane{}
		d.lanes[name] = l
	}
	if len(l.queue) >= maxLane {
		return false
	}
	done := make(chan struct{})
	l.tail = done
	l.queue = append(l.queue, func() { defer close(done); f() })
	if !l.busy {
		l.busy = true
		d.wg.Go(func() { d.drain(l) })
	}
	return true
}

func (d *eventDesk) drain(l *lane) {
	for {
		d.mu.Lock()
		if len(l.queue) == 0 {
			l.busy = false
			d.mu.Unlock()
			return
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		d.mu.Unlock()
		f()
	}
}

const clusterLane = "" // notify commands have a lane for each event

// before is closed when the commands of all events of the cluster that were taken so far have ended; nil: there are none.
func (d *eventDesk) before() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[clusterLane]; l != nil && (l.busy || len(l.queue) > 0) {
		return l.tail
	}
	return nil
}

// take lets the commands of what is new in the history run. Called by the loop, before it begins any work on what the same view says.
// known says that the log knows this boot, so that the view is not one of long ago.
func (d *eventDesk) take(ctx context.Context, view *state.State, known bool) {
	if d == nil {
		return // a part of a member, in a test
	}
	last := view.LastEvent()
	if !d.begun {
		if !known {
			return
		}
		d.begun, d.taken = true, d.readMark(view)
	}
	if last == d.taken {
		return
	}
	if last < d.taken { // another cluster's history
		d.taken = last
	}
	now := d.now()
	for _, e := range view.Events(d.taken + 1) {
		d.taken = e.ID
		k := cluster.FindEvent(e.Name)
		if k == nil || k.Kind != cluster.EventOfCluster || view.Definition == nil || now.Sub(e.At) > oldestEvent {
			continue
		}
		o := occurrence{name: e.Name, node: e.Node, group: e.Group, sentence: e.Sentence, id: e.ID}
		if c := view.Definition.EventCommands(e.Name); c != nil {
			o.commands = *c
		}
		if !d.put(clusterLane, func() { d.happened(ctx, o) }) {
			d.log.Error("commands of an event do not run: too many events wait for theirs", "event", e.Name, "id", e.ID)
		}
	}
	d.writeMark()
}

// readMark is the newest event whose commands an earlier daemon of this boot has begun to run; without one, the event by which this
// boot became known: what was before is past.
func (d *eventDesk) readMark(view *state.State) uint64 {
	if b, err := os.ReadFile(d.mark); err == nil {
		boot, id, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		if n, err := strconv.ParseUint(id, 10, 64); err == nil && boot == d.boot && n <= view.LastEvent() {
			return n
		}
	}
	mark := view.LastEvent()
	for _, e := range view.Events(0) {
		if e.Name == state.EventNodeBoot && e.Node == d.node {
			mark = e.ID
		}
	}
	return mark
}

// writeMark is done before the commands run: after a crash of the daemon one that was under way is not run again.
func (d *eventDesk) writeMark() {
	tmp := d.mark + ".new"
	err := os.WriteFile(tmp, fmt.Appendf(nil, "%s %d\n", d.boot, d.taken), 0o600)
	if err == nil {
		err = os.Rename(tmp, d.mark)
	}
	if err != nil {
		d.log.Warn("the newest event whose commands were run cannot be noted", "error", err)
	}
}

// An occurrence is one event as it happens on this node.
type occurrence struct {
	name, node, group, resource, sentence string
	id                                    uint64 // in the history; 0: it is work of this node
	commands                              cluster.EventCommands

	began   time.Time
	actions []string // for the summary
}

// words are what stands behind the event's name in hacmp.out.
func (o *occurrence) words() string {
	return strings.Join(strings.Fields(strings.Join([]string{o.name, o.node, o.group, o.resource}, " ")), " ")
}

// happened runs the commands of an event of the cluster.
func (d *eventDesk) happened(ctx context.Context, o occurrence) {
	if ctx.Err() != nil {
		return // the daemon ends
	}
	d.begin(ctx, &o)
	for _, c := range o.commands.Pre {
		_ = d.command(ctx, &o, "pre", c, nil, 0)
	}
	for _, c := range o.commands.Post {
		_ = d.command(ctx, &o, "post", c, nil, 0)
	}
	d.end(ctx, &o, nil)
}

func (d *eventDesk) begin(ctx context.Context, o *occurrence) {
	o.began = d.now()
	d.write(preamble(o) + stamp(o.began) + " EVENT START: " + o.words() + "\n")
	d.tell(ctx, *o, "start", nil)
}

func (d *eventDesk) end(ctx context.Context, o *occurrence, failed error) {
	now := d.now()
	line := " EVENT COMPLETED: " + o.words() + " 0"
	if failed != nil {
		line = " EVENT FAILED: 1: " + o.words() + " 1 # " + bounded(oneLine(failed.Error()), maxLine)
	}
	d.write(stamp(now) + line + "\n" + eventSummary(o, now))
	d.tell(ctx, *o, "complete", failed)
}

// tell runs the notify command, which nothing waits for.
func (d *eventDesk) tell(ctx context.Context, o occurrence, phase string, failed error) {
	if o.commands.Notify == "" {
		return
	}
	if !d.put(o.name, func() { _ = d.command(ctx, &o, phase, o.commands.Notify, failed, 0) }) {
		d.log.Error("a notify command does not run: too many of its event wait", "event", o.name, "command", o.commands.Notify)
	}
}

// command runs one command, to its end or its time.
func (d *eventDesk) command(ctx context.Context, o *occurrence, phase, path string, failed error, try int) error {
	group := o.group
	notify := phase == "start" || phase == "complete"
	if notify || o.id != 0 {
		group = ""
	}
	timeout := o.commands.Timeout
	if timeout <= 0 {
		timeout = cluster.DefaultEventTimeout
	}
	c := executor.Command{Scope: commandScope(group), Op: phase, Path: path, Args: []string{o.name, phase},
		Env: d.environment(o, phase, failed, try), Timeout: timeout, OutputLimit: maxCommandOutput}
	if o.name == state.EventConfigTooLong { // its own command would raise it again, and so on
		c.Warn = func(executor.Command, time.Duration) {}
	}
	out := d.run(ctx, c)
	d.met(out.Err != nil)
	text := fmt.Sprintf(":%s[%s] %s\n", o.name, phase, path)
	for line := range strings.Lines(out.Output) {
		text += ":" + o.name + "[" + phase + "] " + oneLine(strings.TrimRight(line, "\n")) + "\n"
	}
	word := "rc=" + strconv.Itoa(out.Exit)
	status := word
	if out.Err != nil {
		status += " # " + bounded(oneLine(out.Err.Error()), maxLine)
		d.log.Warn("a command of an event failed", "event", o.name, "phase", phase, "command", path, "error", out.Err)
	}
	d.write(text + ":" + o.name + "[" + phase + "] " + path + " " + status + "\n")
	if !notify {
		o.actions = append(o.actions, action(commandWords[phase], o.object(), filepath.Base(path)+" "+word))
	}
	return out.Err
}

const (
	maxCommandOutput = 8 << 10 // what of a command's output goes into hacmp.out
	maxLine          = 400     // of a sentence there
)

var commandWords = map[string]string{"pre": "Pre-event command", "post": "Post-event command", "recovery": "Recovery command"}

// environment is what a command is told. The names are the interface (docs/events.md).
func (d *eventDesk) environment(o *occurrence, phase string, failed error, try int) []string {
	status := "0"
	if failed != nil {
		status = "1"
	}
	env := []string{"HOLDFAST_CLUSTER=" + d.cluster, "HOLDFAST_NODE=" + d.node, "HOLDFAST_EVENT=" + o.name, "HOLDFAST_PHASE=" + phase,
		"HOLDFAST_EVENT_NODE=" + o.node, "HOLDFAST_GROUP=" + o.group, "HOLDFAST_RESOURCE=" + o.resource, "HOLDFAST_STATUS=" + status,
		"HOLDFAST_SENTENCE=" + oneLine(o.sentence), "LOCALNODENAME=" + d.node, "GROUPNAME=" + o.group}
	if o.id != 0 {
		env = append(env, "HOLDFAST_EVENT_ID="+strconv.FormatUint(o.id, 10))
	}
	if try > 0 {
		env = append(env, "HOLDFAST_TRY="+strconv.Itoa(try))
	}
	return env
}

// A groupRun is one piece of work on a group as its events see it. The zero pointer has no commands and writes nothing.
type groupRun struct {
	d       *eventDesk
	life    context.Context // of the daemon: notify commands outlive the work
	group   string
	def     *cluster.Definition
	first   <-chan struct{} // the commands of what the node heard before
	hurried chan struct{}
	once    sync.Once
}

// groupRun prepares the events of work on a group; called by the loop.
func (d *eventDesk) groupRun(ctx context.Context, def *cluster.Definition, group string) *groupRun {
	if d == nil || def == nil {
		return nil
	}
	return &groupRun{d: d, life: ctx, group: group, def: def, first: d.before(), hurried: make(chan struct{})}
}

// hurry says that nothing may wait for commands any more. Any goroutine, any number of times.
func (r *groupRun) hurry() {
	if r != nil {
		r.once.Do(func() { close(r.hurried) })
	}
}

func (r *groupRun) hurries() bool {
	select {
	case <-r.hurried:
		return true
	default:
		return false
	}
}

// around does work as the named event, between its commands. What fails is tried again after the recovery command: all of it where
// again is true, else only what comes before the work.
func (r *groupRun) around(ctx context.Context, name, resource string, again bool, work func() error) error {
	if r == nil {
		return work()
	}
	o := occurrence{name: name, node: r.d.node, group: r.group, resource: resource}
	if c := r.def.EventCommands(name); c != nil {
		o.commands = *c
	}
	r.wait(ctx, r.first)
	r.d.begin(r.life, &o)
	err := r.try(ctx, &o, again, work)
	for _, c := range o.commands.Post {
		_ = r.command(ctx, &o, "post", c, err, 0)
	}
	r.d.end(r.life, &o, err)
	return err
}

func (r *groupRun) try(ctx context.Context, o *occurrence, again bool, work func() error) error {
	limit := 0
	if o.commands.Recovery != "" {
		limit = max(o.commands.RecoveryLimit, 1)
	}
	ready := false
	for try := 1; ; try++ {
		var err error
		retry := true
		if !ready {
			err = r.pre(ctx, o)
		}
		if err == nil && !releasing(o.name) && r.hurries() {
			return errHurry // nothing starts any more, least of all because nobody waited
		}
		if err == nil {
			ready = true
			err, retry = work(), again
			o.actions = append(o.actions, workLines(o, err)...)
		}
		if err == nil || !retry || try > limit || ctx.Err() != nil || r.hurries() {
			return err
		}
		if bad := r.command(ctx, o, "recovery", o.commands.Recovery, err, try); bad != nil {
			return fmt.Errorf("%w; and its recovery command %s did not succeed: %w", err, o.commands.Recovery, bad)
		}
	}
}

// releasing reports whether the event is one by which a node lets go.
func releasing(event string) bool {
	return event == "rg_move_release" || event == "stop_server" || event == "release_vg_fs" || event == "release_service_addr"
}

// pre runs the pre-commands. An error: the event must not go on.
func (r *groupRun) pre(ctx context.Context, o *occurrence) error {
	for _, c := range o.commands.Pre {
		if err := r.command(ctx, o, "pre", c, nil, 0); err != nil && o.commands.FailOnError && !errors.Is(err, errHurry) {
			return fmt.Errorf("pre-command of %s: %w", o.name, err)
		}
	}
	return nil
}

// command runs a command of the group, and stops waiting for it when the lease runs out.
func (r *groupRun) command(ctx context.Context, o *occurrence, phase, path string, failed error, try int) error {
	if r.hurries() {
		r.d.write(":" + o.name + "[" + phase + "] " + path + " # not run: " + errHurry.Error() + "\n")
		return errHurry
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	beside := *o // the one that is left behind writes into its own
	beside.actions = nil
	var err error
	done := make(chan struct{})
	r.d.wg.Go(func() {
		defer close(done)
		err = r.d.command(ctx, &beside, phase, path, failed, try)
	})
	select {
	case <-done:
		o.actions = append(o.actions, beside.actions...)
		return err
	case <-r.hurried:
		cancel(errHurry)
		r.d.leave(r.group, done)
		return errHurry
	}
}

// leave remembers a command of the group that was told to end and is not awaited.
func (d *eventDesk) leave(group string, done <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == nil {
		d.left = map[string][]<-chan struct{}{}
	}
	d.left[group] = append(d.left[group], done)
}

// wait waits for the channel, the lease, or the context.
func (r *groupRun) wait(ctx context.Context, c <-chan struct{}) {
	if c == nil {
		return
	}
	select {
	case <-c:
	case <-r.hurried:
	case <-ctx.Done():
	}
}

// ended waits for a moment until no command of the group is left. An error: one is, and what it does is unknown.
func (d *eventDesk) ended(group string) error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	left := d.left[group]
	delete(d.left, group)
	d.mu.Unlock()
	limit := time.NewTimer(killPatience)
	defer limit.Stop()
	for i, done := range left {
		select {
		case <-done:
		case <-limit.C:
			for _, rest := range left[i:] {
				d.leave(group, rest)
			}
			return fmt.Errorf("a command of group %s does not end", group)
		}
	}
	return d.unfinished(commandScope(group))
}

// close waits for the commands, whose context has ended.
func (d *eventDesk) close() {
	d.wg.Wait()
	_ = d.out.Close()
}

// eventOfStep is the event that a step on a resource is; empty: it is none.
func eventOfStep(k executor.Kind, j job) string {
	words := map[job][3]string{jobStart: {"acquire_service_addr", "get_disk_vg_fs", "start_server"},
		jobStop: {"release_service_addr", "release_vg_fs", "stop_server"}}[j]
	switch k {
	case executor.KindServiceIP:
		return words[0]
	case executor.KindFileSystem, executor.KindVolumeGroup, executor.KindNFSExport:
		return words[1]
	case executor.KindPersistentIP:
		return ""
	}
	return words[2]
}

// asEvent takes a step on a resource as the event that it is.
func (m *member) asEvent(ctx context.Context, t target, r executor.Resource, j job, want executor.Status, step func() executor.Result) executor.Result {
	res := executor.Result{Status: executor.Unknown}
	err := t.events.around(ctx, eventOfStep(r.Kind, j), r.Name, true, func() error {
		res = step()
		if res.Err == nil && res.Status != want {
			return errors.New(sentenceOf(res))
		}
		return res.Err
	})
	if err != nil && res.Err == nil && res.Status == executor.Unknown { // the step was not taken
		res.Err, res.Detail = err, err.Error()
	}
	return res
}

// openEvents makes the desk of this node.
func (m *member) openEvents() error {
	out, err := OpenLogFile(filepath.Join(m.opt.Node.LogDir, "log", "hacmp.out"), hacmpOutLimit, hacmpOutKeep)
	if err != nil {
		return err
	}
	m.events = &eventDesk{cluster: m.id.ClusterName, node: m.name, run: m.runner.Run, out: out, now: m.wall, log: m.log, boot: m.bootID,
		mark: filepath.Join(m.opt.Node.StateDir, "events.mark"),
		unfinished: func(s executor.Scope) error {
			if err := m.runner.Blocked(s); err != nil {
				return err
			}
			if at := m.runner.Unfinished(s); len(at) > 0 {
				return fmt.Errorf("the %s command around an event of group %s has not ended", at[0].Op, s.Group)
			}
			return nil
		},
		met: func(failed bool) {
			m.met.ExecutorRun("event")
			if failed {
				m.met.ExecutorFailed("event")
			}
		}}
	return nil
}

// hacmp.out becomes hacmp.out.1, and so on to 7, as PowerHA's.
const (
	hacmpOutLimit = 8 << 20
	hacmpOutKeep  = 7
)

func (d *eventDesk) write(text string) {
	if _, err := io.WriteString(d.out, text); err != nil {
		d.log.Warn("hacmp.out cannot be written", "error", err)
	}
}
