package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/test/fake"
)

const (
	port = 6192
	uuid = "0a0a0a0a-0000-4000-8000-000000000001"
)

var ringKey = bytes.Repeat([]byte{7}, 32)

// A cluster is some nodes on a fake LAN, all of one membership that the test may change.
type cluster struct {
	t     testing.TB
	lan   *fake.LAN
	nets  []string
	nodes map[string]*Gossip

	mu      sync.Mutex
	members map[string]bool
	log     []string // "n1: n2 down on net1"
	at      []time.Time
	wg      sync.WaitGroup
}

func newCluster(t testing.TB, profile string, nets []string, names ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, lan: fake.NewLAN(nets...), nets: nets, nodes: map[string]*Gossip{}, members: map[string]bool{}}
	for _, n := range names {
		c.lan.Host(n)
		c.members[n] = true
	}
	for _, n := range names {
		c.start(n, profile, nil)
	}
	return c
}

func (c *cluster) start(name, profile string, change func(*Config)) *Gossip {
	c.t.Helper()
	timing, err := TimingFor(profile)
	if err != nil {
		c.t.Fatal(err)
	}
	h := c.lan.Host(name)
	cfg := Config{
		Node: name, ClusterUUID: uuid, Key: ringKey, Timing: timing, Logger: slog.New(slog.DiscardHandler),
		Members: func(network string) map[string]string {
			c.mu.Lock()
			defer c.mu.Unlock()
			out := map[string]string{}
			for n := range c.members {
				out[n] = c.lan.Host(n).Address(network, port)
			}
			return out
		},
		ListenPacket: h.ListenPacket, Listen: h.Listen, Dial: h.Dial,
	}
	for _, n := range c.nets {
		cfg.Rings = append(cfg.Rings, Ring{n, h.Address(n, port)})
	}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[name] = g
	c.wg.Go(func() {
		for {
			select {
			case e := <-g.Events():
				c.mu.Lock()
				c.log = append(c.log, fmt.Sprintf("%s: %s %s on %s", name, e.Node, word(e.Up), e.Network))
				c.at = append(c.at, time.Now())
				c.mu.Unlock()
			case <-g.ctx.Done():
				return
			}
		}
	})
	return g
}

func word(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func (c *cluster) close() {
	for _, g := range c.nodes {
		g.Close()
	}
	c.wg.Wait()
	time.Sleep(2 * time.Minute) // of fake time: the last of memberlist's goroutines end
}

// all reports whether every node sees every other up (or down) on all networks.
func (c *cluster) all(up bool) bool {
	for _, g := range c.nodes {
		for _, s := range g.Status() {
			if s.Up != up {
				return false
			}
		}
	}
	return true
}

// await waits for a condition and returns how long it took.
func (c *cluster) await(what string, limit time.Duration, cond func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			c.t.Fatalf("%s: not after %v; status %v, log %v", what, limit, c.status(), c.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func (c *cluster) status() map[string][]Status {
	out := map[string][]Status{}
	for n, g := range c.nodes {
		out[n] = g.Status()
	}
	return out
}

func (c *cluster) events() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

func (c *cluster) setMember(name string, member bool) {
	c.mu.Lock()
	if c.members[name] = member; !member {
		delete(c.members, name)
	}
	c.mu.Unlock()
	for _, g := range c.nodes {
		g.Refresh()
	}
}

func onLAN(t *testing.T, profile string, nets []string, names []string, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, profile, nets, names...)
		f(t, c)
		c.close()
	})
}

var three = []string{"n1", "n2", "n3"}

func TestFormsOnAllNetworks(t *testing.T) {
	onLAN(t, "default", []string{"net1", "net2"}, three, func(t *testing.T, c *cluster) {
		took := c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		t.Logf("three nodes on two networks formed in %v", took)
		synctest.Wait()
		if n := len(c.events()); n != 12 {
			t.Errorf("%d events: %v", n, c.events())
		}
		if !c.nodes["n1"].Up("net1", "n2") || c.nodes["n1"].Up("net1", "n1") || c.nodes["n1"].Up("net9", "n2") || c.nodes["n1"].Up("net1", "n9") {
			t.Error("Up disagrees")
		}
		time.Sleep(10 * time.Second)
		for _, s := range c.nodes["n1"].Status() {
			if s.Since.IsZero() {
				t.Errorf("%+v", s)
			}
		}
		for _, k := range c.nodes["n1"].Counters() {
			if k.Sent == 0 || k.Received == 0 || k.Foreign+k.BadKey+k.Refused+k.Conflicts != 0 {
				t.Errorf("%+v", k)
			}
		}
	})
}

// One network of two fails: only that is said.
func TestNetworksAreTold(t *testing.T) {
	onLAN(t, "default", []string{"net1", "net2"}, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		c.lan.Isolate("n3", "net2")
		c.await("n3 down on net2", 10*time.Second, func() bool { return !c.nodes["n1"].Up("net2", "n3") && !c.nodes["n2"].Up("net2", "n3") })
		for _, n := range []string{"n1", "n2"} {
			if !c.nodes[n].Up("net1", "n3") || !c.nodes[n].Up("net2", map[string]string{"n1": "n2", "n2": "n1"}[n]) {
				t.Errorf("%s lost more than it should: %+v", n, c.nodes[n].Status())
			}
		}
	})
}

// TestDetectionTime prints the figures of docs/timing.md: from the silent death of one of three nodes until the first and the
// last survivor says so. Whom memberlist probes next is drawn at random, so the longest time of a few runs says little: it is held
// against what no draw can exceed, and the median against what is usual.
func TestDetectionTime(t *testing.T) {
	usual := map[string]time.Duration{"fast": 1500 * time.Millisecond, "default": 7 * time.Second, "careful": 10 * time.Second}
	for _, profile := range []string{"fast", "default", "careful"} {
		for _, n := range []int{2, 3, 5} {
			const runs = 15
			var first, last []time.Duration
			for run := range runs {
				synctest.Test(t, func(t *testing.T) {
					names := []string{"n1", "n2", "n3", "n4", "n5"}[:n]
					c := newCluster(t, profile, nil1, names...)
					c.await("all up", 10*time.Second, func() bool { return c.all(true) })
					rng := rand.New(rand.NewPCG(uint64(run), 1))
					time.Sleep(5*time.Second + time.Duration(rng.Int64N(int64(2*time.Second))))
					died := time.Now()
					c.lan.Isolate("n1")
					seen := map[string]time.Duration{}
					c.await("n1 down", time.Minute, func() bool {
						for _, o := range names[1:] {
							if _, ok := seen[o]; !ok && !c.nodes[o].Up("net1", "n1") {
								seen[o] = time.Since(died)
							}
						}
						return len(seen) == n-1
					})
					times := slices.Sorted(maps.Values(seen))
					first, last = append(first, times[0]), append(last, times[n-2])
					c.close()
				})
			}
			slices.Sort(first)
			slices.Sort(last)
			t.Logf("%-8s %d nodes: first survivor %v / %v / %v, last survivor %v / %v / %v (min / median / max of %d)", profile, n,
				first[0], first[runs/2], first[runs-1], last[0], last[runs/2], last[runs-1], runs)
			// Each survivor goes through the others in an order that is drawn anew after each pass: the dead node may be the first of one
			// pass and the last of the next. Then the probe itself, and the time to object at its longest.
			timing, err := TimingFor(profile)
			if err != nil {
				t.Fatal(err)
			}
			bound := time.Duration(2*(n-1))*timing.ProbeInterval + time.Duration(2*timing.SuspicionMult)*timing.ProbeInterval
			if last[runs-1] > bound || last[runs/2] > usual[profile] {
				t.Errorf("%s, %d nodes: a death was found after %v (at most %v), usually after %v (at most %v)", profile, n, last[runs-1], bound,
					last[runs/2], usual[profile])
			}
		}
	}
}

var nil1 = []string{"net1"}

// memberlist alone never heals a partition of two nodes.
func TestHealsAfterPartition(t *testing.T) {
	for _, names := range [][]string{three[:2], three} {
		for _, outage := range []time.Duration{0, time.Minute, 20 * time.Minute} {
			onLAN(t, "default", nil1, names, func(t *testing.T, c *cluster) {
				c.await("all up", 5*time.Second, func() bool { return c.all(true) })
				for _, n := range names {
					c.lan.Isolate(n)
				}
				// The time that each takes depends on whom it probes first.
				c.await("each alone", 20*time.Second, func() bool { return c.all(false) })
				time.Sleep(outage)
				if !c.all(false) {
					t.Errorf("%v later: %v", outage, c.status())
				}
				c.lan.Heal()
				took := c.await("healed", 20*time.Second, func() bool { return c.all(true) })
				t.Logf("%d nodes, each known to be alone for %v: whole again %v after the heal", len(names), outage, took)
				if took > 5*time.Second {
					t.Errorf("the heal took %v", took)
				}
			})
		}
	}
}

// A node that dies and comes back as a new process, with all its counters at zero.
func TestRestartedNodeComesBack(t *testing.T) {
	onLAN(t, "default", nil1, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		c.nodes["n3"].Close()
		c.await("n3 down", 10*time.Second, func() bool { return !c.nodes["n1"].Up("net1", "n3") && !c.nodes["n2"].Up("net1", "n3") })
		c.start("n3", "default", nil)
		took := c.await("n3 back", 10*time.Second, func() bool { return c.all(true) })
		t.Logf("a restarted node is back after %v", took)
	})
}

// A daemon that is restarted within the detection time is not noticed, one that leaves is down at once.
func TestCloseAndLeave(t *testing.T) {
	onLAN(t, "default", nil1, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		time.Sleep(5 * time.Second)
		before := len(c.events())
		c.nodes["n3"].Close()
		time.Sleep(100 * time.Millisecond)
		c.start("n3", "default", nil)
		time.Sleep(10 * time.Second)
		for _, e := range c.events()[before:] {
			if !strings.HasPrefix(e, "n3:") {
				t.Errorf("a quick restart was noticed: %s", e)
			}
		}
		c.nodes["n3"].Leave(2 * time.Second)
		took := c.await("n3 down", 2*time.Second, func() bool { return !c.nodes["n1"].Up("net1", "n3") && !c.nodes["n2"].Up("net1", "n3") })
		t.Logf("a node that left is down after %v", took)
	})
}

// A second cluster on the same wire, by label and by key, has no part in the ring, and is counted.
func TestStrangersAreIgnored(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"label": func(c *Config) { c.ClusterUUID = "0b0b0b0b-0000-4000-8000-000000000002" },
		"key":   func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 32) },
	} {
		t.Run(name, func(t *testing.T) {
			onLAN(t, "default", nil1, three[:2], func(t *testing.T, c *cluster) {
				c.await("all up", 5*time.Second, func() bool { return c.all(true) })
				c.setMember("evil", true) // even under a member's name and address
				evil := c.start("evil", "default", change)
				time.Sleep(time.Minute)
				if c.nodes["n1"].Up("net1", "evil") || evil.Up("net1", "n1") {
					t.Error("a stranger is up")
				}
				k := c.nodes["n1"].Counters()[0]
				if name == "label" && k.Foreign == 0 || name == "key" && k.BadKey == 0 {
					t.Errorf("not counted: %+v", k)
				}
				// A packet, too.
				pc, err := c.lan.Host("evil").ListenPacket(":0")
				if err != nil {
					t.Fatal(err)
				}
				before := c.nodes["n1"].Counters()[0]
				for _, p := range [][]byte{[]byte("x"), nil, bytes.Repeat([]byte{244}, 300), append([]byte{244, 36}, uuid+"rubbish"...)} {
					to, _ := net.ResolveUDPAddr("udp", c.lan.Host("n1").Address("net1", port))
					_, _ = pc.WriteTo(p, to)
				}
				time.Sleep(time.Second)
				k = c.nodes["n1"].Counters()[0]
				if k.Foreign+k.BadKey < before.Foreign+before.BadKey+4 {
					t.Errorf("packets not counted: %+v, before %+v", k, before)
				}
				if !c.nodes["n1"].Up("net1", "n2") {
					t.Error("n2 was lost")
				}
			})
		})
	}
}

// Who has label and key but is no member, or has a member's name at another address, is refused.
func TestOnlyMembersAtTheirAddresses(t *testing.T) {
	onLAN(t, "default", nil1, three[:2], func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		c.lan.Host("n3")
		evil := c.start("evil", "default", nil) // knows the members, but is none
		time.Sleep(30 * time.Second)
		for _, s := range c.nodes["n1"].Status() {
			if s.Node == "evil" {
				t.Errorf("%+v", s)
			}
		}
		if k := c.nodes["n1"].Counters()[0]; k.Refused == 0 {
			t.Errorf("not counted: %+v", k)
		}
		evil.Close()
		delete(c.nodes, "evil")
		c.setMember("n3", true) // n3 is a member that is absent
		imposter := c.start("imposter", "default", func(cfg *Config) { cfg.Node = "n3" })
		time.Sleep(30 * time.Second)
		if c.nodes["n1"].Up("net1", "n3") {
			t.Error("an imposter at another address is up")
		}
		imposter.Close()
		delete(c.nodes, "imposter")
		c.start("n3", "default", nil)
		c.await("the real n3", 30*time.Second, func() bool { return c.all(true) })
	})
}

func TestRemovedAndReturnedMember(t *testing.T) {
	onLAN(t, "default", nil1, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		c.setMember("n3", false)
		c.await("n3 down", time.Second, func() bool { return !c.nodes["n1"].Up("net1", "n3") })
		synctest.Wait()
		if !slices.Contains(c.events(), "n1: n3 down on net1") {
			t.Errorf("no event: %v", c.events())
		}
		c.setMember("n3", true)
		c.await("n3 up", 10*time.Second, func() bool { return c.all(true) })
	})
}

// Packets get lost, nodes live: none is called down. (TCP pings make the difference.) The race tests (-short) are content with a
// minute of it.
func TestLossKillsNobody(t *testing.T) {
	long := 10 * time.Minute
	if testing.Short() {
		long = time.Minute
	}
	for _, profile := range []string{"fast", "default", "careful"} {
		for _, loss := range []float64{0.1, 0.3} {
			onLAN(t, profile, nil1, three, func(t *testing.T, c *cluster) {
				c.await("all up", 5*time.Second, func() bool { return c.all(true) })
				c.lan.SetLoss(loss, 42)
				before := len(c.events())
				time.Sleep(long)
				sent, lost := c.lan.Packets()
				down := 0
				for _, e := range c.events()[before:] {
					if strings.Contains(e, "down") {
						down++
					}
				}
				t.Logf("%-8s %2.0f %% loss for %v, three nodes: %d packets, %d lost, %d false alarms", profile, loss*100, long, sent, lost, down)
				if down > 0 {
					t.Errorf("%v", c.events()[before:])
				}
			})
		}
	}
}

// Traffic of a ring at rest, per node; it does not grow with the number of nodes.
func TestTrafficAtRest(t *testing.T) {
	for _, n := range []int{3, 16} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("n%d", i+1))
		}
		onLAN(t, "default", nil1, names, func(t *testing.T, c *cluster) {
			c.await("all up", time.Minute, func() bool { return c.all(true) })
			time.Sleep(time.Minute)
			before := c.nodes["n1"].Counters()[0]
			time.Sleep(time.Minute)
			after := c.nodes["n1"].Counters()[0]
			t.Logf("%d nodes: %.1f packets sent and %.1f received a second per node", n, float64(after.Sent-before.Sent)/60,
				float64(after.Received-before.Received)/60)
			if after.Rejoins != before.Rejoins {
				t.Errorf("%d joins at rest", after.Rejoins-before.Rejoins)
			}
		})
	}
}

// An interface that is down at the start does not keep the node from starting, and is taken when it comes.
func TestListensLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "default", nil1, "n1")
		c.lan.Host("n2")
		c.setMember("n2", true)
		var mu sync.Mutex
		there := false
		g := c.start("n2", "default", func(cfg *Config) {
			listen := cfg.ListenPacket
			cfg.ListenPacket = func(a string) (net.PacketConn, error) {
				mu.Lock()
				defer mu.Unlock()
				if !there {
					a = "10.9.9.9:1"
				}
				return listen(a)
			}
		})
		time.Sleep(10 * time.Second)
		if g.Up("net1", "n1") {
			t.Error("up without a socket")
		}
		mu.Lock()
		there = true
		mu.Unlock()
		took := c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		t.Logf("up %v after the interface", took)
		c.close()
	})
}

func TestSetRings(t *testing.T) {
	onLAN(t, "default", []string{"net1", "net2"}, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		g := c.nodes["n1"]
		if err := g.SetRings([]Ring{{"net1", "rubbish"}}); err == nil || len(g.Status()) != 4 {
			t.Errorf("a bad address: %v, %v", err, g.Status())
		}
		net1 := Ring{"net1", c.lan.Host("n1").Address("net1", port)}
		if err := g.SetRings([]Ring{net1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !g.Up("net1", "n2") || g.Up("net2", "n2") || !slices.Contains(c.events(), "n1: n2 down on net2") {
			t.Errorf("after the end of net2: %v, %v", g.Status(), c.events())
		}
		if err := g.SetRings([]Ring{net1, {"net2", c.lan.Host("n1").Address("net2", port)}}); err != nil {
			t.Fatal(err)
		}
		c.await("all up", 20*time.Second, func() bool { return c.all(true) })
		g.Close()
		if err := g.SetRings(nil); err == nil {
			t.Error("rings on a closed gossip")
		}
	})
}

// A reader that does not read blocks nobody, and then learns the newest state, each member once.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e events
		e.init()
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { e.pump(done) })
		for i := range 1000 {
			e.set("net1", "n2", i%2 == 0)
			e.set("net1", "n3", i%2 == 1)
		}
		time.Sleep(time.Second)
		var got []Event
		for range 3 {
			select {
			case ev := <-e.out:
				got = append(got, ev)
			case <-time.After(time.Second):
			}
		}
		// The first event may be old: it was on its way already.
		last := map[string]bool{}
		for _, ev := range got {
			last[ev.Node] = ev.Up
		}
		if len(got) > 3 || last["n2"] || !last["n3"] {
			t.Errorf("events %v", got)
		}
		close(done)
		wg.Wait()
	})
}

func TestBadConfig(t *testing.T) {
	timing, _ := TimingFor("")
	good := Config{Node: "n1", ClusterUUID: uuid, Key: ringKey, Timing: timing, Members: func(string) map[string]string { return nil }}
	for name, change := range map[string]func(*Config){
		"no node": func(c *Config) { c.Node = "" }, "no uuid": func(c *Config) { c.ClusterUUID = "" }, "short key": func(c *Config) { c.Key = c.Key[:5] },
		"no timing": func(c *Config) { c.Timing = Timing{} }, "no members": func(c *Config) { c.Members = nil },
		"bad address": func(c *Config) { c.Rings = []Ring{{"net1", "host.example:1"}} },
	} {
		cfg := good
		change(&cfg)
		if g, err := New(cfg); err == nil {
			g.Close()
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := TimingFor("nonsense"); err == nil {
		t.Error("an unknown profile was taken")
	}
}

// On real sockets.
func TestLoopback(t *testing.T) {
	timing, _ := TimingFor("fast")
	members := map[string]string{}
	for i, n := range three {
		members[n] = fmt.Sprintf("127.0.7.%d:%d", i+1, port)
	}
	var nodes []*Gossip
	for _, n := range three {
		g, err := New(Config{Node: n, ClusterUUID: uuid, Key: ringKey, Timing: timing, Logger: slog.New(slog.DiscardHandler),
			Rings: []Ring{{"net1", members[n]}}, Members: func(string) map[string]string { return members }})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		nodes = append(nodes, g)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	await := func(up bool, of int) {
		t.Helper()
		for n := 0; n < of; {
			select {
			case e := <-nodes[0].Events():
				if e.Up == up {
					n++
				}
			case <-ctx.Done():
				t.Fatalf("status %+v", nodes[0].Status())
			}
		}
	}
	await(true, 2)
	nodes[2].Close()
	await(false, 1)
}

// The key is changed in three steps, at each of which nodes are a step apart for a while: nobody is taken for down. A node that missed
// all of it is deaf until it learns the key, and is then back without a restart.
func TestKeyRotation(t *testing.T) {
	onLAN(t, "default", nil1, three, func(t *testing.T, c *cluster) {
		c.await("all up", 5*time.Second, func() bool { return c.all(true) })
		time.Sleep(5 * time.Second)
		before := len(c.events())
		next, last := bytes.Repeat([]byte{8}, 32), bytes.Repeat([]byte{9}, 32)
		set := func(node string, keys ...[]byte) {
			t.Helper()
			if err := c.nodes[node].SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		for _, keys := range [][][]byte{{ringKey, next}, {next, ringKey}, {next}} {
			for _, n := range three {
				set(n, keys...)
				time.Sleep(5 * time.Second)
			}
		}
		if e := c.events()[before:]; len(e) != 0 {
			t.Errorf("the rotation was noticed: %v", e)
		}
		for _, keys := range [][][]byte{{next, last}, {last, next}, {last}} {
			set("n1", keys...)
			set("n2", keys...)
			time.Sleep(time.Second)
		}
		c.await("n3 is deaf", 20*time.Second, func() bool { return !c.nodes["n1"].Up("net1", "n3") && !c.nodes["n3"].Up("net1", "n1") })
		set("n3", last)
		took := c.await("n3 back", 20*time.Second, func() bool { return c.all(true) })
		t.Logf("a node that learns the newest key is back after %v", took)
		if err := c.nodes["n1"].SetKeys(nil); err == nil {
			t.Error("no key at all was taken")
		}
		if err := c.nodes["n1"].SetKeys([][]byte{{1, 2}}); err == nil {
			t.Error("a key of two bytes was taken")
		}
	})
}
