package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// accept makes the backend take every request at index 11, and apply edit to the status at once.
func (l *lab) accept(edit func(*api.Status)) {
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) {
		l.backend.Change(func(st *api.Status) {
			st.Cluster.AppliedIndex = 11
			if edit != nil {
				edit(st)
			}
		})
		return api.Reply{Index: 11}, nil
	}
}

func setInstance(st *api.Status, group, node, state, reason string) {
	i := st.Group(group).On(node)
	i.State, i.Reason, i.Due = state, reason, ""
}

func movedTo2(st *api.Status) {
	setInstance(st, "rg1", "node1", api.GroupOffline, "")
	setInstance(st, "rg1", "node2", api.GroupOnline, "")
}

// TestTheFourLines are typed as they are promised, letter by letter.
func TestTheFourLines(t *testing.T) {
	stopAll := func(st *api.Status) {
		for i := range st.Nodes {
			st.Nodes[i].State = api.NodeOffline
		}
		st.Cluster.State = api.ClusterOffline
		setInstance(st, "rg1", "node1", api.GroupOffline, "")
	}
	for _, tc := range []struct {
		line string
		edit func(*api.Status)
		want api.Request
		yaml string
		say  string
	}{
		{line: "clmgr start cluster -o home", want: api.Request{Op: api.OpStart, Manage: api.ManageAuto, Placement: api.PlacementHome},
			edit: func(st *api.Status) { setInstance(st, "rg2", "node2", api.GroupOnline, "") }, say: "cluster services run on node1, node2 and node3"},
		{line: "clmgr stop cluster -m graceful", want: api.Request{Op: api.OpStop, Manage: api.ManageOffline}, edit: stopAll,
			say: "cluster services are stopped"},
		{line: "clmgr set failover -g rg1 -m next", yaml: "", say: "rg1: FALLOVER is FNPN"},
		{line: "clmgr set fallback -g rg2 -m never", yaml: "startup: OFAN\n    fallover: FNPN\n    fallback: NFB", say: "rg2: FALLBACK is NFB"},
	} {
		l := newLab(t)
		l.accept(tc.edit)
		got := l.run(strings.Fields(tc.line)[1:]...)
		if got.status != 0 || !strings.Contains(got.out, tc.say) {
			t.Errorf("%s: status %d, %q, %q", tc.line, got.status, got.out, got.errors)
		}
		if tc.want.Op != "" {
			reqs := l.backend.Requests()
			if len(reqs) != 1 {
				t.Fatalf("%s: %d requests", tc.line, len(reqs))
			}
			reqs[0].ID = ""
			if !reflect.DeepEqual(reqs[0], tc.want) {
				t.Errorf("%s: asked %+v", tc.line, reqs[0])
			}
		}
		if text, _ := l.backend.YAML(); !strings.Contains(text, tc.yaml) {
			t.Errorf("%s: the definition is now\n%s", tc.line, text)
		}
	}
}

func TestModesOfStopAndStart(t *testing.T) {
	for line, want := range map[string]string{
		"stop cluster":                        api.ManageOffline,
		"stop cluster -m takeover":            api.ManageMove,
		"stop node node1 -m FORCED":           api.ManageUnmanage,
		"offline node node1 MANAGE=unmanage":  api.ManageUnmanage,
		"offline cluster manage=Move":         api.ManageMove,
		"off no node1 WHEN=now MANAGE=offlin": "",
		"stop cluster -m nicely":              "",
		"stop cluster -m forced MANAGE=move":  "",
		"stop cluster WHEN=restart":           "",
		"start cluster -o manual":             api.ManageManual,
		"start cluster MANAGE=manual":         api.ManageManual,
		"start cluster -o somewhere":          "",
		"start cluster MANAGE=unmanage":       "",
	} {
		l := newLab(t)
		l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) { return api.Reply{Refused: "seen"}, nil }
		got := l.run(strings.Fields(line)...)
		reqs := l.backend.Requests()
		switch {
		case want == "" && (len(reqs) != 0 || got.status != ExitIncorrect):
			t.Errorf("%s: asked %+v, status %d %q", line, reqs, got.status, got.errors)
		case want != "" && (len(reqs) != 1 || reqs[0].Manage != want || got.status != ExitFailed):
			t.Errorf("%s: asked %+v, status %d %q", line, reqs, got.status, got.errors)
		}
	}
}

func TestMoveWaitsForItsEffect(t *testing.T) {
	l := newLab(t)
	polls := make(chan struct{}, 100)
	l.backend.OnWait = func(uint64) { polls <- struct{}{} }
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) {
		l.backend.Change(func(st *api.Status) {
			st.Cluster.AppliedIndex, st.Cluster.State = 11, api.ClusterUnstable
			setInstance(st, "rg1", "node1", api.GroupReleasing, "stopping app1")
		})
		return api.Reply{Index: 11}, nil
	}
	go func() {
		<-polls
		l.backend.Change(func(st *api.Status) {
			setInstance(st, "rg1", "node1", api.GroupOffline, "")
			setInstance(st, "rg1", "node2", api.GroupAcquiring, "starting app1")
		})
		<-polls
		l.backend.Change(func(st *api.Status) { st.Cluster.State = api.ClusterStable; movedTo2(st) })
	}()
	got := l.run("move", "resource_group", "rg1", "NODE=node2")
	if got.status != 0 || got.out != "rg1 is ONLINE on node2\n" {
		t.Fatalf("status %d, %q, %q", got.status, got.out, got.errors)
	}
	want := []string{
		"move resource_group rg1 NODE=node2: waiting for rg1 is OFFLINE on node2, wanted ONLINE; it is",
		"    RELEASING on node1 (stopping app1)",
		"move resource_group rg1 NODE=node2: waiting for rg1 is ACQUIRING on node2 (starting app1), wanted",
		"    ONLINE",
	}
	if lines := strings.Split(strings.TrimSpace(got.errors), "\n"); !reflect.DeepEqual(lines, want) {
		t.Errorf("it showed\n%s", got.errors)
	}
}

func TestMoveIsNotDoneBeforeThisNodeHasAppliedIt(t *testing.T) {
	l := newLab(t)
	l.backend.Change(movedTo2) // it looks as wanted, but from before the command
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) { return api.Reply{Index: 11}, nil }
	got := l.run("move", "rg", "rg1", "NODE=node2", "TIMEOUT=0.3")
	if got.status != ExitFailed || !strings.Contains(got.errors, "applied index 10 of 11") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
}

func TestTimeIsUpNamesWhatIsMissing(t *testing.T) {
	l := newLab(t)
	l.accept(func(st *api.Status) {
		st.Cluster.State = api.ClusterUnstable
		setInstance(st, "rg1", "node1", api.GroupReleasing, "/ha/stop runs for 400 s")
	})
	got := l.run("--timeout", "0.2", "move", "rg", "rg1", "NODE=node2")
	for _, want := range []string{"not seen to be done after 200ms", "rg1 is OFFLINE on node2", "RELEASING on node1 (/ha/stop runs for 400 s)"} {
		if got.status != ExitFailed || got.out != "" || !strings.Contains(got.errors, want) {
			t.Errorf("status %d, %q, %q: want %q", got.status, got.out, got.errors, want)
		}
	}
}

func TestASettledClusterWithoutTheEffectIsAFailure(t *testing.T) {
	l := newLab(t)
	l.accept(func(st *api.Status) {
		st.Cluster.State = api.ClusterError
		setInstance(st, "rg1", "node1", api.GroupOffline, "")
		setInstance(st, "rg1", "node2", api.GroupError, "/ha/start ended with 1")
	})
	got := l.run("move", "rg", "rg1", "NODE=node2")
	if got.status != ExitFailed || !strings.Contains(got.errors, "rg1 is ERROR on node2 (/ha/start ended with 1), wanted ONLINE") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
}

func TestStaleKnowledgeIsNoEffect(t *testing.T) {
	l := newLab(t)
	age := 9.0
	l.accept(func(st *api.Status) { movedTo2(st); st.Cluster.AgeSeconds = &age })
	got := l.run("move", "rg", "rg1", "NODE=node2", "TIMEOUT=0.2")
	if got.status != ExitFailed || !strings.Contains(got.errors, "node1 has not heard a leader for 9.0 s") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
}

func TestRefusalsAndErrorsOfTheCluster(t *testing.T) {
	for _, tc := range []struct {
		reply  api.Reply
		err    error
		status int
		want   string
	}{
		{api.Reply{Refused: "node2 is not up"}, nil, ExitFailed, "refused: node2 is not up"},
		{api.Reply{}, api.Errorf(api.CodeForbidden, "vera may only view"), ExitFailed, "vera may only view"},
		{api.Reply{}, api.Errorf(api.CodeNotFound, "there is no node"), ExitNotFound, "no node"},
		{api.Reply{}, api.Errorf(api.CodeInternal, "oh"), ExitFailed, "oh"},
	} {
		l := newLab(t)
		l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) { return tc.reply, tc.err }
		got := l.run("move", "rg", "rg1", "NODE=node2")
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) || got.out != "" {
			t.Errorf("%+v %v: status %d, %q, %q", tc.reply, tc.err, got.status, got.out, got.errors)
		}
	}
}

func TestAnElectionIsWaitedThroughWithOneID(t *testing.T) {
	l := newLab(t)
	ids := map[string]int{}
	l.backend.OnDo = func(_ api.Caller, r api.Request) (api.Reply, error) {
		if ids[r.ID]++; ids[r.ID] < 3 {
			code := api.CodeUnavailable
			if ids[r.ID] == 2 {
				code = api.CodeUncertain
			}
			return api.Reply{}, api.Errorf(code, "there is no leader")
		}
		l.backend.Change(func(st *api.Status) { st.Cluster.AppliedIndex = 11; movedTo2(st) })
		return api.Reply{Index: 11}, nil
	}
	got := l.run("move", "rg", "rg1", "NODE=node2")
	if got.status != 0 || len(ids) != 1 || !strings.Contains(got.errors, "there is no leader") {
		t.Errorf("status %d, ids %v, %q", got.status, ids, got.errors)
	}
}

func TestAnUnknownOutcomeIsSaid(t *testing.T) {
	l := newLab(t)
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) {
		return api.Reply{}, api.Errorf(api.CodeUncertain, "the leader was lost")
	}
	got := l.run("move", "rg", "rg1", "NODE=node2", "TIMEOUT=0.3")
	if got.status != ExitFailed || !strings.Contains(got.errors, "it is not known whether it was done") {
		t.Errorf("status %d, %q", got.status, got.errors)
	}
}

func TestNoWaitSaysSo(t *testing.T) {
	l := newLab(t)
	l.accept(nil)
	got := l.run("--no-wait", "move", "rg", "rg1", "NODE=node2")
	if got.status != 0 || !strings.Contains(got.out, "committed at index 11; its effect was not waited for") {
		t.Errorf("status %d, %q", got.status, got.out)
	}
	got = l.run("-o", "json", "--no-wait", "move", "rg", "rg1", "NODE=node2")
	var r result
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || r.Result != "committed" || r.Index != 11 {
		t.Errorf("%v: %s", err, got.out)
	}
}

func TestInterruptedWaitSaysThatTheCommandGoesOn(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.accept(func(st *api.Status) { st.Cluster.State = api.ClusterUnstable })
	l.backend.OnWait = func(uint64) { cancel() }
	got := l.call(ctx, Env{Name: "clmgr"}, "move", "rg", "rg1", "NODE=node2")
	if got.status != ExitFailed || !strings.Contains(got.errors, "interrupted; the command itself is committed") {
		t.Errorf("status %d, %q", got.status, got.errors)
	}
}

func TestTheClustersOwnConditions(t *testing.T) {
	l := newLab(t)
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) {
		l.backend.Change(func(st *api.Status) { st.Cluster.AppliedIndex = 11; movedTo2(st) })
		return api.Reply{Index: 11, Waits: []api.Wait{{Group: "rg2", Node: "node3", State: api.GroupOnline}, {Node: "node3", State: api.NodeNormal},
			{Group: "rg1", State: api.GroupOnline}}}, nil
	}
	got := l.run("move", "rg", "rg1", "NODE=node2")
	if got.status != ExitFailed || !strings.Contains(got.errors, "rg2 is OFFLINE on node3, wanted ONLINE") || strings.Contains(got.errors, "NORMAL") {
		t.Errorf("status %d, %q", got.status, got.errors)
	}
}

// The waiting line and the list of what is missing say each thing once, whoever has named it and however often.
func TestWhatIsMissingIsSaidOnce(t *testing.T) {
	l := newLab(t)
	placed := "the operator has placed it on node2"
	l.backend.OnDo = func(api.Caller, api.Request) (api.Reply, error) {
		l.backend.Change(func(st *api.Status) {
			st.Cluster.AppliedIndex, st.Cluster.State = 11, api.ClusterUnstable
			setInstance(st, "rg1", "node1", api.GroupReleasing, "stopping app1")
			setInstance(st, "rg1", "node2", api.GroupOffline, placed+"; "+placed)
		})
		return api.Reply{Index: 11, Waits: []api.Wait{{Group: "rg1", Node: "node2", State: api.GroupOnline}}}, nil
	}
	got := l.run("move", "rg", "rg1", "NODE=node2", "TIMEOUT=0.3")
	line := "rg1 is OFFLINE on node2 (" + placed + "), wanted ONLINE; it is RELEASING on node1 (stopping app1)"
	unfolded := strings.ReplaceAll(got.errors, "\n    ", " ")
	if got.status != ExitFailed || strings.Count(unfolded, placed) != 2 || // on the way, and at the end
		!strings.Contains(unfolded, "waiting for "+line+"\n") || !strings.HasSuffix(unfolded, "missing:\nERROR:   "+line+"\n") {
		t.Errorf("status %d, %q", got.status, got.errors)
	}
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"a", "b"}, []string{"a", "b"}},
		{[]string{"a", "b", "a"}, []string{"a", "b"}},
		{[]string{"a", "a; more"}, []string{"a; more"}},
		{[]string{"a; more", "a"}, []string{"a; more"}},
		{[]string{"a", "ab"}, []string{"a", "ab"}},
	} {
		if out := saidOnce(c.in); !reflect.DeepEqual(out, c.want) {
			t.Errorf("%q: %q, want %q", c.in, out, c.want)
		}
	}
}

// TestGoals puts each operation before a cluster where it is not done, and where it is.
func TestGoals(t *testing.T) {
	offline := func(st *api.Status) { setInstance(st, "rg1", "node1", api.GroupOffline, "") }
	node := func(name, state string) func(*api.Status) {
		return func(st *api.Status) { st.Node(name).State = state }
	}
	both := func(a, b func(*api.Status)) func(*api.Status) { return func(st *api.Status) { a(st); b(st) } }
	none := func(*api.Status) {}
	for _, tc := range []struct {
		line     string
		not, yes func(*api.Status)
		missing  string
	}{
		{"online rg rg2", none, func(st *api.Status) { setInstance(st, "rg2", "node3", api.GroupOnline, "") }, "rg2 is OFFLINE everywhere (due to parent offline)"},
		{"online rg rg1,rg2", none, func(st *api.Status) { setInstance(st, "rg2", "node3", api.GroupOnline, "") }, "rg2 is"},
		{"offline rg rg1", none, offline, "rg1 is ONLINE on node1"},
		{"offline rg rg1 NODE=node1", none, offline, "rg1 is ONLINE on node1"},
		{"offline rg rg1", func(st *api.Status) { setInstance(st, "rg1", "node1", api.Unknown, "") }, offline, "rg1 is UNKNOWN on node1"},
		{"start node node3", node("node3", api.NodeJoining), none, "node3 is JOINING, wanted NORMAL"},
		{"start cluster", func(st *api.Status) { setInstance(st, "rg1", "node2", api.GroupError, "fsck ended with 4") }, none, "rg1 is ERROR on node2 (fsck ended with 4)"},
		{"start cluster -o home", none, func(st *api.Status) { setInstance(st, "rg2", "node2", api.GroupOnline, "") }, "the cluster to settle"},
		{"stop node node1", node("node1", api.NodeLeaving), both(node("node1", api.NodeOffline), offline), "node1 is LEAVING, wanted OFFLINE"},
		{"stop node node1", node("node1", api.NodeOffline), both(node("node1", api.NodeOffline), offline), "rg1 is ONLINE on node1"},
		{"stop node node1 -m forced", node("node1", api.NodeNormal),
			both(node("node1", api.NodeUnmanaged), func(st *api.Status) { setInstance(st, "rg1", "node1", api.GroupUnmanaged, "") }), "wanted UNMANAGED"},
		{"stop node node3", node("node3", api.NodeSilent), node("node3", api.NodeDead), "node3 is SILENT"},
		{"unset priority rg2", none, func(st *api.Status) { st.Group("rg2").Override = nil }, "rg2 still has node3 as its first priority"},
		{"unset priority -g rg2", none, func(st *api.Status) { st.Group("rg2").Override = nil }, "rg2 still has"},
		{"clear rg rg1", func(st *api.Status) { setInstance(st, "rg1", "node2", api.GroupError, "again") }, none, "rg1 is ERROR on node2 (again)"},
		{"clear node node2", node("node2", api.NodeQuarantined), none, "node2 is QUARANTINED"},
		{"suspend rg rg1", none, func(st *api.Status) { st.Group("rg1").Suspended = true }, "rg1 is not yet suspended"},
		{"resume rg rg1", func(st *api.Status) { st.Group("rg1").Suspended = true }, none, "rg1 is not yet resumed"},
		{"unmanage rg rg1", none, func(st *api.Status) { setInstance(st, "rg1", "node1", api.GroupUnmanaged, "") }, "rg1 is ONLINE on node1"},
		{"manage rg rg1", func(st *api.Status) { setInstance(st, "rg1", "node1", api.GroupUnmanaged, "") }, none, "rg1 is UNMANAGED on node1"},
		{"-f confirm node_down node3", node("node3", api.NodeSilent), node("node3", api.NodeDead), "node3 is SILENT, wanted DEAD"},
	} {
		var l *lab
		var got outcome
		for _, limit := range []string{"0.1", "1", "10"} { // on a busy machine even the first answer may take longer
			l = newLab(t)
			l.accept(both(tc.not, func(st *api.Status) { st.Cluster.State = api.ClusterUnstable }))
			got = l.run(append([]string{"--timeout", limit}, strings.Fields(tc.line)...)...)
			if !strings.Contains(got.errors, "in the time given") {
				break
			}
		}
		if got.status != ExitFailed || got.out != "" || !strings.Contains(got.errors, tc.missing) {
			t.Errorf("%s, not done: status %d, %q, %q; want %q", tc.line, got.status, got.out, got.errors, tc.missing)
		}
		l = newLab(t)
		l.accept(tc.yes)
		got = l.run(strings.Fields(tc.line)...)
		if got.status != 0 || got.out == "" {
			t.Errorf("%s, done: status %d, %q, %q", tc.line, got.status, got.out, got.errors)
		}
	}
}

func TestStartAtHomeFailsWhenAGroupIsElsewhere(t *testing.T) {
	l := newLab(t)
	l.accept(func(st *api.Status) { setInstance(st, "rg2", "node3", api.GroupOnline, "") })
	got := l.run("start", "cluster", "-o", "home")
	if got.status != ExitFailed || !strings.Contains(got.errors, "rg2 is ONLINE on node3, wanted ONLINE on its home node node2") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
	// A group that ran before the start, away from its home, is not what the start is about.
	l = newLab(t)
	l.backend.Change(func(st *api.Status) { movedTo2(st); setInstance(st, "rg2", "node2", api.GroupOnline, "") })
	l.accept(nil)
	if got := l.run("start", "cluster", "-o", "home"); got.status != 0 || !strings.Contains(got.out, "rg1 is ONLINE on node2") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
}

// TestSettledForAMomentIsNotSettled: the status looks settled between a command's entry and the first decision that follows.
func TestSettledForAMomentIsNotSettled(t *testing.T) {
	l := newLab(t)
	polls := make(chan struct{}, 100)
	l.backend.OnWait = func(uint64) { polls <- struct{}{} }
	go func() {
		<-polls
		l.backend.Change(func(st *api.Status) {
			st.Cluster.State = api.ClusterUnstable
			setInstance(st, "rg2", "node2", api.GroupAcquiring, "a planned start")
		})
		<-polls
		l.backend.Change(func(st *api.Status) {
			st.Cluster.State = api.ClusterError
			setInstance(st, "rg2", "node2", api.GroupError, "it did not start")
		})
	}()
	env := Env{calmness: time.Minute}
	got := l.call(t.Context(), env, "modify", "rg", "rg2", "PRIORITY=3")
	if got.status != ExitFailed || !strings.Contains(got.errors, "since then rg2 is ERROR on node2 (it did not start)") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
	// A group that was in ERROR before is not this change's doing.
	if got := l.run("modify", "rg", "rg1", "PRIORITY=3"); got.status != 0 {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
}

func TestConfirmAsks(t *testing.T) {
	l := newLab(t)
	if got := l.run("confirm", "node_down", "node3"); got.status != ExitMissing || len(l.backend.Requests()) != 0 {
		t.Errorf("with nobody to ask: status %d, %q", got.status, got.errors)
	}
	l.accept(func(st *api.Status) { st.Node("node3").State = api.NodeDead })
	if got := l.call(t.Context(), Env{Terminal: true, Stdin: strings.NewReader("no\n")}, "confirm", "node_down", "node3"); got.status != ExitFailed ||
		len(l.backend.Requests()) != 0 {
		t.Errorf("a no: status %d, %q", got.status, got.errors)
	}
	if got := l.call(t.Context(), Env{Terminal: true, Stdin: strings.NewReader("yes\n")}, "confirm", "node_down", "node3"); got.status != 0 {
		t.Errorf("a yes: status %d, %q", got.status, got.errors)
	}
}

func TestTerminalShowsOneLiveLine(t *testing.T) {
	l := newLab(t)
	l.accept(func(st *api.Status) { st.Cluster.State = api.ClusterUnstable })
	var errs syncBuffer
	l.call(t.Context(), Env{Terminal: true, Width: 60, Stderr: &errs}, "move", "rg", "rg1", "NODE=node2", "TIMEOUT=0.1")
	text := errs.String()
	if !strings.Contains(text, "\r\x1b[K") || !strings.Contains(text, "...") {
		t.Errorf("got %q", text)
	}
	for part := range strings.SplitSeq(text, "\r\x1b[K") {
		if line := firstLine(part); !strings.HasPrefix(line, "ERROR") && len(line) > 60 {
			t.Errorf("a live line of %d columns: %q", len(line), line)
		}
	}
}

func TestExplain(t *testing.T) {
	l := newLab(t)
	l.backend.OnExplain = func(g, n string) (api.Explanation, error) {
		return api.Explanation{Group: g, Node: n, Sentences: []string{fmt.Sprintf("%s/%s\x1b[2J", g, n)},
			Nodes: []api.NodeVerdict{{Node: "node2", State: "NORMAL", Can: true}, {Node: "node3", State: "DEAD", Reason: "fenced"}}}, nil
	}
	for line, want := range map[string]string{"explain rg1": "rg1/?[2J\n", "explain rg1 node2": "rg1/node2?[2J\n", "explain resource_group rg1": "rg1/?[2J\n"} {
		got := l.run(strings.Fields(line)...)
		if got.status != 0 || !strings.HasPrefix(got.out, want) || !strings.Contains(got.out, "cannot take it (fenced)") {
			t.Errorf("%s: status %d, %q, %q", line, got.status, got.out, got.errors)
		}
	}
	if got := l.run("explain", "rg1", "node9"); got.status != ExitNotFound {
		t.Errorf("no such node: %d", got.status)
	}
}
