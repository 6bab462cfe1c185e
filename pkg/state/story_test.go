package state

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

var rewrite = flag.Bool("rewrite", false, "write the stories anew; review the difference")

// TestStories applies long sequences that use every command, and compares what each answered, what it added to the history, and
// what it changed, with testdata. A change there is to be read as a change of what a cluster does.
func TestStories(t *testing.T) {
	used := map[string]bool{}
	for name, commands := range storyCommands() {
		t.Run(name, func(t *testing.T) {
			got := story(commands, used)
			file := filepath.Join("testdata", "story-"+name+".txt")
			if *rewrite {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				w, g := strings.Split(string(want), "\n"), strings.Split(got, "\n")
				for i := range min(len(w), len(g)) {
					if w[i] != g[i] {
						t.Fatalf("the story has changed in line %d; if that is meant, run the test with -rewrite and review the difference\nwas: %s\nis:  %s", i+1, w[i], g[i])
					}
				}
				t.Fatalf("the story has %d lines, it had %d", len(g), len(w))
			}
		})
	}
	for _, f := range commandForms {
		if !used[f.name] {
			t.Errorf("no story uses %s", f.name)
		}
	}
}

// story plays commands. A command is made from the state before it.
func story(commands []func(*State) Command, used map[string]bool) string {
	s := New()
	var b strings.Builder
	for i, f := range commands {
		c := f(s)
		used[c.Kind()] = true
		if c.At.IsZero() {
			c.At = t0.Add(time.Duration(i) * time.Minute)
		}
		before := s
		var r Result
		s, r = Apply(s, Entry{Index: uint64(i + 1), Term: 3, Command: &c})
		body, _ := json.Marshal(c)
		text, _ := strings.CutPrefix(string(body), fmt.Sprintf(`{"at":%q,`, c.At.Format(time.RFC3339)))
		if c.SetDefinition != nil || c.Create != nil || c.Stage != nil && c.Stage.Definition != nil {
			text = "..."
		}
		fmt.Fprintf(&b, "%d %s %s\n", i+1, c.Kind(), text)
		if r.Refused != "" {
			fmt.Fprintf(&b, "    refused: %s\n", r.Refused)
		}
		if r.Token != 0 || r.Waits {
			fmt.Fprintf(&b, "    token %#x waits %v\n", r.Token, r.Waits)
		}
		if r.Incarnation+r.Generation != 0 {
			fmt.Fprintf(&b, "    incarnation %d generation %#x\n", r.Incarnation, r.Generation)
		}
		for _, e := range r.Events {
			fmt.Fprintf(&b, "    event %d %s [%s] [%s] %s\n", e.ID, e.Name, e.Node, e.Group, e.Sentence)
		}
		for _, line := range changes(before, s) {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String()
}

// changes lists the parts of the state that differ, as "path: new value".
func changes(a, b *State) []string {
	x, y := flatten(a), flatten(b)
	var out []string
	for k, v := range y {
		if x[k] != v && k != "index" && k != "term" && !strings.HasPrefix(k, "definition.") && !strings.HasPrefix(k, "staged.definition.") {
			out = append(out, k+": "+v)
		}
	}
	for k := range x {
		if _, ok := y[k]; !ok && !strings.HasPrefix(k, "definition.") && !strings.HasPrefix(k, "staged.definition.") {
			out = append(out, k+": gone")
		}
	}
	slices.Sort(out)
	return out
}

func flatten(s *State) map[string]string {
	body, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), x)
			}
		default:
			out[path] = fmt.Sprint(v)
		}
	}
	walk("", v)
	return out
}

// The stories. do is a command that does not depend on the state.
func do(c Command) func(*State) Command { return func(*State) Command { return c } }

func boot(node, id string, replaces uint64, stopped bool) func(*State) Command {
	return do(Command{NodeBoot: &NodeBoot{Node: node, BootID: id, Replaces: replaces, AllStopped: stopped, Version: "1.0", Format: 1}})
}

func arm(node string, inc uint64) func(*State) Command {
	return do(Command{Armed: &Armed{Fact: armedFact(node, inc), Arming: fmt.Sprintf("%s-%d", node, inc)}})
}

func start(group, node string) func(*State) Command {
	return func(s *State) Command { return (&log{s: s}).acquire(group, node) }
}

func says(group, node string, o Outcome) func(*State) Command {
	return func(s *State) Command { return (&log{s: s}).report(group, node, o) }
}

func stop(group, node string, cause Cause, to string) func(*State) Command {
	return func(s *State) Command {
		c := (&log{s: s}).release(group, node)
		c.Release.Cause, c.Release.To, c.Release.DueTo = cause, to, DueToFallover
		return c
	}
}

func storyCommands() map[string][]func(*State) Command {
	d := three()
	d.Settings.SettlingTime = 30 * time.Second
	d.FallbackTimers = []cluster.FallbackTimer{{Name: "night", Repeats: "daily", Hour: 2}}
	no := false
	d.Nodes[2].StartOnBoot = &no
	create := do(Command{Create: &Create{ClusterID: "11111111-2222-3333-4444-555555555555", Definition: d}})
	services := func(start StartMode, stop StopMode, nodes ...string) func(*State) Command {
		return do(Command{By: "root", NodeServices: &NodeServices{Nodes: nodes, Start: start, Stop: stop}})
	}
	begin := []func(*State) Command{
		do(Command{Acquire: &Acquire{Group: "a", Node: "n1"}}), create, create,
		boot("n1", "n1-1", 0, true), boot("n2", "n2-1", 0, true), boot("n3", "n3-1", 0, true), boot("n9", "x", 0, true), boot("n1", "", 1, true),
		services(StartAuto, ""),
	}
	with := func(more ...func(*State) Command) []func(*State) Command { return append(slices.Clone(begin), more...) }
	other := d.Clone()
	other.ResourceGroups = append(other.ResourceGroups, cluster.ResourceGroup{Name: "new", Nodes: []string{"n1"}})
	less := d.Clone()
	less.ResourceGroups = less.ResourceGroups[1:]
	without3 := d.Clone()
	without3.Nodes = without3.Nodes[:2]
	for i := range without3.ResourceGroups {
		without3.ResourceGroups[i].Nodes = slices.DeleteFunc(without3.ResourceGroups[i].Nodes, func(n string) bool { return n == "n3" })
	}
	return map[string][]func(*State) Command{
		"volume": {
			do(Command{Create: &Create{ClusterID: "11111111-2222-3333-4444-555555555555", Definition: withVolumes()}}),
			do(Command{Term: 2, ReplaceVolume: &ReplaceVolume{From: withVolumes().Repositories[0].UUID, To: withVolumes().Repositories[1].UUID, Sentence: "late"}}),
			do(Command{Term: 3, ReplaceVolume: &ReplaceVolume{From: withVolumes().Repositories[0].UUID, To: withVolumes().Repositories[1].UUID, Sentence: "it is lost"}}),
			do(Command{Term: 3, ReplaceVolume: &ReplaceVolume{From: withVolumes().Repositories[0].UUID, To: withVolumes().Repositories[1].UUID, Sentence: "again"}}),
		},
		"staging": with(
			do(Command{Stage: &Stage{}}), do(Command{Activate: &Activate{}}), do(Command{By: "root", Stage: &Stage{Definition: other}}),
			do(Command{Stage: &Stage{Definition: less}}), do(Command{SetDefinition: &SetDefinition{Base: 1, Definition: less}}), do(Command{Activate: &Activate{Version: 7}}),
			do(Command{Activate: &Activate{Version: 1}}), do(Command{Stage: &Stage{Version: 2, Definition: less}}), do(Command{Stage: &Stage{Version: 3}}),
			arm("n1", 1), start("a", "n1"), do(Command{Stage: &Stage{Version: 4, Definition: less}}), do(Command{Activate: &Activate{Version: 5}}),
		),
		"keys": with(
			do(Command{By: "root", RenewCerts: &RenewCerts{Nodes: []string{"n9"}}}), do(Command{By: "root", RenewCerts: &RenewCerts{}}),
			do(Command{CertInUse: &CertInUse{Node: "n1", Number: 99}}), do(Command{CertInUse: &CertInUse{Node: "n9", Number: 11}}),
			do(Command{CertInUse: &CertInUse{Node: "n1", Number: 11}}), do(Command{CertInUse: &CertInUse{Node: "n1", Number: 10}}),
			do(Command{SetMember: &SetMember{Node: "n2", RaftID: "n2-a", Cert: 13}}),
			do(Command{GossipKey: &GossipKey{Step: KeyUse, Key: 1}}), do(Command{GossipKey: &GossipKey{Step: KeyAdd}}),
			do(Command{GossipKey: &GossipKey{Step: KeyAdd}}), do(Command{GossipKey: &GossipKey{Step: KeyRemove}}),
			do(Command{GossipKey: &GossipKey{Step: KeyUse, Key: 18}}), do(Command{GossipKey: &GossipKey{Step: KeyRemove}}),
			do(Command{GossipKey: &GossipKey{Step: KeyAdd}}), services("", StopOffline, "n3"),
			do(Command{SetDefinition: &SetDefinition{Base: 1, Definition: without3}}), do(Command{SetDefinition: &SetDefinition{Base: 2, Definition: d}}),
			do(Command{CertInUse: &CertInUse{Node: "n3", Number: 11}}),
		),
		"locks": with(
			arm("n1", 1), do(Command{LockOpen: &LockOpen{Session: "aaaaaaaaaaaaaaaa", Node: "n1", Incarnation: 1, Who: "root", TTL: 15 * time.Second}}),
			do(Command{LockOpen: &LockOpen{Session: "bbbbbbbbbbbbbbbb", Node: "n2", Incarnation: 1, Who: "app", TTL: 15 * time.Second}}),
			do(Command{LockOpen: &LockOpen{Session: "cccccccccccccccc", Node: "n2", Incarnation: 1, Who: "app", TTL: 15 * time.Second, Again: true}}),
			do(Command{LockAcquire: &LockAcquire{Session: "aaaaaaaaaaaaaaaa", Node: "n1", Seq: 1, Name: "db", Mode: LockExclusive}}),
			do(Command{LockAcquire: &LockAcquire{Session: "bbbbbbbbbbbbbbbb", Node: "n2", Seq: 1, Name: "db", Mode: LockShared}}),
			do(Command{LockAcquire: &LockAcquire{Session: "bbbbbbbbbbbbbbbb", Node: "n2", Seq: 2, Name: "db", Mode: LockShared, Wait: true}}),
			do(Command{LockRelease: &LockRelease{Session: "aaaaaaaaaaaaaaaa", Node: "n1", Seq: 2, Name: "db"}}),
			do(Command{LockAcquire: &LockAcquire{Session: "aaaaaaaaaaaaaaaa", Node: "n1", Seq: 1, Name: "db", Mode: LockExclusive, Wait: true}}),
			do(Command{LockAcquire: &LockAcquire{Session: "aaaaaaaaaaaaaaaa", Node: "n1", Seq: 3, Name: "db", Mode: LockExclusive, Wait: true}}),
			do(Command{By: "root", LockBreak: &LockBreak{Session: "bbbbbbbbbbbbbbbb", Name: "db"}}), do(Command{LockBreak: &LockBreak{Session: "bbbbbbbbbbbbbbbb", Name: "db"}}),
			do(Command{LocksEnd: &LocksEnd{Node: "n1", Incarnation: 1}}),
			do(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "silent"}}),
			do(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced, Sentence: "the power is off"}}),
			do(Command{LockClose: &LockClose{Session: "bbbbbbbbbbbbbbbb", Node: "n2"}}),
		),
		"group": with(
			arm("n1", 1), start("a", "n1"), says("a", "n1", OutcomeOnline), says("a", "n1", OutcomeOnline), start("a", "n2"),
			do(Command{Acquire: &Acquire{Group: "a", Node: "n9", Incarnation: 1}}), do(Command{Acquire: &Acquire{Group: "x", Node: "n1", Incarnation: 1}}),
			do(Command{Acquire: &Acquire{Group: "b", Node: "n3", Incarnation: 1}}),
			stop("a", "n1", CauseMove, "n2"), stop("a", "n1", CauseMove, "n2"), says("a", "n1", OutcomeOnline), says("a", "n1", OutcomeReleased), start("a", "n2"),
			says("a", "n2", OutcomeAcquireFailed), start("a", "n3"), says("a", "n3", OutcomeAcquireFailed),
			do(Command{GiveUp: &GiveUp{Group: "a", Node: "n3", Based: 1}}), do(Command{GiveUp: &GiveUp{Group: "x", Node: "n3"}}), do(Command{GiveUp: &GiveUp{Group: "b", Node: "n3"}}),
			func(s *State) Command {
				return Command{GiveUp: &GiveUp{Group: "a", Node: "n3", Based: s.Based("a", "n3"), ForNetwork: true, Reason: "nobody can"}}
			},
			do(Command{NetworkState: &NetworkState{Node: "n1", Incarnation: 1, Network: "net1", Sentence: "no carrier"}}),
			do(Command{NetworkState: &NetworkState{Node: "n1", Incarnation: 1, Network: "net9"}}),
			do(Command{NetworkState: &NetworkState{Node: "n1", Incarnation: 1, Network: "net1", Up: true}}),
			do(Command{NetworkState: &NetworkState{Node: "n1", Incarnation: 1, Network: "net1", Up: true}}),
			start("a", "n1"), says("a", "n1", OutcomeOnline), says("a", "n1", OutcomeAppFailed), says("a", "n1", OutcomeAppFailed), stop("a", "n1", CauseFailure, ""),
			says("a", "n1", OutcomeReleaseFailed), says("a", "n1", OutcomeReleaseFailed), says("a", "n1", OutcomeAppFailed),
			do(Command{By: "root", ClearGroup: &ClearGroup{Group: "a"}}), stop("a", "n1", CauseFailure, ""), says("a", "n1", OutcomeReleased),
			do(Command{ClearGroup: &ClearGroup{Group: "a"}}), do(Command{ClearGroup: &ClearGroup{Group: "a"}}), do(Command{ClearGroup: &ClearGroup{Group: "x"}}),
			start("a", "n1"), says("a", "n1", OutcomeFoundStopped), start("a", "n1"), says("a", "n1", OutcomeOnline), says("a", "n1", "dancing"),
			stop("a", "n1", CauseOffline, ""), says("a", "n1", OutcomeReleased),
		),
		"requests": with(
			arm("n1", 1), start("a", "n1"), says("a", "n1", OutcomeOnline),
			do(Command{By: "root", MoveGroup: &MoveGroup{Group: "a", Node: "n2"}}), do(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n9"}}), do(Command{MoveGroup: &MoveGroup{Group: "x", Node: "n1"}}),
			do(Command{UnsetPriority: &UnsetPriority{Group: "a"}}), do(Command{UnsetPriority: &UnsetPriority{Group: "a"}}),
			do(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n1"}}), do(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n1"}}),
			do(Command{SuspendGroup: &SuspendGroup{Group: "a"}}), stop("a", "n1", CauseMove, ""), do(Command{SuspendGroup: &SuspendGroup{Group: "a"}}), do(Command{ResumeGroup: &ResumeGroup{Group: "a"}}),
			do(Command{OfflineGroup: &OfflineGroup{Group: "a", Node: "n2"}}), do(Command{OfflineGroup: &OfflineGroup{Group: "a", Node: "n9"}}), do(Command{OfflineGroup: &OfflineGroup{Group: "a"}}),
			stop("a", "n1", CauseOffline, ""), says("a", "n1", OutcomeReleased), do(Command{OnlineGroup: &OnlineGroup{Group: "a"}}), do(Command{OfflineGroup: &OfflineGroup{Group: "a"}}),
			do(Command{OnlineGroup: &OnlineGroup{Group: "a", Node: "n1"}}), do(Command{OnlineGroup: &OnlineGroup{Group: "x"}}),
			start("c", "n1"), says("c", "n1", OutcomeAcquireFailed), start("c", "n2"), do(Command{OfflineGroup: &OfflineGroup{Group: "c", Node: "n2"}}),
			do(Command{OnlineGroup: &OnlineGroup{Group: "c", Node: "n2"}}), do(Command{OnlineGroup: &OnlineGroup{Group: "c"}}), do(Command{OfflineGroup: &OfflineGroup{Group: "c"}}), do(Command{OnlineGroup: &OnlineGroup{Group: "c"}}),
			start("a", "n1"), do(Command{UnmanageGroup: &UnmanageGroup{Group: "a"}}), stop("a", "n1", CauseMove, ""), says("a", "n1", OutcomeOnline), do(Command{ManageGroup: &ManageGroup{Group: "a"}}),
			says("a", "n1", OutcomeOnline), do(Command{UnmanageGroup: &UnmanageGroup{Group: "a"}}), services("", StopUnmanage, "n1"), do(Command{ManageGroup: &ManageGroup{Group: "a"}}),
			says("a", "n1", OutcomeReleased), do(Command{UnmanageGroup: &UnmanageGroup{Group: "x"}}), do(Command{ManageGroup: &ManageGroup{Group: "x"}}),
		),
		"nodes": with(
			do(Command{SetMember: &SetMember{Node: "n1", RaftID: "id-1"}}), do(Command{SetMember: &SetMember{Node: "n1", RaftID: "id-1"}}), do(Command{SetMember: &SetMember{Node: "n2", RaftID: "id-1"}}), do(Command{SetMember: &SetMember{Node: "n9"}}),
			do(Command{BootRandom: &BootRandom{Node: "n1", Value: "r1"}}), do(Command{BootRandom: &BootRandom{Node: "n9"}}),
			do(Command{Measure: &Measure{Node: "n1", Incarnation: 1, Measures: Measures{CPU: new(90.0), Script: map[string]float64{"": 3}}}}),
			do(Command{Measure: &Measure{Node: "n1", Incarnation: 1, Measures: Measures{Memory: new(4096.0), Disk: new(2.0), Script: map[string]float64{"a": 4}}}}),
			do(Command{Measure: &Measure{Node: "n1", Incarnation: 7}}),
			arm("n1", 1), arm("n9", 1), do(Command{Armed: &Armed{Fact: armedFact("n1", 1)}}), do(Command{Armed: &Armed{Fact: lease.Armed{Node: "n1", Incarnation: 1}, Arming: "x"}}),
			start("a", "n1"), says("a", "n1", OutcomeOnline), do(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n1"}}),
			do(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1, Sentence: "no lease request for 1 s"}}), do(Command{NodeLost: &NodeLost{Node: "n1", Incarnation: 1}}), start("c", "n1"),
			services(StartAuto, "", "n1"), services("", StopMove, "n1"), services("", "", "n1"), services(StartAuto, "", "n9"), services("sideways", "", "n2"), services("", "sideways", "n2"),
			do(Command{Fence: &Fence{Node: "n1", Incarnation: 1, Device: "ipmi1"}}), do(Command{Fence: &Fence{Node: "n1", Incarnation: 1, Device: "ipmi1", Failed: "timeout"}}), do(Command{Fence: &Fence{Node: "n1", Incarnation: 4}}),
			do(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced, Sentence: "ipmi1 says off"}}), do(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofFenced}}),
			services(StartAuto, "", "n1"), boot("n1", "n1-1", 1, true), boot("n1", "n1-2", 1, true), boot("n1", "n1-2", 1, true),
			do(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-2", Replaces: 2, Version: "2.0"}}),
			boot("n3", "n3-2", 1, true), services(StartManual, "", "n3"),
			start("b", "n2"), says("b", "n2", OutcomeOnline), services("", StopOffline, "n2"), stop("b", "n2", CauseStop, ""), services("", StopMove, "n2"), services(StartAuto, "", "n2"),
			says("b", "n2", OutcomeReleased), services(StartAuto, "", "n2"), start("b", "n2"), do(Command{ResetNode: &ResetNode{Node: "n2", Incarnation: 1, Reason: "b"}}), start("a", "n2"),
			do(Command{ResetNode: &ResetNode{Node: "n2", Incarnation: 1}}), boot("n2", "n2-2", 1, false), do(Command{Proof: &Proof{Node: "n2", Incarnation: 1, Kind: ProofBoot, By: 2}}),
			services("", StopOffline), do(Command{Proof: &Proof{Node: "n3", Incarnation: 2, Kind: ProofCleanStop}}), do(Command{Proof: &Proof{Node: "n1", Incarnation: 2, Kind: ProofOperator}}),
			do(Command{NodeFound: &NodeFound{Node: "n2", Incarnation: 2}}), do(Command{NodeLost: &NodeLost{Node: "n2", Incarnation: 2}}), do(Command{NodeFound: &NodeFound{Node: "n2", Incarnation: 2}}),
			do(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-3", Replaces: 2, Reset: "lease lost"}}), do(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-4", Replaces: 3, Reset: "lease lost"}}),
			do(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-5", Replaces: 4, Reset: "lease lost"}}), services(StartAuto, "", "n1"), do(Command{ClearNode: &ClearNode{Node: "n1"}}), do(Command{ClearNode: &ClearNode{Node: "n9"}}),
		),
		"unmanaged-life": with(
			arm("n1", 1), start("a", "n1"), says("a", "n1", OutcomeOnline), services("", StopUnmanage, "n1"), do(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "n1-1"}}),
			do(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 3, Arming: "n1-1"}}),
			do(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofNeverArmed}}),
			do(Command{NodeBoot: &NodeBoot{Node: "n1", BootID: "n1-1", Life: "2", Replaces: 1, AllStopped: false}}), services(StartAuto, "", "n1"), says("a", "n1", OutcomeOnline),
		),
		"cluster": with(
			do(Command{TimerFired: &TimerFired{Timer: "night", Due: t0}}), do(Command{TimerFired: &TimerFired{Timer: "day", Due: t0}}),
			func(s *State) Command {
				return Command{At: t0.Add(100 * time.Hour), TimerFired: &TimerFired{Timer: "night", Due: s.Timers["night"].Due}}
			},
			do(Command{By: "root", TokenAdd: &TokenAdd{Hash: strings.Repeat("a", 64), Expires: t0.Add(time.Hour)}}), do(Command{TokenUse: &TokenUse{Hash: strings.Repeat("a", 64), Node: "n4"}}),
			do(Command{TokenUse: &TokenUse{Hash: strings.Repeat("a", 64), Node: "n5"}}), do(Command{TokenUse: &TokenUse{Hash: strings.Repeat("b", 64), Node: "n5"}}),
			do(Command{Note: &Note{Event: EventConfigTooLong, Node: "n1", Group: "a", Sentence: "100% of it"}}), do(Command{Noop: &Noop{}}),
			func(s *State) Command {
				x := *s.Definition
				x.Nodes = append(slices.Clone(x.Nodes), cluster.Node{Name: "n4"})
				x.FallbackTimers = []cluster.FallbackTimer{{Name: "night", Repeats: "daily", Hour: 3}, {Name: "day", Repeats: "daily", Hour: 12}}
				x.ResourceGroups = append(slices.Clone(x.ResourceGroups), cluster.ResourceGroup{Name: "d", Nodes: []string{"n4"}, Startup: cluster.OnlineOnHomeNode})
				return Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: &x}}
			},
			do(Command{SetDefinition: &SetDefinition{Base: 2}}),
			do(Command{MoveGroup: &MoveGroup{Group: "a", Node: "n3"}}), start("a", "n3"), says("a", "n3", OutcomeAcquireFailed),
			func(s *State) Command {
				x := *s.Definition
				x.Nodes = x.Nodes[:2]
				x.FallbackTimers = nil
				x.ResourceGroups = slices.Clone(x.ResourceGroups[:3])
				for i := range x.ResourceGroups {
					x.ResourceGroups[i].Nodes = []string{"n1", "n2"}
				}
				return Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: &x}}
			},
			services("", StopOffline, "n3"),
			func(s *State) Command {
				x := *s.Definition
				x.Nodes = x.Nodes[:2]
				x.FallbackTimers = nil
				x.ResourceGroups = slices.Clone(x.ResourceGroups[:3])
				for i := range x.ResourceGroups {
					x.ResourceGroups[i].Nodes = []string{"n1", "n2"}
				}
				return Command{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: &x}}
			},
			arm("n1", 1), start("a", "n1"), says("a", "n1", OutcomeOnline), do(Command{NewEpoch: &NewEpoch{Epoch: 9}}), do(Command{NewEpoch: &NewEpoch{Epoch: 2, Dead: []string{"n9"}}}),
			do(Command{NewEpoch: &NewEpoch{Epoch: 2, Dead: []string{"n2"}}}), says("b", "n1", OutcomeFoundStopped), do(Command{Proof: &Proof{Node: "n1", Incarnation: 1, Kind: ProofTime, Time: timeProof(armedFact("n1", 1), time.Hour)}}),
			arm("n1", 1), start("b", "n1"),
		),
	}
}
