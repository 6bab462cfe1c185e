package leader

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// lockEnds proposes the end of lock sessions whose incarnation is over without its machine being known to have ended, when they have had
// their time: the longest TTL among them and twice L_soft, with a hundredth for the clocks, since this leader has seen that it is over. By
// then their clients have given up (docs/locks.md).
func (d *Duties) lockEnds(l Look) []Proposal {
	longest := map[lease.Subject]time.Duration{}
	if l.View.Locks != nil {
		for _, x := range l.View.Locks.Sessions {
			if !l.View.Current(x.Node, x.Incarnation) {
				s := lease.Subject{Node: x.Node, Incarnation: x.Incarnation}
				longest[s] = max(longest[s], x.TTL)
			}
		}
	}
	maps.DeleteFunc(d.lockless, func(s lease.Subject, _ lease.Instant) bool { return longest[s] == 0 })
	var out []Proposal
	for _, s := range slices.SortedFunc(maps.Keys(longest), func(a, b lease.Subject) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
	}) {
		since, seen := d.lockless[s]
		if !seen {
			d.lockless[s] = l.Now
		} else if wait := longest[s] + 2*l.Params.Soft; l.Now.Sub(since) >= wait+wait/100 {
			out = append(out, fact(state.Command{LocksEnd: &state.LocksEnd{Node: s.Node, Incarnation: s.Incarnation}}))
		}
	}
	return out
}
