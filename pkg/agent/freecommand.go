package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/peer"
)

// Free commands (clcmd, cl_nodecmd). A node first agrees, which costs nothing and names this run of its daemon; then it is told to
// run, as often as it takes to hear that it does, and runs once: the id is remembered, and a daemon that was restarted in between is
// another run, which refuses. So a broken connection never runs a command twice, and what may have run is called unknown.

// commandPath is where a command is looked for that is given by its name alone.
var commandPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// commandAsk asks a node to run a command; without Life only whether it would.
type commandAsk struct {
	ID      string           `json:"id"`
	Life    string           `json:"life,omitempty"`
	Who     api.Caller       `json:"who"`
	Version uint64           `json:"version"` // of the definition that the asking node has
	Timeout int              `json:"timeout"` // seconds
	Command *api.FreeCommand `json:"command"`
}

type commandAnswer struct {
	Life   string           `json:"life"`
	Result api.RemoteResult `json:"result"`
}

// A commandRun is a command on this node.
type commandRun struct {
	from   string
	uid    int
	argv   []string
	done   chan struct{} // closed at its end
	ended  time.Time     // under the desk's lock
	result api.RemoteResult
}

// freeCommandsOff says why the caller may not run any.
func freeCommandsOff(def *cluster.Definition, who api.Caller) string {
	switch {
	case def == nil || !def.Settings.FreeCommands:
		return "free commands are off in this cluster (clmgr modify cluster FREE_COMMANDS=yes lets root, and who stands in access.command of node.yaml, " +
			"run any command on all nodes); nothing was run"
	case !who.Command:
		return who.String() + " may not run free commands: root may, and who stands in access.command of node.yaml; nothing was run"
	}
	return ""
}

// commandOn brings a command to one node.
func (d *remoteDesk) commandOn(ctx context.Context, op *remoteOp, node string, who api.Caller, r api.RemoteRequest) {
	_, version := d.definition()
	q := commandAsk{ID: r.ID, Who: who, Version: version, Timeout: r.Timeout, Command: r.Command}
	a, err := ask[commandAnswer](ctx, d, node, rpcCommand, q, d.agree(node))
	if err != nil {
		op.set(node, func(res *api.RemoteResult) { notAsked(res, err) })
		return
	}
	if a.Result.State.Ended() { // it refuses, or has done it already
		op.set(node, func(res *api.RemoteResult) { take(res, &a.Result) })
		return
	}
	q.Life = a.Life
	op.set(node, func(res *api.RemoteResult) { res.State = api.RemoteRunning })
	d.awaitCommand(ctx, op, node, q)
}

// awaitCommand tells the node to run until it says how that ended, or nothing more is to be heard.
func (d *remoteDesk) awaitCommand(ctx context.Context, op *remoteOp, node string, q commandAsk) {
	heard := time.Now()
	sent := false // the command may have begun
	for {
		a, err := ask[commandAnswer](ctx, d, node, rpcCommand, q, askLimit)
		switch {
		case err == nil && a.Result.State.Ended():
			op.set(node, func(res *api.RemoteResult) { take(res, &a.Result) })
			return
		case err == nil:
			heard, sent = time.Now(), true
			continue
		case ctx.Err() != nil:
			op.set(node, func(res *api.RemoteResult) {
				res.State, res.Detail = api.RemoteUnknown, "this daemon stops; the command may run on"
			})
			return
		}
		sent = sent || !errors.Is(err, peer.ErrUnreachable)
		if time.Since(heard) < awayLimit {
			select {
			case <-after(500 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		op.set(node, func(res *api.RemoteResult) {
			if notAsked(res, err); sent {
				res.State, res.Detail = api.RemoteUnknown, "the node has fallen silent: the command may have run, in part or whole"
			}
		})
		return
	}
}

// take puts what a node says into the result, within its bounds.
func take(to, from *api.RemoteResult) {
	to.State, to.Exit, to.Detail = from.State, from.Exit, bounded(from.Detail, 1000)
	to.Output = from.Output[:min(len(from.Output), api.MaxRemoteOutput)]
}

// serveCommand is this node's side. It answers when the command has ended, or after hangLimit as it then is.
func (d *remoteDesk) serveCommand(ctx context.Context, from string, body []byte) ([]byte, error) {
	var q commandAsk
	if err := json.Unmarshal(body, &q); err != nil || q.Command == nil {
		return nil, errors.New("the question cannot be read")
	}
	if q.Who.Node = ""; from != d.node {
		q.Who.Node = from
	}
	return json.Marshal(commandAnswer{Life: d.life, Result: d.commandHere(ctx, from, q)})
}

func (d *remoteDesk) commandHere(ctx context.Context, from string, q commandAsk) api.RemoteResult {
	d.mu.Lock()
	run := d.runs[q.ID]
	d.mu.Unlock()
	if run == nil {
		path, refused := d.mayRun(ctx, q)
		if refused != "" {
			d.auditRemote(q.Who, "free command "+q.Command.String(), "refused", refused, 0)
			return api.RemoteResult{State: api.RemoteRefused, Exit: -1, Detail: refused}
		}
		if q.Life == "" {
			return api.RemoteResult{State: api.RemoteWaiting, Exit: -1}
		}
		if q.Life != d.life {
			return api.RemoteResult{State: api.RemoteUnknown, Exit: -1, Detail: "the daemon was restarted meanwhile: the command may have begun, and has ended with it"}
		}
		var why string
		if run, why = d.beginCommand(from, path, q); run == nil {
			return api.RemoteResult{State: api.RemoteRefused, Exit: -1, Detail: why}
		}
	} else if run.from != from || run.uid != q.Who.UID || !slices.Equal(run.argv, q.Command.Argv) {
		return api.RemoteResult{State: api.RemoteRefused, Exit: -1, Detail: "another command was begun under this id, or by somebody else, or from another node; nothing was run"}
	}
	t := time.NewTimer(hangLimit)
	defer t.Stop()
	select {
	case <-run.done:
		return run.result
	case <-t.C:
	case <-ctx.Done():
	}
	return api.RemoteResult{State: api.RemoteRunning, Exit: -1}
}

// mayRun judges by this node's own copy of the definition, and finds the program.
func (d *remoteDesk) mayRun(ctx context.Context, q commandAsk) (path, refused string) {
	if why := freeCommandsOff(d.definitionAt(ctx, q.Version), q.Who); why != "" {
		return "", why
	}
	r := api.RemoteRequest{Command: q.Command, Timeout: q.Timeout}
	if err := r.Check(); err != nil {
		return "", err.Error()
	}
	if d.run == nil {
		return "", "this daemon runs no commands"
	}
	path = q.Command.Argv[0]
	if !filepath.IsAbs(path) {
		if path = findCommand(path); path == "" {
			return "", fmt.Sprintf("there is no program %s in %s", api.Printable(q.Command.Argv[0]), strings.Join(commandPath, ", "))
		}
	}
	if err := d.check(path); err != nil {
		return "", err.Error() + "; nothing was run"
	}
	return path, ""
}

func findCommand(name string) string {
	for _, dir := range commandPath {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// definitionAt is this node's definition; it waits a moment for one that is at least as new as the asking node's.
func (d *remoteDesk) definitionAt(ctx context.Context, version uint64) *cluster.Definition {
	for range 20 {
		if _, v := d.definition(); v >= version {
			break
		}
		select {
		case <-after(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	def, _ := d.definition()
	return def
}

// beginCommand starts it beside the caller.
func (d *remoteDesk) beginCommand(from, path string, q commandAsk) (*commandRun, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run := d.runs[q.ID]; run != nil {
		return run, ""
	}
	running := 0
	var over []string
	for id, r := range d.runs {
		if r.ended.IsZero() {
			running++
		} else {
			over = append(over, id)
		}
	}
	if running >= commandsHere {
		return nil, fmt.Sprintf("%d free commands run here already: nothing was run", running)
	}
	slices.SortFunc(over, func(a, b string) int { return d.runs[a].ended.Compare(d.runs[b].ended) })
	for i, id := range over {
		if len(over)-i < remoteKept && time.Since(d.runs[id].ended) < remoteKeep {
			break
		}
		delete(d.runs, id)
	}
	run := &commandRun{from: from, uid: q.Who.UID, argv: q.Command.Argv, done: make(chan struct{})}
	d.runs[q.ID] = run
	d.work(func() { d.runCommand(run, path, q) })
	return run, ""
}

// runCommand runs it, with a record of its begin and one of its end.
func (d *remoteDesk) runCommand(run *commandRun, path string, q commandAsk) {
	what := "free command " + q.Command.String()
	d.auditRemote(q.Who, what, "begun", "", 0)
	def, _ := d.definition()
	out := d.run(d.ctx, executor.Command{Scope: executor.Scope{Kind: "free", Name: q.ID}, Op: "command", Path: path, Args: q.Command.Argv[1:],
		Env:     []string{"HOLDFAST_NODE=" + d.node, "HOLDFAST_CLUSTER=" + def.Name},
		Timeout: time.Duration(q.Timeout) * time.Second, KillSignal: int(syscall.SIGTERM), OutputLimit: api.MaxRemoteOutput - 256,
		Warn: func(executor.Command, time.Duration) {}, // how long it may take was said by who runs it
		// No record that would keep what it wrote: that goes to who asked. What an earlier daemon left of it is ended all the same.
		Unrecorded: true})
	res := commandResult(out)
	detail := res.Detail
	if detail == "" {
		detail = fmt.Sprintf("exit status %d", res.Exit)
	}
	d.auditRemote(q.Who, what, string(res.State), detail, out.Duration)
	d.mu.Lock()
	run.result, run.ended = res, time.Now()
	d.mu.Unlock()
	close(run.done)
}

func commandResult(out executor.Outcome) api.RemoteResult {
	r := api.RemoteResult{State: api.RemoteDone, Exit: out.Exit, Output: []byte(out.Output)}
	r.Output = r.Output[:min(len(r.Output), api.MaxRemoteOutput)]
	switch {
	case out.Err == nil:
		return r
	case !out.Executed:
		r.State, r.Detail = api.RemoteRefused, out.Err.Error()
	case errors.Is(out.Err, executor.ErrStuck):
		r.State, r.Detail = api.RemoteUnknown, out.Err.Error()
	case out.Exit >= 0 && !errors.Is(out.Err, executor.ErrTimeout):
		r.State, r.Detail = api.RemoteFailed, fmt.Sprintf("exit status %d", out.Exit)
	default:
		r.State, r.Exit, r.Detail = api.RemoteFailed, -1, out.Err.Error()
	}
	return r
}
