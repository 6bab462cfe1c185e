package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Access says which local users have which role. Root, and the user that the daemon runs as, are administrators.
type Access struct {
	AdminGroups   []int // group ids whose members administer, and users who do, beside root and the daemon's own user
	AdminUsers    []int
	OperateGroups []int // group ids whose members operate, and users who do
	OperateUsers  []int
	ViewGroups    []int // group ids whose members view, and users who do
	ViewUsers     []int
	EveryoneViews bool
	// CommandGroups and CommandUsers may run free commands, as root may. They view at least. No other role includes this.
	CommandGroups []int
	CommandUsers  []int
}

// credentials are a local caller's, from the kernel.
type credentials struct {
	uid    int
	groups []int
}

// mode is the permission that the socket file needs for this access, and the group it is given to (-1: unchanged). The
// credentials are checked on each connection all the same.
func (a Access) mode() (os.FileMode, int) {
	groups := slices.Concat(a.AdminGroups, a.OperateGroups, a.ViewGroups, a.CommandGroups)
	switch {
	case a.EveryoneViews || len(groups) > 1 || len(a.AdminUsers)+len(a.OperateUsers)+len(a.ViewUsers)+len(a.CommandUsers) > 0:
		return 0o666, -1
	case len(groups) == 1:
		return 0o660, groups[0]
	}
	return 0o600, -1
}

func (a Access) role(c credentials) api.Role {
	in := func(gids []int) bool {
		return slices.ContainsFunc(gids, func(g int) bool { return slices.Contains(c.groups, g) })
	}
	switch {
	case c.uid == 0 || c.uid == os.Geteuid() || slices.Contains(a.AdminUsers, c.uid) || in(a.AdminGroups):
		return api.RoleAdmin
	case slices.Contains(a.OperateUsers, c.uid) || in(a.OperateGroups):
		return api.RoleOperate
	case a.EveryoneViews || slices.Contains(a.ViewUsers, c.uid) || in(a.ViewGroups) || a.commands(c):
		return api.RoleView
	}
	return api.RoleNone
}

// commands reports whether the caller may run free commands.
func (a Access) commands(c credentials) bool {
	return c.uid == 0 || c.uid == os.Geteuid() || slices.Contains(a.CommandUsers, c.uid) ||
		slices.ContainsFunc(a.CommandGroups, func(g int) bool { return slices.Contains(c.groups, g) })
}

// caller is who stands at the other end of a unix socket.
func (a Access) caller(c net.Conn) (api.Caller, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return api.Caller{}, fmt.Errorf("the connection is a %T, not a unix socket's", c)
	}
	cred, err := peerCredentials(u)
	if err != nil {
		return api.Caller{}, fmt.Errorf("read the caller's credentials: %w", err)
	}
	return api.Caller{User: userName(cred.uid), UID: cred.uid, Role: a.role(cred), Command: a.commands(cred)}, nil
}

func userName(uid int) string {
	if uid == 0 {
		return "root" // also where the user database cannot be read
	}
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// onBehalf is the caller behind a member: what the member says, and by whom it was passed on. With nothing said the member
// speaks for itself, as an administrator: members are trusted with more than this (they run what the log says).
func onBehalf(header, node string) (api.Caller, error) {
	if header == "" {
		return api.Caller{User: "node " + node, UID: -1, Role: api.RoleAdmin, Node: node}, nil
	}
	var c api.Caller
	if err := json.Unmarshal([]byte(header), &c); err != nil {
		return api.Caller{}, fmt.Errorf("read the header %s: %w", api.HeaderOnBehalf, err)
	}
	if c.User == "" || len(c.User) > 64 {
		return api.Caller{}, fmt.Errorf("the header %s names no user", api.HeaderOnBehalf)
	}
	c.Node = node
	return c, nil
}

// ListenLocal makes the unix socket at path with the mode that the access needs, and takes the place of a socket that a dead
// daemon left. It refuses if a living one answers there.
func ListenLocal(path string, access Access) (*net.UnixListener, error) {
	mode, gid := access.mode()
	if mode != 0o600 && !knowsPeers {
		return nil, fmt.Errorf("listen on the socket %s: this system does not say who calls, so only root may;"+
			" take the groups out of the access settings", path)
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// Bound under another name and then renamed, so that the socket never stands at its path with the wrong mode.
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(tmp) // a leftover of a process with the same id
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would remove tmp
	if err := place(tmp, path, mode, gid); err != nil {
		_ = l.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return l, nil
}

func place(tmp, path string, mode os.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Chown(tmp, -1, gid); err != nil {
			return fmt.Errorf("give the socket %s to the group %d: %w", path, gid, err)
		}
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return fmt.Errorf("set the mode of the socket %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("place the socket %s: %w", path, err)
	}
	return nil
}

func clearStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket %s: %w", path, err)
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen on the socket %s: something that is not a socket stands there (%v); remove it first", path, fi.Mode())
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("listen on the socket %s: another daemon answers there; only one may run on a node", path)
	}
	return nil // the rename takes its place
}
