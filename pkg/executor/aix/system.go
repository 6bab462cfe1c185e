package aix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Defaults of Options.
const (
	DefaultQueryTimeout   = 10 * time.Second // for a command that only looks
	DefaultLockTimeout    = 5 * time.Second  // how long a volume group's lock is waited for before its owner is looked for
	DefaultProbeWait      = 50 * time.Millisecond
	DefaultUnmountTimeout = 10 * time.Second
	DefaultStartTimeout   = 60 * time.Second // of a subsystem
	DefaultStopTimeout    = 60 * time.Second
	DefaultWatchEvery     = 2 * time.Second // between two looks at the interfaces
)

// commandDirs are where AIX has its commands.
var commandDirs = []string{"/usr/sbin", "/usr/bin", "/etc", "/sbin", "/usr/lib/ras"}

// Options configure the executors. Runner is required.
type Options struct {
	Runner *executor.Runner
	// CommandDir is the only directory in which commands are looked for; empty: where AIX has them.
	CommandDir   string
	QueryTimeout time.Duration
	LockTimeout  time.Duration
	// ProbeWait is how long a stranger on the network has to show that an address is his; negative: addresses are taken without
	// looking.
	ProbeWait  time.Duration
	WatchEvery time.Duration
	// Poke makes the system look for a neighbour, by sending something to its address; nil: an empty UDP datagram.
	Poke   func(netip.Addr)
	Logger *slog.Logger
}

// A System runs AIX's commands for all executors of this package. Its methods may be called by any goroutine.
type System struct {
	o   Options
	log *slog.Logger
}

// New makes a System.
func New(o Options) *System {
	def(&o.QueryTimeout, DefaultQueryTimeout)
	def(&o.LockTimeout, DefaultLockTimeout)
	def(&o.ProbeWait, DefaultProbeWait)
	def(&o.WatchEvery, DefaultWatchEvery)
	if o.Poke == nil {
		o.Poke = poke
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &System{o: o, log: o.Logger.With("component", "aix")}
}

func def(p *time.Duration, v time.Duration) {
	if *p == 0 {
		*p = v
	}
}

// Executors lists the executors of this package, all kinds that it has.
func (s *System) Executors() []executor.Executor {
	return []executor.Executor{s.ServiceIP(), s.PersistentIP(), s.VolumeGroups(), s.FileSystems(), s.Exports(), s.Subsystems()}
}

// poke sends an empty datagram to the discard port.
func poke(a netip.Addr) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return
	}
	_, _ = c.Write([]byte{0})
	_ = c.Close()
}

// find looks a command up.
func (s *System) find(name string) (string, error) {
	dirs := commandDirs
	if s.o.CommandDir != "" {
		dirs = []string{s.o.CommandDir}
	}
	for _, d := range dirs {
		path := filepath.Join(d, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("the command %s is not in %s on this node", name, strings.Join(dirs, ", "))
}

// need checks that commands are there.
func (s *System) need(names ...string) error {
	var errs []error
	for _, n := range names {
		if _, err := s.find(n); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A step is one command of one resource.
type step struct {
	r       executor.Resource
	op      string
	timeout time.Duration // 0: the context's
	look    bool          // it changes nothing
	command string
	args    []string
}

func (s *System) run(ctx context.Context, st step) executor.Outcome {
	path, err := s.find(st.command)
	if err != nil {
		return executor.Outcome{Exit: -1, Err: err}
	}
	return s.o.Runner.Run(ctx, executor.Command{Scope: executor.ScopeOf(st.r), Op: st.op, Path: path, Args: st.args, Trusted: true,
		Unrecorded: st.look, Timeout: st.timeout, Env: []string{"LANG=C", "PATH=/usr/bin:/etc:/usr/sbin:/usr/ucb:/sbin:/bin"}})
}

// ask runs a command that changes nothing.
func (s *System) ask(ctx context.Context, r executor.Resource, command string, args ...string) executor.Outcome {
	return s.run(ctx, step{r: r, op: "look", timeout: s.o.QueryTimeout, look: true, command: command, args: args})
}

// do runs a command that changes something, for as long as the context lets it.
func (s *System) do(ctx context.Context, r executor.Resource, op, command string, args ...string) executor.Outcome {
	return s.run(ctx, step{r: r, op: op, command: command, args: args})
}

// has reports whether a message with this id is in the output.
func has(o executor.Outcome, id string) bool { return strings.Contains(o.Output, id) }

// failed is what to tell of a command that failed: its messages, which say more than its status.
func failed(o executor.Outcome) error {
	var messages []string
	for l := range strings.Lines(o.Output) {
		if l = strings.Join(strings.Fields(l), " "); l != "" && len(messages) < 6 {
			messages = append(messages, l)
		}
	}
	if len(messages) == 0 || o.Exit < 0 {
		return o.Err
	}
	text := strings.Join(messages, " ")
	if len(text) > 400 {
		text = text[:400] + "..."
	}
	return fmt.Errorf("%w: %s", errStatus(o), text)
}

// errStatus is the outcome's error without the quoted last line.
func errStatus(o executor.Outcome) error {
	if o.Exit > 0 {
		return fmt.Errorf("exit status %d", o.Exit)
	}
	return o.Err
}

// atWork reports a command of this or an earlier daemon that still runs on the resource: what is seen now is worth nothing.
func (s *System) atWork(r executor.Resource) error {
	scope := executor.ScopeOf(r)
	if err := s.o.Runner.Blocked(scope); err != nil {
		return err
	}
	if at := s.o.Runner.Unfinished(scope); len(at) > 0 {
		return fmt.Errorf("%s of %s has not ended: %w", at[0].Op, scope, executor.ErrStuck)
	}
	return nil
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}

func say(status executor.Status, format string, args ...any) executor.Result {
	return executor.Result{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// because makes the result of an operation that did not reach its goal: what is seen now, and why.
func because(seen executor.Result, err error) executor.Result {
	return executor.Result{Status: seen.Status, Detail: err.Error(), Err: err}
}

// errMissing is a resource of the wrong kind.
func errMissing(what string) error {
	return fmt.Errorf("the resource has no %s: this is a fault of the caller", what)
}

// sleep waits, or less when the context ends; false: it ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// LogError writes an entry into the system's error log (errpt shows it as OPMSG), at most 1024 bytes of it.
func (s *System) LogError(ctx context.Context, text string) error {
	if len(text) > 1024 {
		text = text[:1021] + "..."
	}
	o := s.run(ctx, step{r: executor.Resource{Kind: "errlog", Name: "errlogger"}, op: "errlogger", timeout: s.o.QueryTimeout, look: true,
		command: "errlogger", args: []string{text}})
	if o.Err != nil {
		return fmt.Errorf("write to the system's error log: %w", failed(o))
	}
	return nil
}
