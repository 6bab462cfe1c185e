package linux

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A user is a process that holds a mount.
type user struct {
	pid     int
	command string
	how     string // "works in it", "runs from it", ...
	what    string
}

func (u user) String() string { return fmt.Sprintf("%d (%s, %s %s)", u.pid, u.command, u.how, u.what) }

// usersOf lists the processes that hold the mount by their working directory, root, program, an open file or a mapped one:
// what fuser(1) does, without asking the file system, which may hang.
func usersOf(m mount) ([]user, error) {
	pids, err := executor.Processes()
	if err != nil {
		return nil, err
	}
	var out []user
	for _, pid := range pids {
		if how, what := holds(pid, m); how != "" {
			n, _ := strconv.Atoi(pid)
			out = append(out, user{pid: n, command: commandOf(pid), how: how, what: what})
		}
	}
	return out, nil
}

func holds(pid string, m mount) (how, what string) {
	dir := "/proc/" + pid
	for _, l := range []struct{ name, how string }{{"cwd", "works in"}, {"root", "has its root in"}, {"exe", "runs"}} {
		if target, err := os.Readlink(filepath.Join(dir, l.name)); err == nil && below(target, m.point) {
			return l.how, target
		}
	}
	fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, e := range fds {
		if target, err := os.Readlink(filepath.Join(dir, "fd", e.Name())); err == nil && below(target, m.point) {
			return "has open", target
		}
	}
	if target := mapped(dir, m); target != "" {
		return "has mapped", target
	}
	return "", ""
}

func mapped(dir string, m mount) string {
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if i := strings.IndexByte(s.Text(), '/'); i >= 0 && below(s.Text()[i:], m.point) {
			return s.Text()[i:]
		}
	}
	return ""
}

func nameUsers(users []user) string {
	if len(users) == 0 {
		return "; no process that holds it can be seen (an export, a loop device or swap on it?)"
	}
	var out []string
	for i, u := range users {
		if i == 8 {
			out = append(out, fmt.Sprintf("and %d more", len(users)-i))
			break
		}
		out = append(out, u.String())
	}
	return "; held by " + strings.Join(out, ", ")
}

// otherNamespaces names one process of each mount namespace that is visible and not our own.
func otherNamespaces() []string {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{own: true, "": true}
	pids, _ := executor.Processes()
	var out []string
	for _, pid := range pids {
		ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt")
		if !seen[ns] {
			seen[ns] = true
			out = append(out, pid)
		}
	}
	return out
}

func commandOf(pid string) string {
	text, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}
