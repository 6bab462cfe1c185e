package monitor

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

func TestRestartPolicy(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000, 0).Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		p     RestartPolicy
		times []int
		want  []Verdict
	}{
		"none allowed":     {RestartPolicy{}, []int{0, 1000}, []Verdict{GiveUp, GiveUp}},
		"two in a row":     {RestartPolicy{Count: 2, Interval: time.Minute}, []int{0, 1, 2}, []Verdict{Restart, Restart, GiveUp}},
		"begins anew":      {RestartPolicy{Count: 1, Interval: time.Minute}, []int{0, 60, 119}, []Verdict{Restart, Restart, GiveUp}},
		"not long enough":  {RestartPolicy{Count: 1, Interval: time.Minute}, []int{0, 59}, []Verdict{Restart, GiveUp}},
		"counts for ever":  {RestartPolicy{Count: 1}, []int{0, 1_000_000}, []Verdict{Restart, GiveUp}},
		"anew after a row": {RestartPolicy{Count: 1, Interval: time.Minute}, []int{0, 1, 61}, []Verdict{Restart, GiveUp, Restart}},
	} {
		for i, s := range c.times {
			if got := c.p.Failed(at(s)); got != c.want[i] {
				t.Errorf("%s: failure %d at %d s: %s, wanted %s", name, i+1, s, got, c.want[i])
			}
		}
	}
}

func TestRestartPolicyNeverRestartsMoreThanItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RestartPolicy{Count: rapid.IntRange(0, 5).Draw(t, "count"), Interval: time.Duration(rapid.IntRange(1, 100).Draw(t, "interval"))}
		now := time.Unix(0, 0)
		row, last := 0, time.Time{}
		for range rapid.IntRange(1, 50).Draw(t, "failures") {
			now = now.Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "gap")))
			if !last.IsZero() && now.Sub(last) >= p.Interval {
				row = 0
			}
			last = now
			want := GiveUp
			if row < p.Count {
				want, row = Restart, row+1
			}
			if got := p.Failed(now); got != want {
				t.Fatalf("%s at %s, wanted %s", got, now, want)
			}
		}
	})
}

func TestPolicyOfFillsTheInterval(t *testing.T) {
	five := 5
	m := &cluster.ApplicationMonitor{Type: TypeCustom, Stabilization: 10 * time.Second, MonitorInterval: 30 * time.Second, RestartCount: &five}
	if p := PolicyOf(m); p.Count != 5 || p.Interval != 220*time.Second {
		t.Errorf("%+v, wanted 5 x (10 + 30) s and ten percent", p)
	}
	if p := PolicyOf(&cluster.ApplicationMonitor{Type: TypeProcess}); p.Count != 3 || p.Interval != 33*time.Second {
		t.Errorf("%+v, wanted 3 x 10 s and ten percent", p)
	}
}
