package aix

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

// The texts are as they are published for AIX 7.2 and 7.3, with what makes them hard to read.

const ifconfigText = `en0: flags=1e084863,104c0<UP,BROADCAST,NOTRAILERS,RUNNING,SIMPLEX,MULTICAST,GROUPRT,64BIT,CHECKSUM_OFFLOAD(ACTIVE),LARGESEND,CHAIN>
        inet 10.10.10.101 netmask 0xffffff00 broadcast 10.10.10.255
        inet 10.10.10.102 netmask 0xffffff00 broadcast 10.10.10.255
         tcp_sendspace 262144 tcp_recvspace 262144 rfc1323 1
en1: flags=5e080862,c0<BROADCAST,NOTRAILERS,RUNNING,SIMPLEX,MULTICAST,GROUPRT,64BIT> metric 1
        inet 172.29.174.59 broadcast 172.29.191.255
        inet6 2001:db8::5%3/64
en2: flags=1e084863,104c0<UP,BROADCAST,RUNNING,QUORUMLOSS>
lo0: flags=e08084b,c0<UP,BROADCAST,LOOPBACK,RUNNING,SIMPLEX,MULTICAST,GROUPRT,64BIT,LARGESEND,CHAIN>
        inet 127.0.0.1 netmask 0xff000000 broadcast 127.255.255.255
        inet6 ::1%1/0
         tcp_sendspace 131072 tcp_recvspace 131072 rfc1323 1
`

func TestParseIfconfig(t *testing.T) {
	all, err := parseIfconfig(ifconfigText)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range all {
		got = append(got, fmt.Sprint(i.name, i.up, i.quorumOff, i.addresses))
	}
	want := []string{"en0 true false [10.10.10.101/24 10.10.10.102/24]", "en1 false false [172.29.174.59/32 2001:db8::5/64]", "en2 true true []",
		"lo0 true false [127.0.0.1/8 ::1/0]"}
	if text := strings.ReplaceAll(strings.Join(got, "\n"), " ", ""); text != strings.ReplaceAll(strings.Join(want, "\n"), " ", "") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, bad := range []string{"", "ifconfig: not found", "en0: flags=1<UP>\n\tinet 10.1.1 netmask 0xffffff00", "en0: flags=1<UP>\n\tinet 10.1.1.1 netmask zz"} {
		if _, err := parseIfconfig(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestParseNetstat(t *testing.T) {
	names, up, err := parseNetstat(`Name  Mtu   Network     Address            Ipkts Ierrs    Opkts Oerrs  Coll
en0   1500  link#2      a.c6.24.39.41.3    162325     0    60252     0     0
en0   1500  10.32.77    10.32.77.30        162325     0    60252     0     0
lo0*  16896 link#1                           2237     0     2237     0     0
`)
	if err != nil || !slices.Equal(names, []string{"en0", "lo0"}) || !up["en0"] || up["lo0"] {
		t.Error(names, up, err)
	}
	if _, _, err := parseNetstat("Name  Mtu\n"); err == nil {
		t.Error("nothing is read as something")
	}
}

func TestParseEntstat(t *testing.T) {
	for text, want := range map[string]linkState{
		"Driver Flags: Up Broadcast Running\nLink Status : Up\n": linkUp,
		"Link Status : Down\n":                                                          linkDown,
		"LAN State: Operational\nPort VLAN ID:     1\n":                                 linkUp,
		"Adapter Data Rate: 20000\nDriver Flags: Up Broadcast Running\n":                linkUnknown,
		"ETHERNET STATISTICS (ent3) :\nLink Status : Down\nLink Status : Up\nRuns: 1\n": linkUp, // an aggregate with one port
		"": linkUnknown,
	} {
		if got := parseEntstat(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

const lsvgText = `VOLUME GROUP:       testvg                   VG IDENTIFIER:  00f6f42a00004c000000017a0bd88942
VG STATE:           active                   PP SIZE:        16 megabyte(s)
VG PERMISSION:      read/write               TOTAL PPs:      2550 (40800 megabytes)
MAX LVs:            256                      FREE PPs:       2550 (40800 megabytes)
LVs:                0                        USED PPs:       0 (0 megabytes)
OPEN LVs:           0                        QUORUM:         2 (Enabled)
TOTAL PVs:          2                        VG DESCRIPTORS: 3
STALE PVs:          0                        STALE PPs:      0
ACTIVE PVs:         2                        AUTO ON:        yes
Concurrent:         Enhanced-Capable         Auto-Concurrent: Disabled
VG Mode:            Concurrent
Node ID:            1                        Active Nodes:       2
MAX PPs per VG:     32768                    MAX PVs:        1024
LTG size (Dynamic): 256 kilobyte(s)          AUTO SYNC:      no
HOT SPARE:          no                       BB POLICY:      relocatable
MIRROR POOL STRICT: off
PV RESTRICTION:     none                     INFINITE RETRY: no
DISK BLOCK SIZE:    512                      CRITICAL VG:    no
FS SYNC OPTION:     no                       CRITICAL PVs:   no
ENCRYPTION:         no
`

func TestParseLsvg(t *testing.T) {
	g, err := parseLsvg(lsvgText)
	want := &vgInfo{name: "testvg", id: "00f6f42a00004c000000017a0bd88942", state: "active", permission: "read/write", quorum: "2 (Enabled)",
		total: 2, active: 2, stale: 0, open: 0, autoOn: true, enhanced: true, mode: "Concurrent"}
	if err != nil || !reflect.DeepEqual(g, want) {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := parseLsvg(strings.Replace(lsvgText, "read/write  ", "passive-only", 1)); err != nil || g.permission != "passive-only" {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := parseLsvg("0516-010 lsvg: Volume group must be varied on; use varyonvg command.\n"); err == nil {
		t.Error("a message is read as a volume group")
	}
}

func TestParseVolumesAndDisks(t *testing.T) {
	got := parseVolumes(`rootvg:
LV NAME             TYPE       LPs     PPs     PVs  LV STATE      MOUNT POINT
hd5                 boot       1       1       1    closed/syncd  N/A
hd8                 jfs2log    1       1       1    open/syncd    N/A
hd4                 jfs2       106     106     1    open/stale    /
`)
	want := []lvInfo{{name: "hd5", kind: "boot"}, {name: "hd8", kind: "jfs2log", open: true}, {name: "hd4", kind: "jfs2", open: true, stale: true, point: "/"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	pvs := parseLspv(`hdisk0          00f6f5d0387342bc                    rootvg          active
hdisk1          none                                None
hdisk2          00f6f5d0387342bd                    datavg
hdisk3          00f6f5d0387342be                    caavg_private   locked
0516-304 lspv: Unable to find device id
`)
	if fmt.Sprint(pvs) != "[{hdisk0 00f6f5d0387342bc rootvg active} {hdisk1   } {hdisk2 00f6f5d0387342bd datavg } {hdisk3 00f6f5d0387342be caavg_private locked}]" {
		t.Errorf("%v", pvs)
	}
	d := parseDisks("datavg:\nPV_NAME           PV STATE          TOTAL PPs   FREE PPs    FREE DISTRIBUTION\nhdisk2            active            1275        1275        255..255..255..255..255\n" +
		"00f6f5d0387342be  missing           1275        10          255..255..255..255..255\n")
	if d["hdisk2"] != "active" || d["00f6f5d0387342be"] != "missing" || len(d) != 2 {
		t.Error(d)
	}
}

func TestParseMounts(t *testing.T) {
	all, err := parseMounts(`  node       mounted        mounted over    vfs       date        options
-------- ---------------  ---------------  ------ ------------ ---------------
         /dev/hd4         /                jfs2   Jul 17 13:22 rw,log=/dev/hd8
192.168.1.11 /stage/a     /stage/b         nfs3   Jul 17 13:24 ro,bg,hard,intr,sec=sys
         /dev/averylonglogicalvolume /a/very/long/mount/point/that/overflows jfs2   Jul 17 13:22 rw,log=INLINE
         Global           /proc            namefs Jul 17 13:22
`)
	want := []mounted{{device: "/dev/hd4", point: "/", vfs: "jfs2", options: []string{"rw", "log=/dev/hd8"}},
		{node: "192.168.1.11", device: "/stage/a", point: "/stage/b", vfs: "nfs3", options: []string{"ro", "bg", "hard", "intr", "sec=sys"}},
		{device: "/dev/averylonglogicalvolume", point: "/a/very/long/mount/point/that/overflows", vfs: "jfs2", options: []string{"rw", "log=INLINE"}},
		{device: "Global", point: "/proc", vfs: "namefs"}}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%+v, %v", all, err)
	}
	for _, bad := range []string{"", "mount: 0506-000 no", "--------\n /dev/hd4 / jfs2\n"} {
		if _, err := parseMounts(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestParseLssrc(t *testing.T) {
	got := parseLssrc(`Subsystem         Group            PID          Status
 syslogd          ras              10223970     active
 qdaemon          spooler                       inoperative
 aso                               9306448      active
 cdromd                                         inoperative
 odd              line of          words        here
0513-085 The x Subsystem is not on file.
`)
	want := []subsystem{{"syslogd", "active", 10223970}, {"qdaemon", "inoperative", 0}, {"aso", "active", 9306448}, {"cdromd", "inoperative", 0}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	// After a change of a running subsystem there are two rows.
	if res := judge("aso", []subsystem{{"aso", "inoperative", 0}, {"aso", "active", 7}}); res.Status != "running" {
		t.Errorf("%+v", res)
	}
	if res := judge("aso", nil); res.Status != "unknown" {
		t.Errorf("%+v", res)
	}
}

func TestParseTheRest(t *testing.T) {
	state, open := parseReservation(`Device Reservation State Information
==================================================
Device Name                     :  hdisk0
Device Open On Current Host?    :  YES
ODM Reservation Policy          :  SINGLE PATH RESERVE
Device Reservation State        :  SINGLE PATH RESERVE
Path Id of Reserved Path        :  0
`)
	if state != "SINGLE PATH RESERVE" || !open {
		t.Error(state, open)
	}
	if e := parseExports("/u02/share -sec=sys:krb5p:krb5i:krb5:dh,rw,root=192.168.1.10\n/x\n"); e["/u02/share"] != "sec=sys:krb5p:krb5i:krb5:dh,rw,root=192.168.1.10" || len(e) != 2 {
		t.Error(e)
	}
	arp := parseARP("  ? (10.1.1.5) at 0:11:25:e6:1:2 [ethernet] stored in bucket 3\n  ? (10.1.1.6) at (incomplete) \nbucket:    0     contains:    0 entries\n")
	if len(arp) != 1 || arp[netip.MustParseAddr("10.1.1.5")] == "" {
		t.Error(arp)
	}
	if u := parseUsers("/data1:   12345c(db2inst1)  6789c(root)\n", "/data1"); !slices.Equal(u, []int{12345, 6789}) {
		t.Error(u)
	}
	if netmask(24) != "255.255.255.0" || netmask(0) != "0.0.0.0" || netmask(32) != "255.255.255.255" || netmask(20) != "255.255.240.0" {
		t.Error("netmasks are wrong")
	}
}

// readers are the parsers by the command whose output they read; each says what it cannot be content with.
var readers = map[string]func(r fake.Record) error{
	"ifconfig -a": func(r fake.Record) error { _, err := parseIfconfig(r.Out); return err },
	"netstat -in": func(r fake.Record) error { _, _, err := parseNetstat(r.Out); return err },
	"entstat -d": func(r fake.Record) error {
		if parseEntstat(r.Out) == linkUnknown {
			return fmt.Errorf("no key says whether there is a link")
		}
		return nil
	},
	"lspv":    func(r fake.Record) error { return some(len(parseLspv(r.Out)), r) },
	"lsvg -L": func(r fake.Record) error { _, err := parseLsvg(r.Out); return err },
	"lsvg -l": func(r fake.Record) error { return some(len(parseVolumes(r.Out)), r) },
	"lsvg -p": func(r fake.Record) error { return some(len(parseDisks(r.Out)), r) },
	"mount":   func(r fake.Record) error { _, err := parseMounts(r.Out); return err },
	"lssrc":   func(r fake.Record) error { return some(len(parseLssrc(r.Out)), r) },
	"devrsrv": func(r fake.Record) error {
		if state, _ := parseReservation(r.Out); state == "" {
			return fmt.Errorf("no reservation state")
		}
		return nil
	},
}

func some(n int, r fake.Record) error {
	if n == 0 && strings.Count(r.Out, "\n") > 1 {
		return fmt.Errorf("nothing was read from %d lines", strings.Count(r.Out, "\n"))
	}
	return nil
}

func readerOf(r fake.Record) func(fake.Record) error {
	if len(r.Args) > 0 && r.Args[0] == "-L" && len(r.Args) > 2 || r.Command == "lssrc" && slices.ContainsFunc(r.Args, func(a string) bool { return strings.HasPrefix(a, "-S") }) ||
		r.Command == "lspv" && len(r.Args) > 0 {
		return nil
	}
	if len(r.Args) > 0 {
		if f := readers[r.Command+" "+r.Args[0]]; f != nil {
			return f
		}
	}
	return readers[r.Command]
}

// Whatever capture lies in testdata is read by the parsers: what was recorded on a real machine becomes a test by being put
// there. The one that is there was recorded on the emulator.
func TestCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.capture")
	if err != nil || len(files) == 0 {
		t.Fatal("there is no capture", err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		records, err := fake.ReadCapture(f)
		_ = f.Close()
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		read := 0
		for _, r := range records {
			if f := readerOf(r); f != nil && r.C && r.Status == 0 {
				read++
				if err := f(r); err != nil {
					t.Errorf("%s: %s %s: %v\n%s", path, r.Command, strings.Join(r.Args, " "), err, r.Out)
				}
			}
		}
		if read < 10 {
			t.Errorf("%s: only %d of %d records have a reader", path, read, len(records))
		}
	}
}

// No text makes a parser panic.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{ifconfigText, lsvgText, "", "-----\n a b c d Jul 17 13:22", "x: flags=1<UP>\n inet6 ::/999\n"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = parseIfconfig(s)
		_, _, _ = parseNetstat(s)
		_ = parseEntstat(s)
		_ = parseARP(s)
		_, _ = parseLsvg(s)
		_ = parseVolumes(s)
		_ = parseLspv(s)
		_ = parseDisks(s)
		_, _ = parseMounts(s)
		_ = parseLssrc(s)
		_ = parseExports(s)
		_, _ = parseReservation(s)
		_ = parseUsers(s, "/x")
	})
}
