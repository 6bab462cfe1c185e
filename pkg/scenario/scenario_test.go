package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scenarios = "../../test/scenarios"

// TestScenarios plays every file of test/scenarios. A file whose name begins with "broken-" must be refused as unusable.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(scenarios, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scenarios: %v", err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			got := Command(f, bytes.NewReader(data), false, &out, &errs)
			want := ExitHeld
			if strings.HasPrefix(name, "broken-") {
				want = ExitUnusable
			}
			if got != want {
				t.Fatalf("exit status %d, want %d\n%s%s", got, want, errs.String(), out.String())
			}
		})
	}
}
