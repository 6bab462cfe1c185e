package repository

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

// The real code of slots, claims and records on a simulated disk, in fake time. Every access of every process stops at the disk; one
// goroutine, with a seeded source of chance, decides which goes on, by how many blocks, and what goes wrong with it. A seed gives the
// same faults again; within one process the order of its own goroutines is the scheduler's, so a run is not always the same to the
// last step.

var (
	simSeed = flag.Uint64("sim.seed", 1, "first seed of the fault simulation")
	simRuns = flag.Int("sim.runs", 150, "runs of the fault simulation")
)

// A simDisk has a queue of accesses.
type simDisk struct {
	t      testing.TB
	rng    *rand.Rand
	dir    string
	opts   Options
	clean  bool // no more faults
	budget int  // how often the disk may still break its own promise
	flaw   simFlaw

	mu      sync.Mutex
	data    []byte
	queue   []*simIO // of processes that live
	orphans []*simIO // writes of processes that died: they may still happen
	nextID  int
	procs   []*simProc // by host; nil: down
	upAt    []time.Time
	acked   []simAck
	served  uint64 // the highest ballot of a claim that was completed
	counts  map[string]int
	broken  []string // what must not happen
}

// A simFlaw is a rule of the real code that the driver leaves out.
type simFlaw int

const (
	flawNone       simFlaw = iota
	flawNoReread           // acknowledges without a look after the write
	flawCheckFirst         // looks before the write only
	flawClock              // takes its claim to be valid for T_host after the last look
	flawSameArea           // all areas are one
)

type simAck struct {
	record string
	ballot uint64
}

// A simIO is one access on its way.
type simIO struct {
	id     int
	proc   *simProc
	write  bool
	off    int64
	p      []byte
	order  []int // blocks that are still to be done
	hung   bool
	fault  error // what it ends with
	nop    bool  // it is lost
	ended  chan error
	region string
}

// A simProc is one process of a host.
type simProc struct {
	d    *simDisk
	host int
	dead bool
	rng  *rand.Rand
	vol  *Volume
	done chan struct{}
}

var errSimDead = errors.New("the process has died")

func (p *simProc) access(write bool, b []byte, off int64) (int, error) {
	d := p.d
	off = d.place(off)
	d.mu.Lock()
	if p.dead {
		d.mu.Unlock()
		return 0, errSimDead
	}
	d.nextID++
	io := &simIO{id: d.nextID, proc: p, write: write, off: off, p: b, ended: make(chan error, 1)}
	if write {
		io.p = bytes.Clone(b)
	}
	for i := range len(b) / BlockSize {
		io.order = append(io.order, i)
	}
	if write {
		d.rng.Shuffle(len(io.order), func(i, j int) { io.order[i], io.order[j] = io.order[j], io.order[i] })
	}
	d.queue = append(d.queue, io)
	d.mu.Unlock()
	if err := <-io.ended; err != nil {
		return 0, err
	}
	return len(b), nil
}

// place puts all areas into one, for the flaw.
func (d *simDisk) place(off int64) int64 {
	if d.flaw != flawSameArea {
		return off
	}
	l, err := newLayout(int64(len(d.data))/BlockSize, 0)
	if err != nil {
		return off
	}
	if b := off / BlockSize; b >= l.areas() && b < l.areas()+int64(2*l.nodes)*l.area {
		return (l.areas() + (b-l.areas())%l.area) * BlockSize
	}
	return off
}

func (p *simProc) ReadAt(b []byte, off int64) (int, error)  { return p.access(false, b, off) }
func (p *simProc) WriteAt(b []byte, off int64) (int, error) { return p.access(true, b, off) }
func (p *simProc) Close() error                             { return nil }

// step lets one access go on.
func (d *simDisk) step() {
	i := d.rng.IntN(len(d.queue))
	io := d.queue[i]
	if len(io.order) > 0 && !io.hung && !d.clean && io.fault == nil && !io.nop {
		d.fail(io)
	}
	if io.hung {
		if d.clean || d.rng.IntN(400) == 0 {
			io.hung = false
		}
		return
	}
	n := len(io.order)
	if n > 1 && d.rng.IntN(3) > 0 {
		n = 1 + d.rng.IntN(n)
	}
	for ; n > 0; n-- {
		d.block(io, io.order[0])
		io.order = io.order[1:]
	}
	if len(io.order) == 0 {
		d.queue = slices.Delete(d.queue, i, i+1)
		io.ended <- io.fault
	}
}

// block moves one block.
func (d *simDisk) block(io *simIO, i int) {
	at := io.off + int64(i)*BlockSize
	mine, there := io.p[i*BlockSize:(i+1)*BlockSize], d.data[at:at+BlockSize]
	switch {
	case !io.write:
		copy(mine, there)
	case !io.nop:
		copy(there, mine)
	}
}

// fail chooses what goes wrong with an access. An error that is reported, or no answer, may come at any time; what breaks the disk's
// promise (lost, astray, rotten) is counted against the budget.
func (d *simDisk) fail(io *simIO) {
	switch n := d.rng.IntN(4000); {
	case n < 6 && !io.write:
		d.count("read error")
		io.fault = errors.New("simulated read error")
	case n < 3 && io.write:
		d.count("write error, nothing written")
		io.fault, io.nop = errors.New("simulated write error"), true
	case n < 6 && io.write:
		d.count("write error, all written")
		io.fault = errors.New("simulated write error")
	case n < 9 && io.write:
		d.count("write error, written in part")
		io.fault = errors.New("simulated write error")
		d.tear(io)
	case n < 16:
		d.count("hung access")
		io.hung = true
	case n < 20 && io.write && d.budget > 0:
		d.count("lost write")
		d.budget--
		io.nop = true
	case n < 24 && io.write && d.budget > 0:
		d.count("write astray")
		d.budget--
		blocks := int64(len(io.p) / BlockSize)
		io.off = d.rng.Int64N(int64(len(d.data))/BlockSize-blocks) * BlockSize
		if d.rng.IntN(2) == 0 { // near: into the ballots and heartbeats
			io.off = (1 + d.rng.Int64N(16)) * BlockSize
		}
	}
}

// tear writes a part of each block that was not done yet, and makes the rest of the write happen no more.
func (d *simDisk) tear(io *simIO) {
	for _, i := range io.order {
		at := io.off + int64(i)*BlockSize
		for sector := range BlockSize / 512 {
			if d.rng.IntN(2) == 0 {
				copy(d.data[at+int64(sector)*512:at+int64(sector+1)*512], io.p[i*BlockSize+sector*512:])
			}
		}
	}
	io.nop = true
}

func (d *simDisk) count(what string) { d.counts[what]++ }

// crash ends a host's process. What it had under way happens, happens in part, never happens, or happens later, but before the
// next process of the host begins: the machine's lock and the wait after a boot see to that.
func (d *simDisk) crash(host int) {
	p := d.procs[host]
	d.count("crash")
	p.dead = true
	d.procs[host] = nil
	d.upAt[host] = time.Now().Add(time.Duration(d.rng.IntN(60)) * time.Millisecond)
	d.queue = slices.DeleteFunc(d.queue, func(io *simIO) bool {
		if io.proc != p {
			return false
		}
		switch {
		case !io.write || len(io.order) == 0 || io.nop:
		case d.rng.IntN(3) == 0:
			d.tear(io)
			d.count("torn write")
		case d.rng.IntN(2) == 0:
			d.orphans = append(d.orphans, io)
			d.count("late write")
		}
		io.ended <- errSimDead
		return true
	})
	if p.vol != nil {
		p.vol.memory.lock.Close() // as the kernel does
	}
}

// land makes orphans happen, or forgets them: those of one host, or some of all.
func (d *simDisk) land(host int) {
	d.orphans = slices.DeleteFunc(d.orphans, func(io *simIO) bool {
		if io.proc.host != host && (host >= 0 || d.rng.IntN(3) > 0) {
			return false
		}
		if d.rng.IntN(4) > 0 {
			for _, i := range io.order {
				d.block(io, i)
			}
		}
		return true
	})
}

// start begins a process of a host.
func (d *simDisk) start(host int) {
	d.land(host)
	p := &simProc{d: d, host: host, rng: rand.New(rand.NewPCG(d.rng.Uint64(), 0)), done: make(chan struct{})}
	d.procs[host] = p
	go func() {
		defer close(p.done)
		p.run()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.procs[host] == p { // it ended by itself
			d.procs[host] = nil
			p.dead = true
			d.upAt[host] = time.Now().Add(time.Duration(1+p.rng.IntN(100)) * time.Millisecond)
		}
	}()
}

func (d *simDisk) names() []string { return []string{"a", "b", "c"}[:len(d.procs)] }

func (d *simDisk) options(p *simProc) Options {
	name := d.names()[p.host]
	return Options{Device: p, Size: int64(len(d.data)), Cluster: testCluster, Node: name, Authority: repositorytest.Authority(name),
		Dir: filepath.Join(d.dir, name), Role: RoleVoter}
}

// run is a process: it opens the volume, claims, and uses the claim until something goes wrong.
func (p *simProc) run() {
	d := p.d
	v, err := Open(d.options(p))
	if err != nil {
		d.note(p, "open failed", err)
		return
	}
	d.mu.Lock()
	p.vol = v
	d.mu.Unlock()
	defer func() {
		if v.Close(); v.memory.lock != nil {
			v.memory.lock.Close() // a process that ended
		}
	}()
	if wait := time.Until(v.notBefore); wait > 0 {
		time.Sleep(wait)
	}
	before := d.ackedSoFar()
	w, err := v.takeOver() // nobody waits for silence here: that is only for liveness
	if err != nil {
		d.note(p, "claim failed", err)
		return
	}
	d.mu.Lock()
	d.counts["claim"]++
	d.served = max(d.served, w.Ballot())
	d.mu.Unlock()
	records, err := w.Records()
	if err == nil {
		d.compare(p, w.Ballot(), records, before)
	}
	p.use(w, records)
	d.note(p, "claim ended", w.Err())
	<-w.halted
}

func (d *simDisk) ackedSoFar() []simAck {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.acked)
}

// compare looks for what was acknowledged before the claim began.
func (d *simDisk) compare(p *simProc, ballot uint64, records [][]byte, before []simAck) {
	have := map[string]bool{}
	for _, r := range records {
		have[string(r)] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.dead {
		return
	}
	for _, a := range before {
		if !have[a.record] {
			d.broken = append(d.broken, fmt.Sprintf("host %d claimed with ballot %d and lacks %s, acknowledged under ballot %d", p.host, ballot, a.record, a.ballot))
		}
	}
}

// use appends, looks, compacts, and sometimes gives the claim up.
func (p *simProc) use(w *Voter, records [][]byte) {
	d := p.d
	for n := 0; ; n++ {
		d.mu.Lock()
		served := d.served
		d.mu.Unlock()
		switch k := p.rng.IntN(20); {
		case k < 9:
			d.mu.Lock()
			d.nextID++
			r := fmt.Sprintf("record %d of host %d", d.nextID, p.host)
			d.mu.Unlock()
			b := []byte(r)
			err := p.append(w, b)
			if errors.Is(err, ErrNoRoom) {
				if w.Compact(records) != nil {
					return
				}
				continue
			}
			if err != nil {
				return
			}
			records = append(records, b)
			d.mu.Lock()
			if !p.dead {
				d.acked = append(d.acked, simAck{r, w.ballotLocked()})
				d.counts["acknowledged"]++
			}
			d.mu.Unlock()
		case k < 16:
			if w.Check() != nil {
				return
			}
			d.mu.Lock()
			if !p.dead && w.ballotLocked() < served {
				d.broken = append(d.broken, fmt.Sprintf("host %d confirmed with ballot %d, and %d had been served", p.host, w.ballotLocked(), served))
			}
			d.counts["confirmed"]++
			d.mu.Unlock()
		case k < 18:
			if w.Compact(records) != nil {
				return
			}
			d.mu.Lock()
			d.counts["compaction"]++
			d.served = max(d.served, w.ballotLocked())
			d.mu.Unlock()
		case k < 19:
			time.Sleep(time.Duration(p.rng.IntN(20)) * time.Millisecond)
		default:
			if n > 20 {
				w.Close()
				return
			}
		}
	}
}

func (w *Voter) ballotLocked() uint64 { return w.Ballot() }

// append is Append, or what a flaw makes of it.
func (p *simProc) append(w *Voter, r []byte) error {
	switch p.d.flaw {
	case flawNoReread, flawCheckFirst, flawClock:
	default:
		return w.Append(r)
	}
	own, tail, err := w.state()
	if err != nil && p.d.flaw != flawNoReread {
		return err
	}
	if p.d.flaw == flawCheckFirst || p.d.flaw == flawClock && p.rng.IntN(4) == 0 {
		if err := w.Check(); err != nil {
			return err
		}
	}
	n, err := w.v.writeArea(own.area, own.pub, tail, [][]byte{r})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.tail = tail + n
	w.mu.Unlock()
	return nil
}

func (d *simDisk) note(p *simProc, what string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.dead || errors.Is(err, errSimDead) {
		return
	}
	why := "another reason"
	for _, c := range []struct {
		is  error
		why string
	}{{ErrSuperseded, "superseded"}, {ErrHung, "hung"}, {ErrFailed, "volume failed"}, {ErrClosed, "given up"}, {errDamaged, "damaged block"},
		{errMisplaced, "misplaced block"}} {
		if errors.Is(err, c.is) {
			why = c.why
			break
		}
	}
	if err != nil && strings.Contains(err.Error(), "simulated") {
		why = "error of the disk"
	}
	d.counts[what+": "+why]++
}

// newSimDisk makes a formatted disk.
func newSimDisk(t testing.TB, seed uint64, hosts, budget int, flaw simFlaw) *simDisk {
	d := &simDisk{t: t, rng: rand.New(rand.NewPCG(seed, 4)), budget: budget, flaw: flaw, procs: make([]*simProc, hosts),
		upAt: make([]time.Time, hosts), counts: map[string]int{}}
	dir, err := os.MkdirTemp(fastDir(), "holdfast-sim")
	if err != nil {
		t.Fatal(err)
	}
	d.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := repositorytest.NewDisk(MinLabSize)
	if _, err := Format(FormatOptions{Device: m.Open(), Size: m.Size(), Cluster: testCluster, Node: "a", Members: members(d.names()...),
		Authority: repositorytest.Authority("a"), Timings: testTimings, Lab: true}); err != nil {
		t.Fatal(err)
	}
	d.data = m.Bytes(0, m.Size())
	return d
}

// fastDir is a directory in memory, where there is one: the marks of the local disk are synced at every claim.
func fastDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// play runs steps with faults.
func (d *simDisk) play(steps int) {
	for range steps {
		synctest.Wait()
		d.mu.Lock()
		d.chance()
		switch {
		case len(d.queue) == 0 || d.rng.IntN(25) == 0:
			pause := time.Duration(1+d.rng.IntN(12)) * time.Millisecond
			d.mu.Unlock()
			time.Sleep(pause)
			continue
		default:
			d.step()
		}
		d.mu.Unlock()
	}
}

// chance starts hosts, crashes them, lets late writes land, and lets blocks rot.
func (d *simDisk) chance() {
	for i, p := range d.procs {
		switch {
		case p == nil && !time.Now().Before(d.upAt[i]):
			d.start(i)
		case p != nil && d.rng.IntN(250) == 0:
			d.crash(i)
		}
	}
	if len(d.orphans) > 0 && d.rng.IntN(20) == 0 {
		d.land(-1)
	}
	if d.budget > 0 && d.rng.IntN(1500) == 0 {
		d.budget--
		d.count("rotten block")
		at := d.rng.Int64N(int64(len(d.data)) / BlockSize)
		if d.rng.IntN(2) == 0 {
			at = 1 + d.rng.Int64N(16)
		}
		for i := range BlockSize {
			d.data[at*BlockSize+int64(i)] = byte(d.rng.Uint32())
		}
	}
}

// finish ends all hosts, and lets one claim on a disk without faults. It returns the claim's error.
func (d *simDisk) finish() error {
	d.mu.Lock()
	for i, p := range d.procs {
		if p != nil {
			d.crash(i)
		}
	}
	for i := range d.procs {
		d.land(i)
	}
	d.clean = true
	d.mu.Unlock()
	synctest.Wait()
	p := &simProc{d: d, host: 0, rng: d.rng}
	result := make(chan error, 1)
	go func() {
		v, err := Open(d.options(p))
		if err != nil {
			result <- err
			return
		}
		w, err := v.Claim(d.t.Context())
		if err == nil {
			var records [][]byte
			if records, err = w.Records(); err == nil {
				d.compare(p, w.Ballot(), records, d.ackedSoFar())
			}
			w.Close()
		}
		v.Close()
		result <- err
	}()
	for {
		synctest.Wait()
		select {
		case err := <-result:
			return err
		default:
		}
		d.mu.Lock()
		if len(d.queue) > 0 {
			d.step()
			d.mu.Unlock()
			continue
		}
		d.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// simulate is one run; it returns what must not happen, and whether the last claim succeeded.
func simulate(t *testing.T, seed uint64, steps, budget int, flaw simFlaw, counts map[string]int) (broken []string, last error) {
	synctest.Test(t, func(t *testing.T) {
		hosts := 2 + int(seed%4)/3 // two, and sometimes three
		d := newSimDisk(t, seed, hosts, budget, flaw)
		d.play(steps)
		last = d.finish()
		for k, n := range d.counts {
			counts[k] += n
		}
		broken = d.broken
		synctest.Wait()
		time.Sleep(time.Minute) // what still waits for a deadline
	})
	return broken, last
}

// TestSimulatedFaults runs the real code over many seeds. Up to one promise of the disk is broken in each run: then nothing that was
// acknowledged may be lost, and the last claim must succeed.
func TestSimulatedFaults(t *testing.T) {
	counts := map[string]int{}
	runs := *simRuns
	if testing.Short() {
		runs /= 10
	}
	failed := 0
	for i := range runs {
		seed := *simSeed + uint64(i)
		broken, last := simulate(t, seed, 1500, 1, flawNone, counts)
		for _, b := range broken {
			t.Errorf("seed %d: %s", seed, b)
		}
		if last != nil {
			failed++
			t.Logf("seed %d: the last claim: %v", seed, last)
		}
		if t.Failed() {
			break
		}
	}
	fmt.Printf("simulation: %d runs, seeds from %d: %s; last claims that were refused: %d\n", runs, *simSeed, countsText(counts), failed)
}

func countsText(counts map[string]int) string {
	var out []string
	for k, n := range counts {
		out = append(out, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestSimulationFindsFlaws leaves rules of the real code out; the simulation must notice each.
func TestSimulationFindsFlaws(t *testing.T) {
	for _, c := range []struct {
		name string
		flaw simFlaw
	}{
		{"no look after the write", flawNoReread},
		{"a look before the write only", flawCheckFirst},
		{"a claim that holds by the clock", flawClock},
		{"one area for all", flawSameArea},
	} {
		found := ""
		counts := map[string]int{}
		for seed := uint64(1); seed <= 300 && found == ""; seed++ {
			broken, last := simulate(t, seed, 1500, 0, c.flaw, counts)
			switch {
			case len(broken) > 0:
				found = fmt.Sprintf("seed %d: %s", seed, broken[0])
			case last != nil:
				found = fmt.Sprintf("seed %d: the last claim: %v", seed, last)
			}
		}
		if found == "" {
			t.Errorf("%s: not found in 300 runs (%s)", c.name, countsText(counts))
			continue
		}
		fmt.Printf("simulation: %s: found: %s\n", c.name, found)
	}
}
