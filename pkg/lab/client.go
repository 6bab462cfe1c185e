package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNotRunning means that no supervisor answers for the lab.
var ErrNotRunning = errors.New("the lab is not running")

// Exit statuses of a command run by Exec that are not the command's own, as shells and container tools have them.
const (
	ExitLab      = 125 // the lab could not run the command, or the node went down under it
	ExitNoExec   = 126 // found but not executable
	ExitNotFound = 127
)

// A Client speaks the control protocol with the supervisor of the lab in one directory. Each call has its own connection, so
// a Client may be used by several goroutines.
type Client struct {
	Dir string
}

// dial connects to the control socket. Socket addresses hold 107 bytes only, so the directory goes by descriptor.
func (c Client) dial(ctx context.Context) (*net.UnixConn, error) {
	dir, err := os.Open(c.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no directory %s", ErrNotRunning, c.Dir)
	} else if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := filepath.Join(c.Dir, ControlSocket)
	if len(path) > 100 {
		path = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + ControlSocket
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: nobody listens at %s", ErrNotRunning, filepath.Join(c.Dir, ControlSocket))
	} else if err != nil {
		return nil, fmt.Errorf("reach the lab's supervisor: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

// start sends the request, with descriptors when there are some, and leaves the connection open.
func (c Client) start(ctx context.Context, req Request, files ...*os.File) (*net.UnixConn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := writeMessage(conn, req, files...); err != nil {
		conn.Close()
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return nil, fmt.Errorf("%w any more: it is going down", ErrNotRunning)
		}
		return nil, fmt.Errorf("send the order %s to the lab's supervisor: %w", req.Op, err)
	}
	return conn, nil
}

// Call sends one request and waits for its last reply. The error is the supervisor's word, if it refused.
func (c Client) Call(ctx context.Context, req Request) (*Reply, error) {
	conn, err := c.start(ctx, req)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		r, err := readReply(conn)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		} else if gone := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET); gone && req.Op == OpDown {
			return &Reply{Done: true}, nil
		} else if gone {
			return nil, fmt.Errorf("%w any more: it went down during %s %s", ErrNotRunning, req.Op, req.Node)
		} else if err != nil {
			return nil, fmt.Errorf("wait for the lab's supervisor (%s %s): %w", req.Op, req.Node, err)
		} else if r.Error != "" {
			return nil, errors.New(r.Error)
		} else if r.Done {
			return r, nil
		}
	}
}

// Status asks for a picture of the lab.
func (c Client) Status(ctx context.Context) (*Status, error) {
	r, err := c.Call(ctx, Request{Op: OpStatus})
	if err != nil {
		return nil, err
	}
	if r.Status == nil {
		return nil, errors.New("the lab's supervisor answered without a status")
	}
	return r.Status, nil
}

// Events calls f for each event from now on (and first for each node's newest boot) until the context ends, f returns false,
// or the lab goes down (ErrNotRunning).
func (c Client) Events(ctx context.Context, f func(Event) bool) error {
	conn, err := c.start(ctx, Request{Op: OpEvents})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		r, err := readReply(conn)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			return fmt.Errorf("%w any more", ErrNotRunning)
		case err != nil:
			return err
		case r.Error != "":
			return errors.New(r.Error)
		case r.Event != nil && !f(*r.Event):
			return nil
		}
	}
}

// ExecOptions is what a command in a node gets beside its arguments.
type ExecOptions struct {
	Stdin, Stdout, Stderr *os.File // nil: /dev/null
	Env                   []string // added to the node's own environment
	Dir                   string   // empty: /
	Signals               <-chan os.Signal
}

// Exec runs a command in a node (or beside them, for ClientNode) and returns its exit status. The error is set when the status
// is the lab's and not the command's. When the context ends the command's process group is killed.
func (c Client) Exec(ctx context.Context, node string, argv []string, o ExecOptions) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return ExitLab, err
	}
	defer null.Close()
	files := []*os.File{o.Stdin, o.Stdout, o.Stderr}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	conn, err := c.start(ctx, Request{Op: OpExec, Node: node, Argv: argv, Env: o.Env, Dir: o.Dir}, files...)
	if err != nil {
		return ExitLab, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go forwardSignals(conn, o.Signals, done)
	for {
		r, err := readReply(conn)
		switch {
		case ctx.Err() != nil:
			return ExitLab, ctx.Err()
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			return ExitLab, fmt.Errorf("%s went down while the command ran", node)
		case err != nil:
			return ExitLab, fmt.Errorf("wait for the command in %s: %w", node, err)
		case r.Error != "" && r.Exit != nil:
			return *r.Exit, errors.New(r.Error)
		case r.Error != "":
			return ExitLab, errors.New(r.Error)
		case r.Exit != nil:
			return *r.Exit, nil
		}
	}
}

func forwardSignals(conn *net.UnixConn, signals <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s, ok := <-signals:
			if !ok {
				return
			}
			if n, ok := s.(syscall.Signal); ok {
				_ = writeMessage(conn, Signal{Signal: int(n)}) // the command may just have ended
			}
		}
	}
}

func writeMessage(conn *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("message of %d bytes is larger than %d", len(b), MaxMessage)
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

// readReply reads one message. At an end of file it reads once more: the kernel may tell a reader that does not block of the
// peer's end before it gives him the peer's last message, when both come between its two looks at the socket.
func readReply(conn *net.UnixConn) (*Reply, error) {
	buf := make([]byte, MaxMessage)
	n, err := conn.Read(buf)
	if errors.Is(err, io.EOF) {
		n, err = conn.Read(buf)
	}
	if err != nil {
		return nil, err
	}
	r := new(Reply)
	if err := json.Unmarshal(buf[:n], r); err != nil {
		return nil, fmt.Errorf("understand the supervisor's answer: %w", err)
	}
	return r, nil
}
