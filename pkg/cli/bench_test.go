package cli

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
)

// large is the status of a cluster of 32 nodes and 256 groups.
func large() api.Status {
	st := api.Status{Cluster: api.Cluster{Name: "large", State: api.ClusterStable, Leader: "node1", LocalNode: "node2", StaleSeconds: 3}}
	zero := 0.0
	st.Cluster.AgeSeconds = &zero
	since := time.Unix(1e9, 0)
	for n := range 32 {
		st.Nodes = append(st.Nodes, api.Node{Name: fmt.Sprintf("node%d", n+1), ID: n + 1, State: api.NodeNormal, RawState: api.RawStable, Incarnation: 3, Voter: n < 5,
			Addresses: []api.Address{{Label: fmt.Sprintf("node%d", n+1), Address: fmt.Sprintf("10.1.1.%d", n+1), Network: "net1", Kind: api.AddressBoot, State: api.Up}},
			Networks:  []api.NodeNetwork{{Name: "net1", State: api.Up, Interface: "eth0"}}, Lease: &api.Lease{Armed: true, Class: "independent"}, Since: &since})
	}
	for g := range 256 {
		group := api.Group{Name: fmt.Sprintf("group%d_rg", g+1), ID: g + 1, Startup: "OHN", Fallover: "FNPN", Fallback: "NFB", Generation: 7,
			Sentence: "node is the home node, the first of the list, and can take it"}
		for n := range 8 {
			i := api.Instance{Node: fmt.Sprintf("node%d", (g+n)%32+1), State: api.GroupOffline, Since: &since}
			if n == 0 {
				i.State = api.GroupOnline
			}
			group.Nodes = append(group.Nodes, i.Node)
			group.Instances = append(group.Instances, i)
		}
		for _, kind := range []string{"service_ip", "file_system", "application"} {
			group.Resources = append(group.Resources, api.Resource{Kind: kind, Name: fmt.Sprintf("%s_%d", kind, g+1), Node: group.Nodes[0], State: "running"})
		}
		st.Groups = append(st.Groups, group)
	}
	return st
}

// BenchmarkLargeCluster is a whole command against a daemon's door: all but the start of the process, and the making of the status.
func BenchmarkLargeCluster(b *testing.B) {
	l := newLab(b)
	l.backend.Change(func(st *api.Status) {
		instance := st.Instance
		*st = large()
		st.Instance = instance
	})
	env := Env{Stdout: io.Discard, Stderr: io.Discard, LogDir: l.logs, Getenv: func(k string) string { return map[string]string{api.SocketEnv: l.socket}[k] }}
	for _, cmd := range [][]string{{"clRGinfo"}, {"clmgr", "query", "cluster"}, {"clmgr", "query", "status"}} {
		b.Run(fmt.Sprint(cmd), func(b *testing.B) {
			for b.Loop() {
				env.Name = cmd[0]
				if status := Main(b.Context(), env, cmd[1:]); status != ExitOK {
					b.Fatalf("status %d", status)
				}
			}
		})
	}
	b.Run("reading the status", func(b *testing.B) {
		c := client.New(l.socket)
		defer c.Close()
		for b.Loop() {
			if _, err := c.Status(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
