package executortest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// mutantVariable names, in the environment of a test run again by Mutants, how the executor lies.
const mutantVariable = "HOLDFAST_EXECUTOR_MUTANT"

// lies are the ways in which an executor is made to lie, each with what the suite then complains of.
var lies = []struct{ name, complaint string }{
	{"a stop that does nothing and says Stopped", "is there after a stop"},
	{"a start that does nothing and says Running", "is not there after a start"},
	{"a probe that always says Stopped", "wanted running"},
	{"a probe that always says Running", "wanted stopped"},
}

// Mutants runs a test that runs the suite again, in a process of its own for each way of lying, and fails when the suite passes:
// a check that a liar passes checks nothing. The test's Subject must have Present.
func Mutants(t *testing.T, test string) {
	t.Helper()
	if os.Getenv(mutantVariable) != "" {
		t.Skip("this is a mutant's run")
	}
	for _, l := range lies {
		t.Run(l.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.count=1", "-test.timeout=2m") //nolint:gosec // this very test
			cmd.Env = append(os.Environ(), mutantVariable+"="+l.name)
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("the suite does not see it:\n%s", out)
			case !strings.Contains(string(out), l.complaint):
				t.Errorf("the suite failed, and not because of the lie (%q is not said):\n%s", l.complaint, out)
			}
		})
	}
}

// mutant reports whether this process is to test a liar; one check is enough for that.
func mutant() bool { return os.Getenv(mutantVariable) != "" }

// mutated is the executor, or the liar that this process is to test.
func mutated(x executor.Executor) executor.Executor {
	if name := os.Getenv(mutantVariable); name != "" {
		return liar{x, name}
	}
	return x
}

type liar struct {
	executor.Executor
	how string
}

func (l liar) says(about string, s executor.Status) (executor.Result, bool) {
	return executor.Result{Status: s, Detail: "all is well"}, strings.HasPrefix(l.how, about)
}

func (l liar) Start(ctx context.Context, r executor.Resource) executor.Result {
	if res, lies := l.says("a start", executor.Running); lies {
		return res
	}
	return l.Executor.Start(ctx, r)
}

func (l liar) Stop(ctx context.Context, r executor.Resource) executor.Result {
	if res, lies := l.says("a stop", executor.Stopped); lies {
		return res
	}
	return l.Executor.Stop(ctx, r)
}

func (l liar) Probe(ctx context.Context, r executor.Resource) executor.Result {
	for _, s := range []executor.Status{executor.Stopped, executor.Running} {
		if res, lies := l.says("a probe that always says "+strings.ToUpper(string(s[:1]))+string(s[1:]), s); lies {
			return res
		}
	}
	return l.Executor.Probe(ctx, r)
}
