package executor

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"
)

// escape makes a name safe for a path component and for a marker. Two names never become one.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	s := b.String()
	if s == "" {
		return "%"
	}
	if len(s) > 100 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))
		s = fmt.Sprintf("%s%%%016x", s[:80], h.Sum64())
	}
	return s
}

// scopePath is the scope's place below the runner's cgroup, and part of its markers.
func scopePath(s Scope) string {
	return filepath.Join(escape(s.Group), escape(string(s.Kind))+"."+escape(s.Name))
}

// What is kept (an application) and what ends with its command (a stop script, a monitor) are told apart by place, so that a
// monitor at work is not taken for its application.
const (
	keptPlace      = "app"
	transientPlace = "run"
)

func (r *Runner) markerPrefix(s Scope, place string) string {
	return r.instance + "/" + scopePath(s) + "/" + place + "/"
}

// instanceName tells agents apart that share one process table or one cgroup hierarchy: it is the same for a restarted agent
// and another one for another node, state directory or PID namespace.
func instanceName(dir, node string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("look at the runner's directory: %w", err)
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s|%s", dir, pidNamespace())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		fmt.Fprintf(h, "|%d|%d", st.Dev, st.Ino)
	}
	return fmt.Sprintf("%s-%016x", escape(node), h.Sum64()), nil
}

// Processes lists the living processes of the scope: those in its cgroups and those that carry its marker, in ascending order.
func (r *Runner) Processes(s Scope) ([]int, error) {
	return r.members(r.markerPrefix(s, keptPlace), r.scopeCgroups(s))
}

// Alive reports whether a process of the scope lives. It is cheaper than Processes.
func (r *Runner) Alive(s Scope) (bool, error) {
	if slices.ContainsFunc(r.scopeCgroups(s), populated) {
		return true, nil
	}
	pids, err := marked(r.markerPrefix(s, keptPlace), "")
	return len(pids) > 0, err
}

// EndScope ends all living processes of the scope: signal first, if it is not 0, and SIGKILL after grace. It returns nil when
// none lives any more, else an error that is ErrStuck and names the processes.
func (r *Runner) EndScope(ctx context.Context, s Scope, signal syscall.Signal, grace time.Duration) error {
	dirs := r.scopeCgroups(s)
	if signal != 0 && grace > 0 {
		if err := r.askToEnd(ctx, s, signal, grace); err != nil {
			return err
		}
	}
	return r.endMembers(ctx, s, r.markerPrefix(s, keptPlace), dirs, r.o.KillWait)
}

func (r *Runner) askToEnd(ctx context.Context, s Scope, signal syscall.Signal, grace time.Duration) error {
	pids, err := r.Processes(s)
	if err != nil {
		return fmt.Errorf("find the processes of %s: %w", s, err)
	}
	signalAll(pids, signal)
	deadline := time.Now().Add(grace)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		alive, err := r.Alive(s)
		if err != nil || !alive {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// endMembers kills the members until none is left, and removes the empty cgroups.
func (r *Runner) endMembers(ctx context.Context, s Scope, marker string, dirs []string, wait time.Duration) error {
	return r.endMembersOf(ctx, s, marker, "", dirs, wait)
}

func (r *Runner) endMembersOf(ctx context.Context, s Scope, marker, part string, dirs []string, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	killed := map[int]uint64{} // process -> its start; by its marker a process is not found once it is ending
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		for _, dir := range dirs {
			_ = killCgroup(dir)
		}
		pids, err := r.membersOf(marker, part, dirs)
		if err != nil {
			return fmt.Errorf("find the processes of %s: %w", s, err)
		}
		for pid, started := range killed {
			if !lives(pid, started) {
				delete(killed, pid)
			}
		}
		if len(pids) == 0 && len(killed) == 0 {
			for _, dir := range dirs {
				removeCgroup(dir)
			}
			return nil
		}
		for _, pid := range pids {
			killed[pid] = startTime(pid)
		}
		signalAll(pids, syscall.SIGKILL)
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("processes %v of %s: %w", slices.Sorted(maps.Keys(killed)), s, ErrStuck)
		}
		pause(ctx, delay)
	}
}

// signalAll signals each process. Number 0, a process of another PID namespace, would mean our own process group.
func signalAll(pids []int, signal syscall.Signal) {
	for _, pid := range pids {
		if pid > 1 {
			_ = syscall.Kill(pid, signal)
		}
	}
}

// members lists who is in the cgroups or carries a marker with that prefix; an empty prefix is nobody's.
func (r *Runner) members(marker string, dirs []string) ([]int, error) {
	return r.membersOf(marker, "", dirs)
}

// membersOf is members with a part that the markers must contain.
func (r *Runner) membersOf(marker, part string, dirs []string) ([]int, error) {
	set := map[int]bool{}
	if marker != "" {
		found, err := marked(marker, part)
		if err != nil {
			return nil, err
		}
		for _, pid := range found {
			set[pid] = true
		}
	}
	for _, dir := range dirs {
		pids, err := cgroupProcesses(dir)
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			set[pid] = true
		}
	}
	delete(set, os.Getpid())
	out := make([]int, 0, len(set))
	for pid := range set {
		if pid > 1 || pid == 0 { // 0 is a process of another PID namespace: it lives, but cannot be named here
			out = append(out, pid)
		}
	}
	sort.Ints(out)
	return out, nil
}

func (r *Runner) scopeCgroups(s Scope) []string {
	if r.groups == nil {
		return nil
	}
	dirs, _ := filepath.Glob(filepath.Join(r.groups.dir, scopePath(s), keptPlace, "*"))
	return onlyDirs(dirs)
}

func onlyDirs(paths []string) []string {
	var out []string
	for _, p := range paths {
		if info, err := os.Lstat(p); err == nil && info.IsDir() {
			out = append(out, p)
		}
	}
	return out
}

// Recover ends what an earlier daemon left running: every recorded action with all its descendants, and every unrecorded
// command. Applications that were started completely live on. It returns the records of the actions that it ended; the error
// joins what could not be ended, and Blocked answers for each scope from then on.
//
// A new daemon calls it before its first command, and before it probes or reports any group.
func (r *Runner) Recover(ctx context.Context) ([]Record, error) {
	orphans, err := r.actions.Orphans()
	errs := []error{err}
	blocked := map[Scope]error{}
	for _, rec := range orphans {
		if err := r.endOrphan(ctx, rec); err != nil {
			blocked[rec.Scope()] = err
			errs = append(errs, err)
			continue
		}
		if err := r.actions.End(rec.ID); err != nil {
			errs = append(errs, fmt.Errorf("remove the record of action %s: %w", rec.ID, err))
		}
	}
	errs = append(errs, r.endUnrecorded(ctx))
	r.mu.Lock()
	r.blocked = blocked
	r.mu.Unlock()
	return orphans, errors.Join(errs...)
}

func (r *Runner) endOrphan(ctx context.Context, rec Record) error {
	r.log.Warn("an action of an earlier daemon is ended", "scope", rec.Scope().String(), "op", rec.Op, "action", rec.ID)
	dirs := []string{}
	if rec.Cgroup != "" {
		dirs = append(dirs, rec.Cgroup)
	}
	if rec.PID > 1 && rec.Started != 0 && startTime(rec.PID) == rec.Started {
		_ = signalGroup(rec.PID, syscall.SIGKILL)
	}
	if err := r.endMembers(ctx, rec.Scope(), rec.Marker, dirs, r.o.KillWait); err != nil {
		return fmt.Errorf("end action %s of an earlier daemon: %w", rec.Op, err)
	}
	// Between fork and exec a process has neither its own environment nor, without a cgroup, any other sign. Look again.
	if len(dirs) == 0 {
		pause(ctx, 50*time.Millisecond)
		return r.endMembers(ctx, rec.Scope(), rec.Marker, dirs, r.o.KillWait)
	}
	return nil
}

// endUnrecorded ends monitors and probes of an earlier daemon. They change nothing, but they may hold a mount.
func (r *Runner) endUnrecorded(ctx context.Context) error {
	var dirs []string
	if r.groups != nil {
		dirs, _ = filepath.Glob(filepath.Join(r.groups.dir, "*", "*", transientPlace, "*"))
	}
	what := Scope{Kind: "commands", Name: "that change nothing"}
	return r.endMembersOf(ctx, what, r.instance+"/", "/"+transientPlace+"/", onlyDirs(dirs), r.o.KillWait)
}

// Blocked says why nothing may be done with, or reported of, the scope: an action of an earlier daemon still runs there. It
// looks again, so that it answers nil once the orphan has ended.
func (r *Runner) Blocked(s Scope) error {
	r.mu.Lock()
	err := r.blocked[s]
	r.mu.Unlock()
	if err == nil {
		return nil
	}
	orphans, lerr := r.actions.Orphans()
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, rec := range orphans {
		if rec.Scope() != s {
			continue
		}
		if left := r.endOrphan(context.Background(), rec); left != nil {
			return left
		}
		_ = r.actions.End(rec.ID)
	}
	r.mu.Lock()
	delete(r.blocked, s)
	r.mu.Unlock()
	return nil
}

// Unfinished lists actions of this process in the scope that have begun and not ended, stuck ones among them.
func (r *Runner) Unfinished(s Scope) []Record { return r.actions.running(s) }

// Close removes the empty cgroups of this runner. Applications live on in theirs.
func (r *Runner) Close() {
	if r.groups != nil {
		r.groups.prune()
	}
}

// pause sleeps, or less when the context ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
