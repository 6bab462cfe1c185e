package scheduler

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Dues says, by group, what its being offline is due to, for the groups of which no instance runs.
type Dues map[string]state.DueTo

// Of is what an OFFLINE instance is due to: what its release was for, else what keeps the group from starting. Empty if it is
// neither, or if the group runs elsewhere.
func (d Dues) Of(v *state.State, group, node string) state.DueTo {
	if due, ok := d[group]; ok {
		if due == "" {
			return v.Instance(group, node).DueTo
		}
		return due
	}
	return ""
}

// OfflineDueTo finds what clRGinfo shows as "OFFLINE due to ...". A group that runs somewhere is not in the answer.
func OfflineDueTo(v *state.State, now time.Time) Dues {
	out := Dues{}
	if v == nil || v.Definition == nil {
		return out
	}
	m := newModel(v, now)
	m.decide()
	for i := range m.groups {
		g := &m.groups[i]
		if g.def.Concurrent() || g.status != free {
			continue
		}
		switch {
		case g.st.Offline, g.st.Phase == state.PhaseParked, g.st.Phase == state.PhaseError, g.target >= 0:
			out[g.def.Name] = ""
		case g.blocked && m.parentMissing(g):
			out[g.def.Name] = state.DueToParentOffline
		case g.blocked:
			out[g.def.Name] = state.DueToTargetOffline
		case g.st.Suspended, g.st.Phase == state.PhaseStart && m.settling(g) != "":
			out[g.def.Name] = ""
		default:
			out[g.def.Name] = state.DueToLackOfNode
			for _, n := range g.def.Nodes {
				if g.st.Instances[n] != nil && g.st.Instances[n].DueTo == state.DueToFallover {
					out[g.def.Name] = "" // displaced: as its release said
				}
			}
		}
	}
	return out
}

func (m *model) parentMissing(g *group) bool {
	for _, p := range g.parents {
		if !m.isOnline(&m.groups[p]) {
			return true
		}
	}
	return false
}
