// Package script is the executor of applications: they are started and stopped by scripts of the administrator.
//
// What a script starts is known by its cgroup, or by a marker in its environment where there are no cgroups; it survives the
// end of the daemon, and what is left of it is ended after a failed start and after a stop. An application that puts itself
// outside both (started by an init system, for example) can only be seen by a monitor.
package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultTimeout is for a start or stop script that has no time of its own.
const DefaultTimeout = 60 * time.Second

// A Look asks the application's monitors once whether it runs: Running, Stopped, Degraded, or Unknown when there is no
// monitor or none that could say. The sentence names the monitor.
type Look func(ctx context.Context, r executor.Resource) (executor.Status, string)

// Options configure the executor.
type Options struct {
	Runner *executor.Runner // required
	Look   Look             // nil: there are no monitors
	Logger *slog.Logger
}

// Applications is the executor of applications.
type Applications struct {
	run  *executor.Runner
	look Look
	log  *slog.Logger
	// records say what the scripts were last seen to do, where processes say nothing.
	records executor.AppRecords
}

var (
	_ executor.Executor  = (*Applications)(nil)
	_ executor.Restarter = (*Applications)(nil)
)

// New makes the executor of applications.
func New(o Options) *Applications {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Look == nil {
		o.Look = func(context.Context, executor.Resource) (executor.Status, string) { return executor.Unknown, "" }
	}
	return &Applications{run: o.Runner, look: o.Look, log: o.Logger.With("component", "application"),
		records: executor.NewAppRecords(o.Runner, "applications", "")}
}

// Kind is that of applications.
func (x *Applications) Kind() executor.Kind { return executor.KindApplication }

// Validate checks that both scripts are there and safe to run.
func (x *Applications) Validate(_ context.Context, r executor.Resource) error {
	a := r.App
	if a == nil {
		return errMissing
	}
	var errs []error
	for _, s := range []struct{ what, path string }{{"start script", a.StartScript}, {"stop script", a.StopScript}} {
		if err := executor.CheckScript(s.path); err != nil {
			errs = append(errs, fmt.Errorf("%s of application %s: %w", s.what, a.Name, err))
		}
	}
	switch a.StartupMode {
	case "", "foreground", "background":
	default:
		errs = append(errs, fmt.Errorf("startup mode %q of application %s is neither foreground nor background", a.StartupMode, a.Name))
	}
	return errors.Join(errs...)
}

var errMissing = errors.New("the resource has no application: this is a fault of the caller")

// Probe says whether the application runs, from what it can see:
//
//   - an action of this or an earlier daemon is at work on it, or its start failed and it was not stopped since: Unknown;
//   - a monitor says that it runs, or its processes live: Running (Degraded when the monitor says no while processes live);
//   - it was started in this boot, left processes then, and none lives now: Stopped;
//   - it was started in this boot and left none, and there is no monitor: Running, because nothing says otherwise and Stopped
//     would be a guess;
//   - else: Stopped.
func (x *Applications) Probe(ctx context.Context, r executor.Resource) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	s := executor.ScopeOf(r)
	if err := x.run.Blocked(s); err != nil {
		return unknown(err)
	}
	if at := x.run.Unfinished(s); len(at) > 0 {
		return unknown(fmt.Errorf("%s of application %s has not ended", at[0].Op, r.Name))
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	alive, err := x.run.Alive(s)
	if err != nil {
		return unknown(fmt.Errorf("look for the processes of application %s: %w", r.Name, err))
	}
	return x.judge(ctx, r, rec, alive)
}

// judge says what the record, the processes and the monitors amount to.
func (x *Applications) judge(ctx context.Context, r executor.Resource, rec executor.AppRecord, alive bool) executor.Result {
	seen, says := x.look(ctx, r)
	return judge(r.Name, rec, alive, seen, says)
}

func judge(name string, rec executor.AppRecord, alive bool, seen executor.Status, says string) executor.Result {
	say := func(s executor.Status, format string, args ...any) executor.Result {
		return executor.Result{Status: s, Detail: fmt.Sprintf(format, args...)}
	}
	// Processes are left to live only by a start that succeeded, so a daemon that was killed before it could note the success
	// is believed when they do.
	incomplete := rec.State == executor.AppFailed || rec.State == executor.AppStarting && !alive
	switch {
	case seen == executor.Running:
		return say(executor.Running, "application %s runs: %s", name, says)
	case seen == executor.Degraded:
		return say(executor.Degraded, "application %s: %s", name, says)
	case alive && seen == executor.Stopped:
		return say(executor.Degraded, "processes of application %s live, but %s", name, says)
	case incomplete:
		return unknown(fmt.Errorf("the start of application %s did not succeed and its stop script has not run since; what it left "+
			"cannot be seen", name))
	case alive:
		return say(executor.Running, "processes of application %s live", name)
	case seen == executor.Stopped:
		return say(executor.Stopped, "application %s does not run: %s", name, says)
	case rec.State == executor.AppStarted && !rec.Processes:
		return say(executor.Running, "application %s was started with success; it left no process and has no monitor, so no more can "+
			"be seen", name)
	}
	return say(executor.Stopped, "no process of application %s lives", name)
}

// Start runs the start script, unless the application runs already. In the foreground the script's end decides; in the
// background the application counts as started when the script has been executed.
func (x *Applications) Start(ctx context.Context, r executor.Resource) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	done, ok, alive := x.alreadyRuns(ctx, r)
	if ok {
		return done
	}
	if alive { // what lives now belongs to a start that did not succeed
		if err := x.run.EndScope(ctx, executor.ScopeOf(r), 0, 0); err != nil {
			return unknown(err)
		}
	}
	return x.startScript(ctx, r)
}

// startScript runs the start script and notes how it ended.
func (x *Applications) startScript(ctx context.Context, r executor.Resource) executor.Result {
	before, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	if err := x.records.Save(r, executor.AppRecord{State: executor.AppStarting}); err != nil {
		return unknown(err)
	}
	a, s := r.App, executor.ScopeOf(r)
	out := x.run.Run(ctx, executor.Command{Scope: s, Op: "start", Path: a.StartScript, Args: a.StartArgs, Env: Environment(x.run.Node(), r),
		Timeout: timeoutOr(a.StartTimeout), Keep: true, Background: a.StartupMode == "background"})
	switch {
	case out.Err != nil && !out.Executed: // nothing has changed
		err := errors.Join(fmt.Errorf("start application %s: %w", r.Name, out.Err), x.records.Save(r, before))
		return executor.Result{Status: x.Probe(ctx, r).Status, Detail: err.Error(), Err: err}
	case out.Err != nil:
		return x.startFailed(ctx, r, out)
	}
	alive, err := x.run.Alive(s)
	if err == nil {
		err = x.records.Save(r, executor.AppRecord{State: executor.AppStarted, Processes: alive && a.StartupMode != "background"})
	}
	if err != nil {
		return unknown(err)
	}
	if a.StartupMode == "background" {
		return executor.Result{Status: executor.Running,
			Detail: fmt.Sprintf("the start script of application %s was executed in the background; its end is not awaited", r.Name)}
	}
	return executor.Result{Status: executor.Running,
		Detail: fmt.Sprintf("the start script of application %s ended with 0 after %s", r.Name, out.Duration.Round(time.Millisecond))}
}

// alreadyRuns reports an application that need not be started, or must not be because nobody can say what it does.
func (x *Applications) alreadyRuns(ctx context.Context, r executor.Resource) (res executor.Result, ok, alive bool) {
	s := executor.ScopeOf(r)
	if err := x.run.Blocked(s); err != nil {
		return unknown(err), true, false
	}
	if at := x.run.Unfinished(s); len(at) > 0 {
		return unknown(fmt.Errorf("application %s is not started: %s has not ended", r.Name, at[0].Op)), true, false
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err), true, false
	}
	alive, err = x.run.Alive(s)
	if err != nil {
		return unknown(fmt.Errorf("look for the processes of application %s: %w", r.Name, err)), true, false
	}
	res = x.judge(ctx, r, rec, alive)
	if res.Status == executor.Running {
		return res, true, alive
	}
	// A monitor may need a while after a start; its processes say enough here.
	if alive && rec.State != executor.AppFailed && rec.State != "" {
		return executor.Result{Status: executor.Running, Detail: fmt.Sprintf("processes of application %s live", r.Name)}, true, alive
	}
	return res, false, alive
}

func (x *Applications) startFailed(ctx context.Context, r executor.Resource, out executor.Outcome) executor.Result {
	err := fmt.Errorf("start application %s: %w", r.Name, out.Err)
	left := x.run.EndScope(context.WithoutCancel(ctx), executor.ScopeOf(r), 0, 0)
	saved := x.records.Save(r, executor.AppRecord{State: executor.AppFailed})
	err = errors.Join(err, left, saved)
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}

// Stop runs the stop script, unless the application is seen to be stopped, and then ends what is left of its processes. When
// the script fails nothing is killed, and the application is not stopped.
func (x *Applications) Stop(ctx context.Context, r executor.Resource) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	s := executor.ScopeOf(r)
	if err := x.run.Blocked(s); err != nil {
		return unknown(err)
	}
	if at := x.run.Unfinished(s); len(at) > 0 {
		return unknown(fmt.Errorf("application %s is not stopped: %s has not ended", r.Name, at[0].Op))
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	if res := x.Probe(ctx, r); res.Status == executor.Stopped && rec.State == "" {
		return res
	}
	a := r.App
	out := x.run.Run(ctx, executor.Command{Scope: s, Op: "stop", Path: a.StopScript, Args: a.StopArgs, Env: Environment(x.run.Node(), r),
		Timeout: timeoutOr(a.StopTimeout)})
	if out.Err != nil {
		return x.stopFailed(ctx, r, out)
	}
	if err := x.run.EndScope(context.WithoutCancel(ctx), s, 0, 0); err != nil {
		return unknown(fmt.Errorf("the stop script of application %s ended with 0, but: %w", r.Name, err))
	}
	if err := x.records.Save(r, executor.AppRecord{}); err != nil {
		return unknown(err)
	}
	res := x.judge(ctx, r, executor.AppRecord{}, false)
	if res.Status != executor.Stopped {
		res.Err = fmt.Errorf("the stop script of application %s ended with 0, but: %s", r.Name, res.Detail)
		return res
	}
	res.Detail = fmt.Sprintf("the stop script of application %s ended with 0 after %s", r.Name, out.Duration.Round(time.Millisecond))
	return res
}

func (x *Applications) stopFailed(ctx context.Context, r executor.Resource, out executor.Outcome) executor.Result {
	err := fmt.Errorf("stop application %s: %w", r.Name, out.Err)
	res := x.Probe(context.WithoutCancel(ctx), r)
	if res.Status == executor.Stopped { // its script says otherwise
		res.Status = executor.Unknown
	}
	return executor.Result{Status: res.Status, Detail: err.Error() + "; " + res.Detail, Err: err}
}

// Environment is what scripts and monitors of the application find in their environment, PowerHA's names among it.
func Environment(node string, r executor.Resource) []string {
	return []string{
		"HOLDFAST_GROUP=" + r.Group, "HOLDFAST_NODE=" + node, "HOLDFAST_RESOURCE=" + r.Name,
		"GROUPNAME=" + r.Group, "LOCALNODENAME=" + node,
	}
}

func timeoutOr(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultTimeout
	}
	return d
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}

// Cleanup ends the application before it is started again on the same node: by its stop script, or the method given instead,
// and then whatever processes of it are left.
func (x *Applications) Cleanup(ctx context.Context, r executor.Resource, method string) error {
	a := r.App
	c := executor.Command{Scope: executor.ScopeOf(r), Op: "cleanup", Path: a.StopScript, Args: a.StopArgs,
		Env: Environment(x.run.Node(), r), Timeout: timeoutOr(a.StopTimeout)}
	if method != "" {
		c.Path, c.Args = method, nil
	}
	out := x.run.Run(ctx, c)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("clean up application %s: %w", r.Name, context.Cause(ctx))
	}
	// The application has failed already, so its cleanup may find nothing to do and say so; its processes must end anyway.
	if err := x.run.EndScope(ctx, c.Scope, 0, 0); err != nil {
		return err
	}
	if out.Err != nil {
		x.log.Warn("the cleanup of a failed application did not succeed", "application", r.Name, "cause", out.Err.Error())
	}
	return nil
}

// Restart starts the application again on this node after Cleanup, by its start script or the method given instead.
func (x *Applications) Restart(ctx context.Context, r executor.Resource, method string) error {
	if method != "" {
		app := *r.App
		app.StartScript, app.StartArgs = method, nil
		r.App = &app
	}
	return x.startScript(ctx, r).Err
}
