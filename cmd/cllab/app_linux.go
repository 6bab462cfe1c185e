package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// The demo application: it answers every line (TCP) or datagram (UDP) with the node's name, its own process id and a counter
// that it keeps in a file. It holds an exclusive lock in its data directory while it runs, so that a second copy anywhere in
// the lab is noticed: by the copy, which ends, by a file called double-start, and by `cllab watch`.
type app struct {
	name, listen, data, pidFile, log string
	wait                             time.Duration

	mu      sync.Mutex
	counter int64
	file    *os.File
	held    *os.File // the lock; it must stay open
}

func appCommand() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{Use: "app", Short: "A small application to run in a lab: start, stop, status, run",
		Long: `A small application for labs, with start, stop and status commands as a cluster wants them. It answers each line (TCP) or
datagram (UDP) with "node=NAME pid=N count=N echo=WHAT WAS SENT". The counter lives in the data directory and goes on where the
last copy stopped.`}
	f := cmd.PersistentFlags()
	f.StringVar(&a.name, "app", "app", "name of the application")
	f.StringVar(&a.listen, "listen", ":8080", "address and port to answer on")
	f.StringVar(&a.data, "data", "", "data directory (default /shared/APP)")
	f.StringVar(&a.pidFile, "pid-file", "", "file with the process id (default /run/APP.pid)")
	f.StringVar(&a.log, "log", "", "file for messages (default /run/APP.log)")
	f.DurationVar(&a.wait, "wait", 10*time.Second, "start: how long until it must answer; stop: until it is killed")
	add := func(use, short string, run func(context.Context) error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Args: args(0, 0), RunE: func(c *cobra.Command, _ []string) error {
			a.defaults()
			return run(c.Context())
		}})
	}
	add("run", "Run in the foreground", a.run)
	add("start", "Start in the background; return when it answers", a.start)
	add("stop", "Stop it; return when it has ended", a.stop)
	add("status", "Exit status 0 if it runs, 3 if not", a.status)
	return cmd
}

func (a *app) defaults() {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&a.data, "/shared/"+a.name)
	set(&a.pidFile, "/run/"+a.name+".pid")
	set(&a.log, "/run/"+a.name+".log")
}

// run answers until a signal comes. When descriptor 3 was passed by start, it is closed once the application answers.
func (a *app) run(ctx context.Context) error {
	if err := a.open(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", a.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := os.WriteFile(a.pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	if os.Getenv("CLLAB_APP_READY") != "" {
		r := os.NewFile(3, "ready")
		_, _ = r.WriteString("ok\n")
		r.Close()
	}
	go a.serveTCP(l)
	go a.serveUDP(u)
	<-ctx.Done()
	return os.Remove(a.pidFile)
}

// open takes the lock and reads the counter.
func (a *app) open() error {
	if err := os.MkdirAll(a.data, 0o755); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(a.data, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the lock: %w", err)
	}
	if err := a.lock(lock); err != nil {
		return err
	}
	a.held = lock
	a.file, err = os.OpenFile(filepath.Join(a.data, "counter"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the counter: %w", err)
	}
	b := make([]byte, 21)
	n, _ := a.file.ReadAt(b, 0) // a short file is a new one
	if text := strings.TrimSpace(string(b[:n])); text != "" {
		if a.counter, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("read the counter %s: %w", a.file.Name(), err)
		}
	}
	return nil
}

// lock takes the lock. When another copy has it, it is noted down, waited for a second in a way that /proc/locks shows, and
// then it is an error. The descriptor stays open for the life of the process.
func (a *app) lock(f *os.File) error {
	fd := int(f.Fd())
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	host, _ := os.Hostname()
	line := fmt.Sprintf("%s %s pid %d: another copy of %s runs\n", time.Now().Format(time.RFC3339Nano), host, os.Getpid(), a.name)
	if note, err := os.OpenFile(filepath.Join(a.data, "double-start"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err == nil {
		_, _ = note.WriteString(line)
		note.Close()
	}
	got := make(chan error, 1)
	go func() { got <- unix.Flock(fd, unix.LOCK_EX) }()
	select {
	case err := <-got:
		return err
	case <-time.After(time.Second):
		return fmt.Errorf("another copy of %s holds %s", a.name, f.Name())
	}
}

// answer counts, keeps the count, and makes the answer's line.
func (a *app) answer(request string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counter++
	if _, err := a.file.WriteAt(fmt.Appendf(nil, "%020d\n", a.counter), 0); err != nil {
		return "error " + err.Error()
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("node=%s pid=%d count=%d echo=%s", host, os.Getpid(), a.counter, request)
}

func (a *app) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			sc := bufio.NewScanner(c)
			for sc.Scan() {
				if _, err := fmt.Fprintln(c, a.answer(sc.Text())); err != nil {
					return
				}
			}
		}()
	}
}

func (a *app) serveUDP(u net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = u.WriteTo([]byte(a.answer(strings.TrimSpace(string(buf[:n])))+"\n"), from)
	}
}

// start runs the application in the background, in a session of its own.
func (a *app) start(ctx context.Context) error {
	if pid := a.running(); pid != 0 {
		fmt.Printf("%s runs already, process %d\n", a.name, pid)
		return nil
	}
	log, err := os.OpenFile(a.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "app", "run", "--app", a.name, "--listen", a.listen, "--data", a.data,
		"--pid-file", a.pidFile, "--log", a.log)
	cmd.Args[0] = "cllab-app-" + a.name
	cmd.Env = append(os.Environ(), "CLLAB_APP_READY=1")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", a.name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(a.wait))
	if n, _ := r.Read(make([]byte, 8)); n == 0 {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("%s does not start; its log %s ends with: %s", a.name, a.log, tail(a.log, 1))
	}
	return nil
}

// running is the process id of the application, 0 when it does not run. The pid file alone proves nothing.
func (a *app) running() int {
	b, err := os.ReadFile(a.pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	words := strings.Split(string(line), "\x00")
	for i := range words {
		if err == nil && i > 0 && words[i-1] == "--app" && words[i] == a.name {
			return pid
		}
	}
	if err == nil && len(words) > 2 && words[1] == "app" && words[2] == "run" && a.name == "app" {
		return pid
	}
	return 0
}

func (a *app) stop(ctx context.Context) error {
	pid := a.running()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	} else if err != nil {
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		if awaitPidfd(ctx, fd, a.wait) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

func awaitPidfd(ctx context.Context, fd int, wait time.Duration) bool {
	for deadline := time.Now().Add(wait); time.Now().Before(deadline) && ctx.Err() == nil; {
		left := min(time.Until(deadline), 100*time.Millisecond)
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); n > 0 {
			return true
		}
	}
	return false
}

func (a *app) status(context.Context) error {
	if pid := a.running(); pid != 0 {
		fmt.Printf("%s runs, process %d\n", a.name, pid)
		return nil
	}
	return &exitError{code: 3, err: fmt.Errorf("%s does not run", a.name)}
}
