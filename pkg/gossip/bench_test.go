package gossip

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary a node of a ring: "index nodes probe-ms gossip-ms seconds".
const childEnv = "GOSSIP_BENCH_NODE"

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		child(s)
		return
	}
	os.Exit(m.Run())
}

// child runs one node for a while and prints the processor time that it took once the ring had formed.
func child(spec string) {
	var index, nodes, probe, news, seconds int
	if _, err := fmt.Sscan(spec, &index, &nodes, &probe, &news, &seconds); err != nil {
		panic(err)
	}
	timing, _ := TimingFor("default")
	timing.ProbeInterval, timing.GossipInterval = time.Duration(probe)*time.Millisecond, time.Duration(news)*time.Millisecond
	members := map[string]string{}
	for i := range nodes {
		members["n"+strconv.Itoa(i)] = fmt.Sprintf("127.0.8.%d:%d", i+1, port)
	}
	name := "n" + strconv.Itoa(index)
	if probe > 0 { // else the cost of a Go process that ticks
		g, err := New(Config{Node: name, ClusterUUID: uuid, Key: ringKey, Timing: timing, Logger: slog.New(slog.DiscardHandler),
			Rings: []Ring{{"net1", members[name]}}, Members: func(string) map[string]string { return members }})
		if err != nil {
			panic(err)
		}
		defer g.Close()
		for range nodes - 1 {
			<-g.Events()
		}
	} else {
		go func() {
			for range time.Tick(time.Duration(news) * time.Millisecond) {
			}
		}()
	}
	time.Sleep(2 * time.Second)
	before := cpu()
	time.Sleep(time.Duration(seconds) * time.Second)
	fmt.Println(int64(cpu() - before))
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle is the processor time that a ring of three processes on loopback takes per node at rest, in per cent of a core,
// against that of a process that merely ticks.
func BenchmarkIdle(b *testing.B) {
	const nodes, seconds = 3, 8
	for _, c := range []struct{ probe, news int }{{0, 200}, {1000, 1000}, {500, 500}, {200, 200}} {
		name := fmt.Sprintf("probe=%dms,gossip=%dms", c.probe, c.news)
		if c.probe == 0 {
			name = fmt.Sprintf("tick=%dms", c.news)
		}
		b.Run(name, func(b *testing.B) {
			var total time.Duration
			for range b.N {
				var procs []*exec.Cmd
				var outs []*strings.Builder
				for i := range nodes {
					cmd := exec.Command(os.Args[0])
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d %d %d", childEnv, i, nodes, c.probe, c.news, seconds))
					out := &strings.Builder{}
					cmd.Stdout, cmd.Stderr = out, os.Stderr
					if err := cmd.Start(); err != nil {
						b.Fatal(err)
					}
					procs, outs = append(procs, cmd), append(outs, out)
				}
				for i, p := range procs {
					if err := p.Wait(); err != nil {
						b.Fatal(err)
					}
					ns, err := strconv.ParseInt(strings.TrimSpace(outs[i].String()), 10, 64)
					if err != nil {
						b.Fatal(err)
					}
					total += time.Duration(ns)
				}
			}
			b.ReportMetric(100*total.Seconds()/float64(nodes*seconds*b.N), "%core/node")
			b.ReportMetric(0, "ns/op")
		})
	}
}
