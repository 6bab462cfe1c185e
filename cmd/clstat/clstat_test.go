package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"
	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2016, 2, 10, 11, 43, 5, 0, time.UTC)

func c1() api.Status {
	zero := 0.0
	return api.Status{
		Cluster: api.Cluster{Name: "c1", ID: 1120652512, State: api.ClusterStable, LocalNode: "node1", AgeSeconds: &zero, StaleSeconds: 3},
		Nodes: []api.Node{
			{Name: "node1", State: api.NodeNormal, Addresses: []api.Address{
				{Label: "node1_boot", Address: "10.1.1.1", Network: "net1", State: api.Up}, {Label: "svc1", Address: "10.1.1.10", Network: "net1", State: api.Up}}},
			{Name: "node2", State: api.NodeDead, Reason: "fenced by ipmi1", Addresses: []api.Address{
				{Label: "node2_boot", Address: "10.1.1.2", Network: "net1"}}},
		},
		Networks: []api.Network{{Name: "net1", State: api.Up}},
		Groups: []api.Group{
			{Name: "rg1", Nodes: []string{"node1", "node2"}, Instances: []api.Instance{{Node: "node1", State: api.GroupOnline}, {Node: "node2", State: api.GroupOffline}}},
			{Name: "rg2", Nodes: []string{"node2", "node1"}, Instances: []api.Instance{{Node: "node2", State: api.Unknown}, {Node: "node1", State: api.GroupOffline}}},
			{Name: "rg3", Nodes: []string{"node1"}, Instances: []api.Instance{{Node: "node1", State: api.GroupOffline, Due: api.DueLackOfNode}}},
		},
	}
}

func text(v view) string {
	var b strings.Builder
	for _, l := range v.lines() {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

func TestPictures(t *testing.T) {
	st, stale, none := c1(), c1(), c1()
	age := 12.0
	stale.Cluster.AgeSeconds = &age
	none.Cluster.AgeSeconds = nil
	none.Cluster.Warnings = []string{"no further failure is survived\x1b[2J"}
	for file, v := range map[string]view{
		"up.txt":      {status: &st, now: noon},
		"stale.txt":   {status: &stale, now: noon},
		"never.txt":   {status: &none, now: noon},
		"silent.txt":  {status: &st, seen: noon.Add(-42 * time.Second), err: errors.New("nobody listens there"), now: noon},
		"nothing.txt": {err: errors.New("nobody listens there"), now: noon},
	} {
		path, got := filepath.Join("testdata", file), text(v)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (go test -update writes it anew); got\n%s", file, got)
		}
	}
}

func TestEveryWordOfStates(t *testing.T) {
	for state, want := range map[string]string{api.NodeNormal: "UP", api.NodeOffline: "DOWN", api.NodeSilent: api.Unknown, api.NodeIsolated: api.Unknown, api.NodeDead: "DOWN",
		api.NodeJoining: "JOINING", api.NodeQuarantined: "DOWN", api.NodeUnmanaged: "UP", "": api.Unknown, "SOMETHING NEW": api.Unknown} {
		if got := nodeState(&api.Node{State: state}); got != want {
			t.Errorf("node %q: %q, want %q", state, got, want)
		}
	}
	for state, want := range map[string]string{api.GroupOnline: "On line", api.GroupError: "Error (why)", api.Unknown: "Unknown (why)", "SOMETHING NEW": "Unknown (why)"} {
		if got := groupState(&api.Instance{State: state, Reason: "why"}); got != want {
			t.Errorf("group %q: %q, want %q", state, got, want)
		}
	}
}

type rig struct {
	backend *servertest.Backend
	socket  string
	stop    func()
}

func start(t *testing.T) *rig {
	t.Helper()
	r := &rig{backend: servertest.New(c1()), socket: filepath.Join(t.TempDir(), "s")}
	s, err := server.New(server.Config{Backend: r.backend, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := server.ListenLocal(r.socket, server.Access{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeLocal(l) }()
	stopped := false
	r.stop = func() {
		if !stopped {
			stopped = true
			s.Close()
			<-done
		}
	}
	t.Cleanup(r.stop)
	return r
}

func TestOnce(t *testing.T) {
	r := start(t)
	var out, errs bytes.Buffer
	if status := run([]string{"-a", "-o", "--socket", r.socket}, &out, &errs); status != 0 || !strings.Contains(out.String(), "Resource Group: rg1") {
		t.Errorf("%d %q %q", status, out.String(), errs.String())
	}
	out.Reset()
	var st api.Status
	if status := run([]string{"-o", "json", "--socket", r.socket}, &out, &errs); status != 0 || json.Unmarshal(out.Bytes(), &st) != nil || st.Cluster.Name != "c1" {
		t.Errorf("%d %q", status, out.String())
	}
	for _, tc := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"-o", "-n", "c2", "--socket", r.socket}, 1, `"c1", not to "c2"`},
		{[]string{"-o", "-c", "7", "--socket", r.socket}, 1, "id 1120652512, not 7"},
		{[]string{"-o", "-n", "c1", "-c", "1120652512", "--socket", r.socket}, 0, ""},
		{[]string{"-o", "--socket", r.socket + "x"}, 1, "is clstrmgrd running"},
		{[]string{"-z"}, 2, "not understood"},
		{[]string{"-r", "0"}, 2, "a number of seconds"},
		{[]string{"-r", "NaN"}, 2, "a number of seconds"},
		{[]string{"-n"}, 2, "needs a value"},
		{[]string{"-h"}, 0, ""},
	} {
		errs.Reset()
		if status := run(tc.args, &out, &errs); status != tc.status || !strings.Contains(errs.String(), tc.want) {
			t.Errorf("%v: %d %q", tc.args, status, errs.String())
		}
	}
}

// A terminal is a simulated one of a size, with the loop running on it. After each drawing it keeps what stands on it: the
// simulation's own cells may be read only by whoever draws.
type terminal struct {
	tcell.SimulationScreen
	t      *testing.T
	done   chan error
	cancel context.CancelFunc

	mu    sync.Mutex
	drawn []string
	news  chan struct{}
}

func newTerminal(t *testing.T, cols, rows int) *terminal {
	t.Helper()
	x := &terminal{SimulationScreen: tcell.NewSimulationScreen("UTF-8"), t: t, done: make(chan error, 1), news: make(chan struct{}, 1)}
	if err := x.Init(); err != nil {
		t.Fatal(err)
	}
	x.SetSize(cols, rows)
	return x
}

func open(t *testing.T, r *rig, o options, cols, rows int) *terminal {
	t.Helper()
	x := newTerminal(t, cols, rows)
	c := client.New(r.socket)
	ctx, cancel := context.WithCancel(t.Context())
	x.cancel = cancel
	if o.refresh == 0 {
		o.refresh = time.Hour
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.done <- follow(ctx, x, c, o, time.Now)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		x.Fini()
		c.Close()
	})
	return x
}

// Show draws, and keeps the picture line by line.
func (x *terminal) Show() {
	x.SimulationScreen.Show()
	cells, cols, rows := x.GetContents()
	var out []string
	for y := range rows {
		var b strings.Builder
		for _, c := range cells[y*cols : (y+1)*cols] {
			b.WriteString(string(c.Runes))
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	x.mu.Lock()
	x.drawn = out
	x.mu.Unlock()
	select {
	case x.news <- struct{}{}:
	default:
	}
}

// rows is the last picture.
func (x *terminal) rows() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.drawn
}

// until looks at each picture until one has a text.
func (x *terminal) until(want string) {
	x.t.Helper()
	for !strings.Contains(strings.Join(x.rows(), "\n"), want) {
		select {
		case <-x.news:
		case <-x.t.Context().Done():
			x.t.Fatalf("no %q on the screen:\n%s", want, strings.Join(x.rows(), "\n"))
		case err := <-x.done:
			x.t.Fatalf("it ended (%v) without %q", err, want)
		}
	}
}

func (x *terminal) press(r rune) { x.InjectKey(tcell.KeyRune, r, tcell.ModNone) }

func (x *terminal) resize(cols, rows int) {
	x.SetSize(cols, rows)
	if err := x.PostEvent(tcell.NewEventResize(cols, rows)); err != nil {
		x.t.Error(err)
	}
}

func TestLive(t *testing.T) {
	r := start(t)
	x := open(t, r, options{}, 80, 24)
	x.until("Resource Group: rg1                State:  On line")
	if last := x.rows()[23]; !strings.Contains(last, "q/quit") {
		t.Errorf("last row %q", last)
	}
	r.backend.Change(func(st *api.Status) { st.Groups[0].Instances[0].State = api.GroupReleasing }) // shown at once, by long poll
	x.until("Resource Group: rg1                State:  Releasing")
	x.resize(80, 10) // paging
	x.until("more lines")
	x.press('f')
	x.until("Resource Group: rg3")
	x.press('b')
	x.until(title)
	x.press('q')
	if err := <-x.done; err != nil {
		t.Error(err)
	}
}

func TestLiveShowsThatTheDaemonIsGone(t *testing.T) {
	r := start(t)
	x := open(t, r, options{}, 100, 30)
	x.until("SubState: STABLE")
	r.stop()
	x.until("STALE: the daemon has not answered for")
	if screen := strings.Join(x.rows(), "\n"); !strings.Contains(screen, "State: UNKNOWN") || !strings.Contains(screen, "Resource Group: rg1") {
		t.Errorf("the last known state, marked as old, is wanted:\n%s", screen)
	}
	x.cancel()
	<-x.done
}

func TestLiveRefreshAsksAtOnce(t *testing.T) {
	r := start(t)
	waits := make(chan struct{}, 10)
	r.backend.OnWait = func(uint64) { waits <- struct{}{} }
	x := open(t, r, options{}, 80, 24)
	<-waits
	x.press('r')
	<-waits // the long poll was broken off and begun anew
	x.press('Q')
	<-x.done
}

func TestLiveEndsForAnotherCluster(t *testing.T) {
	x := open(t, start(t), options{name: "c2"}, 80, 24)
	if err := <-x.done; err == nil || !strings.Contains(err.Error(), "c1") {
		t.Errorf("got %v", err)
	}
}

// TestAnySize draws on terminals of sizes that nobody has, and on one that shrinks.
func TestAnySize(t *testing.T) {
	st := c1()
	for _, size := range [][2]int{{1, 1}, {2, 1}, {1, 50}, {80, 2}, {80, 3}, {20, 5}, {300, 100}} {
		s := tcell.NewSimulationScreen("UTF-8")
		if err := s.Init(); err != nil {
			t.Fatal(err)
		}
		s.SetSize(size[0], size[1])
		d := &display{screen: s, view: view{status: &st, now: noon}, top: 1000}
		d.draw()
		if d.top < 0 || d.top > len(d.view.lines()) {
			t.Errorf("%v: top is %d", size, d.top)
		}
		for range 5 {
			d.handle(tcell.NewEventKey(tcell.KeyPgDn, 0, tcell.ModNone), nil)
			d.draw()
		}
		s.Fini()
	}
}

func TestLongLinesAreCutVisibly(t *testing.T) {
	s := newTerminal(t, 10, 2)
	defer s.Fini()
	put(s, 0, 10, "0123456789", tcell.StyleDefault)
	put(s, 1, 10, "0123456789a", tcell.StyleDefault)
	s.Show()
	if rows := s.rows(); rows[0] != "0123456789" || rows[1] != "012345678>" {
		t.Errorf("%q", rows)
	}
}

// TestNoColour: nothing on the screen depends on a colour, and -a uses no attribute at all.
func TestNoColour(t *testing.T) {
	st := c1()
	for _, ascii := range []bool{false, true} {
		s := tcell.NewSimulationScreen("UTF-8")
		if err := s.Init(); err != nil {
			t.Fatal(err)
		}
		s.SetSize(90, 40)
		d := &display{screen: s, ascii: ascii, view: view{status: &st, now: noon}}
		d.draw()
		cells, _, _ := s.GetContents()
		bold := false
		for _, c := range cells {
			fg, bg, attr := c.Style.Decompose()
			if fg != tcell.ColorDefault || bg != tcell.ColorDefault {
				t.Fatalf("a cell has the colours %v on %v", fg, bg)
			}
			bold = bold || attr&tcell.AttrBold != 0
		}
		if bold == ascii {
			t.Errorf("ascii %v: bold %v", ascii, bold)
		}
		s.Fini()
	}
}
