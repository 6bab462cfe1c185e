package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/test/fake"
)

const port = 6191

// A cluster is some nodes on a fake LAN, or on loopback.
type cluster struct {
	t     testing.TB
	lan   *fake.LAN
	ids   map[string]*identity.Identity
	peers map[string]*Peer

	mu      sync.Mutex
	members map[string][]string
	stale   map[string]map[string][]string // what a node believes that has not heard of a change
	heard   map[string]int                 // "to<from"
}

// identities makes a cluster's identities, as create and join do.
func identities(t testing.TB, names ...string) map[string]*identity.Identity {
	t.Helper()
	dir := t.TempDir()
	first, err := identity.NewCluster(filepath.Join(dir, names[0]), "prod", names[0])
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*identity.Identity{names[0]: first}
	for _, n := range names[1:] {
		text, _ := identity.NewToken(first.ClusterName, first.ClusterUUID, first.CAFingerprint(), []string{"x:1"}, n)
		tok, err := identity.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		j, err := identity.Join(filepath.Join(dir, n), tok)
		if err != nil {
			t.Fatal(err)
		}
		r, err := first.Admit(j.Request(), identity.NewRaftID(n), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out[n], err = j.Finish(r); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func newCluster(t testing.TB, lan *fake.LAN, names ...string) *cluster {
	c := &cluster{t: t, lan: lan, ids: identities(t, names...), peers: map[string]*Peer{}, members: map[string][]string{},
		heard: map[string]int{}}
	for _, n := range names {
		if lan != nil {
			c.members[n] = lan.Host(n).Addresses(port)
		}
	}
	for _, n := range names {
		c.start(n, nil)
	}
	return c
}

func (c *cluster) start(name string, change func(*Config)) *Peer {
	c.t.Helper()
	cfg := Config{
		Identity: c.ids[name],
		Members: func(n string) ([]string, bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			members := c.members
			if c.stale[name] != nil {
				members = c.stale[name]
			}
			a, ok := members[n]
			return a, ok
		},
		OnHeard: func(n string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.heard[name+"<"+n]++
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	if c.lan != nil {
		h := c.lan.Host(name)
		cfg.Dial, cfg.Listen = h.Dial, h.Listen
		cfg.ListenAddrs = []string{":6191"}
	} else {
		cfg.ListenAddrs = []string{"127.0.0.1:0"}
	}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	p.Handle("echo", func(_ context.Context, from string, body []byte) ([]byte, error) {
		return append([]byte(from+":"), body...), nil
	})
	p.HandleInline("inline", func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	p.Handle("fail", func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("no such disk") })
	c.peers[name] = p
	if c.lan == nil {
		c.members[name] = []string{p.Addrs()[0].String()}
	}
	return p
}

func (c *cluster) remove(name string) {
	c.mu.Lock()
	delete(c.members, name)
	c.mu.Unlock()
	for _, p := range c.peers {
		p.CheckMembers()
	}
}

func (c *cluster) close() {
	for n, p := range c.peers {
		if err := p.Close(); err != nil {
			c.t.Errorf("close %s: %v", n, err)
		}
	}
	if c.lan != nil {
		time.Sleep(time.Minute) // of fake time: what timers still hold ends
	}
}

// call calls with a timeout.
func (c *cluster) call(from, to, method string, body []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.peers[from].Call(ctx, to, method, body)
}

func (c *cluster) mustCall(from, to, method, body string) {
	c.t.Helper()
	got, err := c.call(from, to, method, []byte(body), 2*time.Second)
	if err != nil || string(got) != from+":"+body {
		c.t.Fatalf("call %s -> %s: %q, %v", from, to, got, err)
	}
}

// onLAN runs a test in fake time with nodes n1, n2, n3.
func onLAN(t *testing.T, networks []string, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, fake.NewLAN(networks...), "n1", "n2", "n3")
		f(t, c)
		c.close()
	})
}

func TestCall(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.mustCall("n1", "n2", "echo", "hello")
		c.mustCall("n2", "n1", "echo", "hello")
		c.mustCall("n1", "n1", "echo", "self")
		for _, to := range []string{"n1", "n2"} {
			_, err := c.call("n1", to, "fail", nil, time.Second)
			var remote *RemoteError
			if !errors.As(err, &remote) || remote.Node != to || remote.Text != "no such disk" {
				t.Errorf("failing handler on %s: %v", to, err)
			}
			if _, err := c.call("n1", to, "nonsense", nil, time.Second); !errors.Is(err, ErrUnknownMethod) {
				t.Errorf("unknown method on %s: %v", to, err)
			}
		}
		big := bytes.Repeat([]byte("x"), MaxFrame-100)
		if got, err := c.call("n1", "n2", "echo", big, time.Second); err != nil || len(got) != len(big)+3 {
			t.Errorf("large call: %d bytes, %v", len(got), err)
		}
		if _, err := c.call("n1", "n2", "echo", make([]byte, MaxFrame), time.Second); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large call: %v", err)
		}
		// An answer that does not fit is an error of this call, not of the connection.
		c.peers["n2"].Handle("huge", func(context.Context, string, []byte) ([]byte, error) { return make([]byte, MaxFrame), nil })
		if _, err := c.call("n1", "n2", "huge", nil, time.Second); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("an answer beyond the frame: %v", err)
		}
		if _, err := c.call("n1", "n9", "echo", nil, time.Second); !errors.Is(err, identity.ErrNotMember) {
			t.Errorf("call of a stranger: %v", err)
		}
		if c.heard["n2<n1"] == 0 || c.heard["n1<n2"] == 0 || c.heard["n3<n1"] != 0 {
			t.Errorf("heard %v", c.heard)
		}
	})
}

// A body that the handler got must be untouched by frames that come later.
func TestConcurrentCallsKeepTheirBodies(t *testing.T) {
	c := newCluster(t, nil, "n1", "n2")
	defer c.close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				body := bytes.Repeat([]byte{byte(g*31 + i)}, 1+(i*977)%30000)
				method := []string{"echo", "inline"}[i%2]
				got, err := c.call("n1", "n2", method, body, 20*time.Second)
				if err != nil || !bytes.HasSuffix(got, body) {
					t.Errorf("%s %d/%d: %d bytes, %v", method, g, i, len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTimedOutCallDoesNotPoison(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		release := make(chan struct{})
		c.peers["n2"].Handle("slow", func(context.Context, string, []byte) ([]byte, error) {
			<-release
			return []byte("late"), nil
		})
		_, err := c.call("n1", "n2", "slow", nil, 100*time.Millisecond)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) {
			t.Errorf("slow call: %v", err)
		}
		conn := c.peers["n1"].links["n2"].up
		c.mustCall("n1", "n2", "echo", "a")
		close(release)
		synctest.Wait()
		c.mustCall("n1", "n2", "echo", "b")
		if c.peers["n1"].links["n2"].up != conn {
			t.Error("the connection was replaced")
		}
	})
}

// The handler's context ends with the caller's wait.
func TestHandlerSeesTheDeadline(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		took := make(chan time.Duration, 1)
		c.peers["n2"].Handle("wait", func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			start := time.Now()
			<-ctx.Done()
			took <- time.Since(start)
			return nil, ctx.Err()
		})
		_, _ = c.call("n1", "n2", "wait", nil, 300*time.Millisecond)
		if d := <-took; d < 299*time.Millisecond || d > 301*time.Millisecond {
			t.Errorf("the handler's context ended after %v", d)
		}
	})
}

// A handler that takes long is no stall: the other side's reader answers pings.
func TestSlowHandlerKeepsTheConnection(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.peers["n2"].Handle("slow", func(context.Context, string, []byte) ([]byte, error) {
			time.Sleep(20 * time.Second)
			return []byte("done"), nil
		})
		if got, err := c.call("n1", "n2", "slow", nil, time.Minute); err != nil || string(got) != "done" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A peer whose process stands still (its kernel still acknowledges) is given up after the stall timeout.
func TestStalledPeerIsGivenUp(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.mustCall("n1", "n2", "echo", "a")
		resume := make(chan struct{})
		c.peers["n2"].HandleInline("hang", func(context.Context, string, []byte) ([]byte, error) { <-resume; return nil, nil })
		start := time.Now()
		_, err := c.call("n1", "n2", "hang", nil, time.Minute)
		if took := time.Since(start); !errors.Is(err, ErrLost) || took < 900*time.Millisecond || took > 1300*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
		c.mustCall("n1", "n2", "echo", "on a new connection")
		close(resume)
	})
}

// Short calls, each of which times out before the stall timeout, must not hide the stall.
func TestShortCallsDoNotHideAStall(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.mustCall("n1", "n2", "echo", "a")
		old := c.peers["n1"].links["n2"].up
		c.lan.Cut("n1", "n2")
		for range 4 {
			_, _ = c.call("n1", "n2", "echo", nil, 200*time.Millisecond)
			time.Sleep(200 * time.Millisecond)
		}
		if c.peers["n1"].links["n2"].up == old {
			t.Error("the dead connection is still used")
		}
	})
}

func TestReconnectAfterHeal(t *testing.T) {
	for _, outage := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 20 * time.Second, 10 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			onLAN(t, nil, func(t *testing.T, c *cluster) {
				c.mustCall("n1", "n2", "echo", "a")
				c.lan.Isolate("n1")
				for end := time.Now().Add(outage); time.Now().Before(end); { // leases go on asking
					if _, err := c.call("n1", "n2", "echo", nil, 300*time.Millisecond); err == nil {
						t.Fatal("a call passed the cut")
					}
					time.Sleep(200 * time.Millisecond)
				}
				c.lan.Heal()
				start := time.Now()
				c.mustCall("n1", "n2", "echo", "b")
				took := time.Since(start)
				t.Logf("outage %v: first answer %v after the heal", outage, took)
				if took > 700*time.Millisecond {
					t.Errorf("the first answer came %v after the heal", took)
				}
			})
		})
	}
}

func TestUnreachableSaysWhy(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.peers["n2"].Close()
		_, err := c.call("n1", "n2", "echo", nil, time.Second)
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
		start := time.Now()
		c.start("n2", nil)
		c.mustCall("n1", "n2", "echo", "back")
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("answer %v after the restart", took)
		}
	})
}

// The second address is tried soon, and remembered.
func TestAddressesAreTriedInTurn(t *testing.T) {
	onLAN(t, []string{"net1", "net2"}, func(t *testing.T, c *cluster) {
		c.lan.Cut("n1", "n2", "net1")
		start := time.Now()
		c.mustCall("n1", "n2", "echo", "a")
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("first connection took %v", took)
		}
		start = time.Now()
		conn, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoPeer)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("second connection took %v", took)
		}
		c.lan.Cut("n1", "n2")
		start = time.Now()
		if _, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoPeer); err == nil || !strings.Contains(err.Error(), "10.1.0.2:6191") {
			t.Errorf("dial over cut networks: %v", err)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("a round of dialling took %v", took)
		}
	})
}

// When the network in use fails, the link moves to the other one.
func TestLinkMovesToTheOtherNetwork(t *testing.T) {
	onLAN(t, []string{"net1", "net2"}, func(t *testing.T, c *cluster) {
		c.mustCall("n1", "n2", "echo", "a")
		c.lan.Cut("n1", "n2", "net1")
		start := time.Now()
		for {
			if _, err := c.call("n1", "n2", "echo", nil, 300*time.Millisecond); err == nil {
				break
			}
		}
		took := time.Since(start)
		t.Logf("answer on the other network after %v", took)
		if took > 400*time.Millisecond { // of fake time: after MoveAfter, long before the stall timeout
			t.Errorf("the move took %v", took)
		}
		// What waits while the link moves fails at once, and was not sent twice.
		served := 0
		c.peers["n2"].Handle("count", func(context.Context, string, []byte) ([]byte, error) { served++; return nil, nil })
		c.lan.Heal()
		c.mustCall("n1", "n2", "echo", "b")
		c.lan.Cut("n1", "n2", "net2")
		start = time.Now()
		if _, err := c.call("n1", "n2", "count", nil, time.Minute); !errors.Is(err, ErrLost) || time.Since(start) > 400*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		c.mustCall("n1", "n2", "echo", "c")
		if served != 0 {
			t.Errorf("what went into the cut was served %d times", served)
		}
	})
}

// A link whose node answers pings stays, however long a call waits.
func TestLinkDoesNotMoveWithoutNeed(t *testing.T) {
	onLAN(t, []string{"net1", "net2"}, func(t *testing.T, c *cluster) {
		c.mustCall("n1", "n2", "echo", "a")
		l := c.peers["n1"].links["n2"]
		up := func() *clientConn {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.up
		}
		old := up()
		release := make(chan struct{})
		c.peers["n2"].Handle("slow", func(context.Context, string, []byte) ([]byte, error) { <-release; return nil, nil })
		_, _ = c.call("n1", "n2", "slow", nil, 3*time.Second) // its reader answers pings
		close(release)
		if up() != old {
			t.Error("the connection was replaced")
		}
	})
}

func TestRaftListener(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		l := c.peers["n2"].Listener(ProtoRaft)
		conn, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoRaft)
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if PeerOf(in) != "n1" || PeerOf(conn) != "n2" {
			t.Errorf("ends name %q and %q", PeerOf(in), PeerOf(conn))
		}
		go func() { _, _ = conn.Write([]byte("vote")) }()
		b := make([]byte, 4)
		if _, err := io.ReadFull(in, b); err != nil || string(b) != "vote" {
			t.Errorf("%q, %v", b, err)
		}
		conn.Close()
		if _, err := in.Read(b); err == nil {
			t.Error("read after close")
		}
		in.Close()
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept on a closed listener: %v", err)
		}
		conn2, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoRaft)
		if err == nil {
			conn2.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := conn2.Read(b); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a connection that nobody takes: %v", err)
			}
			conn2.Close()
		}
	})
}

func TestHTTPListener(t *testing.T) {
	c := newCluster(t, nil, "n1", "n2")
	defer c.close()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		node, err := identity.PeerNode(*r.TLS)
		fmt.Fprint(w, node, " ", r.Proto, " ", err)
	})}
	l := c.peers["n2"].Listener(ProtoHTTP1)
	done := make(chan struct{})
	go func() { _ = srv.Serve(l); close(done) }()
	for _, proto := range []string{ProtoHTTP1, ProtoHTTP2} {
		tr := &http.Transport{ForceAttemptHTTP2: proto == ProtoHTTP2,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.peers["n1"].Dial(ctx, "n2", proto) }}
		r, err := (&http.Client{Transport: tr}).Get("https://n2/")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		want := map[string]string{ProtoHTTP1: "n1 HTTP/1.1 <nil>", ProtoHTTP2: "n1 HTTP/2.0 <nil>"}[proto]
		if string(b) != want {
			t.Errorf("%s: %q, want %q", proto, b, want)
		}
		tr.CloseIdleConnections()
	}
	srv.Close()
	<-done
}

func TestRemovedMemberIsShutOut(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		l := c.peers["n1"].Listener(ProtoRaft)
		c.mustCall("n3", "n1", "echo", "a")
		c.mustCall("n1", "n3", "echo", "a")
		raft, err := c.peers["n3"].Dial(context.Background(), "n1", ProtoRaft)
		if err != nil {
			t.Fatal(err)
		}
		in, _ := l.Accept()

		// n3 itself does not know yet that it was removed.
		c.mu.Lock()
		c.stale = map[string]map[string][]string{"n3": maps.Clone(c.members)}
		c.mu.Unlock()
		c.remove("n3")
		for name, conn := range map[string]net.Conn{"n1's end": in, "n3's end": raft} {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s of a raft connection is open: %v", name, err)
			}
			conn.Close()
		}
		synctest.Wait()
		before := c.heard["n1<n3"]
		_, err = c.call("n3", "n1", "echo", nil, 2*time.Second)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "does not count this node as a member") {
			t.Errorf("the removed node's call: %v", err)
		}
		if _, err := c.call("n1", "n3", "echo", nil, time.Second); !errors.Is(err, identity.ErrNotMember) {
			t.Errorf("a call of the removed node: %v", err)
		}
		if c.heard["n1<n3"] != before {
			t.Error("the removed node was heard")
		}
		if n := len(c.peers["n1"].links); n != 0 {
			t.Errorf("%d links left", n)
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		foreign := identities(t, "n2")["n2"] // same cluster name, same node name, another CA
		none := foreign.ClientTLS("n1")
		none.GetClientCertificate = nil
		for name, cfg := range map[string]*tls.Config{"another cluster's node": foreign.ClientTLS("n1"), "no certificate": none} {
			for _, proto := range []string{ProtoPeer, ProtoRaft, ProtoHTTP2, ProtoJoin, "nonsense"} {
				raw, err := c.lan.Host("n3").Dial(context.Background(), c.lan.Host("n1").Address("net1", port))
				if err != nil {
					t.Fatal(err)
				}
				cfg := cfg.Clone()
				cfg.InsecureSkipVerify, cfg.VerifyConnection, cfg.NextProtos = true, nil, []string{proto}
				conn := tls.Client(raw, cfg)
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				if err := conn.Handshake(); err == nil {
					_, _ = conn.Write(appendFrame(nil, kindRequest, 1, 0, "echo", "x"))
					if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s, %s: read %d bytes, %v", name, proto, n, err)
					}
				}
				raw.Close()
			}
		}
		c.mustCall("n2", "n1", "echo", "members still pass")
	})
}

// Open connections that say nothing end, and do not keep members of other hosts out.
func TestSilentStrangersDoNotBlockMembers(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		var open []net.Conn
		for range 3 * maxHandshakesHost {
			raw, err := c.lan.Host("evil").Dial(context.Background(), c.lan.Host("n1").Address("net1", port))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, raw)
		}
		synctest.Wait()
		if n := underWay(c.peers["n1"]); n > maxHandshakesHost {
			t.Errorf("%d handshakes under way", n)
		}
		c.mustCall("n2", "n1", "echo", "a")
		time.Sleep(2 * handshakeTimeout)
		if n := underWay(c.peers["n1"]); n != 0 {
			t.Errorf("%d handshakes under way after the timeout", n)
		}
		for _, raw := range open {
			raw.Close()
		}
	})
}

func underWay(p *Peer) int {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	return p.gate.all
}

func TestMalformedFramesEndTheConnection(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		for name, b := range map[string][]byte{
			"huge":         {0xff, 0xff, 0xff, 0xff, 1},
			"short":        {0, 0, 0, 1, 1},
			"no such kind": {0, 0, 0, 5, 99, 0, 0, 0, 1},
			"a reply":      {0, 0, 0, 5, kindReply, 0, 0, 0, 1},
			"no method":    {0, 0, 0, 10, kindRequest, 0, 0, 0, 1, 0, 0, 0, 0, 0},
		} {
			conn, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoPeer)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(b)
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: the connection is still open", name)
			}
			conn.Close()
		}
		c.mustCall("n1", "n2", "echo", "a")
	})
}

func TestBusy(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		release := make(chan struct{})
		c.peers["n2"].Handle("slow", func(context.Context, string, []byte) ([]byte, error) { <-release; return nil, nil })
		var wg sync.WaitGroup
		var busy, served atomic.Int32
		for range maxInWork + 10 {
			wg.Go(func() {
				_, err := c.call("n1", "n2", "slow", nil, time.Minute)
				switch {
				case err == nil:
					served.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		time.Sleep(5 * time.Second)
		close(release)
		wg.Wait()
		if busy.Load() != 10 || served.Load() != maxInWork {
			t.Errorf("%d busy, %d served", busy.Load(), served.Load())
		}
	})
}

func TestJoin(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		n1 := c.ids["n1"]
		addrs := append([]string{"10.1.0.99:6191"}, c.lan.Host("n1").Addresses(port)...) // the first does not exist
		text, hash := identity.NewToken(n1.ClusterName, n1.ClusterUUID, n1.CAFingerprint(), addrs, "n4")
		tok, err := identity.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		c.peers["n1"].Close()
		c.start("n1", func(cfg *Config) {
			cfg.Join = func(_ context.Context, remote string, body []byte) ([]byte, error) {
				asked++
				if !identity.SameHash(identity.HashSecret(body), hash) {
					return nil, identity.ErrTokenUnknown
				}
				return []byte("welcome " + remote), nil
			}
		})
		h := c.lan.Host("n4")
		ctx := context.Background()
		got, err := AskToJoin(ctx, tok, tok.Secret[:], h.Dial)
		if err != nil || !strings.HasPrefix(string(got), "welcome 10.1.0.4:") {
			t.Fatalf("%q, %v", got, err)
		}
		_, err = AskToJoin(ctx, tok, []byte("wrong"), h.Dial)
		var remote *RemoteError
		if !errors.As(err, &remote) || !strings.Contains(err.Error(), "does not know this join token") {
			t.Errorf("a wrong secret: %v", err)
		}
		// A member that is no node of the token's cluster gets no secret.
		other := identities(t, "x")["x"]
		text, _ = identity.NewToken(other.ClusterName, other.ClusterUUID, other.CAFingerprint(), c.lan.Host("n1").Addresses(port), "n4")
		wrong, _ := identity.ParseToken(text)
		before := asked
		if _, err := AskToJoin(ctx, wrong, wrong.Secret[:], h.Dial); err == nil || !strings.Contains(err.Error(), "not the one that the token pins") {
			t.Errorf("a wrong cluster: %v", err)
		}
		if asked != before {
			t.Error("the secret went to another cluster")
		}
		refused := 0
		for range 20 {
			if _, _, err := askAll(ctx, tok, []byte("guess"), h.Dial); errors.Is(err, errPutOff) {
				refused++
			}
		}
		if refused < 10 {
			t.Errorf("%d of 20 guesses were put off", refused)
		}
		// Whoever comes now is put off at first, and asks again: a script may join thirty nodes one after another.
		before = asked
		for i := range 30 {
			if _, err := AskToJoin(ctx, tok, tok.Secret[:], h.Dial); err != nil {
				t.Errorf("join %d: %v", i+1, err)
			}
		}
		if asked != before+30 {
			t.Errorf("30 joins were served %d times", asked-before)
		}
		// Without a join handler the protocol does not exist.
		tok.Addresses = c.lan.Host("n2").Addresses(port)
		if _, err := AskToJoin(ctx, tok, tok.Secret[:], h.Dial); err == nil {
			t.Error("a node without a join handler answered")
		}
	})
}

func TestListenErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := fake.NewLAN()
		c := newCluster(t, lan, "n1")
		h := lan.Host("n1")
		cfg := c.peers["n1"].cfg
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("a port in use: %v", err)
		}
		// An address that comes later is listened on then.
		var there atomic.Bool
		cfg.ListenAddrs = []string{"10.1.0.1:7000"}
		cfg.Listen = func(a string) (net.Listener, error) {
			if !there.Load() {
				a = "10.1.0.77:7000"
			}
			return h.Listen(a)
		}
		lan.Host("n2")
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Addrs()) != 0 {
			t.Error("it listens on an address that is not there")
		}
		there.Store(true)
		time.Sleep(1500 * time.Millisecond)
		if len(p.Addrs()) != 1 {
			t.Error("it does not listen on the address that came")
		}
		p.Close()
		c.close()
	})
}

func TestCloseEndsCalls(t *testing.T) {
	onLAN(t, nil, func(t *testing.T, c *cluster) {
		c.peers["n2"].Handle("wait", func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		result := make(chan error, 2)
		go func() { _, err := c.peers["n1"].Call(context.Background(), "n2", "wait", nil); result <- err }()
		c.lan.Isolate("n3")
		go func() { _, err := c.peers["n1"].Call(context.Background(), "n3", "echo", nil); result <- err }()
		time.Sleep(100 * time.Millisecond)
		c.peers["n1"].Close()
		for range 2 {
			if err := <-result; !errors.Is(err, ErrClosed) && !errors.Is(err, ErrLost) {
				t.Error(err)
			}
		}
		if _, err := c.peers["n1"].Call(context.Background(), "n2", "echo", nil); !errors.Is(err, ErrClosed) {
			t.Errorf("call after close: %v", err)
		}
		if _, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoRaft); !errors.Is(err, ErrClosed) {
			t.Errorf("dial after close: %v", err)
		}
	})
}
