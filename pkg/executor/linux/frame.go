package linux

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames of ARP (RFC 826, 5227) and neighbour discovery (RFC 4861), as they go over the wire.

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	icmpSolicitation  = 135
	icmpAdvertisement = 136
	optionSource      = 1
	optionTarget      = 2
	flagOverride      = 0x20
)

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodesMAC  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	allNodes     = netip.MustParseAddr("ff02::1")
)

func ethernet(dst, src net.HardwareAddr, kind uint16) []byte {
	b := make([]byte, 0, 96)
	b = append(b, dst...)
	b = append(b, src...)
	return binary.BigEndian.AppendUint16(b, kind)
}

func arpFrame(op uint16, src net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	b := ethernet(broadcastMAC, src, etherARP)
	b = append(b, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, and the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, src...)
	b = append(b, sender.AsSlice()...)
	b = append(b, targetMAC...)
	return append(b, target.AsSlice()...)
}

// arpProbe asks who has the address without saying that we want it.
func arpProbe(src net.HardwareAddr, addr netip.Addr) []byte {
	return arpFrame(arpRequest, src, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), addr)
}

// gratuitousARP says that the address is ours, in both forms: some systems listen to the request, some to the reply.
func gratuitousARP(src net.HardwareAddr, addr netip.Addr) [][]byte {
	return [][]byte{
		arpFrame(arpRequest, src, addr, make(net.HardwareAddr, 6), addr),
		arpFrame(arpReply, src, addr, broadcastMAC, addr),
	}
}

// arpSender reads who says in an ARP frame that he has which address.
func arpSender(frame []byte) (net.HardwareAddr, netip.Addr, bool) {
	if len(frame) < 14+28 || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return nil, netip.Addr{}, false
	}
	p := frame[14:]
	if p[0] != 0 || p[1] != 1 || p[2] != 8 || p[3] != 0 || p[4] != 6 || p[5] != 4 {
		return nil, netip.Addr{}, false
	}
	return net.HardwareAddr(p[8:14]), netip.AddrFrom4([4]byte(p[14:18])), true
}

// icmpFrame is one ICMPv6 message in one Ethernet frame.
func icmpFrame(dstMAC, srcMAC net.HardwareAddr, src, dst netip.Addr, body []byte) []byte {
	b := ethernet(dstMAC, srcMAC, etherIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, 58, 255) // ICMPv6; the hop limit proves that no router was passed
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	binary.BigEndian.PutUint16(body[2:], icmpChecksum(src, dst, body))
	return append(b, body...)
}

func icmpChecksum(src, dst netip.Addr, body []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, 58)
	var sum uint32
	for _, part := range [][]byte{pseudo, body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
		if len(part)%2 == 1 {
			sum += uint32(part[len(part)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// neighbourProbe is the solicitation of duplicate address detection: from nobody, so that the answer goes to all nodes.
func neighbourProbe(src net.HardwareAddr, addr netip.Addr) []byte {
	a := addr.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]})
	body := append([]byte{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0}, a[:]...)
	return icmpFrame(net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]}, src, netip.IPv6Unspecified(), group, body)
}

// unsolicitedAdvertisement says to all nodes that the address is ours now, whatever they have noted.
func unsolicitedAdvertisement(src net.HardwareAddr, addr netip.Addr) []byte {
	body := append([]byte{icmpAdvertisement, 0, 0, 0, flagOverride, 0, 0, 0}, addr.AsSlice()...)
	body = append(body, optionTarget, 1)
	body = append(body, src...)
	return icmpFrame(allNodesMAC, src, addr, allNodes, body)
}

// neighbourClaim reads who says in a frame that he has, or is about to take, which IPv6 address.
func neighbourClaim(frame []byte) (net.HardwareAddr, netip.Addr, bool) {
	const ip, icmp = 14, 14 + 40
	if len(frame) < icmp+24 || binary.BigEndian.Uint16(frame[12:]) != etherIPv6 || frame[ip+6] != 58 || frame[ip+7] != 255 {
		return nil, netip.Addr{}, false
	}
	src := netip.AddrFrom16([16]byte(frame[ip+8 : ip+24]))
	target := netip.AddrFrom16([16]byte(frame[icmp+8 : icmp+24]))
	switch {
	case frame[icmp] == icmpAdvertisement:
	case frame[icmp] == icmpSolicitation && src.IsUnspecified(): // somebody probes for the same address
	default:
		return nil, netip.Addr{}, false
	}
	return net.HardwareAddr(frame[6:12]), target, true
}
