package cluster

import (
	"errors"
	"strings"
	"testing"
)

// do runs one clmgr-like line against the definition: "add node node1 ADDRESSES=net1:10.0.0.1/24".
func do(t *testing.T, d *Definition, line string) error {
	t.Helper()
	words, err := SplitCommand(line)
	if err != nil {
		t.Fatal(err)
	}
	c, err := FindClass(words[1])
	if err != nil {
		t.Fatal(err)
	}
	name, rest := "", words[2:]
	if len(rest) > 0 && !strings.Contains(rest[0], "=") {
		name, rest = rest[0], rest[1:]
	}
	var set []Assignment
	for _, w := range rest {
		k, v, _ := strings.Cut(w, "=")
		set = append(set, Assignment{k, v})
	}
	switch words[0] {
	case "add":
		return c.Add(d, name, set)
	case "modify":
		return c.Modify(d, name, set)
	case "delete":
		return c.Delete(d, name, false)
	case "purge":
		return c.Delete(d, name, true)
	}
	t.Fatalf("no action %s", words[0])
	return nil
}

// session builds a cluster as an administrator of PowerHA would.
func session(t *testing.T) *Definition {
	t.Helper()
	d := &Definition{}
	for _, line := range []string{
		"add cluster c1 NODES=node1,node2 RG_SETTLING_TIME=30 PROFILE=fast",
		"add node node3 CAPACITY=10",
		"add network net1 NETMASK=255.255.255.0",
		"modify node node1 COMMPATH=10.1.1.1/24",
		"modify node node2 ADDRESSES=net1:10.1.1.2/24",
		"add service_ip svc1 ADDRESS=10.1.1.10 NETWORK=net1",
		"add service_ip 10.1.1.11",
		"add persistent_ip boot1 ADDRESS=10.1.1.21 NODE=node1 NETWORK=net1",
		"add application_monitor app1_mon TYPE=custom MODE=both MONITORMETHOD=/ha/mon MONITORINTERVAL=30 STABILIZATION=60 RESTARTCOUNT=3 FAILUREACTION=fallover",
		`add application_controller app1 STARTSCRIPT="/ha/start 'a b' c" STOPSCRIPT=/ha/stop MONITORS=app1_mon STARTUP_MODE=foreground`,
		"add file_system fs1 DEVICE=/dev/datavg/lv1 MOUNT_POINT=/data",
		"add fallback_timer weekend REPEATS=weekly DAY_OF_WEEK=0 HOUR=2",
		"add resource_group rg1 NODES=node1,node2 STARTUP=OHN FALLOVER=FNPN FALLBACK=NFB SERVICE_LABEL=svc1 APPLICATIONS=app1 FILESYSTEM=fs1",
		`add rg rg2 NODES="node2 node1" startup=OFAN SERVICE_LABEL=10.1.1.11 FALLBACK_AT=weekend`,
		"add rg rg3 NODES=node1,node2,node3 STARTUP=OAAN",
		"add dependency PARENT=rg1 CHILD=rg2,rg3",
		"add dependency SEPARATE=NODE HIGH=rg1 LOW=rg2",
		"add fence_device pdu AGENT=/usr/sbin/fence_x NODES=node1,node2 PARAMS=ip:10.9.9.9,password:geheim PLUGS=node1:1,node2:2",
	} {
		if err := do(t, d, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return d
}

func get(t *testing.T, d *Definition, class, name, attr string) string {
	t.Helper()
	c, err := FindClass(class)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Get(d, name, attr)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAdministratorsSession(t *testing.T) {
	d := session(t)
	for _, w := range []struct{ class, name, attr, want string }{
		{"cluster", "", "NODES", "node1,node2,node3"},
		{"cluster", "c1", "rg_settling_time", "30"},
		{"cluster", "c1", "MAX_EVENT_TIME", "180"},
		{"cluster", "c1", "L_HARD", "1.9s"},
		{"cluster", "c1", "CAA_DEADMAN_MODE", "assert"},
		{"node", "node1", "ADDRESSES", "net1:10.1.1.1/24"},
		{"node", "node1", "START_ON_BOOT", "true"},
		{"network", "net1", "PREFIX", "24"},
		{"network", "net1", "RESOURCE_DIST_PREF", "AC"},
		{"service_ip", "10.1.1.11", "ADDRESS", "10.1.1.11"},
		{"service_ip", "10.1.1.11", "NETWORK", "net1"},
		{"application_controller", "app1", "STARTSCRIPT", "/ha/start 'a b' c"},
		{"application_controller", "app1", "START_TIMEOUT", "60"},
		{"application_monitor", "app1_mon", "TYPE", "Custom"},
		{"application_monitor", "app1_mon", "APPLICATIONS", "app1"},
		{"application_monitor", "app1_mon", "RESTARTINTERVAL", "297"},
		{"resource_group", "rg1", "FALLBACK", "NFB"},
		{"resource_group", "rg1", "NODE_PRIORITY_POLICY", "default"},
		{"resource_group", "rg2", "NODES", "node2,node1"},
		{"resource_group", "rg3", "FALLOVER", "BO"},
		{"resource_group", "rg3", "FALLBACK", "NFB"},
		{"dependency", "parent/rg1/child/rg3", "CHILD", "rg3"},
		{"dependency", "different_nodes/rg1/rg2", "HIGH", "rg1"},
		{"fallback_timer", "weekend", "HOUR", "2"},
		{"fence_device", "pdu", "PARAMS", "ip:10.9.9.9,password:***"},
	} {
		if got := get(t, d, w.class, w.name, w.attr); got != w.want {
			t.Errorf("%s %s %s is %q, want %q", w.class, w.name, w.attr, got, w.want)
		}
	}
}

// What a query prints can be given back to modify, and changes nothing.
func TestEveryAttributeTakesWhatItShows(t *testing.T) {
	d := session(t)
	before := d.Clone()
	for _, c := range Classes() {
		for _, name := range c.Names(d) {
			for _, a := range c.Attributes {
				v, err := c.Get(d, name, a.Name)
				if err != nil {
					t.Fatal(err)
				}
				if a.Doc == "" || a.Kind == "" {
					t.Errorf("%s %s has no documentation or kind", c.Name, a.Name)
				}
				// The profile's timings are shown, and would become overrides.
				if a.ReadOnly || c.Derived || v == "" || strings.Contains(a.Doc, "overrides the profile") {
					continue
				}
				if err := c.Set(d, name, a.Name, v); err != nil {
					t.Errorf("%s %s: %v", c.Name, name, err)
				}
			}
		}
	}
	// COMMPATH and the implied policies included, all must be as it was.
	if !d.Equal(before) {
		t.Errorf("giving back what was shown changed the definition:\n%+v\n%+v", before, d)
	}
}

func TestRefusals(t *testing.T) {
	for _, w := range []struct {
		line string
		kind error
		text string
	}{
		{"add cluster c2", ErrExists, "c1"},
		{"add node node1", ErrExists, "node1"},
		{"add node -x", ErrIncorrect, "begin with a letter"},
		{"add node n4 SIET=here", ErrIncorrect, `did you mean "SITE"`},
		{"add network net2 PREFIX=255.0.255.0", ErrIncorrect, "netmask"},
		{"add service_ip svc2", ErrMissing, "ADDRESS"},
		{"add service_ip svc2 ADDRESS=10.1.1.300 NETWORK=net1", ErrIncorrect, "not an IP address"},
		{"add rg rg9 NODES=node1,node1", ErrIncorrect, "twice"},
		{"add rg rg9 NODES=node1 STARTUP=OHNE", ErrIncorrect, "OHN"},
		{"add rg rg9 NODES=node1 NODES=node2", ErrIncorrect, "twice"},
		{"add application_controller a2 STARTSCRIPT=start STOPSCRIPT=/stop", ErrIncorrect, "absolute"},
		{"modify application_monitor app1_mon RESTARTCOUNT=101", ErrIncorrect, "from 0 to 100"},
		{"modify cluster c1 HEARTBEAT_FREQUENCY=10", ErrIncorrect, "PROFILE"},
		{"modify cluster c1 MAX_EVENT_TIME=0", ErrIncorrect, "above 0"},
		{"modify rg rg11 PRIORITY=1", ErrNotFound, "did you mean"},
		{"delete node node1", ErrInUse, "resource_group rg1"},
		{"modify cluster c1 NODES=node1,node2", ErrIncorrect, "rg3"},
		{"add dependency PARENT=rg1", ErrMissing, "CHILD"},
		{"add dependency PARENT=rg1 START=rg2 AFTER=rg3 CHILD=rg2", ErrIncorrect, "together"},
		{"add dependency PARENT=rg1 CHILD=rg2", ErrExists, "parent/rg1/child/rg2"},
		{"add dependency SAME=SITE GROUPS=rg1,rg2", ErrIncorrect, "NODE"},
		{"add dependency START=rg1 AFTER=nix", ErrNotFound, "nix"},
	} {
		d := session(t)
		before := d.Clone()
		err := do(t, d, w.line)
		if !errors.Is(err, w.kind) || !strings.Contains(err.Error(), w.text) {
			t.Errorf("%s: %v; want %v with %q", w.line, err, w.kind, w.text)
		}
		if !d.Equal(before) {
			t.Errorf("%s: it was refused and changed something", w.line)
		}
	}
}

func TestRenameAndForce(t *testing.T) {
	d := session(t)
	for _, line := range []string{"modify node node1 NAME=alpha", "modify network net1 NAME=lan", "modify rg rg1 NAME=db", "modify cluster c1 NAME=prod"} {
		if err := do(t, d, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	for _, w := range []struct{ class, name, attr, want string }{
		{"rg", "db", "NODES", "alpha,node2"}, {"fence_device", "pdu", "PLUGS", "alpha:1,node2:2"}, {"service_ip", "svc1", "NETWORK", "lan"},
		{"node", "alpha", "ADDRESSES", "lan:10.1.1.1/24"}, {"dependency", "parent/db/child/rg2", "PARENT", "db"}, {"cluster", "", "CLUSTER_NAME", "prod"},
	} {
		if got := get(t, d, w.class, w.name, w.attr); got != w.want {
			t.Errorf("%s %s %s is %q, want %q", w.class, w.name, w.attr, got, w.want)
		}
	}
	if err := do(t, d, "purge rg db"); err != nil {
		t.Fatal(err)
	}
	if len(d.Dependencies) != 0 {
		t.Errorf("dependencies are left that say nothing: %+v", d.Dependencies)
	}
	if err := do(t, d, "purge node alpha"); err != nil {
		t.Fatal(err)
	}
	if got := d.Users("node", "alpha"); got != nil || d.Group("rg2").Has("alpha") || len(d.PersistentIPs) != 0 {
		t.Errorf("alpha is still named by %v", got)
	}
}

// Defaults that are computed follow what they are computed from; what was set stays.
func TestComputedDefaultsFollow(t *testing.T) {
	d := session(t)
	for _, w := range []struct{ line, interval, stabilization string }{
		{"modify application_monitor app1_mon RESTARTCOUNT=10", "990", "60"},
		{"modify application_monitor app1_mon TYPE=Process MONITORMETHOD= PROCESSES=db", "110", "10"},
		{"modify application_monitor app1_mon RESTARTINTERVAL=500", "500", "10"},
		{"modify application_monitor app1_mon RESTARTCOUNT=3", "500", "10"},
		{"modify application_monitor app1_mon RESTARTINTERVAL=", "33", "10"},
	} {
		if err := do(t, d, w.line); err != nil {
			t.Fatal(err)
		}
		interval, stabilization := get(t, d, "mon", "app1_mon", "RESTARTINTERVAL"), get(t, d, "mon", "app1_mon", "STABILIZATION")
		if interval != w.interval || stabilization != w.stabilization {
			t.Errorf("%s: RESTARTINTERVAL is %s, STABILIZATION %s; want %s, %s", w.line, interval, stabilization, w.interval, w.stabilization)
		}
	}
}

func TestFindClass(t *testing.T) {
	for word, want := range map[string]string{"CLUSTER": "cluster", "cl": "cluster", "rg": "resource_group", "app": "application_controller",
		"mon": "application_monitor", "sip": "service_ip", "resource": "resource_group", "fal": "fallback_timer", "fs": "file_system"} {
		c, err := FindClass(word)
		if err != nil || c.Name != want {
			t.Errorf("%s: %v, %v", word, c, err)
		}
	}
	if _, err := FindClass("f"); err == nil || !strings.Contains(err.Error(), "fence_device") {
		t.Errorf("f is ambiguous: %v", err)
	}
	if _, err := FindClass("resource_gruop"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `did you mean "resource_group"`) {
		t.Errorf("%v", err)
	}
	seen := map[string]string{}
	for _, c := range Classes() {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			if seen[n] != "" {
				t.Errorf("%s means %s and %s", n, seen[n], c.Name)
			}
			seen[n] = c.Name
		}
		attrs := map[string]bool{}
		for _, a := range c.Attributes {
			for _, n := range append([]string{a.Name}, a.Aliases...) {
				if attrs[n] {
					t.Errorf("%s has %s twice", c.Name, n)
				}
				attrs[n] = true
			}
		}
	}
}
