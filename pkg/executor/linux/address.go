package linux

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultProbeWait is how long one ARP or neighbour-solicitation probe is awaited before an address is taken. The lease and
// the log already say that nobody of the cluster holds it; the probe finds foreigners.
const DefaultProbeWait = 50 * time.Millisecond

// preparedFor is how long a probe that was made ahead, and that nobody answered, spares the one before an address is taken. A
// foreigner that takes the address in between is not seen by either: not in that time, nor right after a probe.
const preparedFor = 500 * time.Millisecond

// announceAfter is when an address is announced after it was taken: switches and neighbours may miss the first frames, for
// example because a port has just come up.
var announceAfter = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// AddressOptions configure the address executors. The zero value is usable.
type AddressOptions struct {
	ProbeWait time.Duration // default DefaultProbeWait; negative: addresses are taken without looking
	Logger    *slog.Logger
}

// A Detour leads what would leave through one interface through another one of the same network.
type Detour struct {
	From, To string
	Own      []netip.Addr // the node's own addresses on the network, for which To is announced (IPv4)
}

// A LinkEvent is executor.LinkEvent: the index is the kernel's.
type LinkEvent = executor.LinkEvent
