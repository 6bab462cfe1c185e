package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

const (
	stageVariable = "HOLDFAST_DEADMAN_STAGE" // set for the second execution; carries the first one's warnings
	priority      = 20                       // of SCHED_RR: above all that is not real-time, below the kernel's own
	maxLocked     = 4 << 20                  // bytes; more is a warning
)

func trouble(t wire.Trouble, err error) wire.Warning {
	w := wire.Warning{Trouble: t}
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		w.Errno = uint16(n)
	}
	return w
}

// becomeRealtime prepares what only holds for a whole process if it is there before the runtime starts its threads, and executes
// the program again. In that second execution it returns the warnings of the first.
func becomeRealtime(o options) ([]wire.Warning, error) {
	if stage, ok := os.LookupEnv(stageVariable); ok {
		_ = os.Unsetenv(stageVariable) // it only tells children what they do not ask for
		return parseWarnings(stage), nil
	}
	// Early in a boot the kernel's random source makes whoever asks it work for its seed, for seconds, and at a real-time
	// priority nothing else runs meanwhile: that must be over before a watchdog is open. Once seeded it never blocks again.
	random(new(lease.Nonce))
	runtime.LockOSThread()
	var warnings []wire.Warning
	note := func(t wire.Trouble, err error) {
		if err != nil {
			warnings = append(warnings, trouble(t, err))
		}
	}
	// A huge page for a few touched bytes would be locked as a whole.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	if o.cgroup == "leave" && os.Getenv("NOTIFY_SOCKET") == "" {
		note(wire.NoCgroup, leaveCgroups())
	}
	note(wire.NoOOMScore, os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
	note(wire.NoRealtime, setRealtime())
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	env := append(os.Environ(), stageVariable+"="+formatWarnings(warnings), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	return nil, fmt.Errorf("execute %s again: %w", self, syscall.Exec(self, os.Args, env))
}

func formatWarnings(ws []wire.Warning) string {
	var parts []string
	for _, w := range ws {
		parts = append(parts, fmt.Sprintf("%d:%d", w.Trouble, w.Errno))
	}
	return strings.Join(parts, ",")
}

func parseWarnings(s string) []wire.Warning {
	var out []wire.Warning
	for part := range strings.SplitSeq(s, ",") {
		t, n, ok := strings.Cut(part, ":")
		kind, err1 := strconv.ParseUint(t, 10, 8)
		number, err2 := strconv.ParseUint(n, 10, 16)
		if ok && err1 == nil && err2 == nil {
			out = append(out, wire.Warning{Trouble: wire.Trouble(kind), Errno: uint16(number)})
		}
	}
	return out
}

// setRealtime gives this thread a real-time priority; all that it executes and starts inherits it.
func setRealtime() error {
	param := struct{ priority int32 }{priority}
	if _, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_RR, uintptr(unsafe.Pointer(&param))); e != 0 {
		return e
	}
	return nil
}

// ignored are the signals that could end or stop a process by accident. SIGKILL and SIGSTOP cannot be ignored, faults of the
// program itself must not be, and SIGTERM is the clean stop.
var ignored = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPWR, syscall.SIGXCPU, syscall.SIGVTALRM}

func ignoreSignals() { signal.Ignore(append(ignored, syscall.SIGTERM)...) }

// watchSignals ignores what is to be ignored, and makes a descriptor readable at each SIGTERM.
func watchSignals() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make the deadman's signal descriptor: %w", err)
	}
	signal.Ignore(ignored...)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		one := []byte{7: 1}
		for range stop {
			_, _ = unix.Write(fd, one) // a full counter is readable too
		}
	}()
	return fd, nil
}

// leaveCgroups moves the process to the root of every cgroup hierarchy that it can see: the caller's may be frozen, starved or
// killed as a whole.
func leaveCgroups() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var last error
	pid := []byte(strconv.Itoa(os.Getpid()))
	for line := range strings.SplitSeq(string(mounts), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 || (f[2] != "cgroup" && f[2] != "cgroup2") {
			continue
		}
		if err := os.WriteFile(f[1]+"/cgroup.procs", pid, 0); err != nil {
			last = err
		}
	}
	return last
}

// now reads the clocks.
func now() keeper.Reading {
	var t unix.Timespec
	var r keeper.Reading
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	r.MonoBefore = lease.Instant(t.Nano())
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	r.Boot = lease.Instant(t.Nano())
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	r.MonoAfter = lease.Instant(t.Nano())
	return r
}

// random draws a nonce.
func random(n *lease.Nonce) {
	for have := 0; have < len(n); {
		if m, err := unix.Getrandom(n[have:], 0); err == nil {
			have += m
		}
	}
}

func ownPidFD() int {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return -1
	}
	return fd
}

// killTimer is a timer of the kernel on CLOCK_BOOTTIME that ends this process by SIGKILL, which works on a stopped one too.
type killTimer struct {
	id   int32
	spec unix.ItimerSpec
}

// sigevent is the kernel's struct of that name.
type sigevent struct {
	value  uint64
	signal int32
	notify int32
	_      [48]byte
}

func newKillTimer() (*killTimer, error) {
	k := &killTimer{}
	event := sigevent{signal: int32(unix.SIGKILL)}
	if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&k.id))); e != 0 {
		return nil, fmt.Errorf("make the kill timer: %w", e)
	}
	return k, nil
}

func (k *killTimer) arm(at lease.Instant) { k.set(int64(at)) }
func (k *killTimer) disarm()              { k.set(0) }

func (k *killTimer) set(ns int64) {
	if k == nil || mutant("killtimer") {
		return
	}
	k.spec.Value = unix.NsecToTimespec(ns)
	_, _, _ = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(k.id), unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&k.spec)), 0, 0, 0)
}

// events are what a wait ended by.
type events struct{ listen, agent, holder, stop bool }

// waiter waits for descriptors, for a moment of CLOCK_BOOTTIME (a relative timeout would stand still in a suspend), and for
// SIGTERM.
type waiter struct {
	timer, stop int
	spec        unix.ItimerSpec
	fds         [5]unix.PollFd
	buf         [8]byte
}

func newWaiter() (*waiter, error) {
	timer, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the deadman's timer: %w", err)
	}
	stop, err := watchSignals()
	if err != nil {
		return nil, err
	}
	return &waiter{timer: timer, stop: stop}, nil
}

func (w *waiter) wait(at lease.Instant, listen, agent, hold int) events {
	w.spec.Value = unix.NsecToTimespec(int64(at))
	_ = unix.TimerfdSettime(w.timer, unix.TFD_TIMER_ABSTIME, &w.spec, nil)
	for i, fd := range [...]int{w.timer, w.stop, listen, agent, hold} {
		w.fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	if _, err := unix.Ppoll(w.fds[:], nil, nil); err != nil {
		return events{}
	}
	if w.fds[0].Revents != 0 {
		_, _ = unix.Read(w.timer, w.buf[:])
	}
	e := events{listen: w.fds[2].Revents != 0, agent: w.fds[3].Revents != 0, holder: w.fds[4].Revents != 0}
	if w.fds[1].Revents != 0 {
		n, err := unix.Read(w.stop, w.buf[:])
		e.stop = err == nil && n == len(w.buf)
	}
	return e
}

func pause(ms int) { _, _ = unix.Poll(nil, ms) }

// acceptPeer accepts an agent of the same user, or root.
func acceptPeer(listen int) (int, error) {
	fd, _, err := unix.Accept4(listen, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
		unix.Close(fd)
		return -1, unix.EACCES
	}
	return fd, nil
}

// rehearse touches every page of the program, so that neither the pet nor the reset path can fault one in from a disk, and
// locks them. Pages that are not touched yet are locked when they are: a plain lock would populate the runtime's whole reservation,
// tens of MiB.
func rehearse() []wire.Warning {
	var warnings []wire.Warning
	touchProgram()
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return append(warnings, trouble(wire.NoMemoryLock, err))
	}
	if lockedBytes() > maxLocked {
		warnings = append(warnings, wire.Warning{Trouble: wire.MuchLocked})
	}
	return warnings
}

// touchProgram reads one byte of each page of this program's own file mappings.
func touchProgram() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	var touched byte
	for line := range bytes.SplitSeq(maps, []byte("\n")) {
		f := bytes.Fields(line)
		if len(f) < 6 || f[1][0] != 'r' || string(f[5]) != self {
			continue
		}
		from, to, _ := strings.Cut(string(f[0]), "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		for page := a; page < b; page += uint64(os.Getpagesize()) {
			touched ^= *(*byte)(addressOf(page))
		}
	}
	runtime.KeepAlive(touched) // the reads are not left out
}

// addressOf turns an address of the program's own image, which the runtime does not manage, into a pointer.
func addressOf(a uint64) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

// lockedBytes is what the kernel keeps locked for this process: with everything locked, all that is resident. VmLck of
// /proc/self/status counts address space instead, and Locked of smaps shares pages out among the processes that map them.
func lockedBytes() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return n << 10
		}
	}
	return 0
}
