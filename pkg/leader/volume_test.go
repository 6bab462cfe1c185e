package leader

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

func volumeView(change func(*state.State)) *state.State {
	s := state.New()
	s.Definition = &cluster.Definition{Name: "c", Nodes: []cluster.Node{{Name: "a"}, {Name: "b"}}, Repositories: []cluster.Repository{
		{Name: "broken", Device: "/0", UUID: "u0", Lost: true}, {Name: "r1", Device: "/1", UUID: "u1"}, {Name: "raw", Device: "/x"},
		{Name: "r2", Device: "/2", UUID: "u2"}, {Name: "r3", Device: "/3", UUID: "u3"}}}
	s.Nodes = map[string]*state.Node{"a": {Name: "a", RaftID: "a.1", Incarnation: 1}, "b": {Name: "b", RaftID: "b.1", Incarnation: 1}}
	if change != nil {
		change(s)
	}
	return s
}

// Each thing that keeps a volume from being replaced, and that nothing but these does.
func TestVolumeLost(t *testing.T) {
	gone := func(backups map[string]string) VolumeAnswer {
		return VolumeAnswer{Unusable: time.Hour, Why: "EIO", Backups: backups}
	}
	well := map[string]string{"u2": "", "u3": ""}
	both := map[string]VolumeAnswer{"a": gone(well), "b": gone(well)}
	with := func(b VolumeAnswer) map[string]VolumeAnswer { return map[string]VolumeAnswer{"a": gone(well), "b": b} }
	for name, tc := range map[string]struct {
		change  func(*state.State)
		quiet   time.Duration
		answers map[string]VolumeAnswer
		to, why string
	}{
		"lost":               {nil, time.Hour, both, "u2", ""},
		"it answers":         {nil, 0, both, "", ""},
		"not long yet":       {nil, 59 * time.Second, both, "", "no node could use it for 1m0s"},
		"one node uses it":   {nil, time.Hour, with(VolumeAnswer{Backups: well}), "", "node b can use it"},
		"one did until now":  {nil, time.Hour, with(VolumeAnswer{Unusable: 59 * time.Second, Backups: well}), "", "node b could use it until"},
		"one was not asked":  {nil, time.Hour, map[string]VolumeAnswer{"a": gone(well)}, "", "node b was not asked"},
		"one did not answer": {nil, time.Hour, with(VolumeAnswer{Err: "timeout"}), "", "node b could not be asked"},
		"one is silent": {func(s *state.State) { s.Nodes["b"].Lost = &state.Loss{} }, time.Hour, both, "",
			"node b is silent"},
		"one is dead": {func(s *state.State) { s.Nodes["b"].Lost, s.Nodes["b"].Dead = &state.Loss{}, &state.Death{} }, time.Hour,
			map[string]VolumeAnswer{"a": gone(well)}, "u2", ""},
		"one never joined": {func(s *state.State) { s.Nodes["b"] = &state.Node{Name: "b"} }, time.Hour, map[string]VolumeAnswer{"a": gone(well)}, "u2", ""},
		"it is forbidden":  {func(s *state.State) { s.Definition.Settings.NoRepositoryReplacement = true }, time.Hour, both, "", "REPOSITORY_AUTO_REPLACE is false"},
		"a longer patience": {func(s *state.State) { s.Definition.Settings.RepositoryLossTime = 2 * time.Hour }, time.Hour, both, "",
			"no node could use it for 2h0m0s"},
		"no backup":                {func(s *state.State) { s.Definition.Repositories = s.Definition.Repositories[:3] }, time.Hour, both, "", "no backup"},
		"the first is not seen":    {nil, time.Hour, with(gone(map[string]string{"u2": "no such file", "u3": ""})), "u3", ""},
		"the first not looked at":  {nil, time.Hour, with(gone(map[string]string{"u3": ""})), "u3", ""},
		"no backup is seen by all": {nil, time.Hour, with(gone(map[string]string{"u2": "gone", "u3": "gone"})), "", "node b cannot use the backup r3: gone"},
	} {
		c, why := VolumeLost(volumeView(tc.change), tc.quiet, tc.answers)
		switch {
		case (c != nil) != (tc.to != ""), c != nil && (c.To != tc.to || c.From != "u1" || c.Sentence == ""):
			t.Errorf("%s: %+v, %q", name, c, why)
		case !strings.Contains(why, tc.why), tc.why == "" && why != "":
			t.Errorf("%s: %q", name, why)
		}
	}
	c, _ := VolumeLost(volumeView(nil), time.Hour, with(gone(map[string]string{"u2": "no such file", "u3": ""})))
	if c == nil || !strings.Contains(c.Sentence, "node b cannot use the backup r2: no such file") {
		t.Errorf("which was passed over is not said: %+v", c)
	}
}
