package scenario

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/scheduler"
)

// TestFingerprint plays random worlds and compares a hash of all that was decided, said, noted and explained in each with
// testdata/fingerprint.txt. It says nothing about right or wrong: it says that a change which was meant to change nothing did.
// If the change is meant, look at some of the worlds before and after (HOLDFAST_SEED=n with TestRandomClusters -v), then run this
// test with -rewrite.
func TestFingerprint(t *testing.T) {
	var b bytes.Buffer
	for seed := range 250 {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		d := randomCluster(r)
		w := newWorld(d, time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC))
		p := &parser{def: d}
		h := fnv.New64a()
		decisions := 0
		for i := range 40 {
			do := randomStep(r, d)
			if i == 0 {
				do = "online cluster"
			}
			a, err := p.parse(do)
			if err != nil {
				t.Fatal(err)
			}
			s := &StepReport{Step: i + 1, Do: do}
			w.play(s, a)
			decisions += len(s.Decisions)
			rep := &Report{Steps: []*StepReport{s}}
			if err := rep.Text(h); err != nil {
				t.Fatal(err)
			}
			plan := scheduler.Plan(w.s, w.now)
			fmt.Fprintf(h, "%+v %v\n", plan.Notes, plan.Next)
			if i%8 == 7 {
				for _, g := range w.s.GroupNames() {
					fmt.Fprintf(h, "%+v\n", scheduler.Explain(w.s, g, w.now))
				}
			}
		}
		for _, e := range w.s.Events(0) {
			fmt.Fprintf(h, "%+v\n", e)
		}
		fmt.Fprintf(&b, "world %d: %d decisions, %016x\n", seed, decisions, h.Sum64())
	}
	file := filepath.Join("testdata", "fingerprint.txt")
	if *rewrite {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(string(read(t, file)), "\n"), strings.Split(b.String(), "\n")
	different := 0
	for i := range got {
		if i >= len(want) || got[i] != want[i] {
			if different++; different <= 5 {
				t.Errorf("it was: %s\nit is:  %s", want[min(i, len(want)-1)], got[i])
			}
		}
	}
	if different > 0 {
		t.Errorf("%d of %d worlds went another way", different, len(got)-1)
	}
}
