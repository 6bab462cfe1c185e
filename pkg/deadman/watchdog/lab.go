package watchdog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// The lab's operations: frames of 8 bytes, the operation, three zeros, and an argument in milliseconds, big-endian.
const (
	LabSetTimeout = 'T' // answered by the same with the timeout in force
	LabGetTimeout = 'G' // answered likewise
	LabPet        = 'P'
	LabMagicClose = 'V' // if it is the last operation, closing stops the timer
	LabReset      = 'K'
	LabBootStatus = 'S' // answered by the same: 1 if the last boot was ended by the watchdog's own firing, else 0
)

// LabFrame is the length of a frame of the lab's protocol.
const LabFrame = 8

// labAnswer is how long an answer of the lab may take.
const labAnswer = 2 * time.Second

// labDevice is the lab's watchdog: a server outside the node that kills the node when it is not petted, and otherwise behaves
// as a kernel's device does, at the closing of the last descriptor too.
type labDevice struct {
	fd   int
	path string
	hit  bool // it fired before this boot
	buf  [LabFrame]byte
	in   [LabFrame]byte
	poll [1]unix.PollFd
}

var errLabAnswer = errors.New("the lab's watchdog did not answer")

func openLab(path string) (Device, error) {
	if path == "" {
		return nil, errors.New("the lab backend needs the path of the lab's watchdog socket as its device")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for the lab's watchdog: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to the lab's watchdog %s: %w", path, err)
	}
	d, err := newLab(path, fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	status, err := d.ask(LabBootStatus, 0)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ask the lab's watchdog %s for its boot status: %w", path, err)
	}
	d.hit = status != 0
	return d, nil
}

func adoptLab(path string, fd int) (Device, error) {
	d, err := newLab(path, fd)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func newLab(path string, fd int) (*labDevice, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("prepare the lab's watchdog %s: %w", path, err)
	}
	return &labDevice{fd: fd, path: path}, nil
}

func (d *labDevice) Facts() Facts {
	return Facts{Name: "lab " + d.path, Class: lease.Independent, Watches: true, Fired: d.hit}
}

func (d *labDevice) Descriptor() int { return d.fd }

func (d *labDevice) send(op byte, ms uint32) error {
	d.buf = [LabFrame]byte{op}
	binary.BigEndian.PutUint32(d.buf[4:], ms)
	n, err := unix.Write(d.fd, d.buf[:])
	if err == nil && n != LabFrame {
		return unix.EIO
	}
	return err
}

// ask sends an operation that is answered. What lies in the socket before is an answer to a predecessor that died.
func (d *labDevice) ask(op byte, ms uint32) (time.Duration, error) {
	for {
		if n, err := unix.Read(d.fd, d.in[:]); n <= 0 || err != nil {
			break
		}
	}
	if err := d.send(op, ms); err != nil {
		return 0, err
	}
	for range 4 {
		if err := d.receive(); err != nil {
			return 0, err
		}
		if d.in[0] == op {
			return time.Duration(binary.BigEndian.Uint32(d.in[4:])) * time.Millisecond, nil
		}
	}
	return 0, errLabAnswer
}

func (d *labDevice) receive() error {
	for have := 0; have < LabFrame; {
		d.poll[0] = unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
		n, err := unix.Poll(d.poll[:], int(labAnswer/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errLabAnswer
		}
		n, err = unix.Read(d.fd, d.in[have:])
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EPIPE
		}
		have += n
	}
	return nil
}

func (d *labDevice) Pet() error { return d.send(LabPet, 0) }

func (d *labDevice) SetTimeout(t time.Duration) (time.Duration, error) {
	return d.ask(LabSetTimeout, uint32((t+time.Millisecond-1)/time.Millisecond))
}

func (d *labDevice) Timeout() (time.Duration, error) { return d.ask(LabGetTimeout, 0) }

func (d *labDevice) Reset() { _ = d.send(LabReset, 0) } // nothing can be done about a failure: the timer runs on

func (d *labDevice) Stop() error {
	if err := d.send(LabMagicClose, 0); err != nil {
		return fmt.Errorf("stop the lab's watchdog %s: %w", d.path, err)
	}
	return unix.Close(d.fd)
}
