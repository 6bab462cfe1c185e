package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// drawText is text as people and devils put it into files: all that Validate lets through.
func drawText(t *rapid.T, what string) string {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"yes", "no", "null", "~", "1", "01", "1.5", "0x10", "1e3", "-", "- a", "a: b", "a:", ":", "#", " #", "a #b", "a  ", " a", "'", `"`, `\`, "[a]", "{a: b}", "&a", "*a",
			"!t", "|", ">", "%a", "@a", "`a`", "---", "...", "2026-01-05", "10:30", ".5", "+1", "inf", ".inf", "nan", "é", "日本", "a,b", "<<", "?", "? a", "True", "OFF", "10.1.1.1/24", "fd00::1", "0o7", "_", "=", "a\u00a0b", "a\u2028b", "\U0001F600"}),
		rapid.StringN(1, 12, 40).Filter(func(s string) bool {
			return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c >= 0x7f && c <= 0x9f || c == 0xfffd })
		}),
	).Draw(t, what)
}

// drawValid makes a definition that Validate takes, with everything that can be said.
func drawValid(t *rapid.T) *cluster.Definition {
	flip := func(what string) bool { return rapid.Bool().Draw(t, what) }
	d := &cluster.Definition{Name: "prod"}
	n := rapid.IntRange(1, 5).Draw(t, "nodes")
	var names []string
	for i := range n {
		node := cluster.Node{Name: fmt.Sprintf("node%d", i+1), Capacity: rapid.IntRange(0, 9).Draw(t, "capacity")}
		if flip("site") {
			node.Site = drawText(t, "site")
		}
		if flip("addressed") || i == 0 {
			node.Addresses = map[string]string{"net1": fmt.Sprintf("10.1.1.%d/24", i+1)}
		}
		if flip("boot") {
			v := flip("start on boot")
			node.StartOnBoot = &v
		}
		d.Nodes = append(d.Nodes, node)
		names = append(names, node.Name)
	}
	d.Networks = []cluster.Network{{Name: "net1", Prefix: rapid.SampledFrom([]int{0, 24}).Draw(t, "prefix")}, {Name: "2"}}
	d.ServiceIPs = []cluster.ServiceIP{{Name: "10.1.1.10", Address: "10.1.1.10", Network: "net1"}, {Name: "six", Address: "fd00::10", Network: "2", Prefix: 64}}
	d.FileSystems = []cluster.FileSystem{{Name: "fs1", Device: "/dev/" + strings.ReplaceAll(strings.ReplaceAll(drawText(t, "device"), "/", "_"), ".", "_"), MountPoint: "/data"}}
	three := rapid.IntRange(0, 5).Draw(t, "restarts")
	d.ApplicationMonitors = []cluster.ApplicationMonitor{{Name: "m", Type: "process", Processes: []string{drawText(t, "process")}, RestartCount: &three,
		MonitorInterval: time.Duration(rapid.Int64Range(0, int64(1000*time.Second)).Draw(t, "interval"))}}
	a := cluster.ApplicationController{Name: "app1", StartScript: "/ha/start", StopScript: "/ha/stop", Monitors: []string{"m"}}
	for range rapid.IntRange(0, 3).Draw(t, "args") {
		a.StartArgs = append(a.StartArgs, drawText(t, "arg"))
	}
	d.ApplicationControllers = []cluster.ApplicationController{a}
	d.FenceDevices = []cluster.FenceDevice{{Name: "pdu", Agent: "/sbin/fence", Nodes: names, Params: map[string]string{"ip": drawText(t, "param"), "password": drawText(t, "secret")}}}
	for i := range rapid.IntRange(0, 4).Draw(t, "groups") {
		g := cluster.ResourceGroup{Name: fmt.Sprintf("g%d", i), Nodes: rapid.Permutation(names).Draw(t, "order"), Priority: rapid.IntRange(-5, 5).Draw(t, "priority"),
			Startup: rapid.SampledFrom([]cluster.Startup{"", "OHN", "OFAN", "OAAN", "OUDP"}).Draw(t, "startup"), Weight: rapid.IntRange(0, 2).Draw(t, "weight")}
		if i == 0 && g.Startup != "OAAN" {
			g.ServiceIPs, g.FileSystems, g.Applications = []string{"10.1.1.10"}, []string{"fs1"}, []string{"app1"}
		}
		d.ResourceGroups = append(d.ResourceGroups, g)
		if i > 0 && flip("dependent") {
			d.Dependencies = append(d.Dependencies, rapid.SampledFrom([]cluster.Dependency{{Start: g.Name, After: "g0"}, {Stop: g.Name, After: "g0"},
				{DifferentNodes: &cluster.DifferentNodes{High: []string{g.Name}, Low: []string{"g0"}}}}).Draw(t, "dependency"))
		}
	}
	if flip("timer") {
		d.FallbackTimers = []cluster.FallbackTimer{{Name: "t", Repeats: "monthly", DayOfMonth: 31, Hour: 0}}
	}
	if flip("settings") {
		d.Settings = cluster.Settings{SettlingTime: time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "settling")), Profile: "careful", LastStanding: true,
			Timings: map[string]time.Duration{"silence": 3100 * time.Millisecond}}
	}
	return d
}

// What is written decodes to an equal definition, and is written again as the same text.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawValid(t)
		if len(d.Validate()) > 0 {
			t.Skip("not valid")
		}
		text, err := EncodeCluster(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCluster("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !back.Equal(d) {
			t.Fatalf("another definition came back from\n%s\n%+v\n%+v", text, d, back)
		}
		again, err := EncodeCluster(back)
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("another text: %v\n%s\n%s", err, text, again)
		}
		if c := Diff(d, back); c != nil {
			t.Fatalf("a difference of equal definitions: %v", c)
		}
	})
}

func TestWrittenAsPeopleWrite(t *testing.T) {
	d, err := DecodeCluster("f", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	text, err := EncodeCluster(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"name: prod\n\nnodes:\n  - name: node1\n    site: berlin\n    addresses: {net1: 10.1.1.1/24, net2: 10.2.2.1/24}\n    capacity: 10\n    start_on_boot: false\n  - {name: node2,",
		"\n  - node3\n\nnetworks:\n  - {name: net1, prefix: 24}\n",
		"\nresource_groups:\n  - name: db_rg\n    nodes: [node1, node2]\n    startup: OHN\n    fallover: FNPN\n    fallback: NFB\n",
		"\n    start_args: [\"--fast\", \"two words\", 3]\n", "\n    start_timeout: 1d2h\n", "\n    restart_count: 0\n",
		"\n  - {parent: db_rg, child: web_rg}\n", "\n  - {different_nodes: {high: [web_rg], low: [low_rg]}}\n",
		"\nsettings:\n  settling_time: 30s\n  profile: fast\n  timings: {l_hard: 1.95s}\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("not found: %s", want)
		}
	}
	for _, absent := range []string{"null", "\"\"", "{}", "[]", "check: fsck", "distribution", "hung_signal", "  \n", "\n\n\n", "failure_window"} {
		if strings.Contains(string(text), absent) {
			t.Errorf("found: %q", absent)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	if _, err := EncodeCluster(&cluster.Definition{Name: "c"}); err == nil || !strings.Contains(err.Error(), "at least one node") {
		t.Error(err)
	}
}

func TestDiff(t *testing.T) {
	a, err := DecodeCluster("f", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	b := a.Clone()
	b.Name = "prod2"
	b.Nodes = append(b.Nodes, cluster.Node{Name: "node4", Capacity: 3})
	b.Nodes[0].Addresses["net1"] = "10.1.1.9/24"
	b.ServiceIPs = b.ServiceIPs[:1]
	b.Group("db_rg").Fallback = cluster.FallbackToHigherPriority
	b.Group("web_rg").ServiceIPs = nil
	b.FenceDevices[0].Params["password"] = "new"
	b.Dependencies = b.Dependencies[1:]
	b.Settings.Timings = nil
	b.Networks[0], b.Networks[1] = b.Networks[1], b.Networks[0]
	var got []string
	for _, c := range Diff(a, b) {
		got = append(got, c.String())
	}
	want := []string{
		"cluster prod: CLUSTER_NAME: prod -> prod2", "cluster prod: L_HARD: 1.95s -> 1.9s",
		"node node1: ADDRESSES: net1:10.1.1.1/24,net2:10.2.2.1/24 -> net1:10.1.1.9/24,net2:10.2.2.1/24", "add node node4", "add node node4: CAPACITY: 3",
		"network order: net1,net2 -> net2,net1", "delete service_ip svc2",
		"resource_group db_rg: FALLBACK: NFB -> FBHPN", `resource_group web_rg: SERVICE_LABEL: svc2 -> ""`, "delete dependency parent/db_rg/child/web_rg",
		"fence_device pdu: PARAMS: ip:10.9.9.9,password:***,port_count:8,ssl:true -> ip:10.9.9.9,password:***,port_count:8,ssl:true (another secret)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := Diff(nil, a); len(all) < 40 || all[0].Op != "add" {
		t.Errorf("from nothing: %v", all)
	}
	c := a.Clone()
	c.Settings.Timings = map[string]time.Duration{"l_hard": 1950 * time.Millisecond, "renew": 200 * time.Millisecond}
	if list := Diff(a, c); len(list) != 1 || list[0].String() != "cluster prod: RENEW: 0.2 -> 0.2 (set, whatever the profile says)" && list[0].Attribute != "RENEW" {
		t.Errorf("a timing that is set to the profile's: %v", list)
	}
	if none := Diff(a, a.Clone()); none != nil {
		t.Errorf("equal ones: %v", none)
	}
}

// Every field of a definition is seen by Diff: the attribute table knows them all.
func TestDiffSeesEveryField(t *testing.T) {
	base, err := DecodeCluster("f", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	var walk func(path string, at func(*cluster.Definition) reflect.Value)
	walk = func(path string, at func(*cluster.Definition) reflect.Value) {
		v := at(base)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, func(d *cluster.Definition) reflect.Value { return at(d).Field(i) })
			}
			return
		case reflect.Pointer:
			if v.IsNil() {
				return
			}
			walk(path, func(d *cluster.Definition) reflect.Value { return at(d).Elem() })
			return
		case reflect.Slice:
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), func(d *cluster.Definition) reflect.Value { return at(d).Index(i) })
			}
		}
		d := base.Clone()
		switch f := at(d); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Int, reflect.Int64:
			f.SetInt(f.Int() + 7)
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Slice:
			if f.Len() == 0 {
				return
			}
			f.Set(f.Slice(0, f.Len()-1))
		case reflect.Map:
			if f.Len() == 0 {
				return
			}
			f.SetZero()
		}
		if d.Equal(base) {
			return // A value that no form of the thing uses, as an empty second tier.
		}
		changed++
		for _, list := range [][]Change{Diff(base, d), Diff(d, base)} {
			if len(list) == 0 || list[0].Attribute == noAttribute {
				t.Errorf("a change of %s is not seen", path)
			}
		}
	}
	walk("definition", func(d *cluster.Definition) reflect.Value { return reflect.ValueOf(d).Elem() })
	if changed < 200 {
		t.Errorf("only %d fields were tried", changed)
	}
}
