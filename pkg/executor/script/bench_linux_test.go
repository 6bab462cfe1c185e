package script_test

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/script"
)

// BenchmarkNoOp is the start and the stop of an application that does nothing.
func BenchmarkNoOp(b *testing.B) {
	dir, run := executortest.ScriptDir(b), executortest.Runner(b, "")
	x := script.New(script.Options{Runner: run})
	path := executortest.Script(b, dir, "noop", "exit 0")
	r := executor.Resource{Kind: executor.KindApplication, Name: "noop", Group: "rg",
		App: &cluster.ApplicationController{Name: "noop", StartScript: path, StopScript: path}}
	for b.Loop() {
		if res := x.Start(b.Context(), r); res.Err != nil {
			b.Fatal(res)
		}
		if res := x.Stop(b.Context(), r); res.Err != nil {
			b.Fatal(res)
		}
	}
}
