package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options says what lab Up starts. Zero values mean the command's defaults.
type Options struct {
	Binary      string // path of cllab; the product's daemons are beside it
	BaseDir     string // directory of the labs; empty: BaseDir()
	Name        string
	Nodes       int
	Networks    int
	Links       int // interfaces of each node on each network; only the first has an address
	Subnet      string
	Profile     string
	ClusterFile string
	Share       []string // files to put into /shared before the cluster is formed
	Fence       bool
	FenceDelay  time.Duration
	Bare        bool // nodes and daemons, but no cluster
	NoDaemons   bool // nodes only
	NoAutoBoot  bool
	RebootDelay time.Duration
	System      string    // of the executors: linux or aix; empty: linux
	CommandDir  string    // of the commands of AIX, as the nodes see it
	Detached    bool      // the lab outlives this process; otherwise it goes down when this process ends, however that ends
	Progress    io.Writer // what `cllab up` says meanwhile; nil: nowhere
}

// A Lab is a running lab.
type Lab struct {
	Client
}

// Open returns the lab in a directory, without asking whether it runs.
func Open(dir string) *Lab { return &Lab{Client{Dir: dir}} }

// Up starts a lab by the command and returns when it is as `cllab up` leaves it.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if o.Binary == "" {
		return nil, errors.New("the path of cllab is not given")
	}
	if o.Name == "" {
		o.Name = "lab"
	}
	if o.BaseDir == "" {
		o.BaseDir = BaseDir()
	}
	cmd := exec.CommandContext(ctx, o.Binary, o.arguments()...)
	cmd.Env = append(os.Environ(), "HOLDFAST_LAB_DIR="+o.BaseDir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var said bytes.Buffer
	cmd.Stderr = &said
	if o.Progress != nil {
		cmd.Stderr = io.MultiWriter(&said, o.Progress)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("start the lab %s: %w: %s", o.Name, err, strings.TrimSpace(said.String()))
	}
	return Open(filepath.Join(o.BaseDir, o.Name)), nil
}

func (o *Options) arguments() []string {
	args := []string{"up", "--name", o.Name}
	add := func(name, value string, set bool) {
		if set {
			args = append(args, "--"+name+"="+value)
		}
	}
	add("nodes", strconv.Itoa(o.Nodes), o.Nodes != 0)
	add("networks", strconv.Itoa(o.Networks), o.Networks != 0)
	add("links", strconv.Itoa(o.Links), o.Links != 0)
	add("subnet", o.Subnet, o.Subnet != "")
	add("profile", o.Profile, o.Profile != "")
	add("cluster", o.ClusterFile, o.ClusterFile != "")
	for _, f := range o.Share {
		add("share", f, true)
	}
	add("fence", "true", o.Fence)
	add("fence-delay", o.FenceDelay.String(), o.FenceDelay != 0)
	add("bare", "true", o.Bare)
	add("no-daemons", "true", o.NoDaemons)
	add("no-autoboot", "true", o.NoAutoBoot)
	add("reboot-delay", o.RebootDelay.String(), o.RebootDelay != 0)
	add("system", o.System, o.System != "")
	add("command-dir", o.CommandDir, o.CommandDir != "")
	add("tie", strconv.Itoa(os.Getpid()), !o.Detached)
	return args
}

// Down ends the lab and waits until its processes are gone. With keep its directory stays, for its logs.
func (l *Lab) Down(ctx context.Context, keep bool) error {
	if err := l.order(ctx, Request{Op: OpDown}); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	for l.locked() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the lab: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if keep {
		return nil
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("remove the lab's directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(l.Dir)) // when this was the last lab in it
	return nil
}

// SharedPath is the path outside of a file that the nodes see below /shared.
func (l *Lab) SharedPath(name string) string { return filepath.Join(l.Dir, SharedDir, name) }

// NodePath is the path outside of a file in one of the node's private directories: "etc", "lib", "log" or "run", which the node
// sees as /etc/holdfast, /var/lib/holdfast, /var/log/holdfast and /run/holdfast.
func (l *Lab) NodePath(node, dir, name string) string {
	return filepath.Join(l.Dir, NodesDir, node, dir, name)
}

func (l *Lab) order(ctx context.Context, req Request) error {
	_, err := l.Call(ctx, req)
	return err
}

// Crash ends a node as a loss of power does and returns when nothing of it is left. It stays down until Boot.
func (l *Lab) Crash(ctx context.Context, node string) error {
	return l.order(ctx, Request{Op: OpCrash, Node: node})
}

// Boot boots a node that is down and returns when its init has arranged it; its daemons are starting then.
func (l *Lab) Boot(ctx context.Context, node string) error {
	return l.order(ctx, Request{Op: OpBoot, Node: node})
}

// Pause stops all processes of a node, or the named daemons ("agent", "deadman") only.
func (l *Lab) Pause(ctx context.Context, node string, daemons ...string) error {
	return l.each(ctx, OpPause, node, daemons)
}

// Resume continues what Pause stopped.
func (l *Lab) Resume(ctx context.Context, node string, daemons ...string) error {
	return l.each(ctx, OpResume, node, daemons)
}

func (l *Lab) each(ctx context.Context, op, node string, what []string) error {
	if len(what) == 0 {
		what = []string{""}
	}
	for _, w := range what {
		if err := l.order(ctx, Request{Op: op, Node: node, What: w}); err != nil {
			return err
		}
	}
	return nil
}

// Kill kills a daemon of a node ("agent" or "deadman") with signal 9.
func (l *Lab) Kill(ctx context.Context, node, daemon string) error {
	return l.order(ctx, Request{Op: OpKill, Node: node, What: daemon})
}

// Directions of Cut.
const (
	Both = ""
	In   = "in"  // nothing reaches the node
	Out  = "out" // nothing leaves the node
)

// Cut cuts a node off a network in silence, or one of its interfaces (eth0) only; an empty network means all.
func (l *Lab) Cut(ctx context.Context, node, network, direction string) error {
	return l.order(ctx, Request{Op: OpCut, Node: node, Network: network, Direction: direction})
}

// Unplug pulls a node's cables of a network, or of one interface (eth0), which the node sees; an empty network means all.
func (l *Lab) Unplug(ctx context.Context, node, network string) error {
	return l.order(ctx, Request{Op: OpUnplug, Node: node, Network: network})
}

// Heal undoes Cut and Unplug of a node, or of all when node is empty.
func (l *Lab) Heal(ctx context.Context, node string) error {
	return l.order(ctx, Request{Op: OpHeal, Node: node})
}

// HealLink undoes Cut and Unplug of a node's links of one network, or of one interface.
func (l *Lab) HealLink(ctx context.Context, node, network string) error {
	return l.order(ctx, Request{Op: OpHeal, Node: node, Network: network})
}

// PowerOff switches a node off; returns when nothing of it is left. PowerOn boots it.
func (l *Lab) PowerOff(ctx context.Context, node string) error {
	return l.order(ctx, Request{Op: OpPower, Node: node, What: "off"})
}

// PowerOn boots a node that does not run.
func (l *Lab) PowerOn(ctx context.Context, node string) error {
	return l.order(ctx, Request{Op: OpPower, Node: node, What: "on"})
}

// PowerReach sets whether the power switch answers to a node, or to all when node is empty.
func (l *Lab) PowerReach(ctx context.Context, node string, reachable bool) error {
	unreachable := !reachable
	return l.order(ctx, Request{Op: OpSwitch, Node: node, Unreachable: &unreachable})
}

// PowerDelay sets how long the power switch takes for each order.
func (l *Lab) PowerDelay(ctx context.Context, d time.Duration) error {
	return l.order(ctx, Request{Op: OpSwitch, Delay: &d})
}

// A Result is what a command in a node left.
type Result struct {
	Code           int
	Stdout, Stderr string // at most 16 MiB each
}

// Run runs a command in a node and collects its output. The error is set only when the exit status is not the command's own.
func (l *Lab) Run(ctx context.Context, node string, argv ...string) (Result, error) {
	return l.RunInput(ctx, node, "", argv...)
}

// RunInput is Run with a text on standard input.
func (l *Lab) RunInput(ctx context.Context, node, input string, argv ...string) (Result, error) {
	var files [3]*os.File
	for i := range files {
		f, err := os.CreateTemp("", "holdfast-lab")
		if err != nil {
			return Result{Code: ExitLab}, fmt.Errorf("make a file for the command's output: %w", err)
		}
		defer f.Close()
		_ = os.Remove(f.Name())
		files[i] = f
	}
	if _, err := files[0].WriteAt([]byte(input), 0); err != nil {
		return Result{Code: ExitLab}, fmt.Errorf("write the command's input: %w", err)
	}
	code, err := l.Exec(ctx, node, argv, ExecOptions{Stdin: files[0], Stdout: files[1], Stderr: files[2]})
	r := Result{Code: code}
	for i, to := range []*string{&r.Stdout, &r.Stderr} {
		b, e := io.ReadAll(io.NewSectionReader(files[i+1], 0, 16<<20))
		*to, err = string(b), errors.Join(err, e)
	}
	return r, err
}
