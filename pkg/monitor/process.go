package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// scanPause is how often the process table is read while an application is coming up. Afterwards it is read only when a
// process ended.
const scanPause = 20 * time.Millisecond

// A process is one line of the process table.
type process struct {
	pid     int
	comm    string // as the kernel keeps it, cut after 15 bytes on Linux
	argv0   string
	uid     int
	started uint64 // in ticks, to tell the older from the younger
}

// watchProcesses waits for the death of a process that the monitor needs, as an event. Until all have been seen once, and at
// most until patience is over, their absence does not count.
func watchProcesses(ctx context.Context, m *cluster.ApplicationMonitor, patience time.Time, tell func(Kind, string)) {
	well, ended := false, ""
	for {
		needed, missing := match(m)
		switch {
		case missing == "":
			if !well {
				well = true
				tell(seenWell, fmt.Sprintf("monitor %s: %s", m.Name, describe(needed)))
			}
			dead, err := awaitDeath(ctx, needed)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				ended = err.Error()
			} else {
				ended = fmt.Sprintf("process %d (%s) ended", dead.pid, dead.comm)
			}
		case well:
			tell(Died, fmt.Sprintf("monitor %s: %s: %s", m.Name, ended, missing))
			return
		case time.Now().After(patience):
			tell(Died, fmt.Sprintf("monitor %s: %s", m.Name, missing))
			return
		default:
			if !sleep(ctx, scanPause) {
				return
			}
		}
	}
}

func lookAtProcesses(m *cluster.ApplicationMonitor) (State, string) {
	needed, missing := match(m)
	if missing != "" {
		if strings.HasPrefix(missing, unreadable) {
			return StateUnknown, fmt.Sprintf("monitor %s: %s", m.Name, missing)
		}
		return StateStopped, fmt.Sprintf("monitor %s: %s", m.Name, missing)
	}
	return StateRunning, fmt.Sprintf("monitor %s: %s", m.Name, describe(needed))
}

const unreadable = "the process table cannot be read"

// match finds the processes that the monitor needs, no more of them than it needs and the oldest first, or says what is
// missing.
func match(m *cluster.ApplicationMonitor) (needed []process, missing string) {
	uid, err := ownerOf(m)
	if err != nil {
		return nil, err.Error()
	}
	if m.PIDFile != "" {
		return matchFile(m, uid)
	}
	all, err := processTable()
	if err != nil {
		return nil, fmt.Sprintf("%s: %v", unreadable, err)
	}
	return matchNames(m, uid, all)
}

// matchNames is match over a given table.
func matchNames(m *cluster.ApplicationMonitor, uid int, all []process) (needed []process, missing string) {
	want := max(m.InstanceCount, 1)
	if len(m.Processes) > 1 {
		want = 1
	}
	sort.Slice(all, func(i, j int) bool { return all[i].started < all[j].started })
	for _, name := range m.Processes {
		n := 0
		for _, p := range all {
			if n < want && p.is(name) && (uid < 0 || p.uid == uid) {
				needed = append(needed, p)
				n++
			}
		}
		if n < want {
			return nil, fmt.Sprintf("%d of %d processes %s%s run", n, want, name, ofOwner(m))
		}
	}
	if len(m.Processes) == 0 {
		return nil, "the monitor names neither processes nor a pid file"
	}
	return needed, ""
}

// matchFile finds the process that the file names. If the monitor names processes too, it must be one of them.
func matchFile(m *cluster.ApplicationMonitor, uid int) ([]process, string) {
	pid, err := readPIDFile(m.PIDFile)
	if err != nil {
		return nil, err.Error()
	}
	p, ok := processOf(pid)
	if !ok {
		return nil, fmt.Sprintf("process %d of %s does not run", pid, m.PIDFile)
	}
	if uid >= 0 && p.uid != uid {
		return nil, fmt.Sprintf("process %d of %s does not belong to %s", pid, m.PIDFile, m.Owner)
	}
	if slices.ContainsFunc(m.Processes, p.is) {
		return []process{p}, ""
	}
	if len(m.Processes) > 0 {
		return nil, fmt.Sprintf("process %d of %s is %s and not %s", pid, m.PIDFile, p.comm, strings.Join(m.Processes, " or "))
	}
	return []process{p}, ""
}

func readPIDFile(path string) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the pid file %s does not exist", path)
	}
	if err != nil {
		return 0, fmt.Errorf("read the pid file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return 0, fmt.Errorf("read the pid file %s: %w", path, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // postmaster.pid has more lines
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("the pid file %s holds no process number but %q", path, first)
	}
	return pid, nil
}

// is reports whether the process has the name, as `ps -e -o comm` shows it or as its argv[0] says.
func (p process) is(name string) bool {
	base := filepath.Base(name)
	if p.argv0 == name || p.argv0 != "" && filepath.Base(p.argv0) == base && !strings.Contains(name, "/") {
		return true
	}
	if strings.Contains(name, "/") {
		return false
	}
	return p.comm == name || len(p.comm) == commLength && strings.HasPrefix(name, p.comm) && p.argv0 == ""
}

// ownerOf is the user id that the processes must have, or -1.
func ownerOf(m *cluster.ApplicationMonitor) (int, error) {
	if m.Owner == "" {
		return -1, nil
	}
	if uid, err := strconv.Atoi(m.Owner); err == nil {
		return uid, nil
	}
	u, err := user.Lookup(m.Owner)
	if err != nil {
		return 0, fmt.Errorf("user %s, the owner of the processes, does not exist on this node: %w", m.Owner, err)
	}
	return strconv.Atoi(u.Uid)
}

func ofOwner(m *cluster.ApplicationMonitor) string {
	if m.Owner == "" {
		return ""
	}
	return " of user " + m.Owner
}

func describe(list []process) string {
	var out []string
	for i, p := range list {
		if i == 8 {
			out = append(out, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		out = append(out, fmt.Sprintf("process %d (%s) runs", p.pid, p.comm))
	}
	return strings.Join(out, ", ")
}
