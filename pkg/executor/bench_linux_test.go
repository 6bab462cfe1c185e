package executor_test

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
)

// BenchmarkRun is what one command costs beyond the program itself: recorded (with its durable record) and not.
func BenchmarkRun(b *testing.B) {
	for name, c := range map[string]executor.Command{
		"recorded/cgroup":   {Scope: app, Op: "stop", Path: "/bin/true", Trusted: true},
		"unrecorded/cgroup": {Scope: app, Op: "monitor", Path: "/bin/true", Trusted: true, Unrecorded: true},
		"unrecorded/marker": {Scope: app, Op: "monitor", Path: "/bin/true", Trusted: true, Unrecorded: true},
	} {
		b.Run(name, func(b *testing.B) {
			root := ""
			if name == "unrecorded/marker" {
				root = "none"
			}
			r := executortest.Runner(b, root)
			for b.Loop() {
				if out := r.Run(b.Context(), c); out.Err != nil {
					b.Fatal(out.Err)
				}
			}
		})
	}
}
