package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func everything() Sample {
	return Sample{
		Nodes:   []Node{{"node1", true, 0}, {"node2", false, 3 * time.Second}, {"node3", false, -1}},
		Groups:  []Group{{"rg1", "node1", "ONLINE"}, {"rg1", "node2", "UNKNOWN"}},
		Lease:   &Lease{Age: 200 * time.Millisecond, Margin: 3400 * time.Millisecond},
		Deadman: &Deadman{Connected: true, Armed: true, Margin: 4400 * time.Millisecond},
		Raft: &Raft{Term: 3, LastIndex: 9, CommitIndex: 8, AppliedIndex: 7, Voter: true, Voters: 3, Servers: 3, StoreCalls: 5, SlowestStoreCall: time.Millisecond, Rounds: 4,
			Volume: &Volume{Answers: true, Backups: 2, Usable: 1, Lost: 1}},
		Gossip: []Ring{{"net1", 2, 3, 1}},
	}
}

// touched has every instrument used once.
func touched() *Metrics {
	m := New("1.2.3")
	m.SetSource(everything)
	m.Leading(false) // It never did: no change.
	m.Leading(true)
	m.Leading(true)
	m.LeaseGranted(2 * time.Millisecond)
	m.LeaseRefused()
	m.Phase(PhaseDetect, time.Second)
	m.ExecutorRun("file_system")
	m.ExecutorFailed("file_system")
	m.ExecutorTook("file_system", "start", time.Second)
	m.Event("node_down")
	return m
}

func TestNamesFollowTheConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(touched().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	b, err := io.ReadAll(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %v %s", w.Code, err, b)
	}
	return string(b)
}

func TestScrape(t *testing.T) {
	got := scrape(t, touched())
	for _, want := range []string{
		`holdfast_build_info{goversion="go`, `version="1.2.3"} 1`, "holdfast_leading 1", "holdfast_leadership_changes_total 1", "holdfast_lease_grants_total 1",
		`holdfast_node_up{node="node2"} 0`, `holdfast_node_silence_seconds{node="node2"} 3`, `holdfast_group_state{group="rg1",node="node1",state="ONLINE"} 1`,
		`holdfast_group_state{group="rg1",node="node1",state="OFFLINE"} 0`, `holdfast_group_state{group="rg1",node="node2",state="UNKNOWN"} 1`,
		"holdfast_lease_age_seconds 0.2", "holdfast_lease_margin_seconds 3.4", "holdfast_deadman_armed 1", "holdfast_deadman_margin_seconds 4.4",
		`holdfast_transition_duration_seconds_sum{phase="detect"} 1`, `holdfast_transition_duration_seconds_count{phase="elect"} 0`,
		`holdfast_executor_failures_total{kind="file_system"} 1`, `holdfast_executor_duration_seconds_count{kind="file_system",operation="start"} 1`,
		"holdfast_raft_commit_index 8", "holdfast_raft_confirmations_total 4", "holdfast_raft_store_slowest_seconds 0.001", `holdfast_gossip_alive_members{network="net1"} 2`,
		`holdfast_events_total{event="node_down"} 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// What is not known is left out: a zero would be taken for a value.
func TestTheUnknownIsLeftOut(t *testing.T) {
	m := New("x")
	got := scrape(t, m)
	m.SetSource(func() Sample {
		return Sample{Nodes: []Node{{"node1", true, -1}}, Deadman: &Deadman{Connected: false, Armed: true, Margin: time.Second}}
	})
	got += scrape(t, m)
	for _, absent := range []string{"holdfast_lease_age", "holdfast_node_silence", "holdfast_deadman_armed", "holdfast_deadman_margin", "holdfast_raft_", "holdfast_group_state"} {
		if strings.Contains(got, absent) {
			t.Errorf("%s is shown and not known", absent)
		}
	}
}

func TestNilDoesNothing(t *testing.T) {
	var m *Metrics
	m.SetSource(everything)
	m.Leading(true)
	m.LeaseGranted(1)
	m.LeaseRefused()
	m.Phase(PhaseProve, 1)
	m.ExecutorRun("x")
	m.ExecutorFailed("x")
	m.ExecutorTook("x", "stop", 1)
	m.Event("x")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("it serves %d", w.Code)
	}
}

// Many scrape while much is noted.
func TestConcurrentUse(t *testing.T) {
	m := touched()
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 50 {
				m.Phase(PhaseCommit, time.Millisecond)
				m.SetSource(everything)
				w := httptest.NewRecorder()
				m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			}
		}()
	}
	for range 4 {
		<-done
	}
	if got := scrape(t, m); !strings.Contains(got, `holdfast_transition_duration_seconds_count{phase="commit"} 200`) {
		t.Error("observations were lost")
	}
}
