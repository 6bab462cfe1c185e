package ocf_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/ocf"
)

// head is what every agent of these tests begins with: its meta-data.
const head = `
case "$1" in
meta-data)
  cat <<'END'
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="daemon" version="1.0">
<version>1.0</version>
<longdesc lang="en">One process, whose number stands in a file.</longdesc>
<shortdesc lang="en">One process</shortdesc>
<parameters>
<parameter name="dir" unique="0" required="1"><longdesc lang="en">x</longdesc><shortdesc lang="en">where</shortdesc><content type="string"/></parameter>
<parameter name="count"><shortdesc lang="en">how many</shortdesc><content type="integer" default="1"/></parameter>
<parameter name="mode"><shortdesc lang="en">how</shortdesc><content type="string" default=""/></parameter>
<parameter name="passwd"><shortdesc lang="en">secret</shortdesc><content type="string" default=""/></parameter>
</parameters>
<actions>
<action name="start" timeout="15s"/><action name="stop" timeout="16"/><action name="monitor" timeout="7000ms" interval="10" depth="0"/>
<action name="monitor" timeout="2min" interval="60" depth="10"/><action name="meta-data" timeout="5s"/><action name="validate-all" timeout="5s"/>EXTRA
</actions>
</resource-agent>
END
  exit 0;;
esac
pid=$OCF_RESKEY_dir/$OCF_RESOURCE_INSTANCE.pid
lives() { [ -f $pid ] && kill -0 $(cat $pid) 2>/dev/null; }
echo "$1 level=$OCF_CHECK_LEVEL interval=$OCF_RESKEY_CRM_meta_interval timeout=$OCF_RESKEY_CRM_meta_timeout $OCF_RESOURCE_TYPE $OCF_RESOURCE_PROVIDER $OCF_ROOT" >>$OCF_RESKEY_dir/calls
`

const daemon = head + `
case "$1" in
validate-all) [ "$OCF_RESKEY_count" != 77 ] || exit 6;;
start) [ "$OCF_RESKEY_mode" = hangs ] && sleep 1000
  [ "$OCF_RESKEY_mode" = fails ] && { echo "no licence for $OCF_RESKEY_passwd"; exit 5; }
  [ "$OCF_RESKEY_mode" = nothing ] && exit 0
  lives || { sleep 1000 & echo $! >$pid; };;
stop) [ "$OCF_RESKEY_mode" = hangsstop ] && sleep 1000
  [ "$OCF_RESKEY_mode" = stubborn ] && { echo no; exit 1; }
  [ "$OCF_RESKEY_mode" = liar ] && exit 0
  lives && kill $(cat $pid); rm -f $pid;;
monitor) [ -f $OCF_RESKEY_dir/answer ] && { echo said so; exit $(cat $OCF_RESKEY_dir/answer); }
  [ "$OCF_RESKEY_mode" = deaf ] && sleep 1000
  lives || exit 7;;
esac
exit 0`

type world struct {
	root string
	run  *executor.Runner
	x    *ocf.Applications
}

func newWorld(t *testing.T, cgroups string) world {
	w := world{root: executortest.ScriptDir(t), run: executortest.Runner(t, cgroups)}
	w.x = ocf.NewAgents(ocf.AgentOptions{Runner: w.run, Root: w.root})
	w.agent(t, "daemon", daemon)
	return w
}

func (w world) agent(t *testing.T, name, body string) {
	dir := filepath.Join(w.root, "resource.d", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	executortest.Script(t, dir, name, strings.ReplaceAll(body, "EXTRA", ""))
}

func (w world) app(t *testing.T, name string, params ...string) executor.Resource {
	a := &cluster.ApplicationController{Name: name, Agent: "ocf:test:daemon", Params: map[string]string{"dir": w.root}}
	for _, p := range params {
		k, v, _ := strings.Cut(p, "=")
		a.Params[k] = v
	}
	r := executor.Resource{Kind: executor.KindOCF, Name: name, Group: "rg", App: a}
	t.Cleanup(func() {
		if err := w.run.EndScope(context.Background(), executor.ScopeOf(r), 0, 0); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (w world) present(_ *testing.T, r executor.Resource) bool {
	pid, err := os.ReadFile(filepath.Join(w.root, r.Name+".pid"))
	if err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func (w world) subject(t *testing.T) executortest.Subject {
	return executortest.Subject{
		Executor: w.x,
		Resource: func(t *testing.T, n int) executor.Resource { return w.app(t, fmt.Sprintf("app%d", n)) },
		Present:  w.present,
		Invalid:  func(t *testing.T) executor.Resource { return w.app(t, "bad", "count=many") },
		Slow: func(t *testing.T, start bool) executor.Resource {
			if start {
				return w.app(t, "slow", "mode=hangs")
			}
			return w.app(t, "slow", "mode=hangsstop")
		},
		Stubborn: func(t *testing.T) executor.Resource {
			r := w.app(t, "stubborn", "mode=stubborn")
			if res := w.x.Start(t.Context(), r); res.Err != nil {
				t.Fatal(res)
			}
			return r
		},
		Blind: func(t *testing.T) executor.Resource {
			w.write(t, "answer", "4")
			return w.app(t, "blind")
		},
	}
}

func (w world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	for name, root := range map[string]string{"cgroup": "", "marker": "none"} {
		t.Run(name, func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executortest.Subject { return newWorld(t, root).subject(t) })
		})
	}
}

func TestConformanceCatchesLiars(t *testing.T) { executortest.Mutants(t, "TestConformance") }

func expect(t *testing.T, res executor.Result, status executor.Status, says string) {
	t.Helper()
	if res.Status != status || !strings.Contains(res.Detail, says) || res.Detail == "" {
		t.Errorf("%+v, wanted %s with %q", res, status, says)
	}
}

func TestExitStatusesOfTheMonitor(t *testing.T) {
	for exit, want := range map[string]executor.Status{
		"0": executor.Running, "190": executor.Running, "7": executor.Stopped, "1": executor.Degraded, "8": executor.Degraded, "9": executor.Degraded,
		"191": executor.Degraded, "2": executor.Unknown, "3": executor.Unknown, "4": executor.Unknown, "77": executor.Unknown,
		"5": executor.Stopped, "6": executor.Stopped, // nothing was started here
	} {
		w := newWorld(t, "")
		r := w.app(t, "app")
		w.write(t, "answer", exit)
		expect(t, w.x.Probe(t.Context(), r), want, "")
		if want == executor.Stopped || want == executor.Degraded {
			continue
		}
		if res := w.x.Stop(t.Context(), r); res.Status == executor.Stopped || res.Err == nil {
			t.Errorf("monitor %s: a stop says %+v", exit, res)
		}
	}
}

func TestWhatAnAgentCannotSeeWhileItsApplicationRunsIsUnknown(t *testing.T) {
	for _, exit := range []string{"5", "6"} {
		w := newWorld(t, "")
		r := w.app(t, "app")
		expect(t, w.x.Start(t.Context(), r), executor.Running, "was started")
		w.write(t, "answer", exit)
		expect(t, w.x.Probe(t.Context(), r), executor.Unknown, "said so")
		again := ocf.NewAgents(ocf.AgentOptions{Runner: w.run, Root: w.root}) // a restarted daemon
		expect(t, again.Probe(t.Context(), r), executor.Unknown, "said so")
		expect(t, again.Stop(t.Context(), r), executor.Stopped, "was stopped")
		expect(t, again.Probe(t.Context(), r), executor.Stopped, "has been stopped since")
	}
}

func TestAStartWithoutEffectIsNoStart(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app", "mode=nothing")
	res := w.x.Start(t.Context(), r)
	expect(t, res, executor.Unknown, "ended with 0, but")
	if res.Err == nil {
		t.Error("no error")
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "was stopped")
}

func TestAStopWithoutEffectIsNoStop(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app", "mode=liar")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	// What the agent started is ended by us where it can be found; where it cannot, the monitor says so.
	w.write(t, "answer", "0")
	res := w.x.Stop(t.Context(), r)
	expect(t, res, executor.Running, "")
	if res.Err == nil || !strings.Contains(res.Err.Error(), "ended with 0, but") {
		t.Error(res)
	}
}

func TestAFailedStartSaysWhyWithoutItsSecrets(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app", "mode=fails", "passwd=sesame42")
	res := w.x.Start(t.Context(), r)
	expect(t, res, executor.Unknown, `ended with 5, not installed here: "no licence for`)
	if strings.Contains(res.Detail, "sesame42") {
		t.Error("a secret is shown: ", res.Detail)
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
	expect(t, w.x.Probe(t.Context(), r), executor.Stopped, "")
}

func TestAHalfDeadApplicationIsStoppedBeforeItIsStarted(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app")
	w.write(t, "answer", "1")
	res := w.x.Start(t.Context(), r)
	if res.Err == nil || !strings.Contains(res.Err.Error(), "half there") {
		t.Error(res)
	}
	calls, err := os.ReadFile(w.root + "/calls")
	if err != nil || strings.Contains(string(calls), "start ") || !strings.Contains(string(calls), "stop ") {
		t.Errorf("calls: %s %v", calls, err)
	}
}

func TestTheAgentIsToldWhatTheInterfaceSays(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	expect(t, w.x.Monitor(t.Context(), r, 10), executor.Running, "")
	r.App.StartTimeout = 3 * time.Second
	if d := w.x.Limit(t.Context(), r, executor.OpStart); d != (3+16+3*7)*time.Second {
		t.Error("the limit of a start is ", d)
	}
	if d := w.x.Limit(t.Context(), r, executor.OpStop); d != (16+2*7)*time.Second {
		t.Error("the limit of a stop is ", d)
	}
	calls, err := os.ReadFile(w.root + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"monitor level=0 interval=0 timeout=7000 daemon test " + w.root,
		"start level=0 interval=0 timeout=15000 daemon test",
		"monitor level=0 interval=10000 timeout=7000",
		"monitor level=10 interval=10000 timeout=120000",
	} {
		if !strings.Contains(string(calls), want) {
			t.Errorf("%q is not among the calls:\n%s", want, calls)
		}
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
}

func TestValidate(t *testing.T) {
	w := newWorld(t, "")
	w.agent(t, "two", strings.ReplaceAll(daemon, "EXTRA", `<action name="promote" timeout="10"/><action name="demote" timeout="10"/>`))
	if err := os.WriteFile(w.root+"/resource.d/test/open", []byte("#!/bin/sh\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.root+"/resource.d/test/open", 0o777); err != nil {
		t.Fatal(err)
	}
	w.agent(t, "mute", "exit 0")
	w.agent(t, "broken", "echo no perl; exit 2")
	w.agent(t, "loud", "yes | head -c 3000000; exit 0")
	for what, c := range map[string]struct {
		agent  string
		params []string
		says   string // empty: good
	}{
		"good":           {"", nil, ""},
		"meta attribute": {"", []string{"CRM_meta_foo=1"}, ""},
		"unknown":        {"", []string{"cuont=1"}, `did you mean "count"`},
		"no number":      {"", []string{"count=1x"}, "a whole number is needed"},
		"missing":        {"", []string{"dir="}, ""}, // given, and empty: the agent's own question
		"its own":        {"", []string{"count=77"}, "wrongly configured"},
		"promotable":     {"ocf:test:two", nil, "is a promotable agent"},
		"not there":      {"ocf:test:none", nil, "not installed here"},
		"unsafe":         {"ocf:test:open", nil, "can be written by everybody"},
		"mute":           {"ocf:test:mute", nil, "has no resource-agent element"},
		"broken":         {"ocf:test:broken", nil, `called with wrong arguments: "no perl"`},
		"megabytes":      {"ocf:test:loud", nil, "has no resource-agent element"},
	} {
		r := w.app(t, "app", c.params...)
		if c.agent != "" {
			r.App.Agent = c.agent
		}
		err := w.x.Validate(t.Context(), r)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, wanted %q", what, err, c.says)
		}
		if c.says == "" || what == "its own" {
			continue
		}
		if res := w.x.Start(t.Context(), r); res.Err == nil || res.Status == executor.Running {
			t.Errorf("%s: a start says %+v", what, res)
		}
	}
	r := w.app(t, "app")
	delete(r.App.Params, "dir")
	if err := w.x.Validate(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the parameter dir is missing") {
		t.Error(err)
	}
}

func TestAMonitorThatHangsIsUnknown(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app", "mode=deaf")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	res := w.x.Probe(ctx, r)
	if res.Status != executor.Unknown || res.Err == nil {
		t.Error(res)
	}
}

func TestCleanupAndRestart(t *testing.T) {
	w := newWorld(t, "")
	r := w.app(t, "app")
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	if err := w.x.Cleanup(t.Context(), r, ""); err != nil || w.present(t, r) {
		t.Fatalf("clean up: %v", err)
	}
	method := executortest.Script(t, w.root, "method", "touch "+w.root+"/restarted; exec "+w.root+"/resource.d/test/daemon start")
	if err := w.x.Restart(t.Context(), r, method); err != nil || !w.present(t, r) {
		t.Fatalf("restart: %v", err)
	}
	if _, err := os.Stat(w.root + "/restarted"); err != nil {
		t.Error(err)
	}
	expect(t, w.x.Stop(t.Context(), r), executor.Stopped, "")
}
