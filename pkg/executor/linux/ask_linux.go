package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Ask asks on one interface who has the targets, by ARP and neighbour solicitation, and reports whether any of them answered in
// time. It goes past the routing tables: what it says is true of this interface alone. The answer of an interface of this machine
// does not count. An interface without neighbours, or without a link, has nobody to ask: false.
func Ask(ctx context.Context, name string, targets []netip.Addr, wait time.Duration) (bool, error) {
	all, err := interfaces()
	if err != nil {
		return false, err
	}
	for _, i := range all {
		if i.name == name {
			if !i.broadcast || !i.usable() {
				return false, nil
			}
			return i.ask(ctx, ownAddresses(all), targets, wait)
		}
	}
	return false, fmt.Errorf("there is no interface %s", name)
}

func (i *netInterface) ask(ctx context.Context, own []net.HardwareAddr, targets []netip.Addr, wait time.Duration) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type heard struct {
		yes bool
		err error
	}
	answers := make(chan heard, 2)
	asked := 0
	for _, six := range []bool{false, true} {
		var list []netip.Addr
		for _, t := range targets {
			if t = t.Unmap(); t.Is6() == six {
				list = append(list, t)
			}
		}
		if len(list) == 0 {
			continue
		}
		asked++
		go func() {
			yes, err := i.askFamily(ctx, own, list, six, wait)
			answers <- heard{yes, err}
		}()
	}
	var errs []error
	yes := false
	for range asked {
		h := <-answers
		if h.yes {
			yes = true
			cancel()
		} else if h.err != nil && !errors.Is(h.err, context.Canceled) {
			errs = append(errs, h.err)
		}
	}
	if yes {
		return true, nil
	}
	return false, errors.Join(errs...)
}

func (i *netInterface) askFamily(ctx context.Context, own []net.HardwareAddr, targets []netip.Addr, six bool, wait time.Duration) (bool, error) {
	question, protocol, claim := arpProbe, uint16(etherARP), arpSender
	if six {
		question, protocol, claim = neighbourProbe, etherIPv6, neighbourClaim
	}
	w, err := openWire(i, protocol)
	if err != nil {
		return false, err
	}
	defer w.close()
	if six {
		if err := w.joinMulticast(allNodesMAC); err != nil {
			return false, fmt.Errorf("listen for neighbour advertisements on %s: %w", i.name, err)
		}
	}
	wanted := map[netip.Addr]bool{}
	for _, t := range targets {
		wanted[t] = true
		if err := w.send(question(i.mac, t)); err != nil {
			return false, fmt.Errorf("ask for %s on %s: %w", t, i.name, err)
		}
	}
	for deadline := time.Now().Add(wait); ; {
		frame, err := w.receive(ctx, deadline)
		if err != nil || frame == nil {
			return false, err
		}
		if mac, who, ok := claim(frame); ok && wanted[who] && !contains(own, mac) {
			return true, nil
		}
	}
}
