package config

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// full uses every key that a cluster file has, and the ways in which people write YAML.
const full = `# the payment cluster
name: prod
nodes:
  - name: node1
    site: berlin
    addresses: {net1: 10.1.1.1/24, net2: 10.2.2.1/24}
    capacity: 10
    start_on_boot: no
  - name: node2
    addresses:
      net1: 10.1.1.2/24
    platform_restart: true
  - node3
networks:
  - {name: net1, prefix: 24, distribution: AC}
  - name: net2
    private: true
service_ips:
- name: svc1
  address: 10.1.1.10
  network: net1
- {name: svc2, address: "10.1.1.11", network: net1, interface: eth0}
persistent_ips:
  - {name: per1, address: 10.1.1.21, node: node1, network: net1}
file_systems:
  - name: fs1
    device: /dev/datavg/lv1
    mount_point: /data
    type: xfs
    options: noatime,nodev
    stop_timeout: 30s
application_controllers:
  - name: app1
    start_script: /ha/start
    start_args: [--fast, "two words", '3']
    stop_script: /ha/stop
    start_timeout: 1d2h
    monitors: [mon1, mon2]
application_monitors:
  - name: mon1
    type: process
    processes:
      - oracle
      - "ora: pmon"
    restart_count: 0
    failure_action: fallover
  - name: mon2
    type: custom
    monitor_method: /ha/check
    monitor_interval: 500ms
    stabilization: 1s
fence_devices:
  - name: pdu
    agent: /usr/sbin/fence_apc
    nodes: [node1, node2]
    params: {ip: 10.9.9.9, ssl: true, port_count: 8, password: 'it''s secret'}
    plugs: {node1: 4}
resource_groups:
  - name: db_rg
    nodes: [node1, node2]
    startup: OHN
    failover: FNPN
    fallback: NFB
    service_ips: [svc1]
    file_systems: [fs1]
    applications: [app1]
    fs_before_ip: yes
    priority: -3
  - &base
    name: web_rg
    nodes: [node2, node1, node3]
    startup: OFAN
    fallback_at: weekend
    service_ips: [svc2]
  - name: batch_rg
    nodes: [node1, node2, node3]
    fallover: FUDNP
    node_priority_policy: cpu
    on_release_failure: reset
    weight: 2
  - name: low_rg
    nodes: [node3]
dependencies:
  - {parent: db_rg, child: web_rg}
  - {start: batch_rg, after: web_rg}
  - {stop: batch_rg, after: db_rg}
  - {same_node: [db_rg, batch_rg]}
  - different_nodes:
      high: [web_rg]
      intermediate: []
      low: [low_rg]
fallback_timers:
  - {name: weekend, repeats: weekly, day_of_week: 0, hour: 02, minute: 0}
settings:
  settling_time: 30s
  profile: fast
  timings: {l_hard: 1950ms}
`

func TestDecodeCluster(t *testing.T) {
	d, err := DecodeCluster("prod.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ got, want any }{
		{d.Nodes[0].Addresses["net2"], "10.2.2.1/24"}, {*d.Nodes[0].StartOnBoot, false}, {*d.Nodes[1].StartOnBoot, true}, {d.Nodes[2].Name, "node3"},
		{d.ServiceIPs[1].Interface, "eth0"}, {d.FileSystems[0].StopTimeout, 30 * time.Second}, {d.FileSystems[0].Check, "fsck"},
		{d.ApplicationControllers[0].StartArgs[1], "two words"}, {d.ApplicationControllers[0].StartTimeout, 26 * time.Hour},
		{d.ApplicationControllers[0].StopTimeout, time.Minute}, {*d.ApplicationMonitors[0].RestartCount, 0}, {*d.ApplicationMonitors[1].RestartCount, 3},
		{d.ApplicationMonitors[0].Processes[1], "ora: pmon"}, {d.ApplicationMonitors[1].MonitorInterval, 500 * time.Millisecond},
		{d.FenceDevices[0].Params["ssl"], "true"}, {d.FenceDevices[0].Params["port_count"], "8"}, {d.FenceDevices[0].Params["password"], "it's secret"},
		{d.ResourceGroups[0].Fallback, cluster.NeverFallback}, {d.ResourceGroups[0].Priority, -3}, {d.ResourceGroups[0].FSBeforeIP, true},
		{d.ResourceGroups[1].Fallover, cluster.FalloverToNextPriority}, {d.ResourceGroups[1].Fallback, cluster.FallbackToHigherPriority},
		{d.Dependencies[4].DifferentNodes.High[0], "web_rg"}, {d.FallbackTimers[0].Hour, 2}, {d.Settings.Timings["l_hard"], 1950 * time.Millisecond},
	} {
		if w.got != w.want {
			t.Errorf("got %v, want %v", w.got, w.want)
		}
	}
}

// Every way in which the same file may be stored gives the same definition.
func TestTheSameFileInOtherBytes(t *testing.T) {
	want, err := DecodeCluster("f", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"byte-order mark": "\xef\xbb\xbf" + full,
		"CRLF":            strings.ReplaceAll(full, "\n", "\r\n"),
		"document marker": "---\n" + full,
		"directive":       "%YAML 1.2\n---\n" + full,
		"document end":    full + "...\n",
		"no last newline": strings.TrimSuffix(full, "\n"),
		"comment at end":  full + "# end\n",
	} {
		got, err := DecodeCluster("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !got.Equal(want) {
			t.Errorf("%s: another definition", name)
		}
	}
}

func TestFaultsOfAClusterFile(t *testing.T) {
	base := "name: c\nnodes: [node1, node2]\n"
	for _, w := range []struct {
		name, text string
		want       []string // each must begin a line of the error; "..." splits into parts that must follow
	}{
		{"unknown key", base + "resource_gruops: []\n", []string{`f:3:1: resource_gruops: there is no key "resource_gruops" here (did you mean "resource_groups"?)`}},
		{"unknown key inside", base + "resource_groups:\n  - name: g\n    nodes: [node1]\n    startups: OHN\n", []string{`f:6:5: resource_groups[0].startups: ...did you mean "startup"`}},
		{"wrong type", base + "networks: net1\n", []string{`f:3:11: networks: this is "net1": a list`}},
		{"list for text", base + "resource_groups:\n  - name: [a]\n    nodes: [node1]\n", []string{"f:4:11: resource_groups[0].name: this is a list: text"}},
		{"number", base + "resource_groups:\n  - {name: g, nodes: [node1], priority: high}\n", []string{`f:4:41: resource_groups[0].priority: this is "high": a whole number`}},
		{"boolean", base + "settings: {last_standing: maybe}\n", []string{`f:3:27: settings.last_standing: this is "maybe": true or false`}},
		{"boolean for text", "name: true\nnodes: [node1]\n", []string{"f:1:7: name: this is the boolean true: text"}},
		{"duration without unit", base + "settings: {settling_time: 30}\n", []string{"f:3:27: settings.settling_time: the duration 30 has no unit: write 30s"}},
		{"duration", base + "settings: {settling_time: soon}\n", []string{`f:3:27: settings.settling_time: "soon" is not a duration`}},
		{"zero duration", base + "settings: {failure_window: 0s}\n", []string{"f:3:28: settings.failure_window: it must be above 0"}},
		{"missing value", base + "settings:\n  profile:\n", []string{"f:4:3: settings.profile: the value is missing"}},
		{"empty text", base + "settings: {profile: ''}\n", []string{"f:3:21: settings.profile: the text is empty"}},
		{"empty entry", base + "resource_groups:\n  -\n  - {name: g, nodes: [node1]}\n", []string{"f:4:...resource_groups[0]: the entry is empty"}},
		{"twice", base + "name: d\n", []string{"f:3:1: name: this key stands here twice, the first time in line 1"}},
		{"both spellings", base + "resource_groups:\n  - {name: g, nodes: [node1], fallover: BO, failover: BO}\n", []string{"f:4:45: resource_groups[0].failover: ...twice"}},
		{"twice inside a map", base + "networks: [n]\nfence_devices:\n  - {name: x, agent: /x, nodes: [node1], params: {a: 1, a: 2}}\n", []string{"f:5:57: fence_devices[0].params.a: ...twice"}},
		{"unknown node", base + "resource_groups:\n  - name: g\n    nodes:\n      - node1\n      - nod2\n", []string{`f:7:9: resource_groups[0].nodes[1]: no node "nod2" is defined: one of node1, node2 (did you mean "node2"?)`}},
		{"illegal policy", base + "resource_groups:\n  - {name: g, nodes: [node1], startup: OAAN, fallover: FNPN}\n", []string{"f:4:56: resource_groups[0].fallover: ...BO"}},
		{"missing name", "nodes: [node1]\n", []string{"f:1:1: name: ...a name is needed"}},
		{"bad short name", "name: c\nnodes: [a b]\n", []string{"f:2:9: nodes[0].name: ...letters, digits"}},
		{"timings", base + "settings:\n  timings: {l_hard: 9s}\n", []string{"f:4:...settings.timings: l_hard 9s must not be over"}},
		{"not a mapping", "- a\n- b\n", []string{"f:1:1: this is a list: a mapping"}},
		{"empty", "", []string{"f:1:1: the file is empty"}},
		{"only comments", "# nothing\n", []string{"f:1:1: the file is empty"}},
		{"second document", base + "---\nname: d\n", []string{"f:3:1: a second document begins here"}},
		{"document after the end", base + "...\nname: d\n", []string{"f:4:1: a second document begins here"}},
		{"tab", "name: c\nnodes:\n\t- a\n", []string{"f:3:1: a tab cannot indent"}},
		{"open list", base + "networks: [a, b\n", []string{"f:3:...: the list that begins here has no ]"}},
		{"open quote", "name: \"c\nnodes: [a]\n", []string{"f:1:7: the text has no closing \""}},
		{"binary", "name: c\n\x00\x01", []string{"f:2:1: the file is not text (byte 0x00)"}},
		{"not UTF-8", "name: c\xff\n", []string{"f:1:8: the file is not text (byte 0xff)"}},
		{"UTF-16", "\xff\xfen\x00", []string{"f:1:1: the file is in UTF-16"}},
		{"too large", strings.Repeat("# x\n", MaxFile/4+1), []string{"f: the file has"}},
		{"deep", "name: " + strings.Repeat("[", 50_000), []string{"f:1:...: the file is nested more than"}},
		{"deep in blocks", strings.Repeat("- ", 50_000) + "a", []string{"f:1:...: the file is nested more than"}},
		{"deep by indentation", func() string {
			var b strings.Builder
			for i := range 500 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}(), []string{"f:...: the file is nested more than"}},
		{"undefined alias", base + "networks: *nets\n", []string{"f:3:...: the alias *nets has no anchor"}},
		{"tag", base + "networks: !!set {a}\n", []string{"f:3:11: the tag !!set is not needed"}},
		{"bomb", bomb(), []string{"f:...the aliases of this file stand for more than 10000 values"}},
		{"many keys", func() string {
			var b strings.Builder
			for i := range 5000 {
				fmt.Fprintf(&b, "k%d: 1\n", i)
			}
			return b.String()
		}(), []string{"f:1501:...one mapping has more than"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			d, err := DecodeCluster("f", []byte(w.text))
			var faults Faults
			if d != nil || !errors.As(err, &faults) {
				t.Fatalf("it was taken: %+v, %v", d, err)
			}
			if len(faults) > 3 {
				t.Errorf("one fault is reported as %d", len(faults))
			}
			for _, want := range w.want {
				if !found(err.Error(), want) {
					t.Errorf("want %s\n got %s", want, err)
				}
			}
		})
	}
}

// found looks for a line that begins with the first part of want and has the others after it.
func found(text, want string) bool {
	parts := strings.Split(want, "...")
	for line := range strings.SplitSeq(text, "\n") {
		rest, ok := strings.CutPrefix(line, parts[0])
		for _, p := range parts[1:] {
			i := strings.Index(rest, p)
			ok = ok && i >= 0
			if ok {
				rest = rest[i+len(p):]
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// bomb is the billion laughs.
func bomb() string {
	s := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		s += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return s
}

// All of a file's faults are reported at once, in the file's order: of the keys, the values, the references, the policies,
// and even beside an error of the syntax.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := DecodeCluster("f", []byte(`name: a b
nodes: [node1, node1]
netwroks: []
service_ips:
  - {name: s, address: 10.1.1.300, network: net1}
resource_groups:
  - name: g
    nodes: [node3]
    startup: OAAN
    fallover: FNPN
    priority: x
settings:
  settling_time: 5
`))
	var last int
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	for _, f := range faults {
		if f.Line < last {
			t.Error("not in the file's order:", f)
		}
		last = f.Line
	}
	for _, want := range []string{"f:1:7: name:", "f:2:16: nodes[1].name:", "f:3:1: netwroks:", "f:5:24: service_ips[0].address:", "f:5:45: service_ips[0].network:",
		"f:8:13: resource_groups[0].nodes[0]:", "f:10:15: resource_groups[0].fallover:", "f:11:15: resource_groups[0].priority:", "f:13:18: settings.settling_time:"} {
		if !found(err.Error(), want) {
			t.Errorf("%s is missing in\n%v", want, err)
		}
	}

	_, err = DecodeCluster("f", []byte("name: c\nnodes: [a, b\nresource_groups:\n  - {name: g, nodse: [a]}\nnetworks:\n\t- x\nsettings: {profil: fast}\n"))
	for _, want := range []string{"f:2:8: what begins here has no ]", "f:4:15: resource_groups[0].nodse:", "f:6:1: a tab", "f:7:12: settings.profil:"} {
		if !found(fmt.Sprint(err), want) {
			t.Errorf("%s is missing in\n%v", want, err)
		}
	}
}

// One fault is one line: what only follows from it is left out.
func TestNoEchoes(t *testing.T) {
	for name, text := range map[string]string{
		"nodes unreadable": "name: c\nnodes: 5\nresource_groups:\n  - {name: g, nodes: [a, b]}\n",
		"node unreadable":  "name: c\nnodes: [a, [b]]\nresource_groups:\n  - {name: g, nodes: [a, b]}\n",
		"name unreadable":  "name: {}\nnodes: [a]\n",
	} {
		_, err := DecodeCluster("f", []byte(text))
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 {
			t.Errorf("%s: want one fault, got\n%v", name, err)
		}
	}
}

func TestAliasesAndMerges(t *testing.T) {
	d, err := DecodeCluster("f", []byte(`name: c
nodes: &all [a, b, c]
resource_groups:
  - &first
    name: g1
    nodes: *all
    fallback: NFB
  - <<: *first
    name: g2
    priority: 4
`))
	if err != nil {
		t.Fatal(err)
	}
	g := d.Group("g2")
	if g == nil || len(g.Nodes) != 3 || g.Fallback != cluster.NeverFallback || g.Priority != 4 {
		t.Errorf("g2 is %+v", g)
	}
}

// hostile are inputs that cost a careless reader its time or its memory.
func hostile() map[string]string {
	fill := func(s string) string { return strings.Repeat(s, MaxFile/len(s)) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < MaxFile-20; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	// just fills a file with as many marks as are allowed, so that it comes past the first check.
	just := func(unit string) string {
		marks := 0
		for _, c := range unit {
			if strings.ContainsRune(",:[]{}-?&*!|>'\"%@#", c) {
				marks++
			}
		}
		return strings.Repeat(unit, (maxTokens-100)/marks)
	}
	files := map[string]string{}
	for _, unit := range []string{"- a\n", "- k:\n", "- 'a'\n", "- &a b\n", "- a: b\n  c: d\n", "-\n", "- a: !b\n", "? a\n", "- |\n  a\n", "- [a, b]\n", "- {a: b}\n",
		"- [a\n", "- {a: [b]}\n", "- a:\n  b:\n  c:\n", "- *a\n", "- <<: *a\n", "k:\n", "- \"a\"\n", "- a: &x\n", "- - - - a\n", "a: b\n\n", "- a #b\n", "- a:\n  - b\n", "- a:\n  - b:\n    - c:\n      - d\n"} {
		files["inside a group "+unit] = "name: c\nnodes: [a]\nresource_groups:\n" + just(unit)
		files["in brackets "+unit] = "[" + just(strings.ReplaceAll(strings.ReplaceAll(unit, "\n", ","), "- ", ""))
	}
	maps.Copy(files, map[string]string{
		"documents": fill("---\na\n"), "question marks": fill("? a\n"), "keys": numbered("k%d: a\n"), "flow keys": "{" + numbered("k%d: a,") + "}",
		"entries": fill("- a\n"), "commas": "[" + fill("a,"), "nothing": fill("- k:\n"), "brackets": fill("["), "braces": fill("{a: "),
		"dashes": fill("- "), "quotes": fill("'a\n"), "anchors": fill("- &a b\n"), "stars": "a: &a b\nl:\n" + fill("- *a\n")[:MaxFile-20],
		"spaces": fill(" "), "lines": fill("\n"), "one word": fill("a"), "one line": fill("a "), "escapes": `a: "` + fill(`\x41`)[:MaxFile-20] + `"`,
		"block": "a: |\n" + fill("  b\n")[:MaxFile-20], "unknown keys": "name: c\nnodes: [a]\nresource_groups:\n" + numbered("- {nmae%d: x}\n")[:MaxFile-60],
		"references": "name: c\nnodes: [a]\nresource_groups:\n" + numbered("- {name: g%d, nodes: [b]}\n")[:MaxFile-100],
		"bomb":       bomb(), "mappings": fill("- a: b\n  c: d\n"), "colons": fill(": "), "pipes": fill("|\n"), "bangs": fill("! "), "merges": "a: &a {b: c}\nl:\n" + fill("- <<: *a\n")[:MaxFile-20],
	})
	return files
}

// Hostile files are answered, and within memory: what is allocated in all bounds what was ever in use.
func TestHostileFiles(t *testing.T) {
	for name, text := range hostile() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		_, err := DecodeCluster("f", []byte(text))
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s was taken", name)
		}
		mib := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%-40q %7d bytes: %v, %d MiB allocated in all", name, len(text), took.Round(time.Millisecond), mib)
		if len(err.Error()) > 300_000 {
			t.Errorf("%s: an answer of %d bytes", name, len(err.Error()))
		}
	}
}
