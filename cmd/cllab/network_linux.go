package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// A fabric is the lab's switch: one bridge per network in the supervisor's own network namespace, a port per link of a node,
// and the client's namespace on the first address from the top of each network.
type fabric struct {
	cfg    *lab.Config
	client *os.File // the client's network namespace

	mu     sync.Mutex // guards filter; the ports of one node are changed by one order at a time
	filter oneWayFilter
}

func bridgeName(network int) string { return fmt.Sprintf("br%d", network) }

// portName is the name of the switch's end of a node's cable. Node 0 is the client.
func portName(node, network int) string { return fmt.Sprintf("p%dn%d", node, network) }

// hardwareAddr is the same at each boot of a node, as a real card's is.
func hardwareAddr(node, network int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x68, 0x66, 0x00, byte(network), byte(node)}
}

// newFabric builds the bridges and the client. It runs in the supervisor, which is alone in a fresh network namespace.
func newFabric(cfg *lab.Config, forks *thread) (*fabric, error) {
	f := &fabric{cfg: cfg}
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) // a switch has no addresses of its own
	if err := linkUp("lo"); err != nil {
		return nil, fmt.Errorf("set up loopback of the switch: %w", err)
	}
	for k := 1; k <= cfg.Networks; k++ {
		if err := addBridge(bridgeName(k)); err != nil {
			return nil, err
		}
	}
	if err := f.addClient(forks); err != nil {
		return nil, fmt.Errorf("make the client's network namespace: %w", err)
	}
	return f, nil
}

func addBridge(name string) error {
	snooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge %s (is the kernel built with CONFIG_BRIDGE, or the module bridge loaded?): %w", name, err)
	}
	return linkUp(name)
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up interface %s: %w", name, err)
	}
	return nil
}

func (f *fabric) addClient(forks *thread) (err error) {
	forks.do(func() {
		var home *os.File
		if home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		defer home.Close()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		f.client, err = os.Open("/proc/thread-self/ns/net")
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			panic("the forking thread cannot come back to its network namespace: " + back.Error())
		}
	})
	if err != nil {
		return err
	}
	for k := 1; k <= f.cfg.Networks; k++ {
		peer := netlink.NsFd(int(f.client.Fd()))
		if err := addCable(portName(0, k), interfaceName(k), peer, hardwareAddr(0, k), bridgeName(k)); err != nil {
			return err
		}
	}
	f.inClient(forks, func() {
		if err = linkUp("lo"); err != nil {
			return
		}
		for k := 1; k <= f.cfg.Networks && err == nil; k++ {
			err = configureInterface(interfaceName(k), f.cfg.ClientAddress(k)+"/24")
		}
	})
	return err
}

// inClient runs fn on the forking thread while that is in the client's network namespace.
func (f *fabric) inClient(forks *thread, fn func()) {
	forks.do(func() {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			panic("open own network namespace: " + err.Error())
		}
		defer home.Close()
		if err := unix.Setns(int(f.client.Fd()), unix.CLONE_NEWNET); err != nil {
			panic("enter the client's network namespace: " + err.Error())
		}
		defer func() {
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic("come back to the switch's network namespace: " + err.Error())
			}
		}()
		fn()
	})
}

// interfaceName is the name of the interface at port k inside a node; the first ports are the networks.
func interfaceName(k int) string { return lab.InterfaceName(k) }

// addCable makes a veth pair: port here, on the bridge, and name with the hardware address in the namespace peer.
func addCable(port, name string, peer any, mac net.HardwareAddr, bridge string) error {
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, TxQLen: 1000},
		PeerName:  name, PeerHardwareAddr: mac, PeerNamespace: peer,
	}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("add the cable %s (is the kernel built with CONFIG_VETH, or the module veth loaded?): %w", port, err)
	}
	if bridge != "" {
		if err := plug(port, bridge); err != nil {
			return err
		}
	}
	return linkUp(port)
}

func plug(port, bridge string) error {
	l, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s: %w", port, err)
	}
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := netlink.LinkSetMaster(l, br); err != nil {
		return fmt.Errorf("put port %s on bridge %s: %w", port, bridge, err)
	}
	return nil
}

// configureInterface gives the interface of the current network namespace its address, if it has one, and brings it up.
func configureInterface(name, cidr string) error {
	if cidr == "" {
		return linkUp(name)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", cidr, name, err)
	}
	return linkUp(name)
}

// A cable is what is wrong on purpose with one link of a node. It outlives the node's boots, as a cable does.
type cable struct {
	cutIn, cutOut, unplugged bool
}

func (c cable) silentBoth() bool { return c.cutIn && c.cutOut }

// connect makes the links of a node whose init has the given process id, each in the state of its cable.
func (f *fabric) connect(node, pid int, cables []cable) error {
	for i, c := range cables {
		k := i + 1
		if err := addCable(portName(node, k), interfaceName(k), netlink.NsPid(pid), hardwareAddr(node, k), ""); err != nil {
			return err
		}
		if err := f.apply(node, k, c); err != nil {
			return err
		}
	}
	return nil
}

// silence takes the ports of a node off the bridges: from now on nothing of it reaches anybody, and it is not told. That takes
// a fraction of a millisecond, where deleting a port takes the kernel tens of them.
func (f *fabric) silence(node int) error {
	return f.eachPort(node, netlink.LinkSetNoMaster)
}

// disconnect takes the links of a node away. The node's ends and all their addresses vanish with them.
func (f *fabric) disconnect(node int) error {
	return f.eachPort(node, netlink.LinkDel)
}

func (f *fabric) eachPort(node int, do func(netlink.Link) error) error {
	var errs []error
	for k := 1; k <= f.cfg.Ports(); k++ {
		l, err := netlink.LinkByName(portName(node, k))
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err == nil {
			err = do(l)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take port %s away: %w", portName(node, k), err))
		}
	}
	return errors.Join(errs...)
}

// apply brings a link of a running node, by its number, to the state of its cable.
func (f *fabric) apply(node, k int, c cable) error {
	port := portName(node, k)
	f.mu.Lock()
	err := f.filter.set(port, c.cutIn && !c.silentBoth(), c.cutOut && !c.silentBoth())
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cut %s one way: %w", port, err)
	}
	l, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s: %w", port, err)
	}
	switch plugged := l.Attrs().MasterIndex != 0; {
	case c.silentBoth() && plugged:
		// The port stays up, so the node keeps its carrier; what arrives goes nowhere.
		err = netlink.LinkSetNoMaster(l)
	case !c.silentBoth() && !plugged:
		err = plug(port, bridgeName(f.cfg.PortNetwork(k)))
	}
	if err != nil {
		return fmt.Errorf("move port %s: %w", port, err)
	}
	if c.unplugged {
		err = netlink.LinkSetDown(l)
	} else {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set carrier of port %s: %w", port, err)
	}
	return nil
}
