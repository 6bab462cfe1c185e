//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// need skips a test on a machine without the programs or files of a distribution's packages; CI installs them.
func need(t *testing.T, paths ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, p := range paths {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("not installed: ", p)
		}
	}
}

const agentDir = "/usr/lib/ocf/resource.d/heartbeat/"

// ocfGroup is a group of which everything is run by agents: the file system, the address, a web server whose configuration lies
// on that file system, and the application that the client asks.
const ocfGroup = `application_controllers:
  - {name: fs, agent: ocf:heartbeat:Filesystem, params: {device: /shared/app.img, directory: /app, fstype: ext4, options: loop}}
  - {name: vip, agent: ocf:heartbeat:IPaddr2, params: {ip: 10.77.1.100, cidr_netmask: 24, arp_count: 1}}
  - {name: web, agent: ocf:heartbeat:nginx, params: {configfile: /app/nginx.conf, port: 8099}}
  - name: app
    agent: ocf:heartbeat:anything
    params: {binfile: /holdfast/bin/cllab, cmdline_options: "app run --data /app/data --listen 10.77.1.100:8080 --pid-file /run/other.pid", pidfile: /run/app.pid}
    monitors: [app_mon]
application_monitors:
  - {name: app_mon, type: agent, monitor_interval: 1s, stabilization: 2s, restart_count: 3, restart_interval: 60s, failure_action: fallover}
resource_groups:
  - {name: app_rg, nodes: [node1, node2, node3], startup: OHN, fallover: FNPN, fallback: NFB, applications: [fs, vip, web, app]}
`

const nginxConf = `pid /run/nginx.pid; error_log /run/nginx.log; events {}
http { access_log off; client_body_temp_path /run/b; proxy_temp_path /run/p; fastcgi_temp_path /run/f; uwsgi_temp_path /run/u;
scgi_temp_path /run/s; server { listen 10.77.1.100:8099; location / { return 200 "$hostname\n"; } } }
`

// A group that OCF agents run alone: moved, its application killed, its node crashed, and refused what could never run.
func TestOCFAgents(t *testing.T) {
	long(t)
	t.Parallel()
	need(t, agentDir+"Filesystem", agentDir+"nginx", "nginx", "mkfs.ext4", "curl")
	w := begin(t, setup{fence: true, body: ocfGroup, content: map[string]string{"nginx.conf": nginxConf}})
	w.ask()
	web := func(node string) {
		w.t.Helper()
		w.await("the web server answers from "+node, func() string {
			r := w.run("client", "curl", "-s", "--max-time", "2", "http://10.77.1.100:8099/")
			if strings.TrimSpace(r.Stdout) != node {
				return "it says " + r.Stdout
			}
			return ""
		})
	}
	web(w.online(group))
	w.clmgr("node3", "move", "resource_group", group, "NODE=node2")
	w.answersFrom("node2")
	web("node2")

	since, pid := w.lastEvent(), w.appPID("node2")
	w.must("node2", "kill", "-9", pid)
	w.happened(since, "server_restart_complete", "node2")
	w.answersFrom("node2")
	if now := w.appPID("node2"); now == pid || now == "" {
		t.Errorf("the application's process was %s, and is %q after it was killed", pid, now)
	}

	check(t, w.Crash(w.ctx(), "node2"))
	next := w.elsewhere("node2")
	w.answersFrom(next)
	web(next)
	check(t, w.Boot(w.ctx(), "node2"))
	w.whole()

	w.refused(next, 2, []string{"redis", "promotable"}, "add", "application_controller", "r", "AGENT=ocf:heartbeat:redis")
	w.refused(next, 2, []string{"configfil", `did you mean "configfile"`}, "modify", "application_controller", "web", "PARAMS=configfil:/x")
	w.refused(next, 2, []string{"ocf:PROVIDER:TYPE"}, "add", "application_controller", "r", "AGENT=ocf:nginx")
	w.clmgr(next, "add", "application_controller", "delay", "AGENT=ocf:heartbeat:Delay", "PARAMS=startdelay:0 stopdelay:0 mondelay:0")
	w.clmgr(next, "modify", "resource_group", group, "APPLICATIONS=fs,vip,web,app,delay")
	w.happened(since, "resource_modify", next)
	w.answersFrom(next)
	if out := w.clmgr(next, "query", "application_controller", "web"); !strings.Contains(out, `AGENT="ocf:heartbeat:nginx"`) || !strings.Contains(out, "configfile:/app/nginx.conf") {
		t.Errorf("the query says\n%s", out)
	}
	w.clmgr(next, "offline", "resource_group", group)
	for _, n := range w.nodes {
		if out := w.must(n, "sh", "-c", "cat /proc/self/mounts; ip -4 addr"); strings.Contains(out, " /app ") || strings.Contains(out, "10.77.1.100") {
			t.Errorf("%s holds something of a group that is offline:\n%s", n, out)
		}
	}
	w.loserFirst()
	w.outages()
}
