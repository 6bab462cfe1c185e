package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// What a break-glass start (glassrun.go) and the daemon know of each other. Three things lie in the state directory:
//
//   - daemon.lock is held by whichever of them runs, so that they never run at once;
//   - break-glass/GROUP.json, the mark, is there from before the first step of a break-glass start until everything of the group was
//     seen stopped. While one of this boot is there the daemon does not start: what runs under it has no lease, no deadman stands
//     behind it, and a daemon that took part would help to elect a leader that knows nothing of it (docs/design/0008-break-glass.md);
//   - last-known.json is the definition as this node last applied it, with what the other nodes had armed.

// ErrBreakGlass says that groups were started here by hand, past the cluster, and have not been released.
var ErrBreakGlass = errors.New("a break-glass start holds groups on this node")

// ErrMachineHeld says that the daemon, or a break-glass command, runs on this node already.
var ErrMachineHeld = errors.New("the daemon or a break-glass command of this node is running")

// holdPatience is how long the machine's lock is waited for: a process that was killed may not have ended yet.
const holdPatience = time.Second

// HoldMachine takes the lock that the daemon and a break-glass command share. It fails with ErrMachineHeld. The kernel gives the lock
// back at the latest when the process ends.
func HoldMachine(node *config.Node) (release func(), err error) {
	if err := os.MkdirAll(node.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("create directory %s: %w", node.StateDir, err)
	}
	path := filepath.Join(node.StateDir, "daemon.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the state directory %s cannot be written: open the lock of this node's daemon: %w", node.StateDir, err)
	}
	for begun := time.Now(); ; {
		err := lockFile(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if time.Since(begun) >= holdPatience {
			f.Close()
			return nil, fmt.Errorf("%w (%s is locked: %w)", ErrMachineHeld, path, err)
		}
		<-after(50 * time.Millisecond)
	}
}

func glassDir(stateDir string) string { return filepath.Join(stateDir, "break-glass") }

// States of a mark.
const (
	glassStarting = "starting"
	glassRunning  = "running"
	glassStopping = "stopping"
	glassFailed   = "failed" // a step failed, and not all of it could be undone
)

// A glassMark is the durable record of one group that is held here by a break-glass start.
type glassMark struct {
	Format     int       `json:"format"`
	Group      string    `json:"group"`
	Node       string    `json:"node"`
	BootID     string    `json:"boot_id"`
	State      string    `json:"state"`
	Begun      time.Time `json:"begun"` // wall time, to be shown
	By         string    `json:"by"`
	Declared   []string  `json:"declared_dead"`
	Source     string    `json:"source"`     // where the definition came from
	Generation uint64    `json:"generation"` // the newest of the group that this node knew; 0: none
	Begin      []string  `json:"begun_steps"`
	// Definition is what the group was started by; it is released by the same.
	Definition *cluster.Definition `json:"definition"`
}

const (
	glassFormat = 1
	maxGlass    = 16 << 20
)

func glassFile(stateDir, group string) string {
	return filepath.Join(glassDir(stateDir), group+".json")
}

func (k *glassMark) save(stateDir string) error {
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	dir := glassDir(stateDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store the mark of the break-glass start: %w", err)
	}
	if err := errors.Join(writeFile(glassFile(stateDir, k.Group), b, 0o600), syncDir(stateDir)); err != nil {
		return fmt.Errorf("store the mark of the break-glass start: %w", err)
	}
	return nil
}

func (k *glassMark) remove(stateDir string) error {
	if err := os.Remove(glassFile(stateDir, k.Group)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mark of the break-glass start: %w", err)
	}
	return syncDir(glassDir(stateDir))
}

// loadMarks reads all marks. One that cannot be read is an error: what it holds is not known.
func loadMarks(stateDir string) ([]*glassMark, error) {
	entries, err := os.ReadDir(glassDir(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the marks of break-glass starts: %w", err)
	}
	var out []*glassMark
	for _, e := range entries {
		group, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(glassDir(stateDir), e.Name())
		k := &glassMark{}
		if err := readJSON(path, k); err != nil || k.Format != glassFormat || k.Group != group || k.Definition == nil {
			return nil, fmt.Errorf("%w: the mark %s cannot be read (%v), so what it says to be running is not known: see by hand that "+
				"nothing of group %s runs here, then remove the file", ErrBreakGlass, path, err, group)
		}
		out = append(out, k)
	}
	return out, nil
}

func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxGlass+1))
	if err != nil {
		return err
	}
	if len(b) > maxGlass {
		return fmt.Errorf("%s is larger than %d bytes", path, maxGlass)
	}
	return json.Unmarshal(b, v)
}

// refuseBehindGlass is asked before the daemon does anything: a mark of this boot keeps it from starting. Marks of an earlier boot say
// nothing any more: what was started then has ended with it, and the daemon probes every resource at boot anyway.
func (a *Agent) refuseBehindGlass() error {
	marks, err := loadMarks(a.opt.Node.StateDir)
	if err != nil {
		return err
	}
	var held []string
	for _, k := range marks {
		if k.BootID == a.opt.BootID {
			held = append(held, k.Group)
			continue
		}
		if err := k.remove(a.opt.Node.StateDir); err != nil {
			return err
		}
		a.log.Warn("a break-glass start of an earlier boot is over", "group", k.Group, "state", k.State, "begun", k.Begun, "by", k.By)
	}
	if len(held) == 0 {
		return nil
	}
	slices.Sort(held)
	return fmt.Errorf("%w: %s. No lease covers what runs there, so the daemon does not start; release first: "+
		"clmgr stop resource_group %s --break-glass", ErrBreakGlass, strings.Join(held, ", "), held[0])
}

// A lastKnown is what this node last applied of the log, as far as a break-glass start needs it. It is only what was committed, which
// the node's copy of the log by itself does not tell.
type lastKnown struct {
	Format      int                     `json:"format"`
	Node        string                  `json:"node"`
	Written     time.Time               `json:"written"` // wall time, to be shown
	Index       uint64                  `json:"index"`
	Version     uint64                  `json:"definition_version"`
	Definition  *cluster.Definition     `json:"definition"`
	Generations map[string]uint64       `json:"generations"`
	Armed       map[string]*lease.Armed `json:"armed"`
}

func lastKnownFile(stateDir string) string { return filepath.Join(stateDir, "last-known.json") }

func loadLastKnown(stateDir string) (*lastKnown, error) {
	k := &lastKnown{}
	path := lastKnownFile(stateDir)
	if err := readJSON(path, k); err != nil {
		return nil, fmt.Errorf("read the definition that this node knew last: %w", err)
	}
	if k.Format != glassFormat || k.Definition == nil {
		return nil, fmt.Errorf("%s has the format %d, and format %d is known", path, k.Format, glassFormat)
	}
	return k, nil
}

// knownKeeper is the loop's part of keeping last-known.json.
type knownKeeper struct {
	index  uint64 // of the state that was looked at last
	key    string // of what the file says
	saving bool
	next   lease.Instant
}

type knownKept struct {
	key string
	err error
}

// keepLastKnown has the file written when what it says has changed, beside the loop and at most once a second. Of the loop.
func (m *member) keepLastKnown(view *state.State, now lease.Instant) {
	k := &m.loop.lastKnown
	if view.Definition == nil || k.saving || now < k.next || view.Index == k.index {
		return
	}
	k.index, k.next = view.Index, now.Add(time.Second)
	known := &lastKnown{Format: glassFormat, Node: m.name, Index: view.Index, Version: view.DefinitionVersion, Definition: view.Definition,
		Generations: map[string]uint64{}, Armed: map[string]*lease.Armed{}}
	for name, g := range view.Groups {
		known.Generations[name] = g.Generation
	}
	key := fmt.Sprint(view.ClusterID, view.DefinitionVersion, view.Generation)
	for _, name := range view.NodeNames() {
		if n := view.Node(name); n != nil && n.Armed != nil { // a node of the definition may never have joined
			known.Armed[name] = n.Armed
			key += fmt.Sprintf(" %s %+v", name, *n.Armed)
		}
	}
	if key == k.key {
		return
	}
	k.saving = true
	m.work.Go(func() {
		known.Written = m.wall()
		b, err := json.Marshal(known)
		if err == nil {
			err = writeFile(lastKnownFile(m.opt.Node.StateDir), b, 0o600)
		}
		m.post(knownKept{key, err})
	})
}

func (m *member) gotKnownKept(e knownKept) {
	k := &m.loop.lastKnown
	k.saving = false
	if e.err != nil {
		k.index, k.next = 0, m.clock.Now().Add(10*time.Second)
		m.log.Warn("the definition was not kept for a break-glass start", "error", e.err)
		return
	}
	k.key = e.key
}

// heldByGlass says why a group is not started here although the log wants it: the repository volume shows that another node holds it
// by a break-glass start, of which the log knows nothing. Before the volume was read once it is waited for a moment.
func (m *member) heldByGlass(done <-chan struct{}, group string) string {
	if v := m.wantedVolume(); v == nil || v.UUID == "" {
		return ""
	}
	select {
	case <-m.disk.firstRead:
	case <-done:
	case <-after(2 * time.Second):
		m.disk.wasRead() // one that cannot be read is waited for once
	}
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	for _, node := range sortedKeys(m.disk.glass) {
		if slices.Contains(m.disk.glass[node], group) {
			return fmt.Sprintf("node %s holds group %s by a break-glass start, as the repository volume shows: there, "+
				"clmgr stop resource_group %s --break-glass; or, if that node is gone for good, clmgr replace repository", node, group, group)
		}
	}
	return ""
}

// wasRead ends the waiting for the volume's first read. Any goroutine.
func (s *diskState) wasRead() { s.readOnce.Do(func() { close(s.firstRead) }) }

// sawGlass notes what the volume shows of the break-glass starts of a node. Of the disk's goroutine.
func (s *diskState) sawGlass(node string, groups []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(groups) == 0 {
		delete(s.glass, node)
		return
	}
	s.glass[node] = groups
}
