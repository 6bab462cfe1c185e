package leader

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// When a backup takes the place of the repository volume by itself. The rule is about usefulness only: what makes a replacement safe is
// that each of its steps is a committed entry (docs/design/0004, "Backups of the volume"), so one that was not due costs a volume that
// still worked, never a second owner. It is careful all the same, because the volume may be the only way to a node.

// A VolumeAnswer is what one node says of the repository volumes.
type VolumeAnswer struct {
	Err string // the node could not be asked; the rest is void
	// Unusable is for how long it has not been able to use the volume in use; 0: it uses it. Why says what is wrong.
	Unusable time.Duration
	Why      string
	Backups  map[string]string // by the id of a backup: "" if the node can use it, else why not; one that is not there was not looked at
}

// VolumeLost decides whether a backup takes the place of the volume in use, which has given the leader no answer for as long as quiet.
// c is nil if not, and why says what stands in the way; why is empty if there is nothing to say: the volume is well.
//
// It is lost when every node that is not proven dead has said, itself and now, that it has not been able to use it for the whole of the
// settable time. A node that is silent may be just cut off from the networks, and the volume its only way to hand its groups over: as
// long as there is one nothing is replaced. The first backup that all these nodes can use is taken.
func VolumeLost(view *state.State, quiet time.Duration, answers map[string]VolumeAnswer) (c *state.ReplaceVolume, why string) {
	d := view.Definition
	if d == nil || d.Repository() == nil {
		return nil, ""
	}
	used, backups, patience := d.Repository(), d.BackupRepositories(), d.Settings.RepositoryPatience()
	switch {
	case quiet <= 0:
		return nil, ""
	case d.Settings.NoRepositoryReplacement:
		return nil, "it is not replaced by itself, because REPOSITORY_AUTO_REPLACE is false"
	case len(backups) == 0:
		return nil, "there is no backup that could take its place"
	case quiet < patience:
		return nil, fmt.Sprintf("a backup takes its place when no node could use it for %v", patience)
	}
	var asked []string
	for i := range d.Nodes {
		name := d.Nodes[i].Name
		n := view.Node(name)
		if n == nil || n.RaftID == "" || n.Dead != nil {
			continue
		}
		a, there := answers[name]
		switch {
		case n.Lost != nil:
			return nil, fmt.Sprintf("node %s is silent: it is not replaced by itself before that node is heard again or proven dead", name)
		case !there:
			return nil, fmt.Sprintf("node %s was not asked yet", name)
		case a.Err != "":
			return nil, fmt.Sprintf("node %s could not be asked whether it can use it: %s", name, a.Err)
		case a.Unusable == 0:
			return nil, fmt.Sprintf("node %s can use it", name)
		case a.Unusable < patience:
			return nil, fmt.Sprintf("node %s could use it until %v ago; a backup takes its place after %v", name, a.Unusable.Round(time.Second), patience)
		}
		asked = append(asked, name)
	}
	var refused []string
	for _, b := range backups {
		bad := ""
		for _, name := range asked {
			if text, looked := answers[name].Backups[b.UUID]; !looked {
				bad = fmt.Sprintf("node %s has not looked at the backup %s", name, b.Name)
			} else if text != "" {
				bad = fmt.Sprintf("node %s cannot use the backup %s: %s", name, b.Name, text)
			}
			if bad != "" {
				break
			}
		}
		if bad == "" {
			sentence := fmt.Sprintf("no node could use the repository volume %s (%s) for %v: its backup %s (%s) takes its place", used.Name, used.Device,
				patience, b.Name, b.Device)
			if len(refused) > 0 {
				sentence += "; passed over: " + strings.Join(refused, "; ")
			}
			return &state.ReplaceVolume{From: used.UUID, To: b.UUID, Sentence: sentence}, ""
		}
		refused = append(refused, bad)
	}
	return nil, "no backup can take its place: " + strings.Join(refused, "; ")
}
