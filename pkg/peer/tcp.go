package peer

import (
	"context"
	"net"
	"time"
)

// userTimeout is for how long sent bytes may stay unacknowledged by the other kernel. That kernel acknowledges however busy
// its processes are, so this tells of the path and the machine, not of load.
const userTimeout = time.Second

// keepAlive finds the ends of idle connections whose other side has vanished.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

// Go sets TCP_NODELAY by itself.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tune(c)
	return c, nil
}

func listenTCP(address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return tuned{l}, nil
}

type tuned struct{ net.Listener }

func (t tuned) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err == nil {
		tune(c)
	}
	return c, err
}
