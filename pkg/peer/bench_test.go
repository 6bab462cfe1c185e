package peer

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// A lease request and its grant are about this large.
const leaseSize = 300

func benchCall(b *testing.B, method string) {
	c := newCluster(b, nil, "n1", "n2")
	defer c.close()
	body := make([]byte, leaseSize)
	p := c.peers["n1"]
	call := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := p.Call(ctx, "n2", method, body); err != nil {
			b.Fatal(err)
		}
	}
	call()
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		call()
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") // both ends
}

func BenchmarkCall(b *testing.B)       { benchCall(b, "echo") }
func BenchmarkCallInline(b *testing.B) { benchCall(b, "inline") }

func BenchmarkCallParallel(b *testing.B) {
	c := newCluster(b, nil, "n1", "n2")
	defer c.close()
	body := make([]byte, leaseSize)
	b.ReportAllocs()
	before := cpu()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.peers["n1"].Call(context.Background(), "n2", "echo", body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkSparseCalls calls 20 times a second, as leases do: with pauses a call costs more than in a row, because the
// goroutines and the processor have gone to sleep.
func BenchmarkSparseCalls(b *testing.B) {
	c := newCluster(b, nil, "n1", "n2")
	defer c.close()
	body := make([]byte, leaseSize)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	before, n := cpu(), 0
	for b.Loop() {
		<-tick.C
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if _, err := c.peers["n1"].Call(ctx, "n2", "echo", body); err != nil {
			b.Fatal(err)
		}
		cancel()
		n++
	}
	b.ReportMetric(float64(cpu()-before)/float64(n), "cpu-ns/call") // both ends
}

// BenchmarkConnect is a new connection with its handshake.
func BenchmarkConnect(b *testing.B) {
	c := newCluster(b, nil, "n1", "n2")
	defer c.close()
	c.peers["n2"].Listener(ProtoRaft)
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		conn, err := c.peers["n1"].Dial(context.Background(), "n2", ProtoRaft)
		if err != nil {
			b.Fatal(err)
		}
		closeNow(conn)
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
