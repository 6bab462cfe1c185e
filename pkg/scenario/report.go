package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A Report is what happened.
type Report struct {
	Name  string        `json:"name"`
	OK    bool          `json:"ok"`
	Steps []*StepReport `json:"steps"`
}

// A StepReport is what one step did.
type StepReport struct {
	Step    int    `json:"step"` // from 1
	Do      string `json:"do"`
	Refused string `json:"refused"` // the sentence of a refused request
	// Decisions in the order taken.
	Decisions []Decision `json:"decisions"`
	// Groups shows each group's state on each node of its list.
	Groups map[string]map[string]string `json:"groups"`
	Failed []string                     `json:"failed"` // what did not hold

	other []string // decisions that neither start nor stop anything, for the text
	order []groupRow
}

// A Decision is a start or a stop.
type Decision struct {
	Op     string `json:"op"` // acquire or release
	Group  string `json:"group"`
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// groupRow is a line of the text's table.
type groupRow struct {
	group, node, state string
}

func (s *StepReport) record(d scheduler.Decision) {
	switch d.Op {
	case scheduler.OpAcquire, scheduler.OpRelease:
		s.Decisions = append(s.Decisions, Decision{Op: string(d.Op), Group: d.Group, Node: d.Node, Reason: d.Reason})
		s.other = append(s.other, "")
	case scheduler.OpGiveUp:
		s.other = append(s.other, fmt.Sprintf("error %s on %s (%s)", d.Group, d.Node, d.Reason))
	case scheduler.OpReset:
		s.other = append(s.other, fmt.Sprintf("reset %s (%s)", d.Node, d.Reason))
	case scheduler.OpTimer:
		s.other = append(s.other, d.Reason)
	}
}

// look takes down the groups' states.
func (s *StepReport) look(w *world) {
	s.Groups = map[string]map[string]string{}
	due := scheduler.OfflineDueTo(w.s, w.now)
	for i := range w.def.ResourceGroups {
		g := &w.def.ResourceGroups[i]
		row := map[string]string{}
		for _, n := range g.Nodes {
			shown := w.s.Shown(g.Name, n)
			row[n] = string(shown.State)
			full := row[n]
			if d := due.Of(w.s, g.Name, n); shown.State == state.Offline && d != "" {
				full += " DUE TO " + string(d)
			}
			s.order = append(s.order, groupRow{g.Name, n, full})
		}
		s.Groups[g.Name] = row
	}
	if s.Decisions == nil {
		s.Decisions = []Decision{}
	}
}

// full is the state with what it is due to.
func (s *StepReport) full(group, node string) string {
	for _, r := range s.order {
		if r.group == group && r.node == node {
			return r.state
		}
	}
	return ""
}

// matches reports whether a state is what was expected: plain OFFLINE matches all its forms.
func matches(want, plain, full string) bool {
	norm := func(s string) string {
		return strings.Join(strings.Fields(strings.ToUpper(strings.ReplaceAll(s, "_", " "))), " ")
	}
	return norm(want) == norm(plain) || norm(want) == norm(full)
}

// JSON writes the report as one JSON value with a newline.
func (r *Report) JSON(out io.Writer) error {
	for _, s := range r.Steps {
		if s.Failed == nil {
			s.Failed = []string{}
		}
	}
	if r.Steps == nil {
		r.Steps = []*StepReport{}
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Text writes the report for people: one line for each decision, then the table of states.
func (r *Report) Text(out io.Writer) error {
	var b bytes.Buffer
	if r.Name != "" {
		fmt.Fprintf(&b, "scenario: %s\n", r.Name)
	}
	for _, s := range r.Steps {
		head := fmt.Sprintf("step %d  %s: ", s.Step, s.Do)
		n := 0
		for _, other := range s.other {
			if other != "" {
				fmt.Fprintf(&b, "%s%s\n", head, other)
				continue
			}
			d := s.Decisions[n]
			n++
			fmt.Fprintf(&b, "%s%s %s on %s (%s)\n", head, d.Op, d.Group, d.Node, d.Reason)
		}
		if s.Refused != "" {
			fmt.Fprintf(&b, "%srefused: %s\n", head, s.Refused)
		} else if len(s.other) == 0 {
			fmt.Fprintf(&b, "%snothing is planned\n", head)
		}
		s.table(&b)
		for _, f := range s.Failed {
			fmt.Fprintf(&b, "%sFAILED: %s\n", head, f)
		}
	}
	if r.OK {
		fmt.Fprintf(&b, "all expectations and promises held in %d steps\n", len(r.Steps))
	} else {
		fmt.Fprintf(&b, "something did not hold: see FAILED\n")
	}
	_, err := out.Write(b.Bytes())
	return err
}

func (s *StepReport) table(b *bytes.Buffer) {
	width := 14
	stateWidth := 16
	for _, r := range s.order {
		width, stateWidth = max(width, len(r.group)), max(stateWidth, len(r.state))
	}
	last := ""
	for _, r := range s.order {
		name := r.group
		if name == last {
			name = ""
		}
		last = r.group
		fmt.Fprintf(b, "    %-*s %-*s %s\n", width, name, stateWidth, r.state, r.node)
	}
}
