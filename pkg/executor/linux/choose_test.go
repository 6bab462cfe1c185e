package linux

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

func ifc(name string, usable bool, addrs ...string) *netInterface {
	i := &netInterface{name: name, index: int(name[len(name)-1]), up: true, carrier: usable, broadcast: true}
	subnets := map[netip.Prefix]bool{}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		i.addresses = append(i.addresses, ifAddress{prefix: p, secondary: subnets[p.Masked()]})
		subnets[p.Masked()] = true
	}
	return i
}

func TestChoose(t *testing.T) {
	one := []*netInterface{ifc("lo0", true, "127.0.0.1/8"), ifc("eth0", true, "10.0.0.1/16", "fd00::1/64"), ifc("eth1", true, "192.168.1.1/24")}
	two := []*netInterface{ifc("eth0", true, "10.0.0.1/24", "10.0.0.100/24"), ifc("eth1", true, "10.0.0.2/24")}
	half := []*netInterface{ifc("eth0", false, "10.0.0.1/24"), ifc("eth1", true, "10.0.0.2/24")}
	dead := []*netInterface{ifc("eth0", false, "10.0.0.1/24"), ifc("eth1", false, "10.0.0.2/24")}
	for name, c := range map[string]struct {
		all    []*netInterface
		a      executor.Address
		on     string
		prefix int
		why    string // in the reason, or in the error when on is empty
	}{
		"own address":       {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.0.0.1", Network: "net1"}, "eth0", 16, "carries the node's address 10.0.0.1 on network net1"},
		"own prefix":        {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.0.0.1/16", Prefix: 24}, "eth0", 24, "carries"},
		"other family":      {one, executor.Address{Address: "fd00::99", NodeAddress: "10.0.0.1"}, "eth0", 64, "carries"},
		"family not there":  {one, executor.Address{Address: "fd77::99", NodeAddress: "10.0.0.1"}, "eth0", 128, "carries"},
		"forced":            {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.0.0.1", Interface: "eth1", Prefix: 8}, "eth1", 8, "set by the definition"},
		"forced, missing":   {one, executor.Address{Label: "svc", Address: "10.0.9.9", Interface: "eth7"}, "", 0, "eth7, which the definition sets for svc, does not exist"},
		"no such network":   {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.77.0.1", Network: "net2"}, "", 0, "10.77.0.1, its address on network net2"},
		"by subnet":         {one, executor.Address{Address: "192.168.1.9"}, "eth1", 24, "has an address in 192.168.1.0/24"},
		"in no subnet":      {one, executor.Address{Address: "172.16.1.9"}, "", 0, "no interface"},
		"anti-collocation":  {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1"}, "eth1", 24, "anti-collocation"},
		"collocation":       {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Distribution: "C"}, "eth0", 24, "(collocation)"},
		"does not count it": {two, executor.Address{Address: "10.0.0.100", NodeAddress: "10.0.0.1"}, "eth0", 24, "anti-collocation"},
		"not the dead one":  {half, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Distribution: "C"}, "eth1", 24, "collocation"},
		"all dead":          {dead, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1"}, "", 0, "eth0 has no carrier, eth1 has no carrier"},
		"named":             {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.0.0.1", Interfaces: []string{"eth1"}, Prefix: 24, Network: "net1"}, "eth1", 24, "only interface on network net1"},
		"named, in order":   {half, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Interfaces: []string{"eth1", "eth0"}}, "eth1", 24, "collocation"},
		"named, one is not": {one, executor.Address{Address: "10.0.9.9", NodeAddress: "10.0.0.1", Interfaces: []string{"eth7", "eth0"}}, "eth0", 16, "only interface"},
		"named, none is":    {one, executor.Address{Address: "10.0.9.9", Interfaces: []string{"eth7", "eth8"}, Network: "net1"}, "", 0, "net1 (eth7, eth8) none exists"},
		"not the failed":    {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Failed: []string{"eth1"}}, "eth0", 24, "collocation"},
		"both failed":       {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Failed: []string{"eth0", "eth1"}}, "eth1", 24, "collocation"},
		"with persistent":   {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Distribution: "CPL", Persistent: "10.0.0.100"}, "eth0", 24, "persistent"},
		"not with it":       {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Distribution: "ACPL", Persistent: "10.0.0.100"}, "eth1", 24, "anti-collocation"},
		"counted by list":   {two, executor.Address{Address: "10.0.0.101", NodeAddress: "10.0.0.1", Distribution: "C", Services: []string{"10.0.0.77"}}, "eth0", 24, "(collocation)"},
		"bad address":       {one, executor.Address{Label: "svc", Address: "10.0.0"}, "", 0, `"10.0.0" of svc is not an IP address`},
		"loopback":          {one, executor.Address{Address: "127.0.0.1"}, "", 0, "cannot be a service address"},
		"bad prefix":        {one, executor.Address{Address: "10.0.0.9", Prefix: 33}, "", 0, "not between 1 and 32"},
		"mapped address":    {one, executor.Address{Address: "::ffff:10.0.9.9", NodeAddress: "10.0.0.1"}, "eth0", 16, "carries"},
	} {
		got, err := choose(c.all, &c.a)
		if c.on == "" {
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s: %v, wanted %q", name, err, c.why)
			}
			continue
		}
		if err != nil || got.on.name != c.on || got.prefix != c.prefix || !strings.Contains(got.why, c.why) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestFrames(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	v4, v6 := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")
	for _, f := range gratuitousARP(mac, v4) {
		if who, addr, ok := arpSender(f); !ok || who.String() != mac.String() || addr != v4 {
			t.Errorf("gratuitous ARP reads as %v %v %v", who, addr, ok)
		}
	}
	if _, addr, ok := arpSender(arpProbe(mac, v4)); !ok || !addr.IsUnspecified() {
		t.Errorf("a probe claims %v", addr)
	}
	for _, f := range [][]byte{unsolicitedAdvertisement(mac, v6), neighbourProbe(mac, v6)} {
		if who, addr, ok := neighbourClaim(f); !ok || who.String() != mac.String() || addr != v6 {
			t.Errorf("neighbour message reads as %v %v %v", who, addr, ok)
		}
		body := f[54:]
		src, dst := netip.AddrFrom16([16]byte(f[22:38])), netip.AddrFrom16([16]byte(f[38:54]))
		if sum := icmpChecksum(src, dst, body); sum != 0 {
			t.Errorf("checksum over the whole message is %#x, wanted 0", sum)
		}
	}
	for n := range 80 { // frames that are cut anywhere are no claims, and no panic
		arpSender(make([]byte, n))
		f := unsolicitedAdvertisement(mac, v6)
		if _, _, ok := neighbourClaim(f[:min(n, 77)]); ok {
			t.Errorf("a frame of %d bytes is taken for a claim", n)
		}
	}
}

func FuzzFrames(f *testing.F) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f.Add(arpProbe(mac, netip.MustParseAddr("10.0.0.9")))
	f.Add(unsolicitedAdvertisement(mac, netip.MustParseAddr("fd00::9")))
	f.Fuzz(func(_ *testing.T, frame []byte) {
		arpSender(frame)
		neighbourClaim(frame)
	})
}
