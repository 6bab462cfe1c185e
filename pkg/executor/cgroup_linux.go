package executor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups is the directory in a cgroup v2 hierarchy below which each action of one runner gets a cgroup of its own. No
// controller is enabled there: the cgroups only say who belongs together, and let all be killed in one write.
type cgroups struct{ dir string }

// A cgroup is that of one action.
type cgroup struct{ dir string }

// openCgroups finds a hierarchy that can be written and makes the runner's directory in it.
func openCgroups(root, instance string) (*cgroups, error) {
	if root == "none" {
		return nil, errors.New("switched off by configuration")
	}
	roots := []string{root}
	if root == "" {
		mounts, err := cgroup2Mounts()
		if err != nil {
			return nil, err
		}
		roots = roots[:0]
		for _, m := range mounts {
			roots = append(roots, filepath.Join(m, "holdfast"))
		}
	}
	errs := []error{errors.New("no cgroup v2 hierarchy is mounted that can be written")}
	for _, dir := range roots {
		g := &cgroups{dir: filepath.Join(dir, instance)}
		err := os.MkdirAll(g.dir, 0o755)
		if err == nil {
			err = unix.Access(filepath.Join(g.dir, "cgroup.procs"), unix.W_OK)
		}
		if err == nil {
			sweep(dir, instance)
			return g, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// cgroup2Mounts lists where a cgroup v2 hierarchy is mounted.
func cgroup2Mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("look for a cgroup v2 hierarchy: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			out = append(out, f[1])
		}
	}
	return out, nil
}

// create makes the cgroup of one action.
func (g *cgroups) create(scope, id string) (*cgroup, error) {
	c := &cgroup{dir: filepath.Join(g.dir, scope, id)}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	return c, nil
}

// prune removes the runner's directory with all cgroups in it that are empty.
func (g *cgroups) prune() { removeEmpty(g.dir) }

func (c *cgroup) kill() error   { return killCgroup(c.dir) }
func (c *cgroup) remove() error { return os.Remove(c.dir) }

// killCgroup kills all members of a cgroup and of those below it, also those that are forked meanwhile.
func killCgroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	// A kernel before 5.14 has no cgroup.kill. The callers repeat this until nobody is left.
	pids, err := cgroupProcesses(dir)
	for _, pid := range pids {
		if pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return err
}

// populated reports whether a process lives in the cgroup or below it.
func populated(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && bytes.Contains(data, []byte("populated 1"))
}

// cgroupProcesses lists the members of a cgroup and of those below it. A cgroup that is gone has none; a member that is in
// another PID namespace shows as 0.
func cgroupProcesses(dir string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if pid, err := strconv.Atoi(s.Text()); err == nil {
				out = append(out, pid)
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENODEV) { // removed while we looked
		err = nil
	}
	return out, err
}

// removeCgroup removes a cgroup that has no members, with those below it. The kernel takes a moment to forget members that
// have just ended, so it is tried for a short while; what stays is swept later.
func removeCgroup(dir string) {
	for range 20 {
		removeEmpty(dir)
		if _, err := os.Lstat(dir); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// removeEmpty removes what can be removed of a tree of cgroups, deepest first.
func removeEmpty(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeEmpty(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// sweep removes the empty directories of runners that have not been used for a while.
func sweep(root, own string) {
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		info, err := e.Info()
		if e.IsDir() && e.Name() != own && err == nil && time.Since(info.ModTime()) > 10*time.Minute && !populated(dir) {
			removeEmpty(dir)
		}
	}
}
