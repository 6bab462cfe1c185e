// Package systemd is the executor of applications that are units of systemd.
//
// It asks and tells systemd by systemctl(1), and believes nothing but what `systemctl show` says afterwards: a start or stop
// that ended with 0 is looked at. While a unit is started by the cluster, a drop-in of ours keeps systemd from restarting it by
// itself. It does not promise that the unit's own idea of being active (a service of type simple is active when it was forked)
// is that of its clients: that is a monitor's.
package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultTimeout is for a unit that says nothing, or that may take for ever.
const DefaultTimeout = 100 * time.Second

const (
	askTimeout = 10 * time.Second
	slack      = 5 * time.Second // beyond the unit's own timeout: systemd is to end it, not we
	dropIn     = "50-holdfast.conf"
)

// The drop-in's text. The order makes systemd, when the machine is shut down, end the cluster's services first, which stop the
// unit in the group's order.
const (
	orderText   = "# Made by holdfast while the cluster runs this unit.\n[Unit]\nBefore=holdfast.service holdfast-services.service\n"
	restartText = "[Service]\nRestart=no\n"
)

// Options configure the executor.
type Options struct {
	Runner    *executor.Runner // required
	Systemctl string           // default: /usr/bin/systemctl or /bin/systemctl
	Runtime   string           // where drop-ins are written; default /run/systemd/system
	Cgroups   string           // where the cgroup hierarchy is mounted; default /sys/fs/cgroup
	Logger    *slog.Logger
}

// Units is the executor of systemd units.
type Units struct {
	o   Options
	log *slog.Logger
}

var (
	_ executor.Executor  = (*Units)(nil)
	_ executor.Restarter = (*Units)(nil)
	_ executor.Timed     = (*Units)(nil)
)

// New makes the executor of systemd units.
func New(o Options) *Units {
	if o.Systemctl == "" {
		o.Systemctl = "/usr/bin/systemctl"
		if _, err := os.Stat(o.Systemctl); err != nil {
			o.Systemctl = "/bin/systemctl"
		}
	}
	if o.Runtime == "" {
		o.Runtime = "/run/systemd/system"
	}
	if o.Cgroups == "" {
		o.Cgroups = "/sys/fs/cgroup"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Units{o: o, log: o.Logger.With("component", "systemd unit")}
}

// Kind is that of systemd units.
func (x *Units) Kind() executor.Kind { return executor.KindSystemd }

// A unit is what systemd says of one.
type unit struct {
	name        string
	load, error string // LoadState, LoadError
	active, sub string
	file        string // UnitFileState
	result      string
	cgroup      string
	outdated    bool          // its files are not what systemd has loaded
	start, stop time.Duration // its own timeouts; 0: none, or for ever
}

var errMissing = errors.New("the resource has no application: this is a fault of the caller")

func unitOf(r executor.Resource) (string, error) {
	if r.App == nil {
		return "", errMissing
	}
	n, err := cluster.ParseAgent(r.App.Agent)
	if err != nil {
		return "", err
	}
	if n.Class != cluster.AgentSystemd {
		return "", fmt.Errorf("%s is no systemd unit: this is a fault of the caller", n)
	}
	return n.Type, nil
}

// show asks systemd for the unit.
func (x *Units) show(ctx context.Context, r executor.Resource) (unit, error) {
	name, err := unitOf(r)
	if err != nil {
		return unit{}, err
	}
	u := unit{name: name}
	o := x.systemctl(ctx, r, "show", askTimeout, "--property=LoadState,LoadError,ActiveState,SubState,UnitFileState,Result,ControlGroup,NeedDaemonReload,TimeoutStartUSec,TimeoutStopUSec", name)
	if o.Err != nil {
		return u, fmt.Errorf("ask systemd for unit %s: %w", name, o.Err)
	}
	for s := bufio.NewScanner(strings.NewReader(o.Output)); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), "=")
		switch key {
		case "LoadState":
			u.load = value
		case "LoadError":
			u.error = value
		case "ActiveState":
			u.active = value
		case "SubState":
			u.sub = value
		case "UnitFileState":
			u.file = value
		case "Result":
			u.result = value
		case "ControlGroup":
			u.cgroup = value
		case "NeedDaemonReload":
			u.outdated = value == "yes"
		case "TimeoutStartUSec":
			u.start = parseSpan(value)
		case "TimeoutStopUSec":
			u.stop = parseSpan(value)
		}
	}
	if u.load == "" || u.active == "" {
		return u, fmt.Errorf("ask systemd for unit %s: its answer has no LoadState or no ActiveState (%q)", name, o.LastLine())
	}
	return u, nil
}

func (x *Units) systemctl(ctx context.Context, r executor.Resource, op string, limit time.Duration, args ...string) executor.Outcome {
	return x.o.Runner.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: op, Path: x.o.Systemctl,
		Args: append([]string{"--no-pager", "--no-ask-password", op}, args...), Timeout: limit, Trusted: true, Unrecorded: op == "show",
		Env: []string{"SYSTEMD_PAGER="}})
}

// parseSpan reads a time as systemd prints it: "1min 30s". 0: it cannot be read, or is infinity.
func parseSpan(s string) time.Duration {
	units := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour,
		"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	var sum time.Duration
	for word := range strings.FieldsSeq(s) {
		number := strings.TrimRight(word, "abcdefghijklmnopqrstuvwxyz")
		f, err := strconv.ParseFloat(number, 64)
		unit, ok := units[word[len(number):]]
		if err != nil || !ok || f < 0 || f > 1e6 {
			return 0
		}
		sum += time.Duration(f * float64(unit))
	}
	return sum
}

// Validate checks that systemd knows the unit and does not start it by itself.
func (x *Units) Validate(ctx context.Context, r executor.Resource) error {
	u, err := x.show(ctx, r)
	if err != nil {
		return fmt.Errorf("application %s: %w", r.Name, err)
	}
	switch u.load {
	case "loaded":
	case "not-found":
		return fmt.Errorf("application %s: systemd knows no unit %s; install it on this node", r.Name, u.name)
	case "masked":
		return fmt.Errorf("application %s: the unit %s is masked; fix: systemctl unmask %s", r.Name, u.name, u.name)
	default:
		return fmt.Errorf("application %s: systemd cannot load the unit %s (%s): %s", r.Name, u.name, u.load, u.error)
	}
	switch u.file {
	case "enabled", "enabled-runtime":
		return fmt.Errorf("application %s: systemd starts the unit %s at boot, whoever has the group; fix: systemctl disable %s", r.Name, u.name, u.name)
	}
	return nil
}

// Limit is what the definition says, else the unit, and a while for looking.
func (x *Units) Limit(ctx context.Context, r executor.Resource, op string) time.Duration {
	if op == executor.OpProbe {
		return 0
	}
	u, err := x.show(ctx, r)
	if err != nil {
		return 0
	}
	start, stop := limits(r, u)
	if op == executor.OpStart {
		return start + stop + 2*askTimeout
	}
	return stop + 2*askTimeout
}

func limits(r executor.Resource, u unit) (start, stop time.Duration) {
	or := func(set, own time.Duration) time.Duration {
		switch {
		case set > 0:
			return set
		case own > 0:
			return own + slack
		}
		return DefaultTimeout
	}
	return or(r.App.StartTimeout, u.start), or(r.App.StopTimeout, u.stop)
}

// Probe asks systemd.
func (x *Units) Probe(ctx context.Context, r executor.Resource) executor.Result {
	u, err := x.show(ctx, r)
	if err != nil {
		return unknown(fmt.Errorf("application %s: %w", r.Name, err))
	}
	return x.judge(r, u)
}

func (x *Units) judge(r executor.Resource, u unit) executor.Result {
	say := func(s executor.Status, format string, args ...any) executor.Result {
		return executor.Result{Status: s, Detail: fmt.Sprintf("application %s: unit %s ", r.Name, u.name) + fmt.Sprintf(format, args...)}
	}
	switch u.active {
	case "active", "reloading", "refreshing":
		return say(executor.Running, "is %s (%s)", u.active, u.sub)
	case "inactive", "failed":
		if populated(x.o.Cgroups, u.cgroup) {
			return say(executor.Degraded, "is %s, but processes of it live in %s", u.active, u.cgroup)
		}
		switch {
		case u.load == "not-found":
			return say(executor.Stopped, "does not run: systemd knows no such unit")
		case u.active == "failed":
			return say(executor.Stopped, "does not run: it has failed (%s)", u.result)
		}
		return say(executor.Stopped, "is inactive")
	case "activating", "deactivating", "maintenance":
		return say(executor.Degraded, "is %s (%s)", u.active, u.sub)
	}
	return unknown(fmt.Errorf("application %s: unit %s is in the state %q, which is not known here", r.Name, u.name, u.active))
}

// populated reports whether a process lives in a cgroup. What is not there, and systemd removes what is empty, has none.
func populated(root, cgroup string) bool {
	if cgroup == "" || cgroup == "/" {
		return false
	}
	for _, dir := range []string{root, filepath.Join(root, "systemd"), filepath.Join(root, "unified")} {
		text, err := os.ReadFile(filepath.Join(dir, filepath.Clean("/"+cgroup), "cgroup.procs"))
		if err == nil && len(strings.TrimSpace(string(text))) > 0 {
			return true
		}
	}
	return false
}

// Start starts the unit, unless it is active, and looks whether it is then.
func (x *Units) Start(ctx context.Context, r executor.Resource) executor.Result {
	u, err := x.show(ctx, r)
	if err == nil {
		err = x.o.Runner.Blocked(executor.ScopeOf(r))
	}
	if err != nil {
		return unknown(fmt.Errorf("application %s is not started: %w", r.Name, err))
	}
	if res := x.judge(r, u); res.Status == executor.Running {
		return res
	}
	if err := x.Validate(ctx, r); err != nil {
		res := x.judge(r, u)
		res.Err, res.Detail = err, err.Error()
		return res
	}
	if err := x.takeOver(ctx, r, u.name); err != nil {
		x.log.Warn("systemd may restart a unit by itself", "unit", u.name, "cause", err.Error())
	}
	start, _ := limits(r, u)
	if u.active == "failed" { // or it may have been started too often lately
		x.systemctl(ctx, r, "reset-failed", askTimeout, u.name)
	}
	o := x.systemctl(ctx, r, "start", start, u.name)
	res := x.Probe(context.WithoutCancel(ctx), r)
	switch {
	case o.Err != nil:
		// Whatever it is now, systemd may still have a job for it: only a stop makes it certain.
		err := fmt.Errorf("start application %s: %w", r.Name, o.Err)
		if o.Executed && res.Status == executor.Stopped && o.Exit < 0 {
			res.Status = executor.Unknown
		}
		return executor.Result{Status: res.Status, Detail: err.Error() + "; " + res.Detail, Err: err}
	case res.Status != executor.Running:
		res.Err = fmt.Errorf("application %s: systemctl start ended with 0, but: %s", r.Name, res.Detail)
		return res
	}
	res.Detail += fmt.Sprintf(", started in %s", o.Duration.Round(time.Millisecond))
	return res
}

// Stop stops the unit, unless it is inactive, and looks whether it is then.
func (x *Units) Stop(ctx context.Context, r executor.Resource) executor.Result {
	u, err := x.show(ctx, r)
	if err == nil {
		err = x.o.Runner.Blocked(executor.ScopeOf(r))
	}
	if err != nil {
		return unknown(fmt.Errorf("application %s is not stopped: %w", r.Name, err))
	}
	if res := x.judge(r, u); res.Status == executor.Stopped && u.active != "failed" && !x.taken(u.name) {
		return res
	}
	_, limit := limits(r, u)
	o := x.systemctl(ctx, r, "stop", limit, u.name)
	res := x.Probe(context.WithoutCancel(ctx), r)
	switch {
	case o.Err != nil && !(u.load == "not-found" && res.Status == executor.Stopped):
		err := fmt.Errorf("stop application %s: %w", r.Name, o.Err)
		if res.Status == executor.Stopped {
			res.Status = executor.Unknown
		}
		return executor.Result{Status: res.Status, Detail: err.Error() + "; " + res.Detail, Err: err}
	case res.Status != executor.Stopped:
		res.Err = fmt.Errorf("application %s: systemctl stop ended with 0, but: %s", r.Name, res.Detail)
		return res
	}
	if err := x.giveBack(context.WithoutCancel(ctx), r, u.name); err != nil {
		x.log.Warn("the drop-in of a stopped unit stays behind", "unit", u.name, "cause", err.Error())
	}
	res.Detail += fmt.Sprintf(", stopped in %s", o.Duration.Round(time.Millisecond))
	return res
}

func (x *Units) dropInDir(name string) string { return filepath.Join(x.o.Runtime, name+".d") }

func (x *Units) taken(name string) bool {
	_, err := os.Lstat(filepath.Join(x.dropInDir(name), dropIn))
	return err == nil
}

// takeOver keeps systemd from restarting the unit by itself.
func (x *Units) takeOver(ctx context.Context, r executor.Resource, name string) error {
	text := orderText
	if strings.HasSuffix(name, ".service") {
		text += restartText
	}
	path := filepath.Join(x.dropInDir(name), dropIn)
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make a drop-in: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // systemd warns of units that not everybody can read
		return fmt.Errorf("make a drop-in: %w", err)
	}
	return x.reload(ctx, r)
}

// reload makes systemd read the unit's files again, where it has not done so by itself: it forgets an inactive unit that nobody
// refers to. A reload reads all units of the machine, and takes its time.
func (x *Units) reload(ctx context.Context, r executor.Resource) error {
	if u, err := x.show(ctx, r); err != nil || !u.outdated {
		return err
	}
	return x.systemctl(ctx, r, "daemon-reload", askTimeout*3).Err
}

func (x *Units) giveBack(ctx context.Context, r executor.Resource, name string) error {
	if !x.taken(name) {
		return nil
	}
	if err := os.Remove(filepath.Join(x.dropInDir(name), dropIn)); err != nil {
		return fmt.Errorf("remove the drop-in: %w", err)
	}
	_ = os.Remove(x.dropInDir(name)) // if nobody else has one there
	return x.reload(ctx, r)
}

// Cleanup stops the unit before it is started again on the same node; the administrator's method runs before.
func (x *Units) Cleanup(ctx context.Context, r executor.Resource, method string) error {
	if method != "" {
		if err := x.method(ctx, r, "cleanup", method); err != nil {
			x.log.Warn("the cleanup of a failed application did not succeed", "application", r.Name, "cause", err.Error())
		}
	}
	return x.Stop(ctx, r).Err
}

// Restart starts the unit again after Cleanup, after the method if there is one.
func (x *Units) Restart(ctx context.Context, r executor.Resource, method string) error {
	if method != "" {
		if err := x.method(ctx, r, "restart", method); err != nil {
			return err
		}
	}
	return x.Start(ctx, r).Err
}

func (x *Units) method(ctx context.Context, r executor.Resource, op, path string) error {
	return x.o.Runner.Run(ctx, executor.Command{Scope: executor.ScopeOf(r), Op: op, Path: path, Timeout: DefaultTimeout,
		Env: []string{"HOLDFAST_GROUP=" + r.Group, "HOLDFAST_NODE=" + x.o.Runner.Node(), "HOLDFAST_RESOURCE=" + r.Name}}).Err
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}
