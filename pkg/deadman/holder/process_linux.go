package holder

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The holder's protocol, over a unix seqpacket socket: messages of one fixed size, the first byte says what it is.
const (
	opEmpty = 'e' // holder: I hold nothing
	opCopy  = 'c' // holder: I hold this (label, device, pidfd)
	opHold  = 'H' // deadman: hold this instead (label, device, pidfd)
	opHeld  = 'h' // holder: done
	opDrop  = 'D' // deadman: close your copy and end
	opGone  = 'd' // holder: closed

	messageSize = 2 + MaxLabel
	maxClients  = 8
)

func pack(op byte, label string) []byte {
	b := make([]byte, messageSize)
	b[0] = op
	b[1] = byte(copy(b[2:], label))
	return b
}

func unpack(b []byte) (op byte, label string, err error) {
	if len(b) != messageSize || int(b[1]) > MaxLabel {
		return 0, "", fmt.Errorf("a message of %d bytes is none of the holder's protocol", len(b))
	}
	return b[0], string(b[2 : 2+int(b[1])]), nil
}

// send sends a message with descriptors, none if there are none.
func send(fd int, op byte, label string, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(fd, pack(op, label), oob, nil, unix.MSG_NOSIGNAL)
}

// receive takes one message and the descriptors that came with it.
func receive(fd int) (op byte, label string, fds []int, err error) {
	b, oob := make([]byte, messageSize+1), make([]byte, unix.CmsgSpace(8*4))
	n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, "", nil, err
	}
	if n == 0 {
		return 0, "", nil, errors.New("the other side has closed the connection")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, "", nil, err
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	op, label, err = unpack(b[:n])
	if err != nil {
		closeAll(fds)
	}
	return op, label, fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// wait polls for input, at most d.
func wait(fd int, d time.Duration) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, int(d/time.Millisecond))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("no answer in time")
		}
		return nil
	}
}

// A Process is a deadman's connection to its holder process.
type Process struct {
	fd       int
	patience time.Duration
}

// Connect connects to a holder. It returns the copy that the holder has kept for a successor, nil if it has none. The caller
// owns the copy's descriptors. Each answer of the holder may take as long as patience.
func Connect(path string, patience time.Duration) (*Process, *Copy, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket for the descriptor holder: %w", err)
	}
	fail := func(err error) (*Process, *Copy, error) {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("connect to the descriptor holder %s: %w", path, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fail(err)
	}
	if err := wait(fd, patience); err != nil {
		return fail(err)
	}
	op, label, fds, err := receive(fd)
	switch {
	case err != nil:
		return fail(err)
	case op == opEmpty && len(fds) == 0:
		return &Process{fd: fd, patience: patience}, nil, nil
	case op == opCopy && len(fds) == 2:
		return &Process{fd: fd, patience: patience}, &Copy{Device: fds[0], PidFD: fds[1], Label: label}, nil
	}
	closeAll(fds)
	return fail(fmt.Errorf("it greets with %q and %d descriptors", op, len(fds)))
}

// Hold gives the holder a copy in place of the one that it may have.
func (p *Process) Hold(c Copy) error {
	label := c.Label[:min(len(c.Label), MaxLabel)]
	if err := send(p.fd, opHold, label, c.Device, c.PidFD); err != nil {
		return fmt.Errorf("give the watchdog's descriptor to its holder: %w", err)
	}
	return p.answer(opHeld)
}

// Drop makes the holder close its copy and end.
func (p *Process) Drop() error {
	if err := send(p.fd, opDrop, ""); err != nil {
		return fmt.Errorf("ask the descriptor holder to give its copy up: %w", err)
	}
	return p.answer(opGone)
}

func (p *Process) answer(want byte) error {
	if err := wait(p.fd, p.patience); err != nil {
		return fmt.Errorf("wait for the descriptor holder: %w", err)
	}
	op, _, fds, err := receive(p.fd)
	closeAll(fds)
	if err == nil && op != want {
		err = fmt.Errorf("it answers %q instead of %q", op, want)
	}
	if err != nil {
		return fmt.Errorf("hear from the descriptor holder: %w", err)
	}
	return nil
}

// Descriptor becomes readable when the holder is gone: it sends nothing unasked.
func (p *Process) Descriptor() int { return p.fd }

// Close ends the connection; the holder keeps its copy.
func (p *Process) Close() { unix.Close(p.fd) }

// keeping is the state of a holder process.
type keeping struct {
	listen  int
	clients []int
	owner   int // the client that gave the copy, 0 for none
	held    *Copy
}

// Run is the holder process: it serves the socket until the deadman that gave the copy asks it to drop it. If nobody gives it
// anything within idle it ends too. It never writes to the device.
func Run(path string, idle time.Duration) error {
	fd, err := listen(path)
	if err != nil {
		return err
	}
	k := &keeping{listen: fd}
	defer os.Remove(path)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for _, c := range k.clients {
			p = append(p, unix.PollFd{Fd: int32(c), Events: unix.POLLIN})
		}
		patience := -1
		if k.held == nil && len(k.clients) == 0 {
			patience = int(idle / time.Millisecond)
		}
		n, err := unix.Poll(p, patience)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for a deadman: %w", err)
		case n == 0:
			return fmt.Errorf("nobody gave anything to hold within %v", idle)
		}
		if p[0].Revents != 0 {
			k.accept()
		}
		for _, c := range p[1:] {
			if c.Revents != 0 && k.serve(int(c.Fd)) {
				return nil
			}
		}
	}
}

// listen makes the socket, 0600, in place of one that nobody serves any more.
func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make the holder's socket: %w", err)
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make the holder's socket: %w", err)
	}
	defer unix.Close(probe)
	if unix.Connect(probe, &unix.SockaddrUnix{Name: path}) == nil {
		return -1, fmt.Errorf("another descriptor holder already serves %s", path)
	}
	_ = os.Remove(path)
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		return -1, fmt.Errorf("bind the holder's socket %s: %w", path, err)
	}
	if err := unix.Listen(fd, maxClients); err != nil {
		return -1, fmt.Errorf("listen on the holder's socket %s: %w", path, err)
	}
	return fd, nil
}

// accept takes a client of the same user or root and greets it with what is held.
func (k *keeping) accept() {
	c, _, err := unix.Accept4(k.listen, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	cred, err := unix.GetsockoptUcred(c, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) || len(k.clients) >= maxClients {
		unix.Close(c)
		return
	}
	if k.held == nil {
		err = send(c, opEmpty, "")
	} else {
		err = send(c, opCopy, k.held.Label, k.held.Device, k.held.PidFD)
	}
	if err != nil {
		unix.Close(c)
		return
	}
	k.clients = append(k.clients, c)
}

// serve handles one message of a client; end says that the holder is to end.
func (k *keeping) serve(c int) (end bool) {
	op, label, fds, err := receive(c)
	switch {
	case err == nil && op == opHold && len(fds) == 2:
		old := k.held
		k.held, k.owner = &Copy{Device: fds[0], PidFD: fds[1], Label: label}, c
		if old != nil { // after the new copy is here: the last close would pet
			unix.Close(old.Device)
			unix.Close(old.PidFD)
		}
		err = send(c, opHeld, "")
	case err == nil && op == opDrop && len(fds) == 0 && c == k.owner:
		unix.Close(k.held.Device)
		unix.Close(k.held.PidFD)
		_ = send(c, opGone, "")
		return true
	case err == nil:
		closeAll(fds)
		err = errors.New("not understood")
	}
	if err != nil {
		k.forget(c)
	}
	return false
}

func (k *keeping) forget(c int) {
	unix.Close(c)
	if k.owner == c {
		k.owner = 0 // what it gave is kept for its successor
	}
	for i := range k.clients {
		if k.clients[i] == c {
			k.clients = append(k.clients[:i], k.clients[i+1:]...)
			return
		}
	}
}
