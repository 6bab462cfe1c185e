//go:build !linux

package peer

import "net"

// tune does nothing: this system has no TCP_USER_TIMEOUT, so the stall timeout of calls and the keep-alive do the work alone.
func tune(net.Conn) {}
