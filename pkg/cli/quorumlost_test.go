package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// The names are typed twice, and -f does not replace that.
func TestRecoverTypesTheNames(t *testing.T) {
	l := newLab(t)
	var got []api.Recover
	l.backend.OnRecover = func(r api.Recover) (api.Reply, error) {
		got = append(got, r)
		return api.Reply{Sentence: "epoch 2 has begun"}, nil
	}
	l.backend.Change(func(st *api.Status) { st.Cluster.Leader = st.Cluster.LocalNode })
	for _, c := range []struct {
		line   string
		typed  string // on a terminal; "": there is none
		status int
		words  string
	}{
		{"confirm quorum_lost", "", ExitMissing, "DEAD=node"},
		{"-f confirm quorum_lost DEAD=node2,node3", "", ExitMissing, "needs CONFIRM=node2,node3"},
		{"confirm quorum_lost DEAD=node2,node9", "", ExitNotFound, `there is no node "node9"`},
		{"confirm quorum_lost DEAD=node2,node3 CONFIRM=node2", "", ExitFailed, "not confirmed, nothing was done"},
		{"confirm quorum_lost DEAD=node2,node3", "yes", ExitFailed, "not confirmed, nothing was done"},
		{"confirm quorum_lost DEAD=node2 CONFIRM=node2 FENCE=perhaps", "", ExitIncorrect, "FENCE=perhaps"},
	} {
		r := l.call(t.Context(), Env{Terminal: c.typed != "", Stdin: strings.NewReader(c.typed + "\n")}, strings.Fields(c.line)...)
		if r.status != c.status || !strings.Contains(r.errors, c.words) {
			t.Errorf("%s: status %d, %q", c.line, r.status, r.errors)
		}
	}
	if len(got) != 0 {
		t.Fatalf("sent without the names twice: %+v", got)
	}
	for _, c := range []struct{ line, typed string }{{"confirm quorum_lost DEAD=node2,node3 CONFIRM=node3,node2", ""}, {"confirm quorum_lost DEAD=node2,node3", "node3, node2"}} {
		r := l.call(t.Context(), Env{Terminal: c.typed != "", Stdin: strings.NewReader(c.typed + "\n")}, strings.Fields(c.line)...)
		if r.status != 0 || !strings.Contains(r.out, "epoch 2 has begun") {
			t.Errorf("%s: status %d, %q %q", c.line, r.status, r.out, r.errors)
		}
	}
	if len(got) != 2 || !slices.Equal(got[0].Dead, []string{"node2", "node3"}) || got[0].SkipFence {
		t.Errorf("sent: %+v", got)
	}
}
