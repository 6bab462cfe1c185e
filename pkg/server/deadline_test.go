package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

// patient tells how the contexts of waits and writes ended.
type patient struct {
	*servertest.Backend
	ended chan error
}

func (p *patient) Wait(ctx context.Context, since uint64) uint64 {
	<-ctx.Done()
	p.ended <- ctx.Err()
	return since
}

func (p *patient) Do(ctx context.Context, _ api.Caller, _ api.Request) (api.Reply, error) {
	<-ctx.Done()
	p.ended <- ctx.Err()
	return api.Reply{}, api.Errorf(api.CodeUncertain, "time was up")
}

func startPatient(t *testing.T, cfg Config) (*patient, string) {
	t.Helper()
	p := &patient{servertest.New(api.Status{}), make(chan error, 10)}
	cfg.Backend, cfg.Log = p, slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.body = 20 * time.Millisecond
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenLocal(path, Access{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeLocal(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return p, path
}

// TestWaitsOutliveTheReadDeadline: the time that a caller has for its body must not end what it then waits for.
func TestWaitsOutliveTheReadDeadline(t *testing.T) {
	p, path := startPatient(t, Config{WriteTimeout: 200 * time.Millisecond})
	c := client.New(path)
	defer c.Close()
	if _, err := c.Next(t.Context(), &api.Status{Version: 1, Instance: "test"}, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a long poll ended with %v, not with its own time", err)
	}
	if _, err := c.Do(t.Context(), api.Request{Op: api.OpStart}); api.CodeOf(err) != api.CodeUncertain {
		t.Fatal(err)
	}
	if err := <-p.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write ended with %v, not with its own time", err)
	}
}

func TestACallerThatLeavesEndsItsWait(t *testing.T) {
	p, path := startPatient(t, Config{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s?since=1&instance=test&wait=50 HTTP/1.1\r\nHost: x\r\n\r\n", api.PathStatus)
	go func() { _ = c.Close() }()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	_, path := startPatient(t, Config{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", api.PathRequests)
	text, err := io.ReadAll(c) // the connection is closed by the server
	if err != nil || !strings.Contains(string(text), "422") {
		t.Errorf("%v %q", err, text)
	}
}
