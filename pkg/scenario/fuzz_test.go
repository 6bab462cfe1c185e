package scenario

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzScenario: whatever the file, simulate neither crashes nor hangs, and breaks no promise by itself.
func FuzzScenario(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(scenarios, "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for i, file := range files {
		if i%9 == 0 && !strings.Contains(file, "field-") {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 || strings.Count(string(data), "wait") > 5 {
			return
		}
		var out bytes.Buffer
		if Command("fuzz.yaml", bytes.NewReader(data), false, &out, io.Discard) == ExitBroken && strings.Contains(out.String(), "PROMISE BROKEN") {
			t.Fatal(out.String())
		}
	})
}

// FuzzSteps: whatever the steps, none crashes the simulation.
func FuzzSteps(f *testing.F) {
	f.Add("online cluster\ncrash node1\njoin node1\nwait 10m\nmeasure node1 cpu=3 mem=4\nmove app_rg node2 x\noffline cluster unmanage\n")
	f.Add("lose node1\nprove node1\nfail app_rg node2\nacquire-fails app_rg node1\nrelease-fails all_rg node2\nclear app_rg\nsuspend app_rg\nresume app_rg\n")
	f.Fuzz(func(t *testing.T, steps string) {
		if len(steps) > 2000 {
			return
		}
		doc := mustDecode(t, small)
		w := newWorld(doc.Cluster, doc.Start)
		p := &parser{def: doc.Cluster}
		for do := range strings.SplitSeq(steps, "\n") {
			if a, err := p.parse(do); err == nil {
				s := &StepReport{Do: do}
				w.play(s, a)
				if len(s.Failed) > 0 {
					t.Fatalf("%s: %v", do, s.Failed)
				}
			}
		}
	})
}
