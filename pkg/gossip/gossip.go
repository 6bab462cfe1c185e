package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// DefaultPort is for gossip, UDP and TCP, on each cluster network.
const DefaultPort = "6192"

// A Ring is this node's place on one cluster network.
type Ring struct {
	Network string
	// Address is this node's address on the network, ip:port or ip (DefaultPort).
	Address string
}

// Config says how gossip runs. All but the last group is needed.
type Config struct {
	Node        string
	ClusterUUID string
	Key         []byte // 16, 24 or 32 bytes; what is sent is encrypted with it
	// OtherKeys are understood too, while the key is being changed (SetKeys).
	OtherKeys [][]byte
	Timing    Timing
	Rings     []Ring
	// Members gives the members that have an address on the network, ip:port or ip, the own node among them or not. It is
	// called often, by any goroutine, under locks: it must not block. The map is only read.
	Members func(network string) map[string]string

	// Logger is slog.Default() if nil. memberlist's own lines go to its debug level.
	Logger *slog.Logger
	// OnHeard, if set, is called when a member answered a probe. It must not block.
	OnHeard func(network, node string)
	// The three functions replace UDP and TCP.
	ListenPacket func(address string) (net.PacketConn, error)
	Listen       func(address string) (net.Listener, error)
	Dial         func(ctx context.Context, address string) (net.Conn, error)
}

// An Event says that a member has become reachable over a network, or is so no longer.
type Event struct {
	Network string
	Node    string
	Up      bool
}

// Gossip is the rings of one node. Its methods may be called by any goroutine.
type Gossip struct {
	cfg    Config
	log    *slog.Logger
	events events
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	keys   *memberlist.Keyring // of all rings

	mu    sync.Mutex
	rings map[string]*ring
}

// New starts the rings. It does not wait for the network: an address that cannot be listened on is tried again every second.
func New(cfg Config) (*Gossip, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{cfg: cfg, log: cfg.Logger.With("component", "gossip"), rings: map[string]*ring{}}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	var err error
	if g.keys, err = memberlist.NewKeyring(cfg.OtherKeys, cfg.Key); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.events.init()
	g.wg.Go(func() { g.events.pump(g.ctx.Done()) })
	if err := g.SetRings(cfg.Rings); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (c *Config) complete() error {
	if c.Node == "" || c.ClusterUUID == "" || c.Members == nil || c.Timing.ProbeInterval <= 0 {
		return errors.New("node, cluster uuid, members and timing are needed")
	}
	if n := len(c.Key); n != 16 && n != 24 && n != 32 {
		return fmt.Errorf("the gossip key has %d bytes; 16, 24 or 32 are needed", n)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.ListenPacket == nil {
		c.ListenPacket = func(a string) (net.PacketConn, error) { return net.ListenPacket("udp", a) }
	}
	if c.Listen == nil {
		c.Listen = func(a string) (net.Listener, error) { return net.Listen("tcp", a) }
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, a string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", a)
		}
	}
	return nil
}

// SetRings makes these the rings: new ones start, those that are missing end, one whose address has changed starts anew. An
// address that is not one changes nothing.
func (g *Gossip) SetRings(rings []Ring) error {
	want := map[string]*ring{}
	for _, r := range rings {
		address, err := addrPort(r.Address)
		if err != nil {
			return fmt.Errorf("start gossip on network %s: %w", r.Network, err)
		}
		want[r.Network] = &ring{g: g, network: r.Network, address: address, kick: make(chan struct{}, 1)}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return net.ErrClosed
	}
	for n, r := range g.rings {
		if w := want[n]; w != nil && w.address == r.address {
			delete(want, n)
			continue
		}
		r.stop()
		delete(g.rings, n)
	}
	for n, r := range want {
		g.rings[n] = r
		r.start(g.ctx)
	}
	return nil
}

// SetKeys makes these the keys: the first is sent with, all are understood. It takes effect at once, on all rings, and ends
// nothing. A key that a member does not have yet makes it deaf to this node, and nothing worse: so a new key is first added
// everywhere, then used, and the old one removed when nobody sends with it any more.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("change the gossip keys: there is none")
	}
	for _, k := range keys {
		if err := g.keys.AddKey(k); err != nil {
			return fmt.Errorf("change the gossip keys: %w", err)
		}
	}
	if err := g.keys.UseKey(keys[0]); err != nil {
		return fmt.Errorf("change the gossip keys: %w", err)
	}
	// From the last one on: the keyring moves up what follows a key that it removes, under the eyes of those who read the list.
	for _, old := range slices.Backward(slices.Clone(g.keys.GetKeys())) {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := g.keys.RemoveKey(old); err != nil {
				return fmt.Errorf("change the gossip keys: %w", err)
			}
		}
	}
	return nil
}

// Refresh tells that what Members gives has changed.
func (g *Gossip) Refresh() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rings {
		r.poke()
	}
}

// Events is where changes come. Only one goroutine should read. A reader that is slow finds the newest state of each member, not
// each step on the way to it. At the beginning all members count as down. Close closes the channel.
func (g *Gossip) Events() <-chan Event { return g.events.out }

// A Status is what is known of one member on one network.
type Status struct {
	Network string
	Node    string
	Up      bool
	Since   time.Time     // of the last change; zero if there was none
	RTT     time.Duration // of the last probe that was answered; zero if there was none
}

// Status lists all members on all networks of this node, in alphabetical order.
func (g *Gossip) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Status
	for _, r := range g.rings {
		out = append(out, r.status()...)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Network < out[j].Network || out[i].Network == out[j].Network && out[i].Node < out[j].Node
	})
	return out
}

// Up reports whether a member is reachable over a network, as far as gossip knows.
func (g *Gossip) Up(network, node string) bool {
	g.mu.Lock()
	r := g.rings[network]
	g.mu.Unlock()
	return r != nil && r.isUp(node)
}

// Counters are running totals of one ring, for metrics.
type Counters struct {
	Network   string
	Sent      uint64 // packets
	Received  uint64 // packets, strangers' included
	Foreign   uint64 // packets and streams of another cluster, by their label
	BadKey    uint64 // packets and streams that our key does not open
	Refused   uint64 // announcements of nodes that are no members, or at an address that is not theirs
	Conflicts uint64 // two nodes use one name
	Rejoins   uint64 // attempts to reach an absent member
	UDPLost   uint64 // a member answers by TCP while its packets get lost: a matter of MTU or of a filter
	Health    int    // memberlist's doubt in this node's own health; 0 is best
}

// Counters lists the totals of all rings, by network.
func (g *Gossip) Counters() []Counters {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Counters
	for _, r := range g.rings {
		out = append(out, r.counters())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Network < out[j].Network })
	return out
}

// Leave tells the others that this node goes on purpose, so that they need not find out. It waits for that at most for the
// timeout. Close follows; a node that only restarts its daemon closes without leaving.
func (g *Gossip) Leave(timeout time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var wg sync.WaitGroup
	for _, r := range g.rings {
		wg.Go(func() { r.leave(timeout) })
	}
	wg.Wait()
}

// Close ends all rings and waits for everything that was started here. Some of memberlist's own goroutines end up to a minute
// later.
func (g *Gossip) Close() error {
	g.mu.Lock()
	g.cancel()
	for _, r := range g.rings {
		r.stop()
	}
	g.mu.Unlock()
	g.wg.Wait()
	return nil
}

// events holds the newest state of each member until the reader takes it.
type events struct {
	mu    sync.Mutex
	queue []key        // changed since the reader saw them, each once
	state map[key]bool // newest
	seen  map[key]bool // as the reader knows it
	wake  chan struct{}
	out   chan Event
}

type key struct{ network, node string }

func (e *events) init() {
	e.state, e.seen = map[key]bool{}, map[key]bool{}
	e.wake, e.out = make(chan struct{}, 1), make(chan Event)
}

// set never blocks. It reports whether the state is new.
func (e *events) set(network, node string, up bool) bool {
	k := key{network, node}
	e.mu.Lock()
	changed := e.state[k] != up
	if changed {
		e.state[k] = up
		e.enqueue(k)
	}
	e.mu.Unlock()
	if changed {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
	return changed
}

// enqueue is called with the lock.
func (e *events) enqueue(k key) {
	if slices.Contains(e.queue, k) {
		return
	}
	e.queue = append(e.queue, k)
}

// next takes the first change that the reader does not know.
func (e *events) next() (Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.queue) > 0 {
		k := e.queue[0]
		e.queue = e.queue[1:]
		up := e.state[k]
		if !up {
			delete(e.state, k)
		}
		if e.seen[k] == up {
			continue
		}
		if e.seen[k] = up; !up {
			delete(e.seen, k)
		}
		return Event{k.network, k.node, up}, true
	}
	return Event{}, false
}

func (e *events) pump(done <-chan struct{}) {
	defer close(e.out)
	for {
		ev, ok := e.next()
		if !ok {
			select {
			case <-e.wake:
				continue
			case <-done:
				return
			}
		}
		select {
		case e.out <- ev:
		case <-done:
			return
		}
	}
}
