package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/peer"
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
//
// There is one process for each volume: one usually, and two while a volume is being replaced, because the old one votes until the new
// one does.
type repoState struct {
	changed chan struct{} // which volumes are in use may have changed
	known   atomic.Pointer[knownVolume]
	mu      sync.Mutex
	runs    map[string]*voterRun // by the volume's id; only those that run
	words   map[string]string    // why the last run of each volume ended, until the next one finds the volume in order
}

// A voterRun is one run of a voter's process.
type voterRun struct {
	volume cluster.Repository
	since  time.Time
	proc   VoterProc
	report atomic.Pointer[VoterReport] // nil: it has said nothing yet
}

// running copies the list of the processes.
func (r *repoState) running() map[string]*voterRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.runs)
}

// reportOf is the newest report of the volume's process on this node; nil: it does not run, or has said nothing.
func (r *repoState) reportOf(uuid string) *VoterReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.runs[uuid]; run != nil {
		return run.report.Load()
	}
	return nil
}

// keepWords remembers why a run ended, until one finds the volume in order.
func (r *repoState) keepWords(uuid string, rep VoterReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case rep.State == VoterEnded:
		r.words[uuid] = rep.Text
	case rep.State == VoterRunning:
		delete(r.words, uuid)
	}
}

// lastWords is why the volume's voter last ended on this node, "" if it has run since.
func (r *repoState) lastWords(uuid string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.words[uuid]
}

// A voterPacer spaces the starts of one volume's process.
type voterPacer struct {
	notBefore time.Time
	pause     time.Duration
}

const (
	tendInterval  = 200 * time.Millisecond
	voterPause    = 500 * time.Millisecond  // before a process that has ended is started again
	voterPauseMax = 8 * time.Second         // and again, as long as none finds the volume in order for
	voterSteady   = 10 * time.Second        // this long
	moveAgain     = time.Minute             // between two attempts to move the voter: one that comes back was not wanted there
	moveHeard     = time.Second             // the other node must have been heard in this time,
	moveWait      = 1500 * time.Millisecond // and that this long after this node lost its networks: so after the loss
	voterEndLimit = 2 * time.Second
)

// keepVoter keeps the processes of the volumes that vote running, until ctx ends.
func (m *member) keepVoter(ctx context.Context) {
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	var movedAt, downSince time.Time
	pacers := map[string]*voterPacer{}
	for {
		select {
		case <-ctx.Done():
			m.endVoter()
			return
		case <-m.repo.changed:
			tick.Reset(tendInterval)
		case <-tick.C:
		}
		want, running := m.wantedVolumes(), m.repo.running()
		if len(running) == 0 && len(want) == 0 {
			tick.Stop() // a cluster without a volume is not woken for it
			continue
		}
		if m.repoDown.Load() == 0 {
			downSince = time.Time{}
		} else if downSince.IsZero() {
			downSince = time.Now()
		}
		for uuid, run := range running {
			if !slices.Contains(want, run.volume) {
				run.proc.Stop(voterEndLimit)
				delete(pacers, uuid)
			}
		}
		m.noteUse(want, running)
		if m.closing.Load() {
			continue
		}
		for _, v := range want {
			m.tendVoter(ctx, v, running[v.UUID], pacers)
		}
		if downSince.IsZero() || time.Since(downSince) < moveWait || time.Since(movedAt) < moveAgain {
			continue
		}
		for _, run := range running {
			if m.moveVoter(run) {
				movedAt = time.Now()
			}
		}
	}
}

// tendVoter starts the volume's process if it does not run and its pause is over.
func (m *member) tendVoter(ctx context.Context, v cluster.Repository, run *voterRun, pacers map[string]*voterPacer) {
	p := pacers[v.UUID]
	if p == nil {
		p = &voterPacer{pause: voterPause}
		pacers[v.UUID] = p
	}
	if run != nil {
		if rep := run.report.Load(); rep != nil && (rep.State == VoterRunning || rep.Host != "") && time.Since(run.since) >= voterSteady {
			p.pause = voterPause
		}
		return
	}
	if time.Now().After(p.notBefore) {
		p.notBefore = time.Now().Add(p.pause)
		p.pause = min(2*p.pause, voterPauseMax) // until one has something to say of the volume
		m.beginVoter(ctx, v)
	}
}

// wantedVolumes are the volumes whose voters are to run: that in use, and those that still vote because they are being replaced.
func (m *member) wantedVolumes() []cluster.Repository {
	first := m.wantedVolume()
	if first == nil {
		return nil
	}
	out := []cluster.Repository{*first}
	var others []cluster.Repository
	if known := m.repo.known.Load(); known != nil {
		others = known.Others
	}
	if view := m.view(); view.Definition != nil {
		others = append(slices.Clone(others), formatted(view.Definition)...)
	}
	servers := m.raft.Configuration()
	for _, v := range others {
		known := slices.ContainsFunc(out, func(o cluster.Repository) bool { return o.UUID == v.UUID })
		if !known && votes(servers, repositoryPrefix+v.UUID) {
			out = append(out, v)
		}
	}
	return out
}

// formatted are the volumes of the definition that may have a vote, those that were lost among them: such a one votes until the volume
// that takes its place does.
func formatted(d *cluster.Definition) []cluster.Repository {
	return slices.DeleteFunc(slices.Clone(d.Repositories), func(r cluster.Repository) bool { return r.UUID == "" })
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
	// Others are formatted too: one of them may still vote while it is being replaced.
	Others []cluster.Repository `json:"others,omitempty"`
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
	if used := view.Definition.Repository(); used != nil {
		v := *used
		k.Volume = &v
	}
	for _, v := range formatted(view.Definition) {
		if k.Volume == nil || v.UUID != k.Volume.UUID {
			k.Others = append(k.Others, v)
		}
	}
	old := m.repo.known.Load()
	switch {
	case old == nil && k.Volume == nil, old != nil && old.Version >= k.Version:
		return
	case old != nil && (old.Volume == nil) == (k.Volume == nil) && (k.Volume == nil || *old.Volume == *k.Volume) && slices.Equal(old.Others, k.Others):
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

// forgetVolume remembers that no volume is in use from the definition of this version on.
func (m *member) forgetVolume(version uint64) error {
	b, err := json.Marshal(knownVolume{Version: version})
	if err == nil {
		err = writeFile(volumeFile(m.opt.Node.StateDir), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store that no repository volume is in use: %w", err)
	}
	return nil
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

func (m *member) beginVoter(ctx context.Context, r cluster.Repository) {
	proc, err := m.opt.StartVoter(ctx, VoterOptions{Node: m.opt.Node, Device: r.Device, UUID: r.UUID, Params: m.params(), Logger: m.a.log})
	if err != nil {
		m.log.Error("the repository voter's process cannot be started", "error", err)
		return
	}
	run := &voterRun{volume: r, since: time.Now(), proc: proc}
	m.repo.mu.Lock()
	m.repo.runs[r.UUID] = run
	m.repo.mu.Unlock()
	m.work.Go(func() {
		host := ""
		for rep := range proc.Reports() {
			if rep.Host != "" && rep.Host != host {
				// The voter has another host: connections to the old one may hang for as long as its timeouts.
				host = rep.Host
				m.links.Drop(repositoryPrefix + r.UUID)
			}
			m.log.Info("repository voter", "volume", r.Name, "state", rep.State, "host", rep.Host, "text", rep.Text)
			run.report.Store(&rep)
			m.repo.keepWords(r.UUID, rep)
			m.mail.wake()
		}
		m.repo.mu.Lock()
		if m.repo.runs[r.UUID] == run {
			delete(m.repo.runs, r.UUID)
		}
		m.repo.mu.Unlock()
		m.mail.wake()
	})
}

// moveVoter gives the voter to another node when this one has lost networks that the other has: whoever hosts the voter wins a
// split, and should be the one that can serve.
//
// Only a node that was heard after the loss gets it. The carrier of a direct cable is lost on both sides when one of the two dies: a voter that went
// to the dead node would leave the living one without a majority, for as long as this one is without its carrier.
func (m *member) moveVoter(run *voterRun) (moved bool) {
	rep := run.report.Load()
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
			run.proc.HandOver(name)
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
	var all sync.WaitGroup
	for _, run := range m.repo.running() {
		all.Go(func() { run.proc.Stop(voterEndLimit) })
	}
	all.Wait()
}

// repositoryServer is the server id of the repository voter, "" without a formatted volume.
func repositoryServer(d *cluster.Definition) string {
	if d == nil || d.Repository() == nil {
		return ""
	}
	return repositoryPrefix + d.Repository().UUID
}

// repositoryPrefix begins the server id of a repository voter; the volume's id follows. It is also the name under which the voter speaks,
// so that two of them are never taken for each other: a leader that counted the answers of one as the other's would commit what only
// one has stored.
const repositoryPrefix = "repository-"

// isRepository reports whether a server id, or the name that a connection proves, is a repository voter's.
func isRepository(id string) bool {
	uuid, ok := strings.CutPrefix(id, repositoryPrefix)
	return ok && len(uuid) == 36
}

// repositoryAlive is whether the voter answers, as far as this node knows.
func (m *member) repositoryAlive(server string) bool {
	if m.leading() != nil {
		f := m.raft.Followers()[server]
		return f.Contact != 0 && m.clock.Now().Sub(f.Contact) < time.Second
	}
	rep := m.repo.reportOf(strings.TrimPrefix(server, repositoryPrefix))
	return rep != nil && rep.Host != ""
}

// tendRepository makes the volume in use a member of the log, and an older one none. It reports whether it has begun a change.
func (m *member) tendRepository(led *leadership, d *cluster.Definition, servers []consensus.Server) bool {
	want := repositoryServer(d)
	voting, present, oldVotes, nodes := false, false, false, 0
	var old string
	for _, s := range servers {
		if s.Voter && !isRepository(s.ID) {
			nodes++
		}
		switch {
		case s.ID == want:
			present, voting = true, s.Voter
		case isRepository(s.ID):
			old, oldVotes = s.ID, s.Voter
		}
	}
	switch {
	case want != "" && !present:
		m.changeServers(led, "add the repository voter to the log", func(ctx context.Context) error { return m.raft.AddNonvoter(ctx, want) })
	case old != "" && (voting || !oldVotes || nodes >= 3): // a vote is not taken before another is there, whatever the definition says
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
		defer m.post(votersDone{})
		done, err := m.takeVoters(ctx)
		if err == nil {
			defer done()
			err = change(ctx)
		}
		if err != nil {
			m.log.Warn(what, "error", err)
		} else {
			m.log.Info(what)
		}
	})
}

// Formatting. It is its own step, never done by itself, and destroys what is on the device.

// serveCard gives this node's certificate, to which the volume's key is sealed.
func (m *member) serveCard(context.Context, string, []byte) ([]byte, error) { return m.id.Card(), nil }

// What a volume must be able to keep, by the size of the state when it is formatted: its snapshot, the log behind it, and both grown.
const (
	roomBase   = 256 << 10
	roomFactor = 4
)

// lastFormat is the newest volume that this node has formatted, for a request that comes again.
type lastFormat struct {
	id    string
	reply api.Reply
}

// formatRepository formats a volume of the definition and writes its new id there. One at a time: of two, the second would overwrite
// the volume whose id the first has committed. A request that comes again, because its answer was late, gets the first one's answer.
//
// What this does not close: a leader that is deposed between the check and the end of the write, while its successor formats the same
// device. It costs the volume, which then has another id than the definition says and is not used; it never costs more, because a
// volume of another id is another voter.
func (m *member) formatRepository(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	select {
	case m.formatting <- struct{}{}:
		defer func() { <-m.formatting }()
	case <-ctx.Done():
		return api.Reply{}, api.Errorf(api.CodeUncertain, "another repository is being formatted, and this one waited for it: ask again")
	}
	if last := m.formatted; last != nil && r.ID != "" && last.id == r.ID {
		return last.reply, nil
	}
	view := m.view()
	if view.Definition == nil {
		return api.Reply{}, api.Errorf(api.CodeNotConfigured, "the cluster has no definition yet")
	}
	d := view.Definition.Clone()
	repo := repositoryOf(d, r.Repository)
	switch {
	case repo == nil:
		return api.Reply{}, api.Errorf(api.CodeNotFound, "no repository %q in the definition", r.Repository)
	case repo.Lost && votes(m.raft.Configuration(), repositoryPrefix+repo.UUID):
		return api.Reply{Refused: "repository " + repo.Name + " still votes, until the volume that takes its place does"}, nil
	case repo.UUID != "" && !repo.Lost:
		return api.Reply{Refused: "repository " + repo.Name + " is formatted already (" + repo.UUID + "). To use another device in its place: clmgr add " +
			"repository, clmgr format repository, clmgr replace repository"}, nil
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
	led := m.leading()
	if led == nil {
		return api.Reply{}, consensus.ErrNotLeader
	}
	if err := led.confirm(ctx); err != nil { // nothing is destroyed for a leader that was deposed without noticing
		return api.Reply{}, fmt.Errorf("format the repository: this node could not make sure that it leads, nothing was done: %w", err)
	}
	encoded, err := view.Encode()
	if err != nil {
		return api.Reply{}, err
	}
	uuid, err := m.opt.FormatVolume(repository.FormatOptions{Path: repo.Device, Room: roomBase + roomFactor*int64(len(encoded)), Cluster: m.id.ClusterUUID, Node: m.name, Members: members,
		Authority: m.id, Timings: repository.TimingsFor(m.params().HostTimeout), Force: r.Overwrite,
		Lab: m.opt.Node.Deadman.Backend == config.BackendLab})
	if errors.Is(err, repository.ErrInUse) {
		return api.Reply{Refused: err.Error()}, nil
	}
	if err != nil {
		return api.Reply{}, fmt.Errorf("node %s: %w", m.name, err)
	}
	repo.UUID, repo.Lost = uuid.String(), false
	res, err := m.commit(ctx, &state.Command{ID: r.ID, By: who.String(), SetDefinition: &state.SetDefinition{Base: view.DefinitionVersion, Definition: d}})
	if err != nil {
		return api.Reply{}, err
	}
	reply := api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion,
		Sentence: fmt.Sprintf("repository %s (%s) is formatted on node %s: %s", repo.Name, repo.Device, m.name, repo.UUID)}
	if used := d.Repository(); used.UUID != repo.UUID {
		reply.Sentence += fmt.Sprintf("; %s stays in use, and %s is a backup of it (clmgr replace repository %s puts it to use)", used.Name, repo.Name, repo.Name)
	}
	if res.Refused == "" {
		m.formatted = &lastFormat{r.ID, reply}
	}
	return reply, nil
}

func repositoryOf(d *cluster.Definition, name string) *cluster.Repository {
	for i := range d.Repositories {
		if d.Repositories[i].Name == name {
			return &d.Repositories[i]
		}
	}
	return nil
}

// replaceRepository puts another formatted volume to use: it moves to the front of the definition's list. The leader then gives it the
// vote, and takes that of the one before only when it has it (tendRepository); until then both are voters' stores with a process each.
// A cluster that has lost its volume can do it too, as long as both nodes are there: their two votes are enough for each step.
func (m *member) replaceRepository(ctx context.Context, who api.Caller, r api.Request) (api.Reply, error) {
	view := m.view()
	if view.Definition == nil {
		return api.Reply{}, api.Errorf(api.CodeNotConfigured, "the cluster has no definition yet")
	}
	d := view.Definition.Clone()
	used := d.Repository()
	if used == nil {
		return api.Reply{Refused: "no repository volume is in use: clmgr format repository puts the first one to use"}, nil
	}
	fresh := repositoryOf(d, r.Repository)
	if backups := d.BackupRepositories(); r.Repository == "" && len(backups) > 0 {
		fresh = repositoryOf(d, backups[0].Name)
	}
	switch {
	case fresh == nil && r.Repository != "":
		return api.Reply{}, api.Errorf(api.CodeNotFound, "no repository %q in the definition: clmgr add repository %s DEVICE=..., then clmgr format repository %s",
			r.Repository, r.Repository, r.Repository)
	case fresh == nil:
		return api.Reply{Refused: "there is no other formatted repository to take the place of " + used.Name +
			": clmgr add repository NAME DEVICE=..., then clmgr format repository NAME"}, nil
	case fresh.UUID == "":
		return api.Reply{Refused: "repository " + fresh.Name + " is not formatted: clmgr format repository " + fresh.Name + " (what is on its device is lost)"}, nil
	case fresh.UUID == used.UUID:
		return api.Reply{Already: true, Index: view.Index, DefinitionVersion: view.DefinitionVersion,
			Sentence: "repository " + used.Name + " is the one in use"}, nil
	}
	chosen := *fresh
	chosen.Lost = false // it is back, says the operator
	if why := m.cannotReach(ctx, view, chosen); why != "" && !r.Force {
		return api.Reply{Refused: why}, nil
	}
	d.Repositories = slices.DeleteFunc(d.Repositories, func(o cluster.Repository) bool { return o.UUID == chosen.UUID })
	d.Repositories = append([]cluster.Repository{chosen}, d.Repositories...)
	res, err := m.commit(ctx, &state.Command{ID: r.ID, By: who.String(), SetDefinition: &state.SetDefinition{Base: view.DefinitionVersion, Definition: d}})
	if err != nil {
		return api.Reply{}, err
	}
	return api.Reply{Index: res.Index, Refused: res.Refused, DefinitionVersion: m.view().DefinitionVersion,
		Sentence: fmt.Sprintf("repository %s (%s) takes the place of %s", chosen.Name, chosen.Device, used.Name)}, nil
}

// cannotReach asks each node that is up whether it can open the volume; the answer is the first that cannot, in a sentence.
func (m *member) cannotReach(ctx context.Context, view *state.State, v cluster.Repository) string {
	body, err := json.Marshal(volumeLook{Device: v.Device, UUID: v.UUID})
	if err != nil {
		return err.Error()
	}
	for i := range view.Definition.Nodes {
		name := view.Definition.Nodes[i].Name
		if !view.Node(name).Alive() {
			continue
		}
		if name == m.name {
			_, err = m.serveLook(ctx, m.name, body)
		} else {
			_, err = m.links.Call(ctx, name, rpcLook, body)
		}
		if err != nil && !errors.Is(err, peer.ErrUnknownMethod) {
			return fmt.Sprintf("node %s cannot use repository %s: %v; the volume in use stays (-f replaces it all the same)", name, v.Name, err)
		}
	}
	return ""
}

// A volumeLook asks whether a node can open a volume.
type volumeLook struct {
	Device string `json:"device"`
	UUID   string `json:"uuid"`
}

func (m *member) serveLook(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var l volumeLook
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, errors.New("the question cannot be read")
	}
	done := make(chan error, 1)
	go func() { // apart: opening a file of a server that is gone can hang for ever
		done <- m.openAndClose(l.Device, l.UUID)
	}()
	select {
	case err := <-done:
		return nil, err
	case <-ctx.Done():
		return nil, errors.New("the device does not answer")
	}
}

// openAndClose tells whether this node can read the volume and is one of its members. It writes nothing.
func (m *member) openAndClose(device, uuid string) error {
	vol, err := m.opt.OpenVolume(repository.Options{Path: device, Cluster: m.id.ClusterUUID, Node: m.name, Authority: m.id,
		Role: repository.RoleReader, Lab: m.opt.Node.Deadman.Backend == config.BackendLab})
	if err != nil {
		return err
	}
	if got := vol.UUID().String(); got != uuid {
		err = fmt.Errorf("the volume %s has the id %s, the definition says %s", device, got, uuid)
	}
	return errors.Join(err, vol.Close())
}

// keepVolumeIDs fills in the ids of the volumes that a new definition takes over, and which of them are lost; it refuses any other: an id comes from formatting
// and is part of a voter's name; one that was made up would put a volume to use that nobody has formatted for this cluster.
func keepVolumeIDs(old, d *cluster.Definition) error {
	for i := range d.Repositories {
		r := &d.Repositories[i]
		var was *cluster.Repository
		if old != nil {
			was = repositoryOf(old, r.Name)
		}
		r.Lost = was != nil && was.Lost && (r.UUID == was.UUID || r.UUID == "" && was.Device == r.Device)
		switch {
		case was != nil && r.UUID == "" && was.Device == r.Device:
			r.UUID = was.UUID
		case r.UUID != "" && (was == nil || was.UUID != r.UUID):
			return api.Errorf(api.CodeRefused, "repository %s: its UUID %s cannot be set: clmgr format repository writes it. Leave uuid out", r.Name, r.UUID)
		}
	}
	return nil
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
