package executor

import (
	"context"
	"net/netip"
	"slices"
)

// A LinkEvent is the state of a network interface, as its watch reports it first, and then at each change.
type LinkEvent struct {
	Interface string
	Index     int            // a number for the interface that stays the same while the watch goes on
	Present   bool           // false: the interface is gone
	Up        bool           // administratively
	Carrier   bool           // the physical link is there, as far as the system can say
	Addresses []netip.Prefix // in an order that does not change by itself
}

func (e LinkEvent) same(other LinkEvent) bool {
	return e.Interface == other.Interface && e.Up == other.Up && e.Carrier == other.Carrier && slices.Equal(e.Addresses, other.Addresses)
}

// Links is what a watch has reported so far, by index.
type Links map[int]LinkEvent

// Report sends what differs from what was reported: now is a look at all interfaces. It returns false when the context has ended.
func (known Links) Report(ctx context.Context, out chan<- LinkEvent, now []LinkEvent) bool {
	var events []LinkEvent
	seen := map[int]bool{}
	for _, e := range now {
		seen[e.Index] = true
		if old, ok := known[e.Index]; !ok || !old.same(e) {
			events = append(events, e)
		}
	}
	for index, old := range known {
		if !seen[index] {
			events = append(events, LinkEvent{Interface: old.Interface, Index: index})
		}
	}
	slices.SortFunc(events, func(a, b LinkEvent) int { return a.Index - b.Index })
	for _, e := range events {
		select {
		case out <- e:
		case <-ctx.Done():
			return false
		}
		if known[e.Index] = e; !e.Present {
			delete(known, e.Index)
		}
	}
	return true
}
