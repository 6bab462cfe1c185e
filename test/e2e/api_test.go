//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The outside world's interfaces on a cluster that lives: its answers are as its own description says, its metrics are those that the
// alerts and the dashboard name, and a stream of events goes on over the daemon's death with no event lost or told twice.
func TestOutsideWorld(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{fence: true})
	w.whole()
	t.Run("answers are as described", func(t *testing.T) { w.sub(t).answersAsDescribed() })
	t.Run("metrics", func(t *testing.T) { w.sub(t).metricsAreThere() })
	t.Run("stream", func(t *testing.T) { w.sub(t).streamGoesOn() })
}

func (w *world) answersAsDescribed() {
	get := func(path string) []byte {
		w.t.Helper()
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", w.NodePath("node1", "run", "clstrmgrd.sock"))
		}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(w.ctx(), http.MethodGet, "http://localhost"+path, nil)
		check(w.t, err)
		res, err := tr.RoundTrip(req)
		check(w.t, err)
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		check(w.t, err)
		if res.StatusCode != http.StatusOK {
			w.t.Errorf("%s: %s %s", path, res.Status, text)
		}
		return text
	}
	doc, err := openapi3.NewLoader().LoadFromData(get(api.PathOpenAPI))
	check(w.t, err)
	check(w.t, doc.Validate(w.ctx()))
	for path, schema := range map[string]string{
		api.PathStatus: "Status", api.PathEvents: "EventList", api.PathDefinition: "Definition", api.PathHealth: "Health", api.PathAudit: "AuditList",
		api.PathLocks: "LockList", api.PathSnapshots: "SnapshotList", api.PathExplain + "?group=" + group: "Explanation", api.PathState: "State",
	} {
		var v any
		check(w.t, json.Unmarshal(get(path), &v))
		if err := doc.Components.Schemas[schema].Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
			w.t.Errorf("%s: %v", path, err)
		}
	}
}

func (w *world) metricsAreThere() {
	script := `exec 3<>/dev/tcp/10.77.1.1/6193 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`
	w.clmgr("node1", "move", "resource_group", group, "NODE=node2") // what only shows after something was done
	w.clmgr("node1", "move", "resource_group", group, "NODE=node1")
	var text string
	// Failures have no series before the first one, and this cluster has no repository volume.
	rare := regexp.MustCompile(`^holdfast_executor_failures_total$|^holdfast_repository_`)
	w.await("the metrics are there", func() string {
		r, err := w.Run(w.ctx(), lab.ClientNode, "timeout", "5", "bash", "-c", script)
		if err != nil {
			return err.Error()
		}
		text = r.Stdout
		var missing []string
		for _, file := range []string{"prometheus/holdfast.rules.yml", "grafana/holdfast.json"} {
			b, err := os.ReadFile(filepath.Join("../../deploy", file))
			check(w.t, err)
			for _, name := range regexp.MustCompile(`\bholdfast_[a-z0-9_]+|\bprocess_[a-z_]+`).FindAllString(string(b), -1) {
				if !regexp.MustCompile(`(?m)^`+name+`[ {]`).MatchString(text) && !rare.MatchString(name) {
					missing = append(missing, name)
				}
			}
		}
		return strings.Join(missing, " ")
	})
}

func (w *world) streamGoesOn() {
	since := w.lastEvent()
	ctx, cancel := context.WithCancel(w.ctx())
	defer cancel()
	var mu sync.Mutex
	var ids []uint64
	var told []string
	done := make(chan error, 1)
	c := client.New(w.NodePath("node2", "run", "clstrmgrd.sock"))
	defer c.Close()
	go func() {
		done <- c.Follow(ctx, since, 0, func(e api.Event) error {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, e.ID)
			return nil
		}, func(s string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s)
		})
	}()
	caughtUp := func(what string) {
		w.t.Helper()
		w.await(what, func() string {
			mu.Lock()
			defer mu.Unlock()
			if last := w.lastEvent(); len(ids) == 0 || ids[len(ids)-1] < last {
				return fmt.Sprintf("heard %d events up to %v, the newest is %d", len(ids), ids[max(0, len(ids)-1):], last)
			}
			return ""
		})
	}
	w.clmgr("node1", "move", "resource_group", group, "NODE=node3")
	caughtUp("the stream tells of the move")
	check(w.t, w.Kill(w.ctx(), "node2", "agent"))
	w.clmgr("node1", "move", "resource_group", group, "NODE=node1")
	w.nodesAre(api.NodeNormal)
	caughtUp("the stream tells what came while its daemon was away")
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	for i, id := range ids {
		if id != since+1+uint64(i) {
			w.t.Fatalf("after event %d the stream told of %v", since, ids)
		}
	}
	if len(told) == 0 {
		w.t.Error("the daemon died, and nobody was told that the stream broke")
	}
	// The command prints one event a line, and ends as it is told to.
	r := w.run("node3", "timeout", "--signal=INT", "2", "clmgr", "-o", "json", "query", "event", "FOLLOW=yes", "TAIL=2")
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	var e api.Event
	if len(lines) < 2 || json.Unmarshal([]byte(lines[1]), &e) != nil || e.ID < ids[len(ids)-1] {
		w.t.Errorf("clmgr query event FOLLOW=yes: %+v", r)
	}
}

// command runs a tool at a node's socket, from outside of the lab: without the time that it takes to enter a node.
func (w *world) command(node string, argv ...string) (time.Duration, string) {
	cmd := exec.CommandContext(w.ctx(), filepath.Join(*binDir, argv[0]), argv[1:]...)
	cmd.Env = append(os.Environ(), api.SocketEnv+"="+w.NodePath(node, "run", "clstrmgrd.sock"))
	began := time.Now()
	out, err := cmd.Output()
	check(w.t, err)
	return time.Since(began), string(out)
}

func measureQueries(b *testing.B, w *world, what string) {
	node := w.other(w.leader())
	for _, argv := range [][]string{{"clmgr", "query", "cluster"}, {"clmgr", "query", "resource_group", "-v"}, {"clmgr", "query", "status"}, {"clRGinfo"}, {"clstat", "-o"}} {
		if _, err := os.Stat(filepath.Join(*binDir, argv[0])); err != nil {
			continue
		}
		var took []time.Duration
		for range max(b.N, 10) {
			d, out := w.command(node, argv...)
			if out == "" {
				b.Fatalf("%v says nothing", argv)
			}
			took = append(took, d)
		}
		report(b, strings.Join(argv, " ")+" on "+what, took)
	}
}

// How long the administrator waits for an answer, from the start of the command to its end.
func BenchmarkQueries(b *testing.B) {
	sayLoad()
	w := begin(b, setup{noWatch: true})
	w.whole()
	measureQueries(b, w, "three nodes")
}

// The same in a large cluster: 32 nodes, 256 groups.
func BenchmarkQueriesLarge(b *testing.B) {
	sayLoad()
	var body strings.Builder
	body.WriteString("resource_groups:\n")
	for i := range 256 {
		fmt.Fprintf(&body, "  - {name: rg%d, nodes: [node%d, node%d, node%d], startup: OHN, fallover: FNPN, fallback: NFB}\n", i, i%32+1, (i+1)%32+1, (i+2)%32+1)
	}
	s := manyNodes
	s.profile, s.body = "careful", body.String()
	w := begin(b, s)
	w.nodesAre(api.NodeNormal)
	w.await("all groups are online", func() string {
		st := w.view()
		if st == nil {
			return "nobody knows"
		}
		n := 0
		for i := range st.Groups {
			if len(st.Groups[i].OnlineOn()) == 1 {
				n++
			}
		}
		if n < 256 {
			return fmt.Sprintf("%d are", n)
		}
		return ""
	})
	measureQueries(b, w, "32 nodes with 256 groups")
}

// What 500 clients cost a node who all watch the status; each run is ten seconds.
func BenchmarkWatchers(b *testing.B) {
	sayLoad()
	w := begin(b, setup{noWatch: true})
	w.whole()
	node := w.other(w.leader())
	measure := func(what string) {
		time.Sleep(5 * time.Second)
		before, began := w.use(node), time.Now()
		for range max(b.N, 1) {
			time.Sleep(10 * time.Second)
		}
		span, after := time.Since(began), w.use(node)
		figure("%s: the node uses %.2f %% of a core, %.1f MiB PSS", what, (after.cpu-before.cpu).Seconds()/span.Seconds()*100, float64(after.pss)/1024)
	}
	measure("nobody watches")
	ctx, cancel := context.WithCancel(w.ctx())
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers, failed := 0, 0
	for range 500 {
		wg.Go(func() {
			c := client.New(w.NodePath(node, "run", "clstrmgrd.sock"))
			defer c.Close()
			var st api.Status
			for ctx.Err() == nil {
				next, err := c.Next(ctx, &st, 30*time.Second)
				mu.Lock()
				if err == nil {
					st = next
					answers++
				} else if ctx.Err() == nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	watched := func(what string) {
		mu.Lock()
		answers, failed = 0, 0
		mu.Unlock()
		began := time.Now()
		measure(what)
		mu.Lock()
		defer mu.Unlock()
		figure("%s: they are given %.0f answers a second, %d calls fail", what, float64(answers)/time.Since(began).Seconds(), failed)
	}
	watched("500 clients watch an idle cluster")
	wg.Go(func() {
		c := client.New(w.NodePath(w.leader(), "run", "clstrmgrd.sock"))
		defer c.Close()
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = c.Do(ctx, api.Request{Op: []api.Op{api.OpSuspend, api.OpResume}[i%2], Groups: []string{group}})
			time.Sleep(time.Second)
		}
	})
	watched("500 clients watch a cluster with a change each second")
	cancel()
	wg.Wait()
}
