package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The test binary is also the tool that runs inside nodes, so that no test needs a program that the machine may lack.
const helperEnv = "CLLAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helperMain(os.Args[1:]))
	}
	os.Exit(withBinary(m.Run))
}

// program is cllab as built for this run; beside it are stand-ins for the product's daemons.
var program string

func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "cllab-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	_ = os.Chmod(dir, 0o755) // an ordinary user must be able to run it
	program = filepath.Join(dir, "cllab")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cllab: %v\n%s", err, out)
		return 1
	}
	for _, p := range programs() {
		script := "#!/bin/sh\necho \"$@\"\nexec sleep 1000\n"
		if p == "clstrmgrd" {
			script = "#!/bin/sh\necho \"$@\"\n" + helperEnv + "=1 exec " + os.Args[0] + " listen /run/holdfast/" + agentSocket + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte(script), 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return run()
}

// helperMain is the tool: see the cases.
func helperMain(args []string) int {
	var err error
	switch args[0] {
	case "addr-add": // CIDR DEVICE
		err = changeAddress(args[1], args[2], netlink.AddrAdd)
	case "addr-del":
		err = changeAddress(args[1], args[2], netlink.AddrDel)
	case "announce": // ADDRESS DEVICE: gratuitous ARP
		err = announce(args[1], args[2])
	case "mount": // DIRECTORY: a memory file system
		if err = os.MkdirAll(args[1], 0o755); err == nil {
			err = unix.Mount("test", args[1], "tmpfs", 0, "")
		}
	case "unmount":
		err = unix.Unmount(args[1], 0)
	case "listen": // SOCKET: takes connections and closes them
		err = listen(args[1])
	case "watchdog": // steps: see below
		err = driveWatchdog(args[1:])
	case "tree": // N: processes that fork and end all the time, until killed
		err = forkTree(args[1])
	case "reboot":
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "converse": // ADDRESS FILE: see below
		err = converse(args[1], args[2])
	case "trap": // prints the first signal and ends with 42
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM, unix.SIGINT)
		fmt.Println("ready")
		fmt.Println(<-c)
		return 42
	case "lock": // FILE, and holds it until standard input ends
		var f *os.File
		if f, err = os.OpenFile(args[1], os.O_RDWR|os.O_CREATE, 0o644); err == nil {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err == nil {
				_, _ = io.Copy(io.Discard, os.Stdin)
				f.Close()
			}
		}
	default:
		err = fmt.Errorf("helper %q?", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func listen(socket string) error {
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

// converse asks once and gets an answer, makes the file to tell so, and says what comes next on that connection.
func converse(address, file string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	buf := make([]byte, 1000)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		fmt.Println("silence")
		return nil
	}
	return err
}

func changeAddress(cidr, device string, change func(netlink.Link, *netlink.Addr) error) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD // the kernel would refuse an address that another node has
	}
	return change(l, a)
}

func announce(address, device string) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := append(net.HardwareAddr{255, 255, 255, 255, 255, 255}, i.HardwareAddr...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	ip := net.ParseIP(address).To4()
	frame = append(append(append(append(frame, i.HardwareAddr...), ip...), 0, 0, 0, 0, 0, 0), ip...)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index})
}

// driveWatchdog carries out steps on the node's watchdog: "open", "second" (a second opening must be refused), "T500" (set the
// timeout), "G" (print it), "P", "V", "K", "close", "exit" (end without closing), "wait500" (milliseconds), "pet500" (pet every
// 20 ms for 500), "hold" (stay).
func driveWatchdog(steps []string) error {
	var c net.Conn
	var err error
	for _, s := range steps {
		number, _ := strconv.Atoi(strings.TrimLeft(s, "TGPVKabcdefghijklmnopqrstuvwxyz"))
		switch {
		case s == "open":
			c, err = net.Dial("unix", "/run/holdfast/watchdog.sock")
		case s == "second":
			err = refused()
		case s == "close":
			err = c.Close()
		case s == "exit":
			os.Exit(0)
		case s == "hold":
			<-time.After(time.Hour) // in an empty select the runtime would see a deadlock
		case strings.HasPrefix(s, "wait"):
			<-time.After(time.Duration(number) * time.Millisecond)
		case strings.HasPrefix(s, "pet"):
			for range number / 20 {
				if _, err = c.Write(frame('P', 0)); err != nil {
					return err
				}
				<-time.After(20 * time.Millisecond)
			}
		default:
			_, err = c.Write(frame(s[0], time.Duration(number)*time.Millisecond))
			if err == nil && (s[0] == 'T' || s[0] == 'G') {
				var b [8]byte
				if _, err = io.ReadFull(c, b[:]); err == nil {
					fmt.Printf("%c%d\n", b[0], binary.BigEndian.Uint32(b[4:]))
				}
			}
		}
		if err != nil {
			return fmt.Errorf("step %s: %w", s, err)
		}
	}
	return nil
}

func refused() error {
	c, err := net.Dial("unix", "/run/holdfast/watchdog.sock")
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 8 || b[0] != 'B' {
		return fmt.Errorf("a second opening got % x, %w", b, err)
	}
	return nil
}

// forkTree keeps making children that make children.
func forkTree(depth string) error {
	n, err := strconv.Atoi(depth)
	if err != nil {
		return err
	}
	for {
		if n == 0 {
			return nil
		}
		cmd := exec.Command("/proc/self/exe", "tree", strconv.Itoa(n-1))
		if err := cmd.Start(); err != nil {
			return err
		}
		if n%2 == 0 {
			_ = cmd.Process.Release() // an orphan or a zombie, as it comes
			var ws syscall.WaitStatus
			_, _ = syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		} else {
			_ = cmd.Wait()
		}
	}
}

// startLab starts a lab for the test and takes it down after it.
func startLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	o.Binary = program
	if o.BaseDir == "" {
		o.BaseDir = t.TempDir()
	}
	l, err := lab.Up(t.Context(), o)
	if err != nil && os.Getuid() != 0 && restrictions() != "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(l.Dir, lab.LogFile))
			t.Logf("the lab's log:\n%s", b)
		}
		if err := l.Down(ctx, false); err != nil && !errors.Is(err, lab.ErrNotRunning) {
			t.Error(err)
		}
	})
	return l
}

// must runs a command in a node that is to succeed, and returns its output.
func must(t *testing.T, l *lab.Lab, node string, argv ...string) string {
	t.Helper()
	r, err := l.Run(t.Context(), node, argv...)
	if err != nil || r.Code != 0 {
		t.Fatalf("%s: %q: exit status %d, %v: %s%s", node, argv, r.Code, err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// helper is the argument list that runs the tool in a node.
func helper(args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{"/usr/bin/env", helperEnv + "=1", self}, args...)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func nodeStatus(t *testing.T, l *lab.Lab, name string) lab.NodeStatus {
	t.Helper()
	st, err := l.Status(t.Context())
	check(t, err)
	for _, n := range st.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s in the status", name)
	return lab.NodeStatus{}
}

// events lists the kinds of a node's events, oldest first.
func events(t *testing.T, l *lab.Lab, node string) []lab.Event {
	t.Helper()
	st, err := l.Status(t.Context())
	check(t, err)
	var list []lab.Event
	for _, e := range st.Events {
		if e.Node == node {
			list = append(list, e)
		}
	}
	return list
}
