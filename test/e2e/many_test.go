//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Twenty addresses and twenty file systems come up side by side; one file system lies inside another. The times of both ways are
// printed.
func TestManyResourcesAtOnce(t *testing.T) {
	long(t)
	t.Parallel()
	need(t, "mkfs.ext4")
	const n = 20
	var ips, fss, names, mounts, files []string
	dir := t.TempDir()
	for i := range n {
		image := filepath.Join(dir, fmt.Sprintf("fs%d.img", i))
		if out, err := exec.CommandContext(t.Context(), "sh", "-ec", "truncate -s 8M "+image+"; mkfs.ext4 -q -F "+image).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		files = append(files, image)
		point := fmt.Sprintf("/data/fs%d", i)
		if i == 0 {
			point = "/data/fs1/inside" // listed first, and mounted after the one that it lies in
		}
		ips = append(ips, fmt.Sprintf("  - {name: ip%d, address: 10.77.1.%d, network: net1}\n", i, 150+i))
		fss = append(fss, fmt.Sprintf("  - {name: fs%d, device: /shared/fs%d.img, mount_point: %s, type: ext4, options: loop}\n", i, i, point))
		names, mounts = append(names, fmt.Sprintf("ip%d", i)), append(mounts, fmt.Sprintf("fs%d", i))
	}
	body := "service_ips:\n" + strings.Join(ips, "") + "file_systems:\n" + strings.Join(fss, "") +
		fmt.Sprintf("resource_groups:\n  - {name: app_rg, nodes: [node1, node2, node3], startup: OHN, fallover: FNPN, fallback: NFB, service_ips: %s, file_systems: %s}\n",
			flow(names), flow(mounts))
	w := begin(t, setup{fence: true, body: body, files: files})
	for _, method := range []string{"parallel", "sequential", "parallel"} {
		on := w.online(group)
		w.clmgr(on, "modify", "resource_group", group, "RECOVERY_METHOD="+method)
		since, to := w.lastEvent(), w.other(on)
		w.clmgr(on, "move", "resource_group", group, "NODE="+to)
		w.onlineOn(group, to)
		begun, done := w.happened(since, "rg_move_acquire", ""), w.happened(since, "rg_move_complete", to)
		t.Logf("%s: %d addresses and %d file systems acquired in %v", method, n, n, done.Time.Sub(begun.Time).Round(time.Millisecond))
		out := w.must(to, "sh", "-c", "cat /proc/self/mounts; ip -4 addr")
		if strings.Count(out, " /data/") != n || strings.Count(out, "10.77.1.1") < n {
			t.Errorf("%s has not all of it:\n%s", to, out)
		}
		if out := w.must(on, "sh", "-c", "cat /proc/self/mounts; ip -4 addr"); strings.Contains(out, " /data/") || strings.Contains(out, "10.77.1.15") {
			t.Errorf("%s still has something of it:\n%s", on, out)
		}
	}
}

// manyNodes is as large a cluster as one machine takes; its group may run on three of the nodes.
var manyNodes = setup{nodes: 32, noWatch: true, nodeOrder: []string{"node1", "node2", "node3"}, fence: true}

// Thirty-two nodes form one cluster on one machine, stay together, and a failover and a rejoin work.
func TestThirtyTwoNodes(t *testing.T) {
	long(t)
	s := manyNodes
	s.profile = "careful" // 32 daemons on two cores: what is tried is that they work together, not how soon they despair of each other
	w := begin(t, s)
	w.ask()
	w.whole()
	since := w.lastEvent()
	time.Sleep(5 * time.Second) // nothing is to happen now: there is no condition to wait for
	for _, e := range w.events(since) {
		if e.ID > since && (e.Kind == "node_dead" || e.Kind == "rg_move_acquire") {
			t.Errorf("nobody has done anything, and yet: %s %s", e.Kind, e.Sentence)
		}
	}
	on := w.online(group)
	check(t, w.Crash(w.ctx(), on))
	w.answersFrom(w.elsewhere(on))
	t.Logf("failover with 32 nodes: outage %.3f s", w.lastOutage(on).Seconds())
	check(t, w.PowerOn(w.ctx(), on))
	w.nodesAre(api.NodeNormal)
}
