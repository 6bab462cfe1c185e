package main

import (
	"bufio"
	"errors"
	"fmt"
	"github.com/holdfast-ha/holdfast/pkg/lab"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Each node gets a cgroup (version 2) of its own where the kernel and the rights allow it, and sees it as the root of the
// hierarchy: what the product makes there is the node's alone, and it is removed with the node.

// findCgroupRoot finds the directory below which a new lab may put its cgroups; empty when there is none.
func findCgroupRoot(labName string) string {
	own := ownCgroup()
	if own == "" {
		return ""
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		m, ok := parseMount(sc.Text())
		if !ok || m.fsType != "cgroup2" {
			continue
		}
		dir := filepath.Join(m.point, own, fmt.Sprintf("cllab-%s-%d", labName, os.Getpid()))
		if os.Mkdir(dir, 0o755) == nil {
			return dir
		}
	}
	return ""
}

func ownCgroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path
		}
	}
	return ""
}

// makeCgroup makes the node's cgroup and puts its init there. It returns "" when the lab has no cgroups.
func makeCgroup(cfg *lab.Config, name string, pid int) (string, error) {
	if cfg.CgroupRoot == "" {
		return "", nil
	}
	dir := filepath.Join(cfg.CgroupRoot, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		_ = os.Remove(dir)
		return "", err
	}
	return dir, nil
}

// killCgroup kills whatever is in the cgroup, all at once. The death of the init does the same a moment later.
func killCgroup(dir string) {
	if dir != "" {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// removeCgroup removes a cgroup and all below it, which must be empty of processes or become so soon.
func removeCgroup(dir string) error {
	if dir == "" {
		return nil
	}
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = removeCgroupOnce(dir); err == nil {
			return nil
		}
	}
	return err
}

// removeCgroupOnce removes what it can. Whatever is not there is removed.
func removeCgroupOnce(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroupOnce(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
