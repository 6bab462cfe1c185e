package server

import (
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// beginRemote checks the right to ask: a free command needs a right of its own, which no role includes; a file collection writes
// files as root, which is an administrator's.
func (c *call) beginRemote() (any, error) {
	var r api.RemoteRequest
	if err := c.body(&r); err != nil {
		return nil, err
	}
	c.note = describeRemote(&r)
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	switch {
	case r.Command != nil && !c.who.Command:
		return nil, api.Errorf(api.CodeForbidden, "%s may not run free commands: root may, and who stands in access.command of this node's node.yaml; "+
			"nothing was run", c.who)
	case r.Collection != nil && r.Collection.CompareOnly && !c.who.Role.Allows(api.RoleOperate):
		return nil, forbidden(c.who, api.RoleOperate)
	case r.Collection != nil && !r.Collection.CompareOnly && !c.who.Role.Allows(api.RoleAdmin):
		return nil, forbidden(c.who, api.RoleAdmin)
	}
	ctx, cancel := c.bounds()
	defer cancel()
	return c.s.cfg.Backend.BeginRemote(ctx, c.who, r)
}

func (c *call) remote() (any, error) {
	q := c.r.URL.Query()
	wait, err := seconds(q.Get("wait"))
	if err != nil {
		return nil, err
	}
	since, err := number(q.Get("since"), "since")
	if err != nil {
		return nil, err
	}
	if err := checkID(q.Get("id")); err != nil {
		return nil, err
	}
	return c.s.cfg.Backend.Remote(c.r.Context(), c.who, q.Get("id"), since, min(wait, api.MaxWait))
}

// describeRemote is what the audit line says. A command's words are in it: whoever runs one does not put secrets there, as with any
// command line.
func describeRemote(r *api.RemoteRequest) string {
	s := "nothing"
	switch {
	case r.Command != nil:
		s = "free command " + r.Command.String()
	case r.Collection != nil:
		s = "sync file_collection "
		if r.Collection.CompareOnly {
			s = "compare file_collection "
		}
		s += api.Printable(bounded(strings.Join(r.Collection.Names, ","), 200))
		if r.Collection.Source != "" {
			s += " from " + api.Printable(bounded(r.Collection.Source, 64))
		}
	}
	if len(r.Nodes) > 0 {
		s += " on " + api.Printable(bounded(strings.Join(r.Nodes, ","), 200))
	}
	return s
}
