package ocf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
)

// DefaultTimeout is for an action whose agent says nothing, as in Pacemaker.
const DefaultTimeout = 20 * time.Second

const (
	metaTimeout = 20 * time.Second
	// watchInterval is what an agent is told of the interval at which its monitor is called, when that is not a probe: agents
	// only distinguish 0.
	watchInterval = 10 * time.Second
	maxTimeout    = 24 * time.Hour // an agent that asks for more is not believed
)

// An agent is one that was found on this machine.
type agent struct {
	name cluster.AgentName
	meta *Meta
	// command is the program of an action and its arguments; false: the agent has none.
	command func(action string) (path string, args []string, ok bool)
	env     []string
}

// A catalogue finds agents. errNotInstalled: there is none of the name here.
type catalogue interface {
	find(ctx context.Context, r executor.Resource) (*agent, error)
}

var (
	errNotInstalled = errors.New("not installed here")
	errMissing      = errors.New("the resource has no application: this is a fault of the caller")
)

// Applications is the executor of applications that agents run.
type Applications struct {
	kind executor.Kind
	run  *executor.Runner
	from catalogue
	log  *slog.Logger
	// records only decide what an agent's silence means: "not installed", "wrongly configured".
	records executor.AppRecords

	mu   sync.Mutex
	busy map[executor.Scope]chan struct{} // one action at a time on one resource
}

var (
	_ executor.Executor  = (*Applications)(nil)
	_ executor.Restarter = (*Applications)(nil)
	_ executor.Watcher   = (*Applications)(nil)
	_ executor.Timed     = (*Applications)(nil)
	_ executor.Fitter    = (*Applications)(nil)
)

func newApplications(kind executor.Kind, run *executor.Runner, from catalogue, log *slog.Logger) *Applications {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Applications{kind: kind, run: run, from: from, log: log.With("component", string(kind)), busy: map[executor.Scope]chan struct{}{},
		records: executor.NewAppRecords(run, "agents", string(kind)+".")}
}

// Kind is executor.KindOCF or executor.KindUser.
func (x *Applications) Kind() executor.Kind { return x.kind }

// Validate checks that the agent is there, may be run, is not a promotable one, takes the parameters, and finds them right
// itself (its validate-all).
func (x *Applications) Validate(ctx context.Context, r executor.Resource) error {
	a, err := x.fit(ctx, r)
	if err != nil {
		return err
	}
	if !a.meta.Has("validate-all") {
		return nil
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	o, err := x.act(ctx, r, a, call{action: "validate-all", unrecorded: true})
	if err != nil {
		return err
	}
	if o.Exit == exitUnimplemented {
		return nil
	}
	if err := explain("validate-all", o); err != nil {
		return fmt.Errorf("application %s (%s): %w", r.Name, a.name, err)
	}
	return nil
}

// Fit refuses a promotable agent, and parameters that the agent does not take. What is not installed here cannot be judged here.
func (x *Applications) Fit(ctx context.Context, r executor.Resource) error {
	if _, err := x.fit(ctx, r); err != nil && !errors.Is(err, errNotInstalled) {
		return err
	}
	return nil
}

// fit finds the agent and checks what can be checked of the resource without running it.
func (x *Applications) fit(ctx context.Context, r executor.Resource) (*agent, error) {
	if r.App == nil {
		return nil, errMissing
	}
	a, err := x.from.find(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", r.Name, err)
	}
	if err := refusePromotable(a.name, a.meta, r.App.Params); err != nil {
		return nil, fmt.Errorf("application %s: %w", r.Name, err)
	}
	if err := a.meta.Check(r.App.Params); err != nil {
		return nil, fmt.Errorf("application %s (%s): %w", r.Name, a.name, err)
	}
	return a, nil
}

// hold waits until nothing else is done with the resource.
func (x *Applications) hold(ctx context.Context, r executor.Resource) (release func(), err error) {
	s := executor.ScopeOf(r)
	x.mu.Lock()
	slot := x.busy[s]
	if slot == nil {
		slot = make(chan struct{}, 1)
		x.busy[s] = slot
	}
	x.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("another action on application %s has not ended: %w", r.Name, context.Cause(ctx))
	}
}

// A call is one action of an agent.
type call struct {
	action     string
	depth      int
	watching   bool // a monitor that is no probe
	keep       bool
	unrecorded bool
}

// act runs one action. The error says that the agent has none such.
func (x *Applications) act(ctx context.Context, r executor.Resource, a *agent, c call) (executor.Outcome, error) {
	path, args, ok := a.command(c.action)
	if !ok {
		return executor.Outcome{}, fmt.Errorf("application %s: %s has no action %s", r.Name, a.name, c.action)
	}
	limit := x.limit(r, a, c.action, c.depth)
	var redact []string
	for _, k := range sortedKeys(r.App.Params) {
		if v := r.App.Params[k]; cluster.Secret(k) && len(v) > 3 {
			redact = append(redact, v)
		}
	}
	return x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: c.action, Path: path, Args: args,
		Env: x.environment(r, a, c, limit), Timeout: limit, Keep: c.keep, Unrecorded: c.unrecorded, Redact: redact}), nil
}

// environment is what the resource agent API describes, with the names that scripts find as well.
func (x *Applications) environment(r executor.Resource, a *agent, c call, limit time.Duration) []string {
	interval := time.Duration(0)
	if c.watching {
		interval = watchInterval
	}
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	env := append(script.Environment(x.run.Node(), r),
		"OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE="+r.Name, "OCF_RESOURCE_TYPE="+a.name.Type, "OCF_RESOURCE_PROVIDER="+a.name.Provider,
		"OCF_CHECK_LEVEL="+strconv.Itoa(c.depth),
		"OCF_RESKEY_CRM_meta_name="+c.action, "OCF_RESKEY_CRM_meta_timeout="+ms(limit), "OCF_RESKEY_CRM_meta_interval="+ms(interval),
		"OCF_RESKEY_CRM_meta_on_node="+x.run.Node())
	for _, k := range sortedKeys(r.App.Params) {
		env = append(env, "OCF_RESKEY_"+k+"="+r.App.Params[k])
	}
	return append(env, a.env...)
}

// limit is how long one action may take: what the definition says, else the agent, else DefaultTimeout.
func (x *Applications) limit(r executor.Resource, a *agent, action string, depth int) time.Duration {
	switch {
	case action == "start" && r.App.StartTimeout > 0:
		return r.App.StartTimeout
	case action == "stop" && r.App.StopTimeout > 0:
		return r.App.StopTimeout
	}
	if d := a.meta.Timeout(action, depth); d > 0 {
		return min(d, maxTimeout)
	}
	return DefaultTimeout
}

// Limit is how long an operation may take with all that it asks of the agent.
func (x *Applications) Limit(ctx context.Context, r executor.Resource, op string) time.Duration {
	if r.App == nil {
		return 0
	}
	a, err := x.from.find(ctx, r)
	if err != nil {
		return 0
	}
	look := x.limit(r, a, "monitor", 0)
	switch op {
	case executor.OpStart: // one that is half there is stopped first
		return x.limit(r, a, "start", 0) + x.limit(r, a, "stop", 0) + 3*look
	case executor.OpStop:
		return x.limit(r, a, "stop", 0) + 2*look
	}
	return look
}

// Probe asks the agent's monitor.
func (x *Applications) Probe(ctx context.Context, r executor.Resource) executor.Result {
	return x.look(ctx, r, call{action: "monitor", unrecorded: true})
}

// Monitor asks the agent's monitor as a recurring one, at a depth.
func (x *Applications) Monitor(ctx context.Context, r executor.Resource, depth int) executor.Result {
	return x.look(ctx, r, call{action: "monitor", depth: depth, watching: true, unrecorded: true})
}

func (x *Applications) look(ctx context.Context, r executor.Resource, c call) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return unknown(err)
	}
	defer release()
	if err := x.quiet(r); err != nil {
		return unknown(err)
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	return x.ask(ctx, r, rec, c)
}

// quiet says why nothing can be done with or said of the resource: an action of this or an earlier daemon is at work on it.
func (x *Applications) quiet(r executor.Resource) error {
	s := executor.ScopeOf(r)
	if err := x.run.Blocked(s); err != nil {
		return err
	}
	if at := x.run.Unfinished(s); len(at) > 0 {
		return fmt.Errorf("%s of application %s has not ended", at[0].Op, r.Name)
	}
	return nil
}

// ask calls the agent's monitor and says what its answer amounts to.
func (x *Applications) ask(ctx context.Context, r executor.Resource, rec executor.AppRecord, c call) executor.Result {
	alive, err := x.run.Alive(executor.ScopeOf(r))
	if err != nil {
		return unknown(fmt.Errorf("look for the processes of application %s: %w", r.Name, err))
	}
	a, err := x.from.find(ctx, r)
	if err != nil {
		if errors.Is(err, errNotInstalled) && !alive && rec.State == "" {
			return executor.Result{Status: executor.Stopped, Detail: fmt.Sprintf("application %s: %v; it was not started here since the boot, and no process "+
				"of it lives", r.Name, err)}
		}
		return unknown(fmt.Errorf("application %s: %w", r.Name, err))
	}
	o, err := x.act(ctx, r, a, c)
	if err != nil {
		return unknown(err)
	}
	return judge(r.Name, a.name.String(), rec, alive, o)
}

// judge maps the end of a monitor. What an agent cannot see because it, its program or its configuration is not here (they may
// lie on a file system of the group that is mounted elsewhere) is stopped if nothing of it was started here since the boot, or
// its stop has succeeded since, and no process of it lives: as Pacemaker's probes have it.
func judge(name, agent string, rec executor.AppRecord, alive bool, o executor.Outcome) executor.Result {
	say := func(s executor.Status, format string, args ...any) executor.Result {
		return executor.Result{Status: s, Detail: fmt.Sprintf("application %s (%s) ", name, agent) + fmt.Sprintf(format, args...)}
	}
	why := explain("monitor", o)
	if !o.Executed || o.Exit < 0 || errors.Is(o.Err, executor.ErrTimeout) {
		return unknown(fmt.Errorf("application %s (%s) cannot be seen: %w", name, agent, why))
	}
	switch o.Exit {
	case exitSuccess:
		return say(executor.Running, "runs, by its agent's monitor")
	case exitDegraded:
		return say(executor.Running, "runs, and its agent says that it is likely to fail: %q", o.LastLine())
	case exitNotRunning:
		if alive {
			return say(executor.Degraded, "does not run by its agent's monitor, but processes that it started live")
		}
		return say(executor.Stopped, "does not run, by its agent's monitor")
	case exitGeneric:
		return say(executor.Degraded, "is there and not well: %v", why)
	case exitPromoted, exitFailedPromoted, exitDegradedPromoted:
		return say(executor.Degraded, "was promoted by somebody: %v; Holdfast runs it unpromoted", why)
	case exitInstalled, exitConfigured:
		if rec.State == "" && !alive {
			return say(executor.Stopped, "does not run: %v; it was not started here since the boot or has been stopped since, and no process of it lives", why)
		}
	}
	return unknown(fmt.Errorf("application %s (%s) cannot be seen: %w", name, agent, why))
}

// Start starts the application, unless its monitor says that it runs. One that is half there is stopped first. After the start
// the monitor must say that it runs.
func (x *Applications) Start(ctx context.Context, r executor.Resource) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return unknown(err)
	}
	defer release()
	if err := x.quiet(r); err != nil {
		return unknown(fmt.Errorf("application %s is not started: %w", r.Name, err))
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	before := x.ask(ctx, r, rec, call{action: "monitor", unrecorded: true})
	switch before.Status {
	case executor.Running:
		return before
	case executor.Degraded:
		if res := x.stop(ctx, r, rec, true); res.Err != nil {
			return executor.Result{Status: res.Status, Detail: before.Detail + "; " + res.Detail,
				Err: fmt.Errorf("application %s was half there and could not be stopped before its start: %w", r.Name, res.Err)}
		}
		rec = executor.AppRecord{}
	case executor.Stopped:
	default:
		return before
	}
	a, err := x.fit(ctx, r)
	if err != nil {
		return executor.Result{Status: executor.Stopped, Detail: err.Error(), Err: err} // as the monitor has just said
	}
	return x.start(ctx, r, a, rec, call{action: "start", keep: true})
}

func (x *Applications) start(ctx context.Context, r executor.Resource, a *agent, before executor.AppRecord, c call) executor.Result {
	if err := x.records.Save(r, executor.AppRecord{State: executor.AppStarting}); err != nil {
		return unknown(err)
	}
	o, err := x.act(ctx, r, a, c)
	if err != nil {
		return unknown(errors.Join(err, x.records.Save(r, before)))
	}
	return x.started(ctx, r, a, before, o)
}

// started notes how a start ended.
func (x *Applications) started(ctx context.Context, r executor.Resource, a *agent, before executor.AppRecord, o executor.Outcome) executor.Result {
	switch {
	case o.Err != nil && !o.Executed: // nothing has changed
		err := errors.Join(fmt.Errorf("start application %s (%s): %w", r.Name, a.name, o.Err), x.records.Save(r, before))
		return unknown(err)
	case o.Err != nil:
		err := errors.Join(fmt.Errorf("start application %s (%s): %w", r.Name, a.name, explain("start", o)), x.records.Save(r, executor.AppRecord{State: executor.AppFailed}))
		return unknown(err)
	}
	seen := x.ask(ctx, r, executor.AppRecord{State: executor.AppStarted}, call{action: "monitor", watching: true, unrecorded: true})
	if seen.Status != executor.Running {
		err := fmt.Errorf("the start of application %s (%s) ended with 0, but: %s", r.Name, a.name, seen.Detail)
		err = errors.Join(err, x.records.Save(r, executor.AppRecord{State: executor.AppFailed}))
		if seen.Status == executor.Stopped {
			seen.Status = executor.Unknown // it is stopped when its stop has run
		}
		return executor.Result{Status: seen.Status, Detail: err.Error(), Err: err}
	}
	if err := x.records.Save(r, executor.AppRecord{State: executor.AppStarted}); err != nil {
		return unknown(err)
	}
	return executor.Result{Status: executor.Running, Detail: fmt.Sprintf("application %s (%s) was started in %s, and its agent's monitor says that it runs",
		r.Name, a.name, o.Duration.Round(time.Millisecond))}
}

// Stop stops the application, unless it is seen to be stopped and was not started since its last stop. After the stop the
// monitor must say that it does not run, and no process of it may live.
func (x *Applications) Stop(ctx context.Context, r executor.Resource) executor.Result {
	if r.App == nil {
		return unknown(errMissing)
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return unknown(err)
	}
	defer release()
	if err := x.quiet(r); err != nil {
		return unknown(fmt.Errorf("application %s is not stopped: %w", r.Name, err))
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return unknown(err)
	}
	return x.stop(ctx, r, rec, false)
}

// stop runs the agent's stop; anyway: even if the monitor says that nothing is there.
func (x *Applications) stop(ctx context.Context, r executor.Resource, rec executor.AppRecord, anyway bool) executor.Result {
	look := call{action: "monitor", unrecorded: true}
	if rec.State == "" && !anyway {
		if res := x.ask(ctx, r, rec, look); res.Status == executor.Stopped {
			return res
		}
	}
	a, err := x.from.find(ctx, r)
	if err != nil {
		return unknown(fmt.Errorf("stop application %s: %w", r.Name, err))
	}
	o, err := x.act(ctx, r, a, call{action: "stop"})
	if err != nil {
		return unknown(err)
	}
	// An agent that could not start anything for want of a program or a configuration often cannot stop it either, and says so.
	vain := o.Executed && (o.Exit == exitInstalled || o.Exit == exitConfigured) && rec.State != executor.AppStarted
	if o.Err != nil && !vain {
		err := fmt.Errorf("stop application %s (%s): %w", r.Name, a.name, explain("stop", o))
		res := x.ask(context.WithoutCancel(ctx), r, executor.AppRecord{State: executor.AppStarted}, look)
		if res.Status == executor.Stopped { // its stop says otherwise
			res.Status = executor.Unknown
		}
		return executor.Result{Status: res.Status, Detail: err.Error() + "; " + res.Detail, Err: err}
	}
	if err := x.run.EndScope(context.WithoutCancel(ctx), executor.ScopeOf(r), 0, 0); err != nil {
		return unknown(fmt.Errorf("the stop of application %s ended with 0, but: %w", r.Name, err))
	}
	// The stop has succeeded, so an agent that can see nothing any more is believed.
	res := x.ask(context.WithoutCancel(ctx), r, executor.AppRecord{}, look)
	if res.Status != executor.Stopped {
		res.Err = fmt.Errorf("the stop of application %s (%s) ended with 0, but: %s", r.Name, a.name, res.Detail)
		return res
	}
	if err := x.records.Save(r, executor.AppRecord{}); err != nil {
		return unknown(err)
	}
	if vain {
		return res
	}
	res.Detail = fmt.Sprintf("application %s (%s) was stopped in %s, and its agent's monitor says that it does not run", r.Name, a.name,
		o.Duration.Round(time.Millisecond))
	return res
}

// Cleanup stops the application before it is started again on the same node. The administrator's method, if there is one, runs
// before the agent's stop.
func (x *Applications) Cleanup(ctx context.Context, r executor.Resource, method string) error {
	if method != "" {
		o := x.run.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: "cleanup", Path: method, Env: script.Environment(x.run.Node(), r),
			Timeout: x.Limit(ctx, r, executor.OpStop)})
		if o.Err != nil { // the stop says whether it mattered
			x.log.Warn("the cleanup of a failed application did not succeed", "application", r.Name, "cause", o.Err.Error())
		}
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	if err := x.quiet(r); err != nil {
		return err
	}
	rec, err := x.records.Load(r)
	if err != nil {
		return err
	}
	return x.stop(ctx, r, rec, true).Err
}

// Restart starts the application again on this node after Cleanup, by its agent or the method given instead.
func (x *Applications) Restart(ctx context.Context, r executor.Resource, method string) error {
	if method == "" {
		return x.Start(ctx, r).Err
	}
	release, err := x.hold(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	a, err := x.fit(ctx, r)
	if err != nil {
		return err
	}
	by := *a
	by.command = func(string) (string, []string, bool) { return method, nil, true }
	if err := x.records.Save(r, executor.AppRecord{State: executor.AppStarting}); err != nil {
		return err
	}
	o, err := x.act(ctx, r, &by, call{action: "start", keep: true})
	if err != nil {
		return err
	}
	return x.started(ctx, r, a, executor.AppRecord{}, o).Err
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}
