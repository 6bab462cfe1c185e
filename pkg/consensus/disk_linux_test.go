package consensus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// The disk fills up while the server leads: the process ends and says why; the store is whole afterwards.
func TestFullDiskEndsTheProcessAndLeavesTheStoreWhole(t *testing.T) {
	dir := smallDisk(t, "size=400k")
	var want, got []string
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.dir = dir
		lead := c.form("a")
		reason := ""
		for i := 0; reason == "" && i < 1000; i++ {
			entry := strings.Repeat("x", 4000)
			ctx := c.timeout(3 * time.Second)
			if _, err := lead.Propose(ctx, []byte(entry)); err == nil {
				want = append(want, entry)
			}
			select {
			case reason = <-c.server("a").exits:
			default:
			}
		}
		if !strings.Contains(reason, "no space left") || !strings.Contains(reason, dir) {
			t.Errorf("reason %q", reason)
		}
		c.close()
	})
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=4m"))
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.dir = dir
		c.start("a")
		c.nextLead("a", time.Minute)
		got = c.server("a").fsm.list()
		c.close()
	})
	if len(got) < len(want) {
		t.Errorf("%d entries, %d were acknowledged", len(got), len(want))
	}
}

func TestFullAndReadOnlyDiskAreSaidAtOpen(t *testing.T) {
	dir := smallDisk(t, "size=64k")
	open := func() (err error) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			cfg := c.config("a")
			cfg.FSM, cfg.Dir = &journal{}, filepath.Join(dir, "raft")
			var n *Node
			if n, err = Open(cfg); err == nil {
				must(t, n.Close())
			} else {
				cfg.Listener.Close()
			}
			time.Sleep(time.Minute)
		})
		return err
	}
	fill := filepath.Join(dir, "fill")
	must(t, os.WriteFile(fill, make([]byte, 60<<10), 0o600))
	if err := open(); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("full: error %v", err)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "raft")))
	must(t, os.Remove(fill))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if err := open(); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only: error %v", err)
	}
}
