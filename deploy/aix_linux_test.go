package deploy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

var update = flag.Bool("update", false, "keep the emulator's capture as the fixture of the executors' tests")

// The test's own program is the emulator of AIX's commands, when it is called by the name of one.
func TestMain(m *testing.M) {
	if fake.Called(os.Args[0]) {
		os.Exit(fake.Main(os.Args))
	}
	os.Exit(m.Run())
}

// emulator makes a node of the emulator: its commands' directory and its state.
func emulator(t *testing.T) (dir string, cfg fake.Config) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir = filepath.Join(root, "bin")
	cfg = fake.Config{Node: "lpar1", Shared: filepath.Join(root, "shared"), ODM: filepath.Join(root, "odm"), Run: filepath.Join(root, "run")}
	if err := fake.Install(dir, self, cfg); err != nil {
		t.Fatal(err)
	}
	change(t, cfg, func(w *fake.World) {
		w.Shared.Groups["id1"] = &fake.Group{Name: "datavg", ID: "id1", Timestamp: "61a5f0c81c2e7f3a", Quorum: true,
			Volumes: map[string]*fake.Volume{"datalv": {Type: "jfs2", Point: "/data"}}}
		w.Shared.Disks["00f6f42a8bd9ee03"] = &fake.Disk{Group: "id1", Policy: "no_reserve"}
		w.ODM.Disks["hdisk2"] = "00f6f42a8bd9ee03"
		w.ODM.Groups["datavg"] = &fake.Known{ID: "id1", Timestamp: "61a5f0c81c2e7f3a", Volumes: []string{"datalv"}}
		w.Run.Interfaces = []*fake.Interface{{Name: "en0", Addresses: []string{"10.1.1.1/24"}}, {Name: "en1", Virtual: true, Addresses: []string{"10.2.2.1/24"}}}
		w.ODM.Subsystems["syslogd"] = &fake.Subsystem{Group: "ras", Path: "/usr/sbin/syslogd"}
		w.Run.Running["syslogd"] = fake.Process{PID: -1, Status: "active"}
		w.ODM.Inittab = []string{"init:2:initdefault:", "rctcpip:23456789:wait:/etc/rc.tcpip > /dev/console 2>&1", "cron:23456789:respawn:/usr/sbin/cron"}
	})
	return dir, cfg
}

func change(t *testing.T, cfg fake.Config, f func(w *fake.World)) {
	t.Helper()
	if err := fake.Change(cfg, f); err != nil {
		t.Fatal(err)
	}
}

// shells lists the shells with which the scripts for AIX must work: a plain POSIX one, and a Korn shell.
func shells(t *testing.T) []string {
	t.Helper()
	out := []string{"sh", "bash"}
	if _, err := exec.LookPath("mksh"); err == nil {
		return append(out, "mksh")
	}
	t.Log("left out: the Korn shell (mksh is not installed)")
	return out
}

func TestCaptureKit(t *testing.T) {
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			dir, cfg := emulator(t)
			command(t, dir, "varyonvg", "datavg")
			before := state(t, cfg)
			file := filepath.Join(t.TempDir(), "capture.txt")
			run := func(args ...string) (string, error) {
				c := exec.Command(shell, append([]string{"aix/capture.sh"}, args...)...)
				c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "LANG=de_DE"}
				out, err := c.CombinedOutput()
				return string(out), err
			}
			if out, err := run("-t", "20", file); err != nil || !strings.Contains(out, "is written") {
				t.Fatalf("%v: %s", err, out)
			}
			if after := state(t, cfg); after != before {
				t.Errorf("it has changed something:\n%s\n%s", before, after)
			}
			checkCapture(t, file)
			if *update {
				if err := os.WriteFile("../pkg/executor/aix/testdata/emulator.capture", []byte(read(t, file)), 0o644); err != nil {
					t.Error(err)
				}
			}
			if out, err := run(file); err == nil {
				t.Errorf("an existing file is overwritten: %s", out)
			}
			for _, bad := range [][]string{{"-t", "x"}, {"-t", "0"}, {"-z"}, {"a", "b"}} {
				_, err := run(bad...)
				if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 2 {
					t.Errorf("%v: %v, want exit status 2", bad, err)
				}
			}
		})
	}
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func state(t *testing.T, cfg fake.Config) string {
	t.Helper()
	return read(t, filepath.Join(cfg.Shared, "shared.json")) + read(t, filepath.Join(cfg.ODM, "odm.json")) + read(t, filepath.Join(cfg.Run, "run.json"))
}

func checkCapture(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := fake.ReadCapture(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) < 70 {
		t.Errorf("only %d records", len(records))
	}
	find := func(line string) fake.Record {
		for _, r := range records {
			if r.C && strings.TrimSpace(r.Command+" "+strings.Join(r.Args, " ")) == line {
				return r
			}
		}
		t.Errorf("%q is not recorded", line)
		return fake.Record{}
	}
	for line, want := range map[string]struct {
		status   int
		out, err string
	}{
		"lsvg -o":                    {0, "datavg\n", ""},
		"lsvg hfnosuchvg":            {1, "", "0516-306"},
		"lsvg -L datavg":             {0, "VOLUME GROUP:", ""},
		"lssrc -s hfnosuchsubsys":    {1, "", "0513-085"},
		"lsitab hfnosuchentry":       {1, "", ""},
		"entstat -d en1":             {0, "LAN State: Operational", ""},
		"devrsrv -c query -l hdisk2": {0, "NO RESERVE", ""},
		"lscluster -m":               {127, "", "lscluster"},
		"varyonvg":                   {1, "", "Usage: varyonvg"},
	} {
		if r := find(line); r.Status != want.status || !strings.Contains(r.Out, want.out) || !strings.Contains(r.Err, want.err) {
			t.Errorf("%s is recorded as %+v", line, r)
		}
	}
	if records[0].C || records[0].Command != "lsvg" {
		t.Errorf("the first command is not run with the language as it is: %+v", records[0])
	}
}

// A command that hangs is ended, recorded, and keeps nobody up.
func TestCaptureKitEndsWhatHangs(t *testing.T) {
	dir, cfg := emulator(t)
	change(t, cfg, func(w *fake.World) { w.Run.Faults = []*fake.Fault{{Command: "lspath", Mode: "slow", Millis: 600_000}} })
	file := filepath.Join(t.TempDir(), "capture.txt")
	c := exec.Command("sh", "aix/capture.sh", "-t", "2", file)
	c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := fake.ReadCapture(f)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(records, func(r fake.Record) bool { return r.Command == "lspath" })
	if i < 0 || records[i].Status < 128 {
		t.Errorf("the command that hangs is recorded as %+v", records[max(i, 0)])
	}
}

func TestCaptureKitRefusesOtherSystems(t *testing.T) {
	file := filepath.Join(t.TempDir(), "capture.txt")
	out, err := exec.Command("sh", "aix/capture.sh", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not AIX") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("and yet it wrote the file")
	}
}

func TestInstallOnTheEmulator(t *testing.T) {
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			dir, cfg := emulator(t)
			root := t.TempDir()
			bin := filepath.Join(root, "sbin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"cldeadman", "clstrmgrd", "holdfast_errnotify"} {
				if err := os.WriteFile(filepath.Join(bin, p), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			run := func(fail bool, args ...string) string {
				t.Helper()
				c := exec.Command(shell, append([]string{"aix/install.sh"}, args...)...)
				c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOLDFAST_ROOT=" + root}
				out, err := c.CombinedOutput()
				if (err != nil) != fail {
					t.Fatalf("install.sh %v: %v: %s", args, err, out)
				}
				return string(out)
			}
			for range 2 { // again: nothing is there twice
				run(false, "install", bin)
				installed(t, cfg, bin)
			}
			if out := run(false, "check", bin); !strings.Contains(out, "hfdeadman") || !strings.Contains(out, "LVM_SA_QUORCLOSE") {
				t.Errorf("check says %s", out)
			}
			run(false, "remove", bin)
			change(t, cfg, func(w *fake.World) {
				if len(w.ODM.Subsystems) != 1 || len(w.ODM.Inittab) != 3 || len(w.ODM.Notify) != 0 {
					t.Errorf("after the removal: %+v %q %q", w.ODM.Subsystems, w.ODM.Inittab, w.ODM.Notify)
				}
				w.ODM.Subsystems["clstrmgrES"] = &fake.Subsystem{Path: "/usr/es/sbin/cluster/clstrmgr", Group: "cluster"}
				w.Run.Running["clstrmgrES"] = fake.Process{PID: -1, Status: "active"}
			})
			if out := run(true, "install", bin); !strings.Contains(out, "PowerHA") {
				t.Errorf("beside PowerHA: %s", out)
			}
			run(true)
		})
	}
}

func installed(t *testing.T, cfg fake.Config, bin string) {
	t.Helper()
	change(t, cfg, func(w *fake.World) {
		for name, program := range map[string]string{"hfdeadman": "cldeadman", "holdfast": "clstrmgrd"} {
			s := w.ODM.Subsystems[name]
			if s == nil || s.Path != filepath.Join(bin, program) || !s.Respawn || !s.Signals || s.Wait != 30 || s.Group != "holdfast" {
				t.Errorf("subsystem %s: %+v", name, s)
			}
		}
		var ids []string
		for _, l := range w.ODM.Inittab {
			id, _, _ := strings.Cut(l, ":")
			ids = append(ids, id)
		}
		if got := fmt.Sprint(ids); got != "[init rctcpip hfdeadman holdfast cron]" {
			t.Errorf("inittab: %s", got)
		}
		if len(w.ODM.Notify) != 2 || !strings.Contains(w.ODM.Notify[0], `en_method = "`+bin+`/holdfast_errnotify $1 $6 $9"`) {
			t.Errorf("errnotify: %q", w.ODM.Notify)
		}
	})
}
