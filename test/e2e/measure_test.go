//go:build linux

package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The benchmarks print figures; docs/measurements.md keeps some. They assert that the cluster behaves, never how fast. -benchtime 30x,
// as `make measure` gives it, is thirty runs of each.

var dumpAbove = flag.Duration("dump-above", 0, "BenchmarkCrash and BenchmarkSilentIsolation: show the logs of each run whose outage was longer")

// figure prints at once, and all: of what a benchmark logs go test keeps ten lines.
func figure(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func sayLoad() {
	b, _ := os.ReadFile("/proc/loadavg")
	figure("machine: %d cores, load at the beginning %s", runtime.NumCPU(), strings.TrimSpace(string(b)))
}

// report makes the runs' median and worst the benchmark's figures, besides printing how they spread.
func report(b *testing.B, what string, took []time.Duration) {
	b.Helper()
	figure("%s, %d runs: %s", what, len(took), spread(took))
	if s := slices.Sorted(slices.Values(took)); len(s) > 0 {
		b.ReportMetric(0, "ns/op") // leaves it out
		b.ReportMetric(s[len(s)/2].Seconds(), "s-median")
		b.ReportMetric(s[len(s)-1].Seconds(), "s-max")
	}
}

// A run is one failover, as times since the last answer that the client got from the victim.
type run struct {
	outage, lost, dead, acquire, complete, elect time.Duration
}

// A series is the runs of one kind of victim.
type series []run

func (s series) show(what string) {
	col := func(f func(run) time.Duration) []time.Duration {
		var out []time.Duration
		for _, r := range s {
			out = append(out, f(r))
		}
		return out
	}
	median := func(f func(run) time.Duration) float64 {
		l := slices.Sorted(slices.Values(col(f)))
		if len(l) == 0 {
			return 0
		}
		return l[len(l)/2].Seconds()
	}
	figure("%s, %d runs: outage %s", what, len(s), spread(col(func(r run) time.Duration { return r.outage })))
	figure("%s, medians: detected after %.3f s (of these elect %.3f s), prove %.3f s, commit the decision %.3f s, acquire until the first answer %.3f s, until all is online %.3f s",
		what, median(func(r run) time.Duration { return r.lost }), median(func(r run) time.Duration { return r.elect }),
		median(func(r run) time.Duration { return r.dead - r.lost }), median(func(r run) time.Duration { return r.acquire - r.dead }),
		median(func(r run) time.Duration { return r.outage - r.acquire }), median(func(r run) time.Duration { return r.complete - r.acquire }))
}

// failover breaks the victim, waits until the client is answered by another node, and takes the run's times.
func (w *world) failover(victim string, break_ func()) run {
	w.t.Helper()
	since, elected := w.lastEvent(), w.phase("elect", victim)
	break_()
	next := w.elsewhere(victim)
	w.answersFrom(next)
	var o lab.Outage
	w.await("the client's outage is known", func() string {
		events := w.probe.Events()
		for i := len(events) - 1; i >= 0; i-- {
			if x := events[i].Outage; x != nil && x.Before.Node == victim && x.After.Node == next {
				o = *x
				return ""
			}
		}
		return "not yet"
	})
	at := func(kind, node string) time.Duration {
		e := w.happened(since, kind, node)
		return e.Time.Sub(o.Begin)
	}
	return run{outage: o.Length, lost: at("node_lost", victim), dead: at("node_dead", victim), acquire: at("rg_move_acquire", ""),
		complete: at("rg_move_complete", ""), elect: w.phase("elect", victim) - elected}
}

// phase is the time that all nodes but one have spent in a phase so far, from their metrics.
func (w *world) phase(name, not string) time.Duration {
	var sum float64
	for i, n := range w.nodes {
		if n == not {
			continue
		}
		script := fmt.Sprintf(`exec 3<>/dev/tcp/10.77.1.%d/6193 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`, i+1)
		r, err := w.Lab.Run(w.ctx(), lab.ClientNode, "timeout", "2", "bash", "-c", script)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(r.Stdout, "\n") {
			if v, ok := strings.CutPrefix(line, fmt.Sprintf("holdfast_transition_duration_seconds_sum{phase=%q} ", name)); ok {
				x, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
				sum += x
			}
		}
	}
	return time.Duration(sum * float64(time.Second))
}

// measureFailover breaks nodes and mends them: in each run first one that leads, then one that does not.
func measureFailover(b *testing.B, s setup, break_, mend func(w *world, victim string)) {
	sayLoad()
	w := begin(b, s)
	w.ask()
	kinds := map[bool]series{}
	var took []time.Duration
	for b.Loop() {
		for _, leads := range []bool{true, false} {
			w.whole()
			victim := w.leader()
			if !leads {
				victim = w.other(victim)
			}
			w.place(victim)
			time.Sleep(2 * time.Second) // the node that came back has settled in too
			r := w.failover(victim, func() { break_(w, victim) })
			figure("run %2d, victim led %v: outage %.3f s = detected %.3f (elect %.3f) + proven %.3f + decided %.3f + answered %.3f", len(took)+1, leads,
				r.outage.Seconds(), r.lost.Seconds(), r.elect.Seconds(), (r.dead - r.lost).Seconds(), (r.acquire - r.dead).Seconds(), (r.outage - r.acquire).Seconds())
			if slow := *dumpAbove; slow > 0 && r.outage > slow {
				w.dump()
				w.dumps = 0
			}
			kinds[leads], took = append(kinds[leads], r), append(took, r.outage)
			mend(w, victim)
		}
	}
	profile := s.profile
	if profile == "" {
		profile = "default"
	}
	what := fmt.Sprintf("%s profile, fence %v, ", profile, s.fence)
	kinds[true].show(what + "victim led")
	kinds[false].show(what + "victim did not lead")
	report(b, what+"both", took)
	w.loserFirst()
}

func BenchmarkCrash(b *testing.B) {
	for _, fence := range []bool{true, false} {
		for _, profile := range []string{"default", "fast"} {
			b.Run(fmt.Sprintf("%s,fence=%v", profile, fence), func(b *testing.B) {
				measureFailover(b, setup{profile: profile, fence: fence},
					func(w *world, victim string) { check(w.t, w.Crash(w.ctx(), victim)) },
					func(w *world, victim string) { check(w.t, w.PowerOn(w.ctx(), victim)) })
			})
		}
	}
}

func BenchmarkSilentIsolation(b *testing.B) {
	for _, profile := range []string{"default", "fast"} {
		b.Run(profile, func(b *testing.B) {
			measureFailover(b, setup{profile: profile},
				func(w *world, victim string) { check(w.t, w.Cut(w.ctx(), victim, "", lab.Both)) },
				func(w *world, victim string) { check(w.t, w.Heal(w.ctx(), victim)) })
		})
	}
}

func BenchmarkPlannedMove(b *testing.B) {
	sayLoad()
	w := begin(b, setup{})
	w.ask()
	var took []time.Duration
	for b.Loop() {
		from := w.online(group)
		to := w.other(from)
		w.clmgr(to, "move", "resource_group", group, "NODE="+to)
		w.answersFrom(to)
		took = append(took, w.lastOutage(from))
		time.Sleep(200 * time.Millisecond)
	}
	report(b, "planned move of an IP, a file system and an application", took)
}

func BenchmarkApplicationKilled(b *testing.B) {
	sayLoad()
	w := begin(b, setup{monitor: "failure_action: notify, restart_count: 100, stabilization: 1s"}) // for a hundred runs at most
	w.ask()
	var took []time.Duration
	for b.Loop() {
		pid := w.appPID("node1")
		before := len(w.probe.Events())
		w.run("node1", "kill", "-9", pid)
		var outage time.Duration // 0: too short for the client to call it one
		check(b, w.probe.Await(w.ctx(), func(events []lab.ProbeEvent) bool {
			for _, e := range events[before:] {
				if e.Outage != nil {
					outage = e.Outage.Length
				}
				if e.Event == "answer" && strconv.Itoa(e.From.PID) != pid {
					return true
				}
			}
			return false
		}))
		took = append(took, outage)
		time.Sleep(1200 * time.Millisecond)
	}
	report(b, "application killed, restarted in place", took)
}

// The time from the boot of three nodes, which all had died, to the first answer.
func BenchmarkColdStart(b *testing.B) {
	sayLoad()
	w := begin(b, setup{})
	var took []time.Duration
	for b.Loop() {
		w.whole()
		for _, n := range w.nodes {
			check(b, w.Crash(w.ctx(), n))
		}
		p, err := w.StartProbe(target, lab.ProbeOptions{}) // w.ask would wait for an answer
		check(b, err)
		w.probe = p
		began := time.Now()
		done := make(chan error, len(w.nodes))
		for _, n := range w.nodes {
			go func() { done <- w.Boot(w.ctx(), n) }()
		}
		for range w.nodes {
			check(b, <-done)
		}
		check(b, w.probe.AwaitAnswer(w.ctx(), ""))
		var first time.Time
		for _, e := range w.probe.Events() {
			if e.Event == "answer" {
				first = e.Time
				break
			}
		}
		took = append(took, first.Sub(began))
		_, _ = w.probe.Stop()
		w.probe = nil
	}
	report(b, "cold start of three nodes to the first answer", took)
}

// usage is what the product's processes of a node have used.
type usage struct {
	cpu         time.Duration
	pss, locked int64 // KiB
	procs       []string
}

// use adds up the product's processes of one node: daemon, deadman, holder of the watchdog.
func (w *world) use(node string) usage {
	w.t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", w.lookAt(node).PID))
	check(w.t, err)
	var u usage
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if own, err := os.Readlink(dir + "/ns/pid"); err != nil || own != ns {
			continue
		}
		comm, _ := os.ReadFile(dir + "/comm")
		name := strings.TrimSpace(string(comm))
		if name != "clstrmgrd" && name != "cldeadman" {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
		utime, _ := strconv.ParseInt(f[11], 10, 64)
		stime, _ := strconv.ParseInt(f[12], 10, 64)
		u.cpu += time.Duration(utime+stime) * 10 * time.Millisecond
		pss := field(dir+"/smaps_rollup", "Pss:")
		u.pss += pss
		u.locked += field(dir+"/status", "VmLck:")
		u.procs = append(u.procs, fmt.Sprintf("%s %.1f MiB", name, float64(pss)/1024))
	}
	return u
}

func field(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// What three nodes use that have nothing to do; each run is ten seconds.
func BenchmarkIdle(b *testing.B) {
	sayLoad()
	w := begin(b, setup{noWatch: true})
	w.whole()
	time.Sleep(10 * time.Second)
	before := map[string]usage{}
	for _, n := range w.nodes {
		before[n] = w.use(n)
	}
	began := time.Now()
	for b.Loop() {
		time.Sleep(10 * time.Second)
	}
	span := time.Since(began)
	leader := w.leader()
	var cpu, pss float64
	for _, n := range w.nodes {
		u := w.use(n)
		percent := (u.cpu - before[n].cpu).Seconds() / span.Seconds() * 100
		cpu += percent / float64(len(w.nodes))
		pss += float64(u.pss) / 1024 / float64(len(w.nodes))
		figure("%s (leads: %v): %.2f %% of a core, %.1f MiB PSS, %d KiB locked: %s", n, n == leader, percent, float64(u.pss)/1024, u.locked, strings.Join(u.procs, ", "))
	}
	figure("idle for %.0f s, mean of three nodes: %.2f %% of a core, %.1f MiB PSS", span.Seconds(), cpu, pss)
	b.ReportMetric(cpu, "%core")
	b.ReportMetric(pss, "MiB-PSS")
}

// Every core is busy eightfold: nothing fails over. Each run is twenty seconds.
func BenchmarkSaturation(b *testing.B) {
	sayLoad()
	w := begin(b, setup{})
	w.ask()
	since := w.lastEvent()
	for range 8 * runtime.NumCPU() {
		burn := exec.Command("sh", "-c", "while kill -0 $PPID; do :; done") // it ends by itself, should this process not live to end it
		check(b, burn.Start())
		defer func() { _ = burn.Process.Kill(); _ = burn.Wait() }()
	}
	began := time.Now()
	for b.Loop() {
		time.Sleep(20 * time.Second)
	}
	counts := map[string]int{}
	for _, e := range w.events(since) {
		if e.ID > since {
			counts[e.Kind]++
		}
	}
	figure("%.0f s with every core busy eightfold: false failovers %d, nodes called silent %d, called dead %d; all events: %v",
		time.Since(began).Seconds(), counts["rg_move_acquire"], counts["node_lost"], counts["node_dead"], counts)
	b.ReportMetric(float64(counts["rg_move_acquire"]), "failovers")
	w.whole()
	w.outages()
}

// What the leader of 32 nodes uses; each run is two seconds.
func BenchmarkThirtyTwoNodes(b *testing.B) {
	sayLoad()
	w := begin(b, manyNodes)
	w.ask()
	w.whole()
	leader := w.leader()
	before, began := w.use(leader), time.Now()
	for b.Loop() {
		time.Sleep(2 * time.Second)
	}
	span, after := time.Since(began), w.use(leader)
	percent, pss := (after.cpu-before.cpu).Seconds()/span.Seconds()*100, float64(after.pss)/1024
	figure("leader of 32 nodes, %.0f s: %.2f %% of a core, %.1f MiB PSS", span.Seconds(), percent, pss)
	b.ReportMetric(percent, "%core")
	b.ReportMetric(pss, "MiB-PSS")
}
