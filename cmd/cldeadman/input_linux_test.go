package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/holder"
	"github.com/holdfast-ha/holdfast/pkg/deadman/keeper"
	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown backend":     {[]string{"--backend", "ipmi"}, 1, `no deadman backend "ipmi"; there are watchdog, lab, reboot and halt`},
		"halt on Linux":       {[]string{"--backend", "halt"}, 1, "AIX only"},
		"lab without device":  {[]string{"--backend", "lab"}, 1, "needs the path"},
		"lab that is not":     {[]string{"--backend", "lab", "--device", filepath.Join(dir, "x")}, 1, "no such file"},
		"device that is none": {[]string{"--backend", "watchdog", "--device", filepath.Join(dir, "x")}, 1, "open the watchdog"},
		"device of no kind":   {[]string{"--backend", "watchdog", "--device", "/dev/null"}, 1, "ask the watchdog /dev/null what it can do"},
		"negative timeout":    {[]string{"--watchdog-timeout", "-1s"}, 1, "not between"},
		"timeout of no unit":  {[]string{"--watchdog-timeout", "5"}, 2, `invalid value "5"`},
		"unknown flag":        {[]string{"--colour"}, 2, "not defined"},
		"an argument":         {[]string{"please"}, 1, `unexpected argument "please"`},
		"cgroup":              {[]string{"--cgroup", "x"}, 1, "leave or stay"},
		"hold without socket": {[]string{"hold"}, 1, "needs --socket"},
		"hold nowhere":        {[]string{"hold", "--socket", filepath.Join(dir, "no", "h")}, 1, "bind the holder's socket"},
	} {
		args := c.args
		if c.args[0] != "hold" {
			args = append([]string{"--socket", socket + strings.ReplaceAll(name, " ", ""), "--cgroup", "stay"}, c.args...)
		}
		out, err := exec.Command(program, args...).CombinedOutput()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: status %d, want %d; it says: %s", name, code, c.code, out)
		}
	}
}

func TestSecondDeadmanOfASocket(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	n.armed(c)
	second := n.start(program)
	<-second.done
	if second.ProcessState.ExitCode() != 1 || !strings.Contains(second.said(), "another deadman serves") {
		t.Errorf("%v: %s", second.ProcessState, second.said())
	}
	n.alive()
}

// Whatever is written to the agent's socket ends that connection, and nothing else.
func TestGarbageFromAnAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	n.armed(n.connect(lease.ModeReset)).stop()
	var version, kind [wire.Size]byte
	wire.Encode(&wire.Message{Kind: wire.Arm}, &version)
	version[2]++
	wire.Encode(&wire.Message{Kind: wire.Arm}, &kind)
	kind[3] = 99
	for _, b := range [][]byte{make([]byte, 10*wire.Size), version[:], kind[:], bytes.Repeat([]byte{0xff}, 70000), []byte("GET / HTTP/1.1\r\n\r\n" + strings.Repeat(" ", wire.Size))} {
		conn, err := net.Dial("unix", n.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(b)
		for err == nil {
			_, err = conn.Read(make([]byte, 4096))
		}
		conn.Close()
	}
	newLeader(n.connect(lease.ModeReset)).awaitGrants(n, 12)
	n.alive()
	if info, err := os.Stat(n.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the agent's socket has mode %v (%v)", info.Mode(), err)
	}
}

// What is no deadman gets nothing from a holder, and cannot make it give its copy up.
func TestGarbageToAHolder(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := n.hold()
	d := n.start(program)
	l := n.armed(n.connect(lease.ModeReset))
	for _, b := range [][]byte{{'D'}, make([]byte, 122), make([]byte, 4000), append([]byte{'D'}, make([]byte, 121)...), append([]byte{'H', 200}, make([]byte, 120)...)} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: n.holder}); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Write(fd, b)
		if p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}; true {
			if _, err := unix.Poll(p, int(patience/time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(fd)
	}
	p, left, err := holder.Connect(n.holder, patience)
	if err != nil || left == nil {
		t.Fatalf("the holder has lost its copy: %v", err)
	}
	if err := p.Drop(); err == nil {
		t.Error("a stranger made the holder give its copy up")
	}
	unix.Close(left.Device)
	unix.Close(left.PidFD)
	p.Close()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		n.signal(h, s)
	}
	granted := l.stop()
	n.kill9(d)
	end, _ := n.end()
	if err := n.within(end, granted); err != nil {
		t.Error(err)
	}
}

func TestHolderThatIsGivenNothingEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "h")
	if err := holder.Run(path, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "nobody gave anything") {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("its socket is left")
	}
}

// notifier plays systemd: it takes the notifications of one service and stores descriptors.
type notifier struct {
	path string
	fd   int
	done chan struct{}

	mu    sync.Mutex
	store map[string]*os.File
	seen  chan string
}

// stored is a copy of a descriptor in the store, nil if there is none of that name.
func (s *notifier) stored(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store[name] == nil {
		return nil
	}
	fd, err := unix.FcntlInt(s.store[name].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func newNotifier(t *testing.T) *notifier {
	t.Helper()
	s := &notifier{path: filepath.Join(t.TempDir(), "notify"), store: map[string]*os.File{}, seen: make(chan string, 64), done: make(chan struct{})}
	var err error
	if s.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(s.fd, &unix.SockaddrUnix{Name: s.path}); err != nil {
		t.Fatal(err)
	}
	go s.run()
	t.Cleanup(func() {
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
		<-s.done
		unix.Close(s.fd)
		for _, f := range s.store {
			f.Close()
		}
	})
	return s
}

func (s *notifier) run() {
	defer close(s.done)
	b, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for i := range messages {
				got, _ := unix.ParseUnixRights(&messages[i])
				fds = append(fds, got...)
			}
		}
		s.take(string(b[:n]), fds)
	}
}

func (s *notifier) take(text string, fds []int) {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		k, v, _ := strings.Cut(line, "=")
		fields[k] = v
	}
	name := fields["FDNAME"]
	s.mu.Lock()
	switch {
	case fields["FDSTORE"] == "1" && len(fds) == 1 && s.store[name] == nil: // systemd knows the same open file again
		s.store[name] = os.NewFile(uintptr(fds[0]), name)
		fds = nil
	case fields["FDSTOREREMOVE"] == "1" && s.store[name] != nil:
		s.store[name].Close()
		delete(s.store, name)
	}
	s.mu.Unlock()
	for _, fd := range fds { // of a barrier
		unix.Close(fd)
	}
	s.seen <- text
}

// await waits for a notification.
func (s *notifier) await(t *testing.T, text string) {
	t.Helper()
	for {
		select {
		case got := <-s.seen:
			if strings.HasPrefix(got, text) {
				return
			}
		case <-time.After(patience):
			t.Fatalf("systemd was never told %s", text)
		}
	}
}

// TestA2SystemdStoreHolds is the hand-over by way of a service manager's descriptor store.
func TestA2SystemdStoreHolds(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.holder = ""
	s := newNotifier(t)
	d1 := n.start(program, "NOTIFY_SOCKET="+s.path, "FDSTORE=2")
	s.await(t, "READY=1")
	c := n.connect(lease.ModeReset)
	n.armed(c)
	if i := c.Info(); !i.Held || i.Watchdog != i.Device {
		t.Errorf("with systemd's store the deadman says %+v", i)
	}
	n.kill9(d1)
	device, pidfd := s.stored("watchdog-lab%20"+n.dog.path), s.stored("keeper")
	if device == nil || pidfd == nil {
		t.Fatalf("the store has %v and %v", device, pidfd)
	}

	// systemd starts the service again, and hands it what it has stored.
	script := `export LISTEN_PID=$$; exec "$0" "$@"`
	d2 := &process{Cmd: exec.Command("/bin/sh", "-c", script, program, "--socket", n.socket, "--backend", "lab", "--device", n.dog.path), done: make(chan struct{})}
	d2.ExtraFiles = []*os.File{device, pidfd}
	d2.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.path, "FDSTORE=2", "LISTEN_FDS=2", "LISTEN_FDNAMES=watchdog-lab%20"+n.dog.path+":keeper")
	err := d2.Start()
	device.Close() // or its last copy would be ours
	pidfd.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d2.Wait()
		close(d2.done)
	}()
	t.Cleanup(func() {
		_ = d2.Process.Kill()
		<-d2.done
	})
	s.await(t, "READY=1")
	c = n.connect(lease.ModeReset)
	if i := c.Info(); !i.TakenOver || !i.Armed || !i.Held || i.Pid != d2.Process.Pid {
		t.Errorf("the successor says %+v", i)
	}
	newLeader(c).awaitGrants(n, 12)
	n.alive()
	if opens, _ := n.dog.count(); opens != 1 {
		t.Errorf("the device was opened %d times", opens)
	}
	if err := c.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.signal(d2, syscall.SIGTERM)
	<-d2.done
	if magic := <-n.dog.ended; !magic || s.stored("keeper") != nil {
		t.Errorf("after a clean stop: magic close %v, pidfd in the store %v", magic, s.stored("keeper"))
	}
}

// Where systemd keeps no descriptors for the unit the timeout counts twice.
func TestA2SystemdWithoutStore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.holder = ""
	s := newNotifier(t)
	n.start(program, "NOTIFY_SOCKET="+s.path)
	s.await(t, "READY=1")
	if i := n.connect(lease.ModeReset).Info(); i.Held || i.Watchdog != 2*i.Device {
		t.Errorf("without a store the deadman says %+v", i)
	}
}

// The loop allocates nothing, because its garbage collector is off: here it runs inside the test, between an agent and a watchdog that
// are ends of sockets. Its kill timer is left out: it would kill the test.
func TestC2LoopAllocatesNothing(t *testing.T) {
	agent, device := socketPair(t), socketPair(t)
	dev, err := watchdog.Adopt(watchdog.Lab, "test", device[0])
	if err != nil {
		t.Fatal(err)
	}
	timer, err1 := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	stop, err2 := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	t.Cleanup(func() { unix.Close(timer); unix.Close(stop) })
	if err := errors.Join(unix.SetNonblock(agent[0], true), unix.SetNonblock(agent[1], true)); err != nil {
		t.Fatal(err)
	}
	d := &daemon{a: &acquired{}, dev: dev, agent: agent[0], listen: -1, conn: 1, wait: &waiter{timer: timer, stop: stop}}
	d.k = keeper.New(keeper.Options{Class: lease.Independent, Watchdog: time.Minute, Held: true}, now())
	d.k.Connected(1)

	var out, in [wire.Size]byte
	var m wire.Message
	send := func(m *wire.Message) {
		wire.Encode(m, &out)
		if _, err := unix.Write(agent[1], out[:]); err != nil {
			t.Fatal(err)
		}
	}
	turn := func() { // one turn of the loop
		if e := d.wait.wait(d.nextWake(), d.listen, d.agent, d.holderFD()); e.agent {
			d.read()
		}
		d.settle()
	}
	hour := wire.Settings{Watchdog: time.Minute, Hard: 50 * time.Second, MaxAge: 40 * time.Second, Margin: time.Second, Renew: time.Second}
	send(&wire.Message{Kind: wire.Hello, Settings: hour})
	send(&wire.Message{Kind: wire.Arm})
	send(&wire.Message{Kind: wire.Holds, Started: true})
	d.settle()
	turn()
	taken := d.k.Figures().Taken
	n := testing.AllocsPerRun(20, func() {
		send(&wire.Message{Kind: wire.Renew})
		for asked := false; !asked; {
			turn()
			for !asked {
				if n, err := unix.Read(agent[1], in[:]); err != nil || n != wire.Size {
					break
				}
				asked = wire.Decode(&in, &m) == nil && m.Kind == wire.Request
			}
		}
		m = wire.Message{Kind: wire.Grant, Nonce: m.Nonce, Boot: [16]byte{1}, Time: m.At}
		send(&m)
		turn()
	})
	if n != 0 {
		t.Errorf("%v allocations for one request, grant and pet", n)
	}
	if got := d.k.Figures().Taken - taken; got < 20 || d.k.Doomed() != wire.NoReason {
		t.Errorf("%d grants were taken, %s", got, d.k.Doomed().Text())
	}
}

func socketPair(t *testing.T) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds
}

func TestConnectToNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := deadman.Connect(ctx, filepath.Join(t.TempDir(), "none"), deadman.Settings{Params: timings(t), Mode: lease.ModeReset})
	if err == nil || !strings.Contains(err.Error(), "is cldeadman running?") {
		t.Errorf("%v", err)
	}
}
