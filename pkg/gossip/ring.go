package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// retryListen is the pause between two attempts to listen.
	retryListen = time.Second
	// checkMembers is how often a ring looks after its members when none is absent and nothing happens.
	checkMembers = 30 * time.Second
	// maxJoins is how many absent members are asked at once.
	maxJoins = 8
)

type counters struct {
	sent, received, foreign, badKey, refused, conflicts, rejoins, udpLost atomic.Uint64
}

// A ring is memberlist on one network.
type ring struct {
	g       *Gossip
	network string
	address netip.AddrPort
	kick    chan struct{} // a member has left, or the membership has changed
	cancel  context.CancelFunc
	done    chan struct{}
	count   counters

	mu    sync.Mutex
	list  *memberlist.Memberlist // nil until it listens
	nodes map[string]*seen       // memberlist's word about others, members or removed ones

	stopped bool
}

type seen struct {
	up    bool
	since time.Time
	rtt   time.Duration
}

func (r *ring) start(ctx context.Context) {
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	r.nodes = map[string]*seen{}
	r.g.wg.Go(func() {
		defer close(r.done)
		r.run(ctx)
	})
}

// stop ends the ring and waits for it; its members are down.
func (r *ring) stop() {
	r.cancel()
	<-r.done
	r.mu.Lock()
	r.stopped = true // memberlist's goroutines may have a last word
	r.mu.Unlock()
	r.publish()
}

func (r *ring) poke() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run listens, then keeps asking absent members to join.
func (r *ring) run(ctx context.Context) {
	list := r.listen(ctx)
	if list == nil {
		return
	}
	defer list.Shutdown()
	for {
		pause := checkMembers
		if r.rejoin(ctx, list) > 0 {
			pause = r.g.cfg.Timing.Rejoin
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-r.kick:
			t.Stop()
		case <-t.C:
		}
	}
}

// listen tries until the network is there.
func (r *ring) listen(ctx context.Context) *memberlist.Memberlist {
	for first := true; ; first = false {
		list, err := r.create(ctx)
		if err == nil {
			r.mu.Lock()
			r.list = list
			r.mu.Unlock()
			if !first {
				r.g.log.Info("gossip listens", "network", r.network, "address", r.address.String())
			}
			return list
		}
		if first {
			r.g.log.Warn("gossip cannot listen; trying again every second", "network", r.network, "address", r.address.String(), "error", err)
		}
		t := time.NewTimer(retryListen)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

func (r *ring) create(ctx context.Context) (*memberlist.Memberlist, error) {
	cfg := &r.g.cfg
	packet, err := cfg.ListenPacket(r.address.String())
	if err != nil {
		return nil, err
	}
	stream, err := cfg.Listen(r.address.String())
	if err != nil {
		packet.Close()
		return nil, err
	}
	tr := &transport{ctx: ctx, label: cfg.ClusterUUID, packet: packet, stream: stream, address: r.address, dial: cfg.Dial, count: &r.count}
	tr.start()
	c := memberlist.DefaultLANConfig()
	cfg.Timing.apply(c)
	c.Name, c.Label, c.Keyring = cfg.Node, cfg.ClusterUUID, r.g.keys
	c.Transport = tr
	c.Events, c.Alive, c.Conflict, c.Ping = r, r, r, r
	c.LogOutput, c.Logger = nil, log.New(&lines{log: r.g.log.With("network", r.network), count: &r.count}, "", 0)
	list, err := memberlist.Create(c)
	if err != nil {
		return nil, errors.Join(err, tr.Shutdown())
	}
	return list, nil
}

// rejoin asks the absent members to join, and returns how many there are.
func (r *ring) rejoin(ctx context.Context, list *memberlist.Memberlist) int {
	r.publish()
	absent := r.absent()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxJoins)
	for _, address := range absent {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return 0
		}
		wg.Go(func() {
			r.count.rejoins.Add(1)
			_, _ = list.Join([]string{address}) // the outcome shows in the events; errors are in memberlist's log
			<-slots
		})
	}
	return len(absent)
}

// absent lists the addresses of the members that memberlist does not hold for alive.
func (r *ring) absent() []string {
	members := r.g.cfg.Members(r.network)
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name, address := range members {
		if s := r.nodes[name]; name == r.g.cfg.Node || s != nil && s.up {
			continue
		}
		if a, err := addrPort(address); err == nil {
			out = append(out, a.String())
		}
	}
	return out
}

// publish makes events of memberlist's word, as far as it is about members: who was removed is down, although memberlist goes
// on probing it until it is silent, and who came back is up.
func (r *ring) publish() {
	members := r.g.cfg.Members(r.network)
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range r.nodes {
		_, member := members[name]
		r.g.events.set(r.network, name, s.up && member && !r.stopped)
		if !s.up && !member {
			delete(r.nodes, name)
		}
	}
}

// set takes memberlist's word about a node. NotifyAlive has refused whoever never was a member.
func (r *ring) set(name string, up bool) {
	if name == r.g.cfg.Node {
		return
	}
	_, member := r.g.cfg.Members(r.network)[name]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	s := r.nodes[name]
	if s == nil {
		s = &seen{}
		r.nodes[name] = s
	}
	if s.up != up {
		s.up, s.since = up, time.Now()
	}
	r.g.events.set(r.network, name, up && member)
	if !up {
		r.poke()
	}
}

// NotifyJoin is memberlist's word that a node is alive.
func (r *ring) NotifyJoin(n *memberlist.Node) { r.set(n.Name, true) }

// NotifyLeave is memberlist's word that a node is dead or has left.
func (r *ring) NotifyLeave(n *memberlist.Node) { r.set(n.Name, false) }

// NotifyUpdate is not used: nodes carry no data.
func (r *ring) NotifyUpdate(*memberlist.Node) {}

// NotifyAlive refuses whoever is not a member at the address that the membership gives.
func (r *ring) NotifyAlive(n *memberlist.Node) error {
	if n.Name == r.g.cfg.Node {
		return nil
	}
	address, ok := r.g.cfg.Members(r.network)[n.Name]
	if !ok {
		r.count.refused.Add(1)
		return fmt.Errorf("node %s is not a member on network %s", n.Name, r.network)
	}
	want, err := addrPort(address)
	if err != nil {
		return err
	}
	if got := n.Address(); got != want.String() {
		r.count.refused.Add(1)
		return fmt.Errorf("node %s has the address %s on network %s, not %s", n.Name, want, r.network, got)
	}
	return nil
}

// NotifyConflict is memberlist's word that two nodes use one name.
func (r *ring) NotifyConflict(known, other *memberlist.Node) {
	if r.count.conflicts.Add(1) == 1 {
		r.g.log.Warn("two nodes gossip under one name", "network", r.network, "node", known.Name, "address", known.Address(),
			"other", other.Address())
	}
}

// AckPayload is empty.
func (r *ring) AckPayload() []byte { return nil }

// NotifyPingComplete tells that a node answered our probe.
func (r *ring) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	r.mu.Lock()
	s := r.nodes[n.Name]
	if s != nil {
		s.rtt = rtt
	}
	r.mu.Unlock()
	if s != nil && r.g.cfg.OnHeard != nil {
		r.g.cfg.OnHeard(r.network, n.Name)
	}
}

func (r *ring) isUp(node string) bool {
	_, member := r.g.cfg.Members(r.network)[node]
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.nodes[node]
	return member && s != nil && s.up
}

func (r *ring) status() []Status {
	members := r.g.cfg.Members(r.network)
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Status
	for name := range members {
		if name == r.g.cfg.Node {
			continue
		}
		st := Status{Network: r.network, Node: name}
		if s := r.nodes[name]; s != nil {
			st.Up, st.Since, st.RTT = s.up, s.since, s.rtt
		}
		out = append(out, st)
	}
	return out
}

func (r *ring) counters() Counters {
	c := Counters{Network: r.network, Sent: r.count.sent.Load(), Received: r.count.received.Load(), Foreign: r.count.foreign.Load(),
		BadKey: r.count.badKey.Load(), Refused: r.count.refused.Load(), Conflicts: r.count.conflicts.Load(),
		Rejoins: r.count.rejoins.Load(), UDPLost: r.count.udpLost.Load()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list != nil {
		c.Health = r.list.GetHealthScore()
	}
	return c
}

func (r *ring) leave(timeout time.Duration) {
	r.mu.Lock()
	list := r.list
	r.mu.Unlock()
	if list == nil {
		return
	}
	if err := list.Leave(timeout); err != nil {
		r.g.log.Debug("leaving was not heard by all", "network", r.network, "error", err)
	}
}

// lines takes memberlist's log, a line a call.
type lines struct {
	log   *slog.Logger
	count *counters
	warn  sync.Once
}

// Write counts what has a counter and passes the line on at debug level.
func (l *lines) Write(b []byte) (int, error) {
	switch {
	case bytes.Contains(b, []byte("unacceptable label")):
		l.count.foreign.Add(1)
	case bytes.Contains(b, []byte("Decrypt packet failed")), bytes.Contains(b, []byte("keys could decrypt")),
		bytes.Contains(b, []byte("is not encrypted")):
		l.count.badKey.Add(1)
	case bytes.Contains(b, []byte("over TCP but UDP probes failed")):
		l.count.udpLost.Add(1)
		l.warn.Do(func() {
			l.log.Warn("a node answers by TCP while its UDP packets get lost: look at the network's MTU and filters (told once)",
				"memberlist", string(bytes.TrimSpace(b)))
		})
	}
	l.log.Debug("memberlist", "line", string(bytes.TrimSpace(b)))
	return len(b), nil
}

// addrPort reads ip:port or ip.
func addrPort(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		s = net.JoinHostPort(a.String(), DefaultPort)
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q is no address with port", s)
	}
	// memberlist compares addresses byte by byte.
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}
