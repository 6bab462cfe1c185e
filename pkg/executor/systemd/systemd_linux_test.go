package systemd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/systemd"
)

// The tests run against a systemd of their own: the machine's own binary, as process 1 of namespaces of its own.

// boot is what that systemd's process does before it becomes systemd.
const boot = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/systemd/system
mkdir -p /run/systemd/system
printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/system/default.target
exec env container=holdfast /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=no
`

// A manager is a systemd with a systemctl that speaks to it.
type manager struct {
	dir       string
	pid       int
	systemctl string
}

func newManager(t *testing.T) manager {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a systemd of one's own needs root")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed: ", err)
	}
	dir := executortest.ScriptDir(t)
	log, err := os.Create(filepath.Join(dir, "console"))
	check(t, err)
	defer log.Close()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", boot)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
		syscall.CLONE_NEWIPC | 0x02000000, /* CLONE_NEWCGROUP */ Setsid: true}
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // process 1 of its namespace: all of it ends
		_ = cmd.Wait()
	})
	m := manager{dir: dir, pid: cmd.Process.Pid}
	m.systemctl = executortest.Script(t, dir, "systemctl", fmt.Sprintf(`[ -f %s/blind ] && { echo "Failed to connect to bus: Host is down" >&2; exit 1; }
exec nsenter -t %d -a systemctl "$@"`, dir, m.pid))
	for deadline := time.Now().Add(30 * time.Second); ; {
		out, err := exec.CommandContext(t.Context(), m.systemctl, "is-system-running").CombinedOutput()
		if s := strings.TrimSpace(string(out)); s == "running" || s == "degraded" {
			return m
		}
		if time.Now().After(deadline) {
			console, _ := os.ReadFile(log.Name())
			t.Fatalf("systemd does not come up: %s %v\n%s", out, err, console)
		}
		<-time.After(20 * time.Millisecond) // systemd is another process: there is nothing to be told by
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (m manager) root(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, path) }

// daemon is a service whose process notes its number, with more settings.
func (m manager) daemon(t *testing.T, name, service string) executor.Resource {
	pid := "/run/" + name + ".pid"
	return m.unit(t, name, "Type=forking\nPIDFile="+pid+"\nExecStart=/bin/sh -c 'sleep 1000 & echo $! >"+pid+"'\n"+service, "")
}

func (m manager) unit(t *testing.T, name, service, section string) executor.Resource {
	t.Helper()
	check(t, os.WriteFile(m.root("/etc/systemd/system/"+name+".service"), []byte("[Unit]\nDefaultDependencies=no\n"+section+"[Service]\n"+service+"\n"), 0o644))
	return executor.Resource{Kind: executor.KindSystemd, Name: name, Group: "rg", App: &cluster.ApplicationController{Name: name, Agent: "systemd:" + name}}
}

func (m manager) present(_ *testing.T, r executor.Resource) bool {
	pid, err := os.ReadFile(m.root("/run/" + r.Name + ".pid"))
	if err != nil {
		return false
	}
	stat, err := os.ReadFile(m.root("/proc/" + strings.TrimSpace(string(pid)) + "/stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func (m manager) executor(t *testing.T) *systemd.Units {
	return systemd.New(systemd.Options{Runner: executortest.Runner(t, ""), Systemctl: m.systemctl, Runtime: m.root("/run/systemd/system"),
		Cgroups: m.root("/sys/fs/cgroup")})
}

func TestConformance(t *testing.T) {
	m := newManager(t)
	n := 0
	executortest.Run(t, func(t *testing.T) executortest.Subject {
		n++
		x := m.executor(t)
		name := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
		return executortest.Subject{
			Executor: x,
			Resource: func(t *testing.T, i int) executor.Resource { return m.daemon(t, name(fmt.Sprintf("app%d-", i)), "") },
			Present:  m.present,
			Invalid: func(t *testing.T) executor.Resource {
				r := m.daemon(t, name("bad"), "")
				r.App.Agent = "systemd:nowhere.service"
				return r
			},
			Slow: func(t *testing.T, start bool) executor.Resource {
				if start {
					return m.unit(t, name("slow"), "Type=oneshot\nExecStart=/bin/sleep 1000\nTimeoutStartSec=infinity", "")
				}
				return m.daemon(t, name("slow"), "ExecStop=/bin/sleep 1000\nTimeoutStopSec=infinity")
			},
			Stubborn: func(t *testing.T) executor.Resource {
				r := m.unit(t, name("stubborn"), "Type=exec\nExecStart=/bin/sleep 1000", "RefuseManualStop=yes\n")
				if res := x.Start(t.Context(), r); res.Err != nil {
					t.Fatal(res)
				}
				return r
			},
			Blind: func(t *testing.T) executor.Resource {
				check(t, os.WriteFile(m.dir+"/blind", nil, 0o644))
				t.Cleanup(func() { check(t, os.Remove(m.dir+"/blind")) })
				return m.daemon(t, name("blind"), "")
			},
		}
	})
}

func TestConformanceCatchesLiars(t *testing.T) { executortest.Mutants(t, "TestConformance") }

func expect(t *testing.T, res executor.Result, status executor.Status, says string) {
	t.Helper()
	if res.Status != status || !strings.Contains(res.Detail, says) || res.Detail == "" {
		t.Errorf("%+v, wanted %s with %q", res, status, says)
	}
}

func TestUnits(t *testing.T) {
	m := newManager(t)
	x := m.executor(t)
	show := func(t *testing.T, property, unit string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), m.systemctl, "show", "--value", "-p", property, unit).CombinedOutput()
		check(t, err)
		return strings.TrimSpace(string(out))
	}
	t.Run("systemd does not restart what the cluster runs, and does so again afterwards", func(t *testing.T) {
		r := m.daemon(t, "restarts", "Restart=always\nRestartSec=50ms")
		expect(t, x.Start(t.Context(), r), executor.Running, "started in")
		if now := show(t, "Restart", "restarts"); now != "no" {
			t.Error("Restart is ", now)
		}
		if before := show(t, "Before", "restarts"); !strings.Contains(before, "holdfast-services.service") {
			t.Error("Before is ", before)
		}
		pid, err := os.ReadFile(m.root("/run/restarts.pid"))
		check(t, err)
		check(t, exec.CommandContext(t.Context(), "nsenter", "-t", fmt.Sprint(m.pid), "-a", "kill", "-9", strings.TrimSpace(string(pid))).Run())
		waitFor(t, "the unit has failed", func() bool { return show(t, "ActiveState", "restarts") == "failed" })
		expect(t, x.Probe(t.Context(), r), executor.Stopped, "it has failed (signal)")
		if err := x.Restart(t.Context(), r, ""); err != nil {
			t.Error(err)
		}
		expect(t, x.Probe(t.Context(), r), executor.Running, "")
		expect(t, x.Stop(t.Context(), r), executor.Stopped, "stopped in")
		if now := show(t, "Restart", "restarts"); now != "always" {
			t.Error("after the stop Restart is ", now)
		}
	})
	t.Run("what a unit leaves behind is seen", func(t *testing.T) {
		r := m.unit(t, "leaves", "Type=exec\nKillMode=process\nExecStart=/bin/sh -c 'setsid sleep 1000 & exec sleep 1000'", "")
		expect(t, x.Start(t.Context(), r), executor.Running, "")
		waitFor(t, "both processes run", func() bool {
			return show(t, "TasksCurrent", "leaves") == "2" || show(t, "TasksCurrent", "leaves") == "[not set]"
		})
		res := x.Stop(t.Context(), r)
		expect(t, res, executor.Degraded, "processes of it live in")
		if res.Err == nil {
			t.Error("no error")
		}
	})
	t.Run("a unit that cannot start", func(t *testing.T) {
		r := m.unit(t, "fails", "Type=oneshot\nExecStart=/bin/false", "")
		res := x.Start(t.Context(), r)
		expect(t, res, executor.Stopped, "it has failed (exit-code)")
		if res.Err == nil {
			t.Error("no error")
		}
		expect(t, x.Stop(t.Context(), r), executor.Stopped, "")
	})
	t.Run("a unit that ends at once", func(t *testing.T) {
		r := m.unit(t, "ends", "Type=oneshot\nExecStart=/bin/true", "")
		res := x.Start(t.Context(), r)
		expect(t, res, executor.Stopped, "")
		if res.Err == nil || !strings.Contains(res.Err.Error(), "ended with 0, but") {
			t.Error(res.Err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		r := m.daemon(t, "enabled", "")
		f, err := os.OpenFile(m.root("/etc/systemd/system/enabled.service"), os.O_APPEND|os.O_WRONLY, 0)
		check(t, err)
		_, err = f.WriteString("[Install]\nWantedBy=multi-user.target\n")
		check(t, err)
		check(t, f.Close())
		check(t, exec.CommandContext(t.Context(), m.systemctl, "enable", "enabled").Run())
		masked := m.daemon(t, "masked", "")
		check(t, os.Remove(m.root("/etc/systemd/system/masked.service")))
		check(t, os.Symlink("/dev/null", m.root("/etc/systemd/system/masked.service")))
		broken := m.unit(t, "broken", "Type=simple", "")
		for _, c := range []struct {
			r    executor.Resource
			says string
		}{{r, "systemctl disable enabled.service"}, {masked, "is masked"}, {broken, "cannot load the unit broken.service (bad-setting)"}} {
			if err := x.Validate(t.Context(), c.r); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, wanted %q", err, c.says)
			}
			if res := x.Start(t.Context(), c.r); res.Err == nil || res.Status == executor.Running {
				t.Errorf("start of %s: %+v", c.r.Name, res)
			}
		}
	})
	t.Run("times are the unit's own", func(t *testing.T) {
		r := m.daemon(t, "timed", "TimeoutStartSec=1min 30s\nTimeoutStopSec=7s")
		if d := x.Limit(t.Context(), r, executor.OpStop); d != (7+5+20)*time.Second {
			t.Error("stop: ", d)
		}
		r.App.StartTimeout = time.Second
		if d := x.Limit(t.Context(), r, executor.OpStart); d != (1+7+5+20)*time.Second {
			t.Error("start: ", d)
		}
	})
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}
