package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Timing is how a ring is tuned. Detection takes up to one probe interval until somebody probes the dead node, one more for the
// probe itself, and then SuspicionMult probe intervals in which it may object.
type Timing struct {
	ProbeInterval time.Duration
	ProbeTimeout  time.Duration // for the direct probe; indirect ones and a ping by TCP have the rest of the interval
	SuspicionMult int
	// GossipInterval is for news only; probes carry them too.
	GossipInterval time.Duration
	// StreamTimeout bounds a join, a state exchange, and each of their reads and writes.
	StreamTimeout time.Duration
	// AwarenessMax bounds how much a node that doubts its own health slows its probes down.
	AwarenessMax int
	// Rejoin is the pause between two attempts to reach an absent member.
	Rejoin time.Duration
}

var timings = map[string]Timing{
	"default": {ProbeInterval: time.Second, ProbeTimeout: 250 * time.Millisecond, SuspicionMult: 2, GossipInterval: time.Second,
		StreamTimeout: time.Second, AwarenessMax: 2, Rejoin: time.Second},
	"fast": {ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 80 * time.Millisecond, SuspicionMult: 2, GossipInterval: 200 * time.Millisecond,
		StreamTimeout: 400 * time.Millisecond, AwarenessMax: 2, Rejoin: time.Second},
	"careful": {ProbeInterval: time.Second, ProbeTimeout: 500 * time.Millisecond, SuspicionMult: 3, GossipInterval: time.Second,
		StreamTimeout: 3 * time.Second, AwarenessMax: 4, Rejoin: time.Second},
}

// TimingFor returns the tuning for a timing profile of package lease; the empty name is "default".
func TimingFor(profile string) (Timing, error) {
	if profile == "" {
		profile = "default"
	}
	t, ok := timings[profile]
	if !ok {
		return Timing{}, fmt.Errorf("no gossip timing for profile %q; there are %v", profile, lease.Profiles())
	}
	return t, nil
}

// apply sets memberlist's configuration, which starts from its values for a LAN.
func (t Timing) apply(c *memberlist.Config) {
	c.ProbeInterval, c.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = t.SuspicionMult, 2
	c.GossipInterval = t.GossipInterval
	c.TCPTimeout = t.StreamTimeout
	c.AwarenessMaxMultiplier = t.AwarenessMax
	c.IndirectChecks = 2
	c.DisableTcpPings = false // without them 10 % loss of packets kills living nodes
	c.PushPullInterval = time.Minute
	c.QueueCheckInterval = 10 * time.Minute
	c.GossipToTheDeadTime = 10 * time.Second
	// A dead name at a new address is refused for so long; addresses change by configuration only.
	c.DeadNodeReclaimTime = 10 * time.Second
	c.EnableCompression = false // messages are small, compressing them costs more than sending
}
