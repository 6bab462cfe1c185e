package consensus

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLoggerMapsLevels(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	l.Trace("t")
	l.Debug("d")
	l.Info("i", "servers", hclog.Fmt("%d+%d", 1, 2))
	l.With("peer", "b").Named("net").Warn("w")
	l.Error("e", "error", "bad")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		`level=INFO msg="raft: i" servers=1+2`, `level=WARN msg="raft.net: w" peer=b`, `level=ERROR msg="raft: e" error=bad`,
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d of %q, want %q", i, lines, want)
		}
	}
	if l.IsDebug() || !l.IsInfo() || l.GetLevel() != hclog.Info {
		t.Errorf("level %v", l.GetLevel())
	}
}

// A peer that is away for hours must not fill the log.
func TestRaftLoggerSaysRepeatedWarningsRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newRaftLogger(slog.New(slog.NewTextHandler(&out, nil)))
		for range 600 { // 10 minutes
			l.Error("failed to heartbeat to", "peer", "b", "error", "timeout")
			l.Error("failed to heartbeat to", "peer", "c", "error", "timeout")
			time.Sleep(time.Second)
		}
		if n := strings.Count(out.String(), "\n"); n != 40 {
			t.Errorf("%d lines, want one per peer and half minute", n)
		}
	})
}
