package linux

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// BenchmarkAddress is the start (with the question whether the address is free) and the stop of an address.
func BenchmarkAddress(b *testing.B) {
	x := NewServiceIP(AddressOptions{})
	b.Cleanup(x.Close)
	r := executor.Resource{Kind: executor.KindServiceIP, Name: "svc", IP: &executor.Address{Label: "svc", Address: "10.9.0.99", Prefix: 24,
		Interface: "bench0"}}
	check(b, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "bench0"}, PeerName: "bench1"}))
	for _, name := range []string{"bench1", "bench0"} {
		link, err := netlink.LinkByName(name)
		check(b, err)
		check(b, netlink.LinkSetUp(link))
	}
	waitUntil(b, "the link comes up", func() bool { return snapshot(b, "bench0").usable() })
	for b.Loop() {
		if res := x.Start(b.Context(), r); res.Err != nil {
			b.Fatal(res)
		}
		if res := x.Stop(b.Context(), r); res.Err != nil {
			b.Fatal(res)
		}
	}
}
