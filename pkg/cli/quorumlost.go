package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// confirmQuorumLost forces the configuration on this node. The names are typed twice, by a human or by the script that a human wrote: -f,
// which scripts give by habit, is not enough.
func confirmQuorumLost(ctx context.Context, s *session, t *target) error {
	what := t.what()
	r := api.Recover{ID: client.NewID()}
	for _, list := range []struct {
		attr string
		to   *[]string
	}{{"DEAD", &r.Dead}, {"LOST", &r.Lost}, {"CONFIRM", &r.Confirm}} {
		if v, ok := s.take(list.attr); ok {
			*list.to = splitNames(v)
		}
	}
	if v, ok := s.take("FENCE"); ok {
		switch {
		case strings.EqualFold(v, "no"):
			r.SkipFence = true
		case !strings.EqualFold(v, "yes"):
			return fail(ExitIncorrect, "FENCE=%s: it must be yes or no", v)
		}
	}
	if len(r.Dead)+len(r.Lost) == 0 {
		return fail(ExitMissing, "%s needs DEAD=node[,node], and LOST=repository where a volume is lost; usage: %s", what, t.usage())
	}
	st, err := s.lookAlone(ctx)
	if err != nil {
		return err
	}
	for _, n := range r.Dead {
		if len(st.Nodes) > 0 && st.Node(n) == nil {
			return fail(ExitNotFound, "there is no node %q%s", n, cluster.DidYouMean(n, nodeNames(st)))
		}
	}
	if err := s.typeNames(st, &r, what); err != nil {
		return err
	}
	reply, err := send(ctx, s, what, func(ctx context.Context) (api.Reply, error) { return s.client.Recover(ctx, r) })
	if err != nil {
		return err
	}
	return s.finish(ctx, what, reply, goal{
		missing: func(st *api.Status) []string {
			if st.Cluster.Leader != st.Cluster.LocalNode {
				return []string{"this node leads alone"}
			}
			return nil
		},
		done: func(*api.Status) string { return reply.Sentence },
	})
}

// lookAlone is look for a node that may have been started without a majority: it does not know what of its log is committed, and shows no
// definition. The daemon finds the names there.
func (s *session) lookAlone(ctx context.Context) (*api.Status, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	st, err := s.client.Status(ctx)
	if err == nil && st.Cluster.State == api.ClusterNotConfigured {
		err = errNoCluster()
	}
	return &st, err
}

// splitNames takes a list with commas; an empty name is left for the daemon to refuse.
func splitNames(v string) []string {
	var out []string
	for n := range strings.SplitSeq(v, ",") {
		out = append(out, strings.TrimSpace(n))
	}
	return out
}

// typeNames asks for the names again, unless they were given twice.
func (s *session) typeNames(st *api.Status, r *api.Recover, what string) error {
	names := slices.Sorted(slices.Values(slices.Concat(r.Dead, r.Lost)))
	if len(r.Confirm) == 0 {
		consequence := fmt.Sprintf("Node %s goes on alone, without the majority. You say that %s %s dead or lost for good. If one of them still runs, or is started "+
			"again where it cannot reach this node, two nodes may hold the same file systems and addresses. What only they have stored is lost.",
			st.Cluster.LocalNode, strings.Join(names, ", "), map[bool]string{true: "is", false: "are"}[len(names) == 1])
		if !s.env.Terminal {
			return fail(ExitMissing, "%s\n%s needs CONFIRM=%s when nobody can be asked", consequence, what, strings.Join(names, ","))
		}
		fmt.Fprintf(s.env.Stderr, "%s\nType the names again, with commas, to go on: ", consequence)
		r.Confirm = splitNames(readLine(s.env.Stdin))
	}
	if typed := slices.Sorted(slices.Values(r.Confirm)); !slices.Equal(typed, names) {
		return fail(ExitFailed, "%s: %q is not %q: not confirmed, nothing was done", what, strings.Join(typed, ","), strings.Join(names, ","))
	}
	return nil
}
