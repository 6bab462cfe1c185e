package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
)

// Locks: `clmgr lock run` as people use flock(1), `clmgr query lock`, `clmgr release lock`.

// Exit statuses of `clmgr lock run`, beside the command's own.
const (
	ExitLockLost = 123 // the lock was lost while the command ran
	ExitLockBusy = 124 // the lock is held by others (--try), or was not free in time (-w)
	ExitLockFail = 125 // clmgr itself: no daemon, no cluster, no right, wrong use
	ExitLockExec = 126 // the command cannot be run
	ExitLockNone = 127 // the command is not found
)

// What the command finds in its environment.
const (
	LockNameEnv    = "HOLDFAST_LOCK_NAME"
	LockTokenEnv   = "HOLDFAST_LOCK_TOKEN"
	LockSessionEnv = "HOLDFAST_LOCK_SESSION"
)

const lockUsage = "clmgr lock run NAME [-s|--shared] [-w SECONDS|--try] [-E STATUS] [--ttl SECONDS] [--lost=term|kill|ignore] [--] COMMAND [ARGUMENT ...]"

// lockGrace is what a command has between SIGTERM and SIGKILL when its lock is lost.
const lockGrace = time.Second

// A lockRun is what `clmgr lock run` was asked.
type lockRun struct {
	name    string
	shared  bool
	try     bool
	wait    float64 // seconds; 0: without a limit
	busy    int     // exit status when it is not free
	ttl     float64
	lost    string
	socket  string
	command []string
}

// parseLockRun reads what follows "lock run". Options stand before the command, whose own are left alone.
func parseLockRun(args []string) (*lockRun, error) {
	r := &lockRun{busy: ExitLockBusy, lost: "term"}
	value := func(option string, rest []string) (string, []string, error) {
		if len(rest) == 0 {
			return "", nil, fmt.Errorf("option %s needs a value; usage: %s", option, lockUsage)
		}
		return rest[0], rest[1:], nil
	}
	for len(args) > 0 {
		arg := args[0]
		rest := args[1:]
		word, inline, hasInline := strings.Cut(arg, "=")
		if hasInline && strings.HasPrefix(arg, "--") {
			rest = append([]string{inline}, rest...)
		} else {
			word = arg
		}
		var v string
		var err error
		switch {
		case arg == "--":
			r.command, args = rest, nil
		case word == "-s" || word == "--shared":
			r.shared = true
		case word == "-x" || word == "--exclusive":
			r.shared = false
		case word == "--try" || word == "-n" || word == "--nonblock":
			r.try = true
		case word == "-w" || word == "--wait" || word == "--timeout":
			if v, rest, err = value(word, rest); err == nil {
				r.wait, err = strconv.ParseFloat(v, 64)
				if err != nil || !(r.wait > 0 && r.wait < 1e8) {
					return nil, fmt.Errorf("%s %s: a number of seconds above 0", word, v)
				}
			}
		case word == "-E" || word == "--conflict-exit-code":
			if v, rest, err = value(word, rest); err == nil {
				r.busy, err = strconv.Atoi(v)
				if err != nil || r.busy < 0 || r.busy > 255 {
					return nil, fmt.Errorf("%s %s: a status from 0 to 255", word, v)
				}
			}
		case word == "--ttl":
			if v, rest, err = value(word, rest); err == nil {
				r.ttl, err = strconv.ParseFloat(v, 64)
				if err != nil || !(r.ttl >= 5 && r.ttl <= 600) {
					return nil, fmt.Errorf("--ttl %s: 5 to 600 seconds", v)
				}
			}
		case word == "--lost":
			if v, rest, err = value(word, rest); err == nil && v != "term" && v != "kill" && v != "ignore" {
				return nil, fmt.Errorf("--lost %s: term, kill or ignore", v)
			}
			r.lost = v
		case word == "--socket":
			r.socket, rest, err = value(word, rest)
		case strings.HasPrefix(arg, "-") && arg != "-":
			return nil, fmt.Errorf("there is no option %s; usage: %s", arg, lockUsage)
		case r.name == "":
			r.name = arg
		default:
			r.command, rest = args, nil
		}
		if err != nil {
			return nil, err
		}
		if args == nil || r.command != nil {
			break
		}
		args = rest
	}
	switch {
	case r.name == "":
		return nil, fmt.Errorf("the lock's name is missing; usage: %s", lockUsage)
	case len(r.command) == 0:
		return nil, fmt.Errorf("the command is missing; usage: %s", lockUsage)
	case r.try && r.wait > 0:
		return nil, fmt.Errorf("--try does not wait, and -w says how long to wait: give one of them")
	}
	return r, nil
}

// lockMain runs `clmgr lock ...`, whose command line is not of the usual grammar: what follows the name is somebody else's.
func lockMain(ctx context.Context, env Env, args []string) int {
	say := func(format string, a ...any) {
		for line := range strings.SplitSeq(fmt.Sprintf(format, a...), "\n") {
			fmt.Fprintf(env.Stderr, "ERROR: %s\n", line)
		}
	}
	if len(args) == 0 || args[0] != "run" {
		if len(args) > 0 && (isHelp(args[0]) || args[0] == "-h" || args[0] == "--help") {
			fmt.Fprintln(env.Stdout, "usage: "+lockUsage)
			return ExitOK
		}
		say("usage: %s", lockUsage)
		return ExitLockFail
	}
	if len(args) > 1 && (args[1] == "-h" || args[1] == "--help") {
		fmt.Fprintln(env.Stdout, "usage: "+lockUsage)
		return ExitOK
	}
	r, err := parseLockRun(args[1:])
	if err != nil {
		say("%v", err)
		return ExitLockFail
	}
	path, err := exec.LookPath(r.command[0])
	if err != nil {
		say("the command cannot be run: %v", err)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			return ExitLockNone
		}
		return ExitLockExec
	}
	s := newSession(env, &command{socket: r.socket})
	defer s.client.Close()
	h := &lockHold{run: r, client: s.client, say: say, path: path, env: env, quit: make(chan os.Signal, 4)}
	signal.Notify(h.quit, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(h.quit)
	return h.main(ctx)
}

// A lockHold is one lock from its request to its release.
type lockHold struct {
	run    *lockRun
	client *client.Client
	say    func(format string, a ...any)
	path   string
	env    Env
	quit   chan os.Signal

	session string
	ttl     time.Duration
	token   uint64
	lost    chan string // gets one sentence
}

func (h *lockHold) main(ctx context.Context) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	open, err := h.client.OpenLocks(ctx, api.LockOpen{TTLSeconds: h.run.ttl})
	if err != nil {
		h.say("lock %s: %v", h.run.name, err)
		return ExitLockFail
	}
	h.session, h.ttl, h.lost = open.Session, time.Duration(open.TTLSeconds*float64(time.Second)), make(chan string, 1)
	defer h.close()
	go h.keep(ctx, began)
	status, ok := h.take(ctx)
	if !ok {
		return status
	}
	return h.execute()
}

// close ends the session, and waits for it a little: the next in line is served the sooner.
func (h *lockHold) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if _, err := h.client.CloseLocks(ctx, api.LockClose{Session: h.session}); err != nil && api.CodeOf(err) != api.CodeNotFound {
		fmt.Fprintf(h.env.Stderr, "WARNING: lock %s could not be released at once, it ends with its session within %s: %v\n", h.run.name, h.ttl, err)
	}
}

// take waits for the lock.
func (h *lockHold) take(ctx context.Context) (status int, ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		taken api.LockTaken
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		end := time.Now().Add(time.Duration(h.run.wait * float64(time.Second)))
		req := api.LockTake{Session: h.session, Seq: 1, Name: h.run.name, Shared: h.run.shared, Wait: !h.run.try, WaitSeconds: h.run.wait}
		for {
			t, err := h.client.TakeLock(ctx, req)
			// The daemon is away for a moment: the session is taken up again by keep, and this is asked again. A new number, because the daemon
			// takes the request back by a number of its own.
			if unreachable(err) || api.CodeOf(err) == api.CodeNotFound {
				req.Seq++
				if h.run.wait > 0 {
					req.WaitSeconds = max(time.Until(end).Seconds(), 0.001)
				}
				select {
				case <-ctx.Done():
				case <-time.After(300 * time.Millisecond):
					continue
				}
			}
			got <- answer{t, err}
			return
		}
	}()
	select {
	case a := <-got:
		switch {
		case a.err != nil:
			h.say("lock %s: %v", h.run.name, a.err)
			return ExitLockFail, false
		case a.taken.Busy != "":
			h.say("%s", a.taken.Busy)
			return h.run.busy, false
		case !a.taken.Held:
			h.say("lock %s: %s", h.run.name, a.taken.Refused)
			return ExitLockFail, false
		}
		h.token = a.taken.Token
		return 0, true
	case why := <-h.lost:
		h.say("lock %s was not got: %s", h.run.name, why)
		return ExitLockFail, false
	case sig := <-h.quit:
		return 128 + int(sig.(syscall.Signal)), false
	}
}

func unreachable(err error) bool {
	_, ok := errors.AsType[*client.UnreachableError](err)
	return ok
}

// keep keeps the session until the context ends or it is lost. What was last answered counts from when it was asked: by then the
// daemon knew of us.
func (h *lockHold) keep(ctx context.Context, known time.Time) {
	wait := h.ttl / 3
	for ctx.Err() == nil {
		// The command has its grace before the TTL is over.
		left := time.Until(known.Add(h.ttl - lockGrace))
		if left <= 0 {
			h.lost <- fmt.Sprintf("this node's daemon has not answered for %s", h.ttl-lockGrace)
			return
		}
		asked := time.Now()
		kept, ok, err := h.keepOnce(ctx, wait, left)
		if !ok {
			continue
		}
		switch {
		case err == nil && kept.Lost != "":
			h.lost <- kept.Lost
			return
		case err == nil && len(kept.Gone) > 0:
			h.lost <- "an operator has taken it away"
			return
		case err == nil:
			known = asked
			continue
		case api.CodeOf(err) == api.CodeNotFound: // another daemon: does it find our session?
			one, cancel := context.WithTimeout(ctx, min(left, 8*time.Second))
			_, err = h.client.OpenLocks(one, api.LockOpen{Session: h.session, Again: true})
			cancel()
			if err == nil {
				known = asked
				continue
			}
			if api.CodeOf(err) == api.CodeNotFound {
				h.lost <- err.Error()
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// keepOnce waits for an answer for as long as the session is sure. After that the call hangs on until the command has ended: hanging
// up is giving the locks back.
func (h *lockHold) keepOnce(ctx context.Context, wait, left time.Duration) (api.LockKept, bool, error) {
	type answer struct {
		kept api.LockKept
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		kept, err := h.client.KeepLocks(ctx, api.LockKeep{Session: h.session, WaitSeconds: wait.Seconds()})
		got <- answer{kept, err}
	}()
	limit := time.NewTimer(left)
	defer limit.Stop()
	select {
	case a := <-got:
		return a.kept, true, a.err
	case <-limit.C:
		return api.LockKept{}, false, nil
	}
}

// execute runs the command under the lock and gives its status.
func (h *lockHold) execute() int {
	runtime.LockOSThread() // the command dies with this thread's process, where the system can do that
	defer runtime.UnlockOSThread()
	cmd := exec.Command(h.path, h.run.command[1:]...)
	cmd.Args[0] = h.run.command[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = h.env.Stdin, h.env.Stdout, h.env.Stderr
	cmd.Env = append(os.Environ(), LockNameEnv+"="+h.run.name, LockTokenEnv+"="+strconv.FormatUint(h.token, 10), LockSessionEnv+"="+h.session)
	group := !isTerminal(h.env.Stdin) // on a terminal the command stays in the foreground, with us
	cmd.SysProcAttr = lockedProcess(group)
	if err := cmd.Start(); err != nil {
		h.say("run %s: %v", h.run.command[0], err)
		return ExitLockExec
	}
	pid := cmd.Process.Pid
	if group {
		pid = -pid
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var kill <-chan time.Time
	gone := ""
	for {
		select {
		case err := <-ended:
			if gone != "" && h.run.lost != "ignore" {
				_ = syscall.Kill(pid, syscall.SIGKILL) // what it has left of its process group
				return ExitLockLost
			}
			return statusOfCommand(err)
		case sig := <-h.quit:
			_ = syscall.Kill(pid, sig.(syscall.Signal)) // it may have ended already
		case <-kill:
			_ = syscall.Kill(pid, syscall.SIGKILL)
		case gone = <-h.lost:
			h.say("lock %s is LOST while the command runs (token %d): %s", h.run.name, h.token, gone)
			switch h.run.lost {
			case "kill":
				_ = syscall.Kill(pid, syscall.SIGKILL)
			case "term":
				_ = syscall.Kill(pid, syscall.SIGTERM)
				kill = time.After(lockGrace)
			}
		}
	}
}

func statusOfCommand(err error) int {
	if err == nil {
		return ExitOK
	}
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return ExitLockExec
	}
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return e.ExitCode()
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// lockUsed answers a `lock` that came through the usual grammar, with options before it.
func lockUsed(context.Context, *session, *target) error {
	return fail(ExitIncorrect, "options of clmgr cannot stand before lock; usage: %s", lockUsage)
}

// queryLocks shows who holds what, and who waits.
func queryLocks(ctx context.Context, s *session, t *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	list, err := s.client.Locks(ctx, "")
	if err != nil {
		return err
	}
	locks := list.Locks
	if len(t.names) > 0 {
		locks = nil
		for _, name := range t.names {
			found := false
			for _, l := range list.Locks {
				if l.Name == name {
					locks, found = append(locks, l), true
				}
			}
			if !found && s.form == formText {
				fmt.Fprintf(s.out, "%s: free\n", name)
			}
		}
	}
	switch s.form {
	case formJSON:
		if locks == nil {
			locks = []api.Lock{}
		}
		return writeJSON(s.out, locks)
	case formColon, formXML:
		var records []record
		for _, l := range locks {
			for _, h := range l.Holders {
				records = append(records, s.lockRecord(l.Name, "holder", h))
			}
			for _, h := range l.Waiters {
				records = append(records, s.lockRecord(l.Name, "waiter", h))
			}
		}
		return s.printRecords("lock", records)
	}
	for _, l := range locks {
		for _, h := range l.Holders {
			fmt.Fprintln(s.out, printable(fmt.Sprintf("%s: held %s by %s on %s, session %s, token %d, since %s%s", l.Name, h.Mode, h.Who, h.Node, h.Session,
				h.Token, s.lockTime(h), silentMark(h))))
		}
		for i, h := range l.Waiters {
			fmt.Fprintln(s.out, printable(fmt.Sprintf("%s: %d. in line, %s, %s on %s, session %s, since %s%s", l.Name, i+1, h.Mode, h.Who, h.Node, h.Session,
				s.lockTime(h), silentMark(h))))
		}
	}
	return nil
}

func (s *session) lockTime(h api.LockShare) string {
	return h.Since.In(s.env.Location).Format("2006-01-02 15:04:05")
}

func silentMark(h api.LockShare) string {
	if h.Silent {
		return " (nothing is heard of " + h.Node + ": it is held until the node's end is certain)"
	}
	return ""
}

func (s *session) lockRecord(name, part string, h api.LockShare) record {
	silent := "no"
	if h.Silent {
		silent = "yes"
	}
	return record{{"LOCK", name}, {"PART", part}, {"MODE", h.Mode}, {"NODE", h.Node}, {"WHO", h.Who}, {"SESSION", h.Session},
		{"TOKEN", strconv.FormatUint(h.Token, 10)}, {"SINCE", s.lockTime(h)}, {"SILENT", silent}}
}

// releaseLock takes a lock away from a session, by the operator's word.
func releaseLock(ctx context.Context, s *session, t *target) error {
	id, ok := s.take("SESSION")
	if !ok || id == "" {
		return fail(ExitMissing, "release lock needs SESSION=, which clmgr query lock %s shows", t.name())
	}
	if !api.GoodSession(id) {
		return fail(ExitIncorrect, "SESSION=%.64q: 32 hexadecimal digits, as clmgr query lock shows it", id)
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	reply, err := s.client.Do(ctx, api.Request{Op: api.OpReleaseLock, Lock: t.name(), Session: id, Reason: s.trace})
	if err != nil {
		return err
	}
	if reply.Refused != "" {
		return fail(ExitFailed, "%s", reply.Refused)
	}
	return nil
}
