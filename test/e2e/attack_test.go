//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The attacks of docs/attacks.md which a lab of real processes can make happen, by their numbers. A2 and A3 are in cut_test.go,
// B1 in crash_test.go. What needs a clock of its own per node or a step between two instructions (A11 to A13, B3) is shown in
// packages consensus, deadman and lease, in fake time.

// copyTree copies a node's directory, as a backup or an image would.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	check(t, os.RemoveAll(to))
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// copyServing copies a directory of the node on which the group runs, while its daemon is stopped for a moment: a copy of what is
// not being written. On a busy machine the moment may be too long, and the node is fenced for it; then it is done again.
func (w *world) copyServing(node, from, to string) {
	w.t.Helper()
	for range 5 {
		boots := w.boots(node)
		check(w.t, w.Pause(w.ctx(), node, "agent"))
		copyTree(w.t, from, to)
		err := w.Resume(w.ctx(), node, "agent")
		time.Sleep(2 * time.Second) // a fence order that is under way
		if err == nil && w.boots(node) == boots {
			w.whole()
			w.place(node)
			return
		}
		w.t.Logf("the copy took too long, and %s was reset: once more", node)
		w.reset(node, boots)
		w.whole()
		w.place(node)
	}
	w.t.Fatalf("%s is reset each time its directory is copied", node)
}

// quiet checks for some time that the node does not get the service address.
func (w *world) quiet(node string, d time.Duration) {
	w.t.Helper()
	before := len(w.holders())
	time.Sleep(d)
	for _, e := range w.holders()[before:] {
		if e.Node == node && e.Event == "gained" {
			w.t.Errorf("%s took %s at %s", node, service, e.Time.Format("15:04:05.000"))
		}
	}
}

// A1: a node whose disk says that the group is its own, and who cannot know better, starts nothing.
func TestA1OldLogStartsNothing(t *testing.T) {
	long(t)
	t.Parallel()
	for _, c := range []struct {
		name string
		save string // what is put back
		boot bool   // the node boots once more after the copy
		out  bool   // the copy is known for one (A10), and the daemon refuses to take part
	}{
		{"restored store", "raft", false, false},
		{"restored store of an earlier boot", "raft", true, true}, // only the others' memory tells it from the right one
		{"restored state directory", "", false, true},
		{"restored state directory of an earlier boot", "", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := begin(t, setup{profile: "fast", fence: true})
			w.ask()
			w.place("node1")
			state := w.NodePath("node1", "lib", c.save)
			saved := filepath.Join(t.TempDir(), "saved")
			w.copyServing("node1", state, saved)
			if c.boot {
				check(t, w.Crash(w.ctx(), "node1"))
				w.elsewhere("node1")
				check(t, w.PowerOn(w.ctx(), "node1"))
				w.whole()
				w.place("node1")
			}
			since := w.lastEvent()
			check(t, w.Crash(w.ctx(), "node1"))
			next := w.elsewhere("node1")
			w.answersFrom(next)
			w.clmgr(next, "modify", "resource_group", group, "FALLBACK=NFB", "PRIORITY=7") // the log goes on
			restore(t, saved, state)
			check(t, w.Cut(w.ctx(), "node1", "", lab.Both))
			check(t, w.PowerOn(w.ctx(), "node1"))
			w.quiet("node1", 6*time.Second) // it is alone with its old log
			server := w.serverOf("node1")
			check(t, w.Heal(w.ctx(), "node1"))
			w.quiet("node1", 3*time.Second)
			if c.out {
				said := ""
				w.await("the daemon on a restored disk says what it is", func() string {
					said = tail(w.NodePath("node1", "log", "clstrmgrd.out"), 1)
					if !strings.Contains(said, "this is a copy or an older state") || !strings.Contains(said, "join the node to the cluster again") {
						return "it says: " + said
					}
					return ""
				})
				t.Logf("the daemon says: %s", said)
				w.rejoin("node1", next)
				w.await("node1 has another server id", func() string {
					if now := w.serverOf("node1"); now == server || now == "" {
						return "it is " + now
					}
					return ""
				})
			}
			w.whole()
			if on := w.online(group); on != next {
				t.Errorf("the group is on %s, was on %s", on, next)
			}
			st := w.view()
			t.Logf("node1 is %s (%s), the cluster says: %s", st.Node("node1").State, st.Node("node1").Reason, st.Cluster.Quorum.Sentence)
			w.timeline(since)
			w.loserFirst()
			w.outages()
		})
	}
}

// serverOf is the server id that a node's own record of its membership names.
func (w *world) serverOf(node string) string {
	w.t.Helper()
	var r struct {
		Server string `json:"server_id"`
	}
	b, err := os.ReadFile(w.NodePath(node, "lib", "raft/identity.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return r.Server
}

// rejoin does what the daemon of a node with an untrusted store asks for.
func (w *world) rejoin(node, member string) {
	w.t.Helper()
	check(w.t, os.RemoveAll(w.NodePath(node, "lib", "raft")))
	w.join(node, member)
}

// join lets a node that belongs to no cluster join, with a token that a member makes.
func (w *world) join(node, member string) {
	w.t.Helper()
	w.await("the daemon of "+node+" answers", func() string {
		if r := w.run(node, "clmgr", "query", "cluster"); r.Code != 5 {
			return r.Stderr
		}
		return ""
	})
	token := w.clmgr(member, "-o", "json", "add", "token", node)
	var t struct{ Token string }
	check(w.t, json.Unmarshal([]byte(token), &t))
	w.clmgr(node, "join", "cluster", "TOKEN="+t.Token)
}

// restore puts a saved directory back in place of what is there, keeping the directory itself, which is bound into the node.
func restore(t *testing.T, saved, to string) {
	t.Helper()
	entries, err := os.ReadDir(to)
	check(t, err)
	for _, e := range entries {
		check(t, os.RemoveAll(filepath.Join(to, e.Name())))
	}
	if out, err := exec.Command("cp", "-a", saved+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
}

// A4: silence of a node that runs something unmanaged proves nothing, however long it lasts; the operator's word does.
func TestA4UnmanagedAndSilent(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast"})
	w.ask()
	since, pid := w.lastEvent(), w.appPID("node1")
	w.clmgr("node2", "unmanage", "resource_group", group)
	if now := w.appPID("node1"); now != pid {
		t.Errorf("unmanage: the application was process %s, is %s", pid, now)
	}
	check(t, w.Cut(w.ctx(), "node1", "", lab.Both))
	w.happened(since, "node_lost", "node1")
	time.Sleep(6 * time.Second) // more than two leases
	if e := w.find(since, "rg_move_acquire", ""); e != nil {
		t.Errorf("a group that is unmanaged on a silent node was taken over: %s", e.Sentence)
	}
	w.refused("node2", 1, nil, "online", "resource_group", group, "NODE=node2", "TIMEOUT=3")
	if e := w.find(since, "rg_move_acquire", ""); e != nil {
		t.Errorf("the operator's wish was taken for a proof: %s", e.Sentence)
	}
	// The operator switches it off, as he must before he gives his word.
	check(t, w.PowerOff(w.ctx(), "node1"))
	w.clmgr("node2", "-f", "confirm", "node_down", "node1")
	w.clmgr("node2", "online", "resource_group", group, "NODE=node2")
	w.answersFrom("node2")
	check(t, w.Heal(w.ctx(), "node1"))
	check(t, w.PowerOn(w.ctx(), "node1"))
	w.whole()
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// slowStart is a start script that takes its time and notes each step beside the application's data.
const slowStart = `echo "begin $(hostname) $$" >>/shared/starts
sleep 2
/holdfast/bin/cllab app start --data /app/data --listen ` + target + ` || exit 1
echo "end $(hostname) $$" >>/shared/starts
`

func slowSetup() setup {
	return setup{profile: "fast", start: []string{"/bin/sh", "/shared/start.sh"}, share: map[string]string{"start.sh": slowStart}}
}

// A5: a node that is paused between its lease check and its first step starts nothing when it wakes.
func TestA5PausedBeforeTheFirstStep(t *testing.T) {
	long(t)
	t.Parallel()
	s := slowSetup()
	s.nodes, s.nodeOrder, s.noAutoBoot = 5, []string{"node1", "node2", "node3"}, true // two are lost at once
	w := begin(t, s)
	for i := range 4 {
		ok := t.Run(fmt.Sprint("round ", i+1), func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			w.place("node1")
			since, before := w.lastEvent(), len(w.holders())
			go func() { _ = w.Lab.Crash(w.ctx(), "node1") }()
			w.await("node2 is told to take the group", func() string {
				st, err := w.status("node2")
				if err != nil {
					return err.Error()
				}
				if s := st.Group(group).On("node2").State; s != api.GroupAcquiring {
					return s
				}
				return ""
			})
			time.Sleep(time.Duration(i*15) * time.Millisecond)
			check(t, w.Pause(w.ctx(), "node2"))
			next := w.elsewhere("node2")
			_ = w.Resume(w.ctx(), "node2")
			w.quiet("node2", 2*time.Second)
			t.Logf("%s has the group", next)
			check(t, w.PowerOn(w.ctx(), "node1"))
			check(t, w.PowerOn(w.ctx(), "node2"))
			w.whole()
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
		if !ok {
			break
		}
	}
	w.loserFirst()
}

// A6: a boot brings the resources up by itself, before the agent speaks. They are stopped before the boot proves anything.
func TestA6ResourceUpAtBoot(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{})
	w.ask()
	since := w.lastEvent()
	check(t, w.Crash(w.ctx(), "node1"))
	check(t, w.Boot(w.ctx(), "node1"))
	w.await("the daemon is stopped before it can speak", func() string {
		if err := w.Pause(w.ctx(), "node1", "agent"); err != nil {
			return err.Error()
		}
		return ""
	})
	w.must("node1", "ip", "address", "add", service+"/24", "dev", "eth0")
	up := time.Now()
	w.await("the watcher sees it", func() string {
		for _, e := range w.holders() {
			if e.Node == "node1" && e.Event == "gained" && e.Time.After(up.Add(-time.Second)) {
				return ""
			}
		}
		return "not yet"
	})
	check(t, w.Resume(w.ctx(), "node1", "agent"))
	w.answersFrom(w.online(group))
	w.whole()
	// The address that the boot brought was taken away before anybody was told to start.
	lost := time.Time{}
	for _, e := range w.holders() {
		if e.Node == "node1" && e.Event == "lost" && e.Time.After(up) {
			lost = e.Time
			break
		}
	}
	e := w.find(since, "rg_move_acquire", "")
	switch {
	case lost.IsZero():
		t.Error("the address that came up at boot was never stopped")
	case e == nil:
		t.Error("the group was not acquired again")
	case e.Time.Before(lost.Add(-50 * time.Millisecond)): // the watcher sees it a look later
		t.Errorf("the group was given away at %s, the address from the boot was there until %s", e.Time.Format("15:04:05.000"), lost.Format("15:04:05.000"))
	}
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

const slowStop = `sleep 1
exec /holdfast/bin/cllab app stop --data /app/data --listen ` + target + "\n"

// A7: a release that was promised is kept, though the leader dies before it is written and the network comes back.
func TestA7ReleasePromisedWhileTheLeaderDies(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{fence: false, stop: []string{"/bin/sh", "/shared/stop.sh"}, share: map[string]string{"stop.sh": slowStop}})
	w.ask()
	for i := range 2 {
		t.Run(fmt.Sprint("round ", i+1), func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			leader := w.leader()
			holder := w.other(leader)
			w.place(holder)
			pid, since, before := w.appPID(holder), w.lastEvent(), len(w.holders())
			check(t, w.Cut(w.ctx(), holder, "", lab.Both))
			time.Sleep(3700 * time.Millisecond) // L_soft is past: the release is on its way
			check(t, w.Crash(w.ctx(), leader))
			time.Sleep(time.Duration(i) * 800 * time.Millisecond)
			check(t, w.Heal(w.ctx(), holder))
			on := w.online(group)
			w.answersFrom(on)
			if on == holder && w.appPID(holder) == pid {
				t.Errorf("a release that had begun was taken back on %s: process %s", holder, pid)
			}
			check(t, w.PowerOn(w.ctx(), leader))
			w.whole()
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
	}
	w.loserFirst()
}

// A8: the daemon dies while a start script runs. The script is ended before anything is reported, and never ends up as a
// second copy.
func TestA8OrphanedStartScript(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, slowSetup())
	for i := range 3 {
		t.Run(fmt.Sprint("round ", i+1), func(t *testing.T) {
			w := w.sub(t)
			w.whole()
			w.place("node1")
			since, before := w.lastEvent(), len(w.holders())
			moved := make(chan lab.Result, 1)
			go func() {
				r, _ := w.Lab.Run(w.ctx(), "node3", "clmgr", "move", "resource_group", group, "NODE=node2")
				moved <- r
			}()
			starts := len(w.starts("begin node2"))
			w.await("the start script runs on node2", func() string {
				if len(w.starts("begin node2")) == starts {
					return "not yet"
				}
				return ""
			})
			time.Sleep(time.Duration(i) * 700 * time.Millisecond)
			ended := len(w.starts("end node2"))
			check(t, w.Kill(w.ctx(), "node2", "agent"))
			r := <-moved
			t.Logf("clmgr move: exit status %d: %s", r.Code, firstLines(r.Stderr, 20))
			on := w.online(group)
			time.Sleep(2500 * time.Millisecond) // the orphan would be through by then
			if now := w.online(group); now != on {
				t.Errorf("the group was on %s, is on %s", on, now)
			}
			if on != "node2" && len(w.starts("end node2")) > ended {
				t.Error("the orphan on node2 went on to the end")
			}
			for _, n := range w.nodes {
				if pid := w.appPID(n); (pid != "") != (n == on) {
					t.Errorf("the group is on %s; on %s the application is process %q", on, n, pid)
				}
			}
			w.timelineFrom(since, before)
			if t.Failed() {
				w.dump()
			}
		})
	}
	w.loserFirst()
}

// starts are the notes of slowStart that begin so.
func (w *world) starts(prefix string) []string {
	b, _ := os.ReadFile(w.SharedPath("starts"))
	var out []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(line, prefix) {
			out = append(out, line)
		}
	}
	return out
}

// A9: a shot at one incarnation that lands on the next frees nothing that the next one holds.
func TestA9LateFence(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{profile: "fast", fence: true, fenceDelay: 2 * time.Second})
	w.ask()
	since := w.lastEvent()
	for range 2 {
		w.whole()
		victim := w.other(w.leader())
		w.place(victim)
		check(t, w.Crash(w.ctx(), victim))
		time.Sleep(900 * time.Millisecond) // the order is given, the switch has not acted
		_ = w.Boot(w.ctx(), victim)
		w.online(group)
		time.Sleep(3 * time.Second) // the shot has landed
		check(t, w.PowerOn(w.ctx(), victim))
		w.whole()
		w.answersFrom(w.online(group))
	}
	w.timeline(since)
	w.loserFirst()
	w.outages()
}

// B6: a leader whose store hangs does not go on leading.
func TestB6LeaderWithAHungStore(t *testing.T) {
	long(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Log("left out: freezing a file system needs root; package consensus tests a hung store in fake time")
		return
	}
	w := begin(t, setup{profile: "fast"})
	w.ask()
	leader := w.other(w.leader()) // it will be
	check(t, w.Crash(w.ctx(), leader))
	w.elsewhere(leader)
	freeze, err := w.ownStateFileSystem(leader)
	if err != nil {
		t.Logf("left out: %v", err)
		return
	}
	check(t, w.Boot(w.ctx(), leader))
	w.join(leader, w.other(leader)) // its disk is new
	w.whole()
	for i := 0; w.leader() != leader; i++ { // the others are silent by turns, until it leads
		if i > 12 {
			t.Fatalf("%s does not get to lead", leader)
		}
		now := w.leader()
		w.place(w.other(now, leader))
		check(t, w.Pause(w.ctx(), now, "agent")) // it holds nothing and is not reset
		w.await("another node leads", func() string {
			for _, n := range w.nodes {
				if n == now {
					continue
				}
				if st, err := w.status(n); err == nil && st.Cluster.Leader != "" && st.Cluster.Leader != now {
					return ""
				}
			}
			return "not yet"
		})
		check(t, w.Resume(w.ctx(), now, "agent"))
		w.whole()
	}
	holder := w.other(leader)
	w.place(holder)
	pid, since := w.appPID(holder), w.lastEvent()
	check(t, freeze(true))
	thaw := time.AfterFunc(20*time.Second, func() { _ = freeze(false) })
	defer func() { thaw.Stop(); _ = freeze(false) }()
	began := time.Now()
	w.await("another node leads", func() string {
		for _, n := range w.nodes {
			if n == leader {
				continue
			}
			if st, err := w.status(n); err == nil && st.Cluster.Leader != "" && st.Cluster.Leader != leader && st.Cluster.Quorum.Have {
				return ""
			}
		}
		return "not yet"
	})
	t.Logf("the hung leader was replaced after %.1f s", time.Since(began).Seconds())
	check(t, freeze(false))
	w.whole()
	if on := w.online(group); on != holder || w.appPID(holder) != pid {
		t.Errorf("the group of a survivor was touched: on %s, process %s; it was on %s, process %s", on, w.appPID(on), holder, pid)
	}
	w.timeline(since)
	w.outages()
}

// ownStateFileSystem puts the state directory of a node that is down onto an empty file system of its own, and returns how to
// freeze and thaw it. The mount is made where the lab's supervisor sees it, from which the node inherits it at its boot.
func (w *world) ownStateFileSystem(node string) (func(bool) error, error) {
	st, err := w.Lab.Status(w.ctx())
	check(w.t, err)
	image, dir := filepath.Join(w.t.TempDir(), "state.img"), w.NodePath(node, "lib", "")
	check(w.t, os.WriteFile(image, nil, 0o600))
	check(w.t, os.Truncate(image, 64<<20))
	inside := func(argv ...string) error {
		argv = append([]string{"--mount", "--target", strconv.Itoa(st.PID)}, argv...)
		if out, err := exec.Command("nsenter", argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("nsenter %s: %w: %s", strings.Join(argv, " "), err, out)
		}
		return nil
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	if err := inside("mount", "-o", "loop", image, dir); err != nil {
		return nil, err
	}
	return func(on bool) error {
		if on {
			return inside("fsfreeze", "--freeze", dir)
		}
		return inside("fsfreeze", "--unfreeze", dir)
	}, nil
}
