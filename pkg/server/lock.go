package server

import (
	"context"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// The calls of locks. They are not audited one by one: an administrator's release of somebody's lock is, as a request.

func (c *call) locks() (any, error) {
	q := c.r.URL.Query()
	since, err := number(q.Get("since"), "since")
	if err != nil {
		return nil, err
	}
	wait, err := seconds(q.Get("wait"))
	if err != nil {
		return nil, err
	}
	return c.s.cfg.Backend.Locks(c.r.Context(), q.Get("name"), since, min(wait, api.MaxWait))
}

// lockCall reads a call of a session and runs it. The caller is on this node: a session ends with its client, and of a client
// elsewhere nobody here knows.
func lockCall[T, R any](c *call, limit time.Duration, do func(context.Context, api.Caller, T) (R, error)) (any, error) {
	var r T
	if err := c.body(&r); err != nil {
		return nil, err
	}
	if c.who.Node != "" {
		return nil, api.Errorf(api.CodeForbidden, "lock sessions are of callers on this node: ask the daemon of your own")
	}
	ctx := c.r.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return do(ctx, c.who, r)
}

func (c *call) lockOpen() (any, error) {
	return lockCall(c, c.s.cfg.WriteTimeout, c.s.cfg.Backend.OpenLocks)
}

func (c *call) lockKeep() (any, error) { return lockCall(c, 0, c.s.cfg.Backend.KeepLocks) }

func (c *call) lockTake() (any, error) { return lockCall(c, 0, c.s.cfg.Backend.TakeLock) }

func (c *call) lockGive() (any, error) {
	return lockCall(c, c.s.cfg.WriteTimeout, c.s.cfg.Backend.GiveLock)
}

func (c *call) lockClose() (any, error) {
	return lockCall(c, c.s.cfg.WriteTimeout, c.s.cfg.Backend.CloseLocks)
}
