package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// An Env is what a command has of the world. The zero value of a field means the usual thing.
type Env struct {
	Name     string // as the binary was called: clmgr, clRGinfo, ...
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Location *time.Location // of the times printed
	// Terminal says that Stderr is a terminal: waiting then shows one live line instead of one line for each change.
	Terminal bool
	Width    int // of that terminal; 0: 80
	Version  string
	// LogDir is where `view log` finds the logs and where calls are recorded; empty: the system's.
	LogDir string
	// Simulate runs a scenario file, or, live, steps against the running cluster's definition and state. It writes its
	// report and returns the exit status. Nil: not built in.
	Simulate func(ctx context.Context, s Simulation) int

	hopeless, calmness time.Duration // see the constants; tests have less patience
	glass              func(ctx context.Context, e Env, args []string) (status int, complaint string)
	lookup             func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Simulation is what `clmgr simulate` was asked.
type Simulation struct {
	File   string // "-" is standard input
	JSON   bool
	Live   []string // with --live: the steps, as "crash node1"; File is empty then
	Client *client.Client
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// A session is one call of a command.
type session struct {
	*command
	env    Env
	out    io.Writer
	client *client.Client
	before *api.Status // what was before a change of the definition
	live   bool        // this change is never staged
	staged bool        // this change was staged
	// foreign counts the attributes of PowerHA that were taken without effect.
	foreign int
	// began is where the time for waiting counts from.
	began time.Time
}

// Main runs a command line (without the command's own name) and returns its exit status. The context ends the waiting, not
// what was already committed.
func Main(ctx context.Context, env Env, args []string) int {
	env = env.filled()
	if tool, ok := tools[toolName(env.Name)]; ok {
		return tool.main(ctx, env, args)
	}
	if len(args) > 0 && args[0] == completeWord {
		return complete(ctx, env, args[1:])
	}
	if len(args) > 0 && strings.EqualFold(args[0], "lock") {
		return lockMain(ctx, env, args[1:])
	}
	c, err := parse(args)
	if c.yaml {
		var end func()
		env, end = env.yaml()
		defer end()
	}
	if err == nil && len(c.many) > 0 {
		return runMany(ctx, env, c)
	}
	s := newSession(env, c)
	defer s.client.Close()
	if err == nil {
		err = s.run(ctx)
	}
	return s.report(err)
}

func (e Env) filled() Env {
	if e.Stdin == nil {
		e.Stdin = os.Stdin
	}
	if e.Stdout == nil {
		e.Stdout = os.Stdout
	}
	if e.Stderr == nil {
		e.Stderr = os.Stderr
	}
	if e.Getenv == nil {
		e.Getenv = os.Getenv
	}
	if e.Location == nil {
		e.Location = time.Local
	}
	if e.lookup == nil {
		e.lookup = net.DefaultResolver.LookupNetIP
	}
	if e.glass == nil {
		e.glass = runGlass
	}
	if e.hopeless == 0 {
		e.hopeless = hopeless
	}
	if e.calmness == 0 {
		e.calmness = calmness
	}
	if e.LogDir == "" {
		e.LogDir = "/var/log/holdfast"
		if runtime.GOOS == "aix" {
			e.LogDir = "/var/hacmp"
		}
	}
	return e
}

// yaml returns an environment whose output is JSON that is turned into YAML when end is called. What goes to the standard error
// is not held back: somebody may be asked there.
func (e Env) yaml() (Env, func()) {
	var out bytes.Buffer
	to := e.Stdout
	e.Stdout = &out
	return e, func() { _ = config.WriteYAML(to, out.Bytes()) } // as with every other form, there is nobody to tell of a closed output
}

// toolName maps the name of the binary, without directory and suffix, to that of a tool.
func toolName(argv0 string) string {
	return strings.ToLower(strings.TrimSuffix(filepath.Base(argv0), ".exe"))
}

func newSession(env Env, c *command) *session {
	socket := c.socket
	if socket == "" {
		socket = env.Getenv(api.SocketEnv)
	}
	if socket == "" {
		socket = api.DefaultSocket
	}
	return &session{command: c, env: env, out: env.Stdout, client: client.New(socket), began: time.Now()}
}

// run dispatches: help, or the operation that the action and class name.
func (s *session) run(ctx context.Context) error {
	if s.version {
		fmt.Fprintf(s.out, "clmgr (Holdfast) %s\n", orUnknown(s.env.Version))
		return nil
	}
	if len(s.words) == 0 {
		return s.showActions()
	}
	if isHelp(s.words[0]) {
		return s.showHelp(s.words[1:])
	}
	act, err := findAction(s.words[0])
	if err != nil {
		return err
	}
	if s.help {
		return s.showHelp(append([]string{act.name}, s.words[1:]...))
	}
	stop := s.record()
	err = act.dispatch(ctx, s, s.words[1:])
	stop(err)
	return err
}

func orUnknown(s string) string {
	if s == "" {
		return api.Unknown
	}
	return s
}

// report prints an error, all its lines with the mark that scripts look for, and gives its status.
func (s *session) report(err error) int {
	if err == nil {
		return ExitOK
	}
	status := statusOf(err)
	if errors.Is(err, errSilent) {
		return status
	}
	if s.form == formJSON {
		out := errorOutput{Error: err.Error(), Status: status}
		if e, ok := errors.AsType[*api.Error](err); ok {
			out.Code, out.Faults = e.Code, e.Faults
		}
		var text bytes.Buffer
		_ = writeJSON(&text, out)
		if s.yaml {
			_ = config.WriteYAML(s.env.Stderr, text.Bytes())
		} else {
			_, _ = s.env.Stderr.Write(text.Bytes())
		}
		return status
	}
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintf(s.env.Stderr, "ERROR: %s\n", printable(line))
	}
	return status
}

// warn prints a sentence that does not change the status.
func (s *session) warn(format string, args ...any) {
	fmt.Fprintln(s.env.Stderr, "WARNING: "+printable(fmt.Sprintf(format, args...)))
}

// runMany runs the operations of -M one after another and stops at the first that fails.
func runMany(ctx context.Context, env Env, c *command) int {
	for i, line := range c.many {
		if strings.TrimSpace(line) == "" {
			continue
		}
		words, err := cluster.SplitCommand(line)
		s := newSession(env, c)
		if err != nil {
			return s.report(fail(ExitIncorrect, "operation %d of -M: %w", i+1, err))
		}
		one, err := parse(words)
		if err == nil && len(one.many) > 0 {
			err = fail(ExitIncorrect, "operation %d of -M: an operation cannot contain -M", i+1)
		}
		if err != nil {
			return s.report(err)
		}
		if status := runOne(ctx, env, c, one); status != ExitOK {
			return status
		}
	}
	return ExitOK
}

// runOne runs one operation of -M.
func runOne(ctx context.Context, env Env, all, one *command) int {
	if one.yaml && !all.yaml { // all of them are YAML else, and end together
		var end func()
		env, end = env.yaml()
		defer end()
	}
	one.inherit(all)
	s := newSession(env, one)
	defer s.client.Close()
	return s.report(s.run(ctx))
}

// inherit takes over the options that stand before -M.
func (c *command) inherit(from *command) {
	if c.form == formText {
		c.form, c.yaml, c.delim, c.noHeader = from.form, from.yaml, from.delim, from.noHeader
	}
	c.force = c.force || from.force
	c.verbose = c.verbose || from.verbose
	c.noWait = c.noWait || from.noWait
	c.stage = c.stage || from.stage
	c.yes = c.yes || from.yes
	if c.timeout == nil {
		c.timeout = from.timeout
	}
	if c.socket == "" {
		c.socket = from.socket
	}
	if c.trace == "" {
		c.trace = from.trace
	}
}

// userName is who runs the command, for the record of calls.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}
