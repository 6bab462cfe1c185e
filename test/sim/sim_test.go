package sim

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

var (
	flagSteps = flag.Int("sim.steps", 40000, "how many events to simulate, over all runs")
	flagSeed  = flag.Uint64("sim.seed", 1, "the first run's seed")
	flagTrace = flag.Bool("sim.trace", false, "print what happens, as it happens")
)

// runSteps are the disturbed events of one run.
const runSteps = 30000

func TestSim(t *testing.T) {
	began := time.Now()
	stats := NewStats()
	if *flagTrace {
		stats.Watch = func(line string) { fmt.Println(line) }
	}
	seed := *flagSeed
	for stats.Steps < *flagSteps {
		o := Options{Seed: seed, Steps: min(runSteps, *flagSteps)}
		if v := Run(o, stats); v != nil {
			report(t, o, v)
			return
		}
		seed++
	}
	t.Logf("seeds %d to %d, steps %d in %v", *flagSeed, seed-1, stats.Steps, time.Since(began).Round(time.Millisecond))
	t.Log(stats.text())
}

func report(t *testing.T, o Options, v *Violation) {
	t.Helper()
	small, shrunk := o, v
	if !*flagTrace {
		small, shrunk = Shrink(o, v)
	}
	t.Errorf("seed %d: %s", o.Seed, v)
	t.Errorf("with the first %d faults only: %s\n%s", small.MaxFaults, shrunk, strings.Join(shrunk.Trace, "\n"))
	t.Errorf("again: go test ./test/sim -run 'TestSim$' -v -sim.seed=%d -sim.steps=%d", o.Seed, o.Steps)
}

// Everything in it that is counted, for a reader.
func (s *Stats) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "runs %d, simulated %v, log entries %d (%d refused), snapshots checked %d\n", s.Runs, s.Simulated.Round(time.Second), s.Entries, s.Refused, s.Snapshots)
	fmt.Fprintf(&b, "boots %d, watchdogs fired %d, kill timers %d, fenced %d, orphans %d\n", s.Boots, s.Fired, s.KillTimer, s.Fenced, s.Orphans)
	fmt.Fprintf(&b, "elections %d, terms with a leader %d, stood down %d, changes of voters %d\n", s.Elections, s.Leads, s.StoodDown, s.VoterChanges)
	fmt.Fprintf(&b, "messages %d, lost %d, repeated %d; grants taken %d, requests not carried %d\n", s.Messages, s.Lost, s.Repeated, s.Grants, s.NotCarried)
	fmt.Fprintf(&b, "starts %d, failovers by proof %d, plans %d, commands acknowledged %d\n", s.Starts, s.Failovers, s.Plans, s.Acknowledged)
	fmt.Fprintf(&b, "longest time from the last fault to rest %v, groups that nothing could take %d\n", s.Settled.Round(time.Second), s.Unplaceable)
	total := 0
	for _, n := range s.Faults {
		total += n
	}
	fmt.Fprintf(&b, "faults %d: %s\n", total, counts(s.Faults))
	fmt.Fprintf(&b, "proofs: %s\nresets: %s\n", counts(s.Proofs), counts(s.Resets))
	fmt.Fprintf(&b, "actions of nodes: %s\ncommands: %s", counts(s.Local), counts(s.Commands))
	return b.String()
}

func counts(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}

var _ = state.New
