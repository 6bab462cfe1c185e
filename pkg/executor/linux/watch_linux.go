package linux

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// WatchLinks reports the state of every network interface, and from then on each change of carrier, flags or addresses within
// milliseconds, until the context ends; then the channel is closed. Events carry the state, not the change, so a reader that
// is slow misses intermediate states and never the last one.
func WatchLinks(ctx context.Context) (<-chan LinkEvent, error) {
	changes, err := subscribe(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan LinkEvent)
	go func() {
		defer close(out)
		known := executor.Links{}
		for {
			if all, err := interfaces(); err == nil && !known.Report(ctx, out, linkEvents(all)) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case _, ok := <-changes:
				if !ok && !resubscribe(ctx, &changes) {
					return
				}
			}
		}
	}()
	return out, nil
}

// resubscribe replaces a subscription that broke (the kernel drops it when a reader is too slow).
func resubscribe(ctx context.Context, changes *<-chan struct{}) bool {
	for ctx.Err() == nil {
		fresh, err := subscribe(ctx)
		if err == nil {
			*changes = fresh
			return true
		}
		t := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
	return false
}

// subscribe gives a token on each change of a link or an address; the channel is closed when one of the subscriptions ends.
func subscribe(ctx context.Context) (<-chan struct{}, error) {
	done := make(chan struct{})
	links, addrs := make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16)
	ignore := func(error) {} // the channel is closed after it
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: ignore}); err != nil {
		close(done)
		return nil, fmt.Errorf("watch the network interfaces: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: ignore}); err != nil {
		close(done)
		go drain(links)
		return nil, fmt.Errorf("watch the addresses of the network interfaces: %w", err)
	}
	out := make(chan struct{}, 1)
	go func() {
		defer func() {
			close(done)
			go drain(links)
			go drain(addrs)
			close(out)
		}()
		for {
			var ok bool
			select {
			case <-ctx.Done():
				return
			case _, ok = <-links:
			case _, ok = <-addrs:
			}
			if !ok {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}

// drain lets a subscription's goroutine end: it may be about to send.
func drain[T any](c <-chan T) {
	for range c { //nolint:revive // nothing to do
	}
}

// linkEvents is a look at all interfaces.
func linkEvents(all []*netInterface) []LinkEvent {
	var out []LinkEvent
	for _, i := range all {
		out = append(out, LinkEvent{Interface: i.name, Index: i.index, Present: true, Up: i.up, Carrier: i.carrier, Addresses: sorted(i)})
	}
	return out
}

func sorted(i *netInterface) []netip.Prefix {
	out := i.prefixes()
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return out
}
