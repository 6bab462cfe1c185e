package config

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

const odmSnapshot = `<VER
1.0
</VER

<DSC
before the move
</DSC

<ODM

HACMPcluster:
	id = 97531
	name = "prod"
	settling_time = 30

HACMPnode:
	name = "node1"
	object = "COMMUNICATION_PATH"
	value = "node1"

HACMPnode:
	name = "node1"
	object = "VERBOSE_LOGGING"
	value = "high"

HACMPnode:
	name = "node2"
	object = "COMMUNICATION_PATH"
	value = "node2"

HACMPnode:
	name = "node3"
	object = "COMMUNICATION_PATH"
	value = "node3"

HACMPnetwork:
	name = "net_ether_01"
	attr = "public"
	nimname = "ether"
	netmask = "255.255.255.0"

HACMPnetwork:
	name = "net_rs232"
	nimname = "rs232"

HACMPadapter:
	type = "ether"
	network = "net_ether_01"
	nodename = "node1"
	ip_label = "node1_boot"
	function = "boot"
	identifier = "10.1.1.1"

HACMPadapter:
	network = "net_ether_01"
	nodename = "node2"
	ip_label = "node2_boot"
	function = "boot"
	identifier = "10.1.1.2"

HACMPadapter:
	network = "net_ether_01"
	nodename = "node3"
	ip_label = "node3_boot"
	function = "boot"
	identifier = "10.1.1.3"

HACMPadapter:
	network = "net_ether_01"
	ip_label = "svc1"
	function = "service"
	identifier = "10.1.1.10"

HACMPadapter:
	network = "net_rs232"
	ip_label = "tty"
	function = "service"
	identifier = "/dev/tty1"

HACMPserver:
	name = "app1"
	start = "/ha/start -v"
	stop = "/ha/stop"

HACMPmonitor:
	monitor = "app1_mon"
	name = "MONITOR_TYPE"
	value = "user"

HACMPmonitor:
	monitor = "app1_mon"
	name = "MONITOR_METHOD"
	value = "/ha/mon"

HACMPmonitor:
	monitor = "app1_mon"
	name = "RESOURCE_TO_MONITOR"
	value = "app1"

HACMPgroup:
	group = "rg1"
	type = "ignore"
	nodes = "node1 node2 node3"
	startup_pref = "OHN"
	fallover_pref = "FNPN"
	fallback_pref = "NFB"

HACMPresource:
	group = "rg1"
	name = "SERVICE_LABEL"
	value = "svc1"

HACMPresource:
	group = "rg1"
	name = "APPLICATIONS"
	value = "app1"

HACMPresource:
	group = "rg1"
	name = "VOLUME_GROUP"
	value = "datavg"

HACMPevent:
	name = "node_up"

HACMPevent:
	name = "node_down"

</ODM
`

func TestImportODM(t *testing.T) {
	if !IsODM([]byte(odmSnapshot)) || IsODM([]byte("name: c\nnodes: []\n")) {
		t.Fatal("the kind of file is not recognised")
	}
	d, left, err := ImportODM([]byte(odmSnapshot))
	if err != nil {
		t.Fatal(err)
	}
	d.Defaults()
	for _, p := range d.Validate() {
		t.Errorf("%v", p)
	}
	g, a := d.Group("rg1"), d.ApplicationController("app1")
	if d.Name != "prod" || len(d.Nodes) != 3 || d.Node("node2").Addresses["net_ether_01"] != "10.1.1.2/24" || g == nil || g.Fallback != cluster.NeverFallback ||
		len(g.ServiceIPs) != 1 || a == nil || a.StartScript != "/ha/start" || a.StartArgs[0] != "-v" || a.Monitors[0] != "app1_mon" || d.ApplicationMonitor("app1_mon").Type != "custom" {
		t.Errorf("%+v", d)
	}
	report := strings.Join(left, "\n")
	for _, word := range []string{"2 of class HACMPevent", "datavg", "network net_rs232 is of kind rs232", "tty is on network"} {
		if !strings.Contains(report, word) {
			t.Errorf("the report does not say %q:\n%s", word, report)
		}
	}
}

func TestImportODMRefuses(t *testing.T) {
	for name, text := range map[string]string{"nothing": "<VER\n", "no nodes": "HACMPcluster:\n\tname = \"c\"\n", "not understood": "HACMPcluster:\nwhat is this\n"} {
		if _, _, err := ImportODM([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzImportODM(f *testing.F) {
	f.Add([]byte(odmSnapshot))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if d, _, err := ImportODM(b); err == nil {
			d.Defaults()
			d.Validate()
		}
	})
}
