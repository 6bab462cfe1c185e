//go:build !linux

package server

import (
	"net"
	"os"
)

const knowsPeers = false

// peerCredentials cannot ask the kernel here without cgo (AIX has SO_PEERID, which the system package does not wrap), so the
// socket's mode is the guard: ListenLocal keeps it at 0600, and whoever could connect is the daemon's own user or root. This
// file is compiled for AIX and has not run there.
func peerCredentials(*net.UnixConn) (credentials, error) {
	return credentials{uid: os.Geteuid()}, nil
}
