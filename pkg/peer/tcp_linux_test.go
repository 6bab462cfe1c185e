package peer

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ends of a real connection give up after userTimeout, send at once, and keep alive.
func TestSocketOptions(t *testing.T) {
	l, err := listenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	c, err := dialTCP(context.Background(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-accepted
	defer s.Close()
	for name, end := range map[string]net.Conn{"dialled": c, "accepted": s} {
		for _, o := range []struct {
			name        string
			level, opt  int
			want, least int
		}{
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1000, 0},
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 0, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2, 0},
		} {
			raw, err := end.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got int
			var serr error
			if err := raw.Control(func(fd uintptr) { got, serr = unix.GetsockoptInt(int(fd), o.level, o.opt) }); err != nil || serr != nil {
				t.Fatal(err, serr)
			}
			if got != o.want && o.least == 0 || got < o.least {
				t.Errorf("%s end: %s is %d", name, o.name, got)
			}
		}
	}
}
