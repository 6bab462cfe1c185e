// Package deploy tests the files that are delivered beside the programs: examples load, rules and dashboards name metrics that
// exist, scripts are sound, and the units keep what the deadman's safety rests on.
package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExamplesLoad(t *testing.T) {
	d, err := config.DecodeCluster("cluster.yaml", []byte(read(t, "examples/cluster.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Nodes) != 3 || len(d.ResourceGroups) != 3 || d.Settings.Profile != "default" {
		t.Errorf("the example is read as %+v", d)
	}
	demo := strings.ReplaceAll(read(t, "lab/demo.yaml"), "@BIN@", "/opt/holdfast/bin")
	if _, err := config.DecodeCluster("demo.yaml", []byte(demo)); err != nil {
		t.Error(err)
	}
	n, err := config.LoadNode("examples/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n.Name != "node1" || n.Deadman.Backend != config.BackendWatchdog {
		t.Errorf("the example is read as %+v", n)
	}
}

func TestExampleTypesLoad(t *testing.T) {
	dirs, err := filepath.Glob("examples/types/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		r, err := config.DecodeResourceType(dir, []byte(read(t, filepath.Join(dir, "type.yaml"))))
		if err != nil || r.Name != filepath.Base(dir) {
			t.Errorf("%s: %+v, %v", dir, r, err)
		}
	}
}

// A reader learns from the example what can be said: every key of the cluster file stands in it, if only as a comment.
func TestTheExampleShowsEveryKey(t *testing.T) {
	text := read(t, "examples/cluster.yaml")
	for key := range strings.FieldsSeq(`name nodes addresses capacity start_on_boot platform_restart networks prefix distribution private service_ips address network
		persistent_ips volume_groups physical_volumes mode major_number nfs_exports directory clients agent forced_varyon vg_auto_import file_systems device mount_point type options check stop_timeout application_controllers start_script start_args stop_script startup_mode agent params start_timeout
		monitors application_monitors processes pid_file owner restart_count failure_action monitor_method monitor_interval stabilization restart_interval notify_method
		fence_devices agent plugs params timeout levels resource_groups startup fallover fallback fallback_at fs_before_ip recovery_method priority on_release_failure node_priority_policy weight
		applications dependencies parent child start stop after same_node different_nodes high low fallback_timers repeats day_of_week hour minute settings profile timings
		settling_time deadman_mode failure_window max_event_time max_group_time`) {
		if !regexp.MustCompile(`(^|[\s{])` + key + `:`).MatchString(text) {
			t.Errorf("%s is not shown", key)
		}
	}
}

// The defaults that the commented node file gives are the defaults.
func TestTheNodeExampleSaysTheDefaults(t *testing.T) {
	shown, err := config.LoadNode("examples/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	def, err := config.DecodeNode("none", nil)
	if err != nil {
		t.Fatal(err)
	}
	def.Name = shown.Name
	a, _ := json.Marshal(shown)
	b, _ := json.Marshal(def)
	if string(a) != string(b) {
		t.Errorf("the example says\n%s, the defaults are\n%s", a, b)
	}
}

var metricName = regexp.MustCompile(`\bholdfast_[a-z0-9_]+`)

func TestOnlyMetricsThatExist(t *testing.T) {
	names := metrics.Names()
	for _, path := range []string{"prometheus/holdfast.rules.yml", "grafana/holdfast.json"} {
		text := read(t, path)
		used := metricName.FindAllString(text, -1)
		if len(used) < 10 {
			t.Errorf("%s uses only %v", path, used)
		}
		for _, name := range used {
			if !slices.Contains(names, name) {
				t.Errorf("%s: there is no metric %s", path, name)
			}
		}
	}
	// And the other way round: every metric is used by an alert or shown, or is known to be for other uses.
	all := read(t, "prometheus/holdfast.rules.yml") + read(t, "grafana/holdfast.json")
	rest := strings.Fields(`holdfast_build_info holdfast_lease_age_seconds holdfast_lease_grants_total holdfast_deadman_armed holdfast_raft_confirmations_total
		holdfast_raft_confirmation_failures_total holdfast_raft_last_index holdfast_raft_servers holdfast_raft_snapshot_index holdfast_raft_store_calls_total holdfast_raft_term
		holdfast_raft_voter holdfast_raft_voters holdfast_executor_duration_seconds`)
	for _, name := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "holdfast_") && !strings.Contains(all, base) && !slices.Contains(rest, base) {
			t.Errorf("%s is neither shown nor watched", name)
		}
	}
}

func TestDashboardIsSound(t *testing.T) {
	var d struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/holdfast.json")), &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %+v", p)
		}
		seen[p.ID] = true
		for _, x := range p.Targets {
			balanced(t, x.Expr)
		}
	}
	if d.UID == "" || len(d.Panels) < 10 {
		t.Errorf("%s has %d panels", d.Title, len(d.Panels))
	}
}

// balanced is the part of an expression's syntax that slips most easily.
func balanced(t *testing.T, expr string) {
	t.Helper()
	var open []rune
	for _, c := range expr {
		switch c {
		case '(', '{', '[':
			open = append(open, c)
		case ')', '}', ']':
			pair := map[rune]rune{')': '(', '}': '{', ']': '['}
			if len(open) == 0 || open[len(open)-1] != pair[c] {
				t.Errorf("unbalanced: %s", expr)
				return
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || strings.Count(expr, `"`)%2 != 0 {
		t.Errorf("unbalanced: %s", expr)
	}
}

func TestRulesAreSound(t *testing.T) {
	text := read(t, "prometheus/holdfast.rules.yml")
	for _, m := range regexp.MustCompile(`(?m)^        expr: (.*)$`).FindAllStringSubmatch(text, -1) {
		balanced(t, m[1])
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllString(text, -1)
	if len(alerts) < 10 || len(alerts) != strings.Count(text, "severity:") || len(alerts) != strings.Count(text, "summary:") {
		t.Errorf("%d alerts, %d severities, %d summaries", len(alerts), strings.Count(text, "severity:"), strings.Count(text, "summary:"))
	}
}

// unit reads a systemd unit: section.key -> values.
func unit(t *testing.T, path string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	section := ""
	for n, line := range strings.Split(read(t, path), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" || key != strings.TrimSpace(key) {
				t.Fatalf("%s:%d: %q is no setting", path, n+1, line)
			}
			out[section+"."+key] = append(out[section+"."+key], value)
		}
	}
	return out
}

// What the safety of a node rests on when systemd runs it (attack C8).
func TestUnitsKeepTheDeadmanSafe(t *testing.T) {
	deadman, daemon := unit(t, "systemd/holdfast-deadman.service"), unit(t, "systemd/holdfast.service")
	for _, w := range []struct {
		unit       map[string][]string
		key, value string
	}{
		{deadman, "Unit.StartLimitIntervalSec", "0"}, {deadman, "Service.Restart", "always"}, {deadman, "Service.RestartSec", "50ms"},
		{deadman, "Service.KillMode", "process"}, {deadman, "Service.Type", "notify"}, {deadman, "Service.SendSIGKILL", "no"},
		{deadman, "Service.FileDescriptorStoreMax", "2"}, // the device, and a handle of the process that keeps it
		{deadman, "Service.FileDescriptorStorePreserve", "yes"}, {deadman, "Service.OOMScoreAdjust", "-1000"}, {deadman, "Service.RuntimeDirectoryPreserve", "yes"},
		{daemon, "Unit.StartLimitIntervalSec", "0"}, {daemon, "Service.Restart", "always"}, {daemon, "Service.RestartSec", "50ms"}, {daemon, "Service.KillMode", "process"},
		{daemon, "Service.Type", "notify"}, {daemon, "Service.RuntimeDirectoryPreserve", "yes"},
	} {
		if got := w.unit[w.key]; len(got) != 1 || got[0] != w.value {
			t.Errorf("%s is %v, want %s", w.key, got, w.value)
		}
	}
	// The daemon must not take the deadman with it, nor have mounts of its own.
	for key := range daemon {
		name := strings.TrimPrefix(key, "Service.")
		if key == "Unit.Requires" || key == "Unit.BindsTo" || key == "Unit.PartOf" ||
			slices.Contains([]string{"PrivateTmp", "PrivateMounts", "ProtectSystem", "ProtectHome", "PrivateDevices", "ReadOnlyPaths", "PrivateNetwork", "PIDFile"}, name) {
			t.Errorf("the daemon's unit has %s", key)
		}
	}
	node, err := config.DecodeNode("none", nil)
	if err != nil {
		t.Fatal(err)
	}
	options := "--backend " + node.Deadman.Backend + " --device " + node.Deadman.Device
	if start := deadman["Service.ExecStart"][0]; !strings.Contains(start, " $DEADMAN_OPTIONS --socket "+node.Deadman.Socket) ||
		deadman["Service.Environment"][0] != `"DEADMAN_OPTIONS=`+options+`"` {
		t.Errorf("the deadman's arguments %v, %v do not fit the node file's defaults", start, deadman["Service.Environment"])
	}
	if !strings.Contains(read(t, "package/holdfast.default"), "\nDEADMAN_OPTIONS=\""+options+"\"\n") {
		t.Error("the package's /etc/default/holdfast does not fit the node file's defaults")
	}
}

func TestScriptsParse(t *testing.T) {
	for _, path := range []string{"aix/install.sh", "aix/capture.sh", "aix/holdfast_errnotify", "systemd/holdfast-services"} {
		shell := "sh"
		if strings.Contains(strings.SplitN(read(t, path), "\n", 2)[0], "ksh") {
			shell = "bash" // close enough to ksh for the syntax; ksh is seldom installed
		}
		if out, err := exec.Command(shell, "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
		if check, err := exec.LookPath("shellcheck"); err == nil {
			args := []string{path}
			if shell == "bash" {
				args = []string{"-s", "ksh", path}
			}
			if out, err := exec.Command(check, args...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", path, err, out)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o111 == 0 || info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
}

// fakeBin makes commands that write down how they were called. bodies maps a name to what it does beside.
func fakeBin(t *testing.T, bodies map[string]string) (dir, calls string) {
	t.Helper()
	dir = t.TempDir()
	calls = filepath.Join(dir, "calls")
	for name, body := range bodies {
		text := "#!/bin/sh\necho \"" + name + " $*\" >>" + calls + "\n" + body + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, calls
}

func TestServicesFollowTheMachine(t *testing.T) {
	for _, w := range []struct{ name, action, local, onBoot, want string }{
		{"start", "start", "node1", "true", "clmgr online node node1 WHEN=now MANAGE=auto"},
		{"not at boot", "start", "node1", "false", ""},
		{"stop", "stop", "node1", "true", "clmgr offline node node1 WHEN=now MANAGE=move"},
		{"no cluster", "stop", "", "true", ""},
	} {
		t.Run(w.name, func(t *testing.T) {
			dir, calls := fakeBin(t, map[string]string{"clmgr": `case "$*" in *LOCAL_NODE*) echo ` + w.local + `;; *START_ON_BOOT*) echo ` + w.onBoot + `;; esac`})
			c := exec.Command("./systemd/holdfast-services", w.action)
			c.Env = append(os.Environ(), "CLMGR="+filepath.Join(dir, "clmgr"))
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var did []string
			for l := range strings.SplitSeq(read(t, calls), "\n") {
				if strings.Contains(l, "line node") {
					did = append(did, l)
				}
			}
			if got := strings.Join(did, "\n"); got != w.want {
				t.Errorf("it ran %q, want %q", got, w.want)
			}
		})
	}
}

// The installer against an emulation of AIX's commands: it has not been run on AIX.
func TestInstallerAgainstAnEmulationOfSRC(t *testing.T) {
	program := map[string]string{"mkssys": "", "chssys": "", "rmssys": "", "mkitab": "", "rmitab": "", "stopsrc": "", "lssrc": "exit 1", "lsitab": "exit 1", "cldeadman": "", "clstrmgrd": "",
		"mkdir": "", "chmod": "", "odmget": "", "odmadd": "", "holdfast_errnotify": ""}
	dir, calls := fakeBin(t, program)
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/holdfast"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		c := exec.Command("bash", append([]string{"./aix/install.sh"}, args...)...)
		c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOLDFAST_ROOT=" + root}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := run("install", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	did := read(t, calls)
	for _, want := range []string{
		"mkssys -s hfdeadman -p " + dir + "/cldeadman -a --backend halt --socket " + root + "/var/run/holdfast/deadman.sock -u 0 -S -n 15 -f 9 -R -Q -w 30 -E 0 ",
		"mkssys -s holdfast -p " + dir + "/clstrmgrd -a --config " + root + "/etc/holdfast/node.yaml -u 0 -S -n 15 -f 9 -R -Q -w 30 -E 10 ",
		"mkitab -i rctcpip hfdeadman:2:once:/usr/bin/startsrc -s hfdeadman >/dev/null 2>&1", "mkitab -i hfdeadman holdfast:2:once:",
	} {
		if !strings.Contains(did, want) {
			t.Errorf("not run: %s", want)
		}
	}
	if t.Failed() {
		t.Log(did)
	}
	if out, err := run("remove"); err != nil || !strings.Contains(out, "are left") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("instal"); err == nil || !strings.Contains(out, "usage") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("install", "/nowhere"); err == nil || !strings.Contains(out, "/nowhere/holdfast_errnotify is missing") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "lssrc"), []byte("#!/bin/sh\necho clstrmgrES cluster 123 active\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := run("install", dir); err == nil || !strings.Contains(out, "PowerHA") {
		t.Errorf("it installs beside an active PowerHA: %v\n%s", err, out)
	}
}
