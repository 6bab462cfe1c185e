package aix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (c *call) interfaces() ([]*Interface, error) {
	if c.Config.Real {
		return realInterfaces()
	}
	return c.Run.Interfaces, nil
}

func ifconfig(c *call) int {
	all, err := c.interfaces()
	if err != nil {
		return c.fail(1, "ifconfig: %v", err)
	}
	if len(c.args) == 1 && c.args[0] == "-a" {
		for _, i := range all {
			c.showInterface(i)
		}
		c.say("lo0: flags=e08084b,c0<UP,BROADCAST,LOOPBACK,RUNNING,SIMPLEX,MULTICAST,GROUPRT,64BIT,LARGESEND,CHAIN>")
		c.say("\tinet 127.0.0.1 netmask 0xff000000 broadcast 127.255.255.255\n\tinet6 ::1%%1/0")
		c.say("\t tcp_sendspace 131072 tcp_recvspace 131072 rfc1323 1")
		return 0
	}
	if len(c.args) < 2 {
		return c.fail(1, "ifconfig: 0821-555 Specify an interface")
	}
	at := slices.IndexFunc(all, func(i *Interface) bool { return i.Name == c.args[0] })
	if at < 0 {
		return c.fail(1, "ifconfig: 0821-160 The network interface %s does not exist.", c.args[0])
	}
	return c.configure(all[at], c.args[1:])
}

// configure reads: [inet|inet6] alias ADDR netmask M | inet6 ADDR/P alias | [inet6] delete ADDR | inet6 ADDR delete.
func (c *call) configure(i *Interface, args []string) int {
	if args[0] == "inet" || args[0] == "inet6" {
		args = args[1:]
	}
	var addr, mask, what string
	for n := 0; n < len(args); n++ {
		switch args[n] {
		case "alias", "delete":
			what = args[n]
		case "netmask":
			if n++; n < len(args) {
				mask = args[n]
			}
		default:
			addr = args[n]
		}
	}
	switch what {
	case "alias":
		cidr, err := cidrOf(addr, mask)
		if err != nil {
			return c.fail(1, "ifconfig: 0821-163 Cannot process the address %s: %v", addr, err)
		}
		if c.Config.Real {
			if err := realAlias(i.Name, cidr); err != nil {
				return c.fail(1, "ifconfig: ioctl (SIOCAIFADDR): %v", err)
			}
		} else if !slices.Contains(i.Addresses, cidr) {
			i.Addresses = append(i.Addresses, cidr)
		}
		c.journal("alias", cidr)
		return 0
	case "delete":
		for n, have := range i.Addresses {
			if a, _, _ := strings.Cut(have, "/"); a != addr {
				continue
			}
			if c.Config.Real {
				if err := realDelete(i.Name, have); err != nil {
					return c.fail(1, "ifconfig: ioctl (SIOCDIFADDR): %v", err)
				}
			} else {
				i.Addresses = append(i.Addresses[:n:n], i.Addresses[n+1:]...)
			}
			c.journal("delete", have)
			return 0
		}
		return c.fail(1, "ifconfig: ioctl (SIOCDIFADDR): Can't assign requested address")
	}
	return c.fail(1, "ifconfig: 0821-555 the operation is not played")
}

func cidrOf(addr, mask string) (string, error) {
	if strings.Contains(addr, "/") {
		p, err := netip.ParsePrefix(addr)
		return p.String(), err
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return "", err
	}
	bits := a.BitLen()
	if m, err := netip.ParseAddr(mask); err == nil {
		bits = 0
		for _, b := range m.AsSlice() {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
	}
	return netip.PrefixFrom(a, bits).String(), nil
}

func (c *call) showInterface(i *Interface) {
	flags := "UP,BROADCAST,NOTRAILERS,RUNNING,SIMPLEX,MULTICAST,GROUPRT,64BIT,CHECKSUM_OFFLOAD(ACTIVE),LARGESEND,CHAIN"
	if i.Down {
		flags = strings.Replace(flags, "UP,", "", 1)
	}
	c.say("%s: flags=1e084863,104c0<%s>", i.Name, flags)
	for _, a := range i.Addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			continue
		}
		if p.Addr().Is6() {
			c.say("\tinet6 %s/%d", p.Addr(), p.Bits())
			continue
		}
		mask := uint32(0xffffffff) << (32 - p.Bits())
		b := p.Masked().Addr().As4()
		bcast := (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) | ^mask
		c.say("\tinet %s netmask 0x%08x broadcast %d.%d.%d.%d", p.Addr(), mask, bcast>>24, bcast>>16&255, bcast>>8&255, bcast&255)
	}
	c.say("\t tcp_sendspace 262144 tcp_recvspace 262144 rfc1323 1")
}

func netstat(c *call) int {
	f, _, _ := c.flags("f")
	if f['r'] != "" {
		c.say("Routing tables\nDestination        Gateway           Flags   Refs     Use  If   Exp  Groups\n\nRoute Tree for Protocol Family 2 (Internet):")
		c.say("default            10.1.1.254        UG        1       100 en0      -      -   \n127/8              127.0.0.1         U         9      4000 lo0      -      -   ")
		return 0
	}
	all, err := c.interfaces()
	if err != nil {
		return c.fail(1, "netstat: %v", err)
	}
	c.say("Name  Mtu   Network     Address            Ipkts Ierrs    Opkts Oerrs  Coll")
	for n, i := range all {
		name := i.Name
		if i.Down {
			name += "*"
		}
		c.say("%-5s 1500  link#%-6d a.c6.24.39.41.%-5x 162325     0    60252     0     0", name, n+2, n+3)
		for _, a := range i.Addresses {
			p, err := netip.ParsePrefix(a)
			if err == nil {
				c.say("%-5s 1500  %-11s %-18s 162325     0    60252     0     0", name, p.Masked().Addr(), p.Addr())
			}
		}
	}
	c.say("lo0   16896 link#1                           2237     0     2237     0     0")
	c.say("lo0   16896 127         127.0.0.1            2237     0     2237     0     0")
	return 0
}

func entstat(c *call) int {
	_, args, _ := c.flags("")
	all, err := c.interfaces()
	if err != nil || len(args) != 1 {
		return c.fail(1, "entstat: 0909-003 Unable to connect to device, errno = 19")
	}
	at := slices.IndexFunc(all, func(i *Interface) bool { return i.Name == args[0] || "ent"+strings.TrimPrefix(i.Name, "en") == args[0] })
	if at < 0 {
		return c.fail(1, "entstat: 0909-003 Unable to connect to device %s, errno = 19", args[0])
	}
	i := all[at]
	c.say("-------------------------------------------------------------\nETHERNET STATISTICS (%s) :", args[0])
	if i.Virtual {
		c.say("Device Type: Virtual I/O Ethernet Adapter (l-lan)\nHardware Address: 0a:c6:24:39:41:03")
	} else {
		c.say("Device Type: 2-Port Gigabit Ethernet-SX PCI-Express Adapter\nHardware Address: 0a:c6:24:39:41:03")
	}
	c.say("\nGeneral Statistics:\n-------------------\nNo mbuf Errors: 0\nAdapter Reset Count: 0\nAdapter Data Rate: 20000")
	c.say("Driver Flags: Up Broadcast Running \n\tSimplex 64BitSupport ChecksumOffload ")
	if i.Virtual {
		state := "Operational"
		if i.NoLink {
			state = "Not operational"
		}
		c.say("\nVirtual I/O Ethernet Adapter (l-lan) Specific Statistics:\nTrunk Adapter: False\nLAN State: %s\nPort VLAN ID:     1\nSwitch ID: ETHERNET0", state)
		return 0
	}
	state := "Up"
	if i.NoLink {
		state = "Down"
	}
	c.say("\n2-Port Gigabit Ethernet-SX PCI-Express Adapter (14103f03) Specific Statistics:\nLink Status : %s\nMedia Speed Running: 1000 Mbps Full Duplex", state)
	return 0
}

func arp(c *call) int {
	f, args, _ := c.flags("d")
	if d := f['d']; d != "" {
		if c.Config.Real {
			_ = realForget(d)
		}
		delete(c.Run.ARP, d)
		_ = args
		return 0
	}
	if c.Config.Real {
		table, err := realARP()
		if err != nil {
			return c.fail(1, "arp: %v", err)
		}
		for _, a := range keys(table) {
			c.arpLine(a, table[a])
		}
		return 0
	}
	for _, a := range c.Shared.Foreign {
		c.arpLine(a, "2:0:5e:10:0:1")
	}
	return 0
}

func (c *call) arpLine(addr, mac string) {
	if mac == "" {
		fmt.Fprintf(c.out, "  ? (%s) at (incomplete) \n", addr)
		return
	}
	fmt.Fprintf(c.out, "  ? (%s) at %s [ethernet] stored in bucket 3\n", addr, mac)
}
