package server

import (
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A gate bounds the open connections of one listener, and those of each caller, so that one user (or one host) who opens
// connections and says nothing cannot keep the others out. A connection over the limit is closed at once. Administrators on
// the local socket are counted apart: a crowd of viewers never keeps them out.
type gate struct {
	max    int
	access Access

	mu     sync.Mutex
	total  int
	counts map[string]int
	open   map[net.Conn]string
}

const adminKey = "admin"

func newGate(limit int, access Access) *gate {
	return &gate{max: limit, access: access, counts: map[string]int{}, open: map[net.Conn]string{}}
}

// state is the server's connection hook; for a new connection it runs before anything is read from it.
func (g *gate) state(c net.Conn, st http.ConnState) {
	switch st {
	case http.StateNew:
		if !g.enter(c, g.key(c)) {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		g.leave(c)
	}
}

func (g *gate) enter(c net.Conn, key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case key == adminKey && g.counts[key] >= g.max:
		return false
	case key != adminKey && (g.total-g.counts[adminKey] >= g.max || g.counts[key] >= max(1, g.max/4)):
		return false
	}
	g.total++
	g.counts[key]++
	g.open[c] = key
	return true
}

func (g *gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key, ok := g.open[c]
	if !ok {
		return
	}
	delete(g.open, c)
	g.total--
	if g.counts[key]--; g.counts[key] == 0 {
		delete(g.counts, key)
	}
}

// key names whom a connection counts for: the local user, or the host it comes from.
func (g *gate) key(c net.Conn) string {
	if c.LocalAddr().Network() == "unix" {
		who, err := g.access.caller(c)
		switch {
		case err != nil:
			return "refused"
		case who.Role == api.RoleAdmin:
			return adminKey
		}
		return "uid " + strconv.Itoa(who.UID)
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		host = c.RemoteAddr().String()
	}
	return "host " + host
}
