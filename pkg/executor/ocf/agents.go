package ocf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultRoot is where OCF resource agents are installed.
const DefaultRoot = "/usr/lib/ocf"

// temporary is where agents keep their notes (HA_RSCTMP). It is made where it is missing: it lies in memory, and only
// resource-agents' own unit for temporary files makes it at boot.
const temporary = "/run/resource-agents"

const metaLimit = 1 << 20 // bytes of an agent's meta-data

// AgentOptions configure the executor of OCF resource agents.
type AgentOptions struct {
	Runner *executor.Runner // required
	Root   string           // default DefaultRoot
	Logger *slog.Logger
}

// NewAgents makes the executor of applications that OCF resource agents run.
func NewAgents(o AgentOptions) *Applications {
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	return newApplications(executor.KindOCF, o.Runner, &installed{run: o.Runner, root: o.Root, known: map[string]described{}}, o.Logger)
}

// installed are the agents below a root.
type installed struct {
	run  *executor.Runner
	root string

	mu    sync.Mutex
	known map[string]described
}

// described is an agent's meta-data, as it was when its file looked like this.
type described struct {
	size     int64
	modified time.Time
	meta     *Meta
}

func (c *installed) find(ctx context.Context, r executor.Resource) (*agent, error) {
	name, err := cluster.ParseAgent(r.App.Agent)
	if err != nil {
		return nil, err
	}
	if name.Class != cluster.AgentOCF {
		return nil, fmt.Errorf("%s is no OCF agent: this is a fault of the caller", name)
	}
	path := filepath.Join(c.root, "resource.d", name.Provider, name.Type)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the agent %s is %w: %s is missing (the package resource-agents has those of heartbeat)", name, errNotInstalled, path)
	case err != nil:
		return nil, fmt.Errorf("look at the agent %s: %w", name, err)
	}
	if err := executor.CheckScript(path); err != nil {
		return nil, fmt.Errorf("agent %s: %w", name, err)
	}
	meta, err := c.describe(ctx, r, name, path, info)
	if err != nil {
		return nil, err
	}
	return &agent{name: name, meta: meta, env: c.environment(),
		command: func(action string) (string, []string, bool) { return path, []string{action}, true }}, nil
}

func (c *installed) environment() []string {
	if err := os.Mkdir(temporary, 0o1755); err == nil {
		_ = os.Chmod(temporary, os.ModeSticky|0o755)
	}
	return []string{"OCF_ROOT=" + c.root, "HA_RSCTMP=" + temporary}
}

// describe asks an agent for its meta-data, once for each version of its file.
func (c *installed) describe(ctx context.Context, r executor.Resource, name cluster.AgentName, path string, info os.FileInfo) (*Meta, error) {
	c.mu.Lock()
	d, ok := c.known[path]
	c.mu.Unlock()
	if ok && d.size == info.Size() && d.modified.Equal(info.ModTime()) {
		return d.meta, nil
	}
	// It says nothing about a resource, so it must not be ended or awaited as an action on one.
	o := c.run.Run(ctx, executor.Command{Scope: executor.Scope{Group: r.Group, Kind: "meta_data", Name: r.Name}, Op: "meta-data", Path: path, Args: []string{"meta-data"},
		Env:     append(c.environment(), "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1", "OCF_RESOURCE_TYPE="+name.Type, "OCF_RESOURCE_PROVIDER="+name.Provider, "OCF_RESOURCE_INSTANCE="+name.Type),
		Timeout: metaTimeout, Unrecorded: true, OutputLimit: metaLimit})
	if o.Err != nil {
		return nil, fmt.Errorf("ask the agent %s for its meta-data: %w", name, explain("meta-data", o))
	}
	meta, err := ParseMeta(o.Output)
	if err != nil {
		return nil, fmt.Errorf("agent %s: %w", name, err)
	}
	c.mu.Lock()
	c.known[path] = described{info.Size(), info.ModTime(), meta}
	c.mu.Unlock()
	return meta, nil
}

// Describe reads the meta-data of an installed agent.
func Describe(ctx context.Context, run *executor.Runner, root, agent string) (*Meta, error) {
	if root == "" {
		root = DefaultRoot
	}
	c := &installed{run: run, root: root, known: map[string]described{}}
	a, err := c.find(ctx, executor.Resource{Kind: executor.KindOCF, Name: agent, App: &cluster.ApplicationController{Name: agent, Agent: agent}})
	if err != nil {
		return nil, err
	}
	return a.meta, nil
}
