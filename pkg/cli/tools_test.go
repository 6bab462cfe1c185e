package cli

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// TestStatusTools holds the forms that scripts read, character by character.
func TestStatusTools(t *testing.T) {
	for file, call := range map[string][]string{
		"clRGinfo.txt":       {"clRGinfo"},
		"clRGinfo-v.txt":     {"clRGinfo", "-v"},
		"clRGinfo-p.txt":     {"clRGinfo", "-p"},
		"clRGinfo-t.txt":     {"clRGinfo", "-t"},
		"clRGinfo-m.txt":     {"clRGinfo", "-m"},
		"clRGinfo-s.txt":     {"clRGinfo", "-s"},
		"clRGinfo-c-rg2.txt": {"/usr/es/sbin/cluster/utilities/clRGinfo", "-c", "rg2"},
		"clRGinfo-a.txt":     {"clRGinfo", "-a"},
		"cltopinfo.txt":      {"cltopinfo"},
		"cltopinfo-w.txt":    {"cltopinfo", "-w"},
		"cllsif.txt":         {"cllsif"},
		"clshowres.txt":      {"clshowres", "-g", "rg1"},
		"clshowsrv-v.txt":    {"clshowsrv", "-v"},
		"cldump.txt":         {"cldump"},
		"cldisp.txt":         {"cldisp"},
	} {
		l := newLab(t)
		got := l.call(t.Context(), Env{Name: call[0]}, call[1:]...)
		if got.status != 0 || got.errors != "" {
			t.Errorf("%v: status %d, %s", call, got.status, got.errors)
		}
		golden(t, file, got.out)
	}
}

// TestRGInfoLiteral is the picture in PowerHA's documentation, typed here and not generated.
func TestRGInfoLiteral(t *testing.T) {
	l := newLab(t)
	l.backend.Change(func(st *api.Status) { st.Groups = st.Groups[:1] })
	want := `-----------------------------------------------------------------------------
Group Name     Group State      Node
-----------------------------------------------------------------------------
rg1            ONLINE           node1
               OFFLINE          node2
`
	if got := l.call(t.Context(), Env{Name: "clRGinfo"}); got.out != want {
		t.Errorf("got\n%s", got.out)
	}
	want = "rg1:ONLINE:node1:OHN:FNPN:NFB:ignore: : : : :\nrg1:OFFLINE:node2:OHN:FNPN:NFB:ignore: : : : :\n"
	if got := l.call(t.Context(), Env{Name: "clRGinfo"}, "-s"); got.out != want {
		t.Errorf("got\n%s", got.out)
	}
	want = `Group Name     Group State      Application state      Node
-----------------------------------------------------------------------------
rg1            ONLINE                                  node1
app1                            ONLINE MONITORED
`
	if got := l.call(t.Context(), Env{Name: "clRGinfo"}, "-m"); got.out != want {
		t.Errorf("got\n%s", got.out)
	}
}

func TestToolsOnOldAndUnknownState(t *testing.T) {
	l := newLab(t)
	age := 12.0
	l.backend.Change(func(st *api.Status) {
		st.Cluster.AgeSeconds = &age
		st.Groups[0].Instances[0].State = api.Unknown
		st.Nodes[1].State = api.NodeSilent
	})
	got := l.call(t.Context(), Env{Name: "clRGinfo"})
	if !strings.Contains(got.errors, "node1 has not heard a leader for 12 s") {
		t.Errorf("old state is shown as new: %q", got.errors)
	}
	if got = l.call(t.Context(), Env{Name: "clRGinfo"}, "rg1"); !strings.Contains(got.out, "rg1            UNKNOWN          node1") {
		t.Errorf("unknown is not shown:\n%s", got.out)
	}
	if got := l.call(t.Context(), Env{Name: "clshowsrv"}, "-v"); !strings.Contains(got.out, `Remote communications:     "UNKNOWN"`) {
		t.Errorf("a silent node:\n%s", got.out)
	}
	if got := l.call(t.Context(), Env{Name: "cldump"}); !strings.Contains(got.out, "Cluster State: UNKNOWN") {
		t.Errorf("cldump of old state:\n%s", got.out)
	}
}

func TestToolsRefuse(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		call   []string
		status int
		want   string
	}{
		{[]string{"clRGinfo", "rg9"}, ExitNotFound, `there is no resource group "rg9"`},
		{[]string{"clRGinfo", "-z"}, ExitNotFound, "no option -z"},
		{[]string{"clshowres", "-g"}, ExitMissing, "-g needs a value"},
		{[]string{"clshowres", "-g", "rg9"}, ExitNotFound, "rg9"},
		{[]string{"clshowres", "-n", "node9"}, ExitNotFound, "node9"},
		{[]string{"clshowsrv", "nosuch"}, ExitNotFound, "no subsystem"},
	} {
		got := l.call(t.Context(), Env{Name: tc.call[0]}, tc.call[1:]...)
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) {
			t.Errorf("%v: status %d, %q; want %d with %q", tc.call, got.status, got.errors, tc.status, tc.want)
		}
	}
	l.backend.Change(func(st *api.Status) {
		*st = api.Status{Instance: st.Instance, Cluster: api.Cluster{State: api.ClusterNotConfigured}}
	})
	if got := l.call(t.Context(), Env{Name: "clRGinfo"}); got.status != ExitDependency || !strings.Contains(got.errors, "no cluster yet") {
		t.Errorf("without a cluster: %d %q", got.status, got.errors)
	}
}
