package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// common is what all commands share: which lab.
type common struct {
	name string
}

func (c *common) client() lab.Client { return lab.Client{Dir: lab.Dir(c.name)} }

// usageError marks a wrong command line: exit status 2.
func usageError(err error) error { return &exitError{code: 2, err: err} }

func newCommand() *cobra.Command {
	c := &common{}
	root := &cobra.Command{
		Use:   "cllab",
		Short: "A whole cluster on one Linux machine, and ways to break it",
		Long: `cllab starts the nodes of a cluster as namespaces of this machine, each with processes, mounts, network and host name
of its own, and breaks them on purpose: crashes, silent cuts, pulled cables, pauses, power.`,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.PersistentFlags().StringVar(&c.name, "name", defaultName(), "name of the lab ($HOLDFAST_LAB)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.AddCommand(
		upCommand(c), downCommand(c), statusCommand(c), execCommand(c),
		nodeCommand(c, lab.OpCrash, "crash NODE ...", "End nodes as a loss of power does: link, processes and mounts at once"),
		nodeCommand(c, lab.OpBoot, "boot NODE ...", "Boot nodes that are down"),
		stopCommand(c, lab.OpPause, "pause NODE [agent|deadman]", "Stop every process of a node (SIGSTOP), or one daemon"),
		stopCommand(c, lab.OpResume, "resume NODE [agent|deadman]", "Continue what pause has stopped"),
		linkCommand(c, lab.OpCut, "cut NODE [NETWORK|INTERFACE]", "Cut a node off in silence: the carrier stays"),
		linkCommand(c, lab.OpUnplug, "unplug NODE [NETWORK|INTERFACE]", "Pull a node's cable: the carrier is lost"),
		linkCommand(c, lab.OpHeal, "heal [NODE] [NETWORK|INTERFACE]", "Undo cut and unplug, of one node or all"),
		killCommand(c), powerCommand(c), fenceCommand(),
		probeCommand(c), watchCommand(c), appCommand(),
	)
	return root
}

func defaultName() string {
	if n := os.Getenv("HOLDFAST_LAB"); n != "" {
		return n
	}
	return "lab"
}

// args checks the number of arguments, and answers a wrong one with the command's usage line.
func args(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || (high >= 0 && len(args) > high) {
			return usageError(fmt.Errorf("usage: %s", cmd.UseLine()))
		}
		return nil
	}
}

func at(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// nodeCommand gives one order to one node, or to several at the same time.
func nodeCommand(c *common, op, use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args(1, -1), RunE: func(cmd *cobra.Command, a []string) error {
		errs := make([]error, len(a))
		var wg sync.WaitGroup
		for i, node := range a {
			wg.Go(func() { _, errs[i] = c.client().Call(cmd.Context(), lab.Request{Op: op, Node: node}) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}}
}

func stopCommand(c *common, op, use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args(1, 2), RunE: func(cmd *cobra.Command, a []string) error {
		_, err := c.client().Call(cmd.Context(), lab.Request{Op: op, Node: a[0], What: at(a, 1)})
		return err
	}}
}

func linkCommand(c *common, op, use, short string) *cobra.Command {
	var in, out bool
	low := 1
	if op == lab.OpHeal {
		low = 0
	}
	cmd := &cobra.Command{Use: use, Short: short, Args: args(low, 2), RunE: func(cmd *cobra.Command, a []string) error {
		req := lab.Request{Op: op, Node: at(a, 0), Network: at(a, 1)}
		switch {
		case in && !out:
			req.Direction = "in"
		case out && !in:
			req.Direction = "out"
		}
		_, err := c.client().Call(cmd.Context(), req)
		return err
	}}
	if op == lab.OpCut {
		cmd.Flags().BoolVar(&in, "in", false, "only what goes to the node")
		cmd.Flags().BoolVar(&out, "out", false, "only what comes from the node")
	}
	return cmd
}

func killCommand(c *common) *cobra.Command {
	return &cobra.Command{Use: "kill NODE agent|deadman", Short: "Kill a daemon of a node with signal 9", Args: args(2, 2),
		RunE: func(cmd *cobra.Command, a []string) error {
			_, err := c.client().Call(cmd.Context(), lab.Request{Op: lab.OpKill, Node: a[0], What: a[1]})
			return err
		}}
}

func powerCommand(c *common) *cobra.Command {
	var unreachable, reachable bool
	var delay time.Duration
	cmd := &cobra.Command{
		Use:   "power off|on NODE | power --unreachable|--reachable [NODE] | power --delay D",
		Short: "Switch a node's power, or spoil the way to the power switch",
		Args:  args(0, 2),
		RunE: func(cmd *cobra.Command, a []string) error {
			req := lab.Request{Op: lab.OpPower, What: at(a, 0), Node: at(a, 1)}
			if unreachable || reachable || cmd.Flags().Changed("delay") {
				if len(a) > 1 || (unreachable && reachable) {
					return usageError(fmt.Errorf("usage: %s", cmd.UseLine()))
				}
				req = lab.Request{Op: lab.OpSwitch, Node: at(a, 0)}
				if unreachable || reachable {
					req.Unreachable = &unreachable
				}
				if cmd.Flags().Changed("delay") {
					req.Delay = &delay
				}
			} else if len(a) != 2 {
				return usageError(fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			_, err := c.client().Call(cmd.Context(), req)
			return err
		}}
	cmd.Flags().BoolVar(&unreachable, "unreachable", false, "the power switch takes orders and never answers")
	cmd.Flags().BoolVar(&reachable, "reachable", false, "the power switch answers again")
	cmd.Flags().DurationVar(&delay, "delay", 0, "how long the power switch takes for each order")
	return cmd
}

func execCommand(c *common) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENT ...]",
		Short: "Run a command in a node, or beside them in the probing client's namespace (node \"client\")",
		Long: `Run a command in a node with this terminal's standard input and outputs. The exit status is the command's; 128+N when
signal N ended it, 127 and 126 when it cannot be found or executed, 125 when the lab could not run it or the node went down.`,
		Args: args(2, -1),
		RunE: func(cmd *cobra.Command, a []string) error {
			node, argv := a[0], a[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return usageError(fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			signals := make(chan os.Signal, 4)
			signal.Reset(os.Interrupt, unix.SIGTERM) // they are the command's now
			signal.Notify(signals, os.Interrupt, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
			code, err := c.client().Exec(cmd.Context(), node, argv, lab.ExecOptions{
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: termEnv(), Signals: signals})
			if err != nil || code != 0 {
				return &exitError{code: code, err: err}
			}
			return nil
		}}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func termEnv() []string {
	if t := os.Getenv("TERM"); t != "" {
		return []string{"TERM=" + t}
	}
	return nil
}

func downCommand(c *common) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{Use: "down", Short: "End the lab and remove it", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return down(cmd.Context(), lab.Dir(c.name), keep)
		}}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the lab's directory, with its logs")
	return cmd
}

func statusCommand(c *common) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "status", Short: "Show nodes, links, daemons and watchdogs", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			st, err := c.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(os.Stdout, st)
			}
			return printStatus(os.Stdout, st)
		}}
	formatFlag(cmd, &format)
	return cmd
}

func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "text", "output form: text or json")
}

func checkFormat(format string) error {
	if format != "text" && format != "json" {
		return usageError(fmt.Errorf("-o %q: want text or json", format))
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printStatus(w io.Writer, st *lab.Status) error {
	fmt.Fprintf(w, "lab %s: %d nodes, %d networks, up since %s, supervisor %d (%s)\n", st.Lab, len(st.Nodes), st.Config.Networks,
		st.Since.Format(time.DateTime), st.PID, st.Scheduling)
	if len(st.Unreach) > 0 {
		fmt.Fprintf(w, "power switch unreachable from: %s\n", strings.Join(st.Unreach, " "))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tPID\tBOOTS\tAGENT\tDEADMAN\tWATCHDOG\tLINKS")
	for _, n := range st.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", n.Name, n.State, number(n.PID), n.Boots, daemonWords(n.Agent),
			daemonWords(n.Deadman), watchdogWords(n.Watchdog), linkWords(n.Links))
	}
	return t.Flush()
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func daemonWords(d lab.DaemonStatus) string {
	switch {
	case d.Starts == 0 && d.Last == "":
		return "-"
	case d.PID == 0:
		return d.Last
	}
	return fmt.Sprintf("%d (start %d)", d.PID, d.Starts)
}

func watchdogWords(w lab.WatchStatus) string {
	words := "stopped"
	if w.Running {
		words = "running " + w.Timeout.String()
	}
	if w.Fired > 0 {
		words += fmt.Sprintf(", fired %d", w.Fired)
	}
	return words
}

func linkWords(links []lab.LinkStatus) string {
	var words []string
	for _, l := range links {
		w := l.Network + " " + cmp.Or(l.Address, l.Interface)
		switch {
		case l.Unplugged:
			w += " unplugged"
		case l.CutIn && l.CutOut:
			w += " cut"
		case l.CutIn:
			w += " cut in"
		case l.CutOut:
			w += " cut out"
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}
