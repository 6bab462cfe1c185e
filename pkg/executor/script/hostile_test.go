package script_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// TestNoValueReachesAShell: what an administrator writes after the script's path arrives at the script word by word, whatever it looks
// like, and none of it is run. The way is clmgr's: the attribute's text, split, in the definition, as arguments.
func TestNoValueReachesAShell(t *testing.T) {
	w := newWorld(t, "", nil)
	trap := filepath.Join(w.dir, "trap")
	args := []string{"$(touch " + trap + ")", "`touch " + trap + "`", "; touch " + trap, "&& touch " + trap, "| touch " + trap, "> " + trap, "*", "?", "~root", "${IFS}", "$HOME",
		`it's "quoted"`, `\`, "-rf", "--", "", "a=b", "LD_PRELOAD=/x", "über 名前", "!!", "#", "%s%n", "a  b", "$'\\n'"}
	r := w.app(t, "args", `for a in "$@"; do printf '%s\0' "$a"; done >`+w.dir+"/args; env >"+w.dir+"/env", "exit 0")
	class, err := cluster.FindClass("application_controller")
	if err != nil {
		t.Fatal(err)
	}
	d := &cluster.Definition{}
	err = class.Add(d, "args", []cluster.Assignment{{Attribute: "STARTSCRIPT", Value: cluster.JoinCommand(append([]string{r.App.StartScript}, args...))},
		{Attribute: "STOPSCRIPT", Value: r.App.StopScript}})
	if err != nil {
		t.Fatal(err)
	}
	a := d.ApplicationController("args")
	r.App.StartScript, r.App.StartArgs = a.StartScript, a.StartArgs
	expect(t, w.x.Start(t.Context(), r), executor.Running, "")
	got, err := os.ReadFile(w.dir + "/args")
	if err != nil {
		t.Fatal(err)
	}
	if list := strings.Split(strings.TrimSuffix(string(got), "\x00"), "\x00"); !slices.Equal(list, args) {
		t.Errorf("the script got\n%q\nwanted\n%q", list, args)
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("something of a value was run")
	}
	env, err := os.ReadFile(w.dir + "/env")
	if err != nil || strings.Contains(string(env), "LD_PRELOAD") {
		t.Errorf("an argument has come into the environment: %v\n%s", err, env)
	}
}
