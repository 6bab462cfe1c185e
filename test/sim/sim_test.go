package sim

import (
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

var (
	flagSteps = flag.Int("sim.steps", 40000, "how many events to simulate, over all runs")
	flagSeed  = flag.Uint64("sim.seed", 1, "the first run's seed")
	flagBug   = flag.String("sim.bug", "", "plant this fault")
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
	var planted *Bug
	for _, b := range Bugs {
		if b.Name == *flagBug {
			planted = b
		}
	}
	run := func() bool {
		o := Options{Seed: seed, Steps: min(runSteps, *flagSteps), Bug: planted}
		if v := Run(o, stats); v != nil {
			report(t, o, v)
			return false
		}
		seed++
		return true
	}
	for stats.Steps < *flagSteps {
		if !run() {
			return
		}
	}
	// A run that leaves something out proves nothing about it: a full one goes on until it has met everything.
	if *flagSteps >= fullSteps {
		for limit := 20 * stats.Steps; len(stats.missing()) > 0 && stats.Steps < limit; {
			if !run() {
				return
			}
		}
		for _, m := range stats.missing() {
			t.Errorf("never met: %s", m)
		}
	}
	t.Logf("seeds %d to %d, steps %d in %v", *flagSeed, seed-1, stats.Steps, time.Since(began).Round(time.Millisecond))
	t.Log(stats.text())
}

// notModelled are commands of what the model does not have: the repository volume and the rotation of keys, which test/cluster has with real
// agents. They touch no instance, lease or vote.
var notModelled = []string{"replace_volume", "renew_certs", "cert_in_use", "gossip_key"}

// fullSteps is how long a run must be to be taken for a full one.
const fullSteps = 250000

// missing lists what no run has met: kinds of commands, faults, proofs.
func (s *Stats) missing() []string {
	var out []string
	forms := reflect.TypeFor[state.Command]()
	for f := range forms.Fields() {
		f := f
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.Type.Kind() == reflect.Pointer && s.Commands[name] == 0 && !slices.Contains(notModelled, name) {
			out = append(out, "command "+name)
		}
	}
	for _, f := range faults {
		if f.weight > 0 && s.Faults[f.name] == 0 {
			out = append(out, "fault "+f.name)
		}
	}
	for _, k := range []state.ProofKind{state.ProofTime, state.ProofNeverArmed, state.ProofFenced, state.ProofOperator} {
		if s.Proofs[string(k)] == 0 {
			out = append(out, "proof "+string(k))
		}
	}
	return out
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
	fmt.Fprintf(&b, "steps: %s\n", counts(s.Events))
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

// plantedSeeds is how many seeds a planted fault may take until it is caught; cleanSeeds of the same kind of run must then be clean
// without it, so that what was caught is the fault and not the attack.
const plantedSeeds, cleanSeeds = 400, 3

func TestSimCatchesPlantedBugs(t *testing.T) {
	for _, b := range Bugs {
		t.Run(b.Name, func(t *testing.T) {
			began, stats := time.Now(), NewStats()
			for seed := uint64(1); ; seed++ {
				if seed > plantedSeeds {
					t.Fatalf("%s (%s): not caught by %d seeds, %d steps", b.Name, b.Attack, plantedSeeds, stats.Steps)
				}
				if v := Run(Options{Seed: seed, Steps: runSteps, Bug: b}, stats); v != nil {
					t.Logf("%s (%s): caught with seed %d after %d steps in %v: %s", b.Name, b.Attack, seed, stats.Steps,
						time.Since(began).Round(time.Millisecond), v)
					break
				}
			}
			for seed := uint64(1); seed <= cleanSeeds; seed++ {
				o := Options{Seed: seed, Steps: runSteps, Bug: b.answered()}
				if v := Run(o, NewStats()); v != nil {
					t.Errorf("%s: seed %d without the planted fault: %s\n%s", b.Name, seed, v, strings.Join(v.Trace, "\n"))
				}
			}
		})
	}
}

// The same seed gives the same run, event by event.
func TestSimIsDeterministic(t *testing.T) {
	run := func() uint64 {
		h := fnv.New64a()
		stats := NewStats()
		stats.Watch = func(line string) { _, _ = io.WriteString(h, line) }
		if v := Run(Options{Seed: *flagSeed, Steps: 8000}, stats); v != nil {
			t.Fatal(v)
		}
		return h.Sum64()
	}
	if a, b := run(), run(); a != b {
		t.Fatalf("two runs with seed %d differ: %x and %x", *flagSeed, a, b)
	}
}
