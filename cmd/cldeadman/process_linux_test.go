package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// The program, and the same with the switches that tests need.
var program, mutants string

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // these tests wait for other processes: they hardly use a processor
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cldeadman")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, mutants = filepath.Join(dir, "cldeadman"), filepath.Join(dir, "cldeadman.mutants")
	for _, args := range [][]string{{"build", "-o", program, "."}, {"build", "-tags", "deadman_mutants", "-o", mutants, "."}} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build cldeadman: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// patience bounds waits for things that must come; it asserts nothing about speed.
const patience = 30 * time.Second

// timings are the fast profile.
func timings(t testing.TB) lease.Params {
	t.Helper()
	p, err := lease.Profile("fast")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// slack is R of these tests: how late the fake watchdog, an ordinary process on a busy machine, may be.
const slack = time.Second

// node is a fake node: the lab's watchdog outside, a directory, and what runs inside.
type node struct {
	t      testing.TB
	dog    *labWatchdog
	dir    string
	socket string
	holder string // the holder's socket, "" for none
}

func newNode(t testing.TB) *node {
	dir := t.TempDir()
	n := &node{t: t, dog: newLabWatchdog(t), dir: dir, socket: filepath.Join(dir, "s", "deadman.sock")}
	n.holder = filepath.Join(dir, "holder.sock")
	return n
}

// process is a running cldeadman.
type process struct {
	*exec.Cmd
	log  string        // file of its standard error: a holder that it starts may keep it open
	done chan struct{} // the process was waited for
}

func (n *node) run(path string, env []string, args ...string) *process {
	n.t.Helper()
	p := &process{Cmd: exec.Command(path, args...), done: make(chan struct{})}
	log, err := os.CreateTemp(n.dir, "stderr")
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	p.Stderr, p.log = log, log.Name()
	p.Env = append(os.Environ(), env...)
	if err := p.Start(); err != nil {
		n.t.Fatal(err)
	}
	var once sync.WaitGroup
	once.Go(func() {
		_ = p.Wait()
		close(p.done)
	})
	n.t.Cleanup(func() {
		_ = p.Process.Kill()
		once.Wait()
	})
	return p
}

// said is what a process has written to its standard error.
func (p *process) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// hold runs the holder process.
func (n *node) hold() *process {
	n.t.Helper()
	p := n.run(program, nil, "hold", "--socket", n.holder)
	n.await("the holder's socket", func() bool { _, err := os.Stat(n.holder); return err == nil })
	return p
}

// start runs a deadman.
func (n *node) start(path string, env ...string) *process {
	n.t.Helper()
	args := []string{"--socket", n.socket, "--backend", "lab", "--device", n.dog.path, "--watchdog-timeout", "2s", "--cgroup", "stay"}
	if n.holder != "" {
		args = append(args, "--holder-socket", n.holder)
	}
	return n.run(path, env, args...)
}

// await waits for something that must come. It polls: what it waits for happens in other processes.
func (n *node) await(what string, ok func() bool) {
	n.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			n.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// connect connects an agent.
func (n *node) connect(mode lease.Mode) *deadman.Client {
	n.t.Helper()
	var c *deadman.Client
	n.await("the deadman's socket", func() bool {
		ctx, cancel := context.WithTimeout(n.t.Context(), patience)
		defer cancel()
		var err error
		c, err = deadman.Connect(ctx, n.socket, deadman.Settings{Params: timings(n.t), Mode: mode})
		return err == nil
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}

// leader grants what the agent's deadman asks for, until stop is called. It notes t_req of the newest grant that was taken.
type leader struct {
	c      *deadman.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	granted lease.Instant
	refused []error
	taken   chan struct{} // a token per grant taken, dropped if nobody looks
}

func newLeader(c *deadman.Client) *leader {
	ctx, cancel := context.WithCancel(context.Background())
	l := &leader{c: c, cancel: cancel, taken: make(chan struct{}, 1)}
	l.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.Done():
				return
			case r := <-c.Requests():
				l.answer(c.Grant(r.Nonce, "leader", deadman.BootClock{}.Now(), 0), r)
			}
		}
	})
	return l
}

func (l *leader) answer(err error, r deadman.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A deadman that died while it answered may have petted: its grant counts.
	if _, refused := err.(interface{ Unwrap() error }); err == nil || !refused || l.c.Err() != nil {
		l.granted = max(l.granted, r.At)
	} else {
		l.refused = append(l.refused, err)
	}
	select {
	case l.taken <- struct{}{}:
	default:
	}
}

func (l *leader) stop() lease.Instant {
	l.cancel()
	l.wg.Wait()
	return l.last()
}

func (l *leader) last() lease.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.granted
}

// awaitGrants waits until so many more grants were answered.
func (l *leader) awaitGrants(n *node, count int) {
	n.t.Helper()
	for range count {
		select {
		case <-l.taken:
		case <-time.After(patience):
			n.t.Fatalf("no grant was taken within %v; refused: %v", patience, l.refused)
		}
	}
}

// armed brings a node to where it runs something under a lease.
func (n *node) armed(c *deadman.Client) *leader {
	n.t.Helper()
	l := newLeader(c)
	if err := c.Arm(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	if err := c.HoldsSomething(true); err != nil {
		n.t.Fatal(err)
	}
	l.awaitGrants(n, 3)
	return l
}

// end waits for the end of the node, by its watchdog or its own reset.
func (n *node) end() (at lease.Instant, how string) {
	n.t.Helper()
	select {
	case at = <-n.dog.fired:
		return at, "watchdog"
	case at = <-n.dog.reset:
		return at, "reset"
	case <-time.After(patience):
		n.t.Fatalf("the node lives after %v", patience)
	}
	return 0, ""
}

// within checks the bound on which the leader frees the node's groups: its last side effect lies before t_req + A + p + W + R.
func (n *node) within(end, granted lease.Instant) error {
	p := timings(n.t)
	bound := granted.Add(p.MaxAge + p.Margin + p.Watchdog + slack)
	if granted == 0 {
		return fmt.Errorf("nothing was ever granted")
	}
	if end > bound {
		return fmt.Errorf("the node ended %v after t_req of its newest grant: %v over the bound", end.Sub(granted), end.Sub(bound))
	}
	return nil
}

// alive checks that the node was not ended by now.
func (n *node) alive() {
	n.t.Helper()
	select {
	case <-n.dog.fired:
		n.t.Fatal("the watchdog of a healthy node has fired")
	case <-n.dog.reset:
		n.t.Fatal("a healthy node was reset")
	default:
	}
}

// sleep lets real time pass: the processes under test cannot live in fake time.
func sleep(d time.Duration) { <-time.After(d) }

// procField reads a field of a file of /proc.
func procField(pid int, file, field string) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func TestHealthyNodeLivesOn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	d := n.start(program)
	c := n.connect(lease.ModeReset)
	l := n.armed(c)
	l.awaitGrants(n, 20)
	n.alive()
	info, status := c.Info(), c.Status()
	if info.Class != lease.Independent || info.Watchdog != 2*time.Second || !info.Armed || info.Pid != d.Process.Pid || !info.Held {
		t.Errorf("the deadman describes itself as %+v", info)
	}
	if status.Taken == 0 || status.Pets < status.Taken || status.Granted == 0 || status.Margin <= 0 || status.MinMargin > status.Margin {
		t.Errorf("the deadman's figures are %+v", status)
	}
	t.Logf("warnings here: %q", info.Warnings)
	t.Logf("figures: %+v", status)
	t.Logf("memory: really locked %s, resident %s, threads %s (VmLck, which counts address space: %s)", procField(info.Pid, "smaps_rollup", "Locked"),
		procField(info.Pid, "status", "VmRSS"), procField(info.Pid, "status", "Threads"), procField(info.Pid, "status", "VmLck"))
	l.stop()
	end, how := n.end()
	if err := n.within(end, l.last()); err != nil {
		t.Error(err)
	}
	if how != "reset" {
		t.Errorf("the node ended by its %s: at L_hard its deadman should have reset it", how)
	}
	if hard := timings(t).Hard; end.Sub(l.last()) < hard {
		t.Errorf("the node was reset %v after t_req, before L_hard = %v", end.Sub(l.last()), hard)
	}
}
