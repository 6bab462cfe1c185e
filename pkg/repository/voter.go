package repository

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed says that the claim was given up by this process.
var ErrClosed = errors.New("the claim of the repository voter was given up")

// A Voter is the durable record store of the repository voter, open after a claim. It is safe for concurrent use.
//
// Every error of its methods but ErrNoRoom is final: all later calls give the same one, Done is closed, and the process must end without another
// promise. What became of a write whose call failed is not known.
type Voter struct {
	v *Volume

	turn chan struct{} // one token: Append, Compact and Close, one at a time

	mu     sync.Mutex
	own    ballot // as written last
	before ballot // while own is being written: what may still be there
	limit  uint64 // no other node may show a ballot above
	tail   uint32 // blocks of the live area
	term   uint64
	err    error
	next   *look // the read of the ballots that has not begun
	active bool  // a goroutine reads

	done   chan struct{} // closed by the first error, and by Close
	halted chan struct{} // closed when the heartbeat has ended
}

// A look is one read of all ballots, for all who waited when it began.
type look struct {
	done chan struct{}
	err  error
}

func newVoter(v *Volume, own ballot, tail uint32, beat uint64) *Voter {
	w := &Voter{v: v, turn: make(chan struct{}, 1), own: own, before: own, limit: own.mbal, tail: tail,
		done: make(chan struct{}), halted: make(chan struct{})}
	w.turn <- struct{}{}
	go w.beat(beat)
	return w
}

// Records returns the records of the live area in append order, read from the volume.
func (w *Voter) Records() ([][]byte, error) {
	<-w.turn
	defer w.giveTurn()
	own, tail, err := w.state()
	if err != nil {
		return nil, err
	}
	records, end, err := w.v.readArea(w.v.index, own.area, own.pub, tail)
	if err == nil && end != tail {
		err = fmt.Errorf("%w: the live area has %d blocks and not %d", errDamaged, end, tail)
	}
	return records, w.fail(err)
}

// Append writes the records durably at the end of the live area, as one batch that is there wholly or not at all, then reads all
// ballots. It returns nil only if that read began after the write was durable and no node showed a ballot above ours.
// ErrNoRoom, before anything was written, is not final: Compact makes room.
func (w *Voter) Append(records ...[]byte) error {
	<-w.turn
	defer w.giveTurn()
	own, tail, err := w.state()
	if err != nil {
		return err
	}
	n, err := w.v.writeArea(own.area, own.pub, tail, records)
	if errors.Is(err, ErrNoRoom) {
		return err
	}
	if err != nil {
		return w.fail(err)
	}
	if err := w.Check(); err != nil {
		return err
	}
	w.mu.Lock()
	w.tail = tail + n
	w.mu.Unlock()
	return nil
}

// Check returns nil only if a read of all ballots that began after the call found none above ours. One read serves all callers
// that waited before it began. An error, and a read slower than T_io, is final.
func (w *Voter) Check() error {
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	if w.next == nil {
		w.next = &look{done: make(chan struct{})}
	}
	l := w.next
	if !w.active {
		w.active = true
		go w.look()
	}
	w.mu.Unlock()
	<-l.done
	return l.err
}

// look reads for as long as somebody waits.
func (w *Voter) look() {
	for {
		w.mu.Lock()
		l := w.next
		w.next = nil
		w.active = l != nil
		w.mu.Unlock()
		if l == nil {
			return
		}
		if err := w.read(); err != nil {
			l.err = w.fail(err)
		} else {
			l.err = w.Err()
		}
		close(l.done)
	}
}

// read reads all ballots once and judges them.
func (w *Voter) read() error {
	w.mu.Lock()
	own, before, limit := w.own, w.before, w.limit
	w.mu.Unlock()
	bs, err := w.v.readBallots()
	if err != nil {
		return err
	}
	// While this node's ballot is being written a read may find any of: the one before, the new one, and the one that is begun
	// while the read is under way. There are no more: whoever writes one waits for the next read before the one after it.
	w.mu.Lock()
	newest := w.own
	w.mu.Unlock()
	if seen := bs[w.v.index]; seen == before || seen == newest {
		own = seen
	}
	return w.v.stillOurs(bs, own, limit)
}

// Compact makes a new ballot and publishes the other area holding just these records: a take-over from ourselves.
//
// While it runs, another node's ballot above the old one of ours ends it, also if it is below the new one: that node may have
// read, copied and published before our new ballot was there.
func (w *Voter) Compact(records [][]byte) error {
	<-w.turn
	defer w.giveTurn()
	if _, _, err := w.state(); err != nil {
		return err
	}
	if n := batchBlocks(records); n > w.v.layout.area {
		return fmt.Errorf("%w: %d blocks are wanted, an area has %d", ErrNoRoom, n, w.v.layout.area)
	}
	if err := w.announceNext(); err != nil {
		return w.fail(err)
	}
	return w.fail(w.publishNext(records))
}

func (w *Voter) announceNext() error {
	bs, err := w.v.readBallots()
	if err != nil {
		return err
	}
	w.mu.Lock()
	next := w.own
	next.seq, next.mbal = w.own.seq+1, nextBallot(w.v.highest(bs), w.v.index)
	w.mu.Unlock()
	if err := w.writeOwn(next); err != nil {
		return err
	}
	return w.Check()
}

func (w *Voter) publishNext(records [][]byte) error {
	w.mu.Lock()
	own := w.own
	w.mu.Unlock()
	spare := 1 - own.area
	tail, err := w.v.writeArea(spare, own.mbal, 0, records)
	if err != nil {
		return err
	}
	if err := w.Check(); err != nil {
		return err
	}
	done := ballot{seq: own.seq + 1, mbal: own.mbal, pub: own.mbal, area: spare, base: tail, successor: noNode}
	if err := w.writeOwn(done); err != nil {
		return err
	}
	if err := w.Check(); err != nil {
		return err
	}
	w.mu.Lock()
	w.limit, w.tail = done.mbal, tail
	w.mu.Unlock()
	return nil
}

// writeOwn writes this node's ballot. While it does, a read may find the one before.
func (w *Voter) writeOwn(b ballot) error {
	w.mu.Lock()
	w.before, w.own = w.own, b
	w.mu.Unlock()
	if err := w.v.announce(b); err != nil {
		return err
	}
	w.mu.Lock()
	w.before = b
	w.mu.Unlock()
	return nil
}

// Room is how many bytes of records one more Append can take, and Size how many the area has when it is empty.
func (w *Voter) Room() (free, size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return (w.v.layout.area - int64(w.tail)) / 2 * areaData, w.v.layout.area / 2 * areaData
}

// NoteTerm tells the heartbeat the highest term of the replicated log that the voter has promised, so that others remember it.
func (w *Voter) NoteTerm(term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.term = max(w.term, term)
}

// Done is closed when the claim is over: by the first error, which Err gives, or by Close.
func (w *Voter) Done() <-chan struct{} { return w.done }

// Err is why the claim is over; nil while it is not.
func (w *Voter) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Ballot is that of the claim.
func (w *Voter) Ballot() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limit
}

// Close gives the claim up: the next claimant need not wait. Nothing may be promised any more when it is called.
func (w *Voter) Close() error { return w.release(noNode) }

// HandOver is Close, and names the node that is meant to claim next; others wait for T_host before they try.
func (w *Voter) HandOver(node string) error {
	m := w.v.head.Load().member(node)
	if m == nil { // it may have come since this process read the header
		if err := w.v.Refresh(); err != nil {
			return fmt.Errorf("hand the repository voter over to %s: %w", node, err)
		}
		m = w.v.head.Load().member(node)
	}
	if m == nil {
		return fmt.Errorf("hand the repository voter over: %s is no member of the volume", node)
	}
	return w.release(uint16(m.Index))
}

func (w *Voter) release(successor uint16) error {
	<-w.turn
	defer w.giveTurn()
	own, _, err := w.state()
	if err != nil {
		_ = w.over(ErrClosed)
		<-w.halted
		return err
	}
	_ = w.over(ErrClosed) // from here on no promise is made, also if the write below fails
	<-w.halted
	own.seq, own.released, own.successor = own.seq+1, true, successor
	if err := w.v.announce(own); err != nil {
		return fmt.Errorf("give the repository voter up: %w", err)
	}
	return nil
}

// beat writes the host heartbeat until the claim is over. Safety does not rest on it.
func (w *Voter) beat(seq uint64) {
	defer close(w.halted)
	looked := time.Now()
	for {
		w.mu.Lock()
		h := hostBeat{ballot: w.limit, tail: w.tail, term: w.term}
		w.mu.Unlock()
		seq++
		w.v.memory.noteTail(w.v.index, h)
		err := w.v.writeHostBeat(h, seq)
		if err == nil {
			err = w.v.memory.see(w.v.index, mark{Host: seq}, mark{})
		}
		if err != nil {
			// A host that cannot show that it lives will lose the voter; it ends before, so that nobody has to wait.
			_ = w.fail(err)
			return
		}
		w.v.memory.saveSoon()
		if time.Since(looked) >= headerLook {
			looked = time.Now()
			if err := w.v.refreshIfNewer(); err != nil { // this node was removed, or the header went back
				_ = w.fail(err)
				return
			}
		}
		t := time.NewTimer(w.v.timings().Host / 4)
		select {
		case <-w.done:
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (v *Volume) writeHostBeat(h hostBeat, seq uint64) error {
	at := v.layout.hostBeat(v.index)
	buf := alignedBlocks(1)
	v.codec.encode(buf, frame{kind: kindHostBeat, writer: uint16(v.index), position: at, seq: seq, payload: h.encode()}, false)
	return v.hostLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, at) })
}

func (w *Voter) state() (ballot, uint32, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.own, w.tail, w.err
}

func (w *Voter) giveTurn() { w.turn <- struct{}{} }

// fail makes the first error the last word. It returns that word, or nil for no error.
func (w *Voter) fail(err error) error {
	if err == nil {
		return nil
	}
	return w.over(err)
}

func (w *Voter) over(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.done)
	}
	return w.err
}
