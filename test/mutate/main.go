// Mutate asks how good tests are: it makes small mistakes in a package, one at a time, and counts how many of them the tests notice.
// A mistake that no test notices is printed: it is code that nothing watches, or a mistake that changes nothing.
//
//	go run ./test/mutate [-n 180] [-seed 1] [-skip 0] [-time 10m] [-only REGEXP] [PACKAGE...]      default: pkg/scheduler and pkg/state
//
// The tree is not touched: each mistake is compiled with go test -overlay. The sample is drawn by the seed; -skip goes on where an
// earlier call ended. What does not compile is not counted, and another one is drawn in its place. A test that hangs has noticed.
//
// What counts as a test of the two packages: their own tests; if those pass, pkg/scenario, which drives both through the scenarios of
// test/scenarios, a second and simpler placement, and random clusters with their properties; then the seeded simulation (test/sim). The
// score is given without and with pkg/scenario's TestFingerprint, which notices nearly every change and says nothing about right or wrong.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// stages are the tests that must notice, the cheap ones first.
func stages(pkg string) [][]string {
	return [][]string{{"./" + pkg}, {"./pkg/scenario", "-skip", "^TestFingerprint$"}, {"./test/sim", "-run", "^TestSim$", "-sim.steps=200000"},
		{"./pkg/scenario", "-run", "^TestFingerprint$"}}
}

// What the stages are called; the last one says only that something changed.
var stageNames = [...]string{"its own tests", "pkg/scenario", "the seeded simulation", "the fingerprint"}

const fingerprint = len(stageNames) - 1

// hung is how long the tests of one mistake may take; undisturbed they take some seconds.
const hung = 60 * time.Second

func main() {
	n := flag.Int("n", 180, "how many mistakes for each package")
	seed := flag.Uint64("seed", 1, "draws the sample")
	skip := flag.Int("skip", 0, "leave out so many of the sample")
	limit := flag.Duration("time", 0, "stop after so long, and count what was done (0: no limit)")
	only := flag.String("only", "", "only mistakes whose line of output matches, as after: survived:")
	jobs := flag.Int("j", 2, "so many at a time")
	least := flag.Float64("least", 80, "the score in percent below which the exit status is 1")
	flag.Parse()
	pkgs := flag.Args()
	if len(pkgs) == 0 {
		pkgs = []string{"pkg/scheduler", "pkg/state"}
	}
	ctx := context.Background()
	if *limit > 0 {
		var stop func()
		ctx, stop = context.WithTimeout(ctx, *limit)
		defer stop()
	}
	status := 0
	for _, pkg := range pkgs {
		s, err := run(ctx, pkg, *n, *skip, *seed, *only, *jobs, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutate:", err)
			os.Exit(2)
		}
		if s.print(os.Stdout) < *least {
			status = 1
		}
	}
	os.Exit(status)
}

// score is what came of one package's sample.
type score struct {
	pkg              string
	all              int                  // how many mistakes there are in all
	by               [len(stageNames)]int // noticed by which stage
	hung, uncompiled int
	survivors        []Mutant
}

// print says the score, and returns it in percent, without what only the fingerprint has noticed.
func (s *score) print(w io.Writer) float64 {
	noticed := 0
	var who []string
	for i, n := range s.by {
		if i < fingerprint {
			noticed += n
		}
		who = append(who, fmt.Sprintf("%s %d", stageNames[i], n))
	}
	total := noticed + s.by[fingerprint] + len(s.survivors)
	if total == 0 {
		fmt.Fprintf(w, "%s: nothing was counted\n", s.pkg)
		return 0
	}
	percent := 100 * float64(noticed) / float64(total)
	nothing := 0
	for _, m := range s.survivors {
		if changesNothing(m) != "" {
			nothing++
		}
	}
	fmt.Fprintf(w, "%s: %d of %d mistakes noticed, %.1f %%; %.1f %% with the fingerprint (%s; %d of them by hanging); %d more did not compile; "+
		"the package has places for %d\n", s.pkg, noticed, total, percent, 100*float64(noticed+s.by[fingerprint])/float64(total),
		strings.Join(who, ", "), s.hung, s.uncompiled, s.all)
	if nothing > 0 {
		fmt.Fprintf(w, "%s: %d of those that survived change nothing, as said above; %.1f %% of the others are noticed\n", s.pkg, nothing,
			100*float64(noticed)/float64(max(1, total-nothing)))
	}
	return percent
}

// sample shuffles the mistakes by the seed.
func sample(list []Mutant, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// run tries mistakes until n were counted or the time is over.
func run(ctx context.Context, pkg string, n, skip int, seed uint64, only string, jobs int, w io.Writer) (*score, error) {
	pkg = strings.TrimPrefix(filepath.ToSlash(filepath.Clean(pkg)), "./")
	list, err := Mutants(pkg)
	if err != nil {
		return nil, err
	}
	s := &score{pkg: pkg, all: len(list)}
	sample(list, seed)
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(m Mutant) bool { return !match.MatchString(m.String()) })
	list = list[min(skip, len(list)):]
	for _, stage := range stages(pkg) { // a red test would notice everything
		if v, out := test(ctx, "", stage); v != passed {
			return nil, fmt.Errorf("the tests do not pass without any mistake: %s", tail(out))
		}
	}
	var lock sync.Mutex
	next, taken := 0, 0
	var wait sync.WaitGroup
	var failure error
	for range jobs {
		wait.Go(func() {
			for {
				lock.Lock()
				if next >= len(list) || taken >= n || failure != nil || ctx.Err() != nil {
					lock.Unlock()
					return
				}
				m := list[next]
				next++
				taken++
				lock.Unlock()
				by, v, err := try(ctx, pkg, m)
				lock.Lock()
				if !s.note(w, m, by, v) {
					taken--
				}
				if err != nil {
					failure = err
				}
				lock.Unlock()
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		fmt.Fprintf(w, "%s: the time is over; -skip %d goes on from here\n", pkg, skip+next)
	}
	return s, failure
}

// note books the verdict; false if the mistake does not count.
func (s *score) note(w io.Writer, m Mutant, by int, v verdict) bool {
	switch {
	case v == uncompiled:
		s.uncompiled++
		return false
	case v == cancelled:
		return false
	case v == passed:
		s.survivors = append(s.survivors, m)
		why := changesNothing(m)
		if why != "" {
			why = " (changes nothing: " + why + ")"
		}
		fmt.Fprintf(w, "survived: %s%s\n", m, why)
	default:
		s.by[by]++
		if by == fingerprint {
			fmt.Fprintf(w, "only the fingerprint: %s\n", m)
		}
	}
	if v == timedOut {
		s.hung++
	}
	return true
}

// verdict is how the tests of one stage ended.
type verdict int

const (
	passed verdict = iota
	failed
	timedOut
	uncompiled
	cancelled
)

// try makes the mistake beside the tree, and says which stage noticed it, and how.
func try(ctx context.Context, pkg string, m Mutant) (int, verdict, error) {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return 0, cancelled, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	src, err := os.ReadFile(m.File)
	if err != nil {
		return 0, cancelled, err
	}
	copied, overlay := filepath.Join(dir, filepath.Base(m.File)), filepath.Join(dir, "overlay.json")
	path, err := filepath.Abs(m.File)
	if err != nil {
		return 0, cancelled, err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: copied}})
	if err != nil {
		return 0, cancelled, err
	}
	if err := errors.Join(os.WriteFile(copied, m.Apply(src), 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
		return 0, cancelled, err
	}
	for i, stage := range stages(pkg) {
		if v, _ := test(ctx, overlay, stage); v != passed {
			return i, v, nil
		}
	}
	return 0, passed, nil
}

// test runs the tests of a stage.
func test(ctx context.Context, overlay string, stage []string) (verdict, []byte) {
	args := []string{"test", "-vet=off", "-short", "-failfast", "-count=1", "-timeout", hung.String()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	limited, stop := context.WithTimeout(ctx, 3*hung)
	defer stop()
	// A mistake may also be a loop that fills the memory: it ends at 8 GiB of addresses.
	cmd := exec.CommandContext(limited, "sh", append([]string{"-c", `ulimit -v 8388608; exec go "$@"`, "go"}, append(args, stage...)...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case ctx.Err() != nil:
		return cancelled, out
	case err == nil:
		return passed, out
	case strings.Contains(text, "[build failed]") || strings.Contains(text, "[setup failed]"):
		return uncompiled, out
	case limited.Err() != nil || strings.Contains(text, "panic: test timed out"):
		return timedOut, out
	case strings.Contains(text, "FAIL"):
		return failed, out
	}
	return cancelled, out // the go command itself did not work: nothing is known
}

// tail is the end of an output.
func tail(out []byte) string {
	return string(out[max(0, len(out)-600):])
}
