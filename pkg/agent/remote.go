package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Operations on several nodes (C-SPOC). The node that is asked brings each of them to the nodes it concerns, side by side, and
// keeps the results for those who follow it. It needs no leader and writes nothing into the log but a line of the history, so a
// change of the leader is nothing to it. Each node checks for itself whether it may do what it is asked to, by its own copy of the
// definition, and keeps a record of its own.
//
// An operation holds no group and gives nobody a lease. What is run by it is run beside the cluster, with root's rights: a free
// command can mount a file system twice as a shell on that node can, which is why it is off unless the cluster says otherwise.

// Calls between agents.
const (
	rpcCommand  = "free-command"
	rpcReadFile = "read-collected"
	rpcPutFile  = "put-collected"
)

const (
	remoteAtOnce = 8  // operations that this node leads at once
	commandsHere = 16 // free commands that run on this node at once
	remoteKept   = 64 // operations, and runs, that are remembered after their end
	remoteKeep   = time.Hour
	remoteMemory = 32 << 20 // bytes of output that are kept of all operations together

	agreeLimit = 5 * time.Second  // for a node to say whether it will
	deadLimit  = time.Second      // likewise, for one that the cluster takes for dead: it is asked all the same
	askLimit   = 8 * time.Second  // for one question after it
	hangLimit  = 4 * time.Second  // how long a node lets such a question hang
	awayLimit  = 30 * time.Second // how long a node may be silent before its part is given up as unknown
	fileLimit  = 15 * time.Second // for one file of a collection

	remoteLogLimit = 8 << 20
	remoteLogKeep  = 4
)

// A remoteDesk leads operations and does this node's part in them. Its functions are what it needs of the rest of the agent. Any
// goroutine may use it.
type remoteDesk struct {
	node string
	life string // names this run of the daemon
	log  *slog.Logger
	// call asks a node, this one too.
	call       func(ctx context.Context, node, method string, body []byte) ([]byte, error)
	definition func() (*cluster.Definition, uint64)
	run        func(context.Context, executor.Command) executor.Outcome
	audit      func() *slog.Logger
	tell       func(sentence string)            // into the history
	record     func(*api.RemoteOperation)       // into cspoc.log
	work       func(func())                     // starts a goroutine that the agent awaits at its end
	own        func() []string                  // the product's own directories on this node
	backups    string                           // where overwritten copies are kept
	check      func(path string) error          // is the program safe
	inside     func(dir string) (string, error) // the directory without links, if all of the way to it is safe
	dead       func(node string) bool           // does the cluster take the node for dead
	ctx        context.Context                  // ends with stop
	stop       context.CancelCauseFunc

	mu   sync.Mutex
	ops  map[string]*remoteOp
	runs map[string]*commandRun

	files sync.Mutex // over the writing of collected files
	auto  map[string]string
}

func (d *remoteDesk) init() {
	d.ops, d.runs, d.auto = map[string]*remoteOp{}, map[string]*commandRun{}, map[string]string{}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
}

// newRemoteDesk connects the desk with the member.
func newRemoteDesk(m *member) *remoteDesk {
	node := m.opt.Node
	d := &remoteDesk{node: m.name, life: m.opt.instance, log: m.log, audit: m.a.auditLog, work: func(f func()) { m.work.Go(f) },
		call: func(ctx context.Context, node, method string, body []byte) ([]byte, error) {
			return m.links.Call(ctx, node, method, body)
		},
		definition: func() (*cluster.Definition, uint64) { return m.view().Definition, m.view().DefinitionVersion },
		check:      executor.CheckScript, inside: executor.CheckDirectory, record: m.logRemote,
		tell: func(sentence string) {
			m.submit(&state.Command{Note: &state.Note{Event: state.EventRemote, Node: m.name, Sentence: sentence}})
		},
		own: func() []string {
			return []string{node.StateDir, node.RunDir, node.LogDir, m.a.identityDir(), ownConfig}
		},
		backups: filepath.Join(node.StateDir, "filebackup"),
		dead:    func(node string) bool { n := m.view().Node(node); return n != nil && !n.Alive() }}
	if m.runner != nil {
		d.run = m.runner.Run
	}
	d.init()
	return d
}

// A remoteOp is an operation that this node leads.
type remoteOp struct {
	uid     int
	request []byte

	mu      sync.Mutex
	state   api.RemoteOperation
	changed chan struct{} // closed at the next change
	ended   time.Time
}

// set changes a node's result.
func (o *remoteOp) set(node string, change func(*api.RemoteResult)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.state.Nodes {
		if r := &o.state.Nodes[i]; r.Node == node {
			change(r)
			o.news()
		}
	}
}

// news tells those who follow. It is called with the lock.
func (o *remoteOp) news() {
	o.state.Version++
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *remoteOp) end(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state.Done, o.ended = true, now
	o.news()
}

// look is the operation as it stands, and what is closed at its next change. Outputs come with the end.
func (o *remoteOp) look() (api.RemoteOperation, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i].Files = slices.Clone(s.Nodes[i].Files)
		if !s.Done {
			s.Nodes[i].Output = nil
		}
	}
	return s, o.changed
}

// size is what the operation's results take in memory, about; 0: it has not ended.
func (o *remoteOp) size() (ended time.Time, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.state.Nodes {
		bytes += len(o.state.Nodes[i].Output) + 200*len(o.state.Nodes[i].Files) + 200
	}
	return o.ended, bytes
}

// BeginRemote implements server.Remoter.
func (a *Agent) BeginRemote(_ context.Context, who api.Caller, r api.RemoteRequest) (api.RemoteOperation, error) {
	m, err := a.configured()
	if err != nil {
		return api.RemoteOperation{}, err
	}
	return m.remote.begin(who, r)
}

// Remote implements server.Remoter.
func (a *Agent) Remote(ctx context.Context, who api.Caller, id string, since uint64, wait time.Duration) (api.RemoteOperation, error) {
	m, err := a.configured()
	if err != nil {
		return api.RemoteOperation{}, err
	}
	return m.remote.follow(ctx, who, id, since, wait)
}

// begin starts an operation, or finds it.
func (d *remoteDesk) begin(who api.Caller, r api.RemoteRequest) (api.RemoteOperation, error) {
	if err := r.Check(); err != nil {
		return api.RemoteOperation{}, err
	}
	def, _ := d.definition()
	if def == nil {
		return api.RemoteOperation{}, api.Errorf(api.CodeUnavailable, "this node has not received the definition yet; nothing was done")
	}
	request, err := json.Marshal(r)
	if err != nil {
		return api.RemoteOperation{}, fmt.Errorf("keep the request: %w", err)
	}
	d.mu.Lock()
	old := d.ops[r.ID]
	d.mu.Unlock()
	if old != nil {
		return old.again(who, request)
	}
	what, nodes, do, err := d.plan(def, who, r)
	if err != nil {
		return api.RemoteOperation{}, err
	}
	op := &remoteOp{uid: who.UID, request: request, changed: make(chan struct{}),
		state: api.RemoteOperation{ID: r.ID, What: what, By: who.String(), Began: time.Now().UTC(), Version: 1}}
	for _, n := range nodes {
		op.state.Nodes = append(op.state.Nodes, api.RemoteResult{Node: n, State: api.RemoteWaiting, Exit: -1})
	}
	if old, err := d.keep(r.ID, op); err != nil || old != nil {
		if err != nil {
			return api.RemoteOperation{}, err
		}
		return old.again(who, request)
	}
	d.work(func() {
		do(d.ctx, op)
		op.end(time.Now())
		s, _ := op.look()
		byItself := who.UID < 0 && who.Node == ""
		if byItself && len(s.Failed()) == 0 && !anyChange(&s) {
			return // all is as it should be: nothing to tell
		}
		d.log.Info("an operation on nodes has ended", "id", s.ID, "by", s.By, "what", s.What, "failed", strings.Join(s.Failed(), ","))
		d.record(&s)
		if !byItself || anyChange(&s) {
			d.tell(summary(&s))
		}
	})
	s, _ := op.look()
	return s, nil
}

// again answers who sends a request once more.
func (o *remoteOp) again(who api.Caller, request []byte) (api.RemoteOperation, error) {
	if o.uid != who.UID || !bytes.Equal(o.request, request) {
		return api.RemoteOperation{}, api.Errorf(api.CodeConflict, "another operation was begun under this id already; nothing was done")
	}
	s, _ := o.look()
	return s, nil
}

// keep remembers an operation, unless there is one of that id, or too many.
func (d *remoteDesk) keep(id string, op *remoteOp) (old *remoteOp, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o := d.ops[id]; o != nil {
		return o, nil
	}
	type known struct {
		id    string
		ended time.Time
		bytes int
	}
	var over []known
	running, total := 0, 0
	for k, o := range d.ops {
		ended, n := o.size()
		if ended.IsZero() {
			running++
			continue
		}
		over = append(over, known{k, ended, n})
		total += n
	}
	if running >= remoteAtOnce {
		return nil, api.Errorf(api.CodeRefused, "%d operations on nodes are under way on %s already: wait for one of them; nothing was done", running, d.node)
	}
	slices.SortFunc(over, func(a, b known) int { return a.ended.Compare(b.ended) })
	for i, k := range over {
		if len(over)-i < remoteKept && total <= remoteMemory && time.Since(k.ended) < remoteKeep {
			break
		}
		delete(d.ops, k.id)
		total -= k.bytes
	}
	d.ops[id] = op
	return nil, nil
}

// follow waits for news of an operation.
func (d *remoteDesk) follow(ctx context.Context, who api.Caller, id string, since uint64, wait time.Duration) (api.RemoteOperation, error) {
	d.mu.Lock()
	op := d.ops[id]
	d.mu.Unlock()
	if op == nil || op.uid != who.UID && !who.Role.Allows(api.RoleAdmin) {
		return api.RemoteOperation{}, api.Errorf(api.CodeNotFound, "node %s knows no operation %s of yours: it was begun on another node, or before the daemon "+
			"was restarted, or has been forgotten (after an hour, or earlier when there were many)", d.node, id)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		s, changed := op.look()
		if s.Version != since || wait <= 0 {
			return s, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return s, nil
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

// plan says what a request comes to: its name, its nodes, and how it is done. What cannot be done on any node is refused here.
func (d *remoteDesk) plan(def *cluster.Definition, who api.Caller, r api.RemoteRequest) (string, []string, func(context.Context, *remoteOp), error) {
	for _, n := range r.Nodes {
		if def.Node(n) == nil {
			return "", nil, nil, api.Errorf(api.CodeNotFound, "no node %q; there are: %s; nothing was done", n, listOr(namesOf(def), "none"))
		}
	}
	if r.Timeout == 0 {
		r.Timeout = api.DefaultRemoteTimeout
	}
	if r.Command != nil {
		if why := freeCommandsOff(def, who); why != "" {
			return "", nil, nil, api.Errorf(api.CodeRefused, "%s", why)
		}
		nodes := among(namesOf(def), r.Nodes)
		return "free command " + r.Command.String(), nodes, func(ctx context.Context, op *remoteOp) {
			d.onEach(op, nodes, func(node string) { d.commandOn(ctx, op, node, who, r) })
		}, nil
	}
	return d.planCollections(def, who, r)
}

// onEach does something for each node, side by side, and sees to it that each has a result.
func (d *remoteDesk) onEach(op *remoteOp, nodes []string, do func(node string)) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			began := time.Now()
			do(n)
			op.set(n, func(r *api.RemoteResult) {
				if !r.State.Ended() { // never silently
					r.State, r.Detail = api.RemoteUnknown, "its part came to no end"
				}
				r.Seconds = time.Since(began).Seconds()
			})
		})
	}
	wg.Wait()
}

func namesOf(def *cluster.Definition) []string {
	var out []string
	for i := range def.Nodes {
		out = append(out, def.Nodes[i].Name)
	}
	return out
}

// among keeps of a list what is wanted; none wanted: all.
func among(list, wanted []string) []string {
	if len(wanted) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return !slices.Contains(wanted, n) })
}

// ask puts a question to a node and reads the answer.
func ask[T any](ctx context.Context, d *remoteDesk, node, method string, question any, limit time.Duration) (T, error) {
	var out T
	body, err := json.Marshal(question)
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b, err := d.call(ctx, node, method, body)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("the answer cannot be read: %w", err)
	}
	return out, nil
}

// agree is how long a node gets for a first answer.
func (d *remoteDesk) agree(node string) time.Duration {
	if d.dead != nil && d.dead(node) {
		return deadLimit
	}
	return agreeLimit
}

// notAsked is the result of a node that certainly does nothing, because the question did not get through to it.
func notAsked(r *api.RemoteResult, err error) {
	switch remote := (*peer.RemoteError)(nil); {
	case errors.Is(err, peer.ErrUnknownMethod):
		r.State, r.Detail = api.RemoteRefused, "its daemon is older and does not know this operation"
	case errors.As(err, &remote):
		r.State, r.Detail = api.RemoteRefused, remote.Text
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, peer.ErrUnreachable):
		r.State, r.Detail = api.RemoteUnreachable, "the node cannot be reached: nothing was done there"
	default:
		r.State, r.Detail = api.RemoteUnreachable, "nothing was done there: "+err.Error()
	}
}

// auditRemote writes this node's own record of what it was asked to do.
func (d *remoteDesk) auditRemote(who api.Caller, what, result, detail string, took time.Duration) {
	d.audit().LogAttrs(context.Background(), slog.LevelInfo, "audit",
		slog.String("user", who.String()), slog.Int("uid", who.UID), slog.String("role", string(who.Role)),
		slog.String("call", "operation on node "+d.node), slog.String("what", what), slog.String("result", result),
		slog.String("detail", bounded(api.Printable(detail), 500)), slog.Uint64("index", 0), slog.Duration("took", took))
}

func anyChange(s *api.RemoteOperation) bool {
	for i := range s.Nodes {
		for _, f := range s.Nodes[i].Files {
			if f.State == api.FileReplaced || f.State == api.FileCreated {
				return true
			}
		}
	}
	return false
}

// summary is one sentence about an operation that has ended. Everybody may read the history, so a command is named there without its
// arguments; they stand in the record of changes.
func summary(s *api.RemoteOperation) string {
	what := s.What
	if rest, ok := strings.CutPrefix(what, "free command "); ok {
		name, _, _ := strings.Cut(rest, " ")
		what = "free command " + name
	}
	var bad []string
	for i := range s.Nodes {
		if r := &s.Nodes[i]; r.State != api.RemoteDone {
			bad = append(bad, r.Node+" ("+string(r.State)+")")
		}
	}
	text := fmt.Sprintf("%s by %s on %d nodes: done", bounded(what, 150), s.By, len(s.Nodes))
	if len(bad) > 0 {
		text = fmt.Sprintf("%s by %s on %d nodes: not done on %s", bounded(what, 150), s.By, len(s.Nodes), bounded(strings.Join(bad, ", "), 250))
	}
	return text
}

// logRemote appends an operation that has ended to cspoc.log: one line for it, and one for each node with its exit status. What
// commands wrote is not in it.
func (m *member) logRemote(s *api.RemoteOperation) {
	l, err := OpenLogFile(filepath.Join(m.opt.Node.LogDir, "log", "cspoc.log"), remoteLogLimit, remoteLogKeep)
	if err != nil {
		m.log.Warn("cspoc.log cannot be written", "error", err)
		return
	}
	defer func() { _ = l.Close() }()
	if _, err := l.Write([]byte(remoteText(s))); err != nil {
		m.log.Warn("cspoc.log cannot be written", "error", err)
	}
}

func remoteText(s *api.RemoteOperation) string {
	var b strings.Builder
	stamp := s.Began.Format("2006-01-02 15:04:05")
	fmt.Fprintf(&b, "%s %s %s: %s\n", stamp, s.ID, api.Printable(s.By), api.Printable(s.What))
	for i := range s.Nodes {
		r := &s.Nodes[i]
		word := ""
		if r.State != api.RemoteDone {
			word = " FAIL"
		}
		fmt.Fprintf(&b, "%s %s %s: rc=%d %s%s %.1f s %s\n", stamp, s.ID, r.Node, r.Exit, r.State, word, r.Seconds, api.Printable(bounded(r.Detail, 500)))
		for _, f := range r.Files {
			if f.State != api.FileSame {
				fmt.Fprintf(&b, "%s %s %s: %s %s %s\n", stamp, s.ID, r.Node, api.Printable(f.Path), f.State, api.Printable(bounded(f.Detail, 300)))
			}
		}
	}
	return b.String()
}
