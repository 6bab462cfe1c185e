package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// TestCompatibilityTools holds the forms of the tools that AIX and PowerHA have.
func TestCompatibilityTools(t *testing.T) {
	for file, call := range map[string][]string{
		"lscluster-m.txt":        {"lscluster", "-m"},
		"lscluster-i.txt":        {"lscluster", "-i"},
		"lscluster-d.txt":        {"lscluster", "-d"},
		"lscluster-c.txt":        {"lscluster", "-c"},
		"cllsif-c.txt":           {"cllsif", "-c"},
		"clRGmove-h.txt":         {"clRGmove", "-h"},
		"view-subsystem.txt":     {"clmgr", "view", "subsystem", "clstrmgrES"},
		"query-cluster-yaml.txt": {"clmgr", "-o", "yaml", "query", "cluster"},
		"status-yaml.txt":        {"clmgr", "-o", "yaml", "query", "status"},
	} {
		l := newLab(t)
		l.backend.Change(func(st *api.Status) {
			st.Instance = "test"
			st.Cluster.Repository = &api.Repository{Name: "repo1", Device: "/dev/hdisk2", UUID: "00f6f5d0d387b342", Host: "node1", Voter: true, Alive: true}
			st.Nodes[2].State, st.Nodes[2].Networks[0].State = api.NodeIsolated, api.Down
			st.Nodes[1].Values = map[string]float64{"mem": 2048, "cpu": 98.1}
		})
		got := l.call(t.Context(), Env{Name: call[0]}, call[1:]...)
		if got.status != 0 || got.errors != "" {
			t.Errorf("%v: status %d, %s", call, got.status, got.errors)
		}
		golden(t, file, got.out)
	}
}

// TestRGMove: what it asks of the cluster is what clmgr asks, and what it cannot do it refuses before it asks anything.
func TestRGMove(t *testing.T) {
	for _, tc := range []struct {
		line   string
		status int
		op     api.Op // of the request; empty: none is made
		node   string
		want   string // in what it prints
	}{
		{"-g rg1 -n node2", ExitOK, api.OpMove, "node2", "node2"},
		{"-g rg1 -n node2 -m -i", ExitOK, api.OpMove, "node2", "Group Name"},
		{"-g rg1 -n node2 -u", ExitOK, api.OpOnline, "node2", ""},
		{"-g rg2 -u -a", ExitOK, api.OpOnline, "", ""},
		{"-g rg1 -d -n node1", ExitOK, api.OpOffline, "node1", ""},
		{"-g rg1,rg2 -d -a -s false", ExitOK, api.OpOffline, "", ""},
		{"-g rg2 -r", ExitOK, api.OpUnsetPriority, "", ""},
		{"-g rg1 -x site2", ExitIncorrect, "", "", "sites are not managed yet"},
		{"-g rg1 -n node2 -s true", ExitIncorrect, "", "", "no secondary instances"},
		{"-g rg1 -n node2 -u -d", ExitIncorrect, "", "", "do not go together"},
		{"-g rg1 -n node2 -a -u", ExitIncorrect, "", "", "do not go together"},
		{"-g rg1 -a", ExitMissing, "", "", "-a goes with -u or -d"},
		{"-g rg1", ExitMissing, "", "", "needs -n NODE"},
		{"-n node2", ExitMissing, "", "", "needs -g RG"},
		{"-g rg9 -n node2", ExitNotFound, "", "", `no resource group "rg9"`},
		{"-g rg1 -n node9", ExitNotFound, "", "", `no node "node9"`},
		{"-g rg1 -n node2 now", ExitIncorrect, "", "", "takes no word"},
	} {
		l := newLab(t)
		l.obey()
		args := strings.Fields(tc.line)
		got := l.call(t.Context(), Env{Name: "/usr/es/sbin/cluster/utilities/clRGmove"}, args...)
		if got.status != tc.status || !strings.Contains(got.out+got.errors, tc.want) {
			t.Errorf("%s: status %d, %q, %q; want %d with %q", tc.line, got.status, got.out, got.errors, tc.status, tc.want)
		}
		list := l.backend.Requests()
		switch {
		case tc.op == "" && len(list) > 0:
			t.Errorf("%s: refused, and %+v was asked", tc.line, list)
		case tc.op != "" && (len(list) != 1 || list[0].Op != tc.op || list[0].Node != tc.node):
			t.Errorf("%s: asked %+v", tc.line, list)
		}
	}
}

// obey makes the cluster do what is asked, at once.
func (l *lab) obey() {
	l.backend.OnDo = func(_ api.Caller, r api.Request) (api.Reply, error) {
		l.backend.Change(func(st *api.Status) {
			for _, name := range r.Groups {
				g := st.Group(name)
				for i := range g.Instances {
					in := &g.Instances[i]
					on := in.Node == r.Node || r.Node == "" && i == 0
					switch {
					case r.Op == api.OpOffline && (r.Node == "" || in.Node == r.Node):
						in.State = api.GroupOffline
					case r.Op == api.OpMove || r.Op == api.OpOnline:
						in.State, in.Due = api.GroupOffline, ""
						if on {
							in.State = api.GroupOnline
						}
					case r.Op == api.OpUnsetPriority:
						g.Override = nil
					}
				}
			}
			st.Cluster.AppliedIndex = 11
		})
		return api.Reply{Index: 11}, nil
	}
}

func TestSnapshotTool(t *testing.T) {
	l := newLab(t)
	run := func(args ...string) outcome { return l.call(t.Context(), Env{Name: "clsnapshot"}, args...) }
	if got := run("-c", "-n", "s1", "-d", `before "spring"; $(id)`); got.status != 0 {
		t.Fatal(got)
	}
	if got := run("-l"); got.out != "s1\n" {
		t.Errorf("%+v", got)
	}
	if got := run("-s", "-n", "s1"); !strings.Contains(got.out, "name: c1") {
		t.Errorf("%+v", got)
	}
	if got := run("-r", "-ns1"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	if got := run("-l"); got.out != "" {
		t.Errorf("%+v", got)
	}
	for line, status := range map[string]int{"-c": ExitMissing, "-c -r -n x": ExitMissing, "-n x": ExitMissing, "-a -n nosuch": ExitNotFound, "-c -n x -m y": ExitIncorrect,
		"-R -N y -n x": ExitNotFound, "-r -N y -n x": ExitIncorrect, "-a -n x -f perhaps": ExitIncorrect, "-l x": ExitIncorrect} {
		if got := run(strings.Fields(line)...); got.status != status || got.errors == "" {
			t.Errorf("%s: %+v, want %d", line, got, status)
		}
	}
}

// Commands on other nodes are not there, and no form of a call makes it look as if one had run.
func TestNoFreeCommands(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"clcmd", "cl_nodecmd"} {
		for _, args := range [][]string{{"date"}, {"rm", "-rf", "/x"}, {"-n", "node1", "date"}, nil} {
			got := l.call(t.Context(), Env{Name: name}, args...)
			if got.status == ExitOK || got.out != "" || got.errors == "" {
				t.Errorf("%s %q: %+v", name, args, got)
			}
		}
	}
	if r := l.backend.Requests(); len(r) != 0 {
		t.Errorf("asked %+v", r)
	}
}

// monitors are lines as they stand in the scripts that watch clusters: awk, cut, grep and read on the widely parsed fields.
var monitors = []struct{ script, want string }{
	// state and node of each group, from the colon form's first three fields
	{`clRGinfo -s | awk -F: '{print $1, $2, $3}'`, "rg1 ONLINE node1\nrg1 OFFLINE node2\nrg2 OFFLINE DUE TO PARENT OFFLINE node2\nrg2 OFFLINE node3\n"},
	{`clRGinfo -s rg1 | awk -F: '$2 == "ONLINE" {print $3}'`, "node1\n"},
	{`clRGinfo -s rg1 | cut -d: -f4-7 | sort -u`, "OHN:FNPN:NFB:ignore\n"},
	{`clRGinfo -s | awk -F: '{print NF, "[" $9 "]"}' | sort -u`, "12 [ ]\n"},
	{`clRGinfo -s | while IFS=: read group state node rest; do if [ "$state" = ONLINE ]; then echo "$group@$node"; fi; done`, "rg1@node1\n"},
	// the table, whose further rows have no group
	{`clRGinfo rg1 | awk 'NR > 3 && NF == 3 {group = $1} /ONLINE/ {print group, $NF}'`, "rg1 node1\n"},
	{`clRGinfo -m | awk '$1 == "app1" {$1 = ""; print substr($0, 2)}'`, "ONLINE MONITORED\n"},
	{`clRGinfo -v rg1 | awk -F': ' '/^Fallback Policy/ {print $2}'`, "Never Fallback\n"},
	{`clRGinfo -p rg2 | grep -A1 'temporarily has the highest priority' | tail -1 | cut -d, -f1`, "node3\n"},
	// clmgr's forms
	{`clmgr -a STATE query cluster | cut -d= -f2 | tr -d '"'`, "STABLE\n"},
	{`clmgr -cv -a NAME,STATE query node | grep -v '^#' | awk -F: '$2 != "NORMAL"' | wc -l | tr -d ' '`, "0\n"},
	{`clmgr -cSv -a NAME,STATE,CURRENT_NODE query rg | awk -F: '{print $1 "=" $2 "@" $3}'`, "rg1=ONLINE@node1\nrg2=OFFLINE@\n"},
	{`clmgr -d '|' -S -a NAME,CURRENT_NODE query rg rg1 | cut -d'|' -f2`, "node1\n"},
	{`eval "$(clmgr -a CLUSTER_NAME,STATE query cluster)"; echo "$CLUSTER_NAME $STATE"`, "c1 STABLE\n"},
	{`for g in $(clmgr query rg); do clmgr -a STATE query rg $g | awk -F'"' -v g=$g '{print g, $2}'; done`, "rg1 ONLINE\nrg2 OFFLINE\n"},
	{`clmgr view subsystem clstrmgrES | grep 'Current state:' | awk '{print $3}'`, "ST_STABLE\n"},
	// nodes, services, topology
	{`lscluster -m | awk -F': ' '/Node name:/ {n = $2} /State of node:/ {print n, $2}' | awk '{print $1, $2}'`, "node1 UP\nnode2 UP\nnode3 UP\n"},
	{`lscluster -m | grep -c 'Points of contact for node: 1'`, "2\n"},
	{`lscluster -m | grep NODE_LOCAL | wc -l | tr -d ' '`, "1\n"},
	{`lscluster -m | awk '/Interface     State/ {getline; getline; print $1, $2, $3}' | sort -u`, "eth0 UP IPv4\n"},
	{`lscluster -c | awk -F': ' '/^Cluster Name/ {print $2}'`, "c1\n"},
	{`clshowsrv -v | awk -F'"' '/Cluster services status/ {print $2, $4}' | sort -u`, "NORMAL ST_STABLE\n"},
	{`clshowres -g rg1 | awk '/^Participating Node Name/ {for (i = 4; i <= NF; i++) print $i}'`, "node1\nnode2\n"},
	{`clshowres | awk '/^Resource Group Name/ {print $4}'`, "rg1\nrg2\n"},
	{`cllsif | awk '$2 == "service" {print $1, $3, $7}' | sort -u`, "svc1 net1 10.1.1.10\n"},
	{`cllsif -cS | awk -F: '$2 == "boot" {print $6, $7, $9, $11}'`, "node1 10.1.1.1 eth0 255.255.255.0\nnode2 10.1.1.2 eth0 255.255.255.0\nnode3 10.1.1.3 eth0 255.255.255.0\n"},
	{`cldump | awk '/^Cluster Substate:/ {print $3}'`, "STABLE\n"},
	{`cltopinfo | awk -F': *' '/^Cluster Name/ {print $2}'`, "c1\n"},
}

// TestMonitoringScripts runs them with the real program, called by each of its names.
func TestMonitoringScripts(t *testing.T) {
	for _, need := range []string{"sh", "awk"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	clmgr := buildClmgr(t)
	dir := t.TempDir()
	if err := os.Symlink(clmgr, filepath.Join(dir, "clmgr")); err != nil {
		t.Fatal(err)
	}
	for _, x := range tools {
		if err := os.Symlink(clmgr, filepath.Join(dir, x.name())); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t)
	for _, m := range monitors {
		c := exec.Command("sh", "-c", m.script)
		c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOLDFAST_SOCKET=" + l.socket, "TZ=UTC"}
		out, err := c.CombinedOutput()
		if err != nil || string(out) != m.want {
			t.Errorf("%s\n%v, got\n%s\nwant\n%s", m.script, err, out, m.want)
		}
	}
}
