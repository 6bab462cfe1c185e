package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/leader"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Backups of the repository volume. The leader asks all nodes once a minute whether they can use them, and often while the volume in use
// does not answer: what they say decides, by package leader's rule, whether a backup takes its place. Then the definition changes in the
// log, and the rest is what an operator's replacement does too (tendRepository): nothing here touches a vote or a volume.

const (
	backupsEvery = time.Minute     // between two looks at the backups while the volume in use answers
	backupsSoon  = 3 * time.Second // while it does not
	backupsLimit = 5 * time.Second // for all answers
	backupLook   = 4 * time.Second // for one node's look at one backup
)

// backupState is what a node knows of the repository volumes beyond its voter's reports. The zero value is empty.
type backupState struct {
	mu      sync.Mutex
	good    map[string]lease.Instant // when this node last could use the voter of a volume that it wants; or since when it wants it
	using   map[string]bool          // whether it can now
	looks   map[string]string        // what the newest look at each backup found; "": it can be used
	looking map[string]bool          // backups whose look has not ended: a device that hangs gets no second one
	// Of the leader: what stands in the way of a replacement, "" if nothing is to be said; and what is wrong with each backup by all nodes'
	// answers, "" for nothing. nil: this node does not lead, or has not asked yet.
	why     string
	answers map[string]string
}

// backupKeeping is what a leader's loop knows of the volumes in its term.
type backupKeeping struct {
	busy  bool
	quiet lease.Instant // since when the volume in use has not answered the leader; 0: it does
	next  lease.Instant // when to ask again
	used  string        // the volume in use, since quiet
	asked string        // about which volumes the nodes were asked last
	told  map[string]string
}

// volumesAsked is the end of a round of questions.
type volumesAsked struct {
	led     *leadership
	used    string
	answers map[string]leader.VolumeAnswer
}

// volumeReplaced is the end of a proposal.
type volumeReplaced struct {
	led *leadership
	c   *state.ReplaceVolume
	res state.Result
	err error
}

// noteUse keeps in mind which of the wanted volumes this node can use. Called with each look of keepVoter.
//
// A process that has just begun does not count: before T_host is over it takes any host for alive that the volume names, and on a volume
// that cannot be written each process says so until it claims and ends.
func (m *member) noteUse(want []cluster.Repository, running map[string]*voterRun) {
	now := m.clock.Now()
	b := &m.backups
	b.mu.Lock()
	defer b.mu.Unlock()
	good, using := map[string]lease.Instant{}, map[string]bool{}
	for _, v := range want {
		var rep *VoterReport
		if run := running[v.UUID]; run != nil && time.Since(run.since) > 2*m.params().HostTimeout {
			rep = run.report.Load()
		}
		using[v.UUID] = rep != nil && rep.State != VoterEnded && rep.Text == "" && (rep.State == VoterRunning || rep.Host != "")
		good[v.UUID] = b.good[v.UUID]
		if using[v.UUID] || good[v.UUID] == 0 {
			good[v.UUID] = now
		}
	}
	b.good, b.using = good, using
}

// A volumesQuestion asks a node about the volume in use and its backups; a volumesAnswer is what it says.
type volumesQuestion struct {
	UUID string `json:"uuid"`
}

type volumesAnswer struct {
	UnusableSeconds float64           `json:"unusable_seconds"`
	Why             string            `json:"why,omitempty"`
	Backups         map[string]string `json:"backups"`
}

// serveVolumes answers by what this node has seen itself. It looks at the backups of its own definition, and at no path that is asked for.
func (m *member) serveVolumes(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var q volumesQuestion
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, errors.New("the question cannot be read")
	}
	d := m.view().Definition
	if d == nil {
		return nil, errors.New("this node knows no definition yet")
	}
	backups := d.BackupRepositories()
	a := volumesAnswer{Backups: m.lookAtBackups(ctx, backups)}
	now := m.clock.Now()
	m.backups.mu.Lock()
	since, known := m.backups.good[q.UUID]
	using := m.backups.using[q.UUID]
	m.backups.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("this node does not use the volume %s", q.UUID)
	}
	if !using {
		a.UnusableSeconds = max(now.Sub(since), time.Millisecond).Seconds()
		a.Why = m.repo.lastWords(q.UUID)
	}
	return json.Marshal(a)
}

// lookAtBackups opens each backup and closes it again, and keeps what was found for the status.
func (m *member) lookAtBackups(ctx context.Context, backups []cluster.Repository) map[string]string {
	b := &m.backups
	found := map[string]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, v := range backups {
		b.mu.Lock()
		busy := b.looking[v.UUID]
		if b.looking == nil {
			b.looking = map[string]bool{}
		}
		b.looking[v.UUID] = true
		b.mu.Unlock()
		if busy {
			mu.Lock()
			found[v.UUID] = "an earlier look at " + v.Device + " has not ended"
			mu.Unlock()
			continue
		}
		done := make(chan error, 1)
		go func() { // apart: opening a file of a server that is gone can hang for ever
			err := m.openAndClose(v.Device, v.UUID)
			b.mu.Lock()
			delete(b.looking, v.UUID)
			b.mu.Unlock()
			done <- err
		}()
		all.Go(func() {
			text := ""
			select {
			case err := <-done:
				if err != nil {
					text = oneLine(err.Error())
				}
			case <-ctx.Done():
				text = v.Device + " does not answer"
			case <-after(backupLook):
				text = v.Device + " does not answer"
			}
			mu.Lock()
			defer mu.Unlock()
			found[v.UUID] = text
		})
	}
	all.Wait()
	b.mu.Lock()
	b.looks = found
	b.mu.Unlock()
	return found
}

// tendBackups asks the nodes about the volumes when it is time. Of the leader's loop.
func (m *member) tendBackups(led *leadership, view *state.State, now lease.Instant) {
	d, k := view.Definition, &led.backups
	if d == nil || d.Repository() == nil {
		k.quiet = 0
		m.backups.say("", nil)
		return
	}
	used := *d.Repository()
	if used.UUID != k.used {
		k.used, k.quiet = used.UUID, 0
	}
	if m.repositoryAlive(repositoryServer(d)) {
		k.quiet = 0
	} else if k.quiet == 0 {
		k.quiet = now
	}
	backups := d.BackupRepositories()
	about := used.UUID
	for _, b := range backups {
		about += " " + b.UUID
	}
	if about != k.asked {
		k.asked, k.next = about, 0
	}
	lost := k.quiet != 0 && now.Sub(k.quiet) >= d.Settings.RepositoryPatience()
	if len(backups) == 0 || !lost {
		// Nobody has to be asked to say why nothing is done.
		_, why := leader.VolumeLost(view, k.silence(now), nil)
		m.backups.say(why, nil)
	}
	if k.busy || len(backups) == 0 || now < k.next && (!lost || k.next.Sub(now) <= backupsSoon) {
		return
	}
	k.busy, k.next = true, now.Add(backupsEvery)
	if lost {
		k.next = now.Add(backupsSoon)
	}
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(led.ctx, backupsLimit)
		defer cancel()
		m.post(volumesAsked{led, used.UUID, m.askVolumes(ctx, view, used.UUID)})
	})
}

// silence is for how long the volume in use has not answered; 0: it does.
func (k *backupKeeping) silence(now lease.Instant) time.Duration {
	if k.quiet == 0 {
		return 0
	}
	return max(now.Sub(k.quiet), time.Nanosecond)
}

// askVolumes asks every node that the log does not call dead or silent, all at once.
func (m *member) askVolumes(ctx context.Context, view *state.State, used string) map[string]leader.VolumeAnswer {
	out := map[string]leader.VolumeAnswer{}
	body, err := json.Marshal(volumesQuestion{used})
	if err != nil {
		return out
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range view.Definition.Nodes {
		name := view.Definition.Nodes[i].Name
		n := view.Node(name)
		if n == nil || n.RaftID == "" || n.Dead != nil || n.Lost != nil {
			continue
		}
		all.Go(func() {
			var text []byte
			var err error
			if name == m.name {
				text, err = m.serveVolumes(ctx, m.name, body)
			} else {
				text, err = m.links.Call(ctx, name, rpcVolumes, body)
			}
			var a volumesAnswer
			if err == nil {
				err = json.Unmarshal(text, &a)
			}
			v := leader.VolumeAnswer{Unusable: time.Duration(a.UnusableSeconds * float64(time.Second)), Why: a.Why, Backups: a.Backups}
			if err != nil {
				v = leader.VolumeAnswer{Err: oneLine(err.Error())}
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = v
		})
	}
	all.Wait()
	return out
}

// gotVolumes takes the nodes' answers. Of the loop.
func (m *member) gotVolumes(e volumesAsked) {
	k := &e.led.backups
	k.busy = false
	view := m.view()
	if e.led.ctx.Err() != nil || view.Definition == nil || view.Definition.Repository() == nil || view.Definition.Repository().UUID != e.used {
		return // they are about another volume than the one in use
	}
	m.tellBackups(e.led, view.Definition, e.answers)
	c, why := leader.VolumeLost(view, k.silence(m.clock.Now()), e.answers)
	m.backups.say(why, wrongWith(view.Definition, e.answers))
	if c == nil {
		return
	}
	k.busy = true
	m.work.Go(func() {
		res, err := m.commit(e.led.ctx, &state.Command{Term: e.led.term, By: "the cluster", ReplaceVolume: c})
		m.post(volumeReplaced{e.led, c, res, err})
	})
}

func (m *member) gotVolumeReplaced(e volumeReplaced) {
	e.led.backups.busy = false
	switch {
	case e.err != nil:
		m.log.Warn("a backup should take the place of the repository volume, and this could not be committed; it is tried again", "error", e.err)
		m.backups.say("a backup should take its place, and this could not be decided: "+oneLine(e.err.Error()), nil)
	case e.res.Refused != "":
		m.log.Warn("a backup should take the place of the repository volume, and this was refused", "why", e.res.Refused)
		m.backups.say(e.res.Refused, nil)
	default:
		m.log.Warn(e.c.Sentence, "event", state.EventRepositoryReplaced)
		m.backups.say("", nil)
	}
}

// wrongWith is what is wrong with each backup by the first node that says so; "" for nothing. A backup that a node did not look at is not
// in it: nothing is known of it.
func wrongWith(d *cluster.Definition, answers map[string]leader.VolumeAnswer) map[string]string {
	out := map[string]string{}
	for _, b := range d.BackupRepositories() {
		text, known := "", len(answers) > 0
		for _, node := range sortedKeys(answers) {
			switch what, looked := answers[node].Backups[b.UUID]; {
			case !looked:
				known = false
			case what != "" && text == "":
				text = fmt.Sprintf("node %s cannot use it: %s", node, what)
			}
		}
		if known || text != "" {
			out[b.UUID] = text
		}
	}
	return out
}

// tellBackups brings a backup that cannot be used, and its return, into the history.
func (m *member) tellBackups(led *leadership, d *cluster.Definition, answers map[string]leader.VolumeAnswer) {
	wrong := wrongWith(d, answers)
	k := &led.backups
	if k.told == nil {
		k.told = map[string]string{}
	}
	for _, b := range d.BackupRepositories() {
		text, known := wrong[b.UUID]
		if !known || (text == "") == (k.told[b.UUID] == "") {
			continue
		}
		k.told[b.UUID] = text
		note := &state.Note{Event: "repository_backup_down", Sentence: fmt.Sprintf("the backup repository %s (%s) could not take the place of the one in use: %s",
			b.Name, b.Device, text)}
		if text == "" {
			note = &state.Note{Event: "repository_backup_up", Sentence: fmt.Sprintf("the backup repository %s (%s) can be used by all nodes again", b.Name, b.Device)}
		}
		m.log.Warn(note.Sentence, "event", note.Event)
		m.submit(&state.Command{Note: note})
	}
}

// say keeps what the leader has to say of a replacement. answers nil leaves what is known of the backups.
func (b *backupState) say(why string, answers map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = why
	if answers != nil {
		b.answers = answers
	}
}

// replacementSentence is what becomes of a volume in use that does not answer, as far as this node knows.
func (m *member) replacementSentence(d *cluster.Definition, have bool) string {
	backups := d.BackupRepositories()
	switch {
	case len(backups) == 0:
		return ""
	case !have:
		return fmt.Sprintf("its backup %s cannot take its place: a majority of the votes must decide it, and none is known from here", backups[0].Name)
	case m.leading() != nil:
		m.backups.mu.Lock()
		defer m.backups.mu.Unlock()
		return m.backups.why
	case d.Settings.NoRepositoryReplacement:
		return "it is not replaced by itself, because REPOSITORY_AUTO_REPLACE is false"
	}
	return fmt.Sprintf("a backup takes its place when no node could use it for %v", d.Settings.RepositoryPatience())
}

// backupStatus lists the volumes that are not in use: the backups in their order, then those that were lost.
func (m *member) backupStatus(d *cluster.Definition) []api.Backup {
	if d == nil || len(d.Repositories) < 2 {
		return nil
	}
	leads := m.leading() != nil
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	var out []api.Backup
	for _, b := range d.BackupRepositories() {
		s := api.Backup{Name: b.Name, Device: b.Device, UUID: b.UUID, State: api.BackupUnknown, Sentence: "nobody has looked at it yet"}
		text, looked := m.backups.looks[b.UUID]
		who := "this node can use it"
		if text != "" {
			text = "this node cannot use it: " + text
		}
		if all, known := m.backups.answers[b.UUID]; known && leads {
			text, looked, who = all, true, "all nodes can use it"
		}
		switch {
		case looked && text == "":
			s.State, s.Sentence = api.BackupUsable, who
		case looked:
			s.State, s.Sentence = api.BackupUnusable, text
		}
		out = append(out, s)
	}
	for i := range d.Repositories {
		if r := &d.Repositories[i]; d.RepositoryState(r) == cluster.RepositoryLost {
			out = append(out, api.Backup{Name: r.Name, Device: r.Device, UUID: r.UUID, State: api.BackupLost, Sentence: "another volume has taken its place, and nothing " +
				"uses it: format it anew (clmgr format repository " + r.Name + "), put it to use again (clmgr replace repository " + r.Name + "), or delete it"})
		}
	}
	return out
}
