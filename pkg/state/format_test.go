package state

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// What an older daemon can read is written so that it can: no new format, no new word.
func TestTheOldestFormatThatCanSayIt(t *testing.T) {
	plain := &cluster.Definition{Name: "c", Nodes: []cluster.Node{{Name: "a"}}}
	plain.Defaults()
	for name, tc := range map[string]struct {
		change func(*cluster.Definition)
		want   int
	}{
		"nothing new": {func(*cluster.Definition) {}, 1},
		"a method":    {func(d *cluster.Definition) { d.Methods = []cluster.Method{{Name: "m", File: "/m"}} }, 2},
		"a waiver":    {func(d *cluster.Definition) { d.Waivers = []cluster.Waiver{{Name: "w", Check: "V1801", Reason: "r"}} }, 2},
		"staging":     {func(d *cluster.Definition) { d.Settings.Changes = cluster.ChangesStaged }, 2},
		"an hour":     {func(d *cluster.Definition) { d.Settings.VerificationHour = 3 }, 2},
		"scripts": {func(d *cluster.Definition) {
			d.ApplicationControllers = []cluster.ApplicationController{{Name: "a", StartScript: "/a", StopScript: "/b"}}
			d.ResourceGroups = []cluster.ResourceGroup{{Name: "g", Nodes: []string{"a"}, Applications: []string{"a"}, RecoveryMethod: cluster.RecoverInParallel}}
		}, 1},
		"an agent": {func(d *cluster.Definition) {
			d.ApplicationControllers = []cluster.ApplicationController{{Name: "a", Agent: "ocf:heartbeat:Dummy"}}
		}, 2},
		"an agent's monitor": {func(d *cluster.Definition) {
			d.ApplicationMonitors = []cluster.ApplicationMonitor{{Name: "m", Type: "agent"}}
		}, 2},
		"one after another": {func(d *cluster.Definition) {
			d.ResourceGroups = []cluster.ResourceGroup{{Name: "g", Nodes: []string{"a"}, RecoveryMethod: cluster.RecoverSequentially}}
		}, 2},
		"a repository": {func(d *cluster.Definition) { d.Repositories = []cluster.Repository{{Name: "r", Device: "/r"}} }, 2},
		"a lost repository": {func(d *cluster.Definition) {
			d.Repositories = []cluster.Repository{{Name: "r", Device: "/r", UUID: "11111111-2222-4333-8444-555555555551", Lost: true}}
		}, 4},
		"no replacement":    {func(d *cluster.Definition) { d.Settings.NoRepositoryReplacement = true }, 4},
		"an action plan":    {func(d *cluster.Definition) { d.Settings.ActionPlan = cluster.ActionPlanNoGroups }, 4},
		"the usual plan":    {func(d *cluster.Definition) { d.Settings.ActionPlan = cluster.ActionPlanReboot }, 1},
		"another loss time": {func(d *cluster.Definition) { d.Settings.RepositoryLossTime = time.Second }, 4},
		"commands around an event": {func(d *cluster.Definition) {
			d.Events = []cluster.EventCommands{{Name: "node_down", Notify: "/tell"}}
		}, 4},
		"methods and commands": {func(d *cluster.Definition) {
			d.Methods = []cluster.Method{{Name: "m", File: "/m"}}
			d.Events = []cluster.EventCommands{{Name: "node_down", Notify: "/tell"}}
		}, 4},
		"a file collection": {func(d *cluster.Definition) {
			d.FileCollections = []cluster.FileCollection{{Name: "f", Files: []string{"/f"}}}
		}, 4},
		"free commands":      {func(d *cluster.Definition) { d.Settings.FreeCommands = true }, 4},
		"an interval":        {func(d *cluster.Definition) { d.Settings.CollectionInterval = time.Hour }, 4},
		"the usual interval": {func(d *cluster.Definition) { d.Settings.CollectionInterval = cluster.DefaultCollectionInterval }, 1},
		"fence levels": {func(d *cluster.Definition) {
			d.FenceDevices = []cluster.FenceDevice{{Name: "f", Agent: "/f", Nodes: []string{"a"}, Levels: []int{1}}}
		}, 2},
	} {
		d := plain.Clone()
		tc.change(d)
		d.Defaults()
		c := &Command{SetDefinition: &SetDefinition{Definition: d}}
		b, err := c.Encode()
		if err != nil || c.Needs() != tc.want || !bytes.HasPrefix(b, []byte(`{"format":`+string(rune('0'+tc.want)))) {
			t.Errorf("%s: format %d, %v, %.40s", name, c.Needs(), err, b)
		}
		for _, word := range []string{"methods", "waivers", "verification", "changes", "agent\":\"ocf", "recovery_method", "levels", "repositor"} {
			if tc.want == 1 && strings.Contains(string(b), `"`+word) {
				t.Errorf("%s: the word %s stands in format 1", name, word)
			}
		}
		if _, err := DecodeCommand(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s := New()
		s.Definition = d
		if s.needs() != tc.want {
			t.Errorf("%s: the state needs %d", name, s.needs())
		}
		// What is staged comes into the log, too.
		s.Definition, s.Staged = plain, &Staged{Definition: d}
		if stage := (&Command{Stage: &Stage{Definition: d}}).Needs(); stage != max(2, tc.want) || s.needs() != stage {
			t.Errorf("%s: staging it needs %d, the state then %d", name, stage, s.needs())
		}
	}
}

func TestBehindFormat(t *testing.T) {
	s := New()
	s.Definition = &cluster.Definition{Nodes: []cluster.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}}
	s.Nodes = map[string]*Node{"a": {Name: "a", Incarnation: 1, Format: 2}, "b": {Name: "b", Incarnation: 1, Format: 1}, "c": {Name: "c", Incarnation: 1},
		"d": {Name: "d"}}
	if got := strings.Join(s.BehindFormat(2), " "); got != "b c" {
		t.Errorf("got %q", got)
	}
	if got := s.BehindFormat(1); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
