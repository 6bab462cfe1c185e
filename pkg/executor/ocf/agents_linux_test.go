package ocf_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/ocf"
)

// TestMain gives root's tests namespaces of their own, so that agents can have addresses, mounts and /run for themselves.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	inside, status := executortest.InNamespaces("/run", "/var/spool", "/var/mail")
	if !inside {
		os.Exit(status)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "set lo up: %v %s\n", err, out)
	}
	os.Exit(m.Run())
}

// needAgents skips a test on a machine that cannot run the agents of the distribution.
func needAgents(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("resource agents want root")
	}
	if _, err := os.Stat(ocf.DefaultRoot + "/resource.d/heartbeat/Dummy"); err != nil {
		t.Skip("the package resource-agents is not installed")
	}
}

// A specimen is one agent of the distribution, as it comes, with what its resource needs and where its effect can be seen.
type specimen struct {
	agent   string
	needs   []string // programs
	prepare func(t *testing.T, dir string) map[string]string
	present func(t *testing.T, dir string) bool // nil: the agent has no effect to be seen
	depth   int                                 // the deepest look that its parameters allow
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

func says(command, text string) func(*testing.T, string) bool {
	return func(t *testing.T, dir string) bool {
		out, _ := exec.CommandContext(t.Context(), "/bin/sh", "-c", strings.ReplaceAll(command, "DIR", dir)).CombinedOutput()
		return strings.Contains(string(out), strings.ReplaceAll(text, "DIR", dir))
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func answers(address string) func(*testing.T, string) bool {
	return func(t *testing.T, _ string) bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
}

// specimens are agents of several kinds: addresses, routes, file systems, links, processes, servers, mails.
var specimens = []specimen{
	{agent: "Dummy", prepare: func(_ *testing.T, dir string) map[string]string { return map[string]string{"state": dir + "/state"} },
		present: says("ls DIR", "state")},
	{agent: "Delay", prepare: func(*testing.T, string) map[string]string {
		return map[string]string{"startdelay": "0", "stopdelay": "0", "mondelay": "0"}
	}},
	{agent: "anything", prepare: func(_ *testing.T, dir string) map[string]string {
		return map[string]string{"binfile": "/bin/sleep", "cmdline_options": "1234567", "pidfile": dir + "/pid"}
	}, present: says("cat DIR/pid && ps -o args= -p $(cat DIR/pid)", "sleep 1234567")},
	{agent: "IPaddr2", needs: []string{"ip"}, prepare: func(t *testing.T, _ string) map[string]string {
		sh(t, "ip link add d0 type veth peer name d0p; ip link set d0p up; ip link set d0 up; ip addr add 10.5.0.1/24 dev d0")
		return map[string]string{"ip": "10.5.0.100", "cidr_netmask": "24", "nic": "d0"}
	}, present: says("ip -4 addr show", "10.5.0.100/24")},
	{agent: "IPsrcaddr", needs: []string{"ip"}, prepare: func(t *testing.T, _ string) map[string]string {
		sh(t, "ip link add d1 type veth peer name d1p; ip link set d1p up; ip link set d1 up; ip addr add 10.6.0.1/24 dev d1; ip addr add 10.6.0.9/24 dev d1")
		return map[string]string{"ipaddress": "10.6.0.9", "destination": "10.6.0.0/24", "cidr_netmask": "24"}
	}, present: says("ip route show 10.6.0.0/24", "src 10.6.0.9")},
	{agent: "Route", needs: []string{"ip"}, prepare: func(t *testing.T, _ string) map[string]string {
		sh(t, "ip link add d2 type veth peer name d2p; ip link set d2p up; ip link set d2 up; ip addr add 10.7.0.1/24 dev d2")
		return map[string]string{"destination": "10.99.0.0/24", "device": "d2"}
	}, present: says("ip route", "10.99.0.0/24")},
	{agent: "Filesystem", needs: []string{"mkfs.ext4", "losetup", "fuser"}, prepare: func(t *testing.T, dir string) map[string]string {
		sh(t, "truncate -s 16M "+dir+"/image && mkfs.ext4 -q -F "+dir+"/image && mkdir "+dir+"/mnt")
		return map[string]string{"device": dir + "/image", "directory": dir + "/mnt", "fstype": "ext4", "options": "loop"}
	}, present: says("cat /proc/self/mounts", " DIR/mnt ext4 ")},
	{agent: "symlink", prepare: func(t *testing.T, dir string) map[string]string {
		write(t, dir+"/target", "x")
		return map[string]string{"link": dir + "/link", "target": dir + "/target"}
	}, present: says("ls -l DIR", "link -> ")},
	{agent: "exportfs", needs: []string{"exportfs"}, prepare: func(t *testing.T, dir string) map[string]string {
		sh(t, "mkdir -p /run/nfs "+dir+"/export && mount -t tmpfs tmpfs /var/lib/nfs && mkdir /var/lib/nfs/v4recovery && touch /var/lib/nfs/etab /var/lib/nfs/rmtab")
		return map[string]string{"clientspec": "10.5.0.0/24", "options": "rw", "directory": dir + "/export", "fsid": "7"}
	}, present: says("cat /var/lib/nfs/etab", "DIR/export")},
	{agent: "nginx", needs: []string{"nginx", "curl"}, prepare: func(t *testing.T, dir string) map[string]string {
		write(t, dir+"/nginx.conf", "pid "+dir+"/nginx.pid; error_log "+dir+"/error.log; events {}\nhttp { access_log off; client_body_temp_path "+dir+"/b; proxy_temp_path "+dir+
			"/p; fastcgi_temp_path "+dir+"/f; uwsgi_temp_path "+dir+"/u; scgi_temp_path "+dir+"/s; server { listen 127.0.0.1:8099; location / { stub_status; } } }\n")
		return map[string]string{"configfile": dir + "/nginx.conf", "status10url": "http://127.0.0.1:8099/", "port": "8099",
			"test20url": "http://127.0.0.1:8099/", "test20regex": "Active"}
	}, present: answers("127.0.0.1:8099"), depth: 20},
	{agent: "rsyncd", needs: []string{"rsync"}, prepare: func(t *testing.T, dir string) map[string]string {
		write(t, dir+"/rsyncd.conf", "pid file = "+dir+"/rsyncd.pid\nport = 8730\naddress = 127.0.0.1\n[x]\npath = "+dir+"\n")
		return map[string]string{"conffile": dir + "/rsyncd.conf", "binpath": "/usr/bin/rsync"}
	}, present: answers("127.0.0.1:8730")},
	{agent: "pgsql", needs: []string{"pg_ctlcluster"}, prepare: func(t *testing.T, dir string) map[string]string {
		bin := strings.TrimSpace(sh(t, "ls -d /usr/lib/postgresql/*/bin | tail -1"))
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		data := dir + "/pg"
		if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, uid, -1)); err != nil {
			t.Fatal(err)
		}
		sh(t, "cd / && su postgres -c '"+bin+"/initdb -D "+data+" --no-sync -A trust >/dev/null' && mkdir -p /run/postgresql && chown postgres /run/postgresql")
		return map[string]string{"pgctl": bin + "/pg_ctl", "psql": bin + "/psql", "pgdata": data, "pgport": "5499", "socketdir": "/run/postgresql",
			"start_opt": "-c fsync=off -h 127.0.0.1", "logfile": data + "/log"}
	}, present: answers("127.0.0.1:5499")},
	{agent: "MailTo", needs: []string{"mail"}, prepare: func(*testing.T, string) map[string]string {
		return map[string]string{"email": "root@localhost", "subject": "test"}
	}},
}

// Agents of the distribution run as they come: validated, started, watched at every depth that they offer, adopted, stopped.
func TestAgentsOfTheDistribution(t *testing.T) {
	needAgents(t)
	ran := 0
	for _, s := range specimens {
		t.Run(s.agent, func(t *testing.T) {
			for _, p := range s.needs {
				if _, err := exec.LookPath(p); err != nil {
					t.Skip("not installed: ", p)
				}
			}
			dir := executortest.ScriptDir(t)
			if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the database's user must reach it
				t.Fatal(err)
			}
			r := executor.Resource{Kind: executor.KindOCF, Name: strings.ToLower(s.agent), Group: "rg",
				App: &cluster.ApplicationController{Name: s.agent, Agent: "ocf:heartbeat:" + s.agent, Params: s.prepare(t, dir)}}
			run := executortest.Runner(t, "")
			x := ocf.NewAgents(ocf.AgentOptions{Runner: run})
			t.Cleanup(func() { x.Stop(t.Context(), r) })
			there := func(want bool) {
				t.Helper()
				if s.present != nil && s.present(t, dir) != want {
					t.Errorf("its effect is there: %v", !want)
				}
			}
			if err := x.Validate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			there(false)
			good(t, x.Probe(t.Context(), r), executor.Stopped)
			for range 2 {
				good(t, x.Start(t.Context(), r), executor.Running)
				there(true)
				good(t, x.Start(t.Context(), r), executor.Running)
				again := ocf.NewAgents(ocf.AgentOptions{Runner: run}) // a restarted daemon
				good(t, again.Probe(t.Context(), r), executor.Running)
				for _, depth := range depths(t, run, r.App.Agent) {
					if depth > s.depth && s.depth > 0 {
						continue
					}
					good(t, x.Monitor(t.Context(), r, depth), executor.Running)
				}
				good(t, x.Stop(t.Context(), r), executor.Stopped)
				there(false)
				good(t, x.Stop(t.Context(), r), executor.Stopped)
			}
			ran++
		})
	}
	t.Logf("%d agents of %s ran", ran, ocf.DefaultRoot)
}

func good(t *testing.T, res executor.Result, want executor.Status) {
	t.Helper()
	if res.Status != want || res.Err != nil {
		t.Fatalf("%+v, wanted %s", res, want)
	}
}

// depths are those at which an agent offers to look.
func depths(t *testing.T, run *executor.Runner, agent string) []int {
	t.Helper()
	m, err := ocf.Describe(t.Context(), run, "", agent)
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, a := range m.Actions {
		if a.Name == "monitor" {
			out = append(out, a.Depth)
		}
	}
	return out
}

// Every agent of the distribution describes itself in a way that can be read.
func TestMetaDataOfTheDistribution(t *testing.T) {
	needAgents(t)
	run := executortest.Runner(t, "")
	entries, err := os.ReadDir(filepath.Join(ocf.DefaultRoot, "resource.d", "heartbeat"))
	if err != nil {
		t.Fatal(err)
	}
	all, read, timed := 0, 0, 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		all++
		m, err := ocf.Describe(t.Context(), run, "", "ocf:heartbeat:"+e.Name())
		if err != nil {
			t.Logf("%s: %v", e.Name(), err)
			continue
		}
		read++
		if m.Timeout("start", 0) > 0 && m.Timeout("stop", 0) > 0 && m.Timeout("monitor", 0) > 0 {
			timed++
		}
	}
	t.Logf("%d of %d agents describe themselves, %d with the times of start, stop and monitor", read, all, timed)
	if read < all*9/10 {
		t.Error("too many cannot be read")
	}
}
