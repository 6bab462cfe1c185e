package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The repository volume, as the agent sees it: it keeps this node's voter process running, and moves the voter away from a node
// whose networks do not work. Nothing here is about safety: which process may speak for the voter is decided on the volume.

// A VoterProc is this node's voter process; tests have one inside their own.
type VoterProc interface {
	// Reports delivers what the process says; it is closed when the process has ended.
	Reports() <-chan VoterReport
	HandOver(node string)
	// Stop lets the voter give its claim up, and waits for the end, at most for the limit.
	Stop(limit time.Duration)
}

// repoState is what the agent knows of the repository voter.
type repoState struct {
	changed chan struct{}               // which volume is in use may have changed
	report  atomic.Pointer[VoterReport] // nil: the process does not run
	known   atomic.Pointer[knownVolume]
	mu      sync.Mutex
	proc    VoterProc
	uuid    string
}

const (
	tendInterval  = 200 * time.Millisecond
	voterPause    = 500 * time.Millisecond  // before a process that has ended is started again
	voterPauseMax = 8 * time.Second         // and again, as long as none finds the volume in order
	moveAgain     = time.Minute             // between two attempts to move the voter: one that comes back was not wanted there
	moveHeard     = time.Second             // the other node must have been heard in this time,
	moveWait      = 1500 * time.Millisecond // and that this long after this node lost its networks: so after the loss
	voterEndLimit = 2 * time.Second
)

// keepVoter keeps the process of the volume in use running, until ctx ends.
func (m *member) keepVoter(ctx context.Context) {
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	var notBefore, movedAt, downSince time.Time
	pause := voterPause
	for {
		select {
		case <-ctx.Done():
			m.endVoter()
			return
		case <-m.repo.changed:
			tick.Reset(tendInterval)
		case <-tick.C:
		}
		want := m.wantedVolume()
		m.repo.mu.Lock()
		running, uuid := m.repo.proc, m.repo.uuid
		m.repo.mu.Unlock()
		if running == nil && want == nil {
			tick.Stop() // a cluster without a volume is not woken for it
			continue
		}
		if rep := m.repo.report.Load(); rep != nil && (rep.State == VoterRunning || rep.Host != "") {
			pause = voterPause
		}
		if m.repoDown.Load() == 0 {
			downSince = time.Time{}
		} else if downSince.IsZero() {
			downSince = time.Now()
		}
		switch {
		case running != nil && (want == nil || want.UUID != uuid):
			running.Stop(voterEndLimit)
		case m.closing.Load():
		case running == nil && want != nil && time.Now().After(notBefore):
			notBefore = time.Now().Add(pause)
			pause = min(2*pause, voterPauseMax) // until one has something to say of the volume
			m.beginVoter(ctx, want)
		case running != nil && !downSince.IsZero() && time.Since(downSince) >= moveWait && time.Since(movedAt) >= moveAgain && m.moveVoter(running):
			movedAt = time.Now()
		}
	}
}

// wantedVolume is the volume in use: by the definition, or, while the log has not brought the newest one that this node has ever
// seen, by what was in use then. A node that starts alone needs the voter to bring its log up to date, and the definition is in
// that log; while it applies the log again it passes through older definitions.
func (m *member) wantedVolume() *cluster.Repository {
	view, known := m.view(), m.repo.known.Load()
	d := view.Definition
	switch {
	case known != nil && (d == nil || view.DefinitionVersion < known.Version):
		return known.Volume
	case d == nil || d.Node(m.name) == nil:
		return nil
	}
	return d.Repository()
}

// A knownVolume is what a node remembers of the volume in use over a restart.
type knownVolume struct {
	Version uint64              `json:"version"` // of the definition that said so
	Volume  *cluster.Repository `json:"volume,omitempty"`
}

func volumeFile(dir string) string { return filepath.Join(dir, "volume.json") }

func (m *member) loadVolume() {
	b, err := os.ReadFile(volumeFile(m.opt.Node.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var k knownVolume
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		m.log.Warn("which repository volume was in use cannot be read: it will be learned from the log", "error", err)
		return
	}
	m.repo.known.Store(&k)
}

// keepVolume remembers the volume in use, if the definition is newer than that which is remembered and says another one.
func (m *member) keepVolume(view *state.State) {
	defer m.volumeMayHaveChanged()
	k := knownVolume{Version: view.DefinitionVersion}
	if p := view.Definition.Repository(); p != nil {
		volume := *p
		k.Volume = &volume
	}
	old := m.repo.known.Load()
	switch {
	case old == nil && k.Volume == nil, old != nil && old.Version >= k.Version:
		return
	case old != nil && (old.Volume == nil) == (k.Volume == nil) && (k.Volume == nil || *old.Volume == *k.Volume):
		return
	}
	b, err := json.Marshal(k)
	if err == nil {
		err = writeFile(volumeFile(m.opt.Node.StateDir), b, 0o600)
	}
	if err != nil {
		m.log.Warn("store which repository volume is in use", "error", err)
		return
	}
	m.repo.known.Store(&k)
}

// volumeMayHaveChanged lets keepVoter and keepDisk look.
func (m *member) volumeMayHaveChanged() {
	for _, c := range []chan struct{}{m.repo.changed, m.disk.changed} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (m *member) beginVoter(ctx context.Context, r *cluster.Repository) {
	proc, err := m.opt.StartVoter(ctx, VoterOptions{Node: m.opt.Node, Device: r.Device, UUID: r.UUID, Params: m.params(), Logger: m.a.log})
	if err != nil {
		m.log.Error("the repository voter's process cannot be started", "error", err)
		return
	}
	m.repo.mu.Lock()
	m.repo.proc, m.repo.uuid = proc, r.UUID
	m.repo.mu.Unlock()
	m.work.Go(func() {
		host := ""
		for rep := range proc.Reports() {
			if rep.Host != "" && rep.Host != host {
				// The voter has another host: connections to the old one may hang for as long as its timeouts.
				host = rep.Host
				m.links.Drop(cluster.RepositoryVoter)
			}
			m.log.Info("repository voter", "state", rep.State, "host", rep.Host, "text", rep.Text)
			m.repo.report.Store(&rep)
			m.mail.wake()
		}
		m.repo.report.Store(nil)
		m.repo.mu.Lock()
		m.repo.proc = nil
		m.repo.mu.Unlock()
		m.mail.wake()
	})
}

// moveVoter gives the voter to another node when this one has lost networks that the other has: whoever hosts the voter wins a
// split, and should be the one that can serve.
//
// Only a node that was heard after the loss gets it. The carrier of a direct cable is lost on both sides when one of the two dies: a voter that went
// to the dead node would leave the living one without a majority, for as long as this one is without its carrier.
func (m *member) moveVoter(proc VoterProc) (moved bool) {
	rep := m.repo.report.Load()
	if rep == nil || rep.State != VoterRunning {
		return false
	}
	down := int(m.repoDown.Load())
	view := m.view()
	if down == 0 || view.Definition == nil {
		return false
	}
	now := m.clock.Now()
	for i := range view.Definition.Nodes {
		name := view.Definition.Nodes[i].Name
		n := view.Node(name)
		if name == m.name || n == nil || n.Dead != nil || n.Lost != nil || n.Incarnation == 0 || !m.heardLately(name, now) {
			continue
		}
		lost := 0
		for _, w := range view.Definition.Networks {
			if n.NetworkDown(w.Name) {
				lost++
			}
		}
		if lost < down {
			m.log.Warn("this node has lost networks: the repository voter goes to another", "networks_lost", down, "to", name)
			proc.HandOver(name)
			return true
		}
	}
	return false
}

// heardLately reports whether this node itself had a message from the other within moveHeard.
func (m *member) heardLately(name string, now lease.Instant) bool {
	m.detMu.Lock()
	defer m.detMu.Unlock()
	silent, ok := m.det.Silent(name, now)
	return ok && silent < moveHeard
}

// endVoter gives the voter to another node and waits until it runs there, so that the daemon's end costs no vote.
func (m *member) endVoter() {
	m.repo.mu.Lock()
	proc := m.repo.proc
	m.repo.mu.Unlock()
	if proc != nil {
		proc.Stop(voterEndLimit)
	}
}

// repositoryServer is the server id of the repository voter, "" without a formatted volume.
func repositoryServer(d *cluster.Definition) string {
	if d == nil || d.Repository() == nil {
		return ""
	}
	return repositoryPrefix + d.Repository().UUID
}

// repositoryPrefix begins the server id of a repository voter; the volume's id follows.
const repositoryPrefix = "repository-"

// repositoryAlive is whether the voter answers, as far as this node knows.
func (m *member) repositoryAlive(server string) bool {
	if m.leading() != nil {
		f := m.raft.Followers()[server]
		return f.Contact != 0 && m.clock.Now().Sub(f.Contact) < time.Second
	}
	rep := m.repo.report.Load()
	return rep != nil && rep.Host != ""
}

// tendRepository makes the volume in use a member of the log, and an older one none. It reports whether it has begun a change.
func (m *member) tendRepository(led *leadership, d *cluster.Definition, servers []consensus.Server) bool {
	want := repositoryServer(d)
	voting, present, oldVotes := false, false, false
	var old string
	for _, s := range servers {
		switch {
		case s.ID == want:
			present, voting = true, s.Voter
		case nodeOfServer(s.ID) == cluster.RepositoryVoter:
			old, oldVotes = s.ID, s.Voter
		}
	}
	switch {
	case want != "" && !present:
		m.changeServers(led, "add the repository voter to the log", func(ctx context.Context) error { return m.raft.AddNonvoter(ctx, want) })
	case old != "" && (voting || !oldVotes): // a vote is not taken before another is there, whatever the definition says
		m.changeServers(led, "remove an older repository voter from the log", func(ctx context.Context) error { return m.raft.Remove(ctx, old) })
	case old != "" && m.caughtUp(want):
		// The new volume votes before the old one is let go: live replacement.
		m.changeServers(led, "give the vote to the new repository voter", func(ctx context.Context) error { return m.raft.AddVoter(ctx, want) })
	default:
		return false
	}
	return true
}

func (m *member) caughtUp(server string) bool {
	f := m.raft.Followers()[server]
	return f.Contact != 0 && m.clock.Now().Sub(f.Contact) < time.Second && f.LastIndex+16 >= m.raft.Stats().LastIndex
}

func (m *member) changeServers(led *leadership, what string, change func(context.Context) error) {
	m.loop.changingVoters = true
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(led.ctx, 5*time.Second)
		defer cancel()
		if err := change(ctx); err != nil {
			m.log.Warn(what, "error", err)
		} else {
			m.log.Info(what)
		}
		m.post(votersDone{})
	})
}

// Formatting. It is its own step, never done by itself, and destroys what is on the device.

// serveCard gives this node's certificate, to which the volume's key is sealed.
func (m *member) serveCard(context.Context, string, []byte) ([]byte, error) { return m.id.Card(), nil }

// formatRepository formats a volume of the definition and writes its new id there.
func (m *member) formatRepository(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	view := m.view()
	if view.Definition == nil {
		return api.Reply{}, api.Errorf(api.CodeNotConfigured, "the cluster has no definition yet")
	}
	d := view.Definition.Clone()
	var repo *cluster.Repository
	for i := range d.Repositories {
		if d.Repositories[i].Name == r.Repository {
			repo = &d.Repositories[i]
		}
	}
	switch {
	case repo == nil:
		return api.Reply{}, api.Errorf(api.CodeNotFound, "no repository %q in the definition", r.Repository)
	case repo.UUID != "":
		return api.Reply{Refused: "repository " + repo.Name + " is formatted already (" + repo.UUID + "): add another one, which takes its place"}, nil
	}
	members := []repository.Member{}
	for i := range d.Nodes {
		card := m.id.Card()
		if name := d.Nodes[i].Name; name != m.name {
			var err error
			if card, err = m.links.Call(ctx, name, rpcCard, nil); err != nil {
				return api.Reply{Refused: fmt.Sprintf("node %s must be reachable when a repository is formatted: %v", name, err)}, nil
			}
		}
		members = append(members, repository.Member{Name: d.Nodes[i].Name, Card: card})
	}
	uuid, err := m.opt.FormatVolume(repository.FormatOptions{Path: repo.Device, Cluster: m.id.ClusterUUID, Node: m.name, Members: members,
		Authority: m.id, Timings: repository.TimingsFor(m.params().HostTimeout), Force: r.Overwrite,
		Lab: m.opt.Node.Deadman.Backend == config.BackendLab})
	if errors.Is(err, repository.ErrInUse) {
		return api.Reply{Refused: err.Error()}, nil
	}
	if err != nil {
		return api.Reply{}, fmt.Errorf("node %s: %w", m.name, err)
	}
	repo.UUID = uuid.String()
	res, err := m.commit(ctx, &state.Command{ID: r.ID, By: who.String(), SetDefinition: &state.SetDefinition{Base: view.DefinitionVersion, Definition: d}})
	if err != nil {
		return api.Reply{}, err
	}
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion,
		Sentence: fmt.Sprintf("repository %s (%s) is formatted on node %s: %s", repo.Name, repo.Device, m.name, repo.UUID)}, nil
}

// The real process.

type voterChild struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	reports chan VoterReport
	done    chan struct{}
}

// startVoterChild runs this program as `clstrmgrd voter`.
func startVoterChild(file string) func(context.Context, VoterOptions) (VoterProc, error) {
	return func(_ context.Context, o VoterOptions) (VoterProc, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		params, err := json.Marshal(o.Params)
		if err != nil {
			return nil, err
		}
		// Not bound to the context: who stops it lets it give its claim up.
		cmd := exec.Command(self, "voter", "--config", file, "--device", o.Device, "--uuid", o.UUID, "--timings", string(params))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the end of the agent is not its end
		orders, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		p := &voterChild{cmd: cmd, orders: orders, reports: make(chan VoterReport, 1), done: make(chan struct{})}
		go func() {
			defer close(p.done)
			defer close(p.reports)
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				var r VoterReport
				if json.Unmarshal(lines.Bytes(), &r) == nil {
					p.reports <- r
				}
			}
			if err := cmd.Wait(); err != nil {
				o.Logger.Warn("the repository voter's process has ended; it is started again", "error", err)
			}
		}()
		return p, nil
	}
}

func (p *voterChild) Reports() <-chan VoterReport { return p.reports }

func (p *voterChild) HandOver(node string) { fmt.Fprintln(p.orders, "handover "+node) }

func (p *voterChild) Stop(limit time.Duration) {
	_ = p.cmd.Process.Signal(os.Interrupt) // one that has ended needs none
	select {
	case <-p.done:
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		select {
		case <-p.done:
		case <-time.After(limit):
			// In the kernel, on a disk that does not answer. It holds the local lock until its access has ended, and promises nothing more.
		}
	}
}
