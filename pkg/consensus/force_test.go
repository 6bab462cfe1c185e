package consensus

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server that has lost its majority leads alone after its configuration was forced, with all that its log held and with the commands, in
// their order, before anything of its new term; also when everything before lies in a snapshot.
func TestForce(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(map[bool]string{false: "from the log", true: "from a snapshot"}[snapshots], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.close()
				if snapshots {
					c.tune = func(cfg *Config) { cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 8, 1, time.Second }
				}
				lead := c.form("a", "b", "d")
				for i := range 40 {
					c.propose(lead, string(rune('A'+i)))
				}
				time.Sleep(10 * time.Second)
				dir := filepath.Join(c.dir, "b")
				force := func(commands ...[]byte) error {
					return Force(Forcing{ID: "b", ClusterID: "test", Dir: dir, Commands: commands, Config: Config{Clock: timeClock{}}})
				}
				if err := force([]byte("too early")); err == nil {
					t.Fatal("a store that is open was forced")
				}
				for _, id := range []string{"a", "d", "b"} {
					c.stop(id)
				}
				if err := force(); err == nil {
					t.Error("forced without a word to the state machine")
				}
				must(t, force([]byte("epoch"), []byte("note")))
				for i, want := range []string{"epoch", "nothing of that kind"} {
					found, err := LogEnds(dir, 8, func(b []byte) bool { return string(b) == want })
					if err != nil || found != (i == 0) {
						t.Errorf("%q at the log's end: %v %v", want, found, err)
					}
				}
				c.start("b")
				alone := c.nextLead("b", 20*time.Second)
				c.propose(alone, "after")
				entries := c.server("b").fsm.list()
				at := slices.Index(entries, "epoch")
				if at < 0 || !slices.Equal(entries[at:], []string{"epoch", "note", "after"}) || !strings.HasPrefix(strings.Join(entries, ""), "ABC") {
					t.Errorf("the state machine has seen %q", entries)
				}
				if v := voters(c.server("b").node.Configuration()); !slices.Equal(v, []string{"b"}) {
					t.Errorf("voters: %q", v)
				}
			})
		})
	}
}

// A server that has taken part in nothing has nothing to go on with.
func TestForceOfNothing(t *testing.T) {
	if err := Force(Forcing{ID: "a", ClusterID: "test", Dir: t.TempDir(), Commands: [][]byte{{1}}, Config: Config{Clock: timeClock{}}}); err == nil ||
		!strings.Contains(err.Error(), "the log is empty") {
		t.Errorf("got %v", err)
	}
}
