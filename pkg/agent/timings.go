package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The deadman's settings follow the definition here. The leader computes with what the Armed fact says, so at every moment the
// fact must say at least as much as the deadman does (attack A4): what makes a proof later or impossible is committed before
// it is done, what makes it earlier is done first and then committed. A disarmed deadman holds nothing and just follows.
//
// The last settings given are kept in a file: an agent that comes back under an arming cannot know yet what the definition
// says, and must not give the deadman longer times than those that the log holds.

// settingsFile holds the settings that the deadman was given last.
func (m *member) settingsFile() string { return filepath.Join(m.opt.Node.StateDir, "deadman.json") }

// lastSettings are those of the file. Without one nothing was ever armed in this cluster, and any will do.
func (m *member) lastSettings() deadman.Settings {
	fresh := deadman.Settings{Params: m.params(), Mode: m.deadmanMode(m.view())}
	b, err := os.ReadFile(m.settingsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return fresh
	}
	var s deadman.Settings
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && len(s.Params.Validate()) > 0 {
		err = s.Params.Validate()[0]
	}
	if err != nil {
		m.log.Warn("the deadman's last settings cannot be read: those of the definition hold", "file", m.settingsFile(), "error", err)
		return fresh
	}
	return s
}

func (m *member) saveSettings(s deadman.Settings) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := writeFile(m.settingsFile(), b, 0o600); err != nil {
		return fmt.Errorf("store the deadman's settings: %w", err)
	}
	return nil
}

// The timings of the definition are kept in a file too: raft takes its own when the log is opened, before what is in it is known.

func timingsFile(stateDir string) string { return filepath.Join(stateDir, "timings.json") }

// keptTimings are those of the file, or the default profile.
func (m *member) keptTimings() lease.Params {
	fallback, _ := lease.Profile("")
	b, err := os.ReadFile(timingsFile(m.opt.Node.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return fallback
	}
	var p lease.Params
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err == nil {
		err = errors.Join(p.Validate()...)
	}
	if err != nil {
		m.log.Warn("the timings that were kept cannot be read: the default profile holds until the log is", "error", err)
		return fallback
	}
	return p
}

func keepTimings(stateDir string, p lease.Params) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := writeFile(timingsFile(stateDir), b, 0o600); err != nil {
		return fmt.Errorf("keep the timings: %w", err)
	}
	return nil
}

// definedTimings are the timings of a definition.
func definedTimings(d *cluster.Definition) (lease.Params, error) {
	p, err := lease.Profile(d.Settings.Profile)
	if err == nil {
		p, err = p.With(d.Settings.Timings)
	}
	if err == nil {
		err = errors.Join(p.Validate()...)
	}
	return p, err
}

// changeTimings makes this node follow other timings of the definition.
func (m *member) changeTimings(p lease.Params) {
	m.setTiming(p)
	m.detMu.Lock()
	m.det.SetParams(detector.ParamsFor(p))
	m.detMu.Unlock()
	if err := keepTimings(m.opt.Node.StateDir, p); err != nil {
		m.log.Warn("the next start of this daemon begins with older timings", "error", err)
	}
	o := m.openedWith
	if o.RaftHeartbeat != p.RaftHeartbeat || o.RaftElection != p.RaftElection || o.RaftLease != p.RaftLease {
		m.log.Warn("raft's own timings change with the next start of this daemon; until then an election takes as long as before",
			"election_now", o.RaftElection, "election_then", p.RaftElection)
	}
}

// tendDeadman is one step towards the definition's timings and mode, if there is one to make.
func (m *member) tendDeadman(view *state.State, now lease.Instant) {
	n := &m.loop.node
	if m.loop.defined == 0 || n.dmBusy || now < n.dmRetryAt {
		return
	}
	want := deadman.Settings{Params: m.params(), Mode: m.deadmanMode(view)}
	follows := want == n.dmWith
	if !n.armed {
		if !follows {
			m.updateDeadman(want)
		}
		return
	}
	self := view.Node(m.name)
	if self == nil || self.Armed == nil || self.Arming != n.arming || self.Incarnation != n.incarnation {
		return // the arming's first fact comes first
	}
	switch next := m.armedFact(view, want); {
	case follows && *self.Armed != next:
		m.proposeArmed(next)
	case follows:
	case !covers(*self.Armed, next):
		m.proposeArmed(widest(*self.Armed, next))
	default:
		m.updateDeadman(want)
	}
}

// armedFact is what the log is told of a deadman with these settings. A timeout that the device does not have yet is counted as
// the device will: in whole seconds, and as often as the one in force.
func (m *member) armedFact(view *state.State, s deadman.Settings) lease.Armed {
	n := &m.loop.node
	info := n.dm.Info()
	w := info.Watchdog
	if s != n.dmWith {
		w = (s.Params.Watchdog + time.Second - 1).Truncate(time.Second)
		if info.Device > 0 {
			w *= info.Watchdog / info.Device
		}
	}
	fact := lease.Armed{Node: m.name, Incarnation: n.incarnation, Class: info.Class, Mode: s.Mode, Watchdog: w,
		MaxAge: s.Params.MaxAge, Residue: s.Params.Residue, Margin: s.Params.Margin}
	if view.Definition != nil && info.Class == lease.Process {
		fact.Waived = view.Definition.Settings.WaiveTimeProof
	}
	return fact
}

// widest is a fact under which a proof is possible no earlier than under either.
func widest(a, b lease.Armed) lease.Armed {
	w := b
	w.Watchdog, w.MaxAge = max(a.Watchdog, b.Watchdog), max(a.MaxAge, b.MaxAge)
	w.Residue, w.Margin = max(a.Residue, b.Residue), max(a.Margin, b.Margin)
	w.Waived = a.Waived && b.Waived
	if a.Mode == lease.ModeEvent {
		w.Mode = a.Mode
	}
	if a.Class == lease.Process {
		w.Class = a.Class
	}
	return w
}

func covers(a, b lease.Armed) bool { return widest(a, b) == a }

func (m *member) proposeArmed(fact lease.Armed) {
	n := &m.loop.node
	m.once("armed/"+n.arming, &state.Command{Armed: &state.Armed{Fact: fact, Arming: n.arming}})
}

// updateDeadman gives the deadman other settings, beside the loop. When it is not known whether it took them, the fact in the log
// stays as wide as it is until it has.
func (m *member) updateDeadman(s deadman.Settings) {
	n := &m.loop.node
	n.dmBusy = true
	dm := n.dm
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.loop.ctx, 5*time.Second)
		defer cancel()
		err := m.saveSettings(s)
		if err == nil {
			err = dm.Update(ctx, s)
		}
		m.post(deadmanUpdated{dm: dm, settings: s, err: err})
	})
}

type deadmanUpdated struct {
	dm       Deadman
	settings deadman.Settings
	err      error
}

func (m *member) finishUpdate(e deadmanUpdated) {
	n := &m.loop.node
	if n.dm != e.dm {
		return
	}
	n.dmBusy = false
	if e.err != nil {
		n.dmWith = deadman.Settings{} // neither the old nor the new for certain
		n.dmRetryAt = m.clock.Now().Add(time.Second)
		m.log.Error("the deadman did not take other timings", "error", e.err)
		return
	}
	n.dmWith = e.settings
	if n.armed {
		n.armedWith = e.settings.Params
	}
	m.log.Info("the deadman has other timings", "profile", e.settings.Params.Profile, "watchdog", e.dm.Info().Watchdog, "mode", e.settings.Mode)
}
