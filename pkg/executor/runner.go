package executor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// markerVariable stands in the environment of every process that the runner starts, and is inherited by its descendants. It
// is how they are found again where there is no cgroup of their own.
const markerVariable = "HOLDFAST_ACTION"

// RunnerOptions configure a runner. Only Dir is required.
type RunnerOptions struct {
	// Dir is this node's state directory for actions: records below Dir/actions, applications' output below Dir/output.
	Dir string
	// Node is this node's name, for HOLDFAST_NODE and to tell several agents on one machine apart.
	Node string
	// BootID identifies this boot of the machine; empty: the kernel's, with the PID namespace.
	BootID string
	// CgroupRoot is the cgroup v2 directory below which actions get cgroups of their own. Empty: "holdfast" at the root of
	// the hierarchy that is mounted, if it can be written. "none": no cgroups, process groups and markers only.
	CgroupRoot string
	// OutputLimit, WarnAfter, WarnEvery and KillWait default to the constants of the same name.
	OutputLimit          int
	WarnAfter, WarnEvery time.Duration
	KillWait             time.Duration
	// TooLong is called when a command has run for WarnAfter, and again every WarnEvery (config_too_long). It must not block.
	TooLong func(c Command, elapsed time.Duration)
	Logger  *slog.Logger
}

// A Runner runs all commands of a daemon: by argument vector, in a session and (where there is a writable cgroup v2
// hierarchy) a cgroup of their own, with normal scheduling, a clean environment, bounded output, and an end. It records
// actions before it executes them, and finds and ends what an earlier daemon left behind.
//
// It does not promise to find a process that has left its cgroup and cleared its environment. All methods may be called by
// any goroutine.
type Runner struct {
	o        RunnerOptions
	instance string
	groups   *cgroups // nil: no cgroups
	actions  *ActionLog
	log      *slog.Logger

	warnAfter atomic.Int64 // a time.Duration; 0: the option's

	mu      sync.Mutex
	blocked map[Scope]error // orphans that Recover could not end
}

// SetWarnAfter changes after how long a command that has no time of its own raises config_too_long; it counts for commands that begin
// later. 0: the option's.
func (r *Runner) SetWarnAfter(d time.Duration) { r.warnAfter.Store(int64(d)) }

// NewRunner makes a runner. It does not look at what an earlier daemon left: call Recover before the first action.
func NewRunner(o RunnerOptions) (*Runner, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("the runner's directory %q must be an absolute path", o.Dir)
	}
	o.OutputLimit = orDefault(o.OutputLimit, DefaultOutputLimit)
	o.WarnAfter = orDefault(o.WarnAfter, DefaultWarnAfter)
	o.WarnEvery = orDefault(o.WarnEvery, DefaultWarnEvery)
	o.KillWait = orDefault(o.KillWait, DefaultKillWait)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "output"), 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of outputs: %w", err)
	}
	if o.BootID == "" {
		boot, err := bootID()
		if err != nil {
			return nil, fmt.Errorf("find this boot's id: %w", err)
		}
		o.BootID = boot
	}
	actions, err := OpenActionLog(filepath.Join(o.Dir, "actions"), o.BootID)
	if err != nil {
		return nil, err
	}
	instance, err := instanceName(o.Dir, o.Node)
	if err != nil {
		return nil, err
	}
	r := &Runner{o: o, instance: instance, actions: actions, log: o.Logger.With("component", "runner"),
		blocked: map[Scope]error{}}
	if r.groups, err = openCgroups(o.CgroupRoot, instance); err != nil {
		r.log.Info("actions run without cgroups of their own; descendants are found by process group and environment marker",
			"cause", err.Error())
	}
	return r, nil
}

// Cgroup is the directory below which this runner's actions have their cgroups, or "" when there are none.
func (r *Runner) Cgroup() string {
	if r.groups == nil {
		return ""
	}
	return r.groups.dir
}

// Node is the node's name as it was configured.
func (r *Runner) Node() string { return r.o.Node }

// BootID identifies this boot.
func (r *Runner) BootID() string { return r.o.BootID }

// Dir is the runner's state directory.
func (r *Runner) Dir() string { return r.o.Dir }

func (c Command) place() string {
	if c.Keep {
		return keptPlace
	}
	return transientPlace
}

// An action is one command on its way.
type action struct {
	Record
	c      Command
	cgroup *cgroup // nil: none
	out    *headTail
	file   *os.File // the application's output, for Keep
	offset int64    // where this action's output begins in it
}

// Run runs the command and returns when it, and without Keep everything that it left behind, has ended, or when that cannot
// be brought about (ErrStuck). When the context ends the command is killed.
func (r *Runner) Run(ctx context.Context, c Command) Outcome {
	began := time.Now()
	out := r.run(ctx, c)
	out.Duration = time.Since(began)
	r.logEnd(c, out)
	return out
}

func (r *Runner) run(ctx context.Context, c Command) Outcome {
	if c.Background {
		c.Keep = true
	}
	if err := r.admit(ctx, c); err != nil {
		return Outcome{Exit: -1, Err: err}
	}
	a, err := r.begin(ctx, c)
	if err != nil {
		return Outcome{Exit: -1, Err: err}
	}
	p, err := r.start(a)
	if err != nil {
		r.discard(a)
		return Outcome{Exit: -1, Err: err}
	}
	if c.Background {
		go r.awaitBackground(a, p)
		r.end(a)
		return Outcome{Executed: true}
	}
	out := r.await(ctx, a, p)
	out.Executed = true
	return out
}

// admit refuses what must not run at all.
func (r *Runner) admit(ctx context.Context, c Command) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s was not started: %w", c.Path, context.Cause(ctx))
	}
	if !filepath.IsAbs(c.Path) {
		return fmt.Errorf("%w: %q is not an absolute path", ErrUnsafe, c.Path)
	}
	if err := r.Blocked(c.Scope); err != nil {
		return err
	}
	if c.Trusted {
		return nil
	}
	return CheckScript(c.Path)
}

// begin prepares cgroup, output and the durable record, in this order: what the record names exists then.
func (r *Runner) begin(ctx context.Context, c Command) (*action, error) {
	id, err := newID(c.Op)
	if err != nil {
		return nil, err
	}
	a := &action{c: c, out: newHeadTail(orDefault(c.OutputLimit, r.o.OutputLimit))}
	a.Record = Record{ID: id, Group: c.Scope.Group, Kind: c.Scope.Kind, Resource: c.Scope.Name, Op: c.Op,
		Generation: Generation(ctx), Marker: r.markerPrefix(c.Scope, c.place()) + id}
	if c.Keep {
		if err := r.openOutput(a); err != nil {
			return nil, err
		}
	}
	if r.groups != nil {
		if a.cgroup, err = r.groups.create(filepath.Join(scopePath(c.Scope), c.place()), id); err != nil {
			r.log.Warn("the action runs without a cgroup of its own", "scope", c.Scope.String(), "op", c.Op, "cause", err.Error())
		} else {
			a.Cgroup = a.cgroup.dir
		}
	}
	if c.Unrecorded {
		return a, nil
	}
	if err := r.actions.Begin(a.Record); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// discard undoes begin for an action whose program was never executed.
func (r *Runner) discard(a *action) {
	a.close()
	if a.cgroup != nil {
		_ = a.cgroup.remove()
	}
	r.end(a)
}

// end removes the action's record.
func (r *Runner) end(a *action) {
	if a.c.Unrecorded {
		return
	}
	if err := r.actions.End(a.ID); err != nil {
		r.log.Error("the record of an ended action stays behind; the next daemon will look for its processes in vain",
			"action", a.ID, "cause", err.Error())
	}
}

func (a *action) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}

// A process is a started program with its output on the way.
type process struct {
	cmd    *exec.Cmd
	pipe   *os.File      // our end of its output; nil for Keep
	copied chan struct{} // closed when the output has been read
}

func (r *Runner) start(a *action) (*process, error) {
	cmd := exec.Command(a.c.Path, a.c.Args...)
	cmd.Env = r.environment(a)
	cmd.Dir = a.c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := &process{cmd: cmd, copied: make(chan struct{})}
	stdin, err := stdinFile(a.c.Stdin)
	if err != nil {
		return nil, fmt.Errorf("prepare the input of %s: %w", a.c.Path, err)
	}
	if stdin != nil {
		defer stdin.Close()
		cmd.Stdin = stdin
	}
	out := a.file
	if out == nil {
		if p.pipe, out, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("make a pipe for the output of %s: %w", a.c.Path, err)
		}
		defer out.Close()
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := startNormally(cmd, a.cgroup); err != nil {
		if p.pipe != nil {
			_ = p.pipe.Close()
		}
		return nil, fmt.Errorf("execute %s: %w", a.c.Path, err)
	}
	resetOOMScore(cmd.Process.Pid, a.cgroup)
	if !a.c.Unrecorded {
		r.actions.Executed(a.ID, cmd.Process.Pid, startTime(cmd.Process.Pid))
	}
	if p.pipe == nil {
		close(p.copied)
	} else {
		go func() {
			defer close(p.copied)
			buf := make([]byte, 8<<10)
			for {
				n, err := p.pipe.Read(buf)
				_, _ = a.out.Write(buf[:n])
				if err != nil {
					return
				}
			}
		}()
	}
	return p, nil
}

// environment is clean: a variable of the daemon's service manager must not reach an application.
func (r *Runner) environment(a *action) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "SHELL=/bin/sh"}
	for _, name := range []string{"TZ", "ODMDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	env = append(env, a.c.Env...)
	return append(env, "LC_ALL=C", markerVariable+"="+a.Marker)
}

// await waits for the end of the program and brings it about when the time is over.
func (r *Runner) await(ctx context.Context, a *action, p *process) Outcome {
	if a.c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.c.Timeout, ErrTimeout)
		defer cancel()
	}
	stopWarnings := r.warn(a)
	defer stopWarnings()

	exited := make(chan struct{})
	go func() {
		awaitExit(p.cmd.Process.Pid)
		close(exited)
	}()
	select {
	case <-exited:
		return r.finish(ctx, a, p, nil)
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	select { // a program that ended together with the time has ended
	case <-exited:
		return r.finish(ctx, a, p, nil)
	default:
	}
	if sig := syscall.Signal(a.c.KillSignal); sig != 0 && sig != syscall.SIGKILL {
		_ = signalGroup(p.cmd.Process.Pid, sig)
		waitFor(exited, orDefault(a.c.KillGrace, defaultKillGrace))
	}
	r.kill(a, p)
	if !waitFor(exited, r.o.KillWait) {
		go r.awaitStuck(a, p, exited)
		return Outcome{Exit: -1, Output: r.output(a), Err: fmt.Errorf("%s %w and %w: process %d does not end",
			a.c.Path, describeEnd(cause), ErrStuck, p.cmd.Process.Pid)}
	}
	return r.finish(ctx, a, p, cause)
}

// finish reaps a program that has ended and ends what it left behind, unless that is an application to be kept.
func (r *Runner) finish(_ context.Context, a *action, p *process, cause error) Outcome {
	if !a.c.Keep || cause != nil {
		r.kill(a, p) // before the program is reaped: its process group's number is still ours
	}
	waitErr := p.cmd.Wait()
	keep := a.c.Keep && cause == nil && waitErr == nil
	var left error
	if !keep {
		left = r.endAction(a)
	}
	if !waitFor(p.copied, r.o.KillWait) {
		_ = p.pipe.Close() // somebody who could not be found holds the other end
		<-p.copied
	} else if p.pipe != nil {
		_ = p.pipe.Close()
	}
	out := r.outcome(a, p, cause, waitErr)
	if left != nil {
		out.Err = errors.Join(out.Err, left)
		go r.awaitLeft(a)
		return out
	}
	a.close()
	r.end(a)
	return out
}

func (r *Runner) outcome(a *action, p *process, cause, waitErr error) Outcome {
	out := Outcome{Exit: -1, Output: r.output(a)}
	state := p.cmd.ProcessState
	if state != nil {
		out.Exit = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			out.Signal = ws.Signal().String()
		}
	}
	switch {
	case cause != nil:
		out.Err = fmt.Errorf("%s %w and was killed", a.c.Path, describeEnd(cause))
		if errors.Is(cause, ErrTimeout) {
			out.Err = fmt.Errorf("%s %w after %s and was killed with its descendants", a.c.Path, ErrTimeout, a.c.Timeout)
		}
	case waitErr == nil:
	case out.Signal != "":
		out.Err = fmt.Errorf("%s was ended by a signal (%s)", a.c.Path, out.Signal)
	case out.Exit >= 0:
		out.Err = fmt.Errorf("%s ended with exit status %d%s", a.c.Path, out.Exit, quoteLast(out))
	default:
		out.Err = fmt.Errorf("wait for %s: %w", a.c.Path, waitErr)
	}
	return out
}

func quoteLast(o Outcome) string {
	if last := o.LastLine(); last != "" {
		return fmt.Sprintf(": %q", last)
	}
	return ""
}

// describeEnd makes "was cancelled" of the bare words of package context.
func describeEnd(cause error) error {
	switch {
	case errors.Is(cause, ErrTimeout):
		return cause
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("ran out of the caller's time (%w)", cause)
	case errors.Is(cause, context.Canceled):
		return fmt.Errorf("was cancelled (%w)", cause)
	}
	return fmt.Errorf("was cancelled: %w", cause)
}

// kill kills the program's process group and its cgroup, without waiting.
func (r *Runner) kill(a *action, p *process) {
	_ = signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
	if a.cgroup != nil {
		_ = a.cgroup.kill()
	}
}

// endAction ends all processes of one action and waits for them.
func (r *Runner) endAction(a *action) error {
	if a.cgroup == nil {
		return r.endMembers(context.Background(), a.Scope(), a.Marker, nil, r.o.KillWait)
	}
	marker := a.Marker
	if !a.c.Keep { // only an application has reason to move out of its cgroup; looking at all processes takes time
		marker = ""
	}
	return r.endMembers(context.Background(), a.Scope(), marker, []string{a.cgroup.dir}, r.o.KillWait)
}

// awaitStuck waits, for as long as it takes, for a program that could not be killed, and removes its record then.
func (r *Runner) awaitStuck(a *action, p *process, exited <-chan struct{}) {
	<-exited
	_ = p.cmd.Wait()
	if p.pipe != nil {
		_ = p.pipe.Close()
	}
	r.awaitLeft(a)
}

// awaitLeft waits for descendants that could not be killed.
func (r *Runner) awaitLeft(a *action) {
	for r.endAction(a) != nil {
		r.log.Warn("processes of an action cannot be killed", "scope", a.c.Scope.String(), "op", a.c.Op, "action", a.ID)
		time.Sleep(time.Second)
	}
	a.close()
	r.end(a)
}

func (r *Runner) awaitBackground(a *action, p *process) {
	err := p.cmd.Wait()
	a.close()
	r.log.Info("a background start script ended", "scope", a.c.Scope.String(), "script", a.c.Path, "end", endText(err))
}

func endText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// warn raises config_too_long after a time and again, until the returned function is called.
func (r *Runner) warn(a *action) (stop func()) {
	hook := a.c.Warn
	if hook == nil {
		hook = r.o.TooLong
	}
	after := orDefault(a.c.WarnAfter, orDefault(time.Duration(r.warnAfter.Load()), r.o.WarnAfter))
	every := orDefault(a.c.WarnEvery, r.o.WarnEvery)
	began := time.Now()
	done := make(chan struct{})
	go func() {
		t := time.NewTimer(after)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
			}
			elapsed := time.Since(began)
			r.log.Warn("config_too_long: an action is taking long", "scope", a.c.Scope.String(), "op", a.c.Op,
				"command", a.c.Path, "elapsed", elapsed.Round(time.Second).String())
			if hook != nil {
				hook(a.c, elapsed)
			}
			t.Reset(every)
		}
	}()
	return func() { close(done) }
}

// openOutput opens the file for what an application prints from now on, and makes room in it first.
func (r *Runner) openOutput(a *action) error {
	path := filepath.Join(r.o.Dir, "output", escape(a.Group)+"."+escape(string(a.Kind))+"."+escape(a.Resource)+".log")
	if err := TrimOutput(path, maxStateFile); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open the output file of %s: %w", a.Scope(), err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("look at the output file %s: %w", path, err)
	}
	a.file, a.offset = f, info.Size()
	return nil
}

func (r *Runner) output(a *action) string {
	text := a.out.String()
	if a.file != nil {
		text = readBounded(a.file, a.offset, r.o.OutputLimit)
	}
	for _, secret := range a.c.Redact {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// TrimOutputs keeps the applications' output files within their bound; the daemon calls it every minute or so. What is cut is
// lost: an application that wants its output kept writes its own log.
func (r *Runner) TrimOutputs() error {
	files, err := filepath.Glob(filepath.Join(r.o.Dir, "output", "*.log"))
	var errs []error
	for _, f := range files {
		errs = append(errs, TrimOutput(f, maxStateFile))
	}
	return errors.Join(append(errs, err)...)
}

// TrimOutput empties a file that has grown beyond limit. Its writers append, so they go on at its new end.
func TrimOutput(path string, limit int64) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the output file: %w", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("cut the output file: %w", err)
	}
	return nil
}

func (r *Runner) logEnd(c Command, out Outcome) {
	level := slog.LevelInfo
	if c.Unrecorded {
		level = slog.LevelDebug
	}
	if out.Err != nil && !c.Unrecorded {
		level = slog.LevelWarn
	}
	attrs := []any{"scope", c.Scope.String(), "op", c.Op, "command", c.Path, "exit", out.Exit,
		"duration", out.Duration.Round(time.Microsecond).String()}
	if out.Err != nil {
		attrs = append(attrs, "cause", out.Err.Error())
	}
	if s := strings.TrimSpace(out.Output); s != "" {
		attrs = append(attrs, "output", s)
	}
	r.log.Log(context.Background(), level, "command ended", attrs...)
}

func newID(op string) (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw an action id: %w", err)
	}
	if op == "" {
		op = "run"
	}
	return escape(op) + "-" + hex.EncodeToString(b[:]), nil
}

// waitFor waits for the channel to be closed, for at most d.
func waitFor(c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// stdinFile makes a readable file of data: a pipe when it fits into one, so that nothing secret comes near a disk.
func stdinFile(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) > 4<<10 {
		return nil, fmt.Errorf("the input has %d bytes, at most 4096 are possible", len(data))
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = wr.Write(data)
	if err := errors.Join(err, wr.Close()); err != nil {
		_ = rd.Close()
		return nil, err
	}
	return rd, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
