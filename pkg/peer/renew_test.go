package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/test/fake"
)

// numbered is a cluster whose nodes refuse certificates below floors.
func numbered(t *testing.T, f func(c *cluster, floors map[string]*atomic.Uint64)) {
	synctest.Test(t, func(t *testing.T) {
		floors := map[string]*atomic.Uint64{}
		c := &cluster{t: t, lan: fake.NewLAN(), ids: identities(t, "n1", "n2", "n3"), peers: map[string]*Peer{}, members: map[string][]string{},
			heard: map[string]int{}}
		for n := range c.ids {
			floors[n], c.members[n] = &atomic.Uint64{}, c.lan.Host(n).Addresses(port)
		}
		for n := range c.ids {
			c.start(n, func(cfg *Config) { cfg.Floor = func(node string) uint64 { return floors[node].Load() } })
		}
		f(c, floors)
		c.close()
	})
}

// connections are those of a node that were made with an older certificate of its own.
func older(p *Peer, number uint64) int {
	return len(p.conns.where(func(t *tracked) bool { return t.out && t.own < number }))
}

// A node renews while calls are under way in both directions: each of them is answered, the connections are new ones, and the
// certificate of before is refused.
func TestRenewLosesNoCall(t *testing.T) {
	numbered(t, func(c *cluster, floors map[string]*atomic.Uint64) {
		release := make(chan struct{})
		for _, p := range c.peers {
			p.Handle("wait", func(ctx context.Context, from string, _ []byte) ([]byte, error) {
				select {
				case <-release:
				case <-ctx.Done():
				}
				return []byte(from), ctx.Err()
			})
		}
		answers := make(chan error, 2)
		for from, to := range map[string]string{"n1": "n2", "n3": "n1"} {
			go func() {
				got, err := c.call(from, to, "wait", nil, 20*time.Second)
				if err == nil && string(got) != from {
					err = fmt.Errorf("answer %q", got)
				}
				answers <- err
			}()
		}
		synctest.Wait()
		raft := c.peers["n1"].Listener(ProtoRaft)
		_, err := c.peers["n2"].Dial(context.Background(), "n1", ProtoRaft)
		if err != nil {
			t.Fatal(err)
		}
		in, err := raft.Accept()
		if err != nil {
			t.Fatal(err)
		}

		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(c.ids["n1"].Renew(7))
		renewed := make(chan error, 1)
		go func() { renewed <- c.peers["n1"].Renewed(context.Background()) }()
		time.Sleep(time.Second)
		c.mustCall("n1", "n2", "echo", "over the new connection")
		go func() { time.Sleep(5 * time.Second); close(release) }()
		check(<-renewed) // after the calls are answered
		if n := older(c.peers["n1"], 7); n != 0 {
			t.Errorf("%d connections with the old certificate are left", n)
		}
		floors["n1"].Store(7)
		for _, p := range c.peers {
			p.CheckCertificates()
		}
		for range 2 {
			check(<-answers)
		}
		time.Sleep(time.Second)
		c.mustCall("n3", "n1", "echo", "a")
		c.mustCall("n1", "n3", "echo", "b")
		for n, p := range c.peers {
			if left := p.conns.where(func(t *tracked) bool { return t.theirs < floors[t.node].Load() }); len(left) != 0 {
				t.Errorf("%s has %d connections to a void certificate", n, len(left))
			}
		}
		// The dialler's end of other protocols was closed, because its other end had shown the old certificate.
		in.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := in.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a raft connection to a void certificate is open: %v", err)
		}
		in.Close()
	})
}

// A certificate that has become void ends what was made under it at once, and is refused and counted; the name's newer one passes, also
// at a node that has not heard of it yet.
func TestVoidCertificates(t *testing.T) {
	numbered(t, func(c *cluster, floors map[string]*atomic.Uint64) {
		c.mustCall("n3", "n1", "echo", "a")
		floors["n3"].Store(5)
		c.peers["n1"].CheckCertificates()
		synctest.Wait()
		heard := c.heard["n1<n3"]
		_, err := c.call("n3", "n1", "echo", nil, 2*time.Second)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "the certificate is void") {
			t.Errorf("a call under a void certificate: %v", err)
		}
		if _, err := c.call("n1", "n3", "echo", nil, time.Second); !errors.Is(err, identity.ErrRevoked) {
			t.Errorf("a call of a node with a void certificate: %v", err)
		}
		if got := c.peers["n1"].Refused(); got.Void == 0 || got.Stranger != 0 || got.Unknown != 0 {
			t.Errorf("counted as %+v", got)
		}
		if c.heard["n1<n3"] != heard {
			t.Error("it was heard")
		}
		if err := c.ids["n3"].Renew(9); err != nil {
			t.Fatal(err)
		}
		c.mustCall("n3", "n1", "echo", "newer than the floor")
		c.remove("n3")
		if _, err := c.call("n3", "n1", "echo", nil, time.Second); err == nil {
			t.Error("a removed node is served")
		}
	})
}

// What costs nothing to send costs nothing in the log: one line for many refusals.
func TestRefusalsAreToldRarely(t *testing.T) {
	numbered(t, func(c *cluster, floors map[string]*atomic.Uint64) {
		r := &c.peers["n1"].refused
		for range 1000 {
			c.peers["n1"].refuse("10.0.0.1:1", fmt.Errorf("x: %w", identity.ErrRevoked))
			c.peers["n1"].refuse("10.0.0.1:1", net.ErrClosed)
		}
		if got := c.peers["n1"].Refused(); got.Void != 1000 || got.Unknown != 1000 || r.kept != 999 {
			t.Errorf("%+v, %d kept back", got, r.kept)
		}
	})
}
