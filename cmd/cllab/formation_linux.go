package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
		{Name: "deadman", Program: "cldeadman", Args: []string{"--backend", "lab", "--device", "/run/holdfast/watchdog.sock",
			"--socket", "/run/holdfast/deadman.sock", "--holder-socket", "/run/holdfast/holder.sock"}},
		{Name: "agent", Program: "clstrmgrd", Args: []string{"--config", "/etc/holdfast/node.yaml"}},
	}
}

// nodeFile is /etc/holdfast/node.yaml of node n (counted from 1).
func nodeFile(cfg *lab.Config, n int) string {
	var listen []string
	for k := 1; k <= cfg.Networks; k++ {
		listen = append(listen, fmt.Sprintf("%q", cfg.Address(n, k)))
	}
	system := ""
	if cfg.System != "" {
		system += fmt.Sprintf("system: %q\n", cfg.System)
	}
	if cfg.CommandDir != "" {
		system += fmt.Sprintf("command_dir: %q\n", cfg.CommandDir)
	}
	return fmt.Sprintf(`# Written by cllab at each boot of the node.
name: %s
state_dir: /var/lib/holdfast
run_dir: /run/holdfast
log_dir: /var/log/holdfast
port: 6191
gossip_port: 6192
log_level: info
metrics: ":6193"
listen: [%s]
boot_id_file: /run/holdfast/boot_id
deadman:
  backend: lab
  socket: /run/holdfast/deadman.sock
  device: /run/holdfast/watchdog.sock
%s`, lab.NodeName(n), strings.Join(listen, ", "), system)
}

// agentSocket is where the agent answers, in the node's run directory, and agentPatience how long it may take to do so.
const (
	agentSocket   = "clstrmgrd.sock"
	agentPatience = 20 * time.Second
)

// awaitAgents waits until the agent of each node takes connections.
func awaitAgents(ctx context.Context, c lab.Client, cfg *lab.Config) error {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	for _, node := range cfg.NodeNames() {
		dir := filepath.Join(c.Dir, lab.NodesDir, node)
		for !answers(filepath.Join(dir, "run", agentSocket)) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("the agent of %s does not take connections after %v; its log is below %s", node, agentPatience,
					filepath.Join(dir, "log"))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// answers reports whether somebody listens on a unix socket. A socket's path may be longer than the kernel takes, so it is
// named through its directory.
func answers(path string) bool {
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// form makes a cluster of the lab's nodes with the product's own commands, as an administrator would: found it on node1 from
// a cluster file, let the others join with their one-time tokens, start the cluster services. It returns when the groups of
// the file are online.
func form(ctx context.Context, c lab.Client, cfg *lab.Config, clusterFile string, progress io.Writer) error {
	text := []byte(clusterText(cfg))
	if clusterFile != "" {
		var err error
		if text, err = os.ReadFile(clusterFile); err != nil {
			return fmt.Errorf("read the cluster file: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir, lab.SharedDir, "cluster.yaml"), text, 0o644); err != nil {
		return fmt.Errorf("give the nodes the cluster file: %w", err)
	}
	if err := awaitAgents(ctx, c, cfg); err != nil {
		return err
	}
	fmt.Fprintln(progress, "node1: clmgr add cluster FILE=/shared/cluster.yaml")
	out, err := output(ctx, c, "node1", []string{"clmgr", "-o", "json", "add", "cluster", "FILE=/shared/cluster.yaml"})
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	var founded struct {
		Tokens []struct{ Node, Token string } `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(out), &founded); err != nil {
		return fmt.Errorf("found the cluster: the answer of clmgr cannot be read: %w", err)
	}
	for _, t := range founded.Tokens {
		fmt.Fprintf(progress, "%s: clmgr join cluster TOKEN=...\n", t.Node)
		if _, err := output(ctx, c, t.Node, []string{"clmgr", "join", "cluster", "TOKEN=" + t.Token}); err != nil {
			return fmt.Errorf("let %s join: %w", t.Node, err)
		}
	}
	if cfg.Nodes == 2 && clusterFile == "" || strings.Contains(string(text), "repositories:") {
		if err := formatRepository(ctx, c, string(text), progress); err != nil {
			return err
		}
	}
	fmt.Fprintln(progress, "node1: clmgr online cluster")
	if _, err := output(ctx, c, "node1", []string{"clmgr", "online", "cluster"}); err != nil {
		return fmt.Errorf("bring the cluster online: %w", err)
	}
	return nil
}

// interfacesOf lists a node's interfaces on each network, as the cluster file does.
func interfacesOf(cfg *lab.Config) []string {
	var out []string
	for k := 1; k <= cfg.Networks; k++ {
		var names []string
		for p := k; p <= cfg.Ports(); p += cfg.Networks {
			names = append(names, lab.InterfaceName(p))
		}
		out = append(out, fmt.Sprintf("net%d: [%s]", k, strings.Join(names, ", ")))
	}
	return out
}

// clusterText is the cluster file of a lab that was given none: nodes, networks, the profile, and the lab's power switch.
func clusterText(cfg *lab.Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by cllab up.\nname: %s\nnodes:\n", cfg.Name)
	for n := 1; n <= cfg.Nodes; n++ {
		var addrs []string
		for k := 1; k <= cfg.Networks; k++ {
			addrs = append(addrs, fmt.Sprintf("net%d: %s/24", k, cfg.Address(n, k)))
		}
		fmt.Fprintf(&b, "  - name: %s\n    addresses: {%s}\n", lab.NodeName(n), strings.Join(addrs, ", "))
		if cfg.Links > 1 {
			fmt.Fprintf(&b, "    interfaces: {%s}\n", strings.Join(interfacesOf(cfg), ", "))
		}
	}
	b.WriteString("networks:\n")
	for k := 1; k <= cfg.Networks; k++ {
		fmt.Fprintf(&b, "  - {name: net%d, prefix: 24}\n", k)
	}
	if cfg.Fence {
		var names []string
		for n := 1; n <= cfg.Nodes; n++ {
			names = append(names, lab.NodeName(n))
		}
		fmt.Fprintf(&b, "fence_devices:\n  - {name: power, agent: %s, nodes: [%s], timeout: 5s}\n", binPoint+"/fence_cllab", strings.Join(names, ", "))
	}
	if cfg.Nodes == 2 {
		fmt.Fprintf(&b, "repositories:\n  - {name: %s, device: %s}\n", labRepository, labVolume)
	}
	fmt.Fprintf(&b, "settings:\n  profile: %s\n", cfg.Profile)
	return b.String()
}

// The repository volume of a lab of two nodes: a file in the directory that all nodes share, as one on a shared file system.
const (
	labRepository = "repo"
	labVolume     = "/shared/repository.vol"
	labVolumeSize = 64 << 20
)

// formatRepository makes the file of the repository volume and has it formatted.
func formatRepository(ctx context.Context, c lab.Client, text string, progress io.Writer) error {
	if !strings.Contains(text, labVolume) {
		return nil // the user's own
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, lab.SharedDir, filepath.Base(labVolume)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the repository volume: %w", err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, labVolumeSize), f.Close()); err != nil {
		return fmt.Errorf("make the repository volume: %w", err)
	}
	fmt.Fprintf(progress, "node1: clmgr -f format repository %s\n", labRepository)
	if _, err := output(ctx, c, "node1", []string{"clmgr", "-f", "format", "repository", labRepository}); err != nil {
		return fmt.Errorf("format the repository volume: %w", err)
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
