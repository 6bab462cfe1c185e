package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A node's init is process 1 of the node's namespaces. It arranges the node, keeps the product's daemons running, reaps
// orphans, and runs commands on order. It dies with the supervisor, and the whole node with it.

// initConfig is the first message from the supervisor.
type initConfig struct {
	Hostname  string   `json:"hostname"`
	Addresses []string `json:"addresses"` // with prefix length; one per interface eth0, eth1, ...
	NodeDir   string   `json:"node_dir"`  // paths outside
	SharedDir string   `json:"shared_dir"`
	BinDir    string   `json:"bin_dir"`
	LabDir    string   `json:"lab_dir"`
	Cgroup    bool     `json:"cgroup"` // the init is in a cgroup of its own
	Hosts     string   `json:"hosts"`
	Daemons   []daemon `json:"daemons"`
}

// toInit is an order.
type toInit struct {
	Op   string   `json:"op"` // "exec", with connection, stdin, stdout, stderr
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
}

// fromInit is a report.
type fromInit struct {
	Ready  bool   `json:"ready,omitempty"`
	Error  string `json:"error,omitempty"`
	Daemon string `json:"daemon,omitempty"` // this daemon has started (PID) or ended (no PID)
	PID    int    `json:"pid,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// restartDelay is how long the init waits before it starts a daemon again.
const restartDelay = 50 * time.Millisecond

// initEnv carries the configuration from the init's first run to its second.
const initEnv = "CLLAB_INIT"

// initMain is `cllab node-init`. It runs twice: the first time it waits for its cgroup and enters a cgroup namespace, which a
// Go program can only do for one thread, and then executes itself again on that thread, so that all threads are inside.
func initMain() int {
	runtime.LockOSThread()
	sup, err := unixConn(os.NewFile(3, "supervisor"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "cllab node-init is started by the lab's supervisor only:", err)
		return 2
	}
	orders, second := os.LookupEnv(initEnv)
	if !second {
		return initStage1(sup)
	}
	var cfg initConfig
	if err := json.Unmarshal([]byte(orders), &cfg); err != nil {
		return initFailed(sup, err)
	}
	shrugOff(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	n := &nodeInit{cfg: cfg, sup: sup, children: map[int]func(syscall.WaitStatus){}}
	n.reap()
	n.commands = newThread(nil)
	n.services = newThread(func() { setNice(-15) })
	if err := n.arrange(); err != nil {
		return initFailed(sup, err)
	}
	if err := send(sup, fromInit{Ready: true}); err != nil {
		return 1
	}
	for _, d := range cfg.Daemons {
		n.startDaemon(d, 1)
	}
	return n.serve()
}

func initFailed(sup *net.UnixConn, err error) int {
	fmt.Fprintln(os.Stderr, "cllab node-init:", err)
	_ = send(sup, fromInit{Error: err.Error()})
	return 1
}

func initStage1(sup *net.UnixConn) int {
	var cfg initConfig
	files, err := receive(sup, &cfg)
	closeAll(files)
	if err != nil {
		return 1 // the supervisor is gone
	}
	if cfg.Cgroup {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			fmt.Fprintln(os.Stderr, "no cgroup namespace:", err)
			cfg.Cgroup = false
		}
	}
	f, err := sup.File()
	if err != nil {
		return initFailed(sup, err)
	}
	if err := unix.Dup3(int(f.Fd()), 3, 0); err != nil && err != unix.EINVAL {
		return initFailed(sup, err)
	}
	if _, err := unix.FcntlInt(3, unix.F_SETFD, 0); err != nil {
		return initFailed(sup, err)
	}
	orders, err := json.Marshal(cfg)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", []string{"init-" + cfg.Hostname, "node-init"}, append(os.Environ(), initEnv+"="+string(orders)))
	}
	return initFailed(sup, fmt.Errorf("execute the init again: %w", err))
}

type nodeInit struct {
	cfg      initConfig
	sup      *net.UnixConn
	commands *thread // forks commands
	services *thread // forks the product's daemons, at a higher priority

	mu       sync.Mutex // held from a fork to the entry here, so that no child is reaped unknown
	children map[int]func(syscall.WaitStatus)
}

// arrange makes the node what it is: name, root, network.
func (n *nodeInit) arrange() error {
	if err := unix.Sethostname([]byte(n.cfg.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := buildRoot(n.cfg); err != nil {
		return err
	}
	_ = unix.Setdomainname([]byte("(none)"))
	if err := linkUp("lo"); err != nil {
		return err
	}
	for i, a := range n.cfg.Addresses {
		if err := configureInterface(interfaceName(i+1), a); err != nil {
			return err
		}
	}
	return nil
}

// serve carries out the supervisor's orders until the supervisor is gone.
func (n *nodeInit) serve() int {
	for {
		var m toInit
		files, err := receive(n.sup, &m)
		if err != nil {
			return 0
		}
		if m.Op == "exec" && len(files) == 4 {
			go n.exec(m, files)
		} else {
			closeAll(files)
		}
	}
}

// reap collects every child, own or adopted, for the life of the node.
func (n *nodeInit) reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	go func() {
		for range c {
			n.reapAll()
		}
	}()
}

func (n *nodeInit) reapAll() {
	for {
		n.mu.Lock()
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			n.mu.Unlock()
			continue
		}
		if pid <= 0 || err != nil {
			n.mu.Unlock()
			return
		}
		done := n.children[pid]
		delete(n.children, pid)
		n.mu.Unlock()
		if done != nil {
			done(ws)
		}
	}
}

// fork starts a program on the given thread; done is called once, when it has ended.
func (n *nodeInit) fork(t *thread, path string, argv []string, attr *syscall.ProcAttr, done func(syscall.WaitStatus)) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var pid int
	var err error
	t.do(func() { pid, err = syscall.ForkExec(path, argv, attr) })
	if err != nil {
		return 0, err
	}
	n.children[pid] = done
	return pid, nil
}

func (n *nodeInit) environment() []string {
	return []string{
		"PATH=" + n.cfg.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C", "TERM=dumb", "HOLDFAST_LAB_NODE=" + n.cfg.Hostname,
	}
}

// holdFile is the file that keeps a daemon from being started (again) on this node while it is there, as a service that was stopped is
// not started. It goes with the boot.
func holdFile(daemon string) string { return "/run/holdfast/hold." + daemon }

// startDaemon starts one of the product's daemons, and again whenever it ends.
func (n *nodeInit) startDaemon(d daemon, start int) {
	again := func() { time.AfterFunc(restartDelay, func() { n.startDaemon(d, start+1) }) }
	if _, err := os.Stat(holdFile(d.Name)); err == nil {
		time.AfterFunc(restartDelay, func() { n.startDaemon(d, start) })
		return
	}
	pid, err := n.forkDaemon(d, func(ws syscall.WaitStatus) {
		n.report(fromInit{Daemon: d.Name, Detail: "ended: " + describe(ws)})
		again()
	})
	if err != nil {
		n.report(fromInit{Daemon: d.Name, Detail: fmt.Sprintf("does not start: %v", err)})
		time.AfterFunc(time.Second, again)
		return
	}
	setAutogroup(pid, -15)
	n.report(fromInit{Daemon: d.Name, PID: pid, Detail: fmt.Sprintf("started, number %d", start)})
}

func (n *nodeInit) forkDaemon(d daemon, done func(syscall.WaitStatus)) (int, error) {
	out, err := os.OpenFile(filepath.Join("/var/log/holdfast", d.Program+".out"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	path := filepath.Join(n.cfg.BinDir, d.Program)
	return n.fork(n.services, path, append([]string{path}, d.Args...), &syscall.ProcAttr{
		Dir: "/", Env: n.environment(), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	}, done)
}

func (n *nodeInit) report(m fromInit) { _ = send(n.sup, m) } // without a supervisor the node is ending anyway

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal " + ws.Signal().String()
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// exec runs a command for a caller, whose connection and descriptors these are, and gives him the exit status.
func (n *nodeInit) exec(m toInit, files []*os.File) {
	conn, err := unixConn(files[0])
	if err != nil {
		closeAll(files[1:])
		return
	}
	defer conn.Close()
	ended := make(chan syscall.WaitStatus, 1)
	pid, err := n.forkCommand(m, files[1:], ended)
	closeAll(files[1:])
	if err != nil {
		code := startStatus(err)
		_ = send(conn, lab.Reply{Done: true, Exit: &code, Error: fmt.Sprintf("run %s: %v", m.Argv[0], err)})
		return
	}
	over := make(chan struct{})
	go relaySignals(conn, pid, over)
	code := exitStatus(<-ended)
	close(over)
	_ = send(conn, lab.Reply{Done: true, Exit: &code})
}

func (n *nodeInit) forkCommand(m toInit, stdio []*os.File, ended chan<- syscall.WaitStatus) (int, error) {
	env := merge(n.environment(), m.Env)
	path, err := lookPath(m.Argv[0], env)
	if err != nil {
		return 0, err
	}
	dir := m.Dir
	if dir == "" {
		dir = "/"
	}
	return n.fork(n.commands, path, m.Argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	}, func(ws syscall.WaitStatus) { ended <- ws })
}

// merge puts more over base, by name.
func merge(base, more []string) []string {
	var out []string
	for _, b := range base {
		name, _, _ := strings.Cut(b, "=")
		kept := true
		for _, m := range more {
			kept = kept && !strings.HasPrefix(m, name+"=")
		}
		if kept {
			out = append(out, b)
		}
	}
	return append(out, more...)
}

// lookPath finds a command in the PATH that it will get.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := filepath.Join(dir, name)
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", &exec.Error{Name: name, Err: errors.Join(exec.ErrNotFound, os.ErrNotExist)}
}
