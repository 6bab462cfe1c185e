package peer

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/test/fake"
)

// Members of two epochs have no connection of any kind, in either direction, and the one that was left behind is told so; members of one
// epoch have, whichever it is (attack A12).
func TestEpochsDoNotTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, fake.NewLAN(), "a", "b", "d")
		defer func() {
			for _, p := range c.peers {
				p.Close()
			}
			time.Sleep(time.Minute)
		}()
		var told, newer atomic.Uint64
		again := func(name string, epoch uint64) {
			c.peers[name].Close()
			c.start(name, func(cfg *Config) {
				cfg.Epoch = epoch
				cfg.OnNewerEpoch = func(node string, e uint64) {
					if name == "a" && node == "b" {
						told.Add(1)
						newer.Store(e)
					} else {
						t.Errorf("%s was told of epoch %d of %s", name, e, node)
					}
				}
			})
		}
		call := func(from, to string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := c.peers[from].Call(ctx, to, "echo", nil)
			return err
		}
		dial := func(from, to string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			conn, err := c.peers[from].Dial(ctx, to, ProtoRaft)
			if err == nil {
				conn.Close()
			}
			return err
		}
		c.peers["b"].Listener(ProtoRaft)
		if err := errors.Join(call("a", "b"), call("b", "a")); err != nil {
			t.Fatal(err)
		}
		again("a", 0)
		again("b", 3)
		again("d", 3)
		for _, p := range c.peers {
			p.Listener(ProtoRaft)
		}
		if err := errors.Join(call("b", "d"), call("d", "b"), dial("b", "d")); err != nil {
			t.Errorf("within an epoch: %v", err)
		}
		for _, x := range [][2]string{{"a", "b"}, {"b", "a"}, {"d", "a"}} {
			if err := call(x[0], x[1]); !errors.Is(err, ErrOtherEpoch) {
				t.Errorf("a call from %s to %s: %v", x[0], x[1], err)
			}
			if err := dial(x[0], x[1]); !errors.Is(err, ErrOtherEpoch) {
				t.Errorf("a stream from %s to %s: %v", x[0], x[1], err)
			}
		}
		if told.Load() == 0 || newer.Load() != 3 {
			t.Errorf("the one that was left behind was told %d times, of epoch %d", told.Load(), newer.Load())
		}
	})
}

// Whoever was left behind hears of the newer epoch also when it is no member there any more and its certificate is void: two such may have
// a majority of the old configuration between them.
func TestStrangersHearOfTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, fake.NewLAN(), "a", "b")
		defer func() {
			for _, p := range c.peers {
				p.Close()
			}
			time.Sleep(time.Minute)
		}()
		var newer atomic.Uint64
		c.peers["a"].Close()
		c.start("a", func(cfg *Config) {
			cfg.OnNewerEpoch = func(_ string, e uint64) { newer.Store(e) }
		})
		c.peers["b"].Close()
		c.start("b", func(cfg *Config) {
			all := cfg.Members
			cfg.Members = func(n string) ([]string, bool) {
				if n == "a" {
					return nil, false
				}
				return all(n)
			}
			cfg.Floor = func(string) uint64 { return 1 << 40 }
			cfg.Epoch = 3
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.peers["a"].Call(ctx, "b", "echo", nil); !errors.Is(err, ErrOtherEpoch) {
			t.Errorf("a call of a stranger: %v", err)
		}
		if newer.Load() != 3 {
			t.Errorf("the stranger was told of epoch %d", newer.Load())
		}
	})
}
