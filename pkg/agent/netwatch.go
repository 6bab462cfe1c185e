package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/linux"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

const (
	askEvery    = time.Second            // between questions on an interface, while all is well
	askSeldom   = 2 * time.Second        // where nothing is asked as long as others are heard on the network
	askWait     = 200 * time.Millisecond // for the answer to one
	askAgain    = 2                      // questions after another node has said that it is answered
	witnessWait = 700 * time.Millisecond // for what other nodes say
	steerWait   = 100 * time.Millisecond // between tries to lead routes around a failed interface
)

// nicEvent says that one of several interfaces of this node on a network has failed, or works again.
type nicEvent struct {
	network, nic string
	failed       string // why; empty: it works again
	at           lease.Instant
}

// linkEvent says how this node stands on one network: whether any of its interfaces there works.
type linkEvent struct {
	network string
	up      bool
	detail  string
}

// A netWatcher follows this node's interfaces, in one goroutine: what the system says of them, and on whom they hear. It posts what
// changes, and sees to it that routes avoid an interface that has failed before anything else learns of it.
type netWatcher struct {
	m      *member
	table  *nicTable
	up     map[string]bool   // network -> as last posted
	failed map[string]string // interface -> why, as last posted
	asking map[string]bool   // network -> a round is under way
	rounds chan nicRound
	asked  map[string]lease.Instant
	steer  bool // routes were led around, or should be
}

// nicRound is the outcome of one question on each interface of a network.
type nicRound struct {
	network   string
	answered  map[string]bool
	elsewhere bool // another node is answered there
}

// watchLinks follows this node's interfaces until the context ends.
func (m *member) watchLinks(ctx context.Context) {
	links, err := m.opt.WatchLinks(ctx)
	if err != nil {
		m.log.Info("interfaces are not watched: a lost network shows only by silence", "why", err)
		return
	}
	w := &netWatcher{m: m, table: newNICTable(m.name, m.clock.Now()), up: map[string]bool{}, failed: map[string]string{},
		asking: map[string]bool{}, rounds: make(chan nicRound, 8), asked: map[string]lease.Instant{}}
	_, moves := m.executors[executor.KindServiceIP].(executor.Mover)
	w.table.stay = !moves
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-links:
			if !ok {
				return
			}
			w.table.see(e)
		case r := <-w.rounds:
			w.take(r)
		case <-m.networks:
		case <-timer.C:
		}
		timer.Stop()
		if next := w.look(ctx); next > 0 {
			timer.Reset(next)
		}
	}
}

// look brings everything up to date. It returns after which time it should be called again; 0: when something happens.
func (w *netWatcher) look(ctx context.Context) time.Duration {
	d := w.m.view().Definition
	if d == nil || d.Node(w.m.name) == nil {
		return 0
	}
	now := w.m.clock.Now()
	var next time.Duration
	sooner := func(t time.Duration) {
		if t = max(t, time.Millisecond); next == 0 || t < next {
			next = t
		}
	}
	if again := w.table.follow(d, now); again != 0 {
		sooner(again.Sub(now))
	}
	for _, n := range w.table.networks {
		judge(n.nics, false)
	}
	w.publish(d)
	if !w.leadAround() {
		sooner(steerWait)
	}
	w.report(now)
	for name, n := range w.table.networks {
		if every := w.pace(d, n); every != 0 {
			sooner(w.ask(ctx, d, name, n, every, now))
		}
	}
	return next
}

// pace is how often a network's interfaces ask whether anybody is there; 0: never. Where there are several, each must know for
// itself. A single one need ask only when nobody is heard, and only if there is another network over which others can say that it
// is this node's fault.
func (w *netWatcher) pace(d *cluster.Definition, n *nicNetwork) time.Duration {
	switch {
	case w.m.opt.AskNeighbours == nil || len(n.nics) == 0 || len(d.Nodes) < 2:
		return 0
	case len(n.nics) > 1:
		return askEvery
	case len(w.table.networks) > 1:
		return askSeldom
	}
	return 0
}

// ask begins a round on a network if one is due, and says when the next is.
func (w *netWatcher) ask(ctx context.Context, d *cluster.Definition, network string, n *nicNetwork, every time.Duration, now lease.Instant) time.Duration {
	doubt := slices.ContainsFunc(n.nics, func(x *nic) bool { return x.link == "" && x.misses > 0 && x.misses <= missLimit })
	if doubt {
		every = askWait
	}
	if since := now.Sub(w.asked[network]); w.asking[network] || since < every {
		return max(every-since, askWait)
	}
	w.asked[network] = now
	if len(n.nics) == 1 && n.nics[0].misses == 0 && w.m.hears(d, network, now) {
		book(n.nics, map[string]bool{n.nics[0].name: true})
		return every
	}
	targets := targetsOf(d, network, w.m.name, "")
	var names []string
	mute := true // nobody has been heard for so long that others must say whether it is us
	for _, x := range n.nics {
		if x.link == "" {
			names = append(names, x.name)
			mute = mute && x.misses+1 >= missLimit
		}
	}
	if len(targets) == 0 || len(names) == 0 {
		return every
	}
	w.asking[network] = true
	w.m.work.Go(func() {
		r := nicRound{network: network, answered: w.m.askOn(ctx, names, targets)}
		if mute && !anyTrue(r.answered) {
			r.elsewhere = w.m.worksElsewhere(ctx, d, network)
		}
		// What others say is of now, and our silence of before: they may be answered because all are again.
		for range askAgain {
			if r.elsewhere && !anyTrue(r.answered) {
				r.answered = w.m.askOn(ctx, names, targets)
			}
		}
		r.elsewhere = r.elsewhere && !anyTrue(r.answered)
		select {
		case w.rounds <- r:
		case <-ctx.Done():
		}
	})
	return every
}

// take books the outcome of a round.
func (w *netWatcher) take(r nicRound) {
	delete(w.asking, r.network)
	n := w.table.networks[r.network]
	if n == nil {
		return
	}
	book(n.nics, r.answered)
	judge(n.nics, r.elsewhere)
}

// leadAround makes routes avoid the failed interfaces of networks that have others. It reports whether that is done.
func (w *netWatcher) leadAround() bool {
	var names []string
	var detours []linux.Detour
	for _, name := range sortedKeys(w.table.networks) {
		n := w.table.networks[name]
		if len(n.nics) < 2 {
			continue
		}
		well := working(n.nics)
		for _, x := range n.nics {
			names = append(names, x.name)
			if x.failed != "" && len(well) > 0 {
				detours = append(detours, linux.Detour{From: x.name, To: well[0].name, Own: []netip.Addr{n.address}})
			}
		}
	}
	if w.m.opt.SteerRoutes == nil || len(names) == 0 && !w.steer {
		return true
	}
	w.steer = len(detours) > 0
	if err := w.m.opt.SteerRoutes(names, detours); err != nil {
		w.m.log.Warn("routes could not be led around a failed interface", "error", err)
		return false
	}
	return true
}

// publish makes known to the work on groups which interfaces have failed, and to other nodes' questions which there are.
func (w *netWatcher) publish(d *cluster.Definition) {
	v := nicView{nics: map[string][]string{}}
	for name, n := range w.table.networks {
		for _, x := range n.nics {
			if x.link == "" {
				v.nics[name] = append(v.nics[name], x.name)
			}
			if x.failed != "" {
				v.failed = append(v.failed, x.name)
			}
		}
	}
	slices.Sort(v.failed)
	v.definition = d
	w.m.nics.set(v)
}

// report posts what has changed: first the interfaces, then the networks.
func (w *netWatcher) report(now lease.Instant) {
	there := map[string]bool{}
	for _, name := range sortedKeys(w.table.networks) {
		n := w.table.networks[name]
		if len(n.nics) == 0 {
			continue
		}
		detail := ""
		for _, x := range n.nics {
			there[x.name] = true
			if was := w.failed[x.name]; was != x.failed && (was == "" || x.failed == "") && len(n.nics) > 1 {
				w.m.post(nicEvent{network: name, nic: x.name, failed: x.failed, at: now})
			}
			if w.failed[x.name] = x.failed; x.failed != "" {
				detail += fmt.Sprintf("; interface %s: %s", x.name, x.failed)
			}
		}
		up := len(working(n.nics)) > 0
		if was, seen := w.up[name]; !seen || was != up {
			w.up[name] = up
			if len(detail) > 2 {
				detail = detail[2:]
			}
			w.m.post(linkEvent{network: name, up: up, detail: detail})
		}
	}
	for name := range w.failed {
		if !there[name] {
			delete(w.failed, name)
		}
	}
	for name := range w.up {
		if _, still := w.table.networks[name]; !still {
			delete(w.up, name)
		}
	}
}

// nicView is what others than the watcher know of this node's interfaces.
type nicView struct {
	definition *cluster.Definition
	nics       map[string][]string // network -> interfaces that the system sees nothing wrong with
	failed     []string
}

// nicBoard carries a nicView from the watcher to everybody.
type nicBoard struct {
	mu sync.Mutex
	v  nicView
}

func (b *nicBoard) set(v nicView) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.v = v
}

func (b *nicBoard) get() nicView {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.v
}

// hears reports whether any other node was heard on the network's ring of late.
func (m *member) hears(d *cluster.Definition, network string, now lease.Instant) bool {
	m.detMu.Lock()
	defer m.detMu.Unlock()
	for i := range d.Nodes {
		for _, h := range m.det.Heard(d.Nodes[i].Name, now) {
			if h.Path == detector.GossipOn(network) && h.Ago < 2*askSeldom {
				return true
			}
		}
	}
	return false
}

// askOn asks the targets on each of the interfaces, side by side. An interface that cannot be asked is left out.
func (m *member) askOn(ctx context.Context, names []string, targets []netip.Addr) map[string]bool {
	out := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			yes, err := m.opt.AskNeighbours(ctx, name, targets, askWait)
			if err != nil {
				m.log.Debug("an interface cannot ask its neighbours", "interface", name, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = yes
		})
	}
	wg.Wait()
	return out
}

// worksElsewhere asks the other nodes, over whatever network reaches them, whether they are answered on the network by anybody but
// this node.
func (m *member) worksElsewhere(ctx context.Context, d *cluster.Definition, network string) bool {
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	answers := make(chan bool, len(d.Nodes))
	asked := 0
	for i := range d.Nodes {
		name := d.Nodes[i].Name
		if name == m.name || d.Nodes[i].Addresses[network] == "" {
			continue
		}
		asked++
		m.work.Go(func() {
			out, err := m.links.Call(ctx, name, rpcNetwork, []byte(network))
			var yes bool
			answers <- err == nil && json.Unmarshal(out, &yes) == nil && yes
		})
	}
	for range asked {
		if <-answers {
			return true
		}
	}
	return false
}

// serveNetwork says whether this node is answered on a network now, by anybody but the one who asks: it looks before it speaks.
func (m *member) serveNetwork(ctx context.Context, from string, body []byte) ([]byte, error) {
	v, network := m.nics.get(), string(body)
	if v.definition == nil || m.opt.AskNeighbours == nil {
		return json.Marshal(false)
	}
	targets := targetsOf(v.definition, network, m.name, from)
	if len(targets) == 0 || len(v.nics[network]) == 0 {
		return json.Marshal(false)
	}
	return json.Marshal(anyTrue(m.askOn(ctx, v.nics[network], targets)))
}

func (m *member) gotLink(e linkEvent) {
	n := &m.loop.node
	m.log.Info("network", "network", e.network, "up", e.up, "detail", e.detail)
	if e.up {
		delete(n.downNets, e.network)
		n.announceAt = announcePlan(m.clock.Now())
	} else {
		n.downNets[e.network] = e.detail
	}
	m.repoDown.Store(int32(len(n.downNets)))
}

// reportNetworks brings the standing of this node's networks into the log, until it shows it.
func (m *member) reportNetworks(view *state.State, _ lease.Instant) {
	n, self := &m.loop.node, view.Node(m.name)
	inc := m.incarnation(view)
	if self == nil || inc == 0 || self.Dead != nil || view.Definition == nil {
		return
	}
	for _, w := range view.Definition.Networks {
		if why, down := n.downNets[w.Name]; down != self.NetworkDown(w.Name) {
			word := "works again"
			if down {
				word = "is lost on all interfaces"
				if why != "" {
					word += " (" + why + ")"
				}
			}
			m.once("network/"+w.Name, &state.Command{NetworkState: &state.NetworkState{Node: m.name, Incarnation: inc, Network: w.Name,
				Up: !down, Sentence: fmt.Sprintf("network %s of node %s %s", w.Name, m.name, word)}})
		}
	}
}

// noteLostNetworks adds to the history when a network is lost on all nodes, or comes back: PowerHA's network_down without a node. No
// group moves for it, because nowhere would be better.
func (m *member) noteLostNetworks(led *leadership, view *state.State) {
	if view.Definition == nil {
		return
	}
	first := led.netsDown == nil
	if first {
		led.netsDown = map[string]bool{}
	}
	for _, w := range view.Definition.Networks {
		alive, lost := 0, 0
		for i := range view.Definition.Nodes {
			d := &view.Definition.Nodes[i]
			if n := view.Node(d.Name); n.Alive() && d.Addresses[w.Name] != "" {
				alive++
				if n.NetworkDown(w.Name) {
					lost++
				}
			}
		}
		down := alive > 1 && lost == alive
		if was := led.netsDown[w.Name]; was == down {
			continue
		}
		led.netsDown[w.Name] = down
		switch {
		case first: // an earlier leader has noted it
		case down:
			m.noteLater(state.Note{Event: state.EventNetworkDown, Sentence: "network " + w.Name + " is lost on all nodes: no group moves for it"})
		default:
			m.noteLater(state.Note{Event: state.EventNetworkUp, Sentence: "network " + w.Name + " is no longer lost on all nodes"})
		}
	}
}
