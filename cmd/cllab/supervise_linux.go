package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A lab has two processes of its own. The keeper is started by `cllab up`, detached; it takes the lab's lock, forks the
// supervisor into fresh namespaces at high priority, waits for its end, however that comes, and removes what the kernel does
// not remove by itself: cgroups and loop devices. The supervisor does all the rest.

// shrugOff takes signals and does nothing. Ignoring them would make all children ignore them too.
func shrugOff(signals ...os.Signal) {
	signal.Notify(make(chan os.Signal, 1), signals...)
}

// ready is what the keeper's descriptor 3 carries back to `cllab up`, once.
type ready struct {
	Error string `json:"error,omitempty"`
	PID   int    `json:"pid,omitempty"` // of the supervisor
}

// keeperMain is `cllab supervise DIR`. Descriptor 3 is the pipe to `cllab up`, descriptor 4 the lab's lock, which is held as long
// as this process has it.
func keeperMain(dir string) int {
	runtime.LockOSThread() // the supervisor dies with the thread that forked it, and this one lives to the end
	up := os.NewFile(3, "ready")
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	shrugOff(unix.SIGHUP, unix.SIGINT)
	cfg, err := lab.ReadConfig(dir)
	if err != nil {
		return refuse(up, err)
	}
	cmd, err := startSupervisor(cfg, dir, up)
	if err != nil {
		return refuse(up, err)
	}
	up.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	go func() {
		<-stop
		_ = cmd.Process.Signal(unix.SIGTERM)
	}()
	err = cmd.Wait()
	sweep(cfg, dir, slog.Default())
	if err != nil {
		slog.Error("the supervisor ended", "error", err)
		return 1
	}
	return 0
}

func refuse(up *os.File, err error) int {
	_ = json.NewEncoder(up).Encode(ready{Error: err.Error()})
	slog.Error("the lab does not start", "error", err)
	return 1
}

func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lab.LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lab's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("take the lab's lock %s: a lab of this name is running already", f.Name())
	}
	return f, nil
}

func startSupervisor(cfg *lab.Config, dir string, up *os.File) (*exec.Cmd, error) {
	setAutogroup(os.Getpid(), -20)
	words := setNice(-20)
	defer setNice(0)
	cmd := exec.Command("/proc/self/exe", "supervisor", dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "CLLAB_SCHEDULING="+words, "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{up}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
	}
	if cfg.Rootless {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return nil, explainNamespaces(err, cfg.Rootless)
	}
	return cmd, nil
}

// explainNamespaces says what on this machine forbids the lab's namespaces.
func explainNamespaces(err error, rootless bool) error {
	if !rootless {
		return fmt.Errorf("make the lab's namespaces (network, mount, IPC): %w", err)
	}
	why := restrictions()
	if why == "" {
		why = "the kernel gives no reason; root can always start a lab"
	}
	return fmt.Errorf("make a user namespace for the lab: %w (%s)", err, why)
}

// hint adds to a refusal by the kernel what restricts an ordinary user's namespaces, in a lab of such a user.
func hint(err error) error {
	if why := restrictions(); why != "" && (errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "not permitted")) {
		return fmt.Errorf("%w (%s)", err, why)
	}
	return err
}

// restrictions lists the settings that keep ordinary users from making namespaces.
func restrictions() string {
	var why []string
	for _, s := range []struct{ name, bad string }{
		{"kernel/unprivileged_userns_clone", "0"},
		{"user/max_user_namespaces", "0"},
		{"user/max_net_namespaces", "0"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1"},
	} {
		b, err := os.ReadFile("/proc/sys/" + s.name)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			why = append(why, strings.ReplaceAll(s.name, "/", ".")+" is "+s.bad)
		}
	}
	return strings.Join(why, "; ")
}

// A supervisor owns a running lab.
type supervisor struct {
	cfg        *lab.Config
	dir        string
	log        *slog.Logger
	since      time.Time
	scheduling string

	forks  *thread // forks nodes and commands, at normal priority
	eyes   *thread // forks probes and watchers, which are to see what happens when the machine is busy
	fabric *fabric
	nodes  []*node
	power  *powerSwitch
	events *eventLog

	ctx  context.Context // ends when the lab goes down
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
}

// supervisorMain is `cllab supervisor DIR`: pid of its own namespaces, descriptor 3 the pipe to `cllab up`.
func supervisorMain(dir string) int {
	runtime.LockOSThread() // so that the threads that fork are others, and this one keeps its priority
	up := os.NewFile(3, "ready")
	syscall.CloseOnExec(3)
	shrugOff(unix.SIGHUP, unix.SIGINT)
	s, listener, err := newSupervisor(dir)
	if err != nil {
		return refuse(up, hint(err))
	}
	if err := s.bootAll(); err != nil {
		s.takeDown()
		return refuse(up, hint(err))
	}
	_ = json.NewEncoder(up).Encode(ready{PID: os.Getpid()})
	up.Close()
	s.serve(listener)
	s.takeDown()
	s.log.Info("the lab is down", "cause", context.Cause(s.ctx))
	return 0
}

func newSupervisor(dir string) (*supervisor, net.Listener, error) {
	cfg, err := lab.ReadConfig(dir)
	if err != nil {
		return nil, nil, err
	}
	s := &supervisor{cfg: cfg, dir: dir, log: slog.Default(), since: time.Now(), scheduling: os.Getenv("CLLAB_SCHEDULING")}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, nil, fmt.Errorf("make the lab's mounts private: %w", err)
	}
	s.forks = newThread(func() { setNice(0) })
	s.eyes = newThread(func() { setNice(-10) })
	if s.fabric, err = newFabric(cfg, s.forks); err != nil {
		return nil, nil, err
	}
	if s.events, err = newEventLog(filepath.Join(dir, lab.EventFile)); err != nil {
		return nil, nil, err
	}
	s.power = newPowerSwitch(s)
	if err := openShared(filepath.Join(dir, lab.SharedDir)); err != nil {
		return nil, nil, err
	}
	for i := range cfg.Nodes {
		n, err := newNode(s, i+1)
		if err != nil {
			return nil, nil, err
		}
		s.nodes = append(s.nodes, n)
	}
	listener, err := listenAt(dir, lab.ControlSocket)
	if err != nil {
		return nil, nil, err
	}
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	return s, listener, os.WriteFile(filepath.Join(dir, lab.PIDFile), pid, 0o600)
}

func openShared(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make the shared directory: %w", err)
	}
	return os.Chmod(dir, 0o777|os.ModeSticky)
}

// listenAt opens a SOCK_SEQPACKET socket in a directory whose path may be longer than a socket address.
func listenAt(dir, name string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unixpacket", "/proc/self/fd/"+strconv.Itoa(int(d.Fd()))+"/"+name)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", filepath.Join(dir, name), err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path by descriptor is gone by then
	return l, os.Chmod(filepath.Join(dir, name), 0o600)
}

// bootAll boots every node, several at once, and fails if one fails.
func (s *supervisor) bootAll() error {
	errs := make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() { errs[i] = n.boot("lab up") })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serve takes orders until the lab is told to go down, by an order, a signal, or the end of the process it is tied to.
func (s *supervisor) serve(listener net.Listener) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	go func() {
		select {
		case <-signals:
			s.stop(errors.New("signal"))
		case <-s.ctx.Done():
		}
	}()
	if s.cfg.TiePID != 0 {
		go s.followProcess(s.cfg.TiePID)
	}
	context.AfterFunc(s.ctx, func() { listener.Close() })
	for {
		conn, err := listener.Accept()
		if err != nil {
			s.stop(err)
			break
		}
		s.wg.Go(func() { s.handle(conn.(*net.UnixConn)) })
	}
	<-s.ctx.Done()
}

// followProcess takes the lab down when another process ends. A process id alone could be used again; a pidfd cannot.
func (s *supervisor) followProcess(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		s.stop(fmt.Errorf("process %d, to which the lab is tied: %w", pid, err))
		return
	}
	defer unix.Close(fd)
	for s.ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if n > 0 || (err != nil && err != unix.EINTR) {
			s.stop(fmt.Errorf("process %d, to which the lab is tied, has ended", pid))
		}
	}
}

// takeDown ends every node. Whatever is left afterwards is the keeper's to sweep.
func (s *supervisor) takeDown() {
	s.stop(errors.New("down"))
	var wg sync.WaitGroup
	for _, n := range s.nodes {
		wg.Go(func() {
			if err := n.powerOff("lab down"); err != nil {
				s.log.Error("a node did not end", "node", n.name, "error", err)
			}
		})
	}
	wg.Wait()
	_ = os.Remove(filepath.Join(s.dir, lab.ControlSocket))
	_ = os.Remove(filepath.Join(s.dir, lab.PIDFile))
}

// handle serves one connection.
func (s *supervisor) handle(conn *net.UnixConn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var req lab.Request
	files, err := receive(conn, &req)
	defer closeAll(files)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			_ = send(conn, lab.Reply{Done: true, Error: "read the request: " + err.Error()})
		}
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	switch req.Op {
	case lab.OpEvents:
		s.streamEvents(conn)
		return
	case lab.OpExec:
		if err := s.exec(conn, req, files); err != nil {
			_ = send(conn, lab.Reply{Done: true, Error: err.Error()})
		}
		return
	}
	reply, err := s.order(req)
	reply.Done = true
	if err != nil {
		reply.Error = err.Error()
	}
	if err := send(conn, reply); err != nil {
		s.log.Warn("a reply did not reach its client", "order", req.Op, "error", err)
	}
}

// order carries out one request that is answered by one reply.
func (s *supervisor) order(req lab.Request) (lab.Reply, error) {
	switch req.Op {
	case lab.OpStatus:
		return lab.Reply{Status: s.status()}, nil
	case lab.OpDown:
		s.stop(errors.New("ordered down"))
		s.takeDown()
		return lab.Reply{}, nil
	case lab.OpSwitch:
		return lab.Reply{}, s.power.configure(req)
	case lab.OpHeal:
		return lab.Reply{}, s.heal(req)
	}
	n, err := s.node(req.Node)
	if err != nil {
		return lab.Reply{}, err
	}
	switch req.Op {
	case lab.OpCrash:
		return lab.Reply{}, n.crash("crash", "ordered")
	case lab.OpBoot:
		return lab.Reply{}, n.boot("ordered")
	case lab.OpPause:
		return lab.Reply{}, n.pause(req.What)
	case lab.OpResume:
		return lab.Reply{}, n.resume(req.What)
	case lab.OpCut, lab.OpUnplug:
		return lab.Reply{}, n.spoil(req)
	case lab.OpKill:
		return lab.Reply{}, n.kill(req.What)
	case lab.OpPower:
		return lab.Reply{}, n.setPower(req.What)
	}
	return lab.Reply{}, fmt.Errorf("order %q is not known to this lab", req.Op)
}

func (s *supervisor) node(name string) (*node, error) {
	for _, n := range s.nodes {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q in this lab (it has %s to %s)", name, s.nodes[0].name, s.nodes[len(s.nodes)-1].name)
}

func (s *supervisor) heal(req lab.Request) error {
	if req.Node != "" {
		n, err := s.node(req.Node)
		if err != nil {
			return err
		}
		return n.spoil(req)
	}
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.spoil(req))
	}
	return errors.Join(errs...)
}

func (s *supervisor) status() *lab.Status {
	st := &lab.Status{Lab: s.cfg.Name, Dir: s.dir, PID: os.Getpid(), Since: s.since, Config: *s.cfg,
		Client: s.cfg.ClientAddress(1), Unreach: s.power.unreachableFrom(), Scheduling: s.scheduling, Events: s.events.newest(100)}
	for _, n := range s.nodes {
		st.Nodes = append(st.Nodes, n.status())
	}
	return st
}

// streamEvents sends what is up now as events, then each event as it comes, until the client goes away.
func (s *supervisor) streamEvents(conn *net.UnixConn) {
	events, cancel := s.events.subscribe()
	defer cancel()
	for _, n := range s.nodes {
		if st := n.status(); st.PID != 0 {
			e := lab.Event{Time: st.Since, Node: st.Name, Kind: "up", Detail: "already", PID: st.PID}
			if send(conn, lab.Reply{Event: &e}) != nil {
				return
			}
		}
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = conn.Read(b[:]) // returns when the client has closed
	}()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				_ = send(conn, lab.Reply{Done: true, Error: "the listener is too slow: events were lost"})
				return
			}
			if send(conn, lab.Reply{Event: &e}) != nil {
				return
			}
		case <-gone:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// exec hands the caller's connection and descriptors to the node, which answers by itself.
func (s *supervisor) exec(conn *net.UnixConn, req lab.Request, files []*os.File) error {
	if len(files) != 3 || len(req.Argv) == 0 {
		return errors.New("exec wants a command and three descriptors")
	}
	if req.Node == lab.ClientNode {
		return s.execInClient(conn, req, files)
	}
	n, err := s.node(req.Node)
	if err != nil {
		return err
	}
	mine, err := conn.File()
	if err != nil {
		return err
	}
	defer mine.Close()
	return n.tell(toInit{Op: "exec", Argv: req.Argv, Env: req.Env, Dir: req.Dir}, append([]*os.File{mine}, files...)...)
}

// execInClient runs a command in the client's network namespace, and otherwise where the supervisor is.
func (s *supervisor) execInClient(conn *net.UnixConn, req lab.Request, files []*os.File) error {
	cmd := exec.Command(req.Argv[0], req.Argv[1:]...)
	cmd.Env = merge(os.Environ(), append([]string{"HOLDFAST_LAB_DIR=" + filepath.Dir(s.dir), "CLLAB_SCHEDULING=", "GOMAXPROCS="}, req.Env...))
	cmd.Dir = req.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	var err error
	forks := s.forks
	if req.Argv[0] == "/proc/self/exe" {
		forks = s.eyes
	}
	s.fabric.inClient(forks, func() { err = cmd.Start() })
	if err != nil {
		code := startStatus(err)
		return send(conn, lab.Reply{Done: true, Exit: &code, Error: "run " + req.Argv[0] + ": " + err.Error()})
	}
	ended := make(chan struct{})
	go relaySignals(conn, cmd.Process.Pid, ended)
	err = cmd.Wait()
	close(ended)
	code := exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus))
	return send(conn, lab.Reply{Done: true, Exit: &code})
}

// relaySignals passes what the client sends to a process group, and kills it when the client goes away before it ended.
func relaySignals(conn *net.UnixConn, pgid int, ended <-chan struct{}) {
	for {
		var sig lab.Signal
		files, err := receive(conn, &sig)
		closeAll(files)
		select {
		case <-ended:
			return
		default:
		}
		if err != nil {
			_ = unix.Kill(-pgid, unix.SIGKILL)
			return
		}
		if sig.Signal > 0 && sig.Signal < 65 {
			_ = unix.Kill(-pgid, unix.Signal(sig.Signal))
		}
	}
}

func startStatus(err error) int {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return lab.ExitNotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR):
		return lab.ExitNoExec
	}
	return lab.ExitLab
}

func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
