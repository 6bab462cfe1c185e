package aix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A LinkEvent is the state of one network interface after a change.
type LinkEvent struct {
	Interface string
	Index     int  // a number for the interface that stays the same while the watch goes on
	Present   bool // false: the interface is gone
	Up        bool // administratively
	Carrier   bool // the adapter has a link, as far as entstat can say
	Addresses []netip.Prefix
}

// WatchLinks reports the state of every network interface, and then each change, until the context ends; then the channel is
// closed. It looks every WatchEvery, because AIX's commands cannot be waited on. A look that fails tells nothing and is
// repeated. A virtual adapter's link says that the hypervisor's switch works, not that the network behind it does.
func (s *System) WatchLinks(ctx context.Context) (<-chan LinkEvent, error) {
	if err := s.need("ifconfig", "entstat"); err != nil {
		return nil, fmt.Errorf("watch the network interfaces: %w", err)
	}
	out := make(chan LinkEvent)
	go func() {
		defer close(out)
		known, numbers := map[string]LinkEvent{}, map[string]int{}
		tick := time.NewTicker(s.o.WatchEvery)
		defer tick.Stop()
		for {
			if all, err := s.links(ctx); err == nil && !report(ctx, out, known, numbers, all) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return out, nil
}

// links takes one look.
func (s *System) links(ctx context.Context) ([]*netif, error) {
	r := executor.Resource{Kind: "network", Name: "interfaces"}
	x := s.ServiceIP()
	all, err := x.interfaces(ctx, r)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(i *netif) bool { return i.name == "lo0" })
	for _, i := range all {
		x.look(ctx, r, i)
	}
	return all, ctx.Err()
}

// report sends what differs from what is known. It returns false when the context has ended.
func report(ctx context.Context, out chan<- LinkEvent, known map[string]LinkEvent, numbers map[string]int, all []*netif) bool {
	var events []LinkEvent
	seen := map[string]bool{}
	for _, i := range all {
		seen[i.name] = true
		if numbers[i.name] == 0 {
			numbers[i.name] = len(numbers) + 1
		}
		e := LinkEvent{Interface: i.name, Index: numbers[i.name], Present: true, Up: i.up && !i.quorumOff, Carrier: i.link != linkDown,
			Addresses: i.addresses}
		if old, ok := known[i.name]; !ok || old.Up != e.Up || old.Carrier != e.Carrier || !slices.Equal(old.Addresses, e.Addresses) {
			events = append(events, e)
		}
	}
	for name, old := range known {
		if !seen[name] {
			events = append(events, LinkEvent{Interface: name, Index: old.Index})
		}
	}
	slices.SortFunc(events, func(a, b LinkEvent) int { return a.Index - b.Index })
	for _, e := range events {
		select {
		case out <- e:
		case <-ctx.Done():
			return false
		}
		if known[e.Interface] = e; !e.Present {
			delete(known, e.Interface)
		}
	}
	return true
}
