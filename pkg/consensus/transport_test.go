package consensus

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Only a heartbeat that changes nothing may pass raft's main loop by; one of a new term goes through it.
func TestA11HeartbeatOfANewTermTakesTheMainLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var fast, slow atomic.Int32
		yes := func() bool { return true }
		from := newTransport(c.config("a"), func(uint64) bool { return true }, yes, nil)
		to := newTransport(c.config("b"), func(term uint64) bool { return term == 5 }, yes, nil)
		answer := func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) }
		to.SetHeartbeatHandler(func(rpc raft.RPC) { fast.Add(1); answer(rpc) })
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case rpc := <-to.Consumer():
					slow.Add(1)
					answer(rpc)
				case <-stop:
					return
				}
			}
		}()
		beat := func(term uint64) {
			t.Helper()
			req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: term}
			must(t, from.AppendEntries("b", "b", req, &raft.AppendEntriesResponse{}))
		}
		beat(5)
		if fast.Load() != 1 || slow.Load() != 0 {
			t.Errorf("steady: %d fast, %d slow", fast.Load(), slow.Load())
		}
		beat(6)
		if fast.Load() != 1 || slow.Load() != 1 {
			t.Errorf("new term: %d fast, %d slow", fast.Load(), slow.Load())
		}
		must(t, from.Close())
		must(t, to.Close())
		close(stop)
		time.Sleep(time.Minute)
	})
}
