package lease

import (
	"testing"
	"time"
)

// A voter that confirmed term 5, took part in many failed elections, and is asked by the leader of term 12, must not say that
// its last older confirmation is as old as its process: the leader would free what a lease of term 5 still covers.
func TestA11AgeCoversConfirmationsOfTermsLongGone(t *testing.T) {
	start := Instant(time.Second)
	c := NewConfirmations(start)
	confirmed := start.Add(time.Hour)
	c.Confirm(5, confirmed)
	now := confirmed.Add(2 * time.Second)
	for _, term := range []uint64{12, 13, 40} {
		c.Confirm(term, now)
		if age := c.Age(term, now); age > now.Sub(confirmed) {
			t.Errorf("asked by term %d: age %v, but term 5 was confirmed %v ago", term, age, now.Sub(confirmed))
		}
	}
}
