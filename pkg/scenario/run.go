package scenario

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Exit statuses of a simulation.
const (
	ExitHeld     = 0 // every expectation and promise held
	ExitBroken   = 1 // something did not
	ExitUnusable = 2 // the file could not be used
)

// Run plays a scenario. The error lists every step that cannot be read (config.Faults); then nothing was played.
func Run(doc *config.Scenario) (*Report, error) {
	actions := make([]action, len(doc.Steps))
	var faults config.Faults
	p := &parser{def: doc.Cluster}
	for i := range doc.Steps {
		a, err := p.parse(doc.Steps[i].Do)
		if err != nil {
			faults = append(faults, doc.Fault(fmt.Sprintf("steps[%d].do", i), "%v", err))
		}
		actions[i] = a
	}
	if len(faults) > 0 {
		return nil, faults
	}
	w := newWorld(doc.Cluster, doc.Start)
	r := &Report{Name: doc.Name, OK: true}
	for i, step := range doc.Steps {
		s := &StepReport{Step: i + 1, Do: step.Do, Failed: w.step.Failed}
		w.play(s, actions[i])
		s.expect(step)
		r.add(s)
	}
	return r, nil
}

// Live plays steps against the state of a running cluster, which is not touched.
func Live(st *state.State, now time.Time, steps []string) (*Report, error) {
	if st == nil || st.Definition == nil {
		return nil, fmt.Errorf("there is no cluster yet: nothing can be simulated")
	}
	p := &parser{def: st.Definition}
	actions := make([]action, len(steps))
	for i, do := range steps {
		a, err := p.parse(do)
		if err != nil {
			return nil, fmt.Errorf("step %d, %s: %w", i+1, clip(do), err)
		}
		actions[i] = a
	}
	w := liveWorld(st, now)
	r := &Report{Name: st.Definition.Name, OK: true}
	for i, do := range steps {
		s := &StepReport{Step: i + 1, Do: do}
		w.play(s, actions[i])
		r.add(s)
	}
	return r, nil
}

func (r *Report) add(s *StepReport) {
	r.Steps = append(r.Steps, s)
	r.OK = r.OK && len(s.Failed) == 0
}

// play does one step, and lets the world settle.
func (w *world) play(s *StepReport, do action) {
	w.step = s
	if w.stuck {
		w.broken("not played: planning did not come to an end before")
		s.look(w)
		return
	}
	do(w)
	w.settle()
	s.Failed = append(s.Failed, w.check.settled(w)...)
	s.look(w)
	w.step = &StepReport{}
}

// expect compares with the file.
func (s *StepReport) expect(step config.Step) {
	switch {
	case step.Refused && s.Refused == "":
		s.Failed = append(s.Failed, "want the request refused, it was taken")
	case !step.Refused && s.Refused != "":
		s.Failed = append(s.Failed, "want the request taken, it was refused: "+s.Refused)
	}
	for _, g := range sorted(step.Expect) {
		for _, n := range sorted(step.Expect[g]) {
			want, plain := step.Expect[g][n], s.Groups[g][n]
			if !matches(want, plain, s.full(g, n)) {
				s.Failed = append(s.Failed, fmt.Sprintf("%s on %s: want %s, is %s", g, n, want, plain))
			}
		}
	}
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// maxFile bounds what is read of a scenario file.
const maxFile = 8 << 20

// Command is `clmgr simulate FILE`: it reads the file from in, writes the report to out and messages to errs, and returns the
// exit status.
func Command(name string, in io.Reader, asJSON bool, out, errs io.Writer) int {
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	if err != nil {
		fmt.Fprintf(errs, "%s: cannot read the scenario: %v\n", name, err)
		return ExitUnusable
	}
	doc, err := config.DecodeScenario(name, data)
	var r *Report
	if err == nil {
		r, err = Run(doc)
	}
	if err != nil {
		fmt.Fprintln(errs, strings.TrimRight(err.Error(), "\n"))
		return ExitUnusable
	}
	return r.write(asJSON, out, errs)
}

// write gives the report out and returns the exit status.
func (r *Report) write(asJSON bool, out, errs io.Writer) int {
	write := r.Text
	if asJSON {
		write = r.JSON
	}
	if err := write(out); err != nil {
		fmt.Fprintf(errs, "cannot write the report: %v\n", err)
		return ExitBroken
	}
	if !r.OK {
		return ExitBroken
	}
	return ExitHeld
}
