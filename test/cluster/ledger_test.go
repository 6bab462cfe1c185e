package cluster

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A ledger is told of every taking and giving up of a resource as it happens, and checks by itself what must never be: two
// holders at once, a start of a generation that is over, one generation on two nodes. It knows nothing of the agents' state.
type ledger struct {
	began time.Time

	mu       sync.Mutex
	held     map[string]map[string]bool // resource -> machines
	group    map[string]string          // resource -> group
	newest   map[string]uint64          // group -> highest generation that has taken anything
	taker    map[string]string          // group/generation -> machine
	ended    map[string]bool            // machine/group/generation that has been given up
	gen      map[string]uint64          // machine/resource -> generation under which it was taken
	broken   []string
	journal  []string // newest last, bounded, for the message of a failure
	started  map[string]int
	takings  int
	watching func(format string, args ...any)
}

func newLedger() *ledger {
	return &ledger{began: time.Now(), held: map[string]map[string]bool{}, group: map[string]string{}, newest: map[string]uint64{},
		taker: map[string]string{}, ended: map[string]bool{}, gen: map[string]uint64{}, started: map[string]int{}}
}

// note writes one line into the journal. It is called with the lock.
func (l *ledger) note(format string, args ...any) {
	line := fmt.Sprintf("%9.3f ", time.Since(l.began).Seconds()) + fmt.Sprintf(format, args...)
	if l.watching != nil {
		l.watching("%s", line)
	}
	l.journal = append(l.journal, line)
	if len(l.journal) > 400 {
		l.journal = slices.Delete(l.journal, 0, 100)
	}
}

func (l *ledger) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(format, args...)
}

func (l *ledger) breach(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.note("BROKEN: %s", text)
	l.broken = append(l.broken, text)
}

// take is called when the machine has taken the resource, under a generation.
func (l *ledger) take(machine string, r executor.Resource, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takings++
	l.note("%s takes %s (generation %d)", machine, r.Name, generation)
	if l.held[r.Name] == nil {
		l.held[r.Name] = map[string]bool{}
	}
	l.held[r.Name][machine] = true
	l.group[r.Name] = r.Group
	if n := len(l.held[r.Name]); n > 1 {
		l.breach("P1: %s is held by %d nodes at once: %v", r.Name, n, l.holders(r.Name))
	}
	if generation < l.newest[r.Group] {
		l.breach("P8: %s starts %s at generation %d, and %d has begun already", machine, r.Name, generation, l.newest[r.Group])
	}
	key := fmt.Sprint(r.Group, "/", generation)
	if l.newest[r.Group] < generation {
		l.started[r.Group]++
	}
	l.newest[r.Group] = max(l.newest[r.Group], generation)
	if was := l.taker[key]; was != "" && was != machine {
		l.breach("P2: generation %d of %s has begun on %s and on %s", generation, r.Group, was, machine)
	}
	l.taker[key] = machine
	if l.ended[machine+" "+key] {
		l.breach("A7: %s starts %s again at generation %d, which it has given up", machine, r.Group, generation)
	}
	l.gen[machine+" "+r.Name] = generation
}

// found says that a boot has activated the resource by itself.
func (l *ledger) found(machine string, r executor.Resource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("the boot of %s activates %s", machine, r.Name)
	l.held[r.Name][machine] = true
	if n := len(l.held[r.Name]); n > 1 {
		l.breach("P1: %s is held by %d nodes at once: %v", r.Name, n, l.holders(r.Name))
	}
}

func (l *ledger) give(machine string, r executor.Resource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[r.Name][machine] {
		l.note("%s gives up %s", machine, r.Name)
		l.ended[fmt.Sprint(machine, " ", r.Group, "/", l.gen[machine+" "+r.Name])] = true
	}
	delete(l.held[r.Name], machine)
}

// gone says that all of the machine has ended.
func (l *ledger) gone(machine, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("%s is gone: %s", machine, why)
	for _, m := range l.held {
		delete(m, machine)
	}
}

// holders is called with the lock.
func (l *ledger) holders(resource string) []string {
	var out []string
	for m := range l.held[resource] {
		out = append(out, m)
	}
	slices.Sort(out)
	return out
}

// holding lists what the machine holds.
func (l *ledger) holding(machine string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for r, m := range l.held {
		if m[machine] {
			out = append(out, r)
		}
	}
	slices.Sort(out)
	return out
}

// server is the machine that holds all resources of the group, "" for none.
func (l *ledger) server(resources []string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := ""
	for i, r := range resources {
		h := l.holders(r)
		if len(h) != 1 || i > 0 && h[0] != who {
			return ""
		}
		who = h[0]
	}
	return who
}

// starts is how many generations of the group have begun.
func (l *ledger) starts(group string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started[group]
}

func (l *ledger) verdict() (broken, journal []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.broken), slices.Clone(l.journal)
}
