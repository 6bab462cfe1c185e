package monitor

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Verdict is what is to be done about a failure.
type Verdict string

// The verdicts.
const (
	Restart Verdict = "restart"
	GiveUp  Verdict = "give up"
)

// A RestartPolicy counts restarts. It is pure: the caller says what time it is. The zero value allows no restart.
type RestartPolicy struct {
	Count    int           // restarts allowed in a row
	Interval time.Duration // without a failure for so long, the count begins anew; 0: never

	used int
	last time.Time // of the newest failure
}

// PolicyOf is the monitor's policy. Without an interval of its own it is ten percent more than all restarts may take:
// count x (stabilization + monitor interval).
func PolicyOf(m *cluster.ApplicationMonitor) RestartPolicy {
	p := RestartPolicy{Count: DefaultRestartCount, Interval: m.RestartInterval}
	if m.RestartCount != nil {
		p.Count = *m.RestartCount
	}
	if p.Interval <= 0 {
		each := Stabilization(m)
		if m.Type == TypeCustom {
			each += interval(m)
		}
		p.Interval = time.Duration(p.Count) * each * 11 / 10
	}
	return p
}

// Failed notes a failure and says what is to be done about it.
func (p *RestartPolicy) Failed(now time.Time) Verdict {
	if p.Interval > 0 && !p.last.IsZero() && now.Sub(p.last) >= p.Interval {
		p.used = 0
	}
	p.last = now
	if p.used >= p.Count {
		return GiveUp
	}
	p.used++
	return Restart
}

// Used is how many restarts of the present row have been used.
func (p *RestartPolicy) Used() int { return p.used }
