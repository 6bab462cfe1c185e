// Package servertest has a backend whose cluster is a value that a test changes, for tests of the server, the client and the
// commands. It behaves as the contract says in what a caller can see (versions, waits, ids that are applied once), and in
// nothing else: it plans nothing.
package servertest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A Backend answers from its Status and calls the hooks, each of which may be nil. The hooks run with no lock held.
type Backend struct {
	OnDo         func(api.Caller, api.Request) (api.Reply, error)
	OnDefinition func(api.Caller, api.DefinitionChange) (api.Reply, error)
	OnCreate     func(api.CreateCluster) (api.CreateClusterReply, error)
	OnToken      func(api.NewToken) (api.JoinToken, error)
	OnJoin       func(api.Join) (api.Reply, error)
	OnRecover    func(api.Recover) (api.Reply, error)
	OnAdmit      func(string, api.Admit) (api.AdmitReply, error)
	OnDiff       func(api.DefinitionText) (api.Diff, error)
	OnCheck      func(api.DefinitionText) (api.CheckReport, error)
	OnVerify     func(api.Caller, api.VerifyRequest) (api.VerifyReport, error)
	OnAudit      func(limit int) (api.AuditList, error)
	OnRemote     func(api.Caller, api.RemoteRequest) (api.RemoteOperation, error)
	OnExplain    func(group, node string) (api.Explanation, error)
	// OnWait hears of each long poll before it waits.
	OnWait func(since uint64)

	mu       sync.Mutex
	remote   api.RemoteOperation
	status   api.Status
	changed  chan struct{}
	yaml     string
	version  uint64
	kept     map[string]api.SnapshotText
	staged   string
	stagedAt uint64
	events   []api.Event
	// forgotten is how many events before events are no longer kept.
	forgotten uint64
	requests  []api.Request
	replies   map[string]api.Reply
}

// New makes a backend with a status; its version starts at 1.
func New(st api.Status) *Backend {
	st.Version = 1
	if st.Instance == "" {
		st.Instance = "test"
	}
	return &Backend{status: st, changed: make(chan struct{}), version: 1, replies: map[string]api.Reply{}}
}

// Change edits the status and wakes whoever waits.
func (b *Backend) Change(edit func(*api.Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := clone(b.status)
	edit(&st)
	st.Version = b.status.Version + 1
	b.status = st
	close(b.changed)
	b.changed = make(chan struct{})
}

// SetYAML sets the definition's text without counting a version.
func (b *Backend) SetYAML(y string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.yaml = y
}

// YAML is the definition's text and version.
func (b *Backend) YAML() (string, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.yaml, b.version
}

// AddEvent appends to the history, gives it the next id, and wakes whoever waits.
func (b *Backend) AddEvent(e api.Event) {
	b.mu.Lock()
	e.ID = b.forgotten + uint64(len(b.events)+1)
	b.events = append(b.events, e)
	b.mu.Unlock()
	b.Change(func(*api.Status) {})
}

// ForgetEvents drops the oldest n of the history, as a bounded one does.
func (b *Backend) ForgetEvents(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = b.events[n:]
	b.forgotten += uint64(n)
}

// Requests lists what was asked, once for each id.
func (b *Backend) Requests() []api.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]api.Request(nil), b.requests...)
}

// Status implements server.Backend, as do the methods below.
func (b *Backend) Status() api.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return clone(b.status)
}

// Version is the status's.
func (b *Backend) Version() (instance string, version uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status.Instance, b.status.Version
}

// Wait blocks until the version differs.
func (b *Backend) Wait(ctx context.Context, since uint64) uint64 {
	if b.OnWait != nil {
		b.OnWait(since)
	}
	for {
		b.mu.Lock()
		v, ch := b.status.Version, b.changed
		b.mu.Unlock()
		if v != since {
			return v
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return v
		}
	}
}

// Events lists the history.
func (b *Backend) Events(since uint64, limit int) (api.EventList, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := api.EventList{Next: since, Lost: since > 0 && since < b.forgotten}
	for _, e := range b.events {
		if e.ID > since {
			out.Events = append(out.Events, e)
		}
	}
	if n := len(out.Events); n > limit && limit > 0 {
		if since == 0 {
			out.Events = out.Events[n-limit:]
		} else {
			out.Events = out.Events[:limit]
		}
	}
	if n := len(out.Events); n > 0 {
		out.Next = out.Events[n-1].ID
	}
	return out, nil
}

// Definition is the text.
func (b *Backend) Definition(staged bool) (api.Definition, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.yaml == "" {
		return api.Definition{}, api.Errorf(api.CodeNotConfigured, "this node belongs to no cluster")
	}
	d := api.Definition{YAML: b.yaml, Version: b.version, StagedVersion: b.stagedAt}
	if staged && b.staged != "" {
		d.YAML, d.Staged = b.staged, true
	}
	return d, nil
}

// Sync makes the staged text the definition.
func (b *Backend) Sync(_ context.Context, _ api.Caller, r api.StagedRequest) (api.Reply, error) {
	return b.endStaging(r, true)
}

// Undo drops the staged text.
func (b *Backend) Undo(_ context.Context, _ api.Caller, r api.StagedRequest) (api.Reply, error) {
	return b.endStaging(r, false)
}

func (b *Backend) endStaging(r api.StagedRequest, activate bool) (api.Reply, error) {
	b.mu.Lock()
	if b.staged == "" || r.Version != b.stagedAt {
		b.mu.Unlock()
		return api.Reply{Refused: "what is staged was changed in the meantime"}, nil
	}
	if activate {
		b.yaml = b.staged
		b.version++
	}
	b.staged = ""
	b.stagedAt++
	version := b.version
	b.mu.Unlock()
	var index uint64
	b.Change(func(st *api.Status) {
		st.Cluster.AppliedIndex++
		st.Cluster.DefinitionVersion, st.Cluster.Unsynced = version, false
		index = st.Cluster.AppliedIndex
	})
	return api.Reply{Index: index, DefinitionVersion: version}, nil
}

// Diff asks the hook.
func (b *Backend) Diff(_ context.Context, t api.DefinitionText) (api.Diff, error) {
	if b.OnDiff == nil {
		return api.Diff{Same: true}, nil
	}
	return b.OnDiff(t)
}

// Check asks the hook.
func (b *Backend) Check(_ context.Context, t api.DefinitionText) (api.CheckReport, error) {
	if b.OnCheck == nil {
		return api.CheckReport{}, nil
	}
	return b.OnCheck(t)
}

// Audit asks the hook.
func (b *Backend) Audit(_ context.Context, limit int) (api.AuditList, error) {
	if b.OnAudit == nil {
		return api.AuditList{Records: []api.AuditRecord{}}, nil
	}
	return b.OnAudit(limit)
}

// ListSnapshots lists what AddSnapshot has kept.
func (b *Backend) ListSnapshots(context.Context) (api.SnapshotList, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := api.SnapshotList{Snapshots: []api.Snapshot{}}
	for _, name := range slices.Sorted(maps.Keys(b.kept)) {
		out.Snapshots = append(out.Snapshots, b.kept[name].Snapshot)
	}
	return out, nil
}

// ReadSnapshot gives one of them.
func (b *Backend) ReadSnapshot(_ context.Context, name string) (api.SnapshotText, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.kept[name]
	if !ok {
		return t, api.Errorf(api.CodeNotFound, "there is no snapshot %q", name)
	}
	return t, nil
}

// AddSnapshot keeps the definition.
func (b *Backend) AddSnapshot(_ context.Context, who api.Caller, s api.NewSnapshot) (api.SnapshotReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.kept[s.Name]; ok {
		return api.SnapshotReply{}, api.Errorf(api.CodeExists, "there is a snapshot %q already", s.Name)
	}
	if b.kept == nil {
		b.kept = map[string]api.SnapshotText{}
	}
	yaml := b.yaml
	if s.YAML != "" {
		yaml = s.YAML
	}
	b.kept[s.Name] = api.SnapshotText{YAML: yaml, Snapshot: api.Snapshot{Name: s.Name, Description: s.Description, Version: b.version, By: who.String(),
		Nodes: []string{"node1", "node2"}}}
	return api.SnapshotReply{Nodes: []string{"node1", "node2"}}, nil
}

// DeleteSnapshot forgets one.
func (b *Backend) DeleteSnapshot(_ context.Context, _ api.Caller, name string) (api.SnapshotReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.kept[name]; !ok {
		return api.SnapshotReply{}, api.Errorf(api.CodeNotFound, "there is no snapshot %q", name)
	}
	delete(b.kept, name)
	return api.SnapshotReply{Nodes: []string{"node1", "node2"}}, nil
}

// Verify asks the hook.
func (b *Backend) Verify(_ context.Context, who api.Caller, r api.VerifyRequest) (api.VerifyReport, error) {
	if b.OnVerify == nil {
		return api.VerifyReport{Subject: "the active definition", Findings: []api.Finding{}}, nil
	}
	return b.OnVerify(who, r)
}

// BeginRemote asks the hook.
func (b *Backend) BeginRemote(_ context.Context, who api.Caller, r api.RemoteRequest) (api.RemoteOperation, error) {
	if b.OnRemote == nil {
		return api.RemoteOperation{}, api.Errorf(api.CodeRefused, "free commands are off; nothing was run")
	}
	op, err := b.OnRemote(who, r)
	op.ID = r.ID
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remote = op
	return op, err
}

// Remote returns what the hook began.
func (b *Backend) Remote(_ context.Context, _ api.Caller, id string, _ uint64, _ time.Duration) (api.RemoteOperation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.remote.ID != id {
		return api.RemoteOperation{}, api.Errorf(api.CodeNotFound, "there is no operation %q", id)
	}
	return b.remote, nil
}

// Explain asks the hook.
func (b *Backend) Explain(group, node string) (api.Explanation, error) {
	if b.OnExplain == nil {
		return api.Explanation{}, api.Errorf(api.CodeNotFound, "there is no resource group %q", group)
	}
	return b.OnExplain(group, node)
}

// State implements server.Reader.
func (b *Backend) State() (api.State, error) {
	return api.State{}, api.Errorf(api.CodeUnavailable, "the test's backend has no state")
}

// Health implements server.Reader.
func (b *Backend) Health() api.Health { return api.Health{OK: true, Instance: "test"} }

// Do asks the hook, once for each id.
func (b *Backend) Do(_ context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	b.mu.Lock()
	if old, ok := b.replies[r.ID]; ok {
		b.mu.Unlock()
		return old, nil
	}
	b.requests = append(b.requests, r)
	b.mu.Unlock()
	var reply api.Reply
	var err error
	if b.OnDo != nil {
		reply, err = b.OnDo(who, r)
	}
	if err == nil {
		b.mu.Lock()
		b.replies[r.ID] = reply
		b.mu.Unlock()
	}
	return reply, err
}

// SetDefinition takes the text if the base is the current version and the hook, if any, agrees.
func (b *Backend) SetDefinition(_ context.Context, who api.Caller, c api.DefinitionChange) (api.Reply, error) {
	if b.OnDefinition != nil {
		if r, err := b.OnDefinition(who, c); err != nil || r.Refused != "" {
			return r, err
		}
	}
	if c.Stage {
		b.mu.Lock()
		b.staged = c.YAML
		b.stagedAt++
		b.mu.Unlock()
		b.Change(func(st *api.Status) { st.Cluster.Unsynced = true })
		return api.Reply{DefinitionVersion: c.BaseVersion}, nil
	}
	version, err := b.replace(c)
	if err != nil {
		return api.Reply{}, err
	}
	var index uint64
	b.Change(func(st *api.Status) {
		st.Cluster.AppliedIndex++
		st.Cluster.DefinitionVersion = version
		index = st.Cluster.AppliedIndex
	})
	return api.Reply{Index: index, DefinitionVersion: version}, nil
}

func (b *Backend) replace(c api.DefinitionChange) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.BaseVersion != b.version {
		return 0, api.Errorf(api.CodeConflict, "the definition has version %d, not %d", b.version, c.BaseVersion)
	}
	b.version++
	b.yaml = c.YAML
	return b.version, nil
}

// CreateCluster asks the hook.
func (b *Backend) CreateCluster(_ context.Context, _ api.Caller, c api.CreateCluster) (api.CreateClusterReply, error) {
	if b.OnCreate == nil {
		return api.CreateClusterReply{}, api.Errorf(api.CodeExists, "this node belongs to a cluster already")
	}
	return b.OnCreate(c)
}

// NewToken asks the hook.
func (b *Backend) NewToken(_ context.Context, _ api.Caller, t api.NewToken) (api.JoinToken, error) {
	if b.OnToken == nil {
		return api.JoinToken{Node: t.Node, Token: "token-of-" + t.Node, Expires: 3600}, nil
	}
	return b.OnToken(t)
}

// Join asks the hook.
func (b *Backend) Join(_ context.Context, _ api.Caller, j api.Join) (api.Reply, error) {
	if b.OnJoin == nil {
		return api.Reply{}, nil
	}
	return b.OnJoin(j)
}

// Recover asks the hook.
func (b *Backend) Recover(_ context.Context, _ api.Caller, r api.Recover) (api.Reply, error) {
	if b.OnRecover == nil {
		return api.Reply{}, nil
	}
	return b.OnRecover(r)
}

// Leave does nothing.
func (b *Backend) Leave(context.Context, api.Caller) (api.Reply, error) { return api.Reply{}, nil }

// Admit asks the hook.
func (b *Backend) Admit(_ context.Context, from string, a api.Admit) (api.AdmitReply, error) {
	if b.OnAdmit == nil {
		return api.AdmitReply{}, api.Errorf(api.CodeForbidden, "the token is not valid")
	}
	return b.OnAdmit(from, a)
}

// clone copies what Change may edit in place.
func clone(st api.Status) api.Status {
	out := st
	out.Cluster.Warnings = append([]string(nil), st.Cluster.Warnings...)
	out.Nodes = append([]api.Node(nil), st.Nodes...)
	out.Groups = append([]api.Group(nil), st.Groups...)
	for i := range out.Groups {
		out.Groups[i].Instances = append([]api.Instance(nil), st.Groups[i].Instances...)
		out.Groups[i].Applications = append([]api.Application(nil), st.Groups[i].Applications...)
	}
	out.Pending = append([]api.PendingStep(nil), st.Pending...)
	return out
}

// Locks implements server.Locker: this backend has no locks, only sessions that are kept.
func (b *Backend) Locks(context.Context, string, uint64, time.Duration) (api.LockList, error) {
	return api.LockList{Locks: []api.Lock{}}, nil
}

// OpenLocks implements server.Locker.
func (b *Backend) OpenLocks(_ context.Context, _ api.Caller, r api.LockOpen) (api.LockSession, error) {
	if r.Again {
		return api.LockSession{}, api.Errorf(api.CodeNotFound, "the lock session is lost")
	}
	return api.LockSession{Session: "0123456789abcdef", TTLSeconds: api.DefaultLockTTL.Seconds(), Node: "n1"}, nil
}

// KeepLocks implements server.Locker: it hangs as it is asked to.
func (b *Backend) KeepLocks(ctx context.Context, _ api.Caller, r api.LockKeep) (api.LockKept, error) {
	select {
	case <-ctx.Done():
		return api.LockKept{}, context.Cause(ctx)
	case <-time.After(time.Duration(r.WaitSeconds * float64(time.Second))):
		return api.LockKept{}, nil
	}
}

// TakeLock implements server.Locker: the lock "busy" is somebody else's.
func (b *Backend) TakeLock(_ context.Context, _ api.Caller, r api.LockTake) (api.LockTaken, error) {
	if r.Name == "busy" {
		return api.LockTaken{Busy: "lock busy is held by app on node n2 (exclusive)"}, nil
	}
	return api.LockTaken{Held: true, Token: 42}, nil
}

// GiveLock implements server.Locker.
func (b *Backend) GiveLock(context.Context, api.Caller, api.LockGive) (api.Reply, error) {
	return api.Reply{Index: 1}, nil
}

// CloseLocks implements server.Locker.
func (b *Backend) CloseLocks(context.Context, api.Caller, api.LockClose) (api.Reply, error) {
	return api.Reply{Index: 1}, nil
}
