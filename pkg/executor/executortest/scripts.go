package executortest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// ScriptDir makes a directory, for the time of the test, in which scripts pass executor.CheckScript: the temporary directory
// does not do, because everybody can write it.
func ScriptDir(t testing.TB) string {
	t.Helper()
	home, _ := os.UserHomeDir()
	work, _ := os.Getwd()
	for _, parent := range []string{"/run", "/var/lib", home, work} {
		if parent == "" {
			continue
		}
		dir, err := os.MkdirTemp(parent, "holdfast-test-")
		if err != nil {
			continue
		}
		probe := filepath.Join(dir, "probe")
		err = os.WriteFile(probe, []byte("#!/bin/sh\n"), 0o700)
		if err == nil {
			err = executor.CheckScript(probe)
		}
		_ = os.Remove(probe)
		if err == nil {
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			return dir
		}
		_ = os.Remove(dir)
	}
	t.Fatal("no directory on this machine is safe for scripts: /run, /var/lib, the home and the working directory were tried")
	return ""
}

// Script writes an executable shell script into dir and returns its path.
func Script(t testing.TB, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Runner makes a runner with a state directory of its own. cgroups is executor.RunnerOptions.CgroupRoot.
func Runner(t testing.TB, cgroups string) *executor.Runner {
	t.Helper()
	r, err := executor.NewRunner(executor.RunnerOptions{Dir: t.TempDir(), Node: "n1", CgroupRoot: cgroups})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
