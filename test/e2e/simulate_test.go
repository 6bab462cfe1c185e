//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// simulated is what one call of clmgr simulate did.
type simulated struct {
	code           int
	stdout, stderr string
	took           time.Duration
	memory         int64 // the most that was resident, KiB
}

func simulateFile(t *testing.T, args ...string) simulated {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(*binDir, "clmgr"), append([]string{"simulate"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := simulated{code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String(), took: time.Since(began)}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.memory = u.Maxrss
	}
	return r
}

// Every scenario, as text and as JSON, by the command itself.
func TestSimulateScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../scenarios/*.yaml")
	check(t, err)
	played := 0
	for _, f := range files {
		want := 0
		if strings.HasPrefix(filepath.Base(f), "broken-") {
			want = 2
		}
		text, js := simulateFile(t, f), simulateFile(t, f, "-o", "json")
		if text.code != want || js.code != want {
			t.Errorf("%s: exit status %d as text, %d as JSON, want %d\n%s%s", f, text.code, js.code, want, text.stderr, text.stdout)
			continue
		}
		if want == 2 {
			continue
		}
		var r struct {
			OK    bool
			Steps []struct{ Failed []string }
		}
		if err := json.Unmarshal([]byte(js.stdout), &r); err != nil || !r.OK || r.Steps == nil {
			t.Errorf("%s: %v: %.300s", f, err, js.stdout)
		}
		if !strings.Contains(text.stdout, "all expectations and promises held") {
			t.Errorf("%s: %.300s", f, text.stdout)
		}
		played++
	}
	t.Logf("%d scenarios played, %d refused", played, len(files)-played)
}

// What the README shows is what the command prints.
func TestReadmeShowsWhatSimulatePrints(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	check(t, err)
	for _, args := range [][]string{{"test/scenarios/readme.yaml"}, {"test/scenarios/readme.yaml", "-o", "json"}} {
		head := "\n$ clmgr simulate " + strings.Join(args, " ") + "\n"
		_, after, found := strings.Cut(string(readme), head)
		if !found {
			t.Errorf("the README lacks %q", head)
			continue
		}
		shown, _, _ := strings.Cut(after, "```")
		printed := simulateFile(t, append([]string{"../../" + args[0]}, args[1:]...)...).stdout
		for line := range strings.SplitSeq(strings.TrimRight(shown, "\n"), "\n") {
			if at := strings.Index(printed, line+"\n"); strings.TrimSpace(line) != "..." && at < 0 {
				t.Errorf("%s: the README shows a line that is not printed, or not there: %s", strings.Join(args, " "), line)
			} else if at >= 0 {
				printed = printed[at:]
			}
		}
	}
}

// Files of every kind of brokenness: exit status 2, a message that says where, nothing on the standard output, little memory.
func TestSimulateBadFiles(t *testing.T) {
	t.Parallel()
	const head = "name: bad\ncluster:\n  name: demo\n  nodes: [node1, node2]\n  networks: [net1]\n"
	const groups = "  resource_groups:\n    - {name: app_rg, nodes: [node1, node2]}\n    - {name: db_rg, nodes: [node2, node1]}\n"
	const good = head + groups + "steps:\n  - do: online cluster\n"
	group := func(keys string) string {
		return head + "  resource_groups:\n    - {name: app_rg, " + keys + "}\nsteps: []\n"
	}
	deps := func(d string) string { return head + groups + "  dependencies:\n    - " + d + "\nsteps: []\n" }
	timer := func(k string) string { return head + "  fallback_timers:\n    - {name: t, " + k + "}\nsteps: []\n" }
	step := func(s string) string { return head + groups + "steps:\n  - " + s + "\n" }
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	long := strings.Repeat("n", 100000)
	for name, text := range map[string]string{
		"empty": "", "blank": "\n \n", "nul": "\x00", "binary": "\x7fELF\x02\x01\x01\x00\x00\x00\xff\xfe", "utf-16": "\xff\xfen\x00a\x00", "half a rune": "name: \xc3",
		"scalar": "hello", "list": "- a\n- b\n", "json cut off": `{"cluster": {"nodes": [`, "tab": "cluster:\n\tname: x\n", "colon": ":", "brace": "{", "quote": "name: \"abc",
		"anchor of nothing": "cluster: *c\n", "anchor of itself": "cluster: &c {nodes: *c}\n", "bomb": bomb + "cluster: *a8\n", "bomb in a list": bomb + head + groups + "steps: *a8\n",
		"tag": "cluster: !!python/object:os.system {}\n", "two documents": good + "---\n" + good, "merge of itself": "cluster: &c\n  <<: *c\n",
		"deep lists": "cluster: " + strings.Repeat("[", 20000), "deep maps": "cluster: " + strings.Repeat("{a: ", 20000), "deep blocks": deepBlocks(2000),
		"large": head + "  #" + strings.Repeat("x", 9<<20), "many keys": manyKeys(50000), "long line": "name: [" + long + "\n",
		"no cluster": "name: x\nsteps: []\n", "cluster is a list": "cluster: [a]\nsteps: []\n", "steps is a map": head + "steps: {do: online cluster}\n",
		"unknown key": good + "stepps: []\n", "double key": good + "steps: []\n", "double key in a flow": head + "  resource_groups: [{name: a, name: b, nodes: [node1]}]\n",
		"key that is a list": good + "[a, b]: c\n", "number key": good + "1: 2\n", "name is a map": "name: {a: b}\n" + head[10:],
		"no nodes": "cluster: {name: d, nodes: []}\n", "33 nodes": "cluster: {name: d, nodes: [" + manyNames(33) + "]}\n", "node twice": "cluster: {name: d, nodes: [a, a]}\n",
		"node is null": "cluster: {name: d, nodes: [~]}\n", "node is a list": "cluster: {name: d, nodes: [[a]]}\n", "node without a name": "cluster: {name: d, nodes: [{site: x}]}\n",
		"name of 65": "cluster: {name: d, nodes: [" + strings.Repeat("n", 65) + "]}\n", "name of 100000": "cluster: {name: d, nodes: [" + long + "]}\n",
		"name with a blank": "cluster: {name: d, nodes: [\"a b\"]}\n", "name with a slash": "cluster: {name: d, nodes: [a/b]}\n", "name with a dash first": "cluster: {name: d, nodes: [-a]}\n",
		"name in Greek": "cluster: {name: d, nodes: [αβγ]}\n", "empty name": "cluster: {name: d, nodes: ['']}\n", "escape in a name": "cluster: {name: d, nodes: [\"a\\e[31m\"]}\n",
		"group named as a node": group("nodes: [node1]") + "x: 1\n", "group and node": head + "  resource_groups: [{name: node1, nodes: [node1]}]\n",
		"group without nodes": group("nodes: []"), "unknown node": group("nodes: [node9]"), "node twice in a list": group("nodes: [node1, node1]"),
		"startup": group("nodes: [node1], startup: OHNE"), "fudnp without a policy": group("nodes: [node1], fallover: FUDNP"), "policy without fudnp": group("nodes: [node1], node_priority_policy: cpu"),
		"oaan with fnpn": group("nodes: [node1], startup: OAAN, fallover: FNPN"), "oaan with fbhpn": group("nodes: [node1], startup: OAAN, fallover: BO, fallback: FBHPN"),
		"oudp with fbhpn": group("nodes: [node1], startup: OUDP, fallback: FBHPN"), "oudp with bo": group("nodes: [node1], startup: OUDP, fallover: BO, fallback: NFB"),
		"unknown timer": group("nodes: [node1], fallback_at: t"), "unknown network": group("nodes: [node1], network: net9"), "priority is text": group("nodes: [node1], priority: high"),
		"priority is no integer": group("nodes: [node1], priority: 1.5"), "priority is enormous": group("nodes: [node1], priority: 99999999999999999999"), "weight below zero": group("nodes: [node1], weight: -1"),
		"release failure": group("nodes: [node1], on_release_failure: ignore"),
		"parent alone":    deps("{parent: app_rg}"), "parent of itself": deps("{parent: app_rg, child: app_rg}"), "circle": deps("{parent: app_rg, child: db_rg}\n    - {parent: db_rg, child: app_rg}"),
		"circle of stops": deps("{stop: app_rg, after: db_rg}\n    - {stop: db_rg, after: app_rg}"), "both ways": deps("{parent: app_rg, child: db_rg}\n    - {start: db_rg, after: app_rg}"),
		"together and apart": deps("{same_node: [app_rg, db_rg]}\n    - {different_nodes: {high: [app_rg], low: [db_rg]}}"), "set of one": deps("{same_node: [app_rg]}"),
		"unknown group": deps("{same_node: [app_rg, zz_rg]}"), "two forms": deps("{parent: app_rg, child: db_rg, same_node: [app_rg, db_rg]}"), "tier": deps("{different_nodes: {highest: [app_rg], low: [db_rg]}}"),
		"two sets":    deps("{same_node: [app_rg, db_rg]}\n    - {same_node: [db_rg, app_rg]}"),
		"30 February": timer("repeats: yearly, month: 2, day_of_month: 30, hour: 1, minute: 1"), "29 February 2026": timer("repeats: never, year: 2026, month: 2, day_of_month: 29, hour: 1, minute: 1"),
		"hour 24": timer("repeats: daily, hour: 24, minute: 0"), "day 7": timer("repeats: weekly, day_of_week: 7, hour: 0, minute: 0"), "minute below zero": timer("repeats: daily, hour: 1, minute: -1"),
		"hourly": timer("repeats: hourly, hour: 1, minute: 1"), "month 13": timer("repeats: yearly, month: 13, day_of_month: 1, hour: 1, minute: 1"),
		"start that is not": good + "start: 2026-13-01T00:00:00Z\n", "start is a number": good + "start: 5\n", "settling below zero": head + "  settings: {settling_time: -1s}\n",
		"settling without a unit": head + "  settings: {settling_time: 30}\n", "settling forever": head + "  settings: {settling_time: 1000000h}\n",
		"step is text": step("online cluster"), "step without do": step("expect: {app_rg: {node1: ONLINE}}"), "step is a number": step("do: 7"), "unknown step": step("do: explode node1"),
		"crash of nobody": step("do: crash"), "crash of two": step("do: crash node1 node2"), "unknown node in a step": step("do: crash node7"), "unknown group in a step": step("do: move zz node1"),
		"unknown network in a step": step("do: network-down net7 node1"), "measure of nothing": step("do: measure node1"), "measure of words": step("do: measure node1 cpu=fast"),
		"measure NaN": step("do: measure node1 cpu=NaN"), "unknown measure": step("do: measure node1 gpu=1"), "wait for nothing": step("do: wait"), "wait backwards": step("do: wait -5m"),
		"wait for ever": step("do: wait 9999999d"), "wait 10": step("do: wait 10"), "online twice": step("do: online node1 manual now"), "stop how": step("do: offline node1 gracefully"),
		"expect of an unknown group": step("{do: online cluster, expect: {zz: {node1: ONLINE}}}"), "expect on an unknown node": step("{do: online cluster, expect: {app_rg: {node7: ONLINE}}}"),
		"expect of a strange state": step("{do: online cluster, expect: {app_rg: {node1: SLEEPING}}}"), "expect is a list": step("{do: online cluster, expect: [app_rg]}"),
		"refused is text": step("{do: online cluster, refused: perhaps}"), "unknown key in a step": step("{do: online cluster, comment: x}"),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bad.yaml")
			check(t, os.WriteFile(file, []byte(text), 0o600))
			r := simulateFile(t, file)
			place := regexp.MustCompile(`^` + regexp.QuoteMeta(file) + `:(\d+:\d+:)? `)
			first, _, _ := strings.Cut(r.stderr, "\n")
			switch {
			case r.code != 2 || r.stdout != "" || !place.MatchString(r.stderr):
				t.Errorf("exit status %d, output %.200q, message %.400s", r.code, r.stdout, r.stderr)
			case len(r.stderr) > 64<<10 || strings.ContainsAny(r.stderr, "\x00\x1b"):
				t.Errorf("a message of %d bytes: %.200q", len(r.stderr), r.stderr)
			case r.memory > 100<<10:
				t.Errorf("it took %d MiB", r.memory>>10)
			}
			t.Logf("%v, %d MiB: %.200s", r.took.Round(time.Millisecond), r.memory>>10, strings.TrimPrefix(first, file))
		})
	}
}

func deepBlocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	b.WriteString("cluster:\n")
	for i := range n {
		fmt.Fprintf(&b, "  key%d: %d\n", i, i)
	}
	return b.String()
}

func manyNames(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("n%d", i))
	}
	return strings.Join(out, ", ")
}
