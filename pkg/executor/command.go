package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that callers of Runner.Run tell apart with errors.Is.
var (
	// ErrTimeout: the command did not end within its time and was killed with all its descendants.
	ErrTimeout = errors.New("timed out")
	// ErrStuck: the command, or one of its descendants, could not be killed (a process in the kernel). What it still does is
	// unknown, and so is its resource.
	ErrStuck = errors.New("cannot be killed")
	// ErrUnsafe: the program does not meet the safety rules of CheckScript.
	ErrUnsafe = errors.New("unsafe program")
	// ErrNotSupported: this operating system lacks what the operation needs.
	ErrNotSupported = errors.New("not supported on this system")
)

// Defaults of a command and of a runner.
const (
	DefaultOutputLimit = 64 << 10          // bytes kept of a command's output: one quarter from the start, the rest from the end
	DefaultWarnAfter   = 360 * time.Second // config_too_long: PowerHA's 180 s + 180 s
	DefaultWarnEvery   = 30 * time.Second
	DefaultKillWait    = 2 * time.Second // how long killed processes may take to end before they count as stuck
	defaultKillGrace   = time.Second
)

// A Scope names the processes of one resource: those that were started on its behalf, with all their descendants.
type Scope struct {
	Group string
	Kind  Kind
	Name  string
}

// ScopeOf is the scope of a resource.
func ScopeOf(r Resource) Scope { return Scope{Group: r.Group, Kind: r.Kind, Name: r.Name} }

func (s Scope) String() string {
	if s.Group == "" {
		return fmt.Sprintf("%s %s", s.Kind, s.Name)
	}
	return fmt.Sprintf("%s %s of group %s", s.Kind, s.Name, s.Group)
}

// A Command is one program to run. It is started by its argument vector, never through a shell.
type Command struct {
	Scope Scope
	Op    string // start, stop, monitor, fsck, ...: for the record, the log and the marker

	Path string   // absolute
	Args []string // without the program's name
	Env  []string // NAME=value, added to the clean environment of every command
	Dir  string   // working directory; empty: /
	// Stdin is written to the program's standard input; it never appears in a log.
	Stdin []byte
	// OutputLimit bounds what is kept of the output, in bytes; 0: the runner's.
	OutputLimit int
	// Redact lists values that are replaced in the output before anybody sees it.
	Redact []string

	// Timeout bounds the run; 0: only the context does.
	Timeout time.Duration
	// KillSignal is sent to the whole process group first when the time is over, and KillGrace (default 1 s) is how long the
	// program then has before all is killed. Zero: killed at once.
	KillSignal int
	KillGrace  time.Duration
	// WarnAfter is when config_too_long is raised, and WarnEvery how often it is repeated; 0: the runner's. Warn replaces the
	// runner's hook for this command.
	WarnAfter, WarnEvery time.Duration
	Warn                 func(c Command, elapsed time.Duration)

	// Keep lets the processes that the command leaves behind live on when it ends with 0: an application's start. Their
	// output goes to a file of bounded size, because a pipe would break when the daemon ends. Without Keep everything that the
	// command left behind is killed when it ends.
	Keep bool
	// Background does not wait for the command: Run returns when the program has been executed. It implies Keep.
	Background bool
	// Trusted programs are not checked by CheckScript: tools of the operating system that the daemon chose itself.
	Trusted bool
	// Unrecorded commands change nothing (a probe, a monitor): no record is written for them.
	Unrecorded bool
}

// An Outcome says how a command ended.
type Outcome struct {
	Executed bool   // the program was executed; false: it was refused, and nothing has changed
	Exit     int    // exit status; -1 when there is none
	Signal   string // name of the signal that ended it, if one did
	Output   string // standard output and error, bounded; what was cut is said in the text
	Duration time.Duration
	// Err is nil when the command ended with 0. Otherwise it is a sentence with the cause; errors.Is finds ErrTimeout,
	// ErrStuck, ErrUnsafe and the context's error in it.
	Err error
}

// LastLine is the last line of the output that is not empty, shortened: the best guess at a cause that there is.
func (o Outcome) LastLine() string {
	lines := strings.Split(strings.TrimSpace(o.Output), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > 200 {
		last = last[:200] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, last)
}

type generationKey struct{}

// WithGeneration says for which generation of a group the calls under the context act; it goes into the action records.
func WithGeneration(ctx context.Context, generation uint64) context.Context {
	return context.WithValue(ctx, generationKey{}, generation)
}

// Generation is what WithGeneration has set, or 0.
func Generation(ctx context.Context) uint64 {
	g, _ := ctx.Value(generationKey{}).(uint64)
	return g
}

type proofKey struct{}

// WithProof says to the calls under the context that the last holder of the group did not release it, and what proves that it
// is gone: what it left behind in storage (the guard of a mount) is then known to be nobody's.
func WithProof(ctx context.Context, proof string) context.Context {
	return context.WithValue(ctx, proofKey{}, proof)
}

// Proof is what WithProof has set, or "": nothing is known of the last holder.
func Proof(ctx context.Context) string {
	p, _ := ctx.Value(proofKey{}).(string)
	return p
}
