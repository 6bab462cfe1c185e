package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The fence agent speaks the public interface of fence agents: options as "name=value" lines on standard input, the order in
// "action". It talks to the lab's power switch from inside a node.

const powerSocket = "/run/holdfast/power.sock"

// Exit statuses of a fence agent.
const (
	fenceOK     = 0
	fenceFailed = 1
	fenceOff    = 2 // status: the node is off
)

func fenceCommand() *cobra.Command {
	return &cobra.Command{Use: "fence", Short: "Fence agent for the lab's power switch (options on standard input)", Args: args(0, 0),
		Long: `Fence agent with the public interface of fence agents: it reads name=value lines from standard input.
Options: action=off|on|reboot|status|monitor|list|metadata, plug=NODE, power_timeout=SECONDS (default 20), socket=PATH.
Exit status 0: done, or the node is on; 2: the node is off; 1: it failed or is not known.`,
		RunE: func(*cobra.Command, []string) error {
			if code := fenceMain(os.Stdin, os.Stdout, os.Stderr); code != 0 {
				return &exitError{code: code}
			}
			return nil
		}}
}

type fenceOptions struct {
	action, plug, socket string
	timeout              time.Duration
}

func fenceMain(stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := readFenceOptions(stdin)
	if err == nil {
		var code int
		if code, err = o.run(stdout); err == nil {
			return code
		}
	}
	fmt.Fprintln(stderr, "fence_cllab:", err)
	return fenceFailed
}

// readFenceOptions reads the options. Names that it does not know are skipped, as callers give every agent some.
func readFenceOptions(r io.Reader) (*fenceOptions, error) {
	o := &fenceOptions{action: "reboot", socket: powerSocket, timeout: 20 * time.Second}
	sc := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for sc.Scan() {
		name, value, ok := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(name) {
		case "action", "option":
			o.action = value
		case "plug", "port":
			o.plug = value
		case "nodename":
			if o.plug == "" {
				o.plug = value
			}
		case "socket":
			o.socket = value
		case "power_timeout":
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || n <= 0 || n > 3600 {
				return nil, fmt.Errorf("power_timeout=%s: want seconds between 0 and 3600", value)
			}
			o.timeout = time.Duration(n * float64(time.Second))
		}
	}
	return o, sc.Err()
}

func (o *fenceOptions) run(stdout io.Writer) (int, error) {
	switch o.action {
	case "metadata":
		_, err := io.WriteString(stdout, fenceMetadata)
		return fenceOK, err
	case "monitor":
		_, err := o.ask("list")
		return fenceOK, err
	case "list":
		answer, err := o.ask("list")
		for n := range strings.FieldsSeq(answer) {
			fmt.Fprintf(stdout, "%s,\n", n)
		}
		return fenceOK, err
	case "off", "on", "status", "reboot":
	default:
		return fenceFailed, fmt.Errorf("action=%s is not known (off, on, reboot, status, monitor, list, metadata)", o.action)
	}
	if o.plug == "" {
		return fenceFailed, fmt.Errorf("action=%s wants plug=NODE", o.action)
	}
	switch o.action {
	case "status":
		answer, err := o.ask("status " + o.plug)
		switch {
		case err != nil:
			return fenceFailed, err
		case answer == "on":
			fmt.Fprintln(stdout, "Status: ON")
			return fenceOK, nil
		case answer == "off":
			fmt.Fprintln(stdout, "Status: OFF")
			return fenceOff, nil
		}
		return fenceFailed, fmt.Errorf("the power switch answered %q", answer)
	case "reboot":
		if err := o.order("off"); err != nil {
			return fenceFailed, err
		}
		return fenceOK, o.order("on")
	}
	return fenceOK, o.order(o.action)
}

func (o *fenceOptions) order(what string) error {
	answer, err := o.ask(what + " " + o.plug)
	if err == nil && answer != "ok" {
		err = fmt.Errorf("the power switch answered %q", answer)
	}
	return err
}

// ask sends one line to the switch and returns the line that comes back.
func (o *fenceOptions) ask(line string) (string, error) {
	conn, err := net.DialTimeout("unix", o.socket, o.timeout)
	if err != nil {
		return "", fmt.Errorf("reach the power switch (was the lab started with --fence?): %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(o.timeout))
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", fmt.Errorf("order %q: %w", line, err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, 64<<10)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the power switch gave no answer to %q: %w", line, err)
	}
	answer = strings.TrimSpace(answer)
	if e, bad := strings.CutPrefix(answer, "error "); bad {
		return "", fmt.Errorf("the power switch refuses %q: %s", line, e)
	}
	return answer, nil
}

const fenceMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_cllab" shortdesc="Fence agent for the power switch of a cllab lab">
<longdesc>Switches nodes of a lab off and on, from inside the lab.</longdesc>
<vendor-url>https://github.com/holdfast-ha/holdfast</vendor-url>
<parameters>
	<parameter name="action" unique="0" required="1">
		<getopt mixed="-o, --action=[action]" />
		<content type="string" default="reboot" />
		<shortdesc lang="en">Fencing action</shortdesc>
	</parameter>
	<parameter name="plug" unique="0" required="1" obsoletes="port">
		<getopt mixed="-n, --plug=[id]" />
		<content type="string" />
		<shortdesc lang="en">Name of the node</shortdesc>
	</parameter>
	<parameter name="power_timeout" unique="0" required="0">
		<getopt mixed="--power-timeout=[seconds]" />
		<content type="second" default="20" />
		<shortdesc lang="en">How long to wait for the power switch</shortdesc>
	</parameter>
	<parameter name="socket" unique="0" required="0">
		<getopt mixed="--socket=[path]" />
		<content type="string" default="/run/holdfast/power.sock" />
		<shortdesc lang="en">Socket of the power switch</shortdesc>
	</parameter>
</parameters>
<actions>
	<action name="on" automatic="0" />
	<action name="off" />
	<action name="reboot" />
	<action name="status" />
	<action name="monitor" />
	<action name="list" />
	<action name="metadata" />
</actions>
</resource-agent>
`
