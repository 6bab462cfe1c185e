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
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The TestMeasure tests print figures; docs/measurements.md keeps some. They assert that the cluster behaves, never how fast.

var dumpAbove = flag.Duration("dump-above", 0, "TestMeasure: show the logs of each run whose outage was longer")

var saturate = flag.Duration("saturate", 10*time.Minute, "TestMeasureSaturation: how long")

func measuring(t *testing.T) {
	t.Helper()
	if !*measured {
		t.Skip("a measurement; -measure runs it")
	}
	b, _ := os.ReadFile("/proc/loadavg")
	t.Logf("machine: %d cores, load at the beginning %s", runtime.NumCPU(), strings.TrimSpace(string(b)))
}

// A run is one failover, as times since the last answer that the client got from the victim.
type run struct {
	outage, lost, dead, acquire, complete, elect time.Duration
}

// A series is the runs of one kind of victim.
type series []run

func (s series) print(t *testing.T, what string) {
	t.Helper()
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
	t.Logf("%s, %d runs: outage %s", what, len(s), spread(col(func(r run) time.Duration { return r.outage })))
	t.Logf("%s, medians: detected after %.3f s (of these elect %.3f s), prove %.3f s, commit the decision %.3f s, acquire until the first answer %.3f s, until all is online %.3f s",
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

func measureFailover(t *testing.T, s setup, n int, break_, mend func(w *world, victim string)) {
	w := begin(t, s)
	w.ask()
	var leaders, others series
	for i := range 2 * n {
		w.whole()
		leader := w.leader()
		victim := leader
		if i%2 == 1 {
			victim = w.other(leader)
		}
		w.place(victim)
		time.Sleep(2 * time.Second) // the node that came back has settled in too
		r := w.failover(victim, func() { break_(w, victim) })
		t.Logf("run %2d, victim led %v: outage %.3f s = detected %.3f (elect %.3f) + proven %.3f + decided %.3f + answered %.3f", i+1, i%2 == 0,
			r.outage.Seconds(), r.lost.Seconds(), r.elect.Seconds(), (r.dead - r.lost).Seconds(), (r.acquire - r.dead).Seconds(), (r.outage - r.acquire).Seconds())
		if slow := *dumpAbove; slow > 0 && r.outage > slow {
			w.dump()
			w.dumps = 0
		}
		if i%2 == 0 {
			leaders = append(leaders, r)
		} else {
			others = append(others, r)
		}
		mend(w, victim)
	}
	profile := s.profile
	if profile == "" {
		profile = "default"
	}
	what := fmt.Sprintf("%s profile, fence %v, ", profile, s.fence)
	leaders.print(t, what+"victim led")
	others.print(t, what+"victim did not lead")
	w.loserFirst()
}

func TestMeasureCrash(t *testing.T) {
	measuring(t)
	for _, fence := range []bool{true, false} {
		for _, profile := range []string{"default", "fast"} {
			t.Run(fmt.Sprintf("%s fence %v", profile, fence), func(t *testing.T) {
				measureFailover(t, setup{profile: profile, fence: fence}, *runs,
					func(w *world, victim string) { check(w.t, w.Crash(w.ctx(), victim)) },
					func(w *world, victim string) { check(w.t, w.PowerOn(w.ctx(), victim)) })
			})
		}
	}
}

func TestMeasureSilentIsolation(t *testing.T) {
	measuring(t)
	for _, profile := range []string{"default", "fast"} {
		t.Run(profile, func(t *testing.T) {
			measureFailover(t, setup{profile: profile}, *runs,
				func(w *world, victim string) { check(w.t, w.Cut(w.ctx(), victim, "", lab.Both)) },
				func(w *world, victim string) { check(w.t, w.Heal(w.ctx(), victim)) })
		})
	}
}

func TestMeasurePlannedMove(t *testing.T) {
	measuring(t)
	w := begin(t, setup{})
	w.ask()
	var took []time.Duration
	for range *runs {
		from := w.online(group)
		to := w.other(from)
		w.clmgr(to, "move", "resource_group", group, "NODE="+to)
		w.answersFrom(to)
		took = append(took, w.lastOutage(from))
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("planned move of an IP, a file system and an application, %d runs: %s", len(took), spread(took))
}

func TestMeasureApplicationKilled(t *testing.T) {
	measuring(t)
	w := begin(t, setup{monitor: "failure_action: notify, restart_count: 1000, stabilization: 0s, restart_interval: 1s"})
	w.ask()
	var took []time.Duration
	for range *runs {
		pid := w.appPID("node1")
		before := len(w.probe.Events())
		w.run("node1", "kill", "-9", pid)
		check(t, w.probe.Await(w.ctx(), func(events []lab.ProbeEvent) bool {
			for _, e := range events[before:] {
				if e.Outage != nil {
					return true
				}
			}
			return false
		}))
		took = append(took, w.lastOutage("node1"))
		time.Sleep(1200 * time.Millisecond)
	}
	t.Logf("application killed, restarted in place, %d runs: %s", len(took), spread(took))
}

// The time from the boot of three nodes to the first answer, and that of forming a new cluster.
func TestMeasureColdStart(t *testing.T) {
	measuring(t)
	w := begin(t, setup{})
	var took []time.Duration
	for range *runs {
		w.whole()
		for _, n := range w.nodes {
			check(t, w.Crash(w.ctx(), n))
		}
		w.ask()
		began := time.Now()
		done := make(chan error, len(w.nodes))
		for _, n := range w.nodes {
			go func() { done <- w.Boot(w.ctx(), n) }()
		}
		for range w.nodes {
			check(t, <-done)
		}
		check(t, w.probe.AwaitAnswer(w.ctx(), ""))
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
	t.Logf("cold start of three nodes to the first answer, %d runs: %s", len(took), spread(took))
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

func TestMeasureIdle(t *testing.T) {
	measuring(t)
	w := begin(t, setup{noWatch: true})
	w.whole()
	time.Sleep(10 * time.Second)
	const span = 60 * time.Second
	before := map[string]usage{}
	for _, n := range w.nodes {
		before[n] = w.use(n)
	}
	time.Sleep(span)
	leader := w.leader()
	var cpu, pss float64
	for _, n := range w.nodes {
		u := w.use(n)
		percent := (u.cpu - before[n].cpu).Seconds() / span.Seconds() * 100
		cpu += percent / float64(len(w.nodes))
		pss += float64(u.pss) / 1024 / float64(len(w.nodes))
		t.Logf("%s (leads: %v): %.2f %% of a core, %.1f MiB PSS, %d KiB locked: %s", n, n == leader, percent, float64(u.pss)/1024, u.locked, strings.Join(u.procs, ", "))
	}
	t.Logf("idle, mean of three nodes: %.2f %% of a core, %.1f MiB PSS", cpu, pss)
}

// Both cores are busy eightfold: nothing fails over.
func TestMeasureSaturation(t *testing.T) {
	measuring(t)
	w := begin(t, setup{})
	w.ask()
	since := w.lastEvent()
	for range 8 * runtime.NumCPU() {
		// They end by themselves, should this process not live to end them.
		burn := exec.Command("timeout", strconv.Itoa(int((*saturate + 10*time.Second).Seconds())), "sh", "-c", "while :; do :; done")
		check(t, burn.Start())
		defer func() { _ = burn.Process.Signal(syscall.SIGTERM); _ = burn.Wait() }() // timeout passes it on
	}
	time.Sleep(*saturate)
	counts := map[string]int{}
	for _, e := range w.events(since) {
		if e.ID > since {
			counts[e.Kind]++
		}
	}
	t.Logf("%v with every core busy eightfold: false failovers %d, nodes called silent %d, called dead %d; all events: %v",
		*saturate, counts["rg_move_acquire"], counts["node_lost"], counts["node_dead"], counts)
	w.whole()
	w.outages()
}

// Many nodes on one machine: they stay together, and a failover works.
func TestThirtyTwoNodes(t *testing.T) {
	if !*big {
		t.Skip("32 nodes need a quiet machine; -big runs it")
	}
	w := begin(t, setup{nodes: 32, noWatch: true, nodeOrder: []string{"node1", "node2", "node3"}, fence: true})
	w.ask()
	w.whole()
	since := w.lastEvent()
	leader := w.leader()
	before := w.use(leader)
	const span = time.Minute
	time.Sleep(span)
	after := w.use(leader)
	t.Logf("leader of 32 nodes: %.2f %% of a core, %.1f MiB PSS", (after.cpu-before.cpu).Seconds()/span.Seconds()*100, float64(after.pss)/1024)
	for _, e := range w.events(since) {
		if e.ID > since && (e.Kind == "node_lost" || e.Kind == "node_dead") {
			t.Errorf("a calm minute was not calm: %s %s", e.Kind, e.Sentence)
		}
	}
	on := w.online(group)
	check(t, w.Crash(w.ctx(), on))
	w.answersFrom(w.elsewhere(on))
	t.Logf("failover with 32 nodes: outage %.3f s", w.lastOutage(on).Seconds())
	check(t, w.PowerOn(w.ctx(), on))
	w.nodesAre(api.NodeNormal)
}
