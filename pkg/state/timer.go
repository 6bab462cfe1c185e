package state

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// NextFiring is the first moment after the given one at which the timer fires, in UTC; zero if it never fires again. A
// monthly or yearly timer on a day that a month does not have is skipped in that month.
func NextFiring(t cluster.FallbackTimer, after time.Time) time.Time {
	after = after.UTC()
	y, m, d := after.Date()
	on := func(y int, m time.Month, d int) time.Time {
		return time.Date(y, m, d, t.Hour, t.Minute, 0, 0, time.UTC)
	}
	valid := func(at time.Time, d int) bool { return at.Day() == d && at.After(after) }
	switch t.Repeats {
	case "daily":
		for k := range 2 {
			if at := on(y, m, d+k); at.After(after) {
				return at
			}
		}
	case "weekly":
		for k := range 8 {
			if at := on(y, m, d+k); int(at.Weekday()) == t.DayOfWeek && at.After(after) {
				return at
			}
		}
	case "monthly":
		for k := range 13 {
			if at := on(y, m+time.Month(k), t.DayOfMonth); valid(at, t.DayOfMonth) {
				return at
			}
		}
	case "yearly":
		for k := range 9 { // 29 February may be eight years away
			if at := on(y+k, time.Month(t.Month), t.DayOfMonth); valid(at, t.DayOfMonth) {
				return at
			}
		}
	case "never":
		if at := on(t.Year, time.Month(t.Month), t.DayOfMonth); valid(at, t.DayOfMonth) {
			return at
		}
	}
	return time.Time{}
}
