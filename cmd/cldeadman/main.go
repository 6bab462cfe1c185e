// Cldeadman is the deadman: the process that pets a node's watchdog for as long as the cluster's leader says that the node
// holds its lease, and resets the node when that ends. It is small on purpose: no network, no consensus, nothing it does not
// need, because it has to run when the rest of the machine hardly does.
//
// It serves one agent over a unix socket. Its safety rules are in pkg/deadman/keeper. Called as "cldeadman hold" it is the
// second holder of the watchdog's descriptor, and does nothing else.
//
// It does not promise to survive everything: it promises that whatever stops it leaves a watchdog that is petted no more.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman/holder"
	"github.com/holdfast-ha/holdfast/pkg/deadman/watchdog"
)

// version is set when a release is linked.
var version = "devel"

// options are the command line.
type options struct {
	socket  string
	backend string
	device  string
	timeout time.Duration
	holder  string
	cgroup  string
}

// holderIdle is how long a holder process that was given nothing waits.
const holderIdle = 30 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cldeadman:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		fmt.Println("cldeadman", version)
		return nil
	}
	if len(args) > 0 && args[0] == "hold" {
		return hold(args[1:])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	warnings, err := becomeRealtime(o) // does not return the first time: executes this program again
	if err != nil {
		return err
	}
	return serve(o, warnings)
}

func parse(args []string) (options, error) {
	o := options{}
	f := flag.NewFlagSet("cldeadman", flag.ExitOnError)
	f.StringVar(&o.socket, "socket", "/run/holdfast/deadman.sock", "unix socket for the agent")
	f.StringVar(&o.backend, "backend", watchdog.Kernel, "what stands behind: watchdog, reboot, lab or halt")
	f.StringVar(&o.device, "device", "", "the watchdog device, or the lab's socket (default /dev/watchdog)")
	f.DurationVar(&o.timeout, "watchdog-timeout", 0, "timeout to ask the device for at the start; 0 leaves the device's own")
	f.StringVar(&o.holder, "holder-socket", "", "unix socket of the descriptor's second holder, which is started if nobody serves it; "+
		"empty: systemd's descriptor store if there is one, else nobody, and the timeout counts twice")
	f.StringVar(&o.cgroup, "cgroup", "leave", "leave: leave the caller's cgroup unless systemd made it for this service; stay: stay in it")
	_ = f.Parse(args) // exits on errors
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.timeout < 0 || o.timeout > time.Hour {
		return o, fmt.Errorf("--watchdog-timeout %v is not between 0 and 1h", o.timeout)
	}
	if o.cgroup != "leave" && o.cgroup != "stay" {
		return o, fmt.Errorf("--cgroup is %q: it must be leave or stay", o.cgroup)
	}
	if o.device == "" {
		o.device = watchdog.DefaultPath(o.backend)
	}
	return o, nil
}

// label names the device for a successor that finds its descriptor.
func (o options) label() string { return strings.TrimSuffix(o.backend+" "+o.device, " ") }

func hold(args []string) error {
	f := flag.NewFlagSet("cldeadman hold", flag.ExitOnError)
	socket := f.String("socket", "", "unix socket to serve")
	_ = f.Parse(args) // exits on errors
	if *socket == "" {
		return fmt.Errorf("hold needs --socket")
	}
	ignoreSignals() // it ends when its deadman says so
	return holder.Run(*socket, holderIdle)
}
