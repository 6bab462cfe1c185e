// Package sim is an executor of every kind that moves nothing: a resource is "held" by a node. It serves tests, simulations and
// machines without rights.
//
// The world says at once when two nodes hold one resource, and remembers it; like a real disk it does not prevent it. Failures
// and delays can be injected. With a directory the world is shared by processes and outlives them; then a crash of a node
// must be told to it (Crash), because files do not vanish with their writer.
package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Operations, for faults.
const (
	OpValidate = "validate"
	OpProbe    = "probe"
	OpStart    = "start"
	OpStop     = "stop"
)

// A Fault disturbs operations.
type Fault struct {
	Node     string // empty: on every node
	Resource string // name; empty: every resource
	Op       string // empty: every operation
	Times    int    // how often; 0: until it is cleared
	Delay    time.Duration
	Hang     bool  // until the context ends; the operation then has no effect
	Err      error // the operation fails before it has an effect; a probe and a stop are then Unknown
	Late     bool  // the operation fails with Err after it had its effect
}

// A World is what is held by whom. Its methods may be called by any goroutine.
type World struct {
	// Shared says that a resource may be held by several nodes at once (a concurrent group's). Nil: none may. Set it before
	// the first use.
	Shared func(r executor.Resource) bool
	// OnViolation is told each double holding when it begins. Set it before the first use; it must not call the world.
	OnViolation func(Violation)

	dir        string
	mu         sync.Mutex
	held       map[string]map[string]bool // without a directory
	faults     []*Fault
	violations []Violation
}

// A Violation is two nodes that held one resource at once.
type Violation struct {
	Kind     executor.Kind
	Resource string
	Nodes    []string // all holders, sorted
}

func (v Violation) String() string {
	return fmt.Sprintf("%s %s is held by several nodes at once: %s", v.Kind, v.Resource, strings.Join(v.Nodes, ", "))
}

// NewWorld makes a world in memory, or in a directory if one is named.
func NewWorld(dir string) (*World, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory of the simulated world: %w", err)
		}
	}
	return &World{dir: dir, held: map[string]map[string]bool{}}, nil
}

// Inject adds a fault; the returned function takes it away.
func (w *World) Inject(f Fault) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &f
	w.faults = append(w.faults, p)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.faults = slices.DeleteFunc(w.faults, func(q *Fault) bool { return q == p })
	}
}

// Violations lists what this process has seen so far.
func (w *World) Violations() []Violation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

// Holders lists the nodes that hold the resource, sorted.
func (w *World) Holders(kind executor.Kind, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holders(key(kind, name))
}

// Crash takes everything from a node, as a power failure does.
func (w *World) Crash(node string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir == "" {
		for _, nodes := range w.held {
			delete(nodes, node)
		}
		return nil
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "*", url.PathEscape(node)))
	for _, f := range files {
		if rerr := os.Remove(f); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

func key(kind executor.Kind, name string) string { return url.PathEscape(string(kind) + "." + name) }

func (w *World) holders(key string) ([]string, error) {
	if w.dir == "" {
		return slices.Sorted(maps.Keys(w.held[key])), nil
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, key))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("see who holds %s: %w", key, err)
	}
	var out []string
	for _, e := range entries {
		node, err := url.PathUnescape(e.Name())
		if err != nil {
			return nil, fmt.Errorf("see who holds %s: the file %s is foreign", key, e.Name())
		}
		out = append(out, node)
	}
	sort.Strings(out)
	return out, nil
}

// set takes or gives back the resource, and returns who holds it then.
func (w *World) set(r executor.Resource, node string, hold bool) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := key(r.Kind, r.Name)
	before, err := w.holders(k)
	if err != nil {
		return nil, err
	}
	if err := w.write(k, node, hold); err != nil {
		return nil, err
	}
	after, err := w.holders(k)
	if err != nil {
		return nil, err
	}
	if len(after) > 1 && len(after) > len(before) && (w.Shared == nil || !w.Shared(r)) {
		v := Violation{Kind: r.Kind, Resource: r.Name, Nodes: after}
		w.violations = append(w.violations, v)
		if w.OnViolation != nil {
			w.OnViolation(v)
		}
	}
	return after, nil
}

func (w *World) write(k, node string, hold bool) error {
	if w.dir == "" {
		if w.held[k] == nil {
			w.held[k] = map[string]bool{}
		}
		if delete(w.held[k], node); hold {
			w.held[k][node] = true
		}
		return nil
	}
	path := filepath.Join(w.dir, k, url.PathEscape(node))
	if !hold {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("give back %s: %w", k, err)
		}
		return nil
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, nil, 0o644)
	}
	if err != nil {
		return fmt.Errorf("take %s: %w", k, err)
	}
	return nil
}

// disturb applies the first fault that fits, and returns what it asks for after its delay.
func (w *World) disturb(ctx context.Context, node, op, name string) (Fault, error) {
	w.mu.Lock()
	var hit Fault
	for i, f := range w.faults {
		if (f.Node == "" || f.Node == node) && (f.Resource == "" || f.Resource == name) && (f.Op == "" || f.Op == op) {
			hit = *f
			if f.Times == 1 {
				w.faults = slices.Delete(w.faults, i, i+1)
			} else if f.Times > 1 {
				f.Times--
			}
			break
		}
	}
	w.mu.Unlock()
	if hit.Hang {
		<-ctx.Done()
	} else if hit.Delay > 0 {
		t := time.NewTimer(hit.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return hit, fmt.Errorf("%s of %s was cancelled: %w", op, name, context.Cause(ctx))
	}
	return hit, nil
}

// An Executor is one node's hands for one kind.
type Executor struct {
	world *World
	kind  executor.Kind
	node  string

	mu        sync.Mutex
	announced map[string]int
}

var (
	_ executor.Executor  = (*Executor)(nil)
	_ executor.Announcer = (*Executor)(nil)
)

// Executor makes the executor of a kind on a node.
func (w *World) Executor(kind executor.Kind, node string) *Executor {
	return &Executor{world: w, kind: kind, node: node, announced: map[string]int{}}
}

// Registry makes the executors of all kinds for a node.
func (w *World) Registry(node string) executor.Registry {
	var all []executor.Executor
	for _, k := range []executor.Kind{executor.KindServiceIP, executor.KindPersistentIP, executor.KindFileSystem, executor.KindApplication} {
		all = append(all, w.Executor(k, node))
	}
	return executor.NewRegistry(all...)
}

// Kind is the kind it was made for.
func (e *Executor) Kind() executor.Kind { return e.kind }

// Validate accepts every resource of its kind that has a name.
func (e *Executor) Validate(ctx context.Context, r executor.Resource) error {
	f, err := e.world.disturb(ctx, e.node, OpValidate, r.Name)
	switch {
	case err != nil:
		return err
	case f.Err != nil:
		return f.Err
	case r.Kind != e.kind || r.Name == "":
		return fmt.Errorf("a resource of kind %q named %q cannot be simulated as %s", r.Kind, r.Name, e.kind)
	}
	return nil
}

// Probe says whether this node holds the resource.
func (e *Executor) Probe(ctx context.Context, r executor.Resource) executor.Result {
	f, err := e.world.disturb(ctx, e.node, OpProbe, r.Name)
	if err := errors.Join(err, f.Err); err != nil {
		return unknown(err)
	}
	nodes, err := e.world.Holders(r.Kind, r.Name)
	if err != nil {
		return unknown(err)
	}
	return e.describe(r, nodes)
}

func (e *Executor) describe(r executor.Resource, nodes []string) executor.Result {
	own := slices.Contains(nodes, e.node)
	switch {
	case own && len(nodes) > 1 && (e.world.Shared == nil || !e.world.Shared(r)):
		return executor.Result{Status: executor.Degraded, Detail: Violation{r.Kind, r.Name, nodes}.String()}
	case own:
		return executor.Result{Status: executor.Running, Detail: fmt.Sprintf("%s %s is held by %s", r.Kind, r.Name, e.node)}
	}
	return executor.Result{Status: executor.Stopped, Detail: fmt.Sprintf("%s %s is not held by %s", r.Kind, r.Name, e.node)}
}

// Start takes the resource.
func (e *Executor) Start(ctx context.Context, r executor.Resource) executor.Result {
	return e.change(ctx, r, OpStart, true, executor.Running)
}

// Stop gives the resource back.
func (e *Executor) Stop(ctx context.Context, r executor.Resource) executor.Result {
	return e.change(ctx, r, OpStop, false, executor.Stopped)
}

func (e *Executor) change(ctx context.Context, r executor.Resource, op string, hold bool, goal executor.Status) executor.Result {
	f, err := e.world.disturb(ctx, e.node, op, r.Name)
	if err == nil && !f.Late {
		err = f.Err
	}
	if err != nil {
		return e.afterFailure(r, hold, err)
	}
	nodes, err := e.world.set(r, e.node, hold)
	if err != nil {
		return unknown(err)
	}
	if f.Err != nil {
		return e.afterFailure(r, hold, f.Err)
	}
	res := e.describe(r, nodes)
	if res.Status != goal {
		res.Err = errors.New(res.Detail)
	}
	return res
}

// afterFailure is the truth about a start that failed, and Unknown for a stop: nobody can rely on it.
func (e *Executor) afterFailure(r executor.Resource, starting bool, err error) executor.Result {
	res := unknown(err)
	if nodes, herr := e.world.Holders(r.Kind, r.Name); herr == nil && starting {
		res.Status = e.describe(r, nodes).Status
	}
	return res
}

// Announce counts.
func (e *Executor) Announce(_ context.Context, r executor.Resource) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.announced[r.Name]++
	return nil
}

// Announced is how often the resource was announced.
func (e *Executor) Announced(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.announced[name]
}

func unknown(err error) executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
}
