package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// Snapshots are files on every node, so that any of them can bring a definition back. A named one is written to all nodes that
// answer. Before each change of the definition every node keeps the old one by itself; the newest autoKeep of those stay.

const (
	autoPrefix  = "auto."
	autoKeep    = 20
	maxSnapshot = 768 << 10 // bytes of a snapshot's file: it must fit into a message between nodes
	maxNamed    = 500
)

func autoName(version uint64) string { return fmt.Sprintf("%s%d", autoPrefix, version) }

// snapshotDir is PowerHA's own on AIX.
func (m *member) snapshotDir() string {
	if runtime.GOOS == "aix" {
		return "/usr/es/sbin/cluster/snapshots"
	}
	return filepath.Join(m.opt.Node.StateDir, "snapshots")
}

// snapshotFile refuses names that would be another path.
func (m *member) snapshotFile(name string) (string, error) {
	if err := cluster.CheckName(name); err != nil {
		return "", api.Errorf(api.CodeInvalid, "a snapshot cannot be called %q: %v", name, err)
	}
	return filepath.Join(m.snapshotDir(), name+".yaml"), nil
}

// keepOld keeps the definition that has just been replaced, unless the sync that replaced it has.
func (m *member) keepOld(d *cluster.Definition, version uint64) {
	name := autoName(version)
	if f, err := m.snapshotFile(name); err == nil {
		if _, err := os.Stat(f); err == nil {
			return
		}
	}
	if err := m.keepSnapshot(name, "before the definition was changed", "the cluster", d, version); err != nil {
		m.log.Warn("the old definition was not kept as a snapshot", "version", version, "error", err)
	}
}

func (m *member) keepSnapshot(name, description, by string, d *cluster.Definition, version uint64) error {
	b, err := config.EncodeSnapshot(&config.Snapshot{Name: name, Description: description, Cluster: m.id.ClusterName, Version: version, Taken: m.wall(), By: by, Definition: d})
	if err != nil {
		return err
	}
	return m.storeSnapshot(name, b)
}

func (m *member) storeSnapshot(name string, b []byte) error {
	file, err := m.snapshotFile(name)
	if err != nil {
		return err
	}
	if len(b) > maxSnapshot {
		return fmt.Errorf("the snapshot has %d bytes, at most %d can be kept", len(b), maxSnapshot)
	}
	if err := os.MkdirAll(m.snapshotDir(), 0o700); err != nil {
		return err
	}
	if err := writeFile(file, b, 0o600); err != nil {
		return err
	}
	if strings.HasPrefix(name, autoPrefix) {
		m.trimAuto()
	}
	return nil
}

// trimAuto keeps the newest of those that the cluster took by itself.
func (m *member) trimAuto() {
	list := slices.DeleteFunc(m.localSnapshots(), func(s api.Snapshot) bool { return !s.Auto })
	slices.SortFunc(list, func(a, b api.Snapshot) int { return b.Taken.Compare(a.Taken) })
	for _, s := range list[min(autoKeep, len(list)):] {
		if f, err := m.snapshotFile(s.Name); err == nil {
			_ = os.Remove(f) // the next one tries again
		}
	}
}

// localSnapshots lists what is here, damaged ones too.
func (m *member) localSnapshots() []api.Snapshot {
	files, err := filepath.Glob(filepath.Join(m.snapshotDir(), "*.yaml"))
	if err != nil {
		return nil
	}
	var out []api.Snapshot
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		if cluster.CheckName(name) != nil {
			continue
		}
		t, err := m.readLocal(name)
		if err != nil {
			t.Damaged = fmt.Sprintf("on node %s: %v", m.name, err)
		}
		out = append(out, t.Snapshot)
	}
	return out
}

func (m *member) readLocal(name string) (api.SnapshotText, error) {
	out := api.SnapshotText{Snapshot: api.Snapshot{Name: name, Auto: strings.HasPrefix(name, autoPrefix), Nodes: []string{m.name}}}
	file, err := m.snapshotFile(name)
	if err != nil {
		return out, err
	}
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return out, api.Errorf(api.CodeNotFound, "there is no snapshot %q", name)
	case err != nil:
		return out, err
	case !info.Mode().IsRegular() || info.Size() > maxSnapshot:
		return out, fmt.Errorf("%s is no regular file of at most %d bytes", file, maxSnapshot)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return out, err
	}
	s, err := config.DecodeSnapshot(file, b)
	if err != nil {
		return out, err
	}
	out.Description, out.Cluster, out.Version, out.Taken, out.By, out.YAML = s.Description, s.Cluster, s.Version, s.Taken, s.By, string(b)
	return out, nil
}

// keptRequest is what nodes ask each other about snapshots.
type keptRequest struct {
	Op   string `json:"op"` // list, read, store, delete
	Name string `json:"name,omitempty"`
	Text string `json:"text,omitempty"`
}

type keptReply struct {
	List  []api.Snapshot    `json:"list,omitempty"`
	Text  *api.SnapshotText `json:"text,omitempty"`
	Error *api.Error        `json:"error,omitempty"`
}

func (m *member) serveKept(_ context.Context, _ string, body []byte) ([]byte, error) {
	var r keptRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, errors.New("the question about snapshots cannot be read")
	}
	return json.Marshal(m.kept(r))
}

func (m *member) kept(r keptRequest) keptReply {
	var out keptReply
	var err error
	switch r.Op {
	case "list":
		out.List = m.localSnapshots()
	case "read":
		var t api.SnapshotText
		if t, err = m.readLocal(r.Name); err == nil {
			out.Text = &t
		}
	case "store":
		if _, err = config.DecodeSnapshot(r.Name, []byte(r.Text)); err == nil {
			err = m.storeSnapshot(r.Name, []byte(r.Text))
		}
	case "delete":
		var file string
		if file, err = m.snapshotFile(r.Name); err == nil {
			if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
				err = api.Errorf(api.CodeNotFound, "there is no snapshot %q", r.Name)
			}
		}
	default:
		err = fmt.Errorf("there is no operation %q on snapshots", r.Op)
	}
	out.Error = apiError(err)
	return out
}

// askKept asks all nodes at once.
func (m *member) askKept(ctx context.Context, r keptRequest) (answers map[string]keptReply, silent map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	answers, silent = map[string]keptReply{}, map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range m.view().NodeNames() {
		wg.Go(func() {
			var out keptReply
			_, err := m.callNode(ctx, node, rpcKept, r, &out, func() any { return m.kept(r) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent[node] = plainCause(err)
				return
			}
			answers[node] = out
		})
	}
	wg.Wait()
	return answers, silent
}

// ListSnapshots implements server.Snapshots.
func (a *Agent) ListSnapshots(ctx context.Context) (api.SnapshotList, error) {
	m, err := a.configured()
	if err != nil {
		return api.SnapshotList{}, err
	}
	answers, silent := m.askKept(ctx, keptRequest{Op: "list"})
	out := api.SnapshotList{Snapshots: []api.Snapshot{}, Silent: silent}
	at := map[string]int{}
	for _, node := range m.view().NodeNames() {
		for _, s := range answers[node].List {
			i, ok := at[s.Name]
			if !ok {
				i = len(out.Snapshots)
				at[s.Name] = i
				s.Nodes = nil
				out.Snapshots = append(out.Snapshots, s)
			}
			have := &out.Snapshots[i]
			have.Nodes = append(have.Nodes, node)
			if s.Damaged != "" && !strings.Contains(have.Damaged, s.Damaged) {
				have.Damaged = strings.TrimPrefix(have.Damaged+"; "+s.Damaged, "; ")
			}
		}
	}
	slices.SortFunc(out.Snapshots, func(a, b api.Snapshot) int {
		if c := a.Taken.Compare(b.Taken); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

// ReadSnapshot implements server.Snapshots.
func (a *Agent) ReadSnapshot(ctx context.Context, name string) (api.SnapshotText, error) {
	m, err := a.configured()
	if err != nil {
		return api.SnapshotText{}, err
	}
	t, err := m.readLocal(name)
	if err == nil || api.CodeOf(err) == api.CodeInvalid {
		return t, err
	}
	answers, _ := m.askKept(ctx, keptRequest{Op: "read", Name: name})
	for _, node := range m.view().NodeNames() {
		if r := answers[node]; r.Text != nil {
			return *r.Text, nil
		}
	}
	return api.SnapshotText{}, apiError(err)
}

// AddSnapshot implements server.Snapshots.
func (a *Agent) AddSnapshot(ctx context.Context, who api.Caller, s api.NewSnapshot) (api.SnapshotReply, error) {
	m, err := a.configured()
	if err != nil {
		return api.SnapshotReply{}, err
	}
	if _, err := m.snapshotFile(s.Name); err != nil {
		return api.SnapshotReply{}, err
	}
	if strings.HasPrefix(s.Name, autoPrefix) {
		return api.SnapshotReply{}, api.Errorf(api.CodeInvalid, "names that begin with %q are the cluster's own", autoPrefix)
	}
	list, err := a.ListSnapshots(ctx)
	if err != nil {
		return api.SnapshotReply{}, err
	}
	if slices.ContainsFunc(list.Snapshots, func(x api.Snapshot) bool { return x.Name == s.Name }) {
		return api.SnapshotReply{}, api.Errorf(api.CodeExists, "there is a snapshot %q already: delete it first, or choose another name", s.Name)
	}
	if len(list.Snapshots) >= maxNamed {
		return api.SnapshotReply{}, api.Errorf(api.CodeTooLarge, "there are %d snapshots already: delete some", len(list.Snapshots))
	}
	view := m.view()
	keep := &config.Snapshot{Name: s.Name, Description: s.Description, Cluster: m.id.ClusterName, Version: view.DefinitionVersion, Taken: m.wall(), By: who.String(),
		Definition: view.Definition}
	if s.YAML != "" {
		if keep.Definition, err = decodeDefinition(s.Name, s.YAML); err != nil {
			return api.SnapshotReply{}, err
		}
		keep.Version = 0
	}
	b, err := config.EncodeSnapshot(keep)
	if err != nil {
		return api.SnapshotReply{}, api.Errorf(api.CodeInvalid, "%v", err)
	}
	return m.everywhere(ctx, keptRequest{Op: "store", Name: s.Name, Text: string(b)})
}

// DeleteSnapshot implements server.Snapshots.
func (a *Agent) DeleteSnapshot(ctx context.Context, _ api.Caller, name string) (api.SnapshotReply, error) {
	m, err := a.configured()
	if err != nil {
		return api.SnapshotReply{}, err
	}
	if _, err := m.snapshotFile(name); err != nil {
		return api.SnapshotReply{}, err
	}
	return m.everywhere(ctx, keptRequest{Op: "delete", Name: name})
}

// everywhere does something with a snapshot on all nodes, and is an error only if it was done on none.
func (m *member) everywhere(ctx context.Context, r keptRequest) (api.SnapshotReply, error) {
	answers, silent := m.askKept(ctx, r)
	out := api.SnapshotReply{Nodes: []string{}, Failed: silent}
	var first *api.Error
	for _, node := range m.view().NodeNames() {
		a, ok := answers[node]
		switch {
		case !ok:
		case a.Error == nil:
			out.Nodes = append(out.Nodes, node)
		case a.Error.Code == api.CodeNotFound && r.Op == "delete":
			first = a.Error // it is gone there, as wanted
		default:
			out.Failed[node] = a.Error.Message
			first = a.Error
		}
	}
	if len(out.Nodes) == 0 && first != nil {
		return out, first
	}
	return out, nil
}
