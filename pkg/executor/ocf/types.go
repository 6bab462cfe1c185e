package ocf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultTypes is the directory of the resource types that the administrator of a node has made.
const DefaultTypes = "/etc/holdfast/types"

// Manifest is the name of the file that describes a resource type; it lies beside its scripts.
const Manifest = "type.yaml"

const maxManifest = 64 << 10

// TypeOptions configure the executor of user-defined resource types.
type TypeOptions struct {
	Runner *executor.Runner // required
	Dir    string           // default DefaultTypes
	// Decode reads a manifest; name is what its errors call it. Required.
	Decode func(name string, data []byte) (*cluster.ResourceType, error)
	Logger *slog.Logger
}

// NewTypes makes the executor of applications of types that an administrator has made: a directory TYPE below Dir, with a
// manifest and the scripts start, stop, monitor and, optionally, validate. They are called without arguments, in the
// environment and with the exit statuses of OCF resource agents: 0 is success, and 7 from monitor says that it does not run.
func NewTypes(o TypeOptions) *Applications {
	if o.Dir == "" {
		o.Dir = DefaultTypes
	}
	return newApplications(executor.KindUser, o.Runner, &types{o}, o.Logger)
}

type types struct{ o TypeOptions }

// find reads the manifest each time: it is small, and the administrator who has just changed it expects it to count.
func (c *types) find(_ context.Context, r executor.Resource) (*agent, error) {
	name, err := cluster.ParseAgent(r.App.Agent)
	if err != nil {
		return nil, err
	}
	if name.Class != cluster.AgentUser {
		return nil, fmt.Errorf("%s is no resource type: this is a fault of the caller", name)
	}
	dir := filepath.Join(c.o.Dir, name.Type)
	t, err := c.read(name, filepath.Join(dir, Manifest))
	if err != nil {
		return nil, err
	}
	scripts := map[string]string{}
	for action, file := range map[string]string{"start": "start", "stop": "stop", "monitor": "monitor", "validate-all": "validate"} {
		path := filepath.Join(dir, file)
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) && action == "validate-all" {
			continue
		}
		if err := executor.CheckScript(path); err != nil {
			return nil, fmt.Errorf("script %s of resource type %s: %w", file, name.Type, err)
		}
		scripts[action] = path
	}
	a := &agent{name: name, meta: metaOf(t, scripts), command: func(action string) (string, []string, bool) {
		path, ok := scripts[action]
		return path, nil, ok
	}}
	a.name.Provider = "holdfast"
	a.env = []string{"OCF_ROOT=" + DefaultRoot, "HOLDFAST_TYPE_DIR=" + dir}
	for _, p := range t.Parameters {
		if _, given := r.App.Params[p.Name]; !given && p.Default != "" {
			a.env = append(a.env, "OCF_RESKEY_"+p.Name+"="+p.Default)
		}
	}
	return a, nil
}

func (c *types) read(name cluster.AgentName, path string) (*cluster.ResourceType, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the resource type %s is %w: %s is missing", name.Type, errNotInstalled, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the manifest of resource type %s: %w", name.Type, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read the manifest of resource type %s: %w", name.Type, err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("the manifest %s has more than %d bytes", path, maxManifest)
	}
	t, err := c.o.Decode(path, data)
	if err != nil {
		return nil, fmt.Errorf("the manifest of resource type %s: %w", name.Type, err)
	}
	if t.Name != name.Type {
		return nil, fmt.Errorf("the manifest %s names the type %q: it must be that of its directory, %s", path, t.Name, name.Type)
	}
	return t, nil
}

func metaOf(t *cluster.ResourceType, scripts map[string]string) *Meta {
	m := &Meta{Name: t.Name, Version: t.Version, Short: t.Description}
	for _, p := range t.Parameters {
		m.Parameters = append(m.Parameters, Parameter{Name: p.Name, Type: p.Type, Default: p.Default, Required: p.Required, Short: p.Description})
	}
	for _, action := range []string{"start", "stop", "monitor", "validate-all"} {
		if scripts[action] == "" {
			continue
		}
		key := action
		if action == "validate-all" {
			key = "validate"
		}
		m.Actions = append(m.Actions, Action{Name: action, Timeout: t.Timeouts[key]})
	}
	return m
}
