package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// How a boot knows that the one before was ended by its own deadman or watchdog, for the restraint of nodes that reset again and
// again (state.NodeBoot.Reset). Two witnesses are asked, and without either the end counts as a crash or a loss of power:
//
//   - a note on this node's disk. It is written when the lease has run out at L_soft, which is before the deadman may reset the node
//     at L_hard, and before this daemon asks the deadman for a reset; it is taken away when the node is granted or disarmed again.
//     The deadman itself touches no disk.
//   - the boot status of the watchdog device: it has fired. It covers what left no time for a note: a stopped or starved deadman, a
//     hung kernel. Not every driver tells.
//
// What neither sees: a deadman that resets a node at L_hard whose daemon is dead or hung, where the device does not tell. Nothing of
// this is asked for safety; it is only restraint.

// resetNote says that the boot is about to be reset.
type resetNote struct {
	BootID string `json:"boot_id"`
	Why    string `json:"why"`
}

// formerEnd is what a boot knows of the end of the one before.
type formerEnd struct {
	Note  *resetNote `json:"reset_note,omitempty"` // as found on the disk
	Fired bool       `json:"fired,omitempty"`      // the watchdog device says that it has ended the machine
}

// resetNoteLimit is how long a reset waits for its note: a hung disk must not keep a node alive.
const resetNoteLimit = 200 * time.Millisecond

// deadmanPatience is how long an introduction waits for the deadman, which knows the device's boot status.
const deadmanPatience = 2 * time.Second

func (m *member) resetNoteFile() string { return filepath.Join(m.opt.Node.StateDir, "reset.json") }

// loadResetNote reads the note that an earlier boot, or an earlier daemon of this boot, has left.
func (m *member) loadResetNote() {
	b, err := os.ReadFile(m.resetNoteFile())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r resetNote
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		m.log.Warn("the note about the last reset cannot be read: it is taken for none", "file", m.resetNoteFile(), "error", err)
		return
	}
	if r.BootID == m.bootID {
		m.loop.node.note = r.Why
		return
	}
	m.former, m.loop.node.oldNote = r, true
}

// formerEnd is what the note and the device say of the boot before. Of the loop.
func (m *member) formerEnd() formerEnd {
	e := formerEnd{Fired: m.loop.node.dm != nil && m.loop.node.dm.Info().Fired}
	if m.former.BootID != "" {
		note := m.former
		e.Note = &note
	}
	return e
}

// countedReset is why the boot before was reset, as far as it counts. n is what the log knows of the node before the new boot. A note
// of an older boot than that was told already, and what the fence device switched off was not reset by itself.
func countedReset(n *state.Node, req bootRequest) string {
	switch {
	case n == nil || n.Incarnation == 0 || n.BootID == req.BootID:
		return ""
	case n.Dead != nil && n.Dead.Kind == state.ProofFenced:
		return ""
	case req.Note != nil && req.Note.BootID == n.BootID:
		return req.Note.Why
	case req.Fired:
		return "its watchdog device says that it has fired"
	}
	return ""
}

// tendResetNote writes the note when this node is about to be reset, and takes it away when it is not any more. The disk is not
// waited for.
func (m *member) tendResetNote(now lease.Instant) {
	n := &m.loop.node
	why := ""
	switch {
	case n.dm == nil: // nothing is known: what was noted stands
		return
	case n.resetAt != 0 && now.Sub(n.resetAt) < 2*time.Second:
		return // resetNode writes its own
	case n.armed && n.dm.Info().Mode == lease.ModeReset && n.softExpired(m, now):
		why = fmt.Sprintf("its lease ran out: no grant for %.1f s", now.Sub(max(n.requested, n.armedAt)).Seconds())
	}
	told := n.oldNote && n.incarnation != 0 // the older boot's note has served
	if n.noting || (why == "") == (n.note == "") && !(told && why == "") {
		return
	}
	n.noting, n.oldNote = true, false
	m.work.Go(func() { m.post(resetNoted{why: why, err: m.writeResetNote(why)}) })
}

type resetNoted struct {
	why string
	err error
}

func (m *member) gotResetNoted(e resetNoted) {
	n := &m.loop.node
	n.noting = false
	if e.err != nil {
		m.log.Warn("the note about a reset of this node cannot be kept: a reset may not be counted, or one too many", "error", e.err)
	}
	n.note = e.why // not tried again for the same state
}

// writeResetNote replaces the note; an empty why removes it.
func (m *member) writeResetNote(why string) error {
	m.noteMu.Lock()
	defer m.noteMu.Unlock()
	if why == "" {
		err := os.Remove(m.resetNoteFile())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(m.opt.Node.StateDir)
	}
	b, err := json.Marshal(resetNote{BootID: m.bootID, Why: why})
	if err != nil {
		return err
	}
	return writeFile(m.resetNoteFile(), b, 0o600)
}

// noteReset writes the note of a reset that comes now, and waits for it a moment.
func (m *member) noteReset(why string) {
	done := make(chan error, 1)
	m.work.Go(func() { done <- m.writeResetNote(why) })
	select {
	case err := <-done:
		if err != nil {
			m.log.Warn("the reset of this node could not be noted", "error", err)
		}
	case <-after(resetNoteLimit):
		m.log.Warn("the reset of this node could not be noted in time", "limit", resetNoteLimit)
	}
}
