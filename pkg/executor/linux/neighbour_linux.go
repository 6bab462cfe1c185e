package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// networkOrder gives a protocol number as the kernel wants it in a link-layer address.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// A wire is a raw socket on one interface.
type wire struct {
	fd    int
	index int
}

// openWire opens a raw socket; with a protocol it also receives, without it only sends.
func openWire(i *netInterface, protocol uint16) (*wire, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	w := &wire{fd: fd, index: i.index}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: i.index}); err != nil {
		w.close()
		return nil, fmt.Errorf("bind a raw socket to %s: %w", i.name, err)
	}
	return w, nil
}

func (w *wire) close() { _ = unix.Close(w.fd) }

// joinMulticast makes the interface receive frames to a multicast address.
func (w *wire) joinMulticast(mac net.HardwareAddr) error {
	m := &unix.PacketMreq{Ifindex: int32(w.index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(mac))}
	copy(m.Address[:], mac)
	return unix.SetsockoptPacketMreq(w.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, m)
}

func (w *wire) send(frame []byte) error {
	return unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index})
}

// receive waits for the next frame that others sent, until the deadline. It returns nil when the time is over.
func (w *wire) receive(ctx context.Context, deadline time.Time) ([]byte, error) {
	buf := make([]byte, 2048)
	for {
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			return nil, ctx.Err()
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(min(left, 20*time.Millisecond).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("wait for a frame: %w", err)
		}
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive a frame: %w", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		return buf[:n], nil
	}
}

// inUse asks the network once whether somebody has the address, and returns his hardware address if one answers in time.
// Answers from the machine's own interfaces do not count. An interface without neighbours (loopback, tunnel) has no such
// question.
func inUse(ctx context.Context, i *netInterface, own []net.HardwareAddr, addr netip.Addr, wait time.Duration) (net.HardwareAddr, error) {
	if !i.broadcast || wait < 0 {
		return nil, nil
	}
	probe, protocol, claim := arpProbe(i.mac, addr), uint16(etherARP), arpSender
	if addr.Is6() {
		probe, protocol, claim = neighbourProbe(i.mac, addr), etherIPv6, neighbourClaim
	}
	w, err := openWire(i, protocol)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if addr.Is6() {
		if err := w.joinMulticast(allNodesMAC); err != nil {
			return nil, fmt.Errorf("listen for neighbour advertisements on %s: %w", i.name, err)
		}
	}
	if err := w.send(probe); err != nil {
		return nil, fmt.Errorf("send an address probe on %s: %w", i.name, err)
	}
	deadline := time.Now().Add(wait)
	for {
		frame, err := w.receive(ctx, deadline)
		if err != nil || frame == nil {
			return nil, err
		}
		if mac, who, ok := claim(frame); ok && who == addr && !contains(own, mac) {
			return append(net.HardwareAddr(nil), mac...), nil
		}
	}
}

func contains(list []net.HardwareAddr, mac net.HardwareAddr) bool {
	for _, m := range list {
		if string(m) == string(mac) {
			return true
		}
	}
	return false
}

// announceOnce tells all neighbours on the interface that the address is here.
func announceOnce(i *netInterface, addr netip.Addr) error {
	if !i.broadcast {
		return nil
	}
	w, err := openWire(i, 0)
	if err != nil {
		return err
	}
	defer w.close()
	frames := gratuitousARP
	if addr.Is6() {
		frames = func(mac net.HardwareAddr, a netip.Addr) [][]byte { return [][]byte{unsolicitedAdvertisement(mac, a)} }
	}
	for _, f := range frames(i.mac, addr) {
		if err := w.send(f); err != nil {
			return fmt.Errorf("announce %s on %s: %w", addr, i.name, err)
		}
	}
	return nil
}
