package aix

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Subsystems is the executor of applications that the System Resource Controller runs ("src:NAME"). startsrc and stopsrc only
// ask; this executor waits until lssrc shows the effect.
type Subsystems struct{ sys *System }

var _ executor.Executor = (*Subsystems)(nil)

// Subsystems makes the executor of SRC subsystems.
func (s *System) Subsystems() *Subsystems { return &Subsystems{s} }

// Kind is that of SRC subsystems.
func (x *Subsystems) Kind() executor.Kind { return executor.KindSubsystem }

const (
	idNotOnFile     = "0513-085"
	idAlreadyActive = "0513-029"
	idInoperative   = "0513-004"
	idRequestedStop = "0513-044" // also: is currently inoperative
)

// srcPoll is how often lssrc is asked while a subsystem starts or stops.
const srcPoll = 100 * time.Millisecond

func nameOf(r executor.Resource) (string, error) {
	if r.App == nil {
		return "", errMissing("application")
	}
	name, ok := strings.CutPrefix(r.App.Agent, cluster.AgentSRC)
	if !ok || name == "" {
		return "", fmt.Errorf("application %s names no subsystem (agent: src:NAME)", r.Name)
	}
	return name, nil
}

// Validate checks that the subsystem is on file.
func (x *Subsystems) Validate(ctx context.Context, r executor.Resource) error {
	name, err := nameOf(r)
	if err != nil {
		return err
	}
	if err := x.sys.need("lssrc", "startsrc", "stopsrc"); err != nil {
		return err
	}
	switch o := x.sys.ask(ctx, r, "lssrc", "-s", name); {
	case has(o, idNotOnFile):
		return fmt.Errorf("subsystem %s of application %s is not on file on this node: define it with mkssys", name, r.Name)
	case o.Err != nil:
		return fmt.Errorf("ask for subsystem %s of application %s: %w", name, r.Name, failed(o))
	}
	return nil
}

// Probe asks lssrc. Only an explicit "inoperative" or "not on file" is Stopped; no answer is Unknown.
func (x *Subsystems) Probe(ctx context.Context, r executor.Resource) executor.Result {
	name, err := nameOf(r)
	if err == nil {
		err = x.sys.atWork(r)
	}
	if err != nil {
		return unknown(err)
	}
	o := x.sys.ask(ctx, r, "lssrc", "-s", name)
	if has(o, idNotOnFile) {
		return say(executor.Stopped, "subsystem %s is not on file on this node", name)
	}
	if o.Err != nil {
		return unknown(fmt.Errorf("ask for subsystem %s: %w", name, failed(o)))
	}
	return judge(name, parseLssrc(o.Output))
}

// judge reads the rows of one subsystem. After a change of its definition there may be two, one of them inoperative.
func judge(name string, rows []subsystem) executor.Result {
	found := subsystem{}
	for _, s := range rows {
		if s.name == name && (found.name == "" || found.status == "inoperative") {
			found = s
		}
	}
	switch found.status {
	case "":
		return unknown(fmt.Errorf("lssrc does not say how subsystem %s is", name))
	case "active":
		return say(executor.Running, "subsystem %s is active, process %d", name, found.pid)
	case "inoperative":
		return say(executor.Stopped, "subsystem %s is inoperative", name)
	}
	return say(executor.Degraded, "subsystem %s is %s", name, found.status)
}

// Start asks SRC to start the subsystem and waits until it is active.
func (x *Subsystems) Start(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Running || before.Status == executor.Unknown {
		return before
	}
	name, _ := nameOf(r) // the probe has read it
	limit := r.App.StartTimeout
	def(&limit, DefaultStartTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if before.Status == executor.Degraded { // it may be on its way down
		if res := x.await(ctx, r, executor.Stopped); res.Status != executor.Stopped {
			return because(res, fmt.Errorf("start subsystem %s: %s, and does not become inoperative", name, res.Detail))
		}
	}
	args := append([]string{"-s", name}, startArguments(r)...)
	o := x.sys.do(ctx, r, "startsrc", "startsrc", args...)
	if o.Err != nil && !has(o, idAlreadyActive) {
		return because(x.look(ctx, r), fmt.Errorf("start subsystem %s: %w", name, failed(o)))
	}
	res := x.await(ctx, r, executor.Running)
	if res.Status != executor.Running {
		return because(res, fmt.Errorf("start subsystem %s: SRC took the request, but %s", name, res.Detail))
	}
	return res
}

// startArguments are appended to the subsystem's own by startsrc -a.
func startArguments(r executor.Resource) []string {
	if len(r.App.StartArgs) == 0 {
		return nil
	}
	return []string{"-a", strings.Join(r.App.StartArgs, " ")}
}

// await looks until the subsystem is so, or no longer on its way, or the context ends.
func (x *Subsystems) await(ctx context.Context, r executor.Resource, want executor.Status) executor.Result {
	for {
		res := x.Probe(ctx, r)
		if res.Status == want || res.Status == executor.Stopped || !sleep(ctx, srcPoll) {
			return x.lastLook(ctx, r, res)
		}
	}
}

// lastLook replaces what a probe of an ended context says.
func (x *Subsystems) lastLook(ctx context.Context, r executor.Resource, res executor.Result) executor.Result {
	if ctx.Err() == nil {
		return res
	}
	return x.look(ctx, r)
}

// look probes although the context may have ended.
func (x *Subsystems) look(ctx context.Context, r executor.Resource) executor.Result {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.sys.o.QueryTimeout)
	defer cancel()
	return x.Probe(ctx, r)
}

// Stop asks SRC to stop the subsystem, and when three quarters of the time are over to cancel it, which ends in SIGKILL.
func (x *Subsystems) Stop(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Stopped || before.Status == executor.Unknown {
		return before
	}
	name, _ := nameOf(r)
	limit := r.App.StopTimeout
	def(&limit, DefaultStopTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	orderly, cancel := context.WithTimeout(ctx, limit*3/4)
	defer cancel()
	o := x.sys.do(orderly, r, "stopsrc", "stopsrc", "-s", name)
	var err error
	if o.Err != nil && !has(o, idInoperative) && !has(o, idRequestedStop) {
		err = fmt.Errorf("stop subsystem %s: %w", name, failed(o))
	}
	res := x.awaitStopped(orderly, r)
	if res.Status == executor.Stopped || ctx.Err() != nil || errors.Is(res.Err, executor.ErrStuck) {
		return x.ended(name, res, err)
	}
	x.sys.log.Warn("a subsystem does not stop and is cancelled", "subsystem", name)
	if o := x.sys.do(ctx, r, "stopsrc", "stopsrc", "-c", "-s", name); o.Err != nil && !has(o, idRequestedStop) {
		err = errors.Join(err, fmt.Errorf("cancel subsystem %s: %w", name, failed(o)))
	}
	return x.ended(name, x.awaitStopped(ctx, r), err)
}

func (x *Subsystems) awaitStopped(ctx context.Context, r executor.Resource) executor.Result {
	for {
		res := x.Probe(ctx, r)
		if res.Status == executor.Stopped || !sleep(ctx, srcPoll) {
			return x.lastLook(ctx, r, res)
		}
	}
}

func (x *Subsystems) ended(name string, res executor.Result, err error) executor.Result {
	if res.Status == executor.Stopped {
		return res
	}
	return because(res, errors.Join(err, fmt.Errorf("subsystem %s does not stop: %s", name, res.Detail)))
}
