package lab

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A fakeLab answers the control protocol in a directory, one function per connection.
func fakeLab(t *testing.T, dir string, serve func(conn *net.UnixConn, req Request)) *Lab {
	t.Helper()
	t.Chdir(dir) // the path of a socket is short
	l, err := net.Listen("unixpacket", ControlSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, MaxMessage)
				n, err := c.Read(buf)
				var req Request
				if err != nil || json.Unmarshal(buf[:n], &req) != nil {
					return
				}
				serve(c.(*net.UnixConn), req)
			}()
		}
	}()
	return Open(dir)
}

func reply(conn *net.UnixConn, r Reply) { _ = writeMessage(conn, r) }

func TestValidate(t *testing.T) {
	good := Config{Name: "a.b-c_1", Nodes: 3, Networks: 1, Subnet: "10.77", Profile: "fast"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"lab name":   func(c *Config) { c.Name = "../up" },
		"name":       func(c *Config) { c.Name = strings.Repeat("x", 33) },
		"--nodes":    func(c *Config) { c.Nodes = MaxNodes + 1 },
		"--networks": func(c *Config) { c.Networks = 0 },
		"--subnet":   func(c *Config) { c.Subnet = "10.256" },
		"--subnet ":  func(c *Config) { c.Subnet = "224.0" },
		"--subnet \"": func(c *Config) {
			c.Subnet = "127.1"
		},
		"--profile": func(c *Config) { c.Profile = "" },
		"negative":  func(c *Config) { c.RebootDelay = -1 },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := good.Address(3, 1); got != "10.77.1.3" {
		t.Error(got)
	}
	if got := good.NodeNames(); !slices.Equal(got, []string{"node1", "node2", "node3"}) {
		t.Error(got)
	}
}

func TestBaseDir(t *testing.T) {
	t.Setenv("HOLDFAST_LAB_DIR", "/x")
	if got := Dir("a"); got != "/x/a" {
		t.Error(got)
	}
	t.Setenv("HOLDFAST_LAB_DIR", "")
	if got := BaseDir(); !strings.HasPrefix(got, "/tmp/holdfast-lab-") {
		t.Error(got)
	}
}

func TestNobodyThere(t *testing.T) {
	for _, dir := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		l := Open(dir)
		if _, err := l.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("status: %v", err)
		}
		if r, err := l.Run(t.Context(), "node1", "true"); !errors.Is(err, ErrNotRunning) || r.Code != ExitLab {
			t.Errorf("run: %+v, %v", r, err)
		}
		if err := l.Down(t.Context(), true); err != nil {
			t.Errorf("down: %v", err)
		}
		if _, err := l.StartWatch(t.Context(), WatchOptions{}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("watch: %v", err)
		}
	}
}

// A directory's path may be longer than a socket's address.
func TestLongDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := fakeLab(t, dir, func(c *net.UnixConn, _ Request) { reply(c, Reply{Done: true, Status: &Status{Lab: "x"}}) })
	if st, err := l.Status(t.Context()); err != nil || st.Lab != "x" {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestCallTellsTheSupervisorsWord(t *testing.T) {
	l := fakeLab(t, t.TempDir(), func(c *net.UnixConn, req Request) {
		switch req.Node {
		case "refuse":
			reply(c, Reply{Done: true, Error: "no such node"})
		case "nonsense":
			_, _ = c.Write([]byte("{"))
		case "hang":
			_, _ = c.Read(make([]byte, 1)) // until the caller goes away
		}
	})
	if err := l.Crash(t.Context(), "refuse"); err == nil || err.Error() != "no such node" {
		t.Errorf("refused: %v", err)
	}
	if err := l.Crash(t.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "understand") {
		t.Errorf("nonsense: %v", err)
	}
	if err := l.Crash(t.Context(), "gone"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("gone in the middle: %v", err)
	}
	if err := l.Down(t.Context(), true); err != nil { // going away is what down is
		t.Errorf("down: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := l.Crash(ctx, "hang"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := l.Crash(t.Context(), strings.Repeat("x", MaxMessage)); err == nil {
		t.Error("a request that is too large was sent")
	}
}

func TestExecStatus(t *testing.T) {
	code := func(n int) *int { return &n }
	l := fakeLab(t, t.TempDir(), func(c *net.UnixConn, req Request) {
		switch req.Argv[0] {
		case "seven":
			reply(c, Reply{Done: true, Exit: code(7)})
		case "absent":
			reply(c, Reply{Done: true, Exit: code(ExitNotFound), Error: "not found"})
		case "down":
			reply(c, Reply{Done: true, Error: "node1 is down"})
		}
	})
	for name, want := range map[string]struct {
		code int
		err  bool
	}{"seven": {7, false}, "absent": {ExitNotFound, true}, "down": {ExitLab, true}, "vanish": {ExitLab, true}} {
		got, err := l.Exec(t.Context(), "node1", []string{name}, ExecOptions{})
		if got != want.code || (err != nil) != want.err {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	got := make(chan Signal, 1)
	l := fakeLab(t, t.TempDir(), func(c *net.UnixConn, _ Request) {
		buf := make([]byte, 100)
		n, _ := c.Read(buf)
		var s Signal
		_ = json.Unmarshal(buf[:n], &s)
		got <- s
		zero := 0
		reply(c, Reply{Done: true, Exit: &zero})
	})
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	if code, err := l.Exec(t.Context(), "node1", []string{"x"}, ExecOptions{Signals: signals}); code != 0 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if s := <-got; s.Signal != int(syscall.SIGTERM) {
		t.Errorf("%+v", s)
	}
}

func TestEvents(t *testing.T) {
	l := fakeLab(t, t.TempDir(), func(c *net.UnixConn, _ Request) {
		for i := range 3 {
			reply(c, Reply{Event: &Event{PID: i}})
		}
	})
	var seen []int
	err := l.Events(t.Context(), func(e Event) bool { seen = append(seen, e.PID); return true })
	if !errors.Is(err, ErrNotRunning) || !slices.Equal(seen, []int{0, 1, 2}) {
		t.Errorf("%v, %v", seen, err)
	}
	if err := l.Events(t.Context(), func(Event) bool { return false }); err != nil {
		t.Errorf("the caller had enough: %v", err)
	}
}

func TestArguments(t *testing.T) {
	o := Options{Name: "x", Nodes: 5, Fence: true, RebootDelay: time.Second, Detached: true, ClusterFile: "c.yaml"}
	want := []string{"up", "--name", "x", "--nodes=5", "--cluster=c.yaml", "--fence=true", "--reboot-delay=1s"}
	if got := o.arguments(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
