// Package client talks to the daemon on this machine, over its unix socket.
//
// It is thin: it imports package api and the standard library, keeps no connection state that matters, and decides nothing.
// It never says that a command is done: a Reply says that it is committed, and WaitFor shows what is seen afterwards. A call
// that failed with api.CodeUncertain, or whose connection broke, may be sent again with the same id.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A Client calls one daemon. It may be used by many goroutines.
type Client struct {
	socket  string
	http    *http.Client
	silence time.Duration
}

// Socket is the path of the daemon's socket: $HOLDFAST_SOCKET, or the usual one.
func Socket() string {
	if s := os.Getenv(api.SocketEnv); s != "" {
		return s
	}
	return api.DefaultSocket
}

// New makes a client of the daemon behind the socket; it connects with the first call.
func New(socket string) *Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:       2,
		DisableCompression: true, // the other end is the same machine
	}
	return &Client{socket: socket, http: &http.Client{Transport: tr}, silence: silence}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NewID makes an id for a write.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Status is the daemon's knowledge now.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, api.PathStatus, nil)
}

// Next is the status when it differs from the one last seen, or after at most wait (and api.MaxWait) as it then is.
func (c *Client) Next(ctx context.Context, last *api.Status, wait time.Duration) (api.Status, error) {
	wait = max(0, min(wait, api.MaxWait))
	return getWithin[api.Status](ctx, c, api.PathStatus, url.Values{
		"since":    {strconv.FormatUint(last.Version, 10)},
		"instance": {last.Instance},
		"wait":     {strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)},
	}, wait+c.silence)
}

// WaitFor follows the status until cond says that it is reached, cond returns an error, or the context ends. It returns the
// last status seen; with the context's end also the context's error. A daemon that does not answer is asked again: it may be
// restarting. onRetry, if not nil, hears of each such failure.
func (c *Client) WaitFor(ctx context.Context, cond func(*api.Status) (bool, error), onRetry func(error)) (api.Status, error) {
	var last api.Status
	st, err := c.Status(ctx)
	for {
		if err == nil {
			last = st
			if done, cerr := cond(&last); done || cerr != nil {
				return last, cerr
			}
		} else if !passing(ctx, err) {
			return last, err
		} else {
			if onRetry != nil {
				onRetry(err)
			}
			if perr := pause(ctx, retryPause); perr != nil {
				return last, perr
			}
		}
		if ctx.Err() != nil {
			return last, context.Cause(ctx)
		}
		st, err = c.Next(ctx, &last, api.MaxWait)
		if err != nil && ctx.Err() != nil {
			return last, context.Cause(ctx)
		}
	}
}

const retryPause = 200 * time.Millisecond

// passing reports whether asking again may help: the daemon is away for a moment.
func passing(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code == api.CodeUnavailable
	}
	return !errors.Is(err, fs.ErrPermission)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Events lists up to limit events after since, oldest first; since 0 asks for the newest ones.
func (c *Client) Events(ctx context.Context, since uint64, limit int) (api.EventList, error) {
	return get[api.EventList](ctx, c, api.PathEvents, url.Values{
		"since": {strconv.FormatUint(since, 10)}, "limit": {strconv.Itoa(limit)},
	})
}

// Definition is the active definition.
func (c *Client) Definition(ctx context.Context) (api.Definition, error) {
	return get[api.Definition](ctx, c, api.PathDefinition, nil)
}

// Staged reads what waits for a sync; if nothing does, the active definition.
func (c *Client) Staged(ctx context.Context) (api.Definition, error) {
	return get[api.Definition](ctx, c, api.PathDefinition, url.Values{"staged": {"yes"}})
}

// Sync makes what is staged active; an empty id is filled.
func (c *Client) Sync(ctx context.Context, r api.StagedRequest) (api.Reply, error) {
	return c.staged(ctx, api.PathSync, r)
}

// Undo drops what is staged; an empty id is filled.
func (c *Client) Undo(ctx context.Context, r api.StagedRequest) (api.Reply, error) {
	return c.staged(ctx, api.PathUndo, r)
}

func (c *Client) staged(ctx context.Context, path string, r api.StagedRequest) (api.Reply, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	return send[api.Reply](ctx, c, http.MethodPost, path, r)
}

// SetDefinition replaces it; an empty id is filled.
func (c *Client) SetDefinition(ctx context.Context, d api.DefinitionChange) (api.Reply, error) {
	if d.ID == "" {
		d.ID = NewID()
	}
	return send[api.Reply](ctx, c, http.MethodPut, api.PathDefinition, d)
}

// Diff says what a text would change.
func (c *Client) Diff(ctx context.Context, t api.DefinitionText) (api.Diff, error) {
	return send[api.Diff](ctx, c, http.MethodPost, api.PathDiff, t)
}

// Check verifies a text.
func (c *Client) Check(ctx context.Context, t api.DefinitionText) (api.CheckReport, error) {
	return send[api.CheckReport](ctx, c, http.MethodPost, api.PathCheck, t)
}

// Audit reads the newest records of attempted writes, of all nodes.
func (c *Client) Audit(ctx context.Context, limit int) (api.AuditList, error) {
	return get[api.AuditList](ctx, c, api.PathAudit, url.Values{"limit": {strconv.Itoa(limit)}})
}

// Snapshots lists the kept definitions.
func (c *Client) Snapshots(ctx context.Context) (api.SnapshotList, error) {
	return get[api.SnapshotList](ctx, c, api.PathSnapshots, nil)
}

// Snapshot reads one.
func (c *Client) Snapshot(ctx context.Context, name string) (api.SnapshotText, error) {
	return get[api.SnapshotText](ctx, c, api.PathSnapshots, url.Values{"name": {name}})
}

// AddSnapshot keeps the active definition.
func (c *Client) AddSnapshot(ctx context.Context, s api.NewSnapshot) (api.SnapshotReply, error) {
	return send[api.SnapshotReply](ctx, c, http.MethodPost, api.PathSnapshots, s)
}

// DeleteSnapshot removes one from all nodes that answer.
func (c *Client) DeleteSnapshot(ctx context.Context, name string) (api.SnapshotReply, error) {
	return send[api.SnapshotReply](ctx, c, http.MethodDelete, api.PathSnapshots+"?"+url.Values{"name": {name}}.Encode(), nil)
}

// Verify looks at all nodes; it may take as long as the context allows.
func (c *Client) Verify(ctx context.Context, r api.VerifyRequest) (api.VerifyReport, error) {
	return send[api.VerifyReport](ctx, c, http.MethodPost, api.PathVerify, r)
}

// Explain says why a group is where it is.
func (c *Client) Explain(ctx context.Context, group, node string) (api.Explanation, error) {
	return get[api.Explanation](ctx, c, api.PathExplain, url.Values{"group": {group}, "node": {node}})
}

// Health is the daemon's own.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	return get[api.Health](ctx, c, api.PathHealth, nil)
}

// State reads the replicated state, as the local node has it.
func (c *Client) State(ctx context.Context) (api.State, error) {
	return get[api.State](ctx, c, api.PathState, nil)
}

// Do sends an operator's command; an empty id is filled.
func (c *Client) Do(ctx context.Context, r api.Request) (api.Reply, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	return send[api.Reply](ctx, c, http.MethodPost, api.PathRequests, r)
}

// Locks lists the locks, or the named one.
func (c *Client) Locks(ctx context.Context, name string) (api.LockList, error) {
	return get[api.LockList](ctx, c, api.PathLocks, url.Values{"name": {name}})
}

// NextLocks is the list when it differs from version since, or after at most wait.
func (c *Client) NextLocks(ctx context.Context, name string, since uint64, wait time.Duration) (api.LockList, error) {
	wait = max(0, min(wait, api.MaxWait))
	return getWithin[api.LockList](ctx, c, api.PathLocks, url.Values{"name": {name}, "since": {strconv.FormatUint(since, 10)},
		"wait": {strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)}}, wait+c.silence)
}

// OpenLocks opens a session for locks, or with Again finds it. It must be kept: see api.LockOpen.
func (c *Client) OpenLocks(ctx context.Context, r api.LockOpen) (api.LockSession, error) {
	return send[api.LockSession](ctx, c, http.MethodPost, api.PathLockOpen, r)
}

// KeepLocks hangs until the session is lost, or for a while.
func (c *Client) KeepLocks(ctx context.Context, r api.LockKeep) (api.LockKept, error) {
	return send[api.LockKept](ctx, c, http.MethodPost, api.PathLockKeep, r)
}

// TakeLock asks for a lock, and waits for it if that is asked for.
func (c *Client) TakeLock(ctx context.Context, r api.LockTake) (api.LockTaken, error) {
	return send[api.LockTaken](ctx, c, http.MethodPost, api.PathLockTake, r)
}

// GiveLock releases a lock.
func (c *Client) GiveLock(ctx context.Context, r api.LockGive) (api.Reply, error) {
	return send[api.Reply](ctx, c, http.MethodPost, api.PathLockGive, r)
}

// CloseLocks ends a session.
func (c *Client) CloseLocks(ctx context.Context, r api.LockClose) (api.Reply, error) {
	return send[api.Reply](ctx, c, http.MethodPost, api.PathLockClose, r)
}

// BeginRemote begins an operation on several nodes; an empty id is filled.
func (c *Client) BeginRemote(ctx context.Context, r api.RemoteRequest) (api.RemoteOperation, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	return send[api.RemoteOperation](ctx, c, http.MethodPost, api.PathRemote, r)
}

// Remote follows an operation on several nodes: it is read when it differs from version since, or after at most wait.
func (c *Client) Remote(ctx context.Context, id string, since uint64, wait time.Duration) (api.RemoteOperation, error) {
	wait = max(0, min(wait, api.MaxWait))
	return getWithin[api.RemoteOperation](ctx, c, api.PathRemote, url.Values{"id": {id}, "since": {strconv.FormatUint(since, 10)},
		"wait": {strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)}}, wait+c.silence)
}

// CreateCluster founds a cluster on this node.
func (c *Client) CreateCluster(ctx context.Context, cc api.CreateCluster) (api.CreateClusterReply, error) {
	return send[api.CreateClusterReply](ctx, c, http.MethodPost, api.PathCluster, cc)
}

// Recover forces the configuration of a cluster that has lost its majority for good, on this node.
func (c *Client) Recover(ctx context.Context, r api.Recover) (api.Reply, error) {
	return send[api.Reply](ctx, c, http.MethodPost, api.PathRecover, r)
}

// Leave takes this node out of its cluster.
func (c *Client) Leave(ctx context.Context) (api.Reply, error) {
	return send[api.Reply](ctx, c, http.MethodDelete, api.PathCluster, nil)
}

// NewToken makes a one-time token for a node.
func (c *Client) NewToken(ctx context.Context, t api.NewToken) (api.JoinToken, error) {
	return send[api.JoinToken](ctx, c, http.MethodPost, api.PathTokens, t)
}

// Join makes this node a member.
func (c *Client) Join(ctx context.Context, j api.Join) (api.Reply, error) {
	return send[api.Reply](ctx, c, http.MethodPost, api.PathJoin, j)
}

// silence is how long a read waits for a daemon that has taken the connection, beyond the wait it was asked for.
const silence = 10 * time.Second

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	return getWithin[T](ctx, c, path, q, c.silence)
}

// getWithin reads. A daemon that is stopped or hangs takes connections and says nothing: that is an error like its absence.
func getWithin[T any](ctx context.Context, c *Client, path string, q url.Values, d time.Duration) (T, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	own, cancel := context.WithTimeoutCause(ctx, d, errSilent)
	defer cancel()
	out, err := roundTrip[T](own, c, http.MethodGet, path, nil)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(own), errSilent) {
		err = &UnreachableError{Socket: c.socket, Hint: fmt.Sprintf("it takes connections and has said nothing for %s", d), Err: errSilent}
	}
	return out, err
}

var errSilent = errors.New("no answer in time")

func send[T any](ctx context.Context, c *Client, method, path string, v any) (T, error) {
	var body []byte
	if v != nil {
		var err error
		if body, err = json.Marshal(v); err != nil {
			var zero T
			return zero, fmt.Errorf("encode the request: %w", err)
		}
	}
	return roundTrip[T](ctx, c, method, path, body)
}

func roundTrip[T any](ctx context.Context, c *Client, method, path string, body []byte) (T, error) {
	var zero T
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, rd)
	if err != nil {
		return zero, fmt.Errorf("make the request: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return zero, c.explain(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, api.MaxAnswer+1))
	switch {
	case err != nil:
		return zero, c.explain(ctx, err)
	case len(text) > api.MaxAnswer:
		return zero, fmt.Errorf("read the daemon's answer: it is longer than %d bytes", api.MaxAnswer)
	case res.StatusCode != http.StatusOK:
		return zero, failure(res, text)
	}
	var out T
	if err := json.Unmarshal(text, &out); err != nil {
		return zero, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return out, nil
}

func failure(res *http.Response, text []byte) error {
	var e api.Error
	if err := json.Unmarshal(text, &e); err != nil || e.Code == "" {
		return fmt.Errorf("the daemon answered %q without saying why", res.Status)
	}
	return &e
}

// explain turns what the network package says into what the operator can do.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	hint := "its connection broke; the outcome of a command is not known"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "there is no such socket: is clstrmgrd running? (another socket is named by $" + api.SocketEnv + ")"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "nobody listens there: clstrmgrd is not running"
	case errors.Is(err, fs.ErrPermission):
		hint = "you may not use this socket: be root, or in a group that the daemon's configuration allows"
	}
	return &UnreachableError{Socket: c.socket, Hint: hint, Err: err}
}

// An UnreachableError is a daemon that could not be asked, or whose answer did not come.
type UnreachableError struct {
	Socket string
	Hint   string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("ask the daemon at %s: %s", e.Socket, e.Hint)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// NeverSent reports whether the call certainly did not reach the daemon.
func (e *UnreachableError) NeverSent() bool {
	var op *net.OpError
	return errors.As(e.Err, &op) && op.Op == "dial"
}
