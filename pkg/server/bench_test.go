package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

// BenchmarkWatchers is what one change costs the daemon's door when 500 clients wait for it, without the kernel's part and without the
// making of the status, which a real backend does at a cost of its own. The status is of 3 nodes with 4 groups, and of 32 with 256.
func BenchmarkWatchers(b *testing.B) {
	for _, size := range [][2]int{{3, 4}, {32, 256}} {
		for _, shared := range []bool{true, false} {
			b.Run(fmt.Sprintf("nodes=%d/groups=%d/shared=%v", size[0], size[1], shared), func(b *testing.B) {
				back := servertest.New(statusOf(size[0], size[1]))
				s, err := New(Config{Backend: back, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				h := s.handler(func(*http.Request) (api.Caller, error) { return api.Caller{User: "root", Role: api.RoleAdmin}, nil })
				for b.Loop() {
					back.Change(func(*api.Status) {})
					for range 500 {
						path := api.PathStatus
						if shared {
							path += "?wait=30&since=1&instance=x"
						}
						w := httptest.NewRecorder()
						h.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "GET", path, nil))
						if w.Code != http.StatusOK || w.Body.Len() < 100 {
							b.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
						}
					}
				}
			})
		}
	}
}

func statusOf(nodes, groups int) api.Status {
	st := api.Status{Cluster: api.Cluster{Name: "c1", State: api.ClusterStable}}
	for n := range nodes {
		st.Nodes = append(st.Nodes, api.Node{Name: fmt.Sprintf("node%d", n+1), ID: n + 1, State: api.NodeNormal, RawState: api.RawStable,
			Networks: []api.NodeNetwork{{Name: "net1", State: api.Up, Interface: "eth0"}}})
	}
	for g := range groups {
		group := api.Group{Name: fmt.Sprintf("group%d_rg", g+1), ID: g + 1, Startup: "OHN", Fallover: "FNPN", Fallback: "NFB", Sentence: "a sentence of usual length"}
		for n := range min(nodes, 8) {
			name := fmt.Sprintf("node%d", (g+n)%nodes+1)
			group.Nodes = append(group.Nodes, name)
			group.Instances = append(group.Instances, api.Instance{Node: name, State: api.GroupOffline})
		}
		st.Groups = append(st.Groups, group)
	}
	return st
}
