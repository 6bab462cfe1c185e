//go:build linux

package e2e

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// backup is the file of the second volume.
const backup = "/shared/backup.vol"

// The volume in use becomes unusable for all processes of both nodes: its backup takes its place by itself, and no group moves. The old one's
// return changes nothing. Then a node is switched off, and the other goes on by the new one's vote.
func TestTwoNodesBackupTakesOver(t *testing.T) {
	long(t)
	t.Parallel()
	w := begin(t, setup{nodes: 2, profile: "fast", noAutoBoot: true})
	w.ask()
	w.whole()
	w.must("node1", "truncate", "-s", "64M", backup)
	w.clmgr("node2", "add", "repository", backup)
	w.clmgr("node1", "modify", "cluster", "REPOSITORY_LOSS_TIME=5")
	t.Logf("%s", w.clmgr("node1", "-f", "format", "repository", "backup.vol"))
	w.await("all nodes see the backup", func() string {
		st := w.view()
		if st == nil || len(st.Cluster.Backups) != 1 || st.Cluster.Backups[0].State != api.BackupUsable {
			return "not yet"
		}
		return ""
	})
	w.refused("node1", 1, []string{"formatted already"}, "-f", "format", "repository", "backup.vol")
	t.Logf("%s", w.clmgr("node1", "query", "repository", "-a", "STATE", "repo,backup.vol"))
	on := w.online(group)
	pid := w.appPID(on)
	since := w.lastEvent()

	// What lies there is overwritten: open files and new ones find no volume any more.
	w.must("node1", "sh", "-c", "cp "+volume+" /shared/kept && dd if=/dev/urandom of="+volume+" bs=1M count=$(($(stat -c %s "+volume+") / 1048576)) conv=notrunc 2>/dev/null")
	w.await("the backup has taken its place", func() string {
		st := w.view()
		if st == nil || st.Cluster.Repository == nil {
			return "no status"
		}
		r := st.Cluster.Repository
		if r.Name != "backup.vol" || !r.Voter || len(r.Leaving) > 0 {
			return r.Name + ": " + r.Sentence
		}
		return ""
	})
	w.whole()
	w.timeline(since)
	told := w.clmgr("node2", "query", "events")
	if n := strings.Count(told, "repository_replaced"); n != 1 {
		t.Errorf("the history tells %d times of it:\n%s", n, told)
	}
	w.must("node2", "sh", "-c", "cat /shared/kept > "+volume) // it comes back as it was
	for _, n := range w.nodes {
		w.reachesVolume(n)
		t.Logf("%s: %s", n, w.clmgr(n, "query", "cluster", "-a", "REPOSITORY,REPOSITORY_BACKUPS,WARNINGS"))
	}
	w.whole()
	if now := w.online(group); now != on || w.appPID(now) != pid {
		t.Errorf("the group was on %s (process %s), is on %s (process %s)", on, pid, now, w.appPID(now))
	}
	for _, o := range w.outages() {
		t.Errorf("the client saw an outage of %v", o.Length)
	}
	w.ask()
	check(t, w.Crash(w.ctx(), on))
	w.answersFrom(w.elsewhere(on))
	if st := w.view(); st == nil || st.Cluster.Repository == nil || st.Cluster.Repository.Name != "backup.vol" || !st.Cluster.Repository.Alive {
		t.Errorf("who goes on uses another volume: %+v", st)
	}
}
