package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

var ticked = regexp.MustCompile("`([^`]+)`")

// TestMigrationPage: each command that the page shows exists with its words, and ends as the page says.
func TestMigrationPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(line, "`clmgr ") {
			continue
		}
		how := strings.TrimSpace(cells[3])
		for _, m := range ticked.FindAllStringSubmatch(cells[1], -1) {
			if !strings.HasPrefix(m[1], "clmgr ") || how == "other" {
				continue
			}
			looked++
			notices, err := understood(t, m[1])
			switch {
			case how == "refused" && err == nil:
				t.Errorf("%s: is said to be refused, and is not", m[1])
			case how == "same" && (err != nil || notices != ""):
				t.Errorf("%s: is said to work as it stands: %v %s", m[1], err, notices)
			case how == "notice" && (err != nil || notices == ""):
				t.Errorf("%s: is said to work with a notice: %v %q", m[1], err, notices)
			}
		}
		for _, m := range ticked.FindAllStringSubmatch(cells[2], -1) {
			if !strings.HasPrefix(m[1], "clmgr ") {
				continue
			}
			looked++
			if notices, err := understood(t, m[1]); err != nil || notices != "" && how != "notice" {
				t.Errorf("%s: %v %s", m[1], err, notices)
			}
		}
	}
	if looked < 90 {
		t.Errorf("only %d commands were found in the page", looked)
	}
}

// understood parses a command line and checks all its words, and runs nothing. It returns the notices.
func understood(t *testing.T, line string) (string, error) {
	t.Helper()
	words, err := cluster.SplitCommand(line)
	if err != nil {
		return "", err
	}
	c, err := parse(words[1:])
	if err != nil || c.help || isHelp(c.words[0]) {
		return "", err
	}
	var notices strings.Builder
	s := &session{command: c, env: Env{Stderr: &notices}}
	a, err := findAction(c.words[0])
	if err != nil {
		return "", err
	}
	tg, err := a.target(c.words[1:])
	if err != nil {
		return "", err
	}
	if err := s.foreignAttributes(tg); err != nil {
		return "", err
	}
	if err := s.checkOptions(tg); err != nil {
		return "", err
	}
	if tg.setsAttributes() && tg.class != nil && a.name != "query" {
		err = tg.knownAttributes(s.set)
	}
	return notices.String(), err
}

// TestPowerHASession types a session of PowerHA as it stands, on a cluster that has its nodes.
func TestPowerHASession(t *testing.T) {
	l := newLab(t)
	l.backend.SetYAML(`name: c1
nodes:
  - {name: node1, addresses: {net_ether_01: 10.1.1.1/24}}
  - {name: node2, addresses: {net_ether_01: 10.1.1.2/24}}
  - {name: node3, addresses: {net_ether_01: 10.1.1.3/24}}
networks: [net_ether_01]
`)
	for _, line := range []string{
		"add service_ip svc1 NETWORK=net_ether_01",
		"add application_controller app1 STARTSCRIPT=/ha/start STOPSCRIPT=/ha/stop STARTUP_MODE=foreground",
		"add application_monitor app1_mon TYPE=Custom MODE=both MONITORMETHOD=/ha/mon MONITORINTERVAL=30 " +
			"STABILIZATION=60 RESTARTCOUNT=3 FAILUREACTION=fallover APPLICATIONS=app1",
		"add volume_group datavg", // the only line that PowerHA does not need
		"add resource_group rg1 NODES=node1,node2 STARTUP=OHN FALLOVER=FNPN FALLBACK=NFB SERVICE_LABEL=svc1 APPLICATIONS=app1 VOLUME_GROUP=datavg",
		"-a STATE,RAW_STATE query node node1",
	} {
		if got := l.run(strings.Fields(line)...); got.status != ExitOK {
			t.Errorf("%s: %d %s", line, got.status, got.errors)
		}
	}
	if s := l.def().ServiceIP("svc1"); s == nil || s.Address != "10.1.1.10" {
		t.Errorf("the name was not resolved: %+v", s)
	}
	if got := l.run("add", "sip", "nobody", "NETWORK=net_ether_01"); got.status != ExitMissing || !strings.Contains(got.errors, "ADDRESS is needed") ||
		!strings.Contains(got.errors, "cannot be resolved here") {
		t.Errorf("%+v", got)
	}
}
