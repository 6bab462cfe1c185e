package collect

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileAt(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		want func(verify.File) bool
	}{
		"a script":         {"#!/bin/sh -e\n:\n", 0o755, func(f verify.File) bool { return f.Script == "/bin/sh" && f.Runner && !f.NoHead && f.Digest != "" }},
		"no interpreter":   {"#!/no/such/thing\n", 0o755, func(f verify.File) bool { return f.Script == "/no/such/thing" && !f.Runner }},
		"from Windows":     {"#!/bin/sh\r\n:\r\n", 0o755, func(f verify.File) bool { return f.CRLF }},
		"without a head":   {"echo hello\n", 0o755, func(f verify.File) bool { return f.NoHead }},
		"a program":        {"\x7fELF....", 0o755, func(f verify.File) bool { return !f.NoHead && f.Script == "" }},
		"empty":            {"", 0o755, func(f verify.File) bool { return f.Size == 0 && !f.NoHead }},
		"not executable":   {"#!/bin/sh\n", 0o644, func(f verify.File) bool { return f.Mode == 0o644 && f.Unsafe == "" }},
		"for all to write": {"#!/bin/sh\n", 0o777, func(f verify.File) bool { return f.Unsafe != "" }},
	} {
		if f := FileAt(write(t, dir, strings.ReplaceAll(name, " ", "_"), tc.text, tc.mode)); !f.Exists || f.Kind != "file" || f.Error != "" || !tc.want(f) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := FileAt(filepath.Join(dir, "nothing")); f.Exists || f.Error != "" {
		t.Errorf("a missing file: %+v", f)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if f := FileAt(filepath.Join(dir, "link")); f.Exists || f.Error == "" {
		t.Errorf("a link to nothing: %+v", f)
	}
	if f := FileAt(dir); f.Kind != "directory" || f.Empty {
		t.Errorf("a directory: %+v", f)
	}
	if f := FileAt(t.TempDir()); !f.Empty {
		t.Errorf("an empty directory: %+v", f)
	}
}

func TestFstab(t *testing.T) {
	got := parseFstab(`# comment
UUID=abc / ext4 defaults 0 1
/dev/mapper/app	/app	ext4	noauto,noatime	0 0
/dev/mapper/b   /with\040blank xfs
/dev/mapper/c /c ext4 noauto,x-systemd.automount
broken
`)
	want := []verify.Mount{{Source: "UUID=abc", Point: "/", Type: "ext4", Auto: true, Line: 2}, {Source: "/dev/mapper/app", Point: "/app", Type: "ext4", Line: 3},
		{Source: "/dev/mapper/b", Point: "/with blank", Type: "xfs", Auto: true, Line: 4}, {Source: "/dev/mapper/c", Point: "/c", Type: "ext4", Auto: true, Line: 5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestFilesystemsOfAIX(t *testing.T) {
	got := parseFilesystems("* comment\n/app:\n\tdev\t\t= /dev/applv\n\tvfs\t\t= jfs2\n\tmount\t\t= true\n\n/b:\n\tdev = \"/dev/blv\"\n\tmount = false\n")
	want := []verify.Mount{{Source: "/dev/applv", Point: "/app", Type: "jfs2", Auto: true, Line: 2}, {Source: "/dev/blv", Point: "/b", Line: 7}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestNoAuto(t *testing.T) {
	table := "# app\n/dev/a /a ext4 defaults,noatime 0 2\n/dev/b /b xfs\n/dev/c /c xfs noauto 0 0\n"
	for name, tc := range map[string]struct{ source, point, want string }{
		"with options":    {"/dev/a", "/a", "# app\n/dev/a\t/a\text4\tnoauto,noatime\t0\t2\n/dev/b /b xfs\n/dev/c /c xfs noauto 0 0\n"},
		"without options": {"/dev/b", "/b", "# app\n/dev/a /a ext4 defaults,noatime 0 2\n/dev/b\t/b\txfs\tnoauto\n/dev/c /c xfs noauto 0 0\n"},
		"so already":      {"/dev/c", "/c", ""},
		"another place":   {"/dev/a", "/b", ""},
	} {
		got, ok := noAuto(table, tc.source, tc.point)
		if ok != (tc.want != "") || ok && got != tc.want {
			t.Errorf("%s: %t %q", name, ok, got)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("/dev/a /a ext4 defaults 0 0\n/app:\n\tdev = /dev/x\n", "/dev/a", "/a")
	f.Fuzz(func(t *testing.T, text, source, point string) {
		parseFilesystems(text)
		changed, ok := noAuto(text, source, point)
		if !ok {
			return
		}
		for _, m := range parseFstab(changed) {
			if m.Source == unescape(source) && m.Point == unescape(point) && m.Auto && source == unescape(source) && point == unescape(point) {
				t.Errorf("still mounted at boot: %q", changed)
			}
		}
		if len(strings.Split(changed, "\n")) != len(strings.Split(text, "\n")) {
			t.Errorf("lines were lost: %q -> %q", text, changed)
		}
	})
}

func TestRepair(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(dir, "deep", "app")
	if did, err := Repair(verify.Action{Kind: verify.ActionMkdir, Path: point, Mode: 0o755}); err != nil || !strings.Contains(did, point) {
		t.Fatalf("%q %v", did, err)
	}
	if did, err := Repair(verify.Action{Kind: verify.ActionMkdir, Path: point, Mode: 0o755}); err != nil || did != "" {
		t.Errorf("a second time: %q %v", did, err)
	}
	script := write(t, dir, "start", "#!/bin/sh\n", 0o600)
	if did, err := Repair(verify.Action{Kind: verify.ActionChmod, Path: script, Mode: 0o755}); err != nil || !strings.Contains(did, "0755") {
		t.Errorf("%q %v", did, err)
	}
	if info, _ := os.Stat(script); info.Mode().Perm() != 0o755 {
		t.Errorf("the mode is %v", info.Mode())
	}
	// Links are left to a human: the repair would reach something else.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(script, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(verify.Action{Kind: verify.ActionChmod, Path: link, Mode: 0o777}); err == nil {
		t.Error("a link was followed")
	}
	if err := os.Symlink(dir, filepath.Join(dir, "way")); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(verify.Action{Kind: verify.ActionMkdir, Path: filepath.Join(dir, "way", "x"), Mode: 0o755}); err == nil {
		t.Error("a link on the way was followed")
	}
	for _, bad := range []verify.Action{{Kind: "rm", Path: script}, {Kind: verify.ActionMkdir, Path: "relative"}, {Kind: verify.ActionMkdir, Path: "/x\ny"}} {
		if _, err := Repair(bad); err == nil {
			t.Errorf("%+v was done", bad)
		}
	}
}

func TestRepairOfTheTable(t *testing.T) {
	dir := t.TempDir()
	tableFile = write(t, dir, "fstab", "/dev/a /a ext4 defaults 0 2\n", 0o644)
	t.Cleanup(func() { tableFile = "/etc/fstab" })
	did, err := Repair(verify.Action{Kind: verify.ActionNoAuto, Path: "/dev/a", Line: "/a"})
	text, _ := os.ReadFile(tableFile)
	old, _ := os.ReadFile(tableFile + ".holdfast")
	if err != nil || did == "" || !strings.Contains(string(text), "noauto") || !strings.Contains(string(old), "defaults") {
		t.Errorf("%q %v %q %q", did, err, text, old)
	}
}

// A look comes back with what it has, whatever does not answer, and says what that was.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	script := write(t, dir, "start", "#!/bin/sh\n", 0o755)
	d := &cluster.Definition{Nodes: []cluster.Node{{Name: "n1"}}, FileSystems: []cluster.FileSystem{{Name: "f", Device: "/dev/no-such-device", MountPoint: dir, Type: "ext4"}},
		Methods: []cluster.Method{{Name: "m", File: script}}, ApplicationMonitors: []cluster.ApplicationMonitor{{Name: "m", Owner: "root"}, {Name: "n", Owner: "no-such-user"}}}
	f := Look(context.Background(), Options{Node: "n1", Definition: d, Places: []Place{{Path: dir, Purpose: "the daemon's state"}}, Keys: []string{script}})
	if f.Files[script].Digest == "" || f.System.Hostname == "" || len(f.Interfaces) == 0 || f.Users["root"] != "0" || f.Users["no-such-user"] != "" || !f.Daemon.Files[script].Exists {
		t.Errorf("%+v", f)
	}
	late := Look(context.Background(), Options{Node: "n1", Definition: d, Limit: time.Nanosecond})
	if late.Took > 3*time.Second || len(late.Missed) == 0 {
		t.Errorf("took %v, missed %v", late.Took, late.Missed)
	}
}
