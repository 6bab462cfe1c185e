package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// This file is the one place that knows how the product is started and how a cluster is formed: what an administrator would
// put into unit files and type at boot time. Everything else in the lab knows processes, links and power only.

// A daemon is a program that a node's init keeps running. Program is looked up in the directory of cllab.
type daemon struct {
	Name    string   `json:"name"` // as in `cllab kill NODE agent`
	Program string   `json:"program"`
	Args    []string `json:"args"`
}

// daemons lists what each node runs, in the order of starting.
func daemons(*lab.Config) []daemon {
	return []daemon{
		{Name: "deadman", Program: "cldeadman", Args: []string{"--config", "/etc/holdfast/node.yaml"}},
		{Name: "agent", Program: "clstrmgrd", Args: []string{"--config", "/etc/holdfast/node.yaml"}},
	}
}

// nodeFile is /etc/holdfast/node.yaml of node n (counted from 1).
func nodeFile(cfg *lab.Config, n int) string {
	var listen []string
	for k := 1; k <= cfg.Networks; k++ {
		listen = append(listen, fmt.Sprintf("%q", cfg.Address(n, k)))
	}
	return fmt.Sprintf(`# Written by cllab at each boot of the node.
name: %s
state_dir: /var/lib/holdfast
run_dir: /run/holdfast
log_dir: /var/log/holdfast
port: 6191
gossip_port: 6192
metrics: ":6193"
listen: [%s]
boot_id_file: /run/holdfast/boot_id
deadman:
  backend: lab
  socket: /run/holdfast/deadman.sock
  device: /run/holdfast/watchdog.sock
`, lab.NodeName(n), strings.Join(listen, ", "))
}

// A step is one command of the formation, run in a node as an administrator would. Words in braces stand for values.
type step struct {
	says string   // what `cllab up` shows
	node string   // where it runs; "{node}" in steps that are done for each joining node
	argv []string // clmgr's
	keep string   // the name under which the last line of the output is kept for later steps; empty: not kept
}

// firstSteps make a cluster of node1.
func firstSteps() []step {
	return []step{{
		says: "create the cluster on node1", node: "node1",
		argv: []string{"clmgr", "add", "cluster", "{lab}", "NODES=node1", "ADDRESS={address1}", "PROFILE={profile}"},
	}}
}

// joinSteps are done for each further node.
func joinSteps() []step {
	return []step{
		{says: "invite {node}", node: "node1", keep: "token", argv: []string{"clmgr", "add", "node", "{node}", "ADDRESS={address}"}},
		{says: "join {node}", node: "{node}", argv: []string{"clmgr", "join", "cluster", "TOKEN={token}"}},
	}
}

// fileSteps apply a cluster file, which lies in the shared directory by then.
func fileSteps() []step {
	return []step{
		{says: "apply the cluster file", node: "node1", argv: []string{"clmgr", "apply", "-f", "/shared/cluster.yaml"}},
		{says: "bring the cluster online", node: "node1", argv: []string{"clmgr", "online", "cluster"}},
	}
}

// form makes a cluster of the lab's nodes, and brings the groups of the cluster file online when there is one.
func form(ctx context.Context, c lab.Client, cfg *lab.Config, clusterFile string, progress io.Writer) error {
	f := &former{client: c, progress: progress, words: map[string]string{
		"lab": cfg.Name, "profile": cfg.Profile, "address1": cfg.Address(1, 1)}}
	for _, s := range firstSteps() {
		if err := f.run(ctx, s); err != nil {
			return err
		}
	}
	for n := 2; n <= cfg.Nodes; n++ {
		f.words["node"], f.words["address"] = lab.NodeName(n), cfg.Address(n, 1)
		for _, s := range joinSteps() {
			if err := f.run(ctx, s); err != nil {
				return err
			}
		}
	}
	if clusterFile == "" {
		return nil
	}
	b, err := os.ReadFile(clusterFile)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Dir, lab.SharedDir, "cluster.yaml"), b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("give the nodes the cluster file: %w", err)
	}
	for _, s := range fileSteps() {
		if err := f.run(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// A former carries out steps and keeps the words that they use.
type former struct {
	client   lab.Client
	progress io.Writer
	words    map[string]string
}

func (f *former) fill(s string) string {
	for name, value := range f.words {
		s = strings.ReplaceAll(s, "{"+name+"}", value)
	}
	return s
}

func (f *former) run(ctx context.Context, s step) error {
	says, argv := f.fill(s.says), make([]string, len(s.argv))
	for i, a := range s.argv {
		argv[i] = f.fill(a)
	}
	fmt.Fprintln(f.progress, says)
	out, err := output(ctx, f.client, f.fill(s.node), argv)
	if err != nil {
		return fmt.Errorf("%s: %w", says, err)
	}
	if s.keep != "" {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		f.words[s.keep] = strings.TrimSpace(lines[len(lines)-1])
	}
	return nil
}

// output runs a command in a node and returns what it wrote to its standard output. A failure carries what it wrote in all.
func output(ctx context.Context, c lab.Client, node string, argv []string) (string, error) {
	files := make([]*os.File, 2)
	for i := range files {
		f, err := os.CreateTemp("", "cllab-output")
		if err != nil {
			return "", err
		}
		defer f.Close()
		_ = os.Remove(f.Name())
		files[i] = f
	}
	code, err := c.Exec(ctx, node, argv, lab.ExecOptions{Stdout: files[0], Stderr: files[1]})
	if err != nil {
		return "", err
	}
	texts := make([]string, 2)
	for i, f := range files {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			return "", err
		}
		texts[i] = string(b)
	}
	if code != 0 {
		return "", fmt.Errorf("exit status %d: %s", code, strings.TrimSpace(texts[0]+texts[1]))
	}
	return texts[0], nil
}
