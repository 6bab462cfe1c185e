package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	// net/http leaves a connection whose request was too long open for half a second, so that the refusal is read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"), goleak.Cleanup(func(status int) {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
		os.Exit(status)
	}))
}

const twoGroups = `name: c1
nodes:
  - {name: node1, addresses: {net1: 10.1.1.1/24}}
  - {name: node2, addresses: {net1: 10.1.1.2/24}}
  - {name: node3, addresses: {net1: 10.1.1.3/24}}
networks: [net1]
service_ips:
  - {name: svc1, address: 10.1.1.10, network: net1}
file_systems:
  - {name: fs1, device: /dev/vg/lv, mount_point: /data}
application_controllers:
  - {name: app1, start_script: /ha/start, stop_script: /ha/stop, monitors: [mon1]}
application_monitors:
  - {name: mon1, type: custom, monitor_method: /ha/mon, failure_action: fallover}
resource_groups:
  - {name: rg1, nodes: [node1, node2], fallback: NFB, service_ips: [svc1], file_systems: [fs1], applications: [app1]}
  - {name: rg2, nodes: [node2, node3], startup: OFAN}
`

// c1 is a small cluster with rg1 on node1, and rg2 nowhere.
func c1() api.Status {
	age, margin := 0.2, 3.1
	at := time.Date(2017, 6, 26, 13, 31, 27, 0, time.UTC)
	node := func(name, address string, id int) api.Node {
		return api.Node{Name: name, ID: id, State: api.NodeNormal, RawState: api.RawStable, Incarnation: 1, Voter: true, Version: "1.0",
			Addresses: []api.Address{{Label: name + "_boot", Address: address, Network: "net1", Kind: api.AddressBoot, State: api.Up}},
			Networks:  []api.NodeNetwork{{Name: "net1", State: api.Up, Interface: "eth0"}},
			Lease:     &api.Lease{Armed: true, Class: "independent", Backend: "/dev/watchdog", AgeSeconds: &age, MarginSeconds: &margin}}
	}
	zero := 0.0
	st := api.Status{
		Cluster: api.Cluster{Name: "c1", UUID: "6f2c", ID: 1120652512, State: api.ClusterStable, AppliedIndex: 10, Leader: "node1", LocalNode: "node1",
			AgeSeconds: &zero, StaleSeconds: 3, DefinitionVersion: 1, ProductVersion: "1.0",
			Quorum: api.Quorum{Have: true, Voters: 3, Needed: 2, Alive: 3, Sentence: "one more failure is survived"}},
		Nodes:    []api.Node{node("node1", "10.1.1.1", 1), node("node2", "10.1.1.2", 2), node("node3", "10.1.1.3", 3)},
		Networks: []api.Network{{Name: "net1", State: api.Up}},
		Groups: []api.Group{
			{Name: "rg1", ID: 1, Nodes: []string{"node1", "node2"}, Startup: "OHN", Fallover: "FNPN", Fallback: "NFB", Generation: 4,
				Instances:    []api.Instance{{Node: "node1", State: api.GroupOnline}, {Node: "node2", State: api.GroupOffline}},
				Applications: []api.Application{{Name: "app1", Node: "node1", State: api.AppMonitored}},
				Resources:    []api.Resource{{Kind: "service_ip", Name: "svc1", Node: "node1", State: "running"}}, Sentence: "started on its home node"},
			{Name: "rg2", ID: 2, Nodes: []string{"node2", "node3"}, Startup: "OFAN", Fallover: "FNPN", Fallback: "FBHPN",
				Instances: []api.Instance{{Node: "node2", State: api.GroupOffline, Due: api.DueParentOffline}, {Node: "node3", State: api.GroupOffline}},
				Override:  &api.Override{Node: "node3", Time: at}, Timers: []api.Timer{{Kind: api.TimerFallback, Name: "weekend", At: at.Add(133 * time.Hour)}}},
		},
	}
	st.Nodes[0].Leader = true
	st.Nodes[0].Addresses = append(st.Nodes[0].Addresses,
		api.Address{Label: "svc1", Address: "10.1.1.10", Network: "net1", Kind: api.AddressService, State: api.Up})
	return st
}

type lab struct {
	t       testing.TB
	backend *servertest.Backend
	socket  string
	logs    string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, backend: servertest.New(c1()), socket: filepath.Join(t.TempDir(), "s"), logs: t.TempDir()}
	l.backend.SetYAML(twoGroups)
	s, err := server.New(server.Config{Backend: l.backend, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ul, err := server.ListenLocal(l.socket, server.Access{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeLocal(ul) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l
}

type outcome struct {
	status      int
	out, errors string
}

// syncBuffer may be written while the test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
	on func(string)
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on != nil {
		s.on(string(p))
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (l *lab) run(args ...string) outcome { return l.call(l.t.Context(), Env{Name: "clmgr"}, args...) }

func (l *lab) call(ctx context.Context, env Env, args ...string) outcome {
	l.t.Helper()
	var out, errs syncBuffer
	if env.Stderr == nil {
		env.Stderr = &errs
	}
	env.Stdout = &out
	if env.Stdin == nil {
		env.Stdin = strings.NewReader("")
	}
	env.Getenv = func(k string) string {
		if k == api.SocketEnv {
			return l.socket
		}
		return ""
	}
	env.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host == "svc1" {
			return []netip.Addr{netip.MustParseAddr("10.1.1.10")}, nil
		}
		return nil, errors.New("no such host")
	}
	env.hopeless = 100 * time.Millisecond
	if env.calmness == 0 {
		env.calmness = 5 * time.Millisecond
	}
	env.Location, env.LogDir, env.Version = time.UTC, l.logs, "1.0"
	status := Main(ctx, env, args)
	return outcome{status, out.String(), errs.String()}
}

// golden compares with a file in testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n--- want\n%s--- got\n%s", name, want, got)
	}
}
