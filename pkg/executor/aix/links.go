package aix

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A LinkEvent is executor.LinkEvent: the index is a number of the watch's own.
type LinkEvent = executor.LinkEvent

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
		known, numbers := executor.Links{}, map[string]int{}
		tick := time.NewTicker(s.o.WatchEvery)
		defer tick.Stop()
		for {
			if all, err := s.links(ctx); err == nil && !known.Report(ctx, out, linkEvents(all, numbers)) {
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

// linkEvents is a look at all interfaces; one that was never seen gets the next number.
func linkEvents(all []*netif, numbers map[string]int) []LinkEvent {
	var out []LinkEvent
	for _, i := range all {
		if numbers[i.name] == 0 {
			numbers[i.name] = len(numbers) + 1
		}
		out = append(out, LinkEvent{Interface: i.name, Index: numbers[i.name], Present: true, Up: i.up && !i.quorumOff, Carrier: i.link != linkDown,
			Addresses: i.addresses})
	}
	return out
}
