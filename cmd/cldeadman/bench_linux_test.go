package main

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// The benchmarks tell what this machine, as it is now, costs a lease. They say nothing about the watchdog: how long a node lives
// after its last pet is measured by letting it be reset.

// BenchmarkWake is how late the deadman wakes to ask.
func BenchmarkWake(b *testing.B) {
	n := newNode(b)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	renew := timings(b).Renew
	<-c.Requests()
	last := (<-c.Requests()).At
	var late []time.Duration
	for b.Loop() {
		r := <-c.Requests()
		late = append(late, r.At.Sub(last)-renew)
		last = r.At
	}
	report(b, late)
}

// BenchmarkGrant is the way of a grant through the agent's side and the deadman: frame in, timer, pet, timer, frame out.
func BenchmarkGrant(b *testing.B) {
	n := newNode(b)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	n.armed(c).stop()
	var took []time.Duration
	for b.Loop() {
		c.Renew()
		r := newestRequest(c)
		began := time.Now()
		if err := c.Grant(r.Nonce, "leader", deadman.BootClock{}.Now(), 0); err == nil {
			took = append(took, time.Since(began))
		}
	}
	report(b, took)
	b.ReportMetric(float64(c.Status().MinMargin.Microseconds()), "smallest-margin-us")
}

// report gives the distribution, in microseconds.
func report(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	at := func(share float64) float64 { return float64(all[int(share*float64(len(all)-1))].Nanoseconds()) / 1000 }
	b.ReportMetric(at(0.5), "p50-us")
	b.ReportMetric(at(0.99), "p99-us")
	b.ReportMetric(at(1), "max-us")
}
