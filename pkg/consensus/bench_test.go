package consensus

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Benchmarks run three servers in one process, on loopback and the disk below the temporary directory.

// benchCluster forms a cluster over TCP without TLS.
func benchCluster(b *testing.B) (*Lead, []*server) {
	b.Helper()
	params, err := lease.Profile("default")
	must(b, err)
	ids := []string{"a", "b", "c"}
	listeners := map[string]net.Listener{}
	for _, id := range ids {
		listeners[id], err = net.Listen("tcp", "127.0.0.1:0")
		must(b, err)
	}
	byID := map[string]*server{}
	var servers []*server
	base := b.TempDir()
	for _, id := range ids {
		s := &server{id: id, fsm: &journal{}}
		s.node, err = Open(Config{
			ID: id, ClusterID: "bench", Dir: filepath.Join(base, id), Listener: listeners[id], Params: params, Clock: timeClock{},
			FSM: s.fsm,
			Dial: func(ctx context.Context, to string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", listeners[to].Addr().String())
			},
			Ask: func(_ context.Context, to string, req ConfirmRequest) (ConfirmReply, error) {
				return byID[to].node.Confirm(req), nil
			},
		})
		must(b, err)
		b.Cleanup(func() { s.node.Close() })
		byID[id] = s
		servers = append(servers, s)
	}
	n := servers[0].node
	must(b, n.Bootstrap())
	lead := <-n.Leads()
	ctx := context.Background()
	for _, id := range ids[1:] {
		must(b, n.AddNonvoter(ctx, id))
		must(b, n.AddVoter(ctx, id))
	}
	for servers[1].node.AppliedIndex() < n.AppliedIndex() || servers[2].node.AppliedIndex() < n.AppliedIndex() {
		time.Sleep(10 * time.Millisecond)
	}
	return lead, servers
}

func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}

func BenchmarkPropose(b *testing.B) {
	lead, _ := benchCluster(b)
	data := make([]byte, 300)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := lead.Propose(context.Background(), data); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(percentile(took, 50).Microseconds()), "p50-µs")
	b.ReportMetric(float64(percentile(took, 99).Microseconds()), "p99-µs")
}

// BenchmarkFollowerApplies measures from Propose's call to the entry's Apply on the slower of two followers, with nothing
// else under way.
func BenchmarkFollowerApplies(b *testing.B) {
	lead, servers := benchCluster(b)
	var all, behind []time.Duration
	i := 0
	for b.Loop() {
		entry := fmt.Sprint("entry ", i)
		i++
		start := time.Now()
		if _, err := lead.Propose(context.Background(), []byte(entry)); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		var last time.Time
		for _, s := range servers[1:] {
			at, ok := s.fsm.when(entry)
			for !ok {
				time.Sleep(50 * time.Microsecond)
				at, ok = s.fsm.when(entry)
			}
			if at.After(last) {
				last = at
			}
		}
		all = append(all, last.Sub(start))
		behind = append(behind, last.Sub(committed))
	}
	b.ReportMetric(float64(percentile(all, 50).Microseconds()), "p50-µs")
	b.ReportMetric(float64(percentile(all, 99).Microseconds()), "p99-µs")
	b.ReportMetric(float64(percentile(behind, 50).Microseconds()), "behind-leader-p50-µs")
	b.ReportMetric(float64(percentile(behind, 99).Microseconds()), "behind-leader-p99-µs")
}

// BenchmarkConfirm measures a round whose messages take no time: what the rounds themselves cost.
func BenchmarkConfirm(b *testing.B) {
	lead, _ := benchCluster(b)
	for b.Loop() {
		if _, err := lead.Confirm(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
