package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// A paper is a log file in memory.
type paper struct {
	mu   sync.Mutex
	text strings.Builder // not embedded: its WriteString would pass the lock by
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *paper) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *paper) Close() error { return nil }

// An eventRig is a desk whose commands are played: what a command does is in its name, /hang, /fail or anything else; each is written
// into the book as it begins.
type eventRig struct {
	*eventDesk
	out paper

	mu     sync.Mutex
	book   []string
	env    map[string][]string
	stuck  bool // a command that is killed does not end
	inside map[executor.Scope]int
	fails  map[string]int // how often a command is still to fail
}

func newEventRig(t *testing.T) *eventRig {
	r := &eventRig{env: map[string][]string{}, inside: map[executor.Scope]int{}, fails: map[string]int{}}
	r.eventDesk = &eventDesk{cluster: "c1", node: "n1", run: r.play, out: &r.out, now: time.Now, log: testLog(),
		mark: filepath.Join(t.TempDir(), "mark"), boot: "b1", met: func(bool) {}, unfinished: func(s executor.Scope) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.inside[s] > 0 {
				return errors.New("a command has not ended")
			}
			return nil
		}}
	return r
}

func (r *eventRig) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.book = append(r.book, s)
}

func (r *eventRig) noted() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.book, " ")
}

func (r *eventRig) play(ctx context.Context, c executor.Command) executor.Outcome {
	if ctx.Err() != nil {
		return executor.Outcome{Exit: -1, Err: context.Cause(ctx)}
	}
	key := c.Args[0] + "/" + c.Args[1] + ":" + filepath.Base(c.Path)
	r.mu.Lock()
	r.book = append(r.book, key)
	r.env[key] = c.Env
	r.inside[c.Scope]++
	fails := r.fails[c.Path] > 0
	if fails {
		r.fails[c.Path]--
	}
	r.mu.Unlock()
	end := func() {
		r.mu.Lock()
		r.inside[c.Scope]--
		r.mu.Unlock()
	}
	if strings.HasPrefix(c.Path, "/hang") {
		select {
		case <-ctx.Done():
			if r.stuck {
				return executor.Outcome{Exit: -1, Err: executor.ErrStuck} // it stays inside
			}
		case <-time.After(c.Timeout):
		}
		end()
		return executor.Outcome{Exit: -1, Err: errors.New("it was killed")}
	}
	end()
	if fails || strings.HasPrefix(c.Path, "/fail") {
		return executor.Outcome{Exit: 3, Output: "no luck\n", Err: errors.New("ended with exit status 3")}
	}
	return executor.Outcome{Output: "all\nwell\n"}
}

func eventDefinition(list ...cluster.EventCommands) *cluster.Definition {
	return &cluster.Definition{Name: "c1", Events: list}
}

// history is a state in which these events have happened.
func history(t *testing.T, d *cluster.Definition, at time.Time, names ...string) *state.State {
	t.Helper()
	s := state.New()
	s.Definition = d
	for i, name := range names {
		c := &state.Command{ID: fmt.Sprint(name, i, at.UnixNano()), At: at, Note: &state.Note{Event: name, Node: "n2", Sentence: "it is so"}}
		next, res := state.Apply(s, state.Entry{Index: uint64(i + 1), Term: 1, Command: c})
		if res.Refused != "" {
			t.Fatal(res.Refused)
		}
		s = next
	}
	return s
}

func TestCommandsRunInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEventRig(t)
		d := eventDefinition(
			cluster.EventCommands{Name: "node_down", Pre: []string{"/p1", "/p2"}, Post: []string{"/q"}, Notify: "/tell"},
			cluster.EventCommands{Name: "rg_move_acquire", Pre: []string{"/p"}, Post: []string{"/q"}},
			cluster.EventCommands{Name: "start_server", Pre: []string{"/p"}, Post: []string{"/q"}})
		r.begun = true
		r.take(t.Context(), history(t, d, time.Now(), "node_lost", "node_down", "no_such_event"), true)
		run := r.groupRun(t.Context(), d, "rg")
		err := run.around(t.Context(), "rg_move_acquire", "", false, func() error {
			return run.around(t.Context(), "start_server", "app", true, func() error { r.note("WORK"); return nil })
		})
		synctest.Wait()
		var rest []string
		for _, word := range strings.Fields(r.noted()) {
			if !strings.HasSuffix(word, ":tell") { // at any time
				rest = append(rest, word)
			}
		}
		got := strings.Join(rest, " ")
		want := "node_down/pre:p1 node_down/pre:p2 node_down/post:q rg_move_acquire/pre:p start_server/pre:p WORK start_server/post:q rg_move_acquire/post:q"
		if err != nil || got != want {
			t.Errorf("%v\n got %s\nwant %s", err, got, want)
		}
		env := strings.Join(r.env["start_server/post:q"], "\n")
		for _, w := range []string{"HOLDFAST_EVENT=start_server", "HOLDFAST_PHASE=post", "HOLDFAST_GROUP=rg", "HOLDFAST_RESOURCE=app", "HOLDFAST_NODE=n1",
			"HOLDFAST_STATUS=0", "HOLDFAST_CLUSTER=c1"} {
			if !strings.Contains(env, w) {
				t.Errorf("%s is not in the environment:\n%s", w, env)
			}
		}
		for _, w := range []string{" EVENT START: node_lost n2\n", " EVENT COMPLETED: node_down n2 0\n", " EVENT START: start_server n1 rg app\n",
			"Event: TE_START_SERVER\n", "Acquiring resource:             app                             start_server\nResource online:                app                             start_server\n", "Resource group online:          rg                              process_resources\n", ":node_down[pre] all\n:node_down[pre] well\n",
			"Pre-event command:              app                             p rc=0\n"} {
			if !strings.Contains(r.out.String(), w) {
				t.Errorf("%q is not in hacmp.out:\n%s", w, r.out.String())
			}
		}
	})
}

// Nothing waits for a notify command, not even that of another event.
func TestAHangingNotifyCommandDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEventRig(t)
		d := eventDefinition(cluster.EventCommands{Name: "node_down", Notify: "/hang", Post: []string{"/q"}, Timeout: time.Hour},
			cluster.EventCommands{Name: "rg_move_acquire", Notify: "/hang", Timeout: time.Hour}, cluster.EventCommands{Name: "rg_move_complete", Notify: "/tell"})
		r.begun = true
		began := time.Now()
		r.take(t.Context(), history(t, d, began, "node_down", "rg_move_complete"), true)
		run := r.groupRun(t.Context(), d, "rg")
		ctx, cancel := context.WithCancel(t.Context())
		if err := run.around(ctx, "rg_move_acquire", "", false, func() error { r.note("WORK"); return nil }); err != nil {
			t.Error(err)
		}
		cancel() // the work is over, and its notify command goes on
		synctest.Wait()
		if time.Since(began) != 0 || !strings.Contains(r.noted(), "WORK") || strings.Count(r.noted(), "rg_move_complete/complete:tell") != 1 {
			t.Errorf("after %v: %s", time.Since(began), r.noted())
		}
		if strings.Contains(r.noted(), "complete:hang") {
			t.Errorf("two notify commands of one event ran at once: %s", r.noted())
		}
		if err := r.ended("rg"); err != nil {
			t.Errorf("the group's release waits for a notify command: %v", err)
		}
		r.wg.Wait()
	})
}

func TestPreCommandsThatFail(t *testing.T) {
	for _, c := range []struct {
		what     string
		commands cluster.EventCommands
		fails    map[string]int // of commands, and of the work
		again    bool
		book     string
		failed   string
	}{
		{"it is written down and no more", cluster.EventCommands{Pre: []string{"/fail", "/p"}, Post: []string{"/q"}}, nil, true, "pre:fail pre:p WORK post:q", ""},
		{"the event fails with it", cluster.EventCommands{Pre: []string{"/fail", "/p"}, Post: []string{"/q"}, FailOnError: true}, nil, true, "pre:fail post:q", "pre-command"},
		{"it is recovered", cluster.EventCommands{Pre: []string{"/p"}, FailOnError: true, Recovery: "/r"}, map[string]int{"/p": 1}, false,
			"pre:p recovery:r pre:p WORK", ""},
		{"the work is recovered", cluster.EventCommands{Pre: []string{"/p"}, Recovery: "/r", RecoveryLimit: 2, Post: []string{"/q"}}, map[string]int{"WORK": 2}, true,
			"pre:p WORK recovery:r WORK recovery:r WORK post:q", ""},
		{"the tries are used up", cluster.EventCommands{Recovery: "/r", RecoveryLimit: 2}, map[string]int{"WORK": 9}, true, "WORK recovery:r WORK recovery:r WORK", "no work"},
		{"once where no limit is said", cluster.EventCommands{Recovery: "/r"}, map[string]int{"WORK": 9}, true, "WORK recovery:r WORK", "no work"},
		{"the recovery fails", cluster.EventCommands{Recovery: "/fail", RecoveryLimit: 5}, map[string]int{"WORK": 9}, true, "WORK recovery:fail", "its recovery command"},
		{"a whole move is not tried again", cluster.EventCommands{Pre: []string{"/p"}, FailOnError: true, Recovery: "/r", RecoveryLimit: 5},
			map[string]int{"WORK": 9}, false, "pre:p WORK", "no work"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newEventRig(t)
			if c.fails != nil {
				r.fails = c.fails
			}
			c.commands.Name = "start_server"
			run := r.groupRun(t.Context(), eventDefinition(c.commands), "rg")
			err := run.around(t.Context(), "start_server", "app", c.again, func() error {
				r.note("WORK")
				if r.fails["WORK"] > 0 {
					r.fails["WORK"]--
					return errors.New("no work")
				}
				return nil
			})
			got := strings.ReplaceAll(r.noted(), "start_server/", "")
			if got != c.book || (err == nil) != (c.failed == "") || err != nil && !strings.Contains(err.Error(), c.failed) {
				t.Errorf("%s: %v\n got %s\nwant %s", c.what, err, got, c.book)
			}
			if word := map[bool]string{true: "EVENT COMPLETED: start_server n1 rg app 0\n", false: "EVENT FAILED: 1: start_server n1 rg app 1 # "}[c.failed == ""]; !strings.Contains(r.out.String(), word) {
				t.Errorf("%s: %q is not in hacmp.out:\n%s", c.what, word, r.out.String())
			}
		})
	}
}

// From L_soft on a release waits for no command: not for the one under way, not for those of what the node heard before, and none
// begins.
func TestTheLeaseWaitsForNoCommand(t *testing.T) {
	for _, first := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newEventRig(t)
			d := eventDefinition(cluster.EventCommands{Name: "node_down", Pre: []string{"/hang"}, Timeout: time.Hour},
				cluster.EventCommands{Name: "rg_move_release", Pre: []string{"/hang"}, Post: []string{"/q"}, Timeout: time.Hour},
				cluster.EventCommands{Name: "stop_server", Pre: []string{"/p"}, Recovery: "/r", Timeout: time.Hour})
			r.begun = true
			if first {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				r.take(ctx, history(t, d, time.Now(), "node_down"), true)
			}
			run := r.groupRun(t.Context(), d, "rg")
			began := time.Now()
			go func() {
				time.Sleep(3 * time.Second)
				run.hurry()
				run.hurry()
			}()
			var at time.Duration
			err := run.around(t.Context(), "rg_move_release", "", false, func() error {
				at = time.Since(began)
				return run.around(t.Context(), "stop_server", "app", true, func() error { r.note("WORK"); return errors.New("no work") })
			})
			if at != 3*time.Second || time.Since(began) != at {
				t.Errorf("the work began after %v, all was over after %v", at, time.Since(began))
			}
			for _, not := range []string{"post:q", "stop_server/pre", "recovery"} {
				if strings.Contains(r.noted(), not) {
					t.Errorf("%s ran although the lease was over: %s", not, r.noted())
				}
			}
			if err == nil || !strings.Contains(r.out.String(), ":rg_move_release[post] /q # not run") {
				t.Errorf("%v\n%s", err, r.out.String())
			}
			if err := r.ended("rg"); err != nil {
				t.Errorf("a command that was killed is still there: %v", err)
			}
			r.wg.Wait()
		})
	}
}

// An acquisition that waits for a command when the lease runs out does not go on because nobody waits any more: what is there is let go of.
func TestNothingStartsBecauseNobodyWaits(t *testing.T) {
	for _, name := range []string{"rg_move_acquire", "start_server"} {
		synctest.Test(t, func(t *testing.T) {
			r := newEventRig(t)
			run := r.groupRun(t.Context(), eventDefinition(cluster.EventCommands{Name: name, Pre: []string{"/hang"}, Timeout: time.Hour}), "rg")
			go func() {
				time.Sleep(time.Second)
				run.hurry()
			}()
			err := run.around(t.Context(), name, "app", true, func() error { r.note("WORK"); return nil })
			if !errors.Is(err, errHurry) || strings.Contains(r.noted(), "WORK") {
				t.Errorf("%s: %v, %s", name, err, r.noted())
			}
			// The clean-up of that start is a release.
			if err := run.around(t.Context(), "stop_server", "app", true, func() error { r.note("STOP"); return nil }); err != nil {
				t.Error(err)
			}
			r.wg.Wait()
			if !strings.HasSuffix(r.noted(), " STOP") {
				t.Errorf("nothing was stopped: %s", r.noted())
			}
		})
	}
}

// A command that cannot be killed holds no release up, but the group does not count as released.
func TestACommandThatCannotBeKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEventRig(t)
		r.stuck = true
		run := r.groupRun(t.Context(), eventDefinition(cluster.EventCommands{Name: "rg_move_release", Pre: []string{"/hang"}, Timeout: time.Hour}), "rg")
		go func() {
			time.Sleep(time.Second)
			run.hurry()
		}()
		began := time.Now()
		if err := run.around(t.Context(), "rg_move_release", "", false, func() error { return nil }); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := r.ended("rg"); err == nil {
			t.Error("a command lives, and the group counts as released")
		}
		if err := r.ended("other"); err != nil {
			t.Errorf("another group: %v", err)
		}
	})
}

// hand is an executor that stops what it is told at once.
type hand struct {
	executor.Executor
	rig  *eventRig
	runs bool
}

func (h *hand) Probe(context.Context, executor.Resource) executor.Result {
	return executor.Result{Status: map[bool]executor.Status{true: executor.Running, false: executor.Stopped}[h.runs]}
}

func (h *hand) Stop(context.Context, executor.Resource) executor.Result {
	h.rig.note("STOP")
	h.runs = false
	return executor.Result{Status: executor.Stopped}
}

// At L_soft the loop itself sets a release free that hangs in a pre-command, well before L_hard; and what lives of the group's commands
// keeps "released" from being said.
func TestReleaseAtSoftLimitPassesAHangingPreCommand(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rig := newEventRig(t)
			rig.stuck = stuck
			h := &hand{rig: rig, runs: true}
			tombstones, err := executor.OpenTombstones(filepath.Join(t.TempDir(), "tombstones"))
			if err != nil {
				t.Fatal(err)
			}
			runner, err := executor.NewRunner(executor.RunnerOptions{Dir: t.TempDir(), BootID: "b1", CgroupRoot: "none"})
			if err != nil {
				t.Fatal(err)
			}
			clock := fakeClock{time.Now()}
			m := &member{name: "n1", clock: clock, log: testLog(), mail: newMailbox(), events: rig.eventDesk, tombstones: tombstones, runner: runner,
				met: metrics.New("test"), executors: executor.Registry{executor.KindApplication: h}}
			m.loop.ctx = t.Context()
			m.loop.node.init(m)
			n := &m.loop.node
			p, err := lease.Profile("default")
			if err != nil {
				t.Fatal(err)
			}
			m.setTiming(p)
			n.armed, n.armedWith, n.armedAt, n.requested = true, p, clock.Now(), clock.Now()

			d := eventDefinition(cluster.EventCommands{Name: "rg_move_release", Pre: []string{"/hang"}, Timeout: time.Hour})
			d.ResourceGroups = []cluster.ResourceGroup{{Name: "rg", Nodes: []string{"n1"}, Applications: []string{"app"}}}
			d.ApplicationControllers = []cluster.ApplicationController{{Name: "app", StartScript: "/x", StopScript: "/y"}}
			view := state.New()
			view.Definition = d
			m.beginJob(view, "rg", 7, jobStop)
			for clock.Now().Sub(n.requested) < p.Hard { // the loop's passes
				m.hurryEvents(clock.Now())
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				if rig.noted() != "rg_move_release/pre:hang" {
					break
				}
			}
			if took := clock.Now().Sub(n.requested); took < p.Soft || took > p.Soft+100*time.Millisecond || !strings.HasSuffix(rig.noted(), " STOP") {
				t.Errorf("after %v (L_soft %v, L_hard %v): %s", took, p.Soft, p.Hard, rig.noted())
			}
			m.work.Wait()
			done, ok := m.mail.take()[0].(workDone)
			if !ok || (done.outcome == state.OutcomeReleased) == stuck || (tombstones.Highest()["rg"] == 7) == stuck {
				t.Errorf("stuck: %v; %+v", stuck, done)
			}
		})
	}
}

// A daemon that ends sees no lease run out any more, so a release under way is set free at once.
func TestTheEndOfTheDaemonWaitsForNoCommand(t *testing.T) {
	r := newEventRig(t)
	m := &member{name: "n1", clock: testClock{}, log: testLog(), events: r.eventDesk}
	m.loop.node.init(m)
	run := r.groupRun(t.Context(), eventDefinition(), "rg")
	m.loop.node.group("rg").events = run
	m.loop.node.group("other")
	m.endNode()
	if !run.hurries() {
		t.Error("the release goes on waiting")
	}
}

type fakeClock struct{ zero time.Time }

func (c fakeClock) Now() lease.Instant { return lease.Instant(time.Hour + time.Since(c.zero)) }

// After a restart of the daemon what was begun is not run again, and what is new is; in another boot nothing of the past is.
func TestCommandsOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := eventDefinition(cluster.EventCommands{Name: "node_down", Pre: []string{"/p"}}, cluster.EventCommands{Name: "node_up", Pre: []string{"/p"}})
		r := newEventRig(t)
		look := func(known bool, at time.Time, names ...string) string {
			r.book = nil
			r.take(t.Context(), history(t, d, at, names...), known)
			synctest.Wait()
			return r.noted()
		}
		now := time.Now()
		if got := look(false, now, "node_down"); got != "" {
			t.Errorf("before the log knows this boot: %s", got)
		}
		if got := look(true, now, "node_down"); got != "" {
			t.Errorf("of the past: %s", got)
		}
		if got := look(true, now, "node_down", "node_up"); got != "node_up/pre:p" {
			t.Errorf("new: %s", got)
		}
		mark := r.mark
		again := func(boot string) {
			r = newEventRig(t)
			r.mark, r.boot = mark, boot
		}
		again("b1")
		if got := look(true, now, "node_down", "node_up", "node_down"); got != "node_down/pre:p" {
			t.Errorf("after a restart of the daemon: %s", got)
		}
		again("b2")
		if got := look(true, now, "node_down", "node_up", "node_down", "node_up"); got != "" {
			t.Errorf("after a boot: %s", got)
		}
		if got := look(true, now.Add(-time.Hour), "node_down", "node_up", "node_down", "node_up", "node_up"); got != "" {
			t.Errorf("of an hour ago: %s", got)
		}
		if err := os.WriteFile(mark, []byte("b2 not a number"), 0o600); err != nil {
			t.Fatal(err)
		}
		again("b2")
		if got := look(true, now, "node_down"); got != "" {
			t.Errorf("with a spoiled mark: %s", got)
		}
	})
}

// What an event says can neither forge a line of hacmp.out nor reach a command other than as one value.
func TestHostileSentences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEventRig(t)
		r.begun = true
		s := history(t, eventDefinition(cluster.EventCommands{Name: "node_down", Pre: []string{"/p"}}), time.Now(), "node_down")
		o := occurrence{name: "node_down", node: "n2", id: 1, sentence: "x\nAug 20 2017 14:56:39 EVENT COMPLETED: node_up n1 0\n$(reboot)\x00;\x1b[2J" + strings.Repeat("y", 3000),
			commands: s.Definition.Events[0]}
		r.happened(t.Context(), o)
		if strings.Contains(r.out.String(), "\nAug 20 2017") || strings.ContainsAny(r.out.String(), "\x00\x1b") {
			t.Errorf("a line was forged:\n%s", r.out.String())
		}
		for _, e := range r.env["node_down/pre:p"] {
			if strings.ContainsAny(e, "\n\x00") {
				t.Errorf("the environment has %q", e)
			}
		}
		if i := slices.IndexFunc(r.env["node_down/pre:p"], func(e string) bool { return strings.HasPrefix(e, "HOLDFAST_SENTENCE=x Aug") }); i < 0 {
			t.Errorf("the sentence is not in the environment: %q", r.env["node_down/pre:p"])
		}
	})
}
