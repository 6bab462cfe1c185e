//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

var handovers = flag.Int("handovers", 3, "TestPostgres: how many planned moves, and as many crashes")

// postgresGroup is a database as it is usually run: a service IP, a file system of its own, the server by its OCF agent.
const postgresGroup = `service_ips:
  - {name: db_svc, address: 10.77.1.100, network: net1}
file_systems:
  - {name: db_fs, device: /shared/pg.img, mount_point: /pgdata, type: ext4, options: loop}
application_controllers:
  - name: db
    agent: ocf:heartbeat:pgsql
    params: {pgctl: BIN/pg_ctl, psql: BIN/psql, pgdata: /pgdata/db, socketdir: /run/postgresql, logfile: /pgdata/db/log, start_opt: "-p 5432"}
    monitors: [db_mon]
application_monitors:
  - {name: db_mon, type: agent, monitor_interval: 5s, failure_action: fallover}
resource_groups:
  - {name: app_rg, nodes: [node1, node2, node3], startup: OHN, fallover: FNPN, fallback: NFB, service_ips: [db_svc], file_systems: [db_fs], applications: [db]}
`

// writer is the client's program: one row, one transaction, one connection at a time, for ever. It says what was acknowledged.
const writer = `n=0
export PGCONNECT_TIMEOUT=2
while :; do
  n=$((n+1))
  if out=$(timeout 3 BIN/psql -h 10.77.1.100 -U postgres -d postgres -qAt -v ON_ERROR_STOP=1 -c "insert into rows values ($n) returning n" 2>/dev/null) && [ "$out" = "$n" ]; then
    echo "ack $n"
  else
    echo "no $n"
    sleep 0.02
  fi
done`

// A database is moved and its nodes crash under a client that writes all the time: what was acknowledged is there.
func TestPostgres(t *testing.T) {
	long(t)
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Skip("not installed: postgresql")
	}
	bin := bins[len(bins)-1]
	need(t, agentDir+"pgsql", "mkfs.ext4")
	w := begin(t, setup{profile: "fast", fence: true, body: strings.ReplaceAll(postgresGroup, "BIN", bin), files: []string{databaseImage(t, bin)}})
	sql := func(query string) string {
		return w.must(lab.ClientNode, bin+"/psql", "-h", "10.77.1.100", "-U", "postgres", "-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", query)
	}
	w.online(group)
	sql("create table rows (n bigint primary key, at timestamptz default clock_timestamp())")
	c := w.write(strings.ReplaceAll(writer, "BIN", bin))
	c.await(t, 1)
	took := map[string][]time.Duration{}
	for i := range 2 * *handovers {
		w.whole()
		on := w.online(group)
		before := c.await(t, 20)
		kind := "planned move"
		if i%2 == 0 {
			w.clmgr(w.other(on), "move", "resource_group", group, "NODE="+w.other(on))
		} else {
			kind = "crash"
			check(t, w.Crash(w.ctx(), on))
			w.elsewhere(on)
		}
		c.await(t, 20)
		took[kind] = append(took[kind], c.longestSince(before))
		if kind == "crash" {
			check(t, w.Boot(w.ctx(), on))
		}
	}
	acknowledged, asked := c.stop()
	there := map[string]bool{}
	for row := range strings.FieldsSeq(sql("select n from rows")) {
		there[row] = true
	}
	lost := 0
	for _, a := range acknowledged {
		if !there[strconv.Itoa(a.n)] {
			lost++
			t.Errorf("row %d was acknowledged at %s and is not there", a.n, a.at.Format("15:04:05.000"))
		}
	}
	t.Logf("%d rows were asked for, %d acknowledged, %d of them lost, %d in the table", asked, len(acknowledged), lost, len(there))
	for _, kind := range []string{"planned move", "crash"} {
		t.Logf("%d x %s: between two acknowledged rows %s", len(took[kind]), kind, spread(took[kind]))
	}
	if d := sql("select count(*) - count(distinct n) from rows"); strings.TrimSpace(d) != "0" {
		t.Errorf("rows there twice: %s", d)
	}
}

// databaseImage makes an ext4 file system with a new database in it.
func databaseImage(t *testing.T, bin string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "pg.img")
	script := fmt.Sprintf(`set -e
truncate -s 400M %[1]s
mkfs.ext4 -q -F %[1]s
mount -o loop %[1]s /mnt
mkdir -m 700 /mnt/db
chown postgres /mnt/db
cd /
su postgres -c '%[2]s/initdb -D /mnt/db -A trust --no-sync' >/dev/null
printf "listen_addresses = '*'\nunix_socket_directories = '/run/postgresql'\nmax_wal_size = 64MB\n" >>/mnt/db/postgresql.conf
echo "host all all 10.77.0.0/16 trust" >>/mnt/db/pg_hba.conf
umount /mnt`, image, bin)
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("make a database: %v\n%s", err, out)
	}
	return image
}

// A writing is a client that writes.
type writing struct {
	cancel context.CancelFunc
	done   chan error

	mu    sync.Mutex
	acks  []ack
	asked int
}

// An ack is one row that the database has acknowledged.
type ack struct {
	n  int
	at time.Time
}

// write starts the client beside the nodes.
func (w *world) write(script string) *writing {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &writing{cancel: cancel, done: make(chan error, 1)}
	r, out, err := os.Pipe()
	check(w.t, err)
	go func() {
		_, err := lab.Client{Dir: w.Dir}.Exec(ctx, lab.ClientNode, []string{"/bin/sh", "-c", script}, lab.ExecOptions{Stdout: out, Stderr: os.Stderr})
		c.done <- errors.Join(err, out.Close())
	}()
	go c.read(r)
	w.t.Cleanup(cancel)
	return c
}

func (c *writing) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		what, number, _ := strings.Cut(s.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		c.mu.Lock()
		c.asked = n
		if what == "ack" {
			c.acks = append(c.acks, ack{n, time.Now()})
		}
		c.mu.Unlock()
	}
}

// await waits for so many more acknowledged rows, and returns how many there are.
func (c *writing) await(t *testing.T, more int) int {
	t.Helper()
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acks)
	}
	want := count() + more
	for end := time.Now().Add(patience); count() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the client waits for %d more acknowledged rows for %v", more, patience)
		}
	}
	return count()
}

// longestSince is the longest time between two acknowledged rows since the nth.
func (c *writing) longestSince(n int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var longest time.Duration
	for i := max(1, n); i < len(c.acks); i++ {
		longest = max(longest, c.acks[i].at.Sub(c.acks[i-1].at))
	}
	return longest
}

// stop ends the client and returns what it was told.
func (c *writing) stop() (acknowledged []ack, asked int) {
	c.cancel()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.acks), c.asked
}
