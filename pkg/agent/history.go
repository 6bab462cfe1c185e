package agent

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// historyLog writes the cluster's history to adm/cluster.log in PowerHA's line form, once per event and node, and one file a
// day below adm/history. It is called from the loop only.
type historyLog struct {
	dir, node string
	last      uint64            // newest event written
	count     func(name string) // told of each event once; may be nil
}

func openHistory(logDir, node string) (*historyLog, error) {
	h := &historyLog{dir: filepath.Join(logDir, "adm"), node: node}
	if err := os.MkdirAll(filepath.Join(h.dir, "history"), 0o755); err != nil {
		return nil, fmt.Errorf("create the directory of histories: %w", err)
	}
	h.last = h.mark()
	return h, nil
}

// mark reads the newest event id written before, so that a restart does not write events again.
func (h *historyLog) mark() uint64 {
	f, err := os.Open(filepath.Join(h.dir, ".last"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var id uint64
	_, _ = fmt.Fscan(bufio.NewReader(f), &id)
	return id
}

// write appends what is new in the view.
func (h *historyLog) write(view *state.State) error {
	if view.LastEvent() == h.last {
		return nil
	}
	if view.LastEvent() < h.last { // another cluster's history
		h.last = 0
	}
	var today, all strings.Builder
	day := ""
	var errs []error
	flush := func() {
		if day != "" {
			errs = append(errs, appendTo(filepath.Join(h.dir, "history", "cluster."+day), today.String()))
		}
		today.Reset()
	}
	for _, e := range view.Events(h.last + 1) {
		line := historyLine(h.node, e)
		all.WriteString(line)
		if d := e.At.Format("01022006"); d != day {
			flush()
			day = d
		}
		today.WriteString(line)
		h.last = e.ID
		if h.count != nil {
			h.count(e.Name)
		}
	}
	flush()
	errs = append(errs, appendTo(filepath.Join(h.dir, "cluster.log"), all.String()),
		os.WriteFile(filepath.Join(h.dir, ".last"), []byte(fmt.Sprintln(h.last)), 0o644))
	return errors.Join(errs...)
}

func (h *historyLog) close() {}

// eventWords are the words that begin PowerHA's lines, by event.
var completed = map[string]bool{state.EventNodeUpComplete: true, state.EventNodeDownComplete: true, state.EventGroupMoveComplete: true,
	state.EventGroupRelease: true, state.EventConfiguration: true}

var failed = map[string]bool{state.EventGroupAcquireFailed: true, state.EventGroupReleaseFailed: true, state.EventGroupError: true,
	state.EventNodeFenceFailed: true}

// historyLine is one event as
// "Aug 20 14:56:39 node1 user:notice Holdfast: EVENT START: node_up node1: sentence".
func historyLine(node string, e state.Event) string {
	word := "EVENT START"
	switch {
	case completed[e.Name]:
		word = "EVENT COMPLETED"
	case failed[e.Name]:
		word = "EVENT FAILED"
	}
	subject := strings.TrimSpace(strings.Join([]string{e.Name, e.Group, e.Node}, " "))
	subject = strings.Join(strings.Fields(subject), " ")
	status := ""
	switch word {
	case "EVENT COMPLETED":
		status = " 0"
	case "EVENT FAILED":
		status = " 1"
	}
	return fmt.Sprintf("%s %s user:notice Holdfast: %s: %s%s # %s\n", e.At.Format(time.Stamp), node, word, subject, status, oneLine(e.Sentence))
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// maxHistory is the size at which cluster.log is rotated.
const maxHistory = 8 << 20

func appendTo(path, text string) error {
	if text == "" {
		return nil
	}
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxHistory {
		if err := os.Rename(path, path+".1"); err != nil {
			return fmt.Errorf("rotate %s: %w", path, err)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	_, werr := f.WriteString(text)
	return errors.Join(werr, f.Close())
}
