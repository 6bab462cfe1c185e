package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// send writes one message with descriptors to a SOCK_SEQPACKET connection.
func send(conn *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > lab.MaxMessage {
		return fmt.Errorf("message of %d bytes is larger than %d", len(b), lab.MaxMessage)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = syscall.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, oob, nil)
	return err
}

// receive reads one message into v, and the descriptors that came with it. The caller closes them. io.EOF: the peer is gone.
func receive(conn *net.UnixConn, v any) ([]*os.File, error) {
	buf, oob := make([]byte, lab.MaxMessage), make([]byte, 256)
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if errors.Is(err, io.EOF) || (err == nil && n == 0) {
		// Once more: the kernel may tell of the peer's end before it gives the peer's last message, when both have just come.
		n, oobn, flags, _, err = conn.ReadMsgUnix(buf, oob)
	}
	if err != nil {
		return nil, err
	}
	files, err := rights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	switch {
	case n == 0 && oobn == 0:
		return nil, io.EOF
	case flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0:
		err = fmt.Errorf("message larger than %d bytes", lab.MaxMessage)
	default:
		err = json.Unmarshal(buf[:n], v)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func rights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read the descriptors of a message: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// unixConn makes a connection from a descriptor, which it takes over.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor is not a unix socket")
	}
	return u, nil
}

// socketPair makes two connected SOCK_SEQPACKET sockets: a connection for here and a file for a child process.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	here, err := unixConn(os.NewFile(uintptr(fds[0]), "pair"))
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return here, os.NewFile(uintptr(fds[1]), "pair"), nil
}
