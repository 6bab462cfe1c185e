package ocf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/ocf"
)

// The worked example of docs/resource-types.md is the type that these tests run.
const example = "../../../deploy/examples/types"

type typeWorld struct {
	world
	types string
}

func newTypes(t *testing.T) typeWorld {
	w := typeWorld{world: world{root: executortest.ScriptDir(t), run: executortest.Runner(t, "")}}
	w.types = filepath.Join(w.root, "types")
	if err := os.CopyFS(w.types, os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(w.types, func(path string, _ os.DirEntry, _ error) error { return os.Chmod(path, 0o755) }); err != nil {
		t.Fatal(err)
	}
	w.x = ocf.NewTypes(ocf.TypeOptions{Runner: w.run, Dir: w.types, Decode: config.DecodeResourceType})
	return w
}

// counter is an application of the example's type, in a directory of its own.
func (w typeWorld) counter(t *testing.T, name string) executor.Resource {
	dir := filepath.Join(w.root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // some of the types here cannot stop
		text, _ := os.ReadFile(filepath.Join(dir, "counter.pid"))
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(args), w.types) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	r := w.app(t, name)
	r.Kind = executor.KindUser
	r.App.Agent, r.App.Params = "user:counter", map[string]string{"directory": dir}
	return r
}

func (w typeWorld) script(t *testing.T, name, body string) {
	t.Helper()
	executortest.Script(t, filepath.Join(w.types, "counter"), name, body)
}

func TestTypeConformance(t *testing.T) {
	executortest.Run(t, func(t *testing.T) executortest.Subject {
		w := newTypes(t)
		return executortest.Subject{
			Executor: w.x,
			Resource: func(t *testing.T, n int) executor.Resource { return w.counter(t, fmt.Sprintf("app%d", n)) },
			Present: func(_ *testing.T, r executor.Resource) bool {
				pid, err := os.ReadFile(filepath.Join(r.App.Params["directory"], "counter.pid"))
				if err != nil {
					return false
				}
				stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
				return err == nil && !strings.Contains(string(stat), ") Z ")
			},
			Invalid: func(t *testing.T) executor.Resource {
				r := w.counter(t, "bad")
				r.App.Params["directory"] = "/nowhere"
				return r
			},
			Slow: func(t *testing.T, start bool) executor.Resource {
				w.script(t, map[bool]string{true: "start", false: "stop"}[start], "sleep 1000")
				return w.counter(t, "slow")
			},
			Stubborn: func(t *testing.T) executor.Resource {
				r := w.counter(t, "stubborn")
				if res := w.x.Start(t.Context(), r); res.Err != nil {
					t.Fatal(res)
				}
				w.script(t, "stop", "echo no >&2; exit 1")
				return r
			},
			Blind: func(t *testing.T) executor.Resource {
				w.script(t, "monitor", "exit 2")
				return w.counter(t, "blind")
			},
		}
	})
}

func TestTypeConformanceCatchesLiars(t *testing.T) { executortest.Mutants(t, "TestTypeConformance") }

func TestTheExampleCounts(t *testing.T) {
	w := newTypes(t)
	r := w.counter(t, "one")
	if err := w.x.Validate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	expect(t, w.x.Start(t.Context(), r), executor.Running, "(user:counter) was started")
	for deadline := time.Now().Add(time.Minute); ; {
		count, err := os.ReadFile(filepath.Join(r.App.Params["directory"], "count"))
		if n, e := strconv.Atoi(strings.TrimSpace(string(count))); err == nil && e == nil && n > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it counted %q, %v", count, err)
		}
		<-time.After(10 * time.Millisecond) // it is another process, which nobody waits for
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "(user:counter) was stopped")
}

func TestATypeThatIsWrong(t *testing.T) {
	manifest := "name: counter\nparameters: [{name: directory, required: true}, {name: step, type: integer}]\n"
	for what, c := range map[string]struct {
		manifest string
		change   func(w typeWorld, a *cluster.ApplicationController) error
		says     string
	}{
		"good":           {manifest, nil, ""},
		"unknown key":    {manifest + "stop: x\n", nil, "there is no key"},
		"another name":   {"name: other\n", nil, "must be that of its directory"},
		"no name":        {"version: 1\n", nil, "name"},
		"no YAML":        {"name: [\n", nil, "type.yaml:"},
		"two parameters": {"name: counter\nparameters: [{name: a}, {name: a}]\n", nil, "two parameters a"},
		"odd parameter":  {"name: counter\nparameters: [{name: a-b}]\n", nil, `"a-b" cannot be used`},
		"odd timeout":    {manifest + "timeouts: {restart: 5s}\n", nil, `no script "restart"`},
		"unknown parameter": {manifest, func(_ typeWorld, a *cluster.ApplicationController) error {
			a.Params["stepp"] = "1"
			return nil
		}, `did you mean "step"`},
		"parameter missing": {manifest, func(_ typeWorld, a *cluster.ApplicationController) error {
			delete(a.Params, "directory")
			return nil
		}, "the parameter directory is missing"},
		"script missing": {manifest, func(w typeWorld, _ *cluster.ApplicationController) error {
			return os.Remove(w.types + "/counter/monitor")
		}, "monitor does not exist"},
		"script unsafe": {manifest, func(w typeWorld, _ *cluster.ApplicationController) error {
			return os.Chmod(w.types+"/counter/stop", 0o777)
		}, "can be written by everybody"},
		"not executable": {manifest, func(w typeWorld, _ *cluster.ApplicationController) error {
			return os.Chmod(w.types+"/counter/stop", 0o644)
		}, "is not executable"},
		"type missing": {manifest, func(_ typeWorld, a *cluster.ApplicationController) error {
			a.Agent = "user:nothing"
			return nil
		}, "is not installed here"},
	} {
		w := newTypes(t)
		r := w.counter(t, "app")
		r.App.Params["step"] = "1"
		if err := os.WriteFile(w.types+"/counter/type.yaml", []byte(c.manifest), 0o644); err != nil {
			t.Fatal(err)
		}
		if c.change != nil {
			if err := c.change(w, r.App); err != nil {
				t.Fatal(err)
			}
		}
		err := w.x.Validate(t.Context(), r)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, wanted %q", what, err, c.says)
		}
		if res := w.x.Start(t.Context(), r); c.says != "" && (res.Err == nil || res.Status == executor.Running) {
			t.Errorf("%s: a start says %+v", what, res)
		}
		if res := w.x.Stop(t.Context(), r); c.says == "" && res.Err != nil {
			t.Errorf("%s: %+v", what, res)
		}
	}
}
