package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// upOptions is what `cllab up` takes beside the lab's configuration.
type upOptions struct {
	cfg         lab.Config
	clusterFile string
	share       []string
	bare        bool
	noDaemons   bool
	noAutoBoot  bool
	keep        bool
}

func upCommand(c *common) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab",
		Long: `Start a lab and return when its agents are up and have formed a cluster; with --cluster, when the groups of that file
are online. The lab stays until "cllab down".`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.cfg.Name = c.name
			return up(cmd.Context(), o, os.Stderr)
		}}
	f := cmd.Flags()
	f.IntVar(&o.cfg.Nodes, "nodes", 3, "number of nodes")
	f.IntVar(&o.cfg.Networks, "networks", 1, "number of networks; each node has an address in each")
	f.IntVar(&o.cfg.Links, "links", 1, "number of interfaces of each node on each network; those beyond the first have no address")
	f.StringVar(&o.cfg.Subnet, "subnet", "10.77", "first two numbers of the lab's addresses (labs do not see each other's)")
	f.StringVar(&o.cfg.Profile, "profile", "default", "timing profile of the cluster: default, fast or careful")
	f.StringVar(&o.clusterFile, "cluster", "", "cluster file to apply and bring online")
	f.StringArrayVar(&o.share, "share", nil, "file to put into /shared before the cluster is formed; may be repeated")
	f.BoolVar(&o.cfg.Fence, "fence", false, "give the nodes a way to the power switch, for the agent fence_cllab")
	f.DurationVar(&o.cfg.FenceDelay, "fence-delay", 0, "how long the power switch takes for each order")
	f.BoolVar(&o.bare, "bare", false, "boot nodes and daemons, wait until the daemons answer, but form no cluster")
	f.BoolVar(&o.noDaemons, "no-daemons", false, "boot nodes without the daemons (and form no cluster)")
	f.DurationVar(&o.cfg.RebootDelay, "reboot-delay", 2*time.Second, "from a watchdog's reset of a node to its boot")
	f.BoolVar(&o.noAutoBoot, "no-autoboot", false, "leave a node down after a watchdog's reset")
	f.StringVar(&o.cfg.System, "system", "", "whose executors the agents use: linux or aix")
	f.StringVar(&o.cfg.CommandDir, "command-dir", "", "with --system aix: directory, as nodes see it, of an emulator of AIX's commands")
	f.IntVar(&o.cfg.TiePID, "tie", 0, "take the lab down when the process with this number ends")
	f.BoolVar(&o.keep, "keep", false, "leave the lab running when the cluster cannot be formed")
	return cmd
}

// up starts a lab. Everything that fails is cleared away again, logs excepted.
func up(ctx context.Context, o upOptions, progress io.Writer) error {
	dir := lab.Dir(o.cfg.Name)
	lock, err := prepare(&o, dir)
	if err != nil {
		return err
	}
	err = startKeeper(ctx, dir, lock)
	lock.Close() // the keeper's copy holds it now
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "lab %s: %d nodes are up\n", o.cfg.Name, o.cfg.Nodes)
	if err = shareFiles(dir, o.share); err != nil {
		return errors.Join(err, down(context.WithoutCancel(ctx), dir, true))
	}
	switch {
	case o.noDaemons:
		return nil
	case o.bare:
		err = awaitAgents(ctx, lab.Client{Dir: dir}, &o.cfg)
	default:
		err = form(ctx, lab.Client{Dir: dir}, &o.cfg, o.clusterFile, progress)
	}
	if err == nil || o.keep {
		return err
	}
	clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if e := down(clearing, dir, true); e != nil {
		err = errors.Join(err, e)
	}
	return fmt.Errorf("%w\nthe lab was taken down; its logs are in %s", err, dir)
}

// shareFiles copies files into the directory that all nodes share, for example images of file systems.
func shareFiles(dir string, files []string) error {
	for _, name := range files {
		if err := copyFile(name, filepath.Join(dir, lab.SharedDir, filepath.Base(name))); err != nil {
			return fmt.Errorf("share %s: %w", name, err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// prepare checks what the lab needs and writes its configuration. The lab's lock is the caller's then.
func prepare(o *upOptions, dir string) (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.cfg.BinDir = filepath.Dir(self)
	o.cfg.Daemons, o.cfg.AutoBoot, o.cfg.Rootless = !o.noDaemons, !o.noAutoBoot, os.Getuid() != 0
	if err := o.cfg.Validate(); err != nil {
		return nil, usageError(err)
	}
	if err := missing(o); err != nil {
		return nil, err
	}
	lock, err := makeLabDir(dir)
	if err != nil {
		return nil, err
	}
	o.cfg.CgroupRoot = findCgroupRoot(o.cfg.Name)
	b, err := json.MarshalIndent(o.cfg, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, lab.ConfigFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("write the lab's configuration: %w", err)
	}
	return lock, nil
}

// missing says everything that is not there and that this lab needs.
func missing(o *upOptions) error {
	var errs []error
	if o.cfg.Daemons {
		for _, p := range append(programs(), "clmgr") {
			if _, err := os.Stat(filepath.Join(o.cfg.BinDir, p)); err != nil && !(o.bare && p == "clmgr") {
				errs = append(errs, fmt.Errorf("%s is not beside cllab in %s (make build puts it there)", p, o.cfg.BinDir))
			}
		}
	}
	if o.clusterFile != "" {
		if f, err := os.Open(o.clusterFile); err != nil {
			errs = append(errs, fmt.Errorf("read the cluster file: %w", err))
		} else {
			f.Close()
		}
	}
	for _, need := range []string{"/proc/self/ns/net", "/proc/self/ns/pid", "/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/ns/ipc"} {
		if _, err := os.Stat(need); err != nil {
			errs = append(errs, fmt.Errorf("the kernel has no such namespace: %w", err))
		}
	}
	if st, err := os.Stat(assemblyPoint); err != nil || !st.IsDir() {
		errs = append(errs, fmt.Errorf("the machine has no directory %s", assemblyPoint))
	}
	return errors.Join(errs...)
}

func programs() []string {
	var list []string
	for _, d := range daemons(nil) {
		list = append(list, d.Program)
	}
	return list
}

// makeLabDir makes the lab's directory, or takes over one whose lab is dead, and locks it. Nobody else may be able to write there.
func makeLabDir(dir string) (*os.File, error) {
	base := filepath.Dir(dir)
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the labs: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(base, &st); err != nil {
		return nil, fmt.Errorf("look at the directory of the labs %s: %w", base, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%s must be a directory of user %d that nobody else may write; set HOLDFAST_LAB_DIR to another one",
			base, os.Getuid())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	lock, err := lockIdle(dir)
	if err != nil {
		return nil, fmt.Errorf("%w; end it with: cllab down --name %s", err, filepath.Base(dir))
	}
	if err := clearRemains(dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("clear away the remains of an earlier lab: %w", err)
	}
	return lock, nil
}

// clearRemains empties the directory of a dead lab, except for the lock, which is held.
func clearRemains(dir string) error {
	if old, err := lab.ReadConfig(dir); err == nil {
		sweepQuietly(old, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lab.LockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// lockIdle takes the lock of a lab that does not run. One whose keeper is still clearing away is waited for.
func lockIdle(dir string) (*os.File, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		lock, err := takeLock(dir)
		if err == nil || time.Now().After(deadline) {
			return lock, err
		}
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		_, e := lab.Client{Dir: dir}.Status(ctx)
		cancel()
		if e == nil {
			return nil, err
		}
	}
}

// startKeeper starts the lab's processes, detached from this one, and waits until all nodes are up.
func startKeeper(ctx context.Context, dir string, lock *os.File) error {
	log, err := os.OpenFile(filepath.Join(dir, lab.LogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the lab's log: %w", err)
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "supervise", dir)
	cmd.Args[0] = "cllab"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the lab's supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM); r.Close() })
	defer stop()
	var answer ready
	err = json.NewDecoder(r).Decode(&answer)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("the lab's supervisor ended without a word; its log %s ends with:\n%s", log.Name(), tail(log.Name(), 10))
	case answer.Error != "":
		_ = cmd.Wait()
		return errors.New(answer.Error)
	}
	return nil
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// down ends a lab, living or dead, and removes its directory.
func down(ctx context.Context, dir string, keep bool) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%w: there is no directory %s", lab.ErrNotRunning, dir)
	}
	_, err := lab.Client{Dir: dir}.Call(ctx, lab.Request{Op: lab.OpDown})
	if err != nil && !errors.Is(err, lab.ErrNotRunning) {
		return err
	}
	lock, err := awaitLock(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if cfg, err := lab.ReadConfig(dir); err == nil {
		sweepQuietly(cfg, dir)
	}
	if keep {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the lab's directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(dir)) // when this was the last lab in it
	return nil
}

// awaitLock waits until the lab's keeper has ended. A keeper whose supervisor was killed, or that lost its socket, is told to.
func awaitLock(ctx context.Context, dir string) (*os.File, error) {
	for told := false; ; {
		lock, err := takeLock(dir)
		if err == nil {
			return lock, nil
		}
		if !told {
			told = true
			if b, e := os.ReadFile(filepath.Join(dir, lab.PIDFile)); e == nil {
				if pid, e := strconv.Atoi(strings.TrimSpace(string(b))); e == nil {
					_ = unix.Kill(pid, unix.SIGTERM) // the lock is held, so this is the lab's supervisor
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the end of the lab: %w", errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
