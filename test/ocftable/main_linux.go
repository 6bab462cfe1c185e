// Ocftable asks every OCF agent of the distribution whether it could run on this machine, and prints docs/ocf-agents.md: what each says
// of itself, and what its validate-all says with nothing but its defaults.
//
//	make agents-table        (or: go run ./test/ocftable > docs/ocf-agents.md)
//
// An agent "runs" when pkg/executor/ocf's TestAgentsOfTheDistribution passes with it here and now; the test is run for that. It
// needs root, Debian's packages resource-agents and those of the programs that the agents run, and works in namespaces of its own. Exit
// status 1: something is missing, and nothing is printed.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/ocf"
)

// ranVariable carries the names of the agents that run into the namespaces.
const ranVariable = "HOLDFAST_AGENTS_THAT_RUN"

func main() { os.Exit(run()) }

func run() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "ocftable: resource agents want root")
		return 1
	}
	ctx := context.Background()
	if _, known := os.LookupEnv(ranVariable); !known { // before the namespaces: the test makes some of its own
		ran, err := agentsThatRun(ctx)
		if err == nil {
			err = os.Setenv(ranVariable, strings.Join(ran, " "))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "ocftable:", err)
			return 1
		}
	}
	inside, status := executortest.InNamespaces("/run")
	if !inside {
		return status
	}
	text, err := table(ctx, strings.Fields(os.Getenv(ranVariable)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "ocftable:", err)
		return 1
	}
	fmt.Print(text)
	return 0
}

// agentsThatRun runs the test of the agents, and lists those with which it passes.
func agentsThatRun(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-json", "-run", "^TestAgentsOfTheDistribution$", "./pkg/executor/ocf")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run the test of the agents: %w\n%s", err, out)
	}
	var ran []string
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test string }
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read what go test says: %w", err)
		}
		if _, agent, ok := strings.Cut(e.Test, "/"); ok && e.Action == "pass" {
			ran = append(ran, agent)
		}
	}
	if len(ran) == 0 {
		return nil, errors.New("the test of the agents ran none: is the package resource-agents installed?")
	}
	return ran, nil
}

// table asks all agents.
func table(ctx context.Context, ran []string) (string, error) {
	version, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", "resource-agents").Output()
	if err != nil {
		return "", fmt.Errorf("ask for the version of the package resource-agents: %w", err)
	}
	dir, err := os.MkdirTemp("", "ocftable-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	runner, err := executor.NewRunner(executor.RunnerOptions{Dir: dir, Node: "n1"})
	if err != nil {
		return "", err
	}
	defer runner.Close()
	entries, err := os.ReadDir(filepath.Join(ocf.DefaultRoot, "resource.d", "heartbeat"))
	if err != nil {
		return "", err
	}
	a := asker{ocf.NewAgents(ocf.AgentOptions{Runner: runner}), runner, map[string]bool{}}
	for _, name := range ran {
		a.ran[name] = true
	}
	var lines []string
	count := map[string]int{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		line, kind := a.row(ctx, e.Name())
		lines = append(lines, line)
		count[kind]++
	}
	return fmt.Sprintf(head, version, len(lines), count["runs"], count["valid"], count["needs parameters"], count["not here"], count["refused"]) +
		strings.Join(lines, "\n") + "\n", nil
}

const head = `# OCF resource agents

What each agent of Debian's package resource-agents %s says of itself, and whether it would run on the machine where this
table was made. It is written by ` + "`make agents-table`" + `, which asks each agent for its meta-data and calls its
validate-all with nothing but its defaults. How to use an agent stands in ` + "`resource-types.md`" + `.

Of %d agents: %d **run** (started, watched at their depths, adopted and stopped, twice, by the tests), %d are **valid** with their
defaults, %d **need parameters** that only an administrator can know, %d say that something is **not here** (their program, a file, a
device), and %d are promotable and **refused**.

| agent | what for | must be given | start / stop / monitor | here |
|---|---|---|---|---|
`

type asker struct {
	agents *ocf.Applications
	runner *executor.Runner
	ran    map[string]bool
}

// row is an agent's line of the table, with the kind of its verdict.
func (a asker) row(ctx context.Context, name string) (line, kind string) {
	m, err := ocf.Describe(ctx, a.runner, "", "ocf:heartbeat:"+name)
	if err != nil {
		return fmt.Sprintf("| %s | | | | cannot be read: %s |", name, cell(err.Error())), "cannot be read"
	}
	verdict := a.verdict(ctx, name, m)
	kind, _, _ = strings.Cut(verdict, ":")
	times := fmt.Sprintf("%v / %v / %v", m.Timeout("start", 0), m.Timeout("stop", 0), m.Timeout("monitor", 0))
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", name, cell(m.Short), cell(required(m)), times, cell(verdict)), kind
}

func (a asker) verdict(ctx context.Context, name string, m *ocf.Meta) string {
	if a.ran[name] {
		return "runs"
	}
	r := executor.Resource{Kind: executor.KindOCF, Name: "table", Group: "rg", App: &cluster.ApplicationController{Name: "table", Agent: "ocf:heartbeat:" + name}}
	err := a.agents.Validate(ctx, r)
	switch {
	case err == nil && m.Has("validate-all"):
		return "valid"
	case err == nil:
		return "valid: it offers no validate-all"
	case strings.Contains(err.Error(), "is a promotable agent"):
		return "refused: promotable"
	case required(m) != "" && strings.Contains(err.Error(), "is missing"):
		return "needs parameters"
	}
	_, says, _ := strings.Cut(err.Error(), "the agent's validate-all ")
	if _, quoted, ok := strings.Cut(says, ": "); ok {
		says = quoted
	}
	return "not here: " + strings.TrimPrefix(strings.Trim(says, `"`), "ocf-exit-reason:")
}

func required(m *ocf.Meta) string {
	var out []string
	for _, p := range m.Parameters {
		if p.Required && p.Default == "" {
			out = append(out, p.Name)
		}
	}
	return strings.Join(out, " ")
}

// cell is text in a table: without the marks of time that agents print, and without what would end the cell.
func cell(s string) string {
	for _, mark := range []string{"ERROR: ", "WARNING: "} {
		if _, after, ok := strings.Cut(s, mark); ok {
			s = after
		}
	}
	return strings.NewReplacer("|", "/", "\n", " ", "<", "&lt;").Replace(s)
}
