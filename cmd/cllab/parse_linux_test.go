package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/lab"
)

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mount{
		`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`:   {"36", "98:0", "/mnt1", "/mnt2", "ext3", "/dev/root"},
		`36 35 0:5 / /a\040b\011c\134d rw shared:1 master:2 propagate_from:3 - tmpfs x rw`: {"36", "0:5", "/", "/a b\tc\\d", "tmpfs", "x"},
		`36 35 0:5 / /p rw - fuse.x y rw`:                                                  {"36", "0:5", "/", "/p", "fuse.x", "y"},
	} {
		if got, ok := parseMount(line); !ok || got != want {
			t.Errorf("%s: %+v %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "36 35 98:0 / / rw", "36 35 98:0 / rw - ext4 x", " - "} {
		if got, ok := parseMount(line); ok {
			t.Errorf("%q: taken for %+v", line, got)
		}
	}
}

func TestLocalAddresses(t *testing.T) {
	const fib = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.77.1.0
        /24 link UNICAST
     |-- 10.77.1.1
        /32 host LOCAL
     |-- 10.77.1.255
        /32 link BROADCAST
        +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
Local:
     |-- 10.77.1.1
        /32 host LOCAL
     |-- 192.168.7.9
        /32 host LOCAL
`
	if got := localAddresses([]byte(fib)); !slices.Equal(got, []string{"10.77.1.1", "192.168.7.9"}) {
		t.Errorf("%v", got)
	}
}

func TestInet6Addresses(t *testing.T) {
	const text = `00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000006866fffe000101 02 40 20 80     eth0
fd000000000000000000000000000005 02 40 00 80     eth0
fd000000000000000000000000000006 02 40 00 c0     eth0
fd000000000000000000000000000007 02 40 00 88     eth0
nonsense
`
	if got := inet6Addresses([]byte(text)); !slices.Equal(got, []string{"fd00::5"}) {
		t.Errorf("%v: want the one that is neither local, nor tentative, nor a duplicate", got)
	}
}

func TestParseLock(t *testing.T) {
	for line, want := range map[string]lockLine{
		"1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF":    {id: "1:", write: true, pid: 123, dev: "fe:00", inode: "456"},
		"1: -> FLOCK  ADVISORY  WRITE 124 fe:00:456 0 EOF": {id: "1:", waiting: true, write: true, pid: 124, dev: "fe:00", inode: "456"},
		"2: POSIX  ADVISORY  READ 9 00:16:7 0 10":          {id: "2:", pid: 9, dev: "00:16", inode: "7"},
	} {
		if got, ok := parseLock(line); !ok || got != want {
			t.Errorf("%s: %+v %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "1:", "1: ->", "1: FLOCK ADVISORY WRITE x fe:00:1 0 EOF", "1: FLOCK ADVISORY WRITE 1 fe:00 0 EOF"} {
		if got, ok := parseLock(line); ok {
			t.Errorf("%q: taken for %+v", line, got)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("36 35 98:0 / /mnt\\040x rw - ext4 /dev/x rw")
	f.Add("1: -> FLOCK  ADVISORY  WRITE 124 fe:00:456 0 EOF")
	f.Add("|-- 10.1.1.1\n/32 host LOCAL\n")
	f.Add("fd000000000000000000000000000005 02 40 00 80     eth0")
	f.Add("node=n pid=1 count=2 echo=node=x")
	f.Fuzz(func(t *testing.T, s string) {
		if m, ok := parseMount(s); ok && (m.id == "" || m.point == "" && !strings.Contains(s, `\`)) {
			t.Errorf("%q: %+v", s, m)
		}
		if l, ok := parseLock(s); ok && l.id == "" {
			t.Errorf("%q: %+v", s, l)
		}
		for _, a := range inet6Addresses([]byte(s)) {
			if net.ParseIP(a) == nil {
				t.Errorf("%q gives the address %q", s, a)
			}
		}
		localAddresses([]byte(s))
		parseAnswer(s)
	})
}

func TestParseAnswer(t *testing.T) {
	want := lab.Answerer{Node: "node1", PID: 12, Count: 34}
	if got := parseAnswer("node=node1 pid=12 count=34 echo=probe node=node9\n"); got != want {
		t.Errorf("%+v", got)
	}
	if got := parseAnswer("HTTP/1.1 400 Bad Request\n"); got != (lab.Answerer{}) {
		t.Errorf("%+v", got)
	}
}

func TestChangeOfCable(t *testing.T) {
	req := func(op, direction string) lab.Request { return lab.Request{Op: op, Direction: direction} }
	for _, c := range []struct {
		steps []lab.Request
		want  cable
	}{
		{[]lab.Request{req(lab.OpCut, "")}, cable{cutIn: true, cutOut: true}},
		{[]lab.Request{req(lab.OpCut, "in"), req(lab.OpUnplug, "")}, cable{cutIn: true, unplugged: true}},
		{[]lab.Request{req(lab.OpCut, "in"), req(lab.OpCut, "out"), req(lab.OpHeal, "")}, cable{}},
	} {
		var got cable
		for _, s := range c.steps {
			var err error
			if got, err = change(got, s); err != nil {
				t.Fatal(err)
			}
		}
		if got != c.want {
			t.Errorf("%+v: %+v", c.steps, got)
		}
	}
	if _, err := change(cable{}, req(lab.OpCut, "sideways")); err == nil {
		t.Error("sideways was taken")
	}
}

func TestMerge(t *testing.T) {
	got := merge([]string{"A=1", "AB=2", "C=3"}, []string{"A=9", "D=4"})
	if !slices.Equal(got, []string{"AB=2", "C=3", "A=9", "D=4"}) {
		t.Errorf("%v", got)
	}
}

// What the lab writes for the product must be what the product reads.
func TestFilesForTheProduct(t *testing.T) {
	cfg := &lab.Config{Name: "lab", Nodes: 3, Networks: 2, Subnet: "10.9", Profile: "fast", Fence: true}
	n, err := config.DecodeNode("node.yaml", []byte(nodeFile(cfg, 3)))
	if err != nil {
		t.Fatal(err)
	}
	if n.Name != "node3" || !slices.Equal(n.Listen, []string{"10.9.1.3", "10.9.2.3"}) || n.BootIDFile != "/run/holdfast/boot_id" ||
		n.Deadman.Backend != config.BackendLab || n.Deadman.Device != "/run/holdfast/watchdog.sock" {
		t.Errorf("%+v", n)
	}
	d, err := config.DecodeCluster("cluster.yaml", []byte(clusterText(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Nodes) != 3 || len(d.Networks) != 2 || len(d.FenceDevices) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestDemoFileIsRight(t *testing.T) {
	b, err := os.ReadFile("../../deploy/lab/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.DecodeCluster("demo.yaml", []byte(strings.ReplaceAll(string(b), "@BIN@", "/usr/sbin"))); err != nil {
		t.Error(err)
	}
}

func TestFenceOptions(t *testing.T) {
	read := func(text string) (*fenceOptions, error) { return readFenceOptions(strings.NewReader(text)) }
	o, err := read("# comment\n\naction = off\nplug=\"node1\"\nnodename=node9\nverbose=1\npower_timeout=1.5\nno equals sign\n")
	want := &fenceOptions{action: "off", plug: "node1", socket: powerSocket, timeout: 1500 * time.Millisecond}
	if err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := read("port=node2\n"); err != nil || o.action != "reboot" || o.plug != "node2" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, text := range []string{"power_timeout=soon", "power_timeout=-1", "power_timeout=0", "power_timeout=99999", "x=" + strings.Repeat("y", 70<<10)} {
		if o, err := read(text); err == nil {
			t.Errorf("%.40s: taken as %+v", text, o)
		}
	}
}

// The agent's word is what the switch said: silence and nonsense are failures, never "off".
func TestFenceBelievesOnlyClearAnswers(t *testing.T) {
	for answer, want := range map[string]int{"on\n": fenceOK, "off\n": fenceOff, "ok\n": fenceFailed, "": fenceFailed, "of": fenceFailed,
		"error no such node\n": fenceFailed, "OFF\n": fenceFailed} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, answer)
			c.Close()
		}()
		in := strings.NewReader("action=status\nplug=node1\npower_timeout=5\nsocket=" + path + "\n")
		if got := fenceMain(in, io.Discard, io.Discard); got != want {
			t.Errorf("answer %q: exit status %d, want %d", answer, got, want)
		}
		l.Close()
	}
}

func TestMessagesCarryDescriptors(t *testing.T) {
	here, there, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	other, err := unixConn(there)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := send(here, lab.Request{Op: "x", Node: "n"}, f, f); err != nil {
		t.Fatal(err)
	}
	var got lab.Request
	files, err := receive(other, &got)
	if err != nil || got.Op != "x" || len(files) != 2 {
		t.Fatalf("%+v, %d descriptors, %v", got, len(files), err)
	}
	closeAll(files)
	if err := send(here, lab.Request{Argv: []string{strings.Repeat("x", lab.MaxMessage)}}); err == nil {
		t.Error("a message that is too large was sent")
	}
	if _, _, err := here.WriteMsgUnix([]byte("not json"), syscall.UnixRights(int(f.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if files, err := receive(other, &got); err == nil || files != nil {
		t.Errorf("nonsense was taken: %v, %d descriptors", err, len(files))
	}
	here.Close()
	if _, err := receive(other, &got); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	other.Close()
}

func TestEventLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	l, err := newEventLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	events, cancel := l.subscribe()
	slow, _ := l.subscribe()
	for i := range 3 * keptEvents {
		l.add(lab.Event{Kind: "k", PID: i})
		if e := <-events; e.PID != i || e.Time.IsZero() {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	cancel()
	cancel() // twice does no harm
	n := 0
	for range slow { // one that does not listen is cut off, with what it has
		n++
	}
	if n == 0 || n >= 3*keptEvents {
		t.Errorf("the slow one got %d events", n)
	}
	if got := l.newest(10); len(got) != 10 || got[9].PID != 3*keptEvents-1 {
		t.Errorf("newest: %+v", got)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Count(string(b), "\n") != 3*keptEvents || !json.Valid([]byte(strings.SplitN(string(b), "\n", 2)[0])) {
		t.Errorf("the file: %d bytes, %v", len(b), err)
	}
}

// The watcher's proof of an overlap is a second look at the earlier node.
func TestOverlapNeedsProof(t *testing.T) {
	var out strings.Builder
	w := &watcher{o: watchOptions{format: "text", ignore: []string{"/mnt/*"}}, out: &out, open: map[string]*lab.Overlap{}}
	h := lab.Holding{Kind: "address", What: "10.1.1.1"}
	a := &watched{name: "a", held: map[lab.Holding]string{h: ""}} // no eyes: a second look finds nothing
	b := &watched{name: "b", held: map[lab.Holding]string{h: ""}}
	w.nodes = []*watched{a, b}
	w.checkOverlaps(lockSample{})
	if len(w.open) != 0 {
		t.Errorf("what moved between two looks was flagged: %v", w.open)
	}
	wanted := lab.Holding{Kind: "lock", What: "/shared/x"}
	w.checkOverlaps(lockSample{wanted: map[lab.Holding][]string{wanted: {"b", "a"}}})
	w.checkOverlaps(lockSample{wanted: map[lab.Holding][]string{wanted: {"b", "a"}, {Kind: "lock", What: "/mnt/x"}: {"a", "b"}}})
	w.checkOverlaps(lockSample{})
	if len(w.report.Overlaps) != 1 || w.report.Overlaps[0].Seen != 2 || !slices.Equal(w.report.Overlaps[0].Nodes, []string{"a", "b"}) {
		t.Errorf("%+v", w.report.Overlaps)
	}
	if !strings.Contains(out.String(), "OVERLAP: lock /shared/x on a and b") {
		t.Errorf("told: %s", out.String())
	}
}

func TestReportOfAProbe(t *testing.T) {
	p := &prober{o: probeOptions{format: "jsonl", threshold: 50 * time.Millisecond, interval: 10 * time.Millisecond}, out: io.Discard}
	begin := time.Now()
	p.report = lab.ProbeReport{Begin: begin, Threshold: p.o.threshold}
	p.last, p.begun = begin, begin
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	one, two := lab.Answerer{Node: "node1", PID: 1}, lab.Answerer{Node: "node2", PID: 1}
	for _, a := range []attempt{
		{end: at(500), from: one}, // late, but the first: silence before it is no outage
		{end: at(540), from: one},
		{end: at(530), from: one}, // overtaken
		{end: at(580), err: errors.New("refused")},
		{end: at(700), from: two},
		{end: at(750), from: two},
	} {
		p.report.Attempts++
		p.take(a)
	}
	if len(p.report.Outages) != 1 || p.report.Answers != 5 || p.report.Failed != 1 {
		t.Fatalf("%+v", p.report)
	}
	if o := p.report.Outages[0]; o.Length != 160*time.Millisecond || o.Before != one || o.After != two || o.Open {
		t.Errorf("%+v", o)
	}
	p.checkSilence(at(790))
	if p.silent {
		t.Error("silent too early")
	}
	p.checkSilence(at(810))
	if !p.silent {
		t.Error("not silent")
	}
	p.last = time.Now().Add(-time.Second)
	p.finish()
	if o := p.report.Outages[1]; !o.Open || o.Length < time.Second || o.After != (lab.Answerer{}) {
		t.Errorf("%+v", o)
	}
	if p.report.Longest() != p.report.Outages[1].Length {
		t.Errorf("longest: %v", p.report.Longest())
	}
}

// The first interfaces of a node are those that it always had; the second ones on each network follow.
func TestPorts(t *testing.T) {
	for _, c := range []struct {
		networks, links int
		want            string
	}{
		{1, 0, "net1: [eth0]"}, {2, 1, "net1: [eth0], net2: [eth1]"}, {1, 3, "net1: [eth0, eth1, eth2]"},
		{2, 2, "net1: [eth0, eth2], net2: [eth1, eth3]"},
	} {
		cfg := &lab.Config{Networks: c.networks, Links: c.links}
		if got := strings.Join(interfacesOf(cfg), ", "); got != c.want || cfg.Ports() != c.networks*max(c.links, 1) {
			t.Errorf("%d networks, %d links: %s, %d ports", c.networks, c.links, got, cfg.Ports())
		}
		n := &node{name: "node1", index: 1, sup: &supervisor{cfg: cfg}}
		for p := 1; p <= cfg.Ports(); p++ {
			if got, err := n.ports(lab.InterfaceName(p)); err != nil || len(got) != 1 || got[0] != p {
				t.Errorf("interface of port %d: %v, %v", p, got, err)
			}
			if own := n.ownAddress(p); (own != "") != (p <= c.networks) {
				t.Errorf("port %d has the address %q", p, own)
			}
		}
		if got, err := n.ports("net1"); err != nil || len(got) != max(c.links, 1) {
			t.Errorf("ports of net1: %v, %v", got, err)
		}
		if _, err := n.ports("net9"); err == nil || !strings.Contains(err.Error(), "no network or interface") {
			t.Errorf("a network that does not exist: %v", err)
		}
	}
}
