package cli

import (
	"context"
	"fmt"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// away reports whether a node can do nothing for now: what it has to do, it does when it is back.
func away(n *api.Node) bool {
	return n.State == api.NodeSilent || n.State == api.NodeDead || n.State == api.NodeIsolated || n.State == api.Unknown || n.Incarnation == 0
}

func rotateCertificates(ctx context.Context, s *session, t *target) error {
	var nodes []string
	if v, ok := s.take("NODES"); ok {
		if nodes = cluster.SplitList(v); len(nodes) == 0 {
			return fail(ExitMissing, "NODES= names no node")
		}
	}
	if _, err := s.look(ctx, nil, nodes); err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpRotateCerts, Nodes: nodes}, goal{
		missing: func(st *api.Status) []string {
			var out []string
			for _, n := range chosen(st, nodes) {
				if n.RenewsTo != 0 && !away(n) {
					out = append(out, fmt.Sprintf("node %s has not renewed its certificate yet", n.Name))
				}
			}
			return out
		},
		done: func(st *api.Status) string {
			var done, later []string
			for _, n := range chosen(st, nodes) {
				if n.RenewsTo != 0 {
					later = append(later, n.Name)
				} else {
					done = append(done, n.Name)
				}
			}
			out := "no certificate is renewed yet"
			if len(done) > 0 {
				out = join(done) + " use new certificates; the ones before are void"
				if len(done) == 1 {
					out = done[0] + " uses a new certificate; the one before is void"
				}
			}
			if len(later) > 0 {
				out += "; " + join(later) + " cannot be reached and will renew when back; until then the old certificate is good there"
			}
			return out
		},
		failed: func(*api.Status) string { return "" },
	})
}

func rotateGossipKey(ctx context.Context, s *session, t *target) error {
	before, err := s.look(ctx, nil, nil)
	if err != nil {
		return err
	}
	return s.do(ctx, t.whatOf(""), api.Request{Op: api.OpRotateGossip}, goal{
		missing: func(st *api.Status) []string {
			switch k := st.Cluster.GossipKeys; {
			case len(k) == 0:
				return []string{"this node does not know the gossip keys yet"}
			case len(k) > 1 && k[1] > k[0]:
				return []string{"the new gossip key is being given to all nodes"}
			case len(k) > 1:
				return []string{"the new gossip key is used; the old one is still understood"}
			case len(before.Cluster.GossipKeys) > 0 && k[0] == before.Cluster.GossipKeys[0]:
				return []string{"the rotation of the gossip key has not begun"}
			}
			return nil
		},
		done: func(st *api.Status) string {
			return fmt.Sprintf("gossip key %d is the only one; the one before is forgotten", st.Cluster.GossipKeys[0])
		},
		failed: func(*api.Status) string { return "" },
	})
}
