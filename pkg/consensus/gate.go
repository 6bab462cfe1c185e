package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// A VoterStore is the durable record store of the repository voter, open after a successful claim of the volume: a list of
// records of which another host, once it has claimed the volume in its turn, inherits all.
//
// Records, Append and Check are what the voter's promises rest on. A record that Append has accepted, and an answer that was
// followed by a Check, were on the volume while no other host had begun to claim it; so the next host finds them.
//
// Two more methods are used if a store has them: Room() (free, size int64), the bytes that Append can take before Compact is
// needed, and NoteTerm(term uint64), which is told the highest term that the voter has promised.
type VoterStore interface {
	// Records is the live area in the order of the appends, as inherited by the claim or appended since.
	Records() ([][]byte, error)
	// Append writes the records durably, in order and all in one, and then reads all slots again. It returns nil only if no
	// slot holds a higher ballot than this claim's. Any error is final: the caller exits.
	Append(records ...[]byte) error
	// Check returns nil only if a read of all slots that began after the call found no higher ballot than this claim's. One
	// read serves all who waited when it began. Any error is final.
	Check() error
	// Compact takes a new ballot and makes the other area hold just these records. Any error is final.
	Compact(records [][]byte) error
	// Close gives the claim up.
	Close() error
}

// A gate lets no answer of the repository voter out that a host which has claimed the volume meanwhile does not know of.
//
// Whatever the answer says was read or made durable before the re-read of the slots begins; if that finds no higher ballot,
// then no other host's claim had read this host's records before, so any later one inherits what the answer promises
// (attacks A13, F1). A gate that does not open ends the process: the answer is never sent.
type gate struct {
	store VoterStore
	guard *guard
}

// pass re-reads the slots. False: the claim is lost, or the volume cannot be read, and the process is ending.
func (g *gate) pass() bool {
	err := g.guard.do("read the slots again", never, g.store.Check)
	return err == nil && !g.guard.failed.Load()
}

// hold gives back the message with an answer channel that leads through the gate. The transport's goroutine behind the real
// channel waits as it does for raft.
func (g *gate) hold(rpc raft.RPC, done <-chan struct{}, wg *sync.WaitGroup) raft.RPC {
	out := rpc.RespChan
	in := make(chan raft.RPCResponse, 1)
	rpc.RespChan = in
	wg.Go(func() {
		select {
		case answer := <-in:
			if g.pass() {
				out <- answer // has room for the one answer
			}
		case <-done:
		}
	})
	return rpc
}
