package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A node is one machine of the lab. Orders to one node run one after another; different nodes do not wait for each other.
type node struct {
	sup   *supervisor
	name  string
	index int    // counted from 1
	dir   string // its private directories

	orders sync.Mutex // held through boot, crash, pause and the like

	mu       sync.Mutex // guards what follows, held briefly
	state    string
	since    time.Time
	boots    int
	bootID   string
	run      *running // nil: nothing runs
	cables   []cable
	agent    lab.DaemonStatus
	deadman  lab.DaemonStatus
	reboot   *time.Timer // a boot that is due after a reset
	watchdog *watchdog
	paused   pausedSet
	unlinked unlinked     // nil before the first end
	powerWay net.Listener // how the node reaches the power switch
}

// running is one boot of a node.
type running struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn
	exited chan struct{} // closed when the init is reaped
	cgroup string
	gone   *goneMarker
}

// unlinked is closed when the ports of the node's last boot are deleted.
type unlinked chan struct{}

// nodeTimeout bounds the boot of a node and the end of its processes.
const nodeTimeout = 30 * time.Second

// The private directories of a node, by their place inside it.
var nodeDirs = map[string]string{
	"etc": "/etc/holdfast", "lib": "/var/lib/holdfast", "log": "/var/log/holdfast", "run": "/run/holdfast",
}

func newNode(s *supervisor, index int) (*node, error) {
	n := &node{sup: s, name: lab.NodeName(index), index: index, state: lab.StateOff, since: time.Now(),
		cables: make([]cable, s.cfg.Ports())}
	n.dir = filepath.Join(s.dir, lab.NodesDir, n.name)
	for d := range nodeDirs {
		if err := os.MkdirAll(filepath.Join(n.dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make the directories of %s: %w", n.name, err)
		}
	}
	n.watchdog = newWatchdog(n)
	return n, nil
}

func (n *node) status() lab.NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := lab.NodeStatus{Name: n.name, State: n.state, Boots: n.boots, BootID: n.bootID, Since: n.since,
		Agent: n.agent, Deadman: n.deadman, Watchdog: n.watchdog.status()}
	if n.run != nil {
		st.PID = n.run.cmd.Process.Pid
	}
	for i, c := range n.cables {
		st.Links = append(st.Links, lab.LinkStatus{Network: lab.NetworkName(n.sup.cfg.PortNetwork(i + 1)), Interface: lab.InterfaceName(i + 1),
			Address: n.ownAddress(i + 1), CutIn: c.cutIn, CutOut: c.cutOut, Unplugged: c.unplugged})
	}
	return st
}

// ownAddress is what the interface at a port has, with its prefix length; the first on each network has one.
func (n *node) ownAddress(port int) string {
	if port > n.sup.cfg.Networks {
		return ""
	}
	return n.sup.cfg.Address(n.index, port) + "/24"
}

func (n *node) setState(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state, n.since = state, time.Now()
}

func (n *node) getState() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func (n *node) current() *running {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run
}

func (n *node) event(kind, detail string) {
	n.sup.events.add(lab.Event{Node: n.name, Kind: kind, Detail: detail})
}

// tell sends an order to the node's init, with descriptors when it needs some.
func (n *node) tell(m toInit, files ...*os.File) error {
	n.mu.Lock()
	run, state := n.run, n.state
	n.mu.Unlock()
	if run == nil || state == lab.StateBooting {
		return fmt.Errorf("%s is %s", n.name, state)
	}
	if err := send(run.conn, m, files...); err != nil {
		return fmt.Errorf("reach the init of %s: %w", n.name, err)
	}
	return nil
}

// boot starts the node. It fails if the node runs already; a node whose power was off is switched on.
func (n *node) boot(why string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	return n.bootLocked(why)
}

func (n *node) bootLocked(why string) (err error) {
	if n.current() != nil {
		return fmt.Errorf("%s runs already (it is %s)", n.name, n.getState())
	}
	if n.sup.ctx.Err() != nil && why != "lab up" {
		return errors.New("the lab is going down")
	}
	n.cancelReboot()
	n.awaitUnlinked()
	id, err := n.prepareDirectories()
	if err != nil {
		return err
	}
	n.event("boot", why)
	run, err := n.fork()
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.run, n.state, n.since, n.bootID = run, lab.StateBooting, time.Now(), id
	n.boots++
	n.agent, n.deadman = lab.DaemonStatus{}, lab.DaemonStatus{}
	n.mu.Unlock()
	go n.await(run)
	if err = n.bringUp(run); err != nil {
		return fmt.Errorf("boot %s: %w", n.name, errors.Join(err, n.endLocked(run)))
	}
	n.setState(lab.StateUp)
	n.sup.events.add(lab.Event{Node: n.name, Kind: "up", Detail: "boot " + id[:8], PID: run.cmd.Process.Pid})
	return nil
}

// awaitUnlinked waits until the ports of the node's last boot are gone, so that there is room for new ones.
func (n *node) awaitUnlinked() {
	n.mu.Lock()
	gone := n.unlinked
	n.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// prepareDirectories empties what a boot empties, and writes the boot's id and the node file.
func (n *node) prepareDirectories() (bootID string, err error) {
	run := filepath.Join(n.dir, "run")
	if err := emptyDirectory(run); err != nil {
		return "", fmt.Errorf("empty the run directory of %s: %w", n.name, err)
	}
	bootID = newBootID()
	if err := os.WriteFile(filepath.Join(run, "boot_id"), []byte(bootID+"\n"), 0o444); err != nil {
		return "", fmt.Errorf("write the boot id of %s: %w", n.name, err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "etc", "node.yaml"), []byte(nodeFile(n.sup.cfg, n.index)), 0o644); err != nil {
		return "", fmt.Errorf("write the node file of %s: %w", n.name, err)
	}
	if err := n.watchdog.listen(run); err != nil {
		return "", err
	}
	if n.sup.cfg.Fence {
		return bootID, n.sup.power.listen(n, run)
	}
	return bootID, nil
}

func emptyDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func newBootID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// fork starts the node's init in namespaces of its own. It waits there for its orders.
func (n *node) fork() (*running, error) {
	here, there, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer there.Close()
	console, err := os.OpenFile(filepath.Join(n.dir, "log", "console.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		here.Close()
		return nil, fmt.Errorf("open the console of %s: %w", n.name, err)
	}
	defer console.Close()
	cmd := exec.Command("/proc/self/exe", "node-init")
	cmd.Args[0] = "init-" + n.name
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=2", "GOGC=50"}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{there}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	n.sup.forks.do(func() { err = cmd.Start() })
	if err != nil {
		here.Close()
		return nil, fmt.Errorf("make the namespaces of %s (PID, mount, network, UTS, IPC): %w", n.name, err)
	}
	return &running{cmd: cmd, conn: here, exited: make(chan struct{})}, nil
}

// bringUp gives a fresh init its cgroup, its links and its orders, and waits until it says that it is ready.
func (n *node) bringUp(run *running) error {
	pid := run.cmd.Process.Pid
	cgroup, err := makeCgroup(n.sup.cfg, n.name, pid)
	if err != nil {
		n.sup.log.Warn("a node runs without a cgroup of its own", "node", n.name, "error", err)
	}
	run.cgroup = cgroup
	n.mu.Lock()
	cables := append([]cable(nil), n.cables...)
	n.mu.Unlock()
	if err := n.sup.fabric.connect(n.index, pid, cables); err != nil {
		return err
	}
	if err := send(run.conn, n.initConfig(cgroup != "")); err != nil {
		return fmt.Errorf("send the node's init its configuration: %w", err)
	}
	first := make(chan error, 1)
	go n.listenToInit(run, first)
	select {
	case err = <-first:
	case <-run.exited:
		err = errors.New("the init ended")
		select {
		case e := <-first:
			err = errors.Join(e, err)
		default:
		}
	case <-time.After(nodeTimeout):
		err = fmt.Errorf("the init is not ready after %v", nodeTimeout)
	}
	if err != nil {
		return fmt.Errorf("%w (see %s)", err, filepath.Join(n.dir, "log", "console.log"))
	}
	if err := writeBaseMounts(pid, filepath.Join(n.dir, baseMounts)); err != nil {
		return err
	}
	run.gone, err = markRoot(pid)
	return err
}

func (n *node) initConfig(cgroup bool) initConfig {
	cfg := n.sup.cfg
	c := initConfig{Hostname: n.name, NodeDir: n.dir, SharedDir: filepath.Join(n.sup.dir, lab.SharedDir), BinDir: cfg.BinDir,
		LabDir: n.sup.dir, Cgroup: cgroup, Hosts: hostsFile(cfg)}
	for k := 1; k <= cfg.Ports(); k++ {
		c.Addresses = append(c.Addresses, n.ownAddress(k))
	}
	if cfg.Daemons {
		c.Daemons = daemons(cfg)
	}
	return c
}

func hostsFile(cfg *lab.Config) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for i, name := range cfg.NodeNames() {
		for k := 1; k <= cfg.Networks; k++ {
			alias := name
			if k > 1 {
				alias = name + "-" + lab.NetworkName(k)
			}
			fmt.Fprintf(&b, "%s %s\n", cfg.Address(i+1, k), alias)
		}
	}
	return b.String()
}

// listenToInit takes the reports of one boot's init. The first, or its absence, goes to first.
func (n *node) listenToInit(run *running, first chan<- error) {
	for {
		var m fromInit
		files, err := receive(run.conn, &m)
		closeAll(files)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				n.sup.log.Warn("the init of a node cannot be understood", "node", n.name, "error", err)
			}
			return
		}
		switch {
		case m.Ready, m.Error != "":
			var err error
			if m.Error != "" {
				err = errors.New(m.Error)
			}
			select {
			case first <- err:
			default:
			}
		case m.Daemon != "":
			n.noteDaemon(run, m)
		}
	}
}

func (n *node) noteDaemon(run *running, m fromInit) {
	n.mu.Lock()
	if n.run == run {
		d := &n.agent
		if m.Daemon == "deadman" {
			d = &n.deadman
		}
		d.PID, d.Last = m.PID, m.Detail
		if m.PID != 0 {
			d.Starts++
		}
	}
	n.mu.Unlock()
	if m.PID == 0 {
		n.event("daemon", m.Daemon+" "+m.Detail)
	}
}

// await reaps the init of one boot. An end that nobody ordered (reboot(2) inside, a fault) counts as a reset.
func (n *node) await(run *running) {
	err := run.cmd.Wait()
	close(run.exited)
	run.conn.Close()
	n.orders.Lock()
	defer n.orders.Unlock()
	if n.current() != run || n.getState() == lab.StateBooting {
		return
	}
	how := "ended"
	if err != nil {
		how = err.Error()
	}
	if err := n.crashLocked("reset", "the init of the node "+how); err != nil {
		n.sup.log.Error("a node that ended was not cleared away", "node", n.name, "error", err)
	}
	n.scheduleReboot()
}

// crash ends the node as a loss of power would, and returns when nothing of it is left. A node that is down stays as it is.
func (n *node) crash(kind, why string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	if n.current() == nil {
		return fmt.Errorf("%s does not run (it is %s)", n.name, n.getState())
	}
	return n.crashLocked(kind, why)
}

func (n *node) crashLocked(kind, why string) error {
	run := n.current()
	if run == nil {
		return nil
	}
	begin := time.Now()
	err := n.endLocked(run)
	n.sup.events.add(lab.Event{Time: begin, Node: n.name, Kind: kind, Detail: why, Took: time.Since(begin)})
	if err != nil {
		return fmt.Errorf("crash %s: %w", n.name, err)
	}
	return nil
}

// endLocked takes everything of a boot away: first the links, so that nothing that dies can say so, then the processes, and it
// waits for the file systems. The node is down afterwards, whatever the errors. Its ports are deleted behind its back: nothing
// uses them any more, and the kernel takes its time.
func (n *node) endLocked(run *running) error {
	pid := run.cmd.Process.Pid
	errs := []error{n.sup.fabric.silence(n.index)}
	disks, tasks := mountedDisks(pid), doomed(pid) // now, for one had better not look at /proc while they die
	_ = run.cmd.Process.Kill()                     // fails only when it is dead already
	killCgroup(run.cgroup)
	hurry(tasks)
	n.watchdog.reset()
	gone := make(unlinked)
	go func() {
		defer close(gone)
		if err := n.sup.fabric.disconnect(n.index); err != nil {
			n.sup.log.Error("the links of a node are not gone", "node", n.name, "error", err)
		}
	}()
	select {
	case <-run.exited:
	case <-time.After(nodeTimeout):
		errs = append(errs, fmt.Errorf("its processes did not end within %v", nodeTimeout))
	}
	errs = append(errs, run.gone.wait(nodeTimeout), awaitDisks(disks, nodeTimeout), removeCgroup(run.cgroup))
	n.mu.Lock()
	n.run, n.state, n.since = nil, lab.StateDown, time.Now()
	n.agent, n.deadman = lab.DaemonStatus{}, lab.DaemonStatus{}
	n.paused, n.unlinked = nil, gone
	n.mu.Unlock()
	return errors.Join(errs...)
}

// doomed lists the threads of a process and of all below it, whose sessions get the processor before others from now on.
func doomed(pid int) []int {
	pids, err := descendants(pid)
	if err != nil {
		return nil
	}
	var list []int
	for _, p := range pids {
		setAutogroup(p, -20)
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(p) + "/task")
		if err != nil {
			continue // it has just ended
		}
		for _, t := range tasks {
			if tid, err := strconv.Atoi(t.Name()); err == nil {
				list = append(list, tid)
			}
		}
	}
	return list
}

// hurry lets dying threads die before all others: on a busy machine they would wait for their turn. It also takes real-time
// scheduling from those that have it, which is not good to die under (see setNice).
func hurry(tasks []int) {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -20}
	for _, tid := range tasks {
		_ = unix.SchedSetAttr(tid, attr, 0) // it may be dead, and an ordinary user may not
	}
}

// expired is called by the watchdog, when it fires or is told to.
func (n *node) expired(kind, why string) {
	n.orders.Lock()
	defer n.orders.Unlock()
	if n.current() == nil {
		return
	}
	if err := n.crashLocked(kind, why); err != nil {
		n.sup.log.Error("a reset was not complete", "node", n.name, "error", err)
	}
	n.scheduleReboot()
}

// scheduleReboot boots the node after the lab's delay, if the lab does that. Called with orders held.
func (n *node) scheduleReboot() {
	if !n.sup.cfg.AutoBoot || n.sup.ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var t *time.Timer
	t = time.AfterFunc(n.sup.cfg.RebootDelay, func() {
		n.orders.Lock()
		defer n.orders.Unlock()
		n.mu.Lock()
		due := n.reboot == t
		n.mu.Unlock()
		if !due || n.current() != nil {
			return
		}
		if err := n.bootLocked("after a reset"); err != nil {
			n.sup.log.Error("a node does not boot again", "node", n.name, "error", err)
			n.event("boot_failed", err.Error())
		}
	})
	n.reboot = t
}

func (n *node) cancelReboot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reboot != nil {
		n.reboot.Stop()
		n.reboot = nil
	}
}

func (n *node) setPower(what string) error {
	switch what {
	case "off":
		return n.powerOff("ordered")
	case "on":
		return n.powerOn("ordered")
	}
	return fmt.Errorf("power %q: want on or off", what)
}

// powerOff returns when nothing of the node is left; it stays off until somebody switches it on.
func (n *node) powerOff(why string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	n.cancelReboot()
	err := n.crashLocked("power_off", why)
	n.setState(lab.StateOff)
	return err
}

// powerOn boots a node that does not run, and does nothing to one that does.
func (n *node) powerOn(why string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	if n.current() != nil {
		return nil
	}
	n.event("power_on", why)
	return n.bootLocked("power on")
}

func (n *node) poweredOn() bool { return n.getState() != lab.StateOff }

// spoil cuts, unplugs or heals the links of the node: one interface, one network or all.
func (n *node) spoil(req lab.Request) error {
	ports, err := n.ports(req.Network)
	if err != nil {
		return err
	}
	n.orders.Lock()
	defer n.orders.Unlock()
	for _, k := range ports {
		n.mu.Lock()
		before := n.cables[k-1]
		n.mu.Unlock()
		after, err := change(before, req)
		if err != nil {
			return err
		}
		if n.current() != nil {
			if err := n.sup.fabric.apply(n.index, k, after); err != nil {
				return err
			}
		}
		n.mu.Lock()
		n.cables[k-1] = after
		n.mu.Unlock()
		if after != before {
			n.event(req.Op, strings.TrimSpace(lab.NetworkName(n.sup.cfg.PortNetwork(k))+" "+lab.InterfaceName(k)+" "+req.Direction))
		}
	}
	return nil
}

// ports lists the links that a network or an interface names; all for no name.
func (n *node) ports(name string) ([]int, error) {
	var out []int
	for k := 1; k <= n.sup.cfg.Ports(); k++ {
		if name == "" || name == lab.InterfaceName(k) || name == lab.NetworkName(n.sup.cfg.PortNetwork(k)) {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no network or interface %q in this lab (it has net1 to %s, eth0 to %s)", name,
			lab.NetworkName(n.sup.cfg.Networks), lab.InterfaceName(n.sup.cfg.Ports()))
	}
	return out, nil
}

func change(c cable, req lab.Request) (cable, error) {
	switch {
	case req.Op == lab.OpHeal:
		return cable{}, nil
	case req.Op == lab.OpUnplug:
		c.unplugged = true
	case req.Direction == "in":
		c.cutIn = true
	case req.Direction == "out":
		c.cutOut = true
	case req.Direction == "":
		c.cutIn, c.cutOut = true, true
	default:
		return c, fmt.Errorf("direction %q: want in or out", req.Direction)
	}
	return c, nil
}

// kill ends one of the product's daemons with SIGKILL.
func (n *node) kill(what string) error {
	n.orders.Lock()
	defer n.orders.Unlock()
	return n.signalDaemon(what, unix.SIGKILL)
}
