package aix

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The interfaces of this network namespace, under AIX's names: the first is en0.
func realInterfaces() ([]*Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	sort.Slice(all, func(a, b int) bool { return all[a].Index < all[b].Index })
	var out []*Interface
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) != 6 {
			continue
		}
		e := &Interface{Name: fmt.Sprintf("en%d", len(out)), Down: i.Flags&net.FlagUp == 0, NoLink: i.Flags&net.FlagRunning == 0}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				e.Addresses = append(e.Addresses, a.String())
			}
		}
		out = append(out, e)
	}
	return out, nil
}

func realInterface(name string) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	sort.Slice(all, func(a, b int) bool { return all[a].Index < all[b].Index })
	n := 0
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) != 6 {
			continue
		}
		if fmt.Sprintf("en%d", n) == name {
			return &i, nil
		}
		n++
	}
	return nil, fmt.Errorf("there is no interface %s", name)
}

// realAlias puts the address on the interface and announces it, as AIX does by itself.
func realAlias(name, cidr string) error {
	i, err := realInterface(name)
	if err != nil {
		return err
	}
	if err := changeAddress(i.Index, cidr, syscall.RTM_NEWADDR); err != nil && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	return gratuitous(i, cidr)
}

func realDelete(name, cidr string) error {
	i, err := realInterface(name)
	if err != nil {
		return err
	}
	return changeAddress(i.Index, cidr, syscall.RTM_DELADDR)
}

// changeAddress asks the kernel by netlink.
func changeAddress(index int, cidr string, what uint16) error {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return err
	}
	a := p.Addr().AsSlice()
	family := byte(syscall.AF_INET)
	if p.Addr().Is6() {
		family = syscall.AF_INET6
	}
	var body bytes.Buffer
	body.Write([]byte{family, byte(p.Bits()), 0, 0})
	_ = binary.Write(&body, binary.NativeEndian, uint32(index))
	for _, kind := range []uint16{syscall.IFA_LOCAL, syscall.IFA_ADDRESS} {
		_ = binary.Write(&body, binary.NativeEndian, []uint16{uint16(4 + len(a)), kind})
		body.Write(a)
	}
	flags := uint16(syscall.NLM_F_REQUEST | syscall.NLM_F_ACK)
	if what == syscall.RTM_NEWADDR {
		flags |= syscall.NLM_F_CREATE | syscall.NLM_F_EXCL
	}
	var msg bytes.Buffer
	_ = binary.Write(&msg, binary.NativeEndian, syscall.NlMsghdr{Len: uint32(16 + body.Len()), Type: what, Flags: flags, Seq: 1})
	msg.Write(body.Bytes())
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := syscall.Sendto(fd, msg.Bytes(), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return fmt.Errorf("netlink: %d bytes, %w", n, err)
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[16:20])); errno != 0 {
		return syscall.Errno(-errno)
	}
	return nil
}

// gratuitous announces an IPv4 address three times.
func gratuitous(i *net.Interface, cidr string) error {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || p.Addr().Is6() {
		return err
	}
	proto := uint16(syscall.ETH_P_ARP)
	proto = proto<<8 | proto>>8
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil // no right to: the neighbours find out by themselves
	}
	defer syscall.Close(fd)
	all := bytes.Repeat([]byte{0xff}, 6)
	a := p.Addr().AsSlice()
	var f bytes.Buffer
	f.Write(all)
	f.Write(i.HardwareAddr)
	f.Write([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	f.Write(i.HardwareAddr)
	f.Write(a)
	f.Write(all)
	f.Write(a)
	to := &syscall.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index, Halen: 6}
	copy(to.Addr[:], all)
	for range 3 {
		_ = syscall.Sendto(fd, f.Bytes(), 0, to)
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// realARP reads the neighbours: address -> MAC, "" while it is asked for.
func realARP() (map[string]string, error) {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	s := bufio.NewScanner(f)
	s.Scan()
	for s.Scan() {
		w := strings.Fields(s.Text())
		if len(w) < 6 {
			continue
		}
		if out[w[0]] = ""; w[2] != "0x0" && w[3] != "00:00:00:00:00:00" {
			out[w[0]] = strings.ReplaceAll(w[3], ":0", ":")
		}
	}
	return out, s.Err()
}

// realForget removes a neighbour.
func realForget(addr string) error {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is6() {
		return err
	}
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for _, i := range all {
		delARP(fd, i.Name, a.As4())
	}
	return nil
}

func realMount(data, point string, readOnly bool) error {
	if err := syscall.Mount(data, point, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if readOnly {
		return syscall.Mount("", point, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	return nil
}

func realUnmount(point string) (busy bool, err error) {
	err = syscall.Unmount(point, 0)
	return errors.Is(err, syscall.EBUSY), err
}

// realUsers lists the processes that work in the mount or have a file of it open.
func realUsers(point string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		links := []string{filepath.Join(d, "cwd"), filepath.Join(d, "root"), filepath.Join(d, "exe")}
		fds, _ := filepath.Glob(filepath.Join(d, "fd", "*"))
		for _, l := range append(links, fds...) {
			if t, err := os.Readlink(l); err == nil && (t == point || strings.HasPrefix(t, point+"/")) && pid != os.Getpid() {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// spawn starts a subsystem in a session of its own, and reaps it.
func spawn(path string, args []string, stdout, stderr string) (int, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	for _, o := range []struct {
		name string
		to   *io.Writer
	}{{stdout, &cmd.Stdout}, {stderr, &cmd.Stderr}} {
		if f := outputFile(o.name); f != nil {
			defer f.Close()
			*o.to = f
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { _ = cmd.Wait() }()
	return cmd.Process.Pid, nil
}

// outputFile opens what a subsystem writes to; nil, which is /dev/null, if that cannot be.
func outputFile(name string) *os.File {
	if name == "" || name == "/dev/console" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil
	}
	return f
}

// hangChild leaves a helper behind that has this command's output open, outside its process group.
func hangChild() {
	cmd := exec.Command("/bin/sleep", "600")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "aixemu:", err)
	}
}

func terminate(pid int, force bool) {
	sig := syscall.SIGTERM
	if force {
		sig = syscall.SIGKILL
	}
	_ = syscall.Kill(pid, sig)
}
