package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's messages to slog. Level for level, except that a warning or error which repeats itself within
// repeatAfter (raft says "failed to heartbeat" several times a second for as long as a peer is away) goes to the debug level.
type raftLogger struct {
	to   *slog.Logger
	name string
	args []any
	seen *repeats
}

const (
	repeatAfter = 30 * time.Second
	maxRepeats  = 256
	levelTrace  = slog.LevelDebug - 4
)

type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(to *slog.Logger) *raftLogger {
	return &raftLogger{to: to, name: "raft", seen: &repeats{last: map[string]time.Time{}}}
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	args = plain(args)
	if to >= slog.LevelWarn && l.seen.repeated(msg, args) {
		to = slog.LevelDebug
	}
	l.to.Log(context.Background(), to, l.name+": "+msg, append(append([]any(nil), l.args...), args...)...)
}

// plain resolves hclog's deferred formats.
func plain(args []any) []any {
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	return args
}

// repeated reports whether the same message about the same thing (its first attribute) was said lately.
func (r *repeats) repeated(msg string, args []any) bool {
	key := msg
	if len(args) > 1 {
		key = fmt.Sprint(msg, args[0], args[1])
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[key]; ok && now.Sub(at) < repeatAfter {
		return true
	}
	if len(r.last) >= maxRepeats {
		clear(r.last)
	}
	r.last[key] = now
	return false
}

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), slogLevel(level))
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *raftLogger) IsTrace() bool                 { return l.enabled(hclog.Trace) }
func (l *raftLogger) IsDebug() bool                 { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool                  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool                  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool                 { return l.enabled(hclog.Error) }
func (l *raftLogger) ImpliedArgs() []any            { return l.args }
func (l *raftLogger) Name() string                  { return l.name }
func (l *raftLogger) SetLevel(hclog.Level)          {} // the level is slog's
func (l *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

func (l *raftLogger) With(args ...any) hclog.Logger {
	c := *l
	c.args = append(append([]any(nil), l.args...), args...)
	return &c
}

func (l *raftLogger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelInfo)
}

func (l *raftLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
