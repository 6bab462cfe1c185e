package holder

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names under which systemd keeps the two descriptors.
const (
	nameDevice = "watchdog"
	namePidFD  = "keeper"
	firstFD    = 3 // SD_LISTEN_FDS_START
)

// A Systemd is the descriptor store of the service that this process is the main process of.
type Systemd struct {
	socket string
	max    int // FileDescriptorStoreMax= of the unit, 0 if systemd does not say
}

// FromSystemd finds the store, nil if there is none, and the copy that a predecessor left in it, nil if there is none. It is
// to be called once: it takes over the descriptors.
func FromSystemd() (*Systemd, *Copy, error) {
	s := &Systemd{socket: os.Getenv("NOTIFY_SOCKET")}
	s.max, _ = strconv.Atoi(os.Getenv("FDSTORE"))
	copied, err := listenFDs()
	if s.socket == "" {
		s = nil
	}
	return s, copied, err
}

func listenFDs() (*Copy, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 64 {
		return nil, fmt.Errorf("LISTEN_FDS is %q: it must be a small number", os.Getenv("LISTEN_FDS"))
	}
	c := Copy{Device: -1, PidFD: -1}
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if i >= n {
			break
		}
		fd := firstFD + i
		unix.CloseOnExec(fd)
		switch base, label, _ := strings.Cut(name, "-"); {
		case base == nameDevice && c.Device < 0:
			c.Device, c.Label = fd, unescape(label)
		case base == namePidFD && c.PidFD < 0:
			c.PidFD = fd
		default:
			unix.Close(fd)
		}
	}
	switch {
	case c.Device < 0:
		if c.PidFD >= 0 {
			unix.Close(c.PidFD)
		}
		return nil, nil
	case c.PidFD < 0: // a pidfd whose process is gone may be dropped by a store that polls: systemd saw that process end
		return &c, nil
	}
	return &c, nil
}

// Capable reports whether the unit may store the two descriptors.
func (s *Systemd) Capable() bool { return s.max >= 2 }

// Hold gives the store the copy. The store drops it when the service is stopped, not when it fails.
func (s *Systemd) Hold(c Copy) error {
	if !s.Capable() {
		return errors.New("the unit's FileDescriptorStoreMax= is below 2, so systemd keeps no descriptors")
	}
	// A predecessor's pidfd goes first; its device is the same open file as ours, which the store recognises.
	if err := s.notify("FDSTOREREMOVE=1\nFDNAME=" + namePidFD); err != nil {
		return err
	}
	if err := s.notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+nameDevice+"-"+escape(c.Label), c.Device); err != nil {
		return err
	}
	if err := s.notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+namePidFD, c.PidFD); err != nil {
		return err
	}
	return s.barrier()
}

// Drop makes the store give its copy up.
func (s *Systemd) Drop(label string) error {
	if err := s.notify("FDSTOREREMOVE=1\nFDNAME=" + nameDevice + "-" + escape(label)); err != nil {
		return err
	}
	if err := s.notify("FDSTOREREMOVE=1\nFDNAME=" + namePidFD); err != nil {
		return err
	}
	return s.barrier()
}

// Ready tells systemd that the service is up.
func (s *Systemd) Ready() error { return s.notify("READY=1") }

// notify sends a message to the service manager, with at most one descriptor.
func (s *Systemd) notify(text string, fds ...int) error {
	name := s.socket
	if name == "" || (name[0] != '/' && name[0] != '@') {
		return fmt.Errorf("NOTIFY_SOCKET is %q: only unix sockets are known", name)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket for systemd: %w", err)
	}
	defer unix.Close(fd)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(text), oob, &unix.SockaddrUnix{Name: name}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell systemd at %s: %w", name, err)
	}
	return nil
}

// barrier waits until systemd has handled what was sent before: it closes the descriptor that the message carries.
func (s *Systemd) barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a pipe for systemd: %w", err)
	}
	defer unix.Close(p[0])
	err := s.notify("BARRIER=1", p[1])
	unix.Close(p[1])
	if err != nil {
		return err
	}
	if err := wait(p[0], 5*time.Second); err != nil {
		return fmt.Errorf("wait for systemd to take the descriptors: %w", err)
	}
	return nil
}

// escape writes a label with the characters that a descriptor's name may have: no colon, no control characters.
func escape(label string) string {
	var b strings.Builder
	for i := 0; i < len(label) && i < MaxLabel; i++ {
		c := label[i]
		if c <= ' ' || c >= 127 || c == ':' || c == '%' {
			fmt.Fprintf(&b, "%%%02x", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if v, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
