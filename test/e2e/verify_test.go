//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Faults are planted on one node, and the verification that another node asks for must name each of them there.

// verifyReport asks for a verification and reads its report.
func (w *world) verifyReport(node string, args ...string) (api.VerifyReport, int) {
	w.t.Helper()
	r := w.run(node, append([]string{"clmgr", "-o", "json", "verify", "cluster"}, args...)...)
	var v api.VerifyReport
	if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
		w.t.Fatalf("verify on %s: %v: %s%s", node, err, r.Stdout, r.Stderr)
	}
	return v, r.Code
}

// sees reports whether the check has found something on the node.
func sees(v *api.VerifyReport, check, node string) *api.Finding {
	for i := range v.Findings {
		if f := &v.Findings[i]; f.Check == check && f.Node == node {
			return f
		}
	}
	return nil
}

const script = "#!/bin/sh\nexit 0\n"

func TestVerificationNamesEachFault(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{fence: true, noWatch: true, more: `
methods:
  - {name: backup_ran, file: /ha/backup_ran}
  - {name: plain, file: /ha/plain}
  - {name: script, file: /ha/script}
  - {name: same, file: /ha/same}
  - {name: head, file: /ha/head}
  - {name: gone, file: /ha/gone}
  - {name: open, file: /ha/open}
`})
	for _, n := range w.nodes {
		w.must(n, "sh", "-c", `mkdir -p /ha && cd /ha && for f in backup_ran plain script same head gone open; do printf '`+strings.ReplaceAll(script, "\n", `\n`)+`' > $f; chmod 755 $f; done`)
	}
	const asked, bad = "node1", "node2"
	if v, code := w.verifyReport(asked); code != 0 || v.Failed() || len(v.Nodes) != 3 || v.Checks < 60 {
		t.Fatalf("before anything is planted: status %d, %d checks, %+v", code, v.Checks, v.Findings)
	}
	// What is planted on node2, and which check must name it there.
	planted := []struct{ check, command string }{
		{"V1202", "chmod 644 /ha/script"},
		{"V1204", "echo '# another' >> /ha/same"},
		{"V1205", `printf '#!/bin/sh\r\nexit 0\r\n' > /ha/head`},
		{"V1201", "rm /ha/gone"},
		{"V1203", "chmod 777 /ha/open"},
		{"V2701", `printf '#!/bin/sh\necho the backup is 3 days old\nexit 1\n' > /ha/backup_ran`},
		{"V2604", "chmod 640 /var/lib/holdfast/identity/node-key.pem"},
		{"V0303", "ip address add " + service + "/24 dev eth0"},
		{"V0604", "ip link set eth0 mtu 1400"},
		{"V0601", "printf '127.0.0.1 localhost\\n10.77.1.99 app_svc\\n' > /etc/hosts"},
	}
	for _, p := range planted {
		w.must(bad, "sh", "-c", p.command)
	}
	// Names are remembered for some seconds by the resolver of each node's daemon.
	var v api.VerifyReport
	var code int
	w.await("a verification that sees the changed host file", func() string {
		if v, code = w.verifyReport(asked); sees(&v, "V0601", bad) == nil {
			return "V0601 is not found"
		}
		return ""
	})
	if code != 1 {
		t.Errorf("status %d for a verification with errors", code)
	}
	for _, p := range planted {
		f := sees(&v, p.check, bad)
		if f == nil {
			t.Errorf("%s does not name %s after: %s", p.check, bad, p.command)
			continue
		}
		t.Logf("%s %s: %s: %s", f.Check, f.Node, f.Object, f.Saw)
		if other := sees(&v, p.check, asked); other != nil && p.check != "V0601" {
			t.Errorf("%s names the healthy node too: %s", p.check, other.Saw)
		}
	}
	if f := sees(&v, "V2701", bad); f != nil && !strings.Contains(f.Saw, "3 days old") {
		t.Errorf("what the method said is lost: %q", f.Saw)
	}
	// What is safe is repaired, on the node where it is.
	fixed, _ := w.verifyReport(asked, "FIX=yes")
	for _, check := range []string{"V1202", "V1203", "V2604"} {
		if f := sees(&fixed, check, bad); f != nil {
			t.Errorf("after FIX=yes %s still sees: %s", check, f.Saw)
		}
		if !slices.ContainsFunc(fixed.Fixed, func(s string) bool { return strings.Contains(s, check) && strings.HasPrefix(s, bad+":") }) {
			t.Errorf("nothing says what was done about %s: %q", check, fixed.Fixed)
		}
	}
	if mode := w.must(bad, "stat", "-c", "%a", "/ha/open", "/ha/script", "/var/lib/holdfast/identity/node-key.pem"); mode != "755\n755\n600\n" {
		t.Errorf("the modes are %q", mode)
	}
	// The log has it in the form that scripts look for.
	if log := w.must(asked, "cat", "/var/log/holdfast/clverify/clverify.log"); !strings.Contains(log, "Check: FAILED") || !strings.Contains(log, "Check: PASSED") ||
		!strings.Contains(log, "ERROR V1201 "+bad) {
		t.Errorf("clverify.log:\n%s", log)
	}
	w.must(bad, "sh", "-c", "ip address del "+service+"/24 dev eth0; ip link set eth0 mtu 1500")
}

// A node that does not answer is an error of its own, and is named.
func TestVerificationOfASilentNode(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	from := w.other(w.online(group))
	victim := w.other(w.online(group), from)
	check(t, w.Crash(w.ctx(), victim))
	v, code := w.verifyReport(from)
	if code != 1 || sees(&v, "V0201", victim) == nil {
		t.Errorf("status %d, %+v", code, v.Findings)
	}
	if v.TookSeconds > 30 {
		t.Errorf("it waited %.0f s for a dead node", v.TookSeconds)
	}
}

// What changes between two looks is told once, as is that it is gone; what does not change is not told.
func TestDriftIsTold(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{settings: "verification_interval: 10s", more: "\nmethods:\n  - {name: m, file: /ha/m}\n"})
	for _, n := range w.nodes {
		w.must(n, "sh", "-c", `mkdir -p /ha && printf '`+strings.ReplaceAll(script, "\n", `\n`)+`' > /ha/m && chmod 755 /ha/m`)
	}
	told := func(what string) (n int) {
		for _, e := range w.events(0) {
			if e.Kind == "verification" && strings.Contains(e.Sentence, what) {
				n++
			}
		}
		return n
	}
	// The leader's first look only learns; what changes after it is told.
	leader := w.leader()
	w.await("the first look", func() string {
		if strings.Contains(w.run(leader, "cat", "/var/log/holdfast/clverify/clverify.log").Stdout, "the look for drift") {
			return ""
		}
		return "the log has none"
	})
	w.must("node2", "sh", "-c", "echo '# another' >> /ha/m")
	w.await("an event about the script that changed", func() string {
		if told("new: WARNING V1204") > 0 {
			return ""
		}
		return "no event"
	})
	w.must("node2", "sh", "-c", `printf '`+strings.ReplaceAll(script, "\n", `\n`)+`' > /ha/m`)
	w.await("an event that it is gone", func() string {
		if told("gone: WARNING V1204") > 0 {
			return ""
		}
		return "no event"
	})
	if n := told("new: WARNING V1204"); n != 1 {
		t.Errorf("one drift was told %d times", n)
	}
}

// A viewer makes no node run anything.
func TestVerificationRoles(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	r := w.run("node1", "setpriv", "--reuid=7500", "--regid=7500", "--clear-groups", program("clmgr"), "verify", "cluster")
	if r.Code != 1 || !strings.Contains(r.Stderr, "may only view") {
		t.Errorf("as a viewer: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// Every attempted change is on record, with who asked where and what became of it, and any node shows the records of all.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := begin(t, setup{})
	w.online(group)
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	w.clmgr("node2", "modify", "resource_group", group, "PRIORITY=3")
	r := w.run("node3", "setpriv", "--reuid=7500", "--regid=7500", "--clear-groups", program("clmgr"), "offline", "resource_group", group)
	if r.Code != 1 || !strings.Contains(r.Stderr, "may only view") {
		t.Fatalf("as a viewer: %d %s", r.Code, r.Stderr)
	}
	var list []api.AuditRecord
	check(t, json.Unmarshal([]byte(w.clmgr("node1", "-o", "json", "query", "audit")), &list))
	index := w.view().Cluster.AppliedIndex
	var changed, refused bool
	for _, x := range list {
		if x.Node == "node2" && x.User == "root" && x.Result == "done" && strings.Contains(x.What, "modify resource_group app_rg") && x.Index > 0 && x.Index <= index {
			changed = true
		}
		if x.Node == "node3" && x.UID == 7500 && x.Result == "forbidden" && x.Call == "POST /v1/requests" && strings.Contains(x.Detail, "may only view") && x.Index == 0 {
			refused = true
		}
	}
	if !changed || !refused {
		t.Errorf("the change is on record: %t, the refused attempt: %t\n%+v", changed, refused, list)
	}
	if mode := w.must("node2", "stat", "-c", "%a %U", "/var/log/holdfast/adm/audit.log"); mode != "640 root\n" {
		t.Errorf("mode and owner %q", mode)
	}
}
