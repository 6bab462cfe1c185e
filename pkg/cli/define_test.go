package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// def is the definition that the backend now has.
func (l *lab) def() *cluster.Definition {
	l.t.Helper()
	text, _ := l.backend.YAML()
	d, faults := decode("test", []byte(text))
	if len(faults) > 0 {
		l.t.Fatalf("the definition is not valid: %v\n%s", faults, text)
	}
	return d
}

func TestDefinitionByCommands(t *testing.T) {
	l := newLab(t)
	for _, line := range []string{
		"add service_ip svc2 ADDRESS=10.1.1.11 NETWORK=net1",
		"a sip svc3 address=10.1.1.12 network=net1",
		"create application_controller app2 STARTSCRIPT='/ha/start2 -x' STOPSCRIPT=/ha/stop2 STARTUP_MODE=background",
		"add am mon2 TYPE=Custom MONITORMETHOD=/ha/mon2 MONITORINTERVAL=30 APPLICATIONS=app2",
		"mk resource_group rg3 NODES=node3,node1 STARTUP=OFAN FALLBACK=NFB SERVICE_LABEL=svc2,svc3 APPLICATIONS=app2",
		"mod rg rg3 FALLOVER=BO NODES=node1,node3",
		"set resource_group rg3 PRIORITY=5",
		"modify cluster RG_SETTLING_TIME=30",
		"mod sip svc3 NAME=svc4",
		"add dependency PARENT=rg1 CHILD=rg3",
		"rm file_system fs1 -f",
	} {
		words, err := cluster.SplitCommand(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.run(words...); got.status != 0 || got.out == "" {
			t.Fatalf("%s: status %d, %q, %q", line, got.status, got.out, got.errors)
		}
	}
	d := l.def()
	g := d.Group("rg3")
	if g == nil || g.Fallover != "BO" || strings.Join(g.Nodes, " ") != "node1 node3" || g.Priority != 5 || strings.Join(g.ServiceIPs, " ") != "svc2 svc4" {
		t.Errorf("rg3 is %+v", g)
	}
	if d.FileSystem("fs1") != nil || len(d.Group("rg1").FileSystems) != 0 {
		t.Error("fs1 is still there or referred to")
	}
	if len(d.Dependencies) != 1 || d.Settings.SettlingTime.Seconds() != 30 {
		t.Errorf("%+v %v", d.Dependencies, d.Settings.SettlingTime)
	}
}

// TestBadInputOfDefinitions: a clear message, the documented status, nothing changed.
func TestBadInputOfDefinitions(t *testing.T) {
	for _, tc := range []struct {
		line   string
		status int
		want   string
	}{
		{"add resource_group", ExitMissing, "needs a name"},
		{"add resource_group rg9", ExitMissing, "NODES is needed"},
		{"add resource_group rg1 NODES=node1", ExitFailed, "there is one already"},
		{"add resource_group rg9 NODES=node9", ExitNotFound, "node9"},
		{"add resource_group rg9 NODES=node1 SERVICE_LABEL=nosuch", ExitNotFound, "nosuch"},
		{"add resource_group rg9 NODES=node1 STARTUPP=OHN", ExitNotFound, `STARTUPP (did you mean "STARTUP"?)`},
		{"add resource_group rg9 NODES=node1 VOLUME_GROUP=datavg", ExitNotFound, `no volume_group "datavg" is defined`},
		{"add resource_group rg9 NODES=node1 STARTUP=OHM", ExitIncorrect, "it must be one of OHN"},
		{"add resource_group rg9 NODES=node1 NODES=node2", ExitIncorrect, "twice"},
		{"add resource_group -x NODES=node1", ExitMissing, "needs a name"},
		{"add resource_group a/b NODES=node1", ExitIncorrect, "a/b"},
		{"add service_ip svc9 ADDRESS=10.1.1.999 NETWORK=net1", ExitIncorrect, "10.1.1.999"},
		{"modify resource_group rg9 FALLBACK=NFB", ExitNotFound, `no resource_group "rg9"`},
		{"modify resource_group rg1", ExitMissing, "needs ATTR=VALUE"},
		{"modify resource_group FALLBACK=NFB", ExitMissing, "needs a name"},
		{"delete service_ip svc1", ExitDependency, "used by"},
		{"delete file_system fs9", ExitNotFound, "fs9"},
		{"delete service_ip", ExitMissing, "needs a name"},
		{"delete nosuch x", ExitNotFound, "no class"},
		{"set failover -g rg1", ExitMissing, "-m MODE (next, dynamic, offline)"},
		{"set failover -m next", ExitMissing, "-g RG"},
		{"set failover -g rg1 -m nxet", ExitIncorrect, `did you mean "next"`},
		{"set failover -g rg9 -m next", ExitNotFound, "rg9"},
		{"set failover -g rg1 -m next -p cpu", ExitIncorrect, "-p goes only with"},
		{"set failover -g rg1 -m next -z 1", ExitNotFound, "no option -z"},
		{"set fallback -g rg1 -m next", ExitIncorrect, "never, higher"},
	} {
		l := newLab(t)
		before, _ := l.backend.YAML()
		got := l.run(strings.Fields(tc.line)...)
		if got.status != tc.status || !strings.Contains(got.errors, tc.want) || got.out != "" {
			t.Errorf("%s: status %d, %q, %q; want %d with %q", tc.line, got.status, got.out, got.errors, tc.status, tc.want)
		}
		if after, _ := l.backend.YAML(); after != before {
			t.Errorf("%s changed the definition", tc.line)
		}
	}
}

func TestSetPolicies(t *testing.T) {
	for line, check := range map[string]func(*cluster.ResourceGroup) bool{
		"set failover -g rg1 -m dynamic":        func(g *cluster.ResourceGroup) bool { return g.Fallover == "FUDNP" && g.NodePriorityPolicy == "cpu" },
		"set failover -g rg1 -m dynamic -p mem": func(g *cluster.ResourceGroup) bool { return g.Fallover == "FUDNP" && g.NodePriorityPolicy == "mem" },
		"set fallover -g rg1 -m offline":        func(g *cluster.ResourceGroup) bool { return g.Fallover == "BO" },
		"set fallback -g rg1 -m higher":         func(g *cluster.ResourceGroup) bool { return g.Fallback == "FBHPN" },
		"set startup -g rg1,rg2 -m available":   func(g *cluster.ResourceGroup) bool { return g.Startup == "OFAN" },
	} {
		l := newLab(t)
		if got := l.run(strings.Fields(line)...); got.status != 0 || !check(l.def().Group("rg1")) {
			t.Errorf("%s: status %d, %q, %+v", line, got.status, got.errors, l.def().Group("rg1"))
		}
	}
	l := newLab(t) // dynamic, and back: the priority policy goes with it
	l.run("set", "failover", "-g", "rg1", "-m", "dynamic")
	if got := l.run("set", "failover", "-g", "rg1", "-m", "next"); got.status != 0 || l.def().Group("rg1").NodePriorityPolicy != "" {
		t.Errorf("status %d, %q, %+v", got.status, got.errors, l.def().Group("rg1"))
	}
}

func TestAnEditIsMadeAgainWhenAnotherCameFirst(t *testing.T) {
	l := newLab(t)
	var once sync.Once
	l.backend.OnDefinition = func(_ api.Caller, c api.DefinitionChange) (api.Reply, error) {
		var err error
		once.Do(func() { // somebody else's change comes in between
			d := l.def()
			d.Group("rg2").Priority = 7
			text, _ := encode(d)
			l.backend.SetYAML(string(text))
			err = api.Errorf(api.CodeConflict, "the definition changed meanwhile")
		})
		return api.Reply{}, err
	}
	if got := l.run("modify", "rg", "rg1", "PRIORITY=3"); got.status != 0 {
		t.Fatalf("status %d, %q", got.status, got.errors)
	}
	if d := l.def(); d.Group("rg1").Priority != 3 || d.Group("rg2").Priority != 7 {
		t.Errorf("one of the two changes is lost: %d %d", d.Group("rg1").Priority, d.Group("rg2").Priority)
	}
}

func TestAChangeThatChangesNothingIsNotSent(t *testing.T) {
	l := newLab(t)
	got := l.run("modify", "rg", "rg1", "FALLBACK=nfb")
	if _, version := l.backend.YAML(); got.status != 0 || version != 1 || !strings.Contains(got.out, "so already") {
		t.Errorf("status %d, version %d, %q", got.status, version, got.out)
	}
}

func (l *lab) file(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func TestExportDiffApply(t *testing.T) {
	l := newLab(t)
	if got := l.run("export"); got.status != 0 || got.out != twoGroups {
		t.Errorf("export: %d %q", got.status, got.out)
	}
	path := l.file("c.yaml", strings.Replace(twoGroups, "startup: OFAN", "startup: OHN", 1))
	l.backend.OnDiff = func(t api.DefinitionText) (api.Diff, error) {
		return api.Diff{Changes: []api.Change{{Op: "modify", Class: "resource_group", Name: "rg2", Attr: "STARTUP", From: "OFAN", To: "OHN"},
			{Op: "add", Class: "node", Name: "n9"}, {Op: "add", Class: "node", Name: "n9", Attr: "SITE", To: "x"},
			{Op: "reorder", Class: "node", Name: "a", From: "1", To: "2"}, {Op: "delete", Class: "node", Name: "n8"}}, Effects: []string{"nothing moves"}}, nil
	}
	want := "~ resource_group rg2 STARTUP: \"OFAN\" -> \"OHN\"\n+ node n9\n+ node n9 SITE: \"x\"\n~ node a order: 1 -> 2\n- node n8\n=> nothing moves\n"
	if got := l.run("diff", "-f", path); got.status != 0 || got.out != want {
		t.Errorf("diff: %d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("apply", "-f", path); got.status != 0 || l.def().Group("rg2").Startup != "OHN" {
		t.Errorf("apply: %d %q %q", got.status, got.out, got.errors)
	}
	if got := l.call(t.Context(), Env{Stdin: strings.NewReader(twoGroups)}, "apply", "-f", "-"); got.status != 0 || l.def().Group("rg2").Startup != "OFAN" {
		t.Errorf("apply -f -: %d %q %q", got.status, got.out, got.errors)
	}
}

func TestApplyShowsAllFaultsAndChangesNothing(t *testing.T) {
	l := newLab(t)
	text := strings.NewReplacer("fallback: NFB", "fallbak: NFB", "[node2, node3]", "[node2, node7]", "startup: OFAN", "startup: OFFAN").Replace(twoGroups)
	path := l.file("bad.yaml", text)
	for _, action := range []string{"apply", "diff"} {
		got := l.run(action, "-f", path)
		if got.status != 2 || got.out != "" {
			t.Errorf("%s: status %d, %q", action, got.status, got.out)
		}
		for _, want := range []string{path + ":16:", "fallbak", path + ":17:", "node7", "OFFAN", "nothing was changed", "3 faults"} {
			if !strings.Contains(got.errors, want) {
				t.Errorf("%s: no %q in\n%s", action, want, got.errors)
			}
		}
	}
	if _, version := l.backend.YAML(); version != 1 {
		t.Error("the definition was changed")
	}
	for _, args := range [][]string{{"apply"}, {"apply", "-f"}} {
		if got := l.run(args...); got.status != ExitMissing {
			t.Errorf("%v: status %d, %q", args, got.status, got.errors)
		}
	}
	if got := l.run("apply", "-f", filepath.Join(t.TempDir(), "none")); got.status != 2 || !strings.Contains(got.errors, "no such file") {
		t.Errorf("no file: %d %q", got.status, got.errors)
	}
	if got := l.run("apply", "-f", l.file("big", strings.Repeat("#", api.MaxDefinition+1))); got.status != 2 || !strings.Contains(got.errors, "longer than") {
		t.Errorf("too long: %d %q", got.status, got.errors)
	}
	// Faults that only the cluster finds come in the same form.
	l.backend.OnDefinition = func(api.Caller, api.DefinitionChange) (api.Reply, error) {
		return api.Reply{}, &api.Error{Code: api.CodeInvalid, Message: "it cannot be used", Faults: []api.Fault{{File: "f", Line: 3, Column: 4, Key: "nodes[0]", Message: "no"}}}
	}
	if got := l.run("apply", "-f", l.file("good", twoGroups+"settings: {settling_time: 3s}\n")); got.status != 2 || !strings.Contains(got.errors, "f:3:4: nodes[0]: no") {
		t.Errorf("faults of the cluster: %d %q", got.status, got.errors)
	}
}

func TestVerify(t *testing.T) {
	l := newLab(t)
	var asked api.VerifyRequest
	report := api.VerifyReport{Subject: "the active definition", DefinitionVersion: 3, Checks: 100, Passed: 97, Nodes: []string{"n1", "n2", "n3"}, TookSeconds: 0.2,
		NotChecked: []string{"moonlight"}, Fixed: []string{"n2: V0403 file_system app_fs: made the directory /app"},
		Findings: []api.Finding{
			{Check: "V0602", Severity: api.SeverityInfo, Node: "n1", Object: "service_ip svc", Saw: "svc does not resolve", Why: "w", Fix: "f"},
			{Check: "V1202", Severity: api.SeverityError, Node: "n1", Object: "method m", Saw: "/m has the mode 0644", Why: "it cannot be run", Fix: "chmod 0755", Fixable: true},
			{Check: "V1202", Severity: api.SeverityError, Node: "n2", Object: "method m", Saw: "/m has the mode 0644", Why: "it cannot be run", Fix: "chmod 0755", Fixable: true},
			{Check: "V1602", Severity: api.SeverityWarning, Node: "n2", Object: "node n2", Saw: "it offers metrics at :6193\x1b[2J", Why: "w", Fix: "f"},
			{Check: "V1801", Severity: api.SeverityWarning, Object: "network net1", Saw: "it is the only one", Why: "w", Fix: "f", Waived: "spring", WaivedUntil: "2027-04-01"},
		}}
	l.backend.OnVerify = func(_ api.Caller, r api.VerifyRequest) (api.VerifyReport, error) { asked = r; return report, nil }
	got := l.run("verify", "cluster", "FIX=yes", "METHODS=a,b", "QUICK=no")
	if got.status != ExitFailed || !asked.Fix || !slices.Equal(asked.Methods, []string{"a", "b"}) {
		t.Errorf("%d %+v %q", got.status, asked, got.errors)
	}
	golden(t, "verify", got.out)
	golden(t, "verify-all", l.run("-v", "verify", "cluster").out)
	log := filepath.Join(t.TempDir(), "log")
	if got := l.run("verify", "cluster", "MAX_ERRORS=1", "LOGFILE="+log); got.status != ExitFailed {
		t.Error(got.status, got.errors)
	}
	if text, err := os.ReadFile(log); err != nil || !strings.HasSuffix(string(text), "Check: FAILED\n") {
		t.Errorf("%v %q", err, text)
	}
	report.Findings = report.Findings[3:]
	if got := l.run("verify", "cluster"); got.status != 0 || !strings.HasSuffix(got.out, "Check: PASSED\n") {
		t.Errorf("%d %q", got.status, got.out)
	}
	if got := l.run("verify", "cluster", "other"); got.status != ExitNotFound {
		t.Errorf("another cluster's name: %d %q", got.status, got.errors)
	}
	for _, bad := range []string{"FIX=perhaps", "LOGGING=loud", "MAX_ERRORS=0", "MAX_ERRORS=x"} {
		if got := l.run("verify", "cluster", bad); got.status != ExitIncorrect {
			t.Errorf("%s: %d %q", bad, got.status, got.errors)
		}
	}
	if got := l.call(t.Context(), Env{Name: "clverify"}, "-C", "yes"); got.status != 0 || !asked.Fix {
		t.Errorf("clverify: %d %q %+v", got.status, got.errors, asked)
	}
}

// A file is judged without looking at nodes where there is no cluster yet.
func TestVerifyOfAFileWithoutACluster(t *testing.T) {
	l := newLab(t)
	l.backend.OnVerify = func(api.Caller, api.VerifyRequest) (api.VerifyReport, error) {
		return api.VerifyReport{}, api.Errorf(api.CodeNotConfigured, "no cluster")
	}
	l.backend.OnCheck = func(api.DefinitionText) (api.CheckReport, error) {
		return api.CheckReport{Warnings: []string{"untested deadman"}, Checked: []string{"names"}, NotChecked: []string{"scripts on the nodes"}}, nil
	}
	yaml, _ := l.backend.YAML()
	name := l.file("c.yaml", yaml)
	got := l.run("verify", "cluster", "FILE="+name)
	if got.status != 0 || got.out != "WARNING: untested deadman\nchecked: names\nnot checked: scripts on the nodes\nCheck: PASSED\n" {
		t.Errorf("verify: %d %q %q", got.status, got.out, got.errors)
	}
	l.backend.OnCheck = func(api.DefinitionText) (api.CheckReport, error) {
		return api.CheckReport{Faults: []api.Fault{{Key: "nodes[0]", Message: "bad"}}}, nil
	}
	if got := l.run("verify", "cluster", "FILE="+name); got.status != ExitFailed || !strings.Contains(got.errors, "Check: FAILED") || !strings.Contains(got.out, "nodes[0]: bad") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
}

func TestHelpOfChecks(t *testing.T) {
	l := newLab(t)
	if got := l.run("help", "checks"); got.status != 0 || !strings.Contains(got.out, "V1202 ERROR") {
		t.Errorf("%d %q", got.status, got.out)
	}
	if got := l.run("help", "checks", "v1202"); got.status != 0 || !strings.Contains(got.out, "scripts are executable") {
		t.Errorf("%d %q", got.status, got.out)
	}
	if got := l.run("help", "checks", "V9999"); got.status != ExitNotFound {
		t.Errorf("%d", got.status)
	}
}

func TestFoundAndJoin(t *testing.T) {
	l := newLab(t)
	var asked api.CreateCluster
	l.backend.OnCreate = func(c api.CreateCluster) (api.CreateClusterReply, error) {
		asked = c
		if len(c.Nodes) == 2 {
			return api.CreateClusterReply{}, api.Errorf(api.CodeRefused, "two nodes need a repository volume")
		}
		return api.CreateClusterReply{UUID: "u", Tokens: []api.JoinToken{{Node: "b", Token: "T-b", Expires: 3600}}}, nil
	}
	got := l.run("add", "cluster", "demo", "NODES=a,b,c", "ADDRESSES=a:net1:10.0.0.1/24,b:net1:10.0.0.2/24 c:fd00::3/64")
	if got.status != 0 || !strings.Contains(got.out, "clmgr join cluster TOKEN=T-b") {
		t.Errorf("status %d, %q, %q", got.status, got.out, got.errors)
	}
	if asked.Name != "demo" || asked.Node != "a" || len(asked.Nodes) != 3 || asked.Nodes[1].Addresses["net1"] != "10.0.0.2/24" ||
		asked.Nodes[2].Addresses[defaultNetwork] != "fd00::3/64" {
		t.Errorf("asked %+v", asked)
	}
	if got := l.run("add", "cluster", "demo", "NODES=a,b", "ADDRESSES=a:10.0.0.1,b:10.0.0.2"); got.status != ExitFailed || !strings.Contains(got.errors, "repository volume") {
		t.Errorf("two nodes: %d %q", got.status, got.errors)
	}
	path := l.file("c.yaml", twoGroups)
	if got := l.run("add", "cluster", "FILE="+path); got.status != 0 || asked.Name != "c1" || asked.YAML != twoGroups {
		t.Errorf("from a file: %d %q %+v", got.status, got.errors, asked)
	}
	for line, status := range map[string]int{
		"add cluster other FILE=" + path:                          ExitIncorrect,
		"add cluster FILE=" + path + " NODES=a":                   ExitIncorrect,
		"add cluster":                                             ExitMissing,
		"add cluster x NODES=a,b,c ADDRESSES=d:10.0.0.1":          ExitIncorrect,
		"add cluster x NODES=a,b,c ADDRESSES=a:net1:10.0.0":       ExitIncorrect,
		"add cluster x NODES=a ADDRESSES=10.0.0.1/24,10.0.0.2/24": ExitIncorrect,
		"add cluster x NODES=a TTL=never":                         ExitIncorrect,
		"add cluster x NODES=a NODS=a":                            ExitNotFound,
		"add cluster x FILE=/does/not/exist":                      ExitNotFound,
	} {
		if got := l.run(strings.Fields(line)...); got.status != status {
			t.Errorf("%s: status %d, want %d: %q", line, got.status, status, got.errors)
		}
	}

	got = l.run("add", "node", "node4", "ADDRESS=net1:10.1.1.4/24")
	if got.status != 0 || l.def().Node("node4") == nil || !strings.Contains(got.out, "TOKEN=token-of-node4") {
		t.Errorf("add node: %d %q %q", got.status, got.out, got.errors)
	}
	if got := l.run("add", "token", "node3", "TTL=10m"); got.status != 0 || !strings.Contains(got.out, "token-of-node3") {
		t.Errorf("add token: %d %q", got.status, got.errors)
	}
	var joined api.Join
	l.backend.OnJoin = func(j api.Join) (api.Reply, error) { joined = j; return api.Reply{}, nil }
	if got := l.call(t.Context(), Env{Stdin: strings.NewReader("sekret\n")}, "join", "cluster", "TOKEN=-", "ADDRESS=10.1.1.1:7000"); got.status != 0 ||
		joined.Token != "sekret" || joined.Addresses[0] != "10.1.1.1:7000" || !strings.Contains(got.out, "is a member of cluster c1") {
		t.Errorf("join: %d %q %+v", got.status, got.errors, joined)
	}
	if got := l.run("join", "cluster"); got.status != ExitMissing {
		t.Errorf("join without a token: %d", got.status)
	}
}

func TestLeave(t *testing.T) {
	l := newLab(t)
	if got := l.run("delete", "cluster"); got.status != ExitMissing {
		t.Errorf("unasked: %d %q", got.status, got.errors)
	}
	if got := l.run("-f", "delete", "cluster", "other"); got.status != ExitNotFound {
		t.Errorf("another name: %d", got.status)
	}
	l.backend.OnWait = func(uint64) {
		l.backend.Change(func(st *api.Status) { st.Cluster.State = api.ClusterNotConfigured })
	}
	if got := l.run("-f", "leave", "cluster"); got.status != 0 || got.out != "this node belongs to no cluster\n" {
		t.Errorf("leave: %d %q %q", got.status, got.out, got.errors)
	}
}

func TestQueries(t *testing.T) {
	l := newLab(t)
	for file, line := range map[string]string{
		"query-cluster.txt":   "-a CLUSTER_NAME,CLUSTER_ID,STATE,LEADER,QUORUM,NODES,TYPE,RG_SETTLING_TIME,UNSYNCED_CHANGES query cluster",
		"query-rg.txt":        "-a NAME,CURRENT_NODE,STATE,INSTANCES,NODES,STARTUP,FALLOVER,FALLBACK,SERVICE_LABEL q rg rg1",
		"query-rg-colon.txt":  "-c -a NAME,CURRENT_NODE,STATE q rg",
		"query-node-x.txt":    "-x -a name,state,raw_state query node node1,node2",
		"query-node-json.txt": "-o json -a NAME,ADDRESSES,LEASE_MARGIN query node node2",
		"query-all-nodes.txt": "-v -a NAME,STATE query node",
		"query-delimiter.txt": "-d | -S -a NAME,ADDRESSES query node",
		"query-names.txt":     "query resource_group",
		"query-matching.txt":  "-a NAME query resource_group STATE=ONLINE",
		"query-monitor.txt":   "-a NAME,TYPE,MONITORMETHOD,FAILUREACTION show application_monitor mon1",
	} {
		got := l.run(strings.Fields(line)...)
		if got.status != 0 {
			t.Errorf("%s: status %d, %q", line, got.status, got.errors)
		}
		golden(t, file, got.out)
	}
	for line, status := range map[string]int{
		"query rg rg9":                ExitNotFound,
		"-a NOSUCH query rg rg1":      ExitNotFound,
		"query rg NOSUCH=1":           ExitNotFound,
		"query rg STATE=ERROR":        ExitNoMatch,
		"query nosuch":                ExitNotFound,
		"query":                       ExitMissing,
		"query events KIND=nothing":   ExitNoMatch,
		"query events TAIL=0":         ExitIncorrect,
		"query events SINCE=tomorrow": ExitIncorrect,
		"query events COLOUR=red":     ExitNotFound,
	} {
		if got := l.run(strings.Fields(line)...); got.status != status || got.out != "" || got.errors == "" {
			t.Errorf("%s: status %d, want %d: %q %q", line, got.status, status, got.out, got.errors)
		}
	}
	if got := l.run("-a", "STATE", "query", "cluster"); got.out != "STATE=\"STABLE\"\n" {
		t.Errorf("got %q", got.out)
	}
}

func TestEvents(t *testing.T) {
	l := newLab(t)
	for _, k := range []string{"node_up", "node_down", "rg_move"} {
		l.backend.AddEvent(api.Event{Kind: k, Node: "node1", Sentence: "because of " + k + "\x1b[31m"})
	}
	got := l.run("query", "events", "KIND=node_*")
	if got.status != 0 || strings.Count(got.out, "\n") != 2 || strings.Contains(got.out, "\x1b") || strings.Contains(got.out, "rg_move") {
		t.Errorf("status %d, %q", got.status, got.out)
	}
	if got := l.run("query", "events", "TAIL=1"); !strings.Contains(got.out, "rg_move") || strings.Contains(got.out, "node_") {
		t.Errorf("tail: %q", got.out)
	}
	var list []api.Event
	if got := l.run("-o", "json", "query", "event"); json.Unmarshal([]byte(got.out), &list) != nil || len(list) != 3 {
		t.Errorf("json: %q", got.out)
	}
}

func TestWithoutACluster(t *testing.T) {
	l := newLab(t)
	l.backend.SetYAML("")
	l.backend.Change(func(st *api.Status) {
		*st = api.Status{Instance: st.Instance, Cluster: api.Cluster{State: api.ClusterNotConfigured}}
	})
	for _, line := range []string{"query cluster", "start cluster", "move rg rg1 NODE=node1", "add rg x NODES=node1", "export", "explain rg1", "add token node1"} {
		if got := l.run(strings.Fields(line)...); got.status != ExitDependency || !strings.Contains(got.errors, "no cluster") {
			t.Errorf("%s: status %d, %q", line, got.status, got.errors)
		}
	}
}

func TestNamesThatDoNotExistAreNotSent(t *testing.T) {
	l := newLab(t)
	for _, line := range []string{"move rg rg9 NODE=node1", "move rg rg1 NODE=node9", "online rg rg9", "offline rg rg1,rg9", "start node node9",
		"stop cluster NODES=node9", "start cluster c2", "clear rg rg9", "clear node node9", "suspend rg rg9", "-f confirm node_down node9", "unset priority rg9",
		"explain rg9", "add token node9"} {
		if got := l.run(strings.Fields(line)...); got.status != ExitNotFound || got.errors == "" {
			t.Errorf("%s: status %d, %q", line, got.status, got.errors)
		}
	}
	if n := len(l.backend.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if got := l.run("move", "rg", "rg1", "NODE=nod2"); !strings.Contains(got.errors, `did you mean "node2"`) {
		t.Errorf("no hint: %q", got.errors)
	}
}

func TestLogs(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(l.logs, "adm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.log"), []byte("one\nTwo\nthree\x1b[2J\n"+strings.Repeat("x", 2<<20)+"\nlast"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"view log cluster.log HEAD=2":                         "one\nTwo\n",
		"view log cluster.log TAIL=1":                         "last\n",
		"view log CLUSTER.LOG FILTER=^t":                      "three?[2J\n",
		"view log cluster.log FILTER=^t CASE=insensitive":     "Two\nthree?[2J\n",
		"vi lo cluster.log FILTER=t$ TAIL=5 CASE=insensitive": "last\n",
	} {
		if got := l.run(strings.Fields(line)...); got.status != 0 || got.out != want {
			t.Errorf("%s: %d %q %q", line, got.status, got.out, got.errors)
		}
	}
	for line, status := range map[string]int{
		"view log nosuch": ExitNotFound, "view log clstrmgr.debug": ExitNotFound, "view log cluster.log HEAD=x": ExitIncorrect,
		"view log cluster.log FILTER=(": ExitIncorrect, "view log cluster.log HEAD=1 TAIL=1": ExitIncorrect,
	} {
		if got := l.run(strings.Fields(line)...); got.status != status {
			t.Errorf("%s: %d %q", line, got.status, got.errors)
		}
	}
	if got := l.run("view", "log"); got.status != 0 || !strings.Contains(got.out, "clutils.log") {
		t.Errorf("list: %q", got.out)
	}
}

func TestCallsAreRecordedWithoutSecrets(t *testing.T) {
	l := newLab(t)
	if err := os.MkdirAll(filepath.Join(l.logs, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.run("-T", "job7", "join", "cluster", "TOKEN=sekret")
	l.run("query", "rg", "nosuch")
	b, err := os.ReadFile(filepath.Join(l.logs, "log", "clutils.log"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{"[job7] root: start: clmgr join cluster TOKEN=***", "[job7] root: end: status 0", "start: clmgr query rg nosuch", "end: status 2"} {
		if os.Geteuid() == 0 && !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "sekret") {
		t.Error("the record holds a token")
	}
}

func TestSimulateHook(t *testing.T) {
	l := newLab(t)
	var seen Simulation
	env := Env{Simulate: func(_ context.Context, s Simulation) int { seen = s; return 1 }}
	if got := l.call(t.Context(), env, "simulate", "f.yaml", "-o", "json"); got.status != 1 || got.errors != "" || seen.File != "f.yaml" || !seen.JSON {
		t.Errorf("%d %q %+v", got.status, got.errors, seen)
	}
	if got := l.call(t.Context(), env, "simulate", "--live", "crash node1", "measure node2 cpu=90", "wait 10m"); got.status != 1 || seen.File != "" ||
		!slices.Equal(seen.Live, []string{"crash node1", "measure node2 cpu=90", "wait 10m"}) {
		t.Errorf("%d %q %+v", got.status, got.errors, seen)
	}
	if got := l.call(t.Context(), env, "simulate", "f.yaml", "g.yaml"); got.status != int(ExitIncorrect) {
		t.Errorf("two files: %d %q", got.status, got.errors)
	}
	if got := l.run("simulate", "f.yaml"); got.status != 1 || !strings.Contains(got.errors, "not built in") {
		t.Errorf("%d %q", got.status, got.errors)
	}
}
