package server_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server"
)

// asUser runs f on a thread of its own that is this user, for good: the thread ends with it.
func asUser(t *testing.T, uid, gid int, groups []int, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be used again
		done <- func() error {
			// The raw calls change this thread alone; those of package syscall change the process.
			gids := make([]uint32, 0, len(groups)+1)
			for _, g := range groups {
				gids = append(gids, uint32(g))
			}
			if err := setgroups(gids); err != nil {
				return err
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
				return fmt.Errorf("setresgid: %w", e)
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				return fmt.Errorf("setresuid: %w", e)
			}
			f()
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// ask opens one connection on the calling thread, where a http.Client would dial on any, and sends one request.
func ask(t *testing.T, socket, method, path, body string) string {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return "dial: " + err.Error()
	}
	defer func() { _ = c.Close() }()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

func TestRolesByPeerCredentials(t *testing.T) {
	const move = `{"id":"0123456789abcdef","op":"move","groups":["g"],"node":"n"}`
	const down = `{"id":"0123456789abcdef","op":"confirm-node-down","node":"n"}`
	access := server.Access{OperateGroups: []int{7001}, ViewGroups: []int{7002}}
	r := start(t, access)
	if err := os.Chmod(filepath.Dir(r.socket), 0o755); err != nil {
		t.Fatal(err)
	}
	openParents(t, r.socket)
	for name, tc := range map[string]struct {
		gid                 int
		groups              []int
		view, operate, rule string
	}{
		"operator by first group":  {7001, nil, "200", "200", "403"},
		"operator by other group":  {7777, []int{7003, 7001}, "200", "200", "403"},
		"viewer":                   {7002, nil, "200", "403", "403"},
		"many groups, none of use": {7777, numbers(8000, 200), "403", "403", "403"},
		"many groups, one of use":  {7777, append(numbers(8000, 200), 7002), "200", "403", "403"},
	} {
		var view, operate, rule string
		asUser(t, 7500, tc.gid, tc.groups, func() {
			view = ask(t, r.socket, "GET", api.PathStatus, "")
			operate = ask(t, r.socket, "POST", api.PathRequests, move)
			rule = ask(t, r.socket, "POST", api.PathRequests, down)
		})
		for what, pair := range map[string][2]string{"view": {view, tc.view}, "operate": {operate, tc.operate}, "admin": {rule, tc.rule}} {
			if !strings.HasPrefix(pair[0], "HTTP/1.1 "+pair[1]) {
				t.Errorf("%s: %s: want %s, got:\n%s", name, what, pair[1], pair[0])
			}
		}
	}
	if log := r.log.String(); !strings.Contains(log, `uid=7500 role=view call="POST /v1/requests"`) || !strings.Contains(log, "result=forbidden") {
		t.Errorf("a refused write leaves no audit line:\n%s", log)
	}
}

func TestSocketOfRootAloneCannotBeOpenedByOthers(t *testing.T) {
	r := start(t, server.Access{})
	openParents(t, r.socket)
	var got string
	asUser(t, 7500, 7500, nil, func() { got = ask(t, r.socket, "GET", api.PathStatus, "") })
	if !strings.Contains(got, "permission denied") {
		t.Errorf("got %s", got)
	}
}

func TestACrowdOfViewersDoesNotKeepRootOut(t *testing.T) {
	r := start(t, server.Access{EveryoneViews: true}, func(c *server.Config) { c.MaxConns = 8 })
	openParents(t, r.socket)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for uid := 7500; uid < 7520; uid++ {
		asUser(t, uid, uid, nil, func() {
			for range 4 {
				if c, err := net.Dial("unix", r.socket); err == nil {
					held = append(held, c)
				}
			}
		})
	}
	if _, err := r.client.Status(t.Context()); err != nil {
		t.Errorf("root is kept out by %d idle connections: %v", len(held), err)
	}
}

func numbers(from, n int) []int {
	var out []int
	for i := range n {
		out = append(out, from+i)
	}
	return out
}

// openParents lets other users reach a file in the test's directory.
func openParents(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Users and groups of the access settings get their role, whoever else is there.
func TestRolesOfUsers(t *testing.T) {
	r := start(t, server.Access{AdminUsers: []int{7501}, OperateUsers: []int{7502}, ViewUsers: []int{7503}, AdminGroups: []int{7010}})
	if err := os.Chmod(filepath.Dir(r.socket), 0o755); err != nil {
		t.Fatal(err)
	}
	openParents(t, r.socket)
	const down = `{"id":"0123456789abcdef","op":"confirm-node-down","node":"n"}`
	const move = `{"id":"0123456789abcdef","op":"move","groups":["g"],"node":"n"}`
	for name, tc := range map[string]struct {
		uid                 int
		groups              []int
		view, operate, rule string
	}{
		"admin":          {7501, nil, "200", "200", "200"},
		"admin by group": {7509, []int{7010}, "200", "200", "200"},
		"operator":       {7502, nil, "200", "200", "403"},
		"viewer":         {7503, nil, "200", "403", "403"},
		"nobody":         {7504, nil, "403", "403", "403"},
	} {
		var got [3]string
		asUser(t, tc.uid, 7999, tc.groups, func() {
			got = [3]string{ask(t, r.socket, "GET", api.PathStatus, ""), ask(t, r.socket, "POST", api.PathRequests, move), ask(t, r.socket, "POST", api.PathRequests, down)}
		})
		for i, want := range []string{tc.view, tc.operate, tc.rule} {
			if !strings.HasPrefix(got[i], "HTTP/1.1 "+want) {
				t.Errorf("%s, call %d: want %s, got:\n%s", name, i, want, got[i])
			}
		}
	}
}
