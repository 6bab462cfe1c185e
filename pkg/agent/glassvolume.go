package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/repository"
)

// glassOpenLimit is how long a break-glass command waits for the volume to open.
const glassOpenLimit = 10 * time.Second

// A glassVolume is the repository volume as a break-glass command uses it. It is open in the daemon's own role, which is free because the
// daemon does not run.
type glassVolume struct {
	vol  *repository.Volume
	self string
	host repository.Host // who ran the voter at the first look
}

func openGlassVolume(ctx context.Context, a *Agent, m *member, device string) (*glassVolume, error) {
	if m.id == nil {
		return nil, fmt.Errorf("open the repository volume %s: this node has no identity that could read it", device)
	}
	type opened struct {
		vol *repository.Volume
		err error
	}
	done := make(chan opened, 1)
	go func() { // apart: opening a file of a server that is gone can hang for ever
		vol, err := a.opt.OpenVolume(repository.Options{Path: device, Cluster: m.id.ClusterUUID, Node: m.name, Authority: m.id,
			Dir: filepath.Join(a.opt.Node.StateDir, "repository"), Role: repository.RoleAgent, Lab: a.opt.Node.Deadman.Backend == config.BackendLab})
		done <- opened{vol, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, o.err
		}
		return &glassVolume{vol: o.vol, self: m.name}, nil
	case <-after(glassOpenLimit):
		return nil, fmt.Errorf("opening the repository volume %s hangs", device)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (v *glassVolume) close() { v.vol.Close() }

// watch looks at the volume for as long as the window. alive says who lives; empty: nobody has written.
func (v *glassVolume) watch(ctx context.Context, group string, window time.Duration) (alive string, err error) {
	if v.host, err = v.vol.Host(); err != nil {
		return "", err
	}
	for end := time.Now().Add(window); ; {
		alive, err := v.moved(group)
		if alive != "" || err != nil || time.Now().After(end) {
			return alive, err
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-after(250 * time.Millisecond):
		}
	}
}

// moved looks once whether anybody else has written since the look before, and whether another node holds the group past the cluster.
// The voter's own signs count whoever runs it: one that outlives this node's daemon still helps the others to elect.
func (v *glassVolume) moved(group string) (alive string, err error) {
	beats, err := v.vol.ReadBeats()
	if err != nil {
		return "", err
	}
	for _, s := range beats {
		switch {
		case s.Node == v.self:
		case s.Err != nil:
			return "", fmt.Errorf("the heartbeat of node %s cannot be read: %w", s.Node, s.Err)
		case s.Advanced:
			return fmt.Sprintf("node %s is alive: its heartbeat on the repository volume moves", s.Node), nil
		case slices.Contains(s.Beat.BreakGlass, group):
			return fmt.Sprintf("node %s holds group %s by a break-glass start, as the repository volume shows; release it there", s.Node, group), nil
		}
	}
	h, err := v.vol.Host()
	if err != nil {
		return "", err
	}
	if h.Beat != v.host.Beat || h.Ballot != v.host.Ballot {
		if h.Node == v.self {
			return "the repository voter of this node still runs; it ends by itself a few seconds after the daemon: try again then", nil
		}
		return fmt.Sprintf("node %s is alive: the repository voter runs there", h.Node), nil
	}
	return "", nil
}

// declare writes what is held here past the cluster, for every node that reads the volume.
func (v *glassVolume) declare(boot string, groups []string) error {
	return v.vol.WriteBeat(repository.Beat{Boot: boot, BreakGlass: groups})
}
