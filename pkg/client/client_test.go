package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon answers each connection with f, once it has read something.
func daemon(t *testing.T, f func(net.Conn)) *Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				if _, err := c.Read(make([]byte, 4096)); err == nil {
					f(c)
				}
			})
		}
	})
	cl := New(l.Addr().String())
	t.Cleanup(func() {
		cl.Close()
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return cl
}

func answer(status int, body string) func(net.Conn) {
	return func(c net.Conn) {
		fmt.Fprintf(c, "HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
}

func TestADaemonThatHangsIsAnError(t *testing.T) {
	c := daemon(t, func(net.Conn) {})
	c.silence = 20 * time.Millisecond
	_, err := c.Status(t.Context())
	var u *UnreachableError
	if !errors.As(err, &u) || u.NeverSent() || !strings.Contains(err.Error(), "takes connections and has said nothing") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own limit: %v", err)
	}
}

func TestABrokenAnswerIsAnError(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"closed at once":    {func(c net.Conn) { _ = c.Close() }, "its connection broke; the outcome of a command is not known"},
		"not HTTP":          {func(c net.Conn) { fmt.Fprint(c, "hello\r\n\r\n"); _ = c.Close() }, "its connection broke"},
		"not JSON":          {answer(200, "<html>"), "read the daemon's answer"},
		"error not in JSON": {answer(500, "<html>"), `answered "500 x" without saying why`},
		"error without why": {answer(403, `{}`), `answered "403 x" without saying why`},
		"cut short": {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 x\r\nContent-Length: 100\r\n\r\n{"); _ = c.Close() },
			"its connection broke"},
	} {
		c := daemon(t, tc.answer)
		if _, err := c.Do(t.Context(), api.Request{Op: api.OpStart}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsArriveWhole(t *testing.T) {
	c := daemon(t, answer(422, `{"code":"invalid","message":"no","faults":[{"file":"f","line":2,"column":3,"key":"a.b","message":"bad"}]}`))
	_, err := c.Health(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInvalid || err.Error() != "no\nf:2:3: a.b: bad" {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerWithoutEndIsBounded(t *testing.T) {
	c := daemon(t, func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 200 x\r\nConnection: close\r\n\r\n")
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func TestIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 32 || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

func TestSocketIsNamedByTheEnvironment(t *testing.T) {
	t.Setenv(api.SocketEnv, "/x/y")
	if Socket() != "/x/y" {
		t.Error(Socket())
	}
	t.Setenv(api.SocketEnv, "")
	if Socket() != api.DefaultSocket {
		t.Error(Socket())
	}
}
