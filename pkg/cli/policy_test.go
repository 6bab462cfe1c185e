package cli

import (
	"strings"
	"testing"
)

// PowerHA's words for split, merge and quarantine: what says how it is here is taken with a notice, everything else is refused with the
// value's own reason, and neither changes anything. The action plan is a setting.
func TestSplitAndMergePolicies(t *testing.T) {
	for _, tc := range []struct {
		set    string
		status int
		want   string
	}{
		{"SPLIT_POLICY=tiebreaker", 0, "repository volume breaks the tie"},
		{"SPLIT_POLICY=Majority", 0, "has no effect"},
		{"SPLIT_POLICY=none", ExitIncorrect, "both halves go on"},
		{"SPLIT_POLICY=Manual", ExitIncorrect, "confirm node_down"},
		{"SPLIT_POLICY=nfs", ExitIncorrect, "repository volume"},
		{"SPLIT_POLICY=cloud", ExitIncorrect, "third node"},
		{"SPLIT_POLICY=whatever", ExitIncorrect, "majority or SPLIT_POLICY"},
		{"MERGE_POLICY=majority", 0, "nobody is reset"},
		{"MERGE_POLICY=tiebreaker", 0, "nobody is reset"},
		{"MERGE_POLICY=none", ExitIncorrect, "takes the state of the other"},
		{"MERGE_POLICY=manual", ExitIncorrect, "nothing to choose"},
		{"QUARANTINE_POLICY=node_halt", 0, "reset by its own deadman"},
		{"QUARANTINE_POLICY=disable", ExitIncorrect, "cannot be switched off"},
		{"QUARANTINE_POLICY=fencing", ExitIncorrect, "fence_device"},
		{"NOTIFY_METHOD=/x", ExitNotFound, "confirm node_down"},
		{"TIEBREAKER=hdisk5", ExitNotFound, "tie-breaker"},
		{"ACTION_PLAN=disable_rgs_autostart", 0, ""},
		{"ACTION_PLAN=halt", ExitIncorrect, "reboot"},
	} {
		l := newLab(t)
		before := l.def().Clone()
		got := l.run("modify", "cluster", tc.set)
		if got.status != tc.status || !strings.Contains(got.errors+got.out, tc.want) {
			t.Errorf("%s: status %d, wanted %d and %q:\n%s%s", tc.set, got.status, tc.status, tc.want, got.out, got.errors)
		}
		if plan := l.def().Settings.ActionPlan; plan != "" {
			if tc.set != "ACTION_PLAN=disable_rgs_autostart" || plan != "disable_rgs_autostart" {
				t.Errorf("%s: the plan is %s", tc.set, plan)
			}
		} else if !l.def().Equal(before) {
			t.Errorf("%s has changed the definition", tc.set)
		}
	}
}
